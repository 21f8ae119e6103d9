"""What drivers of furnace controllers with a programmer of their own share.

The controller runs the firing; the driver samples it, judges every sample, and takes
the power off when something is wrong. Each part is handed what it needs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Final

from event_model import DataKey, PartialEventPage
from ophyd_async.core import SignalR, SignalRW, StrictEnum
from pydantic import BaseModel, ConfigDict, Field

from ppu.core.capabilities import FiringProfile, FiringRecord, Segment
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    InterlockError,
    MalformedReply,
    PPUError,
    TransportError,
)
from ppu.core.labfile import LimitPair
from ppu.core.labtime import running_loop
from ppu_drivers._heating import HeatingWatch

__all__ = [
    "SAFE_TO_TOUCH_DEGC",
    "DwellWatch",
    "Firing",
    "FiringSettings",
    "FiringWatch",
    "FurnaceLimits",
    "HeaterSwitch",
    "LoopMode",
    "Sample",
    "compare_settings",
    "expected_duration_s",
    "insist",
    "limit_contradictions",
    "segment_faults",
    "set_if_different",
]

SAFE_TO_TOUCH_DEGC: Final = 60.0
_START_DEADLINE_S: Final = 30.0
_SWITCH_DEADLINE_S: Final = 5.0
_N_INSISTENT_ACTS: Final = 3
_NEAR_K: Final = 0.06  # registers have one decimal


class LoopMode(StrictEnum):
    """Who sets the output power."""

    AUTO = "auto"
    MANUAL = "manual"


class FiringSettings(BaseModel):
    """What a driver must know of any furnace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    full_power_degc_per_min: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How fast the chamber gets hotter at full power, cold and empty; "
        "half of it is too low, twice as much only finds faults later",
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


class FurnaceLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature_degc: LimitPair
    ramp_degc_per_min: LimitPair


@dataclass(frozen=True)
class Sample:
    """What one exchange says about a firing.

    Args:
        temperature: What the controller reads [degC].
        setpoint: Its working setpoint [degC].
        output: Its working output [%].
        status: State of its program, in a word.
        is_running: Whether the program runs.
        is_held: Whether it was stopped on its way.
        is_reset: Whether no program is under way.
        complaint: What the controller itself finds wrong, empty if nothing.
    """

    temperature: float
    setpoint: float
    output: float
    status: str
    is_running: bool
    is_held: bool
    is_reset: bool
    complaint: str = ""


@dataclass
class Samples:
    """Samples taken and not yet collected, as columns."""

    stamps: list[float]
    process_value: list[float]
    working_setpoint: list[float]
    working_output: list[float]

    @classmethod
    def none(cls) -> Samples:
        """Return no samples."""
        return cls([], [], [], [])

    def take(self, sample: Sample, stamp: float) -> None:
        """Append one sample, taken at the UTC stamp *stamp* [s since 1970]."""
        self.stamps.append(stamp)
        self.process_value.append(sample.temperature)
        self.working_setpoint.append(sample.setpoint)
        self.working_output.append(sample.output)


# -- judging ---------------------------------------------------------------------------


class DwellWatch:
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


