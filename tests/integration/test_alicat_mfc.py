"""The flow controller's driver against the simulated one, over a serial line."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import pytest

from ppu.core.capabilities import GasFlow, GasRequest
from ppu.core.errors import (
    ConfigurationError,
    ConnectError,
    InstrumentError,
    InterlockError,
    LimitError,
    LinkBroken,
    MalformedReply,
    ReplyTimeout,
    TransportError,
)
from ppu.core.labfile import LabFile
from ppu.core.labtime import iso, running_loop
from ppu.devices.address import InvalidReading
from ppu.transports.serial import SerialConnection
from ppu_drivers.alicat_mfc import AlicatMfc, AlicatMfcLimits, AlicatMfcSettings
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.instruments.alicat_mfc import SimulatedAlicatMfc
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

SERIAL = "521641"
FIRMWARES = ["5v12.0-R22", "6v21.0-R22", "8v17.0-R23", "10v20.0-R24"]
SETTINGS = {
    "supplies": "furnace_2",
    "gases": ["Ar", "O2"],
    "full_scale_ml_per_min": 500.0,
}
ARGON = GasRequest("Ar", 100.0)
CLOSED = GasRequest("air", 0.0)


def lab_file(
    *,
    serial_number: str = "unset",
    hardware: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    on_abort: str | None = None,
    twin: dict[str, Any] | None = None,
) -> LabFile:
    """Return a lab with one flow controller."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "mfc": {
                    "driver": "ppu_drivers.alicat_mfc:AlicatMfc",
                    "serial_number": serial_number,
                    "hardware": hardware or {},
                    "settings": SETTINGS | (settings or {}),
                    "limits": {"flow_ml_per_min": [10, 400]} | (limits or {}),
                    "on_abort": on_abort,
                    "twin": {"into": "furnace_2"} | (twin or {}),
                }
            },
        }
    )


class Wire:
    """Stands between port and controller, hears all, and may spoil answers."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation
        self.heard: list[bytes] = []
        self.deaf_to: tuple[bytes, ...] = ()
        """Commands that do nothing; a data frame answers them."""
        self.command: bytes | None = None
        self.spoil: Callable[[list[Answer]], list[Answer]] | None = None

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take bytes; return what is answered."""
        self.heard.append(data)
        if data.startswith(self.deaf_to):
            data = b"A\r"
        answers = list(self._conversation.receive(data, time))
        if self.spoil is None or data.rstrip(b"\r") != self.command:
            return answers
        return self.spoil(answers)


class Bench:
    """A simulated flow controller and its driver."""

    def __init__(self, lab: LabFile) -> None:
        self.world = World(lab, 1)
        self.entry = lab.devices["mfc"]
        self.simulated = SimulatedAlicatMfc("mfc", self.entry, self.world, SERIAL)
        self.front = self.simulated._front
        self.wire = Wire(self.simulated)
        self.front._conversation = self.wire
        self.driver: AlicatMfc

    async def start(self) -> None:
        """Open the port, and make the driver; it is not connected."""
        connection = {**await self.simulated.start(), **(self.entry.hardware or {})}
        self.driver = AlicatMfc(
            "mfc",
            self.entry,
            SerialConnection.model_validate(connection),
            AlicatMfcSettings.model_validate(self.entry.settings),
            AlicatMfcLimits.model_validate(self.entry.limits),
        )

    async def stop(self) -> None:
        """Close both ends."""
        await self.driver.disconnect()
        await self.simulated.stop()

    def spoil(
        self, command: bytes, how: Callable[[list[Answer]], list[Answer]]
    ) -> None:
        """Spoil the answers to *command* from now on."""
        self.wire.command, self.wire.spoil = command, how

    def inject(self, fault: str, **script: float) -> None:
        """Let *fault* happen, by default at once."""
        self.simulated.faults.inject({"fault": fault, **script}, running_loop().time())

    def type(self, line: bytes) -> None:
        """Send a line as somebody else on the same bus would."""
        tuple(self.simulated.receive(line + b"\r", running_loop().time()))

    def supplied(self) -> tuple[str, Any]:
        """Return what flows into the furnace now."""
        self.world.advance(running_loop().time())
        return self.world.gas_into("furnace_2")

    def n_sent(self, begin: bytes) -> int:
        """Return how many commands that begin so were sent."""
        return sum(line.startswith(begin) for line in self.wire.heard)


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


async def value_of(driver: AlicatMfc, signal: str) -> Any:
    """Return the value of a signal in the device's readings."""
    return (await driver.read())[f"mfc_{signal}"]["value"]


