"""Kill cells and guards of a busy lab at random, and look whether anything is lost.

The world is a simulated bench in a process of its own, which outlives them all and
counts what is done that cannot be undone. Jobs are submitted all the time. A person is
played here, too, who looks at the world and answers what `ppu recover` asks.

Run by `make campaign-kill`; CI runs a few kills of it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from sqlalchemy import Connection, select

from lab_processes import LabProcesses, Running, parent_of
from large_lab import large_lab
from pages import replace_section
from ppu.store import commands, queue
from ppu.store.cells import newest
from ppu.store.custody import ask_move
from ppu.store.documents import documents_of
from ppu.store.jobs import ENDED, Job, JobRequest, JobState
from ppu.store.requests import AllowHeat
from ppu.store.schema import containers, jobs, sample_containers, samples
from ppu.store.steps import Question, StepState, answer, questions, steps_of

HEADING: Final = "## Cells and guards that are killed"
KILLS: Final = 150
PACE: Final = 80.0
N_AT_ONCE: Final = 8
"""How many jobs have not ended, as long as jobs are submitted."""
N_AT_ONCE_IF_FEW: Final = 3
"""That for a campaign of few kills, which would last long after the last one."""
_FEW: Final = 10
N_SLOTS: Final = 2
N_GRINDS: Final = 2
"""How often the arm plays its program to grind as long as is asked."""
NOTICED_WITHIN_S: Final = 3.0
SEEN_TO_WITHIN_S: Final = 10.0
_FIRING: Final = {
    "temperature_degc": 250.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 600.0,
    "cool_to_degc": 190.0,
}
_SYNTHESIS: Final = {**_FIRING, "milling_s": 120.0, "scan_duration_s": 240.0}
_LONGEST_PAUSE_S: Final = 8.0
_AGAIN: Final = 0.15
"""How often the next kill comes while the lab still recovers from the last one."""
_HAND_PATIENCE_S: Final = 20.0
"""How long a container may be in the arm's hand before a person gives up [s]."""
_LAST_JOBS_WALL_S: Final = 900.0


def write_lab(path: Path, n_syntheses: int, n_firings: int) -> list[str]:
    """Write the lab file of a campaign; return the crucibles that are full already."""
    content = large_lab(n_syntheses + n_firings, N_SLOTS)
    crucibles = [name for name in content["containers"] if name.startswith("crucible")]
    full = crucibles[n_syntheses:]
    for name in full:
        content["containers"][name]["contents"] = {"CaCO3": 2.0}
    # Real seconds until a new cell feeds it are minutes here.
    safety = content["devices"]["furnace_2"]["settings"]["safety"]
    safety["watchdog_timeout_s"] = 3600
    content["devices"]["furnace_2"]["twin"]["registers"] = {1169: 60}
    # A wire's milliseconds are seconds here, so a program seems to be too quick.
    content["devices"]["robot_arm"]["settings"]["haste"] = 0.1
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return full


@dataclass
class Kill:
    """What was killed, and what was seen after it [s after the kill].

    Attributes:
        kind: ``cell``, ``guard`` or ``both``.
        noticed_s: Until somebody said so; None if nobody was left to.
        seen_to_s: Until instruments were in their orphan states or a cell had them.
        adopted_s: Until a new cell ran and no job was lost; None if the next kill came.
    """

    kind: str
    time_s: float
    noticed_s: float | None = None
    seen_to_s: float | None = None
    adopted_s: float | None = None


@dataclass
class Tally:
    """What a campaign has found."""

    kills: list[Kill] = field(default_factory=list)
    n_jobs: int = 0
    n_succeeded: int = 0
    n_steps: int = 0
    n_acts: int = 0
    n_runs: int = 0
    n_documents: int = 0
    n_answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    wall_s: float = 0.0


