"""Opens a lab on a target: connects devices, runs plans, closes everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from bluesky.utils import Msg

from ppu.core.errors import ConfigurationError, PPUError
from ppu.core.labfile import LabFile, load_lab
from ppu.core.labtime import LabTimeLoop
from ppu.core.registry import find_lab
from ppu.devices.build import build_devices
from ppu.devices.instrument import Instrument
from ppu.engine.host import Host
from ppu.plans.lab import Lab
from ppu.store.journal import Journal
from ppu.twin.bench import Bench

__all__ = ["OpenLab", "Target", "open_lab"]

Target = Literal["twin", "hardware"]


class OpenLab(Mapping[str, Any]):
    """A lab with connected devices; made by :func:`open_lab`.

    It maps device names to devices; devices are attributes, too.

    Args:
        file: The lab file.
        path: Where it was read from.
        target: ``twin`` or ``hardware``.
        pace: Lab seconds per wall second, None to jump.
        seed: Seed of the twin's random streams.
        only: Devices to connect; by default all.
    """

    def __init__(
        self,
        file: LabFile,
        path: Path,
        *,
        target: Target,
        pace: float | None,
        seed: int | None = None,
        only: tuple[str, ...] = (),
    ) -> None:
        self.file = file
        self.path = path
        self.target = target
        self.seed = file.seed if seed is None else seed
        self._only = only
        self.bench: Bench | None = None
        if target == "twin":
            self.bench = Bench(file, path, self.seed, only=only)
        self.is_simulated = target == "twin" or file.simulated_bench is not None
        self.host = Host(_make_loop(file, target, pace))
        self.devices: dict[str, Instrument] = {}

    # -- opening and closing ---------------------------------------------------------

    def connect(self) -> None:
        """Connect every device and check its identity.

        Raises:
            ConfigurationError: If an entry does not fit its driver.
            ConnectError: If an instrument is absent or is a stranger; with every one.
        """
        self.host.call(self._connect())

    async def _connect(self) -> None:
        if self.bench is not None:
            await self.bench.start()
            connections: Mapping[str, Any] | None = self.bench.connections
        else:
            connections = None
        devices = build_devices(self.file, self.path, connections, self._only)
        faults: list[PPUError] = []
        for name, device in devices.items():
            if self.target == "hardware" and self.file.simulated_bench is not None:
                device.expected_nonce = self.file.simulated_bench.nonces.get(name, "")
            try:
                await device.connect_link()
            except PPUError as exc:
                faults.append(exc)
            self.devices[name] = device
        if faults:
            # One class for all: whoever must act is the same person at the bench.
            raise type(faults[0])("\n".join(str(fault) for fault in faults))

    def close(self) -> None:
        """Disconnect every device, stop the simulators, the loop and its thread."""
        self.host.call(self._disconnect())
        self.host.close()

    async def _disconnect(self) -> None:
        for device in self.devices.values():
            await device.disconnect()
        if self.bench is not None:
            await self.bench.stop()

    @contextlib.contextmanager
    def closing(self) -> Iterator[OpenLab]:
        """Close the lab at the end of the block, connected or not."""
        try:
            yield self
        finally:
            self.close()

    def __enter__(self) -> OpenLab:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- using -----------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        return self.devices[name]

    def __getattr__(self, name: str) -> Any:
        devices = self.__dict__.get("devices", {})
        if name in devices:
            return devices[name]
        raise AttributeError(
            f"lab {self.file.lab} has no device '{name}'; it has "
            f"{', '.join(devices) or 'none connected'}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.devices)

    def __len__(self) -> int:
        return len(self.devices)

    def view(self) -> Lab:
        """Return the lab as a protocol sees it."""
        return Lab(self.file, self.devices)

    def run(self, plan: Any, journal: Journal | None = None) -> Any:
        """Run any Bluesky plan on this lab and return what it returns.

        Args:
            plan: A generator of messages, your own or a protocol's.
            journal: Where documents and steps are recorded, if anywhere.
        """
        messages: Iterator[Msg] = plan
        return self.host.run(messages, journal)

    def read(self, device: str, signal: str) -> dict[str, Any]:
        """Return value, quality and time of one signal, read now."""
        instrument = self.devices[device]

        async def read_now() -> dict[str, Any]:
            reading = await instrument.read_signal(signal)
            quality = instrument.quality(reading)
            return {**reading, "quality": quality.value}

        return self.host.call(read_now())


def _make_loop(file: LabFile, target: Target, pace: float | None) -> LabTimeLoop:
    """Return the loop for *target*.

    Raises:
        ConfigurationError: If hardware is asked to run at another pace than the wall.
    """
    if target == "twin":
        return LabTimeLoop(pace)
    bench = file.simulated_bench
    if bench is None:
        if pace != 1.0:
            asked = "jump" if pace is None else f"{pace:g}"
            raise ConfigurationError(
                f"--pace {asked} with --target hardware: real instruments run at pace "
                "1; any other needs the lab file that `ppu sim --write-lab` writes"
            )
        return LabTimeLoop(1.0)
    if pace != bench.pace:
        asked = "jump" if pace is None else f"{pace:g}"
        raise ConfigurationError(
            f"--pace {asked}: the simulated bench of this lab file runs at pace "
            f"{bench.pace:g}"
        )
    return LabTimeLoop.shared(bench.pace, bench.epoch)


def open_lab(
    lab: str = "a-lab",
    target: Target = "twin",
    *,
    pace: float | Literal["default"] | None = "default",
    seed: int | None = None,
    only: tuple[str, ...] = (),
) -> OpenLab:
    """Open a lab; use it in a ``with`` statement.

    Args:
        lab: A bundled lab or the path of a lab file.
        target: ``twin`` for simulated instruments, ``hardware`` for real ones.
        pace: Lab seconds per wall second, None to jump; by default a twin jumps and
            hardware runs at the wall's pace (or its simulated bench's).
        seed: Seed of the twin; by default the lab file's.
        only: Devices to connect; by default all.

    Example:
        >>> with open_lab("a-lab", only=("balance",)) as lab:
        ...     reading = lab.read("balance", "present_mass")
        >>> reading["quality"]
        'good'
    """
    path = find_lab(lab)
    file = load_lab(path)
    if pace == "default":
        if target == "twin":
            pace = None
        else:
            bench = file.simulated_bench
            pace = 1.0 if bench is None else bench.pace
    return OpenLab(file, path, target=target, pace=pace, seed=seed, only=only)
