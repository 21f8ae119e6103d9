"""A person at a terminal: asked on standard error, answers on standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Literal

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from ppu.core.errors import ConnectError, LinkBroken
from ppu.transports.link import ByteLink

__all__ = ["TerminalConnection", "TerminalLink"]


class TerminalConnection(BaseModel):
    """The terminal in which the command was started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["terminal"]

    @property
    def endpoint(self) -> str:
        """What errors call it."""
        return "the terminal"

    @property
    def places(self) -> frozenset[str]:
        """What one process alone may have: each has a terminal of its own."""
        return frozenset()


class TerminalLink(ByteLink):
    """Standard error and standard input as one link."""

    def __init__(self, device: str, connection: TerminalConnection) -> None:
        super().__init__(device, connection.endpoint)
        self._is_open = False

    @property
    @override
    def is_open(self) -> bool:
        return self._is_open

    @override
    async def _open(self) -> None:
        if not sys.stdin.isatty():
            raise ConnectError(
                f"{self.device}: a person must answer, but standard input is no "
                "terminal; start the command in one"
            )
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._readable)
        self._is_open = True
        self._opened(is_new=True)

    @override
    async def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    @override
    def _write(self, data: bytes) -> None:
        try:
            sys.stderr.write(data.decode("ascii"))
            sys.stderr.flush()
        except (OSError, ValueError) as exc:  # closed by others, or by ourselves
            raise LinkBroken(f"{self.device}: nobody can be asked: {exc}") from exc

    @override
    def _wait_s(self, deadline_lab_s: float | None) -> float:
        if deadline_lab_s is not None:
            return deadline_lab_s  # a person is asked on no wire
        return super()._wait_s(None)

    def _readable(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        if data:
            self._received(data)
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._is_open = False
            self._broken("standard input was closed")
