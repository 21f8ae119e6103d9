"""Faults of simulated instruments: what may go wrong, when, and what did.

A *script* says when a fault is there. It stands in the lab file under ``twin``, or is
told to a running bench, and counts in lab time::

    twin:
      faults:
        - {fault: thermocouple open, at_s: 7200, for_s: 600}
        - {fault: delay, every_s: 600, with_probability: 0.5, by_s: 3}

``at_s`` or ``every_s`` says when a window opens (first after one period; without both
at once), ``for_s`` how long it stays open (``1e9``: for good).

- *Faults of exchanges* hit what is sent while a window is open: with ``count`` the
  first so many exchanges in it, without ``for_s`` and ``count`` the first one. Each is
  hit with probability ``with_probability``.
- *Faults of the port* (refuse, unplug) and *of the instrument* are there as long as a
  window is open, without ``for_s`` for good; the probability is that of a window.

The same seed and the same requests give the same faults. A fault of an instrument
depends on time alone: who looks more often does not change it.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ppu.core.errors import nearest
from ppu.core.simulation import TwinSettingsError

__all__ = ["WIRE_FAULTS", "Faults", "Strike"]

PORT_FAULTS: Final = ("refuse", "unplug")
"""Faults of the wire that are states of the port, not of an exchange."""

WIRE_FAULTS: Final[Mapping[str, str]] = {
    "drop": "the answer is lost",
    "delay": "the answer comes by_s later (3 s if not said)",
    "duplicate": "the answer comes twice",
    "reorder": "the answer is held back and comes after the next one",
    "truncate": "only the first part of the answer comes",
    "corrupt": "one to three bits of the answer are flipped",
    "corrupt visibly": "bits of the answer are flipped where its language can tell",
    "garbage": "random bytes come instead of the answer",
    "flood": "rubbish comes without pause instead of the answer, for_s long",
    "half-open": "the connection stays, but nothing is heard or said any more",
    "reset": "the connection breaks instead of the answer",
    "stuck busy": "it answers that it is busy, if its wire language can say so",
    "wrong unit": "the answer carries the address of another unit",
    "wrong transaction id": "the answer carries the number of another request",
    "refuse": "nobody can connect; connections that are there go on",
    "unplug": "every connection breaks and nobody can connect until it is replugged",
}
"""What can happen on a wire, each with its sentence."""

_SCRIPT_KEYS: Final = (
    "fault",
    "at_s",
    "every_s",
    "for_s",
    "count",
    "with_probability",
)
_OPTION: Final = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
_LONGEST_LOG: Final = 10_000
_SHORTEST_S: Final = 1e-3
_LARGEST: Final = 1e9
"""Of any number in a script: 30 years are enough, and sums stay exact to 0.1 us."""


@dataclass
class _Script:
    """When one fault is there; all times are lab times."""

    fault: str
    place: int
    starts_s: float
    period_s: float | None
    length_s: float | None
    count: int | None
    probability: float
    options: Mapping[str, float]
    seed: int
    cleared_s: float = math.inf
    rng: np.random.Generator = field(init=False)
    _drawn: tuple[int, bool] = (-1, False)
    _window: int = -1
    _n_seen: int = 0
    _n_logged: int = -1

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def begin(self, window: int) -> float:
        """Return when a window opens; one that repeats begins with window 1."""
        return self.starts_s + window * (self.period_s or 0.0)

    def end(self, window: int) -> float:
        """Return when a window closes."""
        if self.length_s is not None:
            end = self.begin(window) + self.length_s
        else:
            end = math.inf if self.period_s is None else self.begin(window + 1)
        return min(end, self.cleared_s)

    def window(self, time: float) -> int | None:
        """Return the number of the window that is open at *time*, if one is."""
        number = 0
        if self.period_s is not None:
            number = max(int((time - self.starts_s) // self.period_s), 1)
            if self.begin(number + 1) <= time:  # the division was rounded
                number += 1
        return number if self.begin(number) <= time < self.end(number) else None

    def next_edge(self, time: float) -> float:
        """Return when a window opens or closes next, infinite if none does."""
        if self.period_s is None:
            edges = [self.begin(0), self.end(0)]
        else:
            number = max(int((time - self.starts_s) // self.period_s), 1)
            edges = [
                edge
                for n in (number, number + 1)
                for edge in (self.begin(n), self.end(n))
            ]
        return min(
            (edge for edge in edges if time < edge <= self.cleared_s), default=math.inf
        )

    def is_there(self, time: float) -> bool:
        """Return whether the fault, as a state, is there at *time*."""
        window = self.window(time)
        if window is None:
            return False
        if self._drawn[0] != window:
            self._drawn = (window, self._draw(window))
        return self._drawn[1]

    def _draw(self, window: int) -> bool:
        """Draw whether a window counts; the same however often it is asked."""
        if self.probability >= 1:
            return True
        rng = np.random.default_rng([self.seed, window])
        return bool(rng.random() < self.probability)

    def takes(self, time: float) -> bool:
        """Return whether an exchange at *time* is hit; it is counted."""
        window = self.window(time)
        if window is None:
            return False
        if window != self._window:
            self._window, self._n_seen = window, 0
        if self.count is not None and self._n_seen >= self.count:
            return False
        self._n_seen += 1
        return self.probability >= 1 or bool(self.rng.random() < self.probability)

    def is_over(self, time: float) -> bool:
        """Return whether no exchange can be hit from *time* on."""
        if self.period_s is not None:
            return time >= self.cleared_s
        is_used_up = self.count is not None and self._n_seen >= self.count
        return is_used_up or time >= self.end(0)

    def is_news(self, time: float) -> bool:
        """Return whether its present window was not asked for before."""
        window = self.window(time)
        if window is None or window <= self._n_logged:
            return False
        self._n_logged = window
        return True


class Strike:
    """A fault that hits one exchange.

    Args:
        script: The script that says so.
        time: Lab time of the exchange [s].
    """

    def __init__(self, script: _Script, time: float) -> None:
        self.fault = script.fault
        self.options = script.options
        self.rng = script.rng
        """What damaged bytes are drawn from."""
        self._script = script
        self._window = script.window(time) if script.length_s is not None else None

    @property
    def ends_s(self) -> float:
        """Lab time at which its window closes, infinite if none was said [s]."""
        if self._window is None:
            return self._script.cleared_s
        return self._script.end(self._window)


class Faults:
    """The faults of one simulated instrument and of its wire.

    Args:
        name: Name of the device.
        entries: Scripts from the lab file.
        known: The instrument's own faults, each with its physical signature in a
            sentence. Options that a fault takes are named there, with their unit:
            "reads too high by_degc (5 if not said)".
        rng: Where every draw comes from.

    Raises:
        TwinSettingsError: With everything that is wrong in *entries*.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Mapping[str, Any]],
        known: Mapping[str, str],
        rng: np.random.Generator,
    ) -> None:
        clash = sorted(set(known) & set(WIRE_FAULTS))
        if clash:
            raise ValueError(f"{name}: {clash[0]!r} is a fault of every wire already")
        self.name = name
        self.log: deque[tuple[float, str]] = deque(maxlen=_LONGEST_LOG)
        """What hit: lab time [s] and fault. A state counts when its window opened."""
        self.on_change: Callable[[], None] | None = None
        """Called when scripts were added or cleared; the front's."""
        self.has_strikes = False
        """Whether any exchange may be hit, now or later."""
        self._known = dict(known)
        self._wire = dict(WIRE_FAULTS)
        self._impossible: Mapping[str, str] = {}
        self._where = "wire"
        self._rng = rng
        self._states: dict[str, list[_Script]] = {f: [] for f in (*known, *PORT_FAULTS)}
        self._strikes: list[_Script] = []
        self._latest: dict[str, _Script] = {}
        if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
            text = f"faults should be a list of scripts, not {entries!r}"
            raise TwinSettingsError([(("faults",), text)])
        problems: list[tuple[tuple[str | int, ...], str]] = []
        for place, entry in enumerate(entries):
            script, wrong = self._parse(entry, 0.0, place)
            problems += [(("faults", place), text) for text in wrong]
            if script is not None:
                self._add(script)
        if problems:
            raise TwinSettingsError(problems)

    # -- what people ask and tell --------------------------------------------------

    @property
    def known(self) -> Mapping[str, str]:
        """Every fault there can be, each with its sentence."""
        return {**self._known, **self._wire}

    def inject(self, entry: Mapping[str, Any], time: float) -> None:
        """Add a script at lab time *time*; its ``at_s`` counts from then.

        Raises:
            TwinSettingsError: With everything that is wrong in it; nothing is added.
        """
        script, wrong = self._parse(entry, time, len(self._strikes))
        if script is None:
            raise TwinSettingsError([((), text) for text in wrong])
        self._add(script)
        if self.on_change is not None:
            self.on_change()

    def clear(self, time: float) -> None:
        """End every fault at lab time *time*."""
        for scripts in (*self._states.values(), self._strikes):
            for script in scripts:
                # States are kept: physics may still look back at what was before.
                script.cleared_s = min(script.cleared_s, time)
        self._strikes.clear()
        self.has_strikes = False
        if self.on_change is not None:
            self.on_change()

    # -- what simulators ask -------------------------------------------------------

    def is_active(self, fault: str, time: float) -> bool:
        """Return whether *fault*, a state, is there at lab time *time*.

        Raises:
            KeyError: If it is neither one of the instrument's nor one of the port's.
        """
        scripts = self._states[fault]
        if not scripts:
            return False
        for script in scripts:
            if script.is_there(time):
                self._latest[fault] = script
                window = script.window(time)
                if window is not None and script.is_news(time):
                    self.log.append((script.begin(window), fault))
                return True
        return False

    def option(self, fault: str, name: str, default: float) -> float:
        """Return a number that the script of *fault* gives, else *default*."""
        scripts = self._states[fault]
        script = self._latest.get(fault) or (scripts[0] if scripts else None)
        return default if script is None else script.options.get(name, default)

    # -- what fronts ask -----------------------------------------------------------

    def serve(self, wire: str, impossible: Mapping[str, str]) -> None:
        """Take note of which wire this is, and refuse what cannot happen on it.

        Args:
            wire: What it is called in errors.
            impossible: Faults that cannot happen there, each with the reason.

        Raises:
            TwinSettingsError: If one of them was scripted.
        """
        self._where = wire
        self._impossible = impossible
        self._wire = {f: s for f, s in WIRE_FAULTS.items() if f not in impossible}
        problems: list[tuple[tuple[str | int, ...], str]] = [
            (("faults", script.place), self._explain_impossible(script.fault))
            for script in self._strikes
            if script.fault in impossible
        ]
        if problems:
            raise TwinSettingsError(problems)

    def strike(self, time: float, among: Collection[str]) -> Strike | None:
        """Return the fault that hits the exchange at lab time *time*, if one does.

        Args:
            time: Lab time [s].
            among: Faults that can hit at this point of the exchange.
        """
        found = None
        for script in self._strikes:
            if script.fault in among and script.takes(time):
                self.log.append((time, script.fault))
                found = Strike(script, time)
                break
        if any(script.is_over(time) for script in self._strikes):
            self._strikes = [s for s in self._strikes if not s.is_over(time)]
            self.has_strikes = bool(self._strikes)
        return found

    def next_port_edge(self, time: float) -> float:
        """Return when a fault of the port next comes or goes, infinite if never."""
        return min(
            (
                script.next_edge(time)
                for fault in PORT_FAULTS
                for script in self._states[fault]
            ),
            default=math.inf,
        )

    # -- reading scripts -----------------------------------------------------------

    def _add(self, script: _Script) -> None:
        if script.fault in self._states:
            self._states[script.fault].append(script)
        else:
            self._strikes.append(script)
            self.has_strikes = True

    def _explain_impossible(self, fault: str) -> str:
        return (
            f"fault {fault!r} cannot happen on this {self._where}: "
            f"{self._impossible[fault]}"
        )

    def _parse(
        self, entry: Any, time: float, place: int
    ) -> tuple[_Script | None, list[str]]:
        """Return the script that *entry* is, or what is wrong with it."""
        if not isinstance(entry, Mapping):
            text = f"a fault should look like {{fault: drop, at_s: 60}}, not {entry!r}"
            return None, [text]
        fault = entry.get("fault")
        if fault is None:
            return None, ["'fault' is missing: which one?"]
        if isinstance(fault, str) and fault in self._impossible:
            return None, [self._explain_impossible(fault)]
        if not isinstance(fault, str) or fault not in self.known:
            return None, [f"unknown fault {fault!r}; {nearest(str(fault), self.known)}"]
        is_state = fault in self._states
        options = _OPTION.findall(self.known[fault])
        problems = [
            f"fault {fault!r}: unknown key {key!r}; {nearest(str(key), keys)}"
            for keys in [{*_SCRIPT_KEYS, *options} - ({"count"} if is_state else set())]
            for key in entry
            if key not in keys
        ]
        numbers = _Numbers(fault, entry, problems)
        starts = numbers.take("at_s", low=0.0)
        period = numbers.take("every_s", low=_SHORTEST_S)
        length = numbers.take("for_s", low=_SHORTEST_S, may_be_endless=True)
        probability = numbers.take("with_probability", low=0.0, high=1.0)
        count = numbers.take("count", low=1.0)
        given = {
            name: value
            for name in options
            if name not in _SCRIPT_KEYS and (value := numbers.take(name)) is not None
        }
        problems += _find_contradictions(fault, starts, period, length, count, given)
        if is_state and period is not None and length is None:
            problems.append(f"fault {fault!r}: every_s needs for_s: it would never end")
        if problems:
            return None, problems
        if not is_state and length is None and count is None:
            count = 1.0
        script = _Script(
            fault=fault,
            place=place,
            starts_s=time + (starts or 0.0),
            period_s=period,
            length_s=length,
            count=None if count is None else int(count),
            probability=1.0 if probability is None else probability,
            options=given,
            seed=int(self._rng.integers(2**63)),
        )
        return script, []


