"""``ppu stock``: what is left of each powder, and what people said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import lacks, open_store, say, when
from ppu.core.errors import ConfigurationError
from ppu.core.numbers import number_option

if TYPE_CHECKING:
    from ppu.operations.views import EventView


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog='Example: ppu stock BaCO3 --refill 50 --note "lot 1234"')(stock)


def stock(
    powder: Annotated[
        str | None, typer.Argument(help="Show only one, and what people said of it.")
    ] = None,
    refill: Annotated[
        float | None,
        typer.Option(
            metavar="GRAMS",
            parser=number_option(),
            help="So much was added to what was there.",
        ),
    ] = None,
    correct: Annotated[
        float | None,
        typer.Option(
            metavar="GRAMS",
            parser=number_option(),
            help="So much is really there; needs --note.",
        ),
    ] = None,
    note: Annotated[
        str, typer.Option(help="Why, or from which lot; kept with it.")
    ] = "",
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List powders: what is there, and what is allocated of it to jobs.

    Refill first, then say so; --correct says what is really there, after a mistake for
    instance. It is kept with the name of whoever says it. If a cell runs, it is asked
    to take note, because it has a ledger of its own.
    """
    from ppu.store.requests import CorrectStock, Refill

    if refill is None and correct is None:
        if note:
            raise ConfigurationError("--note is kept with a --refill or --correct")
        _list(store, powder, as_json=json_)
        return
    if powder is None:
        option = "refill" if correct is None else "correct"
        raise ConfigurationError(f"say which: ppu stock POWDER --{option} GRAMS")
    if refill is not None and correct is not None:
        raise ConfigurationError("give --refill or --correct, not both")
    if refill is not None:
        added = Refill(powder=powder, mass_g=refill, note=note)
        say(store, [added], [f"{refill:g} g of {powder} were added"])
    if correct is not None:
        found = CorrectStock(powder=powder, mass_g=correct, note=note)
        say(store, [found], [f"{correct:g} g of {powder} are there"])


def _list(store: str, powder: str | None, *, as_json: bool) -> None:
    from ppu.operations import looking

    with open_store(store) as opened:
        shown = looking.stock(opened, powder)
        told = [] if powder is None else looking.stock_changes(opened, powder)
    if as_json:
        content = [one.model_dump(mode="json") for one in shown]
        if powder is not None:
            content[0]["refills"] = [
                _plain(event) for event in told if "added_g" in event.content
            ]
            content[0]["corrections"] = [
                _plain(event) for event in told if "added_g" not in event.content
            ]
        typer.echo(json.dumps(content))
        return
    typer.echo(f"{'powder':16} {'there':>12} {'allocated':>12}")
    for one in shown:
        there = "unknown" if one.mass_g is None else f"{one.mass_g:.3f} g"
        typer.echo(f"{one.name:16} {there:>12} {one.allocated_g:10.3f} g")
    for event in told:
        typer.echo(f"  {when(event.time)}  {_words(event)}")


def _words(event: EventView) -> str:
    """Return for people what somebody said of a powder."""
    from ppu.operations.views import StockChange

    said = event.change
    if not isinstance(said, StockChange):
        return str(event.content)
    if said.added_g is not None:
        what = f"{said.added_g:g} g added, {said.mass_g:.3f} g then"
    else:
        what = f"{said.mass_g:.3f} g found, not {said.believed_g:.3f} g"
        what += lacks(said.lacking_g)
    return f"{what}, by {said.by}" + (f": {said.note}" if said.note else "")


def _plain(event: EventView) -> dict[str, object]:
    from ppu.core.labtime import iso

    return {"time": iso(event.time), **event.content}
