"""The gate of a job: what holds it, what it asks people, and when it may heat."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from cell_life import (
    STARTS,
    MakeLife,
    answer,
    ask,
    job,
    steps_of,
    submit,
    write,
)
from exercise import World
from ppu.cell.gate import JobGate
from ppu.store import commands, queue, steps
from ppu.store.jobs import JobState
from ppu.store.requests import AllowHeat


def test_held_job_waits_at_its_next_step_and_goes_on(live: MakeLife) -> None:
    """A hold lets the step end, begins no other, and is over when it is released."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(10.0)
    write(life, partial(queue.hold, job_id=one))
    life.advance(5000.0)

    assert job(life, one).state is JobState.PAUSED
    assert job(life, one).reason_text == "held before step visit press: cup_1"
    assert World.acts.total() == 1

    write(life, partial(queue.resume, job_id=one))
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert World.acts.total() == 1


def test_job_that_waits_for_a_device_can_be_held(live: MakeLife) -> None:
    """Held while it waits, it takes nothing when that becomes free."""
    life = live()
    one, other = submit(life, {"kind": "press"}, {"kind": "press"})
    life.start()
    life.advance(10.0)
    assert job(life, other).state is JobState.RUNNING
    write(life, partial(queue.hold, job_id=other))
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert job(life, other).state is JobState.PAUSED
    assert "press" not in steps_of(life, other)


def test_failed_step_asks_and_does_what_it_is_told(live: MakeLife) -> None:
    """After its retries a step waits for a person; skipped, the job goes on."""
    life = live()
    World.n_faults_due = 2
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(100.0)

    assert job(life, one).state is JobState.NEEDS_INPUT
    assert World.n_faults_due == 0
    with life.store.read() as connection:
        (question,) = steps.questions(connection)
    assert question.answers == ("retry", "abort", "skip", "park")
    assert question.text == "step shake: cup_1 failed: the shaker is stuck"

    write(life, partial(steps.answer, job_id=one, path=None, said="skip", by="anna"))
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert steps_of(life, one)["shake"].result == 0


def test_lab_file_decides_what_becomes_of_a_failed_step(live: MakeLife) -> None:
    """A lab's own policy goes before that of the protocol."""
    life = live(failure_policies={"shake": "skip"})
    World.n_faults_due = 1
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED


def test_nothing_is_heated_after_a_crash_before_a_person_agrees(
    live: MakeLife,
) -> None:
    """A job that comes to its firing after a crash waits for a person's word."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(10.0)
    life.kill()
    life.start()
    life.advance(10.0)
    settle = partial(steps.answer, job_id=one, path=None, said="not-happened")
    write(life, partial(settle, by="anna"))
    life.advance(20000.0)

    waiting = job(life, one)
    assert (waiting.state, waiting.reason_code) == (JobState.NEEDS_INPUT, "restart")
    assert not STARTS

    ask(life, AllowHeat())
    life.advance(6000.0)
    assert job(life, one).state is JobState.SUCCEEDED
    assert len(STARTS) == 1


def test_person_must_agree_to_heat_even_after_a_second_restart(live: MakeLife) -> None:
    """A clean end between a crash and a person's word does not stand for it."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(10.0)
    life.kill()
    life.start()
    life.advance(10.0)
    answer(life, one, "not-happened")
    life.advance(2000.0)
    life.end()
    life.start()
    life.advance(3000.0)

    assert job(life, one).reason_code == "restart"
    assert not STARTS


