"""Opens a lab for a person at a prompt, in a script or in a notebook."""

from __future__ import annotations

import atexit
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppu.cell.execution import Execution
from ppu.cell.lab import OpenLab
from ppu.cell.pace import DEFAULT_PACE, Pace, Target
from ppu.cell.several import run_several
from ppu.cell.twin_hands import TwinHands
from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    LimitError,
    NotFoundError,
    nearest,
)
from ppu.core.labfile import TechnicianEntry, load_lab
from ppu.core.labtime import stopwatch
from ppu.core.notices import tell
from ppu.core.registry import find_lab
from ppu.core.remedies import Advice, Remedy, advise
from ppu.plans.protocol import find_protocol
from ppu.store.jobs import Job
from ppu.twin.bench import Links

__all__ = ["InteractiveLab", "open_lab"]


class InteractiveLab(OpenLab):
    """A lab for a person at a prompt or in a notebook; made by :func:`open_lab`.

    It is open within a ``with`` statement, or from :meth:`open` to :meth:`close`, and
    closed at the latest when Python ends.
    """

    is_open = False

    def open(self) -> InteractiveLab:
        """Connect every device, and return the lab; nothing if it is open.

        Raises:
            ConfigurationError: If it was closed before: a lab is opened once.
            ConnectError: If an instrument is absent or is a stranger; with every one.
        """
        if self._has_closed:
            raise ConfigurationError(
                f"lab {self.file.lab} was closed; open it anew with open_lab(...)"
            )
        if not self.is_open:
            self.__enter__()
        return self

    def __enter__(self) -> InteractiveLab:
        """Connect every device."""
        super().__enter__()
        self.is_open = True
        atexit.register(self.close)
        return self

    _has_closed = False

    def close(self) -> None:
        """Disconnect every device and end what was started; twice is harmless."""
        if self._has_closed:
            return
        self._has_closed, self.is_open = True, False
        atexit.unregister(self.close)
        super().close()

    def __repr__(self) -> str:
        state = "closed" if self._has_closed else "open" if self.is_open else "not open"
        lines = [f"<lab {self.file.lab} ({self.target}), {state}>"]
        lines += [
            f"  {name}: {device.facts.maker} {device.facts.model}"
            for name, device in self.devices.items()
        ]
        if not self.devices:
            lines.append("  open it: `with lab:` or lab.open()")
        return "\n".join(lines)

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

    # -- what people do beside it ---------------------------------------------------

    def release(self, container: str) -> None:
        """Say that a container is empty and clean; in a twin that is done now.

        Raises:
            NotFoundError: If there is no such container.
            ConflictError: If nobody gets at it in the twin; nothing changed.
            InterlockError: If a plan runs.
        """
        self.view().container(container)
        move = advise(Remedy.MOVE_CONTAINER, container=container)
        self._by_hand("empty", move, container)
        self.ledger.release(container)

    def refill(self, powder: str, mass_g: float) -> None:
        """Say that *mass_g* of a powder was added; in a twin that is done now [g].

        Raises:
            LimitError: If there is no such powder in stock, or no such amount.
            InterlockError: If a plan runs.
        """
        self.view().stock_g(powder)
        if not 0 < mass_g < math.inf:
            raise LimitError(
                f"{mass_g} g of {powder} cannot be added; give more than 0"
            )
        look = advise(Remedy.CHECK_STOCK, powder=powder)
        self._by_hand("refill", look, powder, mass_g)
        self.ledger.refill(powder, mass_g)

    def carry(self, container: str, location: str) -> None:
        """Say that a container is at a location; in a twin it is carried there now.

        Raises:
            NotFoundError: If there is no such container or location.
            ConflictError: If something else is there, or belongs there.
            InterlockError: If a plan runs.
        """
        kind, known = self.view().container(container).kind, self.file.locations
        if location not in known:
            raise NotFoundError(
                f"there is no location '{location}'; {nearest(location, known)}"
            )
        standing = self.view().container_at(location)
        if known[location].holds != kind or standing not in (None, container):
            there = standing or f"a place for a {known[location].holds}"
            raise ConflictError(
                f"{container}, a {kind}, cannot be put to {location}: it is {there}"
                if standing is None
                else f"{container} cannot be put to {location}: {there} is there"
            )
        self._by_hand("carry", advise(Remedy.MOVE_CONTAINER), container, location)
        self.ledger.correct(container, location)

    def _by_hand(self, act: str, remedy: Advice, *arguments: object) -> None:
        """Do in the twin what a person did; nothing on hardware, where it is done."""
        self.check_open()
        do = TwinHands(self.bench, self.host.loop).find_act(act, remedy)

        async def do_now() -> None:
            do(*arguments)

        with self.turns.take(f"a person ({act})", tell, queued=False):
            self.has_run = True  # the store of a cell would believe what was before
            self.host.call(do_now())

    def run_protocols(
        self, wanted: Sequence[tuple[str, Mapping[str, Any]]], out: str | Path
    ) -> list[Job]:
        """Run several protocols at once, and return their jobs as they ended.

        They share the lab as jobs of a cell do: a step waits for what it needs, and
        compatible firings share a furnace. One that fails does not end the others.

        Args:
            wanted: Names and parameters of protocols.
            out: Directory for the store, and one for each job.

        Raises:
            ConfigurationError: If something asked is wrong, or something has run on
                this lab before; nothing moved.
            LimitError: If the lab does not allow it; nothing moved.
            InterlockError: If a plan runs.
            AbortedError: If somebody asked to stop; every device is in its abort state.
        """
        self.check_open()
        self.check_attended()
        if self.has_run:
            raise ConfigurationError(
                "several protocols at once need a lab on which nothing has run yet: "
                "open it anew with open_lab(...)"
            )
        return run_several(self, wanted, Path(out))


def open_lab(
    lab: str = "a-lab",
    target: Target = "twin",
    *,
    pace: Pace = DEFAULT_PACE,
    seed: int | None = None,
    only: tuple[str, ...] = (),
    attended: bool = False,
    links: Links = "kernel",
    technician: bool = False,
) -> InteractiveLab:
    """Return a lab to be opened: use it in a ``with`` statement, or ``open()`` it.

    In a notebook, ``lab = open_lab(...).open()`` in one cell and ``lab.close()`` in
    another.

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
        technician: Whether the jobs of a twin that run at once have a technician, as
            with ``simulation: {technician: {}}`` in the lab file, who cleans, carries,
            refills and answers; so more of them run than there are crucibles.

    Example:
        >>> with open_lab("a-lab", only=("balance",)) as lab:
        ...     reading = lab.read("balance", "present_mass")
        >>> reading["quality"]
        'good'
    """
    path = find_lab(lab)
    file = load_lab(path)
    if technician and file.simulation.technician is None:
        helped = file.simulation.model_copy(update={"technician": TechnicianEntry()})
        file = file.model_copy(update={"simulation": helped})
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
