"""Bluesky documents, in the order in which they were emitted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select

from ppu.store.cells import require_token
from ppu.store.events import announce, encode
from ppu.store.schema import documents

__all__ = ["add_document", "documents_of", "open_runs"]


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
    sequence = announce(connection, "document", {"name": name}, now, job_id)
    row = {
        "sequence": sequence,
        "job_id": job_id,
        "run_uid": run_uid,
        "name": name,
        "content": encode(document),
    }
    connection.execute(documents.insert(), row)
    return sequence


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
    connection: Connection, job_id: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and content of a job's documents in their order."""
    query = (
        select(documents.c.name, documents.c.content)
        .where(documents.c.job_id == job_id)
        .order_by(documents.c.sequence)
    )
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
