"""Jobs of a dead or drained cell, which go on in the next one."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest

from cell_life import (
    STARTS,
    MakeLife,
    answer,
    ask,
    job,
    release_one,
    steps_of,
    submit,
)
from exercise import LAB, World
from mortal import MortalCell
from ppu.store import custody, sample_history, steps
from ppu.store.documents import documents_of
from ppu.store.jobs import JobState
from ppu.store.requests import Abort, Cancel, Request


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


def owners_of_slot(life: MortalCell) -> frozenset[int]:
    """Return who has a place in the furnace."""
    return life.lab.resources.reservations.owners_of("furnace_1.slot_1")


@pytest.mark.parametrize("kind", ["fire", "seat"])
def test_seat_is_known_by_what_its_step_says_of_itself(
    live: MakeLife, kind: str
) -> None:
    """A dead cell's place in a furnace is the job's again, whatever its step's name."""
    life = live()
    (one,) = submit(life, {"kind": kind})
    life.start()
    while "fire_seat" not in steps_of(life, one):
        life.advance(50.0)
    life.advance(500.0)
    life.kill()
    life.start()

    assert owners_of_slot(life) == {one}
    life.advance(6000.0)
    assert job(life, one).state is JobState.SUCCEEDED
    assert owners_of_slot(life) == set()


def test_seat_in_a_store_of_version_2_is_still_known(live: MakeLife) -> None:
    """A store that kept only names of steps is adopted as one that keeps what they do.

    Such a store had no column for it.
    """
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    while "fire_seat" not in steps_of(life, one):
        life.advance(50.0)
    life.kill()
    life.store.close()
    with contextlib.closing(sqlite3.connect(life.store_path)) as connection, connection:
        connection.execute("ALTER TABLE steps DROP COLUMN seat")
        connection.execute("UPDATE meta SET content = '2' WHERE key = 'schema_version'")
    life.start()

    assert owners_of_slot(life) == {one}
    life.advance(6000.0)
    assert job(life, one).state is JobState.SUCCEEDED
    assert steps_of(life, one)["take_seat"].seat == "takes"


def test_seat_that_an_older_cell_kept_in_an_upgraded_store_is_known(
    live: MakeLife,
) -> None:
    """Steps that it wrote after the upgrade say nothing of seats; the owner does."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    while "fire_seat" not in steps_of(life, one):
        life.advance(50.0)
    life.kill()
    with contextlib.closing(sqlite3.connect(life.store_path)) as connection, connection:
        connection.execute("UPDATE steps SET seat = NULL")
    life.start()

    assert owners_of_slot(life) == {one}
    life.advance(6000.0)
    assert job(life, one).state is JobState.SUCCEEDED


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
    assert job(life, other).state is JobState.QUEUED  # it had touched nothing
    assert set(steps_of(life, other)) <= before
    life.start()
    life.advance(6000.0)

    assert [str(one.state) for one in life.jobs()] == ["succeeded"] * 2
    assert max(World.acts.values()) == 1


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
        kept = custody.read_ledger(connection)
        (sample,) = custody.find_samples(connection)
    assert kept.under_way == life.lab.ledger.under_way == {"cup_1": "press"}
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
        _, history = sample_history.history_of(connection, f"exercise-{one}")
    ways = [(e.origin, e.destination) for e in history if e.kind == "moved"]
    assert ways == [("rack.1", "rack.1"), ("rack.1", "press"), ("press", "rack.1")]


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
