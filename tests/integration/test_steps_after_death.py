"""Whole steps whose process died in the middle, on the simulated bench."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bluesky.utils import Msg, MsgGenerator
from ophyd_async.core import AsyncStatus

from mortal import DeadError, MortalStore
from ppu.cell.ownership import Ownership
from ppu.core.capabilities import (
    Carry,
    Dose,
    DoseRequest,
    FiringProfile,
    FiringRecord,
    Grind,
    MountPowder,
    Segment,
)
from ppu.core.errors import InstrumentError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.labtime import LabTimeLoop
from ppu.core.registry import find_lab
from ppu.devices.build import build_devices
from ppu.engine.host import Host
from ppu.plans import Lab
from ppu.plans.steps import Begun, Evidence
from ppu.store.jobs import JobRequest, JobState
from ppu.store.queue import submit
from ppu.store.store import Store
from ppu.twin.bench import Bench
from ppu_protocols.evidence import find_carried, find_dosed, find_ground, find_mounted
from ppu_protocols.steps import fire, grind_powder, mount_powder, move_container
from ppu_protocols.synthesis import dose_powders

T = TypeVar("T")

A_LAB = find_lab("a-lab")
CUP, HOLDER = "crucible_01", "holder_01"
RACK, PAN, SLOT = "rack_1.1", "balance.pan", "furnace_1.slot_1"


class Laboratory:
    """A bench that outlives the processes that use it.

    Args:
        host: Runs plans.
        only: Devices that there are.
        at: Where containers stand, if not where the lab file says.
        path: The lab file.
    """

    def __init__(
        self,
        host: Host,
        only: tuple[str, ...],
        at: Mapping[str, str] | None = None,
        path: Path = A_LAB,
    ) -> None:
        self.host = host
        self.path = path
        self.only = only
        file = load_lab(path)
        containers = {
            name: entry.model_copy(update={"at": (at or {}).get(name, entry.at)})
            for name, entry in file.containers.items()
        }
        self.file: LabFile = file.model_copy(update={"containers": containers})
        self.bench = Bench(self.file, path, 1, only=only)
        self.world: Any = self.bench.world
        self.devices: dict[str, Any] = {}
        self.lab: Lab
        self.n_asked = 0
        host.call(self.bench.start())
        self.open()

    def open(self) -> None:
        """Begin another process."""

        async def connect() -> None:
            made = build_devices(
                self.file, self.path, self.bench.connections, self.only
            )
            for name, device in made.items():
                self.devices[name] = device
                await device.connect_link()

        self.host.call(connect())
        self.lab = Lab(self.file, self.devices, flush_period_s=60.0)

    def die(self) -> None:
        """End the process: nobody cleans up."""

        async def end() -> None:
            for device in self.devices.values():
                firing = getattr(device, "_firing", None)
                if firing is not None and firing.task is not None:
                    firing.task.cancel()
                    await asyncio.wait([firing.task])
                await device.disconnect()

        self.host.call(end())

    def close(self) -> None:
        """End everything."""
        self.die()
        self.host.call(self.bench.stop())

    def begin(self, work: Callable[[], Any], dies_after_s: float | None) -> None:
        """Do *work* until the process dies, or to its end."""

        async def until_death() -> None:
            begun = work()
            task: asyncio.Task[Any] = (
                begun.task
                if isinstance(begun, AsyncStatus)
                else asyncio.ensure_future(begun)
            )
            await asyncio.wait([task], timeout=dies_after_s)
            task.cancel()
            await asyncio.wait([task])

        self.host.call(until_death())
        self.die()
        self.open()

    def inject(self, device: str, fault: str, **options: float) -> None:
        """Let a fault of a device come now."""

        async def inject() -> None:
            self.bench.inject(device, {"fault": fault, **options})

        self.host.call(inject())

    def wait(self, duration_s: float) -> None:
        """Let lab time pass."""
        self.host.call(asyncio.sleep(duration_s))

    def adopt(self, plan: MsgGenerator[T], truth: Callable[[], bool]) -> T:
        """Run a step that was under way; a person who is asked tells the *truth*."""
        engine: Any = self.host.engine

        async def begin_step(msg: Msg) -> Begun:
            return Begun("0", was_under_way=True)

        async def settle(msg: Msg) -> Evidence:
            found: Evidence = msg.kwargs["found"]
            if found.has_happened is not None:
                return found
            self.n_asked += 1
            return Evidence(truth(), "a person looked")

        async def nothing(msg: Msg) -> None:
            return None

        for command, function in (
            ("step_begin", begin_step),
            ("settle", settle),
            ("step_end", nothing),
            ("step_failed", nothing),
        ):
            engine.register_command(command, function)
        result: T = self.host.run(self.host.in_run(plan, {}))
        return result

    @property
    def incidents(self) -> list[str]:
        """What kinds of things went wrong."""
        return [incident.kind for incident in self.world.incidents]


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on a jumping loop."""
    host = Host(LabTimeLoop(None))
    yield host
    host.close()