def _find_contradictions(
    fault: str,
    starts: float | None,
    period: float | None,
    length: float | None,
    count: float | None,
    options: Mapping[str, float],
) -> list[str]:
    """Return what does not go together in one script."""
    found = []
    if starts is not None and period is not None:
        found.append(f"fault {fault!r}: give either at_s or every_s, not both")
    if period is not None and length is not None and length > period:
        found.append(
            f"fault {fault!r}: for_s ({length:g}) should be at most every_s "
            f"({period:g})"
        )
    if count is not None and count != int(count):
        found.append(f"fault {fault!r}: count should be a whole number, not {count:g}")
    if fault == "delay" and not options.get("by_s", 1.0) > 0:
        found.append(f"fault 'delay': by_s should be above 0, not {options['by_s']:g}")
    return found


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and not math.isnan(value)


class _Numbers:
    """Takes numbers out of a script and notes what is wrong with them."""

    def __init__(
        self, fault: str, entry: Mapping[str, Any], problems: list[str]
    ) -> None:
        self._fault = fault
        self._entry = entry
        self._problems = problems

    def take(
        self,
        key: str,
        *,
        low: float = -_LARGEST,
        high: float = _LARGEST,
        may_be_endless: bool = False,
    ) -> float | None:
        """Return the number under *key*, None if there is none or it is wrong."""
        if key not in self._entry:
            return None
        value = self._entry[key]
        wanted = "a number of seconds" if key.endswith("_s") else "a number"
        if not _is_number(value) or (math.isinf(value) and not may_be_endless):
            self._complain(key, wanted, value)
        elif value < low:
            self._complain(key, f"{wanted} of at least {low:g}", value)
        elif value > high and not math.isinf(value):
            self._complain(key, f"{wanted} of at most {high:g}", value)
        else:
            return float(value)
        return None

    def _complain(self, key: str, wanted: str, value: Any) -> None:
        self._problems.append(
            f"fault {self._fault!r}: {key} should be {wanted}, not {value!r}"
        )
