"""A store of either kind: an SQLite file, or a schema of a PostgreSQL of our own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.pool import NullPool

from postgres import HOW_TO_HAVE_IT, can_be_started, postgres
from ppu.store import cells
from ppu.store.schema import SCHEMA_VERSION, jobs, meta, metadata
from ppu.store.store import Store


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL on a Unix socket in a temporary folder, ended with the session."""
    pytest.importorskip("psycopg", reason=HOW_TO_HAVE_IT)
    if not can_be_started():
        pytest.skip(HOW_TO_HAVE_IT)
    with postgres(is_durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_schema(postgres_url: str) -> Iterator[tuple[str, Engine]]:
    """A schema with a store's tables, and an engine to look after them."""
    engine = create_engine(
        postgres_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA kept"))
    yield f"{postgres_url}&options=-csearch_path%3Dkept", engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty store is: a path of its own, or a schema that is emptied after."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.sqlite")
        return
    url, engine = request.getfixturevalue("postgres_schema")
    yield url
    with engine.begin() as connection:
        connection.execute(text("SET search_path TO kept"))
        if (
            connection.execute(select(func.count()).select_from(jobs)).scalar_one()
            > 999
        ):
            connection.execute(text("TRUNCATE jobs CASCADE"))  # slow to begin with
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        version = {"key": "schema_version", "content": str(SCHEMA_VERSION)}
        connection.execute(meta.insert(), version)


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
