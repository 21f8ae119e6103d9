"""What every transport promises, whatever happens on its wire.

A test module has a rig for each transport (a client and something at the other end, in
the same process) and one small class::

    class TestMyTransport(TransportContract):
        rig = MyRig
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import (
    ConnectError,
    LinkBroken,
    MalformedReply,
    PPUError,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.testing.loops import play_from_start
from ppu.transports.link import Link

__all__ = ["TransportContract", "TransportRig", "on_rig"]

Play = Callable[[Coroutine[Any, Any, Any]], Any]


class TransportRig(ABC):
    """A client of a transport, and what it talks to.

    The other end answers the number it is asked for, so that an answer shows which
    request it belongs to. It can spoil its next answers, each in one of these ways:
    ``silence``, ``late`` (1.4 deadlines), ``garbage`` (nothing that the wire language
    allows), ``truncated`` (half of it), ``cut off`` (half of it, then the wire breaks
    within half a deadline); on a stream of bytes also ``duplicate``, ``in pieces`` (one
    byte at a time, whole before the deadline), and bytes that come instead. One whose
    reads are repeated answers what was asked last.

    Attributes:
        link: The client's link; its deadline is :attr:`deadline_s`.
        endpoint: What errors call the other end.
        deadline_s: Time for one exchange [s].
        comes_back: Whether the same address answers again after it was cut off.
        is_byte_stream: Whether the wire is a stream of bytes.
        noise_errors: What :meth:`ask` may raise beside errors of PPU for bytes that
            are an answer on the wire, but no number.
    """

    link: Link
    endpoint: str
    deadline_s: ClassVar[float] = 1.0
    comes_back: ClassVar[bool] = True
    is_byte_stream: ClassVar[bool] = True
    noise_errors: ClassVar[tuple[type[Exception], ...]] = ()

    @abstractmethod
    async def start(self) -> None:
        """Let the other end listen, and make the client; it is not connected."""

    @abstractmethod
    async def stop_front(self) -> None:
        """Stop listening, as if it were switched off."""

    @abstractmethod
    async def ask(self, number: int, *, is_safe: bool = True) -> int:
        """Return the number that came back; unless *is_safe*, ask only once."""

    @abstractmethod
    def spoil(self, *faults: str | bytes | float) -> None:
        """Spoil the next answers, one fault each; a number is a delay [s]."""

    @property
    @abstractmethod
    def n_requests(self) -> int:
        """How many requests reached the other end."""

    @abstractmethod
    def debt(self, loop: LabTimeLoop) -> int:
        """Return what is owed on this rig's link."""


Scenario = Callable[[Any], Awaitable[Any]]

_TEST_OF_COMING_BACK: Final = "test_link_opens_again_when_the_wire_broke"
_TESTS_OF_BYTES: Final = (
    "test_duplicate_answer_is_dropped",
    "test_answer_is_put_together_when_it_comes_in_pieces",
    "test_any_bytes_are_an_answer_or_an_error",
    "test_link_works_when_it_was_closed_while_bytes_were_under_way",
    "test_time_goes_on_when_an_answer_comes_after_the_link_was_closed",
)
_SPOILED: Final = ("silence", "late", "garbage", "truncated")


async def on_rig(make: type[TransportRig], scenario: Scenario) -> None:
    """Play *scenario* on a fresh rig; close both ends, and owe nothing."""
    rig = make()
    await rig.start()
    try:
        await scenario(rig)
    finally:
        await rig.link.close()
        await rig.stop_front()
    assert rig.debt(running_loop()) == 0


