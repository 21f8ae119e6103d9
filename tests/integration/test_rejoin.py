"""Firings, carries and doses whose process died: what the next one makes of them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ppu.core.capabilities import FiringProfile, FiringRecord, FiringUnderWay, Segment
from ppu.core.errors import (
    InstrumentError,
    InterlockError,
    InternalError,
    NothingToJoinError,
)
from ppu.core.labfile import LabFile, load_lab
from ppu.core.labtime import running_loop
from ppu.devices.build import build_devices
from ppu.testing.loops import play_from_start
from ppu.twin.bench import Bench

Play = Callable[[Coroutine[Any, Any, Any]], Any]

LAB = Path(__file__).parents[1] / "contract" / "lab.yaml"
BOTH = pytest.mark.parametrize("furnace", ["furnace", "tcp_furnace"])
PROFILE = FiringProfile(
    (Segment(100.0, 10.0, 600.0), Segment(150.0, 5.0, 1200.0)), cool_to_degc=110.0
)
FLUSH_S = 60.0
RUN, HELD = 1, 2
"""Codes of the 3216's register 23."""


class Stand:
    """A simulated furnace, and one process after the other that uses it."""

    def __init__(self, furnace: str, **change: Any) -> None:
        file = load_lab(LAB)
        entry = file.devices[furnace].model_copy(update=change)
        self.file = file.model_copy(
            update={"devices": {**file.devices, furnace: entry}}
        )
        self.furnace = furnace
        self.bench = Bench(self.file, LAB, 5, only=(furnace,))
        self.simulated: Any = self.bench.instruments[furnace]
        self.kept: dict[str, list[float]] = {}
        """What was flushed: what a store would have."""
        self.written: list[tuple[int, list[int]]] = []
        self.driver: Any = None
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Stand":
        await self.bench.start()
        write = self.simulated.write

        def note(address: int, values: list[int], time: float) -> None:
            self.written.append((address, values))
            write(address, values, time)

        self.simulated.write = note
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()
        await self.bench.stop()

    async def open(self) -> None:
        """Begin another process."""
        devices = build_devices(self.file, LAB, self.bench.connections, (self.furnace,))
        self.driver = devices[self.furnace]
        await self.driver.connect_link()

    async def die(self) -> None:
        """End the process: nobody cleans up."""
        tasks = {self._life, self.driver._firing.task} - {None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        self._life = None
        await self.driver.disconnect()

    def begin(self, what: Coroutine[Any, Any, None]) -> None:
        """Do something in the background."""
        self._life = running_loop().create_task(what)

    async def fire(self, asked: Any = PROFILE) -> None:
        """Do what the plan does: prepare, start, and collect until it is complete."""
        await self.driver.prepare(asked)
        await self.driver.kickoff()
        while not self.driver._firing.task.done():
            await self.flush()
            await asyncio.wait([self.driver._firing.task], timeout=FLUSH_S)
        await self.flush()
        await self.driver.complete()

    async def flush(self) -> None:
        """Keep what was sampled."""
        async for page in self.driver.collect_pages():
            self.kept.setdefault("time", []).extend(page["time"])
            for key, values in page["data"].items():
                self.kept.setdefault(key, []).extend(values)

    async def rejoin(self) -> FiringRecord:
        """Join what a process before had begun, and see it through."""
        await self.fire(FiringUnderWay(PROFILE, self.kept))
        record: FiringRecord = self.driver.last_firing
        return record

    async def until(self, lab_time: float) -> None:
        """Let lab time come to *lab_time*."""
        await asyncio.sleep(lab_time - running_loop().time())

    @property
    def n_starts(self) -> int:
        """How often a program was started."""
        return self.written.count((23, [RUN])) + self.written.count((10573, [1]))

    @property
    def is_off(self) -> bool:
        """Whether the output is 0 % by hand and no program runs."""
        self.bench.world.truth(running_loop().time())
        chamber = self.simulated.chamber
        is_running = self.simulated._programmer.status == RUN + (
            self.furnace == "tcp_furnace"
        )
        return (
            chamber.output == 0.0
            and self.simulated.manual_output == 0.0
            and not is_running
        )

    def touch(self, register: int, value: int) -> None:
        """Change a register at the panel."""
        type(self.simulated).write(
            self.simulated, register, [value], running_loop().time()
        )


def on_stand(
    scenario: Callable[[Stand], Awaitable[Any]], furnace: str, **change: Any
) -> Any:
    """Play *scenario* on a stand of its own, from lab time 0 on."""

    async def scene() -> Any:
        async with Stand(furnace, **change) as stand:
            return await scenario(stand)

    return play_from_start(scene())


@cache
def uninterrupted(furnace: str) -> tuple[FiringRecord, dict[str, list[float]]]:
    """Return the record and the samples of a firing that nobody interrupted."""

    async def scenario(stand: Stand) -> tuple[FiringRecord, dict[str, list[float]]]:
        await stand.fire()
        return stand.driver.last_firing, stand.kept

    found: tuple[FiringRecord, dict[str, list[float]]] = on_stand(scenario, furnace)
    return found


def moments(furnace: str) -> dict[str, float]:
    """Return when what happens in an uninterrupted firing [lab time]."""
    _, kept = uninterrupted(furnace)
    begin = kept["time"][0]
    setpoints = kept[f"{furnace}_working_setpoint"]
    running = kept[f"{furnace}_is_program_running"]
    at = {round(time - begin): index for index, time in enumerate(kept["time"])}
    assert list(at)[:3] == [0, 10, 20]
    first_top = setpoints.index(150.0)
    ended = running.index(False)
    times = [time - begin for time in kept["time"]]
    return {
        "ramping": 200.0,
        "in the first dwell": times[setpoints.index(100.0)] + 250.0,
        "on the second ramp": times[first_top] - 200.0,
        "dwelling": times[first_top] + 500.0,
        "cooling": times[ended] + 400.0,
    }


# -- joining ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "moment",
    [
        "ramping",
        "in the first dwell",
        "on the second ramp",
        "dwelling",
        "cooling",
    ],
)
def test_joined_firing_ends_as_if_nobody_had_died(furnace: str, moment: str) -> None:
    """Start, dwells and temperatures are those of a firing without a death."""
    whole, samples = uninterrupted(furnace)

    async def scenario(stand: Stand) -> FiringRecord:
        stand.begin(stand.fire())
        await stand.until(moments(furnace)[moment])
        await stand.die()
        await asyncio.sleep(25.0)
        await stand.open()
        record = await stand.rejoin()
        assert stand.n_starts == 1
        stand.kept["time"] = [round(time, 1) for time in stand.kept["time"]]
        gaps = [
            after - before
            for before, after in zip(
                stand.kept["time"], stand.kept["time"][1:], strict=False
            )
        ]
        assert min(gaps) > 0
        assert max(gaps) <= FLUSH_S + 25.0 + 2 * 10.0
        assert sorted(gaps)[-2] <= 10.5
        assert record.n_samples == len(stand.kept["time"])
        assert set(stand.kept) == set(samples)
        return record

    record: FiringRecord = on_stand(scenario, furnace)

    assert record.started_s == pytest.approx(whole.started_s, abs=1.0)
    assert record.duration_s == pytest.approx(whole.duration_s, abs=20.0)
    assert list(record.dwell_s) == pytest.approx(list(whole.dwell_s), abs=40.0)
    assert record.max_temperature_degc == pytest.approx(
        whole.max_temperature_degc, abs=2.0
    )
    assert record.dwell_temperature_degc == pytest.approx(
        whole.dwell_temperature_degc, abs=2.0
    )


