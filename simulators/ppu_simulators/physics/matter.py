"""Matter: powders as amounts of solids, with the state that later acts depend on.

A :class:`Matter` says what is in a container. Instruments act on it through the
other models of this package; elements are conserved by each of them when the gas
that left is counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# IUPAC standard atomic weights 2021, abridged values (Pure Appl. Chem. 94 (2022)
# 573, doi 10.1515/pac-2019-0603); conventional values where an interval is given.
ATOMIC_WEIGHTS: Final[dict[str, float]] = {
    "H": 1.008, "Li": 6.94, "Be": 9.0122, "B": 10.81, "C": 12.011, "N": 14.007,
    "O": 15.999, "F": 18.998, "Na": 22.990, "Mg": 24.305, "Al": 26.982,
    "Si": 28.085, "P": 30.974, "S": 32.06, "Cl": 35.45, "K": 39.098, "Ca": 40.078,
    "Sc": 44.956, "Ti": 47.867, "V": 50.942, "Cr": 51.996, "Mn": 54.938,
    "Fe": 55.845, "Co": 58.933, "Ni": 58.693, "Cu": 63.546, "Zn": 65.38,
    "Ga": 69.723, "Ge": 72.630, "As": 74.922, "Se": 78.971, "Br": 79.904,
    "Rb": 85.468, "Sr": 87.62, "Y": 88.906, "Zr": 91.224, "Nb": 92.906,
    "Mo": 95.95, "Ru": 101.07, "Rh": 102.91, "Pd": 106.42, "Ag": 107.87,
    "Cd": 112.41, "In": 114.82, "Sn": 118.71, "Sb": 121.76, "Te": 127.60,
    "I": 126.90, "Cs": 132.91, "Ba": 137.33, "La": 138.91, "Ce": 140.12,
    "Pr": 140.91, "Nd": 144.24, "Sm": 150.36, "Eu": 151.96, "Gd": 157.25,
    "Tb": 158.93, "Dy": 162.50, "Ho": 164.93, "Er": 167.26, "Tm": 168.93,
    "Yb": 173.05, "Lu": 174.97, "Hf": 178.49, "Ta": 180.95, "W": 183.84,
    "Re": 186.21, "Os": 190.23, "Ir": 192.22, "Pt": 195.08, "Au": 196.97,
    "Hg": 200.59, "Tl": 204.38, "Pb": 207.2, "Bi": 208.98,
}  # fmt: skip

_TOKEN = re.compile(r"([A-Z][a-z]?)|(\()|(\))|(\d+(?:\.\d+)?)")


@cache
def _parsed_formula(formula: str) -> tuple[tuple[str, float], ...]:
    total: dict[str, float] = {}
    for part in re.split(r"[*\u00b7]", formula):
        match = re.match(r"\d+(?=[A-Z(])", part)
        multiplier = float(match.group()) if match else 1.0
        for symbol, count in _parsed_part(part[match.end() :] if match else part):
            total[symbol] = total.get(symbol, 0.0) + multiplier * count
    return tuple(total.items())


def _parsed_part(part: str) -> list[tuple[str, float]]:
    """Parse one part without a hydrate dot."""
    stack: list[list[tuple[str, float]]] = [[]]
    last: list[tuple[str, float]] = []  # the atom or group a number would multiply
    position = 0
    while position < len(part):
        match = _TOKEN.match(part, position)
        if match is None:
            raise ValueError(f"cannot read the formula {part!r} at {position}")
        position = match.end()
        symbol, opening, closing, number = match.groups()
        if symbol and symbol in ATOMIC_WEIGHTS:
            last = [(symbol, 1.0)]
            stack[-1].extend(last)
        elif opening:
            stack.append([])
            last = []
        elif closing and len(stack) > 1:
            last = stack.pop()
            stack[-1].extend(last)
        elif number and last:
            del stack[-1][-len(last) :]
            stack[-1].extend((name, count * float(number)) for name, count in last)
            last = []
        else:
            raise ValueError(f"unexpected {match.group()!r} in the formula {part!r}")
    if len(stack) != 1 or not stack[0]:
        raise ValueError(f"the formula {part!r} is empty or has an open bracket")
    return stack[0]


def parse_formula(formula: str) -> dict[str, float]:
    """Return the atoms of a chemical formula, brackets and hydrates included.

    Raises:
        ValueError: If it is not a formula or names an unknown element.

    Example:
        >>> parse_formula("Ca(OH)2")
        {'Ca': 1.0, 'O': 2.0, 'H': 2.0}
        >>> parse_formula("CaC2O4*H2O")["O"]
        5.0
    """
    return dict(_parsed_formula(formula))


@cache
def molar_mass(formula: str) -> float:
    """Return the molar mass of *formula* [g/mol].

    Example:
        >>> round(molar_mass("BaCO3"), 3)
        197.338
    """
    return sum(
        count * ATOMIC_WEIGHTS[symbol] for symbol, count in _parsed_formula(formula)
    )


@dataclass(frozen=True)
class Phase:
    """A solid phase.

    Attributes:
        name: Name used as key, ``formula`` or ``formula-polymorph``.
        formula: Chemical formula.
        density_g_per_ml: Density of the solid itself.
        melting_kelvin: Melting point, None where no source was at hand.
        radius_um: Particle radius of the powder as bought.
    """

    name: str
    formula: str
    density_g_per_ml: float
    melting_kelvin: float | None = None
    radius_um: float = 1.0

    @property
    def molar_mass(self) -> float:
        """Molar mass [g/mol]."""
        return molar_mass(self.formula)


# Densities of phases with a structure follow from the cells in the phase library; the
# others are handbook values from memory. See docs/reference.
PHASES: Final[dict[str, Phase]] = {
    phase.name: phase
    for phase in (
        Phase("BaCO3", "BaCO3", 4.31),
        Phase("TiO2-rutile", "TiO2", 4.25),
        Phase("TiO2-anatase", "TiO2", 3.89),
        Phase("BaTiO3", "BaTiO3", 6.02),
        Phase("Ba2TiO4", "Ba2TiO4", 5.20),
        Phase("CaCO3", "CaCO3", 2.71, radius_um=5.0),
        Phase("CaO", "CaO", 3.35, radius_um=5.0),
        Phase("Li2CO3", "Li2CO3", 2.10, melting_kelvin=1005.0),
        Phase("Co3O4", "Co3O4", 6.06),
        Phase("CoO", "CoO", 6.43),
        Phase("LiCoO2", "LiCoO2", 5.05),
        Phase("Y2O3", "Y2O3", 5.04),
        Phase("CuO", "CuO", 6.52, melting_kelvin=1500.0),
        Phase("Cu2O", "Cu2O", 6.11),
        Phase("BaCuO2", "BaCuO2", 5.70),
        Phase("Y2Cu2O5", "Y2Cu2O5", 5.43),
        Phase("Y2BaCuO5", "Y2BaCuO5", 6.20),
        Phase("YBa2Cu3O6", "YBa2Cu3O6", 6.14, melting_kelvin=1288.15),
        Phase("YBa2Cu3O7", "YBa2Cu3O7", 6.39, melting_kelvin=1288.15),
        Phase("ZnO", "ZnO", 5.68),
        Phase("SiO2", "SiO2", 2.65),
        Phase("Al2O3", "Al2O3", 3.98),
        Phase("Fe2O3", "Fe2O3", 5.27),
    )
}
_UNKNOWN_DENSITY = 4.0

EUTECTICS: Final[tuple[tuple[float, tuple[str, ...]], ...]] = (
    (1198.15, ("BaCuO2", "CuO")),
)
"""Temperature [kelvin] at which phases in contact melt together.

