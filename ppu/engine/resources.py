"""What the plans of one lab share: reservations, firings, and the lab's policies."""

from __future__ import annotations

from collections.abc import Callable

from ppu.core.custody import CustodyLedger
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.core.remedies import Advice
from ppu.engine.empties import Empties
from ppu.engine.firings import Firings
from ppu.engine.reservations import Claimant, Reservations

__all__ = ["Resources"]


class Resources:
    """What the plans of one lab share.

    Args:
        loop: The lab's loop.
        file: The lab file.
        ledger: Where containers are believed to be.
    """

    def __init__(self, loop: LabTimeLoop, file: LabFile, ledger: CustodyLedger) -> None:
        scheduling = file.scheduling
        self.waits: dict[int, str] = {}
        """What each job waits for, in words."""
        self.on_wait: Callable[..., None] | None = None
        """Told which job waits, for what in words, and what can be done about it;
        without words when that ends."""
        self.failure_policies = dict(file.failure_policies)
        self.reservations = Reservations(loop, file, ledger)
        self.reservations.on_wait = self.note_wait
        self.firings = Firings(
            loop, self.reservations, scheduling.share_wait, scheduling.patience_s
        )
        self.empties = Empties(loop, scheduling.patience_s, self.note_wait)

    def be_patient(self) -> None:
        """Let everybody wait for ever.

        For a twin whose time jumps while people see to it: with nothing else to do, it
        would be at the end of any patience before they have read that it waits.
        """
        for part in (self.reservations, self.firings, self.empties):
            part.patience_s = None

    def look_again(self) -> None:
        """Look again who may go on: a person moved or cleaned a container."""
        self.reservations.look_again()
        self.firings.note_entered()
        self.empties.look_again()

    def note_wait(self, who: Claimant, text: str, *advice: Advice) -> None:
        """Take note of what *who* waits for, in words; of nothing when that ends."""
        if text == self.waits.get(who.id, ""):
            return
        if text:
            self.waits[who.id] = text
        else:
            del self.waits[who.id]
        if self.on_wait is not None:
            self.on_wait(who.id, text, *advice)
