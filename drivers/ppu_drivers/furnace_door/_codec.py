"""The language of the door controller: requests, and what a status says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from ppu.core.errors import MalformedReply
from ppu.core.tasks import DoorState

__all__ = [
    "COMMANDS",
    "DoorStatus",
    "parse_state",
    "parse_status",
]

COMMANDS: Final[dict[DoorState, str]] = {"open": "Open", "closed": "Close"}
_STATUS = re.compile(r"State: (RUNNING|STOP|ERROR)((?:; ?[^;:]+: [^;]*)*);?")
_FIELD = re.compile(r"; ?([^;:]+): ([^;]*)")


@dataclass(frozen=True)
class DoorStatus:
    """What the controller says of itself and its doors."""

    state: Literal["RUNNING", "STOP", "ERROR"]
    doors: dict[str, str]
    """``Open``, ``Closed`` or neither, by the controller's name of the door."""
    serial_number: str | None = None


def parse_status(line: str) -> DoorStatus:
    """Return the status in the answer to ``Status``.

    Raises:
        MalformedReply: If it is none.

    Example:
        >>> parse_status("State: STOP; Furnace A: Closed")
        DoorStatus(state='STOP', doors={'A': 'Closed'}, serial_number=None)
    """
    match = _STATUS.fullmatch(line.strip())
    if match is None:
        raise MalformedReply(f"{line!r} is no status of a door controller")
    fields = dict(_FIELD.findall(match[2]))
    doors = {
        label.removeprefix("Furnace "): state.strip()
        for label, state in fields.items()
        if label.startswith("Furnace ")
    }
    return DoorStatus(
        match[1],  # type: ignore[arg-type]  # the pattern allows nothing else
        doors,
        fields.get("Serial"),
    )


def parse_state(lines: list[str]) -> str:
    (line,) = lines
    return parse_status(line).state
