"""Stores of an older PPU, copies of stores, and stores that are restored."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cell_life import answer, ask, job, release_one, submit
from exercise import LAB, exercise
from mortal import MortalCell
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    FailureClass,
    NoResourceError,
    NotFoundError,
    PPUError,
    StaleTokenError,
    StoreBusyError,
    StoreDamagedError,
)
from ppu.operations import access, keeping, looking
from ppu.store import cells, events, queue
from ppu.store.jobs import ENDED, JobRequest, JobState
from ppu.store.requests import AllowHeat
from ppu.store.schema import SCHEMA_VERSION, version_of
from ppu.store.store import Store

OLD = Path(__file__).parents[1] / "data" / "stores" / "dd76916.sql.gz"
"""A store with jobs in flight, written before the house was reshaped."""


def write_old(path: Path) -> None:
    """Write the old store to *path*."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(gzip.decompress(OLD.read_bytes()).decode())
        connection.execute("PRAGMA journal_mode=WAL")
        connection.commit()


def version(path: Path) -> str:
    """Return the schema version that a file says, as any program can read it."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT content FROM meta WHERE key = 'schema_version'"
        return str(connection.execute(query).fetchone()[0])


@pytest.fixture
def old_life(tmp_path: Path) -> Iterator[MortalCell]:
    """A cell in the lab whose store is old."""
    write_old(tmp_path / "lab.sqlite")
    life = MortalCell(LAB, tmp_path, {"exercise": exercise})
    yield life
    life.close()


def test_store_of_an_older_ppu_finishes_the_jobs_that_were_in_flight(
    old_life: MortalCell, tmp_path: Path
) -> None:
    """It opens, is copied, is brought up to date, and its jobs go on to their ends."""
    life = old_life
    backup = tmp_path / "lab.sqlite.schema-2.backup"
    assert version(backup) == "2"
    assert version(tmp_path / "lab.sqlite") == str(SCHEMA_VERSION)
    life.advance(4000.0)  # a new twin's calendar begins before that store's end
    before = life.jobs()
    assert [one.state for one in before].count(JobState.RUNNING) >= 1
    life.start()
    life.advance(10.0)
    asked = {question.job: question for question in looking.questions(life.store)}
    assert {question.step.name for question in asked.values()} == {"press"}
    for job_id in asked:
        answer(life, job_id, "not-happened")
    ask(life, AllowHeat(note="looked at it"))
    held = [one.id for one in before if one.is_held]
    life.advance(40000.0)
    release_one(life)  # whoever came last waits for a container
    life.advance(5000.0)
    with life.store.read() as connection:
        assert cells.doubt_of(connection) == ""
    for one in life.jobs():
        wanted = JobState.QUEUED if one.id in held else JobState.SUCCEEDED
        assert job(life, one.id).state is wanted, one.reason_text
    assert life.store.check() == []
    release_one(life)
    (new,) = submit(life, {"kind": "bare"})
    life.advance(5000.0)
    assert job(life, new).state in ENDED


def test_old_store_can_be_opened_by_the_older_ppu_again(tmp_path: Path) -> None:
    """What was copied before the upgrade is the old store, row for row."""
    path = tmp_path / "lab.sqlite"
    write_old(path)
    with closing(sqlite3.connect(path)) as connection:
        before = list(connection.iterdump())
    with Store(path):
        pass
    with closing(sqlite3.connect(f"{path}.schema-2.backup")) as connection:
        assert list(connection.iterdump()) == before


def kinds_of(root: type[PPUError]) -> Iterator[type[PPUError]]:
    """Yield an error and all that are of its kind."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds_of(kind)


NEVER_OF_A_FAILED_JOB = (AbortedError, NoResourceError, StaleTokenError)
"""Another state says the first; the others were there later, or end a cell, no job."""
FAILED = [
    ("failed", kind.__name__, kind.failure_class)
    for kind in kinds_of(PPUError)
    if kind.__module__.startswith("ppu.")
    and not issubclass(kind, NEVER_OF_A_FAILED_JOB)
]
ENDED_OTHERWISE = [
    ("succeeded", "", None),
    ("queued", "", None),
    ("aborted", "AbortedError", FailureClass.ABORTED),
    ("cancelled", "", FailureClass.ABORTED),
    ("expired", "", FailureClass.REJECTED),
    ("lost", "", FailureClass.LOST),
    ("failed", "ZeroDivisionError", FailureClass.INFEASIBLE),
]


def test_jobs_of_an_older_ppu_say_what_a_program_may_do_about_them(
    tmp_path: Path,
) -> None:
    """By the kind of error that they failed with, as new ones do."""
    path = tmp_path / "lab.sqlite"
    write_old(path)
    wanted = [*FAILED, *ENDED_OTHERWISE]
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        like = dict(connection.execute("SELECT * FROM jobs LIMIT 1").fetchone())
        for number, (state, reason, _) in enumerate(wanted, 1000):
            like |= {"id": number, "key": None, "state": state, "reason_code": reason}
            marks = ", ".join("?" * len(like))
            connection.execute(
                f"INSERT INTO jobs ({', '.join(like)}) VALUES ({marks})",  # noqa: S608 - the table's own columns
                list(like.values()),
            )
        connection.commit()
    with Store(path) as store, store.read() as connection:
        found = [
            queue.get(connection, number).failure_class
            for number in range(1000, 1000 + len(wanted))
        ]

    assert len(FAILED) >= 20
    assert found == [failure_class for _, _, failure_class in wanted]


