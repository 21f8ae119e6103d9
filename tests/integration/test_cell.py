"""The cell: several jobs at once on shared instruments, and what people do to them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from exercise import LAB, World, exercise
from mortal import MortalCell
from ppu.cell.cell import Cell
from ppu.cell.lab import OpenLab
from ppu.core.errors import StaleTokenError
from ppu.core.labfile import load_lab
from ppu.core.remedies import Remedy, advise
from ppu.store import commands, custody, queue, steps, stock
from ppu.store.documents import documents_of
from ppu.store.events import events_after
from ppu.store.jobs import Effect, Job, JobRequest, JobState
from ppu.store.requests import (
    Abort,
    AllowHeat,
    Cancel,
    Drain,
    MoveContainer,
    Request,
    UnknownRequest,
)
from ppu.store.store import Store
from ppu.store.waiting import Wait, reasons_to_wait

MakeLife = Callable[..., MortalCell]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[MakeLife]:
    """Makes a cell in the exercise lab, whose file may be changed."""
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    World.acts.clear()
    World.n_faults_due = 0
    lives: list[MortalCell] = []

    def make(**change: Any) -> MortalCell:
        life = MortalCell(copy.deepcopy(LAB) | change, tmp_path, {"exercise": exercise})
        lives.append(life)
        _count_starts(life)
        return life

    yield make
    for life in lives:
        life.close()


def submit(life: MortalCell, *wishes: dict[str, Any], **more: Any) -> list[int]:
    """Submit jobs."""
    wanted = [JobRequest("exercise", "1", wish, **more) for wish in wishes]
    ids: list[int] = write(life, partial(queue.submit_many, wanted=wanted))
    return ids


def write(life: MortalCell, work: Any) -> Any:
    """Write as a command line does."""
    return life.store.write(partial(work, now=life.loop.stamp()))


def job(life: MortalCell, job_id: int) -> Job:
    """Return a job as it is now."""
    found = next(one for one in life.jobs() if one.id == job_id)
    sys.stderr.write(f"{found.state}: {found.reason_text}\n")  # shown if it fails
    return found


def steps_of(life: MortalCell, job_id: int) -> dict[str, steps.Step]:
    """Return the steps of a job by name."""
    with life.store.read() as connection:
        return {step.name: step for step in steps.steps_of(connection, job_id)}


def ask(life: MortalCell, wanted: Request, job_id: int | None = None) -> None:
    """Ask the cell to do something."""
    write(life, partial(commands.request, wanted=wanted, by="anna", job_id=job_id))
    life.advance(0.5)


STARTS: list[float] = []
"""When the furnace's program was started, as its wire saw it."""


def _count_starts(life: MortalCell) -> None:
    STARTS.clear()
    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]
    write = furnace.write

    def note(address: int, values: list[int], time: float) -> None:
        if (address, values) == (23, [1]):
            STARTS.append(time)
        write(address, values, time)

    furnace.write = note


def test_jobs_with_the_same_profile_share_a_firing(live: MakeLife) -> None:
    """Two containers are fired at once: one leads, the other has the same record."""
    life = live()
    one, other = submit(life, {"kind": "fire"}, {"kind": "fire"})
    life.start()

    life.advance(6000.0)

    assert [str(one.state) for one in life.jobs()] == ["succeeded"] * 2
    roles = [steps_of(life, n)["load_seat"].result for n in (one, other)]
    assert sorted(roles) == ["follow", "lead"]
    records = [steps_of(life, n)["fire_seat"].result for n in (one, other)]
    assert records[0] == records[1]
    assert len(STARTS) == 1


def test_jobs_with_other_profiles_wait_for_the_furnace(live: MakeLife) -> None:
    """What needs another heat is fired later, never with it."""
    life = live()
    one, other = submit(life, {"kind": "fire"}, {"kind": "fire", "degc": 90.0})
    life.start()

    life.advance(12000.0)

    assert [str(one.state) for one in life.jobs()] == ["succeeded"] * 2
    first, second = (steps_of(life, n)["fire_seat"] for n in (one, other))
    assert first.ended is not None
    assert first.ended <= second.begun
    assert len(STARTS) == 2


def test_first_in_a_furnace_waits_for_others_only_so_long(live: MakeLife) -> None:
    """A job that could come keeps nobody longer than a part of the firing."""
    life = live(scheduling={"share_wait": 0.01})
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(100.0)
    submit(life, {"kind": "press"}, {"kind": "press"}, {"kind": "press"})
    life.advance(6000.0)

    seat = steps_of(life, one)["take_seat"]

    assert seat.ended is not None
    assert seat.ended - seat.begun < 60.0


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

    write(life, partial(queue.release, job_id=one))
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


