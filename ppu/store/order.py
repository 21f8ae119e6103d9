"""Which job is next: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["HALF_LIFE_S", "LEAST_USE_S", "Candidate", "decayed", "order"]

HALF_LIFE_S = 86400.0
"""Time in which a campaign's past use of the cell comes to count half [s]."""

LEAST_USE_S = 3600.0
"""What a running job counts at least, so that one that just began counts, too [s]."""


@dataclass(frozen=True)
class Candidate:
    """A job that may be claimed, as far as its turn depends on it."""

    priority: int
    campaign: str
    rank: int


def order(
    candidates: Iterable[Candidate], use_s: Mapping[str, float]
) -> list[Candidate]:
    """Return *candidates* as they shall run: priority, fair share, then age.

    Args:
        candidates: Jobs that may be claimed now. Of those of one priority and one
            campaign the first by rank is enough, if only the first is wanted.
        use_s: Running and recent use of the cell by each campaign [s]; none if absent.

    Example:
        >>> waiting = [Candidate(0, "a", 1), Candidate(0, "b", 2), Candidate(1, "a", 3)]
        >>> [candidate.rank for candidate in order(waiting, {"a": 3600.0})]
        [3, 2, 1]
    """
    return sorted(
        candidates,
        key=lambda one: (-one.priority, use_s.get(one.campaign, 0.0), one.rank),
    )


def decayed(used_s: float, age_s: float) -> float:
    """Return what use of *used_s* counts after *age_s* [s]."""
    return float(used_s * 0.5 ** (max(age_s, 0.0) / HALF_LIFE_S))
