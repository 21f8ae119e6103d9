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
    │   └── NoResourceError         what it needs is not there now; it may come
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
from collections.abc import Iterable, Iterator
from enum import StrEnum

from ppu.core.remedies import Advice

__all__ = [
    "AbortedError",
    "CodecError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "DivergedError",
    "FailureClass",
    "InstrumentError",
    "InterlockError",
    "InternalError",
    "LimitError",
    "LinkBroken",
    "MalformedReply",
    "NoResourceError",
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
    "causes",
    "nearest",
]


class FailureClass(StrEnum):
    """What a program may do about a job that did not succeed."""

    INFEASIBLE = "infeasible"
    """It cannot be done as it was asked: ask for something else."""
    NO_RESOURCE = "no_resource"
    """Something that it needs is not there: wait for it, or bring it."""
    RETRYABLE = "retryable"
    """Nothing was wrong with what was asked: the same may succeed another time."""
    REJECTED = "rejected"
    """A rule or the present state forbids it, until that has changed."""
    ABORTED = "aborted"
    """Somebody stopped it."""
    LOST = "lost"
    """Nobody knows how far it came."""


class PPUError(Exception):
    """Base of every error that PPU raises on purpose.

    Args:
        text: What is wrong, for people; it names no door's command or option.
        advice: What can be done about it, which each door words for itself.
        field: The parameter, device, container or powder that it is about, if it is
            about one.
        failure_class: What a program may do about it, if that is not what errors of
            this kind are of.
    """

    failure_class: FailureClass = FailureClass.INFEASIBLE

    def __init__(
        self,
        text: str = "",
        *,
        advice: Iterable[Advice] = (),
        field: str | None = None,
        failure_class: FailureClass | None = None,
    ) -> None:
        super().__init__(text)
        self.advice = tuple(advice)
        self.field = field
        if failure_class is not None:
            self.failure_class = failure_class


class ConfigurationError(PPUError):
    """A file or an argument is wrong; nothing has moved."""


class NotFoundError(PPUError):
    """What was named is not there; nothing was done."""


class ConflictError(PPUError):
    """It contradicts what is so, or what was asked before; nothing was done.

    The same request may be granted when that has changed.
    """

    failure_class = FailureClass.REJECTED


class TransportError(PPUError):
    """The path to an instrument failed."""

    failure_class = FailureClass.RETRYABLE


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

    failure_class = FailureClass.RETRYABLE


class UnencodableRequest(CodecError):  # noqa: N818 - reads as the condition it names
    """The wire language cannot express what was asked."""


class InstrumentError(PPUError):
    """The instrument answered, and refused or reported a fault.

    Args:
        text: What happened, naming the device.
        code: The instrument's own code, if it gave one.
        advice: What can be done about it.
        field: As every error's.
        failure_class: As every error's.
    """

    failure_class = FailureClass.RETRYABLE

    def __init__(
        self,
        text: str,
        code: str | int | None = None,
        *,
        advice: Iterable[Advice] = (),
        field: str | None = None,
        failure_class: FailureClass | None = None,
    ) -> None:
        super().__init__(text, advice=advice, field=field, failure_class=failure_class)
        self.code = code


class LimitError(PPUError):
    """A limit, a capacity or a stock forbids it; nothing has moved."""


class NoResourceError(LimitError):
    """What it needs is not there now, and may come: a container, a place, a powder.

    A job that meets it before it has touched anything waits in the queue.
    """

    failure_class = FailureClass.NO_RESOURCE


class InterlockError(PPUError):
    """A rule about the present state of the lab forbids it."""

    failure_class = FailureClass.RETRYABLE


class NothingToJoinError(PPUError):
    """What was under way when its process died cannot be joined; says what is seen.

    Nothing was changed.
    """

    failure_class = FailureClass.LOST


class StoreError(PPUError):
    """The store did not do what was asked; nothing of it was acknowledged."""

    failure_class = FailureClass.RETRYABLE


class StoreBusyError(StoreError):
    """Another process holds the store, or too much waits; try again later."""


class StoreDiskError(StoreError):
    """The disk of the store is full or fails; free space or replace it."""


class StoreDamagedError(StoreError):
    """The file is torn, or is no store; restore a backup."""

    failure_class = FailureClass.REJECTED


class StaleTokenError(PPUError):
    """A newer cell may have taken over; whoever holds the older token must stop."""

    failure_class = FailureClass.LOST


class TakenOverError(StaleTokenError):
    """The store says that another cell owns the lab, or waits until it may."""


class DivergedError(PPUError):
    """A plan that is run again comes to other steps than its journal has."""

    failure_class = FailureClass.REJECTED


class AbortedError(PPUError):
    """Somebody asked to stop, and the plan was aborted."""

    failure_class = FailureClass.ABORTED


class InternalError(PPUError):
    """PPU made a mistake; please report it."""


def causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc* and what is behind it, the deepest last and each once.

    An error that several jobs are told of may stand behind itself.
    """
    seen = set[int]()
    cause: BaseException | None = exc
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


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