def test_cancelled_job_ends_before_its_next_step(live: MakeLife) -> None:
    """The step under way ends, and what it did is on record."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(10.0)
    write(life, partial(queue.cancel, job_id=one, by="anna"))
    life.advance(100.0)

    ended = job(life, one)
    assert (ended.state, ended.physical_effect) == (JobState.ABORTED, Effect.PARTIAL)
    assert ended.reason_text == "cancel: by anna"
    assert World.acts.total() == 1


def test_aborted_job_ends_in_the_middle_of_a_step(live: MakeLife) -> None:
    """An abort does not wait for anything, and frees what the job had."""
    life = live()
    one, other = submit(life, {"kind": "press"}, {"kind": "press"})
    life.start()
    life.advance(10.0)
    ask(life, Abort(), one)

    assert job(life, one).state is JobState.ABORTED
    assert World.acts.total() == 0
    life.advance(1000.0)
    assert job(life, other).state is JobState.SUCCEEDED


def test_firing_goes_on_when_the_job_that_leads_it_is_aborted(live: MakeLife) -> None:
    """The other member leads on: the furnace never notices, its record is whole."""
    life = live()
    jobs = submit(life, {"kind": "fire"}, {"kind": "fire"})
    life.start()
    while any("fire_seat" not in steps_of(life, n) for n in jobs):
        life.advance(50.0)
    life.advance(200.0)
    roles = {steps_of(life, n)["load_seat"].result: n for n in jobs}
    ask(life, Abort(), roles["lead"])
    life.advance(6000.0)

    assert job(life, roles["lead"]).state is JobState.ABORTED
    assert job(life, roles["follow"]).state is JobState.SUCCEEDED
    record = steps_of(life, roles["follow"])["fire_seat"].result
    assert record["dwell_s"][0] == pytest.approx(600.0, abs=250.0)
    assert len(STARTS) == 1


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


def test_job_of_a_dead_cell_goes_on_where_it_was(live: MakeLife) -> None:
    """Killed in a firing: the next cell joins it, and all documents are whole."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    while "fire_seat" not in steps_of(life, one):
        life.advance(50.0)
    life.advance(500.0)
    life.kill()
    life.advance(60.0)
    life.start()
    life.advance(6000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert (len(STARTS), World.acts.total()) == (1, 1)
    with life.store.read() as connection:
        names = [name for name, _ in documents_of(connection, one)]
    assert names.count("start") == names.count("stop") == 2
    assert life.store.check() == []


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


def test_drained_cell_leaves_a_firing_to_the_next_one(live: MakeLife) -> None:
    """Drained, a cell ends at once if only a furnace is at work; nothing is lost."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    while "fire_seat" not in steps_of(life, one):
        life.advance(50.0)
    life.advance(300.0)
    life.end()

    assert job(life, one).state is JobState.LOST
    life.advance(60.0)
    life.start()
    life.advance(6000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert len(STARTS) == 1


def test_drain_lets_nobody_begin_with_what_a_drained_job_gives_back(
    live: MakeLife,
) -> None:
    """What a job lets go when its cell ends is not taken by those who waited for it."""
    life = live()
    one, other = submit(life, {"kind": "press"}, {"kind": "press"})
    life.start()
    while "press" not in steps_of(life, one) or "take_container" not in steps_of(
        life, other
    ):
        life.advance(5.0)
    before = set(steps_of(life, other))
    assert life.cell is not None
    life.loop.call_soon_threadsafe(life.cell.drain)
    life.advance(100.0)
    life.end()

    assert job(life, one).state is JobState.LOST
    assert job(life, other).state is JobState.LOST
    assert set(steps_of(life, other)) == before
    life.start()
    life.advance(6000.0)

    assert [str(one.state) for one in life.jobs()] == ["succeeded"] * 2
    assert max(World.acts.values()) == 1


def test_cell_without_its_lease_cannot_touch_an_instrument(live: MakeLife) -> None:
    """Once the lease has run out, nothing is written to any wire."""
    life = live()
    life.start()
    assert life.cell is not None
    devices: list[Any] = list(life.lab.devices.values())
    sent = [device.statistics().n_bytes_sent for device in devices]
    life.cell.owner._trusted_until_s = life.loop.time() - 1.0

    with pytest.raises(StaleTokenError, match="must not touch the instruments"):
        life.lab.host.call(life.lab.devices["furnace_1"].read_signal("process_value"))

    assert [device.statistics().n_bytes_sent for device in devices] == sent


def test_what_a_job_waits_for_is_on_record(live: MakeLife) -> None:
    """People can see why a job does not go on, and who has what it needs."""
    life = live()
    one, other = submit(life, {"kind": "press"}, {"kind": "press"})
    life.start()
    life.advance(10.0)

    with life.store.read() as connection:
        found = [e for e in events_after(connection, 0, 10**6) if e.kind == "wait"]

    assert [e.job_id for e in found] == [other]
    assert found[0].content["for"] == (
        f"step press: cup_2, exercise-{other} pressed waits for press "
        f"(job {one} has it)"
    )


def test_job_tells_why_it_waits_while_it_does(live: MakeLife) -> None:
    """What `ppu job` shows is what the cell said last, and nothing when it goes on."""
    life = live()
    one, other = submit(life, {"kind": "press"}, {"kind": "press"})
    life.start()
    life.advance(10.0)

    def reasons(job_id: int) -> list[str]:
        with life.store.read() as connection:
            found = reasons_to_wait(connection, queue.get(connection, job_id))
        return [why.text for why in found]

    assert reasons(one) == []
    assert reasons(other) == [
        f"step press: cup_2, exercise-{other} pressed waits for press "
        f"(job {one} has it)"
    ]
    life.advance(400.0)
    assert reasons(other) == []


def release_one(life: MortalCell) -> None:
    """Say that a sample is gone and its container clean."""
    with life.store.read() as connection:
        (sample, *_) = custody.find_samples(connection, states=["active"])
    write(life, partial(custody.ask_release, sample=sample.id, by="anna"))
    life.advance(1.0)


def test_job_waits_until_somebody_cleans_a_container(live: MakeLife) -> None:
    """More jobs than containers fail nowhere: they tell what a person can do."""
    life = live()
    *first, waiting, last = submit(life, *[{"kind": "press"}] * 6)
    life.start()
    life.advance(2000.0)
    with life.store.read() as connection:
        told = reasons_to_wait(connection, queue.get(connection, waiting))
    assert told == [
        Wait(
            "step take container: crucible waits: no crucible is empty and at home; "
            "clean one and say so",
            (advise(Remedy.RELEASE_SAMPLE),),
        )
    ]

    release_one(life)
    life.advance(1000.0)

    assert {job(life, one).state for one in (*first, waiting)} == {JobState.SUCCEEDED}
    assert job(life, last).state is JobState.RUNNING


def test_job_that_waits_for_a_container_goes_on_in_the_next_cell(
    live: MakeLife,
) -> None:
    """A cell drains though jobs wait for people, and the wait outlives it."""
    life = live()
    *_, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2000.0)
    life.end()
    life.start()
    life.advance(10.0)
    release_one(life)
    life.advance(1000.0)

    assert job(life, waiting).state is JobState.SUCCEEDED


def test_job_that_waits_for_a_container_can_be_cancelled(live: MakeLife) -> None:
    """Nobody needs to clean anything to end it."""
    life = live()
    *_, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2000.0)
    write(life, partial(queue.cancel, job_id=waiting, by="anna"))
    life.advance(1.0)

    assert job(life, waiting).state is JobState.ABORTED


def test_nobody_cleans_a_container_for_ever(live: MakeLife) -> None:
    """A wait for people has an end, too, and fails with what was missing."""
    life = live(scheduling={"patience_s": 3600.0})
    *_, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2 * 3600.0)

    ended = job(life, waiting)
    assert ended.state is JobState.FAILED
    assert "waited 3600 s: no crucible is empty" in str(ended.reason_text)
    assert ended.physical_effect is Effect.NONE


@contextlib.contextmanager
def jumping_cell(
    folder: Path, *kinds: str, **change: Any
) -> Iterator[tuple[Cell, Store]]:
    """A cell of a twin whose time jumps, as `ppu cell` has it."""
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(LAB | change))
    with (
        OpenLab(load_lab(path), path, target="twin", pace=None).closing() as lab,
        Store(folder / "lab.sqlite") as store,
    ):
        cell = Cell(
            lab, store, folder / "results", is_patient=True, find=lambda _: exercise
        )
        wanted = [JobRequest("exercise", "1", {"kind": kind}) for kind in kinds]
        store.write(
            partial(queue.submit_many, wanted=wanted, now=lab.host.loop.stamp())
        )
        with cell.owning():
            yield cell, store


def states_of(store: Store) -> list[str]:
    """Return the states of all jobs."""
    with store.read() as connection:
        return sorted(str(found.state) for found in queue.find(connection))


def test_job_of_a_jumping_twin_waits_for_people_for_ever(tmp_path: Path) -> None:
    """Nobody at a keyboard is as fast as an hour of jumping lab time."""
    soon = {"patience_s": 3600.0}
    with jumping_cell(tmp_path, *["press"] * 5, scheduling=soon) as (cell, store):
        loop = cell.lab.host.loop

        async def live() -> None:
            work = asyncio.create_task(cell.arun())
            await asyncio.sleep(86400.0)
            assert states_of(store) == ["running", *["succeeded"] * 4]
            with store.read() as connection:
                (sample, *_) = custody.find_samples(connection, states=["active"])
            ask = partial(custody.ask_release, sample=sample.id, by="anna")
            store.write(partial(ask, now=loop.stamp()))
            cell.wake()
            await asyncio.sleep(3600.0)
            cell.drain()
            await work

        cell.lab.host.call(live())

        assert states_of(store) == ["succeeded"] * 5


def test_cell_ends_when_it_is_idle_but_for_people(tmp_path: Path) -> None:
    """What waits for an empty container is left to the next cell."""
    with jumping_cell(tmp_path, *["press"] * 5) as (cell, store):
        cell.run(until_idle=True)

        assert states_of(store) == ["running", *["succeeded"] * 4]
        assert cell.lab.host.loop.time() < 3600.0


def test_job_of_a_jumping_twin_waits_for_whoever_asks_people(tmp_path: Path) -> None:
    """What another has while that asks a person is waited for without end, too."""
    World.acts.clear()
    World.n_faults_due = 1
    change: dict[str, Any] = {
        "failure_policies": {"press_and_shake": "ask"},
        "scheduling": {"patience_s": 3600.0},
    }
    with jumping_cell(tmp_path, "nested", "press", **change) as (cell, store):
        loop = cell.lab.host.loop

        async def live() -> None:
            work = asyncio.create_task(cell.arun(until_idle=True))
            await asyncio.sleep(86400.0)
            assert states_of(store) == ["needs_input", "running"]
            said = partial(steps.answer, job_id=1, path=None, said="retry", by="anna")
            store.write(partial(said, now=loop.stamp()))
            cell.wake()
            await work

        cell.lab.host.call(live())

        assert states_of(store) == ["succeeded"] * 2


def test_jobs_that_wait_for_containers_keep_nobody_from_work(tmp_path: Path) -> None:
    """One that needs no container begins though those before it have none."""
    kinds = [*["press"] * 6, "rest"]
    few = {"jobs_at_once": 2}
    with jumping_cell(tmp_path, *kinds, scheduling=few) as (cell, store):
        cell.run(until_idle=True)

        assert states_of(store) == ["running"] * 2 + ["succeeded"] * 5


def test_container_given_to_a_job_that_is_aborted_then_is_free_again(
    live: MakeLife,
) -> None:
    """A release and an abort in the same moment leave nothing used by nobody."""
    life = live()
    *_, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2000.0)
    with life.store.read() as connection:
        (sample, *_) = custody.find_samples(connection, states=["active"])

    def release_and_abort(connection: Any, now: float) -> None:
        custody.ask_release(connection, sample.id, "anna", now)
        queue.abort(connection, waiting, "anna", "x", now)

    write(life, release_and_abort)
    life.advance(10.0)
    (last,) = submit(life, {"kind": "press"})
    life.advance(1000.0)

    assert job(life, last).state is JobState.SUCCEEDED


def test_job_that_never_began_to_act_gives_its_container_back(live: MakeLife) -> None:
    """A job that fails before it touched anything leaves its container clean."""
    life = live(failure_policies={"shake": "abort"})
    World.n_faults_due = 4
    for n in range(4):
        submit(life, {"kind": "shake", "number": n})
    life.start()
    life.advance(200.0)
    assert [str(one.state) for one in life.jobs()] == ["failed"] * 4

    (last,) = submit(life, {"kind": "press"})
    life.advance(1000.0)

    assert job(life, last).state is JobState.SUCCEEDED


# -- what a crash leaves, and what it must not ---------------------------------------


def answer(life: MortalCell, job_id: int, said: str) -> None:
    """Answer the only question of a job."""
    tell = partial(steps.answer, job_id=job_id, path=None, said=said, by="anna")
    write(life, tell)


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


def test_sample_is_released_while_a_cell_lives(live: MakeLife) -> None:
    """Its container may be used again at once."""
    life = live()
    for n in range(4):
        submit(life, {"kind": "press", "number": n})
    life.start()
    life.advance(2000.0)
    with life.store.read() as connection:
        (sample, *_) = custody.find_samples(connection, states=["active"])
    write(life, partial(custody.ask_release, sample=sample.id, by="anna"))
    life.advance(1.0)
    (last,) = submit(life, {"kind": "press"})
    life.advance(500.0)

    assert job(life, last).state is JobState.SUCCEEDED


def test_request_that_the_cell_does_not_know_is_refused(live: MakeLife) -> None:
    """What a newer PPU asks is answered, and the cell goes on."""
    life = live()
    life.start()
    sing = UnknownRequest(command="sing", said={"song": "1"}, why="")
    loud = UnknownRequest(command="abort", said={"loud": True}, why="")
    numbers = [
        write(life, partial(commands.request, wanted=wanted, by="anna"))  # type: ignore[arg-type]  # as a newer PPU would
        for wanted in (sing, loud)
    ]
    (one,) = submit(life, {"kind": "bare"})
    life.advance(1.0)

    assert outcomes(life, *numbers) == [
        "refused: nobody here knows the request 'sing'; a newer PPU may have made it",
        "refused: the request 'abort' is not understood: loud: Extra inputs are not "
        "permitted; a newer PPU may have made it",
    ]
    life.advance(20000.0)
    assert job(life, one).state is JobState.SUCCEEDED


def test_cell_drains_when_it_is_asked_to(live: MakeLife) -> None:
    """It ends as after SIGTERM; what was asked of an earlier cell does not end it."""
    life = live()
    drain = partial(commands.request, wanted=Drain(), by="anna")
    stale = write(life, drain)
    life.start()
    life.advance(1.0)
    assert life.cell is not None
    was_draining = life.cell.is_draining
    asked = write(life, drain)
    life.advance(1.0)

    assert outcomes(life, stale, asked) == [
        "refused: it was said before this cell began",
        "draining",
    ]
    assert (was_draining, life.cell.is_draining) == (False, True)


def outcomes(life: MortalCell, *numbers: int) -> list[str]:
    """Return what the cell made of requests."""
    with life.store.read() as connection:
        found = commands.outcomes(connection, numbers).values()
    return [f"refused: {one.text}" if one.is_refused else one.text for one in found]


def test_belief_of_an_arrival_outlives_a_refused_correction(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job does while a person's word is kept slowly is not forgotten."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(5.0)
    while "cup_1" not in life.lab.books.under_way:
        life.advance(0.5)
    cell = life.cell
    assert cell is not None
    keep = cell._keep

    async def keep_slowly(command: Any, work: Any) -> Any:
        await asyncio.sleep(100.0)
        return await keep(command, work)

    monkeypatch.setattr(cell, "_keep", keep_slowly)
    wanted = MoveContainer(container="cup_1", location="rack.1")
    ask_move = partial(commands.request, wanted=wanted, by="anna")
    number = write(life, ask_move)
    life.advance(101.0)

    (outcome,) = outcomes(life, number)
    assert outcome.startswith("refused: ")
    assert life.lab.books.places["cup_1"] == "furnace_1.slot_1"
    life.advance(20000.0)
    assert job(life, one).state is JobState.SUCCEEDED


def test_container_is_not_believed_where_a_job_is_at_work(live: MakeLife) -> None:
    """The cell refuses what the store cannot see, until the place is free."""
    life = live()
    (working,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(20.0)
    move = partial(custody.ask_move, container="cup_4", location="press", by="anna")
    first = write(life, move)
    life.advance(1.0)
    believed = life.lab.books.places["cup_4"]
    life.advance(2000.0)
    second = write(life, move)
    life.advance(1.0)

    told = f"refused: job {working} has press for a step; let that end, or abort it"
    assert outcomes(life, first, second) == [told, "done"]
    assert believed == "rack.4"
    assert life.lab.books.places["cup_4"] == "press"
    with life.store.read() as connection:
        assert custody.books(connection).places["cup_4"] == "press"


BAO: dict[str, Any] = {
    "BaO": {
        "at": "furnace_1.shelf",
        "mass_g": 2.0,
        "purity": 0.99,
        "bulk_density_g_per_ml": 1.0,
    }
}
"""2 g of a powder in stock."""


def test_refill_comes_into_the_books_of_the_cell_once(live: MakeLife) -> None:
    """That it was done is kept with it, so the next cell does not do it again."""
    life = live(stock=BAO)
    life.start()
    added = partial(stock.ask_refill, powder="BaO", mass_g=50.0, by="anna")
    asked = write(life, added)
    life.advance(1.0)
    before = life.lab.books.stock_g["BaO"]
    life.kill()
    life.start()
    life.advance(10.0)

    assert outcomes(life, asked) == ["done"]
    assert (before, life.lab.books.stock_g["BaO"]) == (52.0, 52.0)


def test_what_people_say_is_done_in_a_twin_of_the_cell(live: MakeLife) -> None:
    """Nobody else has hands there, so their word is their act."""
    life = live()
    submit(life, {"kind": "press"})
    life.start()
    life.advance(2000.0)
    assert life.lab.bench is not None
    world: Any = life.lab.bench.world

    async def mislay() -> None:
        world.carry(life.loop.time(), "cup_1", "press")

    life.lab.host.call(mislay())
    said = partial(custody.ask_move, container="cup_1", location="rack.1", by="anna")
    write(life, said)
    life.advance(1.0)
    assert world.containers["cup_1"].at == "rack.1"

    release_one(life)

    assert "empty cup_1" in world.acts


@pytest.fixture
def pressed(live: MakeLife) -> MortalCell:
    """A cell whose only job has ended: its sample is in cup_1, which is at home."""
    life = live()
    submit(life, {"kind": "press"})
    life.start()
    life.advance(2000.0)
    return life


def world_of(life: MortalCell) -> Any:
    """Return the world of the cell's own twin."""
    assert life.lab.bench is not None
    return life.lab.bench.world


def mislay(life: MortalCell, container: str, location: str) -> None:
    """Carry a container elsewhere without telling anybody."""

    async def carry() -> None:
        world_of(life).carry(life.loop.time(), container, location)

    life.lab.host.call(carry())


def test_sample_is_not_released_while_nobody_can_clean_its_container(
    pressed: MortalCell,
) -> None:
    """The request says what to do first; done, it is granted, and the cup is clean."""
    life = pressed
    mislay(life, "cup_1", "furnace_1.slot_1")
    with life.store.read() as connection:
        (sample,) = custody.find_samples(connection, states=["active"])
    release = partial(custody.ask_release, sample=sample.id, by="anna")
    first = write(life, release)
    life.advance(1.0)
    used = set(life.lab.books.used)
    move = partial(custody.ask_move, container="cup_1", location="rack.1", by="anna")
    second, third = write(life, move), write(life, release)
    life.advance(1.0)

    told = (
        "refused: this cannot be done in the cell's twin: cup_1 is at "
        "furnace_1.slot_1; carry it to the bench first "
        "(ppu samples --move cup_1=LOCATION)"
    )
    assert outcomes(life, first, second, third) == [told, "done", "done"]
    assert (used, life.lab.books.used) == ({"cup_1"}, set())
    assert "empty cup_1" in world_of(life).acts


def test_container_is_not_believed_where_the_twin_has_another(
    pressed: MortalCell,
) -> None:
    """A refusal of the twin leaves the books as they were."""
    life = pressed
    mislay(life, "cup_4", "press")
    move = partial(custody.ask_move, container="cup_1", location="press", by="anna")
    asked = write(life, move)
    life.advance(1.0)

    (outcome,) = outcomes(life, asked)
    assert outcome.startswith("refused: this cannot be done in the cell's twin: press")
    assert "taken by cup_4; carry that elsewhere first" in outcome
    assert life.lab.books.places["cup_1"] == "rack.1"
    with life.store.read() as connection:
        assert custody.books(connection).places["cup_1"] == "rack.1"


def test_container_is_not_emptied_for_a_release_that_is_refused(
    pressed: MortalCell,
) -> None:
    """A sample that is asked to be released twice is cleaned once."""
    life = pressed
    with life.store.read() as connection:
        (sample,) = custody.find_samples(connection, states=["active"])
    release = partial(custody.ask_release, sample=sample.id, by="anna")
    asked = [write(life, release), write(life, release)]
    life.advance(1.0)

    told = f"refused: sample {sample.id} is released already"
    assert outcomes(life, *asked) == ["done", told]
    assert len(world_of(life).acts["empty cup_1"]) == 1


@pytest.mark.parametrize("act", ["carry", "empty", "refill"])
def test_twin_without_hands_is_told_and_the_cell_lives_on(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """A world of somebody else that knows no such act: the request is refused."""
    life = live(stock=BAO)
    submit(life, {"kind": "press"})
    life.start()
    life.advance(2000.0)
    monkeypatch.delattr(type(world_of(life)), act)
    with life.store.read() as connection:
        (sample,) = custody.find_samples(connection, states=["active"])
    asks: dict[str, Any] = {
        "carry": partial(custody.ask_move, container="cup_1", location="press"),
        "empty": partial(custody.ask_release, sample=sample.id),
        "refill": partial(stock.ask_refill, powder="BaO", mass_g=5.0),
    }
    asked = write(life, partial(asks[act], by="anna"))
    (other,) = submit(life, {"kind": "press", "number": 1})
    life.advance(2000.0)

    (outcome,) = outcomes(life, asked)
    assert outcome.startswith(f"refused: the twin's world World has no {act}()")
    assert job(life, other).state is JobState.SUCCEEDED


def test_refill_that_the_twin_refuses_is_told(
    live: MakeLife, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in the books by then: it would be added twice if it came before."""
    life = live(stock=BAO)
    life.start()
    world_of(life).stock.clear()
    asked = write(life, partial(stock.ask_refill, powder="BaO", mass_g=5.0, by="anna"))
    life.advance(1.0)

    assert outcomes(life, asked) == ["done"]
    assert life.lab.books.stock_g["BaO"] == 7.0
    assert "the cell's twin: there is no BaO in stock" in capsys.readouterr().err


def test_corrected_stock_comes_into_the_books_and_not_into_the_twin(
    live: MakeLife,
) -> None:
    """What was mistyped is mended, in the cell's books as in the store's."""
    life = live(stock=BAO)
    life.start()
    correct = partial(stock.ask_correction, powder="BaO", mass_g=1.5, note="typo")
    asked = write(life, partial(correct, by="anna"))
    life.advance(1.0)
    with life.store.read() as connection:
        kept = custody.books(connection).stock_g

    assert outcomes(life, asked) == ["done"]
    assert life.lab.books.stock_g == kept == {"BaO": 1.5}
    assert world_of(life).stock["BaO"].mass_g == pytest.approx(2.0)


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

    assert job(life, held).state is JobState.PAUSED
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


@pytest.mark.parametrize("wanted", [Cancel(), Abort()])
def test_container_is_believed_nowhere_when_its_move_is_given_up(
    live: MakeLife, wanted: Request
) -> None:
    """Whoever ends a job before a carry is settled learns nothing of the container."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(70.0)
    assert steps_of(life, one)["move_container"].state is steps.StepState.INTENT
    life.kill()
    life.start()
    ask(life, wanted, one)
    life.advance(3000.0)

    assert job(life, one).state is JobState.ABORTED
    with life.store.read() as connection:
        kept = custody.books(connection)
        (sample,) = custody.find_samples(connection)
    assert kept.under_way == life.lab.books.under_way == {"cup_1": "press"}
    assert (sample.state, sample.places) == ("quarantined", {"cup_1": None})
    assert life.store.check() == []


def test_carry_that_never_began_leaves_its_container_at_home(live: MakeLife) -> None:
    """A person's word that it did not happen is as good as evidence."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(70.0)
    life.kill()
    bench = life.lab.bench
    assert bench is not None
    world: Any = bench.world
    life.advance(200.0)  # it arrives

    async def carry_back() -> None:
        world.pick_up(life.loop.time(), "cup_1", "press", "anna")
        world.put_down(life.loop.time(), "cup_1", "rack.1", "anna")

    life.lab.host.call(carry_back())
    life.start()
    life.advance(1.0)
    answer(life, one, "not-happened")
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    with life.store.read() as connection:
        _, history = custody.history(connection, f"exercise-{one}")
    ways = [(e.origin, e.destination) for e in history if e.kind == "moved"]
    assert ways == [("rack.1", "rack.1"), ("rack.1", "press"), ("press", "rack.1")]


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


def test_answer_given_between_two_cells_is_not_lost(live: MakeLife) -> None:
    """It is for the question that stood, and ends the job as it says."""
    life = live()
    World.n_faults_due = 2
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(100.0)
    life.kill()
    life.store.is_dead = False  # others may write to it
    answer(life, one, "abort")
    life.start()
    life.advance(100.0)

    assert job(life, one).state is JobState.FAILED


def test_furnace_of_an_aborted_job_is_made_safe(live: MakeLife) -> None:
    """What a failed step had is brought to its abort state before others get it."""
    life = live()
    (one,) = submit(life, {"kind": "bare"})
    life.start()
    while "fire" not in steps_of(life, one):
        life.advance(50.0)
    life.advance(200.0)
    ask(life, Abort(), one)
    life.advance(60.0)

    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]
    assert furnace.read(23, 1, life.loop.time()) == [0]


def test_firing_is_begun_by_another_if_its_leader_leaves_before(
    live: MakeLife,
) -> None:
    """Nothing was started, so there is nothing to join: the next one begins it."""
    life = live()
    jobs = submit(life, {"kind": "fire"}, {"kind": "fire"})
    life.start()
    while any("move_container" not in steps_of(life, n) for n in jobs):
        life.advance(5.0)
    write(life, partial(queue.hold, job_id=jobs[0]))
    life.advance(2000.0)
    write(life, partial(queue.cancel, job_id=jobs[0], by="anna"))
    life.advance(8000.0)

    assert job(life, jobs[0]).state is JobState.ABORTED
    assert job(life, jobs[1]).state is JobState.SUCCEEDED
    assert len(STARTS) == 1


def test_busy_store_is_waited_for_by_the_cell_itself(
    live: MakeLife, tmp_path: Path
) -> None:
    """A lock that somebody else holds for a while ends nothing."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(10.0)
    with contextlib.closing(sqlite3.connect(life.store_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        life.advance(100.0)
        other.rollback()
    life.advance(1000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert World.acts.total() == 1


# -- what people said, and cells that die before it has its effect --------------------


def die_until_it_is_handled(life: MortalCell, job_id: int, *, keeps_last: bool) -> None:
    """Let one cell after the other die, each a commit later, until all is handled."""
    for dies_at in range(2, 100):
        life.start(dies_at, keeps_last=keeps_last)
        life.advance(20.0)
        life.kill()
        with life.store.read() as connection:
            if not commands.waiting(connection, job_id):
                return
    pytest.fail("what was said is never handled")


@pytest.mark.parametrize("keeps_last", [False, True])
@pytest.mark.parametrize(
    ("kind", "said", "state"),
    [
        ("shake", "retry", JobState.SUCCEEDED),
        ("shake", "skip", JobState.SUCCEEDED),
        ("shake", "park", JobState.FAILED),
        ("shake", "abort", JobState.FAILED),
        ("press", "abort", JobState.ABORTED),
    ],
)
def test_answer_is_given_once_wherever_cells_die(
    live: MakeLife, kind: str, said: str, state: JobState, keeps_last: bool
) -> None:
    """What a person said has its effect, though cells die before that is kept."""
    life = live()
    World.n_faults_due = 2 if kind == "shake" else 0
    (one,) = submit(life, {"kind": kind})
    for _ in range(2):  # the second cell asks what became of what the first one did
        life.start()
        life.advance(25.0)
        life.kill()
    life.store.is_dead = False  # others may write to it
    answer(life, one, said)
    die_until_it_is_handled(life, one, keeps_last=keeps_last)
    life.start()
    life.advance(2000.0)

    assert job(life, one).state is state


@pytest.mark.parametrize("keeps_last", [False, True])
def test_step_that_a_person_saw_happen_is_done_wherever_cells_die(
    live: MakeLife, keeps_last: bool
) -> None:
    """It is neither asked about again nor run."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    for _ in range(2):  # the second cell asks what became of what the first one did
        life.start()
        life.advance(25.0)
        life.kill()
    life.store.is_dead = False  # others may write to it
    answer(life, one, "happened")
    die_until_it_is_handled(life, one, keeps_last=keeps_last)

    assert steps_of(life, one)["press"].state is steps.StepState.DONE
    assert World.acts.total() == 0


@pytest.mark.parametrize("keeps_last", [False, True])
@pytest.mark.parametrize("end", [queue.cancel, partial(queue.abort, reason="")])
def test_job_that_was_given_up_ends_wherever_cells_die(
    live: MakeLife, end: Any, keeps_last: bool
) -> None:
    """No cell goes on with a job that a person gave up before the one before died."""
    life = live()
    (one,) = submit(life, {"kind": "shake"})
    life.start()
    life.advance(5.0)
    write(life, partial(end, job_id=one, by="anna"))
    life.kill()
    die_until_it_is_handled(life, one, keeps_last=keeps_last)
    life.start()
    life.advance(2000.0)

    assert job(life, one).state is JobState.ABORTED
    assert World.acts.total() == 0


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


def test_more_jobs_are_adopted_than_may_begin_at_once(live: MakeLife) -> None:
    """A lab file that lowers `jobs_at_once` between two cells keeps no job waiting."""
    cups = {
        f"cup_{n}": {
            "kind": "crucible",
            "at": f"rack.{n}",
            "capacity_ml": 5,
            "tare_g": 9,
        }
        for n in range(1, 9)
    }
    racks = {f"rack.{n}": {"holds": "crucible"} for n in range(1, 9)}
    life = live(containers=cups, locations={**LAB["locations"], **racks})
    submit(life, *[{"kind": "press"}] * 7)
    (last,) = submit(life, {"kind": "press"}, priority=1)  # the first to press
    life.start()
    life.advance(5.0)
    life.kill()
    few = life.lab.file.scheduling.model_copy(update={"jobs_at_once": 1})
    life.lab.file = life.lab.file.model_copy(update={"scheduling": few})
    life.start()
    life.advance(10.0)
    answer(life, last, "not-happened")
    life.advance(10000.0)

    assert {str(one.state) for one in life.jobs()} == {"succeeded"}
    assert World.acts.total() == 8


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


# -- members of a firing that go at the same moment -----------------------------------


def three_slots() -> dict[str, Any]:
    """Return the part of a lab file by which three jobs may share the furnace."""
    furnace = copy.deepcopy(LAB["devices"]["furnace_1"])
    names = [f"furnace_1.slot_{n}" for n in (1, 2, 3)]
    slots = {name: {"holds": "crucible", "inside": "furnace_1"} for name in names}
    return {
        "devices": LAB["devices"] | {"furnace_1": furnace | {"slots": names}},
        "locations": LAB["locations"] | slots,
    }


def fire_together(life: MortalCell, n_jobs: int) -> list[int]:
    """Let jobs share a firing; return them, whoever leads first, when it is hot."""
    jobs = submit(life, *[{"kind": "fire"}] * n_jobs)
    life.start()
    while any("fire_seat" not in steps_of(life, n) for n in jobs):
        life.advance(50.0)
    life.advance(200.0)
    return sorted(jobs, key=lambda n: steps_of(life, n)["load_seat"].result != "lead")


def abort_at_once(life: MortalCell, jobs: list[int]) -> None:
    """Abort jobs in one transaction, so that the cell hears it at one moment."""

    def work(connection: Any, now: float) -> None:
        for job_id in jobs:
            queue.abort(connection, job_id, "anna", "", now)

    write(life, work)
    life.advance(60.0)


def is_heating(life: MortalCell) -> bool:
    """Whether the furnace's program runs."""
    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]
    return bool(furnace.read(23, 1, life.loop.time()) != [0])


def test_furnace_is_made_safe_when_all_its_jobs_are_aborted_at_once(
    live: MakeLife,
) -> None:
    """None of them may leave it to the others; what they had is free again."""
    life = live(**three_slots())
    jobs = fire_together(life, 3)
    was_heating = is_heating(life)
    abort_at_once(life, jobs)

    assert [str(job(life, n).state) for n in jobs] == ["aborted"] * 3
    assert was_heating
    assert not is_heating(life)
    assert life.lab.resources.reservations._owners == {}
    assert life.lab.resources.firings._firings == {}


@pytest.mark.parametrize("stays", [0, 1, 2])
def test_firing_goes_on_when_all_but_one_are_aborted_at_once(
    live: MakeLife, stays: int
) -> None:
    """Whoever is left leads, and finds the furnace as it was."""
    life = live(**three_slots())
    jobs = fire_together(life, 3)
    left = jobs[stays]
    abort_at_once(life, [n for n in jobs if n != left])
    is_on = is_heating(life)
    life.advance(8000.0)

    assert is_on
    assert job(life, left).state is JobState.SUCCEEDED
    assert len(STARTS) == 1
    assert life.lab.resources.reservations._owners == {}
    assert life.lab.resources.firings._firings == {}


# -- firings of a dead cell whose jobs end ---------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["fire", "bare"])
ENDS = pytest.mark.parametrize("end", [queue.cancel, partial(queue.abort, reason="")])


def die_in_a_firing(life: MortalCell, *kinds: str) -> list[int]:
    """Let a cell die while the jobs' furnace heats; return the jobs."""
    jobs = submit(life, *[{"kind": kind} for kind in kinds])
    life.start()
    while not is_heating(life):
        life.advance(20.0)
    life.advance(100.0)
    life.kill()
    assert is_heating(life)
    return jobs


def reserved_by(life: MortalCell, name: str) -> frozenset[int]:
    """Return who has a device."""
    return life.lab.resources.reservations.owners_of(name)


def garble(life: MortalCell, for_s: float) -> None:
    """Let the furnace's wire garble every reply for a while [s]."""

    async def inject() -> None:
        assert life.lab.bench is not None
        furnace: Any = life.lab.bench.instruments["furnace_1"]
        fault = {"fault": "corrupt visibly", "for_s": for_s}
        furnace.faults.inject(fault, life.loop.time())

    life.lab.host.call(inject())


def heat_by_hand(life: MortalCell) -> Callable[[], bool]:
    """Heat with 30 %, as somebody at the panel does; return what tells if it lasts."""
    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]

    async def turn_on() -> None:
        furnace.write(273, [1], life.loop.time())
        furnace.write(3, [300], life.loop.time())

    def is_on() -> bool:
        now = life.loop.time()
        return bool(furnace.read(273, 1, now) == [1] and furnace.read(3, 1, now)[0])

    life.lab.host.call(turn_on())
    return is_on


def has_nothing(life: MortalCell) -> bool:
    """Whether everything in the lab is free."""
    resources = life.lab.resources
    return not resources.reservations._owners and not resources.firings._firings


@KINDS
@ENDS
def test_furnace_is_made_safe_if_its_job_is_given_up_between_cells(
    live: MakeLife, kind: str, end: Any
) -> None:
    """The next cell ends the job before it joins the firing, and the firing, too."""
    life = live()
    (one,) = die_in_a_firing(life, kind)
    life.store.is_dead = False
    write(life, partial(end, job_id=one, by="anna"))
    life.start()
    life.advance(60.0)

    assert job(life, one).state is JobState.ABORTED
    assert not is_heating(life)
    assert has_nothing(life)


@KINDS
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1, 1.0, 20.0])
def test_furnace_is_made_safe_if_its_job_is_aborted_when_a_cell_begins(
    live: MakeLife, kind: str, after_s: float
) -> None:
    """However far the next cell has come with joining the firing."""
    life = live()
    (one,) = die_in_a_firing(life, kind)
    life.start()
    if after_s:
        life.advance(after_s)
    write(life, partial(queue.abort, job_id=one, by="anna", reason=""))
    life.advance(60.0)

    assert job(life, one).state is JobState.ABORTED
    assert not is_heating(life)
    assert has_nothing(life)


@KINDS
def test_furnace_is_made_safe_if_its_wire_is_noisy_when_a_cell_begins(
    live: MakeLife, kind: str
) -> None:
    """The firing cannot be joined; the cell insists until it is heard."""
    life = live()
    (one,) = die_in_a_firing(life, kind)
    life.start()
    garble(life, 30.0)
    life.advance(120.0)

    assert job(life, one).state is JobState.FAILED
    assert not is_heating(life)


def test_shared_furnace_is_made_safe_if_its_wire_is_noisy_when_a_cell_begins(
    live: MakeLife,
) -> None:
    """Whoever leads fails, then the others; the last one takes the power off."""
    life = live()
    jobs = die_in_a_firing(life, "fire", "fire")
    life.start()
    garble(life, 30.0)
    life.advance(120.0)

    assert [str(job(life, n).state) for n in jobs] == ["failed"] * 2
    assert not is_heating(life)
    assert has_nothing(life)


@KINDS
def test_cell_insists_until_an_adopted_furnace_is_safe(
    live: MakeLife, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wire that stays noisy leaves it heating, which nobody can overlook or use."""
    life = live()
    (one,) = die_in_a_firing(life, kind)
    life.start()
    garble(life, 400.0)
    life.advance(300.0)

    assert job(life, one).state is JobState.FAILED
    assert is_heating(life)
    said = capsys.readouterr().err
    assert f"job {one}: furnace_1: NOT in its abort state" in said
    assert "furnace_1: NOT in its abort state" in str(job(life, one).reason_text)
    (other,) = submit(life, {"kind": "bare"})
    ask(life, AllowHeat())
    life.advance(10.0)
    with life.store.read() as connection:
        (why,) = reasons_to_wait(connection, queue.get(connection, other))
    assert "it is not in its abort state, and that is tried again" in why.text

    life.advance(200.0)
    assert "furnace_1: " in capsys.readouterr().err
    assert job(life, other).state is JobState.RUNNING
    assert reserved_by(life, "furnace_1") == {other}


@KINDS
@pytest.mark.parametrize("dies_again", [False, True])
def test_furnace_is_made_safe_if_an_adopted_job_asks_and_is_aborted(
    live: MakeLife, kind: str, dies_again: bool
) -> None:
    """Also if another cell died while it asked; the question tells what went wrong."""
    life = live(failure_policies={"fire": "ask", "fire_seat": "ask"})
    (one,) = die_in_a_firing(life, kind)
    life.start()
    garble(life, 30.0)
    life.advance(60.0)
    asking = job(life, one)
    assert asking.state is JobState.NEEDS_INPUT
    assert "failed: furnace_1: no complete reply" in str(asking.reason_text)
    if dies_again:
        life.kill()
        life.start()
        ask(life, AllowHeat())
    answer(life, one, "abort")
    life.advance(60.0)

    assert job(life, one).state is JobState.FAILED
    assert not is_heating(life)


@KINDS
def test_furnace_is_made_safe_though_cells_die_while_they_insist(
    live: MakeLife, kind: str
) -> None:
    """A firing that failed is as much the job's as one that is under way."""
    life = live()
    (one,) = die_in_a_firing(life, kind)
    life.start()
    garble(life, 25.0)
    life.advance(20.0)
    assert job(life, one).state is JobState.RUNNING
    assert steps_of(life, one)["fire" if kind == "bare" else "fire_seat"].state is (
        steps.StepState.FAILED
    )
    life.kill()
    life.advance(10.0)
    assert is_heating(life)
    life.store.is_dead = False
    write(life, partial(queue.cancel, job_id=one, by="anna"))
    life.start()
    life.advance(60.0)

    assert job(life, one).state is JobState.ABORTED
    assert not is_heating(life)


@ENDS
@pytest.mark.parametrize("stays", [0, 1])
def test_shared_firing_goes_on_if_another_job_is_given_up_between_cells(
    live: MakeLife, stays: int, end: Any
) -> None:
    """Whoever is left joins it, and finds the furnace as it was."""
    life = live()
    jobs = die_in_a_firing(life, "fire", "fire")
    left, ends = jobs[stays], jobs[1 - stays]
    life.store.is_dead = False
    write(life, partial(end, job_id=ends, by="anna"))
    life.start()
    life.advance(60.0)
    is_on = is_heating(life)
    life.advance(8000.0)

    assert is_on
    assert job(life, ends).state is JobState.ABORTED
    assert job(life, left).state is JobState.SUCCEEDED
    assert len(STARTS) == 1
    assert has_nothing(life)


@ENDS
def test_shared_firing_ends_if_all_its_jobs_are_given_up_between_cells(
    live: MakeLife, end: Any
) -> None:
    """None of them may leave it to the others."""
    life = live()
    jobs = die_in_a_firing(life, "fire", "fire")
    life.store.is_dead = False
    for job_id in jobs:
        write(life, partial(end, job_id=job_id, by="anna"))
    life.start()
    life.advance(60.0)

    assert [str(job(life, n).state) for n in jobs] == ["aborted"] * 2
    assert not is_heating(life)
    assert has_nothing(life)


@ENDS
def test_firing_of_another_job_goes_on_if_one_that_waits_for_the_furnace_is_given_up(
    live: MakeLife, end: Any
) -> None:
    """A job that only asked for a place has nothing to do with what heats there."""
    life = live()
    one, other = submit(life, {"kind": "fire"}, {"kind": "fire", "degc": 90.0})
    life.start()
    while not is_heating(life):
        life.advance(20.0)
    first, later = sorted(
        (one, other), key=lambda n: "fire_seat" not in steps_of(life, n)
    )
    assert steps_of(life, later)["take_seat"].state is steps.StepState.INTENT
    life.kill()
    life.store.is_dead = False
    write(life, partial(end, job_id=later, by="anna"))
    life.start()
    life.advance(60.0)
    is_on = is_heating(life)
    life.advance(8000.0)

    assert is_on
    assert job(life, later).state is JobState.ABORTED
    assert job(life, first).state is JobState.SUCCEEDED


@pytest.mark.parametrize("step", ["press", "take_seat"])
@ENDS
def test_what_a_person_heats_goes_on_if_a_job_without_the_furnace_is_given_up(
    live: MakeLife, step: str, end: Any
) -> None:
    """What heats that the job had not taken is not its own to stop."""
    life = live()
    one, _ = submit(life, {"kind": "fire"}, {"kind": "press"})
    life.start()
    while step not in steps_of(life, one):
        life.advance(1.0)
    assert steps_of(life, one)[step].state is steps.StepState.INTENT
    life.kill()
    is_on = heat_by_hand(life)
    life.advance(1.0)
    was_on = is_on()
    life.store.is_dead = False
    write(life, partial(end, job_id=one, by="anna"))
    life.start()
    life.advance(10.0)

    assert was_on
    assert job(life, one).state is JobState.ABORTED
    assert is_on()


# -- what is said while the cell is busy -----------------------------------------------


def test_job_is_released_while_its_instruments_go_to_their_hold_state(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said in the meantime is not lost."""
    life = live()
    (one,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(10.0)
    cell = life.cell
    assert cell is not None
    hold_devices = cell.hold_devices

    async def hold_slowly(who: Any) -> None:
        await hold_devices(who)
        await asyncio.sleep(5.0)

    monkeypatch.setattr(cell, "hold_devices", hold_slowly)
    write(life, partial(queue.hold, job_id=one))
    while job(life, one).state is not JobState.PAUSED:
        life.advance(0.5)
    write(life, partial(queue.release, job_id=one))
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
    cell.may_heat = False
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
