"""What the documentation shows works as it stands there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from ppu import open_lab
from ppu.cell.execution import Execution
from ppu.cli.exits import EXIT_MEANINGS, Exit
from ppu.cli.main import app
from ppu.core.labfile import load_lab
from ppu.core.labtime import wall_stamp
from ppu.core.registry import find_lab
from ppu.plans.protocol import RegisteredProtocol
from ppu.store import custody
from ppu.store.store import Store
from reader import ROOT, Block, Reader, blocks_of, follow

ADD_AN_INSTRUMENT = "docs/how-to/add-an-instrument.md"
RUN_A_QUEUE = "docs/how-to/run-a-queue.md"
WRITE_A_PROTOCOL = "docs/how-to/write-a-protocol.md"
KEEP_A_STORE = "docs/how-to/keep-a-store.md"
KILL_A_LAB = "docs/tutorials/kill-a-lab.md"
FROM_HANDS = "docs/tutorials/from-hands-to-instruments.md"
DEPLOY = "deploy/README.md"
FOLLOWED = {
    "README.md",
    ADD_AN_INSTRUMENT,
    RUN_A_QUEUE,
    KEEP_A_STORE,
    WRITE_A_PROTOCOL,
    KILL_A_LAB,
    FROM_HANDS,
}
"""Pages of which every block is tried, below."""


@pytest.fixture
def reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Reader]:
    """Somebody who follows a page in a folder of their own."""
    monkeypatch.delenv("PPU_STORE", raising=False)
    with Reader(tmp_path, monkeypatch, capsys) as somebody:
        yield somebody


def test_every_page_with_commands_is_followed() -> None:
    """A new tutorial or how-to comes with its test."""
    pages = [*ROOT.glob("docs/tutorials/*.md"), *ROOT.glob("docs/how-to/*.md")]
    pages += [*ROOT.glob("*.md"), *ROOT.glob("deploy/*.md")]
    with_blocks = {
        page
        for page in (str(path.relative_to(ROOT)) for path in pages)
        if any(block.language in ("sh", "python") for block in blocks_of(page))
    }

    assert with_blocks == FOLLOWED | {DEPLOY}


# -- README ------------------------------------------------------------------------


@pytest.mark.slow
def test_readme_is_followed(reader: Reader) -> None:
    """Every command and example of the README does what it says, in order."""

    def make(block: Block) -> None:
        """See that make has the goals: this test is part of `make test` itself."""
        for line in block.lines:
            goal = line.partition("#")[0].split()
            done = subprocess.run(  # noqa: S603 - our own page
                ["/usr/bin/env", *goal, "-n"], cwd=ROOT, capture_output=True, check=True
            )
            assert done.stdout

    def shortened(block: Block) -> None:
        """Compare an excerpt with what it is an excerpt of."""
        source = " ".join(
            (ROOT / "protocols/ppu_protocols/synthesis.py").read_text().split()
        )
        ast.parse(block.text)
        calls = re.findall(r"yield from (\w+)\(", block.text)
        assert len(calls) > 4
        assert [name for name in calls if f"yield from {name}(" not in source] == []

    def queue(block: Block) -> None:
        """See that both jobs have succeeded, and are drawn."""
        told = [reader.type(line) for line in block.lines]
        assert len(set(re.findall(r"job \d+", told[-1]))) == 2
        assert reader.type("ppu jobs --state succeeded").count("succeeded") == 2

    def break_a_bench(block: Block) -> None:
        """Break what a running `ppu sim` serves."""
        bench = reader.stay("ppu sim --pace 600 --write-lab bench.yaml")
        reader.words["HOST:PORT"] = bench.read(r"faults: .*--control (\S+)")[1]
        for line in block.lines:
            assert " s: " in reader.type(line)
        assert bench.end(signal.SIGTERM) == 0

    follow(
        "README.md",
        reader,
        {
            "make demo": make,
            "@protocol(": shortened,
            "ppu submit": queue,
            "ppu fault": break_a_bench,
        },
    )
    runs = list(Path("runs").iterdir())

    assert len(runs) == 2
    assert all((run / "report.html").is_file() for run in runs)


# -- how-to: write a protocol ------------------------------------------------------


def test_protocol_of_the_how_to_runs_as_it_stands(reader: Reader) -> None:
    """Who copies the example of the how-to has a protocol that runs."""
    found: dict[str, Any] = {}

    def module(block: Block) -> None:
        Path("drying.py").write_text(block.text)
        reader.monkeypatch.syspath_prepend(str(reader.folder))
        found.update(vars(__import__("drying")))

    def package(block: Block) -> None:
        """See that the entry leads to the module: tests install nothing."""
        entries = tomllib.loads(block.text)["project"]["entry-points"]
        assert entries == {"ppu.protocols": {"drying": "drying"}}

    def install(block: Block) -> None:
        assert block.lines == ["pip install -e ."]

    follow(
        WRITE_A_PROTOCOL,
        reader,
        {
            '"""drying.py"""': module,
            "[project]": package,
            "pip install": install,
        },
    )
    dry_sample = found["dry_sample"]
    assert isinstance(dry_sample, RegisteredProtocol)
    with open_lab("a-lab") as lab:
        execution = Execution(lab, dry_sample, {"hold_s": 600.0}, Path("out"))
        execution.check()
        result = execution.run(float)

    assert result["mass_g"] == pytest.approx(2.0, abs=0.001)


# -- how-to: add an instrument -----------------------------------------------------

_PLACE = re.compile(r"# (\S+), instead of '(.+)' to '(.+)'\n")
_NEW = re.compile(r"# (\S+)\n")


def replace_lines(text: str, first: str, last: str, new: str) -> str:
    """Return *text* with *new* for the lines from one to one that begin so."""
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i in range(start, len(lines)) if lines[i].strip().startswith(last))
    return "".join([*lines[:start], new, *lines[end + 1 :]])


@pytest.mark.slow
def test_instrument_of_the_how_to_is_added(reader: Reader) -> None:
    """Who follows it has tests that pass, and a job that weighs on the balance."""
    folder = Path("radwag_as").absolute()

    def begin(block: Block) -> None:
        """Make the package: it is found by its path, for tests install nothing.

        That its tests pass before anything is changed is tried for every wire in
        tests/system/test_new_driver.py.
        """
        new, there, install, tried = block.lines
        reader.type(new)
        reader.type(there)
        assert (install, tried) == ("pip install -e '.[test]'", "pytest")
        reader.monkeypatch.syspath_prepend(str(folder / "src"))
        paths = [str(folder / "src"), os.environ.get("PYTHONPATH", "")]
        reader.monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def edit(block: Block) -> None:
        new_file, place = _NEW.match(block.text), _PLACE.match(block.text)
        if new_file is not None:
            (folder / new_file[1]).write_text(block.text[new_file.end() :])
            return
        assert place is not None, f"where does this belong? {block.text[:60]}"
        path = folder / place[1]
        new = block.text[place.end() :]
        path.write_text(replace_lines(path.read_text(), place[2], place[3], new))

    def change_lab(block: Block) -> None:
        driver, simulator = block.text.splitlines(keepends=True)
        text = find_lab("a-lab-by-hand").read_text()
        indented = f"    {driver}", f"    {simulator}"
        text = replace_lines(
            text, "driver: ppu_drivers.mettler", "driver:", indented[0]
        )
        text = replace_lines(
            text, "simulator: ppu_simulators.instruments.mettler", "sim", indented[1]
        )
        Path("my-lab.yaml").write_text(text)

    def use(block: Block) -> None:
        told = [reader.type(line) for line in block.lines]
        assert "is in order" in told[0]
        assert "good" in told[1]
        assert "incidents: none" in told[2]

    follow(
        ADD_AN_INSTRUMENT,
        reader,
        {
            "ppu new driver": begin,
            "# ": edit,
            "driver: radwag_as": change_lab,
            "ppu lab check": use,
        },
    )
    lab = folder / "src" / "radwag_as" / "labs" / "radwag_as.yaml"
    reader.type(
        f"ppu record balance --target twin --lab {lab} --out tests/balance.jsonl"
    )
    reader.type(f"{sys.executable} -m pytest -q -p no:cacheprovider")


# -- how-to: run a queue -----------------------------------------------------------


def test_queue_of_the_how_to_is_run(reader: Reader) -> None:
    """Every command ends as it should on the jobs that the page has submitted."""

    def declare(block: Block) -> None:
        """Open the store as the first cell does, at another path than the page's."""
        reader.words["/data/lab.sqlite"] = str(reader.folder / "lab.sqlite")
        for line in block.lines:
            reader.type(reader.said(line))
        with Store(reader.folder / "lab.sqlite") as store:
            file = load_lab(find_lab("a-lab"))
            store.write(lambda c: custody.declare(c, file, wall_stamp()))

    def table(block: Block) -> None:
        Path("recipes.csv").write_text(block.text)

    def batch(block: Block) -> None:
        (line,) = block.lines
        told = reader.type(line)
        reader.words["12"], reader.words["13"] = re.findall(r"\d+", told)[:2]

    def look(block: Block) -> None:
        """Look at jobs; what goes on until a job ends is stopped."""
        for line in block.lines:
            if "--follow" in line:
                reader.look(line)
            else:
                assert reader.type(line)

    def answer(block: Block) -> None:
        """Answer a question that is not asked: nothing has crashed here.

        tests/unit/ppu/cli/test_recover.py answers every question there is.
        """
        (line,) = block.lines
        assert "asks nothing" in reader.type(line, 2)

    def samples(block: Block) -> None:
        """Look for a sample where no job has begun: there is none of that name."""
        for line in block.lines:
            told = reader.type(line, *([2] if "SAMPLE" in line else []))
            assert "SAMPLE" not in line or "no sample" in told

    def asked(block: Block) -> None:
        """Compare the lines of a question with the answers that there are."""
        answers = re.findall(r"^  --([\w-]+):", block.text, re.M)
        told = reader.type("ppu recover --help")
        assert [name for name in answers if f"--{name}" not in told] == []

    follow(
        RUN_A_QUEUE,
        reader,
        {
            "export PPU_STORE": declare,
            "target,": table,
            "ppu submit solid_state_synthesis --batch": batch,
            "ppu jobs": look,
            "job 12, step 3": asked,
            "ppu recover 12": answer,
            "ppu samples": samples,
        },
    )


