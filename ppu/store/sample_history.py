"""The history of a sample: where it went, what became of it, what people said."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from ppu.store import schema
from ppu.store.custody import Sample, find_sample
from ppu.store.requests import Abort, Answer, read_request
from ppu.store.schema import custody, events, steps

__all__ = ["Entry", "history_of"]


@dataclass(frozen=True)
class Entry:
    """A line in the history of a sample.

    Attributes:
        kind: What happened: ``claimed``, ``left``, ``moved``, ``found``, ``released``
            by a person, ``returned`` by a job that did nothing with it, ... or the
            state that the sample is in from then on; ``said`` is a person's word on
            the job.
        by: Who did it: a job, a person, or empty.
        text: What showed it, or why.
    """

    sequence: int
    stamp: float
    kind: str
    container: str | None
    origin: str | None
    destination: str | None
    by: str
    text: str


def history_of(connection: Connection, sample: str) -> tuple[Sample, list[Entry]]:
    """Return a sample and all that happened to it, oldest first.

    Raises:
        NotFoundError: If there is no such sample.
    """
    found = find_sample(connection, sample)
    moves = (
        select(custody, events.c.stamp)
        .join(events, events.c.sequence == custody.c.sequence)
        .where(custody.c.sample == sample)
    )
    lines = [
        Entry(
            row.sequence,
            row.stamp,
            row.kind,
            row.container,
            row.origin,
            row.destination,
            row.by,
            row.evidence or "",
        )
        for row in connection.execute(moves)
    ]
    changes = select(events).where(
        events.c.job_id == found.job_id, events.c.kind == "sample"
    )
    for row in connection.execute(changes):
        said = json.loads(row.content)
        if said["sample"] == sample:
            by, why = said.get("by") or "", said.get("reason") or ""
            way = (None, None, None)
            lines.append(Entry(row.sequence, row.stamp, said["state"], *way, by, why))
    lines += _said(connection, found.job_id)
    return found, sorted(lines, key=lambda line: line.sequence)


def _said(connection: Connection, job_id: int) -> list[Entry]:
    """Return what people said of a job: answers with their notes, and its abort."""
    requests = schema.commands
    query = select(requests).where(
        requests.c.job_id == job_id, requests.c.command.in_(["answer", "abort"])
    )
    names = {
        row.path: row.name
        for row in connection.execute(
            select(steps.c.path, steps.c.name).where(steps.c.job_id == job_id)
        )
    }
    found = []
    for row in connection.execute(query):
        said = read_request(row.command, json.loads(row.content))
        text, why = row.command, said.reason if isinstance(said, Abort) else ""
        if isinstance(said, Answer):
            name, why = names.get(said.path, "unknown"), said.note
            text = f"step {said.path} ({name}): {said.answer}"
        text += f" ({why})" if why else ""
        way = (None, None, None)
        found.append(Entry(row.sequence, row.asked, "said", *way, row.by, text))
    return found
