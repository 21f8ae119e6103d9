"""Applies what people say they did to samples, containers and stock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from ppu.cell.ownership import Ownership
from ppu.cell.twin_hands import TwinHands
from ppu.core.custody import CustodyLedger
from ppu.core.errors import ConflictError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.core.remedies import Advice, Remedy, advise
from ppu.engine.reservations import PERSON
from ppu.engine.resources import Resources
from ppu.store import commands
from ppu.store.custody import (
    check_correction,
    check_release,
    correct_location,
    release_sample,
)
from ppu.store.requests import CorrectStock, MoveContainer, Refill, ReleaseSample
from ppu.store.stock import correct_stock, refill

__all__ = ["LabRequests", "handled"]

T = TypeVar("T")


class LabRequests:
    """Applies requests about the lab itself to store, ledger and twin.

    That something was done is kept with what was done: it is not done twice. Each
    method raises an error if it cannot be done; nothing was.

    Args:
        owner: What may write to the store.
        ledger: What is believed of the lab.
        resources: What the jobs share.
        hands: Does in the cell's own twin what people say they did.
        loop: The lab's loop.
    """

    def __init__(
        self,
        owner: Ownership,
        ledger: CustodyLedger,
        resources: Resources,
        hands: TwinHands,
        loop: LabTimeLoop,
    ) -> None:
        self._owner = owner
        self._ledger = ledger
        self._resources = resources
        self._hands = hands
        self._loop = loop

    async def release_sample(
        self, command: commands.Command, wanted: ReleaseSample
    ) -> None:
        """Believe that a sample is gone and its containers are clean."""
        sample = wanted.sample
        for container in await self._owner.write(partial(check_release, sample=sample)):
            move = advise(Remedy.MOVE_CONTAINER, container=container)
            self._hands.find_act("empty", move)(container)
        release = partial(release_sample, sample=sample)
        for container in await self.keep(command, release):
            self._ledger.release(container)
        self._resources.look_again()

    async def refill(self, command: commands.Command, wanted: Refill) -> None:
        """Believe that powder was added."""
        look = advise(Remedy.CHECK_STOCK, powder=wanted.powder)
        add = self._hands.find_act("refill", look)
        await self.keep(command, partial(refill, **wanted.content))
        self._ledger.refill(wanted.powder, wanted.mass_g)
        try:  # not before it is kept: it would be added again
            add(wanted.powder, wanted.mass_g)
        except ConflictError as exc:
            tell(str(exc), *exc.advice)
        self._resources.look_again()

    async def correct_stock(
        self, command: commands.Command, wanted: CorrectStock
    ) -> None:
        """Believe how much of a powder there is."""
        correct = partial(correct_stock, **wanted.content)
        more_g = await self.keep(command, correct)
        # Not what was said: a step under way may have used some of it meanwhile,
        # which the store learns at its end.
        self._ledger.refill(wanted.powder, more_g)
        self._resources.look_again()

    async def correct_location(
        self, command: commands.Command, wanted: MoveContainer
    ) -> None:
        """Believe where a container is, unless a job is at work there."""
        container, location = wanted.container, wanted.location
        ledger, reservations = self._ledger, self._resources.reservations
        at_work = {
            place: reservations.owners_of(place)
            for place in (location, ledger.places.get(container, location))
        }
        said: dict[str, Any] = {**wanted.content, "at_work": at_work}
        check = partial(check_correction, **said)
        correct = partial(correct_location, **said)
        carry = self._hands.find_act("carry", advise(Remedy.MOVE_CONTAINER))
        if not at_work[location]:
            reservations.share(location, {PERSON.id})  # no step gets it meanwhile
        try:
            await self._owner.write(check)
            carry(container, location)
            await self.keep(command, correct)
            ledger.correct(container, location)
        finally:
            reservations.give_back(PERSON, [location])
        self._resources.look_again()

    async def keep(self, command: commands.Command, work: Callable[..., T]) -> T:
        """Keep what a person's request changes, and that it was seen to."""
        now = self._loop.stamp()
        handle = handled(command, "done", now)

        def kept(connection: Connection) -> T:
            result = work(connection, by=command.by, now=now)
            handle(connection)
            return result

        return await self._owner.write(kept)


def handled(
    command: commands.Command, outcome: str, now: float, advice: Iterable[Advice] = ()
) -> Callable[[Connection], None]:
    """Return what keeps that *command* is handled, and what came of it."""
    return partial(
        commands.settle,
        sequence=command.sequence,
        outcome=outcome,
        now=now,
        advice=tuple(advice),
    )
