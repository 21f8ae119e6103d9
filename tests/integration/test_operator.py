"""A person as an instrument, against the simulated technician, over TCP."""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any

import pytest

from ppu.core.capabilities import (
    Carry,
    Grind,
    MountPowder,
    Operator,
    PowderStation,
)
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.transports.tcp import TcpConnection
from ppu.transports.terminal import TerminalConnection
from ppu_drivers.operator import PersonAtTerminal, PersonLimits, PersonSettings
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.instruments.technician import SimulatedTechnician
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

CARRY = Carry("crucible_01", "rack.1", "rack.2")


def lab_file(*, serial_number: str = "unset", patience_s: float = 3600.0) -> LabFile:
    """Return a lab with one person, a full and an empty crucible, and a holder."""

    def crucible(at: str, contents: dict[str, float]) -> dict[str, Any]:
        return {
            "kind": "crucible",
            "at": at,
            "capacity_ml": 20,
            "tare_g": 18.0,
            "contents": contents,
        }

    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "operator": {
                    "driver": "ppu_drivers.operator:PersonAtTerminal",
                    "serial_number": serial_number,
                    "settings": {"patience_s": patience_s},
                }
            },
            "locations": {
                "rack.1": {"holds": "crucible"},
                "rack.2": {"holds": "crucible"},
                "rack.3": {"holds": "crucible"},
                "tray.1": {"holds": "holder"},
                "tray.2": {"holds": "holder"},
            },
            "containers": {
                "crucible_01": crucible("rack.1", {"CaCO3": 2.0}),
                "crucible_03": crucible("rack.3", {}),
                "holder_01": {
                    "kind": "holder",
                    "at": "tray.1",
                    "capacity_ml": 1.0,
                    "tare_g": 25.0,
                },
            },
        }
    )


class Wire:
    """Stands between port and technician, and spoils the answers to tasks."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation
        self.spoil: Callable[[Answer], list[Answer]] | None = None
        self.heard: list[str] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        self.heard.append(data.decode().strip())
        answers = list(self._conversation.receive(data, time))
        return answers if self.spoil is None else self.spoil(answers[0])


class Bench:
    """A simulated technician and the driver that asks."""

    def __init__(self, lab: LabFile) -> None:
        self.world = World(lab, 1)
        self.entry = lab.devices["operator"]
        self.simulated = SimulatedTechnician("operator", self.entry, self.world, "7")
        self.front = self.simulated._front
        self.wire = Wire(self.simulated)
        self.front.conversation = self.wire
        self.driver: PersonAtTerminal

    async def start(self) -> None:
        """Listen, and make the driver; it is not connected."""
        connection = await self.simulated.start()
        self.driver = PersonAtTerminal(
            "operator",
            self.entry,
            TcpConnection.model_validate(connection),
            PersonSettings.model_validate(self.entry.settings),
            PersonLimits(),
        )

    async def stop(self) -> None:
        """Close both ends."""
        await self.driver.disconnect()
        await self.simulated.stop()

    def at(self, container: str) -> str | None:
        """Return where a container really is."""
        return self.world.containers[container].at


async def on_bench(
    scenario: Callable[[Bench], Awaitable[None]],
    lab: LabFile | None = None,
    *,
    connects: bool = True,
) -> None:
    """Play *scenario* on a bench of its own."""
    bench = Bench(lab or lab_file())
    await bench.start()
    try:
        if connects:
            await bench.driver.connect_link()
        await scenario(bench)
    finally:
        await bench.stop()


# -- tasks ----------------------------------------------------------------------------


def test_person_carries_a_container_in_human_time(play: Play) -> None:
    """The container is in nobody's place on the way, and then where it was asked."""

    async def scenario(bench: Bench) -> None:
        assert isinstance(bench.driver, Operator)
        status = bench.driver.set(CARRY)
        await asyncio.sleep(10.0)
        assert bench.at("crucible_01") is None
        await status
        assert bench.at("crucible_01") == "rack.2"
        assert 20.0 < running_loop().time() < 180.0

    play(on_bench(scenario))


def test_person_grinds_what_stands_there(play: Play) -> None:
    """Grinding takes its time and makes particles smaller."""

    async def scenario(bench: Bench) -> None:
        before = bench.world.containers["crucible_01"].matter.radii_um["CaCO3"]
        await bench.driver.set(Grind("crucible_01", 600.0))
        after = bench.world.containers["crucible_01"].matter.radii_um["CaCO3"]
        assert after < before
        assert running_loop().time() > 600.0

    play(on_bench(scenario))


