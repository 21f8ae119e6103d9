"""``ppu truth``: what a camera would show of a running ``ppu sim``."""

from __future__ import annotations

from typing import Annotated

import typer

from ppu.cli.fault import ask_bench, read_address


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu truth --control 127.0.0.1:40321")(truth)


def truth(
    control: Annotated[
        str, typer.Option(help="HOST:PORT that `ppu sim` printed.")
    ] = "",
) -> None:
    """Tell where the containers of a simulated bench really are.

    For whoever plays the person at a simulated bench; PPU itself never asks this.
    """
    host, port = read_address(control)
    where = ask_bench(host, port, {"truth": True})["containers"]
    for container, place in sorted(where.items()):
        typer.echo(f"{container:16} {place or 'in a hand, or on the floor'}")
