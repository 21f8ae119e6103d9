"""Signals and commands of instruments: one road for every value and every write.

A driver writes ``process_value: A[SignalR[float], Holding(1, decimals=1,
units="degC")]``: the address says where the value is and what it means, the signal
class says what may be done with it, and nothing else needs to be written.

Whatever is read, by a plan, a firing's sampler or a poll, becomes the signal's latest
reading, and everybody who subscribed hears it once. Whatever is written passes the
device's gate: :func:`write` and :func:`execute` are for the driver's own operations;
``bps.mv`` reaches only what its address lets a plan write.
"""

from __future__ import annotations

import enum
import inspect
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bluesky.protocols import Location, Reading
from event_model import DataKey
from ophyd_async import core as ophyd
from ophyd_async.core import (
    AsyncStatus,
    Callback,
    Command,
    CommandBackend,
    Device,
    DeviceConnector,
    DeviceFiller,
    LazyMock,
    MockSignalBackend,
    Signal,
    SignalBackend,
    SignalDatatypeT,
    SignalMetadata,
    SignalW,
    make_datakey,
)
from typing_extensions import override

from ppu.core.errors import InternalError, LimitError, PPUError
from ppu.core.labtime import running_loop
from ppu.core.notices import Bystander
from ppu.devices.address import Address, InvalidReading, Measured
from ppu.devices.gate import Gate, Write
from ppu.devices.readings import INVALID_SEVERITY, Poller, ask_once, sharing_nothing

__all__ = [
    "SignalR",
    "SignalRW",
    "Wire",
    "WireConnector",
    "execute",
    "is_open_to_plans",
    "record",
    "units_of",
    "write",
]

_Subscriber = Callable[[dict[str, Reading[Any]]], Any]


class SignalR(ophyd.SignalR[SignalDatatypeT]):
    """A signal that is read from the wire whenever somebody reads it.

    Unlike ophyd-async's, it is not polled because it is staged: polls begin with the
    first who subscribes, and a read is always a read. A subscriber that raises is told
    to people, and hears what comes next; whoever reads is not disturbed.
    """

    @AsyncStatus.wrap
    async def stage(self) -> None:
        """Do nothing: what is staged is read when a plan reads it."""

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        """Do nothing."""

    @override
    async def read(self, cached: bool | None = None) -> dict[str, Reading[Any]]:
        readings: dict[str, Reading[Any]] = await super().read(bool(cached))
        return readings

    @override
    async def get_value(self, cached: bool | None = None) -> SignalDatatypeT:
        value: SignalDatatypeT = await super().get_value(bool(cached))
        return value

    @override
    def subscribe_reading(self, function: Callback[dict[str, Reading[Any]]]) -> None:
        guarded = self._guards.get(function)
        if guarded is None:
            guarded = self._guards[function] = Bystander(self.name, function)
        super().subscribe_reading(guarded)

    subscribe = subscribe_reading

    @override
    def clear_sub(self, function: Callback[dict[str, Reading[Any]]]) -> None:
        super().clear_sub(self._guards.pop(function, function))

    @property
    def _guards(self) -> dict[_Subscriber, Bystander]:
        guards: dict[_Subscriber, Bystander] = vars(self).setdefault("_guarded", {})
        return guards


class SignalRW(SignalR[SignalDatatypeT], ophyd.SignalRW[SignalDatatypeT]):
    """A signal that the driver writes, and a plan if its address lets it."""

    @override
    async def locate(self) -> Location[SignalDatatypeT]:
        backend = _backend_of(self)
        return Location(
            setpoint=await backend.get_setpoint(), readback=await self.get_value()
        )


@dataclass(frozen=True)
class Wire:
    """What the signals of one device share.

    Args:
        client: What the addresses read and write through.
        gate: What each write passes.
        poller: What reads them while somebody watches.
    """

    client: Any
    gate: Gate
    poller: Poller


