"""Why a job does not go on: what it waits for, in words and codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Select, and_, false, func, or_, select

from ppu.core.remedies import Advice, Remedy, advise, read_advice
from ppu.store.cells import doubt_of, is_owned
from ppu.store.jobs import ACTIVE, ENDED, Job, JobState
from ppu.store.schema import commands, events, job_needs, jobs
from ppu.store.steps import questions

__all__ = ["Wait", "reasons_to_wait", "waits_of"]

_STANDS = {str(JobState.PAUSED), str(JobState.NEEDS_INPUT), str(JobState.LOST)}
_BEGINS = {str(JobState.STAGING), str(JobState.RECOVERING)}
"""States in which a job comes to a cell."""
_GOES = {str(state) for state in ACTIVE} - _STANDS


@dataclass(frozen=True)
class Wait:
    """Something that a job waits for.

    Attributes:
        text: What, for people.
        advice: What they can do about it.
    """

    text: str
    advice: tuple[Advice, ...] = ()


def reasons_to_wait(connection: Connection, job: Job) -> list[Wait]:
    """Return all that a job waits for; nothing if it waits for nothing."""
    return [] if job.state in ENDED else list(_reasons(connection, job))


def waits_of(
    connection: Connection, job_id: int, until: float
) -> list[tuple[float, float]]:
    """Return from when to when a job that had begun did not go on.

    It waited for devices or places, for a person, or for a cell.

    Args:
        connection: A transaction of the store.
        job_id: The job.
        until: Stamp of the end of a wait that lasts.
    """
    query = (
        select(events.c.stamp, events.c.kind, events.c.content)
        .where(events.c.job_id == job_id, events.c.kind.in_(["job", "wait"]))
        .order_by(events.c.sequence)
    )
    state, is_kept, since = "", False, None
    found = []
    for stamp, kind, content in connection.execute(query):
        said = json.loads(content)
        if kind == "wait":
            is_kept = bool(said["for"])
        else:
            state = said.get("state", state)
            is_kept = is_kept and state not in _BEGINS  # the cell that said so is gone
        waits = state in _STANDS or (state in _GOES and is_kept)
        if waits and since is None:
            since = stamp
        elif since is not None and not waits:
            found.append((since, stamp))
            since = None
    return found if since is None else [*found, (since, until)]


def _reasons(connection: Connection, job: Job) -> Iterator[Wait]:
    if job.is_held:
        yield Wait("it is held", (advise(Remedy.RESUME, job=job.id),))
    if doubt := doubt_of(connection):
        yield Wait(doubt, (advise(Remedy.ACCEPT_STORE),))
    if job.state is JobState.QUEUED:
        unmet = list(_unmet_needs(connection, job))
        yield from unmet
        n_before = connection.execute(_n_before(job)).scalar_one()
        if n_before:
            are = "job is" if n_before == 1 else "jobs are"
            yield Wait(f"{n_before} {are} before it")
        elif is_owned(connection) and not job.is_held and not unmet:
            yield Wait("the cell begins it when it has room (scheduling.jobs_at_once)")
    if job.state is JobState.LOST:
        yield Wait("its cell vanished; the next one finds out what became of it")
    if job.state in ACTIVE and (waits := _said(connection, job)).text:
        yield waits
    for question in questions(connection, job.id):
        asks = f"it asks about step {question.step.path}: {question.text}"
        if question.answered is None:
            yield Wait(asks, (advise(Remedy.ANSWER, job=job.id),))
    for command, by in connection.execute(_asked(job)):
        yield Wait(f"the cell has not yet seen to '{command}', asked by {by}")
    if not is_owned(connection):
        yield Wait("no cell works on this store")


def _unmet_needs(connection: Connection, job: Job) -> Iterator[Wait]:
    query = (
        select(jobs.c.id, jobs.c.state)
        .join(job_needs, job_needs.c.needed_id == jobs.c.id)
        .where(job_needs.c.job_id == job.id)
        .where(jobs.c.state != str(JobState.SUCCEEDED))
        .order_by(jobs.c.id)
    )
    for needed, state in connection.execute(query):
        yield Wait(f"it needs job {needed}, which is {state}")


def _n_before(job: Job) -> Select[tuple[int]]:
    """Ask how many jobs may go first; between campaigns the fair share decides."""
    goes_first = or_(
        jobs.c.priority > job.priority,
        and_(jobs.c.priority == job.priority, jobs.c.rank < job.rank),
    )
    return (
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.state == str(JobState.QUEUED), jobs.c.is_held == false())
        .where(jobs.c.n_unmet_needs == 0, goes_first)
    )


def _said(connection: Connection, job: Job) -> Wait:
    """Return what its cell said last of what the job waits for; empty if it goes on."""
    query = (
        select(events.c.kind, events.c.content)
        .where(events.c.job_id == job.id, events.c.kind.in_(["job", "wait"]))
        .order_by(events.c.sequence.desc())
    )
    for kind, content in connection.execute(query):
        said = json.loads(content)
        if kind == "wait":
            return Wait(str(said["for"]), read_advice(said.get("advice", ())))
        if said.get("state") in _BEGINS:
            break
    return Wait("")


def _asked(job: Job) -> Select[tuple[str, str]]:
    """Ask which requests about the job wait for the cell."""
    return (
        select(commands.c.command, commands.c.by)
        .where(commands.c.job_id == job.id, commands.c.handled.is_(None))
        .order_by(commands.c.sequence)
    )
