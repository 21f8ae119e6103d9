"""A serial port that behaves like a line with a speed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ppu.core.labtime import LabTimeLoop, running_loop
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer, Conversation, Moments
from ppu_simulators.fronts.serial_port import SerialPort, open_serial_port
from ppu_simulators.fronts.wire_faults import (
    Flood,
    PortWatch,
    SpoiledLine,
    framing_of,
    rule_out,
)

__all__ = ["SerialFront", "SerialLine"]


@dataclass(frozen=True)
class SerialLine:
    """How the instrument's serial port is set."""

    baudrate: int = 9600
    parity: Literal["none", "even", "odd"] = "none"

    @property
    def bits_per_byte(self) -> int:
        """Start, data, parity and stop bits of one character."""
        return 10 + (self.parity != "none")


class SerialFront:
    """Serves one instrument on a pseudo-terminal, or in memory.

    The client's baud rate can be read from the port, so bytes take the time they
    need on a real line, and a wrong rate gets silence. A pty drops the client's
    parity silently; the twin tells it where it is known. What clients open is a path
    that is the same after the line was unplugged and plugged in again.

    Args:
        conversation: The instrument's wire language.
        line: How its port is set.
        client_parity: What the client is known to use.
        faults: What may go wrong; nothing by default.

    Raises:
        TwinSettingsError: If a fault is scripted that cannot happen on this wire.
    """

    def __init__(
        self,
        conversation: Conversation,
        line: SerialLine,
        client_parity: str = "none",
        *,
        faults: Faults | None = None,
    ) -> None:
        self._conversation = conversation
        self.line = line
        self._client_parity = client_parity
        self.path = ""
        self._port: SerialPort | None = None
        self._can_open = False
        self._loop: LabTimeLoop
        self._pending: deque[asyncio.TimerHandle] = deque()
        self._heard_at = 0.0
        self._free_at = 0.0
        self._moments = Moments()
        self._spoiled: SpoiledLine | None = None
        self._watch: PortWatch | None = None
        self._flood: Flood | None = None
        if faults is not None:
            framing = framing_of(conversation)
            rule_out(faults, "serial line", framing)
            self._spoiled = SpoiledLine(faults, framing, heals=True)
            self._watch = PortWatch(faults, self._set_port)

    def start(self) -> str:
        """Open the port and return the path that leads to it."""
        self._loop = running_loop()
        self._port = open_serial_port(self._hear)
        self.path = self._port.path
        self._set_port(True, True)
        if self._watch is not None:
            self._watch.start(self._loop)
        return self.path

    def stop(self) -> None:
        """Close it, as if the cable were pulled for good."""
        if self._port is None:
            return
        if self._watch is not None:
            self._watch.stop()
        for timer in self._pending:
            timer.cancel()
        self._pending.clear()
        self._set_port(False, False)
        self._port.stop()
        self._port = None

    # -- the port --------------------------------------------------------------------

    def _set_port(self, is_plugged_in: bool, can_open: bool) -> None:
        """Bring the line, and the path that leads to it, there or away."""
        if self._port is None:
            return
        if is_plugged_in:
            self._port.plug_in()
        else:
            self._hang_up()
        self._can_open = can_open
        self._port.set_open(can_open)

    def _hang_up(self) -> None:
        self._flood = None
        if self._port is not None:
            self._port.hang_up()

    # -- bytes -----------------------------------------------------------------------

    def _hear(self, data: bytes, rate: int) -> None:
        """Take what the client sent at *rate* baud."""
        if rate != self.line.baudrate or self._client_parity != self.line.parity:
            return  # framing errors only: the instrument hears noise and keeps silent
        byte_s = self.line.bits_per_byte / rate
        now = self._loop.time()
        # What follows before it is through waits on the line.
        self._heard_at = max(now, self._heard_at) + len(data) * byte_s
        if self._spoiled is None:
            answers = self._conversation.receive(data, now)
        else:
            answers = self._spoiled.hear(self._conversation, data, now)
        for answer in answers:
            # What it is, and how long the line is busy, is known only when it begins.
            due = self._moments.keep_order(self._heard_at + answer.delay_s)
            self._pending.append(self._loop.call_at(due, self._begin, answer, byte_s))

    def _begin(self, answer: Answer, byte_s: float) -> None:
        """Let *answer* go, after what is on the line already."""
        now = self._loop.time()
        data = answer.at(now)
        self._free_at = max(now, self._free_at) + len(data) * byte_s
        self._pending.append(self._loop.call_at(self._free_at, self.say, data))

    def say(self, data: bytes) -> None:
        """Send an answer, or what a fault makes of it."""
        now = self._loop.time()
        while self._pending and self._pending[0].when() <= now:
            self._pending.popleft()
        if self._spoiled is None or self._spoiled.is_clean:
            self._send(data)
            return
        if self._flood is not None:
            return  # lost in the rubbish
        spoken = self._spoiled.say(data, now)
        if spoken.is_broken:
            self._hang_up()
            self._set_port(True, self._can_open)
        elif spoken.flood is not None:
            self._flood = spoken.flood
            self._send_flood(self._flood)
        elif spoken.delay_s > 0:
            self._later(spoken.delay_s, self._send, spoken.data)
        else:
            self._send(spoken.data)

    def _later(self, wait: float, act: Callable[[Any], None], argument: Any) -> None:
        self._pending.append(self._loop.call_later(wait, act, argument))

    def _send_flood(self, flood: Flood) -> None:
        if flood is not self._flood:
            return
        rate = self.line.baudrate / self.line.bits_per_byte
        piece = flood.next(self._loop.time(), rate)
        if piece is None:
            self._flood = None
            return
        self._send(piece[0])
        self._later(piece[1], self._send_flood, flood)

    def _send(self, data: bytes) -> None:
        if self._port is not None and data:
            self._port.write(data)
