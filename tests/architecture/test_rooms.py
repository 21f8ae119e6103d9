"""The page about the house says what the house is."""

import re

import pytest

import rooms


def test_drawing_and_modules_are_those_of_the_code() -> None:
    """Whoever reads the page sees today's imports and modules (`make docs`)."""
    page = rooms.PAGE.read_text("utf-8")

    assert rooms.with_generated(page) == page


def test_every_path_that_the_page_names_exists() -> None:
    """A reader who follows a walk arrives."""
    named = re.findall(r"`(ppu[a-z_]*/[\w/.]+)`", rooms.PAGE.read_text("utf-8"))
    roots = {path.parent for path in rooms.PACKAGES.values()}
    missing = [
        path for path in named if not any((root / path).exists() for root in roots)
    ]

    assert len(named) > 30
    assert not missing


@pytest.mark.parametrize("package", rooms.PACKAGES)
def test_no_source_file_is_longer_than_a_person_reads(package: str) -> None:
    """A file is one thing: at most 800 lines."""
    long = {
        str(path): n_lines
        for path in rooms.PACKAGES[package].rglob("*.py")
        if (n_lines := len(path.read_text("utf-8").splitlines())) > 800
    }

    assert not long


def test_every_module_says_its_responsibility() -> None:
    """The first line of each docstring says what the module is for."""
    silent = [
        f"{package}.{name}" for package, name, said in rooms.modules() if not said
    ]

    assert not silent
