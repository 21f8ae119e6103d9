"""Registers of a simulated controller, as its display lets them be read and written.

Inside, everything is a physical number: degC, kelvin, percent. On the wire, integers
have the digits and the unit of the display, and the float region has the numbers as
they are, in that unit.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ppu_simulators.fronts.modbus import ILLEGAL_ADDRESS, ModbusRefusal

__all__ = ["FLOAT_REGION", "Kind", "ShownRegisters"]

FLOAT_REGION: Final = 0x8000
"""Where parameter n is at ``FLOAT_REGION + 2 n``, two registers, high word first."""

_FAHRENHEIT, _KELVIN = 1, 2
_ZERO_DEGC_KELVIN: Final = 273.15


class Kind(enum.Enum):
    """What a register holds."""

    TEMPERATURE = "temperature"
    DIFFERENCE = "temperature difference"
    RATE = "temperature difference per time, always with one decimal"
    TENTHS = "a number with one decimal"
    PLAIN = "a whole number"


@dataclass(frozen=True)
class ShownRegisters:
    """What is sent for a number, and what a number is that was sent.

    Args:
        kinds: What each register holds; those that are not named are plain.
        decimals: Tells the digits that the display shows now.
        unit: Tells the code of its unit now: 0 degC, 1 degF, 2 K.
    """

    kinds: Mapping[int, Kind]
    decimals: Callable[[], int]
    unit: Callable[[], int]

    def _scale(self, kind: Kind) -> float:
        if kind in (Kind.TEMPERATURE, Kind.DIFFERENCE):
            return float(10 ** self.decimals())
        return 1.0 if kind is Kind.PLAIN else 10.0

    def in_unit(self, register: int, number: float) -> float:
        """Return *number* [degC, K or neither] in the display's unit."""
        kind = self.kinds.get(register, Kind.PLAIN)
        if kind in (Kind.PLAIN, Kind.TENTHS):
            return number
        is_point = kind is Kind.TEMPERATURE
        if self.unit() == _FAHRENHEIT:
            return number * 1.8 + (32.0 if is_point else 0.0)
        if self.unit() == _KELVIN and is_point:
            return number + _ZERO_DEGC_KELVIN
        return number

    def out_of_unit(self, register: int, shown: float) -> float:
        """Return the number behind *shown*, which is in the display's unit."""
        kind = self.kinds.get(register, Kind.PLAIN)
        if kind in (Kind.PLAIN, Kind.TENTHS):
            return shown
        is_point = kind is Kind.TEMPERATURE
        if self.unit() == _FAHRENHEIT:
            return (shown - (32.0 if is_point else 0.0)) / 1.8
        if self.unit() == _KELVIN and is_point:
            return shown - _ZERO_DEGC_KELVIN
        return shown

    def to_word(self, register: int, number: float) -> int:
        """Return the content of *register*, unsigned; it ends where 16 bits do."""
        kind = self.kinds.get(register, Kind.PLAIN)
        if kind is Kind.PLAIN:
            return int(number) & 0xFFFF
        scaled = round(self.in_unit(register, number) * self._scale(kind))
        return min(max(scaled, -0x8000), 0x7FFF) & 0xFFFF

    def from_word(self, register: int, word: int) -> float:
        """Return the number that *word* means in *register*."""
        kind = self.kinds.get(register, Kind.PLAIN)
        if kind is Kind.PLAIN:
            return word
        signed = word - 0x10000 if word >= 0x8000 else word
        return self.out_of_unit(register, signed / self._scale(kind))

    # -- blocks --------------------------------------------------------------------

    def read(self, known: Mapping[int, float], address: int, count: int) -> list[int]:
        """Return integer registers; those that are unlisted in between read 0.

        Raises:
            ModbusRefusal: If none of them is listed.
        """
        wanted = range(address, address + count)
        if not any(register in known for register in wanted):
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        return [
            self.to_word(register, known[register]) if register in known else 0
            for register in wanted
        ]

    def read_floats(
        self, known: Mapping[int, float], address: int, count: int
    ) -> list[int]:
        """Return registers of the float region, as :meth:`read` does."""
        words: dict[int, int] = {}
        first = (address - FLOAT_REGION) // 2
        for register in range(first, first + count // 2 + 1):
            if register in known:
                shown = self.in_unit(register, known[register])
                place = FLOAT_REGION + 2 * register
                words[place], words[place + 1] = struct.unpack(
                    ">HH", struct.pack(">f", shown)
                )
        wanted = range(address, address + count)
        if not any(place in words for place in wanted):
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        return [words.get(place, 0) for place in wanted]

    def numbers(self, address: int, words: list[int]) -> dict[int, float]:
        """Return what a write to either region means, by register.

        Raises:
            ModbusRefusal: If it writes half a float.
        """
        if address < FLOAT_REGION:
            return {
                register: self.from_word(register, word)
                for register, word in enumerate(words, address)
            }
        if address % 2 or len(words) % 2:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        first = (address - FLOAT_REGION) // 2
        shown = struct.unpack(
            f">{len(words) // 2}f", struct.pack(f">{len(words)}H", *words)
        )
        return {
            register: self.out_of_unit(register, number)
            for register, number in enumerate(shown, first)
        }
