"""Every format of scan that laboratories have, whole, cut off and broken."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ppu_protocols.analysis.errors import AnalysisError
from ppu_protocols.analysis.files import FORMATS, describe, parse_file, read_scan
from ppu_protocols.analysis.scan import ScanFile

DATA = Path(__file__).parents[3] / "data" / "xrd"
ANGLES = 10.0 + 0.02 * np.arange(120)
COUNTS = np.random.default_rng(0).poisson(100.0 + 900.0 * np.exp(-((ANGLES - 11) ** 2)))
N_MUTATIONS = int(os.environ.get("PPU_MUTATIONS", "800"))
"""``PPU_MUTATIONS=10000`` breaks every example ten thousand times."""


def columns(separator: str = " ", decimal: str = ".", header: str = "") -> bytes:
    """Return two columns of text."""
    rows = [
        f"{angle:.3f}{separator}{count}".replace(".", decimal)
        for angle, count in zip(ANGLES, COUNTS, strict=True)
    ]
    return (header + "\n".join(rows) + "\n").encode()


def xye() -> bytes:
    """Return three columns, the third the root of the second, doubled."""
    rows = zip(ANGLES, COUNTS, 2.0 * np.sqrt(COUNTS), strict=True)
    return "\n".join(f"{a:.3f} {c} {s:.4f}" for a, c, s in rows).encode()


def ras(
    unit: str = "counts", axis: str = "TwoThetaTheta", factor: float = 1.0
) -> bytes:
    """Return a Rigaku text file of one scan, 6 deg/min."""
    head = [
        "*RAS_DATA_START",
        "*RAS_HEADER_START",
        '*FILE_SAMPLE "quartz"',
        '*HW_XG_WAVE_LENGTH_ALPHA1 "1.540593"',
        '*HW_XG_WAVE_LENGTH_ALPHA2 "1.544414"',
        f'*MEAS_SCAN_AXIS_X "{axis}"',
        '*MEAS_SCAN_SPEED "6.0"',
        '*MEAS_SCAN_SPEED_UNIT "deg/min"',
        '*MEAS_SCAN_STEP "0.02"',
        f'*MEAS_SCAN_UNIT_Y "{unit}"',
        "*RAS_HEADER_END",
        "*RAS_INT_START",
    ]
    rows = [
        f"{a:.4f} {c * factor:.4f} 1.0" for a, c in zip(ANGLES, COUNTS, strict=True)
    ]
    return "\r\n".join([*head, *rows, "*RAS_INT_END", "*RAS_DATA_END", ""]).encode()


def archive(members: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def rasx() -> bytes:
    """Return a Rigaku archive of one scan."""
    rows = "\n".join(f"{a:.4f}\t{c}\t1" for a, c in zip(ANGLES, COUNTS, strict=True))
    conditions = (
        "<Conditions><AxisName>TwoThetaTheta</AxisName>"
        "<WavelengthKalpha1>1.540593</WavelengthKalpha1></Conditions>"
    )
    return archive(
        {
            "root.xml": b"<Root/>",
            "Data0/Profile0.txt": b"\xef\xbb\xbf" + rows.encode(),
            "Data0/MesurementConditions0.xml": conditions.encode(),
        }
    )


def _floats() -> bytes:
    return struct.pack(f"<{COUNTS.size}f", *COUNTS)


def raw3(status: int = 1, n_points: int | None = None) -> bytes:
    """Return a Bruker binary of version 3."""
    head = bytearray(712)
    head[:7] = b"RAW1.01"
    struct.pack_into("<II", head, 8, status, 1)
    head[326:332] = b"quartz"
    struct.pack_into("<f", head, 564, 217.5)
    struct.pack_into("<dddd", head, 616, 1.5418, 1.5406, 1.54439, 1.39222)
    struct.pack_into("<d", head, 648, 0.5)
    part = bytearray(304)
    struct.pack_into("<II", part, 0, 304, n_points or ANGLES.size)
    struct.pack_into("<dd", part, 8, ANGLES[0] / 2.0, ANGLES[0])
    struct.pack_into("<d", part, 176, 0.02)
    struct.pack_into("<f", part, 192, 1.0)
    struct.pack_into("<II", part, 252, 4, 0)
    return bytes(head + part) + _floats()


def raw4(scan_type: bytes = b"Locked Coupled") -> bytes:
    """Return a Bruker binary of version 4."""
    head = b"RAW4.00".ljust(61, b"\0")
    hardware = bytearray(120)
    struct.pack_into("<II", hardware, 0, 30, 120)
    struct.pack_into("<dddd", hardware, 72, 1.5418, 1.5406, 1.54439, 1.39222)
    struct.pack_into("<d", hardware, 104, 0.5)
    part = bytearray(160)
    part[32 : 32 + len(scan_type)] = scan_type
    struct.pack_into("<ddIf", part, 72, ANGLES[0], 0.02, ANGLES.size, 1.0)
    struct.pack_into("<II", part, 136, 4, 0)
    return head + bytes(hardware) + bytes(part) + _floats()


def brml(width: int = 1, absorber: float = 1.0) -> bytes:
    """Return a Bruker archive, columns in an order of their own."""
    xsi = "http://www.w3.org/2001/XMLSchema-instance"
    rows = "".join(
        f"<Datum>1,{absorber},{a:.3f},{a / 2:.4f},{c * absorber}</Datum>"
        for a, c in zip(ANGLES, COUNTS, strict=True)
    )
    text = (
        f'<RawData xmlns:xsi="{xsi}"><FixedInformation><Tube>'
        '<WaveLengthAlpha1 Value="1.5406"/></Tube></FixedInformation><DataRoutes>'
        '<DataRoute RouteFlag="Measured"><ScanInformation><TimePerStep>0.5'
        f"</TimePerStep></ScanInformation>{rows}<DataViews>"
        '<RawDataView xsi:type="FixedRawDataView" Start="1" Length="1" '
        'LogicName="AbsorptionFactor"/>'
        '<RawDataView xsi:type="VaryingRawDataView" Start="2" Length="2"><Varying>'
        '<FieldDefinitions AxisId="TwoTheta"/><FieldDefinitions AxisId="Theta"/>'
        "</Varying></RawDataView>"
        f'<RawDataView xsi:type="RecordedRawDataView" Start="4" Length="{width}"/>'
        "</DataViews></DataRoute></DataRoutes></RawData>"
    )
    return archive({"Experiment0/RawData0.xml": text.encode()})


def fxye() -> bytes:
    """Return a GSAS file of one bank."""
    rows = [
        f"{100 * a:.2f} {c} {np.sqrt(c):.4f}"
        for a, c in zip(ANGLES, COUNTS, strict=True)
    ]
    bank = f"BANK 1 {ANGLES.size} {ANGLES.size} CONST 1000.0 2.0 0 0 FXYE"
    return "\n".join(["quartz", bank, *rows, ""]).encode()


def pdcif(ranged: bool = True) -> bytes:
    """Return a powder CIF of counts."""
    lines = ["data_quartz", "_diffrn_radiation_wavelength 1.5406"]
    if ranged:
        lines += [
            f"_pd_meas_2theta_range_min {ANGLES[0]}",
            f"_pd_meas_2theta_range_max {ANGLES[-1]:.3f}",
            "_pd_meas_2theta_range_inc 0.02",
            "loop_",
            "_pd_meas_counts_total",
            *map(str, COUNTS),
        ]
    else:
        lines += ["loop_", "_pd_meas_2theta_scan", "_pd_meas_intensity_total"]
        lines += [
            f"{a:.3f} {c}({round(np.sqrt(c))})"
            for a, c in zip(ANGLES, COUNTS, strict=True)
        ]
    return "\n".join([*lines, ""]).encode()


@cache
def xrdml() -> bytes:
    """Return a real file of an Aeris."""
    return (DATA / "zno_in2o3.xrdml").read_bytes()


EXAMPLES = {
    "a.xy": columns(),
    "tabs.dat": columns("\t", header="# quartz\n# measured\n"),
    "a.csv": columns(",", header="angle,intensity\n"),
    "comma.csv": columns(";", ","),
    "comma.txt": columns(" ", ","),
    "utf16.txt": b"\xff\xfe" + columns("\t").decode().encode("utf-16-le"),
    "a.xye": xye(),
    "a.ras": ras(),
    "a.rasx": rasx(),
    "three.raw": raw3(),
    "four.raw": raw4(),
    "a.brml": brml(),
    "a.fxye": fxye(),
    "range.cif": pdcif(),
    "scan.cif": pdcif(ranged=False),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_scan_is_the_same_from_every_format(name: str) -> None:
    """Angles and counts come out as they went in."""
    (scan,) = parse_file(EXAMPLES[name], name=name).scans

    np.testing.assert_allclose(scan.two_theta, ANGLES, atol=1e-3)
    np.testing.assert_allclose(scan.counts, COUNTS, rtol=1e-6)
    expected = 4.0 if name == "a.xye" else 1.0
    np.testing.assert_allclose(scan.variance.sum() / COUNTS.sum(), expected, rtol=0.02)


@pytest.mark.parametrize("name", EXAMPLES)
def test_reader_says_in_one_line_what_it_did(name: str) -> None:
    """Points, range, wavelength and what was assumed are named."""
    (scan,) = parse_file(EXAMPLES[name], name=name).scans

    line = describe(scan)
    assert "120 points from 10.000 to 12.380 deg" in line
    assert "wavelength 1.54" in line
    assert "\n" not in line


def test_wavelength_of_the_file_is_used_when_it_states_one() -> None:
    """A part in 30,000 moves lines by more than a good scan's error."""
    for name in ("a.ras", "a.rasx"):
        (scan,) = parse_file(EXAMPLES[name], name=name).scans

        assert scan.k_alpha_1 == pytest.approx(1.540593, abs=1e-9)


