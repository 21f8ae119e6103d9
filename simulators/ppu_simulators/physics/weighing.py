"""Balance: what a weighing cell shows after its load changed.

The cell answers a change of load with a damped oscillation, drifts slowly and has
repeatability noise; the display samples it on a fixed grid. Noise belongs to a
display period, not to a question, so asking more often changes no reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LoadStatus = Literal["ok", "overload", "underload"]


@dataclass(frozen=True)
class BalanceParameters:
    """Constants of one balance (defaults: analytical, 220 g, 0.1 mg).

    Attributes:
        capacity_g: Largest load.
        resolution_g: Last displayed digit d.
        repeatability_g: Standard deviation of the noise of one display period.
        drift_g: Amplitude of the slow drift of zero.
        settling_s: Time constant of the oscillation after a change of load.
        oscillation_hz: Its frequency.
        display_period_s: Time between display values.
        stability_window_s: Span of display values that have to agree.
        stability_digits: Largest peak-to-peak spread over it, in digits.
        lowest_g: Load below which the pan counts as missing.
    """

    capacity_g: float = 220.0
    resolution_g: float = 1e-4
    repeatability_g: float = 3e-5
    drift_g: float = 1e-4
    settling_s: float = 0.5
    oscillation_hz: float = 2.0
    display_period_s: float = 0.1
    stability_window_s: float = 1.0
    stability_digits: float = 2.0
    lowest_g: float = -20.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "lowest_g" and not value > 0.0:
                raise ValueError(f"{name} must be positive, not {value!r}")


@dataclass
class LoadHistory:
    """What lay on the pan since when; time runs forward.

    Attributes:
        initial_g: Load before the first recorded step.
    """

    initial_g: float = 0.0
    _steps: list[tuple[float, float]] = field(default_factory=list, repr=False)

    def set_load(self, time: float, mass_g: float) -> None:
        """Record that the load is *mass_g* from *time* on.

        Raises:
            ValueError: If *time* lies before the last step.
        """
        if self._steps and time < self._steps[-1][0]:
            raise ValueError("load steps must be recorded in order of time")
        if mass_g != self.load_g:
            self._steps.append((time, mass_g))
        # Steps long ago have died out; only the last few can still be felt.
        if len(self._steps) > 64:
            self.initial_g = self._steps[-33][1]
            del self._steps[:-32]

    @property
    def load_g(self) -> float:
        """The load after the last step."""
        return self._steps[-1][1] if self._steps else self.initial_g

    @property
    def steps(self) -> Sequence[tuple[float, float]]:
        """The recorded steps (time, load after it)."""
        return tuple(self._steps)

    def largest_step_g(self, start: float, end: float) -> float:
        """Return the largest change of load in ``start < time <= end``."""
        largest, before = 0.0, self.initial_g
        for when, mass in self._steps:
            if start < when <= end:
                largest = max(largest, abs(mass - before))
            before = mass
        return largest

    def felt_g(self, time: float, parameters: BalanceParameters) -> float:
        """Return the load as the oscillating cell feels it at *time*."""
        omega = 2.0 * math.pi * parameters.oscillation_hz
        felt = before = self.initial_g
        for when, mass in self._steps:
            if when > time:
                break
            age = time - when
            ringing = math.exp(-age / parameters.settling_s) * math.cos(omega * age)
            felt += (mass - before) * (1.0 - ringing)
            before = mass
        return felt


@dataclass(frozen=True)
class Reading:
    """One value of the display.

    Attributes:
        value_g: Displayed mass, a multiple of the resolution.
        is_stable: Whether the values of the window agree.
        status: ``ok``, or which end of the range was passed.
    """

    value_g: float
    is_stable: bool
    status: LoadStatus


_NOISE_BLOCK: Final = 256


class BalanceModel:
    """Weighing cell and display of one balance.

    Args:
        parameters: Constants of the balance.
        rng: Stream of this balance; used once, to key the noise of every period.
    """

    def __init__(self, parameters: BalanceParameters, rng: np.random.Generator) -> None:
        self.parameters = parameters
        self._key = int(rng.integers(2**63))
        self._phases = rng.uniform(0.0, 2.0 * math.pi, size=2).tolist()
        self._blocks: dict[int, list[float]] = {}

    def _noise_g(self, index: int) -> float:
        block_index, position = divmod(index, _NOISE_BLOCK)
        block = self._blocks.get(block_index)
        if block is None:
            if len(self._blocks) >= 4:
                self._blocks.pop(min(self._blocks))
            seed = np.random.SeedSequence([self._key, block_index])
            block = np.random.default_rng(seed).standard_normal(_NOISE_BLOCK).tolist()
            self._blocks[block_index] = block
        return self.parameters.repeatability_g * block[position]

    def _drift_g(self, time: float) -> float:
        # Two incommensurate periods, those of a room's heating and of a day's quarter.
        first = math.sin(2.0 * math.pi * time / 2700.0 + self._phases[0])
        second = math.sin(2.0 * math.pi * time / 21000.0 + self._phases[1])
        return 0.5 * self.parameters.drift_g * (first + second)

    def _displayed_g(self, history: LoadHistory, index: int) -> float:
        p = self.parameters
        time = index * p.display_period_s
        value = history.felt_g(time, p) + self._drift_g(time) + self._noise_g(index)
        digits = round(value / p.resolution_g)
        per_gram = round(1.0 / p.resolution_g)
        if math.isclose(per_gram * p.resolution_g, 1.0, rel_tol=1e-12):
            # The nearest float to the decimal shown; digits * d leaves a tail.
            return digits / per_gram
        return digits * p.resolution_g

    def reading(self, history: LoadHistory, time: float) -> Reading:
        """Return what the display shows at lab time *time* >= 0 [s].

        Raises:
            ValueError: If *time* is negative.
        """
        if time < 0:
            raise ValueError("time must be >= 0")
        return self._reading_at(history, self._index(time), time)

    def _index(self, time: float) -> int:
        # A time that is a whole number of periods up to rounding is that period.
        return math.floor(time / self.parameters.display_period_s + 1e-6)

    def _reading_at(self, history: LoadHistory, index: int, time: float) -> Reading:
        p = self.parameters
        value = self._displayed_g(history, index)
        n_window = max(1, round(p.stability_window_s / p.display_period_s))
        low = high = value
        limit = (p.stability_digits + 0.5) * p.resolution_g
        # The display has yet to show a load put on this instant; it must not call
        # the old value stable.
        is_stable = history.largest_step_g(time - p.stability_window_s, time) <= limit
        for earlier in range(index - 1, max(index - n_window, 0) - 1, -1):
            other = self._displayed_g(history, earlier)
            low, high = min(low, other), max(high, other)
            if high - low > limit:
                is_stable = False
                break
        status: LoadStatus = "ok"
        if value > p.capacity_g + 9.0 * p.resolution_g:
            status = "overload"
        elif value < p.lowest_g:
            status = "underload"
        return Reading(value, is_stable, status)

    def next_stable_time(
        self, history: LoadHistory, time: float, timeout: float
    ) -> float | None:
        """Return when the display is next stable if nothing touches the pan.

        Args:
            history: Load so far.
            time: Lab time to look from [s].
            timeout: How far to look [s].

        Returns:
            A lab time in ``time .. time + timeout``, or None if it stays unstable.
        """
        period = self.parameters.display_period_s
        for index in range(self._index(time), self._index(time + timeout) + 1):
            moment = max(time, index * period)
            if self._reading_at(history, index, moment).is_stable:
                return moment
        return None
