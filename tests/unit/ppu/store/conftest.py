"""A store of either kind: an SQLite file, or a schema of a PostgreSQL of our own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ppu.store import cells
from ppu.store.store import Store


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty store is: a path of its own, or a schema that is emptied after."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.sqlite")
        return
    yield request.getfixturevalue("postgres_store")


@pytest.fixture
def open_store() -> Iterator[Callable[[str | Path], Store]]:
    """Opens stores, and closes them at the end of the test."""
    opened: list[Store] = []

    def open_one(where: str | Path) -> Store:
        opened.append(Store(where))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(where: str, open_store: Callable[[str | Path], Store]) -> Store:
    """An empty store."""
    return open_store(where)


@pytest.fixture
def token(store: Store) -> int:
    """The token of a cell that has just started in *store*."""
    return store.write(
        lambda connection: cells.start(
            connection, "lab", 0.0, pid=1, boot_id="boot", epoch=0.0
        )
    )
