"""Registers and codes as data: what is read, what may be written, what is refused."""

import math
from typing import Any

import pytest
from bluesky.protocols import Reading
from hypothesis import given, settings
from hypothesis import strategies as st
from ophyd_async.core import StrictEnum

from ppu.core.errors import InternalError, LimitError
from ppu.devices.address import InvalidReading, Measured
from ppu.devices.modbus import Holding
from ppu.devices.readings import Quality, quality_of


class State(StrictEnum):
    """States of something."""

    OFF = "off"
    ON = "on"


TENTHS = Holding(1, decimals=1, units="degC", low=-50, high=1372)
CODES = Holding(2, codes={0: State.OFF, 5: State.ON})


@given(register=st.integers(0, 0xFFFF), decimals=st.none() | st.integers(0, 3))
@settings(max_examples=60)
def test_register_survives_the_way_to_a_value_and_back(
    register: int, decimals: int | None
) -> None:
    """Every 16-bit pattern is a signed value, and the value gives that pattern."""
    place = Holding(7, decimals=decimals, units="")

    assert place.to_register(place.from_register(register)) == register


@given(value=st.floats(-3276.8, 3276.7))
@settings(max_examples=60)
def test_value_is_written_to_the_resolution_of_its_register(value: float) -> None:
    """What is read back differs by at most half a digit."""
    place = Holding(7, decimals=1, units="degC")

    assert place.from_register(place.to_register(value)) == pytest.approx(
        value, abs=0.05 + 1e-9
    )


@pytest.mark.parametrize("value", [3276.8, -3276.9, 1e9])
def test_value_is_refused_when_sixteen_bits_are_too_few(value: float) -> None:
    """A value that would wrap around is never written."""
    with pytest.raises(LimitError, match="needs over 16 bits"):
        Holding(7, decimals=1, units="degC").to_register(value)


@pytest.mark.parametrize("raw", [-51.0, 1373.0, math.nan, math.inf])
def test_value_is_invalid_when_it_cannot_be_true(raw: float) -> None:
    """Outside of its limits a reading is no reading."""
    with pytest.raises(InvalidReading, match="cannot be true"):
        TENTHS.to_value(raw, float, "pv")


@pytest.mark.parametrize("value", [-51.0, 1373.0, math.nan, math.inf])
def test_value_is_refused_when_it_is_outside_of_the_limits(value: float) -> None:
    """Outside of its limits nothing is written."""
    with pytest.raises(LimitError, match="is outside of -50 to 1372"):
        TENTHS.to_raw(value, "pv")


def test_codes_are_read_and_written_by_their_meaning() -> None:
    """Numbers on the wire, words in plans, both ways."""
    assert CODES.to_value(5, State, "state") is State.ON
    assert CODES.to_raw(State.ON, "state") == 5


def test_unknown_code_is_invalid() -> None:
    """A code that the manual does not list is told with those it does."""
    with pytest.raises(InvalidReading, match=r"3 is no known code.*0 off, 5 on"):
        CODES.to_value(3, State, "state")


def test_code_is_refused_when_it_cannot_be_written() -> None:
    """A state that has no code here cannot be asked for."""
    with pytest.raises(LimitError, match="cannot be written here"):
        Holding(2, codes={0: State.OFF}).to_raw(State.ON, "state")


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"), [(str, 5, "5"), (bool, 1, True), (int, 7, 7)]
)
def test_plain_types_are_converted(datatype: Any, raw: Any, expected: Any) -> None:
    """Texts, switches and counts come as such."""
    assert Holding(3, units="").to_value(raw, datatype, "x") == expected


def test_metadata_tells_unit_precision_limits_and_choices() -> None:
    """Documents describe what the address states."""
    number, choice = TENTHS.metadata(float), CODES.metadata(State)

    assert (number["units"], number["precision"]) == ("degC", 1)
    assert number["limits"]["control"] == {"low": -50, "high": 1372}
    assert choice["choices"] == ["off", "on"]


@pytest.mark.parametrize(
    ("reading", "quality"),
    [
        (Reading(value=1.0, timestamp=100.0, alarm_severity=0), Quality.GOOD),
        (Reading(value=1.0, timestamp=39.0, alarm_severity=0), Quality.STALE),
        (Reading(value=1.0, timestamp=100.0, alarm_severity=3), Quality.INVALID),
        (Reading(value=1.0, timestamp=0.0, alarm_severity=3), Quality.INVALID),
    ],
)
def test_quality_tells_what_may_be_acted_upon(
    reading: Reading[float], quality: Quality
) -> None:
    """Old is stale, alarmed is invalid, and invalid comes first."""
    assert quality_of(reading, now=100.0, stale_after_s=60.0) is quality


async def _read_measured() -> None:
    await Measured(units="g").read(None)


def test_measured_value_is_never_read_from_the_wire(play: Any) -> None:
    """It is what the driver recorded, or nothing."""
    with pytest.raises(InternalError, match="is not read from"):
        play(_read_measured())
