"""Eurotherm EPC3016 controller of a box furnace, over Modbus TCP.

The controller runs the firing with its own programmer (end type *reset*). Its
communications watchdog takes the power off when nobody talks to it any more: the
driver feeds it by sampling and refuses to heat without it, unless the lab file waives
it in writing. Every setting that keeps people safe is read back and compared with the
lab file before it may heat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated as A
from typing import Any, ClassVar, Final, Literal, Self

from ophyd_async.core import (
    SignalR,
    SignalRW,
    StandardReadableFormat,
    StrictEnum,
    TriggerableCommand,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import override

from ppu.core.capabilities import FiringUnderWay, Segment
from ppu.core.errors import ConnectError, InstrumentError, PPUError
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.devices import DriverFacts, Holding, Identity
from ppu.devices.firing import (
    SAFE_TO_TOUCH_DEGC,
    DwellUnit,
    FiringSettings,
    FurnaceLimits,
    LoopMode,
    ProgrammedFurnace,
    ProgramSettings,
    ProgramStates,
    Sample,
    limit_contradictions,
    set_if_different,
)
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.tcp import TcpConnection

__all__ = ["EurothermEpc3016", "EurothermEpc3016Limits", "EurothermEpc3016Settings"]

_SAMPLE_FROM: Final = 1
_SAMPLE_COUNT: Final = 75
_STATUS_SENSOR_BREAK: Final = 1 << 5
_SURPRISE_DEGC: Final = 2.0
_SURPRISE_DEGC_PER_S: Final = 0.3
"""How far, and how fast, temperature and setpoint go without being a surprise."""
_STATUS_INDEX: Final = 75 - _SAMPLE_FROM
_PROGRAM_INDEX: Final = 23 - _SAMPLE_FROM
_HEADER: Final = 8328
_SEGMENTS: Final = 8336
_SEGMENT_SIZE: Final = 8
_N_CONTROLLER_SEGMENTS: Final = 15  # as many as one read can fetch
_END, _RAMP, _DWELL = 0, 1, 3
_FIRMWARE: Final = 18432
_N_FIRMWARE: Final = 3
_NUMBER: Final = 1026
_NATIVE_NUMBER: Final = 0x8000 + 2 * _NUMBER
_MOST_TIME_UNITS: Final = 32767
_OVER_RANGE_DEGC: Final = 1372.0
_N_FEEDINGS: Final = 3  # samples within one timeout of the watchdog, at least

_UNIT_S: Final[Mapping[str, float]] = {"second": 1.0, "minute": 60.0}


class ProgramMode(StrictEnum):
    """State of the programmer (register 23)."""

    RESET = "reset"
    RUN = "run"
    HOLD = "hold"
    HOLDBACK = "holdback"
    COMPLETE = "complete"


class EndType(StrictEnum):
    """What the programmer does at its end (register 8334)."""

    DWELL = "dwell"
    RESET = "reset"
    TRACK = "track"


class TimeUnit(StrictEnum):
    """Unit of ramps or dwells (registers 531, 8330, 8331)."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


class TimeFormat(StrictEnum):
    """Unit of times on the wire (register 1173)."""

    MILLISECOND = "millisecond"
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


class HoldbackType(StrictEnum):
    """When the programmer waits for the chamber (register 8328)."""

    OFF = "off"
    LOW = "low"
    HIGH = "high"
    BAND = "band"


class SensorBreak(StrictEnum):
    """What a broken sensor does (register 1930)."""

    OFF = "off"
    ON = "on"
    LATCHING = "latching"


class BadTransfer(StrictEnum):
    """Which output a broken sensor leads to (register 553)."""

    FALLBACK = "fallback"
    HOLD = "hold"


class AlarmType(StrictEnum):
    """What alarm 1 watches (register 536)."""

    OFF = "off"
    HIGH = "high"
    LOW = "low"
    DEVIATION_HIGH = "deviation high"
    DEVIATION_LOW = "deviation low"
    DEVIATION_BAND = "deviation band"
    RISING = "rising"
    FALLING = "falling"


class Recovery(StrictEnum):
    """What the programmer does when power returns (register 518)."""

    RAMP_BACK = "ramp back"
    RESET = "reset"
    TRACK = "track"


