"""A diffractometer against certified standards, simulated with known faults."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ppu_protocols.analysis.calibrate import (
    Calibration,
    calibrate,
    read_calibration,
    with_calibration,
    write_calibration,
)
from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import Scan
from ppu_simulators.physics.crystals import STRUCTURES
from ppu_simulators.physics.diffraction import (
    Diffractometer,
    PhaseInPowder,
    Specimen,
    aeris_two_theta,
    measure,
)

NOW = datetime(2026, 12, 1, tzinfo=UTC)


@cache
def scan_of(
    name: str, zero_deg: float, height_mm: float, soller_rad: float = 0.072
) -> Scan:
    """Return a scan of a pure standard on an instrument with known faults."""
    specimen = Specimen(
        (PhaseInPowder(STRUCTURES[name], 1.0, size_nm=800.0),), height_mm
    )
    instrument = replace(Diffractometer(), zero_deg=zero_deg, soller_rad=soller_rad)
    angles = aeris_two_theta()
    counts = measure(specimen, instrument, angles, 12.495, np.random.default_rng(4))
    return Scan.from_counts(angles, counts)


@pytest.mark.parametrize("name", ["Si", "LaB6"])
@pytest.mark.parametrize("zero_deg", [-0.05, 0.03])
def test_zero_is_found_when_the_standard_lies_in_the_axis(
    name: str, zero_deg: float
) -> None:
    """A zero error comes out within 0.02 deg, as surely as is stated."""
    found = calibrate(scan_of(name, zero_deg, 0.0), name, NOW)

    assert found.zero_deg == pytest.approx(zero_deg, abs=0.02)
    assert 0.0 < found.zero_error_deg < 0.05


def test_height_is_told_from_zero_by_lines_at_all_angles() -> None:
    """A standard 0.1 mm high is not taken for a zero error."""
    found = calibrate(scan_of("LaB6", 0.0, 0.1), "LaB6", NOW)

    assert found.height_mm == pytest.approx(0.1, abs=0.04)
    assert found.zero_deg == pytest.approx(0.0, abs=0.03)


def test_wavelength_is_that_of_the_tube_when_nothing_is_wrong() -> None:
    """The certified cell and the stated wavelength agree within 1e-4."""
    found = calibrate(scan_of("Si", 0.0, 0.0), "Si", NOW)

    assert found.wavelength_ratio == pytest.approx(1.0, abs=1e-4)
    assert found.remarks == ()


def test_wavelength_is_questioned_when_the_file_states_another() -> None:
    """A wavelength that is off by 2e-3 is named; zero and height then move less."""
    scan = scan_of("Si", 0.0, 0.0)
    wrong = replace(
        scan, k_alpha_1=scan.k_alpha_1 * 1.002, k_alpha_2=scan.k_alpha_2 * 1.002
    )

    found = calibrate(wrong, "Si", NOW)

    assert found.wavelength_ratio == pytest.approx(1.0 / 1.002, abs=3e-4)
    assert "check tube" in found.remarks[0]


def test_axial_divergence_pulls_low_lines_as_far_as_the_slits_let_it() -> None:
    """Wider Soller slits shift a line at 20 deg further, to lower angles."""
    narrow, wide = (
        calibrate(scan_of("LaB6", 0.0, 0.0, soller), "LaB6", NOW).axial_shift_deg
        for soller in (0.03, 0.10)
    )

    assert wide < narrow <= 0.0


def test_scan_of_something_else_is_refused() -> None:
    """Silicon is no lanthanum hexaboride."""
    with pytest.raises(AnalysisError, match="is no scan of LaB6"):
        calibrate(scan_of("Si", 0.0, 0.0), "LaB6", NOW)
    with pytest.raises(AnalysisError, match="no certified cell of 'CaO'"):
        calibrate(scan_of("Si", 0.0, 0.0), "CaO", NOW)


def test_calibration_is_kept_and_used_until_it_runs_out(tmp_path: Path) -> None:
    """What was written is read, corrects a scan, and says when it is too old."""
    scan = scan_of("Si", 0.03, 0.0)
    found = calibrate(scan, "Si", NOW, valid_days=30.0)
    path = tmp_path / "aeris.json"
    write_calibration(found, path)
    kept = read_calibration(path)

    fresh = with_calibration(scan, kept, NOW + timedelta(days=29))
    stale = with_calibration(scan, kept, NOW + timedelta(days=31))

    assert isinstance(kept, Calibration)
    assert kept == found
    np.testing.assert_allclose(fresh.two_theta, scan.two_theta - found.zero_deg)
    assert not any("ran out" in note for note in fresh.notes)
    assert any("ran out" in note for note in stale.notes)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema_version": 9}'])
def test_file_that_is_no_calibration_is_refused(tmp_path: Path, content: str) -> None:
    """The refusal says how to make one."""
    path = tmp_path / "x.json"
    path.write_text(content)

    with pytest.raises(AnalysisError, match="ppu calibrate diffractometer"):
        read_calibration(path)
