"""Controllers that send temperatures as their display shows them.

Integers on the wire then have the digits and the unit of the display, and somebody can
change both at the panel at any time. So what is shown is asked, not assumed, and each
block of registers that is read carries its own witness: settings in the display's unit
whose content changes whenever the display does. While the witness is what it was, so
is the scale, and it costs no exchange of its own.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from typing_extensions import override

from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    LimitError,
    MalformedReply,
)
from ppu.devices.address import InvalidReading
from ppu.devices.modbus import Holding
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection

__all__ = ["Display", "DisplayMaster", "DisplayedHolding", "Shown"]

_N_TRIES: Final = 4
_FLOAT_REGION: Final = 0x8000
"""Where register n is at this + 2 n as a number, unscaled, of two registers."""
_LIVE_K: Final = 2.0
"""How far a live temperature may be from the last."""
_MOST_DECIMALS: Final = 4
_ENDS: Final = frozenset({0x7FFF, 0x8000})
"""What a number that needs more than 16 bits is sent as."""


@dataclass(frozen=True)
class Display:
    """Where a controller says how it shows temperatures.

    Args:
        decimals_at: Register with the digits after the decimal point.
        units_at: Register with the code of the unit.
        degc_code: That code for degC.
        sampled: Registers that are read together, the witness among them.
        temperatures: Those of them whose temperature is read.
        witness: Registers of settings in the display's unit, such as the range.
    """

    decimals_at: int
    units_at: int
    degc_code: int
    sampled: range
    temperatures: tuple[int, ...]
    witness: range


@dataclass(frozen=True)
class Shown:
    """Registers that were read at one moment, and how the display was then.

    Args:
        device: Name of the device, for errors.
        first: The first register.
        words: Their content, unsigned.
        decimals: Digits after the decimal point.
        fault: Why no temperature can be told, empty if it can.
        floats: What was read from the float region, where 16 bits end [degC].
    """

    device: str
    first: int
    words: Sequence[int]
    decimals: int
    fault: str = ""
    floats: Mapping[int, float] = field(default_factory=dict)

    def word(self, register: int) -> int:
        """Return the content of *register*, unsigned."""
        return self.words[register - self.first]

    def degc(self, register: int) -> float:
        """Return the temperature in *register* [degC].

        Raises:
            InvalidReading: If nobody knows the scale, or it is where 16 bits end: it
                may be anything beyond.
        """
        word = self.word(register)
        if self.fault:
            raise InvalidReading(self.fault, word)
        if register in self.floats:
            return self.floats[register]
        if word in _ENDS:
            most = 0x7FFF / 10**self.decimals
            raise InvalidReading(
                f"{self.device}: register {register} is where 16 bits end: over "
                f"{most:g} degC cannot be told with {self.decimals} decimals (sensor "
                "break? else let the display show fewer)",
                word,
            )
        signed: int = word - 0x10000 if word >= 0x8000 else word
        scale: float = 10.0**self.decimals
        return signed / scale

    def complaint(self, *registers: int) -> str:
        """Return why one of *registers* must not be used, nothing if all may."""
        for register in registers:
            try:
                self.degc(register)
            except InvalidReading as exc:
                return str(exc)
        return ""

    def degc_or_nan(self, register: int) -> float:
        """Return the temperature in *register* [degC], NaN if it must not be used."""
        return math.nan if self.complaint(register) else self.degc(register)


class DisplayMaster(ModbusMaster):
    """A master that knows how the controller's display is.

    Args:
        device: Name of the device, for errors.
        connection: Serial line (RTU) or TCP address.
        display: Where the controller says how it shows temperatures.
        deadline_s: Real-world time for one exchange [s].
        probe: See :class:`~ppu.transports.modbus.ModbusMaster`.
    """

    def __init__(
        self,
        device: str,
        connection: SerialConnection | TcpConnection,
        display: Display,
        *,
        deadline_s: float = 1.0,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(device, connection, deadline_s=deadline_s, probe=probe)
        self.display = display
        self.decimals: int | None = None
        """Digits that were last shown, None if that was never asked."""
        self._witness: list[int] | None = None

    async def ask_display(self) -> int:
        """Ask anew how temperatures are shown; return the digits after the point.

        Raises:
            InvalidReading: If they are not in degC.
        """
        if self._witness is not None and await self._has_stayed():
            return self.decimals or 0
        self._witness = None
        sampled = self.display.sampled
        return (await self.read_shown(sampled.start, len(sampled))).decimals

    async def ask_resolution_k(self) -> float:
        """Ask anew how temperatures are shown; return the least step of one [K].

        Raises:
            ConfigurationError: If they are not in degC.
        """
        try:
            return 10.0 ** -(await self.ask_display())
        except InvalidReading as exc:
            raise ConfigurationError(str(exc)) from exc

    async def _has_stayed(self) -> bool:
        """Ask how the display is; return whether it was so before."""
        before = self.decimals
        await self._read_display()
        return self.decimals == before

    async def read_shown(
        self,
        first: int,
        count: int,
        *,
        agree: Callable[[list[int], list[int]], bool] | None = None,
    ) -> Shown:
        """Return registers, the witness among them, and how the display is.

        Args:
            first: The first register.
            count: How many.
            agree: Reads until answers agree in this way, see
                :meth:`~ppu.transports.modbus.ModbusMaster.read_confirmed`.

        Raises:
            InvalidReading: If temperatures are not shown in degC.
            MalformedReply: If the display does not stay as it is.
        """

        async def read() -> list[int]:
            if agree is None:
                return await self.read_holding(first, count)
            return await self.read_confirmed(first, count, agree=agree)

        words = await read()
        for _ in range(_N_TRIES):
            seen = self._witness_in(first, words)
            if seen == self._witness and self.decimals is not None:
                return Shown(self.device, first, words, self.decimals)
            await self._read_display()
            words = await read()
            if self._witness_in(first, words) == seen:
                self._witness = seen
        raise MalformedReply(
            f"{self.device}: how it shows temperatures (registers "
            f"{self.display.decimals_at} and {self.display.units_at}) keeps changing"
        )

    async def read_sample(
        self,
        *temperatures: int,
        agree: Callable[[list[int], list[int]], bool] | None = None,
    ) -> Shown:
        """Return the registers that are read together, whatever the display says.

        A firing must see what its program does also when nobody knows how hot it is.

        Args:
            temperatures: Registers whose temperature is wanted.
            agree: See :meth:`read_shown`.
        """
        sampled = self.display.sampled
        try:
            shown = await self.read_shown(sampled.start, len(sampled), agree=agree)
            return await self.complete(shown, *temperatures)
        except InvalidReading as exc:
            words = await self.read_holding(sampled.start, len(sampled))
            return Shown(self.device, sampled.start, words, 0, fault=str(exc))

    async def complete(self, shown: Shown, *registers: int) -> Shown:
        """Return *shown* with the floats of those *registers* where 16 bits end.

        With two decimals that is at 327.67 degC. A controller without a float region
        leaves them without a temperature.
        """
        if shown.fault:
            return shown
        ends = [register for register in registers if shown.word(register) in _ENDS]
        floats: dict[int, float] = {}
        for register in ends:
            place = _FLOAT_REGION + 2 * register
            with contextlib.suppress(InstrumentError):
                words = await self.read_confirmed(place, 2, agree=_floats_agree)
                number = _float_in(words)
                # Beyond where 16 bits end, or it contradicts them.
                if abs(number) * 10**shown.decimals > 0x7FFE:
                    floats[register] = number
        return replace(shown, floats=floats)

    def _witness_in(self, first: int, words: list[int]) -> list[int]:
        witness = self.display.witness
        return words[witness.start - first : witness.stop - first]

    async def _read_display(self) -> None:
        before, self.decimals = self.decimals, None  # until it is known again
        display = self.display
        (decimals,) = await self.read_confirmed(display.decimals_at)
        (unit,) = await self.read_holding(display.units_at)
        if unit != display.degc_code:
            (unit,) = await self.read_confirmed(display.units_at)
        if unit != display.degc_code:
            raise InvalidReading(
                f"{self.device}: temperatures are not shown in degC: register "
                f"{display.units_at} is {unit}, degC is {display.degc_code}; set the "
                "unit at the controller",
                unit,
            )
        if decimals > _MOST_DECIMALS:
            raise InvalidReading(
                f"{self.device}: register {display.decimals_at} says that "
                f"{decimals} decimals are shown; there are at most {_MOST_DECIMALS}",
                decimals,
            )
        if before not in (None, decimals):
            self.link.log.warning(
                "%s: its display shows %d decimals now, it was %d; somebody changed it",
                self.device,
                decimals,
                before,
            )
        if decimals != before:
            self._witness = None  # it was that of another scale
        self.decimals = decimals

    def to_word(self, degc: float) -> int:
        """Return a temperature as it is sent, by what was last shown.

        Raises:
            InvalidReading: If nobody knows how temperatures are shown.
            LimitError: If so many decimals, or 16 bits, cannot express it.
        """
        if self.decimals is None:
            raise InvalidReading(f"{self.device}: it is not known how it shows degC")
        scale = 10.0**self.decimals
        scaled = round(degc * scale)
        if abs(scaled / scale - degc) > 1e-6:
            raise LimitError(
                f"{self.device}: {degc:g} degC cannot be sent, the display shows "
                f"{self.decimals} decimals; the nearest is {scaled / scale:g} degC"
            )
        if not -0x8000 < scaled < 0x7FFF:
            raise LimitError(
                f"{self.device}: {degc:g} degC needs over 16 bits with "
                f"{self.decimals} decimals; let the display show fewer"
            )
        return scaled & 0xFFFF


@dataclass(frozen=True)
class DisplayedHolding(Holding):
    """A temperature in the unit and with the digits of the controller's display.

    Args:
        display: Where the controller says how that is; the code of degC does not
            matter here.
        invalid_if: Register and bits that say that this must not be used, and why.
    """

    display: Display = field(kw_only=True)
    invalid_if: tuple[int, int, str] | None = None

    @property
    def _span(self) -> range:
        """The registers that are read: this one and the witness."""
        sampled, witness = self.display.sampled, self.display.witness
        if self.register in sampled:
            return sampled
        return range(
            min(self.register, witness.start), max(self.register + 1, witness.stop)
        )

    @property
    @override
    def exchange(self) -> tuple[str, range]:
        return "modbus://holding", self._span

    @override
    async def ask(self, client: ModbusMaster) -> Shown:
        span, master = self._span, _knowing(client)
        shown = await master.read_shown(span.start, len(span))
        if self.register not in self.display.sampled:
            return await master.complete(shown, self.register)
        return await master.complete(shown, *self.display.temperatures)

    @override
    def pick(self, client: ModbusMaster, answer: Shown) -> float:
        if self.invalid_if is not None:
            register, bits, why = self.invalid_if
            if answer.word(register) & bits:
                raise InvalidReading(f"{client.device}: {why}", answer.word(register))
        return answer.degc(self.register)

    @override
    async def write(self, client: ModbusMaster, value: float) -> None:
        master = _knowing(client)
        # Whoever stands at the panel may have changed it just now.
        await master.ask_display()
        await self.write_word(client, master.to_word(value))


def _float_in(words: Sequence[int]) -> float:
    """Return the IEEE 754 number in two registers, high word first."""
    number: float = struct.unpack(">f", struct.pack(">HH", *words))[0]
    return number


def _floats_agree(one: Sequence[int], other: Sequence[int]) -> bool:
    return abs(_float_in(one) - _float_in(other)) < _LIVE_K


def _knowing(client: ModbusMaster) -> DisplayMaster:
    assert isinstance(client, DisplayMaster)  # noqa: S101 - the driver made it so
    return client
