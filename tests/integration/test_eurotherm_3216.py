"""The furnace controller's driver against the simulated one, over a serial line."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.devices.address import InvalidReading
from ppu.devices.readings import Quality
from ppu.devices.signals import write
from ppu.transports.serial import SerialConnection
from ppu_drivers.eurotherm_3216 import (
    Eurotherm3216,
    Eurotherm3216Limits,
    Eurotherm3216Settings,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.modbus import ILLEGAL_VALUE, ModbusRefusal
from ppu_simulators.instruments.eurotherm_3216 import SimulatedEurotherm3216
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

SERIAL = "4711"
PROFILE = FiringProfile((Segment(150.0, 10.0, 600.0),), cool_to_degc=140.0)
DWELL_REGISTERS = range(1280, 1304, 3)
SAFETY: dict[str, Any] = {"setpoint_high_degc": 1100, "alarm_1_degc": 1150}


def lab_file(
    *,
    serial_number: str = "unset",
    settings: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    twin: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    on_abort: str | None = "ramp_down",
) -> LabFile:
    """Return a lab with one furnace in which a crucible with limestone stands."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "furnace": {
                    "driver": "ppu_drivers.eurotherm_3216:Eurotherm3216",
                    "serial_number": serial_number,
                    "hardware": hardware or {},
                    "settings": {"dwell_unit": "minute", "safety": SAFETY}
                    | (settings or {}),
                    "limits": {
                        "temperature_degc": [0, 1100],
                        "ramp_degc_per_min": [0, 10],
                    }
                    | (limits or {}),
                    "on_abort": on_abort,
                    "slots": ["furnace.slot_1"],
                    "twin": twin or {},
                }
            },
            "locations": {"furnace.slot_1": {"holds": "crucible", "inside": "furnace"}},
            "containers": {
                "crucible_01": {
                    "kind": "crucible",
                    "at": "furnace.slot_1",
                    "capacity_ml": 20,
                    "tare_g": 18.2,
                    "contents": {"CaCO3": 2.0},
                }
            },
        }
    )


def _word(data: bytes, index: int) -> int:
    """Return the 16 bits at *index* of a frame."""
    return int.from_bytes(data[index : index + 2], "big")


