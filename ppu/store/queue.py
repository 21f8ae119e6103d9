"""The queue: jobs come, wait their turn, are claimed by a cell, and end.

Every function works in a transaction of the caller, ``store.write(lambda connection:
submit(connection, request, now))``, so that several changes are kept together or not
at all. Each announces what it changed. *now* is a stamp [s since 1970]; nothing here
reads a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    false,
    func,
    literal_column,
    select,
    text,
)

from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StaleTokenError,
)
from ppu.core.remedies import Advice, plain_advice
from ppu.store.cells import is_owned, require_token
from ppu.store.commands import request, settle, waiting
from ppu.store.custody import give_up_samples
from ppu.store.events import EventKind, announce, announce_all, encode, last_event
from ppu.store.jobs import ACTIVE, ALLOWED, ENDED, Effect, Job, JobRequest, JobState
from ppu.store.order import LEAST_USE_S, Candidate, decayed, order
from ppu.store.requests import Abort, Cancel
from ppu.store.schema import (
    allocations,
    campaigns,
    cells,
    job_needs,
    jobs,
)
from ppu.store.stock import allocate

__all__ = [
    "abort",
    "adopt",
    "cancel",
    "claim",
    "expire",
    "find",
    "get",
    "hold",
    "lose",
    "lose_expired",
    "lose_leased",
    "lose_vanished",
    "prioritize",
    "renew",
    "reorder",
    "resume",
    "submit",
    "submit_many",
    "transition",
]

_BEFORE_START = (
    JobState.CREATED,
    JobState.VALIDATING,
    JobState.AWAITING_APPROVAL,
    JobState.QUEUED,
)
_MOST_IN_A_QUERY = 500
_UNSTARTED = text("deadline IS NOT NULL AND started IS NULL AND ended IS NULL")


# -- coming ------------------------------------------------------------------------


def submit(
    connection: Connection,
    wanted: JobRequest,
    now: float,
    state: JobState = JobState.QUEUED,
) -> int:
    """Put a job into the queue, or find it there by its key; return its id.

    Raises:
        ConflictError: If the key names another experiment, or a job that it needs can
            no longer succeed.
        NotFoundError: If a job that it needs or retries is not there.
        LimitError: If there is not enough of a powder that is allocated to nobody.
    """
    return submit_many(connection, [wanted], now, state)[0]


def submit_many(
    connection: Connection,
    wanted: Sequence[JobRequest],
    now: float,
    state: JobState = JobState.QUEUED,
) -> list[int]:
    """Put jobs into the queue, all or none; return their ids in the same order.

    Args:
        connection: A writing transaction of the store.
        wanted: The jobs; one whose key is known already is not made again.
        now: Stamp of the submission.
        state: Where they start; not beyond ``queued``.

    Raises:
        ConflictError: As :func:`submit`.
        NotFoundError: As :func:`submit`.
        LimitError: As :func:`submit`, for all of them together.
    """
    if state not in _BEFORE_START:
        raise ConfigurationError(f"a job cannot be submitted as {state}")
    digests = [one.digest() for one in wanted]
    known = _known_keys(connection, wanted)
    needed = _states(connection, {need for one in wanted for need in one.needs})
    parents = {one.parent_id for one in wanted if one.parent_id is not None}
    if unknown := parents - _states(connection, parents).keys():
        raise NotFoundError(f"there is no job {min(unknown)} to retry")
    first = last_event(connection) + 1
    ids: list[int] = []
    rows: list[dict[str, Any]] = []
    needs: list[dict[str, int]] = []
    powders: list[tuple[int, Mapping[str, float]]] = []
    for one, digest in zip(wanted, digests, strict=True):
        if one.key is not None and one.key in known:
            job_id, digest_before = known[one.key]
            if digest_before != digest:
                raise ConflictError(
                    f"key {one.key!r} names job {job_id}, which is another experiment; "
                    "use a new key"
                )
            ids.append(job_id)
            continue
        job_id = first + len(rows)
        n_unmet = 0
        for need in set(one.needs):
            n_unmet += _is_unmet(need, needed.get(need))
            needs.append({"job_id": job_id, "needed_id": need})
        rows.append(_row_of(one, digest, job_id, n_unmet, state, now))
        powders.append((job_id, one.stock))
        ids.append(job_id)
        if one.key is not None:
            known[one.key] = (job_id, digest)
    if rows:
        announce_all(
            connection,
            EventKind.JOB,
            [(row["id"], _submission_of(row)) for row in rows],
            now,
        )
        connection.execute(jobs.insert(), rows)
    if needs:
        connection.execute(job_needs.insert(), needs)
    allocate(connection, powders)
    return ids


def _row_of(
    one: JobRequest,
    digest: str,
    job_id: int,
    n_unmet_needs: int,
    state: JobState,
    now: float,
) -> dict[str, Any]:
    return {
        "id": job_id,
        "key": one.key,
        "digest": digest,
        "protocol": one.protocol,
        "version": one.version,
        "parameters": encode(one.parameters),
        "priority": one.priority,
        "campaign": one.campaign,
        "deadline": one.deadline,
        "tags": encode(one.tags),
        "parent_id": one.parent_id,
        "state": str(state),
        "is_held": one.is_held,
        "rank": job_id,
        "n_unmet_needs": n_unmet_needs,
        "physical_effect": str(Effect.NONE),
        "is_retryable": False,
        "submitted": now,
    }


def _submission_of(row: dict[str, Any]) -> dict[str, Any]:
    shown = ("state", "protocol", "campaign", "priority", "is_held")
    return {name: row[name] for name in shown}


def _is_unmet(need: int, state: JobState | None) -> bool:
    if state is None:
        raise NotFoundError(f"there is no job {need} to wait for")
    if state in ENDED and state is not JobState.SUCCEEDED:
        raise ConflictError(f"job {need} is needed and has ended as {state}")
    return state is not JobState.SUCCEEDED


def _known_keys(
    connection: Connection, wanted: Iterable[JobRequest]
) -> dict[str, tuple[int, str]]:
    keys = {one.key for one in wanted if one.key is not None}
    return {
        row.key: (row.id, row.digest)
        for some in _in_parts(keys)
        for row in connection.execute(_KEYS, {"wanted": some})
    }


def _states(connection: Connection, ids: Collection[int]) -> dict[int, JobState]:
    return {
        row.id: JobState(row.state)
        for some in _in_parts(ids)
        for row in connection.execute(_STATES, {"wanted": some})
    }


def _in_parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield *values* in parts that fit into one query."""
    rest = iter(values)
    while part := list(islice(rest, _MOST_IN_A_QUERY)):
        yield part


