"""Any bytes are an answer, a part of one, or nonsense, in every wire language."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from ppu.core.errors import MalformedReply
from ppu.testing import check_codec
from ppu_drivers.furnace_door import DoorStatus, parse_status
from ppu_drivers.mettler_sics import Weight, parse_text, parse_weight
from ppu_drivers.operator import parse_answer
from ppu_drivers.panalytical_aeris import take_message
from ppu_drivers.universal_robots_ur5e import ProgramState, parse_program_state

T = TypeVar("T")


def by_line(
    parse: Callable[[list[str]], T], terminator: bytes = b"\r\n"
) -> Callable[[bytearray], T | None]:
    """Return the decoder of answers that are one line."""

    def decode(buffer: bytearray) -> T | None:
        line, end, _ = bytes(buffer).partition(terminator)
        if not end:
            return None
        try:
            text = line.decode("ascii")
        except UnicodeDecodeError as exc:
            raise MalformedReply(f"not text: {line!r}") from exc
        return parse([text])

    return decode


def test_weights_of_the_balance() -> None:
    """MT-SICS weights, from the reference manual."""
    check_codec(
        by_line(parse_weight),
        [
            (b"S S     100.00 g\r\n", Weight(100.0, is_stable=True)),
            (b"S D      12.34 mg\r\n", Weight(0.01234, is_stable=False)),
        ],
    )


def test_texts_of_the_balance() -> None:
    """MT-SICS texts, from the reference manual."""
    check_codec(by_line(parse_text), [(b'I4 A "B021002593"\r\n', "B021002593")])


def test_messages_of_the_diffractometer() -> None:
    """Messages that begin and end with a sign of their own."""
    message = b"@STATUS@UNIT=xrd@READY=yes@END"
    check_codec(take_message, [(message, message.decode())])


def test_states_of_the_arm() -> None:
    """What the dashboard server says of its program."""
    check_codec(
        by_line(parse_program_state, b"\n"),
        [(b"PLAYING carry.urp\n", ProgramState("PLAYING", "carry.urp"))],
    )


def test_status_of_the_door() -> None:
    """What the door controller says."""
    check_codec(
        by_line(lambda lines: parse_status(lines[0]), b"\n"),
        [
            (
                b"State: STOP; Furnace A: Open; Serial: 7\n",
                DoorStatus("STOP", {"A": "Open"}, "7"),
            )
        ],
    )


def test_words_of_people() -> None:
    """What a person says is done, or refused, or not understood."""
    check_codec(
        by_line(lambda lines: parse_answer(lines[0]), b"\n"),
        [(b"done\n", (True, "")), (b"refused no time\n", (False, "no time"))],
    )


@pytest.mark.parametrize(
    ("decode", "why"),
    [
        (lambda buffer: float(buffer) if buffer else None, "float raises ValueError"),
        (lambda buffer: 1.0 if buffer else None, "a part is taken for the whole"),
        (lambda buffer: 2.0 if len(buffer) > 1 else None, "it means something else"),
    ],
)
def test_decoder_that_breaks_its_promise_is_found(
    decode: Callable[[bytearray], Any], why: str
) -> None:
    """The check itself fails where it must."""
    with pytest.raises((AssertionError, ValueError)):
        check_codec(decode, [(b"1;", 1.0)])
    assert why
