"""The hand that arm and gripper share, and the agenda of a mechanism."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
from ppu_simulators.instruments._agenda import Agenda
from ppu_simulators.instruments._hand import Feel, Hand, hand_of
from ppu_simulators.world import FLOOR, Refused, World

Play = Callable[[Coroutine[Any, Any, Any]], Any]


def world_with(*kinds: str) -> World:
    """Return a world with containers of *kinds* on places of their own."""
    return World(
        LabFile.model_validate(
            {
                "lab": "bench",
                "schema_version": 1,
                "devices": {},
                "locations": {
                    **{f"rack.{kind}": {"holds": kind} for kind in kinds},
                    "table": {"holds": "crucible"},
                },
                "containers": {
                    f"the_{kind}": {
                        "kind": kind,
                        "at": f"rack.{kind}",
                        "capacity_ml": 20,
                        "tare_g": 18,
                    }
                    for kind in kinds
                },
            }
        ),
        1,
    )


def hand_in(world: World) -> Hand:
    """Return a hand that knows how wide crucibles are."""
    hand = hand_of(world, "arm")
    hand.widths_mm = {"crucible": 40.0}
    return hand


# -- the hand --------------------------------------------------------------------------


def test_hand_is_the_same_for_arm_and_gripper() -> None:
    """Whoever asks for the hand of an arm gets one and the same."""
    world = world_with("crucible")

    assert hand_of(world, "arm") is hand_of(world, "arm")
    assert hand_of(world, "arm") is not hand_of(world, "other arm")
    assert hand_of(world, "arm") is not hand_of(world_with("crucible"), "arm")


def test_hand_does_not_keep_its_world_alive() -> None:
    """A twin that is closed leaves nothing behind."""
    world = world_with("crucible")
    hand_in(world)
    gone = weakref.ref(world)
    del world
    gc.collect()

    assert gone() is None


def test_hand_holds_what_it_grips_until_it_puts_it_down() -> None:
    """The container leaves its place, is nowhere, and stands where it was put."""
    world = world_with("crucible")
    hand = hand_in(world)

    assert hand.grip(1.0, "rack.crucible", 39.0) == "the_crucible"
    assert hand.holds == "the_crucible"
    assert world.at("rack.crucible") is None
    assert hand.feel(1.01) is Feel.MOVING
    assert hand.feel(2.0) is Feel.GRASPED
    assert hand.opening_mm(2.0) == 40.0
    assert hand.put_down(5.0, "table") == "the_crucible"
    assert world.containers["the_crucible"].at == "table"
    assert (hand.feel(6.0), hand.opening_mm(6.0)) == (Feel.ARRIVED, 50.0)


def test_hand_feels_nothing_when_it_closes_on_nothing() -> None:
    """The fingers arrive at the width they were told."""
    world = world_with("crucible")
    hand = hand_in(world)

    assert hand.grip(1.0, "table", 39.0) is None
    assert (hand.feel(2.0), hand.opening_mm(2.0)) == (Feel.ARRIVED, 39.0)


@given(target=st.floats(1, 50))
@settings(max_examples=40)
def test_grip_is_loose_when_it_is_over_two_millimetres_too_wide(target: float) -> None:
    """Rubber makes up for two millimetres, not for more."""
    world = world_with("crucible")
    hand = hand_in(world)
    hand.grip(1.0, "rack.crucible", target)

    assert hand.is_loose is (target > 42.0)


def test_hand_keeps_what_cannot_be_put_down() -> None:
    """A refusal of the world leaves the container in the fingers."""
    world = world_with("crucible", "holder")
    hand = hand_in(world)
    hand.grip(1.0, "rack.crucible", 39.0)
    with pytest.raises(Refused):
        hand.put_down(2.0, "rack.holder")

    assert hand.holds == "the_crucible"
    assert hand.feel(3.0) is Feel.GRASPED


def test_fingers_let_go_when_they_are_told_to_open() -> None:
    """Opening drops; closing further does not."""
    world = world_with("crucible")
    hand = hand_in(world)
    hand.grip(1.0, "rack.crucible", 39.0)
    hand.move_to(2.0, 10.0)

    assert hand.holds == "the_crucible"

    hand.move_to(3.0, 45.0)

    assert world.containers["the_crucible"].at == FLOOR
    assert [incident.kind for incident in world.incidents] == ["drop"]


def test_hand_notices_when_its_grip_fails() -> None:
    """The fingers close further, and say that something was dropped."""
    world = world_with("crucible")
    hand = hand_in(world)
    hand.fails_at = lambda time: time >= 5.0
    hand.endure(5.0)
    hand.grip(6.0, "rack.crucible", 39.0)
    hand.endure(8.0)
    hand.lose(8.5)

    assert world.containers["the_crucible"].at == FLOOR
    assert (hand.feel(10.0), hand.opening_mm(10.0)) == (Feel.DROPPED, 39.0)
    assert len(world.incidents) == 1


def test_hand_does_not_follow_when_it_is_not_ready() -> None:
    """A gripper that was not initialised neither grips nor lets go."""
    world = world_with("crucible")
    hand = hand_in(world)
    hand.is_ready = False

    assert hand.grip(1.0, "rack.crucible", 39.0) is None
    assert world.containers["the_crucible"].at == "rack.crucible"
    assert hand.opening_mm(9.0) == 50.0

    hand.is_ready = True
    hand.grip(10.0, "rack.crucible", 39.0)
    hand.is_ready = False

    assert hand.put_down(20.0, "table") is None
    assert hand.holds == "the_crucible"


@given(speed=st.integers(1, 100), target=st.floats(0, 50), at=st.floats(0, 100))
@settings(max_examples=40)
def test_fingers_move_monotonically_to_their_target(
    speed: int, target: float, at: float
) -> None:
    """However fast they are, they never pass the target and end there."""
    hand = Hand(world_with("crucible"), "arm")
    hand.speed_percent = float(speed)
    hand.move_to(at, target)
    openings = [hand.opening_mm(at + 0.5 * n) for n in range(200)]

    assert openings == sorted(openings, reverse=True)
    assert openings[-1] == target
    assert hand.feel(at + 100) is Feel.ARRIVED


# -- the agenda ------------------------------------------------------------------------


def test_agenda_does_in_order_what_is_due() -> None:
    """Acts are told when they were due, not when somebody looked."""
    done: list[tuple[str, float]] = []
    agenda = Agenda()
    for name, time in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("d", 9.0)):
        agenda.at(time, lambda due, name=name: done.append((name, due)))  # type: ignore[misc]  # mypy does not infer such defaults
    agenda.advance(5.0)

    assert done == [("a", 1.0), ("b", 2.0), ("c", 2.0)]

    agenda.clear()
    agenda.advance(20.0)

    assert len(done) == 3


def test_agenda_does_what_an_act_adds_and_never_twice() -> None:
    """An act may add what is due at once; looking from inside it changes nothing."""
    done: list[float] = []
    agenda = Agenda()

    def tick(time: float) -> None:
        done.append(time)
        agenda.advance(time + 100)
        if time < 3:
            agenda.at(time + 1, tick)

    agenda.at(1.0, tick)
    agenda.advance(10.0)

    assert done == [1.0, 2.0, 3.0]


def test_agenda_wakes_by_itself_while_it_is_started(play: Play) -> None:
    """Acts happen at their lab time though nobody looks, and not after it stopped."""
    done: list[float] = []

    async def scenario() -> None:
        agenda = Agenda()
        agenda.at(10.0, lambda due: done.append(running_loop().time()))
        agenda.at(30.0, done.append)
        agenda.start()
        await asyncio.sleep(20.0)
        agenda.stop()
        await asyncio.sleep(20.0)

    play(scenario())

    assert done == [10.0]
