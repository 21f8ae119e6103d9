"""Specifications: what instruments allow and where they act, as data that can judge.

A driver makes one from its settings and limits and asks it; whoever has only the
description of a lab asks the same one. So both judge alike, and who checks a job needs
no driver. Each has the name of its device and answers what a capability answers without
a wire.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Final

from pydantic import BaseModel, ConfigDict

from ppu.core.errors import LimitError
from ppu.core.tasks import (
    DoseRequest,
    FiringProfile,
    GasRequest,
    Grind,
    PowderTask,
    ScanRequest,
    Segment,
)

__all__ = [
    "ROOM_DEGC",
    "BalanceSpecification",
    "DiffractometerSpecification",
    "DoorSpecification",
    "DoserSpecification",
    "DwellUnit",
    "FurnaceSpecification",
    "GasFlowSpecification",
    "GripperSpecification",
    "HandlerSpecification",
    "ProgramRoom",
    "Specification",
]

Pair = tuple[float, float]
"""Lowest and highest that is allowed."""

ROOM_DEGC: Final = 25.0
"""What a furnace that is off comes to: no firing goes below."""
_RAMP_STEP: Final = 0.1
"""Rates that furnace controllers know are multiples of this [degC/min]."""
_SAMPLE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Specification(_Data):
    """What a device says of itself without a wire.

    Attributes:
        name: Name of the device.
    """

    name: str

    def _refuse(self, faults: list[str]) -> None:
        """Raise what is wrong, naming the device, if anything is."""
        if faults:
            raise LimitError(f"{self.name}: " + "; ".join(faults))


# -- furnaces ----------------------------------------------------------------------


class DwellUnit(_Data):
    """How a controller counts dwells.

    Attributes:
        name: What its unit is called.
        seconds: How long that is [s].
        most: The longest dwell it can count.
    """

    name: str
    seconds: float
    most: int


class ProgramRoom(_Data):
    """How long a program a controller can hold.

    Attributes:
        most: Segments that it has at most.
        is_for_parts: Whether a ramp, a dwell and the end need a segment each; else one
            of ours is one of its own.
    """

    most: int
    is_for_parts: bool = False

    def faults(self, segments: tuple[Segment, ...]) -> list[str]:
        """Return what is wrong about the number of *segments*."""
        n = len(segments)
        if not self.is_for_parts:
            fits = 1 <= n <= self.most
            return [] if fits else [f"{n} segments, allowed are 1 to {self.most}"]
        n_needed = 1 + sum(1 + (segment.dwell_s > 0) for segment in segments)
        if segments and n_needed <= self.most:
            return []
        return [
            f"{n} segments, which the controller needs {n_needed} of its own for, "
            f"allowed are 2 to {self.most}"
        ]


class FurnaceSpecification(Specification):
    """A furnace whose controller runs programs of ramps and dwells."""

    slots: tuple[str, ...]
    temperature_degc: Pair
    ramp_degc_per_min: Pair
    dwell_unit: DwellUnit
    program_room: ProgramRoom
    cooling_time_constant_s: float

    def check_profile(self, profile: FiringProfile) -> None:
        """Refuse what the lab or the controller does not allow.

        Raises:
            LimitError: With every fault.
        """
        segments = profile.segments
        self._refuse(self.program_room.faults(segments) + self._faults(segments))

    def _faults(self, segments: tuple[Segment, ...]) -> list[str]:
        faults = []
        low, high = self.temperature_degc
        slowest, fastest = self.ramp_degc_per_min
        unit = self.dwell_unit
        for number, segment in enumerate(segments, 1):
            where = f"segment {number}"
            if not low <= segment.target_degc <= high:
                faults.append(
                    f"{where}: {segment.target_degc:g} degC, allowed are "
                    f"{low:g} to {high:g} degC"
                )
            elif segment.target_degc < ROOM_DEGC:
                faults.append(
                    f"{where}: {segment.target_degc:g} degC is below the room, and a "
                    f"furnace does not cool; allowed are {ROOM_DEGC:g} to {high:g} degC"
                )
            rate = segment.ramp_degc_per_min
            if not (slowest <= rate <= fastest and rate > 0):
                faults.append(
                    f"{where}: {rate:g} degC/min, allowed are more than "
                    f"{slowest:g} up to {fastest:g} degC/min"
                )
            elif abs(round(rate / _RAMP_STEP) * _RAMP_STEP - rate) > 0.02 * rate:
                faults.append(
                    f"{where}: {rate:g} degC/min, the controller knows steps of "
                    f"{_RAMP_STEP:g}"
                )
            n_units = segment.dwell_s / unit.seconds
            if not 0 <= n_units <= unit.most or abs(n_units - round(n_units)) > 1e-6:
                faults.append(
                    f"{where}: a dwell of {segment.dwell_s:g} s, allowed are whole "
                    f"{unit.name}s from 0 to {unit.most}"
                )
        faults.extend(
            f"segment {number}: {after.target_degc:g} degC is where segment "
            f"{number - 1} ends, so its dwell could not be told apart; make them one"
            for number, (before, after) in enumerate(pairwise(segments), 2)
            if abs(after.target_degc - before.target_degc) < 0.1
        )
        return faults

    def expected_duration_s(self, profile: FiringProfile) -> float:
        """Return how long *profile* will take, cooling included [s]."""
        temperature = ROOM_DEGC
        total = 0.0
        for segment in profile.segments:
            rise = abs(segment.target_degc - temperature)
            total += rise / segment.ramp_degc_per_min * 60 + segment.dwell_s
            temperature = segment.target_degc
        excess = max(temperature - ROOM_DEGC, 1.0)
        left = max(profile.cool_to_degc - ROOM_DEGC, 1.0)
        return total + self.cooling_time_constant_s * max(math.log(excess / left), 0.0)


class DoorSpecification(Specification):
    """The door of a furnace."""

    encloses: str
    max_open_degc: float


class GasFlowSpecification(Specification):
    """What lets gas flow."""

    supplies: str
    gases: tuple[str, ...]
    flow_ml_per_min: Pair

    def check_flow(self, request: GasRequest) -> None:
        """Refuse what the lab or the controller does not allow.

        Raises:
            LimitError: With every fault.
        """
        if request.flow_ml_per_min == 0:
            return
        faults = []
        low, high = self.flow_ml_per_min
        if request.gas not in self.gases:
            faults.append(
                f"{request.gas!r} is not connected, there is {', '.join(self.gases)}"
            )
        if not (low <= request.flow_ml_per_min <= high and request.flow_ml_per_min > 0):
            faults.append(
                f"{request.flow_ml_per_min:g} mL/min, allowed are 0 (closed) and "
                f"{low:g} to {high:g} mL/min"
            )
        self._refuse(faults)


# -- powders -----------------------------------------------------------------------


class BalanceSpecification(Specification):
    """A balance."""

    pan: str
    max_mass_g: float


class DoserSpecification(Specification):
    """What doses powders and mixes them, for whole seconds."""

    station: str
    dose_mg: Pair
    mixing_s: Pair

    def check_request(self, request: DoseRequest) -> None:
        """Refuse what the lab does not allow.

        Raises:
            LimitError: With every fault.
        """
        self._refuse(self.faults(request))

    def faults(self, request: DoseRequest) -> list[str]:
        """Return what the lab does not allow of *request*."""
        faults = []
        low, high = self.dose_mg
        if not request.doses:
            faults.append("no powder is asked for")
        for number, dose in enumerate(request.doses, 1):
            mass = dose.mass_g * 1000
            if not low <= mass <= high or mass <= 0:
                faults.append(
                    f"dose {number}: {mass:g} mg of {dose.powder}, allowed are "
                    f"{low:g} to {high:g} mg"
                )
        low, high = self.mixing_s
        if not low <= request.mixing_s <= high or request.mixing_s % 1 != 0:
            faults.append(
                f"mixing for {request.mixing_s:g} s, allowed are whole seconds from "
                f"{low:g} to {high:g} s"
            )
        return faults


class HandlerSpecification(Specification):
    """An arm or a person: carries containers, grinds powders and mounts them.

    Attributes:
        max_container_degc: How hot a place may be from which it takes one [degC].
        ways: Origins and destinations that it carries between; None for any.
        is_free: Whether it handles powder in any way that can be asked for.
        grinds_with: Program that grinds, if it has one.
        grinds_for_s: For how long that grinds each time [s].
        mounts: Whether it mounts powder.
        container_station: Where a container must stand; None if any place will do.
        holder_station: Where a specimen holder must stand; None if any place will do.
    """

    max_container_degc: float
    ways: frozenset[tuple[str, str]] | None = None
    is_free: bool = False
    grinds_with: str | None = None
    grinds_for_s: float = 0.0
    mounts: bool = False
    container_station: str | None = None
    holder_station: str | None = None

    def can_carry(self, origin: str, destination: str) -> bool:
        """Return whether it carries from one location to the other."""
        return self.ways is None or (origin, destination) in self.ways

    def check_task(self, task: PowderTask) -> None:
        """Refuse powder handling for which it has no program.

        Raises:
            LimitError: If there is none, or it grinds for another time.
        """
        if self.is_free:
            return
        if isinstance(task, Grind):
            self.n_portions(task)
        elif not self.mounts:
            raise LimitError(f"{self.name}: settings.tasks has no mount_powder")

    def n_portions(self, task: Grind) -> int:
        """Return how often it must grind to do *task*.

        Raises:
            LimitError: If it does not grind, or for another time.
        """
        if self.grinds_with is None:
            raise LimitError(f"{self.name}: settings.tasks has no grind")
        portion = self.grinds_for_s
        n = round(task.duration_s / portion)
        if n < 1 or abs(n * portion - task.duration_s) > 0.01 * portion:
            raise LimitError(
                f"{self.name}: {task.duration_s:g} s of grinding were asked for, but "
                f"{self.grinds_with} grinds in portions of {portion:g} s"
            )
        return n


class GripperSpecification(Specification):
    """The hand of a transporter."""

    hand_of: str


# -- measuring ---------------------------------------------------------------------


class DiffractometerSpecification(Specification):
    """A powder diffractometer."""

    slot: str
    two_theta_deg: Pair
    duration_s: Pair

    def check_scan(self, scan: ScanRequest) -> None:
        """Refuse what the lab or the wire does not allow.

        Raises:
            LimitError: With every fault.
        """
        faults = []
        low, high = self.two_theta_deg
        if not low <= scan.start_deg < scan.stop_deg <= high:
            faults.append(
                f"2theta from {scan.start_deg:g} to {scan.stop_deg:g} deg, "
                f"allowed is a rising range within {low:g} to {high:g} deg"
            )
        low, high = self.duration_s
        if not (low <= scan.duration_s <= high and scan.duration_s > 0):
            faults.append(
                f"a scan of {scan.duration_s:g} s, allowed are {low:g} to {high:g} s"
            )
        if _SAMPLE_ID.fullmatch(scan.sample_id) is None:
            faults.append(
                f"the sample id {scan.sample_id!r}, allowed are up to 64 letters, "
                "digits, '_', '-' and '.', beginning with a letter or digit"
            )
        self._refuse(faults)
