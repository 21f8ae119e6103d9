"""What the documentation shows works as it stands there."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer

from ppu import open_lab
from ppu.cell.execution import Execution
from ppu.cli.exits import EXIT_MEANINGS, Exit
from ppu.cli.main import attach_all
from ppu.cli.new import Example, Wire, write_files
from ppu.core.errors import ConfigurationError, NotFoundError
from ppu.plans.protocol import RegisteredProtocol

ROOT = Path(__file__).parents[2]


def python_blocks(page: str) -> list[str]:
    """Return the Python examples of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_readme_example_runs_as_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The ten lines of Python in the README do what they say."""
    (example,) = [block for block in python_blocks("README.md") if "open_lab" in block]
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own page
    printed = capsys.readouterr().out

    assert "'quality': 'good'" in printed
    assert printed.rstrip().endswith("g")


def test_protocol_of_the_how_to_runs_as_it_stands(tmp_path: Path) -> None:
    """Who copies the example of the how-to has a protocol that runs."""
    (source,) = python_blocks("docs/how-to/write-a-protocol.md")
    path = tmp_path / "drying.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("drying", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dry_sample = module.dry_sample
    assert isinstance(dry_sample, RegisteredProtocol)

    with open_lab("a-lab") as lab:
        execution = Execution(lab, dry_sample, {"hold_s": 600.0}, tmp_path / "out")
        execution.check()
        result = execution.run(float)

    assert result["mass_g"] == pytest.approx(2.0, abs=0.001)


ADD_AN_INSTRUMENT = "docs/how-to/add-an-instrument.md"
_PLACE = re.compile(r"# (\S+), instead of '(.+)' to '(.+)'\n")
_NEW = re.compile(r"# (\S+)\n")


def replace_lines(text: str, first: str, last: str, new: str) -> str:
    """Return *text* with *new* for the lines from one to one that begin so."""
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i in range(start, len(lines)) if lines[i].strip().startswith(last))
    return "".join([*lines[:start], new, *lines[end + 1 :]])


@pytest.fixture(scope="module")
def radwag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that somebody has who did what the how-to says."""
    folder = tmp_path_factory.mktemp("how-to") / "radwag_as"
    write_files(Example("radwag_as", Wire.SERIAL, "Balance").package(folder))
    for block in python_blocks(ADD_AN_INSTRUMENT):
        new_file = _NEW.match(block)
        if new_file is not None:
            (folder / new_file[1]).write_text(block[new_file.end() :])
            continue
        place = _PLACE.match(block)
        assert place is not None, f"where does this belong? {block[:60]}"
        path = folder / place[1]
        new = block[place.end() :]
        path.write_text(replace_lines(path.read_text(), place[2], place[3], new))
    return folder


@pytest.mark.slow
def test_instrument_of_the_how_to_passes_its_tests(radwag: Path) -> None:
    """Who follows the how-to ends with contracts, transcript and tape that pass."""
    lab = radwag / "src" / "radwag_as" / "labs" / "radwag_as.yaml"
    tape = radwag / "tests" / "balance.jsonl"
    record = ["record", "balance", "--target", "twin", "--lab", lab, "--out", tape]
    for command in (["ppu", *record], ["pytest", "-q", "-p", "no:cacheprovider"]):
        done = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "-m", *map(str, command)],
            cwd=radwag,
            env={**os.environ, "PYTHONPATH": str(radwag / "src")},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_instrument_of_the_how_to_weighs_in_the_demonstration(
    radwag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two lines of the lab file changed, the job weighs on the new balance."""
    bundled = ROOT / "protocols" / "ppu_protocols" / "labs" / "a-lab-by-hand.yaml"
    page = (ROOT / ADD_AN_INSTRUMENT).read_text(encoding="utf-8")
    ((driver, simulator),) = re.findall(
        r"```yaml\n( +driver: .*\n)( +simulator: .*\n)```", page
    )
    changed = replace_lines(
        bundled.read_text(), "driver: ppu_drivers.mettler", "driver:", driver
    )
    changed = replace_lines(
        changed, "simulator: ppu_simulators.instruments.mettler", "sim", simulator
    )
    lab_file = tmp_path / "my-lab.yaml"
    lab_file.write_text(changed)
    monkeypatch.syspath_prepend(str(radwag / "src"))
    with open_lab(str(lab_file)) as lab:
        hold = {"hold_s": 60.0, "temperature_degc": 600.0}
        result = lab.run_protocol("solid_state_synthesis", tmp_path / "out", **hold)
        maker = lab.balance.facts.maker

    assert maker == "Radwag"
    assert result["sample"]["mass_before_g"] == pytest.approx(4.0, abs=0.05)
    assert result["incidents"] == []


RUN_A_QUEUE = "docs/how-to/run-a-queue.md"


def test_commands_of_the_queue_are_as_the_how_to_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command is known with its options; the table of jobs is accepted."""
    text = (ROOT / RUN_A_QUEUE).read_text(encoding="utf-8")
    app = typer.Typer()
    attach_all(app)
    command: Any = typer.main.get_command(app)
    shown = re.findall(r"^ppu (.*?)(?: +#.*)?$", text, re.MULTILINE)
    (table,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    (tmp_path / "recipes.csv").write_text(table)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPU_STORE", str(tmp_path / "lab.sqlite"))
    codes = {}
    for line in shown:
        # A usage error is raised as one of typer's own, and fails the test.
        try:
            codes[line] = command.main(shlex.split(line), standalone_mode=False)
        except (ConfigurationError, NotFoundError) as exc:
            codes[line] = str(exc)
    refused = {line.split()[0] for line, code in codes.items() if code}

    assert len(shown) > 15
    # There is no job 12 in this store, no sample, and no powder that a cell declared.
    about_one = {"hold", "resume", "cancel", "abort", "job", "recover", "samples"}
    assert refused <= about_one | {"stock"}, codes
    assert not codes["recover"]


def test_exit_codes_are_documented_as_they_are(ppu_command: str) -> None:
    """The page, ``ppu --help`` and the code know the same codes and meanings."""
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", page, re.MULTILINE)
    told = subprocess.run(  # noqa: S603 - our own command
        [ppu_command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    shown = re.findall(r"^ +(\d+) +(.+)$", told, re.MULTILINE)
    meant = [(str(int(code)), text) for code, text in EXIT_MEANINGS.items()]

    assert set(EXIT_MEANINGS) == set(Exit)
    assert rows == shown == meant


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/how-to/run-a-queue.md",
        "docs/how-to/write-a-protocol.md",
        "docs/reference/exit-codes.md",
        ADD_AN_INSTRUMENT,
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page leads to a file of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]

    assert missing == []
