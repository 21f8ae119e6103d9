"""The diffractometer's driver against the simulated one, over TCP on loopback."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppu.core.capabilities import Diffractometer, ScanRequest
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    LimitError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu_drivers.panalytical_aeris import (
    AerisConnection,
    PanalyticalAeris,
    PanalyticalAerisLimits,
    PanalyticalAerisSettings,
    PowderScan,
    parse_scan,
)
from ppu_simulators.fronts.conversation import Answer, Conversation
from ppu_simulators.instruments.panalytical_aeris import (
    SimulatedPanalyticalAeris,
    scan_angles,
    xrdml,
)
from ppu_simulators.physics.matter import Matter, merge
from ppu_simulators.world import World

SERIAL = "950485"
REQUEST = ScanRequest("holder_01-1", 10.0, 100.0, 480.0)
SHORT = ScanRequest("holder_01-2", 25.0, 35.0, 120.0)


def lab_file(
    *,
    serial_number: str = "unset",
    twin: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> LabFile:
    """Return a lab with one diffractometer and one specimen in it."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "xrd": {
                    "driver": "ppu_drivers.panalytical_aeris:PanalyticalAeris",
                    "serial_number": serial_number,
                    "settings": {"position": 2, **(settings or {})},
                    "limits": {"two_theta_deg": [5, 120]},
                    "slots": ["xrd.position_2"],
                    "twin": twin or {},
                }
            },
            "locations": {
                "xrd.position_2": {"holds": "holder", "inside": "xrd"},
                "bench": {"holds": "holder"},
            },
            "containers": {
                "holder_01": {
                    "kind": "holder",
                    "at": "xrd.position_2",
                    "capacity_ml": 2,
                    "tare_g": 12.0,
                    "contents": {"BaTiO3": 0.5, "BaCO3": 0.1},
                }
            },
        }
    )


class Bench:
    """A simulated diffractometer and its driver."""

    def __init__(self, lab: LabFile, seed: int = 1) -> None:
        self.world = World(lab, seed)
        self.entry = lab.devices["xrd"]
        self.simulated = SimulatedPanalyticalAeris(
            "xrd", self.entry, self.world, SERIAL
        )
        self.driver: PanalyticalAeris
        self.folder: Path

    async def start(self) -> None:
        """Listen, and make the driver."""
        connection = AerisConnection.model_validate(await self.simulated.start())
        self.folder = Path(connection.results_folder)
        self.driver = PanalyticalAeris(
            "xrd",
            self.entry,
            connection,
            PanalyticalAerisSettings.model_validate(self.entry.settings),
            PanalyticalAerisLimits.model_validate(self.entry.limits),
        )

    async def stop(self) -> None:
        """Close both ends."""
        await self.driver.disconnect()
        await self.simulated.stop()

    def take_away(self, time: float) -> None:
        """Put the specimen onto the bench."""
        self.world.pick_up(time, "holder_01", "xrd.position_2", "test")
        self.world.put_down(time, "holder_01", "bench", "test")


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


def lab_time() -> float:
    """Return the running loop's time [s]."""
    return asyncio.get_running_loop().time()


async def measure(bench: Bench, request: ScanRequest = SHORT) -> None:
    """Prepare and execute *request*."""
    await bench.driver.prepare(request)
    await bench.driver.trigger()


def stored_scan(bench: Bench) -> PowderScan:
    """Return the scan in the results folder."""
    (path,) = bench.folder.iterdir()
    return parse_scan(path.read_bytes())


