"""Lab time: three paces, freezes, debts and the watchdog."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core import labtime
from ppu.core.errors import InternalError
from ppu.core.labtime import (
    NEVER_S,
    TWIN_EPOCH,
    LabTimeLoop,
    iso,
    now,
    running_loop,
)

Play = Callable[[Coroutine[Any, Any, Any]], Any]
DAY_S = 86400.0


def run_on(loop: LabTimeLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* on *loop*, then close it."""
    try:
        with loop.active():
            return loop.run_until_complete(work)
    finally:
        loop.close()


def look_from_outside(loop: LabTimeLoop, n_times: int) -> list[float]:
    """Return lab time as *n_times* turns of *loop* see it, asked by this thread."""
    seen: list[float] = []
    for _ in range(n_times):
        answered = threading.Event()
        loop.call_soon_threadsafe(lambda: seen.append(loop.time()))
        loop.call_soon_threadsafe(answered.set)
        assert answered.wait(100.0)
    return seen


# -- paces ----------------------------------------------------------------------------


def test_jumping_loop_reaches_the_timer_exactly_when_nothing_else_is_left(
    jumping: LabTimeLoop, play: Play
) -> None:
    """A day of sleep ends at the very second, without waiting for it."""
    wall = jumping.wall_time()
    play(asyncio.sleep(DAY_S))

    assert jumping.time() == DAY_S
    assert jumping.wall_time() - wall < DAY_S / 1000


@given(delays=st.lists(st.floats(0.0, 1e7), min_size=1, max_size=8))
@settings(max_examples=25)
def test_jumping_loop_runs_timers_in_order_whatever_their_delays(
    delays: list[float],
) -> None:
    """Every timer fires at its own time, the earlier one first."""
    loop = LabTimeLoop(None)
    fired: list[tuple[float, float]] = []

    def fire(delay: float) -> None:
        fired.append((delay, loop.time()))

    async def wait() -> None:
        for delay in delays:
            loop.call_at(delay, fire, delay)
        await asyncio.sleep(max(delays) + 1.0)

    run_on(loop, wait())

    assert sorted(delays) == [delay for delay, _ in fired]
    assert all(abs(time - delay) <= 2e-6 for delay, time in fired)


def test_scaled_loop_covers_lab_time_faster_when_scaled() -> None:
    """At pace 10000 an hour takes a third of a second."""
    loop = LabTimeLoop(10_000.0)

    async def wait() -> tuple[float, float, float]:
        early = loop.wall_time()
        started = loop.time()
        late = loop.wall_time()
        await asyncio.sleep(3600.0)
        at_least = loop.wall_time() - late
        lab_s = loop.time() - started
        return at_least, lab_s, loop.wall_time() - early

    at_least, lab_s, at_most = run_on(loop, wait())

    assert 10_000.0 * at_least - 1e-3 <= lab_s <= 10_000.0 * at_most + 1e-3
    assert lab_s >= 3600.0 - 1e-5


def test_wall_loop_keeps_real_time_when_pace_is_one() -> None:
    """Lab time and real elapsed time are the same at pace 1."""
    loop = LabTimeLoop()

    async def wait() -> tuple[float, float, float]:
        await asyncio.sleep(0.01)
        return loop.wall_time(), loop.time(), loop.wall_time()

    before, lab_s, after = run_on(loop, wait())

    assert before - 1e-6 <= lab_s <= after + 1e-6


def test_shared_loops_agree_on_lab_time_when_they_share_an_epoch() -> None:
    """Two processes with the same pace and epoch see the same lab time."""
    wall = LabTimeLoop()
    wall.close()
    epoch = wall.epoch - 100.0
    one, other = LabTimeLoop.shared(60.0, epoch), LabTimeLoop.shared(60.0, epoch)
    try:
        assert one.time() == pytest.approx(6000.0, abs=60.0)
        assert other.time() == pytest.approx(one.time(), abs=6.0)
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("pace", [0.0, -1.0, float("nan")])
def test_loop_refuses_a_pace_that_is_not_positive(pace: float) -> None:
    """Time never stands still or runs backwards."""
    with pytest.raises(ValueError, match="pace must be positive"):
        LabTimeLoop(pace)


def test_clock_fires_due_timers_when_194_days_have_passed() -> None:
    """Beyond 2**24 s a timer that is exactly due still fires."""
    loop = LabTimeLoop(None, start=200 * DAY_S)
    run_on(loop, asyncio.sleep(0.3))

    assert loop.time() == pytest.approx(200 * DAY_S + 0.3, abs=1e-6)


