"""A cell's hold on the store: its fencing token, and the jobs it runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from ppu.core.custody import CustodyLedger
from ppu.core.errors import (
    AbortedError,
    FailureClass,
    InternalError,
    PPUError,
    StaleTokenError,
    StoreBusyError,
    StoreDiskError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop, iso
from ppu.core.notices import tell
from ppu.core.remedies import Advice, Remedy, advise
from ppu.engine.recorder import Ask, JobRecorder, Patience
from ppu.store import cells, custody, queue
from ppu.store.jobs import Effect, Job, JobState
from ppu.store.mark import HighWaterMark, Mark, is_reached, newest
from ppu.store.schema import identity
from ppu.store.steps import StepState, questions, steps_of
from ppu.store.store import Store
from ppu.store.tag_outs import TaggedOut, find_tag_outs

__all__ = ["Ownership"]

T = TypeVar("T")

_AGAIN_AFTER_S: Final = (60.0, 300.0)
"""After how long a job that has touched nothing is tried again, each time (real time)
[s]; then it fails."""


class Ownership:
    """What makes a process the one that may act for a lab.

    Whoever takes a store over gets a higher token; from then on nothing is kept that
    an earlier owner wants to write.

    Args:
        store: The store.
        file: The lab file; what the store does not know yet of its containers and
            powders is declared.
        loop: The lab's loop, for stamps.
        lease_s: How long the owner is trusted with a job unless it renews [s].
        marks: Where to note how far the store has come; None on a twin, whose world
            ends with it.
    """

    def __init__(
        self,
        store: Store,
        file: LabFile,
        loop: LabTimeLoop,
        *,
        lease_s: float,
        marks: Path | None = None,
    ) -> None:
        self.store = store
        self._loop = loop
        self._lease_s = lease_s
        self._trusted_until_s = loop.time() + lease_s
        self._excused_until_s = -math.inf
        """Until when what is under way goes on though the store is away."""
        self._renewed = asyncio.Event()
        self._is_away_told = False
        self.doubt = ""
        """Why a person must look before anything goes on, if one must."""
        self._mark: HighWaterMark | None = None
        self.was_clean = True
        """Whether no cell has crashed since a person last agreed to heat."""
        self.started = loop.stamp()
        self._patience = Patience(store, "the cell")

        def start(connection: Connection) -> int:
            has_crashed = cells.is_owned(connection)
            token = cells.start(
                connection,
                file.lab,
                loop.stamp(),
                pid=os.getpid(),
                boot_id=cells.boot_id(),
                epoch=loop.epoch,
            )
            has_crashed |= bool(queue.lose_vanished(connection, loop.stamp()))
            if has_crashed:
                cells.forbid_heat(connection)
            if marks is not None:
                self._mark = HighWaterMark(marks, file.lab, identity(connection))
                if lost := _what_was_lost(connection, self._mark.read()):
                    cells.doubt(connection, lost)
            self.doubt = cells.doubt_of(connection)
            self.was_clean = cells.may_heat(connection)
            custody.declare(connection, file, loop.stamp())
            return token

        self.token = store.write(start)
        store.keep_mark(self._mark)  # not before: the mark of before was read

    def read_ledger(self) -> CustodyLedger:
        """Return what is believed of the lab."""
        with self.store.read() as connection:
            return custody.read_ledger(connection)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds; a store that is away is waited for."""
        return await self._patience.read(query)

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what *ask* returns, trying again while the store is away."""
        return await self._patience.insist(ask)

    def read_tag_outs(self) -> list[TaggedOut]:
        """Return the devices that people have put out of service."""
        with self.store.read() as connection:
            return find_tag_outs(connection)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in the store while this owner owns it; a busy store is waited for.

        Raises:
            StaleTokenError: If somebody else owns it by now; nothing was done.
        """

        def fenced(connection: Connection) -> T:
            cells.require_token(connection, self.token)
            return work(connection)

        return await self._patience.write(fenced)

    # -- the lease -----------------------------------------------------------------

    @property
    def is_trusted(self) -> bool:
        """Whether the lease of this owner has not run out."""
        return self._loop.time() < self._trusted_until_s

    def require_trust(self) -> None:
        """Refuse an exchange once somebody else may act for the lab.

        While the store is away nobody can take the lab over. What was begun while this
        owner was trusted goes on then: it is watched, fed and made safe if need be.

        Raises:
            StaleTokenError: If another one may own the lab by now.
        """
        if self._loop.time() >= max(self._trusted_until_s, self._excused_until_s):
            raise StaleTokenError(
                "this cell has not renewed its lease in time, so another may own the "
                "lab by now; it must not touch the instruments any more"
            )

    def renounce(self) -> None:
        """Touch no instrument any more."""
        self._trusted_until_s = self._excused_until_s = -math.inf

    async def await_trust(self) -> None:
        """Wait until something new may be commanded, as long as the store is away.

        Raises:
            StaleTokenError: If another one may own the lab by now.
        """
        while not self.is_trusted:
            self.require_trust()
            self._renewed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s):
                    await self._renewed.wait()

    async def keep(self) -> None:
        """Renew the lease in time, for ever; a store that is away is waited for.

        Raises:
            StaleTokenError: If somebody else owns the lab.
            StoreError: If the store cannot be written and never will.
        """
        pause_s = self._lease_s / 4
        while True:
            await asyncio.sleep(pause_s)
            attempt = asyncio.create_task(self.renew(), name="the lease is renewed")
            try:
                while not attempt.done():
                    await asyncio.wait({attempt}, timeout=pause_s)
                    if not attempt.done():  # a server that hangs answers nothing
                        self._note_away("it does not answer")
                attempt.result()
            except (StoreBusyError, StoreDiskError) as exc:
                self._note_away(str(exc))
            finally:
                attempt.cancel()

    def _note_away(self, why: str) -> None:
        """Take note that the store is away; people are told when the lease is out."""
        self._excused_until_s = self._loop.time() + self._lease_s
        if not self.is_trusted and not self._is_away_told:
            self._is_away_told = True
            tell(
                f"store {self.store.name} is away: {why}. What runs goes on and is "
                "watched, nothing new is commanded, and the store is waited for"
            )

    async def renew(self) -> None:
        """Extend the lease.

        A store in a file that is busy, or whose disk is full, is locked by this
        process: nobody else can own it meanwhile, and the lease is good without it. A
        server that was away has forgotten its lock, which is taken again.

        Raises:
            StaleTokenError: If somebody else owns the lab.
            StoreError: If a store of another kind could not be written.
        """
        until = self._loop.time() + self._lease_s

        def work(connection: Connection) -> None:
            now = self._loop.epoch + until - self._lease_s
            cells.beat(connection, self.token, now)
            queue.renew(connection, self.token, now, self._lease_s)

        try:
            if not self.store.is_file:
                await asyncio.to_thread(self.store.own_again)
            await self.store.awrite(work)
        except (StoreBusyError, StoreDiskError):
            if not self.store.is_file:
                raise
        self._trusted_until_s = until
        if self._is_away_told and self.is_trusted:
            self._is_away_told = False
            tell(f"store {self.store.name} is back, and still this cell's; it goes on")
        self._renewed.set()

    # -- jobs ----------------------------------------------------------------------

    async def next_job(self, *, has_changed: bool = False) -> Job | None:
        """Return the job that is next, if there is one; it is not claimed yet.

        Args:
            has_changed: Whether those that lacked something may have it now.
        """
        now = self._loop.stamp()

        def work(connection: Connection) -> Job | None:
            if has_changed:
                queue.look_again(connection)
            is_wall = self._loop.pace == 1.0
            queue.time_deadlines(connection, now, is_wall=is_wall)
            queue.expire(connection, now)
            return queue.peek(connection, self.token, now)

        return await self.write(work)

    async def claim(self, job_id: int | None = None) -> Job | None:
        """Take the next job, or this one if it may still be taken."""
        return await self.write(
            partial(
                queue.claim,
                token=self.token,
                now=self._loop.stamp(),
                lease_s=self._lease_s,
                job_id=job_id,
            )
        )

    async def set_aside(self, job_id: int, lack: queue.Lack) -> None:
        """Let a queued job wait for what it lacks."""
        now = self._loop.stamp()
        await self.write(partial(queue.set_aside, job_id=job_id, now=now, lack=lack))

    async def next_try_s(self) -> float | None:
        """Return after how long a job that failed is tried again [s], if one is."""
        at = await self.read(queue.next_try)
        return None if at is None else max(at - self._loop.stamp(), 0.0)

    async def has_set_aside(self) -> bool:
        """Return whether a job waits until the lab has changed."""
        return await self.read(queue.has_set_aside)

    def lost(self) -> list[Job]:
        """Return the jobs that were under way when their cell ended."""
        with self.store.read() as connection:
            found = queue.find(connection, states=[JobState.LOST], limit=10**6)
        return sorted(found, key=lambda job: job.id)

    async def adopt(self, job_id: int) -> Job:
        """Take a job whose cell has ended, to go on with it."""
        return await self.write(
            partial(
                queue.adopt,
                job_id=job_id,
                token=self.token,
                now=self._loop.stamp(),
                lease_s=self._lease_s,
            )
        )

    def recorder(
        self,
        job: Job,
        ask: Ask | None = None,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> JobRecorder:
        """Return what keeps the steps and documents of *job*.

        Args:
            job: The job.
            ask: Asks a person whether a step happened, if somebody can be asked.
            before_end: Called before a step ends or fails.
        """
        with self.store.read() as connection:
            known = steps_of(connection, job.id)
            asked = questions(connection, job.id)
        states = {step.path: step.state for step in known}
        failed = {
            one.step.path: one for one in asked if one.step.state is StepState.FAILED
        }
        epoch = self._loop.epoch
        return JobRecorder(
            self.store, job.id, self.token, epoch, ask, states, failed, before_end
        )

    async def change(self, job_id: int, state: JobState, **more: Any) -> None:
        """Bring a job into another state; more as :func:`ppu.store.queue.transition`.

        Raises:
            StaleTokenError: If it is not this owner's.
        """
        await self.write(
            partial(
                queue.transition,
                job_id=job_id,
                state=state,
                now=self._loop.stamp(),
                token=self.token,
                **more,
            )
        )

    async def succeed(self, job: Job, result: Any) -> None:
        """Note the result of *job*."""
        await self.change(job.id, JobState.SUCCEEDED, effect=Effect.FULL, result=result)

    async def fail(
        self,
        job: Job,
        error: BaseException,
        claimed: Collection[str] = (),
        unsafe: str = "",
        *,
        is_untouched: bool = False,
    ) -> tuple[bool, set[str], CustodyLedger]:
        """Note why *job* did not succeed, or put it back into the queue.

        One that has touched nothing goes back if it only lacks something, until the lab
        has changed; or if nothing was wrong with it, a few times.

        Args:
            job: The job.
            error: What ended it.
            claimed: Containers that it may have claimed without that being kept.
            unsafe: What could not be made safe, in words.
            is_untouched: Whether its plan has begun nothing.

        Returns:
            Whether it went back, the containers that are free again, and what is kept
            of the lab now.
        """
        is_abort = isinstance(error, AbortedError)
        state = JobState.ABORTED if is_abort else JobState.FAILED
        known = error if isinstance(error, PPUError) else InternalError(str(error))
        told = f"{known}; {unsafe}" if unsafe else str(known)
        lack = replace(queue.Lack.of(known), text=told)
        advice = lack.advice or _advice_for(lack.failure_class, job.id, known)

        def work(connection: Connection) -> tuple[bool, set[str], CustodyLedger]:
            now = self._loop.stamp()
            had = custody.containers_of_job(connection, job.id)
            is_whole = queue.get(connection, job.id).physical_effect is Effect.NONE
            is_back = is_untouched and is_whole and self._may_go_back(job, lack)
            if is_back:
                again_at = self._again_at(job, lack, now)
                after = queue.put_back(
                    connection, job.id, self.token, now, lack, again_at
                )
                is_back = after.state is JobState.QUEUED
            else:
                queue.transition(
                    connection,
                    job.id,
                    state,
                    now,
                    token=self.token,
                    reason=(lack.code, lack.text),
                    advice=advice,
                    failure_class=lack.failure_class,
                    field=lack.field,
                )
            kept = custody.read_ledger(connection)
            return is_back, {*had, *claimed} - kept.used, kept

        return await self.write(work)

    async def end_doubt(self, work: Callable[[Connection], None]) -> None:
        """Keep a person's word that the store's account of the lab is right again."""

        def accept(connection: Connection) -> None:
            cells.end_doubt(connection)
            work(connection)

        await self.write(accept)
        self.doubt = ""

    def close(self) -> None:
        """Note nothing more of how far the store has come."""
        self.store.keep_mark(None)
        if self._mark is not None:
            self._mark.close()

    @staticmethod
    def _may_go_back(job: Job, lack: queue.Lack) -> bool:
        """Return whether a job that has touched nothing may begin another time."""
        if lack.failure_class is FailureClass.RETRYABLE:
            return job.n_tries < len(_AGAIN_AFTER_S)
        return lack.failure_class is FailureClass.NO_RESOURCE

    def _again_at(self, job: Job, lack: queue.Lack, now: float) -> float | None:
        """Return when it does, None if when the lab has changed."""
        if lack.failure_class is FailureClass.NO_RESOURCE:
            return None
        return now + self._loop.wire_seconds(_AGAIN_AFTER_S[job.n_tries])

    def end(
        self, how: str, *, is_sound: bool = True, untouched: Collection[int] = ()
    ) -> None:
        """Give the store up; whoever owns it next goes on with the jobs.

        Args:
            how: Why, for people.
            untouched: Jobs that have touched nothing, which wait in the queue.
            is_sound: Whether everything is as it should be; else a person must agree
                before anything is heated.
        """

        def work(connection: Connection) -> None:
            cells.require_token(connection, self.token)
            now = self._loop.stamp()
            why = ("cell", how)
            queue.lose_leased(connection, self.token, why, now, untouched)
            if not is_sound:
                cells.forbid_heat(connection)
            cells.end(connection, token=self.token, how=how, now=now)

        self.store.write(work)


def _what_was_lost(connection: Connection, mark: Mark | None) -> str:
    """Return what a store has forgotten since *mark* was left, nothing if nothing."""
    if mark is None or is_reached(connection, mark):
        return ""
    last = newest(connection)
    ends = "has no event" if last is None else f"ends at event {last.sequence}"
    when = "" if last is None else f" of {iso(last.stamp)[:19].replace('T', ' ')} UTC"
    return (
        "the store is not what it was: this computer has seen it come to event "
        f"{mark.sequence} of {iso(mark.stamp)[:19].replace('T', ' ')} UTC, and now it "
        f"{ends}{when}. It was restored, or has lost its -wal; what was done in "
        "between is not known to it. Look at every instrument and container, put "
        "right what is believed of them, give up jobs that had gone on, and say so"
    )


def _advice_for(
    failure_class: FailureClass, job_id: int, error: PPUError
) -> tuple[Advice, ...]:
    """Return what helps against an error that does not say so itself."""
    if isinstance(error, InternalError):
        return (advise(Remedy.REPORT),)
    if failure_class in (FailureClass.RETRYABLE, FailureClass.NO_RESOURCE):
        return (advise(Remedy.RETRY, job=job_id),)
    return ()
