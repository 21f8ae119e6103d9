"""The lab as a plan sees it: capabilities, and where PPU believes containers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from ppu.core.errors import ConfigurationError, LimitError, nearest
from ppu.core.labfile import ContainerEntry, LabFile

__all__ = ["Lab"]

CapabilityT = TypeVar("CapabilityT")


class Lab:
    """Devices by capability, and PPU's belief about containers and stock.

    Args:
        file: The lab file.
        devices: Connected devices by name.
        flush_period_s: Lab time between collections of what a long step sampled [s]:
            what is not collected dies with the process.
    """

    def __init__(
        self,
        file: LabFile,
        devices: Mapping[str, Any],
        flush_period_s: float = 600.0,
    ) -> None:
        self.file = file
        self.flush_period_s = flush_period_s
        self.devices = dict(devices)
        self.sample_id = ""
        """Identity of the sample that the present job makes."""
        self._location_of = {name: c.at for name, c in file.containers.items()}
        self._is_used: set[str] = set()
        self._stock_g = {name: stock.mass_g for name, stock in file.stock.items()}

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
        candidates = [
            device
            for device, entry in self.file.devices.items()
            if wanted in entry.provides and device in self.devices
        ]
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

    # -- containers ------------------------------------------------------------------

    def container(self, name: str) -> ContainerEntry:
        """Return the entry of a container.

        Raises:
            ConfigurationError: If there is no such container.
        """
        if name not in self.file.containers:
            raise ConfigurationError(
                f"there is no container '{name}'; {nearest(name, self.file.containers)}"
            )
        return self.file.containers[name]

    def free_container(self, kind: str) -> str:
        """Return an empty container of *kind* that no sample uses yet.

        Raises:
            LimitError: If there is none left.
        """
        for name, entry in self.file.containers.items():
            is_free = name not in self._is_used and not entry.contents
            if entry.kind == kind and is_free:
                return name
        raise LimitError(f"lab {self.name} has no empty {kind} left; clean some")

    def claim_container(self, name: str) -> None:
        """Remember that *name* is used by a sample."""
        self._is_used.add(name)

    def is_used(self, name: str) -> bool:
        """Return whether a sample uses *name*."""
        return name in self._is_used

    def location_of(self, container: str) -> str:
        """Return where PPU believes a container to be."""
        return self._location_of[container]

    def container_at(self, location: str) -> str | None:
        """Return the container that PPU believes to be at *location*."""
        for container, place in self._location_of.items():
            if place == location:
                return container
        return None

    def moved(self, container: str, destination: str) -> None:
        """Believe that *container* is at *destination* now."""
        self._location_of[container] = destination

    def home_of(self, container: str) -> str:
        """Return the location that a container always may go back to."""
        return self.container(container).at

    # -- stock -----------------------------------------------------------------------

    def stock_g(self, powder: str) -> float:
        """Return how much of *powder* there should be [g].

        Raises:
            LimitError: If it is not in stock at all.
        """
        if powder not in self._stock_g:
            raise LimitError(
                # No nearest name: another powder is another substance.
                f"there is no {powder} in stock; in stock are "
                f"{', '.join(sorted(self._stock_g)) or 'none'}"
            )
        return self._stock_g[powder]

    def use_stock(self, powder: str, mass_g: float) -> None:
        """Deduct what was used."""
        self._stock_g[powder] = self._stock_g[powder] - mass_g
