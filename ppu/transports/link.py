"""What every byte path has in common: one exchange at a time, with a deadline.

A :class:`Link` belongs to one device. It opens its path when first needed, retries
what is safe to repeat, throws away what came too late, opens the path again after a
loss and logs the loss and the return once each.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from ppu.core.errors import (
    ConnectError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labtime import Debt, LabTimeLoop, running_loop

__all__ = [
    "Allowance",
    "ByteLink",
    "Decoder",
    "Exchange",
    "Link",
    "LinkStatistics",
    "rounded",
]

T = TypeVar("T")

Decoder = Callable[[bytearray], "T | None"]
"""Takes a reply from the front of a buffer, or returns None while it is incomplete.

Raises :class:`MalformedReply` for what can never become a reply."""

_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 5.0
_N_ATTEMPTS = 3
_N_DEADLINES = 2  # how many of them a call may take, whatever happens
_QUIET = 0.25  # part of a deadline after which rubbish is taken to have ended
_SHOWN_BYTES = 32
_LONGEST_LAG = 10  # times the slowest known reply: what is later than that was lost

wire_log = logging.getLogger("ppu.wire")

_identifying: ContextVar[Link | None] = ContextVar("_identifying", default=None)
"""The link whose identity check is running in this context."""


@dataclass(frozen=True)
class LinkStatistics:
    """What happened on a link since it was made."""

    n_exchanges: int
    n_retries: int
    n_timeouts: int
    n_malformed: int
    n_losses: int
    n_returns: int
    n_bytes_sent: int
    n_bytes_received: int


@dataclass(frozen=True)
class Exchange:
    """One exchange as it was seen on the wire, for people who look at it."""

    device: str
    sent: bytes
    received: bytes
    meaning: str
    lab_time_s: float
    duration_s: float

    def __str__(self) -> str:
        return (
            f"{self.lab_time_s:12.3f} s {self.device}: {_readable(self.sent)} -> "
            f"{_readable(self.received)} | {self.meaning} | "
            f"{self.duration_s * 1000:.1f} ms"
        )


class Allowance:
    """The lab time that one call may still take, in however many exchanges.

    Args:
        left_s: How long that is [s].
    """

    __slots__ = ("left_s",)

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s


def rounded(wait: float) -> float:
    """Return a time to three digits, as people are told it [s].

    Example:
        >>> rounded(0.7488393), rounded(1100.0), rounded(28804.2)
        (0.749, 1100.0, 28800.0)
    """
    return float(f"{wait:.3g}")


def _readable(data: bytes) -> str:
    """Return *data* as text if it is text, else as hexadecimal bytes."""
    if data and all(32 <= byte < 127 or byte in b"\r\n" for byte in data):
        return repr(data.decode("ascii"))
    return data.hex(" ") or "nothing"


class Link(ABC):
    """A path to one device, whatever carries it.

    A call takes at most twice its deadline: attempts, pauses, opening the path again
    and checking who answers included. Not counted is the time before its turn, when
    others use the path, and before the answer to an exchange that was cancelled; and
    text without a probe must listen longer after a time-out.

    Args:
        device: Name of the device, for errors and log lines.
        endpoint: Path or address at the other end.
        deadline_s: Real-world time for one exchange [s].
    """

    def __init__(self, device: str, endpoint: str, deadline_s: float) -> None:
        self.device = device
        self.endpoint = endpoint
        self.deadline_s = deadline_s
        self.identify: Callable[[], Awaitable[None]] | None = None
        """Checks who answers; called each time the path was opened."""
        self.permit: Callable[[], None] | None = None
        """Raises if this process must not use the path any more; called before it is
        opened, and before each exchange: somebody else may own the instrument now."""
        self.permit_change: Callable[[], None] | None = None
        """Raises if nothing may be changed now; see :meth:`check_change`."""
        self.log = logging.getLogger("ppu.link")
        self._lock = asyncio.Lock()
        self._ends_s = math.inf
        """Lab time at which the call in progress must end."""
        self._is_lost = False
        self._backoff_s = 0.0
        self._n_exchanges = 0
        self._n_retries = 0
        self._n_timeouts = 0
        self._n_malformed = 0
        self._n_losses = 0
        self._n_returns = 0
        self._n_sent = 0
        self._n_received = 0

    _is_dead_when_silent: ClassVar[bool] = False
    """Whether silence may mean that the path is dead, so that a new one is needed."""

    # -- what a path must do ------------------------------------------------------

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the path is open now."""

    @abstractmethod
    async def _open(self) -> None:
        """Open the path, or raise :class:`ConnectError`."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the path; harmless if it is closed."""

    # -- what everybody uses ------------------------------------------------------

    def statistics(self) -> LinkStatistics:
        """Return the counters of this link."""
        return LinkStatistics(
            n_exchanges=self._n_exchanges,
            n_retries=self._n_retries,
            n_timeouts=self._n_timeouts,
            n_malformed=self._n_malformed,
            n_losses=self._n_losses,
            n_returns=self._n_returns,
            n_bytes_sent=self._n_sent,
            n_bytes_received=self._n_received,
        )

    async def open(self) -> None:
        """Open the path and check who answers.

        Raises:
            ConnectError: If it cannot be opened or a stranger answers.
        """
        async with self._lock:
            if self.is_open:
                return
            try:
                await self._open_and_identify()
            except (ReplyTimeout, LinkBroken, MalformedReply) as exc:
                raise ConnectError(
                    f"{exc}; is it on, and are address and line settings right?"
                ) from exc

    def check_change(self) -> None:
        """Refuse to send what changes the instrument, if somebody forbids that.

        Clients ask before each exchange that is more than a question, also if
        repeating it would be harmless.
        """
        if self.permit_change is not None:
            self.permit_change()

    async def close(self) -> None:
        """Close the path; the next exchange opens it again."""
        async with self._lock:
            await self._close()

    def allowance(self, deadline_lab_s: float | None = None) -> Allowance:
        """Return what one call may take: twice its deadline.

        Args:
            deadline_lab_s: Its deadline if it is not that of the link [s].
        """
        return Allowance(_N_DEADLINES * self._wait_s(deadline_lab_s))

    def _wait_s(self, deadline_lab_s: float | None) -> float:
        """Return a deadline in lab time [s].

        However fast lab time goes, the wire takes its real time, also as a part of
        what people and mechanisms take.
        """
        on_wire_s = running_loop().wire_seconds(self.deadline_s)
        if deadline_lab_s is None:
            return on_wire_s
        return deadline_lab_s + on_wire_s - self.deadline_s

    def _at_most(self, wait: float) -> float:
        """Return *wait*, or what is left of the call in progress if that is less."""
        return min(wait, self._ends_s - running_loop().time())

    async def _attempt(
        self,
        once: Callable[[], Awaitable[T]],
        *,
        is_safe: bool,
        allowance: Allowance | None = None,
    ) -> T:
        """Run *once* on an open path, again if it is safe and worth it.

        Args:
            once: One exchange; raises a TransportError or MalformedReply.
            is_safe: Whether repeating it is harmless; else it is tried once.
            allowance: What the call of which it is a part may still take.

        Raises:
            TransportError: The path failed; a later exchange may succeed.
            MalformedReply: The instrument keeps sending nonsense.
        """
        if allowance is None:
            allowance = self.allowance()
        if _identifying.get() is self:  # the check runs inside the lock already
            return await self._try_in_time(once, is_safe, allowance)
        async with self._lock:
            return await self._try_in_time(once, is_safe, allowance)

    async def _try_in_time(
        self, once: Callable[[], Awaitable[T]], is_safe: bool, allowance: Allowance
    ) -> T:
        loop = running_loop()
        outer_s = self._ends_s
        self._ends_s = min(outer_s, loop.time() + allowance.left_s)
        try:
            return await self._try_repeatedly(once, is_safe=is_safe)
        finally:
            allowance.left_s = self._ends_s - loop.time()
            self._ends_s = outer_s

    async def _try_repeatedly(
        self, once: Callable[[], Awaitable[T]], *, is_safe: bool
    ) -> T:
        loop = running_loop()
        n_left = _N_ATTEMPTS if is_safe else 1
        while True:
            n_left -= 1
            try:
                if not self.is_open:
                    if _identifying.get() is self:
                        raise LinkBroken(
                            f"{self.device}: {self.endpoint} was lost while it was "
                            "asked who it is"
                        )
                    await self._open_and_identify()
                if self._at_most(math.inf) <= 0:
                    raise ReplyTimeout(
                        f"{self.device}: no time was left to ask {self.endpoint}"
                    )
                if self.permit is not None:
                    self.permit()
                answer = await once()
            except (TransportError, MalformedReply) as exc:
                await self._note_failure(exc)
                pause = loop.wire_seconds(self._backoff_s)
                # A new path is opened by whoever asks who answers, not by the check.
                is_over = _identifying.get() is self and not self.is_open
                if n_left == 0 or is_over or self._at_most(math.inf) <= pause:
                    self._note_loss(exc)
                    if self._is_dead_when_silent and isinstance(exc, ReplyTimeout):
                        await self._close()
                    raise
                self._n_retries += 1
                if pause > 0:
                    await asyncio.sleep(pause)
            else:
                self._n_exchanges += 1
                if self._is_lost and _identifying.get() is not self:
                    self._note_return()
                return answer

    async def _open_and_identify(self) -> None:
        if self.permit is not None:
            self.permit()
        try:
            await self._open()
        except ConnectError:
            self._backoff_s = min(
                max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LAST_BACKOFF_S
            )
            raise
        if self.identify is not None and _identifying.get() is not self:
            before = _identifying.get()
            _identifying.set(self)
            try:
                await self.identify()
            except BaseException:
                await self._close()
                raise
            finally:
                # No token: a task that is torn down ends in another context.
                _identifying.set(before)
        self._backoff_s = 0.0

    async def _note_failure(self, exc: TransportError | MalformedReply) -> None:
        """Count a failure; a broken path is closed, to be opened again."""
        if isinstance(exc, ReplyTimeout):
            self._n_timeouts += 1
        elif isinstance(exc, MalformedReply):
            self._n_malformed += 1
        elif isinstance(exc, LinkBroken):
            await self._close()

    def _note_loss(self, exc: Exception) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._n_losses += 1
            self.log.warning("%s: link lost: %s", self.device, exc)

    def _note_return(self) -> None:
        self._is_lost = False
        self._n_returns += 1
        self.log.warning("%s: link is back", self.device)


