"""What faults look like on each wire, to a client that knows nothing but bytes."""

import asyncio
import os
import re
import socket
import termios
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from ppu.core.labtime import running_loop
from ppu.core.simulation import TwinSettingsError
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer, Conversation
from ppu_simulators.fronts.http import HttpAnswer, HttpFront, HttpRequest
from ppu_simulators.fronts.modbus import ModbusRtuSlave, ModbusTcpSlave, crc16
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.fronts.wire_faults import damaged

Play = Callable[[Coroutine[Any, Any, Any]], Any]

SAID = b"0123456789 and so on\r\n"
BUSY = b"BUSY\r\n"
REFUSAL = (FileNotFoundError, ConnectionRefusedError)


class Echo:
    """Says each line again."""

    def __init__(self) -> None:
        self.n_heard = 0
        self._buffer = b""

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.n_heard += len(lines)
        return [Answer(line + b"\n", 0.01) for line in lines]

    def busy(self, request: bytes) -> bytes:
        """Return what is answered instead."""
        return BUSY


class Wire(ABC):
    """A front with faults, and a client that only moves bytes."""

    def __init__(self, conversation: Conversation | None = None) -> None:
        self.faults = Faults("wire", [], {}, np.random.default_rng(1))
        self.echo = Echo()
        self.conversation = conversation or self.echo
        self.heard = bytearray()
        self.heard_at: list[float] = []
        self.ended: str | None = None

    @abstractmethod
    async def start(self) -> None:
        """Let the front listen."""

    @abstractmethod
    async def connect(self) -> None:
        """Connect the client."""

    @abstractmethod
    def knock(self) -> None:
        """Open the port and close it; raises an OSError if it refuses."""

    @abstractmethod
    def say(self, data: bytes) -> None:
        """Send *data*."""

    @abstractmethod
    async def stop(self) -> None:
        """Close both ends."""

    def take(self, data: bytes) -> None:
        """Note what came, and when."""
        self.heard += data
        self.heard_at.append(running_loop().time())

    def inject(self, fault: str, **entry: Any) -> None:
        """Let something go wrong from now on."""
        self.faults.inject({"fault": fault, **entry}, running_loop().time())

    async def ask(self, data: bytes = SAID) -> bytes:
        """Send *data* and return what is heard within 20 s."""
        self.heard.clear()
        self.heard_at.clear()
        self.say(data)
        await asyncio.sleep(20.0)
        return bytes(self.heard)


class SerialWire(Wire):
    """A pseudo-terminal."""

    @override
    async def start(self) -> None:
        self.front = SerialFront(
            self.conversation, SerialLine(9600), faults=self.faults
        )
        self.path = self.front.start()
        self.fd = -1

    @override
    async def connect(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        attributes = termios.tcgetattr(self.fd)
        attributes[4] = attributes[5] = termios.B9600
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
        self.ended = None
        self.debt = running_loop().debt(self.path)
        self.debt.open()
        running_loop().add_reader(self.fd, self._readable)

    @override
    def knock(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_NOCTTY))

    def _readable(self) -> None:
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            data = b""
        if data:
            self.debt.pay(len(data))
            self.take(data)
        else:
            self.ended = "hang-up"
            self._close()

    def _close(self) -> None:
        if self.fd >= 0:
            running_loop().remove_reader(self.fd)
            os.close(self.fd)
            self.debt.close()
            self.fd = -1

    @override
    def say(self, data: bytes) -> None:
        self.debt.add(os.write(self.fd, data))

    @override
    async def stop(self) -> None:
        self._close()
        self.front.stop()


