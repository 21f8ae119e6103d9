"""Calculated patterns against published values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import voigt_profile

from ppu_protocols.analysis.absorption import linear_absorption
from ppu_protocols.analysis.cif import Phase, load_phase, parse_cif, read_cif
from ppu_protocols.analysis.pattern import (
    ProfileGrid,
    Widths,
    line_list,
    lorentz_polarization,
    reference_intensity_ratio,
    texture_factor,
)

DATA = Path(__file__).parents[3] / "data" / "xrd"
K_ALPHA_1 = 1.5405929
"""Copper K-alpha 1 to which the certified positions refer [Å]."""


def structure(
    lengths: tuple[float, float, float], gamma: float, group: str, *sites: str
) -> Phase:
    """Return a structure with right angles but *gamma*."""
    text = "data_x\n" + "".join(
        f"_cell_length_{axis} {length}\n"
        for axis, length in zip("abc", lengths, strict=True)
    )
    text += f"_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma {gamma}\n"
    text += f"_space_group_name_H-M_alt '{group}'\n"
    text += "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n"
    text += "_atom_site_fract_z\n_atom_site_B_iso_or_equiv\n" + "\n".join(sites)
    return parse_cif(text + "\n", name="x", source="x")


def silicon() -> Phase:
    """Return SRM 640f."""
    return structure((5.431144,) * 3, 90, "F d -3 m :1", "Si1 0 0 0 0.5")


def corundum() -> Phase:
    """Return SRM 676a."""
    return structure(
        (4.7590914, 4.7590914, 12.991779),
        120,
        "R -3 c :H",
        "Al1 0 0 0.35216 0.2",
        "O1 0.30624 0 0.25 0.25",
    )


def lanthanum_hexaboride() -> Phase:
    """Return SRM 660c."""
    return structure(
        (4.156826,) * 3, 90, "P m -3 m", "La1 0 0 0 0.4", "B1 0.1975 .5 .5 0.4"
    )


def strong_lines(phase: Phase) -> dict[tuple[int, int, int], tuple[float, float]]:
    """Return angle [deg] and intensity (strongest = 100) by indices."""
    lines = line_list(phase, K_ALPHA_1, 0.9, 20.0)
    two_theta = 2.0 * np.degrees(np.arcsin(K_ALPHA_1 / (2.0 * lines.d)))
    intensity = lines.line_intensity * lorentz_polarization(two_theta)
    intensity *= 100.0 / intensity.max()
    found = {}
    for hkl, index in zip(lines.hkl, lines.line_index, strict=True):
        key = (int(hkl[0]), int(hkl[1]), int(hkl[2]))
        found[key] = (float(two_theta[index]), float(intensity[index]))
    return found


@pytest.mark.parametrize(
    ("phase", "positions"),
    [
        (
            silicon(),
            {(1, 1, 1): 28.441, (2, 2, 0): 47.301, (3, 1, 1): 56.120,
             (4, 0, 0): 69.127, (3, 3, 1): 76.373, (4, 2, 2): 88.026,
             (5, 1, 1): 94.947, (4, 4, 0): 106.702, (5, 3, 1): 114.085},
        ),
        (
            lanthanum_hexaboride(),
            {(1, 0, 0): 21.358, (1, 1, 0): 30.385, (1, 1, 1): 37.442,
             (2, 1, 0): 48.958, (3, 1, 0): 71.747, (3, 2, 1): 87.794},
        ),
        (
            corundum(),
            {(0, 1, 2): 25.576, (1, 0, 4): 35.150, (1, 1, 3): 43.353,
             (1, 1, 6): 57.500, (3, 0, 0): 68.207},
        ),
    ],
    ids=["SRM 640f", "SRM 660c", "SRM 676a"],
)  # fmt: skip
def test_lines_lie_where_certified_standards_have_them(
    phase: Phase, positions: dict[tuple[int, int, int], float]
) -> None:
    """Silicon, LaB6 and corundum agree with their certificates to 0.001 deg."""
    found = strong_lines(phase)

    for hkl, two_theta in positions.items():
        assert found[hkl][0] == pytest.approx(two_theta, abs=1.1e-3)


def test_zinc_oxide_has_the_certified_intensities() -> None:
    """SRM 674: 100 and 002 against 101 within three certified standard errors."""
    found = strong_lines(read_cif(DATA / "zno_p1.cif"))

    assert found[1, 0, 1][1] == pytest.approx(100.0)
    assert found[1, 0, 0][1] == pytest.approx(57.6, abs=3 * 1.1)
    assert found[0, 0, 2][1] == pytest.approx(40.2, abs=3 * 1.4)


def test_rutile_has_the_certified_intensities() -> None:
    """SRM 674: 211 and 101 against 110 within three certified standard errors."""
    found = strong_lines(load_phase("TiO2-rutile"))

    assert found[1, 1, 0][1] == pytest.approx(100.0)
    assert found[2, 1, 1][1] == pytest.approx(56.9, abs=3 * 2.8)
    assert found[1, 0, 1][1] == pytest.approx(44.0, abs=3 * 1.7)


def test_corundum_has_the_certified_intensities() -> None:
    """SRM 674: 116 and 104 within what neutral form factors allow."""
    found = strong_lines(corundum())

    assert found[1, 1, 6][1] / found[1, 1, 3][1] == pytest.approx(0.925, rel=0.12)
    assert found[1, 0, 4][1] / found[1, 1, 3][1] == pytest.approx(0.874, rel=0.15)


@pytest.mark.parametrize(
    ("phase", "ratio", "tolerance"),
    [
        (read_cif(DATA / "zno_p1.cif"), 5.17, 3 * 0.13),
        (load_phase("TiO2-rutile"), 3.39, 3 * 0.12),
    ],
    ids=["ZnO", "rutile"],
)
def test_intensity_over_corundum_is_the_certified_one(
    phase: Phase, ratio: float, tolerance: float
) -> None:
    """SRM 674; without anomalous dispersion ZnO would give 6.6 instead of 5.17."""
    assert reference_intensity_ratio(phase, corundum(), 1.5405929) == pytest.approx(
        ratio, abs=tolerance
    )


def test_absorption_agrees_with_tables() -> None:
    """Silicon at copper K-alpha: 144 per cm (International Tables C, 4.2.4.3)."""
    assert linear_absorption(silicon(), 1.54184) == pytest.approx(144.0, rel=0.05)


def test_lines_vanish_where_the_lattice_forbids_them() -> None:
    """Silicon has no 100, 110 or 200."""
    found = strong_lines(silicon())

    assert not {(1, 0, 0), (1, 1, 0), (2, 0, 0)} & set(found)


def test_lines_are_the_same_when_the_cell_is_doubled() -> None:
    """A supercell without distortion gives the pattern of the simple cell."""
    simple = structure((4.0, 4.0, 4.0), 90, "P 1", "Ca1 0 0 0 .5", "O1 .5 .5 .5 .5")
    double = structure(
        (4.0, 4.0, 8.0),
        90,
        "P 1",
        "Ca1 0 0 0 .5",
        "O1 .5 .5 .25 .5",
        "Ca2 0 0 .5 .5",
        "O2 .5 .5 .75 .5",
    )

    first, second = (line_list(p, 1.54, 1.0, 20.0) for p in (simple, double))

    np.testing.assert_allclose(second.d, first.d, rtol=1e-9)
    np.testing.assert_allclose(
        second.line_intensity, 4.0 * first.line_intensity, rtol=1e-6
    )


@given(r=st.floats(0.3, 2.0))
@settings(max_examples=20)
def test_texture_keeps_the_sphere_of_normals(r: float) -> None:
    """March-Dollase over all directions averages to one: texture moves, not makes."""
    x = np.linspace(0.0, 1.0, 4001) ** 2  # cos² for evenly spread directions

    gain = (r * r * x + (1.0 - x) / r) ** -1.5

    assert np.trapezoid(gain, np.sqrt(x)) == pytest.approx(1.0, rel=1e-3)


def test_texture_factor_is_one_along_the_axis_and_zero_across() -> None:
    """Plane normals are compared in the reciprocal lattice, not by indices."""
    hkl = np.array([[0, 0, 2], [1, 0, 0], [1, 0, 1]])
    factors = texture_factor(hkl, (4.0, 4.0, 6.0, 90, 90, 90), (0, 0, 1))

    expected = (1 / 36) / (1 / 36 + 1 / 16)
    np.testing.assert_allclose(factors, [1.0, 0.0, expected], atol=1e-12)


WIDTHS = Widths(
    gauss_constant=math.radians(0.03) ** 2,
    gauss_tangent=math.radians(0.02) ** 2,
    size=math.radians(0.04),
    strain=math.radians(0.03),
    axial=0.0,
)


def direct_sum(
    x: NDArray[Any], lines: NDArray[Any], areas: NDArray[Any]
) -> NDArray[np.float64]:
    """Return Voigt profiles added one by one, averaged over each step."""
    step = x[1] - x[0]
    total = np.zeros_like(x)
    for line, area in zip(lines, areas, strict=True):
        theta = math.radians(line / 2.0)
        sigma = math.degrees(
            math.sqrt(
                WIDTHS.gauss_constant + WIDTHS.gauss_tangent * math.tan(theta) ** 2
            )
        )
        gamma = math.degrees(
            WIDTHS.size / math.cos(theta) + WIDTHS.strain * math.tan(theta)
        )
        for part in (np.arange(8) + 0.5) / 8.0 - 0.5:
            total += area / 8.0 * voigt_profile(x - line + part * step, sigma, gamma)
    return total


@given(
    lines=st.lists(st.floats(12.0, 118.0), min_size=1, max_size=8, unique=True),
)
@settings(max_examples=15)
def test_profiles_agree_with_voigt_functions_added_one_by_one(
    lines: list[float],
) -> None:
    """The Fourier sum is right to 0.2 % of the highest peak at any place."""
    grid = ProfileGrid(10.0, 0.02, 5500)
    x = 10.0 + 0.02 * np.arange(5500)
    places = np.array(lines)
    areas = np.linspace(1.0, 2.0, places.size)

    pattern = grid.pattern(
        grid.transform(grid.spread(places), areas) * grid.kernel(WIDTHS)
    )

    expected = direct_sum(x, places, areas)
    assert np.abs(pattern - expected).max() < 2e-3 * expected.max()


def test_profile_derivatives_agree_with_differences() -> None:
    """Each derivative by a width is the slope of the pattern."""
    grid = ProfileGrid(10.0, 0.02, 2000)
    widths = Widths(1e-6, 1e-6, 5e-4, 4e-4, 5e-5)
    spread = grid.spread(np.array([15.0, 27.3, 44.4]))
    plain = grid.transform(spread, np.array([1.0, 2.0, 1.0]))
    slopes = grid.width_derivatives(plain * grid.kernel(widths), widths)

    for name, slope in slopes.items():
        value = getattr(widths, name)
        ahead, behind = (
            grid.pattern(
                plain * grid.kernel(Widths(**{**vars(widths), name: value * factor}))
            )
            for factor in (1.001, 0.999)
        )
        difference = (ahead - behind) / (0.002 * value)
        assert np.abs(slope - difference).max() < 1e-4 * np.abs(slope).max(), name


def test_axial_divergence_pulls_low_lines_to_lower_angles() -> None:
    """Below 90 deg the tail is on the low side and keeps the area."""
    grid = ProfileGrid(10.0, 0.02, 1000)
    x = 10.0 + 0.02 * np.arange(1000)
    plain = grid.transform(grid.spread(np.array([20.0])), np.array([1.0]))
    narrow = Widths(1e-6, 0.0, 1e-4, 0.0, 0.0)
    skewed = Widths(1e-6, 0.0, 1e-4, 0.0, 2e-4)

    symmetric, tailed = (
        grid.pattern(plain * grid.kernel(widths)) for widths in (narrow, skewed)
    )

    assert tailed.sum() == pytest.approx(symmetric.sum(), rel=1e-3)
    shift = (tailed @ x / tailed.sum()) - (symmetric @ x / symmetric.sum())
    assert shift == pytest.approx(
        -math.degrees(2e-4) / math.tan(math.radians(20)), rel=0.05
    )
