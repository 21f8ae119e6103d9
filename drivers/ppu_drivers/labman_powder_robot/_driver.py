"""The driver of the powder robot: declares pots, waits, and reads what came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated as A
from typing import Any, TypeVar

from ophyd_async.core import AsyncStatus, StandardReadableFormat
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import (
    DoseRequest,
    PowderDoser,
    Recalling,
    Recollection,
    TaskUnderWay,
)
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    InternalError,
    LimitError,
    MalformedReply,
    TransportError,
)
from ppu.core.labfile import DeviceEntry, LimitPair
from ppu.core.labtime import running_loop
from ppu.core.specifications import DoserSpecification
from ppu.devices import (
    DriverFacts,
    Identity,
    Instrument,
    JsonField,
    Measured,
    SignalR,
    record,
)
from ppu.transports.http import HttpClient, HttpConnection
from ppu_drivers.labman_powder_robot._codec import (
    DosingHead,
    RobotStatus,
    encode_request,
    explain_verdict,
    parse_heads,
    parse_results,
    parse_status,
    parse_verdict,
    unwrap,
)

__all__ = ["LabmanPowderRobot", "LabmanPowderRobotLimits", "LabmanPowderRobotSettings"]

T = TypeVar("T")

_log = logging.getLogger("ppu.drivers")


class LabmanPowderRobotSettings(BaseModel):
    """What the driver must know of the robot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quadrant: int = Field(default=1, ge=1, le=4, description="Quadrant of the station")
    position: int = Field(
        default=1, ge=1, le=16, description="Pot position in the quadrant"
    )
    mixer_speed_rpm: int = Field(default=2000, gt=0, le=2000)
    poll_period_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the robot may be unreachable while it works",
    )
    missing_mg: float = Field(
        default=2.0,
        gt=0,
        allow_inf_nan=False,
        description="How far under its target a dose may end, if that is more than "
        "tolerance_percent: a robot that dosed right stops too late, not too early",
    )
    excess_mg: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="How far over its target a dose may end, if that is more than "
        "tolerance_percent; cohesive powders need more",
    )
    tolerance_percent: float = Field(
        default=2.0,
        gt=0,
        le=100,
        description="How far from its target a dose may end, in percent of it",
    )
    rack_deadline_s: float = Field(
        default=600.0,
        gt=0,
        allow_inf_nan=False,
        description="How long it may take until the rack faces outwards",
    )
    max_duration_s: float = Field(
        default=4 * 3600.0,
        gt=0,
        allow_inf_nan=False,
        description="How long one workflow may take",
    )


class LabmanPowderRobotLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dose_mg: LimitPair
    mixing_s: LimitPair = (0.0, 600.0)


