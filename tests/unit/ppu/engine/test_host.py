"""The engine host: plans on the lab's loop, aborts, stamps, steps and journals."""

import asyncio
import io
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import Msg, MsgGenerator
from ophyd_async.core import AsyncStatus

from ppu.cell.ownership import Ownership
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    InstrumentError,
    InternalError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import TWIN_EPOCH, LabTimeLoop
from ppu.engine.host import Host
from ppu.plans import compute, step
from ppu.store.jobs import JobRequest
from ppu.store.queue import submit
from ppu.store.steps import steps_of
from ppu.store.store import Store

NOTHING = LabFile.model_validate({"lab": "empty", "schema_version": 1, "devices": {}})


class Door:
    """Something movable that takes a minute, and refuses to go to 13."""

    name = "door"
    parent = None

    def __init__(self) -> None:
        self.places: list[float] = []

    @AsyncStatus.wrap
    async def set(self, place: float) -> None:
        """Go to *place*."""
        if place == 13:
            raise InstrumentError("door: it does not go to 13", 13)
        await asyncio.sleep(60.0)
        self.places.append(place)


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on a jumping loop."""
    host = Host(LabTimeLoop(None))
    yield host
    host.close()


def move(door: Door, *places: float) -> MsgGenerator[list[float]]:
    """Move a door to one place after the other."""
    for place in places:
        yield from bps.abs_set(door, place, wait=True)
    return door.places


def test_plan_result_is_returned_when_the_plan_is_done(host: Host) -> None:
    """What the plan returns is what the host returns, after its lab time."""
    assert host.run(move(Door(), 1.0, 2.0)) == [1.0, 2.0]
    assert host.loop.time() == 120.0
    assert 0.0 <= host.timing.run_time_s < 5.0


def test_host_runs_again_when_a_plan_is_done(host: Host) -> None:
    """One host runs plan after plan, and time goes on."""
    for n in range(1, 4):
        host.run(move(Door(), 1.0))
        assert host.loop.time() == 60.0 * n


def test_error_of_a_device_is_raised_as_it_was(host: Host) -> None:
    """The device's own error comes out of bluesky's wrapping."""
    with pytest.raises(InstrumentError, match="does not go to 13") as caught:
        host.run(move(Door(), 1.0, 13))

    assert caught.value.code == 13


def test_error_of_the_plan_is_raised_as_it_was(host: Host) -> None:
    """A mistake in a plan stays what it is."""

    def wrong() -> MsgGenerator[None]:
        yield from bps.sleep(1.0)
        raise ZeroDivisionError("by nobody")

    with pytest.raises(ZeroDivisionError, match="by nobody"):
        host.run(wrong())


def test_abort_ends_the_plan_where_it_is(host: Host) -> None:
    """An aborted plan goes no further, and the reason is told."""
    door = Door()

    def aborted() -> MsgGenerator[None]:
        yield from move(door, 1.0)
        worker = threading.Thread(target=host.abort, args=("enough",))
        worker.start()
        yield from bps.sleep(1e6)
        yield from move(door, 2.0)

    with pytest.raises(AbortedError, match="enough"):
        host.run(aborted())

    assert door.places == [1.0]


def test_abort_is_not_lost_when_the_engine_has_not_started_yet(host: Host) -> None:
    """A signal between the call and the first message still counts."""
    door = Door()
    start: Any = host.engine

    def start_late(plan: Any) -> Any:
        host.abort("too early")
        return start(plan)

    # A stand-in for the moment that no test can hit; it passes everything on.
    start_late.state = start.state  # type: ignore[attr-defined]  # what abort asks
    vars(host)["engine"] = start_late
    with pytest.raises(AbortedError, match="too early"):
        host.run(move(door, 1.0))
    vars(host)["engine"] = start

    assert door.places == []


def test_abort_is_harmless_when_nothing_runs(host: Host) -> None:
    """A late abort does not reach into the next plan."""
    host.abort("late")

    assert host.run(move(Door(), 1.0)) == [1.0]


def test_call_fails_clearly_when_the_loop_has_ended() -> None:
    """Nobody waits for ever for a thread that is dead."""
    host = Host(LabTimeLoop(None))
    host.loop.call_soon_threadsafe(host.loop.stop)
    host._thread.join()
    with pytest.raises(InternalError, match="the loop of this lab has ended"):
        host.call(asyncio.sleep(1.0))
    host.close()


def test_call_fails_clearly_when_the_loop_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits for a result looks whether it can still come."""
    monkeypatch.setattr("ppu.engine.host._LOOK_WALL_S", 0.01)
    host = Host(LabTimeLoop(None))

    async def wait_for_nothing() -> None:
        host.loop.stop()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(InternalError, match="the loop of this lab has ended"):
        host.call(wait_for_nothing())
    for task in asyncio.all_tasks(host.loop):
        task.cancel()
    host.loop.run_until_complete(asyncio.sleep(0.0))
    host.close()


def test_close_ends_what_still_runs() -> None:
    """A task that nobody waits for is cancelled and awaited, not destroyed."""
    host = Host(LabTimeLoop(None))
    ended: list[str] = []

    async def go_on() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.0)
            ended.append("ended")

    tasks: list[asyncio.Task[None]] = []

    async def start() -> None:
        tasks.append(asyncio.create_task(go_on()))
        await asyncio.sleep(0.0)

    host.call(start())
    host.close()

    assert ended == ["ended"]


