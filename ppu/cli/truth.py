"""``ppu truth``: eyes and hands of a person at a running ``ppu sim``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ppu.cli.fault import ask_bench, read_address
from ppu.core.errors import ConfigurationError
from ppu.core.numbers import NotPlainError, read_number


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu truth --control 127.0.0.1:40321 --carry crucible_01 "
        "--to rack_1.1"
    )(truth)


def truth(
    control: Annotated[
        str, typer.Option(help="HOST:PORT that `ppu sim` printed.")
    ] = "",
    carry: Annotated[
        str | None,
        typer.Option(
            metavar="CONTAINER", help="Carry it, even out of a gripper; needs --to."
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="LOCATION", help="Where --carry puts it.")
    ] = None,
    empty: Annotated[
        list[str] | None,
        typer.Option(metavar="CONTAINER", help="Empty and clean it; may be repeated."),
    ] = None,
    refill: Annotated[
        str | None, typer.Option(metavar="POWDER=GRAMS", help="Add powder to stock.")
    ] = None,
) -> None:
    """Tell where the containers of a simulated bench really are, or lend a hand.

    For whoever plays the person at a simulated bench; PPU itself never asks this, and
    does not know what was done here: say so with `ppu samples` and `ppu stock`.
    """
    host, port = read_address(control)
    requests = list(_requests(carry, to, empty or [], refill))
    for request in requests:
        answer = ask_bench(host, port, request)
        typer.echo(f"{answer['lab_time_s']:.0f} s: {answer['done']}")
    if requests:
        return
    where = ask_bench(host, port, {"truth": True})["containers"]
    for container, place in sorted(where.items()):
        typer.echo(f"{container:16} {place or 'in a hand'}")


def _requests(
    carry: str | None, to: str | None, empty: list[str], refill: str | None
) -> Iterator[dict[str, Any]]:
    """Yield what the bench is asked to do.

    Raises:
        ConfigurationError: If the words do not say it.
    """
    if (carry is None) != (to is None):
        raise ConfigurationError("say what and where: --carry CONTAINER --to LOCATION")
    if carry is not None:
        yield {"carry": carry, "to": to}
    for container in empty:
        yield {"empty": container}
    if refill is not None:
        powder, _, mass = refill.partition("=")
        try:
            yield {"refill": powder, "mass_g": read_number(mass)}
        except NotPlainError as exc:
            raise ConfigurationError(
                f"--refill {refill}: should look like BaCO3=50: the mass {exc}"
            ) from None
