"""Balance: settling, noise, stability, range, independence from polling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_simulators.physics.weighing import (
    BalanceModel,
    BalanceParameters,
    LoadHistory,
)

QUIET = BalanceParameters(repeatability_g=1e-9, drift_g=1e-9)


def balance(parameters: BalanceParameters | None = None, seed: int = 1) -> BalanceModel:
    """Return a balance with its own stream."""
    return BalanceModel(parameters or BalanceParameters(), np.random.default_rng(seed))


def loaded(mass: float = 1.2345, time: float = 10.0) -> LoadHistory:
    """Return a history with one step from zero."""
    history = LoadHistory()
    history.set_load(time, mass)
    return history


def test_reading_is_the_true_mass_when_settled_and_quiet() -> None:
    """Without noise the settled display shows the load, rounded to a digit."""
    reading = balance(QUIET).reading(loaded(1.23456), 30.0)

    assert (reading.value_g, reading.is_stable, reading.status) == (1.2346, True, "ok")


@pytest.mark.parametrize(
    ("resolution", "shown"), [(1e-3, 1.235), (5e-4, 1.2345), (3e-4, 1.2345), (2.0, 2.0)]
)
def test_reading_is_a_multiple_of_the_resolution(
    resolution: float, shown: float
) -> None:
    """Any last digit is honoured, decimal or not."""
    parameters = BalanceParameters(
        resolution_g=resolution, repeatability_g=1e-9, drift_g=1e-9
    )

    assert balance(parameters).reading(loaded(1.23456), 30.0).value_g == pytest.approx(
        shown, abs=1e-12
    )


def test_cell_answers_a_step_with_a_damped_oscillation() -> None:
    """The cell starts at the old load, overshoots and settles at the new one."""
    history = loaded(1.0, time=0.0)
    parameters = BalanceParameters(settling_s=0.5, oscillation_hz=2.0)

    assert history.felt_g(0.0, parameters) == pytest.approx(0.0)
    assert history.felt_g(0.25, parameters) == pytest.approx(1.0 + np.exp(-0.5))
    assert history.felt_g(20.0, parameters) == pytest.approx(1.0, abs=1e-12)


def test_reading_before_a_step_does_not_know_of_it() -> None:
    """The past does not feel a load put on later."""
    assert balance(QUIET).reading(loaded(5.0, time=10.0), 9.95).value_g == 0.0


def test_balance_is_unstable_after_a_step_and_stable_later() -> None:
    """The display is unstable while the cell rings and stable some seconds later."""
    cell, history = balance(), loaded(50.0, time=10.0)
    stable = cell.next_stable_time(history, 10.0, timeout=60.0)

    assert not cell.reading(history, 10.0).is_stable
    assert not cell.reading(history, 10.5).is_stable
    assert stable is not None
    assert 13.0 < stable < 25.0
    assert cell.reading(history, stable).is_stable


def test_balance_never_settles_when_noise_exceeds_the_criterion() -> None:
    """Looking for stability gives up at the time-out."""
    shaky = balance(BalanceParameters(repeatability_g=5e-3))

    assert shaky.next_stable_time(loaded(), 10.0, timeout=5.0) is None


def test_repeated_weighings_scatter_by_the_repeatability() -> None:
    """Settled values scatter by noise and rounding, with no bias but the drift."""
    cell = balance(BalanceParameters(drift_g=1e-9))
    history = loaded(20.0, time=0.0)
    values = np.array(
        [cell.reading(history, 60.0 + 0.1 * i).value_g for i in range(2000)]
    )

    assert values.mean() == pytest.approx(20.0, abs=1e-5)
    assert values.std() == pytest.approx(np.hypot(3e-5, 1e-4 / np.sqrt(12)), rel=0.3)


def test_drift_stays_within_its_amplitude() -> None:
    """Over days the zero wanders, and never beyond the stated amplitude."""
    parameters = BalanceParameters(repeatability_g=1e-9, drift_g=5e-4)
    cell, history = balance(parameters), LoadHistory()
    values = [cell.reading(history, 900.0 * i).value_g for i in range(200)]

    assert max(np.abs(values)) <= 5e-4 + 1e-9
    assert max(values) - min(values) > 3e-4


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.0, 400.0), max_size=12), st.floats(20.0, 300.0), st.integers(0)
)
def test_reading_does_not_depend_on_polling(
    earlier: list[float], time: float, seed: int
) -> None:
    """Whatever was asked before, in any order, the reading at a time is the same."""
    polled, fresh = balance(seed=seed), balance(seed=seed)
    history = loaded()
    for other in earlier:
        polled.reading(history, other)

    assert polled.reading(history, time) == fresh.reading(history, time)


def test_reading_stays_the_same_within_one_display_period() -> None:
    """The display changes only once a period."""
    cell = balance(BalanceParameters(repeatability_g=1e-3))
    history = loaded()

    assert cell.reading(history, 20.0) == cell.reading(history, 20.09)
    assert len({cell.reading(history, 20.0 + 0.1 * i).value_g for i in range(20)}) > 5


def test_balance_repeats_itself_for_the_same_seed_only() -> None:
    """Same seed, same readings; another seed, others."""
    history = loaded()
    readings = [
        [balance(seed=seed).reading(history, 20.0 + i).value_g for i in range(50)]
        for seed in (1, 1, 2)
    ]

    assert readings[0] == readings[1] != readings[2]


@pytest.mark.parametrize(
    ("mass", "status"),
    [(220.0, "ok"), (220.01, "overload"), (-19.0, "ok"), (-25.0, "underload")],
)
def test_balance_reports_the_ends_of_its_range(mass: float, status: str) -> None:
    """More than capacity and nine digits is overload; a missing pan is underload."""
    assert balance(QUIET).reading(loaded(mass), 60.0).status == status


def test_history_forgets_old_steps_and_keeps_the_sum() -> None:
    """Hundreds of steps cost no memory and leave the load right."""
    history = LoadHistory(initial_g=3.0)
    for index in range(500):
        history.set_load(10.0 * index, float(index))

    assert len(history.steps) <= 64
    assert history.load_g == 499.0
    assert history.felt_g(6000.0, QUIET) == pytest.approx(499.0, abs=1e-9)


def test_history_ignores_a_step_of_nothing_and_refuses_going_back() -> None:
    """Setting the same load is no event; time runs forward."""
    history = loaded(1.0, time=10.0)
    history.set_load(20.0, 1.0)

    assert history.steps == ((10.0, 1.0),)
    with pytest.raises(ValueError, match="order"):
        history.set_load(5.0, 2.0)


def test_balance_refuses_negative_time_and_zero_resolution() -> None:
    """There is no display before time zero and no digit of zero."""
    with pytest.raises(ValueError, match="time"):
        balance().reading(LoadHistory(), -1.0)
    with pytest.raises(ValueError, match="resolution_g"):
        BalanceParameters(resolution_g=0.0)
