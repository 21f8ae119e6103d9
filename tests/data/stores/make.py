"""Write the store of an earlier commit; run it in a checkout of that.

The store in this folder is of dd76916 (schema 2), made there by::

    PYTHONPATH=.:drivers:simulators:protocols:tests python make.py dd76916.sql.gz
"""

from __future__ import annotations

import copy
import gzip
import sqlite3
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from exercise import LAB, exercise
from mortal import MortalCell
from ppu.store import queue
from ppu.store.jobs import JobRequest


def main(out: Path) -> None:
    """Write the store of a cell that was killed while jobs ran and waited."""
    with tempfile.TemporaryDirectory() as folder:
        life = MortalCell(copy.deepcopy(LAB), Path(folder), {"exercise": exercise})

        def submit(*kinds: str, **more: Any) -> None:
            wanted = [
                JobRequest("exercise", "1", {"kind": kind, "number": n}, **more)
                for n, kind in enumerate(kinds)
            ]
            now = life.loop.stamp()
            life.store.write(partial(queue.submit_many, wanted=wanted, now=now))

        submit("press")
        life.start()
        life.advance(3000.0)
        submit("press", "nested")
        life.advance(0.5)
        submit("fire", "bare")
        submit("press", is_held=True)
        life.kill()
        life.close()
        with closing(sqlite3.connect(life.store_path)) as connection:
            script = "\n".join(connection.iterdump())
    out.write_bytes(gzip.compress(script.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
