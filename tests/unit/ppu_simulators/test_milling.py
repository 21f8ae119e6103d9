"""Milling: size, mixing, broken shells, recovery."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.matter import Matter, merge
from ppu_simulators.physics.milling import (
    HAND_GRINDING,
    MIXING_ROBOT,
    MillParameters,
    mill,
    recover,
)


def layered() -> Matter:
    """Return two coarse powders lying side by side."""
    return merge([Matter.of("BaCO3", 1.0), Matter.of("TiO2-rutile", 0.4)])


def test_mill_follows_its_exponential_laws() -> None:
    """Radius and unmixedness fall exponentially towards their limits."""
    matter = layered()
    mill(matter, 600.0, MIXING_ROBOT)

    assert matter.radii_um["BaCO3"] == pytest.approx(0.3 + 0.7 * math.exp(-3.0))
    assert matter.mixedness == pytest.approx(1.0 - math.exp(-3.0))


@settings(max_examples=50)
@given(st.floats(0.0, 2000.0), st.floats(0.0, 1.0))
def test_mill_does_not_depend_on_interruptions(duration: float, part: float) -> None:
    """Milling in two goes is milling in one, and changes no amount."""
    once, twice = layered(), layered()
    once.grains["BaCO3"] = twice.grains["BaCO3"] = 0.02
    mill(once, duration, MIXING_ROBOT)
    mill(twice, part * duration, MIXING_ROBOT)
    mill(twice, duration - part * duration, MIXING_ROBOT)

    assert twice.radii_um == pytest.approx(once.radii_um, rel=1e-9)
    assert twice.grains == pytest.approx(once.grains, rel=1e-9)
    assert twice.mixedness == pytest.approx(once.mixedness, abs=1e-9)
    assert once.amounts == twice.amounts == layered().amounts


def test_mill_never_coarsens_a_finer_powder() -> None:
    """A powder below the limiting size keeps its size."""
    matter = Matter.of("ZnO", 1.0, radius_um=0.1)
    mill(matter, 1000.0, MIXING_ROBOT)

    assert matter.radii_um["ZnO"] == 0.1


def test_hand_grinding_is_a_little_worse_than_the_robot() -> None:
    """By hand the powder stays coarser and less mixed after the same time."""
    robot, hand = layered(), layered()
    mill(robot, 600.0, MIXING_ROBOT)
    mill(hand, 600.0, HAND_GRINDING)

    assert robot.radii_um["BaCO3"] < hand.radii_um["BaCO3"] < 0.5
    assert robot.mixedness > hand.mixedness > 0.9


def test_mill_loosens_caked_powder_after_a_while() -> None:
    """A cake is still one after five minutes and powder after ten."""
    briefly, long = layered(), layered()
    briefly.melted = long.melted = "Li2CO3"
    mill(briefly, 300.0, MIXING_ROBOT)
    mill(long, 600.0, MIXING_ROBOT)

    assert [briefly.melted, long.melted] == ["Li2CO3", None]


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.booleans())
def test_recover_conserves_and_stays_in_its_range(seed: int, is_melted: bool) -> None:
    """What comes out and what stays sum to the whole, within the stated scatter."""
    matter = layered()
    matter.melted = "Li2CO3" if is_melted else None
    out, rest = recover(matter, HAND_GRINDING, np.random.default_rng(seed))
    mean = 0.4 if is_melted else 0.95

    assert out.mass_g + rest.mass_g == pytest.approx(matter.mass_g, rel=1e-12)
    assert abs(out.mass_g / matter.mass_g - mean) <= 0.03 + 1e-12


def test_mill_refuses_a_negative_duration() -> None:
    """Time does not run backwards."""
    with pytest.raises(ValueError, match="duration"):
        mill(layered(), -1.0, MIXING_ROBOT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("milling_time_s", 0.0),
        ("recovery", 1.0),
        ("caked_recovery", 0.0),
    ],
)
def test_mill_parameters_refuse_senseless_numbers(name: str, value: float) -> None:
    """No zero time constant; recoveries with their scatter stay within 0..1."""
    with pytest.raises(ValueError, match="must be"):
        MillParameters(**{name: value})
