"""Instruments whose cell has died: whoever finds them first brings them to safety."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from ppu.cell.bench_lock import BenchLock
from ppu.core.errors import PPUError
from ppu.core.insisting import Attempts
from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
from ppu.core.notices import tell
from ppu.devices.build import build_devices, driver_class, places_of
from ppu.devices.instrument import LabDevice

__all__ = ["Orphans"]

_N_ROUNDS: Final = 3
"""How often an instrument is tried before a new cell is let at it."""
_PAUSE_S: Final = 1.0
_PATIENCE_S: Final = 30.0
"""After how long one that neither answers nor fails is let go (real time) [s]."""
_WATCH_S: Final = 2.0
"""How often instruments are looked at that nobody else sees to (real time) [s]."""


class Orphans:
    """The instruments of a lab, opened while no cell has them.

    Args:
        file: The lab file.
        path: Where it was read from.

    Raises:
        ConfigurationError: If an entry does not fit its driver.
    """

    def __init__(self, file: LabFile, path: Path) -> None:
        self._file = file
        self._path = path
        self._told: dict[str, str] = {}
        build_devices(file, path)

    def own_bench(self) -> BenchLock:
        """Have the instruments for this process, and for cells that it starts.

        Raises:
            ConflictError: If another process has one of them; with who, and since when.
        """
        who = f"the guard of lab {self._file.lab} ({self._path})"
        return BenchLock(places_of(self._file, self._path), who)

    async def make_safe(self) -> None:
        """Bring every instrument to its orphan state, and let it go again.

        One that does not answer is told and tried again, a few times.
        """
        async with self._opened(self._file) as devices:
            left = devices
            async for _ in Attempts(at_least=_N_ROUNDS, pause_s=_PAUSE_S):
                left = await self._bring(left)
                if not left:
                    tell("guard: every instrument is in its orphan state")
                    return
            names = ", ".join(left)
            tell(f"guard: {names} did not get to its orphan state; see to it by hand")

    async def keep(self, until: asyncio.Event) -> None:
        """Bring every instrument to its orphan state, and see that it stays there.

        Args:
            until: Ends it when it is set.
        """
        async with self._opened(self._file) as devices:
            while not until.is_set():
                await self._bring(devices)
                await _pause(until)

    async def keep_safe(self, until: asyncio.Event) -> None:
        """Bring all that heats to its abort state, and see that it stays there.

        Args:
            until: Ends it when it is set.
        """
        async with self._opened(_with_abort_states(self._file)) as devices:
            hot = {name: device for name, device in devices.items() if device.heats}
            is_first = True
            while not until.is_set():
                left = await self._bring(hot)
                if is_first:
                    for name in hot.keys() - left.keys():
                        await self._tell_hot_parts(name, hot[name])
                is_first = False
                await _pause(until)

    @contextlib.asynccontextmanager
    async def _opened(self, file: LabFile) -> AsyncIterator[dict[str, LabDevice]]:
        """Give devices, which connect when they are needed, and let them go."""
        devices = build_devices(file, self._path)
        if file.simulated_bench is not None:
            for name, device in devices.items():
                device.expected_nonce = file.simulated_bench.nonces.get(name, "")
        self._told.clear()
        try:
            yield devices
        finally:
            await asyncio.gather(
                *(device.disconnect() for device in devices.values()),
                return_exceptions=True,
            )

    async def _bring(self, devices: Mapping[str, LabDevice]) -> dict[str, LabDevice]:
        """Bring devices to their orphan states, all at once; return those that failed.

        What was told before is not told again.
        """
        names = list(devices)
        said = await asyncio.gather(*(self._bring_one(devices[n]) for n in names))
        failed = {}
        for name, (text, is_done) in zip(names, said, strict=True):
            if text and self._told.get(name) != text:
                tell(f"guard: {text}")
            self._told[name] = text
            if not is_done:
                failed[name] = devices[name]
        return failed

    async def _bring_one(self, device: LabDevice) -> tuple[str, bool]:
        """Return what to tell people of one device, and whether it is seen to."""
        name = device.plan_device.name
        try:
            async with asyncio.timeout(running_loop().wire_seconds(_PATIENCE_S)):
                await device.connect_link()
                return await device.go_to_orphan_state(), True
        except PPUError as exc:
            return f"{name} is not seen to: {exc}", False
        except TimeoutError:
            return f"{name} is not seen to: no end after {_PATIENCE_S:g} s", False
        except Exception as exc:  # noqa: BLE001 - one driver's mistake must not keep the others from safety
            kind = type(exc).__name__
            return f"{name} is not seen to: its driver failed ({kind}: {exc})", False

    @staticmethod
    async def _tell_hot_parts(name: str, device: LabDevice) -> None:
        try:
            text = await device.hot_parts()
        except PPUError as exc:
            text = f"{name}: nobody knows how hot it is: {exc}"
        if text:
            tell(f"guard: {text}")


async def _pause(until: asyncio.Event) -> None:
    """Wait before instruments are looked at again, at most until somebody comes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(running_loop().wire_seconds(_WATCH_S)):
            await until.wait()


def _with_abort_states(file: LabFile) -> LabFile:
    """Return *file*, what heats going to its abort state when its process has died.

    Where the lab file declares none, it is the first that the driver names.
    """
    entries = dict(file.devices)
    for name, entry in entries.items():
        driver = driver_class(name, entry)
        if driver.heats:
            state = entry.on_abort or next(iter(driver.abort_states), None)
            entries[name] = entry.model_copy(update={"on_orphan": state})
    return file.model_copy(update={"devices": entries})
