"""Lives of a cell in the exercise lab, for tests: jobs, requests, what they left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from mortal import MortalCell
from ppu.store import commands, custody, queue, steps
from ppu.store.jobs import Job, JobRequest
from ppu.store.requests import Request

MakeLife = Callable[..., MortalCell]


def submit(life: MortalCell, *wishes: dict[str, Any], **more: Any) -> list[int]:
    """Submit jobs."""
    wanted = [JobRequest("exercise", "1", wish, **more) for wish in wishes]
    ids: list[int] = write(life, partial(queue.submit_many, wanted=wanted))
    return ids


def write(life: MortalCell, work: Any) -> Any:
    """Write as a command line does."""
    return life.store.write(partial(work, now=life.loop.stamp()))


def job(life: MortalCell, job_id: int) -> Job:
    """Return a job as it is now."""
    found = next(one for one in life.jobs() if one.id == job_id)
    sys.stderr.write(f"{found.state}: {found.reason_text}\n")  # shown if it fails
    return found


def steps_of(life: MortalCell, job_id: int) -> dict[str, steps.Step]:
    """Return the steps of a job by name."""
    with life.store.read() as connection:
        return {step.name: step for step in steps.steps_of(connection, job_id)}


def ask(life: MortalCell, wanted: Request, job_id: int | None = None) -> None:
    """Ask the cell to do something."""
    write(life, partial(commands.request, wanted=wanted, by="anna", job_id=job_id))
    life.advance(0.5)


STARTS: list[float] = []
"""When the furnace's program was started, as its wire saw it."""


def count_starts(life: MortalCell) -> None:
    """Note each start of the furnace's program in `STARTS`."""
    STARTS.clear()
    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]
    write = furnace.write

    def note(address: int, values: list[int], time: float) -> None:
        if (address, values) == (23, [1]):
            STARTS.append(time)
        write(address, values, time)

    furnace.write = note


def release_one(life: MortalCell) -> None:
    """Say that a sample is gone and its container clean."""
    with life.store.read() as connection:
        (sample, *_) = custody.find_samples(connection, states=["active"])
    write(life, partial(custody.ask_release, sample=sample.id, by="anna"))
    life.advance(1.0)


def answer(life: MortalCell, job_id: int, said: str) -> None:
    """Answer the only question of a job."""
    tell = partial(steps.answer, job_id=job_id, path=None, said=said, by="anna")
    write(life, tell)


def is_heating(life: MortalCell) -> bool:
    """Whether the furnace's program runs."""
    assert life.lab.bench is not None
    furnace: Any = life.lab.bench.instruments["furnace_1"]
    return bool(furnace.read(23, 1, life.loop.time()) != [0])


def garble(life: MortalCell, for_s: float) -> None:
    """Let the furnace's wire garble every reply for a while [s]."""

    async def inject() -> None:
        assert life.lab.bench is not None
        furnace: Any = life.lab.bench.instruments["furnace_1"]
        fault = {"fault": "corrupt visibly", "for_s": for_s}
        furnace.faults.inject(fault, life.loop.time())

    life.lab.host.call(inject())
