"""What a test may leave behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["nothing_left_behind", "open_paths"]

_PATHS: Final = ("socket:", "pipe:", "/dev/pts/", "/dev/ptmx", "anon_inode:")
"""What a leaked descriptor leads to; libraries keep ordinary files open."""
_WORKER_ENDS_WALL_S: Final = 2.0


def open_paths() -> dict[int, str]:
    """Return the open descriptors that are a path to somebody else."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the links are read below
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - socket:[n] is no path
        except FileNotFoundError:
            continue
        if target.startswith(_PATHS) or target.endswith((".sqlite", ".sqlite-wal")):
            found[int(name)] = target
    return found


def _pending_tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of all loops that have not ended."""
    if sys.version_info >= (3, 14):  # it keeps a list for each thread, in C
        everything = [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]
    else:
        name = "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
        everything = list(getattr(asyncio.tasks, name))  # across loops
    return {task for task in everything if not task.done()}


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail if the block leaves a task, a descriptor or a thread behind."""
    threads, paths, tasks = (
        set(threading.enumerate()),
        open_paths(),
        _pending_tasks(),
    )
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(_WORKER_ENDS_WALL_S)
    if (open_paths().items() - paths.items()) or (_pending_tasks() - tasks):
        gc.collect()  # what a traceback kept alive is no leak
    left = set(threading.enumerate()) - threads

    assert not left, f"leaked threads: {left}"
    assert not open_paths().items() - paths.items(), "leaked descriptors"
    assert not _pending_tasks() - tasks, "leaked tasks"
