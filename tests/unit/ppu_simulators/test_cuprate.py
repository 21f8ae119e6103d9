"""YBa2Cu3O7 from Y2O3, BaCO3 and CuO through its known intermediates."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.matter import Matter, merge, molar_mass
from ppu_simulators.physics.milling import MIXING_ROBOT, mill
from ppu_simulators.physics.reactions import (
    AIR,
    ATMOSPHERES,
    YBCO_OXYGEN_EQUILIBRIUM,
    YBCO_STABILITY,
    Atmosphere,
    advance,
    advance_on_grid,
)

HOUR = 3600.0


def batch(milling: float = 600.0, **moles: float) -> Matter:
    """Return 2 g of powders in the given proportion, milled."""
    total = sum(n * molar_mass(name) for name, n in moles.items())
    matter = merge(
        Matter.of(name, 2.0 * n * molar_mass(name) / total) for name, n in moles.items()
    )
    mill(matter, milling, MIXING_ROBOT)
    return matter


def precursors(milling: float = 600.0) -> Matter:
    """Return the carbonate mixture for YBa2Cu3O7."""
    return batch(milling, Y2O3=0.5, BaCO3=2.0, CuO=3.0)


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


@functools.cache
def _fired(milling: float, degc: float) -> Matter:
    return fire(precursors(milling), degc, 12.0 * HOUR)


def fractions(milling: float, degc: float) -> dict[str, float]:
    """Return the mass fractions of the mixture after 12 h at *degc* in air."""
    return _fired(milling, degc).weight_fractions()


def test_cuprate_forms_by_the_carbonate_route_when_milled() -> None:
    """12 h give over 90 wt% at 900 and 920 degC, a part at 850, little at 800."""
    share = {t: fractions(600.0, t)["YBa2Cu3O7"] for t in (800.0, 850.0, 900.0, 920.0)}

    assert share[800.0] < 0.15 < share[850.0] < 0.9
    assert 0.9 < share[900.0] < share[920.0] < 0.99


def test_cuprate_hardly_forms_when_not_milled() -> None:
    """Coarse powders side by side give less than a fifth below the eutectic."""
    assert 0.01 < fractions(0.0, 900.0)["YBa2Cu3O7"] < 0.2


def test_cuprate_profits_from_a_second_firing_when_reground() -> None:
    """Grinding and firing again brings what one short firing left."""
    once = fire(precursors(), 900.0, 4.0 * HOUR)
    plain = once.copy()
    mill(once, 600.0, MIXING_ROBOT)
    again, alone = (fire(m, 900.0, 4.0 * HOUR) for m in (once, plain))

    assert (
        again.weight_fractions()["YBa2Cu3O7"]
        > alone.weight_fractions()["YBa2Cu3O7"] + 0.02
    )


def test_green_phase_and_barium_cuprate_are_the_way() -> None:
    """After 2 h at 900 degC BaCuO2 is there, the green phase is a minor one."""
    after = fire(precursors(), 900.0, 2.0 * HOUR).weight_fractions()

    assert 0.05 < after["BaCuO2"] < 0.4
    assert 0.001 < after["Y2BaCuO5"] < 0.2


@pytest.mark.parametrize("degc", [900.0, 920.0])
def test_barium_cuprate_is_minor_when_the_firing_is_done(degc: float) -> None:
    """It has no structure to be seen by, so a finished sample must hold little."""
    assert fractions(600.0, degc)["BaCuO2"] < 0.05


@pytest.mark.parametrize(
    ("moles", "below", "above", "product"),
    [
        ({"BaCO3": 1.0, "CuO": 1.0}, 800.0, 900.0, "BaCuO2"),
        ({"Y2O3": 1.0, "BaCuO2": 1.0}, 780.0, 900.0, "Y2BaCuO5"),
        ({"Y2Cu2O5": 1.0, "BaCO3": 1.6}, 780.0, 900.0, "Y2BaCuO5"),
        ({"Y2Cu2O5": 1.0, "BaCuO2": 4.0}, 500.0, 800.0, "YBa2Cu3O6"),
        ({"Y2BaCuO5": 1.0, "BaCuO2": 3.0, "CuO": 2.0}, 780.0, 900.0, "YBa2Cu3O6"),
    ],
)
def test_pair_reacts_in_its_published_window(
    moles: dict[str, float], below: float, above: float, product: str
) -> None:
    """4 h below the window give less than 2 wt%, 4 h in it more than 10 wt%."""
    cold, warm = batch(**moles), batch(**moles)
    advance(cold, below + 273.15, 4.0 * HOUR)
    advance(warm, above + 273.15, 4.0 * HOUR)

    assert cold.weight_fractions().get(product, 0.0) < 0.02
    assert warm.weight_fractions()[product] > 0.1


def test_yttria_and_barium_carbonate_alone_do_not_react() -> None:
    """No product up to 900 degC."""
    matter = fire(batch(Y2O3=1.0, BaCO3=1.0), 900.0, 4.0 * HOUR)

    assert set(matter.weight_fractions()) == {"Y2O3", "BaCO3"}


def test_cuprate_takes_up_oxygen_when_cooled_in_air_and_not_when_inert() -> None:
    """Slow cooling in air fills the chains; in argon it stays at O6."""
    aired, inert = Matter.of("YBa2Cu3O6", 1.0), Matter.of("YBa2Cu3O6", 1.0)
    for degc in range(700, 100, -5):
        advance(aired, degc + 273.15, 60.0)
        advance(inert, degc + 273.15, 60.0, ATMOSPHERES["Ar"])

    assert aired.weight_fractions()["YBa2Cu3O7"] > 0.99
    assert aired.gas["O2"] == pytest.approx(-0.5 / molar_mass("YBa2Cu3O6"), rel=0.02)
    assert inert.weight_fractions().get("YBa2Cu3O7", 0.0) < 0.01


def test_cuprate_gives_oxygen_up_when_heated_in_air() -> None:
    """At 800 degC in air O7 turns into O6; at 400 degC it does not."""
    hot, warm = Matter.of("YBa2Cu3O7", 1.0), Matter.of("YBa2Cu3O7", 1.0)
    advance(hot, 1073.15, HOUR)
    advance(warm, 673.15, HOUR)

    assert hot.weight_fractions()["YBa2Cu3O6"] > 0.99
    assert warm.weight_fractions()["YBa2Cu3O7"] == 1.0


def test_oxygen_content_changes_near_the_published_temperatures() -> None:
    """1 bar at 700 degC; in air between 600 and 670 degC."""
    assert YBCO_OXYGEN_EQUILIBRIUM.bar_at(973.15) == pytest.approx(1.0)
    assert YBCO_OXYGEN_EQUILIBRIUM.bar_at(873.15) < 0.209
    assert YBCO_OXYGEN_EQUILIBRIUM.bar_at(943.15) > 0.209


def test_cuprate_decomposes_above_725_degc_when_the_gas_is_inert() -> None:
    """The limit is 1e-6 bar at 725 degC, 4e-4 atm at 850 and air at 1015 degC."""
    assert YBCO_STABILITY.bar_at(1000.15) == pytest.approx(1e-6, rel=0.2)
    assert YBCO_STABILITY.bar_at(1288.15) == pytest.approx(0.209, rel=0.05)

    inert, aired = Matter.of("YBa2Cu3O6", 1.0), Matter.of("YBa2Cu3O6", 1.0)
    cold = Matter.of("YBa2Cu3O6", 1.0)
    advance(cold, 993.15, 10.0 * HOUR, ATMOSPHERES["Ar"])
    advance(inert, 1123.15, 10.0 * HOUR, ATMOSPHERES["Ar"])
    advance(aired, 1123.15, 10.0 * HOUR)

    assert cold.weight_fractions() == {"YBa2Cu3O6": 1.0}
    assert inert.weight_fractions()["Y2BaCuO5"] > 0.2
    assert aired.weight_fractions()["YBa2Cu3O6"] == pytest.approx(1.0)


def test_carbonate_stays_when_fired_in_co2() -> None:
    """CO2 hinders BaCuO2 and with it everything after."""
    matter = fire(precursors(), 900.0, 12.0 * HOUR, ATMOSPHERES["CO2"])

    assert matter.weight_fractions().get("YBa2Cu3O7", 0.0) < 0.01


def test_powder_cakes_above_the_eutectic_and_not_below() -> None:
    """BaCuO2 and CuO melt at 925 degC: a firing at 930 ends in a cake."""
    assert _fired(600.0, 920.0).melted is None
    assert _fired(600.0, 930.0).melted == "BaCuO2 + CuO"


def test_cuprate_melts_incongruently_above_1015_degc() -> None:
    """In air it gives the green phase and what melts, and is a cake."""
    matter = Matter.of("YBa2Cu3O6", 1.0)
    advance(matter, 1313.15, 2.0 * HOUR)

    assert matter.melted == "YBa2Cu3O6"
    assert matter.weight_fractions()["Y2BaCuO5"] > 0.1


def test_cuprous_oxide_oxidises_in_air_by_600_degc() -> None:
    """4 h at 600 degC turn it into CuO, and argon turns CuO back at 900 degC."""
    matter = Matter.of("Cu2O", 1.0)
    advance(matter, 873.15, 4.0 * HOUR)
    assert matter.weight_fractions()["CuO"] > 0.9

    advance(matter, 1173.15, 10.0 * HOUR, ATMOSPHERES["Ar"])
    assert matter.weight_fractions()["Cu2O"] > 0.5


@settings(max_examples=25)
@given(
    st.floats(0.1, 5.0),
    st.floats(0.1, 5.0),
    st.floats(0.1, 5.0),
    st.floats(600.0, 1350.0),
    st.sampled_from(sorted(ATMOSPHERES)),
    st.floats(0.0, 3000.0),
)
def test_cuprate_chemistry_conserves_elements(
    yttrium: float, barium: float, copper: float, kelvin: float, gas: str, time: float
) -> None:
    """Any batch under any gas keeps Y, Ba, Cu, O and C, the gas included, to 1e-12."""
    matter = merge(
        [
            Matter.of("Y2O3", yttrium),
            Matter.of("BaCO3", barium),
            Matter.of("CuO", copper),
        ]
    )
    mill(matter, 400.0, MIXING_ROBOT)
    before = matter.elements()
    advance(matter, kelvin, time, ATMOSPHERES[gas])
    advance(matter, 0.8 * kelvin, time, ATMOSPHERES[gas])

    assert matter.elements() == pytest.approx(before, rel=1e-12, abs=1e-15)
    assert min(matter.amounts.values()) >= 0.0
