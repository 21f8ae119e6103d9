"""What a DH-Robotics gripper is sent and answers, byte for byte.

Sources: examples of the PGC-50 and RGI-30 short manuals and of the PGE-2 user manual
(V1.0). Their writes use function 6; ours use function 16, which the PGE-2 manual lists.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.labfile import LabFile
from ppu.transports.serial import SerialConnection
from ppu_drivers.dh_gripper import DhGripper, DhGripperSettings, GripState, ReadyState
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.modbus import ModbusRtuSlave, crc16
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments.dh_gripper import SimulatedDhGripper
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]


def with_crc(frame: str) -> bytes:
    """Return a frame of hexadecimal bytes with its check sum."""
    body = bytes.fromhex(frame)
    return body + crc16(body).to_bytes(2, "little")


def lab_file(**twin: Any) -> LabFile:
    """Return a lab with one gripper."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "gripper": {
                    "driver": "ppu_drivers.dh_gripper:DhGripper",
                    "settings": {"hand_of": "arm"},
                    "twin": {"is_initialized": True, **twin},
                }
            },
        }
    )


class Gripper:
    """A simulated gripper on its Modbus line."""

    def __init__(self, **twin: Any) -> None:
        lab = lab_file(**twin)
        self.world = World(lab, 1)
        self.simulated = SimulatedDhGripper(
            "gripper", lab.devices["gripper"], self.world, "1234"
        )
        self._slave = ModbusRtuSlave(1, self.simulated, baudrate=115200)

    def answer(self, request: bytes, time: float) -> bytes:
        """Return the frame that is answered."""
        (answer,) = self._slave.receive(request, time)
        return answer.at(time)


@pytest.mark.parametrize(
    ("sent", "answered", "source"),
    [
        ("01 06 01 00 00 01 49 F6", "01 06 01 00 00 01 49 F6", "PGE-2 §3.3.1, table"),
        ("01 06 01 00 00 A5 48 4D", "01 06 01 00 00 A5 48 4D", "RGI-30 p. 10"),
        ("01 06 01 03 01 F4 78 21", "01 06 01 03 01 F4 78 21", "PGC-50 p. 14"),
        ("01 06 01 04 00 32 48 22", "01 06 01 04 00 32 48 22", "PGC-50 p. 14"),
        ("01 06 04 06 00 1E E8 F3", "01 06 04 06 00 1E E8 F3", "PGE-2 p. 21"),
        ("01 06 04 05 01 2C 98 B6", "01 06 04 05 01 2C 98 B6", "PGE-2 p. 21"),
    ],
)
def test_simulator_answers_the_examples_of_the_manuals(
    sent: str, answered: str, source: str
) -> None:
    """Writes with function 6 are echoed, check sums included."""
    assert Gripper().answer(bytes.fromhex(sent), 1.0) == bytes.fromhex(answered), source


def test_simulator_answers_that_it_is_not_initialised() -> None:
    """The example of the RGI-30 manual, p. 13: 01 03 02 00 00 is answered with 0."""
    gripper = Gripper(is_initialized=False)

    answered = gripper.answer(bytes.fromhex("01 03 02 00 00 01 85 B2"), 1.0)

    assert answered == bytes.fromhex("01 03 02 00 00 B8 44")


def test_simulator_initialises_as_the_manual_says() -> None:
    """Not initialised, initialising, initialised (RGI-30, table 2.11)."""
    gripper = Gripper(is_initialized=False)
    gripper.answer(bytes.fromhex("01 06 01 00 00 01 49 F6"), 1.0)
    request = bytes.fromhex("01 03 02 00 00 01 85 B2")

    states = [gripper.answer(request, time)[4] for time in (1.5, 5.0)]

    assert states == [2, 1]


