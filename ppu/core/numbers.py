"""Numbers as people write them: plain decimals, read alike at every door.

What other readers take for a number in one way or another (``0750``, ``0x10``,
``1_000``, ``1:30``, digits of other scripts) is text here, and where a number is
expected a fault that names the plain form.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "MOST_INTEGER",
    "NotPlainError",
    "integer_option",
    "not_a_number",
    "not_a_whole_number",
    "number_option",
    "read_integer",
    "read_number",
    "read_scalar",
]

NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
MOST_INTEGER: Final = 2**63 - 1
"""What a store and other programs can keep of a whole number."""
_MOST_SHOWN: Final = 60
_ALMOST: Final = re.compile(r"([-+]?)0*([0-9]*)\.?([0-9]*)((?:[eE][-+]?[0-9]+)?)")


class NotPlainError(ValueError):
    """A text is no number that is meant alike by everybody; says what is."""


def read_scalar(text: str) -> bool | int | float | str:
    """Return what *text* means where anything may stand.

    Raises:
        NotPlainError: If it is a number that nobody can keep.

    Example:
        >>> [read_scalar(text) for text in ("750", "7.5e2", "true", "0750", "yes")]
        [750, 750.0, True, '0750', 'yes']
    """
    if text in ("true", "false"):
        return text == "true"
    return text if NUMBER.fullmatch(text) is None else _plain(text)


def read_number(text: str) -> float:
    """Return the number that *text* is.

    Raises:
        NotPlainError: If it is none.

    Example:
        >>> read_number("1.5e3")
        1500.0
        >>> read_number("0750")
        Traceback (most recent call last):
        ...
        ppu.core.numbers.NotPlainError: should be a number such as 750, 0.5 or 2e-3; \
given was '0750' (write 750 if that is meant)
    """
    if NUMBER.fullmatch(text) is None:
        raise NotPlainError(not_a_number(text))
    return float(_plain(text))


def read_integer(text: str) -> int:
    """Return the whole number that *text* is.

    Raises:
        NotPlainError: If it is none, or has more than 64 bits.
    """
    if _INTEGER.fullmatch(text) is None:
        raise NotPlainError(not_a_whole_number(text))
    return _integer(text)


def integer_option(
    least: int = -MOST_INTEGER, most: int = MOST_INTEGER
) -> Callable[[Any], int]:
    """Return what reads a command's whole number, from *least* to *most*."""

    def read(given: Any) -> int:
        number = read_integer(given) if isinstance(given, str) else int(given)
        if least <= number <= most:
            return number
        if most == MOST_INTEGER:
            raise NotPlainError(f"should be {least} or more; given was {number}")
        raise NotPlainError(f"should be from {least} to {most}; given was {number}")

    return read


def number_option(
    least: float = -math.inf, most: float = math.inf
) -> Callable[[Any], float]:
    """Return what reads a command's number, from *least* to *most*."""

    def read(given: Any) -> float:
        number = read_number(given) if isinstance(given, str) else float(given)
        if least <= number <= most:
            return number
        raise NotPlainError(f"should be {least:g} to {most:g}; given was {number:g}")

    return read


def not_a_number(given: Any) -> str:
    """Return what is wrong with *given* where a number is expected."""
    if isinstance(given, str) and NUMBER.fullmatch(given):
        try:
            return f"should be no text; leave away the quotes of {_plain(given):g}"
        except NotPlainError as exc:
            return str(exc)
    return f"should be a number such as 750, 0.5 or 2e-3; given was {_told(given)}"


def not_a_whole_number(given: Any) -> str:
    """Return what is wrong with *given* where a whole number is expected."""
    return f"should be a whole number such as 750; given was {_told(given)}"


def _told(given: Any) -> str:
    text = "nothing" if given is None else repr(given)
    if len(text) > _MOST_SHOWN:
        text = text[: _MOST_SHOWN - 3] + "..."
    plain = _plain_form(given) if isinstance(given, str) else None
    if plain is None or NUMBER.fullmatch(str(given)):  # written well, yet not allowed
        return text
    return f"{text} (write {plain} if that is meant)"


def _plain_form(text: str) -> str | None:
    """Return the plain decimal that a person most likely means by *text*.

    Example:
        >>> [_plain_form(text) for text in ("0750", "1_000", ".5", "1,5", "0x10", "a")]
        ['750', '1000', '0.5', '1.5', None, None]
    """
    digits = "".join(
        str(unicodedata.decimal(character, character)) for character in text[:40]
    )
    bare = unicodedata.normalize("NFKC", digits).replace("_", "").strip()
    if bare.count(",") == 1 and "." not in bare:
        bare = bare.replace(",", ".")
    match = _ALMOST.fullmatch(bare)
    if match is None or not (match[2] or match[3]) or len(text) > len(digits):
        return None
    sign, whole, part, power = match.groups()
    return f"{sign}{whole or '0'}{f'.{part}' if part else ''}{power}"


def _plain(text: str) -> int | float:
    return _integer(text) if _INTEGER.fullmatch(text) else _float(text)


def _integer(text: str) -> int:
    # Python does not read digits by the thousand.
    if len(text) <= 20 and abs(number := int(text)) <= MOST_INTEGER:
        return number
    raise NotPlainError(
        f"should be a whole number of at most 64 bits, {MOST_INTEGER}; given was "
        f"{_told(text)}"
    )


def _float(text: str) -> float:
    number = float(text)
    mantissa = re.split("[eE]", text)[0]
    if math.isinf(number) or (number == 0 and re.search("[1-9]", mantissa)):
        size = "large" if number else "small"
        raise NotPlainError(f"is too {size} for a number; given was {_told(text)}")
    return number
