"""The EPC3016 driver against the simulated controller, over TCP."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pymodbus.client import ModbusTcpClient

from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    MalformedReply,
    TransportError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.transports.modbus import ModbusMaster
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu_drivers.eurotherm_3216 import (
    Eurotherm3216,
    Eurotherm3216Limits,
    Eurotherm3216Settings,
)
from ppu_drivers.eurotherm_epc3016 import (
    EurothermEpc3016,
    EurothermEpc3016Limits,
    EurothermEpc3016Settings,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.modbus import ILLEGAL_ADDRESS, ModbusRefusal, ModbusTcpSlave
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.instruments.eurotherm_3216 import SimulatedEurotherm3216
from ppu_simulators.instruments.eurotherm_epc3016 import SimulatedEurothermEpc3016
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

SERIAL = "3012345"
PROFILE = FiringProfile((Segment(150.0, 10.0, 600.0),), cool_to_degc=140.0)
SAFETY: dict[str, Any] = {
    "setpoint_high_degc": 1100,
    "alarm_1_degc": 1150,
    "watchdog_timeout_s": 60,
}
WAIVED: dict[str, Any] = {
    "setpoint_high_degc": 1100,
    "alarm_1_degc": 1150,
    "watchdog": "waived because the laboratory has an independent cut-out",
}
LIMITS: dict[str, Any] = {"temperature_degc": [0, 1100], "ramp_degc_per_min": [0, 10]}


def lab_file(
    *,
    serial_number: str = "unset",
    settings: dict[str, Any] | None = None,
    twin: dict[str, Any] | None = None,
    on_abort: str | None = "ramp_down",
) -> LabFile:
    """Return a lab with one furnace in which a crucible with limestone stands."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "furnace": {
                    "driver": "ppu_drivers.eurotherm_epc3016:EurothermEpc3016",
                    "serial_number": serial_number,
                    "settings": {"time_format": "second", "safety": SAFETY}
                    | (settings or {}),
                    "limits": LIMITS,
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


class Overlay:
    """Registers that differ from what the controller would say or do."""

    def __init__(self, simulated: SimulatedEurothermEpc3016) -> None:
        self._simulated = simulated
        self.says: dict[int, int] = {}
        self.refuses: set[int] = set()
        self.ignores: set[int] = set()
        self.written: list[tuple[int, list[int]]] = []

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return the registers, some of them replaced."""
        if address in self.refuses:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        values = self._simulated.read(address, count, time)
        return [
            self.says.get(register, value)
            for register, value in enumerate(values, address)
        ]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take the values, or acknowledge and forget them."""
        self.written.append((address, values))
        if address not in self.ignores:
            self._simulated.write(address, values, time)


class Wire:
    """Stands between one client and the controller, and can keep silent."""

    framing = "modbus tcp"

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench
        self._slave = ModbusTcpSlave(1, bench.registers)

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        self._bench.functions.append(data[7])
        if self._bench.is_cut:
            return []  # nothing gets there
        answers = list(self._slave.receive(data, time))
        return [] if self._bench.is_silent else answers


class Bench:
    """A simulated furnace and its driver."""

    def __init__(self, lab: LabFile) -> None:
        self.world = World(lab, 1)
        self.entry = lab.devices["furnace"]
        self.simulated = SimulatedEurothermEpc3016(
            "furnace", self.entry, self.world, SERIAL
        )
        self.registers = Overlay(self.simulated)
        self.functions: list[int] = []
        self.is_cut = False
        self.is_silent = False
        self.simulated._front.conversation = lambda: Wire(self)
        self.driver: EurothermEpc3016

    async def start(self) -> None:
        """Listen, and make the driver; it is not connected."""
        connection = await self.simulated.start()
        self.driver = EurothermEpc3016(
            "furnace",
            self.entry,
            TcpConnection.model_validate(connection),
            EurothermEpc3016Settings.model_validate(self.entry.settings),
            EurothermEpc3016Limits.model_validate(self.entry.limits),
        )

    async def stop(self) -> None:
        """Close both ends, and stop sampling."""
        task = self.driver._firing.task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.driver.disconnect()
        await self.simulated.stop()

    async def begin(self, profile: FiringProfile = PROFILE) -> None:
        """Prepare and start a firing."""
        await self.driver.prepare(profile)
        await self.driver.kickoff()

    async def fire(self, profile: FiringProfile = PROFILE) -> None:
        """Run a whole firing."""
        await self.begin(profile)
        await self.driver.complete()

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Let lab time pass until the furnace has come so far."""
        for _ in range(10_000):
            if is_true():
                return
            await asyncio.sleep(5.0)
        raise AssertionError("it never came so far")

    def truth(self, register: int) -> int:
        """Return what a register really holds, without a word on the wire."""
        self.world.advance(running_loop().time())
        known = self.simulated._registers | self.simulated._live()
        return self.simulated._shown.to_word(register, known[register])

    def touch(self, register: int, value: int) -> None:
        """Set a register behind the driver's back, as at the front panel."""
        self.simulated.write(register, [value], running_loop().time())

    @property
    def is_off(self) -> bool:
        """Whether the program is reset and the output by hand at 0 %."""
        return (self.truth(23), self.truth(273), self.truth(4)) == (1, 1, 0)


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
        assert bench.world.incidents == []

    play(on_bench(scenario))


