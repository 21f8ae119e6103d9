"""Custody: where containers are, which samples are in them, and who changed that.

A job's sample comes into being with the first container that the job claims. It is
*active* until a person says that its containers are empty and clean, which *releases*
it. While nobody knows what became of it, it is *quarantined*: one of the job's steps is
unsettled, or the job failed after it had touched something.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select

from ppu.core.custody import (
    Change,
    Claimed,
    CustodyLedger,
    Left,
    Moved,
    Quarantine,
)
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    InterlockError,
    InternalError,
    NotFoundError,
    nearest,
)
from ppu.core.remedies import Remedy, advise
from ppu.store import cells, commands
from ppu.store.events import EventKind, announce
from ppu.store.jobs import Effect
from ppu.store.requests import MoveContainer, ReleaseSample
from ppu.store.schema import (
    containers,
    custody,
    jobs,
    locations,
    sample_containers,
    samples,
    steps,
    stock,
)
from ppu.store.stock import declare_stock, use_stock

if TYPE_CHECKING:
    from ppu.core.labfile import LabFile

__all__ = [
    "ACTIVE",
    "QUARANTINED",
    "RELEASED",
    "Sample",
    "ask_move",
    "ask_release",
    "containers_of_job",
    "correct_location",
    "declare",
    "enter",
    "find_sample",
    "find_samples",
    "give_up_samples",
    "quarantine_samples",
    "read_ledger",
    "release_sample",
    "review_samples",
]

ACTIVE = "active"
QUARANTINED = "quarantined"
RELEASED = "released"

_MOVES_ALONE = ("staging", "running", "recovering", "finishing")
"""States in which a job changes the lab by itself."""


@dataclass(frozen=True)
class Sample:
    """A sample, as it was when it was read.

    Attributes:
        job_id: The job that made it.
        state: ``active``, ``quarantined`` or ``released``.
        reason: Why it is quarantined.
        places: Where each of its containers is, None if nobody knows.
    """

    id: str
    job_id: int
    state: str
    reason: str | None
    places: dict[str, str | None] = field(default_factory=dict)


# -- what a cell declares and enters -----------------------------------------------


def declare(
    connection: Connection,
    file: LabFile,
    now: float,
    believed: CustodyLedger | None = None,
) -> None:
    """Open the ledger with what a lab file says of things that are not in it yet.

    What is in them stays: the store knows better than the file where things went.
    Places, which no job changes, are those of the file.

    Args:
        connection: A writing transaction of the store.
        file: The lab file.
        now: Stamp of the declaration.
        believed: What is known of a lab in use that has no store yet; by default what
            the file says.
    """
    known_of = CustodyLedger.of(file) if believed is None else believed
    connection.execute(locations.delete())
    places = [{"name": n, "holds": entry.holds} for n, entry in file.locations.items()]
    if places:
        connection.execute(locations.insert(), places)
    known = set(connection.execute(select(containers.c.name)).scalars())
    for name, entry in file.containers.items():
        if name in known:
            continue
        row = {"name": name, "kind": entry.kind, "home": entry.at}
        place, goal = known_of.places[name], known_of.under_way.get(name)
        kept = row | {
            "location": place if goal is None else None,
            "under_way_to": goal,
            "is_used": name in known_of.used,
        }
        connection.execute(containers.insert(), kept)
        _tell(connection, "declared", name, None, place, "lab file", now)
        if goal is not None:
            _tell(connection, "left", name, place, goal, "lab file", now)
    declare_stock(connection, file, known_of.stock_g)


def enter(
    connection: Connection, changes: Sequence[Change], job_id: int, now: float
) -> None:
    """Keep what a job changed in the lab.

    Raises:
        InternalError: If the ledger does not agree with where a container was, or a
            sample is that of another job.
        InterlockError: If a claimed container holds a sample that is quarantined, or
            that of a job that has not ended.
    """
    for change in changes:
        if isinstance(change, Left):
            _leave(connection, change, job_id, now)
        elif isinstance(change, Moved):
            _arrive(connection, change, job_id, now)
        elif isinstance(change, Claimed):
            _claim(connection, change, job_id, now)
        else:
            use_stock(connection, change.powder, change.mass_g, job_id)


def _claim(connection: Connection, change: Claimed, job_id: int, now: float) -> None:
    connection.execute(
        containers.update()
        .where(containers.c.name == change.container)
        .values(is_used=True)
    )
    if not change.sample:
        return
    is_it = samples.c.id == change.sample
    known = connection.execute(select(samples).where(is_it)).first()
    if known is None:
        row = {"id": change.sample, "job_id": job_id, "state": ACTIVE}
        connection.execute(samples.insert(), row)
        review_samples(connection, job_id, now)  # another step may be unsettled
    elif known.job_id != job_id:
        raise InternalError(
            f"job {job_id} calls its sample {change.sample}, which is that of job "
            f"{known.job_id}"
        )
    elif known.state == RELEASED:  # its job went back to the queue, and begins anew
        _set_state(connection, change.sample, job_id, ACTIVE, None, now)
    held = _sample_in(connection, change.container)
    if held == change.sample:
        return
    if held is not None:
        _take_over(connection, change, held, now)
    row = {"container": change.container, "sample": change.sample}
    connection.execute(sample_containers.insert(), row)
    place = _place_of(connection, change.container)
    by = f"job {job_id}"
    _tell(connection, "claimed", change.container, place, place, by, now, job_id)


def _take_over(connection: Connection, change: Claimed, held: str, now: float) -> None:
    """Let a job go on with what another one made, which gets a new identity.

    Raises:
        InterlockError: If that job has not ended, or nobody knows what it left.
    """
    row = connection.execute(select(samples).where(samples.c.id == held)).one()
    job = _job_of(connection, row.job_id)
    if job.ended is None:
        raise InterlockError(
            f"{change.container} holds sample {held} of job {job.id}, which is "
            f"{job.state}; wait until it has ended"
        )
    if row.state == QUARANTINED:
        raise Quarantine(held, str(row.reason)).refusal(change.container)
    is_its = sample_containers.c.container == change.container
    connection.execute(sample_containers.delete().where(is_its))
    rest = select(sample_containers).where(sample_containers.c.sample == held)
    if connection.execute(rest).first() is None:
        reason = f"it is sample {change.sample} now"
        _set_state(connection, held, row.job_id, RELEASED, reason, now)


def _leave(connection: Connection, change: Left, job_id: int, now: float) -> None:
    found = _place_of(connection, change.container)
    if found != change.origin:
        raise InternalError(
            f"{change.container} leaves {change.origin}, but the ledger has it at "
            f"{found}"
        )
    connection.execute(
        containers.update()
        .where(containers.c.name == change.container)
        .values(location=None, under_way_to=change.destination)
    )
    way = (change.container, change.origin, change.destination)
    _tell(connection, "left", *way, f"job {job_id}", now, job_id)


def _arrive(connection: Connection, change: Moved, job_id: int, now: float) -> None:
    is_there = containers.c.location == change.destination
    found = connection.execute(select(containers.c.name).where(is_there)).scalar()
    if found not in (None, change.container):
        raise InternalError(
            f"{change.container} arrives at {change.destination}, where the ledger has "
            f"{found}"
        )
    _put(connection, change.container, change.destination)
    way = (change.container, change.origin, change.destination)
    _tell(connection, "moved", *way, f"job {job_id}", now, job_id, change.evidence)


def _put(connection: Connection, container: str, location: str) -> None:
    connection.execute(
        containers.update()
        .where(containers.c.name == container)
        .values(location=location, under_way_to=None)
    )


def _tell(
    connection: Connection,
    kind: str,
    container: str,
    origin: str | None,
    destination: str | None,
    by: str,
    now: float,
    job_id: int | None = None,
    evidence: str = "",
) -> None:
    sample = _sample_in(connection, container)
    content = {"kind": kind, "container": container, "destination": destination}
    if sample is not None:
        content["sample"] = sample
    row = {
        "sequence": announce(connection, EventKind.CUSTODY, content, now, job_id),
        "container": container,
        "sample": sample,
        "origin": origin,
        "destination": destination,
        "by": by,
        "kind": kind,
        "evidence": evidence or None,
    }
    connection.execute(custody.insert(), row)


def _place_of(connection: Connection, container: str) -> str | None:
    where = containers.c.name == container
    return connection.execute(select(containers.c.location).where(where)).scalar()


def _sample_in(connection: Connection, container: str) -> str | None:
    where = sample_containers.c.container == container
    return connection.execute(select(sample_containers.c.sample).where(where)).scalar()


def read_ledger(connection: Connection) -> CustodyLedger:
    """Return what is believed of the lab, as a cell continues with it."""
    found = CustodyLedger({})
    for row in connection.execute(select(containers)):
        place = row.location
        if place is None:
            place = _left_from(connection, row.name)
            found.under_way[row.name] = row.under_way_to or "nowhere"
        found.places[row.name] = place
        if row.is_used:
            found.used.add(row.name)
    query = (
        select(sample_containers)
        .join(samples, samples.c.id == sample_containers.c.sample)
        .join(jobs, jobs.c.id == samples.c.job_id)
        .where(jobs.c.ended.is_(None))
    )
    found.held = {one.container: one.sample for one in connection.execute(query)}
    found.quarantined = _read_quarantined(connection)
    said = (custody.c.kind == "released") & ~custody.c.by.like("job %")
    found.emptied = set(
        connection.execute(select(custody.c.container).where(said).distinct()).scalars()
    )
    for row in connection.execute(select(stock)):
        found.stock_g[row.powder] = row.mass_g
    return found


def _read_quarantined(connection: Connection) -> dict[str, Quarantine]:
    """Return what jobs that have ended left for people to look at."""
    query = (
        select(sample_containers.c.container, samples.c.id, samples.c.reason)
        .join(samples, samples.c.id == sample_containers.c.sample)
        .join(jobs, jobs.c.id == samples.c.job_id)
        .where(jobs.c.ended.is_not(None), samples.c.state == QUARANTINED)
    )
    return {
        one.container: Quarantine(one.id, str(one.reason))
        for one in connection.execute(query)
    }


def _left_from(connection: Connection, container: str) -> str:
    """Return where a container was before it left."""
    query = (
        select(custody.c.origin)
        .where(custody.c.container == container, custody.c.kind == "left")
        .order_by(custody.c.sequence.desc())
        .limit(1)
    )
    return str(connection.execute(query).scalar())


# -- what is known of a job's sample -----------------------------------------------


def quarantine_samples(
    connection: Connection, job_id: int, reason: str, now: float
) -> None:
    """Note that nobody knows what became of a job's sample, and why."""
    for row in _kept_of(connection, job_id):
        if (row.state, row.reason) != (QUARANTINED, reason):
            _set_state(connection, row.id, job_id, QUARANTINED, reason, now)


