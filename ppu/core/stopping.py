"""How people stop a command: the signals, and who reacts to them meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = [
    "INTERRUPTED_CODE",
    "STOP_SIGNALS",
    "TAKEN_OVER_CODE",
    "Interrupted",
    "ignore_stop_signals",
    "on_stop_signal",
    "raise_on_stop_signal",
]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the system's shutdown, and a lost terminal."""

INTERRUPTED_CODE = 130
"""Exit code of a command that was stopped, as shells have it for Ctrl-C."""

TAKEN_OVER_CODE = 6
"""Exit code of a cell when another one owns its lab."""

_PATIENCE = 3


class Interrupted(BaseException):
    """Somebody stopped the command; typer would make exit code 1 of Ctrl-C."""


@contextlib.contextmanager
def on_stop_signal(react: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have *react* called for each stop signal while the block runs.

    Signals reach the main thread only: elsewhere this does nothing. A hang-up that is
    ignored stays ignored, as ``nohup`` wants it; Ctrl-C does not, because a script's
    shell ignores it for every program it starts with ``&``.
    """
    before = _set_handlers(lambda number, _: react(signal.Signals(number)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_on_stop_signal() -> None:
    """Let the first stop signal raise :class:`Interrupted` for the rest of the process.

    What unwinds then is not disturbed by a second one; a third ends the process, for
    the case that unwinding hangs.
    """
    n_received = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal n_received
        n_received += 1
        if n_received == 1:
            raise Interrupted(signal.Signals(number).name)
        if n_received >= _PATIENCE:
            os._exit(INTERRUPTED_CODE)

    _set_handlers(stop)


def ignore_stop_signals() -> None:
    """Ignore stop signals from now on: the process is about to end."""
    _set_handlers(signal.SIG_IGN)


_Handler = Callable[[int, FrameType | None], object] | int


def _set_handlers(handler: _Handler) -> dict[signal.Signals, _Handler]:
    """Set *handler* for each stop signal; return what was there before."""
    before: dict[signal.Signals, _Handler] = {}
    if threading.current_thread() is not threading.main_thread():
        return before
    for number in STOP_SIGNALS:
        present = signal.getsignal(number)
        is_kept_out = number is signal.SIGHUP and present == signal.SIG_IGN
        if present is not None and not is_kept_out:
            signal.signal(number, handler)
            before[number] = present
    return before
