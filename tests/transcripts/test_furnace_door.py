"""What a door controller is sent and answers, byte for byte.

Source: the firmware soft_R07_AB.ino of CederGroupHub/alab_control, and its client
door_controller.py. No answer has a line end.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.labfile import LabFile
from ppu_drivers.furnace_door import DoorStatus, parse_status
from ppu_drivers.furnace_door._codec import check_acknowledgement
from ppu_simulators.instruments.furnace_door import SimulatedFurnaceDoor
from ppu_simulators.world import World


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("State: STOP; Furnace A: Open", DoorStatus("STOP", {"A": "Open"})),
        ("State: STOP;Furnace A: Closed;", DoorStatus("STOP", {"A": "Closed"})),
        (
            "State: RUNNING; Furnace A: Open; Furnace B: Closed\r",
            DoorStatus("RUNNING", {"A": "Open", "B": "Closed"}),
        ),
        ("State: ERROR", DoorStatus("ERROR", {})),
        (
            "State: STOP; Furnace A: Closed; Furnace B: Closed;",
            DoorStatus("STOP", {"A": "Closed", "B": "Closed"}),
        ),
        (
            "State: ERROR; Furnace A: Unknown; Furnace B: Open;",
            DoorStatus("ERROR", {"A": "Unknown", "B": "Open"}),
        ),
        (
            "State: STOP; Furnace A: Open; Serial: 7",
            DoorStatus("STOP", {"A": "Open"}, "7"),
        ),
    ],
)
def test_driver_understands_what_the_other_driver_reads(
    line: str, meaning: DoorStatus
) -> None:
    """State before the first semicolon, doors by their names (get_state)."""
    assert parse_status(line) == meaning


@given(line=st.text(st.characters(max_codepoint=127), max_size=60))
@settings(max_examples=80)
def test_any_line_is_understood_or_refused(line: str) -> None:
    """No line of text raises anything but MalformedReply."""
    try:
        status = parse_status(line)
    except MalformedReply:
        return
    assert line.strip().startswith(f"State: {status.state}")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("Opening furnace A...", None),
        ("Closing furnace B...", None),
        ("State: RUNNING; Furnace A: Closed; Furnace B: Closed;", None),
        ("Wrong command", InstrumentError),
        ("Opdning furnace A...", MalformedReply),
        ("", MalformedReply),
    ],
)
def test_acknowledgement_is_told_from_a_refusal(
    answer: str, error: type[Exception] | None
) -> None:
    """A request is acknowledged, answered with the status, or not known."""
    if error is None:
        check_acknowledgement([answer])
        return
    with pytest.raises(error):
        check_acknowledgement([answer])


def simulated_door(**twin: object) -> SimulatedFurnaceDoor:
    """Return a simulated door, closed."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "door": {
                    "driver": "ppu_drivers.furnace_door:FurnaceDoor",
                    "settings": {"encloses": "furnace_1"},
                    "twin": {"says_serial_number": False, **twin},
                }
            },
        }
    )
    return SimulatedFurnaceDoor("door", lab.devices["door"], World(lab, 1), "1001")


def ask(door: SimulatedFurnaceDoor, request: str, time: float) -> str:
    """Return what the simulated controller answers to a client that comes and goes."""
    door._attend(True, time)
    said = b"".join(one.at(time) for one in door.receive(request.encode(), time))
    door._attend(False, time + 0.1)
    return said.decode()


CLOSED = "State: STOP; Furnace A: Closed; Furnace B: Closed;"
OPEN = "State: STOP; Furnace A: Open; Furnace B: Closed;"
OPENING = "State: RUNNING; Furnace A: Closed; Furnace B: Closed;"
CLOSING = "State: RUNNING; Furnace A: Open; Furnace B: Closed;"
FAILED = "State: ERROR; Furnace A: Open; Furnace B: Closed;"
LOST = "State: ERROR; Furnace A: Unknown; Furnace B: Closed;"


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (
            {},
            [
                (0.0, "Status\n", CLOSED),
                (0.2, "Status", CLOSED),
                (0.4, "Close A\n", CLOSED),
                (1.0, "Open A\n", "Opening furnace A..."),
                (5.0, "Close A\n", OPENING),
                (5.5, "Open B\n", OPENING),
                (10.5, "Status\n", OPENING),
                (11.7, "Status\n", OPEN),
                (12.0, "Open A\n", OPEN),
                (20.0, "Close A\n", "Closing furnace A..."),
                (48.5, "Status\n", CLOSING),
                (49.7, "Status\n", CLOSED),
            ],
        ),
        (
            {"opens_in_s": 60.0},
            [
                (1.0, "Open A\n", "Opening furnace A..."),
                (27.0, "Status\n", OPENING),
                (28.0, "Status\n", FAILED),
                (30.0, "Close A\n", FAILED),
                (56.0, "Status\n", FAILED),
                (58.0, "Status\n", LOST),
                (60.0, "Open A\n", LOST),
                (9999.0, "Status\n", LOST),
            ],
        ),
        (
            {},
            [
                (0.0, "status\n", "Wrong command"),
                (1.0, "Status\r\n", "Wrong command"),
                (2.0, "Open C\n", "Wrong command"),
                (3.0, "\n", "Wrong command"),
                (4.0, "Status\nStatus\n", CLOSED + CLOSED),
                (5.0, "x" * 40, "Wrong command" * 2),
            ],
        ),
    ],
    ids=["opened and closed", "opens too slowly", "nonsense"],
)
def test_simulator_answers_as_the_firmware_does(
    twin: dict[str, float], said: list[tuple[float, str, str]]
) -> None:
    """Opening ends at its switch, closing by the clock, errors stay for good."""
    door = simulated_door(**twin)

    assert [(at, sent, ask(door, sent, at)) for at, sent, _ in said] == said


def test_simulator_looks_at_no_switch_while_a_client_is_connected() -> None:
    """A client that stays keeps the door from being called open, and the motor on."""
    door = simulated_door()
    ask(door, "Open A\n", 0.0)
    door._attend(True, 1.0)
    held = [
        b"".join(answer.at(at) for answer in door.receive(b"Status\n", at)).decode()
        for at in (12.0, 40.0)
    ]
    door._attend(False, 41.0)

    assert held == [OPENING, OPENING]
    assert ask(door, "Status\n", 41.0) == OPEN


@given(data=st.binary(min_size=1, max_size=300))
@settings(max_examples=60)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated controller goes on answering."""
    door = simulated_door()
    for answer in door.receive(data, 1.0):
        assert not answer.at(1.0).endswith(b"\n")
    *_, last = door.receive(b"\nStatus\n", 2.0)

    assert last.at(2.0).startswith(b"State: ")
