"""DH-Robotics electric grippers over Modbus RTU: the hand of an arm, seen by itself.

The arm's programs open and close the gripper. The driver makes it ready, and watches
what its fingers feel while a program plays; it never moves them in between.
"""

from ppu_drivers.dh_gripper._driver import (
    DhGripper,
    DhGripperSettings,
    GripState,
    ReadyState,
)

__all__ = [
    "DhGripper",
    "DhGripperSettings",
    "GripState",
    "ReadyState",
]
