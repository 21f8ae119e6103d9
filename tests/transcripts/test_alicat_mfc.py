"""What an Alicat flow controller is sent and answers, line for line.

Sources: Alicat's manuals, tables captured on real instruments as labmcp-alicat 0.1.2
and alicatlib 0.3.1 describe them, and driver code where noted.
"""

import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply, UnencodableRequest
from ppu.core.labfile import LabFile
from ppu.transports.serial import SerialConnection
from ppu_drivers.alicat_mfc import (
    AlicatMfc,
    AlicatMfcLimits,
    AlicatMfcSettings,
    Column,
    Command,
    Layout,
    Poll,
    UnitId,
    Word,
    encode,
    parse_frame,
    parse_layout,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments.alicat_mfc import SimulatedAlicatMfc
from ppu_simulators.world import Refused, World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

MC_MANUAL = "MC-Series operating manual (manualshive.com 2896481)"
M_MANUAL = "M-Series operating manual rev. 0, January 2023, p. 32"
CAPTURED = "captured on an MC-500SCCM-D with 10v20, as labmcp-alicat 0.1.2 has it"

NEW_TABLE = """\
A D00 ID_ NAME______________________ TYPE_______ WIDTH NOTES___________________
A D01 700 Unit ID                    string          1
A D02 002 Abs Press                  s decimal     7/2 010 02 PSIA
A D03 003 Flow Temp                  s decimal     7/2 002 02 `C
A D04 004 Volu Flow                  s decimal     7/2 012 02 CCM
A D05 005 Mass Flow                  s decimal     7/2 012 02 SCCM
A D06 037 Mass Flow Setpt            s decimal     7/2 012 02 SCCM
A D07 703 Gas                        string          6
A D08 701 *Error                     string          3 ADC
A D09 702 *Status                    string          3 OPL
"""
OLD_TABLE = """\
A  D00 NAME_______ TYPE_____ MinVal_  MaxVal_  UNITS__
A  D01 Unit ID     char         A         Z         na
A  D02 Pressure    signed    +000.00  +160.00     PSIA
A  D03 Temperature signed    -010.00  +050.00        C
A  D04 Volumetric  signed    +0000.0  +0500.0      CCM
A  D05 Mass        signed    +0000.0  +0500.0     SCCM
A  D06 SetPoint    signed    +0000.0  +0500.0     SCCM
A  D07 Gas         string        Air       D2       na
A  D08 Error       string         na      ADC       na
"""
COLUMNS = (
    Column("pressure", "PSIA"),
    Column("temperature", "C"),
    Column("volumetric", "CCM"),
    Column("flow", "SCCM"),
    Column("setpoint", "SCCM"),
    Column("gas"),
)
MANY_COLUMNS = Layout(
    (*COLUMNS[:5], Column("valve drive", "%"), Column("total"), COLUMNS[5])
)


# -- frames and tables -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "layout", "unit", "flow", "setpoint", "gas", "decimals"),
    [
        (
            f"{MC_MANUAL}, p. 37",
            "A +014.70 +025.00 +02.004 +02.004 2.004 Air",
            Layout(COLUMNS),
            "A",
            2.004,
            2.004,
            "Air",
            3,
        ),
        (
            "numat/alicat issue 13: captured on an MCVS-500SCCM-D",
            "B +014.74 +024.46 +0000.2 -0000.1 0000.0      N2",
            Layout(COLUMNS),
            "B",
            -0.1,
            0.0,
            "N2",
            1,
        ),
        (
            CAPTURED,
            "A +014.62 +021.89 +000.00 +000.00 +078.95     N2",
            Layout(COLUMNS),
            "A",
            0.0,
            78.95,
            "N2",
            2,
        ),
        (
            "manual of the IM series, p. 10 (manualshive.com 4432981)",
            "A +15.542 +24.57 +16.667 +15.444 +15.444 +81.23 22741.4 N2",
            MANY_COLUMNS,
            "A",
            15.444,
            15.444,
            "N2",
            3,
        ),
    ],
)
def test_printed_frame_is_read(
    source: str,
    line: str,
    layout: Layout,
    unit: UnitId,
    flow: float,
    setpoint: float,
    gas: str,
    decimals: int,
) -> None:
    """Frames that manuals print or people captured have the meaning stated there."""
    frame = parse_frame(line, layout, unit)

    assert frame.flow_ml_per_min == flow, source
    assert frame.setpoint_ml_per_min == setpoint
    assert frame.gas == gas
    assert frame.decimals == decimals
    assert frame.status == frozenset()


