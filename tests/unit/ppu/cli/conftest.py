"""``ppu`` in this process, with a store of its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from ppu.cli.main import app, run_command
from ppu.cli.remedies import worded
from ppu.core.notices import word_advice_with
from ppu.store import cells, queue, steps
from ppu.store.jobs import JobState
from ppu.store.store import Store


@dataclass
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)


Ppu = Callable[..., Ended]


@pytest.fixture(scope="session")
def command() -> Any:
    """The ``ppu`` command with all that hangs on it."""
    return typer.main.get_command(app)


@pytest.fixture
def store_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the store of the commands is."""
    path = tmp_path / "lab.sqlite"
    monkeypatch.setenv("PPU_STORE", str(path))
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.delenv("COLUMNS", raising=False)  # nothing is cut
    return path


@pytest.fixture
def ppu(command: Any, store_path: Path, capsys: pytest.CaptureFixture[str]) -> Ppu:
    """Runs ``ppu`` to its end, as :func:`ppu.cli.main.run_app` does."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        word_advice_with(worded)
        code = run_command(command, list(map(str, arguments)), prog_name="ppu")
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


class Cell:
    """Does in the store what a cell does, a second after the other.

    Args:
        path: The store.
    """

    def __init__(self, path: Path) -> None:
        self.store = Store(path, is_verified=False)
        self.now = 4e9  # ahead of every wall clock, as a twin is
        self.token: int = self.do(
            cells.start, "small", now=self.now, pid=1, boot_id="boot", epoch=0.0
        )

    def do(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call *function* in a transaction of its own."""
        self.now += 1.0
        options = {"now": self.now, **options}
        return self.store.write(lambda c: function(c, *arguments, **options))

    def run_job(self) -> int:
        """Claim the next job and let it run; return its number."""
        job = self.do(queue.claim, token=self.token, lease_s=1e9)
        self.change(job.id, JobState.RUNNING)
        return int(job.id)

    def change(self, job_id: int, state: JobState, **options: Any) -> None:
        """Bring a job of this cell into another state."""
        self.do(queue.transition, job_id, state, token=self.token, **options)

    def begin_step(
        self, job_id: int, path: str, name: str, *acts_on: str, kind: str = "repeatable"
    ) -> None:
        """Begin a step."""
        arguments = [["lab small", *acts_on], {}]
        step = (job_id, path, name, kind, "digest", arguments)
        self.do(steps.begin_step, *step, self.token)


@pytest.fixture
def cell(store_path: Path) -> Iterator[Cell]:
    """A cell that has just started on the store."""
    started = Cell(store_path)
    yield started
    started.store.close()
