"""The world that simulated instruments act on: matter, places and incidents.

There is one world for all instruments of a lab. It knows where every container
stands and what is in it, conserves every element, and records what went physically
wrong. It never reads a clock: every act and every look carries the lab time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ppu.core.errors import nearest
from ppu.core.labfile import LabFile
from ppu_simulators.physics.constants import ZERO_DEGC_KELVIN
from ppu_simulators.physics.matter import Matter, merge

__all__ = ["Container", "Incident", "Process", "Refused", "World"]

AMBIENT_DEGC = 23.0
_AMBIENT_KELVIN = AMBIENT_DEGC + ZERO_DEGC_KELVIN
_CERAMIC_J_PER_G_K = 0.9
# A 20 mL alumina crucible in still air: our estimate, it only matters for what a
# technician burns himself at.
_COOLING_S = 400.0


class Refused(Exception):  # noqa: N818 - reads as the condition it names
    """What was asked cannot be done in this world; nothing changed."""


@dataclass(frozen=True)
class Incident:
    """Something that went physically wrong."""

    lab_time_s: float
    kind: str
    device: str
    text: str


@dataclass
class Container:
    """A vessel in the world.

    Attributes:
        name: Its name in the lab file.
        kind: What it is, such as ``crucible``.
        at: Location, or None while it is being carried.
        capacity_ml: What it really holds.
        tare_g: What it really weighs empty.
        matter: The powder in it.
        temperature_kelvin: Its temperature when last put somewhere.
        put_at_s: When that was.
    """

    name: str
    kind: str
    at: str | None
    capacity_ml: float
    tare_g: float
    matter: Matter = field(default_factory=Matter)
    temperature_kelvin: float = _AMBIENT_KELVIN
    put_at_s: float = 0.0

    @property
    def mass_g(self) -> float:
        """Mass of vessel and powder [g]."""
        return self.tare_g + self.matter.mass_g

    @property
    def heat_capacity_j_per_k(self) -> float:
        """Heat capacity of vessel and powder [J/K]."""
        return self.tare_g * _CERAMIC_J_PER_G_K + self.matter.heat_capacity_j_per_k

    def temperature_at(self, time: float) -> float:
        """Return its temperature in the open at *time* [kelvin]."""
        age = max(time - self.put_at_s, 0.0)
        excess = self.temperature_kelvin - _AMBIENT_KELVIN
        return _AMBIENT_KELVIN + excess * math.exp(-age / _COOLING_S)


class Process(Protocol):
    """Something that changes matter by itself as time passes, such as a furnace."""

    name: str

    def advance(self, time: float) -> None:
        """Advance to *time* on the process's own grid."""

    def put_in(self, container: Container, time: float) -> None:
        """Take note that *container* now stands inside."""

    def take_out(self, container: Container, time: float) -> None:
        """Take note that *container* left, and set its temperature."""


