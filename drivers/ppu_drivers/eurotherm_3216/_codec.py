"""The words of the controller's registers: samples, programs, the firmware."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ppu.core.tasks import Segment

__all__ = [
    "N_SAMPLE_REGISTERS",
    "N_SEGMENTS",
    "PROGRAM_FROM",
    "SAMPLE_FROM",
    "SEGMENT_SIZE",
    "STATUS_SENSOR_BREAK",
    "SampleWords",
    "decode_firmware",
    "decode_sample",
    "encode_program",
    "is_status_pair",
]

SAMPLE_FROM: Final = 1
N_SAMPLE_REGISTERS: Final = 76
_STATUS_INDEX: Final = 75 - SAMPLE_FROM
_PROGRAM_INDEX: Final = 23 - SAMPLE_FROM
_OUTPUT_INDEX: Final = 4 - SAMPLE_FROM
STATUS_SENSOR_BREAK: Final = 1 << 5

PROGRAM_FROM: Final = 1280
N_SEGMENTS: Final = 8
SEGMENT_SIZE: Final = 3


@dataclass(frozen=True)
class SampleWords:
    """What the registers of a sample say, temperatures aside.

    Args:
        output: Working output [%].
        program: Code of the program's state.
        is_sensor_broken: Whether the status says that the thermocouple is.
    """

    output: float
    program: int
    is_sensor_broken: bool


def decode_sample(registers: Sequence[int]) -> SampleWords:
    """Return what the registers from :data:`SAMPLE_FROM` on say."""
    output = registers[_OUTPUT_INDEX]
    return SampleWords(
        output=(output - 0x10000 if output >= 0x8000 else output) / 10,
        program=registers[_PROGRAM_INDEX],
        is_sensor_broken=bool(registers[_STATUS_INDEX] & STATUS_SENSOR_BREAK),
    )


def encode_program(
    segments: Sequence[Segment], unit_s: float, to_word: Callable[[float], int]
) -> list[int]:
    """Return what the program registers hold for *segments*.

    Rates have one decimal however the display is: alab_control writes them times ten
    on controllers that show whole degrees.

    Args:
        segments: The program.
        unit_s: Unit in which the controller counts dwells [s].
        to_word: Makes the content of a register of a temperature [degC].

    Example:
        >>> encode_program([Segment(900.0, 5.0, 3600.0)], 60.0, round)[:6]
        [60, 900, 50, 0, 0, 0]
    """
    wanted: list[int] = []
    for segment in segments:
        wanted += [
            round(segment.dwell_s / unit_s),
            to_word(segment.target_degc),
            round(segment.ramp_degc_per_min * 10),
        ]
    # A ramp of 0 ends the program: what follows must not be run.
    return wanted + [0] * (SEGMENT_SIZE * (N_SEGMENTS - len(segments)))


def is_status_pair(words: Sequence[int]) -> bool:
    """Return whether *words* are the status (75) and its inverse: nothing else is so.

    Example:
        >>> is_status_pair([0x0020, 0xFFDF])
        True
    """
    status, inverse = words
    return status ^ inverse == 0xFFFF


def decode_firmware(version: int) -> str:
    """Return the firmware as it is written.

    Example:
        >>> decode_firmware(0x0201)
        '2.01'
    """
    return f"{version >> 8:x}.{version & 0xFF:02x}"