class Disturbance:
    """Stands between front and instrument and spoils chosen messages."""

    def __init__(
        self,
        conversation: Conversation,
        word: bytes,
        spoiled: bytes | None,
        *,
        n_times: int = 1_000_000,
        passes_on: bool = False,
    ) -> None:
        self.conversation = conversation
        self.word = word
        self.spoiled = spoiled
        self.n_left = n_times
        self.passes_on = passes_on
        self.seen: list[bytes] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Spoil the reply, or leave it to the instrument."""
        self.seen.append(data)
        if self.word not in data or self.n_left == 0:
            return self.conversation.receive(data, time)
        self.n_left -= 1
        if self.passes_on:
            tuple(self.conversation.receive(data, time))
        return [] if self.spoiled is None else [Answer(self.spoiled)]

    def count(self, word: bytes) -> int:
        """Return how many messages with *word* came."""
        return sum(word in message for message in self.seen)


def disturb(
    bench: Bench, word: bytes, spoiled: bytes | None, **options: Any
) -> Disturbance:
    """Spoil the replies to messages with *word* from now on."""
    front = bench.simulated.front
    disturbance = Disturbance(front.shared_conversation(), word, spoiled, **options)
    front.conversation = disturbance
    return disturbance


SILENCE = None
GARBAGE = b"\x00\xffgarbage"
# The front closes after each answer: a piece of a reply and then the end.
CUT_OFF = b"@STATUS@UNIT=xr"
SPOILED = [(SILENCE, ReplyTimeout), (GARBAGE, MalformedReply), (CUT_OFF, LinkBroken)]


def test_scan_shows_the_strongest_line_when_measured(run: Run) -> None:
    """The pattern of BaTiO3 has its strongest peak at 31.5 degrees."""
    bench = run(lambda bench: measure(bench, REQUEST))

    scan = bench.driver.last_scan
    assert isinstance(bench.driver, Diffractometer)
    assert scan is not None
    assert scan.counts.shape == scan.two_theta.shape == (8282,)
    assert scan.two_theta[np.argmax(scan.counts)] == pytest.approx(31.5, abs=0.3)
    assert scan.counting_time_s == pytest.approx(12.495)
    assert scan.instrument_id == SERIAL
    assert scan.sample_id == REQUEST.sample_id
    assert bench.world.incidents == []


def test_scan_reads_as_it_stands_in_the_file_when_done(run: Run) -> None:
    """The signals carry exactly the counts of the file, described as arrays."""
    seen: dict[str, Any] = {}

    async def scenario(bench: Bench) -> None:
        await measure(bench)
        seen["path"] = bench.driver.scan_file
        seen["expected"] = str(bench.folder / "holder_01-2.xrdml")
        seen["file"] = stored_scan(bench)
        seen["readings"] = await bench.driver.read()
        seen["keys"] = await bench.driver.describe()

    run(scenario)

    assert seen["path"] == seen["expected"]
    counts = seen["readings"]["xrd_counts"]["value"]
    assert np.array_equal(counts, seen["file"].counts)
    assert seen["keys"]["xrd_counts"]["shape"] == [counts.size]
    assert seen["keys"]["xrd_two_theta"]["units"] == "deg"


def test_scan_takes_its_time_and_at_most_one_poll_more(run: Run) -> None:
    """Loading, scan and unloading last 505 s; polling adds 5 s at most."""
    took: list[float] = []

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        begun = lab_time()
        await bench.driver.trigger()
        took.append(lab_time() - begun)

    run(scenario)
    run(scenario)

    assert 505.0 <= took[0] <= 510.2
    assert took[1] == pytest.approx(took[0], abs=1e-6)


def test_scan_is_the_same_when_the_seed_is_the_same(run: Run) -> None:
    """Counts repeat exactly on a new bench with the same seed, and only then."""
    patterns = []
    for seed in (1, 1, 2):
        scan = run(measure, seed=seed).driver.last_scan
        assert scan is not None
        # Lab time differs between runs on one loop, and with it the counting noise.
        patterns.append(scan.counts)
    smooth = [np.convolve(counts, np.ones(40) / 40, "valid") for counts in patterns]

    assert np.abs(smooth[0] / smooth[1] - 1).max() < 0.1
    assert np.abs(smooth[0] / smooth[2] - 1).max() > 0.1


def test_scan_counts_repeat_when_everything_repeats() -> None:
    """Two fresh loops with the same seed give the same counts to the last one."""
    patterns = []
    for _ in range(2):
        loop = LabTimeLoop(None)
        bench = Bench(lab_file())

        async def play(bench: Bench = bench) -> None:
            await bench.start()
            await bench.driver.connect_link()
            await measure(bench)
            await bench.stop()

        with loop.active():
            loop.run_until_complete(play())
        loop.close()
        scan = bench.driver.last_scan
        assert scan is not None
        patterns.append(scan.counts)

    assert np.array_equal(patterns[0], patterns[1])


def test_scan_is_shifted_when_the_goniometer_has_a_zero_error(run: Run) -> None:
    """A twin setting moves every line and nothing else."""
    tops = []
    for zero in (0.0, 0.5):
        lab = lab_file(twin={"zero_error_deg": zero, "severity": 0.0})
        scan = run(measure, lab=lab).driver.last_scan
        assert scan is not None
        tops.append(scan.two_theta[np.argmax(scan.counts)])

    assert tops[1] - tops[0] == pytest.approx(0.5, abs=0.03)


def test_scan_has_no_lines_when_the_holder_is_empty(run: Run) -> None:
    """An empty holder gives background only."""

    async def scenario(bench: Bench) -> None:
        bench.world.empty_out(bench.world.containers["holder_01"])
        await measure(bench)

    scan = run(scenario).driver.last_scan

    assert scan is not None
    assert scan.counts.max() < 2 * scan.counts.mean()


def test_scans_can_follow_each_other_when_samples_are_removed(run: Run) -> None:
    """Each scan leaves the position free for the next sample."""

    async def scenario(bench: Bench) -> None:
        await measure(bench, SHORT)
        await measure(bench, ScanRequest("holder_01-3", 25.0, 35.0, 120.0))
        await measure(bench, SHORT)
        files = sorted(path.name for path in bench.folder.iterdir())
        assert files == ["holder_01-2.xrdml", "holder_01-3.xrdml"]

    run(scenario)


def test_sample_is_added_when_another_was_left_behind(run: Run) -> None:
    """What a broken run left registered at the position is cleared."""

    async def scenario(bench: Bench) -> None:
        left = b"@SAMPLE@ADD@APPLICATION=10-100_8-minutes@SAMPLE_ID=old@AT=0,3@END"
        tuple(bench.simulated.receive(left, lab_time()))
        await measure(bench)

    assert run(scenario).driver.last_scan is not None


def test_prepare_names_every_fault_when_limits_are_exceeded(run: Run) -> None:
    """All faults come in one message, and nothing is sent."""

    async def scenario(bench: Bench) -> None:
        disturbance = disturb(bench, b"nothing", None)
        with pytest.raises(LimitError) as caught:
            await bench.driver.prepare(ScanRequest("../x", 3.0, 130.0, 1.0))
        text = str(caught.value)
        assert "2theta from 3 to 130 deg, allowed is a rising range" in text
        assert "a scan of 1 s, allowed are 60 to 86400 s" in text
        assert "the sample id '../x'" in text
        assert disturbance.seen == []

    run(scenario)


def test_prepare_names_every_fault_when_the_instrument_cannot_measure(run: Run) -> None:
    """Local control and an empty position are told together."""

    async def scenario(bench: Bench) -> None:
        bench.take_away(lab_time())
        with pytest.raises(InstrumentError) as caught:
            await bench.driver.prepare(SHORT)
        assert "not under remote control" in str(caught.value)
        assert "nothing stands at xrd.position_2 (location 0,3)" in str(caught.value)

    run(scenario, lab=lab_file(twin={"is_remote": False}))


def test_trigger_is_refused_when_the_program_does_not_exist(run: Run) -> None:
    """The refusal is passed on with the whole reply."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"MEASURE", b"@SAMPLE@MEASURE@RESULT=fatal@TEXT=no@END")
        with pytest.raises(InstrumentError, match=r"xrd: the Aeris refused: .*TEXT=no"):
            await bench.driver.trigger()

    run(scenario)


