"""Absorption of X-rays in powders: coefficients, and grains that shade themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import gemmi
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Phase

_EV_ANGSTROM = 12398.4198  # photon energy times wavelength [eV Å]
_ELECTRON_RADIUS = 2.8179403e-13  # [cm]
_AVOGADRO = 6.02214076e23
_COPPER = (1.539, 1.546)  # wavelengths for which the table below holds [Å]

# Total mass attenuation at 8041.5 eV, the mean of the copper doublet [cm²/g]: W. T.
# Elam, B. D. Ravel, J. R. Sieber, Radiat. Phys. Chem. 63 (2002) 121.
_COPPER_TABLE: Final = {
    "Li": 0.50,
    "C": 4.51,
    "O": 11.45,
    "F": 15.77,
    "Mg": 39.98,
    "Al": 49.57,
    "Si": 63.73,
    "Ca": 170.2,
    "Ti": 199.7,
    "V": 218.6,
    "Mn": 269.8,
    "Fe": 301.7,
    "Co": 320.7,
    "Ni": 48.83,
    "Cu": 51.81,
    "Zn": 57.92,
    "Y": 124.0,
    "Zr": 133.8,
    "In": 235.8,
    "Ba": 329.0,
    "La": 348.1,
    "Bi": 234.8,
}


@dataclass(frozen=True)
class GrainSize:
    """What is known of the grains of a phase, by which absorption counts.

    Attributes:
        diameter_um: The likely diameter of a solid grain (not of a porous lump) [um].
        factor: How many times larger or smaller it may be, one standard deviation.
    """

    diameter_um: float
    factor: float

    def __post_init__(self) -> None:
        """Refuse what is no size.

        Raises:
            ValueError: If the diameter is not positive or the factor below 1.
        """
        if not (self.diameter_um > 0.0 and self.factor >= 1.0):
            raise ValueError(
                f"grains of {self.diameter_um:g} um within a factor {self.factor:g}; "
                "a diameter above 0 and a factor of 1 or more are needed"
            )


POWDER: Final = GrainSize(1.0, 2.0)
"""Grains of a powder of which nothing is known.

Published: 0.1 um in wet-made BaTiO3, 0.2 to 0.5 in pigments, 0.3 to 3 milled, about 2
in the powders of SRM 674 (International Tables C, 5.2.11); clinker measured as 2 um was
described best as 1 um (NIST Technical Note 1441).
"""


@lru_cache(maxsize=256)
def mass_attenuation_of_element(symbol: str, wavelength: float) -> float:
    """Return mu/rho of an element [cm²/g] at *wavelength* [Å].

    Tabulated for copper radiation; otherwise from the dispersion through the optical
    theorem, which leaves scattering out: low by 5 % in heavy elements, 10 % in oxygen.
    """
    if _COPPER[0] < wavelength < _COPPER[1] and symbol in _COPPER_TABLE:
        return _COPPER_TABLE[symbol]
    element = gemmi.Element(symbol)
    _, f_second = gemmi.cromer_liberman(
        element.atomic_number, _EV_ANGSTROM / wavelength
    )
    cross_section = 2.0 * _ELECTRON_RADIUS * wavelength * 1e-8 * f_second
    return cross_section * _AVOGADRO / float(element.weight)


def mass_attenuation(phase: Phase, wavelength: float) -> float:
    """Return mu/rho of *phase* [cm²/g] at *wavelength* [Å]."""
    return sum(
        share * mass_attenuation_of_element(symbol, wavelength)
        for symbol, share in phase.mass_fractions.items()
    )


def linear_absorption(phase: Phase, wavelength: float) -> float:
    """Return the absorption coefficient of the crystal [1/cm]."""
    return mass_attenuation(phase, wavelength) * phase.density


def brindley_factor(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much weaker a grain scatters than its powder absorbs.

    The mean of exp(-(mu_grain - mu_powder) x) over the paths x of a sphere (G. W.
    Brindley, Phil. Mag. 36 (1945) 347); at medium angles the path is about a chord.

    Args:
        u: (mu_grain - mu_powder) times the diameter.

    Example:
        >>> brindley_factor(np.array([-0.2, 0.0, 1.0])).round(3)
        array([1.163, 1.   , 0.482])
    """
    u = np.clip(np.asarray(u, dtype=np.float64), -60.0, 500.0)
    series = 1.0 - 0.75 * u + 0.3 * u**2 - u**3 / 12.0 + u**4 / 56.0
    safe = np.where(np.abs(u) < 0.05, 1.0, u)
    closed = 3.0 * (2.0 - np.exp(-safe) * (safe**2 + 2.0 * safe + 2.0)) / safe**3
    return np.where(np.abs(u) < 0.05, series, closed)


@dataclass(frozen=True, eq=False)
class Shading:
    """How grains of different absorption change what each phase scatters.

    Attributes:
        factors: Apparent over true scattering of each phase, shape ``(n,)``.
        spread: Relative standard deviation of the factors, sizes being uncertain.
        contrast: (mu_i - mu_mean) D for the likely diameters.
    """

    factors: NDArray[np.float64]
    spread: NDArray[np.float64]
    contrast: NDArray[np.float64]


# Sizes within two and a half standard deviations, and how much each counts.
_DEVIATIONS: Final = np.linspace(-2.5, 2.5, 11)
_LIMITS: Final = (-1.5, 3.0)  # of u, beyond which nothing is corrected any further
_WEIGHTS: Final = np.exp(-0.5 * _DEVIATIONS**2) / np.exp(-0.5 * _DEVIATIONS**2).sum()


def shading(
    apparent: NDArray[np.float64],
    absorption: NDArray[np.float64],
    density: NDArray[np.float64],
    grains: Sequence[GrainSize],
) -> Shading:
    """Return the shading in a mixture whose phases seem to weigh *apparent*.

    Args:
        apparent: Weight fractions without the correction, shape ``(n,)``.
        absorption: Linear absorption coefficients [1/cm].
        density: Densities [g/cm³].
        grains: What is known of the grains of each phase.
    """
    diameter = np.array([grain.diameter_um * 1e-4 for grain in grains])
    width = np.array([math.log(grain.factor) for grain in grains])
    sizes = diameter[:, None] * np.exp(width[:, None] * _DEVIATIONS)
    shares = apparent
    factors = spread = np.ones_like(apparent)
    mean = 0.0
    for _ in range(8):
        volumes = shares / density
        mean = float(volumes @ absorption / max(float(volumes.sum()), 1e-300))
        u = np.clip((absorption - mean)[:, None] * sizes, *_LIMITS)
        logs = np.log(brindley_factor(u))
        middle = logs @ _WEIGHTS
        factors = np.exp(middle)
        spread = np.sqrt((logs - middle[:, None]) ** 2 @ _WEIGHTS)
        corrected = apparent / factors
        # Half a step: coarse grains would make the whole one swing.
        shares = 0.5 * (shares + corrected / max(float(corrected.sum()), 1e-300))
    return Shading(factors, spread, (absorption - mean) * diameter)
