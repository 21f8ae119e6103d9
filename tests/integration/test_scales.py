"""Numbers in another scale, and values with a flag that takes them back.

For each instrument whose numbers are scaled by what somebody can set at it: whatever it
is set to, what is read is true or not there.
"""

import asyncio
import itertools
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration import test_alicat_mfc as alicat
from integration import test_eurotherm_3216 as of_3216
from integration import test_eurotherm_epc3016 as of_epc
from ppu.core.capabilities import FiringProfile, Segment
from ppu.core.errors import (
    ConfigurationError,
    InstrumentError,
    MalformedReply,
)
from ppu.core.labfile import LabFile
from ppu.devices import write
from ppu.devices.readings import Quality
from ppu.transports.serial import SerialConnection
from ppu_drivers.alicat_mfc._codec import DEFAULT_LAYOUT, UNTRUE_STATES, parse_frame
from ppu_drivers.mettler_sics import MettlerSics, parse_stable_weight, parse_weight
from ppu_drivers.panalytical_aeris._xrdml import parse_scan
from ppu_simulators.instruments._display import ShownRegisters
from ppu_simulators.instruments.eurotherm_3216 import _KINDS
from ppu_simulators.instruments.mettler_sics import SimulatedMettlerSics
from ppu_simulators.world import World

Play = Callable[[Coroutine[Any, Any, Any]], Any]

FURNACES = pytest.mark.parametrize(
    ("of", "decimals_at"), [(of_3216, 525), (of_epc, 1922)], ids=["3216", "epc3016"]
)


# -- furnaces --------------------------------------------------------------------------


@FURNACES
@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("degc", [-20.0, 0.0, 25.0, 98.0, 300.0, 980.0])
def test_furnace_reads_what_its_chamber_has_whatever_is_shown(
    play: Play, of: Any, decimals_at: int, decimals: int, degc: float
) -> None:
    """It is the temperature, also where 16 bits cannot tell it."""
    del decimals_at

    async def scenario(bench: Any) -> None:
        bench.simulated.chamber.pv_degc = degc
        reading = await bench.driver.read_signal("process_value")
        assert reading["value"] == pytest.approx(degc, abs=0.51 * 10**-decimals)
        assert bench.driver.quality(reading) is Quality.GOOD

    lab = of.lab_file(twin={"decimals": decimals})
    play(of.on_bench(scenario, lab))


@FURNACES
@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("units", [1, 2])
def test_furnace_of_another_unit_is_refused(
    play: Play, of: Any, decimals_at: int, decimals: int, units: int
) -> None:
    """A driver that would have to guess the unit does not connect."""
    del decimals_at

    async def scenario(bench: Any) -> None:
        with pytest.raises(ConfigurationError, match="not shown in degC: register 516"):
            await bench.driver.connect_link()

    lab = of.lab_file(twin={"decimals": decimals, "units": units})
    play(of.on_bench(scenario, lab, connects=False))


@FURNACES
@pytest.mark.parametrize(
    ("before", "after"), list(itertools.permutations((0, 1, 2), 2))
)
def test_furnace_notices_when_its_display_is_changed(
    play: Play, of: Any, decimals_at: int, before: int, after: int
) -> None:
    """The next reading has the new digits, and what is written has them, too."""

    async def scenario(bench: Any) -> None:
        bench.simulated.chamber.pv_degc = 120.0
        assert await bench.driver.process_value.get_value() == 120.0
        bench.touch(decimals_at, after)
        bench.simulated.chamber.pv_degc = 120.0
        assert await bench.driver.process_value.get_value() == pytest.approx(120, abs=2)
        await write(bench.driver.idle_setpoint, 40.0)
        assert bench.simulated._registers[24] == 40.0

    lab = of.lab_file(twin={"decimals": before})
    play(of.on_bench(scenario, lab))


@FURNACES
def test_firing_goes_on_when_only_the_digits_are_changed(
    play: Play, of: Any, decimals_at: int
) -> None:
    """The samples are temperatures before and after somebody was at the panel."""
    profile = FiringProfile((Segment(150.0, 10.0, 1800.0),), cool_to_degc=140.0)

    async def scenario(bench: Any) -> None:
        await bench.driver.prepare(profile)
        await bench.driver.kickoff()
        await asyncio.sleep(1200.0)
        bench.touch(decimals_at, 2)
        await bench.driver.complete()
        record = bench.driver.last_firing
        assert record.dwell_temperature_degc == pytest.approx(155, abs=10)
        assert record.max_temperature_degc < 180

    play(of.on_bench(scenario))


