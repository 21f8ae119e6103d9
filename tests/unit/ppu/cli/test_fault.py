"""``ppu fault``: what it asks of a bench, and what it says about the answer."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from ppu.cli import fault, truth
from ppu.core.errors import ConfigurationError, ConnectError

Invoke = Callable[..., Result]


class Bench:
    """A control socket that answers one line, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: bytes = b'{"ok": true, "lab_time_s": 5.0}\n'
        self.asked: Any = None
        self._port = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._port.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._port.accept()
        with client, client.makefile("rb") as lines:
            line = lines.readline()
            if line:
                self.asked = json.loads(line)
                client.sendall(self.answer)

    def close(self) -> None:
        """End it, whether or not somebody came."""
        if self._thread.is_alive():
            socket.create_connection(self._port.getsockname(), 1.0).close()
        self._thread.join()
        self._port.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A control socket for one question."""
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def invoke() -> Invoke:
    """Runs ``ppu fault`` with words."""
    app = typer.Typer()
    fault.attach(app)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words))


def test_fault_sends_its_script(bench: Bench, invoke: Invoke) -> None:
    """Options become the keys of a script, and nothing that was not given is sent."""
    done = invoke(
        *("balance", "delay", "--for-s", "60", "--option", "by_s=3"),
        *("--with-probability", "0.5", "--control", bench.address),
    )

    assert done.exit_code == 0
    assert done.stdout == "5 s: delay at balance\n"
    assert bench.asked == {
        "device": "balance",
        "fault": "delay",
        "for_s": 60.0,
        "by_s": 3.0,
        "with_probability": 0.5,
    }


def test_fault_clears(bench: Bench, invoke: Invoke) -> None:
    """--clear ends every fault of the device."""
    done = invoke("balance", "--clear", "--control", bench.address)

    assert done.stdout == "5 s: no faults at balance any more\n"
    assert bench.asked == {"device": "balance", "clear": True}


def test_fault_lists_when_none_is_named(bench: Bench, invoke: Invoke) -> None:
    """What can go wrong, and what did."""
    bench.answer = (
        json.dumps(
            {
                "ok": True,
                "known": {"drop": "the answer is lost"},
                "hits": [{"lab_time_s": 7.0, "fault": "drop"}],
            }
        ).encode()
        + b"\n"
    )
    done = invoke("balance", "--control", bench.address)

    assert "drop                   the answer is lost" in done.stdout
    assert "hits so far: 1" in done.stdout
    assert bench.asked == {"faults": "balance"}


def test_fault_repeats_what_the_bench_refuses(bench: Bench, invoke: Invoke) -> None:
    """The bench knows best what is allowed."""
    bench.answer = b'{"ok": false, "error": "did you mean drop?"}\n'
    done = invoke("balance", "dorp", "--control", bench.address)

    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) == "did you mean drop?"


@pytest.mark.parametrize("answer", [b"220 mail ready\r\n", b"[1]\n", b"\n"])
def test_fault_tells_a_stranger_from_a_bench(
    bench: Bench, invoke: Invoke, answer: bytes
) -> None:
    """Another service at that port is named as what it is not."""
    bench.answer = answer
    done = invoke("balance", "drop", "--control", bench.address)

    assert isinstance(done.exception, ConnectError | ConfigurationError)
    assert "is no control socket" in str(done.exception)


def test_fault_says_when_nobody_is_there(invoke: Invoke) -> None:
    """A bench that has ended is the usual reason."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        address = f"127.0.0.1:{port.getsockname()[1]}"
    done = invoke("balance", "drop", "--control", address)

    assert isinstance(done.exception, ConnectError)
    assert "does that `ppu sim` still run?" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("drop",), "--control is missing"),
        (("drop", "--control", "nowhere"), "give the HOST:PORT"),
        (("drop", "--control", "1", "--option", "by_s"), "should look like by_s=3"),
        (("drop", "--control", "1", "--clear"), "give nothing else"),
        (("--control", "1", "--for-s", "3"), "say which fault"),
    ],
)
def test_fault_refuses_wrong_words(
    invoke: Invoke, words: tuple[str, ...], text: str
) -> None:
    """Before anything is sent."""
    done = invoke("balance", *words)

    assert isinstance(done.exception, ConfigurationError)
    assert text in str(done.exception)


def test_truth_tells_where_containers_are(bench: Bench) -> None:
    """What a camera would show, for whoever plays the person at a bench."""
    bench.answer = (
        b'{"ok": true, "lab_time_s": 5.0, "acts": {}, "containers": '
        b'{"cup_2": null, "cup_1": "rack.1"}}\n'
    )
    app = typer.Typer()
    truth.attach(app)

    done = CliRunner().invoke(app, ["--control", bench.address])

    assert done.exit_code == 0
    assert bench.asked == {"truth": True}
    assert done.stdout.splitlines() == [
        "cup_1            rack.1",
        "cup_2            in a hand",
    ]


def run_truth(*words: str) -> Result:
    """Run ``ppu truth``."""
    app = typer.Typer()
    truth.attach(app)
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--carry", "cup_1", "--to", "rack.1"], {"carry": "cup_1", "to": "rack.1"}),
        (["--empty", "cup_1"], {"empty": "cup_1"}),
        (["--refill", "BaO=5"], {"refill": "BaO", "mass_g": 5.0}),
    ],
)
def test_truth_lends_a_hand(
    bench: Bench, words: list[str], asked: dict[str, Any]
) -> None:
    """What was done is told, with its lab time."""
    bench.answer = b'{"ok": true, "lab_time_s": 5.0, "done": "it was done"}\n'
    done = run_truth("--control", bench.address, *words)

    assert (done.exit_code, done.stdout) == (0, "5 s: it was done\n")
    assert bench.asked == asked


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--carry", "cup_1"], "--carry CONTAINER --to LOCATION"),
        (["--to", "rack.1"], "--carry CONTAINER --to LOCATION"),
        (["--empty", "cup_1", "--refill", "BaO"], "should look like BaCO3=50"),
    ],
)
def test_truth_refuses_wrong_words(words: list[str], text: str) -> None:
    """Before anything is sent."""
    done = run_truth("--control", "127.0.0.1:1", *words)

    assert isinstance(done.exception, ConfigurationError)
    assert text in str(done.exception)
