"""Fixtures of the integration tests."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cell_life import MakeLife, count_starts
from exercise import LAB, World, exercise
from mortal import MortalCell


@pytest.fixture
def live(tmp_path: Path) -> Iterator[MakeLife]:
    """Makes a cell in the exercise lab, whose file may be changed."""
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
    World.acts.clear()
    World.n_faults_due = 0
    lives: list[MortalCell] = []

    def make(**change: Any) -> MortalCell:
        life = MortalCell(copy.deepcopy(LAB) | change, tmp_path, {"exercise": exercise})
        lives.append(life)
        count_starts(life)
        return life

    yield make
    for life in lives:
        life.close()