# -- letting gas flow -----------------------------------------------------------------


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_gas_flows_as_asked_whatever_the_firmware(play: Play, firmware: str) -> None:
    """Gas and flow that were asked for reach the furnace, and end when closed."""

    async def scenario(bench: Bench) -> None:
        assert isinstance(bench.driver, GasFlow)
        await bench.driver.set(ARGON)
        assert bench.supplied() == ("Ar", pytest.approx(100.0))
        assert await value_of(bench.driver, "flow") == pytest.approx(100, abs=1)
        assert await value_of(bench.driver, "setpoint") == 100.0
        await bench.driver.set(GasRequest("O2", 50.0))
        assert bench.supplied() == ("O2", pytest.approx(50.0))
        await bench.driver.set(CLOSED)
        assert bench.supplied()[1] == 0.0

    play(on_bench(scenario, lab_file(twin={"firmware": firmware})))


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_only_commands_of_the_dialect_are_sent(play: Play, firmware: str) -> None:
    """Registers below 6v, G and S above, GS without keeping from 10v05 on."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        gas = {
            "5v12.0-R22": b"A$$W46=1\r",
            "6v21.0-R22": b"AG 1\r",
            "8v17.0-R23": b"AG 1\r",
            "10v20.0-R24": b"AGS 1\r",
        }[firmware]
        setpoint = b"AS100.0\r" if firmware.startswith("5v") else b"AS 100.00\r"
        acts = [line for line in bench.wire.heard if line[1:2] in b"$GS"]
        assert [a for a in acts if a != b"A$$R46\r"] == [gas, setpoint]
        assert bench.simulated.n_eeprom_writes == (0 if b"GS" in gas else 1)

    play(on_bench(scenario, lab_file(twin={"firmware": firmware})))


def test_memory_is_spared_when_the_same_is_asked_again(play: Play) -> None:
    """Gas and setpoint are written only when they differ."""

    async def scenario(bench: Bench) -> None:
        for _ in range(5):
            await bench.driver.set(ARGON)
        assert bench.n_sent(b"A$$W46") == 1
        assert bench.n_sent(b"AS") == 1
        assert bench.simulated.n_eeprom_writes == 1

    play(on_bench(scenario, lab_file(twin={"firmware": "5v12.0-R22"})))


def test_valve_is_closed_before_the_gas_is_changed(play: Play) -> None:
    """No gas flows under the calibration of another."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.heard.clear()
        await bench.driver.set(GasRequest("O2", 100.0))
        acts = [line for line in bench.wire.heard if line != b"A\r"]
        assert acts == [b"AS 0.00\r", b"AGS 11\r", b"AS 100.00\r"]

    play(on_bench(scenario))


def test_litres_are_told_from_millilitres(play: Play) -> None:
    """An instrument that counts in SLPM is sent litres."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(GasRequest("Ar", 1500.0))
        assert bench.n_sent(b"AS 1.500\r") == 1
        assert bench.supplied() == ("Ar", pytest.approx(1500.0))

    play(
        on_bench(
            scenario,
            lab_file(
                settings={"full_scale_ml_per_min": 10000.0},
                limits={"flow_ml_per_min": [10, 2000]},
                twin={"flow_unit": "SLPM", "full_scale": 10.0},
            ),
        )
    )


def test_wrong_bottle_flows_at_the_wrong_rate(play: Play) -> None:
    """A controller set to argon lets pass less of it than it says if air comes."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        gas, flow = bench.supplied()
        assert gas == "air"
        assert flow == pytest.approx(100 * 22.9 / 18.6)
        assert await value_of(bench.driver, "flow") == pytest.approx(100, abs=1)

    play(on_bench(scenario, lab_file(twin={"bottle": "air"})))


# -- refusing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (GasRequest("N2", 100.0), "'N2' is not connected, there is Ar, O2"),
        (GasRequest("Ar", 401.0), "401 mL/min, allowed are 0 .closed. and 10 to 400"),
        (GasRequest("Ar", 5.0), "5 mL/min, allowed"),
        (GasRequest("Ar", -1.0), "-1 mL/min, allowed"),
        (GasRequest("Ar", float("nan")), "nan mL/min, allowed"),
        (GasRequest("Xe", 1e9), "'Xe' is not connected.*; 1e.09 mL/min"),
    ],
)
def test_request_is_refused_before_anything_is_sent(
    play: Play, request_: GasRequest, text: str
) -> None:
    """What lab or instrument do not allow never reaches the wire."""

    async def scenario(bench: Bench) -> None:
        bench.wire.heard.clear()
        with pytest.raises(LimitError, match=text):
            await bench.driver.set(request_)
        assert bench.wire.heard == []

    play(on_bench(scenario))


