"""How preferred orientation changes the intensities of a phase's lines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ppu_protocols.analysis.pattern import texture_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis.pattern import LineList

Axis = tuple[int, int, int]

MARCH_SPREAD = 0.3  # of the logarithm of the March-Dollase parameter
HARMONIC_SPREAD = 0.2  # of a coefficient: relative change of intensities, rms
LEAST_DENSITY = 0.05  # of plane normals, to which negative sums are raised

TEXTURE_AXES: Final[tuple[Axis, ...]] = (
    (0, 0, 1),
    (1, 0, 0),
    (0, 1, 0),
    (1, 1, 0),
    (1, -1, 0),
    (1, 0, 1),
    (1, 0, -1),
    (0, 1, 1),
    (0, 1, -1),
    (1, 1, 1),
    (-1, 1, 1),
    (1, -1, 1),
    (1, 1, -1),
    (1, 0, 4),
)
"""Plane normals that grains may prefer; some are alike by symmetry."""


@dataclass(frozen=True)
class Texture:
    """The kind of preferred orientation a phase is given.

    Attributes:
        axis: The March-Dollase axis; None for harmonics or for a random powder.
        order: Highest order of the symmetrised harmonics, 4; 0 for none.
    """

    axis: Axis | None = None
    order: int = 0


RANDOM: Final = Texture()


class TexturedLines:
    """Line intensities of one phase for any texture.

    Args:
        lines: Reflections of the phase.
        cell: Its cell.
        texture: Which texture its parameters describe.
    """

    def __init__(
        self, lines: LineList, cell: tuple[float, ...], texture: Texture
    ) -> None:
        self.texture = texture
        self._lines = lines
        self._cell = cell
        self._plain = lines.line_intensity
        self._x: dict[Axis, NDArray[np.float64]] = {}
        self._harmonics = np.zeros((self._plain.size, 0))
        if texture.order and self._plain.size:
            self._harmonics = self._symmetrised(texture.order)
        self.n_parameters = int(texture.axis is not None) + self._harmonics.shape[1]
        self.spread = MARCH_SPREAD if texture.axis else HARMONIC_SPREAD

    @property
    def plain(self) -> NDArray[np.float64]:
        """Intensities of a random powder, shape ``(n,)``."""
        return self._plain

    def intensities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the intensities, shape ``(n,)``.

        Args:
            values: The logarithm of the March-Dollase parameter, or the coefficients
                of the harmonics.
        """
        if self.texture.axis is not None:
            return self.march(self.texture.axis, float(values[0]))
        if self._harmonics.shape[1]:
            density = 1.0 + self._harmonics @ values
            return np.asarray(self._plain * np.maximum(density, LEAST_DENSITY))
        return self._plain

    def derivatives(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return the derivative of the intensities by each of *values*."""
        if self.texture.axis is not None:
            r = math.exp(float(values[0]))
            x = self._cosines(self.texture.axis)
            base = r * r * x + (1.0 - x) / r
            slope = -1.5 * base**-2.5 * (2.0 * r * r * x - (1.0 - x) / r)
            return [self._summed(slope)]
        allowed = 1.0 + self._harmonics @ values > LEAST_DENSITY
        return [self._plain * column * allowed for column in self._harmonics.T]

    def march(self, axis: Axis, log_r: float) -> NDArray[np.float64]:
        """Return intensities for March-Dollase texture exp(*log_r*) about *axis*."""
        r = math.exp(log_r)
        x = self._cosines(axis)
        return self._summed((r * r * x + (1.0 - x) / r) ** -1.5)

    def _cosines(self, axis: Axis) -> NDArray[np.float64]:
        if axis not in self._x:
            self._x[axis] = texture_factor(self._lines.hkl, self._cell, axis)
        return self._x[axis]

    def _summed(self, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(
            self._lines.line_index,
            weights=self._lines.intensity * gain,
            minlength=self._lines.d.size,
        )
        return total.astype(np.float64)

    def _symmetrised(self, order: int) -> NDArray[np.float64]:
        """Return independent symmetrised harmonics at the lines, ``(n, n_terms)``.

        Legendre functions of the angle to an axis, averaged over the equivalent
        planes of a line, span the harmonics that the symmetry allows (W. A. Dollase,
        J. Appl. Cryst. 19 (1986) 267; R. B. Von Dreele, ibid. 30 (1997) 517); columns
        are scaled to change the strongest lines by 1, rms.
        """
        columns = []
        for axis in TEXTURE_AXES:
            x = self._cosines(axis)
            columns.append(1.5 * x - 0.5)
            if order >= 4:
                columns.append((35.0 * x**2 - 30.0 * x + 3.0) / 8.0)
        plain = np.maximum(self._plain, 1e-300)
        at_lines = np.column_stack([self._summed(c) / plain for c in columns])
        weight = np.sqrt(plain / plain.sum())
        left, size, right = np.linalg.svd(at_lines * weight[:, None], False)
        del left
        kept = size > 1e-4 * max(float(size[0]), 1e-300)
        return np.asarray(at_lines @ right[kept].T / size[kept])
