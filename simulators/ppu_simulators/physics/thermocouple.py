"""Thermocouples: ITS-90 reference functions and the error of one real sensor.

Reference functions: NIST ITS-90 thermocouple database (Monograph 175), types K
(0 to 1372 degC) and S (-50 to 1664.5 degC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

ThermocoupleKind = Literal["K", "S"]

# Coefficients of t^n, emf in mV and t in degC.
_K = (
    -0.176004136860e-1,
    0.389212049750e-1,
    0.185587700320e-4,
    -0.994575928740e-7,
    0.318409457190e-9,
    -0.560728448890e-12,
    0.560750590590e-15,
    -0.320207200030e-18,
    0.971511471520e-22,
    -0.121047212750e-25,
)
_K_A0, _K_A1, _K_A2 = 0.118597600000, -0.118343200000e-3, 126.968600
_S_LOW = (
    0.0,
    0.540313308631e-2,
    0.125934289740e-4,
    -0.232477968689e-7,
    0.322028823036e-10,
    -0.331465196389e-13,
    0.255744251786e-16,
    -0.125068871393e-19,
    0.271443176145e-23,
)
_S_HIGH = (
    0.132900444085e1,
    0.334509311344e-2,
    0.654805192818e-5,
    -0.164856259209e-8,
    0.129989605174e-13,
)
_S_BREAK_DEGC = 1064.18

RANGES_DEGC: dict[ThermocoupleKind, tuple[float, float]] = {
    "K": (0.0, 1372.0),
    "S": (-50.0, 1664.5),
}
"""Range of each reference function [degC]."""


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def emf_mv(temperature_degc: float, kind: ThermocoupleKind = "K") -> float:
    """Return the electromotive force against a junction at 0 degC [mV].

    Raises:
        ValueError: If *temperature_degc* is outside ``RANGES_DEGC[kind]``.

    Example:
        >>> round(emf_mv(1000.0), 3)
        41.276
    """
    low, high = RANGES_DEGC[kind]
    if not low <= temperature_degc <= high:
        raise ValueError(
            f"{temperature_degc} degC is outside {low}..{high} degC of type {kind}"
        )
    return _emf(temperature_degc, kind)


def _emf(t: float, kind: ThermocoupleKind) -> float:
    if kind == "K":
        bump = _K_A0 * math.exp(_K_A1 * (t - _K_A2) ** 2)
        return _polynomial(_K, t) + bump
    return _polynomial(_S_LOW if t <= _S_BREAK_DEGC else _S_HIGH, t)


def temperature_degc(emf: float, kind: ThermocoupleKind = "K") -> float:
    """Return the temperature of the junction [degC], the inverse of :func:`emf_mv`.

    The reference functions rise monotonically, so Newton's method on them is exact
    to rounding error, where the published inverse polynomials are good to 0.05 K.

    Args:
        emf: Electromotive force against 0 degC [mV].
        kind: Type of the thermocouple.

    Raises:
        ValueError: If *emf* is outside the range of the type.

    Example:
        >>> round(temperature_degc(37.326), 1)
        900.0
    """
    low, high = RANGES_DEGC[kind]
    if not _emf(low, kind) <= emf <= _emf(high, kind):
        raise ValueError(f"{emf} mV is outside the range of type {kind}")
    below, above = low, high
    t = 0.5 * (low + high)
    for _ in range(60):
        residual = _emf(t, kind) - emf
        if residual > 0.0:
            above = t
        else:
            below = t
        slope = (_emf(t + 0.01, kind) - _emf(t - 0.01, kind)) / 0.02
        candidate = t - residual / slope
        if not below < candidate < above:
            candidate = 0.5 * (below + above)
        if abs(candidate - t) < 1e-10:
            return candidate
        t = candidate
    return t


def misread_degc(
    temperature: float,
    fitted: ThermocoupleKind,
    configured: ThermocoupleKind,
    cold_junction_degc: float = 23.0,
) -> float:
    """Return what a controller set to the wrong type shows [degC].

    Args:
        temperature: True temperature of the junction [degC].
        fitted: Type that is really there.
        configured: Type the controller believes in.
        cold_junction_degc: Temperature of the terminals, compensated as *configured*.

    Raises:
        ValueError: If the emf is beyond the configured type (a burn-out alarm).
    """
    measured = emf_mv(temperature, fitted) - emf_mv(cold_junction_degc, fitted)
    return temperature_degc(
        measured + emf_mv(cold_junction_degc, configured), configured
    )


_NOISE_BLOCK = 512


@dataclass
class ThermocoupleSensor:
    """One thermocouple with its fixed bias, white noise and slow drift.

    A controller linearises with the reference function itself, so a right-configured
    chain shows the junction's temperature plus these errors. Read it once per step
    of the instrument's fixed grid: every reading takes the next number of *rng*.

    Attributes:
        rng: Stream of this sensor alone.
        noise_k: Standard deviation of the white noise [K].
        drift_k: Standard deviation of the slow drift (Ornstein-Uhlenbeck) [K].
        drift_time_s: Its correlation time [s].
        bias_fraction: Bias as a fraction of the class-1 tolerance, -1..1; drawn from
            *rng* when None.
    """

    rng: np.random.Generator
    noise_k: float = 0.15
    drift_k: float = 0.1
    drift_time_s: float = 1800.0
    bias_fraction: float | None = None
    _bias: float = field(init=False, repr=False)
    _drift: float = field(init=False, repr=False)
    _block: list[float] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        # Tolerance limits are read as two standard deviations, cut off at the limit.
        drawn = 0.5 * float(self.rng.standard_normal())
        chosen = drawn if self.bias_fraction is None else self.bias_fraction
        self._bias = min(max(chosen, -1.0), 1.0)
        self._drift = self.drift_k * float(self.rng.standard_normal())

    def bias_k(self, temperature: float) -> float:
        """Return the fixed error at *temperature* [degC], within class 1 [K]."""
        return self._bias * class_1_tolerance_k(temperature)

    def read_degc(self, temperature: float, dt: float) -> float:
        """Return the next reading.

        Args:
            temperature: True temperature of the junction [degC].
            dt: Time since the reading before [s].
        """
        if len(self._block) < 2:
            # Drawing in blocks costs a tenth of drawing one by one.
            self._block = self.rng.standard_normal(_NOISE_BLOCK).tolist()
        keep = math.exp(-dt / self.drift_time_s)
        self._drift = keep * self._drift + self.drift_k * (
            math.sqrt(1.0 - keep * keep) * self._block.pop()
        )
        white = self.noise_k * self._block.pop()
        return temperature + self.bias_k(temperature) + self._drift + white


def class_1_tolerance_k(temperature: float) -> float:
    """Return the class-1 tolerance of type K at *temperature* [degC] [K]."""
    return max(1.5, 0.004 * abs(temperature))
