"""A measured powder pattern, whatever file it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

CU_K_ALPHA_1 = 1.5405980
"""Wavelength assumed where a scan states none [Å]: copper K-alpha 1."""
CU_K_ALPHA_2 = 1.5444260
"""Wavelength assumed where a scan states none [Å]: copper K-alpha 2."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A measured powder pattern.

    Attributes:
        two_theta: Diffraction angles, ascending [deg], shape ``(n,)``.
        counts: Intensities, attenuation undone [counts], shape ``(n,)``.
        variance: Variance of the counts from counting statistics, shape ``(n,)``.
        counting_time: Seconds per point.
        k_alpha_1: Wavelength of the stronger line [Å].
        k_alpha_2: Wavelength of the weaker line [Å].
        k_alpha_ratio: Intensity of the weaker line over the stronger, 0 to 1.
        radius: Radius of the goniometer [mm].
        polarization: Square of the cosine of the 2theta of a crystal monochromator,
            for the copper of graphite 0.80; 1 for a filtered beam.
        sample_id: What the file calls the sample; may be empty.
        source: Where the scan came from, for messages and plots.
        notes: What the reader assumed, corrected or left aside, one phrase each.
    """

    two_theta: NDArray[np.float64]
    counts: NDArray[np.float64]
    variance: NDArray[np.float64]
    counting_time: float = 1.0
    k_alpha_1: float = CU_K_ALPHA_1
    k_alpha_2: float = CU_K_ALPHA_2
    k_alpha_ratio: float = 0.5
    radius: float = 145.0
    polarization: float = 1.0
    sample_id: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_counts(
        cls,
        two_theta: ArrayLike,
        counts: ArrayLike,
        *,
        counting_time: float = 1.0,
        sample_id: str = "",
    ) -> Scan:
        """Return a copper scan of raw *counts* [counts] at *two_theta* [deg].

        Raises:
            AnalysisError: If the arrays do not match, hold less than 50 points, or
                hold values that are not finite or angles that do not rise.
        """
        angles = np.asarray(two_theta, dtype=np.float64)
        values = np.asarray(counts, dtype=np.float64)
        scan = cls(
            two_theta=angles,
            counts=values,
            variance=np.maximum(values, 1.0),
            counting_time=counting_time,
            sample_id=sample_id,
            source=sample_id,
        )
        check_scan(scan, sample_id or "scan")
        return scan


@dataclass(frozen=True)
class ScanFile:
    """What a file of scans holds.

    Attributes:
        kind: Name of its format.
        scans: Its usable scans, in the order of the file.
        refused: Why others are not usable, one sentence each.
    """

    kind: str
    scans: tuple[Scan, ...]
    refused: tuple[str, ...] = ()


def made_scan(
    two_theta: ArrayLike,
    counts: ArrayLike,
    variance: ArrayLike,
    *,
    source: str,
    notes: Sequence[str] = (),
    **values: Any,
) -> Scan:
    """Return a checked scan.

    Args:
        two_theta: Angles [deg], rising.
        counts: Intensities.
        variance: Their variance.
        source: For messages.
        notes: What the reader assumed, corrected or left aside.
        values: Further attributes of `Scan`.

    Raises:
        AnalysisError: As `check_scan`.
    """
    scan = Scan(
        two_theta=np.asarray(two_theta, dtype=np.float64),
        counts=np.asarray(counts, dtype=np.float64),
        variance=np.asarray(variance, dtype=np.float64),
        source=source,
        notes=tuple(notes),
        **values,
    )
    check_scan(scan, source)
    return scan


def finite(
    values: NDArray[np.float64], source: str, what: str = "intensities"
) -> NDArray[np.float64]:
    """Return *values*, or refuse them if one is not finite or beyond all reason.

    Raises:
        AnalysisError: Naming *source* and *what*.
    """
    if not (np.isfinite(values).all() and np.abs(values).max(initial=0.0) < 1e15):
        raise AnalysisError(f"{source}: holds {what} that are not finite numbers")
    return values


def wavelengths_of(
    first: str | None, second: str | None, source: str, notes: list[str]
) -> tuple[float, float]:
    """Return K-alpha 1 and 2 as a file states them, copper's if it does not [Å].

    Raises:
        AnalysisError: If a stated wavelength is impossible.
    """

    def value(text: str | None) -> float:
        try:
            return float(text or "nan")
        except ValueError:
            return math.nan

    one, two = value(first), value(second)
    if not one > 0.0:
        notes.append("no wavelength stated: copper assumed")
        return CU_K_ALPHA_1, CU_K_ALPHA_2
    if not two > 0.0:
        # The other line of copper lies beside it; other tubes have theirs as far off.
        two = one * CU_K_ALPHA_2 / CU_K_ALPHA_1
    if not (0.3 < one < 3.0 and 0.3 < two < 3.0):
        raise AnalysisError(
            f"{source}: wavelengths of {one:g} and {two:g} Å; 0.3 to 3 Å are allowed"
        )
    return one, two


def check_scan(scan: Scan, source: str) -> None:
    """Refuse a scan that cannot be analysed; *source* appears in messages.

    Raises:
        AnalysisError: If arrays do not match, hold less than 50 points, values that
            are not finite or negative, or angles that do not rise or are out of range.
    """
    n_points = len(scan.two_theta)
    if n_points != len(scan.counts):
        raise AnalysisError(
            f"{source}: {n_points} positions but {len(scan.counts)} intensities"
        )
    if n_points < 50:
        raise AnalysisError(f"{source}: {n_points} points; at least 50 are needed")
    if not all(
        np.isfinite(values).all()
        for values in (scan.two_theta, scan.counts, scan.variance)
    ):
        raise AnalysisError(f"{source}: holds values that are not finite numbers")
    if (np.diff(scan.two_theta) <= 0.0).any():
        raise AnalysisError(f"{source}: the same 2theta position is given twice")
    if scan.two_theta[0] < 1.0 or scan.two_theta[-1] > 170.0:
        raise AnalysisError(
            f"{source}: 2theta runs from {scan.two_theta[0]:g} to "
            f"{scan.two_theta[-1]:g} deg; 1 to 170 is allowed"
        )
    if scan.counts.min() < 0.0:
        raise AnalysisError(f"{source}: holds negative counts")
