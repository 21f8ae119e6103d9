"""``ppu stock``: what is left of each powder, and what people said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import Request, ask, open_store, when, who
from ppu.core.errors import ConfigurationError, NotFoundError, nearest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.store.events import Event

_MOST_EVENTS = 10**6


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog='Example: ppu stock BaCO3 --refill 50 --note "lot 1234"')(stock)


def stock(
    powder: Annotated[
        str | None, typer.Argument(help="Show only one, and what people said of it.")
    ] = None,
    refill: Annotated[
        float | None,
        typer.Option(metavar="GRAMS", help="So much was added to what was there."),
    ] = None,
    correct: Annotated[
        float | None,
        typer.Option(metavar="GRAMS", help="So much is really there; needs --note."),
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
        _refill(store, powder, refill, note)
    if correct is not None:
        _correct(store, powder, correct, note)


def _refill(store: str, powder: str, mass_g: float, note: str) -> None:
    """Keep what was added."""

    def work(connection: Connection, now: float) -> list[Request]:
        from ppu.store.stock import ask_refill

        number = ask_refill(connection, powder, mass_g, who(), now, note)
        return [(f"{mass_g:g} g of {powder} were added", number)]

    ask(store, work)


def _correct(store: str, powder: str, mass_g: float, note: str) -> None:
    """Keep what is really there, and tell which jobs lack powder now."""

    def work(connection: Connection, now: float) -> list[Request]:
        from ppu.store.stock import ask_correction, lacking

        lack = lacking(connection, powder, mass_g)
        number = ask_correction(connection, powder, mass_g, who(), now, note)
        return [(f"{mass_g:g} g of {powder} are there{_lack(lack)}", number)]

    ask(store, work)


def _lack(lack_g: Mapping[int, float] | Mapping[str, float]) -> str:
    """Return which jobs lack powder, to be put behind something."""
    return "".join(
        f"; job {job} lacks {lack:.6g} g of what was allocated to it"
        for job, lack in lack_g.items()
    )


def _list(store: str, powder: str | None, *, as_json: bool) -> None:
    from ppu.store.events import events_after
    from ppu.store.stock import find_stock

    with open_store(store) as opened, opened.read() as connection:
        found = find_stock(connection)
        events = events_after(connection, kinds=["stock"], limit=_MOST_EVENTS)
    names = [one.name for one in found]
    if powder is not None and powder not in names:
        raise NotFoundError(
            f"there is no powder '{powder}' in the ledger; {nearest(powder, names)}"
        )
    shown = [one for one in found if powder in (None, one.name)]
    told = [one for one in events if one.content["powder"] == powder]
    if as_json:
        content = [asdict(one) for one in shown]
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
        said = event.content
        why = f": {said['note']}" if said["note"] else ""
        if "added_g" in said:
            what = f"{said['added_g']:g} g added, {said['mass_g']:.3f} g then"
        else:
            what = f"{said['mass_g']:.3f} g found, not {said['believed_g']:.3f} g"
            what += _lack(said["lacking_g"])
        typer.echo(f"  {when(event.stamp)}  {what}, by {said['by']}{why}")


def _plain(event: Event) -> dict[str, object]:
    from ppu.core.labtime import iso

    return {"time": iso(event.stamp), **event.content}
