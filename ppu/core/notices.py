"""Lines for people on standard error; nobody reading them must stop nothing."""

from __future__ import annotations

import contextlib
import io
import sys

from typing_extensions import override

__all__ = ["NoticeStream", "tell"]


class NoticeStream(io.TextIOBase):
    """Standard error as a stream whose writes never fail.

    A pager that was closed, or a lost terminal, must not end a firing.
    """

    @override
    def write(self, text: str) -> int:
        """Write *text* if anybody still listens; return its length."""
        # AttributeError: Python has no standard error if it was closed from the start.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
            sys.stderr.flush()
        return len(text)


def tell(text: str) -> None:
    """Write a line for people to standard error; never fails."""
    NoticeStream().write(text + "\n")
