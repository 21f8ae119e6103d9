"""A package of its own adds a capability, an instrument, a protocol and a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

METADATA = "Metadata-Version: 2.1\nName: shaking\nVersion: 1.0\n"
ENTRY_POINTS = """\
[ppu.capabilities]
Shaker = shaking.capability:Shaker

[ppu.protocols]
shaking = shaking.protocol

[ppu.labs]
shaking = shaking.labs
"""

CAPABILITY = '''\
"""What a plan may ask of a shaker."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bluesky.protocols import HasName, Movable, Readable


@dataclass(frozen=True)
class Shake:
    """How long and how fast to shake."""

    duration_s: float
    speed_rpm: float


@runtime_checkable
class Shaker(Movable[Any], Readable[Any], HasName, Protocol):
    """Shakes what stands on it: ``set`` takes a :class:`Shake`."""

    @property
    def plate(self) -> str:
        """Location of the lab file where the container must stand."""

    def check_shake(self, shake: Shake) -> None:
        """Refuse what the lab does not allow; sends nothing."""
'''

DRIVER = '''\
"""The shaker's driver."""

import asyncio
import re
from typing import Annotated as A

from ophyd_async.core import AsyncStatus, StandardReadableFormat
from pydantic import BaseModel, ConfigDict

from ppu.core.errors import ConnectError, LimitError, MalformedReply
from ppu.core.labfile import LimitPair
from ppu.devices import DriverFacts, Identity, Instrument, Query, SignalR
from ppu.transports.line import LineClient
from ppu.transports.tcp import TcpConnection
from shaking.capability import Shake, Shaker


def number(lines):
    """Return the number in an answer."""
    match = re.fullmatch(r"(?:RPM|LEFT) (\\d+(?:\\.\\d+)?)", lines[0])
    if match is None:
        raise MalformedReply(f"{lines!r} is no number")
    return float(match[1])


class ShakerLimits(BaseModel):
    """What the lab allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed_rpm: LimitPair


class Vibromax(Instrument, Shaker):
    """A shaker."""

    facts = DriverFacts("Vibro", "max", "vibro-line", ("its manual",), "", (), "stops")
    connections = (TcpConnection,)
    limits_model = ShakerLimits

    speed: A[
        SignalR[float],
        Query("RPM?", number, units="rpm"),
        StandardReadableFormat.HINTED_SIGNAL,
    ]
    time_left: A[SignalR[float], Query("LEFT?", number, units="s")]

    def __init__(self, name, entry, connection, settings, limits):
        self.limits = limits
        self._client = LineClient(name, connection, terminator=b"\\n")
        super().__init__(name, entry, self._client, self._client.link)

    async def read_identity(self):
        (line,) = await self._client.ask("WHO?")
        word, _, serial_number = line.partition(" ")
        if word != "VIBROMAX":
            raise ConnectError(f"{self.name}: {line!r} is no shaker")
        return Identity("max", serial_number)

    @property
    def plate(self):
        return self.entry.slots[0]

    def check_shake(self, shake):
        low, high = self.limits.speed_rpm
        if not low <= shake.speed_rpm <= high:
            raise LimitError(f"{self.name}: {shake.speed_rpm:g} rpm")

    @AsyncStatus.wrap
    async def set(self, value: Shake):
        self.check_shake(value)
        await self._client.ask(
            f"SHAKE {value.speed_rpm:g} {value.duration_s:g}", is_safe=False
        )
        while await self.time_left.get_value() > 0:
            await asyncio.sleep(5.0)
'''

SIMULATOR = '''\
"""The shaker's twin."""

from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront


class SimulatedVibromax:
    """Shakes for a while."""

    wire = "vibro-line"
    known_faults = {}

    def __init__(self, name, entry, world, serial_number):
        self.name = name
        self._serial_number = serial_number
        self.faults = Faults(name, [], self.known_faults, world.rng(name, "faults"))
        self._front = TcpFront(self, faults=self.faults)
        self._speed, self._ends_s, self._buffer = 0.0, 0.0, b""

    async def start(self):
        host, port = await self._front.start()
        return {"transport": "tcp", "host": host, "port": port}

    async def stop(self):
        await self._front.stop()

    def receive(self, data, time):
        self._buffer += data
        answers = []
        while b"\\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\\n")
            text = self._answer(line.decode().split(), time)
            answers.append(Answer(f"{text}\\n".encode(), 0.01))
        return answers

    def _answer(self, words, time):
        left = max(self._ends_s - time, 0.0)
        if words[0] == "SHAKE":
            self._speed, self._ends_s = float(words[1]), time + float(words[2])
            return "OK"
        if words[0] == "RPM?":
            return f"RPM {self._speed if left else 0.0:.1f}"
        if words[0] == "LEFT?":
            return f"LEFT {left:.1f}"
        return f"VIBROMAX {self._serial_number}"
'''

PROTOCOL = '''\
"""Shake a sample, then fire it in whatever furnace has a place."""

import bluesky.plan_stubs as bps
from pydantic import BaseModel, ConfigDict, Field

from ppu.core.capabilities import Carry, FiringProfile, FiringRecord, Furnace, Segment
from ppu.plans import Lab, MsgGenerator, ProtocolResult, protocol, step
from ppu.plans.report import Section, figure, svg_of, table
from ppu.plans.seats import (
    Role,
    Seat,
    await_firing,
    begin_firing,
    end_firing,
    leave_seat,
    request_seat,
    wait_for_load,
)
from shaking.capability import Shake, Shaker


