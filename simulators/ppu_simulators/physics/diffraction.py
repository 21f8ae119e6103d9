"""Powder diffraction of a flat specimen in Bragg-Brentano geometry.

The forward model of the simulated diffractometer, from the crystal structures up:
form factors after International Tables (1992), anomalous dispersion after Cromer and
Liberman, absorption from the same dispersion through the optical theorem, and
intensities on an absolute scale. It carries on purpose effects that an analysis is not
told about: microabsorption, displacement, strained cells, texture, amorphous matter,
residual K-beta, axial divergence and impurities outside the library.

The specimen is taken as infinitely thick and wider than the beam, grains as spheres and
many enough for counting statistics to dominate.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import gemmi
import numpy as np
import numpy.typing as npt

from .crystals import (
    STRUCTURES,
    Structure,
    expand_site,
    space_group_of,
)
from .line_shapes import (
    LineShapes,
    combined_pseudo_voigt,
    component_widths,
    draw_lines,
    with_axial_divergence,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CU_K_ALPHA_MEAN_ANGSTROM: Final = 1.54184
"""Weighted mean of the doublet; dispersion and absorption are taken here."""

_CLASSICAL_ELECTRON_RADIUS_CM: Final = 2.8179403262e-13
_AVOGADRO_PER_MOL: Final = 6.02214076e23

_FLUORESCENCE_YIELD: Final[Mapping[str, float]] = {
    "Ti": 0.214,
    "V": 0.243,
    "Cr": 0.275,
    "Mn": 0.308,
    "Fe": 0.340,
    "Co": 0.373,
    "Ba": 0.097,
    "La": 0.104,
}
"""Yield of elements that Cu K-alpha excites to lines inside 4.02-11.27 keV.

K shell, L3 for Ba and La: Krause, J. Phys. Chem. Ref. Data 8 (1979) 307. The window is
that of the detector whose scans the instrument is calibrated to.
"""


@dataclass(frozen=True)
class EmissionLine:
    """One line of the tube's spectrum.

    Attributes:
        wavelength_angstrom: Wavelength [angstrom].
        ratio: Intensity relative to K-alpha1 behind the filter.
    """

    wavelength_angstrom: float
    ratio: float


CU_TUBE: Final = (
    EmissionLine(1.540598, 1.0),
    EmissionLine(1.544426, 0.5),
    EmissionLine(1.392250, 0.0025),
    EmissionLine(1.476400, 0.0008),
)
"""K-alpha1, K-alpha2, residual K-beta behind 20 um of nickel, and W L-alpha.

Wavelengths and doublet ratio as stored in the files of the Aeris. Its scans show the
K-beta of their strongest line at 0.25 %; tungsten, of an aged tube, is our choice.
"""


@dataclass(frozen=True)
class Diffractometer:
    """The instrument function of a bench diffractometer with a 1-D detector.

    The defaults were fitted to two 8-minute scans of weighed mixtures, V2O5 + anatase
    and ZnO + In2O3, taken on a Malvern Panalytical Aeris: least squares on all points,
    weight fractions fixed to the weighed ones; widths, axial divergence and background
    shared by both scans; cells, domain sizes, displacement, texture and one intensity
    scale free in each. Both scans ended at Rwp 7-8 % and their absolute scales within
    1.3 % of each other (2601 and 2568). Eta was fixed at 0.5, as it trades against the
    domain size. Fluorescence was too weak to be seen in them: its rate is our choice.

    Attributes:
        radius_mm: Radius of the goniometer [mm].
        caglioti_u_deg2: U of H^2 = U tan^2 theta + V tan theta + W [deg^2].
        caglioti_v_deg2: V [deg^2].
        caglioti_w_deg2: W [deg^2].
        eta: Lorentzian share of the instrument's pseudo-Voigt, 0 to 1.
        emission: Lines of the tube.
        soller_rad: Largest axial angle that the two Soller slits pass together [rad];
            the fitted value is close to the 2 x 0.04 of the slits that were mounted.
        scale: Absolute intensity [counts deg angstrom^6 s^-1 cm^-1 electron^-2].
        air_scatter_per_s: Air scatter at 2theta = 10 deg [counts/s per point].
        air_decay_deg: Angle over which it falls by e [deg].
        background_per_s: Polynomial in (2theta - 55) / 45, constant first [counts/s].
        fluorescence_per_s: Rate of a specimen that turned every absorbed quantum into
            a detected one [counts/s per point].
        zero_deg: Zero error of the goniometer, added to every line [deg].
    """

    radius_mm: float = 145.0
    caglioti_u_deg2: float = 0.0090
    caglioti_v_deg2: float = 0.0
    caglioti_w_deg2: float = 0.0073
    eta: float = 0.5
    emission: tuple[EmissionLine, ...] = CU_TUBE
    soller_rad: float = 0.072
    scale: float = 2580.0
    air_scatter_per_s: float = 132.4
    air_decay_deg: float = 10.6
    background_per_s: tuple[float, ...] = (25.86, -8.14, 3.79)
    fluorescence_per_s: float = 5.0
    zero_deg: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an instrument that could not exist.

        Raises:
            ValueError: If a length or rate is not positive, or *eta* outside [0, 1].
        """
        if min(self.radius_mm, self.scale, self.air_decay_deg) <= 0:
            raise ValueError("radius_mm, scale and air_decay_deg must be > 0")
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta must be within [0, 1], not {self.eta}")


