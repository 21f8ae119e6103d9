"""The model of a scan: phases, instrument and background, and its derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis.pattern import ProfileGrid, Widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis._phase_model import PhaseModel
    from ppu_protocols.analysis.scan import Scan

# Every refined parameter is counted in spreads of what is plausible beforehand, so
# that 0 is the expectation and the penalty of a value p is p².
DISPLACEMENT_SPREAD = 0.15  # [mm]
ZERO_SPREAD = 0.3  # [deg]
WIDTH_SPREAD = 1.0  # of the logarithm
TYPICAL_WIDTHS = Widths(
    gauss_constant=(math.radians(0.06) / 2.355) ** 2,
    gauss_tangent=(math.radians(0.04) / 2.355) ** 2,
    size=6e-4,
    strain=3e-4,
    axial=4e-5,
)
LEAST_SIZE_NM = 4.0
"""Crystallites smaller than this are not told from an amorphous substance [nm]."""
_WIDEST_SIZE = 0.9 * 0.15418 / (2.0 * LEAST_SIZE_NM)  # Scherrer, half width [rad]
_WIDEST_STRAIN = 0.02  # half width per tan theta: a microstrain of 1 % [rad]

_SHARED = ("displacement", "gauss_constant", "gauss_tangent", "axial")
_OWN = ("size", "strain", "b")
_BACKGROUND_ORDER = 10


@dataclass(frozen=True, eq=False)
class Binned:
    """A scan on an even grid coarse enough to be fast, fine enough to lose nothing.

    Attributes:
        start: First angle [deg].
        step: Distance of points [deg].
        counts: Mean counts of the points in a bin, shape ``(n,)``.
        variance: Counting variance of ``counts``; infinite where nothing was measured.
    """

    start: float
    step: float
    counts: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """Angles of the bins [deg], shape ``(n,)``."""
        return np.asarray(
            self.start + self.step * np.arange(self.counts.size), dtype=np.float64
        )


def bin_scan(scan: Scan, widest_step: float = 0.024) -> Binned:
    """Return *scan* in even bins of at most *widest_step* [deg] (or its own step)."""
    two_theta, counts, variance = scan.two_theta, scan.counts, scan.variance
    steps = np.diff(two_theta)
    step = float(np.median(steps))
    if np.ptp(steps) > 0.02 * step:
        even = np.arange(two_theta[0], two_theta[-1] + 0.5 * step, step)
        nearest = np.searchsorted(two_theta, even).clip(1, two_theta.size - 1)
        distance = np.minimum(
            np.abs(even - two_theta[nearest - 1]), np.abs(two_theta[nearest] - even)
        )
        counts = np.interp(even, two_theta, counts)
        variance = np.interp(even, two_theta, variance)
        variance = np.where(distance > 1.5 * step, np.inf, variance)
        two_theta = even
    else:
        step = float((two_theta[-1] - two_theta[0]) / (two_theta.size - 1))
    factor = max(1, math.floor(widest_step / step))
    n_bins = counts.size // factor
    kept = n_bins * factor
    smooth = np.convolve(
        np.pad(variance, 2, mode="edge"), np.full(5, 0.2), mode="valid"
    )
    return Binned(
        start=float(two_theta[0]) + 0.5 * (factor - 1) * step,
        step=step * factor,
        counts=counts[:kept].reshape(n_bins, factor).mean(axis=1),
        variance=smooth[:kept].reshape(n_bins, factor).mean(axis=1) / factor,
    )


def background_basis(two_theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the background's shapes: polynomials and 1/x, shape ``(n, n_terms)``."""
    low, high = two_theta[0], two_theta[-1]
    x = 2.0 * (two_theta - low) / (high - low) - 1.0
    polynomials = np.polynomial.chebyshev.chebvander(x, _BACKGROUND_ORDER)
    return np.column_stack([polynomials, low / two_theta])


