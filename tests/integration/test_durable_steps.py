"""Jobs whose process dies at any commit, and what becomes of them afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator
from sqlalchemy import Connection
from typing_extensions import override

from ppu.core.errors import StoreError
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.engine.host import Host
from ppu.engine.ownership import Ownership
from ppu.plans import Lab, step
from ppu.plans.steps import Evidence
from ppu.store.jobs import JobRequest, JobState
from ppu.store.queue import find
from ppu.store.steps import Step, steps_of
from ppu.store.store import Store

T = TypeVar("T")

LAB = LabFile.model_validate(
    {
        "lab": "durable",
        "schema_version": 1,
        "devices": {},
        "locations": {f"rack.{n}": {"holds": "crucible"} for n in range(1, 4)},
        "containers": {
            "cup": {"kind": "crucible", "at": "rack.1", "capacity_ml": 5, "tare_g": 9}
        },
        "stock": {
            "CaO": {
                "at": "rack.2",
                "mass_g": 50,
                "purity": 0.99,
                "bulk_density_g_per_ml": 1.0,
            }
        },
    }
)


class DeadError(StoreError):
    """The process died here."""


class MortalStore(Store):
    """A store whose process dies at one of its commits.

    Args:
        path: The file.
        dies_at: Number of the work that is the last.
        keeps_last: Whether that one is still committed, though nobody learns of it.
    """

    def __init__(self, path: Path, dies_at: int, *, keeps_last: bool) -> None:
        super().__init__(path, is_verified=False)
        self.n_works = 0
        self._dies_at = dies_at
        self._keeps_last = keeps_last

    @override
    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        self.n_works += 1
        if self.n_works < self._dies_at:
            return super().submit(work)
        if self.n_works == self._dies_at and self._keeps_last:
            super().submit(work).result()
        dead: Future[T] = Future()
        dead.set_exception(DeadError("dead"))
        return dead


@dataclass
class World:
    """What really happens, whoever dies."""

    acts: list[str] = field(default_factory=list)
    n_looks: int = 0

    def has_happened(self, act: str) -> bool:
        """Return whether *act* happened."""
        return act in self.acts


class Plan:
    """A plan with steps of every kind, one within another, that acts on a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        world_ = world

        @step(kind="repeatable")
        def look(lab: Lab, what: str) -> MsgGenerator[int]:
            yield from bps.sleep(1.0)
            world_.n_looks += 1
            return len(what)

        def see_dose(lab: Lab, powder: str, mass_g: float) -> MsgGenerator[Evidence]:
            yield from bps.null()
            if not world_.has_happened(f"dose {powder}"):
                return Evidence(False, "the balance shows nothing new")
            lab.use_stock(powder, mass_g)
            return Evidence(True, "the balance shows it", {powder: mass_g})

        @step(kind="irreversible", evidence=see_dose)
        def dose(
            lab: Lab, powder: str, mass_g: float
        ) -> MsgGenerator[dict[str, float]]:
            yield from bps.sleep(5.0)
            world_.acts.append(f"dose {powder}")
            lab.use_stock(powder, mass_g)
            return {powder: mass_g}

        def see_move(lab: Lab, container: str, place: str) -> MsgGenerator[Evidence]:
            yield from bps.null()
            if not world_.has_happened(f"move to {place}"):
                return Evidence(None, "nobody looked")
            lab.moved(container, place)
            return Evidence(True, "the slot's switch is down")

        @step(kind="irreversible", evidence=see_move)
        def move(lab: Lab, container: str, place: str) -> MsgGenerator[None]:
            yield from bps.sleep(5.0)
            lab.moving(container, place)
            world_.acts.append(f"move to {place}")
            lab.moved(container, place)

        def join_firing(lab: Lab, hold_s: float) -> MsgGenerator[float]:
            if not world_.has_happened("fire"):
                world_.acts.append("fire")
            yield from bps.sleep(hold_s)
            return 2 * hold_s

        @step(kind="resumable", rejoin=join_firing)
        def fire(lab: Lab, hold_s: float) -> MsgGenerator[float]:
            world_.acts.append("fire")
            yield from bps.sleep(hold_s)
            return 2 * hold_s

        @step(kind="repeatable")
        def prepare(lab: Lab) -> MsgGenerator[float]:
            seen = yield from look(lab, "pan")
            dosed = yield from dose(lab, "CaO", 1.5)
            return seen + dosed["CaO"]

        self.look, self.move, self.fire, self.prepare = look, move, fire, prepare

    def __call__(self, lab: Lab) -> MsgGenerator[tuple[float, ...]]:
        """Return the plan."""
        first = yield from self.prepare(lab)
        yield from self.move(lab, "cup", "rack.2")
        heat = yield from self.fire(lab, 60.0)
        yield from self.move(lab, "cup", "rack.3")
        last = yield from self.look(lab, lab.location_of("cup"))
        return (first, heat, float(last))


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on a jumping loop."""
    host = Host(LabTimeLoop(None))
    yield host
    host.close()


def play(host: Host, store: Store, world: World) -> Any:
    """Live until the job is done or the process is dead; return its result."""
    owner = Ownership(store, LAB, host.loop, lease_s=1e6)
    lost = owner.lost()
    if lost:
        job = owner.adopt(lost[0])
    else:
        owner.submit(JobRequest("plan", "1", {}, key="the job"))
        claimed = owner.claim()
        assert claimed is not None
        job = claimed
    owner.begin(job)

    async def answer(path: str, found: Evidence) -> Evidence:
        # Whoever is asked looks into the world, and sees that nothing has happened.
        return dataclasses.replace(found, has_happened=False, text="a person looked")

    lab = Lab(LAB, {}, books=owner.books())
    plan = Plan(world)
    result = host.run(
        host.in_run(plan(lab), {"purpose": "test"}), owner.recorder(job, answer)
    )
    owner.succeed(job, list(result))
    return result


def journal(store: Store) -> list[tuple[Any, ...]]:
    """Return of each step what must not depend on who died when."""

    def essence(done: Step) -> tuple[Any, ...]:
        return done.path, done.name, done.arguments, str(done.state), done.result

    with store.read() as connection:
        return [essence(done) for done in steps_of(connection, first_job(connection))]


def first_job(connection: Connection) -> int:
    """Return the id of the only job."""
    return find(connection)[0].id


def test_job_is_the_same_wherever_its_process_died(host: Host, tmp_path: Path) -> None:
    """At each commit, before and after it: nothing lost, nothing acted twice."""
    whole = World()
    with MortalStore(tmp_path / "whole.sqlite", 10**9, keeps_last=True) as store:
        expected = play(host, store, whole)
        n_works, steps = store.n_works, journal(store)
        assert store.check() == []
    assert n_works > 20

    for dies_at in range(1, n_works + 1):
        for keeps_last in (False, True):
            world = World()
            path = tmp_path / f"{dies_at}-{keeps_last}.sqlite"
            with (
                MortalStore(path, dies_at, keeps_last=keeps_last) as store,
                pytest.raises(DeadError),
            ):
                play(host, store, world)
            with Store(path) as store:
                if not is_done(store):
                    assert play(host, store, world) == expected
                assert journal(store) == steps
                assert sorted(world.acts) == sorted(whole.acts), (dies_at, keeps_last)
                assert store.check() == []


def is_done(store: Store) -> bool:
    """Return whether the job had succeeded when the process died."""
    with store.read() as connection:
        found = find(connection)
    return bool(found) and found[0].state is JobState.SUCCEEDED