class ServoTo(StrictEnum):
    """Where a program starts (register 520)."""

    PV = "pv"
    SP = "sp"


class WatchdogAction(StrictEnum):
    """How the watchdog's flag goes down again (register 1170)."""

    MANUAL = "manual"
    AUTO = "auto"


class Switch(StrictEnum):
    """A register that is 0 or 1."""

    OFF = "off"
    ON = "on"


_PROGRAM_CODES = {
    1: ProgramMode.RESET,
    2: ProgramMode.RUN,
    4: ProgramMode.HOLD,
    8: ProgramMode.HOLDBACK,
    16: ProgramMode.COMPLETE,
}
_LOOP_CODES = {0: LoopMode.AUTO, 1: LoopMode.MANUAL}
_END_CODES = dict(enumerate(EndType))
_UNIT_CODES = dict(enumerate(TimeUnit))
_FORMAT_CODES = dict(enumerate(TimeFormat))
_HOLDBACK_CODES = dict(enumerate(HoldbackType))
_BREAK_CODES = dict(enumerate(SensorBreak))
_BAD_CODES = dict(enumerate(BadTransfer))
_ALARM_CODES = dict(enumerate(AlarmType))
_RECOVERY_CODES = dict(enumerate(Recovery))
_SERVO_CODES = dict(enumerate(ServoTo))
_ACTION_CODES = dict(enumerate(WatchdogAction))
_SWITCH_CODES = dict(enumerate(Switch))

_TABLE: Final = "alab_control modbus_addr.csv"


def _holding(register: int, manual: str, **meaning: Any) -> Holding:
    """Return a register of this controller: they are written one by one."""
    return Holding(
        register, writes_single=True, manual=f"{_TABLE}: {manual}", **meaning
    )


