"""Whether the angles of a scan are off: a zero error, or a sample off the axis."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._confidence import FAR_DISPLACEMENT
from ppu_protocols.analysis._fit import refine
from ppu_protocols.analysis._model import DISPLACEMENT_SPREAD, ZERO_SPREAD, ScanModel
from ppu_protocols.analysis._search import Fitted, fit, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ppu_protocols.analysis.cif import Phase

# A height of the sample that could as well be a zero error of the goniometer [mm]:
# specimens of the simulator lie within 0.13, real ones of an aligned Aeris within 0.3.
_NOTABLE_DISPLACEMENT = 0.2
# Gain of chi² by which a height, not a zero error, is taken to be the reason.
_DISPLACEMENT_GAIN = 30.0
_LEAST_SHIFT = 0.2  # of all angles, below which the fit finds its way [deg]


def misalignment(
    phases: Sequence[Phase], fitted: Fitted, is_poor: Callable[[Fitted], bool]
) -> float | None:
    """Return how much too high all angles seem to be read [deg], None if not.

    Args:
        phases: The candidates.
        fitted: The model refined to the scan.
        is_poor: Whether a fit describes its scan badly.
    """
    height = abs(float(fitted.refinement.parameters[0])) * DISPLACEMENT_SPREAD
    poor = is_poor(fitted)
    if poor or height > FAR_DISPLACEMENT:
        shift = _better_shift(phases, fitted, is_poor)
        # What a poor fit says of the height is no more worth than the fit.
        if shift is not None or poor:
            return shift
    return _zero_error(fitted) if height > _NOTABLE_DISPLACEMENT else None


def _zero_error(fitted: Fitted) -> float | None:
    """Return the zero error that describes a fair fit as well as a height [deg].

    Both move all lines, in proportion to 1 and to the cosine of theta; a scan can
    hardly tell them apart, and what is far off the axis is wrong in any case.
    """
    model, p = fitted.model, fitted.refinement.parameters
    with_zero = ScanModel(model.phases, model.grid, model.radius, has_zero=True)
    first = model.own(0).start
    start = np.insert(p, first, _mean_shift(fitted) / ZERO_SPREAD)
    start[0] = 0.0
    free = np.array([not name.endswith(":b") for name in with_zero.names()])
    free[0] = False
    refined = refine(
        with_zero, fitted.target, start, free=free, max_iterations=40, tolerance=1e-5
    )
    again = refine(model, fitted.target, p, max_iterations=40, tolerance=1e-5)
    zero = float(refined.parameters[first])
    gain = refined.objective - zero**2 - again.objective
    gain += float(again.parameters[0]) ** 2
    is_usual = abs(float(p[0])) * DISPLACEMENT_SPREAD <= FAR_DISPLACEMENT
    if is_usual and gain > _DISPLACEMENT_GAIN:
        return None
    return ZERO_SPREAD * zero


def _mean_shift(fitted: Fitted) -> float:
    """Return how far the fitted height moves lines on average [deg]."""
    theta = np.radians(fitted.binned.two_theta) / 2.0
    height = float(fitted.refinement.parameters[0]) * DISPLACEMENT_SPREAD
    shift = np.degrees(-2.0 * height * np.cos(theta) / fitted.scan.radius)
    return float(shift.mean())


def _better_shift(
    phases: Sequence[Phase], fitted: Fitted, is_poor: Callable[[Fitted], bool]
) -> float | None:
    """Return the shift of all angles with which the scan does fit [deg], if one does.

    The shift at which coarse patterns fit best is tried in earnest; without that,
    patterns of strange phases would often agree a little better shifted.
    """
    binned, target = fitted.binned, fitted.target
    models = visible(phases, fitted.scan)
    model = ScanModel(models, fitted.model.grid, fitted.model.radius)
    p = np.zeros(model.n_parameters)
    p[1] = np.log(9.0)
    patterns = model.patterns(p)
    best, best_chi = 0.0, np.inf
    for shift in np.arange(-5.0, 5.01, 0.1):
        moved = np.roll(patterns, round(shift / binned.step), axis=1)
        chi = target.chi_squared(moved)
        if chi < best_chi:
            best, best_chi = float(shift), chi
    if abs(best) < _LEAST_SHIFT:
        return None
    scan = replace(fitted.scan, two_theta=fitted.scan.two_theta - best)
    if scan.two_theta[0] < 0.5 or not visible(phases, scan):
        return None
    shifted = fit(phases, scan)
    return None if is_poor(shifted) else best + _mean_shift(shifted)
