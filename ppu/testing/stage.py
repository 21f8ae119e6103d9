"""One device of a lab and its simulated instrument, on the running jumping loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final

import numpy as np

from ppu.core.errors import PPUError
from ppu.core.labfile import DeviceEntry, LabFile, load_lab
from ppu.core.labtime import LabTimeLoop, running_loop
from ppu.core.registry import find_lab
from ppu.core.yaml_document import to_yaml
from ppu.devices.address import InvalidReading
from ppu.devices.build import build_devices
from ppu.devices.instrument import Instrument
from ppu.devices.readings import Quality
from ppu.transports.link import Link
from ppu.twin.bench import Bench

__all__ = ["InstrumentContract", "Outcome", "Stage", "lab_path", "lab_text", "read_lab"]

_N_TRIES: Final = 3
"""How often a link tries what is safe to repeat."""
_BACKOFF_S: Final = 5.0
"""How long at most it waits before it tries to open its path again."""

_PORT_OPENS_S: Final = 1.0

_READ: Final[dict[str, LabFile]] = {}
"""Lab files that were read already, by their text: a suite reads each many times."""


def lab_path(lab: str | Path, folder: Path) -> Path:
    """Return the path of a lab: of a file, a bundled lab, or of YAML text.

    Args:
        lab: What names it; a text of several lines is the content of a lab file.
        folder: Where a text is written to, so that errors can name its lines.
    """
    if isinstance(lab, str) and "\n" in lab:
        path = folder / "lab.yaml"
        path.write_text(lab, encoding="utf-8")
        return path
    return find_lab(str(lab))


def read_lab(lab: str | Path, folder: Path) -> tuple[LabFile, Path]:
    """Return a lab and the path of its file; *folder* as in :func:`lab_path`."""
    path = lab_path(lab, folder)
    text = path.read_text(encoding="utf-8")
    if text not in _READ:
        _READ[text] = load_lab(path)
    return _READ[text], path


def lab_text(file: LabFile) -> str:
    """Return *file* as the YAML text of a lab file."""
    content = file.model_dump(mode="json", exclude_unset=True)
    return to_yaml(content)


class InstrumentContract:
    """What the contracts must be told of one instrument.

    Attributes:
        lab: A lab file with the device: its path, its YAML text, or a bundled lab.
        device: Name of the device in it.
        needs: Other devices of the lab whose simulators must be there, too.
        reading: Name of a signal that is safe to read at any time; None if the device
            has none, then :meth:`look` must be defined.
        tolerance: How far two readings of the instrument at rest may be apart, in the
            unit of the reading.
        settles_s: Lab time from the setting of the scene until it is at rest [s].
    """

    lab: ClassVar[str | Path]
    device: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reading: ClassVar[str | None] = None
    tolerance: ClassVar[float] = 0.0
    settles_s: ClassVar[float] = 0.0

    def prepare(self, world: Any) -> None:
        """Set the scene, before anything happens: put a container where it is needed.

        It is called on the running loop, at lab time 0.

        Args:
            world: The world of the simulators.
        """

    async def look(self, device: Any) -> Any:
        """Ask the instrument something that is safe at any time; return the answer.

        By default the signal :attr:`reading` is read.

        Raises:
            PPUError: If there is no answer that may be used.
        """
        assert self.reading is not None, "define `reading`, or override look()"
        reading = await device.read_signal(self.reading)
        if device.quality(reading) is not Quality.GOOD:
            raise InvalidReading(
                reading.get("message") or f"{device.name}: {self.reading} is stale"
            )
        return reading["value"]

    def is_right(self, value: Any, healthy: Any) -> bool:
        """Return whether *value* is what the instrument must answer.

        Args:
            value: What :meth:`look` returned.
            healthy: What it returned before anything went wrong.
        """
        if isinstance(healthy, float | np.ndarray):
            return bool(np.allclose(value, healthy, rtol=0.0, atol=self.tolerance))
        return bool(value == healthy)

    def explain_wrong(self, value: Any, healthy: Any) -> str:
        """Return what to say if :meth:`is_right` says no."""
        return (
            f"{self.device} answered {value!r}, before it was {healthy!r}; if that is "
            f"honest noise, set `tolerance` (now {self.tolerance:g}); if the wire "
            "flipped a digit, confirm the reading"
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one look: a value or an error, and how long it took."""

    value: Any
    error: PPUError | None
    lasted_s: float


Change = Callable[[DeviceEntry], Mapping[str, Any]]
"""Takes the lab's entry of the device; returns what is different in it."""


