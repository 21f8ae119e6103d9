"""Finds jobs in their table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select

from ppu.core.errors import NotFoundError
from ppu.store.bounds import bounded_job, bounded_limit
from ppu.store.events import encode
from ppu.store.jobs import Job, JobState
from ppu.store.schema import jobs

__all__ = ["find", "get", "row_of"]


def get(connection: Connection, job_id: int) -> Job:
    """Return a job.

    Raises:
        ConfigurationError: If no job can have that number.
        NotFoundError: If there is none of that number.
    """
    return Job.from_row(row_of(connection, job_id))


def find(
    connection: Connection,
    *,
    states: Collection[JobState] = (),
    campaign: str | None = None,
    tag: str | None = None,
    limit: int = 100,
) -> list[Job]:
    """Return up to *limit* jobs that fit all that is given, the newest first.

    Raises:
        ConfigurationError: If the limit cannot be.
    """
    query: Select[Any] = select(jobs)
    if states:
        query = query.where(jobs.c.state.in_([str(state) for state in states]))
    if campaign is not None:
        query = query.where(jobs.c.campaign == campaign)
    if tag is not None:
        query = query.where(jobs.c.tags.contains(encode(tag), autoescape=True))
    rows = connection.execute(
        query.order_by(jobs.c.id.desc()).limit(bounded_limit(limit))
    )
    return [Job.from_row(row) for row in rows]


def row_of(connection: Connection, job_id: int) -> Row[Any]:
    row = connection.execute(_BY_ID, {"wanted": bounded_job(job_id)}).first()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    return row


_BY_ID = select(jobs).where(jobs.c.id == bindparam("wanted"))
