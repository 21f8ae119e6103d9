"""Scripts of faults: when each is there, what it hits, and what is refused."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.simulation import TwinSettingsError
from ppu_simulators.faults import WIRE_FAULTS, Faults

KNOWN = {
    "thermocouple open": "the process value goes to the top of its range",
    "drift": "reads too high by_degc (5 if not said)",
}


def scripted(*entries: Mapping[str, Any], seed: int = 0) -> Faults:
    """Return the faults of an instrument with *entries* in its lab file."""
    return Faults("furnace", entries, KNOWN, np.random.default_rng(seed))


def hits(faults: Faults, times: list[float], fault: str = "drop") -> list[float]:
    """Return those of *times* at which an exchange is hit."""
    return [time for time in times if faults.strike(time, (fault,)) is not None]


times = st.floats(0, 1e5, allow_nan=False)
lengths = st.floats(0.5, 1e4)


@given(start=times, length=lengths, time=times)
@settings(max_examples=100)
def test_instrument_fault_is_there_within_its_window_only(
    start: float, length: float, time: float
) -> None:
    """It comes at at_s and has gone at at_s + for_s."""
    faults = scripted({"fault": "drift", "at_s": start, "for_s": length})

    assert faults.is_active("drift", time) is (start <= time < start + length)


@given(period=lengths, share=st.floats(0.01, 1.0), time=times)
@settings(max_examples=100)
def test_repeating_fault_is_there_once_each_period(
    period: float, share: float, time: float
) -> None:
    """Windows open at every multiple of the period, the first one period from now."""
    length = share * period
    faults = scripted({"fault": "drift", "every_s": period, "for_s": length})
    phase = math.fmod(time, period)
    if min(phase, abs(phase - length), period - phase) < 1e-6 * (1 + time):
        return  # too near an edge to tell by arithmetic of our own

    assert faults.is_active("drift", time) is (time >= period and phase < length)


@given(asked=st.lists(times, max_size=30), seed=st.integers(0, 20))
@settings(max_examples=50)
def test_instrument_fault_depends_on_time_alone(asked: list[float], seed: int) -> None:
    """Looking more often, and in any order, changes nothing."""
    entry = {
        "fault": "drift",
        "every_s": 100.0,
        "for_s": 50.0,
        "with_probability": 0.5,
    }
    curious, patient = scripted(entry, seed=seed), scripted(entry, seed=seed)
    for time in asked:
        curious.is_active("drift", time)
    probes = [125.0 + 100 * n for n in range(50)]

    assert [curious.is_active("drift", t) for t in probes] == [
        patient.is_active("drift", t) for t in probes
    ]


def test_instrument_fault_without_a_length_lasts_for_good() -> None:
    """What breaks does not mend by itself."""
    faults = scripted({"fault": "thermocouple open", "at_s": 10})

    assert [faults.is_active("thermocouple open", t) for t in (9.9, 10, 1e9)] == [
        False,
        True,
        True,
    ]


def test_probability_is_that_of_a_window_when_an_instrument_fails() -> None:
    """About a third of 3000 windows have the fault, each one all along."""
    faults = scripted(
        {"fault": "drift", "every_s": 10, "for_s": 9, "with_probability": 1 / 3}
    )
    starts = [10.0 * n for n in range(1, 3001)]
    begins = [faults.is_active("drift", start) for start in starts]

    assert begins == [faults.is_active("drift", start + 8) for start in starts]
    assert 900 < sum(begins) < 1100


def test_wire_fault_hits_one_exchange_when_no_length_is_given() -> None:
    """The first exchange from then on, and no other."""
    faults = scripted({"fault": "drop", "at_s": 5})

    assert hits(faults, [1, 4, 7, 8, 9]) == [7]
    assert not faults.has_strikes


def test_wire_fault_hits_one_exchange_of_each_period() -> None:
    """Without for_s every period has one exchange that is hit."""
    faults = scripted({"fault": "drop", "every_s": 10})

    assert hits(faults, [3, 9, 10, 11, 25, 26, 31]) == [10, 25, 31]


def test_wire_fault_hits_all_exchanges_while_its_window_is_open() -> None:
    """With for_s nobody gets through, until it is over."""
    faults = scripted({"fault": "drop", "at_s": 5, "for_s": 10})

    assert hits(faults, [4, 5, 6, 14.9, 15, 16]) == [5, 6, 14.9]
    assert not faults.has_strikes


def test_wire_fault_hits_as_many_as_it_counts() -> None:
    """Count bounds the exchanges of one window."""
    faults = scripted({"fault": "drop", "every_s": 10, "for_s": 5, "count": 2})

    assert hits(faults, [10, 11, 12, 20, 21, 22]) == [10, 11, 20, 21]


def test_probability_is_that_of_an_exchange_when_a_wire_fails() -> None:
    """A quarter of 4000 exchanges is hit, and the same ones for the same seed."""
    entry = {"fault": "drop", "for_s": math.inf, "with_probability": 0.25}
    exchanges = [float(n) for n in range(4000)]
    first, again = hits(scripted(entry), exchanges), hits(scripted(entry), exchanges)

    assert 900 < len(first) < 1100
    assert first == again
    assert first != hits(scripted(entry, seed=1), exchanges)


def test_first_of_two_scripts_takes_the_exchange() -> None:
    """One exchange is hit by one fault; the other script waits."""
    faults = scripted({"fault": "drop"}, {"fault": "delay", "by_s": 2})
    among = ("drop", "delay")
    struck = [strike and strike.fault for strike in (faults.strike(0, among),)]
    second = faults.strike(1, among)

    assert struck == ["drop"]
    assert second is not None
    assert (second.fault, second.options) == ("delay", {"by_s": 2.0})


def test_option_is_that_of_the_script_that_is_there() -> None:
    """Each window has its own numbers; without any the simulator's own applies."""
    faults = scripted(
        {"fault": "drift", "at_s": 10, "for_s": 5, "by_degc": 7},
        {"fault": "drift", "at_s": 20, "for_s": 5, "by_degc": -3},
        {"fault": "thermocouple open", "at_s": 0},
    )
    found = []
    for time in (12, 22):
        faults.is_active("drift", time)
        found.append(faults.option("drift", "by_degc", 5.0))

    assert found == [7.0, -3.0]
    assert faults.option("thermocouple open", "by_degc", 5.0) == 5.0


