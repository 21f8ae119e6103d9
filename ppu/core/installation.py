"""Notices when another distribution owns the files of this one."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Final

__all__ = ["DISTRIBUTION", "shadowing"]

DISTRIBUTION: Final = "ppu-lab"
"""What this is called where packages are installed from; its packages are ``ppu``."""
_FORMER: Final = "ppu"
"""What it was called before, and what is somebody else's on PyPI."""


def shadowing() -> str | None:
    """Return what to do about an installed distribution ``ppu``; None without one.

    It may be ours from before the name changed or a stranger's: in either case the last
    that was installed has its files in place of the other's, and who removes one takes
    files from the other.
    """
    try:
        found = distribution(_FORMER)
    except PackageNotFoundError:
        return None
    whose = "an earlier PPU" if _is_ours(found) else "another project"
    return (
        f"the distribution '{_FORMER}' {found.version} of {whose} is installed beside "
        f"'{DISTRIBUTION}', and both have files in the package 'ppu'. Say `pip "
        f"uninstall {_FORMER}`, which takes shared files with it, and then `pip "
        f"install --force-reinstall --no-deps {DISTRIBUTION}` (in a checkout, `-e .` "
        "for the name)"
    )


def _is_ours(found: Distribution) -> bool:
    """Return whether a distribution brings what PPU finds its own parts by."""
    return any(point.group == "ppu.protocols" for point in found.entry_points)