YBa2Cu3O6+x + BaCuO2 + CuO melt at about 925 degC: "Oxidation/reduction melting
equilibria in the system BaO-1/2 Y2O3-CuOx II", Adv. X-Ray Anal. (1991), abstract.
"""


@cache
def phase_named(name: str) -> Phase:
    """Return the phase *name*; any ``formula`` or ``formula-polymorph`` is one.

    A phase that is not in ``PHASES`` gets a density of 4 g/mL and stays inert.

    Raises:
        ValueError: If the part before the first hyphen is not a formula.
    """
    if name in PHASES:
        return PHASES[name]
    formula = name.split("-", 1)[0]
    parse_formula(formula)
    return Phase(name, formula, _UNKNOWN_DENSITY)


CAKING_FRACTION: Final = 0.05
"""Mass fraction that must melt to turn a powder into a cake (our choice)."""

CAKE_RADIUS_UM: Final = 10.0
"""Least particle radius in what has been molten (our choice)."""


@cache
def _melts() -> tuple[tuple[float, tuple[str, ...]], ...]:
    """Return what melts, lowest temperature [kelvin] first."""
    single = [
        (phase.melting_kelvin, (phase.name,))
        for phase in PHASES.values()
        if phase.melting_kelvin is not None
    ]
    return tuple(sorted([*single, *EUTECTICS]))


LOOSE_PACKING: Final = 0.25
"""Volume fraction of solid in a loosely poured fine powder (our choice)."""

HAUSNER_RATIO: Final = 1.3
"""Tapped over loose bulk density of a cohesive powder (memory)."""


@dataclass
class Matter:
    """A portion of powder: how much of which solid, and in which state.

    Build one with :meth:`of` and :meth:`merge`; the attributes are the state that
    the models of this package read and change.

    Attributes:
        amounts: Amount of each phase [mol].
        grains: Amount each phase's grains held when their surface was last fresh
            [mol], at least ``amounts``. ``1 - amounts/grains`` is the reacted part of
            the grains, the conversion that a diffusion law is about.
        radii_um: Particle radius of each phase.
        mixedness: 1 where every spot has the mean composition, 0 for phases lying
            side by side: one minus the variance of composition between spots,
            relative to separate phases (Lacey's index).
        tapped: 0 as poured, 1 tapped down.
        gas: Gas given off so far [mol]; negative where more was taken up.
        loose_densities: Loose bulk density where it is known [g/mL].
        max_temperature_kelvin: Highest temperature this portion has seen.
        melted: What has been molten, such as ``Li2CO3`` or ``BaCuO2 + CuO``, so that
            the portion sits caked; None for a loose powder.
    """

    amounts: dict[str, float] = field(default_factory=dict)
    grains: dict[str, float] = field(default_factory=dict)
    radii_um: dict[str, float] = field(default_factory=dict)
    mixedness: float = 1.0
    tapped: float = 0.0
    gas: dict[str, float] = field(default_factory=dict)
    loose_densities: dict[str, float] = field(default_factory=dict)
    max_temperature_kelvin: float = 0.0
    melted: str | None = None

    @classmethod
    def of(
        cls,
        phase: str,
        mass_g: float,
        *,
        radius_um: float | None = None,
        bulk_density_g_per_ml: float | None = None,
    ) -> Matter:
        """Return *mass_g* of one pure powder.

        Raises:
            ValueError: If *phase* is not a formula, or a number is out of range.

        Example:
            >>> round(Matter.of("TiO2-rutile", 0.79865).amounts["TiO2-rutile"], 5)
            0.01
        """
        known = phase_named(phase)
        radius = known.radius_um if radius_um is None else radius_um
        if mass_g < 0 or radius <= 0:
            raise ValueError("mass_g must be >= 0 and radius_um > 0")
        if bulk_density_g_per_ml is not None and bulk_density_g_per_ml <= 0:
            raise ValueError("bulk_density_g_per_ml must be > 0")
        amount = mass_g / known.molar_mass
        return cls(
            amounts={phase: amount},
            grains={phase: amount},
            radii_um={phase: radius},
            loose_densities=(
                {} if bulk_density_g_per_ml is None else {phase: bulk_density_g_per_ml}
            ),
        )

    @property
    def mass_g(self) -> float:
        """Mass of the solids [g]; gas that left does not count."""
        return sum(
            amount * phase_named(name).molar_mass
            for name, amount in self.amounts.items()
        )

    @property
    def volume_ml(self) -> float:
        """Bulk volume [mL]: what it takes up in a crucible."""
        loose = 0.0
        for name, amount in self.amounts.items():
            phase = phase_named(name)
            density = self.loose_densities.get(
                name, LOOSE_PACKING * phase.density_g_per_ml
            )
            loose += amount * phase.molar_mass / density
        return loose / (1.0 + (HAUSNER_RATIO - 1.0) * self.tapped)

    @property
    def heat_capacity_j_per_k(self) -> float:
        """Heat capacity by Dulong and Petit's rule, 3R for each mole of atoms."""
        atoms = sum(
            amount * sum(count for _, count in _parsed_formula(phase_named(n).formula))
            for n, amount in self.amounts.items()
        )
        return 24.94 * atoms

    def melt_at(self, temperature_kelvin: float) -> None:
        """Turn into a cake of coarse grains if enough of it melts.

        Nothing happens to what is a cake already.
        """
        if self.melted is not None:
            return
        for melting_kelvin, phases in _melts():
            if temperature_kelvin < melting_kelvin:
                return
            # Nearly always one of them is absent: look before weighing.
            if any(self.amounts.get(name, 0.0) <= 0.0 for name in phases):
                continue
            # What melts together does so in about equal masses (our choice).
            masses = self.masses_g()
            melt_g = len(phases) * min(masses[name] for name in phases)
            if melt_g >= CAKING_FRACTION * self.mass_g:
                self.melted = " + ".join(phases)
                for name, radius in self.radii_um.items():
                    self.radii_um[name] = max(radius, CAKE_RADIUS_UM)
                return

    def masses_g(self) -> dict[str, float]:
        """Return the mass of each phase that is there [g]."""
        return {
            name: amount * phase_named(name).molar_mass
            for name, amount in self.amounts.items()
            if amount > 0.0
        }

    def weight_fractions(self) -> dict[str, float]:
        """Return the mass fraction of each phase that is there; empty for nothing."""
        masses = self.masses_g()
        total = sum(masses.values())
        return {name: mass / total for name, mass in masses.items()}

    def elements(self, *, with_gas: bool = True) -> dict[str, float]:
        """Return the amount of each element [mol].

        Args:
            with_gas: Count the gas that left, so that the sum is conserved.
        """
        total: dict[str, float] = {}
        parts = [(phase_named(n).formula, a) for n, a in self.amounts.items()]
        if with_gas:
            parts += self.gas.items()
        for formula, amount in parts:
            for symbol, count in _parsed_formula(formula):
                total[symbol] = total.get(symbol, 0.0) + count * amount
        return total

    def copy(self) -> Matter:
        """Return an independent copy."""
        return Matter(
            dict(self.amounts),
            dict(self.grains),
            dict(self.radii_um),
            self.mixedness,
            self.tapped,
            dict(self.gas),
            dict(self.loose_densities),
            self.max_temperature_kelvin,
            self.melted,
        )

    def split(self, fraction: float) -> tuple[Matter, Matter]:
        """Return the part taken (*fraction* of everything) and the part left.

        The part left is the difference of amounts, so the two always sum to the
        whole; both keep the state of the whole.

        Raises:
            ValueError: If *fraction* is outside 0..1.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction must be within 0..1, not {fraction}")
        taken, left = self.copy(), self.copy()
        for whole, part, rest in (
            (self.amounts, taken.amounts, left.amounts),
            (self.grains, taken.grains, left.grains),
            (self.gas, taken.gas, left.gas),
        ):
            for name, amount in whole.items():
                part[name] = fraction * amount
                rest[name] = amount - part[name]
        return taken, left

    def take(self, mass_g: float) -> tuple[Matter, Matter]:
        """Return *mass_g* of it (or all, if there is less) and what is left.

        Raises:
            ValueError: If *mass_g* is negative.
        """
        if mass_g < 0:
            raise ValueError("mass_g must be >= 0")
        mass = self.mass_g
        return self.split(min(1.0, mass_g / mass) if mass > 0 else 1.0)

    def composition_variance(self) -> float:
        """Return the sum over phases of x(1 - x), x the mass fractions."""
        return sum(x * (1.0 - x) for x in self.weight_fractions().values())


def merge(portions: Iterable[Matter]) -> Matter:
    """Return the portions poured together, unmixed.

    Radii are averaged by volume of each phase. The mixedness follows the law of
    total variance: pouring like onto like keeps it, two different pure powders
    give 0.

    Example:
        >>> both = merge([Matter.of("BaCO3", 1.0), Matter.of("TiO2-rutile", 0.4)])
        >>> round(both.mass_g, 12), both.mixedness
        (1.4, 0.0)
    """
    parts = list(portions)
    merged = Matter()
    for part in parts:
        for name, amount in part.amounts.items():
            before = merged.amounts.get(name, 0.0)
            after = before + amount
            if after > 0:
                radius = merged.radii_um.get(name, 0.0)
                merged.radii_um[name] = (
                    before * radius + amount * part.radii_um[name]
                ) / after
            else:
                merged.radii_um.setdefault(name, part.radii_um[name])
            merged.amounts[name] = after
            # Spent grains (a shell around nothing) do not slow fresh ones.
            merged.grains[name] = merged.grains.get(name, 0.0) + (
                part.grains.get(name, amount) if amount > 0 else 0.0
            )
        for name, amount in part.gas.items():
            merged.gas[name] = merged.gas.get(name, 0.0) + amount
        merged.loose_densities.update(part.loose_densities)
        merged.melted = merged.melted or part.melted
        merged.max_temperature_kelvin = max(
            merged.max_temperature_kelvin, part.max_temperature_kelvin
        )
    merged.mixedness = _merged_mixedness(parts, merged)
    total = merged.mass_g
    if total > 0:
        merged.tapped = sum(p.mass_g * p.tapped for p in parts) / total
    return merged


def _merged_mixedness(parts: list[Matter], merged: Matter) -> float:
    mean = merged.weight_fractions()
    full = sum(x * (1.0 - x) for x in mean.values())
    if full <= 0.0:
        return 1.0
    total = merged.mass_g
    variance = 0.0
    for part in parts:
        weight = part.mass_g / total
        own: Mapping[str, float] = part.weight_fractions()
        variance += weight * (1.0 - part.mixedness) * part.composition_variance()
        variance += weight * sum((own.get(n, 0.0) - x) ** 2 for n, x in mean.items())
    return min(max(1.0 - variance / full, 0.0), 1.0)


def element_fraction_in(matter: Matter, element: str, phase: str) -> float:
    """Return the part of *element* that sits in *phase*, 0..1; 0 if there is none.

    For BaTiO3 from BaCO3 and TiO2 the part of Ti in BaTiO3 is the true conversion.
    """
    total = matter.elements(with_gas=False).get(element, 0.0)
    if total <= 0.0:
        return 0.0
    count = parse_formula(phase_named(phase).formula).get(element, 0.0)
    return count * matter.amounts.get(phase, 0.0) / total
