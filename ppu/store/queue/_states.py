"""Brings jobs from one state into the next, with all that goes with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from ppu.core.errors import ConflictError, FailureClass, StaleTokenError
from ppu.core.remedies import Advice, plain_advice
from ppu.store.cells import require_token
from ppu.store.commands import settle, waiting
from ppu.store.custody import give_up_samples
from ppu.store.events import EventKind, announce, encode
from ppu.store.jobs import ACTIVE, ALLOWED, BEFORE_START, ENDED, Effect, Job, JobState
from ppu.store.order import decayed
from ppu.store.queue._finding import get, row_of
from ppu.store.schema import allocations, campaigns, job_needs, jobs

__all__ = ["CHANGE", "change_state", "transition"]

CHANGE = jobs.update().where(jobs.c.id == bindparam("wanted"))
"""A change of the job whose number is ``wanted``."""


def transition(
    connection: Connection,
    job_id: int,
    state: JobState,
    now: float,
    *,
    token: int | None = None,
    effect: Effect | None = None,
    reason: tuple[str, str] | None = None,
    advice: Iterable[Advice] = (),
    failure_class: FailureClass | None = None,
    field: str | None = None,
    result: Any = None,
) -> Job:
    """Bring a job into another state.

    Args:
        connection: A writing transaction of the store.
        job_id: The job.
        state: Its new state; staging is entered by :func:`claim`, recovering from
            lost by :func:`adopt`.
        now: Stamp of the change.
        token: Token of the cell that owns the job; None if nobody does.
        effect: How much has happened to matter.
        reason: Code and text; kept until another one is given.
        advice: What can be done about the reason.
        failure_class: What a program may do about it, if it ends without success; by
            default what the state says.
        field: What the reason is about.
        result: The protocol's result, as plain data.

    Raises:
        StaleTokenError: If the job is not, or no longer, the caller's.
        ConflictError: If the new state cannot follow the present one.
    """
    row = row_of(connection, job_id)
    if row.lease_token != token:
        raise StaleTokenError(
            f"job {job_id} is {row.state} and belongs to "
            f"{_owner(row.lease_token)}, not to {_owner(token)}"
        )
    if token is not None:
        require_token(connection, token)
    if state in ACTIVE and token is None:
        raise StaleTokenError(f"job {job_id} must be claimed before it is {state}")
    more: dict[str, Any] = {}
    if result is not None:
        more["result"] = encode(result)
    if reason is not None:
        more["advice"] = encode(plain_advice(advice))
        more["field"] = field
    if failure_class is not None:
        more["failure_class"] = str(failure_class)
    return change_state(
        connection, row, state, now, effect=effect, reason=reason, **more
    )


def _owner(token: int | None) -> str:
    return "no cell" if token is None else f"the cell with token {token}"


def change_state(
    connection: Connection, row: Row[Any], state: JobState, now: float, **more: Any
) -> Job:
    """Change a job's state and, if it ends, that of the jobs that wait for it."""
    _write_state(connection, row, state, now, **more)
    if state in (JobState.FAILED, JobState.ABORTED):
        job = get(connection, row.id)
        why = f"job {job.id} {state}: {job.reason_text or 'nobody said why'}"
        give_up_samples(connection, job.id, job.physical_effect, why, now)
    ended = [(row.id, state)] if state in ENDED else []
    while ended:
        job_id, how = ended.pop()
        connection.execute(_UNALLOCATE, {"wanted": job_id})
        dependents = connection.execute(_DEPENDENTS, {"wanted": job_id}).scalars().all()
        if how is JobState.SUCCEEDED:
            if dependents:
                connection.execute(_NEED_MET, [{"wanted": one} for one in dependents])
            continue
        reason = ("need", f"job {job_id}, which it needs, ended as {how}")
        lacks: dict[str, Any] = {"failure_class": "no_resource", "field": "needs"}
        for one in dependents:
            waiting = row_of(connection, one)
            if waiting.state in BEFORE_START:
                _write_state(
                    connection, waiting, JobState.CANCELLED, now, reason=reason, **lacks
                )
                ended.append((one, JobState.CANCELLED))
    return get(connection, row.id)


