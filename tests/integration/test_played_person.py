"""Somebody plays the person of a simulated bench: what is said done is done there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from exercise import LAB
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.twin.bench import Bench
from ppu.twin.control import ControlSocket

Ask = Callable[..., dict[str, Any]]
Task = Callable[[str], None]
Talk = Callable[[str], Awaitable[str]]


def play(conversation: Callable[[Bench, Ask, Talk, Task], Awaitable[None]]) -> None:
    """Let *conversation* happen on a bench whose operator somebody plays."""

    async def work() -> None:
        file = LabFile.model_validate(LAB)
        only = ("operator",)
        bench = Bench(file, Path("lab.yaml"), 7, only=only, played=only)
        control = ControlSocket(bench)

        def ask(**request: Any) -> dict[str, Any]:
            return control.answer(json.dumps(request).encode())

        await bench.start()
        address = bench.connections["operator"]
        reader, writer = await asyncio.open_connection(address["host"], address["port"])

        async def talk(line: str) -> str:
            """Say a line as the driver does, if there is one; return what is heard."""
            if line:
                writer.write(f"{line}\n".encode())
            return (await reader.readline()).decode().strip()

        def task(line: str) -> None:
            """Ask for something to be done, as the driver does."""
            technician: Any = bench.instruments["operator"]
            assert not technician.receive(f"{line}\n".encode(), 0.0)

        try:
            await talk("who are you?")  # it knows the driver now
            await conversation(bench, ask, talk, task)
        finally:
            writer.close()
            await bench.stop()

    with asyncio.Runner(loop_factory=lambda: LabTimeLoop(1.0)) as runner:
        runner.run(work())


def test_what_is_said_done_is_done_and_answered_in_one() -> None:
    """The container is carried in the world, and the driver hears of it."""

    async def conversation(bench: Bench, ask: Ask, talk: Talk, task: Task) -> None:
        world: Any = bench.world
        assert await talk("who are you?") == "technician 1001"
        asked = "carry cup_1 from rack.1 to press"
        task(asked)
        assert ask(asked=True)["asked"] == {"operator": asked}
        assert world.containers["cup_1"].at == "rack.1"
        assert ask(person="operator", did=True)["ok"]
        assert world.containers["cup_1"].at == "press"
        assert await talk("") == "done"
        assert ask(asked=True)["asked"] == {}

    play(conversation)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("carry cup_1 from rack.1 to rack.2", "rack.2"),
        ("carry cup_1 from rack.2 to press", "not at rack.2"),
        ("carry cup_9 from rack.1 to press", "no container cup_9"),
        ("mount powder of cup_1 in cup_2", "cup_1 is empty"),
        ("grind cup_9 for 5 s", "no container cup_9"),
        ("sing", "I do not understand"),
    ],
)
def test_answer_that_cannot_be_leaves_the_task_open(task: str, why: str) -> None:
    """The reason is told, nothing is answered, and another answer may follow."""

    async def conversation(bench: Bench, ask: Ask, talk: Talk, say: Task) -> None:
        world: Any = bench.world
        say(task)
        came = ask(person="operator", did=True)
        assert not came["ok"]
        assert why in came["error"]
        assert ask(asked=True)["asked"] == {"operator": task}
        assert world.containers["cup_1"].at == "rack.1"
        assert not ask(person="operator", refuses=" ")["ok"]
        assert ask(person="operator", refuses="it is hot")["ok"]
        assert await talk("") == "refused it is hot"

    play(conversation)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"person": "operator", "did": True}, "nothing is asked"),
        ({"person": "nobody", "did": True}, "nobody is called 'nobody'"),
        ({"person": "operator"}, "send"),
    ],
)
def test_answer_to_nothing_is_refused(request_: dict[str, Any], why: str) -> None:
    """Whoever answers too early is told so."""

    async def conversation(bench: Bench, ask: Ask, talk: Talk, task: Task) -> None:
        del bench, talk, task
        assert why in ask(**request_)["error"]

    play(conversation)
