"""What can go wrong inside a furnace, and that no driver calls it a firing."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import InstrumentError
from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
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
from ppu_simulators.instruments.eurotherm_3216 import SimulatedEurotherm3216
from ppu_simulators.instruments.eurotherm_epc3016 import SimulatedEurothermEpc3016
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

RAMP_S = 3000.0
"""Into a ramp of 5 degC/min, at 270 degC."""
DWELL_S = 6000.0
"""Into the dwell at 400 degC."""
COOLING_S = 9300.0
"""Ten minutes after the program has ended."""
PROFILE = FiringProfile((Segment(400.0, 5.0, 4200.0),), cool_to_degc=250.0)
LIMITS: dict[str, Any] = {
    "temperature_degc": [0, 1100],
    "ramp_degc_per_min": [0, 10],
}
SAFETY: dict[str, Any] = {"setpoint_high_degc": 1100, "alarm_1_degc": 1150}
BOTH = pytest.mark.parametrize("kind", ["3216", "epc3016"])


def lab_file(faults: list[dict[str, Any]], twin: dict[str, Any]) -> LabFile:
    """Return a lab with one furnace in which a crucible with limestone stands."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "furnace": {
                    "driver": "nobody:Cares",
                    "slots": ["furnace.slot_1"],
                    "twin": {"faults": faults, **twin},
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


class Furnace:
    """A simulated furnace with one of the two controllers, and its driver."""

    def __init__(self, kind: str, world: World) -> None:
        entry = world.lab.devices["furnace"]
        self.kind = kind
        self.entry = entry
        self.simulated: SimulatedEurotherm3216 | SimulatedEurothermEpc3016
        if kind == "3216":
            self.simulated = SimulatedEurotherm3216("furnace", entry, world, "4711")
        else:
            self.simulated = SimulatedEurothermEpc3016("furnace", entry, world, "4711")
        self.driver: Eurotherm3216 | EurothermEpc3016

    async def start(self) -> None:
        """Open the port, and make and connect the driver."""
        connection = await self.simulated.start()
        if self.kind == "3216":
            self.driver = Eurotherm3216(
                "furnace",
                self.entry,
                SerialConnection.model_validate(connection),
                Eurotherm3216Settings.model_validate(
                    {"dwell_unit": "minute", "safety": SAFETY}
                ),
                Eurotherm3216Limits.model_validate(LIMITS),
            )
        else:
            self.driver = EurothermEpc3016(
                "furnace",
                self.entry,
                TcpConnection.model_validate(connection),
                EurothermEpc3016Settings.model_validate(
                    {
                        "time_format": "second",
                        "safety": SAFETY | {"watchdog_timeout_s": 60},
                    }
                ),
                EurothermEpc3016Limits.model_validate(LIMITS),
            )
        await self.driver.connect_link()

    async def stop(self) -> None:
        """Close both ends."""
        task = self.driver._firing.task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self.driver.disconnect()
        await self.simulated.stop()

    async def fire(self, profile: FiringProfile) -> None:
        """Run a whole firing."""
        await self.driver.prepare(profile)
        await self.driver.kickoff()
        await self.driver.complete()

    @property
    def is_off(self) -> bool:
        """Whether the controller asks for no power by hand."""
        self.simulated.chamber.advance(running_loop().time())
        return (
            self.simulated.chamber.output == 0.0 and self.simulated.manual_output == 0.0
        )


async def fire(
    kind: str,
    seed: int,
    faults: list[dict[str, Any]],
    profile: FiringProfile = PROFILE,
    twin: dict[str, Any] | None = None,
) -> tuple[Furnace, World, InstrumentError | None, float]:
    """Run a firing; return furnace, world, how it failed, and when."""
    world = World(lab_file(faults, twin or {}), seed)
    furnace = Furnace(kind, world)
    await furnace.start()
    error = None
    try:
        await furnace.fire(profile)
    except InstrumentError as exc:
        error = exc
        assert furnace.driver.last_firing is None
        assert furnace.is_off
    finally:
        ended_s = running_loop().time()
        await furnace.stop()
    return furnace, world, error, ended_s


@BOTH
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("fault", "at_s", "named", "within_s"),
    [
        ("thermocouple open", RAMP_S, "broken thermocouple", 20),
        ("thermocouple slipped", RAMP_S, "thermocouple has slipped", 120),
        ("thermocouple reversed", 0.0, "thermocouple is reversed", 600),
        ("element open", RAMP_S, "element or its supply is open", 400),
        ("relay welded", RAMP_S, "relay is welded", 600),
        ("sensor frozen", RAMP_S, "sensor is frozen", 330),
    ],
)
def test_firing_fails_with_the_name_of_what_broke_while_it_heats(
    play: Play,
    kind: str,
    seed: int,
    fault: str,
    at_s: float,
    named: str,
    within_s: float,
) -> None:
    """Every fault ends the firing in minutes, and the controller asks for no power."""
    faults = [{"fault": fault, "at_s": at_s}]

    _, _, error, ended_s = play(fire(kind, seed, faults))

    assert named in str(error)
    assert "the heater is off" in str(error)
    assert ended_s - at_s < within_s


