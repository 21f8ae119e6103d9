"""What instruments do wrong by themselves ends a job, and the error names it.

The job is a whole one on the twin of the lab that people carry for, shortened to what
costs little: a firing that is soon over and a short scan.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.core.errors import InstrumentError
from ppu.core.labfile import LabFile
from ppu.core.registry import find_lab
from ppu.plans.protocol import find_protocol
from ppu_simulators.world import World

LAB = "a-lab-by-hand"
SHORT = {
    "batch_mass_g": 1.0,
    "milling_s": 60.0,
    "temperature_degc": 50.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 60.0,
    "scan_start_deg": 20.0,
    "scan_stop_deg": 70.0,
    "scan_duration_s": 300.0,
}
"""A job that holds every step of the demonstration and is soon over."""
THREE_SEEDS = pytest.mark.parametrize("seed", range(3))


class Shortened:
    """A shortened main job on a lab of which one device has a fault.

    Args:
        device: Which one; no fault without.
        fault: Its script.
        seed: Of the twin.
        settings: More settings of that device.
        lab: Which bundled lab.
        recipe: What else to ask for.
    """

    def __init__(
        self,
        device: str = "",
        fault: dict[str, Any] | None = None,
        seed: int = 0,
        settings: dict[str, Any] | None = None,
        *,
        lab: str = LAB,
        recipe: dict[str, Any] | None = None,
    ) -> None:
        path = find_lab(lab)
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if fault is not None:
            content["devices"][device].setdefault("twin", {})["faults"] = [fault]
        if settings is not None:
            content["devices"][device]["settings"] |= settings
        file = LabFile.model_validate(content)
        opened = OpenLab(file, path, target="twin", pace=None, seed=seed)
        self.result: dict[str, Any] | None = None
        self.error = ""
        with TemporaryDirectory() as out, opened:
            assert opened.bench is not None
            assert isinstance(opened.bench.world, World)
            self.world = opened.bench.world
            protocol = find_protocol("solid_state_synthesis")
            execution = Execution(
                opened, protocol, SHORT | (recipe or {}), Path(out) / "job"
            )
            execution.check()
            try:
                self.result = execution.run(float)
            except InstrumentError as exc:
                self.error = str(exc)
            self.whereabouts = execution.whereabouts()
            self.stock_g = {name: execution.view.stock_g(name) for name in file.stock}


@THREE_SEEDS
@pytest.mark.parametrize(
    ("fault", "powder"),
    [
        ({"fault": "clogged powder", "at_s": 0}, "BaCO3"),
        ({"fault": "clogged powder", "at_s": 0, "at_head": 2}, "TiO2"),
        ({"fault": "clogged powder", "at_s": 0, "part_given": 0}, "BaCO3"),
    ],
    ids=["head in use", "head 2", "nothing comes"],
)
def test_job_ends_and_names_the_powder_when_a_head_is_clogged(
    fault: dict[str, Any], powder: str, seed: int
) -> None:
    """Too little powder is an error with both masses, wherever the head is."""
    job = Shortened("dosing_robot", fault, seed)

    assert job.result is None
    assert f"g of {powder} instead of" in job.error
    assert "is the head clogged or empty?" in job.error
    assert "crucible_01 is at dosing_robot.station" in job.whereabouts[0]


def test_clogged_head_is_the_only_one_when_it_is_not_the_first() -> None:
    """What the error says of the other powder, nothing, is what there is."""
    fault = {"fault": "clogged powder", "at_s": 0, "at_head": 2, "part_given": 0.25}
    job = Shortened("dosing_robot", fault)
    there = job.world.containers["crucible_01"].matter.masses_g()

    assert "BaCO3" not in job.error
    assert there["TiO2-anatase"] == pytest.approx(0.25 * 0.2881, abs=1e-4)
    assert there["BaCO3"] == pytest.approx(0.7119, abs=0.01)


def test_stock_is_what_is_left_when_a_head_is_clogged() -> None:
    """What was dosed before the error is no longer believed to be in stock."""
    job = Shortened("dosing_robot", {"fault": "clogged powder", "at_s": 0})
    there = job.world.containers["crucible_01"].matter.masses_g()

    assert job.stock_g["BaCO3"] == pytest.approx(50 - there["BaCO3"], abs=0.001)
    assert job.stock_g["TiO2"] == pytest.approx(50 - there["TiO2-anatase"], abs=0.001)


def test_job_ends_and_names_the_powder_when_too_much_comes() -> None:
    """A dose over its target by more than is allowed is an error, too."""
    strict = {"excess_mg": 0.01, "tolerance_percent": 0.001}
    job = Shortened("dosing_robot", settings=strict)

    assert job.result is None
    assert re.search(r"0\.71\d\d g of BaCO3 instead of 0\.7119 g came", job.error)
    assert "does the head leak?" in job.error


@THREE_SEEDS
@pytest.mark.parametrize("at_s", [0, 250, 500, 950])
def test_job_ends_and_names_the_balance_when_it_is_frozen(at_s: int, seed: int) -> None:
    """Whenever it freezes: an error that names it, or masses that are right."""
    fault = {"fault": "sensor frozen", "at_s": at_s}
    job = Shortened("balance", fault, seed)
    if job.result is None:
        assert re.search(r"balance shows .* is its reading frozen", job.error)
    else:
        sample = job.result["sample"]
        dosed = sum(sample["precursor_masses_weighed_g"].values())
        assert sample["mass_before_g"] == pytest.approx(dosed, abs=0.002)
        assert sample["mass_after_g"] == pytest.approx(dosed, abs=0.002)


@THREE_SEEDS
@pytest.mark.parametrize("by_deg", [None, -0.3, 0.8, -1.5])
def test_job_ends_and_names_the_goniometer_when_it_is_misaligned(
    by_deg: float | None, seed: int
) -> None:
    """A zero error of 0.3 deg or more is an error that tells its size."""
    fault: dict[str, Any] = {"fault": "misaligned goniometer", "at_s": 0}
    if by_deg is not None:
        fault["by_deg"] = by_deg
    job = Shortened("diffractometer", fault, seed)
    _, found, told = job.error.partition("the goniometer looks misaligned by ")

    assert job.result is None
    assert found, job.error
    # A specimen stands up to 0.1 mm off the axis, which looks like 0.08 deg, and the
    # strain that the analysis does not know of looks like as much again.
    assert float(told.split()[0]) == pytest.approx(by_deg or 0.3, abs=0.16)


@THREE_SEEDS
def test_job_ends_when_the_specimen_stands_off_the_axis(seed: int) -> None:
    """A holder that is not seated is an error that names the axis."""
    job = Shortened("diffractometer", {"fault": "holder not seated", "at_s": 0}, seed)

    assert job.result is None
    assert "the specimen stands off its axis" in job.error


@THREE_SEEDS
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "sensor frozen", "at_s": 0},
        {"fault": "sensor frozen", "every_s": 120, "for_s": 6},
    ],
    ids=["always", "for a while"],
)
def test_job_ends_and_names_the_detector_when_it_is_frozen(
    fault: dict[str, Any], seed: int
) -> None:
    """Counts that repeat longer than chance allows are an error, even a few."""
    job = Shortened("diffractometer", fault, seed)

    assert job.result is None
    assert "is the detector frozen?" in job.error


@pytest.mark.parametrize("seed", range(10))
def test_job_ends_well_when_no_instrument_has_a_fault(seed: int) -> None:
    """None of these checks trips without its fault."""
    job = Shortened(seed=seed)

    assert job.error == ""
    assert job.result is not None
    assert job.result["incidents"] == []


@THREE_SEEDS
def test_job_ends_and_names_the_bottle_when_it_runs_empty(seed: int) -> None:
    """A firing in oxygen stops as soon as the oxygen does."""
    job = Shortened(
        "gas_2",
        {"fault": "empty bottle", "at_s": 1500},
        seed,
        lab="a-lab",
        recipe={"atmosphere": "O2", "hold_s": 36000.0},
    )

    assert job.result is None
    assert re.search(r"gas_2: .*O2 .*is the bottle empty", job.error)
    assert job.world.gas_into("furnace_2")[1] < 1.0


@THREE_SEEDS
def test_job_ends_and_names_the_container_when_it_is_dropped(seed: int) -> None:
    """A dropped crucible lies somewhere; nobody believes that it arrived."""
    job = Shortened(
        "gripper", {"fault": "dropped crucible", "at_s": 60 * seed}, seed, lab="a-lab"
    )

    assert job.result is None
    assert "gripper dropped crucible_01 on the way" in job.error
    assert "nobody knows where crucible_01 is: look for it" in job.whereabouts[0]
    assert "drop" in {incident.kind for incident in job.world.incidents}


@pytest.mark.parametrize(
    ("device", "fault", "named"),
    [
        ("robot_arm", "protective stop", "PROTECTIVE_STOP"),
        ("robot_arm", "popup", "popup"),
        ("door_1", "door jammed", "door_1"),
    ],
)
@THREE_SEEDS
def test_job_ends_and_names_what_moves_when_it_does_not(
    device: str, fault: str, named: str, seed: int
) -> None:
    """An arm that stops and a door that sticks end the job."""
    job = Shortened(device, {"fault": fault, "at_s": 30 * seed}, seed, lab="a-lab")

    assert job.result is None
    assert named in job.error
