"""What readings cost on the wire, and that whoever listens hears the same ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.core.capabilities import FiringProfile, Segment

OpenTwin = Callable[..., OpenLab]
Plan = MsgGenerator[Any]
Document = tuple[str, dict[str, Any]]

FURNACES = ("furnace_1", "furnace_2")
N_POINTS, DELAY_S = 100, 60.0
MOST_EXTRA = 10
"""What connection and configuration may cost beside 100 points: 10 %."""
SAMPLE_S = 10.0
"""How often both furnaces are sampled or polled, by the lab file [s]."""

PROGRAM_3216 = {1280: 60, 1281: 9000, 1282: 50}
"""900 degC at 5 degC/min, as somebody types it at the panel."""
PROGRAM_EPC = {8330: 1, 8336: 1, 8337: 9000, 8338: 50, 8344: 0}
FIRING = FiringProfile((Segment(120.0, 10.0, 600.0),), cool_to_degc=90.0)


def open_heating(open_twin: OpenTwin) -> OpenLab:
    """Open a twin whose furnaces heat because somebody started them at the panel."""
    lab = open_twin(links="memory")
    assert lab.bench is not None
    instruments: dict[str, Any] = dict(lab.bench.instruments)

    async def start() -> None:
        now = lab.host.loop.time()
        for name, program, run in (
            ("furnace_1", PROGRAM_3216, (23, 1)),
            ("furnace_2", PROGRAM_EPC, (10573, 1)),
        ):
            for register, value in (*program.items(), run):
                instruments[name].write(register, [value], now)

    lab.host.call(start())
    # By then it rises by more than its noise from one point to the next.
    lab.run(bp.count([lab[name] for name in FURNACES], num=11, delay=50.0))
    return lab


def exchanges(lab: OpenLab) -> dict[str, int]:
    """Return how many exchanges each furnace's link has had."""
    found = {}
    for name in FURNACES:
        statistics = lab[name].statistics()
        assert (statistics.n_retries, statistics.n_losses) == (0, 0)
        found[name] = statistics.n_exchanges
    return found


def cost_of(lab: OpenLab, plan: Any) -> tuple[dict[str, int], list[Document]]:
    """Run *plan*; return what it cost each furnace, and its documents."""
    documents: list[Document] = []
    before = exchanges(lab)
    token = lab.subscribe(lambda name, document: documents.append((name, document)))
    try:
        lab.run(plan)
    finally:
        lab.unsubscribe(token)
    after = exchanges(lab)
    return {name: after[name] - before[name] for name in FURNACES}, documents


def column(documents: list[Document], key: str) -> list[tuple[float, float]]:
    """Return times and values of *key* in events and event pages."""
    found: list[tuple[float, float]] = []
    for name, document in documents:
        if name == "event" and key in document["data"]:
            found.append((document["timestamps"][key], document["data"][key]))
        elif name == "event_page" and key in document["data"]:
            stamps, values = document["timestamps"][key], document["data"][key]
            found += zip(stamps, values, strict=True)
    return found


def hundred(lab: OpenLab) -> Plan:
    """Count both furnaces a hundred times, a minute apart."""
    devices = [lab[name] for name in FURNACES]
    return bp.count(devices, num=N_POINTS, delay=DELAY_S)


def hundred_staged(lab: OpenLab) -> Plan:
    """The same, staged by the author of the plan once more around it."""
    devices = [lab[name] for name in FURNACES]

    def inner() -> Plan:
        yield from bps.repeat(
            lambda: bps.one_shot(devices), num=N_POINTS, delay=DELAY_S
        )

    staged: Plan = bpp.stage_decorator(devices)(bpp.run_decorator()(inner))()
    return staged


@pytest.mark.parametrize("make", [hundred, hundred_staged])
def test_count_costs_one_exchange_a_point_when_nobody_listens(
    open_twin: OpenTwin, make: Callable[[OpenLab], Plan]
) -> None:
    """A hundred points of a heating furnace are as many values and exchanges."""
    lab = open_heating(open_twin)
    cost, documents = cost_of(lab, make(lab))

    for name in FURNACES:
        read = column(documents, f"{name}_process_value")
        assert len({value for _, value in read}) == N_POINTS
        assert read[-1][1] > read[0][1] + 300.0, "it does not heat"
        assert cost[name] == N_POINTS


def test_connecting_and_the_first_plan_cost_a_tenth_at_most(
    open_twin: OpenTwin,
) -> None:
    """Beside the points there is who it is, and nothing else."""
    lab = open_twin(links="memory")
    cost_of(lab, hundred(lab))

    for n_exchanges in exchanges(lab).values():
        assert N_POINTS < n_exchanges <= N_POINTS + MOST_EXTRA


