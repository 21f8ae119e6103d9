"""``ppu calibrate``: instruments against their standards on the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ppu.core.numbers import number_option

_EXAMPLE = "Example: ppu calibrate diffractometer lab6.xrdml --date 2026-12-01"

app = typer.Typer(
    name="calibrate",
    help="Check instruments against certified standards.",
    epilog=_EXAMPLE,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _calibrate() -> None:
    """Check instruments against certified standards."""


@app.command("diffractometer", epilog=_EXAMPLE)
def calibrate_diffractometer(
    scan: Annotated[
        Path, typer.Argument(help="Scan of the pure standard.", metavar="SCAN")
    ],
    date: Annotated[
        str, typer.Option(help="When the standard was scanned, as 2026-12-01.")
    ],
    standard: Annotated[
        str, typer.Option(help="Si (SRM 640) or LaB6 (SRM 660).")
    ] = "LaB6",
    valid_days: Annotated[
        float,
        typer.Option(
            parser=number_option(0.0, 36_500.0),
            help="For how long the calibration holds.",
        ),
    ] = 90.0,
    write: Annotated[
        Path | None,
        typer.Option(help="Keep it in this .json file.", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find zero, height, profile, wavelength and axial divergence from a standard."""
    # Numerical libraries take a second to load; `ppu --help` must not wait for them.
    from ppu_protocols.analysis.calibrate import (  # noqa: PLC0415 # see above
        STANDARDS,
        calibrate,
        write_calibration,
    )
    from ppu_protocols.analysis.errors import AnalysisError  # noqa: PLC0415 # see above
    from ppu_protocols.analysis.files import read_scan  # noqa: PLC0415 # see above

    try:
        try:
            measured = datetime.fromisoformat(date)
        except ValueError as error:
            raise AnalysisError(f"--date {date}: a date as 2026-12-01") from error
        found = calibrate(read_scan(scan), standard, measured, valid_days)
        if write is not None:
            write_calibration(found, write)
    except AnalysisError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=2) from error
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    gauss, lorentz = found.gaussian_fwhm_deg, found.lorentzian_fwhm_deg
    lines = [
        f"standard    {standard}: {STANDARDS[standard]}",
        f"zero        {found.zero_deg:+.4f} +- {found.zero_error_deg:.4f} deg",
        f"height      {found.height_mm:+.3f} mm of this specimen",
        f"Gaussian    {gauss[0]:.4f} deg and {gauss[1]:.4f} deg tan(theta)",
        f"Lorentzian  {lorentz[0]:.4f} deg / cos(theta) and {lorentz[1]:.4f} deg "
        "tan(theta), the standard's included",
        f"axial       {found.axial_shift_deg:+.4f} deg at 20 deg",
        f"wavelength  {found.wavelength_ratio:.6f} of the stated",
        f"valid       until {found.valid_until}",
        *(f"  - {remark}" for remark in found.remarks),
    ]
    typer.echo("\n".join(lines))
