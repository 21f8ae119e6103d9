"""Applies what people ask of a cell in its store: to its roster, its jobs, the lab."""

from __future__ import annotations

import contextlib
from concurrent.futures import Executor
from functools import partial
from typing import Final, assert_never

from sqlalchemy import Connection, select

from ppu.cell.lab_requests import LabRequests, handled
from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster, RunningJob
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreBusyError,
    StoreDiskError,
)
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.core.remedies import Advice
from ppu.store import commands
from ppu.store.cells import allow_heat
from ppu.store.requests import (
    Abort,
    AcceptStore,
    AllowHeat,
    Answer,
    Cancel,
    CorrectStock,
    Drain,
    MoveContainer,
    Refill,
    ReleaseSample,
    ReturnDevice,
    TagOut,
    UnknownRequest,
)
from ppu.store.schema import jobs

__all__ = ["POLL_S", "Requests"]

POLL_S: Final = 1.0
"""How often the store is looked at though nobody said so (real time) [s]."""


class Requests:
    """What people want of a cell, its jobs and its lab.

    Args:
        owner: What may read and write the store.
        roster: Who runs, and what may heat.
        in_lab: What is said of samples, containers and stock.
        loop: The lab's loop.
        executor: Where a plan is aborted, not on the loop.
    """

    def __init__(
        self,
        owner: Ownership,
        roster: Roster,
        in_lab: LabRequests,
        loop: LabTimeLoop,
        executor: Executor,
    ) -> None:
        self._owner = owner
        self._roster = roster
        self._loop = loop
        self._executor = executor
        self._in_lab = in_lab
        self._is_away = False

    async def apply_waiting(self) -> bool:
        """Apply what people ask for in the store.

        Returns:
            Whether the store could be read; if not, it is looked at again soon.
        """
        mine = list(self._roster.jobs)

        def look(connection: Connection) -> tuple[list[commands.Command], set[int]]:
            query = select(jobs.c.id).where(jobs.c.id.in_(mine), jobs.c.is_held)
            held = set(connection.execute(query).scalars()) if mine else set()
            return commands.waiting(connection), held

        try:
            asked, held = await self._owner.store.aread(look)
        except (StoreBusyError, StoreDiskError) as exc:
            if not self._is_away:
                tell(f"the store could not be read, and is tried again: {exc}")
            self._is_away = True
            self._loop.call_later(self._loop.wire_seconds(POLL_S), self._roster.wake)
            return False
        self._is_away = False
        for running in list(self._roster.jobs.values()):
            self._roster.set_held(running, running.job.id in held)
        for command in asked:
            try:
                outcome = await self._apply(command)
                advice: tuple[Advice, ...] = ()
            except (ConfigurationError, NotFoundError, ConflictError) as exc:
                outcome, advice = f"{commands.REFUSED}{exc}", exc.advice
            if outcome is not None:
                # If its job has ended meanwhile, that was the answer.
                with contextlib.suppress(NotFoundError):
                    now = self._loop.stamp()
                    await self._owner.write(handled(command, outcome, now, advice))
        return True

    async def _apply(self, command: commands.Command) -> str | None:
        """Find out what *command* is about, and apply it.

        Returns:
            What came of it; None if that is kept with its effect, now or later.

        Raises:
            ConfigurationError: If it cannot be done; nothing was.
            NotFoundError: If what it names is not there; nothing was done.
            ConflictError: If the present state forbids it; nothing was done.
        """
        match command.request:
            case UnknownRequest(why=why):
                raise ConfigurationError(why)
            case AcceptStore():
                return await self._accept_store(command)
            case AllowHeat():
                return await self._let_heat(command)
            case Drain() as wanted:
                return self._drain(command, wanted)
            case (
                ReleaseSample()
                | MoveContainer()
                | Refill()
                | CorrectStock()
                | TagOut()
                | ReturnDevice()
            ) as wanted:
                await self._in_lab.apply(command, wanted)
                self._roster.note_changed()
            case Answer() | Cancel() | Abort() as wanted:
                return await self._apply_to_job(command, wanted)
            case _:
                assert_never(command.request)
        return None

    async def _apply_to_job(
        self, command: commands.Command, wanted: Answer | Cancel | Abort
    ) -> str | None:
        """Apply to a job what is asked of it, if it runs here."""
        running = self._roster.jobs.get(command.job_id or 0)
        if running is None:
            return f"job {command.job_id} does not run here"
        match wanted:
            case Answer():
                return self._answer(running, command, wanted)
            case Cancel():
                self._roster.stop(running, f"cancel: by {command.by}")
            case Abort(reason=why):
                reason = f"abort: {why or f'by {command.by}'}"
                await self._abort(running, command, reason)
        return None

    def _drain(self, command: commands.Command, wanted: Drain) -> str:
        """Drain, if that was said of this cell."""
        if command.asked < self._owner.started:
            return f"{commands.REFUSED}it was said before this cell began"
        tell(f"{command.by} asks the cell to end: draining")
        self._roster.drain(awaits_firings=wanted.awaits_firings)
        return "done"

    async def _accept_store(self, command: commands.Command) -> str | None:
        """Let jobs go on, if it was said of this cell."""
        if command.asked < self._owner.started:
            return f"{commands.REFUSED}it was said before this cell began; look again"
        if not self._owner.doubt:
            return "the store is in no doubt"
        handle = handled(command, "jobs may go on", self._loop.stamp())
        await self._owner.end_doubt(handle)
        return None

    async def _let_heat(self, command: commands.Command) -> str | None:
        """Let furnaces be heated again, if it was said of this cell."""
        if command.asked < self._owner.started:
            return f"{commands.REFUSED}it was said before this cell began; look again"
        now = self._loop.stamp()
        handle = handled(command, "furnaces may be heated", now)

        def allow(connection: Connection) -> None:
            allow_heat(connection)
            handle(connection)

        await self._owner.write(allow)
        self._roster.allow_heat()
        return None

    @staticmethod
    def _answer(
        running: RunningJob, command: commands.Command, wanted: Answer
    ) -> str | None:
        """Hand an answer to the job; the step that acts on it says that it is handled.

        If it asks nothing now, it may soon: one that is run again is on its way there.
        """
        question = running.questions.get(wanted.path)
        is_heard = command.sequence in running.heard
        if is_heard or question is None or question.answer.done():
            return None
        said = wanted.answer
        if said not in question.allowed:
            return f"{commands.REFUSED}{said} is none of {', '.join(question.allowed)}"
        running.heard.add(command.sequence)
        question.answer.set_result({**command.content, "by": command.by})
        return None

    async def _abort(
        self, running: RunningJob, command: commands.Command, reason: str
    ) -> None:
        """Abort a job in the midst of its step; its end says it is handled."""
        self._roster.stop(running, reason)
        if command.sequence not in running.heard:
            running.heard.add(command.sequence)
            # The engine waits for the loop to take note: not from the loop itself.
            abort = partial(running.runner.abort, reason)
            with self._loop.freezing("a job is aborted"):
                await self._loop.run_in_executor(self._executor, abort)
