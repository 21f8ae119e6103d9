"""Weight fractions from scales, and every part of their error by its name.

The parts of no fit come from the literature. Weighed mixtures of others, each judged
by an error model that the rest made, ask for no more
(``tests/campaign/found_against_weighed.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ppu_protocols.analysis._covariance import scale_covariance
from ppu_protocols.analysis.absorption import POWDER, linear_absorption, shading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ppu_protocols.analysis._search import Fitted
    from ppu_protocols.analysis.absorption import GrainSize

FIT = "counting and fit"
SPECIMEN = "specimen and mount"
DISPLACEMENT = "displacement parameters"
STRUCTURE = "structure"
ABSORPTION = "absorption contrast"
TEXTURE = "texture"
UNLISTED = "unlisted phases"

# Relative spreads of a phase's scale.
_STRUCTURE_SPREAD: Final = 0.035
SPECIMEN_SPREAD: Final = 0.025
# Of what a fitted texture changes, that one axis or low harmonics describe wrongly.
_TEXTURE_LEFT: Final = 0.1
# Of a scale, by a texture too weak to be seen: errors of the fit, and at most so much.
_TEXTURE_HIDDEN: Final = 2.0
_MOST_HIDDEN: Final = 0.08
_LEAST_ERROR: Final = 1e-3  # no share is known better

SOURCES: Final[Mapping[str, str]] = {
    FIT: "covariance of this fit, inflated by its misfit",
    SPECIMEN: "relative 0.025 of each scale: repacked specimens in one laboratory "
    "(ASTM C1365: 1 to 6 %)",
    DISPLACEMENT: "B uncertain by 0.45 Å² (0.3 where the structure states it), "
    "propagated through this fit",
    STRUCTURE: "relative 0.035 of each scale: certified I/Ic of SRM 674 against "
    "calculated ones",
    ABSORPTION: "Brindley's correction over the range of grain sizes",
    TEXTURE: "what the fitted texture leaves open, a tenth of what it changes, and "
    "what is too weak to be seen",
    UNLISTED: "what peaks of no candidate would weigh is known within a factor",
}
"""Where each part of the error comes from."""


@dataclass(frozen=True)
class ErrorPart:
    """One part of the standard error of every share.

    Attributes:
        name: Of the part.
        source: Where its size comes from.
        standard_errors: One standard deviation of the weight fraction by phase.
    """

    name: str
    source: str
    standard_errors: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Budget:
    """Shares and their errors.

    Attributes:
        shares: Weight fractions of the fitted phases, shape ``(n,)``.
        parts: Standard errors of the shares by the name of the part, each ``(n,)``.
        relative: Covariance of the logarithms of the masses, ``(n, n)``.
        significance: Scale over its error from the fit, shape ``(n,)``.
        shading: Factor by which absorption contrast weakens each phase.
        contrast: (mu_i - mu_mean) D of each phase.
        masses: In the unit of `PhaseModel.area_per_mass`, shading undone.
    """

    shares: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]]
    relative: NDArray[np.float64]
    significance: NDArray[np.float64]
    shading: NDArray[np.float64]
    contrast: NDArray[np.float64]
    masses: NDArray[np.float64]

    def witnessed(
        self, shares: Mapping[str, float], standard_errors: Mapping[str, float]
    ) -> Budget:
        """Return the same with shares and errors that a second witness agrees to.

        Every part of the error shrinks as the whole does.
        """
        total = np.sqrt(np.sum([part**2 for part in self.parts.values()], axis=0))
        smaller = np.array(list(standard_errors.values())) / np.maximum(total, 1e-300)
        parts = {
            name: part * np.minimum(smaller, 1.0) for name, part in self.parts.items()
        }
        return replace(self, shares=np.array(list(shares.values())), parts=parts)

    def beside(self, missing_share: float) -> Budget:
        """Return the same with *missing_share* of the mass being something else."""
        kept = 1.0 - missing_share
        parts = {name: kept * part for name, part in self.parts.items()}
        return replace(self, shares=kept * self.shares, parts=parts)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Standard errors of the shares, all parts together."""
        return total_error(self.parts)


