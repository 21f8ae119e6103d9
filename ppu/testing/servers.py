"""Small servers for tests: something that hears requests and answers bytes.

They share nothing with the simulators; a recording or a stranger speaks through them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from ppu.core.labtime import Debt, LabTimeLoop, running_loop
from ppu.transports.http import http_request_text

__all__ = ["Answerer", "Reply", "Server", "serve"]

_LOOPBACK: Final = "127.0.0.1"
# Keep-alive counts in lab time: between two polls of a jumping loop hours may pass.
_KEEP_ALIVE_S: Final = 1e9


@dataclass(frozen=True)
class Reply:
    """What is answered after a while.

    Args:
        data: The bytes; of an HTTP answer the body.
        delay_s: Lab time until they go out [s].
        status: HTTP status.
    """

    data: bytes
    delay_s: float = 0.0
    status: int = 200


class Answerer(Protocol):
    """What speaks through a server."""

    def greet(self) -> Sequence[Reply]:
        """Return what is said by itself when somebody connects."""

    def hear(self, data: bytes) -> Sequence[Reply]:
        """Take bytes as they come, or a whole HTTP request; return what is answered."""


class Server(Protocol):
    """A port that somebody can connect to."""

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the place that a connection of a lab file needs."""

    async def stop(self) -> None:
        """Listen no more; leave nothing behind."""


def serve(transport: str, answerer: Answerer) -> Server:
    """Return a server for *transport*, not started.

    Raises:
        ValueError: If it is none of serial, tcp and http.
    """
    if transport == "serial":
        return _PtyServer(answerer)
    if transport == "tcp":
        return _TcpServer(answerer)
    if transport == "http":
        return _HttpServer(answerer)
    raise ValueError(f"a {transport} cannot be served; serial, tcp and http can")


class _PtyServer:
    """A pseudo-terminal; line settings do not matter there."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._master = self._slave = -1
        self._loop: LabTimeLoop
        self._debt: Debt | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def start(self) -> Mapping[str, Any]:
        self._loop = running_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="ppu-serial-")
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        port = Path(self._folder.name) / "port"
        port.symlink_to(os.ttyname(self._slave))
        if self._loop.is_jumping:
            self._debt = self._loop.debt(str(port))
            self._debt.count_requests()
        self._loop.add_reader(self._master, self._readable)
        return {"port": str(port)}

    async def stop(self) -> None:
        if self._folder is None:
            return
        for timer in self._timers:
            timer.cancel()
        self._loop.remove_reader(self._master)
        if self._debt is not None:
            self._debt.clear()
        os.close(self._master)
        os.close(self._slave)
        self._folder.cleanup()
        self._folder = None

    def _readable(self) -> None:
        data = os.read(self._master, 4096)
        if self._debt is not None:
            self._debt.pay_request(len(data))
        self._timers = {t for t in self._timers if t.when() > self._loop.time()}
        for reply in self._answerer.hear(data):
            timer = self._loop.call_later(reply.delay_s, self._send, reply.data)
            self._timers.add(timer)

    def _send(self, data: bytes) -> None:
        if self._debt is not None:
            self._debt.add(len(data))
        n_written = os.write(self._master, data)
        if self._debt is not None:
            self._debt.add(n_written - len(data))


class _TcpServer:
    """A TCP port."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.clients: set[_TcpClient] = set()
        self.loop: LabTimeLoop
        self.debt: Debt | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> Mapping[str, Any]:
        self.loop = running_loop()
        self._server = await self.loop.create_server(
            lambda: _TcpClient(self), _LOOPBACK, 0
        )
        port = self._server.sockets[0].getsockname()[1]
        if self.loop.is_jumping:
            self.debt = self.loop.debt(f"{_LOOPBACK}:{port}")
        return {"host": _LOOPBACK, "port": port}

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for client in list(self.clients):
            client.end()


class _TcpClient(asyncio.Protocol):
    """Somebody who connected."""

    def __init__(self, server: _TcpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.clients.add(self)
        self._answer(self._server.answerer.greet())

    def data_received(self, data: bytes) -> None:
        if self._server.debt is not None:
            self._server.debt.pay(len(data))
        self._answer(self._server.answerer.hear(data))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self.end()

    def end(self) -> None:
        """Say nothing more, and break what is still connected."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._server.clients.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, replies: Sequence[Reply]) -> None:
        loop = self._server.loop
        self._timers = [t for t in self._timers if t.when() > loop.time()]
        self._timers += [
            loop.call_later(reply.delay_s, self._send, reply.data) for reply in replies
        ]

    def _send(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._server.debt is not None:
            self._server.debt.add(len(data))
        self._transport.write(data)


class _HttpServer:
    """An HTTP port; a request that gets no reply is never answered."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._runner: web.ServerRunner | None = None
        self._debt: Debt | None = None
        self._waiting: set[asyncio.Task[Any]] = set()

    async def start(self) -> Mapping[str, Any]:
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _LOOPBACK, 0)
        await site.start()
        port = self._runner.addresses[0][1]
        url = f"http://{_LOOPBACK}:{port}"
        loop = running_loop()
        if loop.is_jumping:
            self._debt = loop.debt(url)
        return {"url": url}

    async def stop(self) -> None:
        for task in self._waiting:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        asked = http_request_text(request.method, request.path, request.query, body)
        replies = self._answerer.hear(asked)
        if not replies:
            await self._wait(None)
            raise ConnectionResetError("nothing was ever answered")
        (reply,) = replies
        if reply.delay_s > 0:
            await self._wait(reply.delay_s)
        return web.Response(
            body=reply.data, status=reply.status, content_type="application/json"
        )

    async def _wait(self, delay_s: float | None) -> None:
        """Wait in lab time, or for ever; time is not frozen by the client meanwhile."""
        task = asyncio.current_task()
        assert task is not None
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
            self._waiting.discard(task)