@BOTH
@pytest.mark.parametrize("moment", ["ramping", "in the first dwell", "dwelling"])
def test_firing_that_ended_meanwhile_is_joined_when_somebody_kept_watch(
    furnace: str, moment: str
) -> None:
    """Hours later its dwells count as asked, because there was time for them."""
    whole, _ = uninterrupted(furnace)

    async def scenario(stand: Stand) -> FiringRecord:
        stand.begin(stand.fire())
        await stand.until(moments(furnace)[moment])
        await stand.die()
        await stand.open()
        while running_loop().time() < moments(furnace)["cooling"]:
            await stand.driver.go_to_orphan_state()  # as the guard does
            await asyncio.sleep(5.0)
        await stand.die()
        await stand.open()
        record = await stand.rejoin()
        assert stand.n_starts == 1
        return record

    record: FiringRecord = on_stand(scenario, furnace)

    assert record.started_s == pytest.approx(whole.started_s, abs=1.0)
    assert list(record.dwell_s) == pytest.approx([600.0, 1200.0], abs=40.0)
    assert record.duration_s == pytest.approx(whole.duration_s, abs=20.0)


@BOTH
def test_firing_that_was_complete_is_joined_from_its_samples(furnace: str) -> None:
    """A process that died before it could tell leaves all that must be told."""
    whole, _ = uninterrupted(furnace)

    async def scenario(stand: Stand) -> FiringRecord:
        await stand.fire()
        await stand.die()
        await asyncio.sleep(100.0)
        await stand.open()
        return await stand.rejoin()

    record: FiringRecord = on_stand(scenario, furnace)

    assert record.started_s == pytest.approx(whole.started_s, abs=1e-3)
    assert record.duration_s == pytest.approx(whole.duration_s, abs=1e-3)
    assert list(record.dwell_s) == pytest.approx(list(whole.dwell_s))
    assert record.n_samples == whole.n_samples


