"""Capabilities: what a plan may ask of an instrument, whoever made it.

A capability is a :class:`typing.Protocol` of Bluesky verbs and read-only properties.
What it is told, as plain data, is in :mod:`ppu.core.tasks`. Another package adds a
capability with an entry point of the group ``ppu.capabilities``, such as
``Shaker = "my_lab.capabilities:Shaker"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from ppu.core.registry import load_class, plug_ins
from ppu.core.tasks import (
    Carry,
    DoorState,
    Dose,
    DoseRequest,
    FiringProfile,
    FiringRecord,
    FiringUnderWay,
    GasRequest,
    Grind,
    GripRecord,
    MountPowder,
    PowderTask,
    Recollection,
    ScanRequest,
    Segment,
    Task,
    TaskUnderWay,
)
from ppu.core.verbs import (
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
    "Door",
    "DoorState",
    "Dose",
    "DoseRequest",
    "FiringProfile",
    "FiringRecord",
    "FiringUnderWay",
    "Furnace",
    "GasFlow",
    "GasRequest",
    "Grind",
    "GripRecord",
    "Gripper",
    "MountPowder",
    "Operator",
    "PowderDoser",
    "PowderStation",
    "PowderTask",
    "Recalling",
    "Recollection",
    "ScanRequest",
    "Segment",
    "Task",
    "TaskUnderWay",
    "Transporter",
]


@runtime_checkable
class Furnace(
    Preparable, Flyable, EventPageCollectable, Readable[Any], HasName, Protocol
):
    """Heats what lies in its slots along a profile, then cools naturally.

    ``prepare`` takes a :class:`FiringProfile`, checks it against the limits of the
    lab file and of the controller, and loads it; ``kickoff`` starts it; ``complete``
    is done when the chamber has cooled. Samples are collected as event pages.

    With a :class:`FiringUnderWay`, ``prepare`` only looks whether it goes on, or has
    ended, and raises a ``NothingToJoinError`` otherwise; ``kickoff`` then begins to
    sample and starts nothing. It never heats what did not heat.
    """

    @property
    def temperature_key(self) -> str:
        """Data key of the chamber's temperature [degC] in this device's readings."""

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
class ReportsPower(Protocol):
    """Says at which part of its full power it works; any device may."""

    @property
    def output_key(self) -> str:
        """Data key of its output [%] among what it samples."""

    @property
    def rated_power_w(self) -> float | None:
        """Electrical power at full output [W], None if nobody has said it."""


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


@runtime_checkable
class Recalling(Preparable, HasName, Protocol):
    """Still knows something of a task whose process died.

    ``prepare`` takes a :class:`TaskUnderWay` and begins nothing: it waits until the
    instrument is at rest and asks it what it remembers; :attr:`recollection` is that.
    """

    @property
    def recollection(self) -> Recollection | None:
        """What the instrument knew when it was last asked."""


@runtime_checkable
class Transporter(Movable[Any], HasName, Protocol):
    """Carries containers: ``set`` takes a :class:`Carry` and is done on arrival."""

    @property
    def max_container_degc(self) -> float:
        """How hot a place may be from which it takes a container [degC]."""

    def can_carry(self, origin: str, destination: str) -> bool:
        """Return whether it can carry from one location to the other."""


@runtime_checkable
class PowderStation(Movable[Any], HasName, Protocol):
    """Grinds powders and mounts them: ``set`` takes a :data:`PowderTask`."""

    def check_task(self, task: PowderTask) -> None:
        """Refuse what it cannot do; sends nothing.

        Raises:
            ConfigurationError: If it never can.
            LimitError: With what it can do instead.
        """

    @property
    def container_station(self) -> str | None:
        """Location where the container must stand, None if any will do."""

    @property
    def holder_station(self) -> str | None:
        """Location where the specimen holder must stand, None if any will do."""


@runtime_checkable
class Operator(Transporter, PowderStation, Protocol):
    """A person: ``set`` takes a :data:`Task` and is done when the person says so."""


@runtime_checkable
class Gripper(Triggerable, Flyable, HasName, Protocol):
    """The hand of a transporter, seen by itself.

    ``kickoff`` begins to watch the fingers, ``complete`` ends that; then
    :attr:`last_grip` says what they felt. ``trigger`` only looks at them, once.
    """

    @property
    def hand_of(self) -> str:
        """Name of the transporter that it is the hand of."""

    @property
    def last_grip(self) -> GripRecord | None:
        """What the last completed watch, or the last look, saw."""


@runtime_checkable
class Door(Movable[Any], HasName, Protocol):
    """The door of a furnace: ``set`` takes a :data:`DoorState`, done when it is so."""

    @property
    def encloses(self) -> str:
        """Name of the device whose locations lie behind it."""

    @property
    def max_open_degc(self) -> float:
        """Chamber temperature up to which it may be opened [degC]."""


@runtime_checkable
class GasFlow(Movable[Any], Flyable, Readable[Any], HasName, Protocol):
    """Lets a gas flow: ``set`` takes a :class:`GasRequest`, done when it flows so.

    ``kickoff`` begins to watch the flow; ``complete`` is done when the next ``set``
    ends that, and fails as soon as the gas does not flow as asked.
    """

    @property
    def supplies(self) -> str:
        """Name of the device that the gas flows into."""

    @property
    def gases(self) -> tuple[str, ...]:
        """Gases that are connected."""

    def check_flow(self, request: GasRequest) -> None:
        """Refuse what the lab or the controller does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """


class _Capabilities(Mapping[str, type]):
    """Capabilities by name: PPU's own, and those that other packages bring."""

    def __init__(self, *own: type) -> None:
        self._own = {capability.__name__: capability for capability in own}
        self._loaded: dict[str, type] = {}

    def _brought(self) -> dict[str, str]:
        points = plug_ins("ppu.capabilities")
        return {p.name: p.value for p in points if p.name not in self._own}

    def __getitem__(self, name: str) -> type:
        found = self._own.get(name) or self._loaded.get(name)
        if found is None:
            where = f"the entry point '{name}' of ppu.capabilities"
            found = self._loaded[name] = load_class(self._brought()[name], where)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._brought()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._brought()

    def __len__(self) -> int:
        return len(self._own) + len(self._brought())


CAPABILITIES: Mapping[str, type] = _Capabilities(
    Furnace,
    GasFlow,
    Balance,
    PowderDoser,
    Diffractometer,
    Transporter,
    Gripper,
    PowderStation,
    Door,
    Operator,
)
"""Capabilities by the names that a lab file uses."""
