"""The simulated instruments, talked to by software that is not ours.

``ppu sim`` runs in a process of its own; minimalmodbus and pyserial speak to it as
they would to an instrument.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import minimalmodbus  # type: ignore[import-untyped]  # it ships no types
import pytest
import serial

DEADLINE_WALL_S = 600.0


@pytest.fixture(scope="module")
def endpoints(serve: Callable[..., dict[str, Any]], small_lab: Path) -> dict[str, Any]:
    """Where the instruments of ``ppu sim`` at wall pace listen."""
    return serve(str(small_lab))


@pytest.fixture
def furnace(endpoints: dict[str, Any]) -> Iterator[Any]:
    """A minimalmodbus instrument on the furnace's port."""
    instrument: Any = minimalmodbus.Instrument(endpoints["furnace_1"]["endpoint"], 1)
    instrument.serial.baudrate = 9600
    instrument.serial.timeout = 1.0
    yield instrument
    instrument.serial.close()


@pytest.fixture
def balance(endpoints: dict[str, Any]) -> Iterator[serial.Serial]:
    """A plain serial port to the balance."""
    with serial.Serial(endpoints["balance"]["endpoint"], 9600, timeout=5.0) as port:
        yield port


def test_minimalmodbus_reads_the_furnace(furnace: Any) -> None:
    """Temperature, limits and identity, with another library's frames and checks."""
    assert 15.0 < furnace.read_register(1, 1, signed=True) < 35.0
    assert furnace.read_register(111, 1) == 1100.0
    status, inverse = furnace.read_registers(75, 2)
    assert status ^ inverse == 0xFFFF


def test_minimalmodbus_runs_a_program_on_the_furnace(furnace: Any) -> None:
    """A program written and started by another library heats."""
    furnace.write_registers(1280, [1, 1000, 100])
    assert furnace.read_registers(1280, 3) == [1, 1000, 100]
    furnace.write_register(23, 1, functioncode=16)
    assert furnace.read_register(23) == 1
    furnace.write_register(23, 0, functioncode=6)
    assert furnace.read_register(23) == 0


@pytest.mark.parametrize(
    ("register", "value", "error"),
    [
        (999, 1, minimalmodbus.IllegalRequestError),
        (24, 20000, minimalmodbus.IllegalRequestError),
    ],
)
def test_minimalmodbus_understands_the_refusals_of_the_furnace(
    furnace: Any, register: int, value: int, error: type[Exception]
) -> None:
    """Exception answers are those of the specification."""
    furnace.serial.timeout = 0.3  # it waits for a whole reply, refusals are shorter
    with pytest.raises(error):
        furnace.write_register(register, value, functioncode=6)


def test_furnace_is_silent_when_the_baud_rate_is_wrong(furnace: Any) -> None:
    """A client at another rate gets nothing."""
    furnace.serial.baudrate = 19200
    furnace.serial.timeout = 0.2
    with pytest.raises(minimalmodbus.NoResponseError):
        furnace.read_register(1)


def test_plain_serial_port_weighs(balance: serial.Serial) -> None:
    """Lines of MT-SICS, typed as at a terminal."""
    balance.write(b"S\r\n")
    line = balance.read_until(b"\r\n")

    assert line.startswith(b"S S ")
    assert line.endswith(b" g\r\n")
    assert len(line) == len("S S     100.00 g\r\n")
    assert abs(float(line[4:14])) < 0.001


def test_plain_serial_port_is_told_of_a_wrong_command(balance: serial.Serial) -> None:
    """A typing mistake is a syntax error."""
    balance.write(b"WEIGH\r\n")

    assert balance.read_until(b"\r\n") == b"ES\r\n"