def test_request_is_refused_when_the_steps_are_too_coarse(play: Play) -> None:
    """A setpoint is never rounded to something else than was asked."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(LimitError, match="knows steps of 1 mL/min"):
            await bench.driver.set(GasRequest("Ar", 10.4))
        assert bench.n_sent(b"AS") == 0

    play(
        on_bench(
            scenario,
            lab_file(
                settings={"full_scale_ml_per_min": 10000.0},
                twin={"firmware": "8v17", "full_scale": 10.0, "flow_unit": "SLPM"},
            ),
        )
    )


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"AHP", "HLD", "its valve is held"),
        (b"AL", "LCK", "its buttons are locked"),
    ],
)
def test_flow_is_refused_when_the_state_does_not_allow_it(
    play: Play, line: bytes, code: str, text: str
) -> None:
    """The status code is named, and nothing is written."""

    async def scenario(bench: Bench) -> None:
        bench.type(line)
        with pytest.raises(InstrumentError, match=f"{code}: {text}") as caught:
            await bench.driver.set(ARGON)
        assert caught.value.code == code
        assert bench.n_sent(b"AS") == bench.n_sent(b"AG") == 0

    play(on_bench(scenario))


def test_flow_is_refused_when_it_follows_its_analog_input(play: Play) -> None:
    """A setpoint that is not taken is an error, not a wait for ever."""

    async def scenario(bench: Bench) -> None:
        bench.inject("analog setpoint source")
        begun = running_loop().time()
        with pytest.raises(
            InstrumentError, match=r"set to 100 mL/min but reads 0; .*valve is closed"
        ):
            await bench.driver.set(ARGON)
        assert running_loop().time() - begun < 40

    play(on_bench(scenario))


def test_valve_is_closed_again_when_the_bottle_is_empty(play: Play) -> None:
    """Less gas than asked is an error that says what flows, and closes."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.inject("empty bottle")
        await asyncio.sleep(3600)
        with pytest.raises(
            InstrumentError, match=r"of 120 mL/min .*bottle.*; the valve is closed"
        ):
            await bench.driver.set(GasRequest("Ar", 120.0))
        assert bench.supplied()[1] == 0.0
        assert await value_of(bench.driver, "setpoint") == 0.0

    play(on_bench(scenario))


def test_flow_is_refused_when_another_gas_stays_selected(play: Play) -> None:
    """A gas that the instrument does not take is never let flow."""

    async def scenario(bench: Bench) -> None:
        bench.wire.deaf_to = (b"AG",)
        with pytest.raises(InstrumentError, match="but the controller is set to Air"):
            await bench.driver.set(ARGON)
        assert bench.n_sent(b"AS 100") == 0

    play(on_bench(scenario))


def test_error_says_so_when_the_valve_cannot_be_closed(play: Play) -> None:
    """A valve that stays open is never reported as closed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.deaf_to = (b"AS", b"AH")
        with pytest.raises(
            InstrumentError,
            match=r"set to 50 .*could NOT be closed: .*still flow; close the bottle",
        ):
            await bench.driver.set(GasRequest("Ar", 50.0))
        with pytest.raises(InstrumentError, match="still flow; close the bottle"):
            await bench.driver.go_to_abort_state()

    play(on_bench(scenario))


def test_flow_is_refused_when_the_gas_register_reads_back_wrong(play: Play) -> None:
    """On old firmware the register itself is read back, without its upper bits."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"A$$R46", lambda _: [Answer(b"A   046 = 513\r")])
        await bench.driver.set(ARGON)  # 513 is gas 1 and the zero dead band
        bench.spoil(b"A$$R46", lambda _: [Answer(b"A   046 = 9\r")])
        with pytest.raises(InstrumentError, match=r"gas 11 \(O2\) was written to reg"):
            await bench.driver.set(GasRequest("O2", 100.0))
        assert bench.supplied()[1] == 0.0

    play(on_bench(scenario, lab_file(twin={"firmware": "5v12"})))


def test_flow_is_refused_when_somebody_holds_the_valve_meanwhile(play: Play) -> None:
    """A valve that is held while the flow rises is told from an empty bottle."""

    async def scenario(bench: Bench) -> None:
        status = bench.driver.set(ARGON)
        await asyncio.sleep(0.3)
        bench.type(b"AHP")
        with pytest.raises(InstrumentError, match=r"HLD: .*; the valve is closed"):
            await status

    play(on_bench(scenario))


