"""Empty containers go to those who wait for them, and to nobody who does so no more."""

import asyncio

import pytest

from exercise import LAB
from ppu.core.custody import CustodyLedger
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.engine.empties import Empties
from ppu.engine.reservations import Claimant
from ppu.plans import Lab


def test_container_is_not_given_to_whoever_was_aborted_a_moment_ago(
    jumping: LabTimeLoop,
) -> None:
    """An abort and a release in one turn of the loop leave the container free."""
    file = LabFile.model_validate(LAB)
    ledger = CustodyLedger.of(file)
    ledger.used |= file.containers.keys()
    lab = Lab(file, {}, ledger=ledger)
    empties = Empties(jumping, 60.0, lambda who, text: None)

    async def abort_and_release() -> None:
        wait = empties.take(Claimant.of(1), lab, "crucible", "a step")
        waiting = asyncio.create_task(wait)
        await asyncio.sleep(1.0)
        waiting.cancel()
        ledger.release("cup_1")
        empties.look_again()
        await asyncio.gather(waiting, return_exceptions=True)

    with jumping.active():
        jumping.run_until_complete(abort_and_release())

    assert lab.free_container("crucible") == "cup_1"


CASES = [
    (one, other, waits_first)
    for one in ("cup_1", "cup_2", "cup_3", None)
    for other in ("cup_1", "cup_2", "cup_3", None)
    for waits_first in (False, True)
]


@pytest.mark.parametrize(("one", "other", "waits_first"), CASES)
def test_container_is_one_jobs_until_that_has_ended(
    jumping: LabTimeLoop, one: str | None, other: str | None, waits_first: bool
) -> None:
    """Named or not, nobody gets what another job has; it is given on at its end."""
    file = LabFile.model_validate(LAB)
    ledger = CustodyLedger.of(file)
    told: list[str] = []
    empties = Empties(jumping, 60.0, lambda who, text, *advice: told.append(text))
    views = [Lab(file, {}, ledger=ledger) for _ in range(2)]
    for n, view in enumerate(views):
        view.sample_id = f"s{n}"

    async def take_both() -> tuple[str, str, bool]:
        def take(n: int, name: str | None) -> asyncio.Task[str]:
            who = Claimant.of(n + 1)
            wait = empties.take(who, views[n], "crucible", "a step", name)
            return asyncio.create_task(wait)

        tasks = [take(0, one), take(1, other)]
        if waits_first:
            tasks[0].cancel()
            await asyncio.gather(tasks[0], return_exceptions=True)
            tasks[0] = take(0, one)
        await asyncio.sleep(1.0)
        had_both = all(task.done() for task in tasks)
        first = 1 if waits_first and not tasks[0].done() else 0
        for n in (first, 1 - first):
            await tasks[n]
            ledger.let_go(f"s{n}")
            empties.look_again()
        got = await asyncio.gather(*tasks)
        return got[0], got[1], had_both

    with jumping.active():
        got_one, got_other, had_both = jumping.run_until_complete(take_both())

    assert got_one == one or one is None
    assert got_other == other or other is None
    assert had_both == (got_one != got_other)
    assert had_both or any("belongs to sample s" in text for text in told)


def test_jobs_that_would_wait_for_each_other_are_told_so(jumping: LabTimeLoop) -> None:
    """Each has what the other wants: the later one is refused, not left for ever."""
    file = LabFile.model_validate(LAB)
    ledger = CustodyLedger.of(file)
    empties = Empties(jumping, 60.0, lambda who, text, *advice: None)
    views = [Lab(file, {}, ledger=ledger) for _ in range(3)]
    for n, view in enumerate(views):
        view.sample_id = f"s{n}"
        view.claim_container(f"cup_{n + 1}")

    async def wait_in_a_circle() -> list[BaseException | str]:
        tasks = [
            asyncio.create_task(
                empties.take(
                    Claimant.of(n + 1),
                    view,
                    "crucible",
                    "a step",
                    f"cup_{(n + 1) % 3 + 1}",
                )
            )
            for n, view in enumerate(views)
        ]
        await asyncio.sleep(1.0)
        for task in tasks[:2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with jumping.active():
        found = jumping.run_until_complete(wait_in_a_circle())

    assert "whose job waits for cup_3, which this one has" in str(found[2])
