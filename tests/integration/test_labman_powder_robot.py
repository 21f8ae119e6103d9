"""The powder robot's driver against the simulated robot, over HTTP on loopback."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from ppu.core.capabilities import Dose, DoseRequest, PowderDoser
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    LimitError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
)
from ppu.core.labfile import LabFile
from ppu.transports.http import HttpConnection
from ppu_drivers.labman_powder_robot import (
    LabmanPowderRobot,
    LabmanPowderRobotLimits,
    LabmanPowderRobotSettings,
)
from ppu_simulators.fronts.http import HttpAnswer, HttpRequest, HttpService
from ppu_simulators.instruments.labman_powder_robot import SimulatedLabmanPowderRobot
from ppu_simulators.world import World

SERIAL = "PR-0042"
REQUEST = DoseRequest(
    "crucible_01", (Dose("BaCO3", 0.8), Dose("TiO2", 0.32)), mixing_s=300.0
)


def lab_file(
    *, serial_number: str = "unset", twin: dict[str, Any] | None = None
) -> LabFile:
    """Return a lab with one powder robot and one crucible at its station."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "robot": {
                    "driver": "ppu_drivers.labman_powder_robot:LabmanPowderRobot",
                    "serial_number": serial_number,
                    "limits": {"dose_mg": [20, 5000]},
                    "slots": ["robot.station"],
                    "twin": twin or {},
                }
            },
            "locations": {
                "robot.station": {"holds": "crucible", "inside": "robot"},
                "bench": {"holds": "crucible"},
            },
            "containers": {
                "crucible_01": {
                    "kind": "crucible",
                    "at": "robot.station",
                    "capacity_ml": 20,
                    "tare_g": 18.2,
                }
            },
            "stock": {
                "BaCO3": {
                    "at": "robot.head_1",
                    "mass_g": 50,
                    "purity": 0.999,
                    "bulk_density_g_per_ml": 1.1,
                },
                "TiO2": {
                    "at": "robot.head_7",
                    "mass_g": 50,
                    "purity": 0.999,
                    "bulk_density_g_per_ml": 0.9,
                },
                "ZnO": {
                    "at": "robot.head_9",
                    "mass_g": 0.3,
                    "purity": 0.999,
                    "bulk_density_g_per_ml": 0.9,
                },
            },
        }
    )


def changed_status(**changes: Any) -> HttpAnswer:
    """Return a status of a robot in whose quadrant 1 the test's workflow works."""
    data = {
        "CurrentOutwardQuadrantNumber": 1,
        "HeatedRackTemperature": 23.5,
        "InAutomatedMode": True,
        "IndexingRackStatus": "RobotControl",
        "PipetteTipCount": 0,
        "ProcessErrorMessage": None,
        "QuadrantStatuses": [
            {
                "LoadedWorkflowName": "crucible_01-1893456000200",
                "Progress": "Processing",
                "QuadrantNumber": 1,
            }
        ],
        "RobotRunning": True,
        **changes,
    }
    return HttpAnswer({"Status": "OK", "ErrorMessage": None, "Data": data})


class Bench:
    """A simulated robot and its driver."""

    def __init__(self, lab: LabFile, seed: int = 1) -> None:
        self.world = World(lab, seed)
        entry = lab.devices["robot"]
        self.simulated = SimulatedLabmanPowderRobot("robot", entry, self.world, SERIAL)
        self.entry = entry
        self.driver: LabmanPowderRobot

    async def start(self) -> None:
        """Listen, and make the driver."""
        connection = await self.simulated.start()
        self.driver = LabmanPowderRobot(
            "robot",
            self.entry,
            HttpConnection.model_validate(connection),
            LabmanPowderRobotSettings.model_validate(self.entry.settings),
            LabmanPowderRobotLimits.model_validate(self.entry.limits),
        )

    async def stop(self) -> None:
        """Close both ends."""
        await self.driver.disconnect()
        await self.simulated.stop()

    @property
    def contents(self) -> dict[str, float]:
        """What is really in the crucible [g]."""
        return self.world.containers["crucible_01"].matter.masses_g()


Scenario = Callable[[Bench], Awaitable[None]]
Run = Callable[..., Bench]
Play = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run(play: Play) -> Run:
    """Runs a scenario on a connected bench."""

    def run(
        scenario: Scenario,
        *,
        lab: LabFile | None = None,
        seed: int = 1,
        connects: bool = True,
    ) -> Bench:
        bench = Bench(lab or lab_file(), seed)

        async def play_on_bench() -> None:
            await bench.start()
            try:
                if connects:
                    await bench.driver.connect_link()
                await scenario(bench)
            finally:
                await bench.stop()

        play(play_on_bench())
        return bench

    return run


