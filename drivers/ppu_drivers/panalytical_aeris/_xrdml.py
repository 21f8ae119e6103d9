"""Scans as XRDML files tell them, and whether a detector made them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ppu.core.errors import MalformedReply

__all__ = [
    "PowderScan",
    "find_frozen",
    "parse_scan",
]

_LARGEST_FILE: Final = 32 * 1024 * 1024
_MOST_POINTS: Final = 1_000_000
_FROZEN_BY_CHANCE: Final = 1e-9
"""How often a sound detector may look frozen, at most, in one scan."""


@dataclass(frozen=True, eq=False)
class PowderScan:
    """A scan as its file tells it.

    Attributes:
        two_theta: Detector angles, shape ``(n,)`` [deg].
        counts: Counts, shape ``(n,)``.
        counting_time_s: Time that each point was counted [s].
        k_alpha_1_angstrom: Wavelength of K-alpha 1.
        k_alpha_2_angstrom: Wavelength of K-alpha 2.
        sample_id: What the file calls the sample.
        instrument_id: Serial number of the instrument, None if it is not told.
    """

    two_theta: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    counting_time_s: float
    k_alpha_1_angstrom: float
    k_alpha_2_angstrom: float
    sample_id: str
    instrument_id: str | None


def parse_scan(content: bytes) -> PowderScan:
    """Return the one scan in the XRDML *content*.

    Raises:
        MalformedReply: If it is not the XML of one complete 2theta scan.
    """
    if len(content) > _LARGEST_FILE:
        raise MalformedReply(f"a file of {len(content)} bytes is no powder scan")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise MalformedReply("the file declares a document type, which XRDML never has")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - entities refused above
        return _scan_of(root)
    except (ElementTree.ParseError, LookupError, ValueError) as exc:
        raise MalformedReply(f"no XRDML file of one scan: {exc}") from exc


def _scan_of(root: ElementTree.Element) -> PowderScan:
    scans = root.findall("{*}xrdMeasurement/{*}scan")
    if len(scans) != 1:
        raise ValueError(f"it holds {len(scans)} scans")
    (scan,) = scans
    if scan.get("status") != "Completed":
        raise ValueError(f"its status is {scan.get('status')}")
    points = _child(scan, "{*}dataPoints")
    if points.find("{*}beamAttenuationFactors") is not None:
        raise ValueError("its beam was attenuated, which this driver cannot undo")
    # Versions before 1.5 call them intensities.
    column = points.find("{*}counts")
    if column is None:
        column = _child(points, "{*}intensities")
    _check_unit(column, "counts")
    counts = np.array((column.text or "").split(), dtype=np.float64)
    if not 2 <= counts.size <= _MOST_POINTS:
        raise ValueError(f"it has {counts.size} points")
    if not np.all(np.isfinite(counts)) or np.any(counts < 0):
        raise ValueError("a count is negative or no number")
    (positions,) = (
        item for item in points.findall("{*}positions") if item.get("axis") == "2Theta"
    )
    _check_unit(positions, "deg")
    first = _number(positions, "{*}startPosition")
    last = _number(positions, "{*}endPosition")
    if not first < last:
        raise ValueError(f"it goes from {first} to {last} deg")
    wavelength = _child(root, "{*}xrdMeasurement/{*}usedWavelength")
    instrument = root.findtext(".//{*}instrumentID")
    return PowderScan(
        two_theta=np.linspace(first, last, counts.size),
        counts=counts,
        counting_time_s=_number(points, "{*}commonCountingTime", "seconds"),
        k_alpha_1_angstrom=_number(wavelength, "{*}kAlpha1", "Angstrom"),
        k_alpha_2_angstrom=_number(wavelength, "{*}kAlpha2", "Angstrom"),
        sample_id=_text(root, "{*}sample/{*}id"),
        instrument_id=None if instrument is None else instrument.strip(),
    )


def _child(element: ElementTree.Element, path: str) -> ElementTree.Element:
    child = element.find(path)
    if child is None:
        raise LookupError(f"there is no {path.replace('{*}', '')}")
    return child


def _text(element: ElementTree.Element, path: str) -> str:
    return (_child(element, path).text or "").strip()


def _check_unit(element: ElementTree.Element, wanted: str) -> None:
    """Refuse a number in another unit; where none is said, the format has this one."""
    unit = element.get("unit", wanted)
    if unit != wanted:
        name = element.tag.rpartition("}")[2]
        raise ValueError(f"its {name} are in {unit!r}, not in {wanted}")


def _number(element: ElementTree.Element, path: str, unit: str | None = None) -> float:
    if unit is not None:
        _check_unit(_child(element, path), unit)
    value = float(_text(element, path))
    if not math.isfinite(value):
        raise ValueError(f"{path.replace('{*}', '')} is {value}")
    return value


def find_frozen(counts: npt.NDArray[np.float64]) -> slice | None:
    """Return where a scan repeats a count longer than counting statistics allow.

    Independent counts of mean m are *v* with a probability of at most that of the
    mode at m = v, ``exp(-v) v**v / v!``. How often 0 repeats depends on m: then a tenth
    of the median of all other points stands for it.

    Args:
        counts: Shape ``(n,)``, none negative.

    Returns:
        The longest repetition if it is too long, else None.

    Example:
        >>> find_frozen(np.array([3.0, 5.0, 4.0, *[4.0] * 40, 6.0]))
        slice(2, 43, None)
    """
    edges = np.flatnonzero(np.diff(counts) != 0) + 1
    starts, stops = np.r_[0, edges], np.r_[edges, counts.size]
    longest = int(np.argmax(stops - starts))
    run = slice(int(starts[longest]), int(stops[longest]))
    n_repeated, value = run.stop - run.start - 1, float(counts[run.start])
    if n_repeated + 1 == counts.size and value == 0:
        return run  # there is always a background
    if value > 0:
        log_chance = value * math.log(value) - value - math.lgamma(value + 1)
    else:
        log_chance = -0.1 * float(np.median(np.delete(counts, run)))
    limit = math.log(_FROZEN_BY_CHANCE / counts.size)
    return run if n_repeated * log_chance < limit else None
