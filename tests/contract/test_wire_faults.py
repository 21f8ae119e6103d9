"""What every link makes of every fault that its wire can have.

Each rig is a client of ours and a front with faults in the same process, on a jumping
loop. The front answers the number it is asked for, so a wrong value would show.
"""

import asyncio
import gc
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from ppu.core.errors import InstrumentError, MalformedReply, TransportError
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.transports.http import HttpClient, HttpConnection
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.link import Link
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.http import HttpAnswer, HttpFront, HttpRequest
from ppu_simulators.fronts.modbus import ModbusRtuSlave, ModbusTcpSlave
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.fronts.tcp import TcpFront

Play = Callable[[Coroutine[Any, Any, Any]], Any]
BAUDRATE = 115200
PROBE = LineProbe("probe", lambda line: line == "probe")
LATE_S = 3.0
"""How late delayed answers are if a script does not say."""


class Numbers:
    """Answers each line with the number it asks for."""

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        return [Answer(line + b"\r\n", 0.002) for line in lines]


class Registers:
    """Each register holds its own address."""

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return the addresses."""
        return list(range(address, address + count))

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take anything."""


class Rig(ABC):
    """A client, a front, and what may go wrong between them."""

    link: Link
    is_in_memory: ClassVar[bool] = False

    def __init__(self, seed: int = 0) -> None:
        self.faults = Faults("rig", [], {}, np.random.default_rng(seed))

    @abstractmethod
    async def start(self) -> None:
        """Let the front listen, and make the client; it is not connected."""

    @abstractmethod
    async def stop_front(self) -> None:
        """Stop listening."""

    @abstractmethod
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        """Return the number that came back."""

    def inject(self, **entry: Any) -> None:
        """Let something go wrong from now on."""
        self.faults.inject(entry, running_loop().time())


class LineRig(Rig):
    """Lines of text."""

    client: LineClient
    probe: LineProbe | None = PROBE

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        (line,) = await self.client.ask(f"{number:06}", is_safe=is_safe)
        if not (len(line) == 6 and line.isdigit()):
            raise MalformedReply(f"no number: {line}")
        return int(line)


class SerialLineRig(LineRig):
    """Lines on a serial port."""

    @override
    async def start(self) -> None:
        self.front = SerialFront(Numbers(), SerialLine(BAUDRATE), faults=self.faults)
        connection = serial_connection(self.front)
        self.client = LineClient("rig", connection, probe=self.probe)
        self.link = self.client.link

    @override
    async def stop_front(self) -> None:
        self.front.stop()


class TcpLineRig(LineRig):
    """Lines on a TCP stream."""

    @override
    async def start(self) -> None:
        self.front = TcpFront(Numbers, faults=self.faults)
        connection = await tcp_connection(self.front)
        self.client = LineClient("rig", connection, probe=self.probe)
        self.link = self.client.link

    @override
    async def stop_front(self) -> None:
        await self.front.stop()


class UnprobedSerialLineRig(SerialLineRig):
    """Lines on a serial port, without a probe."""

    probe = None


class UnprobedTcpLineRig(TcpLineRig):
    """Lines on a TCP stream, without a probe."""

    probe = None


class ModbusRig(Rig):
    """Reads registers, or writes them where it must not be repeated."""

    master: ModbusMaster

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        if is_safe:
            (value,) = await self.master.read_holding(number)
            return value
        await self.master.write_registers(number, [number])
        return number


class ModbusRtuRig(ModbusRig):
    """Modbus RTU on a serial port."""

    @override
    async def start(self) -> None:
        slave = ModbusRtuSlave(1, Registers(), baudrate=BAUDRATE)
        self.front = SerialFront(slave, SerialLine(BAUDRATE), faults=self.faults)
        self.master = ModbusMaster(
            "rig",
            serial_connection(self.front),
            probe=Probe(9000, 2, lambda words: words == [9000, 9001]),
        )
        self.link = self.master.link

    @override
    async def stop_front(self) -> None:
        self.front.stop()