def review_samples(connection: Connection, job_id: int, now: float) -> None:
    """Quarantine the sample of a job that runs while one of its steps is unsettled."""
    query = (
        select(steps.c.path, steps.c.name, steps.c.evidence)
        .where(steps.c.job_id == job_id, steps.c.state == "unsettled")
        .order_by(steps.c.path)
    )
    open_ = connection.execute(query).first()
    if open_ is not None:
        seen = json.loads(open_.evidence or "{}").get("text", "nothing tells")
        why = f"step {open_.path} ({open_.name}) is unsettled: {seen}"
        quarantine_samples(connection, job_id, why, now)
        return
    for row in _kept_of(connection, job_id):
        if row.state == QUARANTINED:
            _set_state(connection, row.id, job_id, ACTIVE, None, now)


def give_up_samples(
    connection: Connection, job_id: int, effect: Effect, reason: str, now: float
) -> None:
    """Note that a job has ended without success.

    One that touched nothing leaves its containers as clean as they were; what others
    made is quarantined until a person has looked at it.
    """
    if effect is not Effect.NONE:
        quarantine_samples(connection, job_id, reason, now)
        return
    for row in _kept_of(connection, job_id):
        _give_back(connection, row.id, job_id, reason, now)


def _give_back(
    connection: Connection, sample: str, job_id: int, reason: str, now: float
) -> None:
    """Undo what claimed the containers of a sample that nothing was done with.

    One that was empty is so still; in another is the sample of before again.
    """
    by = f"job {job_id}"
    for container in _let_go(connection, sample, job_id, by, reason, now, "returned"):
        last = (
            select(custody.c.sample, custody.c.kind)
            .where(custody.c.container == container, custody.c.sample.is_not(None))
            .where(custody.c.sample != sample)
            .order_by(custody.c.sequence.desc())
            .limit(1)
        )
        before = connection.execute(last).first()
        if before is None or before.kind in ("released", "returned"):
            continue
        row = {"container": container, "sample": before.sample}
        connection.execute(sample_containers.insert(), row)
        connection.execute(
            containers.update()
            .where(containers.c.name == container)
            .values(is_used=True)
        )
        owner = connection.execute(
            select(samples.c.job_id).where(samples.c.id == before.sample)
        ).scalar_one()
        _set_state(connection, before.sample, owner, ACTIVE, None, now, by)
        place = _place_of(connection, container)
        _tell(connection, "claimed", container, place, place, by, now, owner, reason)


