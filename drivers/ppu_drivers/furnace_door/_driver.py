"""The driver of a furnace door: opens and closes it, and sees that it did."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import Annotated as A
from typing import Final

from ophyd_async.core import AsyncStatus, StandardReadableFormat
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Door, DoorState
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    MalformedReply,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.core.specifications import DoorSpecification
from ppu.devices import DriverFacts, Identity, Instrument, Query, Reference, SignalR
from ppu.transports.line import LineClient
from ppu.transports.tcp import TcpConnection
from ppu_drivers.furnace_door._codec import (
    COMMANDS,
    DoorStatus,
    check_acknowledgement,
    parse_state,
    parse_status,
)

__all__ = ["FurnaceDoor", "FurnaceDoorLimits", "FurnaceDoorSettings"]

_log = logging.getLogger("ppu.drivers")

_PERIOD_S: Final = 1.0
_START_S: Final = 3.0
_SILENCE_S: Final = 0.25
"""How long nothing more must come until an answer is over: nothing else ends it."""


class FurnaceDoorSettings(BaseModel):
    """What the driver must know of the door."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encloses: str = Field(description="Name of the device that it is the door of")
    door: str = Field(
        default="A",
        pattern=r"^[A-Za-z0-9]+$",
        description="What the controller calls this door",
    )
    max_travel_s: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long opening or closing may take",
    )


class FurnaceDoorLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    furnace_degc: LimitPair = (0.0, 200.0)