def test_injected_fault_counts_from_then() -> None:
    """at_s of what is told at run time is a delay."""
    faults = scripted()
    faults.inject({"fault": "drift", "at_s": 10, "for_s": 5}, 1000.0)

    assert [faults.is_active("drift", t) for t in (999, 1009, 1010, 1015)] == [
        False,
        False,
        True,
        False,
    ]


def test_clear_ends_faults_but_not_their_past() -> None:
    """Physics that looks back still finds what was there before."""
    faults = scripted({"fault": "drift"}, {"fault": "drop", "for_s": 100})
    faults.clear(50.0)

    assert [faults.is_active("drift", t) for t in (49, 50, 60)] == [True, False, False]
    assert hits(faults, [60, 70]) == []
    assert not faults.has_strikes


def test_log_tells_what_hit_and_when() -> None:
    """Exchanges with their time, states once, with the time they came."""
    faults = scripted({"fault": "drop", "at_s": 5}, {"fault": "drift", "at_s": 6})
    hits(faults, [4, 7, 8])
    for time in (5, 9, 10):
        faults.is_active("drift", time)

    assert list(faults.log) == [(7, "drop"), (6, "drift")]


def test_port_edges_are_when_a_port_comes_or_goes() -> None:
    """A front needs to look at these times and at no other."""
    faults = scripted(
        {"fault": "unplug", "every_s": 100, "for_s": 10},
        {"fault": "refuse", "at_s": 105, "for_s": 20},
        {"fault": "drift", "at_s": 101},
    )
    edges, time = [], 0.0
    for _ in range(6):
        time = faults.next_port_edge(time)
        edges.append(time)

    assert edges == [100, 105, 110, 125, 200, 210]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"fault": "thermocuple open"}, "did you mean 'thermocouple open'?"),
        ({"fault": "half open"}, "did you mean 'half-open'?"),
        ({"fault": ["drop"]}, "unknown fault"),
        ({"at_s": 3}, "'fault' is missing"),
        ("drop", "should look like {fault: drop, at_s: 60}"),
        ({"fault": "drop", "at_min": 3}, "unknown key 'at_min'; did you mean 'at_s'?"),
        ({"fault": "drop", "by_s": 3}, "unknown key 'by_s'"),
        ({"fault": "drift", "by_deg": 3}, "did you mean 'by_degc'?"),
        ({"fault": "drift", "count": 3}, "unknown key 'count'"),
        ({"fault": "drop", "for_s": "10 s"}, "for_s should be a number of seconds"),
        ({"fault": "drop", "for_s": 0}, "for_s should be a number of seconds of at"),
        ({"fault": "drop", "every_s": 1e-300}, "every_s should be a number of seconds"),
        ({"fault": "delay", "by_s": 1e308}, "by_s should be a number of seconds of at"),
        ({"fault": "drop", "at_s": -1}, "at_s should be a number of seconds of at l"),
        ({"fault": "drop", "at_s": math.inf}, "at_s should be a number of seconds"),
        ({"fault": "drop", "at_s": None}, "at_s should be a number of seconds"),
        ({"fault": "drop", "at_s": True}, "at_s should be a number of seconds"),
        ({"fault": "drop", "with_probability": 2}, "of at most 1, not 2"),
        ({"fault": "drop", "with_probability": math.nan}, "with_probability should"),
        ({"fault": "drop", "count": 1.5}, "count should be a whole number"),
        ({"fault": "drop", "at_s": 1, "every_s": 2}, "either at_s or every_s"),
        ({"fault": "drop", "every_s": 2, "for_s": 3}, "for_s (3) should be at most"),
        ({"fault": "drift", "every_s": 2}, "every_s needs for_s"),
        ({"fault": "delay", "by_s": 0}, "by_s should be above 0"),
        ({"fault": "drift", "by_degc": "5 K"}, "by_degc should be a number"),
    ],
)
def test_wrong_script_is_refused_with_what_is_allowed(entry: Any, text: str) -> None:
    """A lab file and a running bench say alike what is wrong."""
    with pytest.raises(TwinSettingsError) as refusal:
        scripted(entry)
    faults = scripted()
    with pytest.raises(TwinSettingsError) as refused_later:
        faults.inject(entry, 0.0)

    assert text in str(refusal.value)
    assert text in str(refused_later.value)
    assert not faults.has_strikes