def _kept_of(connection: Connection, job_id: int) -> Sequence[Any]:
    where = (samples.c.job_id == job_id) & (samples.c.state != RELEASED)
    return connection.execute(select(samples).where(where)).all()


def _set_state(
    connection: Connection,
    sample: str,
    job_id: int,
    state: str,
    reason: str | None,
    now: float,
    by: str = "",
) -> None:
    connection.execute(
        samples.update()
        .where(samples.c.id == sample)
        .values(state=state, reason=reason)
    )
    content = {"sample": sample, "state": state, "reason": reason, "by": by}
    announce(connection, EventKind.SAMPLE, content, now, job_id)


def _let_go(
    connection: Connection,
    sample: str,
    job_id: int,
    by: str,
    reason: str,
    now: float,
    kind: str = "released",
) -> list[str]:
    """Release a sample: its containers are no longer used; return them."""
    is_its = sample_containers.c.sample == sample
    held = select(sample_containers.c.container).where(is_its).order_by("container")
    freed = list(connection.execute(held).scalars())
    for container in freed:
        place = _place_of(connection, container)
        way = (container, place, place)
        _tell(connection, kind, *way, by, now, job_id, reason)
    connection.execute(sample_containers.delete().where(is_its))
    connection.execute(
        containers.update().where(containers.c.name.in_(freed)).values(is_used=False)
    )
    _set_state(connection, sample, job_id, RELEASED, reason or None, now, by)
    return freed


