"""What a lab file says of an Alicat controller."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ppu.core.labfile import LimitPair
from ppu_drivers.alicat_mfc._codec import Gas, UnitId

__all__ = ["AlicatMfcLimits", "AlicatMfcSettings"]


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
