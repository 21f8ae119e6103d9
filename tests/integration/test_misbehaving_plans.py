"""Plans written to misbehave: what they try, and what gets to the wire."""

from __future__ import annotations

import asyncio
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky.utils import Msg, MsgGenerator
from ophyd_async.core import AsyncStatus, Command, SignalW, StrictEnum
from typing_extensions import override

import ppu_drivers
from ppu.cell.lab import OpenLab
from ppu.core.capabilities import Carry, FiringProfile, GasRequest, Grind, Segment
from ppu.core.errors import InterlockError, LimitError, PPUError
from ppu.devices import Instrument
from ppu.devices.firing import LoopMode
from ppu.devices.signals import is_open_to_plans

OpenTwin = Callable[..., OpenLab]
Plan = MsgGenerator[Any]
MakePlan = Callable[[OpenLab], Plan]

TWO_HOURS_S = 7200.0
ROOM_DEGC = 25.0
HIGHEST_DEGC, FASTEST_DEGC_PER_MIN, HIGHEST_ML_PER_MIN = 1100.0, 10.0, 500.0
"""What the lab file allows both furnaces, and the gas."""

HOT = FiringProfile((Segment(900.0, 10.0, 3600.0),), cool_to_degc=60.0)
TOO_HOT = FiringProfile((Segment(1100.5, 5.0, 60.0),), cool_to_degc=60.0)
TOO_FAST = FiringProfile((Segment(900.0, 10.5, 60.0),), cool_to_degc=60.0)
HIDDEN = FiringProfile(
    (Segment(100.0, 5.0, 60.0), Segment(1300.0, 5.0, 60.0), Segment(50.0, 5.0, 0.0)),
    cool_to_degc=60.0,
)
OXYGEN = GasRequest("O2", 100.0)
GRIND = Grind("crucible_01", 600.0)
CARRY = Carry("crucible_01", "rack_1.1", "balance.pan")

# -- the wire, seen from the simulated instruments -------------------------------------


def instruments_of(lab: OpenLab) -> dict[str, Any]:
    """Return the simulated instruments of *lab*, whatever they are."""
    assert lab.bench is not None
    return dict(lab.bench.instruments)


@dataclass
class Wires:
    """What reached the simulated instruments of a lab since it was opened."""

    lab: OpenLab
    n_heard: dict[str, int] = field(default_factory=dict)
    """How often each instrument was sent anything, reads too."""
    writes: list[tuple[str, int, int]] = field(default_factory=list)
    """Device, register and signed value of each register written."""
    flows: list[float] = field(default_factory=list)
    """Setpoints that the gas controller was sent [mL/min]."""
    wrong: list[str] = field(default_factory=list)
    """What lay outside of a limit."""

    def __post_init__(self) -> None:
        instruments = instruments_of(self.lab)
        for name, instrument in instruments.items():
            self.n_heard[name] = 0
            for method in ("read", "write", "receive"):
                if hasattr(instrument, method):
                    heard = partial(
                        self._hear, name, method, getattr(instrument, method)
                    )
                    setattr(instrument, method, heard)
        gas = instruments.get("gas_2")
        if gas is not None:
            gas._set_setpoint = partial(self._hear_flow, gas._set_setpoint)

    def _hear(self, name: str, method: str, heard: Any, *arguments: Any) -> Any:
        self.n_heard[name] += 1
        if method == "write":
            address, values, _ = arguments
            for register, word in enumerate(values, address):
                value = word - 0x10000 if word >= 0x8000 else word
                self.writes.append((name, register, value))
                if name.startswith("furnace"):
                    self._judge(name, register, value)
        return heard(*arguments)

    def _hear_flow(self, set_setpoint: Any, value: float, time: float) -> Any:
        self.flows.append(value)
        if not 0 <= value <= HIGHEST_ML_PER_MIN:
            self.wrong.append(f"gas_2 was set to {value:g} mL/min")
        return set_setpoint(value, time)

    def _judge(self, name: str, register: int, value: int) -> None:
        """Judge a register that a controller heats by."""
        registers = instruments_of(self.lab)[name]._registers
        targets, rates = {2, 24, 25}, {35, 1667}
        if name == "furnace_1":
            targets |= set(range(1281, 1304, 3))
            rates |= set(range(1282, 1304, 3))
        elif 8336 <= register < 8336 + 8 * 15:
            first = register - (register - 8336) % 8
            if registers[first] == 1:  # a ramp: what it is was written first
                targets, rates = {first + 1}, {first + 2}
        is_wrong = (
            (register in targets and not 0 <= value <= 10 * HIGHEST_DEGC)
            or (register in rates and not 0 <= value <= 10 * FASTEST_DEGC_PER_MIN)
            or (register == 3 and value != 0)
        )
        if is_wrong:
            self.wrong.append(f"{name}: {value} was written to register {register}")

    @property
    def n_acts(self) -> int:
        """How often something was sent that changes a furnace, a gripper or a gas."""
        return len(self.writes) + len(self.flows)


