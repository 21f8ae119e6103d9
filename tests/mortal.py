"""Cells that die in the middle of anything, in a world that goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import yaml
from sqlalchemy import Connection
from typing_extensions import override

from ppu.cell.cell import Cell
from ppu.cell.lab import OpenLab
from ppu.core.custody import CustodyLedger
from ppu.core.errors import ConfigurationError, StoreError
from ppu.core.labfile import load_lab
from ppu.engine.resources import Resources
from ppu.plans import RegisteredProtocol
from ppu.store.jobs import Job
from ppu.store.queue import find
from ppu.store.store import Store
from ppu.twin.bench import Links

__all__ = ["DeadError", "MortalCell", "MortalStore"]

T = TypeVar("T")

_A_MOMENT_S = 1e-3


class DeadError(StoreError):
    """The process died here."""


class MortalStore(Store):
    """A store whose process dies at one of its commits, or when it is told to.

    Args:
        path: The file.
        dies_at: Number of the work that is the last.
        keeps_last: Whether that one is still committed, though nobody learns of it.
    """

    def __init__(
        self, path: Path, dies_at: int = 10**9, *, keeps_last: bool = True
    ) -> None:
        super().__init__(path, is_verified=False)
        self.n_works = 0
        self.is_dead = False
        self.on_death: Callable[[], None] | None = None
        self._dies_at = dies_at
        self._keeps_last = keeps_last

    @override
    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        self.n_works += 1
        if not self.is_dead and self.n_works < self._dies_at:
            return super().submit(work)
        if not self.is_dead and self._keeps_last:
            super().submit(work).result()
        if not self.is_dead:
            self.is_dead = True
            if self.on_death is not None:
                self.on_death()
        dead: Future[T] = Future()
        dead.set_exception(DeadError("dead"))
        return dead


class MortalCell:
    """A cell on a jumping twin that can be killed and started again.

    Time stands still except in :meth:`advance`. The bench, and so the world, outlives
    the cell.

    Args:
        content: Content of the lab file.
        folder: Where the lab file, the store and the results are.
        protocols: What jobs may ask for, by name.
        links: What carries bytes; in memory, one sequence is the same in every run.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        folder: Path,
        protocols: Mapping[str, RegisteredProtocol],
        links: Links = "memory",
    ) -> None:
        path = folder / "lab.yaml"
        path.write_text(yaml.safe_dump(dict(content)))
        self.folder = folder
        self.lab = OpenLab(load_lab(path), path, target="twin", pace=None, links=links)
        self.loop = self.lab.host.loop
        self.n_deaths = 0
        self._protocols = protocols
        self._still = self.loop.freeze("the test decides when time passes")
        self._ends = contextlib.ExitStack()
        self._life: asyncio.Task[None] | None = None
        self.store = MortalStore(self.store_path)
        self.cell: Cell | None = None

    @property
    def store_path(self) -> Path:
        """Where the store is."""
        return self.folder / "lab.sqlite"

    def _find(self, name: str) -> RegisteredProtocol:
        if name not in self._protocols:
            raise ConfigurationError(f"there is no protocol {name}")
        return self._protocols[name]

    def start(self, dies_at: int = 10**9, *, keeps_last: bool = True) -> None:
        """Begin a life."""
        self.store.close()
        self.store = MortalStore(self.store_path, dies_at, keeps_last=keeps_last)
        self.cell = Cell(
            self.lab,
            self.store,
            self.folder / "results",
            find=self._find,
            marks=self.folder / "marks",  # its world outlives it, as a real one does
        )
        self._ends = contextlib.ExitStack()
        with self._time_passing():
            self._ends.enter_context(self.cell.owning())
        self._life = self.lab.host.call(_begun(self.cell.arun()))
        # Time passes once the cell has looked at its store: before, it would race
        # with what the test writes there.
        self.advance(_A_MOMENT_S)

    def kill(self) -> None:
        """End the present life: nothing more is written, nowhere."""
        assert self.cell is not None
        self.store.is_dead = True
        self.cell.owner.renounce()
        self._bury()
        self.n_deaths += 1

    def _bury(self) -> None:
        """Take away what the dead process had, and nothing else."""
        lab = self.lab
        assert self._life is not None
        lab.host.call(_ended(self._life))
        lab.host.call(self._end_tasks())
        self._ends.close()
        for device in lab.devices.values():
            lab.host.call(device.disconnect())
        lab.devices.clear()
        lab.ledger = CustodyLedger.of(lab.file)
        lab.resources = Resources(self.loop, lab.file, lab.ledger)
        lab.host.resources = lab.resources
        self.cell = self._life = None

    async def _end_tasks(self) -> None:
        """End every task of the dead process; those of the simulators go on."""
        tasks = [
            task
            for task in asyncio.all_tasks() - {asyncio.current_task()}
            if "ppu_simulators" not in _source_of(task)
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> None:
        """Let the present life end as it should."""
        assert self.cell is not None
        self.loop.call_soon_threadsafe(self.cell.drain)
        self.advance(1.0)
        self._bury()

    def advance(self, seconds: float) -> None:
        """Let time pass [s]."""

        async def pass_time() -> None:
            if self.cell is not None:
                self.cell.wake()
            # All on the loop: from the test's thread the one would come too early,
            # as plans that run let time jump, and the other too late.
            self._still()
            await asyncio.sleep(seconds)
            self._still = self.loop.freeze("the test decides when time passes")

        self.lab.host.call(pass_time())

    @contextlib.contextmanager
    def _time_passing(self) -> Iterator[None]:
        self._still()
        try:
            yield
        finally:
            self._still = self.loop.freeze("the test decides when time passes")

    def jobs(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        with self.store.read() as connection:
            return sorted(find(connection, limit=10**6), key=lambda job: job.id)

    def close(self) -> None:
        """End everything."""
        if self.cell is not None:
            self.kill()
        self.store.close()
        self._still()
        self.lab.close()


def _source_of(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return "" if code is None else str(code.co_filename)


async def _begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work, name="cell")


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel *task* and wait until it has ended, however it does."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
