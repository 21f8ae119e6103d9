"""Ends jobs that failed: makes safe what they had, insists, and notes why."""

from __future__ import annotations

import asyncio
import contextlib

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
    """Brings what a failed job had to itself to its abort state.

    Args:
        lab: The lab, whose devices are made safe.
        owner: What may write to the store.
        roster: Who runs.
        adoption: Knows what an earlier process may have left acting.
        events: Keeps what was made safe, and what was not.
    """

    def __init__(
        self,
        lab: OpenLab,
        owner: Ownership,
        roster: Roster,
        adoption: Adoption,
        events: LabEvents,
    ) -> None:
        self._lab = lab
        self._owner = owner
        self._roster = roster
        self._adoption = adoption
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What keeps trying to make devices safe."""
        return set(self._tasks)

    async def end_well(self, running: RunningJob) -> None:
        """Bring to rest what a job has left heating or flowing outside of its steps.

        Raises:
            StaleTokenError: If somebody else owns the store by now.
            StoreError: If what was done cannot be kept.
        """
        made = await self._lab.rest()
        for line in (*made.told, *made.unsafe.values()):
            tell(f"job {running.job.id}: {line}")
        await self._events.keep_made_safe(made, running.job.id)
        for name in made.unsafe:
            self._keep_making_safe(name, running.job.id)

    async def end_badly(self, running: RunningJob, error: Exception) -> None:
        """Bring what a failed job had to itself to its abort state; note why."""
        running.is_ending_badly = True
        made = MadeSafe()
        unknown: dict[str, str] = {}
        devices: list[str] = []
        try:
            await self._adoption.take_back(running)
            alone = self._roster.devices_alone(running.who)
            devices = [name for name in alone if name in self._lab.devices]
            made = await self._lab.amake_safe(devices)
            for line in (*made.told, *made.unsafe.values()):
                tell(f"job {running.job.id}: {line}")
        except Exception as exc:  # noqa: BLE001 - the job must end whatever a driver does
            tell(f"job {running.job.id}: NOT everything is safe: {exc!r}")
            unknown = dict.fromkeys(
                devices, f"nobody knows whether it is safe: {exc!r}"
            )
        unsafe = made.unsafe
        try:
            await self._events.keep_incidents(running.job.id)
            await self._events.keep_made_safe(made, running.job.id)
            await self._events.keep_unsafe(unknown, running.job.id)
            for container in await self._owner.fail(
                running.job, error, running.claimed, "; ".join(unsafe.values())
            ):
                self._lab.ledger.release(container)
            self._lab.resources.empties.look_again()
        except (StaleTokenError, StoreError) as exc:
            self._roster.fail(exc)
        for name in unsafe:
            self._keep_making_safe(name, running.job.id)

    def _keep_making_safe(self, name: str, job_id: int) -> None:
        """Keep trying to make a device safe; nobody gets it before it is."""
        reservations = self._lab.resources.reservations
        reservations.share(name, {*reservations.owners_of(name), UNSAFE.id})

        async def make_safe() -> None:
            while True:
                made = await self._lab.amake_safe([name])
                if not made.unsafe:
                    break
            tell("; ".join(made.told) or f"{name}: it is in its abort state by now")
            reservations.give_back(UNSAFE, [name])
            with contextlib.suppress(StaleTokenError, StoreError):  # others meet that
                await self._events.keep_made_safe(made, job_id)

        task = asyncio.create_task(make_safe(), name=f"{name} is made safe")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
