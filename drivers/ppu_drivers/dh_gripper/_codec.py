"""The registers of the gripper: which can be, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ppu.core.errors import MalformedReply

__all__ = [
    "check_grip",
    "is_state",
    "opening_mm",
    "serial_number_in",
]

_N_READY_STATES: Final = 3
_N_GRIP_STATES: Final = 4
_FULL_STROKE: Final = 1000


def is_state(registers: Sequence[int]) -> bool:
    """Return whether *registers* can be those from 0x0200 on.

    Example:
        >>> is_state([1, 2, 480]), is_state([1, 7, 480])
        (True, False)
    """
    ready, grip, position = registers
    return (
        ready < _N_READY_STATES and grip < _N_GRIP_STATES and position <= _FULL_STROKE
    )


def check_grip(code: int, position: int) -> None:
    """Refuse a grip state that cannot be.

    Raises:
        MalformedReply: If the manual does not allow the values.
    """
    if code >= _N_GRIP_STATES or position > _FULL_STROKE:
        raise MalformedReply(f"grip state {code} at position {position} cannot be")


def opening_mm(position: int, closed_at: int, stroke_mm: float) -> float:
    """Return the opening at a value of the position register [mm].

    Args:
        position: Value of the position register.
        closed_at: Its value when the fingers are closed.
        stroke_mm: Opening at full stroke.

    Example:
        >>> opening_mm(250, 0, 50.0), opening_mm(250, 1000, 50.0)
        (12.5, 37.5)
    """
    return abs(position - closed_at) / _FULL_STROKE * stroke_mm


def serial_number_in(groups: Sequence[int]) -> str:
    """Return the last digits of the positions of the I/O groups (from 0x0405 on).

    Example:
        >>> serial_number_in([1004, 30, 50, 7, 30, 50, 12, 30, 50, 0, 30, 50])
        '4720'
    """
    return "".join(str(position % 10) for position in groups[::3])
