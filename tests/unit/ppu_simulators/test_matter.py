"""Matter: formulas, amounts, pouring together and taking apart."""

import gemmi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.matter import (
    ATOMIC_WEIGHTS,
    CAKE_RADIUS_UM,
    PHASES,
    Matter,
    element_fraction_in,
    merge,
    molar_mass,
    parse_formula,
    phase_named,
)

portions = st.builds(
    Matter.of,
    st.sampled_from(sorted(PHASES)),
    st.floats(0.0, 50.0),
    radius_um=st.floats(0.05, 50.0),
)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("TiO2", {"Ti": 1, "O": 2}),
        ("Ca(OH)2", {"Ca": 1, "O": 2, "H": 2}),
        ("Y2(CO3)3", {"Y": 2, "C": 3, "O": 9}),
        ("Ba2(Cu(OH)2)3", {"Ba": 2, "Cu": 3, "O": 6, "H": 6}),
        ("CaC2O4*2H2O", {"Ca": 1, "C": 2, "O": 6, "H": 4}),
        ("YBa2Cu3O6.5", {"Y": 1, "Ba": 2, "Cu": 3, "O": 6.5}),
    ],
)
def test_formula_parser_counts_atoms(formula: str, expected: dict[str, float]) -> None:
    """Brackets, hydrates and fractional indices are counted."""
    assert parse_formula(formula) == expected


@pytest.mark.parametrize(
    "formula", ["", "Xx2", "ca", "Ca(OH", "CaOH)2", "2", "Ca22.5.5", "Ba CO3", "O2("]
)
def test_formula_parser_refuses_what_is_no_formula(formula: str) -> None:
    """Nonsense raises and is never read as something."""
    with pytest.raises(ValueError, match="formula"):
        parse_formula(formula)


def test_atomic_weights_agree_with_gemmi() -> None:
    """Every weight is that of an independent table to 0.1 %."""
    for symbol, weight in ATOMIC_WEIGHTS.items():
        assert weight == pytest.approx(gemmi.Element(symbol).weight, rel=1e-3), symbol


@pytest.mark.parametrize(
    ("carbonate", "oxide", "loss"),
    [("CaCO3", "CaO", 43.97), ("BaCO3", "BaO", 22.30), ("Li2CO3", "Li2O", 59.56)],
)
def test_molar_masses_give_the_known_losses_on_heating(
    carbonate: str, oxide: str, loss: float
) -> None:
    """The stoichiometric CO2 loss of carbonates matches published weight percents."""
    lost = 1.0 - molar_mass(oxide) / molar_mass(carbonate)

    assert 100.0 * lost == pytest.approx(loss, abs=0.006)


def test_phase_of_any_formula_is_known_and_inert_phases_have_a_density() -> None:
    """A polymorph suffix is not part of the formula."""
    phase = phase_named("ZrO2-monoclinic")

    assert phase.formula == "ZrO2"
    assert phase.density_g_per_ml > 0
    with pytest.raises(ValueError, match="formula"):
        phase_named("flour")


@settings(max_examples=60)
@given(st.lists(portions, max_size=6))
def test_merge_conserves_elements_and_mass(parts: list[Matter]) -> None:
    """Pouring together neither makes nor loses any element."""
    merged = merge(parts)

    assert merged.mass_g == pytest.approx(sum(p.mass_g for p in parts), rel=1e-12)
    total: dict[str, float] = {}
    for part in parts:
        for symbol, amount in part.elements().items():
            total[symbol] = total.get(symbol, 0.0) + amount
    assert merged.elements() == pytest.approx(total, rel=1e-12)
    assert 0.0 <= merged.mixedness <= 1.0


@settings(max_examples=60)
@given(st.lists(portions, min_size=1, max_size=4), st.floats(0.0, 1.0))
def test_split_conserves_elements_and_state(
    parts: list[Matter], fraction: float
) -> None:
    """Both parts sum to the whole and merging them again gives its mixedness back."""
    whole = merge(parts)
    whole.mixedness = 0.7
    whole.gas = {"CO2": 0.01}
    taken, left = whole.split(fraction)
    again = merge([taken, left])

    assert again.elements() == pytest.approx(whole.elements(), rel=1e-12)
    assert taken.mass_g == pytest.approx(fraction * whole.mass_g, rel=1e-12)
    assert again.radii_um == pytest.approx(whole.radii_um, rel=1e-12)
    if whole.composition_variance() > 1e-6:
        assert again.mixedness == pytest.approx(0.7, abs=1e-6)


def test_take_gives_what_is_asked_or_all_there_is() -> None:
    """Taking more than there is takes everything."""
    powder = Matter.of("ZnO", 2.0)

    taken, left = powder.take(0.5)
    assert (taken.mass_g, left.mass_g) == pytest.approx((0.5, 1.5))
    taken, left = powder.take(5.0)
    assert (taken.mass_g, left.mass_g) == pytest.approx((2.0, 0.0))
    assert Matter().take(1.0)[0].mass_g == 0.0


