"""A simulated technician: does what is asked, in human time and with human care."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from ppu.core.labfile import DeviceEntry
from ppu_simulators.faults import Faults
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront
from ppu_simulators.world import Refused, World, settings_of

__all__ = ["SimulatedTechnician"]

_TWIN_DEFAULTS: Final[Mapping[str, Any]] = {
    "carry_s": 60.0,
    "mount_s": 300.0,
    "spread": 0.2,
    "is_played": False,
    "faults": [],
}
_CARRY = re.compile(r"carry (\S+) from (\S+) to (\S+)")
_GRIND = re.compile(r"grind (\S+) for (\d+(?:\.\d+)?(?:e[+-]?\d+)?) s")
_MOUNT = re.compile(r"mount powder of (\S+) in (\S+)")


class SimulatedTechnician:
    """Carries containers, grinds with a mortar, and mounts powder for diffraction.

    Delays are log-normal around the twin settings, from one seeded stream.

    Args:
        name: Name of the device.
        entry: Its lab-file entry.
        world: The world the technician works in.
        serial_number: The badge number.
    """

    wire = "operator-line"
    known_faults: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, name: str, entry: DeviceEntry, world: World, serial_number: str
    ) -> None:
        self.name = name
        twin = settings_of(entry.twin, _TWIN_DEFAULTS)
        self.faults = Faults(
            name, twin["faults"], self.known_faults, world.rng(name, "faults")
        )
        self._world = world
        self._badge = serial_number
        self._carry_s = float(twin["carry_s"])
        self._mount_s = float(twin["mount_s"])
        self._spread = float(twin["spread"])
        self._delays = world.rng(name, "delays")
        self._is_played = bool(twin["is_played"])
        self._asked: str | None = None
        self._buffer = b""
        self._front = TcpFront(self, faults=self.faults)

    async def start(self) -> Mapping[str, Any]:
        """Listen; return the connection that leads here."""
        host, port = await self._front.start()
        return {"transport": "tcp", "host": host, "port": port}

    async def stop(self) -> None:
        """Stop listening."""
        await self._front.stop()

    def _takes(self, duration: float) -> float:
        """Return how long a task of about *duration* takes this time [s]."""
        return duration * math.exp(self._spread * float(self._delays.standard_normal()))

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return the answers to the requests they complete."""
        self._buffer += data
        answers: list[Answer] = []
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            request = line.decode("ascii", "replace").strip()
            if self._is_played and request != "who are you?":
                self._asked = request  # whoever plays the person answers
                continue
            try:
                answers.append(self._do(request, time))
            except Refused as refusal:
                answers.append(_say(f"refused {refusal}", 5.0))
        return answers

    # -- when somebody plays the technician ----------------------------------------

    @property
    def asked(self) -> str | None:
        """What whoever plays the technician is asked to do."""
        return self._asked

    def answer_done(self, time: float) -> None:
        """Do what is asked, and answer that it is done.

        Raises:
            Refused: If the world does not allow it; it is still asked.
        """
        answer = self._do(self._require_asked(), time)
        said = answer.at(time)
        if said.startswith(b"refused"):
            raise Refused(said.decode().removeprefix("refused").strip())
        self._asked = None
        self._front.volunteer(said)

    def answer_refused(self, time: float, why: str) -> None:
        """Answer that it will not be done.

        Raises:
            Refused: If nothing is asked, or no reason is given.
        """
        del time
        self._require_asked()
        if not why.strip():
            raise Refused("say why: the job's record has nothing else")
        self._asked = None
        self._front.volunteer(f"refused {why.strip()}\n".encode("ascii", "replace"))

    def _require_asked(self) -> str:
        if self._asked is None:
            raise Refused("nothing is asked")
        return self._asked

    def _do(self, request: str, time: float) -> Answer:
        if request == "who are you?":
            return _say(f"technician {self._badge}")
        if match := _CARRY.fullmatch(request):
            return self._carry(match[1], match[2], match[3], time)
        if match := _GRIND.fullmatch(request):
            return self._grind(match[1], float(match[2]), time)
        if match := _MOUNT.fullmatch(request):
            return self._mount(match[1], match[2], time)
        return _say(f"refused I do not understand: {request[:80]}")

    def _carry(
        self, container: str, origin: str, destination: str, time: float
    ) -> Answer:
        # A sensible person looks first.
        for place in (origin, destination):
            if not self._world.is_reachable(place):
                raise Refused(f"the door before {place} is closed")
        kind, holds = self._kind(container), self._world.holds(destination)
        if kind != holds:
            raise Refused(f"{destination} holds a {holds}, not a {kind}")
        self._world.pick_up(time, container, origin, self.name)

        def arrive(now: float) -> bytes:
            try:
                self._world.put_down(now, container, destination, self.name)
            except Refused as refusal:
                # A sensible person puts it back where it came from.
                self._world.put_down(now, container, origin, self.name)
                return f"refused {refusal}\n".encode()
            return b"done\n"

        return Answer(arrive, self._takes(self._carry_s))

    def _kind(self, container: str) -> str:
        if container not in self._world.containers:
            raise Refused(f"there is no container {container}")
        return self._world.containers[container].kind

    def _grind(self, name: str, duration: float, time: float) -> Answer:
        container = self._world.containers.get(name)
        if container is None:
            raise Refused(f"there is no container {name}")
        if container.at is None:
            raise Refused(f"{name} is in somebody's hands")
        self._world.advance(time)

        def finish(now: float) -> bytes:
            self._world.grind(now, container, duration)
            return b"done\n"

        return Answer(finish, duration + self._takes(self._carry_s))

    def _mount(self, name: str, holder_name: str, time: float) -> Answer:
        source = self._world.containers.get(name)
        holder = self._world.containers.get(holder_name)
        if source is None or holder is None:
            missing = name if source is None else holder_name
            raise Refused(f"there is no container {missing}")
        if source.at is None or holder.at is None:
            raise Refused("one of them is in somebody's hands")
        if source.matter.mass_g <= 0:
            raise Refused(f"{name} is empty")
        self._world.advance(time)

        def finish(now: float) -> bytes:
            self._world.recover_and_mount(now, source, holder, self.name)
            return b"done\n"

        return Answer(finish, self._takes(self._mount_s))


def _say(text: str, delay_s: float = 0.0) -> Answer:
    return Answer(f"{text}\n".encode("ascii", "replace"), delay_s)
