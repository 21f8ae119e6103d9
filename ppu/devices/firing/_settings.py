"""What the lab file says of a furnace: settings, limits, and where they disagree."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ppu.core.labfile import LimitPair

__all__ = [
    "FiringSettings",
    "FurnaceLimits",
    "find_limit_contradictions",
    "is_over_limit",
]


LONGEST_PERIOD_S: Final = 60.0
"""The longest time between two samples that the watch of a firing can judge by. What an
element without power still gives off is seen within a minute; sampled every 180 s, it
was taken for a welded relay."""
_N_PERIODS_SILENT: Final = 3


def _bearable(period_s: float) -> float:
    """Return how often to sample.

    Raises:
        ValueError: If that is too seldom to judge a firing by.
    """
    if period_s > LONGEST_PERIOD_S:
        raise ValueError(
            f"should be at most {LONGEST_PERIOD_S:g} s: sampled less often, a healthy "
            "furnace cannot be told from one with a welded relay"
        )
    return period_s


class FiringSettings(BaseModel):
    """What a driver must know of any furnace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_period_s: Annotated[float, AfterValidator(_bearable)] = Field(
        default=10.0, gt=0, allow_inf_nan=False
    )
    max_silence_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the controller may be unreachable during a firing",
    )
    max_deviation_k: float = Field(
        default=50.0,
        gt=0,
        allow_inf_nan=False,
        description="How far the chamber may be from the working setpoint",
    )
    full_power_degc_per_min: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How fast the chamber gets hotter at full power, cold and empty; "
        "half of it is too low, twice as much only finds faults later",
    )
    rated_power_w: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Electrical power at full output, as its plate says; energy is "
        "computed from it, and is not known without it",
    )
    set_within_k: float = Field(
        default=2.0,
        gt=0,
        allow_inf_nan=False,
        description="How near the chamber must be to a temperature that is set",
    )
    ramp_down_degc_per_min: float = Field(
        default=5.0, ge=0.1, le=300, description="Rate for on_abort: ramp_down"
    )
    max_cooling_s: float = Field(
        default=172800.0,
        gt=0,
        allow_inf_nan=False,
        description="How long natural cooling may take before somebody must look",
    )
    cooling_time_constant_s: float = Field(
        default=12000.0,
        gt=0,
        description="Natural cooling of this furnace, only for expected durations",
    )

    @model_validator(mode="after")
    def _let_a_sample_fail(self) -> Self:
        """Refuse a silence that one lost sample would be.

        Raises:
            ValueError: If so.
        """
        least_s = _N_PERIODS_SILENT * self.sample_period_s
        if self.max_silence_s < least_s:
            raise ValueError(
                f"max_silence_s is {self.max_silence_s:g}, which one lost sample ends; "
                f"it should be at least {_N_PERIODS_SILENT} sample periods "
                f"({least_s:g} s)"
            )
        return self


class FurnaceLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature_degc: LimitPair
    ramp_degc_per_min: LimitPair


def is_over_limit(temperature: float, high_degc: float) -> bool:
    """Return whether *temperature* is over a limit by more than overshoot [degC]."""
    return temperature > 1.02 * high_degc


def find_limit_contradictions(
    limits: FurnaceLimits,
    setpoint_high_degc: float,
    alarm_degc: float,
    *,
    alarm_key: str,
) -> list[str]:
    """Return where the lab's limit, the setpoint limit and the alarm do not rise.

    Args:
        limits: What the lab allows.
        setpoint_high_degc: The highest setpoint that the controller takes.
        alarm_degc: Where it warns.
        alarm_key: What that is called in the lab file.
    """
    high = limits.temperature_degc[1]
    found = []
    if high > setpoint_high_degc:
        found.append(
            f"limits.temperature_degc allows {high:g} degC, but the controller's "
            f"own setpoint_high_degc is {setpoint_high_degc:g}; lower the limit"
        )
    if setpoint_high_degc >= alarm_degc:
        found.append(
            f"{alarm_key} is {alarm_degc:g}, which must be over setpoint_high_degc "
            f"({setpoint_high_degc:g}) to warn of overshoot; raise the alarm"
        )
    return found
