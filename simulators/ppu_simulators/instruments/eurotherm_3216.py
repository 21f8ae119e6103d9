"""A box furnace with a simulated Eurotherm 3216 controller on Modbus RTU.

Written from the handbook's register table (HA028651 issue 7, pp. 83-84), never from
the driver. What the sources leave open is our assumption and is marked so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.fronts.modbus import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    ModbusRefusal,
    ModbusRtuSlave,
)
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.physics import reactions
from ppu_simulators.physics.constants import ZERO_DEGC_KELVIN
from ppu_simulators.physics.control import PiController
from ppu_simulators.physics.furnace import FurnaceModel, FurnaceParameters
from ppu_simulators.physics.thermocouple import ThermocoupleSensor
from ppu_simulators.world import Container, World, settings_of

__all__ = ["SimulatedEurotherm3216"]

_DT: Final = 1.0
_CHEMISTRY_TICKS: Final = 10
_TRUTH_TICKS: Final = 60

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
    "p_max_w": 3000.0,
    "dwell_unit": "minute",
    "baudrate": 9600,
    "parity": "none",
    "unit": 1,
    "type_code": 3216,
    "registers": {},
    "p_co2_bar": 0.0004,
    "faults": [],
}


class SimulatedEurotherm3216:
    """Chamber, thermocouple, controller and programmer behind a serial port.

    Everything advances on a fixed grid of 1 s anchored at lab time 0 and only when
    somebody looks, so polling more often changes nothing.

    Args:
        name: Name of the device.
        entry: Its lab-file entry.
        world: The world its chamber stands in.
        serial_number: Digits to answer as customer id (register 629).
    """

    wire = "modbus-rtu"

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        if twin["faults"]:
            raise ValueError(f"{name}: this simulator knows no faults yet")
        self._world = world
        self._model = FurnaceModel(FurnaceParameters(p_max_w=float(twin["p_max_w"])))
        self._sensor = ThermocoupleSensor(world.rng(name, "thermocouple"))
        self._controller = PiController(kp=0.02, ti=400.0)
        self._atmosphere = reactions.Atmosphere(p_co2_bar=float(twin["p_co2_bar"]))
        self._programmer = _Programmer()
        self._dwell_unit_s = 60.0 if twin["dwell_unit"] == "minute" else 3600.0
        self._tick = 0
        self._pv_degc = self._sensor.read_degc(
            self._model.thermocouple_kelvin - ZERO_DEGC_KELVIN, _DT
        )
        self._setpoint_degc = 0.0
        self._output = 0.0
        self._containers: list[Container] = []
        self.n_eeprom_writes = 0
        self.curve: list[tuple[float, float, float, float | None]] = []
        """Truth every minute: lab time, program, chamber and sample [degC]."""
        self._registers = self._at_power_on(twin, serial_number)
        slave = ModbusRtuSlave(
            int(twin["unit"]),
            self,
            baudrate=int(twin["baudrate"]),
        )
        line = SerialLine(int(twin["baudrate"]), twin["parity"])
        client_parity = (entry.hardware or {}).get("parity", "none")
        self._front = SerialFront(slave, line, client_parity)
        self._connection = {
            "transport": "serial",
            "baudrate": line.baudrate,
            "parity": line.parity,
            "unit": slave.unit,
        }
        world.add_process(self)

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
        registers |= {int(k): int(v) for k, v in dict(twin["registers"]).items()}
        return registers

    # -- server --------------------------------------------------------------------

    async def start(self) -> Mapping[str, Any]:
        """Open the serial port; return the connection that leads here."""
        return {**self._connection, "port": self._front.start()}

    async def stop(self) -> None:
        """Close the serial port."""
        self._front.stop()

    # -- the chamber ---------------------------------------------------------------

    def put_in(self, container: Container, time: float) -> None:
        """Take note that *container* stands in the chamber."""
        inside = sum(c.heat_capacity_j_per_k for c in self._containers)
        self._model.mix_in(
            container.temperature_at(time), container.heat_capacity_j_per_k, inside
        )
        self._containers.append(container)

    def take_out(self, container: Container, time: float) -> None:
        """Take note that *container* left the chamber."""
        self._containers.remove(container)
        container.temperature_kelvin = self._model.crucible_kelvin
        container.put_at_s = time

    def advance(self, time: float) -> None:
        """Advance chamber, firmware and matter to the last grid point."""
        n_ticks = math.floor(time / _DT + 1e-9)
        while self._tick < n_ticks:
            self._run_to(min(n_ticks, self._tick - self._tick % 10 + 10))

    def _run_to(self, n_ticks: int) -> None:
        """Run the ticks up to a multiple of the chemistry grid, or to *n_ticks*."""
        model, sensor, controller = self._model, self._sensor, self._controller
        registers = self._registers
        capacity = sum(c.heat_capacity_j_per_k for c in self._containers)
        n_crucibles = len(self._containers)
        is_manual = registers[273] == 1
        controller.high = self._signed(30) / 1000
        low = max(self._signed(31) / 1000, 0.0)
        while self._tick < n_ticks:
            self._advance_program()
            if is_manual:
                output = self._signed(3) / 1000
                controller.reset(output)
            else:
                output = controller.step(_DT, self._setpoint_degc, self._pv_degc)
            self._output = output = min(max(output, low), controller.high)
            model.step(_DT, output, capacity, n_crucibles=max(n_crucibles, 1))
            self._pv_degc = sensor.read_degc(
                model.thermocouple_kelvin - ZERO_DEGC_KELVIN, _DT
            )
            self._tick += 1
        if self._tick % _CHEMISTRY_TICKS == 0:
            dt = _CHEMISTRY_TICKS * _DT
            for container in self._containers:
                reactions.advance(
                    container.matter, model.crucible_kelvin, dt, self._atmosphere
                )
        if self._tick % _TRUTH_TICKS == 0:
            sample = model.crucible_kelvin - ZERO_DEGC_KELVIN if n_crucibles else None
            chamber = model.lining_kelvin - ZERO_DEGC_KELVIN
            self.curve.append((self._tick * _DT, self._setpoint_degc, chamber, sample))

    # -- the programmer ------------------------------------------------------------

    def _advance_program(self) -> None:
        programmer = self._programmer
        if programmer.status == _HOLD:
            return
        if programmer.status != _RUN:
            self._approach(self._signed(24) / 10, self._signed(35) / 10)
            return
        first = 1280 + 3 * programmer.segment_index
        if programmer.is_dwelling:
            programmer.dwell_left_s -= _DT
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
        step = rate_per_min / scale * _DT
        gap = target - self._setpoint_degc
        if step <= 0 or abs(gap) <= step:
            self._setpoint_degc = target
            return True
        self._setpoint_degc += math.copysign(step, gap)
        return False

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
        self._programmer = _Programmer(status=_RUN)
        self._setpoint_degc = self._pv_degc  # servo to PV
        self._controller.reset(self._output)

    # -- registers -----------------------------------------------------------------

    def _signed(self, address: int) -> int:
        value = self._registers[address]
        return value - 0x10000 if value >= 0x8000 else value

    def _live(self) -> dict[int, int]:
        """Return the registers that follow the process."""
        status = self._status_word()
        return {
            1: round(self._pv_degc * 10),
            2: self._registers[24],
            4: round(self._output * 1000),
            5: round(self._setpoint_degc * 10),
            23: self._programmer.status,
            75: status,
            76: status ^ 0xFFFF,
            258: 0,
        }

    def _status_word(self) -> int:
        word = 0
        if self._pv_degc > self._signed(13) / 10:
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
            elif register == 2:
                self._registers[24] = value
            else:
                self._registers[register] = value

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
            self._setpoint_degc = self._pv_degc
