"""Puts compiled jobs into the queue."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from ppu.core.errors import ConflictError
from ppu.operations.access import change
from ppu.operations.views import CompiledJob
from ppu.store.cells import lab_of
from ppu.store.jobs import JobRequest
from ppu.store.queue import submit_many
from ppu.store.store import Store

__all__ = ["Submission", "submit"]


class Submission(BaseModel):
    """A compiled job, and how it shall wait its turn.

    Attributes:
        key: Names this request: whoever submits it again gets the same job.
        priority: The higher runs first.
        campaign: Jobs with one goal, which share the lab fairly with others.
        deadline: Stamp by which it must have begun [s since 1970].
        deadline_s: The same as a duration from the submission, in lab time [s].
        tags: Words to find it by.
        needs: Jobs that must have succeeded before.
        is_held: Whether it waits until it is resumed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: CompiledJob
    key: str | None = None
    priority: int = Field(default=0, strict=True)
    campaign: str = ""
    deadline: float | None = Field(default=None, strict=True)
    deadline_s: float | None = Field(default=None, strict=True)
    tags: tuple[str, ...] = ()
    needs: tuple[int, ...] = ()
    is_held: bool = False


def submit(store: Store, wanted: Sequence[Submission]) -> list[int]:
    """Put jobs into the queue, all or none; return their numbers in the same order.

    Raises:
        ConflictError: If the store is of another lab than they were checked against, a
            key names another experiment, or what one needs can no longer succeed.
        NotFoundError: If a job that one needs is not there.
        LimitError: If there is not enough of a powder that is allocated to nobody.
        StoreDiskError: If there is no room for new work.
    """
    store.check_room()
    requests = [
        JobRequest(
            one.job.protocol,
            one.job.version,
            one.job.parameters,
            key=one.key,
            priority=one.priority,
            campaign=one.campaign,
            deadline=one.deadline,
            deadline_s=one.deadline_s,
            tags=one.tags,
            needs=one.needs,
            is_held=one.is_held,
            stock=one.job.stock,
            compiled_digest=one.job.digest,
            lab_digest=one.job.lab_digest,
        )
        for one in wanted
    ]

    def work(connection: Connection, now: float) -> list[int]:
        name = lab_of(connection)
        for lab in {one.job.lab for one in wanted}:
            if name not in (None, lab):
                raise ConflictError(
                    f"jobs of store {store.name} run in lab '{name}', not in '{lab}'; "
                    "name its lab file, or another store"
                )
        return submit_many(connection, requests, now)

    return change(store, work)
