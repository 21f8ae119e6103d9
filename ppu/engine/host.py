"""Hosts a lab's loop: its thread, and the engines that run on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ppu.core.errors import ConfigurationError, InternalError
from ppu.core.labtime import LabTimeLoop
from ppu.engine.resources import Resources
from ppu.engine.runner import Runner, Timing

__all__ = ["Host", "Timing"]

T = TypeVar("T")

_LOOK_WALL_S = 1.0
"""How often a waiting caller looks whether the loop still runs."""


class Host(Runner):
    """A runner that owns a lab-time loop and its thread; others run beside it.

    Args:
        loop: A loop that does not run yet.
        resources: What the plans on this loop share.
    """

    def __init__(self, loop: LabTimeLoop, resources: Resources | None = None) -> None:
        # The first RunEngine starts the loop's thread: it looks the thread up in a
        # table that only it fills.
        super().__init__(loop, resources)
        self._thread = self.engine._th  # noqa: SLF001 - RunEngine shows its thread nowhere else

    def runner(self) -> Runner:
        """Return another runner on this loop; not on the loop, which it waits for."""
        return Runner(self.loop, self.resources)

    # -- the loop --------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from another thread, and return its result.

        Raises:
            InternalError: If the loop has ended, so that nothing can be done.
            ConfigurationError: If it is called on the loop, which would wait for
                itself.
        """
        try:
            self.check_caller()
        except ConfigurationError:
            work.close()
            raise
        self._check_alive(work)

        async def run_actively() -> T:
            with self.loop.active():
                return await work

        future = asyncio.run_coroutine_threadsafe(run_actively(), self.loop)
        try:
            while not concurrent.futures.wait([future], _LOOK_WALL_S).done:
                self._check_alive(work)
            return future.result()
        except BaseException:
            future.cancel()  # interrupted: what comes next must find the loop free
            raise

    @property
    def is_alive(self) -> bool:
        """Whether its loop runs."""
        return bool(self._thread.is_alive())

    def check_caller(self) -> None:
        """Refuse to wait for the loop on the loop.

        Raises:
            ConfigurationError: If so.
        """
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "this cannot be asked from a plan, a callback or a subscriber: they "
                "run on the lab's own loop, which would wait for itself; let another "
                "thread ask, or `await` the device's own coroutine"
            )

    def _check_alive(self, work: Coroutine[Any, Any, Any]) -> None:
        if not self._thread.is_alive():
            work.close()
            raise InternalError(
                "the loop of this lab has ended, so its devices cannot be reached; "
                "see to what is hot by hand"
            )

    def end_tasks(self) -> None:
        """Cancel every task on the loop, and wait until all have ended."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(end())

    def close(self) -> None:
        """End what runs on the loop, the loop, and its thread."""
        if self._thread.is_alive():
            self.end_tasks()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self.loop.close()
