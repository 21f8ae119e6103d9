"""What doors show, as models: pure data that any client can share.

Moments are stamps [s since 1970] in Python and ISO 8601 in UTC as JSON.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

from ppu.core.errors import FailureClass
from ppu.core.labtime import iso
from ppu.core.remedies import Advice

__all__ = [
    "ActivityView",
    "AnsweredView",
    "AskedView",
    "BarView",
    "Change",
    "CompiledJob",
    "CustodyChange",
    "EntryView",
    "EventView",
    "IncidentChange",
    "JobDetailView",
    "JobView",
    "PowderView",
    "QuestionView",
    "ReasonView",
    "RecoveryView",
    "SafetyChange",
    "SampleChange",
    "SampleHistoryView",
    "SampleView",
    "StateChange",
    "StepChange",
    "StepView",
    "StockChange",
    "TaggedOutView",
    "WaitChange",
    "WaitView",
]

Stamp = Annotated[float, PlainSerializer(iso, return_type=str, when_used="json")]
"""A moment [s since 1970]."""


class _View(BaseModel):
    # A command shows one or two of them: the others need no validator.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# -- jobs --------------------------------------------------------------------------


class CompiledJob(_View):
    """A job that was checked: what will run, in which lab, whoever submits it."""

    protocol: str
    version: str
    """Version of the protocol."""
    parameters: dict[str, Any]
    """Every parameter, defaults included."""
    stock: dict[str, float]
    """How much of each powder it will use [g]."""
    lab: str
    lab_digest: str
    """Digest of the lab file that it was checked against."""
    digest: str
    """Tells this from every other compiled job, as 64 hexadecimal digits."""


class ReasonView(_View):
    """Why a job is in its state."""

    code: str
    text: str
    advice: tuple[Advice, ...] = ()
    failure_class: FailureClass | None = None
    """What a program may do about it, if the job did not succeed or cannot begin."""
    field: str | None = None
    """Parameter, device, container or powder that it is about, if it is about one."""


class WaitView(_View):
    """Something that a job waits for."""

    text: str
    advice: tuple[Advice, ...] = ()


class JobView(_View):
    """A job."""

    id: int
    state: str
    is_held: bool
    protocol: str
    version: str
    parameters: dict[str, Any]
    key: str | None
    priority: int
    campaign: str
    tags: tuple[str, ...]
    parent_id: int | None
    physical_effect: str
    is_retryable: bool
    reason: ReasonView | None
    result: Any
    submitted: Stamp
    started: Stamp | None
    ended: Stamp | None
    deadline: Stamp | None
    deadline_s: float | None = None
    """The deadline in lab time from the submission [s], if it was said so."""
    n_tries: int = 0
    """How often it was begun and went back to the queue."""
    waits: tuple[WaitView, ...] = ()
    """What it waits for, if that was asked for."""


class StepView(_View):
    """A step of a job."""

    path: str
    name: str
    kind: str
    label: str
    """Its name and what it acts on, in words."""
    state: str
    attempt: int
    begun: Stamp
    ended: Stamp | None
    result: Any
    evidence: dict[str, Any] | None


class QuestionView(_View):
    """What a job asks a person about a step."""

    job: int
    step: StepView
    text: str
    answers: dict[str, str]
    """What may be answered, and what each answer will do."""
    answered: str | None
    """The answer that waits for the cell, if one was given."""


class JobDetailView(JobView):
    """A job with its steps and its questions."""

    steps: tuple[StepView, ...]
    questions: tuple[QuestionView, ...]


class RecoveryView(_View):
    """All that only people can say."""

    questions: tuple[QuestionView, ...]
    lost: tuple[JobView, ...]
    """Jobs whose cell vanished."""
    wait_to_heat: tuple[JobView, ...]
    """Jobs that wait until a person lets furnaces be heated again."""


class BarView(_View):
    """A part of a job's time, for charts."""

    name: str
    begun: Stamp
    ended: Stamp
    is_wait: bool


class ActivityView(_View):
    """What jobs did when."""

    jobs: dict[int, tuple[BarView, ...]]
    """The outer steps and the waits of each job, the oldest job first."""
    restarts: tuple[Stamp, ...]
    """When another cell began."""


