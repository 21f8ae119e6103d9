"""``ppu submit``: what comes into the queue, and what does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppu.cli.submit import read_deadline
from ppu.core.errors import ConfigurationError
from ppu.core.labfile import load_lab
from ppu.core.registry import find_lab
from ppu.store import custody, queue
from ppu.store.stock import free_stock
from ppu.store.store import Store

Ppu = Callable[..., Any]


@pytest.fixture
def submit(ppu: Ppu, small_lab: Path) -> Ppu:
    """Submits a firing in the small lab."""
    return lambda *more: ppu("submit", "fire_sample", "--lab", small_lab, *more)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a table of jobs."""

    def write(text: str) -> Path:
        path = tmp_path / "recipes.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_submitted_job_is_as_it_was_asked_for(
    ppu: Ppu, submit: Ppu, tmp_path: Path
) -> None:
    """Every option is in the job; its number is all there is on standard output."""
    first = submit("--params", _file(tmp_path, "hold_s: 600"), "--set=hold_s=1200")
    second = submit(
        *("--key=k", "--priority=3", "--campaign=c", "--after=1", "--held"),
        *("--tag=a", "--tag=b", "--deadline=2d"),
    )
    job = ppu("job", "2", "--json").json

    assert (first.code, first.out) == (0, "1\n")
    assert ppu("job", "1", "--json").json["parameters"]["hold_s"] == 1200.0
    assert second.out == "2\n"
    assert (job["key"], job["priority"], job["campaign"]) == ("k", 3, "c")
    assert (job["tags"], job["is_held"], job["state"]) == (["a", "b"], True, "queued")
    assert job["deadline_s"] == 172800.0
    assert any("needs job 1" in why for why in job["waits_for"])


def _file(folder: Path, text: str) -> Path:
    path = folder / "parameters.yaml"
    path.write_text(text)
    return path


def test_same_key_is_the_same_job(submit: Ppu) -> None:
    """An optimizer that asks twice gets one job; another experiment is refused."""
    first = submit("--key=k", "--json")
    again = submit("--key=k", "--json")
    other = submit("--key=k", "--set=hold_s=120")

    assert first.json == again.json == {"jobs": [1]}
    assert (other.code, "use a new key" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--set=hold=5"], 2, "hold: unknown key; did you mean 'hold_s'?"),
        (["--set=temperature_degc=1500"], 3, "1500 degC, allowed are 0 to 1100 degC"),
        (["--set=container=crucible_01"], 3, "crucible_01 is empty"),
        (["--after=7"], 2, "there is no job 7 to wait for"),
        (["--deadline=soon"], 2, "--deadline soon: should be a duration such as 90min"),
        (["--deadline=2001-01-01"], 2, "--deadline 2001-01-01: this has passed"),
        (["--batch=/nowhere.csv"], 2, "--batch /nowhere.csv: No such file"),
    ],
)
def test_job_that_cannot_be_is_refused(
    ppu: Ppu, submit: Ppu, arguments: list[str], code: int, told: str
) -> None:
    """With what is wrong, as `ppu run` tells it; nothing is queued."""
    submit("--key=before")
    ended = submit(*arguments)

    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err
    assert len(ppu("jobs", "--json").json) == 1


def test_store_of_another_lab_is_refused(ppu: Ppu, submit: Ppu, cell: Any) -> None:
    """Jobs are checked against the lab that they run in."""
    ended = ppu("submit", "fire_sample", "--lab", "a-lab")

    assert submit().code == 0
    assert ended.code == 2
    assert "run in lab 'small', not in 'a-lab'" in ended.err


