"""What every test gets: checks for leaks, and a lab-time loop that jumps."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ppu.core.labtime import LabTimeLoop

# Every random draw is seeded, hypothesis's too: a red run is red for everybody.
# `HYPOTHESIS_PROFILE=explore make test` looks for new examples.
settings.register_profile("seeded", derandomize=True)
settings.register_profile("explore", max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "seeded"))

_PATHS = ("socket:", "pipe:", "/dev/pts/", "/dev/ptmx", "anon_inode:")
"""What a leaked descriptor leads to; libraries keep ordinary files open."""
_WORKER_ENDS_WALL_S = 2.0


def _open_paths() -> dict[int, str]:
    """Return the open descriptors that are a path to somebody else."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the links are read below
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - socket:[n] is no path
        except FileNotFoundError:
            continue
        if target.startswith(_PATHS) or target.endswith((".sqlite", ".sqlite-wal")):
            found[int(name)] = target
    return found


def _pending_tasks() -> set["asyncio.Task[Any]"]:
    """Return the tasks of all loops that have not ended."""
    everything = list(asyncio.tasks._all_tasks)  # type: ignore[attr-defined]  # across loops
    return {task for task in everything if not task.done()}


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a task, a descriptor or a thread behind."""
    threads, paths, tasks = (
        set(threading.enumerate()),
        _open_paths(),
        _pending_tasks(),
    )
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(_WORKER_ENDS_WALL_S)
    if (_open_paths().items() - paths.items()) or (_pending_tasks() - tasks):
        gc.collect()  # what a traceback kept alive is no leak
    left = set(threading.enumerate()) - threads

    assert not left, f"leaked threads: {left}"
    assert not _open_paths().items() - paths.items(), "leaked descriptors"
    assert not _pending_tasks() - tasks, "leaked tasks"


@pytest.fixture
def jumping() -> Iterator[LabTimeLoop]:
    """A loop that jumps; no debt and no fault may be left on it."""
    loop = LabTimeLoop(None)
    yield loop
    owing, tasks = loop.n_owing, asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()

    assert tasks == set()
    assert loop.faults == []
    assert owing == 0


@pytest.fixture
def play(jumping: LabTimeLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on the jumping loop and returns its result."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with jumping.active():
            return jumping.run_until_complete(work)

    return run


SMALL_LAB = """\
lab: small
schema_version: 1
seed: 3
devices:
  furnace_1:
    driver: ppu_drivers.eurotherm_3216:Eurotherm3216
    simulator: ppu_simulators.instruments.eurotherm_3216:SimulatedEurotherm3216
    hardware: {transport: serial, port: /dev/nowhere_1, baudrate: 9600}
    settings:
      dwell_unit: minute
      sample_period_s: 10
      safety: {setpoint_high_degc: 1100, alarm_1_degc: 1150}
    limits: {temperature_degc: [0, 1100], ramp_degc_per_min: [0, 10]}
    on_abort: ramp_down
    provides: [Furnace]
    slots: [furnace_1.slot_1]
  balance:
    driver: ppu_drivers.mettler_sics:MettlerSics
    simulator: ppu_simulators.instruments.mettler_sics:SimulatedMettlerSics
    hardware: {transport: serial, port: /dev/nowhere_2, baudrate: 9600}
    provides: [Balance]
    slots: [balance.pan]
  operator:
    driver: ppu_drivers.operator:PersonAtTerminal
    simulator: ppu_simulators.instruments.technician:SimulatedTechnician
    hardware: {transport: terminal}
    limits: {container_degc: [0, 250]}
    provides: [Operator]
locations:
  rack.1: {holds: crucible}
  rack.2: {holds: crucible}
  furnace_1.slot_1: {holds: crucible, inside: furnace_1}
  balance.pan: {holds: crucible, inside: balance}
containers:
  crucible_01: {kind: crucible, at: rack.1, capacity_ml: 20, tare_g: 18.2}
  crucible_04:
    {kind: crucible, at: rack.2, capacity_ml: 20, tare_g: 18.25, contents: {CaCO3: 2.0}}
"""
"""A furnace, a balance and a person: what ``fire_sample`` needs, and no more."""


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab file with a furnace, a balance and a person."""
    path = tmp_path_factory.mktemp("lab") / "small.yaml"
    path.write_text(SMALL_LAB)
    return path


@pytest.fixture(scope="session")
def ppu_command() -> str:
    """The installed ``ppu`` program of the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name("ppu"))
