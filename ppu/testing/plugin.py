"""Fixtures for tests of drivers, simulators and protocols.

pytest loads this module by itself wherever PPU is installed, so nothing heavy is
imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ppu.cell.lab import OpenLab
    from ppu.core.labtime import LabTimeLoop
    from ppu.testing.tapes import Replay

__all__ = ["jumping", "nothing_leaks", "open_twin", "play", "replay"]

# Their assertions shall say as much as those of a test module.
pytest.register_assert_rewrite(
    "ppu.testing.codecs",
    "ppu.testing.devices",
    "ppu.testing.leaks",
    "ppu.testing.loops",
    "ppu.testing.tapes",
    "ppu.testing.simulators",
    "ppu.testing.stage",
    "ppu.testing.transports",
)


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a task, a descriptor or a thread behind."""
    from ppu.testing.leaks import nothing_left_behind

    with nothing_left_behind():
        yield


@pytest.fixture
def jumping() -> Iterator[LabTimeLoop]:
    """A loop that jumps; no task, no debt and no fault may be left on it."""
    from ppu.testing.loops import jumping_loop

    with jumping_loop() as loop:
        yield loop


@pytest.fixture
def play(jumping: LabTimeLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on the jumping loop and returns its result."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with jumping.active():
            return jumping.run_until_complete(work)

    return run


@pytest.fixture
def open_twin(tmp_path: Path) -> Iterator[Callable[..., OpenLab]]:
    """Opens the twin of a lab, jumping; it is closed at the end of the test.

    It takes a lab (its name, the path or the YAML text of a lab file) and the options
    of :func:`ppu.open_lab`.
    """
    from ppu.cell.open_lab import open_lab
    from ppu.testing.stage import lab_path

    with ExitStack() as opened:

        def open_one(lab: str | Path = "a-lab", **options: Any) -> OpenLab:
            path = lab_path(lab, tmp_path)
            return opened.enter_context(open_lab(str(path), "twin", **options))

        yield open_one


@pytest.fixture
def replay(
    play: Callable[[Coroutine[Any, Any, Any]], Any], tmp_path: Path
) -> Iterator[Callable[[str | Path], Replay]]:
    """Serves a recording on the jumping loop, until the end of the test.

    It takes the path of a recording. Whether the driver still reads in it what it read
    then is a test of three lines::

        def test_balance_reads_what_was_recorded(play, replay):
            # The driver understands the real instrument.
            play(replay(Path(__file__).with_name("balance.jsonl")).check())

    :attr:`Replay.connection` is the ``hardware`` of a lab file that leads there.
    """
    from ppu.testing.tapes import replay as read_tape

    served: list[Replay] = []

    def serve(path: str | Path) -> Replay:
        tape = read_tape(path, results_folder=tmp_path)
        served.append(tape)
        play(tape.start())
        return tape

    yield serve
    for tape in reversed(served):
        play(tape.stop())
