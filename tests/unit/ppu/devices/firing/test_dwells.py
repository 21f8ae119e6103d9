"""How the furnace driver times the dwells of a program."""

import itertools
import math
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ppu.core.capabilities import FiringRecord, Segment
from ppu.devices.firing import DwellWatch

PERIOD_S = 10.0
START_DEGC = 25.0
BLUR_S = 15.0
"""How long the slowest ramp here reads as its target, before and after it [s]."""

segments = st.lists(
    st.builds(
        Segment,
        st.integers(300, 11000).map(lambda tenths: tenths / 10),
        st.integers(5, 100).map(lambda tenths: tenths / 10),
        st.integers(0, 120).map(lambda minutes: 60.0 * minutes),
    ),
    min_size=1,
    max_size=8,
).filter(
    lambda found: all(
        abs(after.target_degc - before.target_degc) > 0.5
        for before, after in pairwise(found)
    )
)


def setpoint_at(program: tuple[Segment, ...], time: float) -> float | None:
    """Return the working setpoint of an ideal programmer, None after its end."""
    setpoint = START_DEGC
    for segment in program:
        ramp_s = abs(segment.target_degc - setpoint) / segment.ramp_degc_per_min * 60
        if time < ramp_s:
            way = math.copysign(
                segment.ramp_degc_per_min / 60, segment.target_degc - setpoint
            )
            return setpoint + way * time
        time -= ramp_s
        if time < segment.dwell_s:
            return segment.target_degc
        time -= segment.dwell_s
        setpoint = segment.target_degc
    return None


def watch(
    asked: tuple[Segment, ...], run: tuple[Segment, ...], phase_s: float
) -> tuple[str | None, list[float]]:
    """Return the fault and the measured dwells when *run* was run and *asked* asked."""
    watching = DwellWatch(asked, PERIOD_S)
    for n in itertools.count():
        time = phase_s + n * PERIOD_S
        setpoint = setpoint_at(run, time)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        fault = watching.judge(time, shown, setpoint is not None)
        if fault is not None or setpoint is None:
            return fault, watching.measured_s
    raise AssertionError("every program ends")


@given(program=segments, phase_s=st.floats(0.0, PERIOD_S))
@settings(max_examples=60)
def test_dwell_watch_measures_every_dwell_when_the_program_runs_as_asked(
    program: list[Segment], phase_s: float
) -> None:
    """Whatever the profile and the moment of sampling, a right run is no fault."""
    fault, measured = watch(tuple(program), tuple(program), phase_s)

    assert fault is None
    assert measured == pytest.approx(
        [segment.dwell_s for segment in program], abs=2 * PERIOD_S + BLUR_S
    )


@given(
    program=segments.filter(lambda found: any(s.dwell_s >= 60.0 for s in found)),
    factor=st.sampled_from([1 / 60, 60.0]),
)
@settings(max_examples=40)
def test_dwell_watch_finds_the_fault_when_the_unit_is_wrong(
    program: list[Segment], factor: float
) -> None:
    """A minute taken for an hour, or an hour for a minute, never goes unnoticed."""
    run = tuple(
        Segment(s.target_degc, s.ramp_degc_per_min, s.dwell_s * factor) for s in program
    )
    fault, _ = watch(tuple(program), run, 0.0)

    assert fault is not None
    assert "degC" in fault


@given(program=segments.filter(lambda found: found[-1].dwell_s >= 60.0))
@settings(max_examples=30)
def test_dwell_watch_finds_the_fault_when_the_last_segment_is_not_run(
    program: list[Segment],
) -> None:
    """A program that ends early is told, even between two dwells."""
    fault, _ = watch(tuple(program), tuple(program[:-1]), 0.0)

    assert fault is not None
    assert f"{program[-1].target_degc:g} degC" in fault