class TcpWire(Wire, asyncio.Protocol):
    """A TCP stream."""

    transport: asyncio.Transport | None = None

    @override
    async def start(self) -> None:
        self.front = TcpFront(self.conversation, faults=self.faults)
        self.host, self.port = await self.front.start()

    @override
    async def connect(self) -> None:
        loop = running_loop()
        with loop.freezing("connecting"):
            self.transport, _ = await loop.create_connection(
                lambda: self, self.host, self.port
            )
        self.ended = None
        self.debt = loop.debt(f"{self.host}:{self.port}")
        self.debt.open()

    @override
    def knock(self) -> None:
        socket.create_connection((self.host, self.port), 1.0).close()

    @override
    def data_received(self, data: bytes) -> None:
        self.debt.pay(len(data))
        self.take(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = "reset" if isinstance(exc, ConnectionResetError) else "closed"
        self.debt.close()
        self.transport = None

    @override
    def say(self, data: bytes) -> None:
        assert self.transport is not None
        self.debt.add(len(data))
        self.transport.write(data)

    @override
    async def stop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            await asyncio.sleep(0.1)
        await self.front.stop()


class HttpWire(TcpWire):
    """HTTP/1.1 by hand."""

    @override
    async def start(self) -> None:
        self.http = HttpFront(self, faults=self.faults)
        self.url = await self.http.start()
        self.host, self.port = "127.0.0.1", int(self.url.rpartition(":")[2])
        self.is_waiting = False

    @override
    async def connect(self) -> None:
        await super().connect()
        self.debt = running_loop().debt(self.url)

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Answer what was asked."""
        self.echo.n_heard += 1
        return HttpAnswer({"path": request.path}, 0.01)

    def _settle(self) -> None:
        if self.is_waiting:
            self.is_waiting = False
            self.debt.add(-1)

    @override
    def data_received(self, data: bytes) -> None:
        self._settle()
        self.take(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = "reset" if isinstance(exc, ConnectionResetError) else "closed"
        self._settle()
        self.transport = None

    @override
    def say(self, data: bytes) -> None:
        assert self.transport is not None
        self.is_waiting = True
        self.debt.add(1)
        self.transport.write(b"GET /7 HTTP/1.1\r\nHost: x\r\n\r\n")

    @override
    async def stop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            await asyncio.sleep(0.1)
        await self.http.stop()


every_wire = pytest.mark.parametrize(
    "make", [SerialWire, TcpWire, HttpWire], ids=lambda wire: wire.__name__
)
every_stream = pytest.mark.parametrize(
    "make", [SerialWire, TcpWire], ids=lambda wire: wire.__name__
)


async def on_wire(wire: Wire, scenario: Callable[[Wire, bytes], Any]) -> None:
    """Play *scenario* on a connected wire; it is told what an answer looks like."""
    await wire.start()
    try:
        await wire.connect()
        good = await wire.ask()
        assert len(good) > 15
        # What aiohttp writes has a date; what faults touch has none.
        good = re.sub(rb"(Date|Server): .*\r\n", b"", good)
        await scenario(wire, good)
    finally:
        await wire.stop()
    assert running_loop().n_owing == 0


@every_wire
def test_dropped_answer_never_comes(play: Play, make: type[Wire]) -> None:
    """The instrument did what it was asked, the connection stays, nothing comes."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("drop")
        assert await wire.ask() == b""
        assert wire.echo.n_heard == 2
        assert wire.ended is None

    play(on_wire(make(), scenario))


@every_wire
def test_delayed_answer_comes_later(play: Play, make: type[Wire]) -> None:
    """By as much as was said, and whole."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("delay", by_s=7)
        asked = running_loop().time()
        heard = await wire.ask()
        assert re.sub(rb"(Date|Server): .*\r\n", b"", heard) == good
        assert wire.heard_at[0] - asked == pytest.approx(7.03, abs=0.03)

    play(on_wire(make(), scenario))


@every_stream
def test_no_answer_overtakes_a_delayed_one(play: Play, make: type[Wire]) -> None:
    """A stream keeps its order."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("delay", by_s=5)
        wire.say(b"first\n")
        await asyncio.sleep(1.0)
        assert await wire.ask(b"second\n") == b"first\nsecond\n"

    play(on_wire(make(), scenario))


@every_stream
def test_answers_that_wait_for_a_late_one_keep_their_order(
    play: Play, make: type[Wire]
) -> None:
    """However many were due at the same moment."""
    words = [f"word {n}\n".encode() for n in range(30)]

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("delay", by_s=7.3)
        for word in words:
            wire.say(word)
            await asyncio.sleep(0.1 + 1e-3 / 3)
        assert await wire.ask(b"last\n") == b"".join(words) + b"last\n"

    play(on_wire(make(), scenario))


@every_stream
@pytest.mark.parametrize("pause_s", [0.0, 1e-3])
def test_requests_before_the_last_answer_are_answered_in_order(
    play: Play, make: type[Wire], pause_s: float
) -> None:
    """A short request does not overtake a longer one on the line."""
    words = [(b"longer and longer " * (5 - n)) + b"\n" for n in range(5)] * 4

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.heard.clear()
        for word in words:
            wire.say(word)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(20.0)
        assert wire.heard == b"".join(words)

    play(on_wire(make(), scenario))


@every_wire
def test_duplicated_answer_comes_twice(play: Play, make: type[Wire]) -> None:
    """Both copies are whole, and the connection stays."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("duplicate")
        assert await wire.ask() == good * 2
        assert wire.ended is None

    play(on_wire(make(), scenario))


@every_stream
def test_reordered_answer_comes_after_the_next(play: Play, make: type[Wire]) -> None:
    """The first is held back until the second was said."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("reorder")
        assert await wire.ask(b"first\n") == b""
        assert await wire.ask(b"second\n") == b"second\nfirst\n"

    play(on_wire(make(), scenario))


def test_reordered_answer_waits_for_another_connection_on_http(play: Play) -> None:
    """One connection has one request at a time, so another must come by."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("reorder")
        assert await wire.ask() == b""
        wire.debt.add(-1)  # type: ignore[attr-defined]  # we wait no longer
        wire.is_waiting = False  # type: ignore[attr-defined]  # the same
        other = HttpWire()
        other.host, other.port = wire.host, wire.port  # type: ignore[attr-defined]  # an HttpWire
        other.url = wire.url  # type: ignore[attr-defined]  # an HttpWire
        other.is_waiting = False
        await other.connect()
        assert b"200 OK" in await other.ask()
        assert b"200 OK" in wire.heard
        assert other.transport is not None
        other.transport.abort()
        await asyncio.sleep(0.1)

    play(on_wire(HttpWire(), scenario))


@every_wire
def test_truncated_answer_has_a_first_part_only(play: Play, make: type[Wire]) -> None:
    """Half of it comes; HTTP closes, as nobody could wait for the rest."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("truncate")
        assert await wire.ask() == good[: len(good) // 2]
        assert wire.ended == ("closed" if make is HttpWire else None)

    play(on_wire(make(), scenario))


@every_wire
def test_corrupt_answer_has_flipped_bits(play: Play, make: type[Wire]) -> None:
    """One to three bits differ, anywhere."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("corrupt")
        heard = await wire.ask()
        flips = [a ^ b for a, b in zip(heard, good, strict=True)]
        assert 1 <= sum(flip.bit_count() for flip in flips) <= 3

    play(on_wire(make(), scenario))


@every_wire
def test_visibly_corrupt_answer_is_no_text(play: Play, make: type[Wire]) -> None:
    """One to three bytes differ, in a way that text shows."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("corrupt visibly")
        heard = await wire.ask()
        flips = [a ^ b for a, b in zip(heard, good, strict=True)]
        assert 1 <= sum(flip != 0 for flip in flips) <= 3
        assert set(flips) == {0, 0x80}

    play(on_wire(make(), scenario))


@every_wire
def test_garbage_comes_instead_of_the_answer(play: Play, make: type[Wire]) -> None:
    """As many bytes, but not those."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("garbage")
        heard = await wire.ask()
        assert len(heard) == len(good)
        assert sum(a == b for a, b in zip(heard, good, strict=True)) < 5

    play(on_wire(make(), scenario))


@every_wire
@pytest.mark.parametrize(
    ("length", "at_least", "at_most"), [(4, 3000, 45_000), (1e6, 9000, 65536)]
)
def test_flood_comes_until_it_ends(
    play: Play, make: type[Wire], length: float, at_least: int, at_most: int
) -> None:
    """Rubbish at the speed of the line for the time asked, but not without bound."""

    async def scenario(wire: Wire, good: bytes) -> None:
        began = running_loop().time()
        wire.inject("flood", for_s=length)
        heard = await wire.ask()
        assert at_least < len(heard) <= at_most
        assert SAID not in heard
        assert wire.heard_at[-1] <= began + length
        wire.faults.clear(running_loop().time())
        await asyncio.sleep(100.0)
        if wire.ended is None:
            assert await wire.ask() == good

    play(on_wire(make(), scenario))


@every_wire
def test_half_open_connection_hears_and_says_nothing(
    play: Play, make: type[Wire]
) -> None:
    """The request comes to nothing; a stream stays dead until it is made anew."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("half-open")
        assert await wire.ask() == b""
        assert wire.echo.n_heard == 1
        assert wire.ended is None
        if make is SerialWire:
            assert await wire.ask() == good
        if make is TcpWire:
            assert await wire.ask() == b""

    play(on_wire(make(), scenario))


def test_answer_under_way_is_lost_when_the_wire_goes_half_open(play: Play) -> None:
    """Nothing is said any more, even if it was asked before."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.say(SAID)
        wire.inject("half-open", for_s=5)
        await asyncio.sleep(4.0)
        assert wire.echo.n_heard == 1
        wire.heard.clear()
        await asyncio.sleep(4.0)
        assert not wire.heard

    play(on_wire(SerialWire(), scenario))


@every_wire
def test_reset_breaks_the_connection(play: Play, make: type[Wire]) -> None:
    """Without an orderly end; who connects again is served."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("reset")
        assert await wire.ask() == b""
        assert wire.ended == ("hang-up" if make is SerialWire else "reset")
        await wire.connect()
        assert len(await wire.ask()) >= len(good)

    play(on_wire(make(), scenario))


@every_wire
def test_busy_instrument_says_so_and_does_nothing(play: Play, make: type[Wire]) -> None:
    """In its own words where it has any."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("stuck busy", for_s=30)
        heard = await wire.ask()
        assert heard.startswith(b"HTTP/1.1 503" if make is HttpWire else BUSY)
        assert wire.echo.n_heard == 1

    play(on_wire(make(), scenario))


@every_wire
def test_refusing_port_serves_who_is_connected(play: Play, make: type[Wire]) -> None:
    """Nobody else comes in, until the window closes."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("refuse", for_s=100)
        assert len(await wire.ask()) >= len(good)
        with pytest.raises(REFUSAL):
            wire.knock()
        await asyncio.sleep(100.0)
        wire.knock()

    play(on_wire(make(), scenario))


@every_wire
def test_unplugged_port_is_back_at_the_same_address(
    play: Play, make: type[Wire]
) -> None:
    """It breaks at once, nobody can connect, and it is served again afterwards."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("unplug", at_s=10, for_s=100)
        await asyncio.sleep(11.0)
        assert wire.ended is not None
        with pytest.raises(REFUSAL):
            wire.knock()
        await asyncio.sleep(100.0)
        await wire.connect()
        assert len(await wire.ask()) >= len(good)

    play(on_wire(make(), scenario))


def test_number_of_an_unplugged_port_is_kept(play: Play) -> None:
    """No other program gets the port while it is away."""

    async def scenario(wire: Wire, good: bytes) -> None:
        assert isinstance(wire, TcpWire)
        wire.inject("unplug")
        await asyncio.sleep(1.0)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((wire.host, wire.port))

    play(on_wire(TcpWire(), scenario))


def test_front_stops_cleanly_when_it_is_unplugged(play: Play) -> None:
    """Nothing is left: no timer, no path, no folder."""

    async def scenario(wire: Wire, good: bytes) -> None:
        wire.inject("unplug", for_s=1000)
        await asyncio.sleep(1.0)

    wire = SerialWire()
    play(on_wire(wire, scenario))

    assert not os.path.lexists(os.path.dirname(wire.path))  # noqa: PTH120 - os, like the front's path


def test_clean_front_does_not_ask_its_faults(play: Play) -> None:
    """Without a script no exchange is even looked at: the twin's pace matters."""

    async def scenario(wire: Wire, good: bytes) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("asked")

        wire.faults.strike = refuse  # type: ignore[assignment,method-assign]  # must not be called
        for _ in range(3):
            assert await wire.ask() == good

    play(on_wire(SerialWire(), scenario))


# -- what bytes become ----------------------------------------------------------------


class NoRegisters:
    """Reads as its own addresses."""

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return the addresses."""
        return list(range(address, address + count))

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take anything."""


frames = st.binary(min_size=3, max_size=40)


@given(
    data=st.text(st.characters(max_codepoint=127), min_size=1), seed=st.integers(0, 99)
)
@settings(max_examples=100)
def test_visibly_corrupt_text_is_never_text(data: str, seed: int) -> None:
    """No visible damage turns one text into another."""
    rng = np.random.default_rng(seed)
    spoiled = damaged(data.encode(), "corrupt visibly", "text", rng)

    assert len(spoiled) == len(data)
    with pytest.raises(UnicodeDecodeError):
        spoiled.decode("utf-8")


@given(body=frames, seed=st.integers(0, 99))
@settings(max_examples=100)
def test_corrupt_rtu_frame_fails_its_checksum(body: bytes, seed: int) -> None:
    """Up to three damaged bits do not cancel each other."""
    frame = body + crc16(body).to_bytes(2, "little")
    spoiled = damaged(frame, "corrupt", "modbus rtu", np.random.default_rng(seed))

    assert crc16(spoiled[:-2]) != int.from_bytes(spoiled[-2:], "little")


@given(body=frames, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_wrong_unit_is_rightly_signed(body: bytes, seed: int) -> None:
    """Only the address tells that another unit answered."""
    frame = body + crc16(body).to_bytes(2, "little")
    spoiled = damaged(frame, "wrong unit", "modbus rtu", np.random.default_rng(seed))

    assert spoiled[0] != frame[0]
    assert spoiled[1:-2] == frame[1:-2]
    assert crc16(spoiled[:-2]) == int.from_bytes(spoiled[-2:], "little")


@pytest.mark.parametrize(
    ("fault", "spoilt"),
    [("wrong unit", {6}), ("wrong transaction id", {0, 1})],
)
def test_modbus_tcp_head_is_changed_where_the_fault_says(
    fault: str, spoilt: set[int]
) -> None:
    """Nothing else differs."""
    frame = bytes.fromhex("0007 0000 0005 01 03 02 002a")
    found = damaged(frame, fault, "modbus tcp", np.random.default_rng(3))
    places = {n for n, (a, b) in enumerate(zip(frame, found, strict=True)) if a != b}

    assert places
    assert places <= spoilt


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda f: SerialFront(Echo(), SerialLine(), faults=f), "wrong unit"),
        (lambda f: TcpFront(Echo(), faults=f), "wrong transaction id"),
        (lambda f: HttpFront(HttpWire(), faults=f), "wrong unit"),
        (
            lambda f: SerialFront(
                ModbusRtuSlave(1, NoRegisters()), SerialLine(), faults=f
            ),
            "wrong transaction id",
        ),
    ],
)
def test_front_refuses_what_its_wire_cannot_do(
    make: Callable[[Faults], object], fault: str
) -> None:
    """At construction, so that a lab file is refused before anything starts."""
    faults = Faults("x", [{"fault": fault}], {}, np.random.default_rng(0))

    with pytest.raises(TwinSettingsError, match="cannot happen on this"):
        make(faults)


@pytest.mark.parametrize(
    ("wire", "request_", "said"),
    [
        (
            SerialWire(ModbusRtuSlave(1, NoRegisters())),
            "01 03 0005 0001 940b",
            "01 83 06 c132",
        ),
        (
            TcpWire(ModbusTcpSlave(1, NoRegisters())),
            "0007 0000 0006 01 03 0005 0001",
            "0007 0000 0003 01 83 06",
        ),
    ],
    ids=["rtu", "tcp"],
)
def test_busy_modbus_unit_answers_with_exception_6(
    play: Play, wire: Wire, request_: str, said: str
) -> None:
    """Modbus V1.1b3 §7: SERVER DEVICE BUSY, whatever is asked."""

    async def scenario() -> bytes:
        await wire.start()
        await wire.connect()
        wire.inject("stuck busy")
        try:
            return await wire.ask(bytes.fromhex(request_))
        finally:
            await wire.stop()

    assert play(scenario()) == bytes.fromhex(said)
