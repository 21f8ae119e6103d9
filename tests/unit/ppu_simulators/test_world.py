"""The world of a lab: what may be done in it, and what it records."""

import math

import pytest

from ppu.core.labfile import LabFile
from ppu_simulators.instruments._hand import Feel, Hand
from ppu_simulators.world import FLOOR, Container, Refused, World

OVEN_DEGC = 250.0


class Oven:
    """Something hot with a place inside."""

    name = "oven"
    chamber_degc = OVEN_DEGC

    def advance(self, time: float) -> None:
        """Stay as hot as it is."""

    def put_in(self, container: Container, time: float) -> None:
        """Take no note."""

    def take_out(self, container: Container, time: float) -> None:
        """Let it leave as hot as the oven."""
        container.temperature_kelvin = OVEN_DEGC + 273.15
        container.put_at_s = time


@pytest.fixture
def world() -> World:
    """A rack, an oven with a door, and a station for holders."""
    file = LabFile.model_validate(
        {
            "lab": "tiny",
            "schema_version": 1,
            "devices": {"oven": {"driver": "nowhere:Oven"}},
            "locations": {
                "rack.1": {"holds": "crucible"},
                "rack.2": {"holds": "crucible"},
                "oven.slot": {"holds": "crucible", "inside": "oven"},
                "tray.1": {"holds": "holder"},
            },
            "containers": {
                "cup": {
                    "kind": "crucible",
                    "at": "rack.1",
                    "capacity_ml": 20,
                    "tare_g": 18,
                    "contents": {"CaCO3": 2.0},
                },
                "pot": {
                    "kind": "crucible",
                    "at": "rack.2",
                    "capacity_ml": 20,
                    "tare_g": 18,
                    "contents": {"BaCO3": 2.0},
                },
                "holder": {
                    "kind": "holder",
                    "at": "tray.1",
                    "capacity_ml": 1,
                    "tare_g": 25,
                },
            },
        }
    )
    world = World(file, seed=1)
    world.add_process(Oven())
    return world


def kinds(world: World) -> list[str]:
    """Return the kinds of incident so far."""
    return [incident.kind for incident in world.incidents]


def test_drop_spills_and_loses_no_element(world: World) -> None:
    """What fell out is still in the world, and the crucible lies where it fell."""
    before = world.elements()
    world.pick_up(0.0, "cup", "rack.1", "arm")
    world.drop(5.0, "cup", "arm")

    assert world.containers["cup"].at == FLOOR
    assert world.containers["cup"].matter.mass_g < 1.0
    assert kinds(world) == ["drop", "spill"]
    assert world.elements() == pytest.approx(before)


def test_closed_door_is_hit_and_an_open_one_is_not(world: World) -> None:
    """Reaching for a place behind a closed door is a collision."""
    assert world.reach(0.0, "oven.slot", "arm")  # no door at all
    world.add_door("oven")
    assert not world.reach(1.0, "oven.slot", "arm")
    assert kinds(world) == ["collision"]
    world.move_door(2.0, "oven", True, "door")
    assert world.reach(3.0, "oven.slot", "arm")


def test_door_of_a_hot_furnace_is_an_incident_when_it_opens(world: World) -> None:
    """Opening counts, staying open and closing do not."""
    world.add_door("oven")
    world.move_door(0.0, "oven", True, "door")
    world.move_door(1.0, "oven", True, "door")
    world.move_door(2.0, "oven", False, "door")

    assert kinds(world) == ["hot door"]
    assert "250 degC" in world.incidents[0].text


def test_container_stays_in_the_hand_when_its_place_is_wrong_or_taken(
    world: World,
) -> None:
    """A wrong and a taken place are incidents, and nothing stands there then."""
    world.pick_up(0.0, "cup", "rack.1", "arm")
    for place, kind in (("tray.1", "double place"), ("rack.2", "double place")):
        with pytest.raises(Refused):
            world.put_down(1.0, "cup", place, "arm")
        assert kinds(world)[-1] == kind
    world.containers["holder"].at = FLOOR
    with pytest.raises(Refused, match="holds a holder, not a crucible"):
        world.put_down(2.0, "cup", "tray.1", "arm")

    assert kinds(world)[-1] == "wrong place"
    assert world.containers["cup"].at is None


def test_tool_carries_a_trace_of_one_sample_into_the_next(world: World) -> None:
    """A second sample of another kind is contaminated; elements are conserved."""
    before = world.elements()
    cup, pot = world.containers["cup"], world.containers["pot"]
    holder = world.containers["holder"]
    world.recover_and_mount(0.0, cup, holder, "arm")
    assert kinds(world) == []
    world.recover_and_mount(1.0, pot, holder, "arm")

    assert kinds(world) == ["contamination"]
    assert 0.0 < holder.matter.masses_g()["CaCO3"] < 0.02
    assert world.elements() == pytest.approx(before)


def test_tool_does_no_harm_when_the_next_sample_is_the_same(world: World) -> None:
    """A trace of the same substance is no contamination."""
    cup, holder = world.containers["cup"], world.containers["holder"]
    world.recover_and_mount(0.0, cup, holder, "arm")
    world.recover_and_mount(1.0, cup, holder, "arm")

    assert kinds(world) == []


def test_container_that_gets_hotter_than_it_bears_is_recorded_once(
    world: World,
) -> None:
    """Over-temperature of a container is one incident, however long it lasts."""
    cup = world.containers["cup"]
    cup.max_degc = 200.0
    for time in (0.0, 10.0, 20.0):
        world.note_heated(time, cup, "oven")

    assert kinds(world) == ["over-temperature"]


