"""Steps that protocols share: moving, weighing, firing and mounting."""

from __future__ import annotations

from itertools import pairwise

import bluesky.plan_stubs as bps

from ppu.core.capabilities import (
    Balance,
    Carry,
    Door,
    FiringProfile,
    FiringRecord,
    Furnace,
    GasFlow,
    GasRequest,
    Grind,
    Gripper,
    MountPowder,
    PowderStation,
    Transporter,
)
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    InterlockError,
    InternalError,
    LimitError,
)
from ppu.plans import Lab, MsgGenerator, step

_LIGHTEST = 0.9
"""Part of its tare that a container must weigh to be on a working balance at all."""
_ZERO_WITHIN_G = 0.01
"""How far from zero an emptied pan may be; drift and noise are far less."""

__all__ = [
    "check_atmosphere",
    "check_handling",
    "check_load",
    "check_route",
    "check_zero",
    "choose_furnace",
    "fire",
    "free_slot",
    "grind_powder",
    "mount_powder",
    "move_container",
    "take_container",
    "tare_balance",
    "weigh_container",
]


@step(kind="repeatable")
def take_container(
    lab: Lab, kind: str, container: str | None = None
) -> MsgGenerator[str]:
    """Take a container for the sample, by default an empty one; return its name."""
    yield from bps.null()
    taken = lab.free_container(kind) if container is None else container
    lab.claim_container(taken)
    return taken


@step(kind="irreversible")
def move_container(lab: Lab, container: str, destination: str) -> MsgGenerator[None]:
    """Have a container carried to a location, through whatever door is before it."""
    origin = lab.location_of(container)
    if origin == destination:
        return
    transporter = lab.transporter(origin, destination)
    for place in (origin, destination):
        yield from _check_cool(lab, place, transporter)
    doors = [door for p in (origin, destination) if (door := lab.door_before(p))]
    for door in doors:
        yield from bps.abs_set(door, "open", wait=True)
    lab.moving(container, destination)
    carry = Carry(container, origin, destination)
    hand = lab.gripper_of(transporter)
    if hand is None:
        yield from bps.abs_set(transporter, carry, wait=True)
    else:
        yield from _carry_watched(transporter, hand, carry)
    lab.moved(container, destination)
    # Not if it failed: a door must not close on an arm that stands in it.
    for door in doors:
        yield from bps.abs_set(door, "closed", wait=True)


def _check_cool(lab: Lab, place: str, transporter: Transporter) -> MsgGenerator[None]:
    """Refuse to reach into a furnace that is too hot for its door or for the hand.

    Raises:
        InterlockError: If it is; nothing was opened and nothing moved.
    """
    furnace, door = lab.furnace_at(place), lab.door_before(place)
    if furnace is None:
        return
    reading = yield from bps.read(furnace)
    degc = reading[furnace.temperature_key]["value"]
    for name, allowed in _allowed_degc(transporter, door).items():
        # A reading that is no number must not pass either.
        if not degc <= allowed:
            raise InterlockError(
                f"{furnace.name} is at {degc:.0f} degC; {name} allows up to "
                f"{allowed:g} degC to reach {place}. Let it cool, then run again"
            )


def _allowed_degc(transporter: Transporter, door: Door | None) -> dict[str, float]:
    """Return how hot a chamber may be that is reached into, and who says so [degC]."""
    allowed = {transporter.name: transporter.max_container_degc}
    if door is not None:
        allowed[door.name] = door.max_open_degc
    return allowed


def _carry_watched(
    transporter: Transporter, hand: Gripper, carry: Carry
) -> MsgGenerator[None]:
    """Carry a container and see by the hand that it was carried."""
    yield from bps.kickoff(hand, wait=True)
    yield from bps.abs_set(transporter, carry, wait=True)
    yield from bps.complete(hand, wait=True)
    grip = hand.last_grip
    if grip is None:
        raise InternalError(f"{hand.name}: a completed watch left no record")
    way = f"{carry.container} on the way from {carry.origin} to {carry.destination}"
    if grip.has_dropped:
        raise InstrumentError(f"{hand.name} dropped {way}; look for it and clean up")
    if not grip.has_grasped:
        raise InstrumentError(
            f"{hand.name} gripped nothing ({grip.width_mm:.0f} mm) where it should "
            f"hold {way}; is it really at {carry.origin}?"
        )
    if grip.is_holding:
        raise InstrumentError(
            f"{hand.name} still holds {way}: {transporter.name} ended before it let "
            "go; look at both"
        )


@step(kind="irreversible")
def grind_powder(
    lab: Lab, station: PowderStation, container: str, duration_s: float
) -> MsgGenerator[None]:
    """Have what is in a container ground."""
    _check_stands(lab, container, station.container_station)
    yield from bps.abs_set(station, Grind(container, duration_s), wait=True)


@step(kind="irreversible")
def mount_powder(
    lab: Lab, station: PowderStation, container: str, holder: str
) -> MsgGenerator[None]:
    """Have powder of a container mounted in a specimen holder."""
    _check_stands(lab, container, station.container_station)
    _check_stands(lab, holder, station.holder_station)
    yield from bps.abs_set(station, MountPowder(container, holder), wait=True)


