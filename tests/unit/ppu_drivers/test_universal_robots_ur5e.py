"""What the lab file may say of an arm, and how it is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from ppu_drivers.universal_robots_ur5e import UniversalRobotsUr5eSettings, split_route

CARRY = {"program": "a.urp", "duration_s": 40}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"programs": {"rack_1.1 to pan": CARRY}}, "'rack_1.1 to pan' is no route"),
        ({"programs": {"a -> a": CARRY}}, "'a -> a' leads nowhere"),
        ({"programs": {"a -> b": {"program": "a.urp"}}}, "duration_s\n.*required"),
        ({"programs": {"a -> b": {**CARRY, "program": "a b.urp"}}}, "pattern"),
        ({"programs": {"a -> b": {**CARRY, "program": "a.txt"}}}, "pattern"),
        ({"programs": {"a -> b": {**CARRY, "duration_s": 0}}}, "greater than 0"),
        ({"programs": {"a -> b": {**CARRY, "speed": 1}}}, "Extra inputs"),
        (
            {
                "tasks": {
                    "grind": {**CARRY, "station": "a"},
                    "mount_powder": {**CARRY, "station": "b", "holder_station": "c"},
                }
            },
            "grind.station a and mount_powder.station b should be the same",
        ),
    ],
)
def test_settings_are_refused_when_they_cannot_be(
    settings: dict[str, Any], told: str
) -> None:
    """Each kind of fault is told in words."""
    with pytest.raises(ValidationError, match=told):
        UniversalRobotsUr5eSettings.model_validate(settings)


def test_every_fault_is_told_when_several_routes_are_wrong() -> None:
    """One message names all of them."""
    wrong = {"programs": {"a": CARRY, "b": CARRY, "c -> d": {"program": "x"}}}
    with pytest.raises(ValidationError) as caught:
        UniversalRobotsUr5eSettings.model_validate(wrong)

    assert caught.value.error_count() == 4


def test_route_is_split_at_its_arrow() -> None:
    """Locations have dots and digits of their own."""
    assert split_route("furnace_1.slot_1 -> rack_1.4") == (
        "furnace_1.slot_1",
        "rack_1.4",
    )
