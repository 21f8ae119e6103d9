"""How the furnace driver times the dwells of a program."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.capabilities import Segment
from ppu_drivers.eurotherm_3216 import _DwellWatch

PERIOD_S = 10.0
START_DEGC = 25.0

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
        for before, after in itertools.pairwise(found)
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
    watching = _DwellWatch(asked, PERIOD_S)
    for n in itertools.count():
        time = phase_s + n * PERIOD_S
        setpoint = setpoint_at(run, time)
        shown = START_DEGC if setpoint is None else round(setpoint, 1)
        fault = watching.see(time, shown, setpoint is not None)
        if fault is not None or setpoint is None:
            return fault, watching.measured_s
    raise AssertionError("every program ends")


@given(program=segments, phase_s=st.floats(0.0, PERIOD_S))
@settings(deadline=None, max_examples=60)
def test_dwell_watch_measures_every_dwell_when_the_program_runs_as_asked(
    program: list[Segment], phase_s: float
) -> None:
    """Whatever the profile and the moment of sampling, a right run is no fault."""
    fault, measured = watch(tuple(program), tuple(program), phase_s)

    assert fault is None
    assert measured == pytest.approx(
        [segment.dwell_s for segment in program], abs=2 * PERIOD_S
    )


@given(
    program=segments.filter(lambda found: any(s.dwell_s >= 60.0 for s in found)),
    factor=st.sampled_from([1 / 60, 60.0]),
)
@settings(deadline=None, max_examples=40)
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
@settings(deadline=None, max_examples=30)
def test_dwell_watch_finds_the_fault_when_the_last_segment_is_not_run(
    program: list[Segment],
) -> None:
    """A program that ends early is told, even between two dwells."""
    fault, _ = watch(tuple(program), tuple(program[:-1]), 0.0)

    assert fault is not None
    assert f"{program[-1].target_degc:g} degC" in fault
