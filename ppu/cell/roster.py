"""The roster of a cell: which jobs run, which of them wait, and what may heat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ppu.core.errors import AbortedError, PPUError
from ppu.engine.reservations import Claimant
from ppu.engine.resources import Resources
from ppu.engine.runner import Runner
from ppu.store.jobs import Job, JobState

__all__ = ["OpenQuestion", "Roster", "RunningJob"]


@dataclass
class OpenQuestion:
    """What a job asks a person."""

    allowed: Sequence[str]
    answer: asyncio.Future[dict[str, Any]]


@dataclass
class RunningJob:
    """A job that runs here, and what people want of it."""

    job: Job
    who: Claimant
    runner: Runner
    state: JobState
    is_held: bool = False
    stopped_by: str = ""
    """Why it was cancelled or aborted, if it was."""
    is_waiting: bool = False
    """Whether it waits at a step for what people say."""
    has_acted: bool = False
    """Whether its plan has begun anything but a reading, here or in an earlier
    process."""
    is_put_back: bool = False
    """Whether it has gone back to the queue."""
    stands_by: bool = False
    """Whether its plan cannot run here, so that it only keeps what it has."""
    is_ending: bool = False
    """Whether its plan is over, so that it goes on with nothing."""
    questions: dict[str, OpenQuestion] = field(default_factory=dict)
    """What it asks, by the path of the step."""
    claimed: set[str] = field(default_factory=set)
    """Containers that it may have claimed without that being kept."""
    heard: set[int] = field(default_factory=set)
    """Requests that it acts on and that are handled when it has."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when people want something else of it."""
    task: asyncio.Task[None] | None = None
    left_acting: dict[str, frozenset[str]] = field(default_factory=dict)
    """Devices that an earlier process may have left acting for it, by step."""
    named: set[str] = field(default_factory=set)
    """Devices that its steps in an earlier process name, those that are done, too."""


class Roster:
    """What the parts of a cell know of each other's jobs; lives on the loop.

    Args:
        resources: What the jobs share.
        heaters: Devices that can heat.
        may_heat: Whether they may, before a person agrees.
    """

    def __init__(
        self, resources: Resources, heaters: frozenset[str], *, may_heat: bool
    ) -> None:
        self._resources = resources
        self.heaters = heaters
        self.may_heat = may_heat
        self.jobs: dict[int, RunningJob] = {}
        self.is_draining = False
        self._awaits_firings = False
        self.is_leaving = False
        """Whether the cell ends now, whatever is under way."""
        self.fault: PPUError | None = None
        """Why the cell cannot go on, if it cannot."""
        self.has_changed = True
        """Whether the lab has, so that jobs that lacked something may begin now."""
        self._woken = asyncio.Event()

    # -- the loop of work ----------------------------------------------------------

    def wake(self) -> None:
        """Let the cell look at its store."""
        self._woken.set()

    def note_changed(self) -> None:
        """Take note that jobs may find now what they lacked."""
        self.has_changed = True
        self.wake()

    def note_looked(self) -> None:
        """Take note that the cell looks now; whoever wakes it after that is heard."""
        self._woken.clear()

    async def wait_woken(self) -> None:
        """Wait until somebody wakes the cell."""
        await self._woken.wait()

    def fail(self, error: PPUError) -> None:
        """Let the cell end with *error*."""
        self.fault = error
        self.wake()

    # -- who runs ------------------------------------------------------------------

    def enter(self, job: Job, runner: Runner) -> RunningJob:
        """Take note that *job* runs here, on *runner*."""
        who = Claimant.of(job.id, job.priority, job.rank)
        running = RunningJob(job, who, runner, job.state, job.is_held)
        running.has_acted = job.state is JobState.RECOVERING
        self.jobs[job.id] = running
        self._resources.reservations.enter(who)
        return running

    def devices_alone(self, who: Claimant) -> list[str]:
        """Return what *who* has and nobody else goes on with.

        Of jobs that share one and end at the same moment, the last to do so has it to
        itself.
        """
        names = self._resources.reservations.names_of(who)
        return [name for name in names if self.is_left_to(who, name)]

    def is_left_to(self, who: Claimant, name: str) -> bool:
        """Return whether nobody but *who*, and jobs that end, has *name*."""
        owners = self._resources.reservations.owners_of(name)
        return {n for n in owners if n not in self.jobs or self.goes_on(n)} <= {who.id}

    @property
    def untouched(self) -> set[int]:
        """Jobs that have begun nothing that anybody could see."""
        return {n for n, running in self.jobs.items() if not running.has_acted}

    @property
    def waiting(self) -> set[int]:
        """Jobs that wait for what people must bring, and keep nobody from work."""
        standing = {n for n, running in self.jobs.items() if running.stands_by}
        return standing | self._resources.empties.waiting

    def goes_on(self, job_id: int) -> bool:
        """Return whether a job runs here and its plan is not over."""
        running = self.jobs.get(job_id)
        return running is not None and not running.is_ending

    # -- what people want ----------------------------------------------------------

    def set_held(self, running: RunningJob, is_held: bool) -> None:
        """Let a job wait at its next step, or go on."""
        if is_held is running.is_held:
            return
        running.is_held = is_held
        running.changed.set()
        if is_held:  # whoever waits for devices waits at its step instead
            self._resources.reservations.withdraw(running.who)

    def stop(self, running: RunningJob, reason: str) -> None:
        """Let a job begin no further step and wait for nothing."""
        running.stopped_by = running.stopped_by or reason
        running.changed.set()
        self._resources.reservations.withdraw(running.who)
        self._resources.empties.give_up(running.who, reason)
        for question in running.questions.values():
            if not question.answer.done():
                question.answer.set_exception(AbortedError(reason))

    def allow_heat(self) -> None:
        """Let furnaces be heated again after a crash: a person agreed."""
        self.may_heat = True
        self._tell_all()

    # -- ending --------------------------------------------------------------------

    @property
    def lets_nothing_begin(self) -> bool:
        """Whether no further step may begin."""
        return self.is_draining or self.is_leaving

    def drain(self, *, awaits_firings: bool = False) -> None:
        """Let no further step begin; called again, the latest word counts.

        Args:
            awaits_firings: Whether firings under way are waited for.
        """
        self.is_draining = True
        self._awaits_firings = awaits_firings
        self._withdraw_all()
        self._tell_all()
        self.wake()

    def leave(self) -> None:
        """Drain, and wait for nothing that is under way."""
        self.is_draining = True
        self.close()
        self.wake()

    def close(self) -> None:
        """Let nobody take what those give back that end."""
        self.is_leaving = True
        self._withdraw_all()

    def is_drained(self) -> bool:
        """Return whether every job waits at a step, or for what goes on without us."""
        if not self.is_draining:
            return False
        return all(
            running.is_waiting
            or running.questions
            or running.job.id in self._resources.waits
            or (running.runner.may_be_left and not self._awaits_firings)
            for running in self.jobs.values()
        )

    def _withdraw_all(self) -> None:
        """Let whoever waits for devices wait at its step instead."""
        for running in self.jobs.values():
            self._resources.reservations.withdraw(running.who)

    def _tell_all(self) -> None:
        for running in self.jobs.values():
            running.changed.set()
