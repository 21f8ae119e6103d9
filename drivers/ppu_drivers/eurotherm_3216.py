"""Eurotherm 3216 controller of a box furnace, over Modbus RTU.

The controller runs the firing with its own programmer (end type *reset*), so it keeps
its program without us; the driver loads it, starts it, and samples. Every setting that
keeps people safe is read back and compared with the lab file before it may heat.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Annotated as A
from typing import Any, ClassVar, Final, Literal

from event_model import DataKey, PartialEventPage
from ophyd_async.core import (
    AsyncStatus,
    SignalR,
    SignalRW,
    StandardReadableFormat,
    StrictEnum,
    TriggerableCommand,
)
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import FiringProfile, FiringRecord, Furnace, Segment
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    MalformedReply,
    PPUError,
    TransportError,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.devices.instrument import DriverFacts, Identity, Instrument
from ppu.devices.modbus import Holding
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection

__all__ = ["Eurotherm3216", "Eurotherm3216Limits", "Eurotherm3216Settings"]

N_SEGMENTS: Final = 8
_SAMPLE_FROM: Final = 1
_SAMPLE_COUNT: Final = 76
_STATUS_SENSOR_BREAK: Final = 1 << 5
_STATUS_INDEX: Final = 75 - _SAMPLE_FROM
_PROGRAM_INDEX: Final = 23 - _SAMPLE_FROM
_PROGRAM_FIRST: Final = 1280
_START_DEADLINE_S: Final = 30.0
_SWITCH_DEADLINE_S: Final = 5.0
_N_INSISTENT_WRITES: Final = 3
_SAFE_TO_TOUCH_DEGC: Final = 60.0
_NEAR_K: Final = 0.06  # registers have one decimal


class ProgramStatus(StrictEnum):
    """State of the programmer (register 23)."""

    RESET = "reset"
    RUN = "run"
    HOLD = "hold"
    END = "end"


class LoopMode(StrictEnum):
    """Who sets the output power (register 273)."""

    AUTO = "auto"
    MANUAL = "manual"


class EndType(StrictEnum):
    """What the programmer does at its end (register 328)."""

    DWELL = "dwell"
    SP2 = "sp2"
    RESET = "reset"
    CHANNEL = "channel"


class RampUnits(StrictEnum):
    """Time unit of ramp rates (register 531)."""

    MINUTE = "minute"
    HOUR = "hour"
    SECOND = "second"


class SensorBreak(StrictEnum):
    """What a broken sensor does (register 578)."""

    OFF = "off"
    ON = "on"
    LATCHING = "latching"


class AlarmType(StrictEnum):
    """What alarm 1 watches (register 536)."""

    OFF = "off"
    HIGH = "high"
    LOW = "low"
    DEVIATION_HIGH = "deviation high"
    DEVIATION_LOW = "deviation low"


_PROGRAM_CODES = {
    0: ProgramStatus.RESET,
    1: ProgramStatus.RUN,
    2: ProgramStatus.HOLD,
    3: ProgramStatus.END,
}
_LOOP_CODES = {0: LoopMode.AUTO, 1: LoopMode.MANUAL}
_END_CODES = {
    1: EndType.DWELL,
    2: EndType.SP2,
    3: EndType.RESET,
    4: EndType.CHANNEL,
}
_RAMP_CODES = {0: RampUnits.MINUTE, 1: RampUnits.HOUR, 2: RampUnits.SECOND}
_ALARM_CODES = dict(enumerate(AlarmType))
_BREAK_CODES = {0: SensorBreak.OFF, 1: SensorBreak.ON, 2: SensorBreak.LATCHING}


class Safety(BaseModel):
    """What the controller itself must be set to before it may heat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setpoint_high_degc: float = Field(description="Register 111")
    setpoint_low_degc: float = Field(default=0.0, description="Register 112")
    output_high_percent: float = Field(
        default=100.0, ge=0, le=100, description="Register 30"
    )
    output_low_percent: float = Field(
        default=0.0, ge=-100, le=100, description="Register 31"
    )
    alarm_1_degc: float = Field(description="Register 13")
    alarm_1_type: Literal["high"] = Field(
        default="high",
        description="Register 536; no other type protects from a runaway",
    )
    sensor_break: Literal["off", "on", "latching"] = Field(
        default="on", description="Register 578"
    )
    idle_setpoint_degc: float = Field(
        default=0.0,
        le=60,
        description="Register 24: where the controller goes after its program",
    )


