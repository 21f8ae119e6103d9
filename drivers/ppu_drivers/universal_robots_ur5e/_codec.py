"""The language of the dashboard server: what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from ppu.core.errors import InstrumentError, MalformedReply

__all__ = [
    "ProgramState",
    "acknowledgement_beginning",
    "answer_beginning",
    "field_named",
    "is_path_of",
    "is_state_of",
    "parse_line",
    "parse_loaded_program",
    "parse_program_state",
    "parse_remote_control",
    "parse_state",
]

_REFUSALS: Final = (
    "Failed to execute",
    "File not found",
    "Error while loading program",
    "could not understand",
    "Command is not allowed",
    "Not in remote control",
    "Cannot unlock protective stop",
)


@dataclass(frozen=True)
class ProgramState:
    """What the controller says of its program."""

    state: Literal["STOPPED", "PLAYING", "PAUSED"]
    program: str


def _refuse(line: str) -> None:
    """Raise what *line* says if it is a refusal."""
    if line.startswith(_REFUSALS):
        raise InstrumentError(f"the controller refused: {line}", line)


def field_named(label: str) -> Callable[[list[str]], str]:
    """Return what reads the value in answers such as ``Robotmode: RUNNING``.

    Example:
        >>> field_named("Robotmode")(["Robotmode: RUNNING"])
        'RUNNING'
    """

    def parse(lines: list[str]) -> str:
        (line,) = lines
        _refuse(line)
        match = re.fullmatch(rf"{label}: (\S+)", line)
        if match is None:
            raise MalformedReply(f"{line!r} says no {label}")
        return match[1]

    return parse


def answer_beginning(beginning: str) -> Callable[[list[str]], str]:
    """Return what accepts answers with a certain *beginning*; it gives the rest.

    Example:
        >>> answer_beginning("Loading program: ")(["Loading program: home.urp"])
        'home.urp'
    """

    def parse(lines: list[str]) -> str:
        (line,) = lines
        _refuse(line)
        if not line.startswith(beginning):
            raise MalformedReply(f"{line!r} does not begin with {beginning!r}")
        return line.removeprefix(beginning)

    return parse


def acknowledgement_beginning(beginning: str) -> Callable[[list[str]], None]:
    """Return what accepts answers with a certain *beginning*."""
    parse = answer_beginning(beginning)

    def accept(lines: list[str]) -> None:
        parse(lines)

    return accept


def parse_program_state(lines: list[str]) -> ProgramState:
    """Return the answer to ``programState``.

    Raises:
        InstrumentError: If the controller refused.
        MalformedReply: If the manual does not allow the answer.

    Example:
        >>> parse_program_state(["PLAYING home.urp"])
        ProgramState(state='PLAYING', program='home.urp')
    """
    (line,) = lines
    _refuse(line)
    state, _, program = line.partition(" ")
    if state not in ("STOPPED", "PLAYING", "PAUSED"):
        raise MalformedReply(f"{line!r} is no program state")
    return ProgramState(state, program)  # type: ignore[arg-type]  # it is one of the three


def parse_remote_control(lines: list[str]) -> bool:
    """Return the answer to ``is in remote control``.

    Raises:
        InstrumentError: If the controller refused.
        MalformedReply: If the manual does not allow the answer.

    Example:
        >>> parse_remote_control(["true"])
        True
    """
    (line,) = lines
    _refuse(line)
    if line not in ("true", "false"):
        raise MalformedReply(f"{line!r} is neither true nor false")
    return line == "true"


def parse_state(lines: list[str]) -> str:
    return parse_program_state(lines).state


def parse_loaded_program(lines: list[str]) -> str:
    """Return the path in the answer to ``get loaded program``, empty if none is."""
    (line,) = lines
    _refuse(line)
    if line == "No program loaded":
        return ""
    # The manual has a label before the path; another driver reads the path alone.
    path = line.removeprefix("Loaded program: ")
    if not path.endswith(".urp"):
        raise MalformedReply(f"{line!r} names no program")
    return path


def parse_line(lines: list[str]) -> str:
    (line,) = lines
    _refuse(line)
    return line


def is_path_of(path: str, program: str) -> bool:
    """Return whether the controller's *path* is that of a *program* of the lab file.

    Example:
        >>> is_path_of("/programs/ppu/home.urp", "ppu/home.urp")
        True
    """
    return f"/{path}".endswith(f"/{program}")


def is_state_of(state: ProgramState, program: str) -> bool:
    """Return whether *state* can be that of *program*: names come without folders.

    Example:
        >>> is_state_of(ProgramState("PLAYING", "home.urp"), "ppu/home.urp")
        True
    """
    if not state.program:
        return True
    return is_path_of(state.program, program) or is_path_of(program, state.program)
