"""Devices whose values are Modbus holding registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ppu.core.errors import LimitError
from ppu.devices.address import Address
from ppu.transports.modbus import ModbusMaster

__all__ = ["Holding"]


@dataclass(frozen=True)
class _HoldingPlace:
    register: int


@dataclass(frozen=True)
class Holding(_HoldingPlace, Address[ModbusMaster]):
    """A signed 16-bit holding register, scaled by its decimals.

    Args:
        register: Address as it goes over the wire.
        write_value: What a command writes here.
        writes_single: Whether it is written with function 6 instead of 16.
    """

    write_value: int | None = None
    writes_single: bool = False

    @override
    def __str__(self) -> str:
        return f"modbus://holding/{self.register}"

    def from_register(self, register: int) -> float | int:
        """Return the value of one unsigned register in the address's unit."""
        signed = register - 0x10000 if register >= 0x8000 else register
        if self.decimals is None:
            return signed
        scale: float = 10.0**self.decimals
        return signed / scale

    def to_register(self, value: float) -> int:
        """Return the unsigned register for *value*, rounded to its resolution.

        Raises:
            LimitError: If 16 bits cannot express it.
        """
        scaled = round(value * 10.0 ** (self.decimals or 0))
        if not -0x8000 <= scaled < 0x8000:
            raise LimitError(f"{self}: {value} {self.units or ''} needs over 16 bits")
        return scaled & 0xFFFF

    @override
    async def ask(self, client: ModbusMaster) -> Any:
        (register,) = await client.read_holding(self.register)
        return self.from_register(register)

    @override
    async def write(self, client: ModbusMaster, value: Any) -> None:
        await self.write_word(client, self.to_register(value))

    async def write_word(self, client: ModbusMaster, word: int) -> None:
        """Write the unsigned content of the register, with its function."""
        if self.writes_single:
            await client.write_register(self.register, word)
        else:
            await client.write_registers(self.register, [word])

    @override
    async def execute(self, client: ModbusMaster, *args: Any) -> None:
        await self.write(client, (args[0] if args else self.write_value) or 0)