async def dose(bench: Bench, request: DoseRequest = REQUEST) -> None:
    """Prepare and execute *request*."""
    await bench.driver.prepare(request)
    await bench.driver.trigger()


class Disturbance:
    """Stands between front and robot and spoils chosen requests."""

    def __init__(
        self,
        service: HttpService,
        path: str,
        answer: HttpAnswer | None,
        *,
        n_times: int = 1_000_000,
        passes_on: bool = False,
    ) -> None:
        self.service = service
        self.path = path
        self.spoiled = answer
        self.n_left = n_times
        self.passes_on = passes_on
        self.seen: list[str] = []

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Spoil the answer, or leave it to the robot."""
        self.seen.append(request.path)
        if request.path != self.path or self.n_left == 0:
            return self.service.answer(request, time)
        self.n_left -= 1
        if self.passes_on:
            self.service.answer(request, time)
        return self.spoiled


def disturb(
    bench: Bench, path: str, answer: HttpAnswer | None, **options: Any
) -> Disturbance:
    """Spoil the answers to *path* from now on."""
    front = bench.simulated.front
    disturbance = Disturbance(front.service, path, answer, **options)
    front.service = disturbance
    return disturbance


CUT_OFF = HttpAnswer(b"", is_cut_off=True)
GARBAGE = HttpAnswer(b"\xff<html>oops")
SILENCE = None


def test_robot_doses_what_was_asked_when_all_is_well(run: Run) -> None:
    """The masses reported are the true ones, to the noise of the robot's balance."""
    bench = run(dose)

    dosed = bench.driver.dosed_g
    assert isinstance(bench.driver, PowderDoser)
    assert dosed.keys() == {"BaCO3", "TiO2"}
    assert dosed["BaCO3"] == pytest.approx(bench.contents["BaCO3"], abs=4e-4)
    assert dosed["TiO2"] == pytest.approx(bench.contents["TiO2-anatase"], abs=4e-4)
    assert dosed["BaCO3"] == pytest.approx(0.8, abs=0.01)
    assert bench.world.containers["crucible_01"].matter.mixedness > 0.7
    assert bench.world.incidents == []


def test_robot_conserves_every_element_when_it_doses(run: Run) -> None:
    """What is in the crucible is missing in the heads."""
    before = World(lab_file(), 1).elements()
    bench = run(dose)

    assert bench.world.elements() == pytest.approx(before)


def test_robot_reading_is_the_total_mass_when_done(run: Run) -> None:
    """The hinted signal carries the sum of all doses, stamped when it was known."""
    readings: dict[str, Any] = {}

    async def scenario(bench: Bench) -> None:
        await dose(bench)
        readings.update(await bench.driver.read())

    bench = run(scenario)

    total = sum(bench.driver.dosed_g.values())
    assert readings["robot_dosed_mass"]["value"] == pytest.approx(total)


def test_robot_takes_the_same_lab_time_when_the_seed_is_the_same(run: Run) -> None:
    """Durations and masses repeat exactly on a new bench."""
    took_s: list[float] = []

    async def scenario(bench: Bench) -> None:
        begun = asyncio.get_running_loop().time()
        await dose(bench)
        took_s.append(asyncio.get_running_loop().time() - begun)

    first = run(scenario)
    second = run(scenario)

    assert took_s[1] == pytest.approx(took_s[0], abs=1e-6)
    assert second.driver.dosed_g == first.driver.dosed_g


def test_wait_costs_at_most_one_poll_period_when_the_work_is_done(run: Run) -> None:
    """The driver asks for the rack within 5 s of the end, polling once each time."""
    took_s: list[float] = []
    seen: list[str] = []

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        disturbance = disturb(bench, "/none", None)
        await bench.driver.trigger()
        took_s.append(asyncio.get_running_loop().time() - bench.simulated.done_at_s)
        seen.extend(disturbance.seen)

    run(scenario)
    first = seen.index("/ReleaseIndexingRackControl")
    polls = seen[first + 1 : seen.index("/GetResults")]

    rack_turn_s = 12.0
    assert 0.0 <= took_s[0] - rack_turn_s <= 5.0 + 5.0 + 0.2
    assert set(polls) == {"/GetStatus"}
    assert 80 <= len(polls) / 3 <= 110  # each poll is confirmed


