"""Plans made at random of steps of every kind, in a world that outlives processes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import MsgGenerator

from mortal import DeadError, MortalStore
from ppu.cell.ownership import Ownership
from ppu.core.errors import InstrumentError, NothingToJoinError
from ppu.core.failure import FailurePolicy
from ppu.core.labfile import LabFile
from ppu.engine.host import Host
from ppu.plans import Lab, step
from ppu.plans.steps import Evidence, keep_changes
from ppu.store.jobs import JobRequest, JobState
from ppu.store.queue import find, submit
from ppu.store.steps import Step, steps_of
from ppu.store.store import Store

__all__ = ["LAB", "RandomPlan", "World", "cut_everywhere"]

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


@dataclass
class World:
    """What really happens, whoever dies."""

    acts: Counter[str] = field(default_factory=Counter)
    n_looks: int = 0
    n_asked: int = 0


class RandomPlan:
    """A plan with steps of every kind, some within others, that acts on a world.

    Args:
        seed: Makes the plan.
        world: Where it acts.
    """

    def __init__(  # noqa: C901 - a dozen small steps, one after the other
        self, seed: int, world: World
    ) -> None:
        self.world = world
        rng = np.random.default_rng(seed)
        kinds = ["look", "dose", "press", "move", "fire", "inner", "stubborn", "skip"]
        n_steps = int(rng.integers(4, 9))
        self.ops = [str(rng.choice(kinds)) for _ in range(n_steps)]
        self.inner = [str(rng.choice(kinds[:5])) for _ in range(3)]
        world_ = world

        @step(kind="repeatable")
        def look(lab: Lab, what: str) -> MsgGenerator[int]:
            yield from bps.sleep(1.0)
            world_.n_looks += 1
            return len(what)

        def see_dose(lab: Lab, act: str, mass_g: float) -> MsgGenerator[Evidence]:
            yield from bps.null()
            if not world_.acts[act]:
                return Evidence(False, "the balance shows nothing new")
            lab.use_stock("CaO", mass_g)
            return Evidence(True, "the balance shows it", {"CaO": mass_g})

        @step(kind="irreversible", evidence=see_dose)
        def dose(lab: Lab, act: str, mass_g: float) -> MsgGenerator[dict[str, float]]:
            yield from bps.sleep(5.0)
            world_.acts[act] += 1
            lab.use_stock("CaO", mass_g)
            return {"CaO": mass_g}

        @step(kind="irreversible")
        def press(lab: Lab, act: str) -> MsgGenerator[None]:
            yield from bps.sleep(2.0)
            world_.acts[act] += 1
            yield from bps.sleep(2.0)

        def see_move(lab: Lab, act: str, place: str) -> MsgGenerator[Evidence]:
            yield from bps.null()
            if not world_.acts[act]:
                return Evidence(None, "nobody looked")
            return Evidence(True, "the slot's switch is down")

        def note_move(
            shown: Evidence, lab: Lab, act: str, place: str
        ) -> MsgGenerator[None]:
            yield from bps.null()
            if shown.has_happened:
                lab.moved("cup", place)
            else:
                lab.stayed("cup")

        @step(kind="irreversible", evidence=see_move, settled=note_move)
        def move(lab: Lab, act: str, place: str) -> MsgGenerator[None]:
            yield from bps.sleep(5.0)
            lab.moving("cup", place)
            yield from keep_changes(lab)
            world_.acts[act] += 1
            lab.moved("cup", place)

        def join_firing(lab: Lab, act: str, hold_s: float) -> MsgGenerator[float]:
            if not world_.acts[act]:
                raise NothingToJoinError("the furnace is cold")
            yield from bps.sleep(hold_s)
            return 2 * hold_s

        @step(kind="resumable", rejoin=join_firing)
        def fire(lab: Lab, act: str, hold_s: float) -> MsgGenerator[float]:
            yield from bps.sleep(1.0)
            world_.acts[act] += 1
            yield from bps.sleep(hold_s)
            return 2 * hold_s

        @step(kind="repeatable", on_failure=FailurePolicy(retries=2))
        def stubborn(lab: Lab, name: str) -> MsgGenerator[int]:
            yield from bps.sleep(1.0)
            if not world_.acts[f"{name} failed"]:
                world_.acts[f"{name} failed"] += 1
                raise InstrumentError("it jammed")
            return 3

        @step(kind="repeatable", on_failure=FailurePolicy(then="skip"), skipped=-1)
        def skip(lab: Lab, name: str) -> MsgGenerator[int]:
            yield from bps.sleep(1.0)
            raise InstrumentError("it never works")

        @step(kind="repeatable")
        def inner(lab: Lab, name: str) -> MsgGenerator[list[Any]]:
            found = []
            for n, op in enumerate(self.inner):
                found.append((yield from self._do(lab, op, f"{name}.{n}")))
            return found

        self.steps: dict[str, Any] = {
            "look": look,
            "dose": dose,
            "press": press,
            "move": move,
            "fire": fire,
            "stubborn": stubborn,
            "skip": skip,
            "inner": inner,
        }

    def _do(self, lab: Lab, op: str, name: str) -> MsgGenerator[Any]:
        """Do one step."""
        plan = self.steps[op]
        if op == "dose":
            return (yield from plan(lab, f"dose {name}", 0.25))
        if op == "move":
            # By its name, and not by where the cup is or how often it was moved: a plan
            # that is run again finds it where it went, and skips what was done.
            place = "rack.2" if sum(map(ord, name)) % 2 else "rack.3"
            return (yield from plan(lab, f"move {name}", place))
        if op == "fire":
            return (yield from plan(lab, f"fire {name}", 30.0))
        return (yield from plan(lab, f"{op} {name}"))

    def __call__(self, lab: Lab) -> MsgGenerator[list[Any]]:
        """Return the plan."""
        found = []
        for n, op in enumerate(self.ops):
            found.append((yield from self._do(lab, op, str(n))))
        return found


def play(host: Host, store: Store, seed: int, world: World) -> Any:
    """Live until the job is done or the process is dead; return its result."""
    owner = Ownership(store, LAB, host.loop, lease_s=1e9)
    lost = owner.lost()
    if lost:
        job = host.call(owner.adopt(lost[0].id))
    else:
        request = JobRequest("plan", "1", {}, key="the job")
        store.write(partial(submit, wanted=request, now=host.loop.stamp()))
        claimed = host.call(owner.claim())
        assert claimed is not None
        job = claimed
    host.call(owner.change(job.id, JobState.RUNNING))
    known: dict[str, str] = {}

    async def answer(path: str, found: Evidence) -> Evidence:
        """Look into the world, as a person would, and tell the truth."""
        world.n_asked += 1
        with store.read() as connection:
            known.update(
                {s.path: s.arguments[0][1] for s in steps_of(connection, job.id)}
            )
        happened = bool(world.acts[known[path]])
        return dataclasses.replace(found, has_happened=happened, text="a person looked")

    lab = Lab(LAB, {}, ledger=owner.read_ledger())
    lab.sample_id = "sample"
    plan = RandomPlan(seed, world)
    result = host.run(
        host.in_run(plan(lab), {"purpose": "test"}), owner.recorder(job, answer)
    )
    host.call(owner.change(job.id, JobState.FINISHING))
    host.call(owner.succeed(job, list(result)))
    return result


def journal(store: Store) -> list[tuple[Any, ...]]:
    """Return of each step what must not depend on who died when."""

    def essence(done: Step) -> tuple[Any, ...]:
        return done.path, done.name, done.arguments, str(done.state), done.result

    with store.read() as connection:
        job_id = find(connection)[0].id
        return [essence(done) for done in steps_of(connection, job_id)]


def cut_everywhere(host: Host, folder: Path, seed: int) -> Counter[str]:
    """Let a process die at each commit of a plan, before and after it, and go on.

    Args:
        host: A host on a jumping loop.
        folder: Where the stores go; each is removed when it was found sound.
        seed: Makes the plan.

    Returns:
        How many cuts there were, questions asked, and how many works a whole run has.

    Raises:
        AssertionError: If anything was lost, done twice, or is told otherwise.
    """
    counted: Counter[str] = Counter()
    whole = World()
    path = folder / "whole.sqlite"
    with MortalStore(path) as store:
        expected = play(host, store, seed, whole)
        n_works, steps = store.n_works, journal(store)
        assert store.check() == []
    _remove(path)
    counted["works"] = n_works
    for dies_at in range(1, n_works + 1):
        for keeps_last in (False, True):
            at = (seed, dies_at, keeps_last)
            world = World()
            path = folder / f"{dies_at}-{keeps_last}.sqlite"
            with MortalStore(path, dies_at, keeps_last=keeps_last) as store:
                try:
                    play(host, store, seed, world)
                except DeadError:
                    pass
                else:
                    raise AssertionError(f"{at}: nobody died")
            with Store(path, is_verified=False) as survivor:
                if not _is_done(survivor):
                    assert play(host, survivor, seed, world) == expected, at
                assert journal(survivor) == steps, at
                assert world.acts == whole.acts, at
                assert survivor.check() == [], at
            _remove(path)
            counted["cuts"] += 1
            counted["questions"] += world.n_asked
    return counted


def _is_done(store: Store) -> bool:
    """Return whether the job had succeeded when the process died."""
    with store.read() as connection:
        found = find(connection)
    return bool(found) and found[0].state is JobState.SUCCEEDED


def _remove(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        file.unlink()
