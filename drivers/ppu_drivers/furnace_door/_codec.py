"""The language of the door controller: requests, and what a status says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.tasks import DoorState

__all__ = [
    "COMMANDS",
    "DoorStatus",
    "check_acknowledgement",
    "parse_state",
    "parse_status",
]

COMMANDS: Final[dict[DoorState, str]] = {"open": "Open", "closed": "Close"}
_STATUS = re.compile(r"State: (RUNNING|STOP|ERROR)((?:; ?[^;:]+: [^;]*)*);?")
_ACKNOWLEDGED = re.compile(r"(Opening|Closing) furnace \w+\.\.\.")
_REFUSED: Final = "Wrong command"
_FIELD = re.compile(r"; ?([^;:]+): ([^;]*)")


@dataclass(frozen=True)
class DoorStatus:
    """What the controller says of itself and its doors."""

    state: Literal["RUNNING", "STOP", "ERROR"]
    doors: dict[str, str]
    """``Open``, ``Closed`` or ``Unknown``, by the controller's name of the door. A door
    that moves is still called what it was before."""
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


def check_acknowledgement(lines: list[str]) -> None:
    """Accept the answer to a request to open or close.

    It is acknowledged if the door begins to move, and answered with the status if it
    need not or cannot.

    Raises:
        InstrumentError: If the controller does not know the request.
        MalformedReply: If it is no answer of a door controller.

    Example:
        >>> check_acknowledgement(["Opening furnace A..."])
    """
    (line,) = lines
    if line.strip() == _REFUSED:
        raise InstrumentError(f"the controller says {_REFUSED!r}", _REFUSED)
    if _ACKNOWLEDGED.fullmatch(line.strip()) is None:
        parse_status(line)
