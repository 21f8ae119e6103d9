"""Descriptions of labs: all that is known of one without its instruments.

One is made from a lab file and the driver classes that it names, and kept in the store
under the digest of the file. Whoever checks a job or shows a lab works from it and
loads no driver.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from ppu._version import __version__
from ppu.core.errors import ConfigurationError, NotFoundError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.registry import find_lab, load_class
from ppu.core.specifications import Specification
from ppu.operations.access import stamp_of
from ppu.plans.lab import Lab
from ppu.store.cells import lab_of
from ppu.store.schema import descriptions
from ppu.store.store import Store

if TYPE_CHECKING:
    from ppu.devices.instrument import LabDevice

__all__ = [
    "DeviceDescription",
    "LabDescription",
    "describe",
    "describe_lab",
    "keep_description",
    "kept_description",
]

_SCHEMA_VERSION: Final = 1


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceDescription(_Data):
    """A device, without its instrument.

    Attributes:
        driver: Driver class, as package.module:Class.
        provides: Its capabilities.
        slots: Its locations.
        heats: Whether it can make something dangerously hot.
        is_classic: Whether it is one of classic ophyd, which cannot judge unconnected.
        judge: Class of its specification, as package.module:Class; None if only the
            driver can judge what is asked of it.
        specification: What that class is made of.
    """

    driver: str
    provides: tuple[str, ...]
    slots: tuple[str, ...]
    heats: bool
    is_classic: bool
    judge: str | None
    specification: dict[str, Any]


class LabDescription(_Data):
    """A lab, without its instruments.

    Attributes:
        digest: Digest of the lab file, as 64 hexadecimal digits.
        path: Where that was.
        made_of: The files that this was made of, each with when it was changed
            [ns] and its size.
        file: The lab file, without how instruments are reached and simulated.
        devices: Its devices by name.
    """

    schema_version: int = _SCHEMA_VERSION
    digest: str
    path: str
    made_of: dict[str, tuple[int, int]]
    file: LabFile
    devices: dict[str, DeviceDescription]

    @property
    def can_check(self) -> bool:
        """Whether jobs can be checked before they begin.

        Classic ophyd devices open their channels when they are made, so a lab that has
        some checks its jobs when they begin.
        """
        return not any(device.is_classic for device in self.devices.values())

    def view(self) -> Lab:
        """Return the lab as a protocol's check sees it, with a ledger of its own.

        What others have moved or claimed changes until a job runs.
        """
        return Lab(self.file, self._judges)

    @cached_property
    def _judges(self) -> _Judges:
        return _Judges(self)


class _Judges(Mapping[str, Any]):
    """Devices by name: their specifications, or the devices if there is none.

    Args:
        description: The lab.
    """

    def __init__(self, description: LabDescription) -> None:
        self._description = description
        self._found = dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Any:
        device = self._description.devices[name]
        if device.judge is None:
            return _built(self._description.path, self._description.digest)[
                name
            ].plan_device
        return _judge(device.judge).model_validate(device.specification)

    def __contains__(self, name: object) -> bool:
        return name in self._description.devices

    def __iter__(self) -> Iterator[str]:
        return iter(self._description.devices)

    def __len__(self) -> int:
        return len(self._description.devices)


def _judge(reference: str) -> type[Specification]:
    found = load_class(reference, "specification")
    if not issubclass(found, Specification):
        raise ConfigurationError(f"{reference} is no specification of a device")
    return found


def _built(path: str, digest: str) -> Mapping[str, LabDevice]:
    """Return the devices of the lab file that a description was made of.

    Raises:
        ConfigurationError: If that is not there any more.
    """
    from ppu.devices.build import build_devices  # noqa: PLC0415 - loads Bluesky

    if digest_of(Path(path)) != digest:
        raise ConfigurationError(
            f"{path} is not the lab file any more that its description was made of"
        )
    return build_devices(load_lab(Path(path)), Path(path))


def digest_of(path: Path) -> str:
    """Return what tells a lab file from every other one, as 64 hexadecimal digits.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc


# -- making ------------------------------------------------------------------------