def test_robot_doses_two_requests_when_prepared_twice(run: Run) -> None:
    """The quadrant is handed over after each request, so the next can follow."""

    async def scenario(bench: Bench) -> None:
        await dose(bench)
        await dose(bench)

    bench = run(scenario)

    assert bench.contents["BaCO3"] == pytest.approx(1.6, abs=0.02)


def test_robot_does_nothing_when_triggered_twice(run: Run) -> None:
    """One preparation is executed once: powder cannot be taken back."""

    async def scenario(bench: Bench) -> None:
        await dose(bench)
        with pytest.raises(InstrumentError, match="nothing is prepared"):
            await bench.driver.trigger()

    bench = run(scenario)

    assert bench.contents["BaCO3"] == pytest.approx(0.8, abs=0.01)


def test_prepare_names_every_fault_when_limits_are_exceeded(run: Run) -> None:
    """All faults come in one message and nothing is sent that would move."""
    wrong = DoseRequest(
        "crucible_01",
        (Dose("BaCO3", 9.0), Dose("CuO", 0.5), Dose("TiO2", float("nan"))),
        mixing_s=700.5,
    )

    async def scenario(bench: Bench) -> None:
        with pytest.raises(LimitError) as caught:
            await bench.driver.prepare(wrong)
        text = str(caught.value)
        assert "dose 1: 9000 mg of BaCO3, allowed are 20 to 5000 mg" in text
        assert "dose 3: nan mg" in text
        assert "mixing for 700.5 s" in text
        assert "no dosing head holds CuO; loaded are BaCO3, TiO2, ZnO" in text

    assert run(scenario).contents == {}


def test_prepare_is_refused_when_the_robot_objects(run: Run) -> None:
    """A verdict of the robot alone becomes an error with its code."""

    async def scenario(bench: Bench) -> None:
        verdict = {"Status": "OK", "Data": {"Result": "InsufficientPipetteTips"}}
        disturb(bench, "/ValidateWorkflow", HttpAnswer(verdict))
        with pytest.raises(InstrumentError, match="not enough pipette tips") as caught:
            await bench.driver.prepare(REQUEST)
        assert caught.value.code == "InsufficientPipetteTips"

    run(scenario)


def test_trigger_is_refused_when_the_station_is_empty(run: Run) -> None:
    """The robot looks before it doses, and nothing falls on its plate."""

    async def scenario(bench: Bench) -> None:
        bench.world.pick_up(0.0, "crucible_01", "robot.station", "test")
        bench.world.put_down(0.0, "crucible_01", "bench", "test")
        await bench.driver.prepare(REQUEST)
        with pytest.raises(InstrumentError, match="there is no pot at position 1"):
            await bench.driver.trigger()

    bench = run(scenario)

    assert bench.contents == {}
    assert bench.world.stock["BaCO3"].mass_g == pytest.approx(50.0)


def test_trigger_fails_when_a_head_runs_empty(run: Run) -> None:
    """What the robot reports is told, and what fell before is in the crucible."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match=r"head 9 \(ZnO\) ran empty"):
            await dose(bench, DoseRequest("crucible_01", (Dose("ZnO", 0.5),), 60.0))
        with pytest.raises(LimitError, match=r"dosing head 9 \(ZnO\) is empty"):
            await bench.driver.prepare(
                DoseRequest("crucible_01", (Dose("ZnO", 0.1),), 60.0)
            )
        await dose(bench)

    bench = run(scenario)

    assert bench.contents["ZnO"] == pytest.approx(0.3)
    assert bench.contents["BaCO3"] == pytest.approx(0.8, abs=0.01)


def test_trigger_fails_when_the_crucible_is_taken_out(run: Run) -> None:
    """Hands in the working robot are an incident, and the missing pot is noticed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(80.0)
        bench.world.pick_up(
            asyncio.get_running_loop().time(), "crucible_01", "robot.station", "hands"
        )
        with pytest.raises(InstrumentError, match="no pot at position 1"):
            await status

    bench = run(scenario)

    assert [incident.kind for incident in bench.world.incidents] == ["hands in machine"]


