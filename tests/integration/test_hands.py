"""Arm, gripper and furnace door: the drivers against the simulated instruments."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from importlib.resources import files
from typing import Any

import pytest
import yaml

from ppu.core.capabilities import (
    Carry,
    Door,
    DoseRequest,
    Grind,
    Gripper,
    GripRecord,
    MountPowder,
    PowderStation,
    TaskUnderWay,
    Transporter,
)
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    InterlockError,
    InternalError,
    LimitError,
    LinkBroken,
    MalformedReply,
    PPUError,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu_drivers.dh_gripper import DhGripper, DhGripperSettings, GripState
from ppu_drivers.furnace_door import (
    FurnaceDoor,
    FurnaceDoorLimits,
    FurnaceDoorSettings,
)
from ppu_drivers.universal_robots_ur5e import (
    CarryProgram,
    ProgramState,
    UniversalRobotsUr5e,
    UniversalRobotsUr5eLimits,
    UniversalRobotsUr5eSettings,
    is_state_of,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.instruments.dh_gripper import SimulatedDhGripper
from ppu_simulators.instruments.furnace_door import SimulatedFurnaceDoor
from ppu_simulators.instruments.universal_robots_ur5e import (
    SimulatedUr5e,
    _bundled_programs,
)
from ppu_simulators.world import FLOOR, World

Play = Callable[[Coroutine[Any, Any, Any]], Any]
Scenario = Callable[["Cell"], Awaitable[None]]

SERIAL = "4711"
RACK, PAN, SLOT = "rack_1.1", "balance.pan", "furnace_1.slot_1"
CRUCIBLE, HOLDER = "bench.crucible", "bench.holder"


def way(origin: str, destination: str, **more: Any) -> dict[str, Any]:
    """Return a program as the arm was taught it."""
    return {
        "origin": origin,
        "destination": destination,
        "grip_width_mm": 39,
        "duration_s": 40,
        **more,
    }


TAUGHT: dict[str, Any] = {
    "rack_to_pan.urp": way(RACK, PAN),
    "pan_to_rack.urp": way(PAN, RACK),
    "pan_to_rack_2.urp": way(PAN, "rack_1.2"),
    "rack_to_furnace.urp": way(RACK, SLOT, path=[PAN]),
    "through_furnace.urp": way(RACK, PAN, path=[SLOT]),
    "rack_to_holder.urp": way(RACK, HOLDER),
    "rack_to_nowhere.urp": way(RACK, "moon.1"),
    "loose.urp": way(RACK, PAN, grip_width_mm=43),
    "grind.urp": {"task": "grind", "station": CRUCIBLE, "duration_s": 60},
    "mount.urp": {
        "task": "mount_powder",
        "station": CRUCIBLE,
        "holder_station": HOLDER,
        "duration_s": 240,
    },
}


def lab_file(
    *,
    arm: dict[str, Any] | None = None,
    gripper: dict[str, Any] | None = None,
    door: dict[str, Any] | None = None,
    serial_number: str = "unset",
    programs: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    crucible_at: str = RACK,
    contents: dict[str, float] | None = None,
    others: dict[str, Any] | None = None,
) -> LabFile:
    """Return a lab with an arm, its gripper and a furnace with a door.

    Args:
        arm: Twin settings of the arm; likewise *gripper* and *door*.
        gripper: See *arm*.
        door: See *arm*.
        serial_number: What the arm shall be.
        programs: What the lab file says of the arm's programs.
        settings: More settings of the arm.
        crucible_at: Where the crucible stands.
        contents: What is in it.
        others: More containers.
    """
    mapped = programs or {
        f"{RACK} -> {PAN}": {"program": "rack_to_pan.urp", "duration_s": 40},
        f"{PAN} -> {RACK}": {"program": "pan_to_rack.urp", "duration_s": 40},
        f"{RACK} -> {SLOT}": {"program": "rack_to_furnace.urp", "duration_s": 40},
    }
    tasks = {
        "grind": {"program": "grind.urp", "duration_s": 60, "station": CRUCIBLE},
        "mount_powder": {
            "program": "mount.urp",
            "duration_s": 240,
            "station": CRUCIBLE,
            "holder_station": HOLDER,
        },
    }
    crucible = {
        "kind": "crucible",
        "at": crucible_at,
        "capacity_ml": 20,
        "tare_g": 18.2,
        "contents": contents or {},
    }
    return LabFile.model_validate(
        {
            "lab": "cell",
            "schema_version": 1,
            "devices": {
                "arm": {
                    "driver": "ppu_drivers.universal_robots_ur5e:UniversalRobotsUr5e",
                    "serial_number": serial_number,
                    "settings": {
                        "programs": mapped,
                        "tasks": tasks,
                        **(settings or {}),
                    },
                    "twin": {"programs": TAUGHT, **(arm or {})},
                },
                "gripper": {
                    "driver": "ppu_drivers.dh_gripper:DhGripper",
                    "settings": {"hand_of": "arm"},
                    "twin": {"is_initialized": True, **(gripper or {})},
                },
                "door": {
                    "driver": "ppu_drivers.furnace_door:FurnaceDoor",
                    "settings": {"encloses": "furnace_1"},
                    "twin": door or {},
                },
            },
            "locations": {
                RACK: {"holds": "crucible"},
                "rack_1.2": {"holds": "crucible"},
                PAN: {"holds": "crucible"},
                SLOT: {"holds": "crucible", "inside": "furnace_1"},
                CRUCIBLE: {"holds": "crucible"},
                HOLDER: {"holds": "holder"},
            },
            "containers": {"crucible_01": crucible, **(others or {})},
        }
    )


class Wire:
    """Stands between a port and its instrument, and spoils answers."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation
        self.framing = getattr(conversation, "framing", "text")
        self.command = b""
        self.spoil: Callable[[list[Answer]], list[Answer]] | None = None
        self.heard: list[bytes] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        self.heard.append(data.strip())
        answers = list(self._conversation.receive(data, time))
        if self.spoil is None or not data.startswith(self.command):
            return answers
        return self.spoil(answers)