class EpcSafety(BaseModel):
    """What the controller itself must be set to before it may heat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setpoint_high_degc: float = Field(description="Register 111")
    setpoint_low_degc: float = Field(default=0.0, description="Register 112")
    output_high_percent: float = Field(
        default=100.0, ge=0, le=100, description="Register 1857"
    )
    output_low_percent: float = Field(
        default=0.0, ge=-100, le=100, description="Register 1856"
    )
    alarm_1_degc: float = Field(description="Register 13")
    alarm_1_type: Literal["high"] = Field(
        default="high",
        description="Register 536; no other type protects from a runaway",
    )
    sensor_break: Literal["on", "latching"] = Field(
        default="on",
        description="Register 1930; the output then goes to its fallback (34) of 0 %",
    )
    power_return: Literal["reset"] = Field(
        default="reset",
        description="Register 518; a program that goes on by itself after a power "
        "failure fires a sample nobody knows about",
    )
    idle_setpoint_degc: float = Field(
        default=0.0,
        le=60,
        description="Register 24: where the controller goes after its program",
    )
    watchdog_timeout_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Register 1169: after this time without a request it acts",
    )
    watchdog_action: Literal["manual"] = Field(
        default="manual",
        description="Register 1170; an automatic one would heat on before anybody "
        "has seen that it acted",
    )
    watchdog_recovery_s: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Register 1171"
    )
    watchdog: str | None = Field(
        default=None,
        pattern=r"^waived because \S.*",
        description="Only to do without: 'waived because ...', with the reason",
    )

    @model_validator(mode="after")
    def _has_watchdog_or_waiver(self) -> Self:
        if (self.watchdog_timeout_s is None) == (self.watchdog is None):
            raise ValueError(
                "state either watchdog_timeout_s, or 'watchdog: waived because ...'"
            )
        return self


class EurothermEpc3016Settings(FiringSettings):
    """What the driver must know of the controller."""

    time_format: Literal["second", "minute"] = Field(
        description="Register 1173: unit of dwells and of the watchdog on the wire"
    )
    safety: EpcSafety


class EurothermEpc3016Limits(FurnaceLimits):
    """What the lab allows."""


class EurothermEpc3016(ProgrammedFurnace):
    """Eurotherm EPC3016, input 1 in degC with one decimal, program 1.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: Where it listens.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Eurotherm",
        model="EPC3016",
        wire="modbus-tcp",
        sources=(
            "CederGroupHub/alab_control furnace_epc_3016/modbus_addr.csv: names, "
            "addresses, types, resolutions and access of all parameters",
            "CederGroupHub/alab_control furnace_epc_3016/furnace_driver.py: functions "
            "3 and 6, program modes 1, 2, 4, 8, 16, segment types, end types, time "
            "units, ramp rates x 10",
            "Modbus messaging on TCP/IP implementation guide V1.0b",
        ),
        verified="",
        open_questions=(
            "What the flag of the communications watchdog is wired to cannot be read "
            "back. Try it on each furnace: warm it, end PPU, see the power go off.",
            "Codes of registers 75, 518, 520, 536, 553, 1170, 1173, 1930 and 1932 are "
            "from memory; they are only compared with the lab file, except 520, which "
            "is written and shows at once in the working setpoint, and bit 5 of 75.",
            "Unit of dwells: the table says that the comms time format (1173) sets it, "
            "driver code counts seconds. Dwell units (8331) are set to the same, and "
            "every dwell is timed.",
            "Whether the loop takes its setpoint from the programmer (1664 or a wire) "
            "is not looked at; a loop that does not would not follow and be stopped.",
            "Whether one read may span addresses the table leaves out: the sample "
            "reads registers 1 to 75 at once.",
            "The instrument number has 32 bits; it is read at 0x8000 + 2 x 1026 as "
            "other Eurotherms have it, and its low 16 bits at 1026 if that is refused.",
            "Which of the two communication ports (1169 or 1233) the Ethernet port "
            "is; the fixed one is assumed.",
        ),
        orphan_behaviour="its communications watchdog takes the power off after the "
        "timeout in the lab file, if its flag is wired so; without it, keeps its "
        "program",
    )
    connections = (TcpConnection,)
    settings_model = EurothermEpc3016Settings
    limits_model = EurothermEpc3016Limits
    abort_states: ClassVar[Mapping[str, str]] = {
        "ramp_down": "reset the program and ramp to the idle setpoint, as long as "
        "PPU feeds the watchdog; then the heater is off",
        "heater_off": "reset the program and set the output to 0 % by hand",
        "continue": "leave the program running, as long as PPU feeds the watchdog",
    }
    program_states = ProgramStates(
        running=ProgramMode.RUN,
        reset=ProgramMode.RESET,
        ended=ProgramMode.COMPLETE,
        held=(ProgramMode.HOLD, ProgramMode.HOLDBACK),
    )

    settings: EurothermEpc3016Settings
    limits: EurothermEpc3016Limits

    process_value: A[
        SignalR[float],
        _holding(1, "Loop.Main.PV", decimals=1, units="degC", low=-50, high=1372),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    target_setpoint: A[
        SignalR[float], _holding(2, "Loop.Main.TargetSP", decimals=1, units="degC")
    ]
    manual_output: A[
        SignalRW[float],
        _holding(3, "Loop.Output.ManualOP", decimals=1, units="%", low=0, high=100),
    ]
    working_output: A[
        SignalR[float], _holding(4, "Loop.Main.WorkingOutput", decimals=1, units="%")
    ]
    working_setpoint: A[
        SignalR[float], _holding(5, "Loop.Main.WorkingSP", decimals=1, units="degC")
    ]
    alarm_1_threshold: A[
        SignalR[float], _holding(13, "Alarm.1.Threshold", decimals=1, units="degC")
    ]
    program_number: A[
        SignalRW[int],
        _holding(22, "Programmer.Run.ProgramNumber", units="", low=1, high=20),
    ]
    program_mode: A[
        SignalR[ProgramMode],
        _holding(23, "Programmer.Run.Mode", codes=_PROGRAM_CODES),
    ]
    idle_setpoint: A[
        SignalRW[float],
        _holding(
            24,
            "Loop.Setpoint.SP1",
            decimals=1,
            units="degC",
            low=0,
            high=60,
            wears_eeprom=True,
        ),
    ]
    fallback_output: A[
        SignalR[float], _holding(34, "Loop.Output.FallbackValue", decimals=1, units="%")
    ]
    setpoint_rate_up: A[
        SignalRW[float],
        _holding(
            35,
            "Loop.Setpoint.SPRateUp; 0 = off",
            decimals=1,
            units="degC/min",
            low=0,
            high=300,
            wears_eeprom=True,
        ),
    ]
    segment_number: A[
        SignalR[int], _holding(56, "Programmer.Run.SegmentNumber", units="")
    ]
    segment_time_left: A[
        SignalR[int],
        _holding(63, "Programmer.Run.SegmentTimeLeft, in the time format", units=""),
    ]
    instrument_status: A[
        SignalR[int], _holding(75, "Instrument.Diagnostics.InstStatusWord", units="")
    ]
    setpoint_high: A[
        SignalR[float],
        _holding(111, "Loop.Setpoint.SPHighLimit", decimals=1, units="degC"),
    ]
    setpoint_low: A[
        SignalR[float],
        _holding(112, "Loop.Setpoint.SPLowLimit", decimals=1, units="degC"),
    ]
    loop_mode: A[
        SignalRW[LoopMode], _holding(273, "Loop.Main.AutoMan", codes=_LOOP_CODES)
    ]
    acknowledge_alarms: A[
        TriggerableCommand,
        _holding(274, "Instrument.Diagnostics.GlobalAck", write_value=1, units=""),
    ]
    temperature_units: A[
        SignalR[int], _holding(516, "Instrument.Info.TempUnits; 0 = degC", units="")
    ]
    power_return: A[
        SignalR[Recovery],
        _holding(518, "Programmer.Setup.RecoveryStrategy", codes=_RECOVERY_CODES),
    ]
    servo_to: A[
        SignalRW[ServoTo], _holding(520, "Programmer.Setup.ServoTo", codes=_SERVO_CODES)
    ]
    rate_units: A[
        SignalRW[TimeUnit],
        _holding(531, "Loop.Setpoint.SPRateUnits", codes=_UNIT_CODES),
    ]
    alarm_1_type: A[
        SignalR[AlarmType], _holding(536, "Alarm.1.Type", codes=_ALARM_CODES)
    ]
    bad_transfer: A[
        SignalR[BadTransfer],
        _holding(553, "Loop.Config.PVBadTransfer", codes=_BAD_CODES),
    ]
    watchdog_timeout: A[
        SignalR[int],
        _holding(1169, "Comms.Fixed.Main.WDTimeout, in the time format", units=""),
    ]
    watchdog_action: A[
        SignalR[WatchdogAction],
        _holding(1170, "Comms.Fixed.Main.WDAction", codes=_ACTION_CODES),
    ]
    watchdog_recovery: A[
        SignalR[int],
        _holding(1171, "Comms.Fixed.Main.WDRecovery, in the time format", units=""),
    ]
    watchdog_flag: A[
        SignalRW[Switch],
        _holding(1172, "Comms.Fixed.Main.WDFlag", codes=_SWITCH_CODES),
    ]
    time_format: A[
        SignalR[TimeFormat],
        _holding(1173, "Comms.Fixed.Main.TimeFormat", codes=_FORMAT_CODES),
    ]
    setpoint_rate: A[
        SignalRW[float],
        _holding(
            1667,
            "Loop.Setpoint.SPRateDown; 0 = off",
            decimals=1,
            units="degC/min",
            low=0,
            high=300,
            wears_eeprom=True,
        ),
    ]
    rate_disabled: A[
        SignalR[Switch],
        _holding(1668, "Loop.Setpoint.SPRateDisable", codes=_SWITCH_CODES),
    ]
    output_low: A[
        SignalR[float],
        _holding(1856, "Loop.Output.OutputLowLimit", decimals=1, units="%"),
    ]
    output_high: A[
        SignalR[float],
        _holding(1857, "Loop.Output.OutputHighLimit", decimals=1, units="%"),
    ]
    input_decimals: A[SignalR[int], _holding(1922, "AI.1.Resolution", units="")]
    sensor_break: A[
        SignalR[SensorBreak],
        _holding(1930, "AI.1.SensorBreakType", codes=_BREAK_CODES),
    ]
    sensor_is_broken: A[
        SignalR[Switch],
        _holding(1931, "AI.1.SensorBreakOutput", codes=_SWITCH_CODES),
    ]
    alarm_1_inhibited: A[
        SignalR[Switch], _holding(2127, "Alarm.1.Inhibit", codes=_SWITCH_CODES)
    ]
    holdback_type: A[
        SignalRW[HoldbackType],
        _holding(_HEADER, "Program.1.HoldbackType", codes=_HOLDBACK_CODES),
    ]
    ramp_units: A[
        SignalRW[TimeUnit],
        _holding(_HEADER + 2, "Program.1.RampUnits", codes=_UNIT_CODES),
    ]
    dwell_units: A[
        SignalRW[TimeUnit],
        _holding(_HEADER + 3, "Program.1.DwellUnits", codes=_UNIT_CODES),
    ]
    cycles: A[
        SignalRW[int],
        _holding(_HEADER + 4, "Program.1.ProgramCycles", units="", low=0, high=999),
    ]
    end_type: A[
        SignalRW[EndType],
        _holding(_HEADER + 6, "Program.1.ProgramEndType", codes=_END_CODES),
    ]
    run_program: A[
        TriggerableCommand,
        _holding(10573, "Programmer.Setup.Run", write_value=1, units=""),
    ]
    hold_program: A[
        TriggerableCommand,
        _holding(10574, "Programmer.Setup.Hold", write_value=1, units=""),
    ]
    reset_program: A[
        TriggerableCommand,
        _holding(10575, "Programmer.Setup.Reset", write_value=1, units=""),
    ]
    rate_decimals: A[
        SignalR[int], _holding(10580, "Programmer.Setup.RateResolution", units="")
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TcpConnection,
        settings: EurothermEpc3016Settings,
        limits: EurothermEpc3016Limits,
    ) -> None:
        self._firmware: list[int] = []
        self._last_sample: tuple[list[int], float] = [], 0.0
        self._master = ModbusMaster(
            name,
            connection,
            deadline_s=1.0,
            # Nothing else reads like its firmware's name.
            probe=Probe(_FIRMWARE, _N_FIRMWARE, self._is_firmware),
        )
        self._heard_at = -float("inf")
        self._was_running = False
        self._keeper: asyncio.Task[None] | None = None
        super().__init__(
            name,
            entry,
            self._master,
            self._master.link,
            settings,
            limits,
            idle_degc=settings.safety.idle_setpoint_degc,
        )

    @override
    @classmethod
    def inconsistencies(
        cls, settings: EurothermEpc3016Settings, limits: EurothermEpc3016Limits
    ) -> list[str]:
        safety = settings.safety
        found = limit_contradictions(
            limits,
            safety.setpoint_high_degc,
            safety.alarm_1_degc,
            alarm_key="alarm_1_degc",
        )
        timeout_s = safety.watchdog_timeout_s
        if timeout_s is None:
            return found
        if settings.sample_period_s * _N_FEEDINGS > timeout_s:
            found.append(
                f"watchdog_timeout_s is {timeout_s:g}, but sampling every "
                f"{settings.sample_period_s:g} s feeds it too seldom; it must be at "
                f"least {_N_FEEDINGS} sample periods"
            )
        unit_s = _UNIT_S[settings.time_format]
        found.extend(
            f"{key} is {value:g} s, but the controller counts in whole "
            f"{settings.time_format}s"
            for key, value in (
                ("watchdog_timeout_s", timeout_s),
                ("watchdog_recovery_s", safety.watchdog_recovery_s),
            )
            if value % unit_s != 0
        )
        return found

    # -- identity ------------------------------------------------------------------

    def _is_firmware(self, words: list[int]) -> bool:
        return not self._firmware or words == self._firmware

    @override
    async def read_identity(self) -> Identity:
        stranger = (
            f"{self.name}: what answers at {self.link.endpoint} is no Eurotherm EPC: "
        )
        try:
            firmware = await self._master.read_holding(_FIRMWARE, _N_FIRMWARE)
            (company,) = await self._master.read_holding(121)
            (model,) = await self._master.read_holding(1027)
            (mode,) = await self._master.read_holding(23)
            number = await self._read_number()
        except InstrumentError as exc:
            raise ConnectError(f"{stranger}{exc}") from exc
        text = b"".join(word.to_bytes(2, "big") for word in firmware).rstrip(b"\0 ")
        if not text or not all(32 < byte < 127 for byte in text):
            raise ConnectError(f"{stranger}its firmware version is {text!r}")
        if company == 0 or mode not in _PROGRAM_CODES:
            raise ConnectError(
                f"{stranger}its company id is {company}, its program mode {mode}"
            )
        self._firmware = firmware
        return Identity(
            model=f"EPC3000 series (company {company}, type {model})",
            serial_number=str(number),
            firmware=text.decode("ascii"),
        )

    async def _read_number(self) -> int:
        try:
            high, low = await self._master.read_holding(_NATIVE_NUMBER, 2)
        except InstrumentError:
            (low,) = await self._master.read_holding(_NUMBER)
            return low
        return high << 16 | low

    # -- joining -------------------------------------------------------------------

    @override
    async def _look_for(self, under_way: FiringUnderWay) -> Sample:
        sample = await super()._look_for(under_way)
        if sample.is_running:
            self._feed_on()
        return sample

    @override
    async def _find_changed(self, under_way: FiringUnderWay) -> list[str]:
        changed = await super()._find_changed(under_way)
        running = under_way.samples.get(f"{self.name}_is_program_running", ())
        was_seen_to_end = bool(running) and not running[-1]
        # The power is off then, and there is nothing to join.
        if not was_seen_to_end and await self._is_watchdog_flag_up():
            changed.append(
                "its communications watchdog has taken the power off; nobody asked it "
                "anything for too long"
            )
        return changed

    async def _is_watchdog_flag_up(self) -> bool:
        """Return whether the watchdog has taken the power off."""
        if self.settings.safety.watchdog_timeout_s is None:
            return False
        return await self.watchdog_flag.get_value() is Switch.ON

    # -- settings ------------------------------------------------------------------

    @override
    def _program_settings(self) -> ProgramSettings:
        return (
            (self.loop_mode, LoopMode.AUTO),
            (self.rate_units, TimeUnit.MINUTE),
            (self.setpoint_rate_up, 0.0),
            (self.setpoint_rate, 0.0),
            (self.program_number, 1),
            (self.servo_to, ServoTo.PV),
            (self.holdback_type, HoldbackType.OFF),
            (self.ramp_units, TimeUnit.MINUTE),
            (self.dwell_units, TimeUnit(self.settings.time_format)),
            (self.cycles, 1),
            (self.end_type, EndType.RESET),
        )

    @override
    def _safety_settings(self) -> list[tuple[str, SignalR[Any], Any]]:
        wanted = self.settings.safety
        pairs: list[tuple[str, SignalR[Any], Any]] = [
            ("temperature unit (516)", self.temperature_units, 0),
            ("input decimals (1922)", self.input_decimals, 1),
            ("ramp rate decimals (10580)", self.rate_decimals, 1),
            ("comms time format (1173)", self.time_format, self.settings.time_format),
            (
                "setpoint high limit (111)",
                self.setpoint_high,
                wanted.setpoint_high_degc,
            ),
            ("setpoint low limit (112)", self.setpoint_low, wanted.setpoint_low_degc),
            ("output high limit (1857)", self.output_high, wanted.output_high_percent),
            ("output low limit (1856)", self.output_low, wanted.output_low_percent),
            ("alarm 1 threshold (13)", self.alarm_1_threshold, wanted.alarm_1_degc),
            ("alarm 1 type (536)", self.alarm_1_type, wanted.alarm_1_type),
            ("alarm 1 inhibit (2127)", self.alarm_1_inhibited, "off"),
            ("idle setpoint SP1 (24)", self.idle_setpoint, wanted.idle_setpoint_degc),
            ("setpoint rate disable (1668)", self.rate_disabled, "off"),
            ("sensor break type (1930)", self.sensor_break, wanted.sensor_break),
            ("sensor is broken (1931)", self.sensor_is_broken, "off"),
            ("output for a bad PV (553)", self.bad_transfer, "fallback"),
            ("fallback output (34)", self.fallback_output, 0.0),
            ("power return (518)", self.power_return, wanted.power_return),
        ]
        if wanted.watchdog_timeout_s is not None:
            in_units = f"in {self.settings.time_format}s"
            pairs += [
                (
                    f"watchdog timeout (1169, {in_units})",
                    self.watchdog_timeout,
                    wanted.watchdog_timeout_s / self._unit_s,
                ),
                ("watchdog action (1170)", self.watchdog_action, "manual"),
                (
                    f"watchdog recovery (1171, {in_units})",
                    self.watchdog_recovery,
                    wanted.watchdog_recovery_s / self._unit_s,
                ),
            ]
        return pairs

    # -- the program ---------------------------------------------------------------

    @property
    @override
    def _program_state(self) -> SignalR[ProgramMode]:
        return self.program_mode

    @property
    @override
    def _dwell_unit(self) -> DwellUnit:
        return DwellUnit(self.settings.time_format, self._unit_s, _MOST_TIME_UNITS)

    @property
    def _unit_s(self) -> float:
        return _UNIT_S[self.settings.time_format]

    @override
    def _count_faults(self, segments: tuple[Segment, ...]) -> list[str]:
        n_needed = 1 + sum(1 + (segment.dwell_s > 0) for segment in segments)
        if segments and n_needed <= _N_CONTROLLER_SEGMENTS:
            return []
        return [
            f"{len(segments)} segments, which the controller needs "
            f"{n_needed} of its own for, allowed are 2 to {_N_CONTROLLER_SEGMENTS}"
        ]

    @override
    async def _clear_program(self) -> None:
        if await self.program_mode.get_value() is not ProgramMode.RESET:
            await self.reset_program.execute()

    def _program_registers(self, segments: tuple[Segment, ...]) -> dict[int, int]:
        """Return what the segment registers must hold for *segments*."""
        steps: list[tuple[int, int | None, int | None]] = []
        for segment in segments:
            target = round(segment.target_degc * 10)
            steps.append((_RAMP, target, round(segment.ramp_degc_per_min * 10)))
            if segment.dwell_s > 0:
                steps.append((_DWELL, None, round(segment.dwell_s / self._unit_s)))
        steps.append((_END, None, None))
        wanted: dict[int, int] = {}
        for number, values in enumerate(steps):
            first = _SEGMENTS + _SEGMENT_SIZE * number
            for offset, value in enumerate(values):
                if value is not None:
                    wanted[first + offset] = value
        return wanted

    async def _read_program(self) -> list[int]:
        count = _SEGMENT_SIZE * _N_CONTROLLER_SEGMENTS
        return await self._master.read_confirmed(_SEGMENTS, count)

    @override
    async def _write_program(self, segments: tuple[Segment, ...]) -> None:
        present = await self._read_program()
        # The type decides what the third register is, so it comes first.
        for register, value in self._program_registers(segments).items():
            if present[register - _SEGMENTS] != value:
                await self._master.write_register(register, value)
        await self._compare_program(segments)

    @override
    async def _compare_program(self, segments: tuple[Segment, ...]) -> None:
        wanted = self._program_registers(segments)
        words = await self._read_program()
        present = {register: words[register - _SEGMENTS] for register in wanted}
        if present != wanted:
            raise InstrumentError(
                f"{self.name}: the program reads back as {present}, sent was {wanted}"
            )

    # -- firing --------------------------------------------------------------------

    @override
    async def _take_over(self) -> None:
        self._let_go()

    @override
    async def _make_ready(self) -> None:
        await self._lower_watchdog_flag()
        self._heard_at = running_loop().time()
        self._was_running = True

    @override
    async def _start_program(self) -> None:
        await self.run_program.execute()

    @override
    async def _reset_program(self) -> None:
        await self.reset_program.execute()

    async def _lower_watchdog_flag(self) -> None:
        """Let an idle controller, which nobody talked to, heat again."""
        if self.settings.safety.watchdog_timeout_s is not None:
            await set_if_different(self.name, self.watchdog_flag, Switch.OFF)

    @override
    async def _read_sample(self) -> Sample:
        # One exchange, or more if it is not as expected.
        registers = await self._read_plausible()
        signed = [r - 0x10000 if r >= 0x8000 else r for r in registers[:5]]
        mode = _PROGRAM_CODES.get(registers[_PROGRAM_INDEX])
        temperature = signed[0] / 10
        is_broken = bool(registers[_STATUS_INDEX] & _STATUS_SENSOR_BREAK)
        was_running, self._was_running = self._was_running, mode is ProgramMode.RUN
        has_acted = await self._has_watchdog_acted()
        complaint = ""
        if is_broken or temperature > _OVER_RANGE_DEGC:
            complaint = (
                f"the controller reports a broken thermocouple ({temperature:.1f} degC)"
            )
        elif has_acted and was_running:
            complaint = (
                "the controller's communications watchdog has taken the power off; "
                "nobody asked it anything for too long"
            )
        return self._make_sample(
            temperature=temperature,
            setpoint=signed[4] / 10,
            output=signed[3] / 10,
            state=mode,
            complaint=complaint,
        )

    async def _read_plausible(self) -> list[int]:
        """Return the registers of a sample, confirmed if they are a surprise.

        Modbus TCP has no checksum of its own; asking each time thrice would cost more
        than a firing's pace allows.
        """
        registers = await self._master.read_holding(_SAMPLE_FROM, _SAMPLE_COUNT)
        now = running_loop().time()
        last, last_s = self._last_sample
        within = _SURPRISE_DEGC + _SURPRISE_DEGC_PER_S * (now - last_s)
        if not last or not _say_the_same(last, registers, within):
            registers = await self._master.read_confirmed(
                _SAMPLE_FROM,
                _SAMPLE_COUNT,
                agree=lambda one, other: _say_the_same(one, other, _SURPRISE_DEGC),
            )
        self._last_sample = registers, running_loop().time()
        return registers

    async def _has_watchdog_acted(self) -> bool:
        """Look at the watchdog's flag if it may be up: after half its timeout."""
        now = running_loop().time()
        silent_s = now - self._heard_at
        timeout_s = self.settings.safety.watchdog_timeout_s
        may_be_up = timeout_s is not None and silent_s >= timeout_s / 2
        has_acted = may_be_up and await self.watchdog_flag.get_value() is Switch.ON
        self._heard_at = now  # only now: a flag that could not be read is read again
        return has_acted

    # -- stopping ------------------------------------------------------------------

    @override
    async def go_to_abort_state(self) -> str:
        state = self.entry.on_abort or "ramp_down"
        return self._feed_unless_off(state, await super().go_to_abort_state())

    @override
    async def go_to_orphan_state(self) -> str:
        """Make safe what it does whose process has died.

        With ``continue`` its watchdog takes the power off as soon as nobody calls this
        any more, or joins the firing, for its timeout: it only feeds the watchdog.
        """
        said = await super().go_to_orphan_state()
        if said and await self._is_watchdog_flag_up():
            said += "; its watchdog has taken the power off"
        return said

    @override
    async def go_to_hold_state(self) -> str:
        state = self.entry.on_hold
        said = await super().go_to_hold_state()
        if state is None or state == "continue":
            return said  # the sampling feeds the watchdog
        return self._feed_unless_off(state, said)

    def _feed_unless_off(self, state: str, said: str) -> str:
        """Feed the watchdog from now on if heat is still wanted; add that to *said*."""
        timeout_s = self.settings.safety.watchdog_timeout_s
        is_off = state == "heater_off" or self._firing.must_be_off
        if not said or is_off or timeout_s is None:
            return said
        self._feed_on()
        return (
            f"{said}; when PPU ends, its watchdog takes the power off within "
            f"{timeout_s:g} s"
        )

    def _feed_on(self) -> None:
        """Feed the watchdog until somebody else does."""
        self._let_go()
        self._keeper = running_loop().create_task(self._keep_fed())

    async def _keep_fed(self) -> None:
        """Feed the watchdog until all is over and cold, or nobody answers any more."""
        while True:
            await asyncio.sleep(self.settings.sample_period_s)
            try:
                mode = await self.program_mode.get_value()
                temperature = await self.process_value.get_value()
            except (PPUError, TimeoutError):
                return  # it is on its own, and its watchdog acts
            if mode is ProgramMode.RESET and temperature <= SAFE_TO_TOUCH_DEGC:
                return

    def _let_go(self) -> None:
        """Feed the watchdog no more."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()

    @override
    async def disconnect(self) -> None:
        keeper = self._keeper
        self._let_go()
        if keeper is not None:
            await asyncio.wait([keeper])
        await super().disconnect()


def _say_the_same(one: list[int], other: list[int], within_degc: float) -> bool:
    """Return whether two samples differ by no more than a temperature's change."""
    for index in (_STATUS_INDEX, _PROGRAM_INDEX):
        if one[index] != other[index]:
            return False
    return all(abs(one[i] - other[i]) <= 10 * within_degc for i in (0, 4))
