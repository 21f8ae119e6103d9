"""Aeris: messages from driver code, and replies of which only substrings are known.

The remote interface's manual is not public. Messages and the substrings READY=,
SYSTEM=, STATE= and fatal are from CederGroupHub/alab_control,
``diffractometer_aeris/aeris.py``; the rest of each reply is our assumption. The file
format is compared with two scans that were measured on an Aeris.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppu.core.capabilities import ScanRequest
from ppu.core.errors import InstrumentError, MalformedReply
from ppu.core.labfile import LabFile
from ppu.core.labtime import LabTimeLoop
from ppu_drivers.panalytical_aeris import (
    field_of,
    parse_scan,
    program_name,
    refuse_fatal,
    take_message,
)
from ppu_simulators.instruments.panalytical_aeris import (
    SimulatedPanalyticalAeris,
    scan_angles,
    xrdml,
)
from ppu_simulators.world import World

REAL = Path(__file__).parents[1] / "data" / "xrd"
ADD = "@SAMPLE@ADD@APPLICATION=10-100_8-minutes@SAMPLE_ID=s1@AT=0,2@END"
MEASURE = "@SAMPLE@MEASURE@SAMPLE_ID=s1@APPLICATION=10-100_8-minutes@END"


@pytest.fixture
def aeris() -> Iterator[SimulatedPanalyticalAeris]:
    """A simulated Aeris with a specimen at position 1."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"xrd": {"driver": "x:Y", "slots": ["xrd.1"]}},
            "locations": {"xrd.1": {"holds": "holder"}},
            "containers": {
                "h": {
                    "kind": "holder",
                    "at": "xrd.1",
                    "capacity_ml": 2,
                    "tare_g": 12,
                    "contents": {"BaTiO3": 0.5},
                }
            },
        }
    )
    simulated = SimulatedPanalyticalAeris(
        "xrd", lab.devices["xrd"], World(lab, 0), "950485"
    )
    loop = LabTimeLoop(None)
    loop.run_until_complete(simulated.start())
    yield simulated
    loop.run_until_complete(simulated.stop())
    loop.close()


def ask(aeris: SimulatedPanalyticalAeris, message: str, time: float = 0.0) -> str:
    """Return the reply to *message*."""
    (answer,) = aeris.receive(message.encode(), time)
    reply = take_message(bytearray(answer.at(time)))
    assert reply is not None
    return reply


@pytest.mark.parametrize(
    ("message", "known"),
    [
        ("@STATUS_REQUEST@UNIT=xrd@END", "@READY=yes@"),
        ("@STATUS_REQUEST@SYSTEM@END", "@SYSTEM=remote@"),
        ("@STATUS_REQUEST@LOCATION=0,2@END", "@STATE=occupied@"),
        ("@STATUS_REQUEST@LOCATION=0,3@END", "@STATE=free@"),
        (ADD, "normal"),
        ("@SAMPLE@ADD@APPLICATION=10-100_8-minutes@SAMPLE_ID=s@AT=0,3@END", "fatal"),
        ("@SAMPLE@ADD@APPLICATION=nonsense@SAMPLE_ID=s1@AT=0,2@END", "fatal"),
        ("@SAMPLE@ADD@APPLICATION=1-200_8-minutes@SAMPLE_ID=s@AT=0,2@END", "fatal"),
        ("@SAMPLE@ADD@APPLICATION=10-100_8-minutes@SAMPLE_ID=a/b@AT=0,2@END", "fatal"),
        (MEASURE, "fatal"),
        ("@SAMPLE@REMOVE@SAMPLE_ID=s1@END", "fatal"),
        ("@SAMPLE@REMOVE@SAMPLE_ID@AT=0,2@END", "fatal"),
        ("@SAMPLE@DANCE@END", "fatal"),
        ("@STATUS_REQUEST@LOCATION=0,9@END", "fatal"),
        ("@NONSENSE@END", "fatal"),
    ],
)
def test_simulated_reply_has_the_known_substring(
    aeris: SimulatedPanalyticalAeris, message: str, known: str
) -> None:
    """Each message of the driver code gets what that code looks for."""
    assert known in ask(aeris, message)