@pytest.fixture
def lab(open_twin: OpenTwin) -> OpenLab:
    """The bundled lab."""
    return open_twin(links="memory")


@pytest.fixture
def wires(lab: OpenLab) -> Wires:
    """What reaches its instruments from now on."""
    return Wires(lab)


def check_nothing_goes_on(lab: OpenLab) -> None:
    """Check in the world that nothing heats, flows or moves, for two hours."""
    assert lab.bench is not None
    world: Any = lab.bench.world
    instruments = instruments_of(lab)

    async def look() -> dict[str, float]:
        world.truth(lab.host.loop.time())
        chambers = [instruments[name].chamber for name in ("furnace_1", "furnace_2")]
        return {chamber.name: chamber.chamber_degc for chamber in chambers}

    async def wait() -> dict[str, float]:
        await asyncio.sleep(TWO_HOURS_S)
        return await look()

    before = lab.host.call(look())
    after = lab.host.call(wait())
    for name, degc in after.items():
        assert instruments[name].chamber.output == 0.0
        cools = degc - ROOM_DEGC < 0.97 * (before[name] - ROOM_DEGC)
        assert cools or degc < ROOM_DEGC + 1.0, f"{name} was {before[name]:g}"
        assert instruments[name].manual_output in (None, 0.0)
    assert world.gas_into("furnace_2")[1] < 1.0
    assert instruments["robot_arm"]._state == "STOPPED"


# -- raw writes, of every driver -------------------------------------------------------


def writables(device: Instrument) -> dict[str, Any]:
    """Return the signals and commands of *device* that change something."""
    return {
        name: child
        for name, child in device.children()
        if isinstance(child, SignalW | Command)
    }


def values_for(child: Any) -> list[Any]:
    """Return values to try on *child*: allowed ones, and those that no one may."""
    if isinstance(child, Command):
        return [None]
    datatype: Any = child.datatype
    if issubclass(datatype, StrictEnum):
        return [*datatype, *[choice.value for choice in datatype]]
    return [0, 1, 100.0, 1e9, -1e9, float("nan"), np.float32(100), np.int64(1), "100"]


def raw(child: Any, value: Any, wires: Wires) -> Plan:
    """Write *value* past the driver's operations, or trigger what is no signal."""
    heard = dict(wires.n_heard)
    try:
        if isinstance(child, Command):
            yield from bps.trigger(child, wait=True)
        else:
            yield from bps.abs_set(child, value, wait=True)
    finally:
        assert wires.n_heard == heard, f"{child.name} {value!r} was sent"


def test_every_driver_is_in_the_lab(lab: OpenLab) -> None:
    """A driver that is added here is tried below, or this fails."""
    known = set()
    for module in pkgutil.iter_modules(ppu_drivers.__path__, "ppu_drivers."):
        for item in vars(importlib.import_module(module.name)).values():
            if isinstance(item, type) and issubclass(item, Instrument):
                known.add(item.__name__)

    here = {type(device).__name__ for device in lab.devices.values()}
    assert known - here == {"PersonAtTerminal"}, "what a person has no signals"