def test_simulator_moves_its_fingers_as_the_manual_says() -> None:
    """In motion, then at the position that was written (PGC-50, table 2.2)."""
    gripper = Gripper()
    gripper.answer(bytes.fromhex("01 06 01 03 01 F4 78 21"), 1.0)
    request = with_crc("01 03 02 01 00 02")

    moving = gripper.answer(request, 1.1)
    arrived = gripper.answer(request, 3.0)

    assert moving[4] == 0
    assert arrived[3:7] == bytes.fromhex("00 01 01 F4")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("01 06 01 01 00 13", 3),  # force below 20 %
        ("01 06 01 03 03 E9", 3),  # position over 1000
        ("01 06 01 00 00 07", 3),  # neither 1 nor 0xA5
        ("01 06 02 02 00 01", 2),  # read only
        ("01 03 0F 00 00 01", 2),  # no such register
    ],
)
def test_simulator_refuses_what_the_manual_does_not_allow(sent: str, code: int) -> None:
    """Values outside of the tables and unknown registers are exceptions."""
    assert Gripper().answer(with_crc(sent), 1.0)[1:3] == bytes(
        [int(sent[3:5], 16) | 0x80, code]
    )


def test_simulator_takes_a_whole_io_table_in_one_write() -> None:
    """Function 16 on 12 registers from 0x0405 on (PGE-2, p. 21)."""
    gripper = Gripper()
    table = "03E8 0014 000A 0100 0014 0002 0000 0064 0005 0250 0064 000A"

    answered = gripper.answer(with_crc(f"01 10 0405 000C 18 {table}"), 1.0)

    assert answered == bytes.fromhex("01 10 04 05 00 0C D1 3D")


class Recording:
    """Answers requests as they were recorded, and nothing else."""

    def __init__(self, exchanges: dict[bytes, bytes]) -> None:
        self._exchanges = exchanges

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take a request; answer it if it is a recorded one."""
        return [Answer(self._exchanges[data])] if data in self._exchanges else []


@pytest.mark.parametrize(
    ("sent", "answered", "signal", "meaning"),
    [
        (
            "01 03 02 00 00 01",
            "01 03 02 00 00",
            "ready_state",
            ReadyState.NOT_INITIALIZED,
        ),
        ("01 03 02 01 00 01", "01 03 02 00 02", "grip_state", GripState.GRASPED),
        ("01 03 02 01 00 01", "01 03 02 00 03", "grip_state", GripState.DROPPED),
        ("01 03 02 02 00 01", "01 03 02 01 F4", "position", 500.0),
        ("01 03 01 03 00 01", "01 03 02 03 E8", "reference_position", 1000.0),
        ("01 03 01 04 00 01", "01 03 02 00 32", "speed", 50.0),
        ("01 03 01 01 00 01", "01 03 02 00 1E", "force", 30.0),
    ],
)
def test_driver_sends_and_understands_what_the_manuals_show(
    play: Play, sent: str, answered: str, signal: str, meaning: Any
) -> None:
    """Requests are those of the manuals' read examples (PGC-50 p. 14, RGI-30 p. 13)."""
    recording = Recording({with_crc(sent): with_crc(answered)})

    async def talk() -> Any:
        front = SerialFront(recording, SerialLine(115200))
        driver = DhGripper(
            "gripper",
            lab_file().devices["gripper"],
            SerialConnection(transport="serial", port=front.start(), baudrate=115200),
            DhGripperSettings(hand_of="arm"),
            DhGripper.limits_model(),
        )
        driver.link.identify = None
        try:
            await driver.link.open()
            await driver.connect()
            return await driver.signals()[signal].get_value()
        finally:
            await driver.disconnect()
            front.stop()

    assert play(talk()) == meaning


@given(data=st.binary(max_size=40))
@settings(max_examples=60)
def test_simulator_survives_any_bytes(data: bytes) -> None:
    """Whatever is sent, a simulated gripper goes on answering."""
    gripper = Gripper()
    tuple(gripper._slave.receive(data, 1.0))

    assert gripper.answer(with_crc("01 03 02 00 00 01"), 2.0)[:3] == b"\x01\x03\x02"
