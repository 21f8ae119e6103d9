"""Steps: the durable units of a protocol, and other messages of PPU's own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import typing
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, cast

from bluesky.utils import Msg, MsgGenerator
from pydantic import BaseModel, TypeAdapter, ValidationError

from ppu.core.errors import DivergedError, InternalError
from ppu.plans.lab import Lab

__all__ = [
    "Begun",
    "Evidence",
    "StepKind",
    "StepRecord",
    "compute",
    "digest",
    "plain",
    "restored",
    "step",
]

P = ParamSpec("P")
T = TypeVar("T")

StepKind = Literal["repeatable", "resumable", "irreversible"]
"""How a step that was under way is treated after a crash: run again, join what goes
on, or settle by evidence and never run again blindly."""


@dataclasses.dataclass
class StepRecord:
    """A step as it happened; times are lab time."""

    name: str
    kind: str
    begun_s: float
    expected_s: float | None = None
    arguments: Any = None
    ended_s: float | None = None

    @property
    def label(self) -> str:
        """The step in words: its name and what it acts on.

        Example:
            >>> StepRecord("move_container", "irreversible", 0.0, arguments=[
            ...     ["lab a-lab", "crucible_01", "balance.pan"], {}]).label
            'move container: crucible_01, balance.pan'
        """
        name = self.name.replace("_", " ")
        words = self.arguments[0][1:] if self.arguments else []
        names = [word for word in words if isinstance(word, str)]
        return f"{name}: {', '.join(names)}" if names else name


@dataclasses.dataclass(frozen=True)
class Begun:
    """What the engine answers when a step begins.

    Attributes:
        key: Names the step to the engine.
        is_done: Whether the journal has its result from before; it must not run.
        result: That result, as plain data.
        was_under_way: Whether it had begun when the process died, and nobody knows
            how far it came.
    """

    key: str
    is_done: bool = False
    result: Any = None
    was_under_way: bool = False


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What there is to see of an act that may have happened.

    Attributes:
        has_happened: Whether it did, None if nothing tells.
        text: What was seen, for people and for the journal.
        result: What the step returns if it happened.
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


def step(
    kind: StepKind,
    *,
    expected_s: Callable[..., float] | None = None,
    rejoin: Callable[..., MsgGenerator[Any]] | None = None,
    evidence: Callable[..., MsgGenerator[Evidence]] | None = None,
) -> Callable[[Callable[P, MsgGenerator[T]]], Callable[P, MsgGenerator[T]]]:
    """Make a sub-plan a step of *kind*: its begin and end are journalled.

    When a plan is run again after its process died, a step that was done is not: it
    returns what it returned then. One that was under way is treated by its kind.

    Args:
        kind: How it is treated if it was under way when the process died.
        expected_s: Returns how long it will take, from the plan's own arguments [s];
            told to people who wait.
        rejoin: Of a resumable step: the plan, with the same arguments, that joins
            what may still go on and returns what the step returns.
        evidence: Of an irreversible step: the plan, with the same arguments, that
            looks whether the act has happened, touches nothing, and takes note of it
            in the lab if it has. Without one, a person is asked.

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

    def decorate(
        plan: Callable[P, MsgGenerator[T]],
    ) -> Callable[P, MsgGenerator[T]]:
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
            )
            if begun.is_done:
                return cast(T, restored(plan, begun.result))
            try:
                result: T
                if not begun.was_under_way or kind == "repeatable":
                    result = yield from plan(*args, **kwargs)
                elif rejoin is not None:
                    result = yield from rejoin(*args, **kwargs)
                else:
                    settled = yield from _settle(begun.key, evidence, args, kwargs)
                    if settled is None:
                        result = yield from plan(*args, **kwargs)
                    else:
                        result = cast(T, settled.result)
            except Exception as exc:
                yield Msg("step_failed", None, key=begun.key, error=exc)
                raise
            yield Msg("step_end", None, key=begun.key, result=plain(result))
            return result

        return run_step

    return decorate


def _settle(
    key: str,
    evidence: Callable[..., MsgGenerator[Evidence]] | None,
    args: Any,
    kwargs: Any,
) -> MsgGenerator[Evidence | None]:
    """Find out whether an act has happened; return what shows it, None if it has not.

    Where nothing tells, a person is asked, and the answer is what shows it.
    """
    found = Evidence(None, "nothing tells whether it happened")
    if evidence is not None:
        found = yield from evidence(*args, **kwargs)
    found = yield Msg("settle", None, key=key, found=found)
    return found if found.has_happened else None


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
