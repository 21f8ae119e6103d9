"""What is a job's own is counted once, whoever else was in the lab, and all of it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.tasks import FiringProfile, Segment
from ppu.exports.facts import JobFacts, PowerFacts, _at_full_output, facts_of
from ppu.plans.seats import Seat
from ppu.store import cells, documents, queue, steps
from ppu.store.events import EventKind, announce
from ppu.store.jobs import JobRequest, JobState
from ppu.store.store import Store
from ppu.store.waiting import WaitCode

N_JOBS = 3
POWERS = {"oven": PowerFacts("oven_output", 3600.0)}
ACTS = st.tuples(
    st.sampled_from(
        ["work", "wait", "ask", "hold", "crash", "incident", "use", "sample", "idle"]
    ),
    st.integers(0, N_JOBS - 1),
    st.integers(1, 500),
)


@dataclass
class Expected:
    """What a job has done, as whoever acts here knows it."""

    began: float
    waited_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    n_incidents: int = 0
    devices: set[str] = field(default_factory=set)
    n_samples: int = 0
    n_steps: int = 0


class Players:
    """Jobs of one lab, whose lives are played one act after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 100.0
        self.token = self._start()
        for n in range(N_JOBS):
            store.write(partial(queue.submit, wanted=JobRequest(f"p{n}", "1"), now=0.0))
        self.ids: list[int] = []
        self.expected: list[Expected] = []
        for _ in range(N_JOBS):
            job: Any = self.do(queue.claim, self.token, lease_s=1e9)
            self.ids.append(job.id)
            self.expected.append(Expected(self.now))
            self.change(job.id, JobState.RUNNING)
            self._open_run(job.id)

    def do(self, work: Any, *arguments: Any, **more: Any) -> Any:
        """Write as the cell does, now."""
        return self.store.write(lambda c: work(c, *arguments, now=self.now, **more))

    def change(self, job_id: int, state: JobState) -> None:
        """Bring a job into another state."""
        self.do(queue.transition, job_id, state, token=self.token)

    def _start(self) -> int:
        who: Any = {"pid": 1, "boot_id": "b", "epoch": 0.0}
        token: int = self.store.write(lambda c: cells.start(c, "lab", self.now, **who))
        return token

    def _open_run(self, job_id: int) -> None:
        uid = f"run {job_id} {self.token}"
        keys = {"oven_output": {"units": "%"}}
        for name, said in (
            ("start", {"uid": uid, "time": self.now}),
            (
                "descriptor",
                {
                    "uid": f"d {uid}",
                    "run_start": uid,
                    "name": "firing",
                    "data_keys": keys,
                },
            ),
        ):
            self.do(documents.add_document, job_id, name, said, self.token)

    def _wait(self, n: int, code: WaitCode, seconds: float) -> None:
        self.now += seconds
        self.expected[n].waited_s[code] += seconds

    def play(self, act: str, n: int, seconds: float) -> None:
        """Let a job do something, and expect that its facts have it."""
        job_id, mine = self.ids[n], self.expected[n]
        match act:
            case "wait":
                for text, lasts in (("an oven", seconds), ("", 0.0)):
                    said = {"for": text}
                    self.do(announce, EventKind.WAIT, said, job_id=job_id)
                    self._wait(n, WaitCode.RESOURCE, lasts)
            case "ask" | "hold":
                is_asked = act == "ask"
                state = JobState.NEEDS_INPUT if is_asked else JobState.PAUSED
                self.change(job_id, state)
                self._wait(n, WaitCode.PERSON if is_asked else WaitCode.HELD, seconds)
                self.change(job_id, JobState.RUNNING)
            case "crash":
                self.token = self._start()
                self.store.write(lambda c: queue.lose_vanished(c, self.now))
                self.now += seconds
                for other, id_ in enumerate(self.ids):
                    self.do(queue.adopt, id_, self.token, lease_s=1e9)
                    self.expected[other].waited_s[WaitCode.CELL] += seconds
                    self.change(id_, JobState.RUNNING)
                    self._open_run(id_)
            case "incident":
                fell: Any = {"device": "arm", "lab_time_s": self.now, "text": "it fell"}
                fell |= {"incident": "drop", "stamp": self.now}
                self.do(announce, EventKind.INCIDENT, fell, job_id=job_id)
                mine.n_incidents += 1
            case "use":
                path, name = str(mine.n_steps), f"device_{seconds % 4}"
                mine.n_steps += 1
                step: Any = (
                    job_id,
                    path,
                    "act",
                    "repeatable",
                    "d",
                    [[], {}],
                    self.token,
                )
                self.do(steps.begin_step, *step)
                self.now += seconds
                self.do(steps.end_step, job_id, path, None, self.token, devices=[name])
                mine.devices.add(name)
            case "sample":
                # Whole and in one process: what is missing is told in another test.
                uid = f"d run {job_id} {self.token}"
                page = {
                    "descriptor": uid,
                    "seq_num": [1],
                    "time": [self.now],
                    "data": {"oven_output": [50.0]},
                }
                self.do(documents.add_document, job_id, "event_page", page, self.token)
                mine.n_samples += 1
                self.now += 1.0
            case _:
                self.now += seconds

    def facts(self, n: int) -> JobFacts:
        """Return what the store says."""
        with self.store.read() as connection:
            return facts_of(connection, self.ids[n], self.now, POWERS)


