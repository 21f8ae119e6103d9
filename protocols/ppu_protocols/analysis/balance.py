"""A second witness: what was dosed and weighed against what the pattern says.

Elements that do not leave as gas stay in the proportions in which they were dosed. The
shares of the phases and that proportion are put into one least-squares statement; if
they disagree by more than their errors, something holds elements and shows no line of a
candidate, and which elements it is follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import gemmi
import numpy as np

from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ppu_protocols.analysis.cif import Phase

VOLATILE: Final = frozenset({"H", "C", "N", "O"})
"""Elements that come and go as gas and so witness nothing."""

# Relative spread of a dosed amount: purity and loss of powder, and for lithium what
# the crucible takes (1 to 10 mol%; J. Mater. Chem. A (2026), d6ta02981g).
_SPREAD: Final = 0.01
_LITHIUM_SPREAD: Final = 0.04
_MASS_SPREAD: Final = 0.01  # of the mass left after firing, powder lost on the way

# 1 % quantiles of chi² for 1 to 8 degrees of freedom (any table): agreement is
# refused by mistake in one specimen of a hundred.
_CRITICAL: Final = (6.63, 9.21, 11.34, 13.28, 15.09, 16.81, 18.48, 20.09)
_LEAST_MISSING: Final = 0.02  # of the mass, below which nothing is named
_N_DRAWS: Final = 400
# Atoms of oxygen per atom of a cation in what it may hide in, by its usual charge.
_CHARGE: Final = {
    1: ("Li", "Na", "K", "Rb", "Cs", "Ag", "Tl"),
    2: ("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Cu", "Ni", "Co", "Mn", "Fe", "Pb"),
    3: ("B", "Al", "Ga", "In", "Sc", "Y", "La", "Nd", "Sm", "Gd", "Bi", "Cr"),
    4: ("Si", "Ge", "Sn", "Ti", "Zr", "Hf", "Ce"),
    5: ("P", "V", "Nb", "Ta", "Sb"),
    6: ("S", "Mo", "W"),
}


@dataclass(frozen=True)
class Dosed:
    """What went into the crucible, and what came out.

    Attributes:
        amounts_mol: Amount of each element that was weighed in [mol]; volatile ones
            are passed over.
        mass_after_g: What was left after the firing [g]; None if nobody weighed it.
    """

    amounts_mol: Mapping[str, float]
    mass_after_g: float | None = None


@dataclass(frozen=True)
class Witness:
    """What elements and mass say of the shares.

    Attributes:
        agrees: Whether pattern and balance agree within their errors.
        chi_squared: How far they are apart, over the degrees of freedom below.
        n_constraints: Degrees of freedom.
        shares: Weight fractions by phase that satisfy both best.
        standard_errors: Of these.
        missing: Elements that the found phases lack, those that lack most first.
        missing_share: Mass of their oxides, of the whole; 0 if nothing is missing.
        missing_error: One standard deviation of it.
    """

    agrees: bool
    chi_squared: float
    n_constraints: int
    shares: Mapping[str, float]
    standard_errors: Mapping[str, float]
    missing: tuple[str, ...]
    missing_share: float
    missing_error: float

    @property
    def sentence(self) -> str:
        """What the balance says, in one sentence."""
        if self.agrees:
            return "Elements dosed and shares found agree."
        if not self.missing:
            return "Elements dosed and shares found disagree."
        return (
            f"{_listed(self.missing)} for about {100 * self.missing_share:.0f} wt% are "
            f"in no candidate (+- {100 * self.missing_error:.0f}); a phase that is not "
            "listed, or an amorphous one, holds them."
        )


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def weigh_elements(
    phases: Sequence[Phase],
    shares: NDArray[np.float64],
    relative: NDArray[np.float64],
    dosed: Dosed,
) -> Witness | None:
    """Return what *dosed* says of the *shares* of *phases*.

    Args:
        phases: Those found.
        shares: Their weight fractions among themselves, shape ``(n,)``.
        relative: Covariance of the logarithms of their masses, ``(n, n)``.
        dosed: Elements weighed in.

    Returns:
        None if there is nothing to compare: one element, and no mass.

    Raises:
        AnalysisError: If an amount is not positive, or no element can witness.
    """
    elements = [e for e in dosed.amounts_mol if e not in VOLATILE]
    if not elements or min(dosed.amounts_mol.values()) <= 0.0:
        raise AnalysisError(
            f"dosed amounts {dict(dosed.amounts_mol)}: positive ones, of an element "
            "other than hydrogen, carbon, nitrogen and oxygen, are needed"
        )
    masses = np.array([dosed.amounts_mol[e] * _weight(e) for e in elements])
    content = np.array(
        [[phase.mass_fractions.get(e, 0.0) for phase in phases] for e in elements]
    )
    spread = np.array([_LITHIUM_SPREAD if e == "Li" else _SPREAD for e in elements])
    n_constraints = len(elements) - 1 + (dosed.mass_after_g is not None)
    if n_constraints == 0:
        return None
    by_log = np.diag(shares) - np.outer(shares, shares)
    covariance = by_log @ relative @ by_log.T
    rows, values = _constraints(content, masses, dosed.mass_after_g)
    found = rows @ shares - values
    # What is dosed of each element is uncertain on its own, and so is the mass left.
    amount = content @ shares / masses
    noise = np.diag((spread * amount) ** 2)
    if dosed.mass_after_g is None:
        change = np.hstack(
            [-np.ones((len(elements) - 1, 1)), np.eye(len(elements) - 1)]
        )
        noise = change @ noise @ change.T
    else:
        noise = noise + _MASS_SPREAD**2 * np.outer(values, values)
    among = rows @ covariance @ rows.T + noise
    chi_squared = float(found @ np.linalg.solve(among, found))
    agrees = chi_squared <= _CRITICAL[min(n_constraints, len(_CRITICAL)) - 1]
    gain = covariance @ rows.T @ np.linalg.inv(among)
    both, left = shares, covariance
    if agrees:
        both = np.maximum(shares - gain @ found, 0.0)
        both = both / both.sum() * shares.sum()
        left = covariance - gain @ rows @ covariance
    names = [phase.name for phase in phases]
    errors = np.sqrt(np.maximum(np.diag(left), 0.0))
    missing: tuple[str, ...] = ()
    share, error = 0.0, 0.0
    if not agrees:
        missing, share, error = _missing(elements, content, masses, shares, relative)
    return Witness(
        agrees=agrees,
        chi_squared=chi_squared,
        n_constraints=n_constraints,
        shares=dict(zip(names, map(float, both), strict=True)),
        standard_errors=dict(zip(names, map(float, errors), strict=True)),
        missing=missing,
        missing_share=share,
        missing_error=error,
    )


def _constraints(
    content: NDArray[np.float64],
    masses: NDArray[np.float64],
    mass_after_g: float | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows and values that true shares satisfy: rows @ shares == values.

    Every element has the same ratio of mass in the product to mass dosed; its size is
    known if the product was weighed.
    """
    ratios = content / masses[:, None]
    if mass_after_g is None:
        return ratios[1:] - ratios[0], np.zeros(len(masses) - 1)
    return ratios, np.full(len(masses), 1.0 / mass_after_g)


