"""The lab file: one YAML file describes one workcell.

Every fault is found before anything connects, and all faults are told at once, each
with its line, what was given and what is allowed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ppu.core.capabilities import CAPABILITIES
from ppu.core.errors import ConfigurationError, nearest
from ppu.core.failure import FailurePolicy
from ppu.core.names import wrong_with_name
from ppu.core.validation import Fault, UnfitError, fill
from ppu.core.yaml_document import YamlDocument, read_text

__all__ = [
    "ContainerEntry",
    "DeviceEntry",
    "LabFile",
    "LimitPair",
    "LocationEntry",
    "SimulatedBench",
    "SimulationEntry",
    "StockEntry",
    "TechnicianEntry",
    "lab_error",
    "load_lab",
]

FLOOR: Final = "floor"
"""Where the simulated world puts what fell: no location of a lab."""

_NEEDS_SLOT: Final = ("Balance", "Diffractometer", "Furnace", "PowderDoser")
"""Capabilities that happen to what stands in a location of the device."""

_NAME: Final = re.compile(r"[^\W_][\w.()+-]*")

LATEST_S: Final = 253402300799.0
"""The last second of the year 9999 [s since 1970]; later ones have no date."""
LONGEST_S: Final = 3.2e9
"""A century: of what lasts longer no clock in a laboratory says when it ends [s]."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _name(text: str) -> str:
    """Return a name that is also a part of a path, of a sentence and of a wire's line.

    A container called "cup from rack_2" would make another sentence of what a person is
    asked.
    """
    wrong = wrong_with_name(text)
    if not wrong and _NAME.fullmatch(text) is None:
        wrong = (
            "should be letters, digits and _ . - + ( ), beginning with a letter or "
            f"digit; given was '{text}'"
        )
    if wrong:
        raise ValueError(wrong)
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name of a device, a location, a container or a powder."""


def limit_pair(value: Any) -> tuple[float, float]:
    """Return *value* as a pair of limits, low first.

    Raises:
        ValueError: If it is not two finite numbers in ascending order.
    """
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
            for x in value
        )
    ):
        raise ValueError("should be two numbers [low, high]")
    low, high = float(value[0]), float(value[1])
    if low > high:
        raise ValueError("should be [low, high] with low <= high")
    return low, high


LimitPair = Annotated[tuple[float, float], BeforeValidator(limit_pair)]
"""Limits as a lab file writes them: ``[low, high]``."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceEntry(_Entry):
    """One device of the lab."""

    driver: str = Field(description="Driver class, as package.module:Class")
    simulator: str | None = Field(
        default=None, description="Simulated instrument, as package.module:Class"
    )
    serial_number: str = Field(
        default="unset", description="Checked at connect when set"
    )
    hardware: dict[str, Any] | None = Field(
        default=None, description="How to reach the instrument"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="What the driver must know"
    )
    limits: dict[str, Any] = Field(
        default_factory=dict, description="What the lab allows, as [low, high]"
    )
    on_abort: str | None = Field(
        default=None, description="State to go to when a plan is aborted"
    )
    on_orphan: str | None = Field(
        default=None,
        description="State to go to when the process that used it has died",
    )
    on_hold: str | None = Field(
        default=None, description="State to go to when a job is put on hold"
    )
    provides: tuple[str, ...] = Field(
        default=(), description="Capabilities that plans may ask of it"
    )
    slots: tuple[str, ...] = Field(default=(), description="Its locations")
    twin: dict[str, Any] = Field(
        default_factory=dict, description="Read by the simulator only"
    )


class LocationEntry(_Entry):
    """A place for one container."""

    holds: str = Field(description="Kind of container that fits")
    inside: str | None = Field(default=None, description="Device it is part of")


class ContainerEntry(_Entry):
    """Something that holds a sample."""

    kind: str
    at: str = Field(description="Location at the start, its home")
    capacity_ml: Positive
    tare_g: Positive
    contents: dict[str, Positive] = Field(
        default_factory=dict, description="Powders already in it, in gram"
    )
    twin: dict[str, Any] = Field(default_factory=dict)


