"""Asking until answers agree, on wires where a flipped bit does not show."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from ppu.core.errors import InstrumentError, MalformedReply

__all__ = ["confirm"]

Raw = TypeVar("Raw")
T = TypeVar("T")

_N_AGREEING: Final = 3
_N_ANSWERS: Final = 12


async def confirm(
    device: str,
    ask: Callable[[], Awaitable[Raw]],
    parse: Callable[[Raw], T],
    agree: Callable[[T, T], bool] = operator.eq,
) -> T:
    """Return what three answers in a row agree on.

    With two, one bit that is flipped in both at the same place would be believed: on
    a short line of text whose every answer is spoiled that happens about once in
    10,000 times. A refusal is an answer, too, and must be confirmed as well.

    Args:
        device: Name of the device, for errors.
        ask: Asks once.
        parse: Makes the value of an answer; what it refuses as malformed agrees with
            nothing.
        agree: Whether two values say the same. For live values: within what the
            instrument's noise and time explain.

    Returns:
        The last of the three.

    Raises:
        InstrumentError: If the instrument refused three times in a row.
        MalformedReply: If the answers keep differing; it names the last two.
        TransportError: What *ask* raises.
    """
    previous: _Outcome[T] | None = None
    n_agreeing = 0
    seen: list[str] = []
    for _ in range(_N_ANSWERS):
        answer = await ask()
        try:
            outcome = _Outcome(parse(answer), None)
        except InstrumentError as exc:
            outcome = _Outcome(None, exc)
        except MalformedReply as exc:
            previous = None
            seen.append(str(exc))
            continue
        is_same = previous is not None and previous.agrees(outcome, agree)
        n_agreeing = n_agreeing + 1 if is_same else 1
        if n_agreeing == _N_AGREEING:
            return outcome.get()
        previous = outcome
        seen.append(str(outcome))
    if previous is None and len(set(seen)) == 1:
        raise MalformedReply(seen[0])
    raise MalformedReply(
        f"{device}: no three answers in a row agree; the last were {seen[-2]} and "
        f"{seen[-1]}"
    )


class _Outcome(Generic[T]):
    """A value or a refusal."""

    def __init__(self, value: T | None, refusal: InstrumentError | None) -> None:
        self._value = value
        self._refusal = refusal

    def __str__(self) -> str:
        return repr(self._value) if self._refusal is None else str(self._refusal)

    def get(self) -> T:
        """Return the value or raise the refusal."""
        if self._refusal is not None:
            raise self._refusal
        return self._value  # type: ignore[return-value]  # without refusal it is one

    def agrees(self, other: _Outcome[T], agree: Callable[[T, T], bool]) -> bool:
        """Return whether *other* says the same."""
        if self._refusal is not None or other._refusal is not None:
            return str(self._refusal) == str(other._refusal)
        return agree(self.get(), other.get())
