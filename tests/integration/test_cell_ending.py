"""Jobs that end badly: what they had is made safe, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cell_life import (
    STARTS,
    MakeLife,
    answer,
    ask,
    garble,
    is_heating,
    job,
    steps_of,
    submit,
    write,
)
from exercise import LAB
from mortal import MortalCell
from ppu.store import queue, steps
from ppu.store.jobs import JobState
from ppu.store.requests import Abort, AllowHeat
from ppu.store.waiting import reasons_to_wait


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
    (other,) = submit(life, {"kind": "bare", "degc": 120.0})
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
