"""Make 24 samples at once on two furnaces of eight slots, one arm and one of the rest.

Compares the time per sample with that of a single one, by wall clock and by lab time,
and prints who did what when. Whatever the cell believes at the end of any step must be
so in the world.

Run by `make campaign-lanes`; CI runs 6 samples on furnaces of 2 slots.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from large_lab import write_large_lab
from pages import replace_section
from ppu.cell.cell import Cell
from ppu.cell.lab import OpenLab
from ppu.cell.open_lab import open_lab
from ppu.core.labtime import stopwatch
from ppu.exports.gantt import Bar, gantt
from ppu.store.jobs import JobRequest, JobState
from ppu.store.queue import find, submit_many
from ppu.store.steps import steps_of
from ppu.store.store import Store

HEADING = "## Many samples at once"
MOST_OF_ONE_ALONE = 0.5


@dataclass
class Figures:
    """What a run of some samples took."""

    n_samples: int
    wall_s: float
    lab_s: float
    n_incidents: int
    n_compared: int
    lies: list[str]
    faults: list[str]
    chart: str


def main() -> int:
    """Run the campaign; return 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--slots", type=int, default=8, help="of each furnace")
    parser.add_argument("--page", type=Path, help="page of figures to write to")
    options = parser.parse_args()
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        lab = write_large_lab(
            Path(folder) / "large.yaml", options.samples, options.slots
        )
        alone = make(lab, Path(folder) / "alone", 1)
        together = make(lab, Path(folder) / "together", options.samples)
    wall = together.wall_s / together.n_samples / alone.wall_s
    lab_time = together.lab_s / together.n_samples / alone.lab_s
    text = (
        f"{together.n_samples} syntheses on 2 furnaces of {options.slots} slots: "
        f"{together.n_incidents} incidents, belief equal to truth at "
        f"{together.n_compared} ends of steps with {len(together.lies)} exceptions; "
        f"{together.wall_s:.1f} s of wall and {together.lab_s / 3600:.1f} h of lab "
        f"time, alone {alone.wall_s:.1f} s and {alone.lab_s / 3600:.1f} h: one takes "
        f"{wall:.2f} of the wall time and {lab_time:.2f} of the lab time of one alone "
        f"(at most {MOST_OF_ONE_ALONE:g})"
    )
    sys.stdout.write(f"{together.chart}\n\n{text}\n")
    wrong = [*together.lies, *together.faults, *alone.lies, *alone.faults]
    for line in wrong:
        sys.stdout.write(f"WRONG: {line}\n")
    if options.page is not None:
        chart = f"```\n{together.chart}\n```"
        body = f"{HEADING}\n\n`make campaign-lanes`: {text}.\n\n{chart}\n"
        replace_section(options.page, HEADING, body)
    is_slow = lab_time > MOST_OF_ONE_ALONE or wall > MOST_OF_ONE_ALONE
    return int(bool(wrong) or together.n_incidents > 0 or is_slow)


def make(lab_file: Path, folder: Path, n_samples: int) -> Figures:
    """Make samples of one recipe in a lab of their own."""
    folder.mkdir()
    elapsed = stopwatch()
    lab = open_lab(str(lab_file))
    lies: list[str] = []
    compared: list[int] = [0]
    with lab.closing(), Store(folder / "store.sqlite") as store:
        loop = lab.host.loop
        wanted = [JobRequest("solid_state_synthesis", "1", {})] * n_samples
        submitting = partial(submit_many, wanted=wanted, now=loop.stamp())
        ids = store.write(submitting)
        cell = Cell(lab, store, folder / "results")
        watch(lab, lies, compared)
        with cell.owning():
            cell.run(until_idle=True)
        wall_s = elapsed()
        faults = store.check()
        rows: dict[str, list[Bar]] = {}
        with store.read() as connection:
            for job in sorted(find(connection, limit=10**6), key=lambda job: job.id):
                if job.state is not JobState.SUCCEEDED:
                    faults.append(f"job {job.id} {job.state}: {job.reason_text}")
                rows[f"job {job.id}"] = [
                    Bar(step.name.replace("_", " "), step.begun, step.ended or 0.0)
                    for step in steps_of(connection, job.id)
                    if "." not in step.path
                ]
        bench: Any = lab.bench
        if len(ids) != n_samples:
            faults.append(f"{len(ids)} of {n_samples} jobs were submitted")
        return Figures(
            n_samples,
            wall_s,
            loop.time(),
            len(bench.world.incidents),
            compared[0],
            lies,
            faults,
            gantt(rows),
        )


def watch(lab: OpenLab, lies: list[str], compared: list[int]) -> None:
    """Compare belief and truth whenever the cell notes that something moved."""
    bench: Any = lab.bench
    enter = lab.ledger.enter

    def compare(change: Any) -> None:
        enter(change)
        truth = bench.world.truth(lab.host.loop.time())["containers"]
        for container, place in lab.ledger.places.items():
            if container in lab.ledger.under_way:
                continue
            compared[0] += 1
            if truth[container] != place:
                lies.append(f"{container}: believed at {place}, is {truth[container]}")

    lab.ledger.enter = compare  # type: ignore[method-assign]  # it is watched


if __name__ == "__main__":
    sys.exit(main())