@dataclass(frozen=True)
class PhaseInPowder:
    """One crystalline phase as it lies in the holder.

    Attributes:
        structure: Its crystal structure.
        weight_fraction: Share of the whole specimen, 0 to 1.
        size_nm: Size of the coherent domains (Scherrer, K = 0.9) [nm].
        strain: Microstrain, relative spread of lattice spacings.
        cell_scale: Factors on the published a, b and c.
        texture_r: March-Dollase parameter of the preferred orientation; 1 is random,
            below 1 plates lie flat.
        grain_um: Diameter of the grains, for microabsorption [um].
        harmonics: Further preferred orientation: plane, order of the Legendre
            function (even) and coefficient of each term of the density of normals.
        b_shift: Added to every published displacement parameter B [angstrom^2].
        packing: Factor on all intensities: how the grains of this phase happen to lie
            in the beam, and how far its crystals are from the published ones.
    """

    structure: Structure
    weight_fraction: float
    size_nm: float = 150.0
    strain: float = 0.0
    cell_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture_r: float = 1.0
    grain_um: float = 0.0
    harmonics: tuple[tuple[tuple[int, int, int], int, float], ...] = ()
    b_shift: float = 0.0
    packing: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a phase that could not exist.

        Raises:
            ValueError: If a value is outside its range.
        """
        if not 0.0 <= self.weight_fraction <= 1.0:
            raise ValueError(
                f"{self.structure.name}: weight fraction {self.weight_fraction}"
                " is outside [0, 1]"
            )
        if min(self.size_nm, self.texture_r, *self.cell_scale) <= 0:
            raise ValueError(
                f"{self.structure.name}: size, texture and cell factors must be > 0"
            )
        if self.strain < 0 or self.grain_um < 0:
            raise ValueError(f"{self.structure.name}: strain and grain must be >= 0")
        if self.packing <= 0 or any(order % 2 for _, order, _ in self.harmonics):
            raise ValueError(
                f"{self.structure.name}: packing must be > 0, orders of harmonics even"
            )


@dataclass(frozen=True)
class Specimen:
    """What lies on the holder.

    Attributes:
        phases: Crystalline phases; with *amorphous_fraction* they make the whole.
            No phase and no amorphous matter is an empty holder.
        displacement_mm: Height of the surface above the axis [mm].
        amorphous_fraction: Weight fraction of glassy matter.
    """

    phases: tuple[PhaseInPowder, ...] = ()
    displacement_mm: float = 0.0
    amorphous_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Refuse fractions that do not make a whole.

        Raises:
            ValueError: If they neither sum to 1 nor describe an empty holder.
        """
        total = self.amorphous_fraction + sum(p.weight_fraction for p in self.phases)
        if self.amorphous_fraction < 0:
            raise ValueError("amorphous_fraction must be >= 0")
        if not self.is_empty and abs(total - 1.0) > 1e-6:
            raise ValueError(f"weight fractions sum to {total:.6f}, not to 1")

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies on the holder."""
        return not self.phases and self.amorphous_fraction == 0.0


EMPTY_HOLDER: Final = Specimen()


@functools.lru_cache(maxsize=128)
def dispersion(
    element: str, wavelength_angstrom: float = CU_K_ALPHA_MEAN_ANGSTROM
) -> tuple[float, float]:
    """Return f' and f'' of an element (Cromer and Liberman 1970) [electrons]."""
    real, imaginary = gemmi.cromer_liberman(
        z=gemmi.Element(element).atomic_number, energy=gemmi.hc / wavelength_angstrom
    )
    return float(real), float(imaginary)


