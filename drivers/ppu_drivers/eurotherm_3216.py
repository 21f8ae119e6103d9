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
    LimitError,
    MalformedReply,
    PPUError,
    TransportError,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.devices.instrument import DriverFacts, Identity, Instrument
from ppu.devices.modbus import Holding
from ppu.transports.modbus import ModbusMaster
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
_SAFE_TO_TOUCH_DEGC: Final = 60.0


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
        default=5.0, gt=0, description="Rate for on_abort: ramp_down"
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


class _DwellWatch:
    """Compares each dwell with what was asked, whatever its registers' unit is.

    A dwell lasts from the sample at which the working setpoint reached the segment's
    target until the one at which it left it or the program ended. One of up to two
    sample periods may pass unseen; it counts as measured to be 0 s then.
    """

    def __init__(self, segments: tuple[Segment, ...], period_s: float) -> None:
        self._segments = segments
        self._period = period_s
        self._index = 0
        self._since: float | None = None
        self._nearest_k = math.inf
        self.measured_s: list[float] = []

    def see(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        """Take one sample; return what is wrong, if anything is."""
        fault = None
        if self._index < len(self._segments):
            fault = self._follow(lab_time, setpoint, is_running)
        while fault is None and not is_running and self._index < len(self._segments):
            segment = self._segments[self._index]
            if not self._is_short(segment):
                return f"the program ended before {segment.target_degc:g} degC"
            self._go_on(0.0)
        return fault

    def _is_short(self, segment: Segment) -> bool:
        return segment.dwell_s <= 2 * self._period

    def _go_on(self, lasted: float) -> None:
        self.measured_s.append(lasted)
        self._index += 1
        self._since = None
        self._nearest_k = math.inf

    def _follow(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        segment = self._segments[self._index]
        gap_k = abs(setpoint - segment.target_degc)
        is_there = is_running and gap_k < 0.06
        if self._since is None:
            if is_there:
                self._since = lab_time
            elif self._is_short(segment) and gap_k > self._nearest_k + 0.06:
                self._go_on(0.0)  # it moves away again: the target was passed
            self._nearest_k = min(self._nearest_k, gap_k)
            return None
        lasted = lab_time - self._since
        slack = 2 * self._period + 0.02 * segment.dwell_s
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
        self._master = ModbusMaster(name, connection, deadline_s=1.0)
        self._profile: FiringProfile | None = None
        self._samples = _Samples.none()
        self._sampler: asyncio.Task[FiringRecord] | None = None
        self._last_firing: FiringRecord | None = None
        super().__init__(name, entry, self._master, self._master.link)

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
            n_units = segment.dwell_s / unit_s
            if n_units < 0 or abs(n_units - round(n_units)) > 1e-6 or n_units > 9999:
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
            InstrumentError: If the controller is busy or did not take the program.
        """
        self.check_profile(value)
        await self._compare_safety()
        if await self.program_status.get_value() is ProgramStatus.RUN:
            raise InstrumentError(f"{self.name}: a program is running already")
        await self._set_if_different(self.program_status, ProgramStatus.RESET)
        await self._set_if_different(self.loop_mode, LoopMode.AUTO)
        await self._set_if_different(self.ramp_units, RampUnits.MINUTE)
        await self._set_if_different(self.end_type, EndType.RESET)
        await self._set_if_different(self.setpoint_rate, 0.0)
        await self._write_program(value.segments)
        self._profile = value

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
        wanted: list[int] = []
        for segment in segments:
            wanted += [
                round(segment.dwell_s / self._dwell_unit_s),
                round(segment.target_degc * 10),
                round(segment.ramp_degc_per_min * 10),
            ]
        # A ramp of 0 ends the program: what follows must not be run.
        wanted += [0] * (3 * (N_SEGMENTS - len(segments)))
        present = await self._master.read_holding(_PROGRAM_FIRST, len(wanted))
        for first in range(0, len(wanted), 3):
            if present[first : first + 3] != wanted[first : first + 3]:
                await self._master.write_registers(
                    _PROGRAM_FIRST + first, wanted[first : first + 3]
                )
        present = await self._master.read_holding(_PROGRAM_FIRST, len(wanted))
        if present != wanted:
            raise InstrumentError(
                f"{self.name}: the program reads back as {present}, sent was {wanted}"
            )

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Start the loaded program and the sampling.

        Raises:
            InstrumentError: If nothing is loaded or it does not start.
        """
        profile = self._profile
        if profile is None:
            raise InstrumentError(f"{self.name}: no program is loaded")
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
        watch = _DwellWatch(profile.segments, period)
        is_running = True
        hottest = -math.inf
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
                temperature, setpoint = self._take(registers, loop.stamp())
                hottest = max(hottest, temperature)
                was_running, is_running = (
                    is_running,
                    is_running
                    and (
                        _PROGRAM_CODES.get(registers[_PROGRAM_INDEX])
                        is ProgramStatus.RUN
                    ),
                )
                fault = self._find_fault(registers, temperature, setpoint, is_running)
                if fault is None and was_running:
                    fault = watch.see(last_heard, setpoint, is_running)
                if fault is not None:
                    raise InstrumentError(
                        f"{self.name}: {fault}; {await self._switch_off_after_fault()}"
                    )
                if not is_running and temperature <= profile.cool_to_degc:
                    return FiringRecord(
                        started_s=loop.epoch + started,
                        duration_s=last_heard - started,
                        max_temperature_degc=hottest,
                        dwell_s=tuple(watch.measured_s),
                        n_samples=n_samples,
                    )
            elapsed = loop.time() - started
            due = started + (math.floor(elapsed / period + 1e-9) + 1) * period
            await asyncio.sleep(due - loop.time())

    def _take(self, registers: list[int], stamp: float) -> tuple[float, float]:
        """Append one sample; return temperature and working setpoint."""
        signed = [r - 0x10000 if r >= 0x8000 else r for r in registers[:5]]
        temperature, setpoint = signed[0] / 10, signed[4] / 10
        samples = self._samples
        samples.stamps.append(stamp)
        samples.process_value.append(temperature)
        samples.working_setpoint.append(setpoint)
        samples.working_output.append(signed[3] / 10)
        return temperature, setpoint

    def _find_fault(
        self,
        registers: list[int],
        temperature: float,
        setpoint: float,
        is_running: bool,
    ) -> str | None:
        """Return why the firing must not go on, if it must not."""
        if registers[_STATUS_INDEX] & _STATUS_SENSOR_BREAK:
            return "the controller reports a broken thermocouple"
        high = self.limits.temperature_degc[1]
        if temperature > high + 0.02 * high:
            return f"{temperature:.1f} degC is over the limit of {high:g} degC"
        deviation = temperature - setpoint
        if is_running and abs(deviation) > self.settings.max_deviation_k:
            return (
                f"{temperature:.1f} degC is {deviation:+.0f} K off its working setpoint"
            )
        return None

    async def _switch_off(self) -> None:
        """Reset the program, set the output to 0 % by hand, and see that it is.

        Raises:
            InstrumentError: If the controller did not do so within seconds.
        """
        await self.program_status.set(ProgramStatus.RESET)
        await self.loop_mode.set(LoopMode.MANUAL)
        await self.manual_output.set(0.0)
        loop = running_loop()
        deadline = loop.time() + _SWITCH_DEADLINE_S
        while True:
            # The controller moves its output at its next cycle, not at once.
            output = await self.working_output.get_value()
            mode = await self.loop_mode.get_value()
            if mode is LoopMode.MANUAL and output <= 0:
                return
            if loop.time() > deadline:
                raise InstrumentError(
                    f"{self.name}: asked for 0 % by hand but it is in {mode.value} at "
                    f"{output:g} %; switch it off at the wall"
                )
            await asyncio.sleep(1.0)

    async def _switch_off_after_fault(self) -> str:
        """Switch off; return what came of it, for the error that tells the fault."""
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
        state = self.entry.on_abort or "ramp_down"
        if self._sampler is not None:
            self._sampler.cancel()
        if state == "continue":
            status = await self.program_status.get_value()
            return f"{self.name}: left alone, its program is in state {status.value}"
        if state == "heater_off":
            await self._switch_off()
            return f"{self.name}: heater off, verified (by hand, 0 %)"
        await self.setpoint_rate.set(self.settings.ramp_down_degc_per_min)
        await self.program_status.set(ProgramStatus.RESET)
        status = await self.program_status.get_value()
        target = await self.target_setpoint.get_value()
        idle = self.settings.safety.idle_setpoint_degc
        if status is not ProgramStatus.RESET or target > idle + 0.05:
            raise InstrumentError(
                f"{self.name}: asked to ramp down but it is in {status.value} with "
                f"target {target:g} degC; switch it off at the wall"
            )
        return (
            f"{self.name}: ramping down at "
            f"{self.settings.ramp_down_degc_per_min:g} degC/min to {target:g} degC, "
            "verified"
        )

    @override
    async def hot_parts(self) -> str:
        temperature = await self.process_value.get_value()
        if temperature <= _SAFE_TO_TOUCH_DEGC:
            return ""
        return f"{self.name}: the chamber is at {temperature:.0f} degC"