def describe(
    file: LabFile, path: Path, devices: Mapping[str, LabDevice] | None = None
) -> LabDescription:
    """Return the description of a lab, made from its file and its driver classes.

    Args:
        file: The lab file.
        path: Where it was read from.
        devices: Its devices, connected or not; by default they are made for this.

    Raises:
        ConfigurationError: If an entry does not fit its driver.
    """
    from ppu.devices.build import build_devices, driver_class  # noqa: PLC0415 - as above
    from ppu.devices.classic import ClassicInstrument  # noqa: PLC0415 - as above

    drivers = {name: driver_class(name, e) for name, e in file.devices.items()}
    classic = {n for n, one in drivers.items() if issubclass(one, ClassicInstrument)}
    if devices is None:  # classic ones would connect
        devices = {} if classic else build_devices(file, path)
    found = {}
    for name, entry in file.devices.items():
        device = devices.get(name)
        judge = None if device is None else device.specification
        found[name] = DeviceDescription(
            driver=entry.driver,
            provides=entry.provides,
            slots=entry.slots,
            heats=drivers[name].heats,
            is_classic=name in classic,
            judge=None if judge is None else _reference(type(judge)),
            specification={} if judge is None else judge.model_dump(mode="json"),
        )
    judges = [type(one.specification) for one in devices.values() if one.specification]
    return LabDescription(
        digest=_digest(path, file),
        path=str(path.resolve()),
        made_of=_stats([path, *_sources({*drivers.values(), *judges})]),
        file=_without_wires(file),
        devices=found,
    )


def _digest(path: Path, file: LabFile) -> str:
    """Return the digest of the lab file, or of what it said if it is not there."""
    if path.is_file():
        return digest_of(path)
    return hashlib.sha256(file.model_dump_json().encode()).hexdigest()


def _reference(judge: type) -> str:
    return f"{judge.__module__}:{judge.__qualname__}"


def _sources(made_by: set[type]) -> list[Path]:
    """Return the files of classes, and of what stands beside each in its package."""
    names = {one.__module__ for one in made_by}
    packages = {name.rpartition(".")[0] for name in names if name.count(".") > 1}
    beside = {name for name in sys.modules if name.rpartition(".")[0] in packages}
    files = (sys.modules[name].__file__ for name in sorted(names | beside))
    return [Path(file) for file in files if file is not None]


def _stats(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """Return when files were changed [ns] and how large they are."""
    return {
        str(path.resolve()): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in paths
        if path.is_file()
    }


def _without_wires(file: LabFile) -> LabFile:
    """Return a lab file without how its instruments are reached and simulated."""
    devices = {
        name: entry.model_copy(update={"hardware": None, "twin": {}})
        for name, entry in file.devices.items()
    }
    return file.model_copy(update={"devices": devices, "simulated_bench": None})


# -- keeping -----------------------------------------------------------------------


def describe_lab(lab: str, store: Store | None = None) -> LabDescription:
    """Return the description of a lab, which is made once as long as nothing changes.

    Args:
        lab: A lab file, or the name of a bundled lab.
        store: Where it is kept.

    Raises:
        NotFoundError: If there is no such lab.
        ConfigurationError: If its file is wrong.
    """
    path = find_lab(lab)
    digest = digest_of(path)
    if store is not None:
        kept = _read(store, digest)
        if kept is not None and _is_fresh(kept):
            return kept
    made = describe(load_lab(path), path)
    if store is not None:
        keep_description(store, made)
    return made


def keep_description(store: Store, description: LabDescription) -> None:
    """Keep what is known of a lab, as the newest of its descriptions."""
    row = {
        "digest": description.digest,
        "lab": description.file.lab,
        "content": _Kept(ppu=__version__, description=description).model_dump_json(),
    }

    def work(connection: Any) -> None:
        is_it = descriptions.c.digest == description.digest
        connection.execute(descriptions.delete().where(is_it))
        now = stamp_of(connection)
        connection.execute(descriptions.insert(), {**row, "described": now})

    store.write(work)


def kept_description(store: Store) -> LabDescription:
    """Return the newest description of the lab that a store is of.

    It is for doors that have no lab file: the cell keeps one when it opens its lab.

    Raises:
        NotFoundError: If there is none yet, or only one of another PPU.
    """
    with store.read() as connection:
        query = select(descriptions.c.digest).order_by(descriptions.c.described.desc())
        name = lab_of(connection)
        if name is not None:
            query = query.where(descriptions.c.lab == name)
        digest = connection.execute(query.limit(1)).scalar()
    kept = None if digest is None else _read(store, digest)
    if kept is None:
        raise NotFoundError(
            f"store {store.name}: no description of its lab is kept yet; a cell keeps "
            "one when it opens its lab"
        )
    return kept


class _Kept(BaseModel):
    """A description as it is kept; that of another PPU is made anew."""

    ppu: str
    description: LabDescription


def _read(store: Store, digest: str) -> LabDescription | None:
    """Return a description that is kept, if this PPU understands it."""
    query = select(descriptions.c.content).where(descriptions.c.digest == digest)
    with store.read() as connection:
        content = connection.execute(query).scalar()
    if content is None:
        return None
    try:
        kept = _Kept.model_validate_json(content)
    except ValidationError:
        return None
    return kept.description if kept.ppu == __version__ else None


def _is_fresh(kept: LabDescription) -> bool:
    """Return whether nothing has changed that a description was made of."""
    return _stats([Path(path) for path in kept.made_of]) == kept.made_of
