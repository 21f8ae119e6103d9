"""Malvern Panalytical Aeris diffractometer: remote interface and results folder.

The Aeris takes one message on one connection, and puts the scan as a file into a folder
that the lab computer can read. Adding a sample and starting a scan are never repeated.
"""

from ppu_drivers.panalytical_aeris._codec import (
    field_of,
    program_name,
    refuse_fatal,
    take_message,
)
from ppu_drivers.panalytical_aeris._driver import (
    AerisConnection,
    PanalyticalAeris,
    PanalyticalAerisLimits,
    PanalyticalAerisSettings,
)
from ppu_drivers.panalytical_aeris._xrdml import PowderScan, find_frozen, parse_scan

__all__ = [
    "AerisConnection",
    "PanalyticalAeris",
    "PanalyticalAerisLimits",
    "PanalyticalAerisSettings",
    "PowderScan",
    "field_of",
    "find_frozen",
    "parse_scan",
    "program_name",
    "refuse_fatal",
    "take_message",
]
