"""How the command line words what can be done: one table from code to command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from ppu.core.remedies import Advice, Remedy

__all__ = ["COMMANDS", "worded"]

COMMANDS: Final[Mapping[Remedy, str]] = {
    Remedy.ACCEPT_STORE: "ppu recover --accept-store",
    Remedy.ALLOW_HEAT: "ppu recover --may-heat",
    Remedy.ANSWER: "ppu recover {job}",
    Remedy.ATTEND: "say --attended",
    Remedy.CHECK_STOCK: "ppu stock {powder}",
    Remedy.EXPLAIN: "--note WHY",
    Remedy.INSTALL_PROTOCOL: "install {protocol} {version}, then start the cell anew",
    Remedy.MOVE_CONTAINER: "ppu samples --move {container}={location}",
    Remedy.REFILL: "ppu stock {powder} --refill GRAMS",
    Remedy.RELEASE_SAMPLE: "ppu samples --release {sample}",
    Remedy.REPORT: "report it with the job's documents",
    Remedy.RESUME: "ppu resume {job}",
    Remedy.RETRY: "ppu retry {job}",
    Remedy.RETURN_DEVICE: "ppu device return {device}",
    Remedy.START_CELL: "ppu cell",
    Remedy.START_GUARD: "ppu guard",
    Remedy.WRITE_BENCH: "ppu sim --write-lab",
}
"""What to type; a name in capitals stands for what nobody could know."""


class _Arguments(defaultdict[str, str]):
    """Arguments by name; one that is not given is its own name in capitals."""

    def __missing__(self, name: str) -> str:
        return name.upper()


def worded(text: str, advice: Iterable[Advice]) -> str:
    """Return *text* with the commands that help.

    Example:
        >>> from ppu.core.remedies import advise
        >>> worded("cup_1 is lost", [advise(Remedy.MOVE_CONTAINER, container="cup_1")])
        'cup_1 is lost (ppu samples --move cup_1=LOCATION)'
        >>> worded("all is well", [])
        'all is well'
    """
    commands = [
        COMMANDS[one.remedy].format_map(_Arguments(None, one.arguments))
        for one in advice
    ]
    return f"{text} ({'; '.join(dict.fromkeys(commands))})" if commands else text
