"""How readings of a furnace are judged.

The readings come from a furnace of two bodies with its own regulator, which shares
nothing with the twin's; that no right firing of the twin is stopped is a property,
too.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.labfile import LabFile
from ppu.devices.firing import HeatingWatch
from ppu_simulators.faults import Faults
from ppu_simulators.instruments._chamber import (
    CHAMBER_DEFAULTS,
    CHAMBER_FAULTS,
    BreakType,
    Chamber,
    approach,
)
from ppu_simulators.world import World

Program = list[tuple[float, float, float]]
"""Target [degC], ramp [degC/min] and dwell [s] of each segment."""


class Programmer:
    """Ramps and dwells, then nothing."""

    manual_output: float | None = None

    def __init__(self, program: Program) -> None:
        self._program = program
        self._dwelt_s: float | None = None
        self.chamber: Chamber
        self.setpoint_degc = math.nan

    @property
    def is_over(self) -> bool:
        """Whether the program has ended."""
        return not self._program

    def advance_program(self) -> None:
        """Advance by one second."""
        if math.isnan(self.setpoint_degc):
            self.setpoint_degc = self.chamber.pv_degc
        if not self._program:
            self.setpoint_degc = 0.0
            return
        target, rate, dwell_s = self._program[0]
        if self._dwelt_s is None:
            self.setpoint_degc = approach(self.setpoint_degc, target, rate / 60)
            self._dwelt_s = 0.0 if self.setpoint_degc == target else None
            return
        self._dwelt_s += 1.0
        if self._dwelt_s >= dwell_s:
            self._program, self._dwelt_s = self._program[1:], None

    def output_limits(self) -> tuple[float, float]:
        """Return all there is."""
        return 0.0, 1.0

    def break_type(self) -> BreakType:
        """Return that a broken sensor is noticed."""
        return "on"

    def output_when_broken(self) -> float:
        """Return no power."""
        return 0.0


def lab_file(n_crucibles: int) -> LabFile:
    """Return a lab with a furnace and crucibles in it."""
    names = range(n_crucibles)
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"furnace": {"driver": "nobody:Cares"}},
            "locations": {
                f"furnace.{n}": {"holds": "crucible", "inside": "furnace"}
                for n in names
            },
            "containers": {
                f"crucible_{n}": {
                    "kind": "crucible",
                    "at": f"furnace.{n}",
                    "capacity_ml": 20,
                    "tare_g": 18.2,
                }
                for n in names
            },
        }
    )


def watch_twin(
    program: Program, *, seed: int, period_s: float, n_crucibles: int, hours: float
) -> str | None:
    """Return what the watch finds wrong with a right firing of the twin."""
    world = World(lab_file(n_crucibles), seed)
    programmer = Programmer(program)
    chamber = Chamber(
        "furnace",
        world,
        CHAMBER_DEFAULTS,
        programmer,
        Faults("furnace", [], CHAMBER_FAULTS, np.random.default_rng(seed)),
    )
    programmer.chamber = chamber
    world.add_process(chamber)
    watch = HeatingWatch(period_s, 30.0)
    for n in range(1, round(hours * 3600 / period_s)):
        world.advance(n * period_s)
        found = watch.judge(
            n * period_s,
            round(chamber.pv_degc, 1),
            round(programmer.setpoint_degc, 1),
            round(chamber.output * 100, 1),
            is_cooling=programmer.is_over,
        )
        if found is not None:
            return found
    return None


segments = st.tuples(
    st.floats(50.0, 1100.0),
    st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0]),
    st.sampled_from([0.0, 60.0, 600.0, 1800.0, 7200.0]),
)


@pytest.mark.slow
@given(
    program=st.lists(segments, min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
    period_s=st.sampled_from([5.0, 10.0, 30.0, 60.0]),
    n_crucibles=st.integers(0, 6),
)
@settings(max_examples=20)
def test_watch_finds_nothing_wrong_with_a_right_firing(
    program: Program, seed: int, period_s: float, n_crucibles: int
) -> None:
    """Whatever the profile, the load, the noise and the sampling, nothing trips."""
    found = watch_twin(
        program, seed=seed, period_s=period_s, n_crucibles=n_crucibles, hours=6.0
    )

    assert found is None


@dataclass
class Kiln:
    """A furnace of one body, with a proportional regulator."""

    heating_degc_per_min: float = 25.0
    loss_per_min: float = 0.01
    temperature: float = 25.0
    output: float = 0.0

    def step(self, setpoint: float, power: float | None = None) -> None:
        """Advance by ten seconds at the regulator's output, or another power."""
        wanted = (setpoint - self.temperature) / 20 + 0.3
        self.output = min(max(wanted, 0.0), 1.0)
        used = self.output if power is None else power
        rate = self.heating_degc_per_min * used
        self.temperature += (rate - self.loss_per_min * (self.temperature - 25)) / 6


def heat(kiln: Kiln, watch: HeatingWatch, n_steps: int, setpoint: float = 300.0) -> int:
    """Heat for a while, with a little noise; return the number of steps."""
    for n in range(n_steps):
        kiln.step(setpoint)
        reading = round(kiln.temperature + 0.1 * (n % 3), 1)
        found = watch.judge(
            n * 10.0, reading, setpoint, 100 * kiln.output, is_cooling=False
        )
        assert found is None
    return n_steps


