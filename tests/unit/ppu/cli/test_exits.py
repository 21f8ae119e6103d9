"""Exit codes and the sentence beside them, as docs/reference/exit-codes.md promises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppu.cli.exits import Exit

Ppu = Callable[..., Any]

DONE, WRONG, REFUSED = Exit.DONE, Exit.WRONG_INPUT, Exit.REFUSED
FAILED, UNREACHABLE = Exit.FAILED, Exit.UNREACHABLE
HARDWARE = "--lab LAB --target hardware"

CASES = [
    ("--version", DONE),
    ("protocols", DONE),
    ("protocols fire_sample --json", DONE),
    ("lab check LAB", DONE),
    ("instruments", DONE),
    ("jobs", DONE),
    ("recover", DONE),
    ("samples", DONE),
    ("store check", DONE),
    ("submit fire_sample --lab LAB", DONE),
    # what the command line says
    ("", WRONG),
    ("jobz", WRONG),
    ("job", WRONG),
    ("job x", WRONG),
    ("jobs --colour", WRONG),
    ("jobs --limit 0", WRONG),
    ("store", WRONG),
    ("store chek", WRONG),
    ("run fire_sample --target moon", WRONG),
    ("run fire_sampel", WRONG),
    ("run fire_sample --lab LAB --set hold=5", WRONG),
    ("run fire_sample --lab LAB --pace 0", WRONG),
    ("cell LAB --pace fast", WRONG),
    ("guard LAB --target twin", WRONG),
    ("sim LAB --pace jump", WRONG),
    ("read --lab LAB nothing", WRONG),
    ("read --lab LAB --target twin balance.nothing", WRONG),
    ("fault balance drop --control nowhere", WRONG),
    ("truth --control 127.0.0.1:1 --carry x", WRONG),
    ("new driver Balance --wire serial", WRONG),
    ("stock --refill 5", WRONG),
    ("samples --move cup", WRONG),
    ("recover --happened", WRONG),
    ("submit fire_sample --lab LAB --batch MISSING", WRONG),
    ("submit fire_sample --lab LAB --params MISSING", WRONG),
    ("submit fire_sample --lab LAB --deadline soon", WRONG),
    ("submit fire_sample --lab LAB --after 77", WRONG),
    ("lab check MISSING", WRONG),
    ("job 77", WRONG),
    ("cancel 77", WRONG),
    ("jobs --store MISSING", WRONG),
    ("analyse xrd MISSING --cif BaTiO3", WRONG),
    ("calibrate diffractometer MISSING --date 2026-13-45", WRONG),
    # what the lab says
    ("run fire_sample --lab LAB --set temperature_degc=1500", REFUSED),
    ("submit fire_sample --lab LAB --set temperature_degc=1500", REFUSED),
    ("submit fire_sample --lab LAB --set container=crucible_01", REFUSED),
    # what the store and the wires say
    ("jobs --store BROKEN", FAILED),
    ("store check --store BROKEN", FAILED),
    (f"read {HARDWARE}", UNREACHABLE),
    ("fault balance drop --control 127.0.0.1:1", UNREACHABLE),
    ("truth --control 127.0.0.1:1", UNREACHABLE),
]


@pytest.mark.parametrize(("line", "code"), CASES, ids=str)
def test_command_ends_as_it_is_promised(
    ppu: Ppu,
    small_lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    code: Exit,
) -> None:
    """With the code of who must act, and a sentence that begins with ``error:``."""
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    known = {"LAB": small_lab, "MISSING": tmp_path / "missing.yaml", "BROKEN": broken}
    if "submit" not in line and "MISSING" not in line:
        assert ppu("submit", "fire_sample", "--lab", small_lab).code == 0
    ended = ppu(*[known.get(word, word) for word in line.split()])

    assert (line, ended.code) == (line, code), ended.err
    if code is DONE:
        assert "error:" not in ended.err
    elif line not in ("", "store"):  # these show what there is to say
        assert ended.err.splitlines()[-1 if "run " in line else 0].startswith("error: ")
        assert ended.out == ""