# -- what people do ----------------------------------------------------------------


def ask_release(connection: Connection, sample: str, by: str, now: float) -> int | None:
    """Release a sample, or have the cell do it if one lives.

    Args:
        connection: A writing transaction of the store.
        sample: The sample, whose containers are empty and clean again.
        by: Who says so.
        now: Stamp of the request.

    Returns:
        Number of the request that waits for the cell; None if it is done.

    Raises:
        NotFoundError: As :func:`release_sample`.
        ConflictError: As :func:`release_sample`.
    """
    job_id = _releasable(connection, sample)
    if cells.is_owned(connection):
        wanted = ReleaseSample(sample=sample)
        return commands.request(connection, wanted, by, now, job_id=job_id)
    release_sample(connection, sample, by, now)
    return None


def release_sample(
    connection: Connection, sample: str, by: str, now: float
) -> list[str]:
    """Keep that a sample is gone and its containers are empty and clean again.

    Returns:
        The containers, which jobs may claim from now on.

    Raises:
        NotFoundError: If there is no such sample.
        ConflictError: If its job is not done with it, or a container is lost.
    """
    job_id = _releasable(connection, sample)
    return _let_go(connection, sample, job_id, by, "", now)


def check_release(connection: Connection, sample: str) -> list[str]:
    """Return the containers of a sample that a person may release.

    Raises:
        NotFoundError: As :func:`release_sample`.
        ConflictError: As :func:`release_sample`.
    """
    _releasable(connection, sample)
    return list(find_sample(connection, sample).places)


