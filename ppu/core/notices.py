"""Lines for people on standard error; nobody reading them must stop nothing."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import override

from ppu.core.names import shown
from ppu.core.remedies import Advice

__all__ = ["Bystander", "NoticeStream", "SeenStream", "tell", "word_advice_with"]


class SeenStream(io.TextIOBase):
    """A stream of text in which nothing acts on the terminal that shows it.

    Args:
        stream: Where it goes; it is asked for everything else.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @override
    def write(self, text: str) -> int:
        """Write *text*, every character that cannot be seen as its escape."""
        self._stream.write(shown(text, keep="\n\t"))
        return len(text)

    @override
    def flush(self) -> None:
        """Write what is buffered."""
        self._stream.flush()

    @override
    def fileno(self) -> int:
        """Return the descriptor that it leads to."""
        return int(self._stream.fileno())

    @override
    def isatty(self) -> bool:
        """Return whether it leads to a terminal."""
        return bool(self._stream.isatty())

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """How its text becomes bytes."""
        return str(self._stream.encoding)


class NoticeStream(io.TextIOBase):
    """Standard error as a stream whose writes never fail.

    A pager that was closed, or a lost terminal, must not end a firing.
    """

    @override
    def write(self, text: str) -> int:
        """Write *text* if anybody still listens; return its length."""
        text = shown(text, keep="\n\t")
        # AttributeError: Python has no standard error if it was closed from the start.
        with contextlib.suppress(ValueError, AttributeError):
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except OSError:
                _let_nobody_listen()
            except RuntimeError:
                # A signal's handler speaks while this thread is amid another line.
                with contextlib.suppress(OSError):
                    os.write(2, text.encode("utf-8", "replace"))
        return len(text)


def _let_nobody_listen() -> None:
    """Lead standard error to nowhere: what is buffered fails no more at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


Wording = Callable[[str, Iterable[Advice]], str]
"""Returns a text with what can be done about it, in the words of a door."""

_wordings: list[Wording] = []


def word_advice_with(wording: Wording) -> None:
    """Have *wording* put into words what :func:`tell` advises in this process."""
    _wordings[:] = [wording]


def tell(text: str, *advice: Advice) -> None:
    """Write a line for people to standard error; never fails.

    Args:
        text: The line.
        advice: What they can do about it, in the words of whoever reads this.
    """
    for wording in _wordings:
        text = wording(text, advice)
    NoticeStream().write(text + "\n")


class Bystander:
    """A function whose errors are told to people, each once, and disturb nobody.

    Args:
        what: What it looks at, for the notice.
        function: What is called.
    """

    def __init__(self, what: str, function: Callable[..., Any]) -> None:
        self._what = what
        self._function = function
        self._told: set[str] = set()

    def __call__(self, *arguments: Any) -> None:
        """Call the function; tell people of an error that is new."""
        try:
            self._function(*arguments)
        # SystemExit would end the loop, and everything that runs on it.
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - a view's fault must not end a firing
            text = f"a subscriber of {self._what} failed: {exc!r}"
            if text not in self._told:
                self._told.add(text)
                tell(text)
