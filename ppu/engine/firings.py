"""Firings that jobs share: who has a place in which furnace, and who leads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ppu.core.capabilities import FiringProfile, FiringRecord
from ppu.core.errors import (
    AbortedError,
    FailureClass,
    InterlockError,
    InternalError,
    PPUError,
)
from ppu.core.labtime import LabTimeLoop
from ppu.engine.reservations import Claimant, Reservations, wait_patiently
from ppu.plans.seats import Role, Seat, Turn

__all__ = ["Firings"]


@dataclass
class _Candidate:
    """A job that waits for a place."""

    who: Claimant
    container: str
    profile: FiringProfile
    slots: Mapping[str, Sequence[str]]
    belongings: Mapping[str, Sequence[str]]
    since_s: float
    wait_s: float
    seated: asyncio.Future[Seat] = field(repr=False)


@dataclass
class _Member:
    seat: Seat
    container: str | None = None
    """What it loads; None if that was in a process that died."""
    is_loaded: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


@dataclass
class _Firing:
    """A furnace's contents from the first load to the last unload."""

    name: str
    furnace: str
    members: dict[int, _Member] = field(default_factory=dict)
    state: Literal["loading", "loaded", "firing", "done", "failed"] = "loading"
    is_restored: bool = False
    leader: int = 0
    record: FiringRecord | None = None
    error: PPUError | None = None

    def wake_all(self) -> None:
        for member in self.members.values():
            member.wake.set()


