"""The technician of a cell's own twin: carries, cleans, refills and answers, unasked.

A twin that runs for weeks in minutes has nobody beside it. Its technician does there
what people do beside a laboratory, one thing after the other and each in a time drawn
from the lab's seed, and says so by the same requests as they do. Whoever stands in a
laboratory sees where things are, so the technician may look at the twin's world.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from ppu.cell.ownership import Ownership
from ppu.cell.roster import Roster
from ppu.core.custody import CustodyLedger
from ppu.core.errors import PPUError, StoreBusyError, StoreDiskError
from ppu.core.labfile import LabFile, TechnicianEntry
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.core.simulation import SimulatedWorld
from ppu.devices.instrument import LabDevice
from ppu.engine.resources import Resources
from ppu.store import commands, custody, stock
from ppu.store.requests import AllowHeat
from ppu.store.steps import Question, answer, questions

__all__ = ["TwinTechnician"]

_NAME: Final = "technician"
_N_ATTEMPTS: Final = 20
"""How often something is tried that is refused, before it is left to a person."""
_N_RETRIES: Final = 3
"""How often a failed step is tried again before its job is aborted."""

Act = Callable[..., Any]
"""Asks for something in a transaction of the store."""


@dataclass(frozen=True)
class _Task:
    """Something to do: what it is about, in words, and how it is said."""

    about: str
    act: Act | None
    """None: only wait, for what is too hot to reach into."""


class TwinTechnician:
    """Sees to what a twin's jobs need from people.

    Args:
        entry: How quick and careful.
        file: The lab file.
        seed: Seed of the twin.
        world: The world of the twin, to be looked at.
        owner: What may write to the store.
        roster: Who runs, and what may heat.
        resources: What jobs wait for.
        devices: The lab's devices.
        loop: The lab's loop.
    """

    def __init__(
        self,
        entry: TechnicianEntry,
        file: LabFile,
        seed: int,
        world: SimulatedWorld,
        owner: Ownership,
        roster: Roster,
        resources: Resources,
        devices: Mapping[str, LabDevice],
        loop: LabTimeLoop,
    ) -> None:
        self._entry = entry
        self._file = file
        self._world = world
        self._owner = owner
        self._roster = roster
        self._resources = resources
        self._devices = devices
        self._loop = loop
        keys = [seed, zlib.crc32(_NAME.encode())]
        self._rng = np.random.default_rng(np.random.SeedSequence(keys))
        self._n_refused: Counter[str] = Counter()
        self._n_answers: Counter[tuple[int, str]] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether something is being done."""
        return self._task is not None

    async def look(self) -> None:
        """Take up something that is to be done, unless something is being done.

        Raises:
            StoreError: If what there is to do cannot be read for long.
        """
        if self._task is not None:
            return
        try:
            task = await self._find()
        except (StoreBusyError, StoreDiskError):
            # The cell looks again when its own requests can be read.
            return
        if task is not None:
            self._task = asyncio.create_task(self._do(task), name=task.about)

    async def stop(self) -> None:
        """Leave everything as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _do(self, task: _Task) -> None:
        """Do something, in a while; what is refused may be tried again later."""
        width = self._entry.spread * float(self._rng.standard_normal())
        with self._loop.active():  # time goes on though no job may run meanwhile
            await asyncio.sleep(self._entry.delay_s * math.exp(width))
        try:
            if task.act is not None:
                said = partial(task.act, by=_NAME, now=self._loop.stamp())
                await self._owner.write(said)
        except PPUError as exc:
            self._n_refused[task.about] += 1
            if self._n_refused[task.about] == _N_ATTEMPTS:
                tell(f"the technician cannot {task.about}: {exc}")
        finally:
            self._task = None
            self._roster.wake()

    # -- what there is to do -------------------------------------------------------

    async def _find(self) -> _Task | None:
        """Return what is to be done next: whoever waits for an answer goes first."""
        found: list[_Task] = []
        store = self._owner.store
        if not self._roster.may_heat and self._roster.jobs:
            found.append(_Task("let the furnaces heat", _allow_heat))
        asked = await store.aread(questions)
        found += [self._reply(one) for one in asked if one.answered is None]
        ledger = await store.aread(custody.read_ledger)
        hot: list[_Task] = []
        astray = [c for c in self._file.containers if self._is_astray(ledger, c)]
        for container in map(str, self._rng.permutation(astray)):
            if await self._is_out_of_reach(ledger.places[container]):
                hot.append(_Task(f"wait for {container}", None))
                continue
            home = self._file.containers[container].at
            move = partial(custody.ask_move, container=container, location=home)
            found.append(_Task(f"carry {container} to {home}", move))
        found += await self._cleaning(ledger)
        found += self._refilling(await store.aread(stock.find_stock))
        can_be = [one for one in found if self._n_refused[one.about] < _N_ATTEMPTS]
        return next(iter(can_be or hot), None)

    def _is_astray(self, ledger: CustodyLedger, container: str) -> bool:
        """Return whether nobody will bring a container home that is elsewhere."""
        home = self._file.containers[container].at
        is_home = ledger.places[container] == home and container not in ledger.under_way
        return not is_home and container not in ledger.held

    async def _is_out_of_reach(self, place: str) -> bool:
        """Return whether a container is in something hot, or that a job has."""
        entry = self._file.locations.get(place)
        device = self._devices.get(entry.inside or "") if entry is not None else None
        if device is None or entry is None or entry.inside is None:
            return False
        is_taken = bool(self._resources.reservations.owners_of(entry.inside))
        return is_taken or bool(await device.hot_parts())

    async def _cleaning(self, ledger: CustodyLedger) -> list[_Task]:
        """Return whose containers to clean, if a job waits for an empty one."""
        kinds = self._resources.empties.kinds_waited_for
        if not kinds:
            return []
        kept = await self._owner.store.aread(custody.find_samples)
        names = [
            sample.id
            for sample in kept
            if not any(c in ledger.held for c in sample.places)
            and all(sample.places.values())
            and kinds & {self._file.containers[c].kind for c in sample.places}
            and all(p == self._file.containers[c].at for c, p in sample.places.items())
        ]
        return [
            _Task(f"clean {name}", partial(custody.ask_release, sample=name))
            for name in map(str, self._rng.permutation(names))
        ]

    def _refilling(self, powders: list[stock.Powder]) -> list[_Task]:
        """Return what to refill: all that is not enough for what is asked, or low."""
        tasks = []
        for powder in powders:
            entry = self._file.stock.get(powder.name)
            if entry is None or powder.mass_g is None:
                continue
            free_g = powder.mass_g - powder.allocated_g
            if free_g < self._entry.refills_below * entry.mass_g:
                more = partial(
                    stock.ask_refill, powder=powder.name, mass_g=entry.mass_g
                )
                tasks.append(_Task(f"refill {powder.name}", more))
        return tasks

    # -- answers -------------------------------------------------------------------

    def _reply(self, asked: Question) -> _Task:
        """Return the answer to a question: what is seen, or to try again."""
        step = asked.step
        said = "abort"
        if step.is_unsettled:
            said = self._settled(asked) or said
        elif "retry" in asked.answers and (
            self._n_answers[step.job_id, step.path] < _N_RETRIES
        ):
            said = "retry"
        self._n_answers[step.job_id, step.path] += 1
        reply = partial(
            answer,
            job_id=step.job_id,
            path=step.path,
            said=said,
            note="looked at it",
        )
        return _Task(f"answer job {step.job_id}, step {step.path}", reply)

    def _settled(self, asked: Question) -> str:
        """Return whether a carry has happened, by where the container stands.

        Nothing is said of what cannot be seen.
        """
        words = [word for word in asked.step.arguments[0] if isinstance(word, str)]
        containers = [word for word in words if word in self._file.containers]
        places = [word for word in words if word in self._file.locations]
        if len(containers) != 1 or len(places) != 1:
            return ""
        truth = self._world.truth(self._loop.time())["containers"]
        is_there = truth[containers[0]] == places[0]
        return "happened" if is_there else "not-happened"


def _allow_heat(connection: Connection, by: str, now: float) -> None:
    """Say that the furnaces may heat."""
    note = "looked at the furnaces"
    commands.request(connection, AllowHeat(note=note), by, now)
