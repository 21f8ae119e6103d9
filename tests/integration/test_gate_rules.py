"""A rule at the gate is asked of everything that may change an instrument."""

from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.core.capabilities import Carry, FiringProfile, GasRequest, Segment
from ppu.core.errors import InterlockError
from ppu.devices.gate import Write

OpenTwin = Callable[..., OpenLab]
PROFILE = FiringProfile((Segment(60.0, 10.0, 600.0),), cool_to_degc=50.0)

ACTS: dict[str, tuple[str, Callable[[Any], MsgGenerator[Any]]]] = {
    "load a program": (
        "furnace_1",
        lambda lab: bps.prepare(lab.furnace_1, PROFILE, wait=True),
    ),
    "load a program over TCP": (
        "furnace_2",
        lambda lab: bps.prepare(lab.furnace_2, PROFILE, wait=True),
    ),
    "go to a temperature": ("furnace_1", lambda lab: bps.mv(lab.furnace_1, 60.0)),
    "let gas flow": (
        "gas_2",
        lambda lab: bps.mv(lab.gas_2, GasRequest("O2", 100.0)),
    ),
    "open a door": ("door_1", lambda lab: bps.mv(lab.door_1, "open")),
    "carry": (
        "robot_arm",
        lambda lab: bps.mv(
            lab.robot_arm, Carry("crucible_04", "rack_1.4", "balance.pan")
        ),
    ),
    "tare": ("balance", lambda lab: bps.trigger(lab.balance.tare, wait=True)),
}


@pytest.mark.parametrize("act", ACTS)
def test_rule_keeps_an_act_from_the_wire_whichever_way_it_is_sent(
    open_twin: OpenTwin, act: str
) -> None:
    """Registers of a program and an arm's lines pass no signal, but the rules."""
    name, plan = ACTS[act]
    lab = open_twin(links="memory")
    device: Any = lab.devices[name]
    asked: list[Write] = []

    def forbid(write: Write) -> None:
        asked.append(write)
        raise InterlockError(f"{name}: nobody may")

    device.gate.rules.append(forbid)
    with pytest.raises(InterlockError, match="nobody may"):
        lab.run(bpp.run_wrapper(plan(lab)))
    device.gate.rules.clear()

    assert asked
    assert device.link.statistics().n_malformed == 0


def test_rule_is_not_asked_of_questions(open_twin: OpenTwin) -> None:
    """Whatever is forbidden, a lab can be looked at."""
    lab = open_twin(links="memory")

    def forbid(write: Write) -> None:
        raise InterlockError(f"{write.target}: nobody may")

    for device in lab.devices.values():
        gate: Any = vars(device).get("gate")
        gate.rules.append(forbid)
    for name, device in lab.devices.items():
        for signal in device.signal_names():
            lab.host.call(_look(lab, name, signal))


async def _look(lab: OpenLab, name: str, signal: str) -> None:
    await lab.devices[name].read_signal(signal)
