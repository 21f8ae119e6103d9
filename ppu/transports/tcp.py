"""TCP streams, also to an instrument in this process (host ``memory``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.errors import ConnectError
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.core.memory import MEMORY
from ppu.transports.link import ByteLink, Decoder
from ppu.transports.places import host_places
from ppu.transports.receiver import Receiver

__all__ = ["TcpConnection", "TcpLink"]

T = TypeVar("T")


class TcpConnection(BaseModel):
    """How to reach an instrument over TCP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["tcp"]
    host: str
    port: int = Field(gt=0, lt=65536)
    unit: int = Field(default=1, ge=0, le=255, description="Bus address, if any")

    @property
    def endpoint(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def places(self) -> frozenset[str]:
        """What one process alone may have, however the host is called."""
        if self.host == MEMORY:
            return frozenset()
        return host_places(self.host, self.port)


class TcpLink(ByteLink):
    """A TCP stream.

    Args:
        device: Name of the device.
        connection: Host and port.
        deadline_s: Real-world time for one exchange, also for connecting [s].
        slowest_reply_s: See :class:`ByteLink`.
        is_kept_open: False for instruments that serve one exchange a connection.
    """

    def __init__(
        self,
        device: str,
        connection: TcpConnection,
        *,
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
        is_kept_open: bool = True,
    ) -> None:
        super().__init__(
            device,
            connection.endpoint,
            deadline_s=deadline_s,
            slowest_reply_s=slowest_reply_s,
        )
        self.connection = connection
        self._is_kept_open = is_kept_open
        self._transport: asyncio.Transport | None = None

    # A connection whose other end has gone without a word is silent for ever.
    _is_dead_when_silent = True

    @property
    @override
    def is_open(self) -> bool:
        return self._transport is not None

    @override
    async def _open(self) -> None:
        loop = running_loop()
        # Connecting takes no lab time: the kernel answers for the listener.
        thaw = loop.freeze(f"connecting to {self.endpoint}")
        try:
            wait = self._at_most(loop.wire_seconds(self.deadline_s))
            async with asyncio.timeout(wait):
                transport = await self._connect(loop)
        except TimeoutError as exc:
            raise ConnectError(
                f"{self.device}: {self.endpoint} did not accept a connection within "
                f"{self.deadline_s:g} s"
            ) from exc
        except OSError as exc:
            raise ConnectError(
                f"{self.device}: cannot connect to {self.endpoint}: "
                f"{exc.strerror or exc}; is the instrument on, and the address right?"
            ) from exc
        finally:
            thaw()
        self._transport = transport
        # A gateway to a serial line may pass on to a new connection what comes late.
        self._opened(is_new=not self.was_late, is_in_memory=self._is_in_memory)

    @property
    def _is_in_memory(self) -> bool:
        return self.connection.host == MEMORY

    async def _connect(self, loop: LabTimeLoop) -> asyncio.Transport:
        host, port = self.connection.host, self.connection.port

        def make_receiver() -> Receiver:
            return Receiver(self._received, self._lost)

        if self._is_in_memory:
            return loop.switchboard.connect(port, make_receiver)[0]
        return (await loop.create_connection(make_receiver, host, port))[0]

    @override
    async def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            if self._debt is not None:
                self._debt.close()

    @override
    def _write(self, data: bytes) -> None:
        if self._transport is None:
            self._broken("the connection is closed")
            return
        self._transport.write(data)

    @override
    async def _exchange_once(
        self,
        request: bytes,
        decode: Decoder[T],
        deadline: Callable[[], float],
        describe: Callable[[T], str],
    ) -> T:
        try:
            return await super()._exchange_once(request, decode, deadline, describe)
        finally:
            if not self._is_kept_open:
                await self._close()

    def _lost(self, transport: asyncio.BaseTransport, exc: Exception | None) -> None:
        if transport is self._transport:
            self._transport = None
            self._broken(f"{exc}" if exc else "the instrument closed the connection")
