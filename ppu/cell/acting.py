"""What acts for which job: who may begin it, and what is left to whom at an end."""

from __future__ import annotations

from collections.abc import Mapping

from ppu.cell.roster import Roster, RunningJob
from ppu.core.errors import InterlockError
from ppu.devices.instrument import LabDevice
from ppu.engine.reservations import Reservations

__all__ = ["Acting"]


class Acting:
    """Knows for which job something was begun on a device.

    What heats or lets gas flow acts on when the operation is over, and when the step
    is; so whoever began it must bring it to rest.

    Args:
        devices: The lab's devices.
        roster: Who runs.
        reservations: Who has what.
    """

    def __init__(
        self,
        devices: Mapping[str, LabDevice],
        roster: Roster,
        reservations: Reservations,
    ) -> None:
        self._devices = devices
        self._roster = roster
        self._reservations = reservations
        self._begun: dict[str, int] = {}
        """The job for which something was begun last on a device."""

    def begin(self, running: RunningJob, name: str, verb: str) -> None:
        """Take note that a job begins something on a device.

        What heats or lets gas flow, and that it has not for a step, it has from now on
        until its end: nobody else shall find it at work.

        Raises:
            InterlockError: If somebody else has it.
        """
        who, device = running.who, self._devices.get(name)
        if device is None:  # a plan's own
            return
        running.has_acted |= verb != "trigger"
        owners = self._reservations.owners_of(name)
        if device.rests and verb != "trigger" and who.id not in owners:
            if owners:
                raise InterlockError(
                    f"{name}: {self._reservations.told_of(name)}; use it in a step "
                    "that needs it, which waits until it is free"
                )
            self._reservations.share(name, [who.id])
        if device.rests or who.id not in owners:
            self._begun[name] = who.id

    def jobs_of(self, name: str) -> frozenset[int]:
        """Return the jobs that have a device, or else the one that used it last."""
        if owners := self._reservations.owners_of(name):
            return owners
        job_id = self._begun.get(name)
        return frozenset() if job_id is None else frozenset({job_id})

    def is_left(self, running: RunningJob, name: str) -> bool:
        """Return whether a device goes on with what was begun for a job.

        Nobody else gets it then, though the step is over for which the job had it.
        """
        device = self._devices.get(name)
        is_its = self._begun.get(name) == running.who.id
        return device is not None and is_its and device.is_acting

    def take_left(self, running: RunningJob, *, is_routine: bool) -> list[str]:
        """Let a job that ends have what acts, or may act, and is nobody else's.

        That is what was begun for it, or for a job that has ended, and what its steps
        in an earlier process named.

        Args:
            running: The job.
            is_routine: Whether nothing went wrong, so that only what heats or lets gas
                flow is looked after.
        """
        who, roster = running.who, self._roster
        others = [other for n, other in roster.jobs.items() if n != who.id]
        named = running.named.difference(*(o.named for o in others if not o.is_ending))
        left = []
        for name, device in self._devices.items():
            by = self._begun.get(name)
            if not (device.rests or (by == who.id and not is_routine)):
                continue
            if by is None and name not in named:
                continue
            if by not in (None, who.id) and roster.goes_on(by):
                continue
            if not roster.is_left_to(who, name):
                continue
            self._reservations.share(name, [who.id])
            if name in named:
                device.adopt()
            left.append(name)
        return left

    def note_safe(self, running: RunningJob, name: str) -> None:
        """Take note that nothing acts on a device any more, and let others have it."""
        self._begun.pop(name, None)
        self._reservations.give_back(running.who, [name])
