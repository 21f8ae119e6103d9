"""Cells: whoever has the newest token owns the lab, and all others must stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from ppu.core.errors import StaleTokenError, TakenOverError
from ppu.store.events import EventKind, announce
from ppu.store.migrations import fill_seats
from ppu.store.schema import cells, jobs, meta

__all__ = [
    "LEASE_S",
    "beat",
    "boot_id",
    "doubt",
    "doubt_of",
    "end",
    "end_doubt",
    "is_doubted",
    "is_owned",
    "lab_of",
    "note_lease_over",
    "require_token",
    "revoke_lease",
    "start",
    "starts",
    "trust_job",
    "try_to_write",
]

LEASE_S: Final = 30.0
"""How long a cell may act after it last renewed its lease (real time) [s]."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES: Final = Path("/proc/self/ns/pid")

_NO_HEAT = "no heat"
_TRIAL = "trial"
_DOUBT = "doubt"
_DOUBTED = "doubted job "
_DEPOSED = "deposed"
"""How a cell ended that may still be acting until its lease has run out."""
_VANISHED = "vanished"


def boot_id() -> str:
    """Return what tells this boot of the computer from others, where it says so.

    Containers on one computer have boots of their own: each counts its processes by
    itself.
    """
    if not _BOOT_ID.exists():
        return "unknown"
    return f"{_BOOT_ID.read_text().strip()} {_PROCESSES.readlink()}"


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
        cells.update().where(cells.c.ended.is_(None)).values(ended=now, how=_VANISHED)
    )
    fill_seats(connection)
    token = (connection.execute(_NEWEST).scalar() or 0) + 1
    row = {"token": token, "name": name, "pid": pid, "boot_id": boot_id}
    row |= {"epoch": epoch, "started": now, "heartbeat": now}
    connection.execute(cells.insert(), row)
    announce(
        connection, EventKind.CELL, {"token": token, "name": name, "pid": pid}, now
    )
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
    announce(connection, EventKind.CELL, {"token": token, "how": how}, now)


def revoke_lease(connection: Connection, now: float) -> Row[Any] | None:
    """Let the last cell renew nothing any more, if it may still be acting.

    It may unless it has ended, or was of this boot and its process is gone. Its lease
    was renewed before now: after :data:`LEASE_S` it acts no more, whatever its clock
    says; then call :func:`note_lease_over`.

    Args:
        connection: A writing transaction of the store, whose lock the caller has.
        now: Stamp of the end of its rule.

    Returns:
        The cell that must be outlived; None if nobody is left that could act.
    """
    last = newest(connection)
    if last is None or _is_dead(last) or last.how not in (None, _DEPOSED):
        return None
    if last.ended is None:
        forbid_heat(connection)  # it did not end well
        connection.execute(
            cells.update()
            .where(cells.c.token == last.token)
            .values(ended=now, how=_DEPOSED)
        )
        announce(
            connection, EventKind.CELL, {"token": last.token, "how": _DEPOSED}, now
        )
    return last


def note_lease_over(connection: Connection, token: int) -> None:
    """Keep that the lease of a deposed cell has run out, so that nobody waits again.

    Raises:
        StaleTokenError: If another cell has begun meanwhile.
    """
    last = newest(connection)
    if last is None or last.token != token:
        raise StaleTokenError(
            "another cell has taken the store meanwhile; stop that one first"
        )
    connection.execute(
        cells.update().where(cells.c.token == token).values(how=_VANISHED)
    )


def _is_dead(cell: Row[Any]) -> bool:
    """Whether the process of a cell is gone for certain."""
    if cell.boot_id == "unknown" or cell.boot_id != boot_id():
        return False
    try:
        os.kill(cell.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and somebody else's
    return False


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


def try_to_write(connection: Connection) -> None:
    """Write something and take it back, to see whether the store takes it."""
    connection.execute(meta.delete().where(meta.c.key == _TRIAL))
    connection.execute(meta.insert(), {"key": _TRIAL, "content": ""})
    connection.execute(meta.delete().where(meta.c.key == _TRIAL))


def doubt(connection: Connection, why: str) -> None:
    """Keep that the store does not know all that was done: a person must say so much.

    Jobs that have not ended may have come further than it knows.
    """
    doubted = {_DOUBT: why} | {
        f"{_DOUBTED}{job_id}": ""
        for job_id in connection.execute(
            select(jobs.c.id).where(jobs.c.ended.is_(None))
        ).scalars()
    }
    connection.execute(meta.delete().where(meta.c.key.in_(doubted)))
    rows = [{"key": key, "content": content} for key, content in doubted.items()]
    connection.execute(meta.insert(), rows)
    forbid_heat(connection)


def doubt_of(connection: Connection) -> str:
    """Return why a person must look before anything goes on, nothing if none must."""
    query = select(meta.c.content).where(meta.c.key == _DOUBT)
    return connection.execute(query).scalar() or ""


def end_doubt(connection: Connection) -> None:
    """Keep that a person has put right what the store believes of the lab."""
    connection.execute(meta.delete().where(meta.c.key == _DOUBT))


def is_doubted(connection: Connection, job_id: int) -> bool:
    """Return whether a job may have done steps that the store has forgotten."""
    query = select(meta.c.key).where(meta.c.key == f"{_DOUBTED}{job_id}")
    return connection.execute(query).first() is not None


def trust_job(connection: Connection, job_id: int) -> None:
    """Keep that the store knows all that a job has done."""
    connection.execute(meta.delete().where(meta.c.key == f"{_DOUBTED}{job_id}"))


def require_token(connection: Connection, token: int) -> None:
    """Refuse what a cell wants that is no longer the newest.

    Raises:
        TakenOverError: If it is not, or has ended.
    """
    last = connection.execute(_NEWEST_CELL).first()
    if last is None or last.token != token or last.ended is not None:
        raise TakenOverError(
            f"token {token} is stale, the newest is "
            f"{None if last is None else last.token}: this cell no longer owns "
            "the lab and must stop"
        )


_NEWEST = select(func.max(cells.c.token))
_NEWEST_CELL = (
    select(cells.c.token, cells.c.ended).order_by(cells.c.token.desc()).limit(1)
)