# -- closing and aborting -------------------------------------------------------------


@pytest.mark.parametrize("firmware", ["5v12.0-R22", "10v20.0-R24"])
def test_held_valve_is_released_when_closing(play: Play, firmware: str) -> None:
    """A valve that is held open does not follow its setpoint of 0: it is released."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.type(b"A$$H")
        assert "closed, verified" in await bench.driver.go_to_abort_state()
        assert bench.supplied()[1] == 0.0

    play(on_bench(scenario, lab_file(twin={"firmware": firmware})))


def test_valve_is_held_closed_when_no_setpoint_is_taken(play: Play) -> None:
    """If its setpoint comes from elsewhere, the valve is shut all the same."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.deaf_to = (b"AS",)
        assert "held closed, verified" in await bench.driver.go_to_abort_state()
        assert bench.supplied()[1] == 0.0

    play(on_bench(scenario))


def test_old_controller_says_so_when_no_setpoint_is_taken(play: Play) -> None:
    """Without a way to shut the valve, somebody must."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.deaf_to = (b"AS",)
        with pytest.raises(InstrumentError, match="set to 0 mL/min but reads 100"):
            await bench.driver.go_to_abort_state()

    play(on_bench(scenario, lab_file(twin={"firmware": "5v12"})))


@pytest.mark.parametrize(
    ("fault", "for_s"),
    [
        ("unplug", 3.0),
        ("unplug", 40.0),
        ("drop", 20.0),
        ("corrupt", 20.0),
        ("garbage", 20.0),
        ("truncate", 20.0),
    ],
)
@pytest.mark.parametrize("is_abort", [True, False])
def test_closing_is_insisted_upon_when_the_wire_fails(
    play: Play, fault: str, for_s: float, is_abort: bool
) -> None:
    """Neither an abort nor a plan's own closing gives up while there is hope."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.inject(fault, for_s=for_s)
        if is_abort:
            assert "closed, verified" in await bench.driver.go_to_abort_state()
        else:
            await bench.driver.set(CLOSED)
        assert bench.supplied()[1] == 0.0
        assert await bench.driver.go_to_abort_state() == ""

    play(on_bench(scenario))


@pytest.mark.parametrize("firmware", ["5v12.0-R22", "10v20.0-R24"])
def test_setpoint_is_0_when_the_controller_hears_but_cannot_be_heard(
    play: Play, firmware: str
) -> None:
    """Closing is told first; that nobody saw it done is an error after a minute."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.heard.clear()
        begun = running_loop().time()
        bench.inject("drop", for_s=1000.0)
        with pytest.raises(TransportError, match="is not known: close the bottle"):
            await bench.driver.go_to_abort_state()
        assert bench.wire.heard[0].startswith(b"AS")
        assert bench.supplied()[1] == 0.0
        assert 60 <= running_loop().time() - begun < 75

    play(on_bench(scenario, lab_file(twin={"firmware": firmware})))


def test_gas_flows_on_when_the_lab_keeps_it_on_abort(play: Play) -> None:
    """On abort ``keep`` the flow stays, and the next job is told that it does."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        said = await bench.driver.go_to_abort_state()
        assert "left alone" in said
        assert bench.supplied() == ("Ar", pytest.approx(100.0))
        with pytest.raises(InterlockError, match="100 mL/min of Ar already"):
            await bench.driver.check_idle()

    play(on_bench(scenario, lab_file(on_abort="keep")))


def test_abort_leaves_alone_what_this_driver_did_not_start(play: Play) -> None:
    """A flow that somebody else set is not closed by an unrelated abort."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.check_idle()
        bench.type(b"AS 50")
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.supplied()[1] == pytest.approx(50.0)

    play(on_bench(scenario))


def test_abort_closes_an_adopted_flow_once(play: Play) -> None:
    """What a process that died let flow is closed, and nothing that comes later."""

    async def scenario(bench: Bench) -> None:
        bench.driver.adopt()
        assert await bench.driver.go_to_abort_state() == ""
        bench.type(b"AS 50")
        assert await bench.driver.go_to_abort_state() == ""
        bench.driver.adopt()
        assert "closed, verified" in await bench.driver.go_to_abort_state()
        assert bench.supplied()[1] == 0.0
        bench.type(b"AS 50")
        assert await bench.driver.go_to_abort_state() == ""
        assert bench.supplied()[1] == pytest.approx(50.0)

    play(on_bench(scenario))


def test_own_flow_is_no_reason_to_refuse_a_job(play: Play) -> None:
    """What this program lets flow itself is not foreign to it."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        bench.wire.heard.clear()
        await bench.driver.check_idle()
        assert bench.wire.heard == []

    play(on_bench(scenario))


