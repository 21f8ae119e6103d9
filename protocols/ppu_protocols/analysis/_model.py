"""The model of a scan: phases, instrument and background, and its derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis.pattern import (
    ProfileGrid,
    Widths,
    line_list,
    lorentz_polarization,
    reciprocal_metric,
    texture_factor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Phase
    from ppu_protocols.analysis.xrdml import Scan

# Every refined parameter is counted in spreads of what is plausible beforehand, so
# that 0 is the expectation and the penalty of a value p is p².
DISPLACEMENT_SPREAD = 0.15  # [mm]
ZERO_SPREAD = 0.3  # [deg]
CELL_SPREAD = 3e-3  # relative; rad for angles
WIDTH_SPREAD = 1.0  # of the logarithm
TEXTURE_SPREAD = 0.3  # of the logarithm of the March-Dollase parameter
TYPICAL_WIDTHS = Widths(
    gauss_constant=(math.radians(0.06) / 2.355) ** 2,
    gauss_tangent=(math.radians(0.04) / 2.355) ** 2,
    size=6e-4,
    strain=3e-4,
    axial=4e-5,
)
TEXTURE_AXES = (
    (0, 0, 1),
    (1, 0, 0),
    (0, 1, 0),
    (1, 1, 0),
    (1, 0, 1),
    (0, 1, 1),
    (1, 1, 1),
    (1, 0, 4),
)

_SHARED = ("displacement", "gauss_constant", "gauss_tangent", "axial")
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
    """Return Chebyshev polynomials and 1/x, shape ``(n, n_terms)``."""
    low, high = two_theta[0], two_theta[-1]
    x = 2.0 * (two_theta - low) / (high - low) - 1.0
    polynomials = np.polynomial.chebyshev.chebvander(x, _BACKGROUND_ORDER)
    return np.column_stack([polynomials, low / two_theta])


class PhaseModel:
    """Lines of one phase in one scan, and how parameters move and change them.

    Args:
        phase: The structure.
        scan: Gives wavelengths and range.
        axis: Texture axis; None for a powder without texture.
    """

    def __init__(
        self, phase: Phase, scan: Scan, axis: tuple[int, int, int] | None = None
    ) -> None:
        self.phase = phase
        self.axis = axis
        self._wavelengths = (scan.k_alpha_1, scan.k_alpha_2)
        self._ratios = (1.0, scan.k_alpha_ratio)
        low = max(float(scan.two_theta[0]) - 1.5, 1.0)
        high = min(float(scan.two_theta[-1]) + 1.5, 175.0)
        self.lines = line_list(
            phase,
            scan.k_alpha_1,
            _rounded(scan.k_alpha_1 / (2.0 * math.sin(math.radians(high / 2.0)))),
            _rounded(scan.k_alpha_2 / (2.0 * math.sin(math.radians(low / 2.0)))),
        )
        self._groups = _cell_groups(phase.cell)
        self.n_cell = len(self._groups)
        self.lengths = [group[0] < 3 for group in self._groups]
        lines = self.lines
        _, first = np.unique(lines.line_index, return_index=True)
        self._representative = lines.hkl[first].astype(np.float64)
        self._texture_x = {
            axis: texture_factor(lines.hkl, phase.cell, axis) for axis in TEXTURE_AXES
        }
        d = lines.d
        self.norm = 1.0
        if d.size:
            two_theta = self._two_theta(1.0 / d**2)
            self._polarization = lorentz_polarization(two_theta)
            inside = (two_theta >= scan.two_theta[0]) & (
                two_theta <= scan.two_theta[-1]
            )
            self._plain = lines.line_intensity
            total = float((self._areas(self._plain) * inside).sum())
            self.norm = total if total > 0.0 else 1.0
        self.has_lines = bool(d.size) and self.norm != 1.0
        self._scan_range = (float(scan.two_theta[0]), float(scan.two_theta[-1]))

    @property
    def area_per_mass(self) -> float:
        """Area of the lines in range per mass of phase, in an arbitrary unit.

        The inverse of Z M V for unit scale (Hill and Howard).
        """
        return self.norm / (self.phase.mass * self.phase.volume)

    def visibility(self) -> tuple[float, int]:
        """Return how much of the phase the scan can see.

        The strongest line in range over the strongest between 5 and 120 deg, and the
        number of lines in range with a tenth of that.
        """
        wavelength = self._wavelengths[0]
        low, high = (
            _rounded(wavelength / (2.0 * math.sin(math.radians(angle / 2.0))))
            for angle in (120.0, 5.0)
        )
        lines = line_list(self.phase, wavelength, low, high)
        two_theta = 2.0 * np.degrees(np.arcsin(wavelength / (2.0 * lines.d)))
        areas = lines.line_intensity * lorentz_polarization(two_theta)
        inside = (two_theta > self._scan_range[0]) & (two_theta < self._scan_range[1])
        largest = float(areas.max())
        seen = areas[inside] / largest
        return float(seen.max(initial=0.0)), int(np.count_nonzero(seen >= 0.1))

    def cell(self, strains: NDArray[np.float64]) -> tuple[float, ...]:
        """Return the cell for parameters in units of ``CELL_SPREAD``."""
        cell = list(self.phase.cell)
        for value, group in zip(strains, self._groups, strict=True):
            for index in group:
                if index < 3:
                    cell[index] *= 1.0 + CELL_SPREAD * float(value)
                else:
                    cell[index] += math.degrees(CELL_SPREAD * float(value))
        return tuple(cell)

    def positions(self, strains: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return angles of the lines of both wavelengths, undisplaced [deg]."""
        metric = reciprocal_metric(self.cell(strains))
        hkl = self._representative
        return self._two_theta(np.einsum("mi,ij,mj->m", hkl, metric, hkl))

    def position_derivatives(
        self, strains: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Return the derivative of ``positions`` by each cell parameter [deg]."""
        derivatives = []
        for index in range(self.n_cell):
            ahead, behind = strains.copy(), strains.copy()
            ahead[index] += 1e-3
            behind[index] -= 1e-3
            derivatives.append((self.positions(ahead) - self.positions(behind)) / 2e-3)
        return derivatives

    def areas(self, log_r: float) -> NDArray[np.float64]:
        """Return areas of the lines of both wavelengths; those in range sum to 1."""
        if self.axis is None:
            return self._areas(self._plain)
        return self.textured_areas(self.axis, log_r)

    def textured_areas(
        self, axis: tuple[int, int, int], log_r: float
    ) -> NDArray[np.float64]:
        """Return areas for March-Dollase texture exp(*log_r*) about *axis*."""
        r = math.exp(log_r)
        x = self._texture_x[axis]
        gain = (r * r * x + (1.0 - x) / r) ** -1.5
        return self._areas(self._summed(gain))

    def texture_derivative(self, log_r: float) -> NDArray[np.float64]:
        """Return the derivative of ``areas`` by *log_r*; there must be an axis."""
        if self.axis is None:
            return np.zeros(2 * self.lines.d.size)
        r = math.exp(log_r)
        x = self._texture_x[self.axis]
        base = r * r * x + (1.0 - x) / r
        return self._areas(
            self._summed(-1.5 * base**-2.5 * (2.0 * r * r * x - (1.0 - x) / r))
        )

    def _summed(self, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(
            self.lines.line_index,
            weights=self.lines.intensity * gain,
            minlength=self.lines.d.size,
        )
        return total.astype(np.float64)

    def _areas(self, line_intensity: NDArray[np.float64]) -> NDArray[np.float64]:
        both = np.concatenate([ratio * line_intensity for ratio in self._ratios])
        return both * self._polarization / self.norm

    def _two_theta(self, inverse_d2: NDArray[np.float64]) -> NDArray[np.float64]:
        half = np.sqrt(inverse_d2) / 2.0
        sines = np.concatenate([wavelength * half for wavelength in self._wavelengths])
        angles = 2.0 * np.degrees(np.arcsin(np.clip(sines, 0.0, 0.9999)))
        return np.asarray(angles, dtype=np.float64)


def _rounded(spacing: float) -> float:
    """Round a limit so that scans of almost the same range share cached lines."""
    return round(spacing, 3)


def _cell_groups(cell: tuple[float, ...]) -> list[tuple[int, ...]]:
    """Return the cell constants that may vary, those equal by symmetry together."""
    groups: list[list[int]] = []
    for index in range(3):
        for group in groups:
            if abs(cell[index] / cell[group[0]] - 1.0) < 2e-5:
                group.append(index)
                break
        else:
            groups.append([index])
    angles = [i for i in (3, 4, 5) if abs(cell[i] - 90.0) > 1e-3]
    is_hexagonal = len(angles) == 1 and abs(cell[angles[0]] - 120.0) < 1e-3
    if is_hexagonal and len(groups) == 2:
        angles = []
    if len(angles) == 3 and np.ptp([cell[i] for i in angles]) < 1e-3:
        return [*map(tuple, groups), tuple(angles)]
    return [*map(tuple, groups), *((i,) for i in angles)]


@dataclass(frozen=True, eq=False)
class Columns:
    """The model for one set of parameters, ready for a linear fit.

    Attributes:
        patterns: One column per phase, shape ``(n, n_phases)``.
        derivatives: By each parameter, one entry per (phase or None for all,
            parameter index): the derivative of the phase's pattern(s).
    """

    patterns: NDArray[np.float64]
    derivatives: list[tuple[int, int, NDArray[np.float64]]]


class ScanModel:
    """All phases together on one grid, with one vector of parameters.

    The vector holds displacement and instrument widths, then for each phase its cell,
    size, strain and (if it has an axis) texture.

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
        self._shared = (*_SHARED, "zero") if has_zero else _SHARED
        self._displacement_deg = math.degrees(-2.0 * DISPLACEMENT_SPREAD / radius)
        self._slices: list[slice] = []
        at = len(self._shared)
        for phase in self.phases:
            length = phase.n_cell + 2 + (phase.axis is not None)
            self._slices.append(slice(at, at + length))
            at += length
        self.n_parameters = at

    def own(self, index: int) -> slice:
        """Return where the parameters of phase *index* are in the vector."""
        return self._slices[index]

    def names(self) -> list[str]:
        """Return the names of the parameters in order."""
        names = list(self._shared)
        for phase in self.phases:
            name = phase.phase.name
            names += [f"{name}:cell_{i}" for i in range(phase.n_cell)]
            names += [f"{name}:size", f"{name}:strain"]
            if phase.axis is not None:
                names.append(f"{name}:texture")
        return names

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
            size=TYPICAL_WIDTHS.size * float(factors[2]),
            strain=TYPICAL_WIDTHS.strain * float(factors[3]),
            axial=TYPICAL_WIDTHS.axial * float(factors[4]),
        )

    def log_r(self, p: NDArray[np.float64], index: int) -> float:
        """Return the logarithm of the texture parameter of phase *index*."""
        if self.phases[index].axis is None:
            return 0.0
        return TEXTURE_SPREAD * float(p[self._slices[index]][-1])

    def strains(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the cell parameters of phase *index*."""
        start = self._slices[index].start
        return p[start : start + self.phases[index].n_cell]

    def displaced(
        self, p: NDArray[np.float64], index: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return angles of the lines of a phase, and their derivative by p[0]."""
        positions = self.phases[index].positions(self.strains(p, index))
        cosine = self._displacement_deg * np.cos(np.radians(positions) / 2.0)
        return positions + cosine * p[0] + self.zero_deg(p), cosine

    def zero_deg(self, p: NDArray[np.float64]) -> float:
        """Return how much too high all angles are read [deg]."""
        if len(self._shared) == len(_SHARED):
            return 0.0
        return ZERO_SPREAD * float(p[len(_SHARED)])

    def pattern(self, p: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return the pattern of phase *index* for unit scale, shape ``(n,)``."""
        two_theta, _ = self.displaced(p, index)
        areas = self.phases[index].areas(self.log_r(p, index))
        spread = self.grid.spread(two_theta)
        kernel = self.grid.kernel(self.widths(p, index))
        return self.grid.pattern(self.grid.transform(spread, areas) * kernel)

    def patterns(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the patterns of all phases as columns, shape ``(n, n_phases)``."""
        return np.column_stack(
            [self.pattern(p, index) for index in range(len(self.phases))]
        )

    def columns(self, p: NDArray[np.float64]) -> Columns:
        """Return the patterns and their derivatives by every parameter."""
        patterns, derivatives = [], []
        for index, phase in enumerate(self.phases):
            grid, widths = self.grid, self.widths(p, index)
            two_theta, by_displacement = self.displaced(p, index)
            spread, kernel = grid.spread(two_theta), grid.kernel(widths)
            log_r = self.log_r(p, index)
            areas = phase.areas(log_r)
            transform = grid.transform(spread, areas) * kernel
            patterns.append(grid.pattern(transform))
            by_width = grid.width_derivatives(transform, widths)
            shift_kernel = grid.shifted(kernel)

            def moved(
                by: NDArray[np.float64],
                areas: NDArray[np.float64] = areas,
                spread: tuple[
                    NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]
                ] = spread,
                shift_kernel: NDArray[np.complex128] = shift_kernel,
            ) -> NDArray[np.float64]:
                transform = self.grid.transform(spread, areas * by)
                return self.grid.pattern(transform * shift_kernel)

            derivatives.append((index, 0, moved(by_displacement)))
            if len(self._shared) > len(_SHARED):
                by_zero = np.full_like(two_theta, ZERO_SPREAD)
                derivatives.append((index, len(_SHARED), moved(by_zero)))
            for at, name in ((1, "gauss_constant"), (2, "gauss_tangent"), (3, "axial")):
                derivatives.append(
                    (index, at, by_width[name] * getattr(widths, name) * WIDTH_SPREAD)
                )
            at = self._slices[index].start
            strains = self.strains(p, index)
            for by_cell in phase.position_derivatives(strains):
                derivatives.append((index, at, moved(by_cell)))
                at += 1
            for name in ("size", "strain"):
                derivatives.append(
                    (index, at, by_width[name] * getattr(widths, name) * WIDTH_SPREAD)
                )
                at += 1
            if phase.axis is not None:
                change = phase.texture_derivative(log_r) * TEXTURE_SPREAD
                change_pattern = grid.pattern(grid.transform(spread, change) * kernel)
                derivatives.append((index, at, change_pattern))
        return Columns(np.column_stack(patterns), derivatives)