def test_trigger_is_refused_when_it_is_not_prepared(run: Run) -> None:
    """One preparation is measured once."""

    async def scenario(bench: Bench) -> None:
        await measure(bench)
        with pytest.raises(InstrumentError, match="nothing is prepared"):
            await bench.driver.trigger()

    run(scenario)


@pytest.mark.parametrize(("spoiled", "error"), SPOILED)
@pytest.mark.parametrize("word", [b"ADD", b"MEASURE"])
def test_start_is_never_repeated_when_it_does_not_come_through(
    run: Run, word: bytes, spoiled: bytes | None, error: type[Exception]
) -> None:
    """A lost message that moves something is sent once and told."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturbance = disturb(bench, word, spoiled)
        with pytest.raises(error):
            await bench.driver.trigger()
        assert disturbance.count(word) == 1

    run(scenario)


@pytest.mark.parametrize(("spoiled", "error"), SPOILED)
def test_scan_goes_on_when_only_the_answer_to_the_start_is_lost(
    run: Run, spoiled: bytes | None, error: type[Exception]
) -> None:
    """The instrument is seen to be busy, so the scan is waited for."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturbance = disturb(bench, b"MEASURE", spoiled, passes_on=True)
        await bench.driver.trigger()
        assert disturbance.count(b"MEASURE") == 1

    assert run(scenario).driver.last_scan is not None


