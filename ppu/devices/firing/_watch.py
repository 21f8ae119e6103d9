"""The watch of a firing: may it go on, by what its latest sample says?"""

from __future__ import annotations

from ppu.core.capabilities import FiringProfile
from ppu.core.tasks import is_measured
from ppu.devices.firing._dwells import DwellWatch
from ppu.devices.firing._heating import HeatingWatch
from ppu.devices.firing._samples import Sample
from ppu.devices.firing._settings import FiringSettings, is_over_limit

__all__ = ["FiringWatch"]


class FiringWatch:
    """Judges each sample of a firing: may it go on?

    Args:
        profile: What was asked.
        settings: What is known of the furnace.
        high_degc: The highest temperature that the lab allows.
        is_from_start: Whether the first sample is taken when the program starts.
        resolution_k: In which steps the controller tells temperatures.
    """

    def __init__(
        self,
        profile: FiringProfile,
        settings: FiringSettings,
        high_degc: float,
        *,
        is_from_start: bool = True,
        resolution_k: float = 0.1,
    ) -> None:
        self._settings = settings
        self._high = high_degc
        self._targets = [segment.target_degc for segment in profile.segments]
        self._highest_setpoint = max(self._targets)
        self._has_begun = False
        self._dwells = DwellWatch(
            profile.segments,
            settings.sample_period_s,
            is_from_start=is_from_start,
            resolution_k=resolution_k,
        )
        self._heating = HeatingWatch(
            settings.sample_period_s, settings.full_power_degc_per_min, resolution_k
        )
        self._ended_at: float | None = None

    def forget_readings(self) -> None:
        """Judge heat and power anew: there was a time without samples."""
        self._heating.forget_readings()

    @property
    def has_ended(self) -> bool:
        """Whether the program has run to its end."""
        return self._ended_at is not None

    def is_at_top(self, sample: Sample) -> bool:
        """Return whether the program dwells at its highest temperature."""
        return abs(sample.setpoint - self._highest_setpoint) < self._dwells.tolerance_k

    @property
    def measured_s(self) -> list[float]:
        """The dwells measured so far."""
        return self._dwells.measured_s

    @property
    def unheard_s(self) -> list[float]:
        """How much of each of them nobody heard."""
        return self._dwells.unheard_s

    @property
    def is_top_measured(self) -> bool:
        """Whether enough of every dwell at the highest target was heard."""
        dwells = zip(self._targets, self.measured_s, self.unheard_s, strict=False)
        top = max(self._targets)
        return all(
            is_measured(lasted, unheard)
            for target, lasted, unheard in dwells
            if target == top
        )

    def judge(self, lab_time: float, sample: Sample) -> str | None:
        """Take one sample; return why the firing must not go on, if it must not."""
        if sample.complaint:
            return sample.complaint
        if is_over_limit(sample.temperature, self._high):
            return f"{sample.temperature:.1f} degC is over the limit of {self._high:g}"
        if sample.is_held:
            return "the program is on hold; somebody held it at the controller"
        if not self._has_begun:
            # The program starts where the chamber is, which may still be hot.
            self._has_begun = True
            self._highest_setpoint = max(self._highest_setpoint, sample.temperature)
        if self._ended_at is not None:
            fault = self._judge_cooling(lab_time, sample, self._ended_at)
            return fault or self._judge_heat(lab_time, sample)
        if sample.is_running:
            fault = self._judge_program(sample) or self._judge_heat(lab_time, sample)
            if fault is not None:
                return fault
            deviation = sample.temperature - sample.setpoint
            if abs(deviation) > self._settings.max_deviation_k:
                return (
                    f"{sample.temperature:.1f} degC is {deviation:+.0f} K off its "
                    f"working setpoint{self._heating.explain_deviation()}"
                )
        else:
            self._ended_at = lab_time
        return self._dwells.judge(lab_time, sample.setpoint, sample.is_running)

    def _judge_heat(self, lab_time: float, sample: Sample) -> str | None:
        return self._heating.judge(
            lab_time,
            sample.temperature,
            sample.setpoint,
            sample.output,
            is_cooling=self._ended_at is not None,
        )

    def _judge_program(self, sample: Sample) -> str | None:
        if sample.setpoint > self._highest_setpoint + 1.0:
            return (
                f"the working setpoint is {sample.setpoint:.1f} degC, asked were at "
                f"most {self._highest_setpoint:g} degC; somebody changed the program"
            )
        return None

    def _judge_cooling(
        self, lab_time: float, sample: Sample, ended_at: float
    ) -> str | None:
        if not sample.is_reset:
            return f"a program is in state {sample.status} although this one has ended"
        cooled_s = lab_time - ended_at
        if cooled_s > self._settings.max_cooling_s:
            return f"still {sample.temperature:.0f} degC after {cooled_s:.0f} s"
        return None
