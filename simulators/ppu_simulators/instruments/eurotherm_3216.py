"""A box furnace with a simulated Eurotherm 3216 controller on Modbus RTU.

Written from the handbook's register table (HA028651 issue 7, pp. 83-84), never from
the driver. What the sources leave open is our assumption and is marked so.
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
    ModbusRtuSlave,
)
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments._chamber import (
    CHAMBER_DEFAULTS,
    CHAMBER_FAULTS,
    TICK_S,
    BreakType,
    Chamber,
    approach,
    registers_of,
)
from ppu_simulators.instruments._display import FLOAT_REGION, Kind, ShownRegisters
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedEurotherm3216"]

_RESET, _RUN, _HOLD, _END = 0, 1, 2, 3

# Registers that are kept in EEPROM: the handbook warns of 2, 24 and 25 and rates the
# memory at 100,000 writes; program registers are kept, too.
_EEPROM: Final = frozenset({2, 24, 25, *range(1280, 1304)})
_READ_ONLY: Final = frozenset({1, 4, 5, 75, 76, 103, 107, 122, 258})
_PROGRAM_SETPOINTS: Final = frozenset(range(1281, 1304, 3))
# Integers have the digits (525) and the unit (516) of the display. Rates have one
# decimal whatever that says: alab_control writes them so to controllers that show
# whole degrees.
_KINDS: Final[Mapping[int, Kind]] = {
    **dict.fromkeys(
        {1, 2, 5, 11, 12, 13, 14, 24, 25, 26, 111, 112} | _PROGRAM_SETPOINTS,
        Kind.TEMPERATURE,
    ),
    **dict.fromkeys((6, 27), Kind.DIFFERENCE),
    **dict.fromkeys((35, 103, *range(1282, 1304, 3)), Kind.RATE),
    **dict.fromkeys((3, 4, 30, 31), Kind.TENTHS),
}

_ALLOWED: Final[Mapping[int, tuple[int, ...]]] = {
    23: (_RESET, _RUN, _HOLD),
    **dict.fromkeys((270, 273, 276), (0, 1)),
    **dict.fromkeys((525, 531), (0, 1, 2)),
    516: (0, 1, 2, 3, 4),
}


@dataclass
class _Programmer:
    """Ramps and dwells through up to eight segments."""

    status: int = _RESET
    segment_index: int = 0
    is_dwelling: bool = False
    dwell_left_s: float = 0.0


_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    **CHAMBER_DEFAULTS,
    "dwell_unit": "minute",
    "baudrate": 9600,
    "parity": "none",
    "unit": 1,
    "type_code": 3216,
    "decimals": 1,
    "units": 0,
    "registers": {},
}
_BREAK_TYPES: Final[Mapping[int, BreakType]] = {0: "off", 1: "on", 2: "latching"}


class SimulatedEurotherm3216:
    """A chamber with the registers and the programmer of this controller.

    Args:
        name: Name of the device.
        entry: Its lab-file entry.
        world: The world its chamber stands in.
        serial_number: Digits to answer as customer id (register 629).
    """

    wire = "modbus-rtu"
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
        self._dwell_unit_s = 60.0 if twin["dwell_unit"] == "minute" else 3600.0
        self.setpoint_degc = 0.0
        self.manual_output: float | None = None
        self.n_eeprom_writes = 0
        self._registers = self._at_power_on(twin, serial_number)
        self._shown = ShownRegisters(
            _KINDS,
            decimals=lambda: int(self._registers[525]),
            unit=lambda: int(self._registers[516]),
        )
        self._take_settings(registers_of(twin))
        self._take_by_hand()
        self.chamber = Chamber(name, world, twin, self, self.faults)
        slave = ModbusRtuSlave(
            int(twin["unit"]),
            self,
            baudrate=int(twin["baudrate"]),
        )
        line = SerialLine(int(twin["baudrate"]), twin["parity"])
        client_parity = (entry.hardware or {}).get("parity", "none")
        self._front = SerialFront(slave, line, client_parity, faults=self.faults)
        self._connection = {
            "transport": "serial",
            "baudrate": line.baudrate,
            "parity": line.parity,
            "unit": slave.unit,
        }
        world.add_process(self.chamber)

    @staticmethod
    def _at_power_on(twin: Mapping[str, Any], serial_number: str) -> dict[int, float]:
        """Return what a commissioned controller of this furnace keeps.

        Numbers are physical: degC, K, degC/min and percent.
        """
        digits = "".join(c for c in serial_number if c.isdigit()) or "0"
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
            14: 0,
            15: 0,  # SP1 selected
            24: 0,  # SP1
            25: 0,  # SP2
            26: 0,  # comms setpoint
            27: 0,
            30: 100,  # output high limit
            31: 0,  # output low limit
            35: 0,  # setpoint rate limit off
            87: 0,
            107: 0x0107,  # firmware 1.07 (our choice)
            111: 1100,  # setpoint high limit
            112: 0,  # setpoint low limit
            122: int(twin["type_code"]),  # our choice: the code is not published
            131: int(twin["unit"]),
            260: 0,
            261: 0,
            270: 0,
            273: 0,  # auto
            274: 0,
            276: 0,  # local setpoint
            321: 0,  # dwell units
            327: 0,  # holdback
            328: 3,  # end type reset
            516: int(twin["units"]),  # 0 degC, 1 degF, 2 K: from memory
            525: int(twin["decimals"]),
            531: 0,  # ramp units per minute
            536: 1,  # alarm 1 is full-scale high
            578: 1,  # sensor break drives the output to its low limit
            629: int(digits[-4:]),  # customer id
            **dict.fromkeys(range(1280, 1304), 0),
        }

    def _take_settings(self, words: dict[int, int]) -> None:
        """Take the registers of the lab file, as they would be written."""
        for register in (516, 525):
            if register in words:
                self._registers[register] = words.pop(register)
        for register, word in words.items():
            self._registers[register] = self._shown.from_word(register, word & 0xFFFF)

    # -- server --------------------------------------------------------------------

    async def start(self) -> Mapping[str, Any]:
        """Open the serial port; return the connection that leads here."""
        return {**self._connection, "port": self._front.start()}

    async def stop(self) -> None:
        """Close the serial port."""
        self._front.stop()

    # -- firmware ------------------------------------------------------------------

    def output_limits(self) -> tuple[float, float]:
        """Return the lowest and the highest output, 0..1."""
        return max(self._registers[31] / 100, 0.0), self._registers[30] / 100

    def break_type(self) -> BreakType:
        """Return what it does about a broken sensor (register 578)."""
        return _BREAK_TYPES.get(int(self._registers[578]), "on")

    def output_when_broken(self) -> float:
        """Return the output while its sensor is broken: its low limit."""
        return 0.0

    def _take_by_hand(self) -> None:
        """Let the output follow auto/manual (273) and manual output (3)."""
        is_manual = self._registers[273] == 1
        self.manual_output = self._registers[3] / 100 if is_manual else None

    # -- the programmer ------------------------------------------------------------

    def advance_program(self) -> None:
        """Advance the programmer by one tick."""
        programmer = self._programmer
        if programmer.status == _HOLD:
            return
        if programmer.status != _RUN:
            self._approach(self._target_degc, self._registers[35])
            return
        first = 1280 + 3 * programmer.segment_index
        if programmer.is_dwelling:
            programmer.dwell_left_s -= TICK_S
            if programmer.dwell_left_s <= 0:
                self._next_segment()
            return
        target, rate = self._registers[first + 1], self._registers[first + 2]
        if self._approach(target, rate):
            programmer.is_dwelling = True
            programmer.dwell_left_s = self._registers[first] * self._dwell_unit_s

    @property
    def _target_degc(self) -> float:
        """Where it goes without a program: SP1 (24), or the remote setpoint (26)."""
        if self._registers[276] != 1:
            return self._registers[24]
        low, high = self._registers[112], self._registers[111]
        return min(max(self._registers[26], low), high)

    def _approach(self, target: float, rate_per_min: float) -> bool:
        """Move the working setpoint towards *target*; tell whether it is there."""
        scale = {0: 60.0, 1: 3600.0, 2: 1.0}[int(self._registers[531])]
        step = rate_per_min / scale * TICK_S
        self.setpoint_degc = approach(self.setpoint_degc, target, step)
        return self.setpoint_degc == target

    def _next_segment(self) -> None:
        programmer = self._programmer
        programmer.segment_index += 1
        programmer.is_dwelling = False
        first = 1280 + 3 * programmer.segment_index
        if programmer.segment_index < 8 and self._registers[first + 2] != 0:
            return
        end_type = self._registers[328]
        programmer.status = _RESET if end_type == 3 else _END
        programmer.segment_index = 0

    def _start_program(self) -> None:
        programmer = self._programmer
        if programmer.status == _HOLD:
            programmer.status = _RUN
            return
        if self._registers[1282] == 0:
            return  # an empty program ends at once
        self._world.note_act(self.chamber.time, f"start {self.name}")
        self._programmer = _Programmer(status=_RUN)
        self.setpoint_degc = self.chamber.pv_degc  # servo to PV
        self.chamber.go_on_from(self.chamber.output)

    # -- registers -----------------------------------------------------------------

    def _live(self) -> dict[int, float]:
        """Return the registers that follow the process."""
        status = self._status_word()
        return {
            1: self.chamber.pv_degc,
            2: self._target_degc,
            4: self.chamber.output * 100,
            5: self.setpoint_degc,
            23: self._programmer.status,
            75: status,
            76: status ^ 0xFFFF,
            258: 0,
        }

    def _status_word(self) -> int:
        word = 0
        if self.chamber.is_sensor_broken:
            word |= 1 << 5 | 1 << 10
        if self.chamber.pv_degc > self._registers[13]:
            word |= 1 << 0
        if self._registers[273] == 1:
            word |= 1 << 4
        if self._programmer.status == _END:
            word |= 1 << 9
        if self._programmer.status == _RUN:
            word |= 1 << 13
        return word

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers; unlisted ones inside a block read 0 (our assumption)."""
        self._world.advance(time)
        known = self._registers | self._live()
        if address >= FLOAT_REGION:
            return self._shown.read_floats(known, address, count)
        return self._shown.read(known, address, count)

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take new values, all or none."""
        self._world.advance(time)
        numbers = self._shown.numbers(address, values)
        for register, number in numbers.items():
            self._check_write(register, number)
        for register, number in numbers.items():
            if register in _EEPROM:
                self.n_eeprom_writes += 1
            if register == 23:
                self._command_program(int(number))
            elif register == 274 and number == 1:
                self.chamber.acknowledge()
            else:
                self._registers[24 if register == 2 else register] = number
        self._take_by_hand()

    def _check_write(self, register: int, number: float) -> None:
        if register in _READ_ONLY:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        if register != 23 and register not in self._registers:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        is_setpoint = register in (2, 24, 25, 26) or register in _PROGRAM_SETPOINTS
        low, high = self._registers[112], self._registers[111]
        # What the display rounds is not beyond a limit that it rounds, too.
        slack = 0.51 * 10.0 ** -self._registers[525]
        if (
            not math.isfinite(number)
            or (is_setpoint and not low - slack <= number <= high + slack)
            or (register in _ALLOWED and number not in _ALLOWED[register])
        ):
            raise ModbusRefusal(ILLEGAL_VALUE)

    def _command_program(self, value: int) -> None:
        if value == _RUN:
            self._start_program()
        elif value == _HOLD and self._programmer.status == _RUN:
            self._programmer.status = _HOLD
        elif value == _RESET:
            self._programmer = _Programmer()
            # The working setpoint falls from the chamber's temperature.
            self.setpoint_degc = self.chamber.pv_degc
