"""Labs opened on their twin, and jobs that fail."""

import json
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator
from pydantic import BaseModel

from ppu import open_lab
from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import ConfigurationError, ConnectError, InternalError
from ppu.plans import Lab, ProtocolResult, protocol
from ppu.twin.job import Job


class Nothing(BaseModel):
    """No parameters."""


@protocol(version="1")
def heat_and_stumble(lab: Lab, parameters: Nothing) -> MsgGenerator[ProtocolResult]:
    """Start a firing, then fail as only a program can."""
    furnace = lab.the(Furnace)
    profile = FiringProfile((Segment(300.0, 10.0, 600.0),), 60.0)
    yield from bps.prepare(furnace, profile, wait=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.sleep(600.0)
    return ProtocolResult(parameters_actual={"ratio": 1 / (lab.stock_g("x") - 1)})


@protocol(version="1")
def return_something_else(
    lab: Lab, parameters: Nothing
) -> MsgGenerator[ProtocolResult]:
    """Promise a result and return another thing."""
    yield from bps.null()
    return {"not": "a result"}  # type: ignore[return-value]  # the mistake under test


def no_time() -> float:
    """Return no elapsed time."""
    return 0.0


def test_furnace_is_made_safe_when_a_protocol_stumbles(
    small_lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of a protocol's author is told, and the heating ends."""
    monkeypatch.setattr(Lab, "stock_g", lambda self, powder: 1.0)
    with open_lab(str(small_lab), only=("furnace_1",)) as lab:
        job = Job(lab, heat_and_stumble, {}, tmp_path / "out")
        with pytest.raises(InternalError) as caught:
            job.run(no_time)
        heating = lab.read("furnace_1", "program_status")["value"]
        told = job.make_safe()
        safe = lab.read("furnace_1", "program_status")["value"]
    documents = (tmp_path / "out" / "documents.jsonl").read_text().splitlines()

    assert "heat_and_stumble failed in heat_and_stumble" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
    assert (heating.value, safe.value) == ("run", "reset")
    assert any("ramping down" in text for text in told)
    assert json.loads(documents[-1])["doc"]["exit_status"] == "fail"


def test_result_is_refused_when_it_is_not_what_was_declared(
    small_lab: Path, tmp_path: Path
) -> None:
    """Nothing is written as a result that is none."""
    with open_lab(str(small_lab), only=("balance",)) as lab:
        job = Job(lab, return_something_else, {}, tmp_path / "out")
        with pytest.raises(ConfigurationError, match="returned a dict, not the"):
            job.run(no_time)

    assert not (tmp_path / "out" / "result.json").exists()


def test_lab_maps_names_to_devices_when_it_is_open(small_lab: Path) -> None:
    """Devices are items and attributes, and missing ones are told."""
    with open_lab(str(small_lab), only=("balance",)) as lab:
        found: Any = lab["balance"]

        assert lab.balance is found
        assert list(lab) == ["balance"]
        assert len(lab) == 1
        with pytest.raises(AttributeError, match="no device 'scale'; it has balance"):
            _ = lab.scale


def test_any_plan_runs_on_an_open_lab(small_lab: Path) -> None:
    """Own plans need no protocol."""

    def weigh(balance: Any) -> MsgGenerator[float]:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.trigger(balance, wait=True)
        reading = yield from bps.read(balance)
        yield from bps.save()
        yield from bps.close_run()
        return float(reading[balance.mass_key]["value"])

    with open_lab(str(small_lab), only=("balance",)) as lab:
        assert lab.run(weigh(lab.balance)) == pytest.approx(0.0, abs=1e-3)


def test_lab_is_refused_with_every_absent_instrument(small_lab: Path) -> None:
    """One message names all that cannot be reached."""
    with (
        pytest.raises(ConnectError) as caught,
        open_lab(str(small_lab), "hardware", only=("furnace_1", "balance")),
    ):
        pass

    assert "furnace_1: cannot open" in str(caught.value)
    assert "balance: cannot open" in str(caught.value)


@pytest.mark.parametrize("pace", [None, 60.0])
def test_hardware_runs_at_the_pace_of_the_wall_only(
    small_lab: Path, pace: float | None
) -> None:
    """Real instruments take their time."""
    with pytest.raises(ConfigurationError, match="real instruments run at pace 1"):
        open_lab(str(small_lab), "hardware", pace=pace)


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        ("    simulator: ppu_simulators.instruments.mettler_sics", "    #", "no twin"),
        ("SimulatedMettlerSics", "SimulatedMettler", "did you mean"),
        ("ppu_drivers.mettler_sics:MettlerSics", "pathlib:Path", "is no driver"),
        ("slots: [balance.pan]", "twin: {resolutoin_g: 1}", "unknown twin setting"),
        ("provides: [Balance]", "provides: [Furnace]", "does not provide Furnace"),
    ],
)
def test_lab_is_refused_when_a_device_cannot_be_made(
    small_lab: Path, tmp_path: Path, right: str, wrong: str, text: str
) -> None:
    """Drivers and simulators that do not fit their entry are told."""
    assert right in small_lab.read_text()
    path = tmp_path / "lab.yaml"
    path.write_text(small_lab.read_text().replace(right, wrong, 1))

    with (
        pytest.raises(ConfigurationError, match=text),
        open_lab(str(path), only=("balance",)),
    ):
        pass
