"""Documents of a job as a file: one ``{"name", "doc"}`` object a line."""

from __future__ import annotations

import json
from pathlib import Path

from ppu.core.errors import ConfigurationError
from ppu.store.documents import documents_of
from ppu.store.store import Store

__all__ = ["export_documents"]


def export_documents(store: Store, job_id: int, path: Path) -> None:
    """Write all documents of a job, completely or not at all.

    Args:
        store: Where they are kept.
        job_id: The job.
        path: The file; one that is there is replaced.

    Raises:
        ConfigurationError: If they cannot be written.
    """
    temporary = path.with_suffix(".part")
    try:
        with (
            temporary.open("w", encoding="utf-8") as file,
            store.read() as connection,
        ):
            for name, document in documents_of(connection, job_id):
                entry = {"name": name, "doc": document}
                file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        temporary.replace(path)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot write {exc.filename or path}: {exc.strerror}"
        ) from exc
