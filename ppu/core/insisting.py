"""Trying again for a while, and only then telling a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ppu.core.errors import InternalError, PPUError
from ppu.core.labtime import running_loop

__all__ = ["Attempts", "insist"]

T = TypeVar("T")


class Attempts:
    """Attempts at what must be done, until one leaves the loop or it is given up.

    Times are real time: a wire does not come back sooner because a twin is fast.

    Args:
        for_s: How long attempts are begun, counted from here [s].
        pause_s: How long to wait between two [s].
        at_least: How many there are in any case.

    Example:
        ::

            async for _ in Attempts(for_s=60.0, pause_s=1.0):
                if await is_closed():
                    return
            raise InstrumentError("it is open after a minute of trying")
    """

    def __init__(
        self, *, for_s: float = 0.0, pause_s: float = 0.0, at_least: int = 1
    ) -> None:
        self._pause_s = pause_s
        self._n_sure = at_least
        self._n_begun = 0
        self._until = 0.0
        self.go_on_for(for_s)

    def go_on_for(self, seconds: float) -> None:
        """Do not give up within the next *seconds*."""
        loop = running_loop()
        self._until = max(self._until, loop.time() + loop.wire_seconds(seconds))

    def __aiter__(self) -> Attempts:
        """Return the attempts that are left."""
        return self

    async def __anext__(self) -> None:
        """Wait until the next attempt is due."""
        loop = running_loop()
        if self._n_begun >= self._n_sure and loop.time() >= self._until:
            raise StopAsyncIteration
        if self._n_begun and self._pause_s:
            await asyncio.sleep(loop.wire_seconds(self._pause_s))
        self._n_begun += 1


async def insist(
    act: Callable[[], Awaitable[T]],
    *,
    on: tuple[type[Exception], ...] = (PPUError, TimeoutError),
    for_s: float = 0.0,
    pause_s: float = 0.0,
    at_least: int = 1,
) -> T:
    """Return what *act* returns, trying again while it fails.

    Only for what is harmless to repeat.

    Args:
        act: What must be done.
        on: Failures that are worth another attempt.
        for_s: How long attempts are begun, in real time [s].
        pause_s: How long to wait between two, in real time [s].
        at_least: How many attempts there are in any case.

    Raises:
        Exception: The last of *on*, if none succeeded.
    """
    failure: Exception = InternalError("nothing was attempted")
    async for _ in Attempts(for_s=for_s, pause_s=pause_s, at_least=at_least):
        try:
            return await act()
        except on as exc:
            failure = exc
    raise failure
