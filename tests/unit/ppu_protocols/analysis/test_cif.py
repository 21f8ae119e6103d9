"""CIF files in the forms in which people bring them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppu_protocols
from ppu_protocols.analysis.cif import (
    DEFAULT_B_ISO,
    Phase,
    load_phase,
    parse_cif,
    phase_library,
    read_cif,
)
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.pattern import line_list

DATA = Path(__file__).parents[3] / "data" / "xrd"

CUBIC = """\
_cell_length_a 5.431144(8)
_cell_length_b 5.431144(8)
_cell_length_c 5.431144(8)
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
SITES = """\
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
"""


def parsed(body: str) -> Phase:
    """Return the structure in a CIF block with *body*."""
    return parse_cif("data_x\n" + body, name="x", source="x.cif")


def lines_of(phase: Phase) -> tuple[np.ndarray, np.ndarray]:
    """Return spacings and intensities of *phase*."""
    lines = line_list(phase, 1.5406, 1.0, 20.0)
    return lines.d, lines.line_intensity


@pytest.mark.parametrize(
    ("file", "formula", "n_atoms", "density"),
    [
        ("zno_p1", "ZnO", 4, 5.675),
        ("in2o3", "In2O3", 80, 7.12),
        ("anatase", "TiO2", 12, 3.893),
        ("v2o5", "V2O5", 14, 3.37),
    ],
)
def test_cif_gives_formula_and_cell_content_when_symmetry_comes_in_any_form(
    file: str, formula: str, n_atoms: int, density: float
) -> None:
    """Special positions count once, whether the file lists operators or not."""
    phase = read_cif(DATA / f"{file}.cif")

    assert phase.name == file
    assert phase.formula == formula
    assert len(phase.atoms) == n_atoms
    assert phase.density == pytest.approx(density, rel=2e-3)


