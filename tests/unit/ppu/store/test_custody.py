"""Custody: samples come with jobs, and people have the last word on them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from ppu.core.custody import Claimed, Left, Moved
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    InterlockError,
    InternalError,
    NotFoundError,
    PPUError,
)
from ppu.core.labfile import LabFile
from ppu.core.remedies import Remedy, advise
from ppu.store import cells, commands, custody, queue, sample_history, steps
from ppu.store.events import events_after
from ppu.store.jobs import Effect, JobRequest, JobState
from ppu.store.store import Store

LAB = LabFile.model_validate(
    {
        "lab": "custody",
        "schema_version": 1,
        "devices": {},
        "locations": {
            **{f"rack.{n}": {"holds": "crucible"} for n in range(1, 4)},
            "tray.1": {"holds": "holder"},
        },
        "containers": {
            name: {"kind": kind, "at": at, "capacity_ml": 5, "tare_g": 9}
            for name, kind, at in (
                ("cup_1", "crucible", "rack.1"),
                ("cup_2", "crucible", "rack.2"),
                ("disc", "holder", "tray.1"),
            )
        },
        "stock": {},
    }
)
MOVE = ("0", "move_container", "irreversible", "digest", [["lab", "cup_1"], {}])


class Bookkeeper:
    """Does what a cell does to the ledger, with a job that runs."""

    def __init__(self, store: Store, token: int) -> None:
        self.store, self.token, self.now = store, token, 10.0
        store.write(lambda c: custody.declare(c, LAB, 0.0))
        self.job_id = self.start_job()

    def do(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call *function* in a transaction of its own, a second later."""
        self.now += 1.0
        options = options or {"now": self.now}
        return self.store.write(lambda c: function(c, *arguments, **options))

    def start_job(self) -> int:
        """Let another job run; return its id."""
        job_id = int(self.do(queue.submit, JobRequest("fire", "1")))
        self.do(queue.claim, token=self.token, now=self.now, lease_s=1e6)
        self.end_job(job_id, JobState.RUNNING)
        return job_id

    def end_job(self, job_id: int, state: JobState, **options: Any) -> None:
        """Bring a job into another state."""
        options = {"token": self.token, "now": self.now, **options}
        self.do(queue.transition, job_id, state, **options)

    def succeed(self) -> None:
        """Let the first job end well."""
        self.end_job(self.job_id, JobState.FINISHING)
        self.end_job(self.job_id, JobState.SUCCEEDED, effect=Effect.FULL)

    def enter(self, *changes: Any, job_id: int | None = None) -> None:
        """Keep what a job changed."""
        self.do(custody.enter, changes, job_id or self.job_id)

    def begin_move(self) -> None:
        """Begin to move the first container."""
        self.do(steps.begin_step, self.job_id, *MOVE, self.token)

    def settle(self, has_happened: bool | None) -> None:
        """Keep what shows whether that has happened."""
        evidence = {"has_happened": has_happened, "text": "the arm is empty"}
        self.do(steps.settle_step, self.job_id, "0", evidence, self.token)

    def samples(self) -> dict[str, custody.Sample]:
        """Return every sample by its name."""
        with self.store.read() as connection:
            states = (custody.ACTIVE, custody.QUARANTINED, custody.RELEASED)
            found = custody.find_samples(connection, states=states)
        return {sample.id: sample for sample in found}

    def is_used(self, container: str) -> bool:
        """Return whether a container is in use."""
        with self.store.read() as connection:
            return container in custody.read_ledger(connection).used


@pytest.fixture
def keeper(store: Store, token: int) -> Bookkeeper:
    """The ledger of a lab in which a job runs."""
    return Bookkeeper(store, token)


def test_sample_comes_with_the_first_container_of_its_job(keeper: Bookkeeper) -> None:
    """A second container is one of the same sample; doing it again is harmless."""
    for _ in range(2):
        keeper.enter(Claimed("cup_1", "s"), Claimed("disc", "s"))
    found = keeper.samples()["s"]

    assert (found.job_id, found.state) == (keeper.job_id, "active")
    assert found.places == {"cup_1": "rack.1", "disc": "tray.1"}
    assert keeper.is_used("cup_1")
    assert keeper.store.check() == []


