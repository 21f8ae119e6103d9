"""The journal: what was acknowledged is there, in order, after a crash too."""

import json
import sqlite3
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from ppu.core.errors import ConfigurationError
from ppu.store.journal import Journal


class Colour(Enum):
    """Something that JSON does not know."""

    RED = "red"


def test_entries_come_back_in_order_whatever_they_hold(tmp_path: Path) -> None:
    """Sequence, lab time, kind and plain content of each entry are kept."""
    journal = Journal(tmp_path / "deep" / "journal.sqlite")
    first = journal.add(1.5, "note", {"array": np.array([1.0, 2.0]), "n": np.int64(3)})
    second = journal.add(0.5, "step_begin", {"colour": Colour.RED})
    found = list(journal.entries())
    journal.close()

    assert first < second
    assert found == [
        (first, 1.5, "note", {"array": [1.0, 2.0], "n": 3}),
        (second, 0.5, "step_begin", {"colour": "red"}),
    ]


def test_entry_is_on_the_disk_when_add_returns(tmp_path: Path) -> None:
    """Another process sees it at once; nothing waits for a close."""
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.add(1.0, "note", {})
    with sqlite3.connect(path) as other:
        ((count,),) = other.execute("select count(*) from journal").fetchall()
    other.close()
    journal.close()

    assert count == 1


def test_entries_can_be_chosen_by_kind(tmp_path: Path) -> None:
    """Only the kinds asked for are yielded."""
    journal = Journal(tmp_path / "journal.sqlite")
    for kind in ("note", "document", "step_begin", "document"):
        journal.add(0.0, kind, {"name": "start", "document": {}})
    kinds = [kind for _, _, kind, _ in journal.entries("document", "note")]
    journal.close()

    assert kinds == ["note", "document", "document"]


def test_documents_are_exported_whole(tmp_path: Path) -> None:
    """One document a line, no other kind, and no half-written file."""
    journal = Journal(tmp_path / "journal.sqlite")
    journal.add(0.0, "document", {"name": "start", "document": {"uid": "a"}})
    journal.add(0.0, "note", {})
    journal.add(0.0, "document", {"name": "stop", "document": {"uid": "b"}})
    journal.export_documents(tmp_path / "documents.jsonl")
    journal.close()
    lines = (tmp_path / "documents.jsonl").read_text().splitlines()

    assert [json.loads(line)["name"] for line in lines] == ["start", "stop"]
    assert json.loads(lines[1])["doc"] == {"uid": "b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "documents.jsonl",
        "journal.sqlite",
    ]


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    """A thing that cannot be kept is told, not kept as its name."""
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(TypeError, match="cannot journal a object"):
        journal.add(0.0, "note", {"thing": object()})
    journal.close()


@pytest.mark.parametrize("is_folder", [True, False])
def test_journal_is_refused_where_none_can_be_kept(
    tmp_path: Path, is_folder: bool
) -> None:
    """A directory, or a file that is no database, is a fault of the argument."""
    path = tmp_path / "journal.sqlite"
    if is_folder:
        path.mkdir()
    else:
        path.write_text("this is no database, and long enough to be read as one" * 20)
    with pytest.raises(ConfigurationError, match="cannot keep a journal in"):
        Journal(path)
