"""``ppu store``: look after a store; and what all commands on one share."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.exits import Exit
from ppu.cli.options import STORE, StoreOption
from ppu.core.errors import ConflictError, NotFoundError
from ppu.core.names import shown
from ppu.core.remedies import Advice

if TYPE_CHECKING:
    from ppu.operations.people import Correction
    from ppu.operations.views import AskedView
    from ppu.store.store import Store

store_app = typer.Typer(
    help="Look after a store.",
    epilog="Example: ppu store check --store /data/lab.sqlite",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(store_app, name="store")


@store_app.command(epilog="Example: ppu store check --store /data/lab.sqlite")
def check(store: StoreOption = STORE) -> None:
    """Check everything that must hold in a store; each violation is a line.

    The exit code is 4 if there is one, or if the store is damaged.
    """
    from ppu.operations import looking

    with open_store(store) as opened:
        faults = looking.faults(opened)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(Exit.FAILED)
    typer.echo(f"{opened.name}: in order")


@store_app.command(epilog="Example: ppu store backup /backup/monday.sqlite")
def backup(
    target: Annotated[Path, typer.Argument(help="File to write; a new one.")],
    store: StoreOption = STORE,
) -> None:
    """Copy a store as it is now, while jobs run."""
    from ppu.operations import keeping

    with open_store(store) as opened:
        n_bytes = keeping.backup(opened, target)
    typer.echo(f"{target}: {n_bytes / 1e6:.1f} MB")


@store_app.command(epilog="Example: ppu store restore /backup/monday.sqlite")
def restore(
    copy: Annotated[Path, typer.Argument(help="A file that `backup` has written.")],
    store: StoreOption = STORE,
) -> None:
    """Put a copy in the place of a store that no cell owns.

    What was there is kept beside it. A store that does not know all that was done is
    noticed by the next cell, which waits for a person: `ppu recover --accept-store`.
    """
    from ppu.operations import keeping

    done = keeping.restore(store, copy)
    typer.echo(f"{store}: as it was at {when(done.last_stamp)} UTC")
    if done.kept is not None:
        typer.echo(f"what was there before: {done.kept}")


# -- what all commands share -------------------------------------------------------


@contextlib.contextmanager
def open_store(where: str, *, may_be_new: bool = False) -> Iterator[Store]:
    """Open the store that a command names.

    Raises:
        NotFoundError: If there is none, unless it *may_be_new*.
    """
    from ppu.operations import access

    if not may_be_new and not access.is_there(where):
        path = where.removeprefix("sqlite:///")
        raise NotFoundError(
            f"there is no store {path}; name it with --store or $PPU_STORE, or submit "
            "a job to make one"
        )
    with access.open_store(where, may_be_new=may_be_new) as store:
        yield store


def say(where: str, said: Sequence[Correction], words: Sequence[str]) -> None:
    """Keep what a person says, and tell what came of each.

    Args:
        where: The store.
        said: What is said.
        words: The same, for people.

    Raises:
        ConflictError: If the cell refuses one of them.
    """
    from ppu.operations import people

    ask_cell(where, lambda store: people.say(store, said, who()), words)


def ask_cell(
    where: str, ask: Callable[[Store], list[AskedView]], words: Sequence[str]
) -> None:
    """Ask the cell of a store for something, and tell what came of each request.

    A cell that listens is waited for, so that whoever asks reads a refusal at once.

    Args:
        where: The store.
        ask: Asks.
        words: What was asked for, for people, one request after the other.

    Raises:
        ConflictError: If the cell refuses one of them.
    """
    from ppu.operations import access

    with open_store(where) as store:
        asked = asyncio.run(access.await_outcomes(store, ask(store)))
    refusals: list[str] = []
    advice: list[Advice] = []
    for text, one in zip(words, asked, strict=True):
        told = f"{text}{lacks(one.lacking_g)}"
        if one.is_refused:
            refusals.append(f"{told}: the cell refused: {one.outcome}")
            advice += one.advice
        elif one.is_done:
            typer.echo(told if one.outcome in ("", "done") else one.outcome)
        else:
            typer.echo(
                f"{told}: the cell was asked to take note, and has not said so yet"
            )
    if refusals:
        raise ConflictError("; ".join(refusals), advice=advice)


def lacks(lacking_g: Mapping[int, float]) -> str:
    """Return which jobs lack powder, to be put behind something."""
    return "".join(
        f"; job {job} lacks {lack_g:.6g} g of what was allocated to it"
        for job, lack_g in lacking_g.items()
    )


def who() -> str:
    """Return the login name of whoever asks."""
    try:
        return shown(getpass.getuser())  # $LOGNAME may say anything
    except (OSError, KeyError):  # a container may have no name for its user
        return f"user {os.getuid()}"


def when(stamp: float | None) -> str:
    """Return *stamp* for people, to the second; a dash if there is none."""
    from ppu.core.labtime import iso

    return "-" if stamp is None else iso(stamp)[:19].replace("T", " ")
