"""Scans from files of any format that is understood here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ppu_protocols.analysis.columns import parse_columns
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.xrdml import parse_xrdml

if TYPE_CHECKING:
    from ppu_protocols.analysis.scan import Scan


def read_scan(path: Path | str) -> Scan:
    """Read one scan from *path*.

    Args:
        path: The file.

    Raises:
        AnalysisError: If the file is missing or broken.
    """
    content, path = _bytes(Path(path)), Path(path)
    if path.suffix.lower() == ".xrdml":
        return parse_xrdml(content, source=str(path))
    return parse_columns(content.decode("utf-8"), source=str(path)).scans[0]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(f"{path}: cannot be read ({reason})") from error
