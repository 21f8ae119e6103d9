"""Steps: INTENT is kept before an act, DONE with its result before the plan goes on.

Every function works in a transaction of the caller, as those of
:mod:`ppu.store.queue` do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    DivergedError,
    NotFoundError,
)
from ppu.store.bounds import bounded_job
from ppu.store.cells import require_token
from ppu.store.commands import request, settle, waiting
from ppu.store.custody import review_samples
from ppu.store.events import EventKind, announce, encode
from ppu.store.jobs import ENDED, Effect
from ppu.store.requests import Answer
from ppu.store.schema import commands, jobs, steps

__all__ = [
    "SETTLING_ANSWERS",
    "Question",
    "Step",
    "StepState",
    "answer",
    "ask_step",
    "begin_step",
    "end_step",
    "fail_step",
    "questions",
    "settle_step",
    "steps_of",
]


class StepState(StrEnum):
    """How far a step has come."""

    INTENT = "intent"
    """It began; if the process dies now, nobody knows how far it came."""
    UNSETTLED = "unsettled"
    """Somebody must say whether it happened."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """A step of a job, as the store has it.

    Attributes:
        path: Its place in the plan: "3" is the job's third, "3.1" the first within.
        attempt: How often it was begun.
        result: What it returned, as plain data, once it is done.
        evidence: What showed whether it happened, if that was asked.
        begun: Stamp of its begin, or of its last one if it failed [s since 1970].
        seat: Whether it ``takes`` a place in a firing or ``leaves`` it, if it does.
        devices: What it has used, once it has ended.
    """

    job_id: int
    path: str
    name: str
    kind: str
    digest: str
    arguments: Any
    attempt: int
    state: StepState
    result: Any
    evidence: Any
    begun: float
    ended: float | None
    seat: str | None = None
    devices: tuple[str, ...] = ()

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody knows if it happened."""
        return self.state is StepState.UNSETTLED

    @classmethod
    def from_row(cls, row: Row[Any]) -> Step:
        """Return the step that a whole row of the table describes."""
        values = {
            name: value
            for name, value in row._mapping.items()
            if name not in ("policy", "token")
        }
        for name in ("arguments", "result", "evidence"):
            text = values[name]
            values[name] = None if text is None else json.loads(text)
        values["state"] = StepState(row.state)
        values["devices"] = tuple(json.loads(row.devices or "[]"))
        return cls(**values)


SETTLING_ANSWERS = ("happened", "not-happened", "abort")
"""What a person may say of a step of which nobody knows whether it happened."""


@dataclass(frozen=True)
class Question:
    """What a person must say before a job goes on.

    Attributes:
        step: The step that it is about.
        text: What is asked, with what is known.
        answers: What may be said.
        answered: What was said and waits for the cell, if something was.
    """

    step: Step
    text: str
    answers: tuple[str, ...]
    answered: str | None


def begin_step(
    connection: Connection,
    job_id: int,
    path: str,
    name: str,
    kind: str,
    digest: str,
    arguments: Any,
    token: int,
    now: float,
    seat: str | None = None,
) -> Step | None:
    """Keep that a step begins; return what was known of it before, None if nothing.

    One that is done stays as it is, and must not run. A person's answer to try it again
    is acted on with that.

    Raises:
        DivergedError: If the journal has another step there: the protocol, or what
            it decides by, has changed since.
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    where = (steps.c.job_id == job_id) & (steps.c.path == path)
    row = connection.execute(select(steps).where(where)).first()
    known = None if row is None else Step.from_row(row)
    if known is not None and (known.name, known.digest) != (name, digest):
        raise DivergedError(
            f"job {job_id}, step {path}: the journal has {known.name} with "
            f"{encode(known.arguments)}, the plan now comes to {name} with "
            f"{encode(arguments)}; was the protocol changed while the job ran?"
        )
    if known is not None and known.state is StepState.DONE:
        return known
    goes_on = known is not None and known.state is not StepState.FAILED
    values = {
        "attempt": 1 if known is None else known.attempt + 1,
        "state": str(StepState.INTENT),
        "policy": None,
        "token": token,
        # What goes on began when it first did.
        "begun": known.begun if known is not None and goes_on else now,
        "ended": None,
    }
    if known is None:
        values |= {
            "job_id": job_id,
            "path": path,
            "name": name,
            "kind": kind,
            "digest": digest,
            "arguments": encode(arguments),
            "seat": seat,
        }
        connection.execute(steps.insert(), values)
    else:
        connection.execute(steps.update().where(where).values(values))
    if kind != "repeatable":
        connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id)
            .values(physical_effect=str(Effect.PARTIAL))
        )
    _announce(connection, job_id, path, StepState.INTENT, now, name=name)
    _act_on_answers(connection, job_id, path, now, ["retry"])
    return known


def end_step(
    connection: Connection,
    job_id: int,
    path: str,
    result: Any,
    token: int,
    now: float,
    devices: Iterable[str] = (),
) -> None:
    """Keep the result of a step; from now on it is never run again, and asks nothing.

    What a person answered about it is acted on with that.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    content: dict[str, Any] = {"state": str(StepState.DONE), "ended": now}
    content["result"] = encode(result)
    content |= {"policy": None, "devices": encode(sorted(devices))}
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, StepState.DONE, now)
    _act_on_answers(connection, job_id, path, now, ["skip", "park", "happened"])
    _end_questions_within(connection, job_id, path, now)


