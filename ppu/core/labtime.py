"""Lab time: the one clock of a lab, as an asyncio event loop with three paces.

``loop.time()`` *is* lab time. At the *wall* pace it is real time; at a *scaled* pace
it runs that many times faster; at the *jumping* pace it does not run at all but leaps
to the next timer whenever nothing else is left to do. Coroutines use
:func:`asyncio.sleep` and :func:`now`; nothing else in PPU reads a clock.

A jump must not overtake bytes that are under way inside this process, or every reply
would seem to come too late. So both ends of an in-process link keep a :class:`Debt`:
what one end wrote and the other has not read yet. While any debt is positive, or
somebody freezes time (:meth:`LabTimeLoop.freezing`), time stands still and the loop
blocks in ``select``. Links in memory (:mod:`ppu.core.memory`) need none: their bytes
are something left to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from ppu.core.errors import InternalError
from ppu.core.memory import Switchboard

__all__ = [
    "NEVER_S",
    "TWIN_EPOCH",
    "Debt",
    "LabTimeLoop",
    "LibraryClock",
    "calendar_date",
    "duration",
    "is_on_lab_loop",
    "iso",
    "now",
    "running_loop",
    "stopwatch",
    "wall_stamp",
]

TWIN_EPOCH = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC).timestamp()
"""Where a jumping twin's calendar starts [s since 1970], so that runs repeat."""

NEVER_S: Final = 1e8
"""A timer that is further away means never: time does not jump to it [s]."""

_WATCHDOG_WALL_S = 5.0


class Debt:
    """What is under way on one link inside this process.

    Byte links count bytes that were written by one end and not yet read by the
    other. Request links (HTTP) owe one unit from the request until its answer,
    less one while the server deliberately waits in lab time.

    Args:
        name: Endpoint of the link, for the watchdog's message.
        loop: The loop that must not jump while something is owed.
    """

    __slots__ = (
        "_amount",
        "_counts_requests",
        "_is_closed",
        "_loop",
        "_requests",
        "name",
    )

    def __init__(self, name: str, loop: LabTimeLoop) -> None:
        self.name = name
        self._loop = loop
        self._amount = 0
        self._requests = 0
        self._counts_requests = False
        self._is_closed = False

    @property
    def amount(self) -> int:
        """Bytes or requests under way; time is frozen while it is positive."""
        return self._amount

    def add(self, amount: int) -> None:
        """Owe *amount* more (negative: less); nothing is owed on a closed link."""
        if not self._is_closed:
            self._change(amount)

    def _change(self, amount: int) -> None:
        was_owing = self._amount > 0
        self._amount += amount
        is_owing = self._amount > 0
        if was_owing is not is_owing:
            self._loop.n_owing += 1 if is_owing else -1

    def pay(self, n_bytes: int) -> None:
        """Take note that *n_bytes* were read.

        They may be more than is owed: bytes that were under way when the link was
        closed and opened again were forgotten, but still arrive.
        """
        self.add(-min(n_bytes, max(self._amount, 0)))

    def add_request(self, n_bytes: int) -> None:
        """Owe *n_bytes* that the client wrote."""
        if not self._is_closed:
            self._requests += n_bytes
            self._change(n_bytes)

    def count_requests(self) -> None:
        """Promise to call :meth:`pay_request` for all that the client writes."""
        self._counts_requests = True

    def pay_request(self, n_bytes: int) -> None:
        """Take note that the instrument's end read *n_bytes*, which may be more."""
        self._requests -= min(n_bytes, self._requests)
        self._change(-min(n_bytes, max(self._amount, 0)))

    def clear(self) -> None:
        """Forget the debt: what was under way is lost."""
        self._requests = 0
        self._change(-self._amount)

    def close(self) -> None:
        """Owe nothing more: nobody reads what is sent now.

        What the client wrote before still gets there if the other end promised to say
        so, and is owed until then: time must not pass an instrument's answer by.
        """
        if not self._counts_requests:
            self._requests = 0
        self._change(self._requests - self._amount)
        self._is_closed = True

    def open(self) -> None:
        """Count again: somebody reads what is sent."""
        self._is_closed = False


