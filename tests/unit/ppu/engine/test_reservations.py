"""Who gets which devices and locations, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.custody import CustodyLedger
from ppu.core.errors import InterlockError, InternalError
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.core.remedies import Advice, Remedy, advise
from ppu.engine.reservations import Claimant, Reservations

T = TypeVar("T")

LAB = LabFile.model_validate(
    {
        "lab": "small",
        "schema_version": 1,
        "devices": {
            "arm": {"driver": "some:Arm", "provides": ["Transporter"]},
            "hand": {"driver": "some:Hand", "provides": ["Gripper"]},
            "balance": {"driver": "some:Balance", "provides": ["Balance"]},
            "doser": {"driver": "some:Doser", "provides": ["PowderDoser"]},
        },
        "locations": {name: {"holds": "cup"} for name in ("rack", "pan", "station")},
        "containers": {
            "cup": {"kind": "cup", "at": "rack", "capacity_ml": 1, "tare_g": 1}
        },
        "scheduling": {"patience_s": 1000},
    }
)


@pytest.fixture
def loop() -> Iterator[LabTimeLoop]:
    """A jumping loop."""
    loop = LabTimeLoop(None)
    yield loop
    loop.close()


def run(loop: LabTimeLoop, work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* on the loop; time jumps meanwhile."""

    async def actively() -> T:
        with loop.active():
            return await work()

    return loop.run_until_complete(actively())


def of(loop: LabTimeLoop, *jobs: Claimant) -> Reservations:
    """Return the reservations of the lab, with *jobs* present."""
    reservations = Reservations(loop, LAB, CustodyLedger.of(LAB))
    for job in jobs:
        reservations.enter(job)
    return reservations


ONE, TWO, THREE = (Claimant.of(n, age=n) for n in (1, 2, 3))


def test_step_gets_all_at_once_or_nothing(loop: LabTimeLoop) -> None:
    """Whoever waits for one of two things keeps nobody from the other."""
    reservations = of(loop, ONE, TWO, THREE)

    async def work() -> list[str]:
        log = []
        await reservations.take(ONE, ["balance"])

        async def both() -> None:
            await reservations.take(TWO, ["balance", "doser"])
            log.append("both")

        waiting = asyncio.create_task(both())
        await asyncio.sleep(1.0)
        assert reservations.owners_of("doser") == frozenset()
        reservations.give_back(ONE, ["balance"])
        await waiting
        return log

    assert run(loop, work) == ["both"]


def test_older_job_goes_first_whoever_asked_first(loop: LabTimeLoop) -> None:
    """Among those who ask at the same moment, age decides and not the order."""
    reservations = of(loop, ONE, TWO, THREE)

    async def work() -> list[int]:
        served = []

        async def use(who: Claimant) -> None:
            taken = await reservations.take(who, ["balance"])
            served.append(who.id)
            await asyncio.sleep(10.0)
            reservations.give_back(who, taken or ())

        async with asyncio.TaskGroup() as group:
            for who in (THREE, ONE, TWO):
                group.create_task(use(who))
        return served

    assert run(loop, work) == [1, 2, 3]


def test_higher_priority_goes_before_age(loop: LabTimeLoop) -> None:
    """A job with priority is served before older ones."""
    urgent = Claimant.of(9, priority=5, age=9)
    assert sorted([ONE, urgent, TWO]) == [urgent, ONE, TWO]
    reservations = of(loop, ONE, TWO, urgent)

    async def work() -> list[int]:
        served = []

        async def use(who: Claimant) -> None:
            taken = await reservations.take(who, ["doser"])
            served.append(who.id)
            reservations.give_back(who, taken or ())

        async with asyncio.TaskGroup() as group:
            for who in (ONE, TWO, urgent):
                group.create_task(use(who))
        return served

    assert run(loop, work) == [9, 1, 2]


def test_location_is_free_when_its_container_left(loop: LabTimeLoop) -> None:
    """Another job's container keeps a location, one's own does not."""
    reservations = of(loop, ONE, TWO)
    reservations.ledger.places["cup"] = "pan"

    async def work() -> bool:
        assert await reservations.take(ONE, ["pan"], ["cup"]) == frozenset({"pan"})
        reservations.give_back(ONE, ["pan"])
        waiting = asyncio.create_task(reservations.take(TWO, ["pan"]))
        await asyncio.sleep(1.0)
        was_waiting = not waiting.done()
        reservations.ledger.places["cup"] = "rack"
        reservations.look_again()
        await waiting
        return was_waiting

    assert run(loop, work)


