"""A lab in use: one plan at a time, looks from anywhere, rest after every plan."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import MsgGenerator

from ppu.cell.lab import OpenLab
from ppu.cell.open_lab import open_lab
from ppu.core.capabilities import FiringProfile, Furnace, GasRequest, Segment
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    InterlockError,
    LimitError,
    PPUError,
)

OpenTwin = Callable[..., OpenLab]
SHORT = FiringProfile((Segment(60.0, 10.0, 600.0),), cool_to_degc=50.0)


class Rendezvous:
    """Where a plan says that it runs, and is told to go on."""

    def __init__(self) -> None:
        self.runs = threading.Event()
        self.may_go_on = threading.Event()

    def plan(self) -> MsgGenerator[str]:
        """Say that this runs; wait for a word."""
        future: Future[bool] = ThreadPoolExecutor(1).submit(self.may_go_on.wait)
        self.runs.set()
        while not future.done():
            yield from bps.sleep(1.0)
        return "done"


def firing(furnace: Furnace) -> MsgGenerator[None]:
    """Start a firing and leave it."""
    yield from bps.prepare(furnace, SHORT, wait=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.sleep(120.0)


def test_second_plan_is_refused_and_the_first_is_not_disturbed(
    open_twin: OpenTwin,
) -> None:
    """Whoever asks too early is told so; the furnace of the first goes on heating."""
    lab = open_twin(links="memory")
    meeting = Rendezvous()

    def first() -> MsgGenerator[None]:
        yield from bps.prepare(lab.furnace_1, SHORT, wait=True)
        yield from bps.kickoff(lab.furnace_1, wait=True)
        yield from meeting.plan()
        yield from bps.complete(lab.furnace_1, wait=True)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.run, bpp.run_wrapper(first()))
        meeting.runs.wait(100.0)
        with pytest.raises(InterlockError, match="the lab is busy: run_wrapper runs"):
            lab.run([])
        meeting.may_go_on.set()

        running.result(300.0)
        assert lab.furnace_1.last_firing.dwell_s == pytest.approx((600.0,), abs=20.0)


def test_second_plan_waits_when_it_is_queued(open_twin: OpenTwin) -> None:
    """Who says so gets the lab when it is free."""
    lab = open_twin(links="memory")
    meeting = Rendezvous()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(lab.run, meeting.plan())
        meeting.runs.wait(100.0)
        queued = pool.submit(lab.run, bps.rd(lab.furnace_1.process_value), queued=True)
        meeting.may_go_on.set()

        assert running.result(300.0) == "done"
        assert 0.0 < queued.result(300.0) < 100.0


def test_lab_is_read_from_another_thread_while_a_plan_runs(
    open_twin: OpenTwin,
) -> None:
    """A person at a prompt may look at any time."""
    lab = open_twin(links="memory")
    meeting = Rendezvous()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.run, meeting.plan())
        meeting.runs.wait(100.0)

        assert lab.read("furnace_1", "process_value")["quality"] == "good"
        meeting.may_go_on.set()
        running.result(300.0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda lab: lab.read("balance", "present_mass"),
        lambda lab: lab.run([]),
        lambda lab: lab.make_safe(),
    ],
    ids=["read", "run", "make safe"],
)
def test_lab_refuses_its_own_loop_instead_of_waiting_for_ever(
    open_twin: OpenTwin, ask: Callable[[OpenLab], Any]
) -> None:
    """A plan or a callback that asks the lab gets an error, not a deadlock."""
    lab = open_twin(links="memory")

    def curious() -> MsgGenerator[None]:
        ask(lab)
        yield from bps.null()

    with pytest.raises(ConfigurationError, match="would wait for itself"):
        lab.run(curious())


def test_subscriber_that_raises_is_told_and_does_not_end_a_firing(
    open_twin: OpenTwin, capsys: pytest.CaptureFixture[str]
) -> None:
    """A view with a mistake is a nuisance, not a cold furnace."""
    lab = open_twin(links="memory")
    heard: list[float] = []

    def wrong(*_: Any) -> None:
        heard.append(1.0)
        raise ZeroDivisionError("in a view")

    def fire() -> MsgGenerator[None]:
        yield from bps.prepare(lab.furnace_1, SHORT, wait=True)
        lab.furnace_1.process_value.subscribe(wrong)
        yield from bp.fly([lab.furnace_1])
        lab.furnace_1.process_value.clear_sub(wrong)

    lab.subscribe(wrong)
    lab.run(fire())

    assert lab.furnace_1.last_firing.dwell_s == pytest.approx((600.0,), abs=20.0)
    assert len(heard) > 100
    told = capsys.readouterr().err
    assert told.count("ZeroDivisionError('in a view')") == 2  # each view once


@pytest.mark.parametrize("name", ["furnace_1", "furnace_2"])
def test_furnace_rests_when_a_plan_leaves_it_heating(
    open_twin: OpenTwin, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan that ends well and forgets its furnace leaves it ramping down."""
    lab = open_twin(links="memory")
    lab.run(bpp.run_wrapper(firing(lab[name])))

    assert f"{name}: ramping down" in capsys.readouterr().err
    assert lab.read(name, "loop_mode")["value"] == "auto"


def test_gas_rests_when_a_plan_leaves_it_flowing(open_twin: OpenTwin) -> None:
    """A plan that ends well and forgets its gas leaves the valve closed."""
    lab = open_twin(links="memory")
    lab.run(bps.mv(lab.gas_2, GasRequest("O2", 100.0)))
    lab.run(bps.trigger(lab.gas_2, wait=True))

    assert lab.read("gas_2", "setpoint")["value"] == 0.0


