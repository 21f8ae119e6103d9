"""MT-SICS, the language of the balance: what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ppu.core.errors import InstrumentError, MalformedReply

__all__ = [
    "Weight",
    "acknowledgement_of",
    "parse_mass",
    "parse_text",
    "parse_weight",
]

_GRAMS: Final = {"g": 1.0, "kg": 1000.0, "mg": 1e-3, "ug": 1e-6}
_WEIGHT = re.compile(r"(S|T|TA|SI) (S|D) +(-?\d+(?:\.\d+)?) (\w+) *")
_ERRORS: Final = {
    "ES": "it does not know the command (syntax error)",
    "ET": "it received a character with a wrong parity or a break",
    "EL": "it cannot execute the command (logical error)",
}
_STATES: Final = {
    "I": "it is busy, or did not become stable in time",
    "L": "it does not allow the parameter",
    "+": "it is overloaded",
    "-": "it is underloaded; is the pan in place?",
}


@dataclass(frozen=True)
class Weight:
    """A weight as the balance sent it."""

    mass_g: float
    is_stable: bool


def _refuse(line: str) -> None:
    """Raise what *line* says is wrong, if it is an error of the manual."""
    if line in _ERRORS:
        raise InstrumentError(f"the balance refused: {_ERRORS[line]}", line)
    error = re.fullmatch(r"(\w+) S Error (\d+)([bt])", line)
    if error is not None:
        number = error[2] + error[3]
        raise InstrumentError(f"the balance reports internal error {number}", number)
    state = re.fullmatch(r"(\w+|@) ([IL+-])", line)
    if state is not None:
        raise InstrumentError(f"the balance refused: {_STATES[state[2]]}", state[2])


def parse_weight(lines: list[str]) -> Weight:
    """Return the weight in the answer to S, SI, T or TI.

    Raises:
        InstrumentError: If the balance refused or is over- or underloaded.
        MalformedReply: If the manual does not allow the answer.

    Example:
        >>> parse_weight(["S S     100.00 g"])
        Weight(mass_g=100.0, is_stable=True)
    """
    (line,) = lines
    _refuse(line)
    match = _WEIGHT.fullmatch(line)
    if match is None:
        raise MalformedReply(f"{line!r} is no weight")
    unit = match[4]
    if unit not in _GRAMS:
        raise MalformedReply(f"{line!r} has the unit {unit!r}; set the host unit to g")
    return Weight(float(match[3]) * _GRAMS[unit], match[2] == "S")


def parse_mass(lines: list[str]) -> float:
    """Return the mass in the answer to S, SI, T or TI [g]."""
    return parse_weight(lines).mass_g


def parse_text(lines: list[str]) -> str:
    """Return the quoted text of an answer such as ``I4 A "0123456789"``.

    Raises:
        InstrumentError: If the balance refused.
        MalformedReply: If the manual does not allow the answer.

    Example:
        >>> parse_text(['I4 A "B021002593"'])
        'B021002593'
    """
    (line,) = lines
    _refuse(line)
    match = re.fullmatch(r'\w+ A "([^"]*)"', line)
    if match is None:
        raise MalformedReply(f"{line!r} is no text")
    return match[1]


def acknowledgement_of(command: str) -> Callable[[list[str]], None]:
    """Return what accepts the answers to *command*, such as ``Z A``.

    It raises InstrumentError if the balance refused, and MalformedReply if the manual
    does not allow the answer or it belongs to another command.

    Example:
        >>> acknowledgement_of("T")(["T S     100.00 g"])
    """

    def parse(lines: list[str]) -> None:
        (line,) = lines
        _refuse(line)
        if re.fullmatch(rf"{command} [ASD]( .*)?", line) is None:
            raise MalformedReply(f"{line!r} is no acknowledgement of {command}")

    return parse
