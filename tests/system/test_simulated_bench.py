"""A bench in a process of its own, driven as if it were hardware."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_processes import PATIENCE_WALL_S, bearable_pace
from ppu.core.registry import find_lab

PACE = 2000.0
"""At best."""
SPARE_S = 12_000.0
"""In which six commands start: what a driver waits for lasts some of these seconds."""
SHORT = ("hold_s=3600", "temperature_degc=300", "ramp_degc_per_min=10")
COOL = "cool_to_degc=150"


@dataclass(frozen=True)
class ServedBench:
    """A running ``ppu sim``, and the lab file that leads to it."""

    lab: Path
    devices: dict[str, Any]
    pace: str


def settings() -> list[str]:
    """Return the words of a short firing."""
    return [word for value in (*SHORT, COOL) for word in ("--set", value)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBench]:
    """Serve the bundled lab at a scaled pace until the tests are done."""
    folder = tmp_path_factory.mktemp("bench")
    lab, hot = folder / "bench.yaml", hot_lab(folder)
    pace = f"{bearable_pace(hot, PACE, SPARE_S):.0f}"
    command = [
        ppu(),
        "sim",
        str(hot),
        "--pace",
        pace,
        "--json",
        "--write-lab",
        str(lab),
    ]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        content = json.loads(process.stdout.readline())
        yield ServedBench(lab, content["devices"], pace)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_WALL_S)

    assert process.returncode == 0
    assert "Traceback" not in errors


def hot_lab(folder: Path) -> Path:
    """Return the bundled lab, with somebody who takes out what is hotter: faster."""
    path = folder / "hot.yaml"
    text = find_lab("a-lab").read_text()
    path.write_text(text.replace("container_degc: [0, 80]", "container_degc: [0, 200]"))
    return path


def ppu() -> str:
    """Return the installed program of the interpreter that runs the tests."""
    import sys  # noqa: PLC0415 - only this needs it

    return str(Path(sys.executable).with_name("ppu"))


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``ppu`` with *words* in *folder*."""
    return subprocess.run(  # noqa: S603 - our own command
        [ppu(), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_WALL_S,
        check=False,
    )


def on_bench(bench: ServedBench, *words: str, folder: Path) -> Any:
    """Run a short firing on the bench as if it were hardware."""
    return run(
        "run",
        "fire_sample",
        *settings(),
        "--target",
        "hardware",
        "--lab",
        str(bench.lab),
        "--json",
        *words,
        folder=folder,
    )


def test_bench_fires_like_the_twin_when_driven_as_hardware(
    bench: ServedBench, tmp_path: Path
) -> None:
    """The crucible shows it, and what was heard of the dwell agrees; watermarked.

    On a busy machine hours of lab time may pass between two samples at this pace. Then
    the dwell counts as not measured; nothing else may be said of it.
    """
    done = on_bench(bench, "--pace", bench.pace, "--attended", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    lab = str(hot_lab(tmp_path))
    command = ("run", "fire_sample", "--lab", lab, *settings(), "--json")
    done = run(*command, folder=tmp_path)
    here = json.loads(done.stdout)

    assert there["simulated"] is True
    assert there["target"] == "hardware"
    for key, within in (("temperature_degc", 2.0), ("hold_s", 360.0)):
        actual = there["parameters_actual"][key]
        meant = pytest.approx(here["parameters_actual"][key], abs=within)
        assert actual is None or actual == meant
    loss = here["sample"]["loss_percent"]
    assert there["sample"]["loss_percent"] == pytest.approx(loss, abs=0.05)


def test_bench_is_refused_when_nobody_attends_it(
    bench: ServedBench, tmp_path: Path
) -> None:
    """A hardware run that heats needs --attended."""
    done = on_bench(bench, "--pace", bench.pace, folder=tmp_path)

    assert done.returncode == 2
    assert "--attended" in done.stderr


def test_bench_is_refused_when_the_pace_is_another(
    bench: ServedBench, tmp_path: Path
) -> None:
    """The pace of the lab file is the only one allowed."""
    done = on_bench(bench, "--pace", "1", "--attended", folder=tmp_path)

    assert done.returncode == 2
    assert f"runs at pace {bench.pace}" in done.stderr


def test_bench_is_refused_when_it_is_another_than_the_lab_file_says(
    bench: ServedBench, tmp_path: Path
) -> None:
    """Every device must answer the nonce of the lab file."""
    content = yaml.safe_load(bench.lab.read_text())
    content["simulated_bench"]["nonces"]["furnace_1"] = "0007"
    stale = ServedBench(tmp_path / "stale.yaml", bench.devices, bench.pace)
    stale.lab.write_text(yaml.safe_dump(content))

    done = on_bench(stale, "--pace", bench.pace, "--attended", folder=tmp_path)

    assert done.returncode == 5
    assert "is not the simulated bench of the lab file" in done.stderr


def test_read_shows_value_unit_quality_and_age_when_asked_at_the_bench(
    bench: ServedBench, tmp_path: Path
) -> None:
    """The first thing done at a bench: one signal, read over its wire."""
    lab = str(bench.lab)
    words = ("read", "furnace_1.process_value", "--lab", lab, "--json")
    done = run(*words, folder=tmp_path)
    reading = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert reading["units"] == "degC"
    assert reading["quality"] == "good"
    assert 0 <= reading["age_s"] < 3600
    assert 0 < reading["value"] < 1100


def test_robot_answers_an_independent_client_when_asked_for_its_status(
    bench: ServedBench,
) -> None:
    """Any HTTP client can ask the robot."""
    url = bench.devices["dosing_robot"]["endpoint"] + "/GetStatus"
    with urllib.request.urlopen(url, timeout=PATIENCE_WALL_S) as response:  # noqa: S310 - loopback
        content = json.loads(response.read())

    assert content["Status"] == "OK"
    assert len(content["Data"]["QuadrantStatuses"]) == 4


def test_diffractometer_answers_an_independent_client_when_asked_if_ready(
    bench: ServedBench,
) -> None:
    """Any TCP client can ask the diffractometer, one exchange a connection."""
    host, _, port = bench.devices["diffractometer"]["endpoint"].partition(":")
    with socket.create_connection(
        (host, int(port)), timeout=PATIENCE_WALL_S
    ) as connection:
        connection.sendall(b"@STATUS_REQUEST@UNIT=xrd@END")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()

    assert b"READY=yes" in answer
    assert answer.endswith(b"@END")


def test_bench_of_one_device_writes_a_lab_file_that_is_in_order(
    ppu_command: str, tmp_path: Path
) -> None:
    """What belongs to devices that are not served is left out of the lab file."""
    target = tmp_path / "bench.yaml"
    only = ["a-lab", "--only", "balance", "--write-lab", str(target)]
    with subprocess.Popen(  # noqa: S603 - our own command
        [ppu_command, "sim", *only, "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        checked = subprocess.run(  # noqa: S603 - our own command
            [ppu_command, "lab", "check", str(target)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_WALL_S,
            check=False,
        )
        process.terminate()

    assert "is in order: 1 devices" in checked.stdout, checked.stderr