class ModbusTcpRig(ModbusRig):
    """Modbus TCP."""

    @override
    async def start(self) -> None:
        self.front = TcpFront(
            lambda: ModbusTcpSlave(1, Registers()), faults=self.faults
        )
        self.master = ModbusMaster("rig", await tcp_connection(self.front))
        self.link = self.master.link

    @override
    async def stop_front(self) -> None:
        await self.front.stop()


class HttpRig(Rig):
    """JSON over HTTP."""

    @override
    async def start(self) -> None:
        self.front = HttpFront(self, faults=self.faults)
        connection = HttpConnection(transport="http", url=await self.front.start())
        self.link = self.client = HttpClient("rig", connection, deadline_s=1.0)

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Answer with the number at the end of the path."""
        number = int(request.path.rpartition("/")[2])
        return HttpAnswer({"number": number, "note": "as asked"}, delay_s=0.002)

    @override
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        if is_safe:
            found = await self.client.get(f"/{number}")
        else:
            found = await self.client.post(f"/{number}", {"number": number})
        if not isinstance(found.get("number"), int):
            raise MalformedReply(f"no number: {found}")
        return int(found["number"])

    @override
    async def stop_front(self) -> None:
        await self.front.stop()


class SerialLineInMemory(SerialLineRig):
    """The same without a pseudo-terminal."""

    is_in_memory = True


class TcpLineInMemory(TcpLineRig):
    """The same without a socket."""

    is_in_memory = True


class ModbusRtuInMemory(ModbusRtuRig):
    """The same without a pseudo-terminal."""

    is_in_memory = True


class ModbusTcpInMemory(ModbusTcpRig):
    """The same without a socket."""

    is_in_memory = True


class HttpInMemory(HttpRig):
    """The same without a socket."""

    is_in_memory = True


def serial_connection(front: SerialFront) -> SerialConnection:
    """Open the port of *front*; return the connection that leads there."""
    return SerialConnection(transport="serial", port=front.start(), baudrate=BAUDRATE)


async def tcp_connection(front: TcpFront) -> TcpConnection:
    """Open the port of *front*; return the connection that leads there."""
    host, port = await front.start()
    return TcpConnection(transport="tcp", host=host, port=port)


PAIRS: list[tuple[type[Rig], type[Rig]]] = [
    (SerialLineRig, SerialLineInMemory),
    (TcpLineRig, TcpLineInMemory),
    (ModbusRtuRig, ModbusRtuInMemory),
    (ModbusTcpRig, ModbusTcpInMemory),
    (HttpRig, HttpInMemory),
]
RIGS = [rig for pair in PAIRS for rig in pair]
EVERYWHERE = (
    "drop",
    "delay",
    "duplicate",
    "reorder",
    "truncate",
    "corrupt visibly",
    "garbage",
    "flood",
    "half-open",
    "reset",
    "stuck busy",
    "refuse",
    "unplug",
)
CASES = [
    *((rig, fault) for rig in RIGS for fault in EVERYWHERE),
    *((rig, "wrong unit") for rig in RIGS if issubclass(rig, ModbusRig)),
    *((rig, "wrong transaction id") for rig in RIGS if issubclass(rig, ModbusTcpRig)),
]
every_link = pytest.mark.parametrize("make", RIGS, ids=lambda rig: rig.__name__)
every_fault = pytest.mark.parametrize(
    ("make", "fault"), CASES, ids=lambda case: getattr(case, "__name__", case)
)


async def on_rig(rig: Rig, scenario: Callable[[Rig], Any]) -> None:
    """Play *scenario* on *rig*; close both ends, and owe nothing."""
    running_loop().switchboard.is_asked_for = rig.is_in_memory
    await rig.start()
    try:
        await scenario(rig)
    finally:
        await rig.link.close()
        await rig.stop_front()
    assert running_loop().n_owing == 0


async def ask_or_fail(rig: Rig, number: int, *, is_safe: bool) -> int | None:
    """Return the answer, None if the link owned up to having none."""
    try:
        return await rig.ask(number, is_safe=is_safe)
    except (TransportError, MalformedReply):
        return None
    except InstrumentError as exc:
        assert exc.code == 6  # noqa: PT017 - Modbus's word for busy is an answer, too
        return None


def play_seeded(scenario: Coroutine[Any, Any, None]) -> None:
    """Play on a jumping loop of its own, for examples within one test."""
    loop = LabTimeLoop(None)
    try:
        with loop.active():
            loop.run_until_complete(scenario)
        assert loop.faults == []
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@every_fault
@given(seed=st.integers(0, 1000), is_safe=st.booleans())
@settings(max_examples=6)
def test_link_never_returns_a_wrong_value_when_a_fault_hits(
    make: type[Rig], fault: str, seed: int, is_safe: bool
) -> None:
    """Faults for 10 s end in an error or the right value in time, then all is good."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(fault=fault, for_s=10)
        loop = running_loop()
        ends = loop.time() + 10
        number = 1
        while loop.time() < ends:
            number += 1
            began = loop.time()
            answer = await ask_or_fail(rig, number, is_safe=is_safe)
            assert answer in (None, number)
            assert loop.time() - began <= 2 * rig.link.deadline_s + 1e-6
            await asyncio.sleep(1.0)
        await asyncio.sleep(LATE_S)  # what was delayed comes until then
        answers = [await ask_or_fail(rig, n, is_safe=True) for n in (901, 902, 903)]
        assert answers[0] in (None, 901)
        assert answers[1:] == [902, 903]

    play_seeded(on_rig(make(seed), scenario))


