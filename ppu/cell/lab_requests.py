"""Applies what people say they did to samples, containers and stock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from ppu.cell.ownership import Ownership
from ppu.cell.twin_hands import TwinHands
from ppu.core.custody import CustodyLedger
from ppu.core.errors import ConflictError, PPUError
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.core.remedies import Advice, Remedy, advise
from ppu.devices.instrument import LabDevice
from ppu.engine.reservations import PERSON
from ppu.engine.resources import Resources
from ppu.store import commands
from ppu.store.custody import (
    check_correction,
    check_release,
    correct_location,
    release_sample,
)
from ppu.store.requests import (
    CorrectStock,
    MoveContainer,
    Refill,
    ReleaseSample,
    ReturnDevice,
    TagOut,
)
from ppu.store.stock import correct_stock, refill
from ppu.store.tag_outs import check, return_device, tag_out

__all__ = ["LabRequests", "handled"]

T = TypeVar("T")

Said = ReleaseSample | MoveContainer | Refill | CorrectStock | TagOut | ReturnDevice
"""What people say of the lab itself."""
_HOT_DEGC: Final = 60.0
"""Above this, metal burns skin that touches it for some seconds (ISO 13732-1)."""


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
        devices: The lab's devices.
    """

    def __init__(
        self,
        owner: Ownership,
        ledger: CustodyLedger,
        resources: Resources,
        hands: TwinHands,
        loop: LabTimeLoop,
        devices: Mapping[str, LabDevice],
    ) -> None:
        self._owner = owner
        self._devices = devices
        self._ledger = ledger
        self._resources = resources
        self._hands = hands
        self._loop = loop

    async def apply(self, command: commands.Command, wanted: Said) -> None:
        """Take note of what a person said.

        Raises:
            ConfigurationError: If it cannot be.
            NotFoundError: If what it names is not there.
            ConflictError: If the present state forbids it.
        """
        match wanted:
            case ReleaseSample():
                await self.release_sample(command, wanted)
            case MoveContainer():
                await self.correct_location(command, wanted)
            case Refill():
                await self.refill(command, wanted)
            case CorrectStock():
                await self.correct_stock(command, wanted)
            case TagOut():
                await self.tag_out(command, wanted)
            case ReturnDevice():
                await self.return_device(command, wanted)
        self._resources.look_again()

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

    async def correct_stock(
        self, command: commands.Command, wanted: CorrectStock
    ) -> None:
        """Believe how much of a powder there is."""
        correct = partial(correct_stock, **wanted.content)
        more_g = await self.keep(command, correct)
        # Not what was said: a step under way may have used some of it meanwhile,
        # which the store learns at its end.
        self._ledger.refill(wanted.powder, more_g)

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

    async def tag_out(self, command: commands.Command, wanted: TagOut) -> None:
        """Let no job take a device; whoever has it keeps it, and is told so."""
        name, known = wanted.device, self._devices
        await self._owner.write(partial(check, said=wanted, known=known))
        told = f"{name} is tagged out: no job takes it"
        owners = self._resources.reservations.owners_of(name)
        if jobs := sorted(owner for owner in owners if owner > 0):
            listed = ", ".join(map(str, jobs))
            told += f"; job {listed} has it and goes on with what is under way"
        if name in known:
            told += await _told_of_heat(name, known[name])
        keep = partial(tag_out, **wanted.content)
        tagged = await self.keep(command, keep, told)
        self._resources.reservations.tag_out(name, str(tagged))
        tell(told)

    async def return_device(
        self, command: commands.Command, wanted: ReturnDevice
    ) -> None:
        """Let jobs take a device again."""
        name, known = wanted.device, self._devices
        await self._owner.write(partial(check, said=wanted, known=known))
        told = f"{name} is in service again"
        await self.keep(command, partial(return_device, **wanted.content), told)
        self._resources.reservations.return_to_service(name)

    async def keep(
        self, command: commands.Command, work: Callable[..., T], told: str = "done"
    ) -> T:
        """Keep what a person's request changes, and that it was seen to."""
        now = self._loop.stamp()
        handle = handled(command, told, now)

        def kept(connection: Connection) -> T:
            result = work(connection, by=command.by, now=now)
            handle(connection)
            return result

        return await self._owner.write(kept)


async def _told_of_heat(name: str, device: LabDevice) -> str:
    """Return in words how hot a device is that can heat, empty for another."""
    key = getattr(device.plan_device, "temperature_key", None)
    if not device.heats or key is None:
        return ""
    try:
        reading = await device.read_signal(key.removeprefix(f"{name}_"))
    except PPUError as exc:
        return f"; how hot it is cannot be read: {exc}"
    degc = float(reading["value"])
    if not degc <= _HOT_DEGC:  # a reading that is no number may be hot, too
        return f"; it is HOT, {degc:.0f} degC: tagging it out switches nothing off"
    return f"; it is at {degc:.0f} degC"


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
