"""A simulated UR5e and its dashboard server.

Written from the manual of the dashboard server (e-Series, port 29999, 2022) as its
users tabulate it. The controller has its own programs, which somebody taught: what
they do does not depend on what the lab file says that they do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar, Final, Literal

import yaml
from typing_extensions import override

from ppu.core.errors import nearest
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.core.simulation import TwinSettingsError
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront, _Connection
from ppu_simulators.instruments._agenda import Agenda
from ppu_simulators.instruments._hand import hand_of
from ppu_simulators.world import Refused, World, settings_of

__all__ = ["SimulatedUr5e"]

_GREETING: Final = b"Connected: Universal Robots Dashboard Server\n"
_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "programs": "a-lab",
    "container_mm": {"crucible": 40.0, "holder": 32.0},
    "robot_mode": "RUNNING",
    "remote_control": True,
    "faults": [],
}
_ANSWERING_S: Final = 0.01
_LOADING_S: Final = 1.5
_STARTING_S: Final = 0.3
_TICK_S: Final = 1.0
_UNLOCKABLE_AFTER_S: Final = 5.0
_LONGEST_COMMAND: Final = 2000
_NOT_REMOTE: Final = (
    "Command is not allowed due to safety reasons, please switch robot to Remote "
    "Control mode and reconnect to port 29999"
)
_TOO_EARLY: Final = (
    "Cannot unlock protective stop until 5s after occurrence. Always inspect cause of "
    "protective stop before unlocking"
)
_REMOTE_ONLY: Final = (
    "load",
    "play",
    "pause",
    "stop",
    "power on",
    "power off",
    "brake release",
    "unlock protective stop",
    "shutdown",
)

_Act = Callable[[float], str]
"""Does something at a lab time; returns what stopped the arm, or nothing."""


@dataclass(frozen=True)
class _Program:
    """What somebody taught the arm."""

    name: str
    task: Literal["carry", "grind", "mount_powder"]
    duration_s: float
    origin: str = ""
    destination: str = ""
    grip_width_mm: float = 0.0
    path: tuple[str, ...] = ()
    station: str = ""
    holder_station: str = ""
    grinds_for_s: float = 0.0


_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "carry": ("origin", "destination", "grip_width_mm", "duration_s"),
    "grind": ("task", "station", "duration_s"),
    "mount_powder": ("task", "station", "holder_station", "duration_s"),
}
_OPTIONAL: Final[Mapping[str, str]] = {"carry": "path", "grind": "grinds_for_s"}


@cache
def _bundled_programs(name: str) -> Any:
    """Return a list of programs that comes with this package.

    Raises:
        TwinSettingsError: If there is none of that name.
    """
    folder = files("ppu_simulators.instruments") / "ur5e_programs"
    names = [f.name.removesuffix(".yaml") for f in folder.iterdir()]
    if name not in names:
        text = f"programs: there is no list '{name}'; {nearest(name, names)}"
        raise TwinSettingsError([(("programs",), text)])
    return yaml.safe_load((folder / f"{name}.yaml").read_text())


def _read_programs(given: Any) -> dict[str, _Program]:
    """Return the programs of a twin setting: a name of ours, or the programs.

    Raises:
        TwinSettingsError: With everything that is wrong.
    """
    if isinstance(given, str):
        given = _bundled_programs(given)
    if not isinstance(given, Mapping):
        text = f"programs should map names to programs, not {given!r}"
        raise TwinSettingsError([(("programs",), text)])
    programs: dict[str, _Program] = {}
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for name, entry in given.items():
        wrong = _wrong_with(entry)
        problems += [(("programs", name), f"programs.{name}: {text}") for text in wrong]
        if not wrong:
            fields = {"task": "carry", **entry}
            fields["path"] = tuple(fields.get("path", ()))
            if fields["task"] == "grind":
                fields.setdefault("grinds_for_s", fields["duration_s"])
            programs[str(name)] = _Program(name=str(name), **fields)
    if problems:
        raise TwinSettingsError(problems)
    return programs


def _wrong_with(entry: Any) -> list[str]:
    """Return what is wrong with one program."""
    if not isinstance(entry, Mapping):
        return [f"should be a program, not {entry!r}"]
    task = entry.get("task", "carry")
    if task not in _KEYS:
        return [f"unknown task {task!r}; {nearest(str(task), _KEYS)}"]
    allowed = {*_KEYS[task], _OPTIONAL.get(task, "task"), "task"}
    wrong = [f"{key} is missing" for key in _KEYS[task] if key not in entry]
    for key, value in entry.items():
        if key not in allowed:
            wrong.append(f"unknown key '{key}'; {nearest(str(key), allowed)}")
        elif key == "path":
            if not isinstance(value, list):
                wrong.append(f"path should be a list of places, not {value!r}")
        elif key.endswith(("_s", "_mm")):
            if not isinstance(value, int | float) or not 0 < value < 1e6:
                wrong.append(f"{key} should be a positive number, not {value!r}")
        elif not isinstance(value, str):
            wrong.append(f"{key} should be text, not {value!r}")
    return wrong


class _GreetingConnection(_Connection):
    """A client of the dashboard server, who is greeted."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write(_GREETING)


