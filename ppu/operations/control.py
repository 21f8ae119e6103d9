"""Changes how jobs go on: hold, resume, cancel, abort, retry, answer, drain.

What a cell must do is asked of it; it is done when its effect is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import Connection

from ppu.core.errors import ConflictError
from ppu.core.names import checked_name, checked_text
from ppu.core.remedies import Remedy, advise
from ppu.operations.access import change
from ppu.operations.looking import effect_of, view_of
from ppu.operations.views import AnsweredView, AskedView, JobView
from ppu.store import queue
from ppu.store.cells import is_owned
from ppu.store.commands import request
from ppu.store.jobs import ENDED, Job, JobState
from ppu.store.requests import AcceptStore, AllowHeat, Drain, Request
from ppu.store.steps import answer as answer_
from ppu.store.steps import questions
from ppu.store.store import Store
from ppu.store.waiting import reasons_to_wait

__all__ = [
    "abort",
    "accept_store",
    "allow_heat",
    "answer",
    "cancel",
    "drain",
    "hold",
    "prioritise",
    "resume",
    "retry",
]


def hold(store: Store, ids: Iterable[int]) -> list[JobView]:
    """Keep jobs from beginning; one that runs waits before its next step.

    Raises:
        NotFoundError: If one of them is not there; nothing is changed.
        ConflictError: If one of them has ended; nothing is changed.
    """
    return _change(store, ids, queue.hold)


def resume(store: Store, ids: Iterable[int]) -> list[JobView]:
    """End the hold of jobs.

    Raises:
        NotFoundError: As :func:`hold`.
        ConflictError: As :func:`hold`.
    """
    return _change(store, ids, queue.resume)


def prioritise(store: Store, ids: Iterable[int], priority: int) -> list[JobView]:
    """Change the priority of jobs that wait; the higher runs first.

    Raises:
        NotFoundError: As :func:`hold`.
        ConflictError: If one of them has begun or ended; nothing is changed.
    """
    return _change(
        store, ids, lambda c, one, now: queue.prioritize(c, one, priority, now)
    )


def cancel(store: Store, ids: Iterable[int], by: str) -> list[JobView]:
    """Take jobs out of the queue; one that runs stops at its next safe point.

    Raises:
        NotFoundError: As :func:`hold`.
    """
    checked_name("who asks", by)
    return _change(store, ids, lambda c, one, now: queue.cancel(c, one, by, now))


def abort(store: Store, ids: Iterable[int], by: str, reason: str = "") -> list[JobView]:
    """Give jobs up at once: their devices go to their abort states.

    Raises:
        NotFoundError: As :func:`hold`.
    """
    checked_name("who asks", by)
    checked_text("reason", reason)
    return _change(store, ids, lambda c, one, now: queue.abort(c, one, by, reason, now))


def retry(store: Store, ids: Iterable[int]) -> list[JobView]:
    """Ask once more for what jobs were asked, which have ended, as new jobs.

    Each makes a new sample: nothing of the first one is used.

    Raises:
        NotFoundError: As :func:`hold`.
        ConflictError: If one of them has not ended, or has succeeded.
        LimitError: If there is not enough of a powder.
    """
    return _change(store, ids, queue.retry)


def _change(
    store: Store, ids: Iterable[int], act: Callable[[Connection, int, float], Job]
) -> list[JobView]:
    """Do *act* to all jobs or to none; return them, with what they wait for."""

    def work(connection: Connection, now: float) -> list[JobView]:
        found = [act(connection, job_id, now) for job_id in dict.fromkeys(ids)]
        return [
            view_of(job, () if job.state in ENDED else reasons_to_wait(connection, job))
            for job in found
        ]

    return change(store, work)


def answer(
    store: Store,
    job_id: int,
    said: str,
    by: str,
    path: str | None = None,
    note: str = "",
) -> AnsweredView:
    """Answer what a job asks about a step: whether it happened, or how to go on.

    A lost job that asks nothing can only be given up: ``abort``.

    Args:
        store: The store.
        job_id: The job.
        said: One of the question's answers.
        by: Who answers.
        path: The step; None if it is the only one that asks.
        note: What the person saw, for the record.

    Raises:
        NotFoundError: If there is no such job.
        ConfigurationError: If the answer does not fit, or several steps ask.
        ConflictError: If nothing is asked, or it is answered already.
    """
    checked_name("who answers", by)
    checked_text("note", note)

    def work(connection: Connection, now: float) -> AnsweredView:
        found = queue.get(connection, job_id)
        is_silent = not questions(connection, job_id)
        if found.state is JobState.LOST and is_silent and said == "abort":
            ended = queue.abort(connection, job_id, by, note, now)
            return AnsweredView(job=job_id, said=said, state=str(ended.state))
        question = answer_(connection, job_id, path, said, by, now, note)
        return AnsweredView(
            job=job_id,
            step=question.step.path,
            said=said,
            effect=effect_of(question.step.kind, said),
            state=str(found.state),
            is_heard=is_owned(connection),
        )

    return change(store, work)


def allow_heat(store: Store, by: str, note: str = "") -> AskedView:
    """Let the cell heat furnaces again after a crash: a person has looked at them.

    Raises:
        ConflictError: If no cell works on the store.
    """
    checked_text("note", note)
    return _ask_cell(
        store,
        AllowHeat(note=note),
        by,
        "look at the furnaces when one has started",
    )


def accept_store(store: Store, by: str, note: str = "") -> AskedView:
    """Let jobs go on though the store had forgotten what was done: a person has looked.

    Raises:
        ConflictError: If no cell works on the store.
    """
    checked_text("note", note)
    return _ask_cell(
        store, AcceptStore(note=note), by, "look at the bench when one has started"
    )


def drain(store: Store, by: str, *, awaits_firings: bool = False) -> AskedView:
    """Have the cell end when what cannot wait is done; the next one goes on.

    Args:
        store: The store.
        by: Who asks.
        awaits_firings: Whether firings under way cannot wait, either.

    Raises:
        ConflictError: If no cell works on the store.
    """
    wanted = Drain(awaits_firings=awaits_firings)
    return _ask_cell(store, wanted, by, "nothing is left to drain")


def _ask_cell(store: Store, wanted: Request, by: str, otherwise: str) -> AskedView:
    """Ask the cell itself for something that no later one shall do."""
    checked_name("who asks", by)

    def work(connection: Connection, now: float) -> AskedView:
        if not is_owned(connection):
            raise ConflictError(
                f"no cell works on this store; {otherwise}",
                advice=[advise(Remedy.START_CELL)],
            )
        return AskedView(number=request(connection, wanted, by, now))

    return change(store, work)
