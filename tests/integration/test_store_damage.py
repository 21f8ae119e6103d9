"""A store with flipped bits: every door says what is damaged and what to do."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cell_life import ask, count_starts, submit
from exercise import LAB, World, exercise
from mortal import MortalCell
from ppu.core.errors import PPUError, StoreDamagedError
from ppu.operations import control, looking
from ppu.store.requests import AllowHeat
from ppu.store.schema import metadata
from ppu.store.store import Store


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store in which jobs have run, failed and been asked about."""
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    World.acts.clear()
    life = MortalCell(LAB, tmp_path_factory.mktemp("used"), {"exercise": exercise})
    count_starts(life)
    try:
        submit(life, {"kind": "press"}, {"kind": "seat"}, {"kind": "nested"})
        life.start()
        life.advance(30000.0)
        ids = submit(life, {"kind": "press", "number": 9})
        life.advance(20.0)
        life.kill()
        life.start()
        ask(life, AllowHeat(note="all are cold"))
        life.advance(100.0)
        life.end()
        control.hold(life.store, ids)
        control.cancel(life.store, submit(life, {"kind": "rest"}), "anna")
    finally:
        life.close()
    return life.store_path


DOORS: dict[str, Callable[[Store], Any]] = {
    "jobs": looking.jobs,
    "queued": looking.queued,
    "job": lambda s: [looking.job(s, one.id) for one in looking.jobs(s)],
    "history": lambda s: [looking.history(s, one.id) for one in looking.jobs(s)],
    "activity": lambda s: looking.activity(s, [one.id for one in looking.jobs(s)]),
    "recovery": looking.recovery,
    "samples": lambda s: [
        looking.sample(s, one.id) for one in looking.samples(s, with_released=True)
    ],
    "stock": looking.stock,
    "events": looking.events,
    "abort": lambda s: control.abort(s, [one.id for one in looking.jobs(s)], "anna"),
}
"""What people and programs ask of a store."""

COLUMNS = [
    (table.name, column.name)
    for table in metadata.sorted_tables
    for column in table.columns
    if table.name not in ("calibrations", "descriptions", "reservations")
]
WRONG: list[Any] = ["", "{", "\x00", "nan", b"\xff\xfe{", b"", "12x", 7.5, "[1", -1]
"""What a value may have become."""


def damage(path: Path, table: str, column: str, value: Any) -> None:
    """Put *value* in every row of a column, past every rule of the table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        try:
            connection.execute(f'UPDATE {table} SET "{column}" = ?', (value,))  # noqa: S608 - our own names
        except sqlite3.IntegrityError:  # it must be unique: one row, then
            newest = f"rowid = (SELECT max(rowid) FROM {table})"  # noqa: S608 - ours
            query = f'UPDATE OR REPLACE {table} SET "{column}" = ? WHERE {newest}'  # noqa: S608 - ours
            with suppress(
                sqlite3.IntegrityError
            ):  # SQLite itself takes none but a number
                connection.execute(query, (value,))
        connection.commit()


def ask_everything(path: Path) -> list[PPUError]:
    """Return what every door says of a store; anything but an error of ours fails."""
    told: list[PPUError] = []
    try:
        with Store(path, is_verified=False) as store:
            for door in DOORS.values():
                try:
                    door(store)
                except PPUError as exc:
                    told.append(exc)
            store.check()
    except PPUError as exc:
        told.append(exc)
    return told


@settings(max_examples=40)  # each opens a store and asks all of its doors
@given(where=st.sampled_from(COLUMNS), value=st.sampled_from(WRONG))
def test_value_that_nobody_wrote_is_named_or_harmless(
    used: Path,
    tmp_path_factory: pytest.TempPathFactory,
    where: tuple[str, str],
    value: Any,
) -> None:
    """No door ends in an error of Python's, whatever a value has become."""
    path = tmp_path_factory.mktemp("damaged") / "lab.sqlite"
    shutil.copyfile(used, path)
    damage(path, *where, value)
    for error in ask_everything(path):
        if isinstance(error, StoreDamagedError):
            assert str(path) in str(error)
            assert "restore a backup" in str(error)


@settings(max_examples=40)
@given(data=st.data())
def test_flipped_bits_of_the_file_are_named_or_harmless(
    used: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whichever bytes have changed, every door answers or says what is wrong."""
    path = tmp_path_factory.mktemp("flipped") / "lab.sqlite"
    content = bytearray(used.read_bytes())
    places = st.integers(0, len(content) - 1)
    flips = st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=40)
    for where, bits in data.draw(flips):
        content[where] ^= bits
    path.write_bytes(content)
    for error in ask_everything(path):
        assert str(path) in str(error) or not isinstance(error, StoreDamagedError)


JSON_COLUMNS = [
    ("jobs", "parameters"),
    ("jobs", "tags"),
    ("jobs", "result"),
    ("steps", "arguments"),
    ("steps", "result"),
    ("events", "content"),
    ("commands", "content"),
]


@pytest.mark.parametrize("value", ["{", "", "[1,", '{"a":', b"\xff{}"])
@pytest.mark.parametrize(("table", "column"), JSON_COLUMNS)
def test_damaged_row_is_named_with_store_table_and_remedy(
    used: Path, tmp_path: Path, table: str, column: str, value: Any
) -> None:
    """The check names the row; so does whoever stumbles over it."""
    path = tmp_path / "lab.sqlite"
    shutil.copyfile(used, path)
    damage(path, table, column, value)
    with Store(path, is_verified=False) as store:
        faults = store.check()
    assert any(f"of {table}: {column} is no" in fault for fault in faults), faults
    for error in ask_everything(path):
        if isinstance(error, StoreDamagedError):
            assert f"store {path}: " in str(error)


def test_mistake_that_is_nobody_s_damage_is_not_called_damage(used: Path) -> None:
    """Where every row is as it was written, an error stays what it is."""
    with (
        Store(used, is_verified=False) as store,
        pytest.raises(ValueError, match="ours"),
        store.read(),
    ):
        raise ValueError("ours")
