"""What turns a file of an older schema version into one of the next.

``MIGRATIONS[n - 1]`` leads from version *n* to *n + 1*. Tables that are new have been
made before; a function changes those that were there, in SQL of its own, because the
tables in ``schema`` are always today's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, inspect, text

__all__ = ["MIGRATIONS"]


def take_over_journal(connection: Connection) -> None:
    """Make events and documents of the entries of a version-1 journal.

    The journal knew lab time only; the first document that says when it was made
    tells the epoch.
    """
    entries = connection.execute(
        text("SELECT sequence, lab_time_s, kind, content FROM journal ORDER BY 1")
    ).all()
    epoch, uids = 0.0, dict[str, str]()
    documents: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for sequence, lab_time_s, kind, content in entries:
        announced = content
        if kind == "document":
            entry = json.loads(content)
            name, document = entry["name"], entry["document"]
            if not documents and "time" in document:
                epoch = document["time"] - lab_time_s
            run_uid = _run_of(name, document, uids)
            announced = json.dumps({"name": name, "run_uid": run_uid})
            documents.append(
                {
                    "sequence": sequence,
                    "run_uid": run_uid,
                    "name": name,
                    "content": json.dumps(document, separators=(",", ":")),
                }
            )
        events.append(
            {
                "sequence": sequence,
                "stamp": lab_time_s + epoch,
                "kind": kind,
                "content": announced,
            }
        )
    if events:
        connection.execute(
            text(
                "INSERT INTO events (sequence, stamp, kind, content) "
                "VALUES (:sequence, :stamp, :kind, :content)"
            ),
            events,
        )
    if documents:
        connection.execute(
            text(
                "INSERT INTO documents (sequence, run_uid, name, content) "
                "VALUES (:sequence, :run_uid, :name, :content)"
            ),
            documents,
        )
    connection.execute(text("DROP TABLE journal"))


def _run_of(name: str, document: dict[str, str], uids: dict[str, str]) -> str:
    """Return the run that *document* belongs to; descriptors are remembered."""
    if name == "start":
        return document["uid"]
    if "run_start" in document:
        uids[document["uid"]] = document["run_start"]
        return document["run_start"]
    return uids.get(document.get("descriptor", ""), "")


def add_seats(connection: Connection) -> None:
    """Keep of each step whether it takes a place in a firing or leaves it.

    When only names were kept, the two steps that did had these.
    """
    columns = {column["name"] for column in inspect(connection).get_columns("steps")}
    if "seat" not in columns:  # else it was made a moment ago, and is empty
        connection.execute(text("ALTER TABLE steps ADD COLUMN seat VARCHAR"))
    for name, seat in (("take_seat", "takes"), ("vacate_seat", "leaves")):
        connection.execute(
            text("UPDATE steps SET seat = :seat WHERE name = :name"),
            {"name": name, "seat": seat},
        )


def add_advice(connection: Connection) -> None:
    """Give jobs and commands a place for codes of what can be done about them."""
    for table in ("jobs", "commands"):
        columns = {column["name"] for column in inspect(connection).get_columns(table)}
        if "advice" in columns:  # it was made a moment ago: the file is of version 1
            continue
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN advice TEXT"))


MIGRATIONS: Sequence[Callable[[Connection], None]] = (
    take_over_journal,
    add_seats,
    add_advice,
)
