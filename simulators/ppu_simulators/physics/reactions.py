"""Networks of solid-state reactions acting on :class:`~.matter.Matter`.

A reaction consumes the grains of its *core* reactant by a rate law; partners are
taken along by stoichiometry and stop it when they run out. Within one step the
reactions act one after the other, each integrated exactly, so amounts never turn
negative and elements (with the gas) are conserved to rounding error at any step.
Gas is not used up: the atmosphere is as large as the room. Oxygen that is scarcer than
in air is taken up in proportion to its pressure (our choice).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ppu_simulators.physics.constants import GAS_CONSTANT
from ppu_simulators.physics.kinetics import D3, D4, F1, R2, RateLaw, arrhenius

if TYPE_CHECKING:
    from collections.abc import Callable

    from ppu_simulators.physics.matter import Matter

CHEMISTRY_GRID: Final = 10.0
"""Step of the chemistry [s]; at 10 K/min the temperature moves 1.7 K in it."""

_NEGLIGIBLE_RATE = 1e-15  # 1/s: a day at this rate converts less than rounding
_SMALLEST_RADIUS_UM = 0.01
_CONTACT_UNMIXED = 0.02


@dataclass(frozen=True)
class Atmosphere:
    """Gas over the sample.

    Attributes:
        p_co2_bar: Partial pressure of CO2.
        is_humid: Whether it is laden with water vapour.
        p_o2_bar: Partial pressure of O2.
    """

    p_co2_bar: float = 0.0004
    is_humid: bool = False
    p_o2_bar: float = 0.209

    def __post_init__(self) -> None:
        if self.p_co2_bar < 0 or self.p_o2_bar < 0:
            raise ValueError("p_co2_bar and p_o2_bar must be >= 0")


AIR: Final = Atmosphere()

_INERT = Atmosphere(p_co2_bar=1e-6, p_o2_bar=1e-6)
ATMOSPHERES: Final[Mapping[str, Atmosphere]] = {
    "air": AIR,
    "O2": Atmosphere(p_co2_bar=1e-6, p_o2_bar=1.0),
    "N2": _INERT,
    "Ar": _INERT,
    "He": _INERT,
    "CO2": Atmosphere(p_co2_bar=1.0, p_o2_bar=1e-6),
}
"""Atmosphere in a furnace that is well flushed with a bottled gas, by its name.

