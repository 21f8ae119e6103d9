"""Powder scans from Rigaku files: ``.ras`` text and ``.rasx`` archives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from ppu_protocols.analysis.containers import Archive, parse_markup, text_of
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import ScanFile, finite, made_scan, wavelengths_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis.scan import Scan

_NEEDED = "a Rigaku file (.ras, .rasx) with a 2theta scan is needed"
_PROFILE: Final = re.compile(r"^Data(\d+)/Profile\d*\.txt$")
_NO_POWDER: Final = ("omega", "phi", "chi", "tth-chi", "rs", "zs", "ttx")


def parse_ras(content: bytes, *, source: str) -> ScanFile:
    """Return the scans in the text of a ``.ras`` file.

    Raises:
        AnalysisError: If it is none, is cut off, or no scan is usable.
    """
    lines = content.decode("utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "*RAS_DATA_START":
        raise AnalysisError(f"{source}: does not begin as a .ras file; {_NEEDED}")
    header: dict[str, str] = {}
    rows: list[str] | None = None
    scans: list[Scan] = []
    refused: list[str] = []
    for line in lines[1:]:
        word = line.strip()
        if word == "*RAS_HEADER_START":
            header = {}
        elif word == "*RAS_INT_START":
            rows = []
        elif word == "*RAS_INT_END" and rows is not None:
            try:
                scans.append(_scan(header, rows, source))
            except AnalysisError as error:
                refused.append(str(error))
            rows = None
        elif rows is not None:
            rows.append(word)
        elif word.startswith("*"):
            name, _, value = word[1:].partition(" ")
            header[name] = value.strip().strip('"')
    if rows is not None:
        raise AnalysisError(f"{source}: the last scan is cut off; {_NEEDED}")
    return _file("Rigaku .ras", scans, refused, source)


def parse_rasx(content: bytes, *, source: str) -> ScanFile:
    """Return the scans in a ``.rasx`` archive.

    Raises:
        AnalysisError: If it is none, is broken, or no scan is usable.
    """
    archive = Archive(content, source)
    profiles = sorted(
        (int(match[1]), name)
        for name in archive.names
        if (match := _PROFILE.match(name))
    )
    if not profiles:
        raise AnalysisError(f"{source}: holds no Data0/Profile0.txt; {_NEEDED}")
    scans: list[Scan] = []
    refused: list[str] = []
    for number, name in profiles:
        rows = archive.read(name).decode("utf-8-sig", errors="replace").splitlines()
        conditions = next(
            (
                other
                for other in archive.names
                # The maker's spelling, and a right one in case it is mended.
                if re.match(rf"^Data{number}/Mea?surementConditions\d*\.xml$", other)
            ),
            None,
        )
        header = {}
        if conditions is not None:
            root = parse_markup(archive.read(conditions), source, _NEEDED)
            header = _conditions(root)
        try:
            scans.append(_scan(header, [row for row in rows if row.strip()], source))
        except AnalysisError as error:
            refused.append(str(error))
    return _file("Rigaku .rasx", scans, refused, source)


def _conditions(root: object) -> dict[str, str]:
    """Return what a conditions file says, under the names of a ``.ras`` header."""
    header: dict[str, str] = {}
    names = {
        "AxisName": "MEAS_SCAN_AXIS_X",
        "Start": "MEAS_SCAN_START",
        "Step": "MEAS_SCAN_STEP",
        "Speed": "MEAS_SCAN_SPEED",
        "SpeedUnit": "MEAS_SCAN_SPEED_UNIT",
        "IntensityUnit": "MEAS_SCAN_UNIT_Y",
        "WavelengthKalpha1": "HW_XG_WAVE_LENGTH_ALPHA1",
        "WavelengthKalpha2": "HW_XG_WAVE_LENGTH_ALPHA2",
        "TargetName": "HW_XG_TARGET_NAME",
        "SampleName": "FILE_SAMPLE",
    }
    for element in root.iter():  # type: ignore[attr-defined] # an Element, whose class the stubs call private
        name = str(element.tag).rpartition("}")[2]
        if name in names and names[name] not in header:
            header[names[name]] = text_of(element)
    return header


def _file(kind: str, scans: list[Scan], refused: list[str], source: str) -> ScanFile:
    if not scans:
        raise AnalysisError(
            refused[0] if refused else f"{source}: holds no scan; {_NEEDED}"
        )
    return ScanFile(kind, tuple(scans), tuple(refused))


def _scan(header: dict[str, str], rows: list[str], source: str) -> Scan:
    axis = header.get("MEAS_SCAN_AXIS_X", "")
    notes = []
    if axis.lower() in _NO_POWDER:
        raise AnalysisError(
            f"{source}: a scan of {axis}, which is no powder pattern; {_NEEDED}"
        )
    if "theta" not in axis.lower():
        notes.append(f"scan axis {axis or 'not stated'}, taken as 2theta")
    table = _table(rows, source)
    angles, values = table[:, 0], table[:, 1]
    unit = header.get("MEAS_SCAN_UNIT_Y", "")
    time = _seconds(header)
    counts, variance, said = _counted(values, unit, time)
    notes.append(said)
    if table.shape[1] > 2 and np.ptp(table[:, 2]) > 0.0:
        first, last = angles[table[:, 2] != table[0, 2]][[0, -1]]
        raise AnalysisError(
            f"{source}: the attenuator changes between {first:g} and {last:g} deg, and "
            "the format does not say whether intensities are corrected; export the "
            "scan corrected, as .xy"
        )
    wavelengths = wavelengths_of(
        header.get("HW_XG_WAVE_LENGTH_ALPHA1"),
        header.get("HW_XG_WAVE_LENGTH_ALPHA2"),
        source,
        notes,
    )
    return made_scan(
        angles,
        counts,
        variance,
        source=source,
        notes=notes,
        counting_time=time or 1.0,
        k_alpha_1=wavelengths[0],
        k_alpha_2=wavelengths[1],
        sample_id=header.get("FILE_SAMPLE", "").strip(),
    )


def _table(rows: list[str], source: str) -> NDArray[np.float64]:
    try:
        table = np.array([row.split() for row in rows], dtype=np.float64)
    except ValueError as error:
        raise AnalysisError(
            f"{source}: rows of intensities are not two or three numbers each "
            f"({error}); {_NEEDED}"
        ) from error
    if table.ndim != 2 or table.shape[1] not in (2, 3):
        raise AnalysisError(f"{source}: holds no rows of intensities; {_NEEDED}")
    return finite(table, source)


def _seconds(header: dict[str, str]) -> float | None:
    """Return the counting time of a point, from step and speed [s]."""
    unit = header.get("MEAS_SCAN_SPEED_UNIT", "").lower()
    try:
        speed = float(header["MEAS_SCAN_SPEED"])
        step = float(header["MEAS_SCAN_STEP"])
    except (KeyError, ValueError):
        return None
    if not (speed > 0.0 and step > 0.0):
        return None
    if unit in ("deg/min", "deg./min", "deg./min."):
        return 60.0 * step / speed
    return speed if unit in ("sec", "s", "sec.") else None


def _counted(
    values: NDArray[np.float64], unit: str, time: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return counts, their variance and how they were found.

    The unit in the header is a claim that real files contradict; arithmetic decides.
    """
    if _whole(values):
        return values, np.maximum(values, 1.0), "intensities are whole: counts"
    if time is not None and _whole(values * time):
        counts = values * time
        return counts, np.maximum(counts, 1.0), "rates times the counting time: counts"
    said = f"intensities ({unit or 'no unit'}) are no counts; noise estimated"
    return values, _noise(values), said


def _whole(values: NDArray[np.float64]) -> bool:
    return bool(np.mean(np.abs(values - np.round(values)) < 2e-3) > 0.99)


def _noise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return variances proportional to *values*, by the scatter of neighbours."""
    second = values[:-2] - 2.0 * values[1:-1] + values[2:]
    level = np.maximum(np.abs(values[1:-1]), 1e-300)
    ratio = float(np.median(second**2 / (6.0 * level))) / 0.4549 if level.size else 1.0
    largest = float(np.abs(values).max(initial=0.0))
    return np.maximum(values, 1e-3 * largest + 1e-12) * max(ratio, 1e-9)
