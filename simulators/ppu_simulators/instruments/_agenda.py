"""What a simulated mechanism does by itself while time passes."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from ppu.core.labtime import LabTimeLoop, running_loop

__all__ = ["Agenda"]

Act = Callable[[float], None]


class Agenda:
    """Acts at lab times, done when due even if nobody looks.

    While it is started the running loop wakes for each act; without a loop acts are
    done when somebody advances it. Either way an act is told the time it was due.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Act]] = []
        self._n_added = 0
        self._is_advancing = False
        self._loop: LabTimeLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Wake by the running loop from now on."""
        self._loop = running_loop()
        self._set_timer()

    def stop(self) -> None:
        """Do not wake any more."""
        self._loop = None
        self._set_timer()

    def at(self, time: float, act: Act) -> None:
        """Do *act* at lab time *time*; those of the same time in the order given."""
        heapq.heappush(self._due, (time, self._n_added, act))
        self._n_added += 1
        self._set_timer()

    def clear(self) -> None:
        """Forget everything that is still to be done."""
        self._due.clear()
        self._set_timer()

    def advance(self, time: float) -> None:
        """Do everything that is due by *time*."""
        if self._is_advancing:
            return  # an act looks at the world, and the world at everything in it
        self._is_advancing = True
        try:
            while self._due and self._due[0][0] <= time:
                due, _, act = heapq.heappop(self._due)
                act(due)
        finally:
            self._is_advancing = False
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None and self._due and not self._is_advancing:
            self._timer = self._loop.call_at(self._due[0][0], self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._loop is not None:
            self.advance(self._loop.time())