# -- how-to: keep a store ----------------------------------------------------------


def test_store_of_the_how_to_is_kept(reader: Reader) -> None:
    """What is restored is what was backed up, and nothing of later."""
    store = reader.folder / "lab.sqlite"
    reader.words["/data/lab.sqlite"] = str(store)
    reader.words["/backup/monday.sqlite"] = str(reader.folder / "monday.sqlite")
    reader.monkeypatch.setenv("PPU_STATE", str(reader.folder / "state"))
    submit = f"ppu submit solid_state_synthesis --held --store {store}"
    where: dict[str, Any] = {}

    def back_up(block: Block) -> None:
        reader.type(submit)
        where["cell"] = reader.stay(f"ppu cell a-lab --store {store}")
        where["cell"].read("is open; Ctrl-C drains")
        (line,) = block.lines
        reader.type(line)
        assert "already" in reader.type(line, 2)  # never over another one

    def restore(block: Block) -> None:
        reader.type(submit)
        drain, put_back = block.lines
        reader.type(drain)
        assert where["cell"].wait() == 0
        told = [reader.type(put_back)]
        (before,) = reader.folder.glob("lab.sqlite.*before*")
        assert before.name in told[-1]
        jobs = json.loads(reader.type(f"ppu jobs --json --store {store}"))
        assert len(jobs) == 1

    follow(
        KEEP_A_STORE,
        reader,
        {"ppu store backup": back_up, "ppu drain": restore},
    )


