"""The chamber that every simulated furnace controller is built into."""

from typing import Any

import pytest

from ppu.core.labfile import LabFile
from ppu.core.simulation import TwinSettingsError
from ppu_simulators.faults import Faults
from ppu_simulators.instruments._chamber import (
    CHAMBER_DEFAULTS,
    CHAMBER_FAULTS,
    BreakType,
    Chamber,
    ChamberGas,
    approach,
    registers_of,
)
from ppu_simulators.physics.reactions import AIR
from ppu_simulators.world import World


class Fixed:
    """A controller that holds one output, or one setpoint."""

    setpoint_degc = 0.0

    def __init__(self, output: float | None) -> None:
        self.manual_output = output

    def advance_program(self) -> None:
        """Do nothing."""

    def output_limits(self) -> tuple[float, float]:
        """Return all there is."""
        return 0.0, 1.0

    def break_type(self) -> BreakType:
        """Return that a broken sensor is noticed."""
        return "on"

    def output_when_broken(self) -> float:
        """Return no power."""
        return 0.0


def chamber(
    output: float | None = 0.5,
    *faults: dict[str, Any],
    setpoint: float = 0.0,
    contents: dict[str, float] | None = None,
    **twin: Any,
) -> tuple[Chamber, World]:
    """Return a chamber with a crucible, at a fixed output or setpoint."""
    lab = LabFile.model_validate(
        {
            "lab": "bench",
            "schema_version": 1,
            "devices": {"furnace": {"driver": "nobody:Cares"}},
            "locations": {"furnace.1": {"holds": "crucible", "inside": "furnace"}},
            "containers": {
                "crucible": {
                    "kind": "crucible",
                    "at": "furnace.1",
                    "capacity_ml": 20,
                    "tare_g": 18.2,
                    "contents": contents or {},
                }
            },
        }
    )
    world = World(lab, 1)
    firmware = Fixed(output)
    firmware.setpoint_degc = setpoint
    made = Chamber(
        "furnace",
        world,
        {**CHAMBER_DEFAULTS, **twin},
        firmware,
        Faults("furnace", faults, CHAMBER_FAULTS, world.rng("faults")),
    )
    world.add_process(made)
    return made, world


@pytest.mark.parametrize(("fault", "output"), [("element open", 1.0), ("", 0.0)])
def test_chamber_stays_cold_when_there_is_no_power(fault: str, output: float) -> None:
    """An open element is as good as no output."""
    cold, _ = chamber(output, *([{"fault": fault}] if fault else []))
    cold.advance(3600.0)

    assert cold.chamber_degc == pytest.approx(23.0, abs=0.01)
    assert cold.output == output


def test_chamber_heats_at_full_power_when_the_relay_is_welded() -> None:
    """The controller's output of 0 changes nothing."""
    welded, _ = chamber(0.0, {"fault": "relay welded"})
    full, _ = chamber(1.0)
    welded.advance(1800.0)
    full.advance(1800.0)

    assert welded.output == 0.0
    assert welded.chamber_degc == full.chamber_degc > 400


def test_reading_falls_as_the_chamber_heats_when_it_is_reversed() -> None:
    """Only the rise over the terminals turns round."""
    reversed_, _ = chamber(0.3, {"fault": "thermocouple reversed"})
    reversed_.advance(600.0)

    assert reversed_.chamber_degc > 40.0
    assert reversed_.pv_degc == pytest.approx(46.0 - reversed_.chamber_degc, abs=4.0)


def test_reading_is_low_and_slow_when_the_junction_slipped() -> None:
    """Twenty times the lag on the way to a part of the rise over the room."""
    script = {"fault": "thermocouple slipped", "at_s": 7200.0, "reads_fraction": 0.6}
    slipped, _ = chamber(None, script, setpoint=500.0)
    slipped.advance(7200.0)
    before = slipped.pv_degc
    slipped.advance(7260.0)
    after_a_minute = slipped.pv_degc
    slipped.advance(40_000.0)
    rise = slipped.chamber_degc - 23.0

    assert before - after_a_minute == pytest.approx(0.4 * 477 * 0.22, rel=0.2)
    assert slipped.pv_degc - 23.0 == pytest.approx(0.6 * rise, rel=0.01)
    assert rise > 750


def test_reading_stays_to_the_last_digit_when_the_sensor_is_frozen() -> None:
    """And goes on where the truth is when the fault is over."""
    frozen, _ = chamber(0.5, {"fault": "sensor frozen", "at_s": 100.0, "for_s": 500.0})
    frozen.advance(110.0)
    before = frozen.pv_degc
    frozen.advance(590.0)
    during = frozen.pv_degc
    frozen.advance(700.0)

    assert during == before
    assert frozen.pv_degc == pytest.approx(frozen.chamber_degc, abs=5.0)


