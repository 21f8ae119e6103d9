"""Dosing: error statistics, limits of the head, reproducibility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.dosing import (
    COHESIVE,
    FREE_FLOWING,
    POWDER_CLASSES,
    Dose,
    PowderClass,
    dose,
)


def errors_mg(powder: PowderClass, target: float, n: int = 20_000) -> list[float]:
    """Return the errors of *n* unclogged doses of *target* grams."""
    rng = np.random.default_rng(3)
    doses = [dose(target, 10.0, powder, rng) for _ in range(n)]
    return [1e3 * (d.mass_g - target) for d in doses if not d.is_clogged]


@pytest.mark.parametrize("target", [0.1, 0.9])
def test_dose_error_has_the_measured_statistics(target: float) -> None:
    """Mean 1.08 mg, sd 0.93 mg and 6 % negative, whatever the target."""
    errors = np.array(errors_mg(FREE_FLOWING, target))

    assert errors.mean() == pytest.approx(1.08, abs=0.03)
    assert errors.std() == pytest.approx(0.93, abs=0.03)
    assert (errors < 0).mean() == pytest.approx(0.06, abs=0.01)
    assert np.quantile(errors, 0.98) == pytest.approx(3.5, abs=0.3)


def test_cohesive_powder_overshoots_three_times_as_far_and_clogs_at_times() -> None:
    """The feed quantum of a cohesive powder is three times as large."""
    errors = np.array(errors_mg(COHESIVE, 0.5))

    assert errors.mean() == pytest.approx(3.24, abs=0.1)
    assert 20_000 - errors.size == pytest.approx(200, abs=60)


@settings(max_examples=100)
@given(
    st.floats(0.0, 5.0),
    st.floats(0.0, 5.0),
    st.sampled_from(sorted(POWDER_CLASSES)),
    st.integers(0, 2**32),
)
def test_dose_is_never_negative_nor_more_than_the_head_holds(
    target: float, available: float, powder: str, seed: int
) -> None:
    """Mass and time stay physical for any request."""
    result = dose(
        target, available, POWDER_CLASSES[powder], np.random.default_rng(seed)
    )

    assert 0.0 <= result.mass_g <= available
    assert result.duration_s >= 0.0
    assert result.is_exhausted <= (result.mass_g == available)


def test_dose_empties_the_head_and_says_so_when_it_holds_too_little() -> None:
    """A head with less than the target gives all it has."""
    result = dose(1.0, 0.4, FREE_FLOWING, np.random.default_rng(0))

    assert result.mass_g == 0.4
    assert result.is_exhausted


def test_clogged_dose_stops_short_and_changes_no_later_dose() -> None:
    """A clog leaves the dose short, and the next dose is what it would have been."""
    always = PowderClass("always", clogging_probability=1.0)
    never = PowderClass("never")
    first, second = np.random.default_rng(8), np.random.default_rng(8)
    clogged = dose(0.5, 10.0, always, first)
    dose(0.5, 10.0, never, second)

    assert clogged.is_clogged
    assert clogged.mass_g < 0.5
    assert dose(0.5, 10.0, never, first) == dose(0.5, 10.0, never, second)


def test_dose_takes_longer_when_there_is_more_to_feed() -> None:
    """With the same luck ten times the powder takes longer."""
    short, long = (
        dose(target, 10.0, FREE_FLOWING, np.random.default_rng(4)).duration_s
        for target in (0.2, 2.0)
    )

    assert 10.0 < short < 60.0
    assert long > short + 50.0


def test_dose_of_nothing_takes_no_time() -> None:
    """A zero target neither moves nor takes powder."""
    result = dose(0.0, 1.0, FREE_FLOWING, np.random.default_rng(0))

    assert result == Dose(0.0, 0.0, is_clogged=False, is_exhausted=False)


def test_dose_refuses_negative_masses() -> None:
    """Negative requests are mistakes."""
    with pytest.raises(ValueError, match=">= 0"):
        dose(-0.1, 1.0, FREE_FLOWING, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("flow_g_per_s", 0.0), ("setup_s", -1.0), ("clogging_probability", 1.5)],
)
def test_powder_class_refuses_senseless_numbers(name: str, value: float) -> None:
    """Rates are positive and probabilities are probabilities."""
    with pytest.raises(ValueError, match=name):
        PowderClass("odd", **{name: value})
