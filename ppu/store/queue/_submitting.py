"""Puts jobs into the queue, once."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ppu.core.errors import ConfigurationError, ConflictError, NotFoundError
from ppu.store.bounds import (
    bounded_deadline,
    bounded_deadline_s,
    bounded_job,
    bounded_priority,
)
from ppu.store.events import EventKind, announce_all, encode, last_event
from ppu.store.jobs import BEFORE_START, ENDED, Effect, Job, JobRequest, JobState
from ppu.store.queue._finding import get
from ppu.store.schema import events, job_needs, jobs
from ppu.store.stock import allocate

__all__ = ["retry", "submit", "submit_many"]

_MOST_IN_A_QUERY = 500


def submit(
    connection: Connection,
    wanted: JobRequest,
    now: float,
    state: JobState = JobState.QUEUED,
) -> int:
    """Put a job into the queue, or find it there by its key; return its id.

    Raises:
        ConfigurationError: If its priority, its deadline or the number of a job that it
            needs cannot be.
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
        ConfigurationError: As :func:`submit`.
        ConflictError: As :func:`submit`.
        NotFoundError: As :func:`submit`.
        LimitError: As :func:`submit`, for all of them together.
    """
    if state not in BEFORE_START:
        raise ConfigurationError(f"a job cannot be submitted as {state}")
    digests = [one.digest() for one in wanted]
    known = _known_keys(connection, wanted)
    for one in wanted:
        _check_bounds(one)
    needed = _states(connection, {need for one in wanted for need in one.needs})
    parents = {one.parent_id for one in wanted if one.parent_id is not None}
    if unknown := parents - _states(connection, parents).keys():
        raise NotFoundError(f"there is no job {min(unknown)} to retry")
    first = last_event(connection) + 1
    ids: list[int] = []
    rows: list[dict[str, Any]] = []
    announced: list[tuple[int, dict[str, Any]]] = []
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
        announced.append((job_id, _submission_of(one, state)))
        powders.append((job_id, one.stock))
        ids.append(job_id)
        if one.key is not None:
            known[one.key] = (job_id, digest)
    if rows:
        announce_all(connection, EventKind.JOB, announced, now)
        connection.execute(jobs.insert(), rows)
    if needs:
        connection.execute(job_needs.insert(), needs)
    allocate(connection, powders)
    return ids


def _check_bounds(one: JobRequest) -> None:
    bounded_priority(one.priority)
    if one.deadline is not None:
        bounded_deadline(one.deadline)
    if one.deadline_s is not None:
        bounded_deadline_s(one.deadline_s)
    for powder, mass_g in one.stock.items():
        if not 0 <= mass_g < math.inf:
            raise ConfigurationError(
                f"{mass_g} g of {powder} cannot be allocated; give 0 or more"
            )


def retry(connection: Connection, job_id: int, now: float) -> Job:
    """Submit once more what was asked with a job that has ended; return the new job.

    Asked twice, it is one job.

    Raises:
        NotFoundError: If there is no such job.
        ConflictError: If it has not ended, or has succeeded.
        LimitError: As :func:`submit`.
    """
    job = get(connection, job_id)
    if job.state not in ENDED or job.state is JobState.SUCCEEDED:
        raise ConflictError(f"job {job_id} is {job.state}; it is not to be retried")
    said = select(events.c.content).where(events.c.sequence == job_id)
    asked = json.loads(connection.execute(said).scalar_one())
    wanted = JobRequest(
        job.protocol,
        job.version,
        job.parameters,
        key=f"retry of job {job_id}",
        priority=job.priority,
        campaign=job.campaign,
        tags=job.tags,
        parent_id=job_id,
        stock=asked.get("stock", {}),
        compiled_digest=asked.get("compiled_digest"),
        lab_digest=asked.get("lab_digest"),
        deadline_s=job.deadline_s,
    )
    return get(connection, submit(connection, wanted, now))


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
        "deadline_s": one.deadline_s,
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


def _submission_of(one: JobRequest, state: JobState) -> dict[str, Any]:
    """Return what is announced of a job; what it was checked against is kept there."""
    content = {
        "state": str(state),
        "protocol": one.protocol,
        "campaign": one.campaign,
        "priority": one.priority,
        "is_held": one.is_held,
    }
    if one.stock:
        content["stock"] = dict(one.stock)
    checked = {"compiled_digest": one.compiled_digest, "lab_digest": one.lab_digest}
    return content | {name: said for name, said in checked.items() if said is not None}


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
        for some in _in_parts(map(bounded_job, ids))
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
