"""Registers and commands as data, bound to ophyd-async signals.

A driver writes ``process_value: A[SignalR[float], Holding(1, decimals=1,
units="degC")]``: the address says where the value is and what it means, the signal
class says what may be done with it, and nothing else needs to be written.
"""

from __future__ import annotations

import enum
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bluesky.protocols import Reading
from event_model import DataKey, Limits, LimitsRange
from ophyd_async.core import (
    Callback,
    CommandBackend,
    Device,
    DeviceConnector,
    DeviceFiller,
    LazyMock,
    MockSignalBackend,
    Signal,
    SignalBackend,
    SignalMetadata,
    SignalR,
    StrictEnum,
    make_datakey,
)
from typing_extensions import override

from ppu.core.errors import InstrumentError, InternalError, LimitError
from ppu.core.labtime import running_loop

__all__ = [
    "Address",
    "InvalidReading",
    "Measured",
    "Quality",
    "WireConnector",
    "quality_of",
    "record",
]

ClientT = TypeVar("ClientT")

_SEVERITY_INVALID = 3


class InvalidReading(InstrumentError):  # noqa: N818 - reads as the condition it names
    """The instrument answered, but the value must not be used."""


class Quality(enum.StrEnum):
    """Whether a reading may be acted upon."""

    GOOD = "good"
    STALE = "stale"
    INVALID = "invalid"


def quality_of(reading: Reading[Any], now: float, stale_after_s: float) -> Quality:
    """Return the quality of *reading* at the UTC stamp *now* [s since 1970]."""
    if reading.get("alarm_severity", 0) >= _SEVERITY_INVALID:
        return Quality.INVALID
    if now - reading["timestamp"] > stale_after_s:
        return Quality.STALE
    return Quality.GOOD


@dataclass(frozen=True, kw_only=True)
class Address(ABC, Generic[ClientT]):
    """Where a value is on the instrument, and what it means.

    Args:
        units: Unit of the value; a number must state one (``""`` if it has none).
        decimals: Digits after the decimal point that the instrument sends.
        low: Lowest value that can be true, or may be set.
        high: Highest value that can be true, or may be set.
        codes: What each register value means, for values of an enumeration.
        wears_eeprom: Whether each write wears a memory of limited life.
        manual: Where the instrument's manual describes it.
    """

    units: str | None = None
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    codes: Mapping[int, StrictEnum] = field(default_factory=dict)
    wears_eeprom: bool = False
    manual: str = ""

    @abstractmethod
    def __str__(self) -> str:
        """Return the address as the source of a signal."""

    @abstractmethod
    async def read(self, client: ClientT) -> Any:
        """Return the raw value, a number in *units* or a text."""

    async def write(self, client: ClientT, value: Any) -> None:
        """Write the raw value."""
        raise InternalError(f"{self} can only be read; {value!r} was for {client}")

    async def execute(self, client: ClientT, *args: Any) -> None:
        """Carry out the command at this address."""
        raise InternalError(f"{self} is not a command ({client}, {args})")

    # -- meaning -------------------------------------------------------------------

    def to_value(self, raw: Any, datatype: type[Any], name: str) -> Any:
        """Return *raw* as *datatype*.

        Raises:
            InvalidReading: If it lies outside of what can be true, or is no known code.
        """
        if issubclass(datatype, enum.Enum):
            meaning = self.codes.get(int(raw))
            if meaning is None:
                raise InvalidReading(
                    f"{name}: {raw} is no known code of {datatype.__name__}; known are "
                    + ", ".join(f"{code} {text}" for code, text in self.codes.items()),
                    int(raw),
                )
            return meaning
        if datatype is str:
            return str(raw)
        if datatype is bool:
            return bool(raw)
        value = datatype(raw)
        if not self._is_plausible(value):
            raise InvalidReading(
                f"{name}: {value} {self.units or ''} cannot be true; possible are "
                f"{self.low} to {self.high} (sensor break?)",
                str(raw),
            )
        return value

    def to_raw(self, value: Any, name: str) -> Any:
        """Return what to write for *value*.

        Raises:
            LimitError: If *value* is outside of the limits of this address.
        """
        if isinstance(value, enum.Enum):
            for code, meaning in self.codes.items():
                if meaning is value:
                    return code
            raise LimitError(f"{name}: {value} cannot be written here")
        if isinstance(value, int | float) and not self._is_plausible(value):
            raise LimitError(
                f"{name}: {value} {self.units or ''} is outside of "
                f"{self.low} to {self.high}"
            )
        return value

    def _is_plausible(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
        )

    def metadata(self, datatype: type[Any]) -> SignalMetadata:
        """Return unit, precision, limits and choices for descriptors."""
        metadata = SignalMetadata()
        if self.units is not None:
            metadata["units"] = self.units
        if self.decimals is not None and datatype is float:
            metadata["precision"] = self.decimals
        if self.low is not None or self.high is not None:
            metadata["limits"] = Limits(
                control=LimitsRange(low=self.low, high=self.high)
            )
        # An array's datatype is a generic alias, no class.
        if inspect.isclass(datatype) and issubclass(datatype, enum.Enum):
            metadata["choices"] = [str(choice.value) for choice in datatype]
        return metadata


@dataclass(frozen=True, kw_only=True)
class Measured(Address[Any]):
    """The result of the last measurement, which the driver keeps.

    The driver calls :func:`record`; reading gives that value with the time at which
    it was measured, not the time at which it is read.
    """

    @override
    def __str__(self) -> str:
        return "measured://last"

    @override
    async def read(self, client: Any) -> Any:
        raise InternalError(f"a measured value is not read from {client}")


