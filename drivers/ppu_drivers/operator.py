"""A person as an instrument: carries containers, grinds, mounts powder.

The same sentences go to a person at a terminal and to the simulated technician. The
answer is ``done``, or ``refused`` and a reason.
"""

from __future__ import annotations

from ophyd_async.core import AsyncStatus
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Carry, Grind, Operator, Task
from ppu.core.errors import ConnectError, InstrumentError, MalformedReply
from ppu.core.labfile import DeviceEntry
from ppu.devices.instrument import DriverFacts, Identity, Instrument, NoLimits
from ppu.transports.line import LineClient
from ppu.transports.tcp import TcpConnection
from ppu.transports.terminal import TerminalConnection

__all__ = ["PersonAtTerminal", "PersonSettings"]


class PersonSettings(BaseModel):
    """How long people may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patience_s: float = Field(
        default=86400.0,
        gt=0,
        allow_inf_nan=False,
        description="How long to wait for a task to be done",
    )


def sentence(task: Task) -> str:
    """Return what a person is asked to do.

    Example:
        >>> sentence(Carry("crucible_01", "rack_1.1", "balance.pan"))
        'carry crucible_01 from rack_1.1 to balance.pan'
    """
    if isinstance(task, Carry):
        return f"carry {task.container} from {task.origin} to {task.destination}"
    if isinstance(task, Grind):
        return f"grind {task.container} for {task.duration_s:g} s"
    return f"mount powder of {task.container} in {task.holder}"


class PersonAtTerminal(Instrument, Operator):
    """A person who is asked to do things and says when they are done.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The terminal, or where a simulated technician listens.
        settings: How long people may take.
        limits: None.
    """

    facts = DriverFacts(
        maker="any",
        model="person",
        wire="operator-line",
        sources=("this project: requests and answers are lines of plain English",),
        verified="",
        open_questions=(),
        orphan_behaviour="goes home; containers stay where they are",
    )
    connections = (TerminalConnection, TcpConnection)
    settings_model = PersonSettings

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TerminalConnection | TcpConnection,
        settings: PersonSettings,
        limits: NoLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._is_terminal = isinstance(connection, TerminalConnection)
        self._client = LineClient(name, connection, terminator=b"\n", deadline_s=5.0)
        super().__init__(name, entry, self._client, self._client.link)

    @override
    async def read_identity(self) -> Identity:
        if self._is_terminal:
            return Identity(model="person", serial_number=None)
        (answer,) = await self._client.ask("who are you?")
        greeting, _, badge = answer.rpartition(" ")
        if greeting != "technician":
            raise ConnectError(
                f"{self.name}: no technician answers at {self.link.endpoint}: "
                f"{answer!r}"
            )
        return Identity(model="simulated technician", serial_number=badge)

    @AsyncStatus.wrap
    async def set(self, value: Task) -> None:
        """Ask a person to do *value* and wait until it is done.

        Raises:
            InstrumentError: If the person refuses.
            ReplyTimeout: If nobody answers within the patience of the lab file.
        """
        request = sentence(value)
        if self._is_terminal:
            request = (
                f"{self.name}: please {request}\n"
                "  answer: done, or refused and the reason >"
            )
        (answer,) = await self._client.ask(
            request, is_safe=False, deadline_lab_s=self.settings.patience_s
        )
        word, _, reason = answer.strip().partition(" ")
        if word.lower() == "done":
            return
        if word.lower() == "refused":
            raise InstrumentError(
                f"{self.name}: would not {sentence(value)}: {reason or 'no reason'}"
            )
        raise MalformedReply(
            f"{self.name}: answered {answer!r}; allowed are done, or refused and a "
            "reason"
        )
