"""A Modbus RTU slave as a conversation, written from the Modbus specification.

Modbus over serial line specification and implementation guide V1.02; Modbus
application protocol specification V1.1b3. It shares nothing with the driver's side.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Protocol

from ppu_simulators.fronts.conversation import Answer

__all__ = ["ModbusRefusal", "ModbusRtuSlave", "RegisterMap", "crc16"]

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3


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
        try:
            payload = self._execute(function, frame[2:-2], time)
        except ModbusRefusal as refusal:
            payload = bytes([function | 0x80, refusal.code])
        if unit == 0:
            return None  # broadcasts are obeyed, not answered
        body = bytes([unit]) + payload
        return body + crc16(body).to_bytes(2, "little")

    def _execute(self, function: int, body: bytes, time: float) -> bytes:
        if function in (3, 4):
            address, count = struct.unpack(">HH", body)
            if not 1 <= count <= 125:
                raise ModbusRefusal(ILLEGAL_VALUE)
            values = self._registers.read(address, count, time)
            return struct.pack(f">BB{count}H", function, 2 * count, *values)
        if function == 6:
            address, value = struct.unpack(">HH", body)
            self._registers.write(address, [value], time)
            return bytes([function]) + body
        if function == 8:
            if body[:2] != b"\0\0":
                raise ModbusRefusal(ILLEGAL_FUNCTION)
            return bytes([function]) + body
        if function == 16:
            address, count, n_bytes = struct.unpack(">HHB", body[:5])
            if not 1 <= count <= 123 or n_bytes != 2 * count:
                raise ModbusRefusal(ILLEGAL_VALUE)
            self._registers.write(
                address, list(struct.unpack(f">{count}H", body[5:])), time
            )
            return struct.pack(">BHH", function, address, count)
        raise ModbusRefusal(ILLEGAL_FUNCTION)
