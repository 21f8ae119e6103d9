"""The one sequence: every change of the store announces itself here, in order.

Whoever has seen event *n* never finds an event before it that is new, because numbers
are given and committed by one writer at a time. So ``after=n`` follows everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, select

from ppu.core.errors import ConfigurationError
from ppu.store.bounds import bounded_event, bounded_job, bounded_limit
from ppu.store.schema import events

__all__ = [
    "Event",
    "EventKind",
    "announce",
    "announce_all",
    "encode",
    "events_after",
    "last_event",
    "last_stamp",
]


class EventKind(StrEnum):
    """What an event is about."""

    JOB = "job"
    STEP = "step"
    WAIT = "wait"
    DOCUMENT = "document"
    SAMPLE = "sample"
    CUSTODY = "custody"
    STOCK = "stock"
    DEVICE = "device"
    CELL = "cell"
    COMMAND = "command"
    COMMAND_HANDLED = "command handled"
    INCIDENT = "incident"
    SAFE_STATE = "safe state"
    UNSAFE = "unsafe"


@dataclass(frozen=True)
class Event:
    """One change.

    Attributes:
        sequence: Its number in the store, from 1 and without gaps.
        stamp: Lab time of the change, as UTC [s since 1970].
        kind: What changed; one that only a newer PPU knows is its bare name.
        content: What a view needs to follow it.
        job_id: The job it is about, if any.
    """

    sequence: int
    stamp: float
    kind: EventKind | str
    content: dict[str, Any]
    job_id: int | None = None


def encode(content: Any) -> str:
    """Return *content* as JSON: numpy values and enumerations as plain data.

    Raises:
        ConfigurationError: If it holds what JSON cannot express, such as NaN.
    """
    try:
        return json.dumps(
            content, separators=(",", ":"), default=_plain, allow_nan=False
        )
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"this cannot be kept as JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "value"):
        return value.value
    raise TypeError(f"a {type(value).__name__} is no data")


def announce(
    connection: Connection,
    kind: EventKind,
    content: Mapping[str, Any],
    now: float,
    job_id: int | None = None,
) -> int:
    """Append an event in the transaction of *connection*, and return its number.

    Args:
        connection: A writing transaction of the store.
        kind: What changed.
        content: What a view needs to follow it; kept as JSON.
        now: Stamp of the change [s since 1970].
        job_id: The job it is about, if any.
    """
    row = {
        "stamp": now,
        "kind": str(kind),
        "job_id": job_id,
        "content": encode(content),
    }
    return int(connection.execute(_APPEND, row).scalar_one())


def announce_all(
    connection: Connection,
    kind: EventKind,
    changes: Sequence[tuple[int | None, Mapping[str, Any]]],
    now: float,
) -> int:
    """Append an event per job and content; return the number of the first."""
    first = last_event(connection) + 1
    rows = [
        {
            "sequence": first + index,
            "stamp": now,
            "kind": str(kind),
            "job_id": job_id,
            "content": encode(content),
        }
        for index, (job_id, content) in enumerate(changes)
    ]
    if rows:
        connection.execute(events.insert(), rows)
    return first


def last_event(connection: Connection) -> int:
    """Return the number of the newest event, 0 if there is none."""
    return connection.execute(_LAST).scalar() or 0


def last_stamp(connection: Connection) -> float | None:
    """Return the stamp of the newest event, None if there is none."""
    return connection.execute(_LAST_STAMP).scalar()


_LAST = select(func.max(events.c.sequence))
_LAST_STAMP = select(events.c.stamp).order_by(events.c.sequence.desc()).limit(1)
_before = events.alias("before")
_NEXT = select(func.coalesce(func.max(_before.c.sequence), 0) + 1).scalar_subquery()
_APPEND = events.insert().values(sequence=_NEXT).returning(events.c.sequence)


def events_after(
    connection: Connection,
    after: int = 0,
    limit: int = 1000,
    kinds: Iterable[EventKind | str] = (),
    job_id: int | None = None,
) -> list[Event]:
    """Return up to *limit* events that are newer than number *after*, oldest first.

    Args:
        connection: A transaction of the store.
        after: The newest number that the caller has seen.
        limit: How many to return at most.
        kinds: Only these kinds; all if empty.
        job_id: Only what is about this job.

    Raises:
        ConfigurationError: If one of the numbers cannot be.
    """
    query = select(events).where(events.c.sequence > bounded_event(after))
    if chosen := [str(kind) for kind in kinds]:
        query = query.where(events.c.kind.in_(chosen))
    if job_id is not None:
        query = query.where(events.c.job_id == bounded_job(job_id))
    query = query.order_by(events.c.sequence).limit(bounded_limit(limit))
    rows = connection.execute(query)
    return [
        Event(
            row.sequence,
            row.stamp,
            _KINDS.get(row.kind, row.kind),
            json.loads(row.content),
            row.job_id,
        )
        for row in rows
    ]


_KINDS = {str(kind): kind for kind in EventKind}
