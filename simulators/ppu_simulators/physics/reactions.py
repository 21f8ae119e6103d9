"""Networks of solid-state reactions acting on :class:`~.matter.Matter`.

A reaction consumes the grains of its *core* reactant by a rate law; partners are
taken along by stoichiometry and stop it when they run out. Within one step the
reactions act one after the other, each integrated exactly, so amounts never turn
negative and elements (with the gas) are conserved to rounding error at any step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ppu_simulators.physics.constants import GAS_CONSTANT
from ppu_simulators.physics.kinetics import D4, F1, R2, RateLaw, arrhenius
from ppu_simulators.physics.matter import phase_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    """

    p_co2_bar: float = 0.0004
    is_humid: bool = False

    def __post_init__(self) -> None:
        if self.p_co2_bar < 0:
            raise ValueError("p_co2_bar must be >= 0")


AIR: Final = Atmosphere()


@dataclass(frozen=True)
class EquilibriumPressure:
    """Equilibrium pressure of CO2, ``ln(p/bar) = intercept - slope_kelvin / T``."""

    intercept: float
    slope_kelvin: float

    def bar_at(self, temperature_kelvin: float) -> float:
        """Return the equilibrium pressure [bar]."""
        return math.exp(self.intercept - self.slope_kelvin / temperature_kelvin)


@dataclass(frozen=True)
class Reaction:
    """One reaction, written for one mole of its core reactant.

    Attributes:
        core: Phase whose grains the rate law is about.
        partners: Other solids consumed [mol per mol of core].
        products: Solids formed [mol per mol of core].
        co2: CO2 given off [mol per mol of core]; negative where it is taken up.
        law: Rate law of the core's conversion.
        k0: Prefactor at the reference radius, in air, well mixed [1/s].
        activation_energy: E [J/mol].
        source: Where the numbers come from.
        reference_radius_um: Radius of the core's grains that ``k0`` holds for.
        equilibrium: Pressure of CO2 at which the reaction stands still. The rate is
            multiplied by 1 - p/p_eq if CO2 is given off, by 1 - p_eq/p if it is
            taken up, and is zero where that is negative.
        is_partner_limited: Whether the rate falls as the partner gets scarce, by
            n_partner / (n_partner + n_core); otherwise it stops only at zero.
        humid_factor: Factor of the rate in water vapour.
    """

    core: str
    partners: Mapping[str, float]
    products: Mapping[str, float]
    co2: float
    law: RateLaw
    k0: float
    activation_energy: float
    source: str
    reference_radius_um: float = 1.0
    equilibrium: EquilibriumPressure | None = None
    is_partner_limited: bool = False
    humid_factor: float = 1.0
    quiet_below_kelvin: float = field(init=False)

    def __post_init__(self) -> None:
        fastest = self.reference_radius_um / _SMALLEST_RADIUS_UM
        fastest = self.k0 * self.humid_factor * fastest**self.law.radius_exponent
        quiet = self.activation_energy / (
            GAS_CONSTANT * math.log(fastest / _NEGLIGIBLE_RATE)
        )
        object.__setattr__(self, "quiet_below_kelvin", quiet)

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
        if self.co2:
            (right if self.co2 > 0 else left)["CO2"] = abs(self.co2)
        return f"{side(left)} -> {side(right)}"

    def rate_constant(
        self, matter: Matter, temperature_kelvin: float, atmosphere: Atmosphere = AIR
    ) -> float:
        """Return k of the core's rate law for *matter* [1/s]; 0 if it cannot run."""
        k = arrhenius(self.k0, self.activation_energy, temperature_kelvin)
        exponent = self.law.radius_exponent
        if exponent:
            size = self.reference_radius_um / matter.radii_um[self.core]
            k *= size if exponent == 1 else size * size
        if self.partners:
            k *= _CONTACT_UNMIXED + (1.0 - _CONTACT_UNMIXED) * matter.mixedness
        if atmosphere.is_humid:
            k *= self.humid_factor
        if self.equilibrium is not None:
            p_equilibrium = self.equilibrium.bar_at(temperature_kelvin)
            k *= _driving_force(self.co2, atmosphere.p_co2_bar, p_equilibrium)
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
        if self.co2:
            matter.gas["CO2"] = matter.gas.get("CO2", 0.0) + self.co2 * extent


def _driving_force(co2: float, p_bar: float, p_equilibrium_bar: float) -> float:
    if co2 > 0.0:
        return max(0.0, 1.0 - p_bar / p_equilibrium_bar)
    return max(0.0, 1.0 - p_equilibrium_bar / p_bar) if p_bar > 0.0 else 0.0


@dataclass(frozen=True)
class ReactionNetwork:
    """Reactions that can happen, in the order in which a step applies them."""

    reactions: tuple[Reaction, ...]
    quiet_below_kelvin: float = field(init=False)

    def __post_init__(self) -> None:
        quiet = min((r.quiet_below_kelvin for r in self.reactions), default=math.inf)
        object.__setattr__(self, "quiet_below_kelvin", quiet)


CACO3_EQUILIBRIUM: Final = EquilibriumPressure(22.023 - math.log(100.0), 20412.0)
"""CaCO3 = CaO + CO2: fit of 17 tabulated pressures, 550 to 1241 degC, rms 0.14."""

BA2TIO4_EQUILIBRIUM: Final = EquilibriumPressure(
    200e3 / (GAS_CONSTANT * 1373.15), 200e3 / GAS_CONSTANT
)
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
            co2=1.0,
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
            co2=0.0,
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
        co2=1.0,
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
        co2=1.0,
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
        co2=-1.0,
        law=R2,
        k0=math.exp(13.7),
        activation_energy=176.35e3,
        source=f"mirror of the decomposition ({_CACO3_SOURCE}); our assumption",
        reference_radius_um=5.0,
        equilibrium=CACO3_EQUILIBRIUM,
    ),
)

DEFAULT_NETWORK: Final = ReactionNetwork((*BATIO3_REACTIONS, *CACO3_REACTIONS))


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
        matter.is_melted = matter.is_melted or any(
            (melting := phase_named(name).melting_kelvin) is not None
            and amount > 0.0
            and temperature_kelvin >= melting
            for name, amount in matter.amounts.items()
        )
    if temperature_kelvin < network.quiet_below_kelvin or dt <= 0.0:
        return
    active = [
        reaction
        for reaction in network.reactions
        if temperature_kelvin >= reaction.quiet_below_kelvin
    ]
    left = dt
    while left > 0.0:
        step = CHEMISTRY_GRID if left > CHEMISTRY_GRID else left
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