# -- matter ------------------------------------------------------------------------


class SampleView(_View):
    """A sample."""

    id: str
    job_id: int
    state: str
    reason: str | None
    places: dict[str, str | None]
    """Its containers, and where each is; None if nobody knows."""


class EntryView(_View):
    """Something that happened to a sample."""

    sequence: int
    stamp: float
    kind: str
    container: str | None
    origin: str | None
    destination: str | None
    by: str
    text: str
    time: Stamp
    """The stamp once more, which is a moment as JSON."""


class SampleHistoryView(SampleView):
    """A sample and all that happened to it, oldest first."""

    history: tuple[EntryView, ...]


class TaggedOutView(_View):
    """A device that a person has put out of service."""

    device: str
    reason: str
    by: str
    since: Stamp


class PowderView(_View):
    """How much of a powder there is."""

    name: str
    mass_g: float | None
    """What should be there [g]; None before a cell has declared it."""
    allocated_g: float
    """What jobs that wait or run will use of it [g]."""


class AnsweredView(_View):
    """What came of an answer."""

    job: int
    step: str | None = None
    said: str
    effect: str = ""
    """What the answer will do."""
    state: str
    """State of the job when it was given."""
    is_heard: bool = True
    """Whether a cell works on the store, which acts on it."""


class AskedView(_View):
    """What came of something that a person asked for."""

    number: int | None
    """Number of the request to the cell; None if it was done at once."""
    is_done: bool = False
    """Whether it was done."""
    is_refused: bool = False
    """Whether it was refused; if neither, the cell has not seen to it yet."""
    outcome: str = ""
    """What the cell said."""
    advice: tuple[Advice, ...] = ()
    lacking_g: dict[int, float] = {}
    """How much of a powder jobs lack of what is allocated to them [g]."""


# -- events ------------------------------------------------------------------------


class _Change(BaseModel):
    """Content of an event, as far as views follow it; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class StateChange(_Change):
    """A job changed; the first one is its submission."""

    state: str | None = None
    was: str | None = None
    is_held: bool | None = None
    reason_code: str | None = None
    reason_text: str | None = None
    failure_class: str | None = None
    field: str | None = None
    compiled_digest: str | None = None
    """Of a submission: the digest of the compiled job."""
    lab_digest: str | None = None
    """Of a submission: the digest of the lab file that the job was checked against."""


class StepChange(_Change):
    """A step changed."""

    path: str
    state: str
    name: str | None = None
    error: str | None = None
    question: str | None = None
    answers: tuple[str, ...] = ()
    evidence: dict[str, Any] | None = None


class WaitChange(_Change):
    """A job waits for something else, or for nothing any more."""

    waits_for: str
    advice: tuple[Advice, ...] = ()


class CustodyChange(_Change):
    """A container was claimed, moved, found or released."""

    container: str
    kind: str
    destination: str | None = None


class SampleChange(_Change):
    """A sample changed its state."""

    sample: str
    state: str
    reason: str | None = None


class StockChange(_Change):
    """A person said something of a powder."""

    powder: str
    mass_g: float
    by: str
    note: str = ""
    added_g: float | None = None
    believed_g: float | None = None
    lacking_g: dict[int, float] = {}


class IncidentChange(_Change):
    """Something went physically wrong in a twin."""

    device: str
    lab_time_s: float
    incident: str
    text: str


class SafetyChange(_Change):
    """A device was brought to its abort state, or is not there."""

    device: str
    lab_time_s: float
    is_reached: bool = False
    """Whether it got there; of one that is not safe, never."""
    text: str


Change = (
    StateChange
    | StepChange
    | WaitChange
    | CustodyChange
    | SampleChange
    | StockChange
    | IncidentChange
    | SafetyChange
)


class EventView(_View):
    """One change of the store."""

    sequence: int
    """Its number: whoever has seen it finds nothing new before it."""
    time: Stamp
    kind: str
    job_id: int | None
    content: dict[str, Any]
    """What was kept, as plain data."""
    change: Change | None = None
    """The content as a model, where views follow it."""
