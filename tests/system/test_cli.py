"""The ``ppu`` command as people and programs meet it: in a process of its own."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SHORT = [
    "--set=temperature_degc=300",
    "--set=ramp_degc_per_min=10",
    "--set=hold_s=600",
    "--set=cool_to_degc=200",
]
RESULT_KEYS = {
    "schema_version",
    "protocol",
    "protocol_version",
    "ppu_version",
    "lab",
    "target",
    "simulated",
    "seed",
    "parameters_asked",
    "parameters_actual",
    "lab_time_s",
    "wall_time_s",
    "run_time_s",
    "incidents",
    "files",
}
DEADLINE_WALL_S = 600.0

Ppu = Callable[..., "Ended"]


@dataclass
class Ended:
    """What a command left on its streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture(scope="module")
def ppu(ppu_command: str) -> Ppu:
    """Runs ``ppu`` to its end."""

    def run(*arguments: object, cwd: Path | None = None) -> Ended:
        ended = subprocess.run(  # noqa: S603 - the command under test
            [ppu_command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_WALL_S,
            check=False,
            cwd=cwd,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def kept(out: Path) -> set[str]:
    """Return the names of the files that a run left."""
    return {path.name for path in out.iterdir()}


# -- ppu run --------------------------------------------------------------------------


@dataclass
class Done:
    """A finished run."""

    ended: Ended
    out: Path


@pytest.fixture(scope="module")
def done(ppu: Ppu, small_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A short firing, with ``--json``."""
    out = tmp_path_factory.mktemp("run") / "out"
    arguments = ["--lab", small_lab, "--seed", 5, "--out", out, "--json", *SHORT]
    return Done(ppu("run", "fire_sample", *arguments), out)


@pytest.mark.slow
def test_run_prints_one_json_object_when_asked(done: Done) -> None:
    """With --json standard output is the result and nothing else."""
    assert done.ended.code == 0
    assert done.ended.json.keys() >= RESULT_KEYS
    assert done.ended.json == json.loads((done.out / "result.json").read_text())


def test_result_tells_what_was_asked_and_what_was_done(done: Done) -> None:
    """Names that programs rely on, and values that are right."""
    result = done.ended.json

    assert result["schema_version"] == 1
    assert (result["protocol"], result["lab"]) == ("fire_sample", "small")
    assert (result["target"], result["simulated"], result["seed"]) == ("twin", True, 5)
    assert result["parameters_asked"]["hold_s"] == 600
    assert result["parameters_actual"]["hold_s"] == pytest.approx(600, abs=20)
    assert result["sample"]["mass_before_g"] == pytest.approx(2.0, abs=1e-3)
    assert result["lab_time_s"] > 3000 > result["wall_time_s"] >= result["run_time_s"]
    assert result["incidents"] == []


def test_run_tells_its_progress_on_standard_error(done: Done) -> None:
    """Every step is told with its lab time, apart from the result."""
    for step in ("tare balance", "move container", "weigh container", "fire"):
        assert re.search(rf"\[ .*\] {step}", done.ended.err)
    assert "Traceback" not in done.ended.err


def test_run_leaves_whole_files_only(done: Done) -> None:
    """Everything that ``files`` names is there, and nothing half-written."""
    files = kept(done.out)

    assert set(done.ended.json["files"].values()) <= files
    assert {"result.json", "store.sqlite"} <= files
    assert not [name for name in files if name.endswith((".part", "-wal", "-shm"))]


def test_run_refuses_a_directory_that_holds_another_run(
    ppu: Ppu, small_lab: Path, done: Done
) -> None:
    """Two runs are never mixed in one store."""
    before = (done.out / "documents.jsonl").read_bytes()
    again = ppu(
        "run", "fire_sample", "--lab", small_lab, "--out", done.out, "--json", *SHORT
    )

    assert again.code == 2
    assert "holds a run already" in again.json["error"]["text"]
    assert (done.out / "documents.jsonl").read_bytes() == before


@pytest.mark.slow
def test_run_tells_people_what_matters(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """Without --json the result is a few lines, and says that it is simulated."""
    params = tmp_path / "params.yaml"
    params.write_text("temperature_degc: 100\nramp_degc_per_min: 10\nhold_s: 60\n")
    ended = ppu(
        "run",
        "fire_sample",
        f"--lab={small_lab}",
        f"--params={params}",
        "--set=cool_to_degc=95",
        cwd=tmp_path,
    )
    (out,) = (tmp_path / "runs").iterdir()

    assert ended.code == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-fire_sample-[0-9a-f]{6}", out.name)
    assert f"runs/{out.name}/report.html" in ended.out
    assert "incidents: none" in ended.out
    assert "simulated: no real sample was made" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "texts"),
    [
        (["fire_sampel"], 2, ["no protocol 'fire_sampel'; did you mean 'fire_sample'"]),
        (
            ["fire_sample", "--set=hold=5", "--set=temperature_degc=hot"],
            2,
            ["hold: unknown key; did you mean 'hold_s'?", "temperature_degc: "],
        ),
        (["fire_sample", "--set=hold_s"], 2, ["should look like key=value"]),
        (["fire_sample", "--pace=0"], 2, ["--pace 0: should be 'jump' or a number"]),
        (["fire_sample", "--params=/nowhere.yaml"], 2, ["/nowhere.yaml: No such file"]),
        (
            ["fire_sample", "--set=temperature_degc=1500", "--set=hold_s=90"],
            3,
            ["1500 degC, allowed are 0 to 1100 degC", "a dwell of 90 s"],
        ),
        (["fire_sample", "--set=container=crucible_01"], 3, ["is empty"]),
        (
            ["fire_sample", "--set=cool_to_degc=300"],
            3,
            ["operator allows up to 250 degC"],
        ),
        (
            ["fire_sample", "--set=hold_s=2024-13-45"],
            2,
            ["should be a number", "given was '2024-13-45'"],
        ),
        (["fire_sample", "--target=hardware"], 2, ["say --attended"]),
        (
            ["fire_sample", "--target=hardware", "--attended"],
            5,
            ["furnace_1: cannot open /dev/nowhere_1", "balance: cannot open", "termin"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_run_refuses_with_the_code_of_who_must_act(
    ppu: Ppu,
    small_lab: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    texts: list[str],
) -> None:
    """Wrong input is 2, refused is 3, unreachable is 5; all faults in one message."""
    out = tmp_path / "out"
    ended = ppu("run", *arguments, f"--lab={small_lab}", f"--out={out}", "--json")

    assert ended.code == code
    assert ended.json["exit_code"] == code
    for text in texts:
        assert text in ended.json["error"]["text"]
        assert text in ended.err
    assert not out.exists()


def test_run_refuses_an_out_that_cannot_be_written(ppu: Ppu, small_lab: Path) -> None:
    """Where nothing can be kept, nothing moves."""
    ended = ppu("run", "fire_sample", f"--lab={small_lab}", "--out=/proc/x", "--json")

    assert ended.code == 2
    assert "cannot write to /proc/x" in ended.json["error"]["text"]
    assert "ramping down" not in ended.err


def test_run_fails_clearly_when_documents_cannot_be_written(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """One line says which file, whatever stands in its place."""
    (tmp_path / "documents.part").mkdir()
    ended = ppu("run", "fire_sample", f"--lab={small_lab}", f"--out={tmp_path}", *SHORT)

    assert ended.code == 4
    assert "documents.part: Is a directory" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_run_goes_on_when_nobody_reads_its_progress(
    ppu_command: str, small_lab: Path, tmp_path: Path
) -> None:
    """A pager that is closed does not end a firing."""
    command = [ppu_command, "run", "fire_sample", f"--lab={small_lab}", *SHORT]
    with subprocess.Popen(  # noqa: S603 - the command under test
        [*command, f"--out={tmp_path / 'out'}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout is not None
        result = json.loads(process.stdout.read())

    assert process.returncode == 0
    assert result["protocol"] == "fire_sample"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_leaves_safely_when_it_is_stopped_in_mid_firing(
    ppu_command: str, small_lab: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit code 130, the furnace in its abort state, everything told, nothing left."""
    out = tmp_path / "out"
    process = subprocess.Popen(  # noqa: S603 - the command under test
        [
            ppu_command,
            "run",
            "fire_sample",
            f"--lab={small_lab}",
            f"--out={out}",
            "--pace=5000",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    guard = threading.Timer(DEADLINE_WALL_S, process.kill)
    guard.start()
    try:
        n_collected = 0
        for line in process.stderr:
            n_collected += " degC" in line
            if n_collected == 3:  # the first is a single sample of a cold chamber
                break
        process.send_signal(number)
        process.send_signal(number)  # a second one changes nothing
        stdout, stderr = process.communicate()
    finally:
        guard.cancel()
        guard.join()
        process.kill()
    ended = Ended(process.returncode, stdout, stderr)
    documents = (out / "documents.jsonl").read_text().splitlines()

    assert ended.code == 130
    assert ended.json["exit_code"] == 130
    assert number.name in ended.json["error"]["text"]
    assert "furnace_1: ramping down at 5 degC/min to 0 degC, verified" in ended.err
    assert "furnace_1: the chamber is at" in ended.err
    assert "crucible_04 is at furnace_1.slot_1" in ended.err
    assert "Traceback" not in ended.err
    assert json.loads(documents[-1])["doc"]["exit_status"] == "abort"
    assert "result.json" not in kept(out)
    assert not [name for name in kept(out) if name.endswith((".part", "-wal"))]


# -- looking --------------------------------------------------------------------------


def test_protocols_are_listed_and_shown(ppu: Ppu) -> None:
    """The list names each protocol; one in full names parameters and limits."""
    listed = ppu("protocols")
    shown = ppu("protocols", "fire_sample")

    assert listed.code == shown.code == 0
    assert re.search(r"^fire_sample +1 ", listed.out, re.MULTILINE)
    assert re.search(r"hold_s +3600.0 +number >= 0 <= 1e\+06", shown.out)
    assert "The furnace and the crucible get hot." in shown.out


def test_protocol_is_described_as_json_when_asked(ppu: Ppu) -> None:
    """Programs get the schemas of parameters and result."""
    found = ppu("protocols", "fire_sample", "--json").json

    assert (found["name"], found["version"]) == ("fire_sample", "1")
    assert "hold_s" in found["parameters"]["properties"]
    assert "sample" in found["result"]["properties"]


def test_lab_check_accepts_the_bundled_lab(ppu: Ppu) -> None:
    """What is shipped is in order."""
    ended = ppu("lab", "check", "a-lab")

    assert ended.code == 0
    assert "is in order" in ended.out


def test_lab_check_tells_every_fault_with_its_line(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """Unknown keys and wrong values are told at once, with the nearest known name."""
    text = small_lab.read_text()
    for right, wrong in (
        ("dwell_unit: minute", "dwel_unit: minute"),
        ("limits: {temperature_degc: [0, 1100]", "limits: {temperature_degc: [9, 1]"),
        ("on_abort: ramp_down", "on_abort: rampdown"),
        ("{transport: terminal}", "{transport: telegraph}"),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    lines = text.splitlines()
    ended = ppu("lab", "check", path)

    assert ended.code == 2
    for wrong, hint in (
        ("dwel_unit", "unknown key; did you mean 'dwell_unit'?"),
        ("temperature_degc: [9", "low <= high"),
        ("rampdown", "did you mean 'ramp_down'?"),
        ("telegraph", "known are: tcp, terminal"),
    ):
        (number,) = [n for n, line in enumerate(lines, 1) if wrong in line]
        told = [
            line for line in ended.err.splitlines() if f"line {number}, column" in line
        ]
        assert any(hint in line for line in told), (wrong, ended.err)


def test_lab_check_reads_what_is_said_of_the_twin(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """A script of a fault that does not exist is told before the twin is made."""
    text = small_lab.read_text()
    right = "  furnace_1:\n"
    assert right in text
    wrong = f"{right}    twin: {{faults: [{{fault: dorp}}]}}\n"
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(right, wrong, 1))
    ended = ppu("lab", "check", path)

    assert ended.code == 2
    assert "furnace_1.twin: unknown fault 'dorp'; did you mean 'drop'?" in ended.err
    assert "line " in ended.err


def test_lab_schema_is_a_json_schema(ppu: Ppu) -> None:
    """Editors can check lab files while they are written."""
    schema = json.loads(ppu("lab", "schema").out)

    assert schema["type"] == "object"
    assert {"lab", "devices", "locations", "containers"} <= schema["properties"].keys()


def test_read_prints_one_reading_as_json(ppu: Ppu, small_lab: Path) -> None:
    """Value, unit, quality and age of one signal."""
    found = ppu(
        "read",
        "furnace_1.process_value",
        f"--lab={small_lab}",
        "--target=twin",
        "--json",
    ).json

    assert (found["device"], found["signal"]) == ("furnace_1", "process_value")
    assert 15.0 < found["value"] < 35.0
    assert (found["units"], found["quality"]) == ("degC", "good")
    assert found["age_s"] == pytest.approx(0.0, abs=1.0)


def test_read_watches_as_often_as_asked(ppu: Ppu, small_lab: Path) -> None:
    """--watch repeats, --count ends it."""
    ended = ppu(
        "read",
        "balance",
        f"--lab={small_lab}",
        "--target=twin",
        "--watch",
        "--count=3",
    )

    assert ended.code == 0
    assert ended.out.count("balance.present_mass") == 3
    assert ended.out.count("nothing was measured yet") == 3


@pytest.mark.parametrize(
    ("what", "code", "text"),
    [
        ("furnce_1", 2, "did you mean 'furnace_1'?"),
        ("balance.mas", 2, "has no signal 'mas'; did you mean 'mass'?"),
        (".", 2, "'.' should look like DEVICE or DEVICE.SIGNAL"),
        ("furnace_1.", 2, "should look like DEVICE or DEVICE.SIGNAL"),
        (".process_value", 2, "should look like DEVICE or DEVICE.SIGNAL"),
    ],
)
def test_read_refuses_what_is_not_there(
    ppu: Ppu, small_lab: Path, what: str, code: int, text: str
) -> None:
    """A wrong name is told with the nearest right one."""
    ended = ppu("read", what, f"--lab={small_lab}", "--target=twin")

    assert ended.code == code
    assert text in ended.err


def test_read_says_what_is_unreachable(ppu: Ppu, small_lab: Path) -> None:
    """Hardware that is not there is exit code 5."""
    ended = ppu("read", "balance", f"--lab={small_lab}")

    assert ended.code == 5
    assert "balance: cannot open /dev/nowhere_2: no such port" in ended.err


def test_verbose_shows_each_exchange(ppu: Ppu, small_lab: Path) -> None:
    """People can see the bytes, both ways, on standard error."""
    ended = ppu(
        "read",
        "balance.present_mass",
        f"--lab={small_lab}",
        "--target=twin",
        "--verbose",
    )

    assert re.search(r"balance: 'SI\\r\\n' -> 'S S .* g\\r\\n'", ended.err)


def test_version_is_printed(ppu: Ppu) -> None:
    """The version is that of the package."""
    assert re.fullmatch(r"ppu \d+\.\d+\.\d+\S*\n", ppu("--version").out)


def test_pipe_that_closes_is_no_traceback(ppu_command: str) -> None:
    """``ppu ... | head`` ends quietly."""
    ended = subprocess.run(  # noqa: S602 - a pipe is what is tested
        f"{ppu_command} lab schema | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_WALL_S,
        check=False,
    )

    assert ended.stdout == "{\n"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        ("> /dev/full", "error: standard output: No space left on device\n"),
        (">&-", "error: standard output is closed\n"),
        ("| true", ""),
    ],
)
def test_output_that_cannot_be_written_is_one_clear_line(
    ppu_command: str, redirection: str, told: str
) -> None:
    """A result that was lost is exit code 4, and no traceback."""
    ended = subprocess.run(  # noqa: S603 - a shell's redirection is what is tested
        [
            "/bin/bash",
            "-c",
            f'{ppu_command} lab schema {redirection}; exit "${{PIPESTATUS[0]}}"',
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_WALL_S,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (4, told)


def test_signals_end_in_130_when_they_come_while_connecting(
    ppu_command: str, small_lab: Path, tmp_path: Path
) -> None:
    """Ctrl-C at a silent port, pressed twice: one line, no traceback, nothing left."""
    keyboard, seat = os.openpty()
    lab = tmp_path / "silent.yaml"
    lab.write_text(small_lab.read_text().replace("/dev/nowhere_1", os.ttyname(seat)))
    process = subprocess.Popen(  # noqa: S603 - the command under test
        [ppu_command, "read", "furnace_1", f"--lab={lab}", "--verbose"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(DEADLINE_WALL_S, process.kill)
    guard.start()
    try:
        os.read(keyboard, 1)  # the first question was sent
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    finally:
        guard.cancel()
        guard.join()
        process.kill()
        os.close(keyboard)
        os.close(seat)

    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert "destroyed" not in err


# -- ppu sim --------------------------------------------------------------------------


def test_sim_serves_until_it_is_told_to_stop(ppu_command: str, small_lab: Path) -> None:
    """Endpoints are told as JSON; SIGTERM ends it, and its ports are gone."""
    process = subprocess.Popen(  # noqa: S603 - the command under test
        [ppu_command, "sim", str(small_lab), "--pace=60", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(DEADLINE_WALL_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        port = Path(told["devices"]["furnace_1"]["endpoint"])
        was_there = port.exists()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate()
    finally:
        guard.cancel()
        guard.join()
        process.kill()
        process.communicate()

    assert (told["lab"], told["pace"]) == ("small", 60.0)
    assert told["devices"]["furnace_1"]["wire"] == "modbus-rtu"
    assert told["devices"]["balance"]["settings"]["baudrate"] == 9600
    assert was_there
    assert not port.exists()
    assert (process.returncode, rest) == (0, "")


def test_sim_refuses_to_jump(ppu: Ppu) -> None:
    """Other programs live in real time."""
    ended = ppu("sim", "--pace=jump")

    assert ended.code == 2
    assert "give a number" in ended.err


def test_sim_refuses_to_write_a_lab_over_a_directory(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """One line says why, and nothing half-written is left."""
    target = tmp_path / "folder"
    target.mkdir()
    ended = ppu("sim", small_lab, "--write-lab", target)

    assert ended.code == 2
    assert f"--write-lab {target}: Is a directory" in ended.err
    assert "Traceback" not in ended.err
    assert kept(tmp_path) == {"folder"}


# -- the queue ------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_are_queued_by_one_process_and_seen_by_the_next(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """What was printed is on the disk; the numbers alone are on standard output."""
    submitted = ppu("submit", "fire_sample", "--lab", small_lab, cwd=tmp_path)
    listed = ppu("jobs", "--json", cwd=tmp_path)
    bad = ppu("submit", "fire_sample", "--set=hold=1", cwd=tmp_path)
    nowhere = ppu("jobs", "--store", tmp_path / "no.sqlite")

    assert (submitted.code, submitted.out) == (0, "1\n")
    assert [job["state"] for job in listed.json] == ["queued"]
    assert (bad.code, bad.out) == (2, "")
    assert (nowhere.code, "there is no store" in nowhere.err) == (2, True)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".wake")]


@pytest.mark.slow
def test_following_a_job_can_be_interrupted(
    ppu: Ppu, ppu_command: str, small_lab: Path, tmp_path: Path
) -> None:
    """Ctrl-C ends the command and changes nothing of the job."""
    ppu("submit", "fire_sample", "--lab", small_lab, cwd=tmp_path)
    process = subprocess.Popen(  # noqa: S603 - the command under test
        [ppu_command, "job", "1", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_WALL_S)

    assert first["state"] == "queued"
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert ppu("jobs", "--json", cwd=tmp_path).json[0]["state"] == "queued"
