"""How ``ppu run`` reads its arguments, and what it does with signals."""

import signal
from pathlib import Path
from typing import Any

import pytest

from ppu.cli.main import Exit, Interrupted, code_of
from ppu.cli.run import _abort_on_signals, read_pace, read_parameters
from ppu.core import errors
from ppu.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "pace"), [(None, "default"), ("jump", None), ("60", 60.0), ("0.5", 0.5)]
)
def test_pace_is_a_number_or_a_jump(text: str | None, pace: float | str | None) -> None:
    """Nothing said leaves the choice to the target."""
    assert read_pace(text) == pace


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", "", "1e6"])
def test_pace_is_refused_when_it_is_neither(text: str) -> None:
    """The error says what is allowed."""
    with pytest.raises(ConfigurationError, match="'jump' or a number above 0"):
        read_pace(text)


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    """Values are YAML, so lists and numbers can be given."""
    path = tmp_path / "parameters.json"
    path.write_text('{"a": 1, "b": "x"}')
    found = read_parameters(path, ["a=2.5", "c=[1, two]", "d=", "e=x=y"])

    assert found == {"a": 2.5, "b": "x", "c": [1, "two"], "d": None, "e": "x=y"}


@pytest.mark.parametrize(
    ("content", "settings", "text"),
    [
        ("[1]", [], "should be a mapping"),
        ("{", [], "neither YAML nor JSON"),
        ("a: 1", ["a"], "should look like key=value"),
        ("a: 1", ["=1"], "should look like key=value"),
        ("a: 1", ["a=["], "not a YAML value"),
    ],
)
def test_parameters_are_refused_when_they_cannot_be_read(
    tmp_path: Path, content: str, settings: list[str], text: str
) -> None:
    """Each fault names the option that it came with."""
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=text):
        read_parameters(path, settings)


class Job:
    """What the signal handlers ask of a job."""

    def __init__(self, *, has_started: bool) -> None:
        self.has_started = has_started
        self.reasons: list[str] = []
        self.lab: Any = self
        self.host: Any = self

    def abort(self, reason: str) -> None:
        """Take note."""
        self.reasons.append(reason)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_aborts_the_plan_when_it_has_started(number: signal.Signals) -> None:
    """The plan is aborted, the command goes on to leave safely."""
    job: Any = Job(has_started=True)
    before = signal.getsignal(number)
    with _abort_on_signals(job):
        signal.raise_signal(number)

    assert job.reasons == [f"stopped by {number.name}"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_command_when_nothing_has_started(
    number: signal.Signals,
) -> None:
    """Before the first step there is nothing to abort, so it ends at once."""
    job: Any = Job(has_started=False)
    with pytest.raises(Interrupted), _abort_on_signals(job):
        signal.raise_signal(number)

    assert job.reasons == []


@pytest.mark.parametrize(
    ("error", "has_started", "code"),
    [
        (errors.ConfigurationError("x"), False, Exit.WRONG_INPUT),
        (errors.LimitError("x"), False, Exit.REFUSED),
        (errors.InterlockError("x"), False, Exit.REFUSED),
        (errors.ConnectError("x"), False, Exit.UNREACHABLE),
        (errors.ReplyTimeout("x"), False, Exit.UNREACHABLE),
        (errors.InstrumentError("x"), False, Exit.FAILED),
        (errors.LimitError("x"), True, Exit.FAILED),
        (errors.ConnectError("x"), True, Exit.FAILED),
        (errors.AbortedError("x"), True, Exit.INTERRUPTED),
    ],
)
def test_exit_code_tells_who_must_act(
    error: errors.PPUError, has_started: bool, code: Exit
) -> None:
    """Before anything moved the class of the error decides, afterwards it failed."""
    assert code_of(error, has_started=has_started) is code
