"""Where a value is on an instrument and what it means, as data."""

from __future__ import annotations

import enum
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from event_model import Limits, LimitsRange
from ophyd_async.core import SignalMetadata, StrictEnum
from typing_extensions import override

from ppu.core.errors import InstrumentError, InternalError, LimitError

__all__ = ["Address", "InvalidReading", "Measured"]

ClientT = TypeVar("ClientT")


class InvalidReading(InstrumentError):  # noqa: N818 - reads as the condition it names
    """The instrument answered, but the value must not be used."""


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
        plan_may_write: Whether a plan may write here with ``bps.mv``, because that can
            neither heat, move nor let flow; otherwise only the driver's operations do.
        limited_by: The limit of the lab file that nothing written here may exceed.
        manual: Where the instrument's manual describes it.
    """

    units: str | None = None
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    codes: Mapping[int, StrictEnum] = field(default_factory=dict)
    wears_eeprom: bool = False
    plan_may_write: bool = False
    limited_by: str = ""
    manual: str = ""

    @abstractmethod
    def __str__(self) -> str:
        """Return the address as the source of a signal."""

    @property
    def exchange(self) -> Hashable:
        """What the wire is asked; addresses with the same one share an answer."""
        return str(self)

    @abstractmethod
    async def ask(self, client: ClientT) -> Any:
        """Carry out the exchange, and return its answer."""

    def pick(self, client: ClientT, answer: Any) -> Any:
        """Return the raw value in *answer*, a number in *units* or a text."""
        del client
        return answer

    async def read(self, client: ClientT) -> Any:
        """Return the raw value, a number in *units* or a text."""
        return self.pick(client, await self.ask(client))

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
    async def ask(self, client: Any) -> Any:
        raise InternalError(f"a measured value is not read from {client}")