class Wire:
    """Stands between port and controller: counts writes and spoils answers."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation
        self.n_requests = 0
        self.n_writes = 0
        self.is_silent = False
        self.spoil: Callable[[bytes], list[Answer]] | None = None
        self.n_to_spoil = 0
        self.written: list[tuple[int, int]] = []
        """Register and first value of each write that came, in order."""
        self.loses_write: tuple[int, str] | None = None
        """Which write to lose, counted from 0, and what of it."""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        self.n_requests += 1
        is_write = data[1] == 16
        if is_write:
            self.written.append((_word(data, 2), _word(data, 7)))
        is_lost = is_write and self.loses_write is not None
        if is_lost and self.loses_write == (self.n_writes, "request"):
            self.n_writes += 1
            return []
        is_lost = is_lost and self.loses_write == (self.n_writes, "reply")
        self.n_writes += is_write
        answers = list(self._conversation.receive(data, time))
        if self.is_silent or is_lost:
            return []
        if self.spoil is not None and self.n_to_spoil > 0:
            self.n_to_spoil -= 1
            return self.spoil(answers[0].at(time))
        return answers


class Overlay:
    """Registers that differ from what the controller would say or do."""

    def __init__(self, registers: SimulatedEurotherm3216) -> None:
        self._registers = registers
        self.says: dict[int, int] = {}
        self.ignores_writes = False
        self.ignored: set[int] = set()
        self.refused: set[int] = set()
        self.is_restless = False
        """Whether live values are never the same in two reads."""
        self._n_reads = 0

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return the registers, some of them replaced."""
        values = self._registers.read(address, count, time)
        self._n_reads += 1
        if self.is_restless and address <= 1 < address + count:
            values[1 - address] += self._n_reads % 2
        return [
            self.says.get(register, value)
            for register, value in enumerate(values, address)
        ]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take the values, acknowledge and forget them, or refuse."""
        if address in self.refused:
            raise ModbusRefusal(ILLEGAL_VALUE)
        if not self.ignores_writes and address not in self.ignored:
            self._registers.write(address, values, time)


class Bench:
    """A simulated furnace and its driver."""

    def __init__(self, lab: LabFile) -> None:
        self.world = World(lab, 1)
        self.entry = lab.devices["furnace"]
        self.simulated = SimulatedEurotherm3216(
            "furnace", self.entry, self.world, SERIAL
        )
        front = self.simulated._front
        slave: Any = front._conversation
        self.registers = Overlay(self.simulated)
        slave._registers = self.registers
        self.wire = Wire(slave)
        front._conversation = self.wire
        self.driver: Eurotherm3216

    async def start(self) -> None:
        """Open the port, and make the driver; it is not connected."""
        connection = {**await self.simulated.start(), **(self.entry.hardware or {})}
        self.driver = Eurotherm3216(
            "furnace",
            self.entry,
            SerialConnection.model_validate(connection),
            Eurotherm3216Settings.model_validate(self.entry.settings),
            Eurotherm3216Limits.model_validate(self.entry.limits),
        )

    def touch(self, register: int, value: int) -> None:
        """Set a register behind the driver's back, as at the front panel."""
        self.simulated.write(register, [value], running_loop().time())

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Let lab time pass until the furnace has come so far."""
        for _ in range(10_000):
            if is_true():
                return
            await asyncio.sleep(5.0)
        raise AssertionError("it never came so far")

    async def begin(self, profile: FiringProfile = PROFILE) -> None:
        """Prepare and start a firing."""
        await self.driver.prepare(profile)
        await self.driver.kickoff()

    async def stop(self) -> None:
        """Close both ends, and stop sampling."""
        sampler = self.driver._firing.task
        if sampler is not None:
            sampler.cancel()
            await asyncio.wait([sampler])
        await self.driver.disconnect()
        await self.simulated.stop()

    async def fire(self, profile: FiringProfile = PROFILE) -> None:
        """Run a whole firing."""
        await self.driver.prepare(profile)
        await self.driver.kickoff()
        await self.driver.complete()

    def truth(self, register: int) -> int:
        """Return what a register of the controller really holds."""
        (value,) = self.simulated.read(register, 1, running_loop().time())
        return value

    @property
    def is_off(self) -> bool:
        """Whether the program is reset and the output by hand at 0 %."""
        return (self.truth(23), self.truth(273), self.truth(4)) == (0, 1, 0)


async def on_bench(
    scenario: Callable[[Bench], Awaitable[None]],
    lab: LabFile | None = None,
    *,
    connects: bool = True,
) -> Bench:
    """Play *scenario* on a bench of its own."""
    bench = Bench(lab or lab_file())
    await bench.start()
    try:
        if connects:
            await bench.driver.connect_link()
        await scenario(bench)
    finally:
        await bench.stop()
    return bench


# -- firing ---------------------------------------------------------------------------


def test_firing_reaches_and_holds_what_was_asked(play: Play) -> None:
    """Temperature and dwell of the record are those of the program."""

    async def scenario(bench: Bench) -> None:
        await bench.fire()
        record = bench.driver.last_firing
        assert isinstance(bench.driver, Furnace)
        assert record is not None
        assert record.max_temperature_degc == pytest.approx(150.0, abs=25.0)
        assert list(record.dwell_s) == pytest.approx([600.0], abs=20.0)
        assert record.n_samples == pytest.approx(record.duration_s / 10, abs=2)
        assert bench.truth(1) <= 1400 + 10
        assert bench.world.incidents == []

    play(on_bench(scenario))


def test_samples_are_collected_once_each_when_pages_are_taken_in_between(
    play: Play,
) -> None:
    """Pages taken during and after a firing hold every sample, evenly spaced."""

    async def scenario(bench: Bench) -> None:
        driver = bench.driver
        await driver.prepare(PROFILE)
        await driver.kickoff()
        await asyncio.sleep(300.0)
        pages = [page async for page in driver.collect_pages()]
        await driver.complete()
        pages += [page async for page in driver.collect_pages()]
        stamps = [stamp for page in pages for stamp in page["time"]]
        gaps = [later - earlier for earlier, later in pairwise(stamps)]
        assert driver.last_firing is not None
        assert len(stamps) == driver.last_firing.n_samples
        assert gaps == [pytest.approx(10.0, abs=0.5)] * len(gaps)
        assert pages[0]["data"].keys() == (await driver.describe_collect()).keys()
        assert [page async for page in driver.collect_pages()] == []

    play(on_bench(scenario))


@pytest.mark.parametrize(
    "segments",
    [
        (Segment(100.0, 10.0, 0.0),),
        (Segment(100.0, 10.0, 0.0), Segment(130.0, 7.3, 60.0)),
        (Segment(100.0, 10.0, 0.0), Segment(130.0, 9.7, 0.0), Segment(120.0, 5.0, 0.0)),
        (Segment(80.0, 6.0, 120.0), Segment(100.0, 6.0, 60.0)),
    ],
    ids=["a peak", "a peak then a dwell", "peaks only", "two dwells"],
)
def test_every_dwell_is_accounted_for_whatever_the_profile(
    play: Play, segments: tuple[Segment, ...]
) -> None:
    """Dwells too short to be sampled do not stop a firing."""

    async def scenario(bench: Bench) -> None:
        await bench.fire(FiringProfile(segments, cool_to_degc=90.0))
        record = bench.driver.last_firing
        assert record is not None
        asked = [segment.dwell_s for segment in segments]
        assert list(record.dwell_s) == pytest.approx(asked, abs=25.0)

    play(on_bench(scenario))


def test_eeprom_is_spared_when_the_same_firing_is_repeated(play: Play) -> None:
    """Sampling writes nothing, and an unchanged program is not written again."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        once, n_writes = bench.simulated.n_eeprom_writes, bench.wire.n_writes
        assert 0 < once <= 3
        await bench.driver.kickoff()
        await bench.driver.complete()
        await bench.fire()
        assert bench.simulated.n_eeprom_writes == once
        assert bench.wire.n_writes == n_writes + 2  # start, twice

    play(on_bench(scenario))


