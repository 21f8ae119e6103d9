"""Steps that protocols share: moving, weighing, firing and mounting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ppu.core.capabilities import (
    Balance,
    Carry,
    Door,
    FiringProfile,
    FiringRecord,
    FiringUnderWay,
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
    NoResourceError,
    PPUError,
)
from ppu.core.remedies import Remedy, advise
from ppu.core.tasks import BEGINS_WITHIN_K
from ppu.plans import Lab, MsgGenerator, bps, step
from ppu.plans.messages import utils
from ppu.plans.seats import (
    Role,
    Seat,
    await_firing,
    begin_firing,
    end_firing,
    leave_seat,
    request_seat,
    wait_for_load,
)
from ppu.plans.steps import (
    earlier_samples,
    keep_changes,
    note_wait,
    take_empty,
    take_named,
)
from ppu_protocols.evidence import (
    LIGHTEST,
    doors_between,
    find_carried,
    find_ground,
    find_mounted,
    leave_carried,
)

_ZERO_WITHIN_G = 0.01
"""How far from zero an emptied pan may be; drift and noise are far less."""
_NOISE_K = 0.5
"""How far over a limit a furnace may read that has cooled to just that limit."""
_SHORTEST_CARRY_S = 5.0
"""How long fingers hold at least what is carried from one place to another [s]."""
_ROOM_AT_MOST_DEGC = 35.0
"""To what a chamber cools in any room [degC]."""
_LOOK_EVERY_S = 60.0
"""How often a furnace is looked at that must cool before it is used [s]."""

__all__ = [
    "carry_home",
    "check_atmosphere",
    "check_handling",
    "check_load",
    "check_route",
    "check_slot",
    "check_zero",
    "choose_furnaces",
    "fire",
    "fire_container",
    "grind_powder",
    "mount_powder",
    "move_container",
    "take_container",
    "tare_balance",
    "weigh_container",
    "weigh_sample",
]


@step(kind="repeatable")
def take_container(
    lab: Lab, kind: str, container: str | None = None
) -> MsgGenerator[str]:
    """Take a container for the sample, by default an empty one; return its name.

    A certain one may hold what an earlier job made, and stand where that left it: it is
    waited for until no other job has it, and carried home.

    Raises:
        InterlockError: If it is in something that is too hot to reach into.
    """
    if container is None:
        return (yield from take_empty(lab, kind))
    yield from take_named(lab, container)
    home = lab.home_of(container)
    if lab.left_from(container) != home:
        yield from move_container(lab, container, home)
    return container


def _needs_to_move(lab: Lab, container: str, destination: str) -> set[str]:
    """Return who carries, what is opened, and both places.

    Nobody else goes to the home of a container, so it need not be reserved.
    """
    origin = lab.left_from(container)
    if origin == destination:
        return set()
    transporter = lab.transporter(origin, destination)
    hand = lab.gripper_of(transporter)
    places = {origin, destination}
    doors = doors_between(lab, origin, destination)
    names = {transporter.name} | {door.name for door in doors}
    if hand is not None:
        names.add(hand.name)
    return names | places - {lab.home_of(container)}


def _furnaces_reached_into(lab: Lab, container: str, destination: str) -> set[str]:
    """Return the furnaces at both places, which no other job may have meanwhile."""
    places = {lab.left_from(container), destination}
    if len(places) == 1:
        return set()
    return {one.name for place in places if (one := lab.furnace_at(place))}


@step(
    kind="irreversible",
    needs=_needs_to_move,
    at_rest=_furnaces_reached_into,
    evidence=find_carried,
    settled=leave_carried,
)
def move_container(lab: Lab, container: str, destination: str) -> MsgGenerator[None]:
    """Have a container carried to a location, through whatever door is before it."""
    origin = lab.location_of(container)
    if origin == destination:
        return
    transporter = lab.transporter(origin, destination)
    for place in (origin, destination):
        yield from _check_cool(lab, place, transporter)
    doors = doors_between(lab, origin, destination)
    for door in doors:
        yield from bps.abs_set(door, "open", wait=True)
    lab.moving(container, destination)
    yield from keep_changes(lab)
    carry = Carry(container, origin, destination)
    hand = lab.gripper_of(transporter)
    try:
        if hand is None:
            yield from bps.abs_set(transporter, carry, wait=True)
        else:
            yield from _carry_watched(transporter, hand, carry)
    except (utils.FailedStatus, PPUError):
        yield from _note_outcome(lab, container, destination)
        raise
    lab.moved(container, destination)
    # Not if it failed: a door must not close on an arm that stands in it.
    for door in doors:
        yield from bps.abs_set(door, "closed", wait=True)


def _note_outcome(lab: Lab, container: str, destination: str) -> MsgGenerator[None]:
    """Believe of a carry that failed what is to be seen of it, and nothing else.

    What an arm never began has not left its place.
    """
    try:
        found = yield from find_carried(lab, container, destination)
    except (utils.FailedStatus, PPUError):
        return  # who could tell cannot be asked: nobody knows where it is
    if found.has_happened:
        lab.moved(container, destination)
    elif found.has_happened is False:
        lab.stayed(container)


def _check_cool(lab: Lab, place: str, transporter: Transporter) -> MsgGenerator[None]:
    """Refuse to reach into a furnace that is too hot for its door or for the hand.

    Raises:
        InterlockError: If it is; nothing was opened and nothing moved.
    """
    furnace, door = lab.furnace_at(place), lab.door_before(place)
    if furnace is None:
        return
    degc = yield from _chamber_degc(furnace)
    for name, allowed in _allowed_degc(transporter, door).items():
        # A firing may end just there, and a reading has noise. One that is no number
        # must not pass either.
        if not degc <= allowed + _NOISE_K:
            raise InterlockError(
                f"{furnace.name} is at {degc:.1f} degC; {name} allows up to "
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
    # Fingers that nobody looked at for long enough may have held it meanwhile; then the
    # arm's word counts, as that of an arm does whose hand tells nothing.
    if not grip.has_grasped and grip.unseen_s < _SHORTEST_CARRY_S:
        raise InstrumentError(
            f"{hand.name} gripped nothing ({grip.width_mm:.0f} mm) where it should "
            f"hold {way}; is it really at {carry.origin}?"
        )
    if grip.is_holding:
        raise InstrumentError(
            f"{hand.name} still holds {way}: {transporter.name} ended before it let "
            "go; look at both"
        )


@step(kind="irreversible", evidence=find_ground)
def grind_powder(
    lab: Lab, station: PowderStation, container: str, duration_s: float
) -> MsgGenerator[None]:
    """Have what is in a container ground."""
    _check_stands(lab, container, station.container_station)
    yield from bps.abs_set(station, Grind(container, duration_s), wait=True)


@step(kind="irreversible", evidence=find_mounted)
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
    if gross < LIGHTEST * tare:
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


def _needs_to_weigh(lab: Lab, container: str) -> tuple[str, ...]:
    del container
    balance = lab.the(Balance)
    return balance.name, balance.pan


def carry_home(lab: Lab, container: str, *rest: object) -> MsgGenerator[None]:
    """Carry a container home, to put it where it is in nobody's way."""
    del rest  # what else the step was given
    yield from move_container(lab, container, lab.home_of(container))