# -- watching -------------------------------------------------------------------------


async def end_watch(driver: AlicatMfc) -> None:
    """Close the gas, and see that the watch found nothing."""
    over = driver.complete()
    await driver.set(CLOSED)
    await over


def test_watch_sees_that_all_is_well(play: Play) -> None:
    """A watch of an hour takes a sample a minute and says what flowed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        await asyncio.sleep(3600)
        await end_watch(bench.driver)
        seen = bench.driver.last_watch
        assert seen is not None
        assert seen.n_samples == pytest.approx(61, abs=1)
        assert seen.mean_ml_per_min == pytest.approx(100, abs=0.5)
        assert seen.gas == "Ar"

    play(on_bench(scenario))


def test_watch_ends_with_what_went_wrong_when_the_bottle_runs_empty(
    play: Play,
) -> None:
    """The gas, when it failed, how much flowed, and the likely reason are named."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        failed = running_loop().stamp() + 600
        bench.inject("empty bottle", at_s=600)
        await asyncio.sleep(4 * 3600)
        with pytest.raises(InstrumentError, match="is the bottle empty") as caught:
            await bench.driver.complete()
        text = str(caught.value)
        assert "of 100 mL/min of Ar at 2030-01-01T00:" in text
        assert iso(failed) < text[text.index("2030") :] < iso(failed + 1800)
        assert bench.supplied()[1] < 1.0

    play(on_bench(scenario))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"AS 50", "setpoint was 50 mL/min at .*asked were 100; somebody changed it"),
        (b"AGS 0", "set to Air at .*asked was Ar; somebody changed it"),
        (b"AHP", r"could not be relied upon at .*\(HLD: its valve is held"),
        (b"AHC", "the flow fell to .*HLD: its valve is held"),
    ],
)
def test_watch_notices_what_somebody_changed(
    play: Play, line: bytes, text: str
) -> None:
    """A hand at the panel during a firing does not go unnoticed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        await asyncio.sleep(100)
        bench.type(line)
        await asyncio.sleep(100)
        with pytest.raises(InstrumentError, match=text):
            await bench.driver.complete()

    play(on_bench(scenario))


def test_watch_notices_a_flow_that_rises(play: Play) -> None:
    """Too much gas is as wrong as too little."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        bench.simulated._flow = bench.simulated._target = 150.0
        with pytest.raises(
            InstrumentError, match=r"the flow rose to (150|149\.9|150\.1)"
        ):
            await end_watch(bench.driver)

    play(on_bench(scenario))


def test_watch_endures_a_short_silence(play: Play) -> None:
    """A few lost answers are no reason to lose a firing."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        bench.spoil(b"A", lambda _: [])
        await asyncio.sleep(150)
        bench.wire.spoil = None
        await asyncio.sleep(150)
        await end_watch(bench.driver)

    play(on_bench(scenario))


def test_watch_fails_when_the_controller_stays_silent(play: Play) -> None:
    """Without readings nobody can say that the gas flowed."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        bench.spoil(b"A", lambda _: [])
        await asyncio.sleep(1000)
        with pytest.raises(TransportError, match="no complete reply"):
            await bench.driver.complete()
        with pytest.raises(InstrumentError, match="nothing is being watched"):
            await bench.driver.complete()

    play(on_bench(scenario))


def test_watch_that_failed_is_forgotten_when_the_plan_is_aborted(play: Play) -> None:
    """An abort closes, whatever the watch had found."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        bench.spoil(b"A", lambda _: [])
        await asyncio.sleep(1000)
        bench.wire.spoil = None
        assert "closed, verified" in await bench.driver.go_to_abort_state()

    play(on_bench(scenario))


def test_watch_is_ended_by_the_next_flow(play: Play) -> None:
    """Set, watch, and set again come in order; complete is done with the last."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(InstrumentError, match="nothing flows"):
            await bench.driver.kickoff()
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        with pytest.raises(InterlockError, match="watched already"):
            await bench.driver.kickoff()
        over = bench.driver.complete()
        await asyncio.sleep(100)
        assert not over.done
        await bench.driver.set(CLOSED)
        await over
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        await end_watch(bench.driver)

    play(on_bench(scenario))


