"""What every transport promises, whatever happens on its wire.

Each rig is a client of ours and a front in the same process, on a jumping loop. The
front answers the number it is asked for, so an answer shows which request it belongs
to.
"""

import contextlib
import struct
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from typing_extensions import override

from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
    UnencodableRequest,
)
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.testing import TransportContract, TransportRig
from ppu.testing.transports import on_rig
from ppu.transports.http import HttpClient, HttpConnection
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu_simulators.fronts.conversation import Answer, Conversation
from ppu_simulators.fronts.http import HttpAnswer, HttpFront, HttpRequest
from ppu_simulators.fronts.modbus import ModbusRefusal, ModbusRtuSlave, crc16
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.fronts.tcp import TcpFront

Play = Callable[[Coroutine[Any, Any, Any]], Any]

DEADLINE_S = 1.0
LATE_S = 1.4
FORBIDDEN = 999
"""The one number that the front refuses to answer."""


# -- what stands at the other end -----------------------------------------------------


class Numbers:
    """Answers each line with the number it asks for."""

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        return [Answer(line + b"\r\n") for line in lines]


class Registers:
    """Each register holds its own address."""

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return the addresses."""
        if address == FORBIDDEN:
            raise ModbusRefusal(2)
        return list(range(address, address + count))

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take anything."""
        if address == FORBIDDEN:
            raise ModbusRefusal(3)


class MbapSlave:
    """Modbus TCP around the registers: one frame for each segment that comes."""

    def __init__(self) -> None:
        self._registers = Registers()

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        transaction, _, _, unit, function = struct.unpack(">HHHBB", data[:8])
        address, count = struct.unpack(">HH", data[8:12])
        try:
            if function == 3:
                values = self._registers.read(address, count, time)
                pdu = struct.pack(f">BB{count}H", 3, 2 * count, *values)
            else:
                self._registers.write(address, [], time)
                pdu = data[7:12]
        except ModbusRefusal as refusal:
            pdu = bytes([function | 0x80, refusal.code])
        head = struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit)
        return [Answer(head + pdu)]


