"""Who may import whom, and what a light command loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "scipy", "matplotlib", "bluesky", "ophyd_async", "gemmi", "aiohttp")


def test_import_contracts_hold() -> None:
    """Every layer contract of pyproject.toml is kept."""
    ended = subprocess.run(  # noqa: S603 - a tool of our own environment
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 broken" in ended.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import ppu",
        "import ppu.__main__",
        "import sys; sys.argv = ['ppu', '--help']\n"
        "from ppu.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass",
    ],
    ids=["import ppu", "import ppu.__main__", "ppu --help"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    """A person who asks for help does not wait for numerical libraries."""
    ended = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ended.stdout.splitlines())

    assert "ppu" in loaded
    assert loaded.isdisjoint(HEAVY)
