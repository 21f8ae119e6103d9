"""What an asyncio transport receives, handed to a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Receiver"]


class Receiver(asyncio.Protocol):
    """Hands what an asyncio transport received to a link.

    Args:
        received: Takes the bytes.
        lost: Takes the transport when it is gone, and the error if there was one.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        lost: Callable[[asyncio.BaseTransport, Exception | None], None],
    ) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand *data* on."""
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the link."""
        if self._transport is not None:
            self._lost(self._transport, exc)
