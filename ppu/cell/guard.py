"""The guard: a small process that starts the cell and takes its place when it dies.

It has no plug-ins but the drivers, runs no plan and keeps nothing in the store, but
that a cell on a server's store that it waits for may renew no more. While a cell lives
it only listens to its heartbeat; when the cell is dead or silent, it ends it, brings
the instruments to their orphan states, lets them go, and starts another one, which goes
on with what was under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ppu.cell.bench_lock import BENCH_FDS, BenchLock
from ppu.cell.heartbeat import GUARD_FD, PERIOD_S, Heartbeat
from ppu.cell.orphans import Orphans
from ppu.cell.predecessor import await_end, trouble_of
from ppu.cell.service_manager import notify
from ppu.core.errors import ConflictError, StoreBusyError, StoreError
from ppu.core.insisting import insist
from ppu.core.labtime import running_loop
from ppu.core.notices import tell
from ppu.core.stopping import INTERRUPTED_CODE, TAKEN_OVER_CODE
from ppu.store.cells import LEASE_S
from ppu.store.store import LEAST_FREE_BYTES, file_of

__all__ = ["MOST_EARLY_ENDS", "Guard"]

MOST_EARLY_ENDS: Final = 3
"""After so many cells that ended early no other one is started."""
EARLY_S: Final = 60.0
"""A cell that ends sooner than this after its first word has ended early [s]."""
_MEMORY_S: Final = 600.0
"""For how long an early end counts (real time) [s]."""
_FIRST_WORD_S: Final = 60.0
"""How long a cell may take to open a small store and instruments (real time) [s]."""
_READ_BYTES_PER_S: Final = 10e6
"""How fast a cell reads its store through for damage, at least."""
_MARGIN_S: Final = 60.0
"""What a service manager waits longer than the guard does (real time) [s]."""
_CLOSING_S: Final = 3.0
"""How long a cell that has let its store go may take to close instruments [s]."""
_LAST_WORD_S: Final = 15.0
"""How long a cell may take to end once it is silent on purpose (real time) [s]."""


@dataclass(frozen=True)
class CellEnd:
    """How a cell ended.

    Attributes:
        code: Its exit code, negative for a signal.
        text: What was seen, for people.
        lived_s: How long after its first word, 0 without one (real time) [s].
    """

    code: int
    text: str
    lived_s: float


class Guard:
    """Keeps one cell of a lab running.

    Args:
        orphans: The lab's instruments, for when no cell has them.
        command: The words that start a cell.
        store: The store that the cell will own.
        most_early_ends: After how many early ends no other cell is started.
    """

    def __init__(
        self,
        orphans: Orphans,
        command: Sequence[str],
        store: str,
        *,
        most_early_ends: int = MOST_EARLY_ENDS,
    ) -> None:
        self._orphans = orphans
        self._command = command
        self._store = store
        self._process: asyncio.subprocess.Process | None = None
        self._bench: BenchLock | None = None
        self._stopped = asyncio.Event()
        self._most_early_ends = most_early_ends
        self._early_ends: deque[float] = deque(maxlen=most_early_ends)

    def stop(self) -> None:
        """Let the cell drain, and end with it; called again, the cell ends at once."""
        self._stopped.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def run(self) -> bool:
        """Watch until the cell has ended as it should, or until :meth:`stop`.

        Returns:
            Whether all is well; if not, people were told.

        Raises:
            ConfigurationError: If somebody runs a cell without a guard there.
            ConflictError: If another process has one of the instruments.
            StoreBusyError: If an earlier cell cannot be ended.
        """
        watchdog = asyncio.create_task(_tell_watchdog(), name="service manager")
        try:
            await self._await_predecessor()
            with await self._own_bench() as bench:
                self._bench = bench
                # Nobody knows how the last cell has left them.
                await self._orphans.make_safe()
                return await self._keep_running()
        finally:
            notify("STOPPING=1")
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)

    async def _await_predecessor(self) -> None:
        """Wait until no earlier cell has the instruments."""
        try:
            await await_end(self._store)
        except StoreBusyError:
            raise
        except StoreError as exc:
            # A cell will not be able to read it, either: what is hot is seen to.
            tell(f"guard: {exc}")

    async def _own_bench(self) -> BenchLock:
        """Have the instruments; an earlier cell may be closing them just now.

        Raises:
            ConflictError: If somebody else has one of them.
        """
        return await insist(
            partial(asyncio.to_thread, self._orphans.own_bench),
            on=(ConflictError,),
            for_s=_CLOSING_S,
            pause_s=PERIOD_S,
        )

    async def _keep_running(self) -> bool:
        while not self._stopped.is_set():
            await self._await_store()
            if self._stopped.is_set():
                break
            end = await self._run_cell()
            tell(f"guard: {end.text}")
            if end.code == 0:
                return True
            if end.code == TAKEN_OVER_CODE:
                tell("guard: the instruments are another cell's; they are left alone")
                return False
            await self._orphans.make_safe()
            if self._stopped.is_set():
                return end.code in (INTERRUPTED_CODE, -signal.SIGTERM)
            if await self._await_store():
                continue  # that was why it ended
            if self._is_hopeless(end):
                await self._give_up()
                return False
        return True

    async def _await_store(self) -> bool:
        """Wait until a cell could write to its store; return whether that took a while.

        Its first act is to keep that it has taken over. Instruments go on meanwhile as
        they do when their process has died.
        """
        trouble = await asyncio.to_thread(trouble_of, self._store)
        if not trouble:
            return False
        text = f"{trouble}. A cell is started as soon as the store can be written"
        tell(f"guard: {text}")
        notify(f"READY=1\nSTATUS={text}.")
        is_over = asyncio.Event()
        keeper = asyncio.create_task(self._orphans.keep(is_over))
        loop = running_loop()
        try:
            while trouble and not self._stopped.is_set():
                await asyncio.sleep(loop.wire_seconds(PERIOD_S))
                trouble = await asyncio.to_thread(trouble_of, self._store)
        finally:
            is_over.set()
            await keeper
        return True

    # -- one cell --------------------------------------------------------------------

    async def _run_cell(self) -> CellEnd:
        """Start a cell, and return when its process has ended, if need be by force."""
        loop = running_loop()
        began: list[float] = []
        first_word_s = _first_word_s(self._store)
        # A service manager that waits for READY waits for what is read before it, too.
        notify(f"EXTEND_TIMEOUT_USEC={int((first_word_s + _MARGIN_S) * 1e6)}")
        ours, theirs = socket.socketpair()
        with theirs:
            process = await _start(self._command, theirs, self._bench)
        self._process = process
        if self._stopped.is_set():  # meanwhile
            process.send_signal(signal.SIGTERM)
        died: asyncio.Future[str] = loop.create_future()

        def note_first_word() -> None:
            began.append(loop.time())
            tell(f"guard: the cell of process {process.pid} runs")
            notify(f"READY=1\nSTATUS=The cell of process {process.pid} runs.")

        heartbeat = Heartbeat(
            loop,
            ours,
            died.set_result,
            on_first_word=note_first_word,
            first_word_s=first_word_s,
        )
        heartbeat.start()
        exited = asyncio.create_task(process.wait())
        try:
            first: set[asyncio.Future[Any]] = {exited, died}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            silent_s = heartbeat.silent_s
            why = await self._end(process, exited, died)
        finally:
            if process.returncode is None:
                process.kill()
            code = await exited
            await heartbeat.stop()
        self._process = None
        return CellEnd(
            code,
            f"the cell of process {process.pid} {why or _told(code)}, {silent_s:.1f} s "
            "after its last heartbeat",
            (loop.time() - began[0]) / loop.wire_seconds(1.0) if began else 0.0,
        )

    @staticmethod
    async def _end(
        process: asyncio.subprocess.Process,
        exited: asyncio.Task[int],
        died: asyncio.Future[str],
    ) -> str:
        """See that a process that is dead or dying ends; return why it was killed."""
        if exited.done():
            return ""
        loop = running_loop()
        if died.result() == Heartbeat.ENDED:  # it ends by itself, or has been ended
            await asyncio.wait({exited}, timeout=loop.wire_seconds(_LAST_WORD_S))
            if exited.done():
                return ""
        process.kill()
        await exited
        return f"was killed ({died.result()})"

    def _is_hopeless(self, end: CellEnd) -> bool:
        """Note how a cell ended; return whether another one would not do better."""
        loop = running_loop()
        if end.lived_s < EARLY_S:
            self._early_ends.append(loop.time())
        recent = loop.time() - loop.wire_seconds(_MEMORY_S)
        n_recent = sum(time > recent for time in self._early_ends)
        return n_recent >= self._most_early_ends

    async def _give_up(self) -> None:
        """Start no other cell; see that nothing heats until somebody comes."""
        text = (
            f"{self._most_early_ends} cells have ended within {EARLY_S:g} s of their "
            "first heartbeat; NO OTHER ONE IS STARTED. What heats is brought to its "
            "abort state and watched. Find out why they ended, stop this guard, start "
            f"it again{_lack_of_room(self._store)}"
        )
        tell(f"guard: {text}")
        notify(f"READY=1\nSTATUS=GIVEN UP: {text}.")
        await self._orphans.keep_safe(self._stopped)


def _lack_of_room(store: str) -> str:
    """Return what to say of the disk of a store in a file, if it is nearly full."""
    file = file_of(store)
    with contextlib.suppress(OSError):
        free = None if file is None else shutil.disk_usage(file.absolute().parent).free
        if free is not None and free < LEAST_FREE_BYTES:
            return f". The disk of {file} has {free / 1e6:.0f} MB free: free space"
    return ""


def _first_word_s(store: str) -> float:
    """Return how long a cell of *store* may take to open it (real time) [s].

    A file is read through for damage; on a server, an earlier cell may be outlived.
    """
    file = file_of(store)
    if file is None:
        return _FIRST_WORD_S + LEASE_S
    try:
        return _FIRST_WORD_S + file.stat().st_size / _READ_BYTES_PER_S
    except OSError:  # the cell will make it, or say what is wrong
        return _FIRST_WORD_S


async def _start(
    command: Sequence[str], end: socket.socket, bench: BenchLock | None
) -> asyncio.subprocess.Process:
    """Start a cell that inherits *end* of a pair of sockets, and the bench.

    It gets a process group of its own: Ctrl-C is the guard's to pass on.
    """
    environment = dict(os.environ)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        environment.pop(name, None)  # they are the guard's
    environment[GUARD_FD] = str(end.fileno())
    locks = [] if bench is None else bench.descriptors
    environment[BENCH_FDS] = ",".join(map(str, locks))
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=[end.fileno(), *locks],
        env=environment,
        process_group=0,
    )


async def _tell_watchdog() -> None:
    """Tell a service manager again and again that this loop goes round."""
    loop = running_loop()
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(loop.wire_seconds(PERIOD_S))


def _told(code: int) -> str:
    """Return an exit code in words."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else "ended as it should"
