"""What a furnace's readings say about its element, its relay and its thermocouple.

No model of the furnace is needed, only what holds for every one: without power it
does not get hotter than the heat already in its element allows, it loses no more heat
than it lately took up, and more power never heats less.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = ["HeatingWatch"]

_SPACING_S: Final = 10.0
_WINDOW_S: Final = 60.0
_N_KEPT: Final = 64
_MINUTE: Final = 60.0

_NO_POWER: Final = 0.005  # outputs have one decimal of a percent
_BELOW_FREEZING_DEGC: Final = -5.0
_COLD_START_DEGC: Final = 60.0
_FROZEN_S: Final = 300.0
_N_FROZEN: Final = 15
_N_SAME: Final = 6  # readings that are the same while something should move
_LOSS_MEMORY_S: Final = 1800.0
_CALIBRATION_S: Final = 600.0
_COAST_S: Final = 1800.0
_EXCESS_FALL: Final = 4.5  # degC/min
_NOT_FOLLOWING_K: Final = 3.0
_LAGS_K: Final = 5.0
_RISE_K: Final = 1.5
_ABRUPT: Final = 0.8
_HOLDS_DEGC_PER_MIN: Final = 0.3
_WARM_DEGC: Final = 100.0
_NO_EFFECT_S: Final = 240.0  # at full power

_ELEMENT_OPEN: Final = "the heating element or its supply is open"
_SLIPPED: Final = "the thermocouple has slipped out of the hot zone"
_REVERSED: Final = "the thermocouple is reversed"
_WELDED: Final = "the relay is welded"
_FROZEN: Final = "the sensor is frozen"


class _Point(NamedTuple):
    """One reading; times in seconds, output 0..1."""

    time: float
    reading: float
    setpoint: float
    output: float


class HeatingWatch:
    """Finds out whether heat, power and reading still belong together.

    Each reading is compared with those of the last minutes:

    - *sensor frozen*: the same to the last digit for 5 min and 15 readings although
      the output or the program moved, or the furnace should be cooling. In steps
      coarser than 0.1 K noise does not show: then 15 min, and the output tells nothing.
    - *thermocouple reversed*: below freezing, or 3 K below where a cold firing began.
    - *thermocouple slipped*: falls faster than the furnace can lose heat, which is
      what it took up at most within the last half hour: output times heating rate at
      full power, less the rise that was seen. Falling behind the program abruptly,
      faster than an element can cool, is the same.
    - *element open*: no rise of 1.5 K from 240 s worth of full power while the program
      asks for more, or ever less rise from ever more power, without what marks a slip.
    - *relay welded*: rises without power more than the heat in the element explains.

    A junction that slipped before the firing began and reads too little all the time
    shows none of this; only a second sensor can tell.

    Args:
        period_s: Time between two readings [s].
        full_power_degc_per_min: How fast the furnace gets hotter at full power, cold
            and empty. It only has to be roughly right, and rather too high.
        resolution_k: In which steps the controller tells temperatures.
    """

    def __init__(
        self,
        period_s: float,
        full_power_degc_per_min: float,
        resolution_k: float = 0.1,
    ) -> None:
        self._is_coarse = resolution_k > 0.1
        self._spacing_s = max(period_s, _SPACING_S)
        self._n_window = max(round(_WINDOW_S / self._spacing_s), 2)
        self._n_calibration = max(
            round(_CALIBRATION_S / self._spacing_s), 4 * self._n_window
        )
        self._heating = full_power_degc_per_min
        self._points: list[_Point] = []
        # Columns of the same, which are quicker to add up.
        self._times: list[float] = []
        self._readings: list[float] = []
        self._powers: list[float] = []
        self._began_at: float | None = None
        """First reading of a firing that began cold."""
        self._loss = 0.0
        """The most heat it lately lost, as the fall without power [degC/min]."""
        self._loss_kept = math.exp(-self._spacing_s / _LOSS_MEMORY_S)
        self._n_falling = 0
        # Since when, and from which reading on, it has had no power.
        self._off_since: float | None = None
        self._coldest = math.inf
        self._coast_k = 0.0
        # What was last reached, and the power spent since then.
        self._reached = -math.inf
        self._spent_s = 0.0
        # The same reading, since when, how often, and what moved meanwhile.
        self._same: _Point | None = None
        self._n_same = 0
        self._outputs = (0.0, 0.0)
        self._setpoints = (0.0, 0.0)

    def judge(
        self,
        time: float,
        reading: float,
        setpoint: float,
        output_percent: float,
        *,
        is_cooling: bool,
    ) -> str | None:
        """Take one reading; return what is wrong, if anything is.

        Args:
            time: Lab time [s].
            reading: What the controller reads [degC].
            setpoint: Its working setpoint [degC].
            output_percent: Its working output.
            is_cooling: Whether the program has ended, so that nothing heats.
        """
        point = _Point(time, reading, setpoint, max(output_percent, 0.0) / 100)
        found = self._find_frozen(point, is_cooling=is_cooling)
        times = self._times
        if times and time - times[-1] < self._spacing_s - 0.5:
            return found
        if times and time - times[-1] > 3 * self._spacing_s:
            self.forget_readings()
        if not times and self._began_at is None:
            self._began_at = reading if reading < _COLD_START_DEGC else math.nan
        self._keep(point)
        self._count_power(point)
        if found is None:
            found = self._find_reversed(point)
        if found is None and len(times) > 3 * self._n_window:
            self._learn()
            found = self._find_fall(is_cooling=is_cooling)
            if found is None:
                found = self._find_coast(point)
            if found is None and not is_cooling:
                found = self._find_response(point)
        return found

    def explain_deviation(self) -> str:
        """Return why the reading is far off its setpoint, nothing if nobody knows."""
        if len(self._points) <= 3 * self._n_window:
            return ""
        point = self._points[-1]
        if self._n_same >= _N_SAME:
            return f"; it does not move at all: {_FROZEN}"
        if point.reading < point.setpoint:
            return f"; {self._name_weakness()}"
        if self._slope(0, self._n_window) > 0 and point.output < 0.1:
            return f"; it rises at {point.output:.0%} power: {_WELDED}"
        return ""

    # -- what is kept ----------------------------------------------------------------

    def _keep(self, point: _Point) -> None:
        self._points.append(point)
        self._times.append(point.time)
        self._readings.append(point.reading)
        self._powers.append(point.output)
        if len(self._points) > 2 * _N_KEPT:
            for column in (self._points, self._times, self._readings, self._powers):
                del column[:_N_KEPT]

    def forget_readings(self) -> None:
        """Begin anew after a silence: what happened meanwhile is not known."""
        for column in (self._points, self._times, self._readings, self._powers):
            column.clear()
        self._off_since = None
        self._reached = -math.inf
        self._spent_s = 0.0

    def _count_power(self, point: _Point) -> None:
        """Add up the power since the reading last rose, and the time without any."""
        times = self._times
        if point.output > _NO_POWER:
            self._off_since = None
        elif self._off_since is None:
            self._off_since = point.time
            self._coldest = point.reading
            n_window = min(self._n_window, len(times) - 1)
            self._coast_k = max(self._slope(0, n_window), 0.0) if n_window > 1 else 0.0
        else:
            self._coldest = min(self._coldest, self._recent(3))
        if point.reading > self._reached + _RISE_K or (
            point.reading > point.setpoint - _NOT_FOLLOWING_K
        ):
            self._reached = point.reading
            self._spent_s = 0.0
        elif len(times) > 1:
            self._spent_s += point.output * (point.time - times[-2])

    def _learn(self) -> None:
        """Keep the fastest heating and the greatest loss of heat that were seen."""
        n_calibration = self._n_calibration
        # Not at every reading: it is a sum over ten minutes.
        if len(self._times) > n_calibration and len(self._times) % 6 == 0:
            rise = self._readings[-1] - self._readings[-1 - n_calibration]
            if rise > 0:
                span_s = self._times[-1] - self._times[-1 - n_calibration]
                spent_s = self._mean_output(0, n_calibration) * span_s
                if spent_s > 0.05 * span_s:
                    self._heating = max(self._heating, rise / spent_s * _MINUTE)
        n_window = self._n_window
        loss = self._mean_output(n_window, 3 * n_window) * self._heating
        loss -= self._slope(n_window, 3 * n_window)
        self._loss = max(self._loss * self._loss_kept, loss)

    def _slope(self, after: int, before: int) -> float:
        """Return the mean rise between two points, counted backwards [degC/min]."""
        n_mean = max(min(3, (before - after) // 2), 1)
        late = len(self._times) - after
        early = len(self._times) - 1 - before
        rise = sum(self._readings[late - n_mean : late])
        rise -= sum(self._readings[early : early + n_mean])
        passed = sum(self._times[late - n_mean : late])
        passed -= sum(self._times[early : early + n_mean])
        return rise / passed * _MINUTE

    def _mean_output(self, after: int, before: int) -> float:
        """Return the mean output between two points, counted backwards, 0..1."""
        end = len(self._powers) - after
        return sum(self._powers[end - 1 - before + after : end]) / (before - after + 1)

    def _recent(self, n_points: int) -> float:
        """Return the mean of the last readings [degC]."""
        late = self._readings[-n_points:]
        return sum(late) / len(late)

    # -- what is wrong ---------------------------------------------------------------

    def _find_frozen(self, point: _Point, *, is_cooling: bool) -> str | None:
        same = self._same
        if same is None or point.reading != same.reading:
            self._same, self._n_same = point, 1
            self._outputs = (point.output, point.output)
            self._setpoints = (point.setpoint, point.setpoint)
            return None
        self._n_same += 1
        low, high = self._outputs
        self._outputs = (min(low, point.output), max(high, point.output))
        low, high = self._setpoints
        self._setpoints = (min(low, point.setpoint), max(high, point.setpoint))
        lasted_s = point.time - same.time
        longest_s = 3 * _FROZEN_S if self._is_coarse else _FROZEN_S
        if self._n_same < _N_FROZEN or lasted_s < longest_s:
            return None
        most_power = self._outputs[1] - self._outputs[0]
        has_moved = (
            (most_power > _NO_POWER and not self._is_coarse)
            or self._setpoints[1] - self._setpoints[0] > (3.0 if self._is_coarse else 1)
            or (is_cooling and point.reading > _COLD_START_DEGC)
        )
        if not has_moved:
            return None
        return f"exactly {point.reading:.1f} degC for {lasted_s:.0f} s: {_FROZEN}"

    def _find_reversed(self, point: _Point) -> str | None:
        if point.reading < _BELOW_FREEZING_DEGC:
            return f"{point.reading:.1f} degC cannot be: {_REVERSED}"
        began_at = self._began_at
        if began_at is None or not self._recent(3) < began_at - 3.0:
            return None
        return (
            f"{point.reading:.1f} degC is less than the {began_at:.1f} degC from which "
            f"it is being heated: {_REVERSED}"
        )

    def _find_fall(self, *, is_cooling: bool) -> str | None:
        """Find a fall that is faster than any loss of heat."""
        fall = -self._slope(0, self._n_window)
        is_too_fast = fall > self._loss + _EXCESS_FALL
        self._n_falling = self._n_falling + 1 if is_too_fast else 0
        if self._n_falling < 2:
            return None
        while_ = "cools" if is_cooling else "is heated"
        return (
            f"the reading falls by {fall:.0f} degC/min, but the furnace, which "
            f"{while_}, loses {max(self._loss, 0.0):.0f} degC/min at most: {_SLIPPED}"
        )

    def _find_coast(self, point: _Point) -> str | None:
        """Find a rise without power that the heat in the element does not explain."""
        if self._off_since is None:
            return None
        off_s = point.time - self._off_since
        allowed = 3.0 + (10.0 + 4.0 * self._coast_k) * math.exp(-off_s / _COAST_S)
        risen = self._recent(2) - self._coldest
        if risen <= allowed:
            return None
        return (
            f"the reading has risen by {risen:.0f} K without power: {_WELDED}; cut "
            "the power at the wall, the controller cannot"
        )

    def _find_response(self, point: _Point) -> str | None:
        """Find power that does not heat."""
        off_by = point.reading - point.setpoint
        if self._spent_s > _NO_EFFECT_S:
            if self._n_same >= _N_SAME:
                return f"it does not move although it is being heated: {_FROZEN}"
            return (
                f"{point.reading:.1f} degC is {off_by:+.0f} K off its working setpoint "
                f"and does not rise at {point.output:.0%} power: "
                f"{self._name_weakness(has_settled=True)}"
            )
        # Early on it may still rise from heat that the element had before.
        if off_by >= -_LAGS_K or len(self._times) <= self._n_calibration:
            return None
        n_window = self._n_window
        more_power = self._mean_output(0, n_window) - self._mean_output(
            2 * n_window, 3 * n_window
        )
        more_rise = self._slope(0, 2 * n_window) - self._slope(n_window, 3 * n_window)
        if more_power > 0.1 and more_rise < -1.5 and self._is_calm():
            return (
                f"{point.reading:.1f} degC is {off_by:+.0f} K off its working setpoint "
                f"and rises less the more it is heated: {self._name_weakness()}"
            )
        return None

    def _is_calm(self) -> bool:
        """Return whether less power some minutes ago cannot be why it rises less now.

        A loop that hunts answers late: power and rise go up and down out of step.
        """
        n_kept = self._n_calibration
        lowest = min(self._powers[-n_kept:])
        return lowest > self._mean_output(3 * self._n_window, n_kept) - 0.1

    def _name_weakness(self, *, has_settled: bool = False) -> str:
        """Return why the reading stays behind its setpoint."""
        if self._n_same >= _N_SAME:
            return _FROZEN
        n_window = self._n_window
        reading = self._readings[-1]
        if self._began_at is not None and reading < self._began_at - _RISE_K:
            return f"less than it began with: {_REVERSED}"
        for after in range(min(len(self._points), _N_KEPT) - 2 * n_window):
            before = after + n_window
            change = self._slope(after, before)
            change -= self._slope(before, before + n_window)
            power = self._mean_output(before, before + n_window)
            if change < -_ABRUPT * power * self._heating - 1.0:
                return f"it fell behind within a minute: {_SLIPPED}"
        if reading < _WARM_DEGC:
            return f"{_ELEMENT_OPEN}, or {_SLIPPED}"  # neither cools by itself
        if has_settled and self._slope(0, n_window) > -_HOLDS_DEGC_PER_MIN:
            return f"it holds, but takes far too much power: {_SLIPPED}"
        return _ELEMENT_OPEN
