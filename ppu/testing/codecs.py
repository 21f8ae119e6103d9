"""What every decoder promises: any bytes are an answer, a part of one, or nonsense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.errors import InstrumentError, MalformedReply

__all__ = ["check_codec"]

T = TypeVar("T")


def check_codec(
    decode: Callable[[bytearray], T | None],
    examples: Sequence[tuple[bytes, T]],
    *,
    encode: Callable[[T], bytes] | None = None,
    max_examples: int = 200,
) -> None:
    """Check a decoder, such as is handed to ``ByteLink.exchange``.

    Each example decodes to its meaning, and while it is incomplete it is neither an
    answer nor refused. Any other bytes (random ones, and examples with a byte changed,
    lost or added) decode to something, are incomplete, or raise MalformedReply; an
    InstrumentError is the meaning of a refusal and allowed, too. Nothing else may come
    out of a decoder.

    Args:
        decode: Takes an answer from the front of a buffer, or returns None.
        examples: Answers as they come over the wire, best from the manual, each with
            what it means.
        encode: Makes the bytes of a meaning, if there is such a thing; then the
            examples must come round.
        max_examples: How many random cases are tried.

    Raises:
        AssertionError: If the decoder does not keep the promise.

    Example:
        >>> def decode(buffer: bytearray) -> int | None:
        ...     line, end, _ = bytes(buffer).partition(b";")
        ...     if not end:
        ...         return None
        ...     if not line.isdigit():
        ...         raise MalformedReply(f"{line!r} is no number")
        ...     return int(line)
        >>> check_codec(decode, [(b"42;", 42)], encode=lambda n: b"%d;" % n)
    """
    assert examples, "give at least one answer"
    for data, meaning in examples:
        found = decode(bytearray(data))
        assert found == meaning, f"{data!r} means {found!r}, not {meaning!r}"
        for n in range(1, len(data)):
            part = decode(bytearray(data[:n]))
            assert part is None, f"{data[:n]!r}, a part of {data!r}, means {part!r}"
        if encode is not None:
            made = encode(meaning)
            assert made == data, f"{meaning!r} is sent as {made!r}, not {data!r}"

    @settings(deadline=None, max_examples=max_examples)
    @given(noise=_bytes_near([data for data, _ in examples]))
    def check_any(noise: bytes) -> None:
        try:
            decode(bytearray(noise))
        except (MalformedReply, InstrumentError):
            return

    check_any()


def _bytes_near(answers: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw random bytes, and answers with a byte changed, lost or added."""

    def spoil(drawn: tuple[bytes, int, int, str]) -> bytes:
        answer, place, byte, how = drawn
        at = place % (len(answer) + 1)
        keeps = at if how == "add" else at + 1
        added = b"" if how == "lose" else bytes([byte])
        return answer[:at] + added + answer[keeps:]

    near = st.tuples(
        st.sampled_from(list(answers)),
        st.integers(0, 10_000),
        st.integers(0, 255),
        st.sampled_from(["change", "lose", "add"]),
    ).map(spoil)
    return st.one_of(st.binary(max_size=64), near)
