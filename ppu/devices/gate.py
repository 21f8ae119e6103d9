"""The gate that every command to an instrument passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ppu.core.errors import InterlockError, LimitError
from ppu.core.labfile import LimitPair
from ppu.devices.address import Address

__all__ = ["Gate", "Write"]


@dataclass(frozen=True)
class Write:
    """Something that is to be sent to an instrument and changes it.

    Args:
        target: Name of the signal or command, which begins with its device's; the
            device's own for an exchange past its signals.
        value: What is to be written; None for a command without one.
        address: Where it goes; None for an exchange past the signals.
        is_raw: Whether a plan commands it past the driver's operations.
    """

    target: str
    value: Any
    address: Address[Any] | None
    is_raw: bool


class Gate:
    """Lets commands to one device pass, or refuses them before anything is sent.

    Args:
        device: Name of the device.
        operations: What does safely what raw commands must not do, for refusals.
        limits: Returns the lab file's limits of the device, by name.
    """

    def __init__(
        self,
        device: str,
        operations: str,
        limits: Callable[[], Mapping[str, LimitPair]],
    ) -> None:
        self._device = device
        self._operations = operations
        self._limits = limits
        self.rules: list[Callable[[Write], None]] = []
        """More that each write is asked; each raises what refuses it. They must let
        pass what makes an instrument safe."""

    def check_exchange(self) -> None:
        """Let an exchange pass that may change something, whoever's words it has.

        A program's registers or an arm's lines are written past the signals; the rules
        are asked of them, too.

        Raises:
            InterlockError: If a rule forbids it.
            LimitError: If a rule forbids it.
        """
        self.check(Write(self._device, None, None, is_raw=False))

    def check(self, write: Write) -> None:
        """Let *write* pass.

        Raises:
            InterlockError: If a plan may not command this directly.
            LimitError: If the lab file does not allow the value.
        """
        if write.address is not None:
            self._check_address(write, write.address)
        for rule in self.rules:
            rule(write)

    def _check_address(self, write: Write, address: Address[Any]) -> None:
        """Refuse what the address of a signal or command does not let pass."""
        if write.is_raw and not address.plan_may_write:
            raise InterlockError(
                f"{self._device}: a plan must not write {write.target} directly "
                f"({write.value!r}): that could heat, move or let flow past every "
                f"check; use {self._operations}"
            )
        if address.limited_by and isinstance(write.value, int | float):
            # Not the lower end: whatever is switched off passes.
            _, high = self._limits()[address.limited_by]
            if write.value > high:
                raise LimitError(
                    f"{self._device}: {write.target} {write.value:g} "
                    f"{address.units or ''} is above the lab's {address.limited_by}, "
                    f"{high:g}"
                )
