"""A jumping loop that checks at its end that nothing is left on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from ppu.core.labtime import LabTimeLoop

__all__ = ["jumping_loop", "play_from_start"]


@contextmanager
def jumping_loop() -> Iterator[LabTimeLoop]:
    """Give a loop that jumps; no task, no debt and no fault may be left on it."""
    loop = LabTimeLoop(None)
    yield loop
    owing, tasks = loop.n_owing, asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

    assert tasks == set()
    assert loop.faults == []
    assert owing == 0


def play_from_start(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a jumping loop of its own, from lab time 0 on."""
    with jumping_loop() as loop, loop.active():
        return loop.run_until_complete(work)
