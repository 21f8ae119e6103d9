"""What an MT-SICS balance is sent and answers, line for line.

Sources: the MT-SICS reference manual 11780711 as cited by labmcp-mettler-toledo (the
manual prints weights right-justified in ten characters), and driver code where noted.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.labfile import LabFile
from ppu.transports.serial import SerialConnection
from ppu_drivers.mettler_sics import (
    MettlerSics,
    MettlerSicsLimits,
    MettlerSicsSettings,
    Weight,
    acknowledgement_of,
    parse_text,
    parse_weight,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments.mettler_sics import SimulatedMettlerSics
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

MANUAL = "MT-SICS reference manual 11780711"


async def weigh(driver: MettlerSics) -> float:
    """Return what the driver takes for a stable mass."""
    await driver.trigger()
    mass: float = await driver.mass.get_value()
    return mass


@dataclass(frozen=True)
class Exchange:
    """One exchange, what it means to the driver, and where it is from."""

    name: str
    source: str
    sent: str
    answered: str
    act: Callable[[MettlerSics], Any]
    meaning: Any
    load_g: float | None = None
    """What must lie on the simulated pan to get this answer, None for no check."""
    twin: dict[str, Any] = field(default_factory=dict)


EXCHANGES = [
    Exchange(
        "stable weight",
        f"{MANUAL}, command S",
        "S",
        "S S     100.00 g",
        weigh,
        100.0,
        100.0,
        {"resolution_g": 0.01, "repeatability_g": 1e-6},
    ),
    Exchange(
        "weight now, not stable",
        f"{MANUAL}, command SI: the answer begins with S",
        "SI",
        "S D     129.07 g",
        lambda driver: driver.present_mass.get_value(),
        129.07,
    ),
    Exchange(
        "weight now, as another driver's vectors have it",
        "from driver code: InstrumentKit test_mt_sics.py begins replies to SI with SI",
        "SI",
        "SI S       1.00 g",
        lambda driver: driver.present_mass.get_value(),
        1.0,
    ),
    Exchange(
        "weight in another host unit",
        f"{MANUAL}, command S: the unit of the host",
        "S",
        "S S     0.1000 kg",
        weigh,
        100.0,
    ),
    Exchange(
        "overload",
        f"{MANUAL}, command S: status +",
        "S",
        "S +",
        weigh,
        InstrumentError("overloaded", "+"),
        500.0,
    ),
    Exchange(
        "underload",
        f"{MANUAL}, command S: status -",
        "S",
        "S -",
        weigh,
        InstrumentError("underloaded", "-"),
    ),
    Exchange(
        "not stable in time",
        f"{MANUAL}, command S: status I",
        "S",
        "S I",
        weigh,
        InstrumentError("did not become stable", "I"),
    ),
    Exchange(
        "tare",
        f"{MANUAL}, command T",
        "T",
        "T S     100.00 g",
        lambda driver: driver.tare.trigger(),
        None,
        100.0,
        {"resolution_g": 0.01, "repeatability_g": 1e-6},
    ),
    Exchange(
        "zero",
        f"{MANUAL}, command Z",
        "Z",
        "Z A",
        lambda driver: driver.zero.trigger(),
        None,
        0.0,
    ),
    Exchange(
        "software",
        f"{MANUAL}, command I3",
        "I3",
        'I3 A "2.10 10.28.0.493.142"',
        lambda driver: driver.firmware.get_value(),
        "2.10 10.28.0.493.142",
        0.0,
    ),
    Exchange(
        "syntax error",
        f"{MANUAL}, error message ES",
        "I3",
        "ES",
        lambda driver: driver.firmware.get_value(),
        InstrumentError("syntax error", "ES"),
    ),
    Exchange(
        "transmission error",
        f"{MANUAL}, error message ET",
        "S",
        "ET",
        weigh,
        InstrumentError("wrong parity", "ET"),
    ),
    Exchange(
        "logical error",
        f"{MANUAL}, error message EL",
        "T",
        "EL",
        lambda driver: driver.tare.trigger(),
        InstrumentError("logical error", "EL"),
    ),
    Exchange(
        "internal error",
        f"{MANUAL}, internal errors: number, then t for the terminal",
        "S",
        "S S Error 10b",
        weigh,
        InstrumentError("internal error 10b", "10b"),
    ),
]


def lab_file(load_g: float = 0.0, twin: dict[str, Any] | None = None) -> LabFile:
    """Return a lab with one balance and something of *load_g* on its pan."""
    containers = {
        "weight": {
            "kind": "weight",
            "at": "balance.pan",
            "capacity_ml": 1,
            "tare_g": load_g,
        }
    }
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "balance": {
                    "driver": "ppu_drivers.mettler_sics:MettlerSics",
                    "slots": ["balance.pan"],
                    "twin": twin or {},
                }
            },
            "locations": {"balance.pan": {"holds": "weight", "inside": "balance"}},
            "containers": containers if load_g else {},
        }
    )


class Recording:
    """Answers one line as it was recorded, and nothing else."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.heard: list[bytes] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take a line; answer it if it is the recorded one."""
        self.heard.append(data)
        if data != self._exchange.sent.encode() + b"\r\n":
            return []
        return [Answer(self._exchange.answered.encode() + b"\r\n")]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_driver_sends_and_understands_what_was_recorded(
    play: Play, exchange: Exchange
) -> None:
    """The driver's line is the recorded one, and it reads the answer's meaning."""
    recording = Recording(exchange)

    async def talk() -> Any:
        front = SerialFront(recording, SerialLine())
        driver = MettlerSics(
            "balance",
            lab_file().devices["balance"],
            SerialConnection(transport="serial", port=front.start(), baudrate=9600),
            MettlerSicsSettings(),
            MettlerSicsLimits(),
        )
        driver.link.identify = None
        try:
            await driver.connect_link()
            return await exchange.act(driver)
        except InstrumentError as exc:
            return exc
        finally:
            await driver.disconnect()
            front.stop()

    found = play(talk())

    # What is acted upon is asked three times.
    assert set(recording.heard) == {exchange.sent.encode() + b"\r\n"}
    assert len(recording.heard) in (1, 3)
    if isinstance(exchange.meaning, InstrumentError):
        assert isinstance(found, InstrumentError)
        assert found.code == exchange.meaning.code
        assert str(exchange.meaning) in str(found)
        assert str(found).startswith("balance: ")
    else:
        assert found == exchange.meaning