def test_matter_is_the_same_however_often_somebody_looks() -> None:
    """Sampling every second or minute is only looking: the sample does not notice."""
    hot = FiringProfile((Segment(750.0, 40.0, 120.0),), cool_to_degc=720.0)
    found = []

    async def scenario(bench: Bench) -> None:
        await bench.fire(hot)
        bench.world.advance(10_000.0)
        found.append(bench.world.containers["crucible_01"].matter.masses_g())

    for period_s in (1.0, 10.0, 60.0):
        lab = lab_file(
            settings={
                "sample_period_s": period_s,
                "max_deviation_k": 300.0,
                "full_power_degc_per_min": 110.0,
            },
            limits={"ramp_degc_per_min": [0, 60]},
            twin={"p_max_w": 12_000.0},
        )
        loop = LabTimeLoop(None)
        with loop.active():
            loop.run_until_complete(on_bench(scenario, lab))
        loop.close()

    assert found[0]["CaO"] > 0.01
    assert found[1] == pytest.approx(found[0], rel=1e-12)
    assert found[2] == pytest.approx(found[0], rel=1e-12)


def test_profile_is_refused_with_every_fault_when_limits_are_exceeded(
    play: Play,
) -> None:
    """All faults come in one message and nothing is sent."""
    wrong = FiringProfile(
        (
            Segment(1200.0, 20.0, 90.0),
            Segment(900.0, 0.0, -60.0),
            Segment(900.0, 5.0, 60.0),
        ),
        cool_to_degc=60.0,
    )

    async def scenario(bench: Bench) -> None:
        n_requests = bench.wire.n_requests
        with pytest.raises(LimitError) as caught:
            await bench.driver.prepare(wrong)
        for part in (
            "segment 1: 1200 degC, allowed are 0 to 1100 degC",
            "segment 1: 20 degC/min, allowed are more than 0 up to 10 degC/min",
            "segment 1: a dwell of 90 s, allowed are whole minutes",
            "segment 2: 0 degC/min",
            "segment 2: a dwell of -60 s",
            "segment 3: 900 degC is where segment 2 ends",
        ):
            assert part in str(caught.value)
        assert bench.wire.n_requests == n_requests

    play(on_bench(scenario))


@pytest.mark.parametrize("n_segments", [0, 9])
def test_profile_is_refused_when_it_has_no_or_too_many_segments(
    play: Play, n_segments: int
) -> None:
    """The controller's programmer has eight segments."""
    segments = tuple(Segment(100.0 + n, 5.0, 60.0) for n in range(n_segments))

    async def scenario(bench: Bench) -> None:
        with pytest.raises(LimitError, match=f"{n_segments} segments, allowed"):
            await bench.driver.prepare(FiringProfile(segments, 60.0))

    play(on_bench(scenario))


def test_prepare_fails_when_the_controller_refuses_the_program(play: Play) -> None:
    """A refusal of the controller is told with its code, and nothing is loaded."""

    async def scenario(bench: Bench) -> None:
        bench.registers.refused = {1280}
        with pytest.raises(InstrumentError, match="illegal data value") as caught:
            await bench.driver.prepare(PROFILE)
        assert caught.value.code == 3
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await bench.driver.kickoff()
        assert bench.truth(23) == 0

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("setpoint_high", "alarm_1"),
    [(1099.0, 1150.0), (1100.0, 1100.0), (1200.0, 1150.0)],
    ids=["setpoint below the limit", "alarm at the setpoint", "alarm below it"],
)
def test_driver_is_refused_when_its_lab_file_contradicts_itself(
    setpoint_high: float, alarm_1: float
) -> None:
    """What the lab allows, the setpoint limit and alarm 1 each cover the one before."""
    lab = lab_file(
        settings={
            "safety": {"setpoint_high_degc": setpoint_high, "alarm_1_degc": alarm_1}
        }
    )
    entry = lab.devices["furnace"]

    faults = Eurotherm3216.inconsistencies(
        Eurotherm3216Settings.model_validate(entry.settings),
        Eurotherm3216Limits.model_validate(entry.limits),
    )

    assert len(faults) == 1
    assert "lower the limit" in faults[0] or "raise the alarm" in faults[0]


@pytest.mark.parametrize("rate", [400.0, math.inf, math.nan, 0.01])
def test_settings_are_refused_when_the_controller_knows_no_such_rate(
    rate: float,
) -> None:
    """A ramp down that the controller could not follow never gets into a lab."""
    settings = {"dwell_unit": "minute", "safety": SAFETY}

    assert Eurotherm3216Settings.model_validate(settings).ramp_down_degc_per_min == 5
    with pytest.raises(ValidationError, match="ramp_down_degc_per_min"):
        Eurotherm3216Settings.model_validate(
            settings | {"ramp_down_degc_per_min": rate}
        )


def test_settings_are_refused_when_alarm_1_does_not_watch_for_too_hot() -> None:
    """An alarm of another type cuts no power, even if lab file and panel agree."""
    with pytest.raises(ValidationError, match="alarm_1_type"):
        Eurotherm3216Settings.model_validate(
            {"dwell_unit": "minute", "safety": SAFETY | {"alarm_1_type": "off"}}
        )


@pytest.mark.parametrize(
    ("rate", "is_allowed"),
    [
        *((rate, False) for rate in (0.04, 0.05, 0.06, math.nan)),
        *((rate, True) for rate in (0.1, 2.0, 7.3)),
    ],
)
def test_profile_is_refused_when_a_ramp_is_between_two_steps(
    play: Play, rate: float, is_allowed: bool
) -> None:
    """A ramp that would be rounded to another one, or to none, is not run."""

    async def scenario(bench: Bench) -> None:
        profile = FiringProfile((Segment(150.0, rate, 60.0),), 60.0)
        if is_allowed:
            bench.driver.check_profile(profile)
        else:
            with pytest.raises(LimitError, match=r"segment 1: .* degC/min"):
                bench.driver.check_profile(profile)

    play(on_bench(scenario, connects=False))