class FiringWatch:
    """Judges each sample of a firing: may it go on?

    Args:
        profile: What was asked.
        settings: What is known of the furnace.
        high_degc: The highest temperature that the lab allows.
    """

    def __init__(
        self, profile: FiringProfile, settings: FiringSettings, high_degc: float
    ) -> None:
        self._settings = settings
        self._high = high_degc
        self._highest_setpoint = max(s.target_degc for s in profile.segments)
        self._has_begun = False
        self._dwells = DwellWatch(profile.segments, settings.sample_period_s)
        self._heating = HeatingWatch(
            settings.sample_period_s, settings.full_power_degc_per_min
        )
        self._ended_at: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the program has run to its end."""
        return self._ended_at is not None

    def is_at_top(self, sample: Sample) -> bool:
        """Return whether the program dwells at its highest temperature."""
        return abs(sample.setpoint - self._highest_setpoint) < _NEAR_K

    @property
    def measured_s(self) -> list[float]:
        """The dwells measured so far."""
        return self._dwells.measured_s

    def see(self, lab_time: float, sample: Sample) -> str | None:
        """Take one sample; return why the firing must not go on, if it must not."""
        if sample.complaint:
            return sample.complaint
        if sample.temperature > self._high + 0.02 * self._high:
            return f"{sample.temperature:.1f} degC is over the limit of {self._high:g}"
        if sample.is_held:
            return "the program is on hold; somebody held it at the controller"
        if not self._has_begun:
            # The program starts where the chamber is, which may still be hot.
            self._has_begun = True
            self._highest_setpoint = max(self._highest_setpoint, sample.temperature)
        if self._ended_at is not None:
            fault = self._see_cooling(lab_time, sample, self._ended_at)
            return fault or self._see_heat(lab_time, sample)
        if sample.is_running:
            fault = self._see_program(sample) or self._see_heat(lab_time, sample)
            if fault is not None:
                return fault
            deviation = sample.temperature - sample.setpoint
            if abs(deviation) > self._settings.max_deviation_k:
                return (
                    f"{sample.temperature:.1f} degC is {deviation:+.0f} K off its "
                    f"working setpoint{self._heating.explain_deviation()}"
                )
        else:
            self._ended_at = lab_time
        return self._dwells.see(lab_time, sample.setpoint, sample.is_running)

    def _see_heat(self, lab_time: float, sample: Sample) -> str | None:
        return self._heating.see(
            lab_time,
            sample.temperature,
            sample.setpoint,
            sample.output,
            is_cooling=self._ended_at is not None,
        )

    def _see_program(self, sample: Sample) -> str | None:
        if sample.setpoint > self._highest_setpoint + 1.0:
            return (
                f"the working setpoint is {sample.setpoint:.1f} degC, asked were at "
                f"most {self._highest_setpoint:g} degC; somebody changed the program"
            )
        return None

    def _see_cooling(
        self, lab_time: float, sample: Sample, ended_at: float
    ) -> str | None:
        if not sample.is_reset:
            return f"a program is in state {sample.status} although this one has ended"
        cooled_s = lab_time - ended_at
        if cooled_s > self._settings.max_cooling_s:
            return f"still {sample.temperature:.0f} degC after {cooled_s:.0f} s"
        return None


def limit_contradictions(
    limits: FurnaceLimits, setpoint_high_degc: float, alarm_1_degc: float
) -> list[str]:
    """Return where the lab's limit, the setpoint limit and alarm 1 do not rise."""
    high = limits.temperature_degc[1]
    found = []
    if high > setpoint_high_degc:
        found.append(
            f"limits.temperature_degc allows {high:g} degC, but the controller's "
            f"own setpoint_high_degc is {setpoint_high_degc:g}; lower the limit"
        )
    if setpoint_high_degc >= alarm_1_degc:
        found.append(
            f"alarm_1_degc is {alarm_1_degc:g}, which must be over setpoint_high_degc "
            f"({setpoint_high_degc:g}) to warn of overshoot; raise the alarm"
        )
    return found


def segment_faults(
    segments: tuple[Segment, ...],
    limits: FurnaceLimits,
    *,
    unit_s: float,
    unit: str,
    most_units: int,
) -> list[str]:
    """Return what the lab or the controller does not allow about *segments*.

    Args:
        segments: The segments.
        limits: What the lab allows.
        unit_s: Unit in which the controller counts dwells [s].
        unit: What it is called.
        most_units: The longest dwell it can count.
    """
    faults = []
    low, high = limits.temperature_degc
    slowest, fastest = limits.ramp_degc_per_min
    for number, segment in enumerate(segments, 1):
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
        if not 0 <= n_units <= most_units or abs(n_units - round(n_units)) > 1e-6:
            faults.append(
                f"{where}: a dwell of {segment.dwell_s:g} s, allowed are whole "
                f"{unit}s from 0 to {most_units}"
            )
    faults.extend(
        f"segment {number}: {after.target_degc:g} degC is where segment "
        f"{number - 1} ends, so its dwell could not be told apart; make them one"
        for number, (before, after) in enumerate(pairwise(segments), 2)
        if abs(after.target_degc - before.target_degc) < 0.1
    )
    return faults


