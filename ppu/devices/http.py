"""Devices whose values are fields of JSON answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ppu.core.errors import MalformedReply
from ppu.devices.address import Address
from ppu.transports.http import HttpClient

__all__ = ["JsonField"]


@dataclass(frozen=True)
class _FieldPlace:
    path: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class JsonField(_FieldPlace, Address[HttpClient]):
    """A field of the JSON object that a GET answers.

    Args:
        path: Path below the base URL.
        keys: Keys from the object down to the field.
    """

    @override
    def __str__(self) -> str:
        return f"http://{self.path}#{'.'.join(self.keys)}"

    @property
    @override
    def exchange(self) -> str:
        return self.path

    @override
    async def ask(self, client: HttpClient) -> Any:
        return await client.get(self.path)

    @override
    def pick(self, client: HttpClient, answer: Any) -> Any:
        value = answer
        for key in self.keys:
            if not isinstance(value, dict) or key not in value:
                raise MalformedReply(
                    f"{client.device}: {self.path} answered without "
                    f"{'.'.join(self.keys)}"
                )
            value = value[key]
        return value