def mass_attenuation_of_element(
    element: str, wavelength_angstrom: float = CU_K_ALPHA_MEAN_ANGSTROM
) -> float:
    """Return the mass attenuation coefficient of an element [cm^2/g].

    The optical theorem on f'': mu/rho = 2 r_e lambda f'' N_A / A. Photoabsorption only,
    so 2-8 % below tables that include scattering for elements lighter than Si.
    """
    f_imaginary = dispersion(element, wavelength_angstrom)[1]
    cross_section_cm2 = (
        2.0 * _CLASSICAL_ELECTRON_RADIUS_CM * wavelength_angstrom * 1e-8 * f_imaginary
    )
    return cross_section_cm2 * _AVOGADRO_PER_MOL / float(gemmi.Element(element).weight)


@functools.lru_cache(maxsize=128)
def mass_attenuation(structure: Structure) -> float:
    """Return the mass attenuation coefficient of a phase for Cu K-alpha [cm^2/g]."""
    return sum(
        fraction * mass_attenuation_of_element(element)
        for element, fraction in structure.mass_fractions.items()
    )


@dataclass(frozen=True)
class LineList:
    """The reflections of one structure, one row for each family of equivalent planes.

    Attributes:
        hkl: Indices (n, 3).
        d_angstrom: Spacings in the published cell (n,) [angstrom].
        multiplicity: Number of equivalent planes, Friedel mates included (n,).
        strength: Multiplicity times |F|^2 averaged over Friedel mates (n,)
            [electrons^2].
        cos2_to_axis: Squared cosines between each equivalent plane normal and the axis
            of preferred orientation (n, m); None without such an axis.
    """

    hkl: IntArray
    d_angstrom: FloatArray
    multiplicity: IntArray
    strength: FloatArray
    cos2_to_axis: FloatArray | None


def _equivalent_planes(structure: Structure, hkl: IntArray) -> IntArray:
    """Return images of *hkl* (n, 3) under the Laue group, repeats kept (n, m, 3)."""
    operations = space_group_of(structure).operations().sym_ops
    rotations = np.array([op.rot for op in operations], dtype=np.int64) // gemmi.Op.DEN
    images = np.einsum("ni,mij->nmj", hkl, rotations)
    return np.concatenate([images, -images], axis=1)


def _multiplicities(planes: IntArray) -> IntArray:
    """Count distinct planes in each row of *planes* (n, m, 3)."""
    base = 2 * int(np.abs(planes).max(initial=0)) + 1
    keys = np.sort((planes[..., 0] * base + planes[..., 1]) * base + planes[..., 2])
    return np.asarray(1 + (np.diff(keys, axis=1) != 0).sum(axis=1), dtype=np.int64)


def _form_factor(element: str, s_squared: FloatArray) -> FloatArray:
    """Return the IT92 form factor at (sin theta / lambda)^2 (n,) [electrons]."""
    coefficients = np.array(gemmi.Element(element).it92.get_coefs())
    amplitudes, exponents, constant = (
        coefficients[:4],
        coefficients[4:8],
        coefficients[8],
    )
    decay = np.exp(-np.multiply.outer(s_squared, exponents))
    return np.asarray(decay @ amplitudes + constant, dtype=np.float64)


