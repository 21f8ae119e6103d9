"""Capabilities: what a plan may ask of an instrument, whoever made it.

A capability is a :class:`typing.Protocol` of Bluesky verbs and read-only properties.
Requests are plain frozen data in house units with the unit in the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bluesky.protocols import (
    EventPageCollectable,
    Flyable,
    HasName,
    Movable,
    Preparable,
    Readable,
    Triggerable,
)

__all__ = [
    "CAPABILITIES",
    "Balance",
    "Carry",
    "Diffractometer",
    "Dose",
    "DoseRequest",
    "FiringProfile",
    "FiringRecord",
    "Furnace",
    "Grind",
    "MountPowder",
    "Operator",
    "PowderDoser",
    "ScanRequest",
    "Segment",
    "Task",
]


@dataclass(frozen=True)
class Segment:
    """A ramp to a temperature and the dwell there."""

    target_degc: float
    ramp_degc_per_min: float
    dwell_s: float


@dataclass(frozen=True)
class FiringProfile:
    """What a furnace shall do: segments, heater off, and natural cooling."""

    segments: tuple[Segment, ...]
    cool_to_degc: float
    """The firing is complete when the chamber has cooled to this."""


@dataclass(frozen=True)
class FiringRecord:
    """What a furnace did, as its driver measured it."""

    started_s: float
    """UTC stamp of the start [s since 1970]."""
    duration_s: float
    max_temperature_degc: float
    dwell_temperature_degc: float | None
    """Mean while the program dwelt at its highest temperature, None if it did not."""
    dwell_s: tuple[float, ...]
    """Measured dwell of each segment."""
    n_samples: int


@runtime_checkable
class Furnace(Preparable, Flyable, EventPageCollectable, HasName, Protocol):
    """Heats what lies in its slots along a profile, then cools naturally.

    ``prepare`` takes a :class:`FiringProfile`, checks it against the limits of the
    lab file and of the controller, and loads it; ``kickoff`` starts it; ``complete``
    is done when the chamber has cooled. Samples are collected as event pages.
    """

    @property
    def slots(self) -> tuple[str, ...]:
        """Locations of the lab file that lie inside."""

    @property
    def last_firing(self) -> FiringRecord | None:
        """The last completed firing."""

    def check_profile(self, profile: FiringProfile) -> None:
        """Refuse what the lab or the furnace does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """

    def expected_duration_s(self, profile: FiringProfile) -> float:
        """Return how long *profile* will take, cooling included [s]."""


@runtime_checkable
class Balance(Triggerable, Readable[Any], HasName, Protocol):
    """Weighs what stands on its pan: ``trigger`` waits for a stable mass."""

    @property
    def pan(self) -> str:
        """Location of the lab file that is the pan."""

    @property
    def tare(self) -> Triggerable:
        """Takes the present load as zero."""

    @property
    def mass_key(self) -> str:
        """Data key of the mass [g] in this device's readings."""

    @property
    def max_mass_g(self) -> float:
        """The most that may stand on the pan [g]."""


@dataclass(frozen=True)
class Dose:
    """An amount of one powder."""

    powder: str
    mass_g: float


@dataclass(frozen=True)
class DoseRequest:
    """Powders for one container, and how long to mix them there."""

    container: str
    doses: tuple[Dose, ...]
    mixing_s: float


@runtime_checkable
class PowderDoser(Preparable, Triggerable, HasName, Protocol):
    """Doses powders into a container and mixes them.

    ``prepare`` takes a :class:`DoseRequest` and has the instrument validate it;
    ``trigger`` executes it; then :attr:`dosed_g` says what was weighed in.
    """

    @property
    def station(self) -> str:
        """Location of the lab file where the container must stand."""

    def check_request(self, request: DoseRequest) -> None:
        """Refuse what the lab or the robot does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """

    @property
    def dosed_g(self) -> Mapping[str, float]:
        """Mass of each powder dosed by the last request [g]."""


@dataclass(frozen=True)
class ScanRequest:
    """A powder diffraction scan."""

    sample_id: str
    start_deg: float
    stop_deg: float
    duration_s: float


@runtime_checkable
class Diffractometer(Preparable, Triggerable, Readable[Any], HasName, Protocol):
    """Measures a powder pattern of what is mounted in its slot.

    ``prepare`` takes a :class:`ScanRequest`, ``trigger`` measures, ``read`` returns
    the arrays ``two_theta`` [deg] and ``counts``, both of shape ``(n,)``.
    """

    @property
    def slot(self) -> str:
        """Location of the lab file where the mounted specimen must stand."""

    def check_scan(self, scan: ScanRequest) -> None:
        """Refuse what the lab or the instrument does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """

    @property
    def scan_file(self) -> str | None:
        """Path of the file that the last scan wrote."""


@dataclass(frozen=True)
class Carry:
    """Carry a container from one location to another."""

    container: str
    origin: str
    destination: str


@dataclass(frozen=True)
class Grind:
    """Grind what is in a container, where it stands."""

    container: str
    duration_s: float


@dataclass(frozen=True)
class MountPowder:
    """Take powder out of a container and press it into a specimen holder."""

    container: str
    holder: str


Task = Carry | Grind | MountPowder


@runtime_checkable
class Operator(Movable[Any], HasName, Protocol):
    """A person: ``set`` takes a :data:`Task` and is done when the person says so."""

    @property
    def max_container_degc(self) -> float:
        """How hot a place may be from which a person takes a container [degC]."""


CAPABILITIES: dict[str, type] = {
    capability.__name__: capability
    for capability in (Furnace, Balance, PowderDoser, Diffractometer, Operator)
}
"""Capabilities by the names that a lab file uses."""
