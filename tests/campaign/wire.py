"""Ask instruments hundreds of thousands of times while their wires fail.

Each wire is a real client or driver and a simulated instrument in one process, on the
jumping loop, with real bytes between them. In every round faults are injected at
random; between any two calls the instrument changes in a way that is known here, so a
value of another request, of an earlier time or with a flipped digit is seen.

Run by `make campaign-wire`; CI runs one hundredth of it.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import json
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from typing_extensions import override

from pages import replace_section
from ppu.core.errors import MalformedReply, PPUError
from ppu.core.labfile import load_lab
from ppu.core.labtime import LabTimeLoop, stopwatch
from ppu.core.registry import find_lab
from ppu.devices.build import build_devices
from ppu.transports.link import Link
from ppu.transports.modbus import ModbusMaster, Probe
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection
from ppu.twin.bench import Bench
from ppu_drivers.labman_powder_robot import parse_status, unwrap
from ppu_drivers.universal_robots_ur5e import parse_program_state
from ppu_simulators.faults import PORT_FAULTS, Faults
from ppu_simulators.fronts.modbus import ModbusRtuSlave, ModbusTcpSlave
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.fronts.tcp import TcpFront

HEADING: Final = "## Wires under faults"
EXCHANGES: Final = 200_000
N_PROCESSES: Final = 2
N_FLAPS: Final = 1_000
MAX_CALLS_UNTIL_GOOD: Final = 2
MAX_KIB_PER_10000: Final = 64.0
"""Growth of memory that counts as flat: 1.3 MB in a whole campaign."""
_HANG_WALL_S: Final = 60
_REPORT_WALL_S: Final = 10.0
_EDGE_S: Final = 1e-3

_FLIPS_BITS: Final = frozenset({"corrupt"})
"""Faults after which another value may stand there, well formed."""


# -- the wires -------------------------------------------------------------------------


class Wire(ABC):
    """An instrument whose truth is known, and a client of it.

    Args:
        rng: What the truth is drawn from.
    """

    name: ClassVar[str]
    deadline_s: ClassVar[float] = 1.0
    """Of the calls that are made here; weighing waits in lab time."""

    faults: Faults
    link: Link

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.found: object = None
        """The last answer."""

    @abstractmethod
    async def start(self) -> None:
        """Let the instrument listen, and make the client."""

    @abstractmethod
    async def stop(self) -> None:
        """Close both ends."""

    @abstractmethod
    def change(self, time: float) -> None:
        """Make the instrument say something else from now on."""

    @abstractmethod
    async def is_true(self, is_confirmed: bool) -> bool:
        """Ask something; return whether the answer is the truth.

        Args:
            is_confirmed: Whether to ask as for values that are acted upon.

        Raises:
            PPUError: There was none that could be used.
        """


class Patterns:
    """Registers that tell their address and how often the instrument changed."""

    PROBE: Final = 60_000
    N_PROBE: Final = 3

    def __init__(self) -> None:
        self.generation = 0

    def of(self, address: int, count: int) -> list[int]:
        """Return what is in registers now."""
        if address == self.PROBE:
            return [0x5AA5, self.generation & 0xFFFF, ~self.generation & 0xFFFF]
        return [
            (7919 * (address + n) + 31 * self.generation + 17) & 0xFFFF
            for n in range(count)
        ]

    def read(self, address: int, count: int, time: float) -> list[int]:
        """Return registers."""
        return self.of(address, count)

    def write(self, address: int, values: list[int], time: float) -> None:
        """Take anything."""


def _is_probe(found: list[int]) -> bool:
    return found[0] == 0x5AA5 and found[1] ^ found[2] == 0xFFFF


class ModbusWire(Wire):
    """A master that reads some registers of a unit."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.registers = Patterns()
        self.faults = Faults(self.name, [], {}, np.random.default_rng(rng.integers(99)))

    @override
    def change(self, time: float) -> None:
        self.registers.generation += 1

    @override
    async def is_true(self, is_confirmed: bool) -> bool:
        address = int(self.rng.integers(0, 5000))
        # A probe has a number of registers that nothing else has.
        count = int(self.rng.choice([1, 2, 4, 8, 20]))
        ask = self.master.read_confirmed if is_confirmed else self.master.read_holding
        self.found = await ask(address, count)
        return self.found == self.registers.of(address, count)

    master: ModbusMaster


