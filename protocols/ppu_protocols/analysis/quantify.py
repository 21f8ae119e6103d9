"""How much of which phase: whole-pattern fit, weight fractions, honest errors.

The scan is fitted with the calculated patterns of all candidate phases (Rietveld's
method with fixed atoms): sample displacement, instrument profile, and for each phase
cell, size, strain and texture are refined. Weight fractions follow from the scales:
w_i proportional to S_i Z_i M_i V_i (R. J. Hill, C. J. Howard, J. Appl. Cryst. 20
(1987) 467). Nothing is assumed about an amorphous part: fractions are of the
crystalline phases given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ppu_protocols.analysis._confidence import (
    BLANK,
    FAINT,
    FAR_DISPLACEMENT,
    Evidence,
    PhaseEvidence,
    is_poor_fit,
    reasons_for_doubt,
)
from ppu_protocols.analysis._fit import Refinement, Target, refine
from ppu_protocols.analysis._model import (
    DISPLACEMENT_SPREAD,
    TEXTURE_AXES,
    TEXTURE_SPREAD,
    ZERO_SPREAD,
    PhaseModel,
    ScanModel,
    background_basis,
    bin_scan,
)
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.pattern import ProfileGrid, linear_absorption
from ppu_protocols.analysis.xrdml import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis._model import Binned
    from ppu_protocols.analysis.cif import Phase

# Calculated intensities are good to a few percent of themselves (extinction, surface
# roughness, unknown displacements); without this the strongest lines decide alone.
_MODEL_ERROR = 0.04
# Relative spread of a phase's scale that no fit sees: atoms elsewhere than published,
_SCALE_SPREAD = 0.004
# texture that one March-Dollase axis does not describe, per unit of its logarithm,
_TEXTURE_SPREAD = 0.03
# and microabsorption in grains of unknown size, of which this is a usual one [cm].
_GRAIN_SIZE = 0.45e-4
_LEAST_ERROR = 1e-3  # no share is known better
_TEXTURE_GAIN = 30.0  # fall of chi² for which a texture is believed
_TRIED_AXES = 3
# A height of the sample that could as well be a zero error of the goniometer [mm]:
# specimens of the simulator lie within 0.13, one of two real scans at 0.24.
_NOTABLE_DISPLACEMENT = 0.2
# Gain of chi² by which a height, not a zero error, is taken to be the reason.
_DISPLACEMENT_GAIN = 30.0
_LEAST_SHIFT = 0.2  # of all angles, below which the fit finds its way [deg]


@dataclass(frozen=True)
class PhaseResult:
    """What was found of one phase.

    Attributes:
        name: Name of the candidate.
        formula: Its reduced formula.
        weight_fraction: Share of the crystalline mass, 0 to 1.
        standard_error: One standard deviation of the share, systematic part included.
        cell: Refined a, b, c [Å], alpha, beta, gamma [deg].
        texture_axis: Axis of the texture found, None without texture.
        texture_r: March-Dollase parameter; 1 without texture.
    """

    name: str
    formula: str
    weight_fraction: float
    standard_error: float
    cell: tuple[float, ...]
    texture_axis: tuple[int, int, int] | None
    texture_r: float


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
        phases: Largest share first; shares sum to 1.
        confidence: ``"high"`` only if nothing speaks against the result.
        confidence_reasons: What speaks against it, one sentence each.
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
    """

    phases: tuple[PhaseResult, ...]
    confidence: Literal["high", "low"]
    confidence_reasons: tuple[str, ...]
    fit: FitQuality
    calculated: NDArray[np.float64]
    background: NDArray[np.float64]
    curves: dict[str, NDArray[np.float64]]
    line_positions: dict[str, NDArray[np.float64]]
    parameters: dict[str, float]
    displacement_mm: float
    misalignment_deg: float | None

    @property
    def is_blank(self) -> bool:
        """Whether no candidate was seen at all, so that the shares mean nothing."""
        return BLANK in self.confidence_reasons


