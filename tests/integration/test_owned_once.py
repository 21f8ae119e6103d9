"""A container belongs to one job, and a furnace fires what it is said to fire."""

import re
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest

from ppu.cell.open_lab import open_lab
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    InterlockError,
    LimitError,
    NotFoundError,
    PPUError,
)
from ppu.store.jobs import JobState

GENTLE: dict[str, Any] = {
    "temperature_degc": 60.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 60.0,
    "cool_to_degc": 60.0,
}
HOT_KELVIN = 900.0
RUNNING = 2
"""What both controllers call a program that runs."""


def test_jobs_that_name_one_crucible_fire_it_one_after_the_other(
    tmp_path: Path,
) -> None:
    """Nobody takes out what another job fires; each fires what the one before left."""
    with open_lab("a-lab", links="memory") as lab:
        bench: Any = lab.bench
        pick_up, taken_hot = bench.world.pick_up, []

        def see(time: float, container: str, origin: str, who: str) -> None:
            furnaces = [bench.instruments[name] for name in ("furnace_1", "furnace_2")]
            if origin in ("furnace_1.slot_1", "furnace_2.slot_1"):
                status = furnaces["furnace_2" in origin]._programmer.status
                taken_hot.extend([(container, origin)] if status == RUNNING else [])
            pick_up(time, container, origin, who)

        bench.world.pick_up = see
        jobs = lab.run_protocols([("fire_sample", GENTLE)] * 3, tmp_path / "out")

        assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 3
        ends = [job.ended or 0.0 for job in jobs]
        assert ends == sorted(ends)
        assert taken_hot == []
        assert [job.result["sample"]["mass_before_g"] for job in jobs] == pytest.approx(
            [2.0] * 3, abs=0.01
        )


@pytest.mark.parametrize(
    "place", ["furnace_1.slot_1", "furnace_2.slot_1", "balance.pan", "bench.crucible"]
)
def test_job_takes_its_crucible_from_where_it_stands(
    place: str, tmp_path: Path
) -> None:
    """An abort leaves it anywhere."""
    with open_lab("a-lab", links="memory") as lab:
        lab.carry("crucible_04", place)
        result = lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)

        assert result["sample"]["mass_after_g"] == pytest.approx(2.0, abs=0.01)
        assert result["incidents"] == []
        assert lab.view().location_of("crucible_04") == "rack_1.4"


def heat_chambers(lab: Any, kelvin: float) -> None:
    """Let both furnaces be as hot as after a firing that was given up."""
    for furnace in ("furnace_1", "furnace_2"):
        model = lab.bench.instruments[furnace].chamber._model
        for node in ("element", "lining", "insulation", "crucible", "thermocouple"):
            setattr(model, f"{node}_kelvin", kelvin)


@pytest.mark.parametrize("furnace", ["furnace_1", "furnace_2"])
def test_job_whose_crucible_stands_in_a_hot_furnace_says_what_to_do(
    furnace: str, tmp_path: Path
) -> None:
    """It is not reached into, and nobody is told of an internal error."""
    with open_lab("a-lab", links="memory") as lab:
        lab.carry("crucible_04", f"{furnace}.slot_1")
        heat_chambers(lab, HOT_KELVIN)
        lab.run(iter([bps.sleep(60.0).send(None)]))  # until the controller knows
        told = rf"{furnace} is at [\d.]+ degC; .* Let it cool, then run again"
        with pytest.raises(InterlockError, match=told):
            lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)
        assert lab.view().location_of("crucible_04") == f"{furnace}.slot_1"


@pytest.mark.parametrize(
    ("chamber_degc", "wanted_degc", "is_waited_for"),
    [
        (40.0, 60.0, False),  # nothing keeps it
        (190.0, 300.0, False),  # warm: the arm may go in, the firing gets hotter
        (190.0, 150.0, True),  # hotter than the firing gets
        (600.0, 800.0, True),  # too hot for the arm
    ],
)
def test_job_waits_until_a_hot_furnace_has_cooled(
    chamber_degc: float, wanted_degc: float, is_waited_for: bool, tmp_path: Path
) -> None:
    """One that was given up hot costs the jobs behind it time, and none its sample."""
    asked = GENTLE | {"temperature_degc": wanted_degc}
    with open_lab("a-lab", links="memory") as lab:
        heat_chambers(lab, chamber_degc + 273.15)
        told: list[str] = []
        lab.resources.on_wait = lambda _, text, *__: told.append(text)
        result = lab.run_protocol("fire_sample", tmp_path / "out", **asked)

    assert result["incidents"] == []
    assert any("is put in below" in text for text in told) == is_waited_for
    assert not told or told[-1] == ""


