"""The lines of one phase in one scan, and how its parameters move and change them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._texture import RANDOM, Texture, TexturedLines
from ppu_protocols.analysis.pattern import (
    line_list,
    lorentz_polarization,
    reciprocal_metric,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Phase
    from ppu_protocols.analysis.scan import Scan

# Parameters are counted in spreads of what is plausible beforehand.
CELL_SPREAD = 3e-3  # relative; rad for angles
B_SPREAD = 0.45  # of a displacement parameter B that nobody stated [Å²]
STATED_B_SPREAD = 0.3  # of one that the structure states [Å²]


class PhaseModel:
    """Lines of one phase in one scan, and how parameters move and change them.

    Args:
        phase: The structure.
        scan: Gives wavelengths and range.
        texture: Which texture is refined.
    """

    def __init__(self, phase: Phase, scan: Scan, texture: Texture = RANDOM) -> None:
        self.phase = phase
        self._wavelengths = (scan.k_alpha_1, scan.k_alpha_2)
        self._ratios = (1.0, scan.k_alpha_ratio)
        self._scan = scan
        low = max(float(scan.two_theta[0]) - 1.5, 1.0)
        high = min(float(scan.two_theta[-1]) + 1.5, 175.0)
        self.lines = line_list(
            phase,
            scan.k_alpha_1,
            _rounded(scan.k_alpha_1 / (2.0 * math.sin(math.radians(high / 2.0)))),
            _rounded(scan.k_alpha_2 / (2.0 * math.sin(math.radians(low / 2.0)))),
        )
        self.textured = TexturedLines(self.lines, phase.cell, texture)
        self._groups = _cell_groups(phase.cell)
        self.n_cell = len(self._groups)
        self.lengths = [group[0] < 3 for group in self._groups]
        self.b_spread = STATED_B_SPREAD if phase.has_displacements else B_SPREAD
        _, first = np.unique(self.lines.line_index, return_index=True)
        self._representative = self.lines.hkl[first].astype(np.float64)
        d = self.lines.d
        self.norm = 1.0
        self.decay = np.tile(0.5 / d**2, 2)
        """Loss of the logarithm of each line's area per displacement B [1/Å²]."""
        self._factor = np.zeros(2 * d.size)
        if d.size:
            two_theta = self._two_theta(1.0 / d**2)
            inside = (two_theta >= scan.two_theta[0]) & (
                two_theta <= scan.two_theta[-1]
            )
            lorentz = lorentz_polarization(two_theta, scan.polarization)
            self._factor = lorentz * np.repeat(self._ratios, d.size)
            total = float((self._areas(self.textured.plain) * inside).sum())
            self.norm = total if total > 0.0 else 1.0
            self._factor = self._factor / self.norm
        self.has_lines = bool(d.size) and self.norm != 1.0

    @property
    def texture(self) -> Texture:
        """Which texture is refined."""
        return self.textured.texture

    def with_texture(self, texture: Texture) -> PhaseModel:
        """Return the same phase with another texture."""
        return PhaseModel(self.phase, self._scan, texture)

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
        areas = lines.line_intensity * lorentz_polarization(
            two_theta, self._scan.polarization
        )
        first, last = float(self._scan.two_theta[0]), float(self._scan.two_theta[-1])
        inside = (two_theta > first) & (two_theta < last)
        seen = areas[inside] / float(areas.max())
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
        return self._two_theta(((hkl @ metric) * hkl).sum(axis=1))

    def position_derivatives(
        self, strains: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Return the derivative of ``positions`` by each cell parameter [deg]."""
        here = self.positions(strains)
        derivatives = []
        for index in range(self.n_cell):
            ahead = strains.copy()
            ahead[index] += 1e-4
            derivatives.append((self.positions(ahead) - here) / 1e-4)
        return derivatives

    def areas(
        self, texture: NDArray[np.float64], b_change: float = 0.0
    ) -> NDArray[np.float64]:
        """Return areas of the lines of both wavelengths.

        Those in range sum to 1 without texture, at the displacements of the structure.

        Args:
            texture: Values of the texture, see `TexturedLines.intensities`.
            b_change: Added to every displacement parameter B [Å²].
        """
        areas = self._areas(self.textured.intensities(texture))
        return areas * np.exp(-b_change * self.decay) if b_change else areas

    def march_areas(
        self, axis: tuple[int, int, int], log_r: float
    ) -> NDArray[np.float64]:
        """Return areas for March-Dollase texture exp(*log_r*) about *axis*."""
        return self._areas(self.textured.march(axis, log_r))

    def texture_derivatives(
        self, texture: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Return the derivative of ``areas`` by each value of the texture."""
        return [self._areas(d) for d in self.textured.derivatives(texture)]

    def _areas(self, intensity: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([intensity, intensity]) * self._factor

    def _two_theta(self, inverse_d2: NDArray[np.float64]) -> NDArray[np.float64]:
        half = np.sqrt(inverse_d2) / 2.0
        sines = np.concatenate([wavelength * half for wavelength in self._wavelengths])
        angles = 2.0 * np.degrees(np.arcsin(np.minimum(sines, 0.9999)))
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
