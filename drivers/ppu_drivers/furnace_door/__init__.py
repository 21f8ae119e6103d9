"""Motor-driven furnace doors behind a text controller (Arduino) over TCP.

One controller may drive several doors, each with a name of its own there. It serves
one request a connection.
"""

from ppu_drivers.furnace_door._codec import DoorStatus, parse_status
from ppu_drivers.furnace_door._driver import (
    FurnaceDoor,
    FurnaceDoorLimits,
    FurnaceDoorSettings,
)

__all__ = [
    "DoorStatus",
    "FurnaceDoor",
    "FurnaceDoorLimits",
    "FurnaceDoorSettings",
    "parse_status",
]
