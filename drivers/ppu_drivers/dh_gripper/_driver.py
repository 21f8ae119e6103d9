"""The driver of a gripper: makes it ready, and watches what its fingers feel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated as A
from typing import Final, Literal

from ophyd_async.core import AsyncStatus, StandardReadableFormat, StrictEnum
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Gripper, GripRecord
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    InterlockError,
    MalformedReply,
    TransportError,
)
from ppu.core.labfile import DeviceEntry
from ppu.core.labtime import running_loop
from ppu.core.specifications import GripperSpecification
from ppu.devices import (
    DriverFacts,
    Holding,
    Identity,
    Instrument,
    Reference,
    SignalR,
    SignalRW,
    write,
)
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection
from ppu_drivers.dh_gripper._codec import (
    check_grip,
    is_state,
    opening_mm,
    serial_number_in,
)

__all__ = ["DhGripper", "DhGripperSettings", "GripState", "ReadyState"]

_READY_S: Final = 10.0
_STILL_PERIOD_S: Final = 0.2
_STILL_S: Final = 5.0
"""How long fingers may still move when a watch ends."""
_STATE_FROM: Final = 0x0200
_GRIP_FROM: Final = 0x0201
_SETTINGS_FROM: Final = 0x0103
_GROUPS_FROM: Final = 0x0405
_N_GROUPS: Final = 4


class ReadyState(StrictEnum):
    """Whether the gripper has found its end positions (register 0x0200)."""

    NOT_INITIALIZED = "not initialized"
    INITIALIZED = "initialized"
    INITIALIZING = "initializing"


class GripState(StrictEnum):
    """What the fingers do or hold (register 0x0201)."""

    MOVING = "moving"
    ARRIVED = "arrived"
    GRASPED = "grasped"
    DROPPED = "dropped"


_READY_CODES: Final[Mapping[int, StrictEnum]] = dict(enumerate(ReadyState))
_GRIP_STATES: Final = dict(enumerate(GripState))
_GRIP_CODES: Final[Mapping[int, StrictEnum]] = {**_GRIP_STATES}


class DhGripperSettings(BaseModel):
    """What the driver must know of the gripper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hand_of: str = Field(description="Name of the transporter that it is the hand of")
    stroke_mm: float = Field(
        default=50.0, gt=0, allow_inf_nan=False, description="Opening at full stroke"
    )
    closed_at_permille: Literal[0, 1000] = Field(
        default=0,
        description="Position register when closed; our sources contradict each other",
    )
    force_percent: int = Field(default=30, ge=20, le=100, description="Register 0x0101")
    speed_percent: int = Field(default=50, ge=1, le=100, description="Register 0x0104")
    sample_period_s: float = Field(
        default=1.0,
        gt=0,
        le=2,
        allow_inf_nan=False,
        description="How often the fingers are looked at; a grip of 5 s must be seen",
    )
    max_silence_s: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="How long it may be unreachable while it is watched",
    )


