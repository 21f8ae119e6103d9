"""How ``ppu run`` reads its arguments, and what it does with signals."""

import contextlib
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ppu.cli.exits import Exit, code_of
from ppu.cli.options import read_pace
from ppu.cli.run import finishing_what_began, read_parameters
from ppu.core import errors
from ppu.core.errors import ConfigurationError
from ppu.core.stopping import STOP_SIGNALS, Interrupted
from ppu.plans.protocol import find_protocol


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
    settings = ["a=2.5", "c=[1, two]", "d=", "e=x=y", "container=12"]
    found = read_parameters(find_protocol("fire_sample"), path, settings)

    assert found.values == {
        "a": 2.5,
        "b": "x",
        "c": [1, "two"],
        "d": None,
        "e": "x=y",
        "container": "12",
    }
    assert found.places["a"] == "--set a"
    assert found.places["b"] == f"--params {path} line 1, column 10"


@pytest.mark.parametrize(
    ("content", "settings", "text"),
    [
        ("[1]", [], "should be a mapping"),
        ("{", [], "parameters.yaml line 1, column 2: not YAML"),
        ('{"a": 1, "a": 2}', [], "line 1, column 10: 'a' stands here twice"),
        ("a: !!int 5", [], "line 1, column 4: '5': the tag .*:int is not read"),
        ("[" * 5000, [], "parameters.yaml: too deeply nested"),
        ("a: 1", ["a"], "should look like key=value"),
        ("a: 1", ["=1"], "should look like key=value"),
        ("a: 1", ["a=["], "--set a line 1, column 2: not YAML"),
        ("a: 1", ["a=1e400"], "--set a: is too large for a number"),
        ("a: 1", ["a=" + "9" * 20], "--set a: should be a whole number of at most 64"),
        ("a: 1", ["a=" + "9" * 9999], "--set a: should be a whole number of at most"),
        ("a: 1", ["a=x\x1b[2J"], r"--set a: has the character U\+001B at place 2"),
        ("a: 1", ["a=" + "[" * 5000], "--set a: too deeply nested"),
        ("a: 1", ["a=" + "[" * 60 + "]" * 60], "--set a line 1, column 51: too deep"),
    ],
)
def test_parameters_are_refused_when_they_cannot_be_read(
    tmp_path: Path, content: str, settings: list[str], text: str
) -> None:
    """Each fault names the option that it came with."""
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=text):
        read_parameters(find_protocol("fire_sample"), path, settings)


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("has_run", [False, True])
def test_signal_ends_the_command_unless_a_plan_has_begun(
    number: signal.Signals, has_run: bool
) -> None:
    """Before a plan there is nothing to leave; afterwards results are written."""
    lab: Any = SimpleNamespace(has_run=has_run)
    before = signal.getsignal(number)
    ends: Any = contextlib.nullcontext() if has_run else pytest.raises(Interrupted)
    with ends, finishing_what_began(lab):
        signal.raise_signal(number)

    assert signal.getsignal(number) is before


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
        (errors.TakenOverError("x"), True, Exit.TAKEN_OVER),
        (errors.StaleTokenError("x"), True, Exit.FAILED),
    ],
)
def test_exit_code_tells_who_must_act(
    error: errors.PPUError, has_started: bool, code: Exit
) -> None:
    """Before anything moved the class of the error decides, afterwards it failed."""
    assert code_of(error, has_started=has_started) is code
