"""Cells: whoever has the newest token owns the lab, and all others must stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from ppu.core.errors import StaleTokenError
from ppu.store.events import announce
from ppu.store.schema import cells, meta

__all__ = [
    "beat",
    "boot_id",
    "end",
    "is_owned",
    "lab_of",
    "require_token",
    "start",
    "starts",
]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


_NO_HEAT = "no heat"


def boot_id() -> str:
    """Return what tells this boot of the computer from others, where it says so."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"


def start(
    connection: Connection,
    name: str,
    now: float,
    *,
    pid: int,
    boot_id: str,
    epoch: float,
) -> int:
    """Let a new cell take over; return its fencing token, higher than any before.

    Cells that have not ended count as vanished from now on: call
    :func:`ppu.store.queue.lose_vanished` to see to their jobs.

    Args:
        connection: A writing transaction of the store.
        name: The lab's name.
        now: Stamp of the start.
        pid: Process id of the cell.
        boot_id: What tells this boot of the computer from others.
        epoch: Stamp of the cell's lab time 0.
    """
    connection.execute(
        cells.update().where(cells.c.ended.is_(None)).values(ended=now, how="vanished")
    )
    token = (connection.execute(_NEWEST).scalar() or 0) + 1
    row = {"token": token, "name": name, "pid": pid, "boot_id": boot_id}
    row |= {"epoch": epoch, "started": now, "heartbeat": now}
    connection.execute(cells.insert(), row)
    announce(connection, "cell", {"token": token, "name": name, "pid": pid}, now)
    return token


def beat(connection: Connection, token: int, now: float) -> None:
    """Note that a cell lives, which is not announced.

    Raises:
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    connection.execute(
        cells.update().where(cells.c.token == token).values(heartbeat=now)
    )


def end(connection: Connection, token: int, how: str, now: float) -> None:
    """Let a cell go; its token is stale from now on.

    Args:
        connection: A writing transaction of the store.
        token: The cell's token.
        how: Why it ends, for people.
        now: Stamp of the end.

    Raises:
        StaleTokenError: If a newer cell has taken over.
    """
    require_token(connection, token)
    connection.execute(
        cells.update().where(cells.c.token == token).values(ended=now, how=how)
    )
    announce(connection, "cell", {"token": token, "how": how}, now)


def is_owned(connection: Connection) -> bool:
    """Whether there is a cell that has not ended, which acts for the lab alone.

    One whose process died counts until the next one starts: what people ask waits.
    """
    living = select(cells.c.token).where(cells.c.ended.is_(None)).limit(1)
    return connection.execute(living).first() is not None


def lab_of(connection: Connection) -> str | None:
    """Return the name of the lab that the store is of, None before its first cell."""
    query = select(cells.c.name).order_by(cells.c.token.desc()).limit(1)
    return connection.execute(query).scalar()


def starts(connection: Connection) -> list[float]:
    """Return when each cell of the store began, the first one first."""
    query = select(cells.c.started).order_by(cells.c.token)
    return list(connection.execute(query).scalars())


def newest(connection: Connection) -> Row[Any] | None:
    """Return the row of the cell with the newest token, None before the first one."""
    query = select(cells).order_by(cells.c.token.desc()).limit(1)
    return connection.execute(query).first()


def forbid_heat(connection: Connection) -> None:
    """Keep that a person must agree before anything is heated again."""
    if may_heat(connection):
        connection.execute(meta.insert(), {"key": _NO_HEAT, "content": "crashed"})


def allow_heat(connection: Connection) -> None:
    """Keep that a person has agreed."""
    connection.execute(meta.delete().where(meta.c.key == _NO_HEAT))


def may_heat(connection: Connection) -> bool:
    """Return whether nobody has to agree before anything is heated."""
    query = select(meta.c.key).where(meta.c.key == _NO_HEAT)
    return connection.execute(query).first() is None


def require_token(connection: Connection, token: int) -> None:
    """Refuse what a cell wants that is no longer the newest.

    Raises:
        StaleTokenError: If it is not, or has ended.
    """
    last = connection.execute(_NEWEST_CELL).first()
    if last is None or last.token != token or last.ended is not None:
        raise StaleTokenError(
            f"token {token} is stale, the newest is "
            f"{None if last is None else last.token}: this cell no longer owns "
            "the lab and must stop"
        )


_NEWEST = select(func.max(cells.c.token))
_NEWEST_CELL = (
    select(cells.c.token, cells.c.ended).order_by(cells.c.token.desc()).limit(1)
)