class FurnaceDoor(Instrument, Door):
    """A door of the A-Lab's first door controller.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: Host and port (8888) of the controller.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="A-Lab",
        model="door controller",
        wire="door-line",
        sources=(
            "CederGroupHub/alab_control door_controller/door_controller.py (requests "
            "Status, Open A, Close A; port 8888; one connection a request)",
            "its firmware soft_R07_AB.ino: no answer has a line end, the connection "
            "stays open, and while a client is connected neither limit switch nor "
            "timers are looked at, so the driver reads until it is silent, and closes",
        ),
        verified="",
        open_questions=(
            "The controller has a switch only where a door is open. Closing is timed: "
            "a door that jams while it closes is called closed, which no program can "
            "know.",
            "When it is switched on it calls every door closed, wherever it is.",
            "No serial number is in any source; 'Serial: n' in the status is ours, of "
            "the simulated controller. Without it, leave serial_number unset.",
            "An error stays until the controller is switched off and on; a person must "
            "look at the door before.",
        ),
        orphan_behaviour="ends its motion, then stays where it is",
    )
    connections = (TcpConnection,)
    settings_model = FurnaceDoorSettings
    limits_model = FurnaceDoorLimits

    controller_state: A[
        SignalR[str],
        Query("Status", parse_state, manual="door_controller.py, get_state"),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TcpConnection,
        settings: FurnaceDoorSettings,
        limits: FurnaceDoorLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._client = LineClient(
            name,
            connection,
            terminator=b"\n",
            deadline_s=5.0,
            silence_s=_SILENCE_S,
            is_kept_open=False,
        )
        super().__init__(name, entry, self._client, self._client.link)
        # A connection lives for one request: the check cannot be part of opening it.
        self.link.identify = None

    @override
    async def connect_link(self) -> None:
        await self._check_identity()
        await self.connect()

    @override
    async def read_identity(self) -> Identity:
        try:
            status = await self.read_status()
        except MalformedReply as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} is no door "
                f"controller: {exc}"
            ) from exc
        except TransportError as exc:
            raise ConnectError(f"{exc}; is it on, and is the address right?") from exc
        return Identity(model="door controller", serial_number=status.serial_number)

    async def read_status(self) -> DoorStatus:
        """Ask the controller how it is.

        Raises:
            MalformedReply: If it keeps answering nonsense, or knows no such door.
            ConnectError: If another controller answers than at first.
            TransportError: If it does not answer.
        """
        known = self.identity
        if known is not None:
            try:
                status = self._parse(await self._client.ask("Status"))
            except MalformedReply:
                pass  # perhaps one spoiled answer
            else:
                if status.serial_number == known.serial_number:
                    return status
        return await self._read_confirmed()

    async def _read_confirmed(self) -> DoorStatus:
        """Ask until answers agree: one flipped bit makes another serial number."""
        status = await self._client.ask_confirmed("Status", self._parse)
        known = self.identity
        if known is not None and known.serial_number != status.serial_number:
            raise ConnectError(
                f"{self.name}: controller {status.serial_number} answers at "
                f"{self.link.endpoint}, it was {known.serial_number} before"
            )
        return status

    def _parse(self, lines: list[str]) -> DoorStatus:
        """Return the status in an answer.

        Raises:
            MalformedReply: If it is none, or does not mention this door.
        """
        (line,) = lines
        try:
            status = parse_status(line)
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: {exc}") from exc
        door = self.settings.door
        if door not in status.doors:
            raise MalformedReply(
                f"{self.name}: {line!r} does not say how door {door} is"
            )
        return status

    @override
    @classmethod
    def references(cls, settings: FurnaceDoorSettings) -> list[Reference]:
        return [
            Reference(("encloses",), "enclosure", settings.encloses, sole_role="door")
        ]

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> DoorSpecification:
        """What the lab and the instrument allow."""
        return DoorSpecification(
            name=self.name,
            encloses=self.settings.encloses,
            max_open_degc=self.limits.furnace_degc[1],
        )

    @property
    def encloses(self) -> str:
        """Name of the device whose locations lie behind it."""
        return self.settings.encloses

    @property
    def max_open_degc(self) -> float:
        """Chamber temperature up to which it may be opened [degC]."""
        return self.limits.furnace_degc[1]

    @AsyncStatus.wrap
    async def set(self, value: DoorState) -> None:
        """Open or close the door and wait until it is so.

        If the wait is cancelled the door ends its motion.

        Raises:
            InstrumentError: If the controller reports an error, or the door is not
                there in time; where it is then is not known.
            TransportError: If the controller cannot be reached.
            MalformedReply: If it answers nonsense.
        """
        wanted = value.capitalize()
        loop = running_loop()
        deadline = loop.time() + self.settings.max_travel_s
        status = await self._wait_until_still(deadline, f"before it could be {value}")
        if status.doors[self.settings.door] == wanted:
            return
        command = f"{COMMANDS[value]} {self.settings.door}"
        begun = loop.time()
        await self._command(command)
        deadline = begun + self.settings.max_travel_s
        while True:
            await asyncio.sleep(_PERIOD_S)
            status = await self._wait_until_still(deadline, f"on its way to {value}")
            if status.doors[self.settings.door] == wanted:
                return
            if loop.time() - begun > _START_S:
                status = await self._read_confirmed()
                if status.state != "STOP" or status.doors[self.settings.door] == wanted:
                    continue  # it was a spoiled answer that said otherwise
                raise InstrumentError(
                    f"{self.name}: the controller has stopped {loop.time() - begun:.0f}"
                    f" s after {command} and the door is not {value}"
                )

    async def _command(self, command: str) -> None:
        """Send *command*; the status will tell what came of it.

        It states where the door shall be: repeating it is harmless. A controller that
        does not know where the door is does not answer at all.

        Raises:
            InstrumentError: If the controller does not know the command.
            ConnectError: If it cannot be reached any more.
        """
        try:
            check_acknowledgement(await self._client.ask(command, is_question=False))
        except InstrumentError as exc:
            raise InstrumentError(f"{self.name}: {command}: {exc}", exc.code) from exc
        except (ReplyTimeout, MalformedReply) as exc:
            _log.warning("%s: %s: %s", self.name, command, exc)

    async def _wait_until_still(self, deadline: float, when: str) -> DoorStatus:
        """Return the status once nothing moves.

        Raises:
            InstrumentError: If the controller reports an error or does not stop.
        """
        while True:
            is_late = running_loop().time() > deadline
            status = await self.read_status()
            if status.state == "ERROR":
                raise InstrumentError(
                    f"{self.name}: the controller reports an error {when}; is the door "
                    "jammed? It drives a door shut that did not open in time. Look at "
                    "it before anything reaches for it, then switch the controller off "
                    "and on",
                    "ERROR",
                )
            if status.state == "STOP":
                return status
            if is_late:
                raise InstrumentError(
                    f"{self.name}: the door still moves {when}; allowed are "
                    f"{self.settings.max_travel_s:g} s"
                )
            await asyncio.sleep(_PERIOD_S)
