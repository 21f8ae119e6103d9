"""The high-water mark: how far a store had come, kept outside of it.

A store that lost its ``-wal``, or that was restored from a backup, looks sound and has
forgotten what was done since. So whoever acts on instruments notes elsewhere on this
computer, before anything is acknowledged, the newest event of the store; the next one
looks whether the store still has it.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from ppu.core.host_folders import named_folder
from ppu.core.notices import tell
from ppu.store.database import sync_folder
from ppu.store.events import encode, last_event
from ppu.store.schema import events

__all__ = ["STATE", "HighWaterMark", "Mark", "is_reached", "marks_folder", "newest"]

STATE: Final = "PPU_STATE"
"""Environment variable that names another folder for the marks."""
_SLOT: Final = 512
"""Bytes of each of two places that are written in turn; a disk writes one whole."""


@dataclass(frozen=True)
class Mark:
    """An event of a store.

    Attributes:
        sequence: Its number.
        stamp: When it happened [s since 1970].
        check: Tells it from another one of that number.
    """

    sequence: int
    stamp: float
    check: int


def newest(connection: Connection) -> Mark | None:
    """Return the newest event of a store, None if there is none."""
    return _event(connection, last_event(connection))


def is_reached(connection: Connection, mark: Mark) -> bool:
    """Return whether a store has the event of *mark* in its history."""
    return _event(connection, mark.sequence) == mark


def _event(connection: Connection, sequence: int) -> Mark | None:
    row = connection.execute(
        select(events).where(events.c.sequence == sequence)
    ).first()
    if row is None:
        return None
    said = encode([row.stamp, row.kind, row.job_id, row.content])
    return Mark(sequence, row.stamp, zlib.crc32(said.encode()))


def marks_folder() -> Path:
    """Return where marks are kept, which a restart of the computer leaves alone.

    Raises:
        ConfigurationError: If a folder is named that is another one in each place.
    """
    if named := named_folder(STATE):
        return named
    state = named_folder("XDG_STATE_HOME")
    return (state or Path.home() / ".local" / "state") / "ppu"


class HighWaterMark:
    """The file of one store's mark.

    Args:
        folder: Where marks are kept.
        lab: Name of the lab.
        store: What tells the store from others, wherever it is.
    """

    def __init__(self, folder: Path, lab: str, store: str) -> None:
        self.path = folder / f"{lab}-{store}.mark"
        self._file: int | None = None
        self._n_notes = 0
        self._is_told = False

    def read(self) -> Mark | None:
        """Return the newest mark, None if nobody has left one that can be read."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        found = [_read(content[at : at + _SLOT]) for at in (0, _SLOT)]
        whole = [one for one in found if one is not None]
        if not whole:
            return None
        self._n_notes, mark = max(whole, key=lambda one: one[0])
        return mark

    def note(self, mark: Mark) -> None:
        """Keep *mark* on the disk.

        If that cannot be, people are told once: what the store has kept is kept.
        """
        self._n_notes += 1
        said = f"{self._n_notes} {mark.sequence} {mark.stamp!r} {mark.check}"
        line = f"{said} {zlib.crc32(said.encode())}\n".ljust(_SLOT).encode()
        try:
            if self._file is None:
                self._file = self._open()
            os.pwrite(self._file, line, _SLOT * (self._n_notes % 2))
            os.fdatasync(self._file)
        except OSError as exc:
            if not self._is_told:
                tell(
                    f"cannot write {self.path}: {exc.strerror}; a store that loses "
                    f"what it has kept will not be noticed (${STATE} names another "
                    "folder)"
                )
            self._is_told = True

    def _open(self) -> int:
        """Open the file; its folder is on the disk, too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(file, 2 * _SLOT)  # room, so that a full disk takes marks, too
        sync_folder(self.path.parent)
        return file

    def close(self) -> None:
        """Close the file; it stays."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _read(slot: bytes) -> tuple[int, Mark] | None:
    """Return what a place says, and how new it is; None if it is torn or empty."""
    try:
        said, _, check = slot.decode("ascii").strip().rpartition(" ")
        if zlib.crc32(said.encode()) != int(check):
            return None
        number, sequence, stamp, of_event = said.split()
        return int(number), Mark(int(sequence), float(stamp), int(of_event))
    except ValueError:
        return None
