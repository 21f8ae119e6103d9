"""The two databases that may hold a store, and what their complaints mean.

SQLite syncs each commit to the disk (``synchronous=FULL``) and takes its write lock
where a transaction begins, because one that reads first and writes later is refused at
once if another wrote in between. PostgreSQL takes one advisory lock per schema at the
same place. So there is one writer at a time, and numbers are committed in order.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ppu.core.errors import (
    ConfigurationError,
    PPUError,
    StoreBusyError,
    StoreDamagedError,
    StoreDiskError,
    StoreError,
)

__all__ = ["BUSY_WALL_S", "Database", "ends_the_group", "explain", "explained"]

BUSY_WALL_S = 0.5
"""How long a writer waits for another process before it is refused, by default."""

_SQLITE_ADVICE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreBusyError, "another process writes; try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusyError, "another process writes; try again"),
    sqlite3.SQLITE_FULL: (StoreDiskError, "the disk is full; free space"),
    sqlite3.SQLITE_IOERR: (StoreDiskError, "the disk is full or fails; see to it"),
    sqlite3.SQLITE_READONLY: (StoreDiskError, "it may not be written; see its rights"),
    sqlite3.SQLITE_CANTOPEN: (StoreDiskError, "it cannot be opened; see its folder"),
    sqlite3.SQLITE_CORRUPT: (StoreDamagedError, "it is damaged; restore a backup"),
    sqlite3.SQLITE_NOTADB: (StoreDamagedError, "it is no database; restore a backup"),
}

_POSTGRES_ADVICE: dict[str, tuple[type[StoreError], str]] = {
    "55P03": (StoreBusyError, "another process writes; try again"),
    "40": (StoreBusyError, "another process was in the way; try again"),
    "53": (StoreDiskError, "the server is out of disk or memory; see to it"),
    "57": (StoreBusyError, "the server is stopping or starting; try again"),
    "58": (StoreDiskError, "the server's disk fails; see to it"),
    "08": (StoreBusyError, "the server cannot be reached; see that it runs"),
    "XX": (StoreDamagedError, "the server found damage; restore a backup"),
}

_SQLITE_HEADER = b"SQLite format 3\x00"


def _advice(exc: DBAPIError) -> tuple[type[StoreError], str] | None:
    """Return what a database's complaint means, None if it is about the SQL."""
    original: Any = exc.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return None if code is None else _SQLITE_ADVICE.get(code & 0xFF)
    state = getattr(original, "sqlstate", None)
    if state is None:  # the server did not answer at all
        return _POSTGRES_ADVICE["08"] if exc.connection_invalidated else None
    return _POSTGRES_ADVICE.get(state) or _POSTGRES_ADVICE.get(state[:2])


def ends_the_group(exc: Exception) -> bool:
    """Whether *exc* came from the disk or the server and not from one caller's SQL."""
    return isinstance(exc, DBAPIError) and (
        exc.connection_invalidated or _advice(exc) is not None
    )


def explain(exc: Exception, name: str) -> PPUError:
    """Return what *exc* means for whoever uses the store *name*."""
    if isinstance(exc, PPUError):
        return exc
    advice = _advice(exc) if isinstance(exc, DBAPIError) else None
    kind, what_to_do = advice or (StoreError, "nothing was kept")
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return kind(f"store {name}: {str(cause).strip()}: {what_to_do}")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Raise complaints of a database as errors of PPU's tree."""
    try:
        yield
    except SQLAlchemyError as exc:
        raise explain(exc, name) from exc


