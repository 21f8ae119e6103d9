"""Frozen detectors are told from sound ones by counting statistics alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_drivers.panalytical_aeris import find_frozen

SEEDS = st.integers(0, 2**32 - 1)
SCAN = settings(max_examples=40)


def sound(seed: int, mean: float, n_points: int = 4000) -> np.ndarray:
    """Return the counts of a background that falls to a fifth, shape ``(n,)``."""
    falling = mean * np.linspace(1.0, 0.2, n_points)
    return np.random.default_rng(seed).poisson(falling).astype(np.float64)


@given(SEEDS, st.floats(0.01, 3000.0))
@SCAN
def test_detector_is_sound_when_its_counts_vary_by_chance(
    seed: int, mean: float
) -> None:
    """No mean and no luck make a sound detector look frozen, but one without counts."""
    counts = sound(seed, mean)

    assert find_frozen(counts) is None or not counts.any()


@given(SEEDS, st.floats(30.0, 3000.0), st.integers(0, 3000))
@SCAN
def test_detector_is_frozen_when_a_count_is_repeated_forty_times(
    seed: int, mean: float, first: int
) -> None:
    """Half a degree of the same count is found, and where it is."""
    counts = sound(seed, mean)
    counts[first : first + 40] = counts[first]
    frozen = find_frozen(counts)

    assert frozen is not None
    assert first - 3 <= frozen.start <= first
    assert first + 40 <= frozen.stop <= first + 43


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_detector_is_frozen_when_nothing_but_one_count_comes(value: float) -> None:
    """A constant scan is frozen, whatever its count."""
    assert find_frozen(np.full(1000, value)) == slice(0, 1000)


def test_detector_is_frozen_when_it_goes_blind_in_a_scan() -> None:
    """Zeros in the middle of a background are no background."""
    counts = sound(1, 100.0)
    counts[2000:2040] = 0.0

    assert find_frozen(counts) == slice(2000, 2040)