@pytest.mark.parametrize(
    "code",
    [
        *("ADC", "COM", "EXH", "GTA", "HLD", "LCK", "MOV"),
        *("OPL", "OVR", "P2O", "POV", "TMF", "TOV", "VOV"),
    ],
)
def test_status_code_is_named(code: str) -> None:
    """Every code of the Primer (p. 8) has a meaning, one or several after the gas."""
    frame = parse_frame(
        f"A +014.70 +025.00 +02.004 +02.004 2.004 Air {code} XYZ", Layout(COLUMNS), "A"
    )

    assert frame.status == {code, "XYZ"}
    assert f"{code}: " in frame.states
    assert "XYZ: a code that the manuals do not list" in frame.states
    assert frame.states.count("a code that") == 1


@pytest.mark.parametrize(
    ("table", "temperature", "full_scale"),
    [(NEW_TABLE, "`C", None), (OLD_TABLE, "C", 500.0)],
)
def test_captured_table_is_read(
    table: str, temperature: str, full_scale: float | None
) -> None:
    """Both dialects of ??D* give the columns, their units, and a range if stated."""
    layout = parse_layout([*table.splitlines(), ""])

    quantities = [column.quantity for column in layout.columns]
    assert quantities == [column.quantity for column in COLUMNS]
    assert layout.unit_of("flow") == layout.unit_of("setpoint") == "SCCM"
    assert layout.unit_of("pressure") == "PSIA"
    assert layout.unit_of("temperature") == temperature
    assert layout.full_scale == full_scale


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("`C", "`F", "temperature is in '`F'; set it to degC"),
        ("PSIA", "inH2O", "pressure is in 'inH2O'; set it to PSIA"),
        ("037 Mass Flow Setpt", "034 Abs Press Setpt", "0 columns for setpoint"),
        ("700 Unit ID", "001 Unit XX", "does not begin with the unit id"),
        ("s decimal", "s fraction", "describes no column"),
        ("NAME", "NOME", "no description of a data frame"),
    ],
)
def test_table_is_refused_when_it_describes_something_else(
    old: str, new: str, text: str
) -> None:
    """Units and columns that the driver cannot use are named, never guessed."""
    with pytest.raises(MalformedReply, match=text):
        parse_layout(NEW_TABLE.replace(old, new).splitlines())


@pytest.mark.parametrize(
    ("unit", "bar"), [("PSIA", 2.068), ("barA", 30.0), ("kPa", 0.3), ("mbarA", 0.03)]
)
def test_pressure_is_converted_whatever_its_unit(unit: str, bar: float) -> None:
    """The reading comes in bar."""
    layout = parse_layout(NEW_TABLE.replace("PSIA", unit).splitlines())
    frame = parse_frame("A +030.00 +25.00 +0.00 +0.00 +0.00 N2", layout, "A")

    assert frame.pressure_bar == pytest.approx(bar, rel=1e-3)


@pytest.mark.parametrize("firmware", ["5v12.0-R22", "10v20.0-R24"])
def test_simulator_describes_its_frame_as_captured(firmware: str) -> None:
    """The simulated tables have the captured rows, whatever follows the gas."""
    captured = OLD_TABLE if firmware.startswith("5") else NEW_TABLE
    rows = answer_of(simulator({"firmware": firmware}), "A??D*").split("\r")

    assert [row.split() for row in rows[1:7]] == [
        line.split() for line in captured.splitlines()[1:7]
    ]
    assert rows[-2:] == ["", ""]  # ended by an empty line


# -- exchanges -------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """One exchange, what it means to the driver, and where it is from."""

    name: str
    source: str
    sent: str
    answered: str
    act: Callable[[AlicatMfc], Any]
    meaning: Any
    firmware: str = "10v20.0-R24"
    twin: dict[str, Any] = field(default_factory=dict)


async def read_flow(driver: AlicatMfc) -> Any:
    """Return the flow that the driver reads."""
    await driver.trigger()
    return await driver.flow.get_value()


