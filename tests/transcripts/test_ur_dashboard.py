"""What a dashboard server of Universal Robots is sent and answers, line for line.

Sources: Universal Robots, *Dashboard Server e-Series, port 29999* (2022), as its users
tabulate it; article 15690 of Universal Robots for load, play and stop; driver code and
users' reports where noted.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.labfile import LabFile
from ppu.devices.signals import execute
from ppu.transports.tcp import TcpConnection
from ppu_drivers.universal_robots_ur5e import (
    ProgramState,
    UniversalRobotsUr5e,
    UniversalRobotsUr5eLimits,
    UniversalRobotsUr5eSettings,
    answer_beginning,
    field_named,
    parse_program_state,
    parse_remote_control,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.instruments.universal_robots_ur5e import SimulatedUr5e
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

MANUAL = "Dashboard Server e-Series (2022)"
ARTICLE = "Universal Robots article 15690"
PROGRAM = "rack_1.1_to_balance.pan.urp"


@dataclass(frozen=True)
class Exchange:
    """One exchange, what it means to the driver, and where it is from."""

    name: str
    source: str
    sent: str
    answered: str
    act: Callable[[UniversalRobotsUr5e], Any]
    meaning: Any
    before: tuple[str, ...] | None = None
    """What the simulator must be sent before to answer so, None for no check."""


async def load(driver: UniversalRobotsUr5e) -> str:
    """Return what the driver takes for the loaded program."""
    return await driver._ask(f"load {PROGRAM}", answer_beginning("Loading program: "))


EXCHANGES = [
    Exchange(
        "robot mode",
        f"{MANUAL}, robotmode",
        "robotmode",
        "Robotmode: RUNNING",
        lambda driver: driver.robot_mode.get_value(),
        "RUNNING",
        (),
    ),
    Exchange(
        "safety status",
        f"{MANUAL}, safetystatus",
        "safetystatus",
        "Safetystatus: NORMAL",
        lambda driver: driver.safety_status.get_value(),
        "NORMAL",
        (),
    ),
    Exchange(
        "protective stop",
        f"{MANUAL}, safetystatus",
        "safetystatus",
        "Safetystatus: PROTECTIVE_STOP",
        lambda driver: driver.safety_status.get_value(),
        "PROTECTIVE_STOP",
    ),
    Exchange(
        "nothing loaded",
        f"{MANUAL}, get loaded program",
        "get loaded program",
        "No program loaded",
        lambda driver: driver.loaded_program.get_value(),
        "",
        (),
    ),
    Exchange(
        "loaded program",
        f"{MANUAL}, get loaded program",
        "get loaded program",
        f"Loaded program: /programs/{PROGRAM}",
        lambda driver: driver.loaded_program.get_value(),
        f"/programs/{PROGRAM}",
        (f"load {PROGRAM}",),
    ),
    Exchange(
        "loaded program, as another driver reads it",
        "from driver code: alab_control ur_robot_dashboard.py reads a bare path",
        "get loaded program",
        f"/programs/{PROGRAM}",
        lambda driver: driver.loaded_program.get_value(),
        f"/programs/{PROGRAM}",
    ),
    Exchange(
        "loading",
        f"{ARTICLE}, load",
        f"load {PROGRAM}",
        f"Loading program: {PROGRAM}",
        load,
        PROGRAM,
        (),
    ),
    Exchange(
        "missing program",
        f"{ARTICLE}, load on failure",
        f"load {PROGRAM}",
        f"File not found: {PROGRAM}",
        load,
        InstrumentError("File not found"),
    ),
    Exchange(
        "program that does not load",
        f"{ARTICLE}, load on failure",
        f"load {PROGRAM}",
        f"Error while loading program: {PROGRAM}",
        load,
        InstrumentError("Error while loading"),
        (f"load {PROGRAM}", "play"),
    ),
    Exchange(
        "program stopped",
        f"{MANUAL}, programState: state and loaded program",
        "programState",
        f"STOPPED {PROGRAM}",
        lambda driver: driver.program_state.get_value(),
        "STOPPED",
        (f"load {PROGRAM}",),
    ),
    Exchange(
        "program playing",
        f"{MANUAL}, programState",
        "programState",
        f"PLAYING {PROGRAM}",
        lambda driver: driver._read_program_state(),
        ProgramState("PLAYING", PROGRAM),
        (f"load {PROGRAM}", "play"),
    ),
    Exchange(
        "program paused",
        f"{MANUAL}, programState",
        "programState",
        f"PAUSED {PROGRAM}",
        lambda driver: driver._read_program_state(),
        ProgramState("PAUSED", PROGRAM),
        (f"load {PROGRAM}", "play", "pause"),
    ),
    Exchange(
        "no program",
        "from users' reports: the state alone while nothing is loaded",
        "programState",
        "STOPPED",
        lambda driver: driver._read_program_state(),
        ProgramState("STOPPED", ""),
        (),
    ),
    Exchange(
        "remote control",
        f"{MANUAL}, is in remote control",
        "is in remote control",
        "true",
        lambda driver: driver.is_in_remote_control.get_value(),
        True,
        (),
    ),
    Exchange(
        "popup",
        f"{MANUAL}, close popup",
        "close popup",
        "closing popup",
        lambda driver: execute(driver.close_popup),
        None,
        (),
    ),
    Exchange(
        "unknown command",
        "from users' reports: could not understand and the command",
        "robotmode",
        'could not understand: "robotmode"',
        lambda driver: driver.robot_mode.get_value(),
        InstrumentError("could not understand"),
    ),
]


def lab_file(twin: dict[str, Any] | None = None) -> LabFile:
    """Return a lab with one arm, and a rack and a balance within its reach."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "arm": {
                    "driver": "ppu_drivers.universal_robots_ur5e:UniversalRobotsUr5e",
                    "twin": twin or {},
                }
            },
            "locations": {
                "rack_1.1": {"holds": "crucible"},
                "balance.pan": {"holds": "crucible"},
            },
        }
    )


