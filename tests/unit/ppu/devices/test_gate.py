"""The road of writes: what a plan may send, in whatever type it says it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from ophyd_async.core import Command, Device, StrictEnum
from ophyd_async.core import SignalR as OphydSignalR
from typing_extensions import override

from ppu.core.errors import InterlockError, LimitError
from ppu.devices import Address, SignalRW, execute, write
from ppu.devices.gate import Gate
from ppu.devices.readings import Poller
from ppu.devices.signals import Wire, WireConnector

Play = Callable[[Coroutine[Any, Any, Any]], Any]
Sent = list[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Kept(Address[Sent]):
    """An address whose wire is a list."""

    name: str

    @override
    def __str__(self) -> str:
        return f"kept://{self.name}"

    @override
    async def ask(self, client: Sent) -> Any:
        return [value for name, value in client if name == self.name][-1]

    @override
    async def write(self, client: Sent, value: Any) -> None:
        client.append((self.name, value))

    @override
    async def execute(self, client: Sent, *args: Any) -> None:
        client.append((self.name, *args))


class Mode(StrictEnum):
    """Modes of a plate."""

    OFF = "off"
    ON = "on"


class Plate(Device):
    """A plate that lets plans write, within limits, and one thing that it does not."""

    setpoint: Annotated[
        SignalRW[float],
        Kept(name="setpoint", plan_may_write=True, limited_by="temperature_degc"),
    ]
    cycles: Annotated[
        SignalRW[int], Kept(name="cycles", plan_may_write=True, low=0, high=9)
    ]
    mode: Annotated[
        SignalRW[Mode],
        Kept(name="mode", plan_may_write=True, codes={0: Mode.OFF, 1: Mode.ON}),
    ]
    step: Annotated[
        Command[[float], None],
        Kept(name="step", plan_may_write=True, high=50, limited_by="temperature_degc"),
    ]
    power: Annotated[SignalRW[float], Kept(name="power")]


class Foreign(Device):
    """A device with a signal of ophyd-async's own."""

    temperature: Annotated[OphydSignalR[float], Kept(name="temperature")]


def make_wire(sent: Sent) -> Wire:
    """Return a wire of a lab that allows up to 20 degC."""
    gate = Gate("plate", "its operations", lambda: {"temperature_degc": (0.0, 20.0)})
    return Wire(sent, gate, Poller(lambda: 1.0))


@pytest.fixture
def sent() -> Sent:
    """What was sent."""
    return []


@pytest.fixture
def plate(sent: Sent) -> Plate:
    """A plate of a lab that allows up to 20 degC."""
    return Plate(name="plate", connector=WireConnector(make_wire(sent)))


def test_signal_that_answers_from_its_cache_is_refused(sent: Sent) -> None:
    """A driver cannot take ophyd-async's signal for ours: what it says may be old."""
    with pytest.raises(TypeError, match=r"Foreign.temperature must be a SignalR"):
        Foreign(connector=WireConnector(make_wire(sent)))


TOO_HIGH = [20.5, 21, np.float64(21), np.float32(21), np.int64(21), np.float32("nan")]
NO_NUMBERS = ["19", b"19", None, [19.0], 19j, float("-inf")]


@pytest.mark.parametrize("value", [*TOO_HIGH, *NO_NUMBERS])
def test_value_is_refused_in_whatever_type_it_comes(
    play: Play, plate: Plate, sent: Sent, value: Any
) -> None:
    """A limit holds for every kind of number, and what is no number is not sent."""

    async def scenario() -> None:
        with pytest.raises(LimitError, match="plate"):
            await plate.setpoint.set(value)
        with pytest.raises(LimitError, match="plate"):
            await write(plate.setpoint, value)

    play(scenario())

    assert sent == []


@pytest.mark.parametrize("value", [19, 19.0, np.float32(19), np.int16(19), True])
def test_number_is_sent_as_what_its_signal_holds(
    play: Play, plate: Plate, sent: Sent, value: Any
) -> None:
    """Numbers of numpy are numbers: scans give them."""

    async def scenario() -> None:
        await plate.setpoint.set(value)

    play(scenario())
    ((_, got),) = sent

    assert (got, type(got)) == (float(value), float)


@pytest.mark.parametrize("value", [2.5, 10, np.float64(2.5), "2", -1])
def test_whole_number_is_refused_when_it_is_none(
    play: Play, plate: Plate, sent: Sent, value: Any
) -> None:
    """Nothing is rounded to what was not asked."""

    async def scenario() -> None:
        with pytest.raises(LimitError, match="plate"):
            await plate.cycles.set(value)

    play(scenario())

    assert sent == []


def test_choice_is_taken_by_its_text_and_refused_by_another(
    play: Play, plate: Plate, sent: Sent
) -> None:
    """Plans may say a choice in words; a wrong one is told with those there are."""

    async def scenario() -> None:
        await plate.mode.set("on")  # type: ignore[arg-type]  # as plans do
        with pytest.raises(LimitError, match="'hot' is none of off, on"):
            await plate.mode.set("hot")  # type: ignore[arg-type]  # as plans do

    play(scenario())

    assert sent == [("mode", 1)]


@pytest.mark.parametrize("value", [20.5, 60.0, np.float32(21), float("nan"), "5"])
def test_command_is_refused_when_what_it_is_given_is_over_a_limit(
    play: Play, plate: Plate, sent: Sent, value: Any
) -> None:
    """A limit of the lab or the address holds for commands as for signals."""

    async def scenario() -> None:
        with pytest.raises(LimitError, match="plate"):
            await plate.step.execute(value)
        with pytest.raises(LimitError, match="plate"):
            await execute(plate.step, value)
        await plate.step.execute(5.0)

    play(scenario())

    assert sent == [("step", 5.0)]


def test_only_the_driver_writes_what_its_address_does_not_open(
    play: Play, plate: Plate, sent: Sent
) -> None:
    """A plan is refused with what to use instead; the driver's operation passes."""

    async def scenario() -> None:
        with pytest.raises(InterlockError, match="use its operations"):
            await plate.power.set(5.0)
        await write(plate.power, 5.0)

    play(scenario())

    assert sent == [("power", 5.0)]
