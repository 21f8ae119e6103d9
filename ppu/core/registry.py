"""What PPU finds without importing it: plug-ins by entry point or by name."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ppu.core.errors import ConfigurationError, NotFoundError, nearest

__all__ = ["bundled_labs", "find_lab", "load_class", "load_object", "plug_ins"]


def load_object(reference: str, where: str) -> Any:
    """Return the object that ``package.module:Name`` names.

    Args:
        reference: Module and attribute, joined by a colon.
        where: What asked for it, for the error.

    Raises:
        ConfigurationError: If there is no such module or attribute.
    """
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        raise ConfigurationError(
            f"{where}: '{reference}' should look like 'package.module:Class'"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"{where}: cannot import '{module_name}': {exc}; is its package installed?"
        ) from exc
    try:
        return getattr(module, attribute)
    except AttributeError as exc:
        classes = [
            name for name, item in vars(module).items() if isinstance(item, type)
        ]
        raise ConfigurationError(
            f"{where}: '{module_name}' has no '{attribute}'; "
            f"{nearest(attribute, classes)}"
        ) from exc


def load_class(reference: str, where: str) -> type[Any]:
    """Return the class that ``package.module:Class`` names.

    Raises:
        ConfigurationError: If there is none, or it is no class.
    """
    found = load_object(reference, where)
    if not isinstance(found, type):
        raise ConfigurationError(f"{where}: '{reference}' is no class")
    return found


@cache
def plug_ins(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of *group*, sorted by name."""
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))


@cache
def bundled_labs() -> dict[str, Path]:
    """Return the lab files that installed packages bring, by lab name."""
    labs: dict[str, Path] = {}
    for point in plug_ins("ppu.labs"):
        for resource in files(point.value).iterdir():
            if resource.name.endswith(".yaml"):
                with as_file(resource) as path:
                    labs[path.stem] = path
    return labs


def find_lab(lab: str) -> Path:
    """Return the lab file that *lab* names: a path, or a bundled lab.

    Raises:
        ConfigurationError: If there is neither.
    """
    path = Path(lab)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise NotFoundError(f"there is no lab file '{lab}'")
        return path
    labs = bundled_labs()
    if lab not in labs:
        raise NotFoundError(
            f"there is no lab '{lab}': neither a file nor a bundled lab; "
            f"{nearest(lab, labs)}"
        )
    return labs[lab]