class TransportContract:
    """Tests that a transport must pass.

    Attributes:
        rig: The class of its rig.
    """

    rig: ClassVar[type[TransportRig]]

    def __init_subclass__(cls) -> None:
        """Leave out the tests of what the transport is not."""
        super().__init_subclass__()
        if not cls.rig.comes_back:
            setattr(cls, _TEST_OF_COMING_BACK, None)
        if not cls.rig.is_byte_stream:
            for test in _TESTS_OF_BYTES:
                setattr(cls, test, None)

    # -- when all is well ------------------------------------------------------------

    def test_each_answer_belongs_to_its_request(self, play: Play) -> None:
        """A hundred questions get a hundred answers, in next to no lab time."""

        async def scenario(rig: TransportRig) -> None:
            assert [await rig.ask(n) for n in range(100)] == list(range(100))
            assert rig.link.statistics().n_exchanges == 100
            assert rig.link.statistics().n_retries == 0
            assert running_loop().time() < 2.0 * rig.deadline_s

        play(on_rig(self.rig, scenario))

    def test_each_caller_gets_its_answer_when_many_ask_at_once(
        self, play: Play
    ) -> None:
        """Exchanges of concurrent callers never mix."""

        async def scenario(rig: TransportRig) -> None:
            answers = await asyncio.gather(*(rig.ask(n) for n in range(20)))
            assert answers == list(range(20))

        play(on_rig(self.rig, scenario))

    # -- spoiled answers -------------------------------------------------------------

    def test_device_and_address_are_named_when_nobody_answers(self, play: Play) -> None:
        """Silence ends at the deadline, in lab time, with an error a person can use."""

        async def scenario(rig: TransportRig) -> None:
            await rig.ask(1)
            rig.spoil("silence")
            begun = running_loop().time()
            with pytest.raises(ReplyTimeout) as caught:
                await rig.ask(2, is_safe=False)
            assert running_loop().time() - begun == pytest.approx(rig.deadline_s)
            assert f"{rig.link.device}: " in str(caught.value)
            assert rig.endpoint in str(caught.value)

        play(on_rig(self.rig, scenario))

    @pytest.mark.parametrize("fault", _SPOILED)
    def test_safe_request_is_repeated_when_an_answer_is_spoiled(
        self, play: Play, fault: str
    ) -> None:
        """One lost or broken answer to a read goes unnoticed by the caller."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil(fault)
            assert await rig.ask(5) == 5
            assert rig.link.statistics().n_retries >= 1
            assert await rig.ask(6) == 6

        play(on_rig(self.rig, scenario))

    @pytest.mark.parametrize("fault", _SPOILED)
    def test_request_is_never_repeated_when_it_is_not_safe(
        self, play: Play, fault: str
    ) -> None:
        """What moves something is sent once, whatever becomes of its answer."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil(fault)
            with pytest.raises((TransportError, MalformedReply)):
                await rig.ask(5, is_safe=False)
            assert rig.n_requests == 1
            assert await rig.ask(6) == 6

        play(on_rig(self.rig, scenario))

    def test_caller_gives_up_when_every_answer_is_lost(self, play: Play) -> None:
        """A call ends within twice its deadline, and then the link works again."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil(*["silence"] * 2)
            began = running_loop().time()
            with pytest.raises(ReplyTimeout):
                await rig.ask(5)
            took = running_loop().time() - began
            assert took <= 2 * rig.link.deadline_s + 1e-6
            assert rig.n_requests == 2
            assert rig.link.statistics().n_timeouts == 2
            assert await rig.ask(6) == 6

        play(on_rig(self.rig, scenario))

    def test_late_answer_is_never_taken_for_the_next_one(self, play: Play) -> None:
        """The answer to a request that timed out belongs to nobody."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil("late")
            with pytest.raises(ReplyTimeout):
                await rig.ask(5, is_safe=False)
            assert [await rig.ask(n) for n in (6, 7, 8)] == [6, 7, 8]

        play(on_rig(self.rig, scenario))

    def test_next_answer_is_right_when_an_exchange_was_cancelled(
        self, play: Play
    ) -> None:
        """A caller that went away leaves no answer for the next one."""

        async def scenario(rig: TransportRig) -> None:
            await rig.ask(1)
            rig.spoil("late")
            asking = asyncio.ensure_future(rig.ask(5))
            await asyncio.sleep(0.5 * rig.deadline_s)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert [await rig.ask(n) for n in (6, 7)] == [6, 7]

        play(on_rig(self.rig, scenario))

    # -- streams of bytes ------------------------------------------------------------

    def test_duplicate_answer_is_dropped(self, play: Play) -> None:
        """A unit that answers twice does not shift all later answers by one."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil("duplicate")
            assert [await rig.ask(n) for n in (5, 6, 7)] == [5, 6, 7]

        play(on_rig(self.rig, scenario))

    def test_answer_is_put_together_when_it_comes_in_pieces(self, play: Play) -> None:
        """A reply may come byte by byte, as long as it is whole in time."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil("in pieces")
            assert await rig.ask(5) == 5
            assert rig.link.statistics().n_retries == 0

        play(on_rig(self.rig, scenario))

    def test_any_bytes_are_an_answer_or_an_error(self) -> None:
        """Whatever comes, it is an error of PPU's tree, and the next gets its own."""
        rig_class = self.rig

        @settings(deadline=None, max_examples=25)
        @given(noise=st.binary(max_size=40))
        def check(noise: bytes) -> None:
            async def scenario(rig: TransportRig) -> None:
                rig.spoil(noise)
                try:
                    await rig.ask(5, is_safe=False)
                except PPUError:
                    pass
                except rig.noise_errors:
                    pass  # an answer, but no number; the next exchange is not harmed
                assert await rig.ask(6) == 6

            play_from_start(on_rig(rig_class, scenario))

        check()

    # -- broken paths ----------------------------------------------------------------

    def test_caller_is_told_at_once_when_the_wire_breaks_in_mid_reply(
        self, play: Play
    ) -> None:
        """A broken path is told when it breaks, not when the deadline has passed."""

        async def scenario(rig: TransportRig) -> None:
            await rig.ask(1)
            rig.spoil("cut off")
            begun = running_loop().time()
            with pytest.raises(LinkBroken, match=f"{rig.link.device}: "):
                await rig.ask(5, is_safe=False)
            assert running_loop().time() - begun < 0.5 * rig.deadline_s

        play(on_rig(self.rig, scenario))

    def test_link_opens_again_when_the_wire_broke(
        self, play: Play, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Loss and return are told once each, and the identity is checked again."""
        n_checks = 0

        async def identify() -> None:
            nonlocal n_checks
            n_checks += 1

        async def scenario(rig: TransportRig) -> None:
            rig.link.identify = identify
            await rig.ask(1)
            rig.spoil("cut off")
            with pytest.raises(LinkBroken):
                await rig.ask(5, is_safe=False)
            assert [await rig.ask(n) for n in (6, 7)] == [6, 7]
            found = rig.link.statistics()
            assert (found.n_losses, found.n_returns) == (1, 1)

        with caplog.at_level(logging.WARNING, "ppu.link"):
            play(on_rig(self.rig, scenario))

        told = [record.getMessage() for record in caplog.records]
        assert len([text for text in told if "link lost" in text]) == 1
        assert len([text for text in told if "link is back" in text]) == 1
        assert n_checks == 2

    def test_open_is_refused_when_a_stranger_answers(self, play: Play) -> None:
        """The check of identity runs before anything else is asked, and can refuse."""

        async def scenario(rig: TransportRig) -> None:
            async def identify() -> None:
                number = await rig.ask(42)
                raise ConnectError(f"rig: number {number} answers")

            rig.link.identify = identify
            with pytest.raises(ConnectError, match="number 42 answers"):
                await rig.link.open()
            assert not rig.link.is_open
            rig.link.identify = None
            assert await rig.ask(6) == 6

        play(on_rig(self.rig, scenario))

    def test_exchange_fails_when_nobody_is_there(self, play: Play) -> None:
        """An absent instrument is an error that says what to look at."""

        async def scenario(rig: TransportRig) -> None:
            await rig.stop_front()
            with pytest.raises(ConnectError) as caught:
                await rig.ask(1)
            assert str(caught.value).startswith(f"{rig.link.device}: cannot ")
            assert rig.endpoint in str(caught.value)
            assert running_loop().time() < 5.0 * rig.deadline_s

        play(on_rig(self.rig, scenario))

    # -- closing and opening while bytes are under way ---------------------------------

    def test_link_works_when_it_was_closed_while_bytes_were_under_way(
        self, play: Play
    ) -> None:
        """What was lost with a closed path holds no later exchange up."""

        async def scenario(rig: TransportRig) -> None:
            await rig.ask(1)
            asking = asyncio.ensure_future(rig.ask(5, is_safe=False))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await rig.link.close()
            assert await rig.ask(6) == 6
            await asyncio.sleep(10.0)
            assert rig.debt(running_loop()) == 0
            assert await rig.ask(7) == 7
            assert rig.link.statistics().n_timeouts == 0

        play(on_rig(self.rig, scenario))

    def test_time_goes_on_when_an_answer_comes_after_the_link_was_closed(
        self, play: Play
    ) -> None:
        """Nobody reads a closed link, so what is sent there is owed to nobody."""

        async def scenario(rig: TransportRig) -> None:
            rig.spoil("late")
            with pytest.raises(ReplyTimeout):
                await rig.ask(5, is_safe=False)
            await rig.link.close()
            await asyncio.sleep(10.0)
            assert rig.debt(running_loop()) == 0
            assert await rig.ask(6) == 6

        play(on_rig(self.rig, scenario))
