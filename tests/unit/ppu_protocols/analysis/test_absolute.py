"""Absolute fractions and mounts, on simulated specimens whose glass is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from ppu_protocols.analysis.absolute import (
    absolute_by_constant,
    absolute_by_external,
    absolute_by_spike,
    instrument_constant,
)
from ppu_protocols.analysis.cif import load_phase
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.quantify import Quantification, quantify
from ppu_protocols.analysis.replicates import combine
from ppu_protocols.analysis.scan import Scan
from ppu_simulators.physics.diffraction import (
    Diffractometer,
    aeris_two_theta,
    measure,
)
from ppu_simulators.physics.specimens import imperfect_specimen


@cache
def analysed(
    shares: tuple[tuple[str, float], ...], glass: float, seed: int
) -> Quantification:
    """Return the analysis of a simulated mixture with a known part of glass."""
    rng = np.random.default_rng(seed)
    specimen = imperfect_specimen(
        dict(shares), rng, amorphous_fraction=glass, impurity_fraction=0.0
    )
    angles = aeris_two_theta()
    counts = measure(specimen, Diffractometer(), angles, 12.495, rng)
    scan = Scan.from_counts(angles, counts)
    return quantify(scan, [load_phase(name) for name, _ in shares])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("amorphous", [0.0, 0.5])
def test_spike_gives_the_amorphous_part(amorphous: float, seed: int) -> None:
    """Of rutile that is half glass, with 20 wt% of corundum, the glass is found."""
    crystal = 0.8 * (1.0 - amorphous)
    shares = (("TiO2-rutile", crystal), ("Al2O3", 0.2))

    found = absolute_by_spike(analysed(shares, 0.8 * amorphous, seed), "Al2O3", 0.2)

    assert abs(found.amorphous - amorphous) < 3.0 * found.amorphous_error
    assert found.amorphous_error < 0.25
    assert found.fractions["TiO2-rutile"] == pytest.approx(1.0 - found.amorphous)


def test_constant_of_an_instrument_gives_absolute_fractions() -> None:
    """A scan of pure rutile tells that another specimen is 40 % glass."""
    pure = analysed((("TiO2-rutile", 1.0),), 0.0, 3)
    half = analysed((("TiO2-rutile", 0.6),), 0.4, 3)

    found = absolute_by_constant(
        half, instrument_constant(pure), load_phase("TiO2-rutile").mass_fractions
    )

    assert found.fractions["TiO2-rutile"] == pytest.approx(0.6, abs=0.12)
    assert abs(found.amorphous - 0.4) < 3.0 * found.amorphous_error


@pytest.mark.parametrize("glass", [0.0, 0.2, 0.4, 0.7])
def test_external_standard_finds_the_amorphous_part(glass: float) -> None:
    """Of rutile with any glass, by a scan of pure corundum."""
    pure = analysed((("Al2O3", 1.0),), 0.0, 4)
    sample = analysed((("TiO2-rutile", 1.0 - glass),), glass, 5)

    found = absolute_by_external(sample, pure, "TiO2")

    assert abs(found.amorphous - glass) < 3.0 * found.amorphous_error
    assert found.amorphous_error < 0.15
    assert found.whole == "the sample"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"counting_time": 2.0}, "time a point is 2 s, that of .* 1 s"),
        ({"k_alpha_1": 1.7890}, "wavelength is 1.789 angstrom, that of .* 1.54"),
        ({"polarization": 0.8}, "polarization is 0.8, that of .* 1;"),
        ({"two_theta": np.linspace(5.0, 100.0, 5000)}, "step is 0.019"),
    ],
)
def test_external_standard_that_was_measured_otherwise_is_refused(
    change: dict[str, Any], what: str
) -> None:
    """Its constant belongs to one way of measuring."""
    pure = analysed((("Al2O3", 1.0),), 0.0, 4)
    other = replace(
        pure,
        fitted=replace(pure.fitted, scan=replace(pure.fitted.scan, **change)),
    )
    sample = analysed((("TiO2-rutile", 1.0),), 0.0, 5)
    with pytest.raises(AnalysisError, match=what):
        absolute_by_external(sample, other, "TiO2")


def test_standard_that_is_not_there_is_refused() -> None:
    """A spike must be among the phases found, in a possible amount."""
    result = analysed((("TiO2-rutile", 0.8), ("Al2O3", 0.2)), 0.0, 0)

    with pytest.raises(AnalysisError, match="'ZnO' was not found"):
        absolute_by_spike(result, "ZnO", 0.2)
    with pytest.raises(AnalysisError, match="above 0 and below 100"):
        absolute_by_spike(result, "Al2O3", 1.2)
    with pytest.raises(AnalysisError, match="one pure phase"):
        instrument_constant(result)


def test_mounts_reduce_what_they_draw_anew_and_nothing_else() -> None:
    """Four mounts are surer than one, but not twice as sure."""
    shares = (("TiO2-rutile", 0.5), ("CaCO3", 0.5))
    results = [analysed(shares, 0.0, seed) for seed in range(4)]
    one = np.mean([results[i].phases[0].standard_error for i in range(4)])

    together = combine(results)
    error = together.standard_errors["CaCO3"]

    assert 0.5 * one < error < 1.05 * one
    assert together.scatter["CaCO3"] > 0.0
    assert sum(together.fractions.values()) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(AnalysisError, match="two or more"):
        combine(results[:1])
