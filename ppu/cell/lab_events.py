"""Events of the lab itself: what went wrong in its twin, and what was made safe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ppu.cell.making_safe import MadeSafe
from ppu.cell.ownership import Ownership
from ppu.core.labtime import LabTimeLoop
from ppu.core.simulation import IncidentRecord
from ppu.store.events import EventKind, announce
from ppu.twin.bench import Bench

__all__ = ["LabEvents"]


class LabEvents:
    """Keeps in the store what happens to a lab: device, lab time and job of each.

    Kinds of event are ``incident``, ``safe state`` (an attempt to reach one) and
    ``unsafe`` (what somebody must see to).

    Args:
        owner: What may write to the store.
        bench: The lab's own bench, if it has one; what happened there before counts as
            somebody else's.
        owners_of: Returns the jobs that have a device.
        loop: The lab's loop.
    """

    def __init__(
        self,
        owner: Ownership,
        bench: Bench | None,
        owners_of: Callable[[str], Collection[int]],
        loop: LabTimeLoop,
    ) -> None:
        self._owner = owner
        self._bench = bench
        self._owners_of = owners_of
        self._loop = loop
        self._n_seen = len(self._incidents())

    def _incidents(self) -> Sequence[IncidentRecord]:
        return () if self._bench is None else self._bench.world.incidents

    async def keep_incidents(self) -> None:
        """Keep what went wrong since the last time, that of each job by its number.

        An incident is of the jobs that have the device, several if they share it; where
        nobody has it, it is the lab's. Call it before a job gives back what it has.

        Raises:
            StaleTokenError: If somebody else owns the store by now.
            StoreError: If they cannot be kept.
        """
        new = self._incidents()[self._n_seen :]
        if not new:
            return
        self._n_seen += len(new)
        entries: list[tuple[int | None, Mapping[str, Any]]] = []
        for one in new:
            jobs = self._jobs_of(one.device)
            content = {
                "device": one.device,
                "lab_time_s": one.lab_time_s,
                "stamp": self._loop.epoch + one.lab_time_s,
                "incident": one.kind,
                "text": one.text,
            }
            if len(jobs) > 1:
                content["jobs"] = jobs  # it is one incident all the same
            owners: Sequence[int | None] = jobs or (None,)
            entries += [(job, content) for job in owners]
        await self._keep(EventKind.INCIDENT, entries)

    async def keep_made_safe(self, made: MadeSafe, job_id: int | None) -> None:
        """Keep what was made safe after a job, and what was not.

        Raises:
            StaleTokenError: If somebody else owns the store by now.
            StoreError: If it cannot be kept.
        """
        attempts = [
            (
                job_id,
                {
                    "device": one.device,
                    "lab_time_s": one.lab_time_s,
                    "is_reached": one.is_reached,
                    "text": one.text,
                },
            )
            for one in made.attempts
        ]
        await self._keep(EventKind.SAFE_STATE, attempts)
        await self.keep_unsafe(made.unsafe, job_id)

    async def keep_unsafe(self, why: Mapping[str, str], job_id: int | None) -> None:
        """Keep which devices are NOT in their abort states, each with what is known.

        Raises:
            StaleTokenError: If somebody else owns the store by now.
            StoreError: If it cannot be kept.
        """
        now_s = self._loop.time()
        unsafe = [
            (job_id, {"device": name, "lab_time_s": now_s, "text": text})
            for name, text in why.items()
        ]
        await self._keep(EventKind.UNSAFE, unsafe)

    def _jobs_of(self, device: str) -> list[int]:
        """Return the jobs that have *device*."""
        return sorted(owner for owner in self._owners_of(device) if owner > 0)

    async def _keep(
        self, kind: EventKind, entries: Sequence[tuple[int | None, Mapping[str, Any]]]
    ) -> None:
        if entries:
            now = self._loop.stamp()
            await self._owner.write(partial(_announce, kind, entries, now))


def _announce(
    kind: EventKind,
    entries: Sequence[tuple[int | None, Mapping[str, Any]]],
    now: float,
    connection: Connection,
) -> None:
    for job_id, content in entries:
        announce(connection, kind, content, now, job_id)
