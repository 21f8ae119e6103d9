"""A TCP server for one instrument."""

from __future__ import annotations

import asyncio

from ppu.core.labtime import Debt, LabTimeLoop, running_loop
from ppu_simulators.fronts.conversation import Answer, Conversation

__all__ = ["TcpFront"]


class TcpFront:
    """Serves one instrument on a loopback port.

    Args:
        conversation: The instrument's wire language.
        port: Port to listen on; 0 for a free one.
        closes_after_answer: Whether one connection serves one exchange.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        port: int = 0,
        closes_after_answer: bool = False,
    ) -> None:
        self.conversation = conversation
        self._asked_port = port
        self.closes_after_answer = closes_after_answer
        self._server: asyncio.Server | None = None
        self.connections: set[asyncio.Transport] = set()
        self.pending: set[asyncio.TimerHandle] = set()
        self.host = "127.0.0.1"
        self.port = 0

    async def start(self) -> tuple[str, int]:
        """Listen, and return host and port."""
        loop = running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, loop), self.host, self._asked_port
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self.host, self.port

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            for timer in self.pending:
                timer.cancel()
            self.pending.clear()
            for transport in list(self.connections):
                transport.abort()
            await self._server.wait_closed()
            self._server = None


class _Connection(asyncio.Protocol):
    """One client of a front."""

    def __init__(self, front: TcpFront, loop: LabTimeLoop) -> None:
        self._front = front
        self._loop = loop
        self._debt: Debt | None = None
        self._transport: asyncio.Transport | None = None
        self._n_owed = 0
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is a stream
        self._transport = transport
        self._front.connections.add(transport)
        if self._loop.is_jumping:
            self._debt = self._loop.debt(f"{self._front.host}:{self._front.port}")

    def data_received(self, data: bytes) -> None:
        if self._debt is not None:
            self._debt.settle(len(data))
        now = self._loop.time()
        for answer in self._front.conversation.receive(data, now):
            if answer.delay_s <= 0:
                self._send(answer)
                continue
            due = now + answer.delay_s
            self._n_owed += 1
            self._front.pending.add(self._loop.call_at(due, self._send_owed, answer))

    def eof_received(self) -> bool:
        """Keep the other direction open for answers under way (`nc -N`)."""
        self._has_ended = True
        return self._n_owed > 0

    def _send_owed(self, answer: Answer) -> None:
        self._n_owed -= 1
        self._send(answer)
        if self._has_ended and self._n_owed == 0 and self._transport is not None:
            self._transport.close()

    def _send(self, answer: Answer) -> None:
        now = self._loop.time()
        self._front.pending = {t for t in self._front.pending if t.when() > now}
        # What the instrument does by then it does, whether or not anybody listens.
        data = answer.at(now)
        if self._transport is None:
            return
        if self._debt is not None:
            self._debt.add(len(data))
        self._transport.write(data)
        if self._front.closes_after_answer:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is not None:
            self._front.connections.discard(self._transport)
            self._transport = None
