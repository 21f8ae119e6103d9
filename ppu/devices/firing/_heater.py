"""The heater switch: the safe states of a furnace, reached and seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ophyd_async.core import StrictEnum

from ppu.core.errors import InstrumentError, PPUError
from ppu.core.insisting import Attempts
from ppu.core.labtime import running_loop
from ppu.devices.signals import SignalR, SignalRW, write

__all__ = ["SAFE_TO_TOUCH_DEGC", "HeaterSwitch", "LoopMode"]

SAFE_TO_TOUCH_DEGC: Final = 60.0
_SWITCH_DEADLINE_S: Final = 5.0
_N_ATTEMPTS: Final = 3


class LoopMode(StrictEnum):
    """Who sets the output power."""

    AUTO = "auto"
    MANUAL = "manual"


async def _act_until(
    act: Callable[[], Awaitable[Any]], shows: SignalR[Any], value: Any
) -> str:
    """Act until *shows* reads *value*; return what went wrong, if it never did.

    Only for what is harmless to repeat. The next act must be tried whatever becomes of
    this one, so nothing is raised.
    """
    trouble = ""
    async for _ in Attempts(at_least=_N_ATTEMPTS):
        try:
            await act()
            actual = await shows.get_value()
        except (PPUError, TimeoutError) as exc:
            trouble = f"{shows.name}: {exc}"
        else:
            if actual == value:
                return ""
            trouble = f"{shows.name} was set to {value} but reads {actual}"
    return trouble


@dataclass(frozen=True)
class HeaterSwitch:
    """What takes the power off a furnace, and shows that it is off.

    Args:
        name: Name of the device.
        reset_program: Asks for the program to be reset.
        program_state: Shows the state of the program.
        reset: What it shows when no program is under way.
        loop_mode: By hand or automatic.
        manual_output: Output by hand [%].
        working_output: Present output [%].
        target_setpoint: Where automatic goes without a program [degC].
        setpoint_rate: How fast it goes there [degC/min].
        idle_degc: Where it must be set to go.
    """

    name: str
    reset_program: Callable[[], Awaitable[Any]]
    program_state: SignalR[Any]
    reset: StrictEnum
    loop_mode: SignalRW[LoopMode]
    manual_output: SignalRW[float]
    working_output: SignalR[float]
    target_setpoint: SignalR[float]
    setpoint_rate: SignalRW[float]
    idle_degc: float

    async def _ensure(self, signal: SignalRW[Any], value: Any) -> str:
        return await _act_until(partial(write, signal, value), signal, value)

    async def _ensure_reset(self) -> str:
        return await _act_until(self.reset_program, self.program_state, self.reset)

    async def _wait_for_no_power(self) -> str:
        """Wait until the output is 0 %; return what went wrong, if it never is.

        The next act must be tried whatever becomes of this, so nothing is raised.
        """
        loop = running_loop()
        deadline = loop.time() + _SWITCH_DEADLINE_S
        while True:
            is_late = loop.time() > deadline
            try:
                output = await self.working_output.get_value()
            except (PPUError, TimeoutError) as exc:
                return f"{self.working_output.name}: {exc}"
            if output <= 0:
                return ""
            if is_late:
                return f"the output stayed at {output:g} %"
            await asyncio.sleep(1.0)

    async def switch_off(self) -> None:
        """Reset the program, set the output to 0 % by hand, and see that it is.

        Raises:
            InstrumentError: If the controller did not do so within seconds; everything
                was tried.
        """
        troubles = [await self._ensure_reset()]
        # First the power, then by hand: never by hand at the last power.
        troubles.append(await self._ensure(self.manual_output, 0.0))
        troubles.append(await self._ensure(self.loop_mode, LoopMode.MANUAL))
        troubles.append(await self._ensure(self.manual_output, 0.0))
        if troubles[-1] and not troubles[2]:
            # By hand at an unknown power is worse than automatic at the idle setpoint.
            troubles.append(await self._ensure(self.loop_mode, LoopMode.AUTO))
        loop = running_loop()
        deadline = loop.time() + _SWITCH_DEADLINE_S
        while True:
            # The controller moves its output at its next cycle, not at once.
            is_late = loop.time() > deadline
            output = await self.working_output.get_value()
            mode = await self.loop_mode.get_value()
            if mode is LoopMode.MANUAL and output <= 0:
                return
            if is_late:
                told = "; ".join(trouble for trouble in troubles if trouble)
                raise InstrumentError(
                    f"{self.name}: asked for 0 % by hand but it is in {mode.value} at "
                    f"{output:g} %; switch it off at the wall. {told}".rstrip()
                )
            await asyncio.sleep(1.0)

    async def ramp_down(self, rate_degc_per_min: float) -> str:
        """Reset the program and follow the setpoint rate down to the idle setpoint.

        Returns:
            What was done and seen, for a person.

        Raises:
            InstrumentError: If the controller did not do so; everything was tried.
        """
        rate = rate_degc_per_min
        troubles = [
            await self._ensure(self.setpoint_rate, round(rate, 1)),
            await self._ensure_reset(),
        ]
        if await self.loop_mode.get_value() is not LoopMode.AUTO:
            troubles.append(await self._ensure(self.manual_output, 0.0))
            # Automatic goes on from the power it finds.
            troubles.append(await self._wait_for_no_power())
            troubles.append(await self._ensure(self.loop_mode, LoopMode.AUTO))
        status = await self.program_state.get_value()
        mode = await self.loop_mode.get_value()
        target = await self.target_setpoint.get_value()
        told = "; ".join(trouble for trouble in troubles if trouble)
        if (
            status != self.reset
            or mode is not LoopMode.AUTO
            or target > self.idle_degc + 0.05
        ):
            raise InstrumentError(
                f"{self.name}: asked to ramp down but it is in {status.value}, "
                f"{mode.value}, with target {target:g} degC; switch it off at the "
                f"wall. {told}".rstrip()
            )
        manner = f"at {rate:g} degC/min" if not troubles[0] else "at its own rate"
        return f"{self.name}: ramping down {manner} to {target:g} degC, verified"
