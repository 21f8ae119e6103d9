"""Lines for people: they never stop what they tell of."""

import io
import os
from typing import Any

import pytest

from ppu.core.notices import tell


class Full(io.StringIO):
    """A stream to a full disk."""

    def write(self, text: str) -> int:
        """Fail."""
        raise OSError(28, os.strerror(28))


def closed() -> io.StringIO:
    """Return a stream that was closed."""
    stream = io.StringIO()
    stream.close()
    return stream


def test_notice_is_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """People read whole lines."""
    tell("the furnace is hot")

    assert capsys.readouterr().err == "the furnace is hot\n"


@pytest.mark.parametrize("stream", [None, closed(), Full()])
def test_notice_is_dropped_when_nobody_can_read_it(
    monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    """A lost terminal does not end a firing."""
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        tell("the furnace is hot")


class Busy(io.StringIO):
    """A stream that this thread is writing to already."""

    def write(self, text: str) -> int:
        """Fail as a buffered writer does."""
        raise RuntimeError("reentrant call")


def test_notice_comes_through_when_a_signal_interrupts_another(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A handler that speaks while its thread is amid a line is heard all the same."""
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Busy())
        tell("stopping")

    assert capfd.readouterr().err == "stopping\n"