@functools.lru_cache(maxsize=128)
def line_list(
    structure: Structure, min_d_angstrom: float = 0.85, *, with_dispersion: bool = True
) -> LineList:
    """Return the reflections of *structure* with d above *min_d_angstrom*.

    Args:
        structure: The crystal.
        min_d_angstrom: Smallest spacing listed [angstrom].
        with_dispersion: Whether f' and f'' of Cu K-alpha are included.
    """
    cell = gemmi.UnitCell(*structure.cell)
    hkl = np.asarray(
        gemmi.make_miller_array(
            cell, space_group_of(structure), min_d_angstrom, unique=True
        ),
        dtype=np.int64,
    )
    d = np.asarray(cell.calculate_d_array(hkl.astype(np.int32)), dtype=np.float64)
    s_squared = 1.0 / (4.0 * d**2)
    f_plus = np.zeros(len(hkl), dtype=np.complex128)
    f_minus = np.zeros(len(hkl), dtype=np.complex128)
    for index, site in enumerate(structure.sites):
        scattering = _form_factor(site.element, s_squared).astype(np.complex128)
        if with_dispersion:
            scattering += complex(*dispersion(site.element))
        scattering *= site.occupancy * np.exp(-site.b_iso * s_squared)
        waves = np.exp(2j * np.pi * (hkl @ expand_site(structure, index).T)).sum(axis=1)
        f_plus += scattering * waves
        f_minus += scattering * waves.conj()
    planes = _equivalent_planes(structure, hkl)
    multiplicity = _multiplicities(planes)
    strength = multiplicity * (np.abs(f_plus) ** 2 + np.abs(f_minus) ** 2) / 2.0
    allowed = strength > 1e-9 * strength.max(initial=0.0)
    cos2: FloatArray | None = None
    if structure.preferred_orientation is not None:
        reciprocal = np.array(cell.frac.mat.tolist())
        normals = planes[allowed] @ reciprocal
        axis = np.asarray(structure.preferred_orientation) @ reciprocal
        cosines = (normals @ axis) / (
            np.linalg.norm(normals, axis=-1) * np.linalg.norm(axis)
        )
        cos2 = np.clip(cosines**2, 0.0, 1.0)
    return LineList(
        hkl[allowed], d[allowed], multiplicity[allowed], strength[allowed], cos2
    )


def lorentz_polarisation(two_theta_deg: FloatArray) -> FloatArray:
    """Return (1 + cos^2 2theta) / (sin^2 theta cos theta), no monochromator (n,)."""
    theta = np.radians(two_theta_deg) / 2.0
    return np.asarray(
        (1.0 + np.cos(2.0 * theta) ** 2) / (np.sin(theta) ** 2 * np.cos(theta))
    )


def bragg_two_theta(d_angstrom: FloatArray, wavelength_angstrom: float) -> FloatArray:
    """Return 2theta of spacings (n,) [deg]; NaN where the wavelength is too long."""
    sine = wavelength_angstrom / (2.0 * np.asarray(d_angstrom))
    return np.degrees(2.0 * np.arcsin(np.where(sine < 1.0, sine, np.nan)))


def displacement_shift(
    two_theta_deg: FloatArray, displacement_mm: float, radius_mm: float
) -> FloatArray:
    """Return the shift of lines of a displaced specimen, -2 s cos(theta) / R [deg]."""
    theta = np.radians(two_theta_deg) / 2.0
    return np.degrees(-2.0 * displacement_mm * np.cos(theta) / radius_mm)


def march_dollase(cos2_to_axis: FloatArray, r: float) -> FloatArray:
    """Return the March-Dollase density (r^2 cos^2 + sin^2 / r)^(-3/2).

    Its mean over all directions is 1 for every *r* (Dollase, J. Appl. Cryst. 19 (1986)
    267).

    Args:
        cos2_to_axis: Squared cosines to the axis of preferred orientation.
        r: March parameter; must be > 0.
    """
    return np.asarray((r**2 * cos2_to_axis + (1.0 - cos2_to_axis) / r) ** -1.5)


def harmonic_density(
    structure: Structure,
    hkl: IntArray,
    terms: tuple[tuple[tuple[int, int, int], int, float], ...],
) -> FloatArray:
    """Return the density of normals of planes *hkl* (n, 3), 1 in a random powder (n,).

    A sum of Legendre functions of the angle to given planes, averaged over equivalent
    planes: symmetrised harmonics (Von Dreele, J. Appl. Cryst. 30 (1997) 517). Where
    the sum falls below 0.02 it is raised to that.
    """
    reciprocal = np.array(gemmi.UnitCell(*structure.cell).frac.mat.tolist())
    normals = _equivalent_planes(structure, hkl) @ reciprocal
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    density = np.ones(len(hkl))
    for plane, order, coefficient in terms:
        axis = np.asarray(plane) @ reciprocal
        cosine = normals @ (axis / np.linalg.norm(axis))
        legendre = np.polynomial.legendre.legval(cosine, [0.0] * order + [1.0])
        density += coefficient * legendre.mean(axis=1)
    return np.maximum(density, 0.02)


