"""Twin settings: what the lab file says of the real world is never ignored."""

import math
from typing import Any

import pytest

from ppu.core.labfile import FLOOR, LabFile
from ppu.core.simulation import TwinSettingsError
from ppu_simulators import world
from ppu_simulators.physics.furnace import FurnaceParameters
from ppu_simulators.world import World, settings_of

KNOWN = {
    "capacity_g": 220.0,
    "model": "X",
    "is_remote": True,
    "faults": [],
    "width_mm": {"crucible": 40.0},
    "residue": {},
}


def lab_file(container: dict[str, Any], stock: dict[str, Any]) -> LabFile:
    """Return a lab with one container and one powder."""
    content = {
        "lab": "tiny",
        "schema_version": 1,
        "devices": {"robot": {"driver": "nowhere:Nothing"}},
        "locations": {"rack": {"holds": "crucible"}},
        "containers": {
            "cup": {
                "kind": "crucible",
                "at": "rack",
                "capacity_ml": 20,
                "tare_g": 18,
                "twin": container,
            }
        },
        "stock": {
            "CaCO3": {
                "at": "robot.head",
                "mass_g": 5,
                "purity": 0.9,
                "bulk_density_g_per_ml": 1,
                "twin": stock,
            }
        },
    }
    return LabFile.model_validate(content)


def test_settings_override_what_is_known() -> None:
    """What is not said keeps its default."""
    assert settings_of({"capacity_g": 5, "model": "Y"}, KNOWN) == {
        **KNOWN,
        "capacity_g": 5,
        "model": "Y",
    }


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"capacity": 5}, "unknown twin setting 'capacity'; did you mean 'capacity_g'"),
        ({"capacity_g": math.nan}, "capacity_g should be a finite number, not nan"),
        ({"capacity_g": math.inf}, "capacity_g should be a finite number, not inf"),
        ({"capacity_g": "5"}, "capacity_g should be a finite number, not '5'"),
        ({"capacity_g": True}, "capacity_g should be a finite number, not True"),
        ({"faults": "drop"}, "faults should be a list, not 'drop'"),
        ({"faults": {"fault": "drop"}}, "faults should be a list, not {"),
        ({"width_mm": 5}, "width_mm should be a mapping of keys, not 5"),
        (
            {"width_mm": {"vial": "x"}},
            "width_mm.vial should be a finite number, not 'x",
        ),
        ({"residue": None}, "residue should be a mapping of keys, not None"),
    ],
)
def test_settings_are_refused_when_they_are_wrong(
    entry: dict[str, Any], text: str
) -> None:
    """A typo is told with the nearest known name."""
    with pytest.raises(ValueError, match=text):
        settings_of(entry, KNOWN)


def test_settings_are_refused_with_every_fault_and_its_place() -> None:
    """One error names all that is wrong, so that each line of the file is found."""
    entry = {"capacity": 5, "faults": None, "width_mm": {"vial": "x", "holder": 3}}
    with pytest.raises(TwinSettingsError) as caught:
        settings_of(entry, KNOWN)

    places = [place for place, _ in caught.value.problems]
    assert places == [("capacity",), ("faults",), ("width_mm", "vial")]


def test_settings_of_a_mapping_may_have_other_keys() -> None:
    """A mapping's default shows what its values are, not which keys there are."""
    entry = {"width_mm": {"vial": 12}, "residue": {"CuO": 0.1}}

    assert settings_of(entry, KNOWN) == {**KNOWN, **entry}


def test_floor_of_the_world_is_the_name_that_lab_files_must_not_use() -> None:
    """What fell is never found at a location of the lab."""
    assert world.FLOOR == FLOOR


def test_world_is_what_the_twin_settings_say() -> None:
    """Containers and powders may differ from what PPU believes."""
    world = World(lab_file({"tare_g": 18.5}, {"mass_g": 2.0, "radius_um": 3.0}), 0)

    assert world.containers["cup"].tare_g == 18.5
    assert world.containers["cup"].capacity_ml == 20.0
    assert world.stock["CaCO3"].mass_g == pytest.approx(2.0)
    assert world.stock["CaCO3"].radii_um["CaCO3"] == 3.0


@pytest.mark.parametrize(
    ("container", "stock", "text"),
    [
        ({"tare": 1.0}, {}, "containers.cup.twin: unknown .* did you mean 'tare_g'"),
        ({}, {"massg": 1.0}, "stock.CaCO3.twin: unknown .* did you mean 'mass_g'"),
    ],
)
def test_world_is_refused_when_a_setting_is_unknown(
    container: dict[str, Any], stock: dict[str, Any], text: str
) -> None:
    """A typo is not silently the default."""
    with pytest.raises(ValueError, match=text):
        World(lab_file(container, stock), 0)


@pytest.mark.parametrize("p_max_w", [math.nan, math.inf, -1.0, 0.0])
def test_furnace_is_refused_when_its_power_is_no_positive_number(
    p_max_w: float,
) -> None:
    """NaN would silently make every temperature NaN."""
    with pytest.raises(ValueError, match="p_max_w must be positive"):
        FurnaceParameters(p_max_w=p_max_w)
