"""Heartbeats: silence and the end of a process are seen, and nothing else is."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from ppu.cell.heartbeat import SILENCE_S, Heartbeat
from ppu.core.labtime import running_loop

Play = Callable[[Coroutine[Any, Any, Any]], Any]


def test_heartbeats_find_nobody_dead_while_both_beat(play: Play) -> None:
    """Two ends that live hear each other for an hour."""

    async def scenario() -> list[str]:
        deaths: list[str] = []
        ends = [
            Heartbeat(running_loop(), end, deaths.append) for end in socket.socketpair()
        ]
        for end in ends:
            end.start()
        await asyncio.sleep(3600.0)
        found = list(deaths)
        for end in ends:
            await end.stop()
        return found

    assert play(scenario()) == []


def test_heartbeat_tells_once_when_the_other_end_is_silent(play: Play) -> None:
    """A process that is stopped keeps its end open, and counts as dead all the same."""

    async def scenario() -> tuple[list[str], bytes]:
        deaths: list[str] = []
        ours, theirs = socket.socketpair()
        heartbeat = Heartbeat(running_loop(), ours, deaths.append)
        heartbeat.start()
        await asyncio.sleep(10 * SILENCE_S)
        beats = theirs.recv(64)
        await heartbeat.stop()
        theirs.close()
        return deaths, beats

    deaths, beats = play(scenario())

    assert deaths == ["no heartbeat for 3 s"]
    assert 6 <= len(beats) <= 8


def test_heartbeat_tells_at_once_when_the_other_end_is_closed(play: Play) -> None:
    """A system that ends a process closes its end, which is no silence."""

    async def scenario() -> tuple[list[str], float]:
        deaths: list[str] = []
        ours, theirs = socket.socketpair()
        died = asyncio.Event()

        def die(what: str) -> None:
            deaths.append(what)
            died.set()

        heartbeat = Heartbeat(running_loop(), ours, die)
        heartbeat.start()
        theirs.send(b".")
        theirs.close()
        await died.wait()
        lab_time = running_loop().time()
        await heartbeat.stop()
        return deaths, lab_time

    assert play(scenario()) == ([Heartbeat.ENDED], 0.0)


def test_heartbeat_is_patient_until_the_first_word_and_no_longer(play: Play) -> None:
    """A process that starts has more time than one that runs."""

    async def scenario() -> tuple[list[str], list[str]]:
        deaths: list[str] = []
        words: list[str] = []
        ours, theirs = socket.socketpair()
        heartbeat = Heartbeat(
            running_loop(),
            ours,
            deaths.append,
            on_first_word=lambda: words.append("hello"),
            first_word_s=60.0,
        )
        heartbeat.start()
        await asyncio.sleep(50.0)
        assert deaths == []
        theirs.send(b"..")
        await asyncio.sleep(1.0)
        assert deaths == []
        await asyncio.sleep(SILENCE_S)
        await heartbeat.stop()
        theirs.close()
        return words, deaths

    assert play(scenario()) == (["hello"], ["no heartbeat for 3 s"])


def test_heartbeat_does_not_block_when_nobody_listens(play: Play) -> None:
    """A full pipe to a stopped process must not stop the one that beats."""

    async def scenario() -> int:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        heartbeat = Heartbeat(running_loop(), ours, lambda _: None, first_word_s=1e9)
        heartbeat.start()
        await asyncio.sleep(3600.0)
        theirs.setblocking(False)
        n_beats = len(theirs.recv(100_000))
        await heartbeat.stop()
        theirs.close()
        return n_beats

    assert 0 < play(scenario()) < 7200
