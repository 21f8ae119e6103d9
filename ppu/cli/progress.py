"""Progress of a run, told on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppu.cell.lab import OpenLab
from ppu.core.capabilities import Furnace
from ppu.core.labtime import duration
from ppu.core.notices import tell
from ppu.plans.steps import StepRecord

__all__ = ["Progress"]

_QUIET_WALL_S = 0.5


class Progress:
    """Tells steps as they begin and end, and how hot it is in between.

    Args:
        lab: The lab in which a plan is about to run.
    """

    def __init__(self, lab: OpenLab) -> None:
        self._host = lab.host
        self._hot = {furnace.temperature_key for furnace in lab.view().every(Furnace)}
        self._token: int | None = None
        self._told_at_wall_s = 0.0
        self._step: StepRecord | None = None

    def start(self) -> None:
        """Begin to tell."""
        self._host.on_step = self._tell_step
        self._token = self._host.subscribe(self._tell_document)

    def stop(self) -> None:
        """Stop telling."""
        self._host.on_step = None
        if self._token is not None:
            self._host.unsubscribe(self._token)
            self._token = None

    def _now(self) -> str:
        elapsed = self._host.loop.time() - self._host.timing.first_lab_s
        return f"[{duration(elapsed):>9}]"

    def _tell_step(self, step: StepRecord) -> None:
        if step.ended_s is not None:
            self._step = None
            return
        self._step = step
        end = ""
        if step.expected_s is not None:
            end = f", about {duration(step.expected_s)}"
        tell(f"{self._now()} {step.label}{end}")

    def _tell_document(self, name: str, document: Mapping[str, Any]) -> None:
        if name != "event_page":
            return
        wall = self._host.loop.wall_time()
        if wall - self._told_at_wall_s < _QUIET_WALL_S:
            return
        for key, values in document["data"].items():
            if key not in self._hot or not values:
                continue
            self._told_at_wall_s = wall
            step, left = self._step, ""
            if step is not None and step.expected_s is not None:
                remaining = step.begun_s + step.expected_s - self._host.loop.time()
                left = f", about {duration(max(remaining, 0.0))} left"
            tell(f"{self._now()}   {values[-1]:.0f} degC{left}")
