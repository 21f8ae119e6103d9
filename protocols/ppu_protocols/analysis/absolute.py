"""Fractions of the whole, amorphous part included, by a standard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from ppu_protocols.analysis.absorption import (
    mass_attenuation,
    mass_attenuation_of_element,
)
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.stoichiometry import parse_formula

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ppu_protocols.analysis.quantify import Quantification
    from ppu_protocols.analysis.scan import Scan


@dataclass(frozen=True)
class Absolute:
    """Weight fractions of the whole, a spike taken off.

    Attributes:
        fractions: Of each phase by name.
        standard_errors: Of these.
        amorphous: What shows no line.
        amorphous_error: One standard deviation of it.
        whole: Of what these are fractions.
    """

    fractions: Mapping[str, float]
    standard_errors: Mapping[str, float]
    amorphous: float
    amorphous_error: float
    whole: str

    @property
    def doubt(self) -> str:
        """Why the fractions cannot be; empty if they can."""
        if self.amorphous > -2.0 * self.amorphous_error:
            return ""
        return (
            "more than the whole is crystalline: the standard is not the pure phase in "
            "the amount for which it was taken, or was not measured as the sample was"
        )


def absolute_by_spike(
    result: Quantification, standard: str, weight_fraction: float
) -> Absolute:
    """Return absolute fractions by a standard that was mixed in.

    The standard seems the larger the more of the rest is amorphous: every share times
    (weighed over found share of the standard) is absolute.

    Args:
        result: Of the mixture, the standard among its candidates.
        standard: Name of the standard, itself fully crystalline.
        weight_fraction: Of the standard in the mixture.

    Raises:
        AnalysisError: If the standard is no candidate or was not found, or the
            fraction is not between 0 and 1.
    """
    by_name = {phase.name: phase for phase in result.phases}
    if standard not in by_name or not by_name[standard].is_present:
        raise AnalysisError(
            f"the standard {standard!r} was not found; candidates are "
            f"{', '.join(by_name)}"
        )
    if not 0.0 < weight_fraction < 1.0:
        raise AnalysisError(
            f"a spike of {100 * weight_fraction:g} wt%; above 0 and below 100 is needed"
        )
    names = [model.phase.name for model in result.fitted.model.phases]
    shares = result.budget.shares
    at = names.index(standard)
    room = 1.0 - weight_fraction
    ratio = shares / shares[at] * weight_fraction / room
    # Only the logarithm of the ratio to the standard is uncertain.
    to_standard = np.eye(len(names))
    to_standard[:, at] -= 1.0
    logs = to_standard @ result.budget.relative @ to_standard.T
    others = [index for index in range(len(names)) if index != at]
    errors = ratio * np.sqrt(np.maximum(np.diag(logs), 0.0))
    total = np.where(np.arange(len(names)) == at, 0.0, ratio)
    amorphous = 1.0 - float(total.sum())
    return Absolute(
        fractions={names[i]: float(ratio[i]) for i in others},
        standard_errors={names[i]: float(errors[i]) for i in others},
        amorphous=amorphous,
        amorphous_error=math.sqrt(max(float(total @ logs @ total), 0.0)),
        whole="the sample before the spike",
    )


def absolute_by_external(
    result: Quantification, pure: Quantification, formula: str
) -> Absolute:
    """Return absolute fractions by a scan of a pure standard on the same instrument.

    Args:
        result: Of the specimen.
        pure: Of the standard, one phase, fully crystalline, measured alike.
        formula: What the whole specimen is made of, its amorphous part included.

    Raises:
        AnalysisError: If they were not measured alike, as far as their files tell, or
            the standard is no pure phase.
        ConfigurationError: If the formula is none.
    """
    scan, other = result.fitted.scan, pure.fitted.scan
    for what, one, two, unit in (
        ("time a point", scan.counting_time, other.counting_time, "s"),
        ("wavelength", scan.k_alpha_1, other.k_alpha_1, "angstrom"),
        ("polarization", scan.polarization, other.polarization, ""),
        ("step", _step(scan), _step(other), "deg"),
    ):
        if not math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-9):
            raise AnalysisError(
                f"{other.source}: its {what} is {two:g} {unit}".rstrip()
                + f", that of {scan.source} {one:g} {unit}".rstrip()
                + "; an external standard must be measured as the sample was"
            )
    masses = {
        element: n_atoms * gemmi.Element(element).weight
        for element, n_atoms in parse_formula(formula).items()
    }
    whole = sum(masses.values())
    return absolute_by_constant(
        result,
        instrument_constant(pure),
        {element: mass / whole for element, mass in masses.items()},
    )


def _step(scan: Scan) -> float:
    """Return the mean step of a scan [deg]."""
    return float(np.ptp(scan.two_theta)) / (scan.two_theta.size - 1)


def instrument_constant(result: Quantification) -> float:
    """Return the constant of an instrument, from a scan of a pure standard.

    The scale times the mass attenuation (B. H. O'Connor, M. D. Raven, Powder Diffr. 3
    (1988) 2), in the units of this module; only for scans of the same instrument,
    tube current, optics and time.

    Raises:
        AnalysisError: If there is not exactly one phase.
    """
    model = result.fitted.model
    if len(model.phases) != 1:
        raise AnalysisError(
            f"{len(model.phases)} phases; a constant needs the scan of one pure phase"
        )
    attenuation = mass_attenuation(model.phases[0].phase, result.fitted.scan.k_alpha_1)
    return float(result.budget.masses[0]) * attenuation


def absolute_by_constant(
    result: Quantification, constant: float, composition: Mapping[str, float]
) -> Absolute:
    """Return absolute fractions by an instrument's constant and the composition.

    Args:
        result: Of the specimen.
        constant: As `instrument_constant` gave it.
        composition: Mass fraction of each element of the whole specimen.

    Raises:
        AnalysisError: If the constant is not positive, or the composition does not
            sum to 1.
    """
    if not constant > 0.0 or abs(sum(composition.values()) - 1.0) > 0.02:
        raise AnalysisError(
            f"a constant of {constant:g} and a composition that sums to "
            f"{sum(composition.values()):g}; above 0 and 1 are needed"
        )
    wavelength = result.fitted.scan.k_alpha_1
    attenuation = sum(
        share * mass_attenuation_of_element(element, wavelength)
        for element, share in composition.items()
    )
    names = [model.phase.name for model in result.fitted.model.phases]
    fractions = result.budget.masses * attenuation / constant
    relative = np.sqrt(np.maximum(np.diag(result.budget.relative), 0.0))
    # The standard is uncertain as a specimen is.
    errors = fractions * np.sqrt(relative**2 + relative.min() ** 2)
    return Absolute(
        fractions=dict(zip(names, map(float, fractions), strict=True)),
        standard_errors=dict(zip(names, map(float, errors), strict=True)),
        amorphous=1.0 - float(fractions.sum()),
        amorphous_error=float(np.sqrt((errors**2).sum())),
        whole="the sample",
    )
