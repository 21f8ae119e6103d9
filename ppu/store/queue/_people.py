"""What people change of jobs: whether and when they wait, and that they end."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from ppu.core.errors import ConflictError
from ppu.store.bounds import bounded_priority
from ppu.store.cells import is_owned
from ppu.store.commands import request
from ppu.store.events import EventKind, announce
from ppu.store.jobs import BEFORE_START, ENDED, Job, JobState
from ppu.store.queue._finding import get, row_of
from ppu.store.queue._states import CHANGE, transition
from ppu.store.requests import Abort, Cancel
from ppu.store.schema import jobs

__all__ = [
    "abort",
    "cancel",
    "expire",
    "hold",
    "prioritize",
    "reorder",
    "resume",
]

_UNSTARTED = text("deadline IS NOT NULL AND started IS NULL AND ended IS NULL")


def hold(connection: Connection, job_id: int, now: float) -> Job:
    """Keep a job from being claimed; one that runs waits before its next step."""
    return _set(connection, job_id, now, is_held=True)


def resume(connection: Connection, job_id: int, now: float) -> Job:
    """End the hold of a job."""
    return _set(connection, job_id, now, is_held=False)


def prioritize(connection: Connection, job_id: int, priority: int, now: float) -> Job:
    """Change the priority of a job that waits.

    Raises:
        ConfigurationError: If it cannot be kept.
    """
    return _set(
        connection, job_id, now, only_waiting=True, priority=bounded_priority(priority)
    )


def _set(
    connection: Connection,
    job_id: int,
    now: float,
    *,
    only_waiting: bool = False,
    **change: Any,
) -> Job:
    row = row_of(connection, job_id)
    if row.state in ENDED or (only_waiting and row.state not in BEFORE_START):
        raise ConflictError(f"job {job_id} is {row.state}; it no longer waits")
    if any(row._mapping[name] != value for name, value in change.items()):
        connection.execute(CHANGE.values(**change), {"wanted": job_id})
        announce(connection, EventKind.JOB, change, now, job_id)
    return get(connection, job_id)


def reorder(connection: Connection, job_id: int, before_id: int, now: float) -> None:
    """Let a queued job go before another one of the same priority.

    Between campaigns the fair share still decides first.

    Raises:
        ConflictError: If one of them is not queued or their priorities differ.
    """
    moved, before = row_of(connection, job_id), row_of(connection, before_id)
    for row in (moved, before):
        if row.state != JobState.QUEUED:
            raise ConflictError(f"job {row.id} is {row.state}; it is not queued")
    if moved.priority != before.priority:
        raise ConflictError(
            f"job {job_id} has priority {moved.priority} and job {before_id} has "
            f"{before.priority}; change the priority instead"
        )
    if job_id == before_id:
        return
    low, high = sorted((moved.rank, before.rank))
    affected = connection.execute(
        select(jobs.c.id, jobs.c.rank)
        .where(jobs.c.state == str(JobState.QUEUED), jobs.c.rank.between(low, high))
        .order_by(jobs.c.rank)
    ).all()
    # The same ranks, given anew: they stay unique, and jobs between keep their order.
    line = [row.id for row in affected if row.id != job_id]
    line.insert(line.index(before_id), job_id)
    changes = [
        {"wanted": one, "new_rank": row.rank}
        for one, row in zip(line, affected, strict=True)
        if one != row.id
    ]
    if changes:
        change = CHANGE.values(rank=bindparam("new_rank"))
        connection.execute(change, changes)
        content = {"goes_before": before_id}
        announce(connection, EventKind.JOB, content, now, job_id)


def expire(connection: Connection, now: float) -> list[int]:
    """End the jobs that have not begun by their deadline; return their ids."""
    query = select(jobs.c.id).where(_UNSTARTED, jobs.c.deadline < now)
    late = connection.execute(query).scalars().all()
    for job_id in late:
        if row_of(connection, job_id).state not in ENDED:  # another's end may end it
            transition(
                connection,
                job_id,
                JobState.EXPIRED,
                now,
                reason=("deadline", "it had not begun by its deadline"),
                field="deadline",
            )
    return list(late)


def cancel(connection: Connection, job_id: int, by: str, now: float) -> Job:
    """Take a job out of the queue, or ask its cell to stop it at a safe point.

    Args:
        connection: A writing transaction of the store.
        job_id: The job; one that has ended stays as it is.
        by: Who asks.
        now: Stamp of the request.
    """
    row = row_of(connection, job_id)
    if row.state in BEFORE_START:
        reason = ("cancelled", f"cancelled by {by}")
        return transition(connection, job_id, JobState.CANCELLED, now, reason=reason)
    if row.state not in ENDED:
        request(connection, Cancel(), by, now, job_id=job_id)
    return get(connection, job_id)


def abort(connection: Connection, job_id: int, by: str, reason: str, now: float) -> Job:
    """Give a job up: its cell aborts it; one that no cell has ends now.

    Args:
        connection: A writing transaction of the store.
        job_id: The job; one that has ended stays as it is.
        by: Who asks.
        reason: Why, for people; may be empty.
        now: Stamp of the request.
    """
    row = row_of(connection, job_id)
    if row.state in BEFORE_START:
        return cancel(connection, job_id, by, now)
    if row.state == JobState.LOST and not is_owned(connection):
        text = f"given up by {by}" + (f": {reason}" if reason else "")
        why = ("aborted", text)
        return transition(connection, job_id, JobState.ABORTED, now, reason=why)
    if row.state not in ENDED:
        request(connection, Abort(reason=reason), by, now, job_id=job_id)
    return get(connection, job_id)