class _Answer(Generic[T]):
    """What the exchange in progress waits for."""

    __slots__ = ("decode", "future", "silence")

    def __init__(self, decode: Decoder[T], future: asyncio.Future[T]) -> None:
        self.decode = decode
        self.future = future
        self.silence: asyncio.TimerHandle | None = None
        """Ends an answer that nothing else ends."""


class _Abandoned:
    """A cancelled exchange whose answer may still come."""

    __slots__ = ("decode", "until")

    def __init__(self, decode: Decoder[Any], until: float) -> None:
        self.decode = decode
        self.until = until


class ByteLink(Link):
    """A link that is a stream of bytes in each direction.

    A late reply must never be taken for the answer to another request. After an
    exchange that was cancelled the link waits for that exchange's answer, at most until
    its deadline. After one that failed it listens until the line is quiet, throws away
    what came, and knows that it may be out of step (:attr:`was_late`) until somebody
    has seen to it that answers fit again.

    Args:
        device: Name of the device.
        endpoint: Path or address.
        deadline_s: Real-world time for one exchange [s].
        slowest_reply_s: Longest time after which this instrument has been known to
            answer [s]; how long to listen for a second answer after a time-out.
    """

    def __init__(
        self,
        device: str,
        endpoint: str,
        *,
        deadline_s: float = 1.0,
        slowest_reply_s: float | None = None,
    ) -> None:
        super().__init__(device, endpoint, deadline_s)
        self.slowest_reply_s = (
            deadline_s if slowest_reply_s is None else slowest_reply_s
        )
        self.was_late = False
        """Whether the answer to a request that failed may still come.

        The client clears it when it has seen that answers fit the requests again.
        """
        self.expects_late_replies = False
        """Whether neither a reply nor a probe tells which request was answered.

        The first reply after a time-out may be the late one. It is only believed if
        no other follows: instruments answer in order.
        """
        self.silence_s: float | None = None
        """Real-world silence after which an answer is over, where nothing else tells
        that it is [s]; the end of the connection does so, too."""
        self.n_writes = 0
        """How many requests were sent, each attempt counted."""
        self._late_since = 0.0
        self._buffer = bytearray()
        self._answer: _Answer[Any] | None = None
        self._must_drain = False
        self._abandoned: _Abandoned | None = None
        self._debt: Debt | None = None
        self._heard: asyncio.Event | None = None
        self._last_received = bytearray()
        self._last_dropped = b""

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Hand *data* to the path; raises LinkBroken if it is gone."""

    async def exchange(
        self,
        request: bytes,
        decode: Decoder[T],
        *,
        is_safe: bool,
        deadline_lab_s: float | None = None,
        describe: Callable[[T], str] = repr,
        allowance: Allowance | None = None,
    ) -> T:
        """Send *request* and return what *decode* makes of the answer.

        The answer may be that to an earlier attempt of this call, which asked the same.

        Args:
            request: The bytes to send; empty to wait for what comes by itself.
            decode: Takes the reply from the front of the buffer.
            is_safe: Whether the request may be sent again after a failure.
            deadline_lab_s: Lab time to wait instead of the link's real-world
                deadline [s]: for people and mechanisms, who take *their* time.
            describe: Says what an answer means, to people who watch the wire.
            allowance: What the call of which this is a part may still take; by
                default this is all of it.

        Raises:
            ReplyTimeout: No complete reply in time.
            LinkBroken: The path was lost.
            ConnectError: The path could not be opened (again).
            MalformedReply: The reply cannot be what it should be.
        """
        return await self._attempt(
            lambda: self._exchange_once(
                request, decode, self._deadline(deadline_lab_s, is_safe), describe
            ),
            is_safe=is_safe,
            allowance=allowance or self.allowance(deadline_lab_s),
        )

    async def send(self, request: bytes, *, allowance: Allowance | None = None) -> None:
        """Send *request*, which is not answered, once; quiet must follow.

        Raises:
            MalformedReply: Something follows, so it was answered after all.
            TransportError: It could not be sent.
        """
        await self._attempt(
            lambda: self._send_once(request),
            is_safe=False,
            allowance=allowance or self.allowance(),
        )

    async def _send_once(self, request: bytes) -> None:
        loop = running_loop()
        if self._must_drain:
            await self._drain(loop)
        started = loop.time()
        self._submit(request)
        # Were it answered, the answer would be taken for that to the next request.
        self._must_drain = True
        await self._drain(loop)
        said = _readable(self._last_dropped)
        if wire_log.isEnabledFor(logging.DEBUG):
            exchange = Exchange(
                self.device, request, self._last_dropped, "sent", started, 0.0
            )
            wire_log.debug("%s", exchange)
        if self._last_dropped:
            raise MalformedReply(
                f"{self.device}: {self.endpoint} said {said} after "
                f"{_readable(request)}, which is not answered; whether it did so is "
                "not known"
            )

    def _submit(self, request: bytes) -> None:
        self._n_sent += len(request)
        self.n_writes += 1
        if self._debt is not None:
            self._debt.add_request(len(request))
        self._write(request)

    def _deadline(
        self, deadline_lab_s: float | None, is_safe: bool
    ) -> Callable[[], float]:
        """Return what tells how long an exchange may wait when it begins [s]."""

        def wait() -> float:
            whole = self._wait_s(deadline_lab_s)
            left = self._at_most(whole)
            if left <= 0 or (left < whole and not is_safe):
                # Nobody could tell whether a request that is cut short was obeyed.
                raise ReplyTimeout(
                    f"{self.device}: nothing was sent, as {self.endpoint} took too "
                    "long to come back"
                )
            return left

        return wait

    async def _exchange_once(
        self,
        request: bytes,
        decode: Decoder[T],
        deadline: Callable[[], float],
        describe: Callable[[T], str],
    ) -> T:
        loop = running_loop()
        if self._must_drain:
            await self._drain(loop)
        wait = deadline()
        self._buffer.clear()
        self._last_received.clear()
        future: asyncio.Future[T] = loop.create_future()
        self._answer = _Answer(decode, future)
        started = loop.time()
        timer = loop.call_at(started + wait, self._give_up, request, wait)
        try:
            if request:
                self._submit(request)
            answer = await future
            if self.was_late and self.expects_late_replies:
                await self._check_silence(loop, started)
        except BaseException as exc:
            self._must_drain = True
            if not future.done() or future.cancelled():
                self._abandoned = _Abandoned(decode, started + wait)
            elif not isinstance(exc, LinkBroken):
                self._note_late(started)
            raise
        finally:
            timer.cancel()
            self._cancel_silence()
            self._answer = None
            if wire_log.isEnabledFor(logging.DEBUG):
                self._trace(loop, request, future, started, describe)
        return answer

    def _trace(
        self,
        loop: LabTimeLoop,
        request: bytes,
        future: asyncio.Future[Any],
        started: float,
        describe: Callable[[Any], str],
    ) -> None:
        meaning = "cancelled"
        if future.done() and not future.cancelled():
            exc = future.exception()
            meaning = describe(future.result()) if exc is None else str(exc)
        elapsed = loop.time() - started
        received = bytes(self._last_received)
        wire_log.debug(
            "%s",
            Exchange(self.device, request, received, meaning, started, elapsed),
        )

    def _give_up(self, request: bytes, wait: float) -> None:
        answer = self._answer
        if answer is None or answer.future.done():
            return
        answer.future.set_exception(
            ReplyTimeout(
                f"{self.device}: no complete reply from {self.endpoint} within "
                f"{rounded(wait):g} s to {_readable(request)}; received "
                f"{_readable(bytes(self._last_received))}"
            )
        )

    def _note_late(self, since: float) -> None:
        """Take note that what was asked at *since* may be answered later."""
        if not self.was_late:
            self.was_late = True
            self._late_since = since

    async def _drain(self, loop: LabTimeLoop) -> None:
        """Listen until the line is quiet, and drop what came.

        Raises:
            LinkBroken: If it does not become quiet in time.
        """
        while self._abandoned is not None:
            began = loop.time()
            is_over = not await self._hears_within(self._abandoned.until - began)
            self._ends_s += loop.time() - began  # that is somebody else's exchange
            if is_over:
                self._abandoned = None
                self._note_late(began)
        quiet = loop.wire_seconds(min(self.slowest_reply_s, _QUIET * self.deadline_s))
        self._last_dropped = b""
        while self._must_drain:
            wait = self._at_most(quiet)
            if wait < quiet and not self._last_dropped:
                raise ReplyTimeout(
                    f"{self.device}: no time was left to ask {self.endpoint} again"
                )
            if wait < quiet:
                raise LinkBroken(
                    f"{self.device}: {self.endpoint} does not stop sending; "
                    f"last {_readable(bytes(self._last_dropped))}"
                )
            self._must_drain = await self._hears_within(wait)
        self._buffer.clear()

    async def _check_silence(self, loop: LabTimeLoop, started: float) -> None:
        """Make sure that nothing follows the first reply after a time-out.

        It takes what it takes, on top of the call's time: see the probe of LineClient.

        Raises:
            MalformedReply: If something does, so that reply was the late one.
        """
        # If the reply was that slow, the one to this request is as slow.
        slowest = loop.wire_seconds(self.slowest_reply_s)
        lag = min(started - self._late_since, _LONGEST_LAG * slowest)
        began = loop.time()
        hears_more = self._buffer or await self._hears_within(slowest + lag)
        self._ends_s += loop.time() - began
        if hears_more:
            raise MalformedReply(
                f"{self.device}: {self.endpoint} answered twice after a time-out; "
                "nothing tells which answer is which"
            )
        self.was_late = False

    async def _hears_within(self, wait: float) -> bool:
        """Return whether anything comes within *wait* seconds of lab time."""
        self._heard = asyncio.Event()
        try:
            async with asyncio.timeout(wait):
                await self._heard.wait()
        except TimeoutError:
            return False
        finally:
            self._heard = None
        return True

    # -- called by the path --------------------------------------------------------

    def _received(self, data: bytes) -> None:
        """Take what came; unsolicited bytes are dropped."""
        self._n_received += len(data)
        if self._debt is not None:
            self._debt.pay(len(data))
        if self._heard is not None:
            self._heard.set()
        answer = self._answer
        if answer is None or answer.future.done():
            self._last_dropped = data[-_SHOWN_BYTES:]
            self._received_for_nobody(data)
            return
        self._buffer += data
        self._last_received += data
        if self.silence_s is None:
            self._take_reply(answer)
            return
        loop = running_loop()
        self._cancel_silence()
        answer.silence = loop.call_later(
            loop.wire_seconds(self.silence_s), self._take_reply, answer
        )

    def _cancel_silence(self) -> None:
        if self._answer is not None and self._answer.silence is not None:
            self._answer.silence.cancel()

    def _take_reply(self, answer: _Answer[Any]) -> None:
        """Let what came be the reply, if it is complete."""
        if answer.future.done():
            return
        try:
            reply = answer.decode(self._buffer)
        except MalformedReply as exc:
            # Whatever follows belongs to the same nonsense.
            self._must_drain = True
            answer.future.set_exception(
                MalformedReply(f"{self.device}: {exc} ({self.endpoint})")
            )
        else:
            if reply is not None:
                answer.future.set_result(reply)

    def _received_for_nobody(self, data: bytes) -> None:
        """Drop *data*; note when it completes the answer to a cancelled exchange."""
        if self._abandoned is None:
            return
        self._buffer += data
        try:
            is_complete = self._abandoned.decode(self._buffer) is not None
        except MalformedReply:
            self._abandoned = None
            self._note_late(running_loop().time())
        else:
            if is_complete:
                self._abandoned = None
                self._must_drain = False

    def _broken(self, reason: str) -> None:
        """The path ended; whoever waits is told."""
        if self._debt is not None:
            self._debt.clear()
        if self.silence_s is not None and self._buffer and self._answer is not None:
            self._take_reply(self._answer)  # that ends it, too
        if self._answer is not None and not self._answer.future.done():
            self._answer.future.set_exception(
                LinkBroken(f"{self.device}: {self.endpoint}: {reason}")
            )

    def _opened(self, *, is_new: bool, is_in_memory: bool = False) -> None:
        """The path is open.

        Args:
            is_new: Whether nothing sent before can arrive on it. An instrument on a
                serial line does not know that its port was closed meanwhile.
            is_in_memory: Whether a jump cannot overtake what is under way.
        """
        loop = running_loop()
        if loop.is_jumping and not is_in_memory:
            self._debt = loop.debt(self.endpoint)
            self._debt.open()
        self._buffer.clear()
        if is_new:
            self._must_drain = False
            self._abandoned = None
        elif self._must_drain:
            self._note_late(loop.time())
