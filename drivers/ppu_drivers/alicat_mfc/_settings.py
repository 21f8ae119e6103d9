"""What a lab file says of an Alicat controller, and the unit that follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import LimitPair
from ppu_drivers.alicat_mfc._codec import FLOW_UNITS, Gas, Layout, UnitId

__all__ = ["AlicatMfcLimits", "AlicatMfcSettings", "find_flow_unit"]


class AlicatMfcSettings(BaseModel):
    """What the driver must know of the controller and its plumbing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    supplies: str = Field(description="Device that the gas flows into")
    gases: tuple[Gas, ...] = Field(
        min_length=1, description="Gases that are really connected"
    )
    full_scale_ml_per_min: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="Its range as on the name plate, at 25 degC and 1 atm; compared "
        "with what it says, so that SCCM and SLPM are never confused",
    )
    unit_id: UnitId = "A"
    flow_unit: Literal["SCCM", "SLPM"] | None = Field(
        default=None,
        description="Unit of its flow; needed only if it does not say so itself",
    )
    tolerance_percent: float = Field(
        default=2.0,
        gt=0,
        le=50,
        description="How far a settled flow may be from what was asked",
    )
    settle_s: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the flow may take to get there",
    )
    sample_period_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    max_deviation_percent: float = Field(
        default=10.0,
        gt=0,
        le=100,
        description="How far a watched flow may be from what was asked",
    )
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long it may be unreachable while it is watched",
    )


class AlicatMfcLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flow_ml_per_min: LimitPair


def find_flow_unit(name: str, layout: Layout | None, stated: str | None) -> float:
    """Return the instrument's unit of flow [mL/min].

    Args:
        name: Name of the device.
        layout: What it says of its data frame, None if it says nothing.
        stated: The unit that the lab file states, if it does.

    Raises:
        ConfigurationError: If it is not known for certain, or not a standard one.
    """
    if layout is None:
        if stated is None:
            raise ConfigurationError(
                f"{name}: the controller does not say in which unit it measures flow; "
                "look at its display and state settings.flow_unit"
            )
        return FLOW_UNITS[stated]
    unit = layout.unit_of("flow")
    if unit not in FLOW_UNITS or layout.unit_of("setpoint") != unit:
        raise ConfigurationError(
            f"{name}: the controller measures {unit!r} and controls "
            f"{layout.unit_of('setpoint')!r}; set both to standard flow (SCCM or "
            "SLPM) at its panel"
        )
    size = FLOW_UNITS[unit]
    if stated is not None and size != FLOW_UNITS[stated]:
        raise ConfigurationError(
            f"{name}: the lab file says flow_unit {stated}, the controller says {unit}"
        )
    return size