One part per million of other gas, as in a bottle of purity 6.0 (our choice).
"""


@dataclass(frozen=True)
class EquilibriumPressure:
    """Equilibrium pressure of a gas, ``ln(p/bar) = intercept - slope_kelvin / T``.

    Attributes:
        intercept: See above.
        slope_kelvin: See above; enthalpy per mole of gas over the gas constant.
        gas: ``CO2`` or ``O2``.
    """

    intercept: float
    slope_kelvin: float
    gas: str = "CO2"

    @classmethod
    def through(
        cls, pressure_bar: float, temperature_kelvin: float, enthalpy: float, gas: str
    ) -> EquilibriumPressure:
        """Return the line through one point for an *enthalpy* [J per mol of gas]."""
        slope = enthalpy / GAS_CONSTANT
        intercept = math.log(pressure_bar) + slope / temperature_kelvin
        return cls(intercept, slope, gas)

    def bar_at(self, temperature_kelvin: float) -> float:
        """Return the equilibrium pressure [bar]."""
        return math.exp(self.intercept - self.slope_kelvin / temperature_kelvin)

    def bar_in(self, atmosphere: Atmosphere) -> float:
        """Return the partial pressure of the gas in *atmosphere* [bar]."""
        return atmosphere.p_co2_bar if self.gas == "CO2" else atmosphere.p_o2_bar


@dataclass(frozen=True)
class Reaction:
    """One reaction, written for one mole of its core reactant.

    Attributes:
        core: Phase whose grains the rate law is about.
        partners: Other solids consumed [mol per mol of core].
        products: Solids formed [mol per mol of core].
        gas: Gases given off [mol per mol of core]; negative where taken up.
        law: Rate law of the core's conversion.
        k0: Prefactor at the reference radius, in air, well mixed [1/s].
        activation_energy: E [J/mol].
        source: Where the numbers come from.
        reference_radius_um: Radius of the core's grains that ``k0`` holds for.
        equilibrium: Pressure of a gas at which the reaction stands still. The rate is
            multiplied by 1 - p/p_eq, or by 1 - p_eq/p if the reaction needs the gas,
            and is zero where that is negative.
        needs_gas: Whether the reaction runs above the equilibrium pressure, not below.
            None: it does if it takes that gas up.
        is_partner_limited: Whether the rate falls as the partner gets scarce, by
            n_partner / (n_partner + n_core); otherwise it stops only at zero.
        humid_factor: Factor of the rate in water vapour.
        onset_kelvin: Below this nothing happens.
        wet_above_kelvin: From here on a reactant is molten and wets the grains: the
            rate no longer depends on their size or on how well they were mixed.
        wet_factor: Factor of the rate at the reference radius when molten.
    """

    core: str
    partners: Mapping[str, float]
    products: Mapping[str, float]
    gas: Mapping[str, float]
    law: RateLaw
    k0: float
    activation_energy: float
    source: str
    reference_radius_um: float = 1.0
    equilibrium: EquilibriumPressure | None = None
    needs_gas: bool | None = None
    is_partner_limited: bool = False
    humid_factor: float = 1.0
    onset_kelvin: float = 0.0
    wet_above_kelvin: float = math.inf
    wet_factor: float = 1.0
    quiet_below_kelvin: float = field(init=False)

    def __post_init__(self) -> None:
        fastest = self.reference_radius_um / _SMALLEST_RADIUS_UM
        fastest = self.k0 * self.humid_factor * fastest**self.law.radius_exponent
        quiet = self.activation_energy / (
            GAS_CONSTANT * math.log(fastest / _NEGLIGIBLE_RATE)
        )
        object.__setattr__(self, "quiet_below_kelvin", max(quiet, self.onset_kelvin))
        if self.needs_gas is None and self.equilibrium is not None:
            takes_up = self.gas.get(self.equilibrium.gas, 0.0) < 0.0
            object.__setattr__(self, "needs_gas", takes_up)

    @property
    def equation(self) -> str:
        """The reaction in words of chemistry."""

        def side(terms: Mapping[str, float]) -> str:
            return " + ".join(
                name if count == 1 else f"{count:g} {name}"
                for name, count in terms.items()
            )

        left = {self.core: 1.0, **self.partners}
        right = dict(self.products)
        for name, count in self.gas.items():
            (right if count > 0 else left)[name] = abs(count)
        return f"{side(left)} -> {side(right)}"

    def rate_constant(
        self, matter: Matter, temperature_kelvin: float, atmosphere: Atmosphere = AIR
    ) -> float:
        """Return k of the core's rate law for *matter* [1/s]; 0 if it cannot run."""
        if temperature_kelvin < self.onset_kelvin:
            return 0.0
        k = arrhenius(self.k0, self.activation_energy, temperature_kelvin)
        if temperature_kelvin >= self.wet_above_kelvin:
            k *= self.wet_factor
        else:
            exponent = self.law.radius_exponent
            if exponent:
                size = self.reference_radius_um / matter.radii_um[self.core]
                k *= size if exponent == 1 else size * size
            if self.partners:
                k *= _CONTACT_UNMIXED + (1.0 - _CONTACT_UNMIXED) * matter.mixedness
        if atmosphere.is_humid:
            k *= self.humid_factor
        if self.gas.get("O2", 0.0) < 0.0:
            k *= min(1.0, atmosphere.p_o2_bar / AIR.p_o2_bar)
        if self.equilibrium is not None:
            p = self.equilibrium.bar_in(atmosphere)
            p_equilibrium = self.equilibrium.bar_at(temperature_kelvin)
            if not self.needs_gas:
                k *= max(0.0, 1.0 - p / p_equilibrium)
            elif p > 0.0:
                k *= max(0.0, 1.0 - p_equilibrium / p)
            else:
                k = 0.0
        return k

    def act(
        self,
        matter: Matter,
        temperature_kelvin: float,
        dt: float,
        atmosphere: Atmosphere,
    ) -> None:
        """Advance *matter* by this reaction alone for one step at one temperature."""
        amounts = matter.amounts
        core = amounts.get(self.core, 0.0)
        if core <= 0.0:
            return
        limit = core
        availability = 1.0
        for name, count in self.partners.items():
            there = amounts.get(name, 0.0)
            if there <= 0.0:
                return
            limit = min(limit, there / count)
            availability = min(availability, there / (there + core))
        k = self.rate_constant(matter, temperature_kelvin, atmosphere)
        if k < _NEGLIGIBLE_RATE:
            return
        if self.is_partner_limited:
            k *= availability
        grains = max(matter.grains.get(self.core, core), core)
        converted = self.law.advance(1.0 - core / grains, k, dt)
        extent = min(max(core - grains * (1.0 - converted), 0.0), limit)
        amounts[self.core] = core - extent
        for name, count in self.partners.items():
            amounts[name] = max(amounts[name] - count * extent, 0.0)
        for name, count in self.products.items():
            amount = amounts.get(name, 0.0) + count * extent
            amounts[name] = amount
            # A product refills grains that had been consumed before it adds new ones.
            if amount > matter.grains.get(name, 0.0):
                matter.grains[name] = amount
            if name not in matter.radii_um:
                matter.radii_um[name] = matter.radii_um[self.core]
        for name, count in self.gas.items():
            matter.gas[name] = matter.gas.get(name, 0.0) + count * extent