@FURNACES
def test_firing_ends_when_the_unit_is_changed(
    play: Play, of: Any, decimals_at: int
) -> None:
    """Nobody knows then how hot it is, so the heater is switched off."""
    del decimals_at
    profile = FiringProfile((Segment(150.0, 10.0, 1800.0),), cool_to_degc=140.0)

    async def scenario(bench: Any) -> None:
        await bench.driver.prepare(profile)
        await bench.driver.kickoff()
        await asyncio.sleep(1200.0)
        bench.touch(516, 1)
        with pytest.raises(InstrumentError, match=r"not shown in degC.*heater is off"):
            await bench.driver.complete()
        bench.world.advance(
            bench.driver.link._lock and asyncio.get_running_loop().time()
        )
        assert bench.simulated.chamber.output == 0.0

    play(of.on_bench(scenario))


@given(
    register=st.sampled_from(sorted(_KINDS)),
    decimals=st.integers(0, 2),
    unit=st.integers(0, 2),
    word=st.integers(0, 0xFFFF),
)
@settings(max_examples=300)
def test_simulated_registers_mean_one_number_in_both_regions(
    register: int, decimals: int, unit: int, word: int
) -> None:
    """What is written as an integer reads back, and the float region says the same."""
    shown = ShownRegisters(_KINDS, decimals=lambda: decimals, unit=lambda: unit)
    number = shown.from_word(register, word)

    assert shown.to_word(register, number) == word
    floats = shown.read_floats({register: number}, 0x8000 + 2 * register, 2)
    (told,) = struct.unpack(">f", struct.pack(">HH", *floats))
    (written,) = shown.numbers(0x8000 + 2 * register, floats).values()
    assert told == pytest.approx(shown.in_unit(register, number), rel=1e-6, abs=1e-3)
    assert written == pytest.approx(number, rel=1e-5, abs=1e-3)


# -- balances --------------------------------------------------------------------------

FORMS = list(
    itertools.product(("g", "mg", "kg"), (False, True), (False, True), ("crlf", "cr"))
)


def balance_lab(twin: dict[str, Any]) -> LabFile:
    """Return a lab with one balance and a vessel of 20 g on it."""
    return LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {
                "balance": {
                    "driver": "ppu_drivers.mettler_sics:MettlerSics",
                    "slots": ["balance.pan"],
                    "twin": twin,
                }
            },
            "locations": {"balance.pan": {"holds": "vessel", "inside": "balance"}},
            "containers": {
                "vessel": {
                    "kind": "vessel",
                    "at": "balance.pan",
                    "capacity_ml": 20,
                    "tare_g": 20.0,
                }
            },
        }
    )


def at_balance(
    play: Play,
    twin: dict[str, Any],
    scene: Callable[[MettlerSics, SimulatedMettlerSics], Coroutine[Any, Any, None]],
) -> None:
    """Play *scene* with a balance of that kind and its driver."""

    async def run() -> None:
        lab = balance_lab(twin)
        entry = lab.devices["balance"]
        simulated = SimulatedMettlerSics("balance", entry, World(lab, 1), "4711")
        driver = MettlerSics(
            "balance",
            entry,
            SerialConnection.model_validate(await simulated.start()),
            MettlerSics.settings_model(),
            MettlerSics.limits_model(),
        )
        try:
            await driver.connect_link()
            await scene(driver, simulated)
        finally:
            await driver.disconnect()
            await simulated.stop()

    play(run())


@pytest.mark.parametrize(("unit", "comma", "plus", "end"), FORMS)
def test_balance_weighs_in_gram_whatever_it_sends(
    play: Play, unit: str, comma: bool, plus: bool, end: str
) -> None:
    """Unit, decimal sign, plus sign and line end change no mass."""
    number = FORMS.index((unit, comma, plus, end))
    twin = {
        "unit": unit,
        "decimal_comma": comma,
        "plus_sign": plus,
        "ends_with": end,
        "knows_serial_number": number % 3 != 0,
        "waits_for_stability": number % 2 != 0,
    }

    async def scene(driver: MettlerSics, simulated: SimulatedMettlerSics) -> None:
        del simulated
        identity = driver.identity
        assert identity is not None
        assert identity.serial_number == ("4711" if number % 3 else None)
        await driver.trigger()
        mass = (await driver.mass.read())[driver.mass.name]["value"]
        assert mass == pytest.approx(20.0, abs=0.001)
        await driver.tare.trigger()
        await driver.trigger()
        mass = (await driver.mass.read())[driver.mass.name]["value"]
        assert mass == pytest.approx(0.0, abs=0.001)

    at_balance(play, twin, scene)


@pytest.mark.parametrize("waits", [False, True])
def test_balance_keeps_no_weight_that_still_changes(play: Play, waits: bool) -> None:
    """Just loaded, it is asked until the weight is stable, whoever waits."""

    async def scene(driver: MettlerSics, simulated: SimulatedMettlerSics) -> None:
        loop = asyncio.get_running_loop()
        world = simulated._world
        world.pick_up(loop.time(), "vessel", "balance.pan", "test")
        await asyncio.sleep(30.0)
        world.put_down(loop.time(), "vessel", "balance.pan", "test")
        assert not await driver.is_stable.get_value()
        await driver.trigger()
        assert await driver.is_stable.get_value()
        mass = (await driver.mass.read())[driver.mass.name]["value"]
        assert mass == pytest.approx(20.0, abs=0.001)

    at_balance(play, {"waits_for_stability": waits}, scene)