def test_old_word_does_not_let_a_new_cell_heat(live: MakeLife) -> None:
    """What was said while no cell lived was not said of what is there now."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(10.0)
    life.kill()
    life.store.is_dead = False  # others may write to it
    write(life, partial(commands.request, wanted=AllowHeat(), by="anna"))
    life.advance(10.0)
    life.start()
    life.advance(10.0)
    answer(life, one, "not-happened")
    life.advance(2000.0)

    assert job(life, one).reason_code == "restart"
    assert not STARTS


def test_held_job_keeps_nobody_from_work_after_a_restart(live: MakeLife) -> None:
    """Whoever is held had nothing under way, so nobody waits for it."""
    life = live()
    (held,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(5.0)
    write(life, partial(queue.hold, job_id=held))
    life.advance(30.0)
    life.end()
    life.start()
    life.advance(10.0)
    (other,) = submit(life, {"kind": "press"})
    life.advance(1000.0)

    assert (job(life, held).state, job(life, held).is_held) == (JobState.QUEUED, True)
    assert job(life, other).state is JobState.SUCCEEDED


def test_retried_step_does_not_repeat_what_was_done_within_it(live: MakeLife) -> None:
    """The inner act that was done stays done; what failed is tried again."""
    life = live(failure_policies={"press_and_shake": "retry"})
    World.n_faults_due = 1
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert set(World.acts.values()) == {1}


def test_cancelled_job_ends_though_an_outer_step_would_ask(live: MakeLife) -> None:
    """A failure policy is for failures, not for people who want to stop."""
    life = live(failure_policies={"press_and_shake": "ask"})
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(10.0)
    write(life, partial(queue.cancel, job_id=one, by="anna"))
    life.advance(500.0)

    assert job(life, one).state is JobState.ABORTED


def test_question_is_asked_again_after_a_crash(live: MakeLife) -> None:
    """A failed step that waits for a person is not tried by itself."""
    life = live()
    World.n_faults_due = 3
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(100.0)
    life.kill()
    life.start()
    life.advance(100.0)

    assert job(life, one).state is JobState.NEEDS_INPUT
    assert World.n_faults_due == 1
    answer(life, one, "skip")
    life.advance(1000.0)
    assert job(life, one).state is JobState.SUCCEEDED


def test_question_of_an_outer_step_takes_the_place_of_those_within(
    live: MakeLife,
) -> None:
    """Whoever gave an inner step up is asked about the outer one, and nothing else."""
    life = live(failure_policies={"shake_once": "ask", "press_and_shake": "ask"})
    World.n_faults_due = 1
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(100.0)
    answer(life, one, "abort")
    life.advance(10.0)
    with life.store.read() as connection:
        (question,) = steps.questions(connection, one)
        assert commands.waiting(connection, one) == []
    answer(life, one, "retry")
    life.advance(10.0)
    life.kill()
    life.start()
    life.advance(2000.0)

    assert question.step.name == "press_and_shake"
    assert question.answered is None
    assert job(life, one).state is JobState.SUCCEEDED


def test_step_that_is_tried_again_from_outside_asks_anew(live: MakeLife) -> None:
    """An answer is for the question that stood, not for the next one."""
    life = live(
        failure_policies={
            "shake_once": "ask",
            "press_and_shake": "retry",
        }
    )
    World.n_faults_due = 2
    (one,) = submit(life, {"kind": "nested"})
    life.start()
    life.advance(100.0)
    answer(life, one, "abort")
    life.advance(100.0)
    answer(life, one, "retry")
    life.advance(100.0)

    assert job(life, one).state is JobState.SUCCEEDED


def test_job_is_released_while_its_instruments_go_to_their_hold_state(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said in the meantime is not lost."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(10.0)
    hold_devices = JobGate.hold_devices

    async def hold_slowly(gate: JobGate) -> None:
        await hold_devices(gate)
        await asyncio.sleep(5.0)

    monkeypatch.setattr(JobGate, "hold_devices", hold_slowly)
    write(life, partial(queue.hold, job_id=one))
    while job(life, one).state is not JobState.PAUSED:
        life.advance(0.5)
    write(life, partial(queue.resume, job_id=one))
    life.advance(2000.0)

    assert job(life, one).state is JobState.SUCCEEDED


def test_furnaces_may_heat_while_the_store_is_slow(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that comes while it is kept that one is needed is heard."""
    life = live()
    life.start()
    life.advance(0.01)
    cell = life.cell
    assert cell is not None
    cell.roster.may_heat = False
    (one,) = submit(life, {"kind": "bare"})
    change = cell.owner.change

    async def change_slowly(job_id: int, state: JobState, **more: Any) -> None:
        await change(job_id, state, **more)
        if state is JobState.NEEDS_INPUT:
            await asyncio.sleep(2.0)

    monkeypatch.setattr(cell.owner, "change", change_slowly)
    while job(life, one).state is not JobState.NEEDS_INPUT:
        life.advance(0.5)
    ask(life, AllowHeat())
    life.advance(8000.0)

    assert job(life, one).state is JobState.SUCCEEDED
