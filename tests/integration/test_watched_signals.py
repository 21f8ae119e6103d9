"""Whoever watches a signal hears facts: fresh ones, lost ones, and after a mistake."""

import asyncio
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.core.errors import AbortedError, LinkBroken

OpenTwin = Callable[..., OpenLab]
Heard = list[tuple[Any, int]]


def watched(lab: Any, signal: Any, heard: Heard, seconds: float) -> MsgGenerator[None]:
    """Hear *signal* for a while: value and severity of each reading."""

    def hear(readings: dict[str, Any]) -> None:
        (reading,) = readings.values()
        heard.append((reading["value"], reading.get("alarm_severity", 0)))

    signal.subscribe(hear)
    yield from bps.sleep(seconds)
    signal.clear_sub(hear)


def test_task_of_a_subscriber_reads_the_wire_each_time(open_twin: OpenTwin) -> None:
    """What a poll asked for all is no answer for who goes on after it."""
    lab: Any = open_twin(links="memory")
    furnace = lab.furnace_1
    seen: list[tuple[float, int]] = []
    tasks: list[asyncio.Task[None]] = []

    async def look() -> None:
        for _ in range(4):
            await asyncio.sleep(200.0)
            before = furnace.statistics().n_exchanges
            value = await furnace.process_value.get_value()
            seen.append((value, furnace.statistics().n_exchanges - before))

    def begin(_: Any) -> None:
        if not tasks:
            tasks.append(asyncio.ensure_future(look()))

    def plan() -> MsgGenerator[None]:
        furnace.process_value.subscribe(begin)
        yield from bps.mv(furnace, 200.0)
        furnace.process_value.clear_sub(begin)
        yield from bps.wait_for([lambda: asyncio.wait(tasks)])

    lab.run(plan())

    values = [value for value, _ in seen]
    assert values == sorted(values)
    assert values[-1] > values[0] + 50.0
    assert [n for _, n in seen] == [1] * 4


def test_subscriber_makes_a_furnace_safe_by_what_is_so(open_twin: OpenTwin) -> None:
    """A supervisor that acts on a reading sees its own acts."""
    lab: Any = open_twin(links="memory")
    furnace = lab.furnace_1
    done: list[asyncio.Future[str]] = []

    def supervise(readings: dict[str, Any]) -> None:
        (reading,) = readings.values()
        if reading["value"] > 100.0 and not done:
            done.append(asyncio.ensure_future(furnace.go_to_abort_state()))

    def plan() -> MsgGenerator[None]:
        furnace.process_value.subscribe(supervise)
        status = yield from bps.abs_set(furnace, 300.0)
        yield from bps.sleep(2000.0)
        furnace.process_value.clear_sub(supervise)
        assert status.done

    with pytest.raises(AbortedError, match=r"ended from outside.*furnace_1"):
        lab.run(plan())

    assert "ramping down" in done[0].result()


def test_loss_of_the_wire_is_heard_whatever_the_type(
    open_twin: OpenTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last word of a lost instrument is not heard as if it were new."""
    lab: Any = open_twin(links="memory")
    furnace = lab.furnace_1
    heard: dict[str, Heard] = {"process_value": [], "loop_mode": []}

    def lose() -> MsgGenerator[None]:
        async def fail(*_: Any, **__: Any) -> list[int]:
            raise LinkBroken("furnace_1: the cable is out")

        with monkeypatch.context() as patch:
            patch.setattr(furnace._master, "read_holding", fail)
            yield from bps.sleep(50.0)

    def plan() -> MsgGenerator[None]:
        for name, into in heard.items():
            getattr(furnace, name).subscribe(
                lambda readings, into=into: into.extend(
                    (one["value"], one["alarm_severity"]) for one in readings.values()
                )
            )
        yield from bps.sleep(25.0)
        yield from lose()
        yield from bps.sleep(25.0)

    lab.run(plan())

    for readings in heard.values():
        severities = [severity for _, severity in readings]
        assert severities[:3] == [0, 0, 0]
        assert severities.count(3) == 5
        assert severities[-2:] == [0, 0]


def test_poll_goes_on_after_a_driver_s_mistake(
    open_twin: OpenTwin,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One wrong line in a driver does not silence a monitor for good."""
    lab: Any = open_twin(links="memory")
    furnace = lab.furnace_1
    heard: Heard = []
    read = furnace._master.read_holding
    mistakes = [ValueError("in the driver")]

    async def stumble(*arguments: Any, **options: Any) -> list[int]:
        if mistakes:
            raise mistakes.pop()
        found: list[int] = await read(*arguments, **options)
        return found

    monkeypatch.setattr(furnace._master, "read_holding", stumble)
    lab.run(watched(lab, furnace.process_value, heard, 55.0))

    assert len(heard) == 5
    assert "a poll failed in its driver" in capsys.readouterr().err