# -- tutorials ---------------------------------------------------------------------


@pytest.mark.slow
def test_arm_of_the_tutorial_takes_over_from_the_person(reader: Reader) -> None:
    """Who follows it reads what it shows, and is asked for less when the arm is there.

    What the page shows is compared literally; addresses are the reader's own.
    """
    Path("protocols").symlink_to(ROOT / "protocols")
    where: dict[str, Any] = {}

    def type_all(block: Block) -> None:
        where["told"] = "".join(reader.type(line) for line in block.lines)

    def was_told(block: Block) -> None:
        assert [line for line in block.lines if line not in where["told"]] == []

    def bench(block: Block) -> None:
        (line,) = block.lines
        if "bench" in where:
            assert where["bench"].end(signal.SIGINT) == 0
        where["bench"] = reader.stay(line)
        found = where["bench"].read(r"^people: .*--control (\S+)$")
        reader.words["HOST:PORT"] = found[1]
        where["told"] = found[0]

    def run(block: Block) -> None:
        (line,) = block.lines
        where["run"] = reader.stay(line)

    def play(block: Block) -> None:
        (line,) = block.lines
        where["person"] = reader.stay(line)

    def talk(block: Block) -> None:
        """Answer each request; there is none but those of the page."""
        person, n_read = where["person"], -1
        for line in block.lines:
            told, is_prompt, answer = line.partition("done, or refused and the reason:")
            if is_prompt:
                person.say(answer.strip())
                continue
            pattern = re.escape(told.strip()) + "$"
            try:
                person.read(pattern, n_read)
            except AssertionError as exc:
                job = "\n".join(one.text for one in where["run"].lines.all)
                raise AssertionError(f"{exc}\nthe job says:\n{job}") from exc
            n_read = person.lines.find(pattern, n_read).number
        where["run"].read(r"lost -?0\.0[01] %$")  # what a balance can tell
        where["run"].read(r"^incidents: none$")
        assert where["run"].wait() == 0
        assert person.end(signal.SIGINT) in (0, 130)
        person.lines.join()
        asked = [one for one in person.lines.all if "please" in one.text]
        assert len(asked) == block.text.count("please")

    def put_in(block: Block) -> None:
        lab, operator = Path("my-lab.yaml"), "  operator:\n"
        text = lab.read_text()
        assert text.count(operator) == 1
        entry = textwrap.indent(block.text, "  ")
        lab.write_text(text.replace(operator, entry + operator))

    follow(
        FROM_HANDS,
        reader,
        {
            "export PATH": type_all,
            "echo": type_all,
            "ppu lab check": type_all,
            "my-lab.yaml: lab": was_told,
            "sample fire_sample": was_told,
            "people:": lambda block: was_told(
                replace(block, text=reader.said(block.text))
            ),
            "ppu sim": bench,
            "ppu run": run,
            "ppu person": play,
            "operator: please": talk,
            "robot_arm:": put_in,
        },
    )

    assert where["bench"].end(signal.SIGINT) == 0