def test_container_may_be_claimed_for_no_sample(keeper: Bookkeeper) -> None:
    """Plans of people who keep no track of samples work all the same."""
    keeper.enter(Claimed("cup_1"))

    assert keeper.samples() == {}
    assert keeper.is_used("cup_1")


def test_two_jobs_never_share_the_name_of_a_sample(keeper: Bookkeeper) -> None:
    """Or nobody could say which of two crucibles is meant."""
    keeper.enter(Claimed("cup_1", "s"))
    with pytest.raises(InternalError, match="is that of job"):
        keeper.enter(Claimed("cup_2", "s"), job_id=keeper.start_job())
    assert keeper.samples()["s"].places == {"cup_1": "rack.1"}


def test_later_job_takes_over_what_an_earlier_one_made(keeper: Bookkeeper) -> None:
    """The earlier identity ends and says what it has become."""
    keeper.enter(Claimed("cup_1", "powder"))
    keeper.succeed()
    second = keeper.start_job()
    keeper.enter(Claimed("cup_1", "pellet"), job_id=second)
    found = keeper.samples()

    assert (found["powder"].state, found["powder"].places) == ("released", {})
    assert found["powder"].reason == "it is sample pellet now"
    assert found["pellet"].places == {"cup_1": "rack.1"}
    assert keeper.is_used("cup_1")
    assert keeper.store.check() == []


@pytest.mark.parametrize("n_before", [0, 1, 2, 3])
@pytest.mark.parametrize("is_released", [False, True])
def test_container_that_a_job_did_nothing_with_is_what_it_was(
    keeper: Bookkeeper, n_before: int, is_released: bool
) -> None:
    """A sample is taken over by whoever works on it, not by whoever only meant to."""
    keeper.enter(Claimed("cup_1", "powder"))
    keeper.succeed()
    if is_released:
        keeper.do(custody.release_sample, "powder", "anna")
    for _ in range(n_before + 1):
        idle = keeper.start_job()
        keeper.enter(Claimed("cup_1", f"idle-{idle}"), job_id=idle)
        keeper.end_job(idle, JobState.FAILED, reason=("LimitError", "too hot"))
    found = keeper.samples()

    assert found["powder"].state == ("released" if is_released else "active")
    assert found["powder"].places == ({} if is_released else {"cup_1": "rack.1"})
    assert {s.state for s in found.values() if s.id != "powder"} == {"released"}
    assert keeper.is_used("cup_1") is not is_released
    assert keeper.store.check() == []


LIVE = [
    [],
    [JobState.NEEDS_INPUT],
    [JobState.PAUSED],
    [JobState.FINISHING],
    [JobState.NEEDS_INPUT, JobState.RUNNING],
    [JobState.PAUSED, JobState.RUNNING],
]
OVER = [JobState.SUCCEEDED, JobState.FAILED, JobState.ABORTED]


@pytest.mark.parametrize("states", LIVE)
def test_container_of_a_job_that_has_not_ended_is_no_other_ones(
    keeper: Bookkeeper, states: list[JobState]
) -> None:
    """Whatever it waits for, its crucible is not taken from it."""
    keeper.enter(Claimed("cup_1", "powder"))
    for state in states:
        keeper.end_job(keeper.job_id, state)
    with keeper.store.read() as connection:
        held = custody.read_ledger(connection).held
    with pytest.raises(InterlockError, match=f"of job {keeper.job_id}, which is"):
        keeper.enter(Claimed("cup_1", "pellet"), job_id=keeper.start_job())

    assert held == {"cup_1": "powder"}
    assert keeper.samples()["powder"].places == {"cup_1": "rack.1"}
    assert keeper.store.check() == []


@pytest.mark.parametrize("state", OVER)
def test_container_of_a_job_that_has_ended_is_nobodys(
    keeper: Bookkeeper, state: JobState
) -> None:
    """However it ended."""
    keeper.enter(Claimed("cup_1", "powder"))
    if state is JobState.SUCCEEDED:
        keeper.succeed()
    else:
        keeper.end_job(keeper.job_id, state, effect=Effect.PARTIAL)
    with keeper.store.read() as connection:
        assert custody.read_ledger(connection).held == {}