@dataclass(frozen=True)
class ReactionNetwork:
    """Reactions that can happen, in the order in which a step applies them."""

    reactions: tuple[Reaction, ...]
    quiet_below_kelvin: float = field(init=False)
    _possible: dict[tuple[str, ...], tuple[Reaction, ...]] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        quiet = min((r.quiet_below_kelvin for r in self.reactions), default=math.inf)
        object.__setattr__(self, "quiet_below_kelvin", quiet)

    def possible_with(self, phases: tuple[str, ...]) -> tuple[Reaction, ...]:
        """Return the reactions that *phases*, or what they turn into, can take part in.

        The answer is remembered: a powder asks at each step and rarely changes.
        """
        found = self._possible.get(phases)
        if found is None:
            reachable = set(phases)
            n_before = -1
            while len(reachable) > n_before:
                n_before = len(reachable)
                for reaction in self.reactions:
                    if reachable.issuperset({reaction.core, *reaction.partners}):
                        reachable.update(reaction.products)
            found = tuple(
                reaction
                for reaction in self.reactions
                if reachable.issuperset({reaction.core, *reaction.partners})
            )
            self._possible[phases] = found
        return found


CACO3_EQUILIBRIUM: Final = EquilibriumPressure(22.023 - math.log(100.0), 20412.0)
"""CaCO3 = CaO + CO2: fit of 17 tabulated pressures, 550 to 1241 degC, rms 0.14."""

BA2TIO4_EQUILIBRIUM: Final = EquilibriumPressure.through(1.0, 1373.15, 200e3, "CO2")
"""BaCO3 + BaTiO3 = Ba2TiO4 + CO2: 1 bar at 1100 degC, 200 kJ/mol (our calibration,
after the observation that CO2 suppresses Ba2TiO4)."""

_E_LATE = 142e3  # 34 kcal/mol, Kuno et al., J. Jpn Soc. Powder 13 (1966) 47, late stage
_MILLED_RADIUS_UM = 0.4


def _to_titanate(polymorph: str) -> tuple[Reaction, Reaction]:
    return (
        Reaction(
            core=polymorph,
            partners={"BaCO3": 1.0},
            products={"BaTiO3": 1.0},
            gas={"CO2": 1.0},
            law=D4,
            k0=133.0,
            activation_energy=_E_LATE,
            source="E: Kuno 1966, late stage. k0: calibrated to single phase after 5 h "
            "at 800 degC in air, factor in water vapour to 2 h (Ceram. Soc. Japan "
            "meeting 2008S 1I17)",
            reference_radius_um=_MILLED_RADIUS_UM,
            humid_factor=2.5,
        ),
        Reaction(
            core="Ba2TiO4",
            partners={polymorph: 1.0},
            products={"BaTiO3": 2.0},
            gas={},
            law=F1,
            k0=3300.0,
            activation_energy=_E_LATE,
            source="pathway: Kuno 1966; rate calibrated to Ba2TiO4 being a minor "
            "intermediate",
            is_partner_limited=True,
        ),
    )


