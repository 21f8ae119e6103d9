"""Lines of tables: none is longer than the terminal is wide."""

from __future__ import annotations

import shutil

__all__ = ["fitted"]

_NO_TERMINAL = 100_000
"""Columns of a pipe or a file: what reads it gets all."""


def fitted(line: str) -> str:
    """Return *line* as one line that fits the terminal, an ellipsis for what does not.

    ``$COLUMNS`` says how wide the terminal is, if it is set.
    """
    width = shutil.get_terminal_size((_NO_TERMINAL, 24)).columns
    text = " ".join(part.rstrip() for part in line.splitlines())
    return (
        text
        if len(text) <= width
        else text[: max(width - 1, 0)] + "\N{HORIZONTAL ELLIPSIS}"
    )
