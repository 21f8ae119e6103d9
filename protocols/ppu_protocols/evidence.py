"""Evidence: what shows whether an act has happened whose process died.

An arm plays its program to the end and a robot does its workflow, whoever has died, so
first they are waited for. Then what there is is asked: what the instrument remembers,
what the hand holds, what the pan weighs. Nothing is touched that moves matter, and
what is not sure is left to a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ppu.core.capabilities import (
    Balance,
    Carry,
    Door,
    DoseRequest,
    Grind,
    Gripper,
    GripRecord,
    MountPowder,
    PowderDoser,
    PowderStation,
    PowderTask,
    Recalling,
    Recollection,
    TaskUnderWay,
    Transporter,
)
from ppu.core.errors import InternalError, MalformedReply, TransportError
from ppu.plans import Lab, MsgGenerator, bps
from ppu.plans.messages import utils
from ppu.plans.steps import Evidence

__all__ = [
    "LIGHTEST",
    "doors_between",
    "find_carried",
    "find_dosed",
    "find_ground",
    "find_mounted",
    "judge_carry",
    "leave_carried",
    "leave_dosed",
]

LIGHTEST = 0.9
"""Part of its tare that a container must weigh to be on a working balance at all."""
_EMPTY_PAN = 0.1
"""Part of that tare that an empty pan may show at most."""
_LOOK_S = 1.0


# -- carrying --------------------------------------------------------------------------


def find_carried(lab: Lab, container: str, destination: str) -> MsgGenerator[Evidence]:
    """Look whether a container was carried."""
    origin = lab.left_from(container)
    if origin == destination:
        yield from bps.null()
        return Evidence(True, f"{container} was at {destination} before")
    transporter = lab.transporter(origin, destination)
    carry = Carry(container, origin, destination)
    hand = lab.gripper_of(transporter)
    said, grips = yield from _recall_watched(transporter, carry, hand)
    at_origin = yield from _stands_on_pan(lab, container, origin)
    at_destination = yield from _stands_on_pan(lab, container, destination)
    if at_destination and not isinstance(transporter, Recalling):
        return Evidence(True, f"{container} stands on the pan it was carried to")
    found = judge_carry(said, grips, at_origin, at_destination)
    doors = doors_between(lab, origin, destination)
    if found.has_happened is None and doors:
        names = " and ".join(door.name for door in doors)
        return Evidence(
            None,
            f"{found.text}; see that nothing stands in the way of {names} before you "
            "answer, which then may close",
        )
    return found


def judge_carry(
    said: Recollection,
    grips: Sequence[GripRecord] | None,
    at_origin: bool | None,
    at_destination: bool | None,
) -> Evidence:
    """Return what all that was seen tells of a carry.

    Args:
        said: What the transporter knows.
        grips: What its hand felt, one look after the other; None without a hand.
        at_origin: Whether the container stands where it was; None if nothing tells.
        at_destination: Whether it stands where it was to go; likewise.
    """
    words = [said.text, *_words_of(grips)]
    for place, stands in (("origin", at_origin), ("destination", at_destination)):
        if stands is not None:
            words.append(
                f"the pan, its {place}, {'bears it' if stands else 'is empty'}"
            )
    text = "; ".join(words)
    looks = grips or ()
    if any(look.has_dropped for look in looks) or (looks and looks[-1].is_holding):
        return Evidence(None, text)
    if not said.is_at_rest:
        return Evidence(None, text)
    was_carried = grips is None or any(look.has_grasped for look in looks)
    if at_destination and said.has_happened is not False and not at_origin:
        return Evidence(True, text)
    if at_origin and said.has_happened is not True and not at_destination:
        return Evidence(False, text)
    if said.has_happened and at_destination is None and not at_origin and was_carried:
        return Evidence(True, text)
    if said.has_happened is False and at_origin is None and not at_destination:
        return Evidence(False, text)
    return Evidence(None, text)


def _words_of(grips: Sequence[GripRecord] | None) -> list[str]:
    """Return what the hand felt, in words."""
    if grips is None:
        return []
    if any(look.has_dropped for look in grips):
        return ["the hand has dropped something"]
    if grips and grips[-1].is_holding:
        return ["the hand holds something"]
    if any(look.has_grasped for look in grips):
        return ["the hand held something and let go"]
    return ["the hand holds nothing"] if grips else ["the hand cannot be asked"]


def leave_carried(
    shown: Evidence, lab: Lab, container: str, destination: str
) -> MsgGenerator[None]:
    """Take note whether a container was carried, and close the doors behind it."""
    origin = lab.left_from(container)
    yield from bps.null()
    if not shown.has_happened:
        lab.stayed(container)
        return
    if origin == destination:
        return
    doors = doors_between(lab, origin, destination)
    lab.moved(container, destination)
    for door in doors:
        yield from bps.abs_set(door, "closed", wait=True)


def doors_between(lab: Lab, origin: str, destination: str) -> list[Door]:
    """Return the doors that a carry leads through."""
    return [door for p in (origin, destination) if (door := lab.door_before(p))]


def _stands_on_pan(lab: Lab, container: str, place: str) -> MsgGenerator[bool | None]:
    """Return whether a container stands at *place*; None if no balance can tell."""
    for balance in lab.every(Balance):
        if balance.pan != place:
            continue
        try:
            yield from bps.trigger(balance, wait=True)
            reading = yield from bps.read(balance)
        except utils.FailedStatus:
            return None  # it does not settle, or bears too much
        gross: float = reading[balance.mass_key]["value"]
        tare = lab.container(container).tare_g
        if gross >= LIGHTEST * tare:
            return True
        return False if abs(gross) <= _EMPTY_PAN * tare else None
    yield from bps.null()
    return None


# -- asking ----------------------------------------------------------------------------


def _recall_watched(
    transporter: Transporter, carry: Carry, hand: Gripper | None
) -> MsgGenerator[tuple[Recollection, list[GripRecord] | None]]:
    """Wait until *transporter* rests; return what it knows, and what its hand felt."""
    grips: list[GripRecord] | None = None if hand is None else []
    if not isinstance(transporter, Recalling):
        yield from bps.null()
        return _cannot_tell(transporter.name), None
    group = f"{transporter.name} remembers"
    try:
        status = yield from bps.prepare(transporter, TaskUnderWay(carry), group=group)
        while hand is not None and grips is not None and not status.done:
            grips.append((yield from _look_at(hand)))
            yield from bps.sleep(_LOOK_S)
        yield from bps.wait(group=group)
        if hand is not None and grips is not None:
            grips.append((yield from _look_at(hand)))
    except utils.FailedStatus as exc:
        return _cannot_be_asked(exc), grips
    return _recollection_of(transporter), grips


def _look_at(hand: Gripper) -> MsgGenerator[GripRecord]:
    """Return what a hand feels now."""
    yield from bps.trigger(hand, wait=True)
    grip = hand.last_grip
    if grip is None:
        raise InternalError(f"{hand.name}: a look left no record")
    return grip


def _recollection_of(instrument: Recalling) -> Recollection:
    said = instrument.recollection
    if said is None:
        raise InternalError(f"{instrument.name} was asked and remembers not even that")
    return said


def _cannot_tell(name: str) -> Recollection:
    return Recollection(None, False, f"{name} cannot tell; ask whether it was done")


def _cannot_be_asked(exc: utils.FailedStatus) -> Recollection:
    """Return that an instrument could not be asked, if that is why it failed."""
    cause = exc.__cause__
    if not isinstance(cause, TransportError | MalformedReply):
        raise exc
    return Recollection(None, False, str(cause))


# -- powder ----------------------------------------------------------------------------


def find_ground(
    lab: Lab, station: PowderStation, container: str, duration_s: float
) -> MsgGenerator[Evidence]:
    """Look whether what is in a container was ground."""
    del lab  # nothing but the station can tell
    return (yield from _find_handled(station, Grind(container, duration_s)))


def find_mounted(
    lab: Lab, station: PowderStation, container: str, holder: str
) -> MsgGenerator[Evidence]:
    """Look whether powder was mounted."""
    del lab  # nothing but the station can tell
    return (yield from _find_handled(station, MountPowder(container, holder)))


def _find_handled(station: PowderStation, task: PowderTask) -> MsgGenerator[Evidence]:
    if isinstance(station, Recalling):
        try:
            yield from bps.prepare(station, TaskUnderWay(task), wait=True)
        except utils.FailedStatus as exc:
            said = _cannot_be_asked(exc)
        else:
            said = _recollection_of(station)
    else:
        yield from bps.null()
        said = _cannot_tell(station.name)
    return Evidence(said.has_happened if said.is_at_rest else None, said.text)


def find_dosed(
    lab: Lab, doser: PowderDoser, request: DoseRequest
) -> MsgGenerator[Evidence]:
    """Look whether powders were dosed; wait for it if it goes on.

    Raises:
        FailedStatus: If too much or too little came; it is taken off the stock.
    """
    asked_g: dict[str, float] = {}
    for dose in request.doses:
        asked_g[dose.powder] = asked_g.get(dose.powder, 0.0) + dose.mass_g
    if not isinstance(doser, Recalling):
        yield from bps.null()
        return Evidence(None, _cannot_tell(doser.name).text, asked_g)
    try:
        yield from bps.prepare(doser, TaskUnderWay(request), wait=True)
    except utils.FailedStatus as exc:
        _use_stock(lab, doser.dosed_g)
        return Evidence(None, _cannot_be_asked(exc).text, asked_g)
    said = _recollection_of(doser)
    if said.has_happened and said.is_at_rest:
        return Evidence(True, said.text, dict(doser.dosed_g))
    if said.has_happened is False and said.is_at_rest:
        return Evidence(False, said.text)
    return Evidence(
        None, f"{said.text}; if all was dosed, what was asked counts", asked_g
    )


def leave_dosed(
    shown: Evidence, lab: Lab, doser: PowderDoser, request: DoseRequest
) -> MsgGenerator[None]:
    """Take off the stock what was dosed, if it was."""
    del doser, request
    yield from bps.null()
    if shown.has_happened:
        _use_stock(lab, shown.result)


def _use_stock(lab: Lab, masses_g: Mapping[str, float]) -> None:
    for powder, mass in masses_g.items():
        lab.use_stock(powder, mass)