_DEPENDENTS = (
    select(job_needs.c.job_id)
    .where(job_needs.c.needed_id == bindparam("wanted"))
    .order_by(job_needs.c.job_id)
)
_NEED_MET = CHANGE.values(n_unmet_needs=jobs.c.n_unmet_needs - 1)
_UNALLOCATE = allocations.delete().where(allocations.c.job_id == bindparam("wanted"))


def _write_state(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    now: float,
    *,
    effect: Effect | None = None,
    reason: tuple[str, str] | None = None,
    **more: Any,
) -> None:
    """Write a job's state and what always goes with it, and announce it."""
    if state not in ALLOWED[JobState(row.state)]:
        raise ConflictError(f"job {row.id} is {row.state} and cannot be {state}")
    change: dict[str, Any] = {"state": str(state), **more}
    had = Effect(row.physical_effect)
    if effect is not None:
        if _EXTENT.index(effect) < _EXTENT.index(had):
            raise ConflictError(f"job {row.id} has had {had} effect, not {effect}")
        had = effect
        change["physical_effect"] = str(effect)
    if reason is not None:
        change["reason_code"], change["reason_text"] = reason
        change.setdefault("advice", None)
        change.setdefault("field", None)
    change.setdefault("failure_class", _CLASS_OF.get(state))
    change["is_retryable"] = change["failure_class"] == FailureClass.RETRYABLE
    if state not in ACTIVE and row.lease_token is not None:
        change |= {"lease_token": None, "lease_began": None, "lease_expires": None}
        _add_use(connection, row.campaign, now, now - row.lease_began)
    if state is JobState.QUEUED and row.started is not None:
        if had is not Effect.NONE:
            raise ConflictError(
                f"job {row.id} has had {had} effect; it cannot go back to the queue"
            )
        change["started"] = None
    if state in ENDED:
        change["ended"] = now
    connection.execute(CHANGE.values(**change), {"wanted": row.id})
    announced = {"state": str(state), "was": row.state}
    for name in _ANNOUNCED:
        if change.get(name) is not None:
            announced[name] = change[name]
    announce(connection, EventKind.JOB, announced, now, row.id)
    if state in ENDED:
        _close_requests(connection, row.id, state, now)


def _close_requests(
    connection: Connection, job_id: int, state: JobState, now: float
) -> None:
    """Keep that nothing is left to do of what was asked about a job that ended."""
    for asked in waiting(connection, job_id):
        settle(connection, asked.sequence, f"the job ended: {state}", now)


_EXTENT = list(Effect)
_CLASS_OF = {
    JobState.REJECTED: str(FailureClass.REJECTED),
    JobState.EXPIRED: str(FailureClass.REJECTED),
    JobState.CANCELLED: str(FailureClass.ABORTED),
    JobState.ABORTED: str(FailureClass.ABORTED),
    JobState.LOST: str(FailureClass.LOST),
    JobState.FAILED: str(FailureClass.INFEASIBLE),
}
"""What a program may do about a job in a state, if nothing else is known."""
_ANNOUNCED = (
    *("physical_effect", "reason_code", "reason_text", "lease_token"),
    *("failure_class", "field"),
)


def _add_use(connection: Connection, campaign: str, now: float, used_s: float) -> None:
    row = connection.execute(
        select(campaigns).where(campaigns.c.name == campaign)
    ).first()
    if row is None:
        values = {"name": campaign, "used_s": used_s, "used_at": now}
        connection.execute(campaigns.insert(), values)
        return
    total = decayed(row.used_s, now - row.used_at) + used_s
    connection.execute(
        campaigns.update()
        .where(campaigns.c.name == campaign)
        .values(used_s=total, used_at=now)
    )