@dataclass
class Spoiler:
    """Stands between a front and its conversation and spoils the next answers."""

    conversation: Conversation
    cut: Callable[[], None]
    garbage: bytes
    plan: list[str | bytes | float] = field(default_factory=list)
    n_requests: int = 0

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        for answer in list(self.conversation.receive(data, time)):
            self.n_requests += 1
            yield from self._spoil(answer) if self.plan else [answer]

    def _break(self, time: float) -> bytes:
        """Break the wire instead of sending the rest."""
        self.cut()
        return b""

    def _spoil(self, answer: Answer) -> list[Answer]:
        fault = self.plan.pop(0)
        data = answer.at(0.0)
        wait = answer.delay_s
        if isinstance(fault, bytes):
            return [Answer(fault, wait)]
        if isinstance(fault, float):
            return [Answer(data, fault)]
        return {
            "silence": [],
            "late": [Answer(data, LATE_S)],
            "duplicate": [Answer(data * 2, wait)],
            "garbage": [Answer(self.garbage, wait)],
            "truncated": [Answer(data[: len(data) // 2], wait)],
            "in pieces": [
                Answer(bytes([byte]), wait + 0.01 * n) for n, byte in enumerate(data)
            ],
            "cut off": [
                Answer(data[: len(data) // 2], wait),
                Answer(self._break, wait + 0.1),
            ],
        }[fault]


# -- the rigs -------------------------------------------------------------------------


class ByteRig(TransportRig):
    """A rig whose wire is a stream of bytes."""

    spoiler: Spoiler

    @override
    def spoil(self, *faults: str | bytes | float) -> None:
        self.spoiler.plan += faults

    @property
    @override
    def n_requests(self) -> int:
        return self.spoiler.n_requests

    @override
    def debt(self, loop: LabTimeLoop) -> int:
        return loop.debt(self.endpoint).amount


class SerialRig(ByteRig):
    """A front on a pseudo-terminal."""

    comes_back = False
    front: SerialFront

    def listen(self, conversation: Conversation, garbage: bytes) -> SerialConnection:
        """Open the pseudo-terminal; return the connection that leads there."""
        self.spoiler = Spoiler(conversation, self._cut, garbage)
        self.front = SerialFront(self.spoiler, SerialLine(115200))
        self.endpoint = self.front.start()
        return SerialConnection(transport="serial", port=self.endpoint, baudrate=115200)

    def _cut(self) -> None:
        self.front.stop()

    @override
    async def stop_front(self) -> None:
        self.front.stop()


class TcpRig(ByteRig):
    """A front on a loopback port."""

    front: TcpFront

    async def listen(self, conversation: Conversation, garbage: bytes) -> TcpConnection:
        """Open the port; return the connection that leads there."""
        self.spoiler = Spoiler(conversation, self._cut, garbage)
        self.front = TcpFront(self.spoiler)
        host, port = await self.front.start()
        self.endpoint = f"{host}:{port}"
        return TcpConnection(transport="tcp", host=host, port=port)

    def _cut(self) -> None:
        for transport in list(self.front.connections):
            transport.abort()

    @override
    async def stop_front(self) -> None:
        await self.front.stop()


NOISE = b"\xff\xfe\r\n"


class LineMixin(ByteRig):
    """Asks in lines."""

    noise_errors = (ValueError,)  # the noise may be a line, but no number

    client: LineClient

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        (line,) = await self.client.ask(f"{number}", is_safe=is_safe)
        return int(line)


class SerialLineRig(LineMixin, SerialRig):
    """Lines on a serial port."""

    @override
    async def start(self) -> None:
        connection = self.listen(Numbers(), NOISE)
        self.client = LineClient("rig", connection, deadline_s=DEADLINE_S)
        self.link = self.client.link


class TcpLineRig(LineMixin, TcpRig):
    """Lines on a TCP stream."""

    @override
    async def start(self) -> None:
        connection = await self.listen(Numbers(), NOISE)
        self.client = LineClient("rig", connection, deadline_s=DEADLINE_S)
        self.link = self.client.link


class ModbusMixin(ByteRig):
    """Reads registers, or writes them where it must not be repeated."""

    master: ModbusMaster

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        if is_safe:
            (value,) = await self.master.read_holding(number)
            return value
        await self.master.write_registers(number, [number])
        return number


class ModbusRtuRig(ModbusMixin, SerialRig):
    """Modbus RTU on a serial port."""

    @override
    async def start(self) -> None:
        slave = ModbusRtuSlave(1, Registers(), baudrate=115200)
        connection = self.listen(slave, bytes.fromhex("01 03 02 00 07 00 00"))
        self.master = ModbusMaster("rig", connection, deadline_s=DEADLINE_S)
        self.link = self.master.link


class LiveRegisters(Registers):
    """Registers of which no two reads are the same, and a pair to probe.

    The thousands of a value tell its register, the rest counts the reads.
    """

    def __init__(self) -> None:
        self.is_alive = True
        self._n_reads = 0

    @override
    def read(self, address: int, count: int, time: float) -> list[int]:
        self._n_reads += self.is_alive
        if address == PROBED:
            return [self._n_reads, self._n_reads ^ 0xFFFF]
        return [1000 * register + self._n_reads for register in range(address, 60)][
            :count
        ]


PROBED = 50


class ProbedRig(ModbusMixin, SerialRig):
    """Modbus RTU with live values, and a master that has a probe."""

    @override
    async def start(self) -> None:
        self.registers = LiveRegisters()
        slave = ModbusRtuSlave(1, self.registers, baudrate=115200)
        connection = self.listen(slave, bytes.fromhex("01 03 02 00 07 00 00"))
        self.master = ModbusMaster(
            "rig",
            connection,
            deadline_s=DEADLINE_S,
            probe=Probe(PROBED, 2, lambda words: words[0] ^ words[1] == 0xFFFF),
        )
        self.link = self.master.link


class ModbusTcpRig(ModbusMixin, TcpRig):
    """Modbus TCP."""

    @override
    async def start(self) -> None:
        wrong_function = bytes.fromhex("00 00 00 00 00 05 01 04 02 00 07")
        connection = await self.listen(MbapSlave(), wrong_function)
        self.master = ModbusMaster("rig", connection, deadline_s=DEADLINE_S)
        self.link = self.master.link


class HttpRig(TransportRig):
    """JSON over HTTP."""

    is_byte_stream = False

    def __init__(self) -> None:
        self.plan: list[str | bytes | float] = []
        self._n_requests = 0

    @override
    async def start(self) -> None:
        self.front = HttpFront(self)
        self.endpoint = await self.front.start()
        connection = HttpConnection(transport="http", url=self.endpoint)
        self.client = HttpClient("rig", connection, deadline_s=DEADLINE_S)
        self.link = self.client

    @override
    async def stop_front(self) -> None:
        await self.front.stop()

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Answer with the number at the end of the path."""
        self._n_requests += 1
        number = int(request.path.rpartition("/")[2])
        body: Any = {"number": number}
        if number == FORBIDDEN:
            return HttpAnswer(body, status=500)
        fault = self.plan.pop(0) if self.plan else None
        if fault == "silence":
            return None
        if isinstance(fault, bytes):
            return HttpAnswer(fault)
        if isinstance(fault, float):
            return HttpAnswer(body, delay_s=fault)
        return {
            None: HttpAnswer(body),
            "late": HttpAnswer(body, delay_s=LATE_S),
            "garbage": HttpAnswer(b"\xff<html>"),
            "truncated": HttpAnswer(b'{"number": 1'),
            "cut off": HttpAnswer(body, is_cut_off=True),
        }[fault]

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        if is_safe:
            found = await self.client.get(f"/{number}")
        else:
            found = await self.client.post(f"/{number}", {"number": number})
        return int(found["number"])

    @override
    def spoil(self, *faults: str | bytes | float) -> None:
        self.plan += faults

    @property
    @override
    def n_requests(self) -> int:
        return self._n_requests

    @override
    def debt(self, loop: LabTimeLoop) -> int:
        return loop.debt(self.endpoint).amount


class SerialLineInMemory(SerialLineRig):
    """Lines on a serial port in memory."""

    @override
    async def start(self) -> None:
        listen_in_memory()
        await super().start()


class TcpLineInMemory(TcpLineRig):
    """Lines on a stream in memory."""

    @override
    async def start(self) -> None:
        listen_in_memory()
        await super().start()


class ModbusRtuInMemory(ModbusRtuRig):
    """Modbus RTU on a serial port in memory."""

    @override
    async def start(self) -> None:
        listen_in_memory()
        await super().start()


class ModbusTcpInMemory(ModbusTcpRig):
    """Modbus TCP in memory."""

    @override
    async def start(self) -> None:
        listen_in_memory()
        await super().start()


class HttpInMemory(HttpRig):
    """JSON over HTTP in memory."""

    @override
    async def start(self) -> None:
        listen_in_memory()
        await super().start()


def listen_in_memory() -> None:
    """Let fronts that start on this loop listen in memory."""
    running_loop().switchboard.is_asked_for = True


def with_crc(frame: str) -> bytes:
    """Return a Modbus RTU frame with its checksum."""
    body = bytes.fromhex(frame)
    return body + crc16(body).to_bytes(2, "little")


# -- the contract ---------------------------------------------------------------------


class TestSerialLines(TransportContract):
    """Lines on a serial port."""

    rig = SerialLineRig


class TestTcpLines(TransportContract):
    """Lines on a TCP stream."""

    rig = TcpLineRig


class TestModbusRtu(TransportContract):
    """Modbus RTU on a serial port."""

    rig = ModbusRtuRig


class TestModbusTcp(TransportContract):
    """Modbus TCP."""

    rig = ModbusTcpRig


class TestHttp(TransportContract):
    """JSON over HTTP."""

    rig = HttpRig


class TestSerialLinesInMemory(TransportContract):
    """Lines on a serial port in memory."""

    rig = SerialLineInMemory


class TestTcpLinesInMemory(TransportContract):
    """Lines on a stream in memory."""

    rig = TcpLineInMemory


class TestModbusRtuInMemory(TransportContract):
    """Modbus RTU in memory."""

    rig = ModbusRtuInMemory


class TestModbusTcpInMemory(TransportContract):
    """Modbus TCP in memory."""

    rig = ModbusTcpInMemory


class TestHttpInMemory(TransportContract):
    """JSON over HTTP in memory."""

    rig = HttpInMemory


# -- what some of them promise --------------------------------------------------------


@pytest.mark.parametrize("make", [ModbusRtuRig, ModbusTcpRig])
def test_refusal_carries_the_code_when_a_unit_refuses(
    play: Play, make: type[TransportRig]
) -> None:
    """A Modbus exception is an answer: told with its code, not retried."""

    async def scenario(rig: TransportRig) -> None:
        with pytest.raises(InstrumentError, match="illegal data address") as reading:
            await rig.ask(FORBIDDEN)
        with pytest.raises(InstrumentError, match="illegal data value") as writing:
            await rig.ask(FORBIDDEN, is_safe=False)
        assert (reading.value.code, writing.value.code) == (2, 3)
        assert rig.n_requests == 2

    play(on_rig(make, scenario))


def test_http_error_status_is_no_answer(play: Play) -> None:
    """A server that fails is named with its status."""

    async def scenario(rig: TransportRig) -> None:
        with pytest.raises(MalformedReply, match="HTTP status 500"):
            await rig.ask(FORBIDDEN, is_safe=False)

    play(on_rig(HttpRig, scenario))


@pytest.mark.parametrize("make", [SerialLineRig, SerialLineInMemory])
def test_serial_port_is_refused_when_another_program_has_it(
    play: Play, make: type[SerialLineRig]
) -> None:
    """Two programs on one port would answer each other's requests."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, SerialLineRig)
        await rig.ask(1)
        second = LineClient("second", rig.client.link.connection)  # type: ignore[attr-defined]  # a SerialLink
        with pytest.raises(ConnectError, match="another program has it open"):
            await second.ask("2")

    play(on_rig(make, scenario))


@pytest.mark.parametrize("answered", ["other unit", "other function", "too many"])
def test_modbus_refuses_an_answer_that_cannot_belong_to_its_request(
    play: Play, answered: str
) -> None:
    """Unit, function and register count of a reply must be those of the request."""
    frames = {
        "other unit": "02 03 02 00 07",
        "other function": "01 04 02 00 07",
        "too many": "01 03 04 00 07 00 08",
    }

    async def scenario(rig: TransportRig) -> None:
        rig.spoil(with_crc(frames[answered]))
        assert await rig.ask(5) == 5
        assert rig.link.statistics().n_malformed == 1

    play(on_rig(ModbusRtuRig, scenario))


def test_timeout_tells_the_bytes_that_came_when_their_checksum_is_wrong(
    play: Play,
) -> None:
    """What was heard is part of the error, even if it could not be used."""

    async def scenario(rig: TransportRig) -> None:
        rig.spoil("garbage")
        with pytest.raises(ReplyTimeout, match="received 01 03 02 00 07 00 00"):
            await rig.ask(5, is_safe=False)

    play(on_rig(ModbusRtuRig, scenario))


def test_write_is_refused_when_another_one_is_acknowledged(play: Play) -> None:
    """An acknowledgement names register and count; another write's is no proof."""

    async def scenario(rig: TransportRig) -> None:
        rig.spoil(with_crc("01 10 00 08 00 01"))
        with pytest.raises(MalformedReply, match="asked were 1 at 5"):
            await rig.ask(5, is_safe=False)

    play(on_rig(ModbusRtuRig, scenario))


def test_live_values_are_read_after_a_time_out_when_there_is_a_probe(
    play: Play,
) -> None:
    """What is never the same twice need not agree; the probe shows it is in step."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, ProbedRig)
        rig.spoil("silence")
        first = await rig.ask(5)
        second = await rig.ask(5)
        assert (first // 1000, second // 1000) == (5, 5)
        assert first != second
        assert rig.link.statistics().n_timeouts == 1
        n_requests = rig.n_requests
        await rig.ask(5)
        assert rig.n_requests == n_requests + 1

    play(on_rig(ProbedRig, scenario))


def test_live_values_are_read_after_a_time_out_when_no_other_answer_follows(
    play: Play,
) -> None:
    """Without a probe the link listens whether a late reply follows."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, ProbedRig)
        rig.master._probe = None
        rig.link.expects_late_replies = True  # type: ignore[attr-defined]  # a byte link
        rig.spoil("silence")
        assert await rig.ask(5) // 1000 == 5
        rig.spoil(1.5, 0.5)
        for number in (6, 7, 8):
            with contextlib.suppress(ReplyTimeout, MalformedReply):
                assert await rig.ask(number) // 1000 == number
        assert await rig.ask(9) // 1000 == 9

    play(on_rig(ProbedRig, scenario))


@pytest.mark.parametrize("is_alive", [True, False])
@pytest.mark.parametrize(
    "delays_s",
    [
        ["silence", "silence", 2.5],
        ["silence", "silence", 2.5, 0.6, 0.6, 0.6],
        ["silence", 4.5, 2.55, 0.6, 0.6, 0.6],
        ["silence", 4.5, 2.55, 0.6, 0.6, 0.6, 1.5, 1.5],
    ],
    ids=["one", "one and a slow unit", "two that agree", "two and a slower unit"],
)
def test_late_replies_are_never_taken_for_the_answer_when_there_is_a_probe(
    play: Play, delays_s: list[str | float], is_alive: bool
) -> None:
    """However late replies come, and if several agree: no other register's value."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, ProbedRig)
        rig.registers.is_alive = is_alive
        rig.spoil(*delays_s)
        with pytest.raises(ReplyTimeout):
            await rig.ask(5)
        answers = {}
        for number in (6, 7, 8, 9, 10, 11):
            with contextlib.suppress(ReplyTimeout):
                answers[number] = await rig.ask(number)
        assert all(answer // 1000 == number for number, answer in answers.items())
        assert {10, 11} <= answers.keys()

    play(on_rig(ProbedRig, scenario))


def test_read_is_given_up_when_the_probe_never_fits(play: Play) -> None:
    """A unit that does not get in step is told, and nothing it says is believed."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, ProbedRig)
        rig.master._probe = Probe(PROBED, 2, lambda words: False)
        rig.spoil("silence")
        assert await rig.ask(5) // 1000 == 5  # it is the second try of the same
        with pytest.raises(LinkBroken, match="do not fit the requests"):
            await rig.ask(5)

    play(on_rig(ProbedRig, scenario))


def test_line_client_refuses_what_is_not_ascii(play: Play) -> None:
    """What the wire cannot carry is refused before it is sent."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, TcpLineRig)
        with pytest.raises(UnencodableRequest, match="only ASCII"):
            await rig.client.ask("temperature: 20 °C")
        assert rig.n_requests == 0

    play(on_rig(TcpLineRig, scenario))


def test_line_client_gives_up_when_a_line_never_ends(play: Play) -> None:
    """A flood without an end does not fill the memory."""

    async def scenario(rig: TransportRig) -> None:
        rig.spoil(b"x" * 70_000)
        with pytest.raises(MalformedReply, match="more than 65536 bytes"):
            await rig.ask(5, is_safe=False)

    play(on_rig(TcpLineRig, scenario))


def test_line_client_collects_lines_until_the_last(play: Play) -> None:
    """An answer of several lines ends where the instrument's manual says so."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, TcpLineRig)
        rig.spoil(b"B 1\r\nB 2\r\nA 3\r\n")
        lines = await rig.client.ask("list", is_last=lambda line: line[0] == "A")
        assert lines == ["B 1", "B 2", "A 3"]

    play(on_rig(TcpLineRig, scenario))


def test_what_follows_an_answer_to_an_earlier_probe_is_not_believed(play: Play) -> None:
    """Where answers change places, it may be that of another request."""

    async def scenario(rig: TransportRig) -> None:
        assert isinstance(rig, TcpLineRig)
        rig.client.probe = LineProbe("999", lambda line: line == "999")
        rig.spoil(b"999\r\n5\r\n")
        assert await rig.ask(6) == 6
        assert rig.n_requests == 2
        # What must not be repeated is better answered by anybody.
        rig.client.link.was_late = False
        rig.spoil(b"999\r\n7\r\n")
        assert await rig.ask(7, is_safe=False) == 7
        assert rig.n_requests == 3

    play(on_rig(TcpLineRig, scenario))
