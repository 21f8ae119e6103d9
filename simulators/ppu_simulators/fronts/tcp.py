"""A TCP server for one instrument."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ppu.core.errors import InternalError
from ppu.core.labtime import Debt, LabTimeLoop, running_loop
from ppu.core.memory import MEMORY
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer, Conversation, Moments
from ppu_simulators.fronts.listener import Listener, open_listener, reset
from ppu_simulators.fronts.wire_faults import (
    FLOOD_BYTES_PER_S,
    Flood,
    PortWatch,
    SpoiledLine,
    framing_of,
    rule_out,
)

__all__ = ["TcpFront"]


class TcpFront:
    """Serves one instrument on a loopback port, or in memory.

    Args:
        conversation: The instrument's wire language; a function that makes one if
            every client shall have its own, because it remembers half a request.
        port: Port to listen on; 0 for a free one.
        closes_after_answer: Whether one connection serves one exchange.
        attend: Told when the one client that is served has come, and has gone; others
            wait for their turn. By default all are served at once.
        faults: What may go wrong; nothing by default.

    Raises:
        TwinSettingsError: If a fault is scripted that cannot happen on this wire.
    """

    def __init__(
        self,
        conversation: Conversation | Callable[[], Conversation],
        *,
        port: int = 0,
        closes_after_answer: bool = False,
        attend: Callable[[bool, float], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.conversation = conversation
        self.attend = attend
        self.served: _Connection | None = None
        self.waiting: dict[_Connection, bytes] = {}
        """What clients have sent whose turn has not come, in order."""
        self.closes_after_answer = closes_after_answer
        self.faults = faults
        example = conversation() if callable(conversation) else conversation
        self.framing = framing_of(example)
        self.connections: set[asyncio.Transport] = set()
        self.pending: set[asyncio.TimerHandle] = set()
        self.host = ""
        self.port = 0
        self._asked_port = port
        self._listener: Listener | None = None
        self._watch: PortWatch | None = None
        if faults is not None:
            rule_out(faults, "TCP port", self.framing)
            self._watch = PortWatch(faults, self._set_port)

    async def start(self) -> tuple[str, int]:
        """Listen, and return host and port."""
        self._listener = await open_listener(self._asked_port, self._accept)
        self.host, self.port = self._listener.host, self._listener.port
        if self._watch is not None:
            self._watch.start(running_loop())
        return self.host, self.port

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._watch is not None:
            self._watch.stop()
        for timer in self.pending:
            timer.cancel()
        self.pending.clear()
        if self._listener is not None:
            await self._listener.stop()
        for transport in list(self.connections):
            transport.abort()

    def volunteer(self, data: bytes) -> None:
        """Say something to every client that nothing of what it said is owed for."""
        for transport in self.connections:
            transport.write(data)

    def _accept(self) -> asyncio.BaseProtocol:
        own = self.conversation() if callable(self.conversation) else None
        return _Connection(self, running_loop(), own)

    def admits(self, client: _Connection, data: bytes, now: float) -> bool:
        """Return whether *client* has its turn; else keep what it sent."""
        if self.attend is None or self.served is client:
            return True
        if self.served is not None:
            self.waiting[client] = self.waiting.get(client, b"") + data
            return False
        self.served = client
        self.attend(True, now)
        return True

    def forget(self, client: _Connection, now: float) -> None:
        """Let the next client have its turn if *client* was served."""
        self.waiting.pop(client, None)
        if self.attend is None or self.served is not client:
            return
        self.served = None
        self.attend(False, now)
        if self.waiting:
            following = next(iter(self.waiting))
            following.hear(self.waiting.pop(following))

    def shared_conversation(self) -> Conversation:
        """Return the one conversation that all clients have.

        Raises:
            InternalError: If every client has its own.
        """
        if callable(self.conversation):
            raise InternalError("each client of this port has its own conversation")
        return self.conversation

    def _set_port(self, is_plugged_in: bool, can_open: bool) -> None:
        if self._listener is not None:
            self._listener.set_open(can_open)
        if not is_plugged_in:
            for transport in list(self.connections):
                transport.abort()


class _Connection(asyncio.Protocol):
    """One client of a front."""

    def __init__(
        self, front: TcpFront, loop: LabTimeLoop, own: Conversation | None
    ) -> None:
        self._front = front
        self._own = own
        self._loop = loop
        self._debt: Debt | None = None
        self._transport: asyncio.Transport | None = None
        self._n_owed = 0
        self._moments = Moments()
        self._has_ended = False
        self._flood: Flood | None = None
        self._spoiled: SpoiledLine | None = None
        if front.faults is not None:
            self._spoiled = SpoiledLine(front.faults, front.framing, heals=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is a stream
        self._transport = transport
        self._front.connections.add(transport)
        if self._loop.is_jumping and self._front.host != MEMORY:
            self._debt = self._loop.debt(f"{self._front.host}:{self._front.port}")

    def data_received(self, data: bytes) -> None:
        if self._debt is not None:
            self._debt.pay(len(data))
        self.hear(data)

    def hear(self, data: bytes) -> None:
        """Answer what the client sent, when it has its turn."""
        now = self._loop.time()
        if not self._front.admits(self, data, now):
            return
        conversation = self._own or self._front.shared_conversation()
        if self._spoiled is None:
            answers = conversation.receive(data, now)
        else:
            answers = self._spoiled.hear(conversation, data, now)
        for answer in answers:
            if answer.delay_s <= 0:
                self._say(answer)
            else:
                self._later(answer.delay_s, self._say_owed, answer)

    def eof_received(self) -> bool:
        """Keep the other direction open for answers under way (`nc -N`)."""
        self._has_ended = True
        return self._n_owed > 0 or self in self._front.waiting

    def _later(self, wait: float, act: Callable[[Any], None], argument: Any) -> None:
        """Do something that is owed to the client after a while."""
        self._n_owed += 1
        due = self._moments.keep_order(self._loop.time() + wait)
        self._front.pending.add(self._loop.call_at(due, act, argument))

    def _one_less_owed(self) -> None:
        self._n_owed -= 1
        if self._has_ended and self._n_owed == 0 and self._transport is not None:
            self._transport.close()

    def _say_owed(self, answer: Answer) -> None:
        self._say(answer)
        self._one_less_owed()

    def _say(self, answer: Answer) -> None:
        """Send an answer, or what a fault makes of it."""
        now = self._loop.time()
        self._front.pending = {t for t in self._front.pending if t.when() > now}
        # What the instrument does by then it does, whether or not anybody listens.
        data = answer.at(now)
        if self._spoiled is None or self._spoiled.is_clean:
            self._send(data)
            return
        if self._flood is not None or self._transport is None:
            return  # lost in the rubbish, or nobody is there
        spoken = self._spoiled.say(data, now)
        if spoken.is_broken:
            reset(self._transport)
        elif spoken.flood is not None:
            self._flood = spoken.flood
            self._later(0.0, self._send_flood, self._flood)
        elif spoken.delay_s > 0:
            self._later(spoken.delay_s, self._send_late, spoken.data)
        elif spoken.data:
            self._send(spoken.data)

    def _send_late(self, data: bytes) -> None:
        self._send(data)
        self._one_less_owed()

    def _send_flood(self, flood: Flood) -> None:
        piece = flood.next(self._loop.time(), FLOOD_BYTES_PER_S)
        if piece is None or self._transport is None:
            self._flood = None
        else:
            self._write(piece[0])
            self._later(piece[1], self._send_flood, flood)
        self._one_less_owed()

    def _send(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._write(data)
        if self._front.closes_after_answer:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            # A client that ended its half is another program, or has gone.
            if self._debt is not None and not self._has_ended:
                self._debt.add(len(data))
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is not None:
            self._front.connections.discard(self._transport)
            self._transport = None
            self._front.forget(self, self._loop.time())