@pytest.mark.parametrize(("spoiled", "error"), SPOILED)
def test_wait_goes_on_when_polls_fail_for_a_while(
    run: Run, spoiled: bytes | None, error: type[Exception]
) -> None:
    """Eight failed polls in a row do not lose a scan."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, b"STATUS_REQUEST", spoiled, n_times=8)
        await status

    assert run(scenario).driver.last_scan is not None


def test_wait_ends_when_the_instrument_stays_silent(run: Run) -> None:
    """After the silence that the lab file allows the driver gives up."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(REQUEST)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        disturb(bench, b"STATUS_REQUEST", SILENCE)
        with pytest.raises(ReplyTimeout, match="xrd: no complete reply"):
            await status
        assert 350.0 < lab_time() < 400.0  # it was last heard one poll before

    run(scenario)


def test_wait_ends_when_the_instrument_stays_busy(run: Run) -> None:
    """A scan that never ends is told after its time and the overhead allowed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=no@END")
        with pytest.raises(InstrumentError, match="is not done after 150 s"):
            await bench.driver.trigger()

    run(scenario, lab=lab_file(settings={"max_overhead_s": 30.0}))


def test_trigger_fails_when_no_file_appears(run: Run) -> None:
    """An instrument that is ready too soon has no result: nothing is made up."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=yes@END")
        with pytest.raises(InstrumentError, match="did not appear, 10 s after"):
            await bench.driver.trigger()

    assert run(scenario).driver.scan_file is None


def test_trigger_fails_when_the_file_is_older_than_the_scan(run: Run) -> None:
    """The file of an earlier scan is not taken for the result of this one."""

    async def scenario(bench: Bench) -> None:
        await measure(bench)
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=yes@END")
        with pytest.raises(InstrumentError, match="is as old as before the scan"):
            await bench.driver.trigger()

    run(scenario)


def test_trigger_fails_when_the_file_is_no_scan(run: Run) -> None:
    """Half a file is waited for, and then told with its path."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=yes@END")
        status = bench.driver.trigger()
        await asyncio.sleep(5.0)
        (bench.folder / "holder_01-2.xrdml").write_bytes(b"<xrdMeasurements>")
        with pytest.raises(MalformedReply, match=r"holder_01-2\.xrdml: no XRDML file"):
            await status

    run(scenario)


def test_trigger_fails_when_the_file_is_from_another_instrument(run: Run) -> None:
    """A swapped results folder is noticed by the serial number in the file."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match="instrument 950485, not from 950486"):
            await measure(bench)

    run(scenario, lab=lab_file(settings={"instrument_id": "950486"}))


