"""The queue: jobs come once, wait their turn, and have one owner at a time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert, select
from sqlalchemy.exc import IntegrityError

from ppu.core.custody import Change, Claimed, Left, Moved, StockUsed
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    FailureClass,
    NotFoundError,
    PPUError,
    StaleTokenError,
)
from ppu.core.labfile import LabFile
from ppu.store import cells, commands, custody, events, queue, steps
from ppu.store.check import find_faults
from ppu.store.database import _set_up
from ppu.store.jobs import ACTIVE, ALLOWED, ENDED, Effect, Job, JobRequest, JobState
from ppu.store.order import HALF_LIFE_S, Candidate, decayed, order
from ppu.store.schema import allocations, metadata, prepare, stock
from ppu.store.store import Store

FIRE = JobRequest("fire", "1", {"temperature_degc": 900.0})


def submit(store: Store, wanted: JobRequest = FIRE, now: float = 1.0) -> int:
    """Put a job into the queue."""
    return store.write(lambda connection: queue.submit(connection, wanted, now))


def claim(store: Store, token: int, now: float = 2.0) -> Job | None:
    """Claim the next job for a minute."""
    return store.write(lambda connection: queue.claim(connection, token, now, 60.0))


def change(store: Store, job_id: int, state: JobState, **options: Any) -> Job:
    """Bring a job into another state at stamp 3, unless ``now`` says another."""
    now = options.pop("now", 3.0)
    return store.write(
        lambda connection: queue.transition(connection, job_id, state, now, **options)
    )


def get(store: Store, job_id: int) -> Job:
    """Read a job."""
    with store.read() as connection:
        return queue.get(connection, job_id)


def finish(store: Store, job_id: int, token: int, now: float = 3.0) -> Job:
    """Let a claimed job succeed."""
    for state in (JobState.RUNNING, JobState.FINISHING):
        change(store, job_id, state, token=token, now=now)
    return change(
        store,
        job_id,
        JobState.SUCCEEDED,
        token=token,
        now=now,
        effect=Effect.FULL,
        result={"mass_g": 1.5},
    )


# -- coming ------------------------------------------------------------------------


def test_job_is_the_same_when_submitted_again_with_its_key(store: Store) -> None:
    """A client that asks twice gets one job; another experiment is refused."""
    wanted = JobRequest("fire", "1", {"a": 1, "b": 2}, key="trial 42")
    first = submit(store, wanted)
    second = submit(store, JobRequest("fire", "1", {"b": 2, "a": 1}, key="trial 42"))
    with pytest.raises(ConflictError, match="use a new key"):
        submit(store, JobRequest("fire", "1", {"a": 2, "b": 2}, key="trial 42"))
    with store.read() as connection:
        n_events = events.last_event(connection)

    assert first == second
    assert n_events == 1


def test_batch_comes_whole_or_not_at_all(store: Store) -> None:
    """Ids are in the order of the requests; one bad request refuses all."""
    known = submit(store, JobRequest("fire", "1", key="a"))
    wanted = [JobRequest("fire", "1", key=key) for key in ("b", "a", "c", "b")]
    ids = store.write(lambda connection: queue.submit_many(connection, wanted, 1.0))
    bad = [JobRequest("fire", "1", key="d"), JobRequest("fire", "2", key="a")]
    with pytest.raises(ConflictError):
        store.write(lambda connection: queue.submit_many(connection, bad, 1.0))
    with store.read() as connection:
        n_jobs = len(queue.find(connection))

    assert ids == [known + 1, known, known + 2, known + 1]
    assert n_jobs == 3


def test_request_with_what_cannot_be_kept_is_refused() -> None:
    """It is refused where it is made, and names the parameter."""
    with pytest.raises(ConfigurationError, match="x: should be a finite number"):
        JobRequest("f", "1", {"x": float("nan")})


@pytest.mark.parametrize(
    ("wanted", "kind", "what"),
    [
        (JobRequest("f", "1", needs=(99,)), NotFoundError, "no job 99 to wait for"),
        (JobRequest("f", "1", parent_id=98), NotFoundError, "no job 98 to retry"),
    ],
)
def test_request_that_makes_no_sense_is_refused(
    store: Store, wanted: JobRequest, kind: type[PPUError], what: str
) -> None:
    """What cannot be kept or can never run is told at once."""
    with pytest.raises(kind, match=what):
        submit(store, wanted)


def test_request_comes_back_as_it_was(store: Store) -> None:
    """All that was asked for is in the job, and it is found by each of it."""
    parent = submit(store)
    wanted = JobRequest(
        "fire",
        "2",
        {"steps": [1, 2.5], "name": "ä%_"},
        key="k",
        priority=3,
        campaign="tio2",
        deadline=100.0,
        tags=("a b", "50%"),
        parent_id=parent,
        is_held=True,
    )
    job = get(store, submit(store, wanted))
    with store.read() as connection:
        found = [
            queue.find(connection, tag="50%"),
            queue.find(connection, campaign="tio2"),
            queue.find(connection, states=[JobState.QUEUED], limit=1),
        ]
        not_found = [
            queue.find(connection, tag="50"),
            queue.find(connection, states=[JobState.LOST]),
        ]

    assert wanted == JobRequest(
        job.protocol,
        job.version,
        job.parameters,
        *(job.key, job.priority, job.campaign, job.deadline, job.tags),
        parent_id=job.parent_id,
        is_held=job.is_held,
    )
    assert (
        job.state,
        job.physical_effect,
        job.submitted,
    ) == (JobState.QUEUED, Effect.NONE, 1.0)
    assert [[job], [job], [job]] == found
    assert not_found == [[], []]


def test_job_that_is_not_there_is_named(store: Store) -> None:
    """A wrong number is told, not answered with nothing."""
    with pytest.raises(NotFoundError, match="no job 7"):
        get(store, 7)


# -- waiting -----------------------------------------------------------------------


def test_job_waits_for_what_it_needs(store: Store, token: int) -> None:
    """It is claimed only after all of those have succeeded."""
    first, second = submit(store), submit(store)
    last = submit(store, JobRequest("report", "1", priority=9, needs=(first, second)))
    order_of_claims = []
    for _ in range(3):
        job = claim(store, token)
        assert job is not None
        order_of_claims.append(job.id)
        finish(store, job.id, token)

    assert order_of_claims == [first, second, last]
    assert store.check() == []


def test_jobs_end_when_what_they_need_fails(store: Store, token: int) -> None:
    """A whole chain is cancelled with the reason; later ones are refused."""
    chain = [submit(store)]
    for _ in range(40):
        chain.append(submit(store, JobRequest("next", "1", needs=(chain[-1],))))
    claim(store, token)
    change(store, chain[0], JobState.FAILED, token=token, reason=("dose", "spilled"))
    states = {get(store, job_id).state for job_id in chain[1:]}
    second = get(store, chain[1])
    with pytest.raises(ConflictError, match="has ended as failed"):
        submit(store, JobRequest("next", "1", needs=(chain[0],)))

    assert states == {JobState.CANCELLED}
    assert second.reason_code == "need"
    assert f"job {chain[0]}" in str(second.reason_text)
    assert store.check() == []


def test_held_job_waits_until_it_is_released(store: Store, token: int) -> None:
    """A hold keeps its place; asking twice is harmless."""
    job_id = submit(store)
    for _ in range(2):
        store.write(lambda connection: queue.hold(connection, job_id, 1.0))
    while_held = claim(store, token)
    store.write(lambda connection: queue.resume(connection, job_id, 1.0))
    with store.read() as connection:
        n_events = len(events.events_after(connection, job_id=job_id))

    assert while_held is None
    assert n_events == 3
    assert claim(store, token) == get(store, job_id)


def test_job_expires_when_its_deadline_has_passed(store: Store, token: int) -> None:
    """It is never begun too late, and one that has begun may take its time."""
    begun = submit(store, JobRequest("a", "1", deadline=10.0))
    late = submit(store, JobRequest("b", "1", deadline=10.0))
    in_time = claim(store, token, now=10.0)
    too_late = claim(store, token, now=10.5)

    assert in_time is not None
    assert in_time.id == begun
    assert too_late is None
    assert get(store, late).state is JobState.EXPIRED
    assert get(store, begun).state is JobState.STAGING


def test_reordered_job_goes_before_the_other(store: Store, token: int) -> None:
    """Those between keep their order; it works in both directions."""
    a, b, c, d = (submit(store) for _ in range(4))
    moves = [(d, b), (a, c), (b, b)]

    def move(connection: Connection) -> None:
        for moved, before in moves:
            queue.reorder(connection, moved, before, 1.0)

    store.write(move)
    claimed = [claim(store, token) for _ in range(4)]

    assert [job.id for job in claimed if job is not None] == [d, b, a, c]
    assert store.check() == []


def test_reorder_is_refused_where_it_would_change_nothing(
    store: Store, token: int
) -> None:
    """Priorities come first, and what is claimed is no longer in the line."""
    low, high = submit(store), submit(store, JobRequest("a", "1", priority=1))
    with pytest.raises(ConflictError, match="change the priority"):
        store.write(lambda connection: queue.reorder(connection, low, high, 1.0))
    store.write(lambda connection: queue.prioritize(connection, low, 2, 1.0))
    first = claim(store, token)
    with pytest.raises(ConflictError, match="not queued"):
        store.write(lambda connection: queue.reorder(connection, high, low, 1.0))
    with pytest.raises(ConflictError, match="no longer waits"):
        store.write(lambda connection: queue.prioritize(connection, low, 0, 1.0))

    assert first is not None
    assert first.id == low


def test_cancel_ends_what_waits_and_asks_for_what_runs(
    store: Store, token: int
) -> None:
    """A queued job is gone at once, a running one is asked, an ended one stays."""
    running, waiting = submit(store), submit(store)
    claim(store, token)

    def cancel(connection: Connection) -> None:
        for job_id in (running, waiting, waiting):
            queue.cancel(connection, job_id, "ann", 2.0)

    store.write(cancel)
    with store.read() as connection:
        (asked,) = commands.waiting(connection)
    store.write(lambda c: commands.settle(c, asked.sequence, "stopped", 3.0))
    with pytest.raises(NotFoundError, match="no request"):
        store.write(lambda c: commands.settle(c, asked.sequence, "again", 3.0))
    with store.read() as connection:
        after = commands.waiting(connection)

    assert get(store, waiting).state is JobState.CANCELLED
    assert get(store, running).state is JobState.STAGING
    assert ("cancel", "ann", running) == (asked.command, asked.by, asked.job_id)
    assert after == []
    assert store.check() == []


# -- owners ------------------------------------------------------------------------


def test_result_is_kept_when_a_job_succeeds(store: Store, token: int) -> None:
    """Result, effect and stamps are there, the lease and the allocation are not."""
    job_id = submit(store)

    def allocate(connection: Connection) -> None:
        connection.execute(insert(stock), {"powder": "BaO", "mass_g": 2.0})
        row = {"job_id": job_id, "powder": "BaO", "mass_g": 1.0}
        connection.execute(insert(allocations), row)

    store.write(allocate)
    claim(store, token)
    job = finish(store, job_id, token)
    with store.read() as connection:
        allocated = connection.execute(select(allocations)).all()
        history = [
            event.content["state"]
            for event in events.events_after(connection, job_id=job_id)
        ]

    assert job.result == {"mass_g": 1.5}
    assert (job.physical_effect, job.started, job.ended) == (Effect.FULL, 2.0, 3.0)
    assert job.lease_token is None
    assert allocated == []
    assert history == ["queued", "staging", "running", "finishing", "succeeded"]
    assert store.check() == []


def test_stale_cell_changes_nothing(store: Store, token: int) -> None:
    """Whatever a cell tries after a newer one took over is refused."""
    job_id = submit(store)
    submit(store)
    claim(store, token)
    newer = start_cell(store)
    attempts: list[Callable[[Connection], Any]] = [
        lambda c: queue.claim(c, token, 4.0, 60.0),
        lambda c: queue.renew(c, token, 4.0, 60.0),
        lambda c: queue.adopt(c, job_id, token, 4.0, 60.0),
        lambda c: queue.transition(c, job_id, JobState.RUNNING, 4.0, token=token),
        lambda c: cells.beat(c, token, 4.0),
        lambda c: cells.end(c, token, "done", 4.0),
    ]
    with store.read() as connection:
        before = events.last_event(connection)
    for attempt in attempts:
        with pytest.raises(StaleTokenError):
            store.write(attempt)
    with store.read() as connection:
        after = events.last_event(connection)

    assert newer == token + 1
    assert before == after


def start_cell(store: Store, now: float = 4.0) -> int:
    """Let a new cell take over."""
    return store.write(
        lambda connection: cells.start(
            connection, "lab", now, pid=2, boot_id="boot", epoch=0.0
        )
    )


def test_job_of_a_vanished_cell_is_lost_until_it_is_adopted(
    store: Store, token: int
) -> None:
    """It is never queued again by itself; the newer cell takes it over knowingly."""
    job_id = submit(store)
    claim(store, token)
    change(store, job_id, JobState.RUNNING, token=token)
    newer = start_cell(store)
    lost = store.write(lambda connection: queue.lose_vanished(connection, 4.0))
    claimed = claim(store, newer, now=5.0)
    state = get(store, job_id).state
    with pytest.raises(ConflictError, match="cannot be queued"):
        change(store, job_id, JobState.QUEUED)
    adopted = store.write(lambda c: queue.adopt(c, job_id, newer, 5.0, 60.0))
    with pytest.raises(ConflictError, match="cannot be recovering"):
        store.write(lambda c: queue.adopt(c, job_id, newer, 5.0, 60.0))

    assert lost == [job_id]
    assert claimed is None
    assert state is JobState.LOST
    assert (JobState.RECOVERING, newer) == (adopted.state, adopted.lease_token)
    assert finish(store, job_id, newer, now=6.0).started == 2.0
    assert store.check() == []


def test_lost_job_can_be_ended_by_a_person(store: Store, token: int) -> None:
    """Somebody may say that it is over; no token is needed for what nobody owns."""
    job_id = submit(store)
    claim(store, token)
    change(store, job_id, JobState.RUNNING, token=token)
    start_cell(store)
    store.write(lambda connection: queue.lose_vanished(connection, 4.0))
    job = change(
        store,
        job_id,
        JobState.ABORTED,
        now=5.0,
        effect=Effect.PARTIAL,
        failure_class=FailureClass.RETRYABLE,
        reason=("person", "the crucible broke"),
    )

    assert (job.state, job.physical_effect) == (JobState.ABORTED, Effect.PARTIAL)
    assert (job.is_retryable, job.reason_text) == (True, "the crucible broke")


def test_lease_that_is_not_renewed_is_lost(store: Store, token: int) -> None:
    """A cell that renews keeps its jobs; one that does not is fenced off."""
    job_id = submit(store)
    claim(store, token)
    change(store, job_id, JobState.RUNNING, token=token)
    store.write(lambda connection: queue.renew(connection, token, 50.0, 60.0))
    early = store.write(lambda connection: queue.lose_expired(connection, 100.0))
    late = store.write(lambda connection: queue.lose_expired(connection, 111.0))
    with pytest.raises(StaleTokenError, match="belongs to no cell"):
        change(store, job_id, JobState.PAUSED, token=token)

    assert early == []
    assert late == [job_id]


def test_ended_cell_can_do_nothing_more(store: Store, token: int) -> None:
    """A cell that said goodbye has no token any more."""
    store.write(lambda connection: cells.beat(connection, token, 1.0))
    store.write(lambda connection: cells.end(connection, token, "drained", 2.0))

    with pytest.raises(StaleTokenError, match="must stop"):
        claim(store, token)


def test_job_goes_back_to_the_queue_only_untouched(store: Store, token: int) -> None:
    """A drained cell gives back what it only staged; matter that moved is no such."""
    untouched, touched = submit(store), submit(store)
    claim(store, token)
    claim(store, token)
    back = change(store, untouched, JobState.QUEUED, token=token)
    with pytest.raises(ConflictError, match="partial effect"):
        change(store, touched, JobState.QUEUED, token=token, effect=Effect.PARTIAL)
    change(store, touched, JobState.RUNNING, token=token, effect=Effect.PARTIAL)
    with pytest.raises(ConflictError, match="partial effect, not none"):
        change(store, touched, JobState.PAUSED, token=token, effect=Effect.NONE)

    assert (back.started, back.lease_token) == (None, None)
    assert store.check() == []


def test_nobody_enters_an_owned_state_without_a_claim(store: Store, token: int) -> None:
    """A job that a cell works on always has a lease."""
    job_id = submit(store)
    with pytest.raises(StaleTokenError, match="must be claimed"):
        change(store, job_id, JobState.STAGING)
    claim(store, token)

    with pytest.raises(StaleTokenError, match="not to no cell"):
        change(store, job_id, JobState.RUNNING)


# -- whose turn it is ----------------------------------------------------------------


def test_campaigns_share_the_cell_fairly(store: Store, token: int) -> None:
    """A campaign of a thousand jobs does not shut out one of three."""
    many = [JobRequest("a", "1", {"n": n}, campaign="many") for n in range(50)]
    few = [JobRequest("a", "1", {"n": n}, campaign="few") for n in range(3)]
    store.write(lambda connection: queue.submit_many(connection, many + few, 1.0))
    claimed = [claim(store, token) for _ in range(6)]

    assert [job.campaign for job in claimed if job is not None] == ["many", "few"] * 3


def test_recent_use_counts_and_is_forgotten(store: Store, token: int) -> None:
    """Who had the cell for hours waits behind others, days later no longer."""
    hours, days = 4 * 3600.0, 60 * HALF_LIFE_S
    submit(store, JobRequest("a", "1", campaign="greedy"))
    job = claim(store, token)
    assert job is not None
    finish(store, job.id, token, now=hours)
    greedy = submit(store, JobRequest("a", "1", campaign="greedy"))
    modest = submit(store, JobRequest("a", "1", campaign="modest"))
    soon = claim(store, token, now=hours)
    assert soon is not None
    finish(store, soon.id, token, now=hours + 60.0)
    later = claim(store, token, now=hours + days)

    assert (modest, greedy) == (soon.id, later.id if later is not None else None)
    assert decayed(8.0, HALF_LIFE_S) == pytest.approx(4.0)


CANDIDATES = st.lists(
    st.tuples(st.integers(-1, 1), st.sampled_from("abc")), max_size=12
).map(lambda pairs: [Candidate(*pair, rank) for rank, pair in enumerate(pairs)])


@given(CANDIDATES, st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6)))
@settings(max_examples=100)
def test_heads_are_enough_to_know_the_first(
    candidates: list[Candidate], use_s: dict[str, float]
) -> None:
    """The first by rank of each priority and campaign include the first of all."""
    heads: dict[tuple[int, str], Candidate] = {}
    for one in candidates:
        heads.setdefault((one.priority, one.campaign), one)

    assert order(heads.values(), use_s)[:1] == order(candidates, use_s)[:1]


# -- states --------------------------------------------------------------------------


def test_every_state_has_its_followers_and_leads_to_an_end() -> None:
    """No state is a dead end but those that end a job."""
    reached = set(ENDED)
    for _ in JobState:
        reached |= {state for state in JobState if ALLOWED[state] & reached}

    assert set(ALLOWED) == set(JobState)
    assert reached == set(JobState)
    assert not ACTIVE & ENDED
    assert all(JobState.LOST in ALLOWED[state] for state in ACTIVE)


@contextmanager
def memory_store() -> Iterator[Connection]:
    """A store's tables in memory, for thousands of changes in a second."""
    engine = create_engine("sqlite://")
    _set_up(engine, 0.0, is_writing=True)
    try:
        with engine.begin() as connection:
            prepare(connection)
            yield connection
    finally:
        engine.dispose()