class ModbusRtuWire(ModbusWire):
    """Modbus RTU on a serial line at 19200 baud."""

    name = "Modbus RTU"

    @override
    async def start(self) -> None:
        slave = ModbusRtuSlave(1, self.registers, baudrate=19200)
        self.front = SerialFront(slave, SerialLine(19200), faults=self.faults)
        self.master = ModbusMaster(
            "unit",
            SerialConnection(
                transport="serial", port=self.front.start(), baudrate=19200
            ),
            deadline_s=self.deadline_s,
            probe=Probe(Patterns.PROBE, Patterns.N_PROBE, _is_probe),
        )
        self.link = self.master.link

    @override
    async def stop(self) -> None:
        await self.link.close()
        self.front.stop()


class ModbusTcpWire(ModbusWire):
    """Modbus TCP."""

    name = "Modbus TCP"

    @override
    async def start(self) -> None:
        self.front = TcpFront(
            lambda: ModbusTcpSlave(1, self.registers), faults=self.faults
        )
        host, port = await self.front.start()
        self.master = ModbusMaster(
            "unit",
            TcpConnection(transport="tcp", host=host, port=port),
            deadline_s=self.deadline_s,
        )
        self.link = self.master.link

    @override
    async def stop(self) -> None:
        await self.link.close()
        await self.front.stop()


class DriverWire(Wire):
    """A driver of the automated cell and its simulated instrument."""

    devices: ClassVar[tuple[str, ...]]
    """Name in the lab file; what else must be on the bench follows."""

    @override
    async def start(self) -> None:
        path = find_lab("a-lab")
        lab = load_lab(path)
        self.bench = Bench(lab, path, 0, only=self.devices)
        await self.bench.start()
        name = self.devices[0]
        built: dict[str, Any] = dict(
            build_devices(lab, path, self.bench.connections, self.devices)
        )
        instruments: dict[str, Any] = dict(self.bench.instruments)
        self.device: Any = built[name]
        self.instrument: Any = instruments[name]
        self.faults: Faults = self.instrument.faults
        await self.device.connect_link()
        self.link: Link = self.device.link

    @override
    async def stop(self) -> None:
        await self.device.disconnect()
        await self.bench.stop()


class BalanceWire(DriverWire):
    """MT-SICS: a weighing whose load changes each time."""

    name = "MT-SICS"
    devices = ("balance",)
    deadline_s = 60.0
    _load_g = 0.0

    @override
    async def start(self) -> None:
        await super().start()
        world = self.bench.world
        world.pick_up(0.0, "crucible_01", "rack_1.1", "campaign")  # type: ignore[attr-defined]  # a World
        world.put_down(0.0, "crucible_01", self.device.pan, "campaign")  # type: ignore[attr-defined]  # a World
        self._crucible = world.containers["crucible_01"]  # type: ignore[attr-defined]  # a World

    @override
    def change(self, time: float) -> None:
        self._crucible.tare_g = float(self.rng.uniform(1.0, 200.0))
        self._crucible.put_at_s = time

    @override
    async def is_true(self, is_confirmed: bool) -> bool:
        await self.device.trigger()
        self.found = await self.device.mass.get_value()
        return bool(abs(self.found - self._crucible.tare_g) < 1.0e-3)


class AlicatWire(DriverWire):
    """Alicat ASCII: a data frame whose setpoint changes each time."""

    name = "Alicat"
    devices = ("gas_2",)

    @override
    def change(self, time: float) -> None:
        self._setpoint = round(float(self.rng.uniform(0.0, 400.0)), 2)
        instrument = self.instrument
        instrument._setpoint = self._setpoint
        # It is there at once: the flow has settled when it is asked.
        instrument._flow = instrument._target = self._setpoint * instrument._scale
        instrument._changed_s = time

    @override
    async def is_true(self, is_confirmed: bool) -> bool:
        if is_confirmed:
            frame = await self.device._read_confirmed()
            if frame is None:
                raise MalformedReply("the frames differ")
        else:
            frame = await self.device._read_frame()
        self.found = frame
        full_scale = self.device.settings.full_scale_ml_per_min
        return bool(
            abs(frame.setpoint_ml_per_min - self._setpoint) < 0.011
            and abs(frame.flow_ml_per_min - self._setpoint) < 0.007 * full_scale
            and frame.gas == self._gas
        )

    @override
    async def start(self) -> None:
        await super().start()
        self._gas = (await self.device._read_frame()).gas