def test_lab_is_opened_and_closed_across_cells_of_a_notebook(
    small_lab: Path,
) -> None:
    """Open in one cell, use in the next, close in a third; twice is harmless."""
    lab = open_lab(str(small_lab), links="memory")
    assert "not open" in repr(lab)

    assert lab.open().open() is lab
    assert "Eurotherm 3216" in repr(lab)
    assert lab.read("balance", "present_mass")["quality"] == "good"

    lab.close()
    lab.close()
    assert "closed" in repr(lab)
    with pytest.raises(ConfigurationError, match="open it anew"):
        lab.open()


def test_several_protocols_run_at_once_on_one_lab(
    open_twin: OpenTwin, tmp_path: Path
) -> None:
    """They share furnaces and arm, and take less time than one after the other."""
    lab: Any = open_twin(links="memory")
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("fire_sample", {}),
        ("solid_state_synthesis", {}),
    ]
    jobs = lab.run_protocols(wanted, tmp_path / "out")

    assert [job.state for job in jobs] == ["succeeded"] * 2
    assert lab.host.loop.time() < 0.8 * sum(job.result["lab_time_s"] for job in jobs)
    with pytest.raises(ConfigurationError, match="open it anew"):
        lab.run_protocols(wanted, tmp_path / "again")


def test_failing_protocol_does_not_end_the_others(
    open_twin: OpenTwin, tmp_path: Path
) -> None:
    """Each job ends as itself does; what is wrong beforehand begins nothing."""
    lab: Any = open_twin(links="memory")
    with pytest.raises(LimitError, match="empty; nothing to work on"):
        lab.run_protocols(
            [("fire_sample", {}), ("fire_sample", {"container": "crucible_01"})],
            tmp_path / "out",
        )

    assert lab.host.loop.time() < 60.0


def test_two_labs_run_at_once_in_one_process(small_lab: Path, tmp_path: Path) -> None:
    """Each has its own loop and its own time; neither waits for the other."""

    def run(number: int) -> float:
        with open_lab(str(small_lab), links="memory", seed=number) as lab:
            out = tmp_path / str(number)
            result = lab.run_protocol("fire_sample", out, hold_s=600.0 * number)
            return float(result["lab_time_s"])

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, (1, 2))

    assert two - one == pytest.approx(600.0, abs=120.0)


def test_lab_that_is_closed_beside_a_running_plan_is_safe_first(
    small_lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who leaves the `with` block ends another thread's plan, and its heat."""
    lab: Any = open_lab(str(small_lab), links="memory").open()
    meeting = Rendezvous()

    def heat() -> MsgGenerator[None]:
        yield from bps.mv(lab.furnace_1, 60.0)
        yield from meeting.plan()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.run, heat())
        meeting.runs.wait(100.0)
        lab.close()
        with pytest.raises(AbortedError, match="the lab is closed"):
            running.result(300.0)
        meeting.may_go_on.set()

    assert "furnace_1: ramping down" in capsys.readouterr().err


def test_several_protocols_end_safely_when_the_lab_is_closed(
    open_twin: OpenTwin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Closing stops them as a signal does: what heats is made safe, then it closes."""
    lab: Any = open_twin(links="memory")
    heard = threading.Event()

    def hear(name: str, document: dict[str, Any]) -> None:
        heating = [value for key, value in document.get("data", {}).items() if value]
        if name == "event_page" and heating:
            heard.set()

    lab.subscribe(hear)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(lab.run_protocols, [("fire_sample", {})], tmp_path / "o")
        assert heard.wait(300.0)
        lab.close()
        with pytest.raises(AbortedError, match="the lab is closed"):
            running.result(300.0)

    assert "furnace_1: ramping down" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (
            lambda lab: lab.read("furnace_9", "process_value"),
            "did you mean 'furnace_2'",
        ),
        (lambda lab: lab.read("furnace_1", "proces_value"), "process_value"),
    ],
)
def test_wrong_name_is_answered_with_the_right_one(
    open_twin: OpenTwin, ask: Callable[[OpenLab], Any], told: str
) -> None:
    """A slip of the finger at a prompt is no KeyError."""
    with pytest.raises(ConfigurationError, match=told):
        ask(open_twin(links="memory"))


def test_slip_of_the_finger_does_not_spend_the_lab(
    open_twin: OpenTwin, tmp_path: Path
) -> None:
    """What is refused before anything moved may be asked again, rightly."""
    lab: Any = open_twin(links="memory")
    with pytest.raises(PPUError, match="fire_sample"):
        lab.run_protocols([("fire_sampel", {})], tmp_path / "out")

    assert not lab.has_run


@pytest.mark.parametrize("state", ["not open yet", "is closed"])
def test_lab_that_is_not_open_says_so(small_lab: Path, state: str) -> None:
    """Nobody is sent to look for heat in a lab that was never opened."""
    lab = open_lab(str(small_lab), links="memory")
    if state == "is closed":
        lab.open().close()
        with pytest.raises(ConfigurationError, match=state):
            lab.run([])
    for ask in (
        lambda: lab.read("balance", "present_mass"),
        lambda: lab.run_protocols([], "out"),
    ):
        with pytest.raises(ConfigurationError, match=state):
            ask()
    lab.close()
