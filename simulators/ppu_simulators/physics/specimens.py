"""Specimens as they are mounted: strained, textured, uneven, with what is unlisted."""

import math
from collections.abc import Mapping

import numpy as np

from .crystals import IMPURITIES, Structure, structure_named
from .diffraction import PhaseInPowder, Specimen

__all__ = ["imperfect_specimen"]


def _cell_factors(
    structure: Structure, rng: np.random.Generator, severity: float
) -> tuple[float, float, float]:
    """Draw factors on a, b and c; axes that symmetry makes equal stay equal."""
    common = rng.uniform(-1e-3, 1e-3)
    own = rng.uniform(-3e-4, 3e-4, size=3)
    a, b, c = structure.cell[:3]
    if math.isclose(a, b):
        own[1] = own[0]
    if math.isclose(a, c):
        own[2] = own[0]
    factors = 1.0 + severity * (common + own)
    return float(factors[0]), float(factors[1]), float(factors[2])


def _imperfect_phase(
    structure: Structure,
    weight_fraction: float,
    rng: np.random.Generator,
    severity: float,
    grain_um: float | None,
) -> PhaseInPowder:
    # Every number is drawn whether used or not: the stream stays aligned.
    cell_scale = _cell_factors(structure, rng, severity)
    size_nm = 30.0 * 10.0 ** rng.uniform(0.0, 1.0)
    strain = severity * rng.uniform(0.0, 6e-4)
    texture = 1.0 - severity * 0.4 * rng.uniform() ** 2
    drawn_um = float(np.exp(rng.normal(0.0, math.log(2.0))))
    grain = drawn_um if grain_um is None else grain_um
    b_shift = severity * float(np.clip(rng.normal(0.0, 0.3), -0.9, 0.9))
    packing = float(np.exp(severity * np.clip(rng.normal(0.0, 0.04), -0.12, 0.12)))
    return PhaseInPowder(
        structure=structure,
        weight_fraction=weight_fraction,
        size_nm=size_nm,
        strain=strain,
        cell_scale=cell_scale,
        texture_r=texture if structure.preferred_orientation is not None else 1.0,
        grain_um=severity * grain,
        b_shift=b_shift,
        packing=packing,
    )


def imperfect_specimen(
    weight_fractions: Mapping[str, float],
    rng: np.random.Generator,
    *,
    severity: float = 1.0,
    amorphous_fraction: float | None = None,
    impurity_fraction: float | None = None,
    grains_um: Mapping[str, float] | None = None,
) -> Specimen:
    """Draw a specimen with everything that an analysis does not know.

    Ranges (our choice): surface within 0.1 mm of the axis, cells within 1.3e-3 of the
    published ones, domains 30-300 nm, microstrain to 6e-4, March-Dollase r 0.6-1
    (mostly near 1), grains of 1 um within a factor of 2, displacement parameters within
    0.3 angstrom^2 (one deviation) of the published ones, intensities of a phase within
    4 % (round robins; ASTM C1365 on repacked specimens), glass to 5 wt%, and in one
    specimen of three an impurity outside the library of 0.5-2 wt%.

    Args:
        weight_fractions: Fraction of each phase by name; scaled to sum to 1 among
            themselves, then reduced by glass and impurity.
        rng: Source of all randomness.
        severity: Factor on all imperfections but the domain size; 0 gives an ideal
            powder, 1 a well made one, at most 1.5.
        amorphous_fraction: Fixed weight fraction of glass instead of a drawn one.
        impurity_fraction: Fixed weight fraction of the impurity.
        grains_um: Diameters of the grains of phases by name, instead of drawn ones.

    Raises:
        KeyError: If a phase has no structure.
        ValueError: If a fraction is negative, all are zero, glass and impurity leave
            no room, or *severity* is out of range.
    """
    if not 0.0 <= severity <= 1.5:
        raise ValueError(f"severity must be within [0, 1.5], not {severity}")
    total = sum(weight_fractions.values())
    if total <= 0.0 or min(weight_fractions.values(), default=0.0) < 0.0:
        raise ValueError(f"weight fractions must be >= 0 and not all 0: {total}")
    displacement = severity * rng.uniform(-0.1, 0.1)
    drawn_glass = severity * rng.uniform(0.0, 0.05)
    is_contaminated = rng.uniform() < 1.0 / 3.0
    drawn_impurity = severity * rng.uniform(0.005, 0.02) * is_contaminated
    outsiders = [IMPURITIES[n] for n in IMPURITIES if n not in weight_fractions]
    # Drawn in any case, so that what follows has the same luck.
    draw = int(rng.integers(max(len(outsiders), 1)))
    glass = drawn_glass if amorphous_fraction is None else amorphous_fraction
    impurity = drawn_impurity if impurity_fraction is None else impurity_fraction
    if not outsiders:
        impurity = 0.0  # everything that could be a stranger is meant to be there
    room = 1.0 - glass - impurity
    if room <= 0.0 or min(glass, impurity) < 0.0:
        raise ValueError(f"glass {glass} and impurity {impurity} leave no room")
    grains = grains_um or {}
    phases = [
        _imperfect_phase(
            structure_named(name),
            room * fraction / total,
            rng,
            severity,
            grains.get(name),
        )
        for name, fraction in weight_fractions.items()
    ]
    if impurity > 0.0:
        phases.append(_imperfect_phase(outsiders[draw], impurity, rng, severity, None))
    return Specimen(tuple(phases), displacement, glass)