BATIO3_REACTIONS: Final = (
    *_to_titanate("TiO2-rutile"),
    *_to_titanate("TiO2-anatase"),
    Reaction(
        core="BaTiO3",
        partners={"BaCO3": 1.0},
        products={"Ba2TiO4": 1.0},
        gas={"CO2": 1.0},
        law=F1,
        k0=250.0,
        activation_energy=_E_LATE,
        source="pathway: Kuno 1966; rate calibrated to Ba2TiO4 being a minor "
        "intermediate",
        equilibrium=BA2TIO4_EQUILIBRIUM,
        is_partner_limited=True,
    ),
)

_CACO3_SOURCE = (
    "R2, 176.35 kJ/mol, ln(A/s^-1) 13.7: 'Overall kinetic study of non-isothermal "
    "decomposition of CaCO3', N2 flow, abstract"
)
CACO3_REACTIONS: Final = (
    Reaction(
        core="CaCO3",
        partners={},
        products={"CaO": 1.0},
        gas={"CO2": 1.0},
        law=R2,
        k0=math.exp(13.7),
        activation_energy=176.35e3,
        source=_CACO3_SOURCE,
        reference_radius_um=5.0,
        equilibrium=CACO3_EQUILIBRIUM,
    ),
    # No triplet for carbonation was at hand: the reverse rate is the mirror image of
    # decomposition, which makes the net rate smooth through the equilibrium and never
    # faster than decomposition at the same temperature would be.
    Reaction(
        core="CaO",
        partners={},
        products={"CaCO3": 1.0},
        gas={"CO2": -1.0},
        law=R2,
        k0=math.exp(13.7),
        activation_energy=176.35e3,
        source=f"mirror of the decomposition ({_CACO3_SOURCE}); our assumption",
        reference_radius_um=5.0,
        equilibrium=CACO3_EQUILIBRIUM,
    ),
)

LICOO2_STABILITY: Final = EquilibriumPressure.through(0.209, 1323.15, 355e3, "O2")
"""Least O2 over LiCoO2: in air it loses its structure from 1050 degC on (Antolini, Int.
J. Inorg. Mater. 3 (2001) 721). Enthalpy: taken from the next line (our assumption)."""

COBALT_OXIDE_EQUILIBRIUM: Final = EquilibriumPressure.through(
    0.209, 1173.15, 355e3, "O2"
)
"""2 Co3O4 = 6 CoO + O2: CoO is stable in air above 900 degC (handbook). Enthalpy: from
those of formation, -891 and -238 kJ/mol (memory)."""

_E_LITHIUM = 150e3
_LITHIUM_SOURCE = (
    "onset: LiCoO2 forms above 380 degC, Antolini, Mater. Res. Bull. 32 (1997) 9. "
    "Rate and E: calibrated to the carbonate being nearly used up at 700 degC when "
    "heated at 5 K/min, as the loss of CO2 shows (memory); with molten Li2CO3 100 "
    "times faster (usual 100 to 1000)"
)
_E_VAPOUR = 305e3
_K0_VAPOUR = -math.log(0.15) / 18000.0 * math.exp(_E_VAPOUR / (GAS_CONSTANT * 1573.15))
_VAPOUR_SOURCE = (
    "E 305 kJ/mol, 85 % of Li lost in 5 h at 1300 degC, none below 900 degC: Antolini, "
    "Int. J. Inorg. Mater. 3 (2001) 721, abstract; first order is our choice"
)
_LI2CO3_MELTS_KELVIN = 1005.0