@pytest.mark.parametrize(
    ("symbol", "position"),
    [
        ("F d -3 m :1", "0 0 0"),
        ("F d -3 m S", "0 0 0"),
        ("F d -3 m :2", "0.125 0.125 0.125"),
        ("F d -3 m Z", "0.125 0.125 0.125"),
        ("Fd-3m (origin choice 2)", "0.125 0.125 0.125"),
    ],
)
def test_cif_places_atoms_right_when_the_symbol_states_the_origin(
    symbol: str, position: str
) -> None:
    """Each way to write an origin choice gives the same silicon."""
    reference = load_phase_silicon()
    phase = parsed(
        CUBIC + f"_symmetry_space_group_name_H-M '{symbol}'\n{SITES}Si1 {position}\n"
    )

    assert len(phase.atoms) == 8
    for got, expected in zip(lines_of(phase), lines_of(reference), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def load_phase_silicon() -> Phase:
    """Return silicon with every atom listed."""
    corners = ["0 0 0", "0 .5 .5", ".5 0 .5", ".5 .5 0"]
    inner = [".25 .25 .25", ".25 .75 .75", ".75 .25 .75", ".75 .75 .25"]
    rows = "".join(f"Si{i} {p}\n" for i, p in enumerate(corners + inner))
    operators = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n"
    return parsed(CUBIC + operators + SITES + rows)


def test_cif_finds_the_origin_when_the_symbol_leaves_it_open() -> None:
    """Of two possible origins the one without colliding atoms is taken."""
    phase = parse_cif(
        (DATA / "anatase.cif").read_text().replace(" :1", ""), name="a", source="a"
    )

    assert lines_of(phase)[1] == pytest.approx(
        lines_of(read_cif(DATA / "anatase.cif"))[1]
    )


def test_cif_reads_elements_when_symbols_carry_charges_or_are_swapped() -> None:
    """Ti0+, O2-, Ti1 or lower-case labels all name their element."""
    body = CUBIC + (
        "_space_group_name_H-M_alt 'P 1'\n"
        "loop_\n_atom_site_type_symbol\n_atom_site_label\n_atom_site_fract_x\n"
        "_atom_site_fract_y\n_atom_site_fract_z\n"
        "Ti0+ Ti0 0 0 0\nO2- O2- .5 0 0\nO1 O 0 .5 0\nBA2+ Ba1 0 0 .5\n? CL1 .5 .5 0\n"
    )

    assert parsed(body).formula == "BaTiClO2"


def test_cif_takes_displacement_from_b_u_or_default_in_this_order() -> None:
    """U is converted to B, and a missing value becomes the stated default."""
    body = CUBIC + (
        "_space_group_name_H-M_alt 'P 1'\n"
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\n_atom_site_B_iso_or_equiv\n_atom_site_U_iso_or_equiv\n"
        "O1 0 0 0 0.7(1) .\nO2 .5 0 0 . 0.0100\nO3 0 .5 0 ? ?\nO4 0 0 .5 . .\n"
        "loop_\n_atom_site_aniso_label\n_atom_site_aniso_U_11\n"
        "_atom_site_aniso_U_22\n_atom_site_aniso_U_33\nO4 .01 .02 .03\n"
    )

    assert [a.b_iso for a in parsed(body).atoms] == pytest.approx(
        [0.7, 0.7896, DEFAULT_B_ISO, 1.5791], rel=1e-3
    )


def test_cif_counts_atoms_once_when_all_are_listed_beside_the_operators() -> None:
    """A file that lists every atom and the symmetry too does not double them."""
    rows = "Ca1 0 0 0\nCa2 .5 .5 0\nCa3 .5 0 .5\nCa4 0 .5 .5\nO1 .5 .5 .5\n"

    phase = parsed(CUBIC + "_space_group_IT_number 225\n" + SITES + rows)

    assert phase.formula == "CaO"
    assert len(phase.atoms) == 8


def test_cif_keeps_mixed_occupancy_when_two_elements_share_a_site() -> None:
    """Shared sites stay shared, and the formula shows their shares."""
    body = CUBIC + (
        "_space_group_name_H-M_alt 'F m -3 m'\n"
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n"
        "_atom_site_fract_z\n_atom_site_occupancy\n"
        "Mg1 0 0 0 0.75\nNi1 0 0 0 0.25\nO1 .5 .5 .5 1\n"
    )

    assert parsed(body).formula == "Mg3NiO4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not a cif", "not a CIF file"),
        ("data_x\n_cell_length_a 5\n", "_cell_length_b"),
        ("data_x\n_audit_x 5\n", "states no unit cell"),
        ("data_x\n" + CUBIC, "lists no atoms"),
        ("data_x\n" + CUBIC + SITES + "Si1 0 0 0\n", "states no symmetry"),
        (
            "data_x\n" + CUBIC + "_space_group_name_H-M_alt 'Q 7'\n" + SITES
            + "Si1 0 0 0\n",
            "'Q 7' is not known",
        ),
        (
            "data_x\n" + CUBIC + "_space_group_IT_number 1\n" + SITES + "?? 0 0 0\n",
            "names no chemical element",
        ),
        (
            "data_x\n" + CUBIC + "_space_group_IT_number 1\n" + SITES + "Si1 0 a 0\n",
            "a number is needed",
        ),
        (
            "data_x\n" + CUBIC.replace("_alpha 90", "_alpha 0")
            + "_space_group_IT_number 1\n" + SITES + "Si1 0 0 0\n",
            "is impossible",
        ),
        (
            "data_x\n" + CUBIC + "loop_\n_symmetry_equiv_pos_as_xyz\n'x,q'\n" + SITES
            + "Si1 0 0 0\n",
            "'x,y,z' is needed",
        ),
    ],
)  # fmt: skip
def test_cif_is_refused_with_file_and_remedy_when_it_is_incomplete(
    text: str, words: str
) -> None:
    """What is wrong is said in one message that names the file."""
    with pytest.raises(AnalysisError) as refusal:
        parse_cif(text, name="x", source="some/file.cif")

    assert words in str(refusal.value)
    assert "some/file.cif" in str(refusal.value)


