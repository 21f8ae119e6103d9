"""What a person can do about it: codes, which each door words for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Advice", "Remedy", "advise", "plain_advice", "read_advice"]


class Remedy(StrEnum):
    """What can be done; its arguments are named behind it, and any may be missing."""

    ACCEPT_STORE = "accept_store"
    """Look at the whole bench, put right what is believed, then let jobs go on."""
    ALLOW_HEAT = "allow_heat"
    """Look at the furnaces, then let the cell heat them again."""
    ANSWER = "answer"
    """Answer what a job asks: ``job``."""
    ATTEND = "attend"
    """Stay beside what can heat, and say so."""
    CHECK_STOCK = "check_stock"
    """Compare what is believed of a powder with what is there: ``powder``."""
    EXPLAIN = "explain"
    """Say why."""
    MOVE_CONTAINER = "move_container"
    """Say where a container is: ``container``, ``location``."""
    REFILL = "refill"
    """Add powder, and say so: ``powder``."""
    RELEASE_SAMPLE = "release_sample"
    """Empty and clean a sample's containers, and say so: ``sample``."""
    RETURN_DEVICE = "return_device"
    """Say that a device that was tagged out may be used again: ``device``."""
    RETRY = "retry"
    """Ask for the same once more, as a new job: ``job``."""
    REPORT = "report"
    """Report a mistake of PPU's own, or of a protocol's author."""
    INSTALL_PROTOCOL = "install_protocol"
    """Install a version of a protocol, then start the cell anew: ``protocol``,
    ``version``."""
    RESUME = "resume"
    """End the hold of a job: ``job``."""
    START_CELL = "start_cell"
    """Start a cell on the store."""
    START_GUARD = "start_guard"
    """Put jobs into a queue and start a guard, which sees to what heats."""
    WRITE_BENCH = "write_bench"
    """Start the simulated bench, and use the lab file that it writes."""


@dataclass(frozen=True)
class Advice:
    """One thing that a person can do.

    Attributes:
        remedy: Which.
        arguments: What it is about, by name.
    """

    remedy: Remedy
    arguments: Mapping[str, str] = field(default_factory=dict)


def advise(remedy: Remedy, **arguments: object) -> Advice:
    """Return the advice to do *remedy*.

    Example:
        >>> advise(Remedy.RESUME, job=12).arguments
        {'job': '12'}
    """
    return Advice(remedy, {name: str(value) for name, value in arguments.items()})


def plain_advice(advice: Iterable[Advice]) -> list[dict[str, Any]]:
    """Return *advice* as plain data."""
    return [
        {"remedy": str(one.remedy), "arguments": dict(one.arguments)} for one in advice
    ]


def read_advice(content: Iterable[Mapping[str, Any]]) -> tuple[Advice, ...]:
    """Return the advice that plain data describes; what a newer PPU added is left out.

    Example:
        >>> read_advice([{"remedy": "resume"}, {"remedy": "beam_up"}])
        (Advice(remedy=<Remedy.RESUME: 'resume'>, arguments={}),)
    """
    known = set(Remedy)
    return tuple(
        Advice(Remedy(one["remedy"]), dict(one.get("arguments", {})))
        for one in content
        if one["remedy"] in known
    )
