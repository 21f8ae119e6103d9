"""Wakes a cell up when something was written for it: a datagram without content.

The store says what there is to do. The datagram only says that somebody has written, so
one that is lost or comes twice does no harm, and a cell looks by itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ppu.core.errors import ConfigurationError, StoreBusyError

__all__ = ["WakeSocket", "socket_path", "wake"]

_LONGEST_PATH: Final = 100
"""Bytes that fit into a socket's address on every system."""


def socket_path(where: str | Path) -> Path:
    """Return the socket of the cell that works on the store *where*.

    It is beside an SQLite file. Where that cannot be, on a server or at the end of a
    long path, it is in the user's runtime folder, named by what the store is called.

    Example:
        >>> socket_path("/data/lab.sqlite").as_posix()
        '/data/lab.sqlite.wake'
    """
    called = str(where)
    if "://" in called:
        with contextlib.suppress(ArgumentError):  # whoever opens it is told
            url = make_url(called)
            if url.get_backend_name() == "sqlite" and url.database:
                return socket_path(url.database)
            called = url.render_as_string()  # who connects, not by which password
    else:
        path = Path(called).absolute()
        beside = path.with_name(path.name + ".wake")
        if len(os.fsencode(beside)) <= _LONGEST_PATH:
            return beside
        called = str(path)
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = hashlib.sha256(called.encode()).hexdigest()[:16]
    return Path(folder) / f"ppu-{os.getuid()}-{name}.wake"


def wake(where: str | Path) -> bool:
    """Wake the cell of the store *where*; return whether one listens here."""
    address = str(socket_path(where))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"\n", address)
        except BlockingIOError:
            return True  # it is being woken so often that nobody needs this one
        except OSError:
            return False
    return True


class WakeSocket:
    """The cell's end: calls back when somebody has written to the store.

    Args:
        where: The store, as it was opened.
    """

    def __init__(self, where: str | Path) -> None:
        self.path = socket_path(where)
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inode = 0

    def start(
        self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]
    ) -> None:
        """Listen; call it on the thread of *loop*, or before that runs.

        Args:
            loop: Where *callback* is called.
            callback: Called once for all datagrams that wait.

        Raises:
            StoreBusyError: If another cell listens there.
            ConfigurationError: If there can be no socket at its place.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listening.setblocking(False)
            # The mode of the file that is made: others may not wake this cell.
            os.fchmod(listening.fileno(), 0o600)
            self._bind(listening)
        except BaseException:
            listening.close()
            raise
        self._inode = self.path.stat().st_ino
        self._socket, self._loop = listening, loop

        def woken() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listening.recv(16)
            callback()

        loop.add_reader(listening.fileno(), woken)

    def _bind(self, listening: socket.socket) -> None:
        try:
            try:
                listening.bind(str(self.path))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
                self._remove_stale()
                listening.bind(str(self.path))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen at {self.path}: {exc.strerror}"
            ) from exc

    def _remove_stale(self) -> None:
        """Remove the file of a process that died.

        Raises:
            StoreBusyError: If somebody still listens there.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
        raise StoreBusyError(f"{self.path}: another cell listens there; stop it first")

    def close(self) -> None:
        """Listen no more and remove the file; calling it twice is harmless."""
        if self._socket is None or self._loop is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        # Somebody may have taken the place over meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
