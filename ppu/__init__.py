"""PPU: programming a laboratory like a processor."""

from ppu._version import __version__

__all__ = ["__version__"]