_KEYS = select(jobs.c.key, jobs.c.id, jobs.c.digest).where(
    jobs.c.key.in_(bindparam("wanted", expanding=True))
)
_STATES = select(jobs.c.id, jobs.c.state).where(
    jobs.c.id.in_(bindparam("wanted", expanding=True))
)


# -- looking -----------------------------------------------------------------------


def get(connection: Connection, job_id: int) -> Job:
    """Return a job.

    Raises:
        NotFoundError: If there is none of that number.
    """
    return Job.from_row(_row(connection, job_id))


def find(
    connection: Connection,
    *,
    states: Collection[JobState] = (),
    campaign: str | None = None,
    tag: str | None = None,
    limit: int = 100,
) -> list[Job]:
    """Return up to *limit* jobs that fit all that is given, the newest first."""
    query: Select[Any] = select(jobs)
    if states:
        query = query.where(jobs.c.state.in_([str(state) for state in states]))
    if campaign is not None:
        query = query.where(jobs.c.campaign == campaign)
    if tag is not None:
        query = query.where(jobs.c.tags.contains(encode(tag), autoescape=True))
    rows = connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))
    return [Job.from_row(row) for row in rows]


def _row(connection: Connection, job_id: int) -> Row[Any]:
    row = connection.execute(_BY_ID, {"wanted": job_id}).first()
    if row is None:
        raise NotFoundError(f"there is no job {job_id}")
    return row


_BY_ID = select(jobs).where(jobs.c.id == bindparam("wanted"))
_CHANGE = jobs.update().where(jobs.c.id == bindparam("wanted"))


# -- waiting -----------------------------------------------------------------------


def hold(connection: Connection, job_id: int, now: float) -> Job:
    """Keep a job from being claimed; one that runs waits before its next step."""
    return _set(connection, job_id, now, is_held=True)


def resume(connection: Connection, job_id: int, now: float) -> Job:
    """End the hold of a job."""
    return _set(connection, job_id, now, is_held=False)


def prioritize(connection: Connection, job_id: int, priority: int, now: float) -> Job:
    """Change the priority of a job that waits."""
    return _set(connection, job_id, now, only_waiting=True, priority=priority)


def _set(
    connection: Connection,
    job_id: int,
    now: float,
    *,
    only_waiting: bool = False,
    **change: Any,
) -> Job:
    row = _row(connection, job_id)
    if row.state in ENDED or (only_waiting and row.state not in _BEFORE_START):
        raise ConflictError(f"job {job_id} is {row.state}; it no longer waits")
    if any(row._mapping[name] != value for name, value in change.items()):
        connection.execute(_CHANGE.values(**change), {"wanted": job_id})
        announce(connection, EventKind.JOB, change, now, job_id)
    return get(connection, job_id)


def reorder(connection: Connection, job_id: int, before_id: int, now: float) -> None:
    """Let a queued job go before another one of the same priority.

    Between campaigns the fair share still decides first.

    Raises:
        ConflictError: If one of them is not queued or their priorities differ.
    """
    moved, before = _row(connection, job_id), _row(connection, before_id)
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
        change = _CHANGE.values(rank=bindparam("new_rank"))
        connection.execute(change, changes)
        content = {"goes_before": before_id}
        announce(connection, EventKind.JOB, content, now, job_id)


