"""``ppu samples``: where samples are, what became of them, and who says so."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import Request, ask, open_store, when, who
from ppu.cli.table import fitted
from ppu.core.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.store.custody import Entry, Sample


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu samples --move crucible_01=rack_1.1")(samples)


def samples(
    sample: Annotated[
        str | None, typer.Argument(help="Show all that happened to one.")
    ] = None,
    release: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SAMPLE",
            help="It is gone, its containers are empty and clean; may be repeated.",
        ),
    ] = None,
    move: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONTAINER=LOCATION",
            help="Where a container really is; may be repeated.",
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="List released samples, too.")
    ] = False,
    store: StoreOption = STORE,
    json_: JsonOption = False,
) -> None:
    """List samples with state, containers and places, or correct what is believed.

    What a person does here is kept with their name. If a cell runs, it is asked to do
    it, because it has a ledger of its own; it sees to each by itself, may refuse one
    and do another. Without a cell all is done, or nothing.
    """
    if release or move:
        if sample is not None:
            raise ConfigurationError("name a sample, or --release and --move; not both")
        _correct(store, release or [], move or [])
    elif sample is not None:
        _show(store, sample, as_json=json_)
    else:
        _list(store, is_all=all_, as_json=json_)


def _correct(store: str, released: list[str], moved: list[str]) -> None:
    """Do all that a person says, or ask the cell, which sees to each by itself."""
    from ppu.store.custody import ask_move, ask_release

    ways = []
    for text in moved:
        container, equals, location = text.partition("=")
        if not (container and equals and location):
            raise ConfigurationError(
                f"--move {text}: should look like crucible_01=rack_1.1"
            )
        ways.append((container, location))

    def work(connection: Connection, now: float) -> list[Request]:
        by, asked = who(), []
        for container, location in ways:
            number = ask_move(connection, container, location, by, now)
            asked.append((f"{container} is at {location}", number))
        for sample in released:
            number = ask_release(connection, sample, by, now)
            asked.append((f"{sample} is released", number))
        return asked

    ask(store, work)


def _list(store: str, *, is_all: bool, as_json: bool) -> None:
    from ppu.store.custody import ACTIVE, QUARANTINED, RELEASED, find_samples

    states = (ACTIVE, QUARANTINED, *((RELEASED,) if is_all else ()))
    with open_store(store) as opened, opened.read() as connection:
        found = find_samples(connection, states=states)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found]))
        return
    if not found:
        typer.echo("no samples")
        return
    for one in found:
        typer.echo(fitted(_line(one)))


def _line(sample: Sample) -> str:
    places = [
        f"{container} at {place or 'NOBODY KNOWS WHERE'}"
        for container, place in sample.places.items()
    ]
    why = f"  ({sample.reason})" if sample.reason else ""
    where = ", ".join(places) or "-"
    return f"{sample.id:32} job {sample.job_id:<6} {sample.state:12} {where}{why}"


def _show(store: str, name: str, *, as_json: bool) -> None:
    from ppu.core.labtime import iso
    from ppu.store.custody import history

    with open_store(store) as opened, opened.read() as connection:
        sample, lines = history(connection, name)
    if as_json:
        told = [{**asdict(line), "time": iso(line.stamp)} for line in lines]
        typer.echo(json.dumps({**asdict(sample), "history": told}))
        return
    typer.echo(_line(sample))
    for line in lines:
        typer.echo(f"  {when(line.stamp)}  {_words(line)}")


def _words(entry: Entry) -> str:
    text = entry.kind
    if entry.container is not None:
        text += f" {entry.container}"
        if entry.origin != entry.destination:
            text += f" from {entry.origin} to {entry.destination}"
        else:
            text += f" at {entry.destination}"
    if entry.by:
        text += f", by {entry.by}"
    return text + (f": {entry.text}" if entry.text else "")
