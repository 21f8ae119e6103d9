"""Steps: the durable units of a protocol, and other messages of PPU's own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, cast

from bluesky.utils import Msg, MsgGenerator
from pydantic import BaseModel

from ppu.plans.lab import Lab

__all__ = ["StepKind", "StepRecord", "compute", "digest", "plain", "step"]

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
) -> Callable[[Callable[P, MsgGenerator[T]]], Callable[P, MsgGenerator[T]]]:
    """Make a sub-plan a step of *kind*: its begin and end are journalled.

    Args:
        kind: How it is treated if it was under way when the process died.
        expected_s: Returns how long it will take, from the plan's own arguments [s];
            told to people who wait.

    Example:
        >>> @step(kind="repeatable")
        ... def wait_a_minute(lab):
        ...     yield Msg("sleep", None, 60.0)
        >>> [message.command for message in wait_a_minute(None)]
        ['step_begin', 'sleep', 'step_end']
    """

    def decorate(
        plan: Callable[P, MsgGenerator[T]],
    ) -> Callable[P, MsgGenerator[T]]:
        @functools.wraps(plan)
        def run_step(*args: P.args, **kwargs: P.kwargs) -> MsgGenerator[T]:
            arguments = plain([args, kwargs])
            key = yield Msg(
                "step_begin",
                None,
                name=plan.__name__,
                kind=kind,
                arguments=arguments,
                digest=digest(arguments),
                expected_s=None if expected_s is None else expected_s(*args, **kwargs),
            )
            result = yield from plan(*args, **kwargs)
            yield Msg("step_end", None, key=key, result=plain(result))
            return result

        return run_step

    return decorate


def compute(
    function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> MsgGenerator[T]:
    """Run *function* in a worker thread and return its result.

    Plans run on the lab's loop, so long computations must not run in the plan itself.
    Lab time stands still meanwhile in a jumping twin.
    """
    result = yield Msg("compute", None, functools.partial(function, *args, **kwargs))
    return cast(T, result)
