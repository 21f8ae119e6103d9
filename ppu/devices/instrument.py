"""What every driver is: a device with one link, an identity, and stated facts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bluesky.protocols import Reading
from ophyd_async.core import (
    DEFAULT_TIMEOUT,
    LazyMock,
    SignalR,
    StandardReadable,
)
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from ppu.core.capabilities import CAPABILITIES
from ppu.core.errors import ConnectError, InterlockError, InternalError
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.core.remedies import Remedy, advise
from ppu.core.specifications import Specification
from ppu.devices.address import InvalidReading
from ppu.devices.gate import Gate
from ppu.devices.operations import Operations, track_operations
from ppu.devices.readings import (
    INVALID_SEVERITY,
    Poller,
    Quality,
    quality_of,
    sharing_exchanges,
)
from ppu.devices.signals import Wire, WireConnector, units_of
from ppu.transports.link import Link, LinkStatistics

__all__ = [
    "DriverFacts",
    "Identity",
    "Instrument",
    "LabDevice",
    "NoLimits",
    "NoSettings",
    "Reference",
]


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


@dataclass(frozen=True)
class Reference:
    """A setting that names something else in the lab file.

    Args:
        place: Keys that lead to it below the device's ``settings``.
        names: What it must name: an ``enclosure`` is a device with locations inside.
        value: What it names.
        provides: Capability that a named device must provide, if any.
        sole_role: What the device is to the one that it names, such as ``door``, if
            no other device may be that, too.
    """

    place: tuple[str | int, ...]
    names: Literal["device", "enclosure", "location"]
    value: str
    provides: str | None = None
    sole_role: str | None = None


class NoSettings(BaseModel):
    """A driver that needs to know nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoLimits(BaseModel):
    """A driver whose instrument cannot exceed anything."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabDevice(ABC):
    """What an open lab does with a device, whoever made its class."""

    facts: ClassVar[DriverFacts]
    connections: ClassVar[tuple[type[BaseModel], ...]]
    settings_model: ClassVar[type[BaseModel]] = NoSettings
    limits_model: ClassVar[type[BaseModel]] = NoLimits
    abort_states: ClassVar[Mapping[str, str]] = {}
    """What ``on_abort``, ``on_orphan`` and ``on_hold`` may name in a lab file, and
    what it does."""
    heats: ClassVar[bool] = False
    """Whether it can make something dangerously hot."""

    @property
    def rests(self) -> bool:
        """Whether it goes to its abort state after every plan, as what heats does.

        Nothing is sent to one that does nothing for a plan.
        """
        return self.heats

    @property
    def is_acting(self) -> bool:
        """Whether it goes on with what a plan began when the plan's step is over."""
        return False

    expected_nonce: str | None
    """What it must answer as its identity, on a simulated bench."""

    @property
    @abstractmethod
    def plan_device(self) -> Any:
        """What plans get."""

    @property
    def specification(self) -> Specification | None:
        """What it says of itself without a wire, for whoever has no driver at hand.

        By default nothing: then only the device itself can judge what is asked of it.
        """
        return None

    @classmethod
    @abstractmethod
    def inconsistencies(cls, settings: Any, limits: Any) -> list[str]:
        """Return what settings and limits of a lab file contradict in each other.

        Args:
            settings: The driver's settings.
            limits: The driver's limits.
        """

    @classmethod
    def references(cls, settings: Any) -> list[Reference]:
        """Return what the settings of a lab file name elsewhere in it.

        Args:
            settings: The driver's settings.
        """
        del settings
        return []

    @classmethod
    @abstractmethod
    def missing_for(cls, capability: str) -> list[str]:
        """Return what it lacks to provide *capability*."""

    def who(self) -> dict[str, str | None]:
        """Return what it said of itself when it was connected; by default nothing."""
        return {}

    @abstractmethod
    async def connect_link(self) -> None:
        """Reach the instrument, check who answers, and make the signals ready.

        Raises:
            ConnectError: If the instrument cannot be reached or is a stranger.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Let the instrument go."""

    def permit_writes(self, permit: Callable[[], None] | None) -> None:
        """Have *permit* called before anything is sent to the instrument.

        Args:
            permit: Raises if this process does not own the instrument any more; None
                if nobody is asked.
        """
        del permit  # a device of another kind has no path that could be kept

    @abstractmethod
    async def check_idle(self) -> None:
        """Refuse to begin a job while the instrument does something else.

        Raises:
            InterlockError: If it is busy with what this program did not start.
        """

    @abstractmethod
    def signal_names(self) -> list[str]:
        """Return the names of what can be read."""

    @abstractmethod
    def units_of(self, name: str) -> str:
        """Return the unit of one signal, nothing if it has none."""

    @abstractmethod
    async def read_signal(self, name: str) -> Reading[Any]:
        """Return the present reading of one signal, whatever its quality."""

    @abstractmethod
    def quality(self, reading: Reading[Any]) -> Quality:
        """Return whether *reading* may be acted upon now."""

    @abstractmethod
    def adopt(self) -> None:
        """Count what the instrument does as this process's, whoever began it.

        It is for the instruments of a job whose process has died and that ends before
        it could join what they do. Nothing is sent: the next
        :meth:`go_to_abort_state` looks what there is to make safe.
        """

    @abstractmethod
    async def go_to_abort_state(self) -> str:
        """Go to the state that the lab file declares for an aborted plan.

        Returns:
            What was done and seen, for a person: the state is verified by reading
            it back.

        Raises:
            TransportError: If the instrument could not be reached.
            InstrumentError: If it did not take the state.
        """

    @abstractmethod
    async def go_to_orphan_state(self) -> str:
        """Make safe what an instrument does whose process has died.

        It is for a process that has just opened the instrument and knows of no plan.
        It is called again every few seconds as long as nobody has taken over, so it
        reads first and writes only what is not so yet.

        Returns:
            What is done and seen, for a person, verified by reading it back; nothing
            if nothing needs to be said.

        Raises:
            TransportError: If the instrument could not be reached.
            InstrumentError: If it did not take the state.
        """

    @abstractmethod
    async def go_to_hold_state(self) -> str:
        """Go to the state that the lab file declares for a job that is put on hold.

        Returns:
            What was done and seen, for a person; nothing if the lab file declares
            nothing, or this device does nothing for a plan.

        Raises:
            TransportError: If the instrument could not be reached.
            InstrumentError: If it did not take the state.
        """

    @abstractmethod
    async def hot_parts(self) -> str:
        """Return a sentence on what is still dangerous to touch, or nothing."""