def test_chamber_cools_faster_when_its_door_is_open() -> None:
    """The lining radiates into the room as soon as the world says so."""
    shut, _ = chamber(1.0)
    open_, world = chamber(1.0)
    world.add_door("furnace")
    world.move_door(600.0, "furnace", True, "somebody")
    shut.advance(1800.0)
    open_.advance(1800.0)

    assert open_.chamber_degc < shut.chamber_degc - 5.0


def test_chemistry_sees_the_gas_that_flows_in() -> None:
    """Limestone calcines at 650 degC in nitrogen, and hardly in CO2."""
    left = {}
    for gas in ("N2", "CO2"):
        hot, world = chamber(None, setpoint=650.0, contents={"CaCO3": 2.0})
        world.supply_gas(0.0, "furnace", gas, 500.0)
        hot.advance(4 * 3600.0)
        left[gas] = world.containers["crucible"].matter.masses_g().get("CaCO3", 0.0)

    assert left["N2"] < 0.5
    assert left["CO2"] > 1.9


# -- gas ------------------------------------------------------------------------------


def test_gas_is_exchanged_with_the_time_constant_of_the_chamber() -> None:
    """After volume / flow, 63.2 % of the way is done, at any step."""
    for n_steps in (1, 24):
        gas = ChamberGas(4000.0, AIR)
        for _ in range(n_steps):
            gas.mix("N2", 1000.0, 240.0 / n_steps, is_door_open=False)
        way = (AIR.p_o2_bar - gas.atmosphere.p_o2_bar) / (AIR.p_o2_bar - 1e-6)

        assert way == pytest.approx(0.6321, abs=1e-4)


def test_air_comes_back_when_the_gas_stops_or_the_door_opens() -> None:
    """Slowly by the gaps, at once by the door, and then it is air again."""
    by_gaps, by_door = ChamberGas(4000.0, AIR), ChamberGas(4000.0, AIR)
    for gas in (by_gaps, by_door):
        gas.mix("Ar", 1000.0, 7200.0, is_door_open=False)
        assert gas.atmosphere.p_o2_bar < 1e-5
    by_gaps.mix("Ar", 0.0, 60.0, is_door_open=False)
    by_door.mix("Ar", 0.0, 60.0, is_door_open=True)

    assert by_gaps.atmosphere.p_o2_bar < 0.01
    assert by_door.atmosphere.p_o2_bar > 0.19
    by_gaps.mix("air", 0.0, 1e6, is_door_open=False)
    assert by_gaps.atmosphere is AIR


@pytest.mark.parametrize(
    ("gas", "p_o2", "p_co2"), [("O2", 1.0, 0.0), ("CO2", 0.0, 1.0), ("Kr", 0.0, 0.0)]
)
def test_gas_brings_its_own_pressures(gas: str, p_o2: float, p_co2: float) -> None:
    """A flushed chamber holds what flows in; what is not known is inert."""
    inside = ChamberGas(4000.0, AIR)
    inside.mix(gas, 1000.0, 1e5, is_door_open=False)

    assert inside.atmosphere.p_o2_bar == pytest.approx(p_o2, abs=1e-5)
    assert inside.atmosphere.p_co2_bar == pytest.approx(p_co2, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "target", "step", "after"),
    [(0, 10, 3, 3), (10, 0, 3, 7), (9, 10, 3, 10), (0, 10, 0, 10), (0, 10, -1, 10)],
)
def test_approach_never_goes_past_its_target(
    value: float, target: float, step: float, after: float
) -> None:
    """One step of a ramp; without a rate it is there at once."""
    assert approach(value, target, step) == after


def test_registers_are_taken_as_the_lab_file_says() -> None:
    """Their content may be meant as signed; a lab file gives keys as text."""
    twin = {"registers": {13: 0xFFFF, "11": -500}}

    assert registers_of(twin) == {13: 0xFFFF, 11: -500}


@pytest.mark.parametrize(
    ("registers", "text"),
    [
        ({"x": 1}, "a register should be a whole number from 0 to 65535, not 'x'"),
        ({"²": 1}, "a register should be a whole number from 0 to 65535, not '²'"),
        ({-1: 1}, "a register should be a whole number from 0 to 65535, not -1"),
        (
            {"13": 1.5},
            "registers.13: should be a whole number from -32768 to 65535, not 1.5",
        ),
        (
            {13: True},
            "registers.13: should be a whole number from -32768 to 65535, not True",
        ),
        ({13: 65536}, "should be a whole number from -32768 to 65535, not 65536"),
    ],
)
def test_registers_are_refused_with_their_place_when_they_cannot_be(
    registers: dict[Any, Any], text: str
) -> None:
    """A person is led to the register, and told what would be right there."""
    with pytest.raises(TwinSettingsError, match=text) as caught:
        registers_of({"registers": registers})

    (place,) = (place for place, _ in caught.value.problems)
    assert place == ("registers", *registers)
