"""What a lab file says of the arm: its programs, and where they lead."""

from __future__ import annotations

import re
from typing import Annotated as A
from typing import Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ppu.core.labfile import LimitPair

__all__ = [
    "CarryProgram",
    "GrindProgram",
    "MountProgram",
    "Program",
    "UniversalRobotsUr5eLimits",
    "UniversalRobotsUr5eSettings",
    "UniversalRobotsUr5eTasks",
    "split_route",
]

_WAY = re.compile(r"(\S+) -> (\S+)")


def split_route(route: str) -> tuple[str, str]:
    """Return origin and destination of a route as a lab file writes it.

    Raises:
        ValueError: If it is no route.

    Example:
        >>> split_route("rack_1.1 -> balance.pan")
        ('rack_1.1', 'balance.pan')
    """
    match = _WAY.fullmatch(route)
    if match is None:
        raise ValueError(f"'{route}' is no route; write 'rack_1.1 -> balance.pan'")
    if match[1] == match[2]:
        raise ValueError(f"'{route}' leads nowhere")
    return match[1], match[2]


def _check_route(route: str) -> str:
    split_route(route)
    return route


class Program(BaseModel):
    """A program that somebody taught at the pendant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str = Field(
        pattern=r"^[A-Za-z0-9_./-]+\.urp$",
        description="File on the controller, below its programs folder",
    )
    duration_s: float = Field(
        gt=0, allow_inf_nan=False, description="How long it plays as a rule"
    )


class CarryProgram(Program):
    """A program that takes a container from one place and puts it onto another."""


class GrindProgram(Program):
    """A program that grinds what is in the container at a station."""

    station: str = Field(description="Where the container must stand")
    grinds_for_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="How long one play of it grinds; by default all the time",
    )

    @property
    def portion_s(self) -> float:
        """How long one play of it grinds [s]."""
        return self.duration_s if self.grinds_for_s is None else self.grinds_for_s


class MountProgram(Program):
    """A program that takes powder out of a container and presses it into a holder."""

    station: str = Field(description="Where the container must stand")
    holder_station: str = Field(description="Where the specimen holder must stand")


class UniversalRobotsUr5eTasks(BaseModel):
    """Programs that handle powder; either may be absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grind: GrindProgram | None = None
    mount_powder: MountProgram | None = None

    @model_validator(mode="after")
    def _check_stations(self) -> Self:
        grind, mount = self.grind, self.mount_powder
        if grind is not None and mount is not None and grind.station != mount.station:
            raise ValueError(
                f"grind.station {grind.station} and mount_powder.station "
                f"{mount.station} should be the same"
            )
        return self


class UniversalRobotsUr5eSettings(BaseModel):
    """What the driver must know of the arm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    programs: dict[A[str, AfterValidator(_check_route)], CarryProgram] = Field(
        default_factory=dict,
        description="Which program carries along which route, such as "
        "'rack_1.1 -> balance.pan'",
    )
    tasks: UniversalRobotsUr5eTasks = UniversalRobotsUr5eTasks()
    poll_period_s: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    patience: float = Field(
        default=3.0,
        ge=1,
        allow_inf_nan=False,
        description="How many times its duration a program may take",
    )
    haste: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="A program that ends before this part of its duration was stopped",
    )
    max_silence_s: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the controller may be unreachable while it plays",
    )


class UniversalRobotsUr5eLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container_degc: LimitPair = (0.0, 200.0)
