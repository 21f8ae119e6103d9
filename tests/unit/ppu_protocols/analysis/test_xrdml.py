"""XRDML files of several makes, and files that only pretend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.scan import Scan
from ppu_protocols.analysis.xrdml import parse_xrdml, read_xrdml

DATA = Path(__file__).parents[3] / "data" / "xrd"
EVEN = (
    '<positions axis="2Theta" unit="deg"><startPosition>10</startPosition>'
    "<endPosition>69</endPosition></positions>"
)
COUNTS = "<counts>" + " ".join(str(100 + i) for i in range(60)) + "</counts>"


def file_of(*scans: str, wavelength: str = "", version: str = "2.3") -> bytes:
    """Return an XRDML file whose scans hold the given data points."""
    points = "".join(
        f'<scan scanAxis="Gonio"><dataPoints>{scan}</dataPoints></scan>'
        for scan in scans
    )
    return (
        '<?xml version="1.0"?>'
        f'<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/{version}">'
        "<sample><id>S1</id></sample><xrdMeasurement>"
        f"{wavelength}{points}</xrdMeasurement></xrdMeasurements>"
    ).encode()


def parsed(*scans: str, wavelength: str = "") -> Scan:
    """Return the scan in the file made of the given parts."""
    return parse_xrdml(file_of(*scans, wavelength=wavelength), source="s.xrdml")


def test_scan_has_all_the_file_states_when_it_comes_from_an_aeris() -> None:
    """Points, time, wavelengths, radius and sample are those in the file."""
    scan = read_xrdml(DATA / "zno_in2o3.xrdml")

    assert scan.two_theta.shape == scan.counts.shape == (8282,)
    assert scan.two_theta[[0, -1]] == pytest.approx([10.00943322, 99.99442286])
    assert scan.counts[:3].tolist() == [2226, 2195, 2196]
    assert scan.counting_time == 12.495
    assert (scan.k_alpha_1, scan.k_alpha_2, scan.k_alpha_ratio) == (
        1.540598,
        1.544426,
        0.5,
    )
    assert scan.radius == 145.0
    assert scan.sample_id == "ZnO_0p4006-In2O3_0p6008--8min"


def test_scan_takes_listed_positions_when_there_is_a_list() -> None:
    """Positions need not be even, nor ascending in the file."""
    listed = " ".join(str(80 - i) for i in range(60))

    scan = parsed(
        f'<positions axis="2Theta"><listPositions>{listed}</listPositions></positions>'
        + COUNTS
    )

    assert scan.two_theta[0] == 21.0
    assert scan.counts[0] == 159.0


def test_scan_undoes_attenuation_when_counts_are_raw() -> None:
    """Raw counts are multiplied, and their variance grows with the square."""
    factors = " ".join(["10"] * 30 + ["1"] * 30)

    scan = parsed(
        EVEN + COUNTS + f"<beamAttenuationFactors>{factors}</beamAttenuationFactors>"
    )

    assert scan.counts[0] == 1000.0
    assert scan.variance[0] == 10000.0
    assert scan.counts[-1] == scan.variance[-1] == 159.0


def test_scan_leaves_intensities_alone_when_they_are_corrected_already() -> None:
    """The element ``intensities`` holds corrected values; only variance changes."""
    factors = " ".join(["10"] * 60)
    body = COUNTS.replace("counts>", "intensities>")

    scan = parsed(
        EVEN + body + f"<beamAttenuationFactors>{factors}</beamAttenuationFactors>"
    )

    assert scan.counts[0] == 100.0
    assert scan.variance[0] == 1000.0


def test_scan_is_the_sum_when_a_file_holds_repeats() -> None:
    """Counts and times of repeated scans add up."""
    time = "<commonCountingTime>2</commonCountingTime>"

    scan = parsed(EVEN + time + COUNTS, EVEN + time + COUNTS)

    assert scan.counts[0] == 200.0
    assert scan.counting_time == 4.0


def test_scan_turns_rates_into_counts_when_the_unit_is_cps() -> None:
    """Counts per second are multiplied by the time."""
    body = COUNTS.replace("<counts>", '<intensities unit="cps">').replace(
        "</counts>", "</intensities>"
    )

    scan = parsed(EVEN + "<commonCountingTime>4</commonCountingTime>" + body)

    assert scan.counts[0] == 400.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not XML"),
        (b"<html/>", "not XRDML"),
        (b"<!DOCTYPE a><a/>", "document type"),
        (file_of(), "holds no scan"),
        (file_of(EVEN), "neither <counts>"),
        (file_of(COUNTS), "no 2Theta positions"),
        (file_of(EVEN.replace(">69<", "><") + COUNTS), "incomplete"),
        (file_of(EVEN + "<counts>1 2 x</counts>"), "something else than numbers"),
        (file_of(EVEN + "<counts>1 2 3</counts>"), "at least 50"),
        (file_of(EVEN + COUNTS.replace("100", "nan")), "not finite"),
        (file_of(EVEN + COUNTS.replace("100", "-1")), "negative"),
        (
            file_of(
                EVEN + COUNTS
                + "<beamAttenuationFactors>1 1</beamAttenuationFactors>"
            ),
            "2 attenuation factors",
        ),
        (
            file_of(EVEN + COUNTS, EVEN.replace(">69<", ">60<") + COUNTS),
            "different positions",
        ),
        (file_of(EVEN.replace(">69<", ">190<") + COUNTS), "1 to 170"),
        (
            file_of(
                EVEN + COUNTS,
                wavelength="<usedWavelength><kAlpha1>15</kAlpha1></usedWavelength>",
            ),
            "0.3 to 3",
        ),
        (file_of(EVEN + COUNTS).replace(b"dataPoints", b"points"), "no <dataPoints>"),
    ],
)  # fmt: skip
def test_scan_is_refused_with_file_and_remedy_when_it_cannot_be_used(
    content: bytes, words: str
) -> None:
    """What is wrong is said in one message that names the file."""
    with pytest.raises(AnalysisError) as refusal:
        parse_xrdml(content, source="some/scan.xrdml")

    assert words in str(refusal.value)
    assert "some/scan.xrdml" in str(refusal.value)


def test_scan_names_the_file_when_it_is_missing(tmp_path: Path) -> None:
    """A missing file is a refusal, not a traceback."""
    with pytest.raises(AnalysisError, match=r"absent\.xrdml: cannot be read"):
        read_xrdml(tmp_path / "absent.xrdml")


def test_scan_is_refused_when_arrays_do_not_match() -> None:
    """Positions without counts are no scan."""
    with pytest.raises(AnalysisError, match="60 positions but 59 intensities"):
        Scan.from_counts(np.linspace(10.0, 20.0, 60), np.ones(59))


@given(content=st.binary(max_size=200))
@settings(max_examples=60)
def test_scan_is_refused_when_the_file_is_any_bytes(content: bytes) -> None:
    """Garbage never gets through and never raises anything else."""
    with pytest.raises(AnalysisError):
        parse_xrdml(content, source="x")
