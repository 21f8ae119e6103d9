"""How fast lab time goes: the loop that fits a lab and its target."""

from __future__ import annotations

from typing import Final, Literal

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu.core.remedies import Remedy, advise

__all__ = ["DEFAULT_PACE", "Pace", "Target", "make_loop"]

Target = Literal["twin", "hardware"]
"""Where plans run: on simulated instruments of this process, or on what is there."""

Pace = float | Literal["default"] | None
"""Lab seconds per wall second, None to jump."""

DEFAULT_PACE: Final = "default"
"""A twin jumps; hardware has the wall's pace, or that of its simulated bench."""


def make_loop(file: LabFile, target: Target, pace: Pace = DEFAULT_PACE) -> LabTimeLoop:
    """Return the loop for *target*.

    Raises:
        ConfigurationError: If hardware is asked to run at another pace than its own.
    """
    bench = file.simulated_bench
    own_pace = 1.0 if bench is None else bench.pace
    if target == "twin":
        return LabTimeLoop(None if pace == DEFAULT_PACE else pace)
    if pace not in (DEFAULT_PACE, own_pace):
        asked = "jump" if pace is None else f"{pace:g}"
        if bench is None:
            raise ConfigurationError(
                f"pace {asked}: real instruments run at pace 1; any other needs the "
                "lab file that a simulated bench writes",
                advice=[advise(Remedy.WRITE_BENCH)],
            )
        raise ConfigurationError(
            f"pace {asked}: the simulated bench of this lab file runs at pace "
            f"{bench.pace:g}"
        )
    if bench is None:
        return LabTimeLoop(1.0)
    return LabTimeLoop.shared(bench.pace, bench.epoch)
