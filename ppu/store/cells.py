"""Cells: whoever has the newest token owns the lab, and all others must stop."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from ppu.core.errors import StaleTokenError
from ppu.store.events import announce
from ppu.store.schema import cells

__all__ = ["beat", "end", "require_token", "start"]


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


def require_token(connection: Connection, token: int) -> None:
    """Refuse what a cell wants that is no longer the newest.

    Raises:
        StaleTokenError: If it is not, or has ended.
    """
    newest = connection.execute(_NEWEST_CELL).first()
    if newest is None or newest.token != token or newest.ended is not None:
        raise StaleTokenError(
            f"token {token} is stale, the newest is "
            f"{None if newest is None else newest.token}: this cell no longer owns "
            "the lab and must stop"
        )


_NEWEST = select(func.max(cells.c.token))
_NEWEST_CELL = (
    select(cells.c.token, cells.c.ended).order_by(cells.c.token.desc()).limit(1)
)