class Cell:
    """The simulated instruments of a lab and their drivers."""

    def __init__(self, lab: LabFile, seed: int = 1) -> None:
        self.lab = lab
        self.world = World(lab, seed)
        devices = lab.devices
        self.sim_arm = SimulatedUr5e("arm", devices["arm"], self.world, SERIAL)
        self.sim_gripper = SimulatedDhGripper(
            "gripper", devices["gripper"], self.world, SERIAL
        )
        self.sim_door = SimulatedFurnaceDoor(
            "door", devices["door"], self.world, SERIAL
        )
        self.arm_wire = Wire(self.sim_arm)
        self.sim_arm._front.conversation = self.arm_wire
        self.door_wire = Wire(self.sim_door)
        self.sim_door._front.conversation = self.door_wire
        self.gripper_wire = Wire(self.sim_gripper._front._conversation)
        self.sim_gripper._front._conversation = self.gripper_wire
        self.arm: UniversalRobotsUr5e
        self.gripper: DhGripper
        self.door: FurnaceDoor

    async def start(self) -> None:
        """Let every instrument listen, and make the drivers; none is connected."""
        entries = self.lab.devices
        self.arm = UniversalRobotsUr5e(
            "arm",
            entries["arm"],
            TcpConnection.model_validate(await self.sim_arm.start()),
            UniversalRobotsUr5eSettings.model_validate(entries["arm"].settings),
            UniversalRobotsUr5eLimits(),
        )
        self.gripper = DhGripper(
            "gripper",
            entries["gripper"],
            SerialConnection.model_validate(await self.sim_gripper.start()),
            DhGripperSettings.model_validate(entries["gripper"].settings),
            DhGripper.limits_model(),
        )
        self.door = FurnaceDoor(
            "door",
            entries["door"],
            TcpConnection.model_validate(await self.sim_door.start()),
            FurnaceDoorSettings.model_validate(entries["door"].settings),
            FurnaceDoorLimits(),
        )

    async def connect(self) -> None:
        """Connect every driver."""
        for device in (self.arm, self.gripper, self.door):
            await device.connect_link()

    async def stop(self) -> None:
        """Close both ends of everything."""
        for device in (self.arm, self.gripper, self.door):
            await device.disconnect()
        for simulated in (self.sim_arm, self.sim_gripper, self.sim_door):
            await simulated.stop()

    def spoil(
        self, wire: Wire, command: bytes, how: Callable[[list[Answer]], list[Answer]]
    ) -> None:
        """Spoil the answers to requests that begin with *command* from now on."""
        wire.command, wire.spoil = command, how

    async def carry(self, origin: str, destination: str) -> GripRecord:
        """Have the crucible carried as the plan's step does; return what was felt."""
        await self.gripper.kickoff()
        await self.arm.set(Carry("crucible_01", origin, destination))
        await self.gripper.complete()
        grip = self.gripper.last_grip
        assert grip is not None
        return grip

    async def send_off(self, duration_s: float) -> None:
        """Have the arm carry for a while, and end the plan there."""
        status = self.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(duration_s)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status

    def inject(self, simulated: Any, fault: str, for_s: float) -> None:
        """Let *fault* happen to an instrument now."""
        simulated.faults.inject({"fault": fault, "for_s": for_s}, running_loop().time())

    @property
    def crucible_at(self) -> str | None:
        """Where the crucible really is."""
        return self.world.containers["crucible_01"].at

    @property
    def incidents(self) -> list[str]:
        """What kinds of things went wrong, in order."""
        return [incident.kind for incident in self.world.incidents]


@pytest.fixture
def on_cell(play: Play) -> Callable[..., None]:
    """Plays a scenario on a cell of its own."""

    def run(
        scenario: Scenario,
        lab: LabFile | None = None,
        *,
        connects: bool = True,
        seed: int = 1,
    ) -> None:
        async def scene() -> None:
            cell = Cell(lab or lab_file(), seed)
            await cell.start()
            try:
                if connects:
                    await cell.connect()
                await scenario(cell)
            finally:
                await cell.stop()

        play(scene())

    return run


OnCell = Callable[..., None]


# -- carrying --------------------------------------------------------------------------


def test_arm_carries_a_crucible_and_the_gripper_feels_it(on_cell: OnCell) -> None:
    """The container arrives, in the time the program takes, held at its width."""

    async def scenario(cell: Cell) -> None:
        assert isinstance(cell.arm, Transporter)
        assert isinstance(cell.arm, PowderStation)
        assert isinstance(cell.gripper, Gripper)
        begun = running_loop().time()
        grip = await cell.carry(RACK, PAN)
        assert cell.crucible_at == PAN
        assert grip.has_grasped
        assert not grip.has_dropped
        assert not grip.is_holding
        assert grip.width_mm == pytest.approx(40, abs=0.06)
        assert 40 <= running_loop().time() - begun < 46
        assert cell.incidents == []
        assert await cell.arm.program_state.get_value() == "STOPPED"
        assert await cell.arm.go_to_abort_state() == ""

    on_cell(scenario)


def test_arm_refuses_a_way_it_was_not_taught(on_cell: OnCell) -> None:
    """The error names the way and the nearest known one; nothing moves."""

    async def scenario(cell: Cell) -> None:
        assert cell.arm.can_carry(RACK, PAN)
        assert not cell.arm.can_carry("rack_1.3", PAN)
        with pytest.raises(
            LimitError, match=r"no 'rack_1.3 -> balance.pan'; did you mean 'rack_1.1"
        ):
            await cell.arm.set(Carry("crucible_01", "rack_1.3", PAN))
        assert not any(line.startswith(b"load") for line in cell.arm_wire.heard)

    on_cell(scenario)


@pytest.mark.parametrize("sample_s", [0.5, 1.0, 2.0, 1000.0])
def test_gripper_says_for_how_long_nobody_looked(
    on_cell: OnCell, sample_s: float
) -> None:
    """What was held meanwhile may be unseen, so it is not said to be nothing."""

    async def scenario(cell: Cell) -> None:
        cell.gripper.settings = cell.gripper.settings.model_copy(
            update={"sample_period_s": sample_s}
        )
        grip = await cell.carry(RACK, PAN)
        assert cell.crucible_at == PAN
        assert grip.has_grasped == (sample_s < 1000.0)
        if sample_s < 1000.0:
            assert sample_s <= grip.unseen_s < sample_s + 0.5
        else:
            assert grip.unseen_s >= 39.0

    on_cell(scenario)


def test_gripper_feels_nothing_when_nothing_stands_there(on_cell: OnCell) -> None:
    """The fingers close to the program's width, and the record says so."""

    async def scenario(cell: Cell) -> None:
        grip = await cell.carry(RACK, PAN)
        assert not grip.has_grasped
        assert cell.incidents == ["nothing gripped"]
        assert cell.crucible_at == "rack_1.2"

    on_cell(scenario, lab_file(crucible_at="rack_1.2"))


def test_crucible_slips_when_the_program_grips_too_wide(on_cell: OnCell) -> None:
    """A grip more than 2 mm too wide loses it on the way, and the gripper says so."""

    async def scenario(cell: Cell) -> None:
        grip = await cell.carry(RACK, PAN)
        assert grip.has_grasped
        assert grip.has_dropped
        assert cell.crucible_at == FLOOR
        assert cell.incidents == ["drop", "spill"]

    mapped = {f"{RACK} -> {PAN}": {"program": "loose.urp", "duration_s": 40}}
    on_cell(scenario, lab_file(programs=mapped, contents={"CaCO3": 1.0}))