@BOTH
@pytest.mark.parametrize("moment", ["ramping", "in the first dwell", "dwelling"])
def test_firing_is_joined_when_nothing_of_it_was_kept(
    furnace: str, moment: str
) -> None:
    """The program is that of the step and runs; its start is not known."""
    dies_at = moments(furnace)[moment]

    async def scenario(stand: Stand) -> FiringRecord:
        stand.begin(stand.fire())
        await stand.until(dies_at)
        await stand.die()
        stand.kept = {}
        await stand.open()
        joined = running_loop().stamp()
        record = await stand.rejoin()
        assert record.started_s == pytest.approx(joined, abs=2.0)
        assert stand.n_starts == 1
        return record

    record: FiringRecord = on_stand(scenario, furnace)

    assert list(record.dwell_s) == pytest.approx([600.0, 1200.0], abs=40.0)


@BOTH
def test_nothing_is_heated_when_the_process_died_before_the_start(furnace: str) -> None:
    """An idle controller and no sample: nothing to join, and nothing is written."""

    async def scenario(stand: Stand) -> None:
        await stand.driver.prepare(PROFILE)
        await stand.die()
        await stand.open()
        before = len(stand.written)
        with pytest.raises(NothingToJoinError, match="no sample shows that one had"):
            await stand.rejoin()
        with pytest.raises(InstrumentError, match="no program is loaded"):
            await stand.driver.kickoff()
        assert await stand.driver.go_to_abort_state() == ""
        await asyncio.sleep(600.0)
        stand.bench.world.truth(running_loop().time())
        assert stand.simulated.chamber.output == 0.0
        assert len(stand.written) == before
        assert stand.n_starts == 0

    on_stand(scenario, furnace)


def another_program(stand: Stand) -> None:
    """Lower the target of the first segment."""
    stand.touch(1281 if stand.furnace == "furnace" else 8337, 900)


def on_hold(stand: Stand) -> None:
    """Hold the program."""
    if stand.furnace == "furnace":
        stand.touch(23, HELD)
    else:
        stand.touch(10574, 1)


def broken_sensor(stand: Stand) -> None:
    """Cut the thermocouple."""
    stand.bench.inject(stand.furnace, {"fault": "thermocouple open"})


