"""The watch of dwells: does each last as long as was asked?"""

from __future__ import annotations

import math

from ppu.core.capabilities import Segment

__all__ = ["DwellWatch", "setpoint_tolerance_k"]


def setpoint_tolerance_k(resolution_k: float) -> float:
    """Return how far a setpoint told in such steps may read from its target [K]."""
    return max(0.06, 0.6 * resolution_k)


class DwellWatch:
    """Compares each dwell with what was asked, whatever its registers' unit is.

    A dwell lasts from the sample at which the working setpoint reached the segment's
    target until the one at which it left it or the program ended. One of up to two
    sample periods may pass unseen; it counts as measured to be 0 s then. What
    happened while the controller could not be heard is not held against it, as far as
    there was time for it; a dwell that began or ended then counts as asked, as far as
    what was heard allows. How much of each was not heard is kept beside it.

    Args:
        segments: What was asked.
        period_s: Time between two samples [s].
        is_from_start: Whether the first sample is taken when the program starts;
            otherwise anything may have happened before.
        resolution_k: In which steps the controller tells temperatures.
    """

    def __init__(
        self,
        segments: tuple[Segment, ...],
        period_s: float,
        *,
        is_from_start: bool = True,
        resolution_k: float = 0.1,
    ) -> None:
        self.tolerance_k = setpoint_tolerance_k(resolution_k)
        """How far a setpoint may read from its target."""
        self._segments = segments
        self._period = period_s
        self._index = 0
        self._since: float | None = None
        self._nearest_k = math.inf
        self._last_setpoint = math.nan
        self._heard_at: float | None = None
        self._is_lost = not is_from_start
        """Whether nobody knows how far the program had come when it was first seen."""
        self._unheard_s = 0.0 if is_from_start else math.inf
        self._just_unheard_s = self._unheard_s
        self._is_coming = False
        """Whether the setpoint was seen on its way to the present target."""
        self._unheard_at_begin_s = 0.0
        """How long nobody had heard when the dwell was first seen."""
        self._spent_s = 0.0
        """How much of the last silence what must have happened in it takes."""
        self._heard_s = 0.0
        """How much of the present dwell was heard."""
        self.measured_s: list[float] = []
        self.unheard_s: list[float] = []
        """How much of each dwell nobody heard, in which anything may have happened."""

    def judge(self, lab_time: float, setpoint: float, is_running: bool) -> str | None:
        """Take one sample; return what is wrong, if anything is."""
        if self._heard_at is not None:
            missed_s = lab_time - self._heard_at - self._period
            # A sample that only comes late hides nothing.
            self._just_unheard_s = missed_s if missed_s > self._period / 2 else 0.0
            self._unheard_s += self._just_unheard_s
            if self._since is not None:
                self._heard_s += lab_time - self._heard_at - self._just_unheard_s
        self._heard_at = lab_time
        if self._just_unheard_s > 0 or self._unheard_s == 0:
            self._spent_s = 0.0
        seen = -1
        while seen < self._index < len(self._segments):
            # A sample that ends one segment may belong to the next.
            seen = self._index
            fault = self._follow_segment(lab_time, setpoint, is_running)
            if fault is not None:
                return fault
        while not is_running and self._index < len(self._segments):
            segment = self._segments[self._index]
            if not self._pass_unseen(segment):
                return f"the program ended before {segment.target_degc:g} degC"
        return None

    def _pass_unseen(self, segment: Segment) -> bool:
        """Return whether it can have begun and ended unseen, and go on if so."""
        ramp_s = max(self._nearest_k - 0.1, 0.0) / segment.ramp_degc_per_min * 60
        needs_s = 0.98 * (ramp_s + segment.dwell_s)  # no two clocks are the same
        if not self._is_lost:
            # One silence has room for all that must have happened in it, not for each.
            if self._spent_s + needs_s > 2 * self._period + self._unheard_s:
                return False
            self._spent_s += needs_s
        unheard_s = self._unheard_s
        lasted_s = segment.dwell_s if unheard_s > 0 else 0.0
        self._advance(lasted_s, segment.dwell_s)
        # Perhaps it shows only now what happened in a silence before.
        self._unheard_s = max(self._unheard_s, unheard_s)
        return True

    def _advance(self, lasted: float, unheard_s: float) -> None:
        self.measured_s.append(lasted)
        self.unheard_s.append(unheard_s)
        left_degc = self._segments[self._index].target_degc
        self._index += 1
        self._since = None
        self._is_coming = False
        if self._index < len(self._segments):
            self._nearest_k = abs(self._segments[self._index].target_degc - left_degc)
        # The next segment began while nobody heard, if anything did.
        self._unheard_s = math.inf if self._is_lost else self._just_unheard_s

    def _slack_s(self, segment: Segment) -> float:
        """Return how far a right dwell may be from what was asked [s]."""
        # A slow setpoint reads as its target before it is there and after it left.
        ramps = [s.ramp_degc_per_min for s in self._segments[self._index :][:2]]
        blur_s = sum(self.tolerance_k / rate * 60 for rate in ramps)
        return 2 * self._period + blur_s + 0.02 * segment.dwell_s

    def _follow_segment(
        self, lab_time: float, setpoint: float, is_running: bool
    ) -> str | None:
        segment = self._segments[self._index]
        is_there = is_running and abs(setpoint - segment.target_degc) < self.tolerance_k
        if self._since is None:
            if is_there:
                self._since = lab_time
                self._heard_s = 0.0
                self._unheard_at_begin_s = self._just_unheard_s
                if not self._is_coming:
                    self._unheard_at_begin_s = self._unheard_s
            elif is_running:
                return self._follow_approach(segment, setpoint)
            return None
        asked, slack = segment.dwell_s, self._slack_s(segment)
        most = lab_time - self._since + self._unheard_at_begin_s
        least = lab_time - self._since
        if not is_there:
            least -= self._just_unheard_s
        is_too_long = least > asked + slack
        if is_there and not is_too_long:
            return None
        lasted = min(max(asked, least), most)
        self._spent_s += max(asked - least - slack, 0.0)
        if self._unheard_at_begin_s <= 2 * self._period:
            self._is_lost = False  # it was seen from its begin to its end
        self._advance(lasted, max(lasted - self._heard_s, 0.0))
        if is_too_long or most < asked - slack:
            manner = "still dwells after" if is_there else "dwelt for"
            return (
                f"the controller {manner} {lasted:.0f} s at {segment.target_degc:g} "
                f"degC, asked were {asked:.0f} s; is dwell_unit right?"
            )
        return None

    def _follow_approach(self, segment: Segment, setpoint: float) -> str | None:
        """Follow the setpoint on its way to a target it was not seen at yet."""
        gap_k = abs(setpoint - segment.target_degc)
        has_turned = gap_k > self._nearest_k + self.tolerance_k
        stands_still = abs(gap_k - self._nearest_k) < self.tolerance_k
        # A silence may hide several segments.
        n_ahead = len(self._segments) if self._unheard_s > 0 else 1
        following = self._segments[self._index + 1 :][:n_ahead]
        dwells_at_next = stands_still and any(
            abs(setpoint - after.target_degc) < self.tolerance_k for after in following
        )
        if (has_turned or dwells_at_next) and self._pass_unseen(segment):
            return None
        if has_turned:
            target = segment.target_degc
            if (setpoint - target) * (self._last_setpoint - target) < 0:
                return (
                    f"the setpoint went past {target:g} degC; somebody changed the "
                    "program"
                )
            return f"the setpoint turned round before {target:g} degC"
        self._last_setpoint = setpoint
        self._is_coming = gap_k < self._nearest_k < math.inf
        self._nearest_k = min(self._nearest_k, gap_k)
        return None