class Eurotherm3216Settings(BaseModel):
    """What the driver must know of the controller."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dwell_unit: Literal["minute", "hour"] = Field(
        description="Unit of the dwell registers; our sources contradict each other"
    )
    safety: Safety
    sample_period_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the controller may be unreachable during a firing",
    )
    max_deviation_k: float = Field(
        default=50.0,
        gt=0,
        allow_inf_nan=False,
        description="How far the chamber may be from the working setpoint",
    )
    ramp_down_degc_per_min: float = Field(
        default=5.0, ge=0.1, le=300, description="Rate for on_abort: ramp_down"
    )
    max_cooling_s: float = Field(
        default=172800.0,
        gt=0,
        allow_inf_nan=False,
        description="How long natural cooling may take before somebody must look",
    )
    cooling_time_constant_s: float = Field(
        default=12000.0,
        gt=0,
        description="Natural cooling of this furnace, only for expected durations",
    )


class Eurotherm3216Limits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature_degc: LimitPair
    ramp_degc_per_min: LimitPair


@dataclass
class _Samples:
    """Samples taken and not yet collected, as columns."""

    stamps: list[float]
    process_value: list[float]
    working_setpoint: list[float]
    working_output: list[float]

    @classmethod
    def none(cls) -> _Samples:
        return cls([], [], [], [])


@dataclass(frozen=True)
class _Sample:
    """What one exchange says about a firing."""

    temperature: float
    setpoint: float
    status: ProgramStatus | None
    has_broken_sensor: bool

    @property
    def is_running(self) -> bool:
        """Whether the program runs."""
        return self.status is ProgramStatus.RUN


class _DwellWatch:
    """Compares each dwell with what was asked, whatever its registers' unit is.

    A dwell lasts from the sample at which the working setpoint reached the segment's
    target until the one at which it left it or the program ended. One of up to two
    sample periods may pass unseen; it counts as measured to be 0 s then. What
    happened while the controller could not be heard is not held against it.
    """

    def __init__(self, segments: tuple[Segment, ...], period_s: float) -> None:
        self._segments = segments
        self._period = period_s
        self._index = 0
        self._since: float | None = None
        self._nearest_k = math.inf
        self._heard_at: float | None = None
        self._unheard_s = 0.0
        self._just_unheard_s = 0.0
        self.measured_s: list[float] = []

    def see(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        """Take one sample; return what is wrong, if anything is."""
        if self._heard_at is not None:
            self._just_unheard_s = max(lab_time - self._heard_at - self._period, 0.0)
            self._unheard_s += self._just_unheard_s
        self._heard_at = lab_time
        seen = -1
        while seen < self._index < len(self._segments):
            # A sample that ends one segment may belong to the next.
            seen = self._index
            fault = self._follow(lab_time, setpoint, is_running)
            if fault is not None:
                return fault
        while not is_running and self._index < len(self._segments):
            segment = self._segments[self._index]
            if not self._may_have_passed(segment):
                return f"the program ended before {segment.target_degc:g} degC"
            self._go_on(0.0)
        return None

    def _may_have_passed(self, segment: Segment) -> bool:
        """Return whether it may have begun and ended since the last sample."""
        reach_s = 2 * self._period + self._unheard_s
        reach_k = segment.ramp_degc_per_min / 60 * reach_s + 0.1
        return segment.dwell_s <= reach_s and self._nearest_k <= reach_k

    def _go_on(self, lasted: float) -> None:
        self.measured_s.append(lasted)
        left_degc = self._segments[self._index].target_degc
        self._index += 1
        self._since = None
        if self._index < len(self._segments):
            self._nearest_k = abs(self._segments[self._index].target_degc - left_degc)
        # The next segment began while nobody heard, if anything did.
        self._unheard_s = self._just_unheard_s

    def _slack_s(self, segment: Segment) -> float:
        """Return how far a right dwell may be from what was asked [s]."""
        # A slow setpoint reads as its target before it is there and after it left.
        ramps = [s.ramp_degc_per_min for s in self._segments[self._index :][:2]]
        blur_s = sum(_NEAR_K / rate * 60 for rate in ramps)
        return 2 * self._period + blur_s + 0.02 * segment.dwell_s + self._unheard_s

    def _follow(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        segment = self._segments[self._index]
        is_there = is_running and abs(setpoint - segment.target_degc) < _NEAR_K
        if self._since is None:
            if is_there:
                self._since = lab_time
            elif is_running:
                return self._approach(segment, setpoint)
            return None
        lasted = lab_time - self._since
        slack = self._slack_s(segment)
        if is_there and lasted <= segment.dwell_s + slack:
            return None
        self._go_on(lasted)
        if abs(lasted - segment.dwell_s) > slack:
            manner = "still dwells after" if is_there else "dwelt for"
            return (
                f"the controller {manner} {lasted:.0f} s at {segment.target_degc:g} "
                f"degC, asked were {segment.dwell_s:.0f} s; is dwell_unit right?"
            )
        return None

    def _approach(self, segment: Segment, setpoint: float) -> str | None:
        """Follow the setpoint on its way to a target it was not seen at yet."""
        gap_k = abs(setpoint - segment.target_degc)
        has_turned = gap_k > self._nearest_k + _NEAR_K
        stands_still = abs(gap_k - self._nearest_k) < _NEAR_K
        following = self._segments[self._index + 1 : self._index + 2]
        dwells_at_next = stands_still and any(
            abs(setpoint - after.target_degc) < _NEAR_K for after in following
        )
        if (has_turned or dwells_at_next) and self._may_have_passed(segment):
            self._go_on(0.0)
            return None
        if has_turned:
            return f"the setpoint turned round before {segment.target_degc:g} degC"
        self._nearest_k = min(self._nearest_k, gap_k)
        return None


class _FiringWatch:
    """Judges each sample of a firing: may it go on?"""

    def __init__(
        self,
        profile: FiringProfile,
        settings: Eurotherm3216Settings,
        limits: Eurotherm3216Limits,
    ) -> None:
        self._settings = settings
        self._high = limits.temperature_degc[1]
        self._highest_setpoint = max(s.target_degc for s in profile.segments)
        self._has_begun = False
        self._dwells = _DwellWatch(profile.segments, settings.sample_period_s)
        self._ended_at: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the program has run to its end."""
        return self._ended_at is not None

    def is_at_top(self, sample: _Sample) -> bool:
        """Return whether the program dwells at its highest temperature."""
        return abs(sample.setpoint - self._highest_setpoint) < 0.06

    @property
    def measured_s(self) -> list[float]:
        """The dwells measured so far."""
        return self._dwells.measured_s

    def see(self, lab_time: float, sample: _Sample) -> str | None:
        """Take one sample; return why the firing must not go on, if it must not."""
        if sample.has_broken_sensor:
            return "the controller reports a broken thermocouple"
        if sample.temperature > self._high + 0.02 * self._high:
            return f"{sample.temperature:.1f} degC is over the limit of {self._high:g}"
        if sample.status is ProgramStatus.HOLD:
            return "the program is on hold; somebody held it at the controller"
        if not self._has_begun:
            # The program starts where the chamber is, which may still be hot.
            self._has_begun = True
            self._highest_setpoint = max(self._highest_setpoint, sample.temperature)
        if self._ended_at is not None:
            return self._see_cooling(lab_time, sample, self._ended_at)
        if sample.is_running:
            fault = self._see_program(sample)
            if fault is not None:
                return fault
        else:
            self._ended_at = lab_time
        return self._dwells.see(lab_time, sample.setpoint, sample.is_running)

    def _see_program(self, sample: _Sample) -> str | None:
        if sample.setpoint > self._highest_setpoint + 1.0:
            return (
                f"the working setpoint is {sample.setpoint:.1f} degC, asked were at "
                f"most {self._highest_setpoint:g} degC; somebody changed the program"
            )
        deviation = sample.temperature - sample.setpoint
        if abs(deviation) > self._settings.max_deviation_k:
            return (
                f"{sample.temperature:.1f} degC is {deviation:+.0f} K off its working "
                "setpoint"
            )
        return None

    def _see_cooling(
        self, lab_time: float, sample: _Sample, ended_at: float
    ) -> str | None:
        if sample.status is not ProgramStatus.RESET:
            state = "unknown" if sample.status is None else sample.status.value
            return f"a program is in state {state} although this one has ended"
        cooled_s = lab_time - ended_at
        if cooled_s > self._settings.max_cooling_s:
            return f"still {sample.temperature:.0f} degC after {cooled_s:.0f} s"
        return None