def test_second_upgrade_keeps_the_copy_of_the_first(tmp_path: Path) -> None:
    """No copy is ever written over."""
    path = tmp_path / "lab.sqlite"
    for _ in range(3):
        write_old(path)
        with Store(path):
            pass
        path.unlink()
    names = {one.name for one in tmp_path.glob("*.backup")}

    assert names == {f"lab.sqlite.schema-2{n}.backup" for n in ("", ".2", ".3")}


def test_old_store_stays_as_it_is_without_room_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that cannot be undone is not begun."""
    path = tmp_path / "lab.sqlite"
    write_old(path)

    def fail(self: Store, copy: Path) -> None:
        raise ConfigurationError(f"cannot write {copy}: No space left on device")

    monkeypatch.setattr(Store, "backup", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        Store(path)
    monkeypatch.undo()

    assert version(path) == "2"
    assert list(tmp_path.glob("*.backup")) == []


def note(store: Store, text: str) -> int:
    """Let something happen in a store."""
    announce = partial(events.announce, kind=events.EventKind.CELL, now=1.0)
    return store.write(partial(announce, content={"said": text}))


def said(path: Path) -> list[str]:
    """Return what has happened in a store."""
    with Store(path) as store, store.read() as connection:
        return [one.content["said"] for one in events.events_after(connection)]


def test_restored_store_is_as_it_was_and_the_other_one_is_kept(tmp_path: Path) -> None:
    """The copy is in the place of the store, which is whole beside it, log and all."""
    path, copy = tmp_path / "lab.sqlite", tmp_path / "monday.sqlite"
    store = Store(path)
    note(store, "monday")
    keeping.backup(store, copy)
    note(store, "tuesday")
    done = keeping.restore(str(path), copy)
    store.close()
    assert done.kept is not None

    assert said(path) == ["monday"]
    assert said(done.kept) == ["monday", "tuesday"]
    assert said(copy) == ["monday"]


def test_store_is_not_restored_under_a_cell(tmp_path: Path) -> None:
    """Whoever owns it goes on with what it knows."""
    path, copy = tmp_path / "lab.sqlite", tmp_path / "monday.sqlite"
    with Store(path) as store:
        note(store, "monday")
        store.backup(copy)
        note(store, "tuesday")
        with store.own(), pytest.raises(StoreBusyError, match="a cell owns it; end"):
            keeping.restore(str(path), copy)
    assert said(path) == ["monday", "tuesday"]


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET content = '99'")
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (Path.unlink, NotFoundError),
        (_torn, StoreDamagedError),
        (_foreign, ConfigurationError),
        (_newer, ConfigurationError),
        (lambda path: path.write_text("no store"), StoreDamagedError),
    ],
)
def test_what_is_no_sound_copy_is_not_restored(
    tmp_path: Path, spoil: Callable[[Path], object], kind: type[PPUError]
) -> None:
    """The store stays as it is, and the text says what is wrong with the copy."""
    path, copy = tmp_path / "lab.sqlite", tmp_path / "monday.sqlite"
    with Store(path) as store:
        note(store, "monday")
        store.backup(copy)
    spoil(copy)
    with pytest.raises(kind, match="monday"):
        keeping.restore(str(path), copy)

    assert said(path) == ["monday"]
    assert not list(tmp_path.glob("lab.sqlite.*"))


def test_server_s_store_is_restored_by_the_server_s_own_tools() -> None:
    """The text names them."""
    with pytest.raises(ConfigurationError, match="pg_restore or psql"):
        keeping.restore("postgresql://ppu@/lab", Path("copy.sqlite"))


def test_copy_is_whole_while_a_cell_writes(tmp_path: Path) -> None:
    """It is the store of one moment, in order in itself."""
    with Store(tmp_path / "lab.sqlite") as store:
        for n in range(30):
            wanted = [JobRequest("fire", "1", {"n": n})] * 3
            store.submit(partial(queue.submit_many, wanted=wanted, now=float(n)))
            if n % 10 == 5:
                store.backup(tmp_path / f"copy{n}.sqlite")
    for copy in tmp_path.glob("copy*.sqlite"):
        with Store(copy) as found:
            assert found.check() == []
            with found.read() as connection:
                assert version_of(connection) == SCHEMA_VERSION


@pytest.mark.parametrize("n", range(3))
def test_nothing_is_left_of_a_store_that_was_made_for_what_is_refused(
    tmp_path: Path, n: int
) -> None:
    """A store is there when the first work in it was taken, and not before."""
    path = tmp_path / "labs" / "lab.sqlite"

    def begin_and_refuse() -> None:
        with access.open_store(str(path), may_be_new=True) as store:
            for _ in range(n):
                note(store, "a beginning")
            raise ConfigurationError(f"{store.name}: refused")

    with pytest.raises(ConfigurationError, match=r"lab\.sqlite: refused"):
        begin_and_refuse()
    assert list(path.parent.iterdir()) == []
    with access.open_store(str(path), may_be_new=True) as store:
        note(store, "taken")

    assert said(path) == ["taken"]
