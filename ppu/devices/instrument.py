"""What every driver is: a device with one link, an identity, and stated facts."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bluesky.protocols import Reading
from ophyd_async.core import SignalR, StandardReadable
from pydantic import BaseModel, ConfigDict

from ppu.core.errors import ConnectError, InternalError
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.devices.signals import InvalidReading, Quality, WireConnector, quality_of
from ppu.transports.link import Link, LinkStatistics

__all__ = ["DriverFacts", "Identity", "Instrument", "NoLimits", "NoSettings"]


@dataclass(frozen=True)
class Identity:
    """Who an instrument says it is."""

    model: str
    serial_number: str | None
    firmware: str | None = None


@dataclass(frozen=True)
class DriverFacts:
    """What a driver author knows and does not know of the instrument.

    Args:
        maker: Maker of the instrument.
        model: Its model.
        wire: Name of its wire language, such as ``modbus-rtu``.
        sources: Documents and code that the driver was written from.
        verified: What was tried on a real instrument, and on which firmware; empty
            if nothing was.
        open_questions: What the sources leave open, and what is done about it.
        orphan_behaviour: What the instrument does when nobody talks to it any more.
    """

    maker: str
    model: str
    wire: str
    sources: tuple[str, ...]
    verified: str
    open_questions: tuple[str, ...]
    orphan_behaviour: str


class NoSettings(BaseModel):
    """A driver that needs to know nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoLimits(BaseModel):
    """A driver whose instrument cannot exceed anything."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Instrument(StandardReadable):
    """Base of all drivers.

    A driver states its facts, the models of its settings and limits and the
    transports it can use as class data, makes its client in ``__init__`` and declares
    its signals as annotations.

    Args:
        name: Name of the device in the lab file.
        entry: Its entry in the lab file.
        client: What the addresses of its signals read and write through.
        link: The path below the client.
    """

    facts: ClassVar[DriverFacts]
    connections: ClassVar[tuple[type[BaseModel], ...]]
    settings_model: ClassVar[type[BaseModel]] = NoSettings
    limits_model: ClassVar[type[BaseModel]] = NoLimits
    abort_states: ClassVar[Mapping[str, str]] = {}
    """What ``on_abort`` may name in a lab file, and what it does."""
    heats: ClassVar[bool] = False
    """Whether it can make something dangerously hot."""
    stale_after_s: ClassVar[float] = 60.0

    def __init__(self, name: str, entry: DeviceEntry, client: Any, link: Link) -> None:
        self.entry = entry
        self.link = link
        self.identity: Identity | None = None
        self.expected_nonce: str | None = None
        link.identify = self._check_identity
        super().__init__(name=name, connector=WireConnector(client))
        self.set_name(name, child_name_separator="_")

    @classmethod
    def inconsistencies(cls, settings: Any, limits: Any) -> list[str]:
        """Return what settings and limits of a lab file contradict in each other.

        Args:
            settings: The driver's settings.
            limits: The driver's limits.
        """
        del settings, limits
        return []

    # -- identity ------------------------------------------------------------------

    @abstractmethod
    async def read_identity(self) -> Identity:
        """Ask the instrument who it is."""

    async def _check_identity(self) -> None:
        """Refuse a stranger on the port.

        Raises:
            ConnectError: If another model or another serial number answers.
        """
        identity = await self.read_identity()
        wanted = self.entry.serial_number
        if wanted not in ("unset", identity.serial_number):
            raise ConnectError(
                f"{self.name}: the lab file says serial number {wanted}, but "
                f"{identity.serial_number} answers at {self.link.endpoint}; "
                "are two instruments swapped?"
            )
        nonce = self.expected_nonce
        if nonce is not None and identity.serial_number != nonce:
            raise ConnectError(
                f"{self.name}: {self.link.endpoint} is not the simulated bench of the "
                f"lab file: it answers {identity.serial_number}, not {nonce}; start "
                "`ppu sim --write-lab` again and use the lab file it writes"
            )
        if self.identity is None and not self.facts.verified:
            logging.getLogger("ppu.link").info(
                "%s: the driver for %s %s was never verified on hardware",
                self.name,
                self.facts.maker,
                self.facts.model,
            )
        self.identity = identity

    async def connect_link(self) -> None:
        """Open the link, check who answers, and make the signals ready.

        Raises:
            ConnectError: If the instrument cannot be reached or is a stranger.
        """
        await self.link.open()
        await self.connect()

    async def disconnect(self) -> None:
        """Close the link."""
        await self.link.close()

    # -- readings ------------------------------------------------------------------

    def signals(self) -> dict[str, SignalR[Any]]:
        """Return the readable signals by name."""
        return {
            name: child for name, child in self.children() if isinstance(child, SignalR)
        }

    async def read_signal(self, name: str) -> Reading[Any]:
        """Return the present reading of one signal, whatever its quality."""
        signal = self.signals()[name]
        try:
            readings: dict[str, Reading[Any]] = await signal.read()
        except InvalidReading as exc:
            return Reading(
                value=exc.code,
                timestamp=running_loop().stamp(),
                alarm_severity=3,
                message=str(exc),
            )
        return next(iter(readings.values()))

    def quality(self, reading: Reading[Any]) -> Quality:
        """Return whether *reading* may be acted upon now."""
        return quality_of(reading, running_loop().stamp(), self.stale_after_s)

    def statistics(self) -> LinkStatistics:
        """Return the counters of the link."""
        return self.link.statistics()

    async def check_idle(self) -> None:
        """Refuse to begin a job while the instrument does something else.

        Raises:
            InterlockError: If it is busy with what this program did not start.
        """

    # -- stopping ------------------------------------------------------------------

    async def go_to_abort_state(self) -> str:
        """Go to the state that the lab file declares for an aborted plan.

        Returns:
            What was done and seen, for a person: the state is verified by reading
            it back.

        Raises:
            TransportError: If the instrument could not be reached.
            InstrumentError: If it did not take the state.
        """
        if self.entry.on_abort is not None:
            raise InternalError(
                f"{type(self).__name__} declares abort states but does not go there"
            )
        return ""

    async def hot_parts(self) -> str:
        """Return a sentence on what is still dangerous to touch, or nothing."""
        return ""
