"""What somebody taught the simulated arm, and how wrong lists are refused."""

from typing import Any

import pytest

from ppu.core.labfile import LabFile
from ppu.core.simulation import TwinSettingsError
from ppu_simulators.instruments.universal_robots_ur5e import (
    SimulatedUr5e,
    _read_programs,
)
from ppu_simulators.world import World

RACKS = [f"rack_1.{n}" for n in range(1, 5)]
HOLDERS = ["rack_2.1", "rack_2.2"]
WAYS = [
    *((rack, place) for rack in RACKS for place in ("balance.pan", "bench.crucible")),
    *((place, rack) for rack in RACKS for place in ("balance.pan", "bench.crucible")),
    ("balance.pan", "dosing_robot.station"),
    ("dosing_robot.station", "balance.pan"),
    *(("balance.pan", f"furnace_{n}.slot_1") for n in (1, 2)),
    *((f"furnace_{n}.slot_1", rack) for n in (1, 2) for rack in RACKS),
    *((rack, "bench.holder") for rack in HOLDERS),
    *((rack, "diffractometer.slot_1") for rack in HOLDERS),
    *(("diffractometer.slot_1", rack) for rack in HOLDERS),
    ("bench.holder", "diffractometer.slot_1"),
]


def test_bundled_arm_knows_every_way_of_the_bundled_lab() -> None:
    """Each way a synthesis takes has one program, named after it."""
    programs = _read_programs("a-lab")
    ways = {(p.origin, p.destination) for p in programs.values() if p.task == "carry"}

    assert set(WAYS) <= ways
    for name, program in programs.items():
        if program.task == "carry":
            assert name == f"{program.origin}_to_{program.destination}.urp"
            assert 0 < program.grip_width_mm < 50


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ("b-lab", "there is no list 'b-lab'; did you mean 'a-lab'"),
        (3, "should map names to programs"),
        ({"x.urp": 3}, "should be a program, not 3"),
        ({"x.urp": {"task": "dance"}}, "unknown task 'dance'"),
        (
            {"x.urp": {"task": "grind", "duration_s": 60}},
            r"x\.urp: station is missing",
        ),
        (
            {"x.urp": {"task": "grind", "station": "a", "duration_s": -1}},
            "duration_s should be a positive number, not -1",
        ),
        (
            {"x.urp": {"task": "grind", "station": "a", "duration_s": 1, "statoin": 1}},
            "unknown key 'statoin'; did you mean 'station'",
        ),
        (
            {"x.urp": {"origin": 1, "path": "a", "grip_width_mm": 1, "duration_s": 1}},
            r"destination is missing.*origin should be text.*path should be a list",
        ),
    ],
)
def test_wrong_programs_are_refused_with_every_fault(programs: Any, told: str) -> None:
    """A list that cannot be played is refused when the twin is made."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"arm": {"driver": "x:Y", "twin": {"programs": programs}}},
        }
    )
    with pytest.raises(TwinSettingsError, match=told):
        SimulatedUr5e("arm", lab.devices["arm"], World(lab, 1), "1")