@pytest.mark.parametrize(
    ("spoiled", "error"),
    [(GARBAGE, MalformedReply), (SILENCE, ReplyTimeout), (CUT_OFF, LinkBroken)],
)
@pytest.mark.parametrize("path", ["/PotsLoaded", "/ReleaseIndexingRackControl"])
def test_start_is_never_repeated_when_it_does_not_come_through(
    run: Run, path: str, spoiled: HttpAnswer | None, error: type[Exception]
) -> None:
    """A lost start is sent once and told, whatever became of its answer."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        disturbance = disturb(bench, path, spoiled)
        with pytest.raises(error):
            await bench.driver.trigger()
        assert disturbance.seen.count(path) == 1

    assert run(scenario).contents == {}


@pytest.mark.parametrize("spoiled", [GARBAGE, SILENCE, CUT_OFF])
@pytest.mark.parametrize("path", ["/PotsLoaded", "/ReleaseIndexingRackControl"])
def test_work_goes_on_when_only_the_answer_to_the_start_is_lost(
    run: Run, path: str, spoiled: HttpAnswer | None
) -> None:
    """The status shows that the start came through, so nothing is dosed twice."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        disturbance = disturb(bench, path, spoiled, n_times=1, passes_on=True)
        await bench.driver.trigger()
        assert disturbance.seen.count(path) == 1

    assert run(scenario).contents["BaCO3"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("spoiled", [GARBAGE, SILENCE, CUT_OFF])
def test_wait_goes_on_when_polls_fail_for_a_while(
    run: Run, spoiled: HttpAnswer | None
) -> None:
    """Five failed polls in a row do not end a workflow that the robot goes on with."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, "/GetStatus", spoiled, n_times=5)
        await status

    assert run(scenario).driver.dosed_g["BaCO3"] == pytest.approx(0.8, abs=0.01)


def test_wait_ends_when_the_robot_stays_silent(run: Run) -> None:
    """After the silence that the lab file allows the driver gives up."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, "/GetStatus", SILENCE)
        with pytest.raises(ReplyTimeout, match=r"robot: no answer from .*/GetStatus"):
            await status
        assert 300.0 < asyncio.get_running_loop().time() < 500.0

    run(scenario)


def test_robot_goes_on_when_the_wait_is_cancelled(run: Run) -> None:
    """Cancelling stops waiting only; the robot cannot be stopped."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        with pytest.raises(InstrumentError, match="quadrant 1 is processing"):
            await bench.driver.prepare(REQUEST)
        bench.world.advance(1000.0)

    assert run(scenario).contents["BaCO3"] == pytest.approx(0.8, abs=0.01)


def test_connect_succeeds_when_the_serial_number_matches(run: Run) -> None:
    """The robot's own serial number is kept as its identity."""

    async def scenario(bench: Bench) -> None:
        bench.driver.expected_nonce = SERIAL
        await bench.driver.connect_link()

    identity = run(scenario, lab=lab_file(serial_number=SERIAL)).driver.identity

    assert identity is not None
    assert identity.serial_number == SERIAL


def test_connect_is_refused_when_a_stranger_answers(run: Run) -> None:
    """A web server that is no powder robot is not taken for one."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, "/GetStatus", HttpAnswer({"Status": "OK", "Data": {}}))
        with pytest.raises(ConnectError, match="is no Labman powder robot"):
            await bench.driver.connect_link()

    run(scenario, connects=False)


def test_robot_is_refused_when_two_powders_share_a_head() -> None:
    """A lab file whose stock cannot be is not simulated."""
    lab = lab_file()
    stock = dict(lab.stock)
    stock["CuO"] = stock["TiO2"]
    wrong = lab.model_copy(update={"stock": stock})

    with pytest.raises(ValueError, match="should be a head of its own"):
        SimulatedLabmanPowderRobot(
            "robot", lab.devices["robot"], World(wrong, 0), SERIAL
        )


def test_check_names_every_fault_and_sends_nothing(run: Run) -> None:
    """A request can be refused before anybody is asked."""

    async def scenario(bench: Bench) -> None:
        disturbance = disturb(bench, "/none", None)
        with pytest.raises(LimitError, match=r"no powder is asked for; mixing for -1"):
            bench.driver.check_request(DoseRequest("crucible_01", (), -1.0))
        bench.driver.check_request(REQUEST)
        assert disturbance.seen == []

    run(scenario)


@pytest.mark.parametrize(
    ("path", "data", "error", "reason"),
    [
        ("/GetStatus", {"InAutomatedMode": 1}, MalformedReply, "robot: no status of"),
        ("/DosingHeads", [{}], MalformedReply, "robot: no list of dosing heads"),
        ("/ValidateWorkflow", {}, MalformedReply, "robot: no validation result"),
        ("/ValidateWorkflow", {"Result": "Odd"}, InstrumentError, "Odd: a reason that"),
    ],
)
def test_prepare_fails_when_the_robot_answers_nonsense(
    run: Run, path: str, data: Any, error: type[Exception], reason: str
) -> None:
    """An answer in the right envelope and of the wrong content names the device."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, path, HttpAnswer({"Status": "OK", "Data": data}))
        with pytest.raises(error, match=reason):
            await bench.driver.prepare(REQUEST)

    run(scenario)


def test_prepare_is_refused_when_the_robot_is_in_manual_mode(run: Run) -> None:
    """A person has to put the robot into automated mode."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, "/GetStatus", changed_status(InAutomatedMode=False))
        with pytest.raises(InstrumentError, match="not in automated mode; quadrant 1"):
            await bench.driver.prepare(REQUEST)

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ProcessErrorMessage": "no air"}, "crucible_01-1893456000200: no air"),
        ({"RobotRunning": False}, "was stopped during crucible_01-1893456000200"),
        ({"InAutomatedMode": False}, "was stopped during crucible_01-1893456000200"),
        ({"QuadrantStatuses": []}, "quadrant 1 holds None instead of crucible_01-"),
    ],
)
def test_wait_ends_when_the_robot_will_never_be_done(
    run: Run, changes: dict[str, Any], reason: str
) -> None:
    """An error, a stop and a foreign workflow end the wait at the next poll."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, "/GetStatus", changed_status(**changes))
        with pytest.raises(InstrumentError, match=reason):
            await status
        assert asyncio.get_running_loop().time() < 66.0

    run(scenario)


def test_wait_ends_when_the_robot_is_never_done(run: Run) -> None:
    """A workflow may take no longer than the lab file allows."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, "/GetStatus", changed_status())
        with pytest.raises(InstrumentError, match="is not complete after 14400 s"):
            await status

    run(scenario)


def test_trigger_fails_when_the_rack_never_turns(run: Run) -> None:
    """A rack that stays with the robot is told after its deadline."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        disturb(bench, "/GetStatus", changed_status())
        with pytest.raises(InstrumentError, match="does not face outwards after 600 s"):
            await bench.driver.trigger()

    assert run(scenario).contents == {}


def test_trigger_fails_when_an_error_stands_before_the_start(run: Run) -> None:
    """A robot that reports an error is not loaded."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = changed_status(
            IndexingRackStatus="UserControl", ProcessErrorMessage="door open"
        )
        disturb(bench, "/GetStatus", status)
        with pytest.raises(InstrumentError, match="robot: the robot reports door open"):
            await bench.driver.trigger()

    assert run(scenario).contents == {}


@pytest.mark.parametrize(
    ("pots", "error", "reason"),
    [
        ([], MalformedReply, "robot: no results of one pot"),
        (
            [{"Position": 1, "PowderResults": []}],
            InstrumentError,
            "reports no mass of BaCO3, TiO2",
        ),
    ],
)
def test_trigger_fails_when_results_are_missing(
    run: Run, pots: list[Any], error: type[Exception], reason: str
) -> None:
    """No mass is reported that the robot did not report."""

    async def scenario(bench: Bench) -> None:
        disturb(
            bench,
            "/GetResults",
            HttpAnswer({"Status": "OK", "Data": {"Results": pots}}),
        )
        with pytest.raises(error, match=reason):
            await dose(bench)

    assert run(scenario).driver.dosed_g == {}


def test_front_tells_what_cannot_be_served(run: Run) -> None:
    """An unknown path is status 404, and a body that is no JSON is refused."""
    seen: list[Any] = []

    async def scenario(bench: Bench) -> None:
        url = bench.simulated.front.url
        async with aiohttp.ClientSession(base_url=url) as session:
            async with session.get("/Nothing") as response:
                seen.append(response.status)
            async with session.post("/ValidateWorkflow", data=b"{") as response:
                seen.append((await response.json())["ErrorMessage"])

    run(scenario)

    assert seen == [404, "the body is not JSON"]


def test_simulator_stops_when_a_client_still_waits(run: Run) -> None:
    """A request that is never answered does not keep the port open."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, "/GetStatus", SILENCE)
        asking = asyncio.ensure_future(bench.driver.read_status())
        await asyncio.sleep(5.0)
        await bench.simulated.stop()
        with pytest.raises((LinkBroken, ConnectError)):
            await asking

    run(scenario)
