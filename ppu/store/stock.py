"""Stock: what is left of each powder, and what is allocated of it to waiting jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select

from ppu.core.errors import (
    ConfigurationError,
    NoResourceError,
    NotFoundError,
    nearest,
)
from ppu.core.remedies import Remedy, advise
from ppu.store import cells, commands
from ppu.store.events import EventKind, announce
from ppu.store.requests import CorrectStock, Refill
from ppu.store.schema import allocations, stock

if TYPE_CHECKING:
    from ppu.core.labfile import LabFile

__all__ = [
    "Powder",
    "allocate",
    "ask_correction",
    "ask_refill",
    "correct_stock",
    "declare_stock",
    "find_stock",
    "free_stock",
    "lacking",
    "refill",
    "use_stock",
]

_ROUNDING_G = 1e-9
_LEAST_G = 1e-6
_MOST_G = 1e9
"""No balance of a lab weighs less than the one; beside the other it is not lost."""


@dataclass(frozen=True)
class Powder:
    """How much of a powder there is, as the ledger says.

    Attributes:
        name: Its name in the lab file.
        mass_g: What should be there [g]; None before a cell has declared it.
        allocated_g: What jobs that wait or run will use of it [g].
    """

    name: str
    mass_g: float | None
    allocated_g: float


def declare_stock(
    connection: Connection, file: LabFile, masses_g: Mapping[str, float]
) -> None:
    """Enter the powders of a lab file that are not in it yet, with what there is [g].

    Jobs may have been submitted before: the oldest keep what was allocated to them.
    """
    known = set(connection.execute(select(stock.c.powder)).scalars())
    for name in file.stock:
        if name not in known:
            left = {"powder": name, "mass_g": masses_g[name]}
            connection.execute(stock.insert(), left)
            _fit_allocations(connection, name, masses_g[name])


def find_stock(connection: Connection) -> list[Powder]:
    """Return every powder that is known or allocated, by name."""
    there = {row.powder: row.mass_g for row in connection.execute(select(stock))}
    query = select(
        allocations.c.powder, func.sum(allocations.c.mass_g).label("mass_g")
    ).group_by(allocations.c.powder)
    allocated = {row.powder: row.mass_g for row in connection.execute(query)}
    return [
        Powder(name, there.get(name), allocated.get(name, 0.0))
        for name in sorted(there.keys() | allocated.keys())
    ]


def free_stock(connection: Connection) -> dict[str, float]:
    """Return how much of each known powder is allocated to nobody [g]."""
    allocated = func.coalesce(func.sum(allocations.c.mass_g), 0.0)
    query = (
        select(stock.c.powder, (stock.c.mass_g - allocated).label("free"))
        .outerjoin(allocations, allocations.c.powder == stock.c.powder)
        .group_by(stock.c.powder, stock.c.mass_g)
    )
    return {row.powder: row.free for row in connection.execute(query)}


def allocate(
    connection: Connection, wanted: Sequence[tuple[int, Mapping[str, float]]]
) -> None:
    """Allocate powders for jobs, all or none.

    A powder that the store does not know yet is allocated, too: nobody can say how much
    there is of it before a cell declares it.

    Args:
        connection: A writing transaction of the store.
        wanted: Jobs by id, with the mass of each powder that they will use [g].

    Raises:
        LimitError: If there is not enough of a powder, naming each.
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
            asked[powder] = asked.get(powder, 0.0) + mass_g
    free = free_stock(connection)
    lacking = [
        powder
        for powder in sorted(asked)
        if powder in free and asked[powder] > free[powder] + _ROUNDING_G
    ]
    if lacking:
        raise NoResourceError(
            "; ".join(
                f"{asked[powder]:.6g} g of {powder} are asked for, "
                f"{max(free[powder], 0.0):.6g} g are free"
                for powder in lacking
            )
            + " (in stock, and not allocated to jobs that wait or run); refill and say "
            "so, ask for less, or cancel others",
            advice=[advise(Remedy.REFILL, powder=powder) for powder in lacking],
            field=lacking[0],
        )
    connection.execute(allocations.insert(), rows)


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
        NotFoundError: As :func:`refill`.
        ConfigurationError: As :func:`refill`.
    """
    _check_refill(connection, powder, mass_g)
    if cells.is_owned(connection):
        wanted = Refill(powder=powder, mass_g=mass_g, note=note)
        return commands.request(connection, wanted, by, now)
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
        NotFoundError: If there is no such powder.
        ConfigurationError: If the mass cannot be.
    """
    left_g = _check_refill(connection, powder, mass_g) + mass_g
    _set_left(connection, powder, left_g)
    content = {"powder": powder, "added_g": mass_g, "mass_g": left_g}
    announce(connection, EventKind.STOCK, content | {"by": by, "note": note}, now)


def _check_refill(connection: Connection, powder: str, mass_g: float) -> float:
    """Return how much of *powder* there is [g], if it may be refilled."""
    left_g = _left_g(connection, powder)
    if not _LEAST_G <= mass_g <= _MOST_G:
        raise ConfigurationError(
            f"{mass_g:g} g of {powder} cannot be added; give more than 0, from "
            f"{_LEAST_G:g} to {_MOST_G:g} g"
        )
    return left_g