def test_who_waits_for_a_place_is_told_how_it_becomes_free(loop: LabTimeLoop) -> None:
    """Whose container stands there, and that it may be carried away."""
    reservations = of(loop, ONE)
    reservations.ledger.places["cup"] = "pan"
    told: list[tuple[str, tuple[Advice, ...]]] = []
    reservations.on_wait = lambda _, text, *advice: told.append((text, advice))

    async def work() -> None:
        waiting = asyncio.create_task(reservations.take(ONE, ["pan"]))
        await asyncio.sleep(1.0)
        reservations.ledger.places["cup"] = "rack"
        reservations.look_again()
        await waiting

    run(loop, work)
    text, advice = told[0]
    assert "pan (cup stands there)" in text
    assert advice == (advise(Remedy.MOVE_CONTAINER, container="cup"),)
    assert told[-1] == ("", ())


def test_whoever_has_hands_must_not_wait(loop: LabTimeLoop) -> None:
    """A step with hands that asks for more is a mistake of its author, told at once."""
    reservations = of(loop, ONE)

    async def work() -> None:
        await reservations.take(ONE, ["arm"])
        await reservations.take(ONE, ["hand"], what="step move")

    with pytest.raises(InternalError, match=r"step move needs hand while it has arm"):
        run(loop, work)


def test_whoever_has_a_device_may_wait_for_hands_only(loop: LabTimeLoop) -> None:
    """Hands may be taken inside a step; anything else must be named before."""
    reservations = of(loop, ONE)

    async def work() -> None:
        await reservations.take(ONE, ["balance", "pan"])
        hands = frozenset({"arm", "hand"})
        assert await reservations.take(ONE, ["arm", "hand", "pan"]) == hands
        reservations.give_back(ONE, ["arm", "hand"])
        await reservations.take(ONE, ["doser"], what="step dose")

    with pytest.raises(InternalError, match="the outer step must name it"):
        run(loop, work)


def test_wait_ends_with_an_error_that_names_who_has_it(loop: LabTimeLoop) -> None:
    """Nobody waits for ever, and the error says for what."""
    reservations = of(loop, ONE, TWO)

    async def work() -> None:
        await reservations.take(ONE, ["balance"])
        await reservations.take(TWO, ["balance"], what="step weigh")

    with pytest.raises(InterlockError, match=r"step weigh waited 1000 s .*job 1 has"):
        run(loop, work)
    assert loop.time() == pytest.approx(1000.0)


def test_withdrawn_job_waits_no_longer(loop: LabTimeLoop) -> None:
    """A job that is held gives its place in the line up."""
    reservations = of(loop, ONE, TWO)

    async def work() -> Any:
        await reservations.take(ONE, ["balance"])
        waiting = asyncio.create_task(reservations.take(TWO, ["balance"]))
        await asyncio.sleep(1.0)
        reservations.withdraw(TWO)
        return await waiting

    assert run(loop, work) is None


def test_job_that_is_cancelled_leaves_nothing_taken(loop: LabTimeLoop) -> None:
    """Cancelled in the moment of the grant, it has nothing."""
    reservations = of(loop, ONE, TWO)

    async def work() -> frozenset[int]:
        await reservations.take(ONE, ["balance"])
        waiting = asyncio.create_task(reservations.take(TWO, ["balance"]))
        await asyncio.sleep(1.0)
        reservations.leave(ONE)
        while not reservations.owners_of("balance"):
            await asyncio.sleep(0)
            await asyncio.sleep(1e-4)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        reservations.leave(TWO)
        return reservations.owners_of("balance")

    assert run(loop, work) == frozenset()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from(["balance", "doser", "pan", "station"])),
            st.booleans(),
            st.integers(0, 5),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_no_set_of_jobs_waits_in_a_circle(
    plans: list[tuple[set[str], bool, int]],
) -> None:
    """Whatever jobs need, all are served: each has its own, then hands within."""
    loop = LabTimeLoop(None)
    try:
        jobs = [Claimant.of(n, age=n) for n in range(1, len(plans) + 1)]
        reservations = of(loop, *jobs)
        served = []

        async def live(who: Claimant, names: set[str], carries: bool, s: int) -> None:
            await asyncio.sleep(s)
            taken = await reservations.take(who, names)
            assert all(reservations.owners_of(n) == {who.id} for n in names)
            if carries:
                hands = await reservations.take(who, ["arm", "hand"])
                await asyncio.sleep(1.0)
                reservations.give_back(who, hands or ())
            await asyncio.sleep(1.0)
            reservations.give_back(who, taken or ())
            reservations.leave(who)
            served.append(who.id)

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                for who, plan in zip(jobs, plans, strict=True):
                    group.create_task(live(who, *plan))

        run(loop, work)
        assert sorted(served) == [who.id for who in jobs]
    finally:
        loop.close()


