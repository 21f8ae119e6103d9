"""The balance's driver against the simulated balance, over a serial line."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import pytest

from ppu.core.capabilities import Balance
from ppu.core.errors import (
    ConnectError,
    InstrumentError,
    LimitError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import running_loop
from ppu.devices.address import InvalidReading
from ppu.transports.serial import SerialConnection
from ppu_drivers.mettler_sics import (
    MettlerSics,
    MettlerSicsLimits,
    MettlerSicsSettings,
)
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.instruments.mettler_sics import SimulatedMettlerSics
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

SERIAL = "B021002593"
NOISE_G = 3e-4
"""Far more than ten times the repeatability of the simulated cell."""


def lab_file(
    *,
    serial_number: str = "unset",
    hardware: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    twin: dict[str, Any] | None = None,
) -> LabFile:
    """Return a lab with one balance, and vessels of 20, 210 and 300 g beside it."""
    containers = {
        f"vessel_{mass}": {
            "kind": "vessel",
            "at": f"shelf.{mass}",
            "capacity_ml": 20,
            "tare_g": mass,
        }
        for mass in (20, 210, 300)
    }
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "balance": {
                    "driver": "ppu_drivers.mettler_sics:MettlerSics",
                    "serial_number": serial_number,
                    "hardware": hardware or {},
                    "limits": limits or {},
                    "slots": ["balance.pan"],
                    "twin": twin or {},
                }
            },
            "locations": {
                "balance.pan": {"holds": "vessel", "inside": "balance"},
                **{f"shelf.{mass}": {"holds": "vessel"} for mass in (20, 210, 300)},
            },
            "containers": containers,
        }
    )


class Wire:
    """Stands between port and balance, and spoils the answers to one command."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation
        self.command = b""
        self.spoil: Callable[[Answer], list[Answer]] | None = None
        self.n_seen = 0

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        answers = list(self._conversation.receive(data, time))
        if self.spoil is None or data.strip() != self.command:
            return answers
        self.n_seen += 1
        return self.spoil(answers[0])


class Bench:
    """A simulated balance and its driver."""

    def __init__(self, lab: LabFile) -> None:
        self.world = World(lab, 1)
        self.entry = lab.devices["balance"]
        self.simulated = SimulatedMettlerSics("balance", self.entry, self.world, SERIAL)
        self.front = self.simulated._front
        self.wire = Wire(self.simulated)
        self.front._conversation = self.wire
        self.driver: MettlerSics

    async def start(self) -> None:
        """Open the port, and make the driver; it is not connected."""
        connection = {**await self.simulated.start(), **(self.entry.hardware or {})}
        self.driver = MettlerSics(
            "balance",
            self.entry,
            SerialConnection.model_validate(connection),
            MettlerSicsSettings.model_validate(self.entry.settings),
            MettlerSicsLimits.model_validate(self.entry.limits),
        )

    async def stop(self) -> None:
        """Close both ends."""
        await self.driver.disconnect()
        await self.simulated.stop()

    def load(self, mass: int) -> None:
        """Put the vessel of *mass* gram on the pan."""
        name, now = f"vessel_{mass}", running_loop().time()
        self.world.pick_up(now, name, f"shelf.{mass}", "test")
        self.world.put_down(now, name, "balance.pan", "test")

    def spoil(self, command: bytes, how: Callable[[Answer], list[Answer]]) -> None:
        """Spoil the answers to *command* from now on."""
        self.wire.command, self.wire.spoil = command, how

    async def weigh(self) -> float:
        """Return the stable mass."""
        await self.driver.trigger()
        reading = await self.driver.read()
        mass: float = reading[self.driver.mass_key]["value"]
        return mass


async def on_bench(
    scenario: Callable[[Bench], Awaitable[None]],
    lab: LabFile | None = None,
    *,
    connects: bool = True,
) -> None:
    """Play *scenario* on a bench of its own."""
    bench = Bench(lab or lab_file())
    await bench.start()
    try:
        if connects:
            await bench.driver.connect_link()
        await scenario(bench)
    finally:
        await bench.stop()


# -- weighing -------------------------------------------------------------------------


def test_balance_waits_until_the_mass_is_stable(play: Play) -> None:
    """A mass is what lies there, after the seconds that the cell needs to settle."""

    async def scenario(bench: Bench) -> None:
        assert isinstance(bench.driver, Balance)
        bench.load(20)
        begun = running_loop().time()
        assert await bench.weigh() == pytest.approx(20.0, abs=NOISE_G)
        assert 0.5 < running_loop().time() - begun < 30.0

    play(on_bench(scenario))


def test_reading_is_stamped_when_it_was_measured(play: Play) -> None:
    """A mass read again later is the old one, and says how old it is."""

    async def scenario(bench: Bench) -> None:
        await bench.weigh()
        measured = running_loop().stamp()
        await asyncio.sleep(100.0)
        reading = (await bench.driver.read())[bench.driver.mass_key]
        assert reading["timestamp"] == pytest.approx(measured, abs=0.1)

    play(on_bench(scenario))