@pytest.fixture
def make(host: Host) -> Iterator[Callable[..., Laboratory]]:
    """Makes laboratories, closed at the end of the test."""
    made: list[Laboratory] = []

    def one(*only: str, **more: Any) -> Laboratory:
        made.append(Laboratory(host, only, **more))
        return made[-1]

    yield one
    for laboratory in made:
        laboratory.close()


Make = Callable[..., Laboratory]

# -- carrying --------------------------------------------------------------------------

HANDS = ("furnace_1", "balance", "robot_arm", "gripper", "door_1")


async def carry(devices: Mapping[str, Any], origin: str, destination: str) -> None:
    """Do what the step does."""
    is_behind_door = SLOT in (origin, destination)
    if is_behind_door:
        await devices["door_1"].set("open")
    await devices["gripper"].kickoff()
    await devices["robot_arm"].set(Carry(CUP, origin, destination))
    await devices["gripper"].complete()
    if is_behind_door:
        await devices["door_1"].set("closed")


@pytest.mark.parametrize("away_s", [0.0, 90.0])
@pytest.mark.parametrize("dies_after_s", [0.0, 1.0, 3.0, 8.0, 14.0, 26.0, 37.0, None])
@pytest.mark.parametrize(
    ("origin", "destination"), [(RACK, PAN), (PAN, RACK), (RACK, SLOT), (SLOT, RACK)]
)
def test_move_ends_well_wherever_its_process_died(
    make: Make, origin: str, destination: str, dies_after_s: float | None, away_s: float
) -> None:
    """The verdict is the world's truth or left to a person; the arm carries once."""
    laboratory = make(*HANDS, at={CUP: origin})
    world = laboratory.world

    def is_there() -> bool:
        return bool(world.containers[CUP].at == destination)

    async def load_another() -> None:
        arm = laboratory.devices["robot_arm"]
        await arm._load_program(arm.settings.programs["rack_1.2 -> balance.pan"])

    laboratory.host.call(load_another())
    laboratory.begin(
        lambda: carry(laboratory.devices, origin, destination), dies_after_s
    )
    laboratory.wait(away_s)

    found = laboratory.host.run(find_carried(laboratory.lab, CUP, destination))
    assert found.has_happened in (None, is_there())
    assert world.containers[CUP].at in (origin, destination)
    laboratory.adopt(move_container(laboratory.lab, CUP, destination), is_there)

    assert is_there()
    assert laboratory.lab.location_of(CUP) == destination
    assert not world.is_door_open("furnace_1")
    assert laboratory.incidents == []
    if destination == PAN and dies_after_s not in (1.0, 3.0):  # loaded, not played
        assert laboratory.n_asked == 0
    if (
        away_s == 0.0
        and dies_after_s in (8.0, 14.0)
        and SLOT not in (origin, destination)
    ):
        assert found.has_happened is True
    if dies_after_s == 0.0:
        assert found.has_happened is False