def test_gas_is_air_until_something_flows(world: World) -> None:
    """A furnace that nobody supplies stands in air."""
    assert world.gas_into("oven") == ("air", 0.0)
    world.supply_gas(5.0, "oven", "O2", 100.0)
    assert world.gas_into("oven") == ("O2", 100.0)


def test_world_counts_what_cannot_be_undone(world: World) -> None:
    """Whoever looks for what was done twice finds each act, and when."""
    cup, holder = world.containers["cup"], world.containers["holder"]
    world.pick_up(1.0, "cup", "rack.1", "arm")
    world.put_down(2.0, "cup", "rack.1", "arm")
    world.pour(3.0, cup, world.containers["pot"].matter, "doser")
    world.grind(4.0, cup, 60.0)
    world.grind(5.0, cup, 60.0)
    world.recover_and_mount(6.0, cup, holder, "arm")

    assert world.acts == {
        "move cup to rack.1": [2.0],
        "dose BaCO3 into cup": [3.0],
        "grind cup": [4.0, 5.0],
        "mount cup on holder": [6.0],
    }


# -- people ------------------------------------------------------------------------


def test_person_carries_what_lies_on_the_floor(world: World) -> None:
    """A container that was dropped, or is elsewhere than believed, is not lost."""
    world.pick_up(0.0, "cup", "rack.1", "arm")
    world.drop(5.0, "cup", "arm")
    n_incidents = len(world.incidents)
    world.carry(10.0, "cup", "oven.slot")
    world.carry(20.0, "cup", "oven.slot")

    assert world.at("oven.slot") is world.containers["cup"]
    assert len(world.incidents) == n_incidents
    assert world.acts == {"move cup to oven.slot": [10.0]}


def test_person_takes_a_container_out_of_a_gripper(world: World) -> None:
    """The hand feels that it is gone; what a busy person holds stays there."""
    hand = Hand(world, "arm")
    hand.grip(0.0, "rack.1", 39.0)
    world.carry(10.0, "cup", "rack.1")
    world.pick_up(20.0, "pot", "rack.2", "operator")
    with pytest.raises(Refused, match="pot is in somebody's hands"):
        world.carry(21.0, "pot", "rack.2")

    assert (hand.holds, hand.feel(30.0)) == (None, Feel.DROPPED)
    assert world.containers["cup"].at == "rack.1"
    assert world.incidents == []


@pytest.mark.parametrize(
    ("container", "destination", "told"),
    [
        ("jug", "rack.1", "there is no container jug"),
        ("cup", "rack.9", "there is no place called rack.9"),
        ("cup", "rack.2", "taken by pot"),
        ("cup", "tray.1", "tray.1 holds a holder, not a crucible"),
    ],
)
def test_person_looks_before_carrying(
    world: World, container: str, destination: str, told: str
) -> None:
    """What cannot be is refused; nothing was touched and nothing went wrong."""
    with pytest.raises(Refused, match=told):
        world.carry(1.0, container, destination)

    assert world.incidents == []
    assert world.containers["cup"].at == "rack.1"


def test_person_opens_a_door_and_closes_it_again(world: World) -> None:
    """A container is put behind a door and taken out; a hot one is an incident."""
    world.add_door("oven")
    world.carry(1.0, "cup", "oven.slot")
    inside = world.at("oven.slot")
    with pytest.raises(Refused, match=r"cup is at oven\.slot; carry it to the bench"):
        world.empty(2.0, "cup")
    world.carry(3.0, "cup", "rack.1")

    assert inside is world.at("rack.1") is world.containers["cup"]
    assert not world.is_door_open("oven")
    assert kinds(world) == ["hot door", "hot door"]


def test_person_leaves_an_open_door_open(world: World) -> None:
    """Only whoever opened it closes it."""
    world.add_door("oven")
    world.move_door(0.0, "oven", True, "arm")
    world.carry(1.0, "cup", "oven.slot")

    assert world.is_door_open("oven")


def test_person_empties_a_container_within_reach(world: World) -> None:
    """What was in it is still in the world; inside a furnace it stays in it."""
    before = world.elements()
    world.empty(1.0, "cup")
    world.carry(2.0, "pot", "oven.slot")
    with pytest.raises(Refused, match=r"pot is at oven\.slot; carry it"):
        world.empty(3.0, "pot")

    assert world.containers["cup"].matter.mass_g == 0.0
    assert world.containers["pot"].matter.mass_g > 1.9
    assert world.elements() == pytest.approx(before)
    assert world.acts["empty cup"] == [1.0]


def test_person_refills_stock_of_powders_that_there_are() -> None:
    """With the same grains as before, and no impossible amounts."""
    entry = {"at": "shelf.1", "mass_g": 2.0, "purity": 0.99}
    file = LabFile.model_validate(
        {
            "lab": "stock",
            "schema_version": 1,
            "devices": {},
            "locations": {"shelf.1": {"holds": "crucible"}},
            "containers": {},
            "stock": {"BaCO3": entry | {"bulk_density_g_per_ml": 1.0}},
        }
    )
    world = World(file, seed=1)
    world.refill(1.0, "BaCO3", 50.0)
    for powder, mass_g in (("BaO", 1.0), ("BaCO3", 0.0), ("BaCO3", math.nan)):
        with pytest.raises(Refused):
            world.refill(2.0, powder, mass_g)

    assert world.stock["BaCO3"].mass_g == pytest.approx(52.0)
    assert world.stock["BaCO3"].volume_ml == pytest.approx(52.0)
