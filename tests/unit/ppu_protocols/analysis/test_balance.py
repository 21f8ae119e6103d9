"""Elements and mass as a second witness of weight fractions."""

from __future__ import annotations

import numpy as np
import pytest

from ppu_protocols.analysis.balance import Dosed, Witness, weigh_elements
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.errors import AnalysisError

TITANATE = ("BaCO3", "TiO2-anatase", "BaTiO3")
EQUAL = {"Ba": 1.0, "Ti": 1.0, "O": 3.0, "C": 1.0}
RELATIVE = 0.05**2


def witness(
    names: tuple[str, ...], shares: tuple[float, ...], dosed: Dosed
) -> Witness | None:
    """Return what *dosed* says of *shares* known to 5 % of each mass."""
    covariance = RELATIVE * np.eye(len(names))
    return weigh_elements(
        [load_phase(name) for name in names], np.array(shares), covariance, dosed
    )


def balanced_shares() -> tuple[float, float, float]:
    """Return shares with as much barium as titanium: 25 wt% of carbonate."""
    carbonate = 0.25
    oxide = carbonate / 197.34 * 79.87
    return carbonate, oxide, 1.0 - carbonate - oxide


def test_agreement_lowers_the_errors() -> None:
    """Shares that hold the elements dosed stay, and are known better than before."""
    shares = balanced_shares()
    alone = np.diag(shares) - np.outer(shares, shares)
    before = np.sqrt(RELATIVE * (alone**2).sum(axis=1))

    result = witness(TITANATE, shares, Dosed(EQUAL))

    assert result is not None
    assert result.agrees
    assert list(result.shares.values()) == pytest.approx(shares, abs=1e-3)
    assert (np.array(list(result.standard_errors.values())) < before).all()


def test_published_example_of_the_gain_is_met() -> None:
    """BaCO3 with 1.25 wt% comes to about 1.0 if Ba:Ti is known to 0.5 % and better."""
    result = witness(TITANATE, balanced_shares(), Dosed(EQUAL))

    assert result is not None
    assert 0.009 < result.standard_errors["BaCO3"] < 0.0125


def test_elements_that_no_candidate_holds_are_named() -> None:
    """A quarter of the mass as BaCuO2, which is not listed, is told by its elements."""
    names = ("YBa2Cu3O7", "Y2BaCuO5", "CuO")
    truth = np.array([0.564, 0.152, 0.053])  # the rest is BaCuO2
    shares = tuple(float(x) for x in truth / truth.sum())

    result = witness(names, shares, Dosed({"Y": 1.0, "Ba": 2.0, "Cu": 3.0}))

    assert result is not None
    assert not result.agrees
    assert set(result.missing) == {"Ba", "Cu"}
    assert result.missing_share == pytest.approx(0.231, abs=0.03)
    assert "Ba and Cu for about 2" in result.sentence.replace("Cu and Ba", "Ba and Cu")
    assert "are in no candidate" in result.sentence


def test_mass_left_witnesses_when_there_is_one_element_only() -> None:
    """Half-burnt lime weighs more than its pattern says if shares are wrong."""
    lime = ("CaO", "CaCO3")
    mass_g = 0.5 * 56.08 + 0.5 * 100.09  # of 1 mol of calcium, half of it carbonate
    right = 0.5 * 56.08 / mass_g

    good = witness(lime, (right, 1.0 - right), Dosed({"Ca": 1.0}, mass_g))
    bad = witness(lime, (right + 0.3, 0.7 - right), Dosed({"Ca": 1.0}, mass_g))

    assert good is not None
    assert good.agrees
    assert bad is not None
    assert not bad.agrees


def test_one_element_without_a_mass_witnesses_nothing() -> None:
    """There is no proportion of one."""
    assert witness(("CaO", "CaCO3"), (0.5, 0.5), Dosed({"Ca": 1.0})) is None


@pytest.mark.parametrize("amounts", [{}, {"C": 1.0, "O": 2.0}, {"Ca": -1.0}])
def test_dosed_is_refused_when_nothing_can_witness(amounts: dict[str, float]) -> None:
    """Gases and negative amounts are refused with what is needed."""
    with pytest.raises(AnalysisError, match="positive ones, of an element other than"):
        witness(("CaO", "CaCO3"), (0.5, 0.5), Dosed(amounts))


@pytest.mark.parametrize("seed", range(5))
def test_truth_is_hardly_ever_refused(seed: int) -> None:
    """Shares off by their own errors agree in all but about 1 of 100 cases."""
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(60):
        moved = np.array(balanced_shares()) * np.exp(rng.normal(0.0, 0.05, 3))
        shares = tuple(float(x) for x in moved / moved.sum())
        result = witness(TITANATE, shares, Dosed(EQUAL))
        refused += result is not None and not result.agrees

    assert refused <= 3
