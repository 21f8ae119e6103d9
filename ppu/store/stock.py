"""Stock: what is left of each powder, and what waiting jobs have reserved of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from ppu.core.errors import ConfigurationError, LimitError, nearest
from ppu.core.labfile import LabFile
from ppu.store import cells, commands
from ppu.store.events import announce
from ppu.store.schema import reservations, stock

__all__ = [
    "Powder",
    "ask_refill",
    "declare_stock",
    "find_stock",
    "free_stock",
    "refill",
    "reserve",
    "use_stock",
]

_ROUNDING_G = 1e-9


@dataclass(frozen=True)
class Powder:
    """How much of a powder there is, as the books say.

    Attributes:
        name: Its name in the lab file.
        mass_g: What should be there [g]; None before a cell has declared it.
        reserved_g: What jobs that wait or run will use of it [g].
    """

    name: str
    mass_g: float | None
    reserved_g: float


def declare_stock(connection: Connection, file: LabFile) -> None:
    """Open the books of the powders of a lab file that are not in them yet.

    Jobs may have been submitted before: the oldest keep what they reserved.
    """
    known = set(connection.execute(select(stock.c.powder)).scalars())
    for name, powder in file.stock.items():
        if name not in known:
            left = {"powder": name, "mass_g": powder.mass_g}
            connection.execute(stock.insert(), left)
            _fit_reservations(connection, name, powder.mass_g)


def find_stock(connection: Connection) -> list[Powder]:
    """Return every powder that is known or reserved, by name."""
    there = {row.powder: row.mass_g for row in connection.execute(select(stock))}
    query = select(
        reservations.c.powder, func.sum(reservations.c.mass_g).label("mass_g")
    ).group_by(reservations.c.powder)
    reserved = {row.powder: row.mass_g for row in connection.execute(query)}
    return [
        Powder(name, there.get(name), reserved.get(name, 0.0))
        for name in sorted(there.keys() | reserved.keys())
    ]


def free_stock(connection: Connection) -> dict[str, float]:
    """Return how much of each known powder nobody has reserved [g]."""
    reserved = func.coalesce(func.sum(reservations.c.mass_g), 0.0)
    query = (
        select(stock.c.powder, (stock.c.mass_g - reserved).label("free"))
        .outerjoin(reservations, reservations.c.powder == stock.c.powder)
        .group_by(stock.c.powder, stock.c.mass_g)
    )
    return {row.powder: row.free for row in connection.execute(query)}


def reserve(
    connection: Connection, wanted: Sequence[tuple[int, Mapping[str, float]]]
) -> None:
    """Reserve powders for jobs, all or none.

    A powder that the store does not know yet is reserved, too: nobody can say how much
    there is of it before a cell declares it.

    Args:
        connection: A writing transaction of the store.
        wanted: Jobs by id, with the mass of each powder that they will use [g].

    Raises:
        LimitError: If there is not enough of a powder, naming each.
        ConfigurationError: If a mass is negative or no number.
    """
    rows = [
        {"job_id": job_id, "powder": powder, "mass_g": mass_g}
        for job_id, powders in wanted
        for powder, mass_g in powders.items()
    ]
    if not rows:
        return
    asked: dict[str, float] = {}
    for _, powders in wanted:
        for powder, mass_g in powders.items():
            if not 0 <= mass_g < math.inf:
                raise ConfigurationError(
                    f"{mass_g} g of {powder} cannot be reserved; give 0 or more"
                )
            asked[powder] = asked.get(powder, 0.0) + mass_g
    free = free_stock(connection)
    lacking = [
        f"{asked[powder]:.6g} g of {powder} are asked for, "
        f"{max(free[powder], 0.0):.6g} g are free"
        for powder in sorted(asked)
        if powder in free and asked[powder] > free[powder] + _ROUNDING_G
    ]
    if lacking:
        raise LimitError(
            "; ".join(lacking) + " (in stock, and not reserved by jobs that wait or "
            "run); refill and say so (ppu stock POWDER --refill GRAMS), ask for less, "
            "or cancel others"
        )
    connection.execute(reservations.insert(), rows)


def ask_refill(
    connection: Connection,
    powder: str,
    mass_g: float,
    by: str,
    now: float,
    note: str = "",
) -> int | None:
    """Keep that a person added powder, or have the cell do it if one lives.

    Args:
        connection: A writing transaction of the store.
        powder: What was added.
        mass_g: How much [g].
        by: Who says so.
        now: Stamp of the request.
        note: Why, or from which batch; kept with it.

    Returns:
        Number of the request that waits for the cell; None if it is done.

    Raises:
        ConfigurationError: As :func:`refill`.
    """
    _check_refill(connection, powder, mass_g)
    if cells.is_owned(connection):
        said = {"powder": powder, "mass_g": mass_g, "note": note}
        return commands.request(connection, "refill", by, now, content=said)
    refill(connection, powder, mass_g, by, now, note)
    return None


def refill(
    connection: Connection,
    powder: str,
    mass_g: float,
    by: str,
    now: float,
    note: str = "",
) -> None:
    """Keep that a person added *mass_g* of *powder* to what was there [g].

    Raises:
        ConfigurationError: If there is no such powder, or the mass cannot be.
    """
    left_g = _check_refill(connection, powder, mass_g) + mass_g
    is_it = stock.c.powder == powder
    connection.execute(stock.update().where(is_it).values(mass_g=left_g))
    content = {"powder": powder, "added_g": mass_g, "mass_g": left_g}
    announce(connection, "stock", content | {"by": by, "note": note}, now)


def _check_refill(connection: Connection, powder: str, mass_g: float) -> float:
    """Return how much of *powder* there is [g], if it may be refilled."""
    there = {row.powder: row.mass_g for row in connection.execute(select(stock))}
    if powder not in there:
        raise ConfigurationError(
            f"there is no powder '{powder}' in the books, which a cell opens with its "
            f"lab file; {nearest(powder, there)}"
        )
    if not 0 < mass_g < math.inf:
        raise ConfigurationError(f"{mass_g} g cannot be added; give more than 0")
    return float(there[powder])


def use_stock(connection: Connection, powder: str, mass_g: float, job_id: int) -> None:
    """Deduct what a job took, from the stock and from what it had reserved.

    Real doses are not what was asked for to the last grain: if more was taken than the
    books have, nothing is left, and the newest reservations shrink.
    """
    is_it = stock.c.powder == powder
    left = connection.execute(select(stock.c.mass_g).where(is_it)).scalar_one()
    left = max(left - mass_g, 0.0)
    connection.execute(stock.update().where(is_it).values(mass_g=left))
    is_its = (reservations.c.powder == powder) & (reservations.c.job_id == job_id)
    reserved = connection.execute(select(reservations.c.mass_g).where(is_its)).scalar()
    if reserved is not None:
        rest = max(reserved - mass_g, 0.0)
        connection.execute(reservations.update().where(is_its).values(mass_g=rest))
    _fit_reservations(connection, powder, left)


def _fit_reservations(connection: Connection, powder: str, left_g: float) -> None:
    """Let the newest reservations of *powder* shrink to what there is."""
    of_powder = reservations.c.powder == powder
    total = select(func.sum(reservations.c.mass_g)).where(of_powder)
    if (connection.execute(total).scalar() or 0.0) <= left_g + _ROUNDING_G:
        return
    query = select(reservations).where(of_powder).order_by(reservations.c.job_id)
    for row in connection.execute(query).all():
        kept = min(row.mass_g, left_g)
        left_g -= kept
        if kept != row.mass_g:
            is_it = of_powder & (reservations.c.job_id == row.job_id)
            connection.execute(reservations.update().where(is_it).values(mass_g=kept))
