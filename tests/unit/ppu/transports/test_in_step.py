"""Getting in step with an instrument that answers late, but in order."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from typing_extensions import override

from ppu.core.errors import LinkBroken, ReplyTimeout
from ppu.transports.in_step import InStep
from ppu.transports.link import ByteLink

Play = Callable[[Coroutine[Any, Any, Any]], Any]


class Nowhere(ByteLink):
    """A link whose requests are only counted."""

    @property
    @override
    def is_open(self) -> bool:
        return True

    @override
    async def _open(self) -> None:
        """Be open."""

    @override
    async def _close(self) -> None:
        """Stay open."""

    @override
    def _write(self, data: bytes) -> None:
        """Send nothing."""


class Probing:
    """Probes that bring what is planned: an own answer, a strange one, or none."""

    def __init__(self) -> None:
        self.link = Nowhere("rig", "nowhere")
        self.link.was_late = True
        self.in_step = InStep(self.link)
        self.plan: list[str] = []
        self.n_asked = 0

    async def _ask(self) -> bool:
        self.n_asked += 1
        self.link.n_writes += 1
        what = self.plan.pop(0) if self.plan else "own"
        if what == "none":
            raise ReplyTimeout("rig: no answer")
        return what == "own"

    async def regain(self, *plan: str) -> int:
        """Get in step; return how many probes it took."""
        self.plan = list(plan)
        before = self.n_asked
        await self.in_step.regain(self._ask)
        return self.n_asked - before


def test_in_step_takes_one_probe_when_none_was_asked_before(play: Play) -> None:
    """The answer to the only probe proves that all before it is through."""

    async def scenario() -> None:
        probing = Probing()
        assert await probing.regain() == 1
        assert not probing.link.was_late

    play(scenario())


def test_in_step_takes_one_more_answer_than_earlier_probes_may_send(play: Play) -> None:
    """A late answer to an earlier probe proves nothing about what came after it."""

    async def scenario() -> None:
        probing = Probing()
        with pytest.raises(ReplyTimeout):
            await probing.regain("none")
        assert await probing.regain() == 1  # either is later than the lost request
        probing.link.was_late = True
        assert await probing.regain() == 2

    play(scenario())


def test_in_step_forgets_earlier_probes_when_something_else_was_answered(
    play: Play,
) -> None:
    """Who answers in order has answered, or lost, all that was asked before."""

    async def scenario() -> None:
        probing = Probing()
        with pytest.raises(ReplyTimeout):
            await probing.regain("none")
        await probing.regain()
        probing.in_step.note_answer()
        assert await probing.regain() == 1

    play(scenario())


def test_in_step_is_given_up_when_only_strangers_answer(play: Play) -> None:
    """What never fits is told, and the link stays out of step."""

    async def scenario() -> None:
        probing = Probing()
        with pytest.raises(LinkBroken, match="do not fit the requests"):
            await probing.regain(*["strange"] * 4)
        assert probing.link.was_late

    play(scenario())
