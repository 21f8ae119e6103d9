"""Seats: places in a firing that several jobs may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from ppu.core.capabilities import FiringProfile, FiringRecord, Furnace, GasFlow
from ppu.plans.lab import Lab
from ppu.plans.messages import Msg, MsgGenerator

__all__ = [
    "Role",
    "Seat",
    "Turn",
    "await_firing",
    "begin_firing",
    "end_firing",
    "leave_seat",
    "request_seat",
    "wait_for_load",
]

Role = Literal["lead", "follow"]
"""Whoever leads runs the furnace's program; the others wait for its record."""


Turn = Literal["begin", "join"]
"""What a job must do whose leader has left."""


@dataclass(frozen=True)
class Seat:
    """A container's place in a firing.

    Attributes:
        firing: Name of the firing.
        furnace: Name of the furnace.
        slot: Where the container shall stand.
        profile: What is fired: cooled to what suits all members.
        members: Jobs that share it.
        belongings: Devices that go with the furnace: what lets gas into it.
    """

    firing: str
    furnace: str
    slot: str
    profile: FiringProfile
    members: tuple[int, ...]
    belongings: tuple[str, ...] = ()


def request_seat(
    lab: Lab, container: str, profile: FiringProfile, furnaces: Sequence[str]
) -> MsgGenerator[Seat]:
    """Wait for a place in a firing along *profile*; return it.

    Jobs that want the same get places in one firing. Whoever comes first waits for
    others, but only for a part of the firing's own duration, and not if no other job
    could come.

    Args:
        lab: The lab.
        container: What is to be fired.
        profile: The firing.
        furnaces: Furnaces that may be used, the best first.
    """
    devices = [lab.the(Furnace, name) for name in furnaces]
    seat = yield Msg(
        "seat_request",
        None,
        container=container,
        profile=profile,
        slots={furnace.name: tuple(furnace.slots) for furnace in devices},
        expected_s=min(furnace.expected_duration_s(profile) for furnace in devices),
        belongings={
            furnace.name: tuple(
                gas.name for gas in lab.every(GasFlow) if gas.supplies == furnace.name
            )
            for furnace in devices
        },
    )
    return cast(Seat, seat)


def wait_for_load(seat: Seat) -> MsgGenerator[Role]:
    """Wait until every member's container is in the furnace; return one's role."""
    role = yield Msg("seat_loaded", None, seat=seat)
    return cast(Role, role)


def begin_firing(seat: Seat) -> MsgGenerator[None]:
    """Say that the furnace's program is started now, or joined."""
    yield Msg("seat_firing", None, seat=seat)


def await_firing(seat: Seat) -> MsgGenerator[FiringRecord | Turn]:
    """Wait for the record of a firing that another job leads.

    Returns:
        The record; or whoever led has left, and it is this job's turn: to begin the
        firing, or to join what the furnace does.
    """
    record = yield Msg("seat_follow", None, seat=seat)
    return cast("FiringRecord | Turn", record)


def end_firing(seat: Seat, record: FiringRecord) -> MsgGenerator[None]:
    """Tell the other members that the firing is complete."""
    yield Msg("seat_fired", None, seat=seat, record=record)


def leave_seat(seat: Seat) -> MsgGenerator[None]:
    """Give the place back; the container is not in it any more."""
    yield Msg("seat_left", None, seat=seat)
