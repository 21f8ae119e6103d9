"""Crystal structures from CIF files in the many forms in which people bring them."""

from __future__ import annotations

import importlib.resources
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gemmi
import numpy as np

from ppu_protocols.analysis.elements import ELECTRONEGATIVITY
from ppu_protocols.analysis.errors import AnalysisError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

DEFAULT_B_ISO = 0.5
"""Displacement parameter B of an atom whose file states none [Å²]."""

_CLOSE = 1.0  # apart are no two atoms without hydrogen [Å]
_CLOSE_HYDROGEN = 0.6  # apart are no two atoms [Å]
_SAME_PLACE = 0.1  # images of one atom closer than this are one atom [Å]
_LARGEST_VOLUME = 50_000.0  # lines beyond count are no pattern any more [Å³]

_CELL_TAGS = (
    "_cell_length_a",
    "_cell_length_b",
    "_cell_length_c",
    "_cell_angle_alpha",
    "_cell_angle_beta",
    "_cell_angle_gamma",
)
_OPERATOR_TAGS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop.operation_xyz",
)
_NAME_TAGS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_space_group_name_H-M_full",
    "_space_group_name_H-M_ref",
)
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NUMBER_TAGS = ("_space_group_IT_number", "_symmetry_Int_Tables_number")


@dataclass(frozen=True)
class Atom:
    """One atom of the unit cell.

    Attributes:
        element: Chemical symbol without charge.
        position: Fractional coordinates, each in [0, 1).
        occupancy: Share of cells in which the place is taken, 0 to 1.
        b_iso: Isotropic displacement parameter B = 8 pi² U [Å²].
    """

    element: str
    position: tuple[float, float, float]
    occupancy: float
    b_iso: float


@dataclass(frozen=True)
class Phase:
    """A crystalline phase: its cell and every atom in it.

    Attributes:
        name: What the user calls it: the stem of its file.
        cell: a, b, c [Å] and alpha, beta, gamma [deg].
        atoms: Every atom of the cell, symmetry applied, each place once.
        has_displacements: Whether the source states every displacement parameter.
        notes: What of the source was not used or cannot be trusted, one sentence each.
    """

    name: str
    cell: tuple[float, float, float, float, float, float]
    atoms: tuple[Atom, ...]
    has_displacements: bool = True
    notes: tuple[str, ...] = ()

    @property
    def formula(self) -> str:
        """Reduced chemical formula, least electronegative element first."""
        return _reduced_formula(self.atoms)

    @property
    def mass(self) -> float:
        """Mass of the content of one cell [g/mol]."""
        return sum(a.occupancy * gemmi.Element(a.element).weight for a in self.atoms)

    @property
    def mass_fractions(self) -> dict[str, float]:
        """Mass fraction of each element by symbol."""
        masses: dict[str, float] = {}
        for atom in self.atoms:
            mass = atom.occupancy * gemmi.Element(atom.element).weight
            masses[atom.element] = masses.get(atom.element, 0.0) + mass
        total = sum(masses.values())
        return {symbol: mass / total for symbol, mass in masses.items()}

    @property
    def volume(self) -> float:
        """Volume of the cell [Å³]."""
        return float(gemmi.UnitCell(*self.cell).volume)

    @property
    def density(self) -> float:
        """Density of the perfect crystal [g/cm³]."""
        return self.mass / self.volume * 1.66053907


