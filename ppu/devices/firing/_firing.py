"""The firings of one furnace: prepared, sampled, judged, documented, made safe."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from event_model import DataKey, PartialEventPage

from ppu.core.capabilities import FiringProfile, FiringRecord, FiringUnderWay
from ppu.core.errors import (
    InstrumentError,
    InterlockError,
    MalformedReply,
    NothingToJoinError,
    PPUError,
    TransportError,
)
from ppu.core.labtime import running_loop
from ppu.devices.firing._course import Course, Prepared
from ppu.devices.firing._dwells import setpoint_tolerance_k
from ppu.devices.firing._heater import HeaterSwitch, LoopMode
from ppu.devices.firing._samples import Sample, Samples, samples_from_columns
from ppu.devices.firing._settings import FiringSettings, is_over_limit
from ppu.devices.firing._watch import FiringWatch
from ppu.devices.signals import SignalR, record

__all__ = ["Firing"]

_START_DEADLINE_S: Final = 30.0


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
        self.resolution_k = 0.1
        """In which steps the controller tells temperatures."""
        self.samples = Samples.empty()
        self.task: asyncio.Task[FiringRecord] | None = None
        self.last_record: FiringRecord | None = None
        self._heard = asyncio.Event()
        self._latest: Sample | None = None

    # -- before ----------------------------------------------------------------------

    @property
    def is_acting(self) -> bool:
        """Whether what was started or joined has not ended and cooled."""
        return self._is_ours

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

    def prepare_joining(self, profile: FiringProfile) -> bool:
        """Let the next kickoff join a firing along *profile* that is being sampled.

        Whoever waited for it before has left.

        Returns:
            Whether this driver samples such a firing.

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

    async def find_under_way(
        self, under_way: FiringUnderWay, changed: list[str]
    ) -> Sample:
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
        earlier = samples_from_columns(under_way.samples, self._keys())
        sample = await self._take_sample()
        seen = [self._why_not_to_heat(sample)]
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

    def _why_not_to_heat(self, sample: Sample) -> str:
        """Return why nothing may heat at all, nothing if it may."""
        if not sample.complaint and is_over_limit(sample.temperature, self._high_degc):
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

    async def _take_sample(self) -> Sample:
        """Take a sample; whoever watches the signals hears it, too."""
        sample = await self._read()
        heard = (sample.temperature, sample.setpoint, sample.output)
        for signal, value in zip(self._columns.values(), heard, strict=True):
            record(signal, value, sample.complaint)
        self._latest = sample
        self._heard.set()
        return sample

    # -- during ----------------------------------------------------------------------

    async def start(
        self,
        profile: FiringProfile,
        start_program: Callable[[], Awaitable[Any]],
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
        await start_program()
        loop = running_loop()
        deadline = loop.time() + _START_DEADLINE_S
        is_late = False
        while not await is_running():
            if is_late:
                raise InstrumentError(f"{self._name}: the program did not start")
            await asyncio.sleep(1.0)
            is_late = loop.time() > deadline
        self.samples = Samples.empty()
        self._latest = None  # what was heard of another firing tells nothing of this
        first: Sample | None = None
        with contextlib.suppress(TransportError, MalformedReply):
            first = await self._take_sample()
        if first is not None:
            self.samples.append(first, loop.stamp())
        # The start is that of the first sample, so that whoever joins knows it, too.
        course = self._course(profile, loop.time(), is_from_start=True)
        self.task = loop.create_task(self._sample_until_cold(course, first))

    def join(self, prepared: Prepared) -> None:
        """Begin to sample what goes on already, or go on with that."""
        if self.task is not None and not self.task.done():
            return
        loop = running_loop()
        self._stopped_because = ""
        earlier = prepared.earlier or []
        started = earlier[0][0] - loop.epoch if earlier else loop.time()
        self.samples = Samples.empty()
        course = self._course(prepared.profile, started, is_from_start=bool(earlier))
        self.task = loop.create_task(self._sample_from_before(course, earlier))

    def _course(
        self, profile: FiringProfile, started: float, *, is_from_start: bool
    ) -> Course:
        self._profile = profile
        watch = FiringWatch(
            profile,
            self._settings,
            self._high_degc,
            is_from_start=is_from_start,
            resolution_k=self.resolution_k,
        )
        return Course(watch, profile.cool_to_degc, started)

    async def wait_until_cold(self) -> None:
        """Wait until the program has ended and the chamber has cooled.

        Raises:
            InstrumentError: If the firing went wrong; the heater was switched off.
            TransportError: If the controller stayed unreachable for too long.
        """
        if self.task is None:
            raise InstrumentError(f"{self._name}: nothing was started")
        # The sampling must outlive a cancelled wait: an aborted plan still wants to
        # know how hot it is.
        self.last_record = await asyncio.shield(self.task)

    async def wait_near(self, target_degc: float, within_k: float) -> None:
        """Wait until setpoint and chamber are at *target_degc*; the firing goes on.

        Raises:
            InterlockError: If another firing takes its place before.
            InstrumentError: If the firing goes wrong before; the heater is off then.
            TransportError: If the controller stayed unreachable for too long.
        """
        task = self.task
        if task is None:
            raise InstrumentError(f"{self._name}: nothing was started")
        tolerance_k = setpoint_tolerance_k(self.resolution_k)
        while not task.done():
            self._heard.clear()
            sample = self._latest
            if sample is not None and (
                abs(sample.setpoint - target_degc) < tolerance_k
                and abs(sample.temperature - target_degc) <= within_k
            ):
                return
            heard = asyncio.ensure_future(self._heard.wait())
            try:
                await asyncio.wait({heard, task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                heard.cancel()
        if task is not self.task:
            raise InterlockError(
                f"{self._name}: it was set to something else before it came to "
                f"{target_degc:g} degC"
            )
        await self.wait_until_cold()

    async def stop_sampling(self) -> None:
        """End the sampling of what goes on, which is about to be replaced."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _sample_from_before(
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
        course.watch.forget_readings()
        return await self._sample_until_cold(course)

    async def _sample_until_cold(
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
                    sample = await self._take_sample()
                except (TransportError, MalformedReply):
                    if loop.time() - last_heard > self._settings.max_silence_s:
                        raise
                else:
                    last_heard = loop.time()
                    self.samples.append(sample, loop.stamp())
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
        fault = course.judge(lab_time, sample)
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

    async def describe_columns(self) -> dict[str, DataKey]:
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

    async def collect_pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was sampled since the last collection."""
        samples, self.samples = self.samples, Samples.empty()
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
            sample, is_by_hand = await self._read_with_mode()
            if self._why_not_to_heat(sample) and not _is_off(sample, is_by_hand):
                self.must_be_off = self._is_ours = True
            elif _may_heat(sample, is_by_hand):
                self._is_ours = True
        if not self._is_ours:
            self._is_adopted = False
            return ""
        said = await self._go_to(state)
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
            return await self._go_to(state)
        self._stopped_because = f"its job was put on hold, so it went to {state}"
        said = await self._go_to(state)
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
        sample, is_by_hand = await self._read_with_mode()
        unfit = self._why_not_to_heat(sample)
        if unfit:
            if not _is_off(sample, is_by_hand):
                await self._heater.switch_off()
            return f"{self._name}: {unfit}; heater off, verified (by hand, 0 %)"
        if not _may_heat(sample, is_by_hand):
            return ""
        said = await self._go_to(state)
        return f"{said}, at {sample.temperature:.0f} degC"

    async def _read_with_mode(self) -> tuple[Sample, bool]:
        """Take one sample; return it, and whether the output is set by hand."""
        sample = await self._take_sample()
        mode = await self._heater.loop_mode.get_value()
        return sample, mode is LoopMode.MANUAL

    async def _go_to(self, state: str) -> str:
        """Go to *state*: ``ramp_down``, ``heater_off`` or ``continue``."""
        heater = self._heater
        if self.must_be_off or state == "heater_off":
            await heater.switch_off()
            return f"{self._name}: heater off, verified (by hand, 0 %)"
        if state == "continue":
            status = await heater.program_state.get_value()
            return f"{self._name}: left alone, its program is in state {status.value}"
        return await heater.ramp_down(self._settings.ramp_down_degc_per_min)
