"""Options that several commands have; what each means is said once."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Final

import typer

from ppu.core.errors import ConfigurationError
from ppu.core.names import unseen
from ppu.core.numbers import (
    NotPlainError,
    integer_option,
    read_integer,
    read_number,
)

__all__ = [
    "RESULTS",
    "STORE",
    "AttendedOption",
    "JsonOption",
    "LabOption",
    "MayHeatOption",
    "PaceOption",
    "ParamsOption",
    "ResultsOption",
    "SeedOption",
    "SetOption",
    "StoreOption",
    "TargetName",
    "TargetOption",
    "UntilIdleOption",
    "VerboseOption",
    "path_option",
    "read_pace",
    "read_port",
    "text_option",
]

STORE: Final = "ppu.sqlite"
"""Where the store is if nobody says otherwise."""
RESULTS: Final = Path("results")
"""Where jobs leave what they found if nobody says otherwise."""


class TargetName(enum.StrEnum):
    """Where a protocol runs."""

    TWIN = "twin"
    HARDWARE = "hardware"


def text_option(text: str) -> str:
    """Return a text that can be shown.

    Raises:
        ValueError: If a character of it cannot be seen.
    """
    if hidden := unseen(str(text)):
        raise ValueError(f"has {hidden}, which cannot be seen; leave it away")
    return str(text)


def path_option(text: str) -> Path:
    """Return the path of something to be written; as :func:`text_option`."""
    return Path(text_option(text))


LabOption = Annotated[str, typer.Option(help="Lab name or lab file.")]
ParamsOption = Annotated[
    Path | None, typer.Option(help="YAML or JSON file of parameters.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One parameter, key=value; may be repeated."),
]
TargetOption = Annotated[
    TargetName, typer.Option(help="Simulated or real instruments.")
]
PaceOption = Annotated[
    str | None, typer.Option(help="jump, or lab seconds per wall second (twin: jump).")
]
SeedOption = Annotated[
    int | None, typer.Option(parser=integer_option(0), help="Seed of the twin.")
]
AttendedOption = Annotated[
    bool,
    typer.Option("--attended", help="Somebody stays beside the hardware that heats."),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Print each wire exchange.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PPU_STORE",
        parser=text_option,
        help="Path of an SQLite file, or database URL.",
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        parser=path_option, help="Directory in which each job gets one of its own."
    ),
]
UntilIdleOption = Annotated[
    bool, typer.Option("--until-idle", help="End when no job is left that can run.")
]
MayHeatOption = Annotated[
    bool,
    typer.Option(
        "--may-heat", help="Heat furnaces after a crash without asking a person first."
    ),
]


def read_pace(text: str | None) -> float | str | None:
    """Return the pace that *text* means: None to jump, "default" if not given.

    Raises:
        ConfigurationError: If it is neither ``jump`` nor a positive number.
    """
    if text is None:
        return "default"
    if text == "jump":
        return None
    allowed = "should be 'jump' or a number above 0 and below 1000000"
    try:
        pace = read_number(text)
    except NotPlainError as exc:
        raise ConfigurationError(f"--pace {text}: {allowed}: it {exc}") from None
    if not 0 < pace < 1e6:
        raise ConfigurationError(f"--pace {text}: {allowed}")
    return pace


def read_port(text: str) -> int | None:
    """Return the port that *text* names, None if it names none."""
    try:
        port = read_integer(text)
    except NotPlainError:
        return None
    return port if 0 < port < 65536 else None
