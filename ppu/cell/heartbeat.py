"""Heartbeats: how guard and cell know that the other one lives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from ppu.core.labtime import LabTimeLoop

__all__ = ["GUARD_FD", "PERIOD_S", "SILENCE_S", "Heartbeat"]

GUARD_FD: Final = "PPU_GUARD_FD"
"""Environment variable by which a guard hands the cell its end of the pair."""
PERIOD_S: Final = 0.5
"""How often each of them says that it lives (real time) [s]."""
SILENCE_S: Final = 3.0
"""After how long without a word the other one counts as dead (real time) [s]."""


def _nothing(what: str = "") -> None:
    """Do nothing: it was told already, or nobody wants to know."""
    del what


class Heartbeat:
    """One end of a pair of connected sockets between two processes.

    It beats from the loop itself, so a loop that is blocked is silent, too; and an
    operating system that ends a process closes its end at once.

    Args:
        loop: The loop that must be alive; its time must flow.
        end: This process's end of the pair; closed by :meth:`stop`.
        on_death: Called once, with what was seen, when the other one is dead.
        on_first_word: Called once, when the other one is heard for the first time.
        first_word_s: How long it may be silent before its first word (real time) [s].
    """

    ENDED: Final = "it has ended"
    """What is seen of a process that is no more, or has closed its end."""

    def __init__(
        self,
        loop: LabTimeLoop,
        end: socket.socket,
        on_death: Callable[[str], None],
        *,
        on_first_word: Callable[[], None] = _nothing,
        first_word_s: float = SILENCE_S,
    ) -> None:
        self._loop = loop
        self._end = end
        self._on_death = on_death
        self._on_first_word = on_first_word
        self._patience_s = first_word_s
        self._heard_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard (real time) [s]."""
        loop = self._loop
        return (loop.time() - self._heard_s) / loop.wire_seconds(1.0)

    def start(self) -> None:
        """Begin to beat and to listen; on the loop."""
        self._end.setblocking(False)
        self._heard_s = self._loop.time()
        self._loop.add_reader(self._end.fileno(), self._receive)
        self._task = self._loop.create_task(self._send_beats(), name="heartbeat")

    async def stop(self) -> None:
        """Be silent, and close this end; on the loop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    async def _send_beats(self) -> None:
        loop = self._loop
        while True:
            try:
                self._end.send(b".")
            except BlockingIOError:
                pass  # it does not listen: its silence will tell
            except OSError:
                return  # it is gone, which the end of what it says tells, too
            await asyncio.sleep(loop.wire_seconds(PERIOD_S))
            if self.silent_s > self._patience_s:
                self._report_death(f"no heartbeat for {self._patience_s:g} s")
                return

    def _receive(self) -> None:
        try:
            heard = self._end.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if heard:
            self._heard_s = self._loop.time()
            self._patience_s = SILENCE_S
            on_first_word, self._on_first_word = self._on_first_word, _nothing
            on_first_word()
        else:
            self._loop.remove_reader(self._end.fileno())
            self._report_death(self.ENDED)

    def _report_death(self, what: str) -> None:
        on_death, self._on_death = self._on_death, _nothing
        on_death(what)
