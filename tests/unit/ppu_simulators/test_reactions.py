"""Reaction networks: acceptance for BaTiO3 and CaCO3, conservation, invariance."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.kinetics import F1
from ppu_simulators.physics.matter import (
    Matter,
    element_fraction_in,
    merge,
    molar_mass,
)
from ppu_simulators.physics.milling import (
    HAND_GRINDING,
    MIXING_ROBOT,
    MillParameters,
    mill,
)
from ppu_simulators.physics.reactions import (
    AIR,
    ATMOSPHERES,
    CACO3_EQUILIBRIUM,
    DEFAULT_NETWORK,
    Atmosphere,
    EquilibriumPressure,
    Reaction,
    advance,
    advance_on_grid,
)

RAMP_END = (800.0 - 25.0) * 30.0  # 2 K/min
HOUR = 3600.0


def program(time: float) -> float:
    """Return the temperature of the firing: 2 K/min to 800 degC, then hold."""
    return min(25.0 + time / 30.0, 800.0) + 273.15


def mixture(
    polymorph: str = "TiO2-rutile",
    milling: float = 600.0,
    ratio: float = 1.0,
    tool: MillParameters = MIXING_ROBOT,
) -> Matter:
    """Return 2 g of BaCO3 and TiO2, *ratio* mol of Ba per mol of Ti, milled."""
    m_ba, m_ti = ratio * molar_mass("BaCO3"), molar_mass("TiO2")
    matter = merge(
        [
            Matter.of("BaCO3", 2.0 * m_ba / (m_ba + m_ti)),
            Matter.of(polymorph, 2.0 * m_ti / (m_ba + m_ti)),
        ]
    )
    mill(matter, milling, tool)
    return matter


def conversion(matter: Matter) -> float:
    """Return the part of Ti that sits in BaTiO3."""
    return element_fraction_in(matter, "Ti", "BaTiO3")


def fire(matter: Matter, hold: float, atmosphere: Atmosphere = AIR) -> Matter:
    """Run the firing on *matter* up to *hold* seconds of dwell."""
    advance_on_grid(matter, 0.0, RAMP_END + hold, program, atmosphere)
    return matter


@pytest.mark.parametrize("polymorph", ["TiO2-rutile", "TiO2-anatase"])
@pytest.mark.parametrize("tool", [MIXING_ROBOT, HAND_GRINDING])
def test_titanate_forms_as_published_when_milled_for_10_minutes(
    polymorph: str, tool: MillParameters
) -> None:
    """About 0.7 after 1 h at 800 degC, single phase (over 0.97) after 5 h, in air."""
    matter = mixture(polymorph, tool=tool)
    reached = advance_on_grid(matter, 0.0, RAMP_END + HOUR, program)
    after_1_h, intermediate = conversion(matter), matter.weight_fractions()["Ba2TiO4"]
    advance_on_grid(matter, reached, RAMP_END + 5 * HOUR, program)

    assert 0.6 < after_1_h < 0.85
    assert 0.005 < intermediate < 0.05
    assert conversion(matter) > 0.97
    assert matter.weight_fractions().get("Ba2TiO4", 0.0) < 0.01


def test_titanate_is_single_phase_after_2_hours_when_humid() -> None:
    """Water vapour does in 2 h what air does in 5 h."""
    assert conversion(fire(mixture(), 2 * HOUR, Atmosphere(is_humid=True))) > 0.96
    assert conversion(fire(mixture(), 2 * HOUR)) < 0.95


def test_titanate_forms_at_under_half_the_conversion_when_not_milled() -> None:
    """Coarse powders side by side react to less than half of the milled ones."""
    milled, raw = fire(mixture(), HOUR), fire(mixture(milling=0.0), HOUR)

    assert conversion(raw) < 0.5 * conversion(milled)
    assert conversion(raw) > 0.0


def test_titanate_reaction_is_faster_when_only_mixed_or_only_fine() -> None:
    """Particle size and mixing each count by themselves."""
    coarse_mixed, fine_layers = mixture(milling=0.0), mixture(milling=0.0)
    coarse_mixed.mixedness = 1.0
    for phase in fine_layers.radii_um:
        fine_layers.radii_um[phase] = 0.4
    raw = conversion(fire(mixture(milling=0.0), HOUR))

    assert conversion(fire(coarse_mixed, HOUR)) > 2.0 * raw
    assert conversion(fire(fine_layers, HOUR)) > 2.0 * raw


def test_titanate_reaction_goes_on_faster_when_reground() -> None:
    """Grinding between two firings breaks the shells and speeds the second up."""
    plain, reground = (fire(mixture(milling=60.0), HOUR) for _ in range(2))
    mill(reground, 600.0, MIXING_ROBOT)
    for matter in (plain, reground):
        advance(matter, 1073.15, HOUR)

    assert conversion(reground) > conversion(plain) + 0.2


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_titanate_conversion_is_limited_by_the_minority_reactant(ratio: float) -> None:
    """Too little BaCO3 leaves TiO2; too much leaves Ba2TiO4 or BaCO3."""
    matter = mixture(ratio=ratio)
    advance(matter, 1173.15, 20 * HOUR)
    masses = matter.masses_g()

    if ratio < 1.0:
        assert conversion(matter) == pytest.approx(ratio, abs=0.01)
        assert masses["TiO2-rutile"] > 0.1
    else:
        assert masses.get("TiO2-rutile", 0.0) < 1e-3
        assert masses["Ba2TiO4"] > 0.5


def test_co2_suppresses_the_intermediate() -> None:
    """Under 0.67 bar of CO2 no Ba2TiO4 forms at 800 degC."""
    matter = fire(mixture(), HOUR, Atmosphere(p_co2_bar=0.67))

    assert matter.weight_fractions().get("Ba2TiO4", 0.0) == 0.0
    assert conversion(matter) > 0.5


@settings(max_examples=30)
@given(
    st.floats(0.1, 5.0),
    st.floats(0.1, 5.0),
    st.floats(0.0, 5.0),
    st.floats(600.0, 1500.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 3000.0),
)
def test_reactions_conserve_elements_and_never_turn_negative(
    barium: float,
    titanium: float,
    calcium: float,
    kelvin: float,
    p_co2: float,
    duration: float,
) -> None:
    """Any batch under any program keeps each element, with the gas, to 1e-9."""
    matter = merge(
        [
            Matter.of("BaCO3", barium),
            Matter.of("TiO2-rutile", titanium),
            Matter.of("TiO2-anatase", 0.3 * titanium),
            Matter.of("CaCO3", calcium),
        ]
    )
    mill(matter, 400.0, MIXING_ROBOT)
    before = matter.elements()
    advance(matter, kelvin, duration, Atmosphere(p_co2))
    advance(matter, 0.8 * kelvin, duration, Atmosphere(p_co2))

    assert matter.elements() == pytest.approx(before, rel=1e-9, abs=1e-15)
    assert min(matter.amounts.values()) >= 0.0


def test_loss_of_mass_is_the_co2_given_off() -> None:
    """A complete firing of BaCO3 + TiO2 loses 15.88 % of its mass."""
    matter = mixture()
    before = matter.mass_g
    advance(matter, 1173.15, 20 * HOUR)

    assert 100 * (1 - matter.mass_g / before) == pytest.approx(15.876, abs=0.005)
    assert matter.gas["CO2"] * molar_mass("CO2") == pytest.approx(
        before - matter.mass_g, rel=1e-9
    )


@pytest.mark.parametrize("chunk", [1.7, 10.0, 600.0, 7777.7])
def test_result_does_not_depend_on_how_often_one_asks(chunk: float) -> None:
    """Advancing in any pieces gives bit by bit the result of one call."""
    end = RAMP_END + 100.0
    whole, pieces = mixture(), mixture()
    start = 0.45 * RAMP_END  # nothing happens before, so start warm
    advance_on_grid(whole, start, end, program)
    reached, asked = start, start
    while asked < end:
        asked = min(asked + chunk, end)
        reached = advance_on_grid(pieces, reached, asked, program)

    assert pieces == whole


def test_advance_equals_its_pieces_when_cut_on_the_grid() -> None:
    """A minute at one temperature is six grid steps of it."""
    whole, pieces = mixture(), mixture()
    advance(whole, 1050.0, 60.0)
    for _ in range(6):
        advance(pieces, 1050.0, 10.0)

    assert pieces == whole


def test_grid_step_is_fine_enough() -> None:
    """A ten times finer grid changes the conversion by less than 0.002."""
    coarse, fine = mixture(), mixture()
    for index in range(360):
        advance(coarse, 900.0 + index * 0.5, 10.0)
        for part in range(10):
            advance(fine, 900.0 + (index + (part - 4.5) / 10) * 0.5, 1.0)

    assert conversion(fine) > 0.2
    assert conversion(coarse) == pytest.approx(conversion(fine), abs=2e-3)


def test_nothing_happens_at_room_temperature() -> None:
    """A day on the bench changes nothing."""
    matter = mixture()
    before = matter.copy()
    advance(matter, 298.15, 24 * HOUR)
    before.max_temperature_kelvin = 298.15

    assert matter == before


def decomposed(degc: float, duration: float, p_co2_bar: float) -> float:
    """Return the part of CaCO3 decomposed at one temperature."""
    matter = Matter.of("CaCO3", 1.0)
    advance(matter, degc + 273.15, duration, Atmosphere(p_co2_bar))
    return element_fraction_in(matter, "Ca", "CaO")


def test_calcite_recovers_its_declared_triplet_when_no_gas_hinders() -> None:
    """In vacuum the conversion is R2 with 176.35 kJ/mol and ln A 13.7."""
    k = math.exp(13.7 - 176350.0 / (8.314463 * 973.15))
    expected = 1.0 - (1.0 - 600.0 * k) ** 2

    assert decomposed(700.0, 600.0, 0.0) == pytest.approx(expected, rel=1e-6)


def test_calcite_stands_below_530_degc_and_goes_in_minutes_at_900_degc_in_air() -> None:
    """In air the equilibrium forbids decomposition below about 530 degC."""
    assert decomposed(530.0, 24 * HOUR, 0.0004) == 0.0
    assert decomposed(560.0, 24 * HOUR, 0.0004) > 0.05
    assert decomposed(900.0, 180.0, 0.0004) == 1.0


def test_calcite_stands_below_890_degc_in_pure_co2() -> None:
    """Under 1 bar of CO2 nothing happens at 890 degC and all is gone at 910 degC."""
    assert decomposed(890.0, 24 * HOUR, 1.0) == 0.0
    assert decomposed(910.0, HOUR, 1.0) == 1.0


def test_lime_takes_co2_up_again_when_it_cools_in_co2() -> None:
    """Below the equilibrium CaO goes back to CaCO3, taking gas up; not in vacuum."""
    matter = Matter.of("CaO", 1.0)
    before = matter.elements()
    advance(matter, 1073.15, HOUR, Atmosphere(0.0))
    assert matter.mass_g == pytest.approx(1.0)

    advance(matter, 1073.15, 300.0, Atmosphere(1.0))
    assert matter.gas["CO2"] < 0.0
    assert 0.1 < element_fraction_in(matter, "Ca", "CaCO3") <= 1.0
    assert matter.elements()["Ca"] == pytest.approx(before["Ca"], rel=1e-12)
    assert matter.elements()["C"] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("degc", "kilopascal"),
    [(605, 0.31), (680, 1.80), (748, 9.3), (800, 24.0), (871, 72.0), (898, 101.0)],
)
def test_calcite_equilibrium_follows_the_tabulated_pressures(
    degc: float, kilopascal: float
) -> None:
    """The fitted pressure is within 30 % of the table, 1 atm near 899 degC."""
    pressure = 100.0 * CACO3_EQUILIBRIUM.bar_at(degc + 273.15)

    assert pressure == pytest.approx(kilopascal, rel=0.3)


def test_matter_is_melted_when_heated_beyond_the_melting_point() -> None:
    """Li2CO3 melts at 732 degC and the portion remembers it."""
    below, above = Matter.of("Li2CO3", 1.0), Matter.of("Li2CO3", 1.0)
    advance(below, 1000.0, 10.0)
    advance(above, 1010.0, 10.0)
    advance(above, 300.0, 10.0)

    assert (below.melted, above.melted) == (None, "Li2CO3")
    assert above.max_temperature_kelvin == 1010.0


def _sum_side(side: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for term in side.split(" + "):
        *count, name = term.split(" ")
        factor = float(count[0]) if count else 1.0
        matter = Matter(amounts={name: factor})
        for symbol, amount in matter.elements().items():
            total[symbol] = total.get(symbol, 0.0) + amount
    return total


@pytest.mark.parametrize(
    "reaction", DEFAULT_NETWORK.reactions, ids=lambda r: str(r.equation)
)
def test_reaction_equation_is_balanced_and_sourced(reaction: Reaction) -> None:
    """Each reaction conserves every element and names where its numbers are from."""
    left, right = reaction.equation.split(" -> ")

    # The equation shows six digits.
    assert _sum_side(left) == pytest.approx(_sum_side(right), rel=1e-5)
    assert reaction.source


@pytest.mark.parametrize(("p_co2_bar", "p_o2_bar"), [(-0.1, 0.2), (0.0, -0.1)])
def test_atmosphere_refuses_a_negative_pressure(
    p_co2_bar: float, p_o2_bar: float
) -> None:
    """A pressure below zero is a mistake, not a vacuum."""
    with pytest.raises(ValueError, match="must be >= 0"):
        Atmosphere(p_co2_bar=p_co2_bar, p_o2_bar=p_o2_bar)


def test_bottled_gases_hold_one_reactive_gas_at_most() -> None:
    """Oxygen comes as O2, CO2 as CO2, and the inert gases bring next to neither."""
    assert ATMOSPHERES["air"] is AIR
    for gas, atmosphere in ATMOSPHERES.items():
        assert (atmosphere.p_o2_bar > 1e-3) == (gas in ("air", "O2"))
        assert (atmosphere.p_co2_bar > 1e-3) == (gas == "CO2")


def test_network_asks_only_reactions_that_the_powder_can_reach() -> None:
    """Products count as there; reactions of other chemistries are not looked at."""
    cores = {
        reaction.core
        for reaction in DEFAULT_NETWORK.possible_with(("TiO2-anatase", "BaCO3"))
    }

    assert cores == {"TiO2-anatase", "BaTiO3", "Ba2TiO4"}
    assert DEFAULT_NETWORK.possible_with(("ZnO",)) == ()


@pytest.mark.parametrize(
    ("needs_gas", "p_o2_bar", "factor"),
    [
        (False, 0.05, 0.5),
        (False, 0.2, 0.0),
        (True, 0.2, 0.5),
        (True, 0.05, 0.0),
        (True, 0.0, 0.0),
    ],
)
def test_reaction_runs_on_its_side_of_the_equilibrium(
    needs_gas: bool, p_o2_bar: float, factor: float
) -> None:
    """One that is hindered by a gas runs below p_eq, one that needs it above."""
    reaction = Reaction(
        core="CuO",
        partners={},
        products={},
        gas={},
        law=F1,
        k0=1.0,
        activation_energy=0.0,
        source="a test",
        equilibrium=EquilibriumPressure.through(0.1, 1000.0, 100e3, "O2"),
        needs_gas=needs_gas,
    )
    k = reaction.rate_constant(
        Matter.of("CuO", 1.0), 1000.0, Atmosphere(p_o2_bar=p_o2_bar)
    )

    assert k == pytest.approx(factor)
