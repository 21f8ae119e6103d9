"""What must not become slow with a long history."""

from pathlib import Path

from sqlalchemy import text

from ppu.store.queue._claiming import _HEADS
from ppu.store.store import Store


def test_claim_looks_only_at_jobs_that_wait(tmp_path: Path) -> None:
    """However many jobs have ended, an index leads past them."""
    with Store(tmp_path / "store.sqlite") as store, store.read() as connection:
        literally = {"literal_binds": True}
        heads = _HEADS.params(now=1.0)
        query = str(heads.compile(connection, compile_kwargs=literally))
        plan = [
            row.detail
            for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))
        ]

    assert any("USING COVERING INDEX jobs_claimable (state=?" in step for step in plan)
    assert not [step for step in plan if step.startswith("SCAN")]
