"""What is found by name: classes, plug-ins and bundled labs."""

from pathlib import Path

import pytest

from ppu.core.errors import ConfigurationError, NotFoundError
from ppu.core.registry import bundled_labs, find_lab, load_object, plug_ins


def test_object_is_loaded_when_it_is_there() -> None:
    """``package.module:Name`` is that object."""
    assert load_object("pathlib:Path", "here") is Path


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("pathlib", "should look like 'package.module:Class'"),
        ("nowhere.at_all:X", "cannot import 'nowhere.at_all'"),
        ("pathlib:PosixPaht", "did you mean 'PosixPath'?"),
    ],
)
def test_object_is_refused_with_a_hint_when_it_is_not_there(
    reference: str, text: str
) -> None:
    """The error says who asked and what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        load_object(reference, "devices.x.driver")

    assert str(caught.value).startswith("devices.x.driver: ")
    assert text in str(caught.value)


def test_bundled_lab_is_found_by_name_or_path(tmp_path: Path) -> None:
    """A name is a bundled lab, anything with a suffix is a file."""
    path = tmp_path / "mine.yaml"
    path.write_text("lab: mine\n")

    assert find_lab("a-lab") == bundled_labs()["a-lab"]
    assert find_lab(str(path)) == path


@pytest.mark.parametrize(
    ("lab", "text"),
    [
        ("b-lab", "there is no lab 'b-lab'.*did you mean 'a-lab'"),
        ("nowhere.yaml", "there is no lab file 'nowhere.yaml'"),
    ],
)
def test_lab_is_refused_when_there_is_none(lab: str, text: str) -> None:
    """A wrong name is told with the nearest right one."""
    with pytest.raises(NotFoundError, match=text):
        find_lab(lab)


def test_plug_ins_are_sorted_by_name() -> None:
    """Their order never depends on how packages were installed."""
    names = [point.name for point in plug_ins("ppu.protocols")]

    assert "firing" in names
    assert names == sorted(names)