def _releasable(connection: Connection, sample: str) -> int:
    """Return the job of a sample that a person may release."""
    found = find_sample(connection, sample)
    if found.state == RELEASED:
        raise ConflictError(f"sample {sample} is released already")
    job = _job_of(connection, found.job_id)
    if job.ended is None:
        raise ConflictError(
            f"sample {sample} is that of job {job.id}, which is {job.state}; let it "
            "end, or abort it"
        )
    for container, place in found.places.items():
        if place is None:
            raise ConflictError(
                f"nobody knows where {container} is; look for it and say where it is",
                advice=[advise(Remedy.MOVE_CONTAINER, container=container)],
            )
    return found.job_id


def ask_move(
    connection: Connection, container: str, location: str, by: str, now: float
) -> int | None:
    """Correct where a container is, or have the cell do it if one lives.

    What is asked is checked as if all that was asked before were done.

    Returns:
        Number of the request that waits for the cell; None if it is done.

    Raises:
        NotFoundError: As :func:`correct_location`.
        ConfigurationError: As :func:`correct_location`.
        ConflictError: As :func:`correct_location`.
    """
    is_owned = cells.is_owned(connection)
    _check_move(connection, container, location, is_asked=is_owned)
    if is_owned:
        wanted = MoveContainer(container=container, location=location)
        return commands.request(connection, wanted, by, now)
    correct_location(connection, container, location, by, now)
    return None


def correct_location(
    connection: Connection,
    container: str,
    location: str,
    by: str,
    now: float,
    *,
    at_work: Mapping[str, Collection[int]] | None = None,
) -> None:
    """Keep that a person found a container at a location, or put it there.

    Args:
        connection: A writing transaction of the store.
        container: What was found.
        location: Where.
        by: Who says so.
        now: Stamp of the request.
        at_work: Jobs that have a place to themselves for a step, by place.

    Raises:
        NotFoundError: If there is no such container or location.
        ConfigurationError: If they do not fit.
        ConflictError: If something else is there, or a job is at work with it.
    """
    origin = check_correction(connection, container, location, at_work)
    _put(connection, container, location)
    _tell(connection, "found", container, origin, location, by, now)


def check_correction(
    connection: Connection,
    container: str,
    location: str,
    at_work: Mapping[str, Collection[int]] | None = None,
) -> str | None:
    """Return where a container was, if a person may say that it is elsewhere.

    Raises:
        NotFoundError: As :func:`correct_location`.
        ConfigurationError: As :func:`correct_location`.
        ConflictError: As :func:`correct_location`.
    """
    _check_move(connection, container, location)
    origin = _place_of(connection, container) or _left_from(connection, container)
    for place in (origin, location):
        at_place = (at_work or {}).get(place, ())
        if at_place and _job_in(connection, container) not in at_place:
            raise ConflictError(
                f"job {', '.join(map(str, sorted(at_place)))} has {place} for a step; "
                "let that end, or abort it"
            )
    return origin