def test_rates_become_counts_when_step_and_speed_are_stated() -> None:
    """At 6 deg/min a step of 0.02 deg takes 0.2 s, whatever the header's unit says."""
    (scan,) = parse_file(ras(factor=5.0, unit="counts"), name="a.ras").scans
    (rate,) = parse_file(ras(factor=2.5), name="b.ras").scans

    assert scan.counts.sum() == pytest.approx(5.0 * COUNTS.sum())
    assert rate.counts.sum() == pytest.approx(2.5 * 0.2 * COUNTS.sum(), rel=1e-6) or (
        rate.variance.sum() > 1.5 * rate.counts.sum()
    )


def test_absorber_makes_counts_less_sure_when_it_was_in() -> None:
    """What was multiplied by 7 has the noise of a seventh of the counts."""
    (scan,) = parse_file(brml(absorber=7.0), name="a.brml").scans

    np.testing.assert_allclose(scan.counts, 7.0 * COUNTS)
    np.testing.assert_allclose(scan.variance, 49.0 * COUNTS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"", r"format \.xyz is not known; \.xrdml, "),
        ("a", b"1 2", "file without ending"),
        ("a.xy", b"", "no columns of numbers"),
        ("a.xy", b"\0\1\2" * 100, "is binary"),
        ("a.xy", columns()[:200], "line 19 is '10'"),
        ("a.xy", columns()[:198], "points; at least 50"),
        ("a.xy", columns() + b"12.5 oops\n", "line 121 is '12.5 oops'"),
        ("a.ras", ras()[:1500], "cut off"),
        ("a.ras", b"*OTHER", "does not begin as a .ras"),
        ("a.ras", ras(axis="Omega"), "a scan of Omega"),
        ("a.rasx", b"PK no", "not a zip archive"),
        ("a.rasx", archive({"x": b""}), r"no Data0/Profile0\.txt"),
        ("a.rasx", rasx()[:-40], "not a zip archive, or a broken one"),
        ("a.raw", raw3()[:900], "cut off|more than it holds"),
        ("a.raw", raw3(status=3), "aborted"),
        ("a.raw", raw3(n_points=10**9), "more than it holds"),
        ("a.raw", b"RAW2" + bytes(400), "version 2, which is not read"),
        ("a.raw", b"nothing", "not a Bruker"),
        ("a.raw", raw4()[:300], "more than it holds|cut off"),
        ("a.raw", raw4(b"Rocking Curve"), "no powder pattern"),
        ("a.brml", brml(width=1280), "frame of 1280 pixels"),
        ("a.brml", archive({"x.xml": b"<x/>"}), r"no RawData0\.xml"),
        ("a.fxye", fxye()[:700], "not three numbers|states 120 points"),
        ("a.fxye", b"title\n", "no BANK line"),
        ("a.cif", b"data_x\n_a 1\n", "no pattern"),
        ("a.cif", b"loop_", "not a CIF"),
        ("a.cif", pdcif()[:500], "does not hold"),
    ],
)
def test_file_is_refused_with_its_format_and_the_remedy(
    name: str, content: bytes, message: str
) -> None:
    """What is broken or means something else is named."""
    with pytest.raises(AnalysisError, match=message) as caught:
        parse_file(content, name=name)

    assert name in str(caught.value)


