"""The course of one firing: what is prepared, how it goes, what is recorded of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean

from ppu.core.capabilities import FiringProfile, FiringRecord
from ppu.devices.firing._samples import Sample
from ppu.devices.firing._watch import FiringWatch

__all__ = ["Course", "Prepared"]


@dataclass(frozen=True)
class Prepared:
    """What the next kickoff is for."""

    profile: FiringProfile
    earlier: list[tuple[float, Sample]] | None = None
    """Samples of before, with their UTC stamps, of a program that is under way; None
    if it shall be started."""

    @property
    def is_under_way(self) -> bool:
        """Whether nothing must be started any more."""
        return self.earlier is not None


@dataclass
class Course:
    """How a firing went so far.

    Args:
        watch: Judges the samples.
        cool_to_degc: When it is complete.
        started: Lab time of the start [s].
    """

    watch: FiringWatch
    cool_to_degc: float
    started: float
    _last: float = 0.0
    _hottest: float = -math.inf
    _at_top: list[float] = field(default_factory=list)
    _n_samples: int = 0
    is_complete: bool = False
    """Whether it has ended and cooled."""

    def judge(self, lab_time: float, sample: Sample) -> str | None:
        """Take one sample; return why the firing must not go on, if it must not."""
        self._last = lab_time
        self._n_samples += 1
        self._hottest = max(self._hottest, sample.temperature)
        if sample.is_running and self.watch.is_at_top(sample):
            self._at_top.append(sample.temperature)
        fault = self.watch.judge(lab_time, sample)
        has_cooled = sample.temperature <= self.cool_to_degc
        self.is_complete = fault is None and self.watch.has_ended and has_cooled
        return fault

    def record(self, epoch: float) -> FiringRecord:
        """Return what was measured; *epoch* is the stamp of lab time 0."""
        return FiringRecord(
            started_s=epoch + self.started,
            duration_s=self._last - self.started,
            max_temperature_degc=self._hottest,
            dwell_temperature_degc=(
                fmean(self._at_top)
                if self._at_top and self.watch.is_top_measured
                else None
            ),
            dwell_s=tuple(self.watch.measured_s),
            unheard_s=tuple(self.watch.unheard_s),
            n_samples=self._n_samples,
        )
