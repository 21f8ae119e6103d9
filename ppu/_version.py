"""The version of PPU, read by the build."""

__version__ = "0.1.0"
