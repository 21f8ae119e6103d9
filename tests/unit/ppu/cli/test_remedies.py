"""How the command line words what can be done."""

from typing import Any

import pytest
import typer

from ppu.cli.remedies import COMMANDS, worded
from ppu.core.remedies import Advice, Remedy, advise


@pytest.mark.parametrize("remedy", Remedy)
def test_every_remedy_has_its_words(remedy: Remedy) -> None:
    """Nobody is advised by a code alone."""
    assert worded("it is so", [Advice(remedy)]).startswith("it is so (")


def test_remedies_name_commands_that_there_are(command: Any) -> None:
    """What people are told to type begins with a command of PPU's own."""
    names = {
        words.split()[1] for words in COMMANDS.values() if words.startswith("ppu ")
    }

    assert names <= set(command.list_commands(typer.Context(command)))


def test_advice_is_given_once() -> None:
    """Two causes with one remedy do not repeat it; all that is known is filled in."""
    advice = [
        advise(Remedy.RELEASE_SAMPLE),
        advise(Remedy.MOVE_CONTAINER, container="cup_1", location="rack.1"),
        advise(Remedy.RELEASE_SAMPLE),
    ]

    assert worded("none is free", advice) == (
        "none is free (ppu samples --release SAMPLE; ppu samples --move cup_1=rack.1)"
    )
