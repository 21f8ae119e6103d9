"""A chart in letters of which job did what when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bar", "gantt"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NOTHING, _WAIT, _MARK = ".", "-", "|"


@dataclass(frozen=True)
class Bar:
    """Something that lasted; times on any common scale [s].

    Attributes:
        name: What it was.
        is_wait: Whether nothing was done: it is drawn lighter, over what it was in.
    """

    name: str
    begun_s: float
    ended_s: float
    is_wait: bool = False


def gantt(
    rows: Mapping[str, Sequence[Bar]],
    width: int = 100,
    marks: Sequence[float] = (),
    mark: str = "",
) -> str:
    """Return a chart with a line for each row and a letter for each kind of bar.

    What is too short for a column is drawn if nothing else is there.

    Args:
        rows: Bars by row; where two overlap the shorter one is seen.
        width: Columns for all the time from the first begin to the last end.
        marks: Moments that are shown in a line of their own, as far as they are
            within that time.
        mark: What happened at these moments.

    Example:
        >>> fire, weigh = Bar("fire", 0, 5400), Bar("weigh", 5400, 7200)
        >>> rows = {"job 1": [fire], "job 2": [Bar("", 0, 5400, is_wait=True), weigh]}
        >>> print(gantt(rows, 8, marks=[1000], mark="a new cell"))
               .|......
        job 1  AAAAAA..
        job 2  ------BB
               0 h to 2 h: A fire, B weigh, - waits, | a new cell
    """
    bars = [bar for row in rows.values() for bar in row]
    if not bars:
        return "nothing has begun"
    start = min(bar.begun_s for bar in bars)
    span = max(max(bar.ended_s for bar in bars) - start, 1e-9)
    work = sorted((bar for bar in bars if not bar.is_wait), key=_begin)
    names = list(dict.fromkeys(bar.name for bar in work))
    letters = {name: _LETTERS[n % len(_LETTERS)] for n, name in enumerate(names)}
    margin = max(len(row) for row in rows)

    def column(moment: float) -> int:
        return int((moment - start) / span * width)

    def drawn(row: Sequence[Bar]) -> str:
        line = [_NOTHING] * width
        for bar in sorted(
            row, key=lambda bar: (bar.is_wait, bar.begun_s - bar.ended_s)
        ):
            letter = _WAIT if bar.is_wait else letters[bar.name]
            first, last = column(bar.begun_s), min(column(bar.ended_s), width)
            line[first:last] = letter * (last - first)
            if first == last < width and line[first] == _NOTHING:
                line[first] = letter
        return "".join(line)

    lines = [f"{name:{margin}}  {drawn(row)}" for name, row in rows.items()]
    legend = [f"{letter} {name}" for name, letter in letters.items()]
    if any(bar.is_wait for bar in bars):
        legend.append(f"{_WAIT} waits")
    marked = {column(moment) for moment in marks if 0 <= moment - start < span}
    if marked:
        ruler = [_MARK if n in marked else _NOTHING for n in range(width)]
        lines.insert(0, f"{'':{margin}}  {''.join(ruler)}")
        legend.append(f"{_MARK} {mark}")
    told = f"0 h to {span / 3600:.3g} h: {', '.join(legend)}"
    return "\n".join([*lines, f"{'':{margin}}  {told}"])


def _begin(bar: Bar) -> float:
    return bar.begun_s
