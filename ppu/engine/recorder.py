"""Keeps what a job does in the store, so that it can go on after its process died."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from ppu.core.custody import Change
from ppu.core.errors import InternalError, StoreBusyError, StoreDiskError
from ppu.core.labtime import running_loop
from ppu.core.notices import tell
from ppu.plans.steps import Begun, Evidence, StepRecord
from ppu.store.cells import is_doubted, require_token, trust_job
from ppu.store.custody import enter
from ppu.store.documents import add_document, samples_of
from ppu.store.steps import (
    Question,
    Step,
    StepState,
    begin_step,
    end_step,
    fail_step,
    settle_step,
)
from ppu.store.store import Store

__all__ = ["JobRecorder", "Patience"]

T = TypeVar("T")

Ask = Callable[[str, Evidence], Awaitable[Evidence]]
"""Asks a person whether a step happened, given its path and what is known."""


class Patience:
    """Reads and writes a store that may be busy or away, or whose disk may be full.

    It is waited for without limit: what was done must be kept before anything goes on,
    and instruments end meanwhile what they have begun.

    Args:
        store: Where to write.
        who: Who waits, in words.
    """

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who
        self._tried_s = -math.inf

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in the store, as soon as that takes it.

        Raises:
            StoreError: If it never will.
        """
        return await self.insist(partial(self._store.awrite, work))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds in the store, as soon as that answers.

        Raises:
            StoreError: If it never will.
        """
        return await self.insist(partial(self._store.aread, query))

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what *ask* returns, trying again while the store is away.

        Raises:
            StoreError: If it never will.
        """
        while True:
            try:
                return await ask()
            except _PASSING as exc:
                await self.wait(exc)

    async def wait(self, error: BaseException | None) -> None:
        """Wait before the store is tried again; tell people the first time."""
        loop = running_loop()
        if loop.time() - self._tried_s > loop.wire_seconds(_TOLD_AGAIN_S):
            tell(f"{self._who} waits for its store: {error}")
        self._tried_s = loop.time()
        await asyncio.sleep(loop.wire_seconds(_RETRY_S))


@dataclass
class _Document:
    number: int
    name: str
    content: dict[str, Any]
    now: float
    kept: Future[int]


