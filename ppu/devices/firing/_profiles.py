"""Firing profiles: what is not allowed about one, and how long it will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ppu.core.capabilities import FiringProfile, Segment
from ppu.devices.firing._settings import FurnaceLimits

__all__ = ["DwellUnit", "expected_duration_s", "segment_faults"]


@dataclass(frozen=True)
class DwellUnit:
    """How a controller counts dwells.

    Args:
        name: What its unit is called.
        seconds: How long that is [s].
        most: The longest dwell it can count.
    """

    name: str
    seconds: float
    most: int


def segment_faults(
    segments: tuple[Segment, ...], limits: FurnaceLimits, unit: DwellUnit
) -> list[str]:
    """Return what the lab or the controller does not allow about *segments*.

    Args:
        segments: The segments.
        limits: What the lab allows.
        unit: How the controller counts dwells.
    """
    faults = []
    low, high = limits.temperature_degc
    slowest, fastest = limits.ramp_degc_per_min
    for number, segment in enumerate(segments, 1):
        where = f"segment {number}"
        if not low <= segment.target_degc <= high:
            faults.append(
                f"{where}: {segment.target_degc:g} degC, allowed are "
                f"{low:g} to {high:g} degC"
            )
        rate = segment.ramp_degc_per_min
        if not (slowest <= rate <= fastest and rate > 0):
            faults.append(
                f"{where}: {rate:g} degC/min, allowed are more than "
                f"{slowest:g} up to {fastest:g} degC/min"
            )
        elif abs(round(rate * 10) / 10 - rate) > 0.02 * rate:
            faults.append(
                f"{where}: {rate:g} degC/min, the controller knows steps of 0.1"
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


def expected_duration_s(
    profile: FiringProfile, cooling_time_constant_s: float
) -> float:
    """Return how long *profile* will take, cooling included [s]."""
    temperature = 25.0
    total = 0.0
    for segment in profile.segments:
        rise = abs(segment.target_degc - temperature)
        total += rise / segment.ramp_degc_per_min * 60 + segment.dwell_s
        temperature = segment.target_degc
    excess = max(temperature - 25.0, 1.0)
    left = max(profile.cool_to_degc - 25.0, 1.0)
    return total + cooling_time_constant_s * max(math.log(excess / left), 0.0)
