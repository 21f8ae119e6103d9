"""Whole runs on the twin: the same seed, the same documents, whatever the clock."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ppu import open_lab
from ppu.cell.execution import Execution
from ppu.plans.protocol import find_protocol
from ppu.twin.bench import Links

SHORT = {
    "temperature_degc": 300,
    "ramp_degc_per_min": 10,
    "hold_s": 600,
    "cool_to_degc": 200,
}
HOT = {**SHORT, "temperature_degc": 850}
WALL_KEYS = ("wall_time_s", "run_time_s")


@dataclass
class Run:
    """What a run left behind."""

    result: dict[str, Any]
    documents: list[Any]
    masses_g: dict[str, float]
    elements_mol: dict[str, float]

    @property
    def comparable(self) -> list[Any]:
        """Result and documents without uids and wall times."""
        result = {k: v for k, v in self.result.items() if k not in WALL_KEYS}
        return [result, *without_uids(self.documents)]


def without_uids(documents: list[Any]) -> list[Any]:
    """Return *documents* with each uid replaced by its number of appearance."""
    numbers: dict[str, str] = {}

    def replace(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {
                replace(k) if k in numbers else k: replace(v, k)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [replace(item, key) for item in value]
        is_uid = key in ("uid", "run_start", "descriptor")
        if isinstance(value, str) and (is_uid or value in numbers):
            return numbers.setdefault(value, f"uid {len(numbers)}")
        return value

    return [replace(document) for document in documents]


def read_documents(out: Path) -> list[Any]:
    """Return the documents that a run left in *out*."""
    lines = (out / "documents.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def run_job(
    lab: Path, out: Path, asked: dict[str, Any], seed: int, links: Links = "kernel"
) -> Run:
    """Run ``fire_sample`` on the twin of *lab*."""
    with open_lab(str(lab), seed=seed, links=links) as opened:
        execution = Execution(opened, find_protocol("fire_sample"), asked, out)
        execution.check()
        result = execution.run(lambda: 0.0)
        bench: Any = opened.bench
        world = bench.world
        matter = world.containers["crucible_04"].matter
        return Run(result, read_documents(out), matter.masses_g(), world.elements())


@pytest.fixture(scope="module")
def start(
    small_lab: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """Runs a job in a directory of its own."""

    def start(asked: dict[str, Any], seed: int = 7, links: Links = "kernel") -> Run:
        out = tmp_path_factory.mktemp("run") / "out"
        return run_job(small_lab, out, asked, seed, links)

    return start


@pytest.fixture(scope="module")
def first(start: Callable[..., Run]) -> Run:
    """A short run with seed 7."""
    return start(SHORT)


def test_documents_are_equal_when_the_seed_is_the_same(
    first: Run, start: Callable[..., Run]
) -> None:
    """Two runs of the same job agree in every field, uids aside."""
    assert start(SHORT).comparable == first.comparable


def test_documents_are_equal_over_memory_and_over_the_kernel(
    first: Run, start: Callable[..., Run]
) -> None:
    """Links in memory carry the same bytes at the same lab times."""
    assert start(SHORT, links="memory").comparable == first.comparable


def test_documents_differ_when_the_seed_is_another(
    first: Run, start: Callable[..., Run]
) -> None:
    """The seed reaches the instruments' noise."""
    assert start(SHORT, seed=8).comparable[1:] != first.comparable[1:]


def test_documents_tell_the_run_in_lab_time(first: Run) -> None:
    """Start, descriptors, events and stop carry ascending times of the twin's date."""
    times: list[float] = []
    kinds = [document["name"] for document in first.documents]
    for document in first.documents:
        stamp = document["doc"]["time"]
        times += stamp if isinstance(stamp, list) else [stamp]

    assert kinds[0] == "start"
    assert kinds[-1] == "stop"
    assert {"descriptor", "event", "event_page"} <= set(kinds)
    assert min(times) == times[0]
    assert max(times) == times[-1]
    assert all(1893456000.0 <= time <= 1893456000.0 + 6000.0 for time in times)


def test_run_conserves_every_element(first: Run, start: Callable[..., Run]) -> None:
    """What leaves a crucible as gas is still somewhere."""
    hot = start(HOT)

    assert hot.elements_mol == pytest.approx(first.elements_mol)
    assert hot.masses_g["CaO"] > 0.01


@pytest.mark.slow
def test_wall_clock_leaves_no_trace_when_it_is_ten_years_off(
    first: Run, small_lab: Path, tmp_path: Path
) -> None:
    """With all clocks ten years ahead a run leaves the same result and documents."""
    out = tmp_path / "out"
    settings = [f"--set={key}={value}" for key, value in SHORT.items()]
    script = (
        "import sys, time\n"
        "wall, steady = time.time, time.monotonic\n"
        "time.time = lambda: wall() + 3.2e8\n"
        "time.monotonic = lambda: steady() + 3.2e8\n"
        "from ppu.__main__ import main\n"
        "sys.argv = ['ppu', *sys.argv[1:]]\n"
        "main()\n"
    )
    ended = subprocess.run(  # noqa: S603 - our own interpreter and script
        [
            sys.executable,
            "-c",
            script,
            "run",
            "fire_sample",
            f"--lab={small_lab}",
            "--seed=7",
            f"--out={out}",
            *settings,
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    result = json.loads((out / "result.json").read_text())

    assert ended.returncode == 0, ended.stderr
    assert Run(result, read_documents(out), {}, {}).comparable == first.comparable


def test_line_with_a_parity_opens_as_often_as_one_likes(
    small_lab: Path, tmp_path: Path
) -> None:
    """A pseudo-terminal knows no parity; the twin compares it with the lab file."""
    text = small_lab.read_text().replace(
        "port: /dev/nowhere_1, baudrate: 9600",
        "port: /dev/nowhere_1, baudrate: 9600, parity: even",
    )
    text = text.replace(
        "    slots: [furnace_1.slot_1]\n",
        "    slots: [furnace_1.slot_1]\n    twin: {parity: even}\n",
    )
    path = tmp_path / "even.yaml"
    path.write_text(text)
    with open_lab(str(path), only=("furnace_1",)) as lab:
        for _ in range(3):
            lab.host.call(lab.devices["furnace_1"].disconnect())
            reading = lab.read("furnace_1", "process_value")
            assert reading["quality"] == "good"
