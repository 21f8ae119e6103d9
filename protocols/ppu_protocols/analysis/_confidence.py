"""What speaks against a quantification, in sentences a person can act on.

Two kinds are kept apart: the instrument's alignment, harmless for fractions, and what
makes the fractions doubtful. The level follows from the error budget and from tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis._missing import Missing
    from ppu_protocols.analysis.balance import Witness

Level = Literal["high", "medium", "low"]

HIGH_ERROR = 0.035
"""Largest standard error of a share at which confidence is high."""
MEDIUM_ERROR = 0.05
"""Largest standard error of a share at which confidence is medium."""
POOR_FIT = 0.20  # of the intensity above background
FAR_DISPLACEMENT = 0.35
"""Height of the sample that a fit may doubt [mm]."""
FAR_SHIFT = 1.0  # of all angles, up to which the fractions are sound [deg]
SERIOUS_SHARE = 0.05  # of the mass missing from the candidates
NOTABLE_SHARE = 0.01  # below which strange peaks are let pass
FAR_CELL = 0.008  # relative
ALIKE = 0.95  # cosine between patterns
FEW_INTENSITY = 0.35  # of a phase's strongest line, if only weaker ones were scanned
FAINT = 8.0
"""Standard errors a phase must stand out for the scan to hold anything."""
RELEVANT_SHARE = 0.03
COARSE = 0.1  # (mu_i - mu_mean) D beyond which Brindley's correction is approximate
VERY_COARSE = 1.0  # beyond which none is possible
STRONG_TEXTURE = math.log(2.5)
TEXTURED_SHARE = 0.10

BLANK = (
    "No peak stands above the background; the holder may be empty or the sample "
    "amorphous."
)
"""The reason for doubt when there is nothing to quantify."""


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
        contrast: (mu_i - mu_mean) D of its grains.
        is_broadest: Whether its lines are as broad as a crystal's can be.
    """

    name: str
    share: float
    standard_error: float
    significance: float
    log_r: float
    strain: float
    visible_intensity: float
    n_visible: int
    contrast: float
    is_broadest: bool


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that confidence is judged by.

    Attributes:
        phases: One entry per candidate that the scan shows.
        absent: Names of candidates that the scan does not need.
        invisible: Names of candidates without a line in range.
        counts: Shape ``(n,)``.
        variance: From counting, shape ``(n,)``.
        calculated: The model, shape ``(n,)``.
        net: The model without background, shape ``(n,)``.
        patterns: Weighted patterns as the files of the phases have them, background
            projected out, those of *phases* and then of *absent*, ``(m, n)``.
        missing: What no candidate explains.
        displacement_mm: Refined height of the sample.
        misalignment_deg: How much too high all angles seem to be read, or None.
        parts: Largest standard error of a share by part of the budget.
    """

    phases: Sequence[PhaseEvidence]
    absent: Sequence[str]
    invisible: Sequence[str]
    counts: NDArray[np.float64]
    variance: NDArray[np.float64]
    calculated: NDArray[np.float64]
    net: NDArray[np.float64]
    patterns: NDArray[np.float64]
    missing: Missing
    displacement_mm: float
    misalignment_deg: float | None
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Judgement:
    """How far a result may be trusted.

    Attributes:
        level: ``"high"``, ``"medium"`` or ``"low"``.
        sentence: Why, in one sentence.
        doubts: What makes the fractions doubtful.
        remarks: What should be known and is in the stated errors.
        alignment: What is wrong with the instrument; harmless for fractions unless a
            doubt says so.
    """

    level: Level
    sentence: str
    doubts: tuple[str, ...]
    remarks: tuple[str, ...]
    alignment: tuple[str, ...]


def is_poor_fit(evidence: Evidence) -> bool:
    """Whether more of the peaks is missed than noise and usual errors explain."""
    return is_blank(evidence) or misfit(evidence) > POOR_FIT


def is_blank(evidence: Evidence) -> bool:
    """Whether no candidate stands out of the background."""
    return max((p.significance for p in evidence.phases), default=0.0) < FAINT


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


def judge(evidence: Evidence, witness: Witness | None = None) -> Judgement:
    """Return the confidence that *evidence*, and perhaps a balance, deserve."""
    alignment = tuple(_alignment(evidence))
    if is_blank(evidence):
        peaks = _strange_peaks(evidence.missing)
        doubts = (
            ["The scan has peaks, but not those of the candidates.", *peaks]
            if peaks
            else [BLANK]
        )
        if evidence.misalignment_deg is not None:
            doubts = [_shifted(evidence.misalignment_deg), *doubts]
        sentence = f"low: {_inner(doubts[0])}"
        return Judgement("low", sentence, tuple(doubts), (), alignment)
    doubts = _doubts(evidence)
    remarks = _remarks(evidence)
    if witness is not None and not witness.agrees:
        serious = not witness.missing or witness.missing_share >= SERIOUS_SHARE
        (doubts if serious else remarks).insert(0, witness.sentence)
    largest = max(p.standard_error for p in evidence.phases)
    part = max(evidence.parts, key=lambda name: evidence.parts[name])
    size = f"the largest standard error is {100 * largest:.1f} wt%, mostly {part}"
    if doubts:
        level: Level = "low"
        sentence = f"low: {_inner(doubts[0])}"
    elif largest > MEDIUM_ERROR:
        level, sentence = "low", f"low: {size}"
    elif largest > HIGH_ERROR or remarks:
        level = "medium"
        why = size if largest > HIGH_ERROR else _inner(remarks[0])
        sentence = f"medium: {why}"
    else:
        level = "high"
        sentence = f"high: {size}, and no test found anything wrong"
    return Judgement(level, sentence, tuple(doubts), tuple(remarks), alignment)


def _inner(sentence: str) -> str:
    """Return *sentence* without its full stop."""
    return sentence.rstrip(".")


def _doubts(evidence: Evidence) -> list[str]:
    """Return one sentence for each thing that makes the fractions doubtful."""
    doubts = []
    shift = evidence.misalignment_deg
    if shift is not None and (abs(shift) > FAR_SHIFT or misfit(evidence) > POOR_FIT):
        doubts.append(_shifted(shift))
    if misfit(evidence) > POOR_FIT:
        doubts.append(
            f"The fit misses {100 * misfit(evidence):.0f} % of the intensity above "
            "background."
        )
    if evidence.missing.share >= SERIOUS_SHARE:
        doubts += _strange_peaks(evidence.missing)
    for phase in evidence.phases:
        doubts += _doubts_about(phase)
    doubts += [
        f"{name} has no line in the range of the scan." for name in evidence.invisible
    ]
    return doubts + _alike(evidence)


def _doubts_about(phase: PhaseEvidence) -> list[str]:
    doubts = []
    if phase.visible_intensity < FEW_INTENSITY or phase.n_visible < 2:
        doubts.append(
            f"The strong lines of {phase.name} lie outside the range of the scan."
        )
    if phase.strain > FAR_CELL and phase.share > RELEVANT_SHARE:
        doubts.append(
            f"The cell of {phase.name} had to change by {100 * phase.strain:.1f} %; "
            "another phase or composition may be present."
        )
    if abs(phase.contrast) > VERY_COARSE and phase.share > RELEVANT_SHARE:
        doubts.append(
            f"The grains of {phase.name} are so coarse that absorption contrast cannot "
            f"be corrected ((mu - mu_mean) D is {phase.contrast:+.1f}); grind finer."
        )
    if phase.is_broadest and phase.share > RELEVANT_SHARE:
        doubts.append(
            f"The lines of {phase.name} are broader than crystals of 4 nm make them; "
            "what is broader still was counted as background."
        )
    return doubts


def _remarks(evidence: Evidence) -> list[str]:
    """Return what should be known although the stated errors include it."""
    remarks = []
    if NOTABLE_SHARE <= evidence.missing.share < SERIOUS_SHARE:
        remarks += _strange_peaks(evidence.missing)
    for phase in evidence.phases:
        if COARSE < abs(phase.contrast) <= VERY_COARSE and phase.share > RELEVANT_SHARE:
            remarks.append(
                f"Absorption contrast of {phase.name} is strong ((mu - mu_mean) D is "
                f"{phase.contrast:+.2f}, above 0.1); its correction is approximate."
            )
        if abs(phase.log_r) > STRONG_TEXTURE and phase.share > TEXTURED_SHARE:
            remarks.append(
                f"{phase.name} is strongly textured (March-Dollase parameter "
                f"{math.exp(phase.log_r):.2f})."
            )
    return remarks


def _alignment(evidence: Evidence) -> list[str]:
    remarks = []
    if evidence.misalignment_deg is not None:
        remarks.append(_shifted(evidence.misalignment_deg))
    if abs(evidence.displacement_mm) > FAR_DISPLACEMENT:
        remarks.append(
            f"The sample sits {evidence.displacement_mm:+.2f} mm off the axis of the "
            f"goniometer; {FAR_DISPLACEMENT} mm is usual at most."
        )
    return remarks


def _shifted(misalignment_deg: float) -> str:
    return (
        "The peaks agree with the candidates if all angles are off by "
        f"{misalignment_deg:+.2f} deg; check the zero of the goniometer and the height "
        "of the sample."
    )


def _alike(evidence: Evidence) -> list[str]:
    reasons = []
    lengths = np.linalg.norm(evidence.patterns, axis=1)
    unit = evidence.patterns / np.maximum(lengths, 1e-300)[:, None]
    cosine = unit @ unit.T
    shares = [phase.share for phase in evidence.phases]
    names = [phase.name for phase in evidence.phases] + list(evidence.absent)
    shares += [0.0] * len(evidence.absent)
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            if cosine[i, j] > ALIKE and shares[i] + shares[j] > RELEVANT_SHARE:
                reasons.append(
                    f"{second} and {first} have nearly the same pattern and "
                    "cannot be told apart."
                )
    return reasons


def _strange_peaks(missing: Missing) -> list[str]:
    """Report peaks that no candidate explains, if they are worth more than a trace."""
    if not missing.peaks or missing.share < NOTABLE_SHARE:
        return []
    where = ", ".join(f"{angle:.1f}" for angle, _ in sorted(missing.peaks[:5]))
    if missing.owner is not None:
        return [
            f"Peaks at {where} deg belong to no candidate; they agree with "
            f"{missing.owner}, about {100 * missing.share:.0f} wt%, which is missing "
            "from the candidates."
        ]
    return [
        f"Peaks at {where} deg belong to no candidate; a phase of roughly "
        f"{100 * missing.share:.0f} wt%, known within a factor of "
        f"{missing.factor:g}, is missing from the candidates."
    ]
