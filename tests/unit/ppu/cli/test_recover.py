"""``ppu recover`` and ``ppu samples``: where people have the last word."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ppu.core.custody import Claimed, Left
from ppu.core.labfile import LabFile, load_lab
from ppu.store import cells, commands, custody, queue, steps
from ppu.store.jobs import Effect, JobRequest, JobState
from ppu.store.wake import socket_path

Ppu = Callable[..., Any]
UNSURE = {"has_happened": None, "text": "the gripper is empty"}


@pytest.fixture
def job_id(cell: Any, small_lab: Path) -> int:
    """A job whose move is unsettled; its sample is s1."""
    cell.do(custody.declare, load_lab(small_lab))
    cell.do(queue.submit, JobRequest("fire_sample", "1"))
    number: int = cell.run_job()
    cell.do(custody.enter, [Claimed("crucible_01", "s1")], number)
    cell.begin_step(
        number,
        "2",
        "move_container",
        "crucible_01",
        "balance.pan",
        kind="irreversible",
    )
    cell.do(steps.settle_step, number, "2", UNSURE, cell.token)
    return number


def waiting(cell: Any) -> list[commands.Command]:
    """Return what waits for the cell."""
    with cell.store.read() as connection:
        return commands.waiting(connection)


# -- recover -----------------------------------------------------------------------


def test_recover_lists_what_is_asked(ppu: Ppu, job_id: int) -> None:
    """Step in words, what the evidence says, and what each answer will do."""
    told = ppu("recover").out
    (plain,) = ppu("recover", job_id, "--json").json["questions"]

    assert f"job {job_id}, step 2: move container: crucible_01, balance.pan" in told
    assert "did it happen? the gripper is empty" in told
    assert "--happened: it counts as done" in told
    assert "--not-happened: it will be carried out now" in told
    assert "--retry" not in told
    assert (plain["step"], plain["evidence"]) == ("2", UNSURE)
    assert list(plain["answers"]) == ["happened", "not-happened", "abort"]


def test_answer_is_kept_for_the_cell(ppu: Ppu, job_id: int, cell: Any) -> None:
    """With who said so and what was seen; until then it is listed as answered."""
    ended = ppu("recover", job_id, "--happened", "--note", "it is on the pan")
    (told,) = waiting(cell)
    listed = ppu("recover").out

    assert ended.code == 0
    assert (told.command, told.by, told.job_id) == ("answer", "ann", job_id)
    assert told.content == {
        "path": "2",
        "answer": "happened",
        "note": "it is on the pan",
    }
    assert "answered with --happened, which waits for the cell" in listed


def test_failed_step_is_answered_as_its_policy_allows(
    ppu: Ppu, job_id: int, cell: Any
) -> None:
    """With several questions the step must be named."""
    cell.begin_step(job_id, "3", "diffract", "diffractometer")
    cell.do(steps.fail_step, job_id, "3", "no peak", cell.token)
    ask = (job_id, "3", "no peak; measure again?", ["retry", "skip", "abort"])
    cell.do(steps.ask_step, *ask, cell.token)
    unclear = ppu("recover", job_id, "--skip")
    wrong = ppu("recover", job_id, "--step=3", "--happened")
    right = ppu("recover", job_id, "--step=3", "--skip")
    cell.do(cells.end, cell.token, "stopped")
    late = ppu("recover", job_id, "--step=2", "--not-happened")

    assert (unclear.code, "steps 2, 3; say which" in unclear.err) == (2, True)
    assert (wrong.code, "allowed are retry, skip, abort" in wrong.err) == (2, True)
    assert "skip: it is left out" in right.out
    assert "acted on when one starts" in late.out


@pytest.mark.parametrize(
    "options", [["--happened"], ["1", "--happened", "--abort"], ["--abort"]]
)
def test_answer_is_one_and_names_its_job(
    ppu: Ppu, job_id: int, options: list[str]
) -> None:
    """Nothing is guessed."""
    ended = ppu("recover", *options)

    assert ended.code == 2
    assert "say which job, and give one answer" in ended.err


def test_lost_job_is_listed_and_may_be_given_up(
    ppu: Ppu, cell: Any, job_id: int
) -> None:
    """Its sample is quarantined then; other answers fit no question."""
    cell.do(queue.submit, JobRequest("fire_sample", "1"))
    second = cell.run_job()
    cell.begin_step(second, "0", "move_container", "x", kind="irreversible")
    cell.do(cells.end, cell.token, "killed")
    cell.do(queue.lose_vanished)
    listed = ppu("recover").out
    wrong = ppu("recover", second, "--happened")
    right = ppu("recover", second, "--abort", "--note", "the power was out")
    nothing = ppu("recover", second)

    assert f"job {second} (fire_sample) is lost: its cell vanished" in listed
    assert "asks nothing" in wrong.err
    assert right.out == f"job {second}: aborted\n"
    assert "given up by ann: the power was out" in ppu("job", second).out
    assert nothing.out == "nothing is asked\n"


def test_long_question_is_cut_in_tables_and_whole_where_it_is_answered(
    ppu: Ppu, job_id: int, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of a table is longer than the terminal is wide."""
    question = "the arm has stopped; " * 30 + "did it let go?"
    unsure = {"has_happened": None, "text": question}
    cell.do(steps.settle_step, job_id, "2", unsure, cell.token)
    asked = ("question", f"{question}\nlook")
    cell.change(job_id, JobState.NEEDS_INPUT, reason=asked)
    monkeypatch.setenv("COLUMNS", "90")
    tables = [ppu("jobs").out.splitlines(), ppu("samples").out.splitlines()]

    for lines in tables:
        assert "the arm has stopped; the arm" in lines[-2]
        assert lines[-1].endswith("\N{HORIZONTAL ELLIPSIS}")
        assert all(len(line) <= 90 for line in lines)
    for told in (ppu("job", job_id), ppu("recover"), ppu("samples", "s1")):
        assert question in told.out


