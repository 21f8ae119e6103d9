"""Simulated wires: whatever is sent, they answer by the rules or keep silent."""

import asyncio
import os
import termios
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.modbus import ModbusRefusal, ModbusRtuSlave, crc16
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.instruments.technician import SimulatedTechnician
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]


class Memory:
    """A hundred registers."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(range(100), 0)

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers, or refuse."""
        if address + count > 100:
            raise ModbusRefusal(2)
        return [self.values[n] for n in range(address, address + count)]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take registers, or refuse."""
        if address + len(values) > 100:
            raise ModbusRefusal(2)
        self.values |= dict(enumerate(values, address))


def framed(body: bytes) -> bytes:
    """Return *body* with its checksum."""
    return body + crc16(body).to_bytes(2, "little")


def replies(slave: ModbusRtuSlave, *pieces: bytes, gap_s: float = 0.0) -> list[bytes]:
    """Return what *slave* answers to pieces that come *gap_s* apart."""
    return [
        answer.at(0.0)
        for n, piece in enumerate(pieces)
        for answer in slave.receive(piece, n * gap_s)
    ]


READ = framed(bytes.fromhex("01 03 00 05 00 02"))


@given(cut=st.integers(0, len(READ)))
@settings(max_examples=20)
def test_slave_answers_a_frame_whatever_pieces_it_comes_in(cut: int) -> None:
    """Bytes of one frame may arrive apart, within the silence that ends a frame."""
    slave = ModbusRtuSlave(1, Memory())

    assert replies(slave, READ[:cut], READ[cut:], gap_s=1e-4) == [
        framed(bytes.fromhex("01 03 04 00 00 00 00"))
    ]


def test_slave_drops_half_a_frame_after_the_silence() -> None:
    """What was cut off does not spoil the next request."""
    slave = ModbusRtuSlave(1, Memory())

    assert len(replies(slave, READ[:5], READ, gap_s=1.0)) == 1


def test_slave_answers_requests_that_come_together() -> None:
    """Two frames in one piece get two answers."""
    assert len(replies(ModbusRtuSlave(1, Memory()), READ + READ)) == 2


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("01 03 00 05 00 00", 3),
        ("01 03 00 05 00 7e", 3),
        ("01 03 00 63 00 02", 2),
        ("01 06 00 64 00 01", 2),
        ("01 10 00 05 00 02 02 00 01", 3),
        ("01 05 00 05 ff 00", 1),
        ("01 2b 0e 01 00", 1),
        ("01 08 00 01 00 00", 1),
    ],
)
def test_slave_refuses_with_the_code_of_the_specification(
    request_: str, code: int
) -> None:
    """Modbus V1.1b3 §7: the function with its high bit set, then the code."""
    frame = framed(bytes.fromhex(request_))
    (reply,) = replies(ModbusRtuSlave(1, Memory()), frame)

    assert reply == framed(bytes([1, frame[1] | 0x80, code]))


def test_slave_echoes_a_loopback() -> None:
    """Modbus V1.1b3 §6.8, sub-function 0: the request comes back."""
    frame = framed(bytes.fromhex("01 08 00 00 a5 37"))

    assert replies(ModbusRtuSlave(1, Memory()), frame) == [frame]


@given(noise=st.binary(max_size=80))
@settings(max_examples=120)
def test_slave_survives_any_bytes(noise: bytes) -> None:
    """After any noise and a silence a request is answered."""
    slave = ModbusRtuSlave(1, Memory())
    replies(slave, noise)

    assert replies(slave, b"", READ, gap_s=10.0)[-1][:3] == b"\x01\x03\x04"


class Parrot:
    """Says what it hears."""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Return the bytes that came."""
        return [Answer(data)]


def test_serial_line_takes_the_time_that_bytes_take(play: Play) -> None:
    """At 9600 baud and 10 bits a byte, ten bytes there and back take 20.8 ms."""

    async def talk() -> float:
        front = SerialFront(Parrot(), SerialLine(9600))
        fd = os.open(front.start(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        attributes = termios.tcgetattr(fd)
        attributes[4] = attributes[5] = termios.B9600
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
        loop, heard = running_loop(), asyncio.Event()
        debt = loop.debt(front.path)
        began = loop.time()

        def hear() -> None:
            debt.pay(len(os.read(fd, 100)))
            heard.set()

        loop.add_reader(fd, hear)
        debt.add(10)
        os.write(fd, b"0123456789")
        await heard.wait()
        loop.remove_reader(fd)
        os.close(fd)
        front.stop()
        return loop.time() - began

    assert play(talk()) == pytest.approx(2 * 10 * 10 / 9600)


LAB = LabFile.model_validate(
    {
        "lab": "bench",
        "schema_version": 1,
        "devices": {"operator": {"driver": "a:B"}},
        "locations": {"rack.1": {"holds": "crucible"}},
        "containers": {
            "cup": {"kind": "crucible", "at": "rack.1", "capacity_ml": 1, "tare_g": 1}
        },
    }
)


@given(noise=st.binary(max_size=60))
@settings(max_examples=60)
def test_technician_survives_any_bytes(noise: bytes) -> None:
    """Whatever is said, a technician answers politely and goes on."""
    person = SimulatedTechnician(
        "operator", LAB.devices["operator"], World(LAB, 1), "7"
    )
    for answer in person.receive(noise, 0.0):
        assert answer.at(answer.delay_s).startswith((b"done", b"refused", b"technic"))
    answers = list(person.receive(b"\nwho are you?\n", 1.0))

    assert answers[-1].at(1.0) == b"technician 7\n"
