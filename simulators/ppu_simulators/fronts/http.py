"""An HTTP server for one instrument."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from typing_extensions import override

from ppu.core.labtime import Debt, running_loop
from ppu_simulators.faults import Faults, Strike
from ppu_simulators.fronts.listener import Listener, open_listener, reset
from ppu_simulators.fronts.wire_faults import (
    DELAY_S,
    FLOOD_BYTES_PER_S,
    HEARING,
    SAYING,
    Flood,
    PortWatch,
    damaged,
    rule_out,
)

__all__ = ["HttpAnswer", "HttpFront", "HttpRequest", "HttpService"]

# Keep-alive counts in lab time: between two polls of a jumping loop hours may pass.
_KEEP_ALIVE_S: Final = 1e9
_SHUTDOWN_S: Final = 1.0


@dataclass(frozen=True)
class HttpRequest:
    """What a client asked.

    Args:
        method: ``GET`` or ``POST``.
        path: Path without the query.
        query: Query parameters.
        body: The JSON value sent, None if there was none.
        is_json: Whether the body could be read.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Any = None
    is_json: bool = True


@dataclass(frozen=True)
class HttpAnswer:
    """What an instrument answers after a while.

    Args:
        body: A JSON value, or the raw bytes of the body.
        delay_s: How long the instrument waits first, in lab time.
        status: HTTP status.
        is_cut_off: Whether the connection breaks instead of the answer.
    """

    body: Any
    delay_s: float = 0.0
    status: int = 200
    is_cut_off: bool = False


class HttpService(Protocol):
    """The wire language of one instrument, without any I/O."""

    def answer(self, request: HttpRequest, time: float) -> HttpAnswer | None:
        """Take a request that came at lab time *time*; None is never answered."""


