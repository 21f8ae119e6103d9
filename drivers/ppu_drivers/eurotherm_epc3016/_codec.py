"""The words of the controller's registers: samples, programs, the firmware's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ppu.core.tasks import Segment

__all__ = [
    "N_PROGRAM_REGISTERS",
    "N_SAMPLE_REGISTERS",
    "N_SEGMENTS",
    "PROGRAM_FROM",
    "SAMPLE_FROM",
    "STATUS_SENSOR_BREAK",
    "SampleWords",
    "count_segments",
    "decode_firmware",
    "decode_sample",
    "encode_program",
    "samples_agree",
]

SAMPLE_FROM: Final = 1
N_SAMPLE_REGISTERS: Final = 75
_STATUS_INDEX: Final = 75 - SAMPLE_FROM
_MODE_INDEX: Final = 23 - SAMPLE_FROM
STATUS_SENSOR_BREAK: Final = 1 << 5
_OUTPUT_INDEX: Final = 4 - SAMPLE_FROM
_RANGE_INDICES: Final = (11 - SAMPLE_FROM, 12 - SAMPLE_FROM)

PROGRAM_FROM: Final = 8336
_SEGMENT_SIZE: Final = 8
N_SEGMENTS: Final = 15
"""Segments of the controller that are used: as many as one read can fetch."""
N_PROGRAM_REGISTERS: Final = _SEGMENT_SIZE * N_SEGMENTS
_END, _RAMP, _DWELL = 0, 1, 3


@dataclass(frozen=True)
class SampleWords:
    """What the registers of a sample say, temperatures aside.

    Args:
        output: Working output [%].
        mode: Code of the program's state.
        is_sensor_broken: Whether the status says that the thermocouple is.
    """

    output: float
    mode: int
    is_sensor_broken: bool


def decode_sample(registers: Sequence[int]) -> SampleWords:
    """Return what the registers from :data:`SAMPLE_FROM` on say."""
    return SampleWords(
        output=_signed(registers[_OUTPUT_INDEX]) / 10,
        mode=registers[_MODE_INDEX],
        is_sensor_broken=bool(registers[_STATUS_INDEX] & STATUS_SENSOR_BREAK),
    )


def _signed(register: int) -> int:
    return register - 0x10000 if register >= 0x8000 else register


def samples_agree(one: Sequence[int], other: Sequence[int], within: float) -> bool:
    """Return whether two samples differ by no more than a temperature's change.

    Args:
        one: Registers of a sample.
        other: Those of another.
        within: That change, in the registers' steps.
    """
    same = (_STATUS_INDEX, _MODE_INDEX, *_RANGE_INDICES)
    return all(one[i] == other[i] for i in same) and all(
        abs(_signed(one[i]) - _signed(other[i])) <= within for i in (0, 4)
    )


def count_segments(segments: Sequence[Segment]) -> int:
    """Return how many segments of its own the controller needs for *segments*.

    Example:
        >>> count_segments([Segment(900.0, 5.0, 3600.0), Segment(500.0, 2.0, 0.0)])
        4
    """
    return 1 + sum(1 + (segment.dwell_s > 0) for segment in segments)


def encode_program(
    segments: Sequence[Segment], unit_s: float, to_word: Callable[[float], int]
) -> dict[int, int]:
    """Return what the program's registers must hold, by register.

    The type of a segment decides what its third register is, so it comes first.

    Args:
        segments: The program.
        unit_s: Unit in which the controller counts dwells [s].
        to_word: Makes the content of a register of a temperature [degC].

    Example:
        >>> encode_program([Segment(900.0, 5.0, 0.0)], 60.0, round)
        {8336: 1, 8337: 900, 8338: 50, 8344: 0}
    """
    steps: list[tuple[int, int | None, int | None]] = []
    for segment in segments:
        target = to_word(segment.target_degc)
        steps.append((_RAMP, target, round(segment.ramp_degc_per_min * 10)))
        if segment.dwell_s > 0:
            steps.append((_DWELL, None, round(segment.dwell_s / unit_s)))
    steps.append((_END, None, None))
    wanted: dict[int, int] = {}
    for number, values in enumerate(steps):
        first = PROGRAM_FROM + _SEGMENT_SIZE * number
        for offset, value in enumerate(values):
            if value is not None:
                wanted[first + offset] = value
    return wanted


def decode_firmware(words: Sequence[int]) -> str | None:
    """Return the firmware's name, None if *words* are none.

    Example:
        >>> decode_firmware([0x4532, 0x2E31, 0x3000])
        'E2.10'
    """
    text = b"".join(word.to_bytes(2, "big") for word in words).rstrip(b"\0 ")
    if not text or not all(32 < byte < 127 for byte in text):
        return None
    return text.decode("ascii")