# -- samples -----------------------------------------------------------------------


def end_job(cell: Any, job_id: int) -> None:
    """Let the job end well, and the cell with it."""
    seen = {"has_happened": True, "text": "it is on the pan"}
    cell.do(steps.settle_step, job_id, "2", seen, cell.token)
    cell.do(steps.end_step, job_id, "2", None, cell.token)
    cell.change(job_id, JobState.FINISHING)
    cell.change(job_id, JobState.SUCCEEDED, effect=Effect.FULL)
    cell.do(cells.end, cell.token, "stopped")


def test_samples_are_listed_with_place_and_reason(
    ppu: Ppu, job_id: int, cell: Any
) -> None:
    """And whether somebody must look for one."""
    (before,) = ppu("samples").out.splitlines()
    cell.do(custody.enter, [Left("crucible_01", "rack.1", "balance.pan")], job_id)
    after = ppu("samples").out
    (plain,) = ppu("samples", "--json").json

    assert "s1" in before
    assert f"job {job_id}" in before
    assert "quarantined" in before
    assert "crucible_01 at rack.1" in before
    assert "the gripper is empty" in before
    assert "crucible_01 at NOBODY KNOWS WHERE" in after
    assert plain["places"] == {"crucible_01": None}


def test_released_sample_keeps_its_history(ppu: Ppu, job_id: int, cell: Any) -> None:
    """It is listed only if asked for; its history says who moved it and why."""
    cell.do(custody.enter, [Left("crucible_01", "rack.1", "balance.pan")], job_id)
    end_job(cell, job_id)
    moved = ppu("samples", "--move=crucible_01=balance.pan")
    released = ppu("samples", "--release=s1")
    told = ppu("samples", "s1").out
    plain = ppu("samples", "s1", "--json").json
    kinds = [line["kind"] for line in plain["history"]]

    assert moved.out == "crucible_01 is at balance.pan\n"
    assert released.out == "s1 is released\n"
    assert "no samples" in ppu("samples").out
    assert "s1" in ppu("samples", "--all").out
    assert f"claimed crucible_01 at rack.1, by job {job_id}" in told
    assert "quarantined: step 2 (move_container) is unsettled" in told
    assert "found crucible_01 from rack.1 to balance.pan, by ann" in told
    assert kinds == [
        *("claimed", "quarantined", "left", "active"),
        *("found", "released", "released"),
    ]


