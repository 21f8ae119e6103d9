"""Devices that people have tagged out of service: no job takes one until its return.

A tag-out is a person's word, not a lock: it keeps jobs away, and switches nothing off.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from ppu.core.errors import ConfigurationError, ConflictError, NotFoundError, nearest
from ppu.core.remedies import Remedy, advise
from ppu.store import cells, commands
from ppu.store.events import EventKind, announce
from ppu.store.requests import ReturnDevice, TagOut
from ppu.store.schema import tag_outs

__all__ = ["TaggedOut", "ask", "check", "find_tag_outs", "return_device", "tag_out"]


@dataclass(frozen=True)
class TaggedOut:
    """A device that is out of service.

    Attributes:
        device: Its name.
        reason: Why, in the person's words.
        by: Who said so.
        since: Stamp [s since 1970].
    """

    device: str
    reason: str
    by: str
    since: float

    def __str__(self) -> str:
        return f"tagged out of service by {self.by}: {self.reason}"


def find_tag_outs(connection: Connection) -> list[TaggedOut]:
    """Return what is tagged out, in the order of names."""
    query = select(tag_outs).order_by(tag_outs.c.device)
    return [TaggedOut(**row._mapping) for row in connection.execute(query)]


def check(
    connection: Connection, said: TagOut | ReturnDevice, known: Collection[str]
) -> None:
    """Refuse what a person says of a device that cannot be.

    Args:
        connection: A transaction of the store.
        said: What the person says.
        known: The lab's devices; empty if nobody knows them yet.

    Raises:
        NotFoundError: If there is no such device.
        ConfigurationError: If no reason is given.
        ConflictError: If it is tagged out already, or is not when it returns.
    """
    name = said.device
    there = {one.device: one for one in find_tag_outs(connection)}
    if known and name not in {*known, *there}:
        raise NotFoundError(
            f"there is no device '{name}'; {nearest(name, known)}", field="device"
        )
    if isinstance(said, ReturnDevice):
        if name not in there:
            raise ConflictError(f"{name} is not tagged out", field="device")
        return
    if not said.reason.strip():
        raise ConfigurationError(
            f"{name}: say why it is tagged out; whoever looks at it later must know",
            field="reason",
        )
    if name in there:
        back = advise(Remedy.RETURN_DEVICE, device=name)
        raise ConflictError(f"{name} is {there[name]}", advice=[back], field="device")


def ask(
    connection: Connection,
    said: TagOut | ReturnDevice,
    by: str,
    now: float,
    known: Collection[str] = (),
) -> int | None:
    """Keep what a person says of a device, or have the cell do it if one lives.

    Returns:
        Number of the request that waits for the cell; None if it is done.

    Raises:
        NotFoundError: As :func:`check`.
        ConfigurationError: As :func:`check`.
        ConflictError: As :func:`check`.
    """
    check(connection, said, known)
    if cells.is_owned(connection):
        return commands.request(connection, said, by, now)
    if isinstance(said, TagOut):
        tag_out(connection, said.device, said.reason, by, now)
    else:
        return_device(connection, said.device, said.note, by, now)
    return None


def tag_out(
    connection: Connection, device: str, reason: str, by: str, now: float
) -> TaggedOut:
    """Keep that a device is out of service."""
    row = {"device": device, "reason": reason, "by": by, "since": now}
    connection.execute(tag_outs.insert(), row)
    announce(connection, EventKind.DEVICE, {"is_tagged_out": True, **row}, now)
    return TaggedOut(device, reason, by, now)


def return_device(
    connection: Connection, device: str, note: str, by: str, now: float
) -> None:
    """Keep that a device is in service again."""
    connection.execute(tag_outs.delete().where(tag_outs.c.device == device))
    said = {"is_tagged_out": False, "device": device, "note": note, "by": by}
    announce(connection, EventKind.DEVICE, said, now)
