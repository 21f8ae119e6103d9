"""Products that can be asked for by name, with how each is usually made.

The settings bear the names of the parameters of ``solid_state_synthesis``. Firing
programs are those of the literature named; where it gives a range, the choice within
it is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from ppu.core.errors import ConfigurationError, nearest

__all__ = ["TARGETS", "Target", "target_named"]


@dataclass(frozen=True)
class Target:
    """How one product is made from powders.

    Attributes:
        target: Formula of the product.
        precursors: Names of powders in stock; masses follow from stoichiometry.
        candidate_phases: Bundled structures that the pattern is searched for.
        ramp_degc_per_min: Heating rate.
        temperature_degc: Temperature of the dwell.
        hold_s: Length of the dwell.
        source: Where the firing program comes from.
        milling_s: Mixing of the powders before the firing.
        batch_mass_g: All powders together.
        excess: Extra part of some precursors.
    """

    target: str
    precursors: tuple[str, ...]
    candidate_phases: tuple[str, ...]
    ramp_degc_per_min: float
    temperature_degc: float
    hold_s: float
    source: str
    milling_s: float = 600.0
    batch_mass_g: float = 4.0
    excess: Mapping[str, float] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return the parameters of ``solid_state_synthesis`` for this product.

        Example:
            >>> TARGETS["CaO"].settings()["precursors"]
            ('CaCO3',)
        """
        values = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name != "source"
        }
        return {**values, "excess": dict(self.excess)}


_ALL: Final = (
    Target(
        target="BaTiO3",
        precursors=("BaCO3", "TiO2"),
        candidate_phases=("BaTiO3", "BaCO3", "TiO2-anatase", "TiO2-rutile"),
        ramp_degc_per_min=2.0,
        temperature_degc=800.0,
        hold_s=18000.0,
        source="single phase after 5 h at 800 degC in air: Ceram. Soc. Japan meeting "
        "2008S 1I17",
    ),
    # At 850 degC less than 0.1 % of the lithium evaporates in 10 h: no excess needed,
    # and what is left of one would have to be washed out.
    Target(
        target="LiCoO2",
        precursors=("Li2CO3", "Co3O4"),
        candidate_phases=("LiCoO2", "Co3O4", "CoO", "Li2CO3"),
        ramp_degc_per_min=5.0,
        temperature_degc=850.0,
        hold_s=36000.0,
        source="usual 800 to 900 degC (memory); lithium is lost above 900 degC: "
        "Antolini, Int. J. Inorg. Mater. 3 (2001) 721",
    ),
    # 20 K below the eutectic leave room for the overshoot of a furnace.
    # YBa2Cu3O6 is no candidate: it is the same solid solution with less oxygen, and
    # next to YBa2Cu3O7 a fit cannot tell the two apart.
    Target(
        target="YBa2Cu3O7",
        precursors=("Y2O3", "BaCO3", "CuO"),
        candidate_phases=(
            "YBa2Cu3O7",
            "Y2BaCuO5",
            "Y2Cu2O5",
            "Y2O3",
            "BaCO3",
            "CuO",
        ),
        ramp_degc_per_min=5.0,
        temperature_degc=905.0,
        hold_s=43200.0,
        source="usual 900 to 950 degC (memory), below the ternary eutectic at 925 degC "
        "(Adv. X-Ray Anal. (1991)); slow cooling in air takes up the oxygen",
    ),
    Target(
        target="CaO",
        precursors=("CaCO3",),
        candidate_phases=("CaO", "CaCO3"),
        ramp_degc_per_min=5.0,
        temperature_degc=900.0,
        hold_s=3600.0,
        source="CaCO3 gives off 1 atm of CO2 at 899 degC, tabulated pressures",
        milling_s=0.0,
    ),
)

TARGETS: Final[Mapping[str, Target]] = MappingProxyType({t.target: t for t in _ALL})
"""Products that can be asked for by name, by formula."""


def target_named(formula: str) -> Target:
    """Return how *formula* is usually made.

    Raises:
        ConfigurationError: If it is not in the table; the message suggests one.
    """
    if formula not in TARGETS:
        raise ConfigurationError(
            f"how to make '{formula}' is not known; {nearest(formula, TARGETS)}"
        )
    return TARGETS[formula]
