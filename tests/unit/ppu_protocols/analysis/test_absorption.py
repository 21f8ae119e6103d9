"""Absorption of X-rays, and the shade that grains throw, against published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ppu_protocols.analysis.absorption import (
    GrainSize,
    brindley_factor,
    linear_absorption,
    shading,
)
from ppu_protocols.analysis.cif import load_phase

COPPER = 1.5418


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BaTiO3", 1427.0),
        ("BaCO3", 995.0),
        ("TiO2-rutile", 528.0),
        ("Co3O4", 1457.0),
        ("Y2O3", 504.0),
        ("CuO", 276.0),
        ("CaCO3", 201.0),
        ("Al2O3", 126.0),
        ("Li2CO3", 17.0),
    ],
)
def test_absorption_is_that_of_the_tables(name: str, expected: float) -> None:
    """Linear coefficients agree with tabulated ones and handbook densities to 3 %."""
    found = linear_absorption(load_phase(name), COPPER)

    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("u", "expected"),
    [(-0.6, 1.579), (-0.2, 1.163), (0.04, 0.971), (0.1, 0.928), (1.0, 0.482)],
)
def test_factor_is_that_of_a_sphere(u: float, expected: float) -> None:
    """The closed form and its series agree with the table of Brindley's integral."""
    assert brindley_factor(np.array([u]))[0] == pytest.approx(expected, abs=6e-4)


def test_factor_is_smooth_where_series_and_closed_form_meet() -> None:
    """Neither has a step at the border."""
    below, above = brindley_factor(np.array([0.05 - 1e-9, 0.05 + 1e-9]))

    assert below == pytest.approx(above, abs=1e-6)


@pytest.mark.parametrize(
    ("diameter_um", "apparent"),
    [
        (1.0, (0.640, 0.254, 0.105)),
        (3.0, (0.620, 0.263, 0.117)),
    ],
)
def test_published_bias_is_undone(
    diameter_um: float, apparent: tuple[float, float, float]
) -> None:
    """BaTiO3/BaCO3/TiO2 of 65/25/10 come back from what grains make of them."""
    phases = [load_phase(name) for name in ("BaTiO3", "BaCO3", "TiO2-rutile")]
    seen = np.array(apparent) / sum(apparent)

    shaded = shading(
        seen,
        np.array([linear_absorption(phase, COPPER) for phase in phases]),
        np.array([phase.density for phase in phases]),
        [GrainSize(diameter_um, 1.0)] * 3,
    )
    true = seen / shaded.factors

    np.testing.assert_allclose(true / true.sum(), [0.65, 0.25, 0.10], atol=0.004)


def test_unknown_sizes_make_the_correction_unsure() -> None:
    """A wider range of sizes gives a larger spread, and none for equal absorbers."""
    absorption, density = np.array([1400.0, 500.0]), np.array([6.0, 4.2])
    apparent = np.array([0.6, 0.4])

    def spread(factor: float) -> np.ndarray:
        return shading(
            apparent, absorption, density, [GrainSize(1.0, factor)] * 2
        ).spread

    same = shading(apparent, absorption * 0 + 500.0, density, [GrainSize(5.0, 3.0)] * 2)

    assert (spread(3.0) > 1.5 * spread(1.5)).all()
    np.testing.assert_allclose(same.factors, 1.0)
    np.testing.assert_allclose(same.spread, 0.0, atol=1e-12)


def test_very_coarse_grains_do_not_run_away() -> None:
    """Half a millimetre of a strong absorber ends at bounded factors."""
    shaded = shading(
        np.array([0.5, 0.5]),
        np.array([1900.0, 17.0]),
        np.array([6.0, 2.1]),
        [GrainSize(500.0, 2.0)] * 2,
    )

    assert np.isfinite(shaded.factors).all()
    assert shaded.factors.max() < 10.0
    assert shaded.factors.min() > 0.05


@pytest.mark.parametrize(
    ("diameter_um", "factor"), [(0.0, 2.0), (1.0, 0.5), (-1.0, 2.0)]
)
def test_impossible_size_is_refused(diameter_um: float, factor: float) -> None:
    """A diameter is positive, and a factor at least 1."""
    with pytest.raises(ValueError, match="a diameter above 0"):
        GrainSize(diameter_um, factor)
