"""Mettler Toledo balances that speak MT-SICS over a serial line."""

from ppu_drivers.mettler_sics._codec import (
    Weight,
    acknowledgement_of,
    ends_answer_to,
    parse_mass,
    parse_stable_weight,
    parse_text,
    parse_weight,
)
from ppu_drivers.mettler_sics._driver import (
    MettlerSics,
    MettlerSicsLimits,
    MettlerSicsSettings,
)

__all__ = [
    "MettlerSics",
    "MettlerSicsLimits",
    "MettlerSicsSettings",
    "Weight",
    "acknowledgement_of",
    "ends_answer_to",
    "parse_mass",
    "parse_stable_weight",
    "parse_text",
    "parse_weight",
]