def test_loop_time_is_stamped_from_the_fixed_epoch_when_jumping(play: Play) -> None:
    """A twin's calendar begins on the same day in every run."""

    async def look() -> tuple[float, str]:
        await asyncio.sleep(3600.0)
        return now(), iso(now())

    stamp, text = play(look())

    assert stamp == TWIN_EPOCH + 3600.0
    assert text == "2030-01-01T01:00:00.000Z"


@pytest.mark.parametrize(
    ("pace", "expected"), [(None, 2.0), (1.0, 2.0), (600.0, 1200.0)]
)
def test_wire_deadlines_are_wall_seconds_only_when_scaled(
    pace: float | None, expected: float
) -> None:
    """A scaled lab does not shorten what real kernels and wires need."""
    loop = LabTimeLoop(pace)
    loop.close()

    assert loop.wire_seconds(2.0) == expected


def test_running_loop_refuses_another_loop() -> None:
    """Code that needs lab time says so when it runs on a plain loop."""

    async def ask() -> None:
        running_loop()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(InternalError, match="must run on a LabTimeLoop"):
            loop.run_until_complete(ask())
    finally:
        loop.close()


# -- standing still -------------------------------------------------------------------


def test_time_stands_still_when_nothing_is_active() -> None:
    """A timer alone moves nothing: somebody must want time to pass."""
    loop = LabTimeLoop(None)
    fired: list[float] = []
    loop.call_at(1000.0, lambda: fired.append(loop.time()))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    seen = look_from_outside(loop, 20)
    with loop.active():
        done = threading.Event()
        loop.call_soon_threadsafe(loop.call_at, 1001.0, done.set)
        assert done.wait(100.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()

    assert set(seen) == {0.0}
    assert fired == [1000.0]


def test_time_does_not_jump_to_a_timer_that_means_never(jumping: LabTimeLoop) -> None:
    """A library's keep-alive of thirty years is not waited for; news still comes."""

    async def wait_for_news() -> float:
        loop = running_loop()
        never = loop.call_later(2 * NEVER_S, lambda: None)
        news = loop.create_future()
        with loop.active():
            # As somebody at a keyboard does it: from another thread.
            said = loop.run_in_executor(
                None, loop.call_soon_threadsafe, news.set_result, None
            )
            await asyncio.gather(news, said)
            await asyncio.sleep(5.0)
        never.cancel()
        return loop.time()

    assert jumping.run_until_complete(wait_for_news()) < 10.0


def test_time_does_not_jump_past_the_news_with_which_a_hold_ended(
    jumping: LabTimeLoop, play: Play
) -> None:
    """A thread that is done just after the loop looked is still heard first."""
    inner: Any = jumping._selector.inner  # type: ignore[attr-defined]  # asyncio's own
    look = inner.select
    heard: list[float] = []

    async def wait_for_a_thread() -> None:
        release = [jumping.freeze("a thread works")]
        done = asyncio.Event()

        def tell() -> None:
            heard.append(jumping.time())
            done.set()

        def look_and_be_late(timeout: float | None = None) -> Any:
            found = look(timeout)
            if timeout == 0 and not found and release:
                # What another thread does in this very moment.
                jumping.call_soon_threadsafe(tell)
                release.pop()()
            return found

        inner.select = look_and_be_late
        async with asyncio.timeout(DAY_S):
            await done.wait()

    play(wait_for_a_thread())

    assert heard == [0.0]


def test_hold_keeps_time_until_it_is_released_by_another_thread(
    jumping: LabTimeLoop, play: Play
) -> None:
    """While a worker thread freezes time, a sleeping coroutine does not come due."""
    seen: list[float] = []

    def work() -> None:
        seen.extend(look_from_outside(jumping, 10))

    async def frozen() -> None:
        sleeping = asyncio.create_task(asyncio.sleep(60.0))
        with jumping.freezing("a computation"):
            await jumping.run_in_executor(None, work)
            assert not sleeping.done()
        await sleeping

    play(frozen())

    assert seen == [0.0] * 10
    assert jumping.time() == 60.0


def test_thaw_is_harmless_when_called_twice(jumping: LabTimeLoop, play: Play) -> None:
    """Time thawed twice stays frozen for whoever else froze it."""

    async def twice() -> float:
        first, second = jumping.freeze("a"), jumping.freeze("b")
        first()
        first()
        sleeping = asyncio.create_task(asyncio.sleep(5.0))
        for _ in range(5):
            await asyncio.sleep(0)
        frozen_at = jumping.time()
        second()
        await sleeping
        return frozen_at

    assert play(twice()) == 0.0
    assert jumping.time() == 5.0


# -- debts ----------------------------------------------------------------------------


def test_debt_keeps_time_until_the_bytes_were_read(
    jumping: LabTimeLoop, play: Play
) -> None:
    """Bytes in a pipe arrive before any timer, however early it is due."""
    reading, writing = os.pipe()
    debt = jumping.debt("pipe")
    order: list[str] = []

    def read() -> None:
        debt.add(-len(os.read(reading, 100)))
        order.append(f"read at {jumping.time():g}")

    async def exchange() -> None:
        jumping.add_reader(reading, read)
        jumping.call_at(1e-3, lambda: order.append("timer"))
        debt.add(5)
        jumping.call_soon(
            lambda: threading.Timer(0.02, os.write, (writing, b"12345")).start()
        )
        await asyncio.sleep(1.0)
        jumping.remove_reader(reading)

    try:
        play(exchange())
    finally:
        os.close(reading)
        os.close(writing)

    assert order == ["read at 0", "timer"]


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-5, 5)), max_size=30
    )
)
@settings(max_examples=50)
def test_loop_counts_the_links_that_owe_whatever_happens_to_their_debts(
    changes: list[tuple[str, int]],
) -> None:
    """Time is frozen exactly while some link owes something."""
    loop = LabTimeLoop(None)
    loop.close()
    for name, amount in changes:
        loop.debt(name).add(amount)
        owing = [n for n in "abc" if loop.debt(n).amount > 0]
        assert loop.n_owing == len(owing)
    for name in "abc":
        loop.debt(name).clear()

    assert loop.n_owing == 0


