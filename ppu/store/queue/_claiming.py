"""What a cell does with jobs: claims them, keeps its hold on them, or loses it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)

from ppu.core.errors import FailureClass, PPUError, StaleTokenError
from ppu.core.remedies import Advice, plain_advice
from ppu.store.cells import require_token
from ppu.store.commands import settle, waiting
from ppu.store.custody import give_up_samples
from ppu.store.events import EventKind, announce, encode
from ppu.store.jobs import Effect, Job, JobState
from ppu.store.order import LEAST_USE_S, Candidate, decayed, order
from ppu.store.queue._finding import row_of
from ppu.store.queue._people import expire
from ppu.store.queue._states import CHANGE, change_state
from ppu.store.requests import Abort, Cancel
from ppu.store.schema import campaigns, cells, jobs, steps

__all__ = [
    "Lack",
    "adopt",
    "claim",
    "look_again",
    "lose",
    "lose_expired",
    "lose_leased",
    "lose_vanished",
    "next_try",
    "peek",
    "put_back",
    "renew",
    "set_aside",
    "time_deadlines",
]


@dataclass(frozen=True)
class Lack:
    """Why a job cannot begin or go on now.

    Attributes:
        code: Kind of the error that said so.
        text: What is missing, for people.
        failure_class: What a program may do about it.
        field: Parameter, device, container or powder that it is about.
        advice: What people can do about it.
    """

    ANNOUNCED: ClassVar = ("reason_code", "reason_text", "failure_class", "field")

    code: str
    text: str
    failure_class: FailureClass
    field: str | None = None
    advice: tuple[Advice, ...] = ()

    @classmethod
    def of(cls, error: PPUError) -> Lack:
        """Return what *error* says."""
        return cls(
            type(error).__name__,
            str(error),
            error.failure_class,
            error.field,
            error.advice,
        )

    def columns(self) -> dict[str, Any]:
        """Return it as columns of the table of jobs."""
        return {
            "reason_code": self.code,
            "reason_text": self.text,
            "failure_class": str(self.failure_class),
            "field": self.field,
            "advice": encode(plain_advice(self.advice)),
        }


def claim(
    connection: Connection,
    token: int,
    now: float,
    lease_s: float,
    job_id: int | None = None,
) -> Job | None:
    """Give the next job to a cell, or None if there is none for it.

    Args:
        connection: A writing transaction of the store.
        token: The cell's fencing token.
        now: Stamp of the claim.
        lease_s: How long the cell is trusted with it unless it renews [s].
        job_id: Only this job, if it may still be claimed.

    Raises:
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    expire(connection, now)
    row = _next(connection, token, now)
    if job_id is not None:
        wanted = select(jobs).where(_CLAIMABLE, jobs.c.id == job_id)
        row = connection.execute(wanted, {"now": now}).first()
    if row is None:
        return None
    more = {"reason_code": None, "reason_text": None, "advice": None, "field": None}
    return _lease(connection, row, JobState.STAGING, token, now, lease_s, **more)


def peek(connection: Connection, token: int, now: float) -> Job | None:
    """Return the job that would be claimed next, or None; nothing is changed."""
    row = _next(connection, token, now)
    return None if row is None else Job.from_row(row)


def _next(connection: Connection, token: int, now: float) -> Row[Any] | None:
    heads = [Candidate(*row) for row in connection.execute(_HEADS, {"now": now})]
    if not heads:
        return None
    first = order(heads, _use(connection, token, now))[0]
    return connection.execute(_ITS_ROW, {**asdict(first), "now": now}).one()


_CLAIMABLE = and_(
    jobs.c.state == literal_column(f"'{JobState.QUEUED}'"),
    jobs.c.is_held == false(),
    jobs.c.n_unmet_needs == literal_column("0"),
    jobs.c.is_set_aside == false(),
    or_(jobs.c.not_before.is_(None), jobs.c.not_before <= bindparam("now")),
)
"""Which jobs may be claimed ``now``; an index begins with the first columns."""

_HEADS = (
    select(jobs.c.priority, jobs.c.campaign, func.min(jobs.c.rank))
    .where(_CLAIMABLE)
    .group_by(jobs.c.priority, jobs.c.campaign)
)
_ITS_ROW = select(jobs).where(
    _CLAIMABLE,
    jobs.c.priority == bindparam("priority"),
    jobs.c.campaign == bindparam("campaign"),
    jobs.c.rank == bindparam("rank"),
)


