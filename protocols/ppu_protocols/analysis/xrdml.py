"""Powder scans from XRDML files, the format of Malvern Panalytical instruments.

Every element that changes an intensity, an angle or which scan is meant is used,
corrected for, refused, or named in the scan's notes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ppu_protocols.analysis.containers import (
    child,
    children,
    local_name,
    parse_markup,
    text_of,
)
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import (
    CU_K_ALPHA_1,
    CU_K_ALPHA_2,
    Scan,
    ScanFile,
    check_scan,
    finite,
)

if TYPE_CHECKING:
    from xml.etree import ElementTree

    from numpy.typing import NDArray

_NEEDED = "an XRDML file (.xrdml) with a 2theta scan and its counts is needed"
_POWDER_AXES: Final = ("Gonio", "2Theta", "2Theta-Omega", "Omega-2Theta")
_UNUSABLE: Final = ("Aborted", "Not finished", "In progress")
_XSI_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
# Of the monochromators' crystals, cos² 2theta for copper K-alpha by their spacing [Å].
_CRYSTAL_SPACINGS: Final = {"graphite": 3.355, "ge": 3.266, "germanium": 3.266}
_KNOWN_POINTS: Final = frozenset(
    {
        "positions",
        "commonCountingTime",
        "countingTimes",
        "counts",
        "intensities",
        "beamAttenuationFactors",
        "commonBeamAttenuationFactor",
        "divergenceCorrections",
        "commonDivergenceCorrection",
        "commonIntensityCorrection",
    }
)


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
        AnalysisError: As `read_xrdml`, and if there are several scans over different
            positions.
    """
    scans = parse_xrdml_file(content, source=source).scans
    first = scans[0]
    if len(scans) == 1:
        return first
    for other in scans[1:]:
        if other.two_theta.shape != first.two_theta.shape or not np.allclose(
            other.two_theta, first.two_theta, atol=1e-4
        ):
            raise AnalysisError(
                f"{source}: holds {len(scans)} scans over different positions; say "
                f"which (--scan 1 to {len(scans)})"
            )
    return replace(
        first,
        counts=np.sum([scan.counts for scan in scans], axis=0),
        variance=np.sum([scan.variance for scan in scans], axis=0),
        counting_time=sum(scan.counting_time for scan in scans),
        notes=(*first.notes, f"{len(scans)} repeats of the same positions added up"),
    )


def parse_xrdml_file(content: bytes, *, source: str) -> ScanFile:
    """Return every scan in the XRDML *content*, and why others are not usable.

    Raises:
        AnalysisError: If it is not XRDML, or no scan is usable.
    """
    root = parse_markup(content, source, _NEEDED)
    if local_name(root) != "xrdMeasurements":
        raise AnalysisError(
            f"{source}: an XML file of <{local_name(root)}>, not XRDML; {_NEEDED}"
        )
    scans: list[Scan] = []
    refused: list[str] = []
    sample_id = text_of(child(root, "sample", "id"))
    for measurement in children(root, "xrdMeasurement"):
        for scan in children(measurement, "scan"):
            try:
                scans.append(_read_scan(measurement, scan, sample_id, source))
            except AnalysisError as error:
                refused.append(str(error))
    if not scans and refused:
        raise AnalysisError(refused[0])
    if not scans:
        raise AnalysisError(f"{source}: holds no scan; {_NEEDED}")
    return ScanFile("XRDML", tuple(scans), tuple(refused))


