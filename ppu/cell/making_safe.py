"""Brings devices to their abort states, again and again, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ppu.core.errors import PPUError
from ppu.core.insisting import Attempts
from ppu.core.labtime import running_loop
from ppu.devices.instrument import LabDevice

__all__ = ["Attempt", "MadeSafe", "make_safe"]

_INSIST_S: Final = 60.0
"""How long devices that do not get there are tried again (real time) [s]."""
_PAUSE_S: Final = 3.0


@dataclass(frozen=True)
class Attempt:
    """One attempt to bring a device to its abort state.

    Attributes:
        device: Its name.
        lab_time_s: When it ended [s].
        is_reached: Whether the device got there.
        text: What was done and seen, or why it did not get there.
    """

    device: str
    lab_time_s: float
    is_reached: bool
    text: str


@dataclass
class MadeSafe:
    """What came of making devices safe.

    Attributes:
        attempts: Those that did or showed something; of failures in a row the first.
        told: What to tell people.
        unsafe: For each device that is NOT in its abort state, why.
    """

    attempts: list[Attempt] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    unsafe: dict[str, str] = field(default_factory=dict)

    def add(self, attempt: Attempt) -> None:
        """Take note of an attempt."""
        others = reversed(self.attempts)
        last = next((one for one in others if one.device == attempt.device), None)
        fails_again = last is not None and not (last.is_reached or attempt.is_reached)
        if attempt.text and not fails_again:
            self.attempts.append(attempt)


async def make_safe(
    devices: Mapping[str, LabDevice], *, is_routine: bool = False
) -> MadeSafe:
    """Bring *devices* to their abort states.

    Every one is tried, whatever happens to the others, and again for a minute if it
    does not get there.

    Args:
        devices: Devices by name.
        is_routine: Whether nothing went wrong, so that those with nothing to end are
            not asked how hot they are.
    """
    made = MadeSafe()
    loop = running_loop()
    left, troubles = dict(devices), dict[str, str]()
    # A wire that is out may be back soon, and something may be hot.
    async for _ in Attempts(for_s=_INSIST_S, pause_s=_PAUSE_S):
        troubles = {}
        for name, device in left.items():
            try:
                text = await device.go_to_abort_state()
            except Exception as exc:  # noqa: BLE001 - one driver's mistake must not keep the others from safety
                troubles[name] = why = _worded(exc)
                made.add(Attempt(name, loop.time(), is_reached=False, text=why))
            else:
                made.told.append(text)
                made.add(Attempt(name, loop.time(), is_reached=True, text=text))
        left = {name: left[name] for name in troubles}
        if not left:
            break
    made.unsafe = {
        name: f"{name}: NOT in its abort state: {why}" for name, why in troubles.items()
    }
    acted = {attempt.device for attempt in made.attempts}
    for name, device in devices.items():
        if is_routine and name not in acted:
            continue
        try:
            made.told.append(await device.hot_parts())
        except Exception as exc:  # noqa: BLE001 - the same
            made.told.append(f"{name}: nobody knows how hot it is: {_worded(exc)}")
    made.told = [text for text in made.told if text]
    return made


def _worded(exc: Exception) -> str:
    """Return what to tell people of an error, ours or a driver's mistake."""
    if isinstance(exc, PPUError):
        return str(exc)
    return f"its driver failed ({type(exc).__name__}: {exc})"
