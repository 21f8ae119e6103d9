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


def test_plot_shows_pattern_fit_phases_residual_and_doubt() -> None:
    """Three panels: pattern with curves, ticks of every phase, residual."""
    figure = draw(*analysed())
    pattern, ticks, residual = figure.axes

    labels = [line.get_label() for line in pattern.lines]
    assert labels[:2] == ["measured", "calculated"]
    assert str(labels[2]).startswith("zno_p1 100.0")
    assert [text.get_text() for text in ticks.get_yticklabels()] == ["zno_p1"]
    assert len(ticks.collections) == 1
    assert len(residual.lines) == 1
    assert "confidence low" in pattern.get_title(loc="left")


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