def test_both_ends_share_one_debt_when_they_name_the_same_endpoint() -> None:
    """A client and a front that never met keep the same account."""
    loop = LabTimeLoop(None)
    loop.close()

    assert loop.debt("/dev/pts/7") is loop.debt("/dev/pts/7")


def test_watchdog_names_the_link_when_nobody_serves_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A freeze that no one can end becomes an error and time goes on."""
    monkeypatch.setattr(labtime, "_WATCHDOG_WALL_S", 0.02)
    loop = LabTimeLoop(None)
    loop.debt("/dev/pts/99").add(8)
    with caplog.at_level(logging.CRITICAL, "asyncio"):
        run_on(loop, asyncio.sleep(10.0))
    (fault,) = loop.faults

    assert "/dev/pts/99 (8)" in str(fault)
    assert loop.time() == 10.0
    assert loop.n_owing == 0


def test_debt_is_forgotten_when_its_link_is_closed(
    jumping: LabTimeLoop, play: Play
) -> None:
    """What was under way on a closed link holds nobody up."""
    debt = jumping.debt("gone")
    debt.add(3)
    debt.clear()
    play(asyncio.sleep(1.0))

    assert jumping.time() == 1.0


def test_request_is_owed_when_its_client_closed_and_the_other_end_counts(
    jumping: LabTimeLoop, play: Play
) -> None:
    """What was written before a port was closed still gets to the instrument."""
    debt = jumping.debt("port")
    debt.count_requests()
    debt.add_request(3)
    debt.add(5)
    debt.close()
    assert debt.amount == 3

    debt.add(7)  # an answer that nobody reads
    assert debt.amount == 3

    debt.pay_request(3)
    debt.pay_request(4)  # of an earlier client, long forgotten
    play(asyncio.sleep(1.0))

    assert debt.amount == 0
    assert jumping.time() == 1.0


def test_request_is_forgotten_when_nobody_counts_requests(jumping: LabTimeLoop) -> None:
    """A front that does not tell what it reads holds nobody up after a close."""
    debt = jumping.debt("port")
    debt.add_request(3)
    debt.close()

    assert debt.amount == 0
    assert jumping.n_owing == 0


# -- determinism ----------------------------------------------------------------------


def trace_of_workers() -> list[tuple[float, int, int]]:
    """Return the trace of five coroutines that share a lock and use threads."""
    loop = LabTimeLoop(None)
    trace: list[tuple[float, int, int]] = []

    async def worker(number: int, lock: asyncio.Lock) -> None:
        for turn in range(8):
            await asyncio.sleep(0.1 * ((number * 7 + turn * 3) % 5))
            async with lock:
                with loop.freezing("computing"):
                    await loop.run_in_executor(None, sum, range(100 * number))
                trace.append((loop.time(), number, turn))
                await asyncio.sleep(0.05)

    async def everybody() -> None:
        lock = asyncio.Lock()
        await asyncio.gather(*(worker(number, lock) for number in range(5)))

    run_on(loop, everybody())
    return trace


def test_twenty_runs_give_one_trace_when_threads_hold_time() -> None:
    """Nothing depends on how fast the machine's threads happen to be."""
    traces = [trace_of_workers() for _ in range(20)]

    assert len(traces[0]) == 40
    assert all(trace == traces[0] for trace in traces)
