"""How a door opens a store, changes it and waits for what the cell makes of that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection

from ppu.core.errors import NotFoundError
from ppu.core.labtime import wall_stamp
from ppu.operations.views import AskedView
from ppu.store.commands import Outcome, outcomes
from ppu.store.database import making_file
from ppu.store.events import last_stamp
from ppu.store.store import Store
from ppu.store.wake import wake

__all__ = [
    "PATIENCE_WALL_S",
    "await_outcomes",
    "change",
    "is_there",
    "open_store",
    "stamp_of",
]

T = TypeVar("T")

PATIENCE_WALL_S: Final = 5.0
"""How long a door waits for a cell that is busy."""
_LOOK_EVERY_WALL_S: Final = 0.1


@contextlib.contextmanager
def open_store(where: str, *, may_be_new: bool = False) -> Iterator[Store]:
    """Open the store that a door names.

    It is not read through for damage first, which takes time that grows with it. A new
    one is there when the block has ended well: none is left of what was refused.

    Raises:
        NotFoundError: If there is none, unless it *may_be_new*.
        ConflictError: If another process has made one meanwhile; nothing was kept.
        ConfigurationError: If there can be no such file.
    """
    if not may_be_new and not is_there(where):
        raise NotFoundError(
            f"there is no store {where}; name another, or submit a job to make one"
        )
    with contextlib.ExitStack() as ends:
        opened, called = where, None
        if not is_there(where):
            called = Path(where.removeprefix("sqlite:///"))
            opened = str(ends.enter_context(making_file(called)))
        yield ends.enter_context(
            Store(
                opened,
                is_verified=False,
                busy_wall_s=PATIENCE_WALL_S,
                called=called,
            )
        )


def is_there(where: str) -> bool:
    """Return whether there is a store, as far as that shows without opening it."""
    path = where.removeprefix("sqlite:///")
    return "://" in path or Path(path).exists()


def stamp_of(connection: Connection) -> float:
    """Return the stamp of now: the wall clock's, unless the lab is ahead of it.

    A twin's calendar starts in 2030; what is asked of it is not older than what it did.
    """
    return max(wall_stamp(), last_stamp(connection) or 0.0)


def change(store: Store, work: Callable[[Connection, float], T]) -> T:
    """Do *work* in a transaction, and wake the cell.

    Args:
        store: The store.
        work: Gets the transaction and the stamp of now.
    """
    result = store.write(lambda connection: work(connection, stamp_of(connection)))
    wake(store.where)
    return result


async def await_outcomes(
    store: Store,
    asked: Sequence[AskedView],
    patience_wall_s: float = PATIENCE_WALL_S,
) -> list[AskedView]:
    """Return what a cell makes of requests, as far as it says so in time.

    A cell that does not listen is not waited for.

    Args:
        store: The store.
        asked: What was asked of it.
        patience_wall_s: How long it is waited for (real time) [s].
    """
    numbers = [one.number for one in asked if one.number is not None]
    if not numbers or not wake(store.where):
        return list(asked)
    found = dict[int, Outcome]()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_wall_s):
            while len(found) < len(numbers):
                await asyncio.sleep(_LOOK_EVERY_WALL_S)
                with store.read() as connection:
                    found = outcomes(connection, numbers)
    return [
        one
        if one.number not in found
        else one.model_copy(
            update={
                "is_done": not found[one.number].is_refused,
                "is_refused": found[one.number].is_refused,
                "outcome": found[one.number].text,
                "advice": found[one.number].advice,
            }
        )
        for one in asked
    ]
