"""Flow of gas from a bottle through a mass-flow controller.

A laminar element measures the flow: by Poiseuille's law the pressure that drops along
it is proportional to flow times viscosity, so a controller that is told the wrong gas
is wrong by the ratio of the viscosities. A valve behind it lets pass what the pressure
before it allows: for a compressible gas the difference of the squared pressures. When
the bottle is empty only what is left in the line can flow.

All flows are in mL/min at 25 degC and 1 atm, pressures are absolute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "AMBIENT_BAR",
    "STANDARD_KELVIN",
    "VISCOSITY_UPA_S",
    "GasLine",
    "SensorNoise",
    "misread_factor",
    "volumetric",
]

AMBIENT_BAR: Final = 1.01325
STANDARD_KELVIN: Final = 298.15

VISCOSITY_UPA_S: Final = {
    "air": 18.6,
    "Ar": 22.9,
    "CO2": 15.0,
    "He": 20.0,
    "N2": 17.9,
    "O2": 20.8,
}
"""Viscosity at 300 K and 1 bar [uPa s] (CRC Handbook, Viscosity of Gases)."""

_N_NOISE: Final = 1021
_NOISE_S: Final = 0.1


def misread_factor(selected: str, flowing: str) -> float:
    """Return true flow over indicated flow when *flowing* is taken for *selected*.

    Example:
        >>> round(misread_factor("N2", "Ar"), 3)
        0.782
    """
    return VISCOSITY_UPA_S[selected] / VISCOSITY_UPA_S[flowing]


def volumetric(
    flow_ml_per_min: float, temperature_kelvin: float, pressure_bar: float
) -> float:
    """Return a standard flow as the volume it has under the conditions [mL/min]."""
    expansion = temperature_kelvin / STANDARD_KELVIN
    return flow_ml_per_min * expansion * AMBIENT_BAR / pressure_bar


@dataclass(frozen=True)
class GasLine:
    """A line from a pressure regulator to a valve that opens into the room.

    Attributes:
        full_bar: Pressure that the regulator keeps while there is gas [bar].
        line_ml: Volume of the line [mL].
        capacity_ml_per_min: What the open valve lets pass at *full_bar*.
    """

    full_bar: float
    line_ml: float
    capacity_ml_per_min: float

    def __post_init__(self) -> None:
        if not self.full_bar > AMBIENT_BAR:
            raise ValueError(f"full_bar must be above {AMBIENT_BAR}")
        if not self.line_ml > 0:
            raise ValueError("line_ml must be positive")
        if not self.capacity_ml_per_min > 0:
            raise ValueError("capacity_ml_per_min must be positive")

    @property
    def _conductance(self) -> float:
        """Flow through the open valve over the difference of squared pressures."""
        return self.capacity_ml_per_min / (self.full_bar**2 - AMBIENT_BAR**2)

    def open_flow(self, inlet_bar: float) -> float:
        """Return what the open valve lets pass at *inlet_bar* [mL/min]."""
        return self._conductance * max(inlet_bar**2 - AMBIENT_BAR**2, 0.0)

    def valve_drive_percent(self, flow_ml_per_min: float, inlet_bar: float) -> float:
        """Return how far the valve must open for a flow; 100 if it cannot pass it."""
        most = self.open_flow(inlet_bar)
        if flow_ml_per_min >= most:
            return 100.0 if flow_ml_per_min > 0 else 0.0
        return 100.0 * flow_ml_per_min / most

    def contents_ml(self, inlet_bar: float) -> float:
        """Return the standard volume of the gas in the line [mL]."""
        return self.line_ml * inlet_bar / AMBIENT_BAR

    def drain(self, inlet_bar: float, flow_ml_per_min: float, dt: float) -> float:
        """Return the pressure before the valve *dt* later, when the bottle is empty.

        While the valve can hold the flow, the pressure falls linearly. Then the valve
        is fully open, and the isothermal balance ``V dp/dt = -p0 k (p^2 - p0^2)`` has
        the solution ``(p - p0) / (p + p0) ~ exp(-2 k p0^2 t / V)``. Both are exact,
        so any step gives the same.

        Args:
            inlet_bar: Pressure now [bar].
            flow_ml_per_min: What the controller wants to flow.
            dt: Time to advance [s].

        Returns:
            The pressure [bar], never below that of the room.
        """
        if flow_ml_per_min <= 0:
            return inlet_bar
        left_min = dt / 60.0
        # Where the open valve lets pass just what is wanted:
        limit = math.sqrt(flow_ml_per_min / self._conductance + AMBIENT_BAR**2)
        if inlet_bar > limit:
            rate = flow_ml_per_min * AMBIENT_BAR / self.line_ml
            held_min = (inlet_bar - limit) / rate
            if held_min >= left_min:
                return inlet_bar - rate * left_min
            inlet_bar, left_min = limit, left_min - held_min
        decay = 2 * self._conductance * AMBIENT_BAR**2 / self.line_ml
        ratio = (inlet_bar - AMBIENT_BAR) / (inlet_bar + AMBIENT_BAR)
        ratio *= math.exp(-decay * left_min)
        return AMBIENT_BAR * (1 + ratio) / (1 - ratio)


class SensorNoise:
    """Noise that depends on when one looks, not on how often.

    Args:
        rng: Where it is drawn from, once.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._table = rng.standard_normal(_N_NOISE).tolist()

    def at(self, time: float, channel: int = 0) -> float:
        """Return the noise at lab time *time* [standard deviations].

        Args:
            time: Lab time [s].
            channel: Tells several quantities of one instrument apart.
        """
        index = math.floor(time / _NOISE_S + 1e-6) + 257 * channel
        value: float = self._table[index % _N_NOISE]
        return value