def _read_scan(
    measurement: ElementTree.Element,
    scan: ElementTree.Element,
    sample_id: str,
    source: str,
) -> Scan:
    _check_kind(measurement, scan, source)
    points = _read_points(scan, source)
    notes = list(points.notes)
    wavelengths = _read_wavelengths(measurement, source)
    counts, variance = points.counts, points.variance
    slit = child(measurement, "incidentBeamPath", "divergenceSlit")
    if slit is not None and "automatic" in slit.get(_XSI_TYPE, "").lower():
        # An irradiated length that stays has an opening in proportion to sin(theta).
        sine = np.sin(np.radians(points.two_theta) / 2.0)
        factor = float(sine.mean()) / np.maximum(sine, 1e-3)
        counts, variance = counts * factor, variance * factor**2
        notes.append("automatic divergence slit: intensities divided by sin(theta)")
    polarization = 1.0
    for path in ("incidentBeamPath", "diffractedBeamPath"):
        optics = child(measurement, path)
        for element in () if optics is None else optics:
            name = local_name(element)
            if name == "monochromator":
                polarization = _polarization(element, wavelengths[0])
                notes.append(f"monochromator: polarization {polarization:.2f}")
            elif name == "xRayMirror":
                notes.append("X-ray mirror: taken as one that only makes parallel")
    radius = _optional_number(child(measurement, "incidentBeamPath", "radius"))
    order = np.argsort(points.two_theta, kind="stable")
    result = Scan(
        two_theta=points.two_theta[order],
        counts=counts[order],
        variance=variance[order],
        counting_time=points.counting_time,
        k_alpha_1=wavelengths[0],
        k_alpha_2=wavelengths[1],
        k_alpha_ratio=wavelengths[2],
        radius=radius if radius is not None and radius > 0 else 145.0,
        polarization=polarization,
        sample_id=sample_id,
        source=source,
        notes=tuple(notes),
    )
    check_scan(result, source)
    return result


def _check_kind(
    measurement: ElementTree.Element, scan: ElementTree.Element, source: str
) -> None:
    """Refuse what is no complete powder scan in reflection."""
    mode = measurement.get("sampleMode", "Reflection")
    if mode.lower() == "transmission":
        raise AnalysisError(
            f"{source}: measured in transmission; only reflection is understood"
        )
    for element in (measurement, scan):
        if element.get("status", "Completed") in _UNUSABLE:
            raise AnalysisError(
                f"{source}: the {local_name(element)} is "
                f"{element.get('status', '').lower()}; a completed one is needed"
            )
    axis = scan.get("scanAxis", "Gonio")
    if axis not in _POWDER_AXES:
        raise AnalysisError(
            f"{source}: a scan of {axis}, which is no powder pattern; "
            f"{', '.join(_POWDER_AXES)} are"
        )


def _polarization(monochromator: ElementTree.Element, wavelength: float) -> float:
    crystal = (
        text_of(child(monochromator, "crystal"))
        + monochromator.get("name", "")
        + monochromator.get(_XSI_TYPE, "")
    ).lower()
    spacing = next(
        (d for name, d in _CRYSTAL_SPACINGS.items() if name in crystal), 3.355
    )
    sine = min(wavelength / (2.0 * spacing), 1.0)
    return math.cos(2.0 * math.asin(sine)) ** 2


def _optional_number(element: ElementTree.Element | None) -> float | None:
    try:
        value = float(text_of(element))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(element: ElementTree.Element, source: str) -> NDArray[np.float64]:
    try:
        values = np.array(text_of(element).split(), dtype=np.float64)
    except ValueError as error:
        raise AnalysisError(
            f"{source}: <{local_name(element)}> holds something else than numbers "
            f"({error})"
        ) from error
    return finite(values, source)


@dataclass(frozen=True, eq=False)
class _Points:
    """Positions and intensities of one scan, corrected."""

    two_theta: NDArray[np.float64]
    counts: NDArray[np.float64]
    variance: NDArray[np.float64]
    counting_time: float
    notes: tuple[str, ...]