@pytest.mark.parametrize("time_format", ["second", "minute"])
def test_program_is_written_in_the_units_that_were_agreed(
    play: Play, time_format: str
) -> None:
    """Ramp and dwell of each segment, a dwell of 0 left out, and an end."""
    unit_s = {"second": 1, "minute": 60}[time_format]
    lab = lab_file(
        settings={
            "time_format": time_format,
            "safety": SAFETY | {"watchdog_timeout_s": 60 * unit_s},
        },
        twin={"time_format": time_format},
    )
    profile = FiringProfile(
        (Segment(500.0, 7.5, 0.0), Segment(900.0, 5.0, 3600.0)), 60.0
    )

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(profile)
        words = [bench.truth(register) for register in range(8328, 8368)]
        assert words[2:4] == [1, 0 if time_format == "second" else 1]
        assert words[6] == 1
        assert words[8:11] == [1, 5000, 75]
        assert words[16:19] == [1, 9000, 50]
        assert (words[24], words[26]) == (3, 3600 // unit_s)
        assert words[32] == 0

    play(on_bench(scenario, lab))


def test_unchanged_program_is_not_written_again(play: Play) -> None:
    """Sampling writes nothing; a repeated firing only starts."""

    async def scenario(bench: Bench) -> None:
        await bench.fire()
        before = len(bench.registers.written)
        await bench.fire()
        assert [register for register, _ in bench.registers.written[before:]] == [10573]
        assert set(bench.functions) == {3, 6}

    play(on_bench(scenario))


def test_both_controllers_fire_alike(play: Play) -> None:
    """The same profile gives the same chamber, within 2 K at every minute."""
    profile = FiringProfile(
        (Segment(300.0, 10.0, 1200.0), Segment(500.0, 4.0, 0.0), Segment(420.0, 3, 60)),
        cool_to_degc=390.0,
    )

    async def on_3216() -> list[tuple[float, float, float, float | None]]:
        lab = lab_file()
        entry = lab.devices["furnace"]
        simulated = SimulatedEurotherm3216("furnace", entry, World(lab, 1), "1")
        driver = Eurotherm3216(
            "furnace",
            entry,
            SerialConnection.model_validate(await simulated.start()),
            Eurotherm3216Settings.model_validate(
                {
                    "dwell_unit": "minute",
                    "safety": {"setpoint_high_degc": 1100, "alarm_1_degc": 1150},
                }
            ),
            Eurotherm3216Limits.model_validate(LIMITS),
        )
        try:
            await driver.connect_link()
            await driver.prepare(profile)
            await asyncio.sleep(60.0 - running_loop().time())
            await driver.kickoff()
            await driver.complete()
        finally:
            await driver.disconnect()
            await simulated.stop()
        return list(simulated.chamber.curve)

    found: list[list[tuple[float, float, float, float | None]]] = []

    async def scenario(bench: Bench) -> None:
        began_s = running_loop().time()
        await bench.driver.prepare(profile)
        await asyncio.sleep(60.0 - (running_loop().time() - began_s))
        await bench.driver.kickoff()
        await bench.driver.complete()
        found.append(list(bench.simulated.chamber.curve))

    play(on_bench(scenario))
    chamber_epc = [chamber for _, _, chamber, _ in found[0]]
    loop = LabTimeLoop(None)
    with loop.active():
        chamber_3216 = [row[2] for row in loop.run_until_complete(on_3216())]
    loop.close()
    n_common = min(len(chamber_epc), len(chamber_3216))
    differences = [
        abs(one - other)
        for one, other in zip(
            chamber_epc[:n_common], chamber_3216[:n_common], strict=True
        )
    ]

    assert n_common > 100
    assert max(chamber_epc) > 480
    assert max(differences) < 2.0


def test_profile_is_refused_with_every_fault_when_limits_are_exceeded(
    play: Play,
) -> None:
    """All faults come in one message and nothing is sent."""
    wrong = FiringProfile(
        (*(Segment(100.0 + n, 5.0, 60.0) for n in range(7)), Segment(1200.0, 20, 0.5)),
        cool_to_degc=60.0,
    )

    async def scenario(bench: Bench) -> None:
        n_sent = len(bench.functions)
        with pytest.raises(LimitError) as caught:
            await bench.driver.prepare(wrong)
        for part in (
            "8 segments, which the controller needs 17 of its own for",
            "segment 8: 1200 degC, allowed are 0 to 1100 degC",
            "segment 8: 20 degC/min",
            "segment 8: a dwell of 0.5 s, allowed are whole seconds",
        ):
            assert part in str(caught.value)
        assert len(bench.functions) == n_sent

    play(on_bench(scenario))


def test_prepare_refuses_when_the_controller_is_not_set_as_the_lab_file_says(
    play: Play,
) -> None:
    """Every safety setting that differs is named, and nothing was written."""
    registers = {
        13: 13000,
        34: 200,
        518: 0,
        536: 2,
        553: 1,
        1173: 2,
        1857: 900,
        1930: 0,
        2127: 1,
        10580: 2,
    }

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConfigurationError) as caught:
            await bench.driver.prepare(PROFILE)
        for part in (
            "alarm 1 threshold (13) is 1300.0, the lab file says 1150.0",
            "fallback output (34) is 20.0, the lab file says 0.0",
            "power return (518) is ramp back, the lab file says reset",
            "alarm 1 type (536) is low, the lab file says high",
            "output for a bad PV (553) is hold, the lab file says fallback",
            "comms time format (1173) is minute, the lab file says second",
            "output high limit (1857) is 90.0, the lab file says 100.0",
            "sensor break type (1930) is off, the lab file says on",
            "alarm 1 inhibit (2127) is on, the lab file says off",
            "ramp rate decimals (10580) is 2, the lab file says 1",
        ):
            assert part in str(caught.value)
        assert bench.registers.written == []

    play(on_bench(scenario, lab_file(twin={"registers": registers})))


