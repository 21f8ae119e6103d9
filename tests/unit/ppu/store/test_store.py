"""The store: what was acknowledged is kept, in one order, whoever writes."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, text

from ppu.core.errors import (
    ConfigurationError,
    StoreBusyError,
    StoreDamagedError,
    StoreDiskError,
    StoreError,
)
from ppu.core.labtime import LabTimeLoop
from ppu.store import commands, events, queue
from ppu.store.jobs import JobRequest
from ppu.store.requests import Abort
from ppu.store.schema import SCHEMA_VERSION, meta, stock, version_of
from ppu.store.store import Store

Open = Callable[[str | Path], Store]


def note(connection: Connection) -> int:
    """Append an event."""
    return events.announce(connection, events.EventKind.CELL, {"n": 1}, 1.0)


def sequences(store: Store) -> list[int]:
    """Return the numbers of all events."""
    with store.read() as connection:
        return [event.sequence for event in events.events_after(connection)]


def test_store_keeps_what_it_acknowledged_when_opened_again(
    where: str, open_store: Open
) -> None:
    """What one store wrote is what the next one reads."""
    first = open_store(where)
    number = first.write(note)
    first.close()
    with open_store(where).read() as connection:
        found = events.events_after(connection)

    assert found == [events.Event(number, 1.0, events.EventKind.CELL, {"n": 1})]


def test_work_that_fails_leaves_nothing_and_fails_alone(store: Store) -> None:
    """Of works that share a commit one that raises takes back its own rows only."""

    def fail(connection: Connection) -> None:
        note(connection)
        raise ValueError("no")

    def violate(connection: Connection) -> None:
        note(connection)
        connection.execute(insert(stock), {"powder": "BaO", "mass_g": -1.0})

    def misspell(connection: Connection) -> None:
        note(connection)
        connection.execute(text("SELECT nothing FROM nowhere"))

    blocked = threading.Event()
    gate = store.submit(lambda _: blocked.wait(100))  # the others come meanwhile
    works: list[Callable[[Connection], Any]] = [note, fail, violate, misspell, note]
    futures: list[Future[Any]] = [store.submit(work) for work in works]
    blocked.set()
    gate.result()

    assert [futures[0].result(), futures[4].result()] == [1, 2]
    assert isinstance(futures[1].exception(), ValueError)
    assert futures[2].exception() is not None
    assert futures[3].exception() is not None
    assert sequences(store) == [1, 2]


def test_events_are_seen_in_order_when_many_threads_write(
    store: Store, where: str
) -> None:
    """Whoever has seen event n never finds one before it that is new."""
    store.close()
    store, other = Store(where, busy_wall_s=9), Store(where, busy_wall_s=9)
    seen: list[int] = []

    def write(to: Store) -> None:
        for _ in range(15):
            to.write(note)

    threads = [
        threading.Thread(target=write, args=(one,)) for one in (store, other) * 2
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with store.read() as connection:
            after = seen[-1] if seen else 0
            found = events.events_after(connection, after)
            seen += [event.sequence for event in found]
    for thread in threads:
        thread.join()
    written = sequences(store)
    store.close()
    other.close()

    assert written == list(range(1, 61))
    assert seen == list(range(1, len(seen) + 1))


def test_read_sees_one_moment_while_others_write(store: Store) -> None:
    """A reader's questions all have the same answer, and it cannot write."""
    store.write(note)
    with store.read() as connection:
        before = events.last_event(connection)
        store.write(note)
        after = events.last_event(connection)
        with pytest.raises(StoreError), store.read() as another:
            note(another)

    assert (before, after) == (1, 1)
    assert sequences(store) == [1, 2]


