"""Readings: their quality, exchanges that they share, and polls of what is watched."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol

from bluesky.protocols import Reading

from ppu.core.labtime import running_loop
from ppu.core.notices import tell
from ppu.devices.address import Address

__all__ = [
    "INVALID_SEVERITY",
    "Poller",
    "Quality",
    "Watched",
    "ask_once",
    "quality_of",
    "sharing_exchanges",
    "sharing_nothing",
]

INVALID_SEVERITY: Final = 3
"""Alarm severity of a reading that must not be used, as EPICS counts."""

_FRESH: Final = 1.05
"""Periods after which a value that was heard otherwise is polled: whoever samples in
the same rhythm may be a little late."""


class Quality(enum.StrEnum):
    """Whether a reading may be acted upon."""

    GOOD = "good"
    STALE = "stale"
    INVALID = "invalid"


def quality_of(reading: Reading[Any], now: float, stale_after_s: float) -> Quality:
    """Return the quality of *reading* at the UTC stamp *now* [s since 1970]."""
    if reading.get("alarm_severity", 0) >= INVALID_SEVERITY:
        return Quality.INVALID
    if now - reading["timestamp"] > stale_after_s:
        return Quality.STALE
    return Quality.GOOD


# -- exchanges that several readings share -----------------------------------------


class _Answers:
    """What the wire was asked within one block, and whether that still goes on."""

    def __init__(self) -> None:
        self.is_open = True
        self.asked: dict[Hashable, asyncio.Task[Any]] = {}


_answers: ContextVar[_Answers | None] = ContextVar("answers", default=None)


@contextlib.contextmanager
def sharing_exchanges() -> Iterator[None]:
    """Ask the wire once for all that is read within the block and that shares it.

    What was asked before the block is not used: a value that is read after something
    was written is never older than that. Tasks that are begun within the block and
    outlive it ask for themselves.
    """
    answers = _Answers()
    token = _answers.set(answers)
    try:
        yield
    finally:
        answers.is_open = False
        _answers.reset(token)


@contextlib.contextmanager
def sharing_nothing() -> Iterator[None]:
    """Let whatever is begun within the block ask the wire for itself."""
    token = _answers.set(None)
    try:
        yield
    finally:
        _answers.reset(token)


async def ask_once(address: Address[Any], client: Any) -> Any:
    """Return the raw value at *address*, from an exchange that others share."""
    answers = _answers.get()
    if answers is None or not answers.is_open:
        return await address.read(client)
    key = (id(client), address.exchange)
    if key not in answers.asked:
        answers.asked[key] = asyncio.ensure_future(address.ask(client))
    return address.pick(client, await answers.asked[key])


# -- polls ---------------------------------------------------------------------------


class Watched(Protocol):
    """A signal's back end that somebody watches."""

    @property
    def latest(self) -> Reading[Any] | None:
        """What was heard last, by whomever."""

    @property
    def is_sampled(self) -> bool:
        """Whether that was a driver's own sample, with more to come."""

    async def poll(self) -> None:
        """Read the value from the wire, so that whoever watches hears it.

        It does not raise when the instrument cannot be read: that is heard, too.
        """


class Poller:
    """Reads what is watched of one device, one poll a period however many watch.

    What was heard within the period by other ways, as in a firing, is not asked again.

    Args:
        period_s: Returns the period [s].
    """

    def __init__(self, period_s: Callable[[], float]) -> None:
        self._period_s = period_s
        self._watched: list[Watched] = []
        self._new: list[Watched] = []
        self._polled: dict[Watched, Reading[Any] | None] = {}
        """What each heard when it was polled last: that is no reason to wait."""
        self._told: set[str] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, signal: Watched) -> bool:
        """Poll *signal* from now on; on the loop.

        Returns:
            Whether its latest value is a sample that others took just now, which will
            do for a first one. Otherwise it is polled now, too.
        """
        is_heard = signal.is_sampled and self._is_fresh(signal, self._period_s())
        self._watched.append(signal)
        if not is_heard:
            self._new.append(signal)
        self._changed.set()
        if self._task is None or self._task.done():
            # For nobody in particular: it may outlive the plan that listened first.
            self._task = running_loop().create_task(
                self._poll(), name="poll", context=Context()
            )
        return is_heard

    def unwatch(self, signal: Watched) -> None:
        """Poll *signal* no more; an exchange that is under way comes to its end."""
        if signal in self._watched:
            self._watched.remove(signal)
            self._polled.pop(signal, None)
        if not self._watched:
            self._changed.set()

    async def close(self) -> None:
        """Poll nothing more."""
        self._watched.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _poll(self) -> None:
        loop = running_loop()
        period = self._period_s()
        due = loop.time()
        while self._watched:
            self._changed.clear()
            new, self._new = self._new, []
            is_due = loop.time() >= due
            if is_due:
                due += (math.floor((loop.time() - due) / period + 1e-9) + 1) * period
            with sharing_exchanges():
                for signal in list(self._watched if is_due else new):
                    if signal in new or not self._is_fresh(signal, period):
                        await self._poll_one(signal)
                        self._polled[signal] = signal.latest
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    async def _poll_one(self, signal: Watched) -> None:
        """Poll *signal*; tell of a driver's mistake, which must not end the polls."""
        try:
            await signal.poll()
        except Exception as exc:  # noqa: BLE001 - the next poll may go well
            text = f"a poll failed in its driver: {exc!r}"
            if text not in self._told:
                self._told.add(text)
                tell(text)

    def _is_fresh(self, signal: Watched, period: float) -> bool:
        """Return whether a value of *signal* was heard otherwise just now."""
        latest = signal.latest
        if latest is None or latest is self._polled.get(signal):
            return False
        age: float = running_loop().stamp() - latest["timestamp"]
        return age < _FRESH * period