class HttpFront:
    """Serves one instrument on a loopback port, or in memory.

    Args:
        service: The instrument's wire language.
        port: Port to listen on; 0 for a free one.
        faults: What may go wrong; nothing by default.

    Raises:
        TwinSettingsError: If a fault is scripted that cannot happen on this wire.
    """

    def __init__(
        self, service: HttpService, *, port: int = 0, faults: Faults | None = None
    ) -> None:
        self.service = service
        self._asked_port = port
        self._runner: web.ServerRunner | None = None
        self._listener: Listener | None = None
        self._debt: Debt | None = None
        self._waiting: set[asyncio.Task[Any]] = set()
        self._held: list[asyncio.Future[None]] = []
        self.url = ""
        self._faults = faults
        self._watch: PortWatch | None = None
        if faults is not None:
            rule_out(faults, "HTTP port", "text")
            self._watch = PortWatch(faults, self._set_port)

    async def start(self) -> str:
        """Listen, and return the base URL."""
        server = web.Server(
            self._handle,
            # Who waits for a client that has gone would owe time for ever.
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await self._runner.setup()
        self._listener = await open_listener(self._asked_port, server)
        self.url = f"http://{self._listener.host}:{self._listener.port}"
        loop = running_loop()
        if loop.is_jumping:
            self._debt = loop.debt(self.url)
        if self._watch is not None:
            self._watch.start(loop)
        return self.url

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._watch is not None:
            self._watch.stop()
        if self._listener is not None:
            await self._listener.stop()
        for task in self._waiting:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _set_port(self, is_plugged_in: bool, can_open: bool) -> None:
        if self._listener is not None:
            self._listener.set_open(can_open)
        if is_plugged_in or self._runner is None or self._runner.server is None:
            return
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await _read(request)
        faults = self._faults
        if faults is not None and faults.has_strikes:
            strike = faults.strike(running_loop().time(), HEARING)
            if strike is not None:
                return await self._ignore(strike)
        answer = self.service.answer(asked, running_loop().time())
        if answer is None:
            await self._wait(None)
            raise ConnectionResetError("nothing was ever answered")
        if answer.delay_s > 0:
            await self._wait(answer.delay_s)
        if answer.is_cut_off:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the connection was cut off")
        response = _response(answer)
        if faults is not None and faults.has_strikes:
            strike = faults.strike(running_loop().time(), SAYING)
            if strike is not None:
                return await self._spoil(request, response, strike)
        for held in self._held:
            if not held.done():
                held.set_result(None)
        return response

    # -- what faults make of it ------------------------------------------------------

    async def _ignore(self, strike: Strike) -> web.Response:
        """Answer a request that the instrument does not take."""
        if strike.fault == "stuck busy":
            return web.Response(status=503, text="busy")
        await self._wait(None)
        raise ConnectionResetError("the connection is half-open")

    async def _spoil(
        self, request: web.BaseRequest, response: web.Response, strike: Strike
    ) -> web.StreamResponse:
        """Let *strike* happen to *response*, byte by byte."""
        fault = strike.fault
        if fault == "delay":
            await self._wait(strike.options.get("by_s", DELAY_S))
            return response
        if fault == "reorder":
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append(held)
            try:
                await self._wait(None, until=held)
            finally:
                self._held.remove(held)
            return response
        if fault in ("drop", "half-open"):
            await self._wait(None)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("nobody is there any more")
        if fault == "duplicate":
            return _Verbatim(damaged(_bytes_of(response), fault, "text", strike.rng))
        if fault == "reset":
            reset(transport)
        elif fault == "flood":
            await self._pour(transport, Flood(strike, running_loop().time()))
        else:
            transport.write(damaged(_bytes_of(response), fault, "text", strike.rng))
        # Who was promised more waits for it until the connection is closed.
        transport.close()
        raise ConnectionResetError(f"fault: {fault}")

    async def _pour(self, transport: asyncio.Transport, flood: Flood) -> None:
        """Send rubbish until it ends or nobody is there."""
        while piece := flood.next(running_loop().time(), FLOOD_BYTES_PER_S):
            transport.write(piece[0])
            await self._wait(piece[1])

    async def _wait(
        self, delay_s: float | None, until: asyncio.Future[None] | None = None
    ) -> None:
        """Wait in lab time, or until something happens, or for ever.

        Time is not frozen by the client meanwhile.
        """
        task = asyncio.current_task()
        if task is not None:
            self._waiting.add(task)
        if self._debt is not None:
            self._debt.add(-1)
        try:
            if delay_s is None:
                await (until or asyncio.get_running_loop().create_future())
            else:
                await asyncio.sleep(delay_s)
        finally:
            if self._debt is not None:
                self._debt.add(1)
            if task is not None:
                self._waiting.discard(task)


async def _read(request: web.BaseRequest) -> HttpRequest:
    """Return what the client asks, once all of it is there."""
    raw = await request.read()
    body: Any = None
    is_json = True
    if raw:
        try:
            body = json.loads(raw)
        except ValueError:
            is_json = False
    return HttpRequest(request.method, request.path, dict(request.query), body, is_json)


def _response(answer: HttpAnswer) -> web.Response:
    if isinstance(answer.body, bytes):
        return web.Response(
            body=answer.body, status=answer.status, content_type="text/html"
        )
    return web.json_response(answer.body, status=answer.status)


def _bytes_of(response: web.Response) -> bytes:
    """Return *response* as it looks on the wire."""
    body = response.body
    payload = bytes(body) if isinstance(body, bytes | bytearray) else b""
    head = (
        f"HTTP/1.1 {response.status} {response.reason}\r\n"
        f"Content-Type: {response.headers['Content-Type']}\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode("ascii") + payload


class _Verbatim(web.StreamResponse):
    """A response that is sent as the bytes it is given; the connection stays."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    @property
    @override
    def keep_alive(self) -> bool | None:
        return True

    @override
    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if request.transport is not None:
            request.transport.write(self._data)
        return None

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: everything was sent."""
