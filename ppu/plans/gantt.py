"""A chart in letters of which job did what when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bar", "gantt"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Bar:
    """Something that lasted; times on any common scale [s]."""

    name: str
    begun_s: float
    ended_s: float


def gantt(rows: Mapping[str, Sequence[Bar]], width: int = 100) -> str:
    """Return a chart with a line for each row and a letter for each kind of bar.

    What is too short for a column is drawn if nothing else is there.

    Args:
        rows: Bars by row; where two overlap the shorter one is seen.
        width: Columns for all the time from the first begin to the last end.

    Example:
        >>> fire, weigh = Bar("fire", 0, 5400), Bar("weigh", 5400, 7200)
        >>> rows = {"job 1": [fire], "job 2": [weigh]}
        >>> print(gantt(rows, 8))
        job 1  AAAAAA..
        job 2  ......BB
               0 h to 2 h: A fire, B weigh
    """
    bars = [bar for row in rows.values() for bar in row]
    if not bars:
        return "nothing has begun"
    start = min(bar.begun_s for bar in bars)
    span = max(max(bar.ended_s for bar in bars) - start, 1e-9)
    names = list(dict.fromkeys(bar.name for bar in sorted(bars, key=_begin)))
    letters = {name: _LETTERS[n % len(_LETTERS)] for n, name in enumerate(names)}
    margin = max(len(row) for row in rows)
    lines = []
    for name, row in rows.items():
        line = ["."] * width
        for bar in sorted(row, key=lambda bar: bar.begun_s - bar.ended_s):
            first = int((bar.begun_s - start) / span * width)
            last = int((bar.ended_s - start) / span * width)
            for column in range(first, min(last, width)):
                line[column] = letters[bar.name]
            if first == last < width and line[first] == ".":
                line[first] = letters[bar.name]
        lines.append(f"{name:{margin}}  {''.join(line)}")
    legend = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    lines.append(f"{'':{margin}}  0 h to {span / 3600:.3g} h: {legend}")
    return "\n".join(lines)


def _begin(bar: Bar) -> float:
    return bar.begun_s
