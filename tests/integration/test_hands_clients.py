"""Simulated arm, gripper and door, talked to by software that is not ours.

``ppu sim`` runs in a process of its own; netcat and minimalmodbus speak to it as they
would to the instruments.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import minimalmodbus  # type: ignore[import-untyped]  # it ships no types
import pytest

DEADLINE_WALL_S = 600.0
LAB = """\
lab: hands
schema_version: 1
devices:
  arm:
    driver: ppu_drivers.universal_robots_ur5e:UniversalRobotsUr5e
    simulator: ppu_simulators.instruments.universal_robots_ur5e:SimulatedUr5e
    hardware: {transport: tcp, host: 192.0.2.1, port: 29999}
    provides: [Transporter]
  gripper:
    driver: ppu_drivers.dh_gripper:DhGripper
    simulator: ppu_simulators.instruments.dh_gripper:SimulatedDhGripper
    hardware: {transport: serial, port: /dev/nowhere, baudrate: 115200}
    settings: {hand_of: arm}
    provides: [Gripper]
  door:
    driver: ppu_drivers.furnace_door:FurnaceDoor
    simulator: ppu_simulators.instruments.furnace_door:SimulatedFurnaceDoor
    hardware: {transport: tcp, host: 192.0.2.2, port: 8888}
    settings: {encloses: furnace_1}
    provides: [Door]
locations:
  rack_1.1: {holds: crucible}
  balance.pan: {holds: crucible}
containers:
  crucible_01: {kind: crucible, at: rack_1.1, capacity_ml: 20, tare_g: 18.2}
"""


@pytest.fixture(scope="module")
def endpoints(
    serve: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Where the instruments of ``ppu sim`` at wall pace listen."""
    lab = tmp_path_factory.mktemp("hands") / "hands.yaml"
    lab.write_text(LAB)
    return serve(str(lab))


def netcat(endpoint: str, lines: str) -> list[str]:
    """Return what netcat prints when it is fed *lines*."""
    host, _, port = endpoint.rpartition(":")
    done = subprocess.run(  # noqa: S603 - our own arguments
        ["/usr/bin/nc", "-N", host, port],
        input=lines,
        capture_output=True,
        text=True,
        timeout=DEADLINE_WALL_S,
        check=True,
    )
    return done.stdout.splitlines()


needs_netcat = pytest.mark.skipif(
    not Path("/usr/bin/nc").exists(), reason="netcat is not installed"
)


@needs_netcat
def test_netcat_is_greeted_and_answered_by_the_dashboard(
    endpoints: dict[str, Any],
) -> None:
    """The example of the manual, typed as at a terminal."""
    told = netcat(
        endpoints["arm"]["endpoint"],
        "robotmode\nsafetystatus\nis in remote control\nquit\n",
    )

    assert told == [
        "Connected: Universal Robots Dashboard Server",
        "Robotmode: RUNNING",
        "Safetystatus: NORMAL",
        "true",
        "Disconnected",
    ]


@needs_netcat
def test_netcat_loads_and_plays_a_program(endpoints: dict[str, Any]) -> None:
    """A program plays on when the client has gone."""
    program = "rack_1.1_to_balance.pan.urp"
    greeting, *told = netcat(endpoints["arm"]["endpoint"], f"load {program}\nplay\n")
    _, state, stopped = netcat(endpoints["arm"]["endpoint"], "programState\nstop\n")

    assert told == [f"Loading program: {program}", "Starting program"]
    assert greeting.startswith("Connected")
    assert (state, stopped) == (f"PLAYING {program}", "Stopped")


@needs_netcat
def test_netcat_opens_the_door(endpoints: dict[str, Any]) -> None:
    """One request a connection; the status follows the motor."""
    endpoint = endpoints["door"]["endpoint"]
    (closed,) = netcat(endpoint, "Status\n")
    (opening,) = netcat(endpoint, "Open A\n")

    assert closed.startswith("State: STOP; Furnace A: Closed")
    assert opening == "Opening furnace A..."


@pytest.fixture
def gripper(endpoints: dict[str, Any]) -> Iterator[Any]:
    """A minimalmodbus instrument on the gripper's port."""
    instrument: Any = minimalmodbus.Instrument(endpoints["gripper"]["endpoint"], 1)
    instrument.serial.baudrate = 115200
    instrument.serial.timeout = 1.0
    yield instrument
    instrument.serial.close()


def test_minimalmodbus_initialises_and_moves_the_gripper(gripper: Any) -> None:
    """Another library's frames reach the fingers, with either write function."""
    assert gripper.read_register(0x0200) == 0
    gripper.write_register(0x0100, 1, functioncode=6)
    while gripper.read_register(0x0200) != 1:
        assert gripper.read_register(0x0200) in (1, 2)
    gripper.write_register(0x0103, 500, functioncode=16)
    while gripper.read_register(0x0201) == 0:
        assert 0 <= gripper.read_register(0x0202) <= 1000
    assert gripper.read_registers(0x0201, 2) == [1, 500]


def test_minimalmodbus_understands_the_refusals_of_the_gripper(gripper: Any) -> None:
    """Exception answers are those of the specification."""
    gripper.serial.timeout = 0.3  # it waits for a whole reply, refusals are shorter
    with pytest.raises(minimalmodbus.IllegalRequestError):
        gripper.write_register(0x0101, 5, functioncode=6)