def test_raw_write_of_every_driver_is_refused_before_the_wire(
    lab: OpenLab, wires: Wires
) -> None:
    """Nothing that its address does not open can be written by a plan, by any value."""
    tried = []
    for name, device in lab.devices.items():
        assert isinstance(device, Instrument)
        for child_name, child in writables(device).items():
            if is_open_to_plans(child):
                continue
            for value in values_for(child):
                with pytest.raises((InterlockError, LimitError)) as caught:
                    lab.run(raw(child, value, wires))
                assert name in str(caught.value)
                tried.append(f"{name}.{child_name} = {value!r}")

    assert len(tried) > 120
    assert {"furnace_1.manual_output = 100.0", "gripper.force = 100.0"} <= set(tried)
    assert wires.n_acts == 0
    check_nothing_goes_on(lab)


def test_what_plans_may_write_neither_heats_nor_moves_nor_flows(lab: OpenLab) -> None:
    """What addresses open to plans is known, one by one."""
    opened = {
        f"{name}.{child_name}"
        for name, device in lab.devices.items()
        if isinstance(device, Instrument)
        for child_name, child in writables(device).items()
        if is_open_to_plans(child)
    }

    assert opened == {"balance.tare_", "balance.zero"}


# -- objects of plan authors -----------------------------------------------------------


class Wrapper:
    """A device of a plan author: awaits what the author made of it."""

    parent = None

    def __init__(self, act: Callable[[Any], Any], name: str = "wrapper") -> None:
        self.name = name
        self._act = act

    def set(self, value: Any) -> AsyncStatus[Any]:
        """Do it."""
        return AsyncStatus(self._act(value))


class Forgetter(Wrapper):
    """One that lets what it began go on, and says that it is done."""

    @override
    def set(self, value: Any) -> AsyncStatus[Any]:
        self._left = asyncio.ensure_future(self._act(value))

        async def nothing() -> None:
            pass

        return AsyncStatus(nothing())


class Stopper(Wrapper):
    """One that begins something when it is stopped, which is when the plan ends."""

    @override
    def set(self, value: Any) -> AsyncStatus[Any]:
        return Forgetter.set(Forgetter(asyncio.sleep), 0)

    def stop(self, success: bool = True) -> None:
        """Begin it."""
        self._left = asyncio.ensure_future(self._act(900.0))


async def by_hand(lab: OpenLab, value: float) -> None:
    """Write as an ophyd-async device would: past the plan's messages."""
    await lab.furnace_1.loop_mode.set(LoopMode.MANUAL)
    await lab.furnace_1.manual_output.set(value)


async def awaited(device: Any, value: Any) -> None:
    """Await a method of a driver."""
    await device.set(value)


# -- the plans -------------------------------------------------------------------------

WELL: dict[str, MakePlan] = {}
"""Plans that end well, as plans go, and leave something on."""
REFUSED: dict[str, MakePlan] = {}
"""Plans that must fail."""


def ends_well(make: MakePlan) -> MakePlan:
    """Have *make* tried: nobody refuses it."""
    WELL[make.__name__] = make
    return make


def in_a_run(make: MakePlan) -> MakePlan:
    """Have a run around what *make* returns: bluesky flies only within one."""

    @functools.wraps(make)
    def wrapped(lab: OpenLab) -> Plan:
        return (yield from bpp.run_wrapper(make(lab)))

    return wrapped


def is_refused(make: MakePlan) -> MakePlan:
    """Have *make* tried: it must fail."""
    REFUSED[make.__name__] = make
    return make