class Firings:
    """The firings of one lab.

    Args:
        loop: The lab's loop.
        reservations: Who has which furnace.
        share_wait: How long the first waits for others, as a part of the firing.
        patience_s: How long anybody waits for the other members to load.
    """

    def __init__(
        self,
        loop: LabTimeLoop,
        reservations: Reservations,
        share_wait: float,
        patience_s: float,
    ) -> None:
        self._loop = loop
        self._reservations = reservations
        self._share_wait = share_wait
        self.patience_s: float | None = patience_s
        self._candidates: list[_Candidate] = []
        self._firings: dict[str, _Firing] = {}
        self._had_seat: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(1)
        reservations.on_give_back = self._decide_later

    # -- places --------------------------------------------------------------------

    async def request(
        self,
        who: Claimant,
        container: str,
        profile: FiringProfile,
        slots: Mapping[str, Sequence[str]],
        expected_s: float,
        belongings: Mapping[str, Sequence[str]],
    ) -> Seat:
        """Wait for a place; return it.

        Args:
            who: The job.
            container: What is to be fired.
            profile: The firing.
            slots: The slots of each furnace that may be used, the best first.
            expected_s: How long the firing takes [s].
            belongings: Devices that go with each furnace.

        Raises:
            InterlockError: If it waited too long.
        """
        candidate = _Candidate(
            who,
            container,
            profile,
            slots,
            belongings,
            self._loop.time(),
            self._share_wait * expected_s,
            self._loop.create_future(),
        )
        self._candidates.append(candidate)
        furnaces = " or ".join(slots)
        try:
            self._decide_soon()
            if not candidate.seated.done():
                text = f"{container} waits for a place in {furnaces}"
                text += self._reservations.told_of_tags(slots)
                self._reservations.on_wait(who, text)
            seat = await self._until_seated(candidate)
            self._reservations.on_wait(who, "")
            return seat
        finally:
            self._candidates.remove(candidate)

    async def _until_seated(self, candidate: _Candidate) -> Seat:
        """Return the place of *candidate*.

        A furnace that is out of service is waited for as long as that lasts.

        Raises:
            InterlockError: If it waited too long.
        """
        try:
            return await wait_patiently(
                candidate.seated,
                self.patience_s,
                lambda: any(map(self._reservations.is_tagged_out, candidate.slots)),
            )
        except TimeoutError:
            raise InterlockError(
                f"{candidate.container} waited {self.patience_s:g} s for a place "
                f"in {' or '.join(candidate.slots)}; is one kept occupied?",
                field=min(candidate.slots),
                failure_class=FailureClass.NO_RESOURCE,
            ) from None

    def note_entered(self) -> None:
        """Take note that another job is there, which may want a place, too."""
        self._decide_soon()

    def note_left(self, who: Claimant, error: BaseException | None) -> None:
        """Take note that the plan of *who* has ended, whyever."""
        self._had_seat.discard(who.id)
        for firing in list(self._firings.values()):
            if who.id in firing.members:
                self._leave(firing, who, error)
        self._decide_soon()

    def restore(self, who: Claimant, seat: Seat) -> None:
        """Take note of a place that *who* had before its process died."""
        firing = self._firings.get(seat.firing)
        if firing is None:
            firing = self._open(seat.firing, seat.furnace)
            firing.is_restored = True
        firing.members[who.id] = _Member(seat)
        self._had_seat.add(who.id)
        firing.leader = next(m for m in seat.members if m in firing.members)
        for name in (seat.furnace, *seat.belongings):
            self._reservations.share(name, firing.members)
        self._reservations.share(seat.slot, [who.id])

    def _open(self, name: str, furnace: str) -> _Firing:
        firing = _Firing(name, furnace)
        self._firings[name] = firing
        return firing

    def _decide_later(self) -> None:
        """Decide, not at once: whoever gives back may be in the midst of leaving."""
        if self._candidates:
            self._loop.call_soon(self._decide_soon)

    def _decide_soon(self) -> None:
        if not self._candidates or self._timer is not None:
            return
        if len(self._reservations.present) <= 1:
            self._decide()
            return
        # When all have asked who ask at this moment.
        self._timer = self._loop.call_later(2e-3, self._decide_now)

    def _decide_now(self) -> None:
        self._timer = None
        self._decide()

    def _decide(self) -> None:
        """Give places to those who need not wait any longer."""
        now = self._loop.time()
        next_look = None
        waiting = [c for c in self._candidates if not c.seated.done()]
        waiting.sort(key=lambda candidate: candidate.who)
        while waiting:
            first = waiting[0]
            group = [c for c in waiting if _go_together(first, c)]
            waiting = [c for c in waiting if c not in group]
            furnace = self._free_furnace(first)
            if furnace is None:
                continue
            slots = first.slots[furnace]
            until = min(c.since_s + c.wait_s for c in group)
            is_full = len(group) >= len(slots)
            if is_full or now >= until - 1e-6 or not self._others_may_come():
                seated = group[: len(slots)]
                self._seat(furnace, slots, seated)
                waiting = [c for c in group if c not in seated] + waiting
            else:
                next_look = until if next_look is None else min(next_look, until)
        if next_look is not None and self._timer is None:
            self._timer = self._loop.call_at(next_look, self._decide_now)

    def _others_may_come(self) -> bool:
        """Return whether a job runs that has not had a place and does not wait."""
        waiting = {candidate.who.id for candidate in self._candidates}
        return any(
            who.id not in waiting and who.id not in self._had_seat
            for who in self._reservations.present
        )

    def _free_furnace(self, candidate: _Candidate) -> str | None:
        for furnace, slots in candidate.slots.items():
            belongings = candidate.belongings.get(furnace, ())
            if self._reservations.can_take([furnace, *belongings, *slots]):
                return furnace
        return None

    def _seat(
        self, furnace: str, slots: Sequence[str], seated: Sequence[_Candidate]
    ) -> None:
        ids = tuple(candidate.who.id for candidate in seated)
        number = next(self._numbers)
        name = f"{furnace} {self._loop.stamp():.3f} {number}"
        profile = replace(
            seated[0].profile, cool_to_degc=min(c.profile.cool_to_degc for c in seated)
        )
        firing = self._open(name, furnace)
        firing.leader = ids[0]
        belongings = tuple(seated[0].belongings.get(furnace, ()))
        for shared in (furnace, *belongings):
            self._reservations.share(shared, ids)
        for candidate, slot in zip(seated, slots, strict=False):
            seat = Seat(name, furnace, slot, profile, ids, belongings)
            firing.members[candidate.who.id] = _Member(seat, candidate.container)
            self._reservations.share(slot, [candidate.who.id])
            self._had_seat.add(candidate.who.id)
            candidate.seated.set_result(seat)

    # -- firing --------------------------------------------------------------------

    async def load(self, who: Claimant, seat: Seat) -> Role:
        """Wait until all members have loaded; return the role of *who*.

        Raises:
            InterlockError: If its own container is not inside, or another member did
                not load in time.
        """
        firing, member = self._mine(who, seat)
        self._check_inside([member])
        member.is_loaded = True
        firing.wake_all()

        def is_ready() -> bool:
            loaded = all(m.is_loaded for m in firing.members.values())
            return firing.state != "loading" or loaded

        await self._wait(who, firing, member, is_ready, "the others to load")
        firing.state = "loaded" if firing.state == "loading" else firing.state
        return "lead" if firing.leader == who.id else "follow"

    def note_begun(self, who: Claimant, seat: Seat) -> None:
        """Take note that *who* starts the program, or has joined it.

        Raises:
            InterlockError: If a container that is to be fired is not inside.
        """
        firing, _ = self._mine(who, seat)
        self._check_inside(firing.members.values())
        firing.state = "firing"
        self._reservations.ledger.closed.add(firing.furnace)

    def _check_inside(self, members: Iterable[_Member]) -> None:
        """Refuse to fire, or to call fired, what is not in the furnace.

        Raises:
            InterlockError: With every container that is not.
        """
        ledger = self._reservations.ledger
        astray = []
        for member in members:
            slot, container = member.seat.slot, member.container
            standing = ledger.standing_at(slot)
            if standing is None or container not in (None, standing):
                what = container or "the container of this firing"
                place = ledger.places.get(what)
                known = f"; it should be at {place}" if place != slot and place else ""
                astray.append(f"{what} is not in {slot}{known}")
        if astray:
            raise InterlockError(
                f"{'; '.join(astray)}: look, and say where it is; nothing is said of "
                "what was not fired"
            )

    async def follow(self, who: Claimant, seat: Seat) -> FiringRecord | Turn:
        """Wait for the record, or for one's turn if *who* leads from now on.

        Raises:
            PPUError: What went wrong with the firing.
        """
        firing, member = self._mine(who, seat)
        member.is_loaded = True
        await self._wait(
            who,
            firing,
            member,
            lambda: firing.state in ("done", "failed") or firing.leader == who.id,
            f"{firing.furnace} to fire and cool",
        )
        if firing.error is not None:
            error = firing.error
            raise type(error)(
                str(error), advice=error.advice, field=error.field
            ) from error
        if firing.record is not None:
            return firing.record
        has_begun = firing.state == "firing" or firing.is_restored
        return "join" if has_begun else "begin"

    async def _wait(
        self,
        who: Claimant,
        firing: _Firing,
        member: _Member,
        is_over: Callable[[], bool],
        what: str,
    ) -> None:
        if is_over():
            return
        if firing.state == "loading":  # later on, its own container is fired
            self._reservations.on_wait(who, f"waits for {what}")
        try:
            async with asyncio.timeout(self.patience_s):
                while not is_over():
                    member.wake.clear()
                    await member.wake.wait()
        except TimeoutError:
            raise InterlockError(
                f"{firing.furnace}: waited {self.patience_s:g} s for {what}"
            ) from None
        self._reservations.on_wait(who, "")

    def note_fired(self, who: Claimant, seat: Seat, record: FiringRecord) -> None:
        """Take note that the firing that *who* leads is complete.

        Raises:
            InterlockError: If a container is not inside any more.
        """
        firing, _ = self._mine(who, seat)
        self._reservations.ledger.closed.discard(firing.furnace)
        self._check_inside(firing.members.values())
        firing.record = record
        firing.state = "done"
        firing.wake_all()

    def vacate(self, who: Claimant, seat: Seat) -> None:
        """Give the place of *who* back."""
        firing = self._firings.get(seat.firing)
        if firing is not None and who.id in firing.members:
            self._leave(firing, who, None)
        self._decide_soon()

    def _leave(
        self, firing: _Firing, who: Claimant, error: BaseException | None
    ) -> None:
        member = firing.members.pop(who.id)
        seat = member.seat
        if firing.leader == who.id:
            self._reservations.ledger.closed.discard(firing.furnace)
        self._reservations.give_back(who, [seat.furnace, *seat.belongings, seat.slot])
        if not firing.members:
            del self._firings[firing.name]
            return
        if firing.leader == who.id and firing.state in ("loading", "loaded", "firing"):
            if firing.state == "firing" and not isinstance(error, AbortedError):
                told = "its leader left" if error is None else str(error)
                failure = error if isinstance(error, PPUError) else None
                firing.error = failure or InterlockError(f"{firing.furnace}: {told}")
                firing.state = "failed"
            else:
                order = member.seat.members
                firing.leader = next(m for m in order if m in firing.members)
        firing.wake_all()

    def _mine(self, who: Claimant, seat: Seat) -> tuple[_Firing, _Member]:
        firing = self._firings.get(seat.firing)
        if firing is None or who.id not in firing.members:
            raise InternalError(f"{who} has no place in firing {seat.firing}")
        return firing, firing.members[who.id]


def _go_together(one: _Candidate, other: _Candidate) -> bool:
    """Return whether two may share a firing: the same heat, gas and furnaces."""
    same = replace(other.profile, cool_to_degc=one.profile.cool_to_degc) == one.profile
    return same and list(one.slots) == list(other.slots)
