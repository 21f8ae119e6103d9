"""Universal Robots UR5e arm through the dashboard server of its controller.

The arm plays programs that somebody taught at its pendant; which program carries from
where to where stands in the lab file. Playing moves something, so ``play`` is sent
once; if its answer is lost, the controller is asked what it does.
"""

from ppu_drivers.universal_robots_ur5e._codec import (
    ProgramState,
    answer_beginning,
    field_named,
    is_state_of,
    parse_program_state,
    parse_remote_control,
)
from ppu_drivers.universal_robots_ur5e._driver import UniversalRobotsUr5e
from ppu_drivers.universal_robots_ur5e._settings import (
    CarryProgram,
    GrindProgram,
    MountProgram,
    UniversalRobotsUr5eLimits,
    UniversalRobotsUr5eSettings,
    UniversalRobotsUr5eTasks,
    split_route,
)

__all__ = [
    "CarryProgram",
    "GrindProgram",
    "MountProgram",
    "ProgramState",
    "UniversalRobotsUr5e",
    "UniversalRobotsUr5eLimits",
    "UniversalRobotsUr5eSettings",
    "UniversalRobotsUr5eTasks",
    "answer_beginning",
    "field_named",
    "is_state_of",
    "parse_program_state",
    "parse_remote_control",
    "split_route",
]
