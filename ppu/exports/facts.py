"""What was a job's own in a lab that others use, too, as its store has it.

All of it comes from the store, so that it is whole when a job has run in several
processes, and nothing in it is there twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Final

from sqlalchemy import Connection

from ppu.core.errors import DivergedError
from ppu.plans.seats import Seat
from ppu.plans.steps import restored_as
from ppu.store.bounds import MOST_ROWS
from ppu.store.documents import streams_of
from ppu.store.events import EventKind, events_after
from ppu.store.queue import get
from ppu.store.steps import Step, StepState, steps_of
from ppu.store.waiting import WaitCode, Waited, waits_of

__all__ = ["Firing", "JobFacts", "PowerFacts", "facts_of"]

_GAP: Final = 3.0
"""Samples farther apart than this many periods have something unheard between them."""


@dataclass(frozen=True)
class PowerFacts:
    """What is known of a device that heats.

    Attributes:
        output_key: Data key of its output [%] among its samples.
        rated_power_w: Electrical power at full output [W], None if nobody has said it.
    """

    output_key: str
    rated_power_w: float | None


@dataclass(frozen=True)
class Firing:
    """What a furnace did with a job's sample inside.

    Attributes:
        furnace: Its name.
        samples: What was sampled, by data key, and ``time``, stamps [s since 1970].
        jobs: The jobs whose samples were in it.
        energy_kwh: Electrical energy of the whole firing, None if it is not known.
        unheard_s: Time that is missing in it, because nobody heard the furnace [s].
        energy_source: How it is known, or why it is not.
    """

    furnace: str
    samples: Mapping[str, Sequence[float]]
    jobs: tuple[int, ...]
    energy_kwh: float | None
    unheard_s: float
    energy_source: str

    def plain(self) -> dict[str, Any]:
        """Return it as a result keeps it, with this job's part of the energy."""
        n_jobs = len(self.jobs)
        own = None if self.energy_kwh is None else self.energy_kwh / n_jobs
        shared = f"; of {n_jobs} jobs that shared it, each has the same part"
        return {
            "furnace": self.furnace,
            "began": self.samples["time"][0],
            "ended": self.samples["time"][-1],
            "jobs": list(self.jobs),
            "energy_kwh": self.energy_kwh,
            "own_energy_kwh": own,
            "energy_source": self.energy_source + (shared if n_jobs > 1 else ""),
            "unheard_s": self.unheard_s,
        }


@dataclass(frozen=True)
class JobFacts:
    """What was a job's own; stamps [s since 1970].

    Attributes:
        began: When a cell began it.
        ended: When it ended, or when this was asked.
        waits: When it did not go on, and what for; while it was queued, too.
        devices: What its steps used.
        firings: What furnaces did for it.
        incidents: What went physically wrong with what it had, in a twin.
    """

    began: float
    ended: float
    waits: tuple[Waited, ...]
    devices: frozenset[str]
    firings: tuple[Firing, ...]
    incidents: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def active_s(self) -> float:
        """Time in which it went on [s]."""
        kept = sum(
            one.ended - max(one.begun, self.began)
            for one in self.waits
            if one.ended > self.began
        )
        return max(self.ended - self.began - kept, 0.0)

    def plain(self, epoch: float) -> dict[str, Any]:
        """Return it as a result keeps it.

        Args:
            epoch: Stamp of lab time 0 in the process that asks.
        """
        firings = [firing.plain() for firing in self.firings]
        return {
            "lab_time_s": self.ended - self.began,
            "active_s": self.active_s,
            "waited_s": self.waited_s(),
            "waits": [
                {
                    "code": str(one.code),
                    "for": one.text,
                    "began": one.begun,
                    "ended": one.ended,
                }
                for one in self.waits
            ],
            "furnaces": sorted({firing.furnace for firing in self.firings}),
            "firings": firings,
            "incidents": [
                {
                    "lab_time_s": one.get("stamp", epoch + one["lab_time_s"]) - epoch,
                    "kind": one["incident"],
                    "device": one["device"],
                    "text": one["text"],
                }
                for one in self.incidents
            ],
        }

    def waited_s(self) -> dict[str, float]:
        """Return how long it waited for each kind of thing [s]; all kinds are there."""
        return {
            str(code): sum(
                (one.ended - one.begun for one in self.waits if one.code is code), 0.0
            )
            for code in WaitCode
        }


def facts_of(
    connection: Connection, job_id: int, until: float, powers: Mapping[str, PowerFacts]
) -> JobFacts:
    """Return what was a job's own.

    Args:
        connection: A transaction of the store.
        job_id: The job.
        until: Stamp of now, for a job that has not ended.
        powers: What is known of the devices that heat, by name.

    Raises:
        NotFoundError: If there is no such job.
    """
    job = get(connection, job_id)
    ended = until if job.ended is None else job.ended
    steps = steps_of(connection, job_id)
    seats = list(_seats(steps, ended))
    devices = {name for step in steps for name in step.devices}
    for seat, _, _ in seats:
        devices |= {seat.furnace, *seat.belongings}
    return JobFacts(
        began=ended if job.started is None else job.started,
        ended=ended,
        waits=tuple(waits_of(connection, job_id, ended)),
        devices=frozenset(devices),
        firings=tuple(_firings(connection, job_id, seats, powers)),
        incidents=tuple(
            event.content
            for event in events_after(
                connection, 0, MOST_ROWS, [EventKind.INCIDENT], job_id
            )
        ),
    )


