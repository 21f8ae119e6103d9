"""Products by name: each can be weighed, fired and recognised."""

import functools
from typing import Any

import numpy as np
import pytest

from ppu.core.errors import ConfigurationError
from ppu.plans.protocol import find_protocol
from ppu_protocols.analysis.cif import load_phase, phase_library
from ppu_protocols.analysis.quantify import quantify
from ppu_protocols.analysis.scan import Scan
from ppu_protocols.stoichiometry import balance_recipe
from ppu_protocols.synthesis import SolidStateRecipe
from ppu_protocols.targets import TARGETS, target_named
from ppu_simulators.instruments.panalytical_aeris import specimen_of
from ppu_simulators.physics.diffraction import (
    AERIS_SECONDS_PER_STEP,
    Diffractometer,
    aeris_two_theta,
    measure,
)
from ppu_simulators.physics.matter import Matter, merge
from ppu_simulators.physics.milling import MIXING_ROBOT, mill
from ppu_simulators.physics.reactions import advance_on_grid
from ppu_simulators.world import phase_of


@functools.cache
def fired(name: str) -> Matter:
    """Return the powders of a target after its usual firing in air."""
    target = TARGETS[name]
    shares = balance_recipe(name, target.precursors, target.excess).mass_fractions
    matter = merge(Matter.of(phase_of(p), 4.0 * x) for p, x in shares.items())
    mill(matter, target.milling_s, MIXING_ROBOT)
    per_kelvin = 60.0 / target.ramp_degc_per_min
    ramp = (target.temperature_degc - 25.0) * per_kelvin

    def program(time: float) -> float:
        below = max(ramp - time, time - ramp - target.hold_s, 0.0) / per_kelvin
        return target.temperature_degc - below + 273.15

    advance_on_grid(matter, 0.0, 2.0 * ramp + target.hold_s, program)
    return matter


@pytest.mark.parametrize("name", TARGETS)
def test_target_is_a_recipe_of_known_phases(name: str) -> None:
    """Settings are a valid recipe; every candidate is bundled, the target is one."""
    target = TARGETS[name]
    recipe = SolidStateRecipe(**target.settings())

    assert recipe.target == name == target.candidate_phases[0]
    assert sum(dose.mass_g for dose in recipe.doses()) == pytest.approx(
        target.batch_mass_g
    )
    assert set(target.candidate_phases) <= set(phase_library())
    assert target.source


@pytest.mark.parametrize("name", TARGETS)
def test_target_forms_at_over_90_percent_and_stays_powder_when_fired_as_usual(
    name: str,
) -> None:
    """One firing with these settings makes the product, and nothing melts."""
    matter = fired(name)

    assert matter.weight_fractions()[name] > 0.9
    assert matter.melted is None


@pytest.mark.parametrize("name", TARGETS)
def test_target_is_found_in_its_pattern_when_fired_as_usual(name: str) -> None:
    """The analysis returns the share of the product within 5 wt%."""
    matter, angles = fired(name), aeris_two_theta()
    rng = np.random.default_rng(1)
    counts = measure(
        specimen_of(matter, rng), Diffractometer(), angles, AERIS_SECONDS_PER_STEP, rng
    )
    result = quantify(
        Scan.from_counts(angles, counts),
        [load_phase(candidate) for candidate in TARGETS[name].candidate_phases],
    )
    found = {phase.name: phase.weight_fraction for phase in result.phases}

    assert found[name] == pytest.approx(matter.weight_fractions()[name], abs=0.05)


def test_unknown_target_is_refused_with_a_suggestion() -> None:
    """A misspelt formula names the one that was meant."""
    assert target_named("LiCoO2") is TARGETS["LiCoO2"]
    with pytest.raises(ConfigurationError, match=r"'LiCoO3'.*did you mean 'LiCoO2'"):
        target_named("LiCoO3")


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"target": ["BaTiO3"]}, r": target: .*string; given was \['BaTiO3'\]"),
        ({"target": "YBaCuO"}, r": target: YBaCuO is not known by name .* say its"),
        ({"gas_flow_ml_per_min": 50}, r": gas_flow_ml_per_min: 50 ml/min of what\?"),
    ],
)
def test_recipe_that_means_nothing_is_refused_with_its_parameter(
    asked: dict[str, Any], complaint: str
) -> None:
    """Each complaint begins with the name of the parameter."""
    protocol = find_protocol("solid_state_synthesis")
    with pytest.raises(ConfigurationError, match=complaint):
        protocol.parse(asked)
