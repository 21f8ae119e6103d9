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
    "ends_answer_to",
    "parse_is_stable",
    "parse_mass",
    "parse_stable_weight",
    "parse_text",
    "parse_weight",
]

_GRAMS: Final = {"g": 1.0, "kg": 1000.0, "mg": 1e-3, "ug": 1e-6}
# Balances exist with a decimal comma, and with a sign before every number.
_WEIGHT = re.compile(r"(S|T|TA|SI) (S|D) +([+-]? *\d+(?:[.,]\d+)?) +(\w+) *")
_ERRORS: Final = {
    "ES": "it does not know the command (syntax error)",
    "ET": "it received a character with a wrong parity or a break",
    "EL": "it cannot execute the command (logical error)",
}
_STATES: Final = {
    "D": "the weight is not stable",
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
    *_, line = lines
    _refuse(line)
    match = _WEIGHT.fullmatch(line)
    if match is None:
        raise MalformedReply(f"{line!r} is no weight")
    unit = match[4]
    if unit not in _GRAMS:
        raise MalformedReply(f"{line!r} has the unit {unit!r}; set the host unit to g")
    number = float(match[3].replace(" ", "").replace(",", "."))
    return Weight(number * _GRAMS[unit], match[2] == "S")


def parse_stable_weight(lines: list[str]) -> Weight:
    """Return the weight in the answer to S.

    Raises:
        InstrumentError: As for :func:`parse_weight`; with code ``D`` for a weight that
            still changes, which is none.
        MalformedReply: If the manual does not allow the answer.
    """
    weight = parse_weight(lines)
    if not weight.is_stable:
        raise InstrumentError(f"{_STATES['D']}: {lines[-1]!r}", "D")
    return weight


def parse_is_stable(lines: list[str]) -> bool:
    """Return whether the weight in the answer to SI is stable."""
    return parse_weight(lines).is_stable


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
    *_, line = lines
    _refuse(line)
    match = re.fullmatch(r'\w+ A "([^"]*)"', line)
    if match is None:
        raise MalformedReply(f"{line!r} is no text")
    return match[1]


def ends_answer_to(command: str) -> Callable[[str], bool]:
    """Return what tells whether a line ends the answer to *command*.

    Whoever presses Print makes the balance send a weight at any moment, which answers
    nothing.

    Example:
        >>> ends = ends_answer_to("T")
        >>> ends("S S     100.00 g"), ends("T S     100.00 g"), ends("ES")
        (False, True, True)
    """

    def ends(line: str) -> bool:
        return line in _ERRORS or line.partition(" ")[0] == command

    return ends


def acknowledgement_of(command: str) -> Callable[[list[str]], None]:
    """Return what accepts the answers to *command*, such as ``Z A``.

    It raises InstrumentError if the balance refused, or did what was asked with a
    weight that was not stable, and MalformedReply if the manual does not allow the
    answer or it belongs to another command.

    Example:
        >>> acknowledgement_of("T")(["T S     100.00 g"])
    """

    def parse(lines: list[str]) -> None:
        *_, line = lines
        _refuse(line)
        match = re.fullmatch(rf"{command} ([ASD])( .*)?", line)
        if match is None:
            raise MalformedReply(f"{line!r} is no acknowledgement of {command}")
        if match[1] == "D":
            raise InstrumentError(f"{_STATES['D']}: {line!r}", "D")

    return parse
