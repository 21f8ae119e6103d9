"""Build the sdist and the wheel from it, and use the wheel as a stranger would.

Run by `make wheel`. The wheel is installed in a fresh environment and its command is
run from an empty directory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"ppu", "ppu_drivers", "ppu_simulators", "ppu_protocols"}


def run(*command: str | Path, cwd: Path, timeout: float = 1800.0) -> str:
    """Run a command and return what it prints; its errors end the check."""
    done = subprocess.run(  # noqa: S603 - our own commands
        [str(word) for word in command],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_contents(wheel: Path) -> None:
    """Refuse a wheel that installs anything but our packages."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    strangers = {t for t in tops if t not in PACKAGES and not t.startswith("ppu_lab-")}
    missing = PACKAGES - tops
    if strangers or missing:
        sys.exit(f"wheel: unexpected {strangers}, missing {missing}")
    for needed in (
        "ppu/cli/templates/package/pyproject.toml.tmpl",
        "ppu/py.typed",
        "ppu_protocols/labs/a-lab.yaml",
        "ppu_protocols/labs/a-lab-by-hand.yaml",
        "ppu_simulators/instruments/ur5e_programs/a-lab.yaml",
    ):
        if needed not in names:
            sys.exit(f"wheel: {needed} is missing")


def use(ppu: Path, empty: Path) -> None:
    """Run the installed commands from an empty directory."""
    out = run(ppu, "run", "solid_state_synthesis", "--json", "--out", "one", cwd=empty)
    result = json.loads(out)
    if result["incidents"] or not result["phases"]:
        sys.exit(f"wheel: the demonstration went wrong: {result}")
    cif = run(
        ppu.parent / "python",
        "-c",
        "import ppu_protocols, pathlib;"
        "print(pathlib.Path(ppu_protocols.__file__).parent / 'phases')",
        cwd=empty,
    ).strip()
    pattern = empty / "one" / result["files"]["pattern"]
    cifs = sorted(Path(cif).glob("Ba*.cif"))
    words = [word for path in cifs for word in ("--cif", path)]
    analysed = json.loads(
        run(ppu, "analyse", "xrd", pattern, *words, "--json", cwd=empty)
    )
    if analysed["phases"][0]["name"] != "BaTiO3":
        sys.exit(f"wheel: ppu analyse found {analysed['phases']}")
    with subprocess.Popen(  # noqa: S603 - our own command
        [str(ppu), "sim", "--json"], cwd=empty, stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline() if process.stdout is not None else ""
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    if "furnace_1" not in json.loads(line)["devices"]:
        sys.exit(f"wheel: ppu sim printed {line}")
    run(ppu, "new", "driver", "acme_scale", "--wire", "serial", cwd=empty)
    python = ppu.parent / "python"
    run(python, "-m", "pip", "install", "--quiet", "acme_scale/[test]", cwd=empty)
    run(python, "-m", "pytest", "-q", cwd=empty / "acme_scale")
    run(ppu, "read", "--lab", "acme_scale", "--target", "twin", cwd=empty)


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        dist, empty = work / "dist", work / "empty"
        empty.mkdir()
        run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=work)
        (wheel,) = dist.glob("*.whl")
        check_contents(wheel)
        venv.create(work / "venv", with_pip=True)
        python = work / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel, cwd=empty)
        use(python.parent / "ppu", empty)
    sys.stdout.write("wheel: installs and works from an empty directory\n")


if __name__ == "__main__":
    main()