@pytest.mark.parametrize("dwell_s", [math.inf, math.nan])
def test_profile_is_refused_when_a_dwell_is_no_finite_time(
    play: Play, dwell_s: float
) -> None:
    """Nonsense is a fault of the profile like any other."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(LimitError, match="a dwell of"):
            bench.driver.check_profile(
                FiringProfile((Segment(150.0, 5.0, dwell_s),), 60.0)
            )

    play(on_bench(scenario, connects=False))


def test_prepare_refuses_when_the_controller_is_not_set_as_the_lab_file_says(
    play: Play,
) -> None:
    """Every safety setting that differs is named, and nothing was written."""
    lab = lab_file(twin={"registers": {13: 13000, 536: 2, 578: 0, 30: 900}})

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConfigurationError) as caught:
            await bench.driver.prepare(PROFILE)
        for part in (
            "alarm 1 threshold (13) is 1300.0, the lab file says 1150.0",
            "alarm 1 type (536) is low, the lab file says high",
            "sensor break type (578) is off, the lab file says on",
            "output high limit (30) is 90.0, the lab file says 100.0",
        ):
            assert part in str(caught.value)
        assert bench.wire.n_writes == 0

    play(on_bench(scenario, lab))


@pytest.mark.parametrize(
    ("unit", "text", "dwell_s"),
    [
        ("minute", "still dwells after", 60.0),
        ("hour", "dwelt for 60 s", 3600.0),
    ],
)
def test_wrong_dwell_unit_is_caught_on_the_first_run(
    play: Play, unit: str, text: str, dwell_s: float
) -> None:
    """A dwell 60 times too long or short stops the firing with the heater off."""
    other = {"minute": "hour", "hour": "minute"}[unit]
    lab = lab_file(settings={"dwell_unit": unit}, twin={"dwell_unit": other})

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match=f"{text}.*is dwell_unit right"):
            await bench.fire(FiringProfile((Segment(100.0, 10.0, dwell_s),), 60.0))
        assert bench.is_off
        assert running_loop().time() < 1800.0

    play(on_bench(scenario, lab))


def test_firing_stops_when_the_program_ends_too_early(play: Play) -> None:
    """A program that somebody resets at the front panel does not pass for done."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(
            FiringProfile((Segment(100.0, 10, 60), Segment(120.0, 10, 600)), 60.0)
        )
        await bench.driver.kickoff()
        await asyncio.sleep(600.0)
        bench.simulated.write(23, [0], running_loop().time())
        with pytest.raises(InstrumentError, match="ended before 120 degC"):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario))


def test_firing_stops_when_the_status_word_tells_a_broken_sensor(play: Play) -> None:
    """Bit 5 of register 75 ends the firing at the next sample, heater off."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.registers.says[75] = 1 << 5
        with pytest.raises(InstrumentError, match=r"broken thermocouple.*is off"):
            await bench.driver.complete()
        assert bench.is_off
        assert running_loop().time() < 125.0

    play(on_bench(scenario))


def test_firing_says_so_when_the_heater_cannot_be_switched_off(play: Play) -> None:
    """A fault whose remedy fails, too, is told with both."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.registers.says[75] = 1 << 5
        bench.registers.ignores_writes = True
        with pytest.raises(InstrumentError, match=r"thermocouple.*NOT.*at the wall"):
            await bench.driver.complete()

    play(on_bench(scenario))


def test_firing_stops_when_the_chamber_does_not_follow(play: Play) -> None:
    """A furnace that cannot follow its program is not left at full power."""
    lab = lab_file(twin={"p_max_w": 150.0})

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match="K off its working setpoint"):
            await bench.fire(FiringProfile((Segment(600.0, 10.0, 600.0),), 60.0))
        assert bench.is_off

    play(on_bench(scenario, lab))


def test_firing_stops_when_it_gets_hotter_than_the_lab_allows(play: Play) -> None:
    """A reading over the limit of the lab file ends the firing."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.registers.says[1] = 2100
        with pytest.raises(
            InstrumentError, match=re.escape("210.0 degC is over the limit of")
        ):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario, lab_file(limits={"temperature_degc": [0, 200]})))


def test_kickoff_and_complete_are_refused_when_nothing_is_prepared(
    play: Play,
) -> None:
    """Nothing heats by accident."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await bench.driver.kickoff()
        with pytest.raises(InstrumentError, match="nothing was started"):
            await bench.driver.complete()

    play(on_bench(scenario))


