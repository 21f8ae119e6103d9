"""A simulated furnace chamber, for whichever controller is built into it.

Heating element, lining, thermocouple, PI controller, gas, crucibles and the chemistry
in them advance on one grid; a controller only adds its programmer and its registers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Protocol

from ppu.core.simulation import TwinSettingsError
from ppu_simulators.faults import Faults
from ppu_simulators.physics import reactions
from ppu_simulators.physics.constants import ZERO_DEGC_KELVIN
from ppu_simulators.physics.control import PiController
from ppu_simulators.physics.furnace import FurnaceModel, FurnaceParameters
from ppu_simulators.physics.thermocouple import ThermocoupleSensor
from ppu_simulators.world import AMBIENT_DEGC, Container, World

__all__ = [
    "CHAMBER_DEFAULTS",
    "CHAMBER_FAULTS",
    "TICK_S",
    "BreakType",
    "Chamber",
    "ChamberGas",
    "Firmware",
    "approach",
    "registers_of",
]

TICK_S: Final = 1.0
_CHEMISTRY_TICKS: Final = 10
_TRUTH_TICKS: Final = 60
_LONGEST_CURVE: Final = 10_000
"""How much of the truth is kept: about a week."""

OPEN: Final = "thermocouple open"
SLIPPED: Final = "thermocouple slipped"
REVERSED: Final = "thermocouple reversed"
FROZEN: Final = "sensor frozen"
ELEMENT_OPEN: Final = "element open"
WELDED: Final = "relay welded"

CHAMBER_FAULTS: Final[Mapping[str, str]] = {
    OPEN: "the controller reads over its range and says that its sensor is broken",
    SLIPPED: "the junction is out of the hot zone: it follows 20 times slower and "
    "shows reads_fraction (0.7 if not said) of the rise over the room",
    REVERSED: "the reading falls as far as the temperature rises",
    FROZEN: "the reading stays the same to the last digit",
    ELEMENT_OPEN: "whatever the output says, there is no power",
    WELDED: "whatever the output says, there is full power",
}
"""What can go wrong with any furnace, each with its physical signature."""

CHAMBER_DEFAULTS: Final[Mapping[str, Any]] = {
    "p_max_w": 3000.0,
    "p_co2_bar": 0.0004,
    "chamber_ml": 4000.0,
    "max_degc": 1200.0,
    "faults": [],
}
"""What a lab file may say under ``twin`` of any furnace."""

_SLIPPED_LAG: Final = 20.0
_OVER_RANGE_DEGC: Final = 3276.7  # all that 16 bits with one decimal can say
_UNDER_RANGE_DEGC: Final = -50.0  # lower range limit of both controllers
# How fast air gets in through the gaps round the door and through the open door: our
# estimates for a box furnace. Gas that flows in keeps air from coming in by the gaps.
_AIR_THROUGH_GAPS_S: Final = 1800.0
_AIR_THROUGH_DOOR_S: Final = 20.0
_SAME_BAR: Final = 1e-9

BreakType = Literal["off", "on", "latching"]
"""What a controller does when it finds its sensor broken."""


class Firmware(Protocol):
    """What a controller adds to a chamber."""

    setpoint_degc: float
    """Working setpoint."""
    manual_output: float | None
    """Output set by hand or by force, 0..1; None in automatic."""

    def advance_program(self) -> None:
        """Advance the programmer, and what else it does by itself, by one tick."""

    def output_limits(self) -> tuple[float, float]:
        """Return the lowest and the highest output, 0..1."""

    def break_type(self) -> BreakType:
        """Return what it does about a broken sensor."""

    def output_when_broken(self) -> float:
        """Return the output while its sensor is broken, 0..1."""


class ChamberGas:
    """The gas in a chamber, well mixed, at the pressure of the room.

    Each partial pressure relaxes to that of what comes in, ``dp/dt = sum(k_i (p_i -
    p))``, with ``k = flow / volume`` for a gas and a rate of its own for air.

    Args:
        volume_ml: Volume of the chamber [mL].
        air: The air around it.
    """

    def __init__(self, volume_ml: float, air: reactions.Atmosphere) -> None:
        self._volume_ml = volume_ml
        self._air = air
        self.atmosphere = air

    def mix(
        self, gas: str, flow_ml_per_min: float, dt: float, *, is_door_open: bool
    ) -> None:
        """Let *gas* flow in for *dt*, and air, as far as it can.

        Args:
            gas: Its name; one that is not known brings neither CO2 nor O2.
            flow_ml_per_min: How much of it flows.
            dt: Time that passes [s].
            is_door_open: Whether air gets in freely.
        """
        present, air = self.atmosphere, self._air
        if present is air and (flow_ml_per_min <= 0 or gas == "air"):
            return
        k_gas = max(flow_ml_per_min, 0.0) / 60 / self._volume_ml
        k_air = 1 / _AIR_THROUGH_GAPS_S if k_gas <= 0 else 0.0
        if is_door_open:
            k_air += 1 / _AIR_THROUGH_DOOR_S
        inlet = air
        if gas != "air":
            inlet = reactions.ATMOSPHERES.get(gas, reactions.ATMOSPHERES["Ar"])
        k = k_gas + k_air
        keep = math.exp(-k * dt)

        def after(now: float, from_gas: float, from_air: float) -> float:
            end = (k_gas * from_gas + k_air * from_air) / k
            return end + (now - end) * keep

        p_co2 = after(present.p_co2_bar, inlet.p_co2_bar, air.p_co2_bar)
        p_o2 = after(present.p_o2_bar, inlet.p_o2_bar, air.p_o2_bar)
        is_air = (
            abs(p_co2 - air.p_co2_bar) < _SAME_BAR
            and abs(p_o2 - air.p_o2_bar) < _SAME_BAR
        )
        if is_air:
            self.atmosphere = air
        else:
            self.atmosphere = reactions.Atmosphere(p_co2_bar=p_co2, p_o2_bar=p_o2)


def registers_of(twin: Mapping[str, Any]) -> dict[int, int]:
    """Return the registers that a lab file sets under ``twin``.

    Args:
        twin: Settings with ``registers``, a mapping.

    Raises:
        TwinSettingsError: With everything that is no register or not its content.
    """
    registers: dict[int, int] = {}
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for key, content in twin["registers"].items():
        text = str(key)  # keys of a lab file are text
        number = int(text) if text.isascii() and text.isdecimal() else -1
        wrong = ""
        if not 0 <= number <= 0xFFFF:
            wrong = f"a register should be a whole number from 0 to 65535, not {key!r}"
        elif type(content) is not int or not -0x8000 <= content <= 0xFFFF:
            wrong = f"should be a whole number from -32768 to 65535, not {content!r}"
        if wrong:
            problems.append((("registers", key), f"registers.{key}: {wrong}"))
        else:
            registers[number] = content
    if problems:
        raise TwinSettingsError(problems)
    return registers


class Chamber:
    """Everything of a furnace but its programmer and its wire.

    It advances on a fixed grid of 1 s anchored at lab time 0 and only when somebody
    looks, so polling more often changes nothing. Faults come and go on the grid of
    the chemistry, which is 10 s.

    Args:
        name: Name of the device.
        world: The world it stands in.
        twin: Settings, at least those of :data:`CHAMBER_DEFAULTS`.
        firmware: The controller that is built in.
        faults: What may go wrong.
    """

    lowest_degc: ClassVar[float] = _UNDER_RANGE_DEGC

    def __init__(
        self,
        name: str,
        world: World,
        twin: Mapping[str, Any],
        firmware: Firmware,
        faults: Faults,
    ) -> None:
        self.name = name
        self._world = world
        self._firmware = firmware
        self._faults = faults
        self._max_degc = float(twin["max_degc"])
        self._model = FurnaceModel(FurnaceParameters(p_max_w=float(twin["p_max_w"])))
        self._sensor = ThermocoupleSensor(world.rng(name, "thermocouple"))
        self._controller = PiController(kp=0.02, ti=400.0)
        self.gas = ChamberGas(
            float(twin["chamber_ml"]),
            reactions.Atmosphere(p_co2_bar=float(twin["p_co2_bar"])),
        )
        self._containers: list[Container] = []
        self._tick = 0
        self._junction_kelvin = self._model.thermocouple_kelvin
        self._present: frozenset[str] = frozenset()
        self._is_latched = False
        self._was_too_hot = False
        self.is_sensor_broken = False
        """Whether the controller has found its sensor broken."""
        self.output = 0.0
        """Working output, 0..1."""
        self.pv_degc = self._sensor.read_degc(
            self._model.thermocouple_kelvin - ZERO_DEGC_KELVIN, TICK_S
        )
        """What the controller reads."""
        self.curve: deque[tuple[float, float, float, float | None]] = deque(
            maxlen=_LONGEST_CURVE
        )
        """Truth every minute: lab time, program, chamber and sample [degC]."""

    @property
    def time(self) -> float:
        """Lab time that it has come to [s]."""
        return self._tick * TICK_S

    @property
    def chamber_degc(self) -> float:
        """How hot the lining is [degC]."""
        return self._model.lining_kelvin - ZERO_DEGC_KELVIN

    def go_on_from(self, output: float) -> None:
        """Let automatic control go on from *output* without a bump."""
        self._controller.reset(output)

    def acknowledge(self) -> None:
        """Release a latched sensor break; it comes back while the cause is there."""
        self._is_latched = False
        self._look_at_faults(self.time)

    # -- the process -----------------------------------------------------------------

    def put_in(self, container: Container, time: float) -> None:
        """Take note that *container* stands in the chamber."""
        inside = sum(c.heat_capacity_j_per_k for c in self._containers)
        self._model.mix_in(
            container.temperature_at(time), container.heat_capacity_j_per_k, inside
        )
        self._containers.append(container)

    def take_out(self, container: Container, time: float) -> None:
        """Take note that *container* left the chamber."""
        self._containers.remove(container)
        container.temperature_kelvin = self._model.crucible_kelvin
        container.put_at_s = time

    def advance(self, time: float) -> None:
        """Advance chamber, firmware and matter to the last grid point."""
        n_ticks = math.floor(time / TICK_S + 1e-9)
        while self._tick < n_ticks:
            to_grid = self._tick - self._tick % _CHEMISTRY_TICKS + _CHEMISTRY_TICKS
            self._run_to(min(n_ticks, to_grid))

    def _run_to(self, n_ticks: int) -> None:
        """Run the ticks up to a multiple of the chemistry grid, or to *n_ticks*."""
        if self._tick % _CHEMISTRY_TICKS == 0:
            self._look_at_faults(self.time)
        model, sensor, controller = self._model, self._sensor, self._controller
        firmware, present = self._firmware, self._present
        capacity = sum(c.heat_capacity_j_per_k for c in self._containers)
        n_crucibles = max(len(self._containers), 1)
        is_door_open = self._world.is_door_open(self.name)
        low, controller.high = firmware.output_limits()
        while self._tick < n_ticks:
            firmware.advance_program()
            if firmware.manual_output is not None:
                output = firmware.manual_output
                controller.reset(output)
            elif self.is_sensor_broken:
                output = firmware.output_when_broken()
                controller.reset(output)
            else:
                output = controller.step(TICK_S, firmware.setpoint_degc, self.pv_degc)
            self.output = output = min(max(output, low), controller.high)
            if present:
                output = self._power(output)
            model.step(
                TICK_S,
                output,
                capacity,
                n_crucibles=n_crucibles,
                is_door_open=is_door_open,
            )
            junction = model.thermocouple_kelvin
            if SLIPPED in present:
                junction = self._slip()
            pv = sensor.read_degc(junction - ZERO_DEGC_KELVIN, TICK_S)
            self.pv_degc = self._misread(pv) if present else pv
            self._tick += 1
        if self._tick % _CHEMISTRY_TICKS == 0:
            self._react(is_door_open=is_door_open)
        if self._tick % _TRUTH_TICKS == 0:
            sample = None
            if self._containers:
                sample = model.crucible_kelvin - ZERO_DEGC_KELVIN
            self.curve.append(
                (self.time, firmware.setpoint_degc, self.chamber_degc, sample)
            )

    def _react(self, *, is_door_open: bool) -> None:
        """Let gas and matter change for one step of the chemistry."""
        dt = _CHEMISTRY_TICKS * TICK_S
        gas, flow = self._world.gas_into(self.name)
        self.gas.mix(gas, flow, dt, is_door_open=is_door_open)
        for container in self._containers:
            reactions.advance(
                container.matter, self._model.crucible_kelvin, dt, self.gas.atmosphere
            )
            self._world.note_heated(self.time, container, self.name)
        if self.chamber_degc > self._max_degc and not self._was_too_hot:
            self._was_too_hot = True
            self._world.record(
                self.time,
                "over-temperature",
                self.name,
                f"the chamber is at {self.chamber_degc:.0f} degC, it is made for "
                f"{self._max_degc:g} degC",
            )

    # -- what goes wrong -------------------------------------------------------------

    def _look_at_faults(self, time: float) -> None:
        """See which faults are there from now until the next look."""
        is_active = self._faults.is_active
        present = frozenset(f for f in CHAMBER_FAULTS if is_active(f, time))
        if SLIPPED in present and SLIPPED not in self._present:
            self._junction_kelvin = self._model.thermocouple_kelvin
        kind = self._firmware.break_type()
        is_open = OPEN in present
        self._is_latched = kind == "latching" and (self._is_latched or is_open)
        self.is_sensor_broken = self._is_latched or (is_open and kind != "off")
        self._present = present

    def _power(self, output: float) -> float:
        """Return the power that there really is, 0..1."""
        if WELDED in self._present:
            return 1.0
        return 0.0 if ELEMENT_OPEN in self._present else output

    def _slip(self) -> float:
        """Let the junction follow from where it slipped to [kelvin]."""
        fraction = self._faults.option(SLIPPED, "reads_fraction", 0.7)
        room = AMBIENT_DEGC + ZERO_DEGC_KELVIN
        there = room + fraction * (self._model.lining_kelvin - room)
        lag = _SLIPPED_LAG * self._model.parameters.thermocouple_lag_s
        keep = math.exp(-TICK_S / lag)
        self._junction_kelvin = there + (self._junction_kelvin - there) * keep
        return self._junction_kelvin

    def _misread(self, pv: float) -> float:
        """Return what the controller reads instead of *pv* [degC]."""
        present = self._present
        if OPEN in present:
            # Nobody drives the input up who does not look for a broken sensor.
            is_driven_up = self._firmware.break_type() != "off"
            return _OVER_RANGE_DEGC if is_driven_up else AMBIENT_DEGC
        if FROZEN in present:
            return self.pv_degc
        if REVERSED in present:
            # The terminals compensate for the room, so only the rise over it turns.
            return max(2 * AMBIENT_DEGC - pv, _UNDER_RANGE_DEGC)
        return pv


def approach(value: float, target: float, step: float) -> float:
    """Return *value* after one *step* towards *target*, at once if it is not > 0."""
    gap = target - value
    if step <= 0 or abs(gap) <= step:
        return target
    return value + math.copysign(step, gap)
