"""A picture of a quantification: pattern, fit, residual, ticks of each phase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from ppu_protocols.analysis.quantify import Quantification
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
    """Return the figure of *result* over *scan*."""
    figure = Figure(figsize=(11.0, 7.0), layout="constrained")
    pattern, ticks, rest = figure.subplots(
        3,
        1,
        sharex=True,
        height_ratios=(5.0, 0.25 + 0.25 * len(result.phases), 1.3),
    )
    pattern.plot(
        scan.two_theta, scan.counts, ".", ms=1.5, color="0.35", label="measured"
    )
    pattern.plot(
        scan.two_theta, result.calculated, lw=0.8, color="black", label="calculated"
    )
    for index, phase in enumerate(result.phases):
        colour = _COLOURS[index % len(_COLOURS)]
        share = f"{100 * phase.weight_fraction:.1f}({100 * phase.standard_error:.1f})"
        pattern.plot(
            scan.two_theta,
            result.background + result.curves[phase.name],
            lw=0.7,
            color=colour,
            label=f"{phase.name} {share} wt%",
        )
        lines = result.line_positions[phase.name]
        ticks.vlines(lines, -index - 0.35, -index + 0.35, lw=0.8, color=colour)
    pattern.plot(
        scan.two_theta, result.background, "--", lw=0.7, color="0.5", label="background"
    )
    pattern.set_yscale("function", functions=(_root, np.square))
    pattern.set_ylabel("counts (root scale)")
    pattern.legend(loc="upper right", fontsize="small")
    title = scan.sample_id or Path(scan.source).name
    pattern.set_title(
        f"{title}   Rwp {100 * result.fit.r_wp:.1f} %   "
        f"confidence {result.confidence}".strip(),
        loc="left",
        fontsize="medium",
    )
    ticks.set_yticks(
        [-index for index in range(len(result.phases))],
        [phase.name for phase in result.phases],
        fontsize="small",
    )
    ticks.set_ylim(-len(result.phases) + 0.4, 0.6)
    rest.plot(
        scan.two_theta,
        (scan.counts - result.calculated) / np.sqrt(scan.variance),
        lw=0.5,
        color="0.2",
    )
    rest.set_ylabel("residual / sigma")
    rest.set_xlabel("2θ (deg)")
    rest.set_xlim(float(scan.two_theta[0]), float(scan.two_theta[-1]))
    return figure


def _root(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(values, 0.0)))