def test_emptied_is_what_a_person_has_said_so_of(keeper: Bookkeeper) -> None:
    """A container that a job gave back untouched holds what it held."""
    idle = keeper.start_job()
    keeper.enter(Claimed("cup_1", "powder"))
    keeper.enter(Claimed("cup_2", "idle"), job_id=idle)
    keeper.succeed()
    keeper.end_job(idle, JobState.FAILED, reason=("LimitError", "too hot"))
    keeper.do(custody.release_sample, "powder", "anna")
    with keeper.store.read() as connection:
        assert custody.read_ledger(connection).emptied == {"cup_1"}


def test_sample_is_quarantined_while_a_step_is_unsettled(keeper: Bookkeeper) -> None:
    """With the evidence as the reason, and only until somebody knows."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.begin_move()
    keeper.settle(None)
    unsure = keeper.samples()["s"]
    faults = keeper.store.check()
    keeper.settle(False)
    sure = keeper.samples()["s"]

    assert (unsure.state, faults) == ("quarantined", [])
    assert unsure.reason == "step 0 (move_container) is unsettled: the arm is empty"
    assert (sure.state, sure.reason) == ("active", None)


def test_sample_that_comes_while_a_step_is_unsettled_is_quarantined(
    keeper: Bookkeeper,
) -> None:
    """A job may do several things at once."""
    keeper.begin_move()
    keeper.settle(None)
    keeper.enter(Claimed("cup_1", "s"))

    assert keeper.samples()["s"].state == "quarantined"
    assert keeper.store.check() == []


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.ABORTED])
def test_sample_is_quarantined_when_its_job_breaks(
    keeper: Bookkeeper, state: JobState
) -> None:
    """A job that had touched something leaves what a person must look at."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.begin_move()
    keeper.end_job(keeper.job_id, state, reason=("dose", "it spilled"))
    found = keeper.samples()["s"]
    with pytest.raises(InterlockError, match=r"job \d+ \w+: it spilled; look"):
        keeper.enter(Claimed("cup_1", "t"), job_id=keeper.start_job())

    assert found.state == "quarantined"
    assert found.reason == f"job {keeper.job_id} {state}: it spilled"
    assert keeper.is_used("cup_1")
    assert keeper.store.check() == []


def test_containers_are_free_again_when_a_job_touched_nothing(
    keeper: Bookkeeper,
) -> None:
    """A job that failed before its first act has used nothing up."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.end_job(keeper.job_id, JobState.FAILED, reason=("limit", "too hot"))

    assert keeper.samples()["s"].state == "released"
    assert not keeper.is_used("cup_1")
    assert keeper.store.check() == []


def test_lost_job_that_is_given_up_leaves_its_sample_quarantined(
    keeper: Bookkeeper,
) -> None:
    """Nobody knows what became of it."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.begin_move()
    keeper.do(cells.end, keeper.token, "killed")
    keeper.do(queue.lose_vanished)
    job = keeper.do(queue.abort, keeper.job_id, "ann", "the power was out")

    assert job.state is JobState.ABORTED
    assert job.reason_text == "given up by ann: the power was out"
    assert keeper.samples()["s"].state == "quarantined"


# -- what people do ----------------------------------------------------------------


def end_well(keeper: Bookkeeper) -> None:
    """Let the job succeed, and the cell end."""
    keeper.end_job(keeper.job_id, JobState.FINISHING)
    keeper.end_job(keeper.job_id, JobState.SUCCEEDED, effect=Effect.FULL)
    keeper.do(cells.end, keeper.token, "stopped")


def test_released_sample_frees_its_containers(keeper: Bookkeeper) -> None:
    """A person says that they are empty and clean; the history says who."""
    keeper.enter(Claimed("cup_1", "s"), Claimed("disc", "s"))
    keeper.enter(Left("cup_1", "rack.1", "rack.3"))
    keeper.enter(Moved("cup_1", "rack.1", "rack.3", "the switch is down"))
    end_well(keeper)
    waits = keeper.do(custody.ask_release, "s", "ann")
    with keeper.store.read() as connection:
        sample, lines = sample_history.history_of(connection, "s")
    told = [(line.kind, line.container, line.by) for line in lines]

    assert waits is None
    assert (sample.state, sample.places) == ("released", {})
    assert not keeper.is_used("cup_1")
    assert not keeper.is_used("disc")
    job = f"job {keeper.job_id}"
    assert told == [
        ("claimed", "cup_1", job),
        ("claimed", "disc", job),
        ("left", "cup_1", job),
        ("moved", "cup_1", job),
        ("released", "cup_1", "ann"),
        ("released", "disc", "ann"),
        ("released", None, "ann"),
    ]
    assert lines[3].text == "the switch is down"
    assert [line.stamp for line in lines] == sorted(line.stamp for line in lines)
    assert keeper.store.check() == []


