"""Powder scans from XRDML files, the format of Malvern Panalytical instruments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import CU_K_ALPHA_1, CU_K_ALPHA_2, Scan, check_scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEEDED = "an XRDML file (.xrdml) with a 2theta scan and its counts is needed"


def read_xrdml(path: Path | str) -> Scan:
    """Read the scan of an XRDML file.

    Positions may be a start and an end or a list; intensities may be ``counts`` (raw,
    multiplied here by the beam attenuation factors if there are any) or
    ``intensities`` (already multiplied). Repeated scans of the same positions are
    added up.

    Raises:
        AnalysisError: If the file is missing, is not XRDML, or holds no usable scan.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(f"{path}: cannot be read ({reason}); {_NEEDED}") from error
    return parse_xrdml(content, source=str(path))


def parse_xrdml(content: bytes, *, source: str) -> Scan:
    """Return the scan in the XRDML *content*; *source* appears in messages.

    Raises:
        AnalysisError: As `read_xrdml`.
    """
    plain = content.replace(b"\0", b"")  # as it reads in UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        # The format has no such declaration, and expanding one can exhaust memory.
        raise AnalysisError(f"{source}: declares a document type; {_NEEDED}")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 # entities refused above
    except (ElementTree.ParseError, ValueError) as error:
        raise AnalysisError(f"{source}: not XML ({error}); {_NEEDED}") from error
    if _local(root) != "xrdMeasurements":
        raise AnalysisError(
            f"{source}: an XML file of <{_local(root)}>, not XRDML; {_NEEDED}"
        )
    measurement = _find(root, "xrdMeasurement")
    scans = [] if measurement is None else _children(measurement, "scan")
    if measurement is None or not scans:
        raise AnalysisError(f"{source}: holds no scan; {_NEEDED}")
    parts = [_read_points(scan, source) for scan in scans]
    first = parts[0]
    for other in parts[1:]:
        if other[0].shape != first[0].shape or not np.allclose(
            other[0], first[0], atol=1e-4
        ):
            raise AnalysisError(
                f"{source}: holds {len(parts)} scans over different positions; one "
                "scan, or repeats of one, is needed"
            )
    two_theta = first[0]
    order = np.argsort(two_theta, kind="stable")
    wavelengths = _read_wavelengths(measurement, source)
    sample = _find(root, "sample")
    radius = _optional_number(_find_path(measurement, "incidentBeamPath", "radius"))
    scan = Scan(
        two_theta=two_theta[order],
        counts=np.sum([part[1] for part in parts], axis=0)[order],
        variance=np.sum([part[2] for part in parts], axis=0)[order],
        counting_time=sum(part[3] for part in parts),
        k_alpha_1=wavelengths[0],
        k_alpha_2=wavelengths[1],
        k_alpha_ratio=wavelengths[2],
        radius=radius if radius is not None and radius > 0 else 145.0,
        sample_id="" if sample is None else _text(_find(sample, "id")),
        source=source,
    )
    check_scan(scan, source)
    return scan


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if _local(child) == name]


def _find(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    found = _children(element, name)
    return found[0] if found else None


def _find_path(element: ElementTree.Element, *names: str) -> ElementTree.Element | None:
    found: ElementTree.Element | None = element
    for name in names:
        found = None if found is None else _find(found, name)
    return found


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None or element.text is None else element.text.strip()


def _optional_number(element: ElementTree.Element | None) -> float | None:
    try:
        value = float(_text(element))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(element: ElementTree.Element, source: str) -> NDArray[np.float64]:
    try:
        return np.array(_text(element).split(), dtype=np.float64)
    except ValueError as error:
        raise AnalysisError(
            f"{source}: <{_local(element)}> holds something else than numbers ({error})"
        ) from error


def _read_points(
    scan: ElementTree.Element, source: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Return positions, intensities, their variance and the counting time."""
    points = _find(scan, "dataPoints")
    if points is None:
        raise AnalysisError(f"{source}: the scan holds no <dataPoints>; {_NEEDED}")
    intensities = _find(points, "counts")
    is_raw = intensities is not None
    if intensities is None:
        intensities = _find(points, "intensities")
    if intensities is None:
        raise AnalysisError(
            f"{source}: the scan holds neither <counts> nor <intensities>; {_NEEDED}"
        )
    values = _numbers(intensities, source)
    time = _optional_number(_find(points, "commonCountingTime"))
    counting_time = time if time is not None and time > 0.0 else 1.0
    if intensities.get("unit", "counts") == "cps":
        values = values * counting_time
    factors = np.ones_like(values)
    attenuation = _find(points, "beamAttenuationFactors")
    if attenuation is not None:
        factors = _numbers(attenuation, source)
        if factors.shape != values.shape:
            raise AnalysisError(
                f"{source}: {factors.size} attenuation factors for {values.size} points"
            )
    corrected = values * factors if is_raw else values
    variance = np.maximum(corrected * factors, factors**2)
    return (
        _read_positions(points, values.size, source),
        corrected,
        variance,
        counting_time,
    )


def _read_positions(
    points: ElementTree.Element, n_points: int, source: str
) -> NDArray[np.float64]:
    for positions in _children(points, "positions"):
        if positions.get("axis") != "2Theta":
            continue
        listed = _find(positions, "listPositions")
        if listed is not None:
            return _numbers(listed, source)
        start = _optional_number(_find(positions, "startPosition"))
        end = _optional_number(_find(positions, "endPosition"))
        if start is not None and end is not None and end > start:
            return np.linspace(start, end, n_points)
        raise AnalysisError(
            f"{source}: the 2Theta positions are incomplete; <startPosition> below "
            "<endPosition>, or <listPositions>, is needed"
        )
    raise AnalysisError(f"{source}: the scan states no 2Theta positions; {_NEEDED}")


def _read_wavelengths(
    measurement: ElementTree.Element, source: str
) -> tuple[float, float, float]:
    used = _find(measurement, "usedWavelength")
    if used is None:
        return CU_K_ALPHA_1, CU_K_ALPHA_2, 0.5
    first = _optional_number(_find(used, "kAlpha1"))
    second = _optional_number(_find(used, "kAlpha2"))
    ratio = _optional_number(_find(used, "ratioKAlpha2KAlpha1"))
    first = CU_K_ALPHA_1 if first is None else first
    second = first if second is None or second <= 0.0 else second
    ratio = 0.5 if ratio is None else ratio
    if not 0.3 < first < 3.0 or not 0.3 < second < 3.0 or not 0.0 <= ratio <= 1.0:
        raise AnalysisError(
            f"{source}: wavelengths of {first:g} and {second:g} Å with ratio {ratio:g};"
            " 0.3 to 3 Å and 0 to 1 are allowed"
        )
    return first, second, ratio
