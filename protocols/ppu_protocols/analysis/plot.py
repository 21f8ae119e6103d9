"""A picture of a quantification: pattern, phases, ticks, residual, error budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ppu_protocols.analysis.quantify import PhaseResult, Quantification
    from ppu_protocols.analysis.scan import Scan

PLOT_FORMATS = (".svg", ".png", ".pdf")
"""Endings of plot files that can be written."""

# Colours that stay apart for colour-blind readers (M. Okabe, K. Ito, 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def check_plot_path(path: Path) -> None:
    """Refuse a file that `write_plot` could not write.

    Raises:
        AnalysisError: If the ending is unknown or the folder does not exist.
    """
    if path.suffix.lower() not in PLOT_FORMATS:
        raise AnalysisError(
            f"{path}: cannot plot to {path.suffix or 'a file without ending'!r}; "
            f"{', '.join(PLOT_FORMATS)} are allowed"
        )
    if not path.parent.is_dir():
        raise AnalysisError(f"{path}: the folder {path.parent} does not exist")


def write_plot(scan: Scan, result: Quantification, path: Path) -> None:
    """Draw *result* over *scan* into *path* (.svg, .png or .pdf).

    Raises:
        AnalysisError: If the file cannot be written.
    """
    check_plot_path(path)
    figure = draw(scan, result)
    try:
        # A fixed salt and no date: the same result gives the same file.
        with rc_context({"svg.hashsalt": "ppu"}):
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(path, dpi=150, metadata=metadata)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(f"{path}: cannot be written ({reason})") from error


def draw(scan: Scan, result: Quantification) -> Figure:
    """Return the figure of *result* over *scan*.

    From the top: the pattern with its model; what each phase contributes, stacked;
    ticks at its lines; the residual; and the parts of the error as one bar. It is
    narrow and its letters are large, so that a telephone shows it.
    """
    shown = [p for p in result.phases if p.is_present] or list(result.phases)
    figure = Figure(figsize=(6.5, 8.6), layout="constrained")
    pattern, stack, ticks, rest, bar = figure.subplots(
        5,
        1,
        height_ratios=(4.0, 2.2, 0.3 + 0.3 * len(shown), 1.3, 0.55),
    )
    for axes in (stack, ticks, rest):
        axes.sharex(pattern)
    colours = {p.name: _COLOURS[i % len(_COLOURS)] for i, p in enumerate(shown)}
    _draw_pattern(pattern, scan, result)
    _draw_stack(stack, scan, result, shown, colours)
    for index, phase in enumerate(shown):
        lines = result.line_positions[phase.name]
        colour = colours[phase.name]
        ticks.vlines(lines, -index - 0.35, -index + 0.35, lw=0.8, color=colour)
    ticks.set_yticks(
        [-index for index in range(len(shown))], [phase.name for phase in shown]
    )
    ticks.set_ylim(-len(shown) + 0.4, 0.6)
    rest.plot(
        scan.two_theta,
        (scan.counts - result.calculated) / np.sqrt(scan.variance),
        lw=0.5,
        color="0.2",
    )
    rest.set_ylabel("residual / sd")
    rest.set_xlabel("2θ (deg)")
    rest.set_xlim(float(scan.two_theta[0]), float(scan.two_theta[-1]))
    for axes in (pattern, stack, ticks):
        axes.tick_params(labelbottom=False)
    _draw_budget(bar, result)
    return figure


def _draw_pattern(axes: Axes, scan: Scan, result: Quantification) -> None:
    axes.plot(scan.two_theta, scan.counts, ".", ms=1.5, color="0.45", label="measured")
    axes.plot(
        scan.two_theta, result.calculated, lw=0.8, color="black", label="calculated"
    )
    axes.plot(
        scan.two_theta, result.background, "--", lw=0.8, color="0.5", label="background"
    )
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set_ylabel("counts (root scale)")
    axes.legend(loc="upper right", fontsize="small")
    title = scan.sample_id or Path(scan.source).name
    axes.set_title(
        f"{title}\nRwp {100 * result.fit.r_wp:.1f} %   "
        f"confidence {result.confidence}".strip(),
        loc="left",
        fontsize="medium",
    )


def _draw_stack(
    axes: Axes,
    scan: Scan,
    result: Quantification,
    shown: list[PhaseResult],
    colours: dict[str, str],
) -> None:
    """Draw the contributions of the phases, each on the one before."""
    below = np.zeros_like(scan.two_theta)
    for phase in reversed(shown):
        above = below + result.curves[phase.name]
        share = f"{100 * phase.weight_fraction:.1f} ± {100 * phase.standard_error:.1f}"
        axes.fill_between(
            scan.two_theta,
            below,
            above,
            color=colours[phase.name],
            lw=0,
            label=f"{phase.name} {share} wt%",
        )
        below = above
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set_ylim(0.0, max(float(below.max()), 1.0) * 1.1)
    axes.set_ylabel("phases")
    axes.legend(loc="upper right", fontsize="small", reverse=True)


def _draw_budget(axes: Axes, result: Quantification) -> None:
    """Draw the variance of the least sure share, parted by its causes."""
    squares = {
        part.name: max(part.standard_errors.values()) ** 2
        for part in result.error_budget
    }
    total = sum(squares.values()) or 1.0
    left = 0.0
    shades = ("0.25", "0.8", "0.5", "0.9", "0.35", "0.7", "0.6")
    for shade, (name, square) in zip(
        shades, sorted(squares.items(), key=lambda item: -item[1]), strict=False
    ):
        width = square / total
        axes.barh(0.0, width, left=left, color=shade, edgecolor="white")
        if width > 0.12:
            axes.text(
                left + width / 2.0,
                0.0,
                f"{name}\n{100 * square**0.5:.1f}".replace(" ", "\n", 1),
                ha="center",
                va="center",
                fontsize="x-small",
                color="white" if float(shade) < 0.55 else "black",
            )
        left += width
    axes.set_xlim(0.0, 1.0)
    axes.set_axis_off()
    axes.set_title("parts of the error (wt%)", loc="left", fontsize="small")


def _root(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(values, 0.0)))