def by_hand(stand: Stand) -> None:
    """Take the output by hand."""
    stand.touch(273, 1)


def unsafe(stand: Stand) -> None:
    """Raise alarm 1."""
    stand.touch(13, 12000)


@BOTH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_program, "another program is loaded"),
        (on_hold, "on hold"),
        (broken_sensor, "broken thermocouple"),
        (by_hand, "loop_mode is manual, the firing had set it to auto"),
        (unsafe, r"alarm 1 threshold \(13\) is 1200"),
    ],
)
def test_firing_is_not_joined_when_it_is_not_as_it_was_left(
    furnace: str, change: Callable[[Stand], None], words: str
) -> None:
    """What is seen is told, and nothing is written."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        change(stand)
        await asyncio.sleep(15.0)
        await stand.open()
        before = len(stand.written)
        with pytest.raises(NothingToJoinError, match=words) as caught:
            await stand.rejoin()
        assert stand.furnace in str(caught.value)
        assert len(stand.written) == before

    on_stand(scenario, furnace)


def test_firing_is_not_joined_when_the_watchdog_took_the_power_off() -> None:
    """A process that was away for longer than the timeout left it off."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        await asyncio.sleep(100.0)
        await stand.open()
        with pytest.raises(NothingToJoinError, match="watchdog has taken the power"):
            await stand.rejoin()

    on_stand(scenario, "tcp_furnace")


def test_watchdog_is_fed_when_the_start_of_sampling_takes_long() -> None:
    """From the look on: gas may have to flow before the firing is sampled again."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        await stand.open()
        await stand.driver.prepare(FiringUnderWay(PROFILE, stand.kept))
        await asyncio.sleep(200.0)
        await stand.driver.kickoff()
        await stand.driver.complete()
        assert stand.driver.last_firing.dwell_s[1] == pytest.approx(1200, abs=40)

    on_stand(scenario, "tcp_furnace")


@pytest.mark.parametrize("away_s", [120.0, 1500.0])
def test_joined_firing_fails_when_its_program_had_no_time_to_end(away_s: float) -> None:
    """A program that was reset meanwhile has not passed all its segments."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        stand.touch(23, 0)
        await asyncio.sleep(away_s)
        await stand.open()
        with pytest.raises(InstrumentError, match=r"ended before .*the heater is off"):
            await stand.rejoin()
        assert stand.is_off

    on_stand(scenario, "furnace")


@BOTH
def test_abort_ends_a_joined_firing(furnace: str) -> None:
    """It counts as what this process started, from the look on."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        await stand.open()
        await stand.driver.prepare(FiringUnderWay(PROFILE, stand.kept))
        assert "ramping down" in await stand.driver.go_to_abort_state()

    on_stand(scenario, furnace)


@BOTH
def test_firing_that_this_process_samples_is_joined_as_it_is(furnace: str) -> None:
    """Whoever waited for it has left; another one waits on, and nothing is new."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        sampling = stand.driver._firing.task
        await stand.driver.prepare(FiringUnderWay(PROFILE, stand.kept))
        await stand.driver.kickoff()
        assert stand.driver._firing.task is sampling
        await stand.driver.complete()
        assert stand.driver.last_firing.dwell_s == pytest.approx((600, 1200), abs=40)

    on_stand(scenario, furnace)


@BOTH
def test_joining_is_refused_while_this_process_fires_another(furnace: str) -> None:
    """What one samples is not what is asked for."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        other = FiringProfile((Segment(60.0, 10.0, 60.0),), cool_to_degc=50.0)
        with pytest.raises(InterlockError, match="not complete yet"):
            await stand.driver.prepare(FiringUnderWay(other, stand.kept))

    on_stand(scenario, furnace)


def test_earlier_samples_must_be_those_of_the_furnace() -> None:
    """Columns that do not belong together are a mistake of ours."""

    async def scenario(stand: Stand) -> None:
        columns = {"time": [1.0, 2.0], "furnace_process_value": [20.0]}
        with pytest.raises(InternalError, match="2 times, but values are"):
            await stand.driver.prepare(FiringUnderWay(PROFILE, columns))

    on_stand(scenario, "furnace")


def test_firing_is_not_joined_when_its_samples_lie_in_the_future() -> None:
    """A clock that was set back makes all durations wrong."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        stand.kept["time"] = [time + 3600.0 for time in stand.kept["time"]]
        await stand.open()
        with pytest.raises(NothingToJoinError, match="was the clock set back"):
            await stand.rejoin()

    on_stand(scenario, "furnace")


