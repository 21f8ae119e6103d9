"""What people ask of a cell, and that it is done once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from cell_life import (
    MakeLife,
    answer,
    ask,
    job,
    release_one,
    steps_of,
    submit,
    write,
)
from exercise import World
from mortal import MortalCell
from ppu.cli.remedies import worded
from ppu.store import commands, custody, queue, steps, stock
from ppu.store.jobs import Effect, JobState
from ppu.store.requests import Abort, Drain, MoveContainer, UnknownRequest


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
    was_draining = life.cell.roster.is_draining
    asked = write(life, drain)
    life.advance(1.0)

    assert outcomes(life, stale, asked) == [
        "refused: it was said before this cell began",
        "done",
    ]
    assert (was_draining, life.cell.roster.is_draining) == (False, True)


def outcomes(life: MortalCell, *numbers: int) -> list[str]:
    """Return what the cell made of requests."""
    with life.store.read() as connection:
        found = commands.outcomes(connection, numbers).values()
    return [
        worded(f"refused: {one.text}" if one.is_refused else one.text, one.advice)
        for one in found
    ]


def test_belief_of_an_arrival_outlives_a_refused_correction(
    live: MakeLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job does while a person's word is kept slowly is not forgotten."""
    life = live()
    (one,) = submit(life, {"kind": "fire"})
    life.start()
    life.advance(5.0)
    while "cup_1" not in life.lab.ledger.under_way:
        life.advance(0.5)
    assert life.cell is not None
    in_lab = life.cell.parts.lab_requests
    keep = in_lab.keep

    async def keep_slowly(command: Any, work: Any) -> Any:
        await asyncio.sleep(100.0)
        return await keep(command, work)

    monkeypatch.setattr(in_lab, "keep", keep_slowly)
    wanted = MoveContainer(container="cup_1", location="rack.1")
    ask_move = partial(commands.request, wanted=wanted, by="anna")
    number = write(life, ask_move)
    life.advance(101.0)

    (outcome,) = outcomes(life, number)
    assert outcome.startswith("refused: ")
    assert life.lab.ledger.places["cup_1"] == "furnace_1.slot_1"
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
    believed = life.lab.ledger.places["cup_4"]
    life.advance(2000.0)
    second = write(life, move)
    life.advance(1.0)

    told = f"refused: job {working} has press for a step; let that end, or abort it"
    assert outcomes(life, first, second) == [told, "done"]
    assert believed == "rack.4"
    assert life.lab.ledger.places["cup_4"] == "press"
    with life.store.read() as connection:
        assert custody.read_ledger(connection).places["cup_4"] == "press"


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
    before = life.lab.ledger.stock_g["BaO"]
    life.kill()
    life.start()
    life.advance(10.0)

    assert outcomes(life, asked) == ["done"]
    assert (before, life.lab.ledger.stock_g["BaO"]) == (52.0, 52.0)


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
    used = set(life.lab.ledger.used)
    move = partial(custody.ask_move, container="cup_1", location="rack.1", by="anna")
    second, third = write(life, move), write(life, release)
    life.advance(1.0)

    told = (
        "refused: this cannot be done in the cell's twin: cup_1 is at "
        "furnace_1.slot_1; carry it to the bench first "
        "(ppu samples --move cup_1=LOCATION)"
    )
    assert outcomes(life, first, second, third) == [told, "done", "done"]
    assert (used, life.lab.ledger.used) == ({"cup_1"}, set())
    assert "empty cup_1" in world_of(life).acts


def test_container_is_not_believed_where_the_twin_has_another(
    pressed: MortalCell,
) -> None:
    """A refusal of the twin leaves the ledger as it was."""
    life = pressed
    mislay(life, "cup_4", "press")
    move = partial(custody.ask_move, container="cup_1", location="press", by="anna")
    asked = write(life, move)
    life.advance(1.0)

    (outcome,) = outcomes(life, asked)
    assert outcome.startswith("refused: this cannot be done in the cell's twin: press")
    assert "taken by cup_4; carry that elsewhere first" in outcome
    assert life.lab.ledger.places["cup_1"] == "rack.1"
    with life.store.read() as connection:
        assert custody.read_ledger(connection).places["cup_1"] == "rack.1"


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
    """It is in the ledger by then: it would be added twice if it came before."""
    life = live(stock=BAO)
    life.start()
    world_of(life).stock.clear()
    asked = write(life, partial(stock.ask_refill, powder="BaO", mass_g=5.0, by="anna"))
    life.advance(1.0)

    assert outcomes(life, asked) == ["done"]
    assert life.lab.ledger.stock_g["BaO"] == 7.0
    assert "the cell's twin: there is no BaO in stock" in capsys.readouterr().err


def test_corrected_stock_comes_into_the_books_and_not_into_the_twin(
    live: MakeLife,
) -> None:
    """What was mistyped is mended, in the cell's ledger as in the store's."""
    life = live(stock=BAO)
    life.start()
    correct = partial(stock.ask_correction, powder="BaO", mass_g=1.5, note="typo")
    asked = write(life, partial(correct, by="anna"))
    life.advance(1.0)
    with life.store.read() as connection:
        kept = custody.read_ledger(connection).stock_g

    assert outcomes(life, asked) == ["done"]
    assert life.lab.ledger.stock_g == kept == {"BaO": 1.5}
    assert world_of(life).stock["BaO"].mass_g == pytest.approx(2.0)


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