class World:
    """Matter, places and incidents of one lab.

    Args:
        lab: The lab file: what PPU believes. Entries under ``twin`` say where the
            world differs from that.
        seed: Seed of every random stream.
    """

    def __init__(self, lab: LabFile, seed: int) -> None:
        self.lab = lab
        self.seed = seed
        self.incidents: list[Incident] = []
        self.containers: dict[str, Container] = {}
        self._inside = {
            name: location.inside for name, location in lab.locations.items()
        }
        self._processes: dict[str, Process] = {}
        self._spilled = Matter()
        self.stock: dict[str, Matter] = {}
        for name, entry in lab.containers.items():
            believed = {"capacity_ml": entry.capacity_ml, "tare_g": entry.tare_g}
            twin = settings_of(entry.twin, believed, f"containers.{name}")
            container = Container(
                name=name,
                kind=entry.kind,
                at=entry.at,
                capacity_ml=float(twin["capacity_ml"]),
                tare_g=float(twin["tare_g"]),
            )
            container.matter = merge(
                Matter.of(phase_of(powder), mass)
                for powder, mass in entry.contents.items()
            )
            self.containers[name] = container
        for name, stock in lab.stock.items():
            believed = {
                "mass_g": stock.mass_g,
                "bulk_density_g_per_ml": stock.bulk_density_g_per_ml,
                "radius_um": math.nan,  # by default that of the phase
            }
            twin = settings_of(stock.twin, believed, f"stock.{name}")
            radius = float(twin["radius_um"])
            self.stock[name] = Matter.of(
                phase_of(name),
                float(twin["mass_g"]),
                radius_um=None if math.isnan(radius) else radius,
                bulk_density_g_per_ml=float(twin["bulk_density_g_per_ml"]),
            )

    def rng(self, *purpose: str) -> np.random.Generator:
        """Return the random stream of *purpose*, the same for the same seed."""
        keys = [zlib.crc32(word.encode()) for word in purpose]
        return np.random.default_rng(np.random.SeedSequence([self.seed, *keys]))

    # -- looking -------------------------------------------------------------------

    def advance(self, time: float) -> None:
        """Advance everything that happens by itself to lab time *time* [s]."""
        for process in self._processes.values():
            process.advance(time)

    def at(self, location: str) -> Container | None:
        """Return the container that stands at *location*."""
        for container in self.containers.values():
            if container.at == location:
                return container
        return None

    def elements(self) -> dict[str, float]:
        """Return the amount of each element in the world, gas included [mol]."""
        total: dict[str, float] = {}
        everything = [container.matter for container in self.containers.values()]
        for matter in (*everything, *self.stock.values(), self._spilled):
            for symbol, amount in matter.elements(with_gas=True).items():
                total[symbol] = total.get(symbol, 0.0) + amount
        return total

    def truth(self, time: float) -> dict[str, Any]:
        """Return curves that no instrument can know, for reports."""
        self.advance(time)
        times: list[float] = []
        temperatures: list[float] = []
        for process in self._processes.values():
            for moment, _, _, sample in getattr(process, "curve", ()):
                if sample is not None:
                    times.append(moment)
                    temperatures.append(sample)
        return {"sample_curve": {"time_s": times, "temperature_degc": temperatures}}

    # -- acting --------------------------------------------------------------------

    def add_process(self, process: Process, time: float = 0.0) -> None:
        """Let *process* act on the containers that stand inside it."""
        self._processes[process.name] = process
        for container in self.containers.values():
            if container.at is not None and self._inside[container.at] == process.name:
                process.put_in(container, time)

    def record(self, time: float, kind: str, device: str, text: str) -> None:
        """Record an incident."""
        self.incidents.append(Incident(time, kind, device, text))

    def pick_up(self, time: float, container_name: str, origin: str, who: str) -> None:
        """Take a container from where it stands.

        Raises:
            Refused: If it is not there.
        """
        self.advance(time)
        container = self.containers.get(container_name)
        if container is None:
            raise Refused(f"there is no container {container_name}")
        if container.at != origin:
            where = "in somebody's hands" if container.at is None else container.at
            raise Refused(f"{container_name} is not at {origin} but {where}")
        process = self._process_at(origin)
        if process is not None:
            process.take_out(container, time)
        hot = container.temperature_at(time) - ZERO_DEGC_KELVIN
        if hot > 300.0:
            self.record(
                time,
                "hot container",
                who,
                f"{container_name} was taken from {origin} at {hot:.0f} degC",
            )
        container.at = None

    def put_down(
        self, time: float, container_name: str, destination: str, who: str
    ) -> None:
        """Put a container that is being carried somewhere.

        Raises:
            Refused: If there is no such place, or it is taken.
        """
        self.advance(time)
        container = self.containers[container_name]
        if destination not in self._inside:
            raise Refused(f"there is no place called {destination}")
        other = self.at(destination)
        if other is not None:
            self.record(
                time,
                "double place",
                who,
                f"{container_name} was put onto {other.name} at {destination}",
            )
            raise Refused(f"{destination} is taken by {other.name}")
        holds = self.lab.locations[destination].holds
        if holds != container.kind:
            raise Refused(f"{destination} holds a {holds}, not a {container.kind}")
        container.temperature_kelvin = container.temperature_at(time)
        container.put_at_s = time
        container.at = destination
        process = self._process_at(destination)
        if process is not None:
            process.put_in(container, time)

    def _process_at(self, location: str) -> Process | None:
        inside = self._inside.get(location)
        return None if inside is None else self._processes.get(inside)

    def pour(self, time: float, container: Container, powder: Matter, who: str) -> None:
        """Pour *powder* into *container*; what does not fit is spilled."""
        self.advance(time)
        filled = merge([container.matter, powder])
        if filled.volume_ml > container.capacity_ml:
            fits = container.capacity_ml / filled.volume_ml
            kept, spilled = filled.split(fits)
            self._spilled = merge([self._spilled, spilled])
            self.record(
                time,
                "spill",
                who,
                f"{filled.volume_ml:.1f} mL were poured into {container.name}, which "
                f"holds {container.capacity_ml:g} mL: {spilled.mass_g:.3f} g spilled",
            )
            filled = kept
        container.matter = filled

    def take_stock(self, powder: str, mass_g: float) -> Matter:
        """Take powder from stock; less than asked if there is not enough.

        Raises:
            Refused: If there is no such powder.
        """
        if powder not in self.stock:
            raise Refused(f"there is no {powder} in stock")
        taken, self.stock[powder] = self.stock[powder].take(mass_g)
        return taken

    def transfer(
        self, time: float, origin: Container, destination: Container, fraction: float
    ) -> None:
        """Move a fraction of a container's powder to another, unspilled."""
        self.advance(time)
        taken, origin.matter = origin.matter.split(fraction)
        destination.matter = merge([destination.matter, taken])

    def empty_out(self, container: Container) -> None:
        """Throw away what is in *container*; it still counts as matter."""
        self._spilled = merge([self._spilled, container.matter])
        container.matter = Matter()


_POWDERS: Mapping[str, str] = {"TiO2": "TiO2-anatase"}
"""What a bottle labelled with a formula contains: reagent TiO2 is anatase."""


def phase_of(powder: str) -> str:
    """Return the phase that a powder of this name consists of."""
    return _POWDERS.get(powder, powder)


def settings_of(
    entry: Mapping[str, Any], known: Mapping[str, Any], owner: str = ""
) -> dict[str, Any]:
    """Return *known* defaults overridden by *entry*.

    Args:
        entry: What stands under ``twin`` in the lab file.
        known: Every setting there is, with its default.
        owner: Place in the lab file, where the error would not name it by itself.

    Raises:
        ValueError: If *entry* has a key that is not known, or something else where a
            finite number belongs.
    """
    place = f"{owner}.twin: " if owner else ""
    for key, value in entry.items():
        if key not in known:
            raise ValueError(
                f"{place}unknown twin setting '{key}'; {nearest(key, known)}"
            )
        if _is_number(known[key]) and not (_is_number(value) and math.isfinite(value)):
            raise ValueError(f"{place}{key} should be a finite number, not {value!r}")
    return {**known, **entry}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