def test_history_tells_what_a_person_said_of_a_step(ppu: Ppu, job_id: int) -> None:
    """Who said what, when, and what they saw: the sample went on upon their word."""
    ppu("recover", job_id, "--happened", "--note", "it is on the pan")
    ppu("abort", job_id, "--reason", "it smells")
    told = ppu("samples", "s1").out
    *_, answer, abort = ppu("samples", "s1", "--json").json["history"]

    words = "step 2 (move_container): happened (it is on the pan)"
    assert f"said, by ann: {words}" in told
    assert "said, by ann: abort (it smells)" in told
    assert (answer["kind"], answer["by"], answer["text"]) == ("said", "ann", words)
    assert answer["time"] <= abort["time"]


def test_living_cell_is_asked_to_take_note(ppu: Ppu, job_id: int, cell: Any) -> None:
    """All of what a person says, or nothing."""
    refused = ppu("samples", "--move=crucible_04=rack.9", "--move=crucible_04=rack.2")
    asked = ppu("samples", "--move=crucible_04=furnace_1.slot_1")
    (told,) = waiting(cell)

    assert (refused.code, "no location 'rack.9'" in refused.err) == (2, True)
    assert "the cell was asked" in asked.out
    assert (told.command, told.content) == (
        "move",
        {"container": "crucible_04", "location": "furnace_1.slot_1"},
    )


@contextlib.contextmanager
def answering(cell: Any, store_path: Path, outcome: str) -> Iterator[None]:
    """Let the cell settle the first request that wakes it."""

    def obey(listening: socket.socket) -> None:
        listening.recv(16)
        (command,) = waiting(cell)
        cell.do(commands.settle, command.sequence, outcome)

    path = socket_path(store_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10.0)
        listening.bind(str(path))
        thread = threading.Thread(target=obey, args=(listening,))
        thread.start()
        yield
        thread.join()
    path.unlink()


@pytest.mark.parametrize(
    ("outcome", "code", "out", "err"),
    [
        ("done", 0, "crucible_04 is at furnace_1.slot_1\n", ""),
        ("refused: job 7 is there", 2, "", "the cell refused: job 7 is there"),
    ],
)
def test_what_a_listening_cell_makes_of_it_is_told_at_once(
    ppu: Ppu,
    job_id: int,
    cell: Any,
    store_path: Path,
    outcome: str,
    code: int,
    out: str,
    err: str,
) -> None:
    """A refusal does not only stand in the store, where nobody reads it."""
    with answering(cell, store_path, outcome):
        ended = ppu("samples", "--move=crucible_04=furnace_1.slot_1")

    assert (ended.code, ended.out) == (code, out)
    assert err in ended.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["drain"], "the cell ends when firings have ended"),
        (["drain", "--now"], "the cell ends when what moves has ended"),
        (["recover", "--may-heat"], "furnaces may be heated again"),
        (["recover", "--accept-store"], "jobs go on"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        ("done", 0, "{told}"),
        ("nothing was to be done", 0, "nothing was to be done"),
        ("refused: look again", 2, "{told}: the cell refused: look again"),
        (None, 0, "{told}: the cell was asked to take note, and has not said so yet"),
    ],
    ids=["done", "otherwise", "refused", "not heard"],
)
def test_request_to_the_cell_tells_what_that_made_of_it_and_no_more(
    ppu: Ppu,
    job_id: int,
    cell: Any,
    store_path: Path,
    words: list[str],
    told: str,
    outcome: str | None,
    code: int,
    says: str,
) -> None:
    """Nobody reads that furnaces may be heated when the cell has refused that."""
    if outcome is None:
        ended = ppu(*words)
    else:
        with answering(cell, store_path, outcome):
            ended = ppu(*words)

    assert ended.code == code
    assert says.format(told=told) in ended.out + ended.err
    assert (told in ended.out) == (outcome in ("done", None))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--move=crucible_01"], "should look like crucible_01=rack_1.1"),
        (["s1", "--release=s1"], "not both"),
        (["--release=s1"], "which is running"),
        (["s2"], "no sample 's2'; known are: s1"),
    ],
)
def test_wrong_correction_is_told(
    ppu: Ppu, job_id: int, options: list[str], text: str
) -> None:
    """With what is allowed."""
    ended = ppu("samples", *options)

    assert (ended.code, text in ended.err) == (2, True)


# -- stock -------------------------------------------------------------------------


@pytest.fixture
def powder(cell: Any, small_lab: Path) -> None:
    """50 g of BaCO3 in the ledger."""
    content = load_lab(small_lab).model_dump()
    entry = {"at": "shelf.1", "mass_g": 50.0, "purity": 0.99}
    content["stock"] = {"BaCO3": entry | {"bulk_density_g_per_ml": 1.0}}
    cell.do(custody.declare, LabFile.model_validate(content))


