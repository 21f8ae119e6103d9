"""The gate of one running job: passes its steps, holds it, asks people for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ppu.cell.ownership import Ownership
from ppu.cell.roster import OpenQuestion, Roster, RunningJob
from ppu.core.errors import AbortedError, PPUError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.core.remedies import Advice, Remedy, advise
from ppu.devices.instrument import LabDevice
from ppu.engine.runner import cause_of
from ppu.plans.steps import Decision, Evidence, Failed, Needs, StepRecord
from ppu.store.jobs import JobState
from ppu.store.steps import SETTLING_ANSWERS, ask_step

__all__ = ["JobGate"]

_NOTHING = ("", "")
"""What is said of a job that runs as it should."""


class JobGate:
    """What lets the steps of one job begin, and asks people what becomes of them.

    Args:
        running: The job.
        roster: Who else runs, and what may heat.
        owner: What may write to the store.
        loop: The lab's loop.
        devices: The lab's devices, for a hold.
    """

    def __init__(
        self,
        running: RunningJob,
        roster: Roster,
        owner: Ownership,
        loop: LabTimeLoop,
        devices: Mapping[str, LabDevice],
    ) -> None:
        self._running = running
        self._roster = roster
        self._owner = owner
        self._loop = loop
        self._devices = devices

    async def set_state(
        self,
        state: JobState,
        reason: tuple[str, str] | None = _NOTHING,
        *advice: Advice,
    ) -> None:
        """Note the job's state, if it is another one.

        Args:
            state: The state.
            reason: Code and text of why it is so; None to keep what was said.
            advice: What people can do about that.
        """
        if state is not self._running.state:
            await self._owner.change(
                self._running.job.id, state, reason=reason, advice=advice
            )
            self._running.state = state

    async def pass_step(self, step: StepRecord, needs: Needs, *, goes_on: bool) -> None:
        """Wait until the job may go on with its next step.

        What was under way is not begun but joined, or a person is asked; a hold comes
        after it.

        Raises:
            AbortedError: If it was cancelled.
        """
        running, roster = self._running, self._roster
        while True:
            running.changed.clear()  # first: what is said from now on is not missed
            if running.stopped_by:
                raise AbortedError(running.stopped_by)
            if roster.lets_nothing_begin:
                await self._wait_for_change()
            elif running.is_held and not goes_on:
                reason = ("held", f"held before step {step.label}")
                await self.set_state(JobState.PAUSED, reason)
                await self.hold_devices()
                await self._wait_for_change()
            elif (hot := needs.used & roster.heaters) and not (
                roster.may_heat or (goes_on and step.kind != "repeatable")
            ):
                names = ", ".join(sorted(hot))
                reason = (
                    "restart",
                    f"the cell was restarted; {names} is not heated before a person "
                    "agrees",
                )
                agree = advise(Remedy.ALLOW_HEAT)
                if running.state is not JobState.NEEDS_INPUT:
                    tell(f"job {running.job.id} waits: {reason[1]}", agree)
                await self.set_state(JobState.NEEDS_INPUT, reason, agree)
                await self._wait_for_change()
            else:
                await self.set_state(JobState.RUNNING)
                return

    async def stand_by(self, lack: PPUError) -> None:
        """Wait with what the job has until it is stopped: its plan cannot run here.

        Raises:
            AbortedError: When it is.
        """
        running = self._running
        reason = (type(lack).__name__, str(lack))
        await self.set_state(JobState.PAUSED, reason, *lack.advice)
        tell(f"job {running.job.id} waits: {lack}", *lack.advice)
        running.stands_by = True
        while not running.stopped_by:
            running.changed.clear()
            await self._wait_for_change()
        raise AbortedError(running.stopped_by)

    def note_done(self, needs: Callable[[], Needs]) -> None:
        """Take note of what a step needed: an earlier process may have left it on."""
        # What it would need now may be wrong by now; it is not begun again.
        with contextlib.suppress(Exception):
            self._running.named |= needs().names & self._devices.keys()

    async def _wait_for_change(self) -> None:
        """Wait until people want something else than when `changed` was cleared."""
        self._running.is_waiting = True
        self._roster.wake()  # the cell may be drained now
        try:
            await self._running.changed.wait()
        finally:
            self._running.is_waiting = False

    async def hold_devices(self) -> None:
        """Bring what the job has for itself alone into its declared hold."""
        for name in self._roster.devices_alone(self._running.who):
            if name not in self._devices:
                continue
            try:
                text = await self._devices[name].go_to_hold_state()
            except PPUError as exc:
                text = f"{name}: NOT in its hold state: {exc}"
            if text:
                tell(text)

    # -- questions -----------------------------------------------------------------

    async def decide(self, path: str, step: StepRecord, failed: Failed) -> Decision:
        """Ask a person what becomes of a failed step."""
        answers = ["retry", "abort"]
        answers += ["skip"] if failed.can_skip else []
        answers += ["park"] if failed.can_park else []
        question = f"step {step.label} failed: {cause_of(failed.error)}"
        await self._owner.write(
            partial(
                ask_step,
                job_id=self._running.job.id,
                path=path,
                question=question,
                answers=answers,
                token=self._owner.token,
                now=self._loop.stamp(),
            )
        )
        return await self.ask(path, question, answers)

    async def ask(self, path: str, question: str, answers: Sequence[str]) -> Decision:
        """Ask a person what becomes of a failed step, which is kept already."""
        answer = await self._ask(path, question, answers)
        if answer["answer"] == "abort":
            return "raise"
        decision: Decision = answer["answer"]
        return decision

    async def settle(self, path: str, found: Evidence) -> Evidence:
        """Ask a person whether a step has happened."""
        answer = await self._ask(path, found.text, SETTLING_ANSWERS)
        if answer["answer"] == "abort":
            raise AbortedError(f"abort: by {answer['by']}")
        text = f"{answer['by']}: {answer.get('note') or answer['answer']}"
        return Evidence(answer["answer"] == "happened", text, found.result)

    async def _ask(
        self, path: str, question: str, allowed: Sequence[str]
    ) -> dict[str, Any]:
        """Wait for one of the *allowed* answers, which may be there already.

        Raises:
            AbortedError: If the job was cancelled.
        """
        running = self._running
        if running.stopped_by:
            raise AbortedError(running.stopped_by)
        answer_it = advise(Remedy.ANSWER, job=running.job.id)
        await self.set_state(JobState.NEEDS_INPUT, ("question", question), answer_it)
        tell(f"job {running.job.id} asks: {question}", answer_it)
        asked = OpenQuestion(allowed, self._loop.create_future())
        running.questions[path] = asked
        self._roster.wake()
        try:
            answer = await asked.answer
        finally:
            del running.questions[path]
        await self.set_state(JobState.RUNNING)
        return answer
