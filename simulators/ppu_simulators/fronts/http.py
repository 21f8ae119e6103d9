"""An HTTP server for one instrument."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web

from ppu.core.labtime import Debt, running_loop

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
    """Serves one instrument on a loopback port.

    Args:
        service: The instrument's wire language.
        port: Port to listen on; 0 for a free one.
    """

    def __init__(self, service: HttpService, *, port: int = 0) -> None:
        self.service = service
        self._asked_port = port
        self._runner: web.ServerRunner | None = None
        self._debt: Debt | None = None
        self._waiting: set[asyncio.Task[Any]] = set()
        self.url = ""

    async def start(self) -> str:
        """Listen, and return the base URL."""
        server = web.Server(
            self._handle,
            # Who waits for a client that has gone would owe time for ever.
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            access_log=None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._asked_port)
        await site.start()
        self._runner = runner
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        loop = running_loop()
        if loop.is_jumping:
            self._debt = loop.debt(self.url)
        return self.url

    async def stop(self) -> None:
        """Close the port and every connection."""
        for task in self._waiting:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        body: Any = None
        is_json = True
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                is_json = False
        asked = HttpRequest(
            request.method, request.path, dict(request.query), body, is_json
        )
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
        if isinstance(answer.body, bytes):
            return web.Response(
                body=answer.body, status=answer.status, content_type="text/html"
            )
        return web.json_response(answer.body, status=answer.status)

    async def _wait(self, delay_s: float | None) -> None:
        """Wait in lab time, for ever if None; the client's hold is lifted meanwhile."""
        task = asyncio.current_task()
        if task is not None:
            self._waiting.add(task)
        if self._debt is not None:
            self._debt.add(-1)
        try:
            if delay_s is None:
                await asyncio.get_running_loop().create_future()
            else:
                await asyncio.sleep(delay_s)
        finally:
            if self._debt is not None:
                self._debt.add(1)
            if task is not None:
                self._waiting.discard(task)