def test_job_gets_back_what_it_had_before_others_take_it(loop: LabTimeLoop) -> None:
    """An arm still shows how far it came with a step whose process died."""
    reservations = of(loop, ONE, TWO)
    reservations.note_under_way(TWO, ["3", "3.1"])

    async def work() -> list[str]:
        log = []

        async def take(who: Claimant, name: str, path: str) -> None:
            await reservations.take(who, [name], path=path)
            log.append(f"{who.id} {name}")

        first = asyncio.create_task(take(ONE, "balance", "7"))
        await asyncio.sleep(1.0)
        await take(TWO, "doser", "3")
        await asyncio.sleep(1.0)
        await take(TWO, "arm", "3.1")
        await first
        return log

    assert run(loop, work) == ["2 doser", "2 arm", "1 balance"]


@pytest.mark.parametrize("ends", [True, False])
def test_others_go_on_when_a_job_does_not_come_back_to_what_it_had(
    loop: LabTimeLoop, ends: bool
) -> None:
    """Its plan has ended, or has come past that step."""
    reservations = of(loop, ONE, TWO)
    reservations.note_under_way(TWO, ["3"])

    async def work() -> bool:
        waiting = asyncio.create_task(reservations.take(ONE, ["arm"], path="7"))
        await asyncio.sleep(1.0)
        was_waiting = not waiting.done()
        if ends:
            reservations.leave(TWO)
        else:
            await reservations.take(TWO, ["balance"], path="4")
        await waiting
        return was_waiting

    assert run(loop, work)


def test_wait_for_what_was_under_way_is_told(loop: LabTimeLoop) -> None:
    """People can see why nothing begins after a restart."""
    reservations = of(loop, ONE, TWO)
    reservations.note_under_way(TWO, ["3"])
    told: list[str] = []
    reservations.on_wait = lambda _, text, *__: told.append(text)

    async def work() -> None:
        waiting = asyncio.create_task(reservations.take(ONE, ["arm"], path="7"))
        await asyncio.sleep(1.0)
        reservations.leave(TWO)
        await waiting

    run(loop, work)

    assert "what was under way before the restart (job 2 goes first)" in told[0]


def test_nobody_stands_still_for_ever_when_the_store_is_wrong(
    loop: LabTimeLoop,
) -> None:
    """Two steps that were under way with the same thing: one after the other."""
    reservations = of(loop, ONE, TWO)
    reservations.note_under_way(ONE, ["1"])
    reservations.note_under_way(TWO, ["1"])

    async def work() -> list[str]:
        log = []

        async def weigh(who: Claimant) -> None:
            await reservations.take(who, ["balance"], path="1")
            await reservations.take(who, ["arm"], path="1.0")
            log.append(f"{who.id}")
            reservations.give_back(who, ["arm", "balance"])

        await asyncio.gather(weigh(ONE), weigh(TWO))
        return log

    assert run(loop, work) == ["1", "2"]


@pytest.mark.parametrize("kept", ["balance", "doser"])
@pytest.mark.parametrize("other", ["balance", "doser", "pan", "station"])
def test_what_was_left_at_work_is_nobody_elses(
    loop: LabTimeLoop, kept: str, other: str
) -> None:
    """A step is over, what it began is not; the job may go on with anything else."""
    reservations = of(loop, ONE, TWO)

    async def work() -> tuple[frozenset[str] | None, bool]:
        await reservations.take(ONE, [kept])
        reservations.keep(ONE, frozenset([kept]))
        more = await reservations.take(ONE, [other])
        return more, reservations.can_take([kept])

    more, is_free = run(loop, work)

    assert more == frozenset({other} - {kept})
    assert not is_free


def test_jobs_that_left_at_work_what_the_other_wants_do_not_wait_for_ever(
    loop: LabTimeLoop,
) -> None:
    """The second is told what to bring to rest, and the first goes on."""
    reservations = of(loop, ONE, TWO)

    async def work() -> tuple[frozenset[str] | None, str]:
        for who, name in ((ONE, "balance"), (TWO, "doser")):
            await reservations.take(who, [name])
            reservations.keep(who, frozenset([name]))
        first = asyncio.create_task(reservations.take(ONE, ["doser"]))
        await asyncio.sleep(1.0)
        with pytest.raises(InterlockError, match="bring it to rest first") as caught:
            await reservations.take(TWO, ["balance"])
        reservations.leave(TWO)
        return await first, str(caught.value)

    got, told = run(loop, work)

    assert got == frozenset({"doser"})
    assert "balance (job 1 has it)" in told
