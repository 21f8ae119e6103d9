"""Carries bytes between a driver under test and a server that is not a simulator.

On a jumping loop whoever reads and writes must say what is under way, or time would
pass it by; that is all that these carriers know of PPU.
"""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable

from ppu.core.labtime import Debt, running_loop

__all__ = ["SerialCarrier", "TcpCarrier"]


class SerialCarrier:
    """A pseudo-terminal; what comes is answered a little later.

    Args:
        answer: Takes bytes and lab time, and returns what is sent back.
        delay_s: How much later.
    """

    def __init__(
        self, answer: Callable[[bytes, float], bytes], delay_s: float = 0.005
    ) -> None:
        self._answer = answer
        self._delay_s = delay_s
        self._loop = running_loop()
        self._master, self._slave = os.openpty()
        for end in (self._master, self._slave):
            tty.setraw(end)
        self.port = os.ttyname(self._slave)
        self._debt = self._loop.debt(self.port)
        self._debt.count_requests()
        self._loop.add_reader(self._master, self._readable)

    def close(self) -> None:
        """Let the line go."""
        self._loop.remove_reader(self._master)
        self._debt.clear()
        os.close(self._master)
        os.close(self._slave)

    def _readable(self) -> None:
        data = os.read(self._master, 4096)
        self._debt.pay_request(len(data))
        answer = self._answer(data, self._loop.time())
        if answer:
            self._loop.call_later(self._delay_s, self._write, answer)

    def _write(self, data: bytes) -> None:
        self._debt.add(len(data))
        os.write(self._master, data)


class TcpCarrier(asyncio.Protocol):
    """One connection to a server in this process.

    Args:
        hear: Takes the carrier and what it brought.
        gone: Takes the carrier when its client has hung up.
    """

    def __init__(
        self,
        hear: Callable[[TcpCarrier, bytes], None],
        gone: Callable[[TcpCarrier], None],
    ) -> None:
        self._hear = hear
        self._gone = gone
        self._debt: Debt
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self._debt = running_loop().debt(f"{host}:{port}")

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        self._debt.pay(len(data))
        self._hear(self, data)

    def say(self, data: bytes) -> None:
        """Send *data* if the client is still there."""
        if self._transport is not None:
            self._debt.add(len(data))
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the client has gone."""
        self._transport = None
        self._gone(self)
