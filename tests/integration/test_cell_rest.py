"""What jobs leave heating or flowing: whose it is, and who brings it to rest."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator
from pydantic import BaseModel

from cell_life import ask, is_heating, job, steps_of
from exercise import LAB
from mortal import MortalCell
from ppu.core.capabilities import Furnace, GasFlow
from ppu.core.errors import TransportError
from ppu.plans import Lab, ProtocolResult, protocol, step
from ppu.store import queue
from ppu.store.jobs import JobRequest, JobState
from ppu.store.requests import Abort, AllowHeat, Cancel

GAS: dict[str, Any] = {
    "gas_1": {
        "driver": "ppu_drivers.alicat_mfc:AlicatMfc",
        "simulator": "ppu_simulators.instruments.alicat_mfc:SimulatedAlicatMfc",
        "hardware": {"transport": "serial", "port": "/dev/none", "baudrate": 19200},
        "settings": {
            "supplies": "furnace_1",
            "gases": ["Ar"],
            "full_scale_ml_per_min": 500,
        },
        "limits": {"flow_ml_per_min": [0, 500]},
        "on_abort": "close",
        "provides": ["GasFlow"],
    }
}


class Wish(BaseModel):
    """What a job shall do: acts, in their order, each with a number."""

    acts: list[tuple[Literal["mv", "warm", "flow", "sleep", "use", "raise"], float]]


class Nothing(ProtocolResult):
    """Nothing."""


@step(kind="repeatable", needs=lambda lab, degc: [lab.the(Furnace).name])
def warm(lab: Lab, degc: float) -> MsgGenerator[None]:
    """Set the furnace, and leave it so."""
    yield from bps.mv(lab.the(Furnace), degc)


@step(kind="repeatable", needs=lambda lab, seconds: [lab.the(Furnace).name])
def use(lab: Lab, seconds: float) -> MsgGenerator[None]:
    """Have the furnace for a while [s]."""
    yield from bps.sleep(seconds)


@step(kind="repeatable")
def wait(lab: Lab, seconds: float) -> MsgGenerator[None]:
    """Have nothing for a while [s]."""
    yield from bps.sleep(seconds)


@protocol(version="1")
def raw(lab: Lab, wish: Wish) -> MsgGenerator[Nothing]:
    """Do what is wished."""
    for act, number in wish.acts:
        if act == "mv":
            yield from bps.mv(lab.the(Furnace), number)
        elif act == "flow":
            yield from bps.mv(lab.the(GasFlow), number)
        elif act == "warm":
            yield from warm(lab, number)
        elif act == "use":
            yield from use(lab, number)
        elif act == "sleep":
            yield from wait(lab, number)
        else:
            raise ValueError("the author's mistake")
    return Nothing()


Begin = Callable[..., tuple[MortalCell, list[int]]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Yield what starts a cell with jobs, each told by its acts."""
    lives: list[MortalCell] = []

    def start(*wishes: list[tuple[str, float]], **devices: Any) -> Any:
        content = copy.deepcopy(LAB)
        content["devices"] |= devices
        life = MortalCell(content, tmp_path, {"raw": raw})
        lives.append(life)
        wanted = [JobRequest("raw", "1", {"acts": acts}) for acts in wishes]
        submit = partial(queue.submit_many, wanted=wanted, now=life.loop.stamp())
        ids = life.store.write(submit)
        life.start()
        return life, ids

    yield start
    for life in lives:
        life.close()


def owners(life: MortalCell, name: str = "furnace_1") -> frozenset[int]:
    """Return who has a device."""
    return life.lab.resources.reservations.owners_of(name)


ENDS = pytest.mark.parametrize("wanted", [Cancel(), Abort()], ids=["cancel", "abort"])


def test_furnace_set_outside_a_step_is_at_rest_after_a_job_that_fails(
    begin: Begin,
) -> None:
    """A plan's mistake leaves nothing on that it set, step or no step."""
    life, (one,) = begin([("mv", 200.0), ("sleep", 600.0), ("raise", 0.0)])
    life.advance(1300.0)
    was_heating = is_heating(life)
    life.advance(1200.0)

    assert was_heating
    assert job(life, one).state is JobState.FAILED
    assert not is_heating(life)
    assert owners(life) == frozenset()


@ENDS
def test_furnace_set_outside_a_step_is_at_rest_after_a_job_that_is_ended(
    begin: Begin, wanted: Any
) -> None:
    """Whoever ends a job ends what it set outside of its steps."""
    life, (one,) = begin([("mv", 200.0), ("sleep", 9000.0), ("sleep", 1.0)])
    life.advance(1500.0)
    was_heating = is_heating(life)
    ask(life, wanted, one)
    life.advance(9000.0)

    assert was_heating
    assert job(life, one).state in (JobState.CANCELLED, JobState.ABORTED)
    assert not is_heating(life)


def test_gas_opened_outside_a_step_is_closed_after_a_job_that_fails(
    begin: Begin,
) -> None:
    """Gas does not flow on because its job failed between two steps."""
    life, (one,) = begin([("flow", 100.0), ("sleep", 600.0), ("raise", 0.0)], **GAS)
    life.advance(300.0)
    flowed = life.lab.read("gas_1", "setpoint")["value"]
    life.advance(600.0)

    assert flowed == pytest.approx(100.0)
    assert job(life, one).state is JobState.FAILED
    assert life.lab.read("gas_1", "setpoint")["value"] == 0.0


