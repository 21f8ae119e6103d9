"""A door controller for tests, written from what its firmware was seen to do.

Facts: answers have no line end and the connection stays open; one client at a time;
as long as it is connected neither limit switches nor timers are looked at; ``Status``
lists both furnaces, each called what it was before until its motion is done; opening
ends at a switch and is given up after 26.5 s, whereupon the door is driven shut and the
error stays; closing is timed, 29 s. Nothing here is shared with the simulator.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from independent.carriers import TcpCarrier

__all__ = ["DoorServer"]

_GIVES_UP_S, _CLOSES_S = 26.5, 29.0
_LOOP_S = 0.03


@dataclass
class _Motor:
    """A motor and the door that it moves."""

    place: float = 0.0
    """Seconds of motion from shut."""
    direction: int = 0
    called: str = "Closed"


@dataclass
class DoorServer:
    """A controller with furnaces A and B.

    Args:
        travel_s: How long a door takes from shut to its switch.
        line_end: What ends an answer: nothing in the firmware that was seen.
        hangs_up: Whether it closes the connection after an answer, as others do.
    """

    travel_s: float = 10.0
    line_end: str = ""
    hangs_up: bool = False
    state: str = "STOP"
    heard: list[str] = field(default_factory=list)
    n_connections: int = 0
    most_at_once: int = 0
    longest_visit_s: float = 0.0

    def __post_init__(self) -> None:
        self.motors = {"A": _Motor(), "B": _Motor()}
        self.port = 0
        self._active: str | None = None
        self._due_s = 0.0
        self._now = 0.0
        self._clients: list[TcpCarrier] = []
        self._inbox: dict[TcpCarrier, bytes] = {}
        self._came_s = 0.0
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(
            lambda: TcpCarrier(self._hear, self._gone), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()

    # -- clients -------------------------------------------------------------------

    def _hear(self, client: TcpCarrier, data: bytes) -> None:
        if client not in self._clients:
            self._clients.append(client)
            self.n_connections += 1
            self.most_at_once = max(self.most_at_once, len(self._clients))
        self._inbox[client] = self._inbox.get(client, b"") + data
        self._serve()

    def _serve(self) -> None:
        """Answer the first client; whoever comes later waits until it has gone."""
        if not self._clients:
            return
        client = self._clients[0]
        data = self._inbox.pop(client, b"")
        if not data:
            return
        self._came_s = self._loop.time()
        self._move_to(self._came_s)
        for message in data.decode("ascii").removesuffix("\n").split("\n"):
            self.heard.append(message)
            answer = self._answer(message)
            if answer is not None:
                client.say((answer + self.line_end).encode())

    def _gone(self, client: TcpCarrier) -> None:
        self._inbox.pop(client, None)
        if client not in self._clients:
            return
        was_served = self._clients[0] is client
        self._clients.remove(client)
        if was_served:
            now = self._loop.time()
            self.longest_visit_s = max(self.longest_visit_s, now - self._came_s)
            self._turn()
            self._serve()

    # -- the firmware --------------------------------------------------------------

    def _turn(self) -> None:
        """Go round the main loop once, if no client keeps it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        self._move_to(now)
        if self._active is None or self._clients:
            return
        motor = self.motors[self._active]
        if motor.direction > 0 and motor.place >= self.travel_s:
            motor.called, self.state = "Open", "STOP"
            motor.direction, self._active = 0, None
        elif now >= self._due_s and motor.direction > 0:
            motor.called, self.state, motor.direction = "Open", "ERROR", -1
            self._due_s = now + _CLOSES_S
        elif now >= self._due_s:
            is_in_order = self.state == "RUNNING"
            motor.called = "Closed" if is_in_order else "Unknown"
            self.state = "STOP" if is_in_order else "ERROR"
            motor.direction, self._active = 0, None
        if self._active is not None:
            self._timer = self._loop.call_later(_LOOP_S, self._turn)

    def _move_to(self, now: float) -> None:
        for motor in self.motors.values():
            moved = motor.place + motor.direction * (now - self._now)
            motor.place = min(max(moved, 0.0), self.travel_s)
        self._now = now

    def _answer(self, message: str) -> str | None:
        said = f"State: {self.state}; " + " ".join(
            f"Furnace {name}: {motor.called};" for name, motor in self.motors.items()
        )
        if message == "Status":
            return said
        word, _, name = message.partition(" ")
        if word not in ("Open", "Close") or name not in self.motors:
            return "Wrong command"
        motor = self.motors[name]
        if self.state != "STOP":
            return said
        if motor.called == "Unknown":
            return None
        opens = word == "Open"
        if opens == (motor.called == "Open"):
            return said
        self.state, self._active = "RUNNING", name
        motor.direction = 1 if opens else -1
        self._due_s = self._loop.time() + (_GIVES_UP_S if opens else _CLOSES_S)
        return f"{'Opening' if opens else 'Closing'} furnace {name}..."