class Eurotherm3216(Instrument, Furnace):
    """Eurotherm 3216 (3200 series engineering handbook HA028651 issue 7).

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The serial line.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Eurotherm",
        model="3216",
        wire="modbus-rtu",
        sources=(
            "3200 series engineering handbook HA028651 issue 7, parameter table pp. "
            "83-84",
            "CederGroupHub/alab_control furnace_3216p: modbus_addr.csv (registers "
            "321, 536, 578, 629, 1280-1303), furnace_driver.py (9600 8N1, ramp x 10)",
            "thaeber/eurothermlib: registers are addressed as the manual prints them",
        ),
        verified="",
        open_questions=(
            "Unit of the dwell registers (321): sources contradict each other. The lab "
            "file must state dwell_unit; every dwell is timed and a wrong unit stops "
            "the firing.",
            "Whether one read may span addresses the manual leaves out: the sample "
            "reads registers 1 to 76 at once.",
            "Codes of registers 536 and 578 are from memory; they are only compared "
            "with the lab file.",
            "No communications watchdog is documented for this model in our sources.",
            "No serial number is documented; the customer id (629) is used, which "
            "the lab must set.",
        ),
        orphan_behaviour="keeps its program without us: no watchdog is known",
    )
    connections = (SerialConnection,)
    settings_model = Eurotherm3216Settings
    limits_model = Eurotherm3216Limits
    abort_states: ClassVar[Mapping[str, str]] = {
        "ramp_down": "reset the program and ramp to the idle setpoint",
        "heater_off": "reset the program and set the output to 0 % by hand",
        "continue": "leave the program running",
    }
    heats = True

    process_value: A[
        SignalR[float],
        Holding(1, decimals=1, units="degC", low=-50, high=1372, manual="p. 83 PV.IN"),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    target_setpoint: A[
        SignalR[float],
        Holding(2, decimals=1, units="degC", wears_eeprom=True, manual="p. 83 TG.SP"),
    ]
    manual_output: A[
        SignalRW[float],
        Holding(3, decimals=1, units="%", low=0, high=100, manual="p. 83 MAN.OP"),
    ]
    working_output: A[
        SignalR[float], Holding(4, decimals=1, units="%", manual="p. 83 WRK.OP")
    ]
    working_setpoint: A[
        SignalR[float], Holding(5, decimals=1, units="degC", manual="p. 83 WKG.SP")
    ]
    alarm_1_threshold: A[
        SignalR[float], Holding(13, decimals=1, units="degC", manual="p. 83 A1")
    ]
    program_status: A[
        SignalRW[ProgramStatus], Holding(23, codes=_PROGRAM_CODES, manual="p. 83")
    ]
    idle_setpoint: A[
        SignalRW[float],
        Holding(
            24,
            decimals=1,
            units="degC",
            low=0,
            high=60,
            wears_eeprom=True,
            manual="p. 83 SP1",
        ),
    ]
    output_high: A[
        SignalR[float], Holding(30, decimals=1, units="%", manual="p. 83 OP.HI")
    ]
    output_low: A[
        SignalR[float], Holding(31, decimals=1, units="%", manual="p. 83 OP.LO")
    ]
    setpoint_rate: A[
        SignalRW[float],
        Holding(
            35,
            decimals=1,
            units="degC/min",
            low=0,
            high=300,
            wears_eeprom=True,
            manual="p. 83 SP.RAT; 0 = off",
        ),
    ]
    instrument_status: A[
        SignalR[int], Holding(75, units="", manual="p. 84 instrument status bitmap")
    ]
    setpoint_high: A[
        SignalR[float], Holding(111, decimals=1, units="degC", manual="p. 84 SP.HI")
    ]
    setpoint_low: A[
        SignalR[float], Holding(112, decimals=1, units="degC", manual="p. 84 SP.LO")
    ]
    loop_mode: A[
        SignalRW[LoopMode], Holding(273, codes=_LOOP_CODES, manual="p. 84 A-M")
    ]
    acknowledge_alarms: A[
        TriggerableCommand, Holding(274, write_value=1, units="", manual="p. 84")
    ]
    end_type: A[SignalRW[EndType], Holding(328, codes=_END_CODES, manual="p. 84 END.T")]
    ramp_units: A[
        SignalRW[RampUnits], Holding(531, codes=_RAMP_CODES, manual="p. 84 RAMP.U")
    ]
    alarm_1_type: A[
        SignalR[AlarmType],
        Holding(536, codes=_ALARM_CODES, manual="alab_control modbus_addr.csv"),
    ]
    sensor_break: A[
        SignalR[SensorBreak],
        Holding(578, codes=_BREAK_CODES, manual="alab_control modbus_addr.csv"),
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: Eurotherm3216Settings,
        limits: Eurotherm3216Limits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._master = ModbusMaster(
            name,
            connection,
            deadline_s=1.0,
            # The status word and its inverse: nothing else reads like that.
            probe=Probe(75, 2, lambda words: words[0] ^ words[1] == 0xFFFF),
        )
        self._profile: FiringProfile | None = None
        self._is_ours = False
        """Whether this driver started what the controller does."""
        self._must_be_off = False
        """Whether a fault was found that does not allow any more heating."""
        self._samples = _Samples.none()
        self._sampler: asyncio.Task[FiringRecord] | None = None
        self._last_firing: FiringRecord | None = None
        super().__init__(name, entry, self._master, self._master.link)

    @override
    @classmethod
    def inconsistencies(
        cls, settings: Eurotherm3216Settings, limits: Eurotherm3216Limits
    ) -> list[str]:
        high = limits.temperature_degc[1]
        setpoint_high = settings.safety.setpoint_high_degc
        alarm = settings.safety.alarm_1_degc
        found = []
        if high > setpoint_high:
            found.append(
                f"limits.temperature_degc allows {high:g} degC, but the controller's "
                f"own setpoint_high_degc is {setpoint_high:g}; lower the limit"
            )
        if setpoint_high >= alarm:
            found.append(
                f"alarm_1_degc is {alarm:g}, which must be over setpoint_high_degc "
                f"({setpoint_high:g}) to warn of overshoot; raise the alarm"
            )
        return found

    # -- identity ------------------------------------------------------------------

    @override
    async def read_identity(self) -> Identity:
        stranger = (
            f"{self.name}: what answers at {self.link.endpoint} is no Eurotherm 3200: "
        )
        try:
            status, inverse = await self._master.read_holding(75, 2)
            (version,) = await self._master.read_holding(107)
            (model,) = await self._master.read_holding(122)
            (customer,) = await self._master.read_holding(629)
        except InstrumentError as exc:
            raise ConnectError(f"{stranger}{exc}") from exc
        if status ^ inverse != 0xFFFF:
            raise ConnectError(
                f"{stranger}its status word (75) and the inverse (76) do not match"
            )
        return Identity(
            model=f"3200 series (type {model})",
            serial_number=str(customer),
            firmware=f"{version >> 8:x}.{version & 0xFF:02x}",
        )

    # -- capability ----------------------------------------------------------------

    @property
    def slots(self) -> tuple[str, ...]:
        """Locations inside the chamber."""
        return self.entry.slots

    @property
    def last_firing(self) -> FiringRecord | None:
        """The last completed firing."""
        return self._last_firing

    def expected_duration_s(self, profile: FiringProfile) -> float:
        """Return how long *profile* will take, cooling included [s]."""
        temperature = 25.0
        total = 0.0
        for segment in profile.segments:
            rise = abs(segment.target_degc - temperature)
            total += rise / segment.ramp_degc_per_min * 60 + segment.dwell_s
            temperature = segment.target_degc
        excess = max(temperature - 25.0, 1.0)
        left = max(profile.cool_to_degc - 25.0, 1.0)
        return total + self.settings.cooling_time_constant_s * max(
            math.log(excess / left), 0.0
        )

    def check_profile(self, profile: FiringProfile) -> None:
        """Refuse a profile that the lab or the controller does not allow.

        Raises:
            LimitError: With every fault; nothing was sent.
        """
        faults = []
        low, high = self.limits.temperature_degc
        slowest, fastest = self.limits.ramp_degc_per_min
        unit_s = self._dwell_unit_s
        if not 1 <= len(profile.segments) <= N_SEGMENTS:
            faults.append(
                f"{len(profile.segments)} segments, allowed are 1 to {N_SEGMENTS}"
            )
        for number, segment in enumerate(profile.segments, 1):
            where = f"segment {number}"
            if not low <= segment.target_degc <= high:
                faults.append(
                    f"{where}: {segment.target_degc:g} degC, allowed are "
                    f"{low:g} to {high:g} degC"
                )
            rate = segment.ramp_degc_per_min
            if not (slowest <= rate <= fastest and rate > 0):
                faults.append(
                    f"{where}: {rate:g} degC/min, allowed are more than "
                    f"{slowest:g} up to {fastest:g} degC/min"
                )
            elif abs(round(rate * 10) / 10 - rate) > 0.02 * rate:
                faults.append(
                    f"{where}: {rate:g} degC/min, the controller knows steps of 0.1"
                )
            n_units = segment.dwell_s / unit_s
            if not 0 <= n_units <= 9999 or abs(n_units - round(n_units)) > 1e-6:
                faults.append(
                    f"{where}: a dwell of {segment.dwell_s:g} s, allowed are whole "
                    f"{self.settings.dwell_unit}s from 0 to 9999"
                )
        faults.extend(
            f"segment {number}: {after.target_degc:g} degC is where segment "
            f"{number - 1} ends, so its dwell could not be told apart; make them one"
            for number, (before, after) in enumerate(pairwise(profile.segments), 2)
            if abs(after.target_degc - before.target_degc) < 0.1
        )
        if faults:
            raise LimitError(f"{self.name}: " + "; ".join(faults))

    @property
    def _dwell_unit_s(self) -> float:
        return 60.0 if self.settings.dwell_unit == "minute" else 3600.0

    @AsyncStatus.wrap
    async def prepare(self, value: FiringProfile) -> None:
        """Check *value*, compare the controller's settings, and load the program.

        Raises:
            LimitError: If the profile is not allowed; nothing was sent.
            ConfigurationError: If the controller is not set as the lab file says;
                nothing was changed.
            InterlockError: If a program is running or on hold, or the last firing
                has not cooled yet; nothing was changed.
            InstrumentError: If the controller did not take the program.
        """
        self._profile = None
        self.check_profile(value)
        if self._sampler is not None and not self._sampler.done():
            raise InterlockError(f"{self.name}: the last firing is not complete yet")
        await self._compare_safety()
        await self.check_idle()
        await self._set_if_different(self.program_status, ProgramStatus.RESET)
        await self._set_if_different(self.loop_mode, LoopMode.AUTO)
        await self._set_if_different(self.ramp_units, RampUnits.MINUTE)
        await self._set_if_different(self.end_type, EndType.RESET)
        await self._set_if_different(self.setpoint_rate, 0.0)
        await self._write_program(value.segments)
        self._profile = value

    @override
    async def check_idle(self) -> None:
        status = await self.program_status.get_value()
        if status in (ProgramStatus.RUN, ProgramStatus.HOLD):
            raise InterlockError(
                f"{self.name}: a program is in state {status.value}; wait for it, or "
                "reset it at the controller"
            )

    async def _compare_safety(self) -> None:
        """Refuse to heat with a controller that is not set as the lab file says."""
        wanted = self.settings.safety
        pairs: tuple[tuple[str, Any, Any], ...] = (
            (
                "setpoint high limit (111)",
                self.setpoint_high,
                wanted.setpoint_high_degc,
            ),
            ("setpoint low limit (112)", self.setpoint_low, wanted.setpoint_low_degc),
            ("output high limit (30)", self.output_high, wanted.output_high_percent),
            ("output low limit (31)", self.output_low, wanted.output_low_percent),
            ("alarm 1 threshold (13)", self.alarm_1_threshold, wanted.alarm_1_degc),
            ("alarm 1 type (536)", self.alarm_1_type, wanted.alarm_1_type),
            ("idle setpoint SP1 (24)", self.idle_setpoint, wanted.idle_setpoint_degc),
            ("sensor break type (578)", self.sensor_break, wanted.sensor_break),
        )
        faults = []
        for label, signal, expected in pairs:
            actual = await signal.get_value()
            if isinstance(expected, str):
                is_equal = actual.value == expected
            else:
                is_equal = abs(actual - expected) < 0.05
            if not is_equal:
                faults.append(f"{label} is {actual}, the lab file says {expected}")
        if faults:
            raise ConfigurationError(
                f"{self.name}: the controller is not set as the lab file says, so it "
                "may not heat: " + "; ".join(faults)
            )

    async def _set_if_different(self, signal: SignalRW[Any], value: Any) -> None:
        """Write *value* only if it is not there yet, and read it back."""
        if await signal.get_value() == value:
            return
        await signal.set(value)
        actual = await signal.get_value()
        if actual != value:
            raise InstrumentError(
                f"{self.name}: {signal.name} was set to {value} but reads {actual}"
            )

    async def _write_program(self, segments: tuple[Segment, ...]) -> None:
        """Load the segments; unchanged registers are not written (EEPROM)."""
        wanted = self._program_registers(segments)
        present = await self._master.read_holding(_PROGRAM_FIRST, len(wanted))
        for first in range(0, len(wanted), 3):
            if present[first : first + 3] != wanted[first : first + 3]:
                await self._master.write_registers(
                    _PROGRAM_FIRST + first, wanted[first : first + 3]
                )
        await self._compare_program(segments)

    def _program_registers(self, segments: tuple[Segment, ...]) -> list[int]:
        """Return what the program registers hold for *segments*."""
        wanted: list[int] = []
        for segment in segments:
            wanted += [
                round(segment.dwell_s / self._dwell_unit_s),
                round(segment.target_degc * 10),
                round(segment.ramp_degc_per_min * 10),
            ]
        # A ramp of 0 ends the program: what follows must not be run.
        return wanted + [0] * (3 * (N_SEGMENTS - len(segments)))

    async def _compare_program(self, segments: tuple[Segment, ...]) -> None:
        wanted = self._program_registers(segments)
        present = await self._master.read_holding(_PROGRAM_FIRST, len(wanted))
        if present != wanted:
            raise InstrumentError(
                f"{self.name}: the program reads back as {present}, sent was {wanted}"
            )

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Start the loaded program and the sampling.

        Raises:
            ConfigurationError: If the controller is no longer set as the lab file
                says; nothing was started.
            InterlockError: If a program is running or on hold; nothing was started.
            InstrumentError: If nothing is loaded, or not what was prepared, or it
                does not start.
        """
        profile, self._profile = self._profile, None
        if profile is None:
            raise InstrumentError(f"{self.name}: no program is loaded")
        # Minutes may have passed, and there is a panel.
        await self._compare_safety()
        await self.check_idle()
        await self._compare_program(profile.segments)
        self._is_ours = True  # also if the answer to the start is lost
        self._must_be_off = False
        await self.program_status.set(ProgramStatus.RUN)
        loop = running_loop()
        deadline = loop.time() + _START_DEADLINE_S
        while await self.program_status.get_value() is not ProgramStatus.RUN:
            if loop.time() > deadline:
                raise InstrumentError(f"{self.name}: the program did not start")
            await asyncio.sleep(1.0)
        self._samples = _Samples.none()
        self._sampler = loop.create_task(self._sample(profile))

    @AsyncStatus.wrap
    async def complete(self) -> None:
        """Wait until the program has ended and the chamber has cooled.

        Raises:
            InstrumentError: If the firing went wrong; the heater was switched off.
            TransportError: If the controller stayed unreachable for too long; it
                keeps its program.
        """
        if self._sampler is None:
            raise InstrumentError(f"{self.name}: nothing was started")
        # The sampling must outlive a cancelled wait: an aborted plan still wants to
        # know how hot it is.
        self._last_firing = await asyncio.shield(self._sampler)

    async def _sample(self, profile: FiringProfile) -> FiringRecord:
        """Sample until the chamber has cooled; one exchange for each sample."""
        loop = running_loop()
        period = self.settings.sample_period_s
        started = loop.time()
        last_heard = started
        watch = _FiringWatch(profile, self.settings, self.limits)
        hottest = -math.inf
        at_top: list[float] = []
        n_samples = 0
        while True:
            try:
                registers = await self._master.read_holding(_SAMPLE_FROM, _SAMPLE_COUNT)
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
            else:
                last_heard = loop.time()
                n_samples += 1
                sample = self._take(registers, loop.stamp())
                hottest = max(hottest, sample.temperature)
                if sample.is_running and watch.is_at_top(sample):
                    at_top.append(sample.temperature)
                fault = watch.see(last_heard, sample)
                if fault is not None:
                    raise InstrumentError(
                        f"{self.name}: {fault}; {await self._switch_off_after_fault()}"
                    )
                if watch.has_ended and sample.temperature <= profile.cool_to_degc:
                    self._is_ours = False
                    return FiringRecord(
                        started_s=loop.epoch + started,
                        duration_s=last_heard - started,
                        max_temperature_degc=hottest,
                        dwell_temperature_degc=fmean(at_top) if at_top else None,
                        dwell_s=tuple(watch.measured_s),
                        n_samples=n_samples,
                    )
            elapsed = loop.time() - started
            due = started + (math.floor(elapsed / period + 1e-9) + 1) * period
            await asyncio.sleep(due - loop.time())

    def _take(self, registers: list[int], stamp: float) -> _Sample:
        """Append one sample to what is collected, and return it."""
        signed = [r - 0x10000 if r >= 0x8000 else r for r in registers[:5]]
        temperature, setpoint = signed[0] / 10, signed[4] / 10
        samples = self._samples
        samples.stamps.append(stamp)
        samples.process_value.append(temperature)
        samples.working_setpoint.append(setpoint)
        samples.working_output.append(signed[3] / 10)
        return _Sample(
            temperature=temperature,
            setpoint=setpoint,
            status=_PROGRAM_CODES.get(registers[_PROGRAM_INDEX]),
            has_broken_sensor=bool(registers[_STATUS_INDEX] & _STATUS_SENSOR_BREAK),
        )

    async def _insist(self, signal: SignalRW[Any], value: Any) -> str:
        """Write *value* until it reads back; return what went wrong, if it never did.

        Only for what is harmless to repeat. The next act must be tried whatever
        becomes of this one, so nothing is raised.
        """
        trouble = ""
        for _ in range(_N_INSISTENT_WRITES):
            try:
                await signal.set(value)
                actual = await signal.get_value()
            except (PPUError, TimeoutError) as exc:
                trouble = f"{signal.name}: {exc}"
            else:
                if actual == value:
                    return ""
                trouble = f"{signal.name} was set to {value} but reads {actual}"
        return trouble

    async def _wait_for_no_power(self) -> str:
        """Wait until the output is 0 %; return what went wrong, if it never is.

        The next act must be tried whatever becomes of this, so nothing is raised.
        """
        loop = running_loop()
        deadline = loop.time() + _SWITCH_DEADLINE_S
        while True:
            try:
                output = await self.working_output.get_value()
            except (PPUError, TimeoutError) as exc:
                return f"{self.working_output.name}: {exc}"
            if output <= 0:
                return ""
            if loop.time() > deadline:
                return f"the output stayed at {output:g} %"
            await asyncio.sleep(1.0)

    async def _switch_off(self) -> None:
        """Reset the program, set the output to 0 % by hand, and see that it is.

        Raises:
            InstrumentError: If the controller did not do so within seconds; everything
                was tried.
        """
        troubles = [await self._insist(self.program_status, ProgramStatus.RESET)]
        # First the power, then by hand: never by hand at the last power.
        troubles.append(await self._insist(self.manual_output, 0.0))
        troubles.append(await self._insist(self.loop_mode, LoopMode.MANUAL))
        troubles.append(await self._insist(self.manual_output, 0.0))
        if troubles[-1] and not troubles[2]:
            # By hand at an unknown power is worse than automatic at the idle setpoint.
            troubles.append(await self._insist(self.loop_mode, LoopMode.AUTO))
        loop = running_loop()
        deadline = loop.time() + _SWITCH_DEADLINE_S
        while True:
            # The controller moves its output at its next cycle, not at once.
            output = await self.working_output.get_value()
            mode = await self.loop_mode.get_value()
            if mode is LoopMode.MANUAL and output <= 0:
                return
            if loop.time() > deadline:
                told = "; ".join(trouble for trouble in troubles if trouble)
                raise InstrumentError(
                    f"{self.name}: asked for 0 % by hand but it is in {mode.value} at "
                    f"{output:g} %; switch it off at the wall. {told}".rstrip()
                )
            await asyncio.sleep(1.0)

    async def _ramp_down(self) -> str:
        """Reset the program and follow the setpoint rate down to the idle setpoint.

        Raises:
            InstrumentError: If the controller did not do so; everything was tried.
        """
        rate = self.settings.ramp_down_degc_per_min
        troubles = [
            await self._insist(self.setpoint_rate, round(rate, 1)),
            await self._insist(self.program_status, ProgramStatus.RESET),
        ]
        if await self.loop_mode.get_value() is not LoopMode.AUTO:
            troubles.append(await self._insist(self.manual_output, 0.0))
            # Automatic goes on from the power it finds.
            troubles.append(await self._wait_for_no_power())
            troubles.append(await self._insist(self.loop_mode, LoopMode.AUTO))
        status = await self.program_status.get_value()
        mode = await self.loop_mode.get_value()
        target = await self.target_setpoint.get_value()
        idle = self.settings.safety.idle_setpoint_degc
        told = "; ".join(trouble for trouble in troubles if trouble)
        if (
            status is not ProgramStatus.RESET
            or mode is not LoopMode.AUTO
            or target > idle + 0.05
        ):
            raise InstrumentError(
                f"{self.name}: asked to ramp down but it is in {status.value}, "
                f"{mode.value}, with target {target:g} degC; switch it off at the "
                f"wall. {told}".rstrip()
            )
        manner = f"at {rate:g} degC/min" if not troubles[0] else "at its own rate"
        return f"{self.name}: ramping down {manner} to {target:g} degC, verified"

    async def _switch_off_after_fault(self) -> str:
        """Switch off; return what came of it, for the error that tells the fault."""
        # Also if this fails or is cancelled: an abort must not heat on then.
        self._must_be_off = True
        try:
            await self._switch_off()
        except PPUError as exc:
            return f"the heater could NOT be switched off: {exc}"
        return "the heater is off"

    # -- documents -----------------------------------------------------------------

    _COLUMNS: Final = ("process_value", "working_setpoint", "working_output")

    async def describe_collect(self) -> dict[str, DataKey]:
        """Describe the columns of the event pages."""
        described: dict[str, DataKey] = {}
        for column in self._COLUMNS:
            described |= await getattr(self, column).describe()
        return described

    async def collect_pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was sampled since the last collection."""
        samples, self._samples = self._samples, _Samples.none()
        if not samples.stamps:
            return
        keys = {column: getattr(self, column).name for column in self._COLUMNS}
        yield PartialEventPage(
            data={key: getattr(samples, column) for column, key in keys.items()},
            timestamps=dict.fromkeys(keys.values(), samples.stamps),
            time=samples.stamps,
        )

    # -- stopping ------------------------------------------------------------------

    @override
    async def go_to_abort_state(self) -> str:
        if self._sampler is not None:
            self._sampler.cancel()
            self._sampler = None
        if not self._is_ours:
            return ""  # what it does is not this plan's, or it does nothing
        state = self.entry.on_abort or "ramp_down"
        if self._must_be_off or state == "heater_off":
            await self._switch_off()
            said = f"{self.name}: heater off, verified (by hand, 0 %)"
        elif state == "continue":
            status = await self.program_status.get_value()
            said = f"{self.name}: left alone, its program is in state {status.value}"
        else:
            said = await self._ramp_down()
        self._is_ours = False
        return said

    @override
    async def hot_parts(self) -> str:
        temperature = await self.process_value.get_value()
        if temperature <= _SAFE_TO_TOUCH_DEGC:
            return ""
        return f"{self.name}: the chamber is at {temperature:.0f} degC"
