"""What no candidate explains: peaks, their likely owner, its amount, and limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._covariance import inflation
from ppu_protocols.analysis._model import ScanModel
from ppu_protocols.analysis._phase_model import PhaseModel
from ppu_protocols.analysis.cif import load_phase, phase_library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis._budget import Budget
    from ppu_protocols.analysis._search import Fitted
    from ppu_protocols.analysis.cif import Phase

# Wavelengths that a filter lets pass a little, over that of K-alpha 1: copper K-beta
# and the L-alpha line of tungsten from the filament on the anode.
_GHOST_RATIOS = (1.39225 / 1.5405980, 1.4764 / 1.5405980)

SIGNIFICANT_PEAK = 6.0
"""Heights of a strange peak above its noise that count."""
_NEAR_LINES = 0.2  # of a calculated line that a peak beside it must exceed
_GHOST_REACH = 0.25  # of a peak from where another line of the tube shows one [deg]
_EDGE = 0.3  # of the scan, where peaks are cut off [deg]
_ROOM = 1.6  # by which texture, displacements and packing weaken a line
_FREEDOM = 2.3  # by which free cell and widths make a scale less sure
_OWN_REACH = 0.2  # of a strange peak from a candidate's line that may explain it [deg]
_OWN_AREA = 0.3  # of the peak that the line's calculated area must reach
_UNKNOWN_FACTOR = 2.0  # within which the amount of an unknown phase is estimated
_OWNED = 0.6  # of the strange peaks' area that a suspected phase must explain
_PEAK_REACH = 0.3  # of a peak's area about its place [deg]
_SUSPECT_EVIDENCE = 3.0  # falls of chi² per ln(points), misfit counted in


@dataclass(frozen=True)
class Missing:
    """What is in the scan and among no candidates.

    Attributes:
        peaks: Angle [deg] and area [counts deg] of peaks of no candidate, strongest
            first.
        share: Of the crystalline mass that they are, roughly; 0 without peaks.
        factor: Within which the share is known.
        owner: Name of the bundled structure that explains them; None if none does.
    """

    peaks: tuple[tuple[float, float], ...]
    share: float
    factor: float
    owner: str | None


@dataclass(frozen=True, eq=False)
class Residual:
    """The fit seen as a search for peaks.

    Attributes:
        two_theta: Angles [deg], shape ``(n,)``.
        step: Their distance [deg].
        difference: Measured minus calculated, slow waves taken off [counts].
        weight: Inverse variance: counting, and a share of lines nearby.
    """

    two_theta: NDArray[np.float64]
    step: float
    difference: NDArray[np.float64]
    weight: NDArray[np.float64]


def residual_of(fitted: Fitted) -> Residual:
    """Return what the fit leaves."""
    binned, linear = fitted.binned, fitted.refinement.linear
    net = linear.scales @ fitted.model.patterns(fitted.refinement.parameters)
    reach = max(1, round(0.15 / binned.step))
    variance = binned.variance + (_NEAR_LINES * _rolling_maximum(net, reach)) ** 2
    difference = binned.counts - linear.calculated
    # What is left of a glass hump is no peak.
    slow = _rolling_median(difference, max(2, round(0.8 / binned.step)))
    return Residual(binned.two_theta, binned.step, difference - slow, 1.0 / variance)


def find_missing(fitted: Fitted, budget: Budget, candidates: Sequence[str]) -> Missing:
    """Return what peaks belong to no candidate, and how much that may be.

    Bundled structures are tried first; one that explains the peaks gives the amount by
    its own scale. An unknown phase is taken to scatter as a light oxide does.

    Args:
        fitted: The model refined to the scan.
        budget: Its shares.
        candidates: Names that were asked for.
    """
    peaks = strange_peaks(fitted)
    if not peaks:
        return Missing((), 0.0, 1.0, None)
    known = float(budget.masses.sum())
    suspect = _suspect(fitted, peaks, candidates)
    if suspect is not None:
        name, mass = suspect
        share = mass / max(mass + known, 1e-300)
        return Missing(tuple(peaks), share, 1.5, name)
    rutile = PhaseModel(load_phase("TiO2-rutile"), fitted.scan)
    per_mass = rutile.area_per_mass if rutile.has_lines else _own_area(fitted)
    mass = sum(area for _, area in peaks) / _seen(len(peaks)) / per_mass
    share = mass / max(mass + known, 1e-300)
    return Missing(tuple(peaks), share, _UNKNOWN_FACTOR, None)


def _seen(n_peaks: int) -> float:
    """Return what part of a missing phase's intensity its strange peaks are, about.

    One or two are its strongest lines; of a dozen, the weak and the hidden are absent.
    """
    if n_peaks <= 2:
        return 0.15 + 0.05 * n_peaks
    return min(0.26 + 0.055 * n_peaks, 0.65)


def _own_area(fitted: Fitted) -> float:
    return float(np.mean([m.area_per_mass for m in fitted.model.phases]))


def _suspect(
    fitted: Fitted, peaks: Sequence[tuple[float, float]], candidates: Sequence[str]
) -> tuple[str, float] | None:
    """Return the bundled structure that explains *peaks* best, and its mass."""
    target, model = fitted.target, fitted.model
    p = fitted.refinement.parameters
    patterns = model.patterns(p)
    here = target.chi_squared(patterns)
    n_points = int(np.count_nonzero(target.root_weight))
    least_gain = _SUSPECT_EVIDENCE * math.log(n_points)
    least_gain *= inflation(target, fitted.refinement.linear.calculated, len(p))
    best: tuple[float, str, float] | None = None
    for name in phase_library():
        phase = load_phase(name)
        stranger = PhaseModel(phase, fitted.scan)
        if name in candidates or not stranger.has_lines:
            continue
        if any(phase.cell == m.phase.cell for m in model.phases):
            continue
        rows = _drawn_alone(stranger, fitted)
        for row in rows:
            chi = target.chi_squared(np.vstack([patterns, row]))
            gain = here - chi
            if gain > least_gain and (best is None or gain > best[0]):
                scale = float(target.solve(np.vstack([patterns, row])).scales[-1])
                if _explained(fitted, scale * row, peaks) > _OWNED:
                    best = gain, name, scale / stranger.area_per_mass
    return None if best is None else best[1:]


def _drawn_alone(stranger: PhaseModel, fitted: Fitted) -> list[NDArray[np.float64]]:
    """Return patterns of a phase for a few cells around the published one."""
    model, p = fitted.model, fitted.refinement.parameters
    alone = ScanModel([stranger], model.grid, model.radius)
    start = np.zeros(alone.n_parameters)
    start[:4] = p[:4]
    row = alone.pattern(start, 0)
    angles = model.grid.two_theta
    tangent = np.degrees(np.tan(np.radians(angles) / 2.0))
    return [
        np.interp(angles, angles - 2.0 * strain * tangent, row)
        for strain in (0.0, -1e-3, 1e-3)
    ]


def _explained(
    fitted: Fitted, row: NDArray[np.float64], peaks: Sequence[tuple[float, float]]
) -> float:
    """Return the share of the area of *peaks* that *row* has at the same places."""
    angles, step = fitted.binned.two_theta, fitted.binned.step
    owned = total = 0.0
    for angle, area in peaks:
        near = np.abs(angles - angle) < _PEAK_REACH
        total += area
        owned += min(area, float(row[near].sum()) * step)
    return owned / max(total, 1e-300)


def least_noticed(fitted: Fitted, budget: Budget, phase: Phase) -> float:
    """Return the weight fraction of an unlisted *phase* that would be noticed.

    Its strongest clear line then exceeds the search for strange peaks in 95 % of scans.
    Texture, and lines under those of other phases, can hide more.
    """
    stranger = PhaseModel(phase, fitted.scan)
    if not stranger.has_lines:
        return 1.0
    residual = residual_of(fitted)
    row = _drawn_alone(stranger, fitted)[0]
    row = row - _rolling_median(row, max(2, round(0.8 / residual.step)))
    height, norm = _matched(residual, row, 0.12)
    asked = SIGNIFICANT_PEAK + 1.645
    # Beside a line of a candidate a peak would be taken for that line.
    least_area = asked / np.sqrt(np.maximum(norm, 1e-300))
    for positions, areas in _calculated(fitted):
        at = np.searchsorted(residual.two_theta, positions).clip(0, row.size - 1)
        for angle in positions[areas > _OWN_AREA * least_area[at]]:
            height[np.abs(residual.two_theta - angle) < _OWN_REACH] = 0.0
    for angle in _ghosts(fitted):
        height[np.abs(residual.two_theta - angle) < _GHOST_REACH] = 0.0
    edge = max(1, round(_EDGE / residual.step))
    height[:edge] = height[-edge:] = 0.0
    strongest = float(height.max(initial=0.0))
    scale = _ROOM * asked / max(strongest, 1e-300)
    mass = scale / stranger.area_per_mass
    return mass / max(mass + float(budget.masses.sum()), 1e-300)


def least_seen(fitted: Fitted, budget: Budget, absent: PhaseModel) -> float:
    """Return the detection limit of a candidate that the scan does not need.

    3.29 standard errors of its scale beside the others (L. A. Currie, Anal. Chem. 40
    (1968) 586), the misfit counted in, and that its cell and widths are free.
    """
    target = fitted.target
    p = fitted.refinement.parameters
    row = _drawn_alone(absent, fitted)[0]
    every = np.vstack(
        [
            target.weighted_basis,
            target.weighted(fitted.model.patterns(p)),
            target.weighted(row[None, :]),
        ]
    )
    length = np.maximum(np.linalg.norm(every, axis=1), 1e-300)
    unit = every / length[:, None]
    inverse = np.linalg.inv(unit @ unit.T + 1e-9 * np.eye(len(unit)))
    grown = inflation(target, fitted.refinement.linear.calculated, len(p))
    sigma = math.sqrt(max(float(inverse[-1, -1]), 0.0) * grown) / float(length[-1])
    mass = 3.29 * _FREEDOM * sigma / absent.area_per_mass
    return mass / max(mass + float(budget.masses.sum()), 1e-300)


def strange_peaks(fitted: Fitted) -> list[tuple[float, float]]:
    """Return angle [deg] and area [counts deg] of peaks that no candidate explains.

    A matched filter runs over the residual; near calculated lines the residual must
    exceed a share of them, for profiles and intensities are never perfect there.
    """
    residual = residual_of(fitted)
    found: dict[int, tuple[float, float]] = {}
    reach = max(1, round(0.3 / residual.step))
    for fwhm in (0.12, 0.3):
        height, norm = _matched(residual, residual.difference, fwhm)
        for index in _maxima(height, SIGNIFICANT_PEAK, reach):
            area = float(height[index] / math.sqrt(max(norm[index], 1e-300)))
            found[index] = (float(height[index]), area)
    return _without_known(fitted, residual, found)


def _matched(
    residual: Residual, values: NDArray[np.float64], fwhm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return heights over noise of peaks of *fwhm* [deg], and the filter's norm."""
    half = max(2, round(1.5 * fwhm / residual.step))
    x = np.arange(-half, half + 1) * residual.step
    sigma = fwhm / 2.355
    shape = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
    overlap = np.convolve(values * residual.weight, shape, mode="same")
    norm = np.convolve(residual.weight, shape**2, mode="same")
    return overlap / np.sqrt(np.maximum(norm, 1e-300)), norm


def _without_known(
    fitted: Fitted, residual: Residual, found: dict[int, tuple[float, float]]
) -> list[tuple[float, float]]:
    """Drop doubles, ghosts, cut-off ends and lines only too weak; strongest first.

    A peak where a candidate has a line of comparable area is that line, of grains that
    lie otherwise than the model says.
    """
    ghosts = _ghosts(fitted)
    lines = _calculated(fitted)
    first, last = float(residual.two_theta[0]), float(residual.two_theta[-1])
    peaks: list[tuple[float, float]] = []
    for index, (_, area) in sorted(found.items(), key=lambda item: -item[1][0]):
        angle = float(residual.two_theta[0] + index * residual.step)
        is_ghost = bool(ghosts.size) and (
            float(np.abs(ghosts - angle).min()) < _GHOST_REACH
        )
        is_cut = not _EDGE < angle - first < last - first - _EDGE
        own = sum(
            float(areas[np.abs(positions - angle) < _OWN_REACH].sum())
            for positions, areas in lines
        )
        is_own = own > _OWN_AREA * area
        if not (is_ghost or is_cut or is_own) and all(
            abs(angle - other) > 0.3 for other, _ in peaks
        ):
            peaks.append((angle, area))
    return peaks


def _calculated(
    fitted: Fitted,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return angles [deg] and areas [counts deg] of the K-alpha 1 lines by phase."""
    model, p = fitted.model, fitted.refinement.parameters
    scales = fitted.refinement.linear.scales
    seen = []
    for index, phase in enumerate(model.phases):
        n_lines = phase.lines.d.size
        areas = phase.areas(model.texture(p, index))[:n_lines] * scales[index]
        seen.append((model.displaced(p, index)[:n_lines], areas))
    return seen


def _ghosts(fitted: Fitted) -> NDArray[np.float64]:
    """Return where other lines of the tube show strong reflections again [deg]."""
    seen = _calculated(fitted)
    largest = max((float(areas.max(initial=0.0)) for _, areas in seen), default=0.0)
    angles = []
    for positions, areas in seen:
        strong = areas > 0.3 * largest
        sines = np.sin(np.radians(positions[strong]) / 2.0)
        angles += [
            2.0 * np.degrees(np.arcsin(sines * ratio)) for ratio in _GHOST_RATIOS
        ]
    return np.concatenate(angles) if angles else np.zeros(0)


def _rolling_maximum(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    padded = np.pad(values, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(windows.max(axis=1))


def _rolling_median(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the median around every point, computed on every fourth."""
    padded = np.pad(values, reach, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)[::4]
    at = np.arange(0, values.size, 4)
    return np.interp(np.arange(values.size), at, np.median(windows, axis=1))


def _maxima(values: NDArray[np.float64], above: float, reach: int) -> list[int]:
    """Return where *values* has maxima over ``2 reach + 1`` points and *above*."""
    is_peak = (values >= _rolling_maximum(values, reach)) & (values > above)
    return [int(index) for index in np.flatnonzero(is_peak)]