def test_world_records_a_wrong_place_when_a_program_is_mapped_wrongly(
    on_cell: OnCell,
) -> None:
    """The controller plays what it was taught, whatever the lab file calls it."""

    async def scenario(cell: Cell) -> None:
        grip = await cell.carry(PAN, RACK)
        assert grip.has_grasped
        assert cell.crucible_at == "rack_1.2"
        assert cell.incidents == ["wrong place"]
        assert "the lab file says balance.pan -> rack_1.1" in (
            cell.world.incidents[0].text
        )

    mapped = {f"{PAN} -> {RACK}": {"program": "pan_to_rack_2.urp", "duration_s": 40}}
    on_cell(scenario, lab_file(programs=mapped, crucible_at=PAN))


@pytest.mark.parametrize("program", ["rack_to_furnace.urp", "through_furnace.urp"])
def test_arm_stops_when_a_closed_door_is_in_its_way(
    on_cell: OnCell, program: str
) -> None:
    """A collision is a protective stop: named, not retried, and stopped on abort."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match="PROTECTIVE_STOP") as caught:
            await cell.arm.set(Carry("crucible_01", RACK, SLOT))
        assert caught.value.code == "PROTECTIVE_STOP"
        assert cell.incidents == ["collision"]
        assert cell.arm_wire.heard.count(b"play") == 1
        said = await cell.arm.go_to_abort_state()
        assert "stopped, verified; its safety status is PROTECTIVE_STOP" in said
        with pytest.raises(InterlockError, match="safety status is PROTECTIVE_STOP"):
            await cell.arm.set(Carry("crucible_01", RACK, SLOT))

    mapped = {f"{RACK} -> {SLOT}": {"program": program, "duration_s": 40}}
    on_cell(scenario, lab_file(programs=mapped))


def test_arm_reaches_into_the_furnace_when_its_door_is_open(on_cell: OnCell) -> None:
    """Open, carry, close: the crucible stands behind the closed door."""

    async def scenario(cell: Cell) -> None:
        await cell.door.set("open")
        await cell.carry(RACK, SLOT)
        await cell.door.set("closed")
        assert cell.crucible_at == SLOT
        assert not cell.world.is_door_open("furnace_1")
        assert cell.incidents == []

    on_cell(scenario)


@pytest.mark.parametrize(
    ("program", "kinds"),
    [
        ("rack_to_pan.urp", ["double place"]),
        ("rack_to_holder.urp", ["wrong place"]),
        ("rack_to_nowhere.urp", []),
    ],
)
def test_arm_stops_when_the_container_cannot_stand_there(
    on_cell: OnCell, program: str, kinds: list[str]
) -> None:
    """A taken place, a place for others, and no place at all."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match="PROTECTIVE_STOP"):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert cell.incidents == kinds
        assert cell.crucible_at is None

    other = {"kind": "crucible", "at": PAN, "capacity_ml": 20, "tare_g": 18}
    mapped = {f"{RACK} -> {PAN}": {"program": program, "duration_s": 40}}
    on_cell(scenario, lab_file(programs=mapped, others={"crucible_02": other}))


# -- handling powder -------------------------------------------------------------------


def test_arm_grinds_in_portions_of_its_program(on_cell: OnCell) -> None:
    """Two portions are two plays; half a portion is refused before anything moves."""

    async def scenario(cell: Cell) -> None:
        crucible = cell.world.containers["crucible_01"]
        before = dict(crucible.matter.radii_um)
        with pytest.raises(LimitError, match="in portions of 60 s"):
            await cell.arm.set(Grind("crucible_01", 90.0))
        assert b"play" not in cell.arm_wire.heard
        await cell.arm.set(Grind("crucible_01", 120.0))
        assert cell.arm_wire.heard.count(b"play") == 2
        assert all(crucible.matter.radii_um[p] < before[p] for p in before)
        assert cell.arm.container_station == CRUCIBLE

    on_cell(scenario, lab_file(crucible_at=CRUCIBLE, contents={"CaCO3": 2.0}))


def test_arm_mounts_powder_in_a_holder(on_cell: OnCell) -> None:
    """Powder goes from the crucible into the holder, as much as fits."""

    async def scenario(cell: Cell) -> None:
        assert cell.arm.holder_station == HOLDER
        await cell.arm.set(MountPowder("crucible_01", "holder_01"))
        assert cell.world.containers["holder_01"].matter.mass_g > 0.1
        assert cell.incidents == []

    holder = {"kind": "holder", "at": HOLDER, "capacity_ml": 1, "tare_g": 25}
    on_cell(
        scenario,
        lab_file(
            crucible_at=CRUCIBLE, contents={"CaCO3": 2.0}, others={"holder_01": holder}
        ),
    )


@pytest.mark.parametrize("has_holder", [False, True])
def test_arm_mounts_nothing_when_there_is_nothing(
    on_cell: OnCell, has_holder: bool
) -> None:
    """Without a holder, or without powder, the program plays in vain."""

    async def scenario(cell: Cell) -> None:
        await cell.arm.set(MountPowder("crucible_01", "holder_01"))
        assert cell.incidents == ["nothing there"]

    holder = {"kind": "holder", "at": HOLDER, "capacity_ml": 1, "tare_g": 25}
    on_cell(
        scenario,
        lab_file(
            crucible_at=CRUCIBLE, others={"holder_01": holder} if has_holder else {}
        ),
    )


def test_arm_refuses_powder_tasks_when_none_is_mapped(on_cell: OnCell) -> None:
    """An arm without such programs says so, and has no stations."""

    async def scenario(cell: Cell) -> None:
        assert cell.arm.container_station is None
        assert cell.arm.holder_station is None
        for task in (Grind("crucible_01", 60), MountPowder("crucible_01", "holder_01")):
            with pytest.raises(LimitError, match=r"settings\.tasks has no"):
                cell.arm.check_task(task)

    on_cell(scenario, lab_file(settings={"tasks": {}}))