def test_nothing_is_read_before_something_was_measured(play: Play) -> None:
    """There is no default mass."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidReading, match="nothing was measured yet"):
            await bench.driver.read()

    play(on_bench(scenario))


def test_tare_makes_the_load_zero(play: Play) -> None:
    """After taring, only what is added counts."""

    async def scenario(bench: Bench) -> None:
        bench.load(20)
        await bench.driver.tare.trigger()
        assert await bench.weigh() == pytest.approx(0.0, abs=NOISE_G)

    play(on_bench(scenario))


def test_overload_is_the_refusal_of_the_balance(play: Play) -> None:
    """More than the cell can carry has no mass."""

    async def scenario(bench: Bench) -> None:
        bench.load(300)
        with pytest.raises(InstrumentError, match=r"balance: .*overloaded") as caught:
            await bench.driver.trigger()
        assert caught.value.code == "+"

    play(on_bench(scenario))


def test_load_is_refused_when_the_lab_does_not_allow_it(play: Play) -> None:
    """The limit of the lab file holds below the capacity of the cell."""

    async def scenario(bench: Bench) -> None:
        bench.load(210)
        with pytest.raises(LimitError, match="allowed are 0 to 200 g"):
            await bench.driver.trigger()

    play(on_bench(scenario, lab_file(limits={"mass_g": [0, 200]})))


def test_trigger_fails_when_the_balance_does_not_settle(play: Play) -> None:
    """Draught is an error of the instrument, after its own time-out."""

    async def scenario(bench: Bench) -> None:
        bench.load(20)
        with pytest.raises(InstrumentError, match="did not become stable"):
            await bench.driver.trigger()

    play(on_bench(scenario, lab_file(twin={"stability_timeout_s": 0.01})))


# -- when the wire fails --------------------------------------------------------------


def test_trigger_fails_when_the_balance_stays_silent(play: Play) -> None:
    """The driver waits twice as long as a balance may take to settle, and no more."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"S", lambda _: [])
        with pytest.raises(ReplyTimeout, match=r"balance: no complete reply .* to 'S"):
            await bench.driver.trigger()
        assert bench.wire.n_seen == 2
        assert running_loop().time() < 200.0

    play(on_bench(scenario))


@pytest.mark.parametrize("garbage", [b"\xff\xfe\r\n", b"S S twelve g\r\n", b"\r\n"])
def test_trigger_fails_when_the_answer_is_garbage(play: Play, garbage: bytes) -> None:
    """What the manual does not allow is no mass, and the error names the device."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"S", lambda answer: [Answer(garbage)])
        with pytest.raises(MalformedReply, match="balance: "):
            await bench.driver.trigger()
        with pytest.raises(InvalidReading):
            await bench.driver.read()

    play(on_bench(scenario))


def test_trigger_fails_when_the_cable_is_pulled_in_mid_reply(play: Play) -> None:
    """Half a mass is none."""

    async def scenario(bench: Bench) -> None:
        def pull(time: float) -> bytes:
            bench.front.stop()
            return b""

        bench.spoil(b"S", lambda _: [Answer(b"S S   1"), Answer(pull, 0.1)])
        with pytest.raises((LinkBroken, ConnectError), match="balance: "):
            await bench.driver.trigger()

    play(on_bench(scenario))


def test_next_mass_is_right_when_a_weighing_was_cancelled(play: Play) -> None:
    """The stable mass that comes later belongs to nobody."""

    async def scenario(bench: Bench) -> None:
        bench.load(20)
        status = bench.driver.trigger()
        await asyncio.sleep(0.05)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        await bench.driver.tare.trigger()
        assert await bench.weigh() == pytest.approx(0.0, abs=NOISE_G)

    play(on_bench(scenario))


def test_tare_is_not_done_when_another_command_is_acknowledged(play: Play) -> None:
    """The answer to an earlier command is no proof of this one."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"T", lambda _: [Answer(b"S S    20.0000 g\r\n")])
        with pytest.raises(ReplyTimeout, match=r"no complete reply.*to 'T"):
            await bench.driver.tare.trigger()

    play(on_bench(scenario))


def test_tare_is_never_repeated_when_its_answer_is_lost(play: Play) -> None:
    """A command is sent once, whatever becomes of its answer."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"T", lambda _: [])
        with pytest.raises(ReplyTimeout):
            await bench.driver.tare.trigger()
        assert bench.wire.n_seen == 1

    play(on_bench(scenario))


# -- connecting -----------------------------------------------------------------------


def test_identity_is_kept_when_the_right_balance_answers(play: Play) -> None:
    """Model, serial number and software come from the balance."""

    async def scenario(bench: Bench) -> None:
        identity = bench.driver.identity
        assert identity is not None
        assert identity.serial_number == SERIAL
        assert identity.model.startswith("XPR205")

    play(on_bench(scenario, lab_file(serial_number=SERIAL)))


@pytest.mark.parametrize("hardware", [{"baudrate": 4800}, {"parity": "odd"}])
def test_connect_says_what_to_look_at_when_line_settings_are_wrong(
    play: Play, hardware: dict[str, Any]
) -> None:
    """A wrong rate or parity gets silence, and a hint that names them."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConnectError, match="address and line settings right"):
            await bench.driver.connect_link()

    play(on_bench(scenario, lab_file(hardware=hardware), connects=False))


def test_tare_in_a_mock_needs_no_balance(play: Play) -> None:
    """Plans can be tried against a mock that keeps units."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.connect(mock=True)
        described = await bench.driver.describe()
        assert described[bench.driver.mass_key]["units"] == "g"

    play(on_bench(scenario, connects=False))
