"""Alicat mass-flow controllers (MC and MCS series) that speak ASCII.

One hazard of this language shapes the module: a unit id directly followed by digits,
such as ``A49408``, is an old way to set the flow (64000 = full scale), so a slip in
formatting would be a setpoint. Every command is therefore a :class:`Poll`, which
takes no argument, or a :class:`Command`, whose word begins with a letter or a sign.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Annotated as A
from typing import ClassVar, Final, Literal, TypeVar, get_args

from ophyd_async.core import AsyncStatus, SignalR, StandardReadableFormat
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import GasFlow, GasRequest
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    MalformedReply,
    PPUError,
    ReplyTimeout,
    TransportError,
    UnencodableRequest,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import iso, running_loop
from ppu.devices import DriverFacts, Identity, Instrument, Measured, Reference, record
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.serial import SerialConnection

__all__ = [
    "AlicatMfc",
    "AlicatMfcLimits",
    "AlicatMfcSettings",
    "Command",
    "FlowRecord",
    "Frame",
    "Layout",
    "Poll",
    "UnitId",
    "Word",
    "encode",
    "parse_frame",
    "parse_layout",
]

T = TypeVar("T")

UnitId = Literal[
    "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M",
    "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z",
]  # fmt: skip

Gas = Literal["air", "Ar", "CO2", "He", "N2", "O2"]
"""Gases that may flow; none of them burns: that would need more than a flow limit."""

_GAS_NUMBERS: Final[Mapping[str, int]] = {
    "air": 0, "Ar": 1, "CO2": 4, "He": 7, "N2": 8, "O2": 11,
}  # fmt: skip
_FLOW_UNITS: Final = {"SCCM": 1.0, "SmL/m": 1.0, "SLPM": 1000.0, "SL/m": 1000.0}
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
_REFUSED: Final = frozenset({"ADC", "EXH", "HLD", "LCK", "OVR"})
"""States in which no gas is asked of it."""
_UNTRUE: Final = frozenset({"ADC", "MOV", "POV", "TOV", "VOV"})
"""States in which a flow reading is not to be trusted."""

_POLL_S: Final = 1.0
_INSISTING_S: Final = 60.0
"""How long closing is tried again before somebody must close the bottle."""
_NOISE: Final = 0.005
"""Part of full scale within which a steady flow repeats."""
_MASS_FLOW: Final = 5
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


_DEFAULT_LAYOUT: Final = Layout(
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
    _MASS_FLOW: "flow",
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
        >>> frame = parse_frame(line, _DEFAULT_LAYOUT, "A", 1000.0)
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
    if _is_refusal(line):
        raise InstrumentError("the controller refused the command", "?")


def _is_refusal(line: str) -> bool:
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


# -- the path --------------------------------------------------------------------------


class AlicatClient:
    """Sends commands, and nothing else, to one unit.

    Every command states an end state, so each may be repeated.

    Args:
        device: Name of the device.
        connection: The serial line.
        unit: Who is meant.
    """

    def __init__(self, device: str, connection: SerialConnection, unit: UnitId) -> None:
        self.unit = unit
        # No other answer tells a firmware.
        probe = LineProbe(
            encode(unit, Command(Word.FIRMWARE)),
            lambda line: re.match(rf"{unit} +\d+v\d+", line) is not None,
        )
        self._line = LineClient(
            device, connection, terminator=b"\r", deadline_s=1.0, probe=probe
        )
        self.link = self._line.link

    async def ask(self, command: Poll | Command, *, is_vital: bool = True) -> str:
        """Send *command* and return the line that answers it.

        Args:
            command: What to send.
            is_vital: Whether every instrument must answer; else it is asked once,
                since what is not known to it is ignored in silence.
        """
        lines = await self._line.ask(
            encode(self.unit, command), is_safe=is_vital, is_last=_is_text
        )
        return lines[-1]

    async def ask_confirmed(
        self,
        command: Poll,
        parse: Callable[[str], T],
        agree: Callable[[T, T], bool],
    ) -> T:
        """Send *command* until three answers in a row agree.

        Args:
            command: What to send.
            parse: Makes a value of the line that answers it.
            agree: Whether two values say the same.
        """
        return await self._line.ask_confirmed(
            encode(self.unit, command),
            lambda lines: parse(lines[-1]),
            agree=agree,
            is_last=_is_text,
        )

    async def ask_table(self, word: Word, last: str | None = None) -> list[str]:
        """Ask for a table and return its rows.

        Captured tables end with an empty line, but no manual promises one: what came
        until the time was up is a table, too, if it has at least two rows.

        Args:
            word: Which table.
            last: What stands in its last row, if that is known.
        """
        rows: dict[str, None] = {}

        def ends(row: str) -> bool:
            # The answer is split anew with each piece of it: rows come repeatedly.
            if not row.strip():
                return len(rows) > 1
            rows[row] = None
            return _is_refusal(row) or (last is not None and last in row)

        try:
            await self._line.ask(
                encode(self.unit, Command(word)), is_safe=False, is_last=ends
            )
        except ReplyTimeout:
            if len(rows) < 2:
                raise
        return list(rows)


def _is_text(line: str) -> bool:
    return bool(line.strip())


# -- the device ------------------------------------------------------------------------


class AlicatMfcSettings(BaseModel):
    """What the driver must know of the controller and its plumbing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    supplies: str = Field(description="Device that the gas flows into")
    gases: tuple[Gas, ...] = Field(
        min_length=1, description="Gases that are really connected"
    )
    full_scale_ml_per_min: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="Its range as on the name plate, at 25 degC and 1 atm; compared "
        "with what it says, so that SCCM and SLPM are never confused",
    )
    unit_id: UnitId = "A"
    flow_unit: Literal["SCCM", "SLPM"] | None = Field(
        default=None,
        description="Unit of its flow; needed only if it does not say so itself",
    )
    tolerance_percent: float = Field(
        default=2.0,
        gt=0,
        le=50,
        description="How far a settled flow may be from what was asked",
    )
    settle_s: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the flow may take to get there",
    )
    sample_period_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    max_deviation_percent: float = Field(
        default=10.0,
        gt=0,
        le=100,
        description="How far a watched flow may be from what was asked",
    )
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long it may be unreachable while it is watched",
    )


class AlicatMfcLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow_ml_per_min: LimitPair


@dataclass(frozen=True)
class FlowRecord:
    """What a completed watch saw."""

    gas: str
    asked_ml_per_min: float
    mean_ml_per_min: float
    min_ml_per_min: float
    max_ml_per_min: float
    n_samples: int


class AlicatMfc(Instrument, GasFlow):
    """An Alicat mass-flow controller for one gas line.

    Flows are standard flows at the instrument's standard conditions (25 degC and
    1 atm, as delivered).

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The serial line.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Alicat Scientific",
        model="MC series",
        wire="alicat-ascii",
        sources=(
            "MC-Series operating manual, pp. 36-38 (manualshive.com 2896481): data "
            "frame, AS4.54, AG7, integer setpoint",
            "M-Series operating manual rev. 0, January 2023, p. 32 (manualshive.com "
            "3461533): quick command reference",
            "Serial Communications Primer rev. 2, February 2023, as cited by "
            "labmcp-alicat 0.1.2 and alicatlib 0.3.1, whose tables were captured on "
            "firmware 5v12 to 10v20",
            "alicat 0.9.0 driver.py (used on hardware): register 46, $$C; and its "
            "issues 13 and 14: a captured frame, decimals of the setpoint",
        ),
        verified="",
        open_questions=(
            "From which firmware on the newer commands are there is documented for "
            "some only: below 6v this driver uses register 46 and $$C, which newer "
            "instruments are said to understand, too.",
            "Whether an empty line ends every table of ??D* is not documented: "
            "without one the driver takes what came within its deadline.",
            "GP firmware, which answers no VE, is refused.",
            "Whether a setpoint wears the EEPROM is not documented: it is written "
            "only if it differs, and so is the gas, unsaved from 10v05 on.",
            "Which firmware keeps its setpoint when the power returns is not "
            "documented: the flow is never taken for closed before it was read.",
        ),
        orphan_behaviour="keeps its setpoint: the gas flows on",
    )
    connections = (SerialConnection,)
    settings_model = AlicatMfcSettings
    limits_model = AlicatMfcLimits
    abort_states: ClassVar[Mapping[str, str]] = {
        "close": "no gas flows: the setpoint is 0 and the flow is seen to end",
        "keep": "the gas flows on, as for a furnace that must stay under it",
    }

    flow: A[
        SignalR[float],
        Measured(units="mL/min", decimals=2),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    setpoint: A[
        SignalR[float],
        Measured(units="mL/min", decimals=2),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]
    pressure: A[
        SignalR[float],
        Measured(units="bar", decimals=3),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]
    temperature: A[
        SignalR[float],
        Measured(units="degC", decimals=2),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: AlicatMfcSettings,
        limits: AlicatMfcLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._client = AlicatClient(name, connection, settings.unit_id)
        self._layout = _DEFAULT_LAYOUT
        self._has_layout = False
        """Whether it describes its data frame."""
        self._ml_per_min = 1.0
        self._firmware = (0, 0)
        self._decimals = 0
        """Digits after the point of what it shows."""
        self._asked: GasRequest | None = None
        """What this driver lets flow; None if nothing, or not by this driver."""
        self._is_adopted = False
        """Whether the next abort closes what flows, whoever let it."""
        self._watch: asyncio.Task[FlowRecord] | None = None
        self._is_watch_over = asyncio.Event()
        self._last_watch: FlowRecord | None = None
        super().__init__(name, entry, self._client, self._client.link)

    @override
    @classmethod
    def inconsistencies(
        cls, settings: AlicatMfcSettings, limits: AlicatMfcLimits
    ) -> list[str]:
        high = limits.flow_ml_per_min[1]
        if high > settings.full_scale_ml_per_min:
            return [
                f"limits.flow_ml_per_min allows {high:g} mL/min, but "
                f"full_scale_ml_per_min is {settings.full_scale_ml_per_min:g}; lower "
                "the limit"
            ]
        return []

    @override
    @classmethod
    def references(cls, settings: AlicatMfcSettings) -> list[Reference]:
        return [Reference(("supplies",), "device", settings.supplies, "Furnace")]

    # -- identity ------------------------------------------------------------------

    @override
    async def read_identity(self) -> Identity:
        try:
            firmware = await self._client.ask(Command(Word.FIRMWARE))
            version = _FIRMWARE.search(firmware)
            if version is None:
                raise MalformedReply(f"{firmware!r} names no firmware")
            rows = await self._client.ask_table(Word.MAKER, last=" M09 ")
            model = _maker_entry(rows, "Model Number")
            serial_number = _maker_entry(rows, "Serial Number")
            layout = await self._read_layout()
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} as unit "
                f"{self._client.unit} is no Alicat flow controller: {exc}"
            ) from exc
        self._firmware = (int(version[1]), int(version[2]))
        self._ml_per_min = self._size_of_unit(layout)
        self._layout = layout or _DEFAULT_LAYOUT
        self._has_layout = layout is not None
        await self._compare_full_scale(self._layout, model)
        frame = self._parse(await self._client.ask(Poll()))
        self._compare_steps(frame)
        self._decimals = frame.decimals
        return Identity(model, serial_number, version[0])

    async def _read_layout(self) -> Layout | None:
        """Return what it says of its data frame, None if it says nothing."""
        try:
            rows = await self._client.ask_table(Word.LAYOUT)
        except ReplyTimeout:
            if self._has_layout:
                raise  # it said so before: this answer was lost
            return None
        if _is_refusal(rows[0]):
            return None
        return parse_layout(rows)

    def _size_of_unit(self, layout: Layout | None) -> float:
        """Return the instrument's unit of flow [mL/min].

        Raises:
            ConfigurationError: If it is not known for certain, or not a standard one.
        """
        stated = self.settings.flow_unit
        if layout is None:
            if stated is None:
                raise ConfigurationError(
                    f"{self.name}: the controller does not say in which unit it "
                    "measures flow; look at its display and state settings.flow_unit"
                )
            return _FLOW_UNITS[stated]
        unit = layout.unit_of("flow")
        if unit not in _FLOW_UNITS or layout.unit_of("setpoint") != unit:
            raise ConfigurationError(
                f"{self.name}: the controller measures {unit!r} and controls "
                f"{layout.unit_of('setpoint')!r}; set both to standard flow (SCCM or "
                "SLPM) at its panel"
            )
        size = _FLOW_UNITS[unit]
        if stated is not None and size != _FLOW_UNITS[stated]:
            raise ConfigurationError(
                f"{self.name}: the lab file says flow_unit {stated}, the controller "
                f"says {unit}"
            )
        return size

    async def _compare_full_scale(self, layout: Layout, model: str) -> None:
        """Compare the range with the lab file, wherever the instrument states it.

        Raises:
            ConfigurationError: If they differ; nothing was changed.
        """
        stated = {"its data frame": layout.full_scale}
        if self._is_newer:
            stated["FPF"] = await self._read_full_scale()
        found = {
            source: value * self._ml_per_min
            for source, value in stated.items()
            if value is not None
        }
        in_name = _MODEL_RANGE.search(model)
        if in_name is not None:
            found[f"the model {model}"] = float(in_name[1]) * _FLOW_UNITS[in_name[2]]
        wanted = self.settings.full_scale_ml_per_min
        wrong = [
            f"{source} says {value:g}"
            for source, value in found.items()
            if abs(value - wanted) > 0.01 * wanted
        ]
        if wrong:
            raise ConfigurationError(
                f"{self.name}: the lab file says full_scale_ml_per_min {wanted:g}, but "
                f"{', '.join(wrong)} mL/min; is the unit of flow right?"
            )

    def _compare_steps(self, frame: Frame) -> None:
        """Compare the digits that it shows with the range of the lab file.

        It shows about five digits, so a unit that is wrong by 1000 shows here even on
        an instrument that says nothing of itself.

        Raises:
            ConfigurationError: If they do not go together; nothing was changed.
        """
        step = self._ml_per_min * 10**-frame.decimals
        full_scale = self.settings.full_scale_ml_per_min
        if not 1e2 <= full_scale / step < 1e5:
            raise ConfigurationError(
                f"{self.name}: a controller of {full_scale:g} mL/min would not count "
                f"in steps of {step:g} mL/min; is flow_unit right?"
            )

    async def _read_full_scale(self) -> float | None:
        """Return the highest mass flow in the instrument's unit, None if untold."""
        command = Command(Word.FULL_SCALE, _MASS_FLOW)
        try:
            answer = await self._client.ask(command, is_vital=False)
        except ReplyTimeout:
            return None
        match = re.fullmatch(r"[A-Z] +([+-]?\d+\.?\d*) +\d+ +(\S+) *", answer)
        if match is None or match[2] not in _FLOW_UNITS:
            return None  # refused, or its display is locked and it sends a frame
        return float(match[1]) * _FLOW_UNITS[match[2]] / self._ml_per_min

    @property
    def _is_newer(self) -> bool:
        """Whether it speaks the newer dialect."""
        return self._firmware >= (6, 0)

    # -- capability ----------------------------------------------------------------

    @property
    def supplies(self) -> str:
        """Name of the device that the gas flows into."""
        return self.settings.supplies

    @property
    def gases(self) -> tuple[str, ...]:
        """Gases that are connected."""
        return self.settings.gases

    @property
    def last_watch(self) -> FlowRecord | None:
        """What the last completed watch saw."""
        return self._last_watch

    def check_flow(self, request: GasRequest) -> None:
        """Refuse what the lab or the controller does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """
        if request.flow_ml_per_min == 0:
            return
        faults = []
        low, high = self.limits.flow_ml_per_min
        high = min(high, self.settings.full_scale_ml_per_min)
        if request.gas not in self.gases:
            faults.append(
                f"{request.gas!r} is not connected, there is {', '.join(self.gases)}"
            )
        if not (low <= request.flow_ml_per_min <= high and request.flow_ml_per_min > 0):
            faults.append(
                f"{request.flow_ml_per_min:g} mL/min, allowed are 0 (closed) and "
                f"{low:g} to {high:g} mL/min"
            )
        if faults:
            raise LimitError(f"{self.name}: " + "; ".join(faults))

    async def _poll(self) -> Frame:
        """Return the present data frame, and keep its readings.

        Nothing tells a flipped bit in it: what is acted upon is read by `_confirmed`.
        """
        return self._take(await self._client.ask(Poll()))

    async def _confirmed(self) -> Frame | None:
        """Return a frame that repeats, None while what it says changes."""
        try:
            frame = await self._client.ask_confirmed(Poll(), self._parse, self._agree)
        except MalformedReply:
            return None
        self._keep(frame)
        return frame

    def _agree(self, one: Frame, other: Frame) -> bool:
        """Return whether two frames differ by no more than noise."""
        within = _NOISE * self.settings.full_scale_ml_per_min
        return (
            one.setpoint_ml_per_min == other.setpoint_ml_per_min
            and one.gas == other.gas
            and one.status == other.status
            and abs(one.flow_ml_per_min - other.flow_ml_per_min) <= within
        )

    def _parse(self, line: str) -> Frame:
        try:
            return parse_frame(line, self._layout, self._client.unit, self._ml_per_min)
        except InstrumentError as exc:
            raise InstrumentError(f"{self.name}: {exc}", exc.code) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: {exc}") from exc

    def _take(self, line: str) -> Frame:
        """Return the data frame in *line*, and keep its readings."""
        frame = self._parse(line)
        self._keep(frame)
        return frame

    def _keep(self, frame: Frame) -> None:
        record(self.flow, frame.flow_ml_per_min)
        record(self.setpoint, frame.setpoint_ml_per_min)
        record(self.pressure, frame.pressure_bar)
        record(self.temperature, frame.temperature_degc)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Read flow, setpoint, pressure and temperature at one moment.

        Raises:
            InstrumentError: If a reading is not to be trusted.
        """
        frame = await self._poll()
        if frame.status & _UNTRUE:
            raise InstrumentError(
                f"{self.name}: its readings are not to be trusted: {frame.states}",
                ",".join(sorted(frame.status & _UNTRUE)),
            )

    @AsyncStatus.wrap
    async def set(self, value: GasRequest) -> None:
        """Let *value* flow, and wait until it does; a flow of 0 closes.

        It ends a watch of what flowed before.

        Raises:
            LimitError: If it is not allowed; nothing was sent.
            InstrumentError: If the controller cannot do so now, or the flow does not
                get there; the valve was closed then, or the error says so.
        """
        self.check_flow(value)
        if self._watch is not None:
            self._is_watch_over.set()
            await asyncio.wait({self._watch})
        if value.flow_ml_per_min == 0:
            await self._close()
            return
        self._is_adopted = False
        frame = await self._confirmed() or await self._poll()
        self._refuse_state(frame)
        number = self._rounded(value, frame.decimals)
        self._asked = value  # from here on an abort must close it
        try:
            await self._select_gas(value.gas, frame)
            await self._write_setpoint(number, frame.decimals)
            await self._wait_for(value)
        except InstrumentError as exc:
            raise InstrumentError(
                f"{exc}; {await self._close_after_fault()}", exc.code
            ) from exc

    def _refuse_state(self, frame: Frame) -> None:
        refused = frame.status & _REFUSED
        if refused:
            raise InstrumentError(
                f"{self.name}: the controller cannot be used now: {frame.states}; "
                "look at its display",
                ",".join(sorted(refused)),
            )

    def _rounded(self, request: GasRequest, decimals: int) -> float:
        """Return the setpoint in the instrument's unit and steps.

        Raises:
            LimitError: If its steps are too coarse for *request*.
        """
        number = round(request.flow_ml_per_min / self._ml_per_min, decimals)
        error = abs(number * self._ml_per_min / request.flow_ml_per_min - 1)
        if error > self.settings.tolerance_percent / 100:
            raise LimitError(
                f"{self.name}: {request.flow_ml_per_min:g} mL/min, the controller "
                f"knows steps of {self._ml_per_min * 10**-decimals:g} mL/min"
            )
        return number

    async def _select_gas(self, gas: str, frame: Frame) -> None:
        """Select *gas* unless it is selected, with the valve closed."""
        if _house_name(frame.gas) == gas:
            return
        if frame.setpoint_ml_per_min > 0:
            await self._write_setpoint(0.0, frame.decimals)
        number = _GAS_NUMBERS[gas]
        if not self._is_newer:
            await self._client.ask(Command(Word.GAS_REGISTER, number))
            answer = await self._client.ask(Command(Word.READ_GAS_REGISTER))
            match = re.fullmatch(r"[A-Z] +0*46 *= *(\d+) *", answer)
            # The upper bits of the register are the zero dead band.
            if match is None or int(match[1]) & 0x1FF != number:
                raise InstrumentError(
                    f"{self.name}: gas {number} ({gas}) was written to register 46, "
                    f"which reads {answer!r}"
                )
        elif self._firmware >= (10, 5):
            await self._client.ask(Command(Word.GAS_UNSAVED, number))
        else:
            await self._client.ask(Command(Word.GAS, number))
        frame_after = await self._confirmed() or await self._poll()
        actual = frame_after.gas
        if _house_name(actual) != gas:
            raise InstrumentError(
                f"{self.name}: {gas} was selected, but the controller is set to "
                f"{actual}; is that gas in its list?"
            )

    async def _write_setpoint(self, number: float, decimals: int) -> None:
        """Write a setpoint in the instrument's unit, and see that it was taken.

        Raises:
            InstrumentError: If it was not.
        """
        step = self._ml_per_min * 10**-decimals
        wanted = number * self._ml_per_min
        seen = await self._confirmed()
        if seen is not None and abs(seen.setpoint_ml_per_min - wanted) < 0.5 * step:
            return
        await self._send_setpoint(number, decimals)
        await self._see_setpoint(wanted, 0.5 * step)

    async def _send_setpoint(self, number: float, decimals: int) -> None:
        word = Word.SETPOINT if self._is_newer else Word.SETPOINT_OLD
        await self._client.ask(Command(word, number, decimals))

    async def _see_setpoint(self, wanted: float, allowed: float) -> None:
        """Wait until the setpoint is *wanted* but for *allowed* [mL/min].

        Raises:
            InstrumentError: If it is not so within ``settle_s``.
        """
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            # A controller may be set to ramp its setpoint.
            seen = await self._confirmed()
            if seen is not None and abs(seen.setpoint_ml_per_min - wanted) < allowed:
                return
            if running_loop().time() > deadline:
                frame = seen or await self._poll()
                raise InstrumentError(
                    f"{self.name}: the setpoint was set to {wanted:g} mL/min but "
                    f"reads {frame.setpoint_ml_per_min:g}; is its setpoint source "
                    "the serial line?"
                )
            await asyncio.sleep(_POLL_S)

    async def _wait_for(self, request: GasRequest) -> None:
        """Wait until *request* flows.

        Raises:
            InstrumentError: If it does not within ``settle_s``.
        """
        asked = request.flow_ml_per_min
        allowed = self._allowed(asked, self.settings.tolerance_percent)
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            await asyncio.sleep(_POLL_S)
            seen = await self._confirmed()
            if seen is not None:
                self._refuse_state(seen)
                is_true = not seen.status & _UNTRUE
                if is_true and abs(seen.flow_ml_per_min - asked) <= allowed:
                    return
            if running_loop().time() > deadline:
                frame = seen or await self._poll()
                said = f" ({frame.states})" if frame.status else ""
                raise InstrumentError(
                    f"{self.name}: {frame.flow_ml_per_min:.4g} of {asked:g} mL/min of "
                    f"{request.gas} flow after {self.settings.settle_s:g} s, at "
                    f"{frame.pressure_bar:.3g} bar{said}; is the bottle open, and is "
                    "there gas in it?"
                )

    def _allowed(self, asked: float, percent: float) -> float:
        """Return how far the flow may be from *asked* [mL/min]."""
        # The sensor's own error is a part of its range, however little flows.
        floor = 0.005 * self.settings.full_scale_ml_per_min
        return max(asked * percent / 100, floor)

    # -- closing -------------------------------------------------------------------

    async def _close(self) -> str:
        """Close the valve, and see that no gas flows; insist on both.

        Raises:
            InstrumentError: If gas still flows; everything was tried.
            TransportError: If the controller stayed unreachable.
        """
        loop = running_loop()
        give_up = loop.time() + _INSISTING_S
        while True:
            try:
                return await self._try_to_close()
            except InstrumentError:
                if loop.time() > give_up:
                    raise
            except (TransportError, MalformedReply) as exc:
                if loop.time() > give_up:
                    raise TransportError(
                        f"{exc}; whether {self.name} is closed is not known: close the "
                        "bottle"
                    ) from exc
            await asyncio.sleep(_POLL_S)

    async def _try_to_close(self) -> str:
        """Close the valve, and see that no gas flows.

        Raises:
            InstrumentError: If gas still flows.
        """
        # Whatever the controller can be heard to say, it may hear this.
        await self._send_setpoint(0.0, self._decimals)
        try:
            step = self._ml_per_min * 10**-self._decimals
            await self._see_setpoint(0.0, 0.5 * step)
        except InstrumentError:
            if not self._is_newer:
                raise
            # Somebody set it to an analog setpoint; its valve can still be held shut.
            await self._client.ask(Command(Word.HOLD_CLOSED))
            await self._see_no_flow()
            self._asked = None
            return f"{self.name}: its valve is held closed, verified (it is on hold)"
        if "HLD" in (await self._confirmed() or await self._poll()).status:
            # A held valve does not follow its setpoint, which is 0 by now.
            word = Word.CANCEL_HOLD if self._is_newer else Word.CANCEL_HOLD_OLD
            await self._client.ask(Command(word))
        await self._see_no_flow()
        self._asked = None
        return f"{self.name}: closed, verified (setpoint 0, no flow)"

    async def _see_no_flow(self) -> None:
        allowed = self._allowed(0.0, 0.0)
        deadline = running_loop().time() + self.settings.settle_s
        while True:
            seen = await self._confirmed()
            if seen is not None and abs(seen.flow_ml_per_min) <= allowed:
                return
            if running_loop().time() > deadline:
                frame = seen or await self._poll()
                raise InstrumentError(
                    f"{self.name}: asked to close but {frame.flow_ml_per_min:.4g} "
                    f"mL/min still flow; close the bottle. {frame.states}".rstrip()
                )
            await asyncio.sleep(_POLL_S)

    async def _close_after_fault(self) -> str:
        """Close; return what came of it, for the error that tells the fault."""
        try:
            await self._close()
        except PPUError as exc:
            return f"the valve could NOT be closed: {exc}"
        return "the valve is closed"

    @override
    def adopt(self) -> None:
        self._is_adopted = True

    @override
    async def go_to_abort_state(self) -> str:
        self._end_watch()
        if self._asked is None and not await self._flows_adopted():
            self._is_adopted = False
            return ""  # nothing flows, or not by this driver
        said = await self._bring_to(self.entry.on_abort)
        self._asked = None
        self._is_adopted = False
        return said

    async def _flows_adopted(self) -> bool:
        """Return whether something shall flow that was adopted."""
        if not self._is_adopted:
            return False
        frame = await self._confirmed() or await self._poll()
        return frame.setpoint_ml_per_min > 0

    @override
    async def go_to_orphan_state(self) -> str:
        if self.entry.on_orphan is None or self._asked is not None:
            return ""  # what flows goes on, as a program that is under way needs it
        frame = await self._confirmed() or await self._poll()
        if frame.setpoint_ml_per_min <= 0:
            return ""
        return await self._bring_to(self.entry.on_orphan)

    @override
    async def go_to_hold_state(self) -> str:
        if self.entry.on_hold is None or self._asked is None:
            return ""
        return await self._bring_to(self.entry.on_hold)

    async def _bring_to(self, state: str | None) -> str:
        """Go to *state*: ``close``, which is the default, or ``keep``."""
        if state == "keep":
            frame = await self._poll()
            return (
                f"{self.name}: left alone, {frame.flow_ml_per_min:.4g} mL/min of "
                f"{frame.gas} flow"
            )
        return await self._close()

    # -- watching ------------------------------------------------------------------

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Begin to watch the flow.

        Raises:
            InstrumentError: If this driver lets nothing flow.
            InterlockError: If it is being watched already.
        """
        if self._asked is None:
            raise InstrumentError(f"{self.name}: nothing flows that could be watched")
        if self._watch is not None:
            raise InterlockError(f"{self.name}: the flow is being watched already")
        self._is_watch_over.clear()
        self._watch = running_loop().create_task(self._look_after(self._asked))

    @AsyncStatus.wrap
    async def complete(self) -> None:
        """Wait until the next :meth:`set` ends the watch.

        Raises:
            InstrumentError: As soon as the gas does not flow as asked.
            TransportError: If the controller stayed unreachable for too long.
        """
        if self._watch is None:
            raise InstrumentError(f"{self.name}: nothing is being watched")
        try:
            # The watch must outlive a cancelled wait: an abort ends it by itself.
            self._last_watch = await asyncio.shield(self._watch)
        finally:
            if self._watch.done():
                self._watch = None

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.cancel()
        if watch.done() and not watch.cancelled():
            watch.exception()  # whatever it found, the plan was aborted meanwhile

    async def _look_after(self, request: GasRequest) -> FlowRecord:
        """Sample until the watch is over or something goes wrong."""
        loop = running_loop()
        last_heard = loop.time()
        flows: list[float] = []
        is_over = False
        while not is_over:
            is_over = await self._is_over_within(self.settings.sample_period_s)
            try:
                frame = await self._client.ask_confirmed(
                    Poll(), self._parse, self._agree
                )
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
                if is_over:  # the last look is worth another try
                    is_over = False
                    await asyncio.sleep(_POLL_S)
                continue
            self._keep(frame)
            last_heard = loop.time()
            flows.append(frame.flow_ml_per_min)
            fault = self._fault_in(frame, request)
            if fault is not None:
                raise InstrumentError(f"{self.name}: {fault}")
        return FlowRecord(
            gas=request.gas,
            asked_ml_per_min=request.flow_ml_per_min,
            mean_ml_per_min=fmean(flows),
            min_ml_per_min=min(flows),
            max_ml_per_min=max(flows),
            n_samples=len(flows),
        )

    async def _is_over_within(self, wait: float) -> bool:
        """Return whether the watch is over within *wait* seconds of lab time."""
        try:
            async with asyncio.timeout(wait):
                await self._is_watch_over.wait()
        except TimeoutError:
            return False
        return True

    def _fault_in(self, frame: Frame, request: GasRequest) -> str | None:
        """Return why *frame* is not what it should be, if it is not."""
        asked = request.flow_ml_per_min
        moment = iso(running_loop().stamp())
        said = f" ({frame.states})" if frame.status else ""
        step = self._ml_per_min * 10**-frame.decimals
        if abs(frame.setpoint_ml_per_min - asked) > 0.5 * step + 1e-9:
            return (
                f"the setpoint was {frame.setpoint_ml_per_min:g} mL/min at {moment}, "
                f"asked were {asked:g}; somebody changed it{said}"
            )
        if _house_name(frame.gas) != request.gas:
            return (
                f"it was set to {frame.gas} at {moment}, asked was {request.gas}; "
                f"somebody changed it{said}"
            )
        off = frame.flow_ml_per_min - asked
        if abs(off) > self._allowed(asked, self.settings.max_deviation_percent):
            if off > 0:
                return (
                    f"the flow rose to {frame.flow_ml_per_min:.4g} of {asked:g} mL/min "
                    f"at {moment}{said}"
                )
            return (
                f"the flow fell to {frame.flow_ml_per_min:.4g} of {asked:g} mL/min of "
                f"{request.gas} at {moment}, at {frame.pressure_bar:.3g} bar{said}: is "
                "the bottle empty?"
            )
        refused = frame.status & (_REFUSED | _UNTRUE)
        if refused:
            return f"the flow could not be relied upon at {moment}{said}"
        return None

    # -- before a job --------------------------------------------------------------

    @override
    async def check_idle(self) -> None:
        if self._asked is not None:
            return
        frame = await self._confirmed() or await self._poll()
        if frame.setpoint_ml_per_min > 0:
            raise InterlockError(
                f"{self.name}: its setpoint is {frame.setpoint_ml_per_min:g} mL/min of "
                f"{frame.gas} already, which this program did not ask for; set it to "
                "0 at the controller"
            )


def _maker_entry(rows: list[str], label: str) -> str:
    """Return what stands behind *label* in the answer to ``??M*``.

    Raises:
        MalformedReply: If there is no such entry.
    """
    for row in rows:
        match = re.fullmatch(rf"[A-Z] +M\d\d +{label} +(\S.*?) *", row)
        if match is not None:
            return match[1]
    raise MalformedReply(f"{rows!r} has no {label}")


def _house_name(label: str) -> str:
    """Return the name that PPU uses for the instrument's name of a gas."""
    return "air" if label == "Air" else label
