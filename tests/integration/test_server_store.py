"""Who owns a store on a server: its lock goes with a connection, not with a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import RootTransaction
from sqlalchemy.exc import OperationalError
from typing_extensions import override

from postgres import HOW_TO_HAVE_IT, Server, can_be_started, postgres_server
from ppu.cell.cell import Cell
from ppu.cell.lab import OpenLab
from ppu.cell.open_lab import open_lab
from ppu.cell.ownership import Ownership
from ppu.cell.predecessor import await_end, wait_out_predecessor
from ppu.core.errors import StaleTokenError, StoreBusyError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.store import cells, events
from ppu.store.database import TRANSACTION
from ppu.store.store import Store

Play = Callable[[Coroutine[Any, Any, Any]], Any]
ELSEWHERE = {"pid": 7, "boot_id": "of another computer"}


@pytest.fixture
def store(postgres_store: str) -> Iterator[Store]:
    """A store on a server."""
    with Store(postgres_store) as opened:
        yield opened


@pytest.fixture(scope="module")
def bench_file(
    serve: Callable[..., dict[str, Any]],
    small_lab: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The lab file of a simulated bench in a process of its own."""
    path = tmp_path_factory.mktemp("bench") / "bench.yaml"
    serve(str(small_lab), "--write-lab", str(path))
    return path


def start(store: Store, **process: Any) -> int:
    """Let a cell take the store; return its token."""
    return store.write(partial(cells.start, name="lab", now=0.0, epoch=0.0, **process))


def outlived_after(play: Play, store: Store) -> float:
    """Return for how long an earlier cell is waited for [s]."""

    async def wait() -> float:
        began = running_loop().time()
        with store.own():
            await wait_out_predecessor(store)
        return running_loop().time() - began

    waited: float = play(wait())
    return waited


def lose_locks(engine: Engine) -> None:
    """Have the server end the connections that hold locks, as a restart does."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        )


def test_cell_that_may_still_act_is_waited_for_and_renews_no_more(
    play: Play, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever takes a store over from somebody elsewhere lets a whole lease pass."""
    token = start(store, **ELSEWHERE)
    waited = outlived_after(play, store)

    assert waited >= cells.LEASE_S
    assert "waiting 30 s" in capsys.readouterr().err
    with pytest.raises(StaleTokenError):
        store.write(partial(cells.beat, token=token, now=1.0))
    with store.read() as connection:
        assert not cells.may_heat(connection)


def test_guard_waits_for_a_cell_elsewhere_once_and_its_cell_does_not(
    play: Play, store: Store, postgres_store: str
) -> None:
    """A lease that has run out is not waited for again."""
    start(store, **ELSEWHERE)

    async def wait() -> float:
        began = running_loop().time()
        await await_end(postgres_store)
        return running_loop().time() - began

    assert play(wait()) >= cells.LEASE_S
    assert outlived_after(play, store) == 0.0


def test_wait_that_was_cut_short_is_begun_anew(play: Play, store: Store) -> None:
    """A new owner that dies while it waits has outlived nobody."""
    start(store, **ELSEWHERE)
    store.write(partial(cells.revoke_lease, now=1.0))

    assert outlived_after(play, store) >= cells.LEASE_S


def test_nobody_waits_for_a_cell_that_ended_or_is_dead(
    play: Play, store: Store
) -> None:
    """One that ended as it should acts no more, nor does one whose process is gone."""
    cells_before = outlived_after(play, store)
    token = start(store, **ELSEWHERE)
    store.write(partial(cells.end, token=token, how="its cell ended", now=1.0))
    ended = outlived_after(play, store)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    start(store, pid=gone.pid, boot_id=cells.boot_id())
    dead = outlived_after(play, store)

    assert (cells_before, ended, dead) == (0.0, 0.0, 0.0)


def test_cell_whose_process_is_there_is_waited_for(play: Play, store: Store) -> None:
    """A process that lost its connection lives on, and so may its cell."""
    start(store, pid=os.getpid(), boot_id=cells.boot_id())

    assert outlived_after(play, store) >= cells.LEASE_S


def test_whoever_began_during_the_wait_keeps_the_store(
    play: Play, store: Store
) -> None:
    """The lock may be lost once more; two that waited must not both go on."""
    token = start(store, **ELSEWHERE)
    store.write(partial(cells.revoke_lease, now=1.0))
    start(store, **ELSEWHERE)
    with pytest.raises(StaleTokenError, match="another cell"):
        store.write(partial(cells.note_lease_over, token=token))


def test_nobody_waits_for_the_owner_of_a_file(play: Play, tmp_path: Path) -> None:
    """Its lock goes with the process, so whoever gets it is alone."""
    with Store(tmp_path / "lab.sqlite") as store:
        start(store, **ELSEWHERE)

        assert outlived_after(play, store) == 0.0


