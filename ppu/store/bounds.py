"""Bounds of numbers that come from outside: what a store of either kind can keep."""

from __future__ import annotations

import operator
from typing import Any, Final

from ppu.core.errors import ConfigurationError

__all__ = [
    "MOST_ROWS",
    "bounded_deadline",
    "bounded_deadline_s",
    "bounded_event",
    "bounded_job",
    "bounded_limit",
    "bounded_priority",
]

MOST_ROWS: Final = 10**6
"""How many rows one question may return."""
_BIG: Final = 2**63 - 1
_INTEGER: Final = 2**31 - 1
_TOO_LONG: Final = 10**40
_END_OF_9999: Final = 253402300799.0
"""The last moment that has a date [s since 1970]."""
_CENTURY_S: Final = 100 * 365.25 * 86400.0


def bounded_job(value: Any) -> int:
    """Return the number of a job.

    Raises:
        ConfigurationError: If no job can have it.
    """
    return _bounded("job", value, 1, _BIG)


def bounded_event(value: Any) -> int:
    """Return the number of an event, 0 for the one before the first.

    Raises:
        ConfigurationError: If no event can have it.
    """
    return _bounded("event", value, 0, _BIG)


def bounded_limit(value: Any) -> int:
    """Return how many rows are asked for at most.

    Raises:
        ConfigurationError: If that is none, or too many to be kept in memory.
    """
    return _bounded("limit", value, 1, MOST_ROWS)


def bounded_priority(value: Any) -> int:
    """Return a priority.

    Raises:
        ConfigurationError: If it is no whole number, or too large.
    """
    return _bounded("priority", value, -_INTEGER, _INTEGER)


def bounded_deadline(value: float) -> float:
    """Return a deadline [s since 1970].

    Raises:
        ConfigurationError: If it has no date.
    """
    if not 0 <= value <= _END_OF_9999:
        raise ConfigurationError(
            f"deadline: should be a moment from 1970 to 9999; given was {value:g} s "
            "since 1970"
        )
    return value


def bounded_deadline_s(value: float) -> float:
    """Return a deadline as a duration [s].

    Raises:
        ConfigurationError: If it is none, or longer than a century.
    """
    if not 0 <= value <= _CENTURY_S:
        raise ConfigurationError(
            "deadline_s: should be a duration from 0 s to a century, "
            f"{_CENTURY_S:.2g} s; given was {value:g} s"
        )
    return value


def _bounded(where: str, value: Any, least: int, most: int) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is not None and least <= number <= most:
        return number
    # Python does not print numbers of thousands of digits.
    is_long = number is not None and abs(number) >= _TOO_LONG
    given = "one of more than 40 digits" if is_long else repr(value)
    raise ConfigurationError(
        f"{where}: should be a whole number from {least} to {most}; given was {given}"
    )
