"""What a lab file says of the controller and of its safety."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ppu.devices.firing import FiringSettings, FurnaceLimits

__all__ = [
    "UNIT_S",
    "EpcSafety",
    "EurothermEpc3016Limits",
    "EurothermEpc3016Settings",
]

UNIT_S: Final[Mapping[str, float]] = {"second": 1.0, "minute": 60.0}
"""How long a unit of the time format is [s]."""


class EpcSafety(BaseModel):
    """What the controller itself must be set to before it may heat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setpoint_high_degc: float = Field(description="Register 111")
    setpoint_low_degc: float = Field(default=0.0, description="Register 112")
    output_high_percent: float = Field(
        default=100.0, ge=0, le=100, description="Register 1857"
    )
    output_low_percent: float = Field(
        default=0.0, ge=-100, le=100, description="Register 1856"
    )
    alarm_1_degc: float = Field(description="Register 13")
    alarm_1_type: Literal["high"] = Field(
        default="high",
        description="Register 536; no other type protects from a runaway",
    )
    sensor_break: Literal["on", "latching"] = Field(
        default="on",
        description="Register 1930; the output then goes to its fallback (34) of 0 %",
    )
    power_return: Literal["reset"] = Field(
        default="reset",
        description="Register 518; a program that goes on by itself after a power "
        "failure fires a sample nobody knows about",
    )
    idle_setpoint_degc: float = Field(
        default=0.0,
        le=60,
        description="Register 24: where the controller goes after its program",
    )
    watchdog_timeout_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Register 1169: after this time without a request it acts",
    )
    watchdog_action: Literal["manual"] = Field(
        default="manual",
        description="Register 1170; an automatic one would heat on before anybody "
        "has seen that it acted",
    )
    watchdog_recovery_s: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Register 1171"
    )
    watchdog: str | None = Field(
        default=None,
        pattern=r"^waived because \S.*",
        description="Only to do without: 'waived because ...', with the reason",
    )

    @model_validator(mode="after")
    def _has_watchdog_or_waiver(self) -> Self:
        if (self.watchdog_timeout_s is None) == (self.watchdog is None):
            raise ValueError(
                "state either watchdog_timeout_s, or 'watchdog: waived because ...'"
            )
        return self


class EurothermEpc3016Settings(FiringSettings):
    """What the driver must know of the controller."""

    time_format: Literal["second", "minute"] = Field(
        description="Register 1173: unit of dwells and of the watchdog on the wire"
    )
    safety: EpcSafety


class EurothermEpc3016Limits(FurnaceLimits):
    """What the lab allows."""