def test_awrite_holds_lab_time_until_it_is_kept(
    store: Store,
    jumping: LabTimeLoop,
    play: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    """A jumping loop does not jump while the disk is written to."""
    may_go = threading.Event()

    def slow(connection: Connection) -> int:
        may_go.wait(100)
        return note(connection)

    async def scenario() -> tuple[int, float, float]:
        timer = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_later(30, lambda: None)
        threading.Timer(0.02, may_go.set).start()
        number = await store.awrite(slow)
        written = jumping.time()
        await timer
        return number, written, jumping.time()

    assert play(scenario()) == (1, 0.0, 60.0)


def test_awrite_is_done_though_its_caller_is_cancelled(
    store: Store, play: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """A cancelled caller takes nothing back that it has asked for."""
    may_go = threading.Event()

    async def scenario() -> None:
        gate = asyncio.ensure_future(store.awrite(lambda _: may_go.wait(100)))
        task = asyncio.ensure_future(store.awrite(note))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_go.set()
        await gate

    play(scenario())
    store.write(lambda _: None)

    assert sequences(store) == [1]


def test_store_refuses_when_too_much_waits(store: Store) -> None:
    """The backlog is bounded; what is refused was not done."""
    may_go = threading.Event()
    started = threading.Event()

    def block(_: Connection) -> None:
        started.set()
        may_go.wait(100)

    gate = store.submit(block)
    started.wait(100)
    store._writer._waiting.maxsize = 3
    futures = [store.submit(note) for _ in range(3)]
    with pytest.raises(StoreBusyError, match="3 changes wait already; try again"):
        store.submit(note)
    may_go.set()
    gate.result()

    assert [future.result() for future in futures] == [1, 2, 3]
    assert sequences(store) == [1, 2, 3]


def test_closed_store_does_what_waits_and_refuses_more(
    where: str, open_store: Open
) -> None:
    """Nothing that was taken in is dropped by a close."""
    first = open_store(where)
    futures = [first.submit(note) for _ in range(50)]
    first.close()

    assert [future.result() for future in futures] == list(range(1, 51))
    with pytest.raises(StoreError, match="closed"):
        first.submit(note)


def test_cancelled_future_is_not_done(store: Store) -> None:
    """What its caller gave up before its turn never happens."""
    may_go = threading.Event()
    started = threading.Event()

    def block(_: Connection) -> None:
        started.set()
        may_go.wait(100)

    gate = store.submit(block)
    started.wait(100)
    given_up = store.submit(note)
    was_cancelled = given_up.cancel()
    may_go.set()
    gate.result()
    store.write(lambda _: None)

    assert was_cancelled
    assert sequences(store) == []


def test_second_cell_is_refused_while_the_first_owns_the_store(
    store: Store, where: str
) -> None:
    """Two cells never own one store; reading and writing rows goes on."""
    other = Store(where)
    with store.own():
        with pytest.raises(StoreBusyError, match="another cell"), other.own():
            pass
        other.write(note)
    with other.own():
        store.write(note)
    other.close()

    assert sequences(store) == [1, 2]


def test_store_of_a_newer_ppu_is_refused(where: str, open_store: Open) -> None:
    """A schema that this PPU does not know is not touched."""
    first = open_store(where)
    first.write(
        lambda connection: connection.execute(
            meta.update().values(content=str(SCHEMA_VERSION + 1))
        )
    )
    first.close()

    with pytest.raises(ConfigurationError, match="newer PPU"):
        open_store(where)


def test_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Tables that are not PPU's are left alone."""
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE birds (name)")
    connection.close()

    with pytest.raises(ConfigurationError, match="birds"):
        Store(path)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("mysql://host/db", "sqlite:///path"),
        ("sqlite://", "sqlite:///path"),
        ("://", "no URL"),
        ("/proc/nowhere/store.sqlite", "No such file"),
    ],
)
def test_place_that_cannot_be_a_store_is_refused(place: str, what: str) -> None:
    """The message says what would do."""
    with pytest.raises(ConfigurationError, match=what):
        Store(place)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"hello" * 500])