# -- the arm's troubles ----------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("protective stop", r"interrupted after .* safety status is PROTECTIVE_STOP"),
        ("popup", r"paused after .* may show a popup"),
    ],
)
def test_arm_fault_is_noticed_and_named(
    on_cell: OnCell, seed: int, fault: str, told: str
) -> None:
    """What stops the arm on its way ends the carrying with an error within seconds."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match=told):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert 20 <= running_loop().time() <= 26
        assert cell.crucible_at is None
        assert cell.arm_wire.heard.count(b"play") == 1
        assert "stopped, verified" in await cell.arm.go_to_abort_state()

    faults = [{"fault": fault, "at_s": 20, "for_s": 30}]
    on_cell(scenario, lab_file(arm={"faults": faults}), seed=seed)


def test_program_goes_on_when_a_person_unlocked_the_arm(on_cell: OnCell) -> None:
    """After five seconds it can be unlocked, and play ends what was begun."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        client = cell.arm._client
        assert (await client.ask("unlock protective stop"))[0].startswith("Cannot")
        await asyncio.sleep(10.0)
        assert await client.ask("unlock protective stop") == [
            "Protective stop releasing"
        ]
        assert await client.ask("play") == ["Starting program"]
        await asyncio.sleep(40.0)
        assert cell.crucible_at == PAN
        assert await cell.arm.program_state.get_value() == "STOPPED"

    faults = [{"fault": "protective stop", "at_s": 20, "for_s": 2}]
    on_cell(scenario, lab_file(arm={"faults": faults}))


@pytest.mark.parametrize(
    ("twin", "told"),
    [
        ({"remote_control": False}, "not in remote control"),
        ({"robot_mode": "IDLE"}, "its mode is IDLE"),
    ],
)
def test_arm_refuses_to_move_when_it_is_not_ready(
    on_cell: OnCell, twin: dict[str, Any], told: str
) -> None:
    """What a person must do at the pendant is said before anything is loaded."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InterlockError, match=told):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert b"play" not in cell.arm_wire.heard

    on_cell(scenario, lab_file(arm=twin))


def test_arm_error_names_the_program_when_the_controller_has_none_such(
    on_cell: OnCell,
) -> None:
    """A program that nobody taught is refused by the controller."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match=r"File not found: missing\.urp"):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))

    mapped = {f"{RACK} -> {PAN}": {"program": "missing.urp", "duration_s": 40}}
    on_cell(scenario, lab_file(programs=mapped))


def test_arm_says_when_a_program_was_stopped_at_the_pendant(on_cell: OnCell) -> None:
    """An end long before the program's duration is no arrival."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(13.0)
        with pytest.raises(InterlockError, match=r"rack_to_pan\.urp is PLAYING"):
            await cell.arm.check_idle()
        assert await cell.arm._client.ask("stop") == ["Stopped"]
        with pytest.raises(InstrumentError, match="was it stopped at the pendant"):
            await moving

    on_cell(scenario)


@pytest.mark.parametrize("after_s", [19.0, 33.0])
def test_arm_takes_no_program_for_complete_that_ended_early(
    on_cell: OnCell, after_s: float
) -> None:
    """Ended before nine tenths of its duration, it may still hold the container."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(after_s)
        assert await cell.arm._client.ask("stop") == ["Stopped"]
        with pytest.raises(InstrumentError, match="was it stopped at the pendant"):
            await moving

    on_cell(scenario)


def test_bundled_programs_last_as_long_as_the_bundled_lab_says() -> None:
    """No program of the A-Lab ends so early that it is taken for stopped."""
    path = files("ppu_protocols") / "labs" / "a-lab.yaml"
    arms = [
        entry
        for entry in yaml.safe_load(path.read_text())["devices"].values()
        if entry["driver"].endswith(":UniversalRobotsUr5e")
    ]
    taught = _bundled_programs("a-lab")
    settings = UniversalRobotsUr5eSettings.model_validate(arms[0]["settings"])
    tasks = (settings.tasks.grind, settings.tasks.mount_powder)
    mapped = [*settings.programs.values(), *(task for task in tasks if task)]

    assert len(mapped) > 40
    for program in mapped:
        lasts_s = taught[program.program]["duration_s"]
        assert program.duration_s * settings.haste < lasts_s
        assert lasts_s < program.duration_s * settings.patience


@pytest.mark.parametrize(
    ("commands", "state"),
    [
        (["stop", "load grind.urp", "play"], "PLAYING"),
        (["stop", "load grind.urp"], "STOPPED"),
    ],
)
def test_arm_says_so_when_another_program_is_loaded(
    on_cell: OnCell, commands: list[str], state: str
) -> None:
    """A program that somebody else started is not taken for ours."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(13.0)
        for command in commands:
            await cell.arm._client.ask(command)
        with pytest.raises(
            InstrumentError, match=rf"has grind\.urp, which is {state}: did somebody"
        ):
            await moving
        assert "stopped, verified" in await cell.arm.go_to_abort_state()
        assert cell.sim_arm._state == "STOPPED"

    on_cell(scenario)


def test_program_in_a_folder_is_known_by_its_name() -> None:
    """The controller says a program's name without its folder, or with all of them."""
    program = CarryProgram(program="ppu/rack_to_pan.urp", duration_s=40)

    assert is_state_of(ProgramState("PLAYING", "rack_to_pan.urp"), program.program)
    assert is_state_of(
        ProgramState("PLAYING", "/programs/ppu/rack_to_pan.urp"), program.program
    )
    assert is_state_of(ProgramState("STOPPED", ""), program.program)
    assert not is_state_of(ProgramState("PLAYING", "back_to_pan.urp"), program.program)
    assert not is_state_of(ProgramState("PLAYING", "to_pan.urp"), program.program)


def test_arm_gives_up_when_a_program_takes_too_long(on_cell: OnCell) -> None:
    """The wait is bounded by the duration in the lab file and the patience."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match=r"still plays .* says 10 s"):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert 30 < running_loop().time() < 36
        assert "stopped, verified" in await cell.arm.go_to_abort_state()

    mapped = {f"{RACK} -> {PAN}": {"program": "rack_to_pan.urp", "duration_s": 10}}
    on_cell(scenario, lab_file(programs=mapped))


def test_play_is_sent_once_when_its_answer_is_lost(on_cell: OnCell) -> None:
    """The controller is asked instead what it does, and the carrying goes on."""

    async def scenario(cell: Cell) -> None:
        cell.spoil(cell.arm_wire, b"play", lambda _: [])
        await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert cell.arm_wire.heard.count(b"play") == 1
        assert cell.crucible_at == PAN

    on_cell(scenario)


def test_arm_fails_when_play_was_lost_and_nothing_plays(on_cell: OnCell) -> None:
    """A request that never arrived is not sent again by itself."""

    async def scenario(cell: Cell) -> None:
        def deaf(answers: list[Answer]) -> list[Answer]:
            cell.sim_arm._end()
            return []

        cell.spoil(cell.arm_wire, b"play", deaf)
        with pytest.raises(ReplyTimeout, match=r"arm: no complete reply .* to 'play"):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))
        assert cell.arm_wire.heard.count(b"play") == 1
        assert cell.crucible_at == RACK

    on_cell(scenario)


def test_arm_says_what_the_controller_would_not_play(on_cell: OnCell) -> None:
    """A refusal to play names the program and the safety status."""

    async def scenario(cell: Cell) -> None:
        refusal = [Answer(b"Failed to execute: play\n")]
        cell.spoil(cell.arm_wire, b"play", lambda _: refusal)
        with pytest.raises(InstrumentError, match=r"would not play rack_to_pan\.urp"):
            await cell.arm.set(Carry("crucible_01", RACK, PAN))

    on_cell(scenario)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n", b"PLAYFUL x.urp\n", b"\n"])
def test_arm_fails_when_the_controller_keeps_sending_garbage(
    on_cell: OnCell, garbage: bytes
) -> None:
    """What the manual does not allow is no state of a program."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(10.0)
        cell.spoil(cell.arm_wire, b"programState", lambda _: [Answer(garbage)])
        with pytest.raises(MalformedReply, match="arm: "):
            await moving

    on_cell(scenario)