@step(kind="repeatable", needs=_needs_to_weigh, park=carry_home)
def weigh_sample(lab: Lab, container: str) -> MsgGenerator[float]:
    """Carry a container from home to the balance and back; return its content [g]."""
    balance = lab.the(Balance)
    yield from tare_balance(lab, balance)
    yield from move_container(lab, container, balance.pan)
    content = yield from weigh_container(lab, container, balance)
    yield from move_container(lab, container, lab.home_of(container))
    yield from check_zero(lab, balance)
    return content


def check_slot(lab: Lab, furnace: Furnace, container: str) -> str:
    """Return a slot of *furnace* that is free, or will be when a job is done with it.

    Args:
        lab: The lab.
        furnace: The furnace.
        container: What is to be fired, which may stand in it already.

    Raises:
        NoResourceError: If things stand in all of them that no job uses.
    """
    standing = {slot: lab.container_at(slot) for slot in furnace.slots}
    for slot, other in standing.items():
        if other in (None, container) or lab.is_used(other):
            return slot
    raise NoResourceError(
        f"{furnace.name}: every slot is taken ("
        + ", ".join(f"{other} in {slot}" for slot, other in standing.items())
        + "); carry it to a place of its own and say so",
        advice=[
            advise(Remedy.MOVE_CONTAINER, container=other)
            for other in standing.values()
        ],
        field=furnace.name,
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
                f"degC; {name} allows up to {degc:g} degC",
                field="cool_to_degc",
            )


def choose_furnaces(
    lab: Lab, profile: FiringProfile, name: str | None = None
) -> list[Furnace]:
    """Return the furnaces that may run *profile*, the first of the lab file first.

    Args:
        lab: The lab.
        profile: The firing.
        name: A certain furnace; by default all that have its atmosphere.

    Raises:
        ConfigurationError: If none has the atmosphere.
        LimitError: If none of these may go so hot; with what the first one says.
    """
    atmosphere = profile.atmosphere
    if name is not None:
        candidates = [lab.the(Furnace, name)]
        check_atmosphere(lab, candidates[0], atmosphere)
    else:
        lab.the(Furnace)
        candidates = [
            furnace
            for furnace in lab.every(Furnace)
            if atmosphere == "air" or lab.gas_for(furnace.name, atmosphere) is not None
        ]
    if not candidates:
        raise ConfigurationError(
            f"atmosphere: no furnace of lab {lab.name} has {atmosphere}; "
            f"it has {_atmospheres(lab)}",
            field="atmosphere",
        )
    allowed, refusals = [], []
    for furnace in candidates:
        try:
            furnace.check_profile(profile)
            allowed.append(furnace)
        except LimitError as exc:
            refusals.append(exc)
    if not allowed:
        raise refusals[0]
    return allowed