def test_simulated_scan_runs_through_the_conversation_of_alab_control(
    aeris: SimulatedPanalyticalAeris,
) -> None:
    """Add, measure, busy, ready, file, remove; removing by slot works as well."""
    unit = "@STATUS_REQUEST@UNIT=xrd@END"
    assert "normal" in ask(aeris, ADD)
    assert "fatal" in ask(aeris, ADD)
    assert "normal" in ask(aeris, MEASURE, 1.0)
    assert field_of(ask(aeris, unit, 2.0), "READY") == "no"
    assert "fatal" in ask(aeris, MEASURE, 3.0)
    assert "fatal" in ask(aeris, "@SAMPLE@REMOVE@SAMPLE_ID=s1@END", 4.0)
    assert field_of(ask(aeris, unit, 505.0), "READY") == "no"
    assert field_of(ask(aeris, unit, 507.0), "READY") == "yes"
    assert "normal" in ask(aeris, "@SAMPLE@REMOVE@SAMPLE_ID=s1@END", 508.0)
    assert "normal" in ask(aeris, ADD, 509.0)
    assert "normal" in ask(aeris, "@SAMPLE@REMOVE@SAMPLE_ID@AT=0,2@END", 510.0)


def test_simulated_reply_comes_when_a_message_arrives_in_pieces(
    aeris: SimulatedPanalyticalAeris,
) -> None:
    """A message has no terminator but its last word."""
    assert list(aeris.receive(b"@STATUS_REQ", 0.0)) == []
    assert list(aeris.receive(b"UEST@SYSTEM@E", 0.0)) == []
    (answer,) = aeris.receive(b"ND", 0.0)

    assert b"SYSTEM=remote" in answer.at(0.0)


def test_simulated_instrument_forgets_half_a_message_of_a_lost_connection(
    aeris: SimulatedPanalyticalAeris,
) -> None:
    """The next connection's message is understood by itself."""
    tuple(aeris.receive(b"@SAMPLE@AD", 0.0))

    assert "SYSTEM=remote" in ask(aeris, "@STATUS_REQUEST@SYSTEM@END")


@pytest.mark.parametrize(
    ("request_", "program"),
    [
        (ScanRequest("a", 10.0, 100.0, 480.0), "10-100_8-minutes"),
        (ScanRequest("a", 10.5, 60.0, 150.0), "10.5-60_2.5-minutes"),
    ],
)
def test_program_is_named_as_in_the_known_example(
    request_: ScanRequest, program: str
) -> None:
    """The one name known is that of an 8-minute scan from 10 to 100 degrees."""
    assert program_name(request_) == program


def test_refusal_is_told_with_the_whole_reply() -> None:
    """A reply with ``fatal`` is a refusal, any other is not."""
    assert refuse_fatal("@X@RESULT=normal@END") == "@X@RESULT=normal@END"
    with pytest.raises(InstrumentError, match="@X@RESULT=fatal@END") as caught:
        refuse_fatal("@X@RESULT=fatal@END")
    assert caught.value.code == "fatal"


@settings(max_examples=200)
@given(
    st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"@" + b + b"@END")
)
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    """What is decoded begins with @ and ends with @END; all else is refused."""
    try:
        message = take_message(bytearray(data))
    except MalformedReply:
        assert not data.startswith(b"@") or not data.isascii()
        return

    if message is None:
        assert b"@END" not in data
    else:
        assert data.startswith(message.encode())
        assert message.endswith("@END")


def test_endless_message_is_malformed() -> None:
    """A message that never ends is given up after 1024 bytes."""
    with pytest.raises(MalformedReply, match="more than 1024 bytes"):
        take_message(bytearray(b"@" + 1024 * b"x"))