def quantify(scan: Scan, phases: Sequence[Phase]) -> Quantification:
    """Return the weight fractions of the candidate *phases* in *scan*.

    Args:
        scan: The measured pattern.
        phases: Candidates; those that are absent come out near 0.

    Raises:
        AnalysisError: If there is no candidate, two share a name, or there are more
            than 12.
    """
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names) or len(names) > 12:
        raise AnalysisError(
            f"candidate phases {names}: 1 to 12 with different names are needed"
        )
    if not _visible(phases, scan):
        raise AnalysisError(
            f"none of {', '.join(names)} has a line between "
            f"{scan.two_theta[0]:g} and {scan.two_theta[-1]:g} deg; a wider scan or "
            "other candidates are needed"
        )
    return _conclude(phases, _fit(phases, scan))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A scan, and the model refined to it."""

    scan: Scan
    binned: Binned
    target: Target
    model: ScanModel
    refinement: Refinement


def _visible(phases: Sequence[Phase], scan: Scan) -> list[PhaseModel]:
    """Return models of the phases that have lines in the range of *scan*."""
    models = [PhaseModel(phase, scan) for phase in phases]
    return [model for model in models if model.has_lines]


def _fit(phases: Sequence[Phase], scan: Scan) -> _Fitted:
    """Fit the visible ones of *phases* to *scan*."""
    binned = bin_scan(scan)
    grid = ProfileGrid(binned.start, binned.step, binned.counts.size)
    target = Target(
        binned.counts,
        _fit_variance(binned),
        background_basis(binned.two_theta),
    )
    model = ScanModel(_visible(phases, scan), grid, scan.radius)
    model, refinement = _search(model, target, scan)
    return _Fitted(scan, binned, target, model, refinement)


def has_lines(phase: Phase, start_deg: float, stop_deg: float) -> bool:
    """Return whether *phase* has a line that a scan of this range can show.

    Args:
        phase: The structure.
        start_deg: First angle 2theta of a copper scan [deg].
        stop_deg: Last angle [deg].
    """
    angles = np.linspace(start_deg, stop_deg, 200)
    return PhaseModel(phase, Scan.from_counts(angles, np.ones(200))).has_lines


def _fit_variance(binned: Binned) -> NDArray[np.float64]:
    """Return counting variance plus what the model cannot know, shape ``(n,)``."""
    net = np.maximum(binned.counts - _baseline(binned), 0.0)
    return binned.variance + (_MODEL_ERROR * net) ** 2


def _baseline(binned: Binned) -> NDArray[np.float64]:
    """Return a background that peaks hardly lift, shape ``(n,)``."""
    basis = background_basis(binned.two_theta)
    base_weight = 1.0 / binned.variance
    root = np.sqrt(np.where(np.isfinite(binned.variance), binned.variance, 1.0))
    weight = base_weight
    baseline = np.zeros_like(binned.counts)
    for _ in range(8):
        weighted = basis.T * weight
        coefficients = np.linalg.solve(
            weighted @ basis + 1e-9 * np.eye(basis.shape[1]),
            weighted @ binned.counts,
        )
        baseline = basis @ coefficients
        # Points well above are peaks; their pull falls with their height.
        excess = np.maximum((binned.counts - baseline) / root - 1.0, 0.0)
        weight = base_weight / (1.0 + excess**2)
    return baseline


def _search(
    model: ScanModel, target: Target, scan: Scan
) -> tuple[ScanModel, Refinement]:
    """Find displacement and cells roughly, then refine everything."""
    p = _rough_positions(model, target)
    names = model.names()
    early = np.array([not name.endswith(":strain") for name in names])
    early[2] = early[3] = False
    rough = refine(model, target, p, free=early, max_iterations=5, tolerance=5e-3)
    textured, p = _with_texture(model, target, rough, scan)
    return textured, refine(textured, target, p)


def _rough_positions(model: ScanModel, target: Target) -> NDArray[np.float64]:
    """Try displacements, then cells of each phase, with broad lines; keep the best."""
    p = np.zeros(model.n_parameters)
    p[1] = math.log(9.0)  # three times the usual instrumental width
    best = p
    best_chi = math.inf
    for displacement_mm in np.arange(-0.4, 0.41, 0.1):
        p[0] = displacement_mm / DISPLACEMENT_SPREAD
        chi = target.solve(model.patterns(p)).chi_squared + float(p[0] ** 2)
        if chi < best_chi:
            best, best_chi = p.copy(), chi
    patterns = model.patterns(best)
    for index, phase in enumerate(model.phases):
        start = model.own(index).start
        for strain in (-3.0, -1.5, 1.5, 3.0):
            p = best.copy()
            p[start : start + phase.n_cell] = strain
            p[start : start + phase.n_cell] *= [
                1.0 if group else 0.0 for group in phase.lengths
            ]
            tried = patterns.copy()
            tried[:, index] = model.pattern(p, index)
            chi = target.solve(tried).chi_squared + float(p @ p - best @ best)
            if chi < best_chi - 20.0:
                best, best_chi, patterns = p, chi, tried
    best[1] = 0.0
    return best


def _with_texture(
    model: ScanModel, target: Target, rough: Refinement, scan: Scan
) -> tuple[ScanModel, NDArray[np.float64]]:
    """Give each phase the texture axis that would improve the fit most, if any."""
    p, scales = rough.parameters, rough.linear.scales
    patterns = model.patterns(p)
    axes: list[tuple[int, int, int] | None] = [None] * len(model.phases)
    start_log_r = np.zeros(len(model.phases))
    for index in np.argsort(-scales):
        if scales[index] <= 0.0:
            continue
        least = target.solve(patterns).chi_squared - _TEXTURE_GAIN
        shapes = _LineShapes(model, p, int(index))
        best = patterns
        for axis in _likely_axes(shapes, target, patterns)[:_TRIED_AXES]:
            for log_r in (-0.5, -0.2, 0.25):
                tried = patterns.copy()
                tried[:, index] = shapes.textured(axis, log_r)
                chi = target.solve(tried).chi_squared
                if chi < least:
                    least, best = chi, tried
                    axes[index], start_log_r[index] = axis, log_r
        patterns = best
    phases = [
        phase if axis is None else PhaseModel(phase.phase, scan, axis)
        for phase, axis in zip(model.phases, axes, strict=True)
    ]
    textured = ScanModel(phases, model.grid, scan.radius)
    start = np.zeros(textured.n_parameters)
    start[: model.own(0).start] = p[: model.own(0).start]
    for index, phase in enumerate(phases):
        old, new = p[model.own(index)], textured.own(index)
        start[new.start : new.start + old.size] = old
        if phase.axis is not None:
            start[new.stop - 1] = start_log_r[index] / TEXTURE_SPREAD
    return textured, start


class _LineShapes:
    """Profiles of one phase held fixed while intensities change."""

    def __init__(self, model: ScanModel, p: NDArray[np.float64], index: int) -> None:
        two_theta, _ = model.displaced(p, index)
        self._grid = model.grid
        self._phase = model.phases[index]
        self._spread = model.grid.spread(two_theta)
        self._kernel = model.grid.kernel(model.widths(p, index))
        self.index = index

    def textured(self, axis: tuple[int, int, int], log_r: float) -> NDArray[np.float64]:
        """Return the pattern for a texture, shape ``(n,)``."""
        areas = self._phase.textured_areas(axis, log_r)
        return self._grid.pattern(
            self._grid.transform(self._spread, areas) * self._kernel
        )


def _likely_axes(
    shapes: _LineShapes, target: Target, patterns: NDArray[np.float64]
) -> list[tuple[int, int, int]]:
    """Return the texture axes, those whose linear effect fits best first.

    Of axes with the same effect, such as 100 and 010 of a tetragonal phase, one is
    returned.
    """
    fixed = np.column_stack([target.weighted_basis(), target.weighted(patterns)])
    basis, _ = np.linalg.qr(fixed / np.maximum(np.linalg.norm(fixed, axis=0), 1e-300))
    weighted_counts = target.counts * target.root_weight
    residual = weighted_counts - basis @ (basis.T @ weighted_counts)
    changes = np.column_stack(
        [
            (shapes.textured(axis, -0.2) - patterns[:, shapes.index])
            * target.root_weight
            for axis in TEXTURE_AXES
        ]
    )
    changes -= basis @ (basis.T @ changes)
    lengths = np.maximum((changes**2).sum(axis=0), 1e-300)
    gains = (changes.T @ residual) ** 2 / lengths
    _, first = np.unique(np.round(gains / max(gains.max(), 1e-300), 6), True)
    return [TEXTURE_AXES[i] for i in first[::-1]]


def _conclude(phases: Sequence[Phase], fitted: _Fitted) -> Quantification:
    scan, model, refinement = fitted.scan, fitted.model, fitted.refinement
    p = refinement.parameters
    shares, errors, evidence = _judge(phases, fitted)
    misalignment = _misalignment(phases, fitted, is_poor=is_poor_fit(evidence))
    evidence = replace(evidence, misalignment_deg=misalignment)
    reasons = reasons_for_doubt(evidence)
    by_name = {m.phase.name: index for index, m in enumerate(model.phases)}
    results = []
    for phase in phases:
        index = by_name.get(phase.name)
        if index is None:
            results.append(
                PhaseResult(phase.name, phase.formula, 0.0, 1.0, phase.cell, None, 1.0)
            )
            continue
        results.append(
            PhaseResult(
                name=phase.name,
                formula=phase.formula,
                weight_fraction=float(shares[index]),
                standard_error=float(errors[index]),
                cell=model.phases[index].cell(model.strains(p, index)),
                texture_axis=model.phases[index].axis,
                texture_r=math.exp(model.log_r(p, index)),
            )
        )
    results.sort(key=lambda result: -result.weight_fraction)
    background, curves = _curves(scan, model, refinement, fitted.binned)
    calculated = background + np.sum(list(curves.values()), axis=0)
    n_free = len(refinement.curvature)
    lines = {}
    for index, phase_model in enumerate(model.phases):
        positions, _ = model.displaced(p, index)
        lines[phase_model.phase.name] = positions[: phase_model.lines.d.size]
    for phase in phases:
        curves.setdefault(phase.name, np.zeros_like(background))
        lines.setdefault(phase.name, np.zeros(0))
    return Quantification(
        phases=tuple(results),
        confidence="low" if reasons else "high",
        confidence_reasons=tuple(reasons),
        fit=_fit_quality(scan, calculated, n_free),
        calculated=calculated,
        background=background,
        curves=curves,
        line_positions=lines,
        parameters=dict(zip(model.names(), map(float, p), strict=True)),
        displacement_mm=float(p[0]) * DISPLACEMENT_SPREAD,
        misalignment_deg=misalignment,
    )


def _scale_covariance(refinement: Refinement, target: Target) -> NDArray[np.float64]:
    """Return the covariance of the scales, misfit and its correlation included.

    Neighbouring residuals of a pattern are correlated, so a plain covariance is too
    small (J.-F. Berar, P. Lelann, J. Appl. Cryst. 24 (1991) 1); here it grows by the
    summed autocorrelation of the residual.
    """
    linear = refinement.linear
    curvature = refinement.curvature
    diagonal = np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    scaled = curvature / np.outer(diagonal, diagonal)
    inverse = np.linalg.inv(scaled + 1e-11 * np.eye(len(scaled)))
    covariance = inverse / np.outer(diagonal, diagonal)
    residual = (target.counts - linear.calculated) * target.root_weight
    total = max(float(residual @ residual), 1e-300)
    lags = range(1, 16)
    correlation = sum(float(residual[:-k] @ residual[k:]) / total for k in lags)
    n_points = int(np.count_nonzero(target.root_weight))
    reduced = total / max(1, n_points - len(curvature))
    inflation = max(1.0, reduced) * max(1.0, 1.0 + 2.0 * correlation)
    first = linear.background.size
    own = slice(first, first + linear.scales.size)
    return np.asarray(covariance[own, own] * inflation)


def _shares(
    model: ScanModel,
    p: NDArray[np.float64],
    scales: NDArray[np.float64],
    per_scale: NDArray[np.float64],
    covariance: NDArray[np.float64],
    wavelength: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight fractions and their standard errors, shape ``(n_phases,)``."""
    masses = scales * per_scale
    total = float(masses.sum())
    n_phases = scales.size
    if total <= 0.0:
        return np.full(n_phases, 1.0 / n_phases), np.ones(n_phases)
    shares = masses / total
    by_mass = (np.eye(n_phases) - shares[:, None]) / total
    statistical = by_mass * per_scale
    texture = np.array([model.log_r(p, index) for index in range(n_phases)])
    absorption = np.array(
        [linear_absorption(m.phase, wavelength) for m in model.phases]
    )
    contrast = absorption - _mean_absorption(model, shares, absorption)
    spread = np.sqrt(
        _SCALE_SPREAD**2
        + (_TEXTURE_SPREAD * texture) ** 2
        + (_GRAIN_SIZE * contrast) ** 2
    )
    systematic = by_mass * masses * spread
    variance = np.einsum("ij,jk,ik->i", statistical, covariance, statistical)
    variance += (systematic**2).sum(axis=1) + _LEAST_ERROR**2
    return shares, np.minimum(np.sqrt(variance), 1.0)


