"""A serial port as a pseudo-terminal that behaves like a line with a speed."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections import deque
from dataclasses import dataclass
from typing import Literal

from ppu.core.labtime import Debt, LabTimeLoop, running_loop
from ppu_simulators.fronts.conversation import Answer, Conversation

__all__ = ["SerialFront", "SerialLine"]

_SPEEDS = {
    getattr(termios, f"B{rate}"): rate
    for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400)
}


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
    """Serves one instrument on a pseudo-terminal.

    The client's baud rate can be read from the terminal, so bytes take the time they
    need on a real line, and a wrong rate gets silence. A pty drops the client's
    parity silently; the twin tells it where it is known.

    Args:
        conversation: The instrument's wire language.
        line: How its port is set.
        client_parity: What the client is known to use.
    """

    def __init__(
        self,
        conversation: Conversation,
        line: SerialLine,
        client_parity: str = "none",
    ) -> None:
        self._conversation = conversation
        self.line = line
        self._client_parity = client_parity
        self._master = -1
        self._slave = -1
        self.path = ""
        self._loop: LabTimeLoop
        self._debt: Debt | None = None
        self._pending: deque[asyncio.TimerHandle] = deque()

    def start(self) -> str:
        """Open the pseudo-terminal and return its path."""
        self._loop = running_loop()
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        if self._loop.is_jumping:
            self._debt = self._loop.debt(self.path)
        self._loop.add_reader(self._master, self._readable)
        return self.path

    def stop(self) -> None:
        """Close it, as if the cable were pulled."""
        if self._master < 0:
            return
        self._loop.remove_reader(self._master)
        for timer in self._pending:
            timer.cancel()
        self._pending.clear()
        if self._debt is not None:
            self._debt.clear()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def _readable(self) -> None:
        data = os.read(self._master, 4096)
        if self._debt is not None:
            self._debt.settle(len(data))
        attributes = termios.tcgetattr(self._master)
        rate = _SPEEDS.get(attributes[4], 0)
        if rate != self.line.baudrate or self._client_parity != self.line.parity:
            return  # framing errors only: the instrument hears noise and keeps silent
        byte_s = self.line.bits_per_byte / rate
        arrival = self._loop.time() + len(data) * byte_s
        for answer in self._conversation.receive(data, self._loop.time()):
            self._schedule(answer, arrival, byte_s)

    def _schedule(self, answer: Answer, arrival: float, byte_s: float) -> None:
        """Send *answer* when its last byte would be through."""
        due = arrival + answer.delay_s
        if isinstance(answer.data, bytes):
            due += len(answer.data) * byte_s
            timer = self._loop.call_at(due, self._send, answer.data)
        else:
            # How long it takes is known only when it is made.
            timer = self._loop.call_at(due, self._make, answer, byte_s)
        self._pending.append(timer)

    def _make(self, answer: Answer, byte_s: float) -> None:
        now = self._loop.time()
        self._schedule(Answer(answer.at(now)), now, byte_s)

    def _send(self, data: bytes) -> None:
        now = self._loop.time()
        while self._pending and self._pending[0].when() <= now:
            self._pending.popleft()
        if self._master < 0:
            return
        if self._debt is not None:
            self._debt.add(len(data))
        try:
            n_written = os.write(self._master, data)
        except BlockingIOError:
            n_written = 0  # nobody reads: a real line loses the bytes, too
        if self._debt is not None:
            self._debt.add(n_written - len(data))
