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

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from ppu.core.errors import (
    ConfigurationError,
    ConflictError,
    PPUError,
    StoreBusyError,
    StoreDamagedError,
    StoreDiskError,
    StoreError,
)

__all__ = [
    "BUSY_WALL_S",
    "TRANSACTION",
    "Database",
    "ends_the_group",
    "explain",
    "explained",
    "making_file",
    "sync_folder",
]

TRANSACTION = "transaction"
"""Under which name a connection to a server knows the number of its transaction."""

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

_SERVER: dict[str, Any] = {
    "connect_timeout": 10,
    # A server that has gone without a word is not waited for by the network's rules.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How a connection to a server notices that nobody is there (s, s, count, ms)."""

_POSTGRES_REFUSALS = (
    "authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "no password supplied",
)
"""What a server says that is there and will not change its mind by itself."""

_SQLITE_HEADER = b"SQLite format 3\x00"


def _advice(exc: DBAPIError) -> tuple[type[StoreError], str] | None:
    """Return what a database's complaint means, None if it is about the SQL."""
    original: Any = exc.orig
    if isinstance(original, sqlite3.Error):
        if "Could not decode" in str(original):  # it has no code of its own
            return _SQLITE_ADVICE[sqlite3.SQLITE_CORRUPT]
        code = getattr(original, "sqlite_errorcode", None)
        return None if code is None else _SQLITE_ADVICE.get(code & 0xFF)
    state = getattr(original, "sqlstate", None)
    if state is None:  # it was lost, or none could be made
        is_lost = exc.connection_invalidated or isinstance(exc, OperationalError)
        is_refused = any(word in str(original) for word in _POSTGRES_REFUSALS)
        return _POSTGRES_ADVICE["08"] if is_lost and not is_refused else None
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
    except UnicodeDecodeError as exc:  # SQLite's complaint quotes what is damaged
        raise StoreDamagedError(
            f"store {name}: it is damaged; restore a backup: its schema is no text"
        ) from exc


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
        called: What to call it in errors; by default *where*, without its password.

    Raises:
        ConfigurationError: If *where* names neither.
        StoreDamagedError: If the file is there and is no store, or is cut short.
    """

    def __init__(
        self,
        where: str | Path,
        busy_wall_s: float = BUSY_WALL_S,
        called: str | Path | None = None,
    ) -> None:
        self.path: Path | None = None
        if isinstance(where, str) and "://" in where:
            self.name, url = self._read_url(where)
        else:
            self.path = Path(where)
            self.name, url = str(where), f"sqlite:///{where}"
        if called is not None:
            self.name = str(called)
        if self.path is not None:
            self._find_file(self.path)
        options = _SERVER if self.path is None else {"check_same_thread": False}
        try:
            # A connection that failed is not used again, so none is kept.
            self.writing = create_engine(url, poolclass=NullPool, connect_args=options)
            self.reading = create_engine(
                url,
                connect_args=options,
                # One that a server has ended while nobody used it is made anew.
                pool_pre_ping=self.path is None,
            )
            self.locking = create_engine(
                url,
                poolclass=NullPool,
                connect_args=options,
                isolation_level="AUTOCOMMIT",
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

    def was_committed(self, transaction: int) -> bool:
        """Return whether a server has kept a transaction whose end nobody heard of.

        Raises:
            SQLAlchemyError: If the server does not say so now.
        """
        query = text("SELECT txid_status(:transaction)")
        while True:
            with self.reading.begin() as connection:
                said = connection.execute(query, {"transaction": transaction}).scalar()
            if said != "in progress":
                return said == "committed"

    def close(self) -> None:
        """Close every connection that nobody uses."""
        self.writing.dispose()
        self.reading.dispose()


def _make_file(path: Path) -> None:
    """Make an empty SQLite database that is there whole or not at all."""
    with (
        contextlib.suppress(ConflictError),
        making_file(path) as made,
        contextlib.closing(sqlite3.connect(made)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def making_file(path: Path) -> Iterator[Path]:
    """Give a path beside *path*; what was made there is put in place if all went well.

    Raises:
        ConflictError: If another process was quicker; its file stays as it is.
        ConfigurationError: If there can be no such file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    except OSError as exc:
        raise ConfigurationError(f"store {path}: {exc.strerror}") from exc
    with folder:
        made = Path(folder.name) / path.name
        yield made
        try:
            os.link(made, path)
        except FileExistsError:
            raise ConflictError(
                f"store {path}: another process has just made it; say this again"
            ) from None
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have on the disk what a folder contains."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
        sql = (
            "SELECT txid_current(), "
            "pg_advisory_xact_lock(5263445, hashtext(current_schema()))"
        )
    else:
        sql = "SELECT 1"  # the snapshot is of the first statement

    def begun(connection: Connection) -> None:
        begun = connection.exec_driver_sql(sql)
        if is_writing and not is_sqlite:
            connection.info[TRANSACTION] = begun.one()[0]

    return begun
