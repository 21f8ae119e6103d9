"""Opens a lab for a person at a prompt, in a script or in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.cell.pace import DEFAULT_PACE, Pace, Target
from ppu.core.labfile import load_lab
from ppu.core.labtime import stopwatch
from ppu.core.registry import find_lab
from ppu.plans.protocol import find_protocol
from ppu.twin.bench import Links

__all__ = ["InteractiveLab", "open_lab"]


class InteractiveLab(OpenLab):
    """An open lab that also runs protocols by name; made by :func:`open_lab`."""

    def run_protocol(
        self, name: str, out: str | Path, **parameters: Any
    ) -> dict[str, Any]:
        """Run a protocol by name, check it first, and return its result.

        Args:
            name: An installed protocol.
            out: Directory for result.json, report.html, documents.jsonl and the rest.
            parameters: Parameters of the protocol; the others keep their defaults.

        Raises:
            ConfigurationError: If something asked is wrong; nothing moved.
            LimitError: If the lab does not allow it; nothing moved.
            PPUError: What went wrong; every device is in its abort state.
        """
        execution = Execution(self, find_protocol(name), parameters, Path(out))
        execution.check()
        return execution.run(stopwatch())


def open_lab(
    lab: str = "a-lab",
    target: Target = "twin",
    *,
    pace: Pace = DEFAULT_PACE,
    seed: int | None = None,
    only: tuple[str, ...] = (),
    attended: bool = False,
    links: Links = "kernel",
) -> InteractiveLab:
    """Open a lab; use it in a ``with`` statement.

    Args:
        lab: A bundled lab or the path of a lab file.
        target: ``twin`` for simulated instruments, ``hardware`` for real ones.
        pace: Lab seconds per wall second, None to jump; by default a twin jumps and
            hardware runs at the wall's pace (or its simulated bench's).
        seed: Seed of the twin; by default the lab file's.
        only: Devices to connect; by default all.
        attended: Whether somebody stays beside hardware that heats; without it such
            hardware can be read, but no plan runs.
        links: What carries bytes to a twin: ``kernel`` for pseudo-terminals and
            loopback ports, or ``memory``, which is the same in every run.

    Example:
        >>> with open_lab("a-lab", only=("balance",)) as lab:
        ...     reading = lab.read("balance", "present_mass")
        >>> reading["quality"]
        'good'
    """
    path = find_lab(lab)
    file = load_lab(path)
    return InteractiveLab(
        file,
        path,
        target=target,
        pace=pace,
        seed=seed,
        only=only,
        attended=attended,
        links=links,
    )
