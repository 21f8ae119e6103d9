"""Modbus slaves, RTU and TCP, as conversations, written from the specifications.

Modbus over serial line specification and implementation guide V1.02; Modbus messaging
on TCP/IP implementation guide V1.0b; Modbus application protocol specification V1.1b3.
They share nothing with the driver's side.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import ClassVar, Final, Protocol

from ppu_simulators.fronts.conversation import Answer

__all__ = [
    "ModbusRefusal",
    "ModbusRtuSlave",
    "ModbusTcpSlave",
    "RegisterMap",
    "crc16",
]

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3

_MBAP_BYTES: Final = 7
_LONGEST_PDU: Final = 253
_ANY_UNIT: Final = frozenset({0, 255})


class ModbusRefusal(Exception):  # noqa: N818 - a refusal is an answer
    """The slave answers with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class RegisterMap(Protocol):
    """The holding registers of an instrument."""

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return *count* registers; raises ModbusRefusal."""

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take *values*; raises ModbusRefusal."""


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return value


_CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def crc16(data: bytes) -> int:
    """Return the Modbus CRC of *data*; it is sent low byte first.

    Example:
        >>> hex(crc16(bytes.fromhex("0207")))
        '0x1241'
    """
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


class ModbusRtuSlave:
    """One unit on a serial line.

    Args:
        unit: Its address, 1 to 247.
        registers: Its holding registers.
        baudrate: Line speed, for the silence that ends a frame.
        response_s: How long it thinks before it answers.
    """

    framing: ClassVar[str] = "modbus rtu"

    def __init__(
        self,
        unit: int,
        registers: RegisterMap,
        *,
        baudrate: int = 9600,
        response_s: float = 0.005,
    ) -> None:
        self.unit = unit
        self._registers = registers
        self._silence_s = 3.5 * 11 / min(baudrate, 19200)
        self._response_s = response_s
        self._buffer = b""
        self._last_byte_s = 0.0

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the frames they complete."""
        if self._buffer and time - self._last_byte_s > self._silence_s:
            self._buffer = b""  # an unfinished frame is dropped after the silence
        self._last_byte_s = time
        self._buffer += data
        answers: list[Answer] = []
        while True:
            length = self._frame_length()
            if length is None or len(self._buffer) < length:
                return answers
            frame, self._buffer = self._buffer[:length], self._buffer[length:]
            reply = self._answer(frame, time)
            if reply is not None:
                answers.append(Answer(reply, self._response_s))

    def _frame_length(self) -> int | None:
        """Return the length of the request at the front of the buffer, if known."""
        if len(self._buffer) < 2:
            return None
        function = self._buffer[1]
        if function in (1, 2, 3, 4, 5, 6, 8):
            return 8
        if function in (15, 16):
            return None if len(self._buffer) < 7 else 9 + self._buffer[6]
        return len(self._buffer)  # unknown: whatever came before the silence

    def _answer(self, frame: bytes, time: float) -> bytes | None:
        """Return the reply frame, or None to stay silent."""
        if len(frame) < 4 or crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
            return None
        unit, function = frame[0], frame[1]
        if unit not in (0, self.unit):
            return None
        payload = _answer_to(self._registers, function, frame[2:-2], time)
        if unit == 0:
            return None  # broadcasts are obeyed, not answered
        body = bytes([unit]) + payload
        return body + crc16(body).to_bytes(2, "little")


class ModbusTcpSlave:
    """A server for one client; each client has its own, on the same registers.

    Requests may come in pieces or several at once; they are answered one after the
    other. A frame of another protocol is discarded, and so is one for another unit;
    units 0 and 255 mean whoever listens here (TCP guide V1.0b, sections 3.1.3 and
    4.4.2.1). A length that no request has leaves nothing to hold on to: what was
    received by then is dropped.

    Args:
        unit: Its unit identifier.
        registers: Its holding registers.
        response_s: How long it thinks about each request.
    """

    framing: ClassVar[str] = "modbus tcp"

    def __init__(
        self, unit: int, registers: RegisterMap, *, response_s: float = 0.005
    ) -> None:
        self.unit = unit
        self._registers = registers
        self._response_s = response_s
        self._buffer = b""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the frames they complete."""
        self._buffer += data
        answers: list[Answer] = []
        while len(self._buffer) >= _MBAP_BYTES:
            transaction, protocol, length, unit = struct.unpack(
                ">HHHB", self._buffer[:_MBAP_BYTES]
            )
            if not 2 <= length <= _LONGEST_PDU + 1:
                self._buffer = b""
                break
            end = _MBAP_BYTES - 1 + length
            if len(self._buffer) < end:
                break
            pdu, self._buffer = self._buffer[_MBAP_BYTES:end], self._buffer[end:]
            if protocol != 0 or unit not in (self.unit, *_ANY_UNIT):
                continue
            reply = _answer_to(self._registers, pdu[0], pdu[1:], time)
            head = struct.pack(">HHHB", transaction, 0, 1 + len(reply), unit)
            delay_s = self._response_s * (len(answers) + 1)
            answers.append(Answer(head + reply, delay_s))
        return answers


def _answer_to(
    registers: RegisterMap, function: int, body: bytes, time: float
) -> bytes:
    """Return function code and data of the answer, an exception included."""
    try:
        return _execute(registers, function, body, time)
    except ModbusRefusal as refusal:
        return bytes([function | 0x80, refusal.code])


def _execute(registers: RegisterMap, function: int, body: bytes, time: float) -> bytes:
    if len(body) != _body_bytes(function, body):
        # What is counted wrong is a request that says something else than it means.
        raise ModbusRefusal(ILLEGAL_VALUE)
    if function in (3, 4):
        address, count = struct.unpack(">HH", body)
        if not 1 <= count <= 125:
            raise ModbusRefusal(ILLEGAL_VALUE)
        values = registers.read(address, count, time)
        return struct.pack(f">BB{count}H", function, 2 * count, *values)
    if function == 6:
        address, value = struct.unpack(">HH", body)
        registers.write(address, [value], time)
        return bytes([function]) + body
    if function == 8:
        if body[:2] != b"\0\0":
            raise ModbusRefusal(ILLEGAL_FUNCTION)
        return bytes([function]) + body
    if function == 16:
        address, count, n_bytes = struct.unpack(">HHB", body[:5])
        if not 1 <= count <= 123 or n_bytes != 2 * count:
            raise ModbusRefusal(ILLEGAL_VALUE)
        registers.write(address, list(struct.unpack(f">{count}H", body[5:])), time)
        return struct.pack(">BHH", function, address, count)
    raise ModbusRefusal(ILLEGAL_FUNCTION)


def _body_bytes(function: int, body: bytes) -> int:
    """Return how much data a request of *function* has."""
    if function in (3, 4, 6):
        return 4
    if function == 16:
        return 5 + (body[4] if len(body) > 4 else 0)
    return len(body)