def test_run_alone_tells_that_it_waits_for_a_furnace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever sits at the terminal sees hours of silence explained."""
    with open_lab("a-lab", links="memory") as lab:
        heat_chambers(lab, HOT_KELVIN)
        lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)

    told = r"^furnace_1 is at 62\d degC; crucible_04 is put in below 60 degC$"
    assert re.search(told, capsys.readouterr().err, re.MULTILINE)


def test_carry_that_nobody_watched_is_not_said_to_have_failed(tmp_path: Path) -> None:
    """A busy computer looked at the fingers before and after: they were open."""
    with open_lab("a-lab", links="memory") as lab:
        gripper: Any = lab.devices["gripper"]
        gripper.settings = gripper.settings.model_copy(
            update={"sample_period_s": 1000.0}
        )
        result = lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)

    assert result["incidents"] == []
    assert result["sample"]["mass_after_g"] == pytest.approx(2.0, abs=0.01)


def test_way_that_nobody_knows_is_told_with_what_to_do(tmp_path: Path) -> None:
    """From where no program leads home a person must carry."""
    with open_lab("a-lab", links="memory") as lab:
        lab.carry("crucible_04", "dosing_robot.station")
        with pytest.raises(ConfigurationError, match="add that way to the lab file"):
            lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)


def test_more_runs_than_crucibles_when_a_person_cleans(tmp_path: Path) -> None:
    """What was cleaned in the twin is empty there, and believed to be so."""
    with open_lab("a-lab", links="memory") as lab:
        lab.release("crucible_04")
        lab.refill("CaCO3", 25.0)
        bench: Any = lab.bench

        assert bench.world.containers["crucible_04"].matter.mass_g == 0.0
        assert lab.view().stock_g("CaCO3") == 75.0
        assert bench.world.stock["CaCO3"].mass_g == pytest.approx(75.0, abs=0.01)
        with pytest.raises(LimitError, match="crucible_04 is empty"):
            lab.run_protocol("fire_sample", tmp_path / "out", **GENTLE)
        with pytest.raises(ConfigurationError, match="nothing has run yet"):
            lab.run_protocols([("fire_sample", GENTLE)], tmp_path / "several")


REFUSED: list[tuple[str, tuple[Any, ...], type[PPUError], str]] = [
    ("release", ("crucible_9",), NotFoundError, "no container 'crucible_9'"),
    ("release", ("crucible_1",), NotFoundError, "crucible_01"),
    ("refill", ("BaTiO3", 1.0), LimitError, "no BaTiO3 in stock"),
    ("refill", ("BaCO3", 0.0), LimitError, "give more than 0"),
    ("refill", ("BaCO3", -1.0), LimitError, "give more than 0"),
    ("refill", ("BaCO3", float("nan")), LimitError, "give more than 0"),
    ("refill", ("BaCO3", float("inf")), LimitError, "give more than 0"),
    ("carry", ("crucible_9", "rack_1.1"), NotFoundError, "no container 'crucible_9'"),
    ("carry", ("crucible_01", "rack_9.9"), NotFoundError, "no location 'rack_9.9'"),
    ("carry", ("crucible_01", "rack_1.2"), ConflictError, "crucible_02 is there"),
    ("carry", ("crucible_01", "rack_2.1"), ConflictError, "cannot be put to rack_2.1"),
    ("carry", ("holder_01", "rack_1.1"), ConflictError, "cannot be put to rack_1.1"),
    ("carry", ("holder_01", "balance.pan"), ConflictError, "place for a crucible"),
]


def test_hands_refuse_what_cannot_be_and_change_nothing() -> None:
    """Each says what was given and what there is."""
    with open_lab("a-lab", links="memory") as lab:
        before = lab.view().beliefs()
        for act, arguments, kind, told in REFUSED:
            with pytest.raises(kind, match=told.replace(".", r"\.")):
                getattr(lab, act)(*arguments)
        bench: Any = lab.bench
        truth = bench.world.truth(lab.host.loop.time())["containers"]

        assert lab.view().beliefs() == before == truth
        assert lab.view().stock_g("BaCO3") == 50.0
