"""A small lab and a protocol that does a little of everything in it."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator
from pydantic import BaseModel

from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import InstrumentError
from ppu.core.failure import FailurePolicy
from ppu.plans import Lab, ProtocolResult, protocol, step
from ppu.plans.seats import Seat, leave_seat, request_seat
from ppu_protocols.steps import (
    carry_home,
    choose_furnaces,
    fire,
    fire_container,
    fire_seat,
    load_seat,
    move_container,
    take_container,
)

__all__ = ["LAB", "N_CUPS", "World", "exercise"]

N_CUPS = 4

LAB: dict[str, Any] = {
    "lab": "machine",
    "schema_version": 1,
    "seed": 7,
    "devices": {
        "furnace_1": {
            "driver": "ppu_drivers.eurotherm_3216:Eurotherm3216",
            "simulator": "ppu_simulators.instruments.eurotherm_3216:"
            "SimulatedEurotherm3216",
            "hardware": {
                "transport": "serial",
                "port": "/dev/nowhere",
                "baudrate": 9600,
            },
            "settings": {
                "dwell_unit": "minute",
                "sample_period_s": 30,
                "safety": {"setpoint_high_degc": 1100, "alarm_1_degc": 1150},
            },
            "limits": {"temperature_degc": [0, 1100], "ramp_degc_per_min": [0, 10]},
            "on_abort": "ramp_down",
            "provides": ["Furnace"],
            "slots": ["furnace_1.slot_1", "furnace_1.slot_2"],
        },
        "operator": {
            "driver": "ppu_drivers.operator:PersonAtTerminal",
            "simulator": "ppu_simulators.instruments.technician:SimulatedTechnician",
            "hardware": {"transport": "terminal"},
            "limits": {"container_degc": [0, 250]},
            "provides": ["Operator"],
        },
    },
    "locations": {
        **{f"rack.{n}": {"holds": "crucible"} for n in range(1, N_CUPS + 1)},
        "press": {"holds": "crucible"},
        "furnace_1.slot_1": {"holds": "crucible", "inside": "furnace_1"},
        "furnace_1.slot_2": {"holds": "crucible", "inside": "furnace_1"},
    },
    "containers": {
        f"cup_{n}": {
            "kind": "crucible",
            "at": f"rack.{n}",
            "capacity_ml": 5,
            "tare_g": 9,
        }
        for n in range(1, N_CUPS + 1)
    },
}


class World:
    """What really happened, whoever died since."""

    acts: ClassVar[Counter[str]] = Counter()
    n_faults_due: ClassVar[int] = 0


class Wish(BaseModel):
    """What a job shall do."""

    kind: Literal["press", "fire", "seat", "shake", "nested", "bare", "rest"] = "press"
    number: int = 0
    degc: float = 80.0

    def profile(self) -> FiringProfile:
        """Return a short firing."""
        return FiringProfile((Segment(self.degc, 10.0, 600.0),), cool_to_degc=70.0)


class Wished(ProtocolResult):
    """What came of it."""

    acts: list[str]


@step(kind="irreversible", needs=lambda lab, container, act: ["press"])
def press(lab: Lab, container: str, act: str) -> MsgGenerator[str]:
    """Press what is in a container, which nobody can tell from looking at it."""
    yield from bps.sleep(30.0)
    World.acts[act] += 1
    yield from bps.sleep(30.0)
    return act


@step(kind="repeatable", needs=lambda lab, container: ["press"])
def visit_press(lab: Lab, container: str) -> MsgGenerator[None]:
    """Carry a container from home to the press and back."""
    yield from move_container(lab, container, "press")
    yield from move_container(lab, container, lab.home_of(container))


@step(
    kind="repeatable",
    on_failure=FailurePolicy(retries=1, then="ask"),
    park=carry_home,
    skipped=0,
)
def shake(lab: Lab, container: str) -> MsgGenerator[int]:
    """Shake, if the shaker works."""
    return (yield from _shake())


def _shake() -> MsgGenerator[int]:
    yield from bps.sleep(10.0)
    if World.n_faults_due:
        World.n_faults_due -= 1
        raise InstrumentError("the shaker is stuck")
    return 1


@step(kind="repeatable", needs=lambda lab, container, act: ["press"])
def press_and_shake(lab: Lab, container: str, act: str) -> MsgGenerator[int]:
    """Press, then shake, as one step with others within."""
    yield from press(lab, container, act)
    yield from bps.sleep(10.0)
    return (yield from shake_once(lab, container))


@step(kind="repeatable")
def shake_once(lab: Lab, container: str) -> MsgGenerator[int]:
    """Shake, and fail if the shaker does not work."""
    return (yield from _shake())


@step(kind="repeatable", seat="takes")
def sit_down(
    lab: Lab, container: str, profile: FiringProfile, furnaces: list[str]
) -> MsgGenerator[Seat]:
    """Take a place in a firing, in a step of another name than the bundled one."""
    return (yield from request_seat(lab, container, profile, furnaces))


@step(kind="repeatable", seat="leaves")
def get_up(lab: Lab, seat: Seat) -> MsgGenerator[None]:
    """Give it back."""
    yield from leave_seat(seat)


@step(kind="repeatable")
def rest(lab: Lab) -> MsgGenerator[None]:
    """Do nothing, with no container."""
    yield from bps.sleep(10.0)


@protocol(version="1")
def exercise(lab: Lab, wish: Wish) -> MsgGenerator[Wished]:
    """Do a little of everything."""
    if wish.kind == "rest":
        yield from rest(lab)
        return Wished(acts=[])
    container = yield from take_container(lab, "crucible")
    act = f"{lab.sample_id} pressed"
    if wish.kind == "shake":
        yield from shake(lab, container)
    if wish.kind == "nested":
        yield from press_and_shake(lab, container, act)
        return Wished(acts=[act])
    if wish.kind == "bare":
        profile = wish.profile()
        yield from fire(lab, choose_furnaces(lab, profile)[0], profile)
        return Wished(acts=[])
    yield from press(lab, container, act)
    if wish.kind == "fire":
        profile = wish.profile()
        furnaces = choose_furnaces(lab, profile)
        yield from fire_container(lab, container, profile, furnaces)
    elif wish.kind == "seat":
        seat = yield from sit_down(lab, container, wish.profile(), ["furnace_1"])
        yield from move_container(lab, container, seat.slot)
        yield from fire_seat(lab, seat, (yield from load_seat(lab, seat)))
        yield from move_container(lab, container, lab.home_of(container))
        yield from get_up(lab, seat)
    else:
        yield from visit_press(lab, container)
    return Wished(acts=[act])