def _missing(
    elements: Sequence[str],
    content: NDArray[np.float64],
    masses: NDArray[np.float64],
    shares: NDArray[np.float64],
    relative: NDArray[np.float64],
) -> tuple[tuple[str, ...], float, float]:
    """Return elements that lack, the share of their oxides, and its error."""
    oxide = np.array([_oxide_factor(e) for e in elements])
    # A fixed stream: the same scan gives the same answer.
    rng = np.random.default_rng(0)
    size, axes = np.linalg.eigh(relative)
    root = axes * np.sqrt(np.maximum(size, 0.0))
    draws = rng.standard_normal((_N_DRAWS, shares.size)) @ root.T

    def lacking(found: NDArray[np.float64]) -> NDArray[np.float64]:
        in_phases = content @ found
        whole = float((in_phases / masses).max()) * masses
        return np.asarray((whole - in_phases) * oxide)

    best = lacking(shares)
    total = float(best.sum())
    drawn = []
    for draw in draws:
        moved = shares * np.exp(draw)
        lost = float(lacking(moved / moved.sum()).sum())
        drawn.append(lost / (1.0 + lost))
    share = total / (1.0 + total)
    if share < _LEAST_MISSING:
        return (), 0.0, 0.0
    order = np.argsort(-best)
    named = tuple(elements[i] for i in order if best[i] > 0.1 * best.max())
    return named, share, float(np.std(drawn))


def _weight(symbol: str) -> float:
    return float(gemmi.Element(symbol).weight)


def _oxide_factor(symbol: str) -> float:
    """Return mass of oxide per mass of the element."""
    charge = next((c for c, names in _CHARGE.items() if symbol in names), 2)
    return 1.0 + 0.5 * charge * _weight("O") / _weight(symbol)
