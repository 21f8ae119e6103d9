"""What every driver promises, whatever happens on its wire.

A test module has one small class for each instrument::

    class TestMyBalance(DeviceContract):
        lab = Path(__file__).parent / "my-lab.yaml"
        device = "balance"
        reading = "present_mass"
        tolerance = 0.001

        async def act(self, device):
            await device.trigger()

        async def refused(self, device):
            await device.zero.trigger()  # there is something on the pan

        def prepare(self, world):
            ...

Everything runs on the jumping loop: lab time costs nothing, so every fault may last as
long as it likes.

Bits of answers are flipped, too: any bit on a wire with a checksum (Modbus RTU), else
only where the language can tell. Without a checksum a single reading cannot show that a
digit was flipped, so it may be displayed, and what is acted upon must be confirmed:
:meth:`.LineClient.ask_confirmed`, :meth:`.HttpClient.get_confirmed`,
:meth:`.ModbusMaster.read_confirmed`.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from ophyd_async.core import Command, SignalW

from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    PPUError,
)
from ppu.core.labfile import load_lab
from ppu.devices.build import build_devices, driver_class
from ppu.devices.readings import Quality
from ppu.devices.signals import is_open_to_plans
from ppu.testing.cancelling import cancelled_at
from ppu.testing.servers import Reply, serve
from ppu.testing.stage import InstrumentContract, Stage, lab_text, read_lab
from ppu.twin.bench import Bench

__all__ = ["DeviceContract"]

Play = Callable[[Coroutine[Any, Any, Any]], Any]

FAULTS: Final = (
    "drop",
    "delay",
    "duplicate",
    "reorder",
    "truncate",
    "corrupt visibly",
    "corrupt",
    "garbage",
    "flood",
    "half-open",
    "reset",
    "stuck busy",
    "wrong unit",
    "wrong transaction id",
)
"""Faults that hit exchanges; those that the wire of a device can have are tried.

