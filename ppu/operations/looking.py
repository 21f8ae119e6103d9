"""Shows what is so: jobs, questions, samples, stock, events, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection

from ppu.core.errors import ConfigurationError, NotFoundError, nearest
from ppu.core.labels import label_of
from ppu.operations.views import (
    ActivityView,
    BarView,
    Change,
    CustodyChange,
    EntryView,
    EventView,
    IncidentChange,
    JobDetailView,
    JobView,
    PowderView,
    QuestionView,
    ReasonView,
    RecoveryView,
    SafetyChange,
    SampleChange,
    SampleHistoryView,
    SampleView,
    StateChange,
    StepChange,
    StepView,
    StockChange,
    TaggedOutView,
    WaitChange,
    WaitView,
)
from ppu.store import custody, queue, sample_history
from ppu.store.bounds import MOST_ROWS
from ppu.store.cells import starts
from ppu.store.events import Event, EventKind, events_after, last_stamp
from ppu.store.jobs import ACTIVE, ENDED, Job, JobState
from ppu.store.steps import Question, Step, steps_of
from ppu.store.steps import questions as questions_
from ppu.store.stock import find_stock
from ppu.store.store import Store
from ppu.store.tag_outs import find_tag_outs
from ppu.store.waiting import Wait, WaitCode, reasons_to_wait, waits_of

__all__ = [
    "activity",
    "effect_of",
    "events",
    "faults",
    "has_ended",
    "history",
    "job",
    "jobs",
    "questions",
    "queued",
    "recovery",
    "sample",
    "samples",
    "stock",
    "stock_changes",
    "tagged_out",
    "view_of",
    "waits",
]

_EFFECTS: Final = {
    "happened": "it counts as done; the job goes on with what follows",
    "not-happened": "it will be carried out now; the job goes on from here",
    "retry": "it is tried once more",
    "skip": "it is left out; the job goes on with what follows",
    "park": "its sample is carried home, then the job ends",
    "abort": "the job ends, devices go to their abort states, its sample is "
    "quarantined",
}
_EFFECTS_OF_RESUMABLE: Final = {
    "happened": "it has ended, but nobody measured it: the step counts as failed",
    "not-happened": "it begins anew: a furnace is heated",
}


def effect_of(kind: str, answer: str) -> str:
    """Return what an answer about a step of some kind will do."""
    effect = _EFFECTS.get(answer, "")
    return _EFFECTS_OF_RESUMABLE.get(answer, effect) if kind == "resumable" else effect


# -- jobs --------------------------------------------------------------------------


def jobs(
    store: Store,
    *,
    states: Iterable[str] = (),
    campaign: str | None = None,
    tag: str | None = None,
    limit: int = 50,
) -> list[JobView]:
    """Return jobs that fit all that is given, the newest first.

    They say what they wait for; in line, all wait for those before.

    Raises:
        ConfigurationError: If there is no such state, or the limit cannot be.
    """
    wanted = _states(states)
    with store.read() as connection:
        found = queue.find(
            connection, states=wanted, campaign=campaign, tag=tag, limit=limit
        )
        return [
            view_of(
                one,
                () if one.reason_text else _waits_in_short(connection, one),
            )
            for one in found
        ]


def _waits_in_short(connection: Connection, job: Job) -> list[Wait]:
    """Return what a job of a list waits for, but for those before it."""
    if job.state not in (*ACTIVE, JobState.QUEUED):
        return []
    return reasons_to_wait(connection, job, in_line=False)


def _states(names: Iterable[str]) -> list[JobState]:
    known = [str(one) for one in JobState]
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no state '{name}' of a job; {nearest(name, known)}"
            )
    return [JobState(name) for name in names]


def queued(store: Store, limit: int = 1000) -> list[JobView]:
    """Return the jobs that wait in line, as they stand there within a campaign."""
    with store.read() as connection:
        found = queue.find(connection, states=[JobState.QUEUED], limit=limit)
        line = sorted(found, key=lambda one: (-one.priority, one.rank))
        return [view_of(one, reasons_to_wait(connection, one)) for one in line]


def job(store: Store, job_id: int) -> JobDetailView:
    """Return a job with its steps, what it waits for, and what it asks.

    Raises:
        NotFoundError: If there is none of that number.
    """
    with store.read() as connection:
        found = queue.get(connection, job_id)
        seen = view_of(found, reasons_to_wait(connection, found))
        return JobDetailView(
            **dict(seen),
            steps=tuple(_step(one) for one in steps_of(connection, job_id)),
            questions=tuple(map(_question, questions_(connection, job_id))),
        )


def waits(store: Store, job_id: int) -> list[WaitView]:
    """Return all that a job waits for.

    Raises:
        NotFoundError: If there is none of that number.
    """
    with store.read() as connection:
        found = reasons_to_wait(connection, queue.get(connection, job_id))
        return [WaitView(text=one.text, advice=one.advice) for one in found]


def has_ended(job: JobView) -> bool:
    """Return whether nothing follows on the state of a job."""
    return JobState(job.state) in ENDED


def view_of(found: Job, waits_for: Sequence[Wait] = ()) -> JobView:
    """Return a job as doors show it."""
    reason = None
    if found.reason_code is not None:
        reason = ReasonView(
            code=found.reason_code,
            text=found.reason_text or "",
            advice=found.advice,
            failure_class=found.failure_class,
            field=found.field,
        )
    return JobView(
        id=found.id,
        state=str(found.state),
        is_held=found.is_held,
        protocol=found.protocol,
        version=found.version,
        parameters=found.parameters,
        key=found.key,
        priority=found.priority,
        campaign=found.campaign,
        tags=found.tags,
        parent_id=found.parent_id,
        physical_effect=str(found.physical_effect),
        is_retryable=found.is_retryable,
        reason=reason,
        result=found.result,
        submitted=found.submitted,
        started=found.started,
        ended=found.ended,
        deadline=found.deadline,
        deadline_s=found.deadline_s,
        n_tries=found.n_tries,
        waits=tuple(WaitView(text=one.text, advice=one.advice) for one in waits_for),
    )


def _step(step: Step) -> StepView:
    return StepView(
        path=step.path,
        name=step.name,
        kind=step.kind,
        label=label_of(step.name, step.arguments),
        state=str(step.state),
        attempt=step.attempt,
        begun=step.begun,
        ended=step.ended,
        result=step.result,
        evidence=step.evidence,
    )


def activity(store: Store, ids: Iterable[int]) -> ActivityView:
    """Return what jobs did when, and when they waited."""
    with store.read() as connection:
        now = last_stamp(connection) or 0.0
        rows = {one: tuple(_bars(connection, one, now)) for one in sorted(ids)}
        return ActivityView(jobs=rows, restarts=tuple(starts(connection)[1:]))


def _bars(connection: Connection, job_id: int, now: float) -> list[BarView]:
    bars = [
        BarView(
            name=step.name.replace("_", " "),
            begun=step.begun,
            ended=step.ended or now,
            is_wait=False,
        )
        for step in steps_of(connection, job_id)
        if "." not in step.path
    ]
    return bars + [
        BarView(name="", begun=one.begun, ended=one.ended, is_wait=True)
        for one in waits_of(connection, job_id, now)
        if one.code is not WaitCode.QUEUE
    ]


# -- what people are asked ---------------------------------------------------------


def questions(store: Store, job_id: int | None = None) -> list[QuestionView]:
    """Return what people must say, of one job or of all that have not ended."""
    with store.read() as connection:
        return [_question(one) for one in questions_(connection, job_id)]


def recovery(store: Store, job_id: int | None = None) -> RecoveryView:
    """Return all that only people can say, of one job or of all.

    Raises:
        NotFoundError: If there is no such job.
    """
    with store.read() as connection:
        asked = questions_(connection, job_id)
        lost = queue.find(connection, states=[JobState.LOST], limit=MOST_ROWS)
        waiting = queue.find(connection, states=[JobState.NEEDS_INPUT], limit=MOST_ROWS)
        if job_id is not None:
            queue.get(connection, job_id)
            lost = [one for one in lost if one.id == job_id]
        cold = [one for one in waiting if one.reason_code == "restart"]
        return RecoveryView(
            questions=tuple(map(_question, asked)),
            lost=tuple(map(view_of, lost)),
            wait_to_heat=tuple(map(view_of, cold)),
        )


def _question(one: Question) -> QuestionView:
    return QuestionView(
        job=one.step.job_id,
        step=_step(one.step),
        text=one.text,
        answers={name: effect_of(one.step.kind, name) for name in one.answers},
        answered=one.answered,
    )


# -- matter ------------------------------------------------------------------------


def samples(store: Store, *, with_released: bool = False) -> list[SampleView]:
    """Return samples with state, containers and places, the newest first."""
    states = [custody.ACTIVE, custody.QUARANTINED]
    states += [custody.RELEASED] if with_released else []
    with store.read() as connection:
        found = custody.find_samples(connection, states=states)
        return [SampleView(**asdict(one)) for one in found]


def sample(store: Store, name: str) -> SampleHistoryView:
    """Return a sample and all that happened to it.

    Raises:
        NotFoundError: If there is no such sample.
    """
    with store.read() as connection:
        found, lines = sample_history.history_of(connection, name)
        entries = tuple(EntryView(**asdict(line), time=line.stamp) for line in lines)
        return SampleHistoryView(**asdict(found), history=entries)


def tagged_out(store: Store) -> list[TaggedOutView]:
    """Return the devices that people have put out of service."""
    with store.read() as connection:
        found = find_tag_outs(connection)
        return [TaggedOutView(**asdict(one)) for one in found]


def stock(store: Store, powder: str | None = None) -> list[PowderView]:
    """Return how much there is of each powder, or of one.

    Raises:
        NotFoundError: If there is no such powder.
    """
    with store.read() as connection:
        found = find_stock(connection)
        names = [one.name for one in found]
        if powder is not None and powder not in names:
            raise NotFoundError(
                f"there is no powder '{powder}' in the ledger; {nearest(powder, names)}"
            )
        shown = [one for one in found if powder in (None, one.name)]
        return [PowderView(**asdict(one)) for one in shown]


def stock_changes(store: Store, powder: str) -> list[EventView]:
    """Return what people said of a powder, oldest first."""
    found = events(store, kinds=[EventKind.STOCK], limit=MOST_ROWS)
    return [one for one in found if one.content["powder"] == powder]


# -- events ------------------------------------------------------------------------


def events(
    store: Store,
    after: int = 0,
    *,
    limit: int = 1000,
    kinds: Iterable[str] = (),
    job_id: int | None = None,
) -> list[EventView]:
    """Return events that are newer than number *after*, oldest first.

    Args:
        store: The store.
        after: The newest number that the caller has seen.
        limit: How many to return at most.
        kinds: Only these kinds; all if empty.
        job_id: Only what is about this job.
    """
    with store.read() as connection:
        found = events_after(connection, after, limit, kinds, job_id)
        return [event_of(one) for one in found]


def history(store: Store, job_id: int, after: int = 0) -> list[EventView]:
    """Return what happened to a job, oldest first.

    Raises:
        NotFoundError: If there is none of that number.
    """
    with store.read() as connection:
        queue.get(connection, job_id)
        found = events_after(connection, after, MOST_ROWS, job_id=job_id)
        return [event_of(one) for one in found]


_CHANGES: Final[Mapping[str, type[Change]]] = {
    EventKind.JOB: StateChange,
    EventKind.STEP: StepChange,
    EventKind.WAIT: WaitChange,
    EventKind.CUSTODY: CustodyChange,
    EventKind.SAMPLE: SampleChange,
    EventKind.STOCK: StockChange,
    EventKind.INCIDENT: IncidentChange,
    EventKind.SAFE_STATE: SafetyChange,
    EventKind.UNSAFE: SafetyChange,
}


def event_of(event: Event) -> EventView:
    """Return an event as doors show it; one of a newer PPU as plain data."""
    return EventView(
        sequence=event.sequence,
        time=event.stamp,
        kind=str(event.kind),
        job_id=event.job_id,
        content=event.content,
        change=_change_of(event),
    )


def _change_of(event: Event) -> Change | None:
    model = _CHANGES.get(event.kind)
    if model is None:
        return None
    content: dict[str, Any] = event.content
    if event.kind is EventKind.WAIT:
        content = {"waits_for": content.get("for"), **content}
    try:
        return model.model_validate(content)
    except ValidationError:
        return None


# -- the store ---------------------------------------------------------------------


def faults(store: Store) -> list[str]:
    """Return what is wrong in the store, a sentence each; empty if nothing is."""
    return store.check()
