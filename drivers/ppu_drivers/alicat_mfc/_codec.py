"""The wire language of Alicat's controllers: what is sent, and what comes back.

One hazard of this language shapes the module: a unit id directly followed by digits,
such as ``A49408``, is an old way to set the flow (64000 = full scale), so a slip in
formatting would be a setpoint. Every command is therefore a :class:`Poll`, which
takes no argument, or a :class:`Command`, whose word begins with a letter or a sign.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, get_args

from ppu.core.errors import InstrumentError, MalformedReply, UnencodableRequest

__all__ = [
    "DEFAULT_LAYOUT",
    "FLOW_UNITS",
    "GAS_NUMBERS",
    "MASS_FLOW",
    "REFUSED_STATES",
    "UNTRUE_STATES",
    "Column",
    "Command",
    "Frame",
    "Gas",
    "Layout",
    "Poll",
    "UnitId",
    "Word",
    "encode",
    "house_name",
    "is_refusal",
    "maker_entry",
    "names_firmware",
    "parse_firmware",
    "parse_frame",
    "parse_full_scale",
    "parse_gas_register",
    "parse_layout",
    "range_in_model",
]

UnitId = Literal[
    "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M",
    "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z",
]  # fmt: skip

Gas = Literal["air", "Ar", "CO2", "He", "N2", "O2"]
"""Gases that may flow; none of them burns: that would need more than a flow limit."""

GAS_NUMBERS: Final[Mapping[str, int]] = {
    "air": 0, "Ar": 1, "CO2": 4, "He": 7, "N2": 8, "O2": 11,
}  # fmt: skip
FLOW_UNITS: Final = {"SCCM": 1.0, "SmL/m": 1.0, "SLPM": 1000.0, "SL/m": 1000.0}
_PRESSURES_BAR: Final = {
    "psi": 0.0689476,
    "bar": 1.0,
    "mbar": 1e-3,
    "kpa": 1e-2,
    "torr": 1.33322e-3,
}
_CELSIUS: Final = ("C", "`C")

_STATUS: Final[Mapping[str, str]] = {
    "ADC": "its converter or its sensors failed",
    "COM": "its digital connection was idle for too long",
    "EXH": "it vents: the exhaust valve is open",
    "GTA": "it tunes its control loop",
    "HLD": "its valve is held, so it does not control the flow",
    "LCK": "its buttons are locked",
    "MOV": "the mass flow is out of its range",
    "OPL": "the pressure limit tripped",
    "OVR": "its totalizer ran over",
    "P2O": "the second pressure is out of its range",
    "POV": "the pressure is out of its range",
    "TMF": "its totalizer missed flow",
    "TOV": "the temperature is out of its range",
    "VOV": "the volumetric flow is out of its range",
}
REFUSED_STATES: Final = frozenset({"ADC", "EXH", "HLD", "LCK", "OVR"})
"""States in which no gas is asked of it."""
UNTRUE_STATES: Final = frozenset({"ADC", "MOV", "POV", "TOV", "VOV"})
"""States in which a flow reading is not to be trusted."""
MASS_FLOW: Final = 5
_MODEL_RANGE: Final = re.compile(r"-(\d+(?:\.\d+)?)(SCCM|SLPM)\b")
_FIRMWARE: Final = re.compile(r"(\d+)v(\d+)")


# -- what is sent ----------------------------------------------------------------------


class Word(StrEnum):
    """What follows the unit id; none begins with a digit, a sign or a point."""

    FIRMWARE = "VE"
    MAKER = "??M*"
    LAYOUT = "??D*"
    FULL_SCALE = "FPF "
    SETPOINT_OLD = "S"
    SETPOINT = "S "
    GAS_REGISTER = "$$W46="
    READ_GAS_REGISTER = "$$R46"
    GAS = "G "
    GAS_UNSAVED = "GS "
    CANCEL_HOLD_OLD = "$$C"
    CANCEL_HOLD = "C"
    HOLD_CLOSED = "HC"


QUESTIONS: Final = frozenset(
    {Word.FIRMWARE, Word.MAKER, Word.LAYOUT, Word.FULL_SCALE, Word.READ_GAS_REGISTER}
)
"""Words that change nothing."""


@dataclass(frozen=True)
class Poll:
    """Asks for a data frame: the unit id and nothing else."""


@dataclass(frozen=True)
class Command:
    """A word, and a number for those that take one.

    Args:
        word: What to do.
        number: Its argument, >= 0.
        decimals: Digits of the argument after the point.
    """

    word: Word
    number: float | None = None
    decimals: int = 0


def encode(unit: UnitId, command: Poll | Command) -> str:
    """Return the line that is sent to *unit*.

    Raises:
        UnencodableRequest: If the language cannot express it.

    Example:
        >>> encode("A", Command(Word.SETPOINT, 12.5, decimals=2))
        'AS 12.50'
        >>> encode("A", Poll())
        'A'
    """
    if unit not in get_args(UnitId):
        raise UnencodableRequest(f"a unit id is one letter from A to Z, not {unit!r}")
    if isinstance(command, Poll):
        return unit
    if command.number is None:
        return unit + command.word.rstrip()
    if not (math.isfinite(command.number) and 0 <= command.number < 1e6):
        raise UnencodableRequest(
            f"{command.word.strip()} takes a number from 0 to 999999, "
            f"not {command.number!r}"
        )
    if not 0 <= command.decimals <= 6:
        raise UnencodableRequest(f"{command.decimals} decimals cannot be sent")
    return f"{unit}{command.word}{command.number:.{command.decimals}f}"


# -- what comes back -------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of a data frame: what it is, and its unit (empty if not stated)."""

    quantity: str
    unit: str = ""


