"""``ppu jobs``, ``ppu job`` and what changes how jobs wait, run and end."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppu.cli.store import who
from ppu.core.custody import Claimed
from ppu.core.labfile import load_lab
from ppu.store import cells, commands, custody, documents, queue, steps
from ppu.store.events import announce
from ppu.store.jobs import Effect, JobRequest, JobState
from ppu.store.wake import socket_path

Ppu = Callable[..., Any]
FIRE = JobRequest("fire_sample", "1", {"hold_s": 60.0})


@pytest.fixture
def queued(cell: Any) -> list[int]:
    """Three jobs that wait, of two campaigns."""
    wanted = [
        JobRequest("fire_sample", "1", {"n": n}, campaign="ab"[n % 2], tags=(f"t{n}",))
        for n in range(3)
    ]
    return [cell.do(queue.submit, one) for one in wanted]


def requests(cell: Any) -> list[tuple[Any, ...]]:
    """Return what waits for the cell."""
    with cell.store.read() as connection:
        return [
            (one.command, one.job_id, one.by, one.content)
            for one in commands.waiting(connection)
        ]


# -- listing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ([], [2, 1, 0]),
        (["--limit=2"], [2, 1]),
        (["--campaign=a"], [2, 0]),
        (["--tag=t1"], [1]),
        (["--state=queued", "--state=lost"], [2, 1, 0]),
        (["--state=running"], []),
    ],
)
def test_jobs_are_found_by_what_is_known_of_them(
    ppu: Ppu, queued: list[int], options: list[str], indices: list[int]
) -> None:
    """The newest first, in JSON as in words."""
    ids = [queued[index] for index in indices]
    told = ppu("jobs", *options).out.splitlines()[1:]

    assert [job["id"] for job in ppu("jobs", "--json", *options).json] == ids
    assert [int(line.split()[0]) for line in told] == ids


def test_jobs_tell_why_they_ended(ppu: Ppu, queued: list[int]) -> None:
    """In the list, too."""
    ppu("hold", queued[1])
    ppu("cancel", queued[0])
    lines = ppu("jobs").out.splitlines()

    assert "cancelled by ann" in lines[3]
    assert "queued, held" in lines[2]


def test_running_jobs_tell_in_the_list_that_they_wait(
    ppu: Ppu, queued: list[int], cell: Any
) -> None:
    """One that waits does not look busy, and looks so again when it goes on."""
    job_id = cell.run_job()
    waits(cell, job_id, "furnace_1 (job 7 has it)")
    waiting = ppu("jobs", "--state=running").out
    waits(cell, job_id, "")
    cell.change(job_id, JobState.FAILED, reason=("slip", "it slipped"))
    told = [
        line.partition("  ")[2]
        for line in ppu("job", job_id, "--follow").out.splitlines()
    ]

    assert "(furnace_1 (job 7 has it))" in waiting
    assert told[3:5] == ["waits: furnace_1 (job 7 has it)", "goes on"]


def test_wrong_state_is_told_with_the_nearest(ppu: Ppu, queued: list[int]) -> None:
    """A typing error does not look like an empty queue."""
    assert "did you mean 'running'" in ppu("jobs", "--state=runing").err


def test_store_that_is_not_there_is_not_made(ppu: Ppu, store_path: Path) -> None:
    """Looking at a wrong place says so and leaves nothing."""
    for command in (["jobs"], ["job", 1], ["recover"], ["samples"], ["store", "check"]):
        ended = ppu(*command)
        assert (ended.code, "there is no store" in ended.err) == (2, True), command
    assert not store_path.exists()


# -- one job -----------------------------------------------------------------------


def test_job_tells_what_it_waits_for(ppu: Ppu, queued: list[int], cell: Any) -> None:
    """Holds, jobs that it needs, those before it, and whether a cell lives."""
    last = cell.do(queue.submit, JobRequest("fire_sample", "1", needs=(queued[0],)))
    ppu("hold", last)
    with_cell = ppu("job", last).out
    cell.do(cells.end, cell.token, "stopped")

    assert f"waits: it is held (ppu resume {last})" in with_cell
    assert f"waits: it needs job {queued[0]}, which is queued" in with_cell
    assert "waits: 3 jobs are before it" in with_cell
    assert "no cell" not in with_cell
    assert "waits: no cell works on this store" in ppu("job", last).out


def test_job_tells_its_steps_and_result(ppu: Ppu, cell: Any) -> None:
    """With what they act on, how long they took and what came of them."""
    cell.do(queue.submit, FIRE)
    job_id = cell.run_job()
    cell.begin_step(job_id, "0", "take_container", "crucible")
    cell.do(steps.end_step, job_id, "0", "crucible_01", cell.token)
    cell.begin_step(job_id, "1", "fire", "furnace_1")
    cell.begin_step(job_id, "1.0", "heat", "furnace_1")
    told = ppu("job", job_id).out
    plain = ppu("job", job_id, "--json").json

    assert "0     take container: crucible: done 1 s -> " in told
    assert '"crucible_01"' in told
    assert "1     fire: furnace_1: intent" in told
    assert [step["path"] for step in plain["steps"]] == ["0", "1", "1.0"]
    assert plain["steps"][0]["result"] == "crucible_01"
    assert plain["waits_for"] == []
    cell.change(job_id, JobState.FINISHING)
    result = {"phases": ["BaTiO3"] * 40}
    cell.change(job_id, JobState.SUCCEEDED, effect=Effect.FULL, result=result)
    told = ppu("job", job_id).out

    assert "succeeded" in told
    assert 'result: {"phases": ["BaTiO3"' in told
    assert told.rstrip().endswith("...")


def test_job_tells_its_facts(ppu: Ppu, cell: Any) -> None:
    """What it was submitted with, and why it ended."""
    first = cell.do(queue.submit, FIRE)
    wanted = JobRequest(
        "fire_sample", "1", {}, "k", 2, "c", 4.1e9, ("x", "y"), parent_id=first
    )
    second = cell.do(queue.submit, wanted)
    ppu("cancel", second)
    told = ppu("job", second).out

    assert f"campaign c, key k, priority 2, tags x y, retries job {first}" in told
    assert "because: cancelled by ann" in told
    assert "must begin by 2099-12-03" in told


def test_unknown_job_is_told(ppu: Ppu, queued: list[int]) -> None:
    """By every command that names one."""
    for command in ("job", "hold", "resume", "cancel", "abort", "recover"):
        ended = ppu(command, 99)
        assert (ended.code, "there is no job 99" in ended.err) == (2, True), command


# -- following ---------------------------------------------------------------------


def test_followed_job_is_told_to_its_end(ppu: Ppu, cell: Any, small_lab: Path) -> None:
    """Steps with their names, custody, samples and questions; no documents."""
    cell.do(custody.declare, load_lab(small_lab))
    cell.do(queue.submit, FIRE)
    job_id = cell.run_job()
    cell.begin_step(job_id, "0", "take_container", "crucible", kind="irreversible")
    cell.do(custody.enter, [Claimed("crucible_01", "s1")], job_id)
    evidence = {"has_happened": None, "text": "nobody looked"}
    cell.do(steps.settle_step, job_id, "0", evidence, cell.token)
    cell.do(steps.fail_step, job_id, "0", "it slipped", cell.token)
    ask = (job_id, "0", "and now?", ["retry", "abort"])
    cell.do(steps.ask_step, *ask, cell.token)
    start = {"uid": "r", "time": 1.0}
    cell.do(documents.add_document, job_id, "start", start, cell.token)
    cell.change(job_id, JobState.FAILED, reason=("slip", "it slipped"))
    ended = ppu("job", job_id, "--follow")
    told = [line.partition("  ")[2] for line in ended.out.splitlines()]

    assert ended.code == 4
    assert told[3:] == [
        "step 0, take container: crucible: intent",
        "crucible_01 claimed: rack.1",
        "step 0, take container: crucible: unsettled: nobody looked",
        "sample s1 is quarantined: step 0 (take_container) is unsettled: nobody looked",
        "step 0, take container: crucible: failed: it slipped",
        "step 0, take container: crucible: failed: and now? (retry, abort)",
        "job: state failed, was running, reason_code slip, reason_text it slipped, "
        "failure_class infeasible",
        f"sample s1 is quarantined: job {job_id} failed: it slipped",
    ]


def test_following_ends_with_the_job(ppu: Ppu, cell: Any) -> None:
    """What comes later is told when it comes, and success is code 0."""
    cell.do(queue.submit, FIRE)
    job_id = cell.run_job()

    def finish() -> None:
        cell.change(job_id, JobState.FINISHING)
        cell.change(job_id, JobState.SUCCEEDED, effect=Effect.FULL, result={})

    timer = threading.Timer(0.05, finish)
    timer.start()
    ended = ppu("job", job_id, "--follow", "--json")
    timer.join()
    lines = [json.loads(line) for line in ended.out.splitlines()]

    assert ended.code == 0
    assert [line["state"] for line in lines][-2:] == ["finishing", "succeeded"]
    numbers = [line["sequence"] for line in lines]
    assert numbers == sorted(set(numbers))


# -- changing ----------------------------------------------------------------------


def test_held_jobs_wait_until_they_are_resumed(
    ppu: Ppu, queued: list[int], cell: Any
) -> None:
    """All that are named, or none if one is not there."""
    refused = ppu("hold", queued[0], 99)
    held = ppu("hold", *queued[:2])
    claimed = cell.run_job()
    resumed = ppu("resume", *queued[:2])

    assert refused.code == 2
    assert [line.partition(";")[0] for line in held.out.splitlines()] == [
        f"job {job_id}: queued, held" for job_id in queued[:2]
    ]
    assert claimed == queued[2]
    assert "held" not in resumed.out


def test_what_runs_is_asked_of_the_cell(ppu: Ppu, cell: Any) -> None:
    """Cancel and abort are rows with who and why, so that none is lost."""
    cell.do(queue.submit, FIRE)
    job_id = cell.run_job()
    cancelled = ppu("cancel", job_id)
    aborted = ppu("abort", job_id, "--reason", "it smells")

    assert "not yet seen to 'cancel', asked by ann" in cancelled.out
    assert "not yet seen to 'abort', asked by ann" in aborted.out
    assert requests(cell) == [
        ("cancel", job_id, "ann", {}),
        ("abort", job_id, "ann", {"reason": "it smells"}),
    ]


def test_what_waits_or_has_ended_is_not_asked_of_the_cell(
    ppu: Ppu, queued: list[int], cell: Any
) -> None:
    """A job that waits ends at once; asking again is harmless."""
    for _ in range(2):
        assert ppu("abort", queued[0]).out == f"job {queued[0]}: cancelled\n"
    assert requests(cell) == []


def test_commands_that_change_something_wake_the_cell(
    ppu: Ppu, queued: list[int], store_path: Path
) -> None:
    """And those that look do not."""
    path = socket_path(store_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setblocking(False)
        listening.bind(str(path))

        def is_woken() -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(listening.recv(16))
            return False

        looked = [ppu(name).code for name in ("jobs", "recover", "samples")]
        after_looking = is_woken()
        changing = ("hold", "resume", "cancel", "abort")
        woken = [(ppu(name, queued[0]).code, is_woken()) for name in changing]
    path.unlink()

    assert (looked, after_looking) == ([0, 0, 0], False)
    assert woken == [(0, True)] * 4


def test_whoever_has_no_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""

    def nameless() -> str:
        raise OSError("no name")

    monkeypatch.setattr("getpass.getuser", nameless)

    assert who().startswith("user ")


# -- the chart ---------------------------------------------------------------------


def waits(cell: Any, job_id: int, text: str) -> None:
    """Let the cell say what a job waits for."""
    cell.do(announce, "wait", {"for": text}, job_id=job_id)


def test_chart_shows_waits_and_restarts(ppu: Ppu, queued: list[int], cell: Any) -> None:
    """What a job did, when it only waited, and when another cell began."""
    job_id = cell.run_job()
    cell.begin_step(job_id, "0", "fire_container", "crucible_01")
    cell.now += 50.0
    cell.do(steps.end_step, job_id, "0", None, cell.token)
    waits(cell, job_id, "furnace_1 (job 7 has it)")
    cell.now += 20.0
    cell.token = cell.do(cells.start, "small", pid=1, boot_id="boot", epoch=0.0)
    cell.do(queue.lose_vanished)
    cell.now += 8.0
    cell.do(queue.adopt, job_id, token=cell.token, lease_s=1e9)
    cell.change(job_id, JobState.RUNNING)
    cell.begin_step(job_id, "1", "diffract", "crucible_01")
    cell.now += 20.0
    cell.do(steps.end_step, job_id, "1", None, cell.token)
    mark, bar, *_, legend = ppu("jobs", "--gantt").out.splitlines()
    letters = "".join(dict.fromkeys(bar.split()[-1].replace(".", "")))

    assert letters == "A-B"
    assert mark.count("|") == 1
    assert bar[mark.index("|")] == "-"
    assert legend.endswith(
        "A fire container, B diffract, - waits, | another cell began"
    )


def test_wait_of_a_cell_that_is_gone_is_not_told(
    ppu: Ppu, queued: list[int], cell: Any
) -> None:
    """The next cell says by itself what a job waits for."""
    job_id = cell.run_job()
    waits(cell, job_id, "furnace_1 (job 7 has it)")
    before = ppu("job", job_id).out
    cell.token = cell.do(cells.start, "small", pid=1, boot_id="boot", epoch=0.0)
    cell.do(queue.lose_vanished)
    cell.do(queue.adopt, job_id, token=cell.token, lease_s=1e9)
    after = ppu("job", job_id).out

    assert "waits: furnace_1 (job 7 has it)" in before
    assert "furnace_1" not in after


@pytest.mark.parametrize(
    "typed",
    [
        ["job", "99999999999999999999"],
        ["job", "99999999999999999999", "--follow"],
        ["hold", "99999999999999999999"],
        ["resume", "99999999999999999999"],
        ["cancel", "99999999999999999999"],
        ["abort", "99999999999999999999"],
        ["recover", "99999999999999999999"],
        ["recover", "99999999999999999999", "--happened"],
        ["jobs", "--limit=99999999999999999999"],
    ],
)
def test_number_that_is_too_large_is_refused_in_words(
    ppu: Ppu, queued: list[int], typed: list[str]
) -> None:
    """A person who typed too much reads what is allowed."""
    ended = ppu(*typed)

    assert ended.code == 2
    assert "should be a" in ended.err
    assert ended.out == ""
