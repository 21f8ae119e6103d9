"""Names and remarks that people give: what may be in one, and how it is shown.

A character that cannot be seen can act: it moves a terminal's cursor, turns the
direction of writing, begins a line of its own. So none comes into a name, and none is
printed that came from elsewhere.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from ppu.core.errors import ConfigurationError

__all__ = [
    "MOST_LETTERS",
    "checked_name",
    "checked_text",
    "shown",
    "unseen",
    "wrong_with_name",
]

MOST_LETTERS: Final = 200
"""Of a name; what is longer is no name."""
_MOST_REMARK: Final = 10_000


def unseen(text: str) -> str:
    r"""Return which character of *text* cannot be seen, nothing if all can.

    Example:
        >>> unseen("a\x1b[2J"), unseen("BaTiO3 at 800 °C")
        ('the character U+001B at place 2', '')
    """
    if text.isprintable():
        return ""
    place = next(i for i, letter in enumerate(text) if not letter.isprintable())
    letter = text[place]
    name = unicodedata.name(letter, "")
    told = f"the character U+{ord(letter):04X} at place {place + 1}"
    return f"{told} ({name.lower()})" if name else told


def shown(text: str, keep: str = "") -> str:
    r"""Return *text* with every character that cannot be seen as its escape.

    Args:
        text: Anything, from wherever it came.
        keep: Characters that stay, such as a newline between lines of our own.

    Example:
        >>> print(shown("a\x1b[2J\nb"), shown("two\nlines", keep="\n"), sep="; ")
        a\x1b[2J\nb; two
        lines
    """
    if text.translate(dict.fromkeys(map(ord, keep))).isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def checked_text(where: str, text: str, most: int = _MOST_REMARK) -> str:
    """Return a remark that people give, if it can be shown as it is.

    Args:
        where: What it is, for the error.
        text: What was given.
        most: How long it may be.

    Raises:
        ConfigurationError: If a character of it cannot be seen, or it is too long.
    """
    if wrong := _wrong_with(text, most):
        raise ConfigurationError(f"{where}: {wrong}")
    return text


def checked_name(where: str, text: str) -> str:
    """Return a name that people give, if it is one.

    Raises:
        ConfigurationError: If it is empty, too long, begins or ends with a blank, or a
            character of it cannot be seen.
    """
    if wrong := wrong_with_name(text):
        raise ConfigurationError(f"{where}: {wrong}")
    return text


def _wrong_with(text: str, most: int) -> str:
    if hidden := unseen(text):
        return (
            f"has {hidden}, which cannot be seen; leave it away; given was "
            f"'{shown(text[:60])}'"
        )
    if len(text) > most:
        return f"has {len(text)} characters, allowed are {most}"
    return ""


def wrong_with_name(text: str) -> str:
    """Return what is wrong with a name, nothing if it is one."""
    if not text:
        return "is empty; give a name"
    if text != text.strip():
        return f"should not begin or end with a blank; given was '{shown(text)}'"
    return _wrong_with(text, MOST_LETTERS)
