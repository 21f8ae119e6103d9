# ruff: noqa: RUF001 - digits of other scripts are among what people type
"""What people type wrong at any door: a clear error, nothing kept, no traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppu.cli.exits import Exit
from ppu.cli.main import app
from ppu.core.errors import ConfigurationError
from ppu.operations import control, people
from ppu.operations.checking import compile_job
from ppu.operations.description import describe_lab
from ppu.operations.submission import Submission, submit
from ppu.plans.protocol import find_protocol
from ppu.store.jobs import JobRequest
from ppu.store.store import Store

Ppu = Callable[..., Any]

ACTING = ["a\x1b[2J", "a\nb", "a\u202eb", "a\x9b2J", "a\x07", "\ufeffa", "a\u2028b"]
NO_NUMBERS = ["0750", "0x10", "1_000", "1,5", ".5", "5.", "yes", "1:30", "nan", "٧", ""]
HUGE = ["9" * 30, "1e400", "9" * 5000, "-" + "9" * 30]
NUMBER_OPTIONS = [
    *("jobs --limit {}", "submit fire_sample --priority {}", "job {}", "hold {}"),
    *("resume {}", "cancel {}", "abort {}", "recover {} --happened", "run x --seed {}"),
    *("submit fire_sample --after {}", "stock BaCO3 --refill {}", "read --count {}"),
    *("stock BaCO3 --correct {} --note x", "guard x --early-ends {}", "sim --seed {}"),
    *("fault balance drop --at-s {} --control :1", "run fire_sample --pace {}"),
    *("fault balance drop --count {} --control :1", "cell --pace {}", "sim --pace {}"),
    *("fault balance drop --option by_s={} --control :1", "sim --control {}"),
    *("fault balance drop --control 127.0.0.1:{}", "cell --seed {}"),
    *(
        "truth --refill BaCO3={} --control 127.0.0.1:1",
        "submit fire_sample --deadline {}h",
    ),
    *(
        "submit fire_sample --set hold_s={}",
        "run fire_sample --set temperature_degc={}",
    ),
]
"""Every place of a command where a number stands."""
NAME_OPTIONS = [
    *("submit fire_sample --campaign {}", "submit fire_sample --key {}"),
    *("submit fire_sample --tag {}", "submit fire_sample --set container={}"),
    *(
        "abort 1 --reason {}",
        "run fire_sample --out {}",
        "stock BaCO3 --refill 1 --note {}",
    ),
    *(
        "samples --move {}=rack_1.1",
        "samples --move crucible_01={}",
        "sim --write-lab {}",
    ),
    *(
        "samples --release {}",
        "submit {}",
        "submit fire_sample --lab {}",
        "jobs --state {}",
    ),
    *(
        "submit fire_sample --params {}",
        "submit fire_sample --batch {}",
        "protocols {}",
    ),
    *(
        "lab check {}",
        "read {}",
        "{}",
        "submit fire_sample --{}",
        "new driver {} --wire tcp",
    ),
    *("submit fire_sample --set {}=1", "submit fire_sample --deadline {}", "stock {}"),
    *("cell --results {}", "record {}", "samples {}", "recover 1 --abort --note {}"),
]
"""Every place where people name something, or PPU repeats what they typed."""


def typed(line: str, word: str) -> list[str]:
    """Return the words of a line, one of them *word*."""
    return [part.replace("{}", word) for part in line.split()]


@pytest.fixture
def queued(ppu: Ppu, small_lab: Path) -> int:
    """A job in the store, before anything wrong is typed."""
    assert ppu("submit", "fire_sample", "--lab", small_lab, "--key", "before").code == 0
    return 1


def as_it_was(ppu: Ppu, n_jobs: int = 1) -> None:
    """See that everybody's `ppu jobs` works, and nothing came into the queue."""
    listed = ppu("jobs")
    assert listed.code == 0
    assert len(ppu("jobs", "--json").json) == n_jobs
    assert listed.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("line", NUMBER_OPTIONS)
def test_number_that_is_none_is_refused_by_every_command(
    ppu: Ppu, queued: int, line: str
) -> None:
    """With code 2, in one sentence; whether it looks like one, or is too large."""
    is_submission = "submit" in line
    for text in [*NO_NUMBERS, *HUGE]:
        lab = ("--lab", "a-lab") if is_submission else ()
        ended = ppu(*typed(line, text), *lab)

        assert (ended.code, ended.out) == (Exit.WRONG_INPUT, ""), (text, ended)
        assert ended.err.startswith("error: ")
        assert "Traceback" not in ended.err
    as_it_was(ppu)


