"""Digital PI controller, the firmware part of a temperature controller."""

from dataclasses import dataclass, field


@dataclass
class PiController:
    """PI controller with a clipped output and back-calculation anti-windup.

    The unclipped output is ``kp * e + I`` with ``dI/dt = kp * e / ti + (clipped -
    unclipped) / ti``: while the output is clipped the integral runs back towards
    the value at which the output would just leave the clip.

    Attributes:
        kp: Proportional gain [1/K]; must be > 0.
        ti: Integral time [s]; must be > 0.
        low: Smallest output.
        high: Largest output; an operator's power limit lowers it.
        integral: Present integral term, in units of the output.
    """

    kp: float
    ti: float
    low: float = 0.0
    high: float = 1.0
    integral: float = field(default=0.0)

    def __post_init__(self) -> None:
        if self.kp <= 0 or self.ti <= 0:
            raise ValueError("kp and ti must be positive")
        if not self.low < self.high:
            raise ValueError("low must be below high")

    def step(self, dt: float, setpoint: float, pv: float) -> float:
        """Return the output for the next *dt* and advance the integral.

        Args:
            dt: Time until the next call [s]; must be > 0 and below ``ti``.
            setpoint: Wanted value.
            pv: Measured value, same unit.
        """
        proportional = self.kp * (setpoint - pv)
        unclipped = proportional + self.integral
        output = min(max(unclipped, self.low), self.high)
        self.integral += dt / self.ti * (proportional + output - unclipped)
        return output

    def reset(self, output: float = 0.0) -> None:
        """Restart so that a zero error would give *output* (bumpless transfer)."""
        self.integral = min(max(output, self.low), self.high)
