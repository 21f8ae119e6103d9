"""Serial lines (RS-232, RS-485, USB adapters, pseudo-terminals) through pyserial.

A port ``memory:N`` is the line of a simulated instrument in this process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import termios
from typing import Literal

import serial
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.errors import ConnectError
from ppu.core.labtime import running_loop
from ppu.core.memory import MEMORY, MemoryTransport
from ppu.transports.link import ByteLink
from ppu.transports.places import port_places
from ppu.transports.receiver import Receiver

__all__ = ["SerialConnection", "SerialLink"]

_PARITIES = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
}


class SerialConnection(BaseModel):
    """How to reach an instrument on a serial line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["serial"]
    port: str = Field(description="Device file, best one of /dev/serial/by-id/")
    baudrate: int = Field(gt=0)
    parity: Literal["none", "even", "odd"] = "none"
    bytesize: Literal[7, 8] = 8
    stopbits: Literal[1, 2] = 1
    unit: int = Field(default=1, ge=1, le=247, description="Bus address, if any")

    @property
    def endpoint(self) -> str:
        """The device file."""
        return self.port

    @property
    def places(self) -> frozenset[str]:
        """What one process alone may have, however the port is called."""
        is_memory = self.port.startswith(f"{MEMORY}:")
        return frozenset() if is_memory else port_places(self.port)


_HUNG_UP = "the port was closed (unplugged?)"


def _is_pseudo_terminal(port: str) -> bool:
    return os.path.realpath(port).startswith("/dev/pts/")


class SerialLink(ByteLink):
    """A serial line, opened exclusively.

    Args:
        device: Name of the device.
        connection: Port and line settings.
        deadline_s: Real-world time for one exchange [s].
        slowest_reply_s: See :class:`ByteLink`.
    """

    def __init__(
        self,
        device: str,
        connection: SerialConnection,
        *,
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
    ) -> None:
        super().__init__(
            device,
            connection.port,
            deadline_s=deadline_s,
            slowest_reply_s=slowest_reply_s,
        )
        self.connection = connection
        self._port: serial.Serial | None = None
        self._wire: MemoryTransport | None = None
        """What there is instead of a port if the instrument is in this process."""
        self._fd = -1
        self._unsent = b""
        self._is_writing = False

    @property
    @override
    def is_open(self) -> bool:
        return self._port is not None or self._wire is not None

    @override
    async def _open(self) -> None:
        line = self.connection
        if line.port.startswith(f"{MEMORY}:"):
            self._open_in_memory()
            return
        # A pseudo-terminal carries bytes and no parity, and refuses to be asked for it
        # from the second time on; the simulated port behind it knows the lab file.
        is_pseudo = _is_pseudo_terminal(line.port)
        try:
            self._port = serial.Serial(
                line.port,
                baudrate=line.baudrate,
                parity=_PARITIES["none" if is_pseudo else line.parity],
                bytesize=8 if is_pseudo else line.bytesize,
                stopbits=line.stopbits,
                timeout=0,
                write_timeout=0,
                exclusive=True,
            )
        except (OSError, ValueError, termios.error) as exc:
            raise ConnectError(self._explain(exc)) from exc
        self._fd = self._port.fileno()
        self._port.reset_input_buffer()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self._opened(is_new=False)

    def _open_in_memory(self) -> None:
        try:
            self._wire, _ = running_loop().switchboard.connect(
                int(self.connection.port.partition(":")[2]),
                lambda: Receiver(self._received, self._lost),
                is_exclusive=True,
                extra={"baudrate": self.connection.baudrate},
            )
        except (OSError, ValueError) as exc:
            raise ConnectError(self._explain(exc)) from exc
        self._opened(is_new=False, is_in_memory=True)

    def _explain(self, exc: Exception) -> str:
        line = self.connection
        where = f"{self.device}: cannot open {line.port}"
        number = getattr(exc, "errno", None)
        if number in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY):
            return f"{where}: another program has it open; close that program"
        if number in (errno.ENOENT, errno.ECONNREFUSED):
            return f"{where}: no such port; is the adapter plugged in?"
        if number == errno.EACCES:
            return f"{where}: permission denied; is the user in group dialout?"
        if isinstance(exc, termios.error):
            return (
                f"{where}: it refuses {line.baudrate} baud, {line.bytesize} bits, "
                f"parity {line.parity}"
            )
        return f"{where}: {exc}"

    @override
    async def _close(self) -> None:
        self._shut()

    def _shut(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        port, self._port = self._port, None
        if port is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        if self._debt is not None:
            self._debt.pay_request(len(self._unsent))  # nobody ever reads it
            self._debt.close()
        self._unsent = b""
        self._is_writing = False
        port.close()

    @override
    def _write(self, data: bytes) -> None:
        if self._wire is not None:
            self._wire.write(data)
            return
        self._unsent += data
        self._send()

    def _send(self) -> None:
        """Write what is left; called again by the loop until nothing is."""
        loop = asyncio.get_running_loop()
        try:
            n_written = os.write(self._fd, self._unsent)
        except BlockingIOError:
            n_written = 0
        except OSError as exc:
            self._broken(f"cannot write: {exc.strerror}")
            return
        self._unsent = self._unsent[n_written:]
        if self._unsent:
            loop.add_writer(self._fd, self._send)
            self._is_writing = True
        elif self._is_writing:
            loop.remove_writer(self._fd)
            self._is_writing = False

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        except OSError as exc:
            data = b""
            reason = exc.strerror or str(exc)
        else:
            reason = _HUNG_UP
        if data:
            self._received(data)
            return
        self._broken(reason)
        self._shut()

    def _lost(self, wire: asyncio.BaseTransport, exc: Exception | None) -> None:
        if wire is self._wire:
            self._broken(str(exc or _HUNG_UP))
            self._shut()