def _as_datatype(value: Any, datatype: Any, name: str) -> Any:
    """Return *value* as what its signal holds: limits compare nothing else.

    Numbers of numpy are numbers, text is none.

    Raises:
        LimitError: If it is nothing of the kind.
    """
    if not inspect.isclass(datatype) or type(value) is datatype:
        return value
    if issubclass(datatype, enum.Enum):
        try:
            return datatype(value)
        except ValueError:
            known = ", ".join(str(choice.value) for choice in datatype)
            raise LimitError(f"{name}: {value!r} is none of {known}") from None
    if issubclass(datatype, int | float) and isinstance(value, numbers.Real):
        number = float(value)
        if datatype is not int or number.is_integer():
            return datatype(number)
    if isinstance(value, datatype):
        return value
    raise LimitError(f"{name}: {value!r} is no {datatype.__name__}")


def _backend_of(signal: Signal[Any] | Command[..., Any]) -> Any:
    """Return what is behind *signal* at present: the wire, or a mock of it."""
    return signal._connector.backend


class _WireSignalBackend(SignalBackend[Any]):
    """Reads and writes one address through the client of its device."""

    def __init__(self, datatype: type[Any] | None, wire: Wire) -> None:
        if datatype is None:
            raise InternalError("a signal on a wire must state its type")
        super().__init__(datatype)
        self._type: type[Any] = datatype
        self._wire = wire
        self.address: Address[Any]
        self.name = ""
        self.latest: Reading[Any] | None = None
        """What was heard last, by whomever."""
        self.is_sampled = False
        """Whether that was a driver's own sample, with more to come."""
        self._callback: Callback[Reading[Any]] | None = None
        self._last_put: Any = None

    # -- the road of readings --------------------------------------------------------

    def publish(
        self, value: Any, message: str = "", *, is_sampled: bool = False
    ) -> Reading[Any]:
        """Let *value*, heard now, be the latest; with a *message* it is invalid."""
        reading = Reading(
            value=value,
            timestamp=running_loop().stamp(),
            alarm_severity=INVALID_SEVERITY if message else 0,
        )
        if message:
            reading["message"] = message
        self.latest = reading
        self.is_sampled = is_sampled
        self._tell_subscribers(reading)
        return reading

    def _tell_subscribers(self, reading: Reading[Any]) -> None:
        if self._callback is not None:
            with sharing_nothing():  # what they begin reads for itself
                self._callback(reading)

    def _publish_unknown(self, why: str) -> None:
        """Let everybody hear that nobody knows the value any more."""
        if self._type is float:
            self.publish(math.nan, why)
        elif self.latest is not None:
            # The last word, with its own time: no document must show it as new.
            self.latest = Reading(
                value=self.latest["value"],
                timestamp=self.latest["timestamp"],
                alarm_severity=INVALID_SEVERITY,
                message=why,
            )
            self._tell_subscribers(self.latest)

    async def _read(self) -> Reading[Any]:
        """Return what the wire says, or what was measured last.

        Raises:
            InvalidReading: If it cannot be used.
        """
        if isinstance(self.address, Measured):
            if self.latest is None:
                raise InvalidReading(f"{self.name}: nothing was measured yet")
            return self.latest
        try:
            raw = await ask_once(self.address, self._wire.client)
            value = self.address.to_value(raw, self._type, self.name)
        except InvalidReading as exc:
            if self._type is float:
                self.publish(math.nan, str(exc))
            raise
        return self.publish(value)

    async def poll(self) -> None:
        """Read for whoever watches; what cannot be read is heard as invalid."""
        try:
            await self._read()
        except PPUError as exc:
            is_published = isinstance(exc, InvalidReading) and self._type is float
            if not is_published:
                self._publish_unknown(str(exc))

    @override
    async def get_value(self) -> Any:
        return (await self._read())["value"]

    @override
    async def get_reading(self) -> Reading[Any]:
        try:
            return await self._read()
        except InvalidReading:
            # Documents need a number; nothing may act on it.
            if self._type is float and self.latest is not None:
                return self.latest
            raise

    @override
    def set_callback(self, callback: Callback[Reading[Any]] | None) -> None:
        if callback is not None and self._callback is not None:
            raise InternalError(f"{self.name} is being watched already")
        self._callback = callback
        if isinstance(self.address, Measured):
            if callback is not None and self.latest is not None:
                callback(self.latest)
        elif callback is not None:
            if self._wire.poller.watch(self) and self.latest is not None:
                callback(self.latest)
        else:
            self._wire.poller.unwatch(self)

    # -- the road of writes ----------------------------------------------------------

    @override
    async def put(self, value: Any) -> None:
        await self.write(value, is_raw=True)

    async def write(self, value: Any, *, is_raw: bool = False) -> None:
        """Write *value*, if the gate lets it pass.

        Raises:
            InterlockError: If a plan may not write it directly.
            LimitError: If it is outside of a limit.
        """
        value = _as_datatype(value, self._type, self.name)
        raw = self.address.to_raw(value, self.name)
        self._wire.gate.check(Write(self.name, value, self.address, is_raw))
        await self.address.write(self._wire.client, raw)
        self._last_put = value

    @override
    async def get_setpoint(self) -> Any:
        return self._last_put if self._last_put is not None else await self.get_value()

    # -- what it is ------------------------------------------------------------------

    @property
    def metadata(self) -> SignalMetadata:
        """Unit, precision, limits and choices."""
        return self.address.metadata(self._type)

    @override
    def source(self, name: str, read: bool) -> str:
        self.name = name
        return str(self.address)

    @override
    async def connect(self, timeout: float) -> None:
        """Do nothing: the device's connector opened the link."""

    @override
    async def get_datakey(self, source: str) -> DataKey:
        # The example value fixes shape and type; the wire is not read for it.
        example = (
            next(iter(self._type))
            if issubclass(self._type, enum.Enum)
            else self._type()
        )
        return make_datakey(self._type, example, source, self.metadata)