def test_arm_endures_a_short_silence_and_no_long_one(on_cell: OnCell) -> None:
    """Silence shorter than the lab file allows is bridged; a longer one is an error."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(10.0)
        cell.spoil(cell.arm_wire, b"programState", lambda _: [])
        await asyncio.sleep(15.0)
        cell.arm_wire.spoil = None
        await moving
        assert cell.crucible_at == PAN
        moving = cell.arm.set(Carry("crucible_01", PAN, RACK))
        await asyncio.sleep(10.0)
        cell.spoil(cell.arm_wire, b"programState", lambda _: [])
        with pytest.raises(ReplyTimeout):
            await moving

    on_cell(scenario)


def test_arm_stops_when_a_cancelled_plan_goes_to_its_abort_state(
    on_cell: OnCell,
) -> None:
    """Cancelling alone leaves it moving; the abort state halts it, grip and all."""

    async def scenario(cell: Cell) -> None:
        status = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(20.0)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        assert await cell.arm.program_state.get_value() == "PLAYING"
        assert await cell.arm.go_to_abort_state() == "arm: program stopped, verified"
        assert cell.crucible_at is None
        assert await cell.gripper.grip_state.get_value() is GripState.GRASPED

    on_cell(scenario)


def test_abort_says_so_when_the_arm_does_not_stop(on_cell: OnCell) -> None:
    """A stop that is refused ends in the advice to press the emergency stop."""

    async def scenario(cell: Cell) -> None:
        status = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(10.0)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        cell.sim_arm._is_remote = False
        begun = running_loop().time()
        with pytest.raises(InstrumentError, match="press the emergency stop"):
            await cell.arm.go_to_abort_state()
        assert running_loop().time() - begun < 15

    on_cell(scenario)


@pytest.mark.parametrize("fault", ["unplug", "garbage", "drop", "corrupt", "truncate"])
@pytest.mark.parametrize("for_s", [3, 12])
def test_arm_is_stopped_when_the_wire_fails_at_the_abort(
    on_cell: OnCell, fault: str, for_s: float
) -> None:
    """The stop is insisted upon until it is seen to have been obeyed."""

    async def scenario(cell: Cell) -> None:
        await cell.send_off(10.0)
        cell.inject(cell.sim_arm, fault, for_s)
        assert await cell.arm.go_to_abort_state() == "arm: program stopped, verified"
        assert cell.sim_arm._state == "STOPPED"
        assert cell.crucible_at != PAN

    # The program would not have ended by itself meanwhile.
    slow = {**TAUGHT, "rack_to_pan.urp": way(RACK, PAN, duration_s=150)}
    mapped = {f"{RACK} -> {PAN}": {"program": "rack_to_pan.urp", "duration_s": 150}}
    lab = lab_file(arm={"programs": slow}, programs=mapped)
    on_cell(scenario, lab)


def test_abort_says_so_when_the_arm_cannot_be_reached(on_cell: OnCell) -> None:
    """After a minute somebody must press the emergency stop."""

    async def scenario(cell: Cell) -> None:
        await cell.send_off(10.0)
        begun = running_loop().time()
        cell.inject(cell.sim_arm, "unplug", 1000.0)
        with pytest.raises(TransportError, match="not known: press the emergency stop"):
            await cell.arm.go_to_abort_state()
        assert 60 <= running_loop().time() - begun < 75

    on_cell(scenario)


def test_abort_says_so_when_no_stop_is_answered(on_cell: OnCell) -> None:
    """A controller that tells its state but is deaf to the stop is given a minute."""

    async def scenario(cell: Cell) -> None:
        await cell.send_off(10.0)
        cell.sim_arm._is_remote = False
        cell.spoil(cell.arm_wire, b"stop", lambda _: [])
        with pytest.raises(InstrumentError, match="press the emergency stop"):
            await cell.arm.go_to_abort_state()

    slow = {**TAUGHT, "rack_to_pan.urp": way(RACK, PAN, duration_s=150)}
    mapped = {f"{RACK} -> {PAN}": {"program": "rack_to_pan.urp", "duration_s": 150}}
    on_cell(scenario, lab_file(arm={"programs": slow}, programs=mapped))


def test_stop_counts_when_the_safety_status_cannot_be_read(on_cell: OnCell) -> None:
    """What was verified is said, whatever fails afterwards."""

    async def scenario(cell: Cell) -> None:
        await cell.send_off(10.0)
        cell.spoil(cell.arm_wire, b"safetystatus", lambda _: [])
        said = await cell.arm.go_to_abort_state()
        assert "program stopped, verified; its safety status is not known" in said

    on_cell(scenario)


# -- the gripper's troubles ------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gripper_notices_a_dropped_crucible(on_cell: OnCell, seed: int) -> None:
    """The crucible falls in mid-carry, the world knows and the record says so."""

    async def scenario(cell: Cell) -> None:
        grip = await cell.carry(RACK, PAN)
        assert grip.has_grasped
        assert grip.has_dropped
        assert cell.crucible_at == FLOOR
        assert cell.incidents == ["drop"]
        assert cell.world.incidents[0].lab_time_s == pytest.approx(20, abs=1.1)

    faults = [{"fault": "dropped crucible", "at_s": 20, "for_s": 10}]
    on_cell(scenario, lab_file(gripper={"faults": faults}), seed=seed)


WRITES = (b"\x01\x06", b"\x01\x10")
"""How a request that writes begins."""


def n_writes(cell: Cell) -> int:
    """Return how many requests to write the gripper heard."""
    return sum(line.startswith(WRITES) for line in cell.gripper_wire.heard)


def test_gripper_is_only_read_until_it_is_needed(on_cell: OnCell) -> None:
    """Connecting and reading move no finger and change no setting."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.check_idle()
        for name in cell.gripper.signal_names():
            await cell.gripper.read_signal(name)
        await cell.gripper.disconnect()
        await cell.gripper.connect_link()
        assert n_writes(cell) == 0
        assert (await cell.gripper.ready_state.get_value()).value == "not initialized"

    on_cell(scenario, lab_file(gripper={"is_initialized": False}))


