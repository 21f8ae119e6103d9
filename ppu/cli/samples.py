"""``ppu samples``: where samples are, what became of them, and who says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import open_store, say, when
from ppu.cli.table import with_reason
from ppu.core.errors import ConfigurationError

if TYPE_CHECKING:
    from ppu.operations.views import EntryView, SampleView


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
    from ppu.store.requests import MoveContainer, ReleaseSample

    said: list[MoveContainer | ReleaseSample] = []
    words = []
    for text in moved:
        container, equals, location = text.partition("=")
        if not (container and equals and location):
            raise ConfigurationError(
                f"--move {text}: should look like crucible_01=rack_1.1"
            )
        said.append(MoveContainer(container=container, location=location))
        words.append(f"{container} is at {location}")
    for sample in released:
        said.append(ReleaseSample(sample=sample))
        words.append(f"{sample} is released")
    say(store, said, words)


def _list(store: str, *, is_all: bool, as_json: bool) -> None:
    from ppu.operations import looking

    with open_store(store) as opened:
        found = looking.samples(opened, with_released=is_all)
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found]))
        return
    if not found:
        typer.echo("no samples")
        return
    for one in found:
        typer.echo(with_reason(_line(one), one.reason or ""))


def _line(sample: SampleView) -> str:
    places = [
        f"{container} at {place or 'NOBODY KNOWS WHERE'}"
        for container, place in sample.places.items()
    ]
    where = ", ".join(places) or "-"
    return f"{sample.id:32} job {sample.job_id:<6} {sample.state:12} {where}"


def _show(store: str, name: str, *, as_json: bool) -> None:
    from ppu.operations import looking

    with open_store(store) as opened:
        sample = looking.sample(opened, name)
    if as_json:
        typer.echo(sample.model_dump_json())
        return
    typer.echo(_line(sample) + (f"  ({sample.reason})" if sample.reason else ""))
    for line in sample.history:
        typer.echo(f"  {when(line.time)}  {_words(line)}")


def _words(entry: EntryView) -> str:
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