@pytest.mark.slow
def test_lab_of_the_tutorial_is_killed_and_comes_back(reader: Reader) -> None:
    """Cell and guard are killed by their numbers, and what follows goes on.

    At the page's pace the firings take minutes, so the last commands come before the
    jobs have ended; that these end well is tried in tests/system/test_guard.py.
    """
    where: dict[str, Any] = {}
    reader.monkeypatch.setenv("PATH", f"{sys.prefix}/bin", prepend=os.pathsep)

    def begin(block: Block) -> None:
        """Go to the folder; the commands are on the path already."""
        path, folder, store = block.lines
        assert path.startswith("export PATH=")
        reader.type(folder)
        reader.type(store)

    def bench(block: Block) -> None:
        (line,) = block.lines
        where["bench"] = reader.stay(line)
        reader.words["HOST:PORT"] = where["bench"].read(r"--control (\S+)")[1]

    def guard(block: Block) -> None:
        (where["line"],) = block.lines
        where["guard"] = reader.stay(where["line"])
        reader.words["GUARD"] = where["guard"].read(r"this is process (\d+)")[1]
        reader.words["PID"] = where["guard"].read(r"cell of process (\d+) runs")[1]
        where["guard"].read("is open; Ctrl-C drains")

    def submit(block: Block) -> None:
        recipe, first, second, jobs, job = block.lines
        reader.type(recipe)
        reader.words["ID"] = reader.type(first).split()[0]
        reader.type(second)
        assert reader.type(jobs).count("solid_state_synthesis") == 2
        reader.look(job)

    def kill(block: Block) -> None:
        (line,) = block.lines
        n_before = len(where["guard"].lines.all)
        reader.type(line)
        where["guard"].read(r"cell of process \d+ runs", n_before)
        where["guard"].read("is open; Ctrl-C drains", n_before)

    def play_the_person(block: Block) -> None:
        """Play with a crucible that no job has: these go on with theirs."""
        reader.words |= {"crucible_01": "crucible_04", "rack_1.1": "rack_1.4"}
        carry, move, samples, release = block.lines
        assert "was carried to rack_1.4" in reader.type(carry)
        reader.type(move)
        reader.type(samples)
        assert "no sample" in reader.type(release, 2)

    def kill_guard(block: Block) -> None:
        (line,) = block.lines
        reader.type(line)
        where["guard"].lines.join()  # the cell has drained, and gone
        again = reader.stay(where["line"])
        again.read("is open; Ctrl-C drains")
        where["guard"] = again

    follow(
        KILL_A_LAB,
        reader,
        {
            "export PATH": begin,
            "ppu sim": bench,
            "ppu guard": guard,
            "echo": submit,
            "kill -9 PID": kill,
            "ppu truth": play_the_person,
            "kill -9 GUARD": kill_guard,
        },
    )

    assert where["guard"].end(signal.SIGTERM) == 0
    assert where["bench"].end(signal.SIGTERM) == 0


