"""A cell's hold on the store: its fencing token, and the jobs it runs."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from ppu.core.custody import Books
from ppu.core.errors import AbortedError, InternalError, PPUError
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.engine.recorder import Ask, JobRecorder
from ppu.store import cells, custody, queue
from ppu.store.jobs import Effect, Job, JobRequest, JobState
from ppu.store.store import Store

__all__ = ["Ownership"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Ownership:
    """What makes a process the one that may act for a lab.

    Whoever takes a store over gets a higher token; from then on nothing is kept that
    an earlier owner wants to write.

    Args:
        store: The store.
        file: The lab file; what the store does not know yet of its containers and
            powders is declared.
        loop: The lab's loop, for stamps.
        lease_s: How long the owner is trusted with a job unless it renews [s].
    """

    def __init__(
        self, store: Store, file: LabFile, loop: LabTimeLoop, *, lease_s: float
    ) -> None:
        self.store = store
        self._loop = loop
        self._lease_s = lease_s

        def start(connection: Connection) -> int:
            token = cells.start(
                connection,
                file.lab,
                loop.stamp(),
                pid=os.getpid(),
                boot_id=_boot_id(),
                epoch=loop.epoch,
            )
            queue.lose_vanished(connection, loop.stamp())
            custody.declare(connection, file, loop.stamp())
            return token

        self.token = store.write(start)

    def books(self) -> Books:
        """Return what is believed of the lab."""
        with self.store.read() as connection:
            return custody.books(connection)

    def submit(self, request: JobRequest) -> int:
        """Put a job into the queue; return its id."""
        work = partial(queue.submit, wanted=request, now=self._loop.stamp())
        return self.store.write(work)

    def claim(self) -> Job | None:
        """Take the next job, if there is one."""
        return self.store.write(
            partial(
                queue.claim,
                token=self.token,
                now=self._loop.stamp(),
                lease_s=self._lease_s,
            )
        )

    def lost(self) -> list[int]:
        """Return the jobs that were under way when their cell vanished."""
        with self.store.read() as connection:
            return [job.id for job in queue.find(connection, states=[JobState.LOST])]

    def adopt(self, job_id: int) -> Job:
        """Take a job whose cell has vanished, to go on with it."""
        return self.store.write(
            partial(
                queue.adopt,
                job_id=job_id,
                token=self.token,
                now=self._loop.stamp(),
                lease_s=self._lease_s,
            )
        )

    def recorder(self, job: Job, ask: Ask | None = None) -> JobRecorder:
        """Return what keeps the steps and documents of *job*."""
        return JobRecorder(self.store, job.id, self.token, self._loop.epoch, ask)

    def begin(self, job: Job) -> None:
        """Note that *job* runs."""
        self._transition(job.id, JobState.RUNNING)

    def succeed(self, job: Job, result: Any) -> None:
        """Note the result of *job*."""
        self._transition(job.id, JobState.FINISHING)
        self._transition(job.id, JobState.SUCCEEDED, effect=Effect.FULL, result=result)

    def fail(self, job: Job, error: BaseException) -> None:
        """Note why *job* did not succeed."""
        is_abort = isinstance(error, AbortedError)
        state = JobState.ABORTED if is_abort else JobState.FAILED
        known = error if isinstance(error, PPUError) else InternalError(str(error))
        reason = (type(known).__name__, str(known))
        self._transition(job.id, state, reason=reason)

    def end(self, how: str) -> None:
        """Give the store up."""
        self.store.write(
            partial(cells.end, token=self.token, how=how, now=self._loop.stamp())
        )

    def _transition(self, job_id: int, state: JobState, **more: Any) -> None:
        self.store.write(
            partial(
                queue.transition,
                job_id=job_id,
                state=state,
                now=self._loop.stamp(),
                token=self.token,
                **more,
            )
        )


def _boot_id() -> str:
    """Return what tells this boot of the computer from others, where it says so."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