def test_every_number_of_a_command_is_read_in_one_way() -> None:
    """No option is left to what typer takes for a number."""
    unread = []

    def look(command: Any, path: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            look(inner, f"{path} {name}")
        for parameter in command.params:
            kind = str(getattr(parameter, "annotation", getattr(parameter, "type", "")))
            info = getattr(parameter, "parameter_info", None)
            if (
                re.search(r"\b(int|float)\b", kind)
                and getattr(info, "parser", 0) is None
            ):
                unread.append(f"{path} {parameter.name}")

    group: Any = typer.main.get_command(app)
    for name in group.list_commands(None):
        look(group.get_command(None, name), name)

    assert unread == []


@pytest.mark.parametrize("line", NAME_OPTIONS)
def test_name_that_acts_reaches_neither_store_nor_terminal(
    ppu: Ppu, queued: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """It is refused where it is given, and the refusal shows it harmless."""
    monkeypatch.chdir(tmp_path)
    for text in ACTING:
        ended = ppu(*typed(line, text))

        assert ended.code in (Exit.WRONG_INPUT, Exit.REFUSED), (text, ended)
        assert ended.err.startswith("error: ")
        assert (ended.out + ended.err).replace("\n", "").isprintable()
    as_it_was(ppu)
    assert [
        path.name for path in tmp_path.iterdir() if not path.name.isprintable()
    ] == []


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.data(),
    name=st.sampled_from(["key", "campaign", "tags", "parameters"]),
)
def test_python_door_refuses_names_that_act(name: str, data: Any) -> None:
    """Whoever makes a request, by whichever program."""
    text = data.draw(
        st.sampled_from(ACTING)
        | st.text(min_size=1).filter(lambda t: not t.isprintable())
    )
    value: Any = {"tags": (text,), "parameters": {"a": [{"b": text}]}}.get(name, text)
    with pytest.raises(ConfigurationError) as caught:
        JobRequest("fire_sample", "1", **{name: value})

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["5", "x", None, True, float("nan"), [5], 10**30])
def test_refill_with_no_number_is_a_clear_error(
    ppu: Ppu, queued: int, store_path: Path, value: Any
) -> None:
    """Not one of pydantic's own."""
    with Store(store_path) as store:
        for said in (people.refill, people.correct_stock):
            with pytest.raises(ConfigurationError, match="mass_g"):
                said(store, "BaCO3", value, "ann", "note")
        with pytest.raises(ConfigurationError, match="note: has the character U"):
            people.refill(store, "BaCO3", 5.0, "ann", "a\x1b[2J")
        with pytest.raises(ConfigurationError, match="who says it"):
            people.release(store, "s1", "a\nb")
        with pytest.raises(ConfigurationError, match="reason: has the character U"):
            control.abort(store, [queued], "ann", "a\nb")


@pytest.mark.parametrize("stamp", [1e30, 99999999999 * 3600.0, -1.0, float("nan")])
def test_deadline_that_has_no_date_never_comes_into_a_store(
    ppu: Ppu, queued: int, store_path: Path, small_lab: Path, stamp: float
) -> None:
    """From then on it would be in everybody's `ppu jobs`."""
    job = compile_job(describe_lab(str(small_lab)), find_protocol("fire_sample"), {})
    with (
        Store(store_path) as store,
        pytest.raises(ConfigurationError, match="deadline"),
    ):
        submit(store, [Submission(job=job, deadline=stamp)])

    as_it_was(ppu)


@pytest.mark.parametrize(
    "text",
    ["99999999999h", "1e30s", "1e400d", "0h", "-6h", "٦h", "6 h 5", "0x6h", "6_0min"],
)
def test_deadline_that_cannot_be_is_refused_in_words(
    ppu: Ppu, queued: int, small_lab: Path, text: str
) -> None:
    """Whatever is too large, passed, or no plain decimal."""
    ended = ppu("submit", "fire_sample", "--lab", small_lab, f"--deadline={text}")

    assert (ended.code, ended.out) == (Exit.WRONG_INPUT, "")
    assert "deadline" in ended.err
    as_it_was(ppu)


# -- tables of jobs ----------------------------------------------------------------

