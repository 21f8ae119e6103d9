"""What a lab file may say of a furnace, and what a furnace may be asked."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import ConfigurationError, LimitError
from ppu.core.labfile import load_lab
from ppu.core.registry import find_lab
from ppu.core.specifications import DwellUnit, FurnaceSpecification, ProgramRoom
from ppu.devices.build import check_devices
from ppu.devices.firing import FiringSettings

BORNE = [0.5, 1, 5, 10, 15, 20, 30, 45, 59.9, 60]
NOT_BORNE = [60.1, 61, 75, 90, 120, 180, 240, 300, 600, 3600, 1e9]


@pytest.mark.parametrize("period_s", BORNE)
def test_period_is_taken_that_a_firing_can_be_judged_by(period_s: float) -> None:
    """Up to a minute, a rise without power is known from a welded relay."""
    assert FiringSettings(sample_period_s=period_s).sample_period_s == period_s


@pytest.mark.parametrize("period_s", NOT_BORNE)
def test_period_is_refused_that_takes_a_healthy_furnace_for_a_faulty_one(
    period_s: float,
) -> None:
    """With the limit and the reason."""
    with pytest.raises(ValidationError, match=r"at most 60 s: .* welded relay"):
        FiringSettings(sample_period_s=period_s, max_silence_s=1e12)


@pytest.mark.parametrize(
    ("period_s", "silence_s", "is_borne"),
    [
        (10, 30, True),
        (10, 29, False),
        (60, 180, True),
        (60, 179, False),
        (30, 60, False),
        (1, 2.9, False),
        (1, 3, True),
    ],
)
def test_one_lost_sample_ends_no_firing(
    period_s: float, silence_s: float, is_borne: bool
) -> None:
    """A silence of three periods at least must be allowed."""
    if is_borne:
        FiringSettings(sample_period_s=period_s, max_silence_s=silence_s)
        return
    with pytest.raises(ValidationError, match="which one lost sample ends"):
        FiringSettings(sample_period_s=period_s, max_silence_s=silence_s)


@pytest.mark.parametrize("lab", ["a-lab", "a-lab-by-hand"])
def test_lab_file_is_refused_with_the_line_of_the_period(
    lab: str, tmp_path: Path
) -> None:
    """Before anything connects."""
    text = find_lab(lab).read_text()
    path = tmp_path / "lab.yaml"
    path.write_text(text.replace("sample_period_s: 10", "sample_period_s: 300", 1))
    line = text[: text.index("sample_period_s: 10")].count("\n") + 1
    with pytest.raises(ConfigurationError) as caught:
        check_devices(load_lab(path), path)

    told = str(caught.value)
    assert f"line {line}, column " in told
    assert "devices.furnace_1.settings.sample_period_s: should be at most" in told


FURNACE = FurnaceSpecification(
    name="furnace_1",
    slots=("furnace_1.slot_1",),
    temperature_degc=(0.0, 1100.0),
    ramp_degc_per_min=(0.0, 10.0),
    dwell_unit=DwellUnit(name="minute", seconds=60.0, most=999),
    program_room=ProgramRoom(most=8),
    cooling_time_constant_s=12000.0,
)


@pytest.mark.parametrize("degc", [0, 0.1, 1, 5, 10, 15, 18, 20, 22, 23, 24, 24.9])
@pytest.mark.parametrize("before", [(), (Segment(800.0, 5.0, 600.0),)])
def test_target_below_the_room_is_refused(
    degc: float, before: tuple[Segment, ...]
) -> None:
    """A furnace does not cool: such a firing would seem to succeed."""
    profile = FiringProfile((*before, Segment(degc, 5.0, 600.0)), 60.0)
    told = f"segment {len(before) + 1}: {degc:g} degC is below the room"
    with pytest.raises(LimitError, match=told):
        FURNACE.check_profile(profile)


@pytest.mark.parametrize("degc", [25, 30, 60, 200, 900, 1100])
def test_target_above_the_room_is_taken(degc: float) -> None:
    """Whatever the lab allows."""
    FURNACE.check_profile(FiringProfile((Segment(degc, 5.0, 600.0),), 60.0))
