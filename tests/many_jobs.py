"""Many jobs on the bundled lab, in random order, with a seeded technician.

Syntheses, and firings of what earlier syntheses left, are submitted in random order and
some are aborted at random moments. The technician of the twin cleans, carries, refills
and answers. Every success must have the loss that the chemistry of what was in the
crucible demands; whatever the cell believes must be so in the world; and no furnace may
begin, be or end a program with nothing in it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from ppu.cell.cell import Cell
from ppu.cell.open_lab import InteractiveLab, open_lab
from ppu.core.custody import Claimed, Left, Moved
from ppu.store.jobs import ENDED, Job, JobRequest, JobState
from ppu.store.queue import abort, find, submit
from ppu.store.store import Store

__all__ = ["HEATS", "WITHIN_G", "Findings", "run_many"]

CO2_G_PER_MOL: Final = 44.0095
WITHIN_G: Final = 0.005
"""What a balance and its tares may be off together."""
ABORTED: Final = 0.15
"""Part of the jobs that somebody wants to abort."""
MOST_WAITING: Final = 12
COMPLETE_DEGC: Final = 990.0
"""Above this, in two hours, no carbonate is left."""
PAN: Final = "balance.pan"
RUNNING: Final = 2
"""What both controllers call a program that runs."""
Heat = tuple[float, float]
# Hot and long enough for BaTiO3 to be complete; others leave something to fire.
HEATS: Final[Sequence[Heat]] = ((1000.0, 7200.0), (900.0, 1800.0), (800.0, 600.0))


@dataclass
class Findings:
    """What was seen of a campaign."""

    n_compared: int = 0
    n_firings: int = 0
    n_losses: int = 0
    wrong: list[str] = field(default_factory=list)
    claimed_s: dict[str, float] = field(default_factory=dict)
    """When each sample had its last container for itself, in lab time."""
    carbon_mol: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Carbon in each container whenever it left the pan: lab time [s] and amount."""


def run_many(
    folder: Path,
    n_jobs: int,
    seed: int,
    heats: Sequence[Heat] = HEATS,
    is_over: Callable[[], bool] = lambda: False,
) -> tuple[list[Job], Findings, float, Counter[str]]:
    """Run so many jobs; return them as they ended, and what was seen."""
    found = Findings()
    lab = open_lab("a-lab", seed=seed, links="memory", technician=True)
    with lab.closing(), Store(folder / "store.sqlite") as store:
        cell = Cell(lab, store, folder / "results")
        watch(lab, found)
        with cell.owning():
            people = People(cell, n_jobs, seed, heats, is_over)
            lab.host.call(work(cell, people))
        found.wrong += [f"store: {fault}" for fault in store.check()]
        with store.read() as connection:
            jobs = sorted(find(connection, limit=10**6), key=lambda job: job.id)
        bench: Any = lab.bench
        incidents = Counter(incident.kind for incident in bench.world.incidents)
        for job in jobs:
            if job.state not in ENDED:
                found.wrong.append(f"job {job.id} is {job.state}")
            if job.reason_code == "InternalError":
                found.wrong.append(f"job {job.id}: {job.reason_text}")
            if job.state is JobState.SUCCEEDED:
                check_loss(job, found, lab.host.loop.epoch)
        return jobs, found, lab.host.loop.time(), incidents


async def work(cell: Cell, people: People) -> None:
    """Let people submit and abort while the cell runs, until all is done."""
    asking = asyncio.create_task(people.submit_all())
    aborting = asyncio.create_task(people.abort_some())
    cell_runs = asyncio.create_task(cell.arun())
    try:
        await asking
        await people.wait_open(0)
    finally:
        aborting.cancel()
        cell.drain()
        await asyncio.gather(cell_runs, aborting, return_exceptions=True)
    cell_runs.result()


