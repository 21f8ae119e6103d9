"""Pages that are made from code say what the code says."""

from pathlib import Path

from ppu.cli.instruments import drivers_of, page

ROOT = Path(__file__).parents[2]


def test_instruments_page_is_what_the_driver_classes_state() -> None:
    """`make docs` was run after the last change of a driver's facts."""
    text = (ROOT / "docs/reference/instruments.md").read_text(encoding="utf-8")

    assert text == page(drivers_of(None))