def fail_step(
    connection: Connection,
    job_id: int,
    path: str,
    error: str,
    token: int,
    now: float,
    devices: Iterable[str] = (),
) -> None:
    """Keep that a step failed, and why.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    content: dict[str, Any] = {"state": str(StepState.FAILED), "ended": now}
    content["devices"] = encode(sorted(devices))
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, StepState.FAILED, now, error=error)
    # It was acted on, and that failed: whether it happened is asked anew.
    _act_on_answers(connection, job_id, path, now, ["happened"])


def settle_step(
    connection: Connection,
    job_id: int,
    path: str,
    evidence: Mapping[str, Any],
    token: int,
    now: float,
) -> None:
    """Keep what shows whether a step happened that was under way.

    If nothing does, the job's sample is quarantined until something does. A person's
    answer that it did not happen is acted on with that: the step runs from now on.

    Raises:
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    unsettled = evidence.get("has_happened") is None
    state = StepState.UNSETTLED if unsettled else StepState.INTENT
    content = {"state": str(state), "evidence": encode(evidence)}
    _write(connection, job_id, path, content, token)
    _announce(connection, job_id, path, state, now, evidence=evidence)
    review_samples(connection, job_id, now)
    if evidence.get("has_happened") is False:
        _act_on_answers(connection, job_id, path, now, ["not-happened"])


def ask_step(
    connection: Connection,
    job_id: int,
    path: str,
    question: str,
    answers: Sequence[str],
    token: int,
    now: float,
) -> None:
    """Keep that a person must say how a job goes on after a step that failed.

    The question stands until the step begins again or is done. It takes the place of
    earlier ones about this step and those within; no answer to these is for it.

    Raises:
        NotFoundError: If there is no such step.
        ConflictError: If it is not the step that waits.
        StaleTokenError: If a newer cell has taken over; nothing is kept.
    """
    row = _row(connection, job_id, path)
    if row.state != StepState.FAILED:
        raise ConflictError(
            f"job {job_id}, step {path} is {row.state}; only one that failed is asked "
            "about"
        )
    policy = {"question": question, "answers": list(answers)}
    _write(connection, job_id, path, {"policy": encode(policy)}, token)
    _announce(connection, job_id, path, StepState.FAILED, now, **policy)
    _act_on_answers(connection, job_id, path, now, ["abort"])
    _end_questions_within(connection, job_id, path, now)


def questions(connection: Connection, job_id: int | None = None) -> list[Question]:
    """Return what people must say, of one job or of all that have not ended."""
    is_open = or_(
        steps.c.state == str(StepState.UNSETTLED),
        (steps.c.state == str(StepState.FAILED)) & steps.c.policy.is_not(None),
    )
    query = (
        select(steps)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(is_open, jobs.c.state.not_in([str(state) for state in ENDED]))
    )
    if job_id is not None:
        query = query.where(steps.c.job_id == bounded_job(job_id))
    given = _answers_given(connection)
    found = []
    for row in connection.execute(query):
        step = Step.from_row(row)
        if step.is_unsettled:
            seen = (step.evidence or {}).get("text", "nothing tells")
            asked, answers = f"did it happen? {seen}", SETTLING_ANSWERS
        else:
            policy = json.loads(row.policy)
            asked, answers = policy["question"], tuple(policy["answers"])
        answered = given.get((step.job_id, step.path))
        found.append(Question(step, asked, answers, answered))
    return sorted(found, key=lambda one: (one.step.job_id, _place(one.step)))


