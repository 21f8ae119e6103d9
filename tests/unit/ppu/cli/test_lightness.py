"""Commands on a store load what they need, and nothing that takes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import json, sys
from ppu.cli.main import run_app

sys.argv = ["ppu", *sys.argv[1:]]
code = run_app(float)
heavy = {"bluesky", "ophyd", "ophyd_async", "event_model", "scipy", "matplotlib"}
loaded = sorted({name.partition(".")[0] for name in sys.modules} & heavy)
drivers = [name for name in sys.modules if name.startswith("ppu_drivers.")]
print(json.dumps([code, loaded, drivers]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "solid_state_synthesis"),
        ("submit", "fire_sample"),
        ("jobs",),
        ("job", "1"),
        ("recover",),
        ("samples",),
        ("stock",),
        ("hold", "1"),
    ],
)
def test_command_on_a_store_loads_neither_bluesky_nor_a_driver(
    tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]
) -> None:
    """Once a lab is described, nobody waits for its instruments' libraries."""
    store = str(tmp_path_factory.mktemp("light") / "lab.sqlite")

    def run(*line: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", SCRIPT, *line, "--store", store],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr.splitlines()[-1]

    run("submit", "fire_sample")  # describes the lab
    told = json.loads(run(*words))

    assert Path(store).exists()
    assert told == [0, [], []]