def expected_duration_s(
    profile: FiringProfile, cooling_time_constant_s: float
) -> float:
    """Return how long *profile* will take, cooling included [s]."""
    temperature = 25.0
    total = 0.0
    for segment in profile.segments:
        rise = abs(segment.target_degc - temperature)
        total += rise / segment.ramp_degc_per_min * 60 + segment.dwell_s
        temperature = segment.target_degc
    excess = max(temperature - 25.0, 1.0)
    left = max(profile.cool_to_degc - 25.0, 1.0)
    return total + cooling_time_constant_s * max(math.log(excess / left), 0.0)


# -- setting ---------------------------------------------------------------------------


async def compare_settings(
    name: str, wanted: Iterable[tuple[str, SignalR[Any], Any]]
) -> None:
    """Refuse to heat with a controller that is not set as the lab file says.

    Args:
        name: Name of the device.
        wanted: What each setting is called, where it is, and what it must be.

    Raises:
        ConfigurationError: With everything that differs.
    """
    faults = []
    for label, signal, expected in wanted:
        actual = await signal.get_value()
        if isinstance(expected, str):
            is_equal = actual.value == expected
        else:
            is_equal = abs(actual - expected) < 0.05
        if not is_equal:
            faults.append(f"{label} is {actual}, the lab file says {expected}")
    if faults:
        raise ConfigurationError(
            f"{name}: the controller is not set as the lab file says, so it "
            "may not heat: " + "; ".join(faults)
        )


async def set_if_different(name: str, signal: SignalRW[Any], value: Any) -> None:
    """Write *value* only if it is not there yet, and read it back.

    Raises:
        InstrumentError: If it reads back as something else.
    """
    if await signal.get_value() == value:
        return
    await signal.set(value)
    actual = await signal.get_value()
    if actual != value:
        raise InstrumentError(
            f"{name}: {signal.name} was set to {value} but reads {actual}"
        )


# -- stopping --------------------------------------------------------------------------


async def insist(
    act: Callable[[], Awaitable[Any]], shows: SignalR[Any], value: Any
) -> str:
    """Act until *shows* reads *value*; return what went wrong, if it never did.

    Only for what is harmless to repeat. The next act must be tried whatever becomes of
    this one, so nothing is raised.
    """
    trouble = ""
    for _ in range(_N_INSISTENT_ACTS):
        try:
            await act()
            actual = await shows.get_value()
        except (PPUError, TimeoutError) as exc:
            trouble = f"{shows.name}: {exc}"
        else:
            if actual == value:
                return ""
            trouble = f"{shows.name} was set to {value} but reads {actual}"
    return trouble


