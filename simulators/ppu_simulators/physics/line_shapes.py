"""Shapes of powder lines: pseudo-Voigts of given widths, and how they are drawn."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LineShapes",
    "combined_pseudo_voigt",
    "component_widths",
    "draw_lines",
    "with_axial_divergence",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def component_widths(width: FloatArray, eta: float) -> tuple[FloatArray, FloatArray]:
    """Split a pseudo-Voigt into Gaussian and Lorentzian widths, each (n,).

    Inverse of the Thompson-Cox-Hastings formula, J. Appl. Cryst. 20 (1987) 79.
    """
    gaussian = width * math.sqrt(
        max(0.0, 1.0 - 0.74417 * eta - 0.24781 * eta**2 - 0.00810 * eta**3)
    )
    lorentzian = width * (0.72928 * eta + 0.19289 * eta**2 + 0.07783 * eta**3)
    return gaussian, lorentzian


def combined_pseudo_voigt(
    gaussian: FloatArray, lorentzian: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return width and eta of a Voigt of given component widths, each (n,)."""
    g, low = gaussian, lorentzian
    width = (
        g**5
        + 2.69269 * g**4 * low
        + 2.42843 * g**3 * low**2
        + 4.47163 * g**2 * low**3
        + 0.07842 * g * low**4
        + low**5
    ) ** 0.2
    x = low / width
    return width, 1.36603 * x - 0.47719 * x**2 + 0.11116 * x**3


@dataclass(frozen=True)
class LineShapes:
    """Lines to be drawn, each array (n,).

    Attributes:
        centre: Positions [deg].
        width: Full widths at half maximum [deg].
        eta: Lorentzian shares.
        area: Integrated intensities [counts deg / s].
    """

    centre: FloatArray
    width: FloatArray
    eta: FloatArray
    area: FloatArray


_LORENTZ_REACH: Final = 18.0
_WEAK_LORENTZ_REACH: Final = 5.0
_GAUSS_REACH: Final = 2.3


def _windows(
    two_theta: FloatArray, centre: FloatArray, reach: FloatArray
) -> tuple[IntArray, IntArray]:
    """Return flat (point index, line index) of all points within reach of a line."""
    start = np.searchsorted(two_theta, centre - reach)
    length = np.searchsorted(two_theta, centre + reach) - start
    line = np.repeat(np.arange(len(centre)), length)
    first = np.cumsum(length) - length
    point = np.arange(int(length.sum())) + np.repeat(start - first, length)
    return point.astype(np.int64), line.astype(np.int64)


def draw_lines(two_theta: FloatArray, lines: LineShapes) -> FloatArray:
    """Return the sum of pseudo-Voigt lines on an ascending grid (n,).

    The Lorentzian is cut at a number of widths and scaled up by what the cut removes,
    so that the area of a line is kept.
    """
    reach = np.where(
        lines.area > 2e-3 * lines.area.max(initial=0.0),
        _LORENTZ_REACH,
        _WEAK_LORENTZ_REACH,
    )
    result = np.zeros(len(two_theta))
    point, line = _windows(two_theta, lines.centre, reach * lines.width)
    kept = 2.0 / np.pi * np.arctan(2.0 * reach)
    half = lines.width / 2.0
    height = lines.eta * lines.area / (np.pi * half * kept)
    offset = (two_theta[point] - lines.centre[line]) * (1.0 / half)[line]
    result += np.bincount(
        point, height[line] / (1.0 + offset * offset), minlength=len(two_theta)
    )
    point, line = _windows(two_theta, lines.centre, _GAUSS_REACH * lines.width)
    height = (1.0 - lines.eta) * lines.area / lines.width
    height *= 2.0 * math.sqrt(math.log(2.0) / math.pi)
    offset = (two_theta[point] - lines.centre[line]) * (1.0 / lines.width)[line]
    result += np.bincount(
        point,
        height[line] * np.exp(-4.0 * math.log(2.0) * offset * offset),
        minlength=len(two_theta),
    )
    return result


_N_AXIAL_RAYS: Final = 6
_AXIAL_RAYS_BELOW_DEG: Final = 50.0


def with_axial_divergence(lines: LineShapes, soller_rad: float) -> LineShapes:
    """Split each line into rays inclined to the plane of the goniometer.

    A ray inclined by psi is found at cos(2phi) = cos(2theta) sqrt(1 + psi^2) (Finger,
    Cox and Jephcoat, J. Appl. Cryst. 27 (1994) 892): below the line at low angles.
    The inclination is triangular, as two equal Soller slits make it. Above 50 deg one
    ray of mean square inclination is enough.
    """
    quantiles = (np.arange(_N_AXIAL_RAYS) + 0.5) / _N_AXIAL_RAYS
    angles = soller_rad * (1.0 - np.sqrt(1.0 - quantiles))
    low = lines.centre < _AXIAL_RAYS_BELOW_DEG

    def seen(centre: FloatArray, psi: float) -> FloatArray:
        cosine = np.cos(np.radians(centre)) * math.sqrt(1.0 + psi**2)
        return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

    centres = [seen(lines.centre[low], float(psi)) for psi in angles]
    centres.append(seen(lines.centre[~low], soller_rad / math.sqrt(6.0)))

    def spread(values: FloatArray) -> FloatArray:
        return np.concatenate([np.tile(values[low], _N_AXIAL_RAYS), values[~low]])

    area = np.where(low, lines.area / _N_AXIAL_RAYS, lines.area)
    return LineShapes(
        np.concatenate(centres), spread(lines.width), spread(lines.eta), spread(area)
    )
