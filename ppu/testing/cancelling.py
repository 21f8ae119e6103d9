"""Cancels a piece of work at each of its suspension points, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from typing_extensions import override

__all__ = ["cancelled_at"]


async def cancelled_at(step: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """Begin *work* and cancel it when it suspends for the *step*-th time.

    Tasks that it starts count, too: what they do is cancelled from outside, as a plan
    that is aborted would.

    Args:
        step: Which suspension, counted from 1.
        work: Makes the piece of work.

    Returns:
        Whether it came that far; False if it ended by itself before.
    """
    loop = asyncio.get_running_loop()
    n_suspensions = 0
    outer: asyncio.Task[Any] | None = None

    def suspend() -> None:
        nonlocal n_suspensions
        n_suspensions += 1
        if n_suspensions == step and outer is not None:
            outer.cancel()

    def make_task(
        loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(coro, suspend), loop=loop, **options)

    async def begin() -> Any:
        return await work()

    before = loop.get_task_factory()
    loop.set_task_factory(make_task)
    try:
        outer = loop.create_task(begin())
        await asyncio.wait([outer])
    finally:
        loop.set_task_factory(before)
    if outer.cancelled():
        return True
    error = outer.exception()
    if error is not None:
        raise error
    return n_suspensions >= step


class _Watched(Coroutine[Any, Any, Any]):
    """Drives a coroutine and tells each of its suspensions."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], suspend: Callable[[], None]
    ) -> None:
        self._coro = coro
        self._suspend = suspend

    @override
    def send(self, value: Any) -> Any:
        waits_for = self._coro.send(value)
        self._suspend()
        return waits_for

    @override
    def throw(self, *exc: Any) -> Any:
        waits_for = self._coro.throw(*exc)
        self._suspend()
        return waits_for

    @override
    def close(self) -> None:
        self._coro.close()

    @override
    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coro.__await__()
