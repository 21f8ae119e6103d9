"""Fire a sample that is there already, and weigh it before and after."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.capabilities import Balance, FiringProfile, Segment
from ppu.core.errors import LimitError
from ppu.plans import Lab, MsgGenerator, ProtocolResult, protocol
from ppu_protocols.steps import (
    check_handling,
    check_load,
    check_route,
    check_slot,
    choose_furnaces,
    fire_container,
    take_container,
    weigh_sample,
)

__all__ = ["FireSampleParameters", "FireSampleResult", "fire_sample"]


_LEAST_G: Final = 0.01
"""The least mass of a sample whose loss a balance can tell [g]."""


class FireSampleParameters(BaseModel):
    """What to fire, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container: str = Field(
        default="crucible_04", description="Container with the sample"
    )
    ramp_degc_per_min: float = Field(default=5.0, gt=0, le=100, allow_inf_nan=False)
    temperature_degc: float = Field(default=900.0, gt=0, le=3000, allow_inf_nan=False)
    hold_s: float = Field(default=3600.0, ge=0, le=1e6, allow_inf_nan=False)
    cool_to_degc: float = Field(
        default=60.0,
        ge=30,
        le=1000,
        allow_inf_nan=False,
        description="The crucible is taken out when the chamber is below this",
    )

    def profile(self) -> FiringProfile:
        """Return the firing these parameters describe."""
        segment = Segment(self.temperature_degc, self.ramp_degc_per_min, self.hold_s)
        return FiringProfile((segment,), self.cool_to_degc)


class FiredSample(BaseModel):
    """A sample, weighed before and after."""

    id: str
    container: str
    mass_before_g: float
    mass_after_g: float
    loss_percent: float = Field(description="Of the mass before")

    def summary(self) -> str:
        """Return the line that tells people of it."""
        return (
            f"sample {self.id} in {self.container}: {self.mass_before_g:.4f} g before, "
            f"{self.mass_after_g:.4f} g after: lost {self.loss_percent:z.2f} %"
        )


class FireSampleResult(ProtocolResult):
    """What came of it."""

    sample: FiredSample

    @override
    def summary(self) -> list[str]:
        return [self.sample.summary(), *self.not_measured]


def check(lab: Lab, parameters: FireSampleParameters) -> None:
    """Refuse what the lab does not allow, or an empty container."""
    furnace = choose_furnaces(lab, parameters.profile())[0]
    slot = check_slot(lab, furnace, parameters.container)
    home = lab.home_of(parameters.container)
    lab.check_content(parameters.container)
    contents = lab.contents_of(parameters.container)
    check_load(lab, parameters.container, sum(contents.values()))
    pan = lab.the(Balance).pan
    check_route(lab, home, pan, home, slot, home, pan, home)
    check_handling(lab, slot, home, parameters.cool_to_degc)


@protocol(
    version="1",
    hazards=("The furnace and the crucible get hot.",),
    check=check,
)
def fire_sample(
    lab: Lab, parameters: FireSampleParameters
) -> MsgGenerator[FireSampleResult]:
    """Tare, weigh, fire, cool and weigh one sample."""
    container = yield from take_container(lab, "crucible", parameters.container)
    before = yield from weigh_sample(lab, container)
    if before < _LEAST_G:
        raise LimitError(
            f"{container} weighs {before:+.4f} g more than empty: nothing to fire"
        )
    furnaces = choose_furnaces(lab, parameters.profile())
    fired = yield from fire_container(lab, container, parameters.profile(), furnaces)
    after = yield from weigh_sample(lab, container)
    return FireSampleResult(
        sample=FiredSample(
            id=lab.sample_id,
            container=container,
            mass_before_g=before,
            mass_after_g=after,
            loss_percent=100.0 * (before - after) / before,
        ),
        parameters_actual={
            "container": container,
            "ramp_degc_per_min": parameters.ramp_degc_per_min,
            "cool_to_degc": fired.cooled_to_degc,
            **fired.measured(),
        },
        parameters_commanded=("ramp_degc_per_min", "cool_to_degc"),
        not_measured=fired.not_measured(),
    )
