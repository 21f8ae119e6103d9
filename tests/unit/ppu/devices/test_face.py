"""The public face of ppu.devices."""

import subprocess
import sys

import pytest

import ppu.devices


def test_face_gives_all_that_it_names() -> None:
    """Every name of the face is there, and is what a type checker takes it for."""
    for name in ppu.devices.__all__:
        assert getattr(ppu.devices, name).__name__ == name


def test_face_refuses_what_it_does_not_name() -> None:
    """A name that is not of the face is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'Holdings'"):
        _ = ppu.devices.Holdings


def test_face_imports_only_what_is_asked_for() -> None:
    """A driver of a serial line does not load the libraries of other wires."""
    code = (
        "import sys\n"
        "from ppu.devices import Instrument, Query\n"
        "print(sorted({'aiohttp', 'pymodbus', 'ophyd'} & sys.modules.keys()))"
    )
    found = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert found.stdout == "[]\n"