def test_sample_is_not_released_while_its_job_lives(keeper: Bookkeeper) -> None:
    """Nor twice, nor one that is not there, nor one whose container is lost."""
    keeper.enter(Claimed("cup_1", "s"))
    for name, kind, told in (
        ("s", ConflictError, "which is running"),
        ("t", NotFoundError, "no sample 't'; known are: s"),
    ):
        with pytest.raises(kind, match=told):
            keeper.do(custody.release_sample, name, "ann")
    keeper.begin_move()
    keeper.enter(Left("cup_1", "rack.1", "rack.3"))
    keeper.end_job(keeper.job_id, JobState.ABORTED)
    with pytest.raises(ConflictError, match="look for it and say where it is"):
        keeper.do(custody.release_sample, "s", "ann")
    keeper.do(custody.correct_location, "cup_1", "rack.3", "ann")
    keeper.do(custody.release_sample, "s", "ann")
    with pytest.raises(ConflictError, match="released already"):
        keeper.do(custody.release_sample, "s", "ann")
    assert keeper.store.check() == []


def test_person_corrects_where_a_container_is(keeper: Bookkeeper) -> None:
    """One that did not arrive is at one place again, and the custody says who."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.begin_move()
    keeper.enter(Left("cup_1", "rack.1", "rack.3"))
    keeper.end_job(keeper.job_id, JobState.FAILED)
    keeper.do(cells.end, keeper.token, "stopped")
    waits = keeper.do(custody.ask_move, "cup_1", "rack.3", "ann")
    with keeper.store.read() as connection:
        ledger = custody.read_ledger(connection)
        _, lines = sample_history.history_of(connection, "s")
    last = lines[-1]

    assert waits is None
    assert (ledger.places["cup_1"], ledger.under_way) == ("rack.3", {})
    assert (last.kind, last.origin, last.destination, last.by) == (
        "found",
        "rack.1",
        "rack.3",
        "ann",
    )
    assert keeper.store.check() == []


@pytest.mark.parametrize(
    ("container", "location", "kind", "told"),
    [
        ("cup_9", "rack.3", NotFoundError, "no container 'cup_9'; did you mean"),
        ("cup_2", "rack.9", NotFoundError, "no location 'rack.9'; did you mean"),
        ("cup_2", "tray.1", ConfigurationError, "cup_2 is a crucible, and tray.1 hol"),
        ("cup_2", "rack.1", ConflictError, "cup_1 is believed to be at rack.1"),
        ("cup_1", "rack.3", ConflictError, "is running with cup_1"),
    ],
)
def test_correction_is_refused_when_it_cannot_be(
    keeper: Bookkeeper, container: str, location: str, kind: type[PPUError], told: str
) -> None:
    """Names, kinds and places are checked, and a job at work is not disturbed."""
    keeper.enter(Claimed("cup_1", "s"))
    with pytest.raises(kind, match=told):
        keeper.do(custody.ask_move, container, location, "ann")


def test_place_that_something_is_under_way_to_is_taken(keeper: Bookkeeper) -> None:
    """The arm may yet put it there."""
    keeper.enter(Left("cup_1", "rack.1", "rack.3"))
    with pytest.raises(ConflictError, match=r"cup_1 is believed to be at rack\.3"):
        keeper.do(custody.correct_location, "cup_2", "rack.3", "ann")


def test_place_that_something_may_never_have_left_is_taken(keeper: Bookkeeper) -> None:
    """What did not arrive may stand where it was: a person looks for it first."""
    keeper.enter(Left("cup_1", "rack.1", "rack.3"))
    with pytest.raises(ConflictError, match="say where that is first") as caught:
        keeper.do(custody.correct_location, "cup_2", "rack.1", "ann")
    assert caught.value.advice == (advise(Remedy.MOVE_CONTAINER, container="cup_1"),)
    keeper.do(custody.correct_location, "cup_1", "rack.3", "ann")
    keeper.do(custody.correct_location, "cup_2", "rack.1", "ann")

    assert keeper.store.check() == []


def test_what_was_asked_before_counts_when_a_cell_lives(keeper: Bookkeeper) -> None:
    """Two containers are not put onto one place while the cell is busy."""
    keeper.do(custody.ask_move, "cup_1", "rack.3", "ann")
    keeper.do(custody.ask_move, "cup_2", "rack.1", "ann")
    with pytest.raises(ConflictError, match=r"cup_1 is believed to be at rack\.3"):
        keeper.do(custody.ask_move, "cup_2", "rack.3", "bob")


@pytest.mark.parametrize("place", ["rack.1", "rack.3"])
def test_correction_keeps_off_places_where_another_job_works(
    keeper: Bookkeeper, place: str
) -> None:
    """Its step has them to itself; the job whose sample it is may be helped."""
    keeper.enter(Claimed("cup_2", "s"))
    keeper.end_job(keeper.job_id, JobState.NEEDS_INPUT)
    move = ("cup_1", "rack.3", "ann", 20.0)
    with pytest.raises(ConflictError, match=rf"job 7 has {place} for a step"):
        keeper.do(custody.correct_location, *move, at_work={place: {7}})
    move = ("cup_2", "rack.3", "ann", 20.0)
    taken = {"rack.3": {keeper.job_id}}
    keeper.do(custody.correct_location, *move, at_work=taken)

    assert keeper.samples()["s"].places == {"cup_2": "rack.3"}


def test_two_containers_never_arrive_at_one_place(keeper: Bookkeeper) -> None:
    """Whoever carried it is told what stands there; nothing is kept."""
    keeper.enter(Left("cup_1", "rack.1", "rack.2"))
    with pytest.raises(InternalError, match=r"arrives at rack\.2, where .* cup_2"):
        keeper.enter(Moved("cup_1", "rack.1", "rack.2"))


def test_acts_of_people_wait_for_the_cell_if_one_lives(keeper: Bookkeeper) -> None:
    """Its own ledger must change with the store's; what cannot be is refused before."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.end_job(keeper.job_id, JobState.FINISHING)
    keeper.end_job(keeper.job_id, JobState.SUCCEEDED)
    released = keeper.do(custody.ask_release, "s", "ann")
    moved = keeper.do(custody.ask_move, "cup_2", "rack.3", "bob")
    with pytest.raises(NotFoundError, match="no sample"):
        keeper.do(custody.ask_release, "none", "ann")
    with keeper.store.read() as connection:
        asked = commands.waiting(connection)

    assert [one.sequence for one in asked] == [released, moved]
    assert [(one.command, one.by, one.job_id, one.content) for one in asked] == [
        ("release sample", "ann", keeper.job_id, {"sample": "s"}),
        ("move", "bob", None, {"container": "cup_2", "location": "rack.3"}),
    ]
    assert keeper.samples()["s"].state == "active"


def test_books_of_a_cell_follow_what_people_say(keeper: Bookkeeper) -> None:
    """In memory as in the store."""
    keeper.enter(Claimed("cup_1", "s"), Left("disc", "tray.1", "rack.1"))
    with keeper.store.read() as connection:
        ledger = custody.read_ledger(connection)
    ledger.release("cup_1")
    ledger.correct("disc", "tray.1")
    ledger.refill("BaO", 5.0)

    assert (ledger.used, ledger.under_way) == (set(), {})
    assert ledger.stock_g == {"BaO": 5.0}
    assert ledger.places["disc"] == "tray.1"


def test_state_of_a_sample_is_announced_to_its_job(keeper: Bookkeeper) -> None:
    """Whoever follows the job sees the quarantine come."""
    keeper.enter(Claimed("cup_1", "s"))
    keeper.begin_move()
    keeper.settle(None)

    def read(connection: Connection) -> list[dict[str, Any]]:
        found = events_after(connection, kinds=["sample"], job_id=keeper.job_id)
        return [event.content for event in found]

    with keeper.store.read() as connection:
        (content,) = read(connection)

    assert (content["sample"], content["state"]) == ("s", "quarantined")