class Stage:
    """One device and the simulated instruments of its lab.

    An asynchronous context: inside, the instruments listen and the scene is set; at the
    end both ends are closed. The device is not connected.

    Args:
        contract: What is known of the instrument.
        folder: An empty folder for files.
        seed: Seed of the twin; by default the lab file's.
        change: What is different in the device's entry.
        serial_number: What the simulator says its serial number is, if not what the
            lab file says.
    """

    def __init__(
        self,
        contract: InstrumentContract,
        folder: Path,
        *,
        seed: int | None = None,
        change: Change | None = None,
        serial_number: str | None = None,
    ) -> None:
        self.contract = contract
        name = contract.device
        file, self.path = read_lab(contract.lab, folder)
        assert name in file.devices, f"{self.path} has no device {name}"
        if change is not None:
            entry = file.devices[name]
            changed = entry.model_copy(update=dict(change(entry)))
            devices = {**file.devices, name: changed}
            file = file.model_copy(update={"devices": devices})
        self.file = file
        self._only = (name, *contract.needs)
        self.bench = Bench(
            file,
            self.path,
            file.seed if seed is None else seed,
            nonces=None if serial_number is None else {name: serial_number},
            only=self._only,
        )
        self.device: Any = None
        """The device under test: an :class:`Instrument` of the author's class."""
        self.loop: LabTimeLoop

    async def __aenter__(self) -> Stage:
        self.loop = running_loop()
        await self.bench.start()
        self.contract.prepare(self.world)
        await asyncio.sleep(self.contract.settles_s)
        self.device = self.make_device()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.device.disconnect()
        finally:
            await self.bench.stop()

    def make_device(self, connection: Mapping[str, Any] | None = None) -> Instrument:
        """Return another object for the device, not connected.

        Args:
            connection: Where it leads to; by default to the simulated instrument.
        """
        name = self.contract.device
        connections: dict[str, Mapping[str, Any]] = dict(self.bench.connections)
        if connection is not None:
            connections[name] = connection
        device = build_devices(self.file, self.path, connections, (name,))[name]
        assert isinstance(device, Instrument), f"{name} is no Instrument of PPU"
        return device

    @property
    def world(self) -> Any:
        """The world of the simulators."""
        return self.bench.world

    @property
    def link(self) -> Link:
        """The link of the device."""
        link: Link = self.device.link
        return link

    @property
    def connection(self) -> Mapping[str, Any]:
        """What leads to the simulated instrument."""
        return self.bench.connections[self.contract.device]

    @property
    def patience_s(self) -> float:
        """Lab time in which one look must end [s].

        That is twice the time of all tries and of listening after each, and the
        waiting between them.
        """
        listens_s: float = getattr(self.link, "slowest_reply_s", 0.0)
        tries_s = _N_TRIES * (self.link.deadline_s + listens_s)
        return 2 * tries_s + (_N_TRIES - 1) * _BACKOFF_S

    # -- faults ----------------------------------------------------------------------

    def inject(self, fault: str, **options: float) -> None:
        """Let a fault of the device come now."""
        self.bench.inject(self.contract.device, {"fault": fault, **options})

    async def clear(self) -> None:
        """End every fault of the device, and wait until its port is there again."""
        self.bench.clear(self.contract.device)
        await asyncio.sleep(_PORT_OPENS_S)

    def has_hit(self, fault: str) -> bool:
        """Return whether *fault* hit anything yet."""
        log = self.bench.faults_of(self.contract.device).log
        return any(name == fault for _, name in log)

    # -- looking ---------------------------------------------------------------------

    async def look(self) -> Any:
        """Ask the instrument what is safe; see :meth:`InstrumentContract.look`."""
        return await self.contract.look(self.device)

    async def try_to_look(self) -> Outcome:
        """Look, and check that an error belongs to PPU's tree and names the device."""
        begun = self.loop.time()
        value: Any = None
        error: PPUError | None = None
        try:
            value = await self.look()
        except PPUError as exc:
            error = exc
        told = str(error or self.contract.device)
        assert self.contract.device in told, f"it names no device: {told}"
        return Outcome(value, error, self.loop.time() - begun)

    async def look_in_trouble(self, healthy: Any) -> Outcome:
        """Look while something is wrong: the right value, or an error, in time."""
        outcome = await self.try_to_look()
        if outcome.error is None:
            self.check(outcome.value, healthy)
        assert outcome.lasted_s <= self.patience_s, (
            f"a look took {outcome.lasted_s:g} s, allowed are {self.patience_s:g} s"
        )
        return outcome

    async def look_when_over(self, healthy: Any) -> None:
        """Look when the trouble is over: the second time at the latest it is right."""
        outcome = await self.look_in_trouble(healthy)
        if outcome.error is not None:
            self.check(await self.look(), healthy)

    def check(self, value: Any, healthy: Any) -> None:
        """Check that *value* is right, *healthy* being what was seen before."""
        assert self.contract.is_right(value, healthy), self.contract.explain_wrong(
            value, healthy
        )
