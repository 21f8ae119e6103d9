"""Empty containers: jobs wait in line for those that people have cleaned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ppu.core.errors import AbortedError, LimitError, NoResourceError
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
    why: LimitError | None = None


class Empties:
    """Gives empty containers to the jobs that wait for them, as they are ranked.

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

    async def take(self, who: Claimant, lab: Lab, kind: str, what: str) -> str:
        """Wait until there is an empty container, claim it and return its name.

        Args:
            who: The claimant.
            lab: The lab as its plan sees it.
            kind: Kind of container.
            what: What it is for, in words.

        Raises:
            NoResourceError: If it waited too long.
            AbortedError: If it gave up.
        """
        waiter = _Waiter(who, lab, kind, what, self._loop.create_future())
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
                field=kind,
            ) from None
        finally:
            self._line.remove(waiter)
            self._on_wait(who, "")

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
                container = waiter.lab.free_container(waiter.kind)
            except LimitError as exc:
                waiter.why = exc
                self._on_wait(waiter.who, f"{waiter.what} waits: {exc}", *exc.advice)
            else:
                waiter.lab.claim_container(container)
                waiter.found.set_result(container)
