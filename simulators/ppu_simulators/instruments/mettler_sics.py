"""A simulated balance that speaks MT-SICS, from the reference manual 11780711."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.serial import SerialFront, SerialLine
from ppu_simulators.physics.weighing import (
    BalanceModel,
    BalanceParameters,
    LoadHistory,
    Reading,
)
from ppu_simulators.world import World, settings_of

__all__ = ["SimulatedMettlerSics"]

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "capacity_g": 220.0,
    "resolution_g": 1e-4,
    "repeatability_g": 3e-5,
    "stability_timeout_s": 30.0,
    "baudrate": 9600,
    "parity": "none",
    "model": "XPR205 Excellence",
    "unit": "g",
    "decimal_comma": False,
    "plus_sign": False,
    "ends_with": "crlf",
    "knows_serial_number": True,
    "waits_for_stability": True,
    "faults": [],
}
_THINKING_S: Final = 0.01
_FROZEN: Final = "sensor frozen"
_LONGEST_COMMAND: Final = 200
_UNITS: Final[Mapping[str, tuple[float, int]]] = {
    "g": (1.0, 0),
    "mg": (1000.0, -3),
    "kg": (0.001, 3),
}
"""How many of it a gram is, and how many digits more it needs."""
_ENDS: Final[Mapping[str, bytes]] = {"crlf": b"\r\n", "cr": b"\r"}


class SimulatedMettlerSics:
    """Pan, weighing cell and MT-SICS interface of one balance.

    Args:
        name: Name of the device.
        entry: Its lab-file entry; its first slot is the pan.
        world: The world its pan stands in.
        serial_number: What it answers to I4.
    """

    wire = "mt-sics"
    known_faults: ClassVar[Mapping[str, str]] = {
        _FROZEN: "the weighing cell repeats its last value to the last digit, "
        "stable, whatever stands on the pan",
    }

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._pan = entry.slots[0]
        self._world = world
        self._serial_number = serial_number
        self._model_name = str(twin["model"])
        self._timeout_s = float(twin["stability_timeout_s"])
        self._parameters = BalanceParameters(
            capacity_g=float(twin["capacity_g"]),
            resolution_g=float(twin["resolution_g"]),
            repeatability_g=float(twin["repeatability_g"]),
        )
        self._unit = str(twin["unit"])
        self._has_comma = bool(twin["decimal_comma"])
        self._has_plus = bool(twin["plus_sign"])
        self._knows_serial_number = bool(twin["knows_serial_number"])
        self._waits = bool(twin["waits_for_stability"])
        self._end = _ENDS[str(twin["ends_with"])]
        self._decimals = max(0, -round(math.log10(self._parameters.resolution_g)))
        self._model = BalanceModel(self._parameters, world.rng(name, "cell"))
        self._history = LoadHistory()
        self._frozen: tuple[float, Reading | None] = (0.0, None)
        self._zero_g = 0.0
        self._tare_g = 0.0
        self._buffer = b""
        self._generation = 0
        line = SerialLine(int(twin["baudrate"]), twin["parity"])
        client_parity = (entry.hardware or {}).get("parity", "none")
        self._front = SerialFront(self, line, client_parity, faults=self.faults)
        self._connection = {
            "transport": "serial",
            "baudrate": line.baudrate,
            "parity": line.parity,
        }

    async def start(self) -> Mapping[str, Any]:
        """Open the serial port; return the connection that leads here."""
        return {**self._connection, "port": self._front.start()}

    async def stop(self) -> None:
        """Close the serial port."""
        self._front.stop()

    # -- weighing ------------------------------------------------------------------

    def _look(self, time: float) -> None:
        """Let the cell feel what stands on the pan."""
        self._world.advance(time)
        container = self._world.at(self._pan)
        if container is None:
            self._history.set_load(time, 0.0)
        else:
            # It rings from the moment it was put down, not from when we look.
            since = max(container.put_at_s, self._last_step_s)
            self._history.set_load(min(since, time), container.mass_g)
        self._last_step_s = self._history.steps[-1][0] if self._history.steps else 0.0

    _last_step_s = 0.0

    def _reading(self, time: float) -> Reading:
        self._look(time)
        if not self.faults.is_active(_FROZEN, time):
            return self._model.reading(self._history, time)
        return self._last_before_freezing()

    def _last_before_freezing(self) -> Reading:
        """Return what the cell measured last, whoever looks and whenever."""
        begins = (at for at, fault in reversed(self.faults.log) if fault == _FROZEN)
        since, frozen = self._frozen
        begin = next(begins, since)
        if frozen is None or begin != since:
            frozen = replace(self._model.reading(self._history, begin), is_stable=True)
            self._frozen = begin, frozen
        return frozen

    def _weight(self, command: str, reading: Reading) -> str:
        """Return a weight line: value right-justified in ten characters."""
        if reading.status == "overload":
            return f"{command} +"
        if reading.status == "underload":
            return f"{command} -"
        net = reading.value_g - self._zero_g - self._tare_g
        return f"{command} {_state_of(reading)} {self._number(net)}"

    def _number(self, mass_g: float) -> str:
        """Return a mass as it is sent: right-justified in ten characters, unit."""
        scale, more = _UNITS[self._unit]
        decimals = max(self._decimals + more, 0)
        sign = "+" if self._has_plus else ""
        text = f"{mass_g * scale:{sign}.{decimals}f}".rjust(10)
        if self._has_comma:
            text = text.replace(".", ",")
        return f"{text} {self._unit}"

    def print_key(self, time: float) -> None:
        """Send the weight as if somebody pressed Print, whatever is under way."""
        line = self._weight("S", self._reading(time))
        self._front.say(line.encode("ascii") + self._end)

    # -- the interface -------------------------------------------------------------

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the lines they complete."""
        self._buffer += data
        answers: list[Answer] = []
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            answers += [
                replace(answer, data=self._ended(answer.data))
                for answer in self._execute(line.rstrip(b"\r").decode("latin-1"), time)
            ]
        if len(self._buffer) > _LONGEST_COMMAND:
            self._buffer = b""
            answers.append(_text("ES"))
        return answers

    def _ended(
        self, data: bytes | Callable[[float], bytes]
    ) -> bytes | Callable[[float], bytes]:
        """Return *data* with the line end that this balance has."""
        if isinstance(data, bytes):
            return data.replace(b"\r\n", self._end)
        return lambda time: data(time).replace(b"\r\n", self._end)

    def busy(self, request: bytes) -> bytes:
        """Return the answer of a balance that cannot do *request* now."""
        words = request.split()
        return (words[0] if words else b"ES") + b" I\r\n"

    def _execute(self, command: str, time: float) -> list[Answer]:
        if command == "":
            return []
        texts = {
            "I2": f'I2 A "{self._model_name} {self._parameters.capacity_g:.4f} g"',
            "I3": 'I3 A "2.10 10.28.0.493.142"',
            "I4": f'I4 A "{self._serial_number}"',
            "I10": f'I10 A "{self.name[:20]}"',
            "I11": f'I11 A "{self._model_name}"',
            "TA": f"TA A {self._number(self._tare_g)}",
            "M21 0 0": "M21 A",
            "DW": "DW A",
        }
        if not self._knows_serial_number:
            del texts["I4"]
        if command in texts:
            return [_text(texts[command])]
        if command == "@":
            self._generation += 1  # cancels what is waiting
            self._tare_g = self._zero_g = 0.0
            return [_text(f'I4 A "{self._serial_number}"')]
        if command == "I0":
            known = ("@", "I0", "I2", "I3", "I4", "S", "SI", "Z", "ZI", "T", "TI")
            lines = [f'I0 B 0 "{name}"' for name in known[:-1]]
            return [_text("\r\n".join([*lines, f'I0 A 0 "{known[-1]}"']))]
        if command == "SI":
            return [_text(self._weight("S", self._reading(time)))]
        if command == "S" and not self._waits:
            return [_text(self._weight("S", self._reading(time)))]
        if command in ("S", "T", "Z"):
            return [self._when_stable(command, time)]
        if command in ("TI", "ZI"):
            return [_text(self._adjust(command, self._reading(time)))]
        if command == "TAC":
            self._tare_g = 0.0
            return [_text("TAC A")]
        return [_text(self._set(command))]

    def _set(self, command: str) -> str:
        """Take what a command states; return the answer."""
        preset = re.fullmatch(r"TA +(\d+(?:[.,]\d+)?) (g|mg|kg)", command)
        if preset is not None:
            scale, _ = _UNITS[preset[2]]
            self._tare_g = float(preset[1].replace(",", ".")) / scale
            return f"TA A {self._number(self._tare_g)}"
        if re.fullmatch(r'D "[^"]*"', command):
            return "D A"
        if re.fullmatch(r"(SC|TA|D|M21) .+", command):
            return f"{command.split(maxsplit=1)[0]} L"
        return "ES"

    def _when_stable(self, command: str, time: float) -> Answer:
        """Answer when the weight is stable, or ``I`` when it does not become so."""
        self._look(time)
        generation = self._generation
        moment: float | None = time
        if not self.faults.is_active(_FROZEN, time):
            moment = self._model.next_stable_time(self._history, time, self._timeout_s)

        def answer(now: float) -> bytes:
            if generation != self._generation:
                return b""
            reading = self._reading(now)
            if moment is None or not reading.is_stable:
                return f"{command} I\r\n".encode()
            if command == "S":
                return (self._weight("S", reading) + "\r\n").encode()
            return (self._adjust(command, reading) + "\r\n").encode()

        wait = self._timeout_s if moment is None else moment - time
        return Answer(answer, wait + _THINKING_S)

    def _adjust(self, command: str, reading: Reading) -> str:
        """Tare or zero with *reading*."""
        if reading.status != "ok":
            return f"{command} {'+' if reading.status == 'overload' else '-'}"
        state = _state_of(reading)
        if command in ("T", "TI"):
            self._tare_g = reading.value_g - self._zero_g
            return f"{command} {state} {self._number(self._tare_g)}"
        self._zero_g = reading.value_g
        self._tare_g = 0.0
        return f"{command} {'A' if command == 'Z' else state}"


def _state_of(reading: Reading) -> str:
    return "S" if reading.is_stable else "D"


def _text(line: str) -> Answer:
    return Answer((line + "\r\n").encode("latin-1"), _THINKING_S)