EXCHANGES = [
    Exchange(
        "firmware",
        CAPTURED,
        "AVE",
        "A   10v20.0-R24 Jan  9 2025,15:04:07",
        lambda driver: driver._client.ask(Command(Word.FIRMWARE)),
        "A   10v20.0-R24 Jan  9 2025,15:04:07",
    ),
    Exchange(
        "full scale",
        "FPF 5 as labmcp-alicat 0.1.2 has it (Primer, p. 19)",
        "AFPF 5",
        "A +500.00 12 SCCM",
        lambda driver: driver._read_full_scale(),
        500.0,
    ),
    Exchange(
        "full scale that the firmware does not know",
        "alicatlib 0.3.1: FPF is refused on 5v12",
        "AFPF 5",
        "?",
        lambda driver: driver._read_full_scale(),
        None,
        firmware="5v12.0-R22",
    ),
    Exchange(
        "register of the gas",
        "from driver code: alicat 0.9.0 driver.py and mock.py",
        "A$$R46",
        "A   046 = 8",
        lambda driver: driver._client.ask(Command(Word.READ_GAS_REGISTER)),
        "A   046 = 8",
        firmware="5v12.0-R22",
        twin={"gas": "N2"},
    ),
    Exchange(
        "gas by register",
        "from driver code: alicat 0.9.0 driver.py and mock.py",
        "A$$W46=8",
        "A   046 = 8",
        lambda driver: driver._client.ask(Command(Word.GAS_REGISTER, 8)),
        "A   046 = 8",
        firmware="5v12.0-R22",
    ),
    Exchange(
        "gas, not kept",
        "GS of 10v05 as labmcp-alicat 0.1.2 has it (Primer, p. 11)",
        "AGS 8",
        "A 8 N2 Nitrogen",
        lambda driver: driver._client.ask(Command(Word.GAS_UNSAVED, 8)),
        "A 8 N2 Nitrogen",
    ),
    Exchange(
        "gas that is not in the list",
        "Primer, p. 9: a command that fails is answered with ?",
        "AGS 200",
        "?",
        read_flow,
        None,
    ),
]


