"""``ppu analyse``: results from data files on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ppu_protocols.analysis.cif import Phase
    from ppu_protocols.analysis.quantify import Quantification
    from ppu_protocols.analysis.scan import Scan

SCHEMA_VERSION = 1
"""Version of the JSON that ``--json`` prints."""

app = typer.Typer(
    name="analyse",
    help="Analyse measured data files.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _analyse() -> None:
    """Analyse measured data files."""


class _ManyCifs(TyperCommand):
    """Lets one ``--cif`` take several values, as shells expand ``--cif *.cif``."""

    # Typer carries a click of its own whose Context has no public name.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_option(args, "--cif"))


def repeat_option(args: list[str], option: str) -> list[str]:
    """Return *args* with *option* repeated before each of its values.

    Values end at the next option and at a scan (``*.xrdml``).

    Example:
        >>> repeat_option(["a.xrdml", "--cif", "b.cif", "c.cif", "--json"], "--cif")
        ['a.xrdml', '--cif', 'b.cif', '--cif', 'c.cif', '--json']
    """
    result: list[str] = []
    n_values = -1  # outside the option
    for index, arg in enumerate(args):
        if arg == "--":
            return result + args[index:]
        is_scan = arg.lower().endswith(".xrdml")
        if arg == option:
            result.append(arg)
            n_values = 0
        elif arg.startswith(option + "="):
            result.append(arg)
            n_values = 1
        elif n_values >= 0 and not arg.startswith("-") and not (is_scan and n_values):
            result += [arg] if n_values == 0 else [option, arg]
            n_values += 1
        else:
            result.append(arg)
            n_values = -1
    return result


_EXAMPLE = (
    "Example:  ppu analyse xrd scan.xrdml --cif BaTiO3.cif BaCO3.cif --plot fit.svg"
)


@app.command("xrd", cls=_ManyCifs, epilog=_EXAMPLE)
def analyse_xrd(
    scan: Annotated[
        Path, typer.Argument(help="Powder scan, an .xrdml file.", metavar="SCAN")
    ],
    cif: Annotated[
        list[str],
        typer.Option(
            "--cif",
            help="Candidate structures: CIF files, or names of bundled phases. "
            "Several may follow one --cif.",
            metavar="FILE...",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw pattern, fit and residual into this .svg, .png or .pdf file.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Quantify the crystalline phases of a powder scan.

    Fits the whole pattern with the candidate structures and prints the weight fraction
    of each with its standard error, and whether the result deserves confidence.
    """
    # Numerical libraries take a second to load; `ppu --help` must not wait for them.
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # see above

    try:
        measured, result = _quantify(scan, cif, plot)
    except AnalysisError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=2) from error
    if as_json:
        typer.echo(json.dumps(to_json(measured, result), indent=2))
    else:
        typer.echo(to_table(measured, result))


def _quantify(
    scan_path: Path, candidates: list[str], plot_path: Path | None
) -> tuple[Scan, Quantification]:
    # See analyse_xrd for why these imports are here.
    from ppu_protocols.analysis.quantify import quantify  # noqa: PLC0415 # slow import
    from ppu_protocols.analysis.xrdml import read_xrdml  # noqa: PLC0415 # slow import

    if plot_path is not None:
        from ppu_protocols.analysis.plot import (  # noqa: PLC0415 # slow import
            check_plot_path,
        )

        check_plot_path(plot_path)
    scan = read_xrdml(scan_path)
    result = quantify(scan, [_candidate(text) for text in candidates])
    if plot_path is not None:
        from ppu_protocols.analysis.plot import write_plot  # noqa: PLC0415 # as above

        write_plot(scan, result, plot_path)
    return scan, result


def _candidate(text: str) -> Phase:
    """Return the structure in the file *text*, or the bundled one of that name."""
    from ppu_protocols.analysis.cif import (  # noqa: PLC0415 # slow import
        load_phase,
        read_cif,
    )

    if not Path(text).exists() and not text.endswith(".cif"):
        return load_phase(text)  # or an error that lists the bundled ones
    return read_cif(text)


def to_json(scan: Scan, result: Quantification) -> dict[str, Any]:
    """Return the machine-readable report of *result*."""
    return {
        "schema_version": SCHEMA_VERSION,
        "scan": {
            "file": scan.source,
            "sample_id": scan.sample_id,
            "n_points": int(scan.two_theta.size),
            "two_theta_start_deg": float(scan.two_theta[0]),
            "two_theta_end_deg": float(scan.two_theta[-1]),
            "counting_time_s": scan.counting_time,
        },
        "phases": [
            {
                "name": phase.name,
                "formula": phase.formula,
                "weight_fraction": phase.weight_fraction,
                "standard_error": phase.standard_error,
            }
            for phase in result.phases
        ],
        "confidence": result.confidence,
        "confidence_reasons": list(result.confidence_reasons),
        "fit": {
            "r_wp": result.fit.r_wp,
            "goodness_of_fit": result.fit.goodness_of_fit,
        },
        "wavelength": {
            "k_alpha_1_angstrom": scan.k_alpha_1,
            "k_alpha_2_angstrom": scan.k_alpha_2,
            "k_alpha_2_to_1_ratio": scan.k_alpha_ratio,
        },
    }


def to_table(scan: Scan, result: Quantification) -> str:
    """Return the report of *result* for people."""
    width = max(5, *(len(phase.name) for phase in result.phases))
    formula_width = max(7, *(len(phase.formula) for phase in result.phases))
    lines = [
        f"scan        {scan.source}" + (f" ({scan.sample_id})" * bool(scan.sample_id)),
        "",
        f"{'phase':<{width}}  {'formula':<{formula_width}}     wt%     +-",
    ]
    lines += [
        f"{phase.name:<{width}}  {phase.formula:<{formula_width}}  "
        f"{100 * phase.weight_fraction:6.2f} {100 * phase.standard_error:6.2f}"
        for phase in result.phases
    ]
    lines += [
        "",
        f"fit         Rwp {100 * result.fit.r_wp:.2f} %, goodness of fit "
        f"{result.fit.goodness_of_fit:.2f}",
        f"confidence  {result.confidence}",
    ]
    return "\n".join(
        [*lines, *(f"  - {reason}" for reason in result.confidence_reasons)]
    )
