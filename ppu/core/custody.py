"""What plans change in the lab's ledger: where containers are, and what is used up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ppu.core.errors import InterlockError
from ppu.core.remedies import Remedy, advise

if TYPE_CHECKING:
    from ppu.core.labfile import LabFile

__all__ = [
    "Change",
    "Claimed",
    "CustodyLedger",
    "Left",
    "Moved",
    "Quarantine",
    "StockUsed",
]


@dataclass(frozen=True)
class Left:
    """A container is taken from where it was; until it arrives nobody knows."""

    container: str
    origin: str
    destination: str


@dataclass(frozen=True)
class Moved:
    """A container has arrived.

    Attributes:
        container: Its name.
        origin: Where it was.
        destination: Where it is now.
        evidence: What showed it, if somebody looked.
    """

    container: str
    origin: str
    destination: str
    evidence: str = ""


@dataclass(frozen=True)
class Claimed:
    """A container is used by a sample from now on.

    Attributes:
        container: Its name.
        sample: Identity of the sample; empty if nobody keeps track of samples.
    """

    container: str
    sample: str = ""


@dataclass(frozen=True)
class StockUsed:
    """Powder was taken from stock."""

    powder: str
    mass_g: float


Change = Left | Moved | Claimed | StockUsed


@dataclass(frozen=True)
class Quarantine:
    """Why nobody may go on with what a job that did not succeed left in a container.

    Attributes:
        sample: What it holds.
        reason: Why, for people.
    """

    sample: str
    reason: str

    def refusal(self, container: str) -> InterlockError:
        """Return what whoever wants *container* is told."""
        return InterlockError(
            f"{container} holds sample {self.sample}, which is quarantined: "
            f"{self.reason}; look at it, then release it",
            advice=[advise(Remedy.RELEASE_SAMPLE, sample=self.sample)],
            field=container,
        )


@dataclass
class CustodyLedger:
    """What PPU believes of the lab; all jobs of a lab share one.

    Attributes:
        places: Where each container is, or was before it left.
        under_way: Where those that left were to arrive.
        used: Containers that a sample uses.
        stock_g: How much of each powder there should be [g].
        held: Containers of jobs that have not ended, and the sample each is for.
        quarantined: Containers that a person must look at before another job has them,
            and what is known of each.
        emptied: Containers that people have emptied, whatever the lab file says was in
            them.
        closed: Devices that work on what stands in them: nothing is put in or taken
            out.
    """

    places: dict[str, str]
    under_way: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    stock_g: dict[str, float] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, Quarantine] = field(default_factory=dict)
    emptied: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, file: LabFile) -> CustodyLedger:
        """Return the ledger as the lab file opens it."""
        return cls(
            places={name: entry.at for name, entry in file.containers.items()},
            stock_g={name: entry.mass_g for name, entry in file.stock.items()},
        )

    def standing_at(self, location: str) -> str | None:
        """Return the container that has arrived at *location* and not left it."""
        for container, place in self.places.items():
            if place == location and container not in self.under_way:
                return container
        return None

    def replace_with(self, other: CustodyLedger) -> None:
        """Believe what *other* says, and nothing else."""
        self.places, self.under_way = other.places, other.under_way
        self.used, self.stock_g = other.used, other.stock_g
        self.held, self.emptied = other.held, other.emptied
        self.quarantined = other.quarantined
        self.closed = other.closed

    def enter(self, change: Change) -> None:
        """Take note of a change."""
        if isinstance(change, Left):
            self.under_way[change.container] = change.destination
        elif isinstance(change, Moved):
            self.under_way.pop(change.container, None)
            self.places[change.container] = change.destination
        elif isinstance(change, Claimed):
            self.used.add(change.container)
            if change.sample:
                self.held[change.container] = change.sample
        else:
            self.stock_g[change.powder] -= change.mass_g

    def release(self, container: str) -> None:
        """Take note that a person says: *container* is empty and clean again."""
        self.used.discard(container)
        self.quarantined.pop(container, None)
        self.emptied.add(container)

    def let_go(self, sample: str) -> None:
        """Take note that the job of *sample* has ended: another may have its things."""
        for container in [name for name, one in self.held.items() if one == sample]:
            del self.held[container]

    def give_back(self, container: str) -> None:
        """Take note that a job that ended left *container* as clean as it was."""
        self.used.discard(container)

    def refill(self, powder: str, mass_g: float) -> None:
        """Take note that *mass_g* of *powder* was added, or is lacking if < 0 [g]."""
        self.stock_g[powder] = self.stock_g.get(powder, 0.0) + mass_g

    def correct(self, container: str, location: str) -> None:
        """Take note that a person found *container* at *location*."""
        self.under_way.pop(container, None)
        self.places[container] = location