# -- deploy ------------------------------------------------------------------------


def test_commands_of_deploy_are_shell_and_known() -> None:
    """They want root and systemd, so they are not run: parsed, and files are there."""
    for block in blocks_of(DEPLOY):
        assert block.language == "sh"
        subprocess.run(["/bin/bash", "-n"], input=block.text, text=True, check=True)
    text = (ROOT / DEPLOY).read_text()
    files = re.findall(r"(?<=0644 |0640 )(ppu\S+)", text)

    assert files == ["ppu.env.example", "ppu-guard@.service"]
    assert all((ROOT / "deploy" / name).is_file() for name in files)
    assert "pip install ppu-lab\n" in text


@pytest.mark.parametrize("page", sorted(FOLLOWED | {DEPLOY, "CONTRIBUTING.md"}))
def test_command_in_a_sentence_is_one_that_there_is(page: str) -> None:
    """Commands between backquotes are named right, with options that there are."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    told = set(re.findall(r"`ppu ([a-z][^`]*)`", text))
    command: Any = typer.main.get_command(app)
    for line in sorted(told):
        words = shlex.split(line.split(";")[0])
        found = command.get_command(None, words[0])
        assert found is not None, line
        inner = getattr(found, "commands", {})
        if len(words) > 1 and words[1] in inner:
            found = inner[words[1]]
        options = {option for parameter in found.params for option in parameter.opts}
        for word in words[1:]:
            name = word.partition("=")[0]
            assert not name.startswith("--") or name in options | {"--help"}, line


def test_nobody_is_told_to_end_processes_by_a_pattern() -> None:
    """A pattern ends other people's processes, too."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*")]
    found = [
        str(page)
        for page in pages
        if re.search(r"\b(pkill|killall)\b", page.read_text(encoding="utf-8"))
    ]

    assert found == []


def test_nobody_is_told_to_install_a_stranger_s_package() -> None:
    """On PyPI `ppu` is another project; ours is `ppu-lab`."""
    folders = ("docs", "deploy", "ppu", "tests")
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    files += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    wrong = re.compile(
        r"""(?<!un)install (-\S+ )*['"]?ppu(?![-\w])|["']ppu(\[\w+\]|>=)"""
    )
    found = [
        f"{path}: {line}"
        for path in files
        if path.is_file() and path.suffix in (".md", ".py", ".tmpl", ".toml", "")
        for line in path.read_text(encoding="utf-8").splitlines()
        if wrong.search(line) and path != Path(__file__)
    ]

    assert found == []


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
        RUN_A_QUEUE,
        WRITE_A_PROTOCOL,
        "docs/reference/exit-codes.md",
        ADD_AN_INSTRUMENT,
        KEEP_A_STORE,
        KILL_A_LAB,
        FROM_HANDS,
        DEPLOY,
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page leads to a file of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]

    assert missing == []
