"""Questions: what a job asks people, and what they may answer."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    PPUError,
    StaleTokenError,
)
from ppu.store import cells, commands, queue, steps
from ppu.store.jobs import JobRequest, JobState
from ppu.store.store import Store

MOVE = ("0", "move_container", "irreversible", "d", [["lab", "cup", "rack.2"], {}])
DIFFRACT = ("1.1", "diffract", "repeatable", "d", [["lab", "diffractometer"], {}])


@pytest.fixture
def job_id(store: Store, token: int) -> int:
    """A job that runs; its move is under way, and its scan has failed."""

    def fill(connection: Connection) -> int:
        job_id = queue.submit(connection, JobRequest("fire", "1"), 1.0)
        queue.claim(connection, token, 2.0, 60.0)
        queue.transition(connection, job_id, JobState.RUNNING, 2.0, token=token)
        for step in (MOVE, DIFFRACT):
            steps.begin_step(connection, job_id, *step, token, 3.0)
        steps.fail_step(connection, job_id, "1.1", "no peak", token, 4.0)
        return job_id

    return store.write(fill)


@pytest.fixture
def do(store: Store) -> Callable[..., Any]:
    """Calls a function in a transaction of its own."""
    return lambda function, *given: store.write(lambda c: function(c, *given))


Do = Callable[..., Any]


def asked(store: Store, job_id: int | None = None) -> list[tuple[Any, ...]]:
    """Return what is asked: step, text, answers, and what was answered."""
    with store.read() as connection:
        return [
            (one.step.path, one.text, one.answers, one.answered)
            for one in steps.questions(connection, job_id)
        ]


def unsettle(do: Do, job_id: int, token: int) -> None:
    """Find out nothing about the move."""
    evidence = {"has_happened": None, "text": "nobody looked"}
    do(steps.settle_step, job_id, "0", evidence, token, 5.0)


ASK = ("no peak; measure again?", ("retry", "skip", "abort"))


def test_questions_are_steps_that_are_unsettled_or_asked_about(
    store: Store, do: Do, job_id: int, token: int
) -> None:
    """A step that failed asks only if its policy says so; one that began does not."""
    before = asked(store)
    do(steps.ask_step, job_id, "1.1", *ASK, token, 5.0)
    unsettle(do, job_id, token)

    assert before == []
    assert asked(store) == asked(store, job_id)
    assert asked(store) == [
        ("0", "did it happen? nobody looked", steps.SETTLING_ANSWERS, None),
        ("1.1", *ASK, None),
    ]
    assert asked(store, job_id + 1) == []


def test_question_ends_when_its_step_begins_again(
    store: Store, do: Do, job_id: int, token: int
) -> None:
    """Failing once more without a question asks nothing."""
    do(steps.ask_step, job_id, "1.1", *ASK, token, 5.0)
    do(steps.begin_step, job_id, *DIFFRACT, token, 6.0)
    do(steps.fail_step, job_id, "1.1", "no peak", token, 7.0)

    assert asked(store) == []


@pytest.mark.parametrize("how", ["skip", "abort"])
def test_question_ends_with_its_step_or_its_job(
    store: Store, do: Do, job_id: int, token: int, how: str
) -> None:
    """Nobody is asked about what no longer matters."""
    do(steps.ask_step, job_id, "1.1", *ASK, token, 5.0)
    if how == "skip":
        do(steps.end_step, job_id, "1.1", None, token, 6.0)
    else:
        end = (job_id, JobState.ABORTED, 6.0)
        store.write(lambda c: queue.transition(c, *end, token=token))

    assert asked(store) == []


def test_only_a_failed_step_is_asked_about(do: Do, job_id: int, token: int) -> None:
    """A cell that asks about another has made a mistake; a stale one may not ask."""
    with pytest.raises(ConflictError, match="step 0 is intent; only one that"):
        do(steps.ask_step, job_id, "0", *ASK, token, 5.0)
    with pytest.raises(NotFoundError, match="has no step 9"):
        do(steps.ask_step, job_id, "9", *ASK, token, 5.0)
    do(cells.end, token, "killed", 5.0)
    with pytest.raises(StaleTokenError):
        do(steps.ask_step, job_id, "1.1", *ASK, token, 6.0)


def test_answer_waits_for_the_cell(
    store: Store, do: Do, job_id: int, token: int
) -> None:
    """It is a request with the step, the answer and the note; the first one counts."""
    unsettle(do, job_id, token)
    do(steps.answer, job_id, None, "happened", "ann", 6.0, "I saw it")
    with pytest.raises(ConflictError, match="already with 'happened', which wait"):
        do(steps.answer, job_id, "0", "not-happened", "bob", 7.0)
    waiting = asked(store)[0][3]
    with store.read() as connection:
        (told,) = commands.waiting(connection)
    do(commands.settle, told.sequence, "done", 8.0)

    assert (told.command, told.by, told.job_id) == ("answer", "ann", job_id)
    assert told.content == {"path": "0", "answer": "happened", "note": "I saw it"}
    assert waiting == "happened"
    assert asked(store)[0][3] is None


@pytest.mark.parametrize("policy", ["ask", "retry"])
def test_step_that_fails_after_it_was_settled_can_be_answered_anew(
    store: Store, do: Do, job_id: int, token: int, policy: str
) -> None:
    """What was said before the door did not close is no answer to what comes next."""
    unsettle(do, job_id, token)
    store.write(lambda c: steps.answer(c, job_id, "0", "happened", "anna", 6.0))
    evidence = {"has_happened": True, "text": "anna: happened"}
    do(steps.settle_step, job_id, "0", evidence, token, 6.0)
    do(steps.fail_step, job_id, "0", "the door does not close", token, 7.0)
    if policy == "ask":
        do(steps.ask_step, job_id, "0", *ASK, token, 8.0)
    else:
        do(steps.begin_step, job_id, *MOVE, token, 8.0)
        unsettle(do, job_id, token)

    ((_, _, _, answered),) = asked(store)
    assert answered is None


@pytest.mark.parametrize(
    ("path", "said", "kind", "told"),
    [
        ("0", "retry", ConfigurationError, "'retry' does not answer 'did it happen"),
        ("0", "", ConfigurationError, "allowed are happened, not-happened, abort"),
        ("5", "happened", ConflictError, "asks nothing about step 5"),
        (None, "happened", ConfigurationError, r"asks about steps 0, 1\.1; say which"),
    ],
)
def test_answer_that_fits_no_question_is_refused(
    do: Do,
    job_id: int,
    token: int,
    path: str | None,
    said: str,
    kind: type[PPUError],
    told: str,
) -> None:
    """What was asked and what is allowed is told; nothing is kept."""
    unsettle(do, job_id, token)
    do(steps.ask_step, job_id, "1.1", *ASK, token, 5.0)
    with pytest.raises(kind, match=told):
        do(steps.answer, job_id, path, said, "ann", 6.0)
    with pytest.raises(ConflictError, match="asks nothing"):
        do(steps.answer, job_id + 7, None, said, "ann", 6.0)