def test_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty or foreign file is never taken for a new store."""
    path = tmp_path / "store.sqlite"
    path.write_bytes(content)

    with pytest.raises(StoreDamagedError, match="restore a backup"):
        Store(path)
    assert path.read_bytes() == content


def test_shortened_file_is_refused_without_reading_it_through(tmp_path: Path) -> None:
    """Whoever skips the search for damage is told of the obvious all the same."""
    path = tmp_path / "store.sqlite"
    Store(path).close()
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(StoreDamagedError, match="cut short"):
        Store(path, is_verified=False)


def test_process_ends_though_it_forgot_to_close(tmp_path: Path) -> None:
    """A program that fails does not hang, and what it acknowledged is kept."""
    path = tmp_path / "store.sqlite"
    program = (
        "import sys; from ppu.store.store import Store; from ppu.store import events; "
        "store = Store(sys.argv[1]); "
        "store.write(lambda c: events.announce(c, 'note', {}, 1.0)); 1 / 0"
    )
    ended = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program, str(path)],
        check=False,
        capture_output=True,
        timeout=600,
    )
    with Store(path) as store:
        kept = sequences(store)

    assert b"ZeroDivisionError" in ended.stderr
    assert kept == [1]


def test_journal_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """Entries keep their numbers and times; documents find their runs."""
    path = tmp_path / "journal.sqlite"
    start = '{"name":"start","document":{"uid":"r","time":1010.0}}'
    descriptor = '{"name":"descriptor","document":{"uid":"d","run_start":"r"}}'
    page = '{"name":"event_page","document":{"descriptor":"d","seq_num":[1]}}'
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, "
            "lab_time_s FLOAT NOT NULL, kind VARCHAR NOT NULL, content TEXT NOT NULL);"
            "PRAGMA user_version=1;"
        )
        connection.executemany(
            "INSERT INTO journal (lab_time_s, kind, content) VALUES (?, ?, ?)",
            [
                (10.0, "document", start),
                (11.0, "step_begin", '{"step":0}'),
                (12.0, "document", descriptor),
                (13.0, "document", page),
            ],
        )
    connection.close()
    with Store(path) as store:
        faults = store.check()
        with store.read() as reading:
            found = events.events_after(reading)
            documents = reading.execute(
                text("SELECT sequence, run_uid, name, content FROM documents")
            ).all()
    with Store(path) as again, again.read() as reading:
        n_after = len(events.events_after(reading))

    assert [(event.sequence, event.kind) for event in found] == [
        (1, "document"),
        (2, "step_begin"),
        (3, "document"),
        (4, "document"),
    ]
    assert (found[0].stamp, found[1].stamp) == (1010.0, 1011.0)
    assert found[1].content == {"step": 0}
    assert [(row.run_uid, row.name) for row in documents] == [
        ("r", "start"),
        ("r", "descriptor"),
        ("r", "event_page"),
    ]
    assert documents[2].content == '{"descriptor":"d","seq_num":[1]}'
    assert faults == []
    assert n_after == 4


def test_backup_is_a_store_of_that_moment(tmp_path: Path) -> None:
    """The copy opens by itself and holds what was kept, and nothing later."""
    copy = tmp_path / "copies" / "store.sqlite"
    with Store(tmp_path / "store.sqlite") as store:
        store.write(lambda c: queue.submit(c, JobRequest("fire", "1"), 1.0))
        store.backup(copy)
        store.write(note)
        with pytest.raises(ConfigurationError, match="already"):
            store.backup(copy)
    with Store(copy) as copied:
        numbers, faults = sequences(copied), copied.check()

    assert numbers == [1]
    assert faults == []
    assert list(copy.parent.glob("*.part")) == []


def test_backup_that_cannot_be_written_is_refused(
    tmp_path: Path, open_store: Open
) -> None:
    """The message names the file; nothing is left there."""
    store = open_store(tmp_path / "store.sqlite")

    with pytest.raises(ConfigurationError, match="/proc/nowhere"):
        store.backup(Path("/proc/nowhere/copy.sqlite"))


def test_backup_of_postgres_names_the_tool_for_it(
    postgres_url: str, open_store: Open
) -> None:
    """PPU does not do what pg_dump does."""
    store = open_store(postgres_url)

    with pytest.raises(ConfigurationError, match="pg_dump"):
        store.backup(Path("copy"))


def test_password_is_never_shown(open_store: Open) -> None:
    """An unreachable server is told by its URL, without the password."""
    pytest.importorskip("psycopg")
    url = "postgresql://ppu:secret@/db?host=/nowhere"
    with pytest.raises(StoreError, match=r"ppu:\*\*\*@") as caught:
        open_store(url)

    assert "secret" not in str(caught.value)


def test_locked_database_refuses_at_once_and_works_afterwards(
    store: Store, where: str
) -> None:
    """Another process that holds the lock costs one wait for all, and no commit."""
    other = Store(where)
    holding, may_go = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        holding.set()
        may_go.wait(40.0)  # shorter than 400 waits: then the last ones would succeed

    gate = other.submit(hold)
    holding.wait()
    futures = [store.submit(note) for _ in range(400)]
    refusals = [future.exception() for future in futures]
    may_go.set()
    gate.result()
    number = store.write(note)
    other.close()

    assert all(isinstance(refusal, StoreBusyError) for refusal in refusals)
    assert number == 1


def test_store_refuses_new_work_when_its_disk_is_nearly_full(
    tmp_path: Path, open_store: Open
) -> None:
    """The error says how much is free and what to do; what runs can still write."""
    store = open_store(tmp_path / "store.sqlite")
    store.check_room(1)
    assert store.free_bytes is not None
    with pytest.raises(StoreDiskError, match=r"\d+ MB are free .* then submit again"):
        store.check_room(store.free_bytes + 10**12)

    assert store.write(note) == 1


def test_server_sees_to_its_own_disk(
    postgres_schema: tuple[str, Engine], open_store: Open
) -> None:
    """Nothing is known of it, so nothing is refused."""
    store = open_store(postgres_schema[0])
    store.check_room(10**18)

    assert store.free_bytes is None


def test_store_of_version_2_is_taken_over(tmp_path: Path) -> None:
    """Jobs and requests that were kept before codes for remedies are read as before."""
    path = tmp_path / "old.sqlite"
    with Store(path) as store:
        job_id = store.write(lambda c: queue.submit(c, JobRequest("fire", "1"), 1.0))
        store.write(
            partial(commands.request, wanted=Abort(reason="x"), by="a", now=1.0)
        )
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "ALTER TABLE jobs DROP COLUMN advice;"
            "ALTER TABLE commands DROP COLUMN advice;"
            "DROP TABLE descriptions;"
            "UPDATE meta SET content = '2' WHERE key = 'schema_version';"
        )
    with Store(path) as store:
        faults = store.check()
        with store.read() as reading:
            job = queue.get(reading, job_id)
            (asked,) = commands.waiting(reading)

    assert (faults, job.advice) == ([], ())
    assert asked.request == Abort(reason="x")


def set_version(store: Store, version: int) -> None:
    """Say of a store that a PPU of another schema version made it."""
    is_it = meta.c.key == "schema_version"
    store.write(
        lambda c: c.execute(meta.update().where(is_it).values(content=str(version)))
    )


def test_store_is_not_upgraded_while_a_cell_of_an_older_ppu_owns_it(
    store: Store, where: str, open_store: Open
) -> None:
    """A newer door refuses in words and changes nothing; it upgrades when that ended.

    Only who waits for the end of that cell opens the store as it is.
    """
    set_version(store, 2)
    with store.own():
        with pytest.raises(StoreBusyError, match=r"of an older PPU.* drain or end"):
            open_store(where)
        with Store(where, may_upgrade=False) as waiting, waiting.read() as reading:
            kept = version_of(reading)
    with open_store(where).read() as reading:
        upgraded = version_of(reading)

    assert (kept, upgraded) == (2, SCHEMA_VERSION)


def test_store_that_a_newer_ppu_upgraded_is_not_owned(store: Store) -> None:
    """A cell that opened it before that would keep rows the newer one cannot read."""
    set_version(store, SCHEMA_VERSION + 1)
    try:
        with pytest.raises(ConfigurationError, match="use the newer PPU"), store.own():
            pass
    finally:
        set_version(store, SCHEMA_VERSION)  # PostgreSQL keeps its tables for others
