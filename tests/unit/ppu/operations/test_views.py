"""Views: what doors show, of stores that any PPU wrote."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ppu.core.errors import ConfigurationError, ConflictError, NotFoundError
from ppu.core.remedies import Remedy, advise
from ppu.operations import access, control, looking, people
from ppu.operations.views import StateChange, StepChange, WaitChange
from ppu.store import cells, commands, events, queue, steps
from ppu.store.jobs import JobRequest, JobState
from ppu.store.requests import AllowHeat
from ppu.store.schema import events as event_rows
from ppu.store.store import Store

NOW = 4e9  # ahead of every wall clock, as a twin is


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a cell that has just begun."""
    with Store(tmp_path / "lab.sqlite") as opened:
        start = partial(
            cells.start, name="lab", now=NOW, pid=1, boot_id="boot", epoch=0.0
        )
        opened.write(start)
        yield opened


def running(store: Store) -> int:
    """Return the number of a job that runs and has begun a step."""

    def work(connection: Any) -> int:
        job_id = queue.submit(connection, JobRequest("fire", "1"), NOW)
        queue.claim(connection, 1, NOW, 1e9)
        queue.transition(connection, job_id, JobState.RUNNING, NOW, token=1)
        arguments = [["lab x", "cup_1"], {}]
        steps.begin_step(
            connection, job_id, "0", "weigh_it", "repeatable", "d", arguments, 1, NOW
        )
        return job_id

    return store.write(work)


def test_job_is_shown_with_steps_waits_and_questions(store: Store) -> None:
    """In Python moments are stamps, as JSON they are dates."""
    job_id = running(store)
    control.hold(store, [job_id])
    seen = looking.job(store, job_id)
    plain = seen.model_dump(mode="json")

    assert (seen.state, seen.is_held, seen.started) == ("running", True, NOW)
    assert plain["started"] == "2096-10-02T07:06:40.000Z"
    assert seen.steps[0].label == "weigh it: cup_1"
    assert [(why.text, why.advice) for why in seen.waits] == [
        ("it is held", (advise(Remedy.RESUME, job=job_id),))
    ]
    assert plain["waits"][0]["advice"] == [
        {"remedy": "resume", "arguments": {"job": str(job_id)}}
    ]


def test_events_are_typed_where_views_follow_them(store: Store) -> None:
    """What a newer PPU announces is plain data, with the number that it has."""
    job_id = running(store)
    announce = partial(events.announce, now=NOW, job_id=job_id)
    store.write(
        partial(announce, kind=events.EventKind.WAIT, content={"for": "a furnace"})
    )
    number = store.write(
        partial(announce, kind=events.EventKind.STEP, content={"path": 3})
    )
    store.write(
        lambda c: c.execute(
            event_rows.insert(),
            {
                "sequence": number + 1,
                "stamp": NOW,
                "job_id": job_id,
                "kind": "dream",
                "content": '{"of": "sheep"}',
            },
        )
    )
    *_, wait, odd, dream = looking.history(store, job_id)
    first, *_ = looking.history(store, job_id)
    (step,) = looking.events(store, kinds=["step"], limit=1)

    assert isinstance(first.change, StateChange)
    assert isinstance(step.change, StepChange)
    assert isinstance(wait.change, WaitChange)
    assert (wait.change.waits_for, wait.content) == ("a furnace", {"for": "a furnace"})
    assert (odd.change, odd.content) == (None, {"path": 3})
    assert (dream.kind, dream.change, dream.content) == ("dream", None, {"of": "sheep"})


def test_all_jobs_are_changed_or_none(store: Store) -> None:
    """One that has ended, or is not there, leaves the others as they were."""
    one, other = (
        store.write(lambda c: queue.submit(c, JobRequest("fire", "1"), NOW))
        for _ in range(2)
    )
    control.cancel(store, [other], "ann")
    with pytest.raises(ConflictError, match="no longer waits"):
        control.hold(store, [one, other])
    with pytest.raises(NotFoundError, match="no job 99"):
        control.prioritise(store, [one, 99], 5)

    assert [(job.id, job.is_held, job.priority) for job in looking.queued(store)] == [
        (one, False, 0)
    ]


def test_what_only_a_cell_can_do_is_refused_without_one(store: Store) -> None:
    """Nothing waits that a later cell must not do; the remedy says what to start."""
    asked = control.allow_heat(store, "ann", "I looked")
    store.write(lambda c: cells.end(c, 1, "stopped", NOW))
    for ask in (control.allow_heat, control.drain):
        with pytest.raises(ConflictError, match="no cell works") as caught:
            ask(store, "ann")
        assert caught.value.advice == (advise(Remedy.START_CELL),)

    with store.read() as connection:
        waiting = [one.request for one in commands.waiting(connection)]
    assert asked.number is not None
    assert waiting == [AllowHeat(note="I looked")]


def test_state_that_there_is_not_is_told_with_the_nearest(store: Store) -> None:
    """Whoever filters learns which states there are."""
    with pytest.raises(ConfigurationError, match="did you mean 'running'"):
        looking.jobs(store, states=["runing"])


def test_powder_that_is_not_there_is_told(store: Store) -> None:
    """Whoever looks and whoever refills."""
    with pytest.raises(NotFoundError, match="no powder 'BaO'"):
        looking.stock(store, "BaO")
    with pytest.raises(NotFoundError, match="no powder 'BaO'"):
        people.refill(store, "BaO", 1.0, "ann")


def test_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Looking at nothing leaves nothing behind."""
    path = tmp_path / "none.sqlite"
    with (
        pytest.raises(NotFoundError, match="there is no store"),
        access.open_store(str(path)),
    ):
        pass

    assert not path.exists()


def test_views_load_neither_a_database_nor_a_plan() -> None:
    """A client of the HTTP API shares them."""
    script = (
        "import sys, ppu.operations.views\n"
        "print([n for n in sys.modules if n.startswith("
        "('sqlalchemy', 'bluesky', 'ppu.store', 'ppu.plans', 'numpy'))])"
    )
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