class HttpWire(DriverWire):
    """HTTP: the robot's status, in which a counter stands."""

    name = "HTTP"
    devices = ("dosing_robot",)
    deadline_s = 10.0
    _n = 0

    @override
    def change(self, time: float) -> None:
        self._n += 1
        self.instrument._outward = 1 + self._n % 4
        for number, quadrant in self.instrument._quadrants.items():
            quadrant.workflow = f"sample-{4 * self._n + number}"

    @override
    async def is_true(self, is_confirmed: bool) -> bool:
        if is_confirmed:
            status = await self.device.read_status()
        else:
            status = parse_status(unwrap(await self.device._client.get("/GetStatus")))
        self.found = status
        return bool(
            status.outward_quadrant == 1 + self._n % 4
            and status.workflows
            == {number: f"sample-{4 * self._n + number}" for number in range(1, 5)}
        )


class DashboardWire(DriverWire):
    """The dashboard of an arm: which program is loaded, and whether it plays."""

    name = "dashboard"
    devices = ("robot_arm", "gripper")
    deadline_s = 2.0

    @override
    def change(self, time: float) -> None:
        programs = list(self.instrument._programs.values())
        self.instrument._loaded = programs[int(self.rng.integers(len(programs)))]
        state = ("STOPPED", "PAUSED")[int(self.rng.integers(2))]
        self.instrument._state = state

    @override
    async def is_true(self, is_confirmed: bool) -> bool:
        if is_confirmed:
            found = await self.device._read_program_state()
        else:
            found = parse_program_state(await self.device._client.ask("programState"))
        self.found = found
        wanted = self.instrument._loaded.name
        return (found.state, found.program) == (self.instrument._state, wanted)


WIRES: Final[dict[str, type[Wire]]] = {
    wire.name: wire
    for wire in (
        BalanceWire,
        AlicatWire,
        ModbusRtuWire,
        ModbusTcpWire,
        HttpWire,
        DashboardWire,
    )
}


# -- what is counted -------------------------------------------------------------------


@dataclass
class Tally:
    """What a campaign on one wire found."""

    wire: str
    n_hit: int = 0
    """Exchanges that a fault hit, or that found no port."""
    n_calls: int = 0
    n_good: int = 0
    n_failed: int = 0
    n_wrong: int = 0
    n_hangs: int = 0
    slowest_part: float = 0.0
    """Longest call in deadlines."""
    calls_until_good: int = 0
    kib_per_10000: float = 0.0
    n_leaked: int = 0
    wall_s: float = 0.0
    by_fault: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        """Keep the first few things that went wrong."""
        if len(self.examples) < 10:
            self.examples.append(text)

    @property
    def is_good(self) -> bool:
        """Whether every bound holds."""
        return (
            self.n_wrong == 0
            and self.n_hangs == 0
            and self.calls_until_good <= MAX_CALLS_UNTIL_GOOD
            and self.kib_per_10000 < MAX_KIB_PER_10000
            and self.n_leaked == 0
        )


