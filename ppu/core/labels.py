"""Labels: what people call things that have only names for programs."""

from __future__ import annotations

from typing import Any

__all__ = ["label_of"]


def label_of(name: str, arguments: Any) -> str:
    """Return a step in words: its name and what it acts on.

    Args:
        name: Name of the step.
        arguments: Its arguments as the journal has them: the lab and positional ones,
            then named ones; nothing if there are none.

    Example:
        >>> label_of("move_container", [["lab a-lab", "cup_1", "balance.pan"], {}])
        'move container: cup_1, balance.pan'
    """
    words = arguments[0][1:] if arguments else []
    names = [word for word in words if isinstance(word, str)]
    told = name.replace("_", " ")
    return f"{told}: {', '.join(names)}" if names else told