class JobRecorder:
    """Writes steps, documents and custody of one job.

    Documents are handed to the store in their order and not waited for; a step ends
    after they are kept. A store that is busy, or whose disk is full, is waited for.

    Args:
        store: Where to write.
        job_id: The job.
        token: Fencing token of the cell that runs it.
        epoch: Stamp of lab time 0 [s since 1970].
        ask: Asks a person; without one, what nothing shows is an error.
        known: How far the steps had come that began before, by path.
        asked: What failed steps asked a person, by path.
        before_end: Called before a step ends or fails, while the job still has what it
            had for it.
    """

    def __init__(
        self,
        store: Store,
        job_id: int,
        token: int,
        epoch: float,
        ask: Ask | None = None,
        known: Mapping[str, StepState] | None = None,
        asked: Mapping[str, Question] | None = None,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self.job_id = job_id
        self.token = token
        self._epoch = epoch
        self._ask = ask
        self._known = dict(known or {})
        self._asked = dict(asked or {})
        self._before_end = before_end
        self._pending: deque[_Document] = deque()
        self._n_documents = 0
        self._n_kept = 0
        self._flushing: asyncio.Task[None] | None = None
        self._flush_lock = asyncio.Lock()
        self._patience = Patience(store, f"job {job_id}")

    def is_done(self, path: str) -> bool:
        """Return whether the step at *path* was done before the process died."""
        return self._known.get(path) is StepState.DONE

    def is_under_way(self, path: str) -> bool:
        """Return whether the step at *path* was under way when the process died."""
        return self._known.get(path) in (StepState.INTENT, StepState.UNSETTLED)

    def question(self, path: str) -> Question | None:
        """Return what the step at *path* had asked when the process died, once."""
        return self._asked.pop(path, None)

    async def samples(self, stream: str, since_s: float) -> dict[str, list[float]]:
        """Return what this job sampled in *stream* from a lab time on, by column."""
        await self.flush_documents()
        return await self._patience.read(
            partial(
                samples_of,
                job_id=self.job_id,
                stream=stream,
                since=self._epoch + since_s,
            )
        )

    async def begin(self, path: str, step: StepRecord, digest: str) -> Begun:
        """Keep the intent of a step; return what is known of it from before."""
        begin = partial(
            begin_step,
            job_id=self.job_id,
            path=path,
            name=step.name,
            kind=step.kind,
            digest=digest,
            arguments=step.arguments,
            seat=step.seat,
            token=self.token,
            now=self._epoch + step.begun_s,
        )

        def work(connection: Connection) -> tuple[Step | None, bool]:
            known = begin(connection)
            is_new = known is None and step.kind != "repeatable"
            return known, is_new and is_doubted(connection, self.job_id)

        known, may_have_happened = await self._write(work)
        if known is None or known.state is not StepState.DONE:
            self._known[path] = StepState.INTENT
        if known is None:
            return Begun(path, was_under_way=may_have_happened)
        if known.state is StepState.DONE:
            step.begun_s = known.begun - self._epoch
            step.ended_s = (known.ended or known.begun) - self._epoch
            return Begun(path, is_done=True, result=known.result)
        if known.state is not StepState.FAILED:
            step.begun_s = known.begun - self._epoch
        return Begun(path, was_under_way=True)

    async def keep(self, changes: Sequence[Change], time: float) -> None:
        """Keep what a step has changed before it ends."""
        now = self._epoch + time

        def work(connection: Connection) -> None:
            require_token(connection, self.token)
            enter(connection, changes, self.job_id, now)

        await self._write(work)

    async def end(
        self,
        path: str,
        step: StepRecord,
        result: Any,
        changes: Sequence[Change],
        time: float,
    ) -> None:
        """Keep the result of a step and what it changed, together."""
        now = self._epoch + time

        def work(connection: Connection) -> None:
            enter(connection, changes, self.job_id, now)
            end_step(
                connection, self.job_id, path, result, self.token, now, step.devices
            )

        await self._prepare_end()
        await self._write(work)
        self._known[path] = StepState.DONE

    async def fail(
        self,
        path: str,
        step: StepRecord,
        error: str,
        changes: Sequence[Change],
        time: float,
    ) -> None:
        """Keep why a step failed and what it changed all the same, together."""
        now = self._epoch + time

        def work(connection: Connection) -> None:
            enter(connection, changes, self.job_id, now)
            fail_step(
                connection, self.job_id, path, error, self.token, now, step.devices
            )

        await self._prepare_end()
        await self._write(work)
        self._known[path] = StepState.FAILED

    async def _prepare_end(self) -> None:
        """Keep what belongs before the end of a step."""
        await self.flush_documents()
        if self._before_end is not None:
            await self._before_end()

    async def settle(self, path: str, found: Evidence, time: float) -> Evidence:
        """Keep what shows whether a step happened; if nothing does, ask a person.

        Raises:
            InternalError: If nobody can be asked.
        """
        await self._keep_evidence(path, found, time)
        if found.has_happened is None:
            if self._ask is None:
                raise InternalError(
                    f"step {path} of job {self.job_id}: {found.text}, and nobody can "
                    "be asked"
                )
            found = await self._ask(path, found)
            await self._keep_evidence(path, found, running_loop().time())
        return found

    async def _keep_evidence(self, path: str, found: Evidence, time: float) -> None:
        keep = partial(
            settle_step,
            job_id=self.job_id,
            path=path,
            evidence=asdict(found),
            token=self.token,
            now=self._epoch + time,
        )

        def work(connection: Connection) -> None:
            keep(connection)
            if found.has_happened is False:  # nor has anything that comes after it
                trust_job(connection, self.job_id)

        await self._write(work)

    # -- documents -------------------------------------------------------------------

    def document(self, name: str, document: dict[str, Any], time: float) -> None:
        """Hand a Bluesky document to the store; on the loop.

        Raises:
            StoreError: If an earlier one could not be kept for another reason than
                that the store was busy or its disk full.
        """
        while self._pending and _has_succeeded(self._pending[0].kept):
            self._pending.popleft()
        if self._pending and self._pending[0].kept.done():
            error = self._pending[0].kept.exception()
            if error is not None and not isinstance(error, _PASSING):
                raise error
        entry = _Document(
            self._n_documents, name, document, self._epoch + time, Future()
        )
        self._n_documents += 1
        self._pending.append(entry)
        entry.kept = self._submit(entry)
        if self._pending[0].kept.done() and self._flushing is None:
            self._flushing = running_loop().create_task(self.flush_documents())
            self._flushing.add_done_callback(self._has_flushed)

    def _has_flushed(self, task: asyncio.Task[None]) -> None:
        self._flushing = None
        if not task.cancelled():
            task.exception()  # whoever ends a step meets it again

    def _submit(self, entry: _Document) -> Future[int]:
        def work(connection: Connection) -> int:
            if entry.number != self._n_kept:
                raise StoreBusyError("an earlier document waits to be kept")
            sequence = add_document(
                connection,
                self.job_id,
                entry.name,
                entry.content,
                self.token,
                entry.now,
            )
            self._n_kept += 1
            return sequence

        kept = self.store.submit(work)
        kept.add_done_callback(partial(self._note_kept, entry))
        return kept

    def _note_kept(self, entry: _Document, kept: Future[int]) -> None:
        """Let no later document be kept before one whose commit has failed."""
        if kept.cancelled() or not _has_succeeded(kept):
            self._n_kept = min(self._n_kept, entry.number)

    async def flush_documents(self) -> None:
        """Wait until every document is kept, in their order, however long it takes.

        Raises:
            StoreError: If one cannot be kept.
        """
        async with self._flush_lock:
            await self._flush()

    async def _flush(self) -> None:
        loop = running_loop()
        while self._pending:
            first = self._pending[0]
            with loop.freezing("documents are kept"):
                await asyncio.wait({asyncio.wrap_future(first.kept)})
            if not first.kept.cancelled() and _has_succeeded(first.kept):
                if self._pending and self._pending[0] is first:
                    self._pending.popleft()
                continue
            error = None if first.kept.cancelled() else first.kept.exception()
            if not isinstance(error, _PASSING) and error is not None:
                raise error
            await self._patience.wait(error)
            # Those behind it were refused meanwhile: none is kept before it.
            self._n_kept = first.number
            for entry in self._pending:
                entry.kept = self._submit(entry)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in the store; nothing goes on before it is kept."""
        return await self._patience.write(work)


_PASSING = (StoreBusyError, StoreDiskError)
_RETRY_S: Final = 1.0
_TOLD_AGAIN_S: Final = 60.0
"""People are told anew of a store that was there for so long (real time) [s]."""


def _has_succeeded(future: Future[int]) -> bool:
    return future.done() and future.exception() is None
