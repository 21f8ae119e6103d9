"""A lab on a target: connects devices, runs plans, makes safe, closes everything."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bluesky.utils import Msg, MsgGenerator

from ppu.cell.bench_lock import BenchLock
from ppu.cell.making_safe import MadeSafe, make_safe
from ppu.cell.pace import Pace, Target, make_loop
from ppu.core.custody import CustodyLedger
from ppu.core.errors import (
    AbortedError,
    ConfigurationError,
    InterlockError,
    PPUError,
    nearest,
)
from ppu.core.labfile import LabFile
from ppu.core.notices import tell
from ppu.core.remedies import Remedy, advise
from ppu.core.stopping import on_stop_signal
from ppu.devices.build import build_devices, driver_class, places_of
from ppu.devices.instrument import LabDevice
from ppu.engine.host import Host
from ppu.engine.recorder import JobRecorder
from ppu.engine.resources import Resources
from ppu.plans.lab import Lab
from ppu.twin.bench import Bench, Links

__all__ = ["OpenLab"]

# A page costs more than its samples; a twin that dies loses nothing.
_FLUSH_TWIN_S = 600.0
_FLUSH_HARDWARE_S = 30.0

_ASK_AGAIN_WALL_S: Final = 0.1
"""How often whoever closes a lab asks what runs to end: it may begin just then."""


class Turns:
    """Lets one plan run at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = ""
        self._stop: Callable[[str], None] = tell

    @contextlib.contextmanager
    def take(
        self, what: str, stop: Callable[[str], None], *, queued: bool
    ) -> Iterator[None]:
        """Have the lab for *what* while the block runs.

        Args:
            what: What runs, for whoever comes too early.
            stop: Ends it, for a reason.
            queued: Whether to wait for a turn.

        Raises:
            InterlockError: If something else runs and *queued* does not say to wait.
        """
        if not self._lock.acquire(blocking=queued):
            raise InterlockError(
                f"the lab is busy: {self._running} runs, and is not disturbed; wait "
                "for it, say queued=True to wait here, or run several protocols at "
                "once with run_protocols"
            )
        self._running, self._stop = what, stop
        try:
            yield
        finally:
            self._lock.release()

    def end(self, why: str) -> None:
        """Stop what runs, wait until it is safe, and give no turn any more."""
        while not self._lock.acquire(timeout=_ASK_AGAIN_WALL_S):
            self._stop(why)


