"""What the twin asks of simulated instruments and of their world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ppu.core.labfile import DeviceEntry, LabFile

__all__ = [
    "ActRefusedError",
    "FaultInjector",
    "IncidentRecord",
    "PlayedPerson",
    "SimulatedInstrument",
    "SimulatedWorld",
    "TwinSettingsError",
]


class TwinSettingsError(ValueError):
    """What stands under ``twin`` cannot be: everything that is wrong, with its place.

    Args:
        problems: Place below ``twin`` and what is wrong there, in a sentence.
    """

    def __init__(self, problems: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = tuple(problems)


class ActRefusedError(Exception):
    """What was asked cannot be done in a simulated world; nothing changed."""


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
    """The matter that all simulated instruments of a lab act on.

    ``carry``, ``empty`` and ``refill`` are a person's hands. A cell with a bench of its
    own needs them to do what people say was done, and refuses to believe it otherwise.
    """

    def __init__(self, lab: LabFile, seed: int) -> None: ...

    @property
    def incidents(self) -> Sequence[IncidentRecord]:
        """What went wrong so far, in order of time."""

    @property
    def acts(self) -> Mapping[str, Sequence[float]]:
        """When something was done that cannot be undone: lab times [s] by act."""

    def truth(self, time: float) -> Mapping[str, Any]:
        """Return curves and states that no instrument can know, for reports.

        ``sample_curves`` has for each furnace in which samples were ``time_s``, lab
        time, and ``temperature_degc`` of what was inside.
        """

    def carry(self, time: float, container_name: str, destination: str) -> None:
        """Let a person carry a container to *destination*, wherever it is.

        Doors that are closed are opened, and closed again. A container that is there
        stays there.

        Raises:
            ActRefusedError: If there is no such container or place, or something stands
                there or belongs there that this is not.
        """

    def empty(self, time: float, container_name: str) -> None:
        """Let a person empty and clean a container; also one that is empty already.

        Raises:
            ActRefusedError: If there is none, or nobody gets at it, with what to do
                first.
        """

    def refill(self, time: float, powder: str, mass_g: float) -> None:
        """Let a person add *mass_g* of *powder* to the stock [g].

        Raises:
            ActRefusedError: If there is no such powder, or no such amount.
        """


class FaultInjector(Protocol):
    """What can go wrong with one simulated instrument, and what does."""

    @property
    def known(self) -> Mapping[str, str]:
        """Every fault there can be, each with its signature in a sentence."""

    @property
    def log(self) -> Sequence[tuple[float, str]]:
        """What hit lately: lab time [s] and fault."""

    def inject(self, entry: Mapping[str, Any], time: float) -> None:
        """Let a fault come, as scripts in the lab file do; counted from *time* [s].

        Raises:
            TwinSettingsError: With everything that is wrong in *entry*.
        """

    def clear(self, time: float) -> None:
        """End every fault at lab time *time* [s]."""


@runtime_checkable
class PlayedPerson(Protocol):
    """A simulated person whom somebody plays, instead of a model."""

    @property
    def asked(self) -> str | None:
        """What the person is asked to do, None if nothing or if nobody plays it."""

    def answer_done(self, time: float) -> None:
        """Do what is asked in the world, and answer that it is done.

        Raises:
            ActRefusedError: If the world does not allow it; it is still asked.
        """

    def answer_refused(self, time: float, why: str) -> None:
        """Answer that it will not be done.

        Raises:
            ActRefusedError: If nothing is asked, or no reason is given.
        """


class SimulatedInstrument(Protocol):
    """An instrument with its physics and its wire front.

    Args:
        name: Name of the device in the lab file.
        entry: Its entry; ``entry.twin`` is for the simulator alone.
        world: The world of the lab.
        serial_number: What it answers when it is asked who it is.
    """

    wire: str
    faults: FaultInjector

    def __init__(
        self, name: str, entry: DeviceEntry, world: Any, serial_number: str
    ) -> None: ...

    async def start(self) -> Mapping[str, Any]:
        """Listen, and return the ``hardware`` connection that leads here."""

    async def stop(self) -> None:
        """Stop listening; leave no task, port or file behind."""
