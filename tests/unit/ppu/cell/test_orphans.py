"""Instruments whose cell has died, found by whoever comes first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ppu.cell.orphans import Orphans
from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import PPUError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.labtime import running_loop
from ppu.devices.build import build_devices
from ppu.twin.bench import Bench

Play = Callable[[Coroutine[Any, Any, Any]], Any]
PROFILE = FiringProfile((Segment(600.0, 10.0, 3600.0),), 100.0)


@contextlib.asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[LabFile, Bench]]:
    """Give a lab file whose hardware leads to simulated instruments."""
    file = load_lab(path)
    bench = Bench(file, path, seed=1)
    await bench.start()
    devices = {
        name: entry.model_copy(update={"hardware": bench.connections[name]})
        for name, entry in file.devices.items()
    }
    try:
        yield file.model_copy(update={"devices": devices}), bench
    finally:
        await bench.stop()


async def fire_and_die(file: LabFile, path: Path) -> None:
    """Start a firing, and let nobody see it through."""
    furnace: Any = build_devices(file, path, None, ("furnace_1",))["furnace_1"]
    await furnace.connect_link()
    await furnace.prepare(PROFILE)
    await furnace.kickoff()
    await asyncio.sleep(1200.0)
    furnace._firing.task.cancel()
    await asyncio.gather(furnace._firing.task, return_exceptions=True)
    await furnace.disconnect()


def setpoint(bench: Bench) -> float:
    """Return what the furnace of a bench heats to now."""
    bench.world.truth(running_loop().time())
    furnace: Any = bench.instruments["furnace_1"]
    return float(furnace.setpoint_degc)


def test_instruments_that_do_nothing_are_left_alone(
    play: Play, small_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is told but that all is well."""

    async def scenario() -> None:
        async with served(small_lab) as (file, _):
            await Orphans(file, small_lab).make_safe()

    play(scenario())

    told = capsys.readouterr().err
    assert told == "guard: every instrument is in its orphan state\n"


def test_program_goes_on_when_its_cell_has_died(
    play: Play, small_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next cell may join it."""

    async def scenario() -> float:
        async with served(small_lab) as (file, bench):
            await fire_and_die(file, small_lab)
            await Orphans(file, small_lab).make_safe()
            await asyncio.sleep(1200.0)
            return setpoint(bench)

    assert play(scenario()) > 300.0
    assert "furnace_1: left alone" in capsys.readouterr().err


def test_instrument_that_does_not_answer_is_told_and_keeps_nobody_else(
    play: Play, small_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is tried a few times; the others are seen to at once."""

    async def scenario() -> None:
        async with served(small_lab) as (file, bench):
            await fire_and_die(file, small_lab)
            bench.inject("balance", {"fault": "drop", "for_s": 1e6})
            await Orphans(file, small_lab).make_safe()

    play(scenario())

    told = capsys.readouterr().err
    assert told.index("furnace_1: left alone") < told.index("balance did not get to")
    assert "balance is not seen to: balance: no complete reply" in told


def test_instrument_that_answers_again_is_seen_to(
    play: Play, small_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wire that is out for a moment is no reason to leave a furnace alone."""

    async def scenario() -> None:
        async with served(small_lab) as (file, bench):
            await fire_and_die(file, small_lab)
            bench.inject("furnace_1", {"fault": "drop", "for_s": 2.5})
            await Orphans(file, small_lab).make_safe()

    play(scenario())

    told = capsys.readouterr().err
    assert told.index("furnace_1 is not seen to") < told.index("furnace_1: left alone")


@pytest.mark.parametrize("declared", ["ramp_down", None])
def test_what_heats_is_brought_down_and_watched_when_nobody_comes(
    play: Play,
    small_lab: Path,
    capsys: pytest.CaptureFixture[str],
    declared: str | None,
) -> None:
    """It goes to its abort state, declared or not, also if somebody heats again."""

    async def scenario() -> list[float]:
        async with served(small_lab) as (found_file, bench):
            devices = dict(found_file.devices)
            entry = devices["furnace_1"].model_copy(update={"on_abort": declared})
            devices["furnace_1"] = entry
            file = found_file.model_copy(update={"devices": devices})
            await fire_and_die(file, small_lab)
            stopped = asyncio.Event()
            watch = asyncio.create_task(Orphans(file, small_lab).keep_safe(stopped))
            found = []
            await asyncio.sleep(1500.0)
            found.append(setpoint(bench))
            # By hand, at the furnace.
            furnace: Any = bench.instruments["furnace_1"]
            furnace._start_program()
            await asyncio.sleep(300.0)
            found.append(setpoint(bench))
            stopped.set()
            await watch
            return found

    after_death, after_hand = play(scenario())

    assert after_death < 100.0
    assert after_hand < 170.0
    told = capsys.readouterr().err
    assert told.count("furnace_1: ramping down") == 2
    assert "furnace_1: the chamber is at" in told


def test_driver_that_fails_keeps_nobody_else_from_safety(
    play: Play,
    small_lab: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake in one driver is told, and the furnace is seen to all the same."""
    from ppu_drivers.mettler_sics import MettlerSics  # noqa: PLC0415 - to spoil it

    async def fail(_: MettlerSics) -> str:
        raise ValueError("a mistake")

    monkeypatch.setattr(MettlerSics, "go_to_orphan_state", fail)

    async def scenario() -> None:
        async with served(small_lab) as (file, _):
            await fire_and_die(file, small_lab)
            await Orphans(file, small_lab).make_safe()

    play(scenario())

    told = capsys.readouterr().err
    assert "furnace_1: left alone" in told
    assert "its driver failed (ValueError: a mistake)" in told


def test_wrong_lab_file_is_refused_before_a_cell_is_started(small_lab: Path) -> None:
    """Whoever shall see to instruments must know how to reach them."""
    file = load_lab(small_lab)
    entry = file.devices["furnace_1"].model_copy(update={"hardware": {}})
    broken = file.model_copy(update={"devices": {"furnace_1": entry}})

    with pytest.raises(PPUError, match="transport"):
        Orphans(broken, small_lab)
