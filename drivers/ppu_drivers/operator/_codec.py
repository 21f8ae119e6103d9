"""The sentences that people are asked with, and what their answers mean."""

from __future__ import annotations

from ppu.core.errors import MalformedReply
from ppu.core.tasks import Carry, Grind, Task

__all__ = [
    "parse_answer",
    "word_task",
]

_YES = frozenset({"done", "ok", "okay", "yes", "y"})
"""What people at a terminal say instead of ``done``."""


def word_task(task: Task) -> str:
    """Return what a person is asked to do.

    Example:
        >>> word_task(Carry("crucible_01", "rack_1.1", "balance.pan"))
        'carry crucible_01 from rack_1.1 to balance.pan'
    """
    if isinstance(task, Carry):
        return f"carry {task.container} from {task.origin} to {task.destination}"
    if isinstance(task, Grind):
        return f"grind {task.container} for {task.duration_s:g} s"
    return f"mount powder of {task.container} in {task.holder}"


def parse_answer(answer: str) -> tuple[bool, str]:
    """Return whether *answer* says that it was done, and otherwise why not.

    Raises:
        MalformedReply: If it says neither.

    Example:
        >>> parse_answer("Done.")
        (True, '')
        >>> parse_answer("refused: the crucible is hot")
        (False, 'the crucible is hot')
    """
    first, _, rest = answer.strip().partition(" ")
    word = first.rstrip(".,:;!").lower()
    if word == "done" or (word in _YES and not rest):
        return True, ""
    if word == "refused":
        return False, rest.strip()
    raise MalformedReply(
        f"answered {answer!r}; allowed are done, or refused and a reason"
    )
