"""Operations under way on a device: for whom they may begin, and how they are ended.

A plan may end, or forget, what it began without waiting for it. Whoever makes the
device safe ends that first: what goes on afterwards would undo it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final
from weakref import WeakSet

from ppu.core.running_plan import ask_running_plan

__all__ = ["Operations", "track_operations"]

_VERBS: Final = ("prepare", "set", "trigger", "kickoff")
"""Verbs that begin something; `complete` only waits."""


class Operations:
    """What one device does for whoever asked.

    Args:
        device: Name of the device.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def begin(self, verb: str, operation: Callable[[], Any]) -> Any:
        """Begin *operation*, which returns a status, and return that.

        Raises:
            InterlockError: If it is for a plan that has ended, or that may not.
        """
        ask_running_plan(self._device, verb)
        status = operation()
        task = getattr(status, "task", None)
        if isinstance(task, asyncio.Task):
            self._tasks.add(task)
        return status

    async def end(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        tasks = {task for task in self._tasks if not task.done()}
        tasks -= {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def track_operations(driver: type[Any]) -> None:
    """Have what a class's verbs begin tracked, and ended before its abort state.

    Args:
        driver: A class whose objects have ``operations_under_way``.
    """
    for verb in _VERBS:
        if verb in vars(driver):
            setattr(driver, verb, _tracked(verb, vars(driver)[verb]))
    if "go_to_abort_state" in vars(driver):
        safe = vars(driver)["go_to_abort_state"]
        driver.go_to_abort_state = _after_operations(safe)


def _tracked(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(verb)
    def begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.operations_under_way.begin(
            name, lambda: verb(self, *args, **kwargs)
        )

    return begin


def _after_operations(
    go_to_abort_state: Callable[[Any], Awaitable[str]],
) -> Callable[[Any], Awaitable[str]]:
    @functools.wraps(go_to_abort_state)
    async def end_and_go(self: Any) -> str:
        await self.operations_under_way.end()
        return await go_to_abort_state(self)

    return end_and_go