def test_cif_names_the_file_when_it_is_missing(tmp_path: Path) -> None:
    """A missing file is a refusal, not a traceback."""
    with pytest.raises(AnalysisError, match=r"absent\.cif: cannot be read"):
        read_cif(tmp_path / "absent.cif")


@given(text=st.text(max_size=300))
@settings(max_examples=60)
def test_cif_is_read_or_refused_when_the_text_is_anything(text: str) -> None:
    """Any text is either a structure or a refusal."""
    try:
        phase = parse_cif(text, name="x", source="x")
    except AnalysisError:
        return

    assert phase.atoms


@pytest.mark.parametrize(
    ("name", "formula", "density"),
    [
        ("BaTiO3", "BaTiO3", 6.02),
        ("BaCO3", "BaCO3", 4.31),
        ("TiO2-rutile", "TiO2", 4.25),
        ("TiO2-anatase", "TiO2", 3.89),
        ("CaCO3", "CaCO3", 2.71),
        ("CaO", "CaO", 3.35),
        ("Li2CO3", "Li2CO3", 2.10),
        ("Co3O4", "Co3O4", 6.06),
        ("CoO", "CoO", 6.43),
        ("LiCoO2", "LiCoO2", 5.05),
        ("Y2O3", "Y2O3", 5.03),
        ("CuO", "CuO", 6.51),
        ("Cu2O", "Cu2O", 6.11),
        ("Y2Cu2O5", "Y2Cu2O5", 5.44),
        ("Y2BaCuO5", "BaY2CuO5", 6.20),
        ("YBa2Cu3O6", "Ba2YCu3O6", 6.115),
        ("YBa2Cu3O7", "Ba2YCu3O7", 6.41),
    ],
)
def test_library_phase_has_the_density_of_the_substance(
    name: str, formula: str, density: float
) -> None:
    """Bundled structures hold the right atoms in the right cell."""
    phase = load_phase(name)

    assert name in phase_library()
    assert phase.formula == formula
    assert phase.density == pytest.approx(density, rel=0.005)


def test_library_names_what_it_has_when_a_phase_is_unknown() -> None:
    """An unknown name is refused with the list of known ones."""
    with pytest.raises(AnalysisError, match=r"'Kryptonite'; there are: .*BaTiO3"):
        load_phase("Kryptonite")


HOSTILE = """data_x
_cell_length_a 4.2
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_cell_volume {volume}
_chemical_formula_sum '{formula}'
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{label} '{element}' 0 0 0 {occupancy}
O1 O 0.5 0.5 0.5 1
"""


def hostile(**values: str) -> str:
    """Return a structure with something wrong in it."""
    usual = {
        "volume": "74.088",
        "formula": "Mg O",
        "label": "Mg1",
        "element": "Mg",
        "occupancy": "1",
    }
    return HOSTILE.format(**{**usual, **values})


@pytest.mark.parametrize(
    "element", ["0.5Ti + 0.5Zr", "Ti/Zr", "Ti0.5+Zr0.5", "Ti, Zr", "La&Sr"]
)
def test_cif_is_refused_when_a_site_holds_several_elements_in_one_word(
    element: str,
) -> None:
    """A mixed site never becomes one of its elements."""
    with pytest.raises(AnalysisError, match="holds several elements; give each a row"):
        parse_cif(hostile(element=element), name="x", source="x.cif")


