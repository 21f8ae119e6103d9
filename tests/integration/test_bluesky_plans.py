"""Ordinary Bluesky on a lab: every row of docs/reference/bluesky.md, literally."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppu.cell.lab import OpenLab
from ppu.core.errors import PPUError
from ppu.core.labtime import TWIN_EPOCH

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "bluesky.md"
OpenTwin = Callable[..., OpenLab]
Document = tuple[str, dict[str, Any]]


def rows(n_columns: int) -> list[list[str]]:
    """Return the rows of the page's tables that have so many columns."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == n_columns and "`" in line:
            found.append(cells)
    return found


PLANS = {what.replace("`", ""): plan.strip("`") for what, plan, _ in rows(3)}
REFUSED = {plan.strip("`"): why for plan, why in rows(2)}


def names() -> dict[str, Any]:
    """Return what the page says its rows name."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), found)  # noqa: S102 - our own page
    return found


def documents_of(lab: OpenLab, plan: str) -> list[Document]:
    """Run *plan* as it stands; return its documents."""
    documents: list[Document] = []
    token = lab.subscribe(lambda name, document: documents.append((name, document)))
    try:
        lab.run(eval(plan, names() | {"lab": lab}))  # noqa: S307 - our own page
    finally:
        lab.unsubscribe(token)
    return documents


def without_uids(documents: list[Document]) -> list[Any]:
    """Return *documents* without what is another in every run by intention."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: strip(item)
                for key, item in value.items()
                if key not in {"uid", "run_start", "descriptor"}
            }
        if isinstance(value, list):
            return [strip(item) for item in value]
        return repr(value) if isinstance(value, float) and math.isnan(value) else value

    return [(name, strip(document)) for name, document in documents]


def test_page_has_what_a_bluesky_user_would_look_for() -> None:
    """The tables were read: nothing below passes because there is nothing to run."""
    assert len(PLANS) >= 20
    assert len(REFUSED) >= 6


@pytest.mark.parametrize("what", PLANS)
def test_plan_gives_the_same_documents_twice_when_time_jumps(
    open_twin: OpenTwin, what: str
) -> None:
    """Every row runs, and with the same seed every value and time is the same."""
    first = documents_of(open_twin(links="memory"), PLANS[what])
    second = documents_of(open_twin(links="memory"), PLANS[what])

    assert without_uids(first) == without_uids(second)
    stops = [document for name, document in first if name == "stop"]
    assert all(stop["exit_status"] == "success" for stop in stops)
    if not what.startswith(("abs_set", "rel_set", "rd")):
        assert any(name in ("event", "event_page") for name, _ in first)


@pytest.mark.parametrize("what", PLANS)
def test_plan_runs_when_time_flows(open_twin: OpenTwin, what: str) -> None:
    """What jumps works at sixty times the wall's pace, too."""
    lab = open_twin(pace=60.0)
    documents = documents_of(lab, PLANS[what])

    stops = [document for name, document in documents if name == "stop"]
    assert all(stop["exit_status"] == "success" for stop in stops)


@pytest.mark.parametrize("plan", REFUSED)
def test_plan_is_refused_with_what_to_do_instead(
    open_twin: OpenTwin, plan: str
) -> None:
    """What a lab does not do is said, with its reason, before anything moves."""
    with pytest.raises(PPUError, match=re.escape(REFUSED[plan])):
        documents_of(open_twin(links="memory"), plan)


@pytest.mark.parametrize("delay", [60.0, 7.5, 2.0])
def test_events_lie_on_the_grid_of_their_delay(
    open_twin: OpenTwin, delay: float
) -> None:
    """However long reading takes, the next point comes when it is due."""
    lab = open_twin(links="memory")
    plan = f"bp.count([lab.furnace_1, lab.balance], num=20, delay={delay})"
    times = [
        document["timestamps"]["furnace_1_process_value"]
        for name, document in documents_of(lab, plan)
        if name == "event"
    ]

    passed = [time - times[0] for time in times]
    assert passed == pytest.approx([n * delay for n in range(20)], abs=1e-6)
    assert times[0] - TWIN_EPOCH < 60.0