def test_move_is_left_to_a_person_when_the_hand_holds_the_container(make: Make) -> None:
    """An arm that was stopped on its way has neither left it nor brought it."""
    laboratory = make(*HANDS)
    laboratory.begin(lambda: carry(laboratory.devices, RACK, PAN), 20.0)

    async def stop() -> None:
        await laboratory.devices["robot_arm"]._stop_program()

    laboratory.host.call(stop())
    found = laboratory.host.run(find_carried(laboratory.lab, CUP, PAN))

    assert found.has_happened is None
    assert "the hand holds something" in found.text


def test_move_is_left_to_a_person_when_the_arm_is_in_a_protective_stop(
    make: Make,
) -> None:
    """The person is told to see to the door before it may close."""
    laboratory = make(*HANDS)
    laboratory.begin(lambda: carry(laboratory.devices, RACK, SLOT), 40.0)
    laboratory.inject("robot_arm", "protective stop", for_s=5)
    laboratory.wait(10.0)
    found = laboratory.host.run(find_carried(laboratory.lab, CUP, SLOT))

    assert found.has_happened is None
    assert "is PAUSED" in found.text
    assert "nothing stands in the way of door_1" in found.text


def test_move_is_left_to_a_person_when_the_arm_cannot_be_asked(make: Make) -> None:
    """A controller that is off is no evidence."""
    laboratory = make(*HANDS)
    laboratory.inject("robot_arm", "drop", for_s=1e6)
    found = laboratory.host.run(find_carried(laboratory.lab, CUP, PAN))

    assert found.has_happened is None
    assert "robot_arm" in found.text


def test_move_that_leads_nowhere_has_happened(make: Make) -> None:
    """A container that is where it should go needs no arm."""
    laboratory = make(*HANDS)
    lab = laboratory.lab
    laboratory.adopt(move_container(lab, CUP, RACK), lambda: False)

    assert laboratory.n_asked == 0
    assert lab.location_of(CUP) == RACK


def test_move_by_a_person_shows_on_the_balance(make: Make) -> None:
    """Nobody but the pan can tell what a person did; else the person is asked."""
    laboratory = make("balance", "operator", path=find_lab("a-lab-by-hand"))
    asked = Carry(CUP, RACK, PAN)
    before = laboratory.host.run(find_carried(laboratory.lab, CUP, PAN))
    laboratory.begin(lambda: laboratory.devices["operator"].set(asked), None)
    after = laboratory.host.run(find_carried(laboratory.lab, CUP, PAN))

    assert before.has_happened is None
    assert "ask whether it was done" in before.text
    assert after.has_happened is True


# -- powder ----------------------------------------------------------------------------

STATION = "dosing_robot.station"
REQUEST = DoseRequest(CUP, (Dose("BaCO3", 1.0), Dose("TiO2", 0.5)), 60.0)


async def dose(robot: Any) -> None:
    """Do what the step does."""
    await robot.prepare(REQUEST)
    await robot.trigger()


@pytest.mark.parametrize(
    "dies_after_s", [0.0, 0.05, 0.1, 0.2, 5.0, 30.0, 60.0, 200.0, None]
)
def test_dose_is_given_once_wherever_its_process_died(
    make: Make, dies_after_s: float | None
) -> None:
    """What is in the crucible, and off the stock, is what was asked, once."""
    laboratory = make("dosing_robot", at={CUP: STATION})
    lab, world = laboratory.lab, laboratory.world

    def is_dosed() -> bool:
        return bool(world.containers[CUP].matter.mass_g > 1.4)

    laboratory.begin(lambda: dose(laboratory.devices["dosing_robot"]), dies_after_s)
    lab, robot = laboratory.lab, laboratory.devices["dosing_robot"]
    found = laboratory.host.run(find_dosed(lab, robot, REQUEST))
    assert found.has_happened in (None, is_dosed())
    # What was done is not in the quadrant any more: whether it was, a person says.
    dosed = laboratory.adopt(dose_powders(lab, robot, REQUEST), is_dosed)

    assert world.containers[CUP].matter.mass_g == pytest.approx(1.5, rel=0.02)
    assert dosed["BaCO3"] == pytest.approx(1.0, rel=0.02)
    assert dosed["TiO2"] == pytest.approx(0.5, rel=0.04)
    assert lab.stock_g("BaCO3") == pytest.approx(50 - dosed["BaCO3"])
    assert laboratory.incidents == []
    if dies_after_s in (30.0, 60.0, 200.0):
        assert found.has_happened is True
        assert robot.dosed_g == dosed or laboratory.n_asked == 1


