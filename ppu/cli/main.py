"""The app that all commands hang on, and what errors become."""

from __future__ import annotations

import logging
import os
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
    TakenOverError,
    TransportError,
)
from ppu.core.notices import tell
from ppu.core.registry import plug_ins
from ppu.core.stopping import INTERRUPTED_CODE, TAKEN_OVER_CODE


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    WRONG_INPUT = 2
    REFUSED = 3
    FAILED = 4
    UNREACHABLE = 5
    TAKEN_OVER = TAKEN_OVER_CODE
    INTERRUPTED = INTERRUPTED_CODE


EXIT_MEANINGS = {
    Exit.DONE: "done, and all is well",
    Exit.WRONG_INPUT: "wrong input: correct the command line or a file",
    Exit.REFUSED: "refused: a limit, the stock or an interlock forbids it",
    Exit.FAILED: "failed: a run, a job, a check or a store; the message says what",
    Exit.UNREACHABLE: "an instrument could not be reached",
    Exit.TAKEN_OVER: "another cell owns the lab by now",
    Exit.INTERRUPTED: "stopped by a person or a signal",
}
"""What the codes mean; `docs/reference/exit-codes.md` says the same."""


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
    epilog="Try: ppu run solid_state_synthesis --seed 7\n\n\b\nExit codes:\n"
    + "\n".join(f"  {code:<5}{text}" for code, text in EXIT_MEANINGS.items()),
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
    if isinstance(exc, TakenOverError):
        return Exit.TAKEN_OVER
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


def attach_all(to: typer.Typer) -> None:
    """Add every command of PPU's own."""
    from ppu.cli import (
        cell,
        fault,
        guard,
        instruments,
        job,
        lab,
        new,
        protocols,
        queue,
        read,
        record,
        recover,
        run,
        samples,
        sim,
        stock,
        store,
        submit,
        truth,
    )

    running = (
        run,
        cell,
        guard,
        protocols,
        lab,
        instruments,
        sim,
        stock,
        fault,
        truth,
        read,
        record,
        new,
    )
    queueing = (submit, queue, job, recover, samples, stock, store)
    for module in (*running, *queueing):
        module.attach(to)


def run_app(stopwatch: Callable[[], float]) -> int:
    """Run the command line and return its exit code."""
    global elapsed  # noqa: PLW0603 - set once, before any command runs
    elapsed = stopwatch
    attach_all(app)
    if not hasattr(sys.stdout, "write"):  # None if it was closed from the start
        tell("error: standard output is closed")
        return Exit.FAILED
    try:
        code = _run_command()
        sys.stdout.flush()
    except OSError as exc:
        # Somebody closed the pipe (`ppu ... | head`): there is nobody to tell.
        if not isinstance(exc, BrokenPipeError):
            tell(f"error: standard output: {exc.strerror}")
        _drop_output()
        return Exit.FAILED
    return code


def _run_command() -> int:
    """Run the command that the arguments name; return its exit code."""
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else Exit.DONE
        # typer makes 1 of a broken pipe; no command of PPU's own ends with 1.
        return Exit.FAILED if code == 1 else code
    except PPUError as exc:
        tell(f"error: {exc}")
        return code_of(exc)
    return Exit.DONE


def _drop_output() -> None:
    """Let Python's last flush succeed, or it would complain once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
