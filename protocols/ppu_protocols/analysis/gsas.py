"""Powder scans from GSAS files with errors: ``.fxye``."""

from __future__ import annotations

import numpy as np

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import ScanFile, finite, made_scan

_NEEDED = (
    "a GSAS file whose BANK line ends with FXYE, and rows of centidegrees, intensity "
    "and error are needed"
)


def parse_fxye(content: bytes, *, source: str) -> ScanFile:
    """Return the banks of a ``.fxye`` file.

    Raises:
        AnalysisError: If it is none, is cut off, or no bank is usable.
    """
    lines = content.decode("utf-8", errors="replace").splitlines()
    title = lines[0].strip() if lines else ""
    scans, refused = [], []
    place = 0
    while place < len(lines):
        words = lines[place].split()
        place += 1
        if not words or words[0].upper() != "BANK":
            continue
        if words[-1].upper() != "FXYE":
            refused.append(f"{source}: a bank of {words[-1]}, not FXYE; {_NEEDED}")
            continue
        try:
            n_points = int(words[2])
        except (IndexError, ValueError) as error:
            raise AnalysisError(
                f"{source}: the BANK line states no number of points; {_NEEDED}"
            ) from error
        rows = [line.split() for line in lines[place : place + max(n_points, 0)]]
        place += max(n_points, 0)
        try:
            table = np.array(rows, dtype=np.float64)
        except ValueError as error:
            raise AnalysisError(
                f"{source}: rows are not three numbers each ({error}); {_NEEDED}"
            ) from error
        if table.ndim != 2 or table.shape != (n_points, 3):
            raise AnalysisError(
                f"{source}: states {n_points} points and holds {len(rows)}; {_NEEDED}"
            )
        finite(table, source)
        positive = table[:, 2] > 0.0
        least = float(table[positive, 2].min()) if positive.any() else 1.0
        try:
            scans.append(
                made_scan(
                    table[:, 0] / 100.0,
                    table[:, 1],
                    np.maximum(table[:, 2], least) ** 2,
                    source=source,
                    notes=("errors of the file used; copper radiation assumed",),
                    sample_id=title,
                )
            )
        except AnalysisError as error:
            refused.append(str(error))
    if not scans:
        raise AnalysisError(
            refused[0] if refused else f"{source}: holds no BANK line; {_NEEDED}"
        )
    return ScanFile("GSAS .fxye", tuple(scans), tuple(refused))
