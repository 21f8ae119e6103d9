"""A box furnace with a simulated Eurotherm EPC3016 controller on Modbus TCP.

Written from the register table in CederGroupHub/alab_control (names, addresses, types
and resolutions), never from the driver. Codes that the table does not list, and what
its communications watchdog is wired to, are our assumptions and are marked so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    ModbusRefusal,
    ModbusTcpSlave,
)
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.instruments._chamber import (
    CHAMBER_DEFAULTS,
    CHAMBER_FAULTS,
    TICK_S,
    BreakType,
    Chamber,
    approach,
    registers_of,
)
from ppu_simulators.instruments._display import (
    FLOAT_REGION,
    Kind,
    ShownRegisters,
)
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedEurothermEpc3016"]

_RESET, _RUN, _HOLD, _HOLDBACK, _COMPLETE = 1, 2, 4, 8, 16
_END, _RAMP_RATE, _RAMP_TIME, _DWELL, _STEP = 0, 1, 2, 3, 4

_HEADER: Final = 8328
_SEGMENTS: Final = 8336
_N_SEGMENTS: Final = 16  # those that follow the header without a gap
_FIRMWARE: Final = 18432
_N_FIRMWARE: Final = 3
_NATIVE_NUMBER: Final = 0x8000 + 2 * 1026
_COMPANY: Final = 1280

_UNIT_S: Final[Mapping[int, float]] = {0: 1.0, 1: 60.0, 2: 3600.0}
# Codes of the comms time format are our assumption: ms, s, min, h.
_TIME_FORMAT_S: Final[Mapping[int, float]] = {0: 0.001, 1: 1.0, 2: 60.0, 3: 3600.0}
_BREAK_TYPES: Final[Mapping[int, BreakType]] = {0: "off", 1: "on", 2: "latching"}
_READ_ONLY: Final = frozenset(
    {4, 5, 29, 39, 56, 58, 75, 121, 1026, 1027, 1616, 1931, 1932, 2113, 2125, 8335}
    | set(range(_FIRMWARE, _FIRMWARE + _N_FIRMWARE))
    | {_NATIVE_NUMBER, _NATIVE_NUMBER + 1}
)

_TARGETS: Final = frozenset(range(_SEGMENTS + 1, _SEGMENTS + 8 * _N_SEGMENTS, 8))
# Temperatures have the digits of input 1 (1922) and the instrument's unit (516).
_KINDS: Final[Mapping[int, Kind]] = {
    **dict.fromkeys(
        {1, 2, 5, 11, 12, 13, 24, 25, 111, 112, 160, 163} | _TARGETS, Kind.TEMPERATURE
    ),
    **dict.fromkeys((6, 39, 47, _HEADER + 1), Kind.DIFFERENCE),
    **dict.fromkeys((35, 1667), Kind.RATE),
    **dict.fromkeys((3, 4, 30, 31, 34, 1856, 1857), Kind.TENTHS),
}

_ALLOWED: Final[Mapping[int, tuple[int, ...]]] = {
    23: (_RESET, _RUN, _HOLD),
    **dict.fromkeys((273, 276, 1170, 1172, 1620, 1668, 2127), (0, 1)),
    **dict.fromkeys((516, 531, _HEADER + 2, _HEADER + 3), (0, 1, 2)),
    1922: (0, 1, 2, 3, 4),
}

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    **CHAMBER_DEFAULTS,
    "unit": 1,
    "time_format": "second",
    "firmware": "E4.10",
    "decimals": 1,
    "units": 0,
    "is_watchdog_wired": True,
    "registers": {},
}


@dataclass
class _Programmer:
    """Runs program 1, segment by segment."""

    status: int = _RESET
    segment_index: int = 0
    left_s: float | None = None
    """Time left in a segment that lasts a time, None before it begins."""
    cycles_left: int = 1


class SimulatedEurothermEpc3016:
    """A chamber with the registers and the programmer of this controller.

    Its communications watchdog acts as one that is wired to forced manual (our
    assumption; the lab wires it): after the timeout without a request the flag goes
    up, and while it is up the output is the fallback value.

    Args:
        name: Name of the device.
        entry: Its lab-file entry.
        world: The world its chamber stands in.
        serial_number: Digits to answer as instrument number (register 1026).
    """

    wire = "modbus-tcp"
    known_faults: ClassVar[Mapping[str, str]] = CHAMBER_FAULTS

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._world = world
        self._programmer = _Programmer()
        self._is_watchdog_wired = bool(twin["is_watchdog_wired"])
        self._tick = 0
        self._trip_tick = math.inf
        self._heard_s = -math.inf
        self.setpoint_degc = 0.0
        self.manual_output: float | None = None
        self._registers = self._at_power_on(twin, serial_number)
        self._shown = ShownRegisters(
            _KINDS,
            decimals=lambda: int(self._registers[1922]),
            unit=lambda: int(self._registers[516]),
        )
        self._take_settings(registers_of(twin))
        self.chamber = Chamber(name, world, twin, self, self.faults)
        self._unit = int(twin["unit"])
        self._front = TcpFront(self._slave, faults=self.faults)
        self._take_by_hand()
        world.add_process(self.chamber)

    def _slave(self) -> ModbusTcpSlave:
        """Return a server for one client: each may have sent half a request."""
        return ModbusTcpSlave(self._unit, self)

    @staticmethod
    def _at_power_on(twin: Mapping[str, Any], serial_number: str) -> dict[int, float]:
        """Return what a commissioned controller of this furnace keeps.

        Numbers are physical: degC, K, degC/min and percent.
        """
        digits = "".join(c for c in serial_number if c.isdigit()) or "0"
        number = int(digits) & 0xFFFFFFFF
        name = str(twin["firmware"]).encode("ascii").ljust(2 * _N_FIRMWARE, b"\0")
        time_format = {"millisecond": 0, "second": 1, "minute": 2, "hour": 3}
        return {
            2: 0,  # target setpoint
            3: 0,  # manual output
            6: 50,  # proportional band
            7: 0,  # reverse acting
            8: 400,  # integral time
            9: 0,  # derivative time
            11: -50,  # range low
            12: 1372,  # range high
            13: 1150,  # alarm 1 threshold
            15: 0,  # SP1 selected
            22: 1,  # program number
            24: 0,  # SP1
            25: 0,  # SP2
            30: 100,  # tune set's output high limit
            31: 0,
            34: 0,  # fallback output
            35: 0,  # setpoint rate limit up, off
            47: 1,  # alarm 1 hysteresis
            59: 1,
            111: 1100,  # setpoint high limit
            112: 0,  # setpoint low limit
            121: _COMPANY,
            273: 0,  # auto
            274: 0,
            276: 1,  # local setpoint
            516: int(twin["units"]),  # 0 degC, 1 degF, 2 K
            518: 1,  # programmer resets after a power failure
            520: 0,  # servo to PV
            531: 1,  # rate limits per minute
            536: 1,  # alarm 1 is absolute high
            540: 0,
            544: 0,
            553: 0,  # fallback output when the PV is bad
            629: 0,
            1026: number & 0xFFFF,
            1027: 0,
            1168: 1,
            1169: 60,  # watchdog timeout, in the comms time format
            1170: 0,  # its flag is lowered by hand
            1171: 0,
            1172: 0,  # watchdog flag
            1173: time_format[str(twin["time_format"])],
            1616: 0,
            1619: 0,
            1620: 0,  # forced manual
            1667: 0,  # setpoint rate limit down, off
            1668: 0,
            1856: 0,  # output lower limit
            1857: 100,  # output upper limit
            1922: int(twin["decimals"]),
            1930: 1,  # sensor break, not latching
            2126: 0,
            2127: 0,
            10573: 0,
            10574: 0,
            10575: 0,
            10580: 1,  # ramp rates with one decimal
            _NATIVE_NUMBER: number >> 16,
            _NATIVE_NUMBER + 1: number & 0xFFFF,
            **dict.fromkeys(range(_HEADER, _SEGMENTS + 8 * _N_SEGMENTS), 0),
            _HEADER + 4: 1,  # cycles
            **{
                _FIRMWARE + n: int.from_bytes(name[2 * n : 2 * n + 2], "big")
                for n in range(_N_FIRMWARE)
            },
        }

    def _take_settings(self, words: dict[int, int]) -> None:
        """Take the registers of the lab file, as they would be written."""
        for register in (516, 1922):
            if register in words:
                self._registers[register] = words.pop(register)
        for register, word in words.items():
            self._registers[register] = self._shown.from_word(register, word & 0xFFFF)

    # -- server --------------------------------------------------------------------

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        host, port = await self._front.start()
        return {"transport": "tcp", "host": host, "port": port, "unit": self._unit}

    async def stop(self) -> None:
        """Stop listening."""
        await self._front.stop()

    # -- firmware ------------------------------------------------------------------

    def output_limits(self) -> tuple[float, float]:
        """Return the lowest and the highest output, 0..1: the narrower of both."""
        low = max(self._registers[1856], self._registers[31], 0) / 100
        return low, min(self._registers[1857], self._registers[30]) / 100

    def break_type(self) -> BreakType:
        """Return what it does about a broken sensor (register 1930)."""
        return _BREAK_TYPES.get(int(self._registers[1930]), "on")

    def output_when_broken(self) -> float:
        """Return the output while its sensor is broken.

        The fallback value (34), or the last output where 553 says to hold it.
        """
        if self._registers[553] != 0:
            return self.chamber.output
        return self._registers[34] / 100

    def _take_by_hand(self) -> None:
        """Let the output follow forced manual, auto/manual and manual output."""
        is_cut_off = self._registers[1172] == 1 and self._is_watchdog_wired
        if is_cut_off or self._registers[1620] == 1:
            self.manual_output = self._registers[34] / 100
        elif self._registers[273] == 1:
            self.manual_output = self._registers[3] / 100
        else:
            self.manual_output = None

    # -- the communications watchdog -----------------------------------------------

    def _feed(self, time: float) -> None:
        """Take note of a request; an automatic flag may go down."""
        unit_s = _TIME_FORMAT_S.get(int(self._registers[1173]), 1.0)
        timeout_s = self._registers[1169] * unit_s
        if self._registers[1172] == 1 and self._registers[1170] == 1:
            recovery_s = self._registers[1171] * unit_s
            if recovery_s <= 0 or time - self._heard_s <= recovery_s:
                self._registers[1172] = 0
        self._heard_s = time
        # The first second in which the timeout is over.
        self._trip_tick = math.ceil(time + timeout_s) if timeout_s > 0 else math.inf
        self._take_by_hand()

    # -- the programmer ------------------------------------------------------------

    def advance_program(self) -> None:
        """Advance watchdog and programmer by one tick."""
        self._tick += 1
        if self._tick > self._trip_tick and self._registers[1172] == 0:
            self._registers[1172] = 1
            self._take_by_hand()
        programmer = self._programmer
        if programmer.status in (_RUN, _HOLDBACK):
            self._advance_segment(programmer)
        elif programmer.status == _RESET:
            self._approach_idle()

    def _approach_idle(self) -> None:
        target = self._registers[24]
        rate = self._registers[35 if target > self.setpoint_degc else 1667]
        if self._registers[1668] == 1:
            rate = 0.0
        step = rate / _UNIT_S[int(self._registers[531])] * TICK_S
        self.setpoint_degc = approach(self.setpoint_degc, target, step)

    def _advance_segment(self, programmer: _Programmer) -> None:
        if self._is_held_back():
            programmer.status = _HOLDBACK
            return
        programmer.status = _RUN
        first = _SEGMENTS + 8 * programmer.segment_index
        kind = self._kind_of(programmer.segment_index)
        target = self._registers[first + 1]
        if kind == _DWELL:
            if programmer.left_s is None:
                programmer.left_s = self._duration_s(first)
            programmer.left_s -= TICK_S
            if programmer.left_s <= 0:
                self._next_segment()
            return
        if kind == _STEP:
            self.setpoint_degc = target
            self._next_segment()
            return
        step = 0.0
        if kind == _RAMP_RATE:
            decimals = int(self._registers[10580])
            rate = self._signed(first + 2) / 10**decimals
            unit_s = _UNIT_S.get(int(self._registers[_HEADER + 2]), 60.0)
            step = rate / unit_s * TICK_S
        elif kind == _RAMP_TIME:
            if programmer.left_s is None:
                programmer.left_s = max(self._duration_s(first), TICK_S)
            step = abs(target - self.setpoint_degc) / programmer.left_s * TICK_S
            programmer.left_s = max(programmer.left_s - TICK_S, TICK_S)
        self.setpoint_degc = approach(self.setpoint_degc, target, step)
        if self.setpoint_degc == target:
            self._next_segment()

    def _is_held_back(self) -> bool:
        """Return whether the chamber is too far from the program to go on.

        Codes (our assumption): 0 off, 1 low, 2 high, 3 band.
        """
        kind = self._registers[_HEADER]
        if kind == 0:
            return False
        band = self._registers[_HEADER + 1]
        deviation = self.chamber.pv_degc - self.setpoint_degc
        is_low = deviation < -band and kind in (1, 3)
        return is_low or (deviation > band and kind in (2, 3))

    def _duration_s(self, first: int) -> float:
        """Return the time in the third register of a segment [s]."""
        unit_s = _TIME_FORMAT_S.get(int(self._registers[1173]), 1.0)
        return self._registers[first + 2] * unit_s

    def _next_segment(self) -> None:
        programmer = self._programmer
        programmer.segment_index += 1
        programmer.left_s = None
        index = programmer.segment_index
        is_over = index >= _N_SEGMENTS or self._kind_of(index) not in (
            _RAMP_RATE,
            _RAMP_TIME,
            _DWELL,
            _STEP,
        )
        if not is_over:
            return
        programmer.cycles_left -= 1
        programmer.segment_index = 0
        if programmer.cycles_left > 0:
            return
        resets = self._registers[_HEADER + 6] == 1
        programmer.status = _RESET if resets else _COMPLETE

    def _kind_of(self, index: int) -> int:
        return int(self._registers[_SEGMENTS + 8 * index])

    def _start_program(self) -> None:
        if self._programmer.status in (_HOLD, _RUN, _HOLDBACK):
            self._programmer.status = _RUN
            return
        if self._registers[22] != 1 or self._kind_of(0) == _END:
            return  # only program 1 is kept, and an empty one ends at once
        cycles = max(self._signed(_HEADER + 4), 1)
        self._world.note_act(self.chamber.time, f"start {self.name}")
        self._programmer = _Programmer(status=_RUN, cycles_left=cycles)
        if self._registers[520] == 0:
            self.setpoint_degc = self.chamber.pv_degc
        self.chamber.go_on_from(self.chamber.output)

    def _command_program(self, mode: int) -> None:
        if mode == _RUN:
            self._start_program()
        elif mode == _HOLD and self._programmer.status in (_RUN, _HOLDBACK):
            self._programmer.status = _HOLD
        elif mode == _RESET:
            self._programmer = _Programmer()
            # The working setpoint falls from the chamber's temperature.
            self.setpoint_degc = self.chamber.pv_degc

    # -- registers -----------------------------------------------------------------

    def _signed(self, address: int) -> int:
        value = int(self._registers[address])
        return value - 0x10000 if value >= 0x8000 else value

    def _live(self) -> dict[int, float]:
        """Return the registers that follow the process."""
        chamber, programmer = self.chamber, self._programmer
        is_running = programmer.status != _RESET
        is_alarmed = (
            chamber.pv_degc > self._registers[13]
            and self._registers[536] == 1
            and self._registers[2127] == 0
        )
        is_manual = self.manual_output is not None
        status = is_alarmed | is_manual << 4 | chamber.is_sensor_broken << 5
        first = _SEGMENTS + 8 * programmer.segment_index
        n_segments = next(
            (n for n in range(_N_SEGMENTS) if self._kind_of(n) == _END), _N_SEGMENTS
        )
        left_s = programmer.left_s or 0.0
        unit_s = _TIME_FORMAT_S.get(int(self._registers[1173]), 1.0)
        return {
            1: chamber.pv_degc,
            2: self._registers[first + 1] if is_running else self._registers[24],
            4: chamber.output * 100,
            5: self.setpoint_degc,
            23: programmer.status,
            29: self._registers[first] if is_running else _END,
            39: chamber.pv_degc - self.setpoint_degc,
            56: programmer.segment_index + 1 if is_running else 0,
            63: min(math.ceil(left_s / unit_s), 0x7FFF),
            75: status,
            160: self._registers[first + 1],
            163: self.setpoint_degc,
            1616: int(is_manual),
            1931: int(chamber.is_sensor_broken),
            1932: 7 if chamber.is_sensor_broken else 0,  # 7 bad: our assumption
            2113: int(is_alarmed),
            2125: int(is_alarmed),
            _HEADER + 7: n_segments,
        }

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers; unlisted ones inside a block read 0 (our assumption)."""
        self._world.advance(time)
        self._feed(time)
        known = self._registers | self._live()
        if address < FLOAT_REGION or address in (_NATIVE_NUMBER, _NATIVE_NUMBER + 1):
            return self._shown.read(known, address, count)
        return self._shown.read_floats(known, address, count)

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take new values, all or none."""
        self._world.advance(time)
        numbers = self._shown.numbers(address, values)
        for register, number in numbers.items():
            self._check_write(register, number)
        for register, number in numbers.items():
            self._write_one(register, number)
        self._feed(time)

    def _write_one(self, register: int, value: float) -> None:
        if register == 23:
            self._command_program(int(value))
        elif register in (10573, 10574, 10575):
            if value == 1:
                self._command_program(
                    {10573: _RUN, 10574: _HOLD, 10575: _RESET}[register]
                )
        elif register == 274:
            if value == 1:
                self.chamber.acknowledge()
        else:
            self._registers[24 if register == 2 else register] = value

    def _check_write(self, register: int, value: float) -> None:
        if register in _READ_ONLY:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        if register != 23 and register not in self._registers:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        low, high = self._registers[112], self._registers[111]
        # What the display rounds is not beyond a limit that it rounds, too.
        slack = 0.51 * 10.0 ** -self._registers[1922]
        is_setpoint = register in (2, 24, 25) or register in _TARGETS
        if (
            not math.isfinite(value)
            or (is_setpoint and not low - slack <= value <= high + slack)
            or (register in _ALLOWED and value not in _ALLOWED[register])
        ):
            raise ModbusRefusal(ILLEGAL_VALUE)
