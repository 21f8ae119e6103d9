"""The app that all commands hang on, and what errors become."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from ppu._version import __version__
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    InterlockError,
    LimitError,
    PPUError,
    TransportError,
)
from ppu.core.registry import plug_ins


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    WRONG_INPUT = 2
    REFUSED = 3
    FAILED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


class PluggableGroup(TyperGroup):
    """A group that also has the commands other packages bring."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return own commands and those of entry points."""
        external = [point.name for point in plug_ins("ppu.commands")]
        return sorted({*super().list_commands(ctx), *external})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return an own command, else load the package that brings it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for point in plug_ins("ppu.commands"):
            if point.name == cmd_name:
                return typer.main.get_command(point.load())
        return None


app = typer.Typer(
    name="ppu",
    cls=PluggableGroup,
    help="PPU: programming a laboratory like a processor.",
    epilog="Try: ppu run solid_state_synthesis --seed 7",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

elapsed: Callable[[], float] = float
"""Wall time since the command began [s]."""


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ppu {__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show version."
    ),
) -> None:
    """PPU: programming a laboratory like a processor."""


def code_of(exc: PPUError, *, has_started: bool = False) -> Exit:
    """Return the exit code for *exc*."""
    if isinstance(exc, AbortedError):
        return Exit.INTERRUPTED
    if has_started:
        return Exit.FAILED
    if isinstance(exc, ConfigurationError):
        return Exit.WRONG_INPUT
    if isinstance(exc, LimitError | InterlockError):
        return Exit.REFUSED
    if isinstance(exc, TransportError):
        return Exit.UNREACHABLE
    return Exit.FAILED


def set_up_logging(*, verbose: bool) -> None:
    """Send PPU's log lines to standard error; --verbose shows each wire exchange."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (
        ("ppu.link", logging.WARNING),
        ("ppu.wire", logging.DEBUG if verbose else logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Their own accounts of failures; ours name the device and what to do.
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class Interrupted(BaseException):
    """Somebody pressed Ctrl-C; typer would turn KeyboardInterrupt into exit code 1."""


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number, frame)


def run_app(stopwatch: Callable[[], float]) -> None:
    """Run the command line and exit with its code."""
    global elapsed  # noqa: PLW0603 - set once, before any command runs
    elapsed = stopwatch
    from ppu.cli import lab, protocols, read, run, sim

    for module in (run, protocols, lab, sim, read):
        module.attach(app)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except Interrupted:
        sys.stderr.write("interrupted\n")
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Somebody closed the pipe (`ppu ... | head`); there is nobody to tell.
        sys.stderr.close()
        sys.exit(Exit.FAILED)
    except PPUError as exc:
        sys.stderr.write(f"error: {exc}\n")
        sys.exit(code_of(exc))