def check_atmosphere(lab: Lab, furnace: Furnace, atmosphere: str) -> None:
    """Refuse a gas that does not reach *furnace*.

    Raises:
        ConfigurationError: Naming the gases there are.
    """
    if atmosphere != "air" and lab.gas_for(furnace.name, atmosphere) is None:
        raise ConfigurationError(
            f"atmosphere: {furnace.name} has no {atmosphere}; lab {lab.name} has "
            f"{_atmospheres(lab)}",
            field="atmosphere",
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


def _needs_of_firing(lab: Lab, furnace: Furnace, profile: FiringProfile) -> list[str]:
    """Return the furnace, and what lets gas into it."""
    del profile
    gases = [gas.name for gas in lab.every(GasFlow) if gas.supplies == furnace.name]
    return [furnace.name, *gases]


def _expected_firing_s(lab: Lab, furnace: Furnace, profile: FiringProfile) -> float:
    """Return how long a firing in *lab* will take [s]."""
    del lab  # the furnace knows
    return furnace.expected_duration_s(profile)


def rejoin_firing(
    lab: Lab, furnace: Furnace, profile: FiringProfile
) -> MsgGenerator[FiringRecord]:
    """Go on with a firing that the controller runs, or has run, by itself.

    Raises:
        NothingToJoinError: Behind bluesky's error, if it does not.
    """
    gas = _gas_of(lab, furnace, profile)
    samples = yield from earlier_samples("firing")
    under_way = FiringUnderWay(profile, samples)
    yield from bps.prepare(furnace, under_way, wait=True)
    return (yield from _see_through(lab, furnace, profile, gas))


@step(
    kind="resumable",
    needs=_needs_of_firing,
    expected_s=_expected_firing_s,
    rejoin=rejoin_firing,
)
def fire(
    lab: Lab, furnace: Furnace, profile: FiringProfile
) -> MsgGenerator[FiringRecord]:
    """Run a firing on *furnace* and collect its samples as event pages."""
    return (yield from run_firing(lab, furnace, profile))


def run_firing(
    lab: Lab, furnace: Furnace, profile: FiringProfile
) -> MsgGenerator[FiringRecord]:
    """Run a firing on *furnace* and collect its samples as event pages."""
    gas = _gas_of(lab, furnace, profile)
    yield from bps.prepare(furnace, profile, wait=True)
    return (yield from _see_through(lab, furnace, profile, gas))


def _gas_of(lab: Lab, furnace: Furnace, profile: FiringProfile) -> GasFlow | None:
    """Return what lets the gas of *profile* flow, None for air."""
    if profile.atmosphere == "air":
        return None
    gas = lab.gas_for(furnace.name, profile.atmosphere)
    if gas is None:
        raise InternalError(f"{furnace.name} has no {profile.atmosphere}")
    return gas


def _see_through(
    lab: Lab, furnace: Furnace, profile: FiringProfile, gas: GasFlow | None
) -> MsgGenerator[FiringRecord]:
    """Do the firing that was prepared, in its gas, and collect its samples."""
    if gas is not None:
        request = GasRequest(profile.atmosphere, profile.gas_flow_ml_per_min)
        yield from bps.abs_set(gas, request, wait=True)
        yield from bps.kickoff(gas, wait=True)
        # Not waited for: it fails the plan at the next collection after the gas did.
        yield from bps.complete(gas, group=f"{gas.name} flows", wait=False)
    yield from bps.declare_stream(furnace, name="firing", collect=True)
    yield from bps.kickoff(furnace, wait=True)
    # The first sample is kept at once: it shows that the program had begun.
    yield from bps.collect(furnace, name="firing")
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


# -- firings that jobs share -----------------------------------------------------------


@step(kind="repeatable", seat="takes")
def take_seat(
    lab: Lab, container: str, profile: FiringProfile, furnaces: Sequence[str]
) -> MsgGenerator[Seat]:
    """Wait for a place in a firing along *profile*, and for the chamber to cool to it.

    After an abort that takes hours, in which a hand is free for others.
    """
    seat = yield from request_seat(lab, container, profile, furnaces)
    yield from _await_cool(lab, container, seat)
    return seat


def _await_cool(lab: Lab, container: str, seat: Seat) -> MsgGenerator[None]:
    """Wait until a container may be put into a furnace, and not too hot a one."""
    furnace, door = lab.the(Furnace, seat.furnace), lab.door_before(seat.slot)
    transporter = lab.transporter(lab.home_of(container), seat.slot)
    highest = seat.profile.highest_degc
    allowed = min(
        *(degc + _NOISE_K for degc in _allowed_degc(transporter, door).values()),
        # What begins hotter than its dwell is not measured; no room cools for ever.
        max(highest, _ROOM_AT_MOST_DEGC),
        highest + BEGINS_WITHIN_K,
    )
    degc = yield from _chamber_degc(furnace)
    if not degc > allowed:  # what is no number is refused where it is reached into
        return
    yield from note_wait(
        f"{furnace.name} is at {degc:.0f} degC; {container} is put in below "
        f"{allowed:.0f} degC"
    )
    while degc > allowed:
        yield from bps.sleep(_LOOK_EVERY_S)
        degc = yield from _chamber_degc(furnace)
    yield from note_wait("")


def _chamber_degc(furnace: Furnace) -> MsgGenerator[float]:
    """Read how hot a chamber is [degC]."""
    reading = yield from bps.read(furnace)
    degc: float = reading[furnace.temperature_key]["value"]
    return degc


@step(kind="repeatable")
def load_seat(lab: Lab, seat: Seat) -> MsgGenerator[Role]:
    """Wait until all containers of a firing are in the furnace; return one's role."""
    del lab
    return (yield from wait_for_load(seat))


def _needs_to_fire(lab: Lab, seat: Seat, role: Role) -> list[str]:
    """Return what the leader of a firing needs; the others only wait.

    Its gas goes with the furnace: nobody else lets any flow into it.
    """
    del lab
    return [] if role == "follow" else [seat.furnace]


def _expected_seat_s(lab: Lab, seat: Seat, role: Role) -> float:
    del role
    return lab.the(Furnace, seat.furnace).expected_duration_s(seat.profile)


def _follow_or_join(lab: Lab, seat: Seat, role: Role) -> MsgGenerator[FiringRecord]:
    """Wait for a firing that goes on; lead it if nobody else does any more."""
    furnace, turn = lab.the(Furnace, seat.furnace), "join"
    if role == "follow":
        found = yield from await_firing(seat)
        if isinstance(found, FiringRecord):
            return found
        turn = found
    yield from begin_firing(seat)
    if turn == "begin":
        # A step, because whatever heats must be let to.
        record = yield from fire(lab, furnace, seat.profile)
    else:
        record = yield from rejoin_firing(lab, furnace, seat.profile)
    yield from end_firing(seat, record)
    return record


@step(
    kind="resumable",
    needs=_needs_to_fire,
    expected_s=_expected_seat_s,
    rejoin=_follow_or_join,
)
def fire_seat(lab: Lab, seat: Seat, role: Role) -> MsgGenerator[FiringRecord]:
    """Fire what stands in a furnace, or wait for the job that does."""
    if role == "follow":
        return (yield from _follow_or_join(lab, seat, role))
    yield from begin_firing(seat)
    record = yield from run_firing(lab, lab.the(Furnace, seat.furnace), seat.profile)
    yield from end_firing(seat, record)
    return record


@step(kind="repeatable", seat="leaves")
def vacate_seat(lab: Lab, seat: Seat) -> MsgGenerator[None]:
    """Give a place in a furnace back."""
    del lab
    yield from leave_seat(seat)


@dataclass(frozen=True)
class Fired:
    """What a container went through."""

    furnace: str
    record: FiringRecord
    cooled_to_degc: float
    """What the chamber was to cool to before anything was taken out."""

    def measured(self) -> dict[str, float | str | None]:
        """Return what was measured of the firing; None where nobody did."""
        return {
            "furnace": self.furnace,
            "temperature_degc": self.record.dwell_temperature_degc,
            "highest_temperature_degc": self.record.max_temperature_degc,
            "hold_s": self.record.held_s,
        }

    def not_measured(self) -> tuple[str, ...]:
        """Return what was not measured of the firing, in sentences."""
        return tuple(f"{self.furnace}, {text}" for text in self.record.not_measured())


def fire_container(
    lab: Lab, container: str, profile: FiringProfile, furnaces: Sequence[Furnace]
) -> MsgGenerator[Fired]:
    """Fire a container that is at home, with others if they want the same."""
    names = [furnace.name for furnace in furnaces]
    seat = yield from take_seat(lab, container, profile, names)
    yield from move_container(lab, container, seat.slot)
    role = yield from load_seat(lab, seat)
    record = yield from fire_seat(lab, seat, role)
    yield from move_container(lab, container, lab.home_of(container))
    yield from vacate_seat(lab, seat)
    return Fired(seat.furnace, record, seat.profile.cool_to_degc)