class Person:
    """Answers what jobs ask by looking at the world.

    Args:
        lab: The lab's processes.
        tally: Where answers are counted.
    """

    def __init__(self, lab: LabProcesses, tally: Tally) -> None:
        self._lab = lab
        self._tally = tally
        self._asked_to_move: dict[str, str] = {}
        self._since: dict[tuple[int, str, int], float] = {}

    def look(self) -> None:
        """Answer what is asked now, and agree to heat if that is wanted."""
        lab = self._lab
        asked = [one for one in lab.read(questions) if one.answered is None]
        truth = lab.ask(truth=True) if asked else {}
        for question in asked:
            said = self._judge(question, truth)
            if said is not None:
                self._answer(question, said)
        self._agree_to_heat()
        self._find_lost()

    def _answer(self, question: Question, said: str) -> None:
        step = question.step

        def work(connection: Connection, now: float) -> None:
            open_now = questions(connection, step.job_id)
            if any(q.step.path == step.path and q.answered is None for q in open_now):
                answer(connection, step.job_id, step.path, said, "campaign", now)

        self._lab.write(work)
        self._tally.n_answers[f"{step.name}: {said}"] += 1

    def _agree_to_heat(self) -> None:
        def work(connection: Connection, now: float) -> bool:
            waiting = queue.find(connection, states=[JobState.NEEDS_INPUT], limit=1000)
            if not any(job.reason_code == "restart" for job in waiting):
                return False
            if any(one.command == "may heat" for one in commands.waiting(connection)):
                return False
            commands.request(connection, AllowHeat(), "campaign", now)
            return True

        if self._lab.write(work):
            self._tally.n_answers["may heat"] += 1

    def _find_lost(self) -> None:
        """Say where containers are that did not arrive before their jobs ended."""

        def missing(connection: Connection) -> list[str]:
            found = connection.execute(
                select(containers.c.name)
                .join(
                    sample_containers,
                    sample_containers.c.container == containers.c.name,
                )
                .join(samples, samples.c.id == sample_containers.c.sample)
                .join(jobs, jobs.c.id == samples.c.job_id)
                .where(
                    containers.c.location.is_(None),
                    jobs.c.state.in_([str(state) for state in ENDED]),
                )
            )
            return list(found.scalars())

        for name in self._lab.read(missing):
            at = self._lab.ask(truth=True)["containers"][name]
            if at is None or self._asked_to_move.get(name) == at:
                continue
            self._asked_to_move[name] = at
            self._lab.write(
                partial(ask_move, container=name, location=at, by="campaign")
            )
            self._tally.n_answers["where a container is"] += 1

    def _judge(self, question: Question, truth: dict[str, Any]) -> str | None:
        """Return the answer; None to look again later."""
        if "happened" not in question.answers:
            step = question.step
            self._tally.failures.append(
                f"job {step.job_id}, step {step.path} {step.name}: {question.text}"
            )
            return "retry" if step.attempt < 3 else "abort"
        has_happened = self._has_happened(question, truth)
        if has_happened is None:
            return None
        return "happened" if has_happened else "not-happened"

    def _has_happened(self, question: Question, truth: dict[str, Any]) -> bool | None:
        step, acts = question.step, truth["acts"]
        words = _words(step.arguments)
        if step.name == "move_container":
            container, destination = words[0], words[1]
            at = truth["containers"][container]
            if at is None:
                return self._wait_for_hand(question)
            return bool(at == destination)
        if step.name == "dose_powders":
            container = step.arguments[0][2]["container"]
            n_asked = len(step.arguments[0][2]["doses"])
            n_dosed = sum(f"into {container}" in act for act in acts)
            if 0 < n_dosed < n_asked:
                return self._wait_for_hand(question)
            return n_dosed > 0
        if step.name == "grind_powder":
            n_ground = len(acts.get(f"grind {words[-1]}", ()))
            if 0 < n_ground < N_GRINDS:
                return self._wait_for_hand(question, "happened")
            return n_ground > 0
        if step.name == "mount_powder":
            return f"mount {words[-2]} on {words[-1]}" in acts
        if step.name in ("fire", "fire_seat"):
            furnace = next(word for word in words if word.startswith("furnace_"))
            starts = acts.get(f"start {furnace}", [])
            return any(self._lab.epoch + start >= step.begun for start in starts)
        raise AssertionError(f"nobody knows how to judge {question}")

    def _wait_for_hand(self, question: Question, then: str = "") -> bool | None:
        """Look again while something is still under way, but not for ever.

        Args:
            question: What is asked.
            then: What to say if nothing changes any more; by default that is wrong.
        """
        step = question.step
        key = (step.job_id, step.path, step.attempt)
        now = self._lab.elapsed()
        if now - self._since.setdefault(key, now) < _HAND_PATIENCE_S:
            return None
        if not then:
            self._tally.violations.append(
                f"job {step.job_id}, step {step.path}: {step.name} stays half done"
            )
        return then == "happened"


