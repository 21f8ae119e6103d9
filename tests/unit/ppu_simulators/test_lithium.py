"""LiCoO2 from Li2CO3 and Co3O4, and the lithium it loses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.matter import (
    Matter,
    element_fraction_in,
    merge,
    molar_mass,
)
from ppu_simulators.physics.milling import MIXING_ROBOT, mill
from ppu_simulators.physics.reactions import (
    AIR,
    ATMOSPHERES,
    Atmosphere,
    advance,
    advance_on_grid,
)

HOUR = 3600.0


def mixture(milling: float = 600.0, excess: float = 0.0) -> Matter:
    """Return 2 g of Li2CO3 and Co3O4 for LiCoO2, with *excess* carbonate."""
    m_li = 1.5 * (1.0 + excess) * molar_mass("Li2CO3")
    m_co = molar_mass("Co3O4")
    matter = merge(
        [
            Matter.of("Li2CO3", 2.0 * m_li / (m_li + m_co)),
            Matter.of("Co3O4", 2.0 * m_co / (m_li + m_co)),
        ]
    )
    mill(matter, milling, MIXING_ROBOT)
    return matter


def fire(
    matter: Matter, degc: float, hold: float, atmosphere: Atmosphere = AIR
) -> Matter:
    """Heat at 5 K/min, hold, cool at 5 K/min."""
    ramp = (degc - 25.0) * 12.0

    def program(time: float) -> float:
        below = max(ramp - time, time - ramp - hold, 0.0)
        return degc - below / 12.0 + 273.15

    advance_on_grid(matter, 0.0, 2.0 * ramp + hold, program, atmosphere)
    return matter


def layered(matter: Matter) -> float:
    """Return the part of Co that sits in LiCoO2."""
    return element_fraction_in(matter, "Co", "LiCoO2")


def lithium_lost(matter: Matter) -> float:
    """Return the part of lithium that left as vapour."""
    return matter.gas.get("Li", 0.0) / matter.elements()["Li"]


@pytest.mark.parametrize(
    ("degc", "hours", "low", "high"),
    [
        (370.0, 5.0, 0.0, 0.0),
        (400.0, 5.0, 0.02, 0.15),
        (500.0, 5.0, 0.3, 0.6),
        (800.0, 5.0, 0.99, 1.0),
        (850.0, 10.0, 0.99, 1.0),
    ],
)
def test_layered_oxide_forms_in_the_published_window(
    degc: float, hours: float, low: float, high: float
) -> None:
    """Nothing below 380 degC, a trace just above, single phase at 800 and 850."""
    assert low <= layered(fire(mixture(), degc, hours * HOUR)) <= high


def test_carbonate_cakes_the_powder_when_not_milled() -> None:
    """Milled powders use the carbonate up before it melts, coarse layers do not."""
    milled, coarse = (fire(mixture(t), 850.0, HOUR) for t in (600.0, 0.0))

    assert (milled.melted, coarse.melted) == (None, "Li2CO3")
    assert coarse.radii_um["Co3O4"] == 10.0
    assert layered(coarse) > 0.99


def test_reaction_is_a_hundred_times_faster_when_the_carbonate_is_molten() -> None:
    """The jump at 732 degC is what the melt brings, whatever size and mixing."""
    solid, molten = mixture(0.0), mixture(0.0)
    advance(solid, 1004.0, 60.0)
    advance(molten, 1006.0, 60.0)

    # A parabolic law: a rate 100 times higher is a conversion 10 times higher, and
    # the coarse unmixed powder gains what milling would have brought besides.
    assert layered(molten) > 10.0 * layered(solid) > 0.0


@pytest.mark.parametrize(
    ("degc", "low", "high"),
    [(850.0, 0.0, 5e-4), (900.0, 1e-4, 2e-3), (1000.0, 3e-3, 2e-2), (1300.0, 0.8, 0.9)],
)
def test_lithium_evaporates_as_published_when_held_for_5_hours(
    degc: float, low: float, high: float
) -> None:
    """Next to nothing below 900 degC, 85 % after 5 h at 1300 degC."""
    matter = Matter.of("LiCoO2", 1.0)
    advance(matter, degc + 273.15, 5.0 * HOUR)

    assert low <= lithium_lost(matter) <= high


def test_lithium_loss_leaves_cobalt_oxide_that_oxidises_when_cooled() -> None:
    """CoO at 1000 degC in air; part of it is Co3O4 after cooling."""
    hot = Matter.of("LiCoO2", 1.0)
    advance(hot, 1273.15, 5.0 * HOUR)
    assert hot.amounts["CoO"] > 0.0
    assert "Co3O4" not in hot.amounts or hot.amounts["Co3O4"] == 0.0

    advance(hot, 1123.15, HOUR)
    assert hot.amounts["Co3O4"] > 0.0


def test_excess_carbonate_makes_up_for_lithium_that_left() -> None:
    """With 5 % more Li2CO3 no cobalt oxide is left after 5 h at 1000 degC."""
    plain, rich = (
        fire(mixture(excess=x), 1000.0, 5.0 * HOUR).weight_fractions()
        for x in (0.0, 0.05)
    )

    assert plain["CoO"] + plain["Co3O4"] > 5e-3
    assert rich.get("CoO", 0.0) + rich.get("Co3O4", 0.0) < 1e-4


def test_layered_oxide_does_not_form_when_the_gas_is_inert() -> None:
    """Without oxygen the cobalt stays as it is or becomes CoO."""
    matter = fire(mixture(), 800.0, 5.0 * HOUR, ATMOSPHERES["N2"])

    assert layered(matter) < 0.5 < layered(fire(mixture(), 800.0, 5.0 * HOUR))
    assert matter.amounts["CoO"] > 0.0


@settings(max_examples=25)
@given(
    st.floats(0.1, 5.0),
    st.floats(0.1, 5.0),
    st.floats(600.0, 1600.0),
    st.sampled_from(sorted(ATMOSPHERES)),
    st.floats(0.0, 3000.0),
)
def test_lithium_chemistry_conserves_elements(
    lithium: float, cobalt: float, kelvin: float, gas: str, duration: float
) -> None:
    """Any batch under any gas keeps Li, Co, O and C, vapour included, to 1e-12."""
    matter = merge([Matter.of("Li2CO3", lithium), Matter.of("Co3O4", cobalt)])
    mill(matter, 400.0, MIXING_ROBOT)
    before = matter.elements()
    advance(matter, kelvin, duration, ATMOSPHERES[gas])
    advance(matter, 0.8 * kelvin, duration, ATMOSPHERES[gas])

    assert matter.elements() == pytest.approx(before, rel=1e-12, abs=1e-15)
    assert min(matter.amounts.values()) >= 0.0