def test_person_may_be_asked_for_any_powder_task(play: Play) -> None:
    """Nothing that can be asked for is refused beforehand, and nothing is sent."""

    async def scenario(bench: Bench) -> None:
        assert isinstance(bench.driver, PowderStation)
        n_sent = bench.driver.statistics().n_exchanges
        bench.driver.check_task(Grind("crucible_01", 12.3))
        bench.driver.check_task(MountPowder("crucible_01", "holder_01"))
        assert bench.driver.statistics().n_exchanges == n_sent

    play(on_bench(scenario))


def test_person_mounts_powder_in_a_holder(play: Play) -> None:
    """What is in the holder was in the crucible before."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(MountPowder("crucible_01", "holder_01"))
        mounted = bench.world.containers["holder_01"].matter.mass_g
        left = bench.world.containers["crucible_01"].matter.mass_g
        assert 0.0 < mounted < 2.0
        # A trace stays on the tool.
        assert mounted + left == pytest.approx(2.0, rel=2e-3)

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Carry("crucible_01", "rack.2", "rack.3"), "is not at rack.2 but rack.1"),
        (Carry("crucible_01", "rack.1", "rack.3"), "rack.3 is taken by crucible_03"),
        (Carry("crucible_01", "rack.1", "tray.2"), "holds a holder, not a crucible"),
        (Carry("crucible_01", "rack.1", "moon"), "no place called moon"),
        (Carry("cup", "rack.1", "rack.2"), "there is no container cup"),
        (Grind("cup", 60.0), "there is no container cup"),
        (MountPowder("crucible_03", "holder_01"), "crucible_03 is empty"),
    ],
)
def test_refusal_of_a_person_tells_the_reason(
    play: Play, task: Carry | Grind | MountPowder, reason: str
) -> None:
    """What cannot be done is refused in words, and everything stays where it was."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match=f"operator: would not .*{reason}"):
            await bench.driver.set(task)
        assert bench.at("crucible_01") == "rack.1"
        assert bench.at("crucible_03") == "rack.3"

    play(on_bench(scenario))


# -- when the wire fails --------------------------------------------------------------


def test_wait_ends_when_the_patience_is_over(play: Play) -> None:
    """Nobody waits for ever for a person, and nobody asks twice."""

    async def scenario(bench: Bench) -> None:
        bench.wire.spoil = lambda _: []
        with pytest.raises(ReplyTimeout, match="operator: no complete reply"):
            await bench.driver.set(CARRY)
        assert running_loop().time() == pytest.approx(300.0, abs=1.0)
        assert bench.wire.heard.count("carry crucible_01 from rack.1 to rack.2") == 1

    play(on_bench(scenario, lab_file(patience_s=300.0)))


@pytest.mark.parametrize("answer", [b"maybe\n", b"\n", b"\xc3\xa9\n", b"doneish\n"])
def test_an_answer_that_is_neither_done_nor_refused_is_none(
    play: Play, answer: bytes
) -> None:
    """Nothing is believed to be done unless somebody says so."""

    async def scenario(bench: Bench) -> None:
        bench.wire.spoil = lambda _: [Answer(answer)]
        with pytest.raises(MalformedReply, match="operator: "):
            await bench.driver.set(CARRY)

    play(on_bench(scenario))


def test_task_is_not_repeated_when_the_connection_breaks_in_mid_reply(
    play: Play,
) -> None:
    """A person who went away in the middle is asked nothing again by itself."""

    async def scenario(bench: Bench) -> None:
        def hang_up(time: float) -> bytes:
            for transport in list(bench.front.connections):
                transport.abort()
            return b""

        bench.wire.spoil = lambda _: [Answer(b"do", 5.0), Answer(hang_up, 10.0)]
        with pytest.raises(LinkBroken, match="operator: "):
            await bench.driver.set(CARRY)
        bench.wire.spoil = None
        assert bench.wire.heard.count("carry crucible_01 from rack.1 to rack.2") == 1
        with pytest.raises(InstrumentError, match="crucible_01 is in somebody's hands"):
            await bench.driver.set(Grind("crucible_01", 60.0))

    play(on_bench(scenario))


def test_person_finishes_the_task_when_the_connection_is_lost(play: Play) -> None:
    """A crucible in somebody's hands is put down, whoever listens."""

    async def scenario(bench: Bench) -> None:
        status = bench.driver.set(CARRY)
        await asyncio.sleep(10.0)
        for transport in list(bench.front.connections):
            transport.abort()
        with pytest.raises(LinkBroken):
            await status
        await asyncio.sleep(200.0)
        assert bench.at("crucible_01") == "rack.2"

    play(on_bench(scenario))


