"""The errors of PPU, arranged by who must act.

::

    PPUError
    ├── ConfigurationError      somebody must correct a file or an argument
    ├── NotFoundError           nothing has that name or number; name another
    ├── ConflictError           its present state, or what was said before, forbids it
    ├── TransportError          the path to the instrument failed; retry or reconnect
    │   ├── ConnectError            it could not be opened, or a stranger answered
    │   ├── ReplyTimeout            no (complete) reply before the deadline
    │   └── LinkBroken              the path was lost while in use
    ├── CodecError
    │   ├── MalformedReply          the remote sent something its manual forbids
    │   └── UnencodableRequest      we tried to send something it cannot express
    ├── InstrumentError         the instrument answered, and refused or failed
    ├── LimitError              a limit or a stock forbids it; an operator must act
    ├── InterlockError          a rule about the present state forbids it
    ├── NothingToJoinError      what was under way is not there any more; ask a person
    ├── StoreError              the store did not keep it; what to do is in the text
    │   ├── StoreBusyError          somebody else writes, or too much waits; try again
    │   ├── StoreDiskError          the disk is full or fails; free or replace it
    │   └── StoreDamagedError       the file is torn or no store; restore a backup
    ├── StaleTokenError         this cell may own the lab no longer and must stop
    │   └── TakenOverError          the store says that another one owns it
    ├── AbortedError            somebody asked to stop
    └── InternalError           a mistake of PPU's own
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ppu.core.remedies import Advice

__all__ = [
    "AbortedError",
    "CodecError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "DivergedError",
    "InstrumentError",
    "InterlockError",
    "InternalError",
    "LimitError",
    "LinkBroken",
    "MalformedReply",
    "NotFoundError",
    "NothingToJoinError",
    "PPUError",
    "ReplyTimeout",
    "StaleTokenError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreDiskError",
    "StoreError",
    "TakenOverError",
    "TransportError",
    "UnencodableRequest",
    "nearest",
]


class PPUError(Exception):
    """Base of every error that PPU raises on purpose.

    Args:
        text: What is wrong, for people; it names no door's command or option.
        advice: What can be done about it, which each door words for itself.
    """

    def __init__(self, text: str = "", *, advice: Iterable[Advice] = ()) -> None:
        super().__init__(text)
        self.advice = tuple(advice)


class ConfigurationError(PPUError):
    """A file or an argument is wrong; nothing has moved."""


class NotFoundError(PPUError):
    """What was named is not there; nothing was done."""


class ConflictError(PPUError):
    """It contradicts what is so, or what was asked before; nothing was done.

    The same request may be granted when that has changed.
    """


class TransportError(PPUError):
    """The path to an instrument failed."""


class ConnectError(TransportError):
    """The instrument could not be reached, or is not the one expected."""


class ReplyTimeout(TransportError):  # noqa: N818 - reads as the condition it names
    """No complete reply came before the deadline."""


class LinkBroken(TransportError):  # noqa: N818 - reads as the condition it names
    """The path to the instrument was lost."""


class CodecError(PPUError):
    """Bytes and meaning do not fit together."""


class MalformedReply(CodecError):  # noqa: N818 - reads as the condition it names
    """The instrument sent bytes that its wire language does not allow."""


class UnencodableRequest(CodecError):  # noqa: N818 - reads as the condition it names
    """The wire language cannot express what was asked."""


class InstrumentError(PPUError):
    """The instrument answered, and refused or reported a fault.

    Args:
        text: What happened, naming the device.
        code: The instrument's own code, if it gave one.
        advice: What can be done about it.
    """

    def __init__(
        self,
        text: str,
        code: str | int | None = None,
        *,
        advice: Iterable[Advice] = (),
    ) -> None:
        super().__init__(text, advice=advice)
        self.code = code


class LimitError(PPUError):
    """A limit, a capacity or a stock forbids it; nothing has moved."""


class InterlockError(PPUError):
    """A rule about the present state of the lab forbids it."""


class NothingToJoinError(PPUError):
    """What was under way when its process died cannot be joined; says what is seen.

    Nothing was changed.
    """


class StoreError(PPUError):
    """The store did not do what was asked; nothing of it was acknowledged."""


class StoreBusyError(StoreError):
    """Another process holds the store, or too much waits; try again later."""


class StoreDiskError(StoreError):
    """The disk of the store is full or fails; free space or replace it."""


class StoreDamagedError(StoreError):
    """The file is torn, or is no store; restore a backup."""


class StaleTokenError(PPUError):
    """A newer cell may have taken over; whoever holds the older token must stop."""


class TakenOverError(StaleTokenError):
    """The store says that another cell owns the lab, or waits until it may."""


class DivergedError(PPUError):
    """A plan that is run again comes to other steps than its journal has."""


class AbortedError(PPUError):
    """Somebody asked to stop, and the plan was aborted."""


class InternalError(PPUError):
    """PPU made a mistake; please report it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to *word*, or all of them.

    Example:
        >>> nearest("furnce_1", ["furnace_1", "balance"])
        "did you mean 'furnace_1'?"
        >>> nearest("xyz", ["b", "a"])
        'known are: a, b'
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(names) or 'none'}"
