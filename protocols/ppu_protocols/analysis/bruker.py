"""Powder scans from Bruker files: ``.raw`` of versions 3 and 4, and ``.brml``."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ppu_protocols.analysis.containers import (
    Archive,
    child,
    children,
    local_name,
    parse_markup,
    text_of,
)
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import (
    Scan,
    ScanFile,
    finite,
    made_scan,
    wavelengths_of,
)

if TYPE_CHECKING:
    from xml.etree import ElementTree

_NEEDED = "a Bruker file (.raw of version 3 or 4, .brml) with a 2theta scan is needed"
_MOST_POINTS: Final = 2_000_000
_XSI_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
# Places in the file header of version 3, and in the header of each of its ranges.
_V3_HEADER: Final = 712
_V3_RANGE: Final = 304
_V3_STATUS: Final = {3: "aborted", 4: "interrupted"}
# The preamble of version 4, and the fixed part of a range's header.
_V4_PREAMBLE: Final = 61
_V4_RANGE: Final = 160
_V4_COUPLED: Final = ("Locked Coupled", "Unlocked Coupled")
_V4_RANGE_KINDS: Final = (0, 160)
_V4_HARDWARE: Final = 30


class _Bytes:
    """Numbers at places of a binary file; a place outside is a refusal."""

    def __init__(self, content: bytes, source: str) -> None:
        self._content = content
        self._source = source

    def number(self, kind: str, place: int) -> Any:
        """Return the little-endian number of struct *kind* at *place*."""
        try:
            return struct.unpack_from("<" + kind, self._content, place)[0]
        except struct.error as error:
            raise AnalysisError(
                f"{self._source}: is cut off at byte {len(self._content)}; {_NEEDED}"
            ) from error

    def text(self, place: int, length: int) -> str:
        """Return text up to its first zero byte."""
        raw = self._content[place : place + length]
        return raw.split(b"\0")[0].decode("latin-1").strip()

    def floats(self, place: int, n_values: int, stride: int) -> np.ndarray:
        """Return the first float of each of *n_values* records of *stride* bytes."""
        end = place + n_values * stride
        if n_values > _MOST_POINTS or stride < 4 or end > len(self._content):
            raise AnalysisError(
                f"{self._source}: states {n_values} points of {stride} bytes, more "
                f"than it holds; {_NEEDED}"
            )
        records = np.frombuffer(self._content, np.uint8, n_values * stride, place)
        first = np.ascontiguousarray(records.reshape(n_values, stride)[:, :4])
        with np.errstate(invalid="ignore"):  # a broken file's floats mean nothing
            values = first.view("<f4").ravel().astype(np.float64)
        return finite(values, self._source)


def parse_raw(content: bytes, *, source: str) -> ScanFile:
    """Return the scans in a Bruker ``.raw`` file of version 3 or 4.

    Raises:
        AnalysisError: If it is of another version, cut off, or no scan is usable.
    """
    data = _Bytes(content, source)
    if content.startswith(b"RAW1.01"):
        return _parse_v3(data, source)
    if content.startswith(b"RAW4.00"):
        return _parse_v4(data, len(content), source)
    kind = content[:4].decode("latin-1")
    if kind in ("RAW ", "RAW2"):
        raise AnalysisError(
            f"{source}: a Bruker .raw file of version {1 if kind == 'RAW ' else 2}, "
            f"which is not read; {_NEEDED}"
        )
    raise AnalysisError(f"{source}: not a Bruker .raw file; {_NEEDED}")


def _parse_v3(data: _Bytes, source: str) -> ScanFile:
    status = data.number("I", 8)
    if status in _V3_STATUS:
        raise AnalysisError(
            f"{source}: the measurement is {_V3_STATUS[status]}; a completed one is "
            "needed"
        )
    n_ranges = data.number("I", 12)
    sample = data.text(326, 60)
    radius = float(data.number("f", 564))
    waves = (data.number("d", 624), data.number("d", 632), data.number("d", 648))
    place = _V3_HEADER
    scans: list[Scan] = []
    refused: list[str] = []
    for _ in range(min(n_ranges, 1000)):
        length = data.number("I", place)
        if length != _V3_RANGE:
            raise AnalysisError(
                f"{source}: a range header of {length} bytes, not {_V3_RANGE}; "
                f"{_NEEDED}"
            )
        n_points = data.number("I", place + 4)
        start, step = data.number("d", place + 16), data.number("d", place + 176)
        time = float(data.number("f", place + 192))
        record = data.number("I", place + 252)
        extra = data.number("I", place + 256)
        stride = record if 4 <= record <= 64 else 4
        values = data.floats(place + length + extra, n_points, stride)
        place += length + extra + n_points * stride
        try:
            scans.append(
                _made(start, step, values, time, waves, radius, sample, source)
            )
        except AnalysisError as error:
            refused.append(str(error))
    return _file("Bruker .raw, version 3", scans, refused, source)


def _parse_v4(data: _Bytes, size: int, source: str) -> ScanFile:
    place = _V4_PREAMBLE
    waves = (0.0, 0.0, 0.5)
    scans: list[Scan] = []
    refused: list[str] = []
    while place + 8 <= size:
        kind = data.number("I", place)
        if kind in _V4_RANGE_KINDS:
            place = _v4_range(data, place, waves, scans, refused, source)
            continue
        length = data.number("I", place + 4)
        if length < 8:
            raise AnalysisError(
                f"{source}: a segment of {length} bytes at byte {place}; {_NEEDED}"
            )
        if kind == _V4_HARDWARE and length >= 120:
            waves = tuple(data.number("d", place + at) for at in (80, 88, 104))
        place += length
    return _file("Bruker .raw, version 4", scans, refused, source)


def _v4_range(
    data: _Bytes,
    place: int,
    waves: tuple[float, ...],
    scans: list[Scan],
    refused: list[str],
    source: str,
) -> int:
    """Read the range at *place*; return where the next segment begins."""
    scan_type = data.text(place + 32, 24)
    start, step = data.number("d", place + 72), data.number("d", place + 80)
    n_points = data.number("I", place + 88)
    # Seconds; some writers give milliseconds, which no powder scan has thousands of.
    time = float(data.number("f", place + 92))
    time = time / 1000.0 if time >= 1000.0 else time
    stride, extra = data.number("I", place + 136), data.number("I", place + 140)
    if stride > 4096 or extra > 10_000_000:
        raise AnalysisError(f"{source}: a range with impossible sizes; {_NEEDED}")
    begin = place + _V4_RANGE + extra
    values = data.floats(begin, n_points, max(stride, 4))
    if scan_type not in _V4_COUPLED:
        refused.append(
            f"{source}: a scan of kind {scan_type!r}, which is no powder pattern; "
            f"{', '.join(_V4_COUPLED)} are"
        )
    else:
        try:
            scans.append(_made(start, step, values, time, waves, 0.0, "", source))
        except AnalysisError as error:
            refused.append(str(error))
    return int(begin + n_points * max(stride, 4))


def _made(
    start: float,
    step: float,
    values: np.ndarray,
    time: float,
    waves: tuple[float, ...],
    radius: float,
    sample: str,
    source: str,
) -> Scan:
    if not (0.0 <= start < 180.0 and 1e-5 < step < 5.0):
        raise AnalysisError(f"{source}: angles from {start:g} in steps of {step:g} deg")
    time = time if 0.0 < time < 1e6 else 0.0
    notes = [f"{time:g} s per point" if time > 0.0 else "counting time not stated"]
    whole = np.abs(values - np.round(values)) < 1e-3
    variance = np.maximum(values, 1.0)
    if not whole.all():
        if time > 0.0 and bool(
            (np.abs(values * time - np.round(values * time)) < 0.02).mean() > 0.99
        ):
            values = values * time
            variance = np.maximum(values, 1.0)
            notes.append("rates times the counting time: counts")
        else:
            notes.append("intensities are not whole; taken as counts all the same")
    k_alpha_1, k_alpha_2 = wavelengths_of(str(waves[0]), str(waves[1]), source, notes)
    ratio = waves[2] if 0.0 < waves[2] <= 1.0 else 0.5
    return made_scan(
        start + step * np.arange(values.size),
        values,
        variance,
        source=source,
        notes=notes,
        counting_time=time if time > 0.0 else 1.0,
        k_alpha_1=k_alpha_1,
        k_alpha_2=k_alpha_2,
        k_alpha_ratio=float(ratio),
        radius=radius if 50.0 < radius < 1000.0 else 145.0,
        sample_id=sample,
    )


def _file(kind: str, scans: list[Scan], refused: list[str], source: str) -> ScanFile:
    if not scans:
        raise AnalysisError(
            refused[0] if refused else f"{source}: holds no scan; {_NEEDED}"
        )
    return ScanFile(kind, tuple(scans), tuple(refused))


def parse_brml(content: bytes, *, source: str) -> ScanFile:
    """Return the scans in a ``.brml`` archive.

    Columns are found by the views that the file declares, never counted. Intensities
    have the absorber in them already; it only makes them less sure.

    Raises:
        AnalysisError: If it is none, is broken, or no scan is usable.
    """
    archive = Archive(content, source)
    names = [
        name
        for name in archive.names
        if name.rpartition("/")[2].startswith("RawData") and name.endswith(".xml")
    ]
    if not names:
        raise AnalysisError(f"{source}: holds no RawData0.xml; {_NEEDED}")
    names.sort(key=lambda name: (len(name), name))
    scans: list[Scan] = []
    refused: list[str] = []
    for name in names:
        root = parse_markup(archive.read(name), source, _NEEDED)
        routes = [e for e in root.iter() if local_name(e) == "DataRoute"]
        for route in routes:
            if route.get("RouteFlag", "Measured") not in ("Measured", "Final"):
                continue
            try:
                scans.append(_route(root, route, source))
            except AnalysisError as error:
                refused.append(str(error))
    return _file("Bruker .brml", scans, refused, source)


def _route(root: ElementTree.Element, route: ElementTree.Element, source: str) -> Scan:
    angle, intensity, absorber = _columns(route, source)
    rows = [text_of(datum).split(",") for datum in children(route, "Datum")]
    try:
        table = np.array(rows, dtype=np.float64)
        finite(table, source)
        angles, values = table[:, angle], table[:, intensity]
        factors = np.ones_like(values) if absorber is None else table[:, absorber]
    except (ValueError, IndexError) as error:
        raise AnalysisError(
            f"{source}: rows of data do not fit the declared columns ({error}); "
            f"{_NEEDED}"
        ) from error
    if not (factors > 0.0).all():
        raise AnalysisError(f"{source}: absorption factors must be above 0")
    notes = []
    if np.any(factors != 1.0):
        notes.append("the absorber is in the intensities already, and in their noise")
    waves = {local_name(e): e.get("Value", text_of(e)) for e in root.iter()}
    time = _optional(text_of(child(route, "ScanInformation", "TimePerStep")))
    k_alpha_1, k_alpha_2 = wavelengths_of(
        waves.get("WaveLengthAlpha1"), waves.get("WaveLengthAlpha2"), source, notes
    )
    return made_scan(
        angles,
        values,
        np.maximum(values * factors, factors**2),
        source=source,
        notes=notes,
        counting_time=time if time is not None and time > 0.0 else 1.0,
        k_alpha_1=k_alpha_1,
        k_alpha_2=k_alpha_2,
    )


def _columns(route: ElementTree.Element, source: str) -> tuple[int, int, int | None]:
    """Return the columns of 2theta, of the intensity, and of the absorber if any."""
    views = child(route, "DataViews")
    if views is None:
        raise AnalysisError(f"{source}: declares no columns; {_NEEDED}")
    angle = intensity = absorber = None
    for view in children(views, "RawDataView"):
        kind = view.get(_XSI_TYPE, "")
        first, width = _whole(view.get("Start")), _whole(view.get("Length"))
        if kind.startswith("Recorded"):
            if width != 1:
                raise AnalysisError(
                    f"{source}: every point is a frame of {width} pixels, not one "
                    f"intensity; {_NEEDED}"
                )
            intensity = first if intensity is None else intensity
        elif view.get("LogicName") == "AbsorptionFactor":
            absorber = first
        elif kind.startswith("Varying"):
            angle = _angle_column(view, first) if angle is None else angle
    if angle is None or intensity is None:
        raise AnalysisError(
            f"{source}: no column of 2theta and intensity, so no powder pattern; "
            f"{_NEEDED}"
        )
    return angle, intensity, absorber


def _angle_column(view: ElementTree.Element, first: int) -> int | None:
    fields = [e for e in view.iter() if local_name(e) == "FieldDefinitions"]
    for offset, field in enumerate(fields):
        named = (field.get("FieldName") or field.get("AxisId") or "").strip()
        if named == "TwoTheta":
            return first + offset
    return None


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _optional(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
