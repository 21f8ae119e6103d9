"""The store: one SQL database that keeps what must not be lost."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ppu.core.errors import (
    ConfigurationError,
    NotFoundError,
    StoreBusyError,
    StoreDamagedError,
    StoreDiskError,
    StoreError,
)
from ppu.core.labtime import LabTimeLoop
from ppu.core.notices import tell
from ppu.store.check import find_faults
from ppu.store.database import (
    BUSY_WALL_S,
    Database,
    explained,
    sync_folder,
)
from ppu.store.mark import HighWaterMark
from ppu.store.schema import (
    SCHEMA_VERSION,
    NoStoreError,
    known_version_of,
    prepare,
)
from ppu.store.soundness import unsound_rows
from ppu.store.writer import Writer, naming_damage

__all__ = ["LEAST_FREE_BYTES", "Store", "file_of"]

LEAST_FREE_BYTES = 500_000_000
"""Below this low-water mark no new work is taken."""

T = TypeVar("T")

_N_FAULTS = 10


class Store:
    """A store in an SQLite file or in PostgreSQL.

    Whatever :meth:`write` has returned from is on the disk. All that one process
    writes goes through one thread; several processes take turns.

    Args:
        where: The path of an SQLite file, which is made if it is not there, or
            ``sqlite:///path``, or ``postgresql://user@host/database``.
        is_verified: Whether an SQLite file is read through for damage first.
        busy_wall_s: How long a change waits for other processes before it is refused.
            SQLite does not queue them, so a person's command should have patience
            while a cell writes without pause.
        may_upgrade: Whether the tables of an older PPU are brought up to date; if not,
            only what is known of its cells may be read and written. An SQLite file is
            copied beside itself before.
        called: What to call it in errors; by default *where*, without its password.

    Raises:
        ConfigurationError: If *where* is no store, or one of a newer PPU.
        StoreDamagedError: If the file is torn.
        StoreBusyError: If it must be made or upgraded and another process writes, or
            a cell of an older PPU owns it.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        is_verified: bool = True,
        busy_wall_s: float = BUSY_WALL_S,
        may_upgrade: bool = True,
        called: str | Path | None = None,
    ) -> None:
        self.where = where
        """As it was given: a path, or a URL with its password."""
        self._database = Database(where, busy_wall_s, called)
        try:
            with explained(self.name):
                if is_verified:
                    self._verify()
                try:
                    self._prepare(may_upgrade=may_upgrade)
                except NoStoreError as exc:
                    raise ConfigurationError(f"store {self.name}: {exc}") from exc
        except BaseException:
            self._database.close()
            raise
        self._writer = Writer(self._database)
        self._locking: Connection | None = None
        self._owning = contextlib.ExitStack()

    def keep_mark(self, mark: HighWaterMark | None) -> None:
        """Note from now on how far the store has come, before anything is acknowledged.

        Args:
            mark: Where; None to note nothing any more.
        """
        self._writer.mark = mark

    @property
    def is_file(self) -> bool:
        """Whether it is a file, which the operating system locks for its owner."""
        return self._database.path is not None

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""
        return self._database.name

    @property
    def lock_path(self) -> Path | None:
        """The file that the cell of an SQLite file keeps locked; None on a server."""
        path = self._database.path
        return None if path is None else _lock_path(path)

    def _prepare(self, *, may_upgrade: bool) -> None:
        """Make or upgrade the tables; one that is up to date is only looked at.

        A cell works with the tables that it found: while one owns the store, they
        stay as they are.
        """
        with self._database.reading.begin() as connection:
            version = known_version_of(connection)
        if version == SCHEMA_VERSION or (version and not may_upgrade):
            return
        with contextlib.ExitStack() as ends, self._database.writing.begin() as writing:
            # Another process may have upgraded it while this one waited to write.
            version = known_version_of(writing)
            is_old = 0 < version < SCHEMA_VERSION
            if is_old and not self._lock(ends):
                raise StoreBusyError(
                    f"store {self.name}: the cell that owns it is of an older PPU and "
                    "needs its tables as they are; drain or end that cell first "
                    "(SIGTERM drains it), then say this again"
                )
            if is_old and self._database.path is not None:
                self._back_up_before_upgrade(self._database.path, version)
            prepare(writing)

    def _back_up_before_upgrade(self, path: Path, version: int) -> None:
        """Copy the file of an older PPU, which that can still use.

        Raises:
            StoreError: If there is no room for a copy; nothing was upgraded.
            ConfigurationError: If it cannot be written there.
        """
        copy = _free_name(path, f".schema-{version}", ".backup")
        self.backup(copy)
        tell(
            f"store {self.name} is of an older PPU (schema {version}) and is brought "
            f"up to date; it was copied to {copy} before"
        )

    def _verify(self) -> None:
        faults = self._faults_of_the_file()
        if faults:
            raise StoreDamagedError(
                f"store {self.name}: it is damaged; restore a backup: "
                + "; ".join(faults)
            )

    def _faults_of_the_file(self) -> list[str]:
        if self._database.path is None:
            return []  # a server sees to its own pages
        with self._database.reading.begin() as connection:
            integrity = connection.execute(text(f"PRAGMA integrity_check({_N_FAULTS})"))
            faults = [str(row[0]).replace("\n", " ") for row in integrity]
            if faults != ["ok"]:
                return faults
            links = connection.execute(text("PRAGMA foreign_key_check")).all()
            return [
                f"row {row[1]} of {row[0]} needs a row of {row[2]} that is not there"
                for row in links[:_N_FAULTS]
            ]

    # -- writing -------------------------------------------------------------------

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have *work* done by the writer; the future ends after the commit.

        Works are done in the order in which they were submitted, each in a savepoint:
        one that raises fails alone. If the commit fails, so do all that were to
        share it.

        Raises:
            StoreBusyError: If too much waits already; this work does not.
            StoreError: If the store is closed.
        """
        return self._writer.submit(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in a transaction; return its result once it is on the disk.

        It blocks: on a loop, use :meth:`awrite`.

        Raises:
            StoreError: If nothing was kept; the text says what to do.
        """
        return self.submit(work).result()

    async def awrite(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in a transaction; return its result once it is on the disk.

        Lab time does not jump meanwhile. A caller that is cancelled takes nothing
        back: the work is done all the same.

        Raises:
            StoreError: If nothing was kept; the text says what to do.
        """
        loop = asyncio.get_running_loop()
        future = self.submit(work)
        answer = asyncio.wrap_future(future)
        if isinstance(loop, LabTimeLoop):
            thaw = loop.freeze("the store commits")
            # Comes after the answer's own callback: time starts with it on the loop.
            future.add_done_callback(lambda _: thaw())
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            # Nobody asks any more how it ends, and asyncio should not complain of that.
            answer.add_done_callback(lambda end: end.cancelled() or end.exception())
            raise

    # -- reading -------------------------------------------------------------------

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a transaction that sees the store as it is at its first question.

        Raises:
            StoreError: If the database cannot be read.
        """
        with (
            explained(self.name),
            self._database.reading.begin() as connection,
            naming_damage(self.name, connection),
        ):
            yield connection

    async def aread(self, query: Callable[[Connection], T]) -> T:
        """Return the result of *query*, which must not write; for a loop.

        Lab time does not jump meanwhile.

        Raises:
            StoreError: If the database cannot be read.
        """

        def read() -> T:
            with self.read() as connection:
                return query(connection)

        loop = asyncio.get_running_loop()
        if not isinstance(loop, LabTimeLoop):
            return await loop.run_in_executor(None, read)
        with loop.freezing("the store is read"):
            return await loop.run_in_executor(None, read)

    def check(self) -> list[str]:
        """Return what is wrong in the store, a sentence each; empty if nothing is."""
        try:
            with explained(self.name):
                faults = self._faults_of_the_file()
                with self._database.reading.begin() as connection:
                    faults += unsound_rows(connection)
                    # What asks for more would stumble over them.
                    return faults or find_faults(connection)
        except StoreError as exc:
            return [str(exc)]

    def backup(self, path: Path) -> None:
        """Copy the store as it is now to a new file, while others read and write.

        Raises:
            ConfigurationError: If *path* is there already or cannot be written, or if
                the store is in PostgreSQL.
            StoreError: If the copy failed; nothing is left at *path*.
        """
        if self._database.path is None:
            raise ConfigurationError(
                f"store {self.name}: copy it with pg_dump, which PostgreSQL brings"
            )
        if path.exists():
            raise ConfigurationError(f"{path} is there already; name another file")
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._database.reading.connect() as connection:
                source = connection.connection.driver_connection
                with contextlib.closing(sqlite3.connect(part)) as target:
                    source.backup(target)  # type: ignore[union-attr]  # it is sqlite3's
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except sqlite3.Error as exc:
            raise StoreDiskError(f"cannot copy to {path}: {exc}") from exc
        except OSError as exc:
            raise ConfigurationError(f"cannot write {path}: {exc.strerror}") from exc
        finally:
            part.unlink(missing_ok=True)

    @staticmethod
    def restore(where: str | Path, copy: Path) -> Path | None:
        """Put a copy in the place of a store; what was there is kept beside it.

        The next cell notices if the copy does not know all that was done, and waits
        for a person.

        Args:
            where: The store, or where one shall be.
            copy: A file that :meth:`backup` has made.

        Returns:
            Where the store is now that was there, None if none was.

        Raises:
            ConfigurationError: If the store is in PostgreSQL, or *copy* is of a newer
                PPU or of something else.
            NotFoundError: If there is no *copy*.
            StoreBusyError: If a cell owns the store; nothing was changed.
            StoreDamagedError: If the copy is damaged; nothing was changed.
        """
        file = file_of(where)
        if file is None:
            raise ConfigurationError(
                f"store {where}: restore it with pg_restore or psql, which PostgreSQL "
                "brings, while no cell runs"
            )
        if not copy.exists():
            raise NotFoundError(f"there is no {copy}")
        with contextlib.ExitStack() as ends:
            if not Store._lock_file(_lock_path(file), ends):
                raise StoreBusyError(
                    f"store {file}: a cell owns it; end that first (drain it), then "
                    "restore"
                )
            made = file.with_name(file.name + ".restored")
            made.unlink(missing_ok=True)
            try:
                with Store(copy, may_upgrade=False) as source:
                    source.backup(made)
                return _replace(file, made)
            finally:
                made.unlink(missing_ok=True)

    # -- room ----------------------------------------------------------------------

    @property
    def free_bytes(self) -> int | None:
        """Room on the disk of an SQLite file; None if a server sees to its own."""
        path = self._database.path
        return None if path is None else shutil.disk_usage(path.parent).free

    def check_room(self, least_bytes: int = LEAST_FREE_BYTES) -> None:
        """Refuse new work while work that goes on may still need the room.

        Raises:
            StoreDiskError: If less than *least_bytes* are free.
        """
        free = self.free_bytes
        if free is not None and free < least_bytes:
            raise StoreDiskError(
                f"store {self.name}: {free / 1e6:.0f} MB are free on its disk, new "
                f"jobs need {least_bytes / 1e6:.0f} MB; free space, then submit again. "
                "Jobs that wait or run go on"
            )

    # -- owning --------------------------------------------------------------------

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Be the only cell of this store while the block runs.

        The operating system, or the server, ends this with the process, however it
        dies. Others may go on reading and writing rows. A server that was away has
        forgotten it: :meth:`own_again`.

        Raises:
            StoreBusyError: If another cell owns the store.
            ConfigurationError: If a newer PPU has upgraded it since it was opened.
        """
        with contextlib.ExitStack() as ends:
            if not self._lock(ends):
                raise StoreBusyError(
                    f"store {self.name}: another cell owns it; stop that one first"
                )
            with self.read() as connection:
                known_version_of(connection)
            with contextlib.ExitStack() as self._owning:
                yield

    def own_again(self) -> None:
        """Take the lock of a server again if that has been away, within :meth:`own`.

        Raises:
            StoreBusyError: If the server is still away, or another cell has the lock.
        """
        if self.is_file:
            return
        with explained(self.name):
            if self._is_locked_on_server():
                return
            self._owning.close()
            if not self._lock_on_server(self._owning):
                raise StoreBusyError(
                    f"store {self.name}: another cell has it while this one was away"
                )

    def _is_locked_on_server(self) -> bool:
        """Whether the connection that has the lock still lives."""
        connection = self._locking
        if connection is None or connection.closed:
            return False
        try:
            connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def _lock(self, ends: contextlib.ExitStack) -> bool:
        """Lock the store for an owner until *ends*, unless it is; return whether."""
        if self.lock_path is not None:
            return self._lock_file(self.lock_path, ends)
        with explained(self.name):
            return self._lock_on_server(ends)

    @staticmethod
    def _lock_file(path: Path, ends: contextlib.ExitStack) -> bool:
        try:
            file = ends.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise ConfigurationError(f"cannot write {path}: {exc.strerror}") from exc
        return True

    def _lock_on_server(self, ends: contextlib.ExitStack) -> bool:
        connection = self._database.locking.connect()
        ends.callback(_let_go, connection)
        self._locking = connection
        connection.execute(text("SET lock_timeout = '2s'"))
        try:
            connection.execute(text(_OWN))
        except DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) == _WAITED_IN_VAIN:
                return False
            raise
        return True

    def close(self) -> None:
        """Do what waits to be written, then close the database."""
        self._writer.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def file_of(where: str | Path) -> Path | None:
    """Return the file of the store *where*; None if it is no file.

    Example:
        >>> file_of("sqlite:///lab.sqlite").as_posix()
        'lab.sqlite'
    """
    if isinstance(where, Path) or "://" not in where:
        return Path(where)
    with contextlib.suppress(ArgumentError):  # whoever opens it is told
        url = make_url(where)
        if url.get_backend_name() == "sqlite" and url.database:
            return Path(url.database)
    return None


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + "-cell")


def _free_name(path: Path, what: str, end: str = "") -> Path:
    """Return a name beside *path* that nothing has yet."""
    numbers = (f".{n}" for n in itertools.count(2))
    names = (f"{path.name}{what}{n}{end}" for n in itertools.chain([""], numbers))
    return next(one for name in names if not (one := path.with_name(name)).exists())


def _replace(path: Path, made: Path) -> Path | None:
    """Put *made* in the place of the store *path*; return where that one is now."""
    logs = [path.with_name(path.name + end) for end in ("-wal", "-shm")]
    kept = None
    if path.exists():
        kept = _free_name(path, ".before-restore")
        os.link(path, kept)
        for log in logs:
            if log.exists():
                # Without its log it would not be what it was.
                os.link(log, kept.with_name(kept.name + log.name[len(path.name) :]))
    for log in logs:
        log.unlink(missing_ok=True)
    made.replace(path)
    sync_folder(path.parent)
    return kept


def _let_go(connection: Connection) -> None:
    """Close a connection, which may have been lost with its server."""
    with contextlib.suppress(SQLAlchemyError):
        connection.invalidate()
    connection.close()


# Beside the lock of writers, which has the number before. It is waited for, as a server
# notices a little later that a cell's connection has ended.
_OWN = "SELECT pg_advisory_lock(5263446, hashtext(current_schema()))"
_WAITED_IN_VAIN = "55P03"
"""SQLSTATE ``lock_not_available`` (PostgreSQL manual, appendix A)."""
