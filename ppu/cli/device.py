"""``ppu device``: devices that are out of service, because a person said so."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ppu.cli.options import STORE, JsonOption, StoreOption
from ppu.cli.store import open_store, say, when

Name = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Its name in the lab file.")
]

device_app = typer.Typer(
    help="Put devices out of service, and return them to it.",
    epilog="Example: ppu device list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(device_app, name="device")


@device_app.command(
    "tag-out", epilog='Example: ppu device tag-out furnace_1 --reason "relay chatters"'
)
def tag_out(
    name: Name,
    reason: Annotated[
        str, typer.Option(help="Why; shown to whoever waits for the device.")
    ],
    store: StoreOption = STORE,
) -> None:
    """Put a device out of service: no job takes it before you return it.

    What is under way on it goes on, and nothing is switched off. This is a tag, not a
    lock: whoever works on the device locks its supply out.
    """
    from ppu.store.requests import TagOut

    say(store, [TagOut(device=name, reason=reason)], [f"{name} is tagged out"])


@device_app.command("return", epilog="Example: ppu device return furnace_1")
def return_(
    name: Name,
    note: Annotated[str, typer.Option(help="What was done, for the record.")] = "",
    store: StoreOption = STORE,
) -> None:
    """Return a device to service: jobs that wait for it go on."""
    from ppu.store.requests import ReturnDevice

    say(
        store,
        [ReturnDevice(device=name, note=note)],
        [f"{name} is in service again"],
    )


@device_app.command("list", epilog="Example: ppu device list")
def list_(store: StoreOption = STORE, json_: JsonOption = False) -> None:
    """List the devices that are out of service."""
    from ppu.operations import looking

    with open_store(store) as opened:
        found = looking.tagged_out(opened)
    if json_:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found]))
        return
    for one in found:
        typer.echo(
            f"{one.device}: tagged out by {one.by} since {when(one.since)} UTC: "
            f"{one.reason}"
        )
    if not found:
        typer.echo("every device is in service")
