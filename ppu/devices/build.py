"""Makes the devices of a lab file, checking each entry against its driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from ppu.core.errors import ConfigurationError, nearest
from ppu.core.labfile import DeviceEntry, LabFile, lab_error
from ppu.core.registry import load_object
from ppu.core.validation import Fault, UnfitError, fill
from ppu.devices.classic import classic_driver, is_classic
from ppu.devices.instrument import Instrument, LabDevice, Reference

__all__ = ["build_devices", "check_devices", "driver_class", "places_of"]

_Made = list[tuple[str, type[LabDevice], BaseModel]]
"""Devices whose settings are in order: name, driver and settings."""

_FOUND_BY_REFERENCE: Final = ("Door", "GasFlow", "Gripper")
"""Capabilities that a plan finds through what the device names."""


def driver_class(name: str, entry: DeviceEntry) -> type[LabDevice]:
    """Return the driver class of a device.

    Raises:
        ConfigurationError: If there is no such class or it is no driver.
    """
    driver = load_object(entry.driver, f"devices.{name}.driver")
    if is_classic(driver):
        return classic_driver(driver)
    if not (isinstance(driver, type) and issubclass(driver, Instrument)):
        raise ConfigurationError(
            f"devices.{name}.driver: '{entry.driver}' is no driver (not a subclass of "
            "ppu.devices.Instrument, nor of classic ophyd's OphydObject)"
        )
    return driver


def build_devices(
    lab: LabFile,
    path: Path,
    connections: Mapping[str, Mapping[str, Any]] | None = None,
    only: tuple[str, ...] = (),
    *,
    is_excerpt: bool = False,
) -> dict[str, LabDevice]:
    """Return the devices of *lab*, not yet connected.

    Args:
        lab: The lab file.
        path: Where it was read from, for errors.
        connections: Connections to use instead of the lab file's ``hardware``.
        only: Names of the devices to make; by default all.
        is_excerpt: Whether *lab* is a part of a lab, so that what its settings name
            may be elsewhere.

    Raises:
        ConfigurationError: With every fault and its line.
    """
    devices: dict[str, LabDevice] = {}
    faults: list[Fault] = []
    made: _Made = []
    for name, entry in lab.devices.items():
        if only and name not in only:
            continue
        driver = driver_class(name, entry)
        hardware = entry.hardware if connections is None else connections[name]
        parts = [
            _fill(driver.settings_model, entry.settings, (name, "settings"), faults),
            _fill(driver.limits_model, entry.limits, (name, "limits"), faults),
        ]
        connection = _connect(driver, name, hardware, faults)
        _check_entry(driver, name, entry, faults)
        _check_consistency(driver, name, parts, faults)
        if parts[0] is not None:
            made.append((name, driver, parts[0]))
        if connection is None or None in parts or faults:
            continue
        make: Callable[..., LabDevice] = driver  # each driver has its own models
        devices[name] = make(name, entry, connection, *parts)
    if not is_excerpt:
        _check_references(lab, made, faults)
    if faults:
        raise lab_error(path, faults)
    return devices


def places_of(lab: LabFile, path: Path, only: tuple[str, ...] = ()) -> dict[str, str]:
    """Return where the instruments of *lab* are, and the device that is there.

    What is the same place is called the same, whatever the lab file calls it. Names of
    hosts are looked up, which may take a while.

    Args:
        lab: The lab file.
        path: Where it was read from, for errors.
        only: Names of the devices to look for; by default all.

    Raises:
        ConfigurationError: With every fault of a connection, and its line.
    """
    faults: list[Fault] = []
    found: dict[str, str] = {}
    for name, entry in lab.devices.items():
        if only and name not in only:
            continue
        connection = _connect(driver_class(name, entry), name, entry.hardware, faults)
        # A transport of another package that does not say is as it is written.
        written = f"{(entry.hardware or {}).get('transport')} {connection}"
        for place in getattr(connection, "places", (written,)):
            found.setdefault(place, name)
    if faults:
        raise lab_error(path, faults)
    return found


def check_devices(lab: LabFile, path: Path) -> None:
    """Check every device entry of *lab* against its driver; makes nothing.

    Raises:
        ConfigurationError: With every fault and its line.
    """
    faults: list[Fault] = []
    made: _Made = []
    for name, entry in lab.devices.items():
        try:
            driver = driver_class(name, entry)
        except ConfigurationError as exc:
            faults.append((("devices", name, "driver"), str(exc)))
            continue
        parts = [
            _fill(driver.settings_model, entry.settings, (name, "settings"), faults),
            _fill(driver.limits_model, entry.limits, (name, "limits"), faults),
        ]
        _check_consistency(driver, name, parts, faults)
        if parts[0] is not None:
            made.append((name, driver, parts[0]))
        _connect(driver, name, entry.hardware, faults)
        _check_entry(driver, name, entry, faults)
        if entry.simulator is not None:
            try:
                load_object(entry.simulator, f"devices.{name}.simulator")
            except ConfigurationError as exc:
                faults.append((("devices", name, "simulator"), str(exc)))
    _check_references(lab, made, faults)
    if faults:
        raise lab_error(path, faults)


def _check_consistency(
    driver: type[LabDevice],
    name: str,
    parts: list[BaseModel | None],
    faults: list[Fault],
) -> None:
    """Note what settings and limits contradict in each other."""
    settings, limits = parts
    if settings is not None and limits is not None:
        faults += [
            (("devices", name, "limits"), f"devices.{name}: {text}")
            for text in driver.inconsistencies(settings, limits)
        ]


def _check_references(lab: LabFile, made: _Made, faults: list[Fault]) -> None:
    """Note settings that lead nowhere, roles taken twice and what nobody can find."""
    takers: dict[tuple[str, str], str] = {}
    for name, driver, settings in made:
        references = driver.references(settings)
        if references and not lab.devices[name].provides:
            _check_findable(driver, name, faults)
        for reference in references:
            place = ("devices", name, "settings", *reference.place)
            wrong = _wrong_with(lab, reference)
            if not wrong and reference.sole_role is not None:
                role = (reference.sole_role, reference.value)
                taker = takers.setdefault(role, name)
                if taker != name:
                    wrong = (
                        f"'{reference.value}' has a {reference.sole_role} already, "
                        f"'{taker}'"
                    )
            if wrong:
                setting = ".".join(str(part) for part in place)
                faults.append((place, f"{setting}: {wrong}"))


def _check_findable(driver: type[LabDevice], name: str, faults: list[Fault]) -> None:
    """Note that a device provides nothing, if plans would find it by what it names."""
    unused = [
        capability
        for capability in _FOUND_BY_REFERENCE
        if not driver.missing_for(capability)
    ]
    if unused:
        faults.append(
            (
                ("devices", name, "provides"),
                f"devices.{name}.provides: provides nothing, so nobody will use it; "
                f"say provides: [{', '.join(unused)}]",
            )
        )


def _wrong_with(lab: LabFile, reference: Reference) -> str:
    """Return what is wrong with a reference, nothing if it leads somewhere."""
    value = reference.value
    if reference.names == "location":
        if value in lab.locations:
            return ""
        return f"unknown location '{value}'; {nearest(value, lab.locations)}"
    enclosures = {location.inside for location in lab.locations.values()}
    fit = [
        name
        for name, entry in lab.devices.items()
        if (reference.provides is None or reference.provides in entry.provides)
        and (reference.names == "device" or name in enclosures)
    ]
    if value in fit:
        return ""
    hint = nearest(value, fit)
    if value not in lab.devices:
        return f"unknown device '{value}'; {hint}"
    if reference.names == "enclosure" and value not in enclosures:
        return f"no location is inside '{value}'; {hint}"
    return f"'{value}' does not provide {reference.provides}; {hint}"


def _fill(
    model: type[BaseModel],
    values: Mapping[str, Any],
    place: tuple[str, ...],
    faults: list[Fault],
) -> BaseModel | None:
    """Return *values* as *model*, or None after noting every fault."""
    try:
        return fill(model, values, ("devices", *place))
    except UnfitError as exc:
        faults += exc.faults
        return None


def _connect(
    driver: type[LabDevice],
    name: str,
    hardware: Mapping[str, Any] | None,
    faults: list[Fault],
) -> BaseModel | None:
    """Return the connection that *hardware* describes, or None after noting faults."""
    place = (name, "hardware")
    models = {_transport_of(model): model for model in driver.connections}
    if hardware is None:
        faults.append(
            (
                ("devices", name),
                f"devices.{name}.hardware: is missing; say how to reach the "
                f"instrument ({', '.join(models)})",
            )
        )
        return None
    transport = hardware.get("transport")
    if transport not in models:
        given = f"'{transport}' given" if transport else "nothing given"
        hint = nearest(str(transport), models)
        faults.append(
            (
                ("devices", *place, "transport"),
                f"devices.{name}.hardware.transport: {given}; {hint}",
            )
        )
        return None
    return _fill(models[transport], hardware, place, faults)


def _transport_of(model: type[BaseModel]) -> str:
    """Return the value of a connection model's ``transport``."""
    annotation = model.model_fields["transport"].annotation
    return str(getattr(annotation, "__args__", ("?",))[0])


def _check_entry(
    driver: type[LabDevice], name: str, entry: DeviceEntry, faults: list[Fault]
) -> None:
    """Note what the entry promises and the driver cannot keep."""
    for key in ("on_abort", "on_orphan", "on_hold"):
        state = getattr(entry, key)
        if state is not None and state not in driver.abort_states:
            hint = nearest(state, driver.abort_states)
            faults.append(
                (
                    ("devices", name, key),
                    f"devices.{name}.{key}: '{state}' is no state of "
                    f"{driver.__name__}; {hint}",
                )
            )
    for capability in entry.provides:
        missing = driver.missing_for(capability)
        if missing:
            lacks = "" if missing == [capability] else f" (no {', '.join(missing)})"
            faults.append(
                (
                    ("devices", name, "provides"),
                    f"devices.{name}.provides: {driver.__name__} does not provide "
                    f"{capability}{lacks}",
                )
            )
