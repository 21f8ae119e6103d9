"""``ppu analyse``: results from data files on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ppu.core.errors import ConfigurationError
from ppu.core.numbers import NotPlainError, integer_option, read_number

if TYPE_CHECKING:
    from ppu_protocols.analysis.absolute import Absolute
    from ppu_protocols.analysis.cif import Phase
    from ppu_protocols.analysis.quantify import Quantification
    from ppu_protocols.analysis.replicates import Replicates
    from ppu_protocols.analysis.scan import Scan

SCHEMA_VERSION = 2
"""Version of the JSON that ``--json`` prints."""

_SCAN_ENDINGS = frozenset(
    (
        ".xrdml",
        ".ras",
        ".rasx",
        ".raw",
        ".brml",
        ".fxye",
        ".xy",
        ".xye",
        ".dat",
        ".csv",
        ".txt",
        ".prn",
    )
)

_EXAMPLE = (
    "Example: ppu analyse xrd scan.xrdml --cif BaTiO3.cif BaCO3.cif --plot fit.svg"
)

app = typer.Typer(
    name="analyse",
    help="Analyse measured data files.",
    epilog=_EXAMPLE,
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

    Values end at the next option and at a scan (``*.xrdml``, ``*.xy`` and so on).

    Example:
        >>> repeat_option(["a.xrdml", "--cif", "b.cif", "c.cif", "--json"], "--cif")
        ['a.xrdml', '--cif', 'b.cif', '--cif', 'c.cif', '--json']
    """
    result: list[str] = []
    n_values = -1  # outside the option
    for index, arg in enumerate(args):
        if arg == "--":
            return result + args[index:]
        is_scan = Path(arg).suffix.lower() in _SCAN_ENDINGS
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