def test_dose_is_done_anew_when_the_rack_was_not_given_back(make: Make) -> None:
    """Pots that were declared, and not worked on, are declared again."""
    laboratory = make("dosing_robot", at={CUP: STATION})

    async def declare(robot: Any) -> None:
        await robot.prepare(REQUEST)
        await robot._take_rack()
        body = {
            "WorkflowName": f"{CUP}-1",
            "Quadrant": 1,
            "InputFile": robot._encode(REQUEST),
        }
        await robot._post_once("/PotsLoaded", body, lambda seen: True)

    laboratory.begin(lambda: declare(laboratory.devices["dosing_robot"]), None)
    lab, robot = laboratory.lab, laboratory.devices["dosing_robot"]
    dosed = laboratory.adopt(dose_powders(lab, robot, REQUEST), lambda: True)

    assert laboratory.n_asked == 0
    assert dosed["BaCO3"] == pytest.approx(1.0, rel=0.02)


def test_dose_is_left_to_a_person_when_the_robot_broke_off(make: Make) -> None:
    """What came before is told, not counted."""
    laboratory = make("dosing_robot", at={CUP: STATION})
    laboratory.inject("dosing_robot", "clogged powder", at_head=2)
    laboratory.begin(lambda: dose(laboratory.devices["dosing_robot"]), 30.0)
    laboratory.world.stock["TiO2"], _ = laboratory.world.stock["TiO2"].take(0.001)
    lab, robot = laboratory.lab, laboratory.devices["dosing_robot"]
    with pytest.raises(InstrumentError, match="of TiO2 instead of"):
        laboratory.adopt(dose_powders(lab, robot, REQUEST), lambda: True)

    assert lab.stock_g("BaCO3") == pytest.approx(49.0, abs=0.05)
    assert 49.5 < lab.stock_g("TiO2") < 49.95


def test_dose_is_left_to_a_person_when_the_pot_was_taken_out(make: Make) -> None:
    """A robot that stopped in the middle tells why and what it gave."""
    laboratory = make("dosing_robot", at={CUP: STATION})
    laboratory.begin(lambda: dose(laboratory.devices["dosing_robot"]), 30.0)
    now = laboratory.host.loop.time()
    laboratory.world.pick_up(now, CUP, STATION, "somebody")
    lab, robot = laboratory.lab, laboratory.devices["dosing_robot"]
    found = laboratory.host.run(find_dosed(lab, robot, REQUEST))

    assert found.has_happened is None
    assert "no pot at position 1; dosed so far: nothing" in found.text
    assert found.result == {"BaCO3": 1.0, "TiO2": 0.5}
    assert lab.stock_g("BaCO3") == 50.0


BENCH = {CUP: "bench.crucible", "crucible_04": "rack_1.1", HOLDER: "bench.holder"}