def watch_with_outage(
    program: tuple[Segment, ...], outage_s: float, begin_s: float
) -> str | None:
    """Return the fault when nothing is heard for *outage_s* from *begin_s* on."""
    watching = DwellWatch(program, PERIOD_S)
    for n in itertools.count():
        time = n * PERIOD_S
        if max(begin_s, 0.0) < time < begin_s + outage_s:
            continue
        setpoint = setpoint_at(program, time)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        fault = watching.judge(time, shown, setpoint is not None)
        if fault is not None or setpoint is None:
            return fault
    raise AssertionError("every program ends")


@given(
    program=segments,
    outage_s=st.floats(0.0, 300.0),
    part=st.floats(0.0, 1.0),
    index=st.integers(0, 7),
)
@settings(max_examples=80)
def test_dwell_watch_finds_no_fault_when_an_outage_hides_the_end_of_a_dwell(
    program: list[Segment], outage_s: float, part: float, index: int
) -> None:
    """What could not be heard is not held against the controller, wherever it was."""
    # A setpoint back where it was before looks as if it never left: only in an
    # unheard zigzag of less than a degree, which nobody fires.
    program = sorted(program, key=lambda segment: segment.target_degc)
    assume(all(b.target_degc - a.target_degc > 0.5 for a, b in pairwise(program)))
    index %= len(program)
    ends = [START_DEGC, *(segment.target_degc for segment in program)]
    dwell_ends_s = sum(
        abs(end - begin) / segment.ramp_degc_per_min * 60 + segment.dwell_s
        for begin, end, segment in zip(
            ends[: index + 1], ends[1:], program, strict=False
        )
    )
    fault = watch_with_outage(tuple(program), outage_s, dwell_ends_s - part * outage_s)

    assert fault is None


@given(program=segments, part=st.floats(0.0, 1.0))
@settings(max_examples=60)
def test_dwell_watch_finds_the_fault_when_the_program_is_reset_on_its_way(
    program: list[Segment], part: float
) -> None:
    """A reset that leaves seconds of the program undone is always told."""
    ends = pairwise([START_DEGC, *(s.target_degc for s in program)])
    whole_s = sum(
        abs(end - begin) / segment.ramp_degc_per_min * 60 + segment.dwell_s
        for (begin, end), segment in zip(ends, program, strict=True)
    )
    undone_s = 5 * PERIOD_S + 0.02 * program[-1].dwell_s
    assume(whole_s > undone_s)
    reset_s = part * (whole_s - undone_s)
    watching = DwellWatch(tuple(program), PERIOD_S)
    faults = []
    for n in range(math.ceil(reset_s / PERIOD_S) + 1):
        time = n * PERIOD_S
        setpoint = setpoint_at(tuple(program), time) if time < reset_s else None
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        faults.append(watching.judge(time, shown, setpoint is not None))

    assert faults[-1] is not None
    assert faults[:-1] == [None] * (len(faults) - 1)


def test_dwell_watch_finds_the_fault_when_a_peak_was_never_reached() -> None:
    """A peak with no dwell counts as passed only if it was within reach."""
    watching = DwellWatch((Segment(800.0, 10.0, 0.0),), PERIOD_S)
    watching.judge(0.0, 229.3, is_running=True)
    watching.judge(10.0, 231.0, is_running=True)
    fault = watching.judge(20.0, 25.0, is_running=False)

    assert fault == "the program ended before 800 degC"


def test_dwell_watch_finds_the_fault_when_a_ramp_turns_round() -> None:
    """A target that was lowered on the way to it was not passed."""
    watching = DwellWatch((Segment(800.0, 10.0, 0.0),), PERIOD_S)
    watching.judge(0.0, 229.3, is_running=True)
    watching.judge(10.0, 231.0, is_running=True)
    fault = watching.judge(20.0, 229.3, is_running=True)

    assert fault == "the setpoint turned round before 800 degC"


def test_dwell_watch_finds_the_fault_when_the_next_peak_was_out_of_reach() -> None:
    """A program that ends with a dwell did not pass the peak that was to follow."""
    program = (Segment(100.0, 10.0, 60.0), Segment(800.0, 10.0, 0.0))
    watching = DwellWatch(program, PERIOD_S)
    for n in range(7):
        watching.judge(n * PERIOD_S, 100.0, is_running=True)
    fault = watching.judge(7 * PERIOD_S, 25.0, is_running=False)

    assert fault == "the program ended before 800 degC"


