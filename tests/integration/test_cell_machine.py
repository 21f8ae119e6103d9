"""Whatever people ask, wherever the cell dies: jobs end, and nothing is done twice."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exercise import LAB, N_CUPS, World, exercise
from mortal import MortalCell
from ppu.core.errors import ConfigurationError, ConflictError
from ppu.store import commands, custody, queue, steps
from ppu.store.jobs import ENDED, JobRequest, JobState
from ppu.store.requests import Abort, AllowHeat

N_SEQUENCES = int(os.environ.get("PPU_MACHINE_SEQUENCES", "50"))
"""`make campaign-machine` runs a thousand."""
N_RULES = 40
WHICH = st.integers(0, 11)


class CellMachine(RuleBasedStateMachine):
    """People, faults and deaths in any order."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("bluesky").setLevel(logging.CRITICAL)
        World.acts = Counter()
        World.n_faults_due = 0
        self._folder = tempfile.TemporaryDirectory()
        self.life = MortalCell(LAB, Path(self._folder.name), {"exercise": exercise})
        self.n_submitted = 0

    @initialize()
    def begin(self) -> None:
        """Start the first cell."""
        self.life.start()

    # -- helpers -------------------------------------------------------------------

    def write(self, work: Any) -> None:
        """Write as a command line does: beside the cell, which may be quicker."""
        with contextlib.suppress(ConfigurationError, ConflictError):
            self.life.store.write(partial(work, now=self.life.loop.stamp()))

    def open_jobs(self) -> list[int]:
        """Return the jobs that have not ended."""
        return [job.id for job in self.life.jobs() if job.state not in ENDED]

    def pick(self, which: int) -> int | None:
        """Return one of the jobs that have not ended, if there is one.

        What is drawn must not depend on what has happened: hypothesis draws it again.
        """
        found = self.open_jobs()
        return found[which % len(found)] if found else None

    # -- what people do --------------------------------------------------------------

    @precondition(lambda self: self.n_submitted < N_CUPS)
    @rule(kind=st.sampled_from(["press", "fire", "shake"]), priority=st.integers(0, 2))
    def submit(self, kind: str, priority: int) -> None:
        """Submit a job."""
        self.n_submitted += 1
        wish = {"kind": kind, "number": self.n_submitted}
        request = JobRequest("exercise", "1", wish, priority=priority)
        self.write(partial(queue.submit, wanted=request))
        self.life.advance(1.0)

    @rule(which=WHICH)
    def hold(self, which: int) -> None:
        """Hold a job."""
        if (job := self.pick(which)) is not None:
            self.write(partial(queue.hold, job_id=job))
            self.life.advance(0.1)

    @rule(which=WHICH)
    def resume(self, which: int) -> None:
        """Let a job go on."""
        if (job := self.pick(which)) is not None:
            self.write(partial(queue.resume, job_id=job))
            self.life.advance(0.1)

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        """Cancel a job."""
        if (job := self.pick(which)) is not None:
            self.write(partial(queue.cancel, job_id=job, by="somebody"))
            self.life.advance(0.1)

    @rule(which=WHICH)
    def abort(self, which: int) -> None:
        """Abort a job."""
        if (job := self.pick(which)) is not None:
            ask = partial(commands.request, wanted=Abort(), by="somebody", job_id=job)
            self.write(ask)
            self.life.advance(0.1)

    @rule()
    def break_shaker(self) -> None:
        """Let the shaker be stuck the next few times."""
        World.n_faults_due += 2

    @rule(which=WHICH)
    def answer(self, which: int) -> None:
        """Answer a question, if one is asked: about acts truthfully."""
        with self.life.store.read() as connection:
            found = [q for q in steps.questions(connection) if q.answered is None]
        if found:
            self.answer_one(found[which % len(found)], which)

    def answer_one(self, question: Any, which: int | None) -> None:
        """Answer *question*."""
        done = question.step
        if "happened" in question.answers:
            said = "happened" if self.has_happened(done) else "not-happened"
        elif which is None:
            said = "retry"
        else:
            said = question.answers[which % len(question.answers)]
        self.write(
            partial(
                steps.answer, job_id=done.job_id, path=done.path, said=said, by="anna"
            )
        )
        self.life.advance(0.5)

    def has_happened(self, done: steps.Step) -> bool:
        """Look into the world, as a person would."""
        arguments = done.arguments[0]
        if done.name == "press":
            return bool(World.acts[arguments[2]])
        if done.name == "move_container":
            bench = self.life.lab.bench
            assert bench is not None
            where = bench.world.truth(self.life.loop.time())["containers"]
            return bool(where[arguments[1]] == arguments[2])
        assert done.name in ("fire_seat", "fire")
        return False  # it is to be fired anew, as its program is gone

    @rule()
    def tidy(self) -> None:
        """Carry home what jobs that ended left elsewhere, and say so."""
        ledger = self.life.lab.ledger
        for container, entry in self.life.lab.file.containers.items():
            is_home = ledger.places[container] == entry.at
            if container in ledger.under_way or not is_home:
                said = partial(custody.ask_move, container=container, by="anna")
                self.write(partial(said, location=entry.at))
        self.life.advance(0.1)

    @rule()
    def allow_heat(self) -> None:
        """Agree to heat after a death."""
        self.write(partial(commands.request, wanted=AllowHeat(), by="anna"))
        self.life.advance(0.1)

    # -- what happens ----------------------------------------------------------------

    @rule(seconds=st.sampled_from([5.0, 31.0, 200.0, 3000.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.life.advance(seconds)

    @rule()
    def die(self) -> None:
        """Kill the cell, and start the next one."""
        self.life.kill()
        self.life.start()
        self.life.advance(0.5)

    # -- what must always hold -------------------------------------------------------

    @invariant()
    def nothing_is_done_twice(self) -> None:
        """No irreversible act happens a second time."""
        assert not [act for act, n in World.acts.items() if n > 1]

    @invariant()
    def jobs_that_ended_have_nothing(self) -> None:
        """What a job had to itself, others may have when it has ended."""
        ended = {job.id for job in self.life.jobs() if job.state in ENDED}
        reservations = self.life.lab.resources.reservations
        for name in [*self.life.lab.file.devices, *self.life.lab.file.locations]:
            assert not reservations.owners_of(name) & ended

    def teardown(self) -> None:
        """All jobs come to an end once people see to them; then all agrees."""
        try:
            if self.life.cell is not None:
                self.finish()
        finally:
            self.life.close()
            self._folder.cleanup()

    def finish(self) -> None:
        """See every job through."""
        World.n_faults_due = 0
        for _ in range(60):
            for job in self.open_jobs():
                self.write(partial(queue.resume, job_id=job))
            self.allow_heat()
            self.tidy()
            with self.life.store.read() as connection:
                asked = [q for q in steps.questions(connection) if q.answered is None]
            for question in asked:
                self.answer_one(question, None)
            self.life.advance(3000.0)
            self.nothing_is_done_twice()
            if not self.open_jobs():
                break
        told = [(j.id, str(j.state), j.reason_text) for j in self.life.jobs()]
        assert not self.open_jobs(), (told, self.life.lab.resources.waits)
        assert self.life.store.check() == []
        self.jobs_that_ended_have_nothing()
        for done in self.life.jobs():
            if done.state is JobState.SUCCEEDED:
                act = f"exercise-{done.id} pressed"
                assert (done.result["acts"], World.acts[act]) == ([act], 1)
        bench = self.life.lab.bench
        assert bench is not None
        truth = bench.world.truth(self.life.loop.time())["containers"]
        for container, place in self.life.lab.ledger.places.items():
            if container not in self.life.lab.ledger.under_way:
                assert truth[container] == place, container


def test_jobs_end_and_nothing_is_done_twice_whatever_happens() -> None:
    """Any sequence of requests, faults and deaths leaves every job ended and sound."""
    run_state_machine_as_test(
        CellMachine,
        settings=settings(
            max_examples=N_SEQUENCES,
            stateful_step_count=N_RULES,
            # Sequences are played by threads, and are long: what fails is not shrunk.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
