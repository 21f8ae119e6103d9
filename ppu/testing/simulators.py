"""What every simulated instrument promises.

A test module has one small class for each instrument::

    class TestMySimulatedBalance(SimulatorContract):
        lab = Path(__file__).parent / "my-lab.yaml"
        device = "balance"
        reading = "present_mass"
        is_noisy = True
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from ppu.core.errors import ConfigurationError, PPUError
from ppu.core.labfile import load_lab
from ppu.testing.leaks import open_paths
from ppu.testing.loops import play_from_start
from ppu.testing.stage import InstrumentContract, Stage, lab_text, read_lab
from ppu.transports.http import HttpClient
from ppu.transports.link import ByteLink
from ppu.transports.recording import PLACES, plain
from ppu.twin.bench import Bench

__all__ = ["HttpCall", "SimulatorContract"]

Play = Callable[[Coroutine[Any, Any, Any]], Any]

_SEEDS: Final = (11, 12)
_PERIODS_S: Final = (1.0, 10.0, 60.0)
_NEAR: Final = 5e-3
"""How far two states may be apart because something was done a moment later."""


@dataclass(frozen=True)
class HttpCall:
    """One request of a script, of an instrument that is reached over HTTP."""

    path: str
    method: str = "GET"
    body: Any = None


class SimulatorContract(InstrumentContract):
    """Tests that a simulated instrument must pass.

    Subclass it in a test module and give it the attributes of
    :class:`InstrumentContract`.

    Attributes:
        script: What is sent to it raw, as (lab time [s], bytes or :class:`HttpCall`);
            without one the driver connects, and :meth:`act` follows.
        lasts_s: Lab time that is simulated after that [s].
        n_looks: How many looks of a run are compared.
        is_noisy: Whether its readings differ from seed to seed.
        changes_matter: Whether mass comes in or goes out through it, such as gas.
    """

    script: ClassVar[Sequence[tuple[float, bytes | HttpCall]]] = ()
    lasts_s: ClassVar[float] = 600.0
    n_looks: ClassVar[int] = 10
    is_noisy: ClassVar[bool] = False
    changes_matter: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Leave out the tests of what the instrument is not."""
        super().__init_subclass__()
        for does_not, test in (
            (not cls.is_noisy, "test_readings_differ_when_the_seed_is_another"),
            (cls.changes_matter, "test_no_element_is_lost_or_made"),
        ):
            if does_not:
                setattr(cls, test, None)

    async def act(self, device: Any) -> None:
        """Do what shall be simulated; by default nothing but looking."""

    def state(self, world: Any, simulated: Any) -> Any:
        """Return the physical state that all ways of looking must leave the same.

        By default it is what the world calls its truth, and its incidents.

        Args:
            world: The world of the simulators.
            simulated: The simulated instrument.
        """
        del simulated
        incidents = [(i.lab_time_s, i.kind, i.text) for i in world.incidents]
        return {"truth": world.truth(_now()), "incidents": incidents}

    # -- physics ---------------------------------------------------------------------

    def test_world_is_the_same_however_often_somebody_looks(
        self, tmp_path: Path
    ) -> None:
        """Physics has a clock of its own: polling it changes nothing."""
        states = [
            play_from_start(self._run(tmp_path, seed=_SEEDS[0], looks_every_s=period_s))
            for period_s in _PERIODS_S
        ]

        assert states[1] == states[0]
        assert states[2] == states[0]

    def test_world_is_nearly_the_same_however_often_somebody_asks(
        self, tmp_path: Path
    ) -> None:
        """Questions over the wire delay what is done there, and do nothing else."""
        states = [
            play_from_start(self._run(tmp_path, seed=_SEEDS[0], asks_every_s=period_s))
            for period_s in _PERIODS_S
        ]

        _check_near(states[1][0], states[0][0])
        _check_near(states[2][0], states[0][0])

    def test_run_repeats_when_the_seed_is_the_same(self, tmp_path: Path) -> None:
        """World and readings are the same to the last digit."""
        first = play_from_start(self._run(tmp_path, seed=_SEEDS[0]))
        second = play_from_start(self._run(tmp_path, seed=_SEEDS[0]))

        assert second == first

    def test_readings_differ_when_the_seed_is_another(self, tmp_path: Path) -> None:
        """Noise comes from the seed, and from nowhere else."""
        _, first = play_from_start(self._run(tmp_path, seed=_SEEDS[0]))
        _, second = play_from_start(self._run(tmp_path, seed=_SEEDS[1]))

        assert second != first

    def test_no_element_is_lost_or_made(self, play: Play, tmp_path: Path) -> None:
        """What is in the world stays in it, wherever it goes."""

        async def scenario(stage: Stage) -> tuple[Any, Any]:
            elements = getattr(stage.world, "elements", None)
            if elements is None:
                pytest.skip("this world keeps no account of elements")
            before = elements()
            await self._go_through(stage)
            stage.world.truth(stage.loop.time())
            return before, elements()

        before, after = self._play(play, tmp_path, scenario)

        assert after == pytest.approx(before)

    # -- coming and going ------------------------------------------------------------

    def test_nothing_is_left_when_it_was_stopped(
        self, play: Play, tmp_path: Path
    ) -> None:
        """No descriptor, task or file stays, even if a client was connected."""

        async def scenario() -> tuple[dict[str, Any], bool]:
            n_tasks = len(asyncio.all_tasks())
            stage = Stage(self, tmp_path)
            async with stage:
                await self._go_through(stage)
                await stage.bench.stop()
            await asyncio.sleep(3600.0)
            return dict(stage.connection), len(asyncio.all_tasks()) == n_tasks

        before = set(open_paths().values())
        connection, has_ended = play(scenario())
        left = [
            connection[key]
            for key in PLACES
            if str(connection.get(key, "")).startswith("/")
            and Path(connection[key]).exists()
        ]

        assert has_ended, "it goes on after it was stopped"
        assert left == []
        assert set(open_paths().values()) - before == set()

    def test_client_is_told_when_it_was_stopped(
        self, play: Play, tmp_path: Path
    ) -> None:
        """Who looks at an instrument that is gone gets an error, not an old value."""

        async def scenario(stage: Stage) -> None:
            await stage.device.connect_link()
            await stage.look()
            await stage.bench.stop()
            with pytest.raises(PPUError, match=self.device):
                await stage.look()

        self._play(play, tmp_path, scenario)

    def test_unknown_twin_setting_is_refused_with_its_line(
        self, tmp_path: Path
    ) -> None:
        """A typo in the lab file is no default, and the error leads to it."""
        file, _ = read_lab(self.lab, tmp_path)
        entry = file.devices[self.device]
        twin = {**entry.twin, "no_such_key": 1}
        wrong = entry.model_copy(update={"twin": twin})
        devices = {**file.devices, self.device: wrong}
        path = tmp_path / "wrong.yaml"
        path.write_text(lab_text(file.model_copy(update={"devices": devices})))

        with pytest.raises(ConfigurationError, match="no_such_key") as caught:
            Bench(load_lab(path), path, 0, only=(self.device, *self.needs))
        assert f"{path} line " in str(caught.value)

    # -- how ---------------------------------------------------------------------------

    def _play(
        self,
        play: Play,
        folder: Path,
        scenario: Callable[[Stage], Awaitable[Any]],
    ) -> Any:
        async def on_stage() -> Any:
            async with Stage(self, folder) as stage:
                return await scenario(stage)

        return play(on_stage())

    async def _run(
        self,
        folder: Path,
        *,
        seed: int,
        looks_every_s: float = 30.0,
        asks_every_s: float = 30.0,
    ) -> tuple[Any, list[Any]]:
        """Return the state at the end of a run, and what was seen on the way."""
        async with Stage(self, folder, seed=seed) as stage:
            begun = stage.loop.time()
            seen = await self._go_through(stage, looks_every_s, asks_every_s)
            ends = begun + self.lasts_s
            # Runs are compared at one moment, however long the looks took.
            await asyncio.sleep(max(ends - stage.loop.time(), 0.0))
            simulated = stage.bench.instruments[self.device]
            return plain(self.state(stage.world, simulated)), seen

    async def _go_through(
        self, stage: Stage, looks_every_s: float = 30.0, asks_every_s: float = 30.0
    ) -> list[Any]:
        """Play the script, or connect and act, while somebody looks.

        Args:
            stage: A device that is not connected.
            looks_every_s: How often somebody looks at the world [s].
            asks_every_s: How often somebody asks over the wire [s].

        Returns:
            The first answers.
        """
        begun = stage.loop.time()
        if self.script:
            stage.link.identify = None
        else:
            await stage.device.connect_link()
        ends = begun + 0.9 * self.lasts_s
        looking = asyncio.ensure_future(_watch_world(stage, looks_every_s, ends))
        asking = asyncio.ensure_future(self._ask(stage, asks_every_s, ends))
        try:
            for moment, request in self.script:
                await asyncio.sleep(max(begun + moment - stage.loop.time(), 0.0))
                await _send(stage, request)
            await self.act(stage.device)
            await looking
            return await asking
        finally:
            looking.cancel()
            asking.cancel()
            await asyncio.wait([looking, asking])

    async def _ask(self, stage: Stage, period_s: float, ends: float) -> list[Any]:
        seen: list[Any] = []
        while stage.loop.time() < ends and not self.script:
            await asyncio.sleep(period_s)
            value = plain(await stage.look())
            if len(seen) < self.n_looks:
                seen.append(value)
        return seen


async def _watch_world(stage: Stage, period_s: float, ends: float) -> None:
    while stage.loop.time() < ends:
        await asyncio.sleep(period_s)
        stage.world.truth(stage.loop.time())


def _check_near(found: Any, wanted: Any) -> None:
    """Check that two states are the same but for what a short delay does."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            _check_near(found[key], value)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            _check_near(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=_NEAR, abs=1e-9)
    else:
        assert found == wanted


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _send(stage: Stage, request: bytes | HttpCall) -> None:
    """Send one request raw; whatever is answered, or nothing, is all right."""
    link = stage.link
    try:
        if isinstance(request, HttpCall):
            assert isinstance(link, HttpClient), "an HttpCall needs HTTP"
            if request.method == "GET":
                await link.get(request.path)
            else:
                await link.post(request.path, request.body)
        else:
            assert isinstance(link, ByteLink), "bytes need a stream of bytes"
            await link.exchange(request, _anything, is_safe=False)
    except PPUError:
        pass  # a refusal or silence is an answer as good as any


def _anything(buffer: bytearray) -> bytes | None:
    """Take whatever comes."""
    return bytes(buffer) or None
