"""Names on a report's page are text: they are no markup, no formula and no script."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu import open_lab
from ppu.plans.report import figure, svg_of, table

NAMES = [
    "<img src=x onerror=alert(1)>",
    "</table><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "&lt;b&gt;",
    "$x_",
    "$a$ and $b$",
    r"$\frac{1}{0}$",
    r"$\unknowncommand$",
    "]]>",
    "<!--",
    "=cmd|' /C calc'!A0",
    "LiCoO₂ & TiO₂",
]


@given(st.text(min_size=1, max_size=30) | st.sampled_from(NAMES))
def test_cell_of_a_table_is_text(name: str) -> None:
    """Whatever is in it, the table has the same elements."""
    harmless = table(("a",), [("x",)], "x")
    told = table((name,), [(name,)], name)

    assert re.findall(r"<(/?\w+)", told) == re.findall(r"<(/?\w+)", harmless)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(NAMES))
def test_label_of_a_figure_is_text(name: str) -> None:
    """Not a formula either, which matplotlib would refuse or set."""
    drawn, axes = figure(1.0)
    axes.set_yticks([0, 1], [name, "b"])
    axes.set_title(name)
    page = svg_of(drawn, name)
    elements = ElementTree.fromstring(page)  # noqa: S314 - our own
    names = {element.tag.rpartition("}")[2] for element in elements.iter()}

    assert "".join(elements.itertext()).count(name) >= 3
    assert names.isdisjoint({"script", "img", "a", "foreignObject"})


@pytest.mark.slow
def test_report_of_a_run_shows_names_as_they_are(
    small_lab: Path, tmp_path: Path
) -> None:
    """From the lab file to the page, and what cannot be seen is not on it."""
    name = "cup $x$ <img src=x onerror=alert(1)>"
    lab = tmp_path / "lab.yaml"
    lab.write_text(small_lab.read_text().replace("  crucible_04:", f"  '{name}':"))
    hold = {"hold_s": 60.0, "temperature_degc": 100.0, "ramp_degc_per_min": 10.0}
    with open_lab(str(lab)) as opened:
        opened.run_protocol("fire_sample", tmp_path / "out", container=name, **hold)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    assert "cup $x$ &lt;img" in page
    assert "<img" not in page
    assert all(
        letter.isprintable() or letter in "\n\t\N{NO-BREAK SPACE}\N{THIN SPACE}"
        for letter in page
    )
    assert re.findall(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}", page) == []