def test_copy_is_independent() -> None:
    """Changing the copy leaves the original alone."""
    original = Matter.of("ZnO", 1.0)
    twin = original.copy()
    twin.amounts["ZnO"] = twin.grains["ZnO"] = twin.radii_um["ZnO"] = 9.0
    twin.gas["CO2"] = 1.0

    assert original == Matter.of("ZnO", 1.0)


def test_mixedness_is_zero_for_different_powders_and_kept_for_equal_ones() -> None:
    """Pouring TiO2 onto BaCO3 mixes nothing; a powder onto itself stays mixed."""
    layered = merge([Matter.of("BaCO3", 1.0), Matter.of("TiO2-rutile", 1.0)])
    same = merge([Matter.of("BaCO3", 1.0), Matter.of("BaCO3", 3.0)])

    assert layered.mixedness == pytest.approx(0.0, abs=1e-12)
    assert same.mixedness == 1.0


def test_merge_averages_radii_and_keeps_the_worst_history() -> None:
    """A melted or hot portion marks the whole; radii average by amount."""
    hot = Matter.of("ZnO", 3.0, radius_um=2.0)
    hot.melted, hot.max_temperature_kelvin = "Li2CO3", 1200.0
    merged = merge([Matter.of("ZnO", 1.0, radius_um=1.0), hot])

    assert merged.melted == "Li2CO3"
    assert merged.max_temperature_kelvin == 1200.0
    assert merged.radii_um["ZnO"] == pytest.approx(1.75)


def test_melting_makes_a_cake_of_coarse_grains_when_enough_melts() -> None:
    """A carbonate that melts cakes the powder; a twentieth of it does not."""
    rich, poor = (
        merge([Matter.of("Li2CO3", mass), Matter.of("Co3O4", 1.0)])
        for mass in (0.5, 0.04)
    )
    for matter in (rich, poor):
        matter.melt_at(1006.0)

    assert (rich.melted, poor.melted) == ("Li2CO3", None)
    assert min(rich.radii_um.values()) == CAKE_RADIUS_UM
    assert poor.radii_um["Co3O4"] == 1.0


def test_melting_names_every_phase_of_a_eutectic_when_they_melt_together() -> None:
    """BaCuO2 and CuO melt in contact below the melting point of either."""
    both = merge([Matter.of("BaCuO2", 1.0), Matter.of("CuO", 1.0)])
    alone = Matter.of("CuO", 1.0)
    for matter in (both, alone):
        matter.melt_at(1200.0)

    assert (both.melted, alone.melted) == ("BaCuO2 + CuO", None)


def test_melting_names_what_melted_first_when_heated_further() -> None:
    """A cake stays the cake it is."""
    matter = merge([Matter.of("Li2CO3", 1.0), Matter.of("CuO", 1.0)])
    matter.melt_at(1006.0)
    matter.melt_at(1600.0)

    assert matter.melted == "Li2CO3"


def test_volume_shrinks_when_tapped_and_uses_a_given_bulk_density() -> None:
    """Bulk volume is mass over loose density, less when tapped."""
    powder = Matter.of("BaCO3", 2.2, bulk_density_g_per_ml=1.1)
    assert powder.volume_ml == pytest.approx(2.0)

    powder.tapped = 1.0
    assert powder.volume_ml == pytest.approx(2.0 / 1.3)
    assert Matter.of("TiO2-rutile", 4.25).volume_ml == pytest.approx(4.0)


def test_heat_capacity_is_3r_per_mole_of_atoms() -> None:
    """Dulong and Petit: 0.01 mol of a three-atom oxide holds 0.748 J/K."""
    powder = Matter.of("TiO2-rutile", 0.01 * molar_mass("TiO2"))

    assert powder.heat_capacity_j_per_k == pytest.approx(0.748, abs=1e-3)


def test_element_fraction_in_counts_all_phases_of_the_element() -> None:
    """Two Ti in titanate against one left in TiO2 is one half by mole here."""
    powder = Matter(
        amounts={"BaTiO3": 0.2, "TiO2-rutile": 0.1, "Ba2TiO4": 0.1, "ZnO": 1.0}
    )

    assert element_fraction_in(powder, "Ti", "BaTiO3") == pytest.approx(0.5)
    assert element_fraction_in(powder, "Y", "Y2O3") == 0.0


@pytest.mark.parametrize(
    ("mass", "radius", "density"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)]
)
def test_matter_refuses_numbers_out_of_range(
    mass: float, radius: float, density: float
) -> None:
    """Negative mass, no radius and no density are refused."""
    with pytest.raises(ValueError, match=r">= 0|> 0"):
        Matter.of("ZnO", mass, radius_um=radius, bulk_density_g_per_ml=density)
