"""Names on a report's page are text: they are no markup, no formula and no script."""

import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

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