def test_nothing_is_submitted_to_a_disk_that_is_nearly_full(
    submit: Ppu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own error says what to do."""
    monkeypatch.setattr(Store, "free_bytes", 1_000_000)
    ended = submit()

    assert (ended.code, ended.out) == (4, "")
    assert "1 MB are free on its disk" in ended.err


def test_protocol_says_what_is_allocated(ppu: Ppu, store_path: Path) -> None:
    """A synthesis allocates its powders; what does not suffice is refused whole."""
    file = load_lab(find_lab("a-lab"))
    ppu("submit", "solid_state_synthesis")
    with Store(store_path) as store:
        store.write(lambda c: custody.declare(c, file, 1.0))
        with store.read() as connection:
            free = free_stock(connection)
    more = ["--set=batch_mass_g=8", "--set=target=BaTiO3"]
    ends = [ppu("submit", "solid_state_synthesis", *more).code for _ in range(3)]
    lacking = ppu("submit", "solid_state_synthesis", "--set=precursors=[BaO, TiO2]")

    assert 0 < file.stock["BaCO3"].mass_g - free["BaCO3"] < 4.0
    assert 0 < file.stock["TiO2"].mass_g - free["TiO2"] < 4.0
    assert ends == [0, 0, 0]
    assert (lacking.code, "there is no BaO in stock" in lacking.err) == (3, True)


def test_batch_is_refused_when_the_stock_does_not_suffice(
    ppu: Ppu, store_path: Path, table: Callable[[str], Path]
) -> None:
    """Each recipe is small enough, all of them together are not."""
    with Store(store_path) as store:
        file = load_lab(find_lab("a-lab"))
        store.write(lambda c: custody.declare(c, file, 1.0))
    path = table("batch_mass_g\n" + "8\n" * 10)
    ended = ppu("submit", "solid_state_synthesis", "--batch", path)

    assert ended.code == 3
    assert "g of BaCO3 are asked for" in ended.err
    assert ppu("jobs", "--json").json == []


# -- batches -----------------------------------------------------------------------


def test_batch_is_a_job_per_row(
    ppu: Ppu, submit: Ppu, table: Callable[[str], Path]
) -> None:
    """Columns win over options, empty cells and empty rows say nothing."""
    path = table(
        '\ufeffhold_s, temperature_degc,key,priority,tags\n600,,a,5,"x, y"\n\n,700,,,\n'
    )
    ended = submit("--batch", path, "--set=hold_s=120", "--key=B", "--tag=all")
    again = submit("--batch", path, "--set=hold_s=120", "--key=B", "--tag=all")
    first, second = (ppu("job", n, "--json").json for n in (1, 2))

    assert (ended.out, again.out) == ("1\n2\n", "1\n2\n")
    assert first["parameters"]["hold_s"] == 600.0
    assert first["parameters"]["temperature_degc"] == 900.0
    assert (first["key"], first["priority"]) == ("a", 5)
    assert first["tags"] == ["all", "x", "y"]
    assert second["parameters"]["hold_s"] == 120.0
    assert second["parameters"]["temperature_degc"] == 700.0
    assert (second["key"], second["priority"]) == ("B/2", 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["recipes.csv: it is empty"]),
        ("hold_s\n", ["recipes.csv: there is no job in it"]),
        ("hold,hold\n1,1\n", ["row 1, column hold: this is no parameter; did you"]),
        ("hold_s,,\n1,2,3\n", ["row 1, column (no name): this is no parameter"]),
        ("hold_s,hold_s\n1,1\n", ["row 1, column hold_s: it stands there twice"]),
        ("hold_s\n1,2\n", ["row 2: it has 2 cells for 1 columns"]),
        ("hold_s\n[\n", ["row 2, column hold_s: should be a number such as 750"]),
        ("priority\n1.5\n", ["row 2, column priority: should be a whole number"]),
        ('hold_s\n"1\n', ["this is no CSV file"]),
        (
            "hold_s,temperature_degc\n60,hot\n-1,500\n600,1500\n",
            [
                "row 2, column temperature_degc: should be a number such as 750",
                "row 3, column hold_s: Input should be greater than or equal to 0",
                "row 4: furnace_1: segment 1: 1500 degC",
            ],
        ),
    ],
)
def test_batch_with_a_fault_is_refused_whole(
    ppu: Ppu,
    submit: Ppu,
    table: Callable[[str], Path],
    text: str,
    told: list[str],
) -> None:
    """Every fault is told with its row and its column."""
    submit("--key=before")
    ended = submit("--batch", table(text))

    assert (ended.code, ended.out) == (2, "")
    for part in told:
        assert part in ended.err
    assert len(ppu("jobs", "--json").json) == 1


def test_batch_that_the_lab_does_not_allow_is_refused(
    submit: Ppu, table: Callable[[str], Path]
) -> None:
    """If all that is wrong are limits, it is a refusal and no wrong input."""
    assert submit("--batch", table("temperature_degc\n1500\n")).code == 3


@pytest.mark.parametrize("cell", ["1500", "[", "hot"])
def test_same_fault_in_every_row_is_told_in_short(
    submit: Ppu, table: Callable[[str], Path], cell: str
) -> None:
    """The first rows and how many more there are."""
    ended = submit("--batch", table("temperature_degc\n" + f"{cell}\n" * 70))
    lines = ended.err.splitlines()

    assert len(lines) == 51
    assert lines[-1] == "and 20 more"


def test_batch_must_be_text(submit: Ppu, tmp_path: Path) -> None:
    """A spreadsheet's own format is not guessed at."""
    path = tmp_path / "recipes.xlsx"
    path.write_bytes(b"PK\x03\x04\xff\xfe")

    assert "this is no CSV file but a workbook" in submit("--batch", path).err


# -- deadlines ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stamp", "lasts_s"),
    [
        ("90min", None, 5400.0),
        ("1.5 h", None, 5400.0),
        ("2d", None, 172800.0),
        ("30s", None, 30.0),
        ("1970-01-02", 86400.0, None),
        ("1970-01-01T02:00+01:00", 3600.0, None),
        ("1970-01-01 01:00", 3600.0, None),
    ],
)
def test_deadline_is_a_duration_or_a_moment(
    text: str, stamp: float | None, lasts_s: float | None
) -> None:
    """A moment without an offset is UTC; a duration counts in the lab's time."""
    assert read_deadline(text, 1000.0) == (stamp, lasts_s)


