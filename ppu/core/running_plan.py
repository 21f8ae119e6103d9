"""Which plan began the task that runs now, and whether it may begin anything."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from ppu.core.errors import InterlockError

__all__ = ["RunningPlan", "ask_running_plan"]

_current: Final[ContextVar[RunningPlan | None]] = ContextVar("plan", default=None)


class RunningPlan:
    """A plan, as every task knows it that begins while the plan's own code runs.

    Tasks and timers inherit it, those that a plan forgot, too.

    Args:
        on_use: Told which verb of which device the plan is about to use; raises if it
            may not.
    """

    def __init__(self, on_use: Callable[[str, str], None] | None = None) -> None:
        self.is_over = False
        self.on_use = on_use

    def begin(self) -> None:
        """Let what runs now, and what it begins, be this plan's."""
        _current.set(self)


def ask_running_plan(device: str, verb: str) -> None:
    """Refuse to begin something for a plan that may not, or that has ended.

    Args:
        device: Name of what should do it.
        verb: What it should do: ``set``, ``prepare``, ``trigger`` or ``kickoff``.

    Raises:
        InterlockError: If what runs now is left over from a plan that has ended, or
            the device is somebody else's.
    """
    plan = _current.get()
    if plan is None:
        return
    if plan.is_over:
        raise InterlockError(
            f"{device}: the plan that asks for this has ended, so nobody would see to "
            "it; a plan must wait for what it begins"
        )
    if plan.on_use is not None:
        plan.on_use(device, verb)
