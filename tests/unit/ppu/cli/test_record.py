"""``ppu record``: what it writes, and what it refuses."""

from pathlib import Path

import pytest

from ppu.cli.options import TargetName
from ppu.cli.record import record
from ppu.core.errors import ConfigurationError, NotFoundError
from ppu.transports.link import wire_log
from ppu.transports.recording import load_recording

LAB = str(Path(__file__).parents[3] / "contract" / "lab.yaml")


def test_record_writes_exchanges_and_readings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Connecting and one reading of each signal asked for are on the tape."""
    path = tmp_path / "balance.jsonl"
    record("balance", LAB, TargetName.TWIN, path, ["present_mass", "mass"])
    recording = load_recording(path)
    printed = capsys.readouterr()

    assert recording.head.driver == "ppu_drivers.mettler_sics:MettlerSics"
    assert [e.sent for e in recording.exchanges] == [
        b"I4\r\n",
        b"I3\r\n",
        b"I2\r\n",
        b"SI\r\n",
    ]
    assert [r.quality for r in recording.readings] == ["good", "invalid"]
    assert "nothing was measured yet" in recording.readings[1].message
    assert printed.out == f"{path}: 4 exchanges, 2 readings\n"
    assert printed.err == ""
    assert not any(type(h).__name__ == "Recorder" for h in wire_log.handlers)


def test_record_shows_the_wire_when_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People may watch what is recorded."""
    record(
        "balance",
        LAB,
        TargetName.TWIN,
        tmp_path / "balance.jsonl",
        ["present_mass"],
        verbose=True,
    )

    assert "'SI\\r\\n' ->" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "signal", "reason"),
    [
        ("balanc", None, "no device 'balanc'; did you mean 'balance'"),
        ("balance", ["present"], "no such signal; did you mean 'present_mass'"),
    ],
)
def test_record_is_refused_when_there_is_nothing_to_record(
    tmp_path: Path, device: str, signal: list[str] | None, reason: str
) -> None:
    """A typo is told with the nearest name, and no file is written."""
    path = tmp_path / "tape.jsonl"

    with pytest.raises(NotFoundError, match=reason):
        record(device, LAB, TargetName.TWIN, path, signal)
    assert not path.exists()


def test_record_never_overwrites(tmp_path: Path) -> None:
    """A tape is evidence: a file that is there stays as it is."""
    path = tmp_path / "tape.jsonl"
    path.write_text("precious")

    with pytest.raises(ConfigurationError, match="exists already"):
        record("balance", LAB, TargetName.TWIN, path)
    assert path.read_text() == "precious"


def test_record_says_so_when_the_file_cannot_be_written(tmp_path: Path) -> None:
    """What was recorded is lost, and the person is told why."""
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        record("balance", LAB, TargetName.TWIN, tmp_path / "no" / "tape.jsonl")