def time_deadlines(connection: Connection, now: float, *, is_wall: bool) -> None:
    """Give those jobs a moment by which they must begin that have a duration only.

    Args:
        connection: A writing transaction of the store.
        now: Stamp at which the cell sees them.
        is_wall: Whether the cell's lab time is the wall clock's, so that it has passed
            since they were submitted; otherwise they were, in lab time, just now.
    """
    since = jobs.c.submitted if is_wall else literal(now)
    connection.execute(_UNTIMED.values(deadline=since + jobs.c.deadline_s))


_UNTIMED = jobs.update().where(
    text("deadline_s IS NOT NULL AND deadline IS NULL AND started IS NULL")
)


# -- waiting in the queue for what is not there ------------------------------------


def set_aside(connection: Connection, job_id: int, now: float, lack: Lack) -> None:
    """Let a queued job wait until :func:`look_again` for what it lacks.

    It is announced if it lacks something else than before. One that is not queued any
    more stays as it is.
    """
    row = row_of(connection, job_id)
    if row.state != JobState.QUEUED:
        return
    change = lack.columns()
    is_news = any(row._mapping[name] != value for name, value in change.items())
    connection.execute(CHANGE.values(is_set_aside=True, **change), {"wanted": job_id})
    if is_news:
        announced = {name: change[name] for name in lack.ANNOUNCED if change[name]}
        announce(connection, EventKind.JOB, announced, now, job_id)


def look_again(connection: Connection) -> None:
    """Let the jobs that were set aside be claimed: the lab has changed."""
    connection.execute(_SET_ASIDE.values(is_set_aside=False))


_SET_ASIDE = jobs.update().where(jobs.c.is_set_aside)


def has_set_aside(connection: Connection) -> bool:
    """Return whether a queued job waits until :func:`look_again`."""
    query = select(jobs.c.id).where(
        jobs.c.is_set_aside,
        jobs.c.state == str(JobState.QUEUED),
        jobs.c.is_held == false(),
    )
    return connection.execute(query.limit(1)).first() is not None


def next_try(connection: Connection) -> float | None:
    """Return the stamp at which a queued job is tried again, None if none is."""
    query = select(func.min(jobs.c.not_before)).where(
        jobs.c.not_before.is_not(None),
        jobs.c.state == str(JobState.QUEUED),
        jobs.c.is_held == false(),
        jobs.c.is_set_aside == false(),
    )
    return connection.execute(query).scalar()


def put_back(
    connection: Connection,
    job_id: int,
    token: int,
    now: float,
    lack: Lack,
    again_at: float | None = None,
) -> Job:
    """Put a job that has touched nothing back into the queue, as if it never began.

    What it had claimed is free again. If somebody asked to stop it, it ends instead.

    Args:
        connection: A writing transaction of the store.
        job_id: A job of the cell.
        token: The cell's fencing token.
        now: Stamp of the change.
        lack: Why it cannot go on, and what it waits for.
        again_at: When it is tried again; None if when the lab has changed.

    Raises:
        StaleTokenError: If a newer cell has taken over, or the job is not the cell's.
        ConflictError: If it has touched something.
    """
    require_token(connection, token)
    row = row_of(connection, job_id)
    if row.lease_token != token:
        raise StaleTokenError(f"job {job_id} is {row.state} and not this cell's")
    return _put_back(connection, row, now, lack, again_at)


def _put_back(
    connection: Connection,
    row: Row[Any],
    now: float,
    lack: Lack | None,
    again_at: float | None = None,
) -> Job:
    asked = waiting(connection, row.id)
    for one in asked:
        if isinstance(one.request, Cancel | Abort):
            told = (one.command, f"{one.command}: by {one.by}")
            return change_state(connection, row, JobState.ABORTED, now, reason=told)
    for one in asked:
        settle(connection, one.sequence, "the job went back to the queue", now)
    why = f"job {row.id} went back to the queue"
    give_up_samples(connection, row.id, Effect(row.physical_effect), why, now)
    connection.execute(steps.delete().where(steps.c.job_id == row.id))
    more: dict[str, Any] = {"is_set_aside": lack is not None and again_at is None}
    if lack is not None:
        more |= lack.columns()
    if again_at is not None:
        more |= {"not_before": again_at, "n_tries": row.n_tries + 1}
    return change_state(connection, row, JobState.QUEUED, now, **more)