@dataclass(frozen=True, eq=False)
class Columns:
    """The model for one set of parameters, ready for a linear fit.

    Attributes:
        patterns: One row per phase, shape ``(n_phases, n)``.
        derivatives: By each parameter, one entry per (phase, parameter index): the
            derivative of the phase's pattern.
    """

    patterns: NDArray[np.float64]
    derivatives: list[tuple[int, int, NDArray[np.float64]]]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One phase drawn: everything that its pattern and derivatives share."""

    positions: NDArray[np.float64]
    widths: Widths
    spread: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]
    kernel: NDArray[np.complex128]
    areas: NDArray[np.float64]
    transform: NDArray[np.complex128]
    pattern: NDArray[np.float64]


class ScanModel:
    """All phases together on one grid, with one vector of parameters.

    The vector holds displacement and instrument widths, then for each phase its cell,
    size, strain, displacement parameter and (if it has any) texture.

    Args:
        phases: What the sample may hold.
        grid: Where the pattern is calculated.
        radius: Of the goniometer [mm].
        has_zero: Whether the zero of the goniometer is refined, too, after the widths.
            Zero and displacement are nearly alike, so a fit is steadier without it.
    """

    def __init__(
        self,
        phases: Sequence[PhaseModel],
        grid: ProfileGrid,
        radius: float,
        *,
        has_zero: bool = False,
    ) -> None:
        self.phases = list(phases)
        self.grid = grid
        self.radius = radius
        self._shared = (*_SHARED, "zero") if has_zero else _SHARED
        self._displacement_deg = math.degrees(-2.0 * DISPLACEMENT_SPREAD / radius)
        self._slices: list[slice] = []
        at = len(self._shared)
        for phase in self.phases:
            length = phase.n_cell + len(_OWN) + phase.textured.n_parameters
            self._slices.append(slice(at, at + length))
            at += length
        self.n_parameters = at
        self._drawn: dict[int, tuple[bytes, _Drawn]] = {}

    def own(self, index: int) -> slice:
        """Return where the parameters of phase *index* are in the vector."""
        return self._slices[index]

    def names(self) -> list[str]:
        """Return the names of the parameters in order."""
        names = list(self._shared)
        for phase in self.phases:
            name = phase.phase.name
            names += [f"{name}:cell_{i}" for i in range(phase.n_cell)]
            names += [f"{name}:{own}" for own in _OWN]
            n_texture = phase.textured.n_parameters
            names += [f"{name}:texture_{i}" for i in range(n_texture)]
        return names

    def carried_over(
        self, p: NDArray[np.float64], other: ScanModel
    ) -> NDArray[np.float64]:
        """Return *p* for *other*, whose phases are among these or textured anew.

        Parameters that both have keep their value; others start at 0.
        """
        values = dict(zip(self.names(), p, strict=True))
        kinds = {m.phase.name: m.texture for m in self.phases}
        result = np.array([values.get(name, 0.0) for name in other.names()])
        for index, phase in enumerate(other.phases):
            if kinds.get(phase.phase.name) != phase.texture:
                result[other.texture_slice(index)] = 0.0
        return result

    def widths(self, p: NDArray[np.float64], index: int) -> Widths:
        """Return the widths of the lines of phase *index*."""
        own = p[self._slices[index]]
        n_cell = self.phases[index].n_cell
        factors = np.exp(
            WIDTH_SPREAD * np.array([p[1], p[2], own[n_cell], own[n_cell + 1], p[3]])
        )
        return Widths(
            gauss_constant=TYPICAL_WIDTHS.gauss_constant * float(factors[0]),
            gauss_tangent=TYPICAL_WIDTHS.gauss_tangent * float(factors[1]),
            size=min(TYPICAL_WIDTHS.size * float(factors[2]), _WIDEST_SIZE),
            strain=min(TYPICAL_WIDTHS.strain * float(factors[3]), _WIDEST_STRAIN),
            axial=TYPICAL_WIDTHS.axial * float(factors[4]),
        )

    def is_broadest(self, p: NDArray[np.float64], index: int) -> bool:
        """Return whether the lines of phase *index* are as broad as is allowed."""
        widths = self.widths(p, index)
        return widths.size >= _WIDEST_SIZE or widths.strain >= _WIDEST_STRAIN

    def texture_slice(self, index: int) -> slice:
        """Return where the texture of phase *index* is in the vector."""
        stop = self._slices[index].stop
        return slice(stop - self.phases[index].textured.n_parameters, stop)

    def texture(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the values of the texture of phase *index*."""
        return p[self.texture_slice(index)] * self.phases[index].textured.spread

    def log_r(self, p: NDArray[np.float64], index: int) -> float:
        """Return the logarithm of the March-Dollase parameter of phase *index*."""
        if self.phases[index].texture.axis is None:
            return 0.0
        return float(self.texture(p, index)[0])

    def b_index(self, index: int) -> int:
        """Return where the displacement parameter of phase *index* is."""
        return int(self._slices[index].start) + self.phases[index].n_cell + 2

    def b_change(self, p: NDArray[np.float64], index: int) -> float:
        """Return by how much B of phase *index* differs from its structure's [Å²]."""
        return self.phases[index].b_spread * float(p[self.b_index(index)])

    def strains(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the cell parameters of phase *index*."""
        start = self._slices[index].start
        return p[start : start + self.phases[index].n_cell]

    def displaced(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the angles at which the lines of a phase are seen [deg]."""
        positions = self.phases[index].positions(self.strains(p, index))
        cosine = self._displacement_deg * np.cos(np.radians(positions) / 2.0)
        return np.asarray(positions + cosine * p[0] + self.zero_deg(p))

    def zero_deg(self, p: NDArray[np.float64]) -> float:
        """Return how much too high all angles are read [deg]."""
        if len(self._shared) == len(_SHARED):
            return 0.0
        return ZERO_SPREAD * float(p[len(_SHARED)])

    def pattern(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the pattern of phase *index* for unit scale, shape ``(n,)``."""
        return self._draw(p, index).pattern

    def patterns(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the patterns of all phases as rows, shape ``(n_phases, n)``."""
        return np.array([self.pattern(p, index) for index in range(len(self.phases))])

    def _draw(self, p: NDArray[np.float64], index: int) -> _Drawn:
        """Draw a phase, or return what was drawn last if nothing has changed."""
        own = p[self._slices[index]]
        key = p[: len(self._shared)].tobytes() + own.tobytes()
        last = self._drawn.get(index)
        if last is not None and last[0] == key:
            return last[1]
        grid, widths = self.grid, self.widths(p, index)
        positions = self.displaced(p, index)
        areas = self.phases[index].areas(
            self.texture(p, index), self.b_change(p, index)
        )
        spread, kernel = grid.spread(positions), grid.kernel(widths)
        transform = grid.transform(spread, areas) * kernel
        drawn = _Drawn(
            positions, widths, spread, kernel, areas, transform, grid.pattern(transform)
        )
        self._drawn[index] = key, drawn
        return drawn

    def columns(
        self,
        p: NDArray[np.float64],
        wanted: NDArray[np.bool_],
        free: NDArray[np.bool_],
    ) -> Columns:
        """Return the patterns and their derivatives.

        Args:
            p: The parameters.
            wanted: Phases whose derivatives are needed.
            free: Parameters by which they are needed; some others may come, too.
        """
        derivatives: list[tuple[int, int, NDArray[np.float64]]] = []
        for index in range(len(self.phases)):
            if wanted[index]:
                derivatives += self._derivatives(p, index, free)
        return Columns(self.patterns(p), derivatives)

    def _derivatives(
        self, p: NDArray[np.float64], index: int, free: NDArray[np.bool_]
    ) -> list[tuple[int, int, NDArray[np.float64]]]:
        grid, phase, drawn = self.grid, self.phases[index], self._draw(p, index)
        widths, areas, own = drawn.widths, drawn.areas, self._slices[index].start
        shift = grid.shift(drawn.transform)
        # Displacement and zero move lines by a smooth function of the angle.
        slope = self._displacement_deg * np.cos(np.radians(grid.two_theta) / 2.0)
        found = [(index, 0, slope * shift)]
        if len(self._shared) > len(_SHARED):
            found.append((index, len(_SHARED), ZERO_SPREAD * shift))
        by_width = grid.width_derivatives(drawn.transform, widths)
        for at, name in ((1, "gauss_constant"), (2, "gauss_tangent"), (3, "axial")):
            change = by_width[name] * (getattr(widths, name) * WIDTH_SPREAD)
            found.append((index, at, change))
        by_cell = phase.position_derivatives(self.strains(p, index))
        if phase.n_cell == 1:
            tangent = np.tan(np.radians(grid.two_theta) / 2.0)
            theta = np.radians(drawn.positions) / 2.0
            ratio = float(by_cell[0] @ np.tan(theta) / (np.tan(theta) ** 2).sum())
            found.append((index, own, ratio * tangent * shift))
        else:
            for at, by in enumerate(by_cell):
                moved = grid.transform(drawn.spread, areas * by)
                found.append((index, own + at, grid.shift(moved * drawn.kernel)))
        own += phase.n_cell
        for at, name in enumerate(("size", "strain")):
            change = by_width[name] * (getattr(widths, name) * WIDTH_SPREAD)
            found.append((index, own + at, change))
        changes = {}
        at = self.b_index(index)
        if free[at]:
            changes[at] = -phase.b_spread * areas * phase.decay
        faded = np.exp(-self.b_change(p, index) * phase.decay)
        for change in phase.texture_derivatives(self.texture(p, index)):
            at += 1
            changes[at] = phase.textured.spread * change * faded
        for at, change in changes.items():
            moved = grid.transform(drawn.spread, change)
            found.append((index, at, grid.pattern(moved * drawn.kernel)))
        return found
