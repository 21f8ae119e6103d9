"""A simulated door controller with one door, and limit switches at both ends.

Its requests and its status are those that alab_control's door_controller.py sends and
reads; what that leaves open is our assumption and is marked so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    "travel_s": 12.0,
    "gives_up_s": 30.0,
    "faults": [],
    "encloses": "",
}
_ANSWERING_S: Final = 0.02
_TICK_S: Final = 1.0
_LONGEST_REQUEST: Final = 200


class SimulatedFurnaceDoor:
    """A motor, a door before a furnace, two limit switches and a text server.

    The way is open from the moment the door begins to open until it has closed.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its setting ``encloses`` says whose door it is.
        world: The world it stands in.
        serial_number: What its status says (our assumption).
    """

    wire = "door-line"
    known_faults: ClassVar[Mapping[str, str]] = {
        "door jammed": "the door stops on its way; the controller gives up and says so"
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
        self._travel_s = float(twin["travel_s"])
        self._gives_up_s = float(twin["gives_up_s"])
        self._serial_number = serial_number
        self._state: Literal["RUNNING", "STOP", "ERROR"] = "STOP"
        self._is_closed = True
        """What the closed switch says."""
        self._is_opening = False
        self._begun_s = 0.0
        self._left_s = 0.0
        """How long the motor must still run [s]."""
        self._agenda = Agenda()
        self._buffer = b""
        self._front = TcpFront(self, faults=self.faults)
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

    # -- the door ------------------------------------------------------------------

    def _move(self, time: float, *, opens: bool) -> None:
        """Begin to open or close, unless it is there or moves already."""
        if self._state == "RUNNING":
            return  # alab_control never asks then; ours does not turn round
        done_s = self._travel_s - self._left_s
        is_there = self._left_s <= 0 and self._is_opening is opens
        if is_there or (opens is False and self._is_closed):
            return
        if self._is_opening is not opens:
            self._left_s = done_s if self._left_s > 0 else self._travel_s
        self._is_opening = opens
        self._begun_s = time
        self._state = "RUNNING"
        if opens:
            self._is_closed = False
            self._world.move_door(time, self._furnace, True, self.name)
        self._agenda.clear()
        self._agenda.at(time + min(_TICK_S, self._left_s), self._run)

    def _run(self, time: float) -> None:
        """Move for a tick, or stand jammed."""
        if self.faults.is_active("door jammed", time):
            if time - self._begun_s >= self._gives_up_s:
                self._state = "ERROR"
                return
            self._agenda.at(time + _TICK_S, self._run)
            return
        self._left_s = max(self._left_s - _TICK_S, 0.0)
        if self._left_s > 0:
            self._agenda.at(time + min(_TICK_S, self._left_s), self._run)
            return
        self._state = "STOP"
        if not self._is_opening:
            self._is_closed = True
            self._world.move_door(time, self._furnace, False, self.name)

    # -- the server ----------------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the lines they complete."""
        self._agenda.advance(time)
        self._buffer += data
        answers: list[Answer] = []
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            text = self._answer(line.decode("ascii", "replace").strip(), time)
            answers.append(Answer(f"{text}\n".encode("ascii", "replace"), _ANSWERING_S))
        if len(self._buffer) > _LONGEST_REQUEST:
            self._buffer = b""
        return answers

    def _where(self) -> str:
        """Return what the limit switches say; between them is our assumption."""
        if self._is_closed:
            return "Closed"
        is_through = self._is_opening and self._left_s <= 0
        return "Open" if is_through else "Ajar"

    def _answer(self, request: str, time: float) -> str:
        if self._state == "ERROR" and not self.faults.is_active("door jammed", time):
            self._state = "STOP"  # somebody freed it (our assumption)
        word, _, label = request.partition(" ")
        if word in ("Open", "Close") and label == self._label:
            if self._state != "ERROR":
                self._move(time, opens=word == "Open")
        elif request != "Status":
            return f"Unknown: {request[:80]}"
        # Open and Close are answered by the status, too (our assumption).
        return (
            f"State: {self._state}; Furnace {self._label}: {self._where()}; "
            f"Serial: {self._serial_number}"
        )