@pytest.mark.parametrize(
    "exchange",
    [exchange for exchange in EXCHANGES if exchange.load_g is not None],
    ids=lambda exchange: exchange.name,
)
def test_simulator_answers_what_was_recorded(exchange: Exchange) -> None:
    """The simulated balance answers the recorded line, character for character."""
    lab = lab_file(exchange.load_g or 0.0, exchange.twin)
    simulated = SimulatedMettlerSics(
        "balance", lab.devices["balance"], World(lab, 1), "B021002593"
    )
    (answer,) = simulated.receive(exchange.sent.encode() + b"\r\n", 100.0)

    assert answer.at(100.0 + answer.delay_s) == exchange.answered.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("@", 'I4 A "B021002593"'),
        ("I4", 'I4 A "B021002593"'),
        ("XYZ", "ES"),
        ("TA x", "TA L"),
        ("TAC", "TAC A"),
        ("", None),
    ],
)
def test_simulator_answers_as_the_manual_says(sent: str, answered: str | None) -> None:
    """Reset answers like I4; wrong commands and parameters are refused (11780711)."""
    lab = lab_file()
    simulated = SimulatedMettlerSics(
        "balance", lab.devices["balance"], World(lab, 1), "B021002593"
    )
    answers = [
        answer.at(1.0).decode()
        for answer in simulated.receive(f"{sent}\r\n".encode(), 1.0)
    ]

    assert answers == ([] if answered is None else [f"{answered}\r\n"])


def test_simulator_marks_the_last_line_when_it_lists_commands() -> None:
    """I0 answers many lines: B for more, A for the last (11780711, command I0)."""
    lab = lab_file()
    simulated = SimulatedMettlerSics(
        "balance", lab.devices["balance"], World(lab, 1), "B021002593"
    )
    (answer,) = simulated.receive(b"I0\r\n", 1.0)
    *lines, last = answer.at(1.0).decode().splitlines()

    assert all(line.startswith("I0 B 0 ") for line in lines)
    assert last.startswith("I0 A 0 ")


def test_simulator_cancels_what_it_waits_for_when_reset() -> None:
    """After @ the answer to an earlier S never comes (11780711, command @)."""
    lab = lab_file(100.0)
    simulated = SimulatedMettlerSics(
        "balance", lab.devices["balance"], World(lab, 1), "B021002593"
    )
    (waiting,) = simulated.receive(b"S\r\n", 1.0)
    tuple(simulated.receive(b"@\r\n", 1.1))

    assert waiting.at(1.0 + waiting.delay_s) == b""


# -- the driver's side of the wire language, without a wire ---------------------------


@given(
    mass=st.integers(-2_200_000, 2_200_000).map(lambda n: n / 1e4),
    is_stable=st.booleans(),
)
@settings(max_examples=50)
def test_weight_survives_the_wire_whatever_it_is(mass: float, is_stable: bool) -> None:
    """Ten characters, right-justified, are read back as they were."""
    line = f"S {'S' if is_stable else 'D'} {mass:10.4f} g"

    assert parse_weight([line]) == Weight(mass, is_stable)


@given(line=st.text(st.characters(max_codepoint=127), max_size=40))
@settings(max_examples=80)
def test_any_line_is_understood_or_refused(line: str) -> None:
    """No line of text raises anything but PPU's own errors."""
    for parse in (parse_weight, parse_text, acknowledgement_of("T")):
        try:
            parse([line])
        except (MalformedReply, InstrumentError):
            continue


@given(data=st.binary(max_size=60))
@settings(max_examples=80)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated balance goes on answering."""
    lab = lab_file()
    simulated = SimulatedMettlerSics(
        "balance", lab.devices["balance"], World(lab, 1), "B021002593"
    )
    for answer in simulated.receive(data, 1.0):
        sent = answer.at(1.0 + answer.delay_s)
        assert sent == b"" or sent.endswith(b"\r\n")
    answers = list(simulated.receive(b"\r\nI4\r\n", 2.0))

    assert answers[-1].at(2.0) == b'I4 A "B021002593"\r\n'