@every_fault
@given(seed=st.integers(0, 1000), is_safe=st.booleans())
@settings(max_examples=4)
def test_link_recovers_when_a_fault_hit_one_exchange(
    make: type[Rig], fault: str, seed: int, is_safe: bool
) -> None:
    """After one hit, or 2 s without a port, the second exchange is good."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(
            fault=fault, **({"for_s": 2} if fault in ("refuse", "unplug") else {})
        )
        for number in (2, 3):
            answer = await ask_or_fail(rig, number, is_safe=is_safe)
            assert answer in (None, number)
        await asyncio.sleep(10.0)
        assert [await rig.ask(n) for n in (4, 5)] == [4, 5]

    play_seeded(on_rig(make(seed), scenario))


@pytest.mark.parametrize(
    "make", [SerialLineRig, TcpLineRig, UnprobedSerialLineRig, UnprobedTcpLineRig]
)
@given(
    by_s=st.floats(0.1, 9.0),
    length=st.floats(0.1, 20.0),
    pause=st.floats(0.0, 3.0),
    is_safe=st.booleans(),
)
@settings(max_examples=25)
def test_text_link_takes_no_late_answer_for_another(
    make: type[Rig], by_s: float, length: float, pause: float, is_safe: bool
) -> None:
    """Text names no request, yet however late answers come they are not mixed up."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(fault="delay", by_s=by_s, for_s=length)
        for number in range(2, 12):
            answer = await ask_or_fail(rig, number, is_safe=is_safe)
            assert answer in (None, number)
            await asyncio.sleep(pause)

    play_seeded(on_rig(make(), scenario))


