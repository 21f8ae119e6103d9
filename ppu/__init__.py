"""PPU: programming a laboratory like a processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppu._version import __version__

if TYPE_CHECKING:
    from ppu.cell.open_lab import open_lab

__all__ = ["__version__", "open_lab"]


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is used."""
    if name == "open_lab":
        from ppu.cell.open_lab import open_lab

        return open_lab
    raise AttributeError(f"module 'ppu' has no attribute {name!r}")
