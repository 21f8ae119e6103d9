"""Milling and mixing of powders, by machine or by hand.

Size approaches a limit, ``r = r_inf + (r0 - r_inf) exp(-t / t_mill)``, and phases
mix, ``1 - M = (1 - M0) exp(-t / t_mix)``. Both are the exact solutions, so a grinding
may be cut into pieces. The laws are common practice; the constants are our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

    from ppu_simulators.physics.matter import Matter


@dataclass(frozen=True)
class MillParameters:
    """How well something grinds and how much of the powder comes back.

    Attributes:
        limiting_radius_um: Radius that endless milling leads to.
        milling_time_s: Time constant of the size.
        mixing_time_s: Time constant of the mixing.
        recovery: Mean part of a loose powder that is got out again.
        caked_recovery: The same for powder that has been molten.
        recovery_spread: Half width of the (uniform) scatter of both.
    """

    limiting_radius_um: float = 0.3
    milling_time_s: float = 200.0
    mixing_time_s: float = 200.0
    recovery: float = 0.98
    caked_recovery: float = 0.4
    recovery_spread: float = 0.01

    def __post_init__(self) -> None:
        if min(self.limiting_radius_um, self.milling_time_s, self.mixing_time_s) <= 0:
            raise ValueError("radius and time constants must be positive")
        for name in ("recovery", "caked_recovery"):
            if getattr(self, name) - self.recovery_spread < 0.0:
                raise ValueError(f"{name} less its spread must be >= 0")
            if getattr(self, name) + self.recovery_spread > 1.0:
                raise ValueError(f"{name} plus its spread must be <= 1")


_TIMES_TO_LOOSEN: Final = 3.0
"""Time constants of grinding after which a cake is powder again (our choice)."""

MIXING_ROBOT: Final = MillParameters()
"""A dual-asymmetric or ball mixer with grinding media."""

HAND_GRINDING: Final = MillParameters(
    milling_time_s=320.0,
    mixing_time_s=210.0,
    recovery=0.95,
    recovery_spread=0.03,
)
"""A person with mortar and pestle: a little slower, and more stays behind."""


def mill(matter: Matter, duration: float, parameters: MillParameters) -> None:
    """Grind *matter* in place for *duration* [s].

    Reacted shells are broken open at the pace of the size reduction, so grinding
    between two firings speeds up the second. Powder that was molten sits as a cake and
    is loose again after three time constants.

    Raises:
        ValueError: If *duration* is negative.
    """
    if duration < 0:
        raise ValueError("duration must be >= 0")
    if duration == 0:
        return
    keep = math.exp(-duration / parameters.milling_time_s)
    limit = parameters.limiting_radius_um
    for phase, radius in matter.radii_um.items():
        if radius > limit:
            matter.radii_um[phase] = limit + (radius - limit) * keep
    for phase, amount in matter.amounts.items():
        grains = matter.grains.get(phase, amount)
        matter.grains[phase] = amount + max(grains - amount, 0.0) * keep
    matter.mixedness = 1.0 - (1.0 - matter.mixedness) * math.exp(
        -duration / parameters.mixing_time_s
    )
    matter.tapped = 0.0
    if duration >= _TIMES_TO_LOOSEN * parameters.milling_time_s:
        matter.melted = None


def recover(
    matter: Matter, parameters: MillParameters, rng: np.random.Generator
) -> tuple[Matter, Matter]:
    """Return the powder got out of a vessel and what stays on its walls."""
    loose = matter.melted is None
    mean = parameters.recovery if loose else parameters.caked_recovery
    spread = parameters.recovery_spread
    return matter.split(mean + spread * float(rng.uniform(-1.0, 1.0)))