class NotingLab(OpenLab):
    """Notes whether an earlier owner is still trusted when instruments are opened."""

    earlier: Ownership
    found: list[bool]

    @override
    def connect(self) -> None:
        self.found.append(self.earlier.is_trusted)
        super().connect()


def test_cell_touches_no_instrument_while_one_without_its_lock_is_trusted(
    postgres_store: str,
    postgres_schema: tuple[str, Engine],
    bench_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the server restarted, the lock is free though its old owner lives."""
    monkeypatch.setattr(cells, "LEASE_S", 0.5)
    lab = NotingLab(load_lab(bench_file), bench_file, target="hardware", pace=1.0)
    with (
        contextlib.ExitStack() as ends,
        lab.closing(),
        Store(postgres_store) as old,
        Store(postgres_store) as new,
    ):
        other = ends.enter_context(open_lab(str(bench_file), "hardware").closing())
        with contextlib.suppress(Exception):  # its connection will be gone
            ends.enter_context(old.own())
        lab.earlier = Ownership(old, lab.file, other.host.loop, lease_s=0.5)
        lab.found = []
        lose_locks(postgres_schema[1])
        # Another one will be quicker than this one to take the lock again.
        monkeypatch.setattr(old, "own_again", lambda: None)
        other.host.call(lab.earlier.renew())
        with Cell(lab, new, tmp_path / "results").owning():
            pass

    assert lab.found == [False]


LEASE_S = 0.6


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test's own, which it stops and starts."""
    if not can_be_started():
        pytest.skip(HOW_TO_HAVE_IT)
    with postgres_server(is_durable=False) as running:
        yield running


@pytest.fixture
def wall_play() -> Iterator[Play]:
    """Runs a coroutine on a loop whose time is the wall's."""
    with asyncio.Runner(loop_factory=lambda: LabTimeLoop(1.0)) as runner:
        yield runner.run


async def own_through_outage(
    store: Store, file: LabFile, during: Callable[[Ownership], Awaitable[None]]
) -> Ownership:
    """Own a store, do something while the lease is kept, and wait to be trusted."""
    owner = Ownership(store, file, running_loop(), lease_s=LEASE_S)
    keeper = asyncio.create_task(owner.keep())
    try:
        await during(owner)
        await owner.await_trust()
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    return owner


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_owner_takes_its_lease_again_when_its_server_is_back(
    wall_play: Play, server: Server, small_lab: Path, how: str
) -> None:
    """What runs may go on while nobody can take over, nothing new; then all may."""

    async def outage(owner: Ownership) -> None:
        await asyncio.to_thread(server.stop, how)
        await asyncio.sleep(2 * LEASE_S)
        assert not owner.is_trusted
        owner.require_trust()  # what is under way is watched
        with pytest.raises(TimeoutError):  # what is new waits
            async with asyncio.timeout(2 * LEASE_S):
                await owner.await_trust()
        await asyncio.to_thread(server.start)

    with Store(server.url) as store, store.own():
        owner = wall_play(own_through_outage(store, load_lab(small_lab), outage))
        with store.read() as connection:
            last = cells.newest(connection)
        assert last is not None
        assert last.token == owner.token
        with Store(server.url) as other, pytest.raises(StoreBusyError), other.own():
            pass


def test_owner_that_was_taken_over_meanwhile_touches_nothing(
    wall_play: Play, server: Server, small_lab: Path
) -> None:
    """Whoever comes back too late finds that the store is another's."""

    async def outage(owner: Ownership) -> None:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        with Store(server.url) as other:
            await other.awrite(
                lambda connection: cells.start(
                    connection, "lab", 0.0, pid=7, boot_id="elsewhere", epoch=0.0
                )
            )
        with contextlib.suppress(StoreBusyError):  # over a connection that has ended
            await owner.renew()
        await owner.renew()

    with Store(server.url) as store, store.own(), pytest.raises(StaleTokenError):
        wall_play(own_through_outage(store, load_lab(small_lab), outage))


@pytest.mark.parametrize("is_kept", [True, False])
def test_commit_whose_end_nobody_heard_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """Work that was kept is not done again, and work that was not is told so."""
    real = RootTransaction.commit

    def lose(transaction: RootTransaction) -> None:
        is_writing = TRANSACTION in transaction.connection.info
        if is_kept or not is_writing:
            real(transaction)
        if not is_writing:
            return
        raise OperationalError("COMMIT", {}, psycopg.OperationalError("gone"))

    with Store(server.url) as store:
        announce = partial(
            events.announce, kind=events.EventKind.CELL, content={}, now=1.0
        )
        with monkeypatch.context() as patched:
            patched.setattr(RootTransaction, "commit", lose)
            future = store.submit(announce)
            if is_kept:
                assert future.result() == 1
            else:
                with pytest.raises(StoreBusyError):
                    future.result()
        with store.read() as connection:
            assert events.last_event(connection) == (1 if is_kept else 0)
