"""Alicat mass-flow controllers (MC and MCS series) that speak ASCII."""

from ppu_drivers.alicat_mfc._codec import (
    Column,
    Command,
    Frame,
    Layout,
    Poll,
    UnitId,
    Word,
    encode,
    parse_frame,
    parse_layout,
)
from ppu_drivers.alicat_mfc._driver import AlicatMfc
from ppu_drivers.alicat_mfc._settings import AlicatMfcLimits, AlicatMfcSettings
from ppu_drivers.alicat_mfc._watch import FlowRecord

__all__ = [
    "AlicatMfc",
    "AlicatMfcLimits",
    "AlicatMfcSettings",
    "Column",
    "Command",
    "FlowRecord",
    "Frame",
    "Layout",
    "Poll",
    "UnitId",
    "Word",
    "encode",
    "parse_frame",
    "parse_layout",
]
