"""A port that can stop listening and listen again at the same number."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from ppu.core.labtime import running_loop
from ppu.core.memory import MEMORY, MemoryTransport, Switchboard

__all__ = ["Listener", "open_listener", "reset"]

_LOOPBACK: Final = "127.0.0.1"


class Listener(Protocol):
    """Accepts connections while it is open."""

    host: str
    port: int

    def set_open(self, is_open: bool) -> None:
        """Listen from now on, or do so no more; connections stay."""

    async def stop(self) -> None:
        """Listen no more, for good."""


async def open_listener(
    port: int, accept: Callable[[], asyncio.BaseProtocol]
) -> Listener:
    """Listen in memory if this loop's fronts do so, else on a loopback port.

    Args:
        port: Loopback port to listen on; 0 for a free one.
        accept: Makes the protocol of a new connection.
    """
    board = running_loop().switchboard
    if board.is_asked_for:
        return _MemoryListener(board, accept)
    listener = _LoopbackListener(port, accept)
    await listener.open()
    return listener


class _MemoryListener:
    """Accepts connections within this process.

    Args:
        board: Where to listen.
        accept: Makes the protocol of a new connection.
    """

    host = MEMORY

    def __init__(
        self, board: Switchboard, accept: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._board = board
        self._accept = accept
        self.port = board.new_port()
        self.set_open(True)

    def set_open(self, is_open: bool) -> None:
        """Listen from now on, or do so no more; connections stay."""
        if is_open:
            self._board.listen(self.port, self._accept)
        else:
            self._board.refuse(self.port)

    async def stop(self) -> None:
        """Listen no more, for good."""
        self.set_open(False)


class _LoopbackListener:
    """Accepts connections on a loopback port.

    Args:
        port: Port to listen on; 0 for a free one.
        accept: Makes the protocol of a new connection.
    """

    host = _LOOPBACK

    def __init__(self, port: int, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self._asked_port = port
        self._accept = accept
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reserved: socket.socket | None = None
        self._is_wanted = False
        self.port = 0

    async def open(self) -> None:
        """Listen for the first time."""
        self._is_wanted = True
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, _LOOPBACK, self._asked_port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def set_open(self, is_open: bool) -> None:
        """Listen from now on, or do so no more; connections stay."""
        if is_open is self._is_wanted:
            return
        self._is_wanted = is_open
        if not is_open:
            self._shut()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._reopen())

    async def stop(self) -> None:
        """Listen no more, for good."""
        self._is_wanted = False
        if self._opening is not None:
            await self._opening
        self._shut()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _shut(self) -> None:
        """Close the port, but let nobody else have its number."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self._reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((_LOOPBACK, self.port))

    async def _reopen(self) -> None:
        server = await asyncio.get_running_loop().create_server(
            self._accept, _LOOPBACK, self.port, reuse_address=True
        )
        self._server, self._opening = server, None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if not self._is_wanted:  # it was to be shut again meanwhile
            self._shut()


def reset(transport: asyncio.Transport) -> None:
    """Break a connection at once, with a reset instead of an orderly end."""
    if isinstance(transport, MemoryTransport):
        reason = os.strerror(errno.ECONNRESET)
        transport.break_off(ConnectionResetError(errno.ECONNRESET, reason))
        return
    connection = transport.get_extra_info("socket")
    linger_for_nothing = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
    transport.abort()