def lab_file(twin: dict[str, Any] | None = None) -> LabFile:
    """Return a lab with one flow controller."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "mfc": {
                    "driver": "ppu_drivers.alicat_mfc:AlicatMfc",
                    "twin": {"noise_fraction": 0.0} | (twin or {}),
                }
            },
        }
    )


def simulator(twin: dict[str, Any] | None = None) -> SimulatedAlicatMfc:
    """Return a simulated flow controller without noise."""
    lab = lab_file(twin)
    return SimulatedAlicatMfc("mfc", lab.devices["mfc"], World(lab, 1), "521641")


def answer_of(simulated: SimulatedAlicatMfc, line: str, time: float = 1.0) -> str:
    """Return what is answered to *line*."""
    answers = simulated.receive(f"{line}\r".encode(), time)
    return "".join(answer.at(time).decode() for answer in answers)


class Recording:
    """Answers one line as it was recorded, and nothing else."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.heard: list[bytes] = []

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take a line; answer it if it is the recorded one."""
        self.heard.append(data)
        if data != self._exchange.sent.encode() + b"\r":
            return []
        return [Answer(self._exchange.answered.encode() + b"\r")]


@pytest.mark.parametrize(
    "exchange",
    [exchange for exchange in EXCHANGES if exchange.act is not read_flow],
    ids=lambda exchange: exchange.name,
)
def test_driver_sends_and_understands_what_was_recorded(
    play: Play, exchange: Exchange
) -> None:
    """The driver's line is the recorded one, and it reads the answer's meaning."""
    recording = Recording(exchange)

    async def talk() -> Any:
        front = SerialFront(recording, SerialLine(19200))
        driver = AlicatMfc(
            "mfc",
            lab_file().devices["mfc"],
            SerialConnection(transport="serial", port=front.start(), baudrate=19200),
            AlicatMfcSettings(
                supplies="furnace", gases=("N2",), full_scale_ml_per_min=500.0
            ),
            AlicatMfcLimits(flow_ml_per_min=(0, 500)),
        )
        driver.link.identify = None
        try:
            await driver.connect_link()
            return await exchange.act(driver)
        finally:
            await driver.disconnect()
            front.stop()

    found = play(talk())

    assert recording.heard == [exchange.sent.encode() + b"\r"]
    assert found == exchange.meaning


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_simulator_answers_what_was_recorded(exchange: Exchange) -> None:
    """The simulated controller answers the recorded line, character for character."""
    simulated = simulator({"firmware": exchange.firmware} | exchange.twin)

    assert answer_of(simulated, exchange.sent) == exchange.answered + "\r"


@pytest.mark.parametrize(
    ("sent", "source"),
    [
        ("AS4.54", f"{MC_MANUAL}, p. 37"),
        ("AS 4.54", f"{M_MANUAL}: a space before the value"),
        ("as4.54", f"{M_MANUAL}: not case-sensitive"),
        ("A3874", f"{MC_MANUAL}, p. 37: 64000 is full scale (here 75 SCCM)"),
        ("ALS 4.54", "LS of 9v00 (Primer, p. 12)"),
    ],
)
def test_simulator_takes_every_setpoint_there_is(sent: str, source: str) -> None:
    """All ways to send a setpoint work, the old integer one, too."""
    simulated = simulator({"full_scale": 75.0})
    answer_of(simulated, sent)
    setpoint = answer_of(simulated, "A").split()[5]

    assert float(setpoint) == 4.54, source


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("A49408", "+386.00"),
        ("A64000", "+500.00"),
        ("AS 700", "+500.00"),
        ("AS -3", "+000.00"),
    ],
)
def test_simulator_obeys_the_integer_setpoint(sent: str, answered: str) -> None:
    """A slip in formatting would show: 64000 is full scale, and no more is taken."""
    assert answer_of(simulator(), sent).split()[5] == answered


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("B", ""),  # another unit
        ("AXYZ", ""),  # unknown: ignored in silence
        ("ALSS", ""),
        ("AGS", ""),
        ("ALS 5", ""),
        ("AVD", ""),
        ("", ""),
        ("A64001", "?\r"),
        ("AG 5", "?\r"),
        ("AR122", "A   122 = 37\r"),
    ],
)
def test_simulator_ignores_what_an_old_firmware_does_not_know(
    sent: str, answered: str
) -> None:
    """Unknown commands and other units get silence, wrong values a question mark."""
    assert answer_of(simulator({"firmware": "5v12"}), sent) == answered


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("ALS", "A +000.00 +000.00 12 SCCM\r"),
        ("ALSS", "A S\r"),
        ("AGS", "A 0 Air Air\r"),
        ("AVD", "A 000.00 000.00 000.00 000.00\r"),
        ("AFPF 344", "A +000.00 1 ---\r"),
    ],
)
def test_simulator_answers_as_newer_firmware(sent: str, answered: str) -> None:
    """Answers have the fields that labmcp-alicat and alicatlib saw on 10v20."""
    assert answer_of(simulator(), sent) == answered


def test_simulator_opens_its_valve_fully_when_the_bottle_is_empty() -> None:
    """Valve drive goes to 100 % and pressure to that of the room (VD, 8v18)."""
    simulated = simulator({"faults": [{"fault": "empty bottle", "at_s": 60}]})
    answer_of(simulated, "AS 100")

    assert answer_of(simulated, "AVD", 50.0).startswith("A 012.50 ")
    assert answer_of(simulated, "AVD", 7200.0).startswith("A 100.00 ")
    _, pressure, _, _, flow, *_ = answer_of(simulated, "A", 7200.0).split()
    assert float(pressure) == pytest.approx(14.7, abs=0.2)
    assert float(flow) < 1.0


def test_simulator_lists_its_gases() -> None:
    """??G* gives number and short name, as captured on 10v20."""
    rows = answer_of(simulator(), "A??G*").split("\r")

    assert "A G08       N2" in rows


def test_simulator_stops_holding_when_told() -> None:
    """HP and HC hold the valve and say so, C lets it control again (quick guide)."""
    simulated = simulator()
    answer_of(simulated, "AS 100")

    assert answer_of(simulated, "AHC", 2.0).split()[-1] == "HLD"
    assert float(answer_of(simulated, "A", 9.0).split()[4]) == 0.0
    assert answer_of(simulated, "AC", 9.0).split()[-1] == "Air"
    assert float(answer_of(simulated, "A", 19.0).split()[4]) == 100.0
    assert answer_of(simulated, "AL", 20.0).split()[-1] == "LCK"
    assert answer_of(simulated, "AU", 21.0).split()[-1] == "Air"


@pytest.mark.parametrize(
    ("twin", "text"),
    [
        ({"flow_unit": "CCM"}, "flow_unit should be one of 'SCCM', 'SLPM'"),
        ({"bottle": "H2"}, "bottle should be one of '', 'air'"),
        ({"firmware": "GP"}, "firmware should look like 10v20, not GP"),
        ({"faults": [{"fault": "empty botle"}]}, "did you mean 'empty bottle'"),
    ],
)
def test_simulator_refuses_settings_that_mean_nothing(
    twin: dict[str, Any], text: str
) -> None:
    """Wrong twin settings are named with what is allowed."""
    with pytest.raises(ValueError, match=re.escape(text)):
        simulator(twin)


def test_nothing_can_stand_in_a_flow_controller() -> None:
    """A lab file that puts a place inside of it does not make a world."""
    lab = lab_file().model_dump()
    lab["locations"] = {"mfc.1": {"holds": "crucible", "inside": "mfc"}}
    lab["containers"] = {
        "cup": {"kind": "crucible", "at": "mfc.1", "capacity_ml": 1, "tare_g": 1}
    }
    wrong = LabFile.model_validate(lab)

    with pytest.raises(Refused, match="cup cannot stand in mfc"):
        SimulatedAlicatMfc("mfc", wrong.devices["mfc"], World(wrong, 1), "1")


# -- the driver's side of the wire language, without a wire ----------------------------

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers().map(float)


@given(
    unit=st.sampled_from(get_args(UnitId)) | st.text(max_size=3),
    command=st.just(Poll())
    | st.builds(
        Command,
        word=st.sampled_from(Word),
        number=st.none() | NUMBERS,
        decimals=st.integers(-2, 9),
    ),
)
@settings(max_examples=200)
def test_no_command_is_an_integer_setpoint(unit: Any, command: Poll | Command) -> None:
    """A unit id is never followed by a digit, whatever is asked for.

    Such as A49408 would be taken for 77 % of full scale.
    """
    try:
        line = encode(unit, command)
    except UnencodableRequest:
        return

    assert re.match(r"[A-Za-z]\d", line) is None
    assert re.fullmatch(r"[A-Z]((\$\$|\?\?)?[A-Z]+\d*[*=]?( ?\d+(\.\d+)?)?)?", line)


@pytest.mark.parametrize("word", Word)
def test_no_word_begins_like_a_number(word: Word) -> None:
    """What follows the unit id begins with a letter or a sign of a command."""
    assert re.match(r"[A-Z$?]", word) is not None


@given(
    flow=st.integers(-10_000, 99_999).map(lambda n: n / 100),
    status=st.lists(st.sampled_from(["HLD", "LCK", "MOV"]), unique=True),
)
@settings(max_examples=50)
def test_frame_survives_the_wire_whatever_it_is(flow: float, status: list[str]) -> None:
    """Signs and zeros are read back as they were."""
    line = f"A +014.70 +025.00 {flow:+07.2f} {flow:+07.2f} +000.00     Ar"
    frame = parse_frame(" ".join([line, *status]), Layout(COLUMNS), "A", 1000.0)

    assert frame.flow_ml_per_min == pytest.approx(1000 * flow)
    assert frame.status == set(status)


@given(line=st.text(st.characters(max_codepoint=127), max_size=60))
@settings(max_examples=80)
def test_any_line_is_understood_or_refused(line: str) -> None:
    """No line of text raises anything but PPU's own errors."""
    for parse in (
        lambda: parse_frame(line, Layout(COLUMNS), "A"),
        lambda: parse_layout([line]),
        lambda: parse_layout([NEW_TABLE.splitlines()[0], line]),
        lambda: parse_layout([OLD_TABLE.splitlines()[0], line]),
    ):
        try:
            parse()
        except (MalformedReply, InstrumentError):
            continue


@given(data=st.binary(max_size=60))
@settings(max_examples=80)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated controller goes on answering."""
    simulated = simulator()
    for answer in simulated.receive(data, 1.0):
        assert answer.at(1.0).endswith(b"\r")

    assert answer_of(simulated, "\rAVE").startswith("A   10v20")
