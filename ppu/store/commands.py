"""What people and clients ask the cell to do; rows, so that no request is lost.

One is handled when its effect is kept, in the same transaction: a cell that dies before
leaves it to the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from ppu.core.errors import ConfigurationError
from ppu.store.events import announce, encode
from ppu.store.schema import commands

__all__ = ["REFUSED", "Command", "outcomes", "request", "settle", "waiting"]

REFUSED = "refused: "
"""How the outcome of a request begins that was not granted."""


@dataclass(frozen=True)
class Command:
    """A request that waits for the cell.

    Attributes:
        sequence: Its number, which is that of the event that announced it.
        command: What to do: ``cancel``, ``abort``, ...
        by: Who asks.
        asked: When, as a stamp [s since 1970].
        job_id: The job that it is about, if any.
        content: More that it says.
    """

    sequence: int
    command: str
    by: str
    asked: float
    job_id: int | None
    content: dict[str, Any]


def request(
    connection: Connection,
    command: str,
    by: str,
    now: float,
    *,
    job_id: int | None = None,
    content: Mapping[str, Any] | None = None,
) -> int:
    """Ask the cell to do something; return the number of the request."""
    said = content or {}
    announced = {"command": command, "by": by, **said}
    sequence = announce(connection, "command", announced, now, job_id)
    row = {
        "sequence": sequence,
        "job_id": job_id,
        "command": command,
        "content": encode(said),
        "by": by,
        "asked": now,
    }
    connection.execute(commands.insert(), row)
    return sequence


def waiting(connection: Connection, job_id: int | None = None) -> list[Command]:
    """Return the requests that nobody has handled yet, oldest first.

    Args:
        connection: A transaction of the store.
        job_id: Only those about this job.
    """
    query = (
        select(commands)
        .where(commands.c.handled.is_(None))
        .order_by(commands.c.sequence)
    )
    if job_id is not None:
        query = query.where(commands.c.job_id == job_id)
    return [
        Command(
            row.sequence,
            row.command,
            row.by,
            row.asked,
            row.job_id,
            json.loads(row.content),
        )
        for row in connection.execute(query)
    ]


def outcomes(connection: Connection, numbers: Iterable[int]) -> dict[int, str]:
    """Return what became of those of some requests that were handled."""
    query = select(commands.c.sequence, commands.c.outcome).where(
        commands.c.sequence.in_(list(numbers)), commands.c.handled.is_not(None)
    )
    return {row.sequence: row.outcome or "" for row in connection.execute(query)}


def settle(connection: Connection, sequence: int, outcome: str, now: float) -> None:
    """Say what became of a request.

    Raises:
        ConfigurationError: If there is no such request, or it was handled before.
    """
    found = connection.execute(
        commands.update()
        .where(commands.c.sequence == sequence, commands.c.handled.is_(None))
        .values(handled=now, outcome=outcome)
        .returning(commands.c.job_id)
    ).first()
    if found is None:
        raise ConfigurationError(f"no request {sequence} waits")
    content = {"command": sequence, "outcome": outcome}
    announce(connection, "command handled", content, now, found.job_id)
