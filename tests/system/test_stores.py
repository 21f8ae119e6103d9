"""The short form of ``make campaign-stores``: stores that are taken from a hot lab."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from campaign.stores import Work, away, besieged, frozen, rolled_back, run_one
from postgres import HOW_TO_HAVE_IT, can_be_started

pytestmark = pytest.mark.slow

PACE = 200.0
needs_server = pytest.mark.skipif(not can_be_started(), reason=HOW_TO_HAVE_IT)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(
            partial(away, pace=PACE, seconds=2.0, in_dose=True), marks=needs_server
        ),
        pytest.param(partial(away, pace=PACE, seconds=5.0), marks=needs_server),
        pytest.param(partial(frozen, pace=PACE, seconds=5.0), marks=needs_server),
        partial(rolled_back, pace=PACE, is_restored=True),
        partial(rolled_back, pace=PACE, is_restored=False),
        partial(besieged, n_kills=2),
    ],
    ids=["killed in mid-dose", "stopped", "frozen", "restored", "no log", "besieged"],
)
def test_nothing_is_repeated_and_the_lab_goes_on(work: Work, tmp_path: Path) -> None:
    """Whatever becomes of the store, the world counts each act once."""
    trial = run_one("a short form", work, tmp_path / "trial")

    assert trial.violations == []
