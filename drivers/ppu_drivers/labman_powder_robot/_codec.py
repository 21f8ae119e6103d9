"""The JSON of the powder robot: what it is asked, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.tasks import DoseRequest

__all__ = [
    "DosingHead",
    "RobotStatus",
    "encode_request",
    "explain_verdict",
    "parse_heads",
    "parse_results",
    "parse_status",
    "parse_verdict",
    "unwrap",
]

_VERDICTS: Final = {
    "NoMixingPots": "no pot is given",
    "RepeatedPosition": "a position is given twice",
    "PotWithNoWork": "a pot has nothing to do",
    "InvalidCrucibleReplicates": "the number of crucibles is not allowed",
    "InvalidHeatingDuration": "the heating duration is not allowed",
    "InvalidEthanolVolume": "the ethanol volume is not allowed",
    "InvalidMixerDuration": "the mixing duration is not allowed",
    "InvalidMixerSpeed": "the mixing speed is not allowed",
    "InvalidPosition": "the position is not allowed",
    "InvalidTransferVolume": "the transfer volume is not allowed",
    "BlankPowderName": "a powder has no name",
    "InvalidPowderMass": "a powder mass is not allowed",
    "TooManyCrucibles": "there are too many crucibles",
    "InsufficientPipetteTips": "there are not enough pipette tips",
    "PowderNotLoaded": "a powder is in no dosing head",
}
"""What each validation result but NoError says, in words."""

_WRONG: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a JSON value raises that is not built as expected."""


@dataclass(frozen=True)
class RobotStatus:
    """What the robot says of itself."""

    serial_number: str | None
    is_automated: bool
    is_running: bool
    is_user_control: bool
    outward_quadrant: int
    error: str | None
    progress: Mapping[int, str]
    """Empty, Processing, Complete or Unknown, for each quadrant."""
    workflows: Mapping[int, str | None]
    """Name of the workflow loaded in each quadrant."""


@dataclass(frozen=True)
class DosingHead:
    """A dosing head in its rack."""

    position: int
    powder: str
    is_empty: bool


def unwrap(answer: Mapping[str, Any]) -> Any:
    """Return the data in the envelope of an answer.

    Raises:
        InstrumentError: If the robot refused.
        MalformedReply: If it is no envelope.

    Example:
        >>> unwrap({"Status": "OK", "ErrorMessage": None, "Data": {"Result": "x"}})
        {'Result': 'x'}
    """
    status = answer.get("Status")
    if status == "OK":
        return answer.get("Data")
    if not isinstance(status, str):
        raise MalformedReply(f"no Status in {str(answer)[:80]}")
    text = answer.get("ErrorMessage") or answer.get("Message") or "no reason given"
    raise InstrumentError(f"the robot refused: {text}", status)


def parse_status(data: Any) -> RobotStatus:
    """Return the status in the data of ``/GetStatus``.

    Raises:
        MalformedReply: If something is missing.
    """
    try:
        quadrants = {int(q["QuadrantNumber"]): q for q in data["QuadrantStatuses"]}
        serial_number = data.get("SerialNumber")
        return RobotStatus(
            serial_number=None if serial_number is None else str(serial_number),
            is_automated=bool(data["InAutomatedMode"]),
            is_running=bool(data["RobotRunning"]),
            is_user_control=data["IndexingRackStatus"] == "UserControl",
            outward_quadrant=int(data["CurrentOutwardQuadrantNumber"]),
            error=None
            if not data["ProcessErrorMessage"]
            else str(data["ProcessErrorMessage"]),
            progress={n: str(q["Progress"]) for n, q in quadrants.items()},
            workflows={n: q["LoadedWorkflowName"] for n, q in quadrants.items()},
        )
    except _WRONG as exc:
        raise MalformedReply(f"no status of a powder robot: {exc!r}") from exc


def parse_heads(data: Any) -> list[DosingHead]:
    """Return the heads in the data of ``/DosingHeads``, by position.

    Raises:
        MalformedReply: If something is missing.
    """
    try:
        heads = [
            DosingHead(
                int(head["Position"]), str(head["PowderName"]), head["Status"] != "OK"
            )
            for head in data
        ]
    except _WRONG as exc:
        raise MalformedReply(f"no list of dosing heads: {exc!r}") from exc
    return sorted(heads, key=lambda head: head.position)


def parse_verdict(data: Any) -> str | None:
    """Return what is wrong by the data of ``/ValidateWorkflow``, None if nothing.

    Raises:
        MalformedReply: If there is no result.
    """
    result = data.get("Result") if isinstance(data, dict) else None
    if not isinstance(result, str):
        raise MalformedReply(f"no validation result in {str(data)[:80]}")
    return None if result == "NoError" else result


def parse_results(data: Any, position: int) -> dict[str, float]:
    """Return the mass of each powder dosed at *position* [g].

    Raises:
        MalformedReply: If something is missing or no mass.
    """
    dosed: dict[str, float] = {}
    try:
        (pot,) = [pot for pot in data["Results"] if int(pot["Position"]) == position]
        for result in pot["PowderResults"]:
            mass = float(result["ActualMass"])
            if not math.isfinite(mass):
                raise ValueError(f"{mass} is no mass")
            powder = str(result["PowderName"])
            dosed[powder] = dosed.get(powder, 0.0) + mass
    except _WRONG as exc:
        raise MalformedReply(f"no results of one pot: {exc!r}") from exc
    return dosed


def explain_verdict(verdict: str) -> str:
    """Return what a verdict of the robot means, in words."""
    return _VERDICTS.get(verdict, "a reason that the driver does not know")


def encode_request(
    request: DoseRequest, position: int, mixer_speed_rpm: int
) -> list[dict[str, Any]]:
    """Return *request* as the robot's list of inputs.

    Args:
        request: What to dose and how long to mix.
        position: Pot position in the quadrant.
        mixer_speed_rpm: How fast to mix.
    """
    return [
        {
            "CrucibleReplicates": 1,
            "HeatingDuration": 0,
            "EthanolDispenseVolume": 0,
            "MinimumTransferMass": 0,
            "MixerDuration": int(request.mixing_s),
            "MixerSpeed": mixer_speed_rpm,
            "Position": position,
            "PowderDispenses": [
                {"PowderName": dose.powder, "TargetMass": dose.mass_g}
                for dose in request.doses
            ],
            "TargetTransferVolume": 0,
        }
    ]
