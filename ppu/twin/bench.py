"""A bench of simulated instruments: one world, a wire front for each device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from ppu.core.errors import ConfigurationError, nearest
from ppu.core.labfile import DeviceEntry, LabFile, lab_error
from ppu.core.labtime import running_loop
from ppu.core.registry import load_class
from ppu.core.simulation import (
    FaultInjector,
    SimulatedInstrument,
    SimulatedWorld,
    TwinSettingsError,
)

__all__ = ["Bench", "Links"]

Links = Literal["kernel", "memory"]
"""What carries bytes to a bench: pseudo-terminals and loopback ports, or memory."""

_ADDRESSES = ("port", "host", "url", "results_folder")


class Bench:
    """The simulated instruments of a lab, listening.

    Args:
        lab: The lab file.
        path: Where it was read from, for errors.
        seed: Seed of every random stream.
        nonces: What devices answer as their identity, by device.
        only: Names of the devices to serve; by default all that have a simulator.
        played: People whom somebody plays, instead of their model.
        links: ``kernel``, which any program can use; or ``memory``, in which all is
            the same in every run, for clients on the bench's own loop.

    Raises:
        ConfigurationError: If a simulator cannot be made of its entry.
    """

    def __init__(
        self,
        lab: LabFile,
        path: Path,
        seed: int,
        nonces: Mapping[str, str] | None = None,
        only: tuple[str, ...] = (),
        links: Links = "kernel",
        played: Collection[str] = (),
    ) -> None:
        self._links = links
        world_class = load_class(lab.simulation.world, "simulation.world")
        try:
            self.world: SimulatedWorld = world_class(lab, seed)
        except (ValueError, TypeError) as exc:
            raise ConfigurationError(f"{path}: the world: {exc}") from exc
        self.instruments: dict[str, SimulatedInstrument] = {}
        self.connections: dict[str, dict[str, Any]] = {}
        self.played = frozenset(played)
        self._is_listening = False
        self._entries = lab.devices
        for name, entry in lab.devices.items():
            if only and name not in only:
                continue
            if entry.simulator is None:
                raise lab_error(
                    path,
                    [
                        (
                            ("devices", name),
                            f"devices.{name}.simulator: is missing, so there is no "
                            "twin of it",
                        )
                    ],
                )
            simulator = load_class(entry.simulator, f"devices.{name}.simulator")
            serial_number = (nonces or {}).get(name) or _serial_number(entry)
            try:
                self.instruments[name] = simulator(
                    name, self._as_played(name, entry), self.world, serial_number
                )
            except TwinSettingsError as exc:
                at = ("devices", name, "twin")
                raise lab_error(
                    path,
                    [
                        ((*at, *place), f"devices.{name}.twin: {text}")
                        for place, text in exc.problems
                    ],
                ) from exc
            except (ValueError, TypeError, KeyError) as exc:
                raise lab_error(
                    path,
                    [(("devices", name, "twin"), f"devices.{name}.twin: {exc}")],
                ) from exc

    def _as_played(self, name: str, entry: DeviceEntry) -> DeviceEntry:
        """Return an entry that says whether somebody plays the person."""
        if name not in self.played:
            return entry
        return entry.model_copy(update={"twin": {**entry.twin, "is_played": True}})

    async def start(self) -> None:
        """Let every instrument listen; those that do go on."""
        if self._is_listening:
            return
        self._is_listening = True
        running_loop().switchboard.is_asked_for = self._links == "memory"
        for name, instrument in self.instruments.items():
            address = await instrument.start()
            self.connections[name] = rewired(self._entries[name].hardware, address)

    async def stop(self) -> None:
        """Stop every instrument."""
        self._is_listening = False
        for instrument in self.instruments.values():
            await instrument.stop()

    def faults_of(self, device: str) -> FaultInjector:
        """Return what can go wrong with *device*.

        Raises:
            ConfigurationError: If it is not on this bench.
        """
        if device not in self.instruments:
            raise ConfigurationError(
                f"no device {device!r} on this bench; "
                f"{nearest(device, self.instruments)}"
            )
        return self.instruments[device].faults

    def inject(self, device: str, entry: Mapping[str, Any]) -> None:
        """Let a fault come to *device* from now on, as a script in the lab file does.

        Args:
            device: Its name in the lab file.
            entry: The script, such as ``{"fault": "drop", "for_s": 10}``; ``at_s``
                counts from now.

        Raises:
            ConfigurationError: If there is no such device, or the script is wrong.
        """
        try:
            self.faults_of(device).inject(entry, running_loop().time())
        except TwinSettingsError as exc:
            raise ConfigurationError(f"{device}: {exc}") from exc

    def clear(self, device: str) -> None:
        """End every fault of *device* now.

        Raises:
            ConfigurationError: If there is no such device.
        """
        self.faults_of(device).clear(running_loop().time())


def _serial_number(entry: DeviceEntry) -> str:
    return "1001" if entry.serial_number == "unset" else entry.serial_number


def rewired(
    hardware: Mapping[str, Any] | None, address: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the connection of the lab file, leading to a simulator's *address*.

    Line settings stay those of the lab file, so that a wrong one shows in the twin.
    """
    if hardware is None or hardware.get("transport") != address["transport"]:
        return dict(address)
    places = {key: address[key] for key in _ADDRESSES if key in address}
    return {**address, **hardware, **places}