def read_cif(path: Path | str) -> Phase:
    """Read one structure from a CIF file.

    Symmetry comes from the operators in the file when it lists them, otherwise from
    the Hall symbol, the Hermann-Mauguin symbol or the number of the space group.
    Where a symbol leaves the origin open, the origin whose atoms keep the greater
    distance is taken. Atoms without a displacement parameter get ``DEFAULT_B_ISO``.

    Raises:
        AnalysisError: If the file is missing, is not a CIF, or states no cell, no
            symmetry or no atoms.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnalysisError(
            f"{path}: cannot be read ({reason}); a CIF file with a crystal structure "
            "is needed"
        ) from error
    return parse_cif(text, name=path.stem, source=str(path))


def parse_cif(text: str, *, name: str, source: str) -> Phase:
    """Return the first structure in the CIF *text*; *source* appears in messages.

    Raises:
        AnalysisError: As `read_cif`.
    """
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise AnalysisError(f"{source}: not a CIF file: {error}") from error
    blocks = [b for b in document if b.find_value("_cell_length_a")]
    if not blocks:
        raise AnalysisError(
            f"{source}: states no unit cell; a CIF with {', '.join(_CELL_TAGS)} "
            "is needed"
        )
    block = next((b for b in blocks if b.find_loop("_atom_site_fract_x")), blocks[0])
    cell = _read_cell(block, source)
    sites, has_displacements, notes = _read_sites(block, source)
    choices = [_expand(cell, sites, ops) for ops in _operator_choices(block, source)]
    atoms = max(choices, key=lambda found: _shortest_distance(cell, found))
    if len(blocks) > 1:
        notes.append(f"{len(blocks)} structures; {block.name!r} is used")
    if len(choices) > 1:
        notes.append("the symbol leaves the origin open; the roomier one is taken")
    notes += _suspicions(block, cell, atoms)
    return Phase(name, cell, atoms, has_displacements, tuple(notes))


def _suspicions(
    block: gemmi.cif.Block,
    cell: tuple[float, float, float, float, float, float],
    atoms: Sequence[Atom],
) -> list[str]:
    """Return what in a structure contradicts itself or chemistry."""
    notes = []
    shortest = _shortest_distance(cell, atoms)
    has_hydrogen = any(atom.element in ("H", "D") for atom in atoms)
    if shortest < (_CLOSE_HYDROGEN if has_hydrogen else _CLOSE):
        notes.append(f"atoms are {shortest:.2f} Å apart; the structure is not possible")
    stated = gemmi.cif.as_number(block.find_value("_cell_volume") or "?")
    volume = gemmi.UnitCell(*cell).volume
    if not math.isnan(stated) and abs(stated / volume - 1.0) > 0.01:
        notes.append(f"states a volume of {stated:g} Å³; its cell has {volume:.2f}")
    formula = block.find_value("_chemical_formula_sum")
    if formula:
        missing = _missing_elements(gemmi.cif.as_string(formula), atoms)
        if missing:
            notes.append(
                f"the formula has {', '.join(missing)}, of which no atom is listed; "
                "mass and intensities are without"
            )
    return notes


def _missing_elements(formula: str, atoms: Sequence[Atom]) -> list[str]:
    named = set(re.findall(r"[A-Z][a-z]?", formula)) & set(ELECTRONEGATIVITY)
    return sorted(named - {"D" if a.element == "D" else a.element for a in atoms})


def phase_library() -> tuple[str, ...]:
    """Return the names of the bundled structures, sorted."""
    folder = importlib.resources.files("ppu_protocols.phases")
    return tuple(
        sorted(
            entry.name.removesuffix(".cif")
            for entry in folder.iterdir()
            if entry.name.endswith(".cif")
        )
    )


@lru_cache(maxsize=64)
def load_phase(name: str) -> Phase:
    """Return the bundled structure called *name*.

    Raises:
        AnalysisError: If there is none of that name.

    Example:
        >>> load_phase("BaTiO3").formula
        'BaTiO3'
    """
    if name not in phase_library():
        raise AnalysisError(
            f"no bundled phase is called {name!r}; there are: "
            f"{', '.join(phase_library())}"
        )
    entry = importlib.resources.files("ppu_protocols.phases") / f"{name}.cif"
    return parse_cif(entry.read_text(encoding="utf-8"), name=name, source=entry.name)


def _number(text: str, tag: str, source: str) -> float:
    value = float(gemmi.cif.as_number(text))
    if math.isnan(value):
        raise AnalysisError(f"{source}: {tag} is {text!r}; a number is needed")
    return value


def _read_cell(
    block: gemmi.cif.Block, source: str
) -> tuple[float, float, float, float, float, float]:
    texts: list[str | None] = [block.find_value(tag) for tag in _CELL_TAGS]
    missing = [tag for tag, text in zip(_CELL_TAGS, texts, strict=True) if text is None]
    if missing:
        raise AnalysisError(f"{source}: states no {', '.join(missing)}")
    a, b, c, alpha, beta, gamma = (
        _number(text, tag, source)
        for tag, text in zip(_CELL_TAGS, texts, strict=True)
        if text is not None
    )
    lengths_allowed = all(0.5 < x < 200.0 for x in (a, b, c))
    angles_allowed = all(10.0 < x < 170.0 for x in (alpha, beta, gamma))
    is_possible = lengths_allowed and angles_allowed
    if is_possible:
        volume = gemmi.UnitCell(a, b, c, alpha, beta, gamma).volume
        is_possible = 1.0 < volume < _LARGEST_VOLUME
    if not is_possible:
        raise AnalysisError(
            f"{source}: the cell {a:g} {b:g} {c:g} {alpha:g} {beta:g} {gamma:g} is "
            "impossible; lengths of 0.5 to 200 Å and angles of 10 to 170 deg that "
            f"close a volume of 1 to {_LARGEST_VOLUME:g} Å³ are allowed"
        )
    return a, b, c, alpha, beta, gamma


_SITE_TAGS: Final = (
    "_atom_site_fract_x",
    "_atom_site_fract_y",
    "_atom_site_fract_z",
    "_atom_site_label",
    "_atom_site_type_symbol",
    "_atom_site_occupancy",
    "_atom_site_B_iso_or_equiv",
    "_atom_site_U_iso_or_equiv",
)


def _read_sites(
    block: gemmi.cif.Block, source: str
) -> tuple[list[Atom], bool, list[str]]:
    """Return the sites, whether all displacements are stated, and notes."""
    columns = {
        tag: [gemmi.cif.as_string(text) for text in block.find_values(tag)]
        for tag in _SITE_TAGS
    }
    n_sites = len(columns["_atom_site_fract_x"])
    if not all(columns[f"_atom_site_fract_{axis}"] for axis in "xyz"):
        raise AnalysisError(
            f"{source}: lists no atoms; a loop with _atom_site_label and "
            "_atom_site_fract_x, _y and _z is needed"
        )
    together = _neighbours(block, _SITE_TAGS[0])
    for tag in _SITE_TAGS:
        if columns[tag] and _neighbours(block, tag) != together:
            raise AnalysisError(
                f"{source}: {tag} stands in another loop than {_SITE_TAGS[0]}; which "
                "row belongs to which atom is not known, put them into one loop"
            )
    anisotropic = _anisotropic_b(block)
    sites = []
    bare: list[str] = []
    averaged: list[str] = []
    assumed: list[str] = []
    for index in range(n_sites):
        row = {tag: cells[index] for tag, cells in columns.items() if cells}
        position = [
            _number(row[f"_atom_site_fract_{axis}"], f"_atom_site_fract_{axis}", source)
            for axis in "xyz"
        ]
        label = row.get("_atom_site_label", f"number {index + 1}")
        given = row.get("_atom_site_occupancy", ".").strip()
        occupancy = gemmi.cif.as_number(given)
        if math.isnan(occupancy) and given not in (".", "?", ""):
            raise AnalysisError(
                f"{source}: the occupancy of {label} is {given!r}; a number is needed"
            )
        if occupancy < 0.0 or occupancy > 1.01:
            raise AnalysisError(
                f"{source}: the occupancy of {label} is {occupancy:g}; 0 to 1 is "
                "allowed"
            )
        if row.get("_atom_site_occupancy") == "":
            assumed.append(label)
        b_iso, kind = _read_b(row, anisotropic)
        bare += [label] * (kind == "assumed")
        averaged += [label] * (kind == "averaged")
        sites.append(
            Atom(
                element=_read_element(row, source),
                position=(position[0], position[1], position[2]),
                occupancy=1.0 if math.isnan(occupancy) else float(occupancy),
                b_iso=b_iso,
            )
        )
    sites = [site for site in sites if site.occupancy > 0.0]
    if not sites:
        raise AnalysisError(f"{source}: every atom has occupancy 0")
    notes = []
    if bare:
        notes.append(
            f"no displacement parameter for {_some(bare)}: B of {DEFAULT_B_ISO:g} Å² "
            "assumed, its uncertainty is in the errors"
        )
    if averaged:
        notes.append(f"anisotropic displacements of {_some(averaged)} averaged")
    if assumed:
        notes.append(f"unknown occupancy of {_some(assumed)} taken as 1")
    return sites, not bare, notes


def _neighbours(block: gemmi.cif.Block, tag: str) -> list[str]:
    """Return the tags of the loop in which *tag* stands; none if it is in no loop."""
    # Its annotation forgets that it is None for a tag that stands alone.
    return list(getattr(block.find_values(tag).get_loop(), "tags", ()))


def _some(labels: Sequence[str]) -> str:
    """Return the first few of *labels*."""
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more


def _read_b(row: dict[str, str], anisotropic: dict[str, float]) -> tuple[float, str]:
    """Return B [Å²] and whether it is stated, averaged or assumed."""
    b_iso = gemmi.cif.as_number(row.get("_atom_site_B_iso_or_equiv", "."))
    u_iso = gemmi.cif.as_number(row.get("_atom_site_U_iso_or_equiv", "."))
    if not math.isnan(b_iso):
        return max(float(b_iso), 0.0), "stated"
    if not math.isnan(u_iso):
        return max(float(u_iso) * 8.0 * math.pi**2, 0.0), "stated"
    found = anisotropic.get(row.get("_atom_site_label", ""))
    return (DEFAULT_B_ISO, "assumed") if found is None else (found, "averaged")


def _anisotropic_b(block: gemmi.cif.Block) -> dict[str, float]:
    """Return the mean B [Å²] by label of atoms with an anisotropic displacement."""
    found = {}
    for prefix, factor in (("U", 8.0 * math.pi**2), ("B", 1.0)):
        table = block.find(
            ["_atom_site_aniso_label"]
            + [f"_atom_site_aniso_{prefix}_{ij}" for ij in ("11", "22", "33")]
        )
        for row in table:
            values = [gemmi.cif.as_number(row[i]) for i in (1, 2, 3)]
            if not any(math.isnan(value) for value in values):
                mean = sum(values) / 3.0
                found[gemmi.cif.as_string(row[0])] = max(mean * factor, 0.0)
    return found


def _read_element(row: dict[str, str], source: str) -> str:
    """Return the element of a site, from whichever column names one."""
    texts = [row.get("_atom_site_type_symbol", ""), row.get("_atom_site_label", "")]
    for text in texts:
        named = [e for e in re.findall(r"[A-Z][a-z]?", text) if e in ELECTRONEGATIVITY]
        if re.search(r"[+/,&]\s*\d*\.?\d*\s*[A-Z]", text) and len(set(named)) > 1:
            raise AnalysisError(
                f"{source}: the site {text!r} holds several elements; give each a row "
                "of its own with its occupancy"
            )
        found = _element_in(text)
        if found is not None:
            return found
    given = " / ".join(repr(text) for text in texts if text)
    raise AnalysisError(
        f"{source}: the atom {given or 'without a label'} names no chemical element; "
        "a symbol such as Ti, Ti4+ or Ti1 is needed"
    )


def _element_in(text: str) -> str | None:
    match = re.match(r"[A-Za-z]+", text.strip())
    if match is None:
        return None
    letters = match.group()
    candidates = []
    if len(letters) <= 2:
        candidates.append(letters.capitalize())
    if len(letters) >= 2 and letters[1].islower():
        candidates.append(letters[:2].capitalize())
    candidates.append(letters[0].upper())
    return next((c for c in candidates if c in ELECTRONEGATIVITY), None)


def _first_value(block: gemmi.cif.Block, tags: Iterable[str]) -> str | None:
    for tag in tags:
        text: str | None = block.find_value(tag)
        if text is not None and gemmi.cif.as_string(text).strip() not in ("", "?", "."):
            return str(gemmi.cif.as_string(text)).strip()
    return None


def _operator_choices(
    block: gemmi.cif.Block, source: str
) -> list[Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Return the operator lists the file allows; several if the origin is open."""
    for tag in _OPERATOR_TAGS:
        texts = [gemmi.cif.as_string(text) for text in block.find_values(tag)]
        if texts:
            try:
                return [[_matrix(gemmi.Op(text)) for text in texts]]
            except (ValueError, RuntimeError) as error:
                raise AnalysisError(
                    f"{source}: {tag} holds a symmetry operator that cannot be read "
                    f"({error}); the form 'x,y,z' is needed"
                ) from error
    groups = _space_groups(block)
    if not groups:
        given = _first_value(block, (*_NAME_TAGS, *_HALL_TAGS, *_NUMBER_TAGS))
        raise AnalysisError(
            f"{source}: "
            + (
                f"the space group {given!r} is not known"
                if given
                else "states no symmetry"
            )
            + "; list the operators (_space_group_symop_operation_xyz) or name the "
            "space group (_space_group_name_H-M_alt or _space_group_IT_number)"
        )
    return [[_matrix(op) for op in group.operations()] for group in groups]


