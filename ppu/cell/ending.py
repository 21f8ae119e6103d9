"""Ends jobs, well or badly: makes safe what is left of them, and insists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial

from ppu.cell.acting import Acting
from ppu.cell.adopting import Adoption
from ppu.cell.lab import OpenLab
from ppu.cell.lab_events import LabEvents
from ppu.cell.making_safe import MadeSafe
from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster, RunningJob
from ppu.core.errors import StaleTokenError, StoreError
from ppu.core.notices import tell
from ppu.engine.reservations import UNSAFE

__all__ = ["Ending"]


class Ending:
    """Brings what is left of a job to its abort state.

    Args:
        lab: The lab, whose devices are made safe.
        owner: What may write to the store.
        roster: Who runs.
        adoption: Knows what an earlier process may have left acting.
        acting: Knows for which job something was begun on a device.
        events: Keeps what was made safe, and what was not.
    """

    def __init__(
        self,
        lab: OpenLab,
        owner: Ownership,
        roster: Roster,
        adoption: Adoption,
        acting: Acting,
        events: LabEvents,
    ) -> None:
        self._lab = lab
        self._owner = owner
        self._roster = roster
        self._adoption = adoption
        self._acting = acting
        self._events = events
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What keeps trying to make devices safe."""
        return set(self._tasks.values())

    async def end_well(self, running: RunningJob) -> None:
        """Bring to rest what a job has left heating or flowing outside of its steps.

        Raises:
            StaleTokenError: If somebody else owns the store by now.
            StoreError: If what was done cannot be kept.
        """
        running.is_ending = True
        devices = self._acting.take_left(running, is_routine=True)
        made = await self._lab.rest(devices)
        await self._events.keep_incidents()  # while it has what they are of
        self._let_go(running, devices, made)
        for line in (*made.told, *made.unsafe.values()):
            tell(f"job {running.job.id}: {line}")
        await self._events.keep_made_safe(made, running.job.id)
        self._keep_making_safe(made.unsafe, running.job.id)

    async def end_badly(self, running: RunningJob, error: Exception) -> None:
        """Bring what is left of a failed job to its abort state; note why."""
        running.is_ending = True
        made = MadeSafe()
        unknown: dict[str, str] = {}
        devices: list[str] = []
        try:
            await self._adoption.take_back(running)
            left = self._acting.take_left(running, is_routine=False)
            alone = {*left, *self._roster.devices_alone(running.who)}
            devices = [name for name in self._lab.devices if name in alone]
            made = await self._lab.amake_safe(devices)
            with contextlib.suppress(StaleTokenError, StoreError):  # met again below
                await self._events.keep_incidents()
            self._let_go(running, devices, made)
            for line in (*made.told, *made.unsafe.values()):
                tell(f"job {running.job.id}: {line}")
        except Exception as exc:  # noqa: BLE001 - the job must end whatever a driver does
            tell(f"job {running.job.id}: NOT everything is safe: {exc!r}")
            unknown = dict.fromkeys(
                devices, f"nobody knows whether it is safe: {exc!r}"
            )
            self._let_go(running, devices, MadeSafe(unsafe=unknown))
        unsafe = made.unsafe
        try:
            await self._events.keep_incidents()
            await self._events.keep_made_safe(made, running.job.id)
            await self._events.keep_unsafe(unknown, running.job.id)
            running.is_put_back, freed, kept = await self._owner.fail(
                running.job,
                error,
                running.claimed,
                "; ".join(unsafe.values()),
                is_untouched=not running.has_acted,
            )
            for container in freed:
                self._lab.ledger.give_back(container)
            self._lab.ledger.quarantined = kept.quarantined
            self._lab.resources.empties.look_again()
        except (StaleTokenError, StoreError) as exc:
            self._roster.fail(exc)
        self._keep_making_safe([*unsafe, *unknown], running.job.id)

    def _let_go(
        self, running: RunningJob, devices: Iterable[str], made: MadeSafe
    ) -> None:
        """Let others have what is safe, and nobody what is not."""
        for name in devices:
            if name in made.unsafe:
                # At once: whoever waits for it must not be faster.
                self._lab.resources.reservations.share(name, [UNSAFE.id])
            else:
                self._acting.note_safe(running, name)

    def _keep_making_safe(self, names: Iterable[str], job_id: int) -> None:
        """Keep trying to make devices safe that nobody gets before they are."""
        for name in names:
            if name in self._tasks:  # of another job that ended at this moment
                continue
            work = self._insist(name, job_id)
            task = asyncio.create_task(work, name=f"{name} is made safe")
            self._tasks[name] = task
            task.add_done_callback(partial(self._forget, name))

    def _forget(self, name: str, _: asyncio.Task[None]) -> None:
        del self._tasks[name]

    async def _insist(self, name: str, job_id: int) -> None:
        """Make a device safe, however long that takes, and let others have it."""
        while True:
            made = await self._lab.amake_safe([name])
            if not made.unsafe:
                break
        tell("; ".join(made.told) or f"{name}: it is in its abort state by now")
        self._lab.resources.reservations.give_back(UNSAFE, [name])
        with contextlib.suppress(StaleTokenError, StoreError):  # others meet that
            await self._events.keep_made_safe(made, job_id)