LITHIUM_REACTIONS: Final = (
    Reaction(
        core="Co3O4",
        partners={"Li2CO3": 1.5},
        products={"LiCoO2": 3.0},
        gas={"CO2": 1.5, "O2": -0.25},
        law=D4,
        k0=1.5e4,
        activation_energy=_E_LITHIUM,
        source=_LITHIUM_SOURCE,
        reference_radius_um=_MILLED_RADIUS_UM,
        equilibrium=LICOO2_STABILITY,
        onset_kelvin=653.15,
        wet_above_kelvin=_LI2CO3_MELTS_KELVIN,
        wet_factor=100.0,
    ),
    # Where evaporation left CoO, an excess of lithium carbonate heals it.
    Reaction(
        core="CoO",
        partners={"Li2CO3": 0.5},
        products={"LiCoO2": 1.0},
        gas={"CO2": 0.5, "O2": -0.25},
        law=D4,
        k0=1.5e4,
        activation_energy=_E_LITHIUM,
        source=f"as from Co3O4, our assumption ({_LITHIUM_SOURCE})",
        reference_radius_um=_MILLED_RADIUS_UM,
        equilibrium=LICOO2_STABILITY,
        onset_kelvin=653.15,
        wet_above_kelvin=_LI2CO3_MELTS_KELVIN,
        wet_factor=100.0,
    ),
    Reaction(
        core="LiCoO2",
        partners={},
        products={"CoO": 1.0},
        gas={"Li": 1.0, "O2": 0.5},
        law=F1,
        k0=_K0_VAPOUR,
        activation_energy=_E_VAPOUR,
        source=_VAPOUR_SOURCE,
    ),
    Reaction(
        core="Li2CO3",
        partners={},
        products={},
        gas={"Li": 2.0, "O2": 0.5, "CO2": 1.0},
        law=F1,
        k0=_K0_VAPOUR,
        activation_energy=_E_VAPOUR,
        source=f"as from LiCoO2, our assumption ({_VAPOUR_SOURCE})",
    ),
    Reaction(
        core="Co3O4",
        partners={},
        products={"CoO": 3.0},
        gas={"O2": 0.5},
        law=F1,
        k0=3.5e5,
        activation_energy=200e3,
        source="pathway: handbook; rate: our choice, complete in an hour at 950 degC",
        equilibrium=COBALT_OXIDE_EQUILIBRIUM,
    ),
    Reaction(
        core="CoO",
        partners={},
        products={"Co3O4": 1.0 / 3.0},
        gas={"O2": -1.0 / 6.0},
        law=F1,
        k0=3.5e5,
        activation_energy=200e3,
        source="mirror of the reduction, our assumption",
        equilibrium=COBALT_OXIDE_EQUILIBRIUM,
    ),
)

YBCO_STABILITY: Final = EquilibriumPressure.through(4.05e-4, 1123.15, 455e3, "O2")
"""Least O2 over YBa2Cu3O6: 4.0e-4 atm at 850 degC (Physica C (1990), "Quaternary phase
relations near YBa2Cu3O6+x at 850 degC in reduced oxygen pressures", abstract).

Enthalpy: such that it is 0.21 bar at 1015 degC, where it melts incongruently in air
(Adv. X-Ray Anal. (1991), as for ``EUTECTICS``). That gives 1e-6 bar at 727 degC, and in
inert gas YBa2Cu3O7-x decomposes above 725 degC (J. Mater. Res. (1994) 275).
"""

YBCO_OXYGEN_EQUILIBRIUM: Final = EquilibriumPressure.through(1.0, 973.15, 220e3, "O2")
"""YBa2Cu3O7 = YBa2Cu3O6 + 1/2 O2: 1 bar near 700 degC, where the structure turns
tetragonal in pure O2 (Jorgensen et al., Phys. Rev. B 36 (1987) 3608). Enthalpy: memory.
The oxygen content between 6 and 7 is expressed as shares of the two end members."""

BACUO2_EQUILIBRIUM: Final = EquilibriumPressure.through(1.0, 1273.15, 200e3, "CO2")
"""BaCO3 + CuO = BaCuO2 + CO2 (our choice, such that CO2 hinders it)."""

COPPER_OXIDE_EQUILIBRIUM: Final = EquilibriumPressure.through(
    0.209, 1303.15, 260e3, "O2"
)
"""4 CuO = 2 Cu2O + O2: 1030 degC in air (memory)."""

_E_CUPRATE = 243.5e3
_CUPRATE_MELTS_KELVIN = 1198.15
_PAIRWISE = "pairwise outcomes of 188 robotic syntheses (njszym/ARROWS)"
_FORMS_123 = "rate: calibrated to 12 h at 900 to 950 degC, the usual carbonate route"

