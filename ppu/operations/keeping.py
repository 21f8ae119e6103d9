"""Looks after stores: copies them, and puts a copy in the place of one."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ppu.store.mark import newest
from ppu.store.store import Store

__all__ = ["Restored", "backup", "restore"]


class Restored(BaseModel):
    """What came of restoring a store.

    Attributes:
        kept: Where the store is now that was there before; None if none was.
        last_stamp: When the newest event of the copy happened [s since 1970].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept: Path | None
    last_stamp: float | None


def backup(store: Store, target: Path) -> int:
    """Copy a store as it is now, while others read and write; return the bytes.

    Raises:
        ConfigurationError: If *target* is there already or cannot be written, or if
            the store is in PostgreSQL.
        StoreError: If the copy failed; nothing is left at *target*.
    """
    store.backup(target)
    return target.stat().st_size


def restore(where: str, copy: Path) -> Restored:
    """Put *copy* in the place of the store *where*, which no cell may own.

    Raises:
        ConfigurationError: If it is in PostgreSQL, or *copy* is no store of this PPU.
        NotFoundError: If there is no *copy*.
        StoreBusyError: If a cell owns the store; nothing was changed.
        StoreDamagedError: If the copy is damaged; nothing was changed.
    """
    kept = Store.restore(where, copy)
    with Store(where, is_verified=False) as store, store.read() as connection:
        last = newest(connection)
    return Restored(kept=kept, last_stamp=None if last is None else last.stamp)
