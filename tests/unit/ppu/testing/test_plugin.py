"""The fixtures that every test gets where PPU is installed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ppu.cell.lab import OpenLab
from ppu.core.labtime import LabTimeLoop
from ppu.testing.leaks import nothing_left_behind
from ppu.testing.loops import play_from_start

Play = Callable[[Coroutine[Any, Any, Any]], Any]

LAB = """\
lab: tiny
schema_version: 1
devices:
  balance:
    driver: ppu_drivers.mettler_sics:MettlerSics
    simulator: ppu_simulators.instruments.mettler_sics:SimulatedMettlerSics
    hardware: {transport: serial, port: /dev/nowhere, baudrate: 9600}
    slots: [balance.pan]
locations:
  balance.pan: {holds: crucible, inside: balance}
"""


def test_twin_is_opened_from_the_text_of_a_lab_file(
    open_twin: Callable[..., OpenLab],
) -> None:
    """A test states its lab in a few lines, and gets it connected."""
    lab = open_twin(LAB, seed=4)

    assert lab.read("balance", "present_mass")["quality"] == "good"
    assert lab.seed == 4
    assert lab.host.loop.is_jumping


def test_several_twins_are_open_at_once(open_twin: Callable[..., OpenLab]) -> None:
    """Each call opens another lab, and all are closed at the end."""
    first, second = open_twin(LAB), open_twin("a-lab-by-hand", only=("balance",))

    assert first.file.lab == "tiny"
    assert second.file.lab == "a-lab-by-hand"


def test_jumping_loop_runs_hours_in_no_time(play: Play, jumping: LabTimeLoop) -> None:
    """What is played on it is over when the last timer is."""
    play(asyncio.sleep(36_000.0))

    assert jumping.time() == 36_000.0


def test_task_left_on_the_loop_is_found() -> None:
    """The loop itself says so, even where leaks are not looked for."""
    left: list[asyncio.Task[None]] = []

    async def leave() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(1e6)))

    with pytest.raises(AssertionError):
        play_from_start(leave())
    assert not left[0].done()
    left[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant
    left.clear()


def test_descriptor_left_behind_is_found() -> None:
    """A pipe that is not closed fails the test that opened it."""
    ends: list[int] = []
    with (
        pytest.raises(AssertionError, match="leaked descriptors"),
        nothing_left_behind(),
    ):
        ends += os.pipe()
    for end in ends:
        os.close(end)


def test_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    """Every pytest run loads the plugin; it must cost next to nothing."""
    code = (
        "import ppu.testing.plugin, sys; "
        "print([m for m in ('numpy', 'aiohttp', 'bluesky', 'hypothesis') "
        "if m in sys.modules])"
    )
    ended = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )

    assert ended.stdout.strip() == "[]"
