"""What drivers of furnace controllers with a programmer of their own share.

The controller runs the firing; the driver samples it, judges every sample, and takes
the power off when something is wrong. Each part is handed what it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any, Final

from event_model import DataKey, PartialEventPage
from ophyd_async.core import StrictEnum
from pydantic import BaseModel, ConfigDict, Field

from ppu.core.capabilities import (
    FiringProfile,
    FiringRecord,
    FiringUnderWay,
    Segment,
)
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    InterlockError,
    InternalError,
    LimitError,
    MalformedReply,
    NothingToJoinError,
    PPUError,
    TransportError,
)
from ppu.core.labfile import LimitPair
from ppu.core.labtime import running_loop
from ppu.devices.signals import SignalR, SignalRW, write
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
    "ProgramSettings",
    "Sample",
    "apply_settings",
    "compare_settings",
    "earlier_samples",
    "expected_duration_s",
    "find_changed",
    "insist",
    "is_over",
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
    is_program_running: list[bool]

    @classmethod
    def none(cls) -> Samples:
        """Return no samples."""
        return cls([], [], [], [], [])

    def take(self, sample: Sample, stamp: float) -> None:
        """Append one sample, taken at the UTC stamp *stamp* [s since 1970]."""
        self.stamps.append(stamp)
        self.process_value.append(sample.temperature)
        self.working_setpoint.append(sample.setpoint)
        self.working_output.append(sample.output)
        self.is_program_running.append(sample.is_running)


def earlier_samples(
    columns: Mapping[str, Sequence[float]], keys: Mapping[str, str]
) -> list[tuple[float, Sample]]:
    """Return samples of before with their UTC stamps, from the columns of documents.

    Args:
        columns: Columns by data key.
        keys: Data key of each column of :class:`Samples`.

    Raises:
        InternalError: If they are not the columns of this furnace.
    """
    stamps = columns.get("time", ())
    if not stamps:
        return []
    needed = {column: columns.get(key, ()) for column, key in keys.items()}
    if any(len(values) != len(stamps) for values in needed.values()):
        counts = {keys[column]: len(values) for column, values in needed.items()}
        raise InternalError(
            f"earlier samples of a firing: {len(stamps)} times, but values are {counts}"
        )
    found = []
    for index, stamp in enumerate(stamps):
        is_running = bool(needed["is_program_running"][index])
        sample = Sample(
            temperature=needed["process_value"][index],
            setpoint=needed["working_setpoint"][index],
            output=needed["working_output"][index],
            status="run" if is_running else "reset",
            is_running=is_running,
            is_held=False,
            is_reset=not is_running,
        )
        found.append((stamp, sample))
    return found


# -- judging ---------------------------------------------------------------------------


class DwellWatch:
    """Compares each dwell with what was asked, whatever its registers' unit is.

    A dwell lasts from the sample at which the working setpoint reached the segment's
    target until the one at which it left it or the program ended. One of up to two
    sample periods may pass unseen; it counts as measured to be 0 s then. What
    happened while the controller could not be heard is not held against it, as far as
    there was time for it; a dwell that began or ended then counts as asked, as far as
    what was heard allows.

    Args:
        segments: What was asked.
        period_s: Time between two samples [s].
        is_from_start: Whether the first sample is taken when the program starts;
            otherwise anything may have happened before.
    """

    def __init__(
        self,
        segments: tuple[Segment, ...],
        period_s: float,
        *,
        is_from_start: bool = True,
    ) -> None:
        self._segments = segments
        self._period = period_s
        self._index = 0
        self._since: float | None = None
        self._nearest_k = math.inf
        self._last_setpoint = math.nan
        self._heard_at: float | None = None
        self._is_lost = not is_from_start
        """Whether nobody knows how far the program had come when it was first seen."""
        self._unheard_s = 0.0 if is_from_start else math.inf
        self._just_unheard_s = self._unheard_s
        self._is_coming = False
        """Whether the setpoint was seen on its way to the present target."""
        self._unheard_at_begin_s = 0.0
        """How long nobody had heard when the dwell was first seen."""
        self._spent_s = 0.0
        """How much of the last silence what must have happened in it takes."""
        self.measured_s: list[float] = []

    def see(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        """Take one sample; return what is wrong, if anything is."""
        if self._heard_at is not None:
            missed_s = lab_time - self._heard_at - self._period
            # A sample that only comes late hides nothing.
            self._just_unheard_s = missed_s if missed_s > self._period / 2 else 0.0
            self._unheard_s += self._just_unheard_s
        self._heard_at = lab_time
        if self._just_unheard_s > 0 or self._unheard_s == 0:
            self._spent_s = 0.0
        seen = -1
        while seen < self._index < len(self._segments):
            # A sample that ends one segment may belong to the next.
            seen = self._index
            fault = self._follow(lab_time, setpoint, is_running)
            if fault is not None:
                return fault
        while not is_running and self._index < len(self._segments):
            segment = self._segments[self._index]
            if not self._has_passed(segment):
                return f"the program ended before {segment.target_degc:g} degC"
        return None

    def _has_passed(self, segment: Segment) -> bool:
        """Return whether it can have begun and ended unseen, and go on if so."""
        ramp_s = max(self._nearest_k - 0.1, 0.0) / segment.ramp_degc_per_min * 60
        needs_s = 0.98 * (ramp_s + segment.dwell_s)  # no two clocks are the same
        if not self._is_lost:
            # One silence has room for all that must have happened in it, not for each.
            if self._spent_s + needs_s > 2 * self._period + self._unheard_s:
                return False
            self._spent_s += needs_s
        unheard_s = self._unheard_s
        self._go_on(segment.dwell_s if unheard_s > 0 else 0.0)
        # Perhaps it shows only now what happened in a silence before.
        self._unheard_s = max(self._unheard_s, unheard_s)
        return True

    def _go_on(self, lasted: float) -> None:
        self.measured_s.append(lasted)
        left_degc = self._segments[self._index].target_degc
        self._index += 1
        self._since = None
        self._is_coming = False
        if self._index < len(self._segments):
            self._nearest_k = abs(self._segments[self._index].target_degc - left_degc)
        # The next segment began while nobody heard, if anything did.
        self._unheard_s = math.inf if self._is_lost else self._just_unheard_s

    def _slack_s(self, segment: Segment) -> float:
        """Return how far a right dwell may be from what was asked [s]."""
        # A slow setpoint reads as its target before it is there and after it left.
        ramps = [s.ramp_degc_per_min for s in self._segments[self._index :][:2]]
        blur_s = sum(_NEAR_K / rate * 60 for rate in ramps)
        return 2 * self._period + blur_s + 0.02 * segment.dwell_s

    def _follow(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        segment = self._segments[self._index]
        is_there = is_running and abs(setpoint - segment.target_degc) < _NEAR_K
        if self._since is None:
            if is_there:
                self._since = lab_time
                self._unheard_at_begin_s = self._just_unheard_s
                if not self._is_coming:
                    self._unheard_at_begin_s = self._unheard_s
            elif is_running:
                return self._approach(segment, setpoint)
            return None
        asked, slack = segment.dwell_s, self._slack_s(segment)
        most = lab_time - self._since + self._unheard_at_begin_s
        least = lab_time - self._since
        if not is_there:
            least -= self._just_unheard_s
        is_too_long = least > asked + slack
        if is_there and not is_too_long:
            return None
        lasted = min(max(asked, least), most)
        self._spent_s += max(asked - least - slack, 0.0)
        if self._unheard_at_begin_s <= 2 * self._period:
            self._is_lost = False  # it was seen from its begin to its end
        self._go_on(lasted)
        if is_too_long or most < asked - slack:
            manner = "still dwells after" if is_there else "dwelt for"
            return (
                f"the controller {manner} {lasted:.0f} s at {segment.target_degc:g} "
                f"degC, asked were {asked:.0f} s; is dwell_unit right?"
            )
        return None

    def _approach(self, segment: Segment, setpoint: float) -> str | None:
        """Follow the setpoint on its way to a target it was not seen at yet."""
        gap_k = abs(setpoint - segment.target_degc)
        has_turned = gap_k > self._nearest_k + _NEAR_K
        stands_still = abs(gap_k - self._nearest_k) < _NEAR_K
        # A silence may hide several segments.
        n_ahead = len(self._segments) if self._unheard_s > 0 else 1
        following = self._segments[self._index + 1 :][:n_ahead]
        dwells_at_next = stands_still and any(
            abs(setpoint - after.target_degc) < _NEAR_K for after in following
        )
        if (has_turned or dwells_at_next) and self._has_passed(segment):
            return None
        if has_turned:
            target = segment.target_degc
            if (setpoint - target) * (self._last_setpoint - target) < 0:
                return (
                    f"the setpoint went past {target:g} degC; somebody changed the "
                    "program"
                )
            return f"the setpoint turned round before {target:g} degC"
        self._last_setpoint = setpoint
        self._is_coming = gap_k < self._nearest_k < math.inf
        self._nearest_k = min(self._nearest_k, gap_k)
        return None


class FiringWatch:
    """Judges each sample of a firing: may it go on?

    Args:
        profile: What was asked.
        settings: What is known of the furnace.
        high_degc: The highest temperature that the lab allows.
        is_from_start: Whether the first sample is taken when the program starts.
    """

    def __init__(
        self,
        profile: FiringProfile,
        settings: FiringSettings,
        high_degc: float,
        *,
        is_from_start: bool = True,
    ) -> None:
        self._settings = settings
        self._high = high_degc
        self._highest_setpoint = max(s.target_degc for s in profile.segments)
        self._has_begun = False
        self._dwells = DwellWatch(
            profile.segments, settings.sample_period_s, is_from_start=is_from_start
        )
        self._heating = HeatingWatch(
            settings.sample_period_s, settings.full_power_degc_per_min
        )
        self._ended_at: float | None = None

    def forget_heat(self) -> None:
        """Judge heat and power anew: there was a time without samples."""
        self._heating.forget()

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
        if is_over(sample.temperature, self._high):
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


def is_over(temperature: float, high_degc: float) -> bool:
    """Return whether *temperature* is over a limit by more than overshoot [degC]."""
    return temperature > 1.02 * high_degc


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
    await write(signal, value)
    actual = await signal.get_value()
    if actual != value:
        raise InstrumentError(
            f"{name}: {signal.name} was set to {value} but reads {actual}"
        )


ProgramSettings = Sequence[tuple[SignalRW[Any], Any]]
"""What a controller is set to for a firing, beside the program itself."""


async def apply_settings(name: str, wanted: ProgramSettings) -> None:
    """Write what is not there yet, and read it back.

    Raises:
        InstrumentError: If something reads back as something else.
    """
    for signal, value in wanted:
        await set_if_different(name, signal, value)


async def find_changed(
    wanted: ProgramSettings, compare: Callable[[], Awaitable[None]]
) -> list[str]:
    """Return what was set to something else since it was set for a firing.

    Args:
        wanted: What the controller was set to.
        compare: Refuses a firing, a setting or a program that is not what it should be.
    """
    found = []
    for signal, value in wanted:
        actual = await signal.get_value()
        if actual != value:
            found.append(f"{signal.name} is {actual}, the firing had set it to {value}")
    try:
        await compare()
    except (LimitError, ConfigurationError) as exc:
        found.append(str(exc))
    except InstrumentError as exc:
        found.append(f"another program is loaded ({exc})")
    return found


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
        return await insist(partial(write, signal, value), signal, value)

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


@dataclass(frozen=True)
class Prepared:
    """What the next kickoff is for."""

    profile: FiringProfile
    earlier: list[tuple[float, Sample]] | None = None
    """Samples of before, with their UTC stamps, of a program that is under way; None
    if it shall be started."""

    @property
    def is_under_way(self) -> bool:
        """Whether nothing must be started any more."""
        return self.earlier is not None


@dataclass
class Course:
    """How a firing went so far.

    Args:
        watch: Judges the samples.
        cool_to_degc: When it is complete.
        started: Lab time of the start [s].
    """

    watch: FiringWatch
    cool_to_degc: float
    started: float
    _last: float = 0.0
    _hottest: float = -math.inf
    _at_top: list[float] = field(default_factory=list)
    _n_samples: int = 0
    is_complete: bool = False
    """Whether it has ended and cooled."""

    def see(self, lab_time: float, sample: Sample) -> str | None:
        """Take one sample; return why the firing must not go on, if it must not."""
        self._last = lab_time
        self._n_samples += 1
        self._hottest = max(self._hottest, sample.temperature)
        if sample.is_running and self.watch.is_at_top(sample):
            self._at_top.append(sample.temperature)
        fault = self.watch.see(lab_time, sample)
        has_cooled = sample.temperature <= self.cool_to_degc
        self.is_complete = fault is None and self.watch.has_ended and has_cooled
        return fault

    def record(self, epoch: float) -> FiringRecord:
        """Return what was measured; *epoch* is the stamp of lab time 0."""
        return FiringRecord(
            started_s=epoch + self.started,
            duration_s=self._last - self.started,
            max_temperature_degc=self._hottest,
            dwell_temperature_degc=fmean(self._at_top) if self._at_top else None,
            dwell_s=tuple(self.watch.measured_s),
            n_samples=self._n_samples,
        )


def _may_heat(sample: Sample, is_by_hand: bool) -> bool:
    """Return whether a program or somebody's hand may heat."""
    return not sample.is_reset or (is_by_hand and sample.output > 0)