def test_prepare_fails_when_the_controller_forgets_what_it_acknowledged(
    play: Play,
) -> None:
    """A program that reads back as another one is not started."""

    async def scenario(bench: Bench) -> None:
        bench.registers.ignores = {8337}
        with pytest.raises(InstrumentError, match="the program reads back as"):
            await bench.driver.prepare(PROFILE)
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await bench.driver.kickoff()

    play(on_bench(scenario))


@pytest.mark.parametrize("mode", [2, 4])
def test_prepare_is_refused_when_a_program_is_under_way(play: Play, mode: int) -> None:
    """What somebody runs or holds at the controller is not overwritten."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(PROFILE)
        bench.touch(10573, 1)
        bench.touch(23, mode)
        bench.registers.written.clear()
        with pytest.raises(InterlockError, match="a program is in state"):
            await bench.driver.prepare(PROFILE)
        assert bench.registers.written == []

    play(on_bench(scenario))


def test_firing_begins_when_the_last_program_is_complete(play: Play) -> None:
    """A program that ended and was left standing is reset first."""

    async def scenario(bench: Bench) -> None:
        for register, value in ((8336, 4), (8337, 300), (8334, 0), (10573, 1)):
            bench.touch(register, value)
        await asyncio.sleep(5.0)
        assert bench.truth(23) == 16
        await bench.fire(FiringProfile((Segment(60.0, 10.0, 60.0),), 70.0))
        assert bench.truth(23) == 1

    play(on_bench(scenario))


def test_firing_stops_when_its_program_is_held(play: Play) -> None:
    """HOLD at the panel is a fault, and the heater goes off."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(300.0)
        bench.touch(10574, 1)
        with pytest.raises(InstrumentError, match=r"on hold.*the heater is off"):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario))


