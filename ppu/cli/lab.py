"""``ppu lab``: check a lab file, or print the schema of lab files."""

from __future__ import annotations

import json
from typing import Annotated

import typer

lab_app = typer.Typer(
    help="Check lab files.",
    epilog="Example: ppu lab check my-lab.yaml",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(lab_app, name="lab")


@lab_app.command(epilog="Example: ppu lab check my-lab.yaml")
def check(
    lab: Annotated[str, typer.Argument(help="Lab name or file.")] = "a-lab",
) -> None:
    """Check a lab file against its drivers and simulators; nothing is connected."""
    from ppu.core.labfile import load_lab
    from ppu.core.registry import find_lab
    from ppu.devices.build import check_devices
    from ppu.twin.bench import Bench

    path = find_lab(lab)
    file = load_lab(path)
    check_devices(file, path)
    twins = tuple(name for name, entry in file.devices.items() if entry.simulator)
    if twins:
        Bench(file, path, file.seed, only=twins)
    typer.echo(
        f"{path}: lab {file.lab} is in order: {len(file.devices)} devices, "
        f"{len(file.locations)} locations, {len(file.containers)} containers, "
        f"{len(file.stock)} powders"
    )


@lab_app.command(epilog="Example: ppu lab schema > lab.schema.json")
def schema() -> None:
    """Print the JSON Schema of lab files."""
    from ppu.core.labfile import LabFile

    typer.echo(json.dumps(LabFile.model_json_schema(), indent=2))
