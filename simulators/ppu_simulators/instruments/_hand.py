"""The hand of an arm: two fingers that hold a container, or nothing.

An arm's program moves it and closes it, a gripper's registers show it, and the world's
containers go with it. Arm and gripper are two devices of a lab file but share one hand.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakKeyDictionary, proxy

from ppu_simulators.world import World

__all__ = ["Feel", "Hand", "hand_of"]

_FULL_STROKE_S: Final = 0.7
"""Closing all the way at full speed, as makers of small electric grippers state."""
_SLACK_MM: Final = 2.0
"""What the rubber on the fingers makes up for."""


class Feel(enum.IntEnum):
    """What the fingers do or hold."""

    MOVING = 0
    ARRIVED = 1
    GRASPED = 2
    DROPPED = 3


class Hand:
    """Two parallel fingers.

    Args:
        world: The world that it grips things in.
        who: Name of the arm it belongs to.
    """

    def __init__(self, world: World, who: str) -> None:
        # The hands of a world must not keep it alive.
        self._world: World = proxy(world)
        self._who = who
        self.stroke_mm = 50.0
        self.speed_percent = 100.0
        self.widths_mm: Mapping[str, float] = {}
        """How wide containers of each kind are; others fit any grip."""
        self.is_ready = True
        """Whether the fingers follow what they are told."""
        self.fails_at: Callable[[float], bool] = _never
        """Whether the grip fails at a lab time."""
        self.holds: str | None = None
        self.is_loose = False
        """Whether what it holds will slip out of it."""
        self._feel = Feel.ARRIVED
        self._wanted_mm = self._from_mm = self._to_mm = self.stroke_mm
        self._from_s = self._to_s = 0.0
        world.add_gripper(self.give)

    # -- looking -------------------------------------------------------------------

    def opening_mm(self, time: float) -> float:
        """Return how far apart the fingers are at lab time *time* [mm]."""
        if time >= self._to_s:
            return self._to_mm
        part = (time - self._from_s) / (self._to_s - self._from_s)
        return self._from_mm + part * (self._to_mm - self._from_mm)

    def feel(self, time: float) -> Feel:
        """Return what the fingers do or hold at lab time *time*."""
        return Feel.MOVING if time < self._to_s else self._feel

    # -- acting --------------------------------------------------------------------

    def grip(self, time: float, location: str, target_mm: float) -> str | None:
        """Close around what stands at *location*; return its name if anything does."""
        container = self._world.at(location)
        if not self.is_ready or container is None:
            self.move_to(time, target_mm)
            return None
        width = self.widths_mm.get(container.kind, target_mm)
        self._world.pick_up(time, container.name, location, self._who)
        self.holds = container.name
        self.is_loose = target_mm > width + _SLACK_MM
        self._wanted_mm = target_mm
        self._move(time, max(width, target_mm), Feel.GRASPED)
        return container.name

    def put_down(self, time: float, destination: str) -> str | None:
        """Put what it holds onto *destination* and open; return its name.

        Raises:
            Refused: If it cannot stand there; it is still held then.
        """
        name = self.holds
        if name is not None:
            if not self.is_ready:
                return None
            self._world.put_down(time, name, destination, self._who)
            self.holds = None
        self.open(time)
        return name

    def open(self, time: float) -> None:
        """Open all the way; what it holds falls."""
        self.move_to(time, self.stroke_mm)

    def move_to(self, time: float, target_mm: float) -> None:
        """Move the fingers; what they hold stops them, or falls if they open."""
        if not self.is_ready:
            return
        if self.holds is not None:
            if target_mm <= self.opening_mm(time):
                return
            name, self.holds = self.holds, None
            self._world.drop(time, name, self._who)
        self._wanted_mm = min(max(target_mm, 0.0), self.stroke_mm)
        self._move(time, self._wanted_mm, Feel.ARRIVED)

    def lose(self, time: float) -> None:
        """Let what it holds slip out; the fingers close further and notice."""
        if self.holds is None:
            return
        name, self.holds = self.holds, None
        self._world.drop(time, name, self._who)
        self._move(time, self._wanted_mm, Feel.DROPPED)

    def give(self, time: float, container_name: str) -> bool:
        """Let a person take a container; return whether it was held."""
        if self.holds != container_name:
            return False
        self.holds = None
        self._move(time, self._wanted_mm, Feel.DROPPED)
        return True

    def endure(self, time: float) -> None:
        """Hold on while the arm moves, if the grip is good for it."""
        if self.holds is not None and self.fails_at(time):
            self.lose(time)

    def _move(self, time: float, target_mm: float, feel: Feel) -> None:
        self._from_mm, self._to_mm = self.opening_mm(time), target_mm
        way = abs(self._to_mm - self._from_mm) / self.stroke_mm
        duration = _FULL_STROKE_S * way / (self.speed_percent / 100)
        self._from_s, self._to_s = time, time + duration
        self._feel = feel


def _never(time: float) -> bool:
    del time
    return False


_HANDS: Final[WeakKeyDictionary[World, dict[str, Hand]]] = WeakKeyDictionary()


def hand_of(world: World, arm: str) -> Hand:
    """Return the hand of an arm in *world*, the same for everybody who asks."""
    hands = _HANDS.setdefault(world, {})
    if arm not in hands:
        hands[arm] = Hand(world, arm)
    return hands[arm]
