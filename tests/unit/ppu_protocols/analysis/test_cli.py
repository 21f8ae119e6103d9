"""``ppu analyse xrd`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ppu_protocols.analysis.cli import app, repeat_option

DATA = Path(__file__).parents[3] / "data" / "xrd"
SCAN = str(DATA / "zno_in2o3.xrdml")
ZNO, IN2O3 = (str(DATA / f"{name}.cif") for name in ("zno_p1", "in2o3"))


def run(*args: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    result = CliRunner().invoke(app, ["xrd", *args])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "args",
    [
        (SCAN, "--cif", ZNO, IN2O3, "--json"),
        (SCAN, "--cif", ZNO, "--cif", IN2O3, "--json"),
        ("--json", f"--cif={ZNO}", IN2O3, SCAN),
    ],
    ids=["several after one", "repeated", "before the scan"],
)
def test_command_prints_one_json_object_when_asked(args: tuple[str, ...]) -> None:
    """Standard output is one JSON object with the agreed keys."""
    code, stdout, stderr = run(*args)
    report = json.loads(stdout)

    assert (code, stderr) == (0, "")
    assert list(report) == [
        "schema_version",
        "scan",
        "fractions_of",
        "phases",
        "unlisted",
        "crystallinity",
        "error_budget",
        "structure_notes",
        "confidence",
        "confidence_sentence",
        "confidence_reasons",
        "remarks",
        "alignment",
        "fit",
        "wavelength",
    ]
    assert [phase["name"] for phase in report["phases"]] == ["in2o3", "zno_p1"]
    assert set(report["phases"][0]) == {
        "name",
        "formula",
        "weight_fraction",
        "standard_error",
        "is_present",
        "detection_limit",
        "absorption_factor",
    }
    assert report["error_budget"][0]["name"] == "counting and fit"
    assert all(part["source"] for part in report["error_budget"])
    assert sum(p["weight_fraction"] for p in report["phases"]) == pytest.approx(1.0)
    assert set(report["fit"]) == {"r_wp", "goodness_of_fit"}
    assert report["confidence"] == "high"


def test_command_prints_a_table_with_doubts_when_not_asked_for_json() -> None:
    """People see shares, errors, and why not to trust them."""
    code, stdout, _ = run(SCAN, "--cif", ZNO)

    assert code == 0
    assert "of the crystalline part" in stdout
    assert "unlisted" in stdout
    assert "error       " in stdout
    assert "confidence  low" in stdout
    assert "missing from the candidates" in stdout


def test_command_takes_bundled_phases_by_name() -> None:
    """A name that is no file but a bundled phase is that phase."""
    code, stdout, _ = run(SCAN, "--cif", ZNO, IN2O3, "CaO", "--json")

    assert code == 0
    assert json.loads(stdout)["phases"][-1]["name"] == "CaO"


def test_command_writes_the_plot_when_asked(tmp_path: Path) -> None:
    """--plot leaves the picture where it was asked for."""
    path = tmp_path / "fit.svg"

    code, _, _ = run(SCAN, "--cif", ZNO, IN2O3, "--plot", str(path))

    assert code == 0
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("args", "name", "allowed"),
    [
        (("absent.xrdml", "--cif", ZNO), "absent.xrdml", ".xrdml"),
        ((ZNO, "--cif", ZNO), "zno_p1.cif", "powder CIF"),
        ((SCAN, "--cif", "absent.cif"), "absent.cif", "CIF"),
        ((SCAN, "--cif", str(DATA / "README.md")), "README.md", "CIF"),
        ((SCAN, "--cif", ZNO, "--plot", "fit.gif"), "fit.gif", ".svg"),
        ((SCAN, "--cif", ZNO, ZNO), "zno_p1", "different names"),
    ],
)
def test_command_says_what_is_wrong_and_ends_with_2_when_input_is_bad(
    args: tuple[str, ...], name: str, allowed: str
) -> None:
    """One message with the file and what is allowed, and no traceback."""
    code, stdout, stderr = run(*args)

    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert name in stderr
    assert allowed in stderr
    assert "Traceback" not in stderr


def test_command_ends_with_2_when_no_candidate_is_given() -> None:
    """The candidates are required."""
    code, _, stderr = run(SCAN)

    assert code == 2
    assert "--cif" in stderr


def test_command_shows_an_example_in_its_help() -> None:
    """--help ends with a line that can be copied."""
    code, stdout, _ = run("--help")

    assert code == 0
    assert "ppu analyse xrd scan.xrdml --cif" in stdout


def test_values_end_when_an_option_or_a_scan_follows() -> None:
    """The scan may stand anywhere, and "--" ends all options."""
    given_args = ["--cif", "a", "b", "s.xrdml", "x", "--cif", "c", "--", "--cif", "d"]

    assert repeat_option(given_args, "--cif") == [
        *("--cif", "a", "--cif", "b", "s.xrdml", "x"),
        *("--cif", "c", "--", "--cif", "d"),
    ]


@given(values=st.lists(st.from_regex(r"[a-z]{1,5}\.cif", fullmatch=True), min_size=1))
@settings(max_examples=30)
def test_values_are_the_same_when_the_option_is_repeated_already(
    values: list[str],
) -> None:
    """Both spellings mean the same list."""
    repeated = [part for value in values for part in ("--cif", value)]

    assert repeat_option(["--cif", *values], "--cif") == repeated
    assert repeat_option(repeated, "--cif") == repeated


def test_command_says_what_it_read_when_asked_to_be_verbose() -> None:
    """One line about the file goes to standard error."""
    code, _, stderr = run(SCAN, "--cif", ZNO, IN2O3, "--verbose")

    assert code == 0
    assert "8282 points from 10.009 to 99.994 deg" in stderr


def test_command_averages_mounts_when_there_are_several() -> None:
    """Two scans give the mean and the scatter between them."""
    code, stdout, _ = run(SCAN, SCAN, "--cif", ZNO, IN2O3, "--json")
    replicates = json.loads(stdout)["replicates"]

    assert code == 0
    assert replicates["n"] == 2
    assert replicates["scatter"]["in2o3"] == pytest.approx(0.0, abs=1e-9)


def test_command_gives_absolute_fractions_when_there_is_a_spike() -> None:
    """With zinc oxide weighed in as 40 wt% the rest is crystalline, within errors."""
    code, stdout, _ = run(SCAN, "--cif", ZNO, IN2O3, "--spike", "zno_p1=40.0", "--json")
    absolute = json.loads(stdout)["absolute"]

    assert code == 0
    assert abs(absolute["amorphous"]) < 2.0 * absolute["amorphous_error"]
    assert absolute["weight_fractions"]["in2o3"] == pytest.approx(1.0, abs=0.2)
    assert absolute["doubt"] == ""


def test_command_doubts_an_external_standard_that_is_not_pure() -> None:
    """A mixture that is taken for pure zinc oxide makes more than all crystalline."""
    options = [SCAN, "--cif", ZNO, IN2O3, "--external", f"{SCAN}={ZNO}"]
    options += ["--composition", "Zn6In4O12"]
    code, stdout, _ = run(*options, "--json")
    _, table, _ = run(*options)
    absolute = json.loads(stdout)["absolute"]

    assert code == 0
    assert absolute["fractions_of"] == "the sample"
    assert absolute["amorphous"] < 0.0
    assert "more than the whole is crystalline" in absolute["doubt"]
    assert absolute["doubt"] in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--external", f"{SCAN}={ZNO}"], "give --external with --composition"),
        (["--composition", "ZnO"], "give --external with --composition"),
        (
            ["--external=a=b", "--composition=ZnO", "--spike=zno_p1=3"],
            "or --spike: by one standard",
        ),
        (["--external", "a.xy", "--composition", "ZnO"], "SCAN=CIF is needed"),
        (["--external", f"{SCAN}={ZNO}", "--composition", "Zx"], "no element Zx"),
        (["--external", f"none.xy={ZNO}", "--composition", "ZnO"], "none.xy"),
    ],
)
def test_command_refuses_an_external_standard_that_it_cannot_use(
    options: list[str], message: str
) -> None:
    """With what is needed."""
    code, _, stderr = run(SCAN, "--cif", ZNO, IN2O3, *options)

    assert (code, message in stderr) == (2, True)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--grain", "zno_p1", "NAME=NUMBER"),
        ("--grain", "other=3", "no candidates"),
        ("--spike", "none=10", "was not found"),
        ("--scan", "4", "holds 1 scans"),
    ],
)
def test_command_refuses_what_it_cannot_use(
    option: str, value: str, message: str
) -> None:
    """A wrong value of an option is named with what is needed."""
    code, _, stderr = run(SCAN, "--cif", ZNO, IN2O3, option, value)

    assert code == 2
    assert message in stderr