def test_firing_stops_when_the_chamber_is_waited_for(play: Play) -> None:
    """A holdback that somebody set would change every dwell."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        bench.touch(8329, 1)
        bench.touch(8328, 3)
        with pytest.raises(InstrumentError, match="on hold"):
            await bench.driver.complete()

    play(on_bench(scenario))


def test_wrong_time_format_is_caught_on_the_first_run(play: Play) -> None:
    """A dwell 60 times too long stops the firing, whatever the registers say."""

    async def scenario(bench: Bench) -> None:
        # The controller counts minutes and says seconds.
        bench.touch(1173, 2)
        bench.registers.says[1173] = 1
        with pytest.raises(InstrumentError, match="still dwells after"):
            await bench.fire(FiringProfile((Segment(60.0, 10.0, 120.0),), 50.0))
        assert bench.is_off

    play(on_bench(scenario))


# -- the communications watchdog ------------------------------------------------------


@pytest.mark.parametrize(
    ("register", "value", "text"),
    [
        (1169, 0, r"watchdog timeout \(1169, in seconds\) is 0, .* says 60"),
        (1169, 600, r"watchdog timeout \(1169, in seconds\) is 600, .* says 60"),
        (1170, 1, r"watchdog action \(1170\) is auto, the lab file says manual"),
        (1171, 5, r"watchdog recovery \(1171, in seconds\) is 5, .* says 0"),
    ],
)
def test_driver_refuses_to_heat_when_the_watchdog_is_off_or_another_one(
    play: Play, register: int, value: int, text: str
) -> None:
    """Without the watchdog of the lab file nothing is loaded and nothing started."""
    lab = lab_file(twin={"registers": {register: value}})

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConfigurationError, match=text):
            await bench.driver.prepare(PROFILE)
        assert bench.registers.written == []

    play(on_bench(scenario, lab))


def test_driver_heats_without_a_watchdog_when_that_is_waived_in_writing(
    play: Play,
) -> None:
    """A lab that takes the risk says so in its file."""
    lab = lab_file(settings={"safety": WAIVED}, twin={"registers": {1169: 0}})

    async def scenario(bench: Bench) -> None:
        await bench.fire()
        assert bench.driver.last_firing is not None

    play(on_bench(scenario, lab))


@pytest.mark.parametrize(
    "change",
    [
        {"watchdog_timeout_s": None},
        {"watchdog": "waived because I say so"},
        {"watchdog_timeout_s": None, "watchdog": "no"},
        {"watchdog_timeout_s": None, "watchdog": "waived because "},
        {"watchdog_action": "auto"},
    ],
    ids=["neither", "both", "no reason", "empty reason", "one that heats on"],
)
def test_settings_are_refused_when_they_do_not_settle_the_watchdog(
    change: dict[str, Any],
) -> None:
    """Either a timeout or a reason to do without; never both, never nothing."""
    with pytest.raises(ValidationError, match="watchdog"):
        EurothermEpc3016Settings.model_validate(
            {"time_format": "second", "safety": SAFETY | change}
        )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"sample_period_s": 25.0}, "feeds it too seldom"),
        ({"safety": SAFETY | {"watchdog_timeout_s": 59.5}}, "counts in whole seconds"),
        ({"safety": SAFETY | {"alarm_1_degc": 1000}}, "raise the alarm"),
    ],
)
def test_driver_is_refused_when_its_lab_file_contradicts_itself(
    settings: dict[str, Any], text: str
) -> None:
    """Sampling must feed the watchdog, in units that the controller has."""
    entry = lab_file(settings=settings).devices["furnace"]

    faults = EurothermEpc3016.inconsistencies(
        EurothermEpc3016Settings.model_validate(entry.settings),
        EurothermEpc3016Limits.model_validate(entry.limits),
    )

    assert len(faults) == 1
    assert text in faults[0]


def test_furnace_cools_down_when_its_driver_dies(play: Play) -> None:
    """Nobody asks any more: after the timeout the power is off, and stays off."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(300.0, 10.0, 7200.0),), 60.0))
        await bench.until(lambda: bench.truth(5) >= 2000)
        task = bench.driver._firing.task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await bench.driver.disconnect()
        hottest = bench.simulated.chamber.chamber_degc
        await asyncio.sleep(75.0)
        assert (bench.truth(1172), bench.truth(4), bench.truth(23)) == (1, 0, 2)
        await asyncio.sleep(7200.0)
        assert bench.truth(4) == 0
        assert bench.simulated.chamber.chamber_degc < hottest - 30.0

    play(on_bench(scenario))


