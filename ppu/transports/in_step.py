"""Seeing to it that answers fit the requests again, where nothing in them tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from ppu.core.errors import LinkBroken
from ppu.core.labtime import running_loop
from ppu.transports.link import ByteLink

__all__ = ["InStep"]

_N_STRANGE: Final = 4
"""How many answers of others are skipped before giving up."""
_LOST_AFTER: Final = 10
"""Times the slowest known reply: what is later than that was lost."""


class InStep:
    """Gets a client in step with an instrument that answers in order.

    A *probe* is a question whose answer nothing else has. When it is answered, so is
    all that was asked before it. But the answer may be a late one to a probe that was
    asked before the last other request; so if *n* of those may still be answered,
    *n* + 1 answers are waited for.

    Args:
        link: The path to the instrument.
    """

    def __init__(self, link: ByteLink) -> None:
        self._link = link
        self._earlier: deque[float] = deque()
        """When those unanswered probes were sent that prove nothing any more."""
        self._recent: list[float] = []
        """When probes were sent since the last other request."""

    def note_answer(self) -> None:
        """Take note that another request was answered by its own answer.

        So no earlier probe can be answered any more.
        """
        self._earlier.clear()

    async def regain(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """Ask the probe until everything asked before is answered or lost.

        Args:
            ask: Asks the probe and returns whether the answer is its own.

        Raises:
            LinkBroken: If it never is.
            TransportError: What *ask* raises.
            MalformedReply: What *ask* raises.
        """
        loop = running_loop()
        slowest = loop.wire_seconds(self._link.slowest_reply_s)
        while self._earlier and self._earlier[0] < loop.time() - _LOST_AFTER * slowest:
            self._earlier.popleft()
        n_strange = 0
        while n_strange < _N_STRANGE:
            n_before = self._link.n_writes
            try:
                is_own = await ask()
            finally:
                n_sent = self._link.n_writes - n_before
                self._recent += [loop.time()] * n_sent
            if not is_own:
                n_strange += 1
            elif self._earlier:
                self._earlier.popleft()
            else:
                # Whoever is in step asks something else next.
                self._earlier.extend(self._recent[1:])
                self._recent.clear()
                self._link.was_late = False
                return
        raise LinkBroken(
            f"{self._link.device}: the answers do not fit the requests after a time-out"
        )
