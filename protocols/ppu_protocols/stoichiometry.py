"""How much of each precursor a target needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import gemmi
import numpy as np

from ppu.core.errors import ConfigurationError

__all__ = ["Recipe", "balance_recipe", "molar_mass", "parse_formula"]

_VOLATILE = frozenset({"H", "C", "N", "O"})
"""Elements that come and go as gas: they do not decide how much is needed."""

_LARGEST_COUNT = 1000.0
"""No formula unit of a solid that is made from powders has more of one element."""

_TOKEN = re.compile(r"([A-Z][a-z]?|\(|\))(\d+(?:\.\d+)?)?")


class Recipe:
    """A balanced recipe: grams of each precursor for one gram of all of them.

    Args:
        mass_fractions: Share of each precursor in the mixture by mass.
        expected_yield: Mass of the product over the mass of the mixture, leftover
            excess included, for complete reaction.
    """

    def __init__(
        self, mass_fractions: Mapping[str, float], expected_yield: float
    ) -> None:
        self.mass_fractions = dict(mass_fractions)
        self.expected_yield = expected_yield


def parse_formula(formula: str) -> dict[str, float]:
    """Return the atoms of one formula unit by element.

    A part after a hyphen names a polymorph and does not count.

    Raises:
        ConfigurationError: If it is no chemical formula.

    Example:
        >>> parse_formula("BaTiO3")
        {'Ba': 1.0, 'Ti': 1.0, 'O': 3.0}
    """
    text = formula.partition("-")[0]
    stack: list[dict[str, float]] = [{}]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConfigurationError(f"'{formula}' is no chemical formula")
        symbol, count = match[1], float(match[2] or 1)
        position = match.end()
        if symbol == "(":
            stack.append({})
        elif symbol == ")":
            if len(stack) == 1:
                raise ConfigurationError(f"'{formula}': a bracket too many")
            for element, inner in stack.pop().items():
                stack[-1][element] = stack[-1].get(element, 0.0) + inner * count
        else:
            if gemmi.Element(symbol).atomic_number == 0:
                raise ConfigurationError(f"'{formula}': there is no element {symbol}")
            stack[-1][symbol] = stack[-1].get(symbol, 0.0) + count
    if len(stack) != 1 or not stack[0]:
        raise ConfigurationError(f"'{formula}' is no chemical formula")
    for element, count in stack[0].items():
        if not 0 < count <= _LARGEST_COUNT:
            raise ConfigurationError(
                f"'{formula}': {count:g} {element} in a formula unit; allowed are more "
                f"than 0 and up to {_LARGEST_COUNT:g}"
            )
    return stack[0]


def molar_mass(formula: str) -> float:
    """Return the molar mass of *formula* [g/mol].

    Example:
        >>> round(molar_mass("CaCO3"), 2)
        100.09
    """
    return sum(
        count * gemmi.Element(element).weight
        for element, count in parse_formula(formula).items()
    )


def balance_recipe(
    target: str, precursors: Sequence[str], excess: Mapping[str, float]
) -> Recipe:
    """Return how much of each precursor makes *target*.

    The elements that stay (all but H, C, N and O) must come out exactly.

    Args:
        target: Formula of the product.
        precursors: Formulas of the powders; each must be needed.
        excess: Extra part of some precursors, such as 0.05 for 5 % more.

    Raises:
        ConfigurationError: If the precursors cannot make the target, or more than
            one mixture would.
    """
    unknown = set(excess) - set(precursors)
    if unknown:
        raise ConfigurationError(
            f"excess: {', '.join(sorted(unknown))} is no precursor; they are "
            f"{', '.join(precursors)}"
        )
    product = parse_formula(target)
    parts = {name: parse_formula(name) for name in precursors}
    elements = sorted({e for part in (product, *parts.values()) for e in part})
    lasting = [element for element in elements if element not in _VOLATILE]
    matrix = np.array(
        [[parts[name].get(e, 0.0) for name in precursors] for e in lasting]
    )
    wanted = np.array([product.get(e, 0.0) for e in lasting])
    amounts, _, rank, _ = np.linalg.lstsq(matrix, wanted, rcond=None)
    if not np.allclose(matrix @ amounts, wanted, atol=1e-9) or amounts.min() <= 1e-9:
        raise ConfigurationError(
            f"{' + '.join(precursors)} cannot make {target}: each precursor must be "
            f"needed and {', '.join(lasting)} must come out exactly"
        )
    if rank < len(precursors):
        raise ConfigurationError(
            f"{' + '.join(precursors)} make {target} in more than one way; "
            "leave one out"
        )
    asked = {
        name: float(amount) * (1.0 + excess.get(name, 0.0)) * molar_mass(name)
        for name, amount in zip(precursors, amounts, strict=True)
    }
    leftover = sum(
        float(amount) * excess.get(name, 0.0) * molar_mass(name)
        for name, amount in zip(precursors, amounts, strict=True)
    )
    total = sum(asked.values())
    return Recipe(
        {name: mass / total for name, mass in asked.items()},
        (molar_mass(target) + leftover) / total,
    )
