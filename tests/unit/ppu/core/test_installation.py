"""A distribution ``ppu`` beside ours is noticed, whosever it is."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from ppu.core.installation import DISTRIBUTION, shadowing

OURS = "[ppu.protocols]\nsteps = ppu_protocols.steps\n"


def install(folder: Path, name: str, entry_points: str = "") -> Path:
    """Leave in *folder* what an installed distribution leaves; return it."""
    info = folder / f"{name.replace('-', '_')}-0.4.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.4.2\n"
    )
    (info / "entry_points.txt").write_text(entry_points)
    return folder


@pytest.mark.parametrize(
    ("entry_points", "whose"), [(OURS, "an earlier PPU"), ("", "another project")]
)
def test_distribution_of_our_former_name_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, whose: str
) -> None:
    """With what removes it, and what brings back the files that go with it."""
    monkeypatch.syspath_prepend(str(install(tmp_path, "ppu", entry_points)))
    told = shadowing() or ""

    assert f"'ppu' 0.4.2 of {whose}" in told
    assert told.index("pip uninstall ppu") < told.index("--force-reinstall")
    assert f"--no-deps {DISTRIBUTION}" in told


def test_nothing_is_noticed_where_only_ours_is() -> None:
    """This environment has ``ppu-lab``, and nobody is told anything."""
    assert shadowing() is None


def test_other_distributions_that_begin_so_are_nobody_s_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver package may be called ``ppu-ika`` and bring protocols."""
    monkeypatch.syspath_prepend(str(install(tmp_path, "ppu-ika", OURS)))

    assert shadowing() is None


def test_every_command_tells_it_on_standard_error(
    ppu_command: str, tmp_path: Path
) -> None:
    """What programs read stays as it is."""
    path = str(install(tmp_path, "ppu"))
    done = subprocess.run(  # noqa: S603 - our own command
        [ppu_command, "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )

    assert re.fullmatch(r"ppu [\d.]+\n", done.stdout)
    assert done.stderr.startswith("notice: the distribution 'ppu' 0.4.2 of another")