def _matrix(op: gemmi.Op) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rotation = np.array(op.rot, dtype=np.float64) / op.DEN
    return rotation, np.array(op.tran, dtype=np.float64) / op.DEN


def _space_groups(block: gemmi.cif.Block) -> list[gemmi.SpaceGroup]:
    """Return the space groups that the symbols in the file can mean."""
    alpha, gamma = (
        float(gemmi.cif.as_number(block.find_value(tag) or "90"))
        for tag in ("_cell_angle_alpha", "_cell_angle_gamma")
    )
    hall = _first_value(block, _HALL_TAGS)
    if hall is not None:
        by_hall = [g for g in gemmi.spacegroup_table() if g.hall == hall]
        if by_hall:
            return by_hall[:1]
    name = _first_value(block, _NAME_TAGS)
    setting = _first_value(block, ("_space_group_IT_coordinate_system_code",))
    if name is not None:
        base, choice = _split_origin_choice(name)
        choice = choice or (setting if setting in ("1", "2", "H", "R") else None)
        group = gemmi.find_spacegroup_by_name(base, alpha, gamma)
        if group is not None:
            return _with_choice(group, choice)
    number = _first_value(block, _NUMBER_TAGS)
    if number is not None and number.isdigit():
        group = gemmi.find_spacegroup_by_number(int(number))
        if group is not None:
            if group.ext in ("H", "R"):
                return _with_choice(group, "H" if gamma > 110.0 else "R")
            return _with_choice(group, None)
    return []


