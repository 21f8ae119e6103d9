"""How much of which phase: whole-pattern fit, weight fractions, honest errors.

The scan is fitted with the calculated patterns of all candidate phases (Rietveld's
method with fixed atoms): sample displacement, instrument profile, and for each phase
cell, size, strain and texture are refined. Weight fractions follow from the scales:
w_i proportional to S_i Z_i M_i V_i (R. J. Hill, C. J. Howard, J. Appl. Cryst. 20
(1987) 467), corrected for the shade that grains throw. Fractions are of the crystalline
phases given; how much of the specimen is crystalline is estimated beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._alignment import misalignment
from ppu_protocols.analysis._budget import (
    FIT,
    SOURCES,
    UNLISTED,
    Budget,
    ErrorPart,
    budget,
    total_error,
)
from ppu_protocols.analysis._confidence import (
    BLANK,
    FAINT,
    NOTABLE_SHARE,
    Evidence,
    Level,
    PhaseEvidence,
    is_poor_fit,
    judge,
)
from ppu_protocols.analysis._crystallinity import Crystallinity, crystallinity
from ppu_protocols.analysis._missing import (
    Missing,
    find_missing,
    least_noticed,
    least_seen,
)
from ppu_protocols.analysis._model import (
    DISPLACEMENT_SPREAD,
    ScanModel,
    background_basis,
)
from ppu_protocols.analysis._phase_model import PhaseModel
from ppu_protocols.analysis._search import Fitted, fit, visible
from ppu_protocols.analysis.absorption import GrainSize
from ppu_protocols.analysis.balance import Dosed, Witness, weigh_elements
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.pattern import ProfileGrid
from ppu_protocols.analysis.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Phase

_TYPICAL_STRANGER = "CaCO3"
DETECTION = 3.29
"""Standard errors of the fit that a detection limit is (L. A. Currie, 1968)."""
MOST_CANDIDATES = 12


@dataclass(frozen=True)
class PhaseResult:
    """What was found of one phase.

    Attributes:
        name: Name of the candidate.
        formula: Its reduced formula.
        weight_fraction: Share of the crystalline mass, 0 to 1.
        standard_error: One standard deviation of the share, systematic part included.
        cell: Refined a, b, c [Å], alpha, beta, gamma [deg].
        texture_axis: Axis of the March-Dollase texture found, None without.
        texture_r: March-Dollase parameter; 1 without.
        detection_limit: Weight fraction below which the phase would not be told from
            nothing.
        is_present: Whether the scan needs the phase; if not, up to the detection limit
            of it could hide.
        absorption_factor: By how much absorption contrast weakened its lines, undone
            in the share.
    """

    name: str
    formula: str
    weight_fraction: float
    standard_error: float
    cell: tuple[float, ...]
    texture_axis: tuple[int, int, int] | None = None
    texture_r: float = 1.0
    detection_limit: float = 1.0
    is_present: bool = True
    absorption_factor: float = 1.0


@dataclass(frozen=True)
class FitQuality:
    """How well the whole pattern is described.

    Attributes:
        r_wp: Weighted profile residual, 0 is perfect.
        goodness_of_fit: Root of chi² over degrees of freedom, counting statistics
            only; 1 is perfect.
    """

    r_wp: float
    goodness_of_fit: float


@dataclass(frozen=True, eq=False)
class Quantification:
    """The outcome of `quantify`.

    Attributes:
        phases: Largest share first; with `unlisted_share` they sum to 1.
        confidence: ``"high"``, ``"medium"`` or ``"low"``: by the error budget, and low
            if a test says that the fractions are doubtful.
        confidence_sentence: Why, in one sentence.
        confidence_reasons: What makes the fractions doubtful, one sentence each.
        remarks: What should be known and is in the stated errors.
        alignment: What is wrong with the instrument's angles, harmless for fractions.
        structure_notes: What of a candidate's file was not used or cannot be trusted,
            by name.
        error_budget: Every part of the standard errors, with its source.
        missing: What is in the scan and among no candidates.
        unlisted_share: Share of the mass that is in no candidate, by peaks or by
            elements; 0 if that is no more than a trace.
        unlisted_limit: Weight fraction of an unlisted phase that scatters like calcite
            below which it would not be noticed.
        witness: What the elements dosed say; None if nobody told.
        crystallinity: How much of the scattering is in lines.
        fit: Quality of the fit.
        calculated: Model at the scan's points [counts], shape ``(n,)``.
        background: Its background [counts], shape ``(n,)``.
        curves: Share of each phase in the model by name [counts], shape ``(n,)``.
        line_positions: Angles of each phase's K-alpha 1 lines [deg], by name.
        parameters: Refined values by name, in spreads of what is plausible.
        displacement_mm: Height of the sample above the axis of the goniometer, if its
            zero is right.
        misalignment_deg: How much too high all angles seem to be read; None if
            nothing speaks for that. A sample far off the axis looks the same.
        fitted: The model as it was refined, for further questions.
        budget: Shares and errors as arrays.
    """

    phases: tuple[PhaseResult, ...]
    confidence: Level
    confidence_sentence: str
    confidence_reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    alignment: tuple[str, ...]
    structure_notes: dict[str, tuple[str, ...]]
    error_budget: tuple[ErrorPart, ...]
    missing: Missing
    unlisted_share: float
    unlisted_limit: float
    witness: Witness | None
    crystallinity: Crystallinity
    fit: FitQuality
    calculated: NDArray[np.float64]
    background: NDArray[np.float64]
    curves: dict[str, NDArray[np.float64]]
    line_positions: dict[str, NDArray[np.float64]]
    parameters: dict[str, float]
    displacement_mm: float
    misalignment_deg: float | None
    fitted: Fitted = field(repr=False)
    budget: Budget = field(repr=False)

    @property
    def is_blank(self) -> bool:
        """Whether no candidate was seen at all, so that the shares mean nothing."""
        return BLANK in self.confidence_reasons

    def least_noticed(self, phase: Phase) -> float:
        """Return the weight fraction of an unlisted *phase* that would be noticed."""
        return least_noticed(self.fitted, self.budget, phase)


def quantify(
    scan: Scan,
    phases: Sequence[Phase],
    *,
    grains: Mapping[str, GrainSize] | None = None,
    dosed: Dosed | None = None,
) -> Quantification:
    """Return the weight fractions of the candidate *phases* in *scan*.

    Args:
        scan: The measured pattern.
        phases: Candidates; those that are absent come out as 0.
        grains: What is known of the grains of each phase by name; others are taken to
            be as in any fine powder, and their uncertainty is in the errors.
        dosed: What was weighed in, as a second witness.

    Raises:
        AnalysisError: If there is no candidate, two share a name, there are more
            than 12, or grains are of no candidate.
    """
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names) or len(names) > MOST_CANDIDATES:
        raise AnalysisError(
            f"candidate phases {names}: 1 to {MOST_CANDIDATES} with different names "
            "are needed"
        )
    strange = set(grains or {}) - set(names)
    if strange:
        raise AnalysisError(
            f"grain sizes of {', '.join(sorted(strange))}, which are no candidates; "
            f"there are: {', '.join(names)}"
        )
    if not visible(phases, scan):
        raise AnalysisError(
            f"none of {', '.join(names)} has a line between "
            f"{scan.two_theta[0]:g} and {scan.two_theta[-1]:g} deg; a wider scan or "
            "other candidates are needed"
        )
    return _conclude(phases, fit(phases, scan), grains or {}, dosed)


def has_lines(phase: Phase, start_deg: float, stop_deg: float) -> bool:
    """Return whether *phase* has a line that a scan of this range can show.

    Args:
        phase: The structure.
        start_deg: First angle 2theta of a copper scan [deg].
        stop_deg: Last angle [deg].
    """
    angles = np.linspace(start_deg, stop_deg, 200)
    return PhaseModel(phase, Scan.from_counts(angles, np.ones(200))).has_lines


def _conclude(
    phases: Sequence[Phase],
    fitted: Fitted,
    grains: Mapping[str, GrainSize],
    dosed: Dosed | None,
) -> Quantification:
    counted = budget(fitted, grains)
    missing = find_missing(fitted, counted, [phase.name for phase in phases])
    witness = None
    if dosed is not None and counted.significance.max() >= FAINT:
        found = [m.phase for m in fitted.model.phases]
        witness = weigh_elements(found, counted.shares, counted.relative, dosed)
    if witness is not None and witness.agrees:
        counted = counted.witnessed(witness.shares, witness.standard_errors)
    unlisted, factor = missing.share, missing.factor
    if witness is not None and witness.missing_share > unlisted:
        # Elements do not depend on how strongly something scatters.
        unlisted = witness.missing_share
        factor = math.exp(min(witness.missing_error / unlisted + 0.1, 1.0))
    if unlisted >= NOTABLE_SHARE:
        counted = counted.beside(unlisted)
    parts = dict(counted.parts)
    is_faint = counted.significance.max() < FAINT
    limits = {
        m.phase.name: 1.0 if is_faint else least_seen(fitted, counted, m)
        for m in fitted.absent
    }
    # What is there in less than its limit is not seen; some of that may well be.
    hidden = least_noticed(fitted, counted, load_phase(_TYPICAL_STRANGER))
    traces = [min(limit, 0.2) / DETECTION for limit in limits.values()]
    # An amount known within a factor f is uncertain by about itself times ln f.
    unsure = math.hypot(
        max(unlisted * math.log(max(factor, 1.2)), 0.15 * min(hidden, 0.2)), *traces
    )
    parts[UNLISTED] = unsure * counted.shares
    if is_faint:
        # Nothing was seen, so nothing is known.
        parts[FIT] = np.maximum(parts[FIT], 0.5)

    def is_poor(other: Fitted) -> bool:
        again = budget(other, grains)
        return is_poor_fit(_evidence(other, again, again.parts, missing, None))

    shift = misalignment(phases, fitted, is_poor)
    evidence = _evidence(fitted, counted, parts, missing, shift)
    judgement = judge(evidence, witness)
    scan, model, refinement = fitted.scan, fitted.model, fitted.refinement
    names = [m.phase.name for m in model.phases]
    background, curves = _curves(scan, model, fitted)
    calculated = background + np.sum(list(curves.values()), axis=0)
    lines = {
        m.phase.name: model.displaced(refinement.parameters, index)[: m.lines.d.size]
        for index, m in enumerate(model.phases)
    }
    for phase in phases:
        curves.setdefault(phase.name, np.zeros_like(background))
        lines.setdefault(phase.name, np.zeros(0))
    parameters = map(float, refinement.parameters)
    return Quantification(
        phases=_results(phases, fitted, counted, total_error(parts), limits),
        confidence=judgement.level,
        confidence_sentence=judgement.sentence,
        confidence_reasons=judgement.doubts,
        remarks=judgement.remarks,
        alignment=judgement.alignment,
        structure_notes={p.name: p.notes for p in phases if p.notes},
        error_budget=tuple(
            ErrorPart(
                name, SOURCES[name], dict(zip(names, map(float, part), strict=True))
            )
            for name, part in parts.items()
        ),
        missing=missing,
        unlisted_limit=hidden,
        unlisted_share=unlisted if unlisted >= NOTABLE_SHARE else 0.0,
        witness=witness,
        crystallinity=crystallinity(
            fitted.binned.two_theta,
            refinement.linear.calculated - evidence.net,
            evidence.net,
            fitted.binned.variance,
        ),
        fit=_fit_quality(scan, calculated, len(refinement.curvature)),
        calculated=calculated,
        background=background,
        curves=curves,
        line_positions=lines,
        parameters=dict(zip(model.names(), parameters, strict=True)),
        displacement_mm=float(refinement.parameters[0]) * DISPLACEMENT_SPREAD,
        misalignment_deg=shift,
        fitted=fitted,
        budget=counted,
    )


def _results(
    phases: Sequence[Phase],
    fitted: Fitted,
    counted: Budget,
    errors: NDArray[np.float64],
    limits: Mapping[str, float],
) -> tuple[PhaseResult, ...]:
    model, p = fitted.model, fitted.refinement.parameters
    by_name = {m.phase.name: index for index, m in enumerate(model.phases)}
    results = []
    for phase in phases:
        index = by_name.get(phase.name)
        if index is None:
            limit = limits.get(phase.name, 1.0)
            results.append(
                PhaseResult(
                    phase.name,
                    phase.formula,
                    0.0,
                    limit / DETECTION if limit < 1.0 else 1.0,
                    phase.cell,
                    detection_limit=limit,
                    is_present=False,
                )
            )
            continue
        results.append(
            PhaseResult(
                name=phase.name,
                formula=phase.formula,
                weight_fraction=float(counted.shares[index]),
                standard_error=float(errors[index]),
                cell=model.phases[index].cell(model.strains(p, index)),
                texture_axis=model.phases[index].texture.axis,
                texture_r=math.exp(model.log_r(p, index)),
                detection_limit=_own_limit(counted, index),
                absorption_factor=float(counted.shading[index]),
            )
        )
    return tuple(sorted(results, key=lambda result: -result.weight_fraction))


def _own_limit(counted: Budget, index: int) -> float:
    """Return the detection limit of a phase that is there."""
    significance = float(counted.significance[index])
    if significance <= 0.0:
        return 1.0
    share = float(counted.shares[index])
    least = DETECTION / significance * share
    return min(least / max(least + 1.0 - share, 1e-300), 1.0)


def _evidence(
    fitted: Fitted,
    counted: Budget,
    parts: Mapping[str, NDArray[np.float64]],
    missing: Missing,
    misalignment_deg: float | None,
) -> Evidence:
    binned, target = fitted.binned, fitted.target
    model, refinement = fitted.model, fitted.refinement
    p, linear = refinement.parameters, refinement.linear
    every = ScanModel([*model.phases, *fitted.absent], model.grid, model.radius)
    alike = np.zeros(every.n_parameters)
    alike[: model.own(0).start] = p[: model.own(0).start]
    net = linear.scales @ model.patterns(p)
    weighted = target.weighted(every.patterns(alike))
    errors = total_error(parts)
    entries = []
    for index, phase in enumerate(model.phases):
        cell = phase.cell(model.strains(p, index))
        change = np.abs(np.array(cell[:3]) / np.array(phase.phase.cell[:3]) - 1.0)
        visible_intensity, n_visible = phase.visibility()
        entries.append(
            PhaseEvidence(
                name=phase.phase.name,
                share=float(counted.shares[index]),
                standard_error=float(errors[index]),
                significance=float(counted.significance[index]),
                log_r=model.log_r(p, index),
                strain=float(change.max()),
                visible_intensity=visible_intensity,
                n_visible=n_visible,
                contrast=float(counted.contrast[index]),
                is_broadest=model.is_broadest(p, index),
            )
        )
    return Evidence(
        phases=entries,
        absent=[m.phase.name for m in fitted.absent],
        invisible=fitted.invisible,
        counts=binned.counts,
        variance=binned.variance,
        calculated=linear.calculated,
        net=net,
        patterns=target.without_fixed(weighted, weighted[:0]),
        missing=missing,
        displacement_mm=float(p[0]) * DISPLACEMENT_SPREAD,
        misalignment_deg=misalignment_deg,
        parts={name: float(part.max()) for name, part in parts.items()},
    )


def _curves(
    scan: Scan, model: ScanModel, fitted: Fitted
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return background and the share of each phase at the scan's own points."""
    refinement, binned = fitted.refinement, fitted.binned
    step = float(np.median(np.diff(scan.two_theta)))
    start = float(scan.two_theta[0])
    n_points = round((float(scan.two_theta[-1]) - start) / step) + 1
    step = (float(scan.two_theta[-1]) - start) / (n_points - 1)
    fine = ScanModel(model.phases, ProfileGrid(start, step, n_points), scan.radius)
    even = start + step * np.arange(n_points)
    curves = {}
    for index, phase in enumerate(model.phases):
        scale = float(refinement.linear.scales[index])
        values = np.zeros(scan.two_theta.size)
        if scale > 0.0:
            pattern = fine.pattern(refinement.parameters, index)
            values = np.interp(scan.two_theta, even, scale * pattern)
        curves[phase.phase.name] = values
    background = background_basis(binned.two_theta) @ refinement.linear.background
    return np.interp(scan.two_theta, binned.two_theta, background), curves


def _fit_quality(
    scan: Scan, calculated: NDArray[np.float64], n_free: int
) -> FitQuality:
    weight = 1.0 / scan.variance
    chi_squared = float((weight * (scan.counts - calculated) ** 2).sum())
    total = float((weight * scan.counts**2).sum())
    return FitQuality(
        r_wp=math.sqrt(chi_squared / total) if total > 0.0 else 0.0,
        goodness_of_fit=math.sqrt(chi_squared / max(1, scan.counts.size - n_free)),
    )
