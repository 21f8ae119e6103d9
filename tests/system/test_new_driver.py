"""What ``ppu new driver`` writes passes its tests, as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppu.cli.new import Example, Wire, check_name, find_checkout, write_files
from ppu.core.errors import ConfigurationError

ROOT = Path(__file__).parents[2]

LONGEST = "zahner_potentiostats_of_2026"
"""A name as long as they may be."""

PACKAGES = {
    "acme_hp1": (Wire.MODBUS_RTU, None),
    "acme_bal1": (Wire.MODBUS_TCP, "Balance"),
    "acme_hp2": (Wire.SERIAL, None),
    "acme_bal2": (Wire.TCP, "Balance"),
    "acme_hp3": (Wire.HTTP, None),
    LONGEST: (Wire.HTTP, "Balance"),
}
"""Each wire, and each language with each example."""

TRIED = [name for name in PACKAGES if name != LONGEST]
"""Packages whose tests are run: one for each wire."""

HERE = ("acme_hotplate_of_a_long_name", Wire.MODBUS_RTU, None)
"""One that is written into a checkout."""

HOUSE = ("ppu_drivers", "ppu_simulators")


def run(*command: str, cwd: Path, **environment: str) -> None:
    """Run a command of Python's; what it prints is told if it fails."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def make_checkout(folder: Path) -> Path:
    """Return what looks like a checkout of PPU."""
    for part in ("drivers/ppu_drivers", "simulators/ppu_simulators/instruments"):
        (folder / part).mkdir(parents=True)
    (folder / "drivers" / "ppu_drivers" / "__init__.py").write_text('"""Drivers."""\n')
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a package for each wire, and a checkout with modules."""
    folder = tmp_path_factory.mktemp("new")
    for name, (wire, provides) in PACKAGES.items():
        write_files(Example(name, wire, provides).package(folder / name))
    checkout = make_checkout(folder / "checkout")
    name, wire, provides = HERE
    write_files(Example(name, wire, provides).modules(checkout))
    instruments = checkout / "simulators" / "ppu_simulators" / "instruments"
    (folder / "pytest.ini").write_text(
        "[pytest]\n"
        "addopts = -x --import-mode=importlib --doctest-modules -p no:cacheprovider\n"
        "filterwarnings = error\n"
    )
    (folder / "conftest.py").write_text(
        "import ppu_drivers\n"
        "import ppu_simulators.instruments\n\n"
        f"ppu_drivers.__path__.append({str(checkout / 'drivers' / 'ppu_drivers')!r})\n"
        f"ppu_simulators.instruments.__path__.append({str(instruments)!r})\n"
    )
    return folder


@pytest.mark.slow
def test_new_drivers_pass_their_tests(written: Path) -> None:
    """Each driver and simulator keeps all contracts, without a warning."""
    run(
        "pytest",
        *[f"{name}/{part}" for name in TRIED for part in ("src", "tests")],
        "checkout/tests",
        cwd=written,
        PYTHONPATH=os.pathsep.join(str(written / name / "src") for name in PACKAGES),
    )


def test_new_drivers_are_clean_and_formatted(written: Path) -> None:
    """The rules of this repository find nothing, however long the name is."""
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    first = ", ".join(repr(name) for name in ("ppu", *HOUSE, *PACKAGES))
    config += ["--config", f"lint.isort.known-first-party=[{first}]"]
    # "Annotated as A" is how ophyd-async declares devices; the rest is for tests.
    unruled = ["--ignore", "N817,INP001,S101,SLF001,ARG"]
    run("ruff", "check", *config, *unruled, *PACKAGES, "checkout", cwd=written)
    run("ruff", "format", "--check", *config, *PACKAGES, "checkout", cwd=written)


@pytest.mark.slow
def test_new_drivers_are_typed_strictly(written: Path) -> None:
    """The type checker, as strict as for this repository, finds nothing."""
    run(
        "mypy",
        f"--config-file={ROOT / 'pyproject.toml'}",
        f"--cache-dir={ROOT / '.mypy_cache'}",
        *[f"{name}/{part}" for name in PACKAGES for part in ("src", "tests")],
        cwd=written,
        MYPYPATH=os.pathsep.join(str(written / name / "src") for name in PACKAGES),
    )


# -- the command -----------------------------------------------------------------------


def ppu_new(ppu_command: str, cwd: Path, *words: str) -> tuple[int, str, str]:
    """Run ``ppu new driver``; return its exit code and what it prints."""
    done = subprocess.run(  # noqa: S603 - our own command
        [ppu_command, "new", "driver", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout, done.stderr


def test_new_driver_lists_what_it_wrote_and_what_comes_next(
    ppu_command: str, tmp_path: Path
) -> None:
    """Every file is named, and the next commands."""
    code, told, _ = ppu_new(ppu_command, tmp_path, "ika_ret", "--wire", "serial")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}

    assert code == 0
    assert files == {
        line.removeprefix("wrote ")
        for line in told.splitlines()
        if line.startswith("wrote ")
    }
    assert {"ika_ret/src/ika_ret/driver.py", "ika_ret/.gitignore"} <= files
    assert "pip install -e '.[test]'" in told
    assert "ppu read --lab ika_ret --target twin" in told


def test_new_driver_writes_modules_and_tells_the_lab_entry_when_in_a_checkout(
    ppu_command: str, tmp_path: Path
) -> None:
    """In a checkout of PPU the files go where their likes are."""
    checkout = make_checkout(tmp_path / "house")
    code, told, _ = ppu_new(
        ppu_command, checkout / "drivers", "ika_ret", "--wire", "modbus-tcp"
    )

    assert code == 0
    assert "driver: ppu_drivers.ika_ret:IkaRet" in told
    assert (checkout / "drivers" / "ppu_drivers" / "ika_ret.py").is_file()
    assert (checkout / "tests" / "integration" / "test_ika_ret.py").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["class", "--wire", "tcp"], "'class' is a word of Python"),
        (["IkaRet", "--wire", "tcp"], "'IkaRet' should be maker_model"),
        (["ika", "--wire", "tcp"], "'ika' should be maker_model"),
        (["ppu_drivers", "--wire", "tcp"], "'ppu_drivers' is installed already"),
        (["mettler_sics", "--wire", "tcp"], "'ppu_drivers.mettler_sics' already"),
        (["test_scale", "--wire", "tcp"], "would be taken for tests by pytest"),
        (["ika_ret", "--wire", "tcp", "--here"], "no checkout of PPU"),
        (["ika_ret", "--wire", "tcp", "--here", "--into", "."], "give one of them"),
        (["ika_ret", "--wire", "tcp", "--provides", "Balace"], "mean 'Balance'?"),
        (
            ["ika_ret", "--wire", "tcp", "--provides", "Furnace"],
            "inherit from ppu.core.capabilities.Furnace",
        ),
    ],
)
def test_new_driver_refuses_before_it_writes(
    ppu_command: str, tmp_path: Path, words: list[str], message: str
) -> None:
    """What cannot be is one clear line and exit code 2; nothing is written."""
    code, _, told = ppu_new(ppu_command, tmp_path, *words)

    assert code == 2
    assert message in told
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_a_file_exists(tmp_path: Path) -> None:
    """Nobody's work is overwritten, not even in part."""
    checkout = make_checkout(tmp_path / "house")
    files = Example("ika_ret", Wire.HTTP).modules(checkout)
    mine = next(path for path in files if path.name == "test_ika_ret.py")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"test_ika_ret.py: exists already"):
        write_files(files)

    assert mine.read_text() == "mine"
    assert [path for path in files if path.exists()] == [mine]


def test_name_is_refused_when_it_is_too_long() -> None:
    """A name must leave room on a line."""
    check_name(LONGEST)
    with pytest.raises(ConfigurationError, match="at most 28 characters"):
        check_name(LONGEST + "7")


def test_checkout_is_found_from_within() -> None:
    """Any directory of a checkout will do."""
    assert find_checkout(ROOT / "docs" / "how-to") == ROOT
    assert find_checkout(Path("/")) is None
