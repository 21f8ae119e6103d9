"""The watch of a flow: is it as asked, by its latest frame, and what was seen?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ppu.core.capabilities import GasRequest
from ppu_drivers.alicat_mfc._codec import (
    REFUSED_STATES,
    UNTRUE_STATES,
    Frame,
    house_name,
)
from ppu_drivers.alicat_mfc._settings import AlicatMfcSettings

__all__ = ["FlowRecord", "FlowWatch", "allowed_deviation"]


@dataclass(frozen=True)
class FlowRecord:
    """What a completed watch saw."""

    gas: str
    asked_ml_per_min: float
    mean_ml_per_min: float
    min_ml_per_min: float
    max_ml_per_min: float
    n_samples: int

    @classmethod
    def of(cls, request: GasRequest, flows: Sequence[float]) -> FlowRecord:
        """Return the record of *flows* [mL/min] while *request* was asked for."""
        return cls(
            gas=request.gas,
            asked_ml_per_min=request.flow_ml_per_min,
            mean_ml_per_min=fmean(flows),
            min_ml_per_min=min(flows),
            max_ml_per_min=max(flows),
            n_samples=len(flows),
        )


def allowed_deviation(
    settings: AlicatMfcSettings, asked: float, percent: float
) -> float:
    """Return how far the flow may be from *asked* [mL/min]."""
    # The sensor's own error is a part of its range, however little flows.
    return max(asked * percent / 100, 0.005 * settings.full_scale_ml_per_min)


class FlowWatch:
    """Judges each data frame while gas flows.

    Args:
        request: What was asked for.
        settings: What is known of the controller.
        ml_per_min: The instrument's unit of flow [mL/min].
    """

    def __init__(
        self, request: GasRequest, settings: AlicatMfcSettings, ml_per_min: float
    ) -> None:
        self._request = request
        self._settings = settings
        self._ml_per_min = ml_per_min

    def fault_in(self, frame: Frame, moment: str) -> str | None:
        """Return why *frame*, read at *moment*, is not as asked, if it is not."""
        request, settings = self._request, self._settings
        asked = request.flow_ml_per_min
        said = f" ({frame.states})" if frame.status else ""
        step = self._ml_per_min * 10**-frame.decimals
        if abs(frame.setpoint_ml_per_min - asked) > 0.5 * step + 1e-9:
            return (
                f"the setpoint was {frame.setpoint_ml_per_min:g} mL/min at {moment}, "
                f"asked were {asked:g}; somebody changed it{said}"
            )
        if house_name(frame.gas) != request.gas:
            return (
                f"it was set to {frame.gas} at {moment}, asked was {request.gas}; "
                f"somebody changed it{said}"
            )
        off = frame.flow_ml_per_min - asked
        if abs(off) > allowed_deviation(
            settings, asked, settings.max_deviation_percent
        ):
            if off > 0:
                return (
                    f"the flow rose to {frame.flow_ml_per_min:.4g} of {asked:g} mL/min "
                    f"at {moment}{said}"
                )
            return (
                f"the flow fell to {frame.flow_ml_per_min:.4g} of {asked:g} mL/min of "
                f"{request.gas} at {moment}, at {frame.pressure_bar:.3g} bar{said}: is "
                "the bottle empty?"
            )
        refused = frame.status & (REFUSED_STATES | UNTRUE_STATES)
        if refused:
            return f"the flow could not be relied upon at {moment}{said}"
        return None