ROWS = "hold_s{s}temperature_degc{s}key\r\n600{s}700{s}a\r\n{s}650{s}b\r\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("says_so", [False, True])
def test_table_of_any_spreadsheet_is_read(
    ppu: Ppu,
    small_lab: Path,
    tmp_path: Path,
    separator: str,
    encoding: str,
    says_so: bool,
) -> None:
    """Semicolons, tabs, marks of encodings, and the line that names the separator."""
    text = ROWS.format(s=separator)
    if says_so:
        text = f"sep={separator}\r\n{text}"
    path = tmp_path / "recipes.csv"
    path.write_bytes(text.encode(encoding))
    ended = ppu("submit", "fire_sample", "--lab", small_lab, "--batch", path)
    jobs = [ppu("job", n, "--json").json for n in (1, 2)]

    assert (ended.code, ended.out) == (0, "1\n2\n")
    assert [job["key"] for job in jobs] == ["a", "b"]
    assert [job["parameters"]["temperature_degc"] for job in jobs] == [700.0, 650.0]
    assert jobs[0]["parameters"]["hold_s"] == 600.0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hold_s;key\r\n1,5;a\r\n", "row 2, column hold_s: .*write 1.5 if"),
        (b"hold_s\n0750\n", "row 2, column hold_s: .*write 750 if"),
        (b"hold_s\ntrue\n", "row 2, column hold_s: should be a number"),
        (b"hold_s,note\n5,a\n", "row 1, column note: this is no parameter"),
        (b"key\n\xb5\n", "no text in UTF-8 .*CSV UTF-8"),
        (b"key\n\x1b[2J\n", r"row 2, column key: has the character U\+001B"),
        (b"tags\na\x07\n", r"row 2, column tags: has the character U\+0007"),
        (b"container\na\x08\n", "row 2, column container: has the character U"),
        (b"\x1b[2J\n1\n", r"column \\x1b\[2J: this is no parameter"),
        (b"PK\x03\x04", "a workbook; save the sheet as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0\xa1", "a workbook; save the sheet as 'CSV UTF-8'"),
        ("hold_s\n\u00a0750\n".encode(), "column hold_s: has the character U"),
        ("hold_s\n７５０\n".encode(), "column hold_s: .*write 750 if"),
        (b"hold_s\n1e400\n", "column hold_s: is too large for a number"),
        (b"priority\n0x5\n", "column priority: should be a whole number"),
        (b"priority\n" + b"9" * 30, "column priority: should be a whole number"),
        (b"hold_s\n" + b"[" * 5000 + b"\n", "column hold_s: should be a number"),
        (b"sep=;\nhold_s;key\n1,5;a\n", "row 3, column hold_s: "),
    ],
)
def test_table_with_a_fault_says_what_and_where(
    ppu: Ppu, small_lab: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    """Each with its row, its column and the plain form."""
    path = tmp_path / "recipes.csv"
    path.write_bytes(content)
    ended = ppu("submit", "fire_sample", "--lab", small_lab, "--batch", path)

    assert (ended.code, ended.out) == (Exit.WRONG_INPUT, "")
    assert re.search(told, ended.err)
    assert ended.err.replace("\n", "").isprintable()


def test_all_faults_of_all_rows_are_told_at_once(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """Whatever kind they are of; a technician corrects the sheet once."""
    path = tmp_path / "recipes.csv"
    path.write_text(
        "hold_s,temperature_degc,priority,key\n"
        '0x10,"1,5",high,"a\tb"\n'
        "600,700,1,ok\n"
        "600,1500,,\n"
        "yes,,1.5,\n"
    )
    ended = ppu("submit", "fire_sample", "--lab", small_lab, "--batch", path)
    places = re.findall(r"row (\d+)(?:, column (\w+))?: ", ended.err)

    assert ended.code == Exit.WRONG_INPUT
    assert sorted(places) == [
        ("2", "hold_s"),
        ("2", "key"),
        ("2", "priority"),
        ("2", "temperature_degc"),
        ("4", ""),
        ("5", "hold_s"),
        ("5", "priority"),
    ]


@pytest.mark.parametrize("text", ["0750", "yes", "'750'", '"750"', "true", "1:30", "~"])
def test_recipe_says_line_and_column(
    ppu: Ppu, small_lab: Path, tmp_path: Path, text: str
) -> None:
    """In a file, YAML or JSON, each fault has its place."""
    path = tmp_path / "recipe.yaml"
    path.write_text(f"hold_s: 600\nramp_degc_per_min: 5\ntemperature_degc: {text}\n")
    for command in ("run", "submit"):
        ended = ppu(command, "fire_sample", "--lab", small_lab, "--params", path)

        assert ended.code == Exit.WRONG_INPUT
        assert f"{path} line 3, column 1: temperature_degc: should be" in ended.err


def test_json_of_a_program_keeps_its_meaning(
    ppu: Ppu, small_lab: Path, tmp_path: Path
) -> None:
    """An optimizer's numbers come as they were sent, also those with an exponent."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"hold_s": 6e2, "temperature_degc": 7.5e2}))
    ppu("submit", "fire_sample", "--lab", small_lab, "--params", path)
    parameters = ppu("job", 1, "--json").json["parameters"]

    assert (parameters["hold_s"], parameters["temperature_degc"]) == (600.0, 750.0)