def see_until(
    watch: HeatingWatch,
    first: int,
    step: float,
    start: float,
    setpoint: float,
    output: float,
    *,
    is_cooling: bool = False,
) -> tuple[str | None, float]:
    """Let the reading change by *step* each 10 s; return what is found, and when."""
    for n in range(360):
        reading = round(start + step * (n + 1), 1)
        found = watch.judge(
            (first + n) * 10.0, reading, setpoint, output, is_cooling=is_cooling
        )
        if found is not None:
            return found, n * 10.0
    return None, math.inf


def test_watch_names_a_slip_when_the_reading_falls_faster_than_heat_is_lost() -> None:
    """Three degrees in ten seconds is no cooling of this furnace."""
    kiln, watch = Kiln(), HeatingWatch(10.0, 30.0)
    first = heat(kiln, watch, 180)
    found, after_s = see_until(watch, first, -3.0, kiln.temperature, 300.0, 40.0)

    assert "the thermocouple has slipped" in str(found)
    assert after_s <= 60.0


def test_watch_names_the_element_when_power_rises_and_heat_is_lost_slowly() -> None:
    """A furnace that cools as if it were off is off."""
    kiln, watch = Kiln(), HeatingWatch(10.0, 30.0)
    first = heat(kiln, watch, 180)
    found, after_s = see_until(watch, first, -0.2, kiln.temperature, 320.0, 90.0)

    assert "the heating element or its supply is open" in str(found)
    assert after_s <= 300.0


def test_watch_names_a_reversal_when_a_cold_start_goes_down() -> None:
    """Nothing gets colder than the room by being heated."""
    watch = HeatingWatch(10.0, 30.0)
    found, after_s = see_until(watch, 0, -0.5, 25.0, 60.0, 60.0)

    assert "the thermocouple is reversed" in str(found)
    assert after_s <= 120.0


def test_watch_names_a_reversal_at_once_when_the_reading_is_below_freezing() -> None:
    """One reading is enough: no furnace of a lab is that cold."""
    watch = HeatingWatch(10.0, 30.0)

    assert watch.judge(0.0, 25.0, 30.0, 10.0, is_cooling=False) is None
    assert "reversed" in str(watch.judge(10.0, -6.0, 30.0, 10.0, is_cooling=False))


@pytest.mark.parametrize("is_cooling", [False, True])
def test_watch_names_the_relay_when_the_reading_rises_without_power(
    is_cooling: bool,
) -> None:
    """The heat in the element does not last for a rise like this."""
    kiln, watch = Kiln(), HeatingWatch(10.0, 30.0)
    first = heat(kiln, watch, 180)
    found, after_s = see_until(
        watch, first, 2.0, kiln.temperature, 300.0, 0.0, is_cooling=is_cooling
    )

    assert "the relay is welded" in str(found)
    assert after_s <= 300.0


@pytest.mark.parametrize(
    ("setpoint_step", "output_step", "is_cooling", "is_found"),
    [
        (1.0, 0.0, False, True),
        (0.0, 0.1, False, True),
        (0.0, 0.0, True, True),
        (0.0, 0.0, False, False),
    ],
    ids=["program ramps", "output moves", "should cool", "nothing moves"],
)
def test_watch_names_a_frozen_sensor_only_when_something_should_move(
    setpoint_step: float, output_step: float, is_cooling: bool, is_found: bool
) -> None:
    """A perfectly still dwell is no fault; the same reading in a ramp is."""
    watch = HeatingWatch(10.0, 30.0)
    found = None
    for n in range(40):
        found = found or watch.judge(
            n * 10.0,
            400.0,
            400.0 + 0.05 * setpoint_step * n,
            30.0 + output_step * n,
            is_cooling=is_cooling,
        )

    assert (found is not None) is is_found
    assert not is_found or "the sensor is frozen" in str(found)


def test_watch_forgets_what_was_before_a_silence() -> None:
    """A fall that nobody saw is no fall within a minute."""
    kiln, watch = Kiln(), HeatingWatch(10.0, 30.0)
    first = heat(kiln, watch, 180)
    later = (first + 60) * 10.0

    for n in range(30):
        reading = round(kiln.temperature - 60.0 - 0.1 * n, 1)
        assert watch.judge(later + 10.0 * n, reading, 0.0, 0.0, is_cooling=True) is None


def test_explanation_is_empty_when_too_little_was_seen() -> None:
    """Nobody knows why after three readings."""
    watch = HeatingWatch(10.0, 30.0)
    watch.judge(0.0, 25.0, 90.0, 10.0, is_cooling=False)

    assert watch.explain_deviation() == ""


def test_explanation_names_the_relay_when_it_is_too_hot_without_power() -> None:
    """Far over the setpoint, rising, and nobody asks for it."""
    kiln, watch = Kiln(), HeatingWatch(10.0, 30.0)
    first = heat(kiln, watch, 180)
    for n in range(4):
        reading = round(kiln.temperature + 3.0 * n, 1)
        watch.judge((first + n) * 10.0, reading, 250.0, 0.0, is_cooling=False)

    assert "it rises at 0% power: the relay is welded" in watch.explain_deviation()
