"""One bench, one owner: a lock that lives with the instruments and not with a store.

Each place that a lab file names (a serial port, a TCP port) has a file on this computer
that its owner keeps locked, whichever store, lab file or name of the place it came by.
The operating system ends the lock with the process, however that dies. A guard hands
its lock on to the cells that it starts: then it lasts as long as either of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ppu.core.errors import ConfigurationError, ConflictError
from ppu.core.host_folders import named_folder
from ppu.core.labtime import iso, wall_stamp

__all__ = ["BENCH_FDS", "LOCKS", "BenchLock", "handed_on", "has_open", "locks_folder"]

BENCH_FDS: Final = "PPU_BENCH_FDS"
"""Environment variable by which a guard hands its cell the locks of the bench."""
LOCKS: Final = "PPU_LOCKS"
"""Environment variable that names another folder for the files that are locked."""
_PROC: Final = Path("/proc")
_HERE: Final[set[Path]] = set()
"""Locks that this process has."""
_EVERYBODY: Final = 0o666
"""Rights of a lock's file: whoever may use the instrument must see who has it."""


def locks_folder() -> Path:
    """Return where the locks of this computer are: one folder for all its users.

    Raises:
        ConfigurationError: If a folder is named that is another one in each place.
    """
    if named := named_folder(LOCKS):
        return named
    usual = Path("/run/lock")
    return usual if usual.is_dir() else Path("/tmp")  # noqa: S108 - never $TMPDIR, which users have of their own


def handed_on() -> list[int]:
    """Return the locks that a guard has handed to this process.

    Raises:
        ConfigurationError: If what it handed on is none.
    """
    given = os.environ.pop(BENCH_FDS, "")
    try:
        found = [int(word) for word in given.split(",") if word]
        for number in found:
            os.set_inheritable(number, False)
    except (ValueError, OSError) as exc:
        raise ConfigurationError(
            f"{BENCH_FDS}={given}: is no lock of a guard; start `ppu guard`"
        ) from exc
    return found


class BenchLock:
    """The places of a bench, had by this process alone until it is closed.

    Args:
        places: What to have, and the device that is there.
        who: Who has it, for others that come.
        handed: Locks that a guard has handed on.

    Raises:
        ConflictError: If another process has one of them; then nothing is taken.
        ConfigurationError: If there can be no file that says so.
    """

    def __init__(
        self, places: Mapping[str, str], who: str, handed: Iterable[int] = ()
    ) -> None:
        self._handed = {_identity(os.fstat(number)): number for number in handed}
        self._held: dict[Path, int] = {}
        self._is_mine: set[Path] = set()
        folder = locks_folder()
        said = {"pid": os.getpid(), "since": wall_stamp(), "who": who}
        try:
            for place, device in sorted(places.items()):
                name = hashlib.sha256(place.encode()).hexdigest()[:16]
                self._take(folder / f"ppu-bench-{name}", device, place, said)
        except BaseException:
            self.close()
            raise

    @property
    def descriptors(self) -> list[int]:
        """What a process must inherit to have the bench, too."""
        return list(self._held.values())

    def _take(self, path: Path, device: str, place: str, said: dict[str, Any]) -> None:
        try:
            while True:
                descriptor = self._open(path)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = _refusal(path, descriptor, device, place)
                    os.close(descriptor)
                    raise ConflictError(text) from None
                self._held[path] = descriptor
                if path not in self._is_mine:
                    _HERE.add(path)
                    return
                if _is_at(path, descriptor):
                    _HERE.add(path)
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(said).encode(), 0)
                    return
                os.close(self._held.pop(path))  # its last owner has just removed it
        except OSError as exc:
            raise ConfigurationError(
                f"cannot lock {device} for this process: {path}: {exc.strerror}; let "
                f"it write there, or name another folder for all who share the bench "
                f"with ${LOCKS}"
            ) from exc

    def _open(self, path: Path) -> int:
        """Return a lock that was handed on, or a file of one's own."""
        with contextlib.suppress(FileNotFoundError):
            if number := self._handed.pop(_identity(path.stat()), None):
                return number
        self._is_mine.add(path)
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # Some systems let nobody create what another user has created there.
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags)
            with contextlib.suppress(FileExistsError):
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL, _EVERYBODY)
                os.fchmod(made, _EVERYBODY)
                return made

    def close(self) -> None:
        """Let the bench go, unless another process has it, too; twice is harmless."""
        for path, descriptor in self._held.items():
            if path in self._is_mine:
                with contextlib.suppress(OSError):  # it may be another user's file
                    path.unlink()
            os.close(descriptor)
        _HERE.difference_update(self._held)
        self._held.clear()
        for number in self._handed.values():
            os.close(number)
        self._handed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether *path* still names the open file *descriptor*."""
    try:
        return _identity(path.stat()) == _identity(os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _refusal(path: Path, descriptor: int, device: str, place: str) -> str:
    """Return who has a place, since when, and what to do."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        who, since, pid = str(said["who"]), iso(said["since"])[:19], int(said["pid"])
    except (ValueError, KeyError, TypeError):  # it is just being written
        who, since, pid = "another process", "a moment ago", 0
    if path in _HERE:
        return (
            f"{device} ({place}) is this process's already: {who} has it since "
            f"{since.replace('T', ' ')} UTC; use that one, or close it first"
        )
    # Whoever took it may have died and left it to the cell that it had started.
    others = [one for one in _processes() if one != os.getpid() and has_open(one, path)]
    found = others or ([pid] if pid else [])
    processes = ", ".join(str(one) for one in sorted(found, key=lambda one: one != pid))
    them = "process " if len(found) == 1 else "processes "
    end = f"end it first: kill {found[0]}" if found else "end it first"
    return (
        f"{device} ({place}) is another's: {who} has it since "
        f"{since.replace('T', ' ')} UTC"
        f"{f', {them}{processes}' if found else ''}. A bench has one owner: give your "
        f"work to that one's store, or {end}"
    )


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one.name) for one in _PROC.iterdir() if one.name.isdigit()]
    return []


def has_open(pid: int, path: Path) -> bool:
    """Whether process *pid* has the file *path* open, as far as that can be seen."""
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if descriptor.readlink() == path.resolve():
                    return True
    return False
