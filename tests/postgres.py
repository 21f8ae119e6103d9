"""Starts Debian's PostgreSQL for tests, on a Unix socket of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "HOW_TO_HAVE_IT",
    "Server",
    "can_be_started",
    "postgres",
    "postgres_server",
]

HOW_TO_HAVE_IT = (
    "needs PostgreSQL and psycopg: apt-get install postgresql; "
    "pip install 'ppu-lab[postgres]'"
)


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found is not None:
        folders.append(Path(found).resolve().parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def can_be_started() -> bool:
    """Return whether it is installed, and somebody else than root may run it."""
    is_root = os.geteuid() == 0
    return _programs() is not None and not (is_root and not shutil.which("setpriv"))


class Server:
    """A server in a temporary folder, which can be stopped, killed and frozen.

    Args:
        is_durable: Whether commits are on the disk, as they must be in earnest.
    """

    def __init__(self, *, is_durable: bool) -> None:
        programs = _programs()
        assert programs is not None, HOW_TO_HAVE_IT
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="ppu-pg-"))
        self._as_whom: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self._folder, "nobody")
            self._as_whom = ["setpriv", "--reuid=nobody", "--regid=nogroup"]
            self._as_whom += ["--clear-groups"]
        fsync = "on" if is_durable else "off"
        self._options = f"-c listen_addresses='' -c fsync={fsync} -k {self._folder}"
        self.url = f"postgresql://ppu@/postgres?host={self._folder}"
        try:
            self._run("initdb", "-U", "ppu", "-A", "trust", "--no-sync", "-E", "UTF8")
        except BaseException:
            self.remove()
            raise

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603 - Debian's programs, our own arguments
            [
                *self._as_whom,
                str(self._programs / program),
                "-D",
                str(self._folder / "data"),
                *arguments,
            ],
            check=True,
            stdout=subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )

    def start(self) -> None:
        """Start it, and wait until it serves."""
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", self._options, "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it: ``fast`` ends connections, ``immediate`` is a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def _processes(self) -> list[int]:
        """Return the server's process and its children's."""
        first = (self._folder / "data" / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [int(first), *map(int, children)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        """Remove all that is left of it on the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        """Whether it has said that it runs."""
        return (self._folder / "data" / "postmaster.pid").exists()


@contextlib.contextmanager
def postgres(*, is_durable: bool) -> Iterator[str]:
    """Run a server in a temporary folder; give the URL of its database.

    Args:
        is_durable: Whether commits are on the disk, as they must be in earnest.
    """
    with postgres_server(is_durable=is_durable) as server:
        yield server.url


@contextlib.contextmanager
def postgres_server(*, is_durable: bool) -> Iterator[Server]:
    """Run a server in a temporary folder.

    Args:
        is_durable: Whether commits are on the disk, as they must be in earnest.
    """
    server = Server(is_durable=is_durable)
    try:
        server.start()
        try:
            yield server
        finally:
            if server.is_running:
                server.stop("immediate")
    finally:
        server.remove()
