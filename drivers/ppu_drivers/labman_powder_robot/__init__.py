"""Labman powder robot of an automated solid-state laboratory, JSON over HTTP.

The robot's indexing rack faces either a person (or arm) or the robot. Pots are declared
while the rack faces outwards; giving the rack back starts the work. Declaring pots and
giving the rack back are never repeated: the status tells whether they came through.
"""

from ppu_drivers.labman_powder_robot._codec import (
    DosingHead,
    RobotStatus,
    parse_heads,
    parse_results,
    parse_status,
    parse_verdict,
    unwrap,
)
from ppu_drivers.labman_powder_robot._driver import (
    LabmanPowderRobot,
    LabmanPowderRobotLimits,
    LabmanPowderRobotSettings,
)

__all__ = [
    "DosingHead",
    "LabmanPowderRobot",
    "LabmanPowderRobotLimits",
    "LabmanPowderRobotSettings",
    "RobotStatus",
    "parse_heads",
    "parse_results",
    "parse_status",
    "parse_verdict",
    "unwrap",
]