class _WireCommandBackend(CommandBackend[Any, Any]):
    """Carries out the command at one address."""

    def __init__(self, signature: inspect.Signature | None, wire: Wire) -> None:
        if signature is not None and signature.return_annotation is type(None):
            # ophyd-async's mock has no converter for NoneType, only for None.
            signature = signature.replace(return_annotation=None)
        super().__init__(signature)
        self._wire = wire
        self.address: Address[Any]
        self.name = ""

    @override
    def source(self, name: str) -> str:
        self.name = name
        return str(self.address)

    @override
    async def connect(self, timeout: float) -> None:
        """Do nothing: the device's connector opened the link."""

    @override
    async def execute(self, *args: Any, **kwargs: Any) -> None:
        await self.command(*args, is_raw=True, **kwargs)

    async def command(self, *args: Any, is_raw: bool = False, **kwargs: Any) -> None:
        """Carry out the command, if the gate lets it pass.

        Raises:
            InterlockError: If a plan may not command it directly.
            LimitError: If what it is given is outside of a limit.
        """
        wanted = self.signature.parameters.values() if self.signature else ()
        given = [
            _as_datatype(value, parameter.annotation, self.name)
            for value, parameter in zip(args, wanted, strict=True)
        ]
        raw = [self.address.to_raw(value, self.name) for value in given]
        for value in given or [None]:
            self._wire.gate.check(Write(self.name, value, self.address, is_raw))
        await self.address.execute(self._wire.client, *raw, **kwargs)


def record(signal: ophyd.SignalR[Any], value: Any, complaint: str = "") -> None:
    """Let *value*, which was heard now in another way, be what *signal* says.

    Args:
        signal: A signal of an instrument.
        value: What was heard.
        complaint: Why it must not be used, empty if it may.
    """
    backend = _backend_of(signal)
    if isinstance(backend, _WireSignalBackend):
        backend.publish(value, complaint, is_sampled=True)
    elif isinstance(backend, MockSignalBackend):
        backend.set_value(value)