def test_count_costs_its_points_and_the_polls_of_whoever_listens(
    open_twin: OpenTwin,
) -> None:
    """A subscriber costs its own polls, fewer where a point gave it the value."""
    lab = open_heating(open_twin)
    heard: dict[str, list[dict[str, Any]]] = {name: [] for name in FURNACES}

    async def listen() -> None:
        for name in FURNACES:
            lab[name].process_value.subscribe_reading(
                lambda readings, name=name: heard[name].append(*readings.values())
            )

    before = exchanges(lab)
    lab.host.call(listen())
    _, documents = cost_of(lab, hundred(lab))
    after = exchanges(lab)

    for name in FURNACES:
        read = column(documents, f"{name}_process_value")
        listened = [(one["timestamp"], one["value"]) for one in heard[name]]
        times = [time for time, _ in listened]
        assert times == sorted(set(times)), "something was heard twice"
        assert set(read) <= set(listened), "it did not hear what the plan read"
        n_polls = len(listened) - N_POINTS
        assert after[name] - before[name] == N_POINTS + n_polls
        # One poll a period, but for the period in which the plan asked.
        lasted_s = (N_POINTS - 1) * DELAY_S
        assert lasted_s / SAMPLE_S - N_POINTS <= n_polls <= lasted_s / SAMPLE_S + 1
        assert max(b - a for a, b in pairwise(times)) <= 2 * SAMPLE_S


@pytest.mark.parametrize("make", [hundred, hundred_staged])
def test_count_gives_equal_documents_twice(
    open_twin: OpenTwin, make: Callable[[OpenLab], Plan]
) -> None:
    """With one seed every value and every time is the same, to the last bit."""
    runs = []
    for _ in range(2):
        lab = open_heating(open_twin)
        _, documents = cost_of(lab, make(lab))
        runs.append(
            [
                (name, document.get("data"), document.get("timestamps"), document_time)
                for name, document in documents
                for document_time in [document.get("time")]
            ]
        )

    assert runs[0] == runs[1]
    assert len(runs[0]) == N_POINTS + 3  # start, descriptor, stop


# -- a firing that is watched ----------------------------------------------------------


def fire(lab: OpenLab, name: str, *, is_monitored: bool = False) -> Plan:
    """Fire along the profile; the monitor begins when it has started."""
    furnace = lab[name]
    yield from bps.prepare(furnace, FIRING, wait=True)

    def inner() -> Plan:
        yield from bps.kickoff(furnace, wait=True)
        if is_monitored:
            yield from bps.monitor(furnace.process_value, name="watched")
        yield from bps.complete(furnace, wait=True)
        if is_monitored:
            yield from bps.unmonitor(furnace.process_value)
        yield from bps.collect(furnace)

    yield from bpp.run_wrapper(inner())


@pytest.mark.parametrize("name", FURNACES)
def test_watched_firing_costs_what_an_unwatched_one_costs(
    open_twin: OpenTwin, name: str
) -> None:
    """Whoever listens gets the samples that are taken anyway: the very same ones."""
    unwatched, plain = cost_of((lab := open_twin(links="memory")), fire(lab, name))
    lab = open_twin(links="memory")
    furnace = lab[name]
    heard: list[tuple[float, float]] = []

    def hear(readings: dict[str, Any]) -> None:
        (reading,) = readings.values()
        heard.append((reading["timestamp"], reading["value"]))

    def listen() -> Plan:
        yield from bps.prepare(furnace, FIRING, wait=True)

        def inner() -> Plan:
            yield from bps.kickoff(furnace, wait=True)
            furnace.process_value.subscribe_reading(hear)
            yield from bps.monitor(furnace.process_value, name="watched")
            yield from bps.complete(furnace, wait=True)
            yield from bps.unmonitor(furnace.process_value)
            furnace.process_value.clear_sub(hear)
            yield from bps.collect(furnace)

        yield from bpp.run_wrapper(inner())

    watched, documents = cost_of(lab, listen())
    key = f"{name}_process_value"
    monitored = [
        (document["timestamps"][key], document["data"][key])
        for kind, document in documents
        if kind == "event"
    ]
    sampled = column([one for one in documents if one[0] == "event_page"], key)

    assert len(sampled) > 100
    assert sampled == column(plain, key), "watching changed the firing"
    assert monitored == heard == sampled
    assert watched[name] == unwatched[name]


@pytest.mark.parametrize("name", FURNACES)
def test_whoever_listened_before_hears_every_sample_of_a_firing(
    open_twin: OpenTwin, name: str
) -> None:
    """Polls rest while a firing samples, and go on after it."""
    lab = open_twin(links="memory")
    heard: list[float] = []

    async def listen() -> None:
        lab[name].process_value.subscribe_reading(
            lambda readings: heard.extend(one["timestamp"] for one in readings.values())
        )

    async def wait() -> None:
        await asyncio.sleep(10 * SAMPLE_S)

    lab.host.call(listen())
    lab.host.call(wait())
    n_before = len(heard)
    _, documents = cost_of(lab, fire(lab, name))
    stamps = [time for time, _ in column(documents, f"{name}_process_value")]
    n_after = len(heard)
    lab.host.call(wait())

    assert 10 <= n_before <= 11
    assert set(stamps) <= set(heard)
    during = [time for time in heard if stamps[0] <= time <= stamps[-1]]
    assert len(during) <= len(stamps) + 1, "polls went on beside the samples"
    assert 9 <= len(heard) - n_after <= 11
