"""The main job on the twin: what physics decides, and what is conserved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.core.errors import InterlockError, LimitError
from ppu.core.labfile import LabFile
from ppu.core.registry import find_lab
from ppu.plans.protocol import find_protocol
from ppu.plans.steps import StepRecord
from ppu_simulators.physics.matter import Matter, element_fraction_in
from ppu_simulators.world import World


@dataclass(frozen=True)
class Done:
    """A main job that has run, and the world it left behind."""

    result: dict[str, Any]
    matter: Matter
    elements_before: dict[str, float]
    elements_after: dict[str, float]
    page: str
    beliefs: list[tuple[str, dict[str, str | None], dict[str, str | None]]]
    """After each step its name, and where PPU and where the world had containers."""


def lab_content(lab: str = "a-lab") -> dict[str, Any]:
    """Return a bundled lab as plain data."""
    content: dict[str, Any] = yaml.safe_load(find_lab(lab).read_text())
    return content


def run_job(
    parameters: dict[str, Any], content: dict[str, Any] | None = None, seed: int = 0
) -> Done:
    """Run the main job on a twin of the lab *content* describes."""
    file = LabFile.model_validate(content or lab_content())
    lab = OpenLab(file, find_lab("a-lab"), target="twin", pace=None, seed=seed)
    with TemporaryDirectory() as out, lab:
        assert lab.bench is not None
        world = lab.bench.world
        assert isinstance(world, World)
        before = world.elements()
        protocol = find_protocol("solid_state_synthesis")
        execution = Execution(lab, protocol, parameters, Path(out) / "job")
        execution.check()
        beliefs = []

        def compare(step: StepRecord) -> None:
            if step.ended_s is not None:
                truth = {name: item.at for name, item in world.containers.items()}
                beliefs.append((step.label, execution.view.beliefs(), truth))

        lab.host.on_step = compare
        result = execution.run(float)
        holder = world.containers["holder_01"].matter
        page = (Path(out) / "job" / "report.html").read_text()
        after = world.elements()
        return Done(result, holder.copy(), before, after, page, beliefs)


@cache
def demonstration() -> Done:
    """Return the demonstration."""
    return run_job({})


def conversion(done: Done) -> float:
    """Return the part of titanium that truly sits in BaTiO3."""
    return element_fraction_in(done.matter, "Ti", "BaTiO3")


def test_main_job_converts_nearly_all_when_fired_as_in_the_demonstration() -> None:
    """After 5 h at 800 degC over 97 % of the titanium sits in BaTiO3."""
    assert conversion(demonstration()) > 0.97


def test_main_job_converts_a_part_when_fired_for_an_hour() -> None:
    """After 1 h at 800 degC 60 to 85 % are converted, unmilled under half of that."""
    milled = conversion(run_job({"hold_s": 3600.0}))
    unmilled = conversion(run_job({"hold_s": 3600.0, "milling_s": 0.0}))

    assert 0.6 <= milled <= 0.85
    assert unmilled < 0.5 * milled


def test_main_job_conserves_elements_over_the_whole_lab() -> None:
    """Every element is there after the job as before, gas included, to 1e-9."""
    done = demonstration()

    assert done.elements_after == pytest.approx(done.elements_before, rel=1e-9)


def test_main_job_weighs_the_theoretical_loss_when_all_has_reacted() -> None:
    """The loss is 15.9 wt%, within weighing and dosing errors of 0.1."""
    sample = demonstration().result["sample"]

    assert sample["loss_percent"] == pytest.approx(15.876, abs=0.1)
    assert sample["expected_loss_percent"] == pytest.approx(15.876, abs=0.01)


def test_main_job_finds_the_fractions_that_are_there() -> None:
    """Each fraction is within three standard errors of the mounted powder's."""
    done = demonstration()
    truth = done.matter.weight_fractions()
    crystalline = sum(truth.get(p["name"], 0.0) for p in done.result["phases"])

    assert sum(p["weight_fraction"] for p in done.result["phases"]) == pytest.approx(1)
    for phase in done.result["phases"]:
        expected = truth.get(phase["name"], 0.0) / crystalline
        error = abs(phase["weight_fraction"] - expected)
        assert error <= 3 * phase["standard_error"], phase["name"]


@pytest.mark.parametrize("lab", ["a-lab", "a-lab-by-hand"])
def test_main_job_knows_where_every_container_is_after_every_step(lab: str) -> None:
    """What PPU believes equals the world's truth, whoever carries."""
    if lab == "a-lab":
        done = demonstration()
    else:
        done = run_job({"hold_s": 600.0}, lab_content(lab))

    assert len(done.beliefs) > 20
    for label, believed, truth in done.beliefs:
        assert believed == truth, label
    assert done.result["incidents"] == []