@pytest.mark.parametrize("command", ["tare_", "zero", "weight", "identity"])
def test_balance_is_not_misread_when_somebody_presses_print(
    play: Play, command: str
) -> None:
    """A line that nobody asked for answers nothing."""

    async def scene(driver: MettlerSics, simulated: SimulatedMettlerSics) -> None:
        loop = asyncio.get_running_loop()
        for wait in (0.0, 0.004, 0.012, 0.02):
            loop.call_later(wait, lambda: simulated.print_key(loop.time()))
        if command == "identity":
            assert (await driver.read_identity()).serial_number == "4711"
            return
        if command == "weight":
            await driver.trigger()
            mass = (await driver.mass.read())[driver.mass.name]["value"]
            assert mass == pytest.approx(20.0, abs=0.001)
            return
        await getattr(driver, command).trigger()
        await driver.trigger()
        mass = (await driver.mass.read())[driver.mass.name]["value"]
        assert mass == pytest.approx(0.0, abs=0.001)

    at_balance(play, {}, scene)


@given(
    mass=st.decimals(-200, 200, places=4),
    unit=st.sampled_from(["g", "mg", "kg"]),
    state=st.sampled_from("SD"),
    comma=st.booleans(),
    sign=st.booleans(),
)
def test_only_a_stable_weight_is_a_weight(
    mass: Any, unit: str, state: str, comma: bool, sign: bool
) -> None:
    """``S D`` is dynamic in every unit and notation: its value is told as such only."""
    text = f"{mass:+f}" if sign else f"{mass:f}"
    text = text.replace(".", ",") if comma else text
    line = f"S {state} {text:>10} {unit}"
    grams = {"g": 1.0, "mg": 1e-3, "kg": 1e3}[unit]
    weight = parse_weight([line])

    assert weight.mass_g == pytest.approx(float(mass) * grams)
    assert weight.is_stable is (state == "S")
    if state == "S":
        assert parse_stable_weight([line]) == weight
    else:
        with pytest.raises(InstrumentError, match="not stable"):
            parse_stable_weight([line])


# -- gas -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(UNTRUE_STATES))
@pytest.mark.parametrize("others", ["", " LCK", " OVR TMF"])
def test_flow_is_not_good_while_the_controller_takes_it_back(
    play: Play, code: str, others: str
) -> None:
    """A status that says that a reading is untrue makes it invalid, however read."""
    frame = parse_frame(
        f"A +014.70 +025.00 +02.004 +02.004 2.004 Air {code}{others}",
        DEFAULT_LAYOUT,
        "A",
        1000.0,
    )

    async def scenario(bench: Any) -> None:
        bench.driver._record_frame(frame)
        reading = await bench.driver.read_signal("flow")
        assert bench.driver.quality(reading) is Quality.INVALID
        assert code in reading["message"]

    play(alicat.on_bench(scenario))


# -- diffraction -----------------------------------------------------------------------

SCAN = """\
<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/1.5">
<sample><id>a</id></sample><xrdMeasurement><usedWavelength>
<kAlpha1{angstrom}>1.5406</kAlpha1><kAlpha2{angstrom}>1.5444</kAlpha2></usedWavelength>
<scan status="Completed"><dataPoints><positions axis="2Theta"{deg}>
<startPosition>10</startPosition><endPosition>90</endPosition></positions>
<commonCountingTime{seconds}>1.0</commonCountingTime>
<{name}{counts}>1 2 3 4</{name}></dataPoints></scan></xrdMeasurement></xrdMeasurements>
"""
RIGHT = {"angstrom": "Angstrom", "deg": "deg", "seconds": "seconds", "counts": "counts"}
WRONG = {"angstrom": "nm", "deg": "rad", "seconds": "minutes", "counts": "cps"}


@pytest.mark.parametrize("name", ["counts", "intensities"])
@pytest.mark.parametrize("wrong", [None, *WRONG])
@pytest.mark.parametrize("is_said", [True, False])
def test_scan_in_another_unit_is_no_scan(
    name: str, wrong: str | None, is_said: bool
) -> None:
    """Counts, degrees, seconds and angstrom, by either name; nothing is converted."""
    units = {key: f' unit="{value}"' if is_said else "" for key, value in RIGHT.items()}
    if wrong is not None:
        units[wrong] = f' unit="{WRONG[wrong]}"'
    content = SCAN.format(name=name, **units).encode()
    if wrong is None:
        assert list(parse_scan(content).counts) == [1, 2, 3, 4]
        return
    with pytest.raises(MalformedReply, match=WRONG[wrong]):
        parse_scan(content)
