"""``ppu stock``: what is left of each powder, and what people added to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import Request, ask, open_store, when, who
from ppu.core.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.store.events import Event

_MOST_REFILLS = 10**6


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog='Example: ppu stock BaCO3 --refill 50 --note "lot 1234"')(stock)


def stock(
    powder: Annotated[
        str | None, typer.Argument(help="Show only one, and who refilled it when.")
    ] = None,
    refill: Annotated[
        float | None,
        typer.Option(metavar="GRAMS", help="So much was added to what was there."),
    ] = None,
    note: Annotated[
        str, typer.Option(help="Why, or from which lot; kept with it.")
    ] = "",
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List powders: what is there, and what jobs have reserved of it.

    Refill first, then say so. It is kept with the name of whoever says it. If a cell
    runs, it is asked to take note, because it has books of its own.
    """
    if refill is None:
        if note:
            raise ConfigurationError("--note is kept with a --refill")
        _list(store, powder, as_json=json_)
        return
    if powder is None:
        raise ConfigurationError("say which: ppu stock POWDER --refill GRAMS")
    name, added_g = powder, refill

    def work(connection: Connection, now: float) -> list[Request]:
        from ppu.store.stock import ask_refill

        number = ask_refill(connection, name, added_g, who(), now, note)
        return [(f"{added_g:g} g of {name} were added", number)]

    ask(store, work)


def _list(store: str, powder: str | None, *, as_json: bool) -> None:
    from ppu.store.events import events_after
    from ppu.store.stock import find_stock

    with open_store(store) as opened, opened.read() as connection:
        found = find_stock(connection)
        events = events_after(connection, kinds=["stock"], limit=_MOST_REFILLS)
    names = [one.name for one in found]
    if powder is not None and powder not in names:
        raise ConfigurationError(
            f"there is no powder '{powder}' in the books; {nearest(powder, names)}"
        )
    shown = [one for one in found if powder in (None, one.name)]
    refills = [one for one in events if one.content["powder"] == powder]
    if as_json:
        content = [asdict(one) for one in shown]
        if powder is not None:
            content[0]["refills"] = [_plain(event) for event in refills]
        typer.echo(json.dumps(content))
        return
    typer.echo(f"{'powder':16} {'there':>12} {'reserved':>12}")
    for one in shown:
        there = "unknown" if one.mass_g is None else f"{one.mass_g:.3f} g"
        typer.echo(f"{one.name:16} {there:>12} {one.reserved_g:10.3f} g")
    for event in refills:
        said = event.content
        why = f": {said['note']}" if said["note"] else ""
        typer.echo(
            f"  {when(event.stamp)}  {said['added_g']:g} g added, {said['mass_g']:.3f} "
            f"g then, by {said['by']}{why}"
        )


def _plain(event: Event) -> dict[str, object]:
    from ppu.core.labtime import iso

    return {"time": iso(event.stamp), **event.content}
