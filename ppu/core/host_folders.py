"""Folders of this computer that all its programs must find, named by variables."""

from __future__ import annotations

import os
from pathlib import Path

from ppu.core.errors import ConfigurationError
from ppu.core.names import shown

__all__ = ["named_folder"]


def named_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, if it names one.

    Raises:
        ConfigurationError: If that is another folder wherever a program is started.
    """
    named = os.environ.get(variable)
    if not named:
        return None
    if not Path(named).is_absolute():
        raise ConfigurationError(
            f"{variable}={shown(named)}: give a path that begins with /; programs that "
            "are started in two folders would look in two places"
        )
    return Path(named)
