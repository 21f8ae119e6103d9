"""Every invariant of the store that can be stated, each as a question to the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, and_, false, func, or_, select

from ppu.store.jobs import ACTIVE, ENDED, Effect, JobState
from ppu.store.schema import (
    allocations,
    cells,
    commands,
    containers,
    custody,
    documents,
    events,
    job_needs,
    jobs,
    sample_containers,
    samples,
    steps,
    stock,
)

__all__ = ["CUSTODY_KINDS", "SAMPLE_STATES", "STEP_STATES", "find_faults"]

STEP_STATES = ("intent", "done", "unsettled", "failed")
SAMPLE_STATES = ("active", "quarantined", "released")
CUSTODY_KINDS = (
    "declared",
    "claimed",
    "left",
    "moved",
    "found",
    "released",
    "returned",
)

_N_SHOWN = 5
_ROUNDING_G = 1e-9

_needed = jobs.alias("needed")
_there = containers.alias("there")
_is_active = jobs.c.state.in_(sorted(map(str, ACTIVE)))
_is_ended = jobs.c.state.in_(sorted(map(str, ENDED)))
_is_queued = jobs.c.state == str(JobState.QUEUED)
_has_lease = jobs.c.lease_token.is_not(None)

_N_UNMET = (
    select(func.count())
    .select_from(job_needs.join(_needed, _needed.c.id == job_needs.c.needed_id))
    .where(job_needs.c.job_id == jobs.c.id, _needed.c.state != str(JobState.SUCCEEDED))
    .correlate(jobs)
    .scalar_subquery()
)
_LAST_MOVE = (
    select(func.max(custody.c.sequence))
    .where(custody.c.container == containers.c.name)
    .correlate(containers)
    .scalar_subquery()
)

_is_somewhere = (
    select(sample_containers).where(sample_containers.c.sample == samples.c.id).exists()
)

_OF_JOBS: tuple[tuple[str, Select[Any]], ...] = (
    (
        "jobs are in a state that there is not",
        select(jobs.c.id, jobs.c.state).where(
            jobs.c.state.not_in([str(state) for state in JobState])
        ),
    ),
    (
        "jobs have had an effect that there is not",
        select(jobs.c.id, jobs.c.physical_effect).where(
            jobs.c.physical_effect.not_in([str(effect) for effect in Effect])
        ),
    ),
    (
        "active jobs have no lease",
        select(jobs.c.id).where(_is_active, ~_has_lease),
    ),
    (
        "jobs have a lease and are not active",
        select(jobs.c.id).where(~_is_active, _has_lease),
    ),
    (
        "leases have no begin or no end",
        select(jobs.c.id).where(
            _has_lease,
            or_(jobs.c.lease_began.is_(None), jobs.c.lease_expires.is_(None)),
        ),
    ),
    (
        "leases are held by cells that have ended",
        select(jobs.c.id)
        .join(cells, cells.c.token == jobs.c.lease_token)
        .where(cells.c.ended.is_not(None)),
    ),
    (
        "jobs have ended and do not say when, or the other way round",
        select(jobs.c.id).where(_is_ended != jobs.c.ended.is_not(None)),
    ),
    (
        "jobs were never started and have come too far for that",
        select(jobs.c.id).where(
            or_(_is_active, jobs.c.state.in_(["succeeded", "failed", "aborted"])),
            jobs.c.started.is_(None),
        ),
    ),
    (
        "queued jobs have touched something",
        select(jobs.c.id).where(_is_queued, jobs.c.physical_effect != str(Effect.NONE)),
    ),
    (
        "jobs ended before they started, or started before they were submitted",
        select(jobs.c.id).where(
            or_(
                jobs.c.started < jobs.c.submitted,
                jobs.c.ended < func.coalesce(jobs.c.started, jobs.c.submitted),
            )
        ),
    ),
    (
        "jobs count what they need wrongly",
        select(jobs.c.id).where(jobs.c.n_unmet_needs != _N_UNMET),
    ),
    (
        "jobs run before what they need has succeeded",
        select(jobs.c.id).where(_is_active, _N_UNMET > 0),
    ),
    (
        "queued jobs share a place in the queue",
        select(func.min(jobs.c.id))
        .where(_is_queued)
        .group_by(jobs.c.rank)
        .having(func.count() > 1),
    ),
    (
        "several cells live",
        select(func.count(cells.c.token))
        .where(cells.c.ended.is_(None))
        .having(func.count() > 1),
    ),
    (
        "a cell lives that is not the newest",
        select(cells.c.token).where(
            cells.c.ended.is_(None),
            cells.c.token < select(func.max(cells.c.token)).scalar_subquery(),
        ),
    ),
)

_OF_STEPS: tuple[tuple[str, Select[Any]], ...] = (
    (
        "steps are in a state that there is not",
        select(steps.c.job_id, steps.c.path).where(steps.c.state.not_in(STEP_STATES)),
    ),
    (
        "steps are done and have no result or no end",
        select(steps.c.job_id, steps.c.path).where(
            steps.c.state == "done",
            or_(steps.c.result.is_(None), steps.c.ended.is_(None)),
        ),
    ),
    (
        "steps are open in jobs that have succeeded",
        select(steps.c.job_id, steps.c.path)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(
            steps.c.state.in_(["intent", "unsettled"]),
            jobs.c.state == str(JobState.SUCCEEDED),
        ),
    ),
    (
        "steps were begun in jobs that were not",
        select(steps.c.job_id, steps.c.path)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(jobs.c.started.is_(None)),
    ),
    (
        "steps were begun by a cell newer than the one that owns the job",
        select(steps.c.job_id, steps.c.path)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(steps.c.token > jobs.c.lease_token),
    ),
)

_OF_MATTER: tuple[tuple[str, Select[Any]], ...] = (
    (
        "samples are in a state that there is not",
        select(samples.c.id, samples.c.state).where(
            samples.c.state.not_in(SAMPLE_STATES)
        ),
    ),
    (
        "samples are in no container and not released",
        select(samples.c.id).where(samples.c.state != "released", ~_is_somewhere),
    ),
    (
        "samples are released and still in a container",
        select(samples.c.id).where(samples.c.state == "released", _is_somewhere),
    ),
    (
        "samples are quarantined and do not say why",
        select(samples.c.id).where(
            samples.c.state == "quarantined", samples.c.reason.is_(None)
        ),
    ),
    (
        "samples are active and nobody knows what became of them",
        select(samples.c.id)
        .join(steps, steps.c.job_id == samples.c.job_id)
        .where(samples.c.state == "active", steps.c.state == "unsettled"),
    ),
    (
        "containers hold a sample and are not used",
        select(containers.c.name)
        .join(sample_containers, sample_containers.c.container == containers.c.name)
        .where(containers.c.is_used == false()),
    ),
    (
        "several containers are at one location",
        select(containers.c.location)
        .where(containers.c.location.is_not(None))
        .group_by(containers.c.location)
        .having(func.count() > 1),
    ),
    (
        "containers are under way to a location that is taken",
        select(containers.c.name).join(
            _there, _there.c.location == containers.c.under_way_to
        ),
    ),
    (
        "custody events are of a kind that there is not",
        select(custody.c.sequence).where(custody.c.kind.not_in(CUSTODY_KINDS)),
    ),
    (
        "containers are elsewhere than custody says",
        select(containers.c.name)
        .join(custody, custody.c.sequence == _LAST_MOVE)
        .where(
            containers.c.location.is_not(None),
            or_(
                custody.c.destination.is_(None),
                custody.c.destination != containers.c.location,
            ),
        ),
    ),
    (
        "more powder is allocated than there is",
        select(stock.c.powder)
        .join(allocations, allocations.c.powder == stock.c.powder)
        .group_by(stock.c.powder, stock.c.mass_g)
        .having(func.sum(allocations.c.mass_g) > stock.c.mass_g + _ROUNDING_G),
    ),
    (
        "powder is allocated to jobs that have ended",
        select(allocations.c.job_id, allocations.c.powder)
        .join(jobs, jobs.c.id == allocations.c.job_id)
        .where(_is_ended),
    ),
)


def find_faults(connection: Connection) -> list[str]:
    """Return what is wrong in the store, a sentence each; empty if nothing is.

    Args:
        connection: A transaction that sees one moment.
    """
    faults = list(_faults_of_the_sequence(connection))
    for sentence, query in (*_OF_JOBS, *_OF_STEPS, *_OF_MATTER):
        found = [" ".join(map(str, row)) for row in connection.execute(query)]
        if found:
            faults.append(_named(sentence, found))
    return faults


def _named(sentence: str, found: list[str]) -> str:
    shown = ", ".join(found[:_N_SHOWN])
    more = len(found) - _N_SHOWN
    return f"{sentence}: {shown}" + (f" and {more} more" if more > 0 else "")


def _faults_of_the_sequence(connection: Connection) -> Iterator[str]:
    """Yield gaps of the global sequence, and rows that it does not know."""
    first, last, n = connection.execute(
        select(func.min(events.c.sequence), func.max(events.c.sequence), func.count())
    ).one()
    if n and (first != 1 or last != n):
        yield f"the events have gaps: {n} of them from {first} to {last}"
    for table, column, kind in (
        (jobs, jobs.c.id, "job"),
        (commands, commands.c.sequence, "command"),
        (documents, documents.c.sequence, "document"),
        (custody, custody.c.sequence, "custody"),
    ):
        is_it = and_(events.c.sequence == column, events.c.kind == kind)
        is_announced = select(events.c.sequence).where(is_it).exists()
        unknown = connection.execute(select(column).where(~is_announced)).scalars()
        if found := [str(number) for number in unknown]:
            yield _named(f"{table.name} were never announced", found)
