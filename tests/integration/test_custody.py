"""What one job leaves behind, the next one knows; and nothing is left hot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.cell.open_lab import open_lab
from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import InterlockError

SHORT: dict[str, Any] = {
    "batch_mass_g": 1.0,
    "milling_s": 60.0,
    "temperature_degc": 50.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 60.0,
    "scan_start_deg": 20.0,
    "scan_stop_deg": 70.0,
    "scan_duration_s": 300.0,
}
"""A main job that is soon over."""
HOT_KELVIN = 1063.0


def make_hot(lab: OpenLab, furnace: str) -> None:
    """Let a furnace be as hot as an aborted job leaves it."""
    assert lab.bench is not None
    model = lab.bench.instruments[furnace].chamber._model  # type: ignore[attr-defined]  # the twin's
    for node in ("element", "lining", "insulation", "crucible", "thermocouple"):
        setattr(model, f"{node}_kelvin", HOT_KELVIN)


def test_second_job_takes_what_the_first_left_clean(tmp_path: Path) -> None:
    """Places, used containers and stock are those that the job before left."""
    with open_lab("a-lab") as lab:
        first = lab.run_protocol("solid_state_synthesis", tmp_path / "1", **SHORT)
        left_g = lab.view().stock_g("BaCO3")
        second = lab.run_protocol("solid_state_synthesis", tmp_path / "2", **SHORT)

        assert first["sample"]["container"] == "crucible_01"
        assert second["sample"]["container"] == "crucible_02"
        assert second["incidents"] == []
        assert lab.view().stock_g("BaCO3") < left_g < 50.0


@pytest.mark.parametrize(
    ("lab_name", "furnace", "who", "limit"),
    [
        ("a-lab", "furnace_1", "robot_arm", 200),
        ("a-lab", "furnace_2", "robot_arm", 200),
        ("a-lab-by-hand", "furnace_1", "operator", 80),
    ],
)
def test_nobody_reaches_into_a_furnace_that_is_hot(
    lab_name: str, furnace: str, who: str, limit: int, tmp_path: Path
) -> None:
    """With a door or without, by an arm or by hand: it is read before."""
    with open_lab(lab_name) as lab:
        lab.carry("crucible_04", f"{furnace}.slot_1")
        make_hot(lab, furnace)
        lab.run(bps.sleep(60.0))  # until the controller knows
        told = rf"{furnace} is at [\d.]+ degC; {who} allows up to {limit} degC"
        with pytest.raises(InterlockError, match=told):
            lab.run_protocol("fire_sample", tmp_path / "1")
        assert lab.bench is not None
        assert lab.bench.world.incidents == []


@pytest.mark.parametrize("furnace", ["furnace_1", "furnace_2"])
@pytest.mark.parametrize("fault", ["drop", "garbage", "unplug"])
def test_furnace_is_brought_down_when_its_wire_is_out_at_that_moment(
    furnace: str, fault: str
) -> None:
    """Ten seconds of a broken wire do not leave a furnace at its program."""
    with open_lab("a-lab") as lab:
        device, bench = lab[furnace], lab.bench
        assert bench is not None

        def fire_and_fail() -> MsgGenerator[None]:
            profile = FiringProfile((Segment(600.0, 10.0, 36000.0),), 60.0)
            yield from bps.open_run()
            yield from bps.prepare(device, profile, wait=True)
            yield from bps.kickoff(device, wait=True)
            yield from bps.sleep(3600.0)
            bench.inject(furnace, {"fault": fault, "for_s": 10.0})
            raise RuntimeError("something else went wrong")

        with pytest.raises(RuntimeError):
            lab.run(fire_and_fail())
        hot = lab.read(furnace, "process_value")["value"]
        lab.run(iter([bps.sleep(7200.0).send(None)]))

        assert hot > 500.0
        assert lab.read(furnace, "process_value")["value"] < 300.0
