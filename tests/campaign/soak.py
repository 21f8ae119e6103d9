"""Run jobs for 30 simulated days, with a fault on some wire every simulated hour.

A small lab of real drivers and simulators does jobs without end; a person releases the
samples. What the process uses must not grow with the jobs that it has done.

Run by `make campaign-soak`; CI runs one day of it.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import logging
import os
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from exercise import LAB, N_CUPS, World, exercise
from mortal import MortalCell
from pages import replace_section
from ppu.core.labtime import stopwatch
from ppu.store import queue
from ppu.store.commands import request
from ppu.store.custody import find_samples
from ppu.store.jobs import ENDED, JobRequest
from ppu.store.requests import MoveContainer, ReleaseSample
from ppu.store.schema import jobs

HEADING = "## A month of jobs"
HOUR_S = 3600.0
MOST_MIB_PER_1000 = 1.0
FAULTS = ("drop", "delay", "corrupt visibly", "truncate", "reset", "half-open")
WARM_UP = 1 / 3
"""Part of the campaign after which memory is expected to be steady: after a week the
world's record of a furnace is as long as it gets."""
MAY_BE_OPEN = 2
"""Descriptors that a reader in another thread or a lost port makes of difference."""


@dataclass(frozen=True)
class Use:
    """What the process uses when so many jobs have ended."""

    n_jobs: int
    resident_mib: float
    n_descriptors: int
    n_threads: int


def main() -> int:
    """Run the campaign; return 1 if anything grows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=30.0, help="of lab time")
    parser.add_argument("--page", type=Path, help="page of figures to write to")
    options = parser.parse_args()
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    elapsed = stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        uses, states, n_faults = soak(Path(folder), options.days * 24)
    warm = [use for use in uses if use.n_jobs >= WARM_UP * uses[-1].n_jobs]
    slope = slope_per_1000([u.n_jobs for u in warm], [u.resident_mib for u in warm])
    descriptors = medians([use.n_descriptors for use in warm])
    threads = medians([use.n_threads for use in warm])
    is_leaking = (
        descriptors[1] - descriptors[0] > MAY_BE_OPEN or threads[1] > threads[0]
    )
    text = (
        f"{options.days:g} days of lab time with {n_faults} faults on wires: "
        f"{uses[-1].n_jobs} jobs ("
        + ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        + f"); memory grows by {slope:.2f} MiB per 1,000 jobs (at most "
        f"{MOST_MIB_PER_1000:g}), {uses[-1].resident_mib:.0f} MiB at the end; "
        f"median of the first and of the second half: descriptors {descriptors[0]:g} "
        f"and {descriptors[1]:g}, threads {threads[0]:g} and {threads[1]:g}; "
        f"{elapsed():.0f} s"
    )
    sys.stdout.write(text + "\n")
    if options.page is not None:
        body = f"{HEADING}\n\n`make campaign-soak`: {text}."
        replace_section(options.page, HEADING, body)
    is_long = options.days >= 5  # a short one says nothing about slopes
    return int(is_leaking or (is_long and slope > MOST_MIB_PER_1000))


def soak(folder: Path, hours: float) -> tuple[list[Use], Counter[str], int]:
    """Run jobs for so many hours of lab time; return what was used on the way."""
    rng = np.random.default_rng(0)
    content = copy.deepcopy(LAB)
    content["failure_policies"] = {"shake": "abort"}
    life = MortalCell(content, folder, {"exercise": exercise})
    uses: list[Use] = []
    n_faults = 0
    try:
        life.start()
        while life.loop.time() < hours * HOUR_S:
            device = str(rng.choice(["furnace_1", "operator"]))
            fault = {"fault": str(rng.choice(FAULTS)), "for_s": 5.0}
            life.lab.host.call(_inject(life, device, fault))
            n_faults += 1
            World.n_faults_due = int(rng.integers(0, 2))
            for _ in range(6):
                submit_what_is_missing(life, rng)
                life.advance(HOUR_S / 6)
            uses.append(use_of(life))
            if len(uses) % 24 == 0:
                sys.stderr.write(f"\r{len(uses) // 24} days, {uses[-1]} ")
        found = life.jobs()
        states = Counter(str(job.state) for job in found)
        why = Counter(job.reason_text for job in found if job.reason_text)
        for reason, n in why.most_common(5):
            sys.stdout.write(f"{n} jobs: {reason}\n")
    finally:
        life.close()
    sys.stderr.write("\n")
    return uses, states, n_faults


async def _inject(life: MortalCell, device: str, fault: dict[str, Any]) -> None:
    assert life.lab.bench is not None
    life.lab.bench.inject(device, fault)
    await asyncio.sleep(0)


def submit_what_is_missing(life: MortalCell, rng: np.random.Generator) -> None:
    """Do what a person does: carry home, clean, and ask for as many jobs as cups."""
    now = life.loop.stamp()
    ended = [str(state) for state in ENDED]
    with life.store.read() as connection:
        kept = find_samples(connection, states=["active", "quarantined"], limit=100)
        mine = [sample.job_id for sample in kept]
        query = select(jobs.c.id).where(jobs.c.id.in_(mine), jobs.c.state.in_(ended))
        done = set(connection.execute(query).scalars())
        n_open = count(connection, jobs.c.state.not_in(ended))
    free = N_CUPS - len(kept)
    ask = partial(request, by="anna", now=now)
    for sample in kept:
        if sample.job_id not in done:
            continue
        for cup, place in sample.places.items():
            home = life.lab.file.containers[cup].at
            if place != home:
                moved = MoveContainer(container=cup, location=home)
                life.store.write(partial(ask, wanted=moved))
        released = ReleaseSample(sample=sample.id)
        life.store.write(partial(ask, wanted=released))
        free += 1
    for _ in range(max(min(free, N_CUPS - n_open), 0)):
        kind = str(rng.choice(["press", "fire", "shake"]))
        wanted = JobRequest("exercise", "1", {"kind": kind})
        life.store.write(partial(queue.submit, wanted=wanted, now=now))


def use_of(life: MortalCell) -> Use:
    """Return what the process uses now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    with life.store.read() as connection:
        n_ended = count(connection, jobs.c.state.in_([str(state) for state in ENDED]))
    return Use(
        n_ended,
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


def count(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Return how many jobs there are of a kind; what was read must not count as use."""
    query = select(func.count()).select_from(jobs).where(condition)
    return int(connection.execute(query).scalar_one())


def medians(numbers: list[int]) -> tuple[float, float]:
    """Return the medians of the first and of the second half."""
    half = len(numbers) // 2
    return float(np.median(numbers[:half])), float(np.median(numbers[half:]))


def slope_per_1000(jobs: list[int], mib: list[float]) -> float:
    """Return how many MiB a thousand jobs add, by least squares."""
    if len(set(jobs)) < 2:
        return 0.0
    return float(np.polyfit(np.asarray(jobs) / 1000, np.asarray(mib), 1)[0])


if __name__ == "__main__":
    sys.exit(main())