def expire(connection: Connection, now: float) -> list[int]:
    """End the jobs that have not begun by their deadline; return their ids."""
    query = select(jobs.c.id).where(_UNSTARTED, jobs.c.deadline < now)
    late = connection.execute(query).scalars().all()
    for job_id in late:
        if _row(connection, job_id).state not in ENDED:  # another's end may end it
            transition(
                connection,
                job_id,
                JobState.EXPIRED,
                now,
                reason=("deadline", "it had not begun by its deadline"),
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
    row = _row(connection, job_id)
    if row.state in _BEFORE_START:
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
    row = _row(connection, job_id)
    if row.state in _BEFORE_START:
        return cancel(connection, job_id, by, now)
    if row.state == JobState.LOST and not is_owned(connection):
        text = f"given up by {by}" + (f": {reason}" if reason else "")
        why = ("aborted", text)
        return transition(connection, job_id, JobState.ABORTED, now, reason=why)
    if row.state not in ENDED:
        request(connection, Abort(reason=reason), by, now, job_id=job_id)
    return get(connection, job_id)


# -- a cell's work -----------------------------------------------------------------


def claim(connection: Connection, token: int, now: float, lease_s: float) -> Job | None:
    """Give the next job to a cell, or None if there is none for it.

    Args:
        connection: A writing transaction of the store.
        token: The cell's fencing token.
        now: Stamp of the claim.
        lease_s: How long the cell is trusted with it unless it renews [s].

    Raises:
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    expire(connection, now)
    heads = [Candidate(*row) for row in connection.execute(_HEADS)]
    if not heads:
        return None
    first = order(heads, _use(connection, token, now))[0]
    row = connection.execute(_ITS_ROW, asdict(first)).one()
    return _lease(connection, row, JobState.STAGING, token, now, lease_s)


_CLAIMABLE = and_(
    jobs.c.state == literal_column(f"'{JobState.QUEUED}'"),
    jobs.c.is_held == false(),
    jobs.c.n_unmet_needs == literal_column("0"),
)
"""Which jobs may be claimed; an index begins with these columns."""

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


def adopt(
    connection: Connection, job_id: int, token: int, now: float, lease_s: float
) -> Job:
    """Give a lost job to a cell that has found out what became of it.

    Raises:
        StaleTokenError: If a newer cell has taken over.
        ConflictError: If the job is not lost.
    """
    require_token(connection, token)
    row = _row(connection, job_id)
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
    connection: Connection, ids: Sequence[int], reason: tuple[str, str], now: float
) -> list[int]:
    """Take jobs from a cell that has vanished; somebody must say what became of them.

    Args:
        connection: A writing transaction of the store.
        ids: Jobs that a cell owns.
        reason: Code and text.
        now: Stamp of the declaration.
    """
    for job_id in ids:
        row = _row(connection, job_id)
        _change_state(connection, row, JobState.LOST, now, reason=reason)
    return list(ids)


def lose_leased(
    connection: Connection, token: int, reason: tuple[str, str], now: float
) -> list[int]:
    """Take all its jobs from a cell that ends, for the next one to go on."""
    query = select(jobs.c.id).where(jobs.c.lease_token == token)
    return lose(connection, connection.execute(query).scalars().all(), reason, now)


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


def transition(
    connection: Connection,
    job_id: int,
    state: JobState,
    now: float,
    *,
    token: int | None = None,
    effect: Effect | None = None,
    is_retryable: bool | None = None,
    reason: tuple[str, str] | None = None,
    advice: Iterable[Advice] = (),
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
        is_retryable: Whether a new job might do better.
        reason: Code and text; kept until another one is given.
        advice: What can be done about the reason.
        result: The protocol's result, as plain data.

    Raises:
        StaleTokenError: If the job is not, or no longer, the caller's.
        ConflictError: If the new state cannot follow the present one.
    """
    row = _row(connection, job_id)
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
    if is_retryable is not None:
        more["is_retryable"] = is_retryable
    if result is not None:
        more["result"] = encode(result)
    if reason is not None:
        more["advice"] = encode(plain_advice(advice))
    return _change_state(
        connection, row, state, now, effect=effect, reason=reason, **more
    )


def _owner(token: int | None) -> str:
    return "no cell" if token is None else f"the cell with token {token}"


def _lease(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    token: int,
    now: float,
    lease_s: float,
) -> Job:
    lease = {
        "lease_token": token,
        "lease_began": now,
        "lease_expires": now + lease_s,
        "started": now if row.started is None else row.started,
    }
    return _change_state(connection, row, state, now, **lease)


def _change_state(
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
        for one in dependents:
            waiting = _row(connection, one)
            if waiting.state in _BEFORE_START:
                _write_state(
                    connection, waiting, JobState.CANCELLED, now, reason=reason
                )
                ended.append((one, JobState.CANCELLED))
    return get(connection, row.id)


_DEPENDENTS = (
    select(job_needs.c.job_id)
    .where(job_needs.c.needed_id == bindparam("wanted"))
    .order_by(job_needs.c.job_id)
)
_NEED_MET = _CHANGE.values(n_unmet_needs=jobs.c.n_unmet_needs - 1)
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
    connection.execute(_CHANGE.values(**change), {"wanted": row.id})
    announced = {"state": str(state), "was": row.state}
    for name in ("physical_effect", "reason_code", "reason_text", "lease_token"):
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
