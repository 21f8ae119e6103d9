"""What happens to a lab is in its store: incidents, safe states, what is not safe."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
import yaml
from bluesky.utils import MsgGenerator
from pydantic import BaseModel

from cell_life import MakeLife, ask, garble, is_heating, job, submit
from exercise import LAB
from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.cli.job import in_words
from ppu.core.capabilities import GasFlow, GasRequest
from ppu.core.errors import PPUError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.registry import find_lab
from ppu.operations.looking import event_of
from ppu.operations.views import SafetyChange
from ppu.plans import Lab, ProtocolResult, protocol
from ppu.plans.protocol import find_protocol
from ppu.store import queue
from ppu.store.events import Event, EventKind, events_after
from ppu.store.jobs import JobState
from ppu.store.requests import Abort
from ppu.store.store import Store

SHORT: dict[str, Any] = {
    "temperature_degc": 100.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 60.0,
}
"""A firing that is soon over."""


def events_of(store: Store, *kinds: str) -> list[Event]:
    """Return the events of these kinds."""
    with store.read() as connection:
        return events_after(connection, limit=10**6, kinds=kinds)


def with_weak_cup() -> dict[str, Any]:
    """Return the containers, of which the first is not made for any firing."""
    containers = copy.deepcopy(LAB["containers"])
    containers["cup_1"]["twin"] = {"max_degc": 60.0}
    return dict(containers)


def only_job(store: Store) -> int:
    """Return the number of the one job in a store."""
    with store.read() as connection:
        (job,) = queue.find(connection)
    return job.id


def test_incident_of_a_single_run_is_an_event_of_its_store(tmp_path: Path) -> None:
    """Fingers that lose what they hold: device, lab time and job are on record."""
    content = yaml.safe_load(find_lab("a-lab").read_text(encoding="utf-8"))
    fault = {"fault": "dropped crucible", "at_s": 0}
    content["devices"]["gripper"]["twin"] = {"faults": [fault]}
    file = LabFile.model_validate(content)
    with OpenLab(file, find_lab("a-lab"), target="twin", pace=None) as lab:
        synthesis = find_protocol("solid_state_synthesis")
        execution = Execution(lab, synthesis, SHORT, tmp_path / "job")
        with pytest.raises(PPUError):
            execution.run(float)
        assert lab.bench is not None
        happened = list(lab.bench.world.incidents)
        ended_s = lab.host.loop.time()
    with Store(tmp_path / "job" / "store.sqlite") as store:
        found, job_id = events_of(store, "incident"), only_job(store)

    assert [one.kind for one in happened] == ["drop"]
    assert [event.job_id for event in found] == [job_id]
    assert found[0].content == {
        "device": happened[0].device,
        "lab_time_s": happened[0].lab_time_s,
        "incident": "drop",
        "text": happened[0].text,
        "stamp": lab.host.loop.epoch + happened[0].lab_time_s,
    }
    assert 0.0 < found[0].content["lab_time_s"] <= ended_s


def test_failed_single_run_keeps_what_was_made_safe(tmp_path: Path) -> None:
    """A furnace that is left heating by an error is on record as brought down."""
    content = yaml.safe_load(find_lab("a-lab").read_text(encoding="utf-8"))
    fault = {"fault": "thermocouple open", "at_s": 3000}
    content["devices"]["furnace_1"]["twin"] = {"faults": [fault]}
    file = LabFile.model_validate(content)
    with OpenLab(file, find_lab("a-lab"), target="twin", pace=None) as lab:
        synthesis = find_protocol("solid_state_synthesis")
        wish = SHORT | {"temperature_degc": 900.0, "furnace": "furnace_1"}
        execution = Execution(lab, synthesis, wish, tmp_path / "job")
        with pytest.raises(PPUError):
            execution.run(float)
    with Store(tmp_path / "job" / "store.sqlite") as store:
        found, job_id = events_of(store, "safe state"), only_job(store)

    furnace = [one for one in found if one.content["device"] == "furnace_1"]
    assert [event.job_id for event in furnace] == [job_id]
    assert furnace[0].content["is_reached"]
    assert furnace[0].content["lab_time_s"] >= 3000.0


class Nothing(BaseModel):
    """What has no parameters."""


@protocol(version="1")
def forget_gas(lab: Lab, wish: Nothing) -> MsgGenerator[ProtocolResult]:
    """Let gas flow, and end well."""
    yield from bps.mv(lab.the(GasFlow, "gas_2"), GasRequest("O2", 100.0))
    return ProtocolResult()


def test_single_run_that_ends_well_keeps_what_was_brought_to_rest(
    tmp_path: Path,
) -> None:
    """A protocol that forgets its gas has the closed valve on record."""
    path = find_lab("a-lab")
    with OpenLab(load_lab(path), path, target="twin", pace=None) as lab:
        Execution(lab, forget_gas, {}, tmp_path / "job").run(float)
    with Store(tmp_path / "job" / "store.sqlite") as store:
        (found,), job_id = events_of(store, "safe state", "unsafe"), only_job(store)

    assert (found.kind, found.job_id) == ("safe state", job_id)
    assert (found.content["device"], found.content["is_reached"]) == ("gas_2", True)


def test_incident_in_a_cell_is_of_the_job_that_has_the_device(live: MakeLife) -> None:
    """Of two jobs the one whose crucible is overheated has the incident, once."""
    life = live(containers=with_weak_cup())
    fired, pressed = submit(life, {"kind": "fire"}, {"kind": "press"})
    life.start()
    life.advance(20000.0)

    assert job(life, fired).state is JobState.SUCCEEDED
    assert job(life, pressed).state is JobState.SUCCEEDED
    (found,) = events_of(life.store, "incident")
    assert (found.job_id, found.content["device"]) == (fired, "furnace_1")
    assert found.content["incident"] == "over-temperature"
    assert life.lab.bench is not None
    (happened,) = life.lab.bench.world.incidents
    assert found.content["lab_time_s"] == happened.lab_time_s


def test_furnace_made_safe_after_an_abort_is_an_event_of_its_job(
    live: MakeLife,
) -> None:
    """Who was made safe when, after which job, and what was seen."""
    life = live()
    (one,) = submit(life, {"kind": "bare"})
    life.start()
    while not is_heating(life):
        life.advance(20.0)
    began_s = life.loop.time()
    ask(life, Abort(), one)
    life.advance(60.0)

    (found,) = events_of(life.store, "safe state", "unsafe")
    assert (found.kind, found.job_id) == ("safe state", one)
    assert found.content["device"] == "furnace_1"
    assert found.content["is_reached"]
    assert found.content["text"]
    assert began_s <= found.content["lab_time_s"] <= life.loop.time()
    seen = event_of(found).change
    assert isinstance(seen, SafetyChange)
    assert seen.is_reached


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("incident", {"incident": "spill"}, "incident: furnace_1: spill: hot"),
        ("safe state", {"is_reached": True}, "furnace_1 is in its safe state: hot"),
        ("safe state", {"is_reached": False}, "is NOT in its safe state: hot"),
        ("unsafe", {}, "is NOT in its safe state: hot"),
    ],
)
def test_event_of_the_lab_is_told_in_words(
    kind: str, content: dict[str, Any], told: str
) -> None:
    """Who follows a job reads what happened, not a list of fields."""
    common = {"device": "furnace_1", "lab_time_s": 60.0, "text": "hot"}
    event = Event(1, 0.0, EventKind(kind), {**common, **content}, 7)

    assert told in in_words(event_of(event), {})


def test_furnace_that_cannot_be_made_safe_is_an_event_until_it_is(
    live: MakeLife,
) -> None:
    """First the failed attempt, then that it is unsafe, at last that it is safe."""
    life = live()
    (one,) = submit(life, {"kind": "bare"})
    life.start()
    while not is_heating(life):
        life.advance(20.0)
    life.advance(100.0)
    garble(life, 400.0)
    ask(life, Abort(), one)
    life.advance(300.0)
    before = events_of(life.store, "safe state", "unsafe")
    life.advance(400.0)
    after = events_of(life.store, "safe state", "unsafe")

    kinds = [(event.kind, event.content.get("is_reached")) for event in after]
    assert kinds[: len(before)] == [("safe state", False), ("unsafe", None)]
    assert kinds[-1] == ("safe state", True)
    assert {event.job_id for event in after} == {one}
    assert {event.content["device"] for event in after} == {"furnace_1"}
    times = [event.content["lab_time_s"] for event in after]
    assert times == sorted(times)