``corrupt`` flips any bits, and only a checksum shows that for certain. Elsewhere one
reading may show another digit, so there it is ``corrupt visibly`` alone.
"""

PORT_FAULTS: Final = ("refuse", "unplug")

_OWN_SERIAL: Final = "4321"
_OTHER_SERIAL: Final = "1234"
_LATE: Final = 1.4
"""How late a delayed answer is, in deadlines."""
_LASTS: Final = 4.0
"""How long a lasting fault lasts, in deadlines: longer than all tries."""
_N_MOMENTS: Final = 6
"""At how many moments of its duration an act is cancelled."""
_MOST_STEPS: Final = 500
_TESTS_OF_HOOKS: Final = (
    (("act",), "test_act_works"),
    (("act",), "test_act_works_while_somebody_watches"),
    (("act",), "test_device_can_be_read_when_an_act_was_cancelled"),
    (("refused",), "test_refusal_names_the_device_and_leaves_the_link_usable"),
    (("forbidden", "refused"), "test_limit_is_refused_before_a_byte_is_sent"),
    (("begin",), "test_abort_is_an_error_when_nobody_answers"),
)
"""Which tests need one of which hooks."""
_TESTS_OF_READING: Final = (
    "test_subscriber_hears_a_first_value_at_once_and_each_later_one_once",
    "test_reading_is_an_exchange_of_its_own_while_somebody_watches",
)
"""Which tests need a signal that is safe to read."""
_N_PERIODS: Final = 5
"""For how many periods of its polls a device is watched."""
_ABORT_TAKES_S: Final = 3600.0
"""After which the world must be as the abort state says: ramps take their time."""


class DeviceContract(InstrumentContract):
    """Tests that a driver and its simulated instrument must pass.

    Subclass it in a test module, give it the attributes of
    :class:`InstrumentContract`, and define those of the hooks below that make sense, as
    methods that take the device; what is not defined is not tested.

    Attributes:
        has_serial_number: Whether it tells its serial number.
    """

    has_serial_number: ClassVar[bool] = True

    async def act(self, device: Any) -> Any:
        """Do the happy act of its capability."""

    async def refused(self, device: Any) -> Any:
        """Do what the instrument or the lab must refuse."""

    async def forbidden(self, device: Any) -> Any:
        """Do what the limits of the lab file forbid; by default *refused* is done."""
        await self.refused(device)

    async def begin(self, device: Any) -> Any:
        """Begin what an abort must end: something that heats, flows or moves."""

    def __init_subclass__(cls) -> None:
        """Leave out the tests of what the instrument does not do."""
        super().__init_subclass__()
        for hooks, test in _TESTS_OF_HOOKS:
            if not any(cls._defines(hook) for hook in hooks):
                setattr(cls, test, None)
        if cls.reading is None:
            for test in _TESTS_OF_READING:
                setattr(cls, test, None)

    @classmethod
    def _defines(cls, hook: str) -> bool:
        """Return whether a subclass defines *hook*."""
        return getattr(cls, hook) is not getattr(DeviceContract, hook)

    def is_safe(self, state: str | None, world: Any, simulated: Any) -> bool:
        """Return whether an abort state is reached in the world, not only on paper.

        Args:
            state: What the lab file says under ``on_abort``.
            world: The world of the simulators.
            simulated: The simulated instrument.
        """
        del state, world, simulated
        return True

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Try the faults that this wire can have, and the states of this driver."""
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", self._possible(FAULTS))
        if "port_fault" in metafunc.fixturenames:
            metafunc.parametrize("port_fault", self._possible(PORT_FAULTS))
        if "abort_state" in metafunc.fixturenames:
            metafunc.parametrize("abort_state", self._abort_states())

    # -- who it is -------------------------------------------------------------------

    def test_device_says_who_it_is_when_it_connects(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Model and serial number come from the instrument itself."""

        async def scenario(stage: Stage) -> None:
            await stage.device.connect_link()
            identity = stage.device.identity
            assert identity is not None
            assert identity.model
            if self.has_serial_number:
                assert identity.serial_number == _OWN_SERIAL

        self._play(play, tmp_path, scenario, serial_number=_OWN_SERIAL)

    def test_connect_is_refused_when_the_serial_number_is_another(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Of two instruments that were swapped none is used."""

        async def scenario(stage: Stage) -> None:
            with pytest.raises(ConnectError, match=_OTHER_SERIAL) as caught:
                await stage.device.connect_link()
            assert self.device in str(caught.value)

        self._play(
            play,
            tmp_path,
            scenario,
            serial_number=_OWN_SERIAL,
            change=lambda _: {"serial_number": _OTHER_SERIAL},
        )

    def test_connect_is_refused_when_a_stranger_answers(
        self, play: Play, tmp_path: Path
    ) -> None:
        """What speaks another language at the same address is not taken for it."""

        async def scenario(stage: Stage) -> None:
            transport = stage.connection["transport"]
            stranger = serve(transport, _Stranger(is_http=transport == "http"))
            place = await stranger.start()
            device = stage.make_device({**stage.connection, **place})
            try:
                with pytest.raises(ConnectError) as caught:
                    await device.connect_link()
                assert self.device in str(caught.value)
            finally:
                await device.disconnect()
                await stranger.stop()

        self._play(play, tmp_path, scenario)

    # -- when all is well ------------------------------------------------------------

    def test_reading_is_good_and_has_a_unit(self, play: Play, tmp_path: Path) -> None:
        """A healthy instrument gives a value that may be acted upon."""

        async def scenario(stage: Stage) -> None:
            value = await stage.look()
            stage.check(await stage.look(), value)
            if self.reading is None:
                return
            reading = await stage.device.read_signal(self.reading)
            assert stage.device.quality(reading) is Quality.GOOD
            assert reading["timestamp"] == pytest.approx(stage.loop.stamp(), abs=5.0)
            if isinstance(value, float):
                assert stage.device.units_of(self.reading), "a number without a unit"

        self._play(play, tmp_path, scenario, connects=True)

    def test_device_works_when_it_was_disconnected(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Disconnecting twice is harmless, and the next look connects again."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            await stage.device.disconnect()
            await stage.device.disconnect()
            stage.check(await stage.look(), healthy)

        self._play(play, tmp_path, scenario, connects=True)

    def test_act_works(self, play: Play, tmp_path: Path) -> None:
        """The act of its capability ends without error, and nothing goes wrong."""

        async def scenario(stage: Stage) -> None:
            await self.act(stage.device)
            assert list(stage.world.incidents) == []

        self._play(play, tmp_path, scenario, connects=True)

    # -- who listens -----------------------------------------------------------------

    def test_staging_costs_no_exchange(self, play: Play, tmp_path: Path) -> None:
        """What is staged is read when a plan reads it, and not before."""

        async def scenario(stage: Stage) -> None:
            before = stage.link.statistics()
            await stage.device.stage()
            await asyncio.sleep(_N_PERIODS * stage.device.poll_period_s)
            await stage.device.unstage()
            assert stage.link.statistics() == before

        self._play(play, tmp_path, scenario, connects=True)

    def test_subscriber_hears_a_first_value_at_once_and_each_later_one_once(
        self, play: Play, tmp_path: Path
    ) -> None:
        """One poll a period, however many listen; none when nobody does any more."""

        async def scenario(stage: Stage) -> None:
            first, second = _Listener(), _Listener()
            signal = getattr(stage.device, self.reading or "")
            period_s = stage.device.poll_period_s
            before = stage.link.statistics().n_exchanges
            first.listen_to(signal)
            second.listen_to(signal)
            await asyncio.sleep(min(2 * stage.link.deadline_s, 0.5 * period_s))
            assert len(first.heard) == 1, "nothing was heard at once"
            stage.check(first.heard[0]["value"], await stage.look())
            await asyncio.sleep((_N_PERIODS - 0.25) * period_s)
            heard = first.heard
            stamps = [reading["timestamp"] for reading in heard]
            assert stamps == sorted(set(stamps)), "something was heard twice"
            # What `look` read is no poll, and may stand for one.
            assert _N_PERIODS - 1 <= len(heard) <= _N_PERIODS + 2
            assert second.heard == heard
            assert stage.link.statistics().n_exchanges - before == len(heard)
            first.clear()
            second.clear()
            silent = stage.link.statistics()
            await asyncio.sleep(_N_PERIODS * period_s)
            assert stage.link.statistics() == silent, "it is polled on"

        self._play(play, tmp_path, scenario, connects=True)

    def test_reading_is_an_exchange_of_its_own_while_somebody_watches(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Who reads gets what is so now, not what was polled last."""

        async def scenario(stage: Stage) -> None:
            listener = _Listener()
            signal = getattr(stage.device, self.reading or "")
            listener.listen_to(signal)
            await asyncio.sleep(1.5 * stage.device.poll_period_s)
            before = stage.link.statistics().n_exchanges
            (reading,) = (await signal.read()).values()
            assert stage.link.statistics().n_exchanges == before + 1
            assert listener.heard[-1] == reading, "the listener did not hear it"
            listener.clear()

        self._play(play, tmp_path, scenario, connects=True)

    def test_act_works_while_somebody_watches(self, play: Play, tmp_path: Path) -> None:
        """Whoever listens, and fails at it, disturbs no act."""

        async def scenario(stage: Stage) -> None:
            listeners = []
            for signal in stage.device.signals().values():
                listeners.append(_Listener(fails=True))
                listeners[-1].listen_to(signal)
            await self.act(stage.device)
            assert list(stage.world.incidents) == []
            for listener in listeners:
                listener.clear()

        self._play(play, tmp_path, scenario, connects=True)

    # -- refusals --------------------------------------------------------------------

    def test_raw_write_is_refused_before_a_byte_is_sent(
        self, play: Play, tmp_path: Path
    ) -> None:
        """A plan writes nothing directly that its address does not open to plans."""

        async def scenario(stage: Stage) -> None:
            before = stage.link.statistics()
            for name, child in _closed_children(stage.device):
                for value in _values_for(child):
                    with pytest.raises((InterlockError, LimitError)) as caught:
                        await _write_raw(child, value)
                    assert self.device in str(caught.value)
                    assert stage.link.statistics() == before, f"{name} was sent"

        self._play(play, tmp_path, scenario, connects=True)

    def test_refusal_names_the_device_and_leaves_the_link_usable(
        self, play: Play, tmp_path: Path
    ) -> None:
        """A refusal is an answer: an error, and no reason to connect again."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            with pytest.raises((InstrumentError, LimitError)) as caught:
                await self.refused(stage.device)
            assert self.device in str(caught.value)
            assert stage.link.statistics().n_losses == 0
            stage.check(await stage.look(), healthy)

        self._play(play, tmp_path, scenario, connects=True)

    def test_limit_is_refused_before_a_byte_is_sent(
        self, play: Play, tmp_path: Path
    ) -> None:
        """What the lab file forbids never gets to the instrument."""

        async def scenario(stage: Stage) -> None:
            before = stage.link.statistics()
            with pytest.raises((LimitError, InstrumentError)) as caught:
                await self.forbidden(stage.device)
            if isinstance(caught.value, InstrumentError):
                pytest.skip("`refused` is no limit of the lab file: define `forbidden`")
            assert self.device in str(caught.value)
            assert stage.link.statistics() == before

        self._play(play, tmp_path, scenario, connects=True)

    def test_unknown_setting_is_refused_with_its_line(self, tmp_path: Path) -> None:
        """A typo in the lab file is no default, and the error leads to it."""
        file, _ = read_lab(self.lab, tmp_path)
        entry = file.devices[self.device]
        for key in ("settings", "limits"):
            wrong = entry.model_copy(
                update={key: {**getattr(entry, key), "no_such_key": 1}}
            )
            devices = {**file.devices, self.device: wrong}
            path = tmp_path / "wrong.yaml"
            path.write_text(lab_text(file.model_copy(update={"devices": devices})))
            lines = path.read_text().splitlines()
            (line,) = (n for n, t in enumerate(lines, 1) if "no_such_key" in t)

            with pytest.raises(ConfigurationError, match="no_such_key") as caught:
                build_devices(load_lab(path), path, only=(self.device,))
            assert f"line {line}, column " in str(caught.value)

    # -- when the wire fails ---------------------------------------------------------

    def test_reading_is_right_or_an_error_when_a_fault_hits_once(
        self, play: Play, tmp_path: Path, fault: str
    ) -> None:
        """One spoiled exchange is never taken for a value, and nothing of it stays."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            stage.inject(fault, count=1, **self._options(stage, fault))
            await stage.look_in_trouble(healthy)
            assert stage.has_hit(fault)
            await stage.look_when_over(healthy)
            stage.check(await stage.look(), healthy)

        self._play(play, tmp_path, scenario, connects=True)

    def test_reading_is_right_or_an_error_when_a_fault_lasts(
        self, play: Play, tmp_path: Path, fault: str
    ) -> None:
        """An error names the device in bounded time; when it is over, it is over."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            ends_s = stage.loop.time() + _LASTS * stage.link.deadline_s
            lasts_s = ends_s - stage.loop.time()
            stage.inject(fault, for_s=lasts_s, **self._options(stage, fault))
            while stage.loop.time() < ends_s:
                await stage.look_in_trouble(healthy)
                await asyncio.sleep(0.25 * stage.link.deadline_s)
            assert stage.has_hit(fault)
            await stage.look_when_over(healthy)
            stage.check(await stage.look(), healthy)

        self._play(play, tmp_path, scenario, connects=True)

    def test_reading_is_an_error_when_the_port_is_gone(
        self, play: Play, tmp_path: Path, port_fault: str
    ) -> None:
        """Nobody there is an error, each time; once somebody is, it is right again."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            stage.inject(port_fault)
            await stage.device.disconnect()
            for _ in range(3):
                outcome = await stage.look_in_trouble(healthy)
                assert isinstance(outcome.error, ConnectError)
            await stage.clear()
            await stage.look_when_over(healthy)

        self._play(play, tmp_path, scenario, connects=True)

    def test_reading_recovers_when_the_line_breaks_in_mid_reply(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Half an answer and a broken connection are no value, and no end."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            stage.inject("truncate", count=1)
            stage.inject("reset", count=1)
            await stage.look_in_trouble(healthy)
            await stage.look_when_over(healthy)
            assert stage.has_hit("truncate")
            assert stage.has_hit("reset")

        self._play(play, tmp_path, scenario, connects=True)

    def test_loss_and_return_are_told_once_when_it_was_unplugged(
        self, play: Play, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It reconnects by itself; people read one line for loss and return each."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            stage.inject("unplug")
            for _ in range(3):
                outcome = await stage.look_in_trouble(healthy)
                assert outcome.error is not None
            await stage.clear()
            await stage.look_when_over(healthy)
            found = stage.link.statistics()
            assert (found.n_losses, found.n_returns) == (1, 1)

        with caplog.at_level(logging.WARNING, "ppu.link"):
            self._play(play, tmp_path, scenario, connects=True)

        told = [
            record.getMessage()
            for record in caplog.records
            if record.getMessage().startswith(f"{self.device}: link ")
        ]
        assert len([text for text in told if "link lost" in text]) == 1, told
        assert len([text for text in told if "link is back" in text]) == 1, told

    # -- when somebody gives up ------------------------------------------------------

    def test_next_reading_is_right_when_a_look_was_cancelled_anywhere(
        self, play: Play, tmp_path: Path
    ) -> None:
        """At whichever await a look is cancelled, it leaves no answer to the next."""

        async def scenario(stage: Stage) -> None:
            healthy = await stage.look()
            n_tasks = len(asyncio.all_tasks())
            step = 1
            while await cancelled_at(step, stage.look):
                stage.check(await stage.look(), healthy)
                await _check_no_task_is_left(n_tasks)
                step += 1
                assert step < _MOST_STEPS, "a look never ends by itself"

        self._play(play, tmp_path, scenario, connects=True)

    def test_next_reading_is_right_when_connecting_was_cancelled_anywhere(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Who is cancelled while it connects leaves a device that can be connected."""

        async def scenario(stage: Stage) -> None:
            await stage.device.connect_link()
            healthy = await stage.look()
            await stage.device.disconnect()
            step = 1
            while await cancelled_at(step, stage.device.connect_link):
                stage.check(await stage.look(), healthy)
                await stage.device.disconnect()
                step += 1
                assert step < _MOST_STEPS, "connecting never ends by itself"

        self._play(play, tmp_path, scenario)

    def test_device_can_be_read_when_an_act_was_cancelled(
        self, play: Play, tmp_path: Path
    ) -> None:
        """An act that is cancelled and aborted leaves a device that answers."""

        async def take_time(stage: Stage) -> float:
            begun = stage.loop.time()
            await self.act(stage.device)
            return stage.loop.time() - begun

        lasts_s = self._play(play, tmp_path, take_time, connects=True)

        async def cancel_at(moment_s: float, stage: Stage) -> None:
            await stage.look()
            n_tasks = len(asyncio.all_tasks())
            acting = asyncio.ensure_future(self.act(stage.device))
            await asyncio.sleep(moment_s)
            acting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acting
            await stage.device.go_to_abort_state()
            await stage.look()
            await stage.device.disconnect()
            await _check_no_task_is_left(n_tasks)

        for n in range(_N_MOMENTS):
            moment_s = lasts_s * (n + 0.5) / _N_MOMENTS
            self._play(play, tmp_path, partial(cancel_at, moment_s), connects=True)

    # -- stopping --------------------------------------------------------------------

    def test_abort_state_is_reached(
        self, play: Play, tmp_path: Path, abort_state: str | None
    ) -> None:
        """What was begun is ended as the lab file says, and twice is harmless."""

        async def scenario(stage: Stage) -> None:
            await self.begin(stage.device)
            said = await stage.device.go_to_abort_state()
            if self._defines("begin") and abort_state is not None:
                assert self.device in said
            await asyncio.sleep(_ABORT_TAKES_S)
            stage.world.truth(stage.loop.time())
            simulated = stage.bench.instruments[self.device]
            assert self.is_safe(abort_state, stage.world, simulated)
            await stage.device.go_to_abort_state()
            await stage.look()

        self._play(
            play,
            tmp_path,
            scenario,
            connects=True,
            change=lambda _: {"on_abort": abort_state},
        )

    def test_abort_is_an_error_when_nobody_answers(
        self, play: Play, tmp_path: Path
    ) -> None:
        """No state is claimed that could not be verified."""

        async def scenario(stage: Stage) -> None:
            await self.begin(stage.device)
            stage.inject("drop", for_s=1e6)
            with pytest.raises(PPUError) as caught:
                await stage.device.go_to_abort_state()
            assert self.device in str(caught.value)
            await stage.clear()
            await asyncio.sleep(10.0)
            await stage.device.go_to_abort_state()

        self._play(play, tmp_path, scenario, connects=True)

    # -- how ---------------------------------------------------------------------------

    def _play(
        self,
        play: Play,
        folder: Path,
        scenario: Callable[[Stage], Awaitable[Any]],
        *,
        connects: bool = False,
        **options: Any,
    ) -> Any:
        """Play *scenario* on a stage of its own."""

        async def on_stage() -> Any:
            async with Stage(self, folder, **options) as stage:
                if connects:
                    await stage.device.connect_link()
                return await scenario(stage)

        return play(on_stage())

    def _options(self, stage: Stage, fault: str) -> dict[str, float]:
        if fault == "delay":
            return {"by_s": _LATE * stage.link.deadline_s}
        return {}

    def _possible(self, faults: Sequence[str]) -> list[str]:
        """Return those of *faults* that can happen on the wire of the device."""
        with tempfile.TemporaryDirectory() as folder:
            file, path = read_lab(self.lab, Path(folder))
            only = (self.device, *self.needs)
            known = Bench(file, path, 0, only=only).faults_of(self.device).known
        # Of the framings only Modbus RTU has units, but no numbers of requests.
        has_checksum = "wrong unit" in known and "wrong transaction id" not in known
        unfair = set() if has_checksum else {"corrupt"}
        return [fault for fault in faults if fault in known and fault not in unfair]

    def _abort_states(self) -> list[str | None]:
        with tempfile.TemporaryDirectory() as folder:
            file, _ = read_lab(self.lab, Path(folder))
        states = driver_class(self.device, file.devices[self.device]).abort_states
        return [*states] or [None]


async def _check_no_task_is_left(n_before: int) -> None:
    """Check that nothing of what was cancelled goes on.

    Servers on the same loop have tasks, too: one ends, another begins.

    Args:
        n_before: How many tasks there were.
    """
    await asyncio.sleep(1.0)
    tasks = asyncio.all_tasks()
    assert len(tasks) <= n_before, f"something goes on: {tasks}"


class _Listener:
    """Keeps what one subscriber of one signal hears.

    Args:
        fails: Whether it raises whenever it hears something.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.heard: list[dict[str, Any]] = []
        self._fails = fails
        self._signal: Any = None

    def __call__(self, readings: dict[str, Any]) -> None:
        """Hear a reading."""
        self.heard.extend(readings.values())
        if self._fails:
            raise RuntimeError("this subscriber fails, which must disturb nobody")

    def listen_to(self, signal: Any) -> None:
        """Subscribe to *signal*."""
        self._signal = signal
        signal.subscribe_reading(self)

    def clear(self) -> None:
        """Subscribe no more."""
        self._signal.clear_sub(self)


def _closed_children(device: Any) -> list[tuple[str, Any]]:
    """Return the signals and commands of *device* that are closed to plans, by name."""
    return [
        (name, child)
        for name, child in device.children()
        if isinstance(child, SignalW | Command) and not is_open_to_plans(child)
    ]


def _values_for(child: Any) -> list[Any]:
    """Return values to try on *child*, allowed ones first."""
    if isinstance(child, Command):
        return [None]
    if issubclass(child.datatype, enum.Enum):
        return list(child.datatype)
    return [child.datatype(1), 0, 1e9, math.nan, "1"]


async def _write_raw(child: Any, value: Any) -> None:
    """Write *value* as a plan does, or trigger what is no signal."""
    if isinstance(child, Command):
        n_arguments = len(child.signature.parameters) if child.signature else 0
        await child.execute(*[1.0] * n_arguments)
    else:
        await child.set(value)


class _Stranger:
    """Answers everything with something else."""

    def __init__(self, *, is_http: bool) -> None:
        self._answer = b'{"hello": "world"}' if is_http else b"220 smtp ready\r\n"

    def greet(self) -> Sequence[Reply]:
        return []

    def hear(self, data: bytes) -> Sequence[Reply]:
        del data
        return [Reply(self._answer)]
