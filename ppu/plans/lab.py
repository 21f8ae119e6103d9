"""The lab as a plan sees it: capabilities, and where PPU believes containers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ppu.core.capabilities import (
    CAPABILITIES,
    Door,
    Furnace,
    GasFlow,
    Gripper,
    Transporter,
)
from ppu.core.custody import Change, Claimed, CustodyLedger, Left, Moved, StockUsed
from ppu.core.errors import (
    ConfigurationError,
    InterlockError,
    LimitError,
    NoResourceError,
    NotFoundError,
    nearest,
)
from ppu.core.labfile import ContainerEntry, LabFile
from ppu.core.remedies import Remedy, advise

__all__ = ["Lab"]

CapabilityT = TypeVar("CapabilityT")


class Lab:
    """Devices by capability, and PPU's belief about containers and stock.

    Args:
        file: The lab file.
        devices: Connected devices by name.
        flush_period_s: Lab time between collections of what a long step sampled [s]:
            what is not collected dies with the process.
        ledger: What is believed of containers and stock, shared by all jobs; by
            default what the lab file says.
    """

    def __init__(
        self,
        file: LabFile,
        devices: Mapping[str, Any],
        flush_period_s: float = 600.0,
        ledger: CustodyLedger | None = None,
    ) -> None:
        self.file = file
        self.flush_period_s = flush_period_s
        self.devices = devices
        self._provided_by: dict[type, list[str]] = {}
        self.sample_id = ""
        """Identity of the sample that the present job makes."""
        self.changes: list[Change] = []
        """What was changed since the engine last kept it, with a step's end."""
        self.claimed: set[str] = set()
        """Containers that the present job has claimed, kept or not."""
        self._ledger = CustodyLedger.of(file) if ledger is None else ledger

    @property
    def name(self) -> str:
        """Name of the lab."""
        return self.file.lab

    def the(
        self, capability: type[CapabilityT], name: str | None = None
    ) -> CapabilityT:
        """Return the device that provides *capability*, the first in the lab file.

        Args:
            capability: What is needed, such as ``Furnace``.
            name: A certain device.

        Raises:
            ConfigurationError: If there is none.
        """
        wanted = capability.__name__
        candidates = self._providers(capability)
        if name is not None:
            if name not in candidates:
                raise ConfigurationError(
                    f"no device '{name}' provides {wanted}; {nearest(name, candidates)}"
                )
            return cast(CapabilityT, self.devices[name])
        if not candidates:
            entries = self.file.devices.values()
            provided = {name for entry in entries for name in entry.provides}
            raise ConfigurationError(
                f"lab {self.name} has no device that provides {wanted}; it provides "
                f"{', '.join(sorted(provided)) or 'nothing'}"
            )
        return cast(CapabilityT, self.devices[candidates[0]])

    def every(self, capability: type[CapabilityT]) -> list[CapabilityT]:
        """Return the devices that provide *capability*, in the lab file's order."""
        names = self._providers(capability)
        return [cast(CapabilityT, self.devices[name]) for name in names]

    def _providers(self, capability: type) -> list[str]:
        """Return who provides *capability*, or one that includes it."""
        if capability not in self._provided_by:
            self._provided_by[capability] = self._find_providers(capability)
        return self._provided_by[capability]

    def _find_providers(self, capability: type) -> list[str]:
        return [
            device
            for device, entry in self.file.devices.items()
            if device in self.devices
            and any(capability in CAPABILITIES[name].__mro__ for name in entry.provides)
        ]

    def transporter(self, origin: str, destination: str) -> Transporter:
        """Return who carries a container from *origin* to *destination*.

        The first in the lab file that can: so an arm may know some ways, and a person
        carries what is left.

        Raises:
            ConfigurationError: If nobody can.
        """
        self.the(Transporter)
        candidates = self.every(Transporter)
        for transporter in candidates:
            if transporter.can_carry(origin, destination):
                return transporter
        names = ", ".join(transporter.name for transporter in candidates)
        raise ConfigurationError(
            f"lab {self.name}: nobody carries from {origin} to {destination} (asked: "
            f"{names}); add that way to the lab file, or a person who carries"
        )

    def gripper_of(self, transporter: Transporter) -> Gripper | None:
        """Return the hand of *transporter*, if it can be watched."""
        for gripper in self.every(Gripper):
            if gripper.hand_of == transporter.name:
                return gripper
        return None

    def door_before(self, location: str) -> Door | None:
        """Return the door that must be open to reach *location*, if there is one."""
        entry = self.file.locations.get(location)
        for door in self.every(Door):
            if entry is not None and door.encloses == entry.inside:
                return door
        return None

    def furnace_at(self, location: str) -> Furnace | None:
        """Return the furnace that *location* is inside of, if it is in one."""
        entry = self.file.locations.get(location)
        for furnace in self.every(Furnace):
            inside = entry is not None and entry.inside == furnace.name
            if inside or location in furnace.slots:
                return furnace
        return None

    def gas_for(self, furnace: str, gas: str) -> GasFlow | None:
        """Return what lets *gas* flow into *furnace*, if anything can."""
        for controller in self.every(GasFlow):
            if controller.supplies == furnace and gas in controller.gases:
                return controller
        return None

    # -- containers ------------------------------------------------------------------

    def container(self, name: str) -> ContainerEntry:
        """Return the entry of a container.

        Raises:
            ConfigurationError: If there is no such container.
        """
        if name not in self.file.containers:
            raise NotFoundError(
                f"there is no container '{name}'; "
                f"{nearest(name, self.file.containers)}",
                field="container",
            )
        return self.file.containers[name]

    def empty_container(self, kind: str) -> str:
        """Return a container of *kind* such as a sample may get: empty, at its time.

        Raises:
            LimitError: If the lab has none.
        """
        for name, entry in self.file.containers.items():
            if entry.kind == kind and not self.contents_of(name):
                return name
        raise LimitError(f"lab {self.name} has no empty {kind}; add one to its file")

    def free_container(self, kind: str) -> str:
        """Return an empty container of *kind* that no sample uses, at its home.

        Raises:
            NoResourceError: If there is none just now; says what a person can do.
        """
        ledger = self._ledger
        strays, advice = [], [advise(Remedy.RELEASE_SAMPLE)]
        for name, entry in self.file.containers.items():
            if entry.kind != kind or self.contents_of(name) or name in ledger.used:
                continue
            if ledger.places[name] == entry.at and name not in ledger.under_way:
                return name
            strays.append(
                f"; {name} is free but not at home: carry it to {entry.at} and say so"
            )
            advice.append(
                advise(Remedy.MOVE_CONTAINER, container=name, location=entry.at)
            )
        raise NoResourceError(
            f"no {kind} is empty and at home; clean one and say so{''.join(strays)}",
            advice=advice,
            field=kind,
        )

    def contents_of(self, name: str) -> Mapping[str, float]:
        """Return the powders that the lab file says are in a container still [g].

        Nothing is known of what a sample made of them, if one uses it.

        Raises:
            ConfigurationError: If there is no such container.
        """
        entry = self.container(name)
        return {} if name in self._ledger.emptied else entry.contents

    def check_content(self, name: str) -> None:
        """Refuse a container that is believed to be empty.

        Raises:
            LimitError: If nothing is in it.
            ConfigurationError: If there is no such container.
        """
        if not (self.contents_of(name) or self.is_used(name)):
            raise LimitError(f"{name} is empty; nothing to work on")

    def check_own(self, name: str) -> None:
        """Refuse a container that another job has, or left for people to look at.

        Raises:
            InterlockError: If it is another job's, or quarantined.
        """
        if (quarantine := self._ledger.quarantined.get(name)) is not None:
            raise quarantine.refusal(name)
        holder = self.holder_of(name)
        if holder is not None:
            raise InterlockError(
                f"{name} belongs to sample {holder}, whose job has not ended; wait for "
                "it, or take another container"
            )

    def holds(self, name: str) -> bool:
        """Return whether *name* belongs to the sample of the present job."""
        return self._ledger.held.get(name) == self.sample_id

    def holder_of(self, name: str) -> str | None:
        """Return the sample of another job that has *name* until it ends, if any."""
        holder = self._ledger.held.get(name)
        return None if holder == self.sample_id else holder

    def claim_container(self, name: str) -> None:
        """Remember that *name* is used by the sample of the present job.

        Raises:
            InterlockError: If it is that of another job, which has not ended.
        """
        self.check_own(name)
        self.claimed.add(name)
        self._enter(Claimed(name, self.sample_id))

    def is_used(self, name: str) -> bool:
        """Return whether a sample uses *name*."""
        return name in self._ledger.used

    def location_of(self, container: str) -> str:
        """Return where PPU believes a container to be.

        Raises:
            InterlockError: If it never arrived where it was carried.
        """
        ledger = self._ledger
        if container in ledger.under_way:
            raise InterlockError(
                f"nobody knows where {container} is: it was to be carried from "
                f"{ledger.places[container]} to {ledger.under_way[container]}, and "
                "nothing shows how far it came; look for it and say where it is",
                advice=[advise(Remedy.MOVE_CONTAINER, container=container)],
            )
        return ledger.places[container]

    def left_from(self, container: str) -> str:
        """Return where PPU believes a container to be, or to have been when it left."""
        return self._ledger.places[container]

    def container_at(self, location: str) -> str | None:
        """Return the container that PPU believes to be at *location*."""
        ledger = self._ledger
        for container, place in ledger.places.items():
            if location in (place, ledger.under_way.get(container)):
                return container
        return None

    def beliefs(self) -> dict[str, str | None]:
        """Return where PPU believes each container to be, None while on its way."""
        ledger = self._ledger
        return {
            container: None if container in ledger.under_way else place
            for container, place in ledger.places.items()
        }

    def moving(self, container: str, destination: str) -> None:
        """Believe that *container* is on its way to *destination*.

        Raises:
            InterlockError: If it is another job's, or something stands there, or it
                would be put into or taken out of what is at work.
        """
        self.check_own(container)
        origin, standing = self.left_from(container), self.container_at(destination)
        if standing not in (None, container):
            raise InterlockError(
                f"{container} cannot go to {destination}: {standing} is there; say "
                "where that is, or carry it away"
            )
        for place in (origin, destination):
            entry = self.file.locations.get(place)
            if entry is not None and entry.inside in self._ledger.closed:
                raise InterlockError(
                    f"{container} cannot go from {origin} to {destination}: "
                    f"{entry.inside} is at work; wait until it has ended"
                )
        self._enter(Left(container, self._ledger.places[container], destination))

    def stayed(self, container: str) -> None:
        """Believe that *container* never left, if it was on its way."""
        if container in self._ledger.under_way:
            self.moved(container, self.left_from(container))

    def moved(self, container: str, destination: str) -> None:
        """Believe that *container* is at *destination* now."""
        self._enter(Moved(container, self._ledger.places[container], destination))

    def _enter(self, change: Change) -> None:
        self._ledger.enter(change)
        self.changes.append(change)

    def home_of(self, container: str) -> str:
        """Return the location that a container always may go back to."""
        return self.container(container).at

    # -- stock -----------------------------------------------------------------------

    def stock_g(self, powder: str) -> float:
        """Return how much of *powder* there should be [g].

        Raises:
            LimitError: If it is not in stock at all.
        """
        if powder not in self._ledger.stock_g:
            raise LimitError(
                # No nearest name: another powder is another substance.
                f"there is no {powder} in stock; in stock are "
                f"{', '.join(sorted(self._ledger.stock_g)) or 'none'}"
            )
        return self._ledger.stock_g[powder]

    def use_stock(self, powder: str, mass_g: float) -> None:
        """Deduct what was used."""
        self._enter(StockUsed(powder, mass_g))
