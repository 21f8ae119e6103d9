"""How the model of a scan is found: places, textures, and which phases are there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._covariance import inflation, scale_covariance
from ppu_protocols.analysis._fit import Refinement, Target, refine, with_curvature
from ppu_protocols.analysis._model import (
    DISPLACEMENT_SPREAD,
    ScanModel,
    background_basis,
    bin_scan,
)
from ppu_protocols.analysis._phase_model import CELL_SPREAD, PhaseModel
from ppu_protocols.analysis._texture import MARCH_SPREAD, TEXTURE_AXES, Axis, Texture
from ppu_protocols.analysis.pattern import ProfileGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis._model import Binned
    from ppu_protocols.analysis.cif import Phase
    from ppu_protocols.analysis.scan import Scan

# Calculated intensities are good to a few percent of themselves (extinction, surface
# roughness, unknown displacements); without this the strongest lines decide alone.
_MODEL_ERROR = 0.04
# A texture is believed if chi² falls by this many times ln(number of points), misfit
# counted in; grains of cubic crystals lie anyhow, so they have to show more.
_TEXTURE_EVIDENCE = 3.0
_CUBIC_EVIDENCE = 9.0
_TRIED_AXES = 3
_TRIED_LOG_R = (0.0, 0.15, 0.35, 0.7, 1.1, 1.6)
_TEXTURED_AREA = 0.02  # of the pattern, below which no texture is looked for
_HARMONIC_AREA = 0.1  # the same for harmonics
_HARMONIC_ORDER = 4
EVIDENCE = 3.0
"""Standard errors by which a candidate must stand out to be believed present."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A scan, and the model refined to it.

    Attributes:
        scan: What was measured.
        binned: The same on the grid of the fit.
        target: The same with weights.
        model: Of the phases that the scan shows.
        refinement: With its curvature.
        absent: Candidates with lines in range that the scan does not need.
        invisible: Names of candidates without a line in range.
    """

    scan: Scan
    binned: Binned
    target: Target
    model: ScanModel
    refinement: Refinement
    absent: tuple[PhaseModel, ...]
    invisible: tuple[str, ...]


def visible(phases: Sequence[Phase], scan: Scan) -> list[PhaseModel]:
    """Return models of the phases that have lines in the range of *scan*."""
    models = [PhaseModel(phase, scan) for phase in phases]
    return [model for model in models if model.has_lines]


def fit(phases: Sequence[Phase], scan: Scan) -> Fitted:
    """Fit the visible ones of *phases* to *scan*; at least one must be visible."""
    binned = bin_scan(scan)
    grid = ProfileGrid(binned.start, binned.step, binned.counts.size)
    target = Target(
        binned.counts, _fit_variance(binned), background_basis(binned.two_theta)
    )
    model = ScanModel(visible(phases, scan), grid, scan.radius)
    seen = {phase_model.phase.name for phase_model in model.phases}
    model, refinement = _search(model, target)
    model, refinement, absent = _needed(model, target, refinement)
    return Fitted(
        scan=scan,
        binned=binned,
        target=target,
        model=model,
        refinement=refinement,
        absent=absent,
        invisible=tuple(p.name for p in phases if p.name not in seen),
    )


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


def _search(model: ScanModel, target: Target) -> tuple[ScanModel, Refinement]:
    """Find displacement and cells roughly, then textures, then refine everything."""
    p = _rough_positions(model, target)
    early = np.array([not name.endswith((":strain", ":b")) for name in model.names()])
    early[2] = early[3] = False
    rough = refine(model, target, p, free=early, max_iterations=5, tolerance=5e-3)
    textured, p = _with_axes(model, target, rough)
    refinement = refine(textured, target, p)
    return _with_harmonics(textured, target, refinement)


def _rough_positions(model: ScanModel, target: Target) -> NDArray[np.float64]:
    """Try displacements, then cells of each phase, with broad lines; keep the best.

    Patterns are drawn once and pulled over the grid: a strain moves lines by
    tan(theta), a displacement by cos(theta).
    """
    p = np.zeros(model.n_parameters)
    p[1] = math.log(9.0)  # three times the usual instrumental width
    drawn = model.patterns(p)
    angles = model.grid.two_theta
    theta = np.radians(angles) / 2.0
    per_mm = np.degrees(-2.0 * np.cos(theta) / model.radius)
    per_strain = -2.0 * np.degrees(np.tan(theta))

    def moved(row: NDArray[np.float64], shift: NDArray[np.float64]) -> np.ndarray:
        return np.interp(angles, angles + shift, row)

    best_mm, best_chi = 0.0, math.inf
    patterns = drawn
    for displacement_mm in np.arange(-0.4, 0.41, 0.1):
        tried = np.array([moved(row, displacement_mm * per_mm) for row in drawn])
        chi = target.chi_squared(tried) + (displacement_mm / DISPLACEMENT_SPREAD) ** 2
        if chi < best_chi:
            best_mm, best_chi, patterns = float(displacement_mm), chi, tried
    p[0] = best_mm / DISPLACEMENT_SPREAD
    for index, phase in enumerate(model.phases):
        start = model.own(index).start
        is_length = np.array(phase.lengths, dtype=np.float64)
        for strain in (-3.0, -1.5, 1.5, 3.0):
            shift = best_mm * per_mm + strain * CELL_SPREAD * per_strain
            tried = patterns.copy()
            tried[index] = moved(drawn[index], shift)
            chi = target.chi_squared(tried) + strain**2 * float(is_length.sum())
            if chi < best_chi - 20.0:
                best_chi, patterns = chi, tried
                p[start : start + phase.n_cell] = strain * is_length
    p[1] = 0.0
    return p


class _LineShapes:
    """Profiles of one phase held fixed while intensities change."""

    def __init__(self, model: ScanModel, p: NDArray[np.float64], index: int) -> None:
        self._grid = model.grid
        self._phase = model.phases[index]
        self._spread = model.grid.spread(model.displaced(p, index))
        self._kernel = model.grid.kernel(model.widths(p, index))
        self.index = index

    def pattern(self, areas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pattern for line areas, shape ``(n,)``."""
        return self._grid.pattern(
            self._grid.transform(self._spread, areas) * self._kernel
        )

    def marched(self, axis: Axis, log_r: float) -> NDArray[np.float64]:
        """Return the pattern for a March-Dollase texture, shape ``(n,)``."""
        return self.pattern(self._phase.march_areas(axis, log_r))