@pytest.mark.parametrize("status", [1, 2])
def test_prepare_and_check_idle_are_refused_when_a_program_is_not_over(
    play: Play, status: int
) -> None:
    """What somebody runs or holds at the controller is not overwritten."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        bench.touch(23, 1)
        bench.touch(23, status)
        n_writes = bench.wire.n_writes
        with pytest.raises(InterlockError, match="a program is in state"):
            await bench.driver.check_idle()
        with pytest.raises(InterlockError, match="a program is in state"):
            await bench.driver.prepare(PROFILE)
        assert bench.wire.n_writes == n_writes
        assert bench.truth(23) == status
        bench.touch(23, 0)
        await bench.driver.check_idle()

    play(on_bench(scenario))


def test_prepare_is_refused_when_the_last_firing_still_cools(play: Play) -> None:
    """Two samplers never judge one furnace by two programs."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(60.0, 10.0, 60.0),), 40.0))
        await bench.until(lambda: bench.truth(23) == 0)
        with pytest.raises(InterlockError, match="not complete yet"):
            await bench.driver.prepare(PROFILE)
        await bench.driver.complete()
        await bench.driver.prepare(PROFILE)

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("register", "value", "error", "text"),
    [
        (1281, 9000, InstrumentError, "the program reads back as"),
        (1284, 6000, InstrumentError, "the program reads back as"),
        (13, 13000, ConfigurationError, r"alarm 1 threshold \(13\) is 1300"),
        (536, 0, ConfigurationError, r"alarm 1 type \(536\) is off"),
        (23, 1, InterlockError, "a program is in state run"),
    ],
)
def test_kickoff_is_refused_when_somebody_was_at_the_panel_since_prepare(
    play: Play, register: int, value: int, error: type[Exception], text: str
) -> None:
    """Minutes pass between loading and starting; what is started was just checked."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        bench.touch(register, value)
        n_writes = bench.wire.n_writes
        with pytest.raises(error, match=text):
            await bench.driver.kickoff()
        assert bench.wire.n_writes == n_writes
        assert bench.truth(23) == (1 if register == 23 else 0)
        with pytest.raises(InstrumentError, match="nothing was started"):
            await bench.driver.complete()

    play(on_bench(scenario))


def test_kickoff_is_refused_when_it_is_the_second_one(play: Play) -> None:
    """One prepare is good for one firing, which goes on unharmed."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        n_writes = bench.wire.n_writes
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await bench.driver.kickoff()
        await bench.driver.complete()
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await bench.driver.kickoff()
        assert bench.wire.n_writes == n_writes

    play(on_bench(scenario))


def test_firing_stops_when_its_program_is_changed_to_something_hotter(
    play: Play,
) -> None:
    """A target raised at the panel is followed no further than the old one."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(300.0)
        bench.touch(1281, 9000)
        with pytest.raises(InstrumentError, match=r"somebody changed the.*is off"):
            await bench.driver.complete()
        assert bench.is_off
        assert bench.truth(1) < 1600 + 100

    play(on_bench(scenario))


def test_firing_may_begin_in_a_chamber_a_little_hotter_than_its_targets(
    play: Play,
) -> None:
    """A program that starts at the chamber's temperature was not tampered with."""

    async def scenario(bench: Bench) -> None:
        await bench.fire()
        chamber_degc = round(await bench.driver.process_value.get_value())
        low, near = (
            FiringProfile((Segment(chamber_degc - by_k, 10.0, 60.0),), 120.0)
            for by_k in (20.0, 5.0)
        )
        with pytest.raises(InterlockError, match="let it cool, then begin again"):
            await bench.fire(low)
        await bench.fire(near)
        record = bench.driver.last_firing
        assert record is not None
        assert list(record.dwell_s) == pytest.approx([60.0], abs=20.0)

    play(on_bench(scenario))


@pytest.mark.parametrize("begun_s", [50.0, 1000.0, 1332.0, 1345.0])
def test_firing_stops_when_the_program_is_held(play: Play, begun_s: float) -> None:
    """HOLD is a fault in the ramp, in the dwell and in its last two periods."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        started = running_loop().time()
        await asyncio.sleep(begun_s)
        assert bench.truth(23) == 1
        bench.touch(23, 2)
        with pytest.raises(InstrumentError, match=r"on hold.*the heater is off"):
            await bench.driver.complete()
        assert bench.is_off
        assert running_loop().time() - started < begun_s + 15.0

    play(on_bench(scenario))


def test_firing_stops_when_a_program_is_started_while_it_cools(play: Play) -> None:
    """Somebody else's program is not taken for natural cooling."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(60.0, 10.0, 60.0),), 30.0))
        await bench.until(lambda: bench.truth(23) == 0)
        await asyncio.sleep(30.0)
        bench.touch(23, 1)
        with pytest.raises(InstrumentError, match=r"in state run although.*is off"):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario))


def test_firing_stops_when_it_cools_for_too_long(play: Play) -> None:
    """A furnace that never gets cold is told to people, with the heater off."""
    lab = lab_file(settings={"max_cooling_s": 600.0})

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match=r"still .* degC after 6.* is off"):
            await bench.fire(FiringProfile((Segment(100.0, 10.0, 60.0),), 30.0))
        assert bench.is_off

    play(on_bench(scenario, lab))