@BOTH
@pytest.mark.parametrize(
    ("fault", "at_s", "named", "within_s"),
    [
        ("thermocouple open", DWELL_S, "broken thermocouple", 20),
        ("thermocouple slipped", DWELL_S, "thermocouple has slipped", 120),
        ("thermocouple reversed", DWELL_S, "thermocouple is reversed", 20),
        ("element open", DWELL_S, "element or its supply is open", 900),
        ("relay welded", DWELL_S, "relay is welded", 400),
        ("sensor frozen", DWELL_S, "sensor is frozen", 1200),
        ("thermocouple open", COOLING_S, "broken thermocouple", 20),
        ("thermocouple slipped", COOLING_S, "thermocouple has slipped", 120),
        ("thermocouple reversed", COOLING_S, "thermocouple is reversed", 20),
        ("relay welded", COOLING_S, "relay is welded", 180),
        ("sensor frozen", COOLING_S, "sensor is frozen", 330),
        ("element open", 0.0, "element or its supply is open", 600),
        ("relay welded", 0.0, "relay is welded", 600),
        ("sensor frozen", 0.0, "sensor is frozen", 330),
    ],
)
def test_firing_fails_with_the_name_of_what_broke_whenever_it_does(
    play: Play, kind: str, fault: str, at_s: float, named: str, within_s: float
) -> None:
    """At the start, in the dwell and in the cooling a fault is found and named, too."""
    _, _, error, ended_s = play(fire(kind, 1, [{"fault": fault, "at_s": at_s}]))

    assert named in str(error)
    assert ended_s - at_s < within_s


@BOTH
def test_firing_is_not_stopped_when_nothing_is_wrong(play: Play, kind: str) -> None:
    """The same firing without a fault comes to its end and says what was done."""
    furnace, world, error, _ = play(fire(kind, 1, []))

    assert error is None
    assert furnace.driver.last_firing is not None
    assert furnace.driver.last_firing.dwell_s == pytest.approx((4200.0,), abs=25)
    assert world.incidents == []


@BOTH
def test_latched_sensor_break_stays_until_it_is_acknowledged(
    play: Play, kind: str
) -> None:
    """A thermocouple that came back by itself is not trusted without a person."""
    register = {"3216": 578, "epc3016": 1930}[kind]
    faults = [{"fault": "thermocouple open", "at_s": 100, "for_s": 50}]

    async def scenario() -> list[bool]:
        lab = lab_file(faults, {"registers": {register: 2}})
        furnace = Furnace(kind, World(lab, 1))
        chamber = furnace.simulated.chamber
        seen = []
        for time in (90.0, 120.0, 400.0):
            chamber.advance(time)
            seen.append(chamber.is_sensor_broken)
        furnace.simulated.write(274, [1], 400.0)
        return [*seen, chamber.is_sensor_broken]

    assert play(scenario()) == [False, True, True, False]


@BOTH
def test_open_thermocouple_reads_the_room_when_no_break_is_looked_for(
    play: Play, kind: str
) -> None:
    """Nothing drives the input up: the controller believes in a cold chamber."""
    register = {"3216": 578, "epc3016": 1930}[kind]
    faults = [{"fault": "thermocouple open"}]

    async def scenario() -> tuple[float, bool]:
        lab = lab_file(faults, {"registers": {register: 0}})
        furnace = Furnace(kind, World(lab, 1))
        chamber = furnace.simulated.chamber
        chamber.advance(100.0)
        return chamber.pv_degc, chamber.is_sensor_broken

    assert play(scenario()) == (23.0, False)


@BOTH
def test_world_records_it_when_a_furnace_runs_away(play: Play, kind: str) -> None:
    """A welded relay that nobody cuts off overheats chamber and crucible, once told."""

    async def scenario() -> World:
        world = World(lab_file([{"fault": "relay welded"}], {"max_degc": 900.0}), 1)
        Furnace(kind, world)
        world.advance(7200.0)
        return world

    told = play(scenario()).incidents

    assert [incident.kind for incident in told] == ["over-temperature"]
    assert "made for 900 degC" in told[0].text


def test_faults_do_not_depend_on_who_looks_how_often() -> None:
    """The same fault at the same time gives the same truth, polled or not."""
    curves = []
    for step_s in (7.0, 10.0, 600.0):
        lab = lab_file([{"fault": "thermocouple slipped", "at_s": 605.0}], {})
        world = World(lab, 1)
        simulated = SimulatedEurotherm3216(
            "furnace", lab.devices["furnace"], world, "1"
        )
        for register, value in ((1280, 10), (1281, 3000), (1282, 100), (23, 1)):
            simulated.write(register, [value], 0.0)
        for n in range(math.ceil(4200 / step_s)):
            world.advance(n * step_s)
        world.advance(4200.0)
        curves.append(simulated.chamber.curve)

    assert curves[0] == curves[1] == curves[2]
