"""The powder pattern that a perfect, randomly oriented crystal gives.

Lines: structure factors from IT92 form factors with Cromer-Liberman dispersion, summed
over symmetry-equivalent reflections. Profiles: Voigt functions summed in Fourier
space, where instrument, size, strain and axial divergence are mere factors and every
derivative is one factor more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import gemmi
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Atom, Phase

_EV_ANGSTROM = 12398.4198  # photon energy times wavelength [eV Å]
_PADDING_DEG = 4.0  # room behind the scan in which tails of the far end fade
_N_NODES = 8  # angles at which the profile is known exactly; cubic in between


@dataclass(frozen=True, eq=False)
class LineList:
    """The diffraction lines of one phase; reflections of equal spacing share a line.

    Attributes:
        hkl: Miller indices of one of each Friedel pair, shape ``(m, 3)``.
        line_index: Line to which each reflection adds, shape ``(m,)``.
        intensity: |F|² of both Friedel mates together [electrons²], shape ``(m,)``.
        d: Lattice spacing of each line [Å], falling, shape ``(n,)``.
    """

    hkl: NDArray[np.int64]
    line_index: NDArray[np.int64]
    intensity: NDArray[np.float64]
    d: NDArray[np.float64]

    @property
    def line_intensity(self) -> NDArray[np.float64]:
        """Sum of |F|² over the reflections of each line, shape ``(n,)``."""
        total = np.bincount(
            self.line_index, weights=self.intensity, minlength=self.d.size
        )
        return total.astype(np.float64)


@lru_cache(maxsize=128)
def line_list(phase: Phase, wavelength: float, d_min: float, d_max: float) -> LineList:
    """Return the lines of *phase* with spacings from *d_min* to *d_max* [Å].

    Args:
        phase: The structure.
        wavelength: Where dispersion is evaluated [Å].
        d_min: Smallest spacing [Å].
        d_max: Largest spacing [Å].
    """
    hkl = _half_sphere(phase.cell, d_min)
    spacing = lattice_spacing(hkl, phase.cell)
    inside = (spacing >= d_min) & (spacing <= d_max)
    hkl, spacing = hkl[inside], spacing[inside]
    order = np.argsort(-spacing, kind="stable")
    hkl, spacing = hkl[order], spacing[order]
    intensity = _structure_factor_squared(phase, wavelength, hkl, spacing)
    # Equal within rounding of the cell means equal by symmetry (or by accident, which
    # is the same on a powder pattern).
    starts = np.concatenate([[True], np.diff(spacing) < -1e-7 * spacing[1:]])
    index = np.cumsum(starts[: len(spacing)]) - 1
    n_lines = int(index[-1]) + 1 if len(index) else 0
    strength = np.bincount(index, weights=intensity, minlength=n_lines)
    # Extinct lines come out as rounding errors, not as zeros.
    electrons = sum(
        a.occupancy * gemmi.Element(a.element).atomic_number for a in phase.atoms
    )
    visible = strength > 1e-9 * electrons**2
    renumbered = np.cumsum(visible) - 1
    kept = visible[index] if n_lines else np.zeros(0, dtype=bool)
    return LineList(
        hkl=hkl[kept],
        line_index=renumbered[index[kept]],
        intensity=intensity[kept],
        d=spacing[starts[: len(spacing)]][visible],
    )


def lattice_spacing(
    hkl: NDArray[np.int64], cell: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return the spacing d of planes *hkl*, shape ``(m, 3)`` -> ``(m,)`` [Å].

    Example:
        >>> lattice_spacing(np.array([[1, 1, 1]]), (5.43, 5.43, 5.43, 90, 90, 90))
        array([3.13501196])
    """
    metric = reciprocal_metric(cell)
    return np.asarray(1.0 / np.sqrt(np.einsum("mi,ij,mj->m", hkl, metric, hkl)))