# -- orphans ---------------------------------------------------------------------------


async def orphan(stand: Stand, dies_at: float = 300.0) -> None:
    """Let a process die while it fires, and begin another."""
    stand.begin(stand.fire())
    await stand.until(dies_at)
    await stand.die()
    await stand.open()


@BOTH
@pytest.mark.parametrize("state", [None, "continue", "ramp_down", "heater_off"])
def test_orphan_goes_to_its_state_and_stays_there(
    furnace: str, state: str | None
) -> None:
    """Whoever opens it brings it there once; every later call only looks."""
    said_first = {
        "ramp_down": "ramping down",
        "heater_off": "heater off, verified",
    }.get(str(state), "left alone, its program is in state run")

    async def scenario(stand: Stand) -> None:
        await orphan(stand)
        before = len(stand.written)
        first = await stand.driver.go_to_orphan_state()
        n_written = len(stand.written) - before
        second = await stand.driver.go_to_orphan_state()
        assert said_first in first
        assert stand.furnace in first
        is_left = state in (None, "continue")
        assert (n_written == 0) is is_left
        assert (second == "") is not is_left
        assert len(stand.written) == before + n_written

    on_stand(scenario, furnace, on_orphan=state)


@BOTH
def test_orphan_that_does_nothing_is_left_alone(furnace: str) -> None:
    """An idle controller needs nothing to be said."""

    async def scenario(stand: Stand) -> None:
        assert await stand.driver.go_to_orphan_state() == ""
        assert stand.written == []

    on_stand(scenario, furnace)


@BOTH
def test_orphan_is_switched_off_when_its_sensor_is_broken(furnace: str) -> None:
    """Whatever the lab file says; a second call finds it off."""

    async def scenario(stand: Stand) -> None:
        await orphan(stand)
        stand.bench.inject(stand.furnace, {"fault": "thermocouple open"})
        await asyncio.sleep(15.0)
        said = await stand.driver.go_to_orphan_state()
        assert "broken thermocouple" in said
        assert "heater off, verified" in said
        await asyncio.sleep(5.0)
        assert stand.is_off
        before = len(stand.written)
        assert await stand.driver.go_to_orphan_state() == said
        assert len(stand.written) == before

    on_stand(scenario, furnace, on_orphan="continue")


@BOTH
def test_orphan_is_switched_off_when_it_is_over_the_limit(furnace: str) -> None:
    """The limit is that of the lab file."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(3000.0)
        await stand.die()
        limits = {"temperature_degc": [0, 60], "ramp_degc_per_min": [0, 10]}
        entry = stand.file.devices[furnace].model_copy(update={"limits": limits})
        stand.file = stand.file.model_copy(update={"devices": {furnace: entry}})
        await open_excerpt(stand)
        said = await stand.driver.go_to_orphan_state()
        assert "is over the limit of 60; heater off, verified" in said
        await asyncio.sleep(5.0)
        assert stand.is_off

    on_stand(scenario, furnace)


async def open_excerpt(stand: Stand) -> None:
    """Begin another process with a lab file that was changed."""
    devices = build_devices(
        stand.file, LAB, stand.bench.connections, (stand.furnace,), is_excerpt=True
    )
    stand.driver = devices[stand.furnace]
    await stand.driver.connect_link()


def test_watchdog_acts_when_nobody_looks_after_an_orphan_any_more() -> None:
    """Looking feeds it; whoever stops looking leaves it to the watchdog."""

    async def scenario(stand: Stand) -> None:
        await orphan(stand)
        said = ""
        for _ in range(30):
            said = await stand.driver.go_to_orphan_state()
            await asyncio.sleep(10.0)
        assert "watchdog" not in said
        await asyncio.sleep(100.0)
        said = await stand.driver.go_to_orphan_state()
        assert "its watchdog has taken the power off" in said

    on_stand(scenario, "tcp_furnace")


@BOTH
def test_orphan_state_leaves_alone_what_this_process_fires(furnace: str) -> None:
    """Who samples it sees to it."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        assert await stand.driver.go_to_orphan_state() == ""
        assert not stand.driver._firing.task.done()

    on_stand(scenario, furnace, on_orphan="heater_off")


