"""What the documentation shows works as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from ppu import open_lab
from ppu.plans.protocol import RegisteredProtocol
from ppu.twin.job import Job

ROOT = Path(__file__).parents[2]


def python_blocks(page: str) -> list[str]:
    """Return the Python examples of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


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
        job = Job(lab, dry_sample, {"hold_s": 600.0}, tmp_path / "out")
        job.check()
        result = job.run(float)

    assert result["mass_g"] == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/how-to/write-a-protocol.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page leads to a file of the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]

    assert missing == []