class StockEntry(_Entry):
    """A powder in stock."""

    at: str = Field(description="Where it is, such as dosing_robot.head_1")
    mass_g: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    purity: Annotated[float, Field(gt=0, le=1)]
    bulk_density_g_per_ml: Positive
    twin: dict[str, Any] = Field(
        default_factory=dict, description="What it is really like"
    )


class TechnicianEntry(_Entry):
    """A technician of the twin, who carries, cleans, refills and answers unasked."""

    delay_s: Positive = Field(
        default=600.0, description="How long it takes until something is seen to [s]"
    )
    spread: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = Field(
        default=0.3, description="Width of the log-normal distribution of that"
    )
    refills_below: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.2,
        description="A powder is refilled when less than this part of its mass in the "
        "lab file is free",
    )


class SimulationEntry(_Entry):
    """What the twin needs beside the instruments."""

    world: str = Field(
        default="ppu_simulators.world:World",
        description="Class of the world, as package.module:Class",
    )
    settings: dict[str, Any] = Field(default_factory=dict)
    technician: TechnicianEntry | None = Field(
        default=None, description="Who sees to the twin's jobs; by default nobody"
    )


class SchedulingEntry(_Entry):
    """How jobs wait for what others have."""

    patience_s: Positive = Field(
        default=604800.0,
        le=LONGEST_S,
        description="How long a step waits for what it needs before it fails [s]",
    )
    share_wait: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.1,
        description="How long a firing waits for others that want the same, as a part "
        "of its own duration",
    )
    jobs_at_once: Annotated[int, Field(ge=1, le=200)] = Field(
        default=24,
        description="How many jobs run at the same time at most; as many again may "
        "wait for an empty container",
    )


class SimulatedBench(_Entry):
    """Says that the hardware connections lead to simulated instruments."""

    epoch: float = Field(
        ge=0,
        le=LATEST_S,
        description="Wall clock when lab time was 0 [s since 1970]",
    )
    pace: Annotated[float, Field(gt=0, lt=1e6)]
    nonces: dict[str, str] = Field(
        description="What each device must answer as its identity"
    )


class LabFile(_Entry):
    """A whole lab."""

    lab: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    schema_version: Literal[1]
    seed: int = Field(default=0, ge=0)
    simulation: SimulationEntry = SimulationEntry()
    devices: dict[Name, DeviceEntry]
    locations: dict[Name, LocationEntry] = Field(default_factory=dict)
    containers: dict[Name, ContainerEntry] = Field(default_factory=dict)
    stock: dict[Name, StockEntry] = Field(default_factory=dict)
    failure_policies: dict[str, FailurePolicy] = Field(
        default_factory=dict,
        description="What to do when a step fails, by its name, instead of what its "
        "protocol says",
    )
    scheduling: SchedulingEntry = SchedulingEntry()
    simulated_bench: SimulatedBench | None = None


def load_lab(path: Path) -> LabFile:
    """Read and check the lab file at *path*.

    Raises:
        ConfigurationError: With every fault, each naming its line.
    """
    document = _read(path)
    if not isinstance(document.content, dict):
        raise ConfigurationError(f"{path}: a lab file is a mapping of keys")
    try:
        lab = fill(LabFile, document.content)
    except UnfitError as exc:
        raise _error(document, exc.faults) from None
    found = _cross_check(lab)
    if found:
        raise _error(document, found)
    return lab


def lab_error(path: Path, faults: list[Fault]) -> ConfigurationError:
    """Return the error that tells *faults* of the lab file at *path*."""
    return _error(_read(path), faults)


def _read(path: Path) -> YamlDocument:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    return YamlDocument(read_text(content, str(path)), str(path))


def _error(document: YamlDocument, faults: list[Fault]) -> ConfigurationError:
    """Return the error that tells all *faults*, each with its line."""
    return ConfigurationError(
        "\n".join(f"{document.where(place)}: {text}" for place, text in faults)
    )