class DhGripper(Instrument, Gripper):
    """A DH-Robotics gripper of the PGC, CGC, PGE or RGI series.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file.
        connection: The serial line, 115200 8N1 by default of the maker.
        settings: What the driver must know.
        limits: Nothing: it cannot exceed anything by itself.
    """

    facts = DriverFacts(
        maker="DH-Robotics",
        model="PGC-140-50",
        wire="modbus-rtu",
        sources=(
            "DH-Robotics PGC-50 short manual, tables 2.2 and 2.3 (register map)",
            "DH-Robotics RGI-30 short manual, tables 2.11 and 2.12 (states)",
            "PGE-2 gripper user manual V1.0, §3.3 (function codes 3, 6 and 16; I/O "
            "groups at 0x0405 to 0x0410)",
            "CederGroupHub/alab_control dh_robotic_gripper/dh_robotic_gripper.py",
        ),
        verified="",
        open_questions=(
            "Position 0 is closed in alab_control (PGC and RGI), but open in a "
            "description of the AG-95: closed_at_permille states it.",
            "Function 16 is confirmed by the PGE manual only; the others' examples "
            "write with function 6.",
            "The gripper has no serial number: the last digits of its four I/O "
            "position parameters are read as one. Set them to tell two grippers apart.",
            "The arm's programs close it through its I/O groups; whether its states "
            "are fed back over Modbus then is not said.",
            "The register that says 'initializing' is 0x0200 in the RGI manual; the "
            "PGE manual knows only 0 and 1 there.",
        ),
        orphan_behaviour="keeps its grip",
    )
    connections = (SerialConnection,)
    settings_model = DhGripperSettings

    ready_state: A[
        SignalR[ReadyState],
        Holding(0x0200, codes=_READY_CODES, manual="PGC-50 table 2.2, 0x0200"),
    ]
    grip_state: A[
        SignalR[GripState],
        Holding(0x0201, codes=_GRIP_CODES, manual="PGC-50 table 2.2, 0x0201"),
        StandardReadableFormat.HINTED_UNCACHED_SIGNAL,
    ]
    position: A[
        SignalR[float],
        Holding(
            0x0202,
            decimals=0,
            units="permille",
            low=0,
            high=1000,
            manual="PGC-50 table 2.2, 0x0202",
        ),
        StandardReadableFormat.UNCACHED_SIGNAL,
    ]
    reference_position: A[
        SignalR[float],
        Holding(
            0x0103,
            decimals=0,
            units="permille",
            low=0,
            high=1000,
            manual="PGC-50 table 2.2, 0x0103: writing it moves the fingers at once",
        ),
    ]
    force: A[
        SignalRW[float],
        Holding(
            0x0101,
            decimals=0,
            units="percent",
            low=20,
            high=100,
            manual="PGC-50 table 2.2, 0x0101",
        ),
    ]
    speed: A[
        SignalRW[float],
        Holding(
            0x0104,
            decimals=0,
            units="percent",
            low=1,
            high=100,
            manual="PGC-50 table 2.2, 0x0104",
        ),
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: SerialConnection,
        settings: DhGripperSettings,
        limits: BaseModel,
    ) -> None:
        del limits
        self.settings = settings
        self._closed_at = settings.closed_at_permille
        self._stroke_mm = settings.stroke_mm
        self._last_grip: GripRecord | None = None
        self._watch: asyncio.Task[GripRecord] | None = None
        self._has_to_end = asyncio.Event()
        self._master = ModbusMaster(
            name,
            connection,
            deadline_s=0.5,
            # No other read takes three registers.
            probe=Probe(_STATE_FROM, 3, is_state),
        )
        super().__init__(name, entry, self._master, self._master.link)

    @override
    @classmethod
    def references(cls, settings: DhGripperSettings) -> list[Reference]:
        return [
            Reference(
                ("hand_of",), "device", settings.hand_of, "Transporter", "gripper"
            )
        ]

    # -- connecting ----------------------------------------------------------------

    @override
    async def read_identity(self) -> Identity:
        stranger = (
            f"{self.name}: what answers at {self.link.endpoint} is no DH gripper: "
        )
        try:
            state = await self._master.read_holding(_STATE_FROM, 3)
            reference, speed = await self._master.read_holding(_SETTINGS_FROM, 2)
            groups = await self._master.read_holding(_GROUPS_FROM, 3 * _N_GROUPS)
        except InstrumentError as exc:
            raise ConnectError(f"{stranger}{exc}") from exc
        if not is_state(state):
            raise ConnectError(f"{stranger}registers from 0x0200 on are {state}")
        if reference > 1000 or not 1 <= speed <= 100:
            raise ConnectError(
                f"{stranger}position and speed (0x0103) are {reference} and {speed}"
            )
        return Identity(model="DH gripper", serial_number=serial_number_in(groups))

    # -- making it ready -----------------------------------------------------------

    @override
    async def check_idle(self) -> None:
        # A program of the arm begins with open fingers: what they hold would fall.
        if await self.grip_state.get_value() is GripState.GRASPED:
            raise InterlockError(
                f"{self.name}: the gripper holds something already; look and take it "
                "out"
            )

    async def _initialize(self) -> None:
        """Let the gripper find its end positions, unless it knows them.

        It opens: nothing may be between the fingers.
        """
        loop = running_loop()
        deadline = loop.time() + _READY_S
        ready = await self.ready_state.get_value()
        if ready is ReadyState.NOT_INITIALIZED:
            await self._master.write_registers(0x0100, [1])
        is_late = False
        while ready is not ReadyState.INITIALIZED:
            if is_late:
                raise InstrumentError(
                    f"{self.name}: {ready.value} {_READY_S:g} s after it was told to "
                    "initialise; is something between the fingers?"
                )
            await asyncio.sleep(0.5)
            is_late = loop.time() > deadline
            ready = await self.ready_state.get_value()

    async def _set_if_different(self, signal: SignalRW[float], wanted: float) -> None:
        """Set *signal* if it is not so, and read it back."""
        if await signal.get_value() == wanted:
            return
        await write(signal, wanted)
        actual = await signal.get_value()
        if actual != wanted:
            raise InstrumentError(
                f"{self.name}: {signal.name} was set to {wanted:g} but reads {actual:g}"
            )

    # -- capability ----------------------------------------------------------------

    @cached_property
    def specification(self) -> GripperSpecification:
        """What the lab and the instrument allow."""
        return GripperSpecification(
            name=self.name,
            hand_of=self.settings.hand_of,
        )

    @property
    def hand_of(self) -> str:
        """Name of the transporter that it is the hand of."""
        return self.settings.hand_of

    @property
    def last_grip(self) -> GripRecord | None:
        """What the last completed watch, or the last look, saw."""
        return self._last_grip

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Look at the fingers once, when they stand still; nothing is written.

        Raises:
            InstrumentError: If they do not come to a stop.
            TransportError: If the gripper does not answer.
            MalformedReply: If it sends nonsense.
        """
        self._last_grip = None
        loop = running_loop()
        deadline = loop.time() + _STILL_S
        while True:
            is_late = loop.time() > deadline
            code, position = await self._master.read_holding(_GRIP_FROM, 2)
            state = self._parse_grip(code, position)
            if state is not GripState.MOVING:
                break
            if is_late:
                raise InstrumentError(f"{self.name}: the fingers keep moving")
            await asyncio.sleep(_STILL_PERIOD_S)
        self._last_grip = GripRecord(
            has_grasped=state is GripState.GRASPED,
            has_dropped=state is GripState.DROPPED,
            is_holding=state is GripState.GRASPED,
            width_mm=opening_mm(position, self._closed_at, self._stroke_mm),
        )

    @AsyncStatus.wrap
    async def kickoff(self) -> None:
        """Make the gripper ready, and begin to watch the fingers.

        It is initialised if it was off, which opens it, and gets force and speed.

        Raises:
            InterlockError: If it holds something already; nothing was written.
            InstrumentError: If it does not become ready, or keeps other settings.
            TransportError: If it does not answer; nothing is watched.
        """
        self._end_watch()
        self._last_grip = None
        await self.check_idle()
        await self._initialize()
        await self._set_if_different(self.force, self.settings.force_percent)
        await self._set_if_different(self.speed, self.settings.speed_percent)
        self._has_to_end = asyncio.Event()
        self._watch = running_loop().create_task(self._watch_fingers())

    @AsyncStatus.wrap
    async def complete(self) -> None:
        """End the watch and keep what it saw.

        Raises:
            InstrumentError: If nothing is watched.
            TransportError: If the gripper stayed unreachable.
            MalformedReply: If it kept sending nonsense.
        """
        if self._watch is None:
            raise InstrumentError(f"{self.name}: nothing was watched")
        self._has_to_end.set()
        watch, self._watch = self._watch, None
        try:
            self._last_grip = await watch
        finally:
            watch.cancel()

    async def _watch_fingers(self) -> GripRecord:
        """Look at the fingers every period, and once more at the end."""
        loop = running_loop()
        last_heard = looked = loop.time()
        unseen_s = 0.0
        until: float | None = None
        """When the end is no longer put off, once it is due."""
        has_grasped = has_dropped = False
        held_mm: float | None = None
        width_mm = 0.0
        state: GripState | None = None
        while True:
            is_last = self._has_to_end.is_set()
            if is_last and until is None:
                until = loop.time() + _STILL_S
            begun = loop.time()
            try:
                code, position = await self._master.read_holding(_GRIP_FROM, 2)
                state = self._parse_grip(code, position)
            except (TransportError, MalformedReply):
                # The last look is not optional: what it would show is not known.
                if is_last or loop.time() - last_heard > self.settings.max_silence_s:
                    raise
            else:
                last_heard = loop.time()
                unseen_s, looked = max(unseen_s, last_heard - looked), begun
                width_mm = opening_mm(position, self._closed_at, self._stroke_mm)
                if state is GripState.GRASPED:
                    has_grasped, held_mm = True, width_mm
                has_dropped = has_dropped or state is GripState.DROPPED
            if until is not None:
                if state is GripState.MOVING and loop.time() < until:
                    # What they close on, or lose, shows when they stand still.
                    await asyncio.sleep(_STILL_PERIOD_S)
                    continue
                return GripRecord(
                    has_grasped=has_grasped,
                    has_dropped=has_dropped,
                    is_holding=state is GripState.GRASPED,
                    width_mm=width_mm if held_mm is None else held_mm,
                    unseen_s=unseen_s,
                )
            try:
                async with asyncio.timeout(self.settings.sample_period_s):
                    await self._has_to_end.wait()
            except TimeoutError:
                continue

    def _parse_grip(self, code: int, position: int) -> GripState:
        """Return the meaning of a grip register; an error names the device."""
        try:
            check_grip(code, position)
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: {exc}") from exc
        return _GRIP_STATES[code]

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    # -- stopping ------------------------------------------------------------------

    @override
    async def disconnect(self) -> None:
        watch = self._watch
        self._end_watch()
        if watch is not None:
            await asyncio.wait([watch])
        await super().disconnect()

    @override
    async def go_to_abort_state(self) -> str:
        if self._watch is None:
            return ""
        self._end_watch()
        state = await self.grip_state.get_value()
        return f"{self.name}: left as it is, {state.value}"
