"""A simulated bench, guards and cells as processes, for tests that kill them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from ppu.core.labtime import stopwatch, wall_stamp
from ppu.store.events import last_stamp
from ppu.store.store import Store
from ppu.store.wake import wake

__all__ = [
    "PATIENCE_WALL_S",
    "LabProcesses",
    "Lines",
    "Running",
    "bearable_pace",
    "parent_of",
]

PPU = (sys.executable, "-P", "-m", "ppu")
PATIENCE_WALL_S = 240.0
"""How long a condition may take that must come true, on a machine that is busy."""


def bearable_pace(lab: Path, at_best: float, spare_s: float) -> float:
    """Return a pace at which processes come in time, however busy the machine is.

    Args:
        lab: A lab file; checking it starts Python and loads what a cell loads.
        at_best: The pace on a machine that has nothing else to do.
        spare_s: Lab time in which six such processes must have started [s].
    """
    elapsed = stopwatch()
    subprocess.run(  # noqa: S603 - our own command
        [*PPU, "lab", "check", str(lab)], check=True, capture_output=True
    )
    return min(at_best, spare_s / (6.0 * elapsed()))


@dataclass(frozen=True)
class Line:
    """A line that a process wrote.

    Attributes:
        number: Its place among the lines.
        time_s: When it was read, on the clock of the lab's processes [s].
        text: What it says.
    """

    number: int
    time_s: float
    text: str


class Lines:
    """What processes write to a pipe, line by line as it comes.

    Args:
        stream: The reading end of the pipe.
        elapsed: The clock.
        news: Notified at each line, and at the end.

    Attributes:
        has_ended: Whether nobody can write any more.
    """

    def __init__(
        self,
        stream: IO[str],
        elapsed: Callable[[], float],
        news: threading.Condition,
    ) -> None:
        self.all: list[Line] = []
        self.has_ended = False
        self._stream = stream
        self._elapsed = elapsed
        self._news = news
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for text in self._stream:
                with self._news:
                    number = len(self.all)
                    self.all.append(Line(number, self._elapsed(), text.rstrip("\n")))
                    self._news.notify_all()
        with self._news:
            self.has_ended = True
            self._news.notify_all()

    def find(self, pattern: str, after: int = -1) -> Line | None:
        """Return the first line that *pattern* is found in, of those *after* one."""
        for line in self.all[after + 1 :]:
            if re.search(pattern, line.text):
                return line
        return None

    def join(self) -> None:
        """Wait until everybody who could write has ended."""
        self._thread.join(PATIENCE_WALL_S)


@dataclass
class Running:
    """A guard, and what it and its cells write."""

    process: subprocess.Popen[str]
    lines: Lines

    @property
    def cell(self) -> int | None:
        """The process of the last cell that it said to run."""
        for line in reversed(self.lines.all):
            found = re.search(r"the cell of process (\d+) runs", line.text)
            if found:
                return int(found[1])
        return None


class LabProcesses:
    """A simulated bench in a process of its own, and guards on it.

    Everything that was started has ended when its ``with`` statement has.

    Args:
        folder: Where all files are.
        lab: The lab file.
        pace: Lab seconds per wall second.
        store: Where the store is; by default a file in *folder*.
    """

    def __init__(
        self, folder: Path, lab: Path, pace: float, store: str | Path | None = None
    ) -> None:
        self.folder = folder
        self.lab = folder / "bench.yaml"
        self.store = folder / "store.sqlite" if store is None else store
        self.results = folder / "results"
        self.elapsed = stopwatch()
        self.news = threading.Condition()
        self.guards: list[Running] = []
        self._source = lab
        self._pace = pace
        self._opened = Store(self.store, busy_wall_s=10.0)
        self._bench: subprocess.Popen[str] | None = None
        self._control = ("", 0)
        self.epoch = 0.0

    def __enter__(self) -> Self:
        words = [*PPU, "sim", str(self._source), "--pace", f"{self._pace:g}", "--json"]
        words += ["--write-lab", str(self.lab)]
        errors = (self.folder / "bench.err").open("w")
        with errors:
            self._bench = subprocess.Popen(  # noqa: S603 - our own command
                words, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._bench.stdout is not None
        content = json.loads(self._bench.stdout.readline())
        host, _, port = content["control"].rpartition(":")
        self._control = (host, int(port))
        self.epoch = content["epoch"]
        return self

    def __exit__(self, *_: object) -> None:
        for guard in self.guards:
            if guard.process.poll() is None:
                guard.process.kill()
        for pid in self.cells():
            self.kill(pid)
        for guard in self.guards:
            guard.process.wait(PATIENCE_WALL_S)
            guard.lines.join()
        self._opened.close()
        if self._bench is not None:
            self._bench.terminate()
            self._bench.communicate(timeout=PATIENCE_WALL_S)

    # -- the world -----------------------------------------------------------------

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask the bench's control socket."""
        with socket.create_connection(self._control, PATIENCE_WALL_S) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        assert answer["ok"], answer
        return answer

    # -- processes -----------------------------------------------------------------

    def start_guard(self, *options: str) -> Running:
        """Start a guard, which starts a cell."""
        words = [*PPU, "guard", str(self.lab), "--store", str(self.store)]
        words += ["--results", str(self.results), *options]
        process = subprocess.Popen(  # noqa: S603 - our own command
            words,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        guard = Running(process, Lines(process.stderr, self.elapsed, self.news))
        self.guards.append(guard)
        return guard

    def cells(self) -> list[int]:
        """Return the processes of all cells on this store that have not ended."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                words = _words_of(int(folder.name))
                if "cell" in words and str(self.store) in words:
                    found.append(int(folder.name))
        return found

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a cell of this lab, and to nobody else."""
        if str(self.store) in _words_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_for(
        self, what: str, is_so: Callable[[], Any], within_s: float = PATIENCE_WALL_S
    ) -> Any:
        """Wait until *is_so* returns something true, and return that.

        Raises:
            AssertionError: If it does not in time; with what processes wrote.
        """
        until = self.elapsed() + within_s
        while True:
            found = is_so()
            if found:
                return found
            if self.elapsed() > until:
                told = self.told()
                raise AssertionError(f"{what}: not within {within_s:g} s\n{told}")
            with self.news:
                self.news.wait(0.05)

    def told(self, n_lines: int = 40) -> str:
        """Return the last lines of each guard and its cells."""
        return "\n".join(
            "\n".join(
                f"[guard {guard.process.pid}] {line.time_s:7.2f} {line.text}"
                for line in guard.lines.all[-n_lines:]
            )
            for guard in self.guards[-3:]
        )

    # -- the store -----------------------------------------------------------------

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Have nothing of the store open here while the block runs."""
        self._opened.close()
        try:
            yield
        finally:
            self._opened = Store(self.store, is_verified=False, busy_wall_s=10.0)

    def read(self, query: Callable[..., Any], **options: Any) -> Any:
        """Return what *query* finds in the store."""
        with self._opened.read() as connection:
            return query(connection, **options)

    def write(self, work: Callable[..., Any], **options: Any) -> Any:
        """Do *work*, which gets a transaction and the stamp of now, as commands do."""

        def stamped(connection: Any) -> Any:
            now = max(wall_stamp(), last_stamp(connection) or 0.0)
            return work(connection, now=now, **options)

        result = self._opened.write(stamped)
        wake(self.store)
        return result


def parent_of(pid: int) -> int:
    """Return the process that started another one, 0 if that has ended."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    return 0


def _words_of(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []
