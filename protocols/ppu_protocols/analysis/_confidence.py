"""What speaks against a quantification, in sentences a person can act on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Wavelengths that a filter lets pass a little, over that of K-alpha 1: copper K-beta
# and the L-alpha line of tungsten from the filament on the anode.
_GHOST_RATIOS = (1.39225 / 1.5405980, 1.4764 / 1.5405980)

SIGNIFICANT_PEAK = 6.0  # heights of a strange peak above its noise that count
MISSING_SHARE = 0.015  # of the crystalline mass, below which strange peaks are let pass
POOR_FIT = 0.20  # of the intensity above background
FAR_DISPLACEMENT = 0.35  # [mm]
STRONG_TEXTURE = math.log(2.0)
FAR_CELL = 0.008  # relative
LARGE_ERROR = 0.06
ALIKE = 0.95  # cosine between patterns
FEW_INTENSITY = 0.35  # of a phase's strongest line, if only weaker ones were scanned
FAINT = 8.0  # standard errors a phase must stand out for the scan to hold anything
RELEVANT_SHARE = 0.03
TEXTURED_SHARE = 0.10


@dataclass(frozen=True, eq=False)
class PhaseEvidence:
    """What is known of one phase after the fit.

    Attributes:
        name: Name of the candidate.
        share: Weight fraction.
        standard_error: Of the share.
        significance: Scale over its standard error from the fit alone.
        log_r: Logarithm of the March-Dollase parameter; 0 without texture.
        strain: Largest relative change of a cell length.
        visible_intensity: Strongest line in range over strongest line anywhere.
        n_visible: Lines in range with a tenth of the strongest or more.
        lines: Angles of the K-alpha 1 lines [deg].
        areas: Their areas in the scan [counts deg].
        mass: In the unit in which `Evidence.area_per_mass` is.
    """

    name: str
    share: float
    standard_error: float
    significance: float
    log_r: float
    strain: float
    visible_intensity: float
    n_visible: int
    lines: NDArray[np.float64]
    areas: NDArray[np.float64]
    mass: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that confidence is judged by.

    Attributes:
        phases: One entry per candidate with lines in range.
        invisible: Names of candidates without.
        two_theta: Angles [deg], shape ``(n,)``.
        counts: Shape ``(n,)``.
        variance: From counting, shape ``(n,)``.
        calculated: The model, shape ``(n,)``.
        net: The model without background, shape ``(n,)``.
        patterns: Weighted patterns as the files of the phases have them, background
            projected out, ``(n, n_phases)``.
        area_per_mass: What a missing phase is taken to give [counts deg per mass].
        displacement_mm: Refined height of the sample.
        misalignment_deg: How much too high all angles seem to be read, or None.
    """

    phases: Sequence[PhaseEvidence]
    invisible: Sequence[str]
    two_theta: NDArray[np.float64]
    counts: NDArray[np.float64]
    variance: NDArray[np.float64]
    calculated: NDArray[np.float64]
    net: NDArray[np.float64]
    patterns: NDArray[np.float64]
    area_per_mass: float
    displacement_mm: float
    misalignment_deg: float | None


def is_poor_fit(evidence: Evidence) -> bool:
    """Whether more of the peaks is missed than noise and usual errors explain."""
    faint = max((phase.significance for phase in evidence.phases), default=0.0) < FAINT
    return faint or misfit(evidence) > POOR_FIT


def misfit(evidence: Evidence) -> float:
    """Return the share of the intensity above background that the model misses.

    The mean absolute residual that counting noise alone gives is taken off.
    """
    measured = np.isfinite(evidence.variance)
    residual = np.abs(evidence.counts - evidence.calculated)[measured]
    noise = math.sqrt(2.0 / math.pi) * np.sqrt(evidence.variance[measured])
    net = float(evidence.net[measured].sum())
    excess = float(np.maximum(residual - 2.5 * noise, 0.0).sum())
    return excess / max(net + excess, 1e-12)


BLANK = (
    "No peak stands above the background; the holder may be empty or the sample "
    "amorphous."
)
"""The reason for doubt when there is nothing to quantify."""


def reasons_for_doubt(evidence: Evidence) -> list[str]:
    """Return one sentence for each thing that speaks against the result."""
    significances = [phase.significance for phase in evidence.phases]
    if max(significances, default=0.0) < FAINT:
        strange = _strange_peaks(evidence)
        return _misaligned(evidence) + (
            ["The scan has peaks, but not those of the candidates.", *strange]
            if strange
            else [BLANK]
        )
    reasons = _misaligned(evidence)
    if misfit(evidence) > POOR_FIT:
        reasons.append(
            f"The fit misses {100 * misfit(evidence):.0f} % of the intensity above "
            "background."
        )
    reasons += _strange_peaks(evidence)
    if abs(evidence.displacement_mm) > FAR_DISPLACEMENT:
        reasons.append(
            f"The sample sits {evidence.displacement_mm:+.2f} mm off the axis of the "
            f"goniometer; {FAR_DISPLACEMENT} mm is usual at most."
        )
    for phase in evidence.phases:
        reasons += _doubts_about(phase)
    reasons += [
        f"{name} has no line in the range of the scan." for name in evidence.invisible
    ]
    return reasons + _alike(evidence)


def _misaligned(evidence: Evidence) -> list[str]:
    if evidence.misalignment_deg is None:
        return []
    return [
        "The peaks agree with the candidates if all angles are off by "
        f"{evidence.misalignment_deg:+.2f} deg; check the zero of the goniometer and "
        "the height of the sample."
    ]


def _doubts_about(phase: PhaseEvidence) -> list[str]:
    reasons = []
    if phase.visible_intensity < FEW_INTENSITY or phase.n_visible < 2:
        reasons.append(
            f"The strong lines of {phase.name} lie outside the range of the scan."
        )
    if phase.standard_error > LARGE_ERROR:
        reasons.append(
            f"The share of {phase.name} is uncertain by "
            f"{100 * phase.standard_error:.0f} wt%."
        )
    if abs(phase.log_r) > STRONG_TEXTURE and phase.share > TEXTURED_SHARE:
        reasons.append(
            f"{phase.name} is strongly textured (March-Dollase parameter "
            f"{math.exp(phase.log_r):.2f})."
        )
    if phase.strain > FAR_CELL and phase.share > RELEVANT_SHARE:
        reasons.append(
            f"The cell of {phase.name} had to change by {100 * phase.strain:.1f} %; "
            "another phase or composition may be present."
        )
    return reasons


def _alike(evidence: Evidence) -> list[str]:
    reasons = []
    lengths = np.linalg.norm(evidence.patterns, axis=0)
    unit = evidence.patterns / np.maximum(lengths, 1e-300)
    cosine = unit.T @ unit
    for i, first in enumerate(evidence.phases):
        for j, second in enumerate(evidence.phases[:i]):
            if cosine[i, j] > ALIKE and first.share + second.share > RELEVANT_SHARE:
                reasons.append(
                    f"{second.name} and {first.name} have nearly the same pattern and "
                    "cannot be told apart."
                )
    return reasons


def _strange_peaks(evidence: Evidence) -> list[str]:
    """Report peaks that no candidate explains, if they are worth more than a trace."""
    peaks = find_strange_peaks(evidence)
    if not peaks:
        return []
    where = ", ".join(f"{angle:.1f}" for angle, _ in sorted(peaks[:5]))
    share = strange_share(evidence, peaks)
    if share < MISSING_SHARE:
        return []
    return [
        f"Peaks at {where} deg belong to no candidate; a phase of very roughly "
        f"{100 * share:.0f} wt% is missing from the candidates."
    ]


def strange_share(evidence: Evidence, peaks: Sequence[tuple[float, float]]) -> float:
    """Return what share of the mass *peaks* (angle, area) would be, very roughly.

    The missing phase is taken to scatter as weakly as light oxides do, and half of its
    intensity to hide under other lines and in noise.
    """
    missing = 2.0 * sum(area for _, area in peaks) / evidence.area_per_mass
    known = sum(phase.mass for phase in evidence.phases)
    return missing / max(missing + known, 1e-300)


def find_strange_peaks(evidence: Evidence) -> list[tuple[float, float]]:
    """Return angle [deg] and area [counts deg] of peaks that no candidate explains.

    A matched filter runs over the residual; near calculated lines the residual must
    exceed a share of them, for profiles and intensities are never perfect there.
    """
    step = float(evidence.two_theta[1] - evidence.two_theta[0])
    reach = max(1, round(0.15 / step))
    nearby = _rolling_maximum(evidence.net, reach)
    variance = evidence.variance + (0.2 * nearby) ** 2
    weight = 1.0 / variance
    residual = evidence.counts - evidence.calculated
    # What is left of a glass hump is no peak.
    residual = residual - _rolling_median(residual, max(2, round(0.8 / step)))
    found: dict[int, tuple[float, float]] = {}
    for fwhm in (0.12, 0.3):
        half = max(2, round(1.5 * fwhm / step))
        x = np.arange(-half, half + 1) * step
        sigma = fwhm / 2.355
        shape = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
        overlap = np.convolve(residual * weight, shape, mode="same")
        norm = np.convolve(weight, shape**2, mode="same")
        height = overlap / np.sqrt(np.maximum(norm, 1e-300))
        for index in _maxima(height, SIGNIFICANT_PEAK, max(1, round(0.3 / step))):
            area = float(overlap[index] / norm[index])
            found[index] = (float(height[index]), area)
    return _without_known(evidence, found, step)


def _without_known(
    evidence: Evidence, found: dict[int, tuple[float, float]], step: float
) -> list[tuple[float, float]]:
    """Drop doubles, ghosts of strong lines and cut-off ends; strongest first."""
    ghosts = _ghosts(evidence)
    first, last = float(evidence.two_theta[0]), float(evidence.two_theta[-1])
    peaks: list[tuple[float, float]] = []
    for index, (_, area) in sorted(found.items(), key=lambda item: -item[1][0]):
        angle = float(evidence.two_theta[0] + index * step)
        is_ghost = bool(ghosts.size) and float(np.abs(ghosts - angle).min()) < 0.25
        is_cut = not 0.3 < angle - first < last - first - 0.3
        if not (is_ghost or is_cut) and all(
            abs(angle - other) > 0.3 for other, _ in peaks
        ):
            peaks.append((angle, area))
    return peaks


def _ghosts(evidence: Evidence) -> NDArray[np.float64]:
    """Return where other lines of the tube show strong reflections again [deg]."""
    angles = []
    largest = max((float((p.areas).max()) for p in evidence.phases), default=0.0)
    for phase in evidence.phases:
        strong = phase.areas > 0.3 * largest
        sines = np.sin(np.radians(phase.lines[strong]) / 2.0)
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
