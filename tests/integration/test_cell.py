"""The cell: several jobs at once on shared instruments, and what they wait for."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cell_life import (
    STARTS,
    MakeLife,
    ask,
    job,
    release_one,
    steps_of,
    submit,
    write,
)
from exercise import LAB, World, exercise
from ppu.cell.cell import Cell
from ppu.cell.lab import OpenLab
from ppu.core.errors import FailureClass, StaleTokenError
from ppu.core.labfile import load_lab
from ppu.core.remedies import Remedy, advise
from ppu.store import custody, queue, steps
from ppu.store.events import events_after
from ppu.store.jobs import Effect, JobRequest, JobState
from ppu.store.requests import Abort
from ppu.store.store import Store
from ppu.store.waiting import Wait, reasons_to_wait


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


def test_cell_without_its_lease_cannot_touch_an_instrument(live: MakeLife) -> None:
    """Once the lease has run out, nothing is written to any wire."""
    life = live()
    life.start()
    assert life.cell is not None
    devices: list[Any] = list(life.lab.devices.values())
    sent = [device.statistics().n_bytes_sent for device in devices]
    life.cell.owner.renounce()

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
    """A job that has touched nothing waits in the queue, and says what was missing."""
    life = live(scheduling={"patience_s": 3600.0})
    *_, waiting = submit(life, *[{"kind": "press"}] * 5)
    life.start()
    life.advance(2 * 3600.0)

    ended = job(life, waiting)
    assert ended.state is JobState.QUEUED
    assert ended.failure_class is FailureClass.NO_RESOURCE
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
    World.n_faults_due = 4 * 3
    for n in range(4):
        submit(life, {"kind": "shake", "number": n})
    life.start()
    life.advance(1000.0)
    assert [str(one.state) for one in life.jobs()] == ["failed"] * 4
    assert {one.failure_class for one in life.jobs()} == {FailureClass.RETRYABLE}

    (last,) = submit(life, {"kind": "press"})
    life.advance(1000.0)

    assert job(life, last).state is JobState.SUCCEEDED


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
