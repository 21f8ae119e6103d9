"""Reservations: which job has which devices and locations to itself.

A step gets all that it needs at once, or waits. Of what it may need while it has
something there are two ranks: hands (who carries, grippers, doors) and all the rest.
Whoever has hands waits for nothing, and whoever has anything else waits for hands
only; so whoever waits is waited for by nobody with hands, and no circle can close.
What a job has left at work it keeps beyond its step, whatever it waits for; whoever
would close a circle with that is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ppu.core.capabilities import CAPABILITIES, Door, Gripper, Transporter
from ppu.core.custody import CustodyLedger
from ppu.core.errors import FailureClass, InterlockError, InternalError
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.core.remedies import Advice, Remedy, advise

__all__ = [
    "GATHER_S",
    "PERSON",
    "UNSAFE",
    "Claimant",
    "Reservations",
    "wait_patiently",
]

T = TypeVar("T")

_HANDS = (Transporter, Gripper, Door)
GATHER_S: Final = 1e-3
"""Lab time after which all who ask at the same moment have asked."""


@dataclass(frozen=True, order=True)
class Claimant:
    """Who asks: sorted as they are served, by priority and then age.

    Attributes:
        rank: The smaller goes first.
        id: Number of the job, negative for a plan that is no job.
    """

    rank: tuple[int, int]
    id: int

    @classmethod
    def of(cls, job_id: int, priority: int = 0, age: int = 0) -> Claimant:
        """Return the claimant for a job."""
        return cls((-priority, age), job_id)

    def __str__(self) -> str:
        return f"job {self.id}" if self.id > 0 else "the running plan"


PERSON: Final = Claimant.of(-1)
"""A person who puts a container somewhere, while that is kept."""
UNSAFE: Final = Claimant.of(-2)
"""Has what could not be brought to its abort state when its job ended."""
_NO_JOB: Final = {
    PERSON.id: "a person is at it",
    UNSAFE.id: "it is not in its abort state, and that is tried again and again",
}


@dataclass
class _Waiter:
    who: Claimant
    names: frozenset[str]
    containers: frozenset[str]
    what: str
    granted: asyncio.Future[bool] = field(repr=False)
    path: str = ""
    has_something: bool = False


class Reservations:
    """Who has what in one lab.

    Args:
        loop: The lab's loop.
        file: The lab file.
        ledger: Where containers are believed to be.
        on_wait: Told who waits for what, in words, and what can be done about it; with
            nothing when it ends.
    """

    def __init__(self, loop: LabTimeLoop, file: LabFile, ledger: CustodyLedger) -> None:
        self.ledger = ledger
        self.on_wait: Callable[..., None] = _tell_nobody
        self._loop = loop
        self.patience_s: float | None = file.scheduling.patience_s
        """How long anybody waits before it fails [s]; None is for ever."""
        self._locations = frozenset(file.locations)
        self._hands = frozenset(
            name
            for name, entry in file.devices.items()
            if any(
                hand in CAPABILITIES[capability].__mro__
                for capability in entry.provides
                for hand in _HANDS
            )
        )
        self._owners: dict[str, frozenset[int]] = {}
        self._kept: dict[int, frozenset[str]] = {}
        """What is left at work when the step is over that it was taken for."""
        self._present: set[Claimant] = set()
        self._waiters: list[_Waiter] = []
        self._resuming: dict[int, set[str]] = {}
        """Steps of each job that had begun before the process died."""
        self._is_due = False
        self.on_give_back: Callable[[], None] = _tell_none
        """Told that something is free again, for those who wait elsewhere."""
        self._tags: dict[str, str] = {}
        """Why nobody gets a device that a person has tagged out of service."""

    # -- out of service ------------------------------------------------------------

    def tag_out(self, name: str, why: str) -> None:
        """Let nobody take *name* any more; whoever has it keeps it."""
        self._tags[name] = why

    def is_tagged_out(self, name: str) -> bool:
        """Return whether nobody gets *name* because a person said so."""
        return name in self._tags

    def told_of_tags(self, names: Iterable[str]) -> str:
        """Return in words which of *names* are out of service, empty if none is."""
        told = [f"{n} is {self._tags[n]}" for n in names if n in self._tags]
        return f" ({'; '.join(told)})" if told else ""

    def return_to_service(self, name: str) -> None:
        """Let *name* be taken again."""
        self._tags.pop(name, None)
        self.look_again()

    # -- who is there --------------------------------------------------------------

    @property
    def present(self) -> Collection[Claimant]:
        """Those whose plans run."""
        return self._present

    def enter(self, who: Claimant) -> None:
        """Take note that a plan begins."""
        self._present.add(who)

    def note_under_way(self, who: Claimant, paths: Iterable[str]) -> None:
        """Take note that steps of *who* were under way when its process died.

        Until they have back what they had, nobody takes anything for a step that was
        not: what shows how far an arm has come is gone as soon as it is used again.

        Args:
            who: The claimant.
            paths: Its steps, the outer ones, too.
        """
        if begun := set(paths):
            self._resuming[who.id] = begun

    def _resumed(self, who: Claimant, path: str | None = None) -> None:
        """Take note that a step has back what it had, or all that may ever have."""
        paths = self._resuming.get(who.id)
        if paths is None:
            return
        if path in paths:
            paths.discard(path)
        else:
            paths.clear()
        if not paths:
            del self._resuming[who.id]
            self.look_again()

    def _is_resumed(self, waiter: _Waiter) -> bool:
        """Whether a waiter may take something new, or again what it had."""
        return not self._resuming or waiter.path in self._resuming.get(
            waiter.who.id, ()
        )

    def _is_stuck(self) -> bool:
        """Whether those who go first wait for what those have who come later.

        Two steps that were under way cannot have had the same; but should the store
        say so, the lab must not stand still for ever.
        """
        waiting = {w.who.id: w for w in self._waiters if not w.granted.done()}
        for job in self._resuming:
            waiter = waiting.get(job)
            if waiter is None:
                return False  # it is on its way there
            owners = {o for n in waiter.names for o in self._owners.get(n, ())}
            if not owners or not owners <= waiting.keys():
                return False
        return bool(self._resuming)

    def leave(self, who: Claimant) -> None:
        """Give back all that *who* has: its plan has ended."""
        self._present.discard(who)
        self._resumed(who)
        self.withdraw(who)
        self._kept.pop(who.id, None)
        self.on_wait(who, "")
        self.give_back(who, [n for n, o in self._owners.items() if who.id in o])

    # -- taking --------------------------------------------------------------------

    async def take(
        self,
        who: Claimant,
        names: Iterable[str],
        containers: Iterable[str] = (),
        what: str = "a step",
        path: str = "",
    ) -> frozenset[str] | None:
        """Wait until *who* has all *names*; return those that it did not have before.

        Args:
            who: The claimant.
            names: Devices and locations.
            containers: Containers that may stand at these locations: its own.
            what: What it is for, in words.
            path: Place of the step in its plan.

        Returns:
            What is to be given back, None if the claimant withdrew.

        Raises:
            InternalError: If it may not ask for that while it has what it has.
            InterlockError: If it waited too long, or would wait for whoever waits for
                what it has left at work.
        """
        wanted = frozenset(names)
        new = frozenset(n for n in wanted if not self._has(who, n))
        if not new or path not in self._resuming.get(who.id, ()):
            self._resumed(who, path)  # or its plan has come past all that was
        if not new:
            return new
        self._check_ranks(who, new, what)
        had = [n for n, o in self._owners.items() if who.id in o]
        waiter = _Waiter(
            who,
            new,
            frozenset(containers),
            what,
            self._loop.create_future(),
            path,
            bool(had),
        )
        self._waiters.append(waiter)
        try:
            self._check_circle(waiter)
            if len(self._present) <= 1:
                self._grant()
            else:
                self._grant_soon()
            is_granted = await self._until_granted(waiter)
            self.on_wait(who, "")
            return new if is_granted else None
        except BaseException:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give_back(who, new)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _until_granted(self, waiter: _Waiter) -> bool:
        """Return whether *waiter* got all, or else withdrew.

        What is out of service is waited for as long as that lasts.

        Raises:
            InterlockError: If it waited too long.
        """
        try:
            return await wait_patiently(
                waiter.granted,
                self.patience_s,
                lambda: not waiter.names.isdisjoint(self._tags),
            )
        except TimeoutError:
            raise InterlockError(
                f"{waiter.what} waited {self.patience_s:g} s for {self._why(waiter)}",
                field=min(waiter.names),
                failure_class=FailureClass.NO_RESOURCE,
            ) from None

    def keep(self, who: Claimant, names: frozenset[str]) -> None:
        """Let *who* have *names* until it gives them back, whatever its steps take."""
        self._kept[who.id] = names

    def kept_by(self, who: Claimant) -> frozenset[str]:
        """Return what *who* has left at work."""
        return self._kept.get(who.id, frozenset())

    def can_take(self, names: Iterable[str]) -> bool:
        """Return whether nobody has *names*, and nothing stands there."""
        return all(self._is_free(name, frozenset()) for name in names)

    def share(self, name: str, owners: Iterable[int]) -> None:
        """Let several jobs have *name* together, whatever stands there."""
        self._owners[name] = frozenset(owners)

    def withdraw(self, who: Claimant) -> None:
        """Let *who* wait no longer."""
        for waiter in self._waiters:
            if waiter.who == who and not waiter.granted.done():
                waiter.granted.set_result(False)

    def give_back(self, who: Claimant, names: Iterable[str]) -> None:
        """Let others have *names*."""
        for name in list(names):
            left = self._owners.get(name, frozenset()) - {who.id}
            if left:
                self._owners[name] = left
            else:
                self._owners.pop(name, None)
        if self._waiters:
            self._grant_soon()
        self.on_give_back()

    def owners_of(self, name: str) -> frozenset[int]:
        """Return who has *name*."""
        return self._owners.get(name, frozenset())

    def told_of(self, name: str) -> str:
        """Return in words who has *name*, which somebody has."""
        return _had_by(self._owners[name])

    def names_of(self, who: Claimant) -> frozenset[str]:
        """Return what *who* has."""
        return frozenset(n for n, owners in self._owners.items() if who.id in owners)

    def look_again(self) -> None:
        """Look again who may go on: a container was moved."""
        if self._waiters:
            self._grant_soon()

    # -- granting ------------------------------------------------------------------

    def _has(self, who: Claimant, name: str) -> bool:
        return who.id in self._owners.get(name, frozenset())

    def _check_ranks(self, who: Claimant, new: frozenset[str], what: str) -> None:
        mine = self.names_of(who) - self.kept_by(who)
        if hands := mine & self._hands:
            raise InternalError(
                f"{what} needs {_listed(new)} while it has {_listed(hands)}: a step "
                "with hands must name all that it needs at once"
            )
        if mine and (rest := new - self._hands):
            raise InternalError(
                f"{what} needs {_listed(rest)} while it has {_listed(mine)}: the outer "
                "step must name it, too"
            )

    def _check_circle(self, waiter: _Waiter) -> None:
        """Refuse to wait for a job that waits for what this one has left at work.

        Raises:
            InterlockError: If so; both would wait for ever.
        """
        if not self.kept_by(waiter.who):
            return
        waiting = {w.who.id: w for w in self._waiters if not w.granted.done()}
        seen, todo = set[int](), [waiter]
        while todo:
            names = todo.pop().names
            owners = {o for name in names for o in self._owners.get(name, ())}
            if waiter.who.id in owners:
                raise InterlockError(
                    f"{waiter.what} waits for {self._why(waiter)}, and that for what "
                    f"this job has left at work ({_listed(self.kept_by(waiter.who))}); "
                    "bring it to rest first"
                )
            todo += [waiting[o] for o in owners - seen if o in waiting]
            seen |= owners

    def _is_free(self, name: str, containers: frozenset[str]) -> bool:
        if name in self._owners or name in self._tags:
            return False
        return name not in self._locations or self._standing(name) in (
            None,
            *containers,
        )

    def _standing(self, location: str) -> str | None:
        ledger = self.ledger
        for container, place in ledger.places.items():
            if location in (place, ledger.under_way.get(container)):
                return container
        return None

    def _grant_soon(self) -> None:
        """Decide when all have asked who ask now, so that no race decides."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(GATHER_S, self._grant)

    def _grant(self) -> None:
        self._is_due = False
        claimed: set[str] = set()
        for waiter in sorted(self._waiters, key=lambda w: w.who):
            if waiter.granted.done():
                continue
            if not self._is_resumed(waiter):
                self._tell_wait(waiter)
                continue
            # Whoever has something is never kept by whoever has nothing: those might
            # wait for it. All others wait in line, so that nobody waits for ever.
            in_line = waiter.has_something or not waiter.names & claimed
            if in_line and all(
                self._is_free(n, waiter.containers) for n in waiter.names
            ):
                for name in waiter.names:
                    self._owners[name] = frozenset({waiter.who.id})
                waiter.granted.set_result(True)
                self._resumed(waiter.who, waiter.path)
                continue
            if not waiter.has_something:
                claimed |= waiter.names
            self._tell_wait(waiter)
        if self._is_stuck():
            self._resuming.clear()
            self._grant_soon()

    def _tell_wait(self, waiter: _Waiter) -> None:
        """Tell for what a waiter waits, and what a person can do about it."""
        in_the_way = [
            self._standing(name)
            for name in sorted(waiter.names)
            if name not in self._owners and not self._is_free(name, waiter.containers)
        ]
        advice = [
            advise(Remedy.MOVE_CONTAINER, container=container)
            for container in in_the_way
            if container is not None
        ]
        text = f"{waiter.what} waits for {self._why(waiter)}"
        self.on_wait(waiter.who, text, *advice)

    def _why(self, waiter: _Waiter) -> str:
        """Return in words what a waiter waits for, and who has it."""
        if not self._is_resumed(waiter):
            jobs = ", ".join(map(str, sorted(self._resuming)))
            return f"what was under way before the restart (job {jobs} goes first)"
        told = []
        for name in sorted(waiter.names):
            if name in self._tags:
                told.append(f"{name} ({self._tags[name]})")
            elif owners := self._owners.get(name):
                told.append(f"{name} ({_had_by(owners)})")
            elif not self._is_free(name, waiter.containers):
                told.append(f"{name} ({self._standing(name)} stands there)")
        return ", ".join(told) or f"{_listed(waiter.names)} (others go first)"


async def wait_patiently(
    granted: asyncio.Future[T], patience_s: float | None, lasts: Callable[[], bool]
) -> T:
    """Return what is *granted*, also at the last moment.

    Args:
        granted: What is waited for; it outlives whoever waits.
        patience_s: How long to wait [s], None for ever.
        lasts: Whether that begins anew when it is over: something is out of service.

    Raises:
        TimeoutError: If it was not in time.
    """
    while True:
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(granted)
        except TimeoutError:
            if not (granted.done() or lasts()):
                raise


def _had_by(owners: Iterable[int]) -> str:
    """Return in words who has something."""
    jobs = sorted(owners)
    if jobs[0] in _NO_JOB:
        return _NO_JOB[jobs[0]]
    return f"job {', '.join(map(str, jobs))} has it"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _tell_nobody(who: Claimant, text: str, *advice: Advice) -> None:
    """Tell nobody."""
    del who, text, advice


def _tell_none() -> None:
    """Tell nobody."""
