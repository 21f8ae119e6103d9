"""What is done with what aborted and killed jobs left in a furnace."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cell_life import ask, job, steps_of, write
from mortal import MortalCell
from ppu.core.registry import find_lab
from ppu.plans.protocol import find_protocol
from ppu.store import custody, queue
from ppu.store.jobs import Effect, JobRequest, JobState
from ppu.store.requests import Abort
from ppu.store.waiting import reasons_to_wait

WISH: dict[str, Any] = {
    "container": "crucible_04",
    "temperature_degc": 300.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 600.0,
    "cool_to_degc": 150.0,
}


@pytest.fixture
def life(tmp_path: Path) -> Iterator[MortalCell]:
    """A cell of the bundled lab."""
    content = yaml.safe_load(find_lab("a-lab").read_text())
    one = MortalCell(content, tmp_path, {"fire_sample": find_protocol("fire_sample")})
    yield one
    one.close()


@pytest.mark.parametrize("restart", ["none", "end", "kill"])
def test_jobs_that_wait_for_a_crucible_wait_on_when_its_job_is_aborted(
    life: MortalCell, restart: str
) -> None:
    """They have touched nothing, say for what they wait, and begin when it is clean."""
    wanted = [JobRequest("fire_sample", "1", WISH)] * 3
    life.start()
    first, *others = write(life, partial(queue.submit_many, wanted=wanted))
    while "fire_seat" not in steps_of(life, first):
        life.advance(60.0)
    life.advance(600.0)
    ask(life, Abort(), first)
    if restart != "none":
        life.end() if restart == "end" else life.kill()
        life.start()
    life.advance(3600.0)

    assert job(life, first).state is JobState.ABORTED
    for other in others:
        waiting = job(life, other)
        assert waiting.ended is None
        assert waiting.physical_effect is Effect.NONE
        with life.store.read() as connection:
            (why,) = reasons_to_wait(connection, waiting)
        assert f"fire_sample-{first}, which is quarantined" in why.text

    move = partial(custody.ask_move, location="rack_1.4", by="anna")
    write(life, partial(move, container="crucible_04"))
    life.advance(1.0)
    release = partial(custody.ask_release, sample=f"fire_sample-{first}", by="anna")
    write(life, release)
    life.advance(2 * 3600.0)

    # It is clean and empty now: whoever is next has looked and weighed, and says so.
    told = {job(life, other).reason_text or "" for other in others}
    assert told == {"", "crucible_04 weighs +0.0000 g more than empty: nothing to fire"}
    assert life.store.check() == []


def test_crucible_of_a_joined_firing_is_taken_out_without_a_person(
    life: MortalCell,
) -> None:
    """After a crash nothing heats before a person agrees; carrying is no heating."""
    wanted = [JobRequest("fire_sample", "1", WISH)] * 2
    life.start()
    first, other = write(life, partial(queue.submit_many, wanted=wanted))
    while "fire_seat" not in steps_of(life, first):
        life.advance(60.0)
    life.advance(600.0)
    life.kill()
    life.start()
    life.advance(8 * 3600.0)

    assert job(life, first).state is JobState.SUCCEEDED
    assert job(life, other).state is JobState.NEEDS_INPUT
    assert "fire_seat" not in steps_of(life, other)
    assert "not heated before" in str(job(life, other).reason_text)
