"""What a door controller is sent and answers, line for line.

Source: CederGroupHub/alab_control door_controller/door_controller.py, which sends
``Status``, ``Open A`` and ``Close A`` and reads ``State: ...;`` and ``Furnace A: ...``.
What it leaves open is our assumption.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import MalformedReply
from ppu.core.labfile import LabFile
from ppu_drivers.furnace_door import DoorStatus, parse_status
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


def simulated_door() -> SimulatedFurnaceDoor:
    """Return a simulated door, closed."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "door": {
                    "driver": "ppu_drivers.furnace_door:FurnaceDoor",
                    "settings": {"encloses": "furnace_1"},
                }
            },
        }
    )
    return SimulatedFurnaceDoor("door", lab.devices["door"], World(lab, 1), "1001")


def ask(door: SimulatedFurnaceDoor, line: str, time: float) -> str:
    """Return what the simulated controller answers to a line."""
    (answer,) = door.receive(f"{line}\n".encode(), time)
    return answer.at(time).decode()


def test_simulator_answers_what_the_other_driver_reads() -> None:
    """A door opens for 12 s, stays, and closes; other requests are not understood."""
    door = simulated_door()
    told = [
        ask(door, line, time).split("; Serial")[0]
        for line, time in (
            ("Status", 0.0),
            ("Open A", 1.0),
            ("Close A", 5.0),
            ("Status", 12.9),
            ("Status", 13.1),
            ("Close A", 20.0),
            ("Status", 32.1),
            ("Open B", 33.0),
        )
    ]

    assert told == [
        "State: STOP; Furnace A: Closed",
        "State: RUNNING; Furnace A: Ajar",
        "State: RUNNING; Furnace A: Ajar",
        "State: RUNNING; Furnace A: Ajar",
        "State: STOP; Furnace A: Open",
        "State: RUNNING; Furnace A: Ajar",
        "State: STOP; Furnace A: Closed",
        "Unknown: Open B\n",
    ]


@given(data=st.binary(max_size=300))
@settings(max_examples=60)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated controller goes on answering."""
    door = simulated_door()
    for answer in door.receive(data, 1.0):
        assert answer.at(1.0).endswith(b"\n")
    *_, last = door.receive(b"\nStatus\n", 2.0)

    assert last.at(2.0).startswith(b"State: ")
