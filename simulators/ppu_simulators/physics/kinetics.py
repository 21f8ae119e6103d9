"""Rate laws of solid-state reactions and their exact integration.

A law is ``d(alpha)/dt = k f(alpha)``, or integrated ``g(alpha) = integral of k dt``.
Stepping in g is exact for any dt while k is constant. Forms as tabulated in
PMC7178331 (table 8) and PMC4348607 (table 1); ``f(alpha) g'(alpha) = 1`` for each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ppu_simulators.physics.constants import GAS_CONSTANT


@dataclass(frozen=True)
class RateLaw:
    """One rate law.

    Attributes:
        name: Usual short name, e.g. ``D4``.
        f: Differential form, for 0 < alpha < 1.
        g: Integral form, for 0 <= alpha < 1.
        inverse: Conversion for a value of g below ``g_end``.
        g_end: Value of g at full conversion (infinite for F1, A2 and A3).
        radius_exponent: p in k ~ 1/r^p: 2 for diffusion through a product layer, 1
            for a contracting interface, 0 where no length appears.
    """

    name: str
    f: Callable[[float], float]
    g: Callable[[float], float]
    inverse: Callable[[float], float]
    g_end: float
    radius_exponent: int

    def advance(self, conversion: float, rate_constant: float, dt: float) -> float:
        """Return the conversion after *dt* at a constant rate constant.

        Args:
            conversion: Conversion at the start, 0..1.
            rate_constant: k [1/s]; must be >= 0.
            dt: Duration [s]; must be >= 0.

        Example:
            >>> round(F1.advance(0.0, rate_constant=1e-3, dt=693.147), 4)
            0.5
        """
        if conversion >= 1.0:
            return 1.0
        reached = self.g(conversion) + rate_constant * dt
        return 1.0 if reached >= self.g_end else self.inverse(reached)


def arrhenius(k0: float, activation_energy: float, temperature_kelvin: float) -> float:
    """Return ``k0 exp(-E/RT)`` [unit of k0].

    Args:
        k0: Prefactor.
        activation_energy: E [J/mol].
        temperature_kelvin: Temperature; must be > 0.
    """
    return k0 * math.exp(-activation_energy / (GAS_CONSTANT * temperature_kelvin))


# w = 1 - (1 - alpha)^(1/n) is the depth of the reacted shell over the radius of the
# grain; writing the laws in w avoids cancellation at small conversion.
def _depth2(a: float) -> float:
    return -math.expm1(0.5 * math.log1p(-a))


def _depth3(a: float) -> float:
    return -math.expm1(math.log1p(-a) / 3.0)


def _from_depth2(w: float) -> float:
    return w * (2.0 - w)


def _from_depth3(w: float) -> float:
    return w * (3.0 - 3.0 * w + w * w)


def _g_d2(a: float) -> float:
    if a < 1e-3:  # the closed form loses all digits here
        return a * a * (1 / 2 + a * (1 / 6 + a * (1 / 12 + a * (1 / 20 + a / 30))))
    return (1.0 - a) * math.log1p(-a) + a


def _inverse_d2(g: float) -> float:
    below, above = 0.0, 1.0
    a = min(math.sqrt(2.0 * g), 0.999)
    for _ in range(100):
        if a == 0.0:
            return 0.0
        residual = _g_d2(a) - g
        if residual > 0.0:
            above = a
        else:
            below = a
        candidate = a + residual / math.log1p(-a)
        if not below < candidate < above:
            candidate = 0.5 * (below + above)
        if abs(candidate - a) <= 1e-15 * a:
            return candidate
        a = candidate
    return a


def _g_d4(a: float) -> float:
    w = _depth3(a)
    return w * w * (1.0 - w * (2.0 / 3.0))


def _inverse_d4(g: float) -> float:
    # w^2 (1 - 2w/3) = g is a cubic with three real roots; this is the one in 0..1.
    eta = math.asin(math.sqrt(3.0 * g)) / 3.0
    return _from_depth3(2.0 * math.sin(math.pi / 3.0 + eta) * math.sin(eta))


F1: Final = RateLaw(
    "F1",
    lambda a: 1.0 - a,
    lambda a: -math.log1p(-a),
    lambda g: -math.expm1(-g),
    math.inf,
    0,
)
A2: Final = RateLaw(
    "A2",
    lambda a: 2.0 * (1.0 - a) * (-math.log1p(-a)) ** 0.5,
    lambda a: (-math.log1p(-a)) ** 0.5,
    lambda g: -math.expm1(-(g**2)),
    math.inf,
    0,
)
A3: Final = RateLaw(
    "A3",
    lambda a: 3.0 * (1.0 - a) * (-math.log1p(-a)) ** (2.0 / 3.0),
    lambda a: (-math.log1p(-a)) ** (1.0 / 3.0),
    lambda g: -math.expm1(-(g**3)),
    math.inf,
    0,
)
R2: Final = RateLaw(
    "R2", lambda a: 2.0 * (1.0 - a) ** 0.5, _depth2, _from_depth2, 1.0, 1
)
R3: Final = RateLaw(
    "R3", lambda a: 3.0 * (1.0 - a) ** (2.0 / 3.0), _depth3, _from_depth3, 1.0, 1
)
D1: Final = RateLaw("D1", lambda a: 0.5 / a, lambda a: a * a, math.sqrt, 1.0, 2)
D2: Final = RateLaw("D2", lambda a: -1.0 / math.log1p(-a), _g_d2, _inverse_d2, 1.0, 2)
D3: Final = RateLaw(
    "D3",
    lambda a: 1.5 * (1.0 - a) ** (2.0 / 3.0) / _depth3(a),
    lambda a: _depth3(a) ** 2,
    lambda g: _from_depth3(math.sqrt(g)),
    1.0,
    2,
)
D4: Final = RateLaw(
    "D4",
    lambda a: 1.5 * (1.0 - a) ** (1.0 / 3.0) / _depth3(a),
    _g_d4,
    _inverse_d4,
    1.0 / 3.0,
    2,
)

LAWS: Final[dict[str, RateLaw]] = {
    law.name: law for law in (F1, A2, A3, R2, R3, D1, D2, D3, D4)
}