class _DashboardFront(TcpFront):
    """A TCP server that speaks first."""

    @override
    def _accept(self) -> asyncio.BaseProtocol:
        return _GreetingConnection(self, running_loop(), None)


class SimulatedUr5e:
    """Arm, controller and dashboard server; the hand is shared with its gripper.

    Programs play in lab time, by themselves: approach, grip, carry, put down, retreat.
    A closed door in the way, or a place that is taken, is a protective stop.

    Args:
        name: Name of the device.
        entry: Its lab-file entry. Of its settings only the programs are read, to know
            which of them somebody mapped to a wrong way.
        world: The world that it moves containers in.
        serial_number: What it answers when it is asked for.
    """

    wire = "ur-dashboard"
    known_faults: ClassVar[Mapping[str, str]] = {
        "protective stop": "the arm feels a force that it does not expect while it "
        "moves, stops where it is and waits to be unlocked",
        "popup": "the program shows a popup and waits until somebody has closed it",
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
        self._serial_number = serial_number
        self._programs = _read_programs(twin["programs"])
        self._ways = _ways_of(entry.settings.get("programs"))
        self._hand = hand_of(world, name)
        self._hand.widths_mm = dict(twin["container_mm"])
        self._is_remote = bool(twin["remote_control"])
        self._mode = str(twin["robot_mode"])
        self._safety = "NORMAL"
        self._stopped_at_s = 0.0
        self._state: Literal["STOPPED", "PLAYING", "PAUSED"] = "STOPPED"
        self._loaded: _Program | None = None
        self._steps: deque[tuple[float, _Act]] = deque()
        self._zero_s = 0.0
        """Lab time at which the program would have begun had it never paused."""
        self._agenda = Agenda()
        self._is_off = False
        self._busy_until_s = 0.0
        self._buffer = b""
        self._front = _DashboardFront(self, faults=self.faults)

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        self._agenda.start()
        host, port = await self._front.start()
        return {"transport": "tcp", "host": host, "port": port}

    async def stop(self) -> None:
        """Stop listening."""
        self._agenda.stop()
        await self._front.stop()

    # -- playing -------------------------------------------------------------------

    def _begin(self, program: _Program, time: float) -> None:
        make = {
            "carry": self._carry_steps,
            "grind": self._grind_steps,
            "mount_powder": self._mount_steps,
        }[program.task]
        steps = [*make(program), (1.0, _nothing)]
        self._steps = deque((part * program.duration_s, act) for part, act in steps)
        self._zero_s = time
        self._state = "PLAYING"
        self._go_on()

    def _go_on(self) -> None:
        """Have the next step done when it is due, and look out every second."""
        self._agenda.clear()
        offset, _ = self._steps[0]
        self._agenda.at(self._zero_s + offset, self._step)
        # Whole seconds of the program: who looks does not change them.
        self._agenda.at(self._next_tick(), self._tick)

    def _next_tick(self) -> float:
        done = self._program_s // _TICK_S
        return self._zero_s + (done + 1) * _TICK_S

    _program_s = 0.0
    """How far the program has played [s]."""

    def _step(self, time: float) -> None:
        self._program_s = time - self._zero_s
        _, act = self._steps[0]
        if act(time):
            self._pause(time, "PROTECTIVE_STOP")
            return
        self._steps.popleft()
        if self._steps:
            self._agenda.at(self._zero_s + self._steps[0][0], self._step)
        else:
            self._end()

    def _tick(self, time: float) -> None:
        self._program_s = time - self._zero_s
        self._hand.endure(time)
        if self.faults.is_active("protective stop", time):
            self._pause(time, "PROTECTIVE_STOP")
        elif self.faults.is_active("popup", time):
            self._pause(time, self._safety)
        else:
            self._agenda.at(time + _TICK_S, self._tick)

    def _pause(self, time: float, safety: str) -> None:
        self._agenda.clear()
        self._program_s = time - self._zero_s
        self._state = "PAUSED"
        self._safety = safety
        self._stopped_at_s = time

    def _resume(self, time: float) -> None:
        self._zero_s = time - self._program_s
        self._state = "PLAYING"
        self._go_on()

    def _end(self) -> None:
        self._agenda.clear()
        self._steps.clear()
        self._program_s = 0.0
        self._state = "STOPPED"

    # -- programs ------------------------------------------------------------------

    def _carry_steps(self, program: _Program) -> list[tuple[float, _Act]]:
        """Return when in a carry program what is done, as parts of its duration."""
        n_passed = len(program.path)
        return [
            (0.0, self._open),
            (0.2, self._reach(program.origin)),
            (0.25, self._grip(program)),
            *(
                (0.3 + 0.2 * number / max(n_passed, 1), self._reach(place))
                for number, place in enumerate(program.path)
            ),
            (0.5, self._swing),
            (0.7, self._reach(program.destination)),
            (0.75, self._put_down(program)),
        ]

    def _grind_steps(self, program: _Program) -> list[tuple[float, _Act]]:
        def grind(time: float) -> str:
            container = self._world.at(program.station)
            if container is None:
                self._miss(time, program.station)
            else:
                self._world.grind(time, container, program.grinds_for_s)
            return ""

        return [
            (0.0, self._open),
            (0.1, self._reach(program.station)),
            (0.9, grind),
        ]

    def _mount_steps(self, program: _Program) -> list[tuple[float, _Act]]:
        def mount(time: float) -> str:
            source = self._world.at(program.station)
            holder = self._world.at(program.holder_station)
            if source is None:
                self._miss(time, program.station)
            elif holder is None:
                self._miss(time, program.holder_station)
            elif source.matter.mass_g <= 0:
                self._world.record(
                    time, "nothing there", self.name, f"{source.name} is empty"
                )
            else:
                self._world.recover_and_mount(time, source, holder, self.name)
            return ""

        return [
            (0.0, self._open),
            (0.1, self._reach(program.station)),
            (0.6, self._reach(program.holder_station)),
            (0.9, mount),
        ]

    def _miss(self, time: float, station: str) -> None:
        self._world.record(
            time, "nothing there", self.name, f"nothing stands at {station}"
        )

    def _open(self, time: float) -> str:
        self._hand.open(time)
        return ""

    def _reach(self, place: str) -> _Act:
        def reach(time: float) -> str:
            try:
                is_free = self._world.reach(time, place, self.name)
            except Refused as refusal:
                return str(refusal)
            return "" if is_free else f"something is before {place}"

        return reach

    def _grip(self, program: _Program) -> _Act:
        def grip(time: float) -> str:
            if self._hand.grip(time, program.origin, program.grip_width_mm) is None:
                self._world.record(
                    time,
                    "nothing gripped",
                    self.name,
                    f"{program.name} closed the fingers at {program.origin} on nothing",
                )
            return ""

        return grip

    def _swing(self, time: float) -> str:
        """Turn, half way; what is held loosely slips."""
        if self._hand.is_loose:
            self._hand.lose(time)
        return ""

    def _put_down(self, program: _Program) -> _Act:
        def put_down(time: float) -> str:
            try:
                name = self._hand.put_down(time, program.destination)
            except Refused as refusal:
                return str(refusal)
            ways = self._ways.get(program.name, [])
            way = f"{program.origin} -> {program.destination}"
            if name is not None and ways and way not in ways:
                self._world.record(
                    time,
                    "wrong place",
                    self.name,
                    f"{name} was put onto {program.destination}: {program.name} leads "
                    f"{way}, the lab file says {' and '.join(ways)}",
                )
            return ""

        return put_down

    # -- the dashboard server ------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the lines they complete."""
        self._agenda.advance(time)
        self._buffer += data
        answers: list[Answer] = []
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            command = line.decode("ascii", "replace").strip()
            if self._is_off:
                continue
            text, takes_s = self._answer(command, time)
            # One command after the other: no answer overtakes an earlier one.
            self._busy_until_s = max(self._busy_until_s, time) + takes_s
            delay_s = self._busy_until_s - time
            answers.append(Answer(f"{text}\n".encode("ascii", "replace"), delay_s))
        if len(self._buffer) > _LONGEST_COMMAND:
            self._buffer = b""
        return answers

    def _answer(self, line: str, time: float) -> tuple[str, float]:
        """Return the answer to a command and how long it takes [s]."""
        command = line.lower()
        name = "load" if command.startswith("load ") else command
        if name in _REMOTE_ONLY and not self._is_remote:
            return _NOT_REMOTE, _ANSWERING_S
        if name == "load":
            return self._load(line[5:].strip()), _LOADING_S
        if command == "play":
            return self._play(time), _STARTING_S
        if command in _REMOTE_ONLY:
            return self._obey(command, time), _ANSWERING_S
        return self._tell(line, command), _ANSWERING_S

    def _load(self, path: str) -> str:
        name = path.removeprefix("/programs/")
        if name not in self._programs:
            return f"File not found: {path}"
        if self._state != "STOPPED":
            return f"Error while loading program: {path}"
        self._loaded = self._programs[name]
        return f"Loading program: {path}"

    def _play(self, time: float) -> str:
        may_move = self._mode == "RUNNING" and self._safety == "NORMAL"
        if self._loaded is None or not may_move or self._state == "PLAYING":
            return "Failed to execute: play"
        if self._state == "PAUSED":
            self._resume(time)
        else:
            self._begin(self._loaded, time)
        return "Starting program"

    def _obey(self, command: str, time: float) -> str:
        """Do what moves or stops the arm, other than load and play."""
        if command == "stop":
            if self._state == "STOPPED":
                return "Failed to execute: stop"
            self._end()
            return "Stopped"
        if command == "pause":
            if self._state != "PLAYING":
                return "Failed to execute: pause"
            self._pause(time, self._safety)
            return "Pausing program"
        if command == "unlock protective stop":
            if time - self._stopped_at_s < _UNLOCKABLE_AFTER_S:
                return _TOO_EARLY
            if self._safety == "PROTECTIVE_STOP":
                self._safety = "NORMAL"
            return "Protective stop releasing"
        if command == "power on":
            self._mode = "IDLE" if self._mode != "RUNNING" else self._mode
            return "Powering on"
        if command == "brake release":
            self._mode = "RUNNING"
            return "Brake releasing"
        self._end()  # without power nothing plays on
        self._mode = "POWER_OFF"
        self._is_off = command == "shutdown"
        return "Shutting down" if self._is_off else "Powering off"

    def _tell(self, line: str, command: str) -> str:
        """Return the answer to what is only asked."""
        loaded = "" if self._loaded is None else self._loaded.name
        is_playing = str(self._state == "PLAYING").lower()
        answers = {
            "robotmode": f"Robotmode: {self._mode}",
            "safetystatus": f"Safetystatus: {self._safety}",
            "running": f"Program running: {is_playing}",
            "programstate": f"{self._state} {loaded}".rstrip(),
            "get loaded program": f"Loaded program: /programs/{loaded}"
            if loaded
            else "No program loaded",
            "is in remote control": str(self._is_remote).lower(),
            "close popup": "closing popup",
            "close safety popup": "closing safety popup",
            "polyscopeversion": "URSoftware 5.11.1.108318 (Jul 08 2021)",
            "version": "5.11.1.108318",
            "get serial number": self._serial_number,
            "get robot model": "UR5",
            "quit": "Disconnected",
        }
        if command.startswith("popup "):
            return "showing popup"
        if command.startswith("addtolog "):
            return "Added log message"
        return answers.get(command, f'could not understand: "{line}"')


def _nothing(time: float) -> str:
    del time
    return ""


def _ways_of(programs: Any) -> dict[str, list[str]]:
    """Return the ways that a lab file maps each program to."""
    ways: dict[str, list[str]] = {}
    if isinstance(programs, Mapping):
        for way, entry in programs.items():
            if isinstance(entry, Mapping):
                ways.setdefault(str(entry.get("program")), []).append(str(way))
    return ways