def test_gripper_is_made_ready_when_it_is_first_watched(on_cell: OnCell) -> None:
    """It is initialised once, and force and speed are those of the lab file."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.kickoff()
        await cell.gripper.complete()
        assert n_writes(cell) == 3
        await cell.gripper.kickoff()
        await cell.gripper.complete()
        assert n_writes(cell) == 3
        assert (await cell.gripper.ready_state.get_value()).value == "initialized"
        assert await cell.gripper.force.get_value() == 30
        assert await cell.gripper.speed.get_value() == 50
        assert await cell.gripper.position.get_value() == 1000
        identity = cell.gripper.identity
        assert identity is not None
        assert identity.serial_number == SERIAL

    on_cell(scenario, lab_file(gripper={"is_initialized": False}))


def test_gripper_is_left_alone_when_it_is_ready_already(on_cell: OnCell) -> None:
    """A gripper that knows its end positions is not told to look for them again."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.kickoff()
        initialize = bytes.fromhex("01 10 01 00")
        assert not any(line.startswith(initialize) for line in cell.gripper_wire.heard)

    on_cell(scenario, lab_file(gripper={"is_initialized": True}))


def test_gripper_that_keeps_another_force_is_an_error(on_cell: OnCell) -> None:
    """What was set is read back."""

    async def scenario(cell: Cell) -> None:
        cell.sim_gripper.write = lambda *_: None  # type: ignore[method-assign]  # it ignores writes
        with pytest.raises(InstrumentError, match="was set to 30 but reads 100"):
            await cell.gripper.kickoff()
        assert cell.gripper._watch is None

    on_cell(scenario)


def test_watch_fails_when_the_gripper_sends_nonsense(on_cell: OnCell) -> None:
    """A state that no manual knows is not taken for a grip."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.kickoff()
        cell.sim_gripper._hand._feel = 7  # type: ignore[assignment]  # no such state
        with pytest.raises(MalformedReply, match="grip state 7"):
            await cell.gripper.complete()

    on_cell(scenario)


@pytest.mark.parametrize("is_initialized", [False, True])
def test_gripper_refuses_to_begin_when_it_holds_something(
    on_cell: OnCell, is_initialized: bool
) -> None:
    """Initialising and every program open it: a person must take out what it holds."""

    async def scenario(cell: Cell) -> None:
        hand = cell.sim_gripper._hand
        hand.is_ready = True
        hand.grip(running_loop().time(), RACK, 39)
        hand.is_ready = is_initialized
        await asyncio.sleep(1.0)
        told = "gripper: the gripper holds something already; look and take it out"
        with pytest.raises(InterlockError, match=told):
            await cell.gripper.check_idle()
        with pytest.raises(InterlockError, match=told):
            await cell.gripper.kickoff()
        assert n_writes(cell) == 0
        assert hand.holds == "crucible_01"
        with pytest.raises(InstrumentError, match="nothing was watched"):
            await cell.gripper.complete()

    on_cell(scenario, lab_file(gripper={"is_initialized": is_initialized}))


@pytest.mark.parametrize("sample_s", [1.0, 1000.0])
def test_gripper_knows_that_it_still_holds_when_the_program_ended(
    on_cell: OnCell, sample_s: float
) -> None:
    """A program that was stopped on its way leaves the crucible in the fingers."""

    async def scenario(cell: Cell) -> None:
        cell.gripper.settings = cell.gripper.settings.model_copy(
            update={"sample_period_s": sample_s}
        )
        await cell.gripper.kickoff()
        await cell.send_off(20.0)
        await cell.gripper.complete()
        grip = cell.gripper.last_grip
        assert grip is not None
        assert grip.has_grasped
        assert grip.is_holding

    on_cell(scenario)


@pytest.mark.parametrize("sample_s", [1.0, 1000.0])
def test_watch_ends_when_the_fingers_stand_still(
    on_cell: OnCell, sample_s: float
) -> None:
    """What they close on, or let go, is not known while they move."""

    async def scenario(cell: Cell) -> None:
        hand = cell.sim_gripper._hand
        cell.gripper.settings = cell.gripper.settings.model_copy(
            update={"sample_period_s": sample_s}
        )
        await cell.gripper.kickoff()
        await asyncio.sleep(20.0)
        hand.speed_percent = 20.0
        hand.grip(running_loop().time(), RACK, 39)
        assert await cell.gripper.grip_state.get_value() is GripState.MOVING
        await cell.gripper.complete()
        grip = cell.gripper.last_grip
        assert grip is not None
        assert grip.is_holding

    on_cell(scenario)


def test_gripper_is_made_ready_again_when_it_was_off(on_cell: OnCell) -> None:
    """Its fingers would not move: the next watch initialises it first."""

    async def scenario(cell: Cell) -> None:
        cell.sim_gripper._ready = 0
        cell.sim_gripper._hand.is_ready = False
        grip = await cell.carry(RACK, PAN)
        assert grip.has_grasped
        assert cell.crucible_at == PAN

    on_cell(scenario)


def test_gripper_that_does_not_get_ready_is_an_error(on_cell: OnCell) -> None:
    """Something between the fingers is named after ten seconds."""

    async def scenario(cell: Cell) -> None:
        cell.sim_gripper._agenda.stop()
        cell.sim_gripper._become_ready = lambda time: None  # type: ignore[method-assign]  # it is stuck
        with pytest.raises(InstrumentError, match="is something between the fingers"):
            await cell.gripper.kickoff()

    on_cell(scenario, lab_file(gripper={"is_initialized": False}))


def test_watch_fails_when_the_gripper_falls_silent(on_cell: OnCell) -> None:
    """What the fingers felt is not known then, so nothing is reported."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.kickoff()
        await asyncio.sleep(5.0)
        cell.spoil(cell.gripper_wire, b"", lambda _: [])
        await asyncio.sleep(60.0)
        with pytest.raises((ReplyTimeout, LinkBroken), match="gripper: "):
            await cell.gripper.complete()
        assert cell.gripper.last_grip is None

    on_cell(scenario)


