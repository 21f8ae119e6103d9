"""A torn store: it opens with the last committed state, or it says that it cannot."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, select

from ppu.core.errors import StoreDamagedError
from ppu.store import cells, events, queue
from ppu.store.jobs import JobRequest
from ppu.store.schema import events as event_rows
from ppu.store.schema import jobs
from ppu.store.store import Store

N_COMMITS = 60
N_CASES = 500  # of each of the five kinds

State = tuple[tuple[object, ...], ...]


@dataclass
class Torn:
    """The files of a store whose process died, and what it had committed when.

    Attributes:
        database: Bytes of the main file.
        log: Bytes of the write-ahead log.
        states: What could be read after each commit, the oldest first.
        log_sizes: How long the log was after each of those commits.
    """

    database: bytes
    log: bytes
    states: list[State]
    log_sizes: list[int]


def state_of(store: Store) -> State:
    """Return every job and every event."""
    with store.read() as connection:
        announced = connection.execute(select(event_rows).order_by("sequence")).all()
        submitted = connection.execute(select(jobs).order_by("id")).all()
    return tuple(tuple(row) for row in (*announced, *submitted))


def log_of(path: Path) -> Path:
    """Return where SQLite keeps the write-ahead log of *path*."""
    return path.with_name(path.name + "-wal")


def change(connection: Connection, n: int) -> None:
    """Submit two jobs, and let one of them come further."""
    if n == 0:
        cells.start(connection, "lab", 0.0, pid=1, boot_id="b", epoch=0.0)
    wanted = [JobRequest("fire", "1", {"n": n, "text": "x" * (37 * n % 900)})] * 2
    queue.submit_many(connection, wanted, float(n))
    if n % 3 == 0:
        queue.claim(connection, 1, float(n), 60.0)
    if n % 7 == 0:
        queue.lose_expired(connection, float(n))


@pytest.fixture(scope="module", params=[False, True], ids=["log", "log and file"])
def torn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Torn:
    """A store that died with all commits in its log, or the first half in its file."""
    path = tmp_path_factory.mktemp("torn") / "store.sqlite"
    store = Store(path)
    states, log_sizes = [state_of(store)], [0]
    for n in range(N_COMMITS):
        if request.param and n == N_COMMITS // 2:
            store.close()  # what is in the log goes into the file
            store = Store(path)
            states, log_sizes = [states[-1]], [0]
        store.write(functools.partial(change, n=n))
        states.append(state_of(store))
        log_sizes.append(log_of(path).stat().st_size)
    found = Torn(path.read_bytes(), log_of(path).read_bytes(), states, log_sizes)
    store.close()
    return found


def cuts(size: int, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield where to cut, and what garbage comes after: none in half of the cases."""
    rng = np.random.default_rng(list(name.encode()))
    for case in range(N_CASES):
        garbage = rng.bytes(int(rng.integers(1, 9000))) if case % 2 else b""
        yield int(rng.integers(0, size)), garbage


@pytest.mark.slow
def test_store_opens_with_all_whole_commits_when_its_log_is_torn(
    torn: Torn, tmp_path: Path
) -> None:
    """Exactly the commits are there whose bytes are; garbage is never taken for one."""
    path = tmp_path / "store.sqlite"
    for where, garbage in cuts(len(torn.log), "log"):
        path.write_bytes(torn.database)
        log_of(path).write_bytes(torn.log[:where] + garbage)
        n_whole = sum(size <= where for size in torn.log_sizes)
        with Store(path) as store:
            found = state_of(store)

        assert found == torn.states[n_whole - 1], where


@pytest.mark.slow
def test_store_opens_whole_or_refuses_when_its_file_is_torn(
    torn: Torn, tmp_path: Path
) -> None:
    """What cannot be read as it was is not opened, and the message says what to do."""
    path = tmp_path / "store.sqlite"
    refusals = []
    for where, garbage in cuts(len(torn.database), "file"):
        path.write_bytes(torn.database[:where] + garbage)
        log_of(path).write_bytes(torn.log)
        try:
            with Store(path) as store:
                found = state_of(store)
        except StoreDamagedError as refusal:
            refusals.append(str(refusal))
        else:
            assert found == torn.states[-1], where
        log_of(path).unlink(missing_ok=True)

    assert refusals != []
    assert all("restore a backup" in refusal for refusal in refusals)


@pytest.mark.slow
def test_closed_store_opens_whole_or_refuses_when_it_is_torn(tmp_path: Path) -> None:
    """A file without a log is whole, or it is refused; it is never a part of itself."""
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        for n in range(N_COMMITS):
            store.write(functools.partial(change, n=n))
        whole_state = state_of(store)
    whole = path.read_bytes()
    refusals = []
    for where, garbage in cuts(len(whole), "closed"):
        path.write_bytes(whole[:where] + garbage)
        try:
            with Store(path) as store:
                found = state_of(store)
        except StoreDamagedError as refusal:
            refusals.append(str(refusal))
        else:
            assert found == whole_state, where

    assert len(refusals) > N_CASES // 2
    assert all("restore a backup" in refusal for refusal in refusals)


FILLER = """\
import json, resource, sys
from ppu.core.errors import StoreDiskError
from ppu.store import events
from ppu.store.store import Store

store = Store(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
note = lambda c: events.announce(c, "note", {"text": "x" * 500}, 1.0)
acknowledged, refusals = [], []
for _ in range(3000):
    try:
        acknowledged.append(store.write(note))
    except StoreDiskError as refusal:
        refusals.append(str(refusal))
        if len(refusals) == 5:
            break
with store.read() as connection:
    while_full = events.last_event(connection)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
after = store.write(note)
print(json.dumps([acknowledged, refusals, while_full, after, store.check()]))
store.close()
"""


def test_full_disk_refuses_work_and_loses_nothing(tmp_path: Path) -> None:
    """What was acknowledged stays; with space again the same store goes on."""
    path = tmp_path / "store.sqlite"
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", FILLER, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    acknowledged, refusals, while_full, after, faults = json.loads(done.stdout)
    with Store(path) as store, store.read() as connection:
        found = [one.sequence for one in events.events_after(connection, limit=9999)]

    assert len(refusals) == 5
    assert "disk is full or fails" in refusals[0]
    assert len(acknowledged) > 50
    assert while_full == acknowledged[-1]
    assert after == while_full + 1
    assert found == list(range(1, after + 1))
    assert faults == []
