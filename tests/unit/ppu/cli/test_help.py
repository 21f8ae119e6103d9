"""What ``--help`` of each command says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ppu.cli.main import app


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command, and of all that it has within."""
    yield words
    if hasattr(command, "list_commands"):
        with command.make_context("ppu", [], resilient_parsing=True) as context:
            for name in command.list_commands(context):
                yield from _commands((*words, name), command.get_command(context, name))


def _find(words: tuple[str, ...]) -> Any:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.get_command(None, word)
    return command


COMMANDS = sorted(_commands((), typer.main.get_command(app)))


def test_there_are_commands_to_try() -> None:
    """The list that the tests below go through has groups and what is in them."""
    assert len(COMMANDS) > 35
    assert {("run",), ("store", "backup"), ("analyse", "xrd")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_that_parses(words: tuple[str, ...]) -> None:
    """Who copies the example of a command has called that command, rightly."""
    found = re.search(
        r"(?:Example|Try): (ppu .*?)(?:\n\n|$)", _find(words).epilog or ""
    )
    assert found is not None, "no example"
    example = shlex.split(found[1].partition(" > ")[0])[1:]
    called = next(
        example[:n]
        for n in range(len(example), 0, -1)
        if tuple(example[:n]) in set(COMMANDS)
    )
    assert tuple(called[: len(words)]) == words
    rest = example[len(called) :]
    with _find(tuple(called)).make_context("ppu", rest) as context:
        assert not context.args


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_says_what_each_option_is(words: tuple[str, ...]) -> None:
    """No command, argument or option stands there without a sentence of its own."""
    command = _find(words)
    assert re.match(r"(PPU|[A-Z][a-z]+\b).*", command.help)
    silent = [
        one.name
        for one in command.params
        if one.name != "help"
        and not (getattr(one, "help", "") or "").endswith((".", ")"))
    ]
    assert silent == []
