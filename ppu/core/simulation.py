"""What the twin asks of simulated instruments and of their world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ppu.core.labfile import DeviceEntry, LabFile

__all__ = ["IncidentRecord", "SimulatedInstrument", "SimulatedWorld"]


class IncidentRecord(Protocol):
    """Something that went physically wrong in a twin."""

    @property
    def lab_time_s(self) -> float:
        """Lab time at which it happened [s]."""

    @property
    def kind(self) -> str:
        """What kind of thing it was."""

    @property
    def device(self) -> str:
        """Which device did it."""

    @property
    def text(self) -> str:
        """What happened, in a sentence."""


class SimulatedWorld(Protocol):
    """The matter that all simulated instruments of a lab act on."""

    def __init__(self, lab: LabFile, seed: int) -> None: ...

    @property
    def incidents(self) -> Sequence[IncidentRecord]:
        """What went wrong so far, in order of time."""

    def truth(self, time: float) -> Mapping[str, Any]:
        """Return curves and states that no instrument can know, for reports."""


class SimulatedInstrument(Protocol):
    """An instrument with its physics and its wire front.

    Args:
        name: Name of the device in the lab file.
        entry: Its entry; ``entry.twin`` is for the simulator alone.
        world: The world of the lab.
        serial_number: What it answers when it is asked who it is.
    """

    wire: str

    def __init__(
        self, name: str, entry: DeviceEntry, world: Any, serial_number: str
    ) -> None: ...

    async def start(self) -> Mapping[str, Any]:
        """Listen, and return the ``hardware`` connection that leads here."""

    async def stop(self) -> None:
        """Stop listening; leave no task, port or file behind."""
