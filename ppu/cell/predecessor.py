"""The cell that a dead guard has left behind: it drains, and then it must be gone."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ppu.cell.bench_lock import has_open
from ppu.cell.heartbeat import GUARD_FD
from ppu.core.errors import (
    ConfigurationError,
    PPUError,
    StoreBusyError,
    StoreDiskError,
)
from ppu.core.labtime import running_loop
from ppu.core.notices import tell
from ppu.store import cells
from ppu.store.store import Store, file_of
from ppu.store.wake import socket_path

__all__ = [
    "DRAIN_S",
    "await_end",
    "trouble_of",
    "wait_out_predecessor",
    "watching",
]

DRAIN_S: Final = 90.0
"""How long a cell whose guard is dead may take to end by itself (real time) [s]."""
_LOOK_S: Final = 0.2
_DYING_S: Final = 10.0
_PROC: Final = Path("/proc")


@contextlib.contextmanager
def watching(where: str) -> Iterator[None]:
    """Be the only guard of the store *where* while the block runs.

    Raises:
        StoreBusyError: If there is another one.
        ConfigurationError: If there can be no file that says so.
    """
    path = socket_path(where).with_suffix(".guard")
    with contextlib.ExitStack() as ends:
        try:
            file = ends.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusyError(
                f"store {where}: another guard watches over it; stop that one first"
            ) from None
        except OSError as exc:
            raise ConfigurationError(f"cannot write {path}: {exc.strerror}") from exc
        yield


async def wait_out_predecessor(store: Store) -> None:
    """Wait until no earlier cell can be touching the instruments; on the loop.

    A file is locked by the process of its cell, and free only when that is gone. The
    lock of a server goes with a connection: whoever lost that may act on, until its
    lease has run out. So it may renew no more, and a lease is waited for; the caller
    owns *store*, so that nobody else takes it meanwhile.

    Args:
        store: The store, owned by the caller.

    Raises:
        StaleTokenError: If another cell has begun all the same.
        StoreError: If the store cannot be written.
    """
    if store.is_file:
        return
    loop = running_loop()
    last = await store.awrite(partial(cells.revoke_lease, now=loop.stamp()))
    if last is None:
        return
    tell(
        f"store {store.name}: its last cell (process {last.pid}, perhaps of another "
        "computer) did not end as it should and may still act on the instruments; "
        f"waiting {cells.LEASE_S:g} s, until its lease has surely run out"
    )
    await asyncio.sleep(loop.wire_seconds(cells.LEASE_S))
    await store.awrite(partial(cells.note_lease_over, token=last.token))


async def await_end(where: str, drain_s: float = DRAIN_S) -> None:
    """Wait until no cell acts for the store *where*; end one that does not by itself.

    Args:
        where: The store; there may be none yet.
        drain_s: How long to wait before the cell is killed (real time) [s].

    Raises:
        ConfigurationError: If a cell owns it that never had a guard: whoever started
            it is there to stop it.
        StoreBusyError: If the cell does not end, and may not or cannot be killed.
        StaleTokenError: If another cell has begun meanwhile.
        StoreError: If the store cannot be read.
    """
    file = file_of(where)
    if file is not None and not file.exists():
        return
    # That cell may be of an older PPU; the next one upgrades the store.
    with Store(where, is_verified=False, may_upgrade=False) as store:
        await _await_lock(store, drain_s)
        with store.own():
            await wait_out_predecessor(store)


def trouble_of(where: str) -> str:
    """Return why nothing can be kept in the store *where* now, nothing if it can.

    What will not end by itself, such as damage, is for whoever opens it to tell.
    """
    file = file_of(where)
    if file is not None and not file.exists():
        return ""
    try:
        with Store(where, is_verified=False, may_upgrade=False) as store:
            store.write(cells.try_to_write)
    except (StoreBusyError, StoreDiskError) as exc:
        return str(exc)
    except PPUError:
        pass
    return ""


async def _await_lock(store: Store, drain_s: float) -> None:
    """Wait until nobody owns *store*; end a cell that does not end by itself."""
    if await _is_free(store, 0.0):
        return
    _refuse_unguarded(store)
    tell(f"guard: a cell still owns {store.name}; it has {drain_s:g} s to end")
    if await _is_free(store, drain_s):
        return
    _kill(store)
    if not await _is_free(store, _DYING_S):
        raise StoreBusyError(
            f"store {store.name}: its cell was killed and does not end; see to the "
            "process by hand"
        )


async def _is_free(store: Store, within_s: float) -> bool:
    """Return whether no cell owns *store*, at the latest after *within_s* [s]."""
    loop = running_loop()
    until = loop.time() + loop.wire_seconds(within_s)
    while True:
        try:
            with store.own():
                return True
        except StoreBusyError:
            if loop.time() >= until:
                return False
        await asyncio.sleep(loop.wire_seconds(_LOOK_S))


def _refuse_unguarded(store: Store) -> None:
    pid = _cell_of(store)
    if pid is None or f"{GUARD_FD}=".encode() in _read(pid, "environ"):
        return  # nobody knows who it is yet, or its guard has died
    raise ConfigurationError(
        f"store {store.name}: the cell of process {pid} owns it and was started "
        f"without a guard; end it first: kill {pid}"
    )


def _kill(store: Store) -> None:
    pid = _cell_of(store)
    if pid is None:
        raise StoreBusyError(
            f"store {store.name}: another process owns it and is not its last cell; "
            "end it by hand"
        )
    tell(f"guard: the cell of process {pid} does not end; it is killed")
    os.kill(pid, signal.SIGKILL)


def _cell_of(store: Store) -> int | None:
    """Return the process of the newest cell, if it lives and is that for certain.

    A number alone says little: systems give it to another process some day.
    """
    with store.read() as connection:
        newest = cells.newest(connection)
    if newest is None or newest.boot_id != cells.boot_id():
        return None
    pid = int(newest.pid)
    words = _read(pid, "cmdline").split(b"\0")
    if b"cell" not in words or pid == os.getpid():
        return None
    if store.lock_path is None:
        return pid if os.fsencode(str(store.where)) in words else None
    return pid if has_open(pid, store.lock_path.absolute()) else None


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):  # it has ended, or is somebody else's
        return (_PROC / str(pid) / name).read_bytes()
    return b""
