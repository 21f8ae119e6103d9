"""Labs opened on their twin, and jobs that fail."""

import contextlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.utils import Msg, MsgGenerator
from pydantic import BaseModel

from ppu import open_lab
from ppu.cell.execution import Execution
from ppu.core.capabilities import FiringProfile, Furnace, Segment
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    ConnectError,
    InternalError,
)
from ppu.core.stopping import STOP_SIGNALS
from ppu.plans import Lab, ProtocolResult, protocol

PAN = "slots: [balance.pan]"


class Nothing(BaseModel):
    """No parameters."""


@protocol(version="1")
def heat_and_stumble(lab: Lab, parameters: Nothing) -> MsgGenerator[ProtocolResult]:
    """Start a firing, then fail as only a program can."""
    furnace = lab.the(Furnace)
    profile = FiringProfile((Segment(300.0, 10.0, 600.0),), 60.0)
    yield from bps.prepare(furnace, profile, wait=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.sleep(600.0)
    return ProtocolResult(parameters_actual={"ratio": 1 / (lab.stock_g("x") - 1)})


@protocol(version="1")
def return_something_else(
    lab: Lab, parameters: Nothing
) -> MsgGenerator[ProtocolResult]:
    """Promise a result and return another thing."""
    yield from bps.null()
    return {"not": "a result"}  # type: ignore[return-value]  # the mistake under test


def no_time() -> float:
    """Return no elapsed time."""
    return 0.0


def heat(furnace: Furnace) -> MsgGenerator[None]:
    """Start a firing that takes hours."""
    yield from bps.open_run()
    profile = FiringProfile((Segment(300.0, 10.0, 600.0),), 60.0)
    yield from bps.prepare(furnace, profile, wait=True)
    yield from bps.kickoff(furnace, wait=True)
    yield from bps.sleep(600.0)


def test_furnace_is_made_safe_when_a_protocol_stumbles(
    small_lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake of a protocol's author is told, and the heating ends."""
    monkeypatch.setattr(Lab, "stock_g", lambda self, powder: 1.0)
    with open_lab(str(small_lab), only=("furnace_1",)) as lab:
        execution = Execution(lab, heat_and_stumble, {}, tmp_path / "out")
        with pytest.raises(InternalError) as caught:
            execution.run(no_time)
        safe = lab.read("furnace_1", "program_status")["value"]
    documents = (tmp_path / "out" / "documents.jsonl").read_text().splitlines()

    assert "heat_and_stumble failed in heat_and_stumble" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
    assert safe.value == "reset"
    assert "furnace_1: ramping down" in capsys.readouterr().err
    assert json.loads(documents[-1])["doc"]["exit_status"] == "fail"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_aborts_a_plan_and_leaves_the_furnace_safe(
    small_lab: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in a script does what it does to a command, however often."""
    main_thread = threading.main_thread().ident
    before = signal.getsignal(number)
    statuses: list[str] = []

    def stopped(furnace: Any) -> MsgGenerator[None]:
        yield from heat(furnace)
        status = yield from bps.rd(furnace.program_status)
        statuses.append(status.value)
        for _ in range(3):
            assert main_thread is not None
            signal.pthread_kill(main_thread, number)
        yield from bps.sleep(1e6)

    with open_lab(str(small_lab), only=("furnace_1",)) as lab:
        with pytest.raises(AbortedError, match=f"stopped by {number.name}"):
            lab.run(stopped(lab.furnace_1))
        statuses.append(lab.read("furnace_1", "program_status")["value"].value)

    assert statuses == ["run", "reset"]
    assert "furnace_1: ramping down" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_plan_does_not_begin_when_a_signal_came_before_it(small_lab: Path) -> None:
    """A signal that comes while the engine starts is not lost."""
    with open_lab(str(small_lab), only=("balance",)) as lab:
        run = lab.host.run

        def run_late(*arguments: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return run(*arguments)

        # A stand-in for the moment that no test can hit; it passes everything on.
        vars(lab.host)["run"] = run_late
        with pytest.raises(AbortedError, match="stopped by SIGINT"):
            lab.run([Msg("sleep", None, 1e6)])
        assert lab.host.loop.time() < 1e5


def test_lab_closes_when_a_firing_still_runs(small_lab: Path) -> None:
    """What a plan left sampling ends with the lab; nothing hangs and nothing leaks."""
    with open_lab(str(small_lab), only=("furnace_1",)) as lab:
        lab.run(heat(lab.furnace_1))
        host = lab.host

    assert host.loop.is_closed()


def test_lab_is_left_alone_by_signals_while_it_closes(small_lab: Path) -> None:
    """A nervous second Ctrl-C does not leave links open."""
    lab = open_lab(str(small_lab), only=("balance",))
    end_tasks = lab.host.end_tasks

    def end_late() -> None:
        signal.raise_signal(signal.SIGINT)
        end_tasks()

    # A stand-in for the moment that no test can hit; it passes everything on.
    vars(lab.host)["end_tasks"] = end_late
    with lab:
        host = lab.host

    assert host.loop.is_closed()


def test_plan_is_refused_when_nobody_attends_what_heats(small_lab: Path) -> None:
    """In Python, too, hardware heats only beside somebody; the rest may run."""
    for only, refuses in (((), True), (("furnace_1",), True), (("balance",), False)):
        lab = open_lab(str(small_lab), "hardware", only=only)
        expected: Any = (
            pytest.raises(
                ConfigurationError, match=r"furnace_1 can heat.*attended=True"
            )
            if refuses
            else contextlib.nullcontext()
        )
        with lab.closing(), expected:
            lab.run([Msg("null")])
    attended = open_lab(str(small_lab), "hardware", attended=True)
    with attended.closing():
        attended.run([Msg("null")])

    assert attended.has_run


def test_result_is_refused_when_it_is_not_what_was_declared(
    small_lab: Path, tmp_path: Path
) -> None:
    """Nothing is written as a result that is none."""
    with open_lab(str(small_lab), only=("balance",)) as lab:
        execution = Execution(lab, return_something_else, {}, tmp_path / "out")
        with pytest.raises(ConfigurationError, match="returned a dict, not the"):
            execution.run(no_time)

    assert not (tmp_path / "out" / "result.json").exists()


def test_lab_maps_names_to_devices_when_it_is_open(small_lab: Path) -> None:
    """Devices are items and attributes, and missing ones are told."""
    with open_lab(str(small_lab), only=("balance",)) as lab:
        found: Any = lab["balance"]

        assert lab.balance is found
        assert list(lab) == ["balance"]
        assert len(lab) == 1
        with pytest.raises(AttributeError, match="no device 'scale'; it has balance"):
            _ = lab.scale


def test_any_plan_runs_on_an_open_lab(small_lab: Path) -> None:
    """Own plans need no protocol."""

    def weigh(balance: Any) -> MsgGenerator[float]:
        yield from bps.open_run()
        yield from bps.create()
        yield from bps.trigger(balance, wait=True)
        reading = yield from bps.read(balance)
        yield from bps.save()
        yield from bps.close_run()
        return float(reading[balance.mass_key]["value"])

    with open_lab(str(small_lab), only=("balance",)) as lab:
        assert lab.run(weigh(lab.balance)) == pytest.approx(0.0, abs=1e-3)


def test_lab_is_refused_with_every_absent_instrument(small_lab: Path) -> None:
    """One message names all that cannot be reached."""
    with (
        pytest.raises(ConnectError) as caught,
        open_lab(str(small_lab), "hardware", only=("furnace_1", "balance")),
    ):
        pass

    assert "furnace_1: cannot open" in str(caught.value)
    assert "balance: cannot open" in str(caught.value)


@pytest.mark.parametrize("pace", [None, 60.0])
def test_hardware_runs_at_the_pace_of_the_wall_only(
    small_lab: Path, pace: float | None
) -> None:
    """Real instruments take their time."""
    with pytest.raises(ConfigurationError, match="real instruments run at pace 1"):
        open_lab(str(small_lab), "hardware", pace=pace)


@pytest.mark.parametrize(
    ("right", "wrong", "text"),
    [
        ("    simulator: ppu_simulators.instruments.mettler_sics", "    #", "no twin"),
        ("SimulatedMettlerSics", "SimulatedMettler", "did you mean"),
        ("ppu_drivers.mettler_sics:MettlerSics", "pathlib:Path", "is no driver"),
        (PAN, f"{PAN}\n    twin: {{resolutoin_g: 1}}", "unknown twin setting"),
        ("provides: [Balance]", "provides: [Furnace]", "does not provide Furnace"),
        ("seed: 3", "simulation: {world: 'os:getcwd'}", "'os:getcwd' is no class"),
        ("seed: 3", "simulation: {world: 'builtins:dict'}", "the world: "),
        (PAN, f"{PAN}\n    twin: {{capacity_g: .nan}}", "a finite number"),
        ("tare_g: 18.2}", "tare_g: 18.2, twin: {tareg: 1}}", "mean 'tare_g'"),
    ],
)
def test_lab_is_refused_when_a_device_cannot_be_made(
    small_lab: Path, tmp_path: Path, right: str, wrong: str, text: str
) -> None:
    """Drivers and simulators that do not fit their entry are told."""
    assert right in small_lab.read_text()
    path = tmp_path / "lab.yaml"
    path.write_text(small_lab.read_text().replace(right, wrong, 1))

    with (
        pytest.raises(ConfigurationError, match=text),
        open_lab(str(path), only=("balance",)),
    ):
        pass


def test_lab_runs_a_protocol_and_gives_its_documents_when_asked_from_python(
    small_lab: Path, tmp_path: Path
) -> None:
    """From Python a protocol leaves what the command leaves, named as the protocol."""
    seen: list[tuple[str, dict[str, Any]]] = []
    with open_lab(str(small_lab)) as lab:
        token = lab.subscribe(lambda name, document: seen.append((name, document)))
        result = lab.run_protocol(
            "fire_sample",
            tmp_path / "out",
            temperature_degc=200.0,
            ramp_degc_per_min=10.0,
            hold_s=600.0,
            cool_to_degc=150.0,
        )
        lab.unsubscribe(token)

    assert seen[0][0] == "start"
    assert seen[0][1]["plan_name"] == "fire_sample"
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert (tmp_path / "out" / "report.html").exists()
    actual = result["parameters_actual"]
    # This furnace overshoots at low temperatures.
    assert actual["temperature_degc"] == pytest.approx(200.0, abs=20.0)
    assert actual["highest_temperature_degc"] >= actual["temperature_degc"]


def test_documents_name_the_plan_when_it_is_the_user_s_own(small_lab: Path) -> None:
    """What a plan is wrapped in does not show in its documents."""
    seen: list[dict[str, Any]] = []

    def look_around() -> MsgGenerator[None]:
        yield from bps.open_run()
        yield from bps.close_run()

    with open_lab(str(small_lab)) as lab:
        lab.subscribe(lambda _, document: seen.append(document))
        lab.run(look_around())

    assert seen[0]["plan_name"] == "look_around"