def test_furnace_of_a_job_stays_as_it_is_when_another_ends_well(begin: Begin) -> None:
    """A job's good end is no other job's: what that set goes on until its own end."""
    life, (one, two) = begin([("mv", 200.0), ("sleep", 7200.0)], [("sleep", 3000.0)])
    life.advance(4000.0)
    is_on = is_heating(life)
    others = job(life, two).state
    life.advance(6000.0)

    assert others is JobState.SUCCEEDED
    assert is_on
    assert job(life, one).state is JobState.SUCCEEDED
    assert not is_heating(life)


def test_furnace_left_on_by_a_step_stays_so_when_another_job_ends_well(
    begin: Begin,
) -> None:
    """What a step that is done has set is still its job's."""
    life, (one, two) = begin([("warm", 200.0), ("sleep", 7200.0)], [("sleep", 3000.0)])
    life.advance(4000.0)
    is_on = is_heating(life)

    assert job(life, two).state is JobState.SUCCEEDED
    assert is_on
    life.advance(6000.0)
    assert job(life, one).state is JobState.SUCCEEDED
    assert not is_heating(life)


def test_furnace_set_outside_a_step_is_kept_from_steps_of_others(begin: Begin) -> None:
    """Nobody is granted what heats for another, who asked for it in no step."""
    life, (one, two) = begin(
        [("mv", 200.0), ("sleep", 3000.0)], [("sleep", 600.0), ("use", 60.0)]
    )
    life.advance(2000.0)

    assert owners(life) == {one}
    assert steps_of(life, two).keys() == {"wait"}
    life.advance(8000.0)
    assert [job(life, n).state for n in (one, two)] == [JobState.SUCCEEDED] * 2


def test_furnace_of_another_is_refused_outside_a_step(begin: Begin) -> None:
    """Who would set what a step of another has is told to ask for it in a step."""
    life, (one, two) = begin([("use", 3000.0)], [("sleep", 600.0), ("mv", 200.0)])
    life.advance(1000.0)

    refused = job(life, two)
    assert refused.state is JobState.FAILED
    assert f"job {one} has it; use it in a step that needs it" in (
        refused.reason_text or ""
    )
    assert not is_heating(life)
    assert owners(life) == {one}


@pytest.mark.parametrize(
    "last", [("sleep", 1.0), ("raise", 0.0)], ids=["well", "badly"]
)
def test_furnace_of_a_done_step_is_at_rest_after_a_job_that_was_adopted(
    begin: Begin, last: tuple[str, float]
) -> None:
    """What a step set before its process died is ended with its job in the next."""
    life, (one,) = begin([("warm", 200.0), ("sleep", 1200.0), last])
    life.advance(1500.0)
    life.kill()
    was_heating = is_heating(life)
    life.start()
    ask(life, AllowHeat())
    life.advance(4800.0)

    assert was_heating
    assert job(life, one).state in (JobState.SUCCEEDED, JobState.FAILED)
    assert not is_heating(life)
    assert owners(life) == frozenset()


def test_furnace_that_two_adopted_jobs_have_used_is_ended_by_the_last(
    begin: Begin,
) -> None:
    """An adopted job ends nothing of which another one may be the reason."""
    life, (one, two) = begin(
        [("use", 1.0), ("sleep", 3000.0)],
        [("sleep", 60.0), ("warm", 200.0), ("sleep", 6000.0)],
    )
    life.advance(1500.0)
    life.kill()
    life.start()
    ask(life, AllowHeat())
    life.advance(4000.0)
    is_on = is_heating(life)

    assert job(life, one).state is JobState.SUCCEEDED
    assert is_on
    life.advance(6000.0)
    assert job(life, two).state is JobState.SUCCEEDED
    assert not is_heating(life)


def test_unsafe_furnace_is_nobodys_before_it_is_safe(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is not faster than who keeps trying to make it safe."""
    life, (one, two) = begin(
        [("mv", 100.0), ("sleep", 600.0)], [("sleep", 60.0), ("use", 60.0)]
    )
    assert life.cell is not None
    furnace, events = life.lab.devices["furnace_1"], life.cell.parts.events
    go, keep, asked = furnace.go_to_abort_state, events.keep_made_safe, []
    is_bad = True

    async def go_if_it_answers() -> str:
        asked.append(owners(life))
        if is_bad:
            raise TransportError("furnace_1: nobody answers")
        return await go()

    async def keep_slowly(*what: Any) -> None:
        await asyncio.sleep(0.01)  # as a commit at the wall's pace
        await keep(*what)

    monkeypatch.setattr(furnace, "go_to_abort_state", go_if_it_answers)
    monkeypatch.setattr(events, "keep_made_safe", keep_slowly)
    life.advance(3000.0)

    assert job(life, one).state is JobState.SUCCEEDED
    assert steps_of(life, two).keys() == {"wait"}
    assert asked
    assert all(two not in who for who in asked)
    is_bad = False
    life.advance(600.0)
    assert job(life, two).state is JobState.SUCCEEDED
    assert all(two not in who for who in asked[:-1])
    assert not is_heating(life)
