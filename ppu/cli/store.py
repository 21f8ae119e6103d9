"""``ppu store``: look after a store; and how all commands open one."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ppu.cli.exits import Exit
from ppu.cli.options import STORE, StoreOption
from ppu.core.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ppu.core.remedies import Advice
    from ppu.store.commands import Outcome
    from ppu.store.store import Store

T = TypeVar("T")

PATIENCE_WALL_S = 5.0
"""How long a person's command waits for a cell that is busy."""
_LOOK_EVERY_WALL_S = 0.1

Request = tuple[str, int | None]
"""What a person asked for, in words, and its number if it waits for the cell."""

store_app = typer.Typer(
    help="Look after a store.", no_args_is_help=True, rich_markup_mode=None
)


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(store_app, name="store")


@store_app.command(epilog="Example: ppu store check --store /data/lab.sqlite")
def check(store: StoreOption = STORE) -> None:
    """Check everything that must hold in a store; each violation is a line.

    The exit code is 4 if there is one, or if the store is damaged.
    """
    with open_store(store) as opened:
        faults = opened.check()
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
    with open_store(store) as opened:
        opened.backup(target)
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


# -- what all commands share -------------------------------------------------------


@contextlib.contextmanager
def open_store(where: str, *, may_be_new: bool = False) -> Iterator[Store]:
    """Open the store that a command names.

    It is not read through for damage first: ``ppu store check`` does that.

    Raises:
        NotFoundError: If there is none, unless it *may_be_new*.
    """
    from ppu.store.store import Store

    path = where.removeprefix("sqlite:///")
    if not may_be_new and "://" not in path and not Path(path).exists():
        raise NotFoundError(
            f"there is no store {path}; name it with --store or $PPU_STORE, or submit "
            "a job to make one"
        )
    with Store(where, is_verified=False, busy_wall_s=PATIENCE_WALL_S) as store:
        yield store


def change(where: str, work: Callable[[Connection, float], T]) -> T:
    """Do *work* in a transaction, and wake the cell.

    Args:
        where: The store.
        work: Gets the transaction and the stamp of now.
    """
    with open_store(where) as store:
        return write(store, where, work)


def write(store: Store, where: str, work: Callable[[Connection, float], T]) -> T:
    """Do *work* in a transaction of an open store, and wake the cell."""
    from ppu.store.wake import wake

    result = store.write(lambda connection: work(connection, stamp(connection)))
    wake(where)
    return result


def ask(where: str, work: Callable[[Connection, float], list[Request]]) -> None:
    """Do *work* in a transaction, and tell what came of each of its requests.

    A cell that listens is waited for, so that whoever asks reads a refusal at once.

    Args:
        where: The store.
        work: Gets the transaction and the stamp of now; returns what each request says,
            and its number if it waits for the cell.

    Raises:
        ConflictError: If the cell refuses one of them.
    """
    from ppu.store.commands import Outcome

    done = Outcome("", is_refused=False)
    with open_store(where) as store:
        asked = write(store, where, work)
        waiting = [number for _, number in asked if number is not None]
        settled = asyncio.run(_outcomes(store, where, waiting)) if waiting else {}
    refusals: list[str] = []
    advice: list[Advice] = []
    for text, number in asked:
        outcome = done if number is None else settled.get(number)
        if outcome is None:
            typer.echo(
                f"{text}: the cell was asked to take note, and has not said so yet"
            )
        elif outcome.is_refused:
            refusals.append(f"{text}: the cell refused: {outcome.text}")
            advice += outcome.advice
        else:
            typer.echo(text)
    if refusals:
        raise ConflictError("; ".join(refusals), advice=advice)


async def _outcomes(store: Store, where: str, numbers: list[int]) -> dict[int, Outcome]:
    """Return what a cell that listens makes of requests, as far as it does so soon."""
    from ppu.store.commands import outcomes
    from ppu.store.wake import wake

    found: dict[int, Outcome] = {}
    if not wake(where):
        return found
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_WALL_S):
            while len(found) < len(numbers):
                await asyncio.sleep(_LOOK_EVERY_WALL_S)
                with store.read() as connection:
                    found = outcomes(connection, numbers)
    return found


def stamp(connection: Connection) -> float:
    """Return the stamp of now: the wall clock's, unless the lab is ahead of it.

    A twin's calendar starts in 2030; what is asked of it is not older than what it did.
    """
    from ppu.core.labtime import wall_stamp
    from ppu.store.events import last_stamp

    return max(wall_stamp(), last_stamp(connection) or 0.0)


def who() -> str:
    """Return the login name of whoever asks."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return f"user {os.getuid()}"


def when(stamp: float | None) -> str:
    """Return *stamp* for people, to the second; a dash if there is none."""
    from ppu.core.labtime import iso

    return "-" if stamp is None else iso(stamp)[:19].replace("T", " ")
