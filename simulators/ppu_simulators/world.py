"""The world that simulated instruments act on: matter, places and incidents.

There is one world for all instruments of a lab. It knows where every container
stands and what is in it, conserves every element, and records what went physically
wrong. It never reads a clock: every act and every look carries the lab time.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ppu.core.errors import nearest
from ppu.core.labfile import LabFile
from ppu.core.simulation import ActRefusedError, TwinSettingsError
from ppu_simulators.physics.constants import ZERO_DEGC_KELVIN
from ppu_simulators.physics.matter import Matter, merge
from ppu_simulators.physics.milling import HAND_GRINDING, mill, recover

__all__ = ["FLOOR", "Container", "Incident", "Process", "Refused", "World"]

FLOOR = "floor"
"""Where a dropped container lies; no lab file may name it."""

AMBIENT_DEGC = 23.0
_AMBIENT_KELVIN = AMBIENT_DEGC + ZERO_DEGC_KELVIN
_CERAMIC_J_PER_G_K = 0.9
# A 20 mL alumina crucible in still air: our estimate, it only matters for what a
# technician burns himself at.
_COOLING_S = 400.0
_HOT_CONTAINER_DEGC = 300.0
# A chamber furnace's manual advises not to open its door above this.
_HOT_DOOR_DEGC = 200.0
_ALUMINA_MAX_DEGC = 1600.0
_SPILLED_BY_A_FALL = 0.8
_PERSON = "a person"
_LEFT_ON_TOOL = 0.002
_FOREIGN_FRACTION = 1e-3
"""Part of a specimen that may come from another sample before it counts."""


class Refused(ActRefusedError):  # noqa: N818 - reads as the condition it names
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
        max_degc: What it is made for.
        residue_of: Phases that were left in it by an earlier sample.
    """

    name: str
    kind: str
    at: str | None
    capacity_ml: float
    tare_g: float
    matter: Matter = field(default_factory=Matter)
    temperature_kelvin: float = _AMBIENT_KELVIN
    put_at_s: float = 0.0
    max_degc: float = _ALUMINA_MAX_DEGC
    residue_of: frozenset[str] = frozenset()

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

    @property
    def chamber_degc(self) -> float:
        """How hot it is behind its door [degC]."""

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
        self.acts: dict[str, list[float]] = {}
        """When something was done that cannot be undone, such as ``grind crucible_01``
        or ``start furnace_1``: lab times [s]."""
        self.containers: dict[str, Container] = {}
        self._inside = {
            name: location.inside for name, location in lab.locations.items()
        }
        self._processes: dict[str, Process] = {}
        self._spilled = Matter()
        self._is_open: dict[str, bool] = {}
        self._gas_into: dict[str, tuple[str, float]] = {}
        self._on_tool: dict[str, Matter] = {}
        self._hands: dict[str, np.random.Generator] = {}
        self._grippers: list[Callable[[float, str], bool]] = []
        self._has_happened: set[tuple[str, str]] = set()
        self.stock: dict[str, Matter] = {}
        for name, entry in lab.containers.items():
            believed = {
                "capacity_ml": entry.capacity_ml,
                "tare_g": entry.tare_g,
                "max_degc": _ALUMINA_MAX_DEGC,
                "residue": {},
            }
            twin = settings_of(entry.twin, believed, f"containers.{name}")
            container = Container(
                name=name,
                kind=entry.kind,
                at=entry.at,
                capacity_ml=float(twin["capacity_ml"]),
                tare_g=float(twin["tare_g"]),
                max_degc=float(twin["max_degc"]),
                residue_of=frozenset(phase_of(powder) for powder in twin["residue"]),
            )
            container.matter = merge(
                Matter.of(phase_of(powder), mass)
                for contents in (entry.contents, twin["residue"])
                for powder, mass in contents.items()
            )
            self.containers[name] = container
        for name in lab.stock:
            self.stock[name] = self._powder(name)

    def _powder(self, name: str, mass_g: float | None = None) -> Matter:
        """Return *mass_g* of a powder of the lab file, by default what it has [g]."""
        stock = self.lab.stock[name]
        believed = {
            "mass_g": stock.mass_g,
            "bulk_density_g_per_ml": stock.bulk_density_g_per_ml,
            "radius_um": math.nan,  # by default that of the phase
        }
        twin = settings_of(stock.twin, believed, f"stock.{name}")
        radius = float(twin["radius_um"])
        return Matter.of(
            phase_of(name),
            float(twin["mass_g"]) if mass_g is None else mass_g,
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

    def holds(self, location: str) -> str:
        """Return the kind of container that *location* is made for.

        Raises:
            Refused: If there is no such place.
        """
        self._check_place(location)
        return self.lab.locations[location].holds

    def _check_place(self, location: str) -> None:
        if location not in self._inside:
            raise Refused(f"there is no place called {location}")

    def is_reachable(self, location: str) -> bool:
        """Return whether no closed door stands before *location*.

        Raises:
            Refused: If there is no such place.
        """
        self._check_place(location)
        device = self._inside[location]
        return device is None or self._is_open.get(device, True)

    def elements(self) -> dict[str, float]:
        """Return the amount of each element in the world, gas included [mol]."""
        total: dict[str, float] = {}
        everything = [container.matter for container in self.containers.values()]
        everything += [*self.stock.values(), *self._on_tool.values(), self._spilled]
        for matter in everything:
            for symbol, amount in matter.elements(with_gas=True).items():
                total[symbol] = total.get(symbol, 0.0) + amount
        return total

    def truth(self, time: float) -> dict[str, Any]:
        """Return curves and places that no instrument can know."""
        self.advance(time)
        curves: dict[str, dict[str, list[float]]] = {}
        for process in self._processes.values():
            for moment, _, _, sample in getattr(process, "curve", ()):
                if sample is not None:
                    curve = curves.setdefault(
                        process.name, {"time_s": [], "temperature_degc": []}
                    )
                    curve["time_s"].append(moment)
                    curve["temperature_degc"].append(sample)
        return {
            "sample_curves": curves,
            "containers": {name: c.at for name, c in self.containers.items()},
        }

    # -- acting --------------------------------------------------------------------

    def add_process(
        self, process: Process, time: float = 0.0, *, is_source: bool = False
    ) -> None:
        """Let *process* act on the containers that stand inside it.

        Args:
            process: What changes by itself.
            time: Lab time now [s].
            is_source: Whether others depend on it, so that it must advance before
                them, wherever it stands in the lab file.
        """
        if is_source:
            self._processes = {process.name: process, **self._processes}
        else:
            self._processes[process.name] = process
        for container in self.containers.values():
            if container.at is not None and self._inside[container.at] == process.name:
                process.put_in(container, time)

    def record(self, time: float, kind: str, device: str, text: str) -> None:
        """Record an incident."""
        self.incidents.append(Incident(time, kind, device, text))

    def note_act(self, time: float, act: str) -> None:
        """Note that something was done that cannot be undone."""
        self.acts.setdefault(act, []).append(time)

    def pick_up(self, time: float, container_name: str, origin: str, who: str) -> None:
        """Take a container from where it stands.

        Raises:
            Refused: If it is not there.
        """
        self.advance(time)
        container = self._container(container_name)
        if container.at != origin:
            where = "in somebody's hands" if container.at is None else container.at
            raise Refused(f"{container_name} is not at {origin} but {where}")
        process = self._process_at(origin)
        if process is not None:
            process.take_out(container, time)
        hot = container.temperature_at(time) - ZERO_DEGC_KELVIN
        if hot > _HOT_CONTAINER_DEGC:
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
            Refused: If there is no such place, or it is taken, or another kind of
                container belongs there; it is still being carried then.
        """
        self.advance(time)
        container = self.containers[container_name]
        self._check_place(destination)
        other = self.at(destination)
        if other is not None:
            self.record(
                time,
                "double place",
                who,
                f"{container_name} was put onto {other.name} at {destination}",
            )
            raise Refused(f"{destination} is taken by {other.name}")
        holds = self.holds(destination)
        if holds != container.kind:
            self.record(
                time,
                "wrong place",
                who,
                f"{container_name}, a {container.kind}, was put onto {destination}, "
                f"which holds a {holds}",
            )
            raise Refused(f"{destination} holds a {holds}, not a {container.kind}")
        container.temperature_kelvin = container.temperature_at(time)
        container.put_at_s = time
        container.at = destination
        self.note_act(time, f"move {container_name} to {destination}")
        process = self._process_at(destination)
        if process is not None:
            process.put_in(container, time)

    def drop(self, time: float, container_name: str, who: str) -> None:
        """Let a container that is being carried fall; it lies on the floor then."""
        self.advance(time)
        container = self.containers[container_name]
        container.temperature_kelvin = container.temperature_at(time)
        container.put_at_s = time
        container.at = FLOOR
        self.record(time, "drop", who, f"{container_name} fell to the floor")
        if container.matter.mass_g > 0:
            spilled, container.matter = container.matter.split(_SPILLED_BY_A_FALL)
            self._spilled = merge([self._spilled, spilled])
            self.record(
                time,
                "spill",
                who,
                f"{spilled.mass_g:.3f} g fell out of {container_name}",
            )

    # -- people ----------------------------------------------------------------------

    def add_gripper(self, gives: Callable[[float, str], bool]) -> None:
        """Let people take what a gripper holds.

        Args:
            gives: Lets go of a container of that name at a lab time, and returns
                whether it was held.
        """
        self._grippers.append(gives)

    def carry(self, time: float, container_name: str, destination: str) -> None:
        """Let a person carry a container to *destination*, wherever it is.

        A sensible person looks before touching anything, so no incident comes of it
        but those of a hot container and a hot door. Whoever finds a door closed opens
        it, and closes it again.

        Raises:
            Refused: If there is no such container or place, or something stands there
                or belongs there that this is not.
        """
        self.advance(time)
        container = self._container(container_name)
        holds, other = self.holds(destination), self.at(destination)
        if holds != container.kind:
            raise Refused(f"{destination} holds a {holds}, not a {container.kind}")
        if other is container:
            return
        if other is not None:
            raise Refused(
                f"{destination} is taken by {other.name}; carry that elsewhere first"
            )
        if container.at is not None:
            with self._door_opened(time, container.at):
                self.pick_up(time, container_name, container.at, _PERSON)
        elif not any(gives(time, container_name) for gives in self._grippers):
            raise Refused(
                f"{container_name} is in somebody's hands; wait until it is put down"
            )
        with self._door_opened(time, destination):
            self.put_down(time, container_name, destination, _PERSON)

    def empty(self, time: float, container_name: str) -> None:
        """Let a person empty and clean a container.

        Raises:
            Refused: If there is none, it is in a hand, or inside something that works.
        """
        self.advance(time)
        container = self._container(container_name)
        if container.at is None or self._process_at(container.at) is not None:
            where = "in a hand" if container.at is None else f"at {container.at}"
            raise Refused(f"{container_name} is {where}; carry it to the bench first")
        self.empty_out(container)
        container.residue_of = frozenset()
        self.note_act(time, f"empty {container_name}")

    def refill(self, time: float, powder: str, mass_g: float) -> None:
        """Let a person add *mass_g* of *powder* to the stock [g].

        Raises:
            Refused: If there is no such powder, or no such amount.
        """
        self.advance(time)
        if powder not in self.stock:
            raise Refused(f"there is no {powder} in stock")
        if not 0 < mass_g < math.inf:
            raise Refused(f"{mass_g} g cannot be added; give more than 0")
        self.stock[powder] = merge([self.stock[powder], self._powder(powder, mass_g)])

    def _container(self, name: str) -> Container:
        if name not in self.containers:
            raise Refused(f"there is no container {name}")
        return self.containers[name]

    @contextlib.contextmanager
    def _door_opened(self, time: float, location: str) -> Iterator[None]:
        """Open the door before *location* if it is closed, and close it afterwards."""
        device = self._inside.get(location)
        if device is None or self._is_open.get(device, True):
            yield
            return
        self.move_door(time, device, True, _PERSON)
        try:
            yield
        finally:
            self.move_door(time, device, False, _PERSON)

    # -- doors -----------------------------------------------------------------------

    def add_door(self, device: str) -> None:
        """Put a door, closed, in front of the locations inside *device*."""
        self._is_open[device] = False

    def has_door(self, device: str) -> bool:
        """Return whether a door of its own stands before *device*."""
        return device in self._is_open

    def is_door_open(self, device: str) -> bool:
        """Return whether *device* has a door and it stands open."""
        return self._is_open.get(device, False)

    def move_door(self, time: float, device: str, is_open: bool, who: str) -> None:
        """Open or close the door before *device*.

        Raises:
            KeyError: If there is none.
        """
        self.advance(time)
        was_open, self._is_open[device] = self._is_open[device], is_open
        process = self._processes.get(device)
        if is_open and not was_open and process is not None:
            hot = process.chamber_degc
            if hot > _HOT_DOOR_DEGC:
                self.record(
                    time,
                    "hot door",
                    who,
                    f"the door of {device} was opened at {hot:.0f} degC",
                )

    def reach(self, time: float, location: str, who: str) -> bool:
        """Reach out for *location* blindly; return whether the way was free.

        A closed door in the way is hit: a collision.

        Raises:
            Refused: If there is no such place.
        """
        if self.is_reachable(location):
            return True
        self.advance(time)
        door = f"the closed door of {self._inside[location]}"
        self.record(time, "collision", who, f"it ran into {door}")
        return False

    # -- gas -------------------------------------------------------------------------

    def supply_gas(
        self, time: float, device: str, gas: str, flow_ml_per_min: float
    ) -> None:
        """Let *gas* flow into *device* from now on, instead of what flowed before."""
        self.advance(time)
        self._gas_into[device] = (gas, flow_ml_per_min)

    def gas_into(self, device: str) -> tuple[str, float]:
        """Return which gas flows into *device*, and how much [mL/min]."""
        return self._gas_into.get(device, ("air", 0.0))

    # -- matter ----------------------------------------------------------------------

    def note_heated(self, time: float, container: Container, device: str) -> None:
        """Record what heat did to *container* inside *device*, each thing once."""
        melted = container.matter.melted
        if melted is not None and self._is_first("melt", container.name):
            self.record(time, "melt", device, f"{melted} melted in {container.name}")
        degc = self._processes[device].chamber_degc
        if degc > container.max_degc and self._is_first("hot", container.name):
            self.record(
                time,
                "over-temperature",
                device,
                f"{container.name} is at {degc:.0f} degC, it is made for "
                f"{container.max_degc:g} degC",
            )

    def _is_first(self, kind: str, name: str) -> bool:
        """Return whether *kind* happens to *name* for the first time."""
        if (kind, name) in self._has_happened:
            return False
        self._has_happened.add((kind, name))
        return True

    def _process_at(self, location: str) -> Process | None:
        inside = self._inside.get(location)
        return None if inside is None else self._processes.get(inside)

    def pour(self, time: float, container: Container, powder: Matter, who: str) -> None:
        """Pour *powder* into *container*; what does not fit is spilled."""
        self.advance(time)
        self._note_residue(time, container, who)
        for phase in powder.masses_g():
            self.note_act(time, f"dose {phase} into {container.name}")
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

    def _note_residue(self, time: float, container: Container, who: str) -> None:
        """Record that what an earlier sample left in *container* gets mixed in."""
        if container.residue_of and container.matter.mass_g > 0:
            self.record(
                time,
                "contamination",
                who,
                f"{container.name} still held {1000 * container.matter.mass_g:.1f} mg "
                f"of {', '.join(sorted(container.residue_of))}",
            )
        container.residue_of = frozenset()

    def grind(self, time: float, container: Container, duration_s: float) -> None:
        """Grind what is in *container* with mortar and pestle."""
        self.advance(time)
        self.note_act(time, f"grind {container.name}")
        mill(container.matter, duration_s, HAND_GRINDING)

    def recover_and_mount(
        self, time: float, source: Container, holder: Container, who: str
    ) -> None:
        """Take powder out of *source* and press as much as fits into *holder*.

        A little stays on the tool of *who* and gets into what it handles next.
        """
        self.advance(time)
        self.note_act(time, f"mount {source.name} on {holder.name}")
        if who not in self._hands:
            self._hands[who] = self.rng(who, "hands")
        self.empty_out(holder)
        recovered, _ = recover(source.matter, HAND_GRINDING, self._hands[who])
        fits = holder.capacity_ml / max(recovered.volume_ml, 1e-12)
        fraction = recovered.mass_g / source.matter.mass_g * min(fits, 1.0)
        self.transfer(time, source, holder, fraction)
        before = self._on_tool.get(who, Matter())
        foreign = sum(
            mass
            for phase, mass in before.masses_g().items()
            if phase not in holder.matter.masses_g()
        )
        specimen_g = holder.matter.mass_g
        stays, goes = holder.matter.split(1.0 - _LEFT_ON_TOOL)
        holder.matter, self._on_tool[who] = merge([stays, before]), goes
        if foreign > _FOREIGN_FRACTION * specimen_g:
            self.record(
                time,
                "contamination",
                who,
                f"{1000 * foreign:.2f} mg of an earlier sample got into {holder.name}",
            )

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
        TwinSettingsError: If *entry* has keys that are not known, or something else
            where a finite number, a list or a mapping belongs.
    """
    before = f"{owner}.twin: " if owner else ""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for key, value in entry.items():
        if key not in known:
            wrong = f"unknown twin setting '{key}'; {nearest(str(key), known)}"
            problems.append(((key,), before + wrong))
            continue
        problems += [
            ((key, *place), before + text)
            for place, text in _misshapen(key, value, known[key])
        ]
    if problems:
        raise TwinSettingsError(problems)
    return {**known, **entry}


def _misshapen(
    name: str, value: Any, default: Any
) -> list[tuple[tuple[str | int, ...], str]]:
    """Return where *value* has another shape than *default*, and what belongs there.

    What a mapping maps its keys to is of one kind, so any default of it is a pattern.
    """
    if _is_number(default) and not (_is_number(value) and math.isfinite(value)):
        return [((), f"{name} should be a finite number, not {value!r}")]
    if isinstance(default, list) and not isinstance(value, list | tuple):
        return [((), f"{name} should be a list, not {value!r}")]
    if not isinstance(default, Mapping):
        return []
    if not isinstance(value, Mapping):
        return [((), f"{name} should be a mapping of keys, not {value!r}")]
    pattern = next(iter(default.values()), None)
    return [
        ((key, *place), text)
        for key, inner in value.items()
        for place, text in _misshapen(f"{name}.{key}", inner, pattern)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
