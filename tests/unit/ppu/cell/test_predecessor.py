"""The cell that an earlier guard left behind: waited for, refused, or killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ppu.cell.heartbeat import GUARD_FD
from ppu.cell.predecessor import await_end
from ppu.core.errors import ConfigurationError, StoreBusyError
from ppu.core.labtime import LabTimeLoop
from ppu.store import cells
from ppu.store.store import Store

OWNS = """
import os, sys
from ppu.store import cells
from ppu.store.store import Store
with Store(sys.argv[2]) as store, store.own():
    pid = int(sys.argv[3]) or os.getpid()
    store.write(lambda c: cells.start(
        c, "lab", 0.0, pid=pid, boot_id=cells.boot_id(), epoch=0.0))
    print("owned", flush=True)
    sys.stdin.readline()
"""
"""A process that owns a store, until it hears something."""

Own = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The path of a store that is there."""
    path = tmp_path / "lab.sqlite"
    with Store(path):
        pass
    return str(path)


@pytest.fixture
def own(store: str) -> Iterator[Own]:
    """Starts a process that owns the store, as a cell does."""
    with contextlib.ExitStack() as ends:

        def start(
            *, is_guarded: bool = True, word: str = "cell", pid: int = 0
        ) -> subprocess.Popen[str]:
            environment = {**os.environ, **({GUARD_FD: "7"} if is_guarded else {})}
            process = ends.enter_context(
                subprocess.Popen(  # noqa: S603 - our own words
                    [sys.executable, "-c", OWNS, word, store, str(pid)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    text=True,
                )
            )
            ends.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "owned\n"
            return process

        yield start


def wait(store: str, drain_s: float) -> None:
    """Wait for the end of whoever owns the store, in real time."""
    with asyncio.Runner(loop_factory=lambda: LabTimeLoop(1.0)) as runner:
        runner.run(await_end(store, drain_s))


def test_guard_waits_for_nobody_when_there_is_no_store(tmp_path: Path) -> None:
    """The first start of a lab makes no store: that is the cell's."""
    path = tmp_path / "new.sqlite"
    wait(str(path), 0.0)

    assert not path.exists()


def test_guard_goes_on_when_nobody_owns_the_store(store: str) -> None:
    """What a cell left open in the store is the next cell's to see to."""
    wait(store, 0.0)


def test_guard_waits_when_a_cell_without_its_guard_still_drains(
    store: str, own: Own
) -> None:
    """It gets its time, and is not killed."""
    process = own()

    async def end_it() -> None:
        waiting = asyncio.create_task(await_end(store, 60.0))
        await asyncio.sleep(0)
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.flush()
        await waiting

    with asyncio.Runner(loop_factory=lambda: LabTimeLoop(1.0)) as runner:
        runner.run(end_it())

    assert process.wait(100) == 0


def test_guard_kills_a_cell_that_does_not_end(
    store: str, own: Own, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two owners must never be, and instruments must not be left alone."""
    process = own()
    wait(store, 0.0)

    assert process.wait(100) == -9
    assert f"process {process.pid} does not end" in capsys.readouterr().err


def test_guard_ends_a_cell_of_an_older_ppu_in_the_tables_that_it_needs(
    store: str, own: Own
) -> None:
    """They are upgraded by the next cell, when that one is gone."""
    process = own()
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE meta SET content = '2' WHERE key = 'schema_version'")
    wait(store, 0.0)
    with contextlib.closing(sqlite3.connect(store)) as connection:
        query = "SELECT content FROM meta WHERE key = 'schema_version'"
        row = connection.execute(query).fetchone()

    assert process.wait(100) == -9
    assert row == ("2",)


def test_guard_refuses_to_touch_a_cell_that_never_had_one(store: str, own: Own) -> None:
    """Somebody who runs a cell by hand is there to end it."""
    process = own(is_guarded=False)
    with pytest.raises(ConfigurationError, match=f"kill {process.pid}"):
        wait(store, 0.0)

    assert process.poll() is None


def test_guard_kills_nobody_when_the_owner_is_no_cell(store: str, own: Own) -> None:
    """Whoever holds the lock under another name is left alone."""
    process = own(word="backup")
    with pytest.raises(StoreBusyError, match="not its last cell"):
        wait(store, 0.0)

    assert process.poll() is None


def test_guard_kills_nobody_when_the_number_is_another_process_by_now(
    store: str, own: Own
) -> None:
    """A process number in the store may have been given away since."""
    process = own(pid=os.getpid())
    with pytest.raises(StoreBusyError, match="not its last cell"):
        wait(store, 0.0)

    assert process.poll() is None


def test_newest_cell_is_the_one_with_the_highest_token(store: str) -> None:
    """It is the only one that may live."""
    with Store(store) as opened:
        for pid in (11, 12):
            opened.write(
                partial(
                    cells.start, name="lab", now=1.0, pid=pid, boot_id="b", epoch=0.0
                )
            )
        with opened.read() as connection:
            row = cells.newest(connection)

    assert row is not None
    assert row.pid == 12