class _LabTimeSelector(selectors.BaseSelector):
    """A selector that lets its loop decide how long to wait."""

    def __init__(self) -> None:
        self.inner = selectors.DefaultSelector()
        self.loop: LabTimeLoop | None = None
        # Delegates that are called often are bound once.
        self.get_key = self.inner.get_key  # type: ignore[method-assign]  # same signature
        self.modify = self.inner.modify  # type: ignore[method-assign]  # same signature

    def register(
        self, fileobj: Any, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        return self.inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.inner.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.inner.get_map()

    def close(self) -> None:
        self.inner.close()

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop is None or (timeout is not None and timeout <= 0):
            return self.inner.select(timeout)
        return self.loop.wait_for_events(self.inner, timeout)


class LabTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is lab time.

    Args:
        pace: Lab seconds per wall second, or None to jump.
        epoch: UTC stamp of lab time 0 [s since 1970]; by default the present moment,
            or :data:`TWIN_EPOCH` when jumping.
        start: Lab time at which the loop starts [s].
    """

    _closed = True  # asyncio's __del__ asks even if the arguments were refused

    def __init__(
        self,
        pace: float | None = 1.0,
        *,
        epoch: float | None = None,
        start: float = 0.0,
    ) -> None:
        if pace is not None and not pace > 0:
            raise ValueError(f"pace must be positive or None (jump), not {pace}")
        self.pace = pace
        self.n_owing = 0
        self._jumped_to = start
        self._start = start
        self._wall_start = time.monotonic()
        if epoch is None:
            epoch = TWIN_EPOCH if pace is None else time.time() - start
        self.epoch = epoch
        self._n_active = 0
        self._freezes: dict[int, str] = {}
        self._freeze_lock = threading.Lock()
        self._next_freeze = 0
        self._debts: dict[str, Debt] = {}
        self.switchboard = Switchboard()
        self.faults: list[InternalError] = []
        """When time was wrong; whoever runs a plan then fails with it."""
        selector = _LabTimeSelector()
        super().__init__(selector)
        # A timer that is exactly due fires only if half a float step of time() stays
        # below the resolution; the default of 1e-9 spins for ever after 194 days.
        self._clock_resolution = 1e-6
        selector.loop = self

    @classmethod
    def shared(cls, pace: float, epoch: float) -> LabTimeLoop:
        """Return a loop that agrees with another process on lab time.

        Args:
            pace: Lab seconds per wall second, the same in both processes.
            epoch: Wall clock at which lab time was 0 in both [s since 1970].
        """
        return cls(pace, epoch=epoch, start=(time.time() - epoch) * pace)

    # -- the clock ---------------------------------------------------------------

    @property
    def is_jumping(self) -> bool:
        """Whether lab time jumps to the next timer instead of flowing."""
        return self.pace is None

    def time(self) -> float:
        """Return lab time [s]; 0 at the epoch."""
        if self.pace is None:
            return self._jumped_to
        return self._start + (time.monotonic() - self._wall_start) * self.pace

    def stamp(self) -> float:
        """Return lab time as a UTC stamp [s since 1970]."""
        return self.epoch + self.time()

    def wall_time(self) -> float:
        """Return real elapsed time since the loop was made [s].

        For reporting how long something took, never for deciding anything.
        """
        return time.monotonic() - self._wall_start

    def wire_seconds(self, seconds: float) -> float:
        """Return the lab time that a real-world deadline of *seconds* takes.

        Deadlines of wire exchanges, reconnect back-off and heartbeats are lab
        seconds at the wall and jumping paces and wall seconds at a scaled pace.
        """
        if self.pace is None or self.pace == 1.0:
            return seconds
        return seconds * self.pace

    # -- freezing time ----------------------------------------------------------

    def debt(self, endpoint: str) -> Debt:
        """Return the debt that both in-process ends of *endpoint* share."""
        debt = self._debts.get(endpoint)
        if debt is None:
            debt = self._debts[endpoint] = Debt(endpoint, self)
        return debt

    @contextlib.contextmanager
    def freezing(self, reason: str) -> Iterator[None]:
        """Keep time from jumping while the block runs; any thread may use it."""
        thaw = self.freeze(reason)
        try:
            yield
        finally:
            thaw()

    def freeze(self, reason: str) -> Callable[[], None]:
        """Keep time from jumping until what is returned is called, once or twice."""
        with self._freeze_lock:
            key = self._next_freeze
            self._next_freeze += 1
            self._freezes[key] = reason
        return partial(self._thaw, key)

    def _thaw(self, key: int) -> None:
        with self._freeze_lock:
            self._freezes.pop(key, None)
        self._wake()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Let time jump while the block runs; otherwise it stands still."""
        with self._freeze_lock:
            self._n_active += 1
        self._wake()
        try:
            yield
        finally:
            with self._freeze_lock:
                self._n_active -= 1

    def _wake(self) -> None:
        if self.pace is None and not self.is_closed():
            self.call_soon_threadsafe(_nothing)

    # -- waiting -----------------------------------------------------------------

    def wait_for_events(
        self, inner: selectors.BaseSelector, timeout: float | None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for I/O or the next timer; called by the selector only.

        Args:
            inner: The operating system's selector.
            timeout: Lab time until the next timer [s], None if there is none.

        Returns:
            The events that are ready, empty when a timer is due.
        """
        if self.pace is not None:
            return inner.select(None if timeout is None else timeout / self.pace)
        if self.n_owing > 0:
            events = inner.select(_WATCHDOG_WALL_S)
            if not events:
                self._report_stuck_debts()
            return events
        # Asked before looking for events: whoever thaws time in another thread has
        # sent its news before, so that it is among them. The other way round both
        # would be missed, and time jump past the news.
        is_still = (
            bool(self._freezes)
            or self._n_active == 0
            or timeout is None
            or self._scheduled[0].when() - self.time() > NEVER_S  # type: ignore[attr-defined]  # asyncio's timer heap
        )
        events = inner.select(0)
        if events:
            return events
        if is_still:
            return inner.select(None)
        # The timer's own time, not now + timeout: lab times stay round numbers.
        self._jumped_to = max(self._jumped_to, self._scheduled[0].when())  # type: ignore[attr-defined]  # asyncio's timer heap
        return events

    def _report_stuck_debts(self) -> None:
        """End a freeze that nobody serves: it would last for ever."""
        owing = [debt for debt in self._debts.values() if debt.amount > 0]
        names = ", ".join(f"{debt.name} ({debt.amount})" for debt in owing)
        fault = InternalError(
            f"lab time was frozen for {_WATCHDOG_WALL_S:g} s of wall time by "
            f"unanswered bytes on: {names}"
        )
        self.faults.append(fault)
        for debt in owing:
            debt.clear()
        self.call_exception_handler({"message": str(fault), "exception": fault})


def _nothing() -> None:
    """Do nothing, but on the loop: its selector wakes up."""


class LibraryClock:
    """Stands in a library for the module ``time``: lab time on a lab's loop.

    Off the loop, in other threads and on other loops, it is the module itself.

    Args:
        counts_from_epoch: Whether ``time()`` is a UTC stamp [s since 1970]; otherwise
            lab time, for code that only takes differences: those of stamps are rounded
            to a quarter of a microsecond, and would drift off a grid.
    """

    def __init__(self, *, counts_from_epoch: bool) -> None:
        self._counts_from_epoch = counts_from_epoch

    def time(self) -> float:
        """Return lab time on a lab's loop, else the wall clock [s]."""
        loop = _lab_loop()
        if loop is None:
            return time.time()
        return loop.stamp() if self._counts_from_epoch else loop.time()

    def monotonic(self) -> float:
        """Return lab time on a lab's loop, else real time [s]."""
        loop = _lab_loop()
        return time.monotonic() if loop is None else loop.time()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def is_on_lab_loop() -> bool:
    """Return whether this thread runs a lab's loop at this moment."""
    return _lab_loop() is not None


def _lab_loop() -> LabTimeLoop | None:
    """Return the lab's loop if it runs in this thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, LabTimeLoop) else None


def stopwatch() -> Callable[[], float]:
    """Start a stopwatch of real time; calling it returns the seconds since [s].

    For telling people how long something took, never for deciding anything.
    """
    started = time.monotonic()
    return lambda: time.monotonic() - started


def calendar_date() -> str:
    """Return today's UTC date of the wall clock, to name things that people keep."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def wall_stamp() -> float:
    """Return the wall clock's UTC stamp, for what people ask from outside of a lab."""
    return time.time()


def running_loop() -> LabTimeLoop:
    """Return the running lab-time loop.

    Raises:
        InternalError: If the running loop is another one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, LabTimeLoop):
        raise InternalError(f"this must run on a LabTimeLoop, not on {loop!r}")
    return loop


def now() -> float:
    """Return the UTC stamp of the running loop's lab time [s since 1970]."""
    return running_loop().stamp()


_FIRST: Final = -62135596800.0
_LAST: Final = 253402300799.0
"""The seconds of the years 1 and 9999, the only ones with a date [s since 1970]."""


def iso(stamp: float) -> str:
    """Return *stamp* [s since 1970] as ISO 8601 in UTC, to the millisecond.

    Example:
        >>> iso(TWIN_EPOCH)
        '2030-01-01T00:00:00.000Z'

    A stamp that has no date is told as such: an old store may hold one.
    """
    if not _FIRST <= stamp <= _LAST:
        return f"{stamp:g} s since 1970"
    moment = datetime.datetime.fromtimestamp(stamp, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return *seconds* as a person says it.

    Example:
        >>> duration(75.0), duration(19_800.0)
        ('1.2 min', '5.50 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"