@BOTH
def test_orphan_that_heats_by_hand_goes_to_its_state(furnace: str) -> None:
    """An output that somebody set by hand heats, too."""

    async def scenario(stand: Stand) -> None:
        stand.touch(273, 1)
        stand.touch(3, 300)
        await asyncio.sleep(5.0)
        assert "heater off" in await stand.driver.go_to_orphan_state()
        await asyncio.sleep(5.0)
        assert stand.is_off

    on_stand(scenario, furnace, on_orphan="heater_off")


# -- adopting --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("state", "said"), [("ramp_down", "ramping down"), ("heater_off", "heater off")]
)
def test_abort_ends_an_adopted_firing_that_was_not_joined(
    furnace: str, state: str, said: str
) -> None:
    """Whatever heats is taken for that of the process before; only once."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        await stand.die()
        await stand.open()
        stand.driver.adopt()
        assert said in await stand.driver.go_to_abort_state()
        await asyncio.sleep(5.0)
        assert stand.is_off is (state == "heater_off")
        assert stand.simulated._programmer.status != RUN + (furnace == "tcp_furnace")
        n_written = len(stand.written)
        assert await stand.driver.go_to_abort_state() == ""
        assert len(stand.written) == n_written

    on_stand(scenario, furnace, on_abort=state)


@BOTH
def test_abort_writes_nothing_to_an_adopted_furnace_that_is_idle(furnace: str) -> None:
    """What the process before had begun is over; what comes later is not adopted."""

    async def scenario(stand: Stand) -> None:
        stand.driver.adopt()
        assert await stand.driver.go_to_abort_state() == ""
        assert stand.written == []
        stand.touch(273, 1)
        stand.touch(3, 300)
        await asyncio.sleep(5.0)
        assert await stand.driver.go_to_abort_state() == ""
        assert stand.written == []

    on_stand(scenario, furnace, on_abort="heater_off")


@BOTH
def test_adopted_furnace_over_its_limit_is_switched_off(furnace: str) -> None:
    """A ramp down would still heat; what is off already is left as it is."""

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(3000.0)
        await stand.die()
        limits = {"temperature_degc": [0, 60], "ramp_degc_per_min": [0, 10]}
        entry = stand.file.devices[furnace].model_copy(update={"limits": limits})
        stand.file = stand.file.model_copy(update={"devices": {furnace: entry}})
        await open_excerpt(stand)
        stand.driver.adopt()
        assert "heater off, verified" in await stand.driver.go_to_abort_state()
        await asyncio.sleep(5.0)
        assert stand.is_off
        n_written = len(stand.written)
        stand.driver.adopt()
        assert await stand.driver.go_to_abort_state() == ""
        assert len(stand.written) == n_written

    on_stand(scenario, furnace, on_abort="ramp_down")


@BOTH
def test_what_is_prepared_or_joined_is_not_adopted_any_more(furnace: str) -> None:
    """What somebody starts after a whole firing is not stopped by an abort."""

    async def scenario(stand: Stand) -> None:
        stand.driver.adopt()
        await stand.fire()
        stand.driver.adopt()
        await stand.rejoin()
        n_written = len(stand.written)
        stand.touch(273, 1)
        stand.touch(3, 300)
        await asyncio.sleep(5.0)
        assert await stand.driver.go_to_abort_state() == ""
        assert len(stand.written) == n_written

    on_stand(scenario, furnace, on_abort="heater_off")


# -- holding ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("state", ["ramp_down", "heater_off"])
def test_hold_state_ends_a_firing_that_may_not_go_on(furnace: str, state: str) -> None:
    """The firing fails and says why; nothing else is done to the heater."""

    async def scenario(stand: Stand) -> None:
        await stand.driver.prepare(PROFILE)
        await stand.driver.kickoff()
        await stand.until(300.0)
        said = await stand.driver.go_to_hold_state()
        assert stand.furnace in said
        with pytest.raises(InstrumentError, match=f"on hold, so it went to {state}"):
            await stand.driver.complete()
        assert stand.is_off is (state == "heater_off")
        assert await stand.driver.go_to_abort_state() == ""

    on_stand(scenario, furnace, on_hold=state)


@BOTH
@pytest.mark.parametrize("state", [None, "continue"])
def test_hold_state_lets_a_firing_go_on(furnace: str, state: str | None) -> None:
    """A program under way is not disturbed unless the lab file says so."""
    whole, _ = uninterrupted(furnace)

    async def scenario(stand: Stand) -> None:
        stand.begin(stand.fire())
        await stand.until(300.0)
        said = await stand.driver.go_to_hold_state()
        assert (said == "") is (state is None)
        with contextlib.suppress(asyncio.CancelledError):
            assert stand._life is not None
            await stand._life
        assert stand.driver.last_firing == whole

    on_stand(scenario, furnace, on_hold=state)


@BOTH
def test_hold_state_is_nothing_when_nothing_is_fired(furnace: str) -> None:
    """What the controller does by itself is not this job's."""

    async def scenario(stand: Stand) -> None:
        assert await stand.driver.go_to_hold_state() == ""
        assert stand.written == []

    on_stand(scenario, furnace, on_hold="heater_off")