@pytest.mark.parametrize("text", ["6", "h", "-6h", "6 weeks", "1970-01-01T00:01"])
def test_deadline_is_refused_when_it_is_neither(text: str) -> None:
    """Or when it has passed."""
    with pytest.raises(ConfigurationError, match="--deadline"):
        read_deadline(text, 1000.0)


def test_lab_with_classic_devices_checks_its_jobs_when_they_begin(
    ppu: Ppu, small_lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making such a device would connect it; parameters are checked all the same."""
    text = small_lab.read_text().replace(
        "  operator:\n",
        "  motor:\n    driver: ophyd.sim:SynAxis\n    hardware: {transport: ophyd}\n"
        "    provides: []\n  operator:\n",
    )
    path = tmp_path / "classic.yaml"
    path.write_text(text)
    hot = ppu("submit", "fire_sample", "--lab", path, "--set=temperature_degc=1500")
    wrong = ppu("submit", "fire_sample", "--lab", path, "--set=temperature_degc=x")

    assert (hot.code, wrong.code) == (0, 2)


def test_job_is_found_by_the_queue(submit: Ppu, store_path: Path) -> None:
    """What a cell claims is what was submitted."""
    submit("--set=hold_s=60")
    with Store(store_path) as store, store.read() as connection:
        job = queue.get(connection, 1)

    assert (job.protocol, job.version) == ("fire_sample", "1")
    assert job.parameters["hold_s"] == 60.0


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--priority=99999999999999999999", "--priority': should be a whole number of"),
        ("--after=99999999999999999999", "--after': should be a whole number of at"),
        (f"--deadline={'9' * 400}d", "whole number of at most 64 bits"),
        ("--deadline=9999999999999d", "should be a duration from 0 s to a century"),
    ],
)
def test_number_that_is_too_large_is_refused_in_words(
    submit: Ppu, option: str, text: str
) -> None:
    """A person who typed too much reads what is allowed."""
    ended = submit(option)

    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err
