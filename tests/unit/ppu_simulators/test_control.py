"""The PI controller: proportional, integral, clipping, anti-windup."""

import pytest

from ppu_simulators.physics.control import PiController


def test_pi_controller_adds_kp_error_per_ti_when_unclipped() -> None:
    """In the linear range the output is kp (e + integral of e / ti)."""
    controller = PiController(kp=0.01, ti=100.0)
    outputs = [controller.step(2.0, 105.0, 100.0) for _ in range(51)]

    assert outputs[0] == pytest.approx(0.05)
    assert outputs[-1] == pytest.approx(0.05 + 0.05 * 50 * 2.0 / 100.0)


def test_pi_controller_keeps_output_within_limits_when_error_is_large() -> None:
    """The output never leaves its limits, wherever they are set."""
    controller = PiController(kp=1.0, ti=100.0, low=0.1, high=0.6)

    assert controller.step(1.0, 1000.0, 0.0) == 0.6
    assert controller.step(1.0, 0.0, 1000.0) == 0.1


def test_pi_controller_leaves_saturation_at_once_when_error_changes_sign() -> None:
    """Hours at the limit wind up no integral that must be worked off later."""
    controller = PiController(kp=0.02, ti=400.0)
    for _ in range(20_000):
        controller.step(1.0, 1000.0, 500.0)

    assert controller.step(1.0, 1000.0, 1000.5) < 1.0


def test_pi_controller_starts_at_given_output_when_reset() -> None:
    """After a reset a zero error gives the output asked for."""
    controller = PiController(kp=0.02, ti=400.0)
    controller.reset(0.3)

    assert controller.step(1.0, 500.0, 500.0) == 0.3


@pytest.mark.parametrize(
    ("kp", "ti", "low", "high"),
    [(0.0, 1.0, 0.0, 1.0), (1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)],
)
def test_pi_controller_refuses_senseless_settings(
    kp: float, ti: float, low: float, high: float
) -> None:
    """Non-positive gains and an empty output range are refused."""
    with pytest.raises(ValueError, match="must be"):
        PiController(kp, ti, low, high)