def simulated_arm(**twin: Any) -> SimulatedUr5e:
    """Return a simulated arm with the programs of the bundled lab."""
    lab = lab_file(twin)
    return SimulatedUr5e("arm", lab.devices["arm"], World(lab, 1), "20215501234")


def ask(arm: SimulatedUr5e, line: str, time: float) -> str:
    """Return what the simulated controller answers to a line."""
    (answer,) = arm.receive(f"{line}\n".encode(), time)
    text = answer.at(time + answer.delay_s).decode()
    assert text.endswith("\n")
    return text[:-1]


class Recording:
    """Answers one line as it was recorded, and nothing else."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.heard: list[bytes] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take a line; answer it if it is the recorded one."""
        self.heard.append(data)
        if data != self._exchange.sent.encode() + b"\n":
            return []
        return [Answer(self._exchange.answered.encode() + b"\n")]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_driver_sends_and_understands_what_was_recorded(
    play: Play, exchange: Exchange
) -> None:
    """The driver's line is the recorded one, and it reads the answer's meaning."""
    recording = Recording(exchange)

    async def talk() -> Any:
        front = TcpFront(recording)
        host, port = await front.start()
        driver = UniversalRobotsUr5e(
            "arm",
            lab_file().devices["arm"],
            TcpConnection(transport="tcp", host=host, port=port),
            UniversalRobotsUr5eSettings(),
            UniversalRobotsUr5eLimits(),
        )
        driver.link.identify = None
        try:
            await driver.connect_link()
            return await exchange.act(driver)
        except InstrumentError as exc:
            return exc
        finally:
            await driver.disconnect()
            await front.stop()

    found = play(talk())

    # What is acted upon is asked three times.
    assert set(recording.heard) == {exchange.sent.encode() + b"\n"}
    assert len(recording.heard) in (1, 3)
    if isinstance(exchange.meaning, InstrumentError):
        assert isinstance(found, InstrumentError)
        assert str(exchange.meaning) in str(found)
        assert str(found).startswith("arm: ")
    else:
        assert found == exchange.meaning


@pytest.mark.parametrize(
    "exchange",
    [exchange for exchange in EXCHANGES if exchange.before is not None],
    ids=lambda exchange: exchange.name,
)
def test_simulator_answers_what_was_recorded(exchange: Exchange) -> None:
    """The simulated controller answers the recorded line, character for character."""
    arm = simulated_arm()
    for time, line in enumerate(exchange.before or ()):
        ask(arm, line, float(time))

    assert ask(arm, exchange.sent, 5.0) == exchange.answered


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("play", "Failed to execute: play"),
        ("stop", "Failed to execute: stop"),
        ("pause", "Failed to execute: pause"),
        ("load x.urp", "File not found: x.urp"),
        ("running", "Program running: false"),
        ("ROBOTMODE", "Robotmode: RUNNING"),
        ("popup take it out", "showing popup"),
        ("close safety popup", "closing safety popup"),
        ("addToLog hello", "Added log message"),
        ("unlock protective stop", "Protective stop releasing"),
        ("power on", "Powering on"),
        ("power off", "Powering off"),
        ("brake release", "Brake releasing"),
        ("get robot model", "UR5"),
        ("get serial number", "20215501234"),
        ("version", "5.11.1.108318"),
        ("quit", "Disconnected"),
        ("shutdown", "Shutting down"),
        ("dance", 'could not understand: "dance"'),
    ],
)
def test_simulator_answers_as_the_manual_says(sent: str, answered: str) -> None:
    """Commands are understood in any case; what cannot be done now is refused."""
    assert ask(simulated_arm(), sent, 10.0) == answered


