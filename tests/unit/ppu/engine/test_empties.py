"""Empty containers go to those who wait for them, and to nobody who does so no more."""

import asyncio

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
