"""Powder scans from columns of text: .xy, .xye, .dat, .csv and the like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import ScanFile, finite, made_scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ppu_protocols.analysis.scan import Scan

_NEEDED = (
    "lines of an angle 2theta [deg] and an intensity, and perhaps its standard "
    "deviation, are needed"
)
_COMMENT = re.compile(r"^\s*([#!;'/*\"]|$)")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
_ROW = re.compile(rf"^\s*{_NUMBER}(?:[\s,;]+{_NUMBER}){{1,5}}[\s,;]*$")
_COMMA_NUMBER = r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?|[-+]?\d+"
_COMMA_ROW = re.compile(
    rf"^\s*(?:{_COMMA_NUMBER})(?:[\s;]+(?:{_COMMA_NUMBER}))+[\s;]*$"
)
_MOST_HEADER_LINES = 500


def parse_columns(text: str, *, source: str) -> ScanFile:
    """Return the scan in columns of *text*; *source* appears in messages.

    A first column of angles and a second of intensities are taken; a third, if every
    row has one, is the standard deviation. Lines before the first row of numbers are
    a header. A decimal comma is understood where no point is, columns then being
    parted by blanks or semicolons.

    Raises:
        AnalysisError: If there are no two columns of numbers, or a row is broken.
    """
    lines = text.splitlines()
    rows, n_header, has_comma = _numeric_rows(lines, source)
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise AnalysisError(
            f"{source}: rows of {width} and of other numbers of columns; {_NEEDED}"
        )
    table = finite(np.array(rows, dtype=np.float64), source)
    angles, values = table[:, 0], table[:, 1]
    deviations = table[:, 2] if width == 3 else None
    if width > 3:
        raise AnalysisError(f"{source}: {width} columns; {_NEEDED}")
    notes = [f"{n_header} lines of header passed over"] if n_header else []
    if has_comma:
        notes.append("decimal commas read as points")
    scan = scan_of_columns(angles, values, deviations, source, notes)
    return ScanFile("columns of text", (scan,))


def scan_of_columns(
    angles: NDArray[np.float64],
    values: NDArray[np.float64],
    deviations: NDArray[np.float64] | None,
    source: str,
    notes: list[str],
) -> Scan:
    """Return the scan of plain columns, saying what had to be assumed.

    Args:
        angles: 2theta [deg], rising or falling.
        values: Intensities.
        deviations: Their standard deviations; None if they are counts.
        source: For messages.
        notes: What the reader did already.
    """
    notes = list(notes)
    if values.size < 50:
        raise AnalysisError(f"{source}: {values.size} points; at least 50 are needed")
    if deviations is not None:
        if not (np.isfinite(deviations).all() and (deviations >= 0.0).all()):
            raise AnalysisError(
                f"{source}: the third column, the standard deviation, holds negative "
                "values"
            )
        positive = deviations[deviations > 0.0]
        if not positive.size:
            raise AnalysisError(f"{source}: every standard deviation is 0")
        variance = np.maximum(deviations, positive.min()) ** 2
        notes.append("standard deviations from the third column")
    else:
        variance = np.maximum(values, 1.0)
        whole = np.abs(values - np.round(values)) < 1e-6
        if whole.mean() > 0.99:
            notes.append("intensities are whole and taken as counts")
        else:
            variance = _variance_of_rates(values)
            notes.append(
                "intensities are not whole, so no counts; their noise was estimated "
                "from neighbouring points"
            )
    if np.median(np.diff(angles)) < 0.0:
        angles, values, variance = angles[::-1], values[::-1], variance[::-1]
        notes.append("angles fall and were turned round")
    notes.append("copper radiation, a fixed slit and no monochromator assumed")
    return made_scan(angles, values, variance, source=source, notes=notes)


def _variance_of_rates(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return variances proportional to *values*, by the scatter of neighbours."""
    second = values[:-2] - 2.0 * values[1:-1] + values[2:]
    level = np.maximum(values[1:-1], 1e-300)
    # Var(second difference) is 6 c y for counts/c; a median is blind to peaks.
    ratio = float(np.median(second**2 / (6.0 * level))) / 0.4549
    largest = float(np.abs(values).max(initial=0.0))
    return np.maximum(values, 1e-3 * largest + 1e-12) * max(ratio, 1e-9 * largest)


def _numeric_rows(lines: list[str], source: str) -> tuple[list[list[float]], int, bool]:
    """Return rows of numbers, how many lines of header, and whether with commas."""
    for pattern, has_comma in ((_ROW, False), (_COMMA_ROW, True)):
        first = next(
            (
                at
                for at, line in enumerate(lines[:_MOST_HEADER_LINES])
                if pattern.match(line)
                and all(pattern.match(later) for later in _following(lines, at + 1, 5))
            ),
            None,
        )
        if first is None:
            continue
        some = lines[first : first + 50]
        if not has_comma and any("," in x for x in some) and _is_decimal_comma(some):
            continue
        rows = []
        for number, line in enumerate(lines[first:], first + 1):
            if _COMMENT.match(line):
                continue
            if not pattern.match(line):
                raise AnalysisError(
                    f"{source}: line {number} is {line.strip()[:40]!r}; {_NEEDED}"
                )
            rows.append(_numbers(line, has_comma=has_comma))
        header = sum(1 for line in lines[:first] if line.strip())
        return rows, header, has_comma
    raise AnalysisError(f"{source}: holds no columns of numbers; {_NEEDED}")


def _following(lines: list[str], start: int, n_lines: int) -> list[str]:
    rest = [line for line in lines[start : start + 3 * n_lines] if line.strip()]
    return rest[:n_lines]


def _is_decimal_comma(lines: list[str]) -> bool:
    """Whether commas in *lines* can only be decimal: '10,02 153' or '10,02;153'."""
    return all(_COMMA_ROW.match(line) for line in lines if line.strip()) and not any(
        "." in line for line in lines
    )


def _numbers(line: str, *, has_comma: bool) -> list[float]:
    """Return the numbers of a row that its pattern has let pass."""
    if has_comma:
        return [float(part.replace(",", ".")) for part in re.findall(r"[^\s;]+", line)]
    parts = re.findall(r"[^\s,;]+", line)
    return [float(re.sub("[dD]", "e", part)) for part in parts]