LAB = LabFile.model_validate(
    {
        "lab": "lab",
        "schema_version": 1,
        "devices": {},
        "locations": {f"rack.{n}": {"holds": "crucible"} for n in range(3)},
        "containers": {
            f"cup_{n}": {
                "kind": "crucible",
                "at": f"rack.{n}",
                "capacity_ml": 5,
                "tare_g": 9,
            }
            for n in range(2)
        },
        "stock": {
            "BaO": {
                "at": "rack.0",
                "mass_g": 5,
                "purity": 1,
                "bulk_density_g_per_ml": 1,
            }
        },
    }
)


class Anybody:
    """Does what cells, clients and people may do, in any order.

    Args:
        data: Draws what is done.
        connection: The store.
    """

    def __init__(self, data: st.DataObject, connection: Connection) -> None:
        self.draw, self.connection = data.draw, connection
        self.ids: list[int] = []
        self.tokens = [0]
        self.now = 1.0
        custody.declare(connection, LAB, self.now)
        self.start()
        for n in range(2):  # something runs from the start, or hardly anything would
            self.ids.append(queue.submit(connection, FIRE, self.now))
            if n < self.draw(st.integers(0, 2)):
                job = queue.claim(connection, self.tokens[-1], self.now, 20.0)
                assert job is not None
                running = (job.id, JobState.RUNNING, self.now)
                queue.transition(connection, *running, token=self.tokens[-1])

    def act(self) -> None:
        """Do something, allowed or not."""
        self.now += self.draw(st.floats(0.0, 2.0))
        connection, now = self.connection, self.now
        one, token = (
            self.any_id(),
            self.tokens[self.draw(st.sampled_from([-1, -1, -2]))],
        )
        acts: list[Callable[[], Any]] = [
            self.submit,
            self.start,
            self.change,
            self.change,
            self.end,
            self.work,
            self.work,
            self.step,
            lambda: queue.claim(connection, token, now, 5.0),
            lambda: queue.claim(connection, token, now, 5.0),
            lambda: queue.adopt(connection, one, token, now, 5.0),
            lambda: queue.renew(connection, token, now, 5.0),
            lambda: queue.lose_expired(connection, now),
            lambda: queue.cancel(connection, one, "ann", now),
            lambda: queue.abort(connection, one, "ann", "", now),
            lambda: queue.hold(connection, one, now),
            lambda: queue.resume(connection, one, now),
            lambda: queue.reorder(connection, one, self.any_id(), now),
            lambda: queue.prioritize(connection, one, 1, now),
            lambda: custody.release_sample(connection, f"of {one}", "ann", now),
            lambda: custody.correct_location(
                connection, self.any_of(LAB.containers), self.any_place(), "ann", now
            ),
        ]
        self.draw(st.sampled_from(acts))()

    def any_of(self, names: Iterable[str]) -> str:
        """Draw a name."""
        return self.draw(st.sampled_from(sorted(names)))

    def any_place(self) -> str:
        """Draw a location."""
        return self.any_of(LAB.locations)

    def any_id(self) -> int:
        """Draw a job."""
        return self.draw(st.sampled_from(self.ids))

    def submit(self) -> None:
        """Submit a job."""
        draw = self.draw
        needs = draw(st.sets(st.sampled_from(self.ids), max_size=2))
        wanted = JobRequest(
            "p",
            "1",
            priority=draw(st.integers(0, 1)),
            campaign=draw(st.sampled_from("ab")),
            deadline=draw(st.none() | st.floats(self.now, self.now + 9)),
            needs=tuple(needs),
            is_held=draw(st.booleans()),
            stock={"BaO": draw(st.floats(0.0, 2.0))},
        )
        self.ids.append(queue.submit(self.connection, wanted, self.now))

    def start(self) -> None:
        """Start another cell."""
        new = cells.start(
            self.connection, "lab", self.now, pid=1, boot_id="b", epoch=0.0
        )
        self.tokens.append(new)
        queue.lose_vanished(self.connection, self.now)

    def change(self) -> None:
        """Bring a job into another state."""
        queue.transition(
            self.connection,
            self.any_id(),
            self.draw(st.sampled_from(list(JobState))),
            self.now,
            token=self.draw(st.sampled_from([None, *self.tokens[-2:]])),
            effect=self.draw(st.none() | st.sampled_from(list(Effect))),
        )

    def end(self) -> None:
        """Let the newest cell end a job of its own."""
        state = self.draw(st.sampled_from(["finishing", "succeeded", "failed"]))
        end = (self.any_id(), JobState(state), self.now)
        queue.transition(self.connection, *end, token=self.tokens[-1])

    def work(self) -> None:
        """Let a job that runs do something to the lab."""
        job_id, cup = self.any_id(), self.any_of(LAB.containers)
        if queue.get(self.connection, job_id).state not in ACTIVE:
            return
        ledger = custody.read_ledger(self.connection)
        origin = ledger.places[cup]
        taken = {*ledger.places.values(), *ledger.under_way.values()}
        place = self.any_of(set(LAB.locations) - taken | {origin})
        changes: list[Change] = [
            Claimed(cup, f"of {job_id}"),
            StockUsed("BaO", self.draw(st.floats(0.0, 3.0))),
            Left(cup, origin, place),
            Moved(cup, origin, place),
        ]
        some = changes[: self.draw(st.integers(1, 4))]
        custody.enter(self.connection, some, job_id, self.now)

    def step(self) -> None:
        """Let a job begin an act, and perhaps nobody knows what came of it."""
        job_id, token = self.any_id(), self.tokens[-1]
        if queue.get(self.connection, job_id).lease_token != token:
            return
        steps.begin_step(
            self.connection,
            job_id,
            "0",
            "move",
            "irreversible",
            "d",
            [],
            token,
            self.now,
        )
        seen = {"has_happened": self.draw(st.none() | st.booleans()), "text": "?"}
        steps.settle_step(self.connection, job_id, "0", seen, token, self.now)


@given(st.data())
@settings(max_examples=15)
def test_invariants_hold_whatever_is_done(data: st.DataObject) -> None:
    """After any sequence of acts, allowed or refused, the store's check is empty."""
    with memory_store() as connection:
        anybody = Anybody(data, connection)
        for _ in range(data.draw(st.integers(1, 40))):
            try:
                with connection.begin_nested():
                    anybody.act()
            except (PPUError, IntegrityError):
                continue  # refused: nothing may have changed

        assert find_faults(connection) == []


def test_schema_is_the_same_in_both_databases(store: Store) -> None:
    """Every table of the schema is there and can be read."""
    with store.read() as connection:
        rows = {
            name: connection.execute(select(table)).all()
            for name, table in metadata.tables.items()
        }

    kept = {name for name, found in rows.items() if found}
    assert kept == {"meta"}  # the schema's version, and which store it is


def test_path_may_be_given_as_text_or_path(
    tmp_path: Path, open_store: Callable[[str | Path], Store]
) -> None:
    """Both name the same store, as does its URL."""
    path = tmp_path / "store.sqlite"
    submit(open_store(path))

    assert get(open_store(str(path)), 1) == get(open_store(f"sqlite:///{path}"), 1)
