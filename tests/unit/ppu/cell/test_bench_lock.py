"""One bench, one owner: whichever store, lab file or name of a place it came by."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from conftest import SMALL_LAB
from ppu.cell.bench_lock import (
    BENCH_FDS,
    LOCKS,
    BenchLock,
    handed_on,
    locks_folder,
)
from ppu.cell.open_lab import open_lab
from ppu.cell.orphans import Orphans
from ppu.core.errors import ConfigurationError, ConflictError, ConnectError
from ppu.core.labfile import load_lab
from ppu.devices.build import places_of
from ppu.store.mark import STATE, marks_folder
from ppu.transports.http import HttpConnection
from ppu.transports.places import host_places, port_places
from ppu.transports.serial import SerialConnection
from ppu.transports.tcp import TcpConnection

PLACES = {"serial device 1:1": "furnace_1", "tcp this computer:502": "balance"}

HOLDS = """
import os, signal, sys
from ppu.cell.bench_lock import BenchLock
lock = BenchLock({"serial device 1:1": "furnace_1"}, "lab other (/labs/other.yaml)")
print("had", flush=True)
sys.stdin.readline()
"""
"""A process that has a place until it hears something."""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for locks that no other test has."""
    monkeypatch.setenv("PPU_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def holder(locks: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the furnace."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", HOLDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "had\n"
        yield process
        process.kill()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[str]:
    """A serial port that there is, though nobody answers at it."""
    ours, theirs = pty.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def names_of_port(port: str, folder: Path) -> list[str]:
    """Return paths that lead to a port, of every kind that people use."""
    by_id = folder / "by-id"
    by_id.mkdir()
    (by_id / "usb-FTDI_0001").symlink_to(port)
    (folder / "again").symlink_to(by_id / "usb-FTDI_0001")
    (folder / "dev").symlink_to("/dev")
    place = port.removeprefix("/dev/")
    return [
        port,
        str(by_id / "usb-FTDI_0001"),
        str(folder / "again"),
        str(folder / "dev" / place),
        f"/dev/../dev/{place}",
        f"//dev//{place}",
        os.path.relpath(port),
    ]


def test_place_of_a_port_is_the_same_whatever_it_is_called(
    port: str, tmp_path: Path
) -> None:
    """A link, a link to a link, a path with detours: it is one port."""
    places = {port_places(name) for name in names_of_port(port, tmp_path)}

    assert len(places) == 1


SAME_HOSTS = [
    "localhost",
    "LOCALHOST",
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "0.0.0.0",  # noqa: S104 - what somebody may write for this computer
    "::1",
    "::ffff:127.0.0.1",
    "0x7f.1",
    os.uname().nodename,
]
OTHER_PORTS = [
    (one, another) for one in (1, 502, 8000, 65535) for another in (2, 503, 8001, 65534)
]


@pytest.mark.parametrize("host", SAME_HOSTS)
def test_place_of_a_host_is_the_same_whatever_it_is_called(host: str) -> None:
    """Every name and address of this computer leads to the same places."""
    assert host_places(host, 502) & host_places("localhost", 502)
    url = f"http://{'[' + host + ']' if ':' in host else host}:502"
    assert HttpConnection(transport="http", url=url).places & host_places(host, 502)
    connection = TcpConnection(transport="tcp", host=host, port=502)
    assert connection.places == host_places(host, 502)


@pytest.mark.parametrize(("one", "another"), OTHER_PORTS)
def test_other_ports_are_other_places(one: int, another: int) -> None:
    """Two instruments behind one host are two."""
    assert not host_places("localhost", one) & host_places("localhost", another)


def test_other_hosts_are_other_places() -> None:
    """Two addresses of elsewhere are two, and so are names that lead nowhere."""
    one, another = "192.0.2.1", "192.0.2.2"

    assert not host_places(one, 502) & host_places(another, 502)
    assert not host_places("balance.invalid", 1) & host_places("arm.invalid", 1)
    assert host_places("Balance.invalid.", 1) == host_places("balance.invalid", 1)


def test_what_is_in_this_process_is_no_place() -> None:
    """A simulated instrument in memory is shared with nobody."""
    memory = SerialConnection(transport="serial", port="memory:1", baudrate=9600)

    assert memory.places == frozenset()
    assert HttpConnection(transport="http", url="http://memory:80").places == set()


def test_second_owner_is_told_who_has_what_and_what_to_do(
    holder: subprocess.Popen[str],
) -> None:
    """The refusal names the device, the process, since when, and the way out."""
    with pytest.raises(ConflictError) as refused:
        BenchLock(PLACES, "lab small")

    told = str(refused.value)
    assert told.startswith("furnace_1 (serial device 1:1) is another's")
    assert "lab other (/labs/other.yaml) has it since 20" in told
    assert f"process {holder.pid}" in told
    assert f"end it first: kill {holder.pid}" in told


def test_nothing_is_taken_when_one_place_is_another_s(
    holder: subprocess.Popen[str],
) -> None:
    """Whoever is refused has not kept the rest from others."""
    with pytest.raises(ConflictError):
        BenchLock(PLACES, "lab small")
    with BenchLock({"tcp this computer:502": "balance"}, "lab small"):
        pass


def test_kill_sets_the_bench_free(holder: subprocess.Popen[str]) -> None:
    """The operating system ends the lock with the process, however it dies."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with BenchLock(PLACES, "lab small") as had:
        assert len(had.descriptors) == len(PLACES)


def test_lock_leaves_nothing_behind(locks: Path) -> None:
    """Whoever ends as it should removes its files."""
    with BenchLock(PLACES, "lab small"):
        assert len(list(locks.iterdir())) == len(PLACES)
    assert list(locks.iterdir()) == []


def test_bench_stays_owned_until_guard_and_cell_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a guard has handed on lasts as long as either of them."""
    guard = BenchLock(PLACES, "a guard")
    copies = [os.dup(number) for number in guard.descriptors]
    monkeypatch.setenv(BENCH_FDS, ",".join(map(str, copies)))
    cell = BenchLock(PLACES, "its cell", handed_on())
    guard_dies = guard.descriptors
    for number in guard_dies:
        os.close(number)  # as the operating system does
    with pytest.raises(ConflictError, match="a guard has it"):
        BenchLock(PLACES, "another")
    cell.close()
    with BenchLock(PLACES, "another"):
        pass
    guard._held.clear()


@pytest.mark.parametrize("given", ["x", "99999", "1,x", "-7"])
def test_what_is_no_lock_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that somebody has set by hand is told, not believed."""
    monkeypatch.setenv(BENCH_FDS, given)
    with pytest.raises(ConfigurationError, match="is no lock of a guard"):
        handed_on()


def test_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a lock nothing is opened, and the text says how to have one."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPU_LOCKS", str(tmp_path / "file" / "locks"))
    with pytest.raises(ConfigurationError, match=r"name another folder .*PPU_LOCKS"):
        BenchLock(PLACES, "lab small")


@pytest.mark.parametrize(
    ("variable", "find"),
    [
        (LOCKS, locks_folder),
        (STATE, marks_folder),
        ("XDG_STATE_HOME", marks_folder),
    ],
)
def test_folder_that_is_another_wherever_one_stands_is_refused(
    variable: str, find: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs that look in two places would both have the bench."""
    for name in (LOCKS, STATE, "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "locks")
    with pytest.raises(ConfigurationError, match=f"{variable}=locks: give a path that"):
        find()


def lab_at(path: Path, port: str) -> Path:
    """Write a lab file whose balance is at *port*; return it."""
    content = yaml.safe_load(SMALL_LAB)
    content["devices"]["balance"]["hardware"]["port"] = port
    path.write_text(yaml.safe_dump(content))
    return path


def test_no_door_opens_a_bench_that_another_has(port: str, tmp_path: Path) -> None:
    """`open_lab` and a guard are refused before anything is sent, by any name."""
    first, *others = names_of_port(port, tmp_path)
    lab = load_lab(lab_at(tmp_path / "first.yaml", first))
    with BenchLock(places_of(lab, tmp_path / "first.yaml"), "lab first"):
        for n, name in enumerate(others):
            path = lab_at(tmp_path / f"other{n}.yaml", name)
            with (
                open_lab(str(path), "hardware", only=("balance",)).closing() as opened,
                pytest.raises(ConflictError, match=r"balance .* is this process's"),
            ):
                opened.connect()
            with pytest.raises(ConflictError, match="lab first"):
                Orphans(load_lab(path), path).own_bench()


def test_bench_is_free_again_when_a_lab_is_closed(port: str, tmp_path: Path) -> None:
    """A lab that could not be connected has let its places go, too."""
    path = lab_at(tmp_path / "lab.yaml", port)
    for _ in range(2):
        lab = open_lab(str(path), "hardware", only=("furnace_1", "balance"))
        with pytest.raises(ConnectError):
            lab.open()


def test_bench_that_this_process_has_is_closed_and_nobody_is_killed() -> None:
    """In a notebook a lab is opened twice by mistake; its own kernel stays alive."""
    with BenchLock(PLACES, "lab a-lab (a.yaml)"):
        with pytest.raises(ConflictError, match="close it first") as refusal:
            BenchLock(PLACES, "lab a-lab (a.yaml)")
        assert "kill" not in str(refusal.value)
    BenchLock(PLACES, "lab a-lab (a.yaml)").close()