class LabmanPowderRobot(Instrument, PowderDoser, Recalling):
    """A Labman powder robot with dosing heads, mixer and indexing rack.

    Args:
        name: Name of the device.
        entry: Its entry in the lab file; its first slot is the station.
        connection: The base URL of its API.
        settings: What the driver must know.
        limits: What the lab allows.
    """

    facts = DriverFacts(
        maker="Labman",
        model="powder robot",
        wire="labman-http",
        sources=(
            "CederGroupHub/alab_control labman/api/api.py (paths, envelope, examples "
            "of GetStatus and DosingHeads), api/enums.py (validation results), "
            "components.py (fields of an input), labman.py (states of a quadrant)",
        ),
        verified="",
        open_questions=(
            "The fields of GetResults are in no source: WorkflowName, Results, "
            "Position, PowderResults, PowderName, TargetMass and ActualMass [g] are "
            "our assumption.",
            "No serial number is in any source; SerialNumber in the status is our "
            "assumption. Without it, leave serial_number unset.",
            "TargetMass is taken as gram and MixerDuration as second, after the names "
            "of alab_control's arguments.",
            "A dry workflow (no ethanol, no heating, no transfer) is sent with zeros; "
            "whether the robot accepts that is not known.",
            "The mixer is said to run at most 600 s; alab_control checks that itself.",
            "RobotRunning is true in alab_control's example of an idle robot, so it is "
            "not taken for being busy: work is done when the quadrant says Complete.",
            "The text of a refusal is ErrorMessage in the examples, Message in the "
            "code that reads it. Both are read.",
            "The number of a quadrant unloaded is sent as query; later code of "
            "alab_control sends it as JSON.",
            "DosingHeads reports no masses, only OK or Empty.",
            "No way to stop a workflow is known.",
        ),
        orphan_behaviour="finishes its workflow, then waits",
    )
    connections = (HttpConnection,)
    settings_model = LabmanPowderRobotSettings
    limits_model = LabmanPowderRobotLimits

    dosed_mass: A[
        SignalR[float],
        Measured(units="g", decimals=4),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    is_automatic: A[SignalR[bool], JsonField("/GetStatus", ("Data", "InAutomatedMode"))]
    is_running: A[SignalR[bool], JsonField("/GetStatus", ("Data", "RobotRunning"))]
    rack_temperature: A[
        SignalR[float],
        JsonField("/GetStatus", ("Data", "HeatedRackTemperature"), units="degC"),
    ]

    def __init__(
        self,
        name: str,
        entry: DeviceEntry,
        connection: HttpConnection,
        settings: LabmanPowderRobotSettings,
        limits: LabmanPowderRobotLimits,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self._client = HttpClient(name, connection)
        self._request: DoseRequest | None = None
        self._dosed_g: dict[str, float] = {}
        self._recollection: Recollection | None = None
        super().__init__(name, entry, self._client, self._client)

    @override
    async def read_identity(self) -> Identity:
        try:
            status = await self.read_status()
        except (MalformedReply, InstrumentError) as exc:
            raise ConnectError(
                f"{self.name}: what answers at {self.link.endpoint} is no Labman "
                f"powder robot: {exc}"
            ) from exc
        return Identity(model="powder robot", serial_number=status.serial_number)

    @cached_property
    def specification(self) -> DoserSpecification:
        """What the lab and the instrument allow."""
        return DoserSpecification(
            name=self.name,
            station=self.entry.slots[0],
            dose_mg=self.limits.dose_mg,
            mixing_s=self.limits.mixing_s,
        )

    @property
    def station(self) -> str:
        """Location where the container must stand."""
        return self.entry.slots[0]

    @property
    def dosed_g(self) -> Mapping[str, float]:
        """Mass of each powder dosed by the last request [g]."""
        return dict(self._dosed_g)

    async def read_status(self) -> RobotStatus:
        """Ask the robot how it is."""
        return await self._read("/GetStatus", parse_status)

    async def read_heads(self) -> list[DosingHead]:
        """Ask the robot which powder is in which head."""
        return await self._read("/DosingHeads", parse_heads)

    async def _read(
        self,
        path: str,
        parse: Callable[[Any], T],
        query: Mapping[str, str | int] | None = None,
    ) -> T:
        """Ask until answers agree: what is acted upon must not be a flipped bit."""
        return await self._client.get_confirmed(
            path, lambda answer: self._parse(parse, answer), query
        )

    def _unwrap(self, answer: Mapping[str, Any]) -> Any:
        return self._parse(lambda data: data, answer)

    def _parse(self, parse: Callable[[Any], T], answer: Mapping[str, Any]) -> T:
        """Return what *parse* makes of the data of *answer*; errors name the device."""
        try:
            return parse(unwrap(answer))
        except InstrumentError as exc:
            raise InstrumentError(f"{self.name}: {exc}", exc.code) from exc
        except MalformedReply as exc:
            raise MalformedReply(f"{self.name}: {exc}") from exc

    # -- preparing -----------------------------------------------------------------

    def check_request(self, request: DoseRequest) -> None:
        """Refuse what the lab does not allow; sends nothing.

        Raises:
            LimitError: With every fault.
        """
        self.specification.check_request(request)

    @AsyncStatus.wrap
    async def prepare(self, value: DoseRequest | TaskUnderWay) -> None:
        """Check *value* against the limits and the heads, and let the robot judge it.

        For a task under way it waits until the robot has done it, if it does it, and
        keeps what the robot knows of it. What is done ends as if it had been waited
        for: the rack faces outwards and `dosed_g` tells what is in the container.

        Raises:
            LimitError: With every fault; nothing has moved.
            InstrumentError: If only the robot objects; nothing has moved. Or if too
                much or too little of a task under way was dosed.
        """
        self._request = None
        self._dosed_g = {}
        if isinstance(value, TaskUnderWay):
            if not isinstance(value.task, DoseRequest):
                raise InternalError(f"{self.name}: a powder robot only doses")
            self._recollection = None
            self._recollection = await self._recall(value.task)
            return
        faults = self.specification.faults(value)
        is_sendable = not faults
        faults += _find_head_faults(value, await self.read_heads())
        status = await self.read_status()
        objections = []
        if not status.is_automated:
            objections.append("the robot is not in automated mode")
        is_working = status.progress.get(self.settings.quadrant) == "Processing"
        # Pots that were declared, but not given back to the robot, are not worked on.
        if is_working and not self._faces_outwards(status):
            objections.append(
                f"quadrant {self.settings.quadrant} is processing "
                f"{status.workflows[self.settings.quadrant]}"
            )
        code = None
        if is_sendable:
            code = self._parse(
                parse_verdict,
                await self._client.post(
                    "/ValidateWorkflow", self._encode(value), is_safe=True
                ),
            )
            if code is not None:
                objections.append(f"the robot says {code}: {explain_verdict(code)}")
        if faults:
            raise LimitError(f"{self.name}: " + "; ".join(faults + objections))
        if objections:
            raise InstrumentError(f"{self.name}: " + "; ".join(objections), code)
        self._request = value

    def _encode(self, request: DoseRequest) -> list[dict[str, Any]]:
        settings = self.settings
        return encode_request(request, settings.position, settings.mixer_speed_rpm)

    # -- working -------------------------------------------------------------------

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Dose and mix what was prepared, and wait until it is done.

        A request is executed once. If waiting is cancelled the robot goes on. At the
        end the rack faces outwards, so that the container can be taken.

        Raises:
            InstrumentError: If nothing is prepared, or the robot refuses or fails; or
                if too much or too little was dosed: then the work is done, the rack
                faces outwards, and `dosed_g` tells what is in the container.
            TransportError: If it stayed unreachable; it may be working.
        """
        request, self._request = self._request, None
        if request is None:
            raise InstrumentError(f"{self.name}: nothing is prepared")
        self._dosed_g = {}
        quadrant = self.settings.quadrant
        # No colon and no dot: the robot makes a file name of it.
        workflow = f"{request.container}-{running_loop().stamp() * 1000:.0f}"
        status = await self._take_rack()
        if status.error is not None:
            raise InstrumentError(f"{self.name}: the robot reports {status.error}")
        if status.progress.get(quadrant) != "Empty":
            await self._unload()
        await self._post_once(
            "/PotsLoaded",
            {
                "WorkflowName": workflow,
                "Quadrant": quadrant,
                "InputFile": self._encode(request),
            },
            lambda seen: seen.workflows.get(quadrant) == workflow,
        )
        await self._post_once(
            "/ReleaseIndexingRackControl", None, lambda seen: not seen.is_user_control
        )
        await self._wait_until_complete(workflow)
        await self._finish_request(workflow, request)

    async def _finish_request(self, workflow: str, request: DoseRequest) -> None:
        """Keep what was dosed, and have the rack face outwards.

        Raises:
            InstrumentError: If it was too much or too little.
        """
        await self._keep_results(workflow, request)
        await self._take_rack()
        await self._unload()
        faults = _find_dose_faults(request, self._dosed_g, self.settings)
        if faults:
            raise InstrumentError(f"{self.name}: {workflow}: " + "; ".join(faults))

    async def _take_rack(self) -> RobotStatus:
        """Ask for the rack and wait until the quadrant faces outwards."""
        quadrant = self.settings.quadrant
        self._unwrap(
            await self._client.post(
                "/RequestIndexingRackControl",
                query={"outwardFacingQuadrant": quadrant},
                is_safe=True,  # it states where the rack shall be
            )
        )
        loop = running_loop()
        deadline = loop.time() + self.settings.rack_deadline_s
        while True:
            is_late = loop.time() >= deadline
            status = await self.read_status()
            if self._faces_outwards(status):
                return status
            if is_late:
                raise InstrumentError(
                    f"{self.name}: quadrant {quadrant} does not face outwards after "
                    f"{self.settings.rack_deadline_s:g} s"
                )
            await asyncio.sleep(self.settings.poll_period_s)

    def _faces_outwards(self, status: RobotStatus) -> bool:
        """Return whether the quadrant faces outwards and stays there."""
        quadrant = self.settings.quadrant
        return status.is_user_control and status.outward_quadrant == quadrant

    async def _unload(self) -> None:
        """Tell the robot that the pots of the quadrant are ours."""
        self._unwrap(
            await self._client.post(
                "/PotsUnloaded",
                query={"quadrant": self.settings.quadrant},
                is_safe=True,  # an empty quadrant stays empty
            )
        )

    async def _post_once(
        self, path: str, body: Any, was_done: Callable[[RobotStatus], bool]
    ) -> None:
        """Post what must not be repeated; if the answer is lost, look at the status.

        Raises:
            TransportError: The answer was lost and the status shows no effect.
            InstrumentError: The robot refused.
        """
        try:
            self._unwrap(await self._client.post(path, body))
        except (TransportError, MalformedReply) as exc:
            if not was_done(await self.read_status()):
                raise
            _log.warning("%s: %s came through although %s", self.name, path, exc)

    async def _wait_until_complete(self, workflow: str) -> None:
        """Poll, one exchange each time, until the robot has done *workflow*."""
        loop = running_loop()
        last_heard = loop.time()
        deadline = last_heard + self.settings.max_duration_s
        while True:
            await asyncio.sleep(self.settings.poll_period_s)
            is_late = loop.time() >= deadline
            try:
                status = await self.read_status()
            except (TransportError, MalformedReply):
                if loop.time() - last_heard > self.settings.max_silence_s:
                    raise
                continue
            last_heard = loop.time()
            if self._is_complete(status, workflow):
                return
            if is_late:
                raise InstrumentError(
                    f"{self.name}: {workflow} is not complete after "
                    f"{self.settings.max_duration_s:g} s"
                )

    def _is_complete(self, status: RobotStatus, workflow: str) -> bool:
        """Return whether *workflow* is done.

        Raises:
            InstrumentError: If it will never be.
        """
        quadrant = self.settings.quadrant
        if status.error is not None:
            raise InstrumentError(f"{self.name}: {workflow}: {status.error}")
        if status.workflows.get(quadrant) != workflow:
            raise InstrumentError(
                f"{self.name}: quadrant {quadrant} holds "
                f"{status.workflows.get(quadrant)} instead of {workflow}"
            )
        if status.progress[quadrant] == "Complete":
            return True
        if not status.is_running or not status.is_automated:
            raise InstrumentError(f"{self.name}: was stopped during {workflow}")
        return False

    async def _keep_results(self, workflow: str, request: DoseRequest) -> None:
        """Read what was weighed in and keep it."""
        dosed = await self._read(
            "/GetResults",
            lambda data: parse_results(data, self.settings.position),
            {"workflowName": workflow},
        )
        missing = {dose.powder for dose in request.doses} - dosed.keys()
        if missing:
            raise InstrumentError(
                f"{self.name}: {workflow} is complete but reports no mass of "
                + ", ".join(sorted(missing))
            )
        self._dosed_g = dosed
        record(self.dosed_mass, sum(dosed.values()))

    # -- remembering ---------------------------------------------------------------

    @property
    def recollection(self) -> Recollection | None:
        """What the robot knew when it was last asked."""
        return self._recollection

    async def _recall(self, request: DoseRequest) -> Recollection:
        """Return what the robot knows of *request*, once it does not work any more.

        A workflow is named after its container and stays in its quadrant from when it
        is declared until it is done and the driver has emptied the quadrant.
        """
        quadrant = self.settings.quadrant
        status = await self.read_status()
        progress = status.progress.get(quadrant)
        workflow = status.workflows.get(quadrant)
        about = f"quadrant {quadrant} holds {workflow}, {progress}"
        if progress == "Empty" or workflow is None:
            if not status.is_user_control:
                text = f"quadrant {quadrant} is empty and was not declared yet"
                return Recollection(False, True, text)
            text = (
                f"quadrant {quadrant} is empty: nothing was declared yet, or all done"
            )
            return Recollection(None, True, text)
        if not workflow.startswith(f"{request.container}-"):
            is_at_rest = progress != "Processing"
            return Recollection(False if is_at_rest else None, is_at_rest, about)
        if progress == "Processing" and self._faces_outwards(status):
            text = f"{about}, but the rack was not given to the robot"
            return Recollection(False, True, text)
        try:
            if progress == "Processing":
                await self._wait_until_complete(workflow)
            elif not self._is_complete(status, workflow):
                return Recollection(None, True, about)
        except InstrumentError as exc:
            return Recollection(
                None, True, f"{exc}; {await self._describe_dosed(workflow)}"
            )
        await self._finish_request(workflow, request)
        return Recollection(True, True, f"{workflow} is complete")

    async def _describe_dosed(self, workflow: str) -> str:
        """Return what was weighed in so far, in words."""
        try:
            dosed = await self._read(
                "/GetResults",
                lambda data: parse_results(data, self.settings.position),
                {"workflowName": workflow},
            )
        except (InstrumentError, MalformedReply) as exc:
            return f"what was dosed is not known ({exc})"
        given = ", ".join(f"{mass:.4f} g of {powder}" for powder, mass in dosed.items())
        return f"dosed so far: {given or 'nothing'}"


def _find_head_faults(request: DoseRequest, heads: list[DosingHead]) -> list[str]:
    """Return which powders of *request* no head can give."""
    faults = []
    for powder in dict.fromkeys(dose.powder for dose in request.doses):
        holding = [head for head in heads if head.powder == powder]
        if not holding:
            loaded = ", ".join(sorted({head.powder for head in heads})) or "none"
            faults.append(f"no dosing head holds {powder}; loaded are {loaded}")
        elif all(head.is_empty for head in holding):
            positions = ", ".join(str(head.position) for head in holding)
            faults.append(f"dosing head {positions} ({powder}) is empty")
    return faults


def _find_dose_faults(
    request: DoseRequest,
    dosed_g: Mapping[str, float],
    settings: LabmanPowderRobotSettings,
) -> list[str]:
    """Return which powders of *request* came too little or too much."""
    asked_g: dict[str, float] = {}
    for dose in request.doses:
        asked_g[dose.powder] = asked_g.get(dose.powder, 0.0) + dose.mass_g
    faults = []
    for powder, asked in asked_g.items():
        n_doses = sum(dose.powder == powder for dose in request.doses)
        relative = asked * settings.tolerance_percent / 100
        missing = asked - dosed_g[powder]
        given = f"{dosed_g[powder]:.4f} g of {powder} instead of {asked:.4f} g"
        if missing > max(n_doses * settings.missing_mg / 1000, relative):
            faults.append(f"only {given} came; is the head clogged or empty?")
        if -missing > max(n_doses * settings.excess_mg / 1000, relative):
            faults.append(f"{given} came; does the head leak?")
    return faults