@pytest.mark.parametrize("name", [*EXAMPLES, "real.xrdml"])
def test_broken_file_is_read_or_refused_and_never_crashes(name: str) -> None:
    """Bytes changed, cut and doubled at random give a scan or an `AnalysisError`."""
    content = xrdml() if name == "real.xrdml" else EXAMPLES[name]
    content = content[:6000] if name == "real.xrdml" else content
    random_ = random.Random(name)  # noqa: S311 # the same mutations every time
    for _ in range(N_MUTATIONS):
        broken = bytearray(content)
        for _ in range(random_.choice((1, 1, 3, 20))):
            at = random_.randrange(len(broken))
            kind = random_.randrange(4)
            if kind == 0:
                broken[at] = random_.randrange(256)
            elif kind == 1:
                del broken[at : at + random_.randrange(1, 60)]
            elif kind == 2:
                broken[at:at] = broken[at : at + random_.randrange(1, 60)]
            else:
                broken[at : at + 4] = random_.choice((b"\xff" * 4, bytes(4), b"1e99"))
            if not broken:
                broken = bytearray(b" ")
        try:
            found = parse_file(bytes(broken), name=name)
        except AnalysisError:
            continue
        assert isinstance(found, ScanFile)
        assert all(np.isfinite(scan.counts).all() for scan in found.scans)


