"""The tables of the store, and how an older file becomes one of today.

Stamps are lab time as UTC [s since 1970]: wall time on hardware. What a cell calls lab
time is a stamp less the ``epoch`` in the cell's row. JSON is kept as text. Every row
that changes is announced by an event, whose number is the one global sequence.
"""

from __future__ import annotations

import uuid

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    inspect,
    select,
    text,
)

from ppu.core.errors import ConfigurationError
from ppu.store.migrations import MIGRATIONS

__all__ = [
    "SCHEMA_VERSION",
    "JsonText",
    "NoStoreError",
    "allocations",
    "calibrations",
    "campaigns",
    "cells",
    "commands",
    "containers",
    "custody",
    "descriptions",
    "documents",
    "events",
    "identity",
    "job_needs",
    "jobs",
    "locations",
    "meta",
    "metadata",
    "prepare",
    "sample_containers",
    "samples",
    "steps",
    "stock",
    "tag_outs",
]

SCHEMA_VERSION = len(MIGRATIONS) + 1

BIG = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite's own row number must be spelled INTEGER."""


class NoStoreError(ConfigurationError):
    """A newer PPU has made the tables, or something else; nothing was changed."""


class JsonText(Text):
    """Text that is JSON."""


metadata = MetaData()

_IDENTITY = "identity"

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("content", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("sequence", BIG, primary_key=True, autoincrement=False),
    Column("stamp", Double, nullable=False),
    Column("job_id", BIG),
    Column("kind", String, nullable=False),
    Column("content", JsonText, nullable=False),
    Index("events_of_job", "job_id", "sequence"),
)