def resident_kib() -> float:
    """Return how much memory this process uses [KiB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def resources() -> int:
    """Return how many descriptors, tasks and threads there are."""
    n_descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted
    return n_descriptors + len(asyncio.all_tasks()) + threading.active_count()


class Campaign:
    """Rounds of faults on one wire.

    Args:
        wire: Where.
        n_exchanges: How many exchanges faults must hit.
        rng: What faults are drawn from.
        loop: The jumping loop on which all of it happens.
    """

    def __init__(
        self, wire: Wire, n_exchanges: int, rng: np.random.Generator, loop: LabTimeLoop
    ) -> None:
        self._wire = wire
        self._n_exchanges = n_exchanges
        self._rng = rng
        self._loop = loop
        self.tally = Tally(wire.name)
        self._memory: list[tuple[int, float]] = []

    async def run(self) -> None:
        """Run until enough exchanges were hit."""
        elapsed = stopwatch()
        wire, tally = self._wire, self.tally
        for _ in range(20):
            await self._call(is_confirmed=True, since="nothing")
        before = resources()
        shown_s = 0.0
        while tally.n_hit < self._n_exchanges:
            signal.alarm(_HANG_WALL_S)  # a loop that never stops is a hang, too
            await self._round()
            if elapsed() - shown_s > _REPORT_WALL_S:
                shown_s = elapsed()
                gc.collect()
                self._memory.append((tally.n_hit, resident_kib()))
                sys.stderr.write(
                    f"{wire.name}: {tally.n_hit} of {self._n_exchanges} hit, "
                    f"{tally.n_calls} calls, {tally.n_wrong} wrong, {tally.n_hangs} "
                    f"hangs, {tally.calls_until_good} until good, {shown_s:.0f} s\n"
                )
        signal.alarm(0)
        gc.collect()
        tally.n_leaked = max(resources() - before, 0)
        tally.kib_per_10000 = self._growth()
        tally.wall_s = elapsed()

    def _growth(self) -> float:
        """Return by how much memory grows with 10,000 exchanges [KiB].

        What the first half fills, such as pools and caches with a bound, is not growth.
        """
        later = self._memory[len(self._memory) // 2 :]
        if len(later) < 3:
            return 0.0
        hits, memory = np.array(later).T
        return float(np.polyfit(hits / 10_000, memory, 1)[0])

    async def _round(self) -> None:
        """Inject faults, ask while they last, and see how soon all is well again."""
        wire, loop, faults = self._wire, self._loop, self._wire.faults
        deadline = min(wire.deadline_s, wire.link.deadline_s)
        entries = [self._draw(deadline) for _ in range(int(self._rng.integers(1, 4)))]
        began = loop.time()
        for entry in entries:
            faults.inject(entry, began)
        flips = any(entry["fault"] in _FLIPS_BITS for entry in entries)
        what = ", ".join(json.dumps(entry) for entry in entries)
        ends = began + max(entry["for_s"] for entry in entries)
        is_out = any(entry["fault"] in PORT_FAULTS for entry in entries)
        while loop.time() < ends:
            is_confirmed = flips or bool(self._rng.random() < 0.5)
            is_good = await self._call(is_confirmed=is_confirmed, since=what)
            self._count_hits(is_out and not is_good)
            if self._rng.random() < 0.5:
                await asyncio.sleep(float(self._rng.uniform(0.0, 0.5)) * deadline)
        self._forget(began)
        # A fault has ended when the last answer that it delayed has come.
        late_s = max(entry.get("by_s", 0.0) for entry in entries)
        await asyncio.sleep(max(ends + late_s + _EDGE_S - loop.time(), _EDGE_S))
        n_calls, is_good = 0, False
        while not is_good and n_calls < 20:
            n_calls += 1
            is_good = await self._call(is_confirmed=False, since=f"after {what}")
        self._count_hits(False)
        if n_calls > MAX_CALLS_UNTIL_GOOD:
            self.tally.complain(f"{n_calls} calls until good after {what}")
        self.tally.calls_until_good = max(self.tally.calls_until_good, n_calls)

    def _draw(self, deadline: float) -> dict[str, Any]:
        """Return a random script of a fault."""
        faults = [f for f in self._wire.faults.known if f not in self._own_faults]
        fault = faults[int(self._rng.integers(len(faults)))]
        entry: dict[str, Any] = {
            "fault": fault,
            "for_s": deadline * float(np.exp(self._rng.uniform(-1.0, math.log(12.0)))),
        }
        if self._rng.random() < 0.5:
            entry["with_probability"] = float(self._rng.uniform(0.2, 0.9))
        if fault == "delay":
            entry["by_s"] = deadline * float(
                np.exp(self._rng.uniform(math.log(0.2), math.log(5.0)))
            )
        return entry

    @property
    def _own_faults(self) -> frozenset[str]:
        """Faults of the instrument and not of its wire."""
        return frozenset(getattr(self._wire.faults, "_known", {}))

    def _count_hits(self, found_no_port: bool) -> None:
        log = self._wire.faults.log
        for _, fault in log:
            self.tally.by_fault[fault] = self.tally.by_fault.get(fault, 0) + 1
            self.tally.n_hit += fault not in PORT_FAULTS
        self.tally.n_hit += found_no_port
        log.clear()

    def _forget(self, began: float) -> None:
        """Drop the scripts of a round: a campaign has more than a lab ever has."""
        faults = self._wire.faults
        faults.clear(self._loop.time())
        for fault in PORT_FAULTS:
            faults._states[fault].clear()

    async def _call(self, *, is_confirmed: bool, since: str) -> bool:
        """Make one call; return whether it brought the truth."""
        wire, loop, tally = self._wire, self._loop, self.tally
        wire.change(loop.time())
        began = loop.time()
        error = ""
        is_true: bool | None = None
        try:
            is_true = await wire.is_true(is_confirmed)
        except PPUError as exc:
            error = f"{type(exc).__name__}: {exc}"
        took = (loop.time() - began) / wire.deadline_s
        tally.n_calls += 1
        tally.slowest_part = max(tally.slowest_part, took)
        if took > 2.0 + 1e-6:
            tally.n_hangs += 1
            tally.complain(f"a call of {took:.2f} deadlines during {since}: {error}")
        if is_true is None:
            tally.n_failed += 1
            return False
        if not is_true:
            tally.n_wrong += 1
            tally.complain(
                f"wrong (confirmed: {is_confirmed}): {wire.found} during {since}"
            )
            return False
        tally.n_good += 1
        return True


def run_wire(name: str, n_exchanges: int, seed: int) -> Tally:
    """Run the campaign of one wire on a jumping loop of its own."""
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _explain_hang)
    logging.disable(logging.CRITICAL)
    rng = np.random.default_rng([seed, list(WIRES).index(name)])
    loop = LabTimeLoop(None)
    wire = WIRES[name](rng)
    campaign = Campaign(wire, n_exchanges, rng, loop)

    async def scenario() -> None:
        await wire.start()
        try:
            await campaign.run()
        finally:
            await wire.stop()

    with loop.active():
        loop.run_until_complete(scenario())
    for fault in loop.faults:
        campaign.tally.n_hangs += 1
        campaign.tally.complain(f"the loop: {fault}")
    loop.close()
    return campaign.tally


def _explain_hang(number: int, frame: Any) -> None:
    faulthandler.dump_traceback()
    raise RuntimeError(f"a round took more than {_HANG_WALL_S} s of real time")


# -- reporting -------------------------------------------------------------------------


def table(tallies: list[Tally]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| wire | exchanges hit | calls | right | failed with an error | wrong | "
        "slowest call (deadlines) | calls until good | memory (KiB per 10,000) | "
        "leaked | per second |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t.wire} | {t.n_hit:,} | {t.n_calls:,} | {t.n_good:,} | {t.n_failed:,} | "
        f"{t.n_wrong} | {t.slowest_part:.2f} | {t.calls_until_good} | "
        f"{t.kib_per_10000:.1f} | {t.n_leaked} | {t.n_hit / t.wall_s:,.0f} |"
        for t in tallies
    ]
    return "\n".join(lines) + "\n"


def section(tallies: list[Tally]) -> str:
    """Return the section of docs/performance.md."""
    return f"""{HEADING}

