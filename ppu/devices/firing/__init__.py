"""Furnaces whose controller has a programmer of its own.

The controller runs the firing; the driver samples it, judges every sample, and takes
the power off when something is wrong. Each part is handed what it needs.
"""

from ppu.core.specifications import DwellUnit, ProgramRoom
from ppu.devices.firing._controller import (
    ProgramSettings,
    apply_settings,
    compare_settings,
    find_changed,
    set_if_different,
)
from ppu.devices.firing._dwells import DwellWatch
from ppu.devices.firing._firing import Firing
from ppu.devices.firing._furnace import ProgrammedFurnace, ProgramStates
from ppu.devices.firing._heater import SAFE_TO_TOUCH_DEGC, HeaterSwitch, LoopMode
from ppu.devices.firing._heating import HeatingWatch
from ppu.devices.firing._samples import Sample
from ppu.devices.firing._settings import (
    FiringSettings,
    FurnaceLimits,
    find_limit_contradictions,
)
from ppu.devices.firing._watch import FiringWatch

__all__ = [
    "SAFE_TO_TOUCH_DEGC",
    "DwellUnit",
    "DwellWatch",
    "Firing",
    "FiringSettings",
    "FiringWatch",
    "FurnaceLimits",
    "HeaterSwitch",
    "HeatingWatch",
    "LoopMode",
    "ProgramRoom",
    "ProgramSettings",
    "ProgramStates",
    "ProgrammedFurnace",
    "Sample",
    "apply_settings",
    "compare_settings",
    "find_changed",
    "find_limit_contradictions",
    "set_if_different",
]