def test_watch_ends_when_the_plan_is_aborted(on_cell: OnCell) -> None:
    """The fingers are left as they are, and nobody looks any more."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.kickoff()
        await asyncio.sleep(2.0)
        assert "left as it is, arrived" in await cell.gripper.go_to_abort_state()
        assert await cell.gripper.go_to_abort_state() == ""
        n_heard = len(cell.gripper_wire.heard)
        await asyncio.sleep(60.0)
        assert len(cell.gripper_wire.heard) == n_heard

    on_cell(scenario)


# -- the door --------------------------------------------------------------------------


def test_door_opens_and_closes_in_its_time(on_cell: OnCell) -> None:
    """The way is open from when it begins to open until it has closed."""

    async def scenario(cell: Cell) -> None:
        assert isinstance(cell.door, Door)
        assert (cell.door.encloses, cell.door.max_open_degc) == ("furnace_1", 200.0)
        begun = running_loop().time()
        opening = cell.door.set("open")
        await asyncio.sleep(1.0)
        assert cell.world.is_door_open("furnace_1")
        await opening
        assert 10 <= running_loop().time() - begun < 14
        await cell.door.set("open")
        assert cell.door_wire.heard.count(b"Open A") == 1
        begun = running_loop().time()
        closing = cell.door.set("closed")
        await asyncio.sleep(23.0)
        assert cell.world.is_door_open("furnace_1")
        await closing
        assert 29 <= running_loop().time() - begun < 32
        assert not cell.world.is_door_open("furnace_1")

    on_cell(scenario)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_door_that_jams_while_it_opens_is_noticed_and_named(
    on_cell: OnCell, seed: int
) -> None:
    """The controller gives up and stays in error until somebody has been there."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InstrumentError, match="is the door jammed"):
            await cell.door.set("open")
        assert cell.world.is_door_open("furnace_1")
        with pytest.raises(InstrumentError, match="error before it could be"):
            await cell.door.set("closed")
        await asyncio.sleep(300.0)
        await cell.door.set("closed")
        assert not cell.world.is_door_open("furnace_1")
        await cell.door.set("open")

    faults = [{"fault": "door jammed", "at_s": 5, "for_s": 100}]
    on_cell(scenario, lab_file(door={"faults": faults}), seed=seed)


def test_door_that_jams_while_it_closes_is_called_closed(on_cell: OnCell) -> None:
    """Closing is timed: only the world knows that the door is ajar."""

    async def scenario(cell: Cell) -> None:
        await cell.door.set("open")
        await asyncio.sleep(100.0 - running_loop().time())
        await cell.door.set("closed")
        assert cell.world.is_door_open("furnace_1")

    faults = [{"fault": "door jammed", "at_s": 105, "for_s": 100}]
    on_cell(scenario, lab_file(door={"faults": faults}))


def test_door_that_does_not_move_is_an_error(on_cell: OnCell) -> None:
    """A controller that hears the request and does nothing is noticed."""

    async def scenario(cell: Cell) -> None:
        idle = b"State: STOP; Furnace A: Closed; Serial: 4711\n"
        cell.spoil(cell.door_wire, b"", lambda _: [Answer(idle)])
        with pytest.raises(InstrumentError, match="the door is not open"):
            await cell.door.set("open")

    on_cell(scenario)


def test_door_that_never_arrives_is_an_error(on_cell: OnCell) -> None:
    """The wait for a moving door is bounded by the lab file."""

    async def scenario(cell: Cell) -> None:
        busy = b"State: RUNNING; Furnace A: Ajar; Serial: 4711\n"
        cell.spoil(cell.door_wire, b"Status", lambda _: [Answer(busy)])
        with pytest.raises(InstrumentError, match="still moves"):
            await cell.door.set("open")
        assert 60 <= running_loop().time() < 64

    on_cell(scenario)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([b"\xff\n"], MalformedReply),
        ([b"State: STOP; Furnace B: Open; Serial: 4711\n"], MalformedReply),
        ([b"State: STOP; Furnace A: Open; Serial: 4712\n"], ConnectError),
        ([], ReplyTimeout),
    ],
)
def test_door_fails_when_the_controller_answers_nonsense(
    on_cell: OnCell, answer: list[bytes], error: type[Exception]
) -> None:
    """Garbage, another door, another controller, and silence: nothing moves."""

    async def scenario(cell: Cell) -> None:
        spoiled = [Answer(line) for line in answer]
        cell.spoil(cell.door_wire, b"Status", lambda _: spoiled)
        with pytest.raises(error, match="door: "):
            await cell.door.set("open")
        assert b"Open A" not in cell.door_wire.heard

    on_cell(scenario)


def spoil_once(cell: Cell, old: bytes, new: bytes) -> list[bytes]:
    """Spoil the next status of the door that contains *old*; return what was said."""
    said: list[bytes] = []

    def spoil(answers: list[Answer]) -> list[Answer]:
        (answer,) = answers
        text = answer.at(0.0)
        if said or old not in text:
            return answers
        said.append(text.replace(old, new))
        return [Answer(said[0])]

    cell.spoil(cell.door_wire, b"Status", spoil)
    return said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"4711", b"4715"),
        (b"State", b"Stbte"),
        (b"Furnace A", b"Furnace C"),
        (b"STOP; Furnace A: Open", b"STOP; Furnace A: Opdn"),
    ],
)
def test_door_opens_when_one_status_is_spoiled(
    on_cell: OnCell, old: bytes, new: bytes
) -> None:
    """One flipped bit makes no stranger of the controller: it is asked again."""

    async def scenario(cell: Cell) -> None:
        said = spoil_once(cell, old, new)
        await cell.door.set("open")
        assert said
        assert cell.world.is_door_open("furnace_1")
        assert cell.door_wire.heard.count(b"Open A") == 1

    on_cell(scenario)


def test_door_is_known_rightly_when_its_first_status_is_spoiled(
    on_cell: OnCell,
) -> None:
    """The serial number that is kept, and compared ever after, was confirmed."""

    async def scenario(cell: Cell) -> None:
        said = spoil_once(cell, b"4711", b"4715")
        await cell.door.connect_link()
        assert said
        identity = cell.door.identity
        assert identity is not None
        assert identity.serial_number == SERIAL

    on_cell(scenario, connects=False)


# -- connecting ------------------------------------------------------------------------


def test_identity_is_kept_when_the_right_arm_answers(on_cell: OnCell) -> None:
    """Model, serial number and software come from the controller."""

    async def scenario(cell: Cell) -> None:
        identity = cell.arm.identity
        assert identity is not None
        assert (identity.model, identity.serial_number) == ("UR5", SERIAL)
        assert identity.firmware is not None
        assert identity.firmware.startswith("5.")

    on_cell(scenario, lab_file(serial_number=SERIAL))