CUPRATE_REACTIONS: Final = (
    Reaction(
        core="BaCO3",
        partners={"CuO": 1.0},
        products={"BaCuO2": 1.0},
        gas={"CO2": 1.0},
        law=D4,
        k0=1.0e5,
        activation_energy=212e3,
        source="E 50.73 kcal/mol and window from 825 degC: TGA of BaCO3 + CuO, "
        f"abstract, acnpsearch 34068835. {_FORMS_123}",
        reference_radius_um=_MILLED_RADIUS_UM,
        wet_above_kelvin=_CUPRATE_MELTS_KELVIN,
        equilibrium=BACUO2_EQUILIBRIUM,
        onset_kelvin=1098.15,
    ),
    Reaction(
        core="Y2O3",
        partners={"CuO": 2.0},
        products={"Y2Cu2O5": 1.0},
        gas={},
        law=D3,
        k0=2.0e5,
        activation_energy=_E_CUPRATE,
        source="law and E 58.2 kcal/mol: J. Mater. Sci. 31 (1996) 3053, abstract. "
        f"{_FORMS_123}",
        reference_radius_um=_MILLED_RADIUS_UM,
    ),
    Reaction(
        core="Y2O3",
        partners={"BaCuO2": 1.0},
        products={"Y2BaCuO5": 1.0},
        gas={},
        law=D4,
        k0=2.0e5,
        activation_energy=_E_CUPRATE,
        source=f"window 800 to 900 degC: {_PAIRWISE}. E: as Y2Cu2O5. {_FORMS_123}",
        reference_radius_um=_MILLED_RADIUS_UM,
        wet_above_kelvin=_CUPRATE_MELTS_KELVIN,
        onset_kelvin=1073.15,
    ),
    Reaction(
        core="Y2Cu2O5",
        partners={"BaCuO2": 4.0},
        products={"YBa2Cu3O6": 2.0},
        gas={"O2": 0.5},
        law=D4,
        k0=1.0e7,
        activation_energy=_E_CUPRATE,
        source=f"done by 800 degC: {_PAIRWISE}. E: as Y2Cu2O5. {_FORMS_123}",
        reference_radius_um=_MILLED_RADIUS_UM,
        wet_above_kelvin=_CUPRATE_MELTS_KELVIN,
        equilibrium=YBCO_STABILITY,
        needs_gas=True,
    ),
    Reaction(
        core="Y2Cu2O5",
        partners={"BaCO3": 1.6},
        products={"YBa2Cu3O6": 0.4, "Y2BaCuO5": 0.8},
        gas={"CO2": 1.6, "O2": 0.1},
        law=D4,
        k0=2.0e5,
        activation_energy=_E_CUPRATE,
        source=f"window 800 to 900 degC: {_PAIRWISE}. E: as Y2Cu2O5. {_FORMS_123}",
        reference_radius_um=_MILLED_RADIUS_UM,
        equilibrium=YBCO_STABILITY,
        needs_gas=True,
        onset_kelvin=1073.15,
    ),
    Reaction(
        core="Y2BaCuO5",
        partners={"BaCuO2": 3.0, "CuO": 2.0},
        products={"YBa2Cu3O6": 2.0},
        gas={"O2": 0.5},
        law=D4,
        k0=1.2e5,
        activation_energy=_E_CUPRATE,
        source="pathway: the peritectic reaction read backwards, seen on cooling "
        "('Ba2YCu3Ox crystal formed by peritectic reaction', abstract). E: as Y2Cu2O5. "
        f"{_FORMS_123}; in the melt 100 times faster (usual 100 to 1000)",
        reference_radius_um=_MILLED_RADIUS_UM,
        equilibrium=YBCO_STABILITY,
        needs_gas=True,
        onset_kelvin=1073.15,
        wet_above_kelvin=_CUPRATE_MELTS_KELVIN,
        wet_factor=10.0,
    ),
    Reaction(
        core="YBa2Cu3O6",
        partners={},
        products={"Y2BaCuO5": 0.5, "BaCuO2": 1.5, "Cu2O": 0.5},
        gas={},
        law=F1,
        k0=4.2e7,
        activation_energy=250e3,
        source="green phase and reduced copper below the stability limit: see there; "
        "real products are BaCu2O2 and YBa3Cu2O6.5 besides. Rate: our choice",
        equilibrium=YBCO_STABILITY,
    ),
    Reaction(
        core="YBa2Cu3O6",
        partners={},
        products={"YBa2Cu3O7": 1.0},
        gas={"O2": -0.5},
        law=D4,
        k0=1.4e4,
        activation_energy=93.6e3,
        source="D / r^2 with D = 1.4e-4 cm2/s exp(-0.97 eV / kT): Rothman et al., "
        "Phys. Rev. B 44 (1991) 2326 (memory)",
        equilibrium=YBCO_OXYGEN_EQUILIBRIUM,
    ),
    Reaction(
        core="YBa2Cu3O7",
        partners={},
        products={"YBa2Cu3O6": 1.0},
        gas={"O2": 0.5},
        law=D4,
        k0=1.4e4,
        activation_energy=93.6e3,
        source="mirror of the uptake of oxygen, our assumption",
        equilibrium=YBCO_OXYGEN_EQUILIBRIUM,
    ),
    Reaction(
        core="Cu2O",
        partners={},
        products={"CuO": 2.0},
        gas={"O2": -0.5},
        law=F1,
        k0=10.0,
        activation_energy=80e3,
        source=f"done by 600 degC in air: {_PAIRWISE}; rate: our choice",
        equilibrium=COPPER_OXIDE_EQUILIBRIUM,
    ),
    Reaction(
        core="CuO",
        partners={},
        products={"Cu2O": 0.5},
        gas={"O2": 0.25},
        law=F1,
        k0=1.0e5,
        activation_energy=200e3,
        source="pathway: handbook; rate: our choice",
        equilibrium=COPPER_OXIDE_EQUILIBRIUM,
    ),
)

