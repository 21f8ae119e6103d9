"""A simulated Alicat mass-flow controller on a gas bottle, from Alicat's manuals.

Commands and frames are those of the MC-Series manual, the quick command reference of
the M-Series manual (rev. 0, 2023) and the Serial Communications Primer (rev. 2, 2023);
the tables are laid out as captures of real instruments that alicatlib and labmcp-alicat
describe. A command that the firmware does not know is ignored in silence, one that
fails is answered with ``?``. The old integer setpoint is obeyed, as on the real one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.physics.constants import ZERO_DEGC_KELVIN
from ppu_simulators.physics.gas_flow import (
    VISCOSITY_UPA_S,
    GasLine,
    SensorNoise,
    misread_factor,
    volumetric,
)
from ppu_simulators.world import AMBIENT_DEGC, Container, Refused, World, settings_of

__all__ = ["SimulatedAlicatMfc"]

_DT: Final = 10.0
_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "into": "",
    "unit": "A",
    "firmware": "10v20.0-R24",
    "series": "MC",
    "full_scale": 500.0,
    "flow_unit": "SCCM",
    "gas": "air",
    "bottle": "",
    "inlet_bar": 3.0,
    "line_ml": 500.0,
    "time_constant_s": 0.3,
    "noise_fraction": 2e-4,
    "describes_frame": True,
    "ends_tables": True,
    "baudrate": 19200,
    "parity": "none",
    "faults": [],
}
_ML_PER_MIN: Final = {"SCCM": 1.0, "SLPM": 1000.0}
_UNIT_CODES: Final = {"SCCM": 12, "SLPM": 7}
_PSI_PER_BAR: Final = 14.503774
# The open valve passes more than full scale at the intended pressure (our choice).
_VALVE_RESERVE: Final = 1.6
_FULL_SCALE_INTEGER: Final = 64000
_MASS_FLOW_CONTROL: Final = 37
_THINKING_S: Final = 0.005
_LONGEST_COMMAND: Final = 100

_GASES: Final = {
    0: ("Air", "Air", "air"),
    1: ("Ar", "Argon", "Ar"),
    4: ("CO2", "Carbon Dioxide", "CO2"),
    7: ("He", "Helium", "He"),
    8: ("N2", "Nitrogen", "N2"),
    11: ("O2", "Oxygen", "O2"),
}
"""Number: short and long name on the wire, and name in the world."""
_NUMBER: Final = {world: number for number, (_, _, world) in _GASES.items()}


class SimulatedAlicatMfc:
    """Bottle, line, laminar element, valve and serial interface.

    The line changes on a fixed grid of 10 s, so looking more often changes nothing.
    Twin settings: ``into`` names the device that the gas flows into; ``bottle`` is the
    gas that is really connected (by default whatever is selected).

    Args:
        name: Name of the device.
        entry: Its lab-file entry.
        world: The world that its gas flows in.
        serial_number: What it answers to ??M*.
    """

    wire = "alicat-ascii"
    known_faults: ClassVar[Mapping[str, str]] = {
        "empty bottle": (
            "the line drains: its pressure falls to that of the room within minutes, "
            "the valve opens fully and the flow dies away"
        ),
        "analog setpoint source": (
            "somebody switched it to its analog input, which says 0: setpoints that "
            "are sent are ignored"
        ),
        "valve hold": (
            "somebody held the valve: it stays as it is, whatever the setpoint (HLD)"
        ),
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        for key, choices in (
            ("flow_unit", tuple(_ML_PER_MIN)),
            ("gas", tuple(VISCOSITY_UPA_S)),
            ("bottle", ("", *VISCOSITY_UPA_S)),
        ):
            if twin[key] not in choices:
                raise ValueError(
                    f"{key} should be one of {', '.join(map(repr, choices))}, "
                    f"not {twin[key]!r}"
                )
        version = re.match(r"(\d+)v(\d+)", str(twin["firmware"]))
        if version is None:
            raise ValueError(f"firmware should look like 10v20, not {twin['firmware']}")
        self._version = (int(version[1]), int(version[2]))
        self._firmware = str(twin["firmware"])
        self._unit = str(twin["unit"])
        self._flow_unit = str(twin["flow_unit"])
        self._scale = _ML_PER_MIN[self._flow_unit]
        self._full_scale = float(twin["full_scale"])
        self._model = f"{twin['series']}-{self._full_scale:g}{self._flow_unit}-D"
        self._serial_number = serial_number
        self._describes_frame = bool(twin["describes_frame"])
        self._ends_tables = bool(twin["ends_tables"])
        self._world = world
        self._into = str(twin["into"])
        self._bottle = str(twin["bottle"])
        self._line = GasLine(
            full_bar=float(twin["inlet_bar"]),
            line_ml=float(twin["line_ml"]),
            capacity_ml_per_min=_VALVE_RESERVE * self._full_scale * self._scale,
        )
        self._time_constant_s = float(twin["time_constant_s"])
        self._noise = SensorNoise(world.rng(name, "sensor"))
        self._noise_fraction = float(twin["noise_fraction"])
        self._inlet_bar = self._line.full_bar
        self._gas = _NUMBER[str(twin["gas"])]
        self._setpoint = 0.0
        """In the instrument's unit, like everything on the wire."""
        self._hold: float | None = None
        """Flow at which the valve is held [mL/min], None while it controls."""
        self._is_locked = False
        self._flow = self._target = 0.0
        """Indicated flow when it last changed, and where it goes [mL/min]."""
        self._changed_s = 0.0
        self._supplied = ("", 0.0)
        self._tick = 0
        self._buffer = b""
        self.n_eeprom_writes = 0
        """Writes that the sources say are kept; a memory has a limited number."""
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        line = SerialLine(int(twin["baudrate"]), twin["parity"])
        client_parity = (entry.hardware or {}).get("parity", "none")
        self._front = SerialFront(self, line, client_parity, faults=self.faults)
        self._connection = {
            "transport": "serial",
            "baudrate": line.baudrate,
            "parity": line.parity,
        }
        world.add_process(self, is_source=True)

    async def start(self) -> Mapping[str, Any]:
        """Open the serial port; return the connection that leads here."""
        return {**self._connection, "port": self._front.start()}

    async def stop(self) -> None:
        """Close the serial port."""
        self._front.stop()

    # -- the gas -------------------------------------------------------------------

    @property
    def chamber_degc(self) -> float:
        """The gas is as warm as the room [degC]."""
        return AMBIENT_DEGC

    def put_in(self, container: Container, time: float) -> None:
        """Refuse: nothing can stand inside."""
        raise Refused(f"{container.name} cannot stand in {self.name} (at {time:g} s)")

    def take_out(self, container: Container, time: float) -> None:
        """Refuse: nothing can stand inside."""
        raise Refused(f"{container.name} cannot be in {self.name} (at {time:g} s)")

    def advance(self, time: float) -> None:
        """Advance bottle, line and faults to the last point of the grid."""
        n_ticks = math.floor(time / _DT + 1e-9)
        while self._tick < n_ticks:
            # First, because telling the world makes it advance everything, also this.
            self._tick += 1
            self._step(self._tick * _DT)

    def _step(self, time: float) -> None:
        if self.faults.is_active("empty bottle", time):
            drawn = self._wanted * self._misread
            self._inlet_bar = self._line.drain(self._inlet_bar, drawn, _DT)
        else:
            self._inlet_bar = self._line.full_bar
        if self.faults.is_active("valve hold", time):
            self._hold = self._target if self._hold is None else self._hold
        if self.faults.is_active("analog setpoint source", time):
            self._setpoint = 0.0
        self._settle(time)

    @property
    def _misread(self) -> float:
        """True flow over indicated flow."""
        return misread_factor(self._world_gas, self._flowing)

    @property
    def _world_gas(self) -> str:
        return _GASES[self._gas][2]

    @property
    def _flowing(self) -> str:
        """The gas that really flows."""
        return self._bottle or self._world_gas

    @property
    def _wanted(self) -> float:
        """Indicated flow that the valve is set to [mL/min]."""
        return self._setpoint * self._scale if self._hold is None else self._hold

    def _settle(self, time: float) -> None:
        """Let the flow go where valve and pressure want it from *time* on."""
        most = self._line.open_flow(self._inlet_bar) / self._misread
        target = min(self._wanted, most)
        if target != self._target:
            self._flow = self._flow_at(time)
            self._changed_s = time
            self._target = target
        true = target * self._misread
        # It gets there within a second, which no furnace feels.
        supplied = (self._flowing if true > 0 else "", true)
        if self._into and supplied != self._supplied:
            self._supplied = supplied
            self._world.supply_gas(time, self._into, self._flowing, true)

    def _flow_at(self, time: float) -> float:
        """Return the indicated flow at *time*, without noise [mL/min]."""
        age = max(time - self._changed_s, 0.0)
        decay = math.exp(-age / self._time_constant_s)
        return self._target + (self._flow - self._target) * decay

    # -- the interface -------------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the lines they complete."""
        self._buffer += data
        answers: list[Answer] = []
        while b"\r" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r")
            rows = self._execute(line.decode("latin-1").strip(), time)
            if rows:
                text = "".join(f"{row}\r" for row in rows)
                answers.append(Answer(text.encode("latin-1"), _THINKING_S))
        if len(self._buffer) > _LONGEST_COMMAND:
            self._buffer = b""
        return answers

    def _execute(self, line: str, time: float) -> list[str]:
        """Carry out one line; return what is answered, nothing if it is ignored."""
        if line[:1].upper() != self._unit:
            return []
        self._world.advance(time)
        self.advance(time)
        # Only the oldest firmware needs $$; all others understand it, too.
        body = line[1:].upper().strip().removeprefix("$$")
        tables = {"??M*": self._maker, "??D*": self._layout, "??G*": self._gas_list}
        if body in tables:
            return tables[body]()
        answer = self._tell(body, time)
        if answer is None:
            answer = self._act(body, time)
        return [] if answer is None else [answer]

    def _tell(self, body: str, time: float) -> str | None:
        """Answer a question; None if *body* is none that this firmware knows."""
        unit, version = self._unit, self._version
        if body == "":
            return self._frame(time)
        if body == "VE":
            return f"{unit}   {self._firmware} Jan  9 2025,15:04:07"
        if body == "R46":
            return f"{unit}   046 = {self._gas}"
        if body == "R122":
            return f"{unit}   122 = {_MASS_FLOW_CONTROL}"
        if body == "GS" and version >= (10, 5):
            short, long, _ = _GASES[self._gas]
            return f"{unit} {self._gas} {short} {long}"
        if body == "LS" and version >= (9, 0):
            return self._setpoint_line(time)
        if body == "LSS" and version >= (10, 5):
            is_analog = self.faults.is_active("analog setpoint source", time)
            return f"{unit} {'A' if is_analog else 'S'}"
        if body == "VD" and version >= (8, 18):
            drive = self._line.valve_drive_percent(
                self._wanted * self._misread, self._inlet_bar
            )
            return f"{unit} {drive:06.2f} 000.00 000.00 000.00"
        return self._full_scale_line(body)

    def _full_scale_line(self, body: str) -> str | None:
        match = re.fullmatch(r"FPF *(\d+)", body)
        if match is None:
            return None
        if self._version < (6, 0):
            return "?"
        if int(match[1]) not in (5, _MASS_FLOW_CONTROL):
            return f"{self._unit} +000.00 1 ---"
        value = self._signed(self._full_scale)
        return f"{self._unit} {value} {_UNIT_CODES[self._flow_unit]} {self._flow_unit}"

    def _act(self, body: str, time: float) -> str | None:
        """Carry out a command; None if this firmware does not know it."""
        if body in ("C", "HP", "H", "HC", "L", "U"):
            return self._switch(body, time)
        integer = re.fullmatch(r"\d+", body)
        if integer is not None:
            if int(body) > _FULL_SCALE_INTEGER:
                return "?"
            value = int(body) / _FULL_SCALE_INTEGER * self._full_scale
            return self._set_setpoint(value, time)
        setpoint = re.fullmatch(r"(S|LS) *([+-]?\d+\.?\d*)", body)
        if setpoint is not None:
            if setpoint[1] == "LS" and self._version < (9, 0):
                return None
            frame = self._set_setpoint(float(setpoint[2]), time)
            return frame if setpoint[1] == "S" else self._setpoint_line(time)
        gas = re.fullmatch(r"(W46=|GS?) *(\d+) *([01])?", body)
        if gas is None or (gas[1] == "GS" and self._version < (10, 5)):
            return None
        return self._select(gas[1], int(gas[2]), gas[3] == "1", time)

    def _switch(self, body: str, time: float) -> str | None:
        if body in ("HP", "H", "HC") and self._version < (5, 7):
            return None
        if body in ("L", "U"):
            self._is_locked = body == "L"
        elif body == "C":
            self._hold = None
        elif body == "HC":
            self._hold = 0.0
        else:
            self._hold = self._flow_at(time)
        self._settle(time)
        return self._frame(time)

    def _set_setpoint(self, value: float, time: float) -> str:
        """Take a setpoint, limited to the range (Primer, p. 12)."""
        if not self.faults.is_active("analog setpoint source", time):
            self._setpoint = min(max(value, 0.0), self._full_scale)
            self._settle(time)
        return self._frame(time)

    def _select(self, word: str, number: int, is_kept: bool, time: float) -> str:
        """Select a gas; only GS without its flag forgets it when switched off."""
        if number not in _GASES:
            return "?"
        if word != "GS" or is_kept:
            self.n_eeprom_writes += 1
        self._gas = number
        self._settle(time)
        if word == "W46=":
            return f"{self._unit}   046 = {number}"
        if word == "GS":
            short, long, _ = _GASES[number]
            return f"{self._unit} {number} {short} {long}"
        return self._frame(time)

    # -- what it says --------------------------------------------------------------

    @property
    def _is_old(self) -> bool:
        """Whether frames and tables are laid out as before firmware 6v."""
        return self._version < (6, 0)

    @property
    def _decimals(self) -> int:
        """Digits after the point of flows: five digits, old ones with one to spare."""
        n_before = len(f"{self._full_scale:.0f}") + (1 if self._is_old else 0)
        return max(5 - n_before, 0)

    def _signed(self, value: float) -> str:
        return f"{value:+07.{self._decimals}f}"

    def _setpoint_line(self, time: float) -> str:
        flow = self._signed(self._measured(time) / self._scale)
        code = _UNIT_CODES[self._flow_unit]
        setpoint = self._signed(self._setpoint)
        return f"{self._unit} {flow} {setpoint} {code} {self._flow_unit}"

    def _measured(self, time: float) -> float:
        """Return the indicated flow, with noise [mL/min]."""
        noise = self._noise_fraction * self._full_scale * self._scale
        return self._flow_at(time) + noise * self._noise.at(time)

    def _frame(self, time: float) -> str:
        """Return the data frame at *time*."""
        flow = self._measured(time)
        pressure = self._inlet_bar + 0.001 * self._noise.at(time, 1)
        temperature = AMBIENT_DEGC + 0.02 * self._noise.at(time, 2)
        volume = volumetric(flow, temperature + ZERO_DEGC_KELVIN, pressure)
        setpoint = (
            f"{self._setpoint:06.{self._decimals}f}"
            if self._is_old
            else self._signed(self._setpoint)
        )
        parts = [
            self._unit,
            f"{pressure * _PSI_PER_BAR:+07.2f}",
            f"{temperature:+07.2f}",
            self._signed(volume / self._scale),
            self._signed(flow / self._scale),
            setpoint,
            f"{_GASES[self._gas][0]:>{7 if self._is_old else 6}}",
        ]
        if self._hold is not None:
            parts.append("HLD")
        if self._is_locked:
            parts.append("LCK")
        return " ".join(parts)

    def _maker(self) -> list[str]:
        texts = (
            "ALICAT SCIENTIFIC",
            "www.alicat.com",
            "Ph   520-290-6060",
            "info@alicat.com",
            f"Model Number {self._model}",
            f"Serial Number {self._serial_number}",
            "Date Manufactured 03/02/2025",
            "Date Calibrated   03/02/2025",
            "Calibrated By     BL",
            f"Software Revision {self._firmware}",
        )
        return [f"{self._unit}  M{i:02d} {text}" for i, text in enumerate(texts)]

    def _gas_list(self) -> list[str]:
        return [
            f"{self._unit} G{number:02d} {short:>8}"
            for number, (short, _, _) in _GASES.items()
        ]

    def _layout(self) -> list[str]:
        if not self._describes_frame:
            return ["?"]
        rows = self._old_layout() if self._is_old else self._new_layout()
        return [*rows, ""] if self._ends_tables else rows

    def _old_layout(self) -> list[str]:
        unit, high = self._unit, self._signed(self._full_scale)
        low = self._signed(0.0)
        volume_unit = self._flow_unit.removeprefix("S")
        columns = (
            ("Unit ID", "char", "A", "Z", "na"),
            ("Pressure", "signed", "+000.00", "+160.00", "PSIA"),
            ("Temperature", "signed", "-010.00", "+050.00", "C"),
            ("Volumetric", "signed", low, high, volume_unit),
            ("Mass", "signed", low, high, self._flow_unit),
            ("SetPoint", "signed", low, high, self._flow_unit),
            ("Gas", "string", "Air", "O2", "na"),
            ("Error", "string", "na", "ADC", "na"),
            *(("Status", "string", "na", code, "na") for code in ("LCK", "HLD", "MOV")),
        )
        return [
            f"{unit}  D00 NAME_______ TYPE_____ MinVal_  MaxVal_  UNITS__",
            *(
                f"{unit}  D{i:02d} {name:<11} {kind:<9} {least:>7}  {most:>7}  {of:>7}"
                for i, (name, kind, least, most, of) in enumerate(columns, 1)
            ),
        ]

    def _new_layout(self) -> list[str]:
        width = f"7/{self._decimals}"
        flow = f"{_UNIT_CODES[self._flow_unit]:03d} {self._decimals:02d}"
        volume_unit = self._flow_unit.removeprefix("S")
        columns = (
            (700, "Unit ID", "string", "1", ""),
            (2, "Abs Press", "s decimal", "7/2", "010 02 PSIA"),
            (3, "Flow Temp", "s decimal", "7/2", "002 02 `C"),
            (4, "Volu Flow", "s decimal", width, f"{flow} {volume_unit}"),
            (5, "Mass Flow", "s decimal", width, f"{flow} {self._flow_unit}"),
            (37, "Mass Flow Setpt", "s decimal", width, f"{flow} {self._flow_unit}"),
            (703, "Gas", "string", "6", ""),
            (701, "*Error", "string", "3", "ADC"),
            *((702, "*Status", "string", "3", code) for code in ("MOV", "HLD", "LCK")),
        )
        unit = self._unit
        return [
            f"{unit} D00 ID_ NAME______________________ TYPE_______ WIDTH NOTES_______",
            *(
                f"{unit} D{i:02d} {code:03d} {name:<26} {kind:<11} {size:>5} {notes}"
                for i, (code, name, kind, size, notes) in enumerate(columns, 1)
            ),
        ]
