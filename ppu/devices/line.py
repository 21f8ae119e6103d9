"""Devices that are asked in lines of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ppu.core.errors import InstrumentError, InternalError, MalformedReply
from ppu.devices.address import Address
from ppu.transports.line import LineClient

__all__ = ["Query"]


@dataclass(frozen=True)
class _QueryText:
    command: str
    parse: Callable[[list[str]], Any]


@dataclass(frozen=True)
class Query(_QueryText, Address[LineClient]):
    """A command line and what its answer means.

    Args:
        command: The line that asks for the value, or that is the command.
        parse: Makes the value of the answer's lines; raises MalformedReply for what
            the manual does not allow, InstrumentError for a refusal.
        set_command: The line that sets the value, with ``{}`` for it.
        is_last: Tells whether a line ends the answer; by default the first does.
        lasts_s: Lab time that the instrument may take by itself [s]; by default the
            link's real-world deadline applies.
    """

    set_command: str | None = None
    is_last: Callable[[str], bool] | None = None
    lasts_s: float | None = None

    @override
    def __str__(self) -> str:
        return f"line://{self.command}"

    @override
    async def ask(self, client: LineClient) -> list[str]:
        return await client.ask(
            self.command, is_last=self.is_last, deadline_lab_s=self.lasts_s
        )

    @override
    def pick(self, client: LineClient, answer: list[str]) -> Any:
        where = f"{client.device}: asked {self.command}"
        try:
            return self.parse(answer)
        except InstrumentError as exc:
            raise InstrumentError(f"{where}: {exc}", exc.code) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{where}: {exc}") from exc

    @override
    async def write(self, client: LineClient, value: Any) -> None:
        if self.set_command is None:
            raise InternalError(f"{self} can only be read")
        command = self.set_command.format(value)
        self.pick(client, await client.ask(command, is_safe=False))

    @override
    async def execute(self, client: LineClient, *args: Any) -> None:
        lines = await client.ask(
            self.command.format(*args),
            is_safe=False,
            is_last=self.is_last,
            deadline_lab_s=self.lasts_s,
        )
        self.pick(client, lines)
