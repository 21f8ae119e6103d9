"""Fits libraries to a lab's loop: they read lab time there, and draw nothing there.

``bluesky.plan_stubs.repeat`` takes the time that a repetition took from its delay, and
ophyd-async measures time-outs; both ask the module ``time``. On a lab's loop that must
be lab time, or a delay of 60 s is another one in every run. So the module's place in
these libraries is taken by a :class:`~ppu.core.labtime.LibraryClock`, which off a lab's
loop is the module itself: whoever uses the libraries beside a lab notices nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import bluesky.bundlers
import bluesky.plan_stubs
import bluesky.plans
from ophyd_async.core import _signal, _soft_signal_backend, _status

from ppu.core.labtime import LibraryClock, is_on_lab_loop

__all__ = ["lend_lab_time", "let_drawings_wait"]


def lend_lab_time() -> None:
    """Let the libraries read lab time on a lab's loop; calling it twice is harmless."""
    elapsed = LibraryClock(counts_from_epoch=False)
    stamps = LibraryClock(counts_from_epoch=True)
    for module, name, clock in (
        (bluesky.plan_stubs, "time", elapsed),
        (bluesky.plans, "time", elapsed),
        (bluesky.bundlers, "ttime", stamps),
        (_signal, "time", elapsed),
        (_status, "time", elapsed),
        (_soft_signal_backend, "time", stamps),
    ):
        setattr(module, name, clock)


def let_drawings_wait() -> None:
    """Draw nothing on a lab's loop; calling it twice is harmless.

    Canvases of a screen have an idle moment of their own, and are left alone.
    """
    backends: Any = sys.modules.get("matplotlib.backend_bases")
    if backends is None or hasattr(backends.FigureCanvasBase.draw_idle, "waits"):
        return  # nobody plots, and to load matplotlib takes its time
    draw_at_once = backends.FigureCanvasBase.draw_idle

    def draw_idle(canvas: Any, *args: Any, **kwargs: Any) -> None:
        if is_on_lab_loop():
            canvas.figure.stale = True
        else:
            draw_at_once(canvas, *args, **kwargs)

    draw_idle.waits = True  # type: ignore[attr-defined]  # so that it is done once
    backends.FigureCanvasBase.draw_idle = draw_idle
