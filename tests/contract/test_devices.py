"""What every driver promises, tried on each driver that we bring."""

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
from ppu.testing import DeviceContract

LAB = Path(__file__).with_name("lab.yaml")


def carry(world: Any, container: str, origin: str, destination: str) -> None:
    """Have somebody carry a container in no time."""
    now = running_loop().time()
    world.pick_up(now, container, origin, "test")
    world.put_down(now, container, destination, "test")


class TestEurotherm3216(DeviceContract):
    """The furnace controller: Modbus RTU."""

    lab = LAB
    device = "furnace"
    reading = "process_value"
    tolerance = 1.0

    profile = FiringProfile((Segment(60.0, 10.0, 60.0),), cool_to_degc=55.0)

    async def act(self, device: Any) -> None:
        """Fire for some minutes."""
        await device.prepare(self.profile)
        await device.kickoff()
        await device.complete()

    async def refused(self, device: Any) -> None:
        """Start what was never prepared."""
        await device.kickoff()

    async def forbidden(self, device: Any) -> None:
        """Ask for more than the lab allows."""
        await device.prepare(FiringProfile((Segment(1200.0, 5.0, 60.0),), 50.0))

    async def begin(self, device: Any) -> None:
        """Begin to heat."""
        await device.prepare(self.profile)
        await device.kickoff()
        await asyncio.sleep(120.0)

    def is_safe(self, state: str | None, world: Any, simulated: Any) -> bool:
        """Return whether nothing heats any more."""
        return bool(state == "continue" or simulated.chamber.output == 0.0)


class TestEurothermEpc3016(TestEurotherm3216):
    """The newer furnace controller: Modbus TCP."""

    device = "tcp_furnace"


class TestMettlerSics(DeviceContract):
    """The balance: lines on a serial port."""

    lab = LAB
    device = "balance"
    reading = "present_mass"
    tolerance = 0.001
    settles_s = 20.0

    def prepare(self, world: Any) -> None:
        """Put a crucible on the pan."""
        self.world = world
        carry(world, "crucible_01", "rack.1", "balance.pan")

    async def act(self, device: Any) -> None:
        """Weigh."""
        await device.trigger()

    async def refused(self, device: Any) -> None:
        """Weigh what is too heavy, and take it away again."""
        carry(self.world, "crucible_01", "balance.pan", "rack.1")
        carry(self.world, "weight_01", "rack.2", "balance.pan")
        try:
            await device.trigger()
        finally:
            carry(self.world, "weight_01", "balance.pan", "rack.2")
            carry(self.world, "crucible_01", "rack.1", "balance.pan")
            await asyncio.sleep(self.settles_s)


class TestLabmanPowderRobot(DeviceContract):
    """The powder robot: JSON over HTTP."""

    lab = LAB
    device = "dosing_robot"
    reading = "rack_temperature"
    tolerance = 1.0

    def prepare(self, world: Any) -> None:
        """Put a crucible into the robot."""
        carry(world, "crucible_01", "rack.1", "dosing_robot.station")

    async def act(self, device: Any) -> None:
        """Dose one powder."""
        await device.prepare(DoseRequest("crucible_01", (Dose("CaCO3", 0.5),), 60.0))
        await device.trigger()

    async def refused(self, device: Any) -> None:
        """Start what was never prepared."""
        await device.trigger()

    async def forbidden(self, device: Any) -> None:
        """Ask for more powder than the lab allows."""
        device.check_request(DoseRequest("crucible_01", (Dose("CaCO3", 9.0),), 60.0))


class TestPanalyticalAeris(DeviceContract):
    """The diffractometer: one message a connection."""

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

    async def refused(self, device: Any) -> None:
        """Start what was never prepared."""
        await device.trigger()

    async def forbidden(self, device: Any) -> None:
        """Ask for angles that the lab does not allow."""
        await device.prepare(ScanRequest("sample", 1.0, 25.0, 60.0))


class TestOperator(DeviceContract):
    """The simulated technician: lines on TCP."""

    lab = LAB
    device = "operator"

    async def look(self, device: Any) -> Any:
        """Ask who it is."""
        return (await device.read_identity()).serial_number

    async def act(self, device: Any) -> None:
        """Carry a crucible."""
        await device.set(Carry("crucible_01", "rack.1", "balance.pan"))

    async def refused(self, device: Any) -> None:
        """Carry what is not there."""
        await device.set(Carry("crucible_01", "rack.2", "balance.pan"))


class TestAlicatMfc(DeviceContract):
    """The mass-flow controller: short lines on a serial port."""

    lab = LAB
    device = "gas"
    tolerance = 0.05

    def prepare(self, world: Any) -> None:
        """Keep the world."""
        self.world = world

    async def look(self, device: Any) -> Any:
        """Poll it; the inlet pressure is there at any time."""
        await device.trigger()
        return (await device.read_signal("pressure"))["value"]

    async def act(self, device: Any) -> None:
        """Let argon flow."""
        await device.set(GasRequest("Ar", 100.0))

    async def forbidden(self, device: Any) -> None:
        """Ask for more gas than the lab allows."""
        await device.set(GasRequest("Ar", 450.0))

    async def begin(self, device: Any) -> None:
        """Let argon flow."""
        await device.set(GasRequest("Ar", 100.0))

    def is_safe(self, state: str | None, world: Any, simulated: Any) -> bool:
        """Return whether nothing flows any more."""
        return state == "keep" or world.gas_into("furnace")[1] < 1.0


class TestUniversalRobotsUr5e(DeviceContract):
    """The arm: lines on TCP, after a greeting."""

    lab = LAB
    device = "robot_arm"
    needs = ("gripper",)
    reading = "robot_mode"

    task = Carry("crucible_01", "rack.1", "balance.pan")

    async def act(self, device: Any) -> None:
        """Carry a crucible."""
        await device.set(self.task)

    async def forbidden(self, device: Any) -> None:
        """Carry where no program leads."""
        await device.set(Carry("crucible_01", "rack.1", "rack.2"))

    async def begin(self, device: Any) -> None:
        """Begin to carry, and stop to wait."""
        status = device.set(self.task)
        await asyncio.sleep(8.0)
        status.task.cancel()
        await asyncio.wait([status.task])

    def is_safe(self, state: str | None, world: Any, simulated: Any) -> bool:
        """Return whether it stands still."""
        return bool(simulated._state == "STOPPED")


class TestDhGripper(DeviceContract):
    """The gripper: Modbus RTU."""

    lab = LAB
    device = "gripper"
    needs = ("robot_arm",)
    reading = "position"

    async def act(self, device: Any) -> None:
        """Watch the fingers for a while."""
        await device.kickoff()
        await asyncio.sleep(10.0)
        await device.complete()

    async def refused(self, device: Any) -> None:
        """End a watch that was never begun."""
        await device.complete()

    async def begin(self, device: Any) -> None:
        """Begin to watch the fingers."""
        await device.kickoff()


class TestFurnaceDoor(DeviceContract):
    """The door: one line a connection."""

    lab = LAB
    device = "door"
    reading = "controller_state"

    async def act(self, device: Any) -> None:
        """Open it, and close it again."""
        await device.set("open")
        await device.set("closed")