@dataclass(frozen=True)
class Layout:
    """Columns of a data frame after the unit id.

    Args:
        columns: What comes, in order; status codes may follow.
        full_scale: Highest mass flow, in the unit of its column, if it is stated.
    """

    columns: tuple[Column, ...]
    full_scale: float | None = None

    def unit_of(self, quantity: str) -> str:
        """Return the unit of *quantity*, empty if it is not stated."""
        for column in self.columns:
            if column.quantity == quantity:
                return column.unit
        return ""


DEFAULT_LAYOUT: Final = Layout(
    (
        Column("pressure", "PSIA"),
        Column("temperature", "C"),
        Column("volumetric"),
        Column("flow"),
        Column("setpoint"),
        Column("gas"),
    )
)
"""What the manuals print; used if the instrument does not describe its frame."""

_BY_STATISTIC: Final = {
    2: "pressure",
    3: "temperature",
    4: "volumetric",
    MASS_FLOW: "flow",
    37: "setpoint",
    703: "gas",
}
_BY_OLD_NAME: Final = {
    "pressure": "pressure",
    "temperature": "temperature",
    "volumetric": "volumetric",
    "mass": "flow",
    "setpoint": "setpoint",
    "gas": "gas",
}
_ROW: Final = re.compile(
    r"[A-Z] +D\d\d +(\d{3}) +(\*?)(\S.*?) +(?:s )?(string|decimal|integer) +"
    r"(\d+(?:/\d+)?) *(.*)"
)
_OLD_ROW: Final = re.compile(
    r"[A-Z] +D\d\d +(\S.*?) +(char|string|signed|unsigned) +(\S+) +(\S+) +(\S+) *"
)
_HEADER: Final = re.compile(r"[A-Z] +D00 +(ID_ +)?NAME_.*")


