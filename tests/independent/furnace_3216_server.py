"""A box furnace with a 3216 for tests, written from what was seen of real ones.

Facts: registers are addressed as the manual prints them; temperatures are signed
integers of 16 bits with as many decimals as register 525 says, in the unit of 516 (0
degC, 1 degF); ramp rates carry one decimal whatever that is; output is in tenths of a
percent; the float region 0x8000 + 2 n has the same numbers as IEEE 754, high word
first; a block without any listed register is refused with exception 2; register 76 is
the inverse of 75. Nothing here is shared with the simulator: frames, programmer, loop
and furnace are its own, and the furnace is no more than a heated lump.
"""

from __future__ import annotations

import math
import struct

__all__ = ["Furnace3216Server"]

_TEMPERATURES = {1, 2, 5, 11, 12, 13, 24, 111, 112, *range(1281, 1304, 3)}
_TENTHS = {3, 4, 30, 31, 35, *range(1282, 1304, 3)}
_READ_ONLY = {1, 4, 5, 75, 76, 107, 122}
_RESET, _RUN, _HOLD = 0, 1, 2
_FULL_POWER_K_PER_S, _COOLING_S, _ROOM = 0.45, 9000.0, 22.0


def _checksum(frame: bytes) -> bytes:
    register = 0xFFFF
    for byte in frame:
        register ^= byte
        for _ in range(8):
            carry = register & 1
            register >>= 1
            if carry:
                register ^= 0xA001
    return struct.pack("<H", register)


class _Refusal(Exception):  # noqa: N818 - it is an answer
    pass


