"""The high-water mark: it tells whether a store has forgotten something."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppu.store import events
from ppu.store.events import EventKind
from ppu.store.mark import HighWaterMark, Mark, is_reached, marks_folder, newest
from ppu.store.store import Store


def note(store: Store, n: int) -> None:
    """Let something happen."""
    content = {"n": n}
    store.write(
        partial(events.announce, kind=EventKind.CELL, content=content, now=float(n))
    )


@given(
    notes=st.lists(st.integers(1, 2**62), min_size=1, max_size=6),
    where=st.integers(0, 1023),
    bits=st.integers(1, 255),
)
def test_mark_is_the_last_or_the_one_before_when_a_byte_is_lost(
    tmp_path_factory: pytest.TempPathFactory, notes: list[int], where: int, bits: int
) -> None:
    """A torn mark is never taken for another one, and costs at most the last note."""
    folder = tmp_path_factory.mktemp("marks")
    marks = [Mark(sequence, 1.5 * sequence, 7) for sequence in notes]
    written = HighWaterMark(folder, "lab", "store")
    for mark in marks:
        written.note(mark)
    written.close()
    content = bytearray(written.path.read_bytes())
    content[where] ^= bits
    written.path.write_bytes(content)

    assert HighWaterMark(folder, "lab", "store").read() in (*marks[-2:], None)
    if len(marks) > 1:
        assert HighWaterMark(folder, "lab", "store").read() is not None


def test_mark_of_another_process_goes_on(tmp_path: Path) -> None:
    """Whoever comes later writes over the older of the two places."""
    for n in range(1, 6):
        mark = HighWaterMark(tmp_path, "lab", "store")
        assert mark.read() == (None if n == 1 else Mark(n - 1, 0.0, n - 1))
        mark.note(Mark(n, 0.0, n))
        mark.close()


@pytest.mark.parametrize("content", [b"", b"x" * 1024, b"\xff" * 1024, b"1 2 3"])
def test_what_is_no_mark_is_none(tmp_path: Path, content: bytes) -> None:
    """A file of anything else tells nothing."""
    mark = HighWaterMark(tmp_path, "lab", "store")
    mark.path.write_bytes(content)

    assert mark.read() is None


def test_store_has_what_it_was_seen_to_have_unless_it_was_rolled_back(
    tmp_path: Path,
) -> None:
    """Going on is no loss; being shorter, or going on otherwise, is."""
    path, copy = tmp_path / "lab.sqlite", tmp_path / "copy.sqlite"
    with Store(path) as store:
        note(store, 1)
        store.backup(copy)
        note(store, 2)
        with store.read() as connection:
            seen = newest(connection)
            assert seen is not None
        note(store, 3)
        with store.read() as connection:
            assert is_reached(connection, seen)
    with Store(copy) as store:
        with store.read() as connection:
            assert not is_reached(connection, seen)
        note(store, 8)
        note(store, 9)
        with store.read() as connection:
            assert not is_reached(connection, seen)


def test_mark_is_on_the_disk_before_anything_is_acknowledged(tmp_path: Path) -> None:
    """Whatever a writer was told to be kept, the mark has."""
    mark = HighWaterMark(tmp_path, "lab", "store")
    with Store(tmp_path / "lab.sqlite") as store:
        store.keep_mark(mark)
        for n in range(1, 20):
            note(store, n)
            seen = HighWaterMark(tmp_path, "lab", "store").read()
            assert seen is not None
            assert seen.sequence == n
    mark.close()


def test_mark_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the store has kept is kept; people know what will not be noticed."""
    (tmp_path / "file").write_text("")
    mark = HighWaterMark(tmp_path / "file" / "marks", "lab", "store")
    with Store(tmp_path / "lab.sqlite") as store:
        store.keep_mark(mark)
        note(store, 1)
        note(store, 2)

    assert capsys.readouterr().err.count("will not be noticed") == 1


def test_marks_survive_a_restart_of_the_computer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are where state is kept, unless somebody names another folder."""
    monkeypatch.delenv("PPU_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert marks_folder() == tmp_path / "ppu"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert str(marks_folder()).startswith(os.path.expanduser("~"))  # noqa: PTH111 - as the shell has it