@settings(deadline=None, max_examples=15)
@given(st.lists(ACTS, max_size=12))
def test_facts_of_a_job_are_its_own_and_whole(acts: list[tuple[str, int, int]]) -> None:
    """Time, waits, devices, incidents and samples: before and after each crash."""
    with TemporaryDirectory() as folder, Store(Path(folder) / "lab.sqlite") as store:
        players = Players(store)
        for act, n, seconds in acts:
            players.play(act, n, float(seconds))
        for n, expected in enumerate(players.expected):
            facts = players.facts(n)
            waited = {k: v for k, v in facts.waited_s().items() if k != "queue" and v}
            life = players.now - expected.began

            assert waited == pytest.approx(
                {str(k): v for k, v in expected.waited_s.items()}
            )
            assert facts.active_s == pytest.approx(
                life - sum(expected.waited_s.values())
            )
            assert len(facts.incidents) == expected.n_incidents
            assert facts.devices == expected.devices
            n_samples = sum(len(one.samples["time"]) for one in facts.firings)
            assert n_samples == expected.n_samples


def test_shared_firing_is_seen_whole_by_all_who_shared_it(tmp_path: Path) -> None:
    """Only one job sampled it; each gets its samples, and its part of the energy."""
    with Store(tmp_path / "lab.sqlite") as store:
        players = Players(store)
        members = tuple(players.ids[:2])
        profile = FiringProfile((Segment(900.0, 5.0, 60.0),), 60.0)
        seat = Seat("firing 1", "oven", "oven.slot", profile, members)
        for job_id in members:
            begun: Any = ("take", "repeatable", "d", [[], {}], players.token)
            players.do(steps.begin_step, job_id, "0", *begun, seat="takes")
            players.do(steps.end_step, job_id, "0", asdict(seat), players.token)
        for _ in range(11):
            players.play("sample", 0, 1.0)
        one, other, stranger = (players.facts(n) for n in range(3))

    assert one.firings == other.firings
    assert stranger.firings == ()
    (firing,) = one.firings
    assert firing.jobs == members
    assert firing.energy_kwh == pytest.approx(3.6 * 0.5 * 10 / 3600)
    plain = firing.plain()
    assert plain["own_energy_kwh"] == pytest.approx(plain["energy_kwh"] / 2)
    assert "computed, not metered" in plain["energy_source"]
    assert "of 2 jobs that shared it" in plain["energy_source"]


@pytest.mark.parametrize(
    ("power", "said"),
    [
        (PowerFacts("oven_output", None), "settings.rated_power_w of oven"),
        (PowerFacts("oven_power", 3600.0), "does not report its output"),
    ],
)
def test_energy_that_nobody_can_know_is_not_told(
    power: PowerFacts, said: str, tmp_path: Path
) -> None:
    """No number is made up; it says what is missing."""
    with Store(tmp_path / "lab.sqlite") as store:
        players = Players(store)
        players.play("sample", 0, 1.0)
        with store.read() as connection:
            facts = facts_of(connection, players.ids[0], players.now, {"oven": power})

    (firing,) = facts.firings
    assert firing.energy_kwh is None
    assert said in firing.energy_source


@given(
    st.lists(st.floats(0.0, 100.0), min_size=3, max_size=40),
    st.floats(1.0, 60.0),
    st.integers(0, 100),
)
def test_energy_of_a_gap_is_not_made_up(
    outputs: list[float], period_s: float, where: int
) -> None:
    """What is missing is told as time, and the rest is as without it."""
    times = [n * period_s for n in range(len(outputs))]
    whole_s, none_s = _at_full_output(times, outputs)
    at = 1 + where % (len(outputs) - 1)
    gap_s = 1000.0 * period_s
    broken = times[:at] + [time + gap_s for time in times[at:]]
    left_s, unheard_s = _at_full_output(broken, outputs)
    lost_s = period_s * (outputs[at - 1] + outputs[at]) / 200.0

    assert none_s == 0.0
    if len(outputs) > 3:  # else the gap is as usual as the rest
        assert unheard_s == pytest.approx(gap_s + period_s)
        assert math.isclose(left_s + lost_s, whole_s, abs_tol=1e-6)
