"""Preferred orientation against the numbers that symmetry allows."""

from __future__ import annotations

import numpy as np
import pytest

from ppu_protocols.analysis._phase_model import PhaseModel
from ppu_protocols.analysis._texture import Texture
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.scan import Scan

SCAN = Scan.from_counts(np.linspace(10.0, 120.0, 200), np.ones(200))


@pytest.mark.parametrize(
    ("name", "n_terms"),
    [
        ("Si", 1),  # m-3m
        ("TiO2-rutile", 3),  # 4/mmm
        ("YBa2Cu3O7", 5),  # mmm
        ("CaCO3", 3),  # -3m
        ("CuO", 8),  # 2/m
    ],
)
def test_harmonics_to_order_four_are_as_many_as_symmetry_allows(
    name: str, n_terms: int
) -> None:
    """Coefficients to L = 4 of the Laue groups are those of the published table."""
    model = PhaseModel(load_phase(name), SCAN, Texture(order=4))

    assert model.textured.n_parameters == n_terms


@pytest.mark.parametrize("texture", [Texture((0, 0, 1)), Texture(order=4)])
def test_derivatives_agree_with_differences(texture: Texture) -> None:
    """The change of every line by every value is the numerical one."""
    model = PhaseModel(load_phase("TiO2-rutile"), SCAN, texture)
    values = np.full(model.textured.n_parameters, -0.1)

    for at, slope in enumerate(model.texture_derivatives(values)):
        step = np.zeros_like(values)
        step[at] = 1e-6
        change = (model.areas(values + step) - model.areas(values - step)) / 2e-6
        np.testing.assert_allclose(slope, change, rtol=1e-5, atol=1e-9)


def test_density_of_normals_is_never_negative() -> None:
    """However large a coefficient, no line has a negative intensity."""
    model = PhaseModel(load_phase("CuO"), SCAN, Texture(order=4))
    values = np.full(model.textured.n_parameters, 5.0)

    assert (model.areas(values) >= 0.0).all()
