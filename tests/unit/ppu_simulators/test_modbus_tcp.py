"""The Modbus TCP server that simulated instruments speak through."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.fronts.modbus import ModbusTcpSlave


class Registers:
    """A hundred registers that hold their own addresses."""

    def __init__(self) -> None:
        self.held = list(range(100))

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers."""
        return self.held[address : address + count]

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take values."""
        self.held[address : address + len(values)] = values


def frame(transaction: int, pdu: bytes, *, unit: int = 1, protocol: int = 0) -> bytes:
    """Return a request with its MBAP header."""
    return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1, unit) + pdu


def read(address: int, count: int = 1) -> bytes:
    """Return a request for registers, without its header."""
    return struct.pack(">BHH", 3, address, count)


def answers(slave: ModbusTcpSlave, data: bytes) -> list[bytes]:
    """Return what *slave* answers to *data*."""
    return [answer.at(0.0) for answer in slave.receive(data, 0.0)]


@given(
    addresses=st.lists(st.integers(0, 99), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 72), max_size=5),
)
@settings(max_examples=60)
def test_slave_answers_every_request_however_they_are_cut(
    addresses: list[int], cuts: list[int]
) -> None:
    """Pipelined or in pieces, requests are answered once each and in order."""
    slave = ModbusTcpSlave(1, Registers())
    sent = b"".join(frame(n + 1, read(a)) for n, a in enumerate(addresses))
    edges = sorted({0, len(sent), *(min(cut, len(sent)) for cut in cuts)})
    heard = [
        answer
        for begin, end in pairwise(edges)
        for answer in answers(slave, sent[begin:end])
    ]

    assert heard == [
        frame(n + 1, struct.pack(">BBH", 3, 2, a)) for n, a in enumerate(addresses)
    ]


@given(data=st.binary(max_size=300))
@settings(max_examples=60)
def test_slave_survives_any_bytes(data: bytes) -> None:
    """Whatever comes is answered or dropped, and nothing is kept for ever."""
    slave = ModbusTcpSlave(1, Registers())
    slave.receive(data, 0.0)

    assert len(slave._buffer) <= 260


def test_slave_is_served_in_the_order_of_the_requests() -> None:
    """Each answer of a pipeline takes its own time after the one before."""
    slave = ModbusTcpSlave(1, Registers(), response_s=0.01)
    delays = [
        a.delay_s for a in slave.receive(frame(1, read(1)) + frame(2, read(2)), 0.0)
    ]

    assert delays == pytest.approx([0.01, 0.02])


@pytest.mark.parametrize(
    ("data", "n_answers"),
    [
        (frame(1, read(5), unit=2), 0),
        (frame(1, read(5), unit=0), 1),
        (frame(1, read(5), unit=255), 1),
        (frame(1, read(5), protocol=1), 0),
        (b"\0\1\0\0\0\0\1", 0),
        (b"\0\1\0\0\xff\xff\1" + read(5), 0),
    ],
    ids=["another unit", "unit 0", "unit 255", "another protocol", "no length", "huge"],
)
def test_slave_answers_only_what_is_for_it(data: bytes, n_answers: int) -> None:
    """TCP guide V1.0b §4.4.2.1: such a frame is discarded; the next one is served."""
    slave = ModbusTcpSlave(1, Registers())

    assert len(answers(slave, data)) == n_answers
    assert len(answers(slave, frame(2, read(6)))) == 1


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        (b"\x01\0\0\0\1", 1),
        (b"\x03\0\0\0\0", 3),
        (b"\x03\0\0\0\x7e", 3),
        (b"\x03\0\0", 3),
        (b"\x10\0\0\0\2\4\0\1", 3),
        (b"\x10\0\0\0\2\2\0\1", 3),
    ],
    ids=["coils", "none", "too many", "short", "short values", "wrong count"],
)
def test_slave_refuses_what_it_does_not_do(pdu: bytes, code: int) -> None:
    """Modbus V1.1b3 §7: the exception carries the function and a code."""
    slave = ModbusTcpSlave(1, Registers())

    assert answers(slave, frame(7, pdu)) == [frame(7, bytes([pdu[0] | 0x80, code]))]


def test_slave_writes_what_functions_6_and_16_say() -> None:
    """One register is echoed; of several, address and count are."""
    registers = Registers()
    slave = ModbusTcpSlave(1, registers)
    single = b"\x06\0\5\1\2"
    several = b"\x10\0\6\0\2\4\0\7\0\x08"
    heard = answers(slave, frame(1, single) + frame(2, several))

    assert heard == [frame(1, single), frame(2, several[:5])]
    assert registers.held[5:8] == [0x0102, 7, 8]