def test_specimen_is_measured_as_it_was_when_taken_out_too_early(run: Run) -> None:
    """Hands in the machine are an incident of the world."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        bench.take_away(lab_time())
        await status

    bench = run(scenario)

    assert [incident.kind for incident in bench.world.incidents] == ["hands in machine"]


def test_scan_goes_on_when_the_wait_is_cancelled(run: Run) -> None:
    """Cancelling stops waiting only; the instrument stays busy until it is done."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        status = bench.driver.trigger()
        await asyncio.sleep(60.0)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        with pytest.raises(InstrumentError, match="it is not ready"):
            await bench.driver.prepare(SHORT)
        await asyncio.sleep(120.0)
        await measure(bench)

    assert run(scenario).driver.last_scan is not None


def test_each_exchange_has_its_own_connection_when_polling(run: Run) -> None:
    """No connection stays open, and the identity is not asked for each time."""

    async def scenario(bench: Bench) -> None:
        disturbance = disturb(bench, b"nothing", None)
        await bench.driver.read_is_remote()
        await bench.driver.read_is_occupied()
        assert len(disturbance.seen) == 2
        assert not bench.driver.link.is_open

    run(scenario)


def test_identity_is_checked_again_when_the_link_was_lost(run: Run) -> None:
    """After a silence another instrument might answer."""

    async def scenario(bench: Bench) -> None:
        disturbance = disturb(bench, b"SYSTEM", SILENCE)
        with pytest.raises(ReplyTimeout):
            await bench.driver.read_is_remote()
        disturbance.n_left = 0
        n_before = disturbance.count(b"UNIT=xrd")
        await bench.driver.read_is_remote()
        assert disturbance.count(b"UNIT=xrd") == n_before + 1

    run(scenario)


def test_connect_succeeds_when_the_serial_number_matches(run: Run) -> None:
    """The instrument's own serial number is kept as its identity."""

    async def scenario(bench: Bench) -> None:
        bench.driver.expected_nonce = SERIAL
        await bench.driver.connect_link()

    identity = run(scenario, lab=lab_file(serial_number=SERIAL)).driver.identity

    assert identity is not None
    assert identity.serial_number == SERIAL


def test_connect_is_refused_when_another_instrument_answers(run: Run) -> None:
    """A swapped instrument is named with both serial numbers."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConnectError, match="950486, but 950485 answers"):
            await bench.driver.connect_link()

    run(scenario, lab=lab_file(serial_number="950486"), connects=False)


def test_connect_is_refused_when_a_stranger_answers(run: Run) -> None:
    """What speaks another language is not taken for an Aeris."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, b"@", b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ConnectError, match="is no Aeris"):
            await bench.driver.connect_link()

    run(scenario, connects=False)


def test_connect_is_refused_when_the_results_folder_is_missing(run: Run) -> None:
    """A share that is not mounted is found before a scan is wasted."""

    async def scenario(bench: Bench) -> None:
        bench.folder.rmdir()
        with pytest.raises(ConnectError, match="is the share mounted"):
            await bench.driver.connect_link()
        bench.folder.mkdir()

    run(scenario, connects=False)


def test_results_folder_is_gone_when_the_simulator_stops(run: Run) -> None:
    """The simulator leaves no file behind."""
    assert not run(measure).folder.exists()


def write_scan(bench: Bench, sample_id: str, start: float, stop: float) -> None:
    """Put a scan into the results folder that the instrument did not measure."""
    angles = scan_angles(start, stop)
    text = xrdml(
        sample_id,
        angles,
        np.ones(angles.size, dtype=np.int64),
        1.0,
        instrument_id=SERIAL,
        started="",
        ended="",
    )
    (bench.folder / "holder_01-2.xrdml").write_text(text, encoding="utf-8")