def test_result_is_the_same_however_often_one_looks() -> None:
    """Polling does not change what flows from a line that drains."""

    def flow_after(period: float) -> float:
        lab = lab_file(twin={"faults": [{"fault": "empty bottle", "at_s": 60}]})
        world = World(lab, 1)
        simulated = SimulatedAlicatMfc("mfc", lab.devices["mfc"], world, SERIAL)
        tuple(simulated.receive(b"AS 300\r", 0.0))
        for n in range(1, round(300 / period) + 1):
            tuple(simulated.receive(b"A\r", n * period))
        return world.gas_into("furnace_2")[1]

    assert 0.0 < flow_after(300.0) == flow_after(7.5) < 200.0


def test_watch_notices_a_held_valve_as_the_fault_has_it(play: Play) -> None:
    """The scripted fault shows like the hand at the panel that it stands for."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        await bench.driver.kickoff()
        bench.inject("valve hold", at_s=300)
        await asyncio.sleep(600)
        with pytest.raises(InstrumentError, match="HLD: its valve is held"):
            await bench.driver.complete()

    play(on_bench(scenario))


# -- the wire -------------------------------------------------------------------------


def test_flow_is_set_when_an_answer_is_lost(play: Play) -> None:
    """Every command states an end state, so it may be sent again."""

    async def scenario(bench: Bench) -> None:
        lost: list[Answer] = []

        def lose_one(answers: list[Answer]) -> list[Answer]:
            if lost:
                return answers
            lost.extend(answers)
            return []

        bench.spoil(b"AS 100.00", lose_one)
        await bench.driver.set(ARGON)
        assert bench.n_sent(b"AS 100.00") == 2
        assert bench.supplied() == ("Ar", pytest.approx(100.0))

    play(on_bench(scenario))


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "delay", "every_s": 20, "by_s": 1.2},
        {"fault": "drop", "every_s": 20},
        {"fault": "corrupt", "every_s": 20},
        {"fault": "garbage", "every_s": 20},
        {"fault": "truncate", "every_s": 20},
        {"fault": "duplicate", "every_s": 20},
    ],
    ids=lambda fault: fault["fault"],
)
def test_wire_faults_change_nothing_that_flows(
    play: Play, fault: dict[str, Any]
) -> None:
    """Late, lost and damaged answers are asked for again, never believed."""

    async def scenario(bench: Bench) -> None:
        for flow in (100.0, 200.0, 50.0):
            await asyncio.sleep(20)
            await bench.driver.set(GasRequest("Ar", flow))
            await bench.driver.kickoff()
            await asyncio.sleep(600)
            assert bench.supplied() == ("Ar", pytest.approx(flow))
            await end_watch(bench.driver)
        assert bench.simulated.faults.log

    play(on_bench(scenario, lab_file(twin={"faults": [fault]})))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"A +014.70 +025.00\r", MalformedReply),
        (b"B +014.70 +025.00 +00.00 +00.00 +00.00 Air\r", MalformedReply),
        (b"A +014.70 garbage +00.00 +00.00 +00.00 Air\r", MalformedReply),
        (b"A +014.70 +025.00 +00.00 +00.00 +00.00 Air !!\r", MalformedReply),
        (b"\xff\xfe\r", MalformedReply),
        (b"?\r", InstrumentError),
        (b"A +014.70", ReplyTimeout),
        (b"", ReplyTimeout),
    ],
)
def test_reading_fails_when_the_answer_is_no_frame(
    play: Play, answer: bytes, error: type[Exception]
) -> None:
    """What the manual does not allow is an error that names the device."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(b"A", lambda _: [Answer(answer)] if answer else [])
        with pytest.raises(error, match="mfc: "):
            await bench.driver.trigger()
        with pytest.raises(InvalidReading, match="nothing was measured yet"):
            await bench.driver.read()

    play(on_bench(scenario))


def test_reading_is_refused_when_the_flow_is_out_of_range(play: Play) -> None:
    """A number that the instrument itself calls wrong is not handed on as good."""

    async def scenario(bench: Bench) -> None:
        frame = b"A +014.70 +025.00 +640.00 +640.00 +100.00    Air MOV\r"
        bench.spoil(b"A", lambda _: [Answer(frame)])
        with pytest.raises(InstrumentError, match="MOV: the mass flow is out") as found:
            await bench.driver.trigger()
        assert found.value.code == "MOV"

    play(on_bench(scenario))


