"""What an author writes a section of a report with: tables and figures.

Figures are inline SVG whose colours are those of the page that they come to stand in.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ppu.plans.steps import StepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SERIES", "RunRecord", "Section", "figure", "svg_of", "table"]

SERIES = tuple(f"#00000{n}" for n in range(1, 7))
"""Placeholder colours of figures, replaced by the page's colours 1 to 6."""

_INK = "#0000aa"
_FAINT = "#0000bb"
_GROUND = "#0000cc"


@dataclass(frozen=True)
class RunRecord:
    """All that a run left behind.

    Args:
        result: What ``result.json`` says.
        steps: The steps as they happened.
        samples: Columns of each stream's samples, by stream and data key.
        units: Unit of each data key that has one.
        truth: What no instrument can know; empty on hardware.
        protocol_result: The typed result.
        started_s: Lab time of the first message [s].
        epoch: UTC stamp of lab time 0 [s since 1970].
    """

    result: Mapping[str, Any]
    steps: Sequence[StepRecord]
    samples: Mapping[str, Mapping[str, list[float]]]
    units: Mapping[str, str]
    truth: Mapping[str, Any]
    protocol_result: Any
    started_s: float
    epoch: float


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        title: Its heading.
        body: HTML; use :func:`table` and :func:`svg_of`.
        note: A sentence below the heading.
    """

    title: str
    body: str
    note: str = field(default="")


_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?( [a-zA-Z%]+)?")
"""A number, perhaps with its unit."""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Return an HTML table; columns of numbers are set right-aligned."""
    texts = [["-" if value is None else str(value) for value in row] for row in rows]
    marks = []
    for column in range(len(head)):
        filled = [row[column] for row in texts if row[column] not in ("", "-")]
        is_numeric = bool(filled) and all(map(_NUMBER.fullmatch, filled))
        marks.append(' class="number"' if is_numeric else "")

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{mark}>{html.escape(text)}</{tag.partition(' ')[0]}>"
            for mark, text in zip(marks, cells, strict=True)
        )

    heads = line("th scope=col", head)
    lines = "".join(f"<tr>{line('td', row)}</tr>" for row in texts)
    told = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{told}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def figure(
    height_in: float = 3.4, n_rows: int = 1, **keywords: Any
) -> tuple[Figure, Any]:
    """Return a matplotlib figure and its axes, drawn with placeholder colours.

    Args:
        height_in: Height for a width of 8 inches.
        n_rows: Number of axes above each other, sharing the horizontal one.
        keywords: Passed to ``Figure.subplots``.
    """
    # Plotting is heavy; protocols import this module to be listed.
    import matplotlib as mpl  # noqa: PLC0415 - heavy
    from cycler import cycler  # noqa: PLC0415 - heavy
    from matplotlib.figure import Figure as NewFigure  # noqa: PLC0415 - heavy

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name with two $ is a name
        "svg.hashsalt": "ppu",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "text.color": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _FAINT,
        "grid.linewidth": 0.4,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=SERIES),
    }
    mpl.rcParams.update(style)
    drawn = NewFigure(figsize=(8, height_in), layout="constrained")
    return drawn, drawn.subplots(n_rows, 1, sharex=n_rows > 1, **keywords)


def svg_of(drawn: Figure, description: str) -> str:
    """Return *drawn* as inline SVG in the page's colours, for wide and narrow pages.

    Args:
        drawn: A figure made by :func:`figure`.
        description: What it shows, for readers who cannot see it.
    """
    label = html.escape(description, quote=True)
    drawings = []
    for width, (kind, factor) in _SHAPES.items():
        height = drawn.get_figheight()
        drawn.set_size_inches(width, height * factor)
        svg = _svg(drawn, f"{kind}-{hashlib.sha256(label.encode()).hexdigest()[:6]}-")
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        drawings.append(f'<div class="{kind}">{svg}</div>')
        drawn.set_size_inches(width, height)
    caption = f"<figcaption>{html.escape(description)}</figcaption>"
    return f"<figure>{''.join(drawings)}{caption}</figure>"


_SHAPES: Final = {8.0: ("wide", 1.0), 4.2: ("narrow", 1.15)}
"""Widths of a drawing [inch], the pages they are for, and how much higher it is."""


def _svg(drawn: Figure, prefix: str) -> str:
    """Return a drawing in the page's colours, its names begun with *prefix*."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for number, placeholder in enumerate(SERIES, 1):
        text = text.replace(placeholder, f"var(--series-{number})")
    text = text.replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
    text = text.replace(_GROUND, "var(--ground)")
    # A name that a hidden drawing has, too, would lead there.
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    # The page decides about size and fonts.
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