def _is_off(sample: Sample, is_by_hand: bool) -> bool:
    """Return whether the heater is switched off for good."""
    return is_by_hand and sample.is_reset and sample.output <= 0


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
        self._prepared: Prepared | None = None
        self._profile: FiringProfile | None = None
        self._is_ours = False
        """Whether this driver started or joined what the controller does."""
        self._is_adopted = False
        """Whether what it does, if anything, is to be taken for ours in an abort."""
        self._stopped_because = ""
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

    def is_going_on(self, profile: FiringProfile) -> bool:
        """Return whether this driver samples a firing along *profile* already.

        Then the next kickoff joins that: whoever waited for it before has left.

        Raises:
            InterlockError: If it samples another one.
        """
        if self.task is None or self.task.done():
            return False
        if profile != self._profile:
            self.check_complete()
        self._prepared = Prepared(profile, [])
        return True

    def set_prepared(self, profile: FiringProfile) -> None:
        """Take note that *profile* is loaded, so the controller is idle."""
        self._is_adopted = False
        self._prepared = Prepared(profile)

    async def look_for(self, under_way: FiringUnderWay, changed: list[str]) -> Sample:
        """See that *under_way* goes on or has ended; nothing is written.

        From then on it counts as what this driver started.

        Args:
            under_way: What a process that died had begun.
            changed: What the controller is set to that the firing had set otherwise.

        Returns:
            How it is now.

        Raises:
            NothingToJoinError: If it is not there, or must not be gone on with.
        """
        loop = running_loop()
        earlier = earlier_samples(under_way.samples, self._keys())
        sample = await self._read()
        seen = [self._unfit(sample)]
        if sample.is_held:
            seen.append("its program is on hold")
        elif sample.is_reset and not any(before.is_running for _, before in earlier):
            seen.append("no program runs, and no sample shows that one had begun")
        elif not (sample.is_running or sample.is_reset):
            seen.append(f"its program is in state {sample.status}")
        elif changed:
            seen.append(f"it is not as the firing left it: {'; '.join(changed)}")
        if earlier and earlier[-1][0] > loop.stamp() + self._settings.sample_period_s:
            seen.append("its last sample lies in the future; was the clock set back?")
        if any(seen):
            raise NothingToJoinError(
                f"{self._name}: the firing cannot be joined at "
                f"{sample.temperature:.0f} degC: {'; '.join(filter(None, seen))}"
            )
        self._is_ours = True
        self._is_adopted = False
        self.must_be_off = False
        self._prepared = Prepared(under_way.profile, earlier)
        return sample

    def _unfit(self, sample: Sample) -> str:
        """Return why nothing may heat at all, nothing if it may."""
        if not sample.complaint and is_over(sample.temperature, self._high_degc):
            return (
                f"{sample.temperature:.1f} degC is over the limit of "
                f"{self._high_degc:g}"
            )
        return sample.complaint

    def take_prepared(self) -> Prepared:
        """Return what was prepared, once.

        Raises:
            InstrumentError: If nothing was.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise InstrumentError(f"{self._name}: no program is loaded")
        return prepared

    # -- during ----------------------------------------------------------------------

    async def run(
        self,
        profile: FiringProfile,
        start: Callable[[], Awaitable[Any]],
        is_running: Callable[[], Awaitable[bool]],
    ) -> None:
        """Start the program, and the sampling; the first sample is taken at once.

        So there is something that shows that the program had begun.

        Raises:
            InstrumentError: If the program does not start.
        """
        self._is_ours = True  # also if the answer to the start is lost
        self.must_be_off = False
        self._stopped_because = ""
        await start()
        loop = running_loop()
        deadline = loop.time() + _START_DEADLINE_S
        while not await is_running():
            if loop.time() > deadline:
                raise InstrumentError(f"{self._name}: the program did not start")
            await asyncio.sleep(1.0)
        self.samples = Samples.none()
        first: Sample | None = None
        with contextlib.suppress(TransportError, MalformedReply):
            first = await self._read()
        if first is not None:
            self.samples.take(first, loop.stamp())
        # The start is that of the first sample, so that whoever joins knows it, too.
        course = self._course(profile, loop.time(), is_from_start=True)
        self.task = loop.create_task(self._sample(course, first))

    def join(self, prepared: Prepared) -> None:
        """Begin to sample what goes on already, or go on with that."""
        if self.task is not None and not self.task.done():
            return
        loop = running_loop()
        self._stopped_because = ""
        earlier = prepared.earlier or []
        started = earlier[0][0] - loop.epoch if earlier else loop.time()
        self.samples = Samples.none()
        course = self._course(prepared.profile, started, is_from_start=bool(earlier))
        self.task = loop.create_task(self._resume(course, earlier))

    def _course(
        self, profile: FiringProfile, started: float, *, is_from_start: bool
    ) -> Course:
        self._profile = profile
        watch = FiringWatch(
            profile, self._settings, self._high_degc, is_from_start=is_from_start
        )
        return Course(watch, profile.cool_to_degc, started)

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

    async def _resume(
        self, course: Course, earlier: list[tuple[float, Sample]]
    ) -> FiringRecord:
        """Sample on from where the samples of before end."""
        epoch = running_loop().epoch
        for stamp, sample in earlier:
            await self._judge(course, stamp - epoch, sample)
            if course.is_complete:  # the process died before it could say so
                self._is_ours = False
                return course.record(epoch)
        # Nobody knows what the output was since.
        course.watch.forget_heat()
        return await self._sample(course)

    async def _sample(
        self, course: Course, first: Sample | None = None
    ) -> FiringRecord:
        """Sample until the chamber has cooled.

        Args:
            course: How it went so far.
            first: A sample that was taken just now, and kept.
        """
        loop = running_loop()
        period = self._settings.sample_period_s
        last_heard = loop.time()
        sample = first
        while True:
            if sample is None:
                try:
                    sample = await self._read()
                except (TransportError, MalformedReply):
                    if loop.time() - last_heard > self._settings.max_silence_s:
                        raise
                else:
                    last_heard = loop.time()
                    self.samples.take(sample, loop.stamp())
            if sample is not None:
                await self._judge(course, last_heard, sample)
                sample = None
            if course.is_complete:
                self._is_ours = False
                return course.record(loop.epoch)
            elapsed = loop.time() - course.started
            due = course.started + (math.floor(elapsed / period + 1e-9) + 1) * period
            await asyncio.sleep(due - loop.time())

    async def _judge(self, course: Course, lab_time: float, sample: Sample) -> None:
        """Let *sample* count.

        Raises:
            InstrumentError: If the firing must not go on; the heater was switched off.
        """
        if self._stopped_because:
            raise InstrumentError(f"{self._name}: {self._stopped_because}")
        fault = course.see(lab_time, sample)
        if fault is not None:
            raise InstrumentError(
                f"{self._name}: {fault}; {await self._switch_off_after_fault()}"
            )

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
        # No register says just this, but who goes on from these samples must know.
        described[self._keys()["is_program_running"]] = DataKey(
            source="program status", dtype="boolean", shape=[]
        )
        return described

    def _keys(self) -> dict[str, str]:
        """Return the data key of each column."""
        keys = {column: signal.name for column, signal in self._columns.items()}
        return keys | {"is_program_running": f"{self._name}_is_program_running"}

    async def pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was sampled since the last collection."""
        samples, self.samples = self.samples, Samples.none()
        if not samples.stamps:
            return
        keys = self._keys()
        yield PartialEventPage(
            data={key: getattr(samples, column) for column, key in keys.items()},
            timestamps=dict.fromkeys(keys.values(), samples.stamps),
            time=samples.stamps,
        )

    # -- after -----------------------------------------------------------------------

    def adopt(self) -> None:
        """Let the next abort make safe whatever heats, though it was not joined."""
        self._is_adopted = True

    async def go_to_abort_state(self, state: str) -> str:
        """End the sampling, and go to *state* if the controller does our program.

        If it was adopted, whatever heats is taken for ours; with a sensor that is not
        fine, or over the limit, the heater is switched off in any case then.

        Returns:
            What was done and seen, for a person; nothing if what the controller does
            is not this plan's, or it does nothing.
        """
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if not self._is_ours and self._is_adopted:
            sample, is_by_hand = await self._look()
            if self._unfit(sample) and not _is_off(sample, is_by_hand):
                self.must_be_off = self._is_ours = True
            elif _may_heat(sample, is_by_hand):
                self._is_ours = True
        if not self._is_ours:
            self._is_adopted = False
            return ""
        said = await self._bring_to(state)
        self._is_ours = self._is_adopted = False
        return said

    async def go_to_hold_state(self, state: str | None) -> str:
        """Go to *state* if there is one and the controller does our program.

        A program that is not left running makes the firing fail.

        Returns:
            What was done and seen, for a person; nothing if there was nothing to do.
        """
        if state is None or not self._is_ours:
            return ""
        if state == "continue":
            return await self._bring_to(state)
        self._stopped_because = f"its job was put on hold, so it went to {state}"
        said = await self._bring_to(state)
        self._is_ours = False
        return said

    async def go_to_orphan_state(self, state: str) -> str:
        """Go to *state* if something heats that nobody in this process began.

        With a sensor that is not fine, or over the limit, the heater is switched off
        in any case.

        Returns:
            What is done and seen, for a person; nothing if nothing heats.
        """
        if self.task is not None and not self.task.done():
            return ""  # somebody sees to it
        sample, is_by_hand = await self._look()
        unfit = self._unfit(sample)
        if unfit:
            if not _is_off(sample, is_by_hand):
                await self._heater.switch_off()
            return f"{self._name}: {unfit}; heater off, verified (by hand, 0 %)"
        if not _may_heat(sample, is_by_hand):
            return ""
        said = await self._bring_to(state)
        return f"{said}, at {sample.temperature:.0f} degC"

    async def _look(self) -> tuple[Sample, bool]:
        """Take one sample; return it, and whether the output is set by hand."""
        sample = await self._read()
        mode = await self._heater.loop_mode.get_value()
        return sample, mode is LoopMode.MANUAL

    async def _bring_to(self, state: str) -> str:
        """Go to *state*: ``ramp_down``, ``heater_off`` or ``continue``."""
        heater = self._heater
        if self.must_be_off or state == "heater_off":
            await heater.switch_off()
            return f"{self._name}: heater off, verified (by hand, 0 %)"
        if state == "continue":
            status = await heater.program_status.get_value()
            return f"{self._name}: left alone, its program is in state {status.value}"
        return await heater.ramp_down(self._settings.ramp_down_degc_per_min)
