"""Bluesky documents, in the order in which they were emitted."""

from __future__ import annotations

import json
import math
import uuid
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, select

from ppu.core.errors import ConfigurationError
from ppu.store.cells import require_token
from ppu.store.events import EventKind, announce, encode
from ppu.store.schema import documents

__all__ = [
    "add_document",
    "close_open_runs",
    "documents_of",
    "open_runs",
    "samples_of",
    "streams_of",
    "units_of",
]

_STOPS: Final = uuid.UUID("c6a3f5c2-2b0f-4a57-9a45-8d0d6f7f5a11")
"""Namespace of the stop documents that are written for runs that nobody ended."""


def add_document(
    connection: Connection,
    job_id: int | None,
    name: str,
    document: Mapping[str, Any],
    token: int,
    now: float,
) -> int:
    """Keep a document; return its number in the one sequence.

    Args:
        connection: A writing transaction of the store.
        job_id: The job that emitted it, if one did.
        name: Its kind, such as ``event_page``.
        document: Its content.
        token: Fencing token of the cell.
        now: Stamp [s since 1970].

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    require_token(connection, token)
    run_uid = _run_of(connection, job_id, name, document)
    sequence = announce(connection, EventKind.DOCUMENT, {"name": name}, now, job_id)
    row = {
        "sequence": sequence,
        "job_id": job_id,
        "run_uid": run_uid,
        "name": name,
        "content": _encoded(document),
    }
    connection.execute(documents.insert(), row)
    return sequence


def _encoded(document: Mapping[str, Any]) -> str:
    """Return *document* as JSON; a reading that must not be used becomes null."""
    try:
        return encode(document)
    except ConfigurationError:
        return encode(_without_nan(document))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_of(
    connection: Connection, job_id: int | None, name: str, document: Mapping[str, Any]
) -> str:
    """Return the run that a document is of; some name only their stream."""
    if name == "start":
        return str(document["uid"])
    if "run_start" in document:
        return str(document["run_start"])
    newest = (
        select(documents.c.run_uid)
        .where(documents.c.job_id == job_id)
        .order_by(documents.c.sequence.desc())
        .limit(1)
    )
    return str(connection.execute(newest).scalar() or "")


def documents_of(
    connection: Connection, job_id: int, only: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of a job's documents in their order.

    Args:
        connection: A transaction of the store.
        job_id: The job.
        only: Name of those that are wanted; all if empty.
    """
    query = (
        select(documents.c.name, documents.c.content)
        .where(documents.c.job_id == job_id)
        .order_by(documents.c.sequence)
    )
    if only:
        query = query.where(documents.c.name == only)
    for row in connection.execute(query):
        yield row.name, json.loads(row.content)


def open_runs(connection: Connection, job_id: int) -> list[str]:
    """Return the runs of a job that have a start document and no stop document."""
    ended = select(documents.c.run_uid).where(
        (documents.c.job_id == job_id) & (documents.c.name == "stop")
    )
    query = (
        select(documents.c.run_uid)
        .where((documents.c.job_id == job_id) & (documents.c.name == "start"))
        .where(documents.c.run_uid.not_in(ended))
        .order_by(documents.c.sequence)
    )
    return [str(uid) for uid in connection.execute(query).scalars()]


def close_open_runs(
    connection: Connection, job_id: int, token: int, now: float, reason: str
) -> list[str]:
    """Write the stop documents of runs whose process died; return the runs' uids.

    Args:
        connection: A writing transaction of the store.
        job_id: The job whose runs they are.
        token: Fencing token of the cell.
        now: Stamp of their end [s since 1970].
        reason: Why they ended, for people.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    closed = open_runs(connection, job_id)
    for run_uid in closed:
        stop = {
            # The same for the same run, whoever closes it.
            "uid": str(uuid.uuid5(_STOPS, run_uid)),
            "time": now,
            "run_start": run_uid,
            "exit_status": "abort",
            "reason": reason,
            "num_events": _count_events(connection, run_uid),
        }
        add_document(connection, job_id, "stop", stop, token, now)
    return closed


def _count_events(connection: Connection, run_uid: str) -> dict[str, int]:
    """Return how many events each stream of a run has."""
    query = (
        select(documents.c.name, documents.c.content)
        .where(documents.c.run_uid == run_uid)
        .where(documents.c.name.in_(["descriptor", "event", "event_page"]))
        .order_by(documents.c.sequence)
    )
    streams: dict[str, str] = {}
    n_events: dict[str, int] = {}
    for name, content in connection.execute(query):
        document = json.loads(content)
        if name == "descriptor":
            streams[document["uid"]] = document["name"]
            n_events.setdefault(document["name"], 0)
        else:
            stream = streams[document["descriptor"]]
            n_events[stream] += 1 if name == "event" else len(document["seq_num"])
    return n_events


def samples_of(
    connection: Connection, job_id: int, stream: str, since: float
) -> dict[str, list[float]]:
    """Return a job's samples in *stream* from a stamp on, as :func:`streams_of`."""
    columns = streams_of(connection, job_id).get(stream, {})
    first = bisect_left(columns.get("time", []), since)
    return {key: values[first:] for key, values in columns.items()}


def units_of(connection: Connection, job_id: int) -> dict[str, str]:
    """Return the unit of each data key of a job that has one."""
    units: dict[str, str] = {}
    for _, descriptor in documents_of(connection, job_id, only="descriptor"):
        for key, described in descriptor["data_keys"].items():
            if described.get("units"):
                units[key] = described["units"]
    return units


def streams_of(
    connection: Connection, job_id: int
) -> dict[str, dict[str, list[float]]]:
    """Return all samples of a job that came in pages, in their order.

    Args:
        connection: A transaction of the store.
        job_id: The job.

    Returns:
        By stream, whichever of the job's runs it is in, a column for each data key,
        NaN where nothing was measured, and ``time``, the stamps [s since 1970].
    """
    streams: dict[str, dict[str, list[float]]] = {}
    names: dict[str, str] = {}
    for name, document in documents_of(connection, job_id):
        if name == "descriptor":
            names[document["uid"]] = document["name"]
        elif name == "event_page":
            stream = names[document["descriptor"]]
            columns = streams.setdefault(stream, {"time": []})
            columns["time"] += document["time"]
            for key, values in document["data"].items():
                columns.setdefault(key, []).extend(
                    math.nan if value is None else value for value in values
                )
    return streams