@dataclass(frozen=True)
class HeaterSwitch:
    """What takes the power off a furnace, and shows that it is off.

    Args:
        name: Name of the device.
        reset_program: Asks for the program to be reset.
        program_status: Shows the state of the program.
        reset: What it shows when no program is under way.
        loop_mode: By hand or automatic.
        manual_output: Output by hand [%].
        working_output: Present output [%].
        target_setpoint: Where automatic goes without a program [degC].
        setpoint_rate: How fast it goes there [degC/min].
        idle_degc: Where it must be set to go.
    """

    name: str
    reset_program: Callable[[], Awaitable[Any]]
    program_status: SignalR[Any]
    reset: StrictEnum
    loop_mode: SignalRW[LoopMode]
    manual_output: SignalRW[float]
    working_output: SignalR[float]
    target_setpoint: SignalR[float]
    setpoint_rate: SignalRW[float]
    idle_degc: float

    async def _insist_on(self, signal: SignalRW[Any], value: Any) -> str:
        async def write() -> None:
            await signal.set(value)

        return await insist(write, signal, value)

    async def _insist_on_reset(self) -> str:
        return await insist(self.reset_program, self.program_status, self.reset)

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

    async def switch_off(self) -> None:
        """Reset the program, set the output to 0 % by hand, and see that it is.

        Raises:
            InstrumentError: If the controller did not do so within seconds; everything
                was tried.
        """
        troubles = [await self._insist_on_reset()]
        # First the power, then by hand: never by hand at the last power.
        troubles.append(await self._insist_on(self.manual_output, 0.0))
        troubles.append(await self._insist_on(self.loop_mode, LoopMode.MANUAL))
        troubles.append(await self._insist_on(self.manual_output, 0.0))
        if troubles[-1] and not troubles[2]:
            # By hand at an unknown power is worse than automatic at the idle setpoint.
            troubles.append(await self._insist_on(self.loop_mode, LoopMode.AUTO))
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

    async def ramp_down(self, rate_degc_per_min: float) -> str:
        """Reset the program and follow the setpoint rate down to the idle setpoint.

        Returns:
            What was done and seen, for a person.

        Raises:
            InstrumentError: If the controller did not do so; everything was tried.
        """
        rate = rate_degc_per_min
        troubles = [
            await self._insist_on(self.setpoint_rate, round(rate, 1)),
            await self._insist_on_reset(),
        ]
        if await self.loop_mode.get_value() is not LoopMode.AUTO:
            troubles.append(await self._insist_on(self.manual_output, 0.0))
            # Automatic goes on from the power it finds.
            troubles.append(await self._wait_for_no_power())
            troubles.append(await self._insist_on(self.loop_mode, LoopMode.AUTO))
        status = await self.program_status.get_value()
        mode = await self.loop_mode.get_value()
        target = await self.target_setpoint.get_value()
        told = "; ".join(trouble for trouble in troubles if trouble)
        if (
            status != self.reset
            or mode is not LoopMode.AUTO
            or target > self.idle_degc + 0.05
        ):
            raise InstrumentError(
                f"{self.name}: asked to ramp down but it is in {status.value}, "
                f"{mode.value}, with target {target:g} degC; switch it off at the "
                f"wall. {told}".rstrip()
            )
        manner = f"at {rate:g} degC/min" if not troubles[0] else "at its own rate"
        return f"{self.name}: ramping down {manner} to {target:g} degC, verified"


# -- the firing ------------------------------------------------------------------------


