"""Classic ophyd devices as devices of a lab.

A lab that owns ophyd devices names their class as ``driver`` and says ``hardware:
{transport: ophyd, prefix: ...}``; everything under ``settings`` is a keyword argument
of the class. Plans get the ophyd object itself. A class fills a capability by having
its methods and properties; ophyd reads its own clock, so there is no twin of it.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

from bluesky.protocols import Reading
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import get_protocol_members

from ppu.core.capabilities import CAPABILITIES, Furnace
from ppu.core.errors import ConfigurationError, ConnectError, InstrumentError
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.devices.instrument import DriverFacts, LabDevice, NoLimits
from ppu.devices.readings import Quality, quality_of

__all__ = ["ClassicInstrument", "OphydConnection", "classic_driver", "is_classic"]

_STALE_AFTER_S = 60.0


class OphydConnection(BaseModel):
    """A device that ophyd reaches by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["ophyd"]
    prefix: str = Field(default="", description="First argument of the device class")
    timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="To connect"
    )

    @property
    def places(self) -> frozenset[str]:
        """What one process alone may have; without a prefix nobody knows."""
        return frozenset({f"ophyd {self.prefix}"} if self.prefix else ())


class KeywordArguments(BaseModel):
    """What the device class takes beside prefix and name."""

    model_config = ConfigDict(extra="allow", frozen=True)


def is_classic(driver: Any) -> bool:
    """Return whether *driver* is a class of classic ophyd."""
    # Who made the class has imported ophyd; nobody else should pay for it.
    ophydobj = sys.modules.get("ophyd.ophydobj")
    return (
        ophydobj is not None
        and isinstance(driver, type)
        and issubclass(driver, ophydobj.OphydObject)
    )


@cache
def classic_driver(device_class: type) -> type[ClassicInstrument]:
    """Return the driver that holds objects of *device_class*."""
    name = device_class.__name__
    facts = DriverFacts(
        maker="any",
        model=name,
        wire="ophyd",
        sources=(f"{device_class.__module__}.{name}",),
        verified="by whoever wrote the ophyd class",
        open_questions=(),
        orphan_behaviour="that of the control system behind it",
    )
    # A furnace is taken to heat unless its class says that it does not.
    heats = getattr(device_class, "heats", not _missing(device_class, Furnace))
    return type(
        name,
        (ClassicInstrument,),
        {"device_class": device_class, "facts": facts, "heats": bool(heats)},
    )


def _missing(device_class: type, capability: type) -> list[str]:
    """Return the members of *capability* that *device_class* lacks."""
    members = get_protocol_members(capability)
    return sorted(name for name in members if not hasattr(device_class, name))


class ClassicInstrument(LabDevice):
    """Holds one classic ophyd device; made by :func:`classic_driver`.

    Args:
        name: Name of the device in the lab file.
        entry: Its entry in the lab file.
        connection: Prefix and patience.
        settings: Keyword arguments of the device class.
        limits: None: an ophyd class has its own.
    """

    device_class: ClassVar[type]
    facts: ClassVar[DriverFacts]
    connections: ClassVar[tuple[type[BaseModel], ...]] = (OphydConnection,)
    settings_model: ClassVar[type[BaseModel]] = KeywordArguments
    limits_model: ClassVar[type[BaseModel]] = NoLimits
    abort_states: ClassVar[Mapping[str, str]] = {"stop": "halts what is in motion"}

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: OphydConnection,
        settings: KeywordArguments,
        limits: NoLimits,
    ) -> None:
        del limits
        self._lab_name = name
        self.entry = entry
        self.expected_nonce: str | None = None
        self._timeout_s = connection.timeout_s
        arguments = [connection.prefix] if connection.prefix else []
        keywords = settings.model_extra or {}
        try:
            inspect.signature(self.device_class).bind(*arguments, name=name, **keywords)
        except TypeError as exc:
            raise ConfigurationError(
                f"devices.{name}: {self.device_class.__name__} cannot be made with "
                f"prefix and settings of the lab file: {exc}"
            ) from exc
        self._device: Any = self.device_class(*arguments, name=name, **keywords)

    @property
    def plan_device(self) -> Any:
        """The ophyd object."""
        return self._device

    @property
    def name(self) -> str:
        """Name of the device in the lab file."""
        return self._lab_name

    @classmethod
    def inconsistencies(cls, settings: Any, limits: Any) -> list[str]:
        """Return nothing: an ophyd class checks its own arguments."""
        del settings, limits
        return []

    @classmethod
    def missing_for(cls, capability: str) -> list[str]:
        """Return the members of *capability* that the ophyd class lacks."""
        return _missing(cls.device_class, CAPABILITIES[capability])

    async def connect_link(self) -> None:
        """Wait until the device is connected.

        Raises:
            ConnectError: If it is not in time.
        """
        wait = getattr(self._device, "wait_for_connection", None)
        if wait is None:
            return
        try:
            # Classic ophyd waits in the thread that asks.
            await asyncio.to_thread(wait, timeout=self._timeout_s)
        except TimeoutError as exc:
            raise ConnectError(f"{self.name}: {exc}") from exc

    async def disconnect(self) -> None:
        """Give the device up."""
        self._device.destroy()

    async def check_idle(self) -> None:
        """Do nothing: ophyd knows no way to ask."""

    def signal_names(self) -> list[str]:
        """Return the names of what can be read."""
        prefix = f"{self.name}_"
        return [key.removeprefix(prefix) for key in self._device.describe()]

    def units_of(self, name: str) -> str:
        """Return the unit of one signal, nothing if it has none."""
        key = self._key(name, self._device.describe())
        return str(self._device.describe()[key].get("units") or "")

    def _key(self, name: str, keys: Mapping[str, Any]) -> str:
        return name if name in keys else f"{self.name}_{name}"

    async def read_signal(self, name: str) -> Reading[Any]:
        """Return the present reading of one signal."""
        readings = await asyncio.to_thread(self._device.read)
        reading: Reading[Any] = readings[self._key(name, readings)]
        return reading

    def quality(self, reading: Reading[Any]) -> Quality:
        """Return whether *reading* may be acted upon now."""
        return quality_of(reading, running_loop().stamp(), _STALE_AFTER_S)

    def adopt(self) -> None:
        """Do nothing: whatever is in motion is halted in any case."""

    async def go_to_abort_state(self) -> str:
        """Halt what is in motion.

        Raises:
            InstrumentError: If the device does not stop.
        """
        return await self._go_to(self.entry.on_abort)

    async def go_to_orphan_state(self) -> str:
        """Halt what is in motion, if the lab file says so.

        Raises:
            InstrumentError: If the device does not stop.
        """
        return await self._go_to(self.entry.on_orphan)

    async def go_to_hold_state(self) -> str:
        """Halt what is in motion, if the lab file says so.

        Raises:
            InstrumentError: If the device does not stop.
        """
        return await self._go_to(self.entry.on_hold)

    async def _go_to(self, state: str | None) -> str:
        stop = getattr(self._device, "stop", None)
        if stop is None or state is None:
            return ""
        try:
            await asyncio.to_thread(stop, success=False)
        except Exception as exc:  # whatever a foreign class raises, people must know
            raise InstrumentError(f"{self.name}: did not stop: {exc}") from exc
        return f"{self.name}: stopped (not verified: ophyd cannot say)"

    async def hot_parts(self) -> str:
        """Return nothing: ophyd does not know."""
        return ""