def parse_layout(lines: list[str]) -> Layout:
    """Return the layout that an answer to ``??D*`` describes, in either dialect.

    Raises:
        MalformedReply: If it describes none, or no frame of a flow controller, or
            uses a unit that this driver does not know.
    """
    rows = [line for line in lines if line.strip()]
    header = _HEADER.fullmatch(rows[0]) if rows else None
    if header is None:
        raise MalformedReply(f"{rows[:1]} is no description of a data frame")
    parse = _parse_old_row if header[1] is None else _parse_row
    columns: list[Column] = []
    full_scale = None
    for row in rows[1:]:
        found = parse(row)
        if found is None:
            continue
        column, high = found
        columns.append(column)
        if column.quantity == "flow":
            full_scale = high
    if not columns or columns.pop(0).quantity != "unit id":
        raise MalformedReply("a data frame that does not begin with the unit id")
    quantities = [column.quantity for column in columns]
    for quantity in ("pressure", "temperature", "flow", "setpoint", "gas"):
        if quantities.count(quantity) != 1:
            raise MalformedReply(
                f"a data frame with {quantities.count(quantity)} columns for "
                f"{quantity}; is it a mass-flow controller in mass-flow control?"
            )
    layout = Layout(tuple(columns), full_scale)
    _bar(layout.unit_of("pressure"))
    temperature_unit = layout.unit_of("temperature")
    if temperature_unit not in _CELSIUS:
        raise MalformedReply(
            f"the temperature is in {temperature_unit!r}; set it to degC at its panel"
        )
    return layout


def _parse_row(row: str) -> tuple[Column, float | None] | None:
    """Return what a row of the newer dialect describes; None for status codes."""
    match = _ROW.fullmatch(row)
    if match is None:
        raise MalformedReply(f"{row!r} describes no column")
    statistic, star, name, _, _, notes = match.groups()
    if star:
        return None
    if int(statistic) == 700:
        return Column("unit id"), None
    unit = notes.split()[-1] if notes.strip() else ""
    return Column(_BY_STATISTIC.get(int(statistic), name), unit), None


def _parse_old_row(row: str) -> tuple[Column, float | None] | None:
    """Return what a row of the older dialect describes; None for status codes."""
    match = _OLD_ROW.fullmatch(row)
    if match is None:
        raise MalformedReply(f"{row!r} describes no column")
    name, kind, _, high, unit = match.groups()
    if name in ("Error", "Status"):
        return None
    quantity = _BY_OLD_NAME.get(name.lower(), name.lower())
    if kind != "signed":
        return Column(quantity), None
    return Column(quantity, unit), _number(high)


@dataclass(frozen=True)
class Frame:
    """A data frame, in house units.

    Attributes:
        pressure_bar: Absolute pressure [bar].
        temperature_degc: Temperature of the gas [degC].
        flow_ml_per_min: Mass flow as a standard volume [mL/min].
        setpoint_ml_per_min: What it tries to reach [mL/min].
        gas: Gas that it is set to, as the instrument calls it.
        status: Its status codes.
        decimals: Digits after the point of its setpoint.
    """

    pressure_bar: float
    temperature_degc: float
    flow_ml_per_min: float
    setpoint_ml_per_min: float
    gas: str
    status: frozenset[str]
    decimals: int

    @property
    def states(self) -> str:
        """What the status codes mean."""
        return "; ".join(
            f"{code}: {_STATUS.get(code, 'a code that the manuals do not list')}"
            for code in sorted(self.status)
        )


def parse_frame(
    line: str, layout: Layout, unit: UnitId, ml_per_min: float = 1.0
) -> Frame:
    """Return the data frame in *line*.

    Args:
        line: What the instrument sent.
        layout: Its columns.
        unit: Who should have answered.
        ml_per_min: The instrument's unit of flow [mL/min].

    Raises:
        InstrumentError: If it is the ``?`` of a command that failed.
        MalformedReply: If it is no such frame.

    Example:
        >>> line = "A +014.70 +025.00 +02.004 +02.004 2.004 Air LCK"
        >>> frame = parse_frame(line, DEFAULT_LAYOUT, "A", 1000.0)
        >>> frame.flow_ml_per_min, frame.gas, frame.states
        (2004.0, 'Air', 'LCK: its buttons are locked')
    """
    _refuse(line)
    sender, *tokens = line.split() or [""]
    n_columns = len(layout.columns)
    if sender != unit or len(tokens) < n_columns:
        raise MalformedReply(f"{line!r} is no data frame of unit {unit}")
    texts = {
        column.quantity: text
        for column, text in zip(layout.columns, tokens, strict=False)
    }
    status = frozenset(tokens[n_columns:])
    for code in status:
        if re.fullmatch(r"[A-Z][A-Z0-9]{2}", code) is None:
            raise MalformedReply(f"{code!r} after the data frame {line!r}")
    return Frame(
        pressure_bar=_number(texts["pressure"]) * _bar(layout.unit_of("pressure")),
        temperature_degc=_number(texts["temperature"]),
        flow_ml_per_min=_number(texts["flow"]) * ml_per_min,
        setpoint_ml_per_min=_number(texts["setpoint"]) * ml_per_min,
        gas=texts["gas"],
        status=status,
        decimals=len(texts["setpoint"].partition(".")[2]),
    )


