"""Serves a recorded conversation on the wire it was taken from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ppu.core.errors import ConfigurationError
from ppu.core.labfile import DeviceEntry, LabFile
from ppu.devices.build import build_devices, driver_class
from ppu.devices.instrument import Instrument, LabDevice
from ppu.testing.servers import Reply, Server, serve
from ppu.transports.recording import (
    RecordedExchange,
    RecordedReading,
    Recording,
    load_recording,
    plain,
)

__all__ = ["Replay", "replay"]

_N_ID_BYTES: Final = 2
"""Modbus TCP numbers its requests: the number is the client's, not the recording's."""


class Replay:
    """An instrument that says what it said when it was recorded.

    Each request is answered as it was then, after the time it took then; a request that
    was recorded several times gets its answers in turn, then the last one again. What
    was never recorded gets no answer and is kept in :attr:`unknown`.

    Args:
        recording: What was recorded.
        results_folder: Stands in for a folder that the connection names, if it does.
    """

    def __init__(
        self, recording: Recording, results_folder: Path | None = None
    ) -> None:
        self.recording = recording
        self.unknown: list[bytes] = []
        self.connection: dict[str, Any] = {}
        """The ``hardware`` of a lab file that leads here; empty until it is started."""
        self._results_folder = results_folder
        head = recording.head
        self._n_ignored = _N_ID_BYTES if head.wire == "modbus-tcp" else 0
        self._is_whole = head.transport == "http"
        self._buffer = b""
        self._answers: dict[bytes, deque[RecordedExchange]] = {}
        for exchange in recording.exchanges:
            if exchange.sent:
                key = self._key(exchange.sent)
                self._answers.setdefault(key, deque()).append(exchange)
        self._greetings = [e for e in recording.exchanges if not e.sent]
        self._server: Server | None = None

    # -- serving -------------------------------------------------------------------

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here.

        Raises:
            ConfigurationError: If its transport cannot be served.
        """
        head = self.recording.head
        try:
            self._server = serve(head.transport, self)
        except ValueError as exc:
            raise ConfigurationError(f"recording of {head.device}: {exc}") from exc
        place = await self._server.start()
        self.connection = {"transport": head.transport, **head.connection, **place}
        if self._results_folder is not None and self._names_folder():
            self.connection["results_folder"] = str(self._results_folder)
        return self.connection

    def _names_folder(self) -> bool:
        """Return whether the driver's connection has a results folder."""
        head = self.recording.head
        driver = driver_class(head.device, DeviceEntry(driver=head.driver))
        return any("results_folder" in m.model_fields for m in driver.connections)

    async def stop(self) -> None:
        """Listen no more; half a request that is left is unknown, too."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
        if self._buffer:
            self.unknown.append(self._buffer)
            self._buffer = b""

    async def __aenter__(self) -> Replay:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- the driver's side -----------------------------------------------------------

    def make_device(self) -> Instrument:
        """Return the driver of the recorded instrument, leading here, not connected.

        Raises:
            ConfigurationError: If the driver is gone or takes other settings now.
        """
        head = self.recording.head
        entry = DeviceEntry(
            driver=head.driver,
            serial_number=head.serial_number,
            hardware=self.connection,
            settings=head.settings,
            limits=head.limits,
            slots=head.slots,
        )
        lab = LabFile(lab="recording", schema_version=1, devices={head.device: entry})
        devices: dict[str, LabDevice] = build_devices(
            lab, Path(head.device + ".jsonl"), is_excerpt=True
        )
        device = devices[head.device]
        assert isinstance(device, Instrument), f"{head.driver} is no Instrument of PPU"
        return device

    async def check(self) -> None:
        """Connect the driver, read again what was read, and compare.

        Raises:
            AssertionError: If a value or its quality is another, or the driver asked
                what it did not ask when it was recorded.
        """
        device = self.make_device()
        await device.connect_link()
        try:
            for recorded in self.recording.readings:
                if not recorded.message:
                    await self._compare(device, recorded)
        finally:
            await device.disconnect()
        assert self.unknown == [], f"never recorded: {self.unknown}"

    async def _compare(self, device: Instrument, recorded: RecordedReading) -> None:
        reading = await device.read_signal(recorded.signal)
        found = (plain(reading["value"]), device.quality(reading).value)
        wanted = (recorded.value, recorded.quality)
        assert found == wanted, f"{recorded.signal}: {found}, recorded was {wanted}"

    # -- answering -------------------------------------------------------------------

    def greet(self) -> Sequence[Reply]:
        """Return what came by itself when the instrument was recorded."""
        if len(self._greetings) > 1:
            return [self._reply(self._greetings.pop(0))]
        return [self._reply(exchange) for exchange in self._greetings]

    def hear(self, data: bytes) -> Sequence[Reply]:
        """Take bytes as they come, or a whole HTTP request; return what is answered."""
        self._buffer += data
        replies: list[Reply] = []
        while self._buffer:
            key = self._key(self._buffer)
            request = self._find(key)
            if request is not None:
                exchange = self._next(request)
                if exchange.received:
                    replies.append(self._reply(exchange, self._buffer))
                self._buffer = self._buffer[len(request) :]
            elif not self._is_whole and any(k.startswith(key) for k in self._answers):
                return replies  # the rest of a request is under way
            else:
                self.unknown.append(self._buffer)
                self._buffer = b""
        return replies

    def _key(self, request: bytes) -> bytes:
        """Return what tells *request* from others."""
        return b"\0" * self._n_ignored + request[self._n_ignored :]

    def _find(self, key: bytes) -> bytes | None:
        """Return the recorded request that *key* is, or begins with."""
        if self._is_whole:
            return key if key in self._answers else None
        found = [request for request in self._answers if key.startswith(request)]
        return max(found, key=len, default=None)

    def _next(self, request: bytes) -> RecordedExchange:
        answers = self._answers[request]
        return answers.popleft() if len(answers) > 1 else answers[0]

    def _reply(self, exchange: RecordedExchange, request: bytes = b"") -> Reply:
        data = exchange.received
        if request and self._n_ignored:
            data = request[: self._n_ignored] + data[self._n_ignored :]
        status = 200
        if self._is_whole and exchange.meaning.startswith("HTTP "):
            status = int(exchange.meaning.removeprefix("HTTP "))
        return Reply(data, exchange.lasted_s, status)


def replay(path: str | Path, *, results_folder: Path | None = None) -> Replay:
    """Return what serves the recording at *path*, not started.

    Args:
        path: A file that ``ppu record`` wrote.
        results_folder: Stands in for a folder that the connection names, if it does.

    Raises:
        ConfigurationError: If it is no recording.
    """
    return Replay(load_recording(Path(path)), results_folder)