def _mean_absorption(
    model: ScanModel, shares: NDArray[np.float64], absorption: NDArray[np.float64]
) -> float:
    """Return the absorption coefficient of the mixture without pores [1/cm]."""
    volumes = shares / np.array([m.phase.density for m in model.phases])
    return float(volumes @ absorption / volumes.sum())


def _judge(
    phases: Sequence[Phase], fitted: _Fitted
) -> tuple[NDArray[np.float64], NDArray[np.float64], Evidence]:
    """Return shares, their standard errors, and what confidence is judged by."""
    model, refinement = fitted.model, fitted.refinement
    p, linear = refinement.parameters, refinement.linear
    per_scale = np.array([1.0 / m.area_per_mass for m in model.phases])
    covariance = _scale_covariance(refinement, fitted.target)
    shares, errors = _shares(
        model, p, linear.scales, per_scale, covariance, fitted.scan.k_alpha_1
    )
    significance = linear.scales / np.sqrt(np.diag(covariance))
    if significance.max() < FAINT:
        errors = np.maximum(errors, 0.5)  # nothing was seen, so nothing is known
    return shares, errors, _evidence(phases, fitted, shares, errors, significance)


def _evidence(
    phases: Sequence[Phase],
    fitted: _Fitted,
    shares: NDArray[np.float64],
    errors: NDArray[np.float64],
    significance: NDArray[np.float64],
) -> Evidence:
    """Return the evidence, misalignment not yet looked for."""
    scan, binned, target = fitted.scan, fitted.binned, fitted.target
    model, refinement = fitted.model, fitted.refinement
    p, linear = refinement.parameters, refinement.linear
    patterns = model.patterns(p)
    alike = p.copy()
    alike[model.own(0).start :] = 0.0
    basis, _ = np.linalg.qr(target.weighted_basis())
    weighted = target.weighted(model.patterns(alike))
    rutile = PhaseModel(load_phase("TiO2-rutile"), scan)
    if not rutile.has_lines:
        rutile = model.phases[0]
    entries = []
    for index, phase in enumerate(model.phases):
        positions, _ = model.displaced(p, index)
        n_lines = phase.lines.d.size
        cell = phase.cell(model.strains(p, index))
        change = np.abs(np.array(cell[:3]) / np.array(phase.phase.cell[:3]) - 1.0)
        visible_intensity, n_visible = phase.visibility()
        entries.append(
            PhaseEvidence(
                name=phase.phase.name,
                share=float(shares[index]),
                standard_error=float(errors[index]),
                significance=float(significance[index]),
                log_r=model.log_r(p, index),
                strain=float(change.max()),
                visible_intensity=visible_intensity,
                n_visible=n_visible,
                lines=positions[:n_lines],
                areas=phase.areas(model.log_r(p, index))[:n_lines]
                * linear.scales[index],
                mass=float(linear.scales[index]) / phase.area_per_mass,
            )
        )
    names = {phase.phase.name for phase in model.phases}
    return Evidence(
        phases=entries,
        invisible=[phase.name for phase in phases if phase.name not in names],
        two_theta=binned.two_theta,
        counts=binned.counts,
        variance=binned.variance,
        calculated=linear.calculated,
        net=patterns @ linear.scales,
        patterns=weighted - basis @ (basis.T @ weighted),
        area_per_mass=rutile.area_per_mass,
        displacement_mm=float(p[0]) * DISPLACEMENT_SPREAD,
        misalignment_deg=None,
    )