def test_dwell_watch_finds_no_fault_when_a_ramp_is_the_slowest_there_is() -> None:
    """One decimal blurs the ends of a short dwell between two slow ramps."""
    program = (Segment(27.0, 0.1, 60.0), Segment(25.5, 0.1, 60.0))
    fault, measured = watch(program, program, 3.0)

    assert fault is None
    assert len(measured) == 2


def whole_duration_s(program: list[Segment]) -> float:
    """Return how long an ideal programmer takes [s]."""
    ends = pairwise([START_DEGC, *(s.target_degc for s in program)])
    return sum(
        abs(end - begin) / segment.ramp_degc_per_min * 60 + segment.dwell_s
        for (begin, end), segment in zip(ends, program, strict=True)
    )


@given(
    program=segments,
    begin=st.floats(0.0, 1.0),
    length=st.floats(0.0, 1.0),
)
@example(
    [Segment(30.0, 0.5, 0.0), Segment(30.6, 0.5, 0.0), Segment(31.2, 0.5, 1440.0)],
    0.0,
    0.5,
)
@settings(max_examples=100)
def test_dwell_watch_finds_no_fault_when_a_process_was_away_for_any_time(
    program: list[Segment], begin: float, length: float
) -> None:
    """A silence of hours hides whole dwells; they count as asked."""
    program = sorted(program, key=lambda segment: segment.target_degc)
    assume(all(b.target_degc - a.target_degc > 0.5 for a, b in pairwise(program)))
    whole_s = whole_duration_s(program)
    from_s, away_s = begin * whole_s, 1.5 * length * whole_s
    watching = DwellWatch(tuple(program), PERIOD_S)
    for n in itertools.count():
        time = n * PERIOD_S
        if max(from_s, 0.1) < time < from_s + away_s:
            continue
        setpoint = setpoint_at(tuple(program), time)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        fault = watching.judge(time, shown, setpoint is not None)
        assert fault is None
        if setpoint is None:
            break

    assert watching.measured_s == pytest.approx(
        [segment.dwell_s for segment in program], abs=4 * PERIOD_S + 2 * BLUR_S
    )


@given(program=segments, part=st.floats(0.0, 0.99))
@settings(max_examples=100)
def test_dwell_watch_finds_no_fault_when_the_begin_was_not_seen(
    program: list[Segment], part: float
) -> None:
    """Wherever the program is when it is first seen, it may have come there rightly."""
    program = sorted(program, key=lambda segment: segment.target_degc)
    assume(all(b.target_degc - a.target_degc > 0.5 for a, b in pairwise(program)))
    begun_s = part * whole_duration_s(program)
    watching = DwellWatch(tuple(program), PERIOD_S, is_from_start=False)
    for n in itertools.count():
        setpoint = setpoint_at(tuple(program), begun_s + n * PERIOD_S)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        fault = watching.judge(n * PERIOD_S, shown, setpoint is not None)
        assert fault is None
        if setpoint is None:
            break

    assert len(watching.measured_s) == len(program)


@given(program=segments, begin=st.floats(0.0, 1.0), part=st.floats(0.0, 0.9))
@settings(max_examples=80)
def test_dwell_watch_finds_the_fault_when_a_silence_had_no_room_for_the_rest(
    program: list[Segment], begin: float, part: float
) -> None:
    """Ramps and dwells take their time together, not each for itself."""
    whole_s = whole_duration_s(program)
    from_s = math.floor(begin * whole_s / PERIOD_S) * PERIOD_S
    slack_s = 0.1 * (whole_s - from_s) + 5 * PERIOD_S + BLUR_S * len(program) * 4
    assume(whole_s - from_s > 2 * slack_s)
    away_s = part * (whole_s - from_s - slack_s)
    watching = DwellWatch(tuple(program), PERIOD_S)
    for n in range(round(from_s / PERIOD_S) + 1):
        setpoint = setpoint_at(tuple(program), n * PERIOD_S)
        assert setpoint is not None
        assert watching.judge(n * PERIOD_S, round(setpoint, 1), is_running=True) is None
    fault = watching.judge(from_s + away_s + PERIOD_S, START_DEGC, is_running=False)

    assert fault is not None