class Shaking(BaseModel):
    """How."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container: str
    shaking_s: float = Field(default=60.0, gt=0, le=600)
    speed_rpm: float = Field(default=300.0, gt=0)
    temperature_degc: float = Field(default=150.0, gt=0, le=1000)

    def profile(self):
        """Return the firing."""
        return FiringProfile((Segment(self.temperature_degc, 5.0, 600.0),), 60.0)


class Shaken(ProtocolResult):
    """What came of it."""

    n_members: int
    chamber: str
    speeds_rpm: list[float]
    shaken_by: str
    hottest_degc: float
    began_s: float


@step(kind="repeatable")
def choose(lab: Lab, container: str) -> MsgGenerator[str]:
    """Claim the container."""
    yield from bps.null()
    lab.claim_container(container)
    return container


@step(kind="repeatable", seat="takes")
def reserve_chair(
    lab: Lab, container: str, profile: FiringProfile
) -> MsgGenerator[Seat]:
    """Get a place."""
    names = [furnace.name for furnace in lab.every(Furnace)]
    return (yield from request_seat(lab, container, profile, names))


@step(kind="repeatable")
def await_company(lab: Lab, seat: Seat) -> MsgGenerator[Role]:
    """Wait for the others."""
    return (yield from wait_for_load(seat))


@step(kind="repeatable", seat="leaves")
def stand_up(lab: Lab, seat: Seat) -> MsgGenerator[None]:
    """Leave the place."""
    yield from leave_seat(seat)


def _who_carries(lab: Lab, container: str, to: str) -> list[str]:
    places = {to} - {lab.home_of(container)}  # where nobody else goes
    return [lab.transporter(lab.left_from(container), to).name, *places]


@step(kind="irreversible", needs=_who_carries)
def bring(lab: Lab, container: str, to: str) -> MsgGenerator[None]:
    """Carry it."""
    origin = lab.location_of(container)
    lab.moving(container, to)
    carrier = lab.transporter(origin, to)
    yield from bps.abs_set(carrier, Carry(container, origin, to), wait=True)
    lab.moved(container, to)


def _what_shakes(lab: Lab, container: str, shake: Shake) -> list[str]:
    shaker = lab.the(Shaker)
    origin = lab.left_from(container)
    return [shaker.name, shaker.plate, lab.transporter(origin, shaker.plate).name]


@step(kind="repeatable", needs=_what_shakes)
def shake_it(lab: Lab, container: str, shake: Shake) -> MsgGenerator[list[float]]:
    """Carry it to the shaker, shake, look at the speed, and carry it back."""
    shaker = lab.the(Shaker)
    yield from bring(lab, container, shaker.plate)
    speeds = []
    yield from bps.abs_set(shaker, shake, group="shakes")
    for _ in range(3):
        yield from bps.sleep(shake.duration_s / 4)
        speeds.append((yield from bps.rd(shaker)))
    yield from bps.wait("shakes")
    yield from bring(lab, container, lab.home_of(container))
    return speeds


def _what_heats(lab: Lab, seat: Seat, role: Role) -> list[str]:
    return [] if role == "follow" else [seat.furnace]


@step(kind="resumable", needs=_what_heats)
def bake(lab: Lab, seat: Seat, role: Role) -> MsgGenerator[FiringRecord]:
    """Fire, or wait for who does."""
    if role == "follow":
        found = yield from await_firing(seat)
        assert isinstance(found, FiringRecord)
        return found
    furnace = lab.the(Furnace, seat.furnace)
    yield from begin_firing(seat)
    yield from bps.prepare(furnace, seat.profile, wait=True)
    yield from bps.declare_stream(furnace, name="oven", collect=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.collect_while_completing(
        [furnace], [furnace], flush_period=lab.flush_period_s, stream_name="oven"
    )
    yield from end_firing(seat, furnace.last_firing)
    return furnace.last_firing


def check(lab: Lab, parameters: Shaking) -> None:
    """Refuse what the lab does not allow."""
    shake = Shake(parameters.shaking_s, parameters.speed_rpm)
    lab.the(Shaker).check_shake(shake)


def report(record):
    """Draw how fast it was shaken."""
    drawn, axes = figure()
    axes.plot(record.protocol_result.speeds_rpm, label="shaker")
    axes.set_ylabel("speed / rpm")
    rows = [[n, f"{speed:g} rpm"] for n, speed in enumerate(
        record.protocol_result.speeds_rpm
    )]
    body = svg_of(drawn, "Speed of the shaker") + table(["look", "speed"], rows)
    return [Section("How it was shaken", body, "As the shaker itself says.")]


@protocol(version="7", hazards=("It rattles.",), check=check, report=report)
def shake_and_bake(lab: Lab, parameters: Shaking) -> MsgGenerator[Shaken]:
    """Shake a sample and bake it with others."""
    container = yield from choose(lab, parameters.container)
    shake = Shake(parameters.shaking_s, parameters.speed_rpm)
    speeds = yield from shake_it(lab, container, shake)
    seat = yield from reserve_chair(lab, container, parameters.profile())
    yield from bring(lab, container, seat.slot)
    role = yield from await_company(lab, seat)
    record = yield from bake(lab, seat, role)
    yield from bring(lab, container, lab.home_of(container))
    yield from stand_up(lab, seat)
    return Shaken(
        n_members=len(seat.members),
        chamber=seat.furnace,
        speeds_rpm=speeds,
        shaken_by=lab.the(Shaker).name,
        hottest_degc=record.max_temperature_degc,
        began_s=record.started_s,
    )
'''

LAB = """\
lab: shaker-lab
schema_version: 1
seed: 5
devices:
  oven:
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
    slots: [oven.left, oven.right]
  vibromax:
    driver: shaking.driver:Vibromax
    simulator: shaking.simulator:SimulatedVibromax
    hardware: {transport: tcp, host: 192.0.2.7, port: 4001}
    limits: {speed_rpm: [50, 800]}
    provides: [Shaker]
    slots: [vibromax.plate]
  operator:
    driver: ppu_drivers.operator:PersonAtTerminal
    simulator: ppu_simulators.instruments.technician:SimulatedTechnician
    hardware: {transport: terminal}
    limits: {container_degc: [0, 250]}
    provides: [Operator]
locations:
  shelf.1: {holds: jar}
  shelf.2: {holds: jar}
  oven.left: {holds: jar, inside: oven}
  oven.right: {holds: jar, inside: oven}
  vibromax.plate: {holds: jar, inside: vibromax}