# -- many at once ----------------------------------------------------------------------


@BOTH
def test_furnace_heats_everything_in_its_slots(furnace: str) -> None:
    """Eight containers, four of them put in later, lose the same carbon dioxide."""
    file = load_lab(LAB)
    slots = tuple(f"{furnace}.slot_{n}" for n in range(1, 9))
    content = file.model_dump(mode="json", exclude_unset=True)
    content["devices"] = {furnace: content["devices"][furnace] | {"slots": slots}}
    content["locations"] = {
        slot: {"holds": "crucible", "inside": furnace} for slot in slots
    } | {f"rack.{n}": {"holds": "crucible"} for n in range(5, 9)}
    content["stock"] = {}
    if furnace == "tcp_furnace":  # nobody feeds its watchdog here
        content["devices"][furnace]["twin"] = {"registers": {1169: 0}}
    content["containers"] = {
        f"cup_{n}": {
            "kind": "crucible",
            "at": slots[n - 1] if n < 5 else f"rack.{n}",
            "capacity_ml": 20,
            "tare_g": 18,
            "contents": {"CaCO3": 2.0},
        }
        for n in range(1, 9)
    }

    async def scene() -> list[float]:
        bench = Bench(LabFile.model_validate(content), LAB, 5)
        world: Any = bench.world
        for n in range(5, 9):
            world.pick_up(0.0, f"cup_{n}", f"rack.{n}", "test")
            world.put_down(0.0, f"cup_{n}", slots[n - 1], "test")
        simulated: Any = bench.instruments[furnace]
        simulated.setpoint_degc = 900.0
        simulated.write(273, [1], 0.0)
        simulated.write(3, [1000], 0.0)
        world.advance(4 * 3600.0)
        return [cup.matter.mass_g for cup in world.containers.values()]

    masses_g = play_from_start(scene())

    assert masses_g == pytest.approx([masses_g[0]] * 8, rel=1e-6)
    assert masses_g[0] < 1.3