def test_furnace_goes_on_heating_when_the_watchdog_is_not_wired(play: Play) -> None:
    """The flag alone does nothing: what it leads to must be tried on the bench."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(300.0, 10.0, 7200.0),), 60.0))
        task = bench.driver._firing.task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(600.0)
        assert bench.truth(1172) == 1
        assert bench.truth(4) > 0

    play(on_bench(scenario, lab_file(twin={"is_watchdog_wired": False})))


def test_firing_stops_when_the_watchdog_acted_during_a_silence(play: Play) -> None:
    """A firing that was without power for a while is not called done."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(400.0)
        bench.is_cut = True
        await asyncio.sleep(100.0)
        bench.is_cut = False
        with pytest.raises(InstrumentError, match=r"watchdog has taken.*is off"):
            await bench.driver.complete()
        assert bench.is_off

    play(on_bench(scenario))


def test_firing_goes_on_when_a_silence_was_shorter_than_the_timeout(
    play: Play,
) -> None:
    """Half a minute without answers costs samples, not the firing."""

    async def scenario(bench: Bench) -> None:
        await bench.begin()
        await asyncio.sleep(400.0)
        bench.is_cut = True
        await asyncio.sleep(35.0)
        bench.is_cut = False
        await bench.driver.complete()
        assert bench.truth(1172) == 0

    play(on_bench(scenario))


def test_firing_goes_on_when_the_silence_is_in_the_cooling(play: Play) -> None:
    """A watchdog that takes no power away does no harm."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(100.0, 10.0, 60.0),), 70.0))
        await bench.until(lambda: bench.truth(23) == 1)
        await asyncio.sleep(60.0)
        bench.is_cut = True
        await asyncio.sleep(100.0)
        assert bench.truth(1172) == 1
        bench.is_cut = False
        await bench.driver.complete()

    play(on_bench(scenario))


def test_firing_is_given_up_when_the_controller_stays_silent(play: Play) -> None:
    """After the silence of the lab file the driver gives up; the heater is off."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(300.0, 10.0, 7200.0),), 60.0))
        await asyncio.sleep(400.0)
        bench.is_cut = True
        with pytest.raises(TransportError, match="furnace: "):
            await bench.driver.complete()
        assert (bench.truth(1172), bench.truth(4)) == (1, 0)

    play(on_bench(scenario))


def test_kickoff_lowers_the_flag_when_nobody_talked_to_an_idle_furnace(
    play: Play,
) -> None:
    """Idle hours let the watchdog act; that does not keep the next firing out."""

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(3600.0)
        assert bench.truth(1172) == 1
        await bench.driver.prepare(PROFILE)
        await asyncio.sleep(3600.0)
        await bench.driver.kickoff()
        assert bench.truth(1172) == 0
        await bench.driver.complete()

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("recovery_s", "pause_s", "is_up"),
    [(0, 30, False), (20, 30, True), (20, 10, False)],
)
def test_automatic_flag_goes_down_when_it_is_talked_to_again(
    recovery_s: int, pause_s: float, is_up: bool
) -> None:
    """At once without a recovery time, else after two requests within it."""
    lab = lab_file(twin={"registers": {1170: 1, 1171: recovery_s}})
    world = World(lab, 1)
    simulated = SimulatedEurothermEpc3016(
        "furnace", lab.devices["furnace"], world, SERIAL
    )
    simulated.read(1, 1, 0.0)
    world.advance(100.0)
    assert simulated._registers[1172] == 1
    simulated.read(1, 1, 100.0)
    simulated.read(1, 1, 100.0 + pause_s)

    assert simulated.read(1172, 1, 100.0 + pause_s + 50.0) == [int(is_up)]


# -- stopping -------------------------------------------------------------------------


async def interrupted(bench: Bench) -> None:
    """Cancel the wait for a firing in the middle of its ramp."""
    await bench.begin()
    status = bench.driver.complete()
    await asyncio.sleep(600.0)
    status.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await status


