"""Links in memory reach every instrument, and a campaign repeats to the last bit."""

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from exercise import LAB, World, exercise
from mortal import MortalCell
from ppu import open_lab
from ppu.core.errors import ConnectError
from ppu.store import commands, queue
from ppu.store.jobs import JobRequest
from ppu.store.requests import AllowHeat
from ppu.store.schema import jobs, steps


def test_every_instrument_of_the_cell_is_reached_in_memory() -> None:
    """Text, Modbus and HTTP: whatever a lab has, nothing of it needs the kernel."""
    with open_lab("a-lab", links="memory") as opened:
        assert opened.bench is not None
        addresses = opened.bench.connections.values()
        places = [
            str(address.get("port") if "host" not in address else address["host"])
            if "url" not in address
            else address["url"]
            for address in addresses
        ]
        assert len(opened) == len(places)
        assert all("memory" in place for place in places), places


def test_wrong_baud_rate_gets_silence_in_memory(
    small_lab: Path, tmp_path: Path
) -> None:
    """Line settings are those of the lab file, as over a pseudo-terminal."""
    path = tmp_path / "lab.yaml"
    path.write_text(small_lab.read_text().replace("baudrate: 9600", "baudrate: 4800"))
    lab = open_lab(str(path), only=("balance",), links="memory")

    with pytest.raises(ConnectError, match="line settings right"), lab:
        pass


def test_memory_has_nobody_to_reach_on_hardware(
    small_lab: Path, tmp_path: Path
) -> None:
    """A lab file that names a port in memory is told that nothing is there."""
    path = tmp_path / "lab.yaml"
    path.write_text(small_lab.read_text().replace("/dev/nowhere_2", "memory:2"))

    with (
        pytest.raises(ConnectError, match="memory:2: no such port"),
        open_lab(str(path), "hardware", only=("balance",)),
    ):
        pass


def journal_of(folder: Path) -> list[Any]:
    """Let a small campaign with faults and deaths run; return all jobs and steps."""
    folder.mkdir()
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    World.acts, World.n_faults_due = Counter(), 0
    life = MortalCell(LAB, folder, {"exercise": exercise})
    try:
        life.start()
        for n, kind in enumerate(["press", "fire", "fire", "shake"]):
            wanted = JobRequest("exercise", "1", {"kind": kind, "number": n})
            now = life.loop.stamp()
            life.store.write(partial(queue.submit, wanted=wanted, now=now))
            life.lab.host.call(inject(life, {"fault": "corrupt visibly", "for_s": 40}))
            life.advance(97.0)
        for _ in range(3):
            life.kill()
            life.start()
            agree = partial(commands.request, wanted=AllowHeat(), by="anna")
            life.store.write(partial(agree, now=life.loop.stamp()))
            life.advance(1777.0)
        life.advance(20_000.0)
        with life.store.read() as connection:
            return [
                *connection.execute(
                    select(jobs.c.id, jobs.c.state, jobs.c.started, jobs.c.ended)
                ).tuples(),
                *connection.execute(
                    select(
                        steps.c.job_id,
                        steps.c.path,
                        steps.c.name,
                        steps.c.state,
                        steps.c.attempt,
                        steps.c.begun,
                        steps.c.ended,
                    )
                ).tuples(),
            ]
    finally:
        life.close()


async def inject(life: MortalCell, entry: dict[str, Any]) -> None:
    """Let a fault come to the furnace's wire."""
    assert life.lab.bench is not None
    life.lab.bench.inject("furnace_1", entry)


def test_campaign_with_deaths_is_the_same_in_every_run(tmp_path: Path) -> None:
    """Jobs and steps have the same fate at the same lab times, to the last bit."""
    first, second = (journal_of(tmp_path / name) for name in ("first", "second"))

    assert len(first) > 10
    assert first == second