def answer(
    connection: Connection,
    job_id: int,
    path: str | None,
    said: str,
    by: str,
    now: float,
    note: str = "",
) -> Question:
    """Tell the cell what a person says to a question; return the question.

    Args:
        connection: A writing transaction of the store.
        job_id: The job that asks.
        path: The step; None if it is the only one that asks.
        said: One of the question's answers.
        by: Who answers.
        now: Stamp of the answer.
        note: What the person saw, for the record.

    Raises:
        ConfigurationError: If the answer does not fit, or it is not said which step.
        ConflictError: If nothing is asked, or the question is answered already.
    """
    asked = [
        one
        for one in questions(connection, job_id)
        if path is None or one.step.path == path
    ]
    if not asked:
        where = "" if path is None else f" about step {path}"
        raise ConflictError(f"job {job_id} asks nothing{where}")
    if len(asked) > 1:
        paths = ", ".join(one.step.path for one in asked)
        raise ConfigurationError(f"job {job_id} asks about steps {paths}; say which")
    (question,) = asked
    if said not in question.answers:
        raise ConfigurationError(
            f"job {job_id}, step {question.step.path}: '{said}' does not answer "
            f"'{question.text}'; allowed are {', '.join(question.answers)}"
        )
    if question.answered is not None:
        raise ConflictError(
            f"job {job_id}, step {question.step.path} is answered already with "
            f"'{question.answered}', which waits for the cell"
        )
    wanted = Answer(path=question.step.path, answer=said, note=note)
    request(connection, wanted, by, now, job_id=job_id)
    return question


def _answers_given(connection: Connection) -> dict[tuple[int, str], str]:
    """Return the answers that no cell has acted on yet, by job and step."""
    query = select(commands.c.job_id, commands.c.content).where(
        commands.c.command == "answer", commands.c.handled.is_(None)
    )
    given = {}
    for job_id, content in connection.execute(query):
        said = json.loads(content)
        given[job_id, said["path"]] = said["answer"]
    return given


def _act_on_answers(
    connection: Connection, job_id: int, path: str, now: float, said: Collection[str]
) -> None:
    """Keep that answers of a kind about a step have had their effect.

    That of "abort" is the end of the job.
    """
    for asked in waiting(connection, job_id):
        given = asked.request
        if not isinstance(given, Answer) or given.path != path:
            continue
        if given.answer in said:
            settle(connection, asked.sequence, "acted on", now)


def _end_questions_within(
    connection: Connection, job_id: int, path: str, now: float
) -> None:
    """Keep that steps within another one ask nothing any more: that decides."""
    connection.execute(
        steps.update()
        .where(
            steps.c.job_id == job_id,
            steps.c.path.startswith(path + ".", autoescape=True),
            steps.c.policy.is_not(None),
        )
        .values(policy=None)
    )
    for asked in waiting(connection, job_id):
        given = asked.request
        if isinstance(given, Answer) and given.path.startswith(path + "."):
            settle(connection, asked.sequence, f"step {path} decided", now)


def _place(step: Step) -> list[int]:
    return [int(number) for number in step.path.split(".")]


def steps_of(connection: Connection, job_id: int) -> list[Step]:
    """Return the steps of a job in the order in which they first began."""
    query = select(steps).where(steps.c.job_id == bounded_job(job_id))
    rows = connection.execute(query)
    found = [Step.from_row(row) for row in rows]
    return sorted(found, key=_place)


def _row(connection: Connection, job_id: int, path: str) -> Row[Any]:
    where = (steps.c.job_id == job_id) & (steps.c.path == path)
    row = connection.execute(select(steps).where(where)).first()
    if row is None:
        raise NotFoundError(f"job {job_id} has no step {path}")
    return row


def _write(
    connection: Connection, job_id: int, path: str, content: dict[str, Any], token: int
) -> None:
    require_token(connection, token)
    where = (steps.c.job_id == job_id) & (steps.c.path == path)
    connection.execute(steps.update().where(where).values(content))


def _announce(
    connection: Connection,
    job_id: int,
    path: str,
    state: StepState,
    now: float,
    **more: Any,
) -> None:
    content = {"path": path, "state": str(state), **more}
    announce(connection, EventKind.STEP, content, now, job_id)
