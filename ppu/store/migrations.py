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

__all__ = ["MIGRATIONS", "fill_seats"]


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
    fill_seats(connection)


def fill_seats(connection: Connection) -> None:
    """Say of steps that were kept by their names only what these mean for a seat.

    A cell of an older PPU may have kept some after the store was upgraded, so each new
    owner says it again.
    """
    for name, seat in (("take_seat", "takes"), ("vacate_seat", "leaves")):
        connection.execute(
            text("UPDATE steps SET seat = :seat WHERE name = :name AND seat IS NULL"),
            {"name": name, "seat": seat},
        )


def add_advice(connection: Connection) -> None:
    """Give jobs and commands a place for codes of what can be done about them."""
    for table in ("jobs", "commands"):
        columns = {column["name"] for column in inspect(connection).get_columns(table)}
        if "advice" in columns:  # it was made a moment ago: the file is of version 1
            continue
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN advice TEXT"))


def add_failure_classes(connection: Connection) -> None:
    """Say of each job that did not succeed what a program may do about it.

    Give jobs a place for how they wait, too, and steps one for what they used. What a
    job of an older PPU failed with is known by the kind of its error only.
    """
    columns = {
        "jobs": {
            "failure_class": "VARCHAR",
            "field": "VARCHAR",
            "deadline_s": "DOUBLE PRECISION",
            "is_set_aside": "BOOLEAN DEFAULT FALSE NOT NULL",
            "n_tries": "INTEGER DEFAULT 0 NOT NULL",
            "not_before": "DOUBLE PRECISION",
        },
        "steps": {"devices": "TEXT"},
    }
    for table, wanted in columns.items():
        there = {column["name"] for column in inspect(connection).get_columns(table)}
        for name, kind in wanted.items():
            if name not in there:
                column = f"ALTER TABLE {table} ADD COLUMN {name} {kind}"
                connection.execute(text(column))
    connection.execute(text("DROP INDEX IF EXISTS jobs_claimable"))
    connection.execute(
        text(
            "CREATE INDEX jobs_claimable ON jobs (state, is_held, n_unmet_needs, "
            "is_set_aside, priority, campaign, rank, not_before, id)"
        )
    )
    for name, column, where in (
        ("jobs_set_aside", "id", "is_set_aside"),
        ("jobs_tried_again", "not_before", "not_before IS NOT NULL"),
        ("jobs_to_be_timed", "id", "deadline_s IS NOT NULL AND deadline IS NULL"),
    ):
        connection.execute(
            text(f"CREATE INDEX IF NOT EXISTS {name} ON jobs ({column}) WHERE {where}")
        )
    for state, failure_class in (
        ("aborted", "aborted"),
        ("cancelled", "aborted"),
        ("expired", "rejected"),
        ("rejected", "rejected"),
        ("lost", "lost"),
    ):
        _classify(connection, failure_class, state)
    for failure_class, kinds in _CLASSES_OF_OLD.items():
        for kind in kinds:
            _classify(connection, failure_class, "failed", kind)
    _classify(connection, "infeasible", "failed")


_CLASSES_OF_OLD = {
    "retryable": (
        *("ConnectError", "ReplyTimeout", "LinkBroken", "TransportError"),
        *("MalformedReply", "InstrumentError", "InvalidReading", "InterlockError"),
        *("StoreError", "StoreBusyError", "StoreDiskError"),
    ),
    "rejected": ("ConflictError", "DivergedError", "StoreDamagedError"),
    "lost": ("NothingToJoinError",),
}
"""Kinds of errors by the class that they were of when classes came."""


def _classify(
    connection: Connection, failure_class: str, state: str, kind: str = ""
) -> None:
    """Give a class to jobs in a state, of one kind of error or any, that have none."""
    connection.execute(
        text(
            "UPDATE jobs SET failure_class = :class WHERE state = :state AND "
            "failure_class IS NULL AND :kind IN ('', reason_code)"
        ),
        {"class": failure_class, "state": state, "kind": kind},
    )


MIGRATIONS: Sequence[Callable[[Connection], None]] = (
    take_over_journal,
    add_seats,
    add_advice,
    add_failure_classes,
)
