"""A simulated Labman powder robot: dosing heads, mixer, indexing rack, HTTP interface.

The robot turns its rack towards a person on request, takes note of the pots loaded,
and works when the rack is given back: it doses one powder after the other, weighs each
dose, and mixes. What it will do is planned when it starts and carried out whenever
somebody looks at the world, so nothing here needs a timer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.http import HttpAnswer, HttpFront, HttpRequest
from ppu_simulators.physics.dosing import POWDER_CLASSES, Dose, dose
from ppu_simulators.physics.milling import MIXING_ROBOT, mill
from ppu_simulators.world import AMBIENT_DEGC, Container, World, settings_of

__all__ = ["SimulatedLabmanPowderRobot"]

N_HEADS: Final = 24
N_POSITIONS: Final = 16
_LONGEST_MIXING_S: Final = 600
_FASTEST_MIXING_RPM: Final = 2000
_LARGEST_DOSE_G: Final = 20.0
_EMPTY_HEAD_G: Final = 0.005
_THINKING_S: Final = 0.02
_CLOGGED: Final = "clogged powder"
_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "powder_classes": {},
    "balance_noise_mg": 0.05,
    "balance_resolution_mg": 0.1,
    "rack_turn_s": 12.0,
    "handling_s": 30.0,
    "dose_timeout_s": 300.0,
    "faults": [],
}


class _Fault(Exception):  # noqa: N818 - it becomes an answer, not a crash
    """Something the robot refuses, in its own words."""


@dataclass(frozen=True)
class _PowderDispense:
    powder: str
    target_g: float
    head: int


@dataclass(frozen=True)
class _Workflow:
    """Work for one pot, as it was accepted."""

    name: str
    quadrant: int
    position: int
    dispenses: tuple[_PowderDispense, ...]
    mixing_s: float


@dataclass(frozen=True)
class _Act:
    """Something the robot will do at a lab time."""

    due: float
    do: Callable[[_Work, float], None]


@dataclass
class _Quadrant:
    """A quarter of the indexing rack."""

    progress: str = "Empty"
    workflow: str | None = None


@dataclass
class _Work:
    """The workflow in hand."""

    workflow: _Workflow
    acts: list[_Act] = field(default_factory=list)


class SimulatedLabmanPowderRobot:
    """The robot and its HTTP interface.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its first slot is the pot position that the
            driver's settings ``quadrant`` and ``position`` name.
        world: The world it takes powder from; stock at ``<name>.head_N`` is in head N.
        serial_number: What it answers in its status.
    """

    wire = "labman-http"
    chamber_degc = AMBIENT_DEGC
    known_faults: ClassVar[Mapping[str, str]] = {
        _CLOGGED: "the dosing head in use, or the one at_head, gives "
        "part_given (0.4 if not said) of what is asked and then nothing",
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._classes = {
            powder: POWDER_CLASSES[kind]
            for powder, kind in twin["powder_classes"].items()
        }
        self._noise_g = 1e-3 * float(twin["balance_noise_mg"])
        self._resolution_g = 1e-3 * float(twin["balance_resolution_mg"])
        self._rack_turn_s = float(twin["rack_turn_s"])
        self._handling_s = float(twin["handling_s"])
        self._dose_timeout_s = float(twin["dose_timeout_s"])
        self._station = entry.slots[0]
        self._place = (
            int(entry.settings.get("quadrant", 1)),
            int(entry.settings.get("position", 1)),
        )
        self._world = world
        self._serial_number = serial_number
        self._dosing_rng = world.rng(name, "dosing")
        self._balance_rng = world.rng(name, "balance")
        self._heads = _heads(name, world)
        self._clogged_head: int | None = None
        self._quadrants = {number: _Quadrant() for number in range(1, 5)}
        self._outward = 1
        self._user_control_from: float | None = 0.0
        self._loaded: _Workflow | None = None
        self._work: _Work | None = None
        self._busy_until = 0.0
        self._error: str | None = None
        self._results: dict[str, dict[str, Any]] = {}
        self.front = HttpFront(self, faults=self.faults)
        world.add_process(self)

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        return {"transport": "http", "url": await self.front.start()}

    async def stop(self) -> None:
        """Close the port."""
        await self.front.stop()

    @property
    def done_at_s(self) -> float:
        """Lab time at which the last work ended, or will [s]."""
        return self._busy_until

    # -- what happens by itself ----------------------------------------------------

    def advance(self, time: float) -> None:
        """Do everything that is due until lab time *time* [s]."""
        while self._work is not None and self._work.acts:
            work = self._work
            act = work.acts[0]
            if act.due > time:
                return
            # Pouring looks at the world again, and so comes back here.
            del work.acts[0]
            act.do(work, act.due)

    def put_in(self, container: Container, time: float) -> None:
        """Take note that *container* stands in the rack."""

    def take_out(self, container: Container, time: float) -> None:
        """Take note that *container* left the rack; hands in a moving robot are bad."""
        if self._is_processing(time):
            self._world.record(
                time,
                "hands in machine",
                self.name,
                f"{container.name} was taken out while {self.name} was working",
            )

    def _is_processing(self, time: float) -> bool:
        self.advance(time)
        return self._work is not None and bool(self._work.acts)

    def _start_work(self, workflow: _Workflow, time: float) -> None:
        """Plan the doses one after the other, then the mixing."""
        self._quadrants[workflow.quadrant].progress = "Processing"
        self._results[workflow.name] = {
            "WorkflowName": workflow.name,
            "Results": [{"Position": workflow.position, "PowderResults": []}],
        }
        work = _Work(workflow)
        self._work = work
        due = time + self._rack_turn_s + self._handling_s
        left_g = {powder: self._head_g(powder) for powder in self._heads.values()}
        for dispense in workflow.dispenses:
            outcome = dose(
                dispense.target_g,
                left_g[dispense.powder],
                self._classes.get(dispense.powder, POWDER_CLASSES["free_flowing"]),
                self._dosing_rng,
            )
            outcome = self._through_head(dispense, outcome, due)
            left_g[dispense.powder] -= outcome.mass_g
            due += outcome.duration_s
            weighed = self._weighed(outcome.mass_g)
            trouble = None
            if outcome.is_clogged or outcome.is_exhausted:
                reason = "clogged" if outcome.is_clogged else "ran empty"
                trouble = (
                    f"dosing head {dispense.head} ({dispense.powder}) {reason} after "
                    f"{weighed:.4f} g of {dispense.target_g:g} g"
                )

            def pour(
                work: _Work,
                now: float,
                dispense: _PowderDispense = dispense,
                mass_g: float = outcome.mass_g,
                weighed_g: float = weighed,
                trouble: str | None = trouble,
            ) -> None:
                self._pour(work, now, dispense, mass_g, weighed_g, trouble)

            work.acts.append(_Act(due, pour))
            if trouble is not None:
                self._busy_until = due
                return
        due += workflow.mixing_s
        work.acts.append(_Act(due, self._mix))
        due += self._handling_s
        work.acts.append(_Act(due, self._finish))
        self._busy_until = due

    def _through_head(
        self, dispense: _PowderDispense, outcome: Dose, time: float
    ) -> Dose:
        """Return what of *outcome* comes through the head at lab time *time*.

        The robot shakes a clogged head until its time is up and takes what came.
        """
        if not self.faults.is_active(_CLOGGED, time):
            self._clogged_head = None
            return outcome
        in_use = self._clogged_head or dispense.head
        if dispense.head != self.faults.option(_CLOGGED, "at_head", in_use):
            return outcome
        part = 0.0
        if self._clogged_head is None:
            part = self.faults.option(_CLOGGED, "part_given", 0.4)
        self._clogged_head = dispense.head
        return replace(
            outcome,
            mass_g=min(max(part, 0.0) * dispense.target_g, outcome.mass_g),
            duration_s=outcome.duration_s + self._dose_timeout_s,
        )

    def _weighed(self, mass_g: float) -> float:
        """Return what the robot's own balance says of a dose [g]."""
        raw = mass_g + self._noise_g * float(self._balance_rng.standard_normal())
        return round(round(raw / self._resolution_g) * self._resolution_g, 7)

    def _pour(
        self,
        work: _Work,
        time: float,
        dispense: _PowderDispense,
        mass_g: float,
        weighed_g: float,
        trouble: str | None,
    ) -> None:
        container = self._world.at(self._station)
        if container is None:
            self._break_off(work, time, f"no pot at position {self._place[1]}")
            return
        powder = self._world.take_stock(dispense.powder, mass_g)
        self._world.pour(time, container, powder, self.name)
        report = self._results[work.workflow.name]["Results"][0]
        report["PowderResults"].append(
            {
                "PowderName": dispense.powder,
                "TargetMass": dispense.target_g,
                "ActualMass": weighed_g,
            }
        )
        if trouble is not None:
            self._break_off(work, time, trouble)

    def _mix(self, work: _Work, time: float) -> None:
        container = self._world.at(self._station)
        if container is None:
            self._break_off(work, time, f"no pot at position {self._place[1]}")
            return
        mill(container.matter, work.workflow.mixing_s, MIXING_ROBOT)

    def _finish(self, work: _Work, _time: float) -> None:
        self._quadrants[work.workflow.quadrant].progress = "Complete"
        self._work = None

    def _break_off(self, work: _Work, time: float, reason: str) -> None:
        """Stop in the middle and wait for a person."""
        self._error = reason
        self._quadrants[work.workflow.quadrant].progress = "Unknown"
        self._work = None
        self._busy_until = time

    # -- the interface -------------------------------------------------------------

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Answer one request in the envelope of the API."""
        handlers: Mapping[
            tuple[str, str], Callable[[HttpRequest, float], dict[str, Any] | list[Any]]
        ] = {
            ("GET", "/GetStatus"): self._get_status,
            ("GET", "/GetResults"): self._get_results,
            ("GET", "/DosingHeads"): self._get_heads,
            ("POST", "/RequestIndexingRackControl"): self._request_rack,
            ("POST", "/ReleaseIndexingRackControl"): self._release_rack,
            ("POST", "/ValidateWorkflow"): self._validate,
            ("POST", "/PotsLoaded"): self._pots_loaded,
            ("POST", "/PotsUnloaded"): self._pots_unloaded,
            ("POST", "/DosingHeadLoaded"): self._head_loaded,
            ("POST", "/DosingHeadUnloaded"): self._head_unloaded,
        }
        handler = handlers.get((request.method, request.path))
        if handler is None:
            return HttpAnswer(b"<h1>404</h1>", _THINKING_S, status=404)
        self._world.advance(time)
        try:
            if not request.is_json:
                raise _Fault("the body is not JSON")
            data = handler(request, time)
        except _Fault as fault:
            return _envelope("Error", str(fault), None)
        return _envelope("OK", None, data)

    def _get_status(self, _request: HttpRequest, time: float) -> dict[str, Any]:
        return {
            "SerialNumber": self._serial_number,
            "CurrentOutwardQuadrantNumber": self._outward,
            "HeatedRackTemperature": 23.5,
            "InAutomatedMode": True,
            "IndexingRackStatus": (
                "UserControl" if self._has_user_control(time) else "RobotControl"
            ),
            "PipetteTipCount": 0,
            "ProcessErrorMessage": self._error,
            "QuadrantStatuses": [
                {
                    "LoadedWorkflowName": quadrant.workflow,
                    "Progress": quadrant.progress,
                    "QuadrantNumber": number,
                }
                for number, quadrant in self._quadrants.items()
            ],
            "RobotRunning": self._error is None,
        }

    def _has_user_control(self, time: float) -> bool:
        return self._user_control_from is not None and time >= self._user_control_from

    def _get_results(self, request: HttpRequest, _time: float) -> dict[str, Any]:
        name = request.query.get("workflowName", "")
        if name not in self._results:
            raise _Fault(f"there is no workflow {name!r}")
        return self._results[name]

    def _get_heads(self, _request: HttpRequest, time: float) -> list[Any]:
        self.advance(time)
        return [
            {
                "InDispenser": False,
                "Position": head,
                "PowderName": powder,
                "Status": "OK" if self._head_g(powder) > _EMPTY_HEAD_G else "Empty",
            }
            for head, powder in sorted(self._heads.items())
        ]

    def _head_g(self, powder: str) -> float:
        stock = self._world.stock.get(powder)
        return 0.0 if stock is None else stock.mass_g

    def _request_rack(self, request: HttpRequest, time: float) -> dict[str, Any]:
        quadrant = _number(request.query.get("outwardFacingQuadrant"), 1, 4)
        is_there = self._user_control_from is not None and quadrant == self._outward
        if not is_there:
            # The robot finishes what it does before it lets go.
            self._user_control_from = max(time, self._busy_until) + self._rack_turn_s
            self._outward = quadrant
        self._error = None
        return {}

    def _release_rack(self, _request: HttpRequest, time: float) -> dict[str, Any]:
        self._user_control_from = None
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._start_work(loaded, time)
        return {}

    def _validate(self, request: HttpRequest, _time: float) -> dict[str, Any]:
        return {"Result": self._verdict(request.body)}

    def _verdict(self, inputs: Any) -> str:
        """Return the first thing wrong with a list of inputs, or NoError."""
        if not isinstance(inputs, list) or not inputs:
            return "NoMixingPots"
        if len(inputs) > N_POSITIONS:
            return "TooManyCrucibles"
        positions: set[Any] = set()
        for item in inputs:
            if not isinstance(item, dict):
                return "NoMixingPots"
            position = item.get("Position")
            if not _is_within(position, 1, N_POSITIONS):
                return "InvalidPosition"
            if position in positions:
                return "RepeatedPosition"
            positions.add(position)
            verdict = _verdict_on_numbers(item)
            if verdict == "NoError":
                verdict = self._verdict_on_powders(item.get("PowderDispenses"))
            if verdict != "NoError":
                return verdict
        return "NoError"

    def _verdict_on_powders(self, dispenses: Any) -> str:
        if not isinstance(dispenses, list) or not dispenses:
            return "PotWithNoWork"
        loaded = set(self._heads.values())
        for dispense in dispenses:
            powder = dispense.get("PowderName") if isinstance(dispense, dict) else None
            if not isinstance(powder, str) or not powder:
                return "BlankPowderName"
            mass = dispense.get("TargetMass")
            if not (_is_within(mass, 0, _LARGEST_DOSE_G) and mass > 0):
                return "InvalidPowderMass"
            if powder not in loaded:
                return "PowderNotLoaded"
        return "NoError"

    def _pots_loaded(self, request: HttpRequest, time: float) -> dict[str, Any]:
        body = request.body if isinstance(request.body, dict) else {}
        if not self._has_user_control(time):
            raise _Fault("the indexing rack is under robot control")
        name = body.get("WorkflowName")
        if not isinstance(name, str) or not name or name in self._results:
            raise _Fault("WorkflowName must be given and new")
        quadrant = _number(body.get("Quadrant"), 1, 4)
        if self._quadrants[quadrant].progress != "Empty":
            raise _Fault(f"quadrant {quadrant} is not empty")
        verdict = self._verdict(body.get("InputFile"))
        if verdict != "NoError":
            raise _Fault(verdict)
        inputs = body["InputFile"]
        if len(inputs) != 1:
            raise _Fault("this simulated rack holds one pot")
        self._check_pot(quadrant, inputs[0]["Position"])
        head_of = {powder: head for head, powder in self._heads.items()}
        self._loaded = _Workflow(
            name=name,
            quadrant=quadrant,
            position=int(inputs[0]["Position"]),
            dispenses=tuple(
                _PowderDispense(
                    item["PowderName"],
                    float(item["TargetMass"]),
                    head_of[item["PowderName"]],
                )
                for item in inputs[0]["PowderDispenses"]
            ),
            mixing_s=float(inputs[0]["MixerDuration"]),
        )
        self._quadrants[quadrant].progress = "Processing"
        self._quadrants[quadrant].workflow = name
        return {}

    def _check_pot(self, quadrant: int, position: int) -> None:
        """Look at the rack, as its proximity sensors do.

        Raises:
            _Fault: If no pot, or another thing, stands there.
        """
        container = self._world.at(self._station)
        where = f"position {position} of quadrant {quadrant}"
        if (quadrant, position) != self._place or container is None:
            raise _Fault(f"NoMixingPots: there is no pot at {where}")
        holds = self._world.lab.locations[self._station].holds
        if container.kind != holds:
            raise _Fault(f"InvalidPosition: what stands at {where} is no {holds}")

    def _pots_unloaded(self, request: HttpRequest, time: float) -> dict[str, Any]:
        quadrant = self._quadrants[_number(request.query.get("quadrant"), 1, 4)]
        if not self._has_user_control(time):
            raise _Fault("the indexing rack is under robot control")
        quadrant.progress = "Empty"
        quadrant.workflow = None
        self._loaded = None
        return {}

    def _head_loaded(self, request: HttpRequest, _time: float) -> dict[str, Any]:
        body = request.body if isinstance(request.body, dict) else {}
        powder = body.get("PowderName")
        if not isinstance(powder, str) or powder not in self._world.stock:
            raise _Fault("PowderName must be a powder in stock")
        self._heads[_number(body.get("Position"), 1, N_HEADS)] = powder
        return {}

    def _head_unloaded(self, request: HttpRequest, _time: float) -> dict[str, Any]:
        self._heads.pop(_number(request.query.get("position"), 1, N_HEADS), None)
        return {}


def _heads(name: str, world: World) -> dict[int, str]:
    """Return which powder is in which head, from the stock of the lab file.

    Raises:
        ValueError: If a place is no head of this robot.
    """
    heads: dict[int, str] = {}
    for powder, stock in world.lab.stock.items():
        device, _, place = stock.at.partition(".")
        if device != name:
            continue
        match = re.fullmatch(r"head_(\d+)", place)
        head = 0 if match is None else int(match[1])
        if not 1 <= head <= N_HEADS or head in heads:
            raise ValueError(
                f"{powder}: '{stock.at}' should be a head of its own, {name}.head_1 "
                f"to {name}.head_{N_HEADS}"
            )
        heads[head] = powder
    return heads


def _is_within(value: Any, low: float, high: float) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and low <= value <= high
    )


def _number(value: Any, low: int, high: int) -> int:
    """Return *value*, a number or its text, within its range.

    Raises:
        _Fault: If it is no number or outside.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = low - 1
    if not low <= number <= high:
        raise _Fault(f"{value!r} is not within {low} to {high}")
    return number


def _verdict_on_numbers(item: Mapping[str, Any]) -> str:
    """Return the first number out of range in one input, or NoError."""
    ranges = (
        ("CrucibleReplicates", 1, 4, "InvalidCrucibleReplicates"),
        ("HeatingDuration", 0, 7200, "InvalidHeatingDuration"),
        ("EthanolDispenseVolume", 0, 22000, "InvalidEthanolVolume"),
        ("MixerDuration", 0, _LONGEST_MIXING_S, "InvalidMixerDuration"),
        ("MixerSpeed", 0, _FASTEST_MIXING_RPM, "InvalidMixerSpeed"),
        ("TargetTransferVolume", 0, 22000, "InvalidTransferVolume"),
    )
    for key, low, high, verdict in ranges:
        if not _is_within(item.get(key), low, high):
            return verdict
    if item["EthanolDispenseVolume"] > 0:
        return "InsufficientPipetteTips"
    return "NoError"


def _envelope(status: str, message: str | None, data: Any) -> HttpAnswer:
    return HttpAnswer(
        {"Status": status, "ErrorMessage": message, "Data": data}, _THINKING_S
    )