# -- keeping and losing ------------------------------------------------------------


def adopt(
    connection: Connection, job_id: int, token: int, now: float, lease_s: float
) -> Job:
    """Give a lost job to a cell that has found out what became of it.

    Raises:
        StaleTokenError: If a newer cell has taken over.
        ConflictError: If the job is not lost.
    """
    require_token(connection, token)
    row = row_of(connection, job_id)
    return _lease(connection, row, JobState.RECOVERING, token, now, lease_s)


def renew(connection: Connection, token: int, now: float, lease_s: float) -> None:
    """Extend the leases of a cell's jobs, which is not announced.

    Raises:
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    connection.execute(
        jobs.update()
        .where(jobs.c.lease_token == token)
        .values(lease_expires=now + lease_s)
    )


def lose_expired(connection: Connection, now: float) -> list[int]:
    """Declare the jobs lost whose cell has not renewed its lease; return their ids."""
    query = select(jobs.c.id).where(
        jobs.c.lease_token.is_not(None), jobs.c.lease_expires < now
    )
    return lose(
        connection,
        connection.execute(query).scalars().all(),
        ("lease", "its cell did not renew the lease"),
        now,
    )


def lose(
    connection: Connection,
    ids: Sequence[int],
    reason: tuple[str, str],
    now: float,
    untouched: Collection[int] = (),
) -> list[int]:
    """Take jobs from a cell that has vanished; somebody must say what became of them.

    Those that it had not begun go back to the queue.

    Args:
        connection: A writing transaction of the store.
        ids: Jobs that a cell owns.
        reason: Code and text.
        now: Stamp of the declaration.
        untouched: Jobs of which the cell says that they have touched nothing.

    Returns:
        Those that are lost.
    """
    lost = []
    for job_id in ids:
        row = row_of(connection, job_id)
        is_untouched = row.state == JobState.STAGING or job_id in untouched
        if is_untouched and row.physical_effect == Effect.NONE:
            _put_back(connection, row, now, None)
            continue
        change_state(connection, row, JobState.LOST, now, reason=reason)
        lost.append(job_id)
    return lost


def lose_leased(
    connection: Connection,
    token: int,
    reason: tuple[str, str],
    now: float,
    untouched: Collection[int] = (),
) -> list[int]:
    """Take all its jobs from a cell that ends, as :func:`lose`."""
    query = select(jobs.c.id).where(jobs.c.lease_token == token)
    ids = connection.execute(query).scalars().all()
    return lose(connection, ids, reason, now, untouched)


def lose_vanished(connection: Connection, now: float) -> list[int]:
    """Declare the jobs of cells that have ended lost; return their ids."""
    query = (
        select(jobs.c.id)
        .join(cells, cells.c.token == jobs.c.lease_token)
        .where(cells.c.ended.is_not(None))
    )
    return lose(
        connection,
        connection.execute(query).scalars().all(),
        ("cell", "its cell vanished"),
        now,
    )


def _lease(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    token: int,
    now: float,
    lease_s: float,
    **more: Any,
) -> Job:
    lease = {
        "lease_token": token,
        "lease_began": now,
        "lease_expires": now + lease_s,
        "started": now if row.started is None else row.started,
    }
    return change_state(connection, row, state, now, **lease, **more)


# -- fair share --------------------------------------------------------------------


def _use(connection: Connection, token: int, now: float) -> dict[str, float]:
    """Return what each campaign uses and has used of the cell lately [s]."""
    use = {
        row.name: decayed(row.used_s, now - row.used_at)
        for row in connection.execute(select(campaigns))
    }
    for campaign, began in connection.execute(_LEASED, {"wanted": token}):
        use[campaign] = use.get(campaign, 0.0) + max(now - began, LEAST_USE_S)
    return use


# By token, because PostgreSQL reads all jobs to find those with any, until it has
# gathered statistics.
_LEASED = select(jobs.c.campaign, jobs.c.lease_began).where(
    jobs.c.lease_token == bindparam("wanted")
)
