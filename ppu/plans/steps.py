"""Steps: the durable units of a protocol, and other messages of PPU's own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from ppu.core.errors import (
    ConfigurationError,
    DivergedError,
    InstrumentError,
    InternalError,
    NothingToJoinError,
    causes,
)
from ppu.core.failure import FailurePolicy
from ppu.core.labels import label_of
from ppu.plans.lab import Lab
from ppu.plans.messages import Msg, MsgGenerator, utils

__all__ = [
    "Begun",
    "Evidence",
    "Failed",
    "FailurePolicy",
    "Needs",
    "SeatUse",
    "StepKind",
    "StepRecord",
    "compute",
    "digest",
    "earlier_samples",
    "keep_changes",
    "plain",
    "restored",
    "step",
    "take_empty",
    "take_named",
]

P = ParamSpec("P")
T = TypeVar("T")

StepKind = Literal["repeatable", "resumable", "irreversible"]
"""How a step that was under way is treated after a crash: run again, join what goes
on, or settle by evidence and never run again blindly."""

SeatUse = Literal["takes", "leaves"]
"""What a step does that is done: it returns the place in a firing that its job has from
then on, or it has given that back."""


@dataclasses.dataclass
class StepRecord:
    """A step as it happened; times are lab time."""

    name: str
    kind: str
    begun_s: float
    expected_s: float | None = None
    arguments: Any = None
    ended_s: float | None = None
    seat: SeatUse | None = None
    path: str = ""
    """Its place in the plan: "3" is the third, "3.1" the first within it."""
    devices: set[str] = dataclasses.field(default_factory=set)
    """What it has used so far, of the lab's devices."""

    @property
    def label(self) -> str:
        """The step in words: its name and what it acts on.

        Example:
            >>> StepRecord("move_container", "irreversible", 0.0, arguments=[
            ...     ["lab a-lab", "crucible_01", "balance.pan"], {}]).label
            'move container: crucible_01, balance.pan'
        """
        return label_of(self.name, self.arguments)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a step must have to itself, all at once.

    Attributes:
        names: Devices and locations.
        containers: Containers that it acts on: where they stand is free for it.
        at_rest: Those of `names` that nobody may use meanwhile, itself neither.
    """

    names: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    at_rest: frozenset[str] = frozenset()

    @property
    def used(self) -> frozenset[str]:
        """What it uses, and not only keeps from others."""
        return self.names - self.at_rest


@dataclasses.dataclass(frozen=True)
class Failed:
    """What the engine needs to decide what becomes of a failed step.

    Attributes:
        error: What went wrong.
        policy: What the protocol wants done.
        can_skip: Whether the plan can go on without the step's result.
        can_park: Whether the step knows how to put its sample away.
        n_failures: How often it has failed by now.
    """

    error: Exception
    policy: FailurePolicy
    can_skip: bool
    can_park: bool
    n_failures: int


Decision = Literal["raise", "retry", "skip", "park"]
"""What becomes of a failed step; ``park`` puts the sample away and then raises."""


@dataclasses.dataclass(frozen=True)
class Begun:
    """What the engine answers when a step begins.

    Attributes:
        key: Names the step to the engine.
        is_done: Whether the journal has its result from before; it must not run.
        result: That result, as plain data.
        was_under_way: Whether it had begun when the process died, and nobody knows
            how far it came.
        decision: What a person says becomes of it, if it had failed and asked.
        question: What was asked.
    """

    key: str
    is_done: bool = False
    result: Any = None
    was_under_way: bool = False
    decision: Decision = "retry"
    question: str = ""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What there is to see of an act that may have happened.

    Attributes:
        has_happened: Whether it did, None if nothing tells.
        text: What was seen, for people and for the journal.
        result: What the step returns if it happened, also if only a person says so.
    """

    has_happened: bool | None
    text: str
    result: Any = None