@pytest.mark.parametrize("name", ["v2o5_tio2.xrdml", "zno_in2o3.xrdml"])
def test_real_scan_is_read(name: str) -> None:
    """Points, range, wavelengths and instrument of a real file come out."""
    scan = parse_scan((REAL / name).read_bytes())

    assert scan.counts.shape == scan.two_theta.shape == (8282,)
    assert scan.two_theta[[0, -1]] == pytest.approx([10.00943322, 99.99442286])
    assert scan.counting_time_s == 12.495
    assert scan.k_alpha_1_angstrom == 1.540598
    assert scan.k_alpha_2_angstrom == 1.544426
    assert scan.instrument_id == "950485"


def test_simulated_scan_has_the_angles_of_the_real_one() -> None:
    """Step and offset are those of the real 10-100 scan."""
    real = parse_scan((REAL / "v2o5_tio2.xrdml").read_bytes())

    assert scan_angles(10.0, 100.0) == pytest.approx(real.two_theta, abs=1e-8)


def paths(root: ElementTree.Element, above: str = "") -> set[str]:
    """Return the paths of all elements below *root*."""
    found = set()
    for child in root:
        path = f"{above}/{child.tag}"
        found |= {path} | paths(child, path)
    return found


def test_simulated_file_has_no_element_that_the_real_one_lacks() -> None:
    """The structure of the file is a part of the real one's, in its namespace."""
    angles = scan_angles(10.0, 20.0)
    text = xrdml(
        "a<b",
        angles,
        np.arange(angles.size),
        12.495,
        instrument_id="1",
        started="2030-01-01T00:00:00Z",
        ended="2030-01-01T00:08:00Z",
    )
    real = ElementTree.fromstring((REAL / "v2o5_tio2.xrdml").read_bytes())  # noqa: S314 - our own data
    simulated = ElementTree.fromstring(text)  # noqa: S314 - our own text

    assert simulated.tag == real.tag
    assert paths(simulated) <= paths(real)
    scan = parse_scan(text.encode("utf-8-sig"))
    assert scan.sample_id == "a<b"
    assert scan.counts == pytest.approx(np.arange(angles.size))
    assert scan.two_theta == pytest.approx(angles, abs=1e-8)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<counts", "<intensity", "not XML|mismatched tag"),
        ('unit="counts">', 'unit="counts">-1 ', "a count is negative"),
        ('unit="counts">', 'unit="counts">nan ', "a count is negative or no number"),
        ('unit="counts">', 'unit="counts">x ', "could not convert"),
        ('axis="2Theta"', 'axis="Phi"', "not enough values"),
        ("<startPosition>1", "<startPosition>9991", "it goes from"),
        ('"Gonio" status="Completed"', '"Gonio" status="Aborted"', "status is Aborted"),
        ("kAlpha1", "kAlpha9", "there is no kAlpha1"),
        ("<counts", "<beamAttenuationFactors/><counts", "its beam was attenuated"),
        ('<?xml version="1.0"?>', "<!DOCTYPE x>", "declares a document type"),
        ("</scan>", '</scan><scan status="Completed"/>', "it holds 2 scans"),
    ],
)
def test_broken_file_is_malformed(old: str, new: str, reason: str) -> None:
    """Each fault of a file is refused with its reason, none is guessed away."""
    angles = scan_angles(10.0, 11.0)
    text = xrdml(
        "a",
        angles,
        np.arange(angles.size),
        12.495,
        instrument_id="1",
        started="",
        ended="",
    )
    assert old in text

    with pytest.raises(MalformedReply, match=reason):
        parse_scan(text.replace(old, new).encode())


@settings(max_examples=100)
@given(st.integers(0, 3000), st.binary(max_size=5))
def test_any_damaged_file_is_a_scan_or_malformed(place: int, damage: bytes) -> None:
    """Bytes overwritten anywhere end in a scan of finite counts or in one error."""
    angles = scan_angles(10.0, 11.0)
    content = xrdml(
        "a",
        angles,
        np.arange(angles.size),
        12.495,
        instrument_id="1",
        started="",
        ended="",
    ).encode()
    damaged = content[:place] + damage + content[place + len(damage) :]
    try:
        scan = parse_scan(damaged)
    except MalformedReply:
        assert damaged != content
        return

    assert np.isfinite(scan.counts).all()
    assert scan.counts.shape == scan.two_theta.shape
