"""Take the store away from a lab at work in every way, and look what becomes of it.

A guard, its cell and a simulated bench are processes; the world counts what cannot be
undone. Required: nothing is repeated, nothing heats by itself, firings end as their
programs say, and the cell goes on without a person where none is needed.

Run by `make campaign-stores`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml
from sqlalchemy import Connection, select
from typing_extensions import override

from campaign.kill import Campaign, Person, Tally, write_lab
from lab_processes import PPU, LabProcesses, Running
from pages import replace_section
from postgres import Server, postgres_server
from ppu.cell.bench_lock import BenchLock
from ppu.core.errors import ConflictError
from ppu.core.labfile import load_lab
from ppu.core.labtime import stopwatch
from ppu.devices.build import places_of
from ppu.store import commands, queue
from ppu.store.cells import doubt_of
from ppu.store.custody import ask_move
from ppu.store.jobs import ENDED, JobRequest
from ppu.store.requests import AcceptStore
from ppu.store.schema import containers
from ppu.store.steps import StepState, steps_of

HEADING: Final = "## Stores that are lost, full, away or not what they were"
KILLS: Final = 40
OUTAGES_S: Final = (20.0, 75.0, 600.0)
FROZEN_S: Final = 60.0
FULL_S: Final = 45.0
PACE: Final = 20.0
_FIRING: Final = {
    "temperature_degc": 200.0,
    "ramp_degc_per_min": 10.0,
    "hold_s": 3600.0,
    "cool_to_degc": 190.0,
}
_SYNTHESIS: Final = {**_FIRING, "milling_s": 120.0, "scan_duration_s": 240.0}
_PATIENCE_WALL_S: Final = 1800.0


@dataclass
class Trial:
    """What was done to a store, and what came of it.

    Attributes:
        name: What was done.
        found: What was seen, for the page.
        violations: What must not have been.
    """

    name: str
    found: str = ""
    n_answers: int = 0
    wall_s: float = 0.0
    violations: list[str] = field(default_factory=list)


class Lab:
    """A bench at work, a guard, and one job.

    Args:
        lab: The processes.
        trial: Where to tell what was found.
        full: Crucibles that are full already.
    """

    def __init__(self, lab: LabProcesses, trial: Trial, full: Sequence[str]) -> None:
        self.lab = lab
        self.trial = trial
        self.tally = Tally()
        self.person = Person(lab, self.tally)
        self._full = list(full)
        self.ids: list[int] = []
        self.guard: Running
        self.cell: int | None = None

    def submit(self, protocol: str) -> None:
        """Put a job into the queue."""
        content: dict[str, Any] = dict(_SYNTHESIS)
        if protocol == "fire_sample":
            content = {**_FIRING, "container": self._full.pop(0)}
        wanted = JobRequest(protocol, "1", content)
        self.ids.append(self.lab.write(partial(queue.submit, wanted=wanted)))

    def start(self) -> None:
        """Start a guard, and wait for its cell."""
        self.guard = self.lab.start_guard("--early-ends", "1000000")
        self.cell = self.wait("a cell", lambda: self.guard.cell)

    def wait(
        self, what: str, is_so: Callable[[], Any], *, by_person: bool = False
    ) -> Any:
        """Wait until something is so; a person answers meanwhile, or nobody does."""

        def look() -> Any:
            if by_person:
                self.person.look()
            return is_so()

        return self.lab.wait_for(what, look, _PATIENCE_WALL_S)

    def is_begun(self, *names: str) -> bool:
        """Whether a step of one of *names* is under way."""
        return any(
            step.name in names and step.state is StepState.INTENT
            for job_id in self.ids
            for step in self.lab.read(steps_of, job_id=job_id)
        )

    def is_over(self) -> bool:
        """Whether every job has ended."""
        found = self.lab.read(queue.find, limit=1000)
        return all(job.state in ENDED for job in found)

    def acts(self, what: str = "") -> dict[str, int]:
        """Return how often the world has seen what cannot be undone."""
        seen = self.lab.ask(truth=True)["acts"]
        return {act: len(times) for act, times in seen.items() if act.startswith(what)}

    def is_firing(self) -> bool:
        """Whether a furnace was started."""
        return bool(self.acts("start "))

    def sleep(self, seconds: float) -> None:
        """Let real time pass, or the guard end."""
        until = self.lab.elapsed() + seconds
        self.lab.wait_for(
            "time", lambda: self.lab.elapsed() > until, 2 * seconds + 60.0
        )

    def judge(self, *, needs_person: bool = False, has_same_cell: bool = True) -> None:
        """Compare belief with truth, and the world's counts with the journal."""
        trial = self.trial
        judged = Campaign(self.lab, 0, [], 0, random.Random(0))  # noqa: S311 - chance, no secret
        judged._ids, judged.tally = self.ids, self.tally
        judged._judge_jobs()
        judged._judge_acts()
        judged._judge_documents()
        trial.violations += self.tally.violations
        for act, n in self.acts("start ").items():
            if n > 1:
                trial.violations.append(f"{act}: {n} times")
        incidents = self.lab.ask(incidents=True)["incidents"]
        trial.violations += [f"incident: {one['text']}" for one in incidents]
        trial.n_answers = sum(self.tally.n_answers.values())
        if trial.n_answers and not needs_person:
            trial.violations.append(f"a person was needed: {self.tally.n_answers}")
        if has_same_cell and self.guard.cell != self.cell:
            trial.violations.append("another cell was started")
        done = subprocess.run(  # noqa: S603 - our own command
            [*PPU, "store", "check", "--store", str(self.lab.store)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            trial.violations.append(f"store: {done.stdout}{done.stderr}")

    def end(self) -> None:
        """End the guard as it should end."""
        self.guard.process.send_signal(signal.SIGTERM)
        self.lab.wait_for("its end", lambda: self.guard.process.poll() is not None)


@contextlib.contextmanager
def a_lab(
    folder: Path, trial: Trial, pace: float, store: str | Path | None = None
) -> Iterator[Lab]:
    """A bench in *folder*, at work."""
    folder.mkdir(parents=True, exist_ok=True)
    full = write_lab(folder / "lab.yaml", 4, 4)
    with LabProcesses(folder, folder / "lab.yaml", pace, store) as processes:
        yield Lab(processes, trial, full)


# -- a server --------------------------------------------------------------------------


def away(
    folder: Path, trial: Trial, pace: float, seconds: float, *, in_dose: bool = False
) -> None:
    """Stop a server while a furnace is hot, or kill it in mid-dose."""
    protocol = "solid_state_synthesis" if in_dose else "fire_sample"
    with (
        postgres_server(is_durable=True) as server,
        a_lab(folder, trial, pace, server.url) as lab,
    ):
        lab.submit(protocol)
        lab.start()
        if in_dose:
            lab.wait("a dose", lambda: lab.acts("dose "))
        else:
            lab.wait("a firing", lambda: lab.is_begun("fire_seat") and lab.is_firing())
        _take_away(lab, server, seconds, is_killed=in_dose)
        lab.wait("the end", lab.is_over)
        lab.judge()
        lab.end()


def _take_away(lab: Lab, server: Server, seconds: float, *, is_killed: bool) -> None:
    before = lab.acts()
    with lab.lab.let_go():
        if is_killed:
            server.signal(signal.SIGKILL)
        else:
            server.stop()
        lab.sleep(seconds)
        new = {act for act, n in lab.acts().items() if n > before.get(act, 0)}
        if not is_killed and new:
            lab.trial.violations.append(f"commanded while it was away: {new}")
        server.start()
    lab.trial.found = f"{lab.acts('start ')}"


def frozen(folder: Path, trial: Trial, pace: float, seconds: float) -> None:
    """Freeze a server while a furnace is hot."""
    with (
        postgres_server(is_durable=True) as server,
        a_lab(folder, trial, pace, server.url) as lab,
    ):
        lab.submit("fire_sample")
        lab.start()
        lab.wait("a firing", lambda: lab.is_begun("fire_seat") and lab.is_firing())
        server.signal(signal.SIGSTOP)
        try:
            lab.sleep(seconds)
        finally:
            server.signal(signal.SIGCONT)
        lab.wait("the end", lab.is_over)
        lab.judge()
        lab.end()


# -- a file ----------------------------------------------------------------------------


class Looking(Person):
    """A person who puts right what a store believes that has forgotten something."""

    @override
    def look(self) -> None:
        """Say where everything is, accept the store, answer what is asked."""
        if self._lab.read(doubt_of):
            self._put_right()
        else:
            super().look()

    def _put_right(self) -> None:
        truth = self._lab.ask(truth=True)["containers"]

        def believed(connection: Connection) -> dict[str, str | None]:
            query = select(containers.c.name, containers.c.location)
            return {row.name: row.location for row in connection.execute(query)}

        wrong = {
            name: truth[name]
            for name, at in self._lab.read(believed).items()
            if at != truth[name]
        }
        if any(at is None for at in wrong.values()) or self._lab.read(commands.waiting):
            return  # something is in the arm's hand, or the cell has not yet heard
        for name, at in wrong.items():
            self._lab.write(partial(ask_move, container=name, location=at, by="anna"))
            self._tally.n_answers["where a container is"] += 1
        if not wrong:
            accept = partial(commands.request, wanted=AcceptStore(), by="anna")
            self._lab.write(accept)
            self._tally.n_answers["accept the store"] += 1


def rolled_back(folder: Path, trial: Trial, pace: float, *, is_restored: bool) -> None:
    """Remove the log of a store whose cell has died, or restore an old copy."""
    with a_lab(folder, trial, pace) as lab:
        lab.person = Looking(lab.lab, lab.tally)
        file = Path(lab.lab.store)
        log = file.with_name(file.name + "-wal")
        lab.submit("solid_state_synthesis")
        if not is_restored:  # what is in the file, and what in its log
            with lab.lab.let_go():
                pass
        lab.start()
        lab.wait("a move", lambda: lab.acts("move "))
        copy = folder / "yesterday.sqlite"
        if is_restored:
            _ppu(trial, "store", "backup", str(copy), "--store", str(file))
        lab.wait("a dose", lambda: len(lab.acts("dose ")) > 1)
        lab.wait("the end of the doses", lambda: not lab.is_begun("dose_powders"))
        before = lab.acts()
        lab.guard.process.kill()
        lab.guard.process.wait()
        for cell in lab.lab.cells():
            lab.lab.kill(cell)
        lab.lab.wait_for("the death of the cell", lambda: not lab.lab.cells())
        with lab.lab.let_go():
            if is_restored:
                _ppu(trial, "store", "restore", str(copy), "--store", str(file))
            else:
                # As a disk does that lost what it had said to have.
                log.unlink(missing_ok=True)
                file.with_name(file.name + "-shm").unlink(missing_ok=True)
        lab.start()
        if not lab.wait("the doubt", lambda: lab.lab.read(doubt_of)):
            trial.violations.append("it was not noticed")
        lab.sleep(10.0)
        after = lab.acts()
        if lab.lab.read(doubt_of) == "" or lab.is_firing():
            trial.violations.append("something went on before a person had looked")
        moved = {act for act, n in after.items() if n > before.get(act, 0) + 1}
        trial.violations += [f"done again: {act}" for act in moved]
        lab.wait("the end", lab.is_over, by_person=True)
        twice = {act: n for act, n in lab.acts("dose ").items() if n > 1}
        trial.violations += [f"dosed twice: {act}" for act in twice]
        trial.found = ", ".join(
            f"{what} {n}" for what, n in lab.tally.n_answers.items()
        )
        lab.judge(needs_person=True, has_same_cell=False)
        lab.end()


def _ppu(trial: Trial, *words: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [*PPU, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        trial.violations.append(f"ppu {' '.join(words)}: {done.stderr}")


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own; only root may make one."""
    folder.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "-l", str(folder))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words


def full_disk(
    folder: Path, trial: Trial, pace: float, seconds: float, *, with_kill: bool
) -> None:
    """Fill the disk of a store to the last byte while a furnace is hot."""
    with (
        small_disk(folder / "disk", 700) as disk,
        a_lab(folder, trial, pace, disk / "store.sqlite") as lab,
    ):
        lab.submit("fire_sample")
        lab.start()
        lab.wait("a firing", lambda: lab.is_begun("fire_seat") and lab.is_firing())
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 1_000_000)
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x")
        if with_kill:
            lab.lab.kill(lab.cell or 0)
        lab.sleep(seconds)
        filler.unlink()
        lab.wait("the end", lab.is_over, by_person=with_kill)
        lab.judge(needs_person=False, has_same_cell=not with_kill)
        lab.end()


def read_only(folder: Path, trial: Trial, pace: float, seconds: float) -> None:
    """Make the disk of a store read-only when its cell has just died."""
    with (
        small_disk(folder / "disk", 700) as disk,
        a_lab(folder, trial, pace, disk / "store.sqlite") as lab,
    ):
        lab.submit("fire_sample")
        lab.start()
        lab.wait("a firing", lambda: lab.is_begun("fire_seat") and lab.is_firing())
        with lab.lab.let_go():
            lab.guard.process.kill()
            lab.guard.process.wait()
            for cell in lab.lab.cells():
                lab.lab.kill(cell)
            lab.lab.wait_for("the death of the cell", lambda: not lab.lab.cells())
            lab.lab.wait_for("a read-only disk", partial(_is_read_only, disk))
            lab.guard = lab.lab.start_guard("--early-ends", "1000000")
            lab.sleep(seconds)
            if lab.guard.process.poll() is not None or lab.guard.cell is not None:
                trial.violations.append("the guard did not wait for the store")
            _run("mount", "-o", "remount,rw", str(disk))
        lab.wait("the end", lab.is_over)
        lab.judge(has_same_cell=False)
        lab.end()


def _is_read_only(disk: Path) -> bool:
    """Make a disk read-only; what has died may be about to close its files."""
    words = ("mount", "-o", "remount,ro", str(disk))
    done = subprocess.run(words, check=False, capture_output=True)  # noqa: S603 - our own words
    return done.returncode == 0


# -- two owners ------------------------------------------------------------------------


class Besieged(Campaign):
    """Kills cells and guards while somebody else keeps trying to open the bench."""

    n_tries = 0
    n_had = 0

    def besiege(self) -> None:
        """Know the bench by another lab file, as a second program would."""
        self._places = places_of(load_lab(self._lab.lab), self._lab.lab)

    @override
    def _look(self, until: float) -> None:
        self._try_to_open()
        super()._look(until)

    def _try_to_open(self) -> None:
        guard = self._guard
        # Whoever has said so has it for certain, as long as it lives.
        has_owner = guard.lines.find("orphan state|the cell of process .* runs")
        pids = [*self._lab.cells(), guard.process.pid] if has_owner else []
        self.n_tries += 1
        try:
            had = BenchLock(self._places, "an intruder")
        except ConflictError:
            return
        living = [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
        with contextlib.suppress(OSError):
            had.close()
        self.n_had += 1
        if has_owner and guard.process.poll() is None and living:
            self.tally.violations.append(f"the bench was had beside {living}")


def besieged(folder: Path, trial: Trial, n_kills: int) -> None:
    """Kill cells and guards beside a second process that tries to open the bench."""
    folder.mkdir(parents=True)
    n_syntheses, n_firings = 6 + n_kills // 3, 4 + n_kills // 4
    full = write_lab(folder / "lab.yaml", n_syntheses, n_firings)
    with LabProcesses(folder, folder / "lab.yaml", 80.0) as lab:
        rng = random.Random(1)  # noqa: S311 - chance, no secret
        campaign = Besieged(lab, n_kills, full, n_syntheses, rng)
        stop = threading.Event()
        refusals: list[int] = []
        opener = threading.Thread(target=_open_again, args=(lab, stop, refusals))
        try:
            lab.wait_for("the bench", lab.lab.exists)
            campaign.besiege()
            opener.start()
            campaign.run()
        finally:
            stop.set()
            if opener.is_alive():
                opener.join()
        codes = {code: refusals.count(code) for code in set(refusals)}
        tally = campaign.tally
        trial.violations += tally.violations
        trial.n_answers = sum(tally.n_answers.values())
        trial.found = (
            f"{len(tally.kills)} kills; {tally.n_succeeded} of {tally.n_jobs} jobs "
            f"succeeded; {campaign.n_tries} tries to lock the bench, "
            f"{campaign.n_had} of them while nobody had it; `ppu read` by another "
            f"name of the bench ended with {codes}"
        )


def _open_again(lab: LabProcesses, stop: threading.Event, codes: list[int]) -> None:
    """Read an instrument with a lab file that has other names for the same ports."""
    content = yaml.safe_load(lab.lab.read_text())
    links = lab.folder / "links"
    links.mkdir()
    for name, entry in content["devices"].items():
        hardware = entry["hardware"]
        if "port" in hardware and hardware["transport"] == "serial":
            (links / name).symlink_to(hardware["port"])
            hardware["port"] = str(links / name)
        elif "host" in hardware:
            hardware["host"] = "localhost"
    other = lab.folder / "other.yaml"
    other.write_text(yaml.safe_dump(content))
    while not stop.wait(2.0):
        done = subprocess.run(  # noqa: S603 - our own command
            [*PPU, "read", "balance", "--lab", str(other)],
            capture_output=True,
            text=True,
            check=False,
        )
        codes.append(done.returncode)


# -- all of them -----------------------------------------------------------------------

Work = Callable[[Path, Trial], None]


def trials(n_kills: int, pace: float) -> dict[str, Work]:
    """Return everything that is done to stores, by name."""
    found: dict[str, Work] = {
        f"a server stopped for {seconds:g} s": partial(away, pace=pace, seconds=seconds)
        for seconds in OUTAGES_S
    }
    found["a server killed in mid-dose, back after 5 s"] = lambda f, t: away(
        f, t, pace, 5.0, in_dose=True
    )
    found[f"a server frozen for {FROZEN_S:g} s"] = lambda f, t: frozen(
        f, t, pace, FROZEN_S
    )
    found["a file whose `-wal` was removed"] = lambda f, t: rolled_back(
        f, t, pace, is_restored=False
    )
    found["a file restored from before the doses"] = lambda f, t: rolled_back(
        f, t, pace, is_restored=True
    )
    found[f"a disk filled to the last byte for {FULL_S:g} s"] = lambda f, t: full_disk(
        f, t, pace, FULL_S, with_kill=False
    )
    found["the same, the cell killed meanwhile"] = lambda f, t: full_disk(
        f, t, pace, FULL_S, with_kill=True
    )
    found[f"a disk read-only for {FULL_S:g} s, guard and cell killed"] = lambda f, t: (
        read_only(f, t, pace, FULL_S)
    )
    if n_kills:
        found[f"{n_kills} `kill -9` beside others that open the bench"] = lambda f, t: (
            besieged(f, t, n_kills)
        )
    return found


def run_one(name: str, work: Work, folder: Path) -> Trial:
    """Run one trial to its end."""
    trial = Trial(name)
    elapsed = stopwatch()
    try:
        work(folder, trial)
    except Exception as exc:  # noqa: BLE001 - the others are to be run all the same
        trial.violations.append(f"{type(exc).__name__}: {exc}")
    trial.wall_s = elapsed()
    sys.stderr.write(f"{name}: {trial.found}: {trial.violations or 'as required'}\n")
    return trial


def section(done: Sequence[Trial], pace: float) -> str:
    """Return the section of docs/performance.md."""
    rows = "\n".join(
        f"| {one.name} | {one.found} | {one.n_answers} | {len(one.violations)} | "
        f"{one.wall_s / 60:.1f} |"
        for one in done
    )
    return f"""{HEADING}

Written by `make campaign-stores`, as root, for it mounts small disks. A guard, its cell
and a simulated bench at pace {pace:g} (80 for the kills) are processes, the servers are
PostgreSQL's own. Required: nothing repeated (the world counts), nothing heated by
itself, firings end as their programs say, the same cell goes on and nobody is asked;
where the store has forgotten something, nothing goes on before a person has looked.

| what was done | seen | answers by a person | violations | real time [min] |
|---|---|---|---|---|
{rows}
"""


def main() -> int:
    """Run the campaign; return 1 if anything is violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--pace", type=float, default=PACE)
    parser.add_argument("--only", default="", help="run those that have this in them")
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--page", type=Path, help="page whose section is replaced")
    parser.add_argument("--keep", type=Path, help="folder to leave everything in")
    asked = parser.parse_args()
    chosen = {
        name: work
        for name, work in trials(asked.kills, asked.pace).items()
        if asked.only in name
    }
    with tempfile.TemporaryDirectory(prefix="ppu-stores-") as temporary:
        os.environ["PPU_STATE"] = os.environ["PPU_LOCKS"] = temporary
        with ThreadPoolExecutor(asked.at_once) as pool:
            waiting = [
                pool.submit(run_one, name, work, Path(temporary) / str(n))
                for n, (name, work) in enumerate(chosen.items())
            ]
            done = [one.result() for one in waiting]
        if asked.keep is not None:
            ignored = shutil.ignore_patterns("*.wake")
            shutil.copytree(temporary, asked.keep, ignore=ignored, dirs_exist_ok=True)
    text = section(done, asked.pace)
    sys.stdout.write(text)
    for one in done:
        for line in one.violations:
            sys.stdout.write(f"VIOLATED: {one.name}: {line}\n")
    if asked.page is not None:
        replace_section(asked.page, HEADING, text)
    return 1 if any(one.violations for one in done) else 0


if __name__ == "__main__":
    sys.exit(main())
