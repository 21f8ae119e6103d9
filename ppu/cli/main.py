"""The app that all commands hang on, and how it is run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from ppu._version import __version__
from ppu.cli.exits import EXIT_MEANINGS, Exit, code_of
from ppu.cli.remedies import worded
from ppu.core.errors import PPUError
from ppu.core.installation import shadowing
from ppu.core.notices import SeenStream, tell, word_advice_with
from ppu.core.registry import load_object, plug_ins

_HOMES: Final[Mapping[str, str]] = {
    "abort": "queue",
    "cancel": "queue",
    "cell": "cell",
    "device": "device",
    "drain": "queue",
    "fault": "fault",
    "guard": "guard",
    "hold": "queue",
    "instruments": "instruments",
    "job": "job",
    "jobs": "queue",
    "lab": "lab",
    "new": "new",
    "person": "person",
    "protocols": "protocols",
    "read": "read",
    "record": "record",
    "recover": "recover",
    "resume": "queue",
    "retry": "queue",
    "run": "run",
    "samples": "samples",
    "sim": "sim",
    "stock": "stock",
    "store": "store",
    "submit": "submit",
    "truth": "truth",
}
"""Commands of PPU's own, and the modules that bring them."""


_USAGE_ERROR: Final[Any] = typer.BadParameter.__mro__[1]
"""What typer raises for words that no command has; it has no public name."""


class PluggableGroup(TyperGroup):
    """A group that also has the commands other packages bring.

    Only the command that is asked for is loaded: all of them take longer than most of
    them run.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return own commands and those of entry points."""
        external = [point.name for point in plug_ins("ppu.commands")]
        return sorted({*super().list_commands(ctx), *_HOMES, *external})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return an own command, else load the package that brings it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in _HOMES:
            home = typer.Typer(rich_markup_mode=None)
            _attach(_HOMES[cmd_name], home)
            return typer.main.get_group(home).commands[cmd_name]
        for point in plug_ins("ppu.commands"):
            if point.name == cmd_name:
                return typer.main.get_command(point.load())
        return None


def _attach(module: str, to: typer.Typer) -> None:
    """Add the commands of a module of this package."""
    load_object(f"ppu.cli.{module}:attach", "ppu")(to)


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


def run_app(stopwatch: Callable[[], float]) -> int:
    """Run the command line and return its exit code."""
    word_advice_with(worded)
    if not hasattr(sys.stdout, "write"):  # None if it was closed from the start
        tell("error: standard output is closed")
        return Exit.FAILED
    try:
        # What instruments, stores and people call things must not act on a terminal.
        with (
            contextlib.redirect_stdout(SeenStream(sys.stdout)),
            contextlib.redirect_stderr(SeenStream(sys.stderr)),
        ):
            if (stale := shadowing()) is not None:
                tell(f"notice: {stale}")
            command = typer.main.get_command(app)
            code = run_command(command, sys.argv[1:], prog_name="ppu", obj=stopwatch)
            sys.stdout.flush()
    except OSError as exc:
        # Somebody closed the pipe (`ppu ... | head`): there is nobody to tell.
        if not isinstance(exc, BrokenPipeError):
            tell(f"error: standard output: {exc.strerror}")
        _drop_output()
        return Exit.FAILED
    return code


def run_command(command: Any, arguments: Sequence[str], **more: Any) -> int:
    """Run the command that *arguments* name; tell what is wrong, return its exit code.

    Args:
        command: What :func:`typer.main.get_command` made.
        arguments: What was typed after ``ppu``.
        more: For the command's context.
    """
    try:
        code = command.main(list(arguments), standalone_mode=False, **more)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else Exit.DONE
    except _USAGE_ERROR as exc:
        code = Exit.WRONG_INPUT
        if type(exc).__name__ == "NoArgsIsHelpError":
            exc.show()
        else:
            # Pydantic's words for a parser that refuses.
            text = " ".join(exc.format_message().split())
            text = text.replace("Value error, ", "")
            path = exc.ctx.command_path if exc.ctx is not None else "ppu"
            tell(f"error: {text.rstrip('.')}; see `{path} --help`")
    except PPUError as exc:
        tell(f"error: {exc}", *exc.advice)
        code = code_of(exc)
    # typer makes 1 of a broken pipe; no command of PPU's own ends with 1.
    return Exit.FAILED if code == 1 else int(code or Exit.DONE)


def _drop_output() -> None:
    """Let Python's last flush succeed, or it would complain once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
