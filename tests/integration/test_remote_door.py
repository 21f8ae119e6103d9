"""A door in a process of its own steers a running cell through operations alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import remote_door
from exercise import LAB
from lab_processes import PPU
from ppu.store.cells import is_owned
from ppu.store.store import Store

PROTOCOL = '''\
"""A protocol of a package that is only here."""

from pydantic import BaseModel

from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import InstrumentError
from ppu.core.failure import FailurePolicy
from ppu.plans import Lab, MsgGenerator, ProtocolResult, bps, protocol, step

N_ATTEMPTS = []


class Walk(BaseModel):
    n_steps: int = 1
    degc: float = 80.0
    asks: bool = False


class Walked(ProtocolResult):
    n_steps: int


def check(lab: Lab, walk: Walk) -> None:
    segment = Segment(walk.degc, 10.0, 600.0)
    lab.the(Furnace).check_profile(FiringProfile((segment,), cool_to_degc=70.0))


@step(kind="repeatable", on_failure=FailurePolicy(then="ask"))
def stumble(lab: Lab) -> MsgGenerator[None]:
    yield from bps.null()
    N_ATTEMPTS.append(1)
    if len(N_ATTEMPTS) == 1:
        raise InstrumentError("it stumbled")


@step(kind="repeatable")
def walk_on(lab: Lab) -> MsgGenerator[None]:
    yield from bps.sleep(60.0)


@protocol(version="1", check=check)
def wander(lab: Lab, walk: Walk) -> MsgGenerator[Walked]:
    """Walk for some minutes."""
    if walk.asks:
        yield from stumble(lab)
    for _ in range(walk.n_steps):
        yield from walk_on(lab)
    return Walked(n_steps=walk.n_steps)
'''


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that have the protocol installed."""
    folder = tmp_path / "site"
    metadata = folder / "far_away-1.dist-info"
    metadata.mkdir(parents=True)
    (folder / "far_away.py").write_text(PROTOCOL)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: far-away\nVersion: 1\n"
    )
    (metadata / "entry_points.txt").write_text("[ppu.protocols]\nfar_away = far_away\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_door_without_cell_and_instruments_does_all_that_a_door_can(
    tmp_path: Path, package: dict[str, str]
) -> None:
    """It checks, submits, holds, answers, cancels, corrects, sees and drains."""
    lab, store = tmp_path / "far.yaml", tmp_path / "lab.sqlite"
    lab.write_text(yaml.safe_dump(LAB))
    words = [*PPU, "cell", str(lab), "--store", str(store), "--pace", "300"]
    cell = subprocess.Popen(  # noqa: S603 - our own words
        [*words, "--results", str(tmp_path / "results")],
        env=package,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert cell.stderr is not None
        told = next(line for line in cell.stderr if "is open" in line)
        seen = use_door(store, package)
        rest = cell.communicate(timeout=600.0)[1]
    finally:
        if cell.poll() is None:
            cell.kill()
            cell.communicate()

    assert seen.pop("loaded") == []
    assert seen.pop("refused") == (
        "furnace_1: segment 1: 5000 degC, allowed are 0 to 1100 degC"
    )
    assert seen == {
        "lab": "machine",
        "is_same": True,
        "held": [True, "held", "it is held"],
        "advice": "resume",
        "line": [[True, 7]],
        "ended": ["cancelled", "aborted"],
        "question": [True, "stumble", "retry", "abort"],
        "asked": "step stumble failed: it stumbled",
        "answered": ["it is tried once more", True],
        "done": ["succeeded", True, 2],
        "moved": [True, True],
        "conflict": ["move_container"],
        "samples": 0,
        "stock": [],
        "jobs": ["aborted"],
        "kinds": ["command", "command handled", "document", "job", "step"],
        "has_gaps": False,
        "bars": True,
        "faults": [],
    }
    assert "cell of machine" in told
    assert "ann asks the cell to end: draining" in rest
    assert cell.returncode == 0
    with Store(store) as kept, kept.read() as connection:
        assert not is_owned(connection)


def use_door(store: Path, environment: dict[str, str]) -> Any:
    """Return what a door in a process of its own saw."""
    script = str(remote_door.__file__)
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-P", script, str(store)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600.0,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