def _misalignment(
    phases: Sequence[Phase], fitted: _Fitted, *, is_poor: bool
) -> float | None:
    """Return how much too high all angles seem to be read [deg], None if not."""
    height = abs(float(fitted.refinement.parameters[0])) * DISPLACEMENT_SPREAD
    if is_poor or height > FAR_DISPLACEMENT:
        shift = _better_shift(phases, fitted)
        # What a poor fit says of the height is no more worth than the fit.
        if shift is not None or is_poor:
            return shift
    return _zero_error(fitted) if height > _NOTABLE_DISPLACEMENT else None


def _zero_error(fitted: _Fitted) -> float | None:
    """Return the zero error that describes a fair fit as well as a height [deg].

    Both move all lines, in proportion to 1 and to the cosine of theta; a scan can
    hardly tell them apart, and what is far off the axis is wrong in any case.
    """
    model, p = fitted.model, fitted.refinement.parameters
    with_zero = ScanModel(model.phases, model.grid, fitted.scan.radius, has_zero=True)
    first = model.own(0).start
    start = np.insert(p, first, _mean_shift(fitted) / ZERO_SPREAD)
    start[0] = 0.0
    free = np.arange(start.size) > 0
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


def _mean_shift(fitted: _Fitted) -> float:
    """Return how far the fitted height moves lines on average [deg]."""
    theta = np.radians(fitted.binned.two_theta) / 2.0
    height = float(fitted.refinement.parameters[0]) * DISPLACEMENT_SPREAD
    shift = np.degrees(-2.0 * height * np.cos(theta) / fitted.scan.radius)
    return float(shift.mean())