Written by `make campaign-wire`, which `make bench` leaves alone. Real clients and
drivers ask simulated instruments on real wires of one process, while faults are
injected at random, up to three kinds at once, until so many exchanges were hit on each
wire. What the instrument should say is known at every call. Required: no wrong value,
no call over twice its deadline, right again within two calls after a fault has ended
(which is when the last answer that it delayed has come), memory flat, nothing leaked.

{table(tallies)}
What "wrong" can mean on a wire without a checksum is in
[decision 7](decisions/0007-wires-without-a-checksum.md).
"""


def main() -> int:
    """Run the campaign; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--exchanges", type=int, default=EXCHANGES)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--wire", action="append", choices=list(WIRES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--page", type=Path, help="page whose section is replaced")
    asked = parser.parse_args()
    n_exchanges = max(int(asked.exchanges * asked.share), 1)
    names = asked.wire or list(WIRES)
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(N_PROCESSES, len(names)), maxtasksperchild=1) as pool:
        tallies = pool.starmap(
            run_wire, [(name, n_exchanges, asked.seed) for name in names], chunksize=1
        )
    sys.stdout.write(table(tallies))
    for tally in tallies:
        for example in tally.examples:
            sys.stdout.write(f"{tally.wire}: {example}\n")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(tally) for tally in tallies]))
    if asked.page is not None:
        replace_section(asked.page, HEADING, section(tallies))
    return 0 if all(tally.is_good for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