async def write(signal: SignalW[SignalDatatypeT], value: SignalDatatypeT) -> None:
    """Write *value* as one of the driver's own operations.

    Raises:
        LimitError: If it is outside of a limit; nothing was sent.
        TransportError: If the instrument cannot be reached.
    """
    backend = _backend_of(signal)
    if isinstance(backend, _WireSignalBackend):
        await backend.write(value)
    else:
        await signal.set(value)


async def execute(command: Command[..., Any], *args: Any) -> None:
    """Carry out *command* as one of the driver's own operations.

    Raises:
        TransportError: If the instrument cannot be reached.
    """
    backend = _backend_of(command)
    if isinstance(backend, _WireCommandBackend):
        await backend.command(*args)
    else:
        await command.execute(*args)


def is_open_to_plans(child: Signal[Any] | Command[..., Any]) -> bool:
    """Return whether a plan may write *child*, or trigger it, directly."""
    backend = _backend_of(child)
    is_on_wire = isinstance(backend, _WireSignalBackend | _WireCommandBackend)
    return is_on_wire and backend.address.plan_may_write


def units_of(signal: ophyd.SignalR[Any]) -> str:
    """Return the unit of *signal*, nothing if it has none."""
    backend = _backend_of(signal)
    if isinstance(backend, MockSignalBackend):
        backend = backend.initial_backend
    return (
        backend.address.units or "" if isinstance(backend, _WireSignalBackend) else ""
    )


class WireConnector(DeviceConnector):
    """Creates a device's signals from their addresses and opens its link.

    Args:
        wire: What its signals share.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._filler: DeviceFiller[Any, Any, Any] | None = None

    @override
    def create_children_from_annotations(self, device: Device) -> None:
        if self._filler is not None:
            return
        self._filler = DeviceFiller(
            device=device,
            signal_backend_factory=lambda datatype: _WireSignalBackend(
                datatype, self._wire
            ),
            device_connector_factory=DeviceConnector,
            command_backend_factory=lambda signature: _WireCommandBackend(
                signature, self._wire
            ),
        )
        for backend, extras in self._filler.create_signals_from_annotations():
            backend.address = _take_address(extras)
        for backend, extras in self._filler.create_commands_from_annotations():
            backend.address = _take_address(extras)
        self._filler.check_created()
        for name, child in device.children():
            # ophyd-async's own answers from what was polled while it is staged.
            if isinstance(child, ophyd.SignalR) and not isinstance(child, SignalR):
                raise TypeError(
                    f"{type(device).__name__}.{name} must be a SignalR or SignalRW of "
                    "ppu.devices, whose readings are always read"
                )

    @override
    async def connect_mock(self, device: Device, mock: LazyMock[Any]) -> None:
        await super().connect_mock(device, mock)
        for _, child in device.children():
            if isinstance(child, Signal):
                mocked = _backend_of(child)
                if isinstance(mocked, MockSignalBackend) and isinstance(
                    mocked.initial_backend, _WireSignalBackend
                ):
                    # Mocks know the type only; keep units, limits and choices.
                    metadata = mocked.initial_backend.metadata
                    mocked.soft_backend.metadata = metadata

    @override
    async def connect_real(
        self, device: Device, timeout: float, force_reconnect: bool
    ) -> None:
        for _, child in device.children():
            # Every exchange has a deadline of its own, also when it is repeated. A
            # time-out of ophyd-async around the whole call would cut that short, with
            # an error that names no device.
            child._timeout = None
        await super().connect_real(device, timeout, force_reconnect)


def _take_address(extras: list[Any]) -> Address[Any]:
    """Remove the address from *extras* and return it."""
    addresses = [extra for extra in extras if isinstance(extra, Address)]
    if len(addresses) != 1:
        raise TypeError(f"want one address, got {addresses}")
    extras.remove(addresses[0])
    return addresses[0]
