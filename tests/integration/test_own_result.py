"""A job's result has what was its own in the lab, before a crash and after it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cell_life import MakeLife, job, steps_of, submit
from mortal import MortalCell
from ppu.store.jobs import JobState


def result_of(life: MortalCell, job_id: int) -> dict[str, Any]:
    """Return what the job's directory says came of it."""
    path = life.folder / "results" / str(job_id) / "result.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_result_has_the_firing_that_was_shared_and_joined_again(live: MakeLife) -> None:
    """Both jobs see the whole of it once, and none of what the third one did."""
    life = live()
    *sharing, alone = submit(
        life, {"kind": "fire"}, {"kind": "fire"}, {"kind": "press"}
    )
    life.start()
    while any("fire_seat" not in steps_of(life, n) for n in sharing):
        life.advance(50.0)
    while job(life, alone).state is not JobState.SUCCEEDED:
        life.advance(50.0)
    life.advance(100.0)
    life.kill()
    life.start()
    life.advance(9000.0)
    assert {job(life, n).state for n in (*sharing, alone)} == {JobState.SUCCEEDED}
    one, other, third = (result_of(life, n) for n in (*sharing, alone))

    assert one["firings"] == other["firings"]
    (firing,) = one["firings"]
    assert firing["jobs"] == sharing
    assert firing["energy_kwh"] is None
    assert "settings.rated_power_w of furnace_1" in firing["energy_source"]
    assert (third["firings"], third["furnaces"]) == ([], [])
    assert "furnace_1" in one["devices"]
    assert "furnace_1" not in third["devices"]
    for result in (one, other, third):
        waited = sum(s for code, s in result["waited_s"].items() if code != "queue")
        assert result["active_s"] + waited == pytest.approx(result["lab_time_s"])
        assert set(result["parameters_asked"]) <= set(result["parameters_actual"])
    # The furnace was at work for both all the time that it took, and it began once.
    assert one["active_s"] >= firing["ended"] - firing["began"] - 60.0
    assert other["active_s"] >= firing["ended"] - firing["began"] - 60.0