class Firing:
    """The firings of one furnace, one after the other: sampled, judged, recorded.

    Args:
        name: Name of the device.
        settings: What is known of the furnace.
        high_degc: The highest temperature that the lab allows.
        read: Takes one sample from the controller.
        heater: Takes the power off.
        columns: Signals whose values are sampled, by column.
    """

    def __init__(
        self,
        name: str,
        settings: FiringSettings,
        high_degc: float,
        read: Callable[[], Awaitable[Sample]],
        heater: HeaterSwitch,
        columns: Mapping[str, SignalR[float]],
    ) -> None:
        self._name = name
        self._settings = settings
        self._high_degc = high_degc
        self._read = read
        self._heater = heater
        self._columns = columns
        self._prepared: FiringProfile | None = None
        self._is_ours = False
        """Whether this driver started what the controller does."""
        self.must_be_off = False
        """Whether a fault was found that does not allow any more heating."""
        self.samples = Samples.none()
        self.task: asyncio.Task[FiringRecord] | None = None
        self.last: FiringRecord | None = None

    # -- before ----------------------------------------------------------------------

    def forget_prepared(self) -> None:
        """Take back what was prepared."""
        self._prepared = None

    def check_complete(self) -> None:
        """Refuse to begin while the last firing has not cooled yet.

        Raises:
            InterlockError: If so.
        """
        if self.task is not None and not self.task.done():
            raise InterlockError(f"{self._name}: the last firing is not complete yet")

    def set_prepared(self, profile: FiringProfile) -> None:
        """Take note that *profile* is loaded."""
        self._prepared = profile

    def take_prepared(self) -> FiringProfile:
        """Return what was prepared, once.

        Raises:
            InstrumentError: If nothing was.
        """
        profile, self._prepared = self._prepared, None
        if profile is None:
            raise InstrumentError(f"{self._name}: no program is loaded")
        return profile

    # -- during ----------------------------------------------------------------------

    async def run(
        self,
        profile: FiringProfile,
        start: Callable[[], Awaitable[Any]],
        is_running: Callable[[], Awaitable[bool]],
    ) -> None:
        """Start the program, and the sampling.

        Raises:
            InstrumentError: If the program does not start.
        """
        self._is_ours = True  # also if the answer to the start is lost
        self.must_be_off = False
        await start()
        loop = running_loop()
        deadline = loop.time() + _START_DEADLINE_S
        while not await is_running():
            if loop.time() > deadline:
                raise InstrumentError(f"{self._name}: the program did not start")
            await asyncio.sleep(1.0)
        self.samples = Samples.none()
        self.task = loop.create_task(self._sample(profile))

    async def wait(self) -> None:
        """Wait until the program has ended and the chamber has cooled.

        Raises:
            InstrumentError: If the firing went wrong; the heater was switched off.
            TransportError: If the controller stayed unreachable for too long.
        """
        if self.task is None:
            raise InstrumentError(f"{self._name}: nothing was started")
        # The sampling must outlive a cancelled wait: an aborted plan still wants to
        # know how hot it is.
        self.last = await asyncio.shield(self.task)

    async def _sample(self, profile: FiringProfile) -> FiringRecord:
        """Sample until the chamber has cooled."""
        loop = running_loop()
        period = self._settings.sample_period_s
        started = loop.time()
        last_heard = started
        watch = FiringWatch(profile, self._settings, self._high_degc)
        hottest = -math.inf
        at_top: list[float] = []
        n_samples = 0
        while True:
            try:
                sample = await self._read()
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self._settings.max_silence_s:
                    raise
            else:
                last_heard = loop.time()
                n_samples += 1
                self.samples.take(sample, loop.stamp())
                hottest = max(hottest, sample.temperature)
                if sample.is_running and watch.is_at_top(sample):
                    at_top.append(sample.temperature)
                fault = watch.see(last_heard, sample)
                if fault is not None:
                    raise InstrumentError(
                        f"{self._name}: {fault}; {await self._switch_off_after_fault()}"
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

    async def _switch_off_after_fault(self) -> str:
        """Switch off; return what came of it, for the error that tells the fault."""
        # Also if this fails or is cancelled: an abort must not heat on then.
        self.must_be_off = True
        try:
            await self._heater.switch_off()
        except PPUError as exc:
            return f"the heater could NOT be switched off: {exc}"
        return "the heater is off"

    # -- documents -------------------------------------------------------------------

    async def describe(self) -> dict[str, DataKey]:
        """Describe the columns of the event pages."""
        described: dict[str, DataKey] = {}
        for signal in self._columns.values():
            described |= await signal.describe()
        return described

    async def pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was sampled since the last collection."""
        samples, self.samples = self.samples, Samples.none()
        if not samples.stamps:
            return
        keys = {column: signal.name for column, signal in self._columns.items()}
        yield PartialEventPage(
            data={key: getattr(samples, column) for column, key in keys.items()},
            timestamps=dict.fromkeys(keys.values(), samples.stamps),
            time=samples.stamps,
        )

    # -- after -----------------------------------------------------------------------

    async def go_to_abort_state(self, state: str) -> str:
        """Go to *state*: ``ramp_down``, ``heater_off`` or ``continue``.

        Returns:
            What was done and seen, for a person; nothing if what the controller does
            is not this plan's, or it does nothing.
        """
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if not self._is_ours:
            return ""
        heater = self._heater
        if self.must_be_off or state == "heater_off":
            await heater.switch_off()
            said = f"{self._name}: heater off, verified (by hand, 0 %)"
        elif state == "continue":
            status = await heater.program_status.get_value()
            said = f"{self._name}: left alone, its program is in state {status.value}"
        else:
            said = await heater.ramp_down(self._settings.ramp_down_degc_per_min)
        self._is_ours = False
        return said
