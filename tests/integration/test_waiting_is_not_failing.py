"""A job waits for what is not there, and fails only of what waiting cannot mend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cell_life import MakeLife, ask, job, release_one, submit
from exercise import LAB, Wish, World, exercise
from mortal import MortalCell
from ppu.cell.ownership import Ownership
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    DivergedError,
    FailureClass,
    InstrumentError,
    InterlockError,
    InternalError,
    LimitError,
    LinkBroken,
    MalformedReply,
    NoResourceError,
    NotFoundError,
    NothingToJoinError,
    PPUError,
    ReplyTimeout,
    StoreBusyError,
    UnencodableRequest,
)
from ppu.core.labfile import LabFile
from ppu.core.remedies import Remedy
from ppu.plans import Lab
from ppu.store import queue
from ppu.store.jobs import Effect, Job, JobRequest, JobState
from ppu.store.requests import Cancel, ReturnDevice, TagOut
from ppu.store.store import Store
from ppu.store.waiting import reasons_to_wait
from ppu.testing.loops import play_from_start

HELD, PART = Effect.NONE, Effect.PARTIAL
CLASS = FailureClass


@dataclass(frozen=True)
class Ends:
    """What becomes of a job that meets an error.

    Attributes:
        error: What it meets.
        effect: What it has had by then.
        n_tries: How often it was tried before.
        state: The state that it comes to.
        failure_class: What a program may do about it.
        remedy: What a person may do, if anything.
    """

    error: Exception
    effect: Effect
    n_tries: int
    state: str
    failure_class: FailureClass
    remedy: Remedy | None = None


TABLE = [
    # Nothing was wrong with what was asked.
    Ends(ConnectError("no"), HELD, 0, "queued", CLASS.RETRYABLE),
    Ends(LinkBroken("no"), HELD, 1, "queued", CLASS.RETRYABLE),
    Ends(ReplyTimeout("no"), HELD, 2, "failed", CLASS.RETRYABLE, Remedy.RETRY),
    Ends(MalformedReply("no"), HELD, 0, "queued", CLASS.RETRYABLE),
    Ends(InstrumentError("busy"), HELD, 0, "queued", CLASS.RETRYABLE),
    Ends(InstrumentError("busy"), PART, 0, "failed", CLASS.RETRYABLE, Remedy.RETRY),
    Ends(InterlockError("hot"), HELD, 0, "queued", CLASS.RETRYABLE),
    Ends(InterlockError("hot"), PART, 0, "failed", CLASS.RETRYABLE, Remedy.RETRY),
    Ends(StoreBusyError("full"), HELD, 0, "queued", CLASS.RETRYABLE),
    # What it needs is not there.
    Ends(NoResourceError("no cup"), HELD, 0, "queued", CLASS.NO_RESOURCE),
    Ends(NoResourceError("no cup"), HELD, 9, "queued", CLASS.NO_RESOURCE),
    Ends(NoResourceError("no cup"), PART, 0, "failed", CLASS.NO_RESOURCE, Remedy.RETRY),
    Ends(
        InterlockError("long", failure_class=CLASS.NO_RESOURCE),
        *(HELD, 0, "queued", CLASS.NO_RESOURCE),
    ),
    # It cannot be done as it was asked.
    Ends(LimitError("too hot"), HELD, 0, "failed", CLASS.INFEASIBLE),
    Ends(ConfigurationError("odd"), HELD, 0, "failed", CLASS.INFEASIBLE),
    Ends(NotFoundError("none"), HELD, 0, "failed", CLASS.INFEASIBLE),
    Ends(UnencodableRequest("no"), HELD, 0, "failed", CLASS.INFEASIBLE),
    Ends(InternalError("bug"), HELD, 0, "failed", CLASS.INFEASIBLE, Remedy.REPORT),
    Ends(ValueError("bug"), HELD, 0, "failed", CLASS.INFEASIBLE, Remedy.REPORT),
    # Others.
    Ends(ConflictError("no"), HELD, 0, "failed", CLASS.REJECTED),
    Ends(DivergedError("other"), PART, 0, "failed", CLASS.REJECTED),
    Ends(NothingToJoinError("cold"), PART, 0, "failed", CLASS.LOST),
    Ends(AbortedError("stop"), HELD, 0, "aborted", CLASS.ABORTED),
    Ends(AbortedError("stop"), PART, 0, "aborted", CLASS.ABORTED),
]


@pytest.mark.parametrize(
    "ends", TABLE, ids=lambda e: f"{type(e.error).__name__} {e.effect} {e.n_tries}"
)
def test_job_ends_or_waits_by_the_class_of_what_it_met(
    ends: Ends, tmp_path: Path
) -> None:
    """Class, field and remedy are kept with it; what touched nothing may begin anew."""
    if isinstance(ends.error, PPUError):
        ends.error.field = "furnace_1"

    async def play(store: Store) -> tuple[Job, bool]:
        import asyncio  # noqa: PLC0415 - the loop of this coroutine

        loop: Any = asyncio.get_running_loop()
        owner = Ownership(store, LabFile.model_validate(LAB), loop, lease_s=1e9)
        now = loop.stamp()
        store.write(partial(queue.submit, wanted=JobRequest("f", "1"), now=now))
        claimed = await owner.claim()
        assert claimed is not None
        await owner.change(claimed.id, JobState.RUNNING, effect=ends.effect)
        tried = replace(claimed, n_tries=ends.n_tries)
        is_back, *_ = await owner.fail(tried, ends.error, is_untouched=True)
        with store.read() as connection:
            return queue.get(connection, claimed.id), is_back

    with Store(tmp_path / "lab.sqlite") as store:
        after, is_back = play_from_start(play(store))
        assert store.check() == []

    assert (str(after.state), after.failure_class) == (ends.state, ends.failure_class)
    assert is_back is (ends.state == "queued")
    assert after.field == ("furnace_1" if isinstance(ends.error, PPUError) else None)
    assert after.is_retryable is (ends.failure_class is CLASS.RETRYABLE)
    if ends.remedy is not None:
        assert [one.remedy for one in after.advice] == [ends.remedy]


# -- in a cell ---------------------------------------------------------------------


def told(life: MortalCell, job_id: int) -> str:
    """Return what a job waits for, in words."""
    # What a cell says of waits it does not wait for; this comes after it.
    life.store.write(lambda _: None)
    with life.store.read() as connection:
        found = reasons_to_wait(connection, queue.get(connection, job_id))
    return "; ".join(one.text for one in found)


def upgrade(life: MortalCell, version: str) -> None:
    """Install another version of the protocol, as a restart would find it."""
    protocols: Any = life._protocols
    protocols["exercise"] = replace(exercise, version=version)


def test_job_of_another_version_waits_until_that_is_installed(live: MakeLife) -> None:
    """An upgrade fails no job: it says what it needs, and begins when it is there."""
    life = live()
    (one,) = submit(life, {"kind": "rest"})
    upgrade(life, "2")
    life.start()
    life.advance(100.0)
    waiting = job(life, one)
    text = told(life, one)
    life.end()
    upgrade(life, "1")
    life.start()
    life.advance(100.0)

    assert (waiting.state, waiting.failure_class) == ("queued", CLASS.NO_RESOURCE)
    assert (waiting.field, waiting.advice[0].remedy) == (
        "protocol",
        Remedy.INSTALL_PROTOCOL,
    )
    assert "version 1 of exercise, installed is 2" in text
    assert job(life, one).state is JobState.SUCCEEDED


def test_job_under_way_stands_by_until_its_version_is_installed(
    live: MakeLife,
) -> None:
    """It keeps what it has meanwhile, and goes on from where it was."""
    life = live()
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(65.0)
    life.kill()
    upgrade(life, "2")
    life.start()
    life.advance(1000.0)
    waiting, text = job(life, one), told(life, one)
    life.kill()
    upgrade(life, "1")
    life.start()
    life.advance(1000.0)

    assert waiting.state is JobState.PAUSED
    assert "version 1 of exercise" in str(waiting.reason_text) + text
    assert job(life, one).state is JobState.SUCCEEDED
    assert World.acts == {f"exercise-{one} pressed": 1}


def test_job_that_stands_by_can_be_cancelled(live: MakeLife) -> None:
    """Nobody must install anything to end it."""
    life = live()
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(65.0)
    life.kill()
    upgrade(life, "2")
    life.start()
    life.advance(10.0)
    ask(life, Cancel(), one)
    life.advance(100.0)

    assert job(life, one).state is JobState.ABORTED


def test_job_that_lacks_something_begins_when_the_lab_has_changed(
    live: MakeLife,
) -> None:
    """Its check says what is missing; every change of the lab lets it look again."""
    life = live()
    lacking = {"cup_9"}

    def check(lab: Lab, wish: Wish) -> None:
        if wish.number in (7, 8) and lacking:
            raise NoResourceError(f"cup_{wish.number} is not there", field="cup_9")

    protocols: Any = life._protocols
    protocols["exercise"] = replace(exercise, check=check)
    first, second, other = submit(
        life,
        {"kind": "rest", "number": 7},
        {"kind": "rest", "number": 8},
        {"kind": "press"},
    )
    life.start()
    life.advance(1000.0)
    waiting = [job(life, n) for n in (first, second)]
    lacking.clear()
    assert job(life, other).state is JobState.SUCCEEDED
    release_one(life)
    life.advance(100.0)

    assert [one.state for one in waiting] == [JobState.QUEUED] * 2
    assert [one.reason_text for one in waiting] == [
        "cup_7 is not there",
        "cup_8 is not there",
    ]
    assert [job(life, n).state for n in (first, second)] == [JobState.SUCCEEDED] * 2


def test_job_that_failed_untouched_is_tried_again_by_itself(live: MakeLife) -> None:
    """A fault that passes costs nobody a job; the third one ends it."""
    life = live(failure_policies={"shake": "abort"})
    World.n_faults_due = 2
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(30.0)
    first = job(life, one)
    life.advance(2000.0)

    assert (first.state, first.n_tries) == (JobState.QUEUED, 1)
    assert first.not_before is not None
    assert job(life, one).state is JobState.SUCCEEDED


@pytest.mark.parametrize("how", ["end", "kill"])
def test_cell_that_ends_leaves_in_the_queue_what_only_waited(
    live: MakeLife, how: str
) -> None:
    """A job that waits for a container has touched nothing: it is not lost."""
    life = live()
    *first, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2000.0)
    state = job(life, waiting).state
    life.end() if how == "end" else life.kill()
    left = job(life, waiting).state
    life.start()
    release_one(life)
    life.advance(2000.0)

    assert {job(life, one).state for one in first} == {JobState.SUCCEEDED}
    assert state is JobState.RUNNING
    if how == "end":
        assert left is JobState.QUEUED
    assert job(life, waiting).state is JobState.SUCCEEDED


def test_deadline_counts_in_the_time_of_the_lab(live: MakeLife) -> None:
    """A twin lives in 2030: six hours from its begin, whatever the wall says."""
    life = live()
    wanted = [JobRequest("exercise", "1", {"kind": "rest"}, deadline_s=6 * 3600.0)]
    held = [replace(wanted[0], is_held=True)]
    submit_many = partial(queue.submit_many, now=1_700_000_000.0)
    (one,) = life.store.write(partial(submit_many, wanted=wanted))
    (late,) = life.store.write(partial(submit_many, wanted=held))
    life.start()
    life.advance(100.0)
    kept = job(life, late)
    life.advance(5 * 3600.0)
    before = job(life, late).state
    life.advance(2 * 3600.0)
    life.advance(1.0)  # it looks at its queue when it is woken

    assert job(life, one).state is JobState.SUCCEEDED
    assert kept.deadline == pytest.approx(life.loop.epoch + 6 * 3600.0, abs=10.0)
    assert before is JobState.QUEUED
    assert job(life, late).state is JobState.EXPIRED


# -- out of service ----------------------------------------------------------------


def test_tagged_out_device_is_taken_by_nobody_until_it_returns(live: MakeLife) -> None:
    """Jobs wait and say why, over a restart of the cell, too; then they go on."""
    life = live(scheduling={"patience_s": 3600.0})
    life.start()
    ask(life, TagOut(device="furnace_1", reason="relay chatters"))
    (one,) = submit(life, {"kind": "fire"})
    life.advance(2 * 3600.0)
    assert job(life, one).state is JobState.RUNNING
    text = told(life, one)
    life.end()
    life.start()
    life.advance(2 * 3600.0)
    again = told(life, one)
    ask(life, ReturnDevice(device="furnace_1"))
    life.advance(8000.0)

    why = "furnace_1 is tagged out of service by anna: relay chatters"
    assert why in text
    assert why in again
    assert job(life, one).state is JobState.SUCCEEDED


def test_tag_out_leaves_alone_what_is_under_way(live: MakeLife) -> None:
    """A firing goes on to its end, and whoever tags out is told what is so."""
    life = live()
    one, other = submit(life, {"kind": "fire"}, {"kind": "fire", "degc": 90.0})
    life.start()
    life.advance(1000.0)
    ask(life, TagOut(device="furnace_1", reason="door seal"))
    with life.store.read() as connection:
        from ppu.store.commands import outcomes  # noqa: PLC0415 - only here
        from ppu.store.events import events_after  # noqa: PLC0415 - only here

        (asked,) = events_after(connection, kinds=["command"])
        said = outcomes(connection, [asked.sequence])[asked.sequence].text
    life.advance(12000.0)
    states = {job(life, n).state for n in (one, other)}

    assert "goes on with what is under way" in said
    assert "degC" in said
    assert states == {JobState.SUCCEEDED, JobState.RUNNING}
