"""Gas flow: what a controller lets pass, and how a line drains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.gas_flow import (
    AMBIENT_BAR,
    STANDARD_KELVIN,
    GasLine,
    SensorNoise,
    misread_factor,
    volumetric,
)

LINE = GasLine(full_bar=3.0, line_ml=500.0, capacity_ml_per_min=800.0)
PRESSURES = st.floats(AMBIENT_BAR, 3.0)
FLOWS = st.floats(0.0, 800.0)
STEPS = st.floats(0.0, 3600.0)


@given(inlet_bar=PRESSURES, flow=FLOWS, dt=STEPS, fraction=st.floats(0.0, 1.0))
@settings(max_examples=100)
def test_line_drains_alike_whatever_the_step(
    inlet_bar: float, flow: float, dt: float, fraction: float
) -> None:
    """One step and two steps lead to the same pressure."""
    halfway = LINE.drain(inlet_bar, flow, fraction * dt)
    in_two = LINE.drain(halfway, flow, (1 - fraction) * dt)

    assert in_two == pytest.approx(LINE.drain(inlet_bar, flow, dt), rel=1e-9)


@given(inlet_bar=PRESSURES, flow=FLOWS, dt=STEPS)
@settings(max_examples=100)
def test_line_drains_towards_the_room_and_never_below(
    inlet_bar: float, flow: float, dt: float
) -> None:
    """The pressure falls, and ends at that of the room."""
    after = LINE.drain(inlet_bar, flow, dt)

    assert AMBIENT_BAR * (1 - 1e-12) <= after <= inlet_bar * (1 + 1e-12)


def test_line_loses_what_flows_out_of_it() -> None:
    """The gas that passed the valve is the gas that is missing in the line."""
    inlet_bar, passed, dt = 3.0, 0.0, 0.05
    for _ in range(round(1200 / dt)):
        before = min(300.0, LINE.open_flow(inlet_bar))
        inlet_bar = LINE.drain(inlet_bar, 300.0, dt)
        after = min(300.0, LINE.open_flow(inlet_bar))
        passed += (before + after) / 2 * dt / 60

    missing = LINE.contents_ml(3.0) - LINE.contents_ml(inlet_bar)
    assert passed == pytest.approx(missing, rel=1e-6)
    assert missing == pytest.approx(980.4, abs=1.0)


def test_closed_valve_keeps_the_pressure() -> None:
    """Nothing flows out of a line that is shut."""
    assert LINE.drain(2.0, 0.0, 1e6) == 2.0


@given(inlet_bar=PRESSURES)
@settings(max_examples=50)
def test_open_valve_passes_its_capacity_at_full_pressure_only(inlet_bar: float) -> None:
    """Less pressure lets less pass, none at that of the room."""
    assert 0.0 <= LINE.open_flow(inlet_bar) <= 800.0 * (1 + 1e-12)
    assert LINE.open_flow(3.0) == pytest.approx(800.0)
    assert LINE.open_flow(AMBIENT_BAR) == 0.0


@pytest.mark.parametrize(
    ("flow", "inlet_bar", "drive"),
    [
        (0.0, 3.0, 0.0),
        (400.0, 3.0, 50.0),
        (900.0, 3.0, 100.0),
        (1.0, AMBIENT_BAR, 100.0),
        (0.0, AMBIENT_BAR, 0.0),
    ],
)
def test_valve_opens_as_far_as_it_must(
    flow: float, inlet_bar: float, drive: float
) -> None:
    """The drive is the part of what could flow, at most 100 %."""
    assert LINE.valve_drive_percent(flow, inlet_bar) == pytest.approx(drive)


def test_wrong_gas_is_misread_by_its_viscosity() -> None:
    """Poiseuille: the pressure drop is flow times viscosity (CRC values at 300 K)."""
    assert misread_factor("Ar", "Ar") == 1.0
    assert misread_factor("N2", "Ar") == pytest.approx(17.9 / 22.9)
    assert misread_factor("N2", "Ar") * misread_factor("Ar", "N2") == pytest.approx(1.0)


def test_volume_is_standard_under_standard_conditions() -> None:
    """At 25 degC and 1 atm both flows are one; pressure makes the volume small."""
    assert volumetric(100.0, STANDARD_KELVIN, AMBIENT_BAR) == pytest.approx(100.0)
    assert volumetric(100.0, STANDARD_KELVIN, 2 * AMBIENT_BAR) == pytest.approx(50.0)
    assert volumetric(100.0, 2 * STANDARD_KELVIN, AMBIENT_BAR) == pytest.approx(200.0)


def test_noise_depends_on_the_moment_and_the_seed_only() -> None:
    """Who looks twice at one moment sees the same; other moments and seeds differ."""
    one, same, other = (SensorNoise(np.random.default_rng(n)) for n in (1, 1, 2))
    values = [one.at(t / 10) for t in range(500)]

    assert values == [same.at(t / 10) for t in range(500)]
    assert values != [other.at(t / 10) for t in range(500)]
    assert one.at(3.0, 1) != one.at(3.0, 2)
    assert np.mean(values) == pytest.approx(0.0, abs=0.2)
    assert np.std(values) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    "wrong", [{"full_bar": 1.0}, {"line_ml": 0.0}, {"capacity_ml_per_min": 0.0}]
)
def test_line_refuses_what_cannot_be(wrong: dict[str, float]) -> None:
    """Parameters without physical meaning are named."""
    right = {"full_bar": 3.0, "line_ml": 500.0, "capacity_ml_per_min": 800.0}

    with pytest.raises(ValueError, match=next(iter(wrong))):
        GasLine(**right | wrong)
