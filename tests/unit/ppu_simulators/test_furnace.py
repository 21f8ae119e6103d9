"""The furnace against the matrix exponential, LSODA and its own energy balance."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from ppu_simulators.physics.control import PiController
from ppu_simulators.physics.furnace import FurnaceModel, FurnaceParameters

AMBIENT = 296.15
SAMPLE = 60.0
Floats = NDArray[np.float64]
SIGMA = 5.670374419e-8


def temperatures(model: FurnaceModel) -> Floats:
    """Return the five temperatures, shape (5,)."""
    return np.array(
        [
            model.element_kelvin,
            model.lining_kelvin,
            model.insulation_kelvin,
            model.crucible_kelvin,
            model.thermocouple_kelvin,
        ]
    )


def derivative(y: Floats, power: float) -> list[float]:
    """Return the equations written down a second time, from their description."""
    element, lining, insulation, crucible, sensor = y.tolist()
    q_el = SIGMA * 0.020 * (element**4 - lining**4)
    q_lc = 0.0035 * (0.7 * SIGMA * (lining**4 - crucible**4) + 6 * (lining - crucible))
    return [
        (power - q_el) / 400,
        (q_el - 2.4 * (lining - insulation) - q_lc) / 7000,
        (2.4 * (lining - insulation) - 1.9 * (insulation - AMBIENT)) / 15000,
        q_lc / SAMPLE,
        (lining - sensor) / 12,
    ]


def lsoda(y: Floats, duration: float, power: Callable[[float], float]) -> Floats:
    """Return the temperatures after *duration* by an adaptive solver, shape (5,)."""
    solution = solve_ivp(
        lambda t, state: derivative(state, power(t)),
        (0.0, duration),
        y,
        method="LSODA",
        rtol=1e-9,
        atol=1e-7,
    )
    return np.asarray(solution.y[:, -1])


def run_program(
    rate: float, target: float, duration: float, dt: float = 2.0
) -> dict[str, list[float]]:
    """Run a ramp and dwell under PI control; return its record in degC."""
    model, controller = FurnaceModel(), PiController(kp=0.02, ti=400.0)
    record: dict[str, list[float]] = {
        "t": [],
        "sp": [],
        "pv": [],
        "sample": [],
        "u": [],
    }
    for index in range(round(duration / dt)):
        time = index * dt
        setpoint = min(23.0 + rate * time / 60.0, target)
        pv = model.thermocouple_kelvin - 273.15
        output = controller.step(dt, setpoint, pv)
        for key, value in (
            ("t", time),
            ("sp", setpoint),
            ("pv", pv),
            ("sample", model.crucible_kelvin - 273.15),
            ("u", output),
        ):
            record[key].append(value)
        model.step(dt, output, SAMPLE)
    return record


def test_furnace_equals_matrix_exponential_when_radiation_is_off() -> None:
    """Without radiation, extrapolated steps are the exact linear solution to 1e-9."""
    parameters = FurnaceParameters(element_area_m2=0.0, crucible_emissivity=0.0)
    film = parameters.crucible_film_w_per_m2_k * parameters.crucible_area_m2
    power, duration = 900.0, 64.0
    # State: element, lining, insulation, crucible, sensor, and 1 for the constants.
    rates = np.zeros((6, 6))
    rates[0, 5] = power / 400
    rates[1, [1, 2, 3]] = [-(2.4 + film) / 7000, 2.4 / 7000, film / 7000]
    rates[2, [1, 2, 5]] = [2.4 / 15000, -4.3 / 15000, 1.9 * AMBIENT / 15000]
    rates[3, [1, 3]] = [film / SAMPLE, -film / SAMPLE]
    rates[4, [1, 4]] = [1 / 12, -1 / 12]
    start = np.array([500.0, 1100.0, 700.0, 400.0, 800.0])
    exact = (expm(rates * duration) @ np.append(start, 1.0))[:5]

    def solve(dt: float) -> Floats:
        model = FurnaceModel(parameters)
        (
            model.element_kelvin,
            model.lining_kelvin,
            model.insulation_kelvin,
            model.crucible_kelvin,
            model.thermocouple_kelvin,
        ) = start.tolist()
        for _ in range(round(duration / dt)):
            model.step(dt, power / 3000, SAMPLE, ambient_kelvin=AMBIENT)
        return temperatures(model)

    # The step's error has even powers of dt only; three levels leave dt^8.
    table = [solve(dt) for dt in (2.0, 1.0, 0.5, 0.25)]
    for order in (4.0, 16.0, 64.0):
        table = [
            (order * finer - coarser) / (order - 1.0)
            for coarser, finer in itertools.pairwise(table)
        ]

    np.testing.assert_allclose(table[0], exact, rtol=1e-9)


@settings(max_examples=30)
@given(
    dt=st.floats(0.1, 10.0),
    power=st.floats(0.0, 1.0),
    capacity=st.floats(0.0, 400.0),
    n_crucibles=st.integers(1, 8),
    is_door_open=st.booleans(),
)
def test_furnace_balances_heat_whatever_happens(
    dt: float, power: float, capacity: float, n_crucibles: int, is_door_open: bool
) -> None:
    """Heat in equals heat stored plus heat lost to 1e-6 of the heat in."""
    model = FurnaceModel(temperature_kelvin=AMBIENT)
    before = model.stored_heat(capacity)
    for index in range(300):
        model.step(
            dt,
            power if index < 200 else 0.0,
            capacity,
            n_crucibles=n_crucibles,
            ambient_kelvin=AMBIENT,
            is_door_open=is_door_open and index > 100,
        )

    change = model.stored_heat(capacity) - before
    assert change + model.heat_lost == pytest.approx(model.heat_in, rel=1e-6, abs=1e-3)


def test_furnace_balances_heat_over_a_whole_program() -> None:
    """The balance of heat closes to 1e-6 over heating, dwell and cooling."""
    model, controller = FurnaceModel(), PiController(0.02, 400.0)
    before = model.stored_heat(SAMPLE)
    for index in range(10_000):
        setpoint = min(23.0 + index / 3.0, 900.0) if index < 7000 else 0.0
        output = controller.step(2.0, setpoint, model.thermocouple_kelvin - 273.15)
        model.step(2.0, output, SAMPLE)

    change = model.stored_heat(SAMPLE) - before
    assert change + model.heat_lost == pytest.approx(model.heat_in, rel=1e-6)


def test_furnace_quarters_its_error_when_the_step_is_halved() -> None:
    """The method is of second order, radiation included."""

    def solve(dt: float) -> Floats:
        model = FurnaceModel(temperature_kelvin=AMBIENT)
        for _ in range(round(1600 / dt)):
            model.step(dt, 1.0, SAMPLE, ambient_kelvin=AMBIENT)
        return temperatures(model)

    exact = lsoda(np.full(5, AMBIENT), 1600.0, lambda _t: 3000.0)
    coarse, fine = (np.abs(solve(dt) - exact).max() for dt in (16.0, 8.0))

    assert coarse / fine == pytest.approx(4.0, rel=0.15)


def test_furnace_agrees_with_lsoda_when_under_program() -> None:
    """At dt 2 s every temperature of a ramp is within 0.3 K of an adaptive solver.

    The adaptive solver gets the digital controller's output, held over each step.
    """
    model, controller = FurnaceModel(), PiController(kp=0.02, ti=400.0)
    outputs: list[float] = []
    for index in range(2700):
        setpoint = min(23.0 + 10.0 * index * 2.0 / 60.0, 800.0)
        output = controller.step(2.0, setpoint, model.thermocouple_kelvin - 273.15)
        outputs.append(output)
        model.step(2.0, output, SAMPLE)
    times = np.arange(len(outputs)) * 2.0 + 1.0

    reference = lsoda(
        np.full(5, AMBIENT),
        5400.0,
        lambda t: 3000.0 * float(np.interp(t, times, outputs)),
    )

    np.testing.assert_allclose(temperatures(model), reference, atol=0.3)


def test_furnace_needs_about_75_minutes_to_1090_degc_at_full_power() -> None:
    """Full power from 23 degC takes 77 min +- 5 %, as LSODA finds too."""
    model, minutes = FurnaceModel(), 0.0
    while model.thermocouple_kelvin < 1090.0 + 273.15:
        model.step(2.0, 1.0, SAMPLE)
        minutes += 2.0 / 60.0

    reference = lsoda(np.full(5, AMBIENT), minutes * 60.0, lambda _t: 3000.0)
    assert minutes == pytest.approx(77.0, rel=0.05)
    assert reference[4] == pytest.approx(1090.0 + 273.15, abs=0.5)


def test_furnace_holds_1100_degc_with_1143_watts_after_8_hours() -> None:
    """The holding power of the parameter table comes out to 2 %."""
    record = run_program(10.0, 1100.0, 8 * 3600 + 6500, dt=4.0)

    assert 3000.0 * record["u"][-1] == pytest.approx(1143.0, rel=0.02)


def test_furnace_cools_as_tabulated_after_4_hours_at_1100_degc() -> None:
    """Natural cooling passes 900, 600, 200 and 100 degC when the table says."""
    model, controller = FurnaceModel(), PiController(0.02, 400.0)
    for index in range(int((6462 + 4 * 3600) / 4)):
        setpoint = min(23.0 + 10.0 * index * 4.0 / 60.0, 1100.0)
        output = controller.step(4.0, setpoint, model.thermocouple_kelvin - 273.15)
        model.step(4.0, output, SAMPLE)
    hours, passed = 0.0, []
    for limit in (900.0, 600.0, 200.0, 100.0):
        while model.lining_kelvin > limit + 273.15:
            model.step(4.0, 0.0, SAMPLE)
            hours += 4.0 / 3600.0
        passed.append(hours)

    assert passed == pytest.approx([0.5, 1.8, 6.1, 9.1], rel=0.05, abs=0.06)


@pytest.mark.parametrize(
    ("rate", "lag", "sample_lag", "overshoot"),
    [(2.0, 0.2, 1.8, 3.4), (5.0, 0.6, 4.6, 8.4), (10.0, 1.6, 9.4, 16.0)],
)
def test_furnace_lags_and_overshoots_as_tabulated_when_ramping_to_900_degc(
    rate: float, lag: float, sample_lag: float, overshoot: float
) -> None:
    """PV lag, sample lag and overshoot at the end of a ramp match the table."""
    end = 877.0 / rate * 60.0
    record = run_program(rate, 900.0, end + 3600.0)
    at_end = round(end / 2.0)

    assert record["sp"][at_end] - record["pv"][at_end] == pytest.approx(lag, abs=0.2)
    assert record["pv"][at_end] - record["sample"][at_end] == pytest.approx(
        sample_lag, abs=0.2
    )
    assert max(record["pv"]) - 900.0 == pytest.approx(overshoot, abs=0.4)


def test_furnace_falls_behind_when_asked_for_15_k_per_min() -> None:
    """A ramp beyond its power leaves the furnace 93 K behind at 1100 degC."""
    record = run_program(15.0, 1100.0, 1077.0 / 15.0 * 60.0 + 2.0)

    assert record["u"][-1] == 1.0
    assert record["sp"][-1] - record["pv"][-1] == pytest.approx(93.0, abs=3.0)


def test_furnace_crucible_node_follows_lining_when_chamber_is_empty() -> None:
    """Without a sample the crucible node is the lining."""
    model = FurnaceModel()
    for _ in range(500):
        model.step(2.0, 1.0)

    assert model.crucible_kelvin == model.lining_kelvin > 400.0


def test_furnace_loads_heat_no_slower_together_when_each_brings_its_area() -> None:
    """Four equal crucibles at once lag behind the lining as one alone does."""
    one, four = FurnaceModel(), FurnaceModel()
    for _ in range(600):
        one.step(2.0, 0.5, 60.0)
        four.step(2.0, 0.5, 240.0, n_crucibles=4)

    assert four.lining_kelvin - four.crucible_kelvin == pytest.approx(
        one.lining_kelvin - one.crucible_kelvin, rel=0.1
    )


def test_furnace_loses_more_heat_when_the_door_is_open() -> None:
    """Opening the hot door costs over a kilowatt."""
    shut = FurnaceModel(temperature_kelvin=1173.15)
    wide = FurnaceModel(temperature_kelvin=1173.15)
    for _ in range(60):
        shut.step(1.0, 0.0)
        wide.step(1.0, 0.0, is_door_open=True)

    assert wide.heat_lost - shut.heat_lost > 60 * 1000.0
    assert wide.lining_kelvin < shut.lining_kelvin - 5.0


def test_furnace_mixes_temperatures_when_a_crucible_is_put_in() -> None:
    """Adding a cold crucible conserves the heat of the crucible node."""
    model = FurnaceModel(temperature_kelvin=1000.0)
    model.mix_in(300.0, 60.0, already_inside_j_per_k=60.0)

    assert model.crucible_kelvin == pytest.approx(650.0)

    model.mix_in(300.0, 60.0)
    assert model.crucible_kelvin == 300.0


@pytest.mark.parametrize("name", ["p_max_w", "lining_heat_capacity_j_per_k"])
def test_furnace_parameters_refuse_zero(name: str) -> None:
    """A constant that the equations divide by, or a furnace of 0 W, is refused."""
    with pytest.raises(ValueError, match=name):
        FurnaceParameters(**{name: 0.0})