def test_abort_ramps_down_and_feeds_the_watchdog_meanwhile(play: Play) -> None:
    """The ramp goes on as long as PPU lives, and ends within the timeout after it."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        told = await bench.driver.go_to_abort_state()
        assert "ramping down at 5 degC/min to 0 degC, verified" in told
        assert "its watchdog takes the power off within 60 s" in told
        assert (bench.truth(23), bench.truth(1667)) == (1, 50)
        setpoint = bench.truth(5)
        await asyncio.sleep(300.0)
        assert setpoint - bench.truth(5) == pytest.approx(250, abs=2)
        assert bench.truth(1172) == 0
        await bench.driver.disconnect()
        await asyncio.sleep(75.0)
        assert (bench.truth(1172), bench.truth(4)) == (1, 0)

    play(on_bench(scenario))


def test_abort_feeds_no_more_when_the_chamber_is_cold(play: Play) -> None:
    """Nobody polls a cold furnace for ever."""

    async def scenario(bench: Bench) -> None:
        await bench.begin(FiringProfile((Segment(70.0, 10.0, 600.0),), 40.0))
        await asyncio.sleep(600.0)
        await bench.driver.go_to_abort_state()
        feeding = bench.driver._feeder.task
        assert feeding is not None
        await bench.until(feeding.done)
        assert bench.truth(1) <= 610

    play(on_bench(scenario))


def test_abort_switches_off_and_proves_it(play: Play) -> None:
    """Heater off means by hand at 0 %, as read back from the controller."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        told = await bench.driver.go_to_abort_state()
        assert told == "furnace: heater off, verified (by hand, 0 %)"
        assert bench.is_off
        await bench.fire()  # what an abort changed is set back

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_abort_leaves_the_program_alone_when_told_to(play: Play) -> None:
    """``continue`` writes nothing, and feeds the watchdog so that it does."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.registers.written.clear()
        told = await bench.driver.go_to_abort_state()
        assert "left alone, its program is in state run" in told
        await asyncio.sleep(300.0)
        assert bench.registers.written == []
        assert (bench.truth(23), bench.truth(1172)) == (2, 0)

    play(on_bench(scenario, lab_file(on_abort="continue")))


def test_abort_says_to_switch_off_at_the_wall_when_it_does_not_take(
    play: Play,
) -> None:
    """An acknowledged write that did nothing is noticed."""

    async def scenario(bench: Bench) -> None:
        await interrupted(bench)
        bench.registers.ignores = {3, 273, 10575}
        with pytest.raises(InstrumentError, match="switch it off at the wall"):
            await bench.driver.go_to_abort_state()

    play(on_bench(scenario, lab_file(on_abort="heater_off")))


def test_abort_writes_nothing_when_the_furnace_is_idle(play: Play) -> None:
    """What this driver did not start is not its to stop."""

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.registers.written == []

    play(on_bench(scenario))


def test_hot_parts_are_told_only_while_they_are_hot(play: Play) -> None:
    """People learn the temperature of the chamber if they could burn themselves."""

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.hot_parts() == ""
        await bench.fire()
        assert "the chamber is at 1" in await bench.driver.hot_parts()

    play(on_bench(scenario))


# -- connecting -----------------------------------------------------------------------


def test_identity_is_kept_when_the_right_controller_answers(play: Play) -> None:
    """Instrument number and firmware come from the controller."""

    async def scenario(bench: Bench) -> None:
        identity = bench.driver.identity
        assert identity is not None
        assert (identity.serial_number, identity.firmware) == (SERIAL, "E4.10")

    play(on_bench(scenario, lab_file(serial_number=SERIAL)))


def test_identity_has_the_low_half_of_the_number_when_that_is_all_there_is(
    play: Play,
) -> None:
    """A controller without 32-bit registers still tells itself from its neighbour."""

    async def scenario(bench: Bench) -> None:
        bench.registers.refuses = {0x8000 + 2 * 1026}
        await bench.driver.connect_link()
        identity = bench.driver.identity
        assert identity is not None
        assert identity.serial_number == str(int(SERIAL) & 0xFFFF)

    play(on_bench(scenario, connects=False))


@pytest.mark.parametrize(
    ("register", "value", "text"),
    [
        (18432, 0x0102, "its firmware version is"),
        (121, 0, "its company id is 0"),
        (23, 3, "its program mode 3"),
    ],
)
def test_connect_is_refused_when_another_model_answers(
    play: Play, register: int, value: int, text: str
) -> None:
    """A Modbus device that is no EPC is told from one."""

    async def scenario(bench: Bench) -> None:
        bench.registers.says[register] = value
        with pytest.raises(ConnectError, match=f"is no Eurotherm EPC.*{text}"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


def test_connect_is_refused_when_the_unit_lacks_the_registers(play: Play) -> None:
    """A Modbus device that refuses the identity is no EPC."""

    async def scenario(bench: Bench) -> None:
        bench.registers.refuses = {18432}
        with pytest.raises(ConnectError, match=r"is no Eurotherm EPC.*illegal data"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


# -- the master's single writes -------------------------------------------------------


class EchoesWrongly:
    """Acknowledges another value than was written."""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Answer with the last bit of the value turned."""
        return [Answer(data[:-1] + bytes([data[-1] ^ 1]))]


