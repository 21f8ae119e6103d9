"""Rows of a store that nobody wrote: what a failing disk or a stray hand left there.

SQLite notices torn pages, but not a bit that was flipped within a value. A value of
another type, text that is no text, JSON that is none: here each is found and named.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, Final

from sqlalchemy import Boolean, Column, Connection, Double, Integer, Table, inspect
from sqlalchemy.types import TypeEngine

from ppu.store.check import CUSTODY_KINDS, SAMPLE_STATES, STEP_STATES
from ppu.store.jobs import Effect, JobState
from ppu.store.schema import JsonText, metadata

__all__ = ["unsound_rows"]

_N_SHOWN: Final = 10
_WORDS: Final[dict[str, Collection[str]]] = {
    "jobs.state": [str(state) for state in JobState],
    "jobs.physical_effect": [str(effect) for effect in Effect],
    "steps.state": STEP_STATES,
    "samples.state": SAMPLE_STATES,
    "custody.kind": CUSTODY_KINDS,
}
"""Columns that hold one of a few words."""


def unsound_rows(connection: Connection) -> list[str]:
    """Return what is wrong in single values of the store; it stops after some.

    Args:
        connection: A transaction of the store.
    """
    there = set(inspect(connection).get_table_names())
    tables = [table for table in metadata.sorted_tables if table.name in there]
    found = (fault for table in tables for fault in _faults_of(connection, table))
    return list(islice(found, _N_SHOWN))


def _faults_of(connection: Connection, table: Table) -> Iterator[str]:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    key = [column.name for column in table.primary_key.columns]
    raw: Any = connection.connection.driver_connection
    is_sqlite = isinstance(raw, sqlite3.Connection)
    kept = raw.text_factory if is_sqlite else None
    if is_sqlite:
        raw.text_factory = bytes  # what is no text must not keep others from being read
    try:
        cursor = raw.cursor()
        cursor.execute(f"SELECT {names} FROM {table.name}")  # noqa: S608 - our own names
        for row in cursor:
            values = dict(zip(table.columns.keys(), row, strict=True))
            where = " ".join(_shown(values[name]) for name in key)
            for column in table.columns:
                if wrong := _wrong_with(column, values[column.name]):
                    yield f"row {where} of {table.name}: {column.name} {wrong}"
        cursor.close()
    finally:
        if is_sqlite:
            raw.text_factory = kept


def _shown(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text[:40]


def _wrong_with(column: Column[Any], value: Any) -> str:
    """Return what is wrong with a value, nothing if it may be there."""
    if value is None:
        return "" if column.nullable else "is missing"
    if (number := _number_of(column.type)) is not None:
        is_one = isinstance(value, number)
        return "" if is_one else f"is no number: {_shown(value)!r}"
    if not isinstance(value, bytes | str):
        return f"is no text: {_shown(value)}"
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(column.type, JsonText):
            json.loads(text)
    except UnicodeDecodeError:
        return f"is no text: {_shown(value)!r}"
    except ValueError as exc:
        return f"is no JSON ({exc})"
    words = _WORDS.get(f"{column.table.name}.{column.name}")
    if words is not None and text not in words:
        return f"is none of {', '.join(words)}: {_shown(text)!r}"
    return ""


def _number_of(kind: TypeEngine[Any]) -> Any:
    """Return what numbers a column holds, None if it holds text."""
    if isinstance(kind, Double):
        return int | float
    return int if isinstance(kind, Integer | Boolean) else None
