"""Wires within one process: bytes go from one end to the other without the kernel.

Each loop has a :class:`Switchboard`, where simulated instruments listen and clients
connect by number. Both ends of a connection are asyncio transports, so what uses them
is the same as over sockets. What one end writes the other end's protocol gets in the
next turn of the loop, at the same lab time: a loop that has something to do does not
jump, so no :class:`~ppu.core.labtime.Debt` is needed, and the order of what happens
does not depend on how busy the computer is.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from typing_extensions import override

__all__ = ["MEMORY", "MemoryTransport", "Switchboard"]

MEMORY: Final = "memory"
"""Stands for a host, and before a colon for a serial port, in addresses."""

P = TypeVar("P", bound=asyncio.Protocol)


class MemoryTransport(asyncio.Transport):
    """One end of a connection within one process.

    Any number of bytes may be under way: a writer is never told to pause.

    Args:
        protocol: What is told of bytes and of the end.
        extra: What :meth:`get_extra_info` knows.
    """

    def __init__(
        self, protocol: asyncio.BaseProtocol, extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(dict(extra or {}))
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = protocol
        self._peer: MemoryTransport | None = None
        self._arrived = bytearray()
        self._end: tuple[Exception | None] | None = None
        """How the other end left, in order or with an error, until that is told."""
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False

    @classmethod
    def pair(
        cls,
        client: asyncio.BaseProtocol,
        server: asyncio.BaseProtocol,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[MemoryTransport, MemoryTransport]:
        """Return both ends of a connection; *client* and *server* are told so."""
        near, far = cls(client, extra), cls(server, extra)
        near._peer, far._peer = far, near
        server.connection_made(far)
        client.connection_made(near)
        return near, far

    # -- writing ---------------------------------------------------------------------

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        peer = self._peer
        if self._is_closing or peer is None or not data:
            return
        if peer._is_closing:
            self._fail(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
            return
        peer._arrived += data
        peer._deliver_soon()

    @override
    def close(self) -> None:
        self.break_off(None)

    @override
    def abort(self) -> None:
        self.break_off(None)

    def break_off(self, exc: Exception | None) -> None:
        """End the connection; the other end is told *exc* after all that was written.

        Args:
            exc: None for an end in order.
        """
        if self._is_closing:
            return
        self._fail(None)
        peer = self._peer
        if peer is not None:
            peer._end = (exc,)
            peer._deliver_soon()

    def _fail(self, exc: Exception | None) -> None:
        """Take and give nothing more; the protocol is told in the next turn."""
        self._is_closing = True
        self._loop.call_soon(self._lose, exc)

    def _lose(self, exc: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._arrived.clear()
        self._protocol.connection_lost(exc)
        self._peer = None

    # -- reading ---------------------------------------------------------------------

    def _deliver_soon(self) -> None:
        # After what is due at this moment already, as if the kernel told of it.
        self._loop.call_soon(self._loop.call_soon, self._deliver)

    def _deliver(self) -> None:
        if self._is_closing or not self._is_reading:
            return
        if self._arrived:
            # In one piece, as a socket has it that is read once a turn.
            data = bytes(self._arrived)
            self._arrived.clear()
            if self._end is not None:
                self._deliver_soon()
            self._protocol.data_received(data)
        elif self._end is not None:
            (exc,), self._end = self._end, None
            if exc is not None:
                self._fail(exc)
            elif not self._protocol.eof_received():
                self.close()

    @override
    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    @override
    def pause_reading(self) -> None:
        self._is_reading = False

    @override
    def resume_reading(self) -> None:
        self._is_reading = True
        self._deliver_soon()

    # -- what else a transport has ---------------------------------------------------

    @override
    def is_closing(self) -> bool:
        return self._is_closing

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def can_write_eof(self) -> bool:
        return False


class Switchboard:
    """The ports of one loop at which connections in memory begin."""

    def __init__(self) -> None:
        self.is_asked_for = False
        """Whether fronts that start on this loop are to listen here."""
        self._listening: dict[int, Callable[[], asyncio.BaseProtocol]] = {}
        self._in_use: dict[int, MemoryTransport] = {}
        self._last_port = 0

    def new_port(self) -> int:
        """Return a number that nobody had before."""
        self._last_port += 1
        return self._last_port

    def listen(self, port: int, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        """Let clients connect to *port* from now on.

        Args:
            port: One of :meth:`new_port`.
            accept: Makes the protocol of a new connection.
        """
        self._listening[port] = accept

    def refuse(self, port: int) -> None:
        """Let nobody connect to *port*; connections stay."""
        self._listening.pop(port, None)

    def connect(
        self,
        port: int,
        make_protocol: Callable[[], P],
        *,
        is_exclusive: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[MemoryTransport, P]:
        """Connect to *port*; return one's own end and its protocol.

        Args:
            port: Where somebody listens.
            make_protocol: Makes the protocol of the client's end.
            is_exclusive: Whether the port can be had by one client at a time.
            extra: What both ends know of the connection: a line's settings.

        Raises:
            ConnectionRefusedError: If nobody listens.
            OSError: With EBUSY if another client has it.
        """
        accept = self._listening.get(port)
        if accept is None:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, f"nobody listens at {MEMORY}:{port}"
            )
        other = self._in_use.get(port)
        if is_exclusive and other is not None and not other.is_closing():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        protocol = make_protocol()
        transport, _ = MemoryTransport.pair(protocol, accept(), extra)
        if is_exclusive:
            self._in_use[port] = transport
        return transport, protocol
