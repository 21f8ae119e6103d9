"""The files for a service manager: they are valid, and fit the commands."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ppu.cell.cell import GUARDLESS_S
from ppu.cell.predecessor import DRAIN_S

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "ppu-guard@.service"


def service() -> configparser.SectionProxy:
    """Return the unit's section on its process."""
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",)
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keep the case
    parser.read(UNIT)
    return parser["Service"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    """Every directive is known, and has a value that it may have."""
    unit = tmp_path / UNIT.name
    there = UNIT.read_text().replace("/opt/ppu/bin/ppu", shutil.which("true") or "")
    unit.write_text(there)
    program = shutil.which("systemd-analyze") or ""
    done = subprocess.run(  # noqa: S603 - the system's own
        [program, "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_unit_gives_the_guard_the_time_it_takes() -> None:
    """A guard that waits for an earlier cell, or for a drain, is not killed."""
    found = service()

    assert float(found["TimeoutStartSec"]) > DRAIN_S + 60.0
    assert float(found["TimeoutStopSec"]) >= 600.0
    assert float(found["WatchdogSec"]) > 1.0
    assert found["Type"] == "notify"
    assert found["Restart"] == "always"


def test_cell_drains_before_anybody_kills_it_when_the_guard_dies() -> None:
    """Systemd leaves it alone, and the next guard waits longer than a drain takes."""
    found = service()

    assert (found["KillMode"], found["OOMPolicy"]) == ("process", "continue")
    assert GUARDLESS_S < DRAIN_S


def test_unit_uses_only_variables_of_the_example_and_known_options(
    ppu_command: str,
) -> None:
    """What is copied works: names and options are those that there are."""
    command = service()["ExecStart"]
    example = (DEPLOY / "ppu.env.example").read_text()
    told = subprocess.run(  # noqa: S603 - our own command
        [ppu_command, "guard", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for name in re.findall(r"\$\{?(\w+)", command):
        assert re.search(rf"^{name}=", example, re.M), name
    for option in re.findall(r"--[a-z-]+", command):
        assert option in told
