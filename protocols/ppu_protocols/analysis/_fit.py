"""Least squares for a scan: scales and background solved inside, the rest outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis._model import ScanModel


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The best scales and background for given patterns.

    Attributes:
        scales: One per phase, none negative, shape ``(n_phases,)``.
        background: Coefficients of the background, shape ``(n_terms,)``.
        calculated: The model, shape ``(n,)``.
        chi_squared: Weighted sum of squares of what is left.
    """

    scales: NDArray[np.float64]
    background: NDArray[np.float64]
    calculated: NDArray[np.float64]
    chi_squared: float


class Target:
    """What is to be fitted: counts, their weights and the background's shapes.

    Args:
        counts: Shape ``(n,)``.
        variance: Shape ``(n,)``; infinite for points that do not count.
        basis: Shape ``(n, n_terms)``.
    """

    def __init__(
        self,
        counts: NDArray[np.float64],
        variance: NDArray[np.float64],
        basis: NDArray[np.float64],
    ) -> None:
        self.counts = counts
        self.root_weight = 1.0 / np.sqrt(variance)
        self.basis = basis
        weighted = basis * self.root_weight[:, None]
        self.weighted_basis = np.ascontiguousarray(weighted.T)
        """The background's shapes times the root of the weights, ``(n_terms, n)``."""
        self.weighted_counts = counts * self.root_weight
        """Counts times the root of the weights, shape ``(n,)``."""
        self._basis_gram = self.weighted_basis @ self.weighted_basis.T
        self._basis_counts = self.weighted_basis @ self.weighted_counts
        self._square = float(self.weighted_counts @ self.weighted_counts)

    def weighted(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return *rows* times the root of the weights."""
        return rows * self.root_weight

    def chi_squared(self, patterns: NDArray[np.float64]) -> float:
        """Return the least weighted sum of squares that *patterns* reach."""
        gram, moment = self._normal(self.weighted(patterns))
        solution = solve_non_negative(gram, moment, self.basis.shape[1])
        return self._square + float(solution @ (gram @ solution - 2.0 * moment))

    def solve(self, patterns: NDArray[np.float64]) -> LinearFit:
        """Return the best scales (none negative) and background for *patterns*.

        Args:
            patterns: One row per phase, shape ``(n_phases, n)``.
        """
        n_terms = self.basis.shape[1]
        gram, moment = self._normal(self.weighted(patterns))
        solution = solve_non_negative(gram, moment, n_terms)
        calculated = self.basis @ solution[:n_terms] + solution[n_terms:] @ patterns
        residual = (self.counts - calculated) * self.root_weight
        return LinearFit(
            scales=solution[n_terms:],
            background=solution[:n_terms],
            calculated=calculated,
            chi_squared=float(residual @ residual),
        )

    def without_fixed(
        self, rows: NDArray[np.float64], patterns: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return weighted *rows* without what background and *patterns* explain.

        Args:
            rows: Weighted already, shape ``(m, n)``.
            patterns: Not weighted; may be empty.
        """
        fixed = np.vstack([self.weighted_basis, self.weighted(patterns)])
        length = np.sqrt(np.maximum((fixed**2).sum(axis=1), 1e-300))
        fixed /= length[:, None]
        gram = fixed @ fixed.T + 1e-10 * np.eye(len(fixed))
        return rows - np.linalg.solve(gram, fixed @ rows.T).T @ fixed

    def _normal(
        self, weighted: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        cross = self.weighted_basis @ weighted.T
        gram = np.block([[self._basis_gram, cross], [cross.T, weighted @ weighted.T]])
        moment = np.concatenate([self._basis_counts, weighted @ self.weighted_counts])
        return gram, moment


def solve_non_negative(
    gram: NDArray[np.float64], moment: NDArray[np.float64], n_free: int
) -> NDArray[np.float64]:
    """Return x of least x gram x - 2 moment x, x >= 0 after the first *n_free*.

    An active set, as after Lawson and Hanson.
    """
    size = len(moment)
    diagonal = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    scaled = gram / np.outer(diagonal, diagonal) + 1e-11 * np.eye(size)
    target = moment / diagonal
    active = np.ones(size, dtype=bool)
    solution = np.zeros(size)
    for _ in range(4 * size):
        solution = np.zeros(size)
        chosen = np.flatnonzero(active)
        solution[chosen] = np.linalg.solve(
            scaled[np.ix_(chosen, chosen)], target[chosen]
        )
        negative = np.flatnonzero(solution[n_free:] < 0.0) + n_free
        if negative.size:
            active[negative[np.argmin(solution[negative])]] = False
            continue
        gradient = target - scaled @ solution
        wanted = np.flatnonzero(~active & (gradient > 1e-9 * np.abs(target).max()))
        if not wanted.size:
            break
        active[wanted[np.argmax(gradient[wanted])]] = True
    return np.asarray(np.maximum(solution, np.where(active, -np.inf, 0.0)) / diagonal)


@dataclass(frozen=True, eq=False)
class Refinement:
    """Where a refinement ended.

    Attributes:
        parameters: Shape ``(n_parameters,)``.
        linear: Scales and background there.
        objective: chi² plus the penalty of the parameters.
        curvature: Half the second derivative of chi² by background, scales and
            parameters, in this order, without the penalty; empty until asked for by
            `with_curvature`.
        n_iterations: Steps taken.
    """

    parameters: NDArray[np.float64]
    linear: LinearFit
    objective: float
    curvature: NDArray[np.float64]
    n_iterations: int


def refine(
    model: ScanModel,
    target: Target,
    start: NDArray[np.float64],
    *,
    free: NDArray[np.bool_] | None = None,
    max_iterations: int = 12,
    tolerance: float = 1e-3,
) -> Refinement:
    """Move the *free* parameters to the least objective (Levenberg-Marquardt).

    Scales and background follow every step exactly (variable projection after
    Kaufman); parameters are in units of their plausible spread, and their squares are
    added to chi². Displacement parameters stay, unless *free* has them: strong lines
    and a background that is not quite right would drag them along.

    Args:
        model: The scan's model.
        target: What to fit.
        start: Where to start, shape ``(n_parameters,)``.
        free: Which parameters move; all but displacement parameters by default.
        max_iterations: Steps at most.
        tolerance: Relative gain of a step below which the search ends.
    """
    if free is None:
        free = np.array([not name.endswith(":b") for name in model.names()])
    p = start.copy()
    linear = target.solve(model.patterns(p))
    objective = linear.chi_squared + float(p @ p)
    damping, n_iterations = 1e-2, 0
    equations: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    while n_iterations < max_iterations:
        n_iterations += 1
        if equations is None:
            wanted = linear.scales > 0.0
            equations = _normal_equations(model, target, p, linear, wanted, free)
        step = _damped_step(*equations, p, linear, free, damping)
        candidate = p + step
        candidate_linear = target.solve(model.patterns(candidate))
        candidate_objective = candidate_linear.chi_squared + float(
            candidate @ candidate
        )
        if candidate_objective < objective:
            gain = (objective - candidate_objective) / objective
            p, linear, objective = candidate, candidate_linear, candidate_objective
            equations = None
            damping = max(damping / 8.0, 1e-6)
            if gain < tolerance:
                break
        else:
            damping *= 8.0
            if damping > 1e4:
                break
    return Refinement(p, linear, objective, np.zeros((0, 0)), n_iterations)


def with_curvature(
    model: ScanModel, target: Target, refinement: Refinement
) -> Refinement:
    """Return *refinement* with its curvature."""
    curvature, _ = _normal_equations(
        model,
        target,
        refinement.parameters,
        refinement.linear,
        np.ones(len(model.phases), dtype=bool),
        np.ones(model.n_parameters, dtype=bool),
    )
    return Refinement(
        refinement.parameters,
        refinement.linear,
        refinement.objective,
        curvature,
        refinement.n_iterations,
    )


def _normal_equations(
    model: ScanModel,
    target: Target,
    p: NDArray[np.float64],
    linear: LinearFit,
    wanted: NDArray[np.bool_],
    free: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return curvature and downhill gradient by background, scales and parameters.

    Both are zero for parameters that are not *free* or of phases not *wanted*.
    """
    columns = model.columns(p, wanted, free)
    n_terms, n_phases = linear.background.size, linear.scales.size
    n_linear = n_terms + n_phases
    place = np.cumsum(free) - 1 + n_linear
    every = np.zeros((n_linear + int(free.sum()), target.counts.size))
    np.multiply(columns.patterns, target.root_weight, out=every[n_terms:n_linear])
    weights = np.outer(linear.scales, target.root_weight)
    for phase_index, parameter_index, derivative in columns.derivatives:
        if free[parameter_index]:
            every[place[parameter_index]] += weights[phase_index] * derivative
    every[:n_terms] = target.weighted_basis
    residual = (target.counts - linear.calculated) * target.root_weight
    kept = np.concatenate([np.ones(n_linear, dtype=bool), free])
    curvature = np.zeros((kept.size, kept.size))
    curvature[np.ix_(kept, kept)] = every @ every.T
    gradient = np.zeros(kept.size)
    gradient[kept] = every @ residual
    return curvature, gradient


def _damped_step(
    curvature: NDArray[np.float64],
    gradient: NDArray[np.float64],
    p: NDArray[np.float64],
    linear: LinearFit,
    free: NDArray[np.bool_],
    damping: float,
) -> NDArray[np.float64]:
    n_terms, n_phases = linear.background.size, linear.scales.size
    chosen = np.concatenate([np.ones(n_terms, dtype=bool), linear.scales > 0.0, free])
    picked = np.flatnonzero(chosen)
    is_parameter = picked >= n_terms + n_phases
    matrix = curvature[np.ix_(picked, picked)].copy()
    downhill = gradient[picked].copy()
    diagonal = np.arange(picked.size)
    matrix[diagonal, diagonal] += is_parameter
    downhill[is_parameter] -= p[picked[is_parameter] - n_terms - n_phases]
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    matrix /= np.outer(scale, scale)
    matrix[diagonal, diagonal] += np.where(is_parameter, damping, 1e-11)
    solution = np.linalg.solve(matrix, downhill / scale) / scale
    step = np.zeros(free.size)
    step[picked[is_parameter] - n_terms - n_phases] = solution[is_parameter]
    # A step of more than two plausible spreads is an extrapolation too far.
    return step / max(1.0, float(np.abs(step).max()) / 2.0)
