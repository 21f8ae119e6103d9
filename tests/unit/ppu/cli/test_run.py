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
        ("{", [], "parameters.yaml line 1: not YAML"),
        ('{"a": 1, "a": 2}', [], "line 1: 'a' stands here twice"),
        ("a: !!int x", [], "line 1: 'x': invalid literal"),
        ("[" * 5000, [], "parameters.yaml: too deeply nested"),
        ("a: 1", ["a"], "should look like key=value"),
        ("a: 1", ["=1"], "should look like key=value"),
        ("a: 1", ["a=["], "--set a line 1: not YAML"),
        ("a: 1", ["a=2024-13-45"], "--set a line 1: '2024-13-45': month must be"),
        ("a: 1", ["a=!!int abc"], "--set a line 1: 'abc': invalid literal"),
        ("a: 1", ["a=!!timestamp abc"], "--set a line 1: 'abc'"),
        ("a: 1", ["a=" + "[" * 5000], "--set a: too deeply nested"),
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
