"""Jobs whose process dies at any commit, and what becomes of them afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_plans import cut_everywhere
from ppu.core.labtime import LabTimeLoop
from ppu.engine.host import Host


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on a jumping loop."""
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    host = Host(LabTimeLoop(None))
    yield host
    host.close()


@pytest.mark.parametrize("seed", [389])  # all kinds in seven steps
def test_job_is_the_same_wherever_its_process_died(
    host: Host, tmp_path: Path, seed: int
) -> None:
    """At each commit, before and after it: nothing lost, nothing acted twice."""
    counted = cut_everywhere(host, tmp_path, seed)

    assert counted["cuts"] == 2 * counted["works"] > 40