@every_link
def test_link_finds_an_unplugged_wire_within_two_seconds(
    play: Play, make: type[Rig]
) -> None:
    """Where the other end is gone an exchange fails at once, not at a deadline."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(fault="unplug")
        await asyncio.sleep(1.0)
        began = running_loop().time()
        with pytest.raises(TransportError):
            await rig.ask(2)
        assert running_loop().time() - began < 2.0

    play(on_rig(make(), scenario))


@pytest.mark.slow
@every_link
def test_link_survives_a_thousand_flaps(
    play: Play, make: type[Rig], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is leaked, and each loss and each return is one line in the log."""
    n_flaps = 1000
    caplog.set_level(logging.WARNING, "ppu.link")

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        before = resources()
        rig.inject(fault="unplug", every_s=100, for_s=50)
        loop = running_loop()
        began = loop.time()
        for flap in range(1, n_flaps + 1):
            await asyncio.sleep(began + 100 * flap + 5 - loop.time())
            with pytest.raises(TransportError):
                await rig.ask(2)
            await asyncio.sleep(began + 100 * flap + 55 - loop.time())
            assert await rig.ask(3) == 3
        gc.collect()
        assert resources() == before

    play(on_rig(make(), scenario))

    lines = [record.getMessage() for record in caplog.records]
    assert ["lost" in line for line in lines] == [True, False] * n_flaps


def resources() -> tuple[int, int, int]:
    """Return how many descriptors, tasks and threads there are."""
    n_descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted
    return n_descriptors, len(asyncio.all_tasks()), threading.active_count()


@every_link
def test_refused_port_leaves_open_links_alone(play: Play, make: type[Rig]) -> None:
    """Refusing is about who wants to connect, not about who is connected."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(fault="refuse", for_s=100)
        await asyncio.sleep(1.0)
        assert await rig.ask(2) == 2
        await rig.link.close()
        with pytest.raises(TransportError):
            await rig.ask(3)
        await asyncio.sleep(100.0)
        assert await rig.ask(4) == 4

    play(on_rig(make(), scenario))


@every_link
def test_same_seed_gives_the_same_faults(make: type[Rig]) -> None:
    """Two runs with the same requests are hit alike, at the same lab times."""
    logs = []

    async def scenario(rig: Rig) -> None:
        rig.inject(fault="corrupt", for_s=1000, with_probability=0.3)
        rig.inject(fault="delay", every_s=20, with_probability=0.5, by_s=1.4)
        for number in range(40):
            await ask_or_fail(rig, number, is_safe=False)
            await asyncio.sleep(2.0)
        logs.append(list(rig.faults.log))

    for _ in range(2):
        play_seeded(on_rig(make(5), scenario))

    assert logs[0] == logs[1]
    assert {fault for _, fault in logs[0]} == {"corrupt", "delay"}


@every_link
def test_cancelled_exchange_leaves_a_good_link_when_the_answer_is_late(
    play: Play, make: type[Rig]
) -> None:
    """Who gives up on a delayed answer leaves nothing that the next could take."""

    async def scenario(rig: Rig) -> None:
        assert await rig.ask(1) == 1
        rig.inject(fault="delay", by_s=0.5)
        asking = asyncio.ensure_future(rig.ask(2))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [await rig.ask(n) for n in (3, 4)] == [3, 4]

    play(on_rig(make(), scenario))


@pytest.mark.parametrize("kernel_and_memory", PAIRS, ids=lambda pair: pair[1].__name__)
@given(
    fault=st.sampled_from(EVERYWHERE), seed=st.integers(0, 1000), is_safe=st.booleans()
)
@settings(max_examples=40)
def test_memory_carries_what_the_kernel_carries(
    kernel_and_memory: tuple[type[Rig], type[Rig]],
    fault: str,
    seed: int,
    is_safe: bool,
) -> None:
    """The same comes of each exchange at the same lab time, whatever goes wrong."""
    told: list[list[tuple[float, str]]] = []

    async def scenario(rig: Rig) -> None:
        outcomes = []
        for number in range(12):
            if number == 1:
                rig.inject(fault=fault, for_s=5)
            try:
                outcome = str(await rig.ask(number, is_safe=is_safe))
            except (TransportError, MalformedReply, InstrumentError) as exc:
                outcome = type(exc).__name__
            outcomes.append((running_loop().time(), outcome))
            await asyncio.sleep(0.7)
        told.append(outcomes)

    for make in kernel_and_memory:
        play_seeded(on_rig(make(seed), scenario))

    assert told[0] == told[1]
