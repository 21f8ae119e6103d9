"""Starts Debian's PostgreSQL for tests, on a Unix socket of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["HOW_TO_HAVE_IT", "can_be_started", "postgres"]

HOW_TO_HAVE_IT = (
    "needs PostgreSQL and psycopg: apt-get install postgresql; "
    "pip install 'ppu-lab[postgres]'"
)


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found is not None:
        folders.append(Path(found).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def can_be_started() -> bool:
    """Return whether it is installed, and somebody else than root may run it."""
    is_root = os.geteuid() == 0
    return _programs() is not None and not (is_root and not shutil.which("setpriv"))


@contextlib.contextmanager
def postgres(*, is_durable: bool) -> Iterator[str]:
    """Run a server in a temporary folder; give the URL of its database.

    Args:
        is_durable: Whether commits are on the disk, as they must be in earnest.
    """
    programs = _programs()
    assert programs is not None, HOW_TO_HAVE_IT
    folder = Path(tempfile.mkdtemp(prefix="ppu-pg-"))
    as_whom: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "nobody")
        as_whom = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603 - Debian's programs, our own arguments
            [*as_whom, str(programs / program), "-D", str(folder / "data"), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )

    try:
        run("initdb", "-U", "ppu", "-A", "trust", "--no-sync", "-E", "UTF8")
        fsync = "on" if is_durable else "off"
        options = f"-c listen_addresses='' -c fsync={fsync} -k {folder}"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://ppu@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