def _check_stands(lab: Lab, container: str, station: str | None) -> None:
    if station is not None and lab.location_of(container) != station:
        raise InternalError(f"{container} is not at {station}")


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
    tare = lab.container(container).tare_g
    if gross < _LIGHTEST * tare:
        raise InstrumentError(
            f"{balance.name} shows {gross:.4f} g with {container} on it, which weighs "
            f"{tare:g} g empty; is its reading frozen, or {container} not there?"
        )
    return gross - tare


@step(kind="repeatable")
def check_zero(lab: Lab, balance: Balance) -> MsgGenerator[None]:
    """See that a balance is back at zero after its pan was emptied.

    If it is not, what it showed before may be wrong, too.
    """
    standing = lab.container_at(balance.pan)
    if standing is not None:
        raise InternalError(f"{standing} still stands on {balance.name}")
    yield from bps.trigger(balance, wait=True)
    reading = yield from bps.read(balance)
    left: float = reading[balance.mass_key]["value"]
    if abs(left) > _ZERO_WITHIN_G:
        raise InstrumentError(
            f"{balance.name} shows {left:+.4f} g with nothing on its pan; is its "
            "reading frozen, or was something spilled on it? Weigh again"
        )


def free_slot(lab: Lab, furnace: Furnace) -> str:
    """Return a slot of *furnace* in which nothing stands.

    Raises:
        LimitError: If all are taken.
    """
    taken = {slot: lab.container_at(slot) for slot in furnace.slots}
    for slot, container in taken.items():
        if container is None:
            return slot
    raise LimitError(
        f"{furnace.name}: every slot is taken ("
        + ", ".join(f"{container} in {slot}" for slot, container in taken.items())
        + "); carry it to a place of its own and correct its `at` in the lab file"
    )


def check_route(lab: Lab, *places: str) -> None:
    """Refuse a way that nobody in *lab* can carry a container along.

    Raises:
        ConfigurationError: With every part of the way that is missing.
    """
    faults = []
    for origin, destination in pairwise(places):
        if origin == destination:
            continue
        try:
            lab.transporter(origin, destination)
        except ConfigurationError as exc:
            faults.append(str(exc))
    if faults:
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))


def check_handling(lab: Lab, slot: str, home: str, cool_to_degc: float) -> None:
    """Refuse to have a container taken out of a furnace that is too hot for that.

    Args:
        lab: The lab.
        slot: Where in the furnace it stands.
        home: Where it is carried to.
        cool_to_degc: How far the chamber cools before.

    Raises:
        LimitError: If that is over what the door or the transporter may face.
    """
    transporter, door = lab.transporter(slot, home), lab.door_before(slot)
    for name, degc in _allowed_degc(transporter, door).items():
        if cool_to_degc > degc:
            raise LimitError(
                f"cool_to_degc: the container would be taken out at {cool_to_degc:g} "
                f"degC; {name} allows up to {degc:g} degC"
            )


def choose_furnace(lab: Lab, atmosphere: str, name: str | None = None) -> Furnace:
    """Return the furnace to use: a certain one, or the first with that atmosphere.

    Raises:
        ConfigurationError: If there is none.
    """
    if name is not None:
        furnace = lab.the(Furnace, name)
        check_atmosphere(lab, furnace, atmosphere)
        return furnace
    if atmosphere == "air":
        return lab.the(Furnace)
    for furnace in lab.every(Furnace):
        if lab.gas_for(furnace.name, atmosphere) is not None:
            return furnace
    raise ConfigurationError(
        f"atmosphere: no furnace of lab {lab.name} has {atmosphere}; "
        f"it has {_atmospheres(lab)}"
    )


def check_atmosphere(lab: Lab, furnace: Furnace, atmosphere: str) -> None:
    """Refuse a gas that does not reach *furnace*.

    Raises:
        ConfigurationError: Naming the gases there are.
    """
    if atmosphere != "air" and lab.gas_for(furnace.name, atmosphere) is None:
        raise ConfigurationError(
            f"atmosphere: {furnace.name} has no {atmosphere}; lab {lab.name} has "
            f"{_atmospheres(lab)}"
        )


def _atmospheres(lab: Lab) -> str:
    """Return the atmospheres there are, in words."""
    gases = [
        f"{gas} for {controller.supplies}"
        for controller in lab.every(GasFlow)
        for gas in controller.gases
    ]
    return ", ".join(["air", *gases])


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
    gas = None
    if profile.atmosphere != "air":
        gas = lab.gas_for(furnace.name, profile.atmosphere)
        if gas is None:
            raise InternalError(f"{furnace.name} has no {profile.atmosphere}")
    yield from bps.prepare(furnace, profile, wait=True)
    if gas is not None:
        request = GasRequest(profile.atmosphere, profile.gas_flow_ml_per_min)
        yield from bps.abs_set(gas, request, wait=True)
        yield from bps.kickoff(gas, wait=True)
        # Not waited for: it fails the plan at the next collection after the gas did.
        yield from bps.complete(gas, group=f"{gas.name} flows", wait=False)
    yield from bps.declare_stream(furnace, name="firing", collect=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.collect_while_completing(
        [furnace], [furnace], flush_period=lab.flush_period_s, stream_name="firing"
    )
    if gas is not None:
        yield from bps.abs_set(gas, GasRequest(profile.atmosphere, 0.0), wait=True)
        yield from bps.wait(group=f"{gas.name} flows")
    record = furnace.last_firing
    if record is None:
        raise InternalError(f"{furnace.name}: a completed firing left no record")
    return record