class _WireSignalBackend(SignalBackend[Any]):
    """Reads and writes one address through the client of its device."""

    def __init__(self, datatype: type[Any] | None, client: Any) -> None:
        if datatype is None:
            raise InternalError("a signal on a wire must state its type")
        super().__init__(datatype)
        self._type: type[Any] = datatype
        self._client = client
        self.address: Address[Any]
        self.name = ""
        self._callback: Callback[Reading[Any]] | None = None
        self._last_put: Any = None
        self._recorded: Reading[Any] | None = None

    def record(self, value: Any) -> None:
        """Keep *value* as measured now."""
        stamp = running_loop().stamp()
        self._recorded = Reading(value=value, timestamp=stamp, alarm_severity=0)
        self._notify(value)

    @override
    def source(self, name: str, read: bool) -> str:
        self.name = name
        return str(self.address)

    @override
    async def connect(self, timeout: float) -> None:
        """Do nothing: the device's connector opened the link."""

    @override
    async def put(self, value: Any) -> None:
        raw = self.address.to_raw(value, self.name)
        await self.address.write(self._client, raw)
        self._last_put = value
        self._notify(value)

    @override
    async def get_value(self) -> Any:
        if isinstance(self.address, Measured):
            return self._last_recorded()["value"]
        raw = await self.address.read(self._client)
        value = self.address.to_value(raw, self._type, self.name)
        if self._callback is not None:
            self._notify(value)
        return value

    @override
    async def get_reading(self) -> Reading[Any]:
        if isinstance(self.address, Measured):
            return self._last_recorded()
        raw = await self.address.read(self._client)
        stamp = running_loop().stamp()
        try:
            value = self.address.to_value(raw, self._type, self.name)
        except InvalidReading as exc:
            if self._type is not float:
                raise
            # Documents need a number; nothing may act on it.
            return Reading(
                value=math.nan,
                timestamp=stamp,
                alarm_severity=_SEVERITY_INVALID,
                message=str(exc),
            )
        return Reading(value=value, timestamp=stamp, alarm_severity=0)

    @override
    async def get_setpoint(self) -> Any:
        return self._last_put if self._last_put is not None else await self.get_value()

    @override
    async def get_datakey(self, source: str) -> DataKey:
        # The example value fixes shape and type; the wire is not read for it.
        example = (
            next(iter(self._type))
            if issubclass(self._type, enum.Enum)
            else self._type()
        )
        return make_datakey(
            self._type, example, source, self.address.metadata(self._type)
        )

    @override
    def set_callback(self, callback: Callback[Reading[Any]] | None) -> None:
        if callback is not None and self._callback is not None:
            raise InternalError(f"{self.name} is being watched already")
        self._callback = callback

    def _last_recorded(self) -> Reading[Any]:
        if self._recorded is None:
            raise InvalidReading(f"{self.name}: nothing was measured yet")
        return self._recorded

    def _notify(self, value: Any) -> None:
        if self._callback is not None:
            stamp = running_loop().stamp()
            self._callback(Reading(value=value, timestamp=stamp, alarm_severity=0))


class _WireCommandBackend(CommandBackend[Any, Any]):
    """Carries out the command at one address."""

    def __init__(self, signature: inspect.Signature | None, client: Any) -> None:
        if signature is not None and signature.return_annotation is type(None):
            # ophyd-async's mock has no converter for NoneType, only for None.
            signature = signature.replace(return_annotation=None)
        super().__init__(signature)
        self._client = client
        self.address: Address[Any]

    @override
    def source(self, name: str) -> str:
        return str(self.address)

    @override
    async def connect(self, timeout: float) -> None:
        """Do nothing: the device's connector opened the link."""

    @override
    async def execute(self, *args: Any, **kwargs: Any) -> None:
        await self.address.execute(self._client, *args, **kwargs)


def record(signal: SignalR[Any], value: Any) -> None:
    """Keep *value* as what *signal*, a :class:`Measured` one, measured now."""
    backend = signal._connector.backend
    if isinstance(backend, _WireSignalBackend):
        backend.record(value)
    elif isinstance(backend, MockSignalBackend):
        backend.set_value(value)


class WireConnector(DeviceConnector):
    """Creates a device's signals from their addresses and opens its link.

    Args:
        client: What the addresses read and write through.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._filler: DeviceFiller[Any, Any, Any] | None = None

    @override
    def create_children_from_annotations(self, device: Device) -> None:
        if self._filler is not None:
            return
        self._filler = DeviceFiller(
            device=device,
            signal_backend_factory=lambda datatype: _WireSignalBackend(
                datatype, self._client
            ),
            device_connector_factory=DeviceConnector,
            command_backend_factory=lambda signature: _WireCommandBackend(
                signature, self._client
            ),
        )
        for backend, extras in self._filler.create_signals_from_annotations():
            backend.address = _take_address(extras)
        for backend, extras in self._filler.create_commands_from_annotations():
            backend.address = _take_address(extras)
        self._filler.check_created()

    @override
    async def connect_mock(self, device: Device, mock: LazyMock[Any]) -> None:
        await super().connect_mock(device, mock)
        for _, child in device.children():
            if isinstance(child, Signal):
                connector = child._connector
                backend, mocked = connector._init_backend, connector.backend
                if isinstance(backend, _WireSignalBackend) and isinstance(
                    mocked, MockSignalBackend
                ):
                    # Mocks know the type only; keep units, limits and choices.
                    metadata = backend.address.metadata(backend._type)
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