def test_firing_without_a_dwell_does_not_pass_when_it_is_reset_on_its_way(
    play: Play,
) -> None:
    """A peak of 800 degC that was reset at 231 degC was never reached."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(800.0, 10.0, 0.0),), 60.0))
        await bench.until(lambda: bench.truth(5) >= 2310)
        bench.touch(23, 0)
        with pytest.raises(InstrumentError, match=r"ended before 800 degC.*is off"):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario))


def test_firing_goes_on_when_an_outage_hides_the_end_of_its_dwell(play: Play) -> None:
    """A silence shorter than allowed costs samples, not the firing."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(1250.0)
        assert bench.truth(23) == 1
        bench.wire.is_silent = True
        await asyncio.sleep(200.0)
        assert bench.truth(23) == 0
        bench.wire.is_silent = False
        await bench.driver.complete()
        record = bench.driver.last_firing
        assert record is not None
        assert len(record.dwell_s) == 1

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("register", "text"), [(1281, "reads back"), (328, "was set to"), (23, "not start")]
)
def test_firing_does_not_begin_when_the_controller_forgets_what_it_acknowledged(
    play: Play, register: int, text: str
) -> None:
    """Every setting is read back before, and the start after it was asked for."""
    lab = lab_file(twin={"registers": {328: 1}})

    async def scenario(bench: Bench) -> None:
        bench.registers.says[register] = 0 if register != 328 else 1
        with pytest.raises(InstrumentError, match=text):
            await bench.fire()

    play(on_bench(scenario, lab))


# -- when the wire fails --------------------------------------------------------------


def garbled(reply: bytes) -> list[Answer]:
    """Return the reply with a wrong checksum."""
    return [Answer(reply[:-2] + b"\0\0")]


