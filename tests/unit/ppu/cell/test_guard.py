"""What the guard decides when a cell ends; its cells are a few lines of Python here."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from ppu.cell import guard as guard_module
from ppu.cell.bench_lock import BenchLock
from ppu.cell.guard import CellEnd, Guard
from ppu.cell.predecessor import watching
from ppu.core.errors import StoreBusyError
from ppu.core.labtime import LabTimeLoop
from ppu.core.stopping import TAKEN_OVER_CODE

Play = Callable[[Coroutine[Any, Any, Any]], Any]
END = "import os, signal; end = int(os.environ['PPU_GUARD_FD']); os.write(end, b'.')"
"""What a cell says first."""


def once(flag: Path, first: str) -> str:
    """Return a cell that does *first* the first time, and ends well the second."""
    return (
        f"import os, sys; flag = {str(flag)!r}\n"
        "if os.path.exists(flag): sys.exit(0)\n"
        f"open(flag, 'w').close()\n{first}"
    )


class NotedOrphans:
    """Stands for the instruments: notes what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_kept_safe = asyncio.Event()

    async def make_safe(self) -> None:
        """Note it."""
        self.asked.append("orphan state")

    def own_bench(self) -> BenchLock:
        """Have no place at all."""
        return BenchLock({}, "a test")

    async def keep(self, until: asyncio.Event) -> None:
        """Note it, until the store can be written."""
        self.asked.append("orphan state, kept")
        await until.wait()

    async def keep_safe(self, until: asyncio.Event) -> None:
        """Note it, until somebody comes."""
        self.asked.append("abort state")
        self.is_kept_safe.set()
        await until.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[bool, list[str]]]]:
    """Lets a guard keep a script running, in real time."""
    with asyncio.Runner(loop_factory=lambda: LabTimeLoop(1.0)) as runner:

        def run_script(
            script: str, people: Callable[[Guard, NotedOrphans], Any] | None = None
        ) -> tuple[bool, list[str]]:
            async def scenario() -> tuple[bool, list[str]]:
                orphans = NotedOrphans()
                command = [sys.executable, "-S", "-c", script]
                store = str(tmp_path / "none.sqlite")
                guard = Guard(orphans, command, store)  # type: ignore[arg-type]  # a fake
                work = asyncio.create_task(guard.run())
                if people is not None:
                    await people(guard, orphans)
                return await work, orphans.asked

            return runner.run(scenario())

        yield run_script


def test_guard_ends_with_the_cell_when_that_ended_as_it_should(run: Any) -> None:
    """A cell that has drained, or has nothing to do, needs no other one."""
    is_well, asked = run("")

    assert is_well
    assert asked == ["orphan state"]


