"""Wake-up: whoever writes wakes the cell, and nobody minds if there is none."""

import asyncio
import socket
import stat
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ppu.core.errors import ConfigurationError, StoreBusyError
from ppu.store.wake import WakeSocket, socket_path, wake

Play = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """A place for a store."""
    return tmp_path / "lab.sqlite"


async def count_wakes(where: str | Path, n_wakes: int) -> int:
    """Listen while somebody wakes; return how often that was heard."""
    heard: list[None] = []
    listener = WakeSocket(where)
    loop = asyncio.get_running_loop()
    listener.start(loop, lambda: heard.append(None))
    for _ in range(n_wakes):
        wake(where)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    listener.close()
    return len(heard)


def test_cell_is_woken_once_for_all_that_waits(where: Path, play: Play) -> None:
    """Many at once are one call: the store says what there is to do."""
    assert play(count_wakes(where, 0)) == 0
    assert play(count_wakes(where, 1)) == 1
    assert play(count_wakes(where, 5)) == 1
    assert list(where.parent.iterdir()) == []


def test_waking_never_blocks_and_never_fails(where: Path) -> None:
    """Not without a cell, not with a dead one, and not with one that does not read."""
    wake(where)
    path = socket_path(where)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(path))
        for _ in range(2000):
            wake(where)
    wake(where)
    path.unlink()
    path.mkdir()
    wake(where)


def test_nobody_else_may_wake(where: Path, play: Play) -> None:
    """The socket is its owner's alone."""

    async def scenario() -> int:
        listener = WakeSocket(where)
        listener.start(asyncio.get_running_loop(), lambda: None)
        mode = listener.path.stat().st_mode
        listener.close()
        return stat.S_IMODE(mode)

    assert play(scenario()) == 0o600


def test_file_of_a_dead_cell_is_taken_over(where: Path, play: Play) -> None:
    """A process that was killed leaves its file behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(socket_path(where)))

    assert play(count_wakes(where, 1)) == 1


def test_living_cell_is_not_pushed_aside(where: Path, play: Play) -> None:
    """The second is refused, and the first is still woken."""

    async def scenario() -> int:
        heard: list[None] = []
        loop = asyncio.get_running_loop()
        first, second = WakeSocket(where), WakeSocket(where)
        first.start(loop, lambda: heard.append(None))
        with pytest.raises(StoreBusyError, match="another cell listens"):
            second.start(loop, lambda: None)
        second.close()
        wake(where)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.close()
        first.close()
        return len(heard)

    assert play(scenario()) == 1


def test_file_of_another_is_left_where_it_is(where: Path, play: Play) -> None:
    """Whoever closes late does not take away the next one's socket."""

    async def scenario() -> bool:
        listener = WakeSocket(where)
        listener.start(asyncio.get_running_loop(), lambda: None)
        listener.path.rename(where.with_name("aside"))
        listener.path.touch()
        listener.close()
        return listener.path.exists()

    assert play(scenario())


def test_place_that_cannot_hold_a_socket_is_told(tmp_path: Path, play: Play) -> None:
    """The error names the place."""
    with pytest.raises(ConfigurationError, match=r"cannot listen at .*lab\.sqlite"):
        play(count_wakes(tmp_path / "nowhere" / "lab.sqlite", 0))


def test_every_name_of_a_store_leads_to_one_socket(
    where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path, relative path and URL of a file; of a server, whatever the password."""
    monkeypatch.chdir(where.parent)
    names: list[str | Path] = [where, str(where), "lab.sqlite", f"sqlite:///{where}"]
    urls = [f"postgresql://ppu:{word}@server/lab" for word in ("a", "b")]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(where.parent))
    with_folder = {socket_path(url) for url in urls}
    monkeypatch.delenv("XDG_RUNTIME_DIR")

    assert {socket_path(name) for name in names} == {where.with_name("lab.sqlite.wake")}
    assert len(with_folder) == 1
    assert with_folder.pop().parent == where.parent
    assert socket_path(urls[0]).parent == Path(tempfile.gettempdir())
    assert socket_path(urls[0]) != socket_path("postgresql://ppu@server/other")
    assert socket_path("mysql://?") != socket_path("://")


def test_long_path_has_a_socket_elsewhere(tmp_path: Path, play: Play) -> None:
    """A socket's address is short on every system."""
    where = tmp_path / ("long" * 30) / "lab.sqlite"
    path = socket_path(where)

    assert path.parent != where.parent
    assert len(str(path)) < 100
    assert play(count_wakes(where, 2)) == 1
    assert not path.exists()
