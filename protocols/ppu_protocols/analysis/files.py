"""Scans from files of any format that is understood here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ppu_protocols.analysis.bruker import parse_brml, parse_raw
from ppu_protocols.analysis.columns import parse_columns
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.gsas import parse_fxye
from ppu_protocols.analysis.pdcif import parse_pdcif
from ppu_protocols.analysis.rigaku import parse_ras, parse_rasx
from ppu_protocols.analysis.xrdml import parse_xrdml, parse_xrdml_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from ppu_protocols.analysis.scan import Scan, ScanFile

LARGEST_FILE: Final = 200_000_000
"""Bytes of a file of scans at most."""

FORMATS: Final[dict[str, str]] = {
    ".xrdml": "Malvern Panalytical XRDML",
    ".ras": "Rigaku text",
    ".rasx": "Rigaku archive",
    ".raw": "Bruker binary, versions 3 and 4",
    ".brml": "Bruker archive",
    ".fxye": "GSAS with errors",
    ".cif": "powder CIF",
    ".xy": "columns of angle and intensity",
    ".xye": "columns with standard deviations",
    ".dat": "columns",
    ".csv": "columns",
    ".txt": "columns",
    ".prn": "columns",
}
"""Endings that are read, and what they hold."""


def parse_file(content: bytes, *, name: str) -> ScanFile:
    """Return the scans in the *content* of a file called *name*.

    Raises:
        AnalysisError: If the format is not known, or its reader refuses the file.
    """
    ending = Path(name).suffix.lower()
    readers: dict[str, Callable[[bytes], ScanFile]] = {
        ".xrdml": lambda c: parse_xrdml_file(c, source=name),
        ".ras": lambda c: parse_ras(c, source=name),
        ".rasx": lambda c: parse_rasx(c, source=name),
        ".raw": lambda c: parse_raw(c, source=name),
        ".brml": lambda c: parse_brml(c, source=name),
        ".fxye": lambda c: parse_fxye(c, source=name),
        ".cif": lambda c: parse_pdcif(c, source=name),
    }
    if ending in readers:
        return readers[ending](content)
    if ending in FORMATS:
        return parse_columns(_text(content, name), source=name)
    raise AnalysisError(
        f"{name}: the format {ending or 'of a file without ending'} is not known; "
        f"{', '.join(FORMATS)} are read"
    )


def read_scan(path: Path | str, number: int | None = None) -> Scan:
    """Read one scan from *path*.

    Args:
        path: The file.
        number: Which of several, from 1; repeats in an XRDML file are added up
            without it.

    Raises:
        AnalysisError: If the file is missing, of no known format or broken, or holds
            several scans and *number* does not say which.
    """
    path = Path(path)
    content = _bytes(path)
    if path.suffix.lower() == ".xrdml" and number is None:
        return parse_xrdml(content, source=str(path))
    found = parse_file(content, name=str(path))
    if number is None and len(found.scans) == 1:
        return found.scans[0]
    if number is None or not 1 <= number <= len(found.scans):
        listed = "; ".join(
            f"{index}: {scan.two_theta[0]:g} to {scan.two_theta[-1]:g} deg, "
            f"{scan.two_theta.size} points"
            for index, scan in enumerate(found.scans, 1)
        )
        raise AnalysisError(
            f"{path}: holds {len(found.scans)} scans ({listed}); choose one with "
            f"--scan 1 to {len(found.scans)}"
        )
    return found.scans[number - 1]


def describe(scan: Scan) -> str:
    """Return in one line what a reader made of a file."""
    step = float(np.median(np.diff(scan.two_theta)))
    said = [
        f"{scan.two_theta.size} points from {scan.two_theta[0]:.3f} to "
        f"{scan.two_theta[-1]:.3f} deg in steps of {step:.4f}",
        f"wavelength {scan.k_alpha_1:.6f} Å",
        *scan.notes,
    ]
    return "; ".join(said)


def _text(content: bytes, name: str) -> str:
    """Return *content* as text, whatever a spreadsheet made of it."""
    for mark, encoding in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"\xef\xbb\xbf", "utf-8-sig"),
    ):
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError as error:
                raise AnalysisError(f"{name}: is no text ({error})") from error
    if b"\0" in content[:4096]:
        raise AnalysisError(f"{name}: is binary, no columns of text")
    return content.decode("utf-8", errors="replace")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(
            f"{path}: cannot be read ({reason}); {', '.join(FORMATS)} are read"
        ) from error
    if len(content) > LARGEST_FILE:
        raise AnalysisError(
            f"{path}: larger than {LARGEST_FILE // 1_000_000} MB, no powder scan"
        )
    return content