def _words(arguments: Any) -> list[str]:
    """Return all text in the arguments of a step, but the lab's name."""
    if isinstance(arguments, str):
        return [] if arguments.startswith("lab ") else [arguments]
    if isinstance(arguments, dict):
        return [word for value in arguments.values() for word in _words(value)]
    if isinstance(arguments, list):
        return [word for value in arguments for word in _words(value)]
    return []


class Campaign:
    """Submits, kills and looks.

    Args:
        lab: The lab's processes.
        n_kills: How often something is killed.
        full: Crucibles with a sample in them, for ``fire_sample``.
        n_syntheses: How many crucibles are empty.
        rng: What chance is drawn from.
    """

    def __init__(
        self,
        lab: LabProcesses,
        n_kills: int,
        full: Sequence[str],
        n_syntheses: int,
        rng: random.Random,
    ) -> None:
        self.tally = Tally()
        self._lab = lab
        self._n_kills = n_kills
        self._full = list(full)
        self._n_left = n_syntheses
        self._rng = rng
        self._ids: list[int] = []
        self._person = Person(lab, self.tally)
        self._guard: Running

    def run(self) -> None:
        """Run the campaign to its end, and judge it."""
        lab, tally = self._lab, self.tally
        self._submit()
        self._guard = self._start_guard()
        self._live_until(lambda: self._is_recovered(self._guard, -1), "the first cell")
        for n_kill in range(self._n_kills):
            pause = self._rng.uniform(0.2, _LONGEST_PAUSE_S)
            self._live(pause)
            is_last = n_kill == self._n_kills - 1
            self._kill_something(is_followed=not is_last)
            kill = self.tally.kills[-1]
            sys.stderr.write(f"{n_kill + 1} of {self._n_kills}: {kill}\n")
        self._n_left, self._full = 0, []
        self._live_until(self._is_idle, "the last jobs", _LAST_JOBS_WALL_S)
        self._guard.process.send_signal(signal.SIGTERM)
        lab.wait_for("the guard's end", lambda: self._guard.process.poll() is not None)
        if self._guard.process.returncode != 0:
            code = self._guard.process.returncode
            tally.violations.append(f"the last guard ended with code {code}")
        tally.wall_s = lab.elapsed()
        self._judge()

    def _start_guard(self) -> Running:
        return self._lab.start_guard("--early-ends", "1000000")

    # -- what goes on --------------------------------------------------------------

    def _live(self, for_s: float) -> None:
        until = self._lab.elapsed() + for_s
        while self._lab.elapsed() < until:
            self._look(until)

    def _live_until(self, is_so: Any, what: str, within_s: float = 120.0) -> None:
        until = self._lab.elapsed() + within_s
        while not is_so():
            if self._lab.elapsed() > until:
                raise AssertionError(
                    f"{what}: not within {within_s:g} s\n{self._lab.told()}\n"
                    f"{self._open_jobs()}"
                )
            self._look(until)
            if self._guard.process.poll() is not None:
                raise AssertionError(f"the guard has ended\n{self._lab.told()}")

    def _look(self, until: float) -> None:
        """Answer, submit, and wait a moment or for the next line."""
        self._person.look()
        self._submit()
        with self._lab.news:
            left = until - self._lab.elapsed()
            self._lab.news.wait(max(0.0, min(0.2, left)))

    def _open_jobs(self) -> str:
        found = self._lab.read(queue.find, limit=10**6)
        lines = [
            f"job {job.id}: {job.protocol} {job.state} {job.reason_text or ''}"
            for job in found
            if job.state not in ENDED
        ]
        return "\n".join(lines)

    def _submit(self) -> None:
        """Keep some jobs in the queue."""
        if not (self._n_left or self._full):
            return
        found: list[Job] = self._lab.read(queue.find, limit=10**6)
        wanted = []
        n_wanted = N_AT_ONCE if self._n_kills > _FEW else N_AT_ONCE_IF_FEW
        for _ in range(n_wanted - sum(job.state not in ENDED for job in found)):
            if self._full and (not self._n_left or self._rng.random() < 0.4):
                parameters = {**_FIRING, "container": self._full.pop(0)}
                wanted.append(JobRequest("fire_sample", "1", parameters))
            elif self._n_left:
                self._n_left -= 1
                wanted.append(JobRequest("solid_state_synthesis", "1", _SYNTHESIS))
        if wanted:
            self._ids += self._lab.write(partial(queue.submit_many, wanted=wanted))

    def _is_idle(self) -> bool:
        found = self._lab.read(queue.find, limit=10**6)
        return all(job.state in ENDED for job in found)

    # -- killing -------------------------------------------------------------------

    def _kill_something(self, *, is_followed: bool) -> None:
        kind = self._rng.choices(["cell", "guard", "both"], [6, 2, 2])[0]
        guard, lab = self._guard, self._lab
        cells = lab.cells()
        if kind == "cell" and guard.process.pid not in map(parent_of, cells):
            kind = "both"  # there is none yet, or an earlier one drains alone
        mark = len(guard.lines.all) - 1
        kill = Kill(kind, lab.elapsed())
        self.tally.kills.append(kill)
        if kind != "guard":
            for cell in cells:
                lab.kill(cell)
        if kind != "cell":
            guard.process.kill()
            guard.process.wait()
        if kind == "guard":  # its cell says so, on the pipe that it has inherited
            self._await_notice(kill, guard, r"the guard is dead", mark)
            self._guard, mark = self._start_guard(), -1
        elif kind == "both":
            self._guard, mark = self._start_guard(), -1
        else:
            self._await_notice(kill, guard, r"guard: the cell of process", mark)
        within = None
        if is_followed and self._rng.random() < _AGAIN:
            within = self._rng.uniform(0.0, 5.0)
        self._await_recovery(kill, mark, within)

    def _await_notice(
        self, kill: Kill, guard: Running, pattern: str, mark: int
    ) -> None:
        """Wait until somebody has noticed; nobody does if there was nobody."""
        lab = self._lab

        def is_noticed() -> bool:
            line = guard.lines.find(pattern, mark)
            if line is not None:
                kill.noticed_s = line.time_s - kill.time_s
            return line is not None or not (lab.cells() or kill.kind == "cell")

        lab.wait_for("a notice", is_noticed, 2 * NOTICED_WITHIN_S)

    def _await_recovery(self, kill: Kill, mark: int, within_s: float | None) -> None:
        lab = self._lab
        until = lab.elapsed() + (120.0 if within_s is None else within_s)
        while lab.elapsed() < until:
            line = self._guard.lines.find("is in its orphan state|not get to", mark)
            if line is not None and kill.seen_to_s is None:
                kill.seen_to_s = line.time_s - self._left_alone_since(kill)
            if self._is_recovered(self._guard, mark):
                kill.adopted_s = lab.elapsed() - kill.time_s
                return
            self._look(until)
        if within_s is None:
            raise AssertionError(
                f"no cell came back\n{lab.told()}\n{self._open_jobs()}"
            )

    def _left_alone_since(self, kill: Kill) -> float:
        """Return since when nobody had the instruments: a cell drains alone."""
        if kill.kind != "guard":
            return kill.time_s
        ends = [
            line.time_s
            for guard in self.guards_before
            for line in guard.lines.all
            if line.text.startswith("cell: ended")
        ]
        return max([kill.time_s, *ends])

    @property
    def guards_before(self) -> list[Running]:
        """The guards that were killed."""
        return [guard for guard in self._lab.guards if guard is not self._guard]

    def _is_recovered(self, guard: Running, mark: int) -> bool:
        """Whether a new cell runs and has adopted what was lost."""
        if guard.lines.find("the cell of process .* runs", mark) is None:
            return False

        def look(connection: Connection) -> bool:
            cell = newest(connection)
            lost = queue.find(connection, states=[JobState.LOST], limit=1)
            return cell is not None and cell.ended is None and not lost

        return bool(self._lab.read(look))

    # -- judging -------------------------------------------------------------------

    def _judge(self) -> None:
        tally = self.tally
        self._judge_times()
        self._judge_jobs()
        self._judge_acts()
        self._judge_documents()
        incidents = self._lab.ask(incidents=True)["incidents"]
        tally.violations += [f"incident: {one['text']}" for one in incidents]
        done = subprocess.run(
            [sys.executable, "-m", "ppu", "store", "check"],
            env={"PPU_STORE": str(self._lab.store), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()
            tally.violations += [f"store: {line}" for line in lines]

    def _judge_times(self) -> None:
        for kill in self.tally.kills:
            for name, seconds, most in (
                ("noticed", kill.noticed_s, NOTICED_WITHIN_S),
                ("seen to", kill.seen_to_s, SEEN_TO_WITHIN_S),
            ):
                if seconds is not None and seconds > most:
                    self.tally.violations.append(
                        f"{kill.kind} killed at {kill.time_s:.1f} s: {name} after "
                        f"{seconds:.1f} s, allowed are {most:g} s"
                    )

    def _judge_jobs(self) -> None:
        tally, lab = self.tally, self._lab
        found: dict[int, Job] = {
            job.id: job for job in lab.read(queue.find, limit=10**6)
        }
        tally.n_jobs = len(self._ids)
        if set(found) != set(self._ids):
            tally.violations.append("the store has not just the jobs that were taken")
        for job_id in self._ids:
            job = found.get(job_id)
            if job is None:
                tally.violations.append(f"job {job_id} is lost")
                continue
            results = list(lab.results.glob(f"{job_id}/result.json"))
            if job.state is JobState.SUCCEEDED:
                tally.n_succeeded += 1
                if len(results) != 1 or job.result is None:
                    tally.violations.append(f"job {job_id} has succeeded, no result")
            else:
                tally.failures.append(
                    f"job {job_id} {job.protocol} {job.state}: {job.reason_text}"
                )
                if job.reason_code not in ("InstrumentError",):
                    tally.violations.append(
                        f"job {job_id} {job.state}: {job.reason_code}: "
                        f"{job.reason_text}"
                    )
        uses: dict[str, list[str]] = defaultdict(list)

        def contents(connection: Connection) -> list[Any]:
            wanted = select(sample_containers.c.container, samples.c.id).join(
                samples, samples.c.id == sample_containers.c.sample
            )
            return list(connection.execute(wanted).all())

        for container, sample in lab.read(contents):
            uses[container].append(sample)
        for container, held in uses.items():
            if len(held) > 1:
                tally.violations.append(f"{container} holds {', '.join(held)}")

    def _judge_acts(self) -> None:
        """Compare what the world counted with what the steps say."""
        tally, lab = self.tally, self._lab
        acts: dict[str, list[float]] = lab.ask(truth=True)["acts"]
        tally.n_acts = sum(len(times) for times in acts.values())
        moves: Counter[str] = Counter()
        undone: set[str] = set()
        firings: dict[str, set[str]] = defaultdict(set)
        steps = [
            step for job_id in self._ids for step in lab.read(steps_of, job_id=job_id)
        ]
        tally.n_steps = len(steps)
        for step in steps:
            words = _words(step.arguments)
            if step.name == "move_container":
                act = f"move {words[0]} to {words[1]}"
                if step.state is StepState.DONE:
                    moves[act] += 1
                else:
                    undone.add(act)
            elif step.name == "fire_seat" and "lead" in words:
                seat = step.arguments[0][1]
                firings[seat["furnace"]].add(seat["firing"])
        for act in {*acts, *moves}:
            n_times = len(acts.get(act, ()))
            least, most = 0, N_GRINDS if act.startswith("grind ") else 1
            if act.startswith("move "):
                least, most = moves[act], moves[act] + (act in undone)
            elif act.startswith("start "):
                most = len(firings[act.removeprefix("start ")])
            if not least <= n_times <= most:
                said = f"{least} to {most}" if least < most else f"{most}"
                tally.violations.append(f"{act}: {n_times} times instead of {said}")

    def _judge_documents(self) -> None:
        """Count each run's events again."""
        tally, lab = self.tally, self._lab
        for job_id in self._ids:
            runs: dict[str, Counter[str]] = {}
            stops: dict[str, dict[str, int]] = {}
            streams: dict[str, tuple[str, str]] = {}
            for name, content in lab.read(
                lambda connection, job=job_id: list(documents_of(connection, job))
            ):
                tally.n_documents += 1
                if name == "start":
                    runs[content["uid"]] = Counter()
                elif name == "descriptor":
                    streams[content["uid"]] = (content["run_start"], content["name"])
                elif name in ("event", "event_page"):
                    run, stream = streams[content["descriptor"]]
                    seq = content["seq_num"]
                    runs[run][stream] += len(seq) if isinstance(seq, list) else 1
                elif name == "stop":
                    if content["run_start"] in stops:
                        tally.violations.append(f"job {job_id}: two stops of one run")
                    stops[content["run_start"]] = content.get("num_events", {})
            tally.n_runs += len(runs)
            for uid, counted in runs.items():
                if uid not in stops:
                    tally.violations.append(f"job {job_id}: run {uid} has no stop")
                    continue
                said = {name: n for name, n in stops[uid].items() if n}
                if said != dict(counted):
                    tally.violations.append(
                        f"job {job_id}: its stop says {said}, there are {dict(counted)}"
                    )


# -- reporting -------------------------------------------------------------------------


def spread(values: Sequence[float | None]) -> str:
    """Return median, 95th percentile and greatest of what was measured."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "- | - | -"
    late = known[min(len(known) - 1, int(0.95 * len(known)))]
    return f"{statistics.median(known):.2f} | {late:.2f} | {known[-1]:.2f}"


def table(tally: Tally) -> str:
    """Return the figures as Markdown tables."""
    lines = [
        "| killed | times | noticed after: median [s] | 95 % | longest | instruments "
        "seen to after: median [s] | 95 % | longest | jobs adopted after: median [s] | "
        "95 % | longest |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in ("cell", "guard", "both"):
        kills = [kill for kill in tally.kills if kill.kind == kind]
        lines.append(
            f"| {kind} | {len(kills)} | {spread([k.noticed_s for k in kills])} | "
            f"{spread([k.seen_to_s for k in kills])} | "
            f"{spread([k.adopted_s for k in kills])} |"
        )
    asked = ", ".join(f"{said} {n}" for said, n in sorted(tally.n_answers.items()))
    n_failed = tally.n_jobs - tally.n_succeeded
    lines += [
        "",
        "| figure | |",
        "|---|---|",
        f"| jobs taken, succeeded, failed for a stated reason | {tally.n_jobs}, "
        f"{tally.n_succeeded}, {n_failed} |",
        f"| steps, acts counted by the world | {tally.n_steps}, {tally.n_acts} |",
        f"| runs, documents | {tally.n_runs}, {tally.n_documents} |",
        f"| answers by a person | {asked or 'none'} |",
        f"| violations | {len(tally.violations)} |",
        f"| real time | {tally.wall_s / 60:.1f} min |",
    ]
    return "\n".join(lines) + "\n"


def section(tally: Tally) -> str:
    """Return the section of docs/performance.md."""
    return f"""{HEADING}

Written by `make campaign-kill`. A guard, its cell and a simulated bench are processes;
jobs run all the time, {N_AT_ONCE} at once, at pace {PACE:g}. At random moments the
cell, the guard or both get `kill -9`; what a person must say is answered by looking at
the world. Required: no job lost, no result twice, nothing done twice that cannot be
undone (the world counts), death noticed within {NOTICED_WITHIN_S:g} s, instruments in
their orphan states or with a cell within {SEEN_TO_WITHIN_S:g} s, every run with its
stop and all its events, the store in order, no incident. Where both were killed nobody
is left to notice; a new guard is started at once, as a service manager does.

{table(tally)}"""


def main() -> int:
    """Run the campaign; return 1 if anything is violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=PACE)
    parser.add_argument("--page", type=Path, help="page whose section is replaced")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--keep", type=Path, help="folder to leave everything in")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)  # noqa: S311 - chance, no secret
    n_syntheses, n_firings = 6 + asked.kills // 3, 4 + asked.kills // 4
    with tempfile.TemporaryDirectory(prefix="ppu-kill-") as temporary:
        folder = Path(temporary)
        lab_file = folder / "lab.yaml"
        full = write_lab(lab_file, n_syntheses, n_firings)
        with LabProcesses(folder, lab_file, asked.pace) as lab:
            campaign = Campaign(lab, asked.kills, full, n_syntheses, rng)
            try:
                campaign.run()
            finally:
                if asked.keep is not None:
                    told = lab.told(10**6)
                    (folder / "told.txt").write_text(told, encoding="utf-8")
                    ignored = shutil.ignore_patterns("*.wake")
                    shutil.copytree(
                        folder, asked.keep, ignore=ignored, dirs_exist_ok=True
                    )
    tally = campaign.tally
    sys.stdout.write(table(tally))
    for line in tally.failures:
        sys.stdout.write(f"failed: {line}\n")
    for line in tally.violations:
        sys.stdout.write(f"VIOLATED: {line}\n")
    if asked.json is not None:
        kills = [vars(kill) for kill in tally.kills]
        asked.json.write_text(json.dumps({**vars(tally), "kills": kills}))
    if asked.page is not None:
        replace_section(asked.page, HEADING, section(tally))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
