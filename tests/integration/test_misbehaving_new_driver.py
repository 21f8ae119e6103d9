"""Plans written to misbehave with a driver that somebody has just generated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky.utils import MsgGenerator
from ophyd_async.core import AsyncStatus

from ppu.cell.lab import OpenLab
from ppu.cli.new import Example, Wire, write_files
from ppu.core.errors import InterlockError, LimitError, PPUError

OpenTwin = Callable[..., OpenLab]
Plan = MsgGenerator[Any]

HIGHEST_DEGC = 120.0
"""What the generated lab file allows; the instrument itself goes to 300 degC."""
TWO_HOURS_S = 7200.0


class Plate:
    """The twin of a generated hot plate, and what its setpoint was set to."""

    def __init__(self, lab: OpenLab) -> None:
        assert lab.bench is not None
        self.lab = lab
        self.device = lab.hot_plate
        instrument: Any = lab.bench.instruments["hot_plate"]
        self._plate = instrument._plate
        self._take = self._plate.set_setpoint
        self._plate.set_setpoint = self._hear
        self.taken: list[float] = []

    def _hear(self, value_degc: float, time: float) -> None:
        self.taken.append(value_degc)
        self._take(value_degc, time)

    def check_cold(self) -> None:
        """Check that nothing over the limit was taken, and that it does not heat on."""

        async def wait() -> tuple[float, float]:
            await asyncio.sleep(TWO_HOURS_S)
            truth: float = self._plate.true_degc(self.lab.host.loop.time())
            return truth, self._plate.setpoint_degc

        truth, setpoint = self.lab.host.call(wait())
        assert (setpoint, truth < 25.0) == (0.0, True)
        assert all(0 <= value <= HIGHEST_DEGC for value in self.taken), self.taken


@pytest.fixture(params=list(Wire), ids=lambda wire: str(wire.value))
def plate(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    open_twin: OpenTwin,
    monkeypatch: pytest.MonkeyPatch,
) -> Plate:
    """A hot plate as ``ppu new driver`` writes it, for each wire."""
    name = f"acme_misused_{request.param.value.replace('-', '_')}"
    write_files(Example(name, request.param).package(tmp_path / name))
    source = tmp_path / name / "src"
    monkeypatch.syspath_prepend(source)
    return Plate(open_twin(source / name / "labs" / f"{name}.yaml", links="memory"))


RAW = [0.0, 100.0, 100, 119.9, 121.0, 1e9, np.float32(121), np.int64(100)]
RAW += [float("nan"), "100", True]


def test_setpoint_of_a_new_driver_cannot_be_written_by_a_plan(plate: Plate) -> None:
    """The gate is closed by default: allowed or not, no value gets to the wire."""
    for value in RAW:
        with pytest.raises((InterlockError, LimitError), match="hot_plate"):
            plate.lab.run(bps.abs_set(plate.device.setpoint, value, wait=True))

    assert plate.taken == []


def too_hot(plate: Plate, value: Any) -> Plan:
    """Ask the plate itself for what the lab does not allow."""
    yield from bps.mv(plate.device, value)


@pytest.mark.parametrize("value", [120.5, 1e9, np.float32(121), float("nan"), -5.0])
def test_plate_itself_refuses_what_the_lab_does_not_allow(
    plate: Plate, value: Any
) -> None:
    """A limit holds for its own operation, in whatever type the value comes."""
    with pytest.raises(LimitError, match="hot_plate"):
        plate.lab.run(too_hot(plate, value))

    assert plate.taken == []


def scans_through(plate: Plate) -> Plan:
    """Walk out of the limit."""
    yield from bp.scan([plate.device], plate.device, 90, 150, 3)


def fails_on_its_way(plate: Plate) -> Plan:
    """Fail while it heats."""
    yield from bps.abs_set(plate.device, 110)
    yield from bps.sleep(60)
    raise ZeroDivisionError


def fails_at_once(plate: Plate) -> Plan:
    """Fail before the first byte."""
    yield from bps.abs_set(plate.device, 110)
    raise ZeroDivisionError


def sets_and_leaves(plate: Plate) -> Plan:
    """End well, hot."""
    yield from bps.mv(plate.device, 100)


def sets_without_waiting(plate: Plate) -> Plan:
    """End before the first byte."""
    yield from bps.abs_set(plate.device, 100)


def sets_without_waiting_for_long(plate: Plate) -> Plan:
    """End on its way."""
    yield from bps.abs_set(plate.device, 100)
    yield from bps.sleep(120)


class Forgetter:
    """A device of a plan author that leaves something behind.

    Args:
        act: What is left.
    """

    name = "forgetter"
    parent = None

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def trigger(self) -> AsyncStatus[Any]:
        """Leave it, and say that it is done."""
        self._left = asyncio.ensure_future(self._act())
        return AsyncStatus(asyncio.sleep(0))


async def set_after(plate: Plate, delay_s: float) -> None:
    """Set the plate itself, later."""
    await asyncio.sleep(delay_s)
    await plate.device.set(100.0)


def forgets(plate: Plate) -> Plan:
    """Leave a task that sets it at once."""
    yield from bps.trigger(Forgetter(partial(set_after, plate, 0.0)), wait=True)


def forgets_for_later(plate: Plate) -> Plan:
    """Leave a task that sets it a minute after the plan has ended."""
    yield from bps.trigger(Forgetter(partial(set_after, plate, 60.0)), wait=True)


@pytest.mark.parametrize("make", [scans_through, fails_on_its_way, fails_at_once])
def test_plan_fails_and_the_plate_is_off(
    plate: Plate, make: Callable[[Plate], Plan]
) -> None:
    """Nothing above the limit is sent, and nothing heats afterwards."""
    with pytest.raises((PPUError, ZeroDivisionError)):
        plate.lab.run(make(plate))

    plate.check_cold()


@pytest.mark.parametrize(
    "make",
    [
        sets_and_leaves,
        sets_without_waiting,
        sets_without_waiting_for_long,
        forgets,
        forgets_for_later,
    ],
)
def test_plan_ends_well_and_the_plate_is_off(
    plate: Plate, make: Callable[[Plate], Plan]
) -> None:
    """However it was begun, it does not heat once the plan is over."""
    plate.lab.run(make(plate))

    plate.check_cold()
