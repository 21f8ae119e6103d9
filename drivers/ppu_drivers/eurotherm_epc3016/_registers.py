"""The registers of the controller as signals, and what their codes mean."""

from __future__ import annotations

from typing import Annotated as A
from typing import Any, Final

from ophyd_async.core import StandardReadableFormat, StrictEnum, TriggerableCommand

from ppu.devices import Display, DisplayedHolding, Holding, SignalR, SignalRW
from ppu.devices.firing import LoopMode, ProgrammedFurnace, ProgramStates
from ppu_drivers.eurotherm_epc3016._codec import (
    N_SAMPLE_REGISTERS,
    SAMPLE_FROM,
    STATUS_SENSOR_BREAK,
)

__all__ = [
    "BROKEN",
    "DISPLAY",
    "PROGRAM_CODES",
    "EndType",
    "EpcRegisters",
    "HoldbackType",
    "ProgramMode",
    "ServoTo",
    "Switch",
    "TimeUnit",
]

_HEADER: Final = 8328
DISPLAY: Final = Display(
    decimals_at=1922,
    units_at=516,
    degc_code=0,
    sampled=range(SAMPLE_FROM, SAMPLE_FROM + N_SAMPLE_REGISTERS),
    temperatures=(1, 2, 5, 13, 24),
    witness=range(11, 13),  # low and high end of the setpoint's range
)
BROKEN: Final = "the controller reports a broken thermocouple"


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


PROGRAM_CODES = {
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


def _degc(register: int, manual: str, **meaning: Any) -> DisplayedHolding:
    """Return a register with a temperature, as input 1 is resolved."""
    return DisplayedHolding(
        register,
        display=DISPLAY,
        decimals=1,
        units="degC",
        writes_single=True,
        manual=f"{_TABLE}: {manual}",
        **meaning,
    )


class EpcRegisters(ProgrammedFurnace):
    """What of an EPC3016 is read and written by name: program 1, input 1."""

    program_states = ProgramStates(
        running=ProgramMode.RUN,
        reset=ProgramMode.RESET,
        ended=ProgramMode.COMPLETE,
        held=(ProgramMode.HOLD, ProgramMode.HOLDBACK),
    )

    process_value: A[
        SignalR[float],
        _degc(
            1,
            "Loop.Main.PV",
            low=-50,
            high=1372,
            invalid_if=(75, STATUS_SENSOR_BREAK, BROKEN),
        ),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    target_setpoint: A[SignalR[float], _degc(2, "Loop.Main.TargetSP")]
    manual_output: A[
        SignalRW[float],
        _holding(3, "Loop.Output.ManualOP", decimals=1, units="%", low=0, high=100),
    ]
    working_output: A[
        SignalR[float], _holding(4, "Loop.Main.WorkingOutput", decimals=1, units="%")
    ]
    working_setpoint: A[SignalR[float], _degc(5, "Loop.Main.WorkingSP")]
    alarm_1_threshold: A[SignalR[float], _degc(13, "Alarm.1.Threshold")]
    program_number: A[
        SignalRW[int],
        _holding(22, "Programmer.Run.ProgramNumber", units="", low=1, high=20),
    ]
    program_mode: A[
        SignalR[ProgramMode],
        _holding(23, "Programmer.Run.Mode", codes=PROGRAM_CODES),
    ]
    idle_setpoint: A[
        SignalRW[float],
        _degc(24, "Loop.Setpoint.SP1", low=0, high=60, wears_eeprom=True),
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
        _degc(111, "Loop.Setpoint.SPHighLimit"),
    ]
    setpoint_low: A[
        SignalR[float],
        _degc(112, "Loop.Setpoint.SPLowLimit"),
    ]
    loop_mode: A[
        SignalRW[LoopMode], _holding(273, "Loop.Main.AutoMan", codes=_LOOP_CODES)
    ]
    acknowledge_alarms: A[
        TriggerableCommand,
        _holding(274, "Instrument.Diagnostics.GlobalAck", write_value=1, units=""),
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
