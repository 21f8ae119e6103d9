"""Eurotherm 3216 controller of a box furnace, over Modbus RTU.

The controller runs the firing with its own programmer (end type *reset*), so it keeps
its program without us; the driver loads it, starts it, and samples. Every setting that
keeps people safe is read back and compared with the lab file before it may heat.
"""

from ppu_drivers.eurotherm_3216._driver import (
    EndType,
    Eurotherm3216,
    Eurotherm3216Limits,
    Eurotherm3216Settings,
    ProgramStatus,
)

__all__ = [
    "EndType",
    "Eurotherm3216",
    "Eurotherm3216Limits",
    "Eurotherm3216Settings",
    "ProgramStatus",
]