@functools.lru_cache(maxsize=1)
def _sphere_path_lengths() -> FloatArray:
    """Return path lengths in a unit sphere, entering and leaving at right angles (n,).

    Points lie on a cubic grid, so every one stands for the same volume.
    """
    steps = (np.arange(24) + 0.5) / 12.0 - 1.0
    x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1.0
    x, y, z = x[inside], y[inside], z[inside]
    radius2 = x**2 + y**2 + z**2
    entering = x + np.sqrt(x**2 + 1.0 - radius2)
    leaving = -y + np.sqrt(y**2 + 1.0 - radius2)
    return np.asarray(entering + leaving)


def brindley_factor(contrast: float) -> float:
    """Return the absorption factor of spherical grains in a mixture.

    The mean of exp(-contrast x) over the paths x (in radii) of beams scattered through
    90 deg inside a sphere (Brindley, Phil. Mag. 36 (1945) 347).

    Args:
        contrast: (mu of the grain - mean mu of the powder) times the grain's radius.
    """
    return float(np.exp(-contrast * _sphere_path_lengths()).mean())


def line_widths(
    instrument: Diffractometer,
    two_theta_deg: FloatArray,
    size_nm: float,
    strain: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the full width [deg] and eta of pseudo-Voigt lines, each (n,).

    The instrument's Caglioti width, plus Scherrer K lambda / (L cos theta) and strain
    4 e tan theta as Lorentzian parts.
    """
    theta = np.radians(two_theta_deg) / 2.0
    tangent = np.tan(theta)
    squared = (
        instrument.caglioti_u_deg2 * tangent**2
        + instrument.caglioti_v_deg2 * tangent
        + instrument.caglioti_w_deg2
    )
    width = np.sqrt(np.maximum(squared, 1e-6))
    gaussian, lorentzian = component_widths(width, instrument.eta)
    scherrer = 0.9 * CU_K_ALPHA_MEAN_ANGSTROM / (10.0 * size_nm * np.cos(theta))
    lorentzian = lorentzian + np.degrees(scherrer + 4.0 * strain * tangent)
    return combined_pseudo_voigt(gaussian, lorentzian)


_RANGE_MARGIN_DEG: Final = 3.0


def _smallest_spacing(two_theta: FloatArray, instrument: Diffractometer) -> float:
    """Return the least d seen in the range, rounded down so that lists are reused."""
    shortest = min(line.wavelength_angstrom for line in instrument.emission)
    last = min(float(two_theta[-1]) + _RANGE_MARGIN_DEG, 175.0)
    spacing = shortest / (2.0 * math.sin(math.radians(last / 2.0)))
    return math.floor(spacing * 20.0) / 20.0


def _absorption_of_mixture(specimen: Specimen) -> float:
    """Return mu/rho of the powder [cm^2/g]; glass absorbs like the crystals' mean."""
    crystalline = sum(phase.weight_fraction for phase in specimen.phases)
    if crystalline == 0.0:
        return mass_attenuation(STRUCTURES["TiO2-rutile"])
    return (
        sum(p.weight_fraction * mass_attenuation(p.structure) for p in specimen.phases)
        / crystalline
    )


def _microabsorption(specimen: Specimen, phase: PhaseInPowder) -> float:
    """Return the Brindley factor of one phase; 1 for vanishing grains."""
    if phase.grain_um == 0.0:
        return 1.0
    mixture = _absorption_of_mixture(specimen)
    crystalline = sum(p.weight_fraction for p in specimen.phases)
    volume = sum(
        p.weight_fraction / p.structure.density_g_per_cm3 for p in specimen.phases
    )
    grain = mass_attenuation(phase.structure) * phase.structure.density_g_per_cm3
    radius_cm = phase.grain_um * 0.5e-4
    return brindley_factor((grain - mixture * crystalline / volume) * radius_cm)


def _phase_lines(
    specimen: Specimen,
    phase: PhaseInPowder,
    instrument: Diffractometer,
    two_theta: FloatArray,
) -> Iterator[LineShapes]:
    """Yield the lines of one phase, one set for each emission line of the tube."""
    structure = phase.structure
    reflections = line_list(structure, _smallest_spacing(two_theta, instrument))
    a, b, c, alpha, beta, gamma = structure.cell
    on_a, on_b, on_c = phase.cell_scale
    cell = gemmi.UnitCell(a * on_a, b * on_b, c * on_c, alpha, beta, gamma)
    spacing = np.asarray(cell.calculate_d_array(reflections.hkl.astype(np.int32)))
    weight = phase.weight_fraction / (
        structure.density_g_per_cm3 * _absorption_of_mixture(specimen)
    )
    strength = reflections.strength * (
        instrument.scale
        * weight
        * _microabsorption(specimen, phase)
        / structure.volume_angstrom3**2
    )
    if reflections.cos2_to_axis is not None and phase.texture_r != 1.0:
        strength = strength * march_dollase(
            reflections.cos2_to_axis, phase.texture_r
        ).mean(axis=1)
    if phase.harmonics:
        strength = strength * harmonic_density(
            structure, reflections.hkl, phase.harmonics
        )
    # |F|^2 falls by exp(-2 B s^2), s = sin(theta) / lambda = 1 / 2d.
    strength = strength * phase.packing * np.exp(-0.5 * phase.b_shift / spacing**2)
    for emission in instrument.emission:
        position = bragg_two_theta(spacing, emission.wavelength_angstrom)
        area = emission.ratio * strength * lorentz_polarisation(position)
        position = position + instrument.zero_deg
        position = position + displacement_shift(
            position, specimen.displacement_mm, instrument.radius_mm
        )
        seen = (
            (position > two_theta[0] - _RANGE_MARGIN_DEG)
            & (position < two_theta[-1] + _RANGE_MARGIN_DEG)
            & (area > 0.0)
        )
        position = position[seen]
        width, eta = line_widths(instrument, position, phase.size_nm, phase.strain)
        yield with_axial_divergence(
            LineShapes(position, width, eta, area[seen]), instrument.soller_rad
        )


_HUMP_CENTRE_DEG: Final = 27.0
_HUMP_SIGMA_DEG: Final = 5.5


@functools.lru_cache(maxsize=1)
def _amorphous_strength() -> float:
    """Return what glass scatters into its hump, per weight / (mu/rho) and scale.

    Our choice: as much as rutile puts into its lines from 15 to 60 deg.
    """
    rutile = STRUCTURES["TiO2-rutile"]
    lines = line_list(rutile)
    position = bragg_two_theta(lines.d_angstrom, CU_TUBE[0].wavelength_angstrom)
    inside = (position > 15.0) & (position < 60.0)
    area = (lines.strength * lorentz_polarisation(position))[inside].sum()
    doublet = CU_TUBE[0].ratio + CU_TUBE[1].ratio
    return doublet * float(
        area / (rutile.volume_angstrom3**2 * rutile.density_g_per_cm3)
    )


def background_rate(
    specimen: Specimen, instrument: Diffractometer, two_theta: FloatArray
) -> FloatArray:
    """Return the rate without Bragg lines (n,) [counts/s per point].

    Air scatter and a polynomial come from the instrument alone; a specimen adds its
    fluorescence and, where it is glassy, a hump.
    """
    x = (two_theta - 55.0) / 45.0
    rate = np.polynomial.polynomial.polyval(x, instrument.background_per_s)
    rate = np.maximum(rate, 0.0) + instrument.air_scatter_per_s * np.exp(
        -(two_theta - 10.0) / instrument.air_decay_deg
    )
    if specimen.is_empty:
        return np.asarray(rate, dtype=np.float64)
    mixture = _absorption_of_mixture(specimen)
    glow = sum(
        phase.weight_fraction
        * fraction
        * mass_attenuation_of_element(element)
        * _FLUORESCENCE_YIELD.get(element, 0.0)
        for phase in specimen.phases
        for element, fraction in phase.structure.mass_fractions.items()
    )
    rate = rate + instrument.fluorescence_per_s * glow / mixture
    if specimen.amorphous_fraction > 0.0:
        area = instrument.scale * specimen.amorphous_fraction / mixture
        area *= _amorphous_strength()
        hump = np.exp(-0.5 * ((two_theta - _HUMP_CENTRE_DEG) / _HUMP_SIGMA_DEG) ** 2)
        rate = rate + area * hump / (_HUMP_SIGMA_DEG * math.sqrt(2.0 * math.pi))
    return np.asarray(rate, dtype=np.float64)


def expected_counts(
    specimen: Specimen,
    instrument: Diffractometer,
    two_theta: FloatArray,
    seconds_per_step: float,
) -> FloatArray:
    """Return the mean number of counts at each point of a scan.

    The integrated intensity of line j of phase i is
    scale w_i / (rho_i mu/rho) * m |F|^2 LP / V^2 * texture * microabsorption
    [counts deg / s]: thick specimen, symmetric reflection.

    Args:
        specimen: What lies on the holder.
        instrument: The diffractometer.
        two_theta: Ascending detector angles (n,) [deg].
        seconds_per_step: Time that every point is counted [s]. A 1-D detector counts
            each point far longer than scan time / n.

    Returns:
        Expected counts (n,).

    Raises:
        ValueError: If *two_theta* is not ascending or the time not positive.
    """
    angles = np.asarray(two_theta, dtype=np.float64)
    if angles.ndim != 1 or len(angles) == 0 or np.any(np.diff(angles) <= 0):
        raise ValueError("two_theta must be a one-dimensional ascending array")
    if seconds_per_step <= 0:
        raise ValueError(f"seconds_per_step must be > 0, not {seconds_per_step}")
    rate = background_rate(specimen, instrument, angles)
    sets = [
        lines
        for phase in specimen.phases
        if phase.weight_fraction > 0.0
        for lines in _phase_lines(specimen, phase, instrument, angles)
    ]
    if sets:
        rate = rate + draw_lines(
            angles,
            LineShapes(
                np.concatenate([lines.centre for lines in sets]),
                np.concatenate([lines.width for lines in sets]),
                np.concatenate([lines.eta for lines in sets]),
                np.concatenate([lines.area for lines in sets]),
            ),
        )
    return rate * seconds_per_step


def measure(
    specimen: Specimen,
    instrument: Diffractometer,
    two_theta: FloatArray,
    seconds_per_step: float,
    rng: np.random.Generator,
) -> IntArray:
    """Return the counts of one scan (n,): Poisson around the expected ones.

    Args and errors as in `expected_counts`; all randomness comes from *rng*.
    """
    mean = expected_counts(specimen, instrument, two_theta, seconds_per_step)
    return rng.poisson(mean).astype(np.int64)


AERIS_SECONDS_PER_STEP: Final = 12.495
"""Time for which the Aeris counts each point in its 8-minute scan [s]."""


def aeris_two_theta() -> FloatArray:
    """Return the 8282 detector angles of the 8-minute scan of the Aeris [deg]."""
    return np.linspace(10.00943322, 99.99442286, 8282)


def line_intensities(structure: Structure) -> FloatArray:
    """Return the integrated intensity per gram of each line of `line_list` (n,).

    Cu K-alpha, random orientation, per unit mu/rho; families of planes that share one
    spacing each carry the intensity of all of them, since no scan can tell them apart.
    """
    lines = line_list(structure)
    position = bragg_two_theta(lines.d_angstrom, CU_K_ALPHA_MEAN_ANGSTROM)
    intensity = np.nan_to_num(lines.strength * lorentz_polarisation(position))
    intensity /= structure.volume_angstrom3**2 * structure.density_g_per_cm3
    same = np.abs(np.subtract.outer(lines.d_angstrom, lines.d_angstrom)) < 1e-5
    return np.asarray(np.where(same, intensity, 0.0).sum(axis=1))


def reference_intensity_ratio(structure: Structure) -> float:
    """Return I/Ic: the strongest line over corundum 113, mixed 1:1 by weight."""
    corundum = STRUCTURES["Al2O3"]
    is_113 = (line_list(corundum).hkl == (1, 1, 3)).all(axis=1)
    reference = line_intensities(corundum)[is_113]
    return float(line_intensities(structure).max() / reference[0])
