"""Quantification of patterns whose truth is known, and doubt where it is due."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ppu_protocols.analysis.absorption import GrainSize
from ppu_protocols.analysis.cif import Phase, load_phase, read_cif
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.pattern import (
    ProfileGrid,
    Widths,
    line_list,
    lorentz_polarization,
)
from ppu_protocols.analysis.quantify import Quantification, has_lines, quantify
from ppu_protocols.analysis.scan import Scan
from ppu_protocols.analysis.xrdml import read_xrdml

DATA = Path(__file__).parents[3] / "data" / "xrd"
WIDTHS = Widths(1e-6, 5e-7, 5e-4, 3e-4, 5e-5)
SHARES = {"BaTiO3": 0.6, "BaCO3": 0.3, "TiO2-rutile": 0.1}


def powder(
    shares: dict[str, float],
    *,
    n_counts: float = 3e6,
    shift_deg: float = 0.0,
    start: float = 15.0,
    end: float = 90.0,
    seed: int = 0,
) -> Scan:
    """Return a scan of a perfect powder with Poisson noise.

    One wavelength, no texture, no displacement: enough to test the arithmetic. What
    real and realistically simulated powders do is tested elsewhere.
    """
    step = 0.02
    n_points = round((end - start) / step)
    grid = ProfileGrid(start, step, n_points)
    x = start + step * np.arange(n_points)
    total = np.zeros(n_points)
    for name, share in shares.items():
        phase = load_phase(name)
        lines = line_list(phase, 1.540598, 0.95, 20.0)
        two_theta = 2.0 * np.degrees(np.arcsin(1.540598 / (2.0 * lines.d)))
        area = lines.line_intensity * lorentz_polarization(two_theta)
        area *= share / (phase.mass * phase.volume)
        spread = grid.spread(two_theta + shift_deg)
        total += grid.pattern(grid.transform(spread, area) * grid.kernel(WIDTHS))
    mean = 200.0 + 3000.0 / x
    if shares:
        mean = mean + n_counts * total / total.sum()
    counts = np.random.default_rng(seed).poisson(mean)
    return replace(Scan.from_counts(x, counts), k_alpha_ratio=0.0)


FINE = GrainSize(0.01, 1.0)
"""Grains that throw no shade, as those of `powder`."""


def quantify_fine(scan: Scan, phases: list[Phase]) -> Quantification:
    """Return the analysis of a powder of the finest grains."""
    return quantify(scan, phases, grains={phase.name: FINE for phase in phases})


def candidates(*names: str) -> list[Phase]:
    """Return bundled phases, those of SHARES if none is named."""
    return [load_phase(name) for name in names or tuple(SHARES)]


def fractions(result: Quantification) -> dict[str, float]:
    """Return weight fractions by name."""
    return {phase.name: phase.weight_fraction for phase in result.phases}


@cache
def real_zinc_indium() -> Quantification:
    """Return the analysis of the weighed mixture of ZnO and In2O3."""
    phases = [read_cif(DATA / f"{name}.cif") for name in ("zno_p1", "in2o3")]
    return quantify(read_xrdml(DATA / "zno_in2o3.xrdml"), phases)


def test_quantify_returns_the_weighed_fractions_when_the_scan_is_real() -> None:
    """ZnO 40.0 and In2O3 60.0 wt% come out within 5 wt%, with confidence."""
    result = real_zinc_indium()

    assert fractions(result)["zno_p1"] == pytest.approx(0.4000, abs=0.05)
    assert fractions(result)["in2o3"] == pytest.approx(0.6000, abs=0.05)
    assert result.confidence == "high"
    assert result.confidence_reasons == ()


def test_quantify_describes_a_real_scan_almost_to_the_noise() -> None:
    """The whole pattern of a real mixture fits to Rwp below 6 %."""
    fit = real_zinc_indium().fit

    assert fit.r_wp < 0.06
    assert 1.0 < fit.goodness_of_fit < 2.0


def test_quantify_is_right_or_doubtful_when_a_real_powder_is_textured() -> None:
    """V2O5 lies flat: 30.1 wt% within 5, or low confidence; the axis is 001."""
    names = ("v2o5", "anatase")
    phases = [read_cif(DATA / f"{name}.cif") for name in names]
    result = quantify(
        read_xrdml(DATA / "v2o5_tio2.xrdml"), [*phases, load_phase("TiO2-rutile")]
    )
    found = {phase.name: phase for phase in result.phases}

    is_right = abs(found["v2o5"].weight_fraction - 0.3011) < 0.05
    assert is_right or result.confidence == "low"
    assert found["v2o5"].texture_axis == (0, 0, 1)
    assert found["v2o5"].texture_r < 0.9


def test_quantify_returns_the_fractions_when_the_powder_is_perfect() -> None:
    """Shares of a perfect powder come out within 1 wt%, largest first, sum 1."""
    result = quantify_fine(powder(SHARES), candidates())

    assert [phase.name for phase in result.phases] == list(SHARES)
    assert sum(fractions(result).values()) == pytest.approx(1.0)
    for name, share in SHARES.items():
        assert fractions(result)[name] == pytest.approx(share, abs=0.01)
    assert result.confidence == "high"


def test_quantify_gives_curves_that_add_up_to_the_model() -> None:
    """Background and the curves of the phases are the calculated pattern."""
    scan = powder(SHARES)
    result = quantify(scan, candidates())

    total = result.background + sum(result.curves.values())
    np.testing.assert_allclose(result.calculated, total)
    assert result.calculated.shape == scan.two_theta.shape
    assert set(result.curves) == set(result.line_positions) == set(SHARES)


def test_quantify_gives_the_same_result_when_called_again() -> None:
    """Nothing in the analysis is random or remembered."""
    scan = powder(SHARES)

    first, second = (quantify(scan, candidates()) for _ in range(2))

    assert first.phases == second.phases


def test_quantify_does_not_depend_on_the_order_of_candidates() -> None:
    """Candidates are a set."""
    scan = powder(SHARES)

    forward = fractions(quantify(scan, candidates()))
    backward = fractions(quantify(scan, candidates()[::-1]))

    assert backward == pytest.approx(forward, abs=2e-3)


def test_quantify_finds_next_to_nothing_of_a_candidate_that_is_absent() -> None:
    """An absent candidate gets less than two of its standard errors."""
    result = quantify(powder(SHARES), candidates(*SHARES, "CaO"))
    absent = next(phase for phase in result.phases if phase.name == "CaO")

    assert absent.weight_fraction < 2.0 * absent.standard_error
    assert result.confidence == "high"


def test_quantify_states_larger_errors_when_counts_are_few() -> None:
    """Noise shows in the part of counting, and makes the whole larger."""
    long, short = (
        quantify(powder(SHARES, n_counts=n), candidates()) for n in (3e6, 3e4)
    )

    for name in SHARES:
        parts = [r.error_budget[0].standard_errors[name] for r in (short, long)]
        errors = [
            next(p.standard_error for p in result.phases if p.name == name)
            for result in (short, long)
        ]
        assert short.error_budget[0].name == "counting and fit"
        assert parts[0] > 1.5 * parts[1]
        assert errors[0] > errors[1]


def test_quantify_works_when_points_are_uneven_and_some_are_missing() -> None:
    """A gap in the scan is left out, not filled with invented counts."""
    scan = powder(SHARES)
    kept = (scan.two_theta < 33.0) | (scan.two_theta > 37.0)
    cut = replace(
        scan,
        two_theta=scan.two_theta[kept],
        counts=scan.counts[kept],
        variance=scan.variance[kept],
    )

    result = quantify(cut, candidates())

    for name, share in SHARES.items():
        assert fractions(result)[name] == pytest.approx(share, abs=0.015)


def doubts(scan: Scan, phases: list[Phase]) -> str:
    """Return the reasons for low confidence in one string."""
    result = quantify(scan, phases)
    assert (result.confidence == "low") == bool(result.confidence_reasons)
    return " ".join(result.confidence_reasons)


def test_quantify_doubts_when_a_phase_is_missing_from_the_candidates() -> None:
    """Peaks that nothing explains are reported with their angles."""
    reasons = doubts(powder(SHARES), candidates("BaTiO3", "BaCO3"))

    assert "27.5" in reasons
    assert "missing from the candidates" in reasons


def test_quantify_doubts_when_the_holder_is_empty() -> None:
    """Background alone is not a powder, and nothing is claimed to be known."""
    result = quantify(powder({}), candidates())

    assert result.confidence == "low"
    assert "No peak stands above the background" in result.confidence_reasons[0]
    assert min(phase.standard_error for phase in result.phases) >= 0.5
    assert sum(fractions(result).values()) == pytest.approx(1.0)


def test_quantify_doubts_when_there_is_not_one_count() -> None:
    """A scan of zeros is an answer, not a crash."""
    scan = replace(powder({}), counts=np.zeros(3750), variance=np.ones(3750))

    assert "No peak stands above the background" in doubts(scan, candidates())


@pytest.mark.parametrize("shift_deg", [-3.0, 3.0])
def test_quantify_doubts_and_names_the_zero_when_all_angles_are_off(
    shift_deg: float,
) -> None:
    """A zero error of 3 deg is recognized for what it is."""
    reasons = doubts(powder(SHARES, shift_deg=shift_deg), candidates())

    assert f"off by {shift_deg:+.1f}" in reasons
    assert "check the zero of the goniometer" in reasons


@pytest.mark.parametrize("shift_deg", [-1.5, -0.7, -0.3, 0.3, 0.7, 1.5])
def test_quantify_measures_the_misalignment_when_all_angles_are_off(
    shift_deg: float,
) -> None:
    """A zero error is told to 0.03 deg if the sample lies where it should."""
    result = quantify(powder(SHARES, shift_deg=shift_deg), candidates())

    assert result.misalignment_deg == pytest.approx(shift_deg, abs=0.03)
    assert f"off by {shift_deg:+.1f}" in " ".join(result.alignment)


def test_quantify_gives_sound_fractions_when_the_alignment_is_off_a_little() -> None:
    """Half a degree is a message about the instrument, not a doubt about fractions."""
    result = quantify_fine(powder(SHARES, shift_deg=0.5), candidates())

    for name, share in SHARES.items():
        assert fractions(result)[name] == pytest.approx(share, abs=0.01)
    assert result.alignment
    assert result.confidence == "high"


def test_quantify_suspects_no_misalignment_when_the_sample_is_a_little_high() -> None:
    """A real sample 0.24 mm off the axis is told from a zero error."""
    result = real_zinc_indium()

    assert result.displacement_mm == pytest.approx(-0.24, abs=0.02)
    assert result.misalignment_deg is None


def test_quantify_suspects_no_misalignment_when_the_candidates_are_wrong() -> None:
    """Peaks of other phases are not fitted by moving the goniometer."""
    result = quantify(powder(SHARES), candidates("CaCO3", "CaO"))

    assert result.confidence == "low"
    assert result.misalignment_deg is None


def test_quantify_doubts_when_the_sample_is_far_off_the_axis() -> None:
    """A shift that displacement can explain is fitted, but reported."""
    result = quantify(powder(SHARES, shift_deg=0.5), candidates())

    assert "mm off the axis of the goniometer" in " ".join(result.alignment)


def test_quantify_doubts_when_two_candidates_are_alike() -> None:
    """The same structure under two names cannot be divided."""
    twin = replace(load_phase("BaTiO3"), name="twin")

    assert "cannot be told apart" in doubts(powder(SHARES), [*candidates(), twin])


def test_quantify_doubts_when_the_strong_lines_were_not_scanned() -> None:
    """Weak lines alone do not make a confident answer."""
    reasons = doubts(powder(SHARES, start=60.0), candidates())

    assert "strong lines of BaTiO3 lie outside the range" in reasons


def test_quantify_doubts_when_a_candidate_has_no_line_in_range() -> None:
    """A candidate that the scan cannot see is named."""
    scan = powder(SHARES, start=15.0, end=26.0)

    assert "TiO2-rutile has no line in the range" in doubts(scan, candidates())


def test_quantify_doubts_when_the_cell_does_not_belong_to_the_phase() -> None:
    """A cell that must change by 1 % is another composition."""
    phase = load_phase("BaTiO3")
    a, b, c, alpha, beta, gamma = phase.cell
    larger = (a * 1.01, b * 1.01, c * 1.01, alpha, beta, gamma)
    swollen = replace(phase, cell=larger)

    reasons = doubts(powder(SHARES), [swollen, *candidates("BaCO3", "TiO2-rutile")])

    assert "The cell of BaTiO3 had to change by 1.0 %" in reasons


def test_quantify_refuses_when_there_is_nothing_to_choose_from() -> None:
    """Without candidates, or with two of one name, there is no question."""
    scan = powder(SHARES)

    for phases in ([], candidates("CaO", "CaO")):
        with pytest.raises(AnalysisError, match="1 to 12 with different names"):
            quantify(scan, phases)


def test_quantify_refuses_when_no_candidate_has_a_line_in_range() -> None:
    """A range without any line is refused with the range."""
    with pytest.raises(AnalysisError, match=r"between 15 and 19\.98 deg"):
        quantify(powder(SHARES, end=20.0), candidates("CaO"))


def test_phase_has_no_lines_when_the_scan_ends_before_its_first() -> None:
    """What a scan cannot show is known before it is measured."""
    assert has_lines(load_phase("CaO"), 10.0, 100.0)
    assert not has_lines(load_phase("CaO"), 10.0, 20.0)