@pytest.mark.usefixtures("powder")
def test_stock_is_listed_and_refilled(ppu: Ppu, cell: Any) -> None:
    """What is there and what is allocated; then who added how much and why."""
    cell.do(queue.submit, JobRequest("mix", "1", stock={"BaCO3": 2.0}))
    listed = ppu("stock").out
    asked = ppu("stock", "BaCO3", "--refill=50", "--note=lot 7")
    cell.do(cells.end, cell.token, "stopped")
    done = ppu("stock", "BaCO3", "--refill=5")
    told = ppu("stock", "BaCO3").out
    (plain,) = ppu("stock", "BaCO3", "--json").json
    (added,) = plain["refills"]

    assert re.search(r"BaCO3 +50\.000 g +2\.000 g", listed)
    assert "the cell was asked to take note" in asked.out
    assert done.out == "5 g of BaCO3 were added\n"
    assert "5 g added, 55.000 g then, by ann" in told
    assert (plain["mass_g"], plain["allocated_g"]) == (55.0, 2.0)
    assert (added["added_g"], added["by"]) == (5.0, "ann")


@pytest.mark.usefixtures("powder")
def test_stock_is_corrected(ppu: Ppu, cell: Any) -> None:
    """A mistyped refill is undone; jobs that lack powder then are named."""
    job_id = cell.do(queue.submit, JobRequest("mix", "1", stock={"BaCO3": 2.0}))
    asked = ppu("stock", "BaCO3", "--correct=40", "--note=spilled")
    cell.do(cells.end, cell.token, "stopped")
    ppu("stock", "BaCO3", "--refill=5000000")
    done = ppu("stock", "BaCO3", "--correct=0.5", "--note=mistyped")
    told = ppu("stock", "BaCO3").out
    (plain,) = ppu("stock", "BaCO3", "--json").json
    (corrected,) = plain["corrections"]

    lacks = f"job {job_id} lacks 1.5 g of what was allocated to it"
    asks = "the cell was asked to take note, and has not said so yet"
    assert asked.out == f"40 g of BaCO3 are there: {asks}\n"
    assert done.out == f"0.5 g of BaCO3 are there; {lacks}\n"
    assert f"0.500 g found, not 5000050.000 g; {lacks}, by ann: mistyped" in told
    assert (plain["mass_g"], len(plain["refills"])) == (0.5, 1)
    assert (corrected["mass_g"], corrected["by"]) == (0.5, "ann")


@pytest.mark.usefixtures("powder")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--refill=5"], "say which"),
        (["BaCO3", "--note=lot 7"], "kept with a --refill"),
        (["BaCO4"], "did you mean 'BaCO3'"),
        (["BaCO3", "--refill=-5"], "more than 0"),
        (["--correct=5"], "ppu stock POWDER --correct GRAMS"),
        (["BaCO3", "--correct=5"], "say why"),
        (["BaCO3", "--correct=-5", "--note=typo"], "0 or more"),
        (["BaCO4", "--correct=5", "--note=typo"], "did you mean 'BaCO3'"),
        (["BaCO3", "--correct=5", "--refill=5"], "not both"),
    ],
)
def test_wrong_word_on_stock_is_told(ppu: Ppu, options: list[str], text: str) -> None:
    """With what is allowed."""
    ended = ppu("stock", *options)

    assert (ended.code, text in ended.err) == (2, True)


# -- store -------------------------------------------------------------------------


def test_store_is_checked_and_copied(
    ppu: Ppu, job_id: int, cell: Any, tmp_path: Path
) -> None:
    """Each violation is a line, and a code that scripts see."""
    good = ppu("store", "check")
    copied = ppu("store", "backup", tmp_path / "copy.sqlite")
    twice = ppu("store", "backup", tmp_path / "copy.sqlite")
    cell.do(lambda c, now: c.exec_driver_sql("UPDATE samples SET state = 'eaten'"))
    bad = ppu("store", "check")
    copy = ppu("store", "check", "--store", tmp_path / "copy.sqlite")

    assert (good.code, "in order" in good.out) == (0, True)
    assert (copied.code, twice.code) == (0, 2)
    assert bad.code == 4
    assert "row s1 of samples: state is none of active, " in bad.out
    assert copy.code == 0