def test_abort_works_when_nobody_reads_what_bluesky_prints(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed pipe does not keep a plan running."""
    closed = io.StringIO()
    closed.close()

    def aborted() -> MsgGenerator[None]:
        threading.Thread(target=host.abort, args=("enough",)).start()
        yield from bps.sleep(1e6)

    monkeypatch.setattr("sys.stdout", closed)
    monkeypatch.setattr("sys.stderr", closed)
    with pytest.raises(AbortedError, match="enough"):
        host.run(aborted())


def test_pause_is_refused(host: Host) -> None:
    """A pause would replay acts; the refusal says what to do instead."""
    with pytest.raises(ConfigurationError, match=r"put on hold before its next step"):
        host.run(bps.pause())
    with pytest.raises(ConfigurationError, match="cannot `deferred_pause`"):
        host.run(bps.deferred_pause())


def test_plan_that_reads_the_terminal_is_refused(host: Host) -> None:
    """Nobody may be at a terminal; people are asked through an operator."""
    with pytest.raises(ConfigurationError, match="set an operator"):
        host.run(bps.input_plan("load the sample"))


def test_documents_are_stamped_in_lab_time(host: Host) -> None:
    """No document knows the wall clock."""
    documents: list[tuple[str, dict[str, Any]]] = []
    host.subscribe(lambda name, document: documents.append((name, document)))
    host.run(host.in_run(move(Door(), 1.0), {"purpose": "test"}))
    (_, start), (_, stop) = documents

    assert start["time"] == TWIN_EPOCH
    assert start["purpose"] == "test"
    assert stop["time"] == TWIN_EPOCH + 60.0
    assert stop["exit_status"] == "success"


@pytest.mark.parametrize("status", ["fail", "abort"])
def test_run_is_closed_with_its_status_when_the_plan_ends_early(
    host: Host, status: str
) -> None:
    """The stop document tells how a run ended, and why."""
    stops: list[dict[str, Any]] = []
    host.subscribe(lambda name, doc: stops.append(doc) if name == "stop" else None)

    def plan() -> MsgGenerator[None]:
        if status == "fail":
            yield from move(Door(), 13)
        threading.Thread(target=host.abort, args=("enough",)).start()
        yield from bps.sleep(1e6)

    with pytest.raises((InstrumentError, AbortedError)):
        host.run(host.in_run(plan(), {}))
    (stop,) = stops

    assert stop["exit_status"] == status
    assert stop["reason"] in ("door: it does not go to 13", "enough")


def test_compute_runs_in_a_thread_while_time_stands_still(host: Host) -> None:
    """A long computation costs no lab time and does not block the loop."""
    threads: list[str] = []

    def work(number: int) -> int:
        threads.append(threading.current_thread().name)
        return number * 2

    def plan() -> MsgGenerator[int]:
        yield from bps.sleep(10.0)
        return (yield from compute(work, 21))

    assert host.run(plan()) == 42
    assert host.timing.lab_time_s == 10.0
    assert threads[0] != host._thread.name


@step(kind="repeatable", expected_s=lambda number: 60.0 * number)
def wait_minutes(number: int) -> MsgGenerator[dict[str, int]]:
    """Wait for some minutes."""
    yield from bps.sleep(60.0 * number)
    return {"minutes": number}


def test_steps_are_told_and_kept_when_they_begin_and_end(
    host: Host, tmp_path: Path
) -> None:
    """Begin and end are on record, in lab time, before the plan goes on."""
    told: list[tuple[str, float | None]] = []
    host.on_step = lambda record: told.append((record.name, record.ended_s))

    def plan() -> MsgGenerator[None]:
        yield from wait_minutes(2)
        yield from wait_minutes(3)

    with Store(tmp_path / "store.sqlite") as store:
        owner = Ownership(store, NOTHING, host.loop, lease_s=1e6)
        store.write(partial(submit, wanted=JobRequest("wait", "1"), now=0.0))
        job = host.call(owner.claim())
        assert job is not None
        host.run(plan(), owner.recorder(job))
        with store.read() as connection:
            kept = steps_of(connection, job.id)

    assert [
        (step.path, step.begun - TWIN_EPOCH, (step.ended or 0.0) - TWIN_EPOCH)
        for step in kept
    ] == [("0", 0.0, 120.0), ("1", 120.0, 300.0)]
    assert kept[0].result == {"minutes": 2}
    assert told == [
        ("wait_minutes", None),
        ("wait_minutes", 120.0),
        ("wait_minutes", None),
        ("wait_minutes", 300.0),
    ]


def test_fault_of_the_loop_fails_the_run_and_none_after_it(host: Host) -> None:
    """A result that time itself was wrong for is not returned; later ones are."""

    def fault() -> None:
        host.loop.faults.append(InternalError("lab time was frozen by /dev/pts/9"))

    def move_wrongly(door: Door) -> MsgGenerator[list[float]]:
        yield from compute(fault)
        return (yield from move(door, 1.0))

    with pytest.raises(InternalError, match="/dev/pts/9"):
        host.run(move_wrongly(Door()))

    assert host.run(move(Door(), 1.0)) == [1.0]


def trace_of_a_job() -> list[tuple[float, str]]:
    """Return lab time and command of each message of a job with its own threads."""
    host = Host(LabTimeLoop(None))
    trace: list[tuple[float, str]] = []

    def plan() -> Iterator[Msg]:
        for n in range(12):
            yield from bps.abs_set(Door(), float(n), group="doors")
            yield from bps.sleep(0.1 * n)
            yield from compute(sum, range(1000 * n))
            yield from wait_minutes(1)
            trace.append((host.loop.time(), "turn"))
        yield from bps.wait(group="doors")
        trace.append((host.loop.time(), "end"))

    try:
        host.run(plan())
        host.run(plan())
    finally:
        host.close()
    return trace


def test_twenty_runs_give_one_trace() -> None:
    """The same job takes the same course, however fast threads start and end."""
    traces = [trace_of_a_job() for _ in range(20)]

    assert len(traces[0]) == 26
    assert all(trace == traces[0] for trace in traces)