@is_refused
def output_by_hand(lab: OpenLab) -> Plan:
    """Set full power by hand, as the controller's manual shows it."""
    furnace = lab.furnace_1
    yield from bps.mv(furnace.loop_mode, LoopMode.MANUAL, furnace.manual_output, 100)


@is_refused
def output_by_hand_of_the_other(lab: OpenLab) -> Plan:
    """The same at the other controller, one after the other, refusals swallowed."""
    furnace = lab.furnace_2
    refused: Exception | None = None
    for signal, value in (
        (furnace.loop_mode, LoopMode.MANUAL),
        (furnace.servo_to, "sp"),
        (furnace.manual_output, 100.0),
    ):
        try:
            yield from bps.mv(signal, value)
        except Exception as exc:  # noqa: BLE001 - a plan that does not want to know
            refused = exc
    assert refused is not None
    raise refused


@is_refused
def output_by_rel_set(lab: OpenLab) -> Plan:
    """Climb from what the wire says."""
    yield from bps.rel_set(lab.furnace_1.manual_output, 60.0, wait=True)


@is_refused
def output_by_bare_messages(lab: OpenLab) -> Plan:
    """Leave the plan stubs out."""
    yield Msg("set", lab.furnace_1.manual_output, 100.0, group="g")
    yield Msg("wait", None, group="g")


@is_refused
def output_from_a_coroutine(lab: OpenLab) -> Plan:
    """Hand the engine a coroutine that writes."""
    (task,) = yield from bps.wait_for([partial(by_hand, lab, 100.0)])
    task.result()


@is_refused
def output_by_a_device_of_its_own(lab: OpenLab) -> Plan:
    """Wrap the writes in a device."""
    yield from bps.mv(Wrapper(partial(by_hand, lab)), 100.0)


@is_refused
def output_from_a_thread(lab: OpenLab) -> Plan:
    """Write from a worker thread in which the plan computes."""
    loop = lab.host.loop

    def compute() -> None:
        asyncio.run_coroutine_threadsafe(by_hand(lab, 100.0), loop).result(100.0)

    yield Msg("compute", None, compute)


@is_refused
def program_by_command(lab: OpenLab) -> Plan:
    """Start whatever program is in the controller."""
    yield from bps.trigger(lab.furnace_2.run_program, wait=True)


@is_refused
def program_by_status(lab: OpenLab) -> Plan:
    """Start it by its status register."""
    yield from bps.mv(lab.furnace_1.program_status, "run")


@is_refused
def setpoint_over_the_limit(lab: OpenLab) -> Plan:
    """Ask the furnace itself for too much."""
    yield from bps.mv(lab.furnace_1, 1100.1)


@is_refused
def setpoint_of_numpy(lab: OpenLab) -> Plan:
    """Ask for it in a type that is no float of Python's."""
    yield from bps.mv(lab.furnace_2, np.float32(1200))


@is_refused
def setpoint_that_is_no_number(lab: OpenLab) -> Plan:
    """Compare it with anything: it is never too high."""
    yield from bps.mv(lab.furnace_1, float("nan"))


@is_refused
def setpoint_without_end(lab: OpenLab) -> Plan:
    """Ask for all that there is."""
    yield from bps.mv(lab.furnace_2, float("inf"))


@is_refused
def setpoint_of_text(lab: OpenLab) -> Plan:
    """Ask in words."""
    yield from bps.mv(lab.furnace_1, "1200")


@is_refused
def scan_through_the_limit(lab: OpenLab) -> Plan:
    """Begin within the limit and walk out of it."""
    furnace = lab.furnace_1
    points: Any = [40.0, 1101.0]
    yield from bp.list_scan([furnace.process_value], furnace, points)


@is_refused
def relative_through_the_limit(lab: OpenLab) -> Plan:
    """Go somewhere, and on from there."""
    yield from bps.mv(lab.furnace_2, 40.0)
    yield from bps.rel_set(lab.furnace_2, 1061.0, wait=True)


