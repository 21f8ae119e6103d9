"""The life of a job in a cell: an engine, its plan, its results or its bad end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from ppu.cell.acting import Acting
from ppu.cell.ending import Ending
from ppu.cell.execution import Execution, explained, sample_of
from ppu.cell.gate import JobGate
from ppu.cell.lab import OpenLab
from ppu.cell.lab_events import LabEvents
from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster, RunningJob
from ppu.core.errors import (
    ConfigurationError,
    FailureClass,
    NoResourceError,
    NotFoundError,
    PPUError,
    StaleTokenError,
    StoreDiskError,
    StoreError,
)
from ppu.core.labtime import stopwatch
from ppu.core.remedies import Remedy, advise
from ppu.engine.recorder import JobRecorder
from ppu.engine.runner import Runner
from ppu.plans.protocol import RegisteredProtocol
from ppu.store.jobs import Job, JobState
from ppu.store.queue import Lack

__all__ = ["Lifecycle"]

T = TypeVar("T")

_PASSING: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
"""What a disk says that somebody will see to; a job that is done waits for that."""


class Lifecycle:
    """Runs jobs on engines of their own, each to its end, whatever that is.

    Args:
        lab: The lab that they run on.
        owner: What may write to the store.
        roster: Where they are entered while they run.
        acting: Told what their plans begin.
        ending: What becomes of those that fail.
        events: Keeps what goes wrong in the lab's twin.
        find: Returns the protocol of a name.
        results: Directory in which each job gets one of its own.
        executor: A thread for each job, and some for what is short.
    """

    def __init__(
        self,
        lab: OpenLab,
        owner: Ownership,
        roster: Roster,
        acting: Acting,
        ending: Ending,
        events: LabEvents,
        find: Callable[[str], RegisteredProtocol],
        results: Path,
        executor: Executor,
    ) -> None:
        self._lab = lab
        self._owner = owner
        self._roster = roster
        self._acting = acting
        self._ending = ending
        self._events = events
        self._find = find
        self._results = results
        self._executor = executor
        self._loop = lab.host.loop
        self._idle_runners: list[Runner] = [lab.host]
        self._starting = asyncio.Lock()

    def find_lack(self, job: Job) -> Lack | None:
        """Return what a job cannot begin without and is not there, None if nothing.

        What else is wrong with it, it fails with when it begins.
        """
        try:
            protocol = self._installed(job)
            if protocol.check is not None:
                protocol.check(self._lab.new_view(), protocol.parse(job.parameters))
        except NoResourceError as exc:
            return Lack.of(exc)
        except NotFoundError as exc:  # it was there when the job was submitted
            return replace(Lack.of(exc), failure_class=FailureClass.NO_RESOURCE)
        except Exception:  # noqa: BLE001 - a protocol's check may raise anything
            return None
        return None

    def _installed(self, job: Job) -> RegisteredProtocol:
        """Return the protocol of a job, in its version.

        Raises:
            NoResourceError: If it is not installed.
        """
        install = advise(
            Remedy.INSTALL_PROTOCOL, protocol=job.protocol, version=job.version
        )
        wanted = f"it needs version {job.version} of {job.protocol}"
        try:
            protocol = self._find(job.protocol)
        except PPUError as exc:
            raise NoResourceError(
                f"{wanted}: {exc}", advice=[install], field="protocol"
            ) from exc
        if protocol.version != job.version:
            raise NoResourceError(
                f"{wanted}, installed is {protocol.version}; install that, or submit "
                "the job again",
                advice=[install],
                field="protocol",
            )
        return protocol

    async def enter(self, job: Job) -> RunningJob:
        """Give a job an engine, and enter it in the roster."""
        if not self._idle_runners:
            with self._loop.freezing("an engine is made"):
                runner = await self._loop.run_in_executor(
                    self._executor, self._lab.host.runner
                )
            self._idle_runners.append(runner)
        return self._roster.enter(job, self._idle_runners.pop())

    def start(self, running: RunningJob, *, is_adopted: bool) -> None:
        """Let a job run."""
        work = self._run_to_end(running, is_adopted=is_adopted)
        running.task = asyncio.create_task(work, name=f"job {running.job.id}")

    async def _run_to_end(self, running: RunningJob, *, is_adopted: bool) -> None:
        """Run one job to its end, whatever that is."""
        error: BaseException | None = None
        resources, roster = self._lab.resources, self._roster
        resources.firings.note_entered()
        runner = running.runner
        runner.on_use = partial(self._acting.begin, running)
        runner.is_left = partial(self._acting.is_left, running)
        runner.engine.before_command = self._owner.await_trust
        try:
            await self._run(running, is_adopted=is_adopted)
        except asyncio.CancelledError as exc:
            error = exc
            raise
        except (StaleTokenError, StoreError) as exc:
            # Nothing can be kept any more: whoever owns the store next goes on.
            error = exc
            roster.fail(exc)
        except Exception as exc:  # noqa: BLE001 - one job's fault must not end the others
            error = exc
            await self._ending.end_badly(running, exc)
        finally:
            # The next job may use the engine, or a plan alone.
            runner.on_use = runner.is_left = runner.engine.before_command = None
            resources.reservations.leave(running.who)
            resources.firings.note_left(running.who, error)
            if roster.fault is None and not isinstance(error, asyncio.CancelledError):
                del roster.jobs[running.job.id]
                job = running.job
                self._lab.ledger.let_go(sample_of(job.protocol, job.id))
                resources.empties.look_again()
            self._idle_runners.append(runner)
            if not running.is_put_back:  # else it would begin again, for ever
                roster.note_changed()
            roster.wake()

    async def _run(self, running: RunningJob, *, is_adopted: bool) -> None:
        """Run one job until its result is kept."""
        job = running.job
        gate = JobGate(
            running, self._roster, self._owner, self._loop, self._lab.devices
        )
        try:
            protocol = self._installed(job)
        except NoResourceError as exc:
            if is_adopted:
                await gate.stand_by(exc)
            raise
        execution = Execution(
            self._lab,
            protocol,
            job.parameters,
            self._results / str(job.id),
            job_id=job.id,
            runner=running.runner,
        )
        running.claimed = execution.view.claimed
        if not is_adopted:
            execution.check_parameters()
        await gate.set_state(JobState.RUNNING)
        keep_incidents = self._events.keep_incidents
        with self._loop.freezing("what is known of the job is read"):
            recorder = await self._in_thread(
                partial(self._owner.recorder, job, gate.settle, keep_incidents)
            )
        try:
            typed = await running.runner.arun(
                execution.plan(),
                recorder,
                running.who,
                gate,
                self._executor,
                self._starting,
            )
        except (PPUError, asyncio.CancelledError):
            raise
        except Exception as exc:
            raise explained(protocol, exc) from exc
        finally:
            with contextlib.suppress(StoreError, StaleTokenError):
                await recorder.flush_documents()
        await self._ending.end_well(running)
        await gate.set_state(JobState.FINISHING, None)
        await keep_incidents()
        with self._loop.freezing("the report is written"):
            result = await self._in_thread(_finishing(execution, typed, recorder))
        await self._owner.succeed(job, result)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, as soon as the store and the disk take it."""
        run = partial(self._loop.run_in_executor, self._executor, work)
        return await self._owner.insist(run)


def _finishing(
    execution: Execution, typed: Any, recorder: JobRecorder
) -> Callable[[], dict[str, Any]]:
    """Return what writes the results, for a thread of its own."""
    elapsed = stopwatch()

    def finish() -> dict[str, Any]:
        try:
            execution.make_out()
            return execution.finish(typed, recorder, elapsed)
        except (OSError, ConfigurationError) as exc:
            cause = exc.__cause__ if isinstance(exc, ConfigurationError) else exc
            if isinstance(cause, OSError) and cause.errno in _PASSING:
                raise StoreDiskError(
                    f"the results of job {recorder.job_id} cannot be written: "
                    f"{cause.strerror}; see to the disk"
                ) from exc
            raise

    return finish
