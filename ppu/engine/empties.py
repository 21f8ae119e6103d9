"""Containers: jobs wait in line for empty ones, and for one that another job has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ppu.core.errors import (
    AbortedError,
    InterlockError,
    LimitError,
    NoResourceError,
)
from ppu.core.labtime import LabTimeLoop
from ppu.engine.reservations import GATHER_S, Claimant
from ppu.plans.lab import Lab

__all__ = ["Empties"]


@dataclass
class _Waiter:
    who: Claimant
    lab: Lab
    kind: str
    what: str
    found: asyncio.Future[str] = field(repr=False)
    container: str | None = None
    why: LimitError | InterlockError | None = None

    def choose(self) -> str:
        """Return the container that it gets now.

        Raises:
            LimitError: If none is empty and at home.
            InterlockError: If the one that it asks for is not to be had.
        """
        if self.container is None:
            return self.lab.free_container(self.kind)
        self.lab.check_own(self.container)
        self.lab.location_of(self.container)
        return self.container


class Empties:
    """Gives containers to the jobs that wait for them, as they are ranked.

    Args:
        loop: The lab's loop.
        patience_s: How long a job waits before it fails [s].
        on_wait: Told who waits, for what in words, and what can be done about it;
            without words when it ends.
    """

    def __init__(
        self,
        loop: LabTimeLoop,
        patience_s: float,
        on_wait: Callable[..., None],
    ) -> None:
        self._loop = loop
        self.patience_s: float | None = patience_s
        self._on_wait = on_wait
        self._line: list[_Waiter] = []
        self._is_due = False

    @property
    def waiting(self) -> set[int]:
        """Numbers of the jobs that wait for people, once it is decided who waits."""
        if self._is_due:
            return set()
        return {one.who.id for one in self._line if not one.found.done()}

    @property
    def kinds_waited_for(self) -> set[str]:
        """Kinds of containers of which somebody waits for an empty one."""
        waiting = [one for one in self._line if not one.found.done()]
        return {one.kind for one in waiting if one.container is None}

    async def take(
        self,
        who: Claimant,
        lab: Lab,
        kind: str,
        what: str,
        container: str | None = None,
    ) -> str:
        """Wait until there is a container, claim it and return its name.

        Args:
            who: The claimant.
            lab: The lab as its plan sees it.
            kind: Kind of container.
            what: What it is for, in words.
            container: A certain one, empty or not; by default any that is empty.

        Raises:
            NoResourceError: If it waited too long.
            InterlockError: If those who wait would wait for each other.
            AbortedError: If it gave up.
        """
        future = self._loop.create_future()
        waiter = _Waiter(who, lab, kind, what, future, container)
        self._check_circle(waiter)
        self._line.append(waiter)
        self._line.sort(key=lambda one: one.who)
        if not self._is_due:  # when all have asked who ask now: no race decides
            self._is_due = True
            self._loop.call_later(GATHER_S, self.look_again)
        try:
            async with asyncio.timeout(self.patience_s):
                return await waiter.found
        except TimeoutError:
            if waiter.found.done() and not waiter.found.cancelled():
                return waiter.found.result()  # it came at the last moment
            raise NoResourceError(
                f"{what} waited {self.patience_s:g} s: {waiter.why or 'for its turn'}",
                advice=() if waiter.why is None else waiter.why.advice,
                field=container or kind,
            ) from None
        finally:
            self._line.remove(waiter)
            self._on_wait(who, "")

    def _check_circle(self, waiter: _Waiter) -> None:
        """Refuse to wait for a job that waits, by whatever way, for this one's things.

        Raises:
            InterlockError: If so; it would wait for ever.
        """
        waiting = {
            one.lab.sample_id: one.container
            for one in self._line
            if one.container is not None and not one.found.done()
        }
        container, passed = waiter.container, set[str]()
        while container is not None and container not in passed:
            passed.add(container)
            holder = waiter.lab.holder_of(container)
            container = waiting.get(holder or "")
            if container is not None and waiter.lab.holds(container):
                raise InterlockError(
                    f"{waiter.what}: {waiter.container} belongs to sample {holder}, "
                    f"whose job waits for {container}, which this one has; take the "
                    "containers in the same order in both"
                )

    def give_up(self, who: Claimant, reason: str) -> None:
        """Let *who* wait no longer: its job was cancelled."""
        for waiter in self._line:
            if waiter.who == who and not waiter.found.done():
                waiter.found.set_exception(AbortedError(reason))

    def look_again(self) -> None:
        """Look who gets one: somebody asks, or something was cleaned or carried."""
        self._is_due = False
        for waiter in self._line:
            if waiter.found.done():
                continue
            try:
                container = waiter.choose()
            except (InterlockError, LimitError) as exc:
                waiter.why = exc
                self._on_wait(waiter.who, f"{waiter.what} waits: {exc}", *exc.advice)
            else:
                waiter.lab.claim_container(container)
                waiter.found.set_result(container)
