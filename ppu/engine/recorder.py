"""Keeps what a job does in the store, so that it can go on after its process died."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ppu.core.custody import Change
from ppu.core.errors import InternalError
from ppu.plans.steps import Begun, Evidence, StepRecord
from ppu.store.custody import enter
from ppu.store.documents import add_document
from ppu.store.steps import (
    StepState,
    begin_step,
    end_step,
    fail_step,
    settle_step,
)
from ppu.store.store import Store

__all__ = ["JobRecorder"]

Ask = Callable[[str, Evidence], Awaitable[Evidence]]
"""Asks a person whether a step happened, given its path and what is known."""


class JobRecorder:
    """Writes steps, documents and custody of one job.

    Documents are handed to the store in their order and not waited for; a step ends
    after they are kept, because the store writes in order.

    Args:
        store: Where to write.
        job_id: The job.
        token: Fencing token of the cell that runs it.
        epoch: Stamp of lab time 0 [s since 1970].
        ask: Asks a person; without one, what nothing shows is an error.
    """

    def __init__(
        self,
        store: Store,
        job_id: int,
        token: int,
        epoch: float,
        ask: Ask | None = None,
    ) -> None:
        self.store = store
        self.job_id = job_id
        self.token = token
        self._epoch = epoch
        self._ask = ask
        self._documents: deque[Future[int]] = deque()

    async def begin(self, path: str, step: StepRecord, digest: str) -> Begun:
        """Keep the intent of a step; return what is known of it from before."""
        work = partial(
            begin_step,
            job_id=self.job_id,
            path=path,
            name=step.name,
            kind=step.kind,
            digest=digest,
            arguments=step.arguments,
            token=self.token,
            now=self._epoch + step.begun_s,
        )
        known = await self.store.awrite(work)
        if known is None:
            return Begun(path)
        if known.state is StepState.DONE:
            step.begun_s = known.begun - self._epoch
            step.ended_s = (known.ended or known.begun) - self._epoch
            return Begun(path, is_done=True, result=known.result)
        return Begun(path, was_under_way=True)

    async def end(
        self, path: str, result: Any, changes: Sequence[Change], time: float
    ) -> None:
        """Keep the result of a step and what it changed, together."""
        now = self._epoch + time

        def work(connection: Connection) -> None:
            enter(connection, changes, self.job_id, now)
            end_step(connection, self.job_id, path, result, self.token, now)

        await self.store.awrite(work)
        self._see_documents()

    async def fail(
        self, path: str, error: str, changes: Sequence[Change], time: float
    ) -> None:
        """Keep why a step failed and what it changed all the same, together."""
        now = self._epoch + time

        def work(connection: Connection) -> None:
            enter(connection, changes, self.job_id, now)
            fail_step(connection, self.job_id, path, error, self.token, now)

        await self.store.awrite(work)

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
            await self._keep_evidence(path, found, time)
        return found

    async def _keep_evidence(self, path: str, found: Evidence, time: float) -> None:
        await self.store.awrite(
            partial(
                settle_step,
                job_id=self.job_id,
                path=path,
                evidence=asdict(found),
                token=self.token,
                now=self._epoch + time,
            )
        )

    def document(self, name: str, document: dict[str, Any], time: float) -> None:
        """Hand a Bluesky document to the store.

        Raises:
            StoreError: If an earlier one could not be kept, or too many wait.
        """
        self._see_documents()
        work = partial(
            add_document,
            job_id=self.job_id,
            name=name,
            document=document,
            token=self.token,
            now=self._epoch + time,
        )
        self._documents.append(self.store.submit(work))

    def flush(self) -> None:
        """Wait until every document is kept; not on the loop.

        Raises:
            StoreError: If one could not be.
        """
        while self._documents:
            self._documents.popleft().result()

    def _see_documents(self) -> None:
        """Raise what went wrong with documents that were handed over."""
        while self._documents and self._documents[0].done():
            self._documents.popleft().result()
