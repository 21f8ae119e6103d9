"""What every simulated instrument promises, tried on each that we bring."""

import asyncio
from pathlib import Path
from typing import Any

from ppu.core.capabilities import (
    Carry,
    Dose,
    DoseRequest,
    FiringProfile,
    GasRequest,
    ScanRequest,
    Segment,
)
from ppu.core.labtime import running_loop
from ppu.testing import HttpCall, SimulatorContract

LAB = Path(__file__).with_name("lab.yaml")


def carry(world: Any, container: str, origin: str, destination: str) -> None:
    """Have somebody carry a container in no time."""
    now = running_loop().time()
    world.pick_up(now, container, origin, "test")
    world.put_down(now, container, destination, "test")


class TestEurotherm3216(SimulatorContract):
    """A furnace with a sample in it, fired."""

    lab = LAB
    device = "furnace"
    reading = "process_value"
    is_noisy = True
    lasts_s = 1200.0

    def prepare(self, world: Any) -> None:
        """Put something into the furnace that can react."""
        carry(world, "crucible_02", "rack.3", "furnace.slot_1")

    async def act(self, device: Any) -> None:
        """Begin to heat."""
        profile = FiringProfile((Segment(900.0, 10.0, 60.0),), cool_to_degc=55.0)
        await device.prepare(profile)
        await device.kickoff()
        await asyncio.sleep(900.0)
        await device.go_to_abort_state()


class TestEurothermEpc3016(TestEurotherm3216):
    """A newer controller, and a watchdog."""

    device = "tcp_furnace"

    def prepare(self, world: Any) -> None:
        """Put something into the furnace that can react."""
        carry(world, "crucible_02", "rack.3", "tcp_furnace.slot_1")


class TestEurotherm3216WithoutADriver(SimulatorContract):
    """The same controller, told by raw frames: a program is read and started."""

    lab = LAB
    device = "furnace"
    script = (
        (1.0, bytes.fromhex("01 03 00 01 00 01 d5 ca")),
        (5.0, bytes.fromhex("01 06 00 02 07 d0 2b a6")),
        (9.0, b"\xff\xfe nonsense"),
    )
    reading = "process_value"


class TestMettlerSics(SimulatorContract):
    """A balance with a crucible on it."""

    lab = LAB
    device = "balance"
    reading = "present_mass"
    is_noisy = True

    def prepare(self, world: Any) -> None:
        """Put a crucible on the pan."""
        carry(world, "crucible_01", "rack.1", "balance.pan")

    async def act(self, device: Any) -> None:
        """Weigh."""
        await device.trigger()


class TestLabmanPowderRobot(SimulatorContract):
    """A powder robot that doses."""

    lab = LAB
    device = "dosing_robot"
    reading = "is_running"
    lasts_s = 900.0

    def prepare(self, world: Any) -> None:
        """Put a crucible into the robot."""
        carry(world, "crucible_01", "rack.1", "dosing_robot.station")

    def state(self, world: Any, simulated: Any) -> Any:
        """Compare what is in the crucible, too."""
        inside = world.containers["crucible_01"].matter.masses_g()
        return {**super().state(world, simulated), "crucible_01": inside}

    async def act(self, device: Any) -> None:
        """Dose one powder."""
        await device.prepare(DoseRequest("crucible_01", (Dose("CaCO3", 0.5),), 60.0))
        await device.trigger()


class TestLabmanWithoutADriver(SimulatorContract):
    """The same robot, told by raw requests."""

    lab = LAB
    device = "dosing_robot"
    reading = "is_running"
    script = (
        (1.0, HttpCall("/GetStatus")),
        (2.0, HttpCall("/NoSuchThing")),
        (3.0, HttpCall("/PotsLoaded", "POST", {"nonsense": []})),
    )


class TestPanalyticalAeris(SimulatorContract):
    """A diffractometer that measures."""

    lab = LAB
    device = "diffractometer"

    def prepare(self, world: Any) -> None:
        """Mount a specimen."""
        carry(world, "holder_01", "shelf.1", "diffractometer.slot_1")

    async def look(self, device: Any) -> Any:
        """Ask whether it is ready."""
        return await device.read_is_ready()

    async def act(self, device: Any) -> None:
        """Measure a short pattern."""
        await device.prepare(ScanRequest("sample", 20.0, 25.0, 60.0))
        await device.trigger()


class TestTechnician(SimulatorContract):
    """A person who carries."""

    lab = LAB
    device = "operator"

    async def look(self, device: Any) -> Any:
        """Ask who it is."""
        return (await device.read_identity()).serial_number

    async def act(self, device: Any) -> None:
        """Carry a crucible."""
        await device.set(Carry("crucible_01", "rack.1", "balance.pan"))


class TestAlicatMfc(SimulatorContract):
    """A flow controller that lets argon flow."""

    lab = LAB
    device = "gas"
    is_noisy = True

    async def look(self, device: Any) -> Any:
        """Poll it."""
        await device.trigger()
        return (await device.read_signal("flow"))["value"]

    async def act(self, device: Any) -> None:
        """Let argon flow."""
        await device.set(GasRequest("Ar", 100.0))


class TestUr5e(SimulatorContract):
    """An arm that carries."""

    lab = LAB
    device = "robot_arm"
    needs = ("gripper",)
    reading = "safety_status"

    async def act(self, device: Any) -> None:
        """Carry a crucible."""
        await device.set(Carry("crucible_01", "rack.1", "balance.pan"))


class TestDhGripper(SimulatorContract):
    """A gripper that is watched."""

    lab = LAB
    device = "gripper"
    needs = ("robot_arm",)
    reading = "position"

    async def act(self, device: Any) -> None:
        """Watch the fingers for a while."""
        await device.kickoff()
        await asyncio.sleep(10.0)
        await device.complete()


class TestFurnaceDoor(SimulatorContract):
    """A door that opens and closes."""

    lab = LAB
    device = "door"
    reading = "controller_state"

    async def act(self, device: Any) -> None:
        """Open it, and close it again."""
        await device.set("open")
        await device.set("closed")