def _refuse(line: str) -> None:
    """Raise InstrumentError if *line* says that a command failed."""
    if is_refusal(line):
        raise InstrumentError("the controller refused the command", "?")


def is_refusal(line: str) -> bool:
    return re.fullmatch(r"([A-Z] )?\s*\?\s*", line) is not None


def _number(text: str) -> float:
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) is None:
        raise MalformedReply(f"{text!r} is no number")
    return float(text)


def _bar(unit: str) -> float:
    """Return the size of a unit of absolute pressure [bar]."""
    label = unit.lower()
    scale = _PRESSURES_BAR.get(label) or _PRESSURES_BAR.get(label.removesuffix("a"))
    if scale is None:
        raise MalformedReply(
            f"the pressure is in {unit!r}; set it to PSIA, bar or kPa at its panel"
        )
    return scale


def names_firmware(line: str, unit: UnitId) -> bool:
    """Return whether *line* is how *unit* tells its firmware; no other answer is."""
    return re.match(rf"{unit} +\d+v\d+", line) is not None


def parse_firmware(line: str) -> tuple[str, tuple[int, int]]:
    """Return the firmware in the answer to ``VE``, as it is written and as a number.

    Raises:
        MalformedReply: If it names none.

    Example:
        >>> parse_firmware("A   8v17.0-R23 Nov 15 2018")
        ('8v17', (8, 17))
    """
    version = _FIRMWARE.search(line)
    if version is None:
        raise MalformedReply(f"{line!r} names no firmware")
    return version[0], (int(version[1]), int(version[2]))


def range_in_model(model: str) -> float | None:
    """Return the full scale that a model number tells [mL/min], None if it does not.

    Example:
        >>> range_in_model("MC-5SLPM-D")
        5000.0
    """
    match = _MODEL_RANGE.search(model)
    return None if match is None else float(match[1]) * FLOW_UNITS[match[2]]


def parse_full_scale(line: str) -> float | None:
    """Return the full scale in the answer to ``FPF`` [mL/min].

    None if that was refused, or its display is locked and it sends a data frame.

    Example:
        >>> parse_full_scale("A +500.00 7 SCCM")
        500.0
    """
    match = re.fullmatch(r"[A-Z] +([+-]?\d+\.?\d*) +\d+ +(\S+) *", line)
    if match is None or match[2] not in FLOW_UNITS:
        return None
    return float(match[1]) * FLOW_UNITS[match[2]]


def parse_gas_register(line: str) -> int | None:
    """Return the gas in the answer to a read of register 46, None if there is none.

    Example:
        >>> parse_gas_register("A   046 = 8")
        8
    """
    match = re.fullmatch(r"[A-Z] +0*46 *= *(\d+) *", line)
    # The upper bits of the register are the zero dead band.
    return None if match is None else int(match[1]) & 0x1FF


def maker_entry(rows: list[str], label: str) -> str:
    """Return what stands behind *label* in the answer to ``??M*``.

    Raises:
        MalformedReply: If there is no such entry.
    """
    for row in rows:
        match = re.fullmatch(rf"[A-Z] +M\d\d +{label} +(\S.*?) *", row)
        if match is not None:
            return match[1]
    raise MalformedReply(f"{rows!r} has no {label}")


def house_name(label: str) -> str:
    """Return the name that PPU uses for the instrument's name of a gas."""
    return "air" if label == "Air" else label
