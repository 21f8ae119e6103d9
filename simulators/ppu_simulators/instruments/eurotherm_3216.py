"""A box furnace with a simulated Eurotherm 3216 controller on Modbus RTU.

Written from the handbook's register table (HA028651 issue 7, pp. 83-84), never from
the driver. What the sources leave open is our assumption and is marked so.
"""

from __future__ import annotations

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
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedEurotherm3216"]

_RESET, _RUN, _HOLD, _END = 0, 1, 2, 3

# Registers that are kept in EEPROM: the handbook warns of 2, 24 and 25 and rates the
# memory at 100,000 writes; program registers are kept, too.
_EEPROM: Final = frozenset({2, 24, 25, *range(1280, 1304)})
_READ_ONLY: Final = frozenset({1, 4, 5, 75, 76, 103, 107, 122, 258})


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
    def _at_power_on(twin: Mapping[str, Any], serial_number: str) -> dict[int, int]:
        """Return what a commissioned controller of this furnace keeps."""
        digits = "".join(c for c in serial_number if c.isdigit()) or "0"
        registers = {
            2: 0,  # target setpoint
            3: 0,  # manual output
            6: 500,  # proportional band
            7: 0,  # reverse acting
            8: 400,  # integral time
            9: 0,  # derivative time
            11: -500,  # range low
            12: 13720,  # range high
            13: 11500,  # alarm 1 threshold
            14: 0,
            15: 0,  # SP1 selected
            24: 0,  # SP1
            25: 0,  # SP2
            26: 0,  # comms setpoint
            27: 0,
            30: 1000,  # output high limit
            31: 0,  # output low limit
            35: 0,  # setpoint rate limit off
            87: 0,
            107: 0x0107,  # firmware 1.07 (our choice)
            111: 11000,  # setpoint high limit
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
            516: 1,  # degC
            525: 1,  # one decimal
            531: 0,  # ramp units per minute
            536: 1,  # alarm 1 is full-scale high
            578: 1,  # sensor break drives the output to its low limit
            629: int(digits[-4:]),  # customer id
            **dict.fromkeys(range(1280, 1304), 0),
        }
        return registers | registers_of(twin)

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
        return max(self._signed(31) / 1000, 0.0), self._signed(30) / 1000

    def break_type(self) -> BreakType:
        """Return what it does about a broken sensor (register 578)."""
        return _BREAK_TYPES.get(self._registers[578], "on")

    def output_when_broken(self) -> float:
        """Return the output while its sensor is broken: its low limit."""
        return 0.0

    def _take_by_hand(self) -> None:
        """Let the output follow auto/manual (273) and manual output (3)."""
        is_manual = self._registers[273] == 1
        self.manual_output = self._signed(3) / 1000 if is_manual else None

    # -- the programmer ------------------------------------------------------------

    def advance_program(self) -> None:
        """Advance the programmer by one tick."""
        programmer = self._programmer
        if programmer.status == _HOLD:
            return
        if programmer.status != _RUN:
            self._approach(self._signed(24) / 10, self._signed(35) / 10)
            return
        first = 1280 + 3 * programmer.segment_index
        if programmer.is_dwelling:
            programmer.dwell_left_s -= TICK_S
            if programmer.dwell_left_s <= 0:
                self._next_segment()
            return
        target = self._signed(first + 1) / 10
        rate = self._signed(first + 2) / 10
        if self._approach(target, rate):
            programmer.is_dwelling = True
            programmer.dwell_left_s = self._registers[first] * self._dwell_unit_s

    def _approach(self, target: float, rate_per_min: float) -> bool:
        """Move the working setpoint towards *target*; tell whether it is there."""
        scale = {0: 60.0, 1: 3600.0, 2: 1.0}[self._registers[531]]
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

    def _signed(self, address: int) -> int:
        value = self._registers[address]
        return value - 0x10000 if value >= 0x8000 else value

    def _live(self) -> dict[int, int]:
        """Return the registers that follow the process."""
        status = self._status_word()
        return {
            1: round(self.chamber.pv_degc * 10),
            2: self._registers[24],
            4: round(self.chamber.output * 1000),
            5: round(self.setpoint_degc * 10),
            23: self._programmer.status,
            75: status,
            76: status ^ 0xFFFF,
            258: 0,
        }

    def _status_word(self) -> int:
        word = 0
        if self.chamber.is_sensor_broken:
            word |= 1 << 5 | 1 << 10
        if self.chamber.pv_degc > self._signed(13) / 10:
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
        if count == 1 and address not in known:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        return [
            known.get(register, 0) & 0xFFFF
            for register in range(address, address + count)
        ]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take new values, all or none."""
        self._world.advance(time)
        for offset, value in enumerate(values):
            self._check_write(address + offset, value)
        for offset, value in enumerate(values):
            register = address + offset
            if register in _EEPROM:
                self.n_eeprom_writes += 1
            if register == 23:
                self._command_program(value)
            elif register == 274 and value == 1:
                self.chamber.acknowledge()
            elif register == 2:
                self._registers[24] = value
            else:
                self._registers[register] = value
        self._take_by_hand()

    def _check_write(self, register: int, value: int) -> None:
        if register in _READ_ONLY:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        if register != 23 and register not in self._registers:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        signed = value - 0x10000 if value >= 0x8000 else value
        is_setpoint = register in (2, 24, 25) or (
            1280 <= register <= 1303 and (register - 1280) % 3 == 1
        )
        if is_setpoint and not self._signed(112) <= signed <= self._signed(111):
            raise ModbusRefusal(ILLEGAL_VALUE)
        if register == 23 and value not in (_RESET, _RUN, _HOLD):
            raise ModbusRefusal(ILLEGAL_VALUE)
        if register in (273, 276, 270) and value not in (0, 1):
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