def _seats(steps: Sequence[Step], until: float) -> Iterator[tuple[Seat, float, float]]:
    """Yield the places that a job had in firings, and from when to when."""
    taken: tuple[Seat, float] | None = None
    for step in steps:
        if step.state is not StepState.DONE or step.seat is None:
            continue
        if step.seat == "takes":
            try:
                seat = restored_as(Seat, step.result)
            except DivergedError:  # a protocol that says so, but has no seat
                continue
            taken = (seat, step.ended or step.begun)
        elif taken is not None:
            yield (*taken, step.ended or step.begun)
            taken = None
    if taken is not None:
        yield (*taken, until)


def _firings(
    connection: Connection,
    job_id: int,
    seats: Sequence[tuple[Seat, float, float]],
    powers: Mapping[str, PowerFacts],
) -> Iterator[Firing]:
    """Yield what furnaces did for a job: those that it led, shared, or had alone."""
    shared = set[str]()
    for seat, since, until in seats:
        shared.add(seat.furnace)
        columns: dict[str, list[float]] = {}
        for member in sorted({*seat.members, job_id}):
            # Whoever leads the firing collects its samples, for all.
            found = _samples_of(connection, member, seat.furnace, since, until)
            columns = _joined(columns, found)
        if columns.get("time"):
            power = powers.get(seat.furnace)
            # A plan that is no job of a cell is numbered 0 among those that run.
            jobs = tuple(member or job_id for member in seat.members)
            yield _firing(seat.furnace, columns, jobs, power)
    for name, power in powers.items():
        if name in shared:
            continue
        columns = _samples_of(connection, job_id, name, -math.inf, math.inf)
        if columns.get("time"):
            yield _firing(name, columns, (job_id,), power)


def _samples_of(
    connection: Connection, job_id: int, device: str, since: float, until: float
) -> dict[str, list[float]]:
    """Return what a job sampled of a device between two stamps, by data key."""
    found: dict[str, list[float]] = {}
    for columns in streams_of(connection, job_id).values():
        keys = [key for key in columns if key.startswith(f"{device}_")]
        if not keys:
            continue
        rows = [n for n, t in enumerate(columns["time"]) if since <= t <= until]
        own = {key: [columns[key][n] for n in rows] for key in ("time", *keys)}
        found = _joined(found, own)
    return found


def _joined(
    one: Mapping[str, list[float]], other: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """Return the rows of both in the order of time, none twice."""
    if not one or not other:
        return dict(one or other)
    rows = {}
    for columns in (one, other):
        for n, time in enumerate(columns["time"]):
            rows[time] = {key: values[n] for key, values in columns.items()}
    keys = one.keys() & other.keys()
    return {key: [rows[time][key] for time in sorted(rows)] for key in keys}


def _firing(
    name: str,
    columns: Mapping[str, Sequence[float]],
    jobs: tuple[int, ...],
    power: PowerFacts | None,
) -> Firing:
    outputs = None if power is None else columns.get(power.output_key)
    if power is None or outputs is None:
        why = f"not known: {name} does not report its output"
        return Firing(name, columns, jobs, None, 0.0, why)
    full_s, unheard_s = _at_full_output(columns["time"], outputs)
    if power.rated_power_w is None:
        why = (
            f"not known: the lab file does not say settings.rated_power_w of {name}; "
            f"it was on for as long as {full_s / 3600:.3g} h at full output"
        )
        return Firing(name, columns, jobs, None, unheard_s, why)
    source = (
        "computed, not metered: reported output times the rated power of "
        f"{power.rated_power_w:g} W"
    )
    if unheard_s:
        source += f", without {unheard_s:.0f} s in which nobody heard it"
    energy_kwh = power.rated_power_w * full_s / 3.6e6
    return Firing(name, columns, jobs, energy_kwh, unheard_s, source)


def _at_full_output(
    times: Sequence[float], outputs: Sequence[float]
) -> tuple[float, float]:
    """Return how long full output would give the same energy, and what is missing [s].

    Trapezoids between samples; where samples are missing, nothing is assumed.
    """
    steps = [later - earlier for earlier, later in pairwise(times)]
    if not steps:
        return 0.0, 0.0
    longest_s = _GAP * median(steps)
    full_s = unheard_s = 0.0
    for n, step_s in enumerate(steps):
        mean = (max(outputs[n], 0.0) + max(outputs[n + 1], 0.0)) / 200.0
        if step_s > longest_s or not math.isfinite(mean):
            unheard_s += step_s
        else:
            full_s += mean * step_s
    return full_s, unheard_s
