"""Modbus masters, RTU and TCP, on a byte link.

pymodbus builds and parses the frames; the link moves them. pymodbus's own client is
not used: it repeats writes, takes late RTU replies for the next answer, and its
transport cannot be held while a jumping loop has bytes under way
(docs/decisions/0004).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.transports.confirm import confirm
from ppu.transports.in_step import InStep
from ppu.transports.link import Allowance, ByteLink
from ppu.transports.serial import SerialConnection, SerialLink
from ppu.transports.tcp import TcpConnection, TcpLink

__all__ = ["ModbusMaster", "Probe"]

_EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    10: "gateway path unavailable",
    11: "gateway target did not answer",
}


def _meaning(request: ModbusPDU, reply: ModbusPDU) -> str:
    """Return an exchange in words, for people who watch the wire."""
    where = f"unit {request.dev_id}, register {request.address}"
    if isinstance(reply, ExceptionResponse):
        code = reply.exception_code
        return f"{where}: refused: {_EXCEPTIONS.get(code, 'unknown')} ({code})"
    if request.function_code == ReadHoldingRegistersRequest.function_code:
        return f"{where}: read {', '.join(map(str, reply.registers))}"
    return f"{where}: wrote {', '.join(map(str, request.registers))}"


@dataclass(frozen=True)
class Probe:
    """Registers whose content shows that an answer is theirs and nobody else's.

    Args:
        address: First register.
        count: How many; best a number that no other read has.
        is_own: Whether an answer can be theirs.
    """

    address: int
    count: int
    is_own: Callable[[list[int]], bool]


class ModbusMaster:
    """Reads and writes the holding registers of one unit.

    Args:
        device: Name of the device, for errors.
        connection: Serial line (RTU) or TCP address.
        deadline_s: Real-world time for one exchange [s].
        slowest_reply_s: Longest reply time known of this instrument [s].
        probe: What to read after a time-out to see that answers fit again; without
            one, the first answer after a time-out is only believed if no other
            follows, which takes longer and may fail. Modbus TCP numbers its requests
            and needs none.
    """

    def __init__(
        self,
        device: str,
        connection: SerialConnection | TcpConnection,
        *,
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.device = device
        self._probe = probe
        self.unit = connection.unit
        self._framer: FramerRTU | FramerSocket
        self.link: ByteLink
        if isinstance(connection, SerialConnection):
            self._framer = FramerRTU(DecodePDU(False))
            self.link = SerialLink(
                device,
                connection,
                deadline_s=deadline_s,
                slowest_reply_s=slowest_reply_s,
            )
            self._has_transaction_ids = False
            self.link.expects_late_replies = probe is None
        else:
            self._framer = FramerSocket(DecodePDU(False))
            self.link = TcpLink(
                device,
                connection,
                deadline_s=deadline_s,
                slowest_reply_s=slowest_reply_s,
            )
            self._has_transaction_ids = True
        self._transaction = 0
        self._in_step = InStep(self.link)

    async def read_holding(self, address: int, count: int = 1) -> list[int]:
        """Return *count* holding registers from *address* on, unsigned 16 bit.

        RTU replies carry no sign of the request they belong to. So after a time-out
        the probe is read before, until its answer is its own. All of it takes at most
        twice the deadline (see :class:`~ppu.transports.link.Link`).

        Raises:
            InstrumentError: The unit answered with an exception code.
            TransportError: No usable answer.
            MalformedReply: The answers do not fit the request.
        """
        return await self._read(address, count, self.link.allowance())

    async def read_confirmed(
        self,
        address: int,
        count: int = 1,
        *,
        agree: Callable[[list[int], list[int]], bool] = operator.eq,
    ) -> list[int]:
        """Read until three answers in a row agree, for values that are acted upon.

        An RTU frame has a checksum, so there it is read once. A TCP frame has none of
        its own. All of it takes at most twice the deadline.

        Args:
            address: First register.
            count: How many.
            agree: Whether two answers say the same; see
                :func:`~ppu.transports.confirm.confirm`.

        Raises:
            InstrumentError: The unit answered with an exception code.
            TransportError: No usable answer.
            MalformedReply: The answers keep differing.
        """
        allowance = self.link.allowance()
        if not self._has_transaction_ids:
            return await self._read(address, count, allowance)
        return await confirm(
            self.device, lambda: self._read(address, count, allowance), list, agree
        )

    async def _read(self, address: int, count: int, allowance: Allowance) -> list[int]:
        if self._has_transaction_ids:
            return await self._read_once(address, count, allowance)
        if self._probe is not None:
            return await self._read_in_step(self._probe, address, count, allowance)
        return await self._read_once(address, count, allowance)

    async def _read_in_step(
        self, probe: Probe, address: int, count: int, allowance: Allowance
    ) -> list[int]:
        """Read registers when nothing late can be taken for them."""
        if self.link.was_late:
            await self._get_in_step(probe, allowance)
        # If it takes two attempts, the answer to either is one to this question; the
        # other may still come, so the next call gets in step first.
        registers = await self._read_once(address, count, allowance)
        self._in_step.note_answer()
        return registers

    async def _get_in_step(self, probe: Probe, allowance: Allowance) -> None:
        """Read the probe until its answer shows that nothing late is to come."""

        async def ask() -> bool:
            found = await self._read_once(probe.address, probe.count, allowance)
            return probe.is_own(found)

        await self._in_step.regain(ask)

    async def _read_once(
        self, address: int, count: int, allowance: Allowance
    ) -> list[int]:
        reply = await self._execute(
            ReadHoldingRegistersRequest(address=address, count=count, dev_id=self.unit),
            n_registers=count,
            is_safe=True,
            allowance=allowance,
        )
        return list(reply.registers)

    async def write_registers(self, address: int, values: Sequence[int]) -> None:
        """Write holding registers (function 16) from *address* on; never repeated.

        Raises:
            InstrumentError: The unit answered with an exception code.
            TransportError: No usable answer; whether it was written is unknown.
        """
        reply = await self._write(
            WriteMultipleRegistersRequest(
                address=address,
                registers=[value & 0xFFFF for value in values],
                dev_id=self.unit,
            )
        )
        if (reply.address, reply.count) != (address, len(values)):
            raise MalformedReply(
                f"{self.device}: acknowledged a write of {reply.count} registers at "
                f"{reply.address}, asked were {len(values)} at {address}"
            )

    async def write_register(self, address: int, value: int) -> None:
        """Write one holding register (function 6); never repeated.

        Raises:
            InstrumentError: The unit answered with an exception code.
            MalformedReply: The answer is not the echo of the request.
            TransportError: No usable answer; whether it was written is unknown.
        """
        wanted = value & 0xFFFF
        reply = await self._write(
            WriteSingleRegisterRequest(
                address=address, registers=[wanted], dev_id=self.unit
            )
        )
        if (reply.address, list(reply.registers)) != (address, [wanted]):
            raise MalformedReply(
                f"{self.device}: acknowledged a write of {reply.registers} at "
                f"{reply.address}, asked was {wanted} at {address}"
            )

    async def _write(self, request: ModbusPDU) -> ModbusPDU:
        self.link.check_change()
        allowance = self.link.allowance()
        if self._probe is not None and self.link.was_late:
            # An old write of the same would be acknowledged with the same words.
            await self._get_in_step(self._probe, allowance)
        return await self._execute(
            request, n_registers=None, is_safe=False, allowance=allowance
        )

    async def _execute(
        self,
        request: ModbusPDU,
        *,
        n_registers: int | None,
        is_safe: bool,
        allowance: Allowance,
    ) -> ModbusPDU:
        def build() -> bytes:
            if self._has_transaction_ids:
                self._transaction = self._transaction % 65535 + 1
                request.transaction_id = self._transaction
            return self._framer.buildFrame(request)

        def decode(buffer: bytearray) -> ModbusPDU | None:
            try:
                n_used, reply = self._framer.handleFrame(
                    bytes(buffer), 0, request.transaction_id
                )
            except ModbusException as exc:
                raise MalformedReply(f"not a Modbus reply: {exc}") from exc
            del buffer[:n_used]
            if reply is not None:
                self._check(request, reply, n_registers)
            return reply

        reply: ModbusPDU = await self.link.exchange(
            build(),
            decode,
            is_safe=is_safe,
            describe=partial(_meaning, request),
            allowance=allowance,
        )
        if isinstance(reply, ExceptionResponse):
            code = reply.exception_code
            if self._probe is not None and not self._has_transaction_ids:
                # A refusal has no length that would tell it from that of a probe.
                self.link.was_late = True
            raise InstrumentError(
                f"{self.device}: refused function {request.function_code} at register "
                f"{request.address}: {_EXCEPTIONS.get(code, 'unknown')} (code {code})",
                code,
            )
        return reply

    def _check(
        self, request: ModbusPDU, reply: ModbusPDU, n_registers: int | None
    ) -> None:
        """Refuse a reply that cannot belong to *request*."""
        if reply.dev_id != request.dev_id:
            raise MalformedReply(
                f"unit {reply.dev_id} answered a request to unit {request.dev_id}"
            )
        if reply.function_code & 0x7F != request.function_code:
            raise MalformedReply(
                f"function {reply.function_code} answered a request of function "
                f"{request.function_code}"
            )
        if isinstance(reply, ExceptionResponse) or n_registers is None:
            return
        if len(reply.registers) != n_registers:
            raise MalformedReply(
                f"{len(reply.registers)} registers answered a request for {n_registers}"
            )