def plain(value: Any) -> Any:
    """Return *value* as plain JSON data; a lab stands for itself by its name."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Lab):
        return f"lab {value.name}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "name"):
        return value.name
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a step cannot record a {type(value).__name__}: {value!r}")


def digest(arguments: Any) -> str:
    """Return a short hash that is the same for the same arguments."""
    text = json.dumps(plain(arguments), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_CANNOT_SKIP: Final = object()


def step(
    kind: StepKind,
    *,
    expected_s: Callable[..., float] | None = None,
    needs: Callable[..., Iterable[str | None]] | None = None,
    at_rest: Callable[..., Iterable[str]] | None = None,
    rejoin: Callable[..., MsgGenerator[Any]] | None = None,
    evidence: Callable[..., MsgGenerator[Evidence]] | None = None,
    settled: Callable[..., MsgGenerator[None]] | None = None,
    on_failure: FailurePolicy | None = None,
    park: Callable[..., MsgGenerator[None]] | None = None,
    skipped: Any = _CANNOT_SKIP,
    seat: SeatUse | None = None,
) -> Callable[[Callable[P, MsgGenerator[T]]], Callable[P, MsgGenerator[T]]]:
    """Make a sub-plan a step of *kind*: its begin and end are journalled.

    When a plan is run again after its process died, a step that was done is not: it
    returns what it returned then. One that was under way is treated by its kind.

    A step begins when it has all that it needs to itself. A step within another may
    need hands (who carry, doors) beyond what the outer one has; everything else must
    be named by the outer one, so that no two jobs wait for each other.

    Args:
        kind: How it is treated if it was under way when the process died.
        expected_s: Returns how long it will take, from the plan's own arguments [s];
            told to people who wait.
        needs: Returns the names of devices and locations that it needs to itself,
            from the plan's own arguments; by default the devices among these.
        at_rest: Returns the names of devices that it does not use and that nobody may
            use meanwhile, such as the furnace that it reaches into: it needs them to
            itself, too, but may begin while they must not heat.
        rejoin: Of a resumable step: the plan, with the same arguments, that joins
            what may still go on and returns what the step returns. If it raises a
            NothingToJoinError, a person is asked whether the step has happened.
        evidence: Of an irreversible step: the plan, with the same arguments, that
            looks whether the act has happened and touches nothing. Without one, or if
            nothing tells, a person is asked.
        settled: Of an irreversible step: the plan, with what shows whether the act has
            happened and the same arguments, that takes note of it in the lab. If it
            has, it leaves everything as the step does; if not, the step runs next.
            Without one, the evidence does so.
        on_failure: What to do if it fails; a lab file may say otherwise. By default
            the job ends.
        park: The plan, with the same arguments, that puts the sample where it harms
            nobody, for the policy ``park``.
        skipped: What it returns if it failed and is skipped; without it, it cannot be.
        seat: Whether it takes a place in a firing or leaves it, so that the job has it
            still after its process has died in between. One that takes returns the
            :class:`~ppu.plans.seats.Seat`.

    Example:
        >>> @step(kind="repeatable")
        ... def wait_a_minute(lab):
        ...     yield Msg("sleep", None, 60.0)
        >>> plan = wait_a_minute(None)
        >>> [next(plan).command, plan.send(Begun("0")).command, next(plan).command]
        ['step_begin', 'sleep', 'step_end']
    """
    if rejoin is not None and kind != "resumable":
        raise InternalError(f"a {kind} step has nothing to rejoin")
    if (evidence or settled) is not None and kind != "irreversible":
        raise InternalError(f"a {kind} step is not settled by evidence")
    policy = FailurePolicy() if on_failure is None else on_failure

    def decorate(
        plan: Callable[P, MsgGenerator[T]],
    ) -> Callable[P, MsgGenerator[T]]:
        this = _Step(kind, plan, rejoin, evidence, settled, policy, park, skipped)

        @functools.wraps(plan)
        def run_step(*args: P.args, **kwargs: P.kwargs) -> MsgGenerator[T]:
            arguments = plain([args, kwargs])
            begun: Begun = yield Msg(
                "step_begin",
                None,
                name=plan.__name__,
                kind=kind,
                arguments=arguments,
                digest=digest(arguments),
                lab=args[0] if args else None,
                expected_s=None if expected_s is None else expected_s(*args, **kwargs),
                needs=functools.partial(_needs_of, needs, at_rest, args, kwargs),
                seat=seat,
            )
            if begun.is_done:
                return cast(T, restored(plan, begun.result))
            result = yield from this.run(begun, args, kwargs)
            yield Msg("step_end", None, key=begun.key, result=plain(result))
            return cast(T, result)

        return run_step

    return decorate


@dataclasses.dataclass(frozen=True)
class _Step:
    """A plan that is a step, and what its author says of it."""

    kind: StepKind
    plan: Callable[..., MsgGenerator[Any]]
    rejoin: Callable[..., MsgGenerator[Any]] | None
    evidence: Callable[..., MsgGenerator[Evidence]] | None
    settled: Callable[..., MsgGenerator[None]] | None
    policy: FailurePolicy
    park: Callable[..., MsgGenerator[None]] | None
    skipped: Any

    def run(self, begun: Begun, args: Any, kwargs: Any) -> MsgGenerator[Any]:
        """Run the plan, again if it fails and that is wanted; return its result."""
        if begun.decision == "skip":
            return self.skipped
        if begun.decision == "park" and self.park is not None:
            yield from self.park(*args, **kwargs)
        if begun.decision != "retry":
            raise InstrumentError(begun.question)
        is_again = begun.was_under_way
        for n_failures in itertools.count(1):
            try:
                return (yield from self._attempt(begun.key, args, kwargs, is_again))
            except utils.RunEngineControlException as exc:
                yield Msg("step_failed", None, key=begun.key, error=exc)
                raise
            except Exception as exc:
                can_skip = self.skipped is not _CANNOT_SKIP
                failed = Failed(
                    exc, self.policy, can_skip, self.park is not None, n_failures
                )
                decision: Decision = yield Msg(
                    "step_failed", None, key=begun.key, error=exc, failed=failed
                )
                if decision == "skip":
                    return self.skipped
                if decision == "park" and self.park is not None:
                    yield from self.park(*args, **kwargs)
                if decision != "retry":
                    raise
                # What failed in the middle may have happened all the same; but
                # nothing goes on that could be joined.
                is_again = self.kind == "irreversible"

    def _attempt(
        self, key: str, args: Any, kwargs: Any, is_again: bool
    ) -> MsgGenerator[Any]:
        """Run the plan, or find out what became of it."""
        if not is_again or self.kind == "repeatable":
            return (yield from self.plan(*args, **kwargs))
        if self.rejoin is not None:
            rejoin, name = self.rejoin, self.plan.__name__
            label = StepRecord(name, self.kind, 0.0, None, plain([args, kwargs])).label
            return (
                yield from _join(
                    key,
                    label,
                    lambda: rejoin(*args, **kwargs),
                    lambda: self.plan(*args, **kwargs),
                )
            )
        shown = yield from _settle(key, self.evidence, args, kwargs)
        if self.settled is not None:
            yield from self.settled(shown, *args, **kwargs)
        if shown.has_happened:
            return shown.result
        return (yield from self.plan(*args, **kwargs))


def _needs_of(
    needs: Callable[..., Iterable[str | None]] | None,
    at_rest: Callable[..., Iterable[str]] | None,
    args: Any,
    kwargs: Any,
) -> Needs:
    """Return what a step with these arguments needs.

    Raises:
        ConfigurationError: If it names what the lab does not have.
    """
    lab = args[0] if args else None
    if not isinstance(lab, Lab):
        return Needs()
    values = [*args[1:], *kwargs.values()]
    containers = {
        value
        for value in values
        if isinstance(value, str) and value in lab.file.containers
    }
    if needs is None:
        found = {getattr(value, "name", None) for value in values}
        names = {name for name in found if name is not None and name in lab.devices}
    else:
        names = {name for name in needs(*args, **kwargs) if name is not None}
    resting = set() if at_rest is None else set(at_rest(*args, **kwargs))
    names |= resting
    if needs is not None or resting:
        known = {*lab.devices, *lab.file.locations}
        if unknown := names - known:
            raise ConfigurationError(
                f"a step needs {', '.join(sorted(unknown))}, which is neither a device "
                f"nor a location of lab {lab.name}"
            )
    return Needs(frozenset(names), frozenset(containers), frozenset(resting))


def _join(
    key: str,
    label: str,
    rejoin: Callable[[], MsgGenerator[T]],
    begin: Callable[[], MsgGenerator[T]],
) -> MsgGenerator[T]:
    """Join what goes on; if there is nothing to join, have a person say what to do.

    Args:
        key: Names the step to the engine.
        label: The step in words.
        rejoin: Makes the plan that joins.
        begin: Makes the plan that begins anew.

    Raises:
        InstrumentError: If a person says that it has happened: nobody measured it.
    """
    try:
        return (yield from rejoin())
    except Exception as exc:
        cause = _nothing_to_join(exc)
        if cause is None:
            raise
        seen = str(cause)
    answer: Evidence = yield Msg("settle", None, key=key, found=Evidence(None, seen))
    if answer.has_happened:
        raise InstrumentError(
            f"{label}: it has happened ({answer.text}), but its result is not known: "
            f"{seen}"
        )
    # Never by itself: somebody has said that it did not happen.
    return (yield from begin())


def _nothing_to_join(exc: BaseException) -> NothingToJoinError | None:
    """Return the error behind *exc* that says that there is nothing to join, if any."""
    found = (one for one in causes(exc) if isinstance(one, NothingToJoinError))
    return next(found, None)


def earlier_samples(stream: str) -> MsgGenerator[dict[str, list[float]]]:
    """Return what the present step sampled before its process died.

    Args:
        stream: Name of the stream of documents, such as ``firing``.

    Returns:
        Columns by data key, and ``time`` with their UTC stamps, in order: of all the
        events and event pages of that stream that were kept since the step began.
        Empty if there are none.
    """
    return cast(dict[str, list[float]], (yield Msg("earlier_samples", stream=stream)))


def keep_changes(lab: Lab) -> MsgGenerator[None]:
    """Keep what the present step has changed in the lab, before it goes on.

    So it is known even if the process dies in the middle of the step, and whatever
    becomes of the job then.
    """
    yield Msg("keep_changes", None, lab=lab)


def note_wait(text: str) -> MsgGenerator[None]:
    """Say what the job waits for, if nothing else says it; "" when that ends."""
    yield Msg("wait_noted", None, text=text)


def take_empty(lab: Lab, kind: str) -> MsgGenerator[str]:
    """Wait for an empty container at its home, and claim it for the sample.

    Only people make containers empty, so a plan that is no job of a cell does not wait.

    Args:
        lab: The lab.
        kind: Kind of container.

    Raises:
        LimitError: If there is none, and none comes in time.
    """
    lab.empty_container(kind)
    return cast(str, (yield Msg("take_container", None, lab=lab, kind=kind)))


def take_named(lab: Lab, container: str) -> MsgGenerator[None]:
    """Wait until no other job has *container* any more, and claim it for the sample.

    What is in it stays in it: the sample goes on from there. A plan that is no job of a
    cell does not wait.

    Args:
        lab: The lab.
        container: Its name.

    Raises:
        ConfigurationError: If there is no such container.
        InterlockError: If it is another job's, or nobody knows where it is, and that
            does not end in time.
    """
    kind = lab.container(container).kind
    yield Msg("take_container", None, lab=lab, kind=kind, container=container)


def _settle(
    key: str,
    evidence: Callable[..., MsgGenerator[Evidence]] | None,
    args: Any,
    kwargs: Any,
) -> MsgGenerator[Evidence]:
    """Find out whether an act has happened; return what shows it.

    Where nothing tells, a person is asked, and the answer is what shows it.
    """
    found = Evidence(None, "nothing tells whether it happened")
    if evidence is not None:
        found = yield from evidence(*args, **kwargs)
    answer: Evidence = yield Msg("settle", None, key=key, found=found)
    if answer.result is None:  # who is asked says whether, not what came of it
        answer = dataclasses.replace(answer, result=found.result)
    return answer


def restored(plan: Callable[..., Any], result: Any) -> Any:
    """Return a journalled *result* of *plan* as what the plan returned.

    Its type is that of the plan's annotation, ``MsgGenerator[T]``.

    Raises:
        DivergedError: If it is not of that type, so the step has changed since.
    """
    adapter = _result_type(plan)
    try:
        return adapter.validate_python(result)
    except ValidationError as exc:
        raise DivergedError(
            f"step {plan.__name__}: its result in the journal is not what it returns "
            f"today: {exc.errors()[0]['msg']}"
        ) from exc


def restored_as(kind: type[T], result: Any) -> T:
    """Return plain data of the journal as what it was.

    Raises:
        DivergedError: If it is not of that kind.
    """
    try:
        return TypeAdapter(kind).validate_python(result)
    except ValidationError as exc:
        raise DivergedError(
            f"the journal's {kind.__name__} is not what it is today: "
            f"{exc.errors()[0]['msg']}"
        ) from exc


@functools.cache
def _result_type(plan: Callable[..., Any]) -> TypeAdapter[Any]:
    hints = typing.get_type_hints(inspect.unwrap(plan))
    arguments = typing.get_args(hints.get("return"))
    return TypeAdapter(arguments[-1] if arguments else Any)


def compute(
    function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> MsgGenerator[T]:
    """Run *function* in a worker thread and return its result.

    Plans run on the lab's loop, so long computations must not run in the plan itself.
    Lab time stands still meanwhile in a jumping twin.
    """
    result = yield Msg("compute", None, functools.partial(function, *args, **kwargs))
    return cast(T, result)
