"""Eurotherm EPC3016 controller of a box furnace, over Modbus TCP.

The controller runs the firing with its own programmer (end type *reset*). Its
communications watchdog takes the power off when nobody talks to it any more: the
driver feeds it by sampling and refuses to heat without it, unless the lab file waives
it in writing. Every setting that keeps people safe is read back and compared with the
lab file before it may heat.
"""

from ppu_drivers.eurotherm_epc3016._driver import EurothermEpc3016
from ppu_drivers.eurotherm_epc3016._registers import ProgramMode, Switch, TimeUnit
from ppu_drivers.eurotherm_epc3016._settings import (
    EurothermEpc3016Limits,
    EurothermEpc3016Settings,
)

__all__ = [
    "EurothermEpc3016",
    "EurothermEpc3016Limits",
    "EurothermEpc3016Settings",
    "ProgramMode",
    "Switch",
    "TimeUnit",
]
