"""How a controller is set: compared with the lab file, written, found changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from ppu.core.errors import ConfigurationError, InstrumentError, LimitError
from ppu.devices.signals import SignalR, SignalRW, write

__all__ = [
    "ProgramSettings",
    "apply_settings",
    "compare_settings",
    "find_changed",
    "set_if_different",
]


async def compare_settings(
    name: str, wanted: Iterable[tuple[str, SignalR[Any], Any]]
) -> None:
    """Refuse to heat with a controller that is not set as the lab file says.

    Args:
        name: Name of the device.
        wanted: What each setting is called, where it is, and what it must be.

    Raises:
        ConfigurationError: With everything that differs.
    """
    faults = []
    for label, signal, expected in wanted:
        actual = await signal.get_value()
        if isinstance(expected, str):
            is_equal = actual.value == expected
        else:
            is_equal = abs(actual - expected) < 0.05
        if not is_equal:
            faults.append(f"{label} is {actual}, the lab file says {expected}")
    if faults:
        raise ConfigurationError(
            f"{name}: the controller is not set as the lab file says, so it "
            "may not heat: " + "; ".join(faults)
        )


async def set_if_different(name: str, signal: SignalRW[Any], value: Any) -> None:
    """Write *value* only if it is not there yet, and read it back.

    Raises:
        InstrumentError: If it reads back as something else.
    """
    if await signal.get_value() == value:
        return
    await write(signal, value)
    actual = await signal.get_value()
    if actual != value:
        raise InstrumentError(
            f"{name}: {signal.name} was set to {value} but reads {actual}"
        )


ProgramSettings = Sequence[tuple[SignalRW[Any], Any]]
"""What a controller is set to for a firing, beside the program itself."""


async def apply_settings(name: str, wanted: ProgramSettings) -> None:
    """Write what is not there yet, and read it back.

    Raises:
        InstrumentError: If something reads back as something else.
    """
    for signal, value in wanted:
        await set_if_different(name, signal, value)


async def find_changed(
    wanted: ProgramSettings, compare: Callable[[], Awaitable[None]]
) -> list[str]:
    """Return what was set to something else since it was set for a firing.

    Args:
        wanted: What the controller was set to.
        compare: Refuses a firing, a setting or a program that is not what it should be.
    """
    found = []
    for signal, value in wanted:
        actual = await signal.get_value()
        if actual != value:
            found.append(f"{signal.name} is {actual}, the firing had set it to {value}")
    try:
        await compare()
    except (LimitError, ConfigurationError) as exc:
        found.append(str(exc))
    except InstrumentError as exc:
        found.append(f"another program is loaded ({exc})")
    return found
