"""A store that has forgotten what was done: nothing is done again, a person settles."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cell_life import answer, ask, job, submit
from exercise import World
from mortal import MortalCell
from ppu.operations import looking
from ppu.store import steps
from ppu.store.cells import doubt_of
from ppu.store.jobs import ENDED, JobState
from ppu.store.requests import AcceptStore, MoveContainer
from ppu.store.schema import containers

MakeLife = Callable[..., MortalCell]
WHEN_S = [0.5, 5.0, 20.0, 45.0, 61.0, 70.0, 90.0, 130.0, 200.0, 300.0]
"""After how long the process dies: before, within and after presses and moves [s]."""
KINDS = ["press", "nested"]


def truth_of(life: MortalCell) -> dict[str, str | None]:
    """Return where containers really are."""
    assert life.lab.bench is not None
    found: dict[str, str | None] = life.lab.bench.world.truth(life.loop.time())[
        "containers"
    ]
    return found


def put_right(life: MortalCell) -> None:
    """Say of each container where it is, as one who has looked, and carry it home."""
    with life.store.read() as connection:
        rows = connection.execute(containers.select()).all()
    believed = {row.name: row.location for row in rows}
    for name, place in truth_of(life).items():
        if place is not None and believed[name] != place:
            ask(life, MoveContainer(container=name, location=place))
            home = life.lab.file.containers[name].at
            ask(life, MoveContainer(container=name, location=home))


def restore(life: MortalCell, copy: Path) -> None:
    """Put an old copy in the place of the store of a cell that has died."""
    life.store.close()
    for end in ("-wal", "-shm"):
        life.store_path.with_name(life.store_path.name + end).unlink(missing_ok=True)
    shutil.copyfile(copy, life.store_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when_s", WHEN_S)
def test_nothing_irreversible_is_repeated_by_a_store_that_was_rolled_back(
    live: MakeLife, tmp_path: Path, kind: str, when_s: float
) -> None:
    """However much it has forgotten, a person looks first; each act is done once."""
    life = live()
    (job_id,) = submit(life, {"kind": kind})
    copy = tmp_path / "yesterday.sqlite"
    life.store.backup(copy)
    life.start()
    life.advance(when_s)
    life.kill()
    before = dict(World.acts)
    restore(life, copy)
    life.start()
    life.advance(1000.0)

    assert dict(World.acts) == before
    found = looking.job(life.store, job_id)
    assert "the store is not what it was" in found.waits[0].text
    put_right(life)
    ask(life, AcceptStore())
    for _ in range(40):
        life.advance(2000.0)
        if job(life, job_id).state in ENDED:
            break
        with life.store.read() as connection:
            asked = steps.questions(connection, job_id)
        for question in asked:
            answer(life, job_id, _judged(question, before))

    assert max(World.acts.values(), default=0) <= 1, World.acts
    assert job(life, job_id).state in (JobState.SUCCEEDED, JobState.ABORTED)


def _judged(question: Any, before: dict[str, int]) -> str:
    """Return what a person says who has looked at the press and at the places."""
    words = question.step.arguments[0]
    if question.step.name == "press":
        return "happened" if before.get(words[-1]) else "not-happened"
    return "abort"


def test_store_that_only_went_on_is_in_no_doubt(live: MakeLife) -> None:
    """A crash alone is no rollback: the next cell goes on by itself."""
    life = live()
    (job_id,) = submit(life, {"kind": "press"})
    life.start()
    life.advance(20.0)
    life.kill()
    life.start()
    with life.store.read() as connection:
        assert doubt_of(connection) == ""
    life.advance(10.0)
    answer(life, job_id, "not-happened")
    life.advance(2000.0)

    assert job(life, job_id).state is JobState.SUCCEEDED
