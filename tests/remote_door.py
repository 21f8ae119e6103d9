"""A door far from the lab: a process that has a store, and no cell and no instrument.

Run as ``python remote_door.py STORE``: it does all that a door can do with a cell that
runs, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from ppu.core.errors import ConflictError, LimitError
from ppu.operations import access, checking, control, description, looking, people
from ppu.operations.submission import Submission, submit
from ppu.operations.views import JobDetailView
from ppu.plans.protocol import find_protocol
from ppu.store.requests import MoveContainer
from ppu.store.store import Store

PATIENCE_WALL_S = 40.0
LOOK_EVERY_WALL_S = 0.05
FORBIDDEN = ("ppu.cell", "ppu.cli", "ppu.devices", "ppu.twin", "ppu_drivers", "bluesky")


def until(
    store: Store, job_id: int, holds: Callable[[JobDetailView], bool]
) -> JobDetailView:
    """Follow a job until something holds of it."""

    async def follow() -> JobDetailView:
        async with asyncio.timeout(PATIENCE_WALL_S):
            while True:
                found = looking.job(store, job_id)
                if holds(found):
                    return found
                await asyncio.sleep(LOOK_EVERY_WALL_S)

    return asyncio.run(follow())


def is_in(state: str) -> Callable[[JobDetailView], bool]:
    """Return what holds of a job in *state*."""
    return lambda job: job.state == state


def use(store: Store) -> dict[str, Any]:
    """Do all that a door can do."""
    lab, wander = description.kept_description(store), find_protocol("wander")
    seen: dict[str, Any] = {"lab": lab.file.lab}

    try:
        checking.check(lab, wander, {"degc": 5000.0})
    except LimitError as exc:
        seen["refused"] = str(exc)
    compiled = checking.compile_job(lab, wander, {"n_steps": 400})
    seen["is_same"] = compiled == checking.compile_job(lab, wander, {"n_steps": 400})
    ask = checking.compile_job(lab, wander, {"n_steps": 0, "asks": True})

    (walks,) = submit(store, [Submission(job=compiled, campaign="far")])
    until(store, walks, is_in("running"))
    control.hold(store, [walks])
    held = until(store, walks, is_in("paused"))
    seen["held"] = [held.is_held, held.reason and held.reason.code, held.waits[0].text]
    seen["advice"] = str(held.waits[0].advice[0].remedy)
    control.resume(store, [walks])
    until(store, walks, is_in("running"))
    (waits,) = submit(store, [Submission(job=compiled, is_held=True)])
    control.prioritise(store, [waits], 7)
    seen["line"] = [(one.id == waits, one.priority) for one in looking.queued(store)]
    (cancelled,) = control.cancel(store, [waits], "ann")
    control.cancel(store, [walks], "ann")
    ended = until(store, walks, looking.has_ended)
    seen["ended"] = [cancelled.state, ended.state]

    (asks,) = submit(store, [Submission(job=ask)])
    asked = until(store, asks, lambda job: bool(job.questions))
    (question,) = looking.recovery(store).questions
    seen["question"] = [question.job == asks, question.step.name, *question.answers]
    seen["asked"] = asked.questions[0].text
    answered = control.answer(store, asks, "retry", "ann", note="I held it")
    seen["answered"] = [answered.effect, answered.is_heard]
    done = until(store, asks, looking.has_ended)
    seen["done"] = [done.state, done.result is not None, done.steps[0].attempt]

    said = people.say(
        store, [MoveContainer(container="cup_1", location="press")], "ann"
    )
    (moved,) = asyncio.run(access.await_outcomes(store, said))
    said = [people.correct_location(store, "cup_2", "rack.1", "ann")]
    (other,) = asyncio.run(access.await_outcomes(store, said))
    seen["moved"] = [moved.is_done, other.is_done]
    try:
        people.correct_location(store, "cup_2", "rack.3", "ann")
    except ConflictError as exc:
        seen["conflict"] = [str(one.remedy) for one in exc.advice]

    seen["samples"] = len(looking.samples(store))
    seen["stock"] = [one.name for one in looking.stock(store)]
    seen["jobs"] = [one.state for one in looking.jobs(store, campaign="far")]
    seen["kinds"] = sorted({one.kind for one in looking.history(store, asks)})
    numbers = [one.sequence for one in looking.events(store, limit=10**6)]
    seen["has_gaps"] = numbers != list(range(1, len(numbers) + 1))
    seen["bars"] = len(looking.activity(store, [walks]).jobs[walks]) > 0
    seen["faults"] = looking.faults(store)
    asyncio.run(access.await_outcomes(store, [control.drain(store, "ann")]))
    return seen


def main() -> None:
    """Use the store that the command line names."""
    with access.open_store(sys.argv[1]) as store:
        seen = use(store)
    seen["loaded"] = sorted(
        name
        for name in sys.modules
        if any(name == one or name.startswith(one + ".") for one in FORBIDDEN)
    )
    print(json.dumps(seen))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
