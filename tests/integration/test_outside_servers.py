"""Real drivers against servers that are no simulators of ours.

They were written from what real controllers were seen to do, share no code with the
simulators, and are carried by bare sockets and pseudo-terminals.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from independent.carriers import SerialCarrier
from independent.door_server import DoorServer
from independent.furnace_3216_server import Furnace3216Server
from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    LimitError,
    MalformedReply,
)
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.devices.readings import Quality
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu_drivers.eurotherm_3216 import (
    Eurotherm3216,
    Eurotherm3216Limits,
    Eurotherm3216Settings,
)
from ppu_drivers.furnace_door import (
    FurnaceDoor,
    FurnaceDoorLimits,
    FurnaceDoorSettings,
)

Play = Callable[[Coroutine[Any, Any, Any]], Any]


# -- the door --------------------------------------------------------------------------


def at_door(
    play: Play, server: DoorServer, scene: Callable[..., Awaitable[None]]
) -> None:
    """Play *scene* with *server* and a driver for each of its doors."""

    async def run() -> None:
        port = await server.start()
        doors = [
            FurnaceDoor(
                f"door_{label}",
                DeviceEntry(driver="ppu_drivers.furnace_door:FurnaceDoor"),
                TcpConnection(transport="tcp", host="127.0.0.1", port=port),
                FurnaceDoorSettings(encloses="furnace_1", door=label),
                FurnaceDoorLimits(),
            )
            for label in "AB"
        ]
        try:
            for door in doors:
                await door.connect_link()
            await scene(*doors)
        finally:
            for door in doors:
                await door.disconnect()
            await asyncio.sleep(0.5)
            await server.stop()

    play(run())


@pytest.mark.parametrize("line_end", ["", "\n", "\r\n"])
def test_door_of_the_real_firmware_opens_and_closes(play: Play, line_end: str) -> None:
    """Answers without an end are understood, and so are those of others with one."""
    server = DoorServer(line_end=line_end)

    async def scene(door: FurnaceDoor, _: FurnaceDoor) -> None:
        identity = door.identity
        assert identity is not None
        assert identity.serial_number is None
        begun = running_loop().time()
        await door.set("open")
        assert server.motors["A"].place == server.travel_s
        assert 10.0 <= running_loop().time() - begun < 14.0
        await door.set("open")
        await door.set("closed")
        assert server.motors["A"].place == 0.0
        assert server.motors["A"].called == "Closed"
        assert [one for one in server.heard if one != "Status"] == ["Open A", "Close A"]

    at_door(play, server, scene)
    assert server.longest_visit_s < 1.0, "the firmware looks at nothing meanwhile"


def test_two_doors_of_one_controller_wait_for_each_other(play: Play) -> None:
    """It serves one client at a time and moves one door at a time."""
    server = DoorServer()

    async def scene(door_a: FurnaceDoor, door_b: FurnaceDoor) -> None:
        await asyncio.gather(door_a.read_status(), door_b.read_status())
        opening = door_a.set("open")
        await asyncio.sleep(2.0)
        await asyncio.gather(opening, door_b.set("open"))
        assert [motor.called for motor in server.motors.values()] == ["Open", "Open"]

    at_door(play, server, scene)
    assert server.most_at_once > 1, "nobody had to wait"


def test_door_that_does_not_open_in_time_is_an_error_that_stays(play: Play) -> None:
    """It is driven shut, and every attempt after it is told of the error."""
    server = DoorServer(travel_s=60.0)

    async def scene(door: FurnaceDoor, _: FurnaceDoor) -> None:
        with pytest.raises(InstrumentError, match="drives a door shut"):
            await door.set("open")
        await asyncio.sleep(40.0)
        assert (server.state, server.motors["A"].called) == ("ERROR", "Unknown")
        assert server.motors["A"].place == 0.0
        with pytest.raises(InstrumentError, match="error before it could be closed"):
            await door.set("closed")

    at_door(play, server, scene)


def test_door_of_another_name_is_refused_when_connected(play: Play) -> None:
    """A status that does not mention the door tells nothing of it."""
    server = DoorServer()
    server.__post_init__()
    del server.motors["B"]

    async def scene(*_: FurnaceDoor) -> None:
        raise AssertionError("it connected")

    with pytest.raises(Exception, match="does not say how door B is"):
        at_door(play, server, scene)


# -- the furnace -----------------------------------------------------------------------


def at_furnace(
    play: Play,
    server: Furnace3216Server,
    scene: Callable[[Eurotherm3216], Awaitable[None]],
    *,
    high: float = 1100.0,
    connects: bool = True,
) -> None:
    """Play *scene* with *server* and its driver."""
    alarm = server.held[13]

    async def run() -> None:
        line = SerialCarrier(server.answer)
        furnace = Eurotherm3216(
            "furnace",
            DeviceEntry(
                driver="ppu_drivers.eurotherm_3216:Eurotherm3216",
                slots=("furnace.slot_1",),
            ),
            SerialConnection(transport="serial", port=line.port, baudrate=9600),
            Eurotherm3216Settings.model_validate(
                {
                    "dwell_unit": "minute",
                    "safety": {"setpoint_high_degc": high, "alarm_1_degc": alarm},
                }
            ),
            Eurotherm3216Limits(
                temperature_degc=(0.0, high), ramp_degc_per_min=(0.0, 10.0)
            ),
        )
        try:
            if connects:
                await furnace.connect_link()
            await scene(furnace)
        finally:
            await furnace.disconnect()
            line.close()

    play(run())


AT_EVERY_SCALE = pytest.mark.parametrize(
    ("decimals", "high"), [(0, 1100.0), (1, 1100.0), (2, 300.0)]
)


@AT_EVERY_SCALE
@pytest.mark.parametrize("degc", [-12.0, 0.0, 21.0, 98.0, 256.0, 280.0])
def test_temperature_is_read_at_every_scale(
    play: Play, decimals: int, high: float, degc: float
) -> None:
    """Whatever the display shows, the reading is the temperature."""
    server = Furnace3216Server(decimals, setpoint_high=high, alarm=high + 20)
    server.temperature = degc

    async def scene(furnace: Eurotherm3216) -> None:
        reading = await furnace.read_signal("process_value")
        assert reading["value"] == pytest.approx(degc, abs=0.9)
        assert furnace.quality(reading) is Quality.GOOD
        assert await furnace.setpoint_high.get_value() == high

    at_furnace(play, server, scene, high=high)


def test_980_degc_is_980_degc_on_a_display_without_decimals(play: Play) -> None:
    """A furnace at 980 degC never passes for one of 98 that may be opened."""
    server = Furnace3216Server(0)
    server.temperature = 980.0

    async def scene(furnace: Eurotherm3216) -> None:
        assert await furnace.process_value.get_value() == pytest.approx(980, abs=2)
        assert "980 degC" in (await furnace.hot_parts()).replace("979", "980")

    at_furnace(play, server, scene)


@AT_EVERY_SCALE
def test_furnace_is_fired_at_every_scale(
    play: Play, decimals: int, high: float
) -> None:
    """A whole firing: program, dwell, end and cooling are what was asked."""
    server = Furnace3216Server(decimals, setpoint_high=high, alarm=high + 20)
    profile = FiringProfile(
        (Segment(120.0, 10.0, 900.0), Segment(150.0, 5.0, 1200.0)), cool_to_degc=130.0
    )

    async def scene(furnace: Eurotherm3216) -> None:
        await furnace.prepare(profile)
        await furnace.kickoff()
        await furnace.complete()
        record = furnace.last_firing
        assert record is not None
        assert record.dwell_s == pytest.approx((900, 1200), abs=40)
        assert record.max_temperature_degc == pytest.approx(server.hottest, abs=1.5)
        assert record.dwell_temperature_degc == pytest.approx(150, abs=3)

    at_furnace(play, server, scene, high=high)
    assert 145 < server.hottest < 160


@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_display_in_fahrenheit_is_refused_when_connected(
    play: Play, decimals: int
) -> None:
    """No temperature is told whose unit is not degC."""
    server = Furnace3216Server(decimals, unit=1)

    async def scene(furnace: Eurotherm3216) -> None:
        with pytest.raises(
            ConfigurationError, match=r"not shown in degC: register 516"
        ):
            await furnace.connect_link()

    at_furnace(play, server, scene, connects=False)


@pytest.mark.parametrize(
    ("before", "after"), [(b, a) for b in (0, 1, 2) for a in (0, 1, 2) if a != b]
)
def test_display_that_is_changed_at_the_panel_is_noticed(
    play: Play, before: int, after: int
) -> None:
    """The next reading is the temperature, with the new digits."""
    server = Furnace3216Server(before, setpoint_high=300.0, alarm=320.0)
    server.temperature = 200.0

    async def scene(furnace: Eurotherm3216) -> None:
        assert await furnace.process_value.get_value() == pytest.approx(200, abs=1.5)
        server.held[525] = after
        assert await furnace.process_value.get_value() == pytest.approx(200, abs=1.5)
        server.held[516] = 1
        reading = await furnace.read_signal("process_value")
        assert furnace.quality(reading) is Quality.INVALID
        server.held[516] = 0
        assert await furnace.process_value.get_value() == pytest.approx(200, abs=1.5)

    at_furnace(play, server, scene, high=300.0)


def test_display_that_is_changed_before_the_program_starts_changes_no_program(
    play: Play,
) -> None:
    """What was written in other digits reads back as another program and is not run."""
    server = Furnace3216Server(1)
    profile = FiringProfile((Segment(150.0, 10.0, 600.0),), cool_to_degc=60.0)

    async def scene(furnace: Eurotherm3216) -> None:
        await furnace.prepare(profile)
        server.held[516] = 1
        with pytest.raises(ConfigurationError, match="not shown in degC"):
            await furnace.kickoff()
        assert server.mode == 0

    at_furnace(play, server, scene)


def test_target_between_two_degrees_is_refused_on_a_display_of_whole_ones(
    play: Play,
) -> None:
    """Nothing is rounded in silence."""
    server = Furnace3216Server(0)
    profile = FiringProfile((Segment(150.4, 10.0, 600.0),), cool_to_degc=60.0)

    async def scene(furnace: Eurotherm3216) -> None:
        with pytest.raises(
            LimitError, match=r"150.4 degC cannot be sent.* is 150 degC"
        ):
            await furnace.prepare(profile)
        assert server.held[1281] == 0

    at_furnace(play, server, scene)


@pytest.mark.parametrize("has_floats", [True, False])
@pytest.mark.parametrize("degc", [340.0, 500.0, 980.0])
def test_what_needs_over_16_bits_is_read_as_a_float_or_not_at_all(
    play: Play, degc: float, has_floats: bool
) -> None:
    """With two decimals integers end at 327.67 degC: beyond, floats are believed."""
    server = Furnace3216Server(2, has_floats=has_floats)
    server.temperature = degc
    profile = FiringProfile((Segment(1000.0, 10.0, 600.0),), cool_to_degc=60.0)

    async def scene(furnace: Eurotherm3216) -> None:
        reading = await furnace.read_signal("process_value")
        if has_floats:
            assert furnace.quality(reading) is Quality.GOOD
            assert reading["value"] == pytest.approx(degc, abs=2)
            with pytest.raises(LimitError, match="1000 degC needs over 16 bits"):
                await furnace.prepare(profile)
            return
        assert furnace.quality(reading) is Quality.INVALID
        assert "16 bits end" in reading["message"]
        with pytest.raises((InstrumentError, MalformedReply), match="16 bits end"):
            await furnace.prepare(profile)

    at_furnace(play, server, scene)