def _cross_check(lab: LabFile) -> list[Fault]:
    """Return what is wrong between the entries of *lab*."""
    found: list[Fault] = []
    for name, device in lab.devices.items():
        for capability in device.provides:
            if capability not in CAPABILITIES:
                hint = nearest(capability, CAPABILITIES)
                found.append(
                    (
                        ("devices", name, "provides"),
                        f"devices.{name}.provides: unknown capability "
                        f"'{capability}'; {hint}; a package adds its own with an "
                        "entry point of the group 'ppu.capabilities'",
                    )
                )
    found += _check_slots(lab)
    for name, location in lab.locations.items():
        if name == FLOOR:
            found.append(
                (
                    ("locations", name),
                    f"locations.{name}: this name is reserved for what fell; give "
                    "the location another",
                )
            )
        if location.inside is not None and location.inside not in lab.devices:
            hint = nearest(location.inside, lab.devices)
            found.append(
                (
                    ("locations", name, "inside"),
                    f"locations.{name}.inside: unknown device "
                    f"'{location.inside}'; {hint}",
                )
            )
    return found + _check_containers(lab) + _check_stock(lab)


def _check_slots(lab: LabFile) -> list[Fault]:
    """Return where slots of devices and what locations are inside of disagree."""
    found: list[Fault] = []
    owners: dict[str, str] = {}
    for name, device in lab.devices.items():
        place = ("devices", name, "slots")
        key = f"devices.{name}.slots"
        needing = [c for c in device.provides if c in _NEEDS_SLOT]
        if needing and not device.slots:
            found.append(
                (
                    place,
                    f"{key}: needs at least one location in slots to provide "
                    f"{', '.join(needing)}",
                )
            )
        for index, slot in enumerate(device.slots):
            text = _wrong_with_slot(lab, name, slot, owners)
            if text:
                found.append(((*place, index), f"{key}: {text}"))
            owners.setdefault(slot, name)
    for name, location in lab.locations.items():
        owner = lab.devices.get(location.inside or "")
        if owner is not None and name not in owner.slots:
            found.append(
                (
                    ("locations", name, "inside"),
                    f"locations.{name}.inside: '{name}' is not among the slots of "
                    f"'{location.inside}'; add it to devices.{location.inside}.slots",
                )
            )
    return found


def _wrong_with_slot(
    lab: LabFile, device: str, slot: str, owners: dict[str, str]
) -> str:
    """Return what is wrong with a slot of a device, nothing if it is in order."""
    location = lab.locations.get(slot)
    if location is None:
        return f"unknown location '{slot}'; {nearest(slot, lab.locations)}"
    if slot in owners:
        return f"'{slot}' is a slot of '{owners[slot]}' already"
    if location.inside != device:
        given = "" if location.inside is None else f", not {location.inside}"
        return f"locations.{slot} should say inside: {device}{given}"
    return ""


def _check_containers(lab: LabFile) -> list[Fault]:
    found: list[Fault] = []
    occupied: dict[str, str] = {}
    for name, container in lab.containers.items():
        place = ("containers", name, "at")
        location = lab.locations.get(container.at)
        if location is None:
            hint = nearest(container.at, lab.locations)
            found.append(
                (
                    place,
                    f"containers.{name}.at: unknown location '{container.at}'; {hint}",
                )
            )
            continue
        if location.holds != container.kind:
            found.append(
                (
                    place,
                    f"containers.{name}.at: '{container.at}' holds a {location.holds}, "
                    f"not a {container.kind}",
                )
            )
        if container.at in occupied:
            found.append(
                (
                    place,
                    f"containers.{name}.at: '{container.at}' is taken by "
                    f"'{occupied[container.at]}'",
                )
            )
        occupied[container.at] = name
    return found


def _check_stock(lab: LabFile) -> list[Fault]:
    found: list[Fault] = []
    for name, stock in lab.stock.items():
        device = stock.at.partition(".")[0]
        if device not in lab.devices:
            hint = nearest(device, lab.devices)
            found.append(
                (
                    ("stock", name, "at"),
                    f"stock.{name}.at: unknown device '{device}'; {hint}",
                )
            )
    return found
