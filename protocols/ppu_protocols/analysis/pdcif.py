"""Powder scans from powder CIFs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gemmi
import numpy as np

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import ScanFile, finite, made_scan, wavelengths_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis.scan import Scan

_NEEDED = (
    "a powder CIF with _pd_meas_2theta_scan or _pd_meas_2theta_range_, and "
    "_pd_meas_counts_total or an intensity with its standard uncertainty, is needed"
)
_COUNTS = ("_pd_meas_counts_total",)
_INTENSITIES = ("_pd_meas_intensity_total", "_pd_proc_intensity_total")
_ANGLES = ("_pd_meas_2theta_scan", "_pd_proc_2theta_corrected")


def parse_pdcif(content: bytes, *, source: str) -> ScanFile:
    """Return the patterns in a powder CIF.

    Raises:
        AnalysisError: If it is no CIF, or no block is a usable pattern.
    """
    try:
        document = gemmi.cif.read_string(content.decode("utf-8", errors="replace"))
    except (ValueError, RuntimeError) as error:
        raise AnalysisError(f"{source}: not a CIF file: {error}") from error
    scans: list[Scan] = []
    refused: list[str] = []
    for block in document:
        if not any(len(block.find_values(tag)) for tag in (*_COUNTS, *_INTENSITIES)):
            continue
        try:
            scans.append(_pattern(block, source))
        except AnalysisError as error:
            refused.append(str(error))
    if not scans:
        raise AnalysisError(
            refused[0] if refused else f"{source}: holds no pattern; {_NEEDED}"
        )
    return ScanFile("powder CIF", tuple(scans), tuple(refused))


def _pattern(block: gemmi.cif.Block, source: str) -> Scan:
    notes = []
    counts = next((t for t in _COUNTS if len(block.find_values(t))), None)
    if counts is not None:
        values, _ = _column(block, counts, source)
        variance = np.maximum(values, 1.0)
    else:
        tag = next(t for t in _INTENSITIES if len(block.find_values(t)))
        values, errors = _column(block, tag, source)
        if not (errors > 0.0).any():
            raise AnalysisError(
                f"{source}: {tag} has no standard uncertainties, so its noise is "
                f"unknown; {_NEEDED}"
            )
        variance = np.maximum(errors, errors[errors > 0.0].min()) ** 2
        notes.append("standard uncertainties of the file used")
    scan_tag = next((t for t in _ANGLES if len(block.find_values(t))), None)
    if scan_tag is not None:
        angles, _ = _column(block, scan_tag, source)
    else:
        first, last, step = (
            gemmi.cif.as_number(block.find_value(f"_pd_meas_2theta_range_{end}") or "?")
            for end in ("min", "max", "inc")
        )
        n_points = values.size
        is_whole = np.isfinite([first, last, step]).all() and step > 0.0
        if not is_whole or abs((last - first) / step - (n_points - 1)) > 0.6:
            raise AnalysisError(
                f"{source}: the range {first:g} to {last:g} deg in steps of {step:g} "
                f"does not hold {n_points} points; {_NEEDED}"
            )
        angles = np.linspace(first, last, n_points)
    waves = [
        gemmi.cif.as_string(x)
        for x in block.find_values("_diffrn_radiation_wavelength")
    ]
    if not waves:
        found = block.find_value("_diffrn_radiation_wavelength")
        waves = [gemmi.cif.as_string(found)] if found else []
    waves = [str(gemmi.cif.as_number(wave)) for wave in waves]
    first_wave = waves[0] if waves else None
    second_wave = waves[1] if len(waves) > 1 else None
    k_alpha_1, k_alpha_2 = wavelengths_of(first_wave, second_wave, source, notes)
    has_second = second_wave is not None or first_wave is None
    return made_scan(
        angles,
        values,
        variance,
        source=source,
        notes=notes,
        k_alpha_1=k_alpha_1,
        k_alpha_2=k_alpha_2,
        k_alpha_ratio=0.5 if has_second else 0.0,
        sample_id=block.name,
    )


def _column(
    block: gemmi.cif.Block, tag: str, source: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers of *tag* and their uncertainties, 0 where none is stated."""
    texts = [gemmi.cif.as_string(text) for text in block.find_values(tag)]
    values = np.array([gemmi.cif.as_number(text) for text in texts], dtype=np.float64)
    if not np.isfinite(values).all():
        raise AnalysisError(f"{source}: {tag} holds something else than numbers")
    errors = np.array([_uncertainty(text) for text in texts], dtype=np.float64)
    return finite(values, source), finite(errors, source)


def _uncertainty(text: str) -> float:
    """Return the standard uncertainty in '1.23(4)', 0 without one."""
    number, bracket, rest = text.partition("(")
    digits = rest.rstrip(")")
    if not bracket or not digits.isdigit():
        return 0.0
    mantissa, _, power = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    try:
        return float(int(digits)) * 10.0 ** (int(power or 0) - decimals)
    except (ValueError, OverflowError):
        return 0.0