@is_refused
def gas_through_the_limit(lab: OpenLab) -> Plan:
    """Open a valve wider at each point."""
    yield from bps.mv(lab.gas_2, OXYGEN)
    yield from bp.scan([lab.furnace_2], lab.gas_2, 300, 600, 4)


@is_refused
def gas_backwards(lab: OpenLab) -> Plan:
    """Ask for less than none."""
    yield from bps.mv(lab.gas_2, OXYGEN)
    yield from bps.rel_set(lab.gas_2, -150, wait=True)


@is_refused
def gas_that_is_no_number(lab: OpenLab) -> Plan:
    """Ask for a flow that no comparison refuses."""
    yield from bps.mv(lab.gas_2, OXYGEN)
    yield from bps.mv(lab.gas_2, float("nan"))


@is_refused
@in_a_run
def profile_over_the_limit(lab: OpenLab) -> Plan:
    """Have a program loaded that is too hot."""
    yield from bps.prepare(lab.furnace_1, TOO_HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1, wait=True)


@is_refused
@in_a_run
def profile_too_fast(lab: OpenLab) -> Plan:
    """Have a program loaded that ramps too fast."""
    yield from bps.prepare(lab.furnace_2, TOO_FAST, wait=True)
    yield from bps.kickoff(lab.furnace_2, wait=True)


@is_refused
@in_a_run
def profile_hidden_after_a_good_one(lab: OpenLab) -> Plan:
    """Load a good program, then a wrong one, and start what is there."""
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    try:
        yield from bps.prepare(lab.furnace_1, HIDDEN, wait=True)
    except Exception:  # noqa: BLE001 - a plan that does not want to know
        yield from bps.null()
    yield from bps.kickoff(lab.furnace_1, wait=True)


@is_refused
def two_setpoints_at_once(lab: OpenLab) -> Plan:
    """Set a furnace to two temperatures in one breath."""
    yield from bps.abs_set(lab.furnace_1, 900.0, group="a")
    yield from bps.abs_set(lab.furnace_1, 100.0, group="a")
    yield from bps.wait("a")


@is_refused
@in_a_run
def two_programs_at_once(lab: OpenLab) -> Plan:
    """Load two programs in one breath, and start what came of it twice."""
    yield from bps.prepare(lab.furnace_2, HOT, group="a")
    yield from bps.prepare(lab.furnace_2, FiringProfile(HOT.segments, 50.0), group="a")
    yield from bps.wait("a")
    yield from bps.kickoff(lab.furnace_2, group="b")
    yield from bps.kickoff(lab.furnace_2, group="b")
    yield from bps.wait("b")


@is_refused
@in_a_run
def fails_when_it_has_begun(lab: OpenLab) -> Plan:
    """Fail in the moment in which the program has started."""
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1, wait=True)
    raise ZeroDivisionError


@is_refused
@in_a_run
def fails_while_it_begins(lab: OpenLab) -> Plan:
    """Fail while program, gas and arm are on their way."""
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1)
    yield from bps.abs_set(lab.furnace_2, 700.0)
    yield from bps.abs_set(lab.gas_2, OXYGEN)
    yield from bps.abs_set(lab.robot_arm, CARRY)
    yield from bps.sleep(0.05)
    raise ZeroDivisionError


@is_refused
def heats_when_it_cleans_up(lab: OpenLab) -> Plan:
    """Begin to heat because something went wrong."""

    def fail() -> Plan:
        yield from bps.null()
        raise ZeroDivisionError

    yield from bpp.finalize_wrapper(fail(), bps.abs_set(lab.furnace_1, 900.0))


@is_refused
@in_a_run
def aborts_itself(lab: OpenLab) -> Plan:
    """Have itself aborted while it heats."""
    yield from bps.prepare(lab.furnace_2, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_2, wait=True)
    lab.host.loop.call_soon(
        lambda: lab.host.loop.run_in_executor(None, lab.host.abort, "enough")
    )
    yield from bps.sleep(3600.0)