def _check_move(
    connection: Connection, container: str, location: str, *, is_asked: bool = False
) -> None:
    rows = {row.name: row for row in connection.execute(select(containers))}
    if container not in rows:
        raise NotFoundError(
            f"there is no container '{container}'; {nearest(container, rows)}"
        )
    holds = {row.name: row.holds for row in connection.execute(select(locations))}
    if location not in holds:
        raise NotFoundError(
            f"there is no location '{location}'; {nearest(location, holds)}"
        )
    kind = rows[container].kind
    if holds[location] != kind:
        raise ConfigurationError(
            f"{container} is a {kind}, and {location} holds a {holds[location]}"
        )
    asked = _moves_asked(connection) if is_asked else {}
    for row in rows.values():
        places = {row.location, row.under_way_to}
        if row.location is None:  # it may never have left
            places.add(_left_from(connection, row.name))
        if row.name in asked:
            places = {asked[row.name]}
        if row.name != container and location in places:
            raise ConflictError(
                f"{row.name} is believed to be at {location}; say where that is first",
                advice=[advise(Remedy.MOVE_CONTAINER, container=row.name)],
            )
    job_id = _job_in(connection, container)
    if job_id is not None:
        job = _job_of(connection, job_id)
        if job.state in _MOVES_ALONE:
            raise ConflictError(
                f"job {job.id} is {job.state} with {container}; let it end, or abort it"
            )


def _moves_asked(connection: Connection) -> dict[str, str]:
    """Return where containers will be when the cell has seen to what was asked."""
    asked = [one.request for one in commands.waiting(connection)]
    moves = [one for one in asked if isinstance(one, MoveContainer)]
    return {one.container: one.location for one in moves}


def _job_in(connection: Connection, container: str) -> int | None:
    """Return the job whose sample is in a container, if there is one."""
    query = (
        select(samples.c.job_id)
        .join(sample_containers, sample_containers.c.sample == samples.c.id)
        .where(sample_containers.c.container == container)
    )
    return connection.execute(query).scalar()


def _job_of(connection: Connection, job_id: int) -> Any:
    query = select(jobs.c.id, jobs.c.state, jobs.c.ended).where(jobs.c.id == job_id)
    return connection.execute(query).one()


# -- looking -----------------------------------------------------------------------


def find_samples(
    connection: Connection,
    *,
    states: Sequence[str] = (ACTIVE, QUARANTINED),
    limit: int = 1000,
) -> list[Sample]:
    """Return up to *limit* samples that are in one of *states*, the newest first."""
    query = (
        select(samples)
        .where(samples.c.state.in_(states))
        .order_by(samples.c.job_id.desc(), samples.c.id)
        .limit(limit)
    )
    return [_sample_of(connection, row) for row in connection.execute(query)]


def containers_of_job(connection: Connection, job_id: int) -> set[str]:
    """Return the containers that a job's sample is in."""
    query = (
        select(sample_containers.c.container)
        .join(samples, samples.c.id == sample_containers.c.sample)
        .where(samples.c.job_id == job_id)
    )
    return set(connection.execute(query).scalars())


def find_sample(connection: Connection, sample: str) -> Sample:
    """Return a sample.

    Raises:
        NotFoundError: If there is none of that name.
    """
    row = connection.execute(select(samples).where(samples.c.id == sample)).first()
    if row is None:
        known = connection.execute(
            select(samples.c.id).where(samples.c.state != RELEASED)
        )
        hint = nearest(sample, known.scalars())
        raise NotFoundError(f"there is no sample '{sample}'; {hint}")
    return _sample_of(connection, row)


def _sample_of(connection: Connection, row: Row[Any]) -> Sample:
    query = (
        select(containers.c.name, containers.c.location)
        .join(sample_containers, sample_containers.c.container == containers.c.name)
        .where(sample_containers.c.sample == row.id)
        .order_by(containers.c.name)
    )
    places = {row.name: row.location for row in connection.execute(query)}
    return Sample(row.id, row.job_id, row.state, row.reason, places)
