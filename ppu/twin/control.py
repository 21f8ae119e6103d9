"""A bench's control socket: faults, incidents, the truth and hands, as lines of JSON.

One line asks, one line answers. Whoever can reach the loopback address may ask: there
is nothing but simulated instruments behind it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from ppu.core.errors import ConfigurationError, nearest
from ppu.core.labtime import running_loop
from ppu.core.simulation import ActRefusedError, PlayedPerson
from ppu.core.yaml_document import read_json
from ppu.twin.bench import Bench

__all__ = ["ControlSocket"]

_HOST: Final = "127.0.0.1"
_LONGEST_LINE: Final = 65536
_REQUESTS: Final = (
    '{"device": NAME, "fault": FAULT, ...}, {"device": NAME, "clear": true}, '
    '{"faults": NAME}, {"incidents": true}, {"truth": true}, '
    '{"asked": true}, {"person": NAME, "did": true}, '
    '{"person": NAME, "refuses": WHY}, '
    '{"carry": CONTAINER, "to": LOCATION}, {"empty": CONTAINER} or '
    '{"refill": POWDER, "mass_g": MASS}'
)


class ControlSocket:
    """Lets others do to a bench what the ``twin`` entries of a lab file do.

    Args:
        bench: The bench.
        port: Port to listen on; 0 for a free one.
    """

    def __init__(self, bench: Bench, port: int = 0) -> None:
        self._bench = bench
        self._port = port
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen, and return host and port.

        Raises:
            ConfigurationError: If the port is taken.
        """
        try:
            self._server = await asyncio.start_server(
                self._talk, _HOST, self._port, limit=_LONGEST_LINE
            )
        except OSError as exc:
            raise ConfigurationError(
                f"port {self._port} for control: cannot listen there: {exc.strerror}"
            ) from exc
        return f"{_HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no more, and end every conversation."""
        if self._server is not None:
            self._server.close()
            self._server = None
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._talks.add(task)
            task.add_done_callback(self._talks.discard)
        try:
            await self._answer_lines(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # they went, or we stop: either way this conversation is over
        finally:
            writer.close()

    async def _answer_lines(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # asyncio's word for a line above the limit
                text = f"a line should have at most {_LONGEST_LINE} bytes"
                writer.write(_encoded({"ok": False, "error": text}))
                return
            if not line:
                return
            if line.strip():
                writer.write(_encoded(self.answer(line)))
                await writer.drain()

    def answer(self, line: bytes) -> dict[str, Any]:
        """Return the answer to one request; what is wrong with it is said there."""
        try:
            request = read_json(line, "the request")
        except ConfigurationError as exc:
            return {"ok": False, "error": f"{exc}; send {_REQUESTS}"}
        if not isinstance(request, dict):
            return {"ok": False, "error": f"not a JSON object; send {_REQUESTS}"}
        try:
            return {"ok": True, **self._do(request)}
        except ConfigurationError as exc:
            return {"ok": False, "error": str(exc)}

    def _do(self, request: Mapping[str, Any]) -> dict[str, Any]:
        bench = self._bench
        now = running_loop().time()
        if "device" in request:
            return self._change(dict(request), now)
        if set(request) == {"incidents"}:
            incidents = [
                {
                    "lab_time_s": incident.lab_time_s,
                    "kind": incident.kind,
                    "device": incident.device,
                    "text": incident.text,
                }
                for incident in bench.world.incidents
            ]
            return {"lab_time_s": now, "incidents": incidents}
        if set(request) == {"truth"}:
            truth = bench.world.truth(now)
            return {
                "lab_time_s": now,
                "containers": truth["containers"],
                "acts": dict(bench.world.acts),
            }
        if set(request) == {"asked"}:
            people = self._people()
            asked = {name: one.asked for name, one in people.items() if one.asked}
            return {"lab_time_s": now, "asked": asked}
        if "person" in request:
            return {"lab_time_s": now, "done": self._answer_for(dict(request), now)}
        if set(request) == {"faults"}:
            device = str(request["faults"])
            faults = bench.faults_of(device)
            hits = [{"lab_time_s": time, "fault": fault} for time, fault in faults.log]
            return {
                "device": device,
                "lab_time_s": now,
                "known": dict(faults.known),
                "hits": hits,
            }
        if (done := self._lend_a_hand(request, now)) is not None:
            return {"lab_time_s": now, "done": done}
        known = (
            *("device", "faults", "incidents", "truth", "carry", "empty", "refill"),
            *("asked", "person"),
        )
        odd = next((key for key in request if key not in known), None)
        hint = "" if odd is None else f"unknown key {odd!r}; {nearest(odd, known)}; "
        raise ConfigurationError(f"{hint}send {_REQUESTS}")

    def _people(self) -> dict[str, PlayedPerson]:
        """Return the people of the bench whom somebody may play."""
        found = self._bench.instruments.items()
        return {name: one for name, one in found if isinstance(one, PlayedPerson)}

    def _answer_for(self, request: dict[str, Any], now: float) -> str:
        """Do what a person is asked and say so, or say why not; return what was said.

        Raises:
            ConfigurationError: If there is nobody of that name, or the world does not
                allow it; it is still asked then.
        """
        name, people = str(request.pop("person")), self._people()
        if name not in people:
            raise ConfigurationError(
                f"nobody is called {name!r}; {nearest(name, people)}"
            )
        person = people[name]
        asked = person.asked
        try:
            if request == {"did": True}:
                person.answer_done(now)
                return f"{asked}: done"
            if set(request) == {"refuses"}:
                person.answer_refused(now, str(request["refuses"]))
                return f"{asked}: refused"
        except ActRefusedError as exc:
            raise ConfigurationError(str(exc)) from exc
        raise ConfigurationError(f"send {_REQUESTS}")

    def _lend_a_hand(self, request: Mapping[str, Any], now: float) -> str | None:
        """Do what a person at the bench would; return what, None if it is no such act.

        Raises:
            ConfigurationError: If the world does not allow it.
        """
        world = self._bench.world
        try:
            if set(request) == {"carry", "to"}:
                container, place = str(request["carry"]), str(request["to"])
                world.carry(now, container, place)
                return f"{container} was carried to {place}"
            if set(request) == {"empty"}:
                container = str(request["empty"])
                world.empty(now, container)
                return f"{container} was emptied and cleaned"
            if set(request) == {"refill", "mass_g"}:
                powder, mass_g = str(request["refill"]), request["mass_g"]
                if isinstance(mass_g, bool) or not isinstance(mass_g, int | float):
                    raise ConfigurationError(f"mass_g is no number: {mass_g!r}")
                world.refill(now, powder, float(mass_g))
                return f"{mass_g:g} g of {powder} were added"
        except ActRefusedError as exc:
            raise ConfigurationError(str(exc)) from exc
        return None

    def _change(self, entry: dict[str, Any], now: float) -> dict[str, Any]:
        """Let a fault come to a device, or end all of its faults."""
        device = str(entry.pop("device"))
        answer = {"device": device, "lab_time_s": now}
        if "clear" in entry:
            if entry != {"clear": True}:
                raise ConfigurationError(
                    'send {"device": NAME, "clear": true} and nothing else'
                )
            self._bench.clear(device)
            return answer
        self._bench.inject(device, entry)
        return {**answer, "fault": entry["fault"]}


def _encoded(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