def total_error(parts: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the root of the sum of squares of *parts*, at most 1."""
    squares = np.sum([part**2 for part in parts.values()], axis=0)
    return np.asarray(np.minimum(np.sqrt(squares + _LEAST_ERROR**2), 1.0))


def budget(fitted: Fitted, grains: Mapping[str, GrainSize]) -> Budget:
    """Return the weight fractions of *fitted* and their error budget.

    Args:
        fitted: The model refined to a scan.
        grains: What is known of grains by phase; others are as in any powder.
    """
    model, linear = fitted.model, fitted.refinement.linear
    wavelength = fitted.scan.k_alpha_1
    phases = [m.phase for m in model.phases]
    covariance = scale_covariance(model, fitted.target, fitted.refinement)
    scales = np.maximum(linear.scales, 0.0)
    sigma = np.sqrt(np.maximum(np.diag(covariance.fit), 1e-300))
    apparent = scales / np.array([m.area_per_mass for m in model.phases])
    n_phases = scales.size
    if apparent.sum() <= 0.0:
        even = np.full(n_phases, 1.0 / n_phases)
        nothing = np.zeros(n_phases)
        parts = {FIT: np.ones(n_phases)}
        unknown = np.eye(n_phases)
        return Budget(even, parts, unknown, nothing, nothing + 1.0, nothing, nothing)
    shaded = shading(
        apparent / apparent.sum(),
        np.array([linear_absorption(phase, wavelength) for phase in phases]),
        np.array([phase.density for phase in phases]),
        [grains.get(phase.name, POWDER) for phase in phases],
    )
    masses = apparent / shaded.factors
    shares = masses / masses.sum()
    # Change of the shares by the logarithms of the masses.
    by_log = np.diag(shares) - np.outer(shares, shares)
    floor = np.maximum(scales, 1e-6 * sigma)
    per_scale = np.outer(floor, floor)
    seen = np.array([_textured(fitted, index) for index in range(n_phases)])
    is_cubic = np.array([m.n_cell == 1 for m in model.phases])
    hidden = np.minimum(_TEXTURE_HIDDEN * sigma / floor, _MOST_HIDDEN)
    hidden = np.where(is_cubic | (seen > 0.0), 0.0, hidden)
    relative = {
        FIT: covariance.fit / per_scale,
        SPECIMEN: np.eye(n_phases) * SPECIMEN_SPREAD**2,
        DISPLACEMENT: covariance.displacement / per_scale,
        STRUCTURE: np.eye(n_phases) * _STRUCTURE_SPREAD**2,
        ABSORPTION: np.diag(shaded.spread**2),
        TEXTURE: covariance.texture / per_scale
        + np.diag((_TEXTURE_LEFT * seen) ** 2 + hidden**2),
    }
    parts = {
        name: np.sqrt(np.maximum(np.diag(by_log @ each @ by_log.T), 0.0))
        for name, each in relative.items()
    }
    # A scale of nothing still has an error.
    bare = sigma / np.array([m.area_per_mass for m in model.phases]) / masses.sum()
    parts[FIT] = np.maximum(parts[FIT], np.where(scales > 0.0, 0.0, bare))
    return Budget(
        shares=shares,
        parts=parts,
        relative=np.sum(list(relative.values()), axis=0),
        significance=scales / sigma,
        shading=shaded.factors,
        contrast=shaded.contrast,
        masses=masses,
    )


def _textured(fitted: Fitted, index: int) -> float:
    """Return about how much the texture changes intensities, relative, rms."""
    model, p = fitted.model, fitted.refinement.parameters
    values = model.texture(p, index)
    if model.phases[index].texture.axis is not None:
        return abs(float(values[0]))
    return math.sqrt(float(values @ values)) if values.size else 0.0