def test_guard_sees_to_instruments_and_starts_another_cell_when_one_dies(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First the instruments, then the next cell; people are told what was seen."""
    is_well, asked = run(once(tmp_path / "flag", "os.kill(os.getpid(), 9)"))

    assert is_well
    assert asked == ["orphan state", "orphan state"]
    assert "was killed by SIGKILL" in capsys.readouterr().err


def test_guard_leaves_instruments_alone_when_they_are_those_of_another_cell(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What looks like an orphan may be fired by whoever took the lab over."""
    is_well, asked = run(f"raise SystemExit({TAKEN_OVER_CODE})")

    assert not is_well
    assert asked == ["orphan state"]  # before the first cell, when nobody had them
    assert "another cell's; they are left alone" in capsys.readouterr().err


def test_guard_gives_up_when_cells_keep_ending_early(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """After three it starts no other, keeps hot things safe, and ends as failed."""

    async def come_and_stop(guard: Guard, orphans: NotedOrphans) -> None:
        await orphans.is_kept_safe.wait()
        guard.stop()

    is_well, asked = run("raise SystemExit(4)", come_and_stop)

    assert not is_well
    assert asked == ["orphan state"] * 4 + ["abort state"]
    told = capsys.readouterr().err
    assert "NO OTHER ONE IS STARTED" in told
    assert "free space" not in told


def test_guard_that_gives_up_says_so_when_the_disk_is_full(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No cell can begin on a full disk, and furnaces are cold until it has room."""
    monkeypatch.setattr(guard_module, "LEAST_FREE_BYTES", 10**18)

    async def come_and_stop(guard: Guard, orphans: NotedOrphans) -> None:
        await orphans.is_kept_safe.wait()
        guard.stop()

    run("raise SystemExit(4)", come_and_stop)

    assert "MB free: free space" in capsys.readouterr().err


def test_guard_gives_up_when_no_cell_ever_says_a_word(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that hangs while it opens its store has ended early, however long it took."""
    monkeypatch.setattr(guard_module, "_FIRST_WORD_S", 0.0)
    monkeypatch.setattr(guard_module, "EARLY_S", 0.1)

    async def come_and_stop(guard: Guard, orphans: NotedOrphans) -> None:
        await orphans.is_kept_safe.wait()
        guard.stop()

    is_well, _ = run("import signal; signal.pause()", come_and_stop)

    assert not is_well
    assert "NO OTHER ONE IS STARTED" in capsys.readouterr().err


def test_guard_has_patience_with_a_cell_that_opens_a_large_store(
    tmp_path: Path,
) -> None:
    """All of a file is read before the first word; a server's is waited for."""
    path = tmp_path / "large.sqlite"
    new = guard_module._first_word_s(str(path))
    with path.open("wb") as file:
        file.truncate(10**10)
    large = [guard_module._first_word_s(w) for w in (str(path), f"sqlite:///{path}")]
    server = guard_module._first_word_s("postgresql://lab@server/lab")

    assert new == 60.0
    assert large == [1060.0, 1060.0]
    assert server == 90.0


def test_guard_forgets_early_ends_after_ten_minutes_and_ignores_late_ones(
    play: Play,
) -> None:
    """Three cells that crash in a week are no reason to stop the lab."""

    async def scenario() -> list[bool]:
        guard = Guard(NotedOrphans(), [], "none")  # type: ignore[arg-type]  # a fake
        early, late = CellEnd(4, "", lived_s=5.0), CellEnd(4, "", lived_s=3600.0)
        found = [guard._is_hopeless(early), guard._is_hopeless(early)]
        found += [guard._is_hopeless(late), guard._is_hopeless(late)]
        await asyncio.sleep(601.0)
        found += [guard._is_hopeless(early), guard._is_hopeless(early)]
        return [*found, guard._is_hopeless(early)]

    assert play(scenario()) == [False] * 6 + [True]


def test_guard_passes_a_stop_on_and_tells_the_service_manager(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY when a cell runs, WATCHDOG meanwhile; the cell gets SIGTERM and drains."""
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))

        async def stop_when_ready(guard: Guard, _: NotedOrphans) -> None:
            loop = asyncio.get_running_loop()
            while "READY=1" not in "\n".join(told):
                told.append((await loop.sock_recv(manager, 4096)).decode())
            guard.stop()

        is_well, asked = run(
            "import sys; import signal\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
            f"{END}\n"
            "while os.read(end, 1): pass",
            stop_when_ready,
        )

    assert is_well
    assert asked == ["orphan state"]
    assert "WATCHDOG=1" in told
    assert "EXTEND_TIMEOUT_USEC=120000000" in told


def test_guard_kills_a_cell_that_closes_its_end_and_does_not_end(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that hangs while it ends must not keep the instruments."""
    monkeypatch.setattr(guard_module, "_LAST_WORD_S", 0.05)
    hangs = f"{END}; os.close(end)\nwhile True: signal.pause()"
    is_well, asked = run(once(tmp_path / "flag", hangs))

    assert is_well
    assert asked == ["orphan state"] * 2


def test_guard_starts_no_cell_when_it_was_stopped_before(run: Any) -> None:
    """Somebody who changes his mind early gets no cell."""

    async def stop_at_once(guard: Guard, _: NotedOrphans) -> None:
        guard.stop()

    is_well, asked = run("raise SystemExit(4)", stop_at_once)

    assert is_well
    assert asked == ["orphan state"]


def test_second_guard_of_a_store_is_refused(tmp_path: Path) -> None:
    """Two guards would kill each other's cells."""
    store = str(tmp_path / "lab.sqlite")
    with (
        watching(store),
        pytest.raises(StoreBusyError, match="another guard"),
        watching(store),
    ):
        pass
    with watching(store):
        pass


def test_guard_loads_no_engine_no_plots_and_no_plug_ins_but_drivers() -> None:
    """What it loads cannot break it: it must outlive all of that."""
    script = (
        "import sys\n"
        "from ppu.core.labfile import load_lab\n"
        "from ppu.core.registry import find_lab\n"
        "from ppu.cell.guard import Guard\n"
        "from ppu.cell.orphans import Orphans\n"
        "path = find_lab('a-lab')\n"
        "Orphans(load_lab(path), path)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    heavy = {"matplotlib", "scipy", "gemmi", "ophyd", "fastapi", "optuna"}
    ours = {"ppu.engine.runner", "ppu.engine.host", "ppu.cell.cell", "ppu_simulators"}

    assert "ppu_drivers.eurotherm_3216" in loaded
    assert loaded & (heavy | ours | {"ppu_protocols.synthesis"}) == set()
