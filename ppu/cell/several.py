"""Runs several protocols at once on a lab that a person has opened."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ppu.cell.cell import Cell
from ppu.cell.execution import Execution, make_directory
from ppu.cell.lab import OpenLab
from ppu.core.errors import AbortedError
from ppu.core.notices import tell
from ppu.core.stopping import on_stop_signal
from ppu.plans.protocol import find_protocol
from ppu.store import queue
from ppu.store.jobs import Job, JobRequest
from ppu.store.store import Store

__all__ = ["run_several"]


def run_several(
    lab: OpenLab, wanted: Sequence[tuple[str, Mapping[str, Any]]], out: Path
) -> list[Job]:
    """Run protocols as jobs of a cell in this process, until all have ended.

    Args:
        lab: An open lab, on which nothing has run yet: a cell believes of samples and
            stock what its own store says.
        wanted: Names and parameters.
        out: Directory of the store, and of a directory for each job.

    Returns:
        The jobs as they ended, in the order of *wanted*: state, reason and result.

    Raises:
        ConfigurationError: If something asked is wrong; nothing moved.
        LimitError: If the lab does not allow it; nothing moved.
        InterlockError: If a plan runs; that is not disturbed.
        AbortedError: If somebody asked to stop; every device is in its abort state.
    """
    requests = []
    for name, parameters in wanted:
        execution = Execution(lab, find_protocol(name), parameters, out)
        execution.check()
        parsed = execution.parameters.model_dump(mode="json")
        requests.append(JobRequest(name, execution.protocol.version, parsed))
    make_directory(out)
    with Store(out / "store.sqlite") as store:
        cell = Cell(lab, store, out)
        stopped_by: list[str] = []

        def stop(why: str) -> None:
            stopped_by.append(why)
            lab.host.loop.call_soon_threadsafe(cell.leave)

        def stop_for(number: signal.Signals) -> None:
            if not stopped_by:
                tell(f"{number.name}: stopping; wait for the last lines")
                stop(f"stopped by {number.name}")

        with (
            lab.turns.take("several protocols", stop, queued=False),
            on_stop_signal(stop_for),
        ):
            lab.has_run = True
            try:
                jobs = _run(cell, requests)
                if stopped_by:
                    raise AbortedError(stopped_by[0])
            except BaseException:
                for line in lab.make_safe():
                    tell(line)
                raise
            return jobs


def _run(cell: Cell, requests: list[JobRequest]) -> list[Job]:
    """Run *requests* to their ends; return their jobs."""
    store, now = cell.store, cell.lab.host.loop.stamp()
    ids = store.write(partial(queue.submit_many, wanted=requests, now=now))
    with cell.owning():
        cell.run(until_idle=True)
    with store.read() as connection:
        return [queue.get(connection, job_id) for job_id in ids]
