"""How much of the scattering is in lines, and how much in broad humps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._fit import solve_non_negative

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Humps of glasses and gels lie here, as wide as this [deg of copper radiation].
_HUMP_CENTRES = np.arange(15.0, 50.1, 3.5)
_HUMP_SIGMAS = (3.0, 4.5, 6.5)
_AIR_DECAYS = (5.0, 10.0)  # of scattering by air [deg]
_RANGE = (12.0, 70.0)  # where both are compared [deg]
# Of what an amorphous part scatters, so much is seen as a hump: the rest goes into the
# smooth background or beyond the range.
_SEEN_AS_HUMP = 0.6
# How differently a hump and lines of the same mass scatter: a factor, one standard
# deviation; it depends on composition and on what the instrument scatters itself.
_FACTOR = 1.8
_LEAST_DEGREE = 0.02


@dataclass(frozen=True)
class Crystallinity:
    """Degree of crystallinity, estimated from one scan without a standard.

    Attributes:
        degree: Share of the scattering that is in lines, 0 to 1; about the share of
            the mass that is crystalline.
        low: One standard deviation lower.
        high: One standard deviation higher.
    """

    degree: float
    low: float
    high: float


def crystallinity(
    two_theta: NDArray[np.float64],
    background: NDArray[np.float64],
    net: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> Crystallinity:
    """Return the degree of crystallinity.

    The background is parted into what falls with the angle or is level (air,
    fluorescence, the instrument) and humps; as much as possible goes to the former.

    Args:
        two_theta: Angles [deg], shape ``(n,)``.
        background: Below the lines [counts].
        net: In the lines [counts].
        variance: Of the counts.
    """
    inside = (two_theta >= _RANGE[0]) & (two_theta <= _RANGE[1])
    inside &= np.isfinite(variance)
    if np.count_nonzero(inside) < 50:
        inside = np.isfinite(variance)
    x, y = two_theta[inside], np.maximum(background[inside], 0.0)
    area = float(np.maximum(net[inside], 0.0).sum())
    smooth = [np.ones_like(x), (170.0 - x) / 100.0, x[0] / x]
    smooth += [np.exp(-(x - x[0]) / decay) for decay in _AIR_DECAYS]
    humps = [
        np.exp(-0.5 * ((x - centre) / sigma) ** 2)
        for centre in _HUMP_CENTRES
        for sigma in _HUMP_SIGMAS
    ]
    scale = float(y.mean()) + 1e-300
    # A hump has to pay a little for its area, so that waves of a fitted polynomial do
    # not become glass.
    price = np.concatenate([np.zeros(len(smooth)), np.full(len(humps), 0.02 * scale)])
    rows = np.array(smooth + humps)[:, ::4]
    moment = rows @ y[::4] - price * rows.sum(axis=1)
    amounts = solve_non_negative(rows @ rows.T, moment, 0)
    broad = float((amounts[len(smooth) :] @ np.array(humps)).sum())
    if area + broad <= 0.0:
        return Crystallinity(0.0, 0.0, 1.0)
    ratio = broad / _SEEN_AS_HUMP / max(area, 1e-300)
    # What a smooth background cannot be told from: a few percent of it.
    unsure = 0.03 * float(y.sum()) / max(area, 1e-300)

    def degree(humps_over_lines: float) -> float:
        return 1.0 / (1.0 + max(humps_over_lines, 0.0))

    spread = math.log(_FACTOR)
    low = degree(ratio * math.exp(spread) + unsure)
    high = degree(ratio * math.exp(-spread) - unsure)
    return Crystallinity(max(degree(ratio), _LEAST_DEGREE * (area > 0.0)), low, high)