def _read_points(scan: ElementTree.Element, source: str) -> _Points:
    points = child(scan, "dataPoints")
    if points is None:
        raise AnalysisError(f"{source}: the scan holds no <dataPoints>; {_NEEDED}")
    intensities = child(points, "counts")
    is_raw = intensities is not None
    if intensities is None:
        intensities = child(points, "intensities")
    if intensities is None:
        raise AnalysisError(
            f"{source}: the scan holds neither <counts> nor <intensities>; {_NEEDED}"
        )
    values = _numbers(intensities, source)
    notes = [
        f"<{local_name(element)}> not understood and not used"
        for element in points
        if local_name(element) not in _KNOWN_POINTS
    ]
    time = _optional_number(child(points, "commonCountingTime"))
    counting_time = time if time is not None and time > 0.0 else 1.0
    if intensities.get("unit", "counts") == "cps":
        values = values * counting_time
        notes.append("rates multiplied by the counting time")
    factors = _factors(points, values.size, source)
    corrected = values * factors if is_raw else values
    if np.any(factors != 1.0):
        notes.append(
            "beam attenuation multiplied in"
            if is_raw
            else "beam attenuation is in the intensities already"
        )
    # A count of n is uncertain by the root of n, and of 0 by about 1.
    variance = np.maximum(corrected * factors, factors**2)
    times = child(points, "countingTimes")
    if times is not None:
        seconds = _numbers(times, source)
        if seconds.size != values.size or not (seconds > 0.0).all():
            raise AnalysisError(
                f"{source}: {seconds.size} counting times for {values.size} points, "
                "or not all above 0"
            )
        counting_time = float(seconds.mean())
        scale = counting_time / seconds
        corrected, variance = corrected * scale, variance * scale**2
        notes.append("intensities divided by the counting time of each point")
    notes += _divergence(points, source)
    return _Points(
        _read_positions(points, values.size, source),
        corrected,
        variance,
        counting_time,
        tuple(notes),
    )


def _factors(
    points: ElementTree.Element, n_points: int, source: str
) -> NDArray[np.float64]:
    """Return by how much the beam was attenuated at each point."""
    factors = np.ones(n_points)
    attenuation = child(points, "beamAttenuationFactors")
    common = child(points, "commonBeamAttenuationFactor")
    if attenuation is not None:
        factors = _numbers(attenuation, source)
        if factors.size != n_points:
            raise AnalysisError(
                f"{source}: {factors.size} attenuation factors for {n_points} points"
            )
    elif common is not None:
        value = _optional_number(common)
        if value is None:
            raise AnalysisError(f"{source}: the common attenuation is no number")
        factors = np.full(n_points, value)
    if not (np.isfinite(factors).all() and (factors > 0.0).all()):
        raise AnalysisError(f"{source}: attenuation factors must be above 0")
    return factors


def _divergence(points: ElementTree.Element, source: str) -> list[str]:
    """Refuse corrections whose arithmetic the format leaves open, if they matter."""
    each = child(points, "divergenceCorrections")
    if each is not None and np.ptp(_numbers(each, source)) > 0.0:
        raise AnalysisError(
            f"{source}: holds divergence corrections that vary with the angle, and the "
            "format does not say whether they are to be multiplied; export the scan "
            "with fixed divergence"
        )
    if each is not None or child(points, "commonDivergenceCorrection") is not None:
        return ["a common divergence correction changes no share and was left aside"]
    return []


def _read_positions(
    points: ElementTree.Element, n_points: int, source: str
) -> NDArray[np.float64]:
    for positions in children(points, "positions"):
        if positions.get("axis") != "2Theta":
            continue
        listed = child(positions, "listPositions")
        if listed is not None:
            return _numbers(listed, source)
        start = _optional_number(child(positions, "startPosition"))
        end = _optional_number(child(positions, "endPosition"))
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
    used = child(measurement, "usedWavelength")
    if used is None:
        return CU_K_ALPHA_1, CU_K_ALPHA_2, 0.5
    first = _optional_number(child(used, "kAlpha1"))
    second = _optional_number(child(used, "kAlpha2"))
    ratio = _optional_number(child(used, "ratioKAlpha2KAlpha1"))
    first = CU_K_ALPHA_1 if first is None else first
    second = first if second is None or second <= 0.0 else second
    ratio = 0.5 if ratio is None else ratio
    if not 0.3 < first < 3.0 or not 0.3 < second < 3.0 or not 0.0 <= ratio <= 1.0:
        raise AnalysisError(
            f"{source}: wavelengths of {first:g} and {second:g} Å with ratio {ratio:g};"
            " 0.3 to 3 Å and 0 to 1 are allowed"
        )
    return first, second, ratio