def test_readings_carry_house_units(play: Play) -> None:
    """Pressure comes in bar, whatever the frame says, and temperature in degC."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.trigger()
        assert await value_of(bench.driver, "pressure") == pytest.approx(3.0, abs=0.01)
        assert await value_of(bench.driver, "temperature") == pytest.approx(23, abs=0.2)
        described = await bench.driver.describe()
        assert described["mfc_flow"]["units"] == "mL/min"

    play(on_bench(scenario))


def test_connection_that_breaks_in_mid_answer_is_named(play: Play) -> None:
    """A pulled plug is an error of the link, not of the gas."""

    async def scenario(bench: Bench) -> None:
        def pull(answers: list[Answer]) -> list[Answer]:
            loop = running_loop()
            loop.call_later(0.02, bench.front.stop)
            return [Answer(b"A +014.", 0.01), Answer(b"70\r", 0.1)]

        bench.spoil(b"A", pull)
        with pytest.raises((LinkBroken, ConnectError), match="mfc: "):
            await bench.driver.trigger()

    play(on_bench(scenario))


def test_cancelled_change_is_closed_by_the_abort(play: Play) -> None:
    """A plan that is stopped while the flow rises does not leave it rising."""

    async def scenario(bench: Bench) -> None:
        status = bench.driver.set(ARGON)
        await asyncio.sleep(0.5)
        status.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await status
        assert "closed, verified" in await bench.driver.go_to_abort_state()
        assert bench.supplied()[1] == 0.0

    play(on_bench(scenario))


# -- connecting -----------------------------------------------------------------------


@pytest.mark.parametrize("firmware", FIRMWARES)
@pytest.mark.parametrize("ends_tables", [True, False])
def test_identity_is_kept_when_the_right_controller_answers(
    play: Play, firmware: str, ends_tables: bool
) -> None:
    """Model, serial number and firmware come from the instrument in both dialects."""

    async def scenario(bench: Bench) -> None:
        identity = bench.driver.identity
        assert identity is not None
        assert identity.serial_number == SERIAL
        assert identity.model == "MC-500SCCM-D"
        assert identity.firmware == firmware.partition(".")[0]
        await bench.driver.set(ARGON)

    lab = lab_file(
        serial_number=SERIAL, twin={"firmware": firmware, "ends_tables": ends_tables}
    )
    play(on_bench(scenario, lab))


@pytest.mark.parametrize(
    ("lab", "error", "text"),
    [
        ({"serial_number": "1"}, ConnectError, f"number 1, but {SERIAL} answers"),
        (
            {"settings": {"unit_id": "B"}},
            ConnectError,
            "address and line settings right",
        ),
        (
            {"hardware": {"baudrate": 9600}},
            ConnectError,
            "address and line settings right",
        ),
        (
            {"settings": {"full_scale_ml_per_min": 5e5}},
            ConfigurationError,
            "lab file says full_scale_ml_per_min 500000, but .*FPF says 500, the model",
        ),
        (
            {"twin": {"flow_unit": "SLPM"}},
            ConfigurationError,
            "FPF says 500000.*is the unit of flow right",
        ),
        (
            {"settings": {"flow_unit": "SLPM"}},
            ConfigurationError,
            "flow_unit SLPM, the controller says SCCM",
        ),
        (
            {"twin": {"describes_frame": False}},
            ConfigurationError,
            "state settings.flow_unit",
        ),
        (
            {
                "settings": {"flow_unit": "SLPM"},
                "twin": {"describes_frame": False, "firmware": "5v12"},
            },
            ConfigurationError,
            "would not count in steps of 100 mL/min; is flow_unit right",
        ),
        (
            {
                "settings": {"flow_unit": "SCCM"},
                "twin": {
                    "describes_frame": False,
                    "firmware": "5v12",
                    "full_scale": 0.5,
                    "flow_unit": "SLPM",
                },
            },
            ConfigurationError,
            "would not count in steps of 0.001 mL/min; is flow_unit right",
        ),
    ],
)
def test_connect_is_refused_when_lab_file_and_instrument_differ(
    play: Play, lab: dict[str, Any], error: type[Exception], text: str
) -> None:
    """A swapped instrument or a unit that is off by 1000 is found before any flow."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(error, match=text):
            await bench.driver.connect_link()
        assert bench.n_sent(b"AS") == bench.n_sent(b"AG") == 0

    play(on_bench(scenario, lab_file(**lab), connects=False))


