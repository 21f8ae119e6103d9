"""A simulated DH-Robotics gripper on Modbus RTU.

Written from the register tables of the PGC-50 and RGI-30 short manuals and of the
PGE-2 user manual, never from the driver. It shows the hand that the arm's programs
move; written to, it moves the fingers itself.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from ppu_simulators.instruments._agenda import Agenda
from ppu_simulators.instruments._hand import hand_of
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedDhGripper"]

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "stroke_mm": 50.0,
    "is_initialized": False,
    "baudrate": 115200,
    "parity": "none",
    "unit": 1,
    "faults": [],
}
_INITIALIZING_S: Final = 2.0
_NOT_INITIALIZED, _INITIALIZED, _INITIALIZING = 0, 1, 2

_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    0x0101: (20, 100),
    0x0103: (0, 1000),
    0x0104: (1, 100),
    0x0300: (0, 1),
    0x0301: (0, 1),
    0x0402: (0, 1),
    0x0504: (0, 1),
}
_GROUPS_FROM: Final = 0x0405
_N_GROUPS: Final = 4
_GROUP_RANGES: Final = ((0, 1000), (20, 100), (1, 100))


class SimulatedDhGripper:
    """Fingers, their control and its registers.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its setting ``hand_of`` says which arm carries it.
        world: The world that the fingers grip things in.
        serial_number: Its last four digits become the last digits of the positions of
            the four I/O groups.
    """

    wire = "modbus-rtu"
    known_faults: ClassVar[Mapping[str, str]] = {
        "dropped crucible": "the grip fails while the arm carries something: it falls, "
        "and the fingers notice"
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._hand = hand_of(world, str(entry.settings.get("hand_of", name)))
        self._hand.stroke_mm = float(twin["stroke_mm"])
        self._hand.fails_at = lambda time: self.faults.is_active(
            "dropped crucible", time
        )
        self._ready = _INITIALIZED if twin["is_initialized"] else _NOT_INITIALIZED
        self._hand.is_ready = self._ready == _INITIALIZED
        self._agenda = Agenda()
        digits = "".join(c for c in serial_number if c.isdigit()).rjust(4, "0")[-4:]
        self._registers = {
            0x0100: 0,
            0x0101: 100,  # force
            0x0103: 1000,  # reference position: open
            0x0104: 100,  # speed
            0x0300: 0,
            0x0301: 0,  # initialisation opens
            0x0302: int(twin["unit"]),
            0x0303: 0,  # 115200
            0x0304: 0,
            0x0305: 0,
            0x0402: 1,  # closed and opened by the arm's outputs
            0x0504: 0,
        }
        for group in range(_N_GROUPS):
            base = _GROUPS_FROM + 3 * group
            position = (990, 760, 600, 0)[group] + int(digits[group])
            self._registers |= {base: position, base + 1: 30, base + 2: 50}
        self._ranges = {
            **_RANGES,
            **{
                _GROUPS_FROM + 3 * group + offset: allowed
                for group in range(_N_GROUPS)
                for offset, allowed in enumerate(_GROUP_RANGES)
            },
        }
        line = SerialLine(int(twin["baudrate"]), twin["parity"])
        slave = ModbusRtuSlave(int(twin["unit"]), self, baudrate=line.baudrate)
        client_parity = (entry.hardware or {}).get("parity", "none")
        self._front = SerialFront(slave, line, client_parity, faults=self.faults)
        self._connection = {
            "transport": "serial",
            "baudrate": line.baudrate,
            "parity": line.parity,
            "unit": slave.unit,
        }

    async def start(self) -> Mapping[str, Any]:
        """Open the serial port; return the connection that leads here."""
        self._agenda.start()
        return {**self._connection, "port": self._front.start()}

    async def stop(self) -> None:
        """Close the serial port."""
        self._agenda.stop()
        self._front.stop()

    # -- registers -----------------------------------------------------------------

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers; unlisted ones inside a block read 0 (our assumption)."""
        self._agenda.advance(time)
        part = self._hand.opening_mm(time) / self._hand.stroke_mm
        known = {
            **self._registers,
            0x0200: self._ready,
            0x0201: int(self._hand.feel(time)),
            0x0202: round(1000 * part),
        }
        wanted = range(address, address + count)
        if not any(register in known for register in wanted):
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        return [known.get(register, 0) for register in wanted]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take new values, all or none."""
        self._agenda.advance(time)
        for register, value in enumerate(values, address):
            self._check_write(register, value)
        for register, value in enumerate(values, address):
            if register == 0x0100:
                self._initialize(time)
                continue
            self._registers[register] = value
            if register == 0x0103:
                self._hand.move_to(time, value / 1000 * self._hand.stroke_mm)
            elif register == 0x0104:
                self._hand.speed_percent = float(value)

    def _check_write(self, register: int, value: int) -> None:
        if register == 0x0100:
            if value not in (1, 0xA5):
                raise ModbusRefusal(ILLEGAL_VALUE)
            return
        if register not in self._ranges:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        low, high = self._ranges[register]
        if not low <= value <= high:
            raise ModbusRefusal(ILLEGAL_VALUE)

    def _initialize(self, time: float) -> None:
        """Open all the way to find the end position; what is held falls."""
        self._hand.is_ready = True
        self._hand.open(time)
        self._hand.is_ready = False
        self._ready = _INITIALIZING
        self._agenda.clear()
        self._agenda.at(time + _INITIALIZING_S, self._become_ready)

    def _become_ready(self, time: float) -> None:
        del time
        self._ready = _INITIALIZED
        self._hand.is_ready = True
