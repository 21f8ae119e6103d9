"""``ppu cell``: own a lab's instruments and run the jobs of its queue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.exits import Exit
from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import (
    RESULTS,
    STORE,
    AttendedOption,
    MayHeatOption,
    PaceOption,
    ResultsOption,
    SeedOption,
    StoreOption,
    TargetName,
    TargetOption,
    UntilIdleOption,
    read_pace,
)
from ppu.core.errors import ConfigurationError
from ppu.core.notices import NoticeStream, tell
from ppu.core.stopping import on_stop_signal

if TYPE_CHECKING:
    from ppu.cell.cell import Cell


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        epilog="Example: ppu cell a-lab --target twin --store lab.sqlite --until-idle"
    )(cell)


def cell(
    lab: Annotated[str, typer.Argument(help="Lab name or lab file.")] = "a-lab",
    store: StoreOption = STORE,
    target: TargetOption = TargetName.TWIN,
    pace: PaceOption = None,
    seed: SeedOption = None,
    results: ResultsOption = RESULTS,
    until_idle: UntilIdleOption = False,
    may_heat: MayHeatOption = False,
    attended: AttendedOption = False,
) -> None:
    """Own a lab's instruments and run the jobs of its queue until SIGTERM.

    SIGTERM (or Ctrl-C) drains: no further step begins, what moves ends, a furnace
    keeps its program, and the next cell goes on from there.
    """
    from ppu.cell.bench_lock import handed_on
    from ppu.cell.cell import Cell
    from ppu.cell.heartbeat import GUARD_FD
    from ppu.cell.open_lab import open_lab
    from ppu.operations.description import describe, keep_description
    from ppu.store.store import Store

    set_up_logging(verbose=False)
    guard_fd = os.environ.pop(GUARD_FD, None)
    opened = open_lab(
        lab,
        target.value,
        pace=read_pace(pace),  # type: ignore[arg-type]  # read_pace returns "default" or a pace
        seed=seed,
        attended=attended or guard_fd is not None,
    )
    with (
        contextlib.redirect_stdout(NoticeStream()),
        opened.closing(),
        contextlib.ExitStack() as ends,
    ):
        opened.check_attended()
        opened.own_bench(handed_on())  # before anything is made or upgraded
        kept = ends.enter_context(Store(store))
        running = Cell(opened, kept, results, may_heat=may_heat, is_patient=True)
        with running.owning(), _draining(running), _guarded(running, guard_fd):
            # For doors that have neither the lab file nor a driver.
            described = describe(opened.file, opened.path, opened.devices)
            keep_description(kept, described)
            tell(f"cell of {opened.file.lab}: {kept.name} is open; Ctrl-C drains")
            with running.listening():
                running.run(until_idle=until_idle)
        tell("cell: ended; what was under way is kept, and goes on with the next one")
        if running.was_left_alone:  # a guard that was only late starts another cell
            raise typer.Exit(Exit.FAILED)


@contextlib.contextmanager
def _draining(running: Cell) -> Iterator[None]:
    """Let stop signals drain the cell; a second one ends it at once."""
    loop = running.lab.host.loop
    n_signals = 0

    def stop(number: signal.Signals) -> None:
        nonlocal n_signals
        n_signals += 1
        if n_signals == 1:
            tell(f"{number.name}: draining; once more to leave everything as it is")
            loop.call_soon_threadsafe(running.drain)
        else:
            loop.call_soon_threadsafe(running.leave)

    with on_stop_signal(stop):
        yield


@contextlib.contextmanager
def _guarded(running: Cell, guard_fd: str | None) -> Iterator[None]:
    """Exchange heartbeats with the guard, if there is one."""
    if guard_fd is None:
        yield
        return
    from ppu.cell.heartbeat import GUARD_FD

    try:
        end = socket.socket(fileno=int(guard_fd))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"{GUARD_FD}={guard_fd}: is no socket of a guard; start `ppu guard`"
        ) from exc
    with running.guarded_by(end):
        yield