def _better_shift(phases: Sequence[Phase], fitted: _Fitted) -> float | None:
    """Return the shift of all angles with which the scan does fit [deg], if one does.

    The shift at which coarse patterns fit best is tried in earnest; without that,
    patterns of strange phases would often agree a little better shifted.
    """
    model, binned, target = fitted.model, fitted.binned, fitted.target
    p = np.zeros(model.n_parameters)
    p[1] = math.log(9.0)
    patterns = model.patterns(p)
    best, best_chi = 0.0, math.inf
    for shift in np.arange(-5.0, 5.01, 0.1):
        moved = np.roll(patterns, round(shift / binned.step), axis=0)
        chi = target.solve(moved).chi_squared
        if chi < best_chi:
            best, best_chi = float(shift), chi
    if abs(best) < _LEAST_SHIFT:
        return None
    scan = replace(fitted.scan, two_theta=fitted.scan.two_theta - best)
    if not _visible(phases, scan):
        return None
    shifted = _fit(phases, scan)
    _, _, evidence = _judge(phases, shifted)
    return None if is_poor_fit(evidence) else best + _mean_shift(shifted)


def _curves(
    scan: Scan, model: ScanModel, refinement: Refinement, binned: Binned
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Return background and the share of each phase at the scan's own points."""
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