class Furnace3216Server:
    """Furnace and controller.

    Args:
        decimals: What register 525 holds.
        unit: What register 516 holds.
        setpoint_high: Register 111 [degC].
        alarm: Register 13 [degC].
        has_floats: Whether it has a float region.
    """

    def __init__(
        self,
        decimals: int,
        unit: int = 0,
        *,
        setpoint_high: float = 1100.0,
        alarm: float = 1150.0,
        has_floats: bool = True,
    ) -> None:
        self._has_floats = has_floats
        # Temperatures in degC, percent and rates as such, everything else as sent.
        self.held: dict[int, float] = {
            3: 0,
            11: -50,
            12: 1372,
            13: alarm,
            24: 0,
            30: 100,
            31: 0,
            35: 0,
            107: 0x0111,
            111: setpoint_high,
            112: 0,
            122: 3216,
            273: 0,
            274: 0,
            321: 0,
            328: 3,
            516: unit,
            525: decimals,
            531: 0,
            536: 1,
            578: 1,
            629: 77,
            **dict.fromkeys(range(1280, 1304), 0.0),
        }
        self.temperature = _ROOM
        self.setpoint = 0.0
        self.output = 0.0
        self.mode = _RESET
        self.hottest = _ROOM
        self.n_requests = 0
        self._segment = 0
        self._dwelt_s: float | None = None
        self._integral = 0.0
        self._second = 0
        self._dither = 1
        self._noise = 0.0

    # -- the furnace -----------------------------------------------------------------

    def advance(self, time: float) -> None:
        """Let the seconds pass that are over by *time*."""
        while self._second < math.floor(time):
            self._second += 1
            self._program()
            error = self.setpoint - (self.temperature + self._noise)
            wanted = 0.08 * error + self._integral
            low, high = self.held[31] / 100, self.held[30] / 100
            self.output = min(max(wanted, low), high)
            if wanted == self.output:
                self._integral += 0.08 * error / 300.0
            if self.held[273] == 1:
                self.output = self.held[3] / 100
                self._integral = self.output
            self.temperature += self.output * _FULL_POWER_K_PER_S
            self.temperature -= (self.temperature - _ROOM) / _COOLING_S
            self.hottest = max(self.hottest, self.temperature)
            self._dither = self._dither * 48271 % 0x7FFFFFFF
            self._noise = 0.5 * (self._dither / 0x7FFFFFFF - 0.5)

    def _program(self) -> None:
        if self.mode == _RESET:
            self._approach(self.held[24], self.held[35])
        if self.mode != _RUN:
            return
        first = 1280 + 3 * self._segment
        if self._dwelt_s is None:
            if self._approach(self.held[first + 1], self.held[first + 2]):
                self._dwelt_s = 0.0
            return
        self._dwelt_s += 1
        if self._dwelt_s < self.held[first] * 60:
            return
        self._segment += 1
        self._dwelt_s = None
        if self._segment == 8 or self.held[1282 + 3 * self._segment] == 0:
            self.mode, self._segment = _RESET, 0

    def _approach(self, target: float, rate_per_min: float) -> bool:
        step = rate_per_min / 60 if rate_per_min > 0 else math.inf
        gap = target - self.setpoint
        self.setpoint += max(min(gap, step), -step) if math.isfinite(step) else gap
        return abs(self.setpoint - target) < 1e-9

    def _start(self) -> None:
        if self.held[1282] > 0:
            self.mode, self._segment, self._dwelt_s = _RUN, 0, None
            self.setpoint = self.temperature

    # -- the registers -----------------------------------------------------------------

    def shown(self, register: int) -> float:
        """Return what a register says, as a number in the display's unit."""
        number = {
            1: self.temperature + self._noise,
            2: self.held[24],
            4: self.output * 100,
            5: self.setpoint,
            23: self.mode,
            75: 0x2000 * (self.mode == _RUN) + 0x10 * (self.held[273] == 1),
        }.get(register)
        if register == 76:
            return int(self.shown(75)) ^ 0xFFFF
        if number is None:
            number = self.held[register]
        if register in _TEMPERATURES and self.held[516] == 1:
            return number * 9 / 5 + 32
        return number

    def _factor(self, register: int) -> int:
        if register in _TEMPERATURES:
            return int(10 ** self.held[525])
        return 10 if register in _TENTHS else 1

    def _is_listed(self, register: int) -> bool:
        return register in self.held or register in (1, 2, 4, 5, 23, 75, 76)

    def _word(self, register: int) -> int:
        if not self._is_listed(register):
            return 0
        scaled = round(self.shown(register) * self._factor(register))
        if register in _TEMPERATURES or register in _TENTHS:
            scaled = max(min(scaled, 32767), -32768)
        return scaled & 0xFFFF

    def _read(self, first: int, count: int) -> bytes:
        if not 1 <= count <= 125:
            raise _Refusal(3)
        if first >= 0x8000:
            names = [(place - 0x8000) // 2 for place in range(first, first + count)]
            if not self._has_floats or not any(self._is_listed(name) for name in names):
                raise _Refusal(2)
            numbers = [
                self.shown(name) if self._is_listed(name) else 0.0
                for name in names[::2]
            ]
            return b"".join(struct.pack(">f", number) for number in numbers)[
                : 2 * count
            ]
        wanted = range(first, first + count)
        if not any(self._is_listed(register) for register in wanted):
            raise _Refusal(2)
        return b"".join(struct.pack(">H", self._word(register)) for register in wanted)

    def _write(self, register: int, word: int) -> None:
        if register == 23:
            if word == _RUN:
                self._start()
            else:
                self.mode, self._segment, self._dwelt_s = word, 0, None
                self.setpoint = self.temperature
            return
        if register in _READ_ONLY or not self._is_listed(register):
            raise _Refusal(2)
        signed: float = word - 0x10000 if word >= 0x8000 else word
        number = signed / self._factor(register)
        if register in _TEMPERATURES and self.held[516] == 1:
            number = (number - 32) * 5 / 9
        is_setpoint = register in (2, 24) or 1280 < register < 1304
        if register in _TEMPERATURES and is_setpoint and number > self.held[111]:
            raise _Refusal(3)
        self.held[24 if register == 2 else register] = number

    # -- the line ----------------------------------------------------------------------

    def answer(self, frame: bytes, time: float) -> bytes:
        """Return the answer to a frame, nothing if it is none."""
        if len(frame) < 8 or _checksum(frame[:-2]) != frame[-2:] or frame[0] != 1:
            return b""
        self.n_requests += 1
        self.advance(time)
        function, first, count = struct.unpack(">BHH", frame[1:6])
        try:
            if function == 3:
                data = self._read(first, count)
                body = struct.pack(">BBB", 1, 3, len(data)) + data
            elif function == 16:
                words = struct.unpack(f">{count}H", frame[7 : 7 + 2 * count])
                for register, word in enumerate(words, first):
                    self._write(register, word)
                body = struct.pack(">BBHH", 1, 16, first, count)
            else:
                raise _Refusal(1)
        except _Refusal as refusal:
            body = struct.pack(">BBB", 1, function | 0x80, refusal.args[0])
        return body + _checksum(body)