def test_single_write_is_malformed_when_its_echo_differs(play: Play) -> None:
    """Function 6 answers with what it was asked; anything else is no answer."""

    async def scenario() -> None:
        front = TcpFront(EchoesWrongly())
        host, port = await front.start()
        master = ModbusMaster(
            "furnace", TcpConnection(transport="tcp", host=host, port=port)
        )
        try:
            with pytest.raises(MalformedReply, match="asked was 7 at 24"):
                await master.write_register(24, 7)
        finally:
            await master.link.close()
            await front.stop()

    play(scenario())


# -- an independent client ------------------------------------------------------------

EPC_LAB = """\
lab: small
schema_version: 1
devices:
  furnace:
    driver: ppu_drivers.eurotherm_epc3016:EurothermEpc3016
    simulator: ppu_simulators.instruments.eurotherm_epc3016:SimulatedEurothermEpc3016
    hardware: {transport: tcp, host: 127.0.0.1, port: 502}
    settings:
      time_format: second
      safety: {setpoint_high_degc: 1100, alarm_1_degc: 1150, watchdog_timeout_s: 60}
    limits: {temperature_degc: [0, 1100], ramp_degc_per_min: [0, 10]}
    on_abort: ramp_down
    provides: [Furnace]
    slots: [furnace.slot_1]
locations:
  furnace.slot_1: {holds: crucible, inside: furnace}
"""


@pytest.fixture
def pymodbus_client(ppu_command: str, tmp_path: Path) -> Iterator[ModbusTcpClient]:
    """Connect pymodbus's own client to the furnace of ``ppu sim``."""
    lab = tmp_path / "lab.yaml"
    lab.write_text(EPC_LAB)
    process = subprocess.Popen(  # noqa: S603 - our own command
        [ppu_command, "sim", str(lab), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60.0, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        endpoint = json.loads(process.stdout.readline())["devices"]["furnace"]
        host, port = endpoint["endpoint"].rsplit(":", 1)
        client = ModbusTcpClient(host, port=int(port), timeout=5.0)
        assert client.connect()  # type: ignore[no-untyped-call]  # pymodbus leaves it so
        yield client
        client.close()  # type: ignore[no-untyped-call]  # pymodbus leaves it so
    finally:
        guard.cancel()
        guard.join()
        process.terminate()
        process.communicate()


def test_pymodbus_reads_and_runs_a_program_on_the_simulated_controller(
    pymodbus_client: ModbusTcpClient,
) -> None:
    """Another library's client reads, writes with functions 6 and 16, and starts."""
    client = pymodbus_client
    (temperature,) = client.read_holding_registers(1, count=1).registers
    assert 150 < temperature < 350
    written = client.write_registers(8336, [1, 3000, 100])
    assert not written.isError()
    assert client.read_holding_registers(8336, count=3).registers == [1, 3000, 100]
    assert client.write_register(8344, 0).registers == [0]
    client.write_register(10573, 1)
    assert client.read_holding_registers(23, count=1).registers == [2]
    client.write_register(10575, 1)
    assert client.read_holding_registers(23, count=1).registers == [1]
    assert client.write_register(8337, 12000).exception_code == 3
    assert client.read_holding_registers(999, count=1).exception_code == 2
    assert client.read_coils(1, count=1).exception_code == 1
