"""The driver of a person: asks, and waits for an answer."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from ophyd_async.core import AsyncStatus
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Operator, PowderTask, Task
from ppu.core.errors import ConnectError, InstrumentError, MalformedReply
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.core.specifications import HandlerSpecification
from ppu.devices import DriverFacts, Identity, Instrument
from ppu.transports.line import LineClient
from ppu.transports.tcp import TcpConnection
from ppu.transports.terminal import TerminalConnection
from ppu_drivers.operator._codec import parse_answer, word_task

__all__ = ["PersonAtTerminal", "PersonLimits", "PersonSettings"]


class PersonSettings(BaseModel):
    """How long people may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patience_s: float = Field(
        default=86400.0,
        gt=0,
        allow_inf_nan=False,
        description="How long to wait for a task to be done",
    )


class PersonLimits(BaseModel):
    """What people may be asked to handle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container_degc: LimitPair = (0.0, 80.0)


_PROMPT: Final = "  answer: done, or refused and the reason >"


class PersonAtTerminal(Instrument, Operator):
    """A person who is asked to do things and says when they are done.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The terminal, or where a simulated technician listens.
        settings: How long people may take.
        limits: What people may be asked to handle.
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
    limits_model = PersonLimits

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TerminalConnection | TcpConnection,
        settings: PersonSettings,
        limits: PersonLimits,
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

    @cached_property
    def specification(self) -> HandlerSpecification:
        """People carry between any places, and handle powder in any way."""
        return HandlerSpecification(
            name=self.name,
            max_container_degc=self.limits.container_degc[1],
            is_free=True,
        )

    @property
    def max_container_degc(self) -> float:
        """How hot a place may be from which a person takes a container [degC]."""
        return self.limits.container_degc[1]

    def can_carry(self, origin: str, destination: str) -> bool:
        """Return True: a person carries between any two places."""
        del origin, destination
        return True

    def check_task(self, task: PowderTask) -> None:
        """Refuse nothing: a person handles powder in any way that can be asked for."""

    @property
    def container_station(self) -> str | None:
        """Return None: a person handles powder wherever the container stands."""
        return None

    @property
    def holder_station(self) -> str | None:
        """Return None: a person mounts powder wherever the holder stands."""
        return None

    @AsyncStatus.wrap
    async def set(self, value: Task) -> None:
        """Ask a person to do *value* and wait until it is done.

        At a terminal an answer that means nothing is asked for again.

        Raises:
            InstrumentError: If the person refuses.
            ReplyTimeout: If nobody answers within the patience of the lab file.
            MalformedReply: If a simulated technician answers nonsense.
        """
        is_done, reason = await self._ask(word_task(value))
        if not is_done:
            raise InstrumentError(
                f"{self.name}: would not {word_task(value)}: {reason or 'no reason'}"
            )

    async def _ask(self, task: str) -> tuple[bool, str]:
        """Return whether *task* was done, and otherwise why not."""
        request = task
        if self._is_terminal:
            request = f"{self.name}: please {task}\n{_PROMPT}"
        loop = running_loop()
        until = loop.time() + self.settings.patience_s
        while True:
            try:
                (answer,) = await self._client.ask(
                    request, is_safe=False, deadline_lab_s=until - loop.time()
                )
                is_done, why = parse_answer(answer)
                if is_done or why or not self._is_terminal:
                    return is_done, why
                request = f"  why? {_PROMPT.strip()}"
            except MalformedReply as exc:
                if not self._is_terminal:
                    raise MalformedReply(f"{self.name}: {exc}") from exc
                request = f"  not understood\n{_PROMPT}"