class Database:
    """Where a store is, and its engines.

    Attributes:
        name: How people know it: the path, or the URL without its password.
        path: The file, or None if the store is in PostgreSQL.
        writing: Begins transactions that exclude other writers.
        reading: Begins transactions that see one moment and cannot write.
        locking: Has no transactions; for locks that last as long as a connection.

    Args:
        where: The path of an SQLite file, or a URL of SQLite or PostgreSQL.
        busy_wall_s: How long to wait for another process that writes.

    Raises:
        ConfigurationError: If *where* names neither.
        StoreDamagedError: If the file is there and is no store, or is cut short.
    """

    def __init__(self, where: str | Path, busy_wall_s: float = BUSY_WALL_S) -> None:
        self.path: Path | None = None
        if isinstance(where, str) and "://" in where:
            self.name, url = self._read_url(where)
        else:
            self.path = Path(where)
            self.name, url = str(where), f"sqlite:///{where}"
        if self.path is not None:
            self._find_file(self.path)
        options = {"check_same_thread": False} if self.path is not None else {}
        try:
            # A connection that failed is not used again, so none is kept.
            self.writing = create_engine(url, poolclass=NullPool, connect_args=options)
            self.reading = create_engine(url, connect_args=options)
            self.locking = create_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            )
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"store {self.name}: PostgreSQL needs psycopg; "
                "pip install 'ppu-lab[postgres]'"
            ) from exc
        _set_up(self.writing, busy_wall_s, is_writing=True)
        _set_up(self.reading, busy_wall_s, is_writing=False)

    def _read_url(self, where: str) -> tuple[str, str]:
        try:
            url = make_url(where)
        except ArgumentError as exc:
            raise ConfigurationError(f"store {where!r}: this is no URL") from exc
        if url.get_backend_name() == "sqlite" and url.database:
            self.path = Path(url.database)
        elif url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        else:
            raise ConfigurationError(
                f"store {url.render_as_string()}: give the path of an SQLite file, or "
                "sqlite:///path, or postgresql://user@host/database"
            )
        return url.render_as_string(), url.render_as_string(hide_password=False)

    def _find_file(self, path: Path) -> None:
        """See that there is a file and that none of it is missing.

        A new one is made beside and linked into place, so an empty file is never one
        that was just begun. SQLite would take it for new and drop its log.
        """
        try:
            if not path.exists():
                _make_file(path)
            with path.open("rb") as file:
                header = file.read(100)
            size = path.stat().st_size
        except OSError as exc:
            raise ConfigurationError(f"store {path}: {exc.strerror}") from exc
        page = int.from_bytes(header[16:18], "big")
        page = 65536 if page == 1 else page  # does not fit into two bytes
        n_pages = int.from_bytes(header[28:32], "big")
        if not header.startswith(_SQLITE_HEADER) or len(header) < 100:
            raise StoreDamagedError(
                f"store {path}: this is no SQLite file ({size} bytes); restore a backup"
            )
        if size < n_pages * page:
            raise StoreDamagedError(
                f"store {path}: it is cut short, {size} bytes are left of at least "
                f"{n_pages * page}; restore a backup"
            )

    def close(self) -> None:
        """Close every connection that nobody uses."""
        self.writing.dispose()
        self.reading.dispose()


def _make_file(path: Path) -> None:
    """Make an empty SQLite database that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(prefix=path.name, suffix=".new", dir=path.parent)
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.link(made, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        Path(made).unlink()


def _set_up(engine: Engine, busy_wall_s: float, *, is_writing: bool) -> None:
    """Have *engine* begin transactions of the right kind."""
    is_sqlite = engine.dialect.name == "sqlite"
    connected = _connect_sqlite if is_sqlite else _connect_postgres
    event.listen(engine, "connect", connected(int(busy_wall_s * 1000), is_writing))
    event.listen(engine, "begin", _begin(is_sqlite, is_writing))


def _connect_sqlite(busy_ms: int, is_writing: bool) -> Any:
    def connected(connection: DBAPIConnection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={busy_ms}",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={'OFF' if is_writing else 'ON'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        if is_writing:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    return connected


def _connect_postgres(busy_ms: int, is_writing: bool) -> Any:
    def connected(connection: DBAPIConnection, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {busy_ms}")
        if not is_writing:
            cursor.execute(
                "SET SESSION CHARACTERISTICS AS TRANSACTION "
                "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
            )
        cursor.close()
        connection.commit()

    return connected


def _begin(is_sqlite: bool, is_writing: bool) -> Any:
    if is_sqlite:
        sql = "BEGIN IMMEDIATE" if is_writing else "BEGIN"
    elif is_writing:
        # 0x505055 is "PPU"; other programs may lock numbers of their own.
        sql = "SELECT pg_advisory_xact_lock(5263445, hashtext(current_schema()))"
    else:
        sql = "SELECT 1"  # the snapshot is of the first statement

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(sql)

    return begun
