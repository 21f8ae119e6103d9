"""Stop signals: who reacts to them, and what is there again afterwards."""

import signal
import threading
from collections.abc import Iterator

import pytest

from ppu.core.stopping import (
    STOP_SIGNALS,
    Interrupted,
    ignore_stop_signals,
    on_stop_signal,
    raise_on_stop_signal,
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Bring back the handlers of the test runner."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_first_signal_interrupts_and_the_second_leaves_unwinding_alone(
    number: signal.Signals,
) -> None:
    """What unwinds is not torn apart by somebody who presses Ctrl-C twice."""
    raise_on_stop_signal()
    with pytest.raises(Interrupted, match=number.name):
        signal.raise_signal(number)
    signal.raise_signal(number)


def test_signals_are_ignored_at_the_very_end() -> None:
    """A process that ends anyway leaves no traceback."""
    ignore_stop_signals()
    signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_signal_stays_ignored_when_it_was() -> None:
    """``nohup`` means that a lost terminal stops nothing."""
    seen: list[signal.Signals] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with on_stop_signal(seen.append):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)

    assert seen == [signal.SIGTERM]


def test_nothing_changes_in_another_thread() -> None:
    """Only the main thread can take signals; plans run in others, too."""
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with on_stop_signal(lambda _: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]