def ask_correction(
    connection: Connection,
    powder: str,
    mass_g: float,
    by: str,
    now: float,
    note: str,
) -> int | None:
    """Keep how much powder a person found, or have the cell do it if one lives.

    Args:
        connection: A writing transaction of the store.
        powder: What was found.
        mass_g: How much is really there [g].
        by: Who says so.
        now: Stamp of the request.
        note: Why; kept with it.

    Returns:
        Number of the request that waits for the cell; None if it is done.

    Raises:
        NotFoundError: As :func:`correct_stock`.
        ConfigurationError: As :func:`correct_stock`.
    """
    _check_correction(connection, powder, mass_g, note)
    if cells.is_owned(connection):
        wanted = CorrectStock(powder=powder, mass_g=mass_g, note=note)
        return commands.request(connection, wanted, by, now)
    correct_stock(connection, powder, mass_g, by, now, note)
    return None


def correct_stock(
    connection: Connection,
    powder: str,
    mass_g: float,
    by: str,
    now: float,
    note: str,
) -> float:
    """Keep that a person found *mass_g* of *powder*, whatever the ledger says [g].

    If more is allocated to jobs, the newest allocations shrink.

    Returns:
        How much more that is than was believed; < 0 if it is less [g].

    Raises:
        NotFoundError: If there is no such powder.
        ConfigurationError: If the mass cannot be, or nothing says why.
    """
    before_g = _check_correction(connection, powder, mass_g, note)
    lack_g = lacking(connection, powder, mass_g)
    _set_left(connection, powder, mass_g)
    _fit_allocations(connection, powder, mass_g)
    content = {"powder": powder, "believed_g": before_g, "mass_g": mass_g}
    content |= {"lacking_g": {str(job): lack for job, lack in lack_g.items()}}
    announce(connection, EventKind.STOCK, content | {"by": by, "note": note}, now)
    return mass_g - before_g


def _check_correction(
    connection: Connection, powder: str, mass_g: float, note: str
) -> float:
    """Return how much of *powder* was believed [g], if that may be corrected."""
    left_g = _left_g(connection, powder)
    if mass_g != 0 and not _LEAST_G <= mass_g <= _MOST_G:
        raise ConfigurationError(
            f"{mass_g:g} g of {powder} cannot be there; give 0 or more, from "
            f"{_LEAST_G:g} to {_MOST_G:g} g"
        )
    if not note.strip():
        raise ConfigurationError(
            "say why it is corrected", advice=[advise(Remedy.EXPLAIN)]
        )
    return left_g


def lacking(connection: Connection, powder: str, mass_g: float) -> dict[int, float]:
    """Return which jobs lack powder if only *mass_g* of it is there [g].

    Returns:
        How much each of them lacks of what was allocated to it [g], by job.
    """
    return {
        row.job_id: row.mass_g - kept
        for row, kept in _fitted(connection, powder, mass_g)
    }


def _left_g(connection: Connection, powder: str) -> float:
    """Return how much of *powder* there is, as the ledger says [g].

    Raises:
        NotFoundError: If there is no such powder.
    """
    there = {row.powder: row.mass_g for row in connection.execute(select(stock))}
    if powder not in there:
        raise NotFoundError(
            f"there is no powder '{powder}' in the ledger, which a cell opens with its "
            f"lab file; {nearest(powder, there)}"
        )
    return float(there[powder])


def _set_left(connection: Connection, powder: str, mass_g: float) -> None:
    is_it = stock.c.powder == powder
    connection.execute(stock.update().where(is_it).values(mass_g=mass_g))


def use_stock(connection: Connection, powder: str, mass_g: float, job_id: int) -> None:
    """Deduct what a job took, from the stock and from what was allocated to it.

    Real doses are not what was asked for to the last grain: if more was taken than the
    ledger has, nothing is left, and the newest allocations shrink.
    """
    is_it = stock.c.powder == powder
    left = connection.execute(select(stock.c.mass_g).where(is_it)).scalar_one()
    left = max(left - mass_g, 0.0)
    _set_left(connection, powder, left)
    is_its = (allocations.c.powder == powder) & (allocations.c.job_id == job_id)
    allocated = connection.execute(select(allocations.c.mass_g).where(is_its)).scalar()
    if allocated is not None:
        rest = max(allocated - mass_g, 0.0)
        connection.execute(allocations.update().where(is_its).values(mass_g=rest))
    _fit_allocations(connection, powder, left)


def _fit_allocations(connection: Connection, powder: str, left_g: float) -> None:
    """Let the newest allocations of *powder* shrink to what there is."""
    for row, kept in _fitted(connection, powder, left_g):
        is_it = (allocations.c.powder == powder) & (allocations.c.job_id == row.job_id)
        connection.execute(allocations.update().where(is_it).values(mass_g=kept))


def _fitted(
    connection: Connection, powder: str, left_g: float
) -> list[tuple[Row[Any], float]]:
    """Return the allocations of *powder* that must shrink to fit, and to what [g]."""
    of_powder = allocations.c.powder == powder
    query = select(allocations).where(of_powder).order_by(allocations.c.job_id)
    rows = connection.execute(query).all()
    if sum(row.mass_g for row in rows) <= left_g + _ROUNDING_G:
        return []
    shrunk = []
    for row in rows:
        kept = min(row.mass_g, left_g)
        left_g -= kept
        if kept != row.mass_g:
            shrunk.append((row, kept))
    return shrunk