def test_connect_is_refused_when_another_arm_answers(on_cell: OnCell) -> None:
    """A swapped arm is named with both serial numbers."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(ConnectError, match=f"number 9, but {SERIAL} answers"):
            await cell.arm.connect_link()

    on_cell(scenario, lab_file(serial_number="9"), connects=False)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"PolyscopeVersion", b'could not understand: "x"\n'),
        (b"PolyscopeVersion", b"220 smtp ready\n"),
        (b"PolyscopeVersion", b"Connected: somebody else\nURSoftware 5.11\n"),
        (b"get robot model", b"UR10\n"),
    ],
)
def test_connect_is_refused_when_no_ur5e_answers(
    on_cell: OnCell, command: bytes, answer: bytes
) -> None:
    """Something that speaks in lines is not taken for this arm."""

    async def scenario(cell: Cell) -> None:
        cell.spoil(cell.arm_wire, command, lambda _: [Answer(answer)])
        with pytest.raises(ConnectError, match="no dashboard server of a UR5e"):
            await cell.arm.connect_link()

    on_cell(scenario, connects=False)


@pytest.mark.parametrize("is_silent", [False, True])
def test_connect_is_refused_when_no_door_controller_answers(
    on_cell: OnCell, is_silent: bool
) -> None:
    """A stranger and silence are told apart."""

    async def scenario(cell: Cell) -> None:
        answers = [] if is_silent else [Answer(b"hello\n")]
        cell.spoil(cell.door_wire, b"Status", lambda _: answers)
        told = "is it on" if is_silent else "is no door controller"
        with pytest.raises(ConnectError, match=told):
            await cell.door.connect_link()

    on_cell(scenario, connects=False)


@pytest.mark.parametrize("how", ["speed", "state", "refusal"])
def test_connect_is_refused_when_no_gripper_answers(on_cell: OnCell, how: str) -> None:
    """Registers that no gripper can have, or has not, are not taken for one."""

    async def scenario(cell: Cell) -> None:
        if how == "speed":
            cell.sim_gripper._registers[0x0104] = 4711
        elif how == "state":
            cell.sim_gripper._ready = 9
        else:
            for register in range(0x0405, 0x0411):
                del cell.sim_gripper._registers[register]
        with pytest.raises(ConnectError, match="is no DH gripper"):
            await cell.gripper.connect_link()

    on_cell(scenario, connects=False)


def test_driver_connects_again_when_the_connection_was_reset(on_cell: OnCell) -> None:
    """A break between two polls is bridged, greeting and identity included."""

    async def scenario(cell: Cell) -> None:
        moving = cell.arm.set(Carry("crucible_01", RACK, PAN))
        await asyncio.sleep(11.0)
        for transport in list(cell.sim_arm._front.connections):
            transport.abort()
        await moving
        assert cell.crucible_at == PAN
        assert cell.arm_wire.heard.count(b"PolyscopeVersion") == 2

    on_cell(scenario)


# -- under wire faults -----------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_carrying_never_lies_when_the_wires_are_bad(on_cell: OnCell, seed: int) -> None:
    """Either everything went as reported, or an error said that it may not have."""

    async def scenario(cell: Cell) -> None:
        trouble, grip = "", None
        try:
            grip = await cell.carry(RACK, PAN)
        except PPUError as exc:
            trouble = str(exc)
        # An error names the device; without one the record is of what happened.
        assert trouble.startswith(("arm", "gripper")) or (
            grip is not None and grip.has_grasped and cell.crucible_at == PAN
        )
        assert cell.arm_wire.heard.count(b"play") <= 1

    faults = [
        {"fault": fault, "every_s": 7, "for_s": 3, "with_probability": 0.3}
        for fault in ("drop", "delay", "garbage", "truncate", "reset")
    ]
    serial = [fault for fault in faults if fault["fault"] != "reset"]
    on_cell(
        scenario,
        lab_file(arm={"faults": faults}, gripper={"faults": serial}),
        seed=seed,
        connects=True,
    )


# -- orphans, and jobs on hold ---------------------------------------------------------


@pytest.mark.parametrize("state", [None, "stop"])
def test_arm_without_an_owner_plays_on_unless_the_lab_stops_it(
    on_cell: OnCell, state: str | None
) -> None:
    """A program ends by itself, which is safe; a lab may see that otherwise."""

    async def scenario(cell: Cell) -> None:
        await cell.send_off(10.0)
        cell.arm._is_ours = False  # as another process would see it
        said = await cell.arm.go_to_orphan_state()
        assert ("program stopped, verified" in said) is (state is not None)
        assert await cell.arm.go_to_orphan_state() == ""
        still = "STOPPED" if state is not None else "PLAYING"
        assert await cell.arm.program_state.get_value() == still

    lab = lab_file()
    entry = lab.devices["arm"].model_copy(update={"on_orphan": state})
    devices = {**lab.devices, "arm": entry}
    on_cell(scenario, lab.model_copy(update={"devices": devices}))


@pytest.mark.parametrize("state", [None, "stop"])
def test_arm_of_a_job_on_hold_stops_only_if_the_lab_says_so(
    on_cell: OnCell, state: str | None
) -> None:
    """Nothing that this job does not play is stopped."""

    async def scenario(cell: Cell) -> None:
        assert await cell.arm.go_to_hold_state() == ""
        await cell.send_off(10.0)
        said = await cell.arm.go_to_hold_state()
        assert ("program stopped, verified" in said) is (state is not None)

    lab = lab_file()
    entry = lab.devices["arm"].model_copy(update={"on_hold": state})
    devices = {**lab.devices, "arm": entry}
    on_cell(scenario, lab.model_copy(update={"devices": devices}))


def test_look_at_the_fingers_moves_nothing(on_cell: OnCell) -> None:
    """One look tells what they hold, on their way and at rest."""

    async def scenario(cell: Cell) -> None:
        await cell.gripper.trigger()
        before = cell.gripper.last_grip
        await cell.send_off(20.0)
        await cell.gripper.trigger()
        held = cell.gripper.last_grip
        assert before is not None
        assert not before.is_holding
        assert held is not None
        assert held.is_holding
        assert held.width_mm == pytest.approx(40, abs=0.06)
        await asyncio.sleep(60.0)
        assert cell.crucible_at == PAN

    on_cell(scenario)


@pytest.mark.parametrize(
    ("mode", "text"), [("POWER_OFF", "mode POWER_OFF"), ("RUNNING", "no program")]
)
def test_arm_remembers_nothing_when_its_power_was_off(
    on_cell: OnCell, mode: str, text: str
) -> None:
    """What it has loaded after that tells nothing of before."""

    async def scenario(cell: Cell) -> None:
        await cell.arm.prepare(TaskUnderWay(Carry("crucible_01", RACK, PAN)))
        said = cell.arm.recollection
        assert said is not None
        assert said.has_happened is None
        assert text in said.text

    on_cell(scenario, lab_file(arm={"robot_mode": mode}))


def test_arm_doses_nothing(on_cell: OnCell) -> None:
    """To ask it for a dose is a mistake of ours."""

    async def scenario(cell: Cell) -> None:
        with pytest.raises(InternalError, match="an arm doses nothing"):
            await cell.arm.prepare(TaskUnderWay(DoseRequest("cup", (), 0.0)))

    on_cell(scenario)