class People:
    """Those who want something of the lab, in an order that a seed decides.

    Args:
        cell: The cell that they ask.
        n_jobs: How many jobs they want.
        seed: Of their order.
        heats: Temperatures [degC] and holds [s] that they choose among.
        is_over: Whether nothing more is to be submitted.
    """

    def __init__(
        self,
        cell: Cell,
        n_jobs: int,
        seed: int,
        heats: Sequence[Heat],
        is_over: Callable[[], bool],
    ) -> None:
        self._is_over = is_over
        self._heats = heats
        self._cell = cell
        self._n_jobs = n_jobs
        self._rng = np.random.default_rng([seed, 1])
        self._loop = cell.lab.host.loop
        self._n_submitted = 0

    async def submit_all(self) -> None:
        """Submit every job, never many more than can run."""
        for _ in range(self._n_jobs):
            await self.wait_open(MOST_WAITING - 1)
            if self._is_over():
                return
            wanted = self._wish()
            await self._cell.owner.write(
                partial(submit, wanted=wanted, now=self._loop.stamp())
            )
            self._n_submitted += 1
            self._cell.wake()
            await asyncio.sleep(float(self._rng.exponential(600.0)))

    def _wish(self) -> JobRequest:
        degc, hold_s = self._heats[int(self._rng.integers(len(self._heats)))]
        heat = {
            "temperature_degc": degc,
            "hold_s": hold_s,
            "ramp_degc_per_min": 10.0,
            "cool_to_degc": 190.0,
        }
        if self._rng.random() < 0.5:
            batch = round(float(self._rng.uniform(1.0, 4.0)), 2)
            more = {"batch_mass_g": batch, "milling_s": 300.0}
            return JobRequest("solid_state_synthesis", "1", {**heat, **more})
        container = f"crucible_0{self._rng.integers(1, 5)}"
        return JobRequest("fire_sample", "1", {**heat, "container": container})

    async def abort_some(self) -> None:
        """Abort now and then a job that has not ended, whatever it does."""
        while True:
            await asyncio.sleep(float(self._rng.exponential(5 * 3600.0)))
            jobs = self._open()
            if jobs and self._rng.random() < ABORTED:
                job = jobs[int(self._rng.integers(len(jobs)))]
                say = partial(abort, job_id=job.id, by="anna", reason="changed my mind")
                await self._cell.owner.write(partial(say, now=self._loop.stamp()))
                self._cell.wake()

    async def wait_open(self, most: int) -> None:
        """Wait until no more than so many jobs have not ended, looking now and then.

        Raises:
            TimeoutError: If that takes a year.
        """
        async with asyncio.timeout(365 * 86400.0):
            while len(open_ := self._open()) > most:
                text = f"\r{self._n_submitted} submitted, {len(open_)} not ended  "
                sys.stderr.write(text)
                await asyncio.sleep(1800.0)

    def _open(self) -> list[Job]:
        states = [state for state in JobState if state not in ENDED]
        with self._cell.store.read() as connection:
            found = find(connection, states=states, limit=10**6)
        return sorted(found, key=lambda job: job.id)


def note(found: Findings, world: Any, now: float, change: Any) -> None:
    """Keep when a sample got its container, and what was in it at the pan."""
    if isinstance(change, Claimed):
        found.claimed_s[change.sample] = now
    if not isinstance(change, Left | Moved):
        return
    if PAN in (change.origin, change.destination):
        matter = world.containers[change.container].matter
        carbon = matter.elements(with_gas=False).get("C", 0.0)
        found.carbon_mol.setdefault(change.container, []).append((now, carbon))


def watch(lab: InteractiveLab, found: Findings) -> None:
    """Compare belief and truth whenever anything moves, and look into the furnaces."""
    bench: Any = lab.bench
    world, enter = bench.world, lab.ledger.enter
    note_act, pick_up = world.note_act, world.pick_up
    furnaces = {
        name: entry.slots
        for name, entry in lab.file.devices.items()
        if "Furnace" in entry.provides
    }

    def compare(change: Any) -> None:
        enter(change)
        for container, place in lab.ledger.places.items():
            if container in lab.ledger.under_way:
                continue
            found.n_compared += 1
            truth = world.containers[container].at
            if truth != place:
                found.wrong.append(f"{container}: believed at {place}, is at {truth}")
        note(found, world, lab.host.loop.time(), change)

    def see_act(time: float, act: str) -> None:
        note_act(time, act)
        verb, _, device = act.partition(" ")
        if verb == "start" and device in furnaces:
            found.n_firings += 1
            if not any(world.at(slot) for slot in furnaces[device]):
                found.wrong.append(f"{time:.0f} s: {device} fires empty")

    def see_pick_up(time: float, container: str, origin: str, who: str) -> None:
        for name, slots in furnaces.items():
            programmer = bench.instruments[name]._programmer
            if origin in slots and programmer.status == RUNNING:
                found.wrong.append(f"{time:.0f} s: {who} takes {container} from {name}")
        pick_up(time, container, origin, who)

    lab.ledger.enter = compare  # type: ignore[method-assign]  # it is watched
    world.note_act, world.pick_up = see_act, see_pick_up


def check_loss(job: Job, found: Findings, epoch: float) -> None:
    """Compare the loss of a job with the carbonate that was in its crucible."""
    sample = job.result["sample"]
    begun, ended = found.claimed_s[sample["id"]], (job.ended or 0.0) - epoch
    seen = [
        carbon
        for time, carbon in found.carbon_mol[sample["container"]]
        if begun <= time <= ended
    ]
    lost_g = sample["mass_before_g"] - sample["mass_after_g"]
    # Before the firing it was weighed last with all that it was to lose.
    demanded_g = (max(seen) - seen[-1]) * CO2_G_PER_MOL
    found.n_losses += 1
    if abs(lost_g - demanded_g) > WITHIN_G:
        found.wrong.append(
            f"job {job.id} ({job.protocol}) says {lost_g:.4f} g lost, the carbonate "
            f"that went is {demanded_g:.4f} g"
        )
    degc = job.result["parameters_actual"]["temperature_degc"]
    # What takes up a trace of CO2 as it cools, as lime does, is not what is meant.
    is_weighable = max(seen) * CO2_G_PER_MOL > WITHIN_G
    if degc > COMPLETE_DEGC and is_weighable and seen[-1] > 0.05 * max(seen):
        left = 100 * seen[-1] / max(seen)
        found.wrong.append(f"job {job.id}: {left:.0f} % carbonate left at {degc:.0f}")
