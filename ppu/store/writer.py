"""The one thread of a process that writes to the store; it commits in groups."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ppu.core.errors import StoreBusyError, StoreDamagedError, StoreError
from ppu.store.database import TRANSACTION, Database, ends_the_group, explain
from ppu.store.mark import HighWaterMark, newest
from ppu.store.soundness import unsound_rows

__all__ = ["Writer"]

T = TypeVar("T")

_Entry = tuple[Callable[[Connection], Any], "Future[Any]"]
_ASK_AGAIN_WALL_S: Final = 0.5
"""How often a server that is away is asked what became of a commit [s]."""
_Outcome = tuple["Future[Any]", Any, Exception | None]


@contextlib.contextmanager
def naming_damage(name: str, connection: Connection) -> Iterator[None]:
    """Say which row is damaged if that is why something cannot be understood.

    Raises:
        StoreDamagedError: If a row is not as anybody wrote it.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError) as exc:
        if not (found := unsound_rows(connection)):
            raise  # it is as it was written, and somebody else's mistake
        raise StoreDamagedError(
            f"store {name}: it is damaged; restore a backup: {'; '.join(found)}"
        ) from exc


class Writer:
    """Runs works one after the other, and commits all that wait at once.

    Args:
        database: Where to write.
        most_waiting: How many works may wait; more are refused at once.
        most_together: How many works share a commit at most.
    """

    def __init__(
        self, database: Database, most_waiting: int = 4096, most_together: int = 256
    ) -> None:
        self._database = database
        self._name = database.name
        self._most_together = most_together
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(most_waiting)
        self._closing = threading.Lock()
        self._is_closed = False
        self._ending = threading.Event()
        self._connection: Connection | None = None
        self.mark: HighWaterMark | None = None
        """Where to note how far the store has come, before anybody is told."""
        # A process that forgot to close must end all the same; whatever it still waits
        # for was not acknowledged.
        self._thread = threading.Thread(
            target=self._run, name="store writer", daemon=True
        )
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have *work* done in a transaction; the future ends after the commit.

        Works are done in the order in which they were submitted.

        Raises:
            StoreBusyError: If too many wait already; this one does not.
            StoreError: If the store is closed.
        """
        future: Future[T] = Future()
        with self._closing:  # nothing may come after the end
            if self._is_closed:
                raise StoreError(f"store {self._database.name}: it is closed")
            try:
                self._waiting.put_nowait((work, future))
            except queue.Full:
                raise StoreBusyError(
                    f"store {self._database.name}: {self._waiting.maxsize} changes "
                    "wait already; try again"
                ) from None
        return future

    def close(self) -> None:
        """Do what waits, then end the thread."""
        with self._closing:
            is_first, self._is_closed = not self._is_closed, True
        self._ending.set()
        if is_first:
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_ending = False
        while not is_ending:
            group, is_ending = self._take(self._most_together)
            if group:
                self._commit(group)
        self._disconnect()

    def _take(self, most: int) -> tuple[list[_Entry], bool]:
        """Wait for work; return all there is, and whether that was the last."""
        group: list[_Entry] = []
        entry = self._waiting.get()
        with contextlib.suppress(queue.Empty):
            while entry is not None:
                group.append(entry)
                if len(group) == most:
                    return group, False
                entry = self._waiting.get_nowait()
            return group, True
        return group, False

    def _commit(self, group: list[_Entry]) -> None:
        """Do and commit *group*, then tell everybody; a failed commit fails all."""
        # From here on a future can no longer be cancelled.
        group = [entry for entry in group if entry[1].set_running_or_notify_cancel()]
        outcomes: list[_Outcome] = []
        committing: Any = None
        mark = None
        try:
            if self._connection is None:
                self._connection = self._database.writing.connect()
            transaction = self._connection.begin()
            try:
                for work, future in group:
                    outcomes.append(_do(self._connection, work, future, self._name))
                mark = None if self.mark is None else newest(self._connection)
            except BaseException:
                transaction.rollback()
                raise
            committing = self._connection.info.get(TRANSACTION)
            transaction.commit()
        except Exception as exc:  # noqa: BLE001 - it is handed to all who wait
            self._disconnect()
            if committing is None or not self._was_committed(committing):
                self._refuse(group, exc)
                return
        if self.mark is not None and mark is not None:
            self.mark.note(mark)
        for future, result, failure in outcomes:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _was_committed(self, transaction: Any) -> bool:
        """Return what became of a commit that a server has not answered.

        Whoever did the work again would do it twice, so nobody is told before that is
        known, however long the server is away.
        """
        while True:
            with contextlib.suppress(SQLAlchemyError):
                return self._database.was_committed(transaction)
            if self._ending.wait(_ASK_AGAIN_WALL_S):
                return False  # the process ends, and acts on nothing any more

    def _refuse(self, group: list[_Entry], exc: Exception) -> None:
        """Tell those of *group* that nothing of it was kept."""
        error = explain(exc, self._database.name)
        error.__cause__ = exc
        for _, future in group:
            future.set_exception(error)
        if isinstance(error, StoreBusyError):
            self._refuse_waiting(error)

    def _refuse_waiting(self, error: StoreBusyError) -> None:
        """Refuse what came meanwhile: each more group would wait as long again."""
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._waiting.get_nowait()
                if entry is None:
                    self._waiting.put(None)
                    return
                if entry[1].set_running_or_notify_cancel():
                    entry[1].set_exception(error)

    def _disconnect(self) -> None:
        """Let go of a connection, which may be broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # What it complains about has been told, or there is nobody to tell.
            with contextlib.suppress(Exception):
                connection.close()


def _do(
    connection: Connection,
    work: Callable[[Connection], Any],
    future: Future[Any],
    name: str,
) -> _Outcome:
    """Do *work* in a savepoint, so that it fails alone."""
    try:
        with naming_damage(name, connection), connection.begin_nested():
            return future, work(connection), None
    except Exception as exc:
        if ends_the_group(exc):
            raise
        return future, None, exc
