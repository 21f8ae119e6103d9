"""What a front needs of an instrument: bytes in, timed answers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Answer", "Conversation", "Moments"]

_TOGETHER_S: Final = 1e-6


@dataclass(frozen=True)
class Answer:
    """Bytes that an instrument sends after a while.

    Args:
        data: The bytes, or what makes them at the lab time when they are sent.
        delay_s: How long the instrument waits first, in lab time.
    """

    data: bytes | Callable[[float], bytes]
    delay_s: float = 0.0

    def at(self, time: float) -> bytes:
        """Return the bytes, sent at lab time *time*."""
        return self.data if isinstance(self.data, bytes) else self.data(time)


class Conversation(Protocol):
    """The wire language of one instrument, without any I/O."""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes that arrived at lab time *time*; return what to answer."""


class Moments:
    """Keeps what falls together in the order in which it was asked for.

    A loop runs timers of the same moment in any order, and sums that should be equal
    differ in their last bit.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def keep_order(self, due: float) -> float:
        """Return *due*, or the moment after the last one if they fall together [s]."""
        if 0 <= self._last - due < _TOGETHER_S:
            due = math.nextafter(self._last, math.inf)
        self._last = due
        return due
