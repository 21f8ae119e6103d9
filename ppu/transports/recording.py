"""Recorded conversations with instruments: a file of JSON lines.

The first line says what was recorded and how to reach such an instrument, without any
path or address of the machine. Each further line is one exchange, or one value that was
read by then::

    {"ppu_recording": 1, "device": "balance", "driver": ..., "transport": "serial", ...}
    {"at_s": 0.03, "lasted_s": 0.02, "sent": "53490d0a", "received": ..., ...}
    {"at_s": 0.05, "signal": "present_mass", "value": 0.0, "units": "g", ...}

Bytes are hexadecimal, times are lab seconds since the recording began.
"""

from __future__ import annotations

import enum
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
)
from typing_extensions import override

from ppu._version import __version__
from ppu.core.errors import ConfigurationError
from ppu.core.labfile import DeviceEntry
from ppu.transports.link import Exchange, wire_log

__all__ = [
    "RecordedExchange",
    "RecordedReading",
    "Recorder",
    "Recording",
    "RecordingHead",
    "load_recording",
    "plain",
]

PLACES: Final = ("port", "host", "url", "results_folder")
"""Keys of a connection that lead to a place on one machine."""

_Hex = Annotated[
    bytes,
    BeforeValidator(
        lambda text: bytes.fromhex(text) if isinstance(text, str) else text
    ),
    PlainSerializer(bytes.hex),
]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordingHead(_Line):
    """What was recorded."""

    ppu_recording: Literal[1] = 1
    ppu_version: str
    device: str
    driver: str
    wire: str
    transport: str
    connection: dict[str, Any]
    serial_number: str
    settings: dict[str, Any]
    limits: dict[str, Any]
    slots: tuple[str, ...]


class RecordedExchange(_Line):
    """One exchange; nothing sent means that something came by itself."""

    at_s: float
    lasted_s: float
    sent: _Hex
    received: _Hex
    meaning: str


class RecordedReading(_Line):
    """One value that was read; None and a message if it could not be."""

    at_s: float
    signal: str
    value: Any
    units: str = ""
    quality: str
    message: str = ""


class Recording(_Line):
    """A recorded conversation."""

    head: RecordingHead
    lines: tuple[RecordedExchange | RecordedReading, ...]

    @property
    def exchanges(self) -> list[RecordedExchange]:
        """Return the exchanges in the order in which they took place."""
        return [line for line in self.lines if isinstance(line, RecordedExchange)]

    @property
    def readings(self) -> list[RecordedReading]:
        """Return what was read, in order."""
        return [line for line in self.lines if isinstance(line, RecordedReading)]

    def save(self, path: Path) -> None:
        """Write it to *path*."""
        models: list[BaseModel] = [self.head, *self.lines]
        text = "".join(model.model_dump_json() + "\n" for model in models)
        path.write_text(text, encoding="utf-8")


def load_recording(path: Path) -> Recording:
    """Read the recording at *path*.

    Raises:
        ConfigurationError: If it cannot be read or is none; with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"cannot read {path}: {exc}") from exc
    head: RecordingHead | None = None
    lines: list[RecordedExchange | RecordedReading] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            content = json.loads(line)
            if head is None:
                head = RecordingHead.model_validate(content)
            elif "signal" in content:
                lines.append(RecordedReading.model_validate(content))
            else:
                lines.append(RecordedExchange.model_validate(content))
        except (ValidationError, ValueError, TypeError) as exc:
            raise ConfigurationError(
                f"{path} line {number}: no line of a recording: {exc}"
            ) from exc
    if head is None:
        raise ConfigurationError(f"{path} is empty; `ppu record` makes recordings")
    return Recording(head=head, lines=tuple(lines))


class Recorder(logging.Handler):
    """Records the exchanges of one device while the context is open.

    Args:
        device: Name of the device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(logging.DEBUG)
        self._device = device
        self._lines: list[RecordedExchange | RecordedReading] = []
        self._began_s: float | None = None
        self._before = (wire_log.level, wire_log.handlers, wire_log.propagate)

    def __enter__(self) -> Recorder:
        self._before = (wire_log.level, wire_log.handlers, wire_log.propagate)
        if wire_log.isEnabledFor(logging.DEBUG):
            wire_log.handlers = [*wire_log.handlers, self]
        else:  # nobody asked to see what is recorded
            wire_log.handlers = [self]
            wire_log.propagate = False
            wire_log.setLevel(logging.DEBUG)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        level, wire_log.handlers, wire_log.propagate = self._before
        wire_log.setLevel(level)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        exchange = record.args[0] if isinstance(record.args, tuple) else None
        if not isinstance(exchange, Exchange) or exchange.device != self._device:
            return
        self._lines.append(
            RecordedExchange(
                at_s=self._since(exchange.lab_time_s),
                lasted_s=round(exchange.duration_s, 6),
                sent=exchange.sent,
                received=exchange.received,
                meaning=exchange.meaning,
            )
        )

    def note_reading(
        self,
        signal: str,
        value: Any,
        lab_time_s: float,
        *,
        units: str = "",
        quality: str,
        message: str = "",
    ) -> None:
        """Record what was read of one signal at lab time *lab_time_s* [s]."""
        self._lines.append(
            RecordedReading(
                at_s=self._since(lab_time_s),
                signal=signal,
                value=plain(value),
                units=units,
                quality=quality,
                message=message,
            )
        )

    def recording(
        self, entry: DeviceEntry, wire: str, connection: Mapping[str, Any]
    ) -> Recording:
        """Return what was recorded so far.

        Args:
            entry: The entry of the device in its lab file.
            wire: Name of its wire language.
            connection: What led to it; places are left out, also of what was said.
        """
        places = {str(connection[k]): f"<{k}>" for k in PLACES if k in connection}

        def hide(text: str) -> str:
            for place, name in places.items():
                text = text.replace(place, name)
            return text

        return Recording(
            head=RecordingHead(
                ppu_version=__version__,
                device=self._device,
                driver=entry.driver,
                wire=wire,
                transport=str(connection["transport"]),
                connection={k: v for k, v in connection.items() if k not in PLACES},
                serial_number=entry.serial_number,
                settings=entry.settings,
                limits=entry.limits,
                slots=entry.slots,
            ),
            lines=tuple(
                line.model_copy(update={"meaning": hide(line.meaning)})
                if isinstance(line, RecordedExchange)
                else line.model_copy(update={"message": hide(line.message)})
                for line in self._lines
            ),
        )

    def _since(self, lab_time_s: float) -> float:
        if self._began_s is None:
            self._began_s = lab_time_s
        return round(lab_time_s - self._began_s, 6)


def plain(value: Any) -> Any:
    """Return *value* as JSON can hold it; what is no number is none."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):
        return value.tolist()
    return value
