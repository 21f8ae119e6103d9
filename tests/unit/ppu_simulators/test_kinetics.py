"""Rate laws: published values, identities, exact integration."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.kinetics import LAWS, arrhenius

law_names = st.sampled_from(sorted(LAWS))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("F1", 0.69315),
        ("A2", 0.83255),
        ("A3", 0.88500),
        ("R2", 0.29289),
        ("R3", 0.20630),
        ("D1", 0.25),
        ("D2", 0.15343),
        ("D3", 0.04256),
        ("D4", 0.03671),
    ],
)
def test_g_has_its_known_value_at_half_conversion(name: str, expected: float) -> None:
    """g(0.5) of each law is the published value."""
    assert LAWS[name].g(0.5) == pytest.approx(expected, abs=6e-6)


@settings(max_examples=200)
@given(law_names, st.floats(1e-6, 0.9999))
def test_f_is_one_over_the_slope_of_g(name: str, conversion: float) -> None:
    """f(alpha) g'(alpha) = 1, so both forms are the same law."""
    law = LAWS[name]
    h = 1e-4 * min(conversion, 1.0 - conversion)
    slope = (law.g(conversion + h) - law.g(conversion - h)) / (2.0 * h)

    assert law.f(conversion) * slope == pytest.approx(1.0, rel=1e-6)


@settings(max_examples=300)
@given(law_names, st.floats(1e-9, 1.0, exclude_max=True))
def test_inverse_undoes_g(name: str, conversion: float) -> None:
    """inverse(g(alpha)) is alpha, at small conversions too."""
    law = LAWS[name]
    if conversion > 1.0 - 1e-6:  # alpha is not a function of a rounded g up there
        assert law.inverse(law.g(conversion)) == pytest.approx(conversion, abs=1e-6)
    else:
        assert law.inverse(law.g(conversion)) == pytest.approx(conversion, rel=1e-7)


@settings(max_examples=200)
@given(law_names, st.floats(0.0, 0.99), st.floats(0.0, 1e-2), st.integers(1, 20))
def test_advance_does_not_depend_on_step_size(
    name: str, start: float, rate: float, n_steps: int
) -> None:
    """One step and many short ones reach the same conversion."""
    law = LAWS[name]
    stepped = start
    for _ in range(n_steps):
        stepped = law.advance(stepped, rate, 30.0 / n_steps)

    assert stepped == pytest.approx(law.advance(start, rate, 30.0), rel=1e-6, abs=1e-7)
    assert start - 1e-12 <= stepped <= 1.0


@pytest.mark.parametrize("name", ["R2", "R3", "D1", "D2", "D3", "D4"])
def test_advance_ends_at_full_conversion_in_finite_time(name: str) -> None:
    """Contracting and diffusion laws complete, and stay complete."""
    law = LAWS[name]

    assert law.advance(0.5, 1.0, 1.0) == 1.0
    assert law.advance(1.0, 1.0, 1.0) == 1.0
    assert law.advance(0.0, 0.99 * law.g_end, 1.0) < 1.0


def test_arrhenius_rises_by_e_when_e_over_rt_falls_by_one() -> None:
    """The Arrhenius factor is exp(-E/RT) with R = 8.314 J/mol/K."""
    assert arrhenius(2.0, 8.31446 * 1000.0, 1000.0) == pytest.approx(2.0 / math.e)