def test_every_wrong_script_is_named_with_its_place() -> None:
    """One look at the message mends the whole list."""
    with pytest.raises(TwinSettingsError) as refusal:
        scripted({"fault": "dorp"}, {"fault": "drop"}, {"fault": "drop", "x": 1})

    assert [place for place, _ in refusal.value.problems] == [
        ("faults", 0),
        ("faults", 2),
    ]


@pytest.mark.parametrize("entries", [{"fault": "drop"}, "drop", 3])
def test_faults_that_are_no_list_are_refused(entries: Any) -> None:
    """A lonely mapping is a usual slip."""
    with pytest.raises(TwinSettingsError, match="should be a list"):
        Faults("furnace", entries, KNOWN, np.random.default_rng(0))


def test_what_a_wire_cannot_do_is_refused() -> None:
    """At construction of the front, and when it is told later."""
    faults = scripted({"fault": "drop"}, {"fault": "wrong unit"})
    with pytest.raises(TwinSettingsError, match="cannot happen on this door") as early:
        faults.serve("door", {"wrong unit": "it has none"})
    with pytest.raises(TwinSettingsError, match="it has none"):
        faults.inject({"fault": "wrong unit"}, 0.0)

    assert early.value.problems[0][0] == ("faults", 1)
    assert set(faults.known) == {*KNOWN, *WIRE_FAULTS} - {"wrong unit"}


def test_instrument_may_not_name_its_own_fault_like_one_of_the_wire() -> None:
    """Or nobody could tell which is meant."""
    with pytest.raises(ValueError, match="fault of every wire"):
        Faults("furnace", [], {"drop": "lets it fall"}, np.random.default_rng(0))
