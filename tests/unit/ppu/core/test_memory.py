"""Connections within one process: what asyncio promises of a stream, they keep."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.core.memory import MemoryTransport

Play = Callable[[Coroutine[Any, Any, Any]], Any]


class Ear(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self, *, stays: bool = False) -> None:
        self.told: list[Any] = []
        self.stays = stays
        self.transport: MemoryTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the transport."""
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self.told.append(data)

    def eof_received(self) -> bool:
        """Stay open for the other direction, if this one does."""
        self.told.append("end")
        return self.stays

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the reason."""
        self.told.append(exc)


def connected(*, stays: bool = False) -> tuple[Ear, Ear]:
    """Return a client and a server that are connected."""
    board, server = running_loop().switchboard, Ear(stays=stays)
    port = board.new_port()
    board.listen(port, lambda: server)
    _, client = board.connect(port, Ear)
    return client, server


async def settled() -> None:
    """Wait until nothing is under way."""
    await asyncio.sleep(1e-3)


def test_bytes_arrive_together_at_the_lab_time_at_which_they_were_written(
    play: Play,
) -> None:
    """A jump does not overtake them, though nobody owes anything."""

    async def scenario() -> None:
        client, server = connected()
        arrived: list[float] = []
        loop = running_loop()
        server.data_received = lambda data: arrived.append(loop.time())  # type: ignore[method-assign]  # to see when
        await asyncio.sleep(5.0)
        client.transport.write(b"a")
        client.transport.write(bytearray(b"b"))
        assert loop.n_owing == 0
        await asyncio.sleep(5.0)
        assert arrived == [5.0]

    play(scenario())


@given(pieces=st.lists(st.binary(max_size=5)), is_aborted=st.booleans())
def test_all_that_was_written_arrives_before_the_end(
    pieces: list[bytes], is_aborted: bool
) -> None:
    """However it ends, no byte is lost, doubled or out of order."""

    async def scenario() -> None:
        client, server = connected()
        for piece in pieces:
            client.transport.write(piece)
        if is_aborted:
            client.transport.abort()
        else:
            client.transport.close()
        client.transport.write(b"too late")
        await settled()
        *data, end, lost = server.told
        assert (b"".join(data), end, lost) == (b"".join(pieces), "end", None)
        assert client.told == [None]

    loop = LabTimeLoop(None)
    try:
        with loop.active():
            loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_half_open_end_may_write_until_it_notices(play: Play) -> None:
    """Who writes to an end that has gone is told so, as by a broken pipe."""

    async def scenario() -> None:
        client, server = connected(stays=True)
        client.transport.close()
        await settled()
        assert server.told == ["end"]
        assert not server.transport.is_closing()
        server.transport.write(b"is anybody there?")
        await settled()
        assert isinstance(server.told[-1], BrokenPipeError)
        assert client.told == [None]

    play(scenario())


def test_break_off_tells_the_other_end_why(play: Play) -> None:
    """A reset is an error there, and an end here."""

    async def scenario() -> None:
        client, server = connected()
        why = ConnectionResetError("reset")
        server.transport.break_off(why)
        await settled()
        assert (client.told, server.told) == ([why], [None])

    play(scenario())


def test_paused_end_gets_everything_when_it_reads_again(play: Play) -> None:
    """Bytes and the end wait for a reader."""

    async def scenario() -> None:
        client, server = connected()
        server.transport.pause_reading()
        client.transport.write(b"a")
        client.transport.close()
        await settled()
        assert (server.told, server.transport.is_reading()) == ([], False)
        server.transport.resume_reading()
        await settled()
        assert server.told == [b"a", "end", None]

    play(scenario())


def test_switchboard_refuses_who_finds_nobody(play: Play) -> None:
    """Whoever listens no more keeps the connections that there are."""

    async def scenario() -> None:
        board, server = running_loop().switchboard, Ear()
        port = board.new_port()
        with pytest.raises(ConnectionRefusedError, match="nobody listens at memory:1"):
            board.connect(port, Ear)
        board.listen(port, lambda: server)
        _, client = board.connect(port, Ear)
        board.refuse(port)
        with pytest.raises(ConnectionRefusedError):
            board.connect(port, Ear)
        client.transport.write(b"a")
        await settled()
        assert server.told == [b"a"]

    play(scenario())


def test_exclusive_port_is_had_by_one_client_at_a_time(play: Play) -> None:
    """It is free again at once when the client has closed it."""

    async def scenario() -> None:
        board = running_loop().switchboard
        port = board.new_port()
        board.listen(port, Ear)
        first, _ = board.connect(port, Ear, is_exclusive=True)
        with pytest.raises(OSError, match="busy"):
            board.connect(port, Ear, is_exclusive=True)
        first.close()
        board.connect(port, Ear, is_exclusive=True)

    play(scenario())
