"""Chamber furnace as five lumped temperatures.

A heating element radiates to the lining, the lining conducts into the insulation
and heats the crucibles, the insulation loses heat to the room, and a thermocouple
follows the lining with a lag::

    element     Ce dTe/dt = P - q_el            q_el = s Ae (Te^4 - Tl^4)
    lining      Cl dTl/dt = q_el - q_li - q_lc - q_door
    insulation  Ci dTi/dt = q_li - q_ia         q_li = Gli (Tl - Ti)
    crucibles   Cc dTc/dt = q_lc                q_ia = Gia (Ti - Ta)
    sensor      tau dTs/dt = Tl - Ts

with q_lc = n Ac (eps s (Tl^4 - Tc^4) + h (Tl - Tc)) for n crucibles. The model
knows no controller, no program and no clock.
"""

import math
from dataclasses import dataclass

from ppu_simulators.physics.constants import STEFAN_BOLTZMANN, ZERO_DEGC_KELVIN


@dataclass(frozen=True)
class FurnaceParameters:
    """Constants of one chamber furnace (defaults: a small 1100 degC chamber).

    Attributes:
        p_max_w: Electrical power at full output [W].
        element_heat_capacity_j_per_k: Heating element.
        lining_heat_capacity_j_per_k: Hot face of the chamber.
        insulation_heat_capacity_j_per_k: Bulk of the insulation.
        lining_to_insulation_w_per_k: Conductance from hot face to bulk.
        insulation_to_ambient_w_per_k: Conductance from bulk through shell to room.
        element_area_m2: Element area times effective emissivity.
        crucible_area_m2: Area of one crucible that sees the lining.
        crucible_emissivity: Effective emissivity of that area.
        crucible_film_w_per_m2_k: Convective film coefficient at that area.
        thermocouple_lag_s: Time constant of the sheathed thermocouple.
        door_area_m2: Effective radiating area of the open door.
    """

    p_max_w: float = 3000.0
    element_heat_capacity_j_per_k: float = 400.0
    lining_heat_capacity_j_per_k: float = 7000.0
    insulation_heat_capacity_j_per_k: float = 15000.0
    lining_to_insulation_w_per_k: float = 2.4
    insulation_to_ambient_w_per_k: float = 1.9
    element_area_m2: float = 0.020
    crucible_area_m2: float = 0.0035
    crucible_emissivity: float = 0.7
    crucible_film_w_per_m2_k: float = 6.0
    thermocouple_lag_s: float = 12.0
    door_area_m2: float = 0.012

    def __post_init__(self) -> None:
        may_be_zero = {
            "element_area_m2",
            "crucible_emissivity",
            "crucible_film_w_per_m2_k",
            "door_area_m2",
        }
        for name, value in vars(self).items():
            is_allowed = value > 0 or (value == 0 and name in may_be_zero)
            if not (is_allowed and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, not {value!r}")


class FurnaceModel:
    """State of one furnace, advanced by fixed steps.

    Each step solves the equations linearised about its start at the midpoint (a
    one-stage Rosenbrock method with gamma = 1/2): second order, A-stable, and with
    the same heat leaving one node and entering the next, so the balance of heat
    closes to rounding error at any step. Steps up to 5 s keep the element, the
    fastest node (about 30 s at 1100 degC), free of ringing.

    Args:
        parameters: Constants of the furnace.
        temperature_kelvin: Temperature of every node at the start.

    Attributes:
        element_kelvin: Heating element.
        lining_kelvin: Lining, which is what the thermocouple follows.
        insulation_kelvin: Insulation bulk.
        crucible_kelvin: Crucibles and what is in them; the lining's temperature
            while the chamber is empty.
        thermocouple_kelvin: Junction of the thermocouple.
        heat_in: Electrical heat since the start [J].
        heat_lost: Heat given to the room since the start [J].
    """

    __slots__ = (
        "_door_factor",
        "_film",
        "_radiation_crucible",
        "_radiation_element",
        "crucible_kelvin",
        "element_kelvin",
        "heat_in",
        "heat_lost",
        "insulation_kelvin",
        "lining_kelvin",
        "parameters",
        "thermocouple_kelvin",
    )

    def __init__(
        self,
        parameters: FurnaceParameters | None = None,
        temperature_kelvin: float = 23.0 + ZERO_DEGC_KELVIN,
    ) -> None:
        self.parameters = p = parameters or FurnaceParameters()
        self.element_kelvin = temperature_kelvin
        self.lining_kelvin = temperature_kelvin
        self.insulation_kelvin = temperature_kelvin
        self.crucible_kelvin = temperature_kelvin
        self.thermocouple_kelvin = temperature_kelvin
        self.heat_in = 0.0
        self.heat_lost = 0.0
        self._radiation_element = STEFAN_BOLTZMANN * p.element_area_m2
        self._radiation_crucible = (
            STEFAN_BOLTZMANN * p.crucible_area_m2 * p.crucible_emissivity
        )
        self._film = p.crucible_area_m2 * p.crucible_film_w_per_m2_k
        self._door_factor = STEFAN_BOLTZMANN * p.door_area_m2

    def step(
        self,
        dt: float,
        power_fraction: float,
        sample_heat_capacity_j_per_k: float = 0.0,
        *,
        n_crucibles: int = 1,
        ambient_kelvin: float = 23.0 + ZERO_DEGC_KELVIN,
        is_door_open: bool = False,
    ) -> None:
        """Advance every temperature by one step of constant power.

        Args:
            dt: Length of the step [s], 0 < dt <= 5 for the stated accuracy.
            power_fraction: Heating power as a fraction of full power, 0..1.
            sample_heat_capacity_j_per_k: All crucibles and powders inside; 0 means
                an empty chamber, whose crucible node idles at the lining.
            n_crucibles: Crucibles inside; each adds its own area.
            ambient_kelvin: Temperature of the room.
            is_door_open: Whether the lining radiates into the room.
        """
        p = self.parameters
        half = 0.5 * dt
        element = self.element_kelvin
        lining = self.lining_kelvin
        insulation = self.insulation_kelvin
        lining3 = lining * lining * lining
        # Each heat flow at the midpoint is q + dq/2, linear in the sought changes.
        radiation = self._radiation_element
        element3 = element * element * element
        q_el = radiation * (element3 * element - lining3 * lining)
        g_e = 4.0 * radiation * element3 * half
        g_el = 4.0 * radiation * lining3 * half
        g_li = p.lining_to_insulation_w_per_k
        q_li = g_li * (lining - insulation)
        g_li *= half
        g_ia = p.insulation_to_ambient_w_per_k
        q_ia = g_ia * (insulation - ambient_kelvin)
        g_ia *= half
        power = power_fraction * p.p_max_w

        # The lining touches every other node and these touch only the lining, so
        # eliminating them leaves one equation: diagonal * d_lining = right.
        c_e = p.element_heat_capacity_j_per_k + g_e
        b_e = dt * (power - q_el)
        c_i = p.insulation_heat_capacity_j_per_k + g_li + g_ia
        b_i = dt * (q_li - q_ia)
        diagonal = (
            p.lining_heat_capacity_j_per_k
            + g_el
            + g_li
            - g_e * g_el / c_e
            - g_li * g_li / c_i
        )
        right = dt * (q_el - q_li) + g_e * b_e / c_e + g_li * b_i / c_i
        q_door = g_door = 0.0
        if is_door_open:
            q_door = self._door_factor * (lining3 * lining - ambient_kelvin**4)
            g_door = 4.0 * self._door_factor * lining3 * half
            diagonal += g_door
            right -= dt * q_door
        if sample_heat_capacity_j_per_k > 0.0:
            crucible = self.crucible_kelvin
            crucible3 = crucible * crucible * crucible
            r_c = n_crucibles * self._radiation_crucible
            film = n_crucibles * self._film
            q_lc = r_c * (lining3 * lining - crucible3 * crucible)
            q_lc += film * (lining - crucible)
            g_lc = (4.0 * r_c * lining3 + film) * half
            g_c = (4.0 * r_c * crucible3 + film) * half
            c_c = sample_heat_capacity_j_per_k + g_c
            diagonal += g_lc - g_c * g_lc / c_c
            right -= dt * q_lc * (1.0 - g_c / c_c)
            d_lining = right / diagonal
            self.crucible_kelvin = crucible + (dt * q_lc + g_lc * d_lining) / c_c
            self.lining_kelvin = lining + d_lining
        else:
            d_lining = right / diagonal
            self.lining_kelvin = self.crucible_kelvin = lining + d_lining
        self.element_kelvin = element + (b_e + g_el * d_lining) / c_e
        d_insulation = (b_i + g_li * d_lining) / c_i
        self.insulation_kelvin = insulation + d_insulation
        sensor = self.thermocouple_kelvin
        self.thermocouple_kelvin = sensor + dt * (lining + 0.5 * d_lining - sensor) / (
            p.thermocouple_lag_s + half
        )
        self.heat_in += dt * power
        self.heat_lost += dt * (q_ia + q_door) + g_ia * d_insulation + g_door * d_lining

    def mix_in(
        self,
        temperature_kelvin: float,
        heat_capacity_j_per_k: float,
        already_inside_j_per_k: float = 0.0,
    ) -> None:
        """Put a crucible in: the crucible node takes the mixed temperature.

        Args:
            temperature_kelvin: Temperature the newcomer has.
            heat_capacity_j_per_k: Its heat capacity; must be > 0.
            already_inside_j_per_k: Heat capacity of the crucibles already inside.
        """
        total = already_inside_j_per_k + heat_capacity_j_per_k
        self.crucible_kelvin = (
            already_inside_j_per_k * self.crucible_kelvin
            + heat_capacity_j_per_k * temperature_kelvin
        ) / total

    def stored_heat(self, sample_heat_capacity_j_per_k: float = 0.0) -> float:
        """Return the heat in all nodes above 0 K [J]."""
        p = self.parameters
        return (
            p.element_heat_capacity_j_per_k * self.element_kelvin
            + p.lining_heat_capacity_j_per_k * self.lining_kelvin
            + p.insulation_heat_capacity_j_per_k * self.insulation_kelvin
            + sample_heat_capacity_j_per_k * self.crucible_kelvin
        )
