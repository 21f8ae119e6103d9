"""What the faults of a wire do to its bytes, the same on every front.

Most mean the same everywhere. Where a wire cannot do something, it does this instead:

==================== ===================== ==================== ======================
fault                serial line           TCP                  HTTP
==================== ===================== ==================== ======================
delay                nothing overtakes it  the same             the same
                     on its connection
duplicate            both copies in one piece, as nothing could tell a later one from
                     the answer to the next request
reorder              after the next answer of the same connection; on HTTP after that
                     of another, because one connection has one request at a time
truncate             the rest never comes  the same             and it is closed
corrupt              one to three bits anywhere. A checksum shows so few for certain;
                     text and Modbus TCP may say another value
corrupt visibly      bytes under a checksum, in the head of a Modbus TCP frame, else the
                     top bit of a byte of text
garbage              as long as the answer the same             and it is closed
flood                as fast as its bits   10 kB/s              10 kB/s, then closed
half-open            silence               a connection it hit stays dead for good
reset                hang-up: a new port   RST                  RST
                     is there at once
stuck busy           what the instrument says; Modbus exception 6; HTTP status 503; else
                     silence. The instrument does not do what it was asked
wrong unit           Modbus RTU, with a    Modbus TCP only      impossible
                     new checksum
wrong transaction id impossible            Modbus TCP only      impossible
refuse               the path is gone, a   nobody listens       nobody listens
                     port in use goes on
unplug               the path is gone and  nobody listens and   the same
                     the port hangs up     connections break
==================== ===================== ==================== ======================

A flood ends after 64 KiB, or after 1 s if no ``for_s`` was said. What an instrument
was asked it does even if its answer is lost; only a request that was not heard
(half-open, stuck busy, unplug) changes nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from ppu.core.labtime import LabTimeLoop
from ppu_simulators.faults import Faults, Strike
from ppu_simulators.fronts.conversation import Answer, Conversation
from ppu_simulators.fronts.modbus import crc16

__all__ = [
    "DELAY_S",
    "FLOOD_BYTES_PER_S",
    "HEARING",
    "SAYING",
    "Flood",
    "Framing",
    "PortWatch",
    "SpoiledLine",
    "Utterance",
    "damaged",
    "framing_of",
    "rule_out",
]

Framing = Literal["text", "modbus rtu", "modbus tcp"]

DELAY_S: Final = 3.0
"""How much later a delayed answer comes if the script does not say."""

_DEVICE_BUSY: Final = 6
_MBAP_BYTES: Final = 7
_GAP_S: Final = 1e-4
"""Time between answers that waited for a late one: so they come in their order."""

HEARING: Final = ("half-open", "stuck busy")
"""Faults that let a request come to nothing."""

SAYING: Final = (
    "drop",
    "delay",
    "duplicate",
    "reorder",
    "truncate",
    "corrupt",
    "corrupt visibly",
    "garbage",
    "flood",
    "half-open",
    "reset",
    "wrong unit",
    "wrong transaction id",
)
"""Faults that hit an answer."""

_FLOOD_S: Final = 1.0
_FLOOD_BYTES: Final = 65536
_FLOOD_TICK_S: Final = 0.1

FLOOD_BYTES_PER_S: Final = 10_000.0
"""How fast rubbish comes where no line sets a speed."""


def framing_of(conversation: Conversation) -> Framing:
    """Return the framing that *conversation* names, else text."""
    framing: Framing = getattr(conversation, "framing", "text")
    return framing


def rule_out(faults: Faults, wire: str, framing: Framing) -> None:
    """Tell *faults* what cannot happen on a wire.

    Raises:
        TwinSettingsError: If that was scripted.
    """
    impossible = {}
    if framing == "text":
        impossible["wrong unit"] = "it carries no Modbus unit"
    if framing != "modbus tcp":
        impossible["wrong transaction id"] = "only Modbus TCP numbers its requests"
    faults.serve(wire if framing == "text" else f"{wire} ({framing})", impossible)


def damaged(
    data: bytes, fault: str, framing: Framing, rng: np.random.Generator
) -> bytes:
    """Return the answer *data* as it arrives when *fault* hits it.

    Args:
        data: The whole answer; not empty.
        fault: One that damages bytes.
        framing: How the wire language would notice.
        rng: What is drawn from.
    """
    if fault == "duplicate":
        return data + data
    if fault == "truncate":
        return data[: len(data) // 2]
    if fault == "garbage":
        return rng.bytes(len(data))
    if fault == "corrupt":
        return _flipped(data, rng)
    if fault == "corrupt visibly":
        return _corrupted(data, framing, rng)
    if fault == "wrong unit":
        return _readdressed(data, framing, rng)
    other = int.from_bytes(data[:2], "big") ^ int(rng.integers(1, 0x10000))
    return other.to_bytes(2, "big") + data[2:]


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one to three bits anywhere."""
    spoiled = bytearray(data)
    n_bits = min(int(rng.integers(1, 4)), 8 * len(data))
    for place in rng.choice(8 * len(data), n_bits, replace=False):
        spoiled[int(place) // 8] ^= 1 << int(place) % 8
    return bytes(spoiled)


def _corrupted(data: bytes, framing: Framing, rng: np.random.Generator) -> bytes:
    """Flip bits in up to three bytes, where it can be noticed."""
    spoiled = bytearray(data)
    end = _MBAP_BYTES if framing == "modbus tcp" else len(data)
    # Never two neighbours: together they could be one character of UTF-8.
    places = rng.permutation(np.arange(int(rng.integers(2)), end, 2))
    if len(places) == 0:
        places = np.array([0])
    for place in places[: int(rng.integers(1, 4))]:
        mask = 0x80 if framing == "text" else int(rng.integers(1, 256))
        spoiled[int(place)] ^= mask
    return bytes(spoiled)


def _readdressed(data: bytes, framing: Framing, rng: np.random.Generator) -> bytes:
    """Answer as another unit, rightly signed."""
    mask = int(rng.integers(1, 128))
    if framing == "modbus tcp":
        return data[:6] + bytes([data[6] ^ mask]) + data[7:]
    body = bytes([data[0] ^ mask]) + data[1:-2]
    return body + crc16(body).to_bytes(2, "little")


class _CanBeBusy(Protocol):
    """A conversation that has words for being busy."""

    def busy(self, request: bytes) -> bytes | None:
        """Return what it answers instead of doing *request*; None is silence."""


def _busy_answer(
    conversation: Conversation, framing: Framing, request: bytes
) -> bytes | None:
    """Return how *conversation* says that it is busy, None if it cannot."""
    busy: Callable[[bytes], bytes | None] | None = getattr(conversation, "busy", None)
    if busy is not None:
        return busy(request)
    if framing == "modbus rtu" and len(request) >= 4 and request[0] != 0:
        body = bytes([request[0], request[1] | 0x80, _DEVICE_BUSY])
        return body + crc16(body).to_bytes(2, "little")
    if framing == "modbus tcp" and len(request) > _MBAP_BYTES:
        unit_and_function = bytes([request[6], request[7] | 0x80, _DEVICE_BUSY])
        return request[:4] + b"\0\3" + unit_and_function
    return None


@dataclass(frozen=True)
class Utterance:
    """What really goes out instead of one answer.

    Args:
        data: The bytes, perhaps none.
        delay_s: How much later [s].
        is_broken: Whether the connection breaks instead.
        flood: The rubbish that comes instead.
    """

    data: bytes = b""
    delay_s: float = 0.0
    is_broken: bool = False
    flood: Flood | None = None


class SpoiledLine:
    """One connection of an instrument with faults.

    Args:
        faults: The instrument's.
        framing: How its wire language frames what is said.
        heals: Whether it hears again after it was half-open: a serial line does, a
            connection must be made anew.
    """

    def __init__(self, faults: Faults, framing: Framing, *, heals: bool) -> None:
        self._faults = faults
        self._framing = framing
        self._heals = heals
        self._held = b""
        self._is_dead = False
        self._late_until = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing can be wrong with what is said now."""
        is_in_step = not (self._held or self._is_dead or self._late_until)
        return is_in_step and not self._faults.has_strikes

    def hear(
        self, conversation: Conversation, data: bytes, time: float
    ) -> Iterable[Answer]:
        """Let *conversation* take *data* if it gets there; return what it answers."""
        if self.is_clean:
            return conversation.receive(data, time)
        if self._is_dead:
            return ()
        strike = self._faults.strike(time, HEARING)
        if strike is None:
            return conversation.receive(data, time)
        if strike.fault == "half-open":
            self._is_dead = not self._heals
            return ()
        answer = _busy_answer(conversation, self._framing, data)
        return () if answer is None else (Answer(answer),)

    def say(self, data: bytes, time: float) -> Utterance:
        """Return what goes out when the instrument says *data*."""
        if self._is_dead or not data:
            return Utterance()
        strike = self._faults.strike(time, SAYING)
        if strike is not None:
            return self._spoil(data, strike, time)
        # What was held back comes now.
        held, self._held = self._held, b""
        return Utterance(data + held, delay_s=self._wait(time))

    def _wait(self, time: float) -> float:
        """Return how long to wait so that nothing overtakes what is late [s]."""
        if self._late_until <= time:
            self._late_until = 0.0
            return 0.0
        self._late_until += _GAP_S
        return self._late_until - time

    def _spoil(self, data: bytes, strike: Strike, time: float) -> Utterance:
        fault = strike.fault
        if fault == "delay":
            late_by = strike.options.get("by_s", DELAY_S)
            self._late_until = max(self._late_until + _GAP_S, time + late_by)
            return Utterance(data, delay_s=self._late_until - time)
        if fault == "reorder":
            self._held += data
            return Utterance()
        if fault == "reset":
            return Utterance(is_broken=True)
        if fault == "flood":
            return Utterance(flood=Flood(strike, time))
        if fault == "half-open":
            self._is_dead = not self._heals
            return Utterance()
        if fault == "drop":
            return Utterance()
        spoiled = damaged(data, fault, self._framing, strike.rng)
        return Utterance(spoiled, delay_s=self._wait(time))


class Flood:
    """Rubbish without pause, but not without end.

    Args:
        strike: The fault that it is.
        time: When it begins [s].
    """

    def __init__(self, strike: Strike, time: float) -> None:
        self._strike = strike
        self._latest_s = time + _FLOOD_S if math.isinf(strike.ends_s) else math.inf
        self._n_left = _FLOOD_BYTES

    def next(self, time: float, bytes_per_s: float) -> tuple[bytes, float] | None:
        """Return the next piece and how long it takes [s], None at the end."""
        if time >= min(self._strike.ends_s, self._latest_s) or self._n_left <= 0:
            return None
        n_bytes = min(max(int(bytes_per_s * _FLOOD_TICK_S), 1), self._n_left)
        self._n_left -= n_bytes
        return self._strike.rng.bytes(n_bytes), n_bytes / bytes_per_s


class PortWatch:
    """Tells a front when its port must open or close.

    Args:
        faults: The instrument's.
        apply: Takes whether the port is plugged in and whether it can be opened;
            called at the start and whenever that may have changed.
    """

    def __init__(self, faults: Faults, apply: Callable[[bool, bool], None]) -> None:
        self._faults = faults
        self._apply = apply
        self._loop: LabTimeLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: LabTimeLoop) -> None:
        """Look at the faults now and whenever they change."""
        self._loop = loop
        self._faults.on_change = self._look
        self._look()

    def stop(self) -> None:
        """Look no more."""
        self._faults.on_change = None
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, due: float = 0.0) -> None:
        loop = self._loop
        if loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        time = max(loop.time(), due)  # a timer may fire a microsecond early
        is_plugged_in = not self._faults.is_active("unplug", time)
        can_open = is_plugged_in and not self._faults.is_active("refuse", time)
        edge = self._faults.next_port_edge(time)
        if not math.isinf(edge):
            self._timer = loop.call_at(edge, self._look, edge)
        self._apply(is_plugged_in, can_open)
