"""The check: each thing that may be wrong in a store is found and named."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from ppu.store import cells, events, queue
from ppu.store.check import find_faults
from ppu.store.jobs import JobRequest
from ppu.store.schema import (
    allocations,
    containers,
    custody,
    documents,
    jobs,
    sample_containers,
    samples,
    steps,
    stock,
)
from ppu.store.schema import cells as cell_rows
from ppu.store.schema import events as event_rows
from ppu.store.store import Store


@pytest.fixture
def busy_store(store: Store, token: int) -> Store:
    """A store with a running job (2), its step, sample and powder, and two more."""

    def fill(connection: Connection) -> None:
        wanted = [JobRequest("fire", "1", {"n": n}) for n in range(3)]
        queue.submit_many(connection, wanted, 1.0)
        queue.claim(connection, token, 2.0, 60.0)
        step: dict[str, Any] = {
            "job_id": 2,
            "path": "1",
            "name": "dose",
            "kind": "irreversible",
        }
        step |= {"digest": "d", "arguments": "{}", "attempt": 1, "state": "done"}
        step |= {"result": "{}", "token": token, "begun": 2.0, "ended": 3.0}
        connection.execute(insert(steps), step)
        for number, at in ((1, "rack.1"), (2, "rack.2")):
            row: dict[str, Any] = {
                "name": f"c{number}",
                "kind": "crucible",
                "home": f"rack.{number}",
            }
            row |= {"location": at, "is_used": number == 1}
            connection.execute(insert(containers), row)
        row = {"id": "s1", "job_id": 2, "state": "active"}
        connection.execute(insert(samples), row)
        row = {"container": "c1", "sample": "s1"}
        connection.execute(insert(sample_containers), row)
        sequence = events.announce(connection, events.EventKind.CUSTODY, {}, 3.0, 2)
        move: dict[str, Any] = {"sequence": sequence, "container": "c1", "sample": "s1"}
        move |= {"destination": "rack.1", "by": "arm", "kind": "moved"}
        connection.execute(insert(custody), move)
        connection.execute(insert(stock), {"powder": "BaO", "mass_g": 2.0})
        row = {"job_id": 2, "powder": "BaO", "mass_g": 2.0}
        connection.execute(insert(allocations), row)
        sequence = events.announce(connection, events.EventKind.DOCUMENT, {}, 3.0, 2)
        document: dict[str, Any] = {
            "sequence": sequence,
            "job_id": 2,
            "run_uid": "r",
            "name": "start",
        }
        connection.execute(insert(documents), document | {"content": "{}"})

    store.write(fill)
    return store


def test_check_finds_nothing_in_a_good_store(busy_store: Store) -> None:
    """A store in use has no faults."""
    assert busy_store.check() == []


def of_job(**values: Any) -> Callable[[Connection], Any]:
    """Spoil the running job."""
    return lambda c: c.execute(update(jobs).where(jobs.c.id == 2).values(**values))


def of_queued(**values: Any) -> Callable[[Connection], Any]:
    """Spoil a queued job."""
    return lambda c: c.execute(update(jobs).where(jobs.c.id == 3).values(**values))


def of_step(**values: Any) -> Callable[[Connection], Any]:
    """Spoil the step."""
    return lambda c: c.execute(update(steps).values(**values))


def of_container(name: str, **values: Any) -> Callable[[Connection], Any]:
    """Spoil a container."""
    row = containers.c.name == name
    return lambda c: c.execute(update(containers).where(row).values(**values))


def need(connection: Connection) -> None:
    """Let the running job need a queued one."""
    connection.execute(text("INSERT INTO job_needs (job_id, needed_id) VALUES (2, 3)"))


def revive(connection: Connection) -> None:
    """Let a cell live that is not the newest."""
    cells.start(connection, "lab", 5.0, pid=2, boot_id="b", epoch=0.0)
    queue.lose_vanished(connection, 5.0)
    connection.execute(
        update(cell_rows).where(cell_rows.c.token == 1).values(ended=None)
    )


SPOILT: dict[str, Callable[[Connection], Any]] = {
    "events have gaps": lambda c: c.execute(
        delete(event_rows).where(event_rows.c.sequence == 2)
    ),
    "jobs were never announced: 2": lambda c: c.execute(
        update(event_rows).where(event_rows.c.sequence == 2).values(kind="note")
    ),
    "custody were never announced": lambda c: c.execute(
        update(event_rows).where(event_rows.c.kind == "custody").values(kind="note")
    ),
    "documents were never announced": lambda c: c.execute(
        update(event_rows).where(event_rows.c.kind == "document").values(kind="note")
    ),
    "state that there is not: 3 sleeping": of_queued(state="sleeping"),
    "effect that there is not: 3 huge": of_queued(physical_effect="huge"),
    "active jobs have no lease: 2": of_job(lease_token=None),
    "have a lease and are not active: 2": of_job(state="queued"),
    "no begin or no end: 2": of_job(lease_expires=None),
    "held by cells that have ended: 2": lambda c: cells.end(c, 1, "killed", 5.0),
    "do not say when, or the other way round: 3": of_queued(ended=9.0),
    "never started and have come too far for that: 2": of_job(started=None),
    "queued jobs have touched something: 3": of_queued(physical_effect="full"),
    "ended before they started, or started before": of_job(started=0.5),
    "count what they need wrongly: 3": of_queued(n_unmet_needs=1),
    "run before what they need has succeeded: 2": need,
    "share a place in the queue: 3": of_queued(rank=4),
    "several cells live: 2": revive,
    "a cell lives that is not the newest: 1": revive,
    "steps are in a state that there is not: 2 1": of_step(state="maybe"),
    "done and have no result or no end: 2 1": of_step(result=None),
    "steps are open in jobs that have succeeded: 2 1": lambda c: (
        of_step(state="intent")(c),
        of_job(state="succeeded")(c),
    ),
    "steps were begun in jobs that were not: 2 1": of_job(started=None),
    "samples are in a state that there is not: s1 eaten": lambda c: c.execute(
        update(samples).values(state="eaten")
    ),
    "in no container and not released: s1": lambda c: c.execute(
        delete(sample_containers)
    ),
    "released and still in a container: s1": lambda c: c.execute(
        update(samples).values(state="released")
    ),
    "quarantined and do not say why: s1": lambda c: c.execute(
        update(samples).values(state="quarantined")
    ),
    "active and nobody knows what became of them: s1": of_step(state="unsettled"),
    "hold a sample and are not used: c1": of_container("c1", is_used=False),
    "under way to a location that is taken: c2": of_container(
        "c2", location=None, under_way_to="rack.1"
    ),
    "custody events are of a kind that there is not": lambda c: c.execute(
        update(custody).values(kind="beamed")
    ),
    "elsewhere than custody says: c1": of_container("c1", location="rack.7"),
    "more powder is allocated than there is: BaO": lambda c: c.execute(
        update(stock).values(mass_g=1.9)
    ),
    "powder is allocated to jobs that have ended: 2 BaO": of_job(state="failed"),
}


class UndoneError(Exception):
    """Takes back what a test spoilt, and carries what the check found."""


def test_check_names_what_is_wrong(busy_store: Store) -> None:
    """Rows that contradict each other are found, and named by their keys."""
    missed = {}
    for sentence, spoil in SPOILT.items():

        def spoil_and_look(
            connection: Connection, spoil: Callable[[Connection], Any] = spoil
        ) -> None:
            spoil(connection)
            raise UndoneError(*find_faults(connection))

        undone = busy_store.submit(spoil_and_look).exception()
        assert isinstance(undone, UndoneError), undone
        if not any(sentence in fault for fault in undone.args):
            missed[sentence] = undone.args

    assert missed == {}
    assert busy_store.check() == []


def test_step_of_a_newer_cell_than_the_owner_is_found(busy_store: Store) -> None:
    """No cell may have worked on a job after a newer one had it."""

    def spoil(connection: Connection) -> None:
        token = cells.start(connection, "lab", 5.0, pid=2, boot_id="b", epoch=0.0)
        of_step(token=token)(connection)

    busy_store.write(spoil)

    assert any("newer than the one that owns" in one for one in busy_store.check())


IMPOSSIBLE: dict[str, Callable[[Connection], Any]] = {
    "two containers at one location": of_container("c2", location="rack.1"),
    "two containers with one home": of_container("c2", home="rack.1"),
    "a container here and under way": of_container("c2", under_way_to="rack.3"),
    "two samples in one container": lambda c: c.execute(
        insert(sample_containers), {"container": "c1", "sample": "s1"}
    ),
    "two results of one step": lambda c: c.execute(
        insert(steps).from_select(list(steps.c.keys()), select(steps))
    ),
    "less than no powder": lambda c: c.execute(update(stock).values(mass_g=-1.0)),
    "an allocation of nobody": lambda c: c.execute(
        insert(allocations), {"job_id": 77, "powder": "BaO", "mass_g": 1.0}
    ),
}


def test_database_refuses_what_can_never_be(busy_store: Store) -> None:
    """Not even a mistake of ours puts it there."""
    refusals = {
        what: str(busy_store.submit(spoil).exception()).lower()
        for what, spoil in IMPOSSIBLE.items()
    }

    for what, refusal in refusals.items():
        assert "constraint" in refusal, what
    assert busy_store.check() == []


def test_check_counts_what_it_does_not_name(busy_store: Store) -> None:
    """A fault of many rows is one short sentence."""
    wanted = [JobRequest("fire", "1", {"n": n}) for n in range(20)]
    busy_store.write(lambda c: queue.submit_many(c, wanted, 1.0))
    busy_store.write(
        lambda c: c.execute(
            update(jobs).where(jobs.c.state == "queued").values(physical_effect="full")
        )
    )
    (fault,) = busy_store.check()

    assert fault.endswith("and 17 more")
