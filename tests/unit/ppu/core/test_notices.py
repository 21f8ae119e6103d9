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
