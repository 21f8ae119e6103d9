"""Jobs: what was asked for, the states it goes through, and which may follow which."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from ppu.core.errors import ConfigurationError, FailureClass
from ppu.core.names import checked_name
from ppu.core.remedies import Advice, read_advice
from ppu.core.validation import unfit
from ppu.store.events import encode

__all__ = [
    "ACTIVE",
    "ALLOWED",
    "BEFORE_START",
    "ENDED",
    "Effect",
    "Job",
    "JobRequest",
    "JobState",
]


class JobState(StrEnum):
    """Where a job is in its life."""

    CREATED = "created"
    VALIDATING = "validating"
    REJECTED = "rejected"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    STAGING = "staging"
    RUNNING = "running"
    PAUSED = "paused"
    NEEDS_INPUT = "needs_input"
    RECOVERING = "recovering"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


class Effect(StrEnum):
    """How much of a job has happened to matter; it never becomes less."""

    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


_STATE = JobState
_UNDONE = {_STATE.CANCELLED, _STATE.EXPIRED}
_BROKEN = {_STATE.FAILED, _STATE.ABORTED, _STATE.LOST}
_AT_WORK = {
    _STATE.RUNNING,
    _STATE.PAUSED,
    _STATE.NEEDS_INPUT,
    _STATE.RECOVERING,
    _STATE.FINISHING,
}

ALLOWED: Mapping[JobState, frozenset[JobState]] = {
    _STATE.CREATED: frozenset({_STATE.VALIDATING, _STATE.QUEUED, *_UNDONE}),
    _STATE.VALIDATING: frozenset(
        {_STATE.REJECTED, _STATE.AWAITING_APPROVAL, _STATE.QUEUED, *_UNDONE}
    ),
    _STATE.AWAITING_APPROVAL: frozenset({_STATE.REJECTED, _STATE.QUEUED, *_UNDONE}),
    _STATE.QUEUED: frozenset({_STATE.STAGING, *_UNDONE}),
    _STATE.STAGING: frozenset({_STATE.QUEUED, _STATE.RUNNING, *_BROKEN}),
    **{
        state: frozenset((_AT_WORK | _BROKEN | {_STATE.QUEUED}) - {state})
        for state in _AT_WORK - {_STATE.FINISHING}
    },
    _STATE.FINISHING: frozenset({_STATE.SUCCEEDED, _STATE.NEEDS_INPUT, *_BROKEN}),
    _STATE.LOST: frozenset({_STATE.RECOVERING, _STATE.FAILED, _STATE.ABORTED}),
    **{
        state: frozenset()
        for state in (
            _STATE.REJECTED,
            _STATE.SUCCEEDED,
            _STATE.FAILED,
            _STATE.ABORTED,
            *_UNDONE,
        )
    },
}
"""Which states may follow; a job goes back to the queue only if it touched nothing."""

BEFORE_START = (
    _STATE.CREATED,
    _STATE.VALIDATING,
    _STATE.AWAITING_APPROVAL,
    _STATE.QUEUED,
)
"""States in which nobody has begun anything for the job."""

ENDED = frozenset(state for state, following in ALLOWED.items() if not following)
"""States that nothing follows."""

ACTIVE = frozenset({_STATE.STAGING, *_AT_WORK})
"""States in which a cell owns the job: it has a lease."""


@dataclass(frozen=True)
class JobRequest:
    """A protocol, its parameters, and how it shall wait its turn.

    Attributes:
        protocol: Name of the protocol.
        version: The protocol's version.
        parameters: Its parameters, as plain data.
        key: Names this request: whoever submits it again gets the same job.
        priority: The higher runs first.
        campaign: Jobs with one goal, which share the cell fairly with others.
        deadline: Stamp by which the job must have begun [s since 1970].
        tags: Words to find the job by.
        needs: Jobs that must have succeeded before.
        parent_id: The job that this one retries.
        is_held: Whether it waits until it is resumed.
        stock: Powders that it will use, which are allocated for it [g]. They follow
            from the parameters, so they do not tell experiments apart.
        compiled_digest: Digest of the compiled job, if it was compiled before.
        lab_digest: Digest of the lab file that it was checked against then.
        deadline_s: The deadline as a duration from the submission, in lab time [s].

    Raises:
        ConfigurationError: If a name or a text in the parameters cannot be shown.
    """

    protocol: str
    version: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    key: str | None = None
    priority: int = 0
    campaign: str = ""
    deadline: float | None = None
    tags: tuple[str, ...] = ()
    needs: tuple[int, ...] = ()
    parent_id: int | None = None
    is_held: bool = False
    stock: Mapping[str, float] = dataclasses.field(default_factory=dict)
    compiled_digest: str | None = None
    lab_digest: str | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        for where, name in (("protocol", self.protocol), ("key", self.key)):
            if name is not None:
                checked_name(where, name)
        if self.campaign:
            checked_name("campaign", self.campaign)
        for tag in self.tags:
            checked_name("tag", tag)
        if faults := unfit(self.parameters):
            raise ConfigurationError("\n".join(text for _, text in faults))

    def digest(self) -> str:
        """Return what tells this experiment from others, as 64 hexadecimal digits.

        Example:
            >>> JobRequest("fire", "1", {"a": 1, "b": 2}).digest() == (
            ...     JobRequest("fire", "1", {"b": 2, "a": 1}, priority=9).digest()
            ... )
            True
        """
        plain = json.loads(encode([self.protocol, self.version, self.parameters]))
        text = json.dumps(plain, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """A submitted job, as it was when it was read.

    Attributes:
        id: Its number, which is that of the event that announced it.
        advice: What can be done about the reason.
        failure_class: What a program may do about it, if it did not succeed or cannot
            begin.
        field: Parameter, device, container or powder that this is about, if it is one.
        is_set_aside: Whether it waits for something that is not there.
        n_tries: How often it was begun and put back into the queue.
        not_before: Stamp before which it is not tried again.
        rank: Place among those that are equal otherwise; the lower goes first.
        lease_token: Token of the cell that owns it, None if no cell does.
        lease_expires: Stamp after which that cell is no longer trusted to.
    """

    id: int
    key: str | None
    digest: str
    protocol: str
    version: str
    parameters: dict[str, Any]
    priority: int
    campaign: str
    deadline: float | None
    tags: tuple[str, ...]
    parent_id: int | None
    state: JobState
    is_held: bool
    rank: int
    physical_effect: Effect
    is_retryable: bool
    reason_code: str | None
    reason_text: str | None
    advice: tuple[Advice, ...]
    failure_class: FailureClass | None
    field: str | None
    result: Any
    submitted: float
    started: float | None
    ended: float | None
    lease_token: int | None
    lease_expires: float | None
    deadline_s: float | None
    is_set_aside: bool
    n_tries: int
    not_before: float | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Job:
        """Return the job that a whole row of the table describes."""
        values = dict(row._mapping)
        for column in ("n_unmet_needs", "lease_began"):
            del values[column]
        values["parameters"] = json.loads(row.parameters)
        values["tags"] = tuple(json.loads(row.tags))
        values["advice"] = read_advice(json.loads(row.advice or "[]"))
        values["state"] = JobState(row.state)
        known = row.failure_class
        values["failure_class"] = None if known is None else FailureClass(known)
        values["physical_effect"] = Effect(row.physical_effect)
        values["result"] = None if row.result is None else json.loads(row.result)
        return cls(**values)
