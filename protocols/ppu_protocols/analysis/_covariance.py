"""How surely a fit knows its scales, misfit and its correlation included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis._fit import Refinement, Target
    from ppu_protocols.analysis._model import ScanModel

_LAGS = range(1, 16)


def inflation(target: Target, calculated: NDArray[np.float64], n_free: int) -> float:
    """Return by how much a misfit makes variances larger than counting does, >= 1.

    Neighbouring residuals of a pattern are correlated, so a plain covariance is too
    small (J.-F. Berar, P. Lelann, J. Appl. Cryst. 24 (1991) 1); it grows by the
    reduced chi² and by the summed autocorrelation of the residual.
    """
    residual = (target.counts - calculated) * target.root_weight
    total = max(float(residual @ residual), 1e-300)
    correlation = sum(float(residual[:-k] @ residual[k:]) / total for k in _LAGS)
    n_points = int(np.count_nonzero(target.root_weight))
    reduced = total / max(1, n_points - n_free)
    return max(1.0, reduced) * max(1.0, 1.0 + 2.0 * correlation)


@dataclass(frozen=True, eq=False)
class ScaleCovariance:
    """Covariances of the scales, each ``(n_phases, n_phases)``.

    Attributes:
        fit: From counting and what the fit had to find out.
        displacement: From displacement parameters that nobody knows.
        texture: From what the fitted textures leave open.
    """

    fit: NDArray[np.float64]
    displacement: NDArray[np.float64]
    texture: NDArray[np.float64]


def scale_covariance(
    model: ScanModel, target: Target, refinement: Refinement
) -> ScaleCovariance:
    """Return the covariance of the scales in parts that add up.

    Args:
        model: The scan's model.
        target: What was fitted.
        refinement: With its curvature.
    """
    linear, curvature = refinement.linear, refinement.curvature
    n_linear = linear.background.size + linear.scales.size
    inverse_inflation = 1.0 / inflation(target, linear.calculated, len(curvature))
    names = model.names()
    is_b = np.zeros(len(curvature), dtype=bool)
    is_b[n_linear:] = [name.endswith(":b") for name in names]
    is_texture = np.zeros(len(curvature), dtype=bool)
    is_texture[n_linear:] = [":texture_" in name for name in names]
    information = curvature * inverse_inflation
    prior = np.arange(n_linear, len(curvature))
    information[prior, prior] += 1.0
    own = slice(linear.background.size, n_linear)
    b_fixed = _inverse(information, ~is_b)
    fixed = _inverse(information, ~(is_b | is_texture))[own, own]
    # Where the scales go if a displacement parameter is one spread larger: it stays
    # where it was in the fit, so the scan does not make it any surer.
    by_b = -(b_fixed @ information[:, is_b])[own]
    return ScaleCovariance(
        fit=fixed, displacement=by_b @ by_b.T, texture=b_fixed[own, own] - fixed
    )


def _inverse(
    information: NDArray[np.float64], kept: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the inverse of the *kept* part, zero elsewhere."""
    part = information[np.ix_(kept, kept)]
    diagonal = np.sqrt(np.maximum(np.diag(part), 1e-300))
    scaled = part / np.outer(diagonal, diagonal)
    inverse = np.linalg.inv(scaled + 1e-11 * np.eye(len(scaled)))
    result = np.zeros_like(information)
    result[np.ix_(kept, kept)] = inverse / np.outer(diagonal, diagonal)
    return result