DEFAULT_NETWORK: Final = ReactionNetwork(
    (*BATIO3_REACTIONS, *CACO3_REACTIONS, *LITHIUM_REACTIONS, *CUPRATE_REACTIONS)
)


def advance(
    matter: Matter,
    temperature_kelvin: float,
    dt: float,
    atmosphere: Atmosphere = AIR,
    network: ReactionNetwork = DEFAULT_NETWORK,
) -> None:
    """Advance *matter* in place by *dt* at one temperature.

    Steps are ``CHEMISTRY_GRID`` long; a caller whose *dt* are whole multiples of it
    gets the same result for any cutting into calls. Below the temperature at which
    any rate could matter this costs a comparison.

    Args:
        matter: What reacts; also learns its highest temperature and whether it melted.
        temperature_kelvin: Its temperature.
        dt: Duration [s]; must be >= 0.
        atmosphere: Gas over it.
        network: Reactions that can happen.
    """
    if temperature_kelvin > matter.max_temperature_kelvin:
        matter.max_temperature_kelvin = temperature_kelvin
        matter.melt_at(temperature_kelvin)
    if dt <= 0.0 or temperature_kelvin < network.quiet_below_kelvin:
        return
    active = [
        reaction
        for reaction in network.possible_with(tuple(matter.amounts))
        if temperature_kelvin >= reaction.quiet_below_kelvin
    ]
    left = dt
    while left > 0.0:
        step = CHEMISTRY_GRID if left > CHEMISTRY_GRID else left
        matter.melt_at(temperature_kelvin)
        for reaction in active:
            reaction.act(matter, temperature_kelvin, step, atmosphere)
        left -= CHEMISTRY_GRID


def advance_on_grid(
    matter: Matter,
    start: float,
    end: float,
    temperature_kelvin_at: Callable[[float], float],
    atmosphere: Atmosphere = AIR,
    network: ReactionNetwork = DEFAULT_NETWORK,
) -> float:
    """Advance *matter* to the last grid point not after *end*; return that time.

    Grid points are the multiples of ``CHEMISTRY_GRID``. Passing the returned time as
    the next *start* makes the result independent of how often anyone asks.

    Args:
        matter: What reacts, changed in place.
        start: Lab time it has been advanced to [s].
        end: Lab time wanted [s]; nothing happens if no grid point lies between.
        temperature_kelvin_at: Temperature at a lab time, asked at middles of steps.
        atmosphere: Gas over it.
        network: Reactions that can happen.
    """
    while True:
        following = (math.floor(start / CHEMISTRY_GRID) + 1.0) * CHEMISTRY_GRID
        if following > end:
            return start
        temperature = temperature_kelvin_at(0.5 * (start + following))
        advance(matter, temperature, following - start, atmosphere, network)
        start = following