def cut(reply: bytes) -> list[Answer]:
    """Return half of the reply."""
    return [Answer(reply[: len(reply) // 2])]


def late(reply: bytes) -> list[Answer]:
    """Return the reply after the deadline."""
    return [Answer(reply, 1.5)]


def nothing(_: bytes) -> list[Answer]:
    """Return silence."""
    return []


@pytest.mark.parametrize("spoil", [garbled, cut, late, nothing])
def test_firing_goes_on_when_answers_fail_for_a_while(
    play: Play, spoil: Callable[[bytes], list[Answer]]
) -> None:
    """Twenty spoiled answers cost samples, not the firing."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.wire.spoil, bench.wire.n_to_spoil = spoil, 20
        await bench.driver.complete()
        record = bench.driver.last_firing
        assert record is not None
        assert list(record.dwell_s) == pytest.approx([600.0], abs=20.0)
        assert bench.wire.n_to_spoil == 0

    play(on_bench(scenario))


def test_samples_are_taken_again_after_a_time_out_when_no_two_are_the_same(
    play: Play,
) -> None:
    """In mid-ramp two samples never agree; one lost answer costs no more than one."""

    async def scenario(bench: Bench) -> None:
        driver = bench.driver
        await bench.begin()
        await asyncio.sleep(600.0)
        bench.registers.is_restless = True
        bench.wire.spoil, bench.wire.n_to_spoil = nothing, 1
        before = len(driver._firing.samples.stamps)
        await asyncio.sleep(100.0)
        assert len(driver._firing.samples.stamps) == before + 10
        assert driver.link.statistics().n_timeouts == 1
        assert not driver._master.link.was_late
        now = bench.truth(1) / 10
        assert driver._firing.samples.process_value[-1] == pytest.approx(now, abs=3.0)

    play(on_bench(scenario))


def test_firing_is_given_up_when_the_controller_stays_silent(play: Play) -> None:
    """After the silence of the lab file the driver gives up; the program goes on."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.wire.is_silent = True
        with pytest.raises(ReplyTimeout, match="furnace: no complete reply"):
            await bench.driver.complete()
        assert 390.0 < running_loop().time() < 450.0
        assert bench.truth(23) == 1

    play(on_bench(scenario))


def test_firing_is_given_up_when_the_cable_is_pulled_in_mid_reply(play: Play) -> None:
    """A lost port is an error of the path, and the controller keeps its program."""

    async def scenario(bench: Bench) -> None:
        def pull(reply: bytes) -> list[Answer]:
            def stop(time: float) -> bytes:
                bench.simulated._front.stop()
                return b""

            return [Answer(reply[:7]), Answer(stop, 0.1)]

        await bench.driver.prepare(PROFILE)
        await bench.driver.kickoff()
        await asyncio.sleep(100.0)
        bench.wire.spoil, bench.wire.n_to_spoil = pull, 1
        with pytest.raises(TransportError, match="furnace: "):
            await bench.driver.complete()
        assert bench.truth(23) == 1

    play(on_bench(scenario))


# -- stopping -------------------------------------------------------------------------


async def interrupted(bench: Bench) -> None:
    """Cancel the wait for a firing in the middle of its ramp."""
    await bench.driver.prepare(PROFILE)
    await bench.driver.kickoff()
    status = bench.driver.complete()
    await asyncio.sleep(200.0)
    status.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await status


def test_sampling_outlives_a_cancelled_wait(play: Play) -> None:
    """After an abort people still want to know how hot it is."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        before = len(bench.driver._firing.samples.stamps)
        await asyncio.sleep(100.0)
        assert len(bench.driver._firing.samples.stamps) == before + 10

    play(on_bench(scenario))


def test_abort_ramps_down_and_proves_it(play: Play) -> None:
    """Program reset, idle setpoint, rate limited, as read back from the controller."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        told = await bench.driver.go_to_abort_state()
        assert "ramping down at 5 degC/min to 0 degC, verified" in told
        assert (bench.truth(23), bench.truth(2), bench.truth(35)) == (0, 0, 50)
        setpoint = bench.truth(5)
        await asyncio.sleep(60.0)
        assert setpoint - bench.truth(5) == pytest.approx(50, abs=2)

    play(on_bench(scenario))


def test_abort_switches_off_and_proves_it(play: Play) -> None:
    """Heater off means by hand at 0 %, as read back from the controller."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        told = await bench.driver.go_to_abort_state()
        assert "heater off, verified (by hand, 0 %)" in told
        assert bench.is_off

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_abort_leaves_the_program_alone_when_told_to(play: Play) -> None:
    """``continue`` touches nothing and tells the state."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        n_writes = bench.wire.n_writes
        told = await bench.driver.go_to_abort_state()
        assert "left alone, its program is in state run" in told
        assert bench.wire.n_writes == n_writes

    play(on_bench(scenario, lab_file(on_abort="continue")))


@pytest.mark.parametrize("state", ["ramp_down", "heater_off"])
def test_abort_says_to_switch_off_at_the_wall_when_it_does_not_take(
    play: Play, state: str
) -> None:
    """An acknowledged write that did nothing is noticed."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.registers.ignores_writes = True
        with pytest.raises(InstrumentError, match="switch it off at the wall"):
            await bench.driver.go_to_abort_state()

    play(on_bench(scenario, lab_file(on_abort=state)))


@pytest.mark.parametrize("part", ["request", "reply"])
@pytest.mark.parametrize(
    ("state", "index"),
    [*(("ramp_down", n) for n in range(2)), *(("heater_off", n) for n in range(4))],
)
def test_abort_succeeds_when_one_write_is_lost(
    play: Play, state: str, index: int, part: str
) -> None:
    """Whichever write or acknowledgement is lost, the abort state is reached."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        n_writes = bench.wire.n_writes
        bench.wire.loses_write = (n_writes + index, part)
        told = await bench.driver.go_to_abort_state()
        assert "verified" in told
        assert bench.driver.link.statistics().n_timeouts == 1
        if state == "heater_off":
            assert bench.is_off
        else:
            assert "at 5 degC/min" in told
            assert (bench.truth(23), bench.truth(273), bench.truth(35)) == (0, 0, 50)
        assert (
            bench.wire.n_writes
            == n_writes + {"ramp_down": 2, "heater_off": 4}[state] + 1
        )

    play(on_bench(scenario, lab_file(on_abort=state)))


@pytest.mark.parametrize("index", range(4))
def test_ramp_down_from_manual_succeeds_when_one_write_is_lost(
    play: Play, index: int
) -> None:
    """The two further writes are as stubborn as the others."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.touch(3, 600)
        bench.touch(273, 1)
        bench.wire.loses_write = (bench.wire.n_writes + index, "request")
        assert "verified" in await bench.driver.go_to_abort_state()
        assert (bench.truth(23), bench.truth(273), bench.truth(3)) == (0, 0, 0)

    play(on_bench(scenario))


def test_ramp_down_ends_in_automatic_when_somebody_set_a_power_by_hand(
    play: Play,
) -> None:
    """A firing put in manual at 60 % is not called ramping down until it is."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.touch(3, 600)
        bench.touch(273, 1)
        await asyncio.sleep(15.0)
        assert bench.truth(4) == 600
        bench.wire.written.clear()
        told = await bench.driver.go_to_abort_state()
        assert "ramping down" in told
        assert "verified" in told
        assert bench.wire.written[-2:] == [(3, 0), (273, 0)]
        assert (bench.truth(23), bench.truth(273)) == (0, 0)
        outputs = []
        for _ in range(12):
            await asyncio.sleep(10.0)
            outputs.append(bench.truth(4))
        assert outputs == [0] * 12

    play(on_bench(scenario))


def test_heater_off_writes_the_power_before_it_takes_over_by_hand(play: Play) -> None:
    """By hand at the last power would be worse than before, be it for a second."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.touch(3, 600)
        bench.wire.written.clear()
        await bench.driver.go_to_abort_state()
        assert bench.wire.written[:3] == [(23, 0), (3, 0), (273, 1)]

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_heater_off_goes_back_to_automatic_when_the_power_does_not_read_back(
    play: Play,
) -> None:
    """Automatic at the idle setpoint is better than 60 % by hand, and is told."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.touch(3, 600)
        bench.registers.ignored = {3}
        with pytest.raises(InstrumentError, match=r"is in auto.*at the wall") as caught:
            await bench.driver.go_to_abort_state()
        assert "manual_output was set to 0.0 but reads 60.0" in str(caught.value)
        assert (bench.truth(23), bench.truth(273)) == (0, 0)

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_abort_keeps_the_heater_off_when_a_fault_switched_it_off(play: Play) -> None:
    """After a fault nothing is ramped down, which would heat again."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(100.0)
        bench.registers.says[75] = 1 << 5
        with pytest.raises(InstrumentError, match="thermocouple"):
            await bench.driver.complete()
        told = await bench.driver.go_to_abort_state()
        assert "heater off, verified" in told
        assert bench.is_off

    play(on_bench(scenario))


def test_abort_switches_off_when_it_interrupts_the_answer_to_a_fault(
    play: Play,
) -> None:
    """A fault found is not forgotten because the abort came a moment later."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(95.0)
        bench.registers.says[75] = 1 << 5
        bench.registers.ignores_writes = True
        await asyncio.sleep(7.0)
        sampler = bench.driver._firing.task
        assert sampler is not None
        assert not sampler.done()
        bench.registers.ignores_writes = False
        assert "heater off, verified" in await bench.driver.go_to_abort_state()
        assert bench.is_off

    play(on_bench(scenario))


@pytest.mark.parametrize("state", ["ramp_down", "heater_off"])
def test_abort_leaves_alone_what_this_driver_did_not_start(
    play: Play, state: str
) -> None:
    """Somebody's program goes on, prepared or not, and nothing at all is written."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        bench.touch(23, 1)
        n_writes = bench.wire.n_writes
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.wire.n_writes == n_writes
        assert bench.truth(23) == 1

    play(on_bench(scenario, lab_file(on_abort=state)))


@pytest.mark.parametrize("state", ["ramp_down", "heater_off"])
def test_abort_writes_nothing_when_the_furnace_is_idle(play: Play, state: str) -> None:
    """Neither before its first firing nor after a whole one is there work to do."""

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.wire.n_writes == 0
        await bench.fire()
        n_writes = bench.wire.n_writes
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.wire.n_writes == n_writes

    play(on_bench(scenario, lab_file(on_abort=state)))


def test_furnace_can_fire_again_after_every_abort(play: Play) -> None:
    """What an abort changed is set back by the next firing."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        await bench.driver.go_to_abort_state()
        await bench.fire()
        assert bench.truth(35) == 0

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_hot_parts_are_told_only_while_they_are_hot(play: Play) -> None:
    """People learn the temperature of the chamber if they could burn themselves."""

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.hot_parts() == ""
        await bench.fire()
        assert "the chamber is at 14" in await bench.driver.hot_parts()

    play(on_bench(scenario))


# -- connecting -----------------------------------------------------------------------


def test_identity_is_kept_when_the_right_controller_answers(play: Play) -> None:
    """Customer id and firmware come from the controller."""

    async def scenario(bench: Bench) -> None:
        identity = bench.driver.identity
        assert identity is not None
        assert (identity.serial_number, identity.firmware) == (SERIAL, "1.07")

    play(on_bench(scenario, lab_file(serial_number=SERIAL)))


def test_connect_is_refused_when_another_controller_answers(play: Play) -> None:
    """A swapped instrument is named with both numbers."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConnectError, match="number 42, but 4711 answers"):
            await bench.driver.connect_link()

    play(on_bench(scenario, lab_file(serial_number="42"), connects=False))


def test_connect_is_refused_when_another_model_answers(play: Play) -> None:
    """A Modbus device whose status has no inverse is no Eurotherm 3200."""

    async def scenario(bench: Bench) -> None:
        bench.registers.says[76] = 0
        with pytest.raises(ConnectError, match=r"is no Eurotherm 3200.*do not match"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


def test_connect_is_refused_when_the_unit_lacks_the_registers(play: Play) -> None:
    """A Modbus device that refuses the identity is no Eurotherm 3200."""

    async def scenario(bench: Bench) -> None:
        del bench.simulated._registers[629]
        with pytest.raises(ConnectError, match=r"is no Eurotherm 3200.*illegal data"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


@pytest.mark.parametrize(
    "hardware", [{"baudrate": 19200}, {"parity": "even"}, {"unit": 2}]
)
def test_connect_says_what_to_look_at_when_line_settings_are_wrong(
    play: Play, hardware: dict[str, Any]
) -> None:
    """A wrong rate, parity or unit gets silence, and a hint that names them."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConnectError, match="address and line settings right"):
            await bench.driver.connect_link()
        assert running_loop().time() < 30.0

    play(on_bench(scenario, lab_file(hardware=hardware), connects=False))


# -- readings -------------------------------------------------------------------------


def test_reading_is_invalid_when_it_cannot_be_true(play: Play) -> None:
    """A sensor at full scale is no temperature, in documents and for people."""

    async def scenario(bench: Bench) -> None:
        bench.registers.says[1] = 0x7FFF
        reading = await bench.driver.read_signal("process_value")
        assert math.isnan(reading["value"])
        assert bench.driver.quality(reading) is Quality.INVALID
        assert "sensor break?" in reading["message"]
        with pytest.raises(InvalidReading):
            await bench.driver.process_value.get_value()

    play(on_bench(scenario))


def test_reading_is_invalid_when_a_code_is_unknown(play: Play) -> None:
    """A state that the manual does not list is not guessed."""

    async def scenario(bench: Bench) -> None:
        bench.registers.says[23] = 7
        reading = await bench.driver.read_signal("program_status")
        assert bench.driver.quality(reading) is Quality.INVALID
        with pytest.raises(InvalidReading, match="7 is no known code"):
            await bench.driver.program_status.get_value()

    play(on_bench(scenario))


def test_reading_is_stale_when_it_is_old(play: Play) -> None:
    """A good reading stops being one after a minute."""

    async def scenario(bench: Bench) -> None:
        reading = await bench.driver.read_signal("process_value")
        assert bench.driver.quality(reading) is Quality.GOOD
        await asyncio.sleep(61.0)
        assert bench.driver.quality(reading) is Quality.STALE

    play(on_bench(scenario))


def test_setting_is_refused_when_it_is_outside_of_its_register_limits(
    play: Play,
) -> None:
    """The idle setpoint can never be set to something hot."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(LimitError, match="500"):
            await write(bench.driver.idle_setpoint, 500.0)
        assert bench.wire.n_writes == 0

    play(on_bench(scenario))
