"""What people and clients ask the cell to do; rows, so that no request is lost.

One is handled when its effect is kept, in the same transaction: a cell that dies before
leaves it to the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from ppu.core.errors import NotFoundError
from ppu.core.remedies import Advice, plain_advice, read_advice
from ppu.store.events import EventKind, announce, encode
from ppu.store.requests import Request, UnknownRequest, read_request
from ppu.store.schema import commands

__all__ = ["REFUSED", "Command", "Outcome", "outcomes", "request", "settle", "waiting"]

REFUSED = "refused: "
"""How the outcome of a request begins that was not granted."""


@dataclass(frozen=True)
class Command:
    """A request that waits for the cell.

    Attributes:
        sequence: Its number, which is that of the event that announced it.
        request: What to do.
        by: Who asks.
        asked: When, as a stamp [s since 1970].
        job_id: The job that it is about, if any.
    """

    sequence: int
    request: Request | UnknownRequest
    by: str
    asked: float
    job_id: int | None

    @property
    def command(self) -> str:
        """The name of the request."""
        return self.request.command

    @property
    def content(self) -> dict[str, Any]:
        """What it says beside its name, as plain data."""
        return self.request.content


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        text: In words; why, if it was refused.
        is_refused: Whether it was not granted.
        advice: What can be done about it.
    """

    text: str
    is_refused: bool
    advice: tuple[Advice, ...] = ()


def request(
    connection: Connection,
    wanted: Request,
    by: str,
    now: float,
    *,
    job_id: int | None = None,
) -> int:
    """Ask the cell to do something; return the number of the request."""
    announced = {"command": wanted.command, "by": by, **wanted.content}
    sequence = announce(connection, EventKind.COMMAND, announced, now, job_id)
    row = {
        "sequence": sequence,
        "job_id": job_id,
        "command": wanted.command,
        "content": encode(wanted.content),
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
            read_request(row.command, json.loads(row.content)),
            row.by,
            row.asked,
            row.job_id,
        )
        for row in connection.execute(query)
    ]


def outcomes(connection: Connection, numbers: Iterable[int]) -> dict[int, Outcome]:
    """Return what became of those of some requests that were handled."""
    query = select(commands.c.sequence, commands.c.outcome, commands.c.advice).where(
        commands.c.sequence.in_(list(numbers)), commands.c.handled.is_not(None)
    )
    return {
        row.sequence: Outcome(
            (row.outcome or "").removeprefix(REFUSED),
            (row.outcome or "").startswith(REFUSED),
            read_advice(json.loads(row.advice or "[]")),
        )
        for row in connection.execute(query)
    }


def settle(
    connection: Connection,
    sequence: int,
    outcome: str,
    now: float,
    advice: Iterable[Advice] = (),
) -> None:
    """Say what became of a request, and what can be done about that.

    Raises:
        NotFoundError: If there is no such request, or it was handled before.
    """
    said = plain_advice(advice)
    found = connection.execute(
        commands.update()
        .where(commands.c.sequence == sequence, commands.c.handled.is_(None))
        .values(handled=now, outcome=outcome, advice=encode(said))
        .returning(commands.c.job_id)
    ).first()
    if found is None:
        raise NotFoundError(f"no request {sequence} waits")
    content: dict[str, Any] = {"command": sequence, "outcome": outcome}
    if said:
        content["advice"] = said
    announce(connection, EventKind.COMMAND_HANDLED, content, now, found.job_id)