@pytest.mark.parametrize("element", ["Ti4+", "Ti+4", "TI", "ti", "Ti0+", "Ti(IV)"])
def test_cif_reads_one_element_however_its_charge_is_written(element: str) -> None:
    """Charges are no second element."""
    phase = parse_cif(hostile(element=element), name="x", source="x.cif")

    assert phase.formula == "TiO"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"occupancy": "1.5"}, "occupancy of Mg1 is 1.5; 0 to 1"),
        ({"occupancy": "-0.2"}, "occupancy of Mg1 is -0.2"),
        ({"occupancy": "half"}, "occupancy of Mg1 is 'half'"),
    ],
)
def test_cif_is_refused_when_an_occupancy_is_impossible(
    values: dict[str, str], message: str
) -> None:
    """Nothing is repaired silently."""
    with pytest.raises(AnalysisError, match=message):
        parse_cif(hostile(**values), name="x", source="x.cif")


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({}, "no displacement parameter for Mg1, O1: B of 0.5"),
        ({"formula": "Mg O2 H2"}, "the formula has H, of which no atom is listed"),
        ({"volume": "80"}, "states a volume of 80"),
        ({"occupancy": "?"}, "unknown occupancy of Mg1 taken as 1"),
    ],
)
def test_cif_names_what_it_assumes_and_what_contradicts_itself(
    values: dict[str, str], note: str
) -> None:
    """What a calculation cannot trust is said with the structure."""
    phase = parse_cif(hostile(**values), name="x", source="x.cif")

    assert any(note in text for text in phase.notes)
    assert not phase.has_displacements


def test_columns_of_two_loops_are_not_put_together_by_chance() -> None:
    """Nothing says which occupancy is whose."""
    body = CUBIC + "_space_group_name_H-M_alt 'F m -3 m'\n" + SITES
    body += "Mg1 0 0 0\nO1 0.5 0.5 0.5\nloop_\n_atom_site_occupancy\n1\n0.5\n"
    with pytest.raises(AnalysisError, match="_atom_site_occupancy stands in another"):
        parsed(body)


BROKEN_WORDS = [
    *("?", ".", "nan", "inf", "-1", "0", "1e400", "9" * 400, "1,5", "(3)", "1/0"),
    *("'", '"', ";", "\n;\n", "loop_\n", "\ndata_y\n", "save_", "#", "$", "[", "\r"),
    *("\x00", "\u00e9", "_cell_length_a", "x,y,z", "-x+1/3", "P 1", "F m -3 m"),
    *("Uiso", "0.5Ti + 0.5Zr", "D", "Xx"),
]
N_MUTATIONS = int(os.environ.get("PPU_MUTATIONS", "1500"))
"""``PPU_MUTATIONS=10000`` breaks ten thousand structures."""


def broken_cif(text: str, draw: random.Random) -> str:
    """Return *text* with words cut, doubled or replaced, and lines exchanged."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(text) + 1)
        end = at + draw.randrange(1, 30)
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + draw.choice(BROKEN_WORDS) + text[at:]
        elif kind == 2:
            text = text[:at] + draw.choice(BROKEN_WORDS) + text[end:]
        elif kind == 3:
            lines = text.split("\n")
            one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            text = "\n".join(lines)
        else:
            words = text.split(" ")
            words[draw.randrange(len(words))] = draw.choice(BROKEN_WORDS)
            text = " ".join(words)
    return text


def test_broken_structure_is_read_or_refused_and_never_crashes() -> None:
    """Whoever brings it reads an `AnalysisError`, or has a finite structure."""
    library = Path(ppu_protocols.__path__[0]) / "phases"
    paths = [*sorted(library.glob("*.cif")), *sorted(DATA.glob("*.cif"))]
    texts = [path.read_text("utf-8") for path in paths]
    draw = random.Random(12)  # noqa: S311 - the same mutations every time
    n_read = 0
    for _ in range(N_MUTATIONS):
        text = broken_cif(draw.choice(texts), draw)
        try:
            phase = parse_cif(text, name="x", source="x.cif")
        except AnalysisError:
            continue
        n_read += 1
        assert np.isfinite(phase.density)
        assert all(np.isfinite(atom.position).all() for atom in phase.atoms)

    assert 0 < n_read < N_MUTATIONS
