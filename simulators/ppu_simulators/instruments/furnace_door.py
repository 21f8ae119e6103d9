"""A simulated door controller with two doors, as its firmware behaves.

Written from what the firmware (soft_R07_AB.ino of CederGroupHub/alab_control) does: its
answers, its times, and that it looks neither at switches nor at timers while a client
is connected. How fast a door goes shut, and the serial number, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.instruments._agenda import Agenda
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedFurnaceDoor"]

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "door": "A",
    "opens_in_s": 10.0,
    "shuts_in_s": 24.0,
    "says_serial_number": True,
    "faults": [],
    "encloses": "",
}
_LABELS: Final = ("A", "B")
_MOST_OPENING_S: Final[Mapping[str, float]] = {"A": 26.5, "B": 27.5}
_CLOSING_S: Final[Mapping[str, float]] = {"A": 29.0, "B": 30.0}
_ANSWERING_S: Final = 0.02
_TICK_S: Final = 0.5
_MESSAGE_BYTES: Final = 31
_JAMMED: Final = "door jammed"


@dataclass
class _Door:
    """One door: where it really is, and what the controller calls it."""

    opening: float = 0.0
    """0 shut, 1 at the switch."""
    called: Literal["Closed", "Open", "Unknown"] = "Closed"


class SimulatedFurnaceDoor:
    """Two motors, the door before a furnace and another, and a text server.

    The way is open from the moment the door begins to open until it is shut.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its setting ``encloses`` says whose door it is.
        world: The world it stands in.
        serial_number: What its status says, unless ``says_serial_number`` is false as
            in the firmware, which has none.
    """

    wire = "door-line"
    known_faults: ClassVar[Mapping[str, str]] = {
        _JAMMED: "the door stops on its way; an opening is given up and the controller "
        "says so, a closing ends by the clock; who frees it shuts the door, and "
        "switches a controller that reports an error off and on"
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._world = world
        # What it really stands before, in case the driver's setting is wrong.
        believed = entry.settings.get("encloses", name)
        self._furnace = str(twin["encloses"] or believed)
        self._label = str(twin["door"])
        self._opens_in_s = float(twin["opens_in_s"])
        self._shuts_in_s = float(twin["shuts_in_s"])
        self._serial_number = serial_number if twin["says_serial_number"] else ""
        self._state: Literal["RUNNING", "STOP", "ERROR"] = "STOP"
        self._doors = {label: _Door() for label in sorted({*_LABELS, self._label})}
        self._moving: str | None = None
        """Whose motor runs."""
        self._is_opening = False
        self._ends_s = 0.0
        """When its timer is due."""
        self._is_attended = False
        """Whether a client is connected: nothing else is looked at then."""
        self._waits_for_repair = False
        self._agenda = Agenda()
        self._front = TcpFront(self, faults=self.faults, attend=self._attend)
        world.add_door(self._furnace)

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        self._agenda.start()
        host, port = await self._front.start()
        return {"transport": "tcp", "host": host, "port": port}

    async def stop(self) -> None:
        """Stop listening."""
        self._agenda.stop()
        await self._front.stop()

    # -- the motors ------------------------------------------------------------------

    def _run(self, time: float, label: str, *, opens: bool) -> None:
        """Switch a motor on, for as long as it may run."""
        times = _MOST_OPENING_S if opens else _CLOSING_S
        self._moving, self._is_opening = label, opens
        self._ends_s = time + times.get(label, times["A"])
        if opens and label == self._label:
            self._world.move_door(time, self._furnace, True, self.name)
        self._agenda.clear()
        self._agenda.at(time + _TICK_S, self._tick)

    def _tick(self, time: float) -> None:
        """Let the motor move its door for a while, unless that is jammed."""
        if self._moving is None:
            return
        door = self._doors[self._moving]
        is_jammed = self._moving == self._label and self.faults.is_active(_JAMMED, time)
        if not is_jammed and self._is_opening:
            door.opening = min(door.opening + _TICK_S / self._opens_in_s, 1.0)
        elif not is_jammed:
            door.opening = max(door.opening - _TICK_S / self._shuts_in_s, 0.0)
            if door.opening <= 0 and self._moving == self._label:
                self._world.move_door(time, self._furnace, False, self.name)
        if not self._is_attended:
            self._look(time)
        if self._moving is not None:
            self._agenda.at(time + _TICK_S, self._tick)

    def _look(self, time: float) -> None:
        """Do what the firmware does between two clients: timer and limit switch."""
        if self._moving is None:
            return
        door = self._doors[self._moving]
        if self._is_opening and door.opening >= 1.0:
            self._moving, self._state, door.called = None, "STOP", "Open"
        elif time < self._ends_s:
            return
        elif self._is_opening:
            # Given up: it is driven shut for safety, whatever stopped it.
            self._state, door.called = "ERROR", "Open"
            self._waits_for_repair = self.faults.is_active(_JAMMED, time)
            self._run(time, self._moving, opens=False)
        elif self._state == "ERROR":
            self._moving, door.called = None, "Unknown"
        else:
            self._moving, self._state, door.called = None, "STOP", "Closed"

    def _attend(self, is_connected: bool, time: float) -> None:
        """Take note that a client has come or gone."""
        self._agenda.advance(time)
        self._is_attended = is_connected
        if not is_connected:
            self._look(time)

    def _note_repair(self, time: float) -> None:
        """Start anew if somebody freed the door, shut it and switched off and on."""
        if not self._waits_for_repair or self.faults.is_active(_JAMMED, time):
            return
        self._waits_for_repair = False
        self._moving, self._state = None, "STOP"
        for label in self._doors:
            self._doors[label] = _Door()
        self._world.move_door(time, self._furnace, False, self.name)

    # -- the server ------------------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the messages in them.

        A message ends with a line feed, or with what there is to read.
        """
        self._agenda.advance(time)
        self._note_repair(time)
        answers = []
        while data:
            message, feed, rest = data[:_MESSAGE_BYTES].partition(b"\n")
            data = rest + data[_MESSAGE_BYTES:] if feed else data[_MESSAGE_BYTES:]
            answer = self._answer(message.decode("ascii", "replace"), time)
            if answer is not None:
                answers.append(Answer(answer.encode("ascii"), _ANSWERING_S))
        return answers

    def _answer(self, message: str, time: float) -> str | None:
        word, _, label = message.partition(" ")
        is_motion = word in ("Open", "Close") and label in self._doors
        if message == "Status" or (is_motion and self._state != "STOP"):
            return self._status()
        if not is_motion:
            return "Wrong command"
        called = self._doors[label].called
        if called == "Unknown":
            return None
        opens = word == "Open"
        if opens is (called == "Open"):
            return self._status()
        self._state = "RUNNING"
        self._run(time, label, opens=opens)
        return f"{'Opening' if opens else 'Closing'} furnace {label}..."

    def _status(self) -> str:
        said = f"State: {self._state};"
        for label, door in self._doors.items():
            said += f" Furnace {label}: {door.called};"
        return said + (
            f" Serial: {self._serial_number};" if self._serial_number else ""
        )