def _split_origin_choice(name: str) -> tuple[str, str | None]:
    """Part ``'F d -3 m :2'``, ``'F d -3 m Z'`` and the like into symbol and choice."""
    name = name.replace("_", "").strip()
    match = re.search(r"(?:\(?\s*origin choice\s*|:\s*)([12HR])\)?$", name, re.I)
    if match:
        return name[: match.start()].strip(), match.group(1).upper()
    match = re.search(r"\s*(?<=[\s\d/a-z])([SZHR])$", name)
    if match:
        choice = {"S": "1", "Z": "2", "H": "H", "R": "R"}[match.group(1)]
        return name[: match.start()].strip(), choice
    return name, None


def _with_choice(group: gemmi.SpaceGroup, choice: str | None) -> list[gemmi.SpaceGroup]:
    """Return the settings of *group* that differ in what *choice* decides."""
    settings = [
        g
        for g in gemmi.spacegroup_table()
        if g.number == group.number and g.hm == group.hm and g.ext != "\0"
    ]
    if choice is not None:
        chosen = [g for g in settings if g.ext == choice]
        return chosen or [group]
    if group.ext in ("1", "2"):
        return [g for g in settings if g.ext in ("1", "2")]
    return [group]


def _expand(
    cell: tuple[float, float, float, float, float, float],
    sites: Sequence[Atom],
    operators: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[Atom, ...]:
    """Apply the operators, counting special positions and repeated rows once."""
    metric = _orthogonalization(cell)
    rotations = np.array([rotation for rotation, _ in operators])
    translations = np.array([translation for _, translation in operators])
    atoms: list[Atom] = []
    for site in sites:
        images = rotations @ np.array(site.position) + translations
        for position in _distinct(images, metric):
            if not _is_repeat(atoms, site, position, metric):
                x, y, z = (float(v) for v in position)
                atoms.append(Atom(site.element, (x, y, z), site.occupancy, site.b_iso))
    return tuple(atoms)


def _distinct(
    images: NDArray[np.float64], metric: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Average images that fall together; a rounded 1/3 then sits on its axis."""
    remaining = images
    places = []
    while len(remaining):
        difference = remaining - remaining[0]
        difference -= np.round(difference)
        near = np.linalg.norm(difference @ metric.T, axis=1) < _SAME_PLACE
        place = remaining[0] + difference[near].mean(axis=0)
        places.append(np.mod(np.round(place, 9), 1.0))
        remaining = remaining[~near]
    return places


def _is_repeat(
    atoms: Sequence[Atom],
    site: Atom,
    position: NDArray[np.float64],
    metric: NDArray[np.float64],
) -> bool:
    """Whether an earlier row already put this atom here (rows listed in full)."""
    same = [a for a in atoms if a.element == site.element]
    if not same:
        return False
    difference = np.array([a.position for a in same]) - position
    difference -= np.round(difference)
    near = np.linalg.norm(difference @ metric.T, axis=1) < _SAME_PLACE
    taken = sum(a.occupancy for a, hit in zip(same, near, strict=True) if hit)
    return bool(near.any()) and taken + site.occupancy > 1.01


def _orthogonalization(
    cell: tuple[float, float, float, float, float, float],
) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from fractional to cartesian coordinates [Å]."""
    matrix = gemmi.UnitCell(*cell).orth.mat
    return np.array(matrix.tolist(), dtype=np.float64)


def _shortest_distance(
    cell: tuple[float, float, float, float, float, float], atoms: Sequence[Atom]
) -> float:
    """Return the shortest distance between different places [Å]."""
    metric = _orthogonalization(cell)
    positions = np.array([a.position for a in atoms])
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    difference = positions[:, None, :] - positions[None, :, :]
    difference -= np.round(difference)
    vectors = (difference[:, :, None, :] + shifts) @ metric.T
    distances = np.linalg.norm(vectors, axis=-1)
    apart = distances[distances > _SAME_PLACE]
    return float(apart.min()) if apart.size else math.inf


def _reduced_formula(atoms: Sequence[Atom]) -> str:
    amounts: Counter[str] = Counter()
    for atom in atoms:
        amounts[atom.element] += atom.occupancy  # type: ignore[assignment] # typeshed counts in int only
    exact = {
        element: Fraction(amount).limit_denominator(100)
        for element, amount in amounts.items()
    }
    common = math.lcm(*(amount.denominator for amount in exact.values()))
    whole = {element: int(amount * common) for element, amount in exact.items()}
    divisor = math.gcd(*whole.values())
    if max(whole.values()) // divisor > 60 * max(1, len(whole)):
        # Partly filled sites have no small whole numbers; scale to one of the rarest.
        least = min(amounts.values())
        parts = {element: amount / least for element, amount in amounts.items()}
        text = {element: f"{round(part, 2):g}" for element, part in parts.items()}
    else:
        text = {element: str(count // divisor) for element, count in whole.items()}
    order = sorted(text, key=lambda element: (ELECTRONEGATIVITY[element], element))
    return "".join(
        element + ("" if text[element] == "1" else text[element]) for element in order
    )