@ends_well
@in_a_run
def begins_and_leaves(lab: OpenLab) -> Plan:
    """Start a program, and end well."""
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1, wait=True)
    yield from bps.sleep(1800.0)


@ends_well
@in_a_run
def begins_both_and_leaves_at_once(lab: OpenLab) -> Plan:
    """Start two programs without waiting for either, and end well."""
    for furnace in (lab.furnace_1, lab.furnace_2):
        yield from bps.prepare(furnace, HOT, wait=True)
        yield from bps.kickoff(furnace)


@ends_well
@in_a_run
def completes_without_waiting(lab: OpenLab) -> Plan:
    """Ask to be told of the end, and do not listen."""
    yield from bps.prepare(lab.furnace_2, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_2, wait=True)
    yield from bps.complete(lab.furnace_2)
    yield from bps.sleep(600.0)


@ends_well
def sets_and_leaves(lab: OpenLab) -> Plan:
    """Set a furnace, and end well once it is there."""
    yield from bps.mv(lab.furnace_1, 60.0)


@ends_well
def sets_without_waiting(lab: OpenLab) -> Plan:
    """Set both furnaces, and end before a byte is sent."""
    yield from bps.abs_set(lab.furnace_1, 900.0)
    yield from bps.abs_set(lab.furnace_2, 900.0)


@ends_well
def sets_without_waiting_for_long(lab: OpenLab) -> Plan:
    """Set both furnaces, and end on their way."""
    yield from bps.abs_set(lab.furnace_1, 900.0)
    yield from bps.abs_set(lab.furnace_2, 900.0)
    yield from bps.sleep(900.0)


@ends_well
def sets_by_a_device_that_forgets(lab: OpenLab) -> Plan:
    """Have an object begin it that says at once that it is done."""
    yield from bps.mv(Forgetter(partial(awaited, lab.furnace_1)), 900.0)
    yield from bps.mv(Forgetter(partial(awaited, lab.furnace_2), "other"), 900.0)
    yield from bps.mv(Forgetter(partial(awaited, lab.gas_2), "third"), OXYGEN)


@ends_well
def sets_when_it_is_stopped(lab: OpenLab) -> Plan:
    """Have an object begin it in the `stop` that bluesky calls at the end."""
    yield from bps.mv(Stopper(partial(awaited, lab.furnace_1)), 0)


@ends_well
def leaves_gas_flowing(lab: OpenLab) -> Plan:
    """Let gas flow, and end well."""
    yield from bps.mv(lab.gas_2, OXYGEN)


@ends_well
def leaves_gas_on_its_way(lab: OpenLab) -> Plan:
    """Let gas flow, and end before it does."""
    yield from bps.abs_set(lab.gas_2, OXYGEN)


@ends_well
def leaves_the_arm_moving(lab: OpenLab) -> Plan:
    """Have it grind ten times, and end before the first."""
    yield from bps.abs_set(lab.robot_arm, GRIND)


@ends_well
@in_a_run
def stages_and_leaves(lab: OpenLab) -> Plan:
    """Stage everything that can be staged, heat, and unstage nothing."""
    for device in (lab.furnace_1, lab.furnace_2, lab.gas_2):
        yield from bps.stage(device)
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1, wait=True)
    yield from bps.monitor(lab.furnace_1.process_value, name="watched")
    yield from bps.sleep(300.0)


@ends_well
def nests_runs_and_leaves_them(lab: OpenLab) -> Plan:
    """Open one run within another, monitor, heat, and close none of them."""
    for key, furnace in (("outer", lab.furnace_1), ("inner", lab.furnace_2)):
        yield from bpp.set_run_key_wrapper(bps.open_run(), key)
        yield from bpp.set_run_key_wrapper(
            bps.monitor(furnace.process_value, name=key), key
        )
        yield from bps.prepare(furnace, HOT, wait=True)
        yield from bpp.set_run_key_wrapper(bps.kickoff(furnace, wait=True), key)
    yield from bps.sleep(300.0)


