"""The driver of the arm: plays taught programs, and stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated as A
from typing import ClassVar, Final, TypeVar

from ophyd_async.core import AsyncStatus, TriggerableCommand
from typing_extensions import override

from ppu.core.capabilities import (
    Carry,
    DoseRequest,
    Grind,
    PowderStation,
    PowderTask,
    Recalling,
    Recollection,
    Task,
    TaskUnderWay,
    Transporter,
)
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    InterlockError,
    InternalError,
    LimitError,
    MalformedReply,
    PPUError,
    TransportError,
    nearest,
)
from ppu.core.insisting import Attempts
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.core.specifications import HandlerSpecification
from ppu.devices import DriverFacts, Identity, Instrument, Query, Reference, SignalR
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.tcp import TcpConnection
from ppu_drivers.universal_robots_ur5e._codec import (
    ProgramState,
    acknowledgement_beginning,
    answer_beginning,
    field_named,
    is_path_of,
    is_state_of,
    parse_line,
    parse_loaded_program,
    parse_program_state,
    parse_remote_control,
    parse_state,
)
from ppu_drivers.universal_robots_ur5e._settings import (
    Program,
    UniversalRobotsUr5eLimits,
    UniversalRobotsUr5eSettings,
    split_route,
)

__all__ = ["UniversalRobotsUr5e"]

T = TypeVar("T")

_GREETING: Final = "Connected: Universal Robots Dashboard Server"
_LOADING_S: Final = 30.0
_STARTING_S: Final = 10.0
_STOPPING_S: Final = 5.0
_INSISTING_S: Final = 60.0
"""How long a controller that cannot be heard is asked to stop."""
_AGAIN_S: Final = 0.5
_PROBE: Final = LineProbe(
    "PolyscopeVersion", lambda line: line.startswith("URSoftware ")
)
# -- the driver ------------------------------------------------------------------------


class UniversalRobotsUr5e(Instrument, Transporter, PowderStation, Recalling):
    """A UR5e (PolyScope 5) in remote control, by its dashboard server.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: Host and port (29999) of the dashboard server.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Universal Robots",
        model="UR5e",
        wire="ur-dashboard",
        sources=(
            "Universal Robots, Dashboard Server e-Series, port 29999 (2022): commands "
            "and answers, as tabulated by users of the manual",
            "Universal Robots article 15690 (dashboard server, load, play, stop)",
            "CederGroupHub/alab_control robot_arm_ur5e/ur_robot_dashboard.py",
        ),
        verified="",
        open_questions=(
            "Whether 'get loaded program' has a label before the path: the manual says "
            "so, alab_control reads the path alone. Both are accepted.",
            "The dashboard cannot be asked whether a popup is open: a paused program "
            "in a normal safety state is reported as that.",
            "alab_control waits 3 s after loading; the manual says that the answer "
            "comes when loading is done, so the loaded program is asked for instead.",
            "The text of the refusal without remote control is from users' reports.",
        ),
        orphan_behaviour="plays its program to the end, then stands still",
    )
    connections = (TcpConnection,)
    settings_model = UniversalRobotsUr5eSettings
    limits_model = UniversalRobotsUr5eLimits
    abort_states: ClassVar[Mapping[str, str]] = {
        "stop": "stop the program where the arm is, keeping its grip (the default)"
    }

    robot_mode: A[
        SignalR[str], Query("robotmode", field_named("Robotmode"), manual="robotmode")
    ]
    safety_status: A[
        SignalR[str],
        Query("safetystatus", field_named("Safetystatus"), manual="safetystatus"),
    ]
    program_state: A[
        SignalR[str], Query("programState", parse_state, manual="programState")
    ]
    loaded_program: A[
        SignalR[str],
        Query("get loaded program", parse_loaded_program, manual="get loaded program"),
    ]
    is_in_remote_control: A[
        SignalR[bool],
        Query(
            "is in remote control", parse_remote_control, manual="is in remote control"
        ),
    ]
    close_popup: A[
        TriggerableCommand,
        Query(
            "close popup",
            acknowledgement_beginning("closing popup"),
            manual="close popup",
        ),
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: TcpConnection,
        settings: UniversalRobotsUr5eSettings,
        limits: UniversalRobotsUr5eLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._programs = {
            split_route(route): program for route, program in settings.programs.items()
        }
        self._is_ours = False
        """Whether a program that this driver started or found may not have ended."""
        self._recollection: Recollection | None = None
        self._client = LineClient(
            name, connection, terminator=b"\n", deadline_s=2.0, probe=_PROBE
        )
        super().__init__(name, entry, self._client, self._client.link)

    @override
    @classmethod
    def references(cls, settings: UniversalRobotsUr5eSettings) -> list[Reference]:
        found = [
            Reference(("programs", route), "location", end)
            for route in settings.programs
            for end in split_route(route)
        ]
        grind, mount = settings.tasks.grind, settings.tasks.mount_powder
        stations = {}
        if grind is not None:
            stations["grind", "station"] = grind.station
        if mount is not None:
            stations["mount_powder", "station"] = mount.station
            stations["mount_powder", "holder_station"] = mount.holder_station
        return found + [
            Reference(("tasks", *place), "location", station)
            for place, station in stations.items()
        ]

    @override
    async def read_identity(self) -> Identity:
        try:
            # The greeting comes by itself, before the first answer.
            lines = await self._client.ask(
                "PolyscopeVersion",
                is_last=lambda line: not line.startswith("Connected: "),
            )
            if lines[:-1] not in ([_GREETING], []):
                raise MalformedReply(f"it greets with {lines[0]!r}")
            firmware = answer_beginning("URSoftware ")(lines[-1:])
            model = parse_line(await self._client.ask("get robot model"))
            serial_number = parse_line(await self._client.ask("get serial number"))
            if not model.startswith("UR5"):
                raise MalformedReply(f"it is a {model}")
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} is no dashboard "
                f"server of a UR5e: {exc}"
            ) from exc
        return Identity(model=model, serial_number=serial_number, firmware=firmware)

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> HandlerSpecification:
        """What the lab and the instrument allow."""
        grind, mount = self.settings.tasks.grind, self.settings.tasks.mount_powder
        first = grind or mount
        station = None if first is None else first.station
        return HandlerSpecification(
            name=self.name,
            max_container_degc=self.limits.container_degc[1],
            ways=frozenset(self._programs),
            grinds_with=None if grind is None else grind.program,
            grinds_for_s=0.0 if grind is None else grind.portion_s,
            mounts=mount is not None,
            container_station=station,
            holder_station=None if mount is None else mount.holder_station,
        )

    @property
    def max_container_degc(self) -> float:
        """How hot a place may be from which it takes a container [degC]."""
        return self.specification.max_container_degc

    def can_carry(self, origin: str, destination: str) -> bool:
        """Return whether a program of the lab file leads from one to the other."""
        return self.specification.can_carry(origin, destination)

    def check_carry(self, origin: str, destination: str) -> None:
        """Refuse a way for which the lab file names no program.

        Raises:
            LimitError: Naming the missing way and the nearest known one.
        """
        if not self.can_carry(origin, destination):
            route = f"{origin} -> {destination}"
            raise LimitError(
                f"{self.name}: settings.programs has no '{route}'; "
                f"{nearest(route, self.settings.programs)}"
            )

    @property
    def container_station(self) -> str | None:
        """Location where the container must stand to be ground or emptied."""
        return self.specification.container_station

    @property
    def holder_station(self) -> str | None:
        """Location where the specimen holder must stand."""
        return self.specification.holder_station

    def check_task(self, task: PowderTask) -> None:
        """Refuse powder handling for which the lab file names no program.

        Raises:
            LimitError: If there is none, or it grinds for another time.
        """
        self.specification.check_task(task)

    def _program_and_plays(self, task: PowderTask) -> tuple[Program, int]:
        """Return the program for *task* and how often it must be played."""
        self.check_task(task)
        tasks = self.settings.tasks
        if isinstance(task, Grind):
            found: Program | None = tasks.grind
            n_plays = self.specification.n_portions(task)
        else:
            found, n_plays = tasks.mount_powder, 1
        assert found is not None  # noqa: S101 - the specification has checked it
        return found, n_plays

    @override
    async def check_idle(self) -> None:
        state = await self._read_program_state()
        if state.state != "STOPPED":
            raise InterlockError(
                f"{self.name}: {state.program or 'a program'} is {state.state}; stop "
                "it at the pendant"
            )

    @AsyncStatus.wrap
    async def set(self, value: Task) -> None:
        """Play the program for *value* and wait until it has ended.

        A cancelled wait leaves the arm moving until it goes to its abort state.

        Raises:
            LimitError: If the lab file names no program for it; nothing moved.
            InterlockError: If the arm is not ready; nothing moved.
            InstrumentError: If the controller refuses, stops or pauses the program.
            TransportError: If the controller stayed unreachable; it may be moving.
        """
        program, n_plays = self._program_for(value)
        for _ in range(n_plays):
            await self._check_ready()
            await self._load_program(program)
            started = running_loop().time()
            await self._play_program(program)
            await self._wait_until_ended(program, started)

    def _program_for(self, task: Task) -> tuple[Program, int]:
        """Return the program for *task* and how often it must be played."""
        if not isinstance(task, Carry):
            return self._program_and_plays(task)
        self.check_carry(task.origin, task.destination)
        return self._programs[task.origin, task.destination], 1

    # -- remembering ---------------------------------------------------------------

    @property
    def recollection(self) -> Recollection | None:
        """What the controller knew when it was last asked."""
        return self._recollection

    @AsyncStatus.wrap
    async def prepare(self, value: TaskUnderWay) -> None:
        """Wait until no program plays, and keep what that tells of a task.

        A program of that task that plays counts as ours: an abort stops it.

        Raises:
            LimitError: If the lab file names no program for it any more.
            TransportError: If the controller stayed unreachable.
        """
        if isinstance(value.task, DoseRequest):
            raise InternalError(f"{self.name}: an arm doses nothing")
        program, n_plays = self._program_for(value.task)
        self._recollection = None
        self._recollection = await self._recall(program, n_plays)

    async def _recall(self, program: Program, n_plays: int) -> Recollection:
        """Return what the controller knows of *program* once nothing plays."""
        state, played = await self._wait_until_not_playing(program)
        self._is_ours = state.state != "STOPPED" and is_state_of(state, program.program)
        name = state.program or "a program"
        if state.state != "STOPPED":
            return Recollection(None, False, f"{name} is {state.state}")
        mode = await self._ask_confirmed("robotmode", field_named("Robotmode"))
        safety = await self._read_safety_status()
        if mode != "RUNNING" or safety != "NORMAL":
            text = f"it stands still, in mode {mode} with safety status {safety}"
            return Recollection(None, True, text)
        loaded = await self._ask_confirmed("get loaded program", parse_loaded_program)
        if is_path_of(loaded, program.program):
            if played and all(name == program.program for name in played):
                if n_plays == 1:
                    text = f"{program.program} was seen to play to its end"
                    return Recollection(True, True, text)
                text = f"{program.program} has just ended, one of {n_plays} plays"
                return Recollection(None, True, text)
            text = f"{program.program} is loaded; whether it played is not known"
            return Recollection(None, True, text)
        # After its power was off it has another one loaded that none of us asked for.
        tasks = (self.settings.tasks.grind, self.settings.tasks.mount_powder)
        known = [*self._programs.values(), *filter(None, tasks)]
        is_known = any(is_path_of(loaded, p.program) for p in known)
        text = f"it has {loaded or 'no program'} loaded, not {program.program}"
        if is_known and not played:
            return Recollection(False, True, f"{text}, so that never began")
        return Recollection(None, True, text)

    async def _wait_until_not_playing(
        self, program: Program
    ) -> tuple[ProgramState, list[str]]:
        """Return the state once nothing plays, or for too long; and what played.

        Raises:
            TransportError: If the controller stayed unreachable.
        """
        loop = running_loop()
        last_heard = loop.time()
        until = last_heard + program.duration_s * self.settings.patience
        played: list[str] = []
        while True:
            try:
                state = await self._read_program_state()
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
            else:
                last_heard = loop.time()
                if state.state != "PLAYING" or last_heard > until:
                    return state, played
                self._is_ours = is_state_of(state, program.program)
                played.append(program.program if self._is_ours else state.program)
            await asyncio.sleep(self.settings.poll_period_s)

    # -- playing -------------------------------------------------------------------

    async def _ask(
        self,
        command: str,
        parse: Callable[[list[str]], T],
        *,
        is_safe: bool = True,
        lasts_s: float | None = None,
    ) -> T:
        """Send *command*; errors name the device and what was asked."""
        lines = await self._client.ask(command, is_safe=is_safe, deadline_lab_s=lasts_s)
        return self._parse(command, lambda: parse(lines))

    async def _ask_confirmed(self, command: str, parse: Callable[[list[str]], T]) -> T:
        """Ask until answers agree: what is acted upon must not be a flipped bit."""
        return await self._client.ask_confirmed(
            command, lambda lines: self._parse(command, lambda: parse(lines))
        )

    def _parse(self, command: str, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except InstrumentError as exc:
            raise InstrumentError(
                f"{self.name}: asked {command}: {exc}", exc.code
            ) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: asked {command}: {exc}") from exc

    async def _read_program_state(self) -> ProgramState:
        return await self._ask_confirmed("programState", parse_program_state)

    async def _read_safety_status(self) -> str:
        return await self._ask_confirmed("safetystatus", field_named("Safetystatus"))

    async def _check_ready(self) -> None:
        """Refuse to play unless the arm may move at once.

        Raises:
            InterlockError: With everything that is in the way.
        """
        faults = []
        if not await self._ask_confirmed("is in remote control", parse_remote_control):
            faults.append("it is not in remote control; switch it over at the pendant")
        mode = await self._ask_confirmed("robotmode", field_named("Robotmode"))
        if mode != "RUNNING":
            faults.append(f"its mode is {mode}; switch it on and release the brakes")
        safety = await self._read_safety_status()
        if safety != "NORMAL":
            faults.append(f"its safety status is {safety}; look for the cause there")
        state = await self._read_program_state()
        if state.state != "STOPPED":
            faults.append(f"{state.program or 'a program'} is {state.state}")
        if faults:
            raise InterlockError(f"{self.name}: may not move: {'; '.join(faults)}")

    async def _load_program(self, program: Program) -> None:
        """Load *program* and see that it is loaded; loading again is harmless."""
        await self._ask(
            f"load {program.program}",
            answer_beginning("Loading program: "),
            lasts_s=_LOADING_S,
        )
        loaded = await self._ask_confirmed("get loaded program", parse_loaded_program)
        if not is_path_of(loaded, program.program):
            raise InstrumentError(
                f"{self.name}: {program.program} was loaded, but the controller has "
                f"{loaded or 'no program'}"
            )

    async def _play_program(self, program: Program) -> None:
        """Play what is loaded, once; if the answer is lost, ask what became of it."""
        self._is_ours = True  # also if the answer is lost
        try:
            await self._ask(
                "play",
                answer_beginning("Starting program"),
                is_safe=False,
                lasts_s=_STARTING_S,
            )
        except InstrumentError:
            self._is_ours = False
            safety = await self._read_safety_status()
            raise InstrumentError(
                f"{self.name}: the controller would not play {program.program}; its "
                f"safety status is {safety}"
            ) from None
        except (TransportError, MalformedReply):
            state = await self._read_program_state()
            if state.state != "PLAYING":
                raise

    async def _wait_until_ended(self, program: Program, started: float) -> None:
        """Look at the controller until the program has ended as it should.

        Args:
            program: What plays.
            started: Lab time at which it was asked to [s]; if the answer was lost,
                finding out took a while.

        Raises:
            InstrumentError: If it ended otherwise, or takes too long.
            TransportError: If the controller stayed unreachable.
        """
        loop = running_loop()
        last_heard = loop.time()
        patience_s = program.duration_s * self.settings.patience
        while True:
            await asyncio.sleep(self.settings.poll_period_s)
            elapsed = loop.time() - started
            try:
                state, safety = (
                    await self._read_program_state(),
                    await self._read_safety_status(),
                )
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
                continue
            last_heard = loop.time()
            about = f"{self.name}: {program.program}"
            if not is_state_of(state, program.program):
                raise InstrumentError(
                    f"{about} was played, but after {elapsed:.0f} s the controller has "
                    f"{state.program}, which is {state.state}: did somebody load it at "
                    "the pendant?"
                )
            if safety != "NORMAL":
                raise InstrumentError(
                    f"{about} was interrupted after {elapsed:.0f} s: the safety status "
                    f"is {safety}; look for the cause at the arm",
                    safety,
                )
            if state.state == "PAUSED":
                raise InstrumentError(
                    f"{about} is paused after {elapsed:.0f} s: the program may show a "
                    "popup, or somebody paused it at the pendant",
                    state.state,
                )
            if state.state == "STOPPED":
                # At most so long: it may have ended since the last look.
                lasted = last_heard - started
                await self._check_program_end(about, program, lasted)
                return
            if elapsed > patience_s:
                raise InstrumentError(
                    f"{about} still plays after {elapsed:.0f} s; the lab file says "
                    f"{program.duration_s:g} s"
                )

    async def _check_program_end(
        self, about: str, program: Program, lasted: float
    ) -> None:
        """Refuse an end that is not the end of the program."""
        mode = await self._ask_confirmed("robotmode", field_named("Robotmode"))
        if mode != "RUNNING":
            raise InstrumentError(f"{about} ended, but the robot mode is {mode}", mode)
        self._is_ours = False
        if lasted < program.duration_s * self.settings.haste:
            raise InstrumentError(
                f"{about} ended after {lasted:.0f} s; the lab file says "
                f"{program.duration_s:g} s: was it stopped at the pendant?"
            )

    # -- stopping ------------------------------------------------------------------

    @override
    async def go_to_abort_state(self) -> str:
        if not self._is_ours:
            return ""  # nothing of this plan moves
        return await self._stop_program()

    @override
    async def go_to_orphan_state(self) -> str:
        if self.entry.on_orphan is None:
            return ""  # it plays its program to the end, which is safe
        state = await self._read_program_state()
        return "" if state.state == "STOPPED" else await self._stop_program()

    @override
    async def go_to_hold_state(self) -> str:
        if self.entry.on_hold is None or not self._is_ours:
            return ""
        return await self._stop_program()

    async def _stop_program(self) -> str:
        """Stop the program; return what was done and seen.

        Raises:
            TransportError: If nobody knows whether it stopped.
            InstrumentError: If it plays on.
        """
        loop = running_loop()
        heard_since: float | None = None
        trouble: PPUError
        attempts = Attempts(for_s=_INSISTING_S, pause_s=_AGAIN_S)
        async for _ in attempts:
            # First of all, and again: stopping what has stopped is harmless.
            refusal = await self._ask_to_stop()
            try:
                state = await self._read_program_state()
            except (TransportError, MalformedReply, InstrumentError) as exc:
                heard_since = None
                trouble = TransportError(
                    f"{exc}; whether {self.name} has stopped is not known: press "
                    "the emergency stop"
                )
                trouble.__cause__ = exc
                continue
            if state.state == "STOPPED":
                return await self._confirm_stopped()
            trouble = InstrumentError(
                f"{self.name}: asked to stop but {state.program} is {state.state}; "
                f"press the emergency stop. {refusal or ''}".rstrip()
            )
            if refusal is None:
                heard_since = None
            elif heard_since is None:
                heard_since = loop.time()
                attempts.go_on_for(_STOPPING_S)
            elif loop.time() - heard_since > loop.wire_seconds(_STOPPING_S):
                break
        raise trouble

    async def _confirm_stopped(self) -> str:
        """Count what played as over; return that it stopped, and the safety status."""
        self._is_ours = False
        try:
            safety = await self._read_safety_status()
        except (TransportError, MalformedReply, InstrumentError) as exc:
            safety = f"not known ({exc})"
        about = "" if safety == "NORMAL" else f"; its safety status is {safety}"
        return f"{self.name}: program stopped, verified{about}"

    async def _ask_to_stop(self) -> str | None:
        """Ask to stop; return the refusal, empty if none, None without an answer."""
        try:
            await self._ask("stop", answer_beginning("Stopped"))
        except InstrumentError as exc:
            return str(exc)
        except (TransportError, MalformedReply):
            return None
        return ""