def test_scans_are_listed_and_chosen_when_there_are_several(tmp_path: Path) -> None:
    """A file of two scans asks which, and gives the one that is named."""
    path = tmp_path / "two.ras"
    path.write_bytes(ras() + b"\r\n".join(ras().splitlines()[1:]))

    with pytest.raises(AnalysisError, match=r"holds 2 scans .*--scan 1 to 2"):
        read_scan(path)
    assert read_scan(path, 2).two_theta.size == ANGLES.size
    with pytest.raises(AnalysisError, match="choose one"):
        read_scan(path, 3)


def test_archive_that_would_fill_the_memory_is_refused() -> None:
    """A member that unpacks to more than its limit is not read to the end."""
    bomb = archive({"Data0/Profile0.txt": bytes(70_000_000)})

    with pytest.raises(AnalysisError, match="larger than 64 MB"):
        parse_file(bomb, name="bomb.rasx")


def test_markup_that_declares_entities_is_refused() -> None:
    """A document type has no place in a scan."""
    text = b"<!DOCTYPE x [<!ENTITY a 'aaa'>]><RawData>&a;</RawData>"

    with pytest.raises(AnalysisError, match="declares a document type"):
        parse_file(archive({"RawData0.xml": text}), name="a.brml")


def test_every_format_is_named_when_a_file_is_missing(tmp_path: Path) -> None:
    """The refusal lists what can be read."""
    with pytest.raises(AnalysisError) as caught:
        read_scan(tmp_path / "none.xy")

    assert all(ending in str(caught.value) for ending in FORMATS)