class Instrument(StandardReadable, LabDevice):
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

    stale_after_s: ClassVar[float] = 60.0
    operations: ClassVar[str] = ""
    """What does safely what a plan must not write directly; by default what the
    device's capabilities offer."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let no driver forget what its verbs began when it goes to its abort state."""
        super().__init_subclass__(**options)
        track_operations(cls)

    def __init__(self, name: str, entry: DeviceEntry, client: Any, link: Link) -> None:
        self.operations_under_way = Operations(name)
        self.entry = entry
        self.link = link
        self.identity: Identity | None = None
        self.expected_nonce = None
        link.identify = self._check_identity
        self.gate = Gate(name, self.operations or self._capabilities(), self._bounds)
        link.permit_change = self.gate.check_exchange
        self._poller = Poller(lambda: self.poll_period_s)
        wire = Wire(client, self.gate, self._poller)
        super().__init__(name=name, connector=WireConnector(wire))
        self.set_name(name, child_name_separator="_")

    @classmethod
    def _capabilities(cls) -> str:
        """Return what the device's capabilities offer, for refusals."""
        offered = [name for name in CAPABILITIES if not cls.missing_for(name)]
        names = " and ".join(offered) or cls.__name__
        return f"the operations of {names}, such as prepare, set, trigger and kickoff"

    def _bounds(self) -> Mapping[str, Any]:
        """Return the lab file's limits of the device by name."""
        return vars(getattr(self, "limits", NoLimits()))

    @property
    def poll_period_s(self) -> float:
        """How often a signal is read while somebody watches it [s]."""
        return 10.0

    @override
    @classmethod
    def inconsistencies(cls, settings: Any, limits: Any) -> list[str]:
        del settings, limits
        return []

    @override
    @classmethod
    def missing_for(cls, capability: str) -> list[str]:
        return [] if CAPABILITIES[capability] in cls.__mro__ else [capability]

    @property
    @override
    def plan_device(self) -> Any:
        return self

    @override
    def permit_writes(self, permit: Callable[[], None] | None) -> None:
        self.link.permit = permit

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
                "that bench again and use the lab file it writes",
                advice=[advise(Remedy.WRITE_BENCH)],
            )
        if self.identity is None and not self.facts.verified:
            logging.getLogger("ppu.link").info(
                "%s: the driver for %s %s was never verified on hardware",
                self.name,
                self.facts.maker,
                self.facts.model,
            )
        self.identity = identity

    @override
    def who(self) -> dict[str, str | None]:
        identity = self.identity
        if identity is None:
            return {}
        return {
            "answered_as": identity.model,
            "serial_number": identity.serial_number,
            "firmware": identity.firmware,
        }

    @override
    async def connect_link(self) -> None:
        await self.link.open()
        await self.connect()

    @override
    async def connect(
        self,
        mock: bool | LazyMock[Any] = False,
        timeout: float = DEFAULT_TIMEOUT,
        force_reconnect: bool = False,
    ) -> None:
        """Make the signals ready; mocked, nothing is sent to the instrument at all.

        Args:
            mock: Whether signals are in memory only.
            timeout: For ophyd-async's own signals [s].
            force_reconnect: Whether to connect again what is connected.
        """
        if mock:
            # Operations ask their client for what is no signal.
            self.link.permit = self._refuse_mocked
        await super().connect(mock, timeout, force_reconnect)

    def _refuse_mocked(self) -> None:
        raise InterlockError(
            f"{self.name}: it is a mock, which has no instrument; a twin has one"
        )

    @override
    async def disconnect(self) -> None:
        await self._poller.close()
        await self.link.close()

    # -- readings ------------------------------------------------------------------

    @override
    async def read(self) -> dict[str, Reading[Any]]:
        with sharing_exchanges():
            return await super().read()

    def signals(self) -> dict[str, SignalR[Any]]:
        """Return the readable signals by name."""
        return {
            name: child for name, child in self.children() if isinstance(child, SignalR)
        }

    @override
    def signal_names(self) -> list[str]:
        return list(self.signals())

    @override
    def units_of(self, name: str) -> str:
        return units_of(self.signals()[name])

    @override
    async def read_signal(self, name: str) -> Reading[Any]:
        signal = self.signals()[name]
        try:
            readings: dict[str, Reading[Any]] = await signal.read()
        except InvalidReading as exc:
            return Reading(
                value=exc.code,
                timestamp=running_loop().stamp(),
                alarm_severity=INVALID_SEVERITY,
                message=str(exc),
            )
        return next(iter(readings.values()))

    @override
    def quality(self, reading: Reading[Any]) -> Quality:
        return quality_of(reading, running_loop().stamp(), self.stale_after_s)

    def statistics(self) -> LinkStatistics:
        """Return the counters of the link."""
        return self.link.statistics()

    @override
    async def check_idle(self) -> None:
        pass

    # -- stopping ------------------------------------------------------------------

    @override
    def adopt(self) -> None:
        pass

    @override
    async def go_to_abort_state(self) -> str:
        return self._stay("on_abort", self.entry.on_abort)

    @override
    async def go_to_orphan_state(self) -> str:
        return self._stay("on_orphan", self.entry.on_orphan)

    @override
    async def go_to_hold_state(self) -> str:
        return self._stay("on_hold", self.entry.on_hold)

    def _stay(self, key: str, state: str | None) -> str:
        """Do nothing, which is right for what does nothing dangerous.

        Raises:
            InternalError: If the lab file was let ask for more.
        """
        if state is not None:
            raise InternalError(
                f"{type(self).__name__} declares abort states but does not go there "
                f"({key}: {state})"
            )
        return ""

    @override
    async def hot_parts(self) -> str:
        return ""
