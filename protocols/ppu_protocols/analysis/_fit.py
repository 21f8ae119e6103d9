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
        self._weighted_basis = basis * self.root_weight[:, None]
        self._weighted_counts = counts * self.root_weight
        self._basis_gram = self._weighted_basis.T @ self._weighted_basis
        self._basis_counts = self._weighted_basis.T @ self._weighted_counts

    def weighted(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return *columns* times the root of the weights."""
        return columns * self.root_weight[:, None]

    def weighted_basis(self) -> NDArray[np.float64]:
        """Return the background's shapes times the root of the weights."""
        return self._weighted_basis

    def solve(self, patterns: NDArray[np.float64]) -> LinearFit:
        """Return the best scales (none negative) and background for *patterns*."""
        n_terms = self.basis.shape[1]
        weighted = self.weighted(patterns)
        cross = self._weighted_basis.T @ weighted
        gram = np.block([[self._basis_gram, cross], [cross.T, weighted.T @ weighted]])
        moment = np.concatenate(
            [self._basis_counts, weighted.T @ self._weighted_counts]
        )
        solution = _solve_non_negative(gram, moment, n_terms)
        calculated = self.basis @ solution[:n_terms] + patterns @ solution[n_terms:]
        residual = (self.counts - calculated) * self.root_weight
        return LinearFit(
            scales=solution[n_terms:],
            background=solution[:n_terms],
            calculated=calculated,
            chi_squared=float(residual @ residual),
        )


def _solve_non_negative(
    gram: NDArray[np.float64], moment: NDArray[np.float64], n_free: int
) -> NDArray[np.float64]:
    """Solve gram x = moment with x >= 0 after the first *n_free* (active set)."""
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
        curvature: Half the second derivative of the objective by background, scales
            and parameters, in this order.
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
    added to chi².

    Args:
        model: The scan's model.
        target: What to fit.
        start: Where to start, shape ``(n_parameters,)``.
        free: Which parameters move; all by default.
        max_iterations: Steps at most.
        tolerance: Relative gain of a step below which the search ends.
    """
    free = np.ones(start.size, dtype=bool) if free is None else free
    p = start.copy()
    linear = target.solve(model.patterns(p))
    objective = linear.chi_squared + float(p @ p)
    damping, n_iterations = 1e-2, 0
    curvature, gradient = _normal_equations(model, target, p, linear)
    while n_iterations < max_iterations:
        n_iterations += 1
        step = _damped_step(curvature, gradient, linear, free, damping)
        candidate = p + step
        candidate_linear = target.solve(model.patterns(candidate))
        candidate_objective = candidate_linear.chi_squared + float(
            candidate @ candidate
        )
        if candidate_objective < objective:
            gain = (objective - candidate_objective) / objective
            p, linear, objective = candidate, candidate_linear, candidate_objective
            damping = max(damping / 8.0, 1e-6)
            if gain < tolerance:
                break
            curvature, gradient = _normal_equations(model, target, p, linear)
        else:
            damping *= 8.0
            if damping > 1e4:
                break
    return Refinement(p, linear, objective, curvature, n_iterations)


def _normal_equations(
    model: ScanModel,
    target: Target,
    p: NDArray[np.float64],
    linear: LinearFit,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return curvature and downhill gradient by background, scales and parameters."""
    columns = model.columns(p)
    jacobian = np.zeros((p.size, target.counts.size))
    for phase_index, parameter_index, derivative in columns.derivatives:
        jacobian[parameter_index] += linear.scales[phase_index] * derivative
    every = np.vstack(
        [
            target.weighted_basis().T,
            columns.patterns.T * target.root_weight,
            jacobian * target.root_weight,
        ]
    )
    curvature = every @ every.T
    residual = (target.counts - linear.calculated) * target.root_weight
    gradient = every @ residual
    n_linear = len(gradient) - p.size
    nonlinear = np.arange(n_linear, len(gradient))
    curvature[nonlinear, nonlinear] += 1.0
    gradient[nonlinear] -= p
    return curvature, gradient


def _damped_step(
    curvature: NDArray[np.float64],
    gradient: NDArray[np.float64],
    linear: LinearFit,
    free: NDArray[np.bool_],
    damping: float,
) -> NDArray[np.float64]:
    n_terms, n_phases = linear.background.size, linear.scales.size
    chosen = np.concatenate([np.ones(n_terms, dtype=bool), linear.scales > 0.0, free])
    picked = np.flatnonzero(chosen)
    matrix = curvature[np.ix_(picked, picked)].copy()
    diagonal = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    matrix /= np.outer(diagonal, diagonal)
    is_parameter = picked >= n_terms + n_phases
    extra = np.where(is_parameter, damping, 1e-11)
    matrix[np.arange(picked.size), np.arange(picked.size)] += extra
    solution = np.linalg.solve(matrix, gradient[picked] / diagonal) / diagonal
    step = np.zeros(free.size)
    step[picked[is_parameter] - n_terms - n_phases] = solution[is_parameter]
    # A step of more than two plausible spreads is an extrapolation too far.
    return step / max(1.0, float(np.abs(step).max()) / 2.0)
