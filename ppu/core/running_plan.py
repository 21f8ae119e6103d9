"""Which plan began the task that runs now, and whether it still goes on."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from ppu.core.errors import InterlockError

__all__ = ["RunningPlan", "check_plan_goes_on"]

_current: Final[ContextVar[RunningPlan | None]] = ContextVar("plan", default=None)


class RunningPlan:
    """A plan, as every task knows it that begins while the plan's own code runs.

    Tasks and timers inherit it, those that a plan forgot, too.
    """

    def __init__(self) -> None:
        self.is_over = False

    def begin(self) -> None:
        """Let what runs now, and what it begins, be this plan's."""
        _current.set(self)


def check_plan_goes_on(device: str) -> None:
    """Refuse to begin something for a plan that has ended.

    Args:
        device: Name of what should do it.

    Raises:
        InterlockError: If what runs now is left over from such a plan.
    """
    plan = _current.get()
    if plan is not None and plan.is_over:
        raise InterlockError(
            f"{device}: the plan that asks for this has ended, so nobody would see to "
            "it; a plan must wait for what it begins"
        )
