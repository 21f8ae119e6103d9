"""The base of drivers whose controller runs a firing with a programmer of its own."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

from bluesky.protocols import Location
from event_model import DataKey, PartialEventPage
from ophyd_async.core import AsyncStatus, StrictEnum
from typing_extensions import override

from ppu.core.capabilities import (
    FiringProfile,
    FiringRecord,
    FiringUnderWay,
    Furnace,
    Segment,
)
from ppu.core.errors import InterlockError
from ppu.core.labfile import DeviceEntry
from ppu.core.specifications import (
    ROOM_DEGC,
    DwellUnit,
    FurnaceSpecification,
    ProgramRoom,
)
from ppu.core.tasks import BEGINS_WITHIN_K
from ppu.devices.firing._controller import (
    ProgramSettings,
    apply_settings,
    compare_settings,
    find_changed,
)
from ppu.devices.firing._firing import Firing
from ppu.devices.firing._heater import SAFE_TO_TOUCH_DEGC, HeaterSwitch, LoopMode
from ppu.devices.firing._samples import Sample
from ppu.devices.firing._settings import FiringSettings, FurnaceLimits
from ppu.devices.instrument import Instrument
from ppu.devices.signals import SignalR, SignalRW
from ppu.transports.link import Link

__all__ = ["ProgramStates", "ProgrammedFurnace"]

_SLOWEST_DEGC_PER_MIN: Final = 0.1


@dataclass(frozen=True)
class ProgramStates:
    """What the states of a controller's program mean.

    Args:
        running: The program runs.
        reset: No program is under way.
        ended: It has ended, and nothing needs to be waited for.
        held: It was stopped on its way.
    """

    running: StrictEnum
    reset: StrictEnum
    ended: StrictEnum
    held: tuple[StrictEnum, ...]


class ProgrammedFurnace(Instrument, Furnace):
    """A furnace whose controller runs the firing with its own programmer.

    A driver declares the signals below at its registers, states what the states of
    the program are, and fills the hooks: what is compared before anything may heat,
    what is set for a firing, how a program is written, started, reset and sampled.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        client: What the addresses of its signals read and write through.
        link: The path below the client.
        settings: What the driver must know of the furnace.
        limits: What the lab allows.
        idle_degc: Where the controller goes without a program [degC].
    """

    abort_states: ClassVar[Mapping[str, str]] = {
        "ramp_down": "reset the program and ramp to the idle setpoint",
        "heater_off": "reset the program and set the output to 0 % by hand",
        "continue": "leave the program running",
    }
    heats = True
    operations = (
        "prepare, kickoff and complete with a profile (in a protocol: `fire`), "
        "or `bps.mv(furnace, temperature_degc)`, which judge every sample"
    )
    program_states: ClassVar[ProgramStates]

    settings: FiringSettings
    limits: FurnaceLimits

    process_value: SignalR[float]
    """Temperature of the chamber [degC]."""
    target_setpoint: SignalR[float]
    """Where the loop goes without a program [degC]."""
    manual_output: SignalRW[float]
    """Output while it is set by hand [%]."""
    working_output: SignalR[float]
    """Present output [%]."""
    working_setpoint: SignalR[float]
    """Present setpoint [degC]."""
    setpoint_rate: SignalRW[float]
    """How fast the loop goes to its target [degC/min]."""
    loop_mode: SignalRW[LoopMode]
    """Who sets the output."""

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        client: Any,
        link: Link,
        settings: FiringSettings,
        limits: FurnaceLimits,
        *,
        idle_degc: float,
    ) -> None:
        super().__init__(name, entry, client, link)
        self.settings = settings
        self.limits = limits
        self._set_to: float | None = None
        """What a plan set it to, as long as it stays there [degC]."""
        self._beginning = asyncio.Lock()
        """Held while something is set up that nothing else must come between."""
        self._firing = Firing(
            name,
            settings,
            limits.temperature_degc[1],
            self._read_sample,
            HeaterSwitch(
                name=name,
                reset_program=self._reset_program,
                program_state=self._program_state,
                reset=self.program_states.reset,
                loop_mode=self.loop_mode,
                manual_output=self.manual_output,
                working_output=self.working_output,
                target_setpoint=self.target_setpoint,
                setpoint_rate=self.setpoint_rate,
                idle_degc=idle_degc,
            ),
            {
                "process_value": self.process_value,
                "working_setpoint": self.working_setpoint,
                "working_output": self.working_output,
            },
        )

    @property
    @override
    def poll_period_s(self) -> float:
        return self.settings.sample_period_s

    @property
    @override
    def is_acting(self) -> bool:
        return self._firing.is_acting

    # -- what a driver fills in ----------------------------------------------------

    @property
    @abstractmethod
    def _program_state(self) -> SignalR[Any]:
        """The signal that shows in which state the program is."""

    @property
    @abstractmethod
    def _dwell_unit(self) -> DwellUnit:
        """How the controller counts dwells."""

    @property
    @abstractmethod
    def _program_room(self) -> ProgramRoom:
        """How long a program the controller can hold."""

    @abstractmethod
    def _safety_settings(self) -> Iterable[tuple[str, SignalR[Any], Any]]:
        """Return what keeps people safe: its name, where it is, what it must be."""

    @abstractmethod
    def _program_settings(self) -> ProgramSettings:
        """Return what the controller is set to for a firing."""

    @abstractmethod
    async def _clear_program(self) -> None:
        """Reset a program that has ended, if it is not reset by itself."""

    @abstractmethod
    async def _write_program(self, segments: tuple[Segment, ...]) -> None:
        """Load *segments*, and see that they are there.

        Raises:
            InstrumentError: If the controller did not take them.
        """

    @abstractmethod
    async def _compare_program(self, segments: tuple[Segment, ...]) -> None:
        """See that *segments* are loaded.

        Raises:
            InstrumentError: If something else is.
        """

    @abstractmethod
    async def _start_program(self) -> None:
        """Ask for the loaded program to be run."""

    @abstractmethod
    async def _reset_program(self) -> None:
        """Ask for the program to be reset; repeating it is harmless."""

    @abstractmethod
    async def _read_sample(self) -> Sample:
        """Take one sample, best in one exchange; see :meth:`_make_sample`."""

    async def _take_over_controller(self) -> None:
        """Take note that this driver's own exchanges keep the controller busy now."""

    async def _prepare_start(self) -> None:
        """Do what is left to do just before a program is started."""

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> FurnaceSpecification:
        """What the lab and the controller allow."""
        return FurnaceSpecification(
            name=self.name,
            slots=self.entry.slots,
            temperature_degc=self.limits.temperature_degc,
            ramp_degc_per_min=self.limits.ramp_degc_per_min,
            dwell_unit=self._dwell_unit,
            program_room=self._program_room,
            cooling_time_constant_s=self.settings.cooling_time_constant_s,
        )

    @property
    def slots(self) -> tuple[str, ...]:
        """Locations inside the chamber."""
        return self.entry.slots

    @property
    def output_key(self) -> str:
        """Data key of the output [%]."""
        return self.working_output.name

    @property
    def rated_power_w(self) -> float | None:
        """Electrical power at full output [W], None if the lab file does not say it."""
        return self.settings.rated_power_w

    @property
    def temperature_key(self) -> str:
        """Data key of the chamber's temperature [degC]."""
        return self.process_value.name

    @property
    def last_firing(self) -> FiringRecord | None:
        """The last completed firing."""
        return self._firing.last_record

    def expected_duration_s(self, profile: FiringProfile) -> float:
        """Return how long *profile* will take, cooling included [s]."""
        return self.specification.expected_duration_s(profile)

    def check_profile(self, profile: FiringProfile) -> None:
        """Refuse a profile that the lab or the controller does not allow.

        Raises:
            LimitError: With every fault; nothing was sent.
        """
        self.specification.check_profile(profile)

    @AsyncStatus.wrap
    async def prepare(self, value: FiringProfile | FiringUnderWay) -> None:
        """Check *value*, compare the controller's settings, and load the program.

        A firing under way is only looked for; nothing is written.

        Raises:
            NothingToJoinError: If a firing under way is not there.
            LimitError: If the profile is not allowed; nothing was sent.
            ConfigurationError: If the controller is not set as the lab file says;
                nothing was changed.
            InterlockError: If a program is under way, the last firing has not cooled
                yet, or the chamber is hotter than the firing gets; nothing was changed.
            InstrumentError: If the controller did not take the program.
        """
        async with self._beginning:
            self._firing.forget_prepared()
            if isinstance(value, FiringUnderWay):
                if not self._firing.prepare_joining(value.profile):
                    await self._find_under_way(value)
                return
            self._firing.check_complete()
            self.check_profile(value)
            await self._check_not_hotter(value)
            await self._load(value)

    async def _check_not_hotter(self, profile: FiringProfile) -> None:
        """Refuse a firing in a chamber that is hotter than the firing gets.

        What stands in it would be fired at another temperature than was asked.
        """
        highest = profile.highest_degc
        temperature = await self.process_value.get_value()
        if temperature > highest + BEGINS_WITHIN_K:
            raise InterlockError(
                f"{self.name} reads {temperature:.0f} degC before the firing, and "
                f"{highest:g} degC are asked: it does not cool what stands in it; let "
                "it cool, then begin again"
            )

    async def _load(self, profile: FiringProfile) -> None:
        """Compare the controller's settings, and load the program of *profile*."""
        await self._take_over_controller()
        await self._compare_safety()
        await self.check_idle()
        await self._clear_program()
        await apply_settings(self.name, self._program_settings())
        await self._write_program(profile.segments)
        self._firing.set_prepared(profile)

    async def _find_under_way(self, under_way: FiringUnderWay) -> Sample:
        """See whether *under_way* goes on; nothing is written.

        Raises:
            NothingToJoinError: If it does not.
        """
        changed = await self._find_changed(under_way)
        return await self._firing.find_under_way(under_way, changed)

    async def _find_changed(self, under_way: FiringUnderWay) -> list[str]:
        """Return what is not as *under_way* had set it."""

        async def compare() -> None:
            self.check_profile(under_way.profile)
            await self._compare_safety()
            await self._compare_program(under_way.profile.segments)

        return await find_changed(self._program_settings(), compare)

    @override
    async def check_idle(self) -> None:
        state = await self._program_state.get_value()
        if state not in (self.program_states.reset, self.program_states.ended):
            raise InterlockError(
                f"{self.name}: a program is in state {state.value}; wait for it, or "
                "reset it at the controller"
            )

    async def _compare_safety(self) -> None:
        """Refuse to heat with a controller that is not set as the lab file says."""
        await compare_settings(self.name, self._safety_settings())

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Start the loaded program and the sampling.

        What was found under way is not started, only sampled.

        Raises:
            ConfigurationError: If the controller is no longer set as the lab file
                says; nothing was started.
            InterlockError: If a program is under way; nothing was started.
            InstrumentError: If nothing is loaded, or not what was prepared, or it
                does not start.
        """
        async with self._beginning:
            prepared = self._firing.take_prepared()
            if prepared.is_under_way:
                self._firing.join(prepared)
                await self._take_over_controller()
                return
            # Minutes may have passed, and there is a panel.
            await self._compare_safety()
            await self.check_idle()
            await self._start(prepared.profile)

    async def _start(self, profile: FiringProfile) -> None:
        """Start the program of *profile*, which is loaded, and the sampling."""
        await self._compare_program(profile.segments)
        await self._prepare_start()
        await self._firing.start(profile, self._start_program, self._is_program_running)

    # -- going to a temperature ----------------------------------------------------

    @AsyncStatus.wrap
    async def set(self, value: float) -> None:
        """Go to *value* [degC] and stay there; done when the chamber is there.

        It is a firing with one segment and the longest dwell of the controller, judged
        like any other. Upwards it goes as fast as the lab allows, downwards slower
        than the furnace cools by itself. When the plan has ended, or if it fails or is
        cancelled, the furnace goes to its abort state.

        Raises:
            LimitError: If the lab does not allow *value*; nothing was sent.
            ConfigurationError: If the controller is not set as the lab file says;
                nothing was changed.
            InterlockError: If a program is under way, or the last firing has not
                cooled yet; nothing was changed. Or it was set anew before it was there.
            InstrumentError: If the firing goes wrong; the heater was switched off.
        """
        async with self._beginning:
            await self._begin_to_go_to(value)
        await self._firing.wait_near(value, self.settings.set_within_k)

    async def _begin_to_go_to(self, value: float) -> None:
        """Start the program that leads to *value* [degC] and stays there."""
        temperature = await self.process_value.get_value()
        profile = FiringProfile(
            (self._step_to(value, temperature),), cool_to_degc=SAFE_TO_TOUCH_DEGC
        )
        self.check_profile(profile)
        if self._set_to is None:
            self._firing.check_complete()
        else:
            await self._firing.stop_sampling()
            await self._reset_program()
        self._set_to = None
        await self._load(profile)
        self._set_to = value
        await self._start(self._firing.take_prepared().profile)

    async def locate(self) -> Location[float]:
        """Return where it was set to, or is if it was not, and where it is [degC]."""
        temperature = await self.process_value.get_value()
        setpoint = temperature if self._set_to is None else self._set_to
        return Location(setpoint=setpoint, readback=temperature)

    def _step_to(self, target: float, temperature: float) -> Segment:
        """Return the segment that leads from *temperature* to *target* [degC]."""
        slowest, fastest = self.limits.ramp_degc_per_min
        rate = fastest
        if target < temperature:
            # It cools exponentially; a program that is faster gets ahead of it.
            excess = max(target - ROOM_DEGC, 0.0)
            natural = excess / self.settings.cooling_time_constant_s * 60
            rate = min(max(natural, slowest, _SLOWEST_DEGC_PER_MIN), fastest)
        unit = self._dwell_unit
        return Segment(target, math.floor(rate * 10) / 10, unit.most * unit.seconds)

    async def _is_program_running(self) -> bool:
        return await self._program_state.get_value() is self.program_states.running

    @AsyncStatus.wrap
    async def complete(self) -> None:
        """Wait until the program has ended and the chamber has cooled.

        Raises:
            InstrumentError: If the firing went wrong; the heater was switched off.
            TransportError: If the controller stayed unreachable for too long; what
                it does then is what the driver's facts say of orphans.
        """
        await self._firing.wait_until_cold()

    def _make_sample(
        self,
        *,
        temperature: float,
        setpoint: float,
        output: float,
        state: StrictEnum | None,
        complaint: str,
    ) -> Sample:
        """Return a sample.

        Args:
            temperature: What the controller reads [degC].
            setpoint: Its working setpoint [degC].
            output: Its working output [%].
            state: State of its program, None if that is no known one.
            complaint: What the controller itself finds wrong, empty if nothing.
        """
        states = self.program_states
        return Sample(
            temperature=temperature,
            setpoint=setpoint,
            output=output,
            status="unknown" if state is None else state.value,
            is_running=state is states.running,
            is_held=state in states.held,
            is_reset=state is states.reset,
            complaint=complaint,
        )

    # -- documents -----------------------------------------------------------------

    async def describe_collect(self) -> dict[str, DataKey]:
        """Describe the columns of the event pages."""
        return await self._firing.describe_columns()

    async def collect_pages(self) -> AsyncIterator[PartialEventPage]:
        """Yield what was sampled since the last collection."""
        async for page in self._firing.collect_pages():
            yield page

    # -- stopping ------------------------------------------------------------------

    @override
    def adopt(self) -> None:
        self._firing.adopt()

    @override
    async def go_to_abort_state(self) -> str:
        self._set_to = None
        return await self._firing.go_to_abort_state(self.entry.on_abort or "ramp_down")

    @override
    async def go_to_orphan_state(self) -> str:
        state = self.entry.on_orphan or "continue"
        return await self._firing.go_to_orphan_state(state)

    @override
    async def go_to_hold_state(self) -> str:
        return await self._firing.go_to_hold_state(self.entry.on_hold)

    @override
    async def hot_parts(self) -> str:
        temperature = await self.process_value.get_value()
        if temperature <= SAFE_TO_TOUCH_DEGC:
            return ""
        return f"{self.name}: the chamber is at {temperature:.0f} degC"
