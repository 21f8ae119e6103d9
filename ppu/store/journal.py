"""Documents and steps of a run, committed before anything else happens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from ppu.core.errors import ConfigurationError

__all__ = ["Journal"]

SCHEMA_VERSION = 1

metadata = MetaData()

journal_entries = Table(
    "journal",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("lab_time_s", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("content", Text, nullable=False),
)


def _make_durable(connection: DBAPIConnection, _: Any) -> None:
    """Let SQLite keep what it acknowledged even if the power goes."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    cursor.close()


class Journal:
    """An append-only record in SQLite with one global sequence.

    Entries are of kind ``document``, ``step_begin``, ``step_end`` or ``note``. Each is
    committed, and synced to the disk, before :meth:`add` returns.

    Args:
        path: The database file; it is made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(
                f"cannot write to {path.parent}: {exc.strerror}"
            ) from exc
        self._engine = create_engine(
            f"sqlite:///{path}", connect_args={"check_same_thread": False}
        )
        event.listen(self._engine, "connect", _make_durable)
        try:
            metadata.create_all(self._engine)
            self._connection: Connection = self._engine.connect()
        except SQLAlchemyError as exc:
            raise ConfigurationError(f"cannot keep a journal in {path}: {exc}") from exc
        self._insert = journal_entries.insert()

    def add(self, lab_time_s: float, kind: str, content: Mapping[str, Any]) -> int:
        """Append an entry, commit it, and return its sequence number."""
        text = json.dumps(content, separators=(",", ":"), default=_encode)
        with self._connection.begin():
            result = self._connection.execute(
                self._insert,
                {"lab_time_s": lab_time_s, "kind": kind, "content": text},
            )
            key = result.inserted_primary_key
        return int(key[0]) if key is not None else 0

    def entries(self, *kinds: str) -> Iterator[tuple[int, float, str, dict[str, Any]]]:
        """Yield sequence, lab time, kind and content of all entries of *kinds*."""
        query = select(journal_entries).order_by(journal_entries.c.sequence)
        if kinds:
            query = query.where(journal_entries.c.kind.in_(kinds))
        with self._connection.begin():
            for row in self._connection.execute(query):
                yield row.sequence, row.lab_time_s, row.kind, json.loads(row.content)

    def export_documents(self, path: Path) -> None:
        """Write all documents to *path*, one ``{"name", "doc"}`` object a line.

        Raises:
            ConfigurationError: If it cannot be written.
        """
        temporary = path.with_suffix(".part")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                for _, _, _, content in self.entries("document"):
                    line = json.dumps(
                        {"name": content["name"], "doc": content["document"]},
                        separators=(",", ":"),
                    )
                    file.write(line + "\n")
            temporary.replace(path)
        except OSError as exc:
            raise ConfigurationError(
                f"cannot write {exc.filename or path}: {exc.strerror}"
            ) from exc

    def close(self) -> None:
        """Close the database; its write-ahead log is folded in."""
        self._connection.close()
        self._engine.dispose()


def _encode(value: Any) -> Any:
    """Return numpy values and enumerations as plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "value"):
        return value.value
    raise TypeError(f"cannot journal a {type(value).__name__}")
