"""What instruments are told to do and what they record of it: plain frozen data.

House units, with the unit in the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "BEGINS_WITHIN_K",
    "Carry",
    "DoorState",
    "Dose",
    "DoseRequest",
    "FiringProfile",
    "FiringRecord",
    "FiringUnderWay",
    "GasRequest",
    "Grind",
    "GripRecord",
    "MountPowder",
    "PowderTask",
    "Recollection",
    "ScanRequest",
    "Segment",
    "Task",
    "TaskUnderWay",
]


_MOST_UNHEARD: Final = 0.1
"""The largest part of a dwell that may be unheard for it to count as measured."""


@dataclass(frozen=True)
class Segment:
    """A ramp to a temperature and the dwell there."""

    target_degc: float
    ramp_degc_per_min: float
    dwell_s: float


BEGINS_WITHIN_K: Final = 10.0
"""How much hotter than a firing gets a chamber may be when it begins [K]."""


@dataclass(frozen=True)
class FiringProfile:
    """What a furnace shall do: segments, heater off, and natural cooling."""

    segments: tuple[Segment, ...]
    cool_to_degc: float
    """The firing is complete when the chamber has cooled to this."""
    atmosphere: str = "air"
    """Gas in the chamber; anything but ``air`` needs a :class:`GasFlow`."""
    gas_flow_ml_per_min: float = 0.0
    """How much of that gas flows, from before the start until it has cooled."""

    @property
    def highest_degc(self) -> float:
        """To what it heats at most."""
        return max(segment.target_degc for segment in self.segments)


@dataclass(frozen=True)
class FiringUnderWay:
    """A firing that was begun by a process that died, and may go on."""

    profile: FiringProfile
    samples: Mapping[str, Sequence[float]]
    """Columns of what was sampled of this firing before, by data key, and ``time`` with
    their UTC stamps [s since 1970]; empty if nothing was."""


@dataclass(frozen=True)
class FiringRecord:
    """What a furnace did, as its driver measured it."""

    started_s: float
    """UTC stamp of the start, or of the first sample if nobody saw the start [s since
    1970]."""
    duration_s: float
    max_temperature_degc: float
    dwell_temperature_degc: float | None
    """Mean while the program dwelt at its highest temperature, None if it did not, or
    too much of that was not heard."""
    dwell_s: tuple[float, ...]
    """Measured dwell of each segment. One that began or ended while nobody heard the
    controller counts as asked, as far as what was heard allows that."""
    n_samples: int
    unheard_s: tuple[float, ...] = ()
    """How much of each dwell nobody heard; empty if that was not kept."""

    @property
    def held_s(self) -> float | None:
        """All dwells together [s], None if too much of one was not heard."""
        return None if self.not_measured() else sum(self.dwell_s)

    def not_measured(self) -> tuple[str, ...]:
        """Return in a sentence each dwell of which too much was not heard.

        Example:
            >>> record = FiringRecord(0.0, 9e3, 901.0, None, (3600.0,), 17, (3430.0,))
            >>> record.not_measured()
            ('dwell 1: nobody heard 3430 of 3600 s, so it is not measured',)
        """
        if len(self.unheard_s) != len(self.dwell_s):
            return ("dwells: how much of them was heard is not known",)
        return tuple(
            f"dwell {number}: nobody heard {unheard:.0f} of {max(lasted, unheard):.0f} "
            "s, so it is not measured"
            for number, (lasted, unheard) in enumerate(
                zip(self.dwell_s, self.unheard_s, strict=True), 1
            )
            if not is_measured(lasted, unheard)
        )


def is_measured(lasted_s: float, unheard_s: float) -> bool:
    """Return whether enough of what lasted so long was heard to say that it did."""
    return unheard_s <= _MOST_UNHEARD * lasted_s


@dataclass(frozen=True)
class Dose:
    """An amount of one powder."""

    powder: str
    mass_g: float


@dataclass(frozen=True)
class DoseRequest:
    """Powders for one container, and how long to mix them there."""

    container: str
    doses: tuple[Dose, ...]
    mixing_s: float


@dataclass(frozen=True)
class ScanRequest:
    """A powder diffraction scan."""

    sample_id: str
    start_deg: float
    stop_deg: float
    duration_s: float


@dataclass(frozen=True)
class Carry:
    """Carry a container from one location to another."""

    container: str
    origin: str
    destination: str


@dataclass(frozen=True)
class Grind:
    """Grind what is in a container, where it stands."""

    container: str
    duration_s: float


@dataclass(frozen=True)
class MountPowder:
    """Take powder out of a container and press it into a specimen holder."""

    container: str
    holder: str


PowderTask = Grind | MountPowder


Task = Carry | PowderTask


@dataclass(frozen=True)
class TaskUnderWay:
    """A task that was given by a process that died: nobody knows how far it came."""

    task: Task | DoseRequest


@dataclass(frozen=True)
class Recollection:
    """What an instrument itself still knows of a task."""

    has_happened: bool | None
    """Whether the task was done to its end, or not at all; None if it cannot tell."""
    is_at_rest: bool
    """Whether nothing of it goes on any more."""
    text: str
    """What it says, for people."""


@dataclass(frozen=True)
class GripRecord:
    """What the fingers of a hand felt while it carried something."""

    has_grasped: bool
    """Whether they ever closed on something."""
    has_dropped: bool
    """Whether what they held slipped out of them."""
    is_holding: bool
    """Whether they held something when the watch ended."""
    width_mm: float
    """Opening at which they held it; the last opening if they held nothing [mm]."""
    unseen_s: float = 0.0
    """Longest time between two looks; what was held for less may be unseen [s]."""


DoorState = Literal["open", "closed"]


@dataclass(frozen=True)
class GasRequest:
    """A gas and how much of it shall flow; nothing at a flow of 0."""

    gas: str
    flow_ml_per_min: float