def reciprocal_metric(cell: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the reciprocal metric tensor of *cell*, shape ``(3, 3)`` [1/Å²]."""
    a, b, c = cell[:3]
    cos_a, cos_b, cos_g = (
        0.0 if angle == 90.0 else math.cos(math.radians(angle)) for angle in cell[3:]
    )
    direct = np.array(
        [
            [a * a, a * b * cos_g, a * c * cos_b],
            [a * b * cos_g, b * b, b * c * cos_a],
            [a * c * cos_b, b * c * cos_a, c * c],
        ]
    )
    return np.linalg.inv(direct)


def lorentz_polarization(
    two_theta: NDArray[np.float64], polarization: float = 1.0
) -> NDArray[np.float64]:
    """Return the Bragg-Brentano factor, (1 + K cos² 2theta) / (sin² theta cos theta).

    Args:
        two_theta: Angles [deg].
        polarization: K, the square of the cosine of a crystal monochromator's 2theta;
            1 for a filtered beam.
    """
    theta = np.radians(two_theta) / 2.0
    return np.asarray(
        (1.0 + polarization * np.cos(2.0 * theta) ** 2)
        / (np.sin(theta) ** 2 * np.cos(theta))
    )


def texture_factor(
    hkl: NDArray[np.int64], cell: tuple[float, ...], axis: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Return cos² of the angle between each plane normal and that of *axis*, ``(m,)``.

    March-Dollase: a line of cos² alpha = x gains (r² x + (1 - x)/r)^(-3/2).
    """
    metric = reciprocal_metric(cell)
    along = hkl @ metric @ np.array(axis)
    length = np.einsum("mi,ij,mj->m", hkl, metric, hkl)
    return np.asarray(along**2 / (length * (np.array(axis) @ metric @ np.array(axis))))


def reference_intensity_ratio(
    phase: Phase, corundum: Phase, wavelength: float
) -> float:
    """Return I/Ic: strongest line over that of corundum in a 1:1 mixture by mass.

    Positions and dispersion at *wavelength* [Å]; overlapping lines are not added.
    """
    strongest = []
    for each in (phase, corundum):
        lines = line_list(each, wavelength, wavelength / 1.99, 50.0)
        two_theta = 2.0 * np.degrees(np.arcsin(wavelength / (2.0 * lines.d)))
        peak = (lines.line_intensity * lorentz_polarization(two_theta)).max()
        strongest.append(peak / (each.mass * each.volume))
    return float(strongest[0] / strongest[1])


def _half_sphere(cell: tuple[float, ...], d_min: float) -> NDArray[np.int64]:
    """Return one of each Friedel pair with spacing above about *d_min*, ``(m, 3)``."""
    limits = [math.ceil(length / d_min) for length in cell[:3]]
    h, k, l = np.meshgrid(  # noqa: E741 # Miller indices are called h, k, l
        np.arange(0, limits[0] + 1),
        np.arange(-limits[1], limits[1] + 1),
        np.arange(-limits[2], limits[2] + 1),
        indexing="ij",
    )
    hkl = np.stack([h.ravel(), k.ravel(), l.ravel()], axis=1)
    first = (hkl[:, 0] > 0) | (
        (hkl[:, 0] == 0) & ((hkl[:, 1] > 0) | ((hkl[:, 1] == 0) & (hkl[:, 2] > 0)))
    )
    return np.asarray(hkl[first], dtype=np.int64)


def _structure_factor_squared(
    phase: Phase,
    wavelength: float,
    hkl: NDArray[np.int64],
    spacing: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return |F(hkl)|² + |F(-h-k-l)|² for each row of *hkl*."""
    stol2 = 1.0 / (4.0 * spacing**2)  # (sin theta / lambda)²
    real = np.zeros(len(hkl), dtype=np.complex128)
    imaginary = np.zeros(len(hkl), dtype=np.complex128)
    kinds = sorted({(atom.element, atom.b_iso) for atom in phase.atoms})
    for symbol, b_iso in kinds:
        atoms = [a for a in phase.atoms if (a.element, a.b_iso) == (symbol, b_iso)]
        geometry = _geometry(hkl, atoms) * np.exp(-b_iso * stol2)
        element = gemmi.Element(symbol)
        f_prime, f_second = gemmi.cromer_liberman(
            element.atomic_number, _EV_ANGSTROM / wavelength
        )
        real += geometry * (_form_factor(element, stol2) + f_prime)
        imaginary += geometry * f_second
    # The mates differ only in cross terms that cancel in their sum.
    return np.asarray(2.0 * (np.abs(real) ** 2 + np.abs(imaginary) ** 2))


def _geometry(hkl: NDArray[np.int64], atoms: Sequence[Atom]) -> NDArray[np.complex128]:
    """Return the sum of occupancy times exp(2 pi i h.x), in parts that fit memory."""
    positions = np.array([a.position for a in atoms])
    occupancies = np.array([a.occupancy for a in atoms])
    total = np.empty(len(hkl), dtype=np.complex128)
    n_rows = max(1, 1_000_000 // len(atoms))
    for start in range(0, len(hkl), n_rows):
        part = slice(start, start + n_rows)
        total[part] = np.exp(2j * np.pi * (hkl[part] @ positions.T)) @ occupancies
    return total


def _form_factor(
    element: gemmi.Element, stol2: NDArray[np.float64]
) -> NDArray[np.float64]:
    coefficients = element.it92
    total = np.full_like(stol2, coefficients.c)
    for a, b in zip(coefficients.a, coefficients.b, strict=True):
        total += a * np.exp(-b * stol2)
    return total


@dataclass(frozen=True)
class Widths:
    """What broadens lines; half widths and standard deviations in radians of 2theta.

    Attributes:
        gauss_constant: Gaussian variance common to all angles [rad²].
        gauss_tangent: Gaussian variance per tan² theta [rad²].
        size: Lorentzian half width per 1/cos theta (Scherrer) [rad].
        strain: Lorentzian half width per tan theta [rad].
        axial: Mean of the low-angle tail of axial divergence per cot 2theta [rad].
    """

    gauss_constant: float
    gauss_tangent: float
    size: float
    strain: float
    axial: float


class ProfileGrid:
    """Sums profiles of many lines on an even grid of angles.

    Lines are spread over the grid with cubic B-splines, whose response is divided out
    again, and convolved with the profile by Fourier transform. As the profile changes
    with angle, it is taken at a few nodes and interpolated between (Lagrange, cubic).
    The value of a point is the mean of the pattern over the step around it.

    Args:
        start: First angle [deg].
        step: Distance of points [deg].
        n_points: Number of points.
    """

    def __init__(self, start: float, step: float, n_points: int) -> None:
        self.start = start
        self.step = step
        self.n_points = n_points
        self._n = _fast_length(n_points + math.ceil(_PADDING_DEG / step))
        end = start + step * (n_points - 1)
        # Even in the root of the angle: widths change fastest at the low end.
        self._root = np.linspace(math.sqrt(start), math.sqrt(end), _N_NODES)
        nodes = np.radians(self._root**2)
        self._sec = 1.0 / np.cos(nodes / 2.0)
        self._tan = np.tan(nodes / 2.0)
        self._cot = 1.0 / np.tan(nodes)
        step_rad = math.radians(step)
        cycles = np.fft.rfftfreq(self._n)
        self._k = 2.0 * np.pi * cycles / step_rad
        spline = np.sinc(cycles) ** 4
        self._gain = np.sinc(cycles) / spline / step
        self._basis = self._lagrange_denominators()

    def _lagrange_denominators(self) -> NDArray[np.float64]:
        return np.array(
            [math.prod(float(i - j) for j in range(4) if j != i) for i in range(4)]
        )

    def spread(
        self, two_theta: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return where lines at *two_theta* [deg] go: cells, weights, which fit.

        Cells and weights have shape ``(n, 16)``: four nodes by four grid points.
        """
        place = (two_theta - self.start) / self.step
        edge = 0.45 * _PADDING_DEG / self.step
        fits = (place > -edge) & (place < self.n_points + edge)
        place = place[fits]
        below = np.floor(place).astype(np.int64)
        t = place - below
        splines = (
            np.stack(
                [
                    (1.0 - t) ** 3,
                    3.0 * t**3 - 6.0 * t**2 + 4.0,
                    -3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0,
                    t**3,
                ],
                axis=1,
            )
            / 6.0
        )
        points = np.mod(below[:, None] + np.arange(-1, 3), self._n)
        spacing = self._root[1] - self._root[0]
        x = np.sqrt(np.maximum(two_theta[fits], 0.0)) - self._root[0]
        x = np.clip(x / spacing, 0.0, _N_NODES - 1.0)
        first = np.clip(np.floor(x).astype(np.int64) - 1, 0, _N_NODES - 4)
        u = (x - first)[:, None] - np.arange(4)
        lagrange = (
            np.stack(
                [
                    u[:, 1] * u[:, 2] * u[:, 3],
                    u[:, 0] * u[:, 2] * u[:, 3],
                    u[:, 0] * u[:, 1] * u[:, 3],
                    u[:, 0] * u[:, 1] * u[:, 2],
                ],
                axis=1,
            )
            / self._basis
        )
        cells = (first[:, None] + np.arange(4))[:, :, None] * self._n
        cells = cells + points[:, None, :]
        weights = lagrange[:, :, None] * splines[:, None, :]
        return (
            cells.reshape(len(t), 16),
            weights.reshape(len(t), 16),
            fits,
        )

    def transform(
        self,
        spread: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]],
        areas: NDArray[np.float64],
    ) -> NDArray[np.complex128]:
        """Return the transforms of lines of *areas*, one row per node."""
        cells, weights, fits = spread
        filled = np.bincount(
            cells.ravel(),
            weights=(weights * areas[fits, None]).ravel(),
            minlength=_N_NODES * self._n,
        )
        return np.fft.rfft(filled.reshape(_N_NODES, self._n), axis=1)

    def kernel(self, widths: Widths) -> NDArray[np.complex128]:
        """Return the transform of the profile of unit area, one row per node."""
        variance = widths.gauss_constant + widths.gauss_tangent * self._tan**2
        half_width = widths.size * self._sec + widths.strain * self._tan
        k = self._k
        real = np.exp(-(0.5 * variance[:, None] * k + half_width[:, None]) * k)
        real *= self._gain
        # 1 / (1 - i t) for a tail that falls off exponentially
        t = (widths.axial * self._cot)[:, None] * k
        real /= 1.0 + t * t
        kernel = np.empty(real.shape, dtype=np.complex128)
        kernel.real, kernel.imag = real, real * t
        return kernel

    def pattern(self, transform: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Return the sum of node rows as a pattern, per deg, shape ``(n_points,)``."""
        return self._inverse(transform.sum(axis=0))

    def shift(self, transform: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Return the derivative for a shift of the lines to higher angle, per deg."""
        return self._inverse(
            transform.sum(axis=0) * (-1j * math.radians(1.0) * self._k)
        )

    def width_derivatives(
        self, transform: NDArray[np.complex128], widths: Widths
    ) -> dict[str, NDArray[np.float64]]:
        """Return the derivatives of the pattern by each of *widths*, by name."""
        rows = np.stack(
            [np.ones_like(self._tan), self._tan**2, self._sec, self._tan]
        ) @ transform.view(np.float64).reshape(_N_NODES, -1)
        sums = np.ascontiguousarray(rows).view(np.complex128)
        sums[:2] *= -0.5 * self._k**2
        sums[2:] *= -self._k
        slope = 1j * self._cot[:, None] * self._k
        tail = (transform * (slope / (1.0 - widths.axial * slope))).sum(axis=0)
        patterns = self._inverse(np.vstack([sums, tail]))
        names = ("gauss_constant", "gauss_tangent", "size", "strain", "axial")
        return dict(zip(names, patterns, strict=True))

    @property
    def two_theta(self) -> NDArray[np.float64]:
        """Angles of the points [deg], shape ``(n_points,)``."""
        return np.asarray(self.start + self.step * np.arange(self.n_points))

    def _inverse(self, sums: NDArray[np.complex128]) -> NDArray[np.float64]:
        return np.fft.irfft(sums, self._n, axis=-1)[..., : self.n_points]


def _fast_length(at_least: int) -> int:
    """Return the least even product of 2, 3 and 5 that is not below *at_least*."""
    best = 1 << (at_least - 1).bit_length()
    for five in (1, 5, 25, 125):
        for three in (1, 3, 9, 27, 81):
            odd = five * three
            exponent = max(1, math.ceil(math.log2(at_least / odd)))
            best = min(best, odd << exponent)
    return best