@given(
    dwell_min=st.integers(10, 240),
    begin=st.floats(0.0, 1.0),
    length=st.floats(0.0, 1.2),
    n_samples_in_gap=st.integers(0, 2),
)
@example(dwell_min=180, begin=0.0, length=0.95, n_samples_in_gap=2)
@settings(deadline=None, max_examples=60)
def test_dwell_watch_knows_how_much_of_a_dwell_nobody_heard(
    dwell_min: int, begin: float, length: float, n_samples_in_gap: int
) -> None:
    """What falls into a silence is unheard, wherever it lies; and whatever is heard."""
    program = (Segment(800.0, 10.0, 60.0 * dwell_min),)
    ramp_s, dwell_s = (800.0 - START_DEGC) / 10.0 * 60.0, 60.0 * dwell_min
    from_s = ramp_s + begin * dwell_s
    until_s = from_s + length * dwell_s
    heard = [n * PERIOD_S for n in range(math.ceil((ramp_s + dwell_s) / PERIOD_S) + 2)]
    heard = [time for time in heard if not from_s < time < until_s]
    heard += [
        from_s + (n + 1) * (until_s - from_s) / (n_samples_in_gap + 1)
        for n in range(n_samples_in_gap)
    ]
    watching = DwellWatch(program, PERIOD_S)
    for time in sorted({*heard, max(until_s, ramp_s + dwell_s) + PERIOD_S}):
        setpoint = setpoint_at(program, time)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        assert watching.judge(time, shown, setpoint is not None) is None
        if setpoint is None:
            break
    silent_s = max(min(until_s, ramp_s + dwell_s) - from_s, 0.0)

    assert watching.measured_s == pytest.approx([dwell_s], abs=4 * PERIOD_S)
    slack_s = (n_samples_in_gap + 3) * 2 * PERIOD_S
    assert watching.unheard_s == pytest.approx([silent_s], abs=slack_s)


RECORDS = [
    ((10800.0,), (0.0,), 10800.0),
    ((10800.0,), (1080.0,), 10800.0),
    ((10800.0,), (1081.0,), None),
    ((10800.0,), (10630.0,), None),
    ((10800.0,), (10800.0,), None),
    ((10800.0,), (), None),
    ((0.0,), (0.0,), 0.0),
    ((0.0,), (20.0,), None),
    ((60.0,), (6.0,), 60.0),
    ((60.0,), (7.0,), None),
    ((600.0, 600.0), (0.0, 0.0), 1200.0),
    ((600.0, 600.0), (60.0, 60.0), 1200.0),
    ((600.0, 600.0), (61.0, 0.0), None),
    ((600.0, 600.0), (0.0, 61.0), None),
    ((600.0, 600.0), (0.0,), None),
    ((600.0, 0.0), (0.0, 0.0), 600.0),
    ((600.0, 0.0), (0.0, 10.0), None),
    ((0.0, 600.0, 0.0), (0.0, 0.0, 0.0), 600.0),
    ((600.0, 1200.0, 1800.0), (60.0, 120.0, 180.0), 3600.0),
    ((600.0, 1200.0, 1800.0), (60.0, 120.0, 181.0), None),
    ((), (), 0.0),
]


@pytest.mark.parametrize(("lasted", "unheard", "held"), RECORDS)
def test_firing_says_how_long_it_held_only_if_it_was_heard(
    lasted: tuple[float, ...], unheard: tuple[float, ...], held: float | None
) -> None:
    """More than a tenth of any dwell without a sample, and it is not measured."""
    record = FiringRecord(0.0, 2e4, 801.0, 800.0, lasted, 17, unheard)

    assert record.held_s == held
    assert bool(record.not_measured()) is (held is None)
