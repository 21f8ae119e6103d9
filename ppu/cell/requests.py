"""Applies what people ask of a cell in its store: to its roster, its jobs, the lab."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Final

from sqlalchemy import Connection, select

from ppu.cell.lab_requests import LabRequests, handled
from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster, RunningJob
from ppu.core.errors import ConfigurationError, StoreBusyError, StoreDiskError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.store import commands
from ppu.store.cells import allow_heat
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
        # Each returns what came of it, or None if that is kept with its effect, now or
        # later; and raises ConfigurationError if it cannot be done: nothing was.
        self._of_cell: Mapping[
            str, Callable[[commands.Command], Awaitable[str | None]]
        ] = {
            "may heat": self._let_heat,
            "release sample": in_lab.release_sample,
            "move": in_lab.correct_location,
            "refill": in_lab.refill,
            "correct stock": in_lab.correct_stock,
        }
        self._of_job: Mapping[
            str, Callable[[RunningJob, commands.Command], Awaitable[str | None]]
        ] = {"answer": self._answer, "cancel": self._cancel, "abort": self._abort}

    async def apply_waiting(self) -> None:
        """Apply what people ask for in the store."""
        mine = list(self._roster.jobs)

        def look(connection: Connection) -> tuple[list[commands.Command], set[int]]:
            query = select(jobs.c.id).where(jobs.c.id.in_(mine), jobs.c.is_held)
            held = set(connection.execute(query).scalars()) if mine else set()
            return commands.waiting(connection), held

        try:
            asked, held = await self._owner.store.aread(look)
        except (StoreBusyError, StoreDiskError) as exc:
            tell(f"the store could not be read, and is tried again: {exc}")
            self._loop.call_later(self._loop.wire_seconds(POLL_S), self._roster.wake)
            return
        for running in list(self._roster.jobs.values()):
            self._roster.set_held(running, running.job.id in held)
        for command in asked:
            try:
                outcome = await self._apply(command)
            except ConfigurationError as exc:
                outcome = f"{commands.REFUSED}{exc}"
            if outcome is not None:
                # If its job has ended meanwhile, that was the answer.
                with contextlib.suppress(ConfigurationError):
                    now = self._loop.stamp()
                    await self._owner.write(handled(command, outcome, now))

    async def _apply(self, command: commands.Command) -> str | None:
        """Find out what *command* is about, and apply it.

        Returns:
            What came of it; None if that is kept with its effect, now or later.

        Raises:
            ConfigurationError: If it cannot be done; nothing was.
        """
        unknown = f"no cell knows the command {command.command!r}"
        of_cell = self._of_cell.get(command.command)
        if of_cell is not None:
            return await of_cell(command)
        if command.job_id is None:
            raise ConfigurationError(unknown)
        running = self._roster.jobs.get(command.job_id)
        if running is None:
            return f"job {command.job_id} does not run here"
        of_job = self._of_job.get(command.command)
        if of_job is None:
            raise ConfigurationError(unknown)
        return await of_job(running, command)

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
    async def _answer(running: RunningJob, command: commands.Command) -> str | None:
        """Hand an answer to the job; the step that acts on it says that it is handled.

        If it asks nothing now, it may soon: one that is run again is on its way there.
        """
        question = running.questions.get(command.content.get("path", ""))
        is_heard = command.sequence in running.heard
        if is_heard or question is None or question.answer.done():
            return None
        said = command.content["answer"]
        if said not in question.allowed:
            return f"{commands.REFUSED}{said} is none of {', '.join(question.allowed)}"
        running.heard.add(command.sequence)
        question.answer.set_result({**command.content, "by": command.by})
        return None

    async def _cancel(self, running: RunningJob, command: commands.Command) -> None:
        """Cancel a job, again if it waits anew; its end says it is handled."""
        self._roster.stop(running, f"cancel: {_why(command)}")

    async def _abort(self, running: RunningJob, command: commands.Command) -> None:
        """Abort a job in the midst of its step; its end says it is handled."""
        reason = f"abort: {_why(command)}"
        self._roster.stop(running, reason)
        if command.sequence not in running.heard:
            running.heard.add(command.sequence)
            # The engine waits for the loop to take note: not from the loop itself.
            abort = partial(running.runner.abort, reason)
            with self._loop.freezing("a job is aborted"):
                await self._loop.run_in_executor(self._executor, abort)


def _why(command: commands.Command) -> str:
    return command.content.get("reason") or f"by {command.by}"