@pytest.mark.parametrize("dies_after_s", [0.0, 1.0, 5.0, 50.0, None])
@pytest.mark.parametrize("task", ["grind", "mount"])
def test_powder_is_handled_once_wherever_the_process_died(
    make: Make, task: str, dies_after_s: float | None
) -> None:
    """The verdict is the world's truth or left to a person."""
    cup = "crucible_04"
    at = {CUP: "rack_1.4", cup: "bench.crucible", HOLDER: "bench.holder"}
    laboratory = make("robot_arm", "gripper", at=at)
    world = laboratory.world
    acts: list[float] = []
    for name in ("grind", "recover_and_mount"):
        act = getattr(world, name)

        def note(time: float, *rest: Any, act: Any = act) -> None:
            acts.append(time)
            act(time, *rest)

        setattr(world, name, note)

    async def load_another() -> None:
        arm = laboratory.devices["robot_arm"]
        await arm._load_program(arm.settings.programs["rack_1.2 -> balance.pan"])

    laboratory.host.call(load_another())
    asked = Grind(cup, 60.0) if task == "grind" else MountPowder(cup, HOLDER)
    laboratory.begin(lambda: laboratory.devices["robot_arm"].set(asked), dies_after_s)
    lab, arm = laboratory.lab, laboratory.devices["robot_arm"]
    find: Any = find_ground if task == "grind" else find_mounted
    with_what: Any = 60.0 if task == "grind" else HOLDER
    found = laboratory.host.run(find(lab, arm, cup, with_what))
    assert found.has_happened in (None, bool(acts))
    step: Any = grind_powder if task == "grind" else mount_powder
    # The arm was seen to play to its end by the first look only.
    laboratory.adopt(step(lab, arm, cup, with_what), lambda: bool(acts))

    assert len(acts) == 1
    assert laboratory.incidents == []
    if dies_after_s == 0.0:
        assert found.has_happened is False
    if dies_after_s in (5.0, 50.0):
        assert found.has_happened is True


def test_grinding_in_portions_is_left_to_a_person(make: Make) -> None:
    """Nobody knows which of several plays it was."""
    cup = "crucible_04"
    laboratory = make(
        "robot_arm", "gripper", at={CUP: "rack_1.4", cup: "bench.crucible"}
    )
    laboratory.begin(
        lambda: laboratory.devices["robot_arm"].set(Grind(cup, 120.0)), 20.0
    )
    arm = laboratory.devices["robot_arm"]
    found = laboratory.host.run(find_ground(laboratory.lab, arm, cup, 120.0))

    assert found.has_happened is None
    assert "one of 2 plays" in found.text


def test_abort_stops_the_arm_that_is_waited_for(make: Make) -> None:
    """A program that was found playing counts as ours."""
    laboratory = make("robot_arm", "gripper")
    laboratory.begin(
        lambda: laboratory.devices["robot_arm"].set(Carry(CUP, RACK, PAN)), 8.0
    )
    arm = laboratory.devices["robot_arm"]

    async def scenario() -> str:
        from ppu.core.capabilities import TaskUnderWay  # noqa: PLC0415 - used here only

        looking = arm.prepare(TaskUnderWay(Carry(CUP, RACK, PAN)))
        await asyncio.sleep(5.0)
        looking.task.cancel()
        await asyncio.wait([looking.task])
        said: str = await arm.go_to_abort_state()
        return said

    assert "program stopped, verified" in laboratory.host.call(scenario())


# -- firing ----------------------------------------------------------------------------

PROFILE = FiringProfile((Segment(80.0, 10.0, 300.0),), cool_to_degc=76.0)


def live(laboratory: Laboratory, store: Store, answers: list[str]) -> Any:
    """Live until the job is done or the process is dead; return its result."""
    host = laboratory.host
    owner = Ownership(store, laboratory.file, host.loop, lease_s=1e6)
    lost = owner.lost()
    if lost:
        job = host.call(owner.adopt(lost[0].id))
    else:
        request = JobRequest("fire", "1", {}, key="the job")
        store.write(partial(submit, wanted=request, now=host.loop.stamp()))
        claimed = host.call(owner.claim())
        assert claimed is not None
        job = claimed
    host.call(owner.change(job.id, JobState.RUNNING))

    async def answer(path: str, found: Evidence) -> Evidence:
        answers.append(found.text)
        return dataclasses.replace(found, has_happened=False, text="a person looked")

    plan = fire(laboratory.lab, laboratory.devices["furnace_1"], PROFILE)
    result = host.run(
        host.in_run(plan, {"purpose": "test"}), owner.recorder(job, answer)
    )
    host.call(owner.change(job.id, JobState.FINISHING))
    host.call(owner.succeed(job, dataclasses.asdict(result)))
    return result


