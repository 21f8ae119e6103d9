"""What goes physically wrong in a twin is recorded by its world, and nothing else is.

Each kind of incident has a lab file or a recipe that must produce it; the main job on
the bundled lab produces none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.core.errors import PPUError
from ppu.core.labfile import LabFile
from ppu.core.registry import find_lab
from ppu.plans.protocol import find_protocol

Content = dict[str, Any]

SHORT: Content = {"temperature_degc": 100.0, "ramp_degc_per_min": 10.0, "hold_s": 60.0}
"""A firing that is soon over."""
CARRIED_BACK = "furnace_1.slot_1 -> rack_1.1"


def incidents_of(
    change: Callable[[Content], None], parameters: Content, *, seed: int = 0
) -> tuple[set[str], str]:
    """Return the kinds of incident of a main job, and the error that ended it."""
    content: Content = yaml.safe_load(find_lab("a-lab").read_text(encoding="utf-8"))
    change(content)
    file = LabFile.model_validate(content)
    lab = OpenLab(file, find_lab("a-lab"), target="twin", pace=None, seed=seed)
    error = ""
    with TemporaryDirectory() as out, lab:
        protocol = find_protocol("solid_state_synthesis")
        execution = Execution(lab, protocol, parameters, Path(out) / "job")
        execution.check()
        try:
            execution.run(float)
        except PPUError as exc:
            error = str(exc)
        assert lab.bench is not None
        return {incident.kind for incident in lab.bench.world.incidents}, error


def nothing(content: Content) -> None:
    """Leave the lab as it is."""


def other_door(content: Content) -> None:
    """The door that PPU opens is not the one before furnace_1."""
    door = content["devices"]["door_1"]
    door["settings"]["encloses"] = "furnace_2"
    door["twin"] = {"encloses": "furnace_1"}


def hot_hands(content: Content) -> None:
    """Somebody allows what no door and no hand should face."""
    content["devices"]["door_1"]["limits"]["furnace_degc"] = [0, 900]
    content["devices"]["robot_arm"]["limits"]["container_degc"] = [0, 900]


def small_crucible(content: Content) -> None:
    """The crucible holds less than its entry says."""
    content["containers"]["crucible_01"]["twin"] = {"capacity_ml": 2.0}


def weak_grip(content: Content) -> None:
    """The fingers lose what they hold in mid-carry."""
    fault = {"fault": "dropped crucible", "at_s": 0}
    content["devices"]["gripper"]["twin"] = {"faults": [fault]}


def wrong_mapping(content: Content) -> None:
    """Two ways of the lab file name the program of each other."""
    programs = content["devices"]["robot_arm"]["settings"]["programs"]
    one, other = "balance.pan -> dosing_robot.station", "balance.pan -> rack_1.1"
    programs[one], programs[other] = programs[other], programs[one]


def occupied_rack(content: Content) -> None:
    """The way back to the rack names a program to a place that is taken."""
    programs = content["devices"]["robot_arm"]["settings"]["programs"]
    programs[CARRIED_BACK] = programs["furnace_1.slot_1 -> rack_1.2"]


def dirty_crucible(content: Content) -> None:
    """A trace of an earlier sample is left, too little for the balance to tell."""
    content["containers"]["crucible_01"]["twin"] = {"residue": {"CaO": 0.01}}


def cheap_crucible(content: Content) -> None:
    """The crucible is not made for the firing."""
    content["containers"]["crucible_01"]["twin"] = {"max_degc": 90.0}


MELTING: Content = {
    "target": "LiCoO2",
    "precursors": ["Li2CO3", "Co3O4"],
    "temperature_degc": 1050.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 60.0,
    "milling_s": 0.0,
    "candidate_phases": ["LiCoO2", "Co3O4"],
}


@pytest.mark.parametrize(
    ("kind", "change", "parameters"),
    [
        ("collision", other_door, SHORT),
        ("hot door", hot_hands, SHORT | {"temperature_degc": 400, "cool_to_degc": 380}),
        ("spill", small_crucible, SHORT),
        ("drop", weak_grip, SHORT),
        ("wrong place", wrong_mapping, SHORT),
        ("double place", occupied_rack, SHORT),
        ("melt", nothing, MELTING),
        ("contamination", dirty_crucible, SHORT),
        ("over-temperature", cheap_crucible, SHORT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_world_records_an_incident_when_it_happens(
    kind: str, change: Callable[[Content], None], parameters: Content
) -> None:
    """Each kind of incident has a lab file or a recipe that must produce it."""
    kinds, _ = incidents_of(change, parameters)

    assert kind in kinds


def test_world_records_nothing_when_nothing_goes_wrong() -> None:
    """The recipe of these incidents is harmless on the lab as it is."""
    kinds, error = incidents_of(nothing, SHORT)

    assert kinds == set()
    assert error == ""
