"""Thermocouple reference functions against tabulated values; sensor errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.thermocouple import (
    RANGES_DEGC,
    ThermocoupleKind,
    ThermocoupleSensor,
    class_1_tolerance_k,
    emf_mv,
    misread_degc,
    temperature_degc,
)


@pytest.mark.parametrize(
    ("kind", "temperature", "expected"),
    [
        ("K", 0.0, 0.0),
        ("K", 100.0, 4.096),
        ("K", 500.0, 20.644),
        ("K", 900.0, 37.326),
        ("K", 1000.0, 41.276),
        ("K", 1100.0, 45.119),
        ("K", 1200.0, 48.838),
        ("S", 0.0, 0.0),
        ("S", 500.0, 4.233),
        ("S", 1000.0, 9.587),
        ("S", 1400.0, 14.373),
    ],
)
def test_emf_equals_its90_table(
    kind: ThermocoupleKind, temperature: float, expected: float
) -> None:
    """The reference function rounds to the tabulated microvolt."""
    assert emf_mv(temperature, kind) == pytest.approx(expected, abs=0.5e-3)


@settings(max_examples=200)
@given(kind=st.sampled_from(["K", "S"]), position=st.floats(0.0, 1.0))
def test_temperature_inverts_emf_over_the_whole_range(
    kind: ThermocoupleKind, position: float
) -> None:
    """Going to millivolts and back changes no temperature by 1e-6 K."""
    low, high = RANGES_DEGC[kind]
    temperature = low + position * (high - low)

    assert temperature_degc(emf_mv(temperature, kind), kind) == pytest.approx(
        temperature, abs=1e-6
    )


def test_emf_refuses_a_temperature_out_of_range() -> None:
    """Nothing is extrapolated beyond the reference function."""
    with pytest.raises(ValueError, match="outside"):
        emf_mv(1400.0)
    with pytest.raises(ValueError, match="outside"):
        temperature_degc(70.0)


def test_misreading_is_far_off_when_type_is_wrong() -> None:
    """K read as S is beyond the scale of S; S read as K shows a quarter."""
    with pytest.raises(ValueError, match="outside"):
        misread_degc(1000.0, fitted="K", configured="S")

    assert 200.0 < misread_degc(1000.0, fitted="S", configured="K") < 280.0
    assert misread_degc(700.0, "K", "K") == pytest.approx(700.0, abs=1e-6)


def test_sensor_bias_stays_within_class_1_for_every_device() -> None:
    """The fixed error of any device is inside the class-1 tolerance."""
    biases = [
        ThermocoupleSensor(np.random.default_rng(seed)).bias_k(1000.0)
        for seed in range(200)
    ]

    assert class_1_tolerance_k(1000.0) == 4.0
    assert max(np.abs(biases)) <= 4.0
    assert np.std(biases) == pytest.approx(2.0, rel=0.25)


def test_sensor_noise_has_the_stated_size() -> None:
    """White noise and drift add up to their stated standard deviations."""
    sensor = ThermocoupleSensor(
        np.random.default_rng(1),
        noise_k=0.15,
        drift_k=0.1,
        drift_time_s=20.0,
        bias_fraction=0.0,
    )
    readings = np.array([sensor.read_degc(500.0, dt=1.0) for _ in range(20_000)])

    assert readings.mean() == pytest.approx(500.0, abs=0.02)
    assert readings.std() == pytest.approx(np.hypot(0.15, 0.1), rel=0.05)
    # Differences of neighbours see the white part only, apart from sqrt(1/10) drift.
    assert np.diff(readings).std() == pytest.approx(
        np.sqrt(2 * 0.15**2 + 2 * 0.1**2 * (1 - np.exp(-1 / 20))), rel=0.05
    )


def test_sensor_repeats_itself_for_the_same_seed() -> None:
    """Same seed and same calls: the same readings, value for value."""
    first, second = (
        [sensor.read_degc(300.0 + i, 2.0) for i in range(1500)]
        for sensor in (ThermocoupleSensor(np.random.default_rng(5)) for _ in range(2))
    )

    assert first == second
