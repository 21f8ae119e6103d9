"""Why a job does not go on: what it waits for, in words and codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Select, and_, false, func, or_, select

from ppu.core.labtime import iso
from ppu.core.remedies import Advice, Remedy, advise, read_advice
from ppu.store.cells import doubt_of, is_owned
from ppu.store.jobs import ACTIVE, BEFORE_START, ENDED, Job, JobState
from ppu.store.schema import cells, commands, events, job_needs, jobs
from ppu.store.steps import questions

__all__ = ["Wait", "WaitCode", "Waited", "reasons_to_wait", "waits_of"]

_BEGINS = {str(JobState.STAGING), str(JobState.RECOVERING)}
"""States in which a job comes to a cell."""
_GOES = {str(state) for state in ACTIVE}


@dataclass(frozen=True)
class Wait:
    """Something that a job waits for.

    Attributes:
        text: What, for people.
        advice: What they can do about it.
    """

    text: str
    advice: tuple[Advice, ...] = ()


def reasons_to_wait(
    connection: Connection, job: Job, *, in_line: bool = True
) -> list[Wait]:
    """Return all that a job waits for; nothing if it waits for nothing.

    Args:
        connection: A transaction of the store.
        job: The job.
        in_line: Whether to tell how many go first, which takes long for many jobs.
    """
    if job.state in ENDED:
        return []
    return list(_reasons(connection, job, in_line=in_line))


class WaitCode(StrEnum):
    """What kind of thing a job waited for."""

    QUEUE = "queue"
    """Its turn, or what it needed to begin."""
    RESOURCE = "resource"
    """Devices, places or containers that others had."""
    PERSON = "person"
    """What only a person could say."""
    HELD = "held"
    """The end of a hold, or of what else kept it from going on."""
    CELL = "cell"
    """A cell that goes on with it."""


@dataclass(frozen=True)
class Waited:
    """A time in which a job did not go on; stamps [s since 1970].

    Attributes:
        code: What kind of thing it waited for.
        text: What, for people; may be empty.
    """

    code: WaitCode
    text: str
    begun: float
    ended: float


def waits_of(connection: Connection, job_id: int, until: float) -> list[Waited]:
    """Return when a job did not go on, and what it waited for, the oldest first.

    Before the first cell of a store there was no lab time: that of a twin may begin in
    another year than the one in which its first jobs were submitted.

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
    began = connection.execute(select(func.min(cells.c.started))).scalar() or 0.0
    state = why = kept_by = ""
    since, now_for = 0.0, None
    found = []
    for said_at, kind, content in connection.execute(query):
        stamp = max(said_at, began)
        said = json.loads(content)
        if kind == "wait":
            kept_by = str(said["for"])
        else:
            state = said.get("state", state)
            why = said.get("reason_text", "" if "state" in said else why)
            if state in _BEGINS:
                kept_by = ""  # the cell that said so is gone
        waits_for = _kept(state, why, kept_by)
        if waits_for == now_for:
            continue
        if now_for is not None and stamp > since:
            found.append(Waited(*now_for, since, stamp))
        since, now_for = stamp, waits_for
    if now_for is not None and until > since:
        found.append(Waited(*now_for, since, until))
    return found


def _kept(state: str, why: str, kept_by: str) -> tuple[WaitCode, str] | None:
    """Return what a job in a state waits for, None if it goes on."""
    if state in _CODES:
        return _CODES[state], why
    return (WaitCode.RESOURCE, kept_by) if state in _GOES and kept_by else None


_CODES = {
    **{str(one): WaitCode.QUEUE for one in BEFORE_START},
    str(JobState.PAUSED): WaitCode.HELD,
    str(JobState.NEEDS_INPUT): WaitCode.PERSON,
    str(JobState.LOST): WaitCode.CELL,
}


def _reasons(connection: Connection, job: Job, *, in_line: bool) -> Iterator[Wait]:
    if job.is_held:
        yield Wait("it is held", (advise(Remedy.RESUME, job=job.id),))
    if doubt := doubt_of(connection):
        yield Wait(doubt, (advise(Remedy.ACCEPT_STORE),))
    if job.state is JobState.QUEUED:
        yield from _before_begin(connection, job, in_line=in_line)
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


def _before_begin(connection: Connection, job: Job, *, in_line: bool) -> Iterator[Wait]:
    """Yield what keeps a queued job from beginning."""
    unmet = list(_unmet_needs(connection, job))
    yield from unmet
    if job.is_set_aside or job.not_before is not None:
        yield Wait(_lack_of(job), job.advice)
        return
    if not in_line:
        return
    n_before = connection.execute(_n_before(job)).scalar_one()
    if n_before:
        are = "job is" if n_before == 1 else "jobs are"
        yield Wait(f"{n_before} {are} before it")
    elif is_owned(connection) and not job.is_held and not unmet:
        yield Wait("the cell begins it when it has room (scheduling.jobs_at_once)")


def _lack_of(job: Job) -> str:
    """Return what a queued job waits for that was not there when it should begin."""
    lack = job.reason_text or "what it needs is not there"
    if job.not_before is None:
        return lack
    return f"{lack}; tried {job.n_tries} times, and again {iso(job.not_before)}"


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
        .where(jobs.c.is_set_aside == false(), jobs.c.not_before.is_(None))
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
