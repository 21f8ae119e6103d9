"""Feeds the communications watchdog while no sampling does."""

from __future__ import annotations

import asyncio
from typing import Any

from ppu.core.errors import PPUError
from ppu.core.labtime import running_loop
from ppu.devices import SignalR
from ppu.devices.firing import SAFE_TO_TOUCH_DEGC
from ppu_drivers.eurotherm_epc3016._registers import ProgramMode

__all__ = ["WatchdogFeeder"]


class WatchdogFeeder:
    """Keeps the controller asked, so that its watchdog does not take the power off.

    Args:
        period_s: Time between two feedings [s].
        program_mode: State of the program.
        process_value: Temperature of the chamber [degC].
    """

    def __init__(
        self,
        period_s: float,
        program_mode: SignalR[Any],
        process_value: SignalR[float],
    ) -> None:
        self._period_s = period_s
        self._program_mode = program_mode
        self._process_value = process_value
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Feed until somebody else does."""
        self.stop()
        self.task = running_loop().create_task(self._feed())

    def stop(self) -> None:
        """Feed no more."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Feed no more, and wait until that is so."""
        task = self.task
        self.stop()
        if task is not None:
            await asyncio.wait([task])

    async def _feed(self) -> None:
        """Feed until all is over and cold, or nobody answers any more."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                mode = await self._program_mode.get_value()
                temperature = await self._process_value.get_value()
            except (PPUError, TimeoutError):
                return  # it is on its own, and its watchdog acts
            if mode is ProgramMode.RESET and temperature <= SAFE_TO_TOUCH_DEGC:
                return
