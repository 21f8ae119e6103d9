"""Trying again for a while before a person is told."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ppu.core.errors import InstrumentError, InternalError, ReplyTimeout
from ppu.core.insisting import Attempts, insist
from ppu.core.labtime import LabTimeLoop, running_loop

Play = Callable[[Coroutine[Any, Any, Any]], Any]


class Stubborn:
    """Fails until a moment of lab time, or for ever, and counts how often."""

    def __init__(self, until: float = float("inf")) -> None:
        self.until = until
        self.at: list[float] = []

    async def act(self) -> str:
        """Succeed if it is late enough."""
        self.at.append(running_loop().time())
        if self.at[-1] < self.until:
            raise ReplyTimeout(f"no answer at {self.at[-1]:g} s")
        return "done"


def test_insisting_ends_with_the_first_success(play: Play) -> None:
    """What succeeds at last is returned, after one pause for each failure."""
    stubborn = Stubborn(until=5.0)

    assert play(insist(stubborn.act, for_s=60, pause_s=2)) == "done"
    assert stubborn.at == [0.0, 2.0, 4.0, 6.0]


def test_insisting_gives_up_after_its_time_with_the_last_failure(play: Play) -> None:
    """A minute of failures is over after a minute, and tells the last one."""
    stubborn = Stubborn()
    with pytest.raises(ReplyTimeout, match="no answer at 60 s"):
        play(insist(stubborn.act, for_s=60, pause_s=20))

    assert stubborn.at == [0.0, 20.0, 40.0, 60.0]


def test_insisting_counts_real_time_when_a_twin_is_fast() -> None:
    """A wire does not come back sooner because a twin is fast."""
    loop = LabTimeLoop(pace=1000.0)
    stubborn = Stubborn()
    try:
        with loop.active(), pytest.raises(ReplyTimeout):
            loop.run_until_complete(insist(stubborn.act, for_s=0.05, pause_s=0.05))
    finally:
        loop.close()

    assert stubborn.at[1] - stubborn.at[0] >= 50.0


def test_insisting_tries_as_often_as_was_asked_in_no_time(play: Play) -> None:
    """A number of attempts is kept even if no time passes at all."""
    stubborn = Stubborn()
    with pytest.raises(ReplyTimeout):
        play(insist(stubborn.act, at_least=3))

    assert stubborn.at == [0.0, 0.0, 0.0]


def test_insisting_raises_at_once_what_it_is_not_for(play: Play) -> None:
    """A failure that another attempt cannot mend is not repeated."""
    stubborn = Stubborn()
    with pytest.raises(ReplyTimeout):
        play(insist(stubborn.act, on=(InstrumentError,), for_s=60, pause_s=1))

    assert stubborn.at == [0.0]


def test_insisting_never_repeats_a_mistake_of_ours(play: Play) -> None:
    """What is no failure of an instrument or a wire ends it, though it is tried again.

    An error of the program is no reason to believe that the next attempt is better.
    """

    async def act() -> None:
        raise KeyError("a slip")

    with pytest.raises(KeyError, match="a slip"):
        play(insist(act, for_s=60, pause_s=1))


def test_attempts_go_on_when_there_is_hope_late(play: Play) -> None:
    """Attempts that were nearly given up go on for as long as is said then."""

    async def scenario() -> list[float]:
        seen = []
        attempts = Attempts(for_s=10, pause_s=4)
        async for _ in attempts:
            seen.append(running_loop().time())
            if len(seen) == 3:
                attempts.go_on_for(5)
        return seen

    assert play(scenario()) == [0.0, 4.0, 8.0, 12.0, 16.0]


def test_insisting_on_nothing_is_a_mistake_of_ours(play: Play) -> None:
    """No attempt at all is told as what it is."""
    with pytest.raises(InternalError):
        play(insist(Stubborn().act, at_least=0))