def _evidence(model: ScanModel, target: Target, linear: NDArray[np.float64]) -> float:
    """Return the fall of chi² that is worth one parameter more."""
    n_points = int(np.count_nonzero(target.root_weight))
    return inflation(target, linear, model.n_parameters) * math.log(n_points)


def _by_area(
    patterns: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of each phase in the intensity of the pattern."""
    areas = np.maximum(scales, 0.0) * patterns.sum(axis=1)
    return np.asarray(areas / max(float(areas.sum()), 1e-300))


def _with_axes(
    model: ScanModel, target: Target, rough: Refinement
) -> tuple[ScanModel, NDArray[np.float64]]:
    """Give each phase the texture axis that the data ask for, if any."""
    p, scales = rough.parameters, rough.linear.scales
    patterns = model.patterns(p)
    unit = _evidence(model, target, rough.linear.calculated)
    shares = _by_area(patterns, scales)
    textures = [phase.texture for phase in model.phases]
    log_r = np.zeros(len(model.phases))
    for index in np.argsort(-shares):
        if shares[index] < _TEXTURED_AREA:
            continue
        is_cubic = model.phases[index].n_cell == 1
        asked = unit * (_CUBIC_EVIDENCE if is_cubic else _TEXTURE_EVIDENCE)
        random = target.chi_squared(patterns)
        least = random - asked
        shapes = _LineShapes(model, p, int(index))
        for axis, sign in _likely_axes(shapes, target, patterns)[:_TRIED_AXES]:
            chi = [random]
            for size in _TRIED_LOG_R[1:]:
                tried = patterns.copy()
                tried[index] = shapes.marched(axis, sign * size)
                chi.append(target.chi_squared(tried))
                if chi[-1] > chi[-2]:
                    break
            size, reached = _lowest(_TRIED_LOG_R[: len(chi)], chi)
            reached += unit * (sum(map(abs, axis)) > 1)  # simple axes are likelier
            if reached < least:
                least = reached
                textures[index], log_r[index] = Texture(axis), sign * size
        if textures[index].axis is not None:
            patterns = patterns.copy()
            patterns[index] = shapes.marched(textures[index].axis, log_r[index])
    phases = [
        phase if phase.texture == texture else phase.with_texture(texture)
        for phase, texture in zip(model.phases, textures, strict=True)
    ]
    textured = ScanModel(phases, model.grid, model.radius)
    start = model.carried_over(p, textured)
    for index, phase in enumerate(phases):
        if phase.texture.axis is not None:
            start[textured.texture_slice(index)] = log_r[index] / MARCH_SPREAD
    return textured, start


def _lowest(sizes: Sequence[float], chi: Sequence[float]) -> tuple[float, float]:
    """Return place and depth of the least of *chi*, by the parabola about it."""
    at = int(np.argmin(chi))
    if not 0 < at < len(chi) - 1:
        return sizes[at], chi[at]
    near = slice(at - 1, at + 2)
    bend, slope, level = np.polyfit(sizes[near], chi[near], 2)
    place = -slope / (2.0 * bend)
    return float(place), float(level - slope**2 / (4.0 * bend))


def _likely_axes(
    shapes: _LineShapes, target: Target, patterns: NDArray[np.float64]
) -> list[tuple[Axis, float]]:
    """Return the texture axes, those whose linear effect fits best first.

    With each comes the sign of the logarithm of its March-Dollase parameter.

    Of axes with the same effect, such as 100 and 010 of a tetragonal phase, one is
    returned.
    """
    own = patterns[shapes.index]
    changes = np.array([shapes.marched(axis, -0.2) - own for axis in TEXTURE_AXES])
    rows = np.vstack([target.weighted(changes), target.weighted_counts])
    *changed, residual = target.without_fixed(rows, patterns)
    changes = np.array(changed)
    lengths = np.maximum((changes**2).sum(axis=1), 1e-300)
    gains = (changes @ residual) ** 2 / lengths
    _, first = np.unique(np.round(gains / max(gains.max(), 1e-300), 6), True)
    signs = -np.sign(changes @ residual)
    return [(TEXTURE_AXES[i], float(signs[i])) for i in first[::-1]]


def _with_harmonics(
    model: ScanModel, target: Target, refinement: Refinement
) -> tuple[ScanModel, Refinement]:
    """Give phases harmonics where one March-Dollase axis is not enough."""
    shares = _by_area(model.patterns(refinement.parameters), refinement.linear.scales)
    for index in np.argsort(-shares):
        if shares[index] < _HARMONIC_AREA:
            break
        asked = _evidence(model, target, refinement.linear.calculated)
        phase = model.phases[index]
        richer = phase.with_texture(Texture(order=_HARMONIC_ORDER))
        n_more = richer.textured.n_parameters - phase.textured.n_parameters
        needed = asked * max(n_more, 1) * 2.0
        if refinement.linear.chi_squared < needed or n_more < 1:
            continue
        p = refinement.parameters
        shapes = _LineShapes(model, p, int(index))
        rows = [
            shapes.pattern(areas)
            for areas in richer.texture_derivatives(
                np.zeros(richer.textured.n_parameters)
            )
        ]
        plain = shapes.pattern(richer.areas(np.zeros(richer.textured.n_parameters)))
        patterns = model.patterns(p)
        patterns[index] = plain
        chi, coefficients = _with_rows(target, patterns, np.array(rows), int(index))
        if chi > refinement.linear.chi_squared - needed:
            continue
        phases = [*model.phases]
        phases[index] = richer
        textured = ScanModel(phases, model.grid, model.radius)
        start = model.carried_over(p, textured)
        start[textured.texture_slice(index)] = coefficients / richer.textured.spread
        refined = refine(textured, target, start)
        if refined.objective < refinement.objective - needed:
            model, refinement = textured, refined
    return model, refinement


def _with_rows(
    target: Target,
    patterns: NDArray[np.float64],
    rows: NDArray[np.float64],
    index: int,
) -> tuple[float, NDArray[np.float64]]:
    """Return chi² with *rows* of any sign added, and their part of phase *index*."""
    every = np.vstack(
        [target.weighted_basis, target.weighted(patterns), target.weighted(rows)]
    )
    length = np.maximum(np.linalg.norm(every, axis=1), 1e-300)
    unit = every / length[:, None]
    gram = unit @ unit.T + 1e-9 * np.eye(len(unit))
    solution = np.linalg.solve(gram, unit @ target.weighted_counts)
    residual = target.weighted_counts - solution @ unit
    values = solution / length
    own = values[target.basis.shape[1] + index]
    if own <= 0.0:
        return math.inf, np.zeros(len(rows))
    coefficients = values[len(values) - len(rows) :] / own
    return float(residual @ residual), np.clip(coefficients, -0.6, 0.6)


def _needed(
    model: ScanModel, target: Target, refinement: Refinement
) -> tuple[ScanModel, Refinement, tuple[PhaseModel, ...]]:
    """Leave out candidates that the scan does not need, the least needed first.

    The fit is repeated without them, so that they cannot distort the others.
    """
    absent: list[PhaseModel] = []
    start = refinement.parameters
    weak = refinement.linear.scales <= 0.0
    if not weak.all():
        absent += [p for p, is_weak in zip(model.phases, weak, strict=True) if is_weak]
        model, start = _without(model, start, weak)
    refinement = with_curvature(
        model, target, refine(model, target, start, max_iterations=1)
    )
    while len(model.phases) > 1:
        spread = np.sqrt(np.diag(scale_covariance(model, target, refinement).fit))
        significance = refinement.linear.scales / np.maximum(spread, 1e-300)
        least = int(np.argmin(significance))
        if significance[least] >= EVIDENCE or significance.max() < EVIDENCE:
            break
        absent.append(model.phases[least])
        weak = np.arange(len(model.phases)) == least
        model, start = _without(model, refinement.parameters, weak)
        refined = refine(model, target, start, max_iterations=6)
        refinement = with_curvature(model, target, refined)
    return model, refinement, tuple(absent)


def _without(
    model: ScanModel, p: NDArray[np.float64], left_out: NDArray[np.bool_]
) -> tuple[ScanModel, NDArray[np.float64]]:
    if not left_out.any():
        return model, p
    kept = [model.phases[index] for index in np.flatnonzero(~left_out)]
    smaller = ScanModel(kept, model.grid, model.radius)
    return smaller, model.carried_over(p, smaller)
