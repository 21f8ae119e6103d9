"""``ppu guard``: keep a cell running, and see to the instruments when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ppu.cli.exits import Exit
from ppu.cli.log_lines import set_up_logging
from ppu.cli.options import (
    RESULTS,
    STORE,
    MayHeatOption,
    ResultsOption,
    StoreOption,
    TargetName,
    UntilIdleOption,
    read_pace,
)
from ppu.core.errors import ConfigurationError
from ppu.core.notices import tell
from ppu.core.numbers import integer_option
from ppu.core.stopping import on_stop_signal

if TYPE_CHECKING:
    from ppu.cell.guard import Guard


def attach(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(epilog="Example: ppu guard /etc/ppu/lab.yaml --store /data/lab.sqlite")(
        guard
    )


def guard(
    lab: Annotated[str, typer.Argument(help="Lab name or lab file.")],
    store: StoreOption = STORE,
    target: Annotated[
        TargetName, typer.Option(help="A twin dies with its cell: hardware only.")
    ] = TargetName.HARDWARE,
    pace: Annotated[
        str | None,
        typer.Option(help="Lab seconds per wall second, of a simulated bench."),
    ] = None,
    results: ResultsOption = RESULTS,
    until_idle: UntilIdleOption = False,
    may_heat: MayHeatOption = False,
    early_ends: Annotated[
        int,
        typer.Option(
            parser=integer_option(1),
            help="How many cells may end within a minute of their start, in ten "
            "minutes, before no other one is started.",
        ),
    ] = 3,
) -> None:
    """Start a cell, and another one whenever it dies, until SIGTERM.

    When the cell dies or is silent for 3 s, the guard ends it, brings every instrument
    to its orphan state and starts a new cell, which goes on with the jobs. SIGTERM (or
    Ctrl-C) lets the cell drain; a second one lets it end at once.
    """
    from ppu.cell.guard import Guard
    from ppu.cell.orphans import Orphans
    from ppu.cell.pace import make_loop
    from ppu.cell.predecessor import watching
    from ppu.core.labfile import load_lab
    from ppu.core.registry import find_lab

    set_up_logging(verbose=False)
    if target is not TargetName.HARDWARE:
        raise ConfigurationError(
            "--target twin: its instruments live in the cell and die with it; say "
            "`ppu cell`, or `ppu sim --write-lab` for a bench that outlives it"
        )
    path = find_lab(lab)
    file = load_lab(path)
    people = [
        name
        for name, entry in file.devices.items()
        if (entry.hardware or {}).get("transport") == "terminal"
    ]
    if people:
        raise ConfigurationError(
            f"{', '.join(people)}: a cell with a guard has no terminal at which a "
            "person could answer; say `ppu cell --attended` there"
        )
    orphans = Orphans(file, path)
    # -P: what lies in the working directory is no part of PPU.
    command = [sys.executable, "-P", "-m", "ppu", "cell", lab]
    command += ["--target", target.value, "--store", store, "--results", str(results)]
    command += [] if pace is None else ["--pace", pace]
    command += ["--until-idle"] if until_idle else []
    command += ["--may-heat"] if may_heat else []
    loop = make_loop(
        file,
        "hardware",
        read_pace(pace),  # type: ignore[arg-type]  # "default" or a pace
    )
    tell(f"guard: this is process {os.getpid()}; Ctrl-C lets the cell drain")
    with watching(store), asyncio.Runner(loop_factory=lambda: loop) as runner:
        watch = Guard(orphans, command, store, most_early_ends=early_ends)
        is_well = runner.run(_watch(watch))
    if not is_well:
        raise typer.Exit(Exit.FAILED)


async def _watch(watching: Guard) -> bool:
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        tell(f"guard: {number.name}: passed on to the cell")
        loop.call_soon_threadsafe(watching.stop)

    with on_stop_signal(stop):
        return await watching.run()