def test_next_task_gets_its_own_answer_when_one_was_cancelled(play: Play) -> None:
    """``done`` for a task that nobody waits for any more is not taken for the next."""

    async def scenario(bench: Bench) -> None:
        status = bench.driver.set(CARRY)
        await asyncio.sleep(10.0)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        begun = running_loop().time()
        await bench.driver.set(Grind("crucible_01", 600.0))
        assert running_loop().time() - begun > 600.0
        assert bench.at("crucible_01") == "rack.2"

    play(on_bench(scenario))


# -- at a terminal --------------------------------------------------------------------


class Typist(io.StringIO):
    """Standard error that a person reads, who types an answer to each question."""

    def __init__(self, keyboard: int, answers: list[str]) -> None:
        super().__init__()
        self.keyboard = keyboard
        self.answers = answers

    def write(self, text: str) -> int:
        """Read *text*, and answer it."""
        if self.answers:
            os.write(self.keyboard, self.answers.pop(0).encode() + b"\n")
        return super().write(text)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Asks a person who types *answers*; returns what was shown."""
    keyboard, seat = os.openpty()
    loop = LabTimeLoop(1000.0)  # a terminal pays no debts, so time must flow

    async def carry(patience_s: float) -> None:
        person = PersonAtTerminal(
            "operator",
            lab_file().devices["operator"],
            TerminalConnection(transport="terminal"),
            PersonSettings(patience_s=patience_s),
            PersonLimits(),
        )
        person.link.slowest_reply_s = 1e-3  # type: ignore[attr-defined]  # a byte link
        await person.connect_link()
        try:
            await person.set(CARRY)
        finally:
            await person.disconnect()

    def ask(*answers: str, patience_s: float = 86400.0) -> str:
        typist = Typist(keyboard, list(answers))
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", typist)
            loop.run_until_complete(carry(patience_s))
        return typist.getvalue()

    with open(seat) as stdin:  # noqa: PTH123 - a descriptor, no path
        monkeypatch.setattr("sys.stdin", stdin)
        yield ask
    os.close(keyboard)
    loop.close()


@pytest.mark.parametrize(
    "answer", ["done", "Done.", "done it", " OK ", "yes", "y", "okay!"]
)
def test_person_says_done_in_many_ways(ask: Callable[..., str], answer: str) -> None:
    """A person is no parser."""
    shown = ask(answer)

    assert shown.count("please carry crucible_01") == 1
    assert "not understood" not in shown


def test_person_is_asked_again_when_the_answer_means_nothing(
    ask: Callable[..., str],
) -> None:
    """A typo does not end a job of 20 hours."""
    shown = ask("dnoe", "", "\N{LATIN SMALL LETTER E WITH ACUTE}", "yes but", "done")

    assert shown.count("please carry crucible_01") == 1
    assert shown.count("not understood") == 4


def test_person_may_refuse_after_a_typo(ask: Callable[..., str]) -> None:
    """What is asked again can be refused."""
    with pytest.raises(InstrumentError, match=r"would not carry .*: too hot"):
        ask("no", "Refused: too hot")


def test_typos_do_not_stretch_the_patience(ask: Callable[..., str]) -> None:
    """Asking again does not begin the wait again."""
    with pytest.raises(ReplyTimeout, match=r"within \d\d(\.\d+)? s to '  not under"):
        ask("what?", patience_s=100.0)


def test_task_fails_when_the_question_cannot_be_shown(
    ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits a day for an answer to what nobody could read."""

    def fail(self: Typist, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(Typist, "write", fail)
    with pytest.raises(LinkBroken, match="operator: nobody can be asked"):
        ask()


# -- connecting -----------------------------------------------------------------------


def test_connect_is_refused_when_nobody_of_that_name_answers(play: Play) -> None:
    """A port where something else answers is not taken for a person."""

    async def scenario(bench: Bench) -> None:
        bench.wire.spoil = lambda _: [Answer(b"I am a printer\n")]
        with pytest.raises(ConnectError, match="no technician answers at 127"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


def test_connect_is_refused_when_another_badge_answers(play: Play) -> None:
    """The badge of the lab file is checked."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConnectError, match="number 8, but 7 answers"):
            await bench.driver.connect_link()

    play(on_bench(scenario, lab_file(serial_number="8"), connects=False))


def test_connect_is_refused_when_there_is_no_terminal(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """On hardware a person must be able to answer."""
    person = PersonAtTerminal(
        "operator",
        lab_file().devices["operator"],
        TerminalConnection(transport="terminal"),
        PersonSettings(),
        PersonLimits(),
    )
    empty = tmp_path / "empty"
    empty.write_text("")
    with empty.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(ConnectError, match="standard input is no terminal"):
            play(person.connect_link())