@ends_well
def swallows_every_refusal(lab: OpenLab) -> Plan:
    """Go on whatever is refused, and end with what could be begun."""
    for attempt in (
        output_by_hand,
        output_by_a_device_of_its_own,
        program_by_command,
        setpoint_over_the_limit,
        profile_over_the_limit,
        begins_both_and_leaves_at_once,
    ):
        try:
            yield from attempt(lab)
        except Exception:  # noqa: BLE001 - a plan that does not want to know
            yield from bps.null()


@ends_well
def writes_when_documents_come(lab: OpenLab) -> Plan:
    """Write from a callback of documents, by hand and by the driver's operation."""
    left = []

    def callback(name: str, document: dict[str, Any]) -> None:
        left.append(asyncio.ensure_future(by_hand(lab, 100.0)))
        left.append(asyncio.ensure_future(awaited(lab.furnace_1, 1200.0)))
        left.append(asyncio.ensure_future(awaited(lab.furnace_2, 800.0)))

    yield from bpp.subs_wrapper(bp.count([lab.balance], num=2, delay=30), callback)
    assert any(task.done() and isinstance(task.exception(), PPUError) for task in left)


@ends_well
@in_a_run
def writes_when_a_reading_comes(lab: OpenLab) -> Plan:
    """Write from a subscriber of a signal, and never unsubscribe."""
    left = []

    def hear(readings: dict[str, Any]) -> None:
        left.append(asyncio.ensure_future(by_hand(lab, 100.0)))
        raise RuntimeError("and fail")

    lab.furnace_1.process_value.subscribe_reading(hear)
    yield from bps.prepare(lab.furnace_1, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_1, wait=True)
    yield from bps.sleep(300.0)
    assert len(left) > 20
    lab.furnace_1.process_value.clear_sub(hear)


@ends_well
@in_a_run
def leaves_from_a_callback(lab: OpenLab) -> Plan:
    """Call ``sys.exit`` whenever a reading or a document comes."""
    n_left = []

    def leave(*told: Any) -> None:
        n_left.append(told)
        sys.exit("enough")

    yield from bps.subscribe("all", leave)
    lab.furnace_2.process_value.subscribe_reading(leave)
    yield from bps.prepare(lab.furnace_2, HOT, wait=True)
    yield from bps.kickoff(lab.furnace_2, wait=True)
    yield from bps.sleep(300.0)
    lab.furnace_2.process_value.clear_sub(leave)
    assert len(n_left) > 20


@ends_well
def gives_up_waiting(lab: OpenLab) -> Plan:
    """Wait for less time than it takes, and end well."""
    yield from bps.abs_set(lab.furnace_1, 900.0, group="hot")
    try:
        yield from bps.wait("hot", timeout=30.0)
    except TimeoutError:
        yield from bps.null()


def test_there_are_enough_of_them() -> None:
    """The tables were filled: nothing passes because there is nothing to run."""
    assert len(REFUSED) >= 25
    assert len(WELL) >= 15


@pytest.mark.parametrize("name", REFUSED)
def test_plan_fails_and_nothing_wrong_reaches_a_wire(
    lab: OpenLab, wires: Wires, name: str
) -> None:
    """It fails, and neither a value nor what it began does harm afterwards."""
    with pytest.raises((PPUError, ZeroDivisionError, TypeError)):
        lab.run(REFUSED[name](lab))

    assert wires.wrong == []
    check_nothing_goes_on(lab)
    assert wires.wrong == []


@pytest.mark.parametrize("name", WELL)
def test_plan_ends_well_and_nothing_heats_on(
    lab: OpenLab, wires: Wires, name: str
) -> None:
    """What a plan leaves on is switched off when it ends, however it was begun."""
    lab.run(WELL[name](lab))

    assert wires.wrong == []
    check_nothing_goes_on(lab)
    assert wires.wrong == []
