"""Exit codes of every command, and which one an error becomes."""

from __future__ import annotations

from enum import IntEnum

from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    ConflictError,
    InterlockError,
    LimitError,
    NotFoundError,
    PPUError,
    TakenOverError,
    TransportError,
)
from ppu.core.stopping import INTERRUPTED_CODE, TAKEN_OVER_CODE

__all__ = ["EXIT_MEANINGS", "Exit", "code_of"]


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    WRONG_INPUT = 2
    REFUSED = 3
    FAILED = 4
    UNREACHABLE = 5
    TAKEN_OVER = TAKEN_OVER_CODE
    INTERRUPTED = INTERRUPTED_CODE


EXIT_MEANINGS = {
    Exit.DONE: "done, and all is well",
    Exit.WRONG_INPUT: "wrong input: correct the command line or a file",
    Exit.REFUSED: "refused: a limit, the stock or an interlock forbids it",
    Exit.FAILED: "failed: a run, a job, a check or a store; the message says what",
    Exit.UNREACHABLE: "an instrument could not be reached",
    Exit.TAKEN_OVER: "another cell owns the lab by now",
    Exit.INTERRUPTED: "stopped by a person or a signal",
}
"""What the codes mean; `docs/reference/exit-codes.md` says the same."""


def code_of(exc: PPUError, *, has_started: bool = False) -> Exit:
    """Return the exit code for *exc*."""
    if isinstance(exc, AbortedError):
        return Exit.INTERRUPTED
    if isinstance(exc, TakenOverError):
        return Exit.TAKEN_OVER
    if has_started:
        return Exit.FAILED
    if isinstance(exc, ConfigurationError | NotFoundError | ConflictError):
        return Exit.WRONG_INPUT
    if isinstance(exc, LimitError | InterlockError):
        return Exit.REFUSED
    if isinstance(exc, TransportError):
        return Exit.UNREACHABLE
    return Exit.FAILED