def test_simulator_plays_pauses_and_stops_as_the_manual_says() -> None:
    """Each command is answered as documented and shows in the state (2022, play)."""
    arm = simulated_arm()
    told = [
        ask(arm, line, time)
        for line, time in (
            (f"load {PROGRAM}", 0.0),
            ("play", 2.0),
            ("running", 4.0),
            ("play", 5.0),
            ("pause", 6.0),
            ("running", 7.0),
            ("play", 8.0),
            ("running", 30.0),
            ("stop", 31.0),
            ("programState", 32.0),
        )
    ]

    assert told == [
        f"Loading program: {PROGRAM}",
        "Starting program",
        "Program running: true",
        "Failed to execute: play",
        "Pausing program",
        "Program running: false",
        "Starting program",
        "Program running: true",
        "Stopped",
        f"STOPPED {PROGRAM}",
    ]


def test_simulator_ends_a_program_when_its_time_is_over() -> None:
    """Pauses do not count: 40 s of playing with 10 s of pause end after 50 s."""
    arm = simulated_arm()
    for line, time in ((f"load {PROGRAM}", 0.0), ("play", 0.0), ("pause", 30.0)):
        ask(arm, line, time)
    ask(arm, "play", 40.0)

    assert ask(arm, "programState", 49.9).startswith("PLAYING")
    assert ask(arm, "programState", 50.1).startswith("STOPPED")


def test_simulator_refuses_to_move_when_it_is_not_in_remote_control() -> None:
    """Questions are answered, commands are not (from users' reports)."""
    arm = simulated_arm(remote_control=False)

    assert ask(arm, "is in remote control", 0.0) == "false"
    for command in (f"load {PROGRAM}", "play", "stop", "power on"):
        assert ask(arm, command, 1.0).startswith(
            "Command is not allowed due to safety reasons"
        )


def test_simulator_does_not_play_without_power_and_brakes() -> None:
    """POWER_OFF, power on, IDLE, brake release, RUNNING: then it plays (2022)."""
    arm = simulated_arm(robot_mode="POWER_OFF")
    ask(arm, f"load {PROGRAM}", 0.0)

    assert ask(arm, "play", 1.0) == "Failed to execute: play"
    ask(arm, "power on", 2.0)
    assert ask(arm, "robotmode", 3.0) == "Robotmode: IDLE"
    ask(arm, "brake release", 4.0)
    assert ask(arm, "play", 5.0) == "Starting program"


def test_simulator_is_silent_when_it_was_shut_down() -> None:
    """After shutdown nobody answers any more."""
    arm = simulated_arm()
    ask(arm, "shutdown", 0.0)

    assert list(arm.receive(b"robotmode\n", 1.0)) == []


# -- the driver's side of the wire language, without a wire ---------------------------


@given(line=st.text(st.characters(max_codepoint=127), max_size=40))
@settings(max_examples=80)
def test_any_line_is_understood_or_refused(line: str) -> None:
    """No line of text raises anything but PPU's own errors."""
    parsers: list[Callable[[list[str]], Any]] = [
        parse_program_state,
        parse_remote_control,
        field_named("Robotmode"),
        answer_beginning("Stopped"),
    ]
    for parse in parsers:
        try:
            parse([line])
        except (MalformedReply, InstrumentError):
            continue


@given(data=st.binary(max_size=60))
@settings(max_examples=80)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated controller goes on answering."""
    arm = simulated_arm()
    for answer in arm.receive(data, 1.0):
        assert answer.at(1.0 + answer.delay_s).endswith(b"\n")
    *_, last = arm.receive(b"\nrobotmode\n", 2.0)

    assert last.at(2.0) == b"Robotmode: RUNNING\n"
