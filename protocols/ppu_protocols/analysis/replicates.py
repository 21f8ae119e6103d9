"""Several mounts of one sample: what repeats reduce, and the scatter they show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppu_protocols.analysis._budget import FIT, SPECIMEN, TEXTURE
from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ppu_protocols.analysis.quantify import Quantification

_ANEW = frozenset({FIT, SPECIMEN, TEXTURE})
"""Parts of the error that every mount draws anew; the others stay what they are."""


@dataclass(frozen=True)
class Replicates:
    """The mean of several mounts.

    Attributes:
        n_scans: Number of mounts.
        fractions: Mean weight fraction by phase.
        standard_errors: Of the means.
        scatter: Standard deviation between the mounts.
    """

    n_scans: int
    fractions: Mapping[str, float]
    standard_errors: Mapping[str, float]
    scatter: Mapping[str, float]


def combine(results: Sequence[Quantification]) -> Replicates:
    """Return the mean of *results*, mounts of one sample with the same candidates.

    What each mount draws anew shrinks with the root of their number, but not below
    what their scatter shows; what all share, such as the structures, does not shrink.

    Raises:
        AnalysisError: If there are less than two, or their candidates differ.
    """
    names = sorted(phase.name for phase in results[0].phases) if results else []
    same = all(sorted(p.name for p in r.phases) == names for r in results)
    if len(results) < 2 or not same:
        raise AnalysisError(
            f"{len(results)} results; two or more with the same candidates are needed"
        )
    n_scans = len(results)
    fractions, errors, scatter = {}, {}, {}
    for name in names:
        values = np.array(
            [
                next(p.weight_fraction for p in result.phases if p.name == name)
                for result in results
            ]
        )
        anew = shared = 0.0
        for result in results:
            for part in result.error_budget:
                square = part.standard_errors.get(name, 0.0) ** 2 / n_scans
                anew += square * (part.name in _ANEW)
                shared += square * (part.name not in _ANEW)
        spread = float(values.std(ddof=1))
        fractions[name] = float(values.mean())
        scatter[name] = spread
        errors[name] = math.sqrt(shared + max(anew, spread**2) / n_scans)
    return Replicates(n_scans, fractions, errors, scatter)
