"""``ppu person``: be the person of a simulated bench, at a terminal."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from ppu.cli.fault import ask_bench, read_address
from ppu.core.errors import ConfigurationError

_LOOK_EVERY_WALL_S: Final = 0.5


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu person --control 127.0.0.1:40321")(person)


def person(
    control: Annotated[
        str, typer.Option(help="HOST:PORT that `ppu sim` printed.")
    ] = "",
    name: Annotated[
        str | None, typer.Option(help="Which person, if several are asked.")
    ] = None,
    done: Annotated[
        bool, typer.Option("--done", help="Do what is asked, and answer so.")
    ] = False,
    refuse: Annotated[
        str | None, typer.Option(metavar="WHY", help="Answer that you will not.")
    ] = None,
) -> None:
    """Play a person of a bench that `ppu sim --play PERSON` serves.

    Without --done or --refuse it waits for what is asked, and asks you, until Ctrl-C.
    What you say is done is done in the simulated world; if the world does not allow it,
    you are told why, and asked again.
    """
    address = read_address(control)
    if done and refuse is not None:
        raise ConfigurationError("say --done or --refuse WHY, not both")
    if done or refuse is not None:
        who, _ = asyncio.run(_asked(address, name, is_patient=False))
        typer.echo(_answer(address, who, refuse))
        return
    while True:
        who, task = asyncio.run(_asked(address, name, is_patient=True))
        typer.echo(f"{who}: please {task}")
        _talk(address, who)


async def _asked(
    address: tuple[str, int], name: str | None, *, is_patient: bool
) -> tuple[str, str]:
    """Return who is asked, and what; wait for it, if that is wanted.

    Raises:
        ConfigurationError: If nothing is asked, or several are and nobody is named.
    """
    while True:
        asked = ask_bench(*address, {"asked": True})["asked"]
        if name is not None:
            asked = {who: task for who, task in asked.items() if who == name}
        if len(asked) > 1:
            raise ConfigurationError(
                f"{', '.join(sorted(asked))} are asked; say which one you are: --name"
            )
        for who, task in asked.items():
            return who, task
        if not is_patient:
            raise ConfigurationError("nothing is asked now")
        await asyncio.sleep(_LOOK_EVERY_WALL_S)


def _talk(address: tuple[str, int], who: str) -> None:
    """Ask until there is an answer that holds."""
    while True:
        said = typer.prompt("  done, or refused and the reason").strip()
        word, _, why = said.partition(" ")
        word = word.rstrip(".,:;!").lower()
        if word not in ("done", "refused"):
            typer.echo("  not understood")
            continue
        try:
            typer.echo(f"  {_answer(address, who, why if word == 'refused' else None)}")
        except ConfigurationError as exc:
            typer.echo(f"  that cannot be: {exc}")
            continue
        return


def _answer(address: tuple[str, int], who: str, why: str | None) -> str:
    """Answer, and return what the bench made of it."""
    said = {"did": True} if why is None else {"refuses": why}
    return str(ask_bench(*address, {"person": who, **said})["done"])
