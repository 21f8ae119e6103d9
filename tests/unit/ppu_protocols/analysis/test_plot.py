"""The picture of a quantification."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from ppu_protocols.analysis.cif import read_cif
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.plot import check_plot_path, draw, write_plot
from ppu_protocols.analysis.quantify import Quantification, quantify
from ppu_protocols.analysis.scan import Scan
from ppu_protocols.analysis.xrdml import read_xrdml

DATA = Path(__file__).parents[3] / "data" / "xrd"


@cache
def analysed() -> tuple[Scan, Quantification]:
    """Return a real scan and its analysis."""
    scan = read_xrdml(DATA / "zno_in2o3.xrdml")
    return scan, quantify(scan, [read_cif(DATA / "zno_p1.cif")])


def test_plot_shows_pattern_phases_ticks_residual_budget_and_doubt() -> None:
    """Five panels, one below the other."""
    figure = draw(*analysed())
    pattern, stack, ticks, residual, budget = figure.axes

    labels = [line.get_label() for line in pattern.lines]
    assert labels == ["measured", "calculated", "background"]
    assert [str(c.get_label()).split()[0] for c in stack.collections] == ["zno_p1"]
    assert [text.get_text() for text in ticks.get_yticklabels()] == ["zno_p1"]
    assert len(ticks.collections) == 1
    assert len(residual.lines) == 1
    assert "confidence low" in pattern.get_title(loc="left")
    ends = [bar.get_path().get_extents(bar.get_transform()) for bar in budget.patches]
    whole = budget.transData.transform([[0.0, 0.0], [1.0, 0.0]])
    assert max(e.x1 for e in ends) == pytest.approx(whole[1][0], abs=1.0)


def test_plot_is_narrow_enough_for_a_telephone() -> None:
    """On 390 pixels its smallest letters are 5 pixels high or more."""
    figure = draw(*analysed())
    pixels_per_point = 390.0 / (72.0 * figure.get_size_inches()[0])

    sizes = [
        text.get_fontsize()
        for axes in figure.axes
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    ]
    assert min(sizes) * pixels_per_point >= 5.0


@pytest.mark.parametrize(
    ("ending", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG")]
)
def test_plot_is_written_in_the_format_of_its_ending(
    tmp_path: Path, ending: str, magic: bytes
) -> None:
    """The ending decides the format."""
    path = tmp_path / f"fit{ending}"

    write_plot(*analysed(), path)

    assert path.read_bytes().startswith(magic)


def test_plot_is_refused_when_the_ending_or_folder_is_wrong(tmp_path: Path) -> None:
    """What can be written is said before the work is done."""
    with pytest.raises(AnalysisError, match=r"\.svg, \.png, \.pdf are allowed"):
        check_plot_path(tmp_path / "fit.gif")
    with pytest.raises(AnalysisError, match="does not exist"):
        check_plot_path(tmp_path / "absent" / "fit.svg")


def test_plot_names_the_file_when_it_cannot_be_written(tmp_path: Path) -> None:
    """A folder in the place of the file is a refusal, not a traceback."""
    (tmp_path / "fit.svg").mkdir()

    with pytest.raises(AnalysisError, match=r"fit\.svg: cannot be written"):
        write_plot(*analysed(), tmp_path / "fit.svg")
