"""What a serial front listens on: a pseudo-terminal, or a port in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import termios
import tty
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ppu.core.labtime import Debt, LabTimeLoop, running_loop
from ppu.core.memory import MEMORY, MemoryTransport, Switchboard

__all__ = ["Hear", "SerialPort", "open_serial_port"]

Hear = Callable[[bytes, int], None]
"""Takes what a client sent, and its baud rate; 0 if that is none of the usual ones."""

_SPEEDS = {
    getattr(termios, f"B{rate}"): rate
    for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400)
}


class SerialPort(Protocol):
    """A port that one client at a time may open."""

    path: str
    """What clients open; the same after it was unplugged and plugged in again."""

    def set_open(self, can_open: bool) -> None:
        """Let clients find the port, or not; a client that has it keeps it."""

    def plug_in(self) -> None:
        """Have a line; harmless if there is one."""

    def hang_up(self) -> None:
        """Take the line away from the client; harmless if there is none."""

    def write(self, data: bytes) -> None:
        """Send *data*; it is lost if nobody has the port open."""

    def stop(self) -> None:
        """Leave nothing behind."""


def open_serial_port(hear: Hear) -> SerialPort:
    """Return a port in memory if this loop's fronts listen there, else a terminal."""
    loop = running_loop()
    if loop.switchboard.is_asked_for:
        return _MemoryPort(loop.switchboard, hear)
    return _PseudoTerminal(loop, hear)


class _PseudoTerminal:
    """A pseudo-terminal and a link to it."""

    def __init__(self, loop: LabTimeLoop, hear: Hear) -> None:
        self._loop = loop
        self._hear = hear
        self._master = -1
        self._slave = -1
        folder = tempfile.mkdtemp(prefix="ppu-serial-")
        # A program that ends without stopping its fronts leaves nothing behind either.
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, True)
        self.path = str(Path(folder) / "port")
        self._debt: Debt | None = None
        if loop.is_jumping:
            self._debt = loop.debt(self.path)
            self._debt.count_requests()

    def set_open(self, can_open: bool) -> None:
        """Bring the path that leads to the terminal there or away."""
        path = Path(self.path)
        target = os.ttyname(self._slave) if can_open else None
        if path.is_symlink() and str(path.readlink()) != target:
            path.unlink()
        if target is not None and not path.is_symlink():
            path.symlink_to(target)

    def plug_in(self) -> None:
        """Have a terminal."""
        if self._master >= 0:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._loop.add_reader(self._master, self._readable)

    def hang_up(self) -> None:
        """Have none."""
        if self._master < 0:
            return
        self._loop.remove_reader(self._master)
        if self._debt is not None:
            self._debt.clear()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def stop(self) -> None:
        """Remove the path's folder, too."""
        self.hang_up()
        self._remove_folder()

    def write(self, data: bytes) -> None:
        """Send *data* if there is a line."""
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

    def _readable(self) -> None:
        data = os.read(self._master, 4096)
        if self._debt is not None:
            self._debt.pay_request(len(data))
        attributes = termios.tcgetattr(self._master)
        self._hear(data, _SPEEDS.get(attributes[4], 0))


class _MemoryPort:
    """A port that clients in this process open by number."""

    def __init__(self, board: Switchboard, hear: Hear) -> None:
        self._board = board
        self._hear = hear
        self._port = board.new_port()
        self._client: MemoryTransport | None = None
        self.path = f"{MEMORY}:{self._port}"

    def set_open(self, can_open: bool) -> None:
        """Let clients connect, or not."""
        if can_open:
            self._board.listen(self._port, lambda: _Line(self))
        else:
            self._board.refuse(self._port)

    def plug_in(self) -> None:
        """Do nothing: a line is there when a client connects."""

    def hang_up(self) -> None:
        """Break the client's connection."""
        if self._client is not None:
            self._client.abort()
            self._client = None

    def stop(self) -> None:
        """Listen no more."""
        self.set_open(False)
        self.hang_up()

    def write(self, data: bytes) -> None:
        """Send *data* to the client, if there is one."""
        if self._client is not None:
            self._client.write(data)

    def opened(self, client: MemoryTransport) -> None:
        """Take note of who has the port now."""
        self._client = client

    def closed(self, client: MemoryTransport) -> None:
        """Take note that *client* has it no more."""
        if self._client is client:
            self._client = None

    def hear(self, data: bytes, baudrate: int) -> None:
        """Take what a client sent."""
        self._hear(data, baudrate)


class _Line(asyncio.Protocol):
    """The line of one client to a port in memory."""

    def __init__(self, port: _MemoryPort) -> None:
        self._port = port
        self._client: MemoryTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)  # noqa: S101 - the board's own
        self._client = transport
        self._port.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._port.hear(data, self._client.get_extra_info("baudrate"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._port.closed(self._client)