containers:
  jar_1:
    {kind: jar, at: shelf.1, capacity_ml: 20, tare_g: 18.2, contents: {CaCO3: 2.0}}
  jar_2:
    {kind: jar, at: shelf.2, capacity_ml: 20, tare_g: 18.2, contents: {CaCO3: 1.0}}
"""

FILES = {
    "shaking-1.0.dist-info/METADATA": METADATA,
    "shaking-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    "shaking/__init__.py": "",
    "shaking/capability.py": CAPABILITY,
    "shaking/driver.py": DRIVER,
    "shaking/simulator.py": SIMULATOR,
    "shaking/protocol.py": PROTOCOL,
    "shaking/labs/__init__.py": "",
    "shaking/labs/shaker-lab.yaml": LAB,
}

TWO_AT_ONCE = """\
import json, sys
from pathlib import Path
from ppu import open_lab

with open_lab("shaker-lab", links="memory") as lab:
    wanted = [("shake_and_bake", {"container": name}) for name in ("jar_1", "jar_2")]
    jobs = lab.run_protocols(wanted, sys.argv[1])
    for job in jobs:
        print(json.dumps({"state": job.state}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the package is installed."""
    folder = tmp_path_factory.mktemp("installed")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def run(environment: dict[str, str], cwd: Path, *command: str) -> str:
    """Run a command with the package installed; return what it prints."""
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_protocol_of_the_package_runs_on_its_lab(
    installed: dict[str, str], ppu_command: str, tmp_path: Path
) -> None:
    """`ppu run` does it, with fields and a report section that are the package's."""
    out = tmp_path / "out"
    words = ("run", "shake_and_bake", "--lab", "shaker-lab", "--out", str(out))
    run(installed, tmp_path, ppu_command, *words, "--set", "container=jar_1")
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    page = (out / "report.html").read_text()

    assert (result["protocol"], result["protocol_version"]) == ("shake_and_bake", "7")
    assert result["chamber"] == "oven"
    assert result["speeds_rpm"] == [300.0, 300.0, 300.0]
    assert result["shaken_by"] == "vibromax"
    assert 145 < result["hottest_degc"] < 170
    assert "How it was shaken" in page
    section = page[page.index("How it was shaken") :]
    assert "<svg " in section.partition("</section>")[0]
    assert "Speed of the shaker" in section
    assert "<h2>Temperatures<" in page, "no curve of the firing"


def test_jobs_of_the_package_share_a_firing(
    installed: dict[str, str], tmp_path: Path
) -> None:
    """Two jobs sit in one firing, though the framework knows none of their steps."""
    told = run(
        installed,
        tmp_path,
        sys.executable,
        "-c",
        TWO_AT_ONCE,
        str(tmp_path / "out"),
    )
    jobs = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    results = [
        json.loads(path.read_text())
        for path in sorted((tmp_path / "out").rglob("result.json"))
    ]

    assert [job["state"] for job in jobs] == ["succeeded", "succeeded"]
    assert {result["began_s"] for result in results} == {results[0]["began_s"]}
    assert [result["n_members"] for result in results] == [2, 2]


def test_what_the_package_adds_is_known_everywhere(
    installed: dict[str, str], ppu_command: str, tmp_path: Path
) -> None:
    """Lists, schemas and refusals name the capability, the lab and the protocol."""
    capabilities = run(
        installed,
        tmp_path,
        sys.executable,
        "-c",
        "from ppu.core.capabilities import CAPABILITIES; print(*CAPABILITIES)",
    )
    shown = run(installed, tmp_path, ppu_command, "protocols", "shake_and_bake")
    read = run(
        installed,
        tmp_path,
        ppu_command,
        "read",
        "vibromax",
        "--lab",
        "shaker-lab",
        "--target",
        "twin",
    )
    refused = subprocess.run(  # noqa: S603 - our own command
        [
            *(ppu_command, "run", "shake_and_bake", "--lab", "shaker-lab"),
            *("--set", "container=jar_1", "--set", "speed_rpm=900"),
        ],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert "Shaker" in capabilities.split()
    assert "speed_rpm" in shown
    assert "speed" in read
    assert refused.returncode != 0
    assert "vibromax: 900 rpm" in refused.stderr