def test_main_job_is_the_same_firing_when_the_furnace_is_exchanged() -> None:
    """The other controller, on another wire and with no door, fires the same."""
    one, other = demonstration().result, run_job({"furnace": "furnace_2"}).result

    for key in ("temperature_degc", "highest_temperature_degc"):
        expected = one["parameters_actual"][key]
        assert other["parameters_actual"][key] == pytest.approx(expected, abs=2.0)
    assert other["parameters_actual"]["hold_s"] == pytest.approx(18000, abs=30)
    assert other["incidents"] == []
    assert other["confidence"] == "high"


def test_main_job_meets_no_incident_when_nothing_is_wrong() -> None:
    """The demonstration ends without an incident and with confidence."""
    result = demonstration().result

    assert result["incidents"] == []
    assert result["confidence"] == "high"


def test_report_stands_alone_and_is_watermarked_when_simulated() -> None:
    """The page fetches nothing, runs nothing and says that it is simulated."""
    page = demonstration().page

    assert "Simulated: no real sample" in page
    assert 'class="watermark"' in page
    assert "<script" not in page
    assert "src=" not in page
    assert 'href="http' not in page
    for heading in ("Phases", "Diffraction pattern", "Doses", "Mass balance"):
        assert f"<h2>{heading}</h2>" in page
    for heading in ("Timeline", "Temperatures", "Incidents", "Parameters"):
        assert f"<h2>{heading}</h2>" in page


def test_inner_steps_stand_below_the_long_one_in_the_timeline() -> None:
    """Set in by a blank that a browser keeps, and not by the name of one."""
    page = demonstration().page

    assert ">weigh in: crucible_01<" in page
    assert ">\N{EM SPACE}tare balance: balance<" in page
    assert "\\u" not in page


def test_fluffy_powder_spills_and_is_an_incident_when_denser_is_declared() -> None:
    """PPU cannot know that a powder is fluffier than declared; the world records it."""
    content = lab_content()
    for powder in ("BaCO3", "TiO2"):
        content["stock"][powder]["twin"] = {"bulk_density_g_per_ml": 0.12}

    done = run_job({"hold_s": 60.0, "temperature_degc": 100.0}, content)

    kinds = {incident["kind"] for incident in done.result["incidents"]}
    assert kinds == {"spill"}
    assert done.elements_after == pytest.approx(done.elements_before, rel=1e-9)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"temperature_degc": 1400.0}, "1400 degC, allowed are 0 to 1100"),
        ({"ramp_degc_per_min": 20.0}, "20 degC/min"),
        ({"batch_mass_g": 30.0}, "crucible_01 holds 20 mL"),
        ({"batch_mass_g": 90.0}, "in stock are 50 g"),
        ({"precursors": ["BaCO3", "TiO2-rutile"]}, "no TiO2-rutile in stock"),
        ({"scan_stop_deg": 155.0}, "155"),
        ({"milling_s": 5000.0}, "5000"),
    ],
)
def test_main_job_is_refused_before_anything_moves_when_the_lab_forbids_it(
    parameters: dict[str, Any], said: str
) -> None:
    """What PPU can know is refused beforehand, with what is allowed."""
    file = LabFile.model_validate(lab_content())
    lab = OpenLab(file, find_lab("a-lab"), target="twin", pace=None)
    with TemporaryDirectory() as out, lab:
        protocol = find_protocol("solid_state_synthesis")
        execution = Execution(lab, protocol, parameters, Path(out) / "job")
        connected = lab.host.loop.time()
        with pytest.raises(LimitError, match=said):
            execution.check()
        assert lab.host.loop.time() < connected + 1.0


def test_main_job_stops_before_dosing_when_the_crucible_is_not_empty() -> None:
    """Powder left in a crucible that should be empty is found by weighing it."""
    content = lab_content()
    content["containers"]["crucible_01"]["twin"] = {"tare_g": 18.3}
    file = LabFile.model_validate(content)
    lab = OpenLab(file, find_lab("a-lab"), target="twin", pace=None)
    with TemporaryDirectory() as out, lab:
        protocol = find_protocol("solid_state_synthesis")
        execution = Execution(lab, protocol, {}, Path(out) / "job")
        execution.check()
        with pytest.raises(
            InterlockError, match=r"weighs \+0\.(0999|1000|1001) g more"
        ):
            execution.run(float)
