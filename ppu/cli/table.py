"""Lines of tables: none is longer than the terminal is wide."""

from __future__ import annotations

import shutil
import textwrap

from ppu.core.names import shown

__all__ = ["fitted", "with_reason"]

_NO_TERMINAL = 100_000
"""Columns of a pipe or a file: what reads it gets all."""
_NARROWEST = 20
_MOST_LINES = 4
"""Of a reason; who wants to know all of it looks at the one thing."""


def fitted(line: str) -> str:
    """Return *line* as one line that fits the terminal, an ellipsis for what does not.

    ``$COLUMNS`` says how wide the terminal is, if it is set.
    """
    return _cut(_one_line(line), _width())


def with_reason(line: str, reason: str) -> str:
    """Return *line* with its reason behind it, or below it if it does not fit there.

    So a narrow terminal shows the reason, too.
    """
    if not reason:
        return fitted(line)
    width = _width()
    both = f"{_one_line(line)}  ({_one_line(reason)})"
    if len(both) <= width:
        return both
    indent = " " * 8
    below = textwrap.wrap(
        _one_line(reason),
        max(width, _NARROWEST),
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=_MOST_LINES,
        placeholder=" \N{HORIZONTAL ELLIPSIS}",
    )
    return "\n".join([fitted(line), *below])


def _width() -> int:
    return shutil.get_terminal_size((_NO_TERMINAL, 24)).columns


def _one_line(text: str) -> str:
    return shown(" ".join(part.rstrip() for part in text.splitlines()))


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return text[: max(width - 1, 0)] + "\N{HORIZONTAL ELLIPSIS}"
