"""Custody: where containers are, who moved them, and what stock is left."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from ppu.core.custody import Books, Change, Claimed, Left, Moved
from ppu.core.errors import InternalError
from ppu.core.labfile import LabFile
from ppu.store.events import announce
from ppu.store.schema import containers, custody, stock

__all__ = ["books", "declare", "enter"]


def declare(connection: Connection, file: LabFile, now: float) -> None:
    """Open the books with what a lab file says of things that are not in them yet.

    What is in them stays: the store knows better than the file where things went.
    """
    known = set(connection.execute(select(containers.c.name)).scalars())
    for name, entry in file.containers.items():
        if name in known:
            continue
        row = {"name": name, "kind": entry.kind, "home": entry.at}
        kept = row | {"location": entry.at, "is_used": False}
        connection.execute(containers.insert(), kept)
        _tell(connection, "declared", name, None, entry.at, "lab file", now)
    powders = set(connection.execute(select(stock.c.powder)).scalars())
    for name, powder in file.stock.items():
        if name not in powders:
            left = {"powder": name, "mass_g": powder.mass_g}
            connection.execute(stock.insert(), left)


def enter(
    connection: Connection, changes: Sequence[Change], job_id: int, now: float
) -> None:
    """Keep what a job changed in the lab.

    Raises:
        InternalError: If the books do not agree with where a container was.
    """
    for change in changes:
        if isinstance(change, Left):
            _leave(connection, change, job_id, now)
        elif isinstance(change, Moved):
            _arrive(connection, change, job_id, now)
        elif isinstance(change, Claimed):
            connection.execute(
                containers.update()
                .where(containers.c.name == change.container)
                .values(is_used=True)
            )
        else:
            connection.execute(
                stock.update()
                .where(stock.c.powder == change.powder)
                .values(mass_g=stock.c.mass_g - change.mass_g)
            )


def _leave(connection: Connection, change: Left, job_id: int, now: float) -> None:
    where = containers.c.name == change.container
    found = connection.execute(select(containers.c.location).where(where)).scalar()
    if found != change.origin:
        raise InternalError(
            f"{change.container} leaves {change.origin}, but the books have it at "
            f"{found}"
        )
    values = {"location": None, "under_way_to": change.destination}
    connection.execute(containers.update().where(where).values(values))
    by = f"job {job_id}"
    _tell(
        connection,
        "left",
        change.container,
        change.origin,
        change.destination,
        by,
        now,
        job_id,
    )


def _arrive(connection: Connection, change: Moved, job_id: int, now: float) -> None:
    connection.execute(
        containers.update()
        .where(containers.c.name == change.container)
        .values(location=change.destination, under_way_to=None)
    )
    by = f"job {job_id}"
    _tell(
        connection,
        "moved",
        change.container,
        change.origin,
        change.destination,
        by,
        now,
        job_id,
        change.evidence,
    )


def _tell(
    connection: Connection,
    kind: str,
    container: str,
    origin: str | None,
    destination: str,
    by: str,
    now: float,
    job_id: int | None = None,
    evidence: str = "",
) -> None:
    content = {"kind": kind, "container": container, "destination": destination}
    row = {
        "sequence": announce(connection, "custody", content, now, job_id),
        "container": container,
        "origin": origin,
        "destination": destination,
        "by": by,
        "kind": kind,
        "evidence": evidence or None,
    }
    connection.execute(custody.insert(), row)


def books(connection: Connection) -> Books:
    """Return what is believed of the lab, as a cell continues with it."""
    found = Books({})
    for row in connection.execute(select(containers)):
        place = row.location
        if place is None:
            place = _left_from(connection, row.name)
            found.under_way[row.name] = row.under_way_to or "nowhere"
        found.places[row.name] = place
        if row.is_used:
            found.used.add(row.name)
    for row in connection.execute(select(stock)):
        found.stock_g[row.powder] = row.mass_g
    return found


def _left_from(connection: Connection, container: str) -> str:
    """Return where a container was before it left."""
    query = (
        select(custody.c.origin)
        .where(custody.c.container == container)
        .order_by(custody.c.sequence.desc())
        .limit(1)
    )
    return str(connection.execute(query).scalar())
