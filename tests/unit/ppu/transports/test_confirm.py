"""Asking until answers agree."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.transports.confirm import confirm


class Teller:
    """Gives prepared answers, the last of them for ever."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.n_asked = 0

    async def ask(self) -> str:
        """Return the next answer."""
        self.n_asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def parse(text: str) -> float:
    """Return the number in *text*; an exclamation mark is a refusal."""
    if text.endswith("!"):
        raise InstrumentError(f"refused: {text}", text)
    try:
        return float(text)
    except ValueError as exc:
        raise MalformedReply(f"no number: {text}") from exc


def ask(teller: Teller, agree: Callable[[float, float], bool] | None = None) -> float:
    """Return what is confirmed."""
    if agree is None:
        return asyncio.run(confirm("scale", teller.ask, parse))
    return asyncio.run(confirm("scale", teller.ask, parse, agree))


def test_confirm_asks_three_times_when_nothing_is_wrong() -> None:
    """An undisturbed wire costs three exchanges and no more."""
    teller = Teller("7")

    assert ask(teller) == 7.0
    assert teller.n_asked == 3


@pytest.mark.parametrize("wrong", ["8", "x", "busy!"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_confirm_believes_no_answer_that_stands_alone(wrong: str, place: int) -> None:
    """Another value, nonsense or a refusal in between starts the count anew."""
    answers = ["7", "7", "7"]
    answers.insert(place, wrong)

    assert ask(Teller(*answers)) == 7.0


def test_confirm_believes_no_two_that_agree() -> None:
    """Two answers spoiled alike are not enough."""
    assert ask(Teller("8", "8", "7")) == 7.0


def test_confirm_refuses_when_the_instrument_refuses_each_time() -> None:
    """A refusal that repeats is the instrument's."""
    with pytest.raises(InstrumentError, match="refused: busy!"):
        ask(Teller("busy!"))


def test_confirm_returns_the_last_of_what_agrees_within_noise() -> None:
    """Live values may differ by their noise."""
    teller = Teller("7.00", "7.01", "7.02")

    assert ask(teller, lambda one, other: abs(one - other) < 0.015) == 7.02


@given(st.lists(st.sampled_from("12xy"), min_size=12, max_size=12))
@settings(max_examples=100)
def test_confirm_returns_only_what_was_said_three_times_in_a_row(
    answers: list[str],
) -> None:
    """Whatever comes, a value is returned for a run of three, else an error."""
    said = "".join(answers)
    if "111" in said or "222" in said:
        assert f"{ask(Teller(*answers)):g}" * 3 in said
    else:
        with pytest.raises(MalformedReply, match=r"scale: no three|no number"):
            ask(Teller(*answers))
