"""Guard, cell and bench as processes, of which some are killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_processes import LabProcesses, Running, bearable_pace
from ppu.store import queue
from ppu.store.cells import newest
from ppu.store.jobs import ENDED, Job, JobRequest, JobState
from ppu.store.steps import StepState, steps_of

pytestmark = pytest.mark.slow

PACE = 600.0
FIRING: dict[str, Any] = {
    "container": "crucible_04",
    "temperature_degc": 200.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 3600.0,
    "cool_to_degc": 190.0,
}


@pytest.fixture
def lab(small_lab: Path, tmp_path: Path) -> Iterator[LabProcesses]:
    """A bench at a scaled pace, and a job in its queue that fires a sample."""
    pace = bearable_pace(small_lab, PACE, FIRING["hold_s"])
    with LabProcesses(tmp_path, small_lab, pace) as processes:
        processes.write(queue.submit, wanted=JobRequest("fire_sample", "1", FIRING))
        yield processes


def the_job(lab: LabProcesses) -> Job:
    """Return the only job."""
    (job,) = lab.read(queue.find)
    assert isinstance(job, Job)
    return job


def is_firing(lab: LabProcesses) -> bool:
    """Whether the job's firing has begun, and its program runs."""
    job = the_job(lab)
    begun = any(
        step.name == "fire_seat" and step.state is StepState.INTENT
        for step in lab.read(steps_of, job_id=job.id)
    )
    return begun and "start furnace_1" in lab.ask(truth=True)["acts"]


def is_over(lab: LabProcesses) -> Callable[[], bool]:
    """Return what tells whether the job has ended."""
    return lambda: the_job(lab).state in ENDED


def wait_for_firing(lab: LabProcesses, guard: Running) -> int:
    """Wait until the job's firing is under way; return the process of the cell."""
    lab.wait_for("the firing", lambda: is_firing(lab))
    assert guard.cell is not None
    return guard.cell


def check_joined(lab: LabProcesses) -> None:
    """Check that the job has succeeded, and that nothing was done twice."""
    lab.wait_for("the job's end", is_over(lab))
    job = the_job(lab)
    acts: dict[str, Any] = lab.ask(truth=True)["acts"]

    assert job.state is JobState.SUCCEEDED, f"{job.reason_text}\n{lab.told()}"
    assert len(acts["start furnace_1"]) == 1
    assert len(acts["move crucible_04 to furnace_1.slot_1"]) == 1
    assert lab.ask(incidents=True)["incidents"] == []


def stop(lab: LabProcesses, guard: Running) -> int:
    """Ask a guard to end, and return its exit code."""
    guard.process.send_signal(signal.SIGTERM)
    lab.wait_for("the guard's end", lambda: guard.process.poll() is not None)
    return guard.process.returncode


def test_job_goes_on_with_a_new_cell_when_the_cell_is_killed(
    lab: LabProcesses,
) -> None:
    """The guard notices, sees to the instruments, and the new cell joins the firing."""
    guard = lab.start_guard("--may-heat")
    lab.kill(wait_for_firing(lab, guard))
    lab.wait_for("the notice", lambda: guard.lines.find("was killed by SIGKILL"))

    check_joined(lab)
    assert (
        guard.lines.find("furnace_1: left alone, its program is in state") is not None
    )
    assert stop(lab, guard) == 0


def test_cell_is_replaced_when_it_is_stopped_and_silent(lab: LabProcesses) -> None:
    """A process that exists and does nothing is as good as dead."""
    guard = lab.start_guard("--may-heat")
    cell = wait_for_firing(lab, guard)
    lab.kill(cell, signal.SIGSTOP)
    lab.wait_for("the notice", lambda: guard.lines.find("no heartbeat for 3 s"))

    check_joined(lab)
    assert cell not in lab.cells()
    assert stop(lab, guard) == 0


def test_cell_drains_and_the_next_guard_goes_on_when_the_guard_is_killed(
    lab: LabProcesses,
) -> None:
    """Nobody would see to the instruments if the cell died, too: it ends."""
    first = lab.start_guard("--may-heat")
    cell = wait_for_firing(lab, first)
    first.process.kill()
    lab.wait_for("the cell's end", lambda: cell not in lab.cells())

    assert the_job(lab).state is JobState.LOST
    assert first.lines.find("the guard is dead") is not None
    second = lab.start_guard("--may-heat")
    check_joined(lab)
    assert stop(lab, second) == 0


def test_next_guard_sees_to_the_instruments_when_both_were_killed(
    lab: LabProcesses,
) -> None:
    """Nobody was left to notice; whoever comes looks before a cell does."""
    first = lab.start_guard("--may-heat")
    cell = wait_for_firing(lab, first)
    first.process.kill()
    lab.kill(cell)
    second = lab.start_guard("--may-heat")

    check_joined(lab)
    assert second.lines.find("furnace_1: left alone, its program is in") is not None
    assert stop(lab, second) == 0


def test_cell_drains_when_the_guard_is_asked_to_stop(lab: LabProcesses) -> None:
    """A firing goes on by itself; the job waits for the next cell, and is not lost."""
    guard = lab.start_guard()
    wait_for_firing(lab, guard)

    assert stop(lab, guard) == 0
    assert the_job(lab).state is JobState.LOST
    assert lab.read(newest).how == "its cell drained"
    assert lab.cells() == []
