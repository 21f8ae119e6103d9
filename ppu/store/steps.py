"""Steps: INTENT is kept before an act, DONE with its result before the plan goes on.

Every function works in a transaction of the caller, as those of
:mod:`ppu.store.queue` do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from ppu.core.errors import DivergedError
from ppu.store.cells import require_token
from ppu.store.events import announce, encode
from ppu.store.jobs import Effect
from ppu.store.schema import jobs, steps

__all__ = [
    "Step",
    "StepState",
    "begin_step",
    "end_step",
    "fail_step",
    "settle_step",
    "steps_of",
]


class StepState(StrEnum):
    """How far a step has come."""

    INTENT = "intent"
    """It began; if the process dies now, nobody knows how far it came."""
    UNSETTLED = "unsettled"
    """Somebody must say whether it happened."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """A step of a job, as the store has it.

    Attributes:
        path: Its place in the plan: "3" is the job's third, "3.1" the first within.
        attempt: How often it was begun.
        result: What it returned, as plain data, once it is done.
        evidence: What showed whether it happened, if that was asked.
        begun: Stamp of the last begin [s since 1970].
    """

    job_id: int
    path: str
    name: str
    kind: str
    digest: str
    arguments: Any
    attempt: int
    state: StepState
    result: Any
    evidence: Any
    begun: float
    ended: float | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Step:
        """Return the step that a whole row of the table describes."""
        values = {
            name: value
            for name, value in row._mapping.items()
            if name not in ("policy", "token")
        }
        for name in ("arguments", "result", "evidence"):
            text = values[name]
            values[name] = None if text is None else json.loads(text)
        values["state"] = StepState(row.state)
        return cls(**values)


def begin_step(
    connection: Connection,
    job_id: int,
    path: str,
    name: str,
    kind: str,
    digest: str,
    arguments: Any,
    token: int,
    now: float,
) -> Step | None:
    """Keep that a step begins; return what was known of it before, None if nothing.

    One that is done stays as it is, and must not run.

    Raises:
        DivergedError: If the journal has another step there: the protocol, or what
            it decides by, has changed since.
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    where = (steps.c.job_id == job_id) & (steps.c.path == path)
    row = connection.execute(select(steps).where(where)).first()
    known = None if row is None else Step.from_row(row)
    if known is not None and (known.name, known.digest) != (name, digest):
        raise DivergedError(
            f"job {job_id}, step {path}: the journal has {known.name} with "
            f"{encode(known.arguments)}, the plan now comes to {name} with "
            f"{encode(arguments)}; was the protocol changed while the job ran?"
        )
    if known is not None and known.state is StepState.DONE:
        return known
    values = {
        "attempt": 1 if known is None else known.attempt + 1,
        "state": str(StepState.INTENT),
        "token": token,
        "begun": now,
        "ended": None,
    }
    if known is None:
        values |= {
            "job_id": job_id,
            "path": path,
            "name": name,
            "kind": kind,
            "digest": digest,
            "arguments": encode(arguments),
        }
        connection.execute(steps.insert(), values)
    else:
        connection.execute(steps.update().where(where).values(values))
    if kind == "irreversible":
        connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id)
            .values(physical_effect=str(Effect.PARTIAL))
        )
    _announce(connection, job_id, path, StepState.INTENT, now, name=name)
    return known


def end_step(
    connection: Connection,
    job_id: int,
    path: str,
    result: Any,
    token: int,
    now: float,
) -> None:
    """Keep the result of a step; from now on it is never run again.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    content = {"state": str(StepState.DONE), "result": encode(result), "ended": now}
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, StepState.DONE, now)


def fail_step(
    connection: Connection, job_id: int, path: str, error: str, token: int, now: float
) -> None:
    """Keep that a step failed, and why.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    content = {"state": str(StepState.FAILED), "ended": now}
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, StepState.FAILED, now, error=error)


def settle_step(
    connection: Connection,
    job_id: int,
    path: str,
    evidence: Mapping[str, Any],
    token: int,
    now: float,
) -> None:
    """Keep what shows whether a step happened that was under way.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    unsettled = evidence.get("has_happened") is None
    state = StepState.UNSETTLED if unsettled else StepState.INTENT
    content = {"state": str(state), "evidence": encode(evidence)}
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, state, now, evidence=evidence)


def steps_of(connection: Connection, job_id: int) -> list[Step]:
    """Return the steps of a job in the order in which they first began."""
    rows = connection.execute(select(steps).where(steps.c.job_id == job_id))
    found = [Step.from_row(row) for row in rows]
    return sorted(found, key=lambda step: [int(n) for n in step.path.split(".")])


def _write(
    connection: Connection, job_id: int, path: str, content: dict[str, Any], token: int
) -> None:
    require_token(connection, token)
    where = (steps.c.job_id == job_id) & (steps.c.path == path)
    connection.execute(steps.update().where(where).values(content))


def _announce(
    connection: Connection,
    job_id: int,
    path: str,
    state: StepState,
    now: float,
    **more: Any,
) -> None:
    content = {"path": path, "state": str(state), **more}
    announce(connection, "step", content, now, job_id)