@pytest.fixture(scope="module")
def whole(
    small_lab: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FiringRecord, int]:
    """The record of a firing that nobody interrupted, and how many commits it took."""
    host = Host(LabTimeLoop(None))
    laboratory = Laboratory(host, ("furnace_1",), path=small_lab)
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    try:
        with MortalStore(path) as store:
            return live(laboratory, store, []), store.n_works
    finally:
        laboratory.close()
        host.close()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
def test_firing_is_joined_whichever_commit_was_the_last(
    host: Host,
    make: Make,
    small_lab: Path,
    tmp_path: Path,
    whole: tuple[FiringRecord, int],
    part: float,
) -> None:
    """One start, one record, nobody asked, and no sample of before is lost."""
    expected, n_works = whole
    laboratory = make("furnace_1", path=small_lab)
    simulated: Any = laboratory.bench.instruments["furnace_1"]
    starts: list[float] = []
    start = simulated._start_program

    def note() -> None:
        starts.append(host.loop.time())
        start()

    simulated._start_program = note
    path = tmp_path / "store.sqlite"
    answers: list[str] = []
    # The step begins at the fifth commit, and ends two before the last.
    dies_at = 6 + round(part * (n_works - 8))
    with (
        MortalStore(path, dies_at, keeps_last=False) as store,
        pytest.raises(DeadError),
    ):
        live(laboratory, store, answers)
    laboratory.die()
    laboratory.open()
    with Store(path) as living:
        record: FiringRecord = live(laboratory, living, answers)

    assert len(starts) == 1
    assert answers == []
    assert list(record.dwell_s) == pytest.approx(list(expected.dwell_s), abs=25.0)
    assert record.max_temperature_degc == pytest.approx(
        expected.max_temperature_degc, abs=3.0
    )
    # Nothing was durable yet when the first sample could not be kept.
    if part > 0.1:
        assert record.started_s == pytest.approx(expected.started_s, abs=3.0)
        assert record.duration_s == pytest.approx(expected.duration_s, abs=30.0)


def adopt_unstarted(laboratory: Laboratory, *, has_happened: bool) -> FiringRecord:
    """Adopt a firing whose process died before its start; a person is asked."""
    furnace = laboratory.devices["furnace_1"]
    laboratory.begin(lambda: furnace.prepare(PROFILE), None)

    async def nothing_earlier(msg: Msg) -> dict[str, list[float]]:
        return {}

    engine: Any = laboratory.host.engine
    engine.register_command("earlier_samples", nothing_earlier)
    plan = fire(laboratory.lab, laboratory.devices["furnace_1"], PROFILE)
    return laboratory.adopt(plan, lambda: has_happened)


def test_firing_is_begun_anew_only_when_a_person_says_so(
    make: Make, small_lab: Path
) -> None:
    """An idle controller is never started by itself."""
    laboratory = make("furnace_1", path=small_lab)
    record = adopt_unstarted(laboratory, has_happened=False)

    assert laboratory.n_asked == 1
    assert list(record.dwell_s) == pytest.approx([300.0], abs=25.0)


def test_firing_fails_when_a_person_says_that_it_happened_unseen(
    make: Make, small_lab: Path
) -> None:
    """Nobody measured it, so the step has no result."""
    laboratory = make("furnace_1", path=small_lab)
    with pytest.raises(
        InstrumentError, match=r"fire: furnace_1: it has happened \(a person looked"
    ):
        adopt_unstarted(laboratory, has_happened=True)

    laboratory.world.truth(laboratory.host.loop.time())
    simulated: Any = laboratory.bench.instruments["furnace_1"]
    assert simulated.chamber.output == 0.0
