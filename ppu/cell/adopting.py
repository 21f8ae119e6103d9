"""Adopts jobs of an earlier process: their seats, devices and what was under way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster, RunningJob
from ppu.core.capabilities import GasFlow
from ppu.core.errors import DivergedError, StoreError
from ppu.core.labtime import LabTimeLoop
from ppu.devices.instrument import LabDevice
from ppu.engine.resources import Resources
from ppu.plans.lab import Lab
from ppu.plans.seats import Seat
from ppu.plans.steps import restored_as
from ppu.store.documents import close_open_runs
from ppu.store.steps import Step, StepState, questions, steps_of

__all__ = ["Adoption"]


class Adoption:
    """Gives jobs of an earlier process what they had there.

    Args:
        owner: What may read and write the store.
        roster: Who runs.
        resources: What the jobs share.
        view: The lab as plans see it.
        devices: The lab's devices.
        loop: The lab's loop.
    """

    def __init__(
        self,
        owner: Ownership,
        roster: Roster,
        resources: Resources,
        view: Lab,
        devices: Mapping[str, LabDevice],
        loop: LabTimeLoop,
    ) -> None:
        self._owner = owner
        self._roster = roster
        self._resources = resources
        self._view = view
        self._devices = devices
        self._loop = loop

    async def restore(self, running: RunningJob) -> None:
        """Take note of what an adopted job has, and end what its runs left open."""
        job_id = running.job.id
        await self._owner.write(
            partial(
                close_open_runs,
                job_id=job_id,
                token=self._owner.token,
                now=self._loop.stamp(),
                reason="its process died; the job goes on in another run",
            )
        )
        steps = await self._owner.read(partial(steps_of, job_id=job_id))
        seat = None
        for step in steps:
            if step.state is not StepState.DONE:
                continue
            if step.seat == "takes":
                # One that is none, its own plan will find.
                with contextlib.suppress(DivergedError):
                    seat = restored_as(Seat, step.result)
            elif step.seat == "leaves":
                seat = None
        if seat is not None:
            self._resources.firings.restore(running.who, seat)
        running.left_acting = _left_acting(steps, self._view)
        running.named = _named_by(steps, self._view)
        begun = {
            step.path
            for step in steps
            if step.state in (StepState.INTENT, StepState.UNSETTLED)
        }
        # A step that failed keeps what it has while a person is asked.
        asked = await self._owner.read(partial(questions, job_id=job_id))
        begun |= {question.step.path for question in asked}
        self._resources.reservations.note_under_way(running.who, begun)

    async def take_back(self, running: RunningJob) -> None:
        """Give an adopted job what still acts for it and that it has not joined.

        Nobody else gets it before it is safe; what others have is theirs.
        """
        if not running.left_acting:
            return
        acting = dict(running.left_acting)
        with contextlib.suppress(StoreError):  # then all that it had
            look = partial(steps_of, job_id=running.job.id)
            found = _left_acting(await self._owner.read(look), self._view)
            acting = {path: acting[path] for path in acting.keys() & found.keys()}
        reservations = self._resources.reservations
        names = frozenset().union(*acting.values())
        for name in names:
            if not reservations.owners_of(name):
                reservations.share(name, [running.who.id])
        for name in names.intersection(self._roster.devices_alone(running.who)):
            self._devices[name].adopt()


def _left_acting(steps: Sequence[Step], lab: Lab) -> dict[str, frozenset[str]]:
    """Return the devices that steps act on which began and are not done, by path.

    One that failed counts, too: the process may have died before they were safe.
    """
    done = {step.path for step in steps if step.state is StepState.DONE}
    found: dict[str, frozenset[str]] = {}
    for step in steps:
        words = step.path.split(".")
        above = {".".join(words[:n]) for n in range(1, len(words) + 1)}
        if above & done:
            continue
        if names := _named_by([step], lab):
            found[step.path] = frozenset(names)
    return found


def _named_by(steps: Sequence[Step], lab: Lab) -> set[str]:
    """Return the devices that the arguments of *steps* name."""
    names = set[str]()
    for step in steps:
        positional, named = step.arguments or ((), {})
        for argument in (*positional[1:], *named.values()):
            # A list of devices is a choice among them: none is taken yet.
            if not isinstance(argument, list):
                names |= _words_in(argument)
    names &= lab.devices.keys()
    # The gas of a furnace goes with it.
    return names | {gas.name for gas in lab.every(GasFlow) if gas.supplies in names}


def _words_in(argument: Any) -> set[str]:
    """Return the strings in plain data."""
    if isinstance(argument, str):
        return {argument}
    if isinstance(argument, dict):
        argument = list(argument.values())
    if isinstance(argument, list):
        return {word for item in argument for word in _words_in(item)}
    return set()