def test_trigger_fails_when_the_file_is_of_another_scan(run: Run) -> None:
    """Sample and range of the file are those that were asked for, or all is told."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=yes@END")
        status = bench.driver.trigger()
        await asyncio.sleep(5.0)
        write_scan(bench, "other", 20.0, 80.0)
        with pytest.raises(InstrumentError) as caught:
            await status
        assert "it is of sample 'other'" in str(caught.value)
        assert "it goes from 20.0094 to 79.9922 deg" in str(caught.value)

    run(scenario)


def test_trigger_fails_when_the_file_cannot_be_opened(run: Run) -> None:
    """What has the name of the result and cannot be read is told with the reason."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        disturb(bench, b"UNIT=xrd", b"@STATUS@UNIT=xrd@READY=yes@END")
        status = bench.driver.trigger()
        await asyncio.sleep(5.0)
        (bench.folder / "holder_01-2.xrdml").mkdir()
        with pytest.raises(MalformedReply, match="cannot be read: Is a directory"):
            await status

    run(scenario)


def test_pattern_is_kept_when_the_sample_cannot_be_removed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What was measured counts; that the sample stays registered is logged."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, b"REMOVE", b"@SAMPLE@REMOVE@RESULT=fatal@END")
        await measure(bench)

    assert run(scenario).driver.last_scan is not None
    assert "holder_01-2 stays registered" in caplog.text


def test_trigger_is_refused_when_the_sample_cannot_be_added(run: Run) -> None:
    """If nothing was left at the position, the first refusal is what counts."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.prepare(SHORT)
        bench.take_away(lab_time())
        with pytest.raises(InstrumentError, match="TEXT=location 0,3 is free"):
            await bench.driver.trigger()

    run(scenario)


def test_reply_is_malformed_when_a_known_word_is_missing(run: Run) -> None:
    """A reply without the substring that is known is not interpreted."""

    async def scenario(bench: Bench) -> None:
        disturb(bench, b"LOCATION", b"@STATUS@LOCATION=0,3@STATE=odd@END")
        with pytest.raises(MalformedReply, match="xrd: no STATE in '@STATUS"):
            await bench.driver.read_is_occupied()

    run(scenario)


def test_phases_without_a_structure_scatter_as_glass(run: Run) -> None:
    """A powder that nobody has the structure of adds no line."""

    async def scenario(bench: Bench) -> None:
        holder = bench.world.containers["holder_01"]
        holder.matter = Matter.of("MoO3", 0.5)
        await measure(bench)

    glass = run(scenario).driver.last_scan

    assert glass is not None
    assert glass.counts.max() < 2 * glass.counts.mean()


def test_half_glassy_specimen_has_weaker_lines(run: Run) -> None:
    """The share without a structure takes its part of the intensity."""
    tops = []
    for glass_g in (0.0, 0.5):

        async def scenario(bench: Bench, glass_g: float = glass_g) -> None:
            holder = bench.world.containers["holder_01"]
            holder.matter = merge(
                [Matter.of("BaTiO3", 0.5), Matter.of("MoO3", glass_g)]
            )
            await measure(bench)

        scan = run(scenario, lab=lab_file(twin={"severity": 0.0})).driver.last_scan
        assert scan is not None
        tops.append(scan.counts.max() - np.median(scan.counts))

    assert tops[1] < 0.7 * tops[0]


def test_simulator_is_refused_when_a_fault_is_asked_for() -> None:
    """A lab file cannot ask for a fault that is not simulated."""
    lab = lab_file(twin={"faults": ["fire"]})

    with pytest.raises(ValueError, match="should look like"):
        SimulatedPanalyticalAeris("xrd", lab.devices["xrd"], World(lab, 0), SERIAL)
