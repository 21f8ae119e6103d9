"""Devices that are asked in lines of text."""

from __future__ import annotations

import math
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
        set_parse: Accepts the answer to *set_command* where it is another than that to
            *command*: raises as *parse* does.
        set_is_last: Tells whether a line ends that answer; by default *is_last* does.
        is_answered: False if *set_command*, or the command if nothing is read here, is
            not answered. A value that is set so is read back: nothing else would show
            that it was refused.
        is_last: Tells whether a line ends the answer; by default the first does.
        lasts_s: Lab time that the instrument may take by itself [s]; by default the
            link's real-world deadline applies.
    """

    set_command: str | None = None
    set_parse: Callable[[list[str]], Any] | None = None
    set_is_last: Callable[[str], bool] | None = None
    is_answered: bool = True
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
        return self._parse(client, self.command, self.parse, answer)

    def _parse(
        self,
        client: LineClient,
        command: str,
        parse: Callable[[list[str]], Any],
        answer: list[str],
    ) -> Any:
        where = f"{client.device}: asked {command}"
        try:
            return parse(answer)
        except InstrumentError as exc:
            raise InstrumentError(f"{where}: {exc}", exc.code) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{where}: {exc}") from exc

    @override
    async def write(self, client: LineClient, value: Any) -> None:
        if self.set_command is None:
            raise InternalError(f"{self} can only be read")
        command = self.set_command.format(value)
        await self._change(
            client,
            command,
            self.set_parse or self.parse,
            self.set_is_last or self.is_last,
        )
        if not self.is_answered:
            found = self.pick(client, await self.ask(client))
            if not self._is_same(found, value):
                raise InstrumentError(
                    f"{client.device}: {command} was sent, but {self.command} says "
                    f"{found}"
                )

    def _is_same(self, found: Any, value: Any) -> bool:
        if isinstance(value, float):
            step = 0.0 if self.decimals is None else 0.51 * 10.0**-self.decimals
            return math.isclose(found, value, rel_tol=1e-6, abs_tol=max(step, 1e-9))
        return bool(found == value)

    @override
    async def execute(self, client: LineClient, *args: Any) -> None:
        await self._change(client, self.command.format(*args), self.parse, self.is_last)

    async def _change(
        self,
        client: LineClient,
        command: str,
        parse: Callable[[list[str]], Any],
        is_last: Callable[[str], bool] | None,
    ) -> None:
        """Send *command* once, and see that its answer is accepted if it has one."""
        if not self.is_answered:
            await client.tell(command)
            return
        lines = await client.ask(
            command,
            is_safe=False,
            is_last=is_last,
            deadline_lab_s=self.lasts_s,
        )
        self._parse(client, command, parse, lines)