class OpenLab(Mapping[str, Any]):
    """A lab with connected devices.

    It maps device names to devices; devices are attributes, too.

    Args:
        file: The lab file.
        path: Where it was read from.
        target: ``twin`` or ``hardware``.
        pace: Lab seconds per wall second, None to jump, or the default.
        seed: Seed of the twin's random streams.
        only: Devices to connect; by default all.
        attended: Whether somebody stays beside hardware that heats.
        links: What carries bytes to the twin; see :class:`~ppu.twin.bench.Bench`.
    """

    def __init__(
        self,
        file: LabFile,
        path: Path,
        *,
        target: Target,
        pace: Pace,
        seed: int | None = None,
        only: tuple[str, ...] = (),
        attended: bool = False,
        links: Links = "kernel",
    ) -> None:
        self.file = file
        self.path = path
        self.target = target
        self.seed = file.seed if seed is None else seed
        self.has_run = False
        """Whether a plan was ever begun."""
        self._attended = attended
        self._only = only
        self.bench: Bench | None = None
        if target == "twin":
            self.bench = Bench(file, path, self.seed, only=only, links=links)
        self.is_simulated = target == "twin" or file.simulated_bench is not None
        loop = make_loop(file, target, pace)
        self.ledger = CustodyLedger.of(file)
        """What is believed of the lab's containers and stock, shared by all views."""
        self.resources = Resources(loop, file, self.ledger)
        self.host = Host(loop, self.resources)
        self.devices: dict[str, LabDevice] = {}
        self._view: Lab | None = None
        self.turns = Turns()
        self._bench_lock: BenchLock | None = None

    # -- opening and closing ---------------------------------------------------------

    def own_bench(self, handed: Iterable[int] = ()) -> None:
        """Have the instruments for this process alone until the lab is closed.

        A twin shares its instruments with nobody. Calling it again is harmless.

        Args:
            handed: Locks that a guard has handed on to this process.

        Raises:
            ConflictError: If another process has one of them; with who, and since when.
            ConfigurationError: If an entry does not fit its driver.
        """
        if self.target == "hardware" and self._bench_lock is None:
            places = places_of(self.file, self.path, self._only)
            who = f"lab {self.file.lab} ({self.path})"
            self._bench_lock = BenchLock(places, who, handed)

    def connect(self) -> None:
        """Connect every device and check its identity.

        Raises:
            ConfigurationError: If an entry does not fit its driver.
            ConflictError: If another process has one of the instruments.
            ConnectError: If an instrument is absent or is a stranger; with every one.
        """
        self.own_bench()
        self.host.call(self._connect())

    async def _connect(self) -> None:
        if self.bench is not None:
            await self.bench.start()
            connections: Mapping[str, Any] | None = self.bench.connections
        else:
            connections = None
        devices = build_devices(self.file, self.path, connections, self._only)
        faults: list[PPUError] = []
        for name, device in devices.items():
            if self.target == "hardware" and self.file.simulated_bench is not None:
                device.expected_nonce = self.file.simulated_bench.nonces.get(name, "")
            self.devices[name] = device  # before: what is half open is closed, too
            try:
                await device.connect_link()
            except PPUError as exc:
                faults.append(exc)
        if faults:
            # One class for all: whoever must act is the same person at the bench.
            raise type(faults[0])(
                "\n".join(str(fault) for fault in faults),
                advice=[one for fault in faults for one in fault.advice],
            )

    def close(self) -> None:
        """Disconnect every device, stop the simulators, the loop and its thread.

        It is short, and not interrupted by stop signals.
        """
        self.host.check_caller()
        with on_stop_signal(lambda _: None):
            self.turns.end("the lab is closed")
            try:
                self.host.end_tasks()
                self.host.call(self._disconnect())
            finally:
                self.host.close()
                if self._bench_lock is not None:
                    self._bench_lock.close()

    async def _disconnect(self) -> None:
        for device in self.devices.values():
            await device.disconnect()
        if self.bench is not None:
            await self.bench.stop()

    @contextlib.contextmanager
    def closing(self) -> Iterator[OpenLab]:
        """Close the lab at the end of the block, connected or not."""
        try:
            yield self
        finally:
            self.close()

    def __enter__(self) -> OpenLab:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- using -----------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        return self.devices[name].plan_device

    def __getattr__(self, name: str) -> Any:
        devices = self.__dict__.get("devices", {})
        if name in devices:
            return devices[name].plan_device
        raise AttributeError(
            f"lab {self.file.lab} has no device '{name}'; it has "
            f"{', '.join(devices) or 'none connected'}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.devices)

    def __len__(self) -> int:
        return len(self.devices)

    def view(self) -> Lab:
        """Return the lab as protocols see it.

        It is the same one as long as the lab is open: what a job moved, used and
        spent is so for the next one.
        """
        if self._view is None:
            self._view = self.new_view()
        return self._view

    def new_view(self) -> Lab:
        """Return a view for one job among several; they share what they believe."""
        hardware = self.target == "hardware"
        flush_s = _FLUSH_HARDWARE_S if hardware else _FLUSH_TWIN_S
        devices = {name: item.plan_device for name, item in self.devices.items()}
        return Lab(self.file, devices, flush_s, self.ledger)

    def run(
        self,
        plan: Any,
        recorder: JobRecorder | None = None,
        *,
        on_made_safe: Callable[[MadeSafe], None] | None = None,
        queued: bool = False,
    ) -> Any:
        """Run any Bluesky plan on this lab and return what it returns.

        SIGINT (Ctrl-C), SIGTERM and SIGHUP abort the plan. Whenever it does not end
        as it should, every device is brought to its abort state, and people are told
        so on standard error; if it does, what heats or lets gas flow.

        Args:
            plan: A generator of messages, your own or a protocol's.
            recorder: Keeps documents and steps, if anything does.
            on_made_safe: Told what came of making the devices safe, if that was done.
            queued: Whether to wait while another plan runs, instead of being refused.

        Raises:
            ConfigurationError: If something could heat and nobody attends it; or it is
                called from a plan or callback, which run on the lab's own loop.
            InterlockError: If another plan runs; that is not disturbed.
            AbortedError: If somebody asked to stop.
        """
        self.check_not_closed()
        self.check_attended()
        what = getattr(plan, "__name__", "a plan")
        with self.turns.take(what, self.host.abort, queued=queued):
            return self._run_alone(plan, recorder, on_made_safe)

    def _run_alone(
        self,
        plan: Any,
        recorder: JobRecorder | None,
        on_made_safe: Callable[[MadeSafe], None] | None,
    ) -> Any:
        """Run a plan while no other one runs."""
        messages: Iterator[Msg] = plan
        stopped_by: list[str] = []

        def stop(number: signal.Signals) -> None:
            if not stopped_by:
                stopped_by.append(f"stopped by {number.name}")
                tell(f"{number.name}: stopping; wait for the last lines")
                self.host.abort(stopped_by[0])

        def unless_stopped() -> MsgGenerator[Any]:
            if stopped_by:  # before the host ran, so that it could not abort
                raise AbortedError(stopped_by[0])
            return (yield from messages)

        with on_stop_signal(stop):
            self.has_run = True
            try:
                guarded: Any = unless_stopped()
                guarded.__name__ = getattr(plan, "__name__", guarded.__name__)
                result = self.host.run(guarded, recorder)
            except BaseException:
                made = self.host.call(self.amake_safe(self.devices))
                _tell(made, on_made_safe)
                raise
            _tell(self.host.call(self.rest()), on_made_safe)
            return result

    def subscribe(self, callback: Callable[[str, dict[str, Any]], None]) -> int:
        """Have *callback* called with name and content of each Bluesky document.

        Returns:
            A token for :meth:`unsubscribe`.
        """
        return self.host.subscribe(callback)

    def unsubscribe(self, token: int) -> None:
        """End a subscription."""
        self.host.unsubscribe(token)

    def check_not_closed(self) -> None:
        """Refuse to use a lab that was closed, or to wait for its loop on it.

        Raises:
            ConfigurationError: If so.
        """
        self.host.check_caller()
        if not self.host.is_alive:
            raise ConfigurationError(
                f"lab {self.file.lab} is closed; open it anew with open_lab(...)"
            )

    def check_open(self) -> None:
        """Refuse to ask the devices of a lab that is not open.

        Raises:
            ConfigurationError: If it is not.
        """
        self.check_not_closed()
        if not self.devices:
            raise ConfigurationError(
                f"lab {self.file.lab} is not open yet: use it in a `with` statement, "
                "or open() it"
            )

    def check_attended(self) -> None:
        """Refuse to heat hardware with nobody beside it.

        Raises:
            ConfigurationError: If something could heat and nobody says to stay.
        """
        if self.target != "hardware" or self._attended:
            return
        hot = [
            name
            for name, entry in self.file.devices.items()
            if (not self._only or name in self._only)
            and driver_class(name, entry).heats
        ]
        if hot:
            raise ConfigurationError(
                f"{', '.join(hot)} can heat, and nobody would see to it if this died: "
                "stay beside it and open the lab with attended=True, or put jobs into "
                "a queue and start a guard",
                advice=[advise(Remedy.ATTEND), advise(Remedy.START_GUARD)],
            )

    def make_safe(self) -> list[str]:
        """Bring every device to its declared abort state; return what to tell people.

        Every device is tried, whatever happens to the others, and again for a minute
        if it does not get there.
        """
        made = self.host.call(self.amake_safe(self.devices))
        return [*made.told, *made.unsafe.values()]

    async def amake_safe(self, names: Iterable[str]) -> MadeSafe:
        """Bring the devices *names* to their abort states, as :meth:`make_safe`."""
        return await make_safe({name: self.devices[name] for name in names})

    async def rest(self, names: Iterable[str] | None = None) -> MadeSafe:
        """Bring what heats or lets gas flow to its abort state.

        It is for the end of a plan that went well; a device that does nothing for a
        plan of this process is not asked.

        Args:
            names: Devices that may; by default all, for a plan that runs alone.
        """
        wanted = self.devices if names is None else set(names)
        resting = {
            name: device
            for name, device in self.devices.items()
            if device.rests and name in wanted
        }
        return await make_safe(resting, is_routine=True)

    def read(self, device: str, signal: str) -> dict[str, Any]:
        """Return value, quality and time of one signal, read now.

        Raises:
            ConfigurationError: If there is no such device or signal, or the lab is not
                open.
        """
        self.check_open()
        if device not in self.devices:
            raise ConfigurationError(
                f"lab {self.file.lab} has no device '{device}'; "
                f"{nearest(device, self.devices)}"
            )
        instrument = self.devices[device]
        if signal not in (known := instrument.signal_names()):
            raise ConfigurationError(
                f"{device} has no signal '{signal}'; {nearest(signal, known)}"
            )

        async def read_now() -> dict[str, Any]:
            reading = await instrument.read_signal(signal)
            quality = instrument.quality(reading)
            return {**reading, "quality": quality.value}

        return self.host.call(read_now())


def _tell(made: MadeSafe, on_made_safe: Callable[[MadeSafe], None] | None) -> None:
    """Tell people what was made safe, and whoever keeps it."""
    for line in (*made.told, *made.unsafe.values()):
        tell(line)
    if on_made_safe is not None:
        on_made_safe(made)