@app.command("xrd", cls=_ManyCifs, epilog=_EXAMPLE)
def analyse_xrd(
    scan: Annotated[
        list[Path],
        typer.Argument(
            help="Powder scan: .xrdml, .ras, .rasx, .raw, .brml, .fxye, powder .cif, "
            "or columns (.xy, .xye, .dat, .csv). Several are mounts of one sample.",
            metavar="SCAN...",
        ),
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
    number: Annotated[
        int | None,
        typer.Option(
            "--scan",
            parser=integer_option(1),
            help="Which scan of a file that holds several, from 1.",
        ),
    ] = None,
    grain: Annotated[
        list[str] | None,
        typer.Option(
            help="Diameter of a phase's grains, known within a factor of 2: NAME=UM.",
            metavar="NAME=UM",
        ),
    ] = None,
    spike: Annotated[
        str | None,
        typer.Option(
            help="Standard that was mixed in, and its wt% of the whole: NAME=PERCENT. "
            "Gives absolute fractions and the amorphous part.",
            metavar="NAME=PERCENT",
        ),
    ] = None,
    external: Annotated[
        str | None,
        typer.Option(
            help="Scan of a pure, crystalline standard, measured as the sample was, "
            "and its structure: SCAN=CIF. Gives absolute fractions and the amorphous "
            "part; needs --composition.",
            metavar="SCAN=CIF",
        ),
    ] = None,
    composition: Annotated[
        str | None,
        typer.Option(
            help="Formula of the whole sample, its amorphous part included, for "
            "--external.",
            metavar="FORMULA",
        ),
    ] = None,
    graphite: Annotated[
        bool,
        typer.Option(
            help="The scan was measured with a graphite monochromator that its file "
            "does not state."
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="What `ppu calibrate diffractometer --write` kept; its zero is taken "
            "off the angles.",
            metavar="FILE",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option(help="Say what was read from each file, and every source.")
    ] = False,
) -> None:
    """Quantify the crystalline phases of a powder scan.

    Fits the whole pattern with the candidate structures and prints the weight fraction
    of each with its standard error and its parts, and whether the result deserves
    confidence.
    """
    # Numerical libraries take a second to load; `ppu --help` must not wait for them.
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # see above

    standard = _Standard(spike, external, composition)
    try:
        asked = _Asked(cif, number, grain or [], standard, graphite, calibration)
        _run(scan, asked, as_json=as_json, plot_path=plot, verbose=verbose)
    except (AnalysisError, ConfigurationError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=2) from error


@dataclass(frozen=True)
class _Standard:
    """By what fractions of the whole are asked for, if by anything."""

    spike: str | None
    external: str | None
    composition: str | None


@dataclass(frozen=True)
class _Asked:
    """What is asked about every scan."""

    candidates: list[str]
    number: int | None
    grains: list[str]
    standard: _Standard
    graphite: bool
    calibration: Path | None


def _run(
    paths: list[Path],
    asked: _Asked,
    *,
    as_json: bool,
    plot_path: Path | None,
    verbose: bool,
) -> None:
    # See analyse_xrd for why these imports are here.
    from ppu_protocols.analysis import plot  # noqa: PLC0415 # slow import
    from ppu_protocols.analysis.files import describe  # noqa: PLC0415 # slow import
    from ppu_protocols.analysis.replicates import combine  # noqa: PLC0415 # slow import

    if plot_path is not None:
        plot.check_plot_path(plot_path)
    _check_standard(asked.standard)
    measured = [_read(path, asked) for path in paths]
    phases = [_candidate(text) for text in asked.candidates]
    if verbose:
        for scan in measured:
            typer.echo(f"{scan.source}: {describe(scan)}", err=True)
    results = [_quantify(scan, phases, asked) for scan in measured]
    scan, result = measured[0], results[0]
    absolute = _absolute(result, asked)
    together = combine(results) if len(results) > 1 else None
    if as_json:
        report = to_json(scan, result, absolute, together)
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(to_table(scan, result, absolute, together, sources=verbose))
    if plot_path is not None:
        plot.write_plot(scan, result, plot_path)


def _check_standard(given: _Standard) -> None:
    """Refuse half a standard, or two, before anything is fitted."""
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # slow

    if (given.external is None) != (given.composition is None) or (
        given.external is not None and given.spike is not None
    ):
        raise AnalysisError(
            "give --external with --composition, or --spike: by one standard"
        )


def _absolute(result: Quantification, asked: _Asked) -> Absolute | None:
    """Return the fractions of the whole, if a standard is there."""
    from ppu_protocols.analysis.absolute import (  # noqa: PLC0415 # slow import
        absolute_by_external,
        absolute_by_spike,
    )
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # slow

    given = asked.standard
    if given.spike is not None:
        name, percent = _pair(given.spike, "--spike")
        return absolute_by_spike(result, name, percent / 100.0)
    if given.external is None or given.composition is None:
        return None
    path, _, structure = given.external.rpartition("=")
    if not path or not structure:
        raise AnalysisError(f"--external {given.external}: SCAN=CIF is needed")
    alone = replace(asked, grains=[], number=None)
    pure = _quantify(_read(Path(path), alone), [_candidate(structure)], alone)
    return absolute_by_external(result, pure, given.composition)


def _read(path: Path, asked: _Asked) -> Scan:
    from ppu_protocols.analysis.files import read_scan  # noqa: PLC0415 # slow import

    scan = read_scan(path, asked.number)
    if asked.graphite:
        # cos² of graphite's 2theta for copper K-alpha, 26.6 deg.
        scan = replace(scan, polarization=0.80)
    if asked.calibration is not None:
        from ppu_protocols.analysis.calibrate import (  # noqa: PLC0415 # slow import
            read_calibration,
            with_calibration,
        )

        scan = with_calibration(scan, read_calibration(asked.calibration))
    return scan


def _quantify(scan: Scan, phases: list[Phase], asked: _Asked) -> Quantification:
    from ppu_protocols.analysis.absorption import (  # noqa: PLC0415 # slow import
        GrainSize,
    )
    from ppu_protocols.analysis.quantify import quantify  # noqa: PLC0415 # slow import

    grains = {}
    for text in asked.grains:
        name, diameter_um = _pair(text, "--grain")
        grains[name] = GrainSize(diameter_um, 2.0)
    return quantify(scan, phases, grains=grains)


def _pair(text: str, option: str) -> tuple[str, float]:
    """Return name and number of ``NAME=NUMBER``."""
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # slow

    name, _, number = text.rpartition("=")
    try:
        value = read_number(number)
    except NotPlainError:
        value = -1.0
    if not name or not 0.0 < value < 1e6:
        raise AnalysisError(f"{option} {text}: NAME=NUMBER with a number above 0")
    return name, value


def _candidate(text: str) -> Phase:
    """Return the structure in the file *text*, or the bundled one of that name."""
    from ppu_protocols.analysis.cif import (  # noqa: PLC0415 # slow import
        load_phase,
        read_cif,
    )

    if not Path(text).exists() and not text.endswith(".cif"):
        return load_phase(text)  # or an error that lists the bundled ones
    return read_cif(text)


def to_json(
    scan: Scan,
    result: Quantification,
    absolute: Absolute | None = None,
    together: Replicates | None = None,
) -> dict[str, Any]:
    """Return the machine-readable report of *result*."""
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "scan": {
            "file": scan.source,
            "sample_id": scan.sample_id,
            "n_points": int(scan.two_theta.size),
            "two_theta_start_deg": float(scan.two_theta[0]),
            "two_theta_end_deg": float(scan.two_theta[-1]),
            "counting_time_s": scan.counting_time,
            "notes": list(scan.notes),
        },
        "fractions_of": "the crystalline part",
        "phases": [
            {
                "name": phase.name,
                "formula": phase.formula,
                "weight_fraction": phase.weight_fraction,
                "standard_error": phase.standard_error,
                "is_present": phase.is_present,
                "detection_limit": phase.detection_limit,
                "absorption_factor": phase.absorption_factor,
            }
            for phase in result.phases
        ],
        "unlisted": {
            "weight_fraction": result.unlisted_share,
            "limit": result.unlisted_limit,
            "agrees_with": result.missing.owner,
            "peaks_deg": [angle for angle, _ in result.missing.peaks],
        },
        "crystallinity": {
            "degree": result.crystallinity.degree,
            "low": result.crystallinity.low,
            "high": result.crystallinity.high,
        },
        "error_budget": [
            {
                "name": part.name,
                "source": part.source,
                "standard_errors": dict(part.standard_errors),
            }
            for part in result.error_budget
        ],
        "structure_notes": {
            name: list(notes) for name, notes in result.structure_notes.items()
        },
        "confidence": result.confidence,
        "confidence_sentence": result.confidence_sentence,
        "confidence_reasons": list(result.confidence_reasons),
        "remarks": list(result.remarks),
        "alignment": list(result.alignment),
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
    if absolute is not None:
        report["absolute"] = {
            "weight_fractions": dict(absolute.fractions),
            "standard_errors": dict(absolute.standard_errors),
            "amorphous": absolute.amorphous,
            "amorphous_error": absolute.amorphous_error,
            "fractions_of": absolute.whole,
            "doubt": absolute.doubt,
        }
    if together is not None:
        report["replicates"] = {
            "n": together.n_scans,
            "weight_fractions": dict(together.fractions),
            "standard_errors": dict(together.standard_errors),
            "scatter": dict(together.scatter),
        }
    return report


def to_table(
    scan: Scan,
    result: Quantification,
    absolute: Absolute | None = None,
    together: Replicates | None = None,
    *,
    sources: bool = False,
) -> str:
    """Return the report of *result* for people."""
    width = max(8, *(len(phase.name) for phase in result.phases))
    formula_width = max(7, *(len(phase.formula) for phase in result.phases))
    lines = [
        f"scan        {scan.source}" + (f" ({scan.sample_id})" * bool(scan.sample_id)),
        "",
        f"{'phase':<{width}}  {'formula':<{formula_width}}     wt%     +-   "
        "of the crystalline part",
    ]
    for phase in result.phases:
        line = (
            f"{phase.name:<{width}}  {phase.formula:<{formula_width}}  "
            f"{100 * phase.weight_fraction:6.2f} {100 * phase.standard_error:6.2f}"
        )
        if not phase.is_present:
            line += f"   not needed; below {100 * phase.detection_limit:.2f}"
        lines.append(line)
    if result.unlisted_share > 0.0:
        lines.append(
            f"{'unlisted':<{width}}  {'':<{formula_width}}  "
            f"{100 * result.unlisted_share:6.2f}"
        )
    low, high = result.crystallinity.low, result.crystallinity.high
    lines += [
        "",
        f"crystalline about {100 * result.crystallinity.degree:.0f} % of the "
        f"scattering ({100 * low:.0f} to {100 * high:.0f})",
        f"unlisted    up to {100 * result.unlisted_limit:.1f} wt% of a phase like "
        "calcite would not be noticed",
        *_absolute_lines(absolute),
        *_together_lines(together),
        "error       " + "; ".join(_parts(result)),
    ]
    if sources:
        lines += [f"  {part.name}: {part.source}" for part in result.error_budget]
    lines += [
        f"fit         Rwp {100 * result.fit.r_wp:.2f} %, goodness of fit "
        f"{result.fit.goodness_of_fit:.2f}",
        f"confidence  {result.confidence_sentence}",
    ]
    lines += [f"  - {reason}" for reason in result.confidence_reasons]
    lines += [f"  - {remark}" for remark in result.remarks]
    lines += [f"alignment   {remark}" for remark in result.alignment]
    lines += [
        f"structure   {name}: {note}"
        for name, notes in result.structure_notes.items()
        for note in notes
    ]
    return "\n".join(lines)


def _parts(result: Quantification) -> list[str]:
    """Return the parts of the error of the least sure phase, largest first [wt%]."""
    sizes = {
        part.name: max(part.standard_errors.values()) for part in result.error_budget
    }
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return [f"{name} {100 * size:.2f}" for name, size in ordered if size >= 5e-5]


def _absolute_lines(absolute: Absolute | None) -> list[str]:
    if absolute is None:
        return []
    found = ", ".join(
        f"{name} {100 * share:.1f} +- {100 * absolute.standard_errors[name]:.1f}"
        for name, share in absolute.fractions.items()
    )
    return [
        f"absolute    {found} wt% of {absolute.whole}",
        f"amorphous   {100 * absolute.amorphous:.1f} +- "
        f"{100 * absolute.amorphous_error:.1f} wt%",
        *([f"  - {absolute.doubt}"] if absolute.doubt else []),
    ]


def _together_lines(together: Replicates | None) -> list[str]:
    if together is None:
        return []
    found = ", ".join(
        f"{name} {100 * share:.2f} +- {100 * together.standard_errors[name]:.2f} "
        f"(scatter {100 * together.scatter[name]:.2f})"
        for name, share in together.fractions.items()
    )
    return [f"{together.n_scans} mounts    {found} wt%"]
