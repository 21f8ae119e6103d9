"""Steps that protocols share: moving, weighing and firing a container."""

from __future__ import annotations

import bluesky.plan_stubs as bps

from ppu.core.capabilities import (
    Balance,
    Carry,
    FiringProfile,
    FiringRecord,
    Furnace,
    Operator,
)
from ppu.core.errors import InternalError, LimitError
from ppu.plans import Lab, MsgGenerator, step

__all__ = [
    "check_handling",
    "check_load",
    "fire",
    "free_slot",
    "move_container",
    "tare_balance",
    "weigh_container",
]


@step(kind="irreversible")
def move_container(lab: Lab, container: str, destination: str) -> MsgGenerator[None]:
    """Have a container carried to a location."""
    origin = lab.location_of(container)
    if origin == destination:
        return
    operator = lab.the(Operator)
    yield from bps.abs_set(operator, Carry(container, origin, destination), wait=True)
    lab.moved(container, destination)


@step(kind="repeatable")
def tare_balance(lab: Lab, balance: Balance) -> MsgGenerator[None]:
    """Take the empty pan as zero."""
    standing = lab.container_at(balance.pan)
    if standing is not None:
        raise LimitError(f"{balance.name}: {standing} stands on the pan; take it off")
    yield from bps.trigger(balance.tare, wait=True)


@step(kind="repeatable")
def weigh_container(lab: Lab, container: str, balance: Balance) -> MsgGenerator[float]:
    """Weigh what stands on the pan; return the mass of the content [g]."""
    if lab.location_of(container) != balance.pan:
        raise InternalError(f"{container} is not on {balance.name}")
    yield from bps.create(name="weighing")
    yield from bps.trigger(balance, wait=True)
    reading = yield from bps.read(balance)
    yield from bps.save()
    gross: float = reading[balance.mass_key]["value"]
    return gross - lab.container(container).tare_g


def free_slot(lab: Lab, furnace: Furnace) -> str:
    """Return a slot of *furnace* in which nothing stands.

    Raises:
        LimitError: If all are taken.
    """
    for slot in furnace.slots:
        if lab.container_at(slot) is None:
            return slot
    raise LimitError(f"{furnace.name}: every slot is taken")


def check_handling(lab: Lab, cool_to_degc: float) -> None:
    """Refuse to have a container taken out of a furnace that is too hot for hands.

    Raises:
        LimitError: If *cool_to_degc* is over what the operator may touch.
    """
    allowed = lab.the(Operator).max_container_degc
    if cool_to_degc > allowed:
        raise LimitError(
            f"cool_to_degc: at {cool_to_degc:g} degC a person would take the container "
            f"out; allowed are up to {allowed:g} degC"
        )


def check_load(lab: Lab, container: str, contents_g: float) -> None:
    """Refuse a container that is too heavy for the balance.

    Raises:
        LimitError: If container and contents exceed what may stand on the pan.
    """
    allowed = lab.the(Balance).max_mass_g
    gross = lab.container(container).tare_g + contents_g
    if gross > allowed:
        raise LimitError(
            f"{container} weighs {gross:g} g with its contents, allowed on the balance "
            f"are up to {allowed:g} g"
        )


def _expected_firing_s(lab: Lab, furnace: Furnace, profile: FiringProfile) -> float:
    """Return how long a firing in *lab* will take [s]."""
    del lab  # the furnace knows
    return furnace.expected_duration_s(profile)


@step(kind="resumable", expected_s=_expected_firing_s)
def fire(
    lab: Lab, furnace: Furnace, profile: FiringProfile
) -> MsgGenerator[FiringRecord]:
    """Run a firing on *furnace* and collect its samples as event pages."""
    yield from bps.prepare(furnace, profile, wait=True)
    yield from bps.declare_stream(furnace, name="firing", collect=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.collect_while_completing(
        [furnace], [furnace], flush_period=lab.flush_period_s, stream_name="firing"
    )
    record = furnace.last_firing
    if record is None:
        raise InternalError(f"{furnace.name}: a completed firing left no record")
    return record