@pytest.mark.parametrize("firmware", ["5v12", "10v20"])
def test_default_frame_is_read_when_the_instrument_describes_none(
    play: Play, firmware: str
) -> None:
    """With the unit stated in the lab file, the manual's frame is understood."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.set(ARGON)
        assert bench.supplied() == ("Ar", pytest.approx(100.0))

    lab = lab_file(
        settings={"flow_unit": "SCCM"},
        twin={"firmware": firmware, "describes_frame": False},
    )
    play(on_bench(scenario, lab))


@pytest.mark.parametrize("command", [b"A??D*", b"AFPF 5"])
def test_controller_may_ignore_what_its_firmware_lacks(
    play: Play, command: bytes
) -> None:
    """Silence to a question about itself leaves what the lab file says."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(command, lambda _: [])
        await bench.driver.connect_link()
        await bench.driver.set(ARGON)
        assert bench.n_sent(command) == 1

    play(on_bench(scenario, lab_file(settings={"flow_unit": "SCCM"}), connects=False))


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"AVE", b"220 smtp ready\r"),
        (b"A??M*", b"A  M00 ALICAT SCIENTIFIC\rA  M09 Software Revision 10v20\r"),
        (b"A??D*", b"A D00 nonsense\rmore\r\r"),
    ],
)
def test_connect_is_refused_when_a_stranger_answers(
    play: Play, command: bytes, answer: bytes
) -> None:
    """Something that speaks in lines is not taken for a flow controller."""

    async def scenario(bench: Bench) -> None:
        bench.spoil(command, lambda _: [Answer(answer)])
        with pytest.raises(ConnectError, match="is no Alicat flow controller"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


def test_connect_is_refused_when_the_pressure_is_controlled(play: Play) -> None:
    """A setpoint in PSIA is none in SCCM."""

    async def scenario(bench: Bench) -> None:
        def as_pressure(answers: list[Answer]) -> list[Answer]:
            (answer,) = answers
            text = answer.at(0.0).replace(
                b"s decimal     7/2 012 02 SCCM\rA D07",
                b"s decimal 7/2 010 02 PSIA\rA D07",
            )
            assert text != answer.at(0.0)
            return [Answer(text)]

        bench.spoil(b"A??D*", as_pressure)
        with pytest.raises(ConfigurationError, match="'SCCM' and controls 'PSIA'"):
            await bench.driver.connect_link()

    play(on_bench(scenario, connects=False))


def test_contradiction_in_the_lab_file_is_named() -> None:
    """A limit above the range of the instrument is found without it."""
    settings = AlicatMfcSettings.model_validate(SETTINGS)
    limits = AlicatMfcLimits(flow_ml_per_min=(0, 600))

    (found,) = AlicatMfc.inconsistencies(settings, limits)

    assert "allows 600 mL/min, but full_scale_ml_per_min is 500" in found


def test_request_in_a_mock_needs_no_controller(play: Play) -> None:
    """Plans can be tried against a mock that keeps units."""

    async def scenario(bench: Bench) -> None:
        await bench.driver.connect(mock=True)
        described = await bench.driver.describe()
        assert described["mfc_pressure"]["units"] == "bar"
        assert bench.driver.supplies == "furnace_2"
        assert bench.driver.gases == ("Ar", "O2")

    play(on_bench(scenario, connects=False))


# -- orphans, and jobs on hold --------------------------------------------------------


@pytest.mark.parametrize("state", [None, "keep", "close"])
def test_gas_without_an_owner_flows_on_unless_the_lab_closes_it(
    play: Play, state: str | None
) -> None:
    """A firing that goes on needs its gas; a second call has nothing to do."""
    lab = lab_file()
    name = next(iter(lab.devices))
    entry = lab.devices[name].model_copy(update={"on_orphan": state})

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.go_to_orphan_state() == ""
        await bench.driver.set(ARGON)
        assert await bench.driver.go_to_orphan_state() == ""
        bench.driver._asked = None  # as another process would see it
        said = await bench.driver.go_to_orphan_state()
        words = {None: "", "keep": "left alone", "close": "closed, verified"}
        assert words[state] in said
        assert (bench.supplied()[1] == 0.0) is (state == "close")
        if state == "close":
            assert await bench.driver.go_to_orphan_state() == ""

    play(on_bench(scenario, lab.model_copy(update={"devices": {name: entry}})))


def test_gas_of_a_job_on_hold_is_closed_if_the_lab_says_so(play: Play) -> None:
    """What this job lets flow, and nothing else."""
    lab = lab_file()
    name = next(iter(lab.devices))
    entry = lab.devices[name].model_copy(update={"on_hold": "close"})

    async def scenario(bench: Bench) -> None:
        assert await bench.driver.go_to_hold_state() == ""
        await bench.driver.set(ARGON)
        assert "closed, verified" in await bench.driver.go_to_hold_state()

    play(on_bench(scenario, lab.model_copy(update={"devices": {name: entry}})))