cells = Table(
    "cells",
    metadata,
    Column("token", BIG, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("pid", BIG, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("epoch", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
    Column("ended", Double),
    Column("how", String),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("name", String, primary_key=True),
    Column("used_s", Double, nullable=False),
    Column("used_at", Double, nullable=False),
)
"""Recent use of the cell by each campaign, as of ``used_at``; it decays since."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", BIG, primary_key=True, autoincrement=False),
    Column("key", String, unique=True),
    Column("digest", String, nullable=False),
    Column("protocol", String, nullable=False),
    Column("version", String, nullable=False),
    Column("parameters", JsonText, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("campaign", String, nullable=False),
    Column("deadline", Double),
    Column("tags", JsonText, nullable=False),
    Column("parent_id", BIG, ForeignKey("jobs.id")),
    Column("state", String, nullable=False),
    Column("is_held", Boolean, nullable=False),
    Column("rank", BIG, nullable=False),
    Column("n_unmet_needs", Integer, nullable=False),
    Column("physical_effect", String, nullable=False),
    Column("is_retryable", Boolean, nullable=False),
    Column("reason_code", String),
    Column("reason_text", Text),
    Column("advice", JsonText),
    Column("failure_class", String),
    Column("field", String),
    Column("result", JsonText),
    Column("submitted", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("lease_token", BIG, ForeignKey("cells.token")),
    Column("lease_began", Double),
    Column("lease_expires", Double),
    Column("deadline_s", Double),
    Column("is_set_aside", Boolean, nullable=False, server_default=false()),
    Column("n_tries", Integer, nullable=False, server_default="0"),
    Column("not_before", Double),
    Index(
        "jobs_claimable",
        *("state", "is_held", "n_unmet_needs", "is_set_aside", "priority", "campaign"),
        *("rank", "not_before", "id"),
    ),
    # Partial, so that their size is that of the queue and not that of the history.
    Index(
        "jobs_leased",
        "lease_token",
        sqlite_where=text("lease_token IS NOT NULL"),
    ),
    Index(
        "jobs_expiring",
        "deadline",
        sqlite_where=text("deadline IS NOT NULL AND started IS NULL AND ended IS NULL"),
    ),
    Index(
        "jobs_set_aside",
        "id",
        sqlite_where=text("is_set_aside"),
    ),
    Index(
        "jobs_tried_again",
        "not_before",
        sqlite_where=text("not_before IS NOT NULL"),
    ),
    Index(
        "jobs_to_be_timed",
        "id",
        sqlite_where=text("deadline_s IS NOT NULL AND deadline IS NULL"),
    ),
    Index("jobs_by_campaign", "campaign", "id"),
    Index("jobs_by_parent", "parent_id"),
)

"""``deadline_s`` counts from the moment at which a cell sees the job where lab time is
not the wall clock's. One that is set aside waits for something that is not there, and
is looked at again when the lab has changed; ``not_before`` is when one is tried again.
"""

job_needs = Table(
    "job_needs",
    metadata,
    Column("job_id", BIG, ForeignKey("jobs.id"), primary_key=True),
    Column("needed_id", BIG, ForeignKey("jobs.id"), primary_key=True),
    Index("job_needs_of", "needed_id"),
)

steps = Table(
    "steps",
    metadata,
    Column("job_id", BIG, ForeignKey("jobs.id"), primary_key=True),
    Column("path", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("arguments", JsonText, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("result", JsonText),
    Column("evidence", JsonText),
    Column("policy", JsonText),
    Column("token", BIG, ForeignKey("cells.token"), nullable=False),
    Column("begun", Double, nullable=False),
    Column("ended", Double),
    Column("seat", String),
    Column("devices", Text),
)
"""Steps by path: "3" is the job's third, "3.1" the first within it."""

documents = Table(
    "documents",
    metadata,
    Column("sequence", BIG, ForeignKey("events.sequence"), primary_key=True),
    Column("job_id", BIG, ForeignKey("jobs.id")),
    Column("run_uid", String, nullable=False),
    Column("name", String, nullable=False),
    Column("content", JsonText, nullable=False),
    Index("documents_of_run", "run_uid", "sequence"),
    Index("documents_of_job", "job_id", "sequence"),
)

locations = Table(
    "locations",
    metadata,
    Column("name", String, primary_key=True),
    Column("holds", String, nullable=False),
)
"""Places of the lab, as the lab file of the last cell has them."""

containers = Table(
    "containers",
    metadata,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("home", String, nullable=False, unique=True),
    Column("location", String, unique=True),
    Column("under_way_to", String),
    Column("is_used", Boolean, nullable=False),
    CheckConstraint("location IS NULL OR under_way_to IS NULL", "is_at_one_place"),
)
"""Where containers are; ``location`` is null while one is under way or lost."""

samples = Table(
    "samples",
    metadata,
    Column("id", String, primary_key=True),
    Column("job_id", BIG, ForeignKey("jobs.id"), nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text),
    Index("samples_of_job", "job_id"),
)

sample_containers = Table(
    "sample_containers",
    metadata,
    Column("container", String, ForeignKey("containers.name"), primary_key=True),
    Column("sample", String, ForeignKey("samples.id"), nullable=False),
    Index("containers_of_sample", "sample"),
)
"""What samples are in now: one may be in several, a container holds one at most."""

custody = Table(
    "custody",
    metadata,
    Column("sequence", BIG, ForeignKey("events.sequence"), primary_key=True),
    Column("container", String, ForeignKey("containers.name"), nullable=False),
    Column("sample", String, ForeignKey("samples.id")),
    Column("origin", String),
    Column("destination", String),
    Column("by", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("evidence", Text),
    Index("custody_of_container", "container", "sequence"),
    Index("custody_of_sample", "sample", "sequence"),
)

stock = Table(
    "stock",
    metadata,
    Column("powder", String, primary_key=True),
    Column("mass_g", Double, CheckConstraint("mass_g >= 0"), nullable=False),
)

allocations = Table(
    "reservations",
    metadata,
    Column("job_id", BIG, ForeignKey("jobs.id"), primary_key=True),
    Column("powder", String, primary_key=True),
    Column("mass_g", Double, CheckConstraint("mass_g >= 0"), nullable=False),
    Index("reservations_of_powder", "powder"),
)
"""What jobs will use; also of a powder that no cell has declared yet."""

tag_outs = Table(
    "tag_outs",
    metadata,
    Column("device", String, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("by", String, nullable=False),
    Column("since", Double, nullable=False),
)
"""Devices that people have taken out of service, until they return them."""

calibrations = Table(
    "calibrations",
    metadata,
    Column("sequence", BIG, ForeignKey("events.sequence"), primary_key=True),
    Column("device", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("content", JsonText, nullable=False),
    Column("valid_until", Double),
    Index("calibrations_of_device", "device", "kind", "sequence"),
)

commands = Table(
    "commands",
    metadata,
    Column("sequence", BIG, ForeignKey("events.sequence"), primary_key=True),
    Column("job_id", BIG, ForeignKey("jobs.id")),
    Column("command", String, nullable=False),
    Column("content", JsonText, nullable=False),
    Column("by", String, nullable=False),
    Column("asked", Double, nullable=False),
    Column("handled", Double),
    Column("outcome", Text),
    Column("advice", JsonText),
    Index("commands_of_job", "job_id", "sequence"),
    Index(
        "commands_waiting",
        "sequence",
        sqlite_where=text("handled IS NULL"),
    ),
)
"""What people and clients ask the cell to do; ``sequence`` names the command."""

descriptions = Table(
    "descriptions",
    metadata,
    Column("digest", String, primary_key=True),
    Column("lab", String, nullable=False),
    Column("described", Double, nullable=False),
    Column("content", JsonText, nullable=False),
)
"""What is known of labs without their instruments, by a digest of their files."""


def _make_indexes_partial() -> None:
    """Let indexes of PostgreSQL be partial, too.

    Not where they are declared: that would load all drivers of PostgreSQL in every
    process that only looks at an SQLite file.
    """
    for table in metadata.tables.values():
        for index in table.indexes:
            where = index.dialect_kwargs.get("sqlite_where")
            if where is not None:
                index.dialect_kwargs["postgresql_where"] = where


def prepare(connection: Connection) -> None:
    """Make the tables, or bring those of an older version up to date.

    Call it inside a transaction, so that the file is of one version or the other.

    Raises:
        ConfigurationError: If a newer PPU made the file, or something else.
    """
    version = known_version_of(connection)
    if version == SCHEMA_VERSION:
        return
    _make_indexes_partial()
    metadata.create_all(connection, checkfirst=version > 0)
    for migrate in MIGRATIONS[max(version, 1) - 1 :] if version else []:
        migrate(connection)
    identity(connection)
    connection.execute(meta.delete().where(meta.c.key == "schema_version"))
    connection.execute(
        meta.insert(), {"key": "schema_version", "content": str(SCHEMA_VERSION)}
    )


def identity(connection: Connection) -> str:
    """Return what tells a store from others, wherever it is; it is made once.

    Args:
        connection: A writing transaction of the store.
    """
    query = select(meta.c.content).where(meta.c.key == _IDENTITY)
    found = connection.execute(query).scalar()
    if found is None:
        found = uuid.uuid4().hex
        connection.execute(meta.insert(), {"key": _IDENTITY, "content": found})
    return str(found)


def known_version_of(connection: Connection) -> int:
    """Return the schema version, as :func:`version_of`.

    Raises:
        ConfigurationError: If a newer PPU made the file, or something else.
    """
    version = version_of(connection)
    if version > SCHEMA_VERSION:
        raise NoStoreError(
            f"the store has schema version {version} and this PPU knows "
            f"{SCHEMA_VERSION} at most; use the newer PPU that wrote it"
        )
    return version


def version_of(connection: Connection) -> int:
    """Return the schema version, 0 if there are no tables yet."""
    tables = set(inspect(connection).get_table_names())
    if "meta" in tables:
        query = select(meta.c.content).where(meta.c.key == "schema_version")
        found = connection.execute(query).scalar()
        if isinstance(found, str) and found.isdecimal():
            return int(found)
        if found is not None:
            raise NoStoreError(
                f"it is damaged; restore a backup: its schema version is {found!r}"
            )
    elif "journal" in tables:
        return 1
    elif not tables:
        return 0
    raise NoStoreError(
        f"this database is not a store of PPU: it has {', '.join(sorted(tables))}"
    )
