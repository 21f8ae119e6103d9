"""JSON over HTTP, through aiohttp; also to an instrument in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from ppu.core.errors import ConnectError, LinkBroken, MalformedReply, ReplyTimeout
from ppu.core.labtime import running_loop
from ppu.core.memory import MEMORY
from ppu.transports.confirm import confirm
from ppu.transports.link import Allowance, Exchange, Link, rounded, wire_log
from ppu.transports.places import host_places

__all__ = ["HttpClient", "HttpConnection", "http_request_text"]

T = TypeVar("T")

# Keep-alive counts in lab time: between two polls of a jumping loop hours may pass.
_KEEP_ALIVE_S = 1e9


def http_request_text(
    method: str, path: str, query: Mapping[str, str | int] | None, body: bytes
) -> bytes:
    """Return a request as people see it: method, path with query, and body.

    Example:
        >>> http_request_text("GET", "/UnloadQuadrant", {"quadrant": 1}, b"")
        b'GET /UnloadQuadrant?quadrant=1'
    """
    target = f"{path}?{urlencode(query)}" if query else path
    return f"{method} {target}".encode() + (b" " + body if body else b"")


class HttpConnection(BaseModel):
    """How to reach an instrument over HTTP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: Literal["http"]
    url: str = Field(pattern=r"^https?://[^/]+$", description="Scheme, host and port")

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return self.url

    @property
    def places(self) -> frozenset[str]:
        """What one process alone may have, however the host is called."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if host == MEMORY:
            return frozenset()
        return host_places(host, parts.port or (443 if parts.scheme == "https" else 80))


class HttpClient(Link):
    """Gets and posts JSON objects.

    Args:
        device: Name of the device, for errors.
        connection: Base URL.
        deadline_s: Real-world time for one exchange [s].
    """

    def __init__(
        self, device: str, connection: HttpConnection, *, deadline_s: float = 10.0
    ) -> None:
        super().__init__(device, connection.url, deadline_s)
        self._session: aiohttp.ClientSession | None = None

    @property
    @override
    def is_open(self) -> bool:
        return self._session is not None

    @override
    async def _open(self) -> None:
        is_in_memory = urlsplit(self.endpoint).hostname == MEMORY
        make = _MemoryConnector if is_in_memory else aiohttp.TCPConnector
        connector = make(limit=1, keepalive_timeout=_KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            base_url=self.endpoint,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        )

    @override
    async def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self, path: str, query: Mapping[str, str | int] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object at *path*; repeated if it fails.

        Raises:
            ReplyTimeout: No answer before the deadline.
            LinkBroken: The connection failed or was lost.
            MalformedReply: The answer is not a JSON object, or an HTTP error.
        """
        return await self._get(path, query, self.allowance())

    async def get_confirmed(
        self,
        path: str,
        parse: Callable[[dict[str, Any]], T],
        query: Mapping[str, str | int] | None = None,
        *,
        agree: Callable[[T, T], bool] = operator.eq,
    ) -> T:
        """Get until three answers in a row agree, for values that are acted upon.

        HTTP has no checksum of its own: a flipped bit may make another value of it.
        All of it takes at most twice the deadline.

        Args:
            path: Path below the base URL.
            parse: Makes the value of a JSON object.
            query: Query parameters.
            agree: Whether two values say the same; see
                :func:`~ppu.transports.confirm.confirm`.

        Raises:
            InstrumentError: *parse* found a refusal each time.
            TransportError: No answer.
            MalformedReply: The answers keep differing.
        """
        allowance = self.allowance()

        return await confirm(
            self.device, lambda: self._get(path, query, allowance), parse, agree
        )

    async def _get(
        self, path: str, query: Mapping[str, str | int] | None, allowance: Allowance
    ) -> dict[str, Any]:
        return await self._attempt(
            lambda: self._request_once("GET", path, query, None),
            is_safe=True,
            allowance=allowance,
        )

    async def post(
        self,
        path: str,
        body: Any = None,
        query: Mapping[str, str | int] | None = None,
        *,
        is_safe: bool = False,
    ) -> dict[str, Any]:
        """Post *body* as JSON and return the JSON object answered.

        Args:
            path: Path below the base URL.
            body: What to send.
            query: Query parameters.
            is_safe: Whether it may be sent again after a failure.
        """
        self.check_change()
        return await self._attempt(
            lambda: self._request_once("POST", path, query, body), is_safe=is_safe
        )

    async def _request_once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        body: Any,
    ) -> dict[str, Any]:
        session = self._session
        if session is None:
            raise LinkBroken(f"{self.device}: {self.endpoint} is closed")
        loop = running_loop()
        wait = self._at_most(loop.wire_seconds(self.deadline_s))
        debt = loop.debt(self.endpoint) if loop.is_jumping else None
        sent = b"" if body is None else json.dumps(body).encode()
        request = http_request_text(method, path, query, sent)
        self._n_sent += len(request)
        started = loop.time()
        received = b""
        if debt is not None:
            debt.add(1)
        try:
            async with (
                asyncio.timeout(wait),
                session.request(
                    method,
                    path,
                    params=query,
                    data=sent or None,
                    headers={"Content-Type": "application/json"} if sent else None,
                ) as response,
            ):
                received = await response.read()
                status = response.status
        except TimeoutError as exc:
            raise ReplyTimeout(
                f"{self.device}: no answer from {self.endpoint}{path} within "
                f"{rounded(wait):g} s"
            ) from exc
        except aiohttp.ClientConnectorError as exc:
            raise ConnectError(
                f"{self.device}: cannot connect to {self.endpoint}: {exc.os_error}; "
                "is the instrument on, and the address right?"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise LinkBroken(f"{self.device}: {self.endpoint}{path}: {exc}") from exc
        finally:
            if debt is not None:
                debt.add(-1)
        self._n_received += len(received)
        if wire_log.isEnabledFor(logging.DEBUG):
            elapsed = loop.time() - started
            wire_log.debug(
                "%s",
                Exchange(
                    self.device, request, received, f"HTTP {status}", started, elapsed
                ),
            )
        return self._decode(path, status, received)

    def _decode(self, path: str, status: int, received: bytes) -> dict[str, Any]:
        where = f"{self.device}: {self.endpoint}{path}"
        if status != 200:
            raise MalformedReply(f"{where} answered HTTP status {status}")
        try:
            answer = json.loads(received)
        except ValueError as exc:
            raise MalformedReply(
                f"{where} answered no JSON: {received[:80]!r}"
            ) from exc
        if not isinstance(answer, dict):
            raise MalformedReply(f"{where} answered no JSON object: {received[:80]!r}")
        return answer


class _MemoryConnector(aiohttp.BaseConnector):
    """Connects within this process, as aiohttp's own connectors do outside of it."""

    @override
    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
    ) -> ResponseHandler:
        board = running_loop().switchboard
        try:
            return board.connect(req.url.port or 0, self._factory)[1]
        except OSError as exc:
            raise aiohttp.ClientConnectorError(req.connection_key, exc) from exc
